"""Instants and durations with types: microseconds, UTC. Pure.

An instant is an int of microseconds since 1970-01-01T00:00:00Z, typed as `Instant`; in Arrow it is timestamp[us, UTC].
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import NewType, Protocol

from headrace.core.errors import DefinitionError, SchemaError

Instant = NewType("Instant", int)

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"(\d+)(us|ms|s|m|h|d|w)")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A length of time in whole microseconds; "1d" is 86,400 seconds, whatever the calendar says."""

    micros: int

    @classmethod
    def parse(cls, text: str | Duration) -> Duration:
        """From "30d", "1h30m", "250ms" (units us, ms, s, m, h, d, w). Raises: DefinitionError HR-0102."""
        if isinstance(text, Duration):
            return text
        if isinstance(text, str) and text and _PART.sub("", text) == "":
            return cls(sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text)))
        raise DefinitionError(
            "HR-0102", f"not a duration: {text!r}", detail="expected a number and a unit, as in '30d', '1h30m', '250ms'"
        )

    def __str__(self) -> str:
        if self.micros == 0:
            return "0s"
        rest, parts = self.micros, []
        for unit in ("d", "h", "m", "s", "ms", "us"):
            count, rest = divmod(rest, _UNITS[unit])
            if count:
                parts.append(f"{count}{unit}")
        return "".join(parts)

    def __add__(self, other: Duration) -> Duration:
        return Duration(self.micros + other.micros)


ZERO = Duration(0)


def instant(value: dt.datetime | str | int) -> Instant:
    """An instant from an aware datetime, an ISO 8601 text with a zone, or microseconds.

    Raises: SchemaError HR-0103 where the zone is missing or the text is not ISO 8601.
    """
    if isinstance(value, bool):
        raise SchemaError("HR-0103", f"not an instant: {value!r}")
    if isinstance(value, int):
        return Instant(value)
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError as error:
            raise SchemaError(
                "HR-0103",
                f"not an instant: {value!r}",
                detail="expected ISO 8601 with a zone, as in '2026-11-21T10:00:00Z'",
            ) from error
    if value.tzinfo is None:
        raise SchemaError(
            "HR-0103",
            f"timestamp without zone: {value.isoformat()!r}",
            detail="expected a zone: an instant without one is not an instant",
            hint="append 'Z' for UTC, or the offset, as in '+02:00'",
        )
    return Instant((value - _EPOCH) // dt.timedelta(microseconds=1))


def iso(at: Instant) -> str:
    """ISO 8601 in UTC with microseconds where there are any, ending in Z."""
    return (_EPOCH + dt.timedelta(microseconds=at)).isoformat().replace("+00:00", "Z")


class Clock(Protocol):
    """Says what instant it is. Given to whoever must know, never looked up: headrace.clock, headrace.testing.clocks."""

    def now(self) -> Instant: ...
