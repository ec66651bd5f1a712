"""A clock that a test sets and moves. Touches nothing."""

from __future__ import annotations

from headrace.core.times import Duration, Instant, instant


class ManualClock:
    """Stands still until it is moved. Starts at `start`, by default an instant of 2026 so that ages look real."""

    __slots__ = ("_now",)

    def __init__(self, start: Instant | str = "2026-01-01T00:00:00Z") -> None:
        self._now = instant(start)

    def now(self) -> Instant:
        return self._now

    def set(self, at: Instant | str) -> None:
        """To this instant, also back: clocks do that."""
        self._now = instant(at)

    def advance(self, by: str | Duration) -> Instant:
        """Forward by a duration; returns the new instant."""
        self._now = Instant(self._now + Duration.parse(by).micros)
        return self._now
