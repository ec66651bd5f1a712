"""Rows as Kafka records, and back: positions, headers, the two payload forms. Pure.

The one idea: a position is one integer. In JSON form a record is a row and its offset is the position; in Arrow form a
record holds many, and a position is offset << ROW_BITS | row, so that cuts and order keys are what they are elsewhere.

What is judged by who writes it (imports, whose rows say when they were available) carries its verdicts; everything else
is judged by who reads it (log/kafka_feed.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.clients.kafka.port import Fetched, Headers, Outgoing, Place, Record
from headrace.core.codec import key_bytes, rows_to_batch, units
from headrace.core.errors import SchemaError
from headrace.core.schema import Schema
from headrace.log.define import Payload, Topic
from headrace.log.kafka_registry import Restart
from headrace.log.port import OFFSET, EventCodec, Row, Unreadable

# A position has 42 bits (features/online.py): 2**26 records of at most 2**16 rows each.
ROW_BITS = 16
RECORD_ROWS_MAX = 1 << ROW_BITS
RECORD_BYTES = 900_000  # wanted at most of an Arrow record: brokers take 1 MiB, and a batch has its schema beside it

VERSION = "headrace-version"  # header of a record without a value: from here on this version is in force, 4 bytes
REQUEST = "headrace-request"  # header: this event is a request of a decision, which no clock refuses
AVAILABLE_AT = "headrace-available-at"  # header of an import's JSON record: microseconds, 8 bytes
VERDICT = "headrace-verdict"  # header of the same: one byte
ROWS = "headrace-rows"  # header of an import's record: how many rows there are up to its end, 8 bytes
_STORED = (("_available_at", pa.int64()), ("_verdict", pa.uint8()))

Integers = npt.NDArray[np.int64]
Verdicts = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the writer judged, one a row."""

    available_at: Integers
    verdicts: Verdicts


class Encoded(NamedTuple):
    """records: of some rows, in their order. counts: how many rows each of them holds."""

    records: Sequence[Outgoing]
    counts: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Rows of some records, in their order. positions, stamps (microseconds), requests: one a row. unreadable: the
    records that are no events, by offset."""

    rows: pa.RecordBatch
    positions: Integers
    stamps: Integers
    requests: npt.NDArray[np.bool_]
    stored: Stored | None
    unreadable: Sequence[Unreadable]


def row_bits(form: Payload) -> int:
    return ROW_BITS if form is Payload.ARROW else 0


def position(form: Payload, offset: int) -> int:
    """Of the first row of the record at a Kafka offset."""
    return offset << row_bits(form)


def offset_of(form: Payload, position: int) -> int:
    """The Kafka offset from which reading gives all rows at or behind a position."""
    return position >> row_bits(form)


# --- out ---


def outgoing(
    topic: Topic, codec: EventCodec, place: Place, rows: pa.RecordBatch | Sequence[Row], *, request: bool
) -> Encoded:
    """Live rows as records, in order."""
    headers: Headers = ((REQUEST, b"\1"),) if request else ()
    if topic.payload is Payload.ARROW:
        parts = slices(_as_batch(topic.schema, rows))
        records = [Outgoing(place, None, ipc(part), headers) for part in parts]
        return Encoded(records, [part.num_rows for part in parts])
    values = codec.encode(rows)
    records = [Outgoing(place, key, value, headers) for key, value in zip(keys_of(topic, rows), values, strict=True)]
    return Encoded(records, [1] * len(records))


def outgoing_judged(
    topic: Topic,
    codec: EventCodec,
    place: Place,
    rows: pa.RecordBatch | Sequence[Row],
    stored: Stored,
    *,
    form: Payload,
    before: int,
) -> Encoded:
    """An import's rows as records. before: how many rows the import's partition holds already."""
    if form is Payload.ARROW:
        batch = _as_batch(topic.schema, rows)
        for values, (name, type) in zip((stored.available_at, stored.verdicts), _STORED, strict=True):
            batch = batch.append_column(name, pa.array(values, type))
        made, counts, count = [], [], before
        for part in slices(batch):
            count += part.num_rows
            made.append(Outgoing(place, None, ipc(part), ((ROWS, _bytes(count)),)))
            counts.append(part.num_rows)
        return Encoded(made, counts)
    judged = zip(stored.available_at.tolist(), stored.verdicts.tolist(), strict=True)
    keyed = zip(keys_of(topic, rows), codec.encode(rows), judged, strict=True)
    records = [
        Outgoing(place, key, value, ((AVAILABLE_AT, _bytes(at)), (VERDICT, bytes((verdict,))), (ROWS, _bytes(count))))
        for count, (key, value, (at, verdict)) in enumerate(keyed, before + 1)
    ]
    return Encoded(records, [1] * len(records))


def versioning(place: Place, version: int) -> Outgoing:
    """The record that puts a definition in force for what follows in its partition."""
    return Outgoing(place, None, None, ((VERSION, version.to_bytes(4, "big")),))


def version_of(record: Record) -> int | None:
    """Of such a record; None of every other."""
    if record.value is not None:
        return None
    said = dict(record.headers).get(VERSION)
    return None if said is None else int.from_bytes(said, "big")


def restamped(records: Sequence[Record], restarts: Sequence[Restart]) -> Sequence[Record]:
    """As they count where an operator restarted a clock. restarts: of their partition."""
    for each in restarts:
        if records and records[0].offset < each.end and records[-1].offset >= each.begin:
            records = [
                record._replace(timestamp=each.at) if each.begin <= record.offset < each.end else record
                for record in records
            ]
    return records


def without(one: Fetched, *, below: int) -> Fetched:
    """What was fetched, without records below an offset."""
    if not one.records or one.records[0].offset >= below:
        return one
    return one._replace(records=[record for record in one.records if record.offset >= below])


def rows_before(record: Record) -> int:
    """How many rows an import's partition holds up to this record's end."""
    return _number(dict(record.headers)[ROWS])


def keys_of(topic: Topic, rows: pa.RecordBatch | Sequence[Row]) -> Iterable[bytes]:
    if isinstance(rows, pa.RecordBatch):
        return [key_bytes(key) for key in rows.column(topic.key).to_pylist()]
    place = topic.schema.names.index(topic.key)
    return [key_bytes(row[place]) for row in rows]  # type: ignore[arg-type]  # a key is a text or an int64, never null


def slices(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Parts of few enough rows and bytes, as alike as they come."""
    if not batch.num_rows:
        return []
    each = max(1, min(RECORD_ROWS_MAX, RECORD_BYTES * batch.num_rows // max(1, batch.get_total_buffer_size())))
    return [batch.slice(first, each) for first in range(0, batch.num_rows, each)]


def ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _as_batch(schema: Schema, rows: pa.RecordBatch | Sequence[Row]) -> pa.RecordBatch:
    return rows if isinstance(rows, pa.RecordBatch) else rows_to_batch(schema, rows)


def _bytes(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


# --- in ---


def decoded(topic: Topic, codec: EventCodec, records: Sequence[Record], *, form: Payload, judged: bool) -> Decoded:
    """The rows of committed records. judged: they are an import's, and say when they were available and how they were
    judged. What is no event of the topic is told, and left out."""
    if form is Payload.ARROW:
        return _decoded_arrow(topic, codec, records, judged=judged)
    offsets = np.fromiter((record.offset for record in records), np.int64, len(records))
    stamps = np.fromiter((record.timestamp for record in records), np.int64, len(records)) * 1_000
    found = codec.decode([record.value or b"" for record in records])
    places = found.places
    stored = None
    bad = {one.place: one for one in found.unreadable}
    rows = found.rows
    if judged:
        said = [dict(records[place].headers) for place in places.tolist()]
        whole = [AVAILABLE_AT in each and len(each.get(VERDICT, b"")) == 1 for each in said]
        if not all(whole):
            kept = np.array(whole)
            for place in places[~kept].tolist():
                bad[place] = Unreadable(place, "HR-0304", "an import's record without its verdict")
            rows, places = rows.filter(pa.array(kept)), places[kept]
            said = [each for each, fine in zip(said, whole, strict=True) if fine]
        stored = Stored(
            available_at=np.array([_number(each[AVAILABLE_AT]) for each in said], np.int64),
            verdicts=np.array([each[VERDICT][0] for each in said], np.uint8),
        )
    requests = np.zeros(len(places), np.bool_)
    for row, place in enumerate(places.tolist()):
        if records[place].headers and REQUEST in dict(records[place].headers):
            requests[row] = True
    return Decoded(
        rows=rows,
        positions=offsets[places],
        stamps=stamps[places],
        requests=requests,
        stored=stored,
        unreadable=[one._replace(place=int(offsets[place])) for place, one in sorted(bad.items())],
    )


def _decoded_arrow(topic: Topic, codec: EventCodec, records: Sequence[Record], *, judged: bool) -> Decoded:
    batches: list[pa.RecordBatch] = []
    positions: list[Integers] = []
    stamps: list[Integers] = []
    requests: list[npt.NDArray[np.bool_]] = []
    stored: list[tuple[Integers, Verdicts]] = []
    unreadable: list[Unreadable] = []
    for record in records:
        try:
            batch = read_ipc(topic.schema, record.value, beside=_STORED if judged else ())
            codec.check(batch.select(topic.schema.names))
        except SchemaError as error:
            unreadable.append(Unreadable(record.offset, error.code, error.message))
            continue
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError, TypeError, OSError) as error:
            unreadable.append(Unreadable(record.offset, "HR-0401", f"no batch of the topic's rows: {error}"))
            continue
        count = batch.num_rows
        if judged:
            stored.append((units(batch.column(_STORED[0][0])), batch.column(_STORED[1][0]).to_numpy()))
            batch = batch.select(topic.schema.names)
        batches.append(batch)
        positions.append((record.offset << ROW_BITS) + np.arange(count))
        stamps.append(np.full(count, record.timestamp * 1_000, np.int64))
        requests.append(np.full(count, any(name == REQUEST for name, _ in record.headers), np.bool_))
    none = np.zeros(0, np.int64)
    return Decoded(
        rows=one_batch(topic.schema, batches),
        positions=np.concatenate(positions) if positions else none,
        stamps=np.concatenate(stamps) if stamps else none,
        requests=np.concatenate(requests) if requests else none.astype(np.bool_),
        stored=_joined(stored) if judged else None,
        unreadable=unreadable,
    )


def _joined(stored: Sequence[tuple[Integers, Verdicts]]) -> Stored:
    if not stored:
        return Stored(available_at=np.zeros(0, np.int64), verdicts=np.zeros(0, np.uint8))
    available, verdicts = zip(*stored, strict=True)
    return Stored(available_at=np.concatenate(available), verdicts=np.concatenate(verdicts))


def read_ipc(schema: Schema, value: bytes | None, *, beside: Iterable[tuple[str, pa.DataType]] = ()) -> pa.RecordBatch:
    """A record's batch with the topic's fields, and those beside them; one that it lacks is null. Raises: ValueError
    and Arrow's errors for what is no such batch: other fields or types, too many rows, nulls where there may be none.
    """
    if value is None:
        raise ValueError("the record is empty")
    with pa.ipc.open_stream(value) as reader:
        batches = list(reader)
    if len(batches) != 1 or batches[0].num_rows > RECORD_ROWS_MAX:
        raise ValueError(f"expected one batch of at most {RECORD_ROWS_MAX:,} rows")
    batch = batches[0]
    batch.validate(full=True)
    expected = {f.name: f.type.arrow for f in schema.fields}
    expected |= dict(beside)
    unknown = [name for name in batch.schema.names if name not in expected]
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    columns = []
    for name, type in expected.items():
        place = batch.schema.get_field_index(name)
        column = pa.nulls(batch.num_rows, type) if place < 0 else batch.column(place)
        if column.type != type:
            raise ValueError(f"field {name!r} is {column.type}, expected {type}")
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=list(expected))


def one_batch(schema: Schema, batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    arrow = pa.schema([pa.field(f.name, f.type.arrow) for f in schema.fields])
    if not batches:
        return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in arrow], schema=arrow)
    (made,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return made


# --- parts of what was read ---


def since(batch: pa.RecordBatch, at: int) -> pa.RecordBatch:
    """Its rows at or behind a position."""
    return batch.slice(int(np.searchsorted(batch.column(OFFSET).to_numpy(), at)))


def below(batch: pa.RecordBatch, end: int) -> pa.RecordBatch:
    """Its rows before a position."""
    offsets = batch.column(OFFSET)
    if not len(offsets) or offsets[-1].as_py() < end:
        return batch
    return batch.slice(0, int(np.searchsorted(offsets.to_numpy(), end)))


def parts(batches: Iterator[pa.RecordBatch], rows_max: int) -> Iterator[pa.RecordBatch]:
    """Of at most so many rows each."""
    for batch in batches:
        for first in range(0, batch.num_rows, rows_max):
            yield batch.slice(first, rows_max)
