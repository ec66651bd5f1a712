"""Reasons: which code stands for which input of the model, what codes say in words, what may be a reason. Pure.

The one idea: what is told to whom was declined is declared, whole. Each input of a model that gives reasons has a code,
or is left out on purpose; each code that can be given has a text in every language that any of them has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from headrace.core.errors import DefinitionError
from headrace.core.expr import Call, Expr, Literal, Named, Reference, Source, describe, references, to_expr
from headrace.features.define import Feature, FeatureView

MISSING_DATA = "MISSING_DATA"  # given where a rule's value is missing
NO_EVENTS = "NO_EVENTS"  # given where a rule's on_empty names an outcome
MODEL_SCORE = "MODEL_SCORE"  # given where the model decides and no input with a code of its own raised it
DEADLINE = "DEADLINE"  # given with the fallback where the budget ran out before the request was decided
UNAVAILABLE = "UNAVAILABLE"  # given with the fallback where no decision could be computed
REASONS_MAX = 4  # more than four principal reasons help nobody who is declined

Texts = Mapping[str, Mapping[str, str]]  # code -> language -> text
Meant = Expr | Feature | FeatureView  # a view stands for each of its features

# What our own codes say where a decision does not say it itself.
TEXTS: Texts = {
    MISSING_DATA: {
        "en": "Information that we need was not available.",
        "de": "Benötigte Angaben lagen nicht vor.",
    },
    NO_EVENTS: {
        "en": "There is no history to go by.",
        "de": "Es liegt keine Vorgeschichte vor.",
    },
    MODEL_SCORE: {
        "en": "The overall assessment of the risk.",
        "de": "Die Gesamteinschätzung des Risikos.",
    },
    DEADLINE: {
        "en": "The request could not be assessed in time.",
        "de": "Die Anfrage konnte nicht rechtzeitig geprüft werden.",
    },
    UNAVAILABLE: {
        "en": "The request could not be assessed.",
        "de": "Die Anfrage konnte nicht geprüft werden.",
    },
}
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # BCP 47, as far as anybody writes it


def check_code(code: object) -> None:
    """Raises: DefinitionError HR-0706."""
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise DefinitionError(
            "HR-0706",
            f"{code!r} cannot be a reason",
            detail="expected a code of capitals, digits and _, at most 64 long, as in 'TOO_MANY_APPLICATIONS'",
        )


def meant(given: Iterable[Meant]) -> Iterator[tuple[str, Meant]]:
    """The canonical text of each thing that is named, views as their features; beside it what was named."""
    for one in given:
        if isinstance(one, FeatureView):
            yield from ((describe(one[feature.name]), one) for feature in one.features)
        else:
            yield describe(to_expr(one)), one


def code_of(expr: Expr, codes: Mapping[str, str], excluded: Collection[str]) -> str | None:
    """An input's code: its own, else that of the first thing that it reads which has one. None: there is none, or the
    input itself is no reason on purpose."""
    own = describe(expr)
    if own in codes:
        return codes[own]
    if own in excluded:
        return None
    return next((codes[r.path] for r in references(expr) if r.path in codes), None)


def unmapped(inputs: Iterable[tuple[str, Expr]], codes: Mapping[str, str], excluded: Collection[str]) -> list[str]:
    """The names of the inputs that are neither mapped nor left out on purpose, themselves or by all that they read."""
    return [
        name
        for name, expr in inputs
        if code_of(expr, codes, excluded) is None
        and describe(expr) not in excluded
        and not all(r.path in excluded for r in references(expr))
    ]


# --- texts ---


def check_texts(
    decision: str, texts: Texts, given: Collection[str]
) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """The texts, frozen, our own codes' defaults among them where they are in every language. given: the codes that the
    decision can give. Raises: DefinitionError HR-0709."""
    languages = dict.fromkeys(language for said in texts.values() for language in said)
    for language in languages:
        if not _LANGUAGE.fullmatch(language):
            raise DefinitionError(
                "HR-0709",
                f"decision {decision!r}: {language!r} is no language",
                detail="expected as in 'en' or 'de-AT'",
            )
    whole = {code: {**TEXTS.get(code, {}), **texts.get(code, {})} for code in dict.fromkeys((*given, *texts))}
    missing = [
        f"{code} ({', '.join(lacks)})"
        for code, said in whole.items()
        if (lacks := [language for language in languages if not said.get(language, "").strip()])
    ]
    if missing:
        raise DefinitionError(
            "HR-0709",
            f"decision {decision!r}: reasons without a text",
            detail=f"missing: {'; '.join(missing)}",
            hint="give each code that can be a reason a text in each language: texts={'CODE': {'en': ..., 'de': ...}}",
            missing=tuple(missing),
        )
    return tuple((code, tuple((language, said[language]) for language in languages)) for code, said in whole.items())


# --- whether the model's reasons are those of a rule ---


def leans(condition: Expr) -> frozenset[int]:
    """Which way the score leans where a condition holds: 1 where a higher score makes it true, -1 where a lower one
    does, both where either may; empty where the score does not count."""
    match condition:
        case Reference():
            return frozenset({1} if condition.source is Source.SCORE else ())
        case Literal():
            return frozenset()
        case Named():
            return leans(condition.expr)
        case Call():
            return _leans(condition)
    return frozenset()


def _leans(call: Call) -> frozenset[int]:
    parts = [leans(arg) for arg in call.args]
    match call.op:
        case "gt" | "ge" | "sub":
            return parts[0] | _turned(parts[1])
        case "lt" | "le":
            return _turned(parts[0]) | parts[1]
        case "not" | "neg":
            return _turned(parts[0])
        case "and" | "or" | "add" | "coalesce" | "exp" | "log" | "sqrt" | "floor" | "ceil":
            return frozenset().union(*parts)
        case "mul" | "div" if isinstance(call.args[1], Literal) and isinstance(call.args[1].value, int | float):
            return parts[0] if call.args[1].value > 0 else _turned(parts[0])
        case "is_null" | "is_not_null":
            return frozenset()
    return frozenset({1, -1}) if any(parts) else frozenset()


def _turned(ways: frozenset[int]) -> frozenset[int]:
    return frozenset(-way for way in ways)
