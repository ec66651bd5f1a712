"""Reasons in words, in the language that a caller asks for. Pure, and remembers what it has made.

The one idea: few reasons are given in few languages, so each list of them is worded and encoded once for a decision's
definition; a decision without texts costs one look at an empty tuple.

A language is chosen as RFC 9110 and RFC 4647 say (lookup): the ranges of `Accept-Language` by their weight, each cut
from its end until a language of the texts is met, "de-AT" to "de"; a range meets the languages that it begins, too.
Where nothing fits it is the first one that the texts were declared in: an answer in another language is better than
none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from headrace.core.errors import InputError
from headrace.decisions.define import Decision

WORDED_MAX = 1_024  # lists of reasons that are remembered a decision; beyond, all are forgotten and made again
HEADERS_MAX = 256  # values of Accept-Language that are remembered a decision
RANGES_MAX = 32  # of one header; who sends more is not read further

_RANGE = re.compile(r"([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)(?:\s*;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?").fullmatch
_encode = msgspec.json.Encoder().encode


class ReasonText(msgspec.Struct, frozen=True):
    """A reason that was given, in words."""

    code: str
    text: str


class Texts:
    """One decision's, as one definition has them."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._by_lower = {language.lower(): language for language in decision.languages}
        self._chosen: dict[bytes | None, str] = {}
        self._worded: dict[tuple[str, tuple[str, ...]], msgspec.Raw] = {}

    def is_of(self, decision: Decision) -> bool:
        return self._decision is decision

    def language(self, asked: str | None, accepted: bytes | None) -> str:
        """asked: by name, or None. accepted: the header `Accept-Language`, or None."""
        if asked is not None and asked.lower() in self._by_lower:
            return self._by_lower[asked.lower()]
        found = self._chosen.get(accepted)
        if found is None:
            found = self._negotiated(accepted)
            if len(self._chosen) >= HEADERS_MAX:
                self._chosen.clear()
            self._chosen[accepted] = found
        return found

    def worded(self, reasons: Sequence[str], language: str) -> msgspec.Raw:
        """`ReasonText`s as JSON, in the reasons' order. A code that has no text, as one of a policy of before may, is
        left out."""
        key = language, tuple(reasons)
        found = self._worded.get(key)
        if found is None:
            said = [(code, self._decision.text(code, language)) for code in reasons]
            found = msgspec.Raw(_encode([ReasonText(code, text) for code, text in said if text is not None]))
            if len(self._worded) >= WORDED_MAX:
                self._worded.clear()
            self._worded[key] = found
        return found

    def _negotiated(self, accepted: bytes | None) -> str:
        first = self._decision.languages[0]
        for range in ranges(accepted or b""):
            if range == "*":
                return first
            parts = range.split("-")
            while parts:
                begun = "-".join(parts)
                if begun in self._by_lower:
                    return self._by_lower[begun]
                parts.pop()
            longer = next((own for low, own in self._by_lower.items() if low.startswith(f"{range}-")), None)
            if longer is not None:
                return longer
        return first


def check_language(decision: Decision, asked: str) -> None:
    """Raises: InputError HR-1007 where the decision has no texts in the language that was asked for by name."""
    if all(asked.lower() != language.lower() for language in decision.languages):
        there = f"it has them in {', '.join(decision.languages)}" if decision.texts else "it has no texts"
        raise InputError(
            "HR-1007",
            f"decision {decision.name!r} has no texts in language {asked[:80]!r}",
            detail=there,
            hint="the header Accept-Language asks for the nearest",
            field="language",
        )


def ranges(header: bytes) -> list[str]:
    """The ranges of an Accept-Language in lower case, the most wanted first; what cannot be read is passed over, as is
    what is not wanted (q=0)."""
    found: list[tuple[float, str]] = []
    for part in header.decode("latin-1").split(",", RANGES_MAX)[:RANGES_MAX]:
        read = _RANGE(part.strip())
        weight = 1.0 if read is None or read[2] is None else float(read[2])
        if read is not None and weight > 0:
            found.append((weight, read[1].lower()))
    return [range for _, range in sorted(found, key=lambda one: -one[0])]
