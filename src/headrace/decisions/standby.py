"""Partitions that are decided elsewhere, read all the same: who owns them, and all that a takeover needs. Reads the log
through its port.

The one idea: what an owner must know of a partition is a fold over the log, and a fold can be begun before it is
needed. Whoever claims has only the newest rows left to read, however long the partition is; and the same fold says
whose claim is the last, so that nobody else has to be asked where a request belongs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from headrace.core.points import Partition
from headrace.decisions.known import KnownRequests
from headrace.decisions.owned import Owned
from headrace.log.define import Topic
from headrace.log.port import Log, PartitionState, TopicState


class Standby:
    """Of one decision: by partition of the requests, what was folded of its records and read of its ids. Any thread may
    call; a partition is in one thread's hands at a time.

    Cost: memory as of partitions that are owned, 16 bytes a record and some 200 a known id.
    """

    def __init__(self, log: Log, request: Topic, records: TopicState) -> None:
        """request, records: the topics of the requests and of their records."""
        self._log = log
        self._request = request
        self._records = records
        self._kept: dict[int, Owned] = {}
        self._claimants: dict[int, str | None] = {}
        self._reading: set[int] = set()
        self._changed = threading.Condition()

    def claimant(self, index: int) -> str | None:
        """Whose claim to a partition was the last that was read here; None where none was."""
        return self._claimants.get(index)

    def take(self, index: int) -> Owned:
        """What is known of a partition, possibly nothing; it is the caller's from now on. Waits while it is read."""
        return self._taken(index, reading=False)

    def keep(self, index: int, owned: Owned) -> None:
        """Of a partition that is not owned any more."""
        with self._changed:
            self._kept[index] = owned
            self._claimants[index] = owned.fold.owner
            self._reading.discard(index)
            self._changed.notify_all()

    def read(self, indices: Iterable[int]) -> None:
        """Read these partitions on, as far as the log has their rows at hand. Raises: as `Log.read`; what was read
        until then is kept."""
        states = {state.topic.name: state for state in self._log.topics(fresh=False)}
        for index in indices:
            owned = self._taken(index, reading=True)
            try:
                self._read(owned, index, states)
            finally:
                self.keep(index, owned)

    def _taken(self, index: int, *, reading: bool) -> Owned:
        with self._changed:
            self._changed.wait_for(lambda: index not in self._reading)
            if reading:
                self._reading.add(index)
            found = self._kept.pop(index, None)
        if found is None:
            place = Partition(self._records.topic.name, self._records.incarnation, index)
            found = Owned.of(place, KnownRequests(self._log, self._request, None))
        return found

    def fold(self, owned: Mapping[int, Owned]) -> None:
        """Read the records of these partitions on, as far as the log has them at hand. owned: what the caller knows of
        them, by index. Raises: as `Log.read`; what was read until then is folded."""
        states = {state.topic.name: state for state in self._log.topics(fresh=False)}
        for index, one in owned.items():
            self._fold(one, index, states)

    def _fold(self, owned: Owned, index: int, states: Mapping[str, TopicState]) -> None:
        records = _live(states.get(self._records.topic.name), index)
        for batch in self._log.read(owned.records, owned.fold.next, end=None if records is None else records.at_hand):
            owned.fold.take_batch(batch)

    def _read(self, owned: Owned, index: int, states: Mapping[str, TopicState]) -> None:
        self._fold(owned, index, states)
        request = _live(states.get(self._request.name), index)
        if request is not None:
            owned.known.begin(request)
            owned.known.read_to(request.partition, request.at_hand)


def _live(state: TopicState | None, index: int) -> PartitionState | None:
    found = () if state is None else state.partitions
    return next((held for held in found if held.partition.index == index), None)
