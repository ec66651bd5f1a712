"""`headrace serve` in a process of its own, and small clients of it. Every process ends with its test."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

DECIDE = "/v1/decisions/checkout"
PATIENT = {"Headrace-Budget-Ms": "60000"}  # on a busy machine the fallback would be an answer too


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self, status: int, code: str) -> Any:
        assert self.headers["content-type"] == "application/problem+json", self
        assert (self.status, self.json["code"]) == (status, code), self
        return self.json


class Serving:
    """A server of a folder; `with` waits until it listens, and ends it whatever happened."""

    def __init__(self, folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        # A sampler is a process more, some two seconds of it at each start: where a test is about it, it says so.
        self._options = options if "--sample" in options else ("--sample", "0", *options)
        self._environment = {**os.environ, **(environment or {})}
        self._log = folder.parent / f"{folder.name}-server.log"
        self.port = 0

    def __enter__(self) -> Serving:
        command = [sys.executable, "-c", "from headrace.cli.main import main; main()", "--project", str(self.folder)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "serve", "--port", "0", *self._options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("http"), self.log()
        self.port = int(line.strip().rpartition(":")[2])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """In order; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def log(self) -> str:
        return self._log.read_text()

    def call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        with Client(self.port) as client:
            return client.call(method, path, body, headers)

    def decide(self, request: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Answer:
        return self.call("POST", DECIDE, request, {**PATIENT, **(headers or {})})


class Client:
    """One connection, kept alive."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """body: bytes, pieces of them, or what is sent as JSON. Raises: OSError and
        http.client.HTTPException where the server goes."""
        plain = body is None or isinstance(body, bytes | Iterator)
        raw: Any = body if plain else json.dumps(body).encode()
        given = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
        self._connection.request(method, path, raw, given)
        found = self._connection.getresponse()
        return Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())


def raw_answer(port: int, *parts: bytes, timeout: float = 30.0) -> bytes:
    """What a server answers to bytes as they stand, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while chunk := connection.recv(65_536):
            found += chunk
        return found


class Crowd:
    """Clients that send requests of their own one after another, until they are told to stop or the server goes."""

    def __init__(self, port: int, make: Any, *, clients: int, first: int = 0) -> None:
        self.answered: dict[str, Any] = {}
        self.statuses: set[int] = set()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(port, make, first + client * 1_000_000), daemon=True)
            for client in range(clients)
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=60)

    def _send(self, port: int, make: Any, number: int) -> None:
        try:
            with Client(port) as client:
                while not self._stop.is_set():
                    number += 1
                    request = make(number)
                    found = client.call("POST", DECIDE, request, PATIENT)
                    self.statuses.add(found.status)
                    if found.status == 200:
                        self.answered[request["order"]] = {"request": request, "answer": found.json}
        except (OSError, http.client.HTTPException):
            return
