"""A log on a model of a cluster for tests of re-keyers: time that a test moves, faults by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa

from headrace.clients.kafka.define import KafkaSettings
from headrace.core.codec import partition_of
from headrace.core.points import Partition
from headrace.core.schema import decimal, int64, string, timestamp
from headrace.core.times import Duration, Instant, instant
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.port import Append, TopicState
from headrace.stream.define import derived_topic
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient
from headrace.testing.kafka.model_wire import Direct, Kind

T = TypeVar("T")
START = instant("2026-11-21T10:00:00Z")


def source(
    *, partitions: int = 2, payload: str = "json", partitioning: str = "own", retention: str | None = None
) -> Topic:
    return Topic(
        "applications",
        key="customer_id",
        id="application_id",
        event_time="created_at",
        partitions=partitions,
        payload=payload,
        partitioning=partitioning,
        retention=retention,
        fields={
            "application_id": string,
            "customer_id": int64,
            "merchant_id": int64,
            "amount": decimal(12, 2),
            "created_at": timestamp,
        },
    )


def by_merchant(of: Topic, *, partitions: int = 3, payload: str | None = None) -> Topic:
    return derived_topic("by_merchant", of=of, key="merchant_id", partitions=partitions, payload=payload)


class Failing(Direct):
    """A wire whose calls of a kind fail once, before or after they reach the cluster."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._faults: dict[Kind, tuple[str, Callable[[], Exception]]] = {}
        self.at: Callable[[Kind], None] = lambda kind: None  # who acts before each call

    def fail(self, kind: Kind, when: str, error: Callable[[], Exception]) -> None:
        self._faults[kind] = (when, error)

    def call(self, kind: Kind, name: str, apply: Callable[[], T]) -> T:
        self.at(kind)
        if kind not in self._faults:
            return apply()
        when, error = self._faults.pop(kind)
        if when == "after":
            apply()
        raise error()

    def wait(self, until: Instant, ready: Callable[[], bool]) -> None:
        if not ready():
            self._clock.set(until)


class Cluster:
    """Two topics, declared; a process's log for each `log()`."""

    def __init__(self, of: Topic, derived: Topic) -> None:
        self.clock = ManualClock(START)
        self.model = KafkaModel(self.clock, skews=(0, 0, 0))
        self.of, self.derived = of, derived
        self.writing = self.log()
        self.writing.declare(of)
        self.writing.declare(derived)
        self._made = 0

    def log(self, wire: Failing | None = None) -> KafkaLog:
        settings = KafkaSettings(bootstrap="model:1", prefix="t.")
        return KafkaLog(ModelClient(self.model, wire=wire), settings=settings, clock=self.clock)

    def wire(self) -> Failing:
        return Failing(self.clock)

    def source(self, index: int = 0) -> Partition:
        return Partition(self.of.name, 1, index)

    def event(
        self, *, customer: int, merchant: int | None, id: str | None = None, late: str = "0s", ahead: str = "0s"
    ) -> tuple[object, ...]:
        self._made += 1
        at = self.clock.now() - Duration.parse(late).micros + Duration.parse(ahead).micros
        return (id or f"a{self._made}", customer, merchant, self._made * 100, at)

    def append(self, index: int, rows: Sequence[tuple[object, ...]]) -> None:
        """To a source partition, whatever the rows' key says of theirs."""
        self.writing.append([Append(partition=self.source(index), rows=rows)], atomic=False)  # type: ignore[arg-type]  # physical values

    def some(self, index: int, count: int) -> None:
        """Events of two merchants, whose customers belong here."""
        customers = [n for n in range(200) if partition_of(n, self.of.partitions) == index]
        self.append(index, [self.event(customer=customers[n % 7], merchant=n % 5) for n in range(count)])

    def state(self) -> TopicState:
        return next(state for state in self.writing.topics() if state.topic.name == self.derived.name)

    def rows(self, log: KafkaLog | None = None) -> pa.Table:
        """All of the derived topic, `_partition` beside it."""
        log = log or self.log()
        state = next(state for state in log.topics() if state.topic.name == self.derived.name)
        tables = []
        for held in state.partitions:
            for batch in log.read(held.partition, held.start):
                index = pa.array([held.partition.index] * batch.num_rows, pa.int64())
                tables.append(pa.Table.from_batches([batch.append_column("_partition", index)]))
        return pa.concat_tables(tables) if tables else pa.table({})
