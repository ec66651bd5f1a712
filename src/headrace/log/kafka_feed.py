"""One live partition as this process follows it: its rows, judged in order, the newest kept, the older found again.

The one idea: any process may write a partition, so nobody can store verdicts with the rows. They are a function of the
partition's log: whoever reads it from its start judges alike. A feed reads once, in order, and keeps what it takes to
say the same of an older row without reading all before it: the running maximum here and there (`marks`), and the few
rows whose id decided. Touches nothing: records are given to it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from headrace.clients.kafka.port import Place, Record
from headrace.core.codec import instants, partitions_of
from headrace.core.errors import StateError
from headrace.core.points import Partition
from headrace.core.schema import Schema
from headrace.core.times import Instant
from headrace.log.define import Clock, Partitioning, Topic
from headrace.log.judge_file import judge_from_bytes, judge_to_bytes
from headrace.log.kafka_registry import Registered
from headrace.log.kafka_rows import Decoded, Verdicts, decoded, offset_of, position, restamped, version_of
from headrace.log.kafka_topics import ANCHOR_EVERY
from headrace.log.plan import NEVER, Judge, Judged
from headrace.log.port import OFFSET, SOURCE_COLUMNS, SYSTEM_COLUMNS, EventCodec, Unreadable, Verdict

Codec = Callable[[Topic], EventCodec]
Known = Callable[[int], Topic]  # a version's definition

TAIL_ROWS_MAX = 1 << 16  # kept in memory: what came between two looks of the slowest reader that keeps up
TAIL_BATCHES_MAX = 1 << 12  # single events come as batches of one
MARK_RECORDS = 1 << 10  # between two marks: at most so many records are decoded in vain to read an old row
GIVEN_MAX = 10_000  # records that wait to be judged
UNREADABLE_MAX = 10_000  # of which the reason is kept; beyond, they are only counted

_BY_ID = (int(Verdict.DUPLICATE), int(Verdict.CONFLICT), int(Verdict.MISPLACED))


class Seen(NamedTuple):
    """Of a feed: how far it was given records, a Kafka offset; the position behind its newest row; the running maximum
    of available_at."""

    next: int
    end: int
    available_at: int


class Anchor(NamedTuple):
    """A record at which a reader may begin: its Kafka offset, the running maximum before it (microseconds), the version
    in force there."""

    offset: int
    maximum: int
    version: int


class Feed:
    """Records of one partition, from its first that is kept on, each given once and in order.

    begin: the Kafka offset from which on all is judged; next: up to which all was given. end: the position
    behind the newest row. available_at: the running maximum. tail_from: rows from this position on are in memory.

    What is given is judged when somebody asks: single records come a thousand times a second, and a batch of them costs
    little more than one. keeps: whether `kept` says all that it knows.
    """

    keeps = True

    def __init__(
        self,
        held: Registered,
        index: int,
        place: Place,
        *,
        start: int,
        codec: Codec,
        known: Known,
        lock: AbstractContextManager[object],
        anchor: Anchor | None = None,
    ) -> None:
        """held: as it is now; the log replaces it when the topic changes. known: of a version that may be newer. lock:
        of the log, which may be held already: who gives and who asks are threads of their own. anchor: where the first
        row is read, if not at the partition's first."""
        self.partition: Partition = held.partition(index)
        self.place = place
        self.held = held
        self.form = held.topic.payload
        start = start if anchor is None else anchor.offset
        self.begin = self.next = start
        self._end = self._tail_from = position(self.form, start)
        self._available_at = int(NEVER) if anchor is None else anchor.maximum
        self._anchors: list[Anchor] = []  # passed since the log took them
        self._unreadable: list[Unreadable] = []
        self._unreadable_count = 0
        self._lock = lock
        self._given: list[Record] = []
        self._judging = False
        self._codec = codec
        self._known = known
        self._version = held.first_version(index) if anchor is None else anchor.version
        self._judge = Judge(known(self._version))
        self._judge.begin(index, Instant(self._available_at))
        self._marks: list[tuple[int, int, int]] = [(start, self._available_at, self._version)]
        self._by_id: tuple[list[int], list[int]] = ([], [])  # positions, verdicts: of the rows whose id or key decided
        self._firsts: list[int] = []
        self._tail: list[pa.RecordBatch] = []
        self._tail_rows = 0

    # --- what counts ---

    @property
    def stamped(self) -> bool:
        """Whether rows are judged by when their broker says that they came."""
        return self.held.topic.clock is Clock.WALL

    def restarted(self, offset: int) -> bool:
        """Whether an operator's event says when the record there came."""
        index = self.partition.index
        return any(each.partition == index and each.begin <= offset < each.end for each in self.held.restarts)

    def counted(self, records: Sequence[Record]) -> Sequence[Record]:
        """Records with the stamps that count."""
        if not self.held.restarts:
            return records
        return restamped(records, [each for each in self.held.restarts if each.partition == self.partition.index])

    # --- following ---

    def take(self, records: Sequence[Record], next: int) -> None:
        """What was fetched from `next` on, as `counted`, and where that ended."""
        with self._lock:
            self._given += records
            self.next = next
            if len(self._given) >= GIVEN_MAX:
                self._settle()

    def _settle(self) -> None:
        """Judge what was given. What cannot be judged now, as its definition cannot be read, is judged later. Raises:
        LogError."""
        with self._lock:
            if self._judging:  # reading a definition gives records, too
                return
            self._judging = True
            try:
                while self._given:
                    given, self._given = self._given, []
                    self._judge_all(given)
            finally:
                self._judging = False

    def _judge_all(self, records: Sequence[Record]) -> None:
        kept, left = len(self._tail), list(records)
        try:
            for version, some in by_version(records, self._version):
                if version != self._version:
                    self._judge.declared(self._known(version))
                    self._version = version
                if some and some[0].offset - self._marks[-1][0] >= MARK_RECORDS:
                    self._marks.append((some[0].offset, self._available_at, version))
                if some:
                    self._take(self._judge.topic, some)
                    left = [record for record in left if record.offset > some[-1].offset]
            left = []
        finally:
            self._given = left + self._given
        self._forget(kept)

    def _take(self, topic: Topic, records: Sequence[Record]) -> None:
        batch, unreadable = self._read(topic, records)
        self._count(unreadable)
        if batch is None:
            return
        offsets = batch.column(OFFSET)
        self._firsts.append(offsets[0].as_py())
        self._tail.append(batch)
        self._tail_rows += batch.num_rows
        self._end = offsets[-1].as_py() + 1

    def _read(self, topic: Topic, records: Sequence[Record]) -> tuple[pa.RecordBatch | None, Sequence[Unreadable]]:
        """Rows that are met for the first time, as the log's port gives them; None where there are none."""
        found = decoded(topic, self._codec(topic), records, form=self.form, judged=False)
        if not found.rows.num_rows:
            return None, found.unreadable
        judged = self._judged(topic, found)
        self._anchor(topic, found, judged)
        self._available_at = max(self._available_at, int(judged.available_at[-1]))
        odd = np.flatnonzero(np.isin(judged.verdicts, _BY_ID))
        self._by_id[0].extend(found.positions[odd].tolist())
        self._by_id[1].extend(judged.verdicts[odd].tolist())
        return with_system(found, judged), found.unreadable

    def _judged(self, topic: Topic, found: Decoded) -> Judged:
        index, judge = self.partition.index, self._judge
        # Whatever lies here moves the running maximum, so that a row is judged alike in whatever batches it comes.
        timed = judge.timed(found.rows, found.stamps, maximum=self._available_at, request=found.requests)
        misplaced = partitions_of(found.rows.column(topic.key), topic.partitions) != index
        if topic.partitioning is Partitioning.FOREIGN or not misplaced.any():
            judged = judge.identified(index, found.rows, timed)
            judge.remember(index, found.rows, judged)
            return judged
        # What lies in a wrong partition makes no id known.
        fine = ~misplaced
        rows = found.rows.filter(pa.array(fine))
        part = Judged(
            verdicts=timed.verdicts[fine],
            event_times=timed.event_times[fine],
            available_at=timed.available_at[fine],
            payloads=timed.payloads,
        )
        judged = judge.identified(index, rows, part)
        judge.remember(index, rows, judged)
        timed.verdicts[fine] = judged.verdicts
        timed.verdicts[misplaced] = Verdict.MISPLACED
        return timed

    def _anchor(self, topic: Topic, found: Decoded, judged: Judged) -> None:
        """The rows with which a minute of available_at begins; all rows of a record came at one instant."""
        minute, available = ANCHOR_EVERY.micros, judged.available_at
        if topic.retention is None or int(available[-1]) // minute == self._available_at // minute:
            return
        before = np.concatenate([[self._available_at], available[:-1]])
        for row in np.flatnonzero(available // minute != before // minute).tolist():
            if before[row] != NEVER:
                at = offset_of(self.form, int(found.positions[row]))
                self._anchors.append(Anchor(at, int(before[row]), self._version))

    def _count(self, unreadable: Sequence[Unreadable]) -> None:
        self._unreadable_count += len(unreadable)
        self._unreadable += unreadable[: UNREADABLE_MAX - len(self._unreadable)]

    def _forget(self, kept: int) -> None:
        """Let the oldest batches go, of those that were here before this take."""
        gone = 0
        while gone < kept and (self._tail_rows > TAIL_ROWS_MAX or len(self._tail) - gone > TAIL_BATCHES_MAX):
            self._tail_rows -= self._tail[gone].num_rows
            gone += 1
        if gone:
            del self._tail[:gone], self._firsts[:gone]
            self._tail_from = self._firsts[0] if self._firsts else self._end

    # --- what is known ---

    def seen(self, *, exact: bool) -> Seen:
        """exact: of rows that were given, and need not have been judged; else no row lies at or behind `end`, and
        available_at may rise yet."""
        with self._lock:
            if exact:
                self._settle()
            end = position(self.form, self.next) if self._given else self._end
            return Seen(self.next, end, self._available_at)

    def passed(self) -> list[Anchor]:
        """Records at which later readers may begin, since it was asked last."""
        with self._lock:
            self._settle()
            found, self._anchors = self._anchors, []
            return found

    @property
    def end(self) -> int:
        self._settle()
        return self._end

    @property
    def tail_from(self) -> int:
        self._settle()
        return self._tail_from

    @property
    def available_at(self) -> int:
        self._settle()
        return self._available_at

    @property
    def version(self) -> int:
        self._settle()
        return self._version

    @property
    def unreadable(self) -> Sequence[Unreadable]:
        """The first of them, in order."""
        self._settle()
        return self._unreadable

    @property
    def unreadable_count(self) -> int:
        self._settle()
        return self._unreadable_count

    # --- another process's ---

    def kept(self) -> bytes:
        """What this feed knows, for one that goes on from here (`resume`). Cost: that of `judge_to_bytes`."""
        with self._lock:
            self._settle()
            offsets, maxima, versions = zip(*self._marks, strict=True)
            numbers: dict[str, Sequence[int]] = {
                "end": (self._end,),
                "available_at": (self._available_at,),
                "unreadable": (self._unreadable_count,),
                "restarts": (self._restarts,),
                "mark_offsets": offsets,
                "mark_maxima": maxima,
                "mark_versions": versions,
                "by_id": self._by_id[0],
                "by_id_verdicts": self._by_id[1],
            }
            return judge_to_bytes(
                self._judge,
                self.partition.index,
                next=self.next,
                origin=self._origin,
                version=self._version,
                more={name: np.array(values, np.int64) for name, values in numbers.items()},
            )

    def resume(self, body: bytes) -> None:
        """Know what another knew of this partition, and go on from there; this one has taken nothing yet. No row is in
        memory then, and older ones are found again as by who read them. Raises: StateError HR-0550, HR-0551, HR-0568
        (the partition's clock was restarted since), and nothing is changed."""
        there = range(1, self.held.version + 1)
        found = judge_from_bytes(
            body,
            self.partition.index,
            judge=lambda version: Judge(self._known(version)) if version in there else None,
            what=str(self.partition),
            origin=self._origin,
        )
        more = {name: values.tolist() for name, values in found.more.items()}
        if more["restarts"][0] != self._restarts:
            raise StateError(
                "HR-0568",
                f"the judge's checkpoint of {self.partition} does not fit the log",
                detail=f"it knows of {more['restarts'][0]} restarts of the clock, the log has {self._restarts}",
                hint="the partition is read from its start",
            )
        self._judge, self._version, self.next = found.judge, found.version, found.next
        self._end = self._tail_from = more["end"][0]
        self._available_at = more["available_at"][0]
        self._unreadable_count = more["unreadable"][0]
        self._marks = list(zip(more["mark_offsets"], more["mark_maxima"], more["mark_versions"], strict=True))
        self._by_id = (more["by_id"], more["by_id_verdicts"])
        self.begin = self._marks[0][0]

    @property
    def _restarts(self) -> int:
        """How often an operator said when rows of this partition came."""
        return sum(each.partition == self.partition.index for each in self.held.restarts)

    @property
    def _origin(self) -> str:
        return f"{self.held.kafka_id} incarnation {self.held.incarnation}"

    # --- reading ---

    def recent(self, at: int) -> pa.RecordBatch | None:
        """The rows at or behind a position that one batch in memory holds; None where there are none. at: not below
        `tail_from`."""
        self._settle()
        number = max(0, bisect.bisect_right(self._firsts, at) - 1)
        for batch in self._tail[number:]:
            offsets = batch.column(OFFSET).to_numpy()
            if offsets[-1] >= at:
                return conformed(batch.slice(int(np.searchsorted(offsets, at))), self.held.topic.schema)
        return None

    def mark(self, at: int) -> tuple[int, int, int]:
        """Where to begin reading again for the row at a position: a Kafka offset, the running maximum and the version
        in force there."""
        self._settle()
        offset = offset_of(self.form, at)
        return self._marks[bisect.bisect_right(self._marks, offset, key=lambda mark: mark[0]) - 1]

    def again(self, records: Sequence[Record], maximum: int, version: int) -> tuple[list[pa.RecordBatch], int, int]:
        """Batches of records that were judged before, the running maximum and the version behind them."""
        batches = []
        runs = list(by_version(self.counted(records), version))
        for version, some in runs:
            topic = self._known(version)
            found = decoded(topic, self._codec(topic), some, form=self.form, judged=False)
            if not found.rows.num_rows:
                continue
            judge = Judge(topic)
            judged = judge.timed(found.rows, found.stamps, maximum=maximum, request=found.requests)
            self._decided_by_id(found.positions, judged.verdicts)
            maximum = int(judged.available_at[-1])
            batches.append(conformed(with_system(found, judged), self.held.topic.schema))
        return batches, maximum, version

    def _decided_by_id(self, positions: np.ndarray, verdicts: Verdicts) -> None:
        held, decided = self._by_id
        first = bisect.bisect_left(held, int(positions[0]))
        last = bisect.bisect_right(held, int(positions[-1]))
        if first < last:
            verdicts[np.searchsorted(positions, held[first:last])] = decided[first:last]


def by_version(records: Sequence[Record], version: int) -> Iterator[tuple[int, Sequence[Record]]]:
    """Runs of records under one version each; what puts a version in force is in none. version: in force before."""
    first = 0
    for place, record in enumerate(records):
        said = version_of(record)
        if said is not None:
            yield version, records[first:place]
            version, first = max(version, said), place + 1  # said twice by two that repaired the same
    yield version, records[first:]


def with_system(found: Decoded, judged: Judged) -> pa.RecordBatch:
    """Rows as the log's port gives them."""
    system = [
        pa.array(found.positions),
        instants(judged.available_at),
        instants(judged.event_times),
        pa.array(judged.verdicts, pa.uint8()),
    ]
    schema = pa.schema([*SYSTEM_COLUMNS, *found.rows.schema])
    return pa.RecordBatch.from_arrays([*system, *found.rows.columns], schema=schema)


def conformed(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """With a topic's fields as they are now: one that was added since is null."""
    first, behind = len(SYSTEM_COLUMNS), batch.num_columns - (len(SOURCE_COLUMNS) if is_derived(batch) else 0)
    if batch.schema.names[first:behind] == list(schema.names):
        return batch
    arrays = list(batch.columns[:first])
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        arrays.append(pa.nulls(batch.num_rows, field.type.arrow) if place < 0 else batch.column(place))
    whole = [*SYSTEM_COLUMNS, *schema.arrow, *(SOURCE_COLUMNS if is_derived(batch) else ())]
    return pa.RecordBatch.from_arrays([*arrays, *batch.columns[behind:]], schema=pa.schema(whole))


def is_derived(batch: pa.RecordBatch) -> bool:
    """Whether its rows name where they were read of their source."""
    return bool(batch.schema.names[-1] == SOURCE_COLUMNS[-1].name)
