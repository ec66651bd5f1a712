"""Windows over event time: (t - delay - width, t - delay], lifetime, calendar. SEMANTICS 2.1, 2.3. Pure."""

from __future__ import annotations

import datetime as dt
import enum
import zoneinfo
from dataclasses import dataclass

from headrace.core.errors import DefinitionError
from headrace.core.times import ZERO, Duration, Instant

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class Unit(enum.Enum):
    """Calendar units. Weeks begin on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class Sliding:
    """(t - delay - width, t - delay]."""

    width: Duration
    delay: Duration = ZERO

    @property
    def suffix(self) -> str:
        return str(self.width)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Everything up to t - delay."""

    delay: Duration = ZERO

    @property
    def suffix(self) -> str:
        return "lifetime"


@dataclass(frozen=True, slots=True)
class Aligned:
    """[start, t] of the running calendar unit or epoch-aligned duration; complete: the last closed [start, end)."""

    unit: Unit | Duration
    tz: str = "UTC"
    complete: bool = False

    @property
    def delay(self) -> Duration:
        return ZERO

    @property
    def suffix(self) -> str:
        unit = self.unit.value if isinstance(self.unit, Unit) else str(self.unit)
        return f"last_{unit}" if self.complete else f"this_{unit}"


Window = Sliding | Lifetime | Aligned


def sliding(width: str | Duration, delay: Duration = ZERO) -> Sliding:
    """Raises: DefinitionError HR-0120 for a width that is not positive."""
    window = Sliding(Duration.parse(width), delay)
    if window.width.micros <= 0:
        raise DefinitionError("HR-0120", f"a window of {window.width}", detail="expected a width above zero")
    return window


def aligned(unit: str | Unit | Duration, *, tz: str = "UTC", complete: bool = False) -> Aligned:
    """From a calendar unit's name or a duration. Raises: DefinitionError HR-0121 for an unknown zone, HR-0120 for a
    duration with a zone (durations align to the epoch) or of no length."""
    if isinstance(unit, str) and unit in {u.value for u in Unit}:
        unit = Unit(unit)
    if not isinstance(unit, Unit):
        unit = Duration.parse(unit)
        if unit.micros <= 0 or tz != "UTC":
            raise DefinitionError(
                "HR-0120",
                f"an aligned window of {unit} in {tz}",
                detail="durations are above zero and align to the epoch, in UTC",
            )
    try:
        zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise DefinitionError(
            "HR-0121", f"unknown time zone {tz!r}", hint="use a tz database name, as in 'Europe/Berlin'"
        ) from error
    return Aligned(unit, tz, complete)


def edges(window: Aligned, t: Instant) -> tuple[int, int]:
    """(low, high): an event belongs iff low < event_time <= high, in microseconds."""
    start = _start(window, t)
    if not window.complete:
        return start - 1, t
    return _start(window, Instant(start - 1)) - 1, start - 1


def _start(window: Aligned, t: Instant) -> int:
    """The instant at which the unit that holds t began.

    In a zone the start is the first instant of the local calendar unit: where midnight does not exist it is the instant
    the clock jumps, where an hour occurs twice each occurrence is an hour of its own.
    """
    unit = window.unit
    if isinstance(unit, Duration):
        return t - t % unit.micros
    if window.tz == "UTC" and unit is Unit.HOUR:
        return t - t % 3_600_000_000
    if window.tz == "UTC" and unit is Unit.DAY:
        return t - t % 86_400_000_000
    zone = zoneinfo.ZoneInfo(window.tz)
    local = (_EPOCH + dt.timedelta(microseconds=t)).astimezone(zone)
    match unit:
        case Unit.HOUR:
            past = dt.timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            return _since_set(zone, t - past // _MICROSECOND, t)
        case Unit.DAY:
            date = local.date()
        case Unit.WEEK:
            date = local.date() - dt.timedelta(days=local.weekday())
        case Unit.MONTH:
            date = local.date().replace(day=1)
        case Unit.YEAR:
            date = local.date().replace(month=1, day=1)
    midnight = dt.datetime.combine(date, dt.time(), tzinfo=zone)
    return (midnight.astimezone(dt.UTC) - _EPOCH) // _MICROSECOND


def _since_set(zone: zoneinfo.ZoneInfo, start: int, t: int) -> int:
    """`start`, or where the clock was set after it, that instant. Clocks set by half an hour (Lord Howe Island) make
    hours that begin at half past."""

    def offset(instant: int) -> dt.timedelta | None:
        return (_EPOCH + dt.timedelta(microseconds=instant)).astimezone(zone).utcoffset()

    if offset(start) == offset(t):
        return start
    before, first = start, t
    while first - before > 1:
        middle = (before + first) // 2
        before, first = (before, middle) if offset(middle) == offset(t) else (middle, first)
    return first
