"""As of when a derived topic holds all that its source held. Reads the log through its port.

The one idea: the source's ends at an instant, then how far its writers have committed, then the derived partitions'
ends, in this order: what had come to the source by that instant lies below these ends, once the writers have passed it
(docs/KAFKA.md K2). The derived ends are high watermarks: the open transaction of one writer may hold the stable end
below what another has committed. Writers are always a little behind, so instants wait until they are passed.
"""

from __future__ import annotations

from collections import deque

from headrace.core.codec import units
from headrace.core.errors import NotFoundError
from headrace.core.points import Cut, Partition
from headrace.core.times import Instant
from headrace.log.port import AVAILABLE_AT, Log, TopicState
from headrace.stream.plan import Passed, writer_name
from headrace.stream.run import made_anew

# Instants that wait, one a look: writers that stand for longer than so many are told by an older one, not lost.
WAITING_MAX = 256
PATIENCE_LOOKS = 3  # without any proof, until the source itself is read for one: writers that run give one sooner


class Proving:
    """Of one derived topic. One thread at a time.

    Cost of a look: two round trips, and two for each source partition that moved.
    """

    def __init__(self, log: Log, derived: str) -> None:
        self._log = log
        self._derived = derived
        self._waiting: deque[tuple[Instant, dict[Partition, int]]] = deque()
        self._committed: dict[Partition, int] = {}
        self._seen: dict[Partition, tuple[int, int]] = {}  # committed and end, at the look before
        self._passed: Passed | None = None
        self._looks = 0
        self._starts: dict[Partition, int] = {}

    def look(self, now: Instant) -> Passed | None:
        """The newest instant, at most `now`, that the writers have passed; None where there is none yet.

        Raises: NotFoundError HR-0302, LogError HR-0363 (the source was made anew), HR-0340 to HR-0342."""
        states = {state.topic.name: state for state in self._log.topics()}
        derived = states.get(self._derived)
        if derived is None or derived.topic.derivation is None:
            raise NotFoundError("HR-0302", f"no derived topic {self._derived!r} in the log", hint="headrace apply")
        source = states.get(derived.topic.derivation.of)
        if source is None or source.incarnation != derived.source:
            raise made_anew(derived)
        ends = {held.partition: held.end for held in source.partitions if held.end > held.start}
        self._starts = {held.partition: held.start for held in source.partitions}
        self._waiting.append((now, ends))
        for partition, end in ends.items():
            if self._committed.get(partition, 0) < end:
                self._ask(derived, partition, end)
        passed = [at for at, (_, held) in enumerate(self._waiting) if self._passes(held)]
        if passed:
            at = self._waiting[passed[-1]][0]
            for _ in range(passed[-1] + 1):
                self._waiting.popleft()
            self._passed = self._proof(at)
        self._looks += 1
        if self._passed is None and self._looks >= PATIENCE_LOOKS:
            self._passed = self._proof(self._stood(ends, now))
        if len(self._waiting) > WAITING_MAX:
            self._waiting = deque(list(self._waiting)[::2])
        return self._passed

    def _proof(self, at: Instant) -> Passed:
        return Passed(at=at, cut=Cut.of(self._committed), ends=self._ends())

    def _ends(self) -> dict[int, int]:
        """Of the derived partitions, asked after what was committed."""
        states = (state for state in self._log.topics() if state.topic.name == self._derived)
        held = next(states).partitions
        return {one.partition.index: one.end if one.high is None else one.high for one in held}

    def _passes(self, ends: dict[Partition, int]) -> bool:
        return all(self._committed.get(partition, 0) >= end for partition, end in ends.items())

    def _stood(self, ends: dict[Partition, int], now: Instant) -> Instant:
        """As of when the writers had written all, where they stand still since before the first look: when the first
        row came that they have not carried over. Reads the source up to there."""
        came = [now]
        for partition, end in ends.items():
            behind = self._committed.get(partition)
            if behind is None or behind < end:
                first = next(self._log.read(partition, behind or self._starts[partition], end=end, rows_max=1), None)
                if first is not None:
                    came.append(Instant(int(units(first.column(AVAILABLE_AT))[0])))
        return min(came)

    def _ask(self, derived: TopicState, partition: Partition, end: int) -> None:
        """How far a writer has got. What ends a transaction has an offset and is no event: a writer that stands before
        such offsets alone has passed them."""
        name = writer_name(derived.topic, derived.incarnation, partition)
        committed = dict(self._log.group(name)).get(partition)
        if committed is None:
            return
        stands = self._seen.get(partition) == (committed, end)
        self._seen[partition] = committed, end
        if stands and committed < end and next(self._log.read(partition, committed, end=end), None) is None:
            committed = end
        self._committed[partition] = max(committed, self._committed.get(partition, 0))
