"""One connection, with limits that uvicorn leaves open: time for a head, a body and an answer, bytes of a head; and
with a short way for decisions (direct.py).

The one idea: no timer a request. Each connection notes when its request began, and one look a second over all of them
closes those that are too slow; so 1,000 idle connections cost nothing, and neither does a fast request. What is refused
here never became a request: the answer is written as it stands, as problem details, and the connection closed.
Touches: sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from headrace.api import problems
from headrace.api.app import Reply, fields_of
from headrace.api.direct import Direct, Exchange
from headrace.api.settings import Settings
from headrace.core.errors import HeadraceError, InputError, StateError


class HeadTooLargeError(Exception):
    """Stops the parser."""


class Connection(HttpToolsProtocol):
    """uvicorn's, with a head that is bounded and a clock. settings, direct: set on a subclass by `with_settings`."""

    settings = Settings()
    direct: Direct | None = None
    cycle: RequestResponseCycle | Exchange  # type: ignore[assignment]  # uvicorn knows of its own only

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.since = self.loop.time()
        self.in_head = False
        self.head_bytes = 0
        self.after_another = False
        self.resuming = False

    @classmethod
    def with_settings(cls, given: Settings, direct: Direct | None = None) -> type[Connection]:
        """direct: None where every request goes the general way."""
        return type("Connection", (cls,), {"settings": given, "direct": direct})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self.settings.connections_max:
            self.refuse(StateError("HR-1008", "too many connections are open", retryable=True))

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        began = not self.in_head
        self.after_another = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        if self.in_head:
            # Where a request ended in the same data, it is not known how much of it is this head: the rest counts.
            self.head_bytes += 1 if began and self.after_another else len(data)
            if self.head_bytes > self.settings.head_bytes_max:
                self.refuse(self._head_too_large())

    def _without_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 where another protocol was offered, as Java's client offers HTTP/2 with its first request.
        The parser takes what follows for that protocol's, so the body is given to another parser."""
        headers = dict(self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        chunked = b"transfer-encoding" in headers
        if chunked or int(headers.get(b"content-length", b"0")):
            framing = b"transfer-encoding: chunked" if chunked else b"content-length: " + headers[b"content-length"]
            assert not isinstance(self.cycle, Exchange), "what offers another protocol goes the general way"
            self.cycle.more_body = True
            self.cycle.message_event.clear()
            self.headers = []  # those of the request stay as they are
            self.resuming = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self.resuming = False
        if rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        if self.resuming:
            return
        self.since = self.loop.time()
        self.in_head = True
        self.head_bytes = 0
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        if self.resuming:
            return
        self.in_head = False
        size = len(self.url)
        for name, value in self.headers:
            size += len(name) + len(value)
        if size > self.settings.head_bytes_max:
            raise HeadTooLargeError
        exchange = self._exchange()
        if exchange is not None:
            self.cycle = exchange
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # only now: what it makes is for ASGI
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        super().on_headers_complete()

    def _exchange(self) -> Exchange | None:
        """The request whose head is complete, where it goes the short way."""
        if (
            self.direct is None
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
            or (self.cycle is not None and not self.cycle.response_complete)
            or self.flow.write_paused  # a peer that takes no answers waits for them on the general way
        ):
            return None
        return self.direct.exchange(self, self.url, self.headers)

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if type(cycle) is not Exchange:
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.body = cycle.body + body if cycle.body else body

    def on_message_complete(self) -> None:
        self.after_another = True
        cycle = self.cycle
        if type(cycle) is not Exchange:
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.more_body = False
            task = self.loop.create_task(cycle.run())
            self.tasks.add(task)  # as uvicorn has its own: a stop waits for them
            task.add_done_callback(self.tasks.discard)

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        """Write an exchange's answer, and go on with what came behind its request."""
        exchange.response_started = exchange.response_complete = True
        if exchange.disconnected or self.transport.is_closing():
            return
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *fields_of(reply, exchange.trace)):
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if exchange.keep_alive else b"connection: close\r\n\r\n")
        parts.append(reply.body)
        self.transport.write(b"".join(parts))
        self.since = self.loop.time()
        if not exchange.keep_alive:
            self.transport.close()
        if self.flow.read_paused:  # as a request came behind this one
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read, and heads that are too large."""
        size = len(getattr(self, "url", b"")) + sum(len(n) + len(v) for n, v in self.headers or ())
        if size > self.settings.head_bytes_max:
            self.refuse(self._head_too_large())
        else:
            self.refuse(InputError("HR-1007", "the request is not HTTP", detail="expected HTTP/1.1"))

    def refuse(self, error: HeadraceError) -> None:
        """Answer and close. After an answer was begun, only close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            problem = problems.problem_of(error)
            body = problems.encode(problem)
            more = b"retry-after: 1\r\n" if problem.status == 503 else b""
            self.transport.write(
                STATUS_LINE[problem.status]
                + b"content-type: "
                + problems.CONTENT_TYPE
                + b"\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
                + more
                + b"\r\n"
                + body
            )
        self.transport.close()

    def look(self, now: float) -> None:
        """Close it where its peer is too slow."""
        age, limits, cycle = now - self.since, self.settings, self.cycle
        if self.in_head:
            if age > limits.head_seconds_max:
                self.refuse(InputError("HR-1011", "the request's head took too long"))
        elif cycle is None:
            if age > limits.idle_seconds_max:
                self.transport.close()
        elif cycle.more_body:
            if age > limits.body_seconds_max and cycle.response_complete:
                self.transport.close()  # refused already: it goes on sending all the same
            elif age > limits.body_seconds_max:
                self.refuse(InputError("HR-1011", "the request's body took too long"))
        elif not cycle.response_complete:
            if age > limits.answer_seconds_max:
                self.transport.abort()
        elif type(cycle) is Exchange and age > limits.idle_seconds_max:
            self.transport.close()  # after others, uvicorn's timer does it

    def _head_too_large(self) -> InputError:
        return InputError(
            "HR-1012",
            "the request's head is too large",
            detail=f"expected at most {self.settings.head_bytes_max} bytes",
        )


def look_over(connections: Iterable[object], now: float) -> None:
    """Every connection once."""
    for each in list(connections):
        if isinstance(each, Connection):
            each.look(now)
