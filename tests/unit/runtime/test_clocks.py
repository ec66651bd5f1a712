"""Deciding on a Kafka log, here a model of one, while a clock is wrong: a broker's halts its partition and no other,
the process's own keeps it from deciding at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.api.metrics import Metrics
from headrace.api.service import Service
from headrace.api.settings import Settings
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
from headrace.runtime.checkup import check_project
from headrace.runtime.definitions import CLASSES, Definitions
from headrace.runtime.opening import ownership_of
from headrace.runtime.ownership import Ownership
from headrace.runtime.planned import apply_planned, planned
from headrace.runtime.project import Project
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient

HOUR = 3_600_000_000
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
    """A cluster of three brokers and a project that is declared in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "definitions.py").write_text(SHOP, encoding="utf-8")
        self.clock = ManualClock()
        self.model = KafkaModel(self.clock)
        self.projects: list[Project] = []
        first = self.project()
        apply_planned(first, planned(first), approved=[])
        self.number = 0

    def project(self, clock: ManualClock | None = None) -> Project:
        """A process's."""
        clock = clock or self.clock
        definitions = Definitions.of(load_definitions(self.folder, CLASSES))
        made = Project(self.folder, definitions, clock=clock, role=Role.ANY)
        made._log = KafkaLog(ModelClient(self.model), settings=KafkaSettings(bootstrap="model:1"), clock=clock)
        self.projects.append(made)
        return made

    def decider(self, project: Project) -> OwnedDecider:
        made = project.decider("checkout", address="here")
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


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for project in made.projects:
        project.log.close()


def outcome(answer: DecisionMade | HeadraceError) -> str:
    return answer.code if isinstance(answer, HeadraceError) else answer.outcome.value


def all_of(world: World, decider: OwnedDecider) -> list[str]:
    return [outcome(each) for each in decider.decide_many([world.order(index) for index in range(PARTITIONS)])]


def test_a_partition_of_requests_halts_and_the_others_are_decided(world: World) -> None:
    decider = world.decider(world.project())
    for index in range(PARTITIONS):
        decider.claim(index)
    assert all_of(world, decider) == ["approve"] * 3
    world.jump("orders", 1, HOUR)
    first = all_of(world, decider)
    assert first[0] == first[2] == "approve"
    assert first[1] in ("HR-0311", "HR-0313")
    for _ in range(2):
        assert all_of(world, decider) == ["approve", "HR-0313", "approve"]
    world.jump("orders", 1, 0)
    log = world.projects[0].log
    assert isinstance(log, KafkaLog)
    log.restart_clock("orders")
    world.clock.advance("2s")
    if 1 not in decider.owned:
        decider.claim(1)
    assert all_of(world, decider) == ["approve"] * 3
    report = world.project().replay_decisions("checkout")
    assert (report.compared, report.mismatched) == (len(list(world.project().records("checkout"))), 0)


def test_a_partition_of_records_halts_and_the_others_are_decided(world: World) -> None:
    decider = world.decider(world.project())
    for index in range(PARTITIONS):
        decider.claim(index)
    world.jump("headrace.decisions.checkout", 1, HOUR)
    assert all_of(world, decider)[::2] == ["approve", "approve"]
    assert all_of(world, decider) == ["approve", "HR-0313", "approve"]
    world.jump("headrace.decisions.checkout", 1, 0)
    log = world.projects[0].log
    assert isinstance(log, KafkaLog)
    log.restart_clock("headrace.decisions.checkout")
    decider.claim(1)
    assert all_of(world, decider) == ["approve"] * 3
    assert world.project().replay_decisions("checkout").mismatched == 0


def test_a_view_over_a_partition_that_halts_grows_stale_and_says_so(world: World) -> None:
    """It stands before the halt; nobody has proven that as the log's end, and max_staleness tells."""
    decider = world.decider(world.project())
    for index in range(PARTITIONS):
        decider.claim(index)
    world.projects[0].produce("returns", [{"customer": 1}])
    world.jump("returns", partition_of(1, PARTITIONS), 3 * HOUR)
    with pytest.raises(HeadraceError):
        world.projects[0].produce("returns", [{"customer": 1}])
    world.clock.advance("30m")
    assert all_of(world, decider) == ["approve"] * 3
    world.clock.advance("40m")
    made = decider.decide(world.order(0))
    assert (made.outcome.value, made.reasons) == ("review", ("MISSING_DATA",))
    late = world.decider(world.project())  # it never saw the end
    late.claim(0)
    assert outcome(late.decide(world.order(0))) == "review"


def test_a_process_whose_clock_is_behind_decides_nothing_until_it_was_set_right(world: World) -> None:
    clock = ManualClock(world.clock.now())
    project = world.project(clock)
    decider = world.decider(project)
    for index in range(PARTITIONS):
        decider.claim(index)
    assert all_of(world, decider) == ["approve"] * 3
    clock.set(Instant(clock.now() - HOUR))
    all_of(world, decider)
    before = len(list(world.project().records("checkout")))
    assert all_of(world, decider) == ["HR-0354"] * 3
    assert len(list(world.project().records("checkout"))) == before, "nothing from it"
    with pytest.raises(HeadraceError) as raised:
        decider.claim(0)
    assert raised.value.code == "HR-0354"
    clock.set(world.clock.now())
    project.log.topics()
    for index in range(PARTITIONS):
        decider.claim(index)
    assert all_of(world, decider) == ["approve"] * 3


def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("not within 5 s")


def test_an_unfit_process_leaves_its_partitions_to_others_and_comes_back(world: World) -> None:
    clock = ManualClock(world.clock.now())
    project = world.project(clock)
    decider = world.decider(project)
    ownership: Ownership = ownership_of(
        project.log, name="here", topics={"checkout": "orders"}, owners=lambda: {"checkout": decider}
    )
    ownership.begin()
    try:
        until(lambda: len(decider.owned) == PARTITIONS and ownership.settled)
        clock.set(Instant(clock.now() - HOUR))
        all_of(world, decider)
        until(lambda: not decider.owned and not world.model.group("headrace.serve").holders(world.clock.now()))
        clock.set(world.clock.now())
        project.log.topics()
        until(lambda: len(decider.owned) == PARTITIONS)
    finally:
        ownership.leave()


def test_a_server_that_is_unfit_is_not_ready_and_says_why(world: World) -> None:
    clock = ManualClock(world.clock.now())
    project = world.project(clock)

    async def served() -> None:
        service = Service(project, settings=Settings(sample_share=0), metrics=Metrics(), address="http://127.0.0.1:1")
        try:
            until(lambda: not service.unready())
            clock.set(Instant(clock.now() - HOUR))
            decider = service.lanes["checkout"].decides
            assert isinstance(decider, OwnedDecider)
            all_of(world, decider)
            assert service.unready().startswith("HR-0354 this machine's clock is behind the brokers'")
            clock.set(world.clock.now())
            until(lambda: not service.unready())
        finally:
            service.close()

    asyncio.run(served())


# --- a topic altered by hand ---


def test_plan_refuses_and_doctor_tells_what_was_altered(world: World) -> None:
    project = world.project()
    assert check_project(project).findings == ()
    world.model.alter("orders", None, {"message.timestamp.type": "CreateTime"})
    with pytest.raises(HeadraceError) as raised:
        planned(project)
    assert raised.value.code == "HR-0356"
    (found,) = check_project(project).findings
    assert found.serious and "expected message.timestamp.type=LogAppendTime, seen CreateTime" in found.text
    world.model.alter("orders", None, {"message.timestamp.type": "LogAppendTime", "retention.ms": "1000"})
    assert planned(project).steps == (), "a person decides when it is set back"
    (found,) = check_project(project).findings
    assert "expected retention.ms=-1, seen 1000" in found.text
