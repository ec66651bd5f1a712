"""Local hours and weekdays of instants in a time zone, exactly, one at a time and in bulk. Pure.

The one idea: a zone's offset is looked up once per UTC hour and kept; only the rare hour in which the offset changes is
asked instant by instant. The zone rules are the tz database that `zoneinfo` finds.
"""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo

import numpy as np
import numpy.typing as npt

from headrace.core.codec import INSTANT_MAX, INSTANT_MIN
from headrace.core.errors import DefinitionError, did_you_mean

HOUR = 3_600_000_000
DAY = 24 * HOUR
HOURS_KEPT_MAX = 1 << 16  # seven years of hours, 6 MB; beyond it the cache starts anew

_EPOCH = dt.datetime(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)


class Zone:
    """Offsets of one time zone. Safe to share between threads: entries are only added, each whole."""

    def __init__(self, name: str) -> None:
        """Raises: DefinitionError HR-0114 for a name the tz database does not hold."""
        try:
            self._zone = zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise DefinitionError(
                "HR-0114",
                f"no time zone {name!r}",
                detail="expected a name of the tz database, as in 'Europe/Stockholm'",
                hint=did_you_mean(name, zoneinfo.available_timezones()),
                tz=name,
            ) from error
        self._hours: dict[int, int | None] = {}
        self._utc = name == "UTC"

    def offset(self, at: int) -> int:
        """Microseconds to add to an instant for its local time."""
        if self._utc:
            return 0
        known = self._hour_offset(at // HOUR)
        return self._ask(at) if known is None else known

    def offsets(self, at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """`offset` of each."""
        if self._utc or not len(at):
            return np.zeros(len(at), dtype=np.int64)
        hours, place = np.unique(at // HOUR, return_inverse=True)
        known = [self._hour_offset(hour) for hour in hours.tolist()]
        result: npt.NDArray[np.int64] = np.array([0 if k is None else k for k in known], dtype=np.int64)[place]
        changing = np.array([k is None for k in known])[place]
        for row in np.flatnonzero(changing).tolist():
            result[row] = self._ask(int(at[row]))
        return result

    def _hour_offset(self, hour: int) -> int | None:
        """The offset all through a UTC hour; None where it changes in it."""
        if hour not in self._hours:
            if len(self._hours) >= HOURS_KEPT_MAX:
                self._hours = {}
            first, last = self._ask(hour * HOUR), self._ask(hour * HOUR + HOUR - 1)
            self._hours[hour] = first if first == last else None
        return self._hours.get(hour)

    def _ask(self, at: int) -> int:
        # two days inside what datetime can write, so that the local time can be written too; no zone changes out there
        at = min(max(at, INSTANT_MIN + 2 * DAY), INSTANT_MAX - 2 * DAY)
        local = self._zone.fromutc((_EPOCH + at * _MICROSECOND).replace(tzinfo=self._zone))
        offset = local.utcoffset()
        assert offset is not None, "a ZoneInfo always has an offset"
        return offset // _MICROSECOND


@functools.lru_cache(maxsize=64)
def zone(name: str) -> Zone:
    """The zone of that name, one per process. Raises: DefinitionError HR-0114."""
    return Zone(name)
