"""The machine's clock, as an object that is handed in. Touches: the system clock, and nothing else does.

Everything that must know the instant takes a `headrace.core.times.Clock`; this is the one that serves.
"""

from __future__ import annotations

import time

from headrace.core.times import Instant


class SystemClock:
    """The wall clock in UTC. It may step back; the log's running maximum is what never falls (SEMANTICS 1.2)."""

    __slots__ = ()

    def now(self) -> Instant:
        return Instant(time.time_ns() // 1_000)
