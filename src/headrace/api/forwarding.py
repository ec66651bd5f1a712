"""A request goes to the process that owns its partition, and its answer comes back as it is. Touches: sockets, threads.

The one idea: any process takes any request, so that a balancer needs to know nothing. Who is not the owner asks the
owner once, in the caller's name and with the caller's token; who was asked so asks nobody else.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from headrace.api.desk import Desk
from headrace.core.errors import StateError

MARK = b"headrace-forwarded"  # by whom: a request that has it is not forwarded again
TIMEOUT_SECONDS = 5.0  # beyond any budget: whoever waits so long has been told, or asks again
_CARRIED = (
    b"authorization", b"content-type", b"accept-language", b"idempotency-key", b"traceparent", b"headrace-budget-ms",
)  # fmt: skip
_RETURNED = ("content-language", "retry-after")


@dataclass(frozen=True, slots=True)
class Forward:
    """A request as it came, to be sent on."""

    path: str
    headers: Mapping[bytes, bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Another process's answer."""

    status: int
    body: bytes
    content_type: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Forwarder:
    """To other processes of the same project. name: this one's address. Called on the loop."""

    def __init__(self, name: str, *, threads: int = 8, waiting_max: int = 256) -> None:
        self.name = name
        self._desk = Desk("forwarded", threads=threads, waiting_max=waiting_max)
        self._kept = threading.local()

    async def post(self, owner: str, what: Forward) -> Forwarded:
        """The owner's answer. owner: its address. Raises: StateError HR-1020, retryable: it did not answer, and may
        have decided; HR-1008."""
        return await self._desk.do(lambda: self._post(owner, what))

    def waits(self) -> int:
        return self._desk.waits()

    def close(self) -> None:
        self._desk.close()

    def _post(self, owner: str, what: Forward) -> Forwarded:
        said = {
            name.decode("latin-1"): what.headers[name].decode("latin-1") for name in _CARRIED if name in what.headers
        }
        said[MARK.decode()] = self.name
        kept: dict[str, http.client.HTTPConnection] = self._kept.__dict__.setdefault("connections", {})
        before = kept.pop(owner, None)
        if before is not None:
            try:
                return self._exchange(before, owner, what, said)
            except (OSError, http.client.HTTPException):
                before.close()  # idle for too long, as a rule; that a request has an id makes twice be once
        connection = connection_to(owner, TIMEOUT_SECONDS)
        try:
            return self._exchange(connection, owner, what, said)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise StateError(
                "HR-1020",
                "the process that owns the request's partition does not answer",
                detail=f"{owner}: {type(error).__name__}",
                hint="send it again, with the same id",
                retryable=True,
            ) from error

    def _exchange(
        self, connection: http.client.HTTPConnection, owner: str, what: Forward, headers: Mapping[str, str]
    ) -> Forwarded:
        connection.request("POST", what.path, body=what.body, headers=dict(headers))
        answer = connection.getresponse()
        data = answer.read()
        self._kept.connections[owner] = connection
        returned = [(name, answer.getheader(name)) for name in _RETURNED]
        return Forwarded(
            status=answer.status,
            body=data,
            content_type=(answer.getheader("content-type") or "application/json").encode("latin-1"),
            headers=tuple((name.encode(), value.encode("latin-1")) for name, value in returned if value is not None),
        )


def connection_to(address: str, seconds: float) -> http.client.HTTPConnection:
    """Not made yet. seconds: until what is asked for has failed, at each step."""
    where = urlsplit(address)
    if where.scheme == "https":
        return http.client.HTTPSConnection(where.netloc, timeout=seconds, context=ssl.create_default_context())
    return http.client.HTTPConnection(where.netloc, timeout=seconds)
