"""Lanes: batches, bounds, deadlines, failures; with deciders that do what the test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.api.lanes import Lane, Outcome, Undecided
from headrace.core.errors import HeadraceError, LogError, SchemaError, StateError
from headrace.core.times import Instant
from headrace.decisions.define import Outcome as Decided
from headrace.decisions.plan import Version
from headrace.decisions.run import DecisionMade
from headrace.runtime.project import open_project
from tests.e2e.shop import make

Request = Mapping[str, object]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    with open_project(make(tmp_path_factory.mktemp("lanes"))) as project:
        return project.version("checkout")


class Gate:
    """Decides when it is let: a batch each time `go` is released."""

    appending = 0.0

    def __init__(self, version: Version, then: Callable[[Request], DecisionMade | HeadraceError] | None = None) -> None:
        self.version = version
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.batches: list[list[object]] = []
        self._then = then or made

    def decide_many(self, requests: Sequence[Request]) -> Sequence[DecisionMade | HeadraceError]:
        self.batches.append([request["order"] for request in requests])
        self.begun.release()
        self.go.acquire()
        return [self._then(request) for request in requests]


def made(request: Request) -> DecisionMade:
    return DecisionMade(
        decision_id=f"checkout/1/0/{request['order']}",
        request_id=str(request["order"]),
        outcome=Decided.APPROVE,
        reasons=(),
        score=None,
        t=Instant(0),
        flags=(),
    )


def run(decides: Gate, test: Callable[[Lane], Coroutine[Any, Any, None]], *, waiting_max: int = 100) -> None:
    """A test on a loop, with a lane that is closed at its end."""

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        lane = Lane("checkout", decides, loop=loop, waiting_max=waiting_max, batch_max=4)
        try:
            await test(lane)
        finally:
            for _ in range(100):
                decides.go.release()
            await asyncio.to_thread(lane.close)

    asyncio.run(whole())


def submit(lane: Lane, numbers: Sequence[int], budget: float = 60.0) -> list[asyncio.Future[Outcome]]:
    return [lane.submit({"order": number}, budget).future for number in numbers]


async def begun(decides: Gate) -> None:
    await asyncio.to_thread(decides.begun.acquire)


def test_what_waits_together_is_decided_together_in_order(version: Version) -> None:
    decides = Gate(version)

    async def test(lane: Lane) -> None:
        first = submit(lane, [0])
        await begun(decides)
        rest = submit(lane, range(1, 7))
        for _ in range(3):
            decides.go.release()
        outcomes = await asyncio.gather(*first, *rest)
        assert [one.request_id for one in outcomes if isinstance(one, DecisionMade)] == [str(i) for i in range(7)]
        assert decides.batches == [[0], [1, 2, 3, 4], [5, 6]]

    run(decides, test)


def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room(version: Version) -> None:
    decides = Gate(version)

    async def test(lane: Lane) -> None:
        held = submit(lane, [0])
        await begun(decides)
        held += submit(lane, [1, 2])
        with pytest.raises(StateError) as refused:
            lane.submit({"order": 3}, 60.0)
        assert (refused.value.code, refused.value.retryable) == ("HR-1008", True)
        for _ in range(3):
            decides.go.release()
        await asyncio.gather(*held)
        await asyncio.gather(*submit(lane, [4]))
        assert [order for batch in decides.batches for order in batch] == [0, 1, 2, 4]

    run(decides, test, waiting_max=2)


def test_who_waits_longer_than_its_budget_has_the_fallback_while_the_thread_is_busy(version: Version) -> None:
    decides = Gate(version)

    async def test(lane: Lane) -> None:
        (busy,) = submit(lane, [0])
        await begun(decides)
        hurried, patient = submit(lane, [1], 0.02), submit(lane, [2], 60.0)
        assert await asyncio.wait_for(hurried[0], 5.0) is Undecided.LATE
        assert not busy.done()
        assert not patient[0].done()
        decides.go.release()
        decides.go.release()
        assert isinstance(await busy, DecisionMade)
        assert isinstance(await patient[0], DecisionMade)
        assert decides.batches == [[0], [2]], "what is late is not decided"

    run(decides, test)


def test_a_decider_that_fails_gives_the_fallback_and_the_next_batch_is_decided(
    version: Version, caplog: pytest.LogCaptureFixture
) -> None:
    def then(request: Request) -> DecisionMade:
        if request["order"] == 0:
            raise ZeroDivisionError("a model that fails")
        return made(request)

    decides = Gate(version, then)

    async def test(lane: Lane) -> None:
        decides.go.release()
        (failed,) = submit(lane, [0])
        assert await failed is Undecided.FAILED
        assert lane.failing
        assert "ZeroDivisionError" in caplog.text
        decides.go.release()
        (well,) = submit(lane, [1])
        assert isinstance(await well, DecisionMade)
        assert not lane.failing

    run(decides, test)


@pytest.mark.parametrize(
    ("error", "same"),
    [
        (SchemaError("HR-0401", "the caller's"), True),
        (LogError("HR-0306", "no room", retryable=True), True),
        (StateError("HR-0544", "the state is broken"), False),
    ],
)
def test_an_error_goes_to_its_request_alone(version: Version, error: HeadraceError, same: bool) -> None:
    decides = Gate(version, lambda request: error if request["order"] == 1 else made(request))

    async def test(lane: Lane) -> None:
        first = submit(lane, [0])
        await begun(decides)
        rest = submit(lane, [1, 2])
        decides.go.release()
        decides.go.release()
        assert isinstance(await first[0], DecisionMade)
        assert await rest[0] is (error if same else Undecided.FAILED)
        assert isinstance(await rest[1], DecisionMade)

    run(decides, test)


def test_a_log_that_fails_is_told_to_the_whole_batch(version: Version) -> None:
    error = LogError("HR-0309", "input or output failed")

    def then(request: Request) -> DecisionMade:
        raise error

    decides = Gate(version, then)

    async def test(lane: Lane) -> None:
        decides.go.release()
        assert await submit(lane, [0])[0] is error

    run(decides, test)


def test_a_switch_takes_effect_between_two_batches(version: Version) -> None:
    old, new = Gate(version), Gate(version)

    async def test(lane: Lane) -> None:
        first = submit(lane, [0])
        await begun(old)
        lane.switch(new)
        second = submit(lane, [1])
        old.go.release()
        new.go.release()
        await asyncio.gather(*first, *second)
        assert (old.batches, new.batches) == ([[0]], [[1]])

    run(old, test)


def test_closing_decides_what_waits_and_takes_no_more(version: Version) -> None:
    decides = Gate(version)

    async def test(lane: Lane) -> None:
        held = submit(lane, [0])
        await begun(decides)
        held += submit(lane, [1, 2])
        closing = asyncio.create_task(asyncio.to_thread(lane.close))
        await asyncio.sleep(0.01)
        with pytest.raises(StateError, match="the server stops"):
            lane.submit({"order": 3}, 60.0)
        decides.go.release()
        decides.go.release()
        assert all(isinstance(one, DecisionMade) for one in await asyncio.gather(*held))
        await closing

    run(decides, test)


def test_a_caller_who_left_stops_nobody(version: Version, tmp_path: Path) -> None:
    decides = Gate(version)

    async def test(lane: Lane) -> None:
        gone, stays = submit(lane, [0, 1])
        gone.cancel()
        decides.go.release()
        decides.go.release()
        assert isinstance(await stays, DecisionMade)

    run(decides, test)
