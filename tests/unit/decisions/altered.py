"""A log of decisions as a forger would alter it: another's rows, held plainly, and decisions to begin with."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.core.codec import Physical, batch_to_rows, partition_of, rows_to_batch, units
from headrace.core.points import Partition
from headrace.core.times import Duration
from headrace.decisions.verify import ChainReport, Head, verify
from headrace.log.define import Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, SYSTEM_COLUMNS, VERDICT, Log, TopicState
from headrace.models.artifact import Artifact
from headrace.testing.clocks import ManualClock
from headrace.testing.fakes import MemoryLog
from tests.unit.decisions.shop import Open, Shop, instant

RECORDS = "headrace.decisions.checkout"
DECIDED = 36

Row = tuple[Physical, ...]


@dataclasses.dataclass(slots=True)
class Stored:
    """A row with the log's own stamps."""

    available_at: int
    event_time: int
    verdict: int
    row: list[Physical]


class Copied(MemoryLog):
    """A log that another wrote, held as plain rows that a forger may alter. Rows keep no offsets: they are counted from
    the partition's start."""

    def __init__(self, source: Log) -> None:
        super().__init__(clock=ManualClock(instant(10_000)))
        self.states = {state.topic.name: state for state in source.topics()}
        self.held: dict[Partition, list[Stored]] = {}
        self.starts: dict[Partition, int] = {}
        for state in self.states.values():
            for each in state.partitions:
                self.starts[each.partition] = 0
                self.held[each.partition] = list(_stored(source, state.topic, each.partition))

    def records(self, index: int = 0) -> list[Stored]:
        return self.held[Partition(RECORDS, 1, index)]

    def requests(self, index: int = 0) -> list[Stored]:
        return self.held[Partition("orders", 1, index)]

    def retain(self, topic: str, gone: int, *, declared: bool = True) -> None:
        """Forget the first rows of each partition."""
        state = self.states[topic]
        if declared:
            self.states[topic] = dataclasses.replace(state, topic=_retained(state.topic))
        for each in state.partitions:
            self.starts[each.partition] += gone
            del self.held[each.partition][:gone]

    def topics(self, *, fresh: bool = True) -> tuple[TopicState, ...]:
        return tuple(
            dataclasses.replace(
                state,
                partitions=tuple(
                    dataclasses.replace(each, start=start, end=start + len(self.held[each.partition]))
                    for each in state.partitions
                    for start in [self.starts[each.partition]]
                ),
            )
            for _, state in sorted(self.states.items())
        )

    def read(
        self, partition: Partition, offset: int, *, end: int | None = None, rows_max: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        topic, start, rows = self.states[partition.topic].topic, self.starts[partition], self.held[partition]
        rows = rows if end is None else rows[: end - start]
        step = min(rows_max, 7)  # small batches, so that what spans two of them is met
        for first in range(offset - start, len(rows), step):
            part = rows[first : first + step]
            system = [
                pa.array(np.arange(start + first, start + first + len(part), dtype=np.int64)),
                *(
                    pa.array([getattr(one, name) for one in part], pa.int64()).cast(column.type)
                    for name, column in zip(("available_at", "event_time"), SYSTEM_COLUMNS[1:3], strict=True)
                ),
                pa.array([one.verdict for one in part], pa.uint8()),
            ]
            fields = rows_to_batch(topic.schema, [tuple(one.row) for one in part])
            schema = pa.schema([*SYSTEM_COLUMNS, *topic.schema.arrow])
            yield pa.RecordBatch.from_arrays([*system, *fields.columns], schema=schema)


def _stored(source: Log, topic: Topic, partition: Partition) -> Iterator[Stored]:
    for batch in source.read(partition, 0):
        stamps = [units(batch.column(name)).tolist() for name in (AVAILABLE_AT, EVENT_TIME)]
        verdicts = batch.column(VERDICT).to_pylist()
        for at, time, verdict, row in zip(*stamps, verdicts, batch_to_rows(topic.schema, batch), strict=True):
            yield Stored(at, time, verdict, list(row))


def _retained(topic: Topic) -> Topic:
    """The same, kept for thirty days."""
    made = copy.copy(topic)
    object.__setattr__(made, "retention", Duration.parse("30d"))
    return made


def decided(folder: Path, artifact: Artifact, *, partitions: int = 2, count: int = DECIDED) -> Open:
    """Decisions with everything that may lie between them: a retry, a restamp, other producers' events."""
    clock = ManualClock(instant(0))
    shop = Open(Shop(partitions=partitions), folder, clock, artifact)
    for number in range(count):
        clock.advance("47s")
        at = clock.now() - (600_000_000 if number % 7 == 3 else 0)
        if number % 5 == 2:
            shop.produce(shop.shop.orders, shop.shop.order(1_000 + number, at, customer=0))
        request = shop.shop.order(number, at)
        if number == 12:
            shop.produce(shop.shop.orders, request, partition=shop.decider._live.index(_partition(shop, request)))
        shop.decider.decide(request)
    return shop


def _partition(shop: Open, request: dict[str, object]) -> Partition:
    live = shop.partitions["orders"]
    return live[partition_of(request["customer"], len(live))]


def check(log: Log, heads: list[Head] | None = None) -> ChainReport:
    return verify(log, "checkout", "orders", heads=heads or [])
