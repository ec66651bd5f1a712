"""A shop on a log that several processes share: owners that hold one log, and a hook between any two of their steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import headrace as hr
from headrace.core.codec import partition_of
from headrace.core.errors import LogError
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.record import PREFIX, DecisionRecord
from headrace.decisions.replay import ReplayReport, replay
from headrace.decisions.valid import valid_records
from headrace.decisions.verify import ChainReport, verify
from headrace.features.run import FeatureState
from headrace.log.port import Append, Appended
from headrace.models.artifact import Artifact
from headrace.runtime.recompute import request_rows
from headrace.schemas.validate import validator
from headrace.testing.clocks import ManualClock
from headrace.testing.fakes import MemoryLog
from tests.unit.decisions.shop import FromLog, Shop, instant

RECORDS = PREFIX + "checkout"


class ProcessGoneError(Exception):
    """A process is gone: nothing behind this runs."""


@dataclass
class Between:
    """Acts once at the n-th append (from 1 on) of a topic's rows by anybody, before or after it."""

    topic: str
    act: Callable[[], None]
    at: int = 1
    late: bool = False
    seen: int = field(default=0, init=False)

    def before(self, appends: Sequence[Append]) -> None:
        if any(append.partition.topic == self.topic for append in appends):
            self.seen += 1
            if self.seen == self.at and not self.late:
                self.act()

    def after(self, appends: Sequence[Append], done: tuple[Appended, ...]) -> None:
        if self.late and self.seen == self.at and any(a.partition.topic == self.topic for a in appends):
            self.late = False
            self.act()


def lost_reply() -> None:
    raise LogError("HR-0311", "the reply was lost", retryable=True)


def crash() -> None:
    raise ProcessGoneError


class Shared:
    """clock: of the log and, as long as a test says nothing else, of every process."""

    def __init__(self, artifact: Artifact, *, partitions: int = 1, stride: int = 1, shop: Shop | None = None) -> None:
        self.shop = Shop(partitions=partitions) if shop is None else shop
        self.clock = ManualClock(instant(0))
        self.log = MemoryLog(clock=self.clock, shared=True, stride=stride)
        self.partitions = {
            topic.name: [p.partition for p in self.log.declare(topic).partitions]
            for topic in (self.shop.orders, self.shop.returns)
        }
        self.version = self.shop.version(artifact)
        self.recompute = FromLog(self.shop, self.log)

    def owner(
        self, name: str, *indices: int, clock: ManualClock | None = None, features: FeatureState | None = None
    ) -> OwnedDecider:
        """Another process, which owns these partitions."""
        made = OwnedDecider(
            self.log,
            self.version,
            features=FeatureState(self.shop.plans()) if features is None else features,
            validate=validator(self.shop.orders),
            recompute=self.recompute,
            clock=self.clock if clock is None else clock,
            name=name,
        )
        for index in indices:
            made.claim(index)
        return made

    def order(self, number: int, **changes: object) -> dict[str, object]:
        self.clock.advance("3s")
        return self.shop.order(number, self.clock.now(), **changes)

    def produce(self, topic: hr.Topic, *events: Mapping[str, object]) -> None:
        """As any other process would, to the partition of its key."""
        validate = validator(topic)
        places = self.partitions[topic.name]
        key = topic.schema.names.index(topic.key)
        for event in events:
            row = validate(event)
            self.log.append([Append(partition=places[partition_of(row[key], len(places))], rows=[row])], atomic=False)

    def between(self, topic: str, act: Callable[[], None], *, at: int = 1, late: bool = False) -> None:
        self.log.interposed = Between(topic, act, at, late)

    def records(self) -> list[DecisionRecord]:
        state = next(s for s in self.log.topics() if s.topic.name == RECORDS)
        return [record for held in state.partitions for record in valid_records(self.log, held, "orders")]

    def rows(self, topic: str) -> list[dict[str, object]]:
        """Every row, whatever it is."""
        state = next(s for s in self.log.topics() if s.topic.name == topic)
        return [
            row for held in state.partitions for batch in self.log.read(held.partition, 0) for row in batch.to_pylist()
        ]

    def verify(self) -> ChainReport:
        return verify(self.log, "checkout", "orders")

    def replay(self) -> ReplayReport:
        return replay(
            self.records(),
            versions=lambda text: self.version if text == self.version.text else None,
            requests=request_rows(self.log, self.shop.orders),
            recompute=self.recompute,
        )
