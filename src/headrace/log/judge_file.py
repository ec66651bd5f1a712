"""What a judge knows of one partition, as bytes, and back: a takeover need not read the partition from its start. Pure.

The one idea: what judges the rows that come is the running maximum and the ids within `dedup` of it, each with its
payload's hash and the available_at of its taking; nothing older can decide any more. Beside it a reader may keep
numbers of its own (`more`): where to begin reading again for an older row, which rows an id decided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from headrace.core.errors import StateError
from headrace.core.times import Instant
from headrace.log.identity import Integers, Keys, Words
from headrace.log.plan import NEVER, SEGMENT_IDS, Judge

FORMAT = 1
_DIGEST_BYTES = 32
_MAGIC = b"HRJUDGE\n"
_SAID = b"headrace"  # key of the schema's metadata


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgeSnapshot:
    """One partition's. maximum: the running maximum, NEVER where it has no row. One entry a known id, in order of
    available_at, each id once: ids, payloads, available_at; empty where the topic has no id."""

    maximum: Instant
    ids: Keys
    payloads: Words
    available_at: Integers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgeFile:
    """What a file said. judge: knows what the writer's knew. version: of the definition in force. next: how far the
    partition was judged, as its writer counts. more: its writer's numbers."""

    judge: Judge
    snapshot: JudgeSnapshot
    version: int
    next: int
    more: Mapping[str, Integers]


class _Format(msgspec.Struct):
    format: int


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    """origin: of which log, in the writer's words. dedup: microseconds; a judge that must know longer cannot go on from
    here. id: the topic's, "" for none."""

    format: int
    origin: str
    topic: str
    partition: int
    version: int
    id: str
    text: bool
    dedup: int
    maximum: int
    next: int


def judge_to_bytes(
    judge: Judge,
    partition: int,
    *,
    next: int,
    origin: str = "",
    version: int = 1,
    more: Mapping[str, Integers] | None = None,
) -> bytes:
    """A live partition's share of a judge. Not between `mark` and a commit that may fail.

    next: how far the partition was judged. origin: of which log it is. version: of the judge's definition. more: arrays
    of int64 to keep with it, by name. Cost: 13 MB for 10^6 text ids.
    """
    found = snapshot(judge, partition)
    said = _Said(
        format=FORMAT,
        origin=origin,
        topic=judge.topic.name,
        partition=partition,
        version=version,
        id=judge.topic.id or "",
        text=isinstance(found.ids, list),
        dedup=judge.topic.dedup.micros,
        maximum=found.maximum,
        next=next,
    )
    ids = pa.array(found.ids, pa.string() if isinstance(found.ids, list) else pa.int64())
    known = pa.record_batch(
        [ids, pa.array(found.payloads), pa.array(found.available_at)], ["id", "payload", "available_at"]
    ).replace_schema_metadata({_SAID: msgspec.json.encode(said)})
    numbers = pa.record_batch(
        [pa.array([array], pa.list_(pa.int64())) for array in (more or {}).values()], list(more or {})
    )
    sink = pa.BufferOutputStream()
    for batch in (known, numbers):
        with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_batch(batch)
    body = memoryview(sink.getvalue())
    return b"".join((_MAGIC, _digest(body), body))


def judge_from_bytes(
    body: bytes, partition: int, *, judge: Callable[[int], Judge | None], what: str, origin: str = ""
) -> JudgeFile:
    """A judge as it was when the bytes were written, and what else they said.

    judge: one that knows nothing of the partition yet, of a version's definition; None where there is no such version.
    what: whose bytes they are, for messages. Raises: StateError HR-0551 where the bytes are not what was written,
    HR-0550 where they are of another log, partition, format or id, or of a shorter `dedup`. What `judge` gave knows
    nothing then: read the partition from its start.
    """
    head = len(_MAGIC) + _DIGEST_BYTES
    if body[: len(_MAGIC)] != _MAGIC or body[len(_MAGIC) : head] != _digest(memoryview(body)[head:]):
        raise StateError(
            "HR-0551",
            f"the judge's checkpoint of {what} is damaged",
            detail="its hash differs",
            hint="the partition is read from its start",
        )
    source = pa.BufferReader(pa.py_buffer(memoryview(body)[head:]))
    known, numbers = (pa.ipc.open_stream(source).read_all() for _ in range(2))
    text = known.schema.metadata[_SAID]
    format = msgspec.json.decode(text, type=_Format).format
    if format != FORMAT:
        raise _unfit(what, f"expected format {FORMAT}, seen {format}")
    said = msgspec.json.decode(text, type=_Said)
    made = judge(said.version)
    if made is None:
        raise _unfit(what, f"the topic has no version {said.version}")
    _check(said, made, partition, origin, what)
    found = JudgeSnapshot(
        maximum=Instant(said.maximum),
        ids=known.column("id").to_pylist() if said.text else known.column("id").to_numpy(),
        payloads=known.column("payload").to_numpy(),
        available_at=known.column("available_at").to_numpy(),
    )
    resume(made, partition, found)
    more = {name: np.array(numbers.column(name)[0].values.to_numpy()) for name in numbers.column_names}
    return JudgeFile(judge=made, snapshot=found, version=said.version, next=said.next, more=more)


def snapshot(judge: Judge, partition: int) -> JudgeSnapshot:
    """What the judge knows of a live partition that can still decide."""
    maximum = judge.running_maximum(partition)
    known = judge._ids.get(partition)
    text = judge._text
    parts = [] if known is None else list(known.entries())
    payloads = np.concatenate([np.zeros(0, np.uint64), *(part[1] for part in parts)])
    available = np.concatenate([np.zeros(0, np.int64), *(part[2] for part in parts)])
    # An id whose first taking is too old may be there twice; the newer taking, which comes last, decides.
    wanted = np.flatnonzero(available >= maximum - judge.topic.dedup.micros)
    ids: Keys
    if text:
        texts = [id for part in parts for id in part[0]]
        rows = wanted
        if len(parts) > 1:  # within one segment each id is there once
            last = {texts[row]: row for row in wanted.tolist()}
            rows = np.fromiter(last.values(), np.int64, len(last))
        rows = rows[np.argsort(available[rows], kind="stable")]
        ids = [texts[row] for row in rows.tolist()]
    else:
        numbers = np.concatenate([np.zeros(0, np.int64), *(np.asarray(part[0], np.int64) for part in parts)])
        _, first = np.unique(numbers[wanted][::-1], return_index=True)
        rows = wanted[::-1][first]
        rows = rows[np.argsort(available[rows], kind="stable")]
        ids = numbers[rows]
    return JudgeSnapshot(maximum=maximum, ids=ids, payloads=payloads[rows], available_at=available[rows])


def resume(judge: Judge, partition: int, snapshot: JudgeSnapshot) -> None:
    """Know what the snapshot knows. The judge has remembered nothing of the partition yet."""
    assert partition not in judge._maxima, "a judge that has seen rows of the partition knows more than its snapshot"
    if snapshot.maximum == NEVER:
        return
    judge._maxima[partition] = snapshot.maximum
    for first in range(0, len(snapshot.payloads), SEGMENT_IDS):
        rows = slice(first, first + SEGMENT_IDS)
        for ids in judge._targets(partition):
            ids.put(snapshot.ids[rows], snapshot.payloads[rows], snapshot.available_at[rows], None)


def _check(said: _Said, judge: Judge, partition: int, origin: str, what: str) -> None:
    topic = judge.topic
    seen = (said.origin, said.topic, said.partition, said.id, said.text)
    wanted = (origin, topic.name, partition, topic.id or "", judge._text)
    if seen != wanted or said.dedup < topic.dedup.micros:
        raise _unfit(what, f"expected {wanted}, dedup of {topic.dedup.micros} us at most, seen {seen}, {said.dedup} us")


def _unfit(what: str, detail: str) -> StateError:
    return StateError(
        "HR-0550",
        f"the judge's checkpoint is not of {what} as it is judged now",
        detail=detail,
        hint="the partition is read from its start",
    )


def _digest(body: memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
