"""The lender's server: `headrace serve` in a process of its own, asked over HTTP. Touches: a process, a socket, a file.

The one idea: who starts the process ends it, by its own id, whatever happens in between; and what goes wrong says what
the server said last.
"""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from live import Answer, Append, Ask, Events, Request
from steps import DECISION

from headrace.api.tokens import Scope, TokenStore
from headrace.core.times import Duration, Instant
from headrace.runtime.project import Project

HOST = "127.0.0.1"
READY_SECONDS_MAX = 180.0  # on a machine that has never run it, the kernel is compiled first
STOP_SECONDS_MAX = 30.0  # longer than the server itself allows what it has accepted
CALL_SECONDS_MAX = 60.0
TOKEN_LIFE = Duration.parse("1d")
LOG_LINES = 15  # of the server's log, shown where it failed

ARROW, JSON = "application/vnd.apache.arrow.stream", "application/json"
# The run wants each decision made, on a machine however busy: by default the budget is the decision's own, and who
# waits longer is told the fallback.
PATIENT = {"Headrace-Budget-Ms": "60000"}


class ServerError(Exception):
    """The server did not start, did not end in order, or refused what it should take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that is ready. log: what it writes on stderr."""

    port: int
    pid: int
    token: str
    log: Path

    def failed(self, what: str) -> ServerError:
        return _failed(what, self.log)


def make_token(project: Project) -> str:
    """For the checkout's till: it may ask for decisions and append events, and nothing else, for a day."""
    now = project.now()
    scopes = (Scope.DECIDE, Scope.APPEND)
    _, text = TokenStore(project.state_folder).create("till", scopes, now=now, expires=Instant(now + TOKEN_LIFE.micros))
    return text


@contextmanager
def serving(folder: Path, *, token: str, log: Path) -> Iterator[Server]:
    """A server of the project in a folder, on a free port of this machine, ready; ended when the block is left.

    Raises: ServerError where it does not get ready in time, or does not end in order after a block that succeeded.
    """
    command = [sys.executable, "-c", "from headrace.cli.main import main; main()", "--project", str(folder)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "serve", "--host", HOST, "--port", "0", "--decision", DECISION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        port = _ready(process, log, time.monotonic() + READY_SECONDS_MAX)
        yield Server(port=port, pid=process.pid, token=token, log=log)
    except BaseException:
        _end(process)
        raise
    status = _end(process)
    if status != 0:
        raise _failed(f"the server ended with status {status}", log)


def _ready(process: subprocess.Popen[str], log: Path, deadline: float) -> int:
    """The port, once it says that it is ready."""
    assert process.stdout is not None, "its stdout is a pipe"
    said, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
    address = process.stdout.readline().strip() if said else ""
    port = address.rpartition(":")[2]
    while port.isdecimal() and process.poll() is None and time.monotonic() < deadline:
        if _says_ready(int(port)):
            return int(port)
        time.sleep(0.05)
    if process.poll() is not None or (said and not port.isdecimal()):
        raise _failed("the server ended before it was ready", log)
    raise _failed(f"the server was not ready within {READY_SECONDS_MAX:.0f} s", log)


def _says_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=CALL_SECONDS_MAX)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[str]) -> int:
    """Its exit status. It is asked to stop; what does not, or is not waited for, is killed."""
    try:
        process.terminate()
        return process.wait(timeout=STOP_SECONDS_MAX)
    except BaseException as error:
        process.kill()
        status = process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return status
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _failed(what: str, log: Path) -> ServerError:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    tail = "\n".join(f"  {line}" for line in lines[-LOG_LINES:]) or "  nothing"
    return ServerError(f"{what}\nlast in its log, {log}:\n{tail}")


@contextmanager
def over_http(server: Server) -> Iterator[tuple[Append, Ask]]:
    """`append` and `ask` of live.py by one connection, which is kept open."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=CALL_SECONDS_MAX)

    def call(path: str, body: bytes, headers: dict[str, str]) -> dict[str, object]:
        try:
            connection.request("POST", path, body, {"Authorization": f"Bearer {server.token}", **headers})
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise server.failed(f"POST {path}: no answer ({type(error).__name__})") from error
        if response.status != 200:
            raise server.failed(f"POST {path}: {response.status} {said.decode(errors='replace')[:500]}")
        found: dict[str, object] = json.loads(said)
        return found

    def append(events: Events) -> None:
        said = call(f"/v1/topics/{events.topic}/events", _stream(events.rows), {"Content-Type": ARROW})
        refused = {verdict: count for verdict, count in _counts(said).items() if verdict not in ("accepted", "late")}
        if refused:
            raise server.failed(f"topic {events.topic}: of {events.rows.num_rows} events {refused}")

    def ask(request: Request) -> Answer:
        body = json.dumps(request).encode()
        begun = time.perf_counter()
        said = call(f"/v1/decisions/{DECISION}", body, {"Content-Type": JSON, **PATIENT})
        taken = time.perf_counter() - begun
        if said["decision_id"] is None:
            raise server.failed(f"application {request['application_id']}: {said['reasons']}, and no decision")
        return Answer(
            decision_id=str(said["decision_id"]),
            outcome=str(said["outcome"]),
            reasons=_texts(said["reasons"]),
            taken=taken,
        )

    try:
        yield append, ask
    finally:
        connection.close()


def _stream(rows: pa.RecordBatch) -> bytes:
    """An Arrow stream: decimals and instants as they are."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue().to_pybytes())


def _counts(said: dict[str, object]) -> dict[str, int]:
    verdicts = said["verdicts"]
    assert isinstance(verdicts, dict), "the answer counts verdicts"
    return verdicts


def _texts(said: object) -> tuple[str, ...]:
    assert isinstance(said, list), "reasons are a list"
    return tuple(str(each) for each in said)
