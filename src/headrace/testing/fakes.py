"""Stand-ins that keep their port's contract in memory. `MemoryLog` passes the same suite as the adapters that write
files, and as a log that several processes share: `MemoryLog(shared=True)`, which each of them holds.

Touches nothing but memory; durable for as long as the object lives.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from headrace.core.codec import rows_to_batch
from headrace.core.errors import LogError, NotFoundError, UsageError, did_you_mean
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.log.changing import refuse_change
from headrace.log.define import Payload, Topic
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


class Interposed(Protocol):
    """Who acts between two steps of another's append; a test's way to choose an interleaving. Its own appends are not
    interposed."""

    def before(self, appends: Sequence[Append]) -> None:
        """Nothing of them is in the log yet; what is raised is what the caller gets, and nothing will be."""

    def after(self, appends: Sequence[Append], done: tuple[Appended, ...]) -> None:
        """They are durable; what is raised is what the caller gets, as where a reply is lost (LogError HR-0311)."""


@dataclass(slots=True)
class _Held:
    """A partition: its rows as they are read, in the batches they came in. next: the offset of the next row. stable:
    where an open transaction begins; what lies there or behind it is not read."""

    partition: Partition
    import_id: str | None
    sealed: bool
    batches: list[pa.RecordBatch] = field(default_factory=list)
    next: int = 0
    stable: int | None = None

    @property
    def end(self) -> int:
        return self.next if self.stable is None else self.stable

    def state(self) -> PartitionState:
        last = NEVER
        for batch in reversed(self.batches):
            if (first := batch.column(0)[0].as_py()) < self.end:
                seen = batch.slice(0, self.end - first)
                last = seen.column(1).cast(pa.int64())[-1].as_py()
                break
        return PartitionState(
            partition=self.partition,
            kind=PartitionKind.LIVE if self.import_id is None else PartitionKind.IMPORT,
            start=0,
            end=self.end,
            available_at=Instant(last),
            sealed=self.sealed,
            rows=None if self.import_id is None else sum(batch.num_rows for batch in self.batches),
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
    business.

    interposed: who acts before and after appends; None for nobody.
    """

    def __init__(self, *, clock: Clock, shared: bool = False, stride: int = 1) -> None:
        """shared: as a log that several processes write as equals. No append says where it begins or when it is;
        instants are those of this log's clock, and offsets have gaps: an atomic append of several rows leaves one
        behind in each of its partitions. stride: from a row's offset to the next one's; above 1 only where shared."""
        assert stride == 1 or shared, "offsets of a log that one process owns have no gaps"
        self.capabilities = Capabilities(
            name="memory",
            multi_process_write=shared,
            transactions=True,
            durable=False,
            conditional=not shared,
            gaps=shared,
            shared=shared,
        )
        self.interposed: Interposed | None = None
        self._interposing = False
        self._stride = stride
        self._clock = clock
        self._changed = threading.Condition()
        self._topics: dict[str, _Topic] = {}
        self._incarnations: dict[str, int] = {}
        self._groups: dict[str, dict[Partition, int]] = {}
        self._closed = False

    def topics(self, *, fresh: bool = True) -> tuple[TopicState, ...]:
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
                refuse_change(held.topic, topic)
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
        if not self.capabilities.conditional and any(a.at is not None or a.begins is not None for a in appends):
            raise UsageError("HR-0314", "no append to a shared log says where it begins, or when it is")
        between = None if self._interposing else self.interposed
        if between is not None:
            self._interpose(lambda: between.before(appends))
        done = self._append(appends, group, cut, atomic)
        if between is not None:
            self._interpose(lambda: between.after(appends, done))
        return done

    def open_transaction(self, partition: Partition, *, back: int = 0) -> None:
        """Another's transaction begins here: until it ends nothing behind this end is read, and an append there is
        durable and not read back, which LogError HR-0349 says. back: it began before so many of the newest rows."""
        with self._changed:
            held = self._find(partition)[1]
            offsets = [offset for batch in held.batches for offset in batch.column(0).to_pylist()]
            held.stable = offsets[-back] if back else held.next

    def end_transaction(self, partition: Partition) -> None:
        """It is aborted: it leaves no row, and what lies behind it is read again."""
        with self._changed:
            self._find(partition)[1].stable = None
            self._changed.notify_all()

    def _interpose(self, act: Callable[[], None]) -> None:
        self._interposing = True
        try:
            act()
        finally:
            self._interposing = False

    def _append(
        self, appends: Sequence[Append], group: str | None, cut: Cut | None, atomic: bool
    ) -> tuple[Appended, ...]:
        with self._changed:
            self._open()
            targets = [self._find(append.partition) for append in appends]
            for _, held in targets:
                if held.import_id is not None and held.sealed:
                    raise LogError("HR-0314", f"{held.partition} is a sealed import")
            for partition, _ in cut or ():
                self._find(partition)
            for append, (_, held) in zip(appends, targets, strict=True):
                if append.begins is not None and append.begins != held.next:
                    message = (
                        f"{held.partition}: rows that begin at offset {append.begins} came when its end was {held.next}"
                    )
                    raise LogError("HR-0330", message, retryable=True, end=held.next)
            done = tuple(
                self._take(topic, held, append) for (topic, held), append in zip(targets, appends, strict=True)
            )
            if self.capabilities.gaps and atomic and sum(len(append.rows) for append in appends) > 1:
                for held in {id(held): held for _, held in targets}.values():
                    held.next += 1  # what ends a transaction has an offset too
            if group is not None and cut is not None:
                self._groups.setdefault(group, {}).update(dict(cut))
            self._changed.notify_all()
            if any(held.stable is not None for _, held in targets):
                raise LogError("HR-0349", "appended, behind another's open transaction", retryable=True)
            return done

    def _take(self, topic: _Topic, held: _Held, append: Append) -> Appended:
        index, judge = held.partition.index, topic.judge
        if not len(append.rows):
            none = np.zeros(0, dtype=np.int64)
            return Appended(
                partition=held.partition,
                offset=held.next,
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
        offset, stride = held.next, self._stride
        offsets = np.arange(offset, offset + rows.num_rows * stride, stride, dtype=np.int64)
        system = [
            pa.array(offsets),
            pa.array(judged.available_at).cast(SYSTEM_COLUMNS[1].type),
            pa.array(judged.event_times).cast(SYSTEM_COLUMNS[2].type),
            pa.array(judged.verdicts),
        ]
        schema = pa.schema([*SYSTEM_COLUMNS, *topic.topic.schema.arrow])
        held.batches.append(pa.RecordBatch.from_arrays([*system, *rows.columns], schema=schema))
        held.next = offset + rows.num_rows * stride
        judge.remember(index, append.rows, judged)
        return Appended(
            partition=held.partition,
            offset=offset,
            verdicts=judged.verdicts,
            event_times=judged.event_times,
            available_at=judged.available_at,
            sparse=offsets if stride > 1 else None,
        )

    def read(
        self, partition: Partition, offset: int, *, end: int | None = None, rows_max: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        with self._changed:
            self._open()
            held = self._find(partition)[1]
            batches = list(held.batches) if held.import_id is None or held.sealed else []
            stable = held.end
        return _from(batches, offset, rows_max, stable if end is None else min(end, stable))

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

    def import_partitions(
        self, topic: str, import_id: str, *, seal: bool = False, form: Payload = Payload.ARROW
    ) -> tuple[PartitionState, ...]:
        with self._changed:
            self._open()
            held = self._topic(topic)
            found = next((each for each in held.partitions.values() if each.import_id == import_id), None)
            if found is None:
                index = max([*held.partitions, IMPORTS_FROM - 1]) + 1
                found = held.partitions[index] = _Held(Partition(topic, held.incarnation, index), import_id, False)
            found.sealed = found.sealed or seal
            self._changed.notify_all()
            return (found.state(),)

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
    for batch in batches:
        begin, behind = np.searchsorted(batch.column(0).to_numpy(), (offset, end)).tolist()
        wanted = batch.slice(begin, max(0, behind - begin))
        for first in range(0, wanted.num_rows, rows_max):
            yield wanted.slice(first, rows_max)


def _conformed(topic: Topic, batch: pa.RecordBatch) -> pa.RecordBatch:
    arrays = list(batch.columns[: len(SYSTEM_COLUMNS)])
    for each in topic.schema:
        place = batch.schema.get_field_index(each.name)
        arrays.append(pa.nulls(batch.num_rows, each.type.arrow) if place < 0 else batch.column(place))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([*SYSTEM_COLUMNS, *topic.schema.arrow]))
