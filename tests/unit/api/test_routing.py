"""Where a request is decided: asked before it waits, sent on at once, and waited for by not too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from headrace.api.forwarded import Forward, Forwarded
from headrace.api.forwarding import Forwarder
from headrace.api.lanes import Lane, Waiting
from headrace.api.routing import Routing
from headrace.core.codec import partition_of
from headrace.core.errors import NotOwnerError, SchemaError
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.run import DecisionMade
from tests.unit.runtime.cluster import PARTITIONS, World

FORWARD = Forward("/v1/decisions/checkout", {}, b"{}")
FINE = Forwarded(200, b"{}", b"application/json", ())
FULL = Forwarded(503, b'{"code": "HR-1008"}', b"application/problem+json", ((b"retry-after", b"1"),))
MOVED = Forwarded(503, b'{"code": "HR-0722"}', b"application/problem+json", ())


class Others(Forwarder):
    """Other processes, which answer so, one answer after the other."""

    def __init__(self, *answers: Forwarded, then: Callable[[], object] = lambda: None) -> None:
        super().__init__("here")
        self.asked: list[str] = []
        self._answers = list(answers)
        self._then = then

    async def post(self, owner: str, what: Forward, *, within: float) -> Forwarded:
        self.asked.append(owner)
        answer = self._answers.pop(0)
        self._then()
        return answer


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


Asked = Callable[[Lane, Routing], Awaitable[None]]


def routed(decider: OwnedDecider, others: Others, test: Asked, *, waiting_max: int = 8, looked: list[int]) -> None:
    async def run() -> None:
        lane = Lane("checkout", decider, loop=asyncio.get_running_loop(), waiting_max=8, batch_max=8)
        try:
            routing = Routing(others, lambda: looked.append(1), waiting_max=waiting_max)
            await test(lane, routing)
            assert routing.waits() == lane.waits() == 0
        finally:
            await asyncio.to_thread(lane.close)

    asyncio.run(run())


def owned_by_another(world: World) -> OwnedDecider:
    """One that knows that another owns partition 1, and owns the others."""
    here, there = world.decider(world.project(), "here"), world.decider(world.project(), "there")
    there.claim(1)
    for index in (0, 2):
        here.claim(index)
    here.stand_by()
    return here


def test_each_request_goes_to_who_owns_its_partition(world: World) -> None:
    others = Others(FINE)

    async def test(lane: Lane, routing: Routing) -> None:
        for index in range(PARTITIONS):
            found = await routing.decided(lane, world.order(index), 5, b"", FORWARD)
            if index == 1:
                assert found == FINE
            else:
                assert isinstance(found, Waiting) and isinstance(found.future.result(), DecisionMade)

    here = owned_by_another(world)
    routed(here, others, test, looked=[])
    assert others.asked == ["there"]


def test_what_another_refuses_is_told_at_once(world: World) -> None:
    others, looked = Others(FULL, FINE), [0]

    async def test(lane: Lane, routing: Routing) -> None:
        assert await routing.decided(lane, world.order(1), 5, b"", FORWARD) == FULL

    routed(owned_by_another(world), others, test, looked=looked)
    assert others.asked == ["there"] and looked == [0], "nothing was waited for"


def test_what_came_back_from_another_is_decided_here_once_it_is_owned(world: World) -> None:
    here = owned_by_another(world)
    others, looked = Others(MOVED, then=lambda: here.claim(1)), [0]

    async def test(lane: Lane, routing: Routing) -> None:
        found = await routing.decided(lane, world.order(1), 5, b"", FORWARD)
        assert isinstance(found, Waiting) and isinstance(found.future.result(), DecisionMade)

    routed(here, others, test, looked=looked)
    assert others.asked == ["there"] and len(looked) == 2


def test_a_request_that_another_process_took_over_meanwhile_is_sent_on(world: World) -> None:
    here = owned_by_another(world)
    world.decider(world.project(), "there").claim(0)
    others = Others(FINE)

    async def test(lane: Lane, routing: Routing) -> None:
        assert await routing.decided(lane, world.order(0), 5, b"", FORWARD) == FINE

    routed(here, others, test, looked=[])
    assert 0 not in here.owned, "it learned so from the log"


def test_only_so_many_wait_for_an_owner_and_no_longer_than_their_budget(world: World) -> None:
    here = world.decider(world.project(), "here")  # nobody owns anything
    looked: list[int] = []

    async def test(lane: Lane, routing: Routing) -> None:
        waits = asyncio.create_task(routing.decided(lane, world.order(0), 0.3, b"", FORWARD))
        await asyncio.sleep(0.1)
        assert routing.waits() == 1
        with pytest.raises(NotOwnerError, match="not owned here"):
            await asyncio.wait_for(routing.decided(lane, world.order(0), 60, b"", FORWARD), timeout=5)
        with pytest.raises(NotOwnerError):
            await waits

    routed(here, Others(), test, waiting_max=1, looked=looked)
    assert looked


def test_what_does_not_fit_is_told_by_who_was_asked(world: World) -> None:
    async def test(lane: Lane, routing: Routing) -> None:
        found = await routing.decided(lane, {"order": 7}, 5, b"", FORWARD)
        assert isinstance(found, Waiting) and isinstance(await found.future, SchemaError)

    routed(world.decider(world.project(), "here"), Others(), test, looked=[])


def test_the_partition_is_that_of_the_log(world: World) -> None:
    here = world.decider(world.project(), "here")
    for customer in range(20):
        request = {**world.order(0), "customer": customer}
        assert here.index_of(request) == partition_of(customer, PARTITIONS)
