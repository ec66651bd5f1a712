"""Desks: bounded, and refused at once; what fails is told to its caller alone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headrace.api.desk import Desk
from headrace.core.errors import StateError


def test_a_full_desk_refuses_at_once_and_takes_again() -> None:
    go = threading.Event()

    async def test() -> None:
        desk = Desk("reads", threads=1, waiting_max=1)
        held = [asyncio.create_task(desk.do(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        assert desk.waits() == 2
        with pytest.raises(StateError) as refused:
            await desk.do(go.wait)
        assert (refused.value.code, refused.value.retryable) == ("HR-1008", True)
        go.set()
        assert await asyncio.gather(*held) == [True, True]
        assert await desk.do(lambda: 7) == 7
        assert desk.waits() == 0
        desk.close()

    asyncio.run(test())


def test_a_call_that_fails_leaves_its_place() -> None:
    def fail() -> None:
        raise StateError("HR-0541", "too old")

    async def test() -> None:
        desk = Desk("reads", threads=1, waiting_max=0)
        for _ in range(3):
            with pytest.raises(StateError, match="HR-0541"):
                await desk.do(fail)
        assert await desk.do(lambda: 7) == 7
        desk.close()

    asyncio.run(test())
