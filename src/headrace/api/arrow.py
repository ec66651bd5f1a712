"""Arrow streams as events, or refused. Pure.

The one idea: a body's size bounds what it costs. Compressed buffers, dictionaries, views and runs let a small body
stand for a huge table, so only plain columns are taken, and compression is seen in a message's head before its body is
touched.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from headrace.api.bodies import check_count, first_line
from headrace.core.errors import InputError
from headrace.log.define import Topic
from headrace.schemas.batches import validate_batch

BATCHES_MAX = 10_000  # of one stream: each costs some 20 us, however few rows it has
# What Arrow raises for bytes that are no stream, and Python for values that no writer makes.
_BROKEN = (
    pa.ArrowException,
    ArithmeticError,
    EOFError,
    IndexError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)
# The places of Arrow's Message.fbs.
_HEADER_TYPE, _HEADER, _RECORD_BATCH, _COMPRESSION = 1, 2, 3, 3


def arrow_of(topic: Topic, body: bytes) -> pa.RecordBatch:
    """An Arrow stream's rows as the topic's fields. Raises: InputError HR-1005, HR-1006, SchemaError with the row."""
    try:
        table = _read(body)
        return validate_batch(topic, table)
    except _BROKEN as error:
        raise InputError("HR-1005", "the body is no Arrow stream", detail=first_line(error)) from error


def _read(body: bytes) -> pa.Table:
    buffer = pa.py_buffer(body)
    with pa.ipc.open_stream(buffer) as reader:
        # From the stream and not from its first message: Arrow proves the one, and trusts the other.
        for field in reader.schema:
            if not _plain(field.type):
                raise InputError(
                    "HR-1006",
                    f"column {field.name!r} is {field.type}",
                    detail="expected a plain column",
                    field=field.name,
                )
        _refuse_compressed(buffer)
        batches, rows = [], 0
        for batch in reader:
            batches.append(batch)
            rows += batch.num_rows
            check_count(rows)
            batch.validate(full=True)
        return pa.Table.from_batches(batches, reader.schema)


def _refuse_compressed(buffer: pa.Buffer) -> None:
    """Raises: InputError HR-1006 where a batch is compressed, or there are too many."""
    for place, message in enumerate(pa.ipc.MessageReader.open_stream(buffer)):
        if place > BATCHES_MAX:
            raise InputError("HR-1006", "too many batches in one stream", detail=f"expected at most {BATCHES_MAX:,}")
        if place and _is_compressed(memoryview(message.metadata)):
            raise InputError("HR-1006", "the Arrow stream is compressed", detail="expected plain buffers")


def _plain(type: pa.DataType) -> bool:
    """A type whose values lie in the body, each once. A decimal's scale is looked at, as Arrow computes with whatever
    stands there."""
    if pa.types.is_decimal128(type):
        return 0 <= type.scale <= type.precision
    return any(is_kind(type) for is_kind in _PLAIN)


_PLAIN = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_timestamp,
    pa.types.is_duration,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_null,
)


def _is_compressed(metadata: memoryview) -> bool:
    """Whether a message's head names a compression, or is of a kind that only dictionaries need."""
    (root,) = struct.unpack_from("<I", metadata, 0)
    kind, header = _field(metadata, root, _HEADER_TYPE), _field(metadata, root, _HEADER)
    if not kind or not header:
        raise ValueError("a message without a head")
    if metadata[kind] != _RECORD_BATCH:
        raise ValueError("a message that is no record batch")
    (offset,) = struct.unpack_from("<I", metadata, header)
    return _field(metadata, header + offset, _COMPRESSION) != 0


def _field(buffer: memoryview, table: int, index: int) -> int:
    """Where a flatbuffer table's field lies; 0 where it has none."""
    (back,) = struct.unpack_from("<i", buffer, table)
    vtable = table - back
    if vtable < 0:
        raise ValueError("a head that points outside")
    (size,) = struct.unpack_from("<H", buffer, vtable)
    slot = 4 + 2 * index
    if slot >= size:
        return 0
    (offset,) = struct.unpack_from("<H", buffer, vtable + slot)
    return table + int(offset) if offset else 0
