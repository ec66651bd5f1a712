"""Reading the log's file, in the owner and in any other process: what there is, and rows by offset.

Each chunk of a read is one short transaction, so that a slow reader never keeps the WAL from being reused; between two
chunks entries may be sealed into larger ones, which moves no offset. Every payload is checked against its checksum and
its place. Touches: the file, through connections of its own.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import msgspec
import numpy as np
import pyarrow as pa

from headrace.core.codec import INSTANT_MAX
from headrace.core.errors import LogError, NotFoundError, did_you_mean
from headrace.core.points import Cut, Partition
from headrace.core.schema import Kind, Schema
from headrace.core.times import Clock, Instant, iso
from headrace.log import define
from headrace.log.codec import topic_from_json
from headrace.log.define import Topic
from headrace.log.plan import AHEAD_MAX, NEVER
from headrace.log.port import PartitionKind, PartitionState, TopicState
from headrace.log.sqlite_entry import (
    ENTRY_ROWS,
    Columns,
    Form,
    arrow_schema,
    assemble,
    checksum,
    decode_arrow,
    decode_rows,
)
from headrace.log.sqlite_file import OFFSET_BITS, connect_reader, corrupt, key, translated

CHUNK_BYTES = 32 << 20  # what one transaction of a read collects at most before it yields
_CLASSES: dict[Kind, type] = {
    Kind.STRING: str, Kind.INT64: int, Kind.FLOAT64: float, Kind.BOOLEAN: bool,
    Kind.TIMESTAMP: int, Kind.DURATION: int, Kind.DECIMAL: int, Kind.LIST: list,
}  # fmt: skip
_OFFSET_MASK = (1 << OFFSET_BITS) - 1
# What decoders say of bytes that are none: pyarrow OSError and StopIteration too, numpy OverflowError. Nothing is read
# from the disk while they work.
_DECODING = (
    pa.ArrowInvalid, pa.ArrowNotImplementedError, msgspec.MsgspecError, KeyError, IndexError, ValueError, TypeError,
    AssertionError, OSError, OverflowError, StopIteration,
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class PartitionRecord:
    """A partition as the file says it. number: its place in the keys. The owner keeps end and available_at current.

    restart_offset, restart_at: rows below were stamped by a clock that ran ahead, and count as stamped at
    restart_at."""

    number: int
    partition: Partition
    import_id: str | None
    sealed: bool
    start: int
    end: int = 0
    available_at: int = NEVER
    restart_offset: int = 0
    restart_at: int = 0

    @property
    def live(self) -> bool:
        return self.import_id is None

    @property
    def listed(self) -> bool:
        return self.import_id is None or self.sealed

    def state(self) -> PartitionState:
        return PartitionState(
            partition=self.partition,
            kind=PartitionKind.LIVE if self.live else PartitionKind.IMPORT,
            start=self.start,
            end=self.end,
            available_at=Instant(self.available_at),
            sealed=self.sealed,
            rows=None if self.live else self.end,
        )


@dataclass(slots=True, kw_only=True)
class TopicRecord:
    """A topic as the file says it. schemas: of every version ever in force, which rows are stored under.

    columns: of each field its name, the class of its physical value, whether it may be null. classes: of a row's values
    where none is null; those of rows with nulls are added as they are met. integers: the places of 64-bit numbers."""

    number: int
    topic: Topic
    incarnation: int
    version: int
    schemas: dict[int, Schema]
    partitions: dict[int, PartitionRecord] = field(default_factory=dict)
    arrow: pa.Schema = None
    required: frozenset[str] = frozenset()
    columns: tuple[tuple[str, type, bool], ...] = ()
    classes: set[tuple[type, ...]] = field(default_factory=set)
    integers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.arrow = arrow_schema(self.topic)
        self.required = self.topic.required
        self.columns = tuple((f.name, _CLASSES[f.type.kind], f.name not in self.required) for f in self.topic.schema)
        self.classes = {tuple(wanted for _, wanted, _ in self.columns)}
        self.integers = tuple(place for place, (_, wanted, _) in enumerate(self.columns) if wanted is int)

    def state(self) -> TopicState:
        listed = [self.partitions[index] for index in sorted(self.partitions)]
        return TopicState(
            topic=self.topic,
            incarnation=self.incarnation,
            version=self.version,
            partitions=tuple(each.state() for each in listed if each.listed),
        )


Catalog = dict[str, TopicRecord]


def find(catalog: Catalog, partition: Partition) -> tuple[TopicRecord, PartitionRecord]:
    """Raises: NotFoundError HR-0302."""
    record = catalog.get(partition.topic)
    if record is None:
        raise NotFoundError(
            "HR-0302",
            f"no topic {partition.topic!r} in the log",
            hint=did_you_mean(partition.topic, catalog),
            topic=partition.topic,
        )
    if record.incarnation != partition.incarnation:
        raise NotFoundError(
            "HR-0302",
            f"topic {partition.topic!r} was dropped and made anew",
            detail=f"expected incarnation {record.incarnation}, seen {partition.incarnation}",
            hint="ask the log for its topics again",
            topic=partition.topic,
        )
    found = record.partitions.get(partition.index)
    if found is None:
        raise NotFoundError(
            "HR-0302",
            f"topic {partition.topic!r} has no partition {partition.index}",
            detail=f"there are {sorted(record.partitions)}",
            topic=partition.topic,
            partition=partition.index,
        )
    return record, found


def load_catalog(connection: apsw.Connection) -> Catalog:
    """Every topic that was not dropped, with its partitions' ends. Within a transaction of the caller's for one
    instant."""
    catalog: Catalog = {}
    rows = connection.execute("SELECT id, name, incarnation FROM topics WHERE NOT dropped ORDER BY name").fetchall()
    for number, name, incarnation in rows:
        definitions = {
            version: topic_from_json(text)
            for version, text in connection.execute(
                "SELECT version, definition FROM versions WHERE topic = ?", (number,)
            )
        }
        if not definitions:
            raise corrupt(f"topic {name!r}", "expected a stored definition, seen none", topic=name)
        version = max(definitions)
        catalog[name] = TopicRecord(
            number=number,
            topic=definitions[version],
            incarnation=incarnation,
            version=version,
            schemas={v: topic.schema for v, topic in definitions.items()},
        )
        partitions = connection.execute(
            "SELECT number, place, import_id, sealed, start, restart_offset, restart_at FROM partitions "
            "WHERE topic = ?",
            (number,),
        ).fetchall()
        for part, place, import_id, sealed, start, restart_offset, restart_at in partitions:
            record = PartitionRecord(
                number=part,
                partition=Partition(name, incarnation, place),
                import_id=import_id,
                sealed=bool(sealed),
                start=start,
                restart_offset=restart_offset,
                restart_at=restart_at,
            )
            refresh(connection, record)
            catalog[name].partitions[place] = record
    return catalog


def refresh(connection: apsw.Connection, record: PartitionRecord) -> None:
    """Its end and running maximum, from its last entry."""
    last = connection.execute(
        "SELECT key, count, available_at FROM entries WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT 1",
        (key(record.number, 0), key(record.number + 1, 0)),
    ).fetchone()
    if last is None:
        record.end = record.start
        return
    record.end = (last[0] & _OFFSET_MASK) + last[1]
    record.available_at = min(last[2], record.restart_at) if record.end <= record.restart_offset else last[2]


def group_cut(connection: apsw.Connection, name: str) -> Cut:
    rows = connection.execute(
        "SELECT t.name, t.incarnation, p.place, g.next FROM groups g JOIN partitions p ON p.number = g.partition "
        "JOIN topics t ON t.id = p.topic WHERE g.name = ? AND NOT t.dropped",
        (name,),
    )
    return Cut.of({Partition(topic, incarnation, place): offset for topic, incarnation, place, offset in rows})


class ConnectionPool:
    """Connections that are used by one thread at a time and kept for the next; as many as there are readers at once."""

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._idle: list[apsw.Connection] = []
        self._mutex = threading.Lock()
        self._closed = False

    @contextmanager
    def lease(self, *, snapshot: bool = True) -> Iterator[apsw.Connection]:
        """A connection inside one read transaction: all that is read is of one instant. snapshot: False for one that
        sees each commit as it comes."""
        with self._mutex:
            if self._closed:
                raise LogError("HR-0316", "the log is closed")
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            if snapshot:
                connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        with self._mutex:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._mutex:
            self._closed, idle, self._idle = True, self._idle, []
        for connection in idle:
            connection.close()


def below(stable: int, end: int | None) -> int:
    """Where a read ends: at the stable end, or before it where its caller says so."""
    return stable if end is None else min(stable, end)


class Reader:
    """Rows by offset, from any process."""

    def __init__(self, file: Path, *, clock: Clock, vfs: str | None = None) -> None:
        self.file = file
        self._clock = clock
        self.pool = ConnectionPool(lambda: connect_reader(file, vfs=vfs))

    def close(self) -> None:
        self.pool.close()

    def read(
        self, topic: TopicRecord, record: PartitionRecord, offset: int, *, end: int, rows_max: int, halting: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """Batches of [offset, end). halting: an append instant too far ahead of the clock ends it (SEMANTICS 1.2)."""
        if rows_max < 1:
            raise ValueError(f"rows_max must be at least 1, seen {rows_max}")
        halts = halting and record.live and topic.topic.clock is define.Clock.WALL
        while offset < end:
            for batch in self._chunk(topic, record, offset, end, rows_max):
                if halts:
                    batch, halted = self._before_halt(batch)
                    if batch.num_rows:
                        yield batch
                    if halted is not None:
                        raise ahead(record.partition, *halted)
                else:
                    yield batch
                offset += batch.num_rows

    def _before_halt(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, tuple[Instant, Instant] | None]:
        """The rows before the first stamped too far ahead, and that row's instant and the clock's."""
        instants = batch.column(1).cast(pa.int64()).to_numpy()
        now = self._clock.now()
        if instants[-1] <= now + AHEAD_MAX.micros:
            return batch, None
        first = int(np.argmax(instants > now + AHEAD_MAX.micros))
        return batch.slice(0, first), (Instant(int(instants[first])), now)

    def _chunk(
        self, topic: TopicRecord, record: PartitionRecord, offset: int, end: int, rows_max: int
    ) -> list[pa.RecordBatch]:
        """One transaction's worth of batches from `offset`, none empty, together at least one row."""
        place = f"{record.partition} at offset {offset}"
        topic_name, index = record.partition.topic, record.partition.index
        corrupt_at = translated(self.file, place, topic=topic_name, partition=index, offset=offset)
        with corrupt_at, self.pool.lease() as connection:
            self._check_kept(connection, record, offset)
            pieces = self._collect(
                connection, topic, record, offset, min(end, offset + max(1, min(rows_max, ENTRY_ROWS)))
            )
        batches = []
        for first, columns in pieces:
            if record.restart_offset > first:
                below = np.arange(first, first + len(columns.available_at)) < record.restart_offset
                instants = np.where(below, np.minimum(columns.available_at, record.restart_at), columns.available_at)
                columns = dataclasses.replace(columns, available_at=instants)
            batches.append(self._assembled(topic, record, first, columns))
        head = batches[0]
        batches[0] = head.slice(offset - pieces[0][0])
        last = pieces[-1][0] + len(pieces[-1][1].available_at)
        if last > end:
            batches[-1] = batches[-1].slice(0, batches[-1].num_rows - (last - end))
        if len(batches) > 1 and sum(b.num_rows for b in batches) <= min(rows_max, ENTRY_ROWS):
            return [pa.concat_batches(batches)]
        return [b.slice(at, rows_max) for b in batches for at in range(0, b.num_rows, rows_max)]

    def _check_kept(self, connection: apsw.Connection, record: PartitionRecord, offset: int) -> None:
        row = connection.execute(
            "SELECT start, restart_offset, restart_at FROM partitions WHERE number = ?", (record.number,)
        ).fetchone()
        if row is None:
            raise NotFoundError("HR-0302", f"{record.partition} was dropped", topic=record.partition.topic)
        if offset < row[0]:
            raise LogError(
                "HR-0303",
                f"{record.partition}: offset {offset} is gone",
                detail=f"retention keeps rows from offset {row[0]}",
                hint="read from the partition's start, or raise the topic's retention before rows age",
                start=row[0],
                offset=offset,
            )
        record.restart_offset, record.restart_at = row[1], row[2]

    def _collect(
        self, connection: apsw.Connection, topic: TopicRecord, record: PartitionRecord, offset: int, until: int
    ) -> list[tuple[int, Columns]]:
        """Decoded entries that cover [offset, until), each with its first offset."""
        low, wanted = key(record.number, 0), key(record.number, offset)
        found = connection.execute("SELECT max(key) FROM entries WHERE key BETWEEN ? AND ?", (low, wanted)).fetchone()
        first = found[0] if found[0] is not None else wanted
        rows = connection.execute(
            "SELECT key, count, available_at, form, checksum, iif(form = 1, payload, NULL) FROM entries "
            "WHERE key >= ? AND key < ? ORDER BY key",
            (first, key(record.number, until)),
        )
        pieces: list[tuple[int, Columns]] = []
        small: list[bytes] = []
        small_from = expected = first & _OFFSET_MASK
        blob: apsw.Blob | None = None
        size = 0
        try:
            for at, count, available_at, form, stored, payload in rows:
                here = at & _OFFSET_MASK
                if here != expected or count < 1:
                    raise self._broken(record, expected, f"expected rows there, seen an entry at offset {here}")
                if form == Form.ARROW:
                    if blob is None:
                        blob = connection.blob_open("main", "entries", "payload", at, False)
                    else:
                        blob.reopen(at)
                    payload = pa.allocate_buffer(blob.length())
                    blob.read_into(payload)
                if checksum(at, count, available_at, form, payload) != stored:
                    raise self._broken(record, here, "its checksum does not match its bytes")
                if form == Form.ROWS:
                    small_from = here if not small else small_from
                    small.append(payload)
                elif form == Form.ARROW:
                    self._decode_small(pieces, topic, record, small_from, small)
                    pieces.append((here, self._decode_one(topic, record, here, count, payload)))
                else:
                    raise self._broken(record, here, f"expected form 1 or 2, seen {form}")
                expected = here + count
                size += len(payload)
                if size >= CHUNK_BYTES:
                    break
        finally:
            if blob is not None:
                blob.close()
        self._decode_small(pieces, topic, record, small_from, small)
        if not pieces or expected <= offset:
            raise self._broken(record, offset, "expected rows there, seen none")
        return pieces

    def _decode_one(
        self, topic: TopicRecord, record: PartitionRecord, offset: int, count: int, payload: pa.Buffer
    ) -> Columns:
        try:
            columns = decode_arrow(topic.topic, payload)
        except _DECODING as error:
            raise self._broken(record, offset, f"cannot be decoded: {type(error).__name__}: {error}") from error
        if len(columns.available_at) != count:
            raise self._broken(record, offset, f"expected {count} rows, seen {len(columns.available_at)}")
        return columns

    def _decode_small(
        self,
        pieces: list[tuple[int, Columns]],
        topic: TopicRecord,
        record: PartitionRecord,
        offset: int,
        small: list[bytes],
    ) -> None:
        if not small:
            return
        try:
            for columns in decode_rows(topic.topic, topic.schemas, small):
                pieces.append((offset, columns))
                offset += len(columns.available_at)
        except _DECODING as error:
            raise self._broken(record, offset, f"cannot be decoded: {type(error).__name__}: {error}") from error
        small.clear()

    def _assembled(self, topic: TopicRecord, record: PartitionRecord, offset: int, columns: Columns) -> pa.RecordBatch:
        try:
            return assemble(topic.topic, topic.arrow, offset, columns)
        except _DECODING as error:  # each column was one, and together they are no batch
            raise self._broken(record, offset, f"cannot be decoded: {type(error).__name__}: {error}") from error

    def _broken(self, record: PartitionRecord, offset: int, detail: str) -> LogError:
        partition = record.partition
        return corrupt(
            f"{partition} at offset {offset}",
            f"{detail} (file {self.file})",
            topic=partition.topic,
            partition=partition.index,
            offset=offset,
        )


def ahead(partition: Partition, stamped: Instant, now: Instant) -> LogError:
    """SEMANTICS 1.2's halt."""
    seen = iso(stamped) if stamped <= INSTANT_MAX else f"{int(stamped)} microseconds, beyond the year 9999"
    return LogError(
        "HR-0313",
        f"{partition} is stamped ahead of this clock",
        detail=f"expected an append instant up to {iso(Instant(now + AHEAD_MAX.micros))}, seen {seen}",
        hint="set the clocks right; if the append instant is the wrong one, `headrace log restart-clock` takes it back",
        topic=partition.topic,
        partition=partition.index,
        stamped=int(stamped),
        now=int(now),
    )
