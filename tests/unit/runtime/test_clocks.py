"""Deciding on a Kafka log, here a model of one, while a clock is wrong: a broker's halts its partition and no other,
the process's own keeps it from deciding at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.api.metrics import Metrics
from headrace.api.service import Service
from headrace.api.settings import Settings
from headrace.core.codec import partition_of
from headrace.core.errors import HeadraceError
from headrace.core.times import Instant
from headrace.decisions.owners import OwnedDecider
from headrace.log.kafka import KafkaLog
from headrace.runtime.checkup import check_project
from headrace.runtime.opening import ownership_of
from headrace.runtime.ownership import Ownership
from headrace.runtime.planned import planned
from headrace.testing.clocks import ManualClock
from tests.unit.runtime.cluster import PARTITIONS, World, all_of, outcome, until

HOUR = 3_600_000_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


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
