"""Which requests are known, and how they were decided: the memory behind idempotency (SEMANTICS 5.3). Reads the log.

The one idea: an id leads to places in the log, not to copies: the row and the record are read again when an id comes
twice, which is rare. Only ids within `dedup` are kept, and only live partitions count, as the log itself judges (1.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace.core.codec import batch_to_rows, json_value, physical_list, units
from headrace.core.errors import ConflictError, NotFoundError
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import Instant
from headrace.decisions.claims import ClaimFold, Standing
from headrace.log.define import Topic
from headrace.log.port import (
    AVAILABLE_AT,
    EVENT_TIME,
    OFFSET,
    QUARANTINED,
    VERDICT,
    Log,
    PartitionState,
    Physical,
    TopicState,
    Verdict,
)

Id = int | str
Place = tuple[int, int]  # offset, available_at

NOT_THE_EVENT = frozenset(
    {int(v) for v in QUARANTINED} | {int(Verdict.DUPLICATE)}
)  # rows that are not their id's event
_SWEEP_ROWS = 65_536  # ids learned between two looks at what has expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A row as the log holds it."""

    offset: int
    available_at: Instant
    event_time: Instant
    row: tuple[Physical, ...]


def row_at(log: Log, topic: Topic, partition: Partition, offset: int) -> Logged:
    """One row. Raises: NotFoundError HR-0725 where none lies at the offset; as `Log.read`."""
    batch = next(iter(log.read(partition, offset, end=offset + 1, rows_max=1)), None)
    if batch is None:
        raise NotFoundError("HR-0725", f"{partition} holds no row at offset {offset}", partition=str(partition))
    return Logged(
        offset=offset,
        available_at=Instant(int(units(batch.column(AVAILABLE_AT))[0])),
        event_time=Instant(int(units(batch.column(EVENT_TIME))[0])),
        row=batch_to_rows(topic.schema, batch)[0],
    )


def conflict(topic: Topic, partition: Partition, before: Logged, now: Sequence[Physical]) -> ConflictError:
    """Of a request whose id is known with another payload. before: as the log holds it."""
    fields = topic.schema.fields
    name, type, was, is_now = next(
        (f.name, f.type, a, b) for f, a, b in zip(fields, before.row, now, strict=True) if a != b
    )
    assert topic.id is not None, "a request topic has an id: decisions/define.py sees to it"
    return ConflictError(
        "HR-0710",
        f"request {now[topic.schema.names.index(topic.id)]!r} is known with another payload",
        detail=f"field {name!r}: it was {json_value(was, type)!r}, now {json_value(is_now, type)!r}",
        hint="a new request needs a new id; a second try sends what the first one sent",
        field=name,
        partition=str(partition),
        offset=before.offset,
    )


class KnownRequests:
    """Ids of one request topic's live partitions, and where their records lie. Not shared between threads."""

    def __init__(self, log: Log, topic: Topic, records: str | None) -> None:
        """records: the name of the record topic; None where another knows them. Reads nothing yet."""
        assert topic.id is not None, "a request topic has an id: decisions/define.py sees to it"
        self._log = log
        self._topic = topic
        self._records = records
        self._id = topic.id
        self._places: dict[tuple[int, Id], Place] = {}
        self._decided: dict[tuple[int, int], int] = {}  # partition index, request offset -> record's offset
        self._next: dict[Partition, int] = {}
        self._folds: dict[Partition, ClaimFold] = {}
        self._learned = 0

    def follow(self, states: tuple[TopicState, ...]) -> None:
        """Read what was appended since, as `states` says. The first time from `dedup` before each partition's end
        on."""
        for state in states:
            requests = state.topic.name == self._topic.name
            if not requests and state.topic.name != self._records:
                continue
            for held in state.partitions:
                if held.partition.index >= IMPORTS_FROM or self._next.get(held.partition) == held.end:
                    continue
                self.begin(held)
                self._read(held.partition, requests=requests)

    def begin(self, held: PartitionState) -> None:
        """Follow a partition from `dedup` before its end on, if it is not followed yet; `read_to` reads it."""
        if held.partition not in self._next:
            self._next[held.partition] = self._first(held.partition, held.start, held.end, held.available_at)

    def read_to(self, partition: Partition, end: int) -> None:
        """Read the requests of a partition that is followed, below an offset that is there."""
        if self._next[partition] < end:
            self._read(partition, requests=True, end=end)
            self._next[partition] = end

    def next(self, partition: Partition) -> int:
        """Behind the last row that was read."""
        return self._next[partition]

    def _read(self, partition: Partition, *, requests: bool, end: int | None = None) -> None:
        for batch in self._log.read(partition, self._next[partition], end=end):
            (self._learn_requests if requests else self._learn_records)(partition, batch)
            self._next[partition] = int(batch.column(OFFSET)[-1].as_py()) + 1

    def place(self, partition: int, id: Id) -> int | None:
        """The offset of the newest event with this id, however old."""
        place = self._places.get((partition, id))
        return None if place is None else place[0]

    def request(self, partition: int, id: Id, at: int) -> int | None:
        """The offset of the event with this id, None where there is none within `dedup` before `at`."""
        place = self._places.get((partition, id))
        return None if place is None or at - place[1] > self._topic.dedup.micros else place[0]

    def record(self, partition: int, offset: int) -> int | None:
        """The offset of the record of the request at this offset."""
        return self._decided.get((partition, offset))

    def learn(self, request: Partition, id: Id, offset: int, available_at: int) -> None:
        """A request was appended by the caller."""
        self._places[request.index, id] = (offset, available_at)
        self._next[request] = offset + 1
        self._learned += 1
        if self._learned >= _SWEEP_ROWS:
            self._sweep(available_at)

    def learn_record(self, records: Partition, request_offset: int, offset: int) -> None:
        """A record was appended by the caller."""
        self._decided[records.index, request_offset] = offset
        self._next[records] = offset + 1

    def learn_records(self, records: Partition, request_offset: int, offset: int, count: int) -> None:
        """The records of requests that stand one behind the other were appended by the caller, in their order."""
        index, decided = records.index, self._decided
        for place in range(count):
            decided[index, request_offset + place] = offset + place
        self._next[records] = offset + count

    def _learn_requests(self, partition: Partition, batch: pa.RecordBatch) -> None:
        ids = physical_list(batch.column(self._id))
        offsets, stamps = units(batch.column(OFFSET)).tolist(), units(batch.column(AVAILABLE_AT)).tolist()
        for id, offset, at, verdict in zip(ids, offsets, stamps, batch.column(VERDICT).to_pylist(), strict=True):
            if verdict not in NOT_THE_EVENT:
                self._places[partition.index, id] = (offset, at)  # type: ignore[index]  # an id is never null
        self._learned += len(ids)

    def _learn_records(self, partition: Partition, batch: pa.RecordBatch) -> None:
        fold = self._folds.get(partition)
        if fold is None:
            fold = self._folds[partition] = ClaimFold(partition)
        standings = fold.take_batch(batch).tolist()
        requests, offsets = physical_list(batch.column("request_offset")), units(batch.column(OFFSET)).tolist()
        for request, offset, standing in zip(requests, offsets, standings, strict=True):
            if standing == Standing.VALID:
                self._decided[partition.index, request] = offset  # type: ignore[index]  # never null

    def _first(self, partition: Partition, start: int, end: int, available_at: int) -> int:
        """The first offset within `dedup` of the partition's newest row: available_at never falls, so by bisection."""
        since = available_at - self._topic.dedup.micros
        low, high = start, end
        oldest = next(iter(self._log.read(partition, start, rows_max=1)), None)
        if oldest is None or int(units(oldest.column(AVAILABLE_AT))[0]) >= since:
            return start  # of a log that is younger, and one read instead of twenty
        while low < high:
            middle = (low + high) // 2
            batch = next(iter(self._log.read(partition, middle, rows_max=1)), None)  # none where a gap ends the log
            if batch is not None and int(units(batch.column(AVAILABLE_AT))[0]) < since:
                low = middle + 1
            else:
                high = middle
        return low

    def _sweep(self, at: int) -> None:
        """Forget what is older than `dedup`, records with their requests."""
        self._learned = 0
        since = at - self._topic.dedup.micros
        gone = [key for key, (_, available_at) in self._places.items() if available_at < since]
        for key in gone:
            offset, _ = self._places.pop(key)
            self._decided.pop((key[0], offset), None)
