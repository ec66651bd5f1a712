"""Holding a producer to its quota: how long to wait before the next bytes. Pure.

The one idea: a clock of what was sent runs beside the real one (the generic cell rate algorithm): each byte moves it on
by its share of a second, and what would put it more than `AHEAD_MAX` before the real one waits.
"""

from __future__ import annotations

from headrace.core.rates import Rate
from headrace.core.times import ZERO, Duration, Instant

AHEAD_MAX = Duration.parse("1s")  # a second's worth may go at once: batches, and a start from rest


class Pace:
    """Of one producer. One thread at a time."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._sent_until = 0  # microseconds: the instant at which what was sent would be sent at the rate itself

    def delay(self, size_bytes: int, *, now: Instant) -> Duration:
        """How long to wait before sending so many bytes, which count as sent from then on."""
        cost = size_bytes * 1_000_000 // self._rate.bytes_per_second
        self._sent_until = max(self._sent_until, now) + cost
        ahead = self._sent_until - now - AHEAD_MAX.micros
        return Duration(ahead) if ahead > 0 else ZERO
