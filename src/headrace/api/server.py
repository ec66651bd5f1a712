"""A project's server: uvicorn around the application, from listening to the last answer. Touches: sockets, signals.

The one idea of its end: first nobody new is let in, then what was accepted is answered, then lanes and desks end, then
the caller closes the project; so whatever was accepted is in the log and was said, and the next start is short.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import importlib.util
import ipaddress
import logging
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence

import uvicorn

from headrace.api import app as application
from headrace.api.connection import Connection, look_over
from headrace.api.direct import Direct
from headrace.api.metrics import Metrics
from headrace.api.service import Service
from headrace.api.settings import Settings
from headrace.api.successors import Successors, warm
from headrace.api.tokens import TokenStore
from headrace.clock import SystemClock
from headrace.core.errors import UsageError
from headrace.core.kernel.warm import warm_up
from headrace.core.times import Instant
from headrace.plugs import require
from headrace.runtime.following import Following
from headrace.runtime.project import Project

# The lanes compute while the loop has answers to write: with Python's 5 ms each would wait so long for the other.
SWITCH_SECONDS = 0.0005
BACKLOG = 1_024  # connections that the system holds until they are accepted

_logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn's, which looks over its connections once a second and says when it listens."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # ten ticks a second
            look_over(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_bind(host: str, *, tokens: TokenStore, tls: bool, insecure: bool, now: Instant) -> None:
    """Refuse to be reachable from elsewhere without tokens, or in plain text. Raises: UsageError HR-1013."""
    if is_loopback(host):
        return
    if not any(token.live(now) for token in tokens.list()):
        raise UsageError(
            "HR-1013",
            f"{host} can be reached from elsewhere, and there is no valid token",
            detail="without tokens everybody who reaches it may decide",
            hint="headrace tokens create --name NAME --scope decisions:decide",
        )
    if not tls and not insecure:
        raise UsageError(
            "HR-1013",
            f"{host} can be reached from elsewhere, and there is no TLS",
            detail="tokens and requests would cross the network in plain text",
            hint="--tls-cert and --tls-key, or --insecure-plaintext behind a proxy that ends TLS on the same machine",
        )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises: UsageError HR-1013 where it cannot be bound."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise UsageError("HR-1013", f"cannot listen on {host}, port {port}", detail=str(error)) from error
    return listener


def serve(
    project: Project,
    *,
    listener: socket.socket,
    tokens: TokenStore,
    tls: ssl.SSLContext | None = None,
    settings: Settings | None = None,
    access_log: bool = False,
    decisions: Sequence[str] | None = None,
    announce: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT; returns when every accepted request was answered and the project is closed.

    announce: called with the address once it listens. decisions: the names to serve; all by default. Raises: what
    loading a decision does (HR-0807 where its model was never trained), MissingExtraError HR-0990; the project is
    closed then too.
    """
    following = Following(project)
    try:
        _run(
            following,
            listener=listener,
            tokens=tokens,
            tls=tls,
            settings=settings or Settings(),
            access_log=access_log,
            decisions=decisions,
            announce=announce,
        )
    finally:
        following.project.close()


def _run(
    following: Following,
    *,
    listener: socket.socket,
    tokens: TokenStore,
    tls: ssl.SSLContext | None,
    settings: Settings,
    access_log: bool,
    decisions: Sequence[str] | None,
    announce: Callable[[str], None],
) -> None:
    require("httptools", wanted_by="headrace serve")
    faulthandler.enable(2)  # where native code ends the process, its log says what every thread did
    _raise_open_files(settings.connections_max + 256)
    warm_up()
    fast = importlib.util.find_spec("uvloop") is not None
    factory = require("uvloop", wanted_by="headrace serve").new_event_loop if fast else None
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(
            _serve(
                following,
                listener=listener,
                tokens=tokens,
                tls=tls,
                settings=settings,
                access_log=access_log,
                decisions=decisions,
                announce=announce,
            )
        )


async def _serve(
    following: Following,
    *,
    listener: socket.socket,
    tokens: TokenStore,
    tls: ssl.SSLContext | None,
    settings: Settings,
    access_log: bool,
    decisions: Sequence[str] | None,
    announce: Callable[[str], None],
) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"{'http' if tls is None else 'https'}://{shown}:{port}"
    if following.project.log.capabilities.shared:
        following.address = address
    service = Service(following.project, settings=settings, metrics=Metrics(), decisions=decisions, address=address)
    for lane in service.lanes.values():
        warm(lane.decides.version)
    app = application.Application(service, tokens, clock=SystemClock(), access_log=access_log)
    config = uvicorn.Config(
        app,
        http=Connection.with_settings(settings, None if access_log else Direct(app)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.idle_seconds_max,
        timeout_graceful_shutdown=settings.stop_seconds_max,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
    )
    server = Server(config, lambda: announce(address))
    # uvicorn raises the signal that ended it once more, after all is done: that one changes nothing.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: None)
    # What was loaded stays: the collector need not look at it in the middle of a request.
    gc.collect()
    gc.freeze()
    _logger.info("serving", extra={"address": address, "decisions": list(service.lanes)})
    successors = Successors(service, following, every=decisions is None)
    try:
        await server.serve(sockets=[listener])
    finally:
        await asyncio.to_thread(successors.close)
        await asyncio.to_thread(service.close)
        await service.disconnect()
    _logger.info("stopped", extra={"address": address})


def _raise_open_files(wanted: int) -> None:
    """A connection is an open file: take what the system allows, up to what is wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
