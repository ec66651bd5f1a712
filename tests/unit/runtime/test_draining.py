"""A process that hands over to others on a Kafka log, here a model of one: nothing is without an owner meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.api.draining import DRAINED, DRAINING, SERVING, Decided, Draining
from headrace.api.metrics import Metrics
from headrace.api.service import Service
from headrace.api.settings import Settings
from headrace.core.errors import NotFoundError, NotOwnerError
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.run import DecisionMade
from headrace.runtime.holding import Holding
from headrace.runtime.opening import ownership_of
from headrace.runtime.ownership import Ownership
from headrace.runtime.project import open_project
from tests.e2e import shop
from tests.unit.runtime.cluster import PARTITIONS, World, all_of, until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


class Process:
    """One that serves, without its HTTP."""

    def __init__(self, world: World, name: str) -> None:
        project = world.project()
        self.decider = world.decider(project, name)
        self.ownership: Ownership = ownership_of(
            project.log, name=name, topics={"checkout": "orders"}, owners=lambda: {"checkout": self.decider}
        )
        self.ownership.begin()


def shared(one: Process, other: Process) -> bool:
    """Whether both decide some partitions, the one knows who has the others, and it stays so: until a process hears
    what it is given now, it may claim once more what it had."""
    before = one.decider.epochs, other.decider.epochs
    time.sleep(1.0)  # twice as long as a process takes to look what it is given
    owned = one.decider.owned, other.decider.owned
    told = all(one.decider.owner_of(index) is not None for index in range(PARTITIONS))
    steady = before == (one.decider.epochs, other.decider.epochs)
    return steady and all(owned) and len(owned[0]) + len(owned[1]) == PARTITIONS and told


def ask(world: World, one: Process) -> int:
    """A request to each partition; how many were decided. All others it knows whom to send to."""
    found = one.decider.decide_many([world.order(index) for index in range(PARTITIONS)])
    for each in found:
        assert isinstance(each, DecisionMade) or (isinstance(each, NotOwnerError) and each.facts["owner"] == "there"), (
            each
        )
    return sum(isinstance(each, DecisionMade) for each in found)


def test_what_nobody_takes_over_is_decided_on(world: World) -> None:
    here = Process(world, "here")
    try:
        until(lambda: len(here.decider.owned) == PARTITIONS)
        here.ownership.drain()
        until(lambda: not world.model.group("headrace.serve").holders(world.clock.now()))
        time.sleep(0.7)  # longer than it looks what it is given
        assert all_of(world, here.decider) == ["approve"] * PARTITIONS
        assert len(here.decider.owned) == PARTITIONS
    finally:
        here.ownership.leave()
    assert not here.decider.owned


def test_every_request_meanwhile_is_decided_or_sent_to_who_took_over(world: World) -> None:
    here, there = Process(world, "here"), Process(world, "there")
    try:
        until(lambda: shared(here, there))
        decided = ask(world, here)
        assert 0 < decided < PARTITIONS, "some are the other's"
        here.ownership.drain()
        while here.decider.owned:
            decided += ask(world, here)
        until(lambda: there.decider.owned == frozenset(range(PARTITIONS)))
        assert ask(world, here) == 0
        assert all_of(world, there.decider) == ["approve"] * PARTITIONS
    finally:
        here.ownership.leave()
        there.ownership.leave()
    report = world.project().replay_decisions("checkout")
    assert report.compared == decided + PARTITIONS and not report.mismatched


def test_a_partition_without_requests_is_handed_over_too(world: World) -> None:
    here, there = Process(world, "here"), Process(world, "there")
    try:
        until(lambda: here.ownership.settled and there.ownership.settled)
        here.ownership.drain()
        until(lambda: {here.decider.owner_of(index) for index in range(PARTITIONS)} == {"there"})
        assert not here.decider.owned
        here.ownership.drain()  # once more is no harm
    finally:
        here.ownership.leave()
        there.ownership.leave()


def test_who_holds_for_its_own_what_another_claimed_notices_without_a_request(world: World) -> None:
    here = Process(world, "here")
    try:
        until(lambda: len(here.decider.owned) == PARTITIONS)
        before = here.decider.epochs[1]
        world.decider(world.project(), "there").claim(1)
        until(lambda: here.decider.epochs.get(1, before) > before)
        assert here.decider.claims_lost == 1 and all_of(world, here.decider) == ["approve"] * PARTITIONS
    finally:
        here.ownership.leave()


def test_a_version_that_comes_while_it_drains_goes_on_with_what_is_left(world: World) -> None:
    here = Process(world, "here")
    try:
        until(lambda: len(here.decider.owned) == PARTITIONS)
        here.ownership.drain()
        until(lambda: not world.model.group("headrace.serve").holders(world.clock.now()))
        successor = world.decider(world.project(), "here")
        here.ownership.take("checkout", successor)
        assert all_of(world, successor) == ["approve"] * PARTITIONS
    finally:
        here.ownership.leave()


def test_a_server_says_how_far_it_is(world: World) -> None:
    project = world.project()

    async def served() -> None:
        service = Service(project, settings=Settings(sample_share=0), metrics=Metrics(), address="http://127.0.0.1:1")
        try:
            until(lambda: not service.unready())
            decider = service.lanes["checkout"].decides
            assert isinstance(decider, OwnedDecider)
            all_ = [Decided("checkout", index) for index in range(PARTITIONS)]
            assert (service.drained().state, service.drained().decides) == (SERVING, all_)
            service.drain()
            assert service.unready() == "draining"
            assert (service.drained().state, service.drained().decides) == (DRAINING, all_)
            there = Process(world, "there")
            try:
                until(lambda: service.drained().state == DRAINED)
                assert service.drained().decides == service.drained().holds == []
            finally:
                there.ownership.leave()
        finally:
            service.close()

    asyncio.run(served())


class Holds(Holding):
    """Two partitions, whatever there is."""

    def held(self, topic: str) -> frozenset[int]:
        return frozenset({0, 1})


def test_views_are_held_until_another_says_that_it_holds_them(world: World) -> None:
    here, said = Process(world, "here"), {0: "there"}
    try:
        draining = Draining(here.ownership, lambda: {}, Holds(world.projects[0].log, world.clock))
        wanted = draining.wanted(lambda topic, index: said.get(index))
        assert wanted("merchants") == frozenset(), "the group gives nothing of it"
        draining.begin()
        assert wanted("merchants") == {1}
        said[1] = "there"
        assert wanted("merchants") == frozenset()
    finally:
        here.ownership.leave()


def test_a_log_of_one_process_has_nobody_to_hand_over_to(tmp_path: Path) -> None:
    async def served() -> None:
        with open_project(shop.make(tmp_path / "project", shop.DEFINITIONS)) as project:
            project.apply()
            service = Service(project, settings=Settings(sample_share=0), metrics=Metrics())
            try:
                for ask in (service.drain, service.drained):
                    with pytest.raises(NotFoundError) as raised:
                        ask()
                    assert raised.value.code == "HR-1021"
            finally:
                service.close()

    asyncio.run(served())
