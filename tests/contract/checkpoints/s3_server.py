"""A server of S3 for tests: moto's, in a process of its own, ended with the fixture."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BUCKET = "headrace-tests"
START_S = 60  # importing it takes some 3 s on a machine that does nothing else
# Nobody's: whatever this machine's environment says is left out of the tests.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass
class S3Server:
    """endpoint: as in an address. process: to be killed by tests that want to."""

    endpoint: str
    process: subprocess.Popen[bytes]

    def make_bucket(self, name: str = BUCKET) -> None:
        self.ask("PUT", name)

    def refuse_everybody(self, yes: bool = True) -> None:
        """From here on nobody's credentials are right; or everybody's are again."""
        self.ask("POST", "moto-api/reset-auth", b"0" if yes else b"1000000000")

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        plain = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.endpoint}/{path}", data=body, method=method, headers=plain)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: bytes = answer.read()
            return found


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = S3Server(f"http://127.0.0.1:{port}", process)
        try:
            _wait(server)
            server.make_bucket()
            yield server
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(server: S3Server) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.ask("GET", "moto-api/data.json")
            return
        except (urllib.error.URLError, ConnectionError) as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("the S3 server did not start") from error
            time.sleep(0.1)
