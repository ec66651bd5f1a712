"""One live partition as this process follows it: its rows, judged in order, the newest kept, the older found again.

The one idea: any process may write a partition, so nobody can store verdicts with the rows. They are a function of the
partition's log: whoever reads it from its start judges alike. A feed reads once, in order, and keeps what it takes to
say the same of an older row without reading all before it: the running maximum here and there (`marks`), and the few
rows whose id decided. Touches nothing: records are given to it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from headrace.clients.kafka.port import Place, Record
from headrace.core.codec import partitions_of
from headrace.core.points import Partition
from headrace.core.schema import Schema
from headrace.log.define import Partitioning, Topic
from headrace.log.judge_file import judge_from_bytes, judge_to_bytes
from headrace.log.kafka_registry import Registered
from headrace.log.kafka_rows import Decoded, Verdicts, decoded, offset_of, position, version_of
from headrace.log.plan import NEVER, Judge, Judged
from headrace.log.port import OFFSET, SOURCE_COLUMNS, SYSTEM_COLUMNS, EventCodec, Unreadable, Verdict

Codec = Callable[[Topic], EventCodec]
Known = Callable[[int], Topic]  # a version's definition

TAIL_ROWS_MAX = 1 << 16  # kept in memory: what came between two looks of the slowest reader that keeps up
TAIL_BATCHES_MAX = 1 << 12  # single events come as batches of one
MARK_RECORDS = 1 << 10  # between two marks: at most so many records are decoded in vain to read an old row
UNREADABLE_MAX = 10_000  # of which the reason is kept; beyond, they are only counted

_BY_ID = (int(Verdict.DUPLICATE), int(Verdict.CONFLICT), int(Verdict.MISPLACED))


class Feed:
    """Records of one partition, from its first that is kept on, each given once and in order.

    next: the Kafka offset up to which everything is judged. end: the position behind the newest row. available_at: the
    running maximum. tail_from: rows from this position on are in memory. keeps: whether `kept` says all that it knows.
    """

    keeps = True

    def __init__(self, held: Registered, index: int, place: Place, *, start: int, codec: Codec, known: Known) -> None:
        """held: as it is now; the log replaces it when the topic changes. known: of a version that may be newer."""
        self.partition: Partition = held.partition(index)
        self.place = place
        self.held = held
        self.form = held.topic.payload
        self.next = start
        self.end = self.tail_from = position(self.form, start)
        self.available_at = int(NEVER)
        self.unreadable: list[Unreadable] = []
        self.unreadable_count = 0
        self._codec = codec
        self._known = known
        self.version = held.first_version(index)
        self._judge = Judge(known(self.version))
        self._marks: list[tuple[int, int, int]] = [(start, int(NEVER), self.version)]
        self._by_id: tuple[list[int], list[int]] = ([], [])  # positions, verdicts: of the rows whose id or key decided
        self._firsts: list[int] = []
        self._tail: list[pa.RecordBatch] = []
        self._tail_rows = 0

    # --- following ---

    def take(self, records: Sequence[Record], next: int) -> None:
        """What was fetched from `next` on, and where that ended."""
        kept = len(self._tail)
        for version, some in by_version(records, self.version):
            if version != self.version:
                self.version = version
                self._judge.declared(self._known(version))
            if some and some[0].offset - self._marks[-1][0] >= MARK_RECORDS:
                self._marks.append((some[0].offset, self.available_at, version))
            if some:
                self._take(self._judge.topic, some)
        self.next = next
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
        self.end = offsets[-1].as_py() + 1

    def _read(self, topic: Topic, records: Sequence[Record]) -> tuple[pa.RecordBatch | None, Sequence[Unreadable]]:
        """Rows that are met for the first time, as the log's port gives them; None where there are none."""
        found = decoded(topic, self._codec(topic), records, form=self.form, judged=False)
        if not found.rows.num_rows:
            return None, found.unreadable
        judged = self._judged(topic, found)
        self.available_at = max(self.available_at, int(judged.available_at[-1]))
        odd = np.flatnonzero(np.isin(judged.verdicts, _BY_ID))
        self._by_id[0].extend(found.positions[odd].tolist())
        self._by_id[1].extend(judged.verdicts[odd].tolist())
        return with_system(found, judged), found.unreadable

    def _judged(self, topic: Topic, found: Decoded) -> Judged:
        index, judge = self.partition.index, self._judge
        # Whatever lies here moves the running maximum, so that a row is judged alike in whatever batches it comes.
        timed = judge.timed(found.rows, found.stamps, maximum=self.available_at, request=found.requests)
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

    def _count(self, unreadable: Sequence[Unreadable]) -> None:
        self.unreadable_count += len(unreadable)
        self.unreadable += unreadable[: UNREADABLE_MAX - len(self.unreadable)]

    def _forget(self, kept: int) -> None:
        """Let the oldest batches go, of those that were here before this take."""
        gone = 0
        while gone < kept and (self._tail_rows > TAIL_ROWS_MAX or len(self._tail) - gone > TAIL_BATCHES_MAX):
            self._tail_rows -= self._tail[gone].num_rows
            gone += 1
        if gone:
            del self._tail[:gone], self._firsts[:gone]
            self.tail_from = self._firsts[0] if self._firsts else self.end

    # --- another process's ---

    def kept(self) -> bytes:
        """What this feed knows, for one that goes on from here (`resume`). Cost: that of `judge_to_bytes`."""
        offsets, maxima, versions = zip(*self._marks, strict=True)
        numbers: dict[str, Sequence[int]] = {
            "end": (self.end,),
            "available_at": (self.available_at,),
            "unreadable": (self.unreadable_count,),
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
            version=self.version,
            more={name: np.array(values, np.int64) for name, values in numbers.items()},
        )

    def resume(self, body: bytes) -> None:
        """Know what another knew of this partition, and go on from there; this one has taken nothing yet. No row is in
        memory then, and older ones are found again as by who read them. Raises: StateError HR-0550, HR-0551, and
        nothing is changed."""
        there = range(1, self.held.version + 1)
        found = judge_from_bytes(
            body,
            self.partition.index,
            judge=lambda version: Judge(self._known(version)) if version in there else None,
            what=str(self.partition),
            origin=self._origin,
        )
        more = {name: values.tolist() for name, values in found.more.items()}
        self._judge, self.version, self.next = found.judge, found.version, found.next
        self.end = self.tail_from = more["end"][0]
        self.available_at = more["available_at"][0]
        self.unreadable_count = more["unreadable"][0]
        self._marks = list(zip(more["mark_offsets"], more["mark_maxima"], more["mark_versions"], strict=True))
        self._by_id = (more["by_id"], more["by_id_verdicts"])

    @property
    def _origin(self) -> str:
        return f"{self.held.kafka_id} incarnation {self.held.incarnation}"

    # --- reading ---

    def recent(self, at: int) -> pa.RecordBatch | None:
        """The rows at or behind a position that one batch in memory holds; None where there are none. at: not below
        `tail_from`."""
        number = max(0, bisect.bisect_right(self._firsts, at) - 1)
        for batch in self._tail[number:]:
            offsets = batch.column(OFFSET).to_numpy()
            if offsets[-1] >= at:
                return conformed(batch.slice(int(np.searchsorted(offsets, at))), self.held.topic.schema)
        return None

    def mark(self, at: int) -> tuple[int, int, int]:
        """Where to begin reading again for the row at a position: a Kafka offset, the running maximum and the version
        in force there."""
        offset = offset_of(self.form, at)
        return self._marks[bisect.bisect_right(self._marks, offset, key=lambda mark: mark[0]) - 1]

    def again(self, records: Sequence[Record], maximum: int, version: int) -> tuple[list[pa.RecordBatch], int, int]:
        """Batches of records that were judged before, the running maximum and the version behind them."""
        batches = []
        runs = list(by_version(records, version))
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
        pa.array(judged.available_at).cast(SYSTEM_COLUMNS[1].type),
        pa.array(judged.event_times).cast(SYSTEM_COLUMNS[2].type),
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
