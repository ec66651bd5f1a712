"""Requests sent on to their owner: as they came, with what is left of the budget, and never for nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from headrace.api.forwarded import Forward, Forwarded
from headrace.api.forwarding import GRACE_SECONDS, Forwarder
from headrace.core.errors import StateError

REQUEST = Forward(
    "/v1/decisions/checkout?features=true&language=d%C3%A9",
    {b"authorization": b"Bearer t", b"content-type": b"application/json", b"host": b"here", b"cookie": b"c=1",
     b"headrace-budget-ms": b"3000"},
    b'{"order": "o-1"}',
)  # fmt: skip
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\ncontent-language: de\r\n"
    b"server: x\r\nset-cookie: c=2\r\n\r\n{}"
)

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Owner:
    """An owner that answers by a rule; heard: requests as text."""

    def __init__(self, answering: Answering | None = None) -> None:
        self.heard: list[str] = []
        self.connections = 0
        self._answering = answering or self._answer
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Owner:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heard.append(head + (await reader.readexactly(len(REQUEST.body))).decode())
                await self._answering(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER)


def forwarded(test: Callable[[Forwarder], Awaitable[None]], *, waiting_max: int = 8) -> None:
    async def run() -> None:
        forwarder = Forwarder("http://me", waiting_max=waiting_max)
        try:
            await test(forwarder)
            assert forwarder.waits() == 0
        finally:
            await forwarder.close()

    asyncio.run(run())


def test_a_request_goes_on_as_it_came_with_the_budget_that_is_left() -> None:
    async def test(forwarder: Forwarder) -> None:
        async with Owner() as owner:
            for _ in range(3):
                answer = await forwarder.post(owner.address, REQUEST, within=1.5)
                assert answer == Forwarded(200, b"{}", b"application/json", ((b"content-language", b"de"),))
            line, *fields = owner.heard[0].partition("\r\n\r\n")[0].split("\r\n")
            assert line == "POST /v1/decisions/checkout?features=true&language=d%C3%A9 HTTP/1.1"
            said = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
            assert said == {
                "host": owner.address.removeprefix("http://"),
                "authorization": "Bearer t",
                "content-type": "application/json",
                "headrace-forwarded": "http://me",
                "headrace-budget-ms": "1500",
                "content-length": str(len(REQUEST.body)),
            }
            assert owner.heard[0].endswith(REQUEST.body.decode())
            assert owner.connections == 1, "kept, as long as it is used"

    forwarded(test)


def test_an_owner_that_does_not_answer_is_waited_for_no_longer_than_the_caller_waits() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def test(forwarder: Forwarder) -> None:
        async with Owner(silent) as owner:
            began = time.monotonic()
            with pytest.raises(StateError, match="TimeoutError") as found:
                await forwarder.post(owner.address, REQUEST, within=0.05)
            assert (found.value.code, found.value.retryable) == ("HR-1020", True)
            assert time.monotonic() - began < GRACE_SECONDS + 5
            assert "headrace-budget-ms: 50" in owner.heard[0].lower()

    forwarded(test)


def test_an_owner_that_is_gone_is_told() -> None:
    async def test(forwarder: Forwarder) -> None:
        async with Owner() as owner:
            gone = owner.address
        with pytest.raises(StateError, match="does not answer") as found:
            await forwarder.post(gone, REQUEST, within=5)
        assert (found.value.code, found.value.retryable) == ("HR-1020", True)

    forwarded(test)


def test_a_connection_that_was_closed_meanwhile_is_made_again() -> None:
    owners: list[Owner] = []

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(owners[0].heard) == 2:
            writer.close()
            raise ConnectionError
        writer.write(ANSWER)

    async def test(forwarder: Forwarder) -> None:
        async with Owner(closing) as owner:
            owners.append(owner)
            for _ in range(2):
                assert (await forwarder.post(owner.address, REQUEST, within=5)).status == 200
            assert (len(owner.heard), owner.connections) == (3, 2)

    forwarded(test)


def test_who_waits_is_counted_and_too_many_are_refused_at_once() -> None:
    async def test(forwarder: Forwarder) -> None:
        answered = asyncio.Event()

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answered.wait()
            writer.write(ANSWER)

        async with Owner(late) as owner:
            waiting = [asyncio.create_task(forwarder.post(owner.address, REQUEST, within=60)) for _ in range(2)]
            await asyncio.sleep(0)
            assert forwarder.waits() == 2
            with pytest.raises(StateError, match="HR-1008"):
                await forwarder.post(owner.address, REQUEST, within=60)
            answered.set()
            assert [(await one).status for one in waiting] == [200, 200]

    forwarded(test, waiting_max=2)
