"""A decision's way in and out without ASGI's messages: a head, a body, a task, one write.

The one idea: what is plain takes the short way, and all else the general one, so that what is refused is refused in one
place. Plain is a POST to a decision that is served, with JSON of a known and small length, over HTTP/1.1, nothing of it
in doubt. The short way is made of the general one's parts: the check of the token, the reader of the body, the service,
the refusal. Touches: the event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol

from headrace.api.app import Application, Reply, fault
from headrace.api.tokens import Scope
from headrace.api.trace import Trace, trace_of
from headrace.core.errors import HeadraceError

ROUTE = "decide"  # as metrics name it
BODY_BYTES_MAX = 16_384  # larger ones go the general way, which counts what all connections hold at once
_PREFIX = b"/v1/decisions/"
_GENERAL = frozenset({b"transfer-encoding", b"content-encoding", b"upgrade", b"expect"})

_logger = logging.getLogger(__name__)


class Direct:
    """Which requests to an application take the short way."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._names: dict[bytes, str] = {}  # of decisions, by target; one that is served stays so

    def exchange(self, peer: Peer, target: bytes, headers: list[tuple[bytes, bytes]]) -> Exchange | None:
        """Of a request with this head; None where it goes the general way."""
        name = self._names.get(target) or self._name(target)
        if name is None:
            return None
        said = dict(headers)
        length = said.get(b"content-length", b"")
        if (
            len(said) == len(headers)  # no header stands twice
            and said.get(b"content-type") == b"application/json"
            and length.isdigit()
            and len(length) <= 5
            and int(length) <= BODY_BYTES_MAX
            and _GENERAL.isdisjoint(said)
            and said.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        ):
            return Exchange(self.app, peer, name, said)
        return None

    def _name(self, target: bytes) -> str | None:
        """The decision that a target names letter by letter, without a query; None for any other target."""
        name = target.removeprefix(_PREFIX).decode("latin-1")
        if not target.startswith(_PREFIX) or name not in self.app.service.lanes:
            return None
        self._names[target] = name
        return name


class Peer(Protocol):
    """Who gets the answer: the connection that the request came by."""

    def answer(self, exchange: Exchange, reply: Reply) -> None: ...


class _Nobody:
    """In place of an event that a task waits for."""

    def set(self) -> None:
        """Nobody waits."""


_NOBODY = _Nobody()


class Exchange:
    """One request and its answer. It stands where uvicorn keeps its own, so some names are uvicorn's."""

    __slots__ = (
        "_app", "_began", "_headers", "_name", "_peer", "body", "disconnected", "keep_alive", "message_event",
        "more_body", "response_complete", "response_started", "trace",
    )  # fmt: skip

    def __init__(self, app: Application, peer: Peer, name: str, headers: Mapping[bytes, bytes]) -> None:
        self._app = app
        self._peer = peer
        self._name = name
        self._headers = headers
        self._began = time.monotonic()
        self.body = b""
        self.trace: Trace | None = None
        self.keep_alive = self.more_body = True
        self.disconnected = self.response_started = self.response_complete = False
        self.message_event = _NOBODY

    async def run(self) -> None:
        """The request is complete: decide it, or refuse it, and answer."""
        app = self._app
        try:
            self.trace = trace_of(self._headers.get(b"traceparent"))
            app.admit(self._headers, Scope.DECIDE)
            reply = await app.decided(self._name, self._headers, self.body)
        except HeadraceError as error:
            reply = app.refusal(error, ROUTE)
        except Exception as error:
            _logger.exception("%s failed", ROUTE)
            reply = app.refusal(fault(error, ROUTE), ROUTE)
        self._peer.answer(self, reply)
        app.service.metrics.answered(ROUTE, reply.status, time.monotonic() - self._began)
