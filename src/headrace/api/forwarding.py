"""A request goes to the process that owns its partition, and its answer comes back as it is. Touches: sockets.

The one idea: any process takes any request, so that a balancer needs to know nothing. Who is not the owner asks the
owner once, in the caller's name and with the caller's token; who was asked so asks nobody else. The budget goes along,
so that nothing is done for who no longer waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from yarl import URL

from headrace.api.forwarded import MARK, Forward, Forwarded
from headrace.core.errors import StateError

GRACE_SECONDS = 1.0  # beyond the budget: when that is over, the owner answers with the fallback
IDLE_SECONDS = 10.0  # after which a connection is given up; servers keep theirs for longer
_BUDGET = "headrace-budget-ms"
_CARRIED = (b"authorization", b"content-type", b"accept-language", b"idempotency-key", b"traceparent")
_RETURNED = ("content-language", "retry-after")
# Added by the client library otherwise; the caller did not say them.
_UNSAID = ("user-agent", "accept", "accept-encoding", "content-type")


class Forwarder:
    """To other processes of the same project. name: this one's address. On the loop, all of it."""

    def __init__(self, name: str, *, waiting_max: int = 1024) -> None:
        self.name = name
        self._waiting_max = waiting_max
        self._waits = 0
        self._session: aiohttp.ClientSession | None = None

    async def post(self, owner: str, what: Forward, *, within: float) -> Forwarded:
        """The owner's answer. owner: its address. within: seconds of the caller's budget that are left.

        Raises: StateError HR-1020, retryable: it did not answer in time, and may have decided; HR-1008 where too many
        wait."""
        if self._waits >= self._waiting_max:
            raise StateError(
                "HR-1008",
                "too many requests wait for other processes",
                detail="nothing was done for this one",
                hint="send it again after the time that Retry-After says, with the same id",
                retryable=True,
            )
        self._waits += 1
        try:
            async with asyncio.timeout(within + GRACE_SECONDS):
                return await self._post(owner, what, within)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise StateError(
                "HR-1020",
                "the process that owns the request's partition does not answer",
                detail=f"{owner}: {type(error).__name__}",
                hint="send it again, with the same id",
                retryable=True,
            ) from error
        finally:
            self._waits -= 1

    def waits(self) -> int:
        """Requests that wait for another process now."""
        return self._waits

    async def close(self) -> None:
        """When nothing waits any more."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, owner: str, what: Forward, within: float) -> Forwarded:
        headers = {
            name.decode("latin-1"): what.headers[name].decode("latin-1") for name in _CARRIED if name in what.headers
        }
        headers |= {MARK.decode(): self.name, _BUDGET: str(max(1, int(within * 1_000)))}
        try:
            return await self._exchange(owner + what.path, what.body, headers)
        except aiohttp.ServerDisconnectedError:
            # Idle for too long, as a rule; that a request has an id makes twice be once.
            return await self._exchange(owner + what.path, what.body, headers)

    async def _exchange(self, url: str, body: bytes, headers: Mapping[str, str]) -> Forwarded:
        asked = self._open().post(URL(url, encoded=True), data=body, headers=headers, allow_redirects=False)
        async with asked as answer:
            data = await answer.read()
        returned = [(name, answer.headers.get(name)) for name in _RETURNED]
        return Forwarded(
            status=answer.status,
            body=data,
            content_type=answer.headers.get("content-type", "application/json").encode("latin-1"),
            headers=tuple((name.encode(), value.encode("latin-1")) for name, value in returned if value is not None),
        )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,
                skip_auto_headers=_UNSAID,
            )
        return self._session
