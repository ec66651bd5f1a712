"""From appends to entries: what fits together in one commit, judged and encoded. Pure but for the judge it is handed.

A group's rows of one partition are judged and stored as one piece, so that two events of the same id in one group meet
each other, and eight threads that append one event each make one entry of eight rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace.core.codec import rows_to_batch
from headrace.core.errors import LogError, SchemaError, UsageError
from headrace.core.points import Cut
from headrace.log.plan import Judged
from headrace.log.port import Append, Appended, Physical
from headrace.log.sqlite_entry import ENTRY_ROWS, Form, checksum, encode_batch, encode_rows
from headrace.log.sqlite_file import key
from headrace.log.sqlite_queue import Turn
from headrace.log.sqlite_read import PartitionRecord, TopicRecord

Entry = tuple[int, int, int, int, int, bytes | pa.Buffer]  # key, count, available_at, form, checksum, payload
Tuples = Sequence[tuple[Physical, ...]]

_INT64_MAX = 2**63 - 1
CLASSES_MAX = 256  # sets of classes that a topic remembers: which of its fields are null at once


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of `append`."""

    appends: Sequence[Append]
    group: str | None
    cut: Cut | None


AppendTurn = Turn[Asked, tuple[Appended, ...]]


class Piece:
    """All rows of one group for one partition, in order, in one form.

    parts: whose they are: the turn's place in the group, the append's place in the turn, the first row, the row count.
    """

    __slots__ = ("at", "available_at", "count", "parts", "record", "request", "rows", "topic")

    def __init__(self, topic: TopicRecord, record: PartitionRecord, append: Append) -> None:
        self.topic = topic
        self.record = record
        self.request = append.request
        self.at = append.at
        self.rows: Tuples | pa.RecordBatch = append.rows
        self.available_at = append.available_at
        self.count = len(append.rows)
        self.parts: list[tuple[int, int, int, int]] = []

    def joins(self, append: Append) -> bool:
        """Whether these rows can be stored behind those without a copy that costs more than a commit of their own."""
        if append.request != self.request or append.at != self.at or append.begins is not None:
            return False
        arrow = isinstance(append.rows, pa.RecordBatch)
        return arrow == isinstance(self.rows, pa.RecordBatch) and self.count + len(append.rows) <= ENTRY_ROWS

    def join(self, append: Append) -> None:
        """Behind those that are there; rows of both forms together become Arrow."""
        if isinstance(self.rows, pa.RecordBatch) or isinstance(append.rows, pa.RecordBatch):
            self.rows = pa.concat_batches([self._arrow(self.rows), self._arrow(append.rows)])
        else:
            self.rows = [*self.rows, *append.rows]
        if self.available_at is not None and append.available_at is not None:
            self.available_at = np.concatenate([self.available_at, append.available_at])
        self.count += len(append.rows)

    def _arrow(self, rows: Tuples | pa.RecordBatch) -> pa.RecordBatch:
        topic = self.topic.topic
        if not isinstance(rows, pa.RecordBatch):
            rows = rows_to_batch(topic.schema, rows)
        # One nullability for all, or Arrow refuses to join them.
        names = topic.schema.names
        return pa.RecordBatch.from_arrays(
            rows.columns, schema=pa.schema([pa.field(n, c.type) for n, c in zip(names, rows.columns, strict=True)])
        )

    def entries(self, judged: Judged) -> list[Entry]:
        """As the file will hold them, from the partition's end on."""
        topic, version, at = self.topic.topic, self.topic.version, self.record.end
        rows, stamps, times, verdicts = self.rows, judged.available_at, judged.event_times, judged.verdicts
        if not isinstance(rows, pa.RecordBatch):
            if len(rows) <= ROWS_MAX:
                payload = encode_rows(topic, version, rows, stamps, times, verdicts)
                return [_entry(self.record.number, at, len(rows), int(stamps[-1]), Form.ROWS, payload)]
            rows = rows_to_batch(topic.schema, rows)
        made = []
        first = at
        for count, buffer in encode_batch(topic, version, rows, stamps, times, verdicts):
            last = int(stamps[at - first + count - 1])
            made.append(_entry(self.record.number, at, count, last, Form.ARROW, buffer))
            at += count
        return made


# Above it, rows in Arrow take fewer bytes and less time to read than in MessagePack, and the cost of making them is
# paid.
ROWS_MAX = 4_096


def _entry(number: int, offset: int, count: int, available_at: int, form: Form, payload: bytes | pa.Buffer) -> Entry:
    at = key(number, offset)
    return at, count, available_at, int(form), checksum(at, count, available_at, form, payload), payload


def reencoded(topic: TopicRecord, record: PartitionRecord, batches: Sequence[pa.RecordBatch]) -> list[Entry]:
    """Entries of rows as they were read from the log, at the offsets they have: what sealing writes."""
    batch = pa.concat_batches(batches) if len(batches) > 1 else batches[0]
    offset = batch.column(0)[0].as_py()
    stamps, times = (batch.column(place).cast(pa.int64()).to_numpy() for place in (1, 2))
    verdicts = batch.column(3).to_numpy()
    rows = pa.RecordBatch.from_arrays(batch.columns[4:], names=batch.schema.names[4:])
    made = []
    done = 0
    for count, buffer in encode_batch(topic.topic, topic.version, rows, stamps, times, verdicts):
        last = int(stamps[done + count - 1])
        made.append(_entry(record.number, offset + done, count, last, Form.ARROW, buffer))
        done += count
    return made


def check(topic: TopicRecord, record: PartitionRecord, append: Append) -> None:
    """That the rows can be stored and read again: what was validated passes, what never was must not spoil a partition.

    Raises: SchemaError HR-0317, LogError HR-0314.
    """
    if record.live != (append.available_at is None):
        raise UsageError(
            "HR-0314",
            f"{record.partition}: available_at does not fit",
            detail="expected one instant a row for an import's partition, and none for a live one",
        )
    if not record.live and record.sealed:
        raise LogError(
            "HR-0314",
            f"{record.partition} is a sealed import",
            detail="its rows are part of what was read and cannot grow",
            hint="import under a new import id",
        )
    if append.available_at is not None and len(append.available_at) != len(append.rows):
        raise _unfit(topic, f"expected {len(append.rows)} instants of available_at, seen {len(append.available_at)}")
    if isinstance(append.rows, pa.RecordBatch):
        _check_batch(topic, append.rows)
    else:
        _check_tuples(topic, append.rows)


def _check_batch(topic: TopicRecord, batch: pa.RecordBatch) -> None:
    schema = topic.topic.schema
    if tuple(batch.schema.names) != schema.names:
        raise _unfit(topic, f"expected fields {list(schema.names)}, seen {batch.schema.names}")
    for each, array, wanted in zip(schema, batch.columns, topic.arrow.types[4:], strict=True):
        if array.type != wanted:
            raise _unfit(topic, f"field {each.name!r}: expected {wanted}, seen {array.type}")
        if array.null_count and each.name in topic.required:
            raise _unfit(topic, f"field {each.name!r}: expected no null, seen {array.null_count}")


def _check_tuples(topic: TopicRecord, rows: Tuples) -> None:
    columns, known, integers = topic.columns, topic.classes, topic.integers
    for index, row in enumerate(rows):
        classes = tuple(map(type, row))
        if classes in known:  # the common case, at a tenth of the cost of a look at each value
            for place in integers:
                value = row[place]
                if value is not None and not -_INT64_MAX - 1 <= value <= _INT64_MAX:  # type: ignore[operator]  # an int
                    raise _unfit(topic, f"row {index}, field {columns[place][0]!r}: expected 64 bits, seen {value}")
            continue
        if len(row) != len(columns):
            raise _unfit(topic, f"row {index}: expected {len(columns)} values, seen {len(row)}")
        for value, (name, wanted, nullable) in zip(row, columns, strict=True):
            if type(value) is not wanted:
                if value is None and nullable:
                    continue
                raise _unfit(
                    topic, f"row {index}, field {name!r}: expected {wanted.__name__}, seen {type(value).__name__}"
                )
            if wanted is int and not -_INT64_MAX - 1 <= value <= _INT64_MAX:  # type: ignore[operator]  # an int, tested above
                raise _unfit(topic, f"row {index}, field {name!r}: expected 64 bits, seen {value}")
        if len(known) < CLASSES_MAX:
            known.add(classes)


def _unfit(topic: TopicRecord, detail: str) -> SchemaError:
    return SchemaError(
        "HR-0317",
        f"rows do not fit topic {topic.topic.name!r}",
        detail=detail,
        hint="validate rows before they are appended; nothing of this append was taken",
        topic=topic.topic.name,
    )


def collect(
    turns: Sequence[AppendTurn], resolved: Sequence[Sequence[tuple[TopicRecord, PartitionRecord]]]
) -> tuple[list[Piece], int]:
    """The pieces of the first turns that fit one group, and how many turns that is: at least one."""
    pieces: dict[int, Piece] = {}
    for place, (turn, targets) in enumerate(zip(turns, resolved, strict=True)):
        here = list(zip(turn.asked.appends, targets, strict=True))
        if place and not all(_fits(pieces.get(record.number), append) for append, (_, record) in here):
            return list(pieces.values()), place
        for index, (append, (topic, record)) in enumerate(here):
            if not len(append.rows):
                continue
            piece = pieces.get(record.number)
            if piece is None:
                piece = pieces[record.number] = Piece(topic, record, append)
                first = 0
            else:
                first = piece.count
                piece.join(append)
            piece.parts.append((place, index, first, len(append.rows)))
    return list(pieces.values()), len(turns)


def _fits(piece: Piece | None, append: Append) -> bool:
    return piece is None or not len(append.rows) or piece.joins(append)


def answers(
    turns: Sequence[AppendTurn],
    resolved: Sequence[Sequence[tuple[TopicRecord, PartitionRecord]]],
    pieces: Sequence[tuple[Piece, Judged, int]],
) -> list[tuple[Appended, ...]]:
    """What each turn is told. pieces: with the offset that each piece's rows begin at."""
    told: list[list[Appended | None]] = [[None] * len(turn.asked.appends) for turn in turns]
    for piece, judged, offset in pieces:
        for place, index, first, count in piece.parts:
            rows = slice(first, first + count)
            told[place][index] = Appended(
                partition=piece.record.partition,
                offset=offset + first,
                verdicts=judged.verdicts[rows],
                event_times=judged.event_times[rows],
                available_at=judged.available_at[rows],
            )
    empty = np.zeros(0, dtype=np.int64)
    return [
        tuple(
            Appended(
                partition=record.partition,
                offset=record.end,
                verdicts=empty.astype(np.uint8),
                event_times=empty,
                available_at=empty,
            )
            if each is None
            else each
            for each, (_, record) in zip(row, targets, strict=True)
        )
        for row, targets in zip(told, resolved, strict=True)
    ]
