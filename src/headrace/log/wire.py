"""What crosses the owner's socket: one frame each way, a MessagePack head and a body of Arrow and plain arrays. Pure.

No pickle, and nothing of what arrives is run. Errors travel with their class, code and facts, so that a caller in
another process can act on them as the owner's own callers do.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa

from headrace.core import errors
from headrace.core.errors import HeadraceError, LogError
from headrace.core.points import Cut, Partition
from headrace.core.times import Instant
from headrace.log.port import Append, Appended, Physical

FRAME = struct.Struct("<IQ")  # bytes of the head, bytes of the body
HEAD_BYTES_MAX = 256 << 20
BODY_BYTES_MAX = 4 << 30
_encode = msgspec.msgpack.Encoder().encode
_Place = tuple[str, int, int]


class Part(msgspec.Struct, array_like=True):
    """One Append. rows: of physical values, or None where `arrow` bytes of the body hold them. stamps: bytes of
    available_at that follow those; 0 for a live partition."""

    place: _Place
    request: bool
    rows: list[list[Physical]] | None
    arrow: int
    stamps: int
    at: int | None = None
    begins: int | None = None


class Call(msgspec.Struct, array_like=True):
    """verb: append, declare (text: the definition), drop (text: the topic), import (texts: topic, import id; flag:
    seal), restart (text: the topic), hello. cut: of `group`, for append."""

    verb: str
    texts: list[str] = []
    flag: bool = False
    parts: list[Part] = []
    group: str | None = None
    cut: list[tuple[_Place, int]] | None = None


class Fault(msgspec.Struct, array_like=True):
    """A HeadraceError. facts: those that MessagePack can carry."""

    kind: str
    code: str
    message: str
    detail: str
    hint: str
    retryable: bool
    facts: dict[str, bool | int | float | str | None]


class Reply(msgspec.Struct, array_like=True):
    """appended: place, offset and row count of each Append; the body holds their verdicts, event_times,
    available_at."""

    fault: Fault | None = None
    appended: list[tuple[_Place, int, int]] = []
    index: int = 0


_decode_call = msgspec.msgpack.Decoder(Call).decode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode


def append_call(appends: Sequence[Append], group: str | None, cut: Cut | None) -> tuple[bytes, list[bytes | pa.Buffer]]:
    """Head and body of an append."""
    parts: list[Part] = []
    body: list[bytes | pa.Buffer] = []
    for append in appends:
        rows: list[list[Physical]] | None = None
        arrow: bytes | pa.Buffer = b""
        if isinstance(append.rows, pa.RecordBatch):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, append.rows.schema) as writer:
                writer.write_batch(append.rows)
            arrow = sink.getvalue()
            body.append(arrow)
        else:
            rows = [list(row) for row in append.rows]
        stamps = (
            b"" if append.available_at is None else np.ascontiguousarray(append.available_at, dtype=np.int64).tobytes()
        )
        body.append(stamps)
        place = _place(append.partition)
        parts.append(Part(place, append.request, rows, len(arrow), len(stamps), append.at, append.begins))
    moved = None if cut is None else [(_place(partition), offset) for partition, offset in cut]
    return _encode(Call("append", parts=parts, group=group, cut=moved)), body


def encode_call(call: Call) -> bytes:
    return _encode(call)


def read_call(head: bytes | memoryview) -> Call:
    """Raises: msgspec.MsgspecError for what is no call."""
    return _decode_call(head)


def appends_of(call: Call, body: pa.Buffer) -> list[Append]:
    """The appends of a call; Arrow rows share the body's memory. Raises: pa.ArrowInvalid."""
    appends = []
    at = 0
    for part in call.parts:
        rows: pa.RecordBatch | list[tuple[Physical, ...]]
        if part.rows is None:
            rows = pa.ipc.open_stream(body.slice(at, part.arrow)).read_next_batch()
        else:
            rows = [tuple(row) for row in part.rows]
        at += part.arrow
        stamps = None
        if part.stamps or (part.place[2] >= 1024 and not len(rows)):
            stamps = np.frombuffer(body.slice(at, part.stamps), dtype=np.int64)
        at += part.stamps
        appends.append(
            Append(
                partition=Partition(*part.place),
                rows=rows,
                available_at=stamps,
                request=part.request,
                at=None if part.at is None else Instant(part.at),
                begins=part.begins,
            )
        )
    return appends


def cut_of(call: Call) -> Cut | None:
    return None if call.cut is None else Cut.of({Partition(*place): offset for place, offset in call.cut})


def append_reply(appended: Sequence[Appended]) -> tuple[bytes, list[bytes]]:
    body: list[bytes] = []
    for each in appended:
        body += [each.event_times.tobytes(), each.available_at.tobytes(), each.verdicts.tobytes()]
    said = [(_place(each.partition), each.offset, len(each.verdicts)) for each in appended]
    return _encode(Reply(appended=said)), body


def encode_reply(reply: Reply) -> bytes:
    return _encode(reply)


def read_reply(head: bytes | memoryview, body: pa.Buffer) -> tuple[Reply, tuple[Appended, ...]]:
    """Raises: the error that the owner raised."""
    reply = _decode_reply(head)
    if reply.fault is not None:
        raise error_of(reply.fault)
    appended = []
    at = 0
    for place, offset, count in reply.appended:
        # The verdicts' bytes may leave what follows unaligned: numpy reads it all the same.
        times, stamps = (np.frombuffer(body.slice(at + 8 * count * n, 8 * count), dtype=np.int64) for n in (0, 1))
        verdicts = np.frombuffer(body.slice(at + 16 * count, count), dtype=np.uint8)
        appended.append(
            Appended(
                partition=Partition(*place), offset=offset, verdicts=verdicts, event_times=times, available_at=stamps
            )
        )
        at += 17 * count
    return reply, tuple(appended)


def fault_of(error: HeadraceError) -> Fault:
    facts = {
        name: value for name, value in error.facts.items() if isinstance(value, (bool, int, float, str, type(None)))
    }
    return Fault(type(error).__name__, error.code, error.message, error.detail, error.hint, error.retryable, facts)


def error_of(fault: Fault) -> HeadraceError:
    kind = getattr(errors, fault.kind, LogError)
    if not (isinstance(kind, type) and issubclass(kind, HeadraceError)):
        kind = LogError
    return kind(
        fault.code, fault.message, detail=fault.detail, hint=fault.hint, retryable=fault.retryable, **fault.facts
    )


def _place(partition: Partition) -> _Place:
    return partition.topic, partition.incarnation, partition.index
