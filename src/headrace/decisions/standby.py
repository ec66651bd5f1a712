"""Partitions that are decided elsewhere, read all the same, so that they can be taken over at once. Reads the log
through its port.

The one idea: what an owner must know of a partition is a fold over the log, and a fold can be begun before it is
needed. Whoever claims has only the newest rows left to read, however long the partition is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

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
        self._lock = threading.Lock()

    def take(self, index: int) -> Owned:
        """What is known of a partition, possibly nothing; it is the caller's from now on."""
        with self._lock:
            found = self._kept.pop(index, None)
        if found is None:
            place = Partition(self._records.topic.name, self._records.incarnation, index)
            found = Owned.of(place, KnownRequests(self._log, self._request, None))
        return found

    def keep(self, index: int, owned: Owned) -> None:
        """Of a partition that is not owned any more."""
        with self._lock:
            self._kept[index] = owned

    def read(self, indices: Iterable[int]) -> None:
        """Read these partitions on to their ends. Raises: as `Log.read`; what was read until then is kept."""
        states = {state.topic.name: state for state in self._log.topics(fresh=False)}
        for index in indices:
            owned = self.take(index)
            try:
                self._read(owned, index, states)
            finally:
                self.keep(index, owned)

    def _read(self, owned: Owned, index: int, states: dict[str, TopicState]) -> None:
        for batch in self._log.read(owned.records, owned.fold.next):
            owned.fold.take_batch(batch)
        request = _live(states.get(self._request.name), index)
        if request is not None:
            owned.known.begin(request)
            owned.known.read_to(request.partition, request.end)


def _live(state: TopicState | None, index: int) -> PartitionState | None:
    found = () if state is None else state.partitions
    return next((held for held in found if held.partition.index == index), None)
