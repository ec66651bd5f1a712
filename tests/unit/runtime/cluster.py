"""A model of a cluster, a project that is declared in it, and processes that decide there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from headrace.catalog.run import load_definitions
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import Place
from headrace.core.codec import partition_of
from headrace.core.errors import HeadraceError
from headrace.core.times import Instant
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.run import DecisionMade
from headrace.log.kafka import KafkaLog
from headrace.log.run import Role
from headrace.runtime.definitions import CLASSES, Definitions
from headrace.runtime.planned import apply_planned, planned
from headrace.runtime.project import Project
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient

PARTITIONS = 3
SHOP = """
import headrace as hr
orders = hr.Topic("orders", key="customer", id="order", event_time="at", partitions=3,
    fields={"order": hr.string, "customer": hr.int64, "at": hr.timestamp})
returns = hr.Topic("returns", key="customer", partitions=3, fields={"customer": hr.int64})
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[hr.count().over("1d")])
sent_back = hr.FeatureView("sent_back", entity="customer", source=returns, max_staleness="1h",
    features=[hr.count().over("1d")])
checkout = hr.Decision("checkout", request=orders, policy=[
    hr.decline_if(activity.count_1d > 1000, reason="MANY"),
    hr.decline_if(sent_back.count_1d > 1000, reason="BACK"),
    hr.approve()])
"""


class World:
    """A cluster of three brokers and a project that is declared in it; with the block its processes' logs close."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "definitions.py").write_text(SHOP, encoding="utf-8")
        self.clock = ManualClock()
        self.model = KafkaModel(self.clock)
        self.projects: list[Project] = []
        first = self.project()
        apply_planned(first, planned(first), approved=[])
        self.number = 0

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for project in self.projects:
            project.log.close()

    def project(self, clock: ManualClock | None = None) -> Project:
        """A process's."""
        clock = clock or self.clock
        definitions = Definitions.of(load_definitions(self.folder, CLASSES))
        made = Project(self.folder, definitions, clock=clock, role=Role.ANY)
        made._log = KafkaLog(ModelClient(self.model), settings=KafkaSettings(bootstrap="model:1"), clock=clock)
        self.projects.append(made)
        return made

    def decider(self, project: Project, address: str = "here") -> OwnedDecider:
        made = project.decider("checkout", address=address)
        assert isinstance(made, OwnedDecider)
        return made

    def order(self, partition: int) -> dict[str, object]:
        self.number += 1
        customer = next(c for c in range(100) if partition_of(c, PARTITIONS) == partition)
        at = Instant(self.clock.now())
        return {"order": f"o-{self.number}", "customer": customer, "at": _iso(at)}

    def jump(self, topic: str, index: int, by: int) -> None:
        """The clock of a broker; none but this partition is led by it."""
        self.model.skews.append(by)
        self.model.partition(Place(topic, index)).leader = len(self.model.skews) - 1


def _iso(at: Instant) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at / 1e6))


def outcome(answer: DecisionMade | HeadraceError) -> str:
    return answer.code if isinstance(answer, HeadraceError) else answer.outcome.value


def all_of(world: World, decider: OwnedDecider) -> list[str]:
    return [outcome(each) for each in decider.decide_many([world.order(index) for index in range(PARTITIONS)])]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not true():
        if time.monotonic() > end:
            raise AssertionError("not within 15 s")
        time.sleep(0.01)
