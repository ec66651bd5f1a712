"""When a state's checkpoints are written, and what happens where they cannot be. Touches the store;
no thread is its own.

The one idea: a checkpoint makes the next start short and nothing else, so a store that fails is logged, counted and
tried again later, and whoever decides goes on. The loop that owns the state calls `offer`, or takes a copy (`take`),
which another thread puts (`put`) while the state goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from headrace.core.errors import StateError
from headrace.core.points import Cut
from headrace.core.times import Clock, Duration, Instant
from headrace.features.checkpoint import Snapshot, put, snapshot
from headrace.features.checkpoint_names import KEPT, part_name
from headrace.features.checkpoint_store import CheckpointStore
from headrace.features.run import FeatureState

# A takeover reads the tail since the last one: a minute at 10,000 events a second is less than a second of reading.
EVERY = Duration.parse("1m")
RETRY = Duration.parse("10s")  # a full disk or a server that starts anew is mended in minutes, not in milliseconds

_log = logging.getLogger(__name__)


class CheckpointWriter:
    """Of one state, or one part. `offer`, `take` and `write` by the thread that changes the state; `put` by any, one
    at a time.

    written, failed: how often. error: of the last try, None where it went well. cut: of the last one that was written.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        fingerprints: Mapping[str, str],
        clock: Clock,
        part: str = "",
        origin: str = "",
        every: Duration | str = EVERY,
        retry: Duration | str = RETRY,
        kept: int = KEPT,
    ) -> None:
        """fingerprints, part, origin: as of `checkpoint.write`. every: between two, while the state changes. retry:
        after one that failed. Raises: UsageError HR-0560 for a part that cannot be named so."""
        part_name(part)
        self._store, self._fingerprints, self._clock = store, fingerprints, clock
        self._part, self._origin, self._kept = part, origin, kept
        self._every, self._retry = Duration.parse(every), Duration.parse(retry)
        self._tried: Instant | None = None
        self._putting = False
        self.written = 0
        self.failed = 0
        self.error: StateError | None = None
        self.cut: Cut | None = None

    def offer(self, state: FeatureState, extra: Mapping[str, bytes] | None = None) -> bool:
        """Write a checkpoint where it is time for one; whether one was written."""
        taken = self.take(state, extra)
        return taken is not None and self.put(taken)

    def take(self, state: FeatureState, extra: Mapping[str, bytes] | None = None) -> Snapshot | None:
        """A copy to be put, where it is time for one, the state changed, and none is being put."""
        if self._putting or not self._due() or state.frontier == self.cut:
            return None
        return self._taken(state, extra)

    def put(self, taken: Snapshot) -> bool:
        """Whether it is written. A store that fails is no error here."""
        try:
            put(taken, self._store, kept=self._kept)
        except StateError as error:
            self.failed += 1
            self.error = error
            _log.warning(
                "checkpoint not written, tried again later: %s",
                error,
                extra={"code": error.code, "part": self._part, "failed": self.failed},
            )
            return False
        finally:
            self._putting = False
        self.written += 1
        self.error, self.cut = None, taken.cut
        return True

    def write(self, state: FeatureState, extra: Mapping[str, bytes] | None = None) -> bool:
        """Now, as before an orderly end; whether what the state holds is written. Not while another thread puts."""
        return state.frontier == self.cut or self.put(self._taken(state, extra))

    def _taken(self, state: FeatureState, extra: Mapping[str, bytes] | None) -> Snapshot:
        self._tried, self._putting = self._clock.now(), True
        return snapshot(state, fingerprints=self._fingerprints, part=self._part, origin=self._origin, extra=extra)

    def _due(self) -> bool:
        if self._tried is None:
            return True
        # A clock may step back; then it is time, too.
        since = abs(self._clock.now() - self._tried)
        return since >= (self._every if self.error is None else self._retry).micros
