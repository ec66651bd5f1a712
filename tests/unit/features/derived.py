"""A view over a derived topic and the same view over its source, for tests: random events, carried over bit by bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import headrace as hr
from headrace.core.codec import batch_to_rows, partition_of, units
from headrace.core.points import Cut, Partition
from headrace.features import define
from headrace.features.define import FeatureView
from headrace.features.plan import ViewPlan
from headrace.log.define import Topic
from headrace.log.port import (
    AVAILABLE_AT,
    EVENT_TIME,
    OFFSET,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    VERDICT,
    Log,
    Verdict,
)
from headrace.stream.define import derived_topic
from headrace.stream.run import ReKeyer
from headrace.testing.oracles import Event, Seen, Value, values
from tests.unit.stream.log import Cluster

SECOND = 1_000_000


def applications(*, id: str = "string", payload: str = "json") -> Topic:
    return Topic(
        "applications",
        key="customer_id",
        id="application_id",
        event_time="created_at",
        partitions=2,
        payload=payload,
        max_late="1h",
        fields={
            "application_id": hr.string if id == "string" else hr.int64,
            "customer_id": hr.int64,
            "merchant_id": hr.int64,
            "channel": hr.string,
            "amount": hr.decimal(12, 2),
            "risk": hr.float64,
            "created_at": hr.timestamp,
        },
    )


def by_merchant(of: Topic, *, partitions: int = 3) -> Topic:
    return derived_topic("by_merchant", of=of, key="merchant_id", partitions=partitions)


def merchant_view(
    topic: Topic, *, entity: str | tuple[str, ...] = "merchant_id", name: str = "merchant"
) -> FeatureView:
    return FeatureView(
        name,
        entity=entity,
        source=topic,
        features=[
            define.count().over("30s", "10m"),
            define.count().over("1m", delay="20s").named("settled"),
            define.count(where=topic.amount > 5).lifetime().named("large"),
            define.count().aligned("1h").named("this_hour"),
            define.sum(topic.amount).over("10m", empty=0),
            define.mean(topic.risk).over("10m"),
            define.std(topic.risk).over("10m"),
            define.min(topic.amount).over("10m"),
            define.max(topic.risk).over("10m"),
            define.distinct(topic.customer_id).over("10m", empty=0),
            define.first(topic.channel).over("10m"),
            define.last(topic.channel),
            define.last_n(topic.customer_id, 3),
            define.time_since_last(),
        ],
    )


@dataclass
class Story:
    """Events of both source partitions, of which some are carried over. made: the events of the source as the oracle
    takes them, by place."""

    cluster: Cluster
    draw: random.Random
    view: FeatureView
    over_source: FeatureView

    @classmethod
    def of(cls, seed: int, *, id: str = "string", entity: str | tuple[str, ...] = "merchant_id") -> Story:
        draw = random.Random(seed)
        of = applications(id=id, payload=draw.choice(["json", "arrow"]))
        derived = by_merchant(of)
        cluster = Cluster(of, derived)
        return cls(cluster, draw, merchant_view(derived, entity=entity), merchant_view(of, entity=entity))

    def append(self, count: int) -> None:
        """In whole seconds, so that many events share an instant; some are late, some have no merchant."""
        for _ in range(count):
            self.cluster.clock.advance(f"{self.draw.choice([0, 1, 300, 5_000])}ms")
            customer, now = self.draw.randrange(20), self.cluster.clock.now() // SECOND * SECOND
            late = self.draw.choice([0, 0, 0, 1, 30, 200, 7_200]) * SECOND
            self.cluster._made += 1
            number = self.cluster._made
            row = (
                f"a{number * 7 % 1000}-{number}"
                if self.cluster.of.schema["application_id"].type == hr.string
                else number,
                customer,
                self.draw.choice([None, 1, 1, 2, 3, 4]),
                self.draw.choice([None, "web", "app", "shop"]),
                self.draw.randrange(1_000),
                self.draw.choice([None, self.draw.random() * 10]),
                now - late,
            )
            self.cluster.append(partition_of(customer, 2), [row])

    def carry(self, *indices: int, rows_max: int = 5) -> None:
        """Some of what was not carried over yet, of these source partitions."""
        for index in indices:
            rekeyer = ReKeyer(self.cluster.log(), "by_merchant", self.cluster.source(index), rows_max=rows_max)
            rekeyer.step()
            rekeyer.close()

    def events(self, log: Log) -> dict[tuple[int, int], Event]:
        """The source's events by place."""
        return {
            (e.partition.index, e.offset): e
            for i in (0, 1)
            for e in events_of(log, self.cluster.of, self.cluster.source(i))
        }

    def carried(self, log: Log, partition: Partition, below: int) -> set[tuple[int, int]]:
        """Source places of what lies in a derived partition below an offset."""
        found = set()
        for batch in log.read(partition, 0, end=below):
            found.update(
                zip(batch.column(SOURCE_PARTITION).to_pylist(), batch.column(SOURCE_OFFSET).to_pylist(), strict=True)
            )
        return found

    def derived(self, index: int) -> Partition:
        return Partition("by_merchant", 1, index)

    def expected(
        self, events: dict[tuple[int, int], Event], seen: set[tuple[int, int]], request: Event
    ) -> list[tuple[Value, object]]:
        """By counting out, over the source."""
        visible = [
            e
            for place, e in events.items()
            if place in seen and e is not request and e.verdict in (Verdict.ACCEPTED, Verdict.RESTAMPED)
        ]
        entity = tuple(request.values[part] for part in self.over_source.entity)
        return values(self.over_source, {}, Seen(visible, request.event_time), entity, request)

    def plan(self) -> ViewPlan:
        return ViewPlan.compile(self.view, {})


def events_of(log: Log, topic: Topic, partition: Partition) -> Iterator[Event]:
    for batch in log.read(partition, 0):
        names = topic.schema.names
        offsets, available, times = (units(batch.column(n)).tolist() for n in (OFFSET, AVAILABLE_AT, EVENT_TIME))
        rows = batch_to_rows(topic.schema, batch)
        for offset, at, time, verdict, row in zip(
            offsets, available, times, batch.column(VERDICT).to_pylist(), rows, strict=True
        ):
            said = dict(zip(names, row, strict=True))
            id = said[topic.id or ""]
            yield Event(
                partition=partition,
                offset=offset,
                event_time=time,
                available_at=at,
                verdict=Verdict(verdict),
                id=id,
                values=said,
            )  # type: ignore[arg-type]  # never null


def cut_of(partition: Partition, offset: int) -> Cut:
    return Cut.of({partition: offset})
