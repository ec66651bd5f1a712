"""Stand-ins that keep their port's contract in memory. `MemoryLog` passes the same suite as the adapters that write
files.

Touches nothing but memory; durable for as long as the object lives.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from headrace.core.codec import rows_to_batch
from headrace.core.errors import LogError, NotFoundError, UsageError, did_you_mean
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.log.define import Topic
from headrace.log.plan import NEVER, Judge
from headrace.log.port import (
    SYSTEM_COLUMNS,
    Append,
    Appended,
    Capabilities,
    Log,
    PartitionKind,
    PartitionState,
    TopicState,
)


@dataclass(slots=True)
class _Held:
    """A partition: its rows as they are read, in the batches they came in."""

    partition: Partition
    import_id: str | None
    sealed: bool
    batches: list[pa.RecordBatch] = field(default_factory=list)

    @property
    def end(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    def state(self) -> PartitionState:
        last = self.batches[-1].column(1).cast(pa.int64())[-1].as_py() if self.batches else NEVER
        return PartitionState(
            partition=self.partition,
            kind=PartitionKind.LIVE if self.import_id is None else PartitionKind.IMPORT,
            start=0,
            end=self.end,
            available_at=Instant(last),
            sealed=self.sealed,
        )


@dataclass(slots=True)
class _Topic:
    topic: Topic
    incarnation: int
    version: int
    judge: Judge
    partitions: dict[int, _Held]

    def state(self) -> TopicState:
        listed = [self.partitions[index] for index in sorted(self.partitions)]
        return TopicState(
            topic=self.topic,
            incarnation=self.incarnation,
            version=self.version,
            partitions=tuple(held.state() for held in listed if held.import_id is None or held.sealed),
        )


class MemoryLog(Log):
    """The log's port over lists. For tests of what stands on a log; keeps everything, so retention is not its
    business."""

    capabilities = Capabilities(name="memory", multi_process_write=False, transactions=True, durable=False)

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._topics: dict[str, _Topic] = {}
        self._incarnations: dict[str, int] = {}
        self._groups: dict[str, dict[Partition, int]] = {}
        self._closed = False

    def topics(self) -> tuple[TopicState, ...]:
        with self._changed:
            return tuple(self._topics[name].state() for name in sorted(self._topics))

    def declare(self, topic: Topic) -> TopicState:
        with self._changed:
            self._open()
            held = self._topics.get(topic.name)
            if held is None:
                incarnation = self._incarnations[topic.name] = self._incarnations.get(topic.name, 0) + 1
                held = self._topics[topic.name] = _Topic(topic, incarnation, 1, Judge(topic), {})
            elif held.topic != topic:
                _refuse_change(held.topic, topic)
                held.topic, held.version = topic, held.version + 1
                held.judge.declared(topic)
                for each in held.partitions.values():
                    each.batches = [_conformed(topic, batch) for batch in each.batches]
            for index in range(topic.partitions):
                if index not in held.partitions:
                    held.partitions[index] = _Held(Partition(topic.name, held.incarnation, index), None, True)
            self._changed.notify_all()
            return held.state()

    def drop(self, topic: str) -> None:
        with self._changed:
            self._open()
            self._topic(topic)
            del self._topics[topic]
            for cut in self._groups.values():
                for partition in [p for p in cut if p.topic == topic]:
                    del cut[partition]
            self._changed.notify_all()

    def append(
        self, appends: Sequence[Append], *, group: str | None = None, cut: Cut | None = None, atomic: bool = True
    ) -> tuple[Appended, ...]:
        if (group is None) != (cut is None):
            raise UsageError("HR-0314", "append needs both group and cut, or neither")
        with self._changed:
            self._open()
            targets = [self._find(append.partition) for append in appends]
            for _, held in targets:
                if held.import_id is not None and held.sealed:
                    raise LogError("HR-0314", f"{held.partition} is a sealed import")
            for partition, _ in cut or ():
                self._find(partition)
            for append, (_, held) in zip(appends, targets, strict=True):
                if append.begins is not None and append.begins != held.end:
                    message = (
                        f"{held.partition}: rows that begin at offset {append.begins} came when its end was {held.end}"
                    )
                    raise LogError("HR-0330", message, retryable=True, end=held.end)
            done = tuple(
                self._take(topic, held, append) for (topic, held), append in zip(targets, appends, strict=True)
            )
            if group is not None and cut is not None:
                self._groups.setdefault(group, {}).update(dict(cut))
            self._changed.notify_all()
            return done

    def _take(self, topic: _Topic, held: _Held, append: Append) -> Appended:
        index, judge = held.partition.index, topic.judge
        if not len(append.rows):
            none = np.zeros(0, dtype=np.int64)
            return Appended(
                partition=held.partition,
                offset=held.end,
                verdicts=none.astype(np.uint8),
                event_times=none,
                available_at=none,
            )
        rows = (
            append.rows if isinstance(append.rows, pa.RecordBatch) else rows_to_batch(topic.topic.schema, append.rows)
        )
        if held.import_id is None:
            now = self._clock.now() if append.at is None else append.at
            judged = judge.live(index, append.rows, now, request=append.request)
        else:
            assert append.available_at is not None
            judged = judge.imported(index, append.rows, append.available_at)
        offset = held.end
        system = [
            pa.array(np.arange(offset, offset + rows.num_rows, dtype=np.int64)),
            pa.array(judged.available_at).cast(SYSTEM_COLUMNS[1].type),
            pa.array(judged.event_times).cast(SYSTEM_COLUMNS[2].type),
            pa.array(judged.verdicts),
        ]
        schema = pa.schema([*SYSTEM_COLUMNS, *topic.topic.schema.arrow])
        held.batches.append(pa.RecordBatch.from_arrays([*system, *rows.columns], schema=schema))
        judge.remember(index, append.rows, judged)
        return Appended(
            partition=held.partition,
            offset=offset,
            verdicts=judged.verdicts,
            event_times=judged.event_times,
            available_at=judged.available_at,
        )

    def read(
        self, partition: Partition, offset: int, *, end: int | None = None, rows_max: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        with self._changed:
            self._open()
            held = self._find(partition)[1]
            batches = list(held.batches) if held.import_id is None or held.sealed else []
        return _from(batches, offset, rows_max, held.end if end is None else end)

    def wait(self, cut: Cut, *, timeout: Duration) -> bool:
        deadline = time.monotonic() + timeout.micros / 1e6
        topics = cut.topics()
        with self._changed:
            known = set(self._listed(topics))
            while not self._closed:
                listed = self._listed(topics)
                if any(listed.get(partition, 0) > offset for partition, offset in cut) or listed.keys() - known:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        raise LogError("HR-0316", "the log is closed")

    def group(self, name: str) -> Cut:
        with self._changed:
            return Cut.of(self._groups.get(name, {}))

    def import_partition(self, topic: str, import_id: str, *, seal: bool = False) -> PartitionState:
        with self._changed:
            self._open()
            held = self._topic(topic)
            found = next((each for each in held.partitions.values() if each.import_id == import_id), None)
            if found is None:
                index = max([*held.partitions, IMPORTS_FROM - 1]) + 1
                found = held.partitions[index] = _Held(Partition(topic, held.incarnation, index), import_id, False)
            found.sealed = found.sealed or seal
            self._changed.notify_all()
            return found.state()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _open(self) -> None:
        if self._closed:
            raise LogError("HR-0316", "the log is closed")

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            raise NotFoundError("HR-0302", f"no topic {name!r} in the log", hint=did_you_mean(name, self._topics))
        return self._topics[name]

    def _find(self, partition: Partition) -> tuple[_Topic, _Held]:
        held = self._topic(partition.topic)
        if held.incarnation != partition.incarnation or partition.index not in held.partitions:
            raise NotFoundError("HR-0302", f"no partition {partition} in the log")
        return held, held.partitions[partition.index]

    def _listed(self, topics: frozenset[str]) -> dict[Partition, int]:
        return {
            each.partition: each.end
            for name in topics & self._topics.keys()
            for each in self._topics[name].partitions.values()
            if each.import_id is None or each.sealed
        }


def _from(batches: Sequence[pa.RecordBatch], offset: int, rows_max: int, end: int) -> Iterator[pa.RecordBatch]:
    at = 0
    for batch in batches:
        first = max(0, offset - at)
        wanted = batch.slice(first, max(0, end - at - first))
        at += batch.num_rows
        for first in range(0, wanted.num_rows, rows_max):
            yield wanted.slice(first, rows_max)


def _conformed(topic: Topic, batch: pa.RecordBatch) -> pa.RecordBatch:
    arrays = list(batch.columns[: len(SYSTEM_COLUMNS)])
    for each in topic.schema:
        place = batch.schema.get_field_index(each.name)
        arrays.append(pa.nulls(batch.num_rows, each.type.arrow) if place < 0 else batch.column(place))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([*SYSTEM_COLUMNS, *topic.schema.arrow]))


def _refuse_change(old: Topic, new: Topic) -> None:
    kept = (old.key, old.id, old.event_time, old.clock) == (new.key, new.id, new.event_time, new.clock)
    fields = all(f.name in new.schema and new.schema[f.name].type == f.type for f in old.schema)
    added = all(f.name in old.schema or not f.required for f in new.schema)
    if not (kept and fields and added and new.partitions >= old.partitions):
        raise LogError("HR-0310", f"topic {old.name!r} cannot be changed like this", topic=old.name)
