"""An entry: a run of rows of one partition as the log's file holds it. Pure.

Two forms. ROWS: a few rows as MessagePack, the cheap way in for single events (about 2 us a row). ARROW: up to
ENTRY_ROWS rows as an Arrow IPC stream whose integer columns (also instants and decimals) are narrowed to the smallest
unsigned width above their least value. That is a third of the bytes, so it is faster than copying in both directions:
reading is bound by page copies and the checksum, not by widening. The three system columns cost nothing where they
repeat another.
"""

from __future__ import annotations

import enum
import itertools
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import rows_to_batch, units
from headrace.core.schema import DataType, Kind, Schema
from headrace.log.define import Topic
from headrace.log.port import SYSTEM_COLUMNS, Physical

Integers = npt.NDArray[np.int64]
Verdicts = npt.NDArray[np.uint8]

# Rows an entry holds at most, and what sealing aims at: large enough that the ~100 us of one read are 2 ns a row, small
# enough that a reader of a few rows in the middle decodes about a millisecond's worth for nothing.
ENTRY_ROWS = 1 << 16
ENTRY_BYTES = 64 << 20  # SQLite's blobs end at 1 GB; wide rows are split long before, for the memory of readers

_NARROWED = frozenset({Kind.INT64, Kind.TIMESTAMP, Kind.DURATION, Kind.DECIMAL})
_WIDTHS = ((1 << 8, np.dtype(np.uint8)), (1 << 16, np.dtype(np.uint16)), (1 << 32, np.dtype(np.uint32)))
_INT64 = DataType(Kind.INT64)
_HEADER = b"headrace"
_FIXED = struct.Struct("<qqqq")
_ZERO_VERDICTS = pa.array(np.zeros(ENTRY_ROWS, dtype=np.uint8))
_encode = msgspec.msgpack.Encoder().encode


class Form(enum.IntEnum):
    """How an entry's payload is written. The numbers are in the file."""

    ROWS = 1
    ARROW = 2


class _Header(msgspec.Struct, array_like=True):
    """What an ARROW payload says of itself. bases: by field, the value to add; None where stored as it is.
    available_at: the one instant of all rows, "event_time", or None for a column of its own; event_time likewise
    ("field", "available_at", None); verdict: the one verdict of all rows, or None."""

    version: int
    bases: list[int | None]
    available_at: int | str | None
    event_time: str | None
    verdict: int | None
    system_bases: list[int | None]


class _Rows(msgspec.Struct, array_like=True):
    """A ROWS payload. available_at: one for all, or one a row. event_times: None where the topic's field says it.
    verdicts: None where all are 0."""

    version: int
    available_at: int | list[int]
    event_times: list[int] | None
    verdicts: list[int] | None
    rows: list[list[Physical]]


_decode_rows = msgspec.msgpack.Decoder(_Rows).decode
_decode_header = msgspec.msgpack.Decoder(_Header).decode


@dataclass(frozen=True, slots=True)
class Columns:
    """Decoded rows: the fields by name, and the system columns but the offset. Arrays of one length."""

    fields: Mapping[str, pa.Array]
    available_at: Integers
    event_times: Integers
    verdicts: Verdicts


def checksum(key: int, count: int, available_at: int, form: int, payload: bytes | memoryview | pa.Buffer) -> int:
    """CRC-32 over an entry's row, its place included: an intact payload at a wrong offset is corrupt as well."""
    return zlib.crc32(payload, zlib.crc32(_FIXED.pack(key, count, available_at, form)))


def encode_rows(
    topic: Topic,
    version: int,
    rows: Sequence[Sequence[Physical]],
    available_at: Integers,
    event_times: Integers,
    verdicts: Verdicts,
) -> bytes:
    """A ROWS payload of rows in the topic's declared order."""
    instants = available_at.tolist()
    said: int | list[int] = instants[0] if instants[0] == instants[-1] else instants
    times: list[int] | None = event_times.tolist()
    if topic.event_time is not None:
        place = topic.schema.names.index(topic.event_time)
        if times == [row[place] for row in rows]:
            times = None
    judged: list[int] | None = verdicts.tolist()
    if not any(judged):  # type: ignore[arg-type]  # a list, just made
        judged = None
    return _encode((version, said, times, judged, rows))


def encode_batch(
    topic: Topic, version: int, batch: pa.RecordBatch, available_at: Integers, event_times: Integers, verdicts: Verdicts
) -> Iterator[tuple[int, pa.Buffer]]:
    """ARROW payloads, each with its row count, that hold the batch in order; at most ENTRY_ROWS rows each."""
    wide = max(1, batch.nbytes // max(1, batch.num_rows))
    step = max(1, min(ENTRY_ROWS, ENTRY_BYTES // wide))
    for start in range(0, batch.num_rows, step):
        part, cut = batch.slice(start, step), slice(start, start + step)
        yield part.num_rows, _encode_part(topic, version, part, available_at[cut], event_times[cut], verdicts[cut])


def _encode_part(
    topic: Topic, version: int, batch: pa.RecordBatch, available_at: Integers, event_times: Integers, verdicts: Verdicts
) -> pa.Buffer:
    arrays: list[pa.Array] = []
    names: list[str] = []
    bases: list[int | None] = []
    for each in topic.schema:
        array, base = _narrow(batch.column(each.name), each.type)
        arrays.append(array)
        names.append(each.name)
        bases.append(base)
    header = _Header(version, bases, None, None, None, [])
    if topic.event_time is not None and np.array_equal(event_times, units(batch.column(topic.event_time))):
        header.event_time = "field"
    elif np.array_equal(event_times, available_at):
        header.event_time = "available_at"
    if available_at[0] == available_at[-1]:
        header.available_at = int(available_at[0])
    elif header.event_time != "available_at" and np.array_equal(available_at, event_times):
        header.available_at = "event_time"
    if verdicts.min() == verdicts.max():
        header.verdict = int(verdicts[0])
    for name, words, said in (
        ("_available_at", available_at, header.available_at),
        ("_event_time", event_times, header.event_time),
        ("_verdict", verdicts.astype(np.int64), header.verdict),
    ):
        if said is None:
            array, base = _narrow_words(words, None)
            arrays.append(array)
            names.append(name)
            header.system_bases.append(base)
    stored = pa.RecordBatch.from_arrays(arrays, names=names).replace_schema_metadata({_HEADER: _encode(header)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, stored.schema) as writer:
        writer.write_batch(stored)
    return sink.getvalue()


def _narrow(array: pa.Array, type: DataType) -> tuple[pa.Array, int | None]:
    if type.kind not in _NARROWED or not len(array):
        return array, None
    words = units(array)
    if not array.null_count:
        return _narrow_words(words, None)
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    valid = words[~nulls]
    return _narrow_words(np.where(nulls, valid.min() if len(valid) else 0, words), nulls)


def _narrow_words(words: Integers, nulls: npt.NDArray[np.bool_] | None) -> tuple[pa.Array, int | None]:
    low, high = int(words.min()), int(words.max())
    validity = None if nulls is None else pa.array(~nulls).buffers()[1]
    for bound, width in _WIDTHS:
        if high - low < bound:
            # Wraps around where low is far below zero, and wraps back on reading: the difference itself fits.
            narrow = (words - np.int64(low)).astype(width)
            return pa.Array.from_buffers(pa.from_numpy_dtype(width), len(words), [validity, pa.py_buffer(narrow)]), low
    return pa.Array.from_buffers(pa.int64(), len(words), [validity, pa.py_buffer(np.ascontiguousarray(words))]), None


# --- reading ---


def decode_arrow(topic: Topic, payload: pa.Buffer) -> Columns:
    """What `encode_batch` wrote. Raises: pa.ArrowInvalid, msgspec.DecodeError, KeyError
    or IndexError for a payload that is none, which a matching checksum makes a bug and not a bad disk."""
    batch = pa.ipc.open_stream(payload).read_next_batch()
    header = _decode_header(batch.schema.metadata[_HEADER])
    fields: dict[str, pa.Array] = {}
    for place, base in enumerate(header.bases):
        name = batch.schema.names[place]
        if name not in topic.schema:
            continue  # sealed under a version newer than the reader's, which asked before the field was added
        fields[name] = _widen(batch.column(place), topic.schema[name].type, base)
    apart = zip(range(len(header.bases), batch.num_columns), header.system_bases, strict=True)
    system = {batch.schema.names[place]: units(_widen(batch.column(place), _INT64, base)) for place, base in apart}
    count = batch.num_rows
    available_at = system.get("_available_at")
    event_times = system.get("_event_time")
    if header.event_time == "field":
        assert topic.event_time is not None
        event_times = units(fields[topic.event_time])
    if isinstance(header.available_at, int):
        available_at = np.full(count, header.available_at, dtype=np.int64)
    elif header.available_at == "event_time":
        available_at = event_times
    if header.event_time == "available_at":
        event_times = available_at
    assert available_at is not None and event_times is not None
    verdicts = (
        np.full(count, header.verdict, dtype=np.uint8)
        if header.verdict is not None
        else system["_verdict"].astype(np.uint8)
    )
    return Columns(fields, available_at, event_times, verdicts)


def _widen(array: pa.Array, type: DataType, base: int | None) -> pa.Array:
    if type.kind not in _NARROWED:
        return array
    validity, data = array.buffers()
    if base is None:
        words = np.frombuffer(data, dtype=np.int64)[: len(array)]
    else:
        narrow = np.frombuffer(data, dtype=array.type.to_pandas_dtype())[: len(array)]
        words = narrow.astype(np.int64)
        words += base
    if type.kind is Kind.DECIMAL:
        pairs = np.empty((len(words), 2), dtype=np.int64)
        pairs[:, 0] = words
        np.right_shift(words, 63, out=pairs[:, 1])
        words = pairs
    return pa.Array.from_buffers(type.arrow, len(array), [validity, pa.py_buffer(words)], array.null_count)


def decode_rows(topic: Topic, fields_of: Mapping[int, Schema], payloads: Sequence[bytes]) -> Iterator[Columns]:
    """What `encode_rows` wrote, several payloads at once, in order: one Columns for each run of one version.

    fields_of: each version's schema, whose order the rows are in."""
    decoded = [_decode_rows(payload) for payload in payloads]
    for version, run in itertools.groupby(decoded, key=lambda said: said.version):
        yield _columns(topic, fields_of[version], list(run))


def _columns(topic: Topic, schema: Schema, run: Sequence[_Rows]) -> Columns:
    rows = [row for said in run for row in said.rows]
    batch = rows_to_batch(schema, rows)  # type: ignore[arg-type]  # lists of physical values stand for tuples
    available_at: list[int] = []
    times: list[int] = []
    verdicts: list[int] = []
    place = None if topic.event_time is None else schema.names.index(topic.event_time)
    for said in run:
        count = len(said.rows)
        available_at += said.available_at if isinstance(said.available_at, list) else [said.available_at] * count
        if said.event_times is not None:
            times += said.event_times
        else:
            assert place is not None
            times += [row[place] for row in said.rows]  # type: ignore[misc]  # an event time is an int, never null
        verdicts += said.verdicts if said.verdicts is not None else [0] * count
    return Columns(
        {each.name: batch.column(index) for index, each in enumerate(schema)},
        np.array(available_at, dtype=np.int64),
        np.array(times, dtype=np.int64),
        np.array(verdicts, dtype=np.uint8),
    )


def arrow_schema(topic: Topic) -> pa.Schema:
    """What every batch of this topic that is read from the log looks like."""
    return pa.schema([*SYSTEM_COLUMNS, *topic.schema.arrow])


def assemble(topic: Topic, schema: pa.Schema, offset: int, columns: Columns) -> pa.RecordBatch:
    """The batch readers get: SYSTEM_COLUMNS, then the topic's fields; null where the rows are older than a field."""
    count = len(columns.available_at)
    if count <= ENTRY_ROWS and not columns.verdicts.any():
        verdicts = _ZERO_VERDICTS.slice(0, count)
    else:
        verdicts = pa.array(columns.verdicts)
    arrays = [
        pa.array(np.arange(offset, offset + count, dtype=np.int64)),
        _instants(columns.available_at),
        _instants(columns.event_times),
        verdicts,
    ]
    for each in topic.schema:
        array = columns.fields.get(each.name)
        arrays.append(pa.nulls(count, each.type.arrow) if array is None else array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _instants(words: Integers) -> pa.Array:
    return pa.Array.from_buffers(SYSTEM_COLUMNS[1].type, len(words), [None, pa.py_buffer(words)], 0)
