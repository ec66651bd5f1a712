"""`headrace serve` of a folder in a process of its own, for benchmarks: started till it is ready, killed, or stopped in
order."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HEADRACE = (sys.executable, "-c", "import sys; from headrace.cli.main import main; sys.exit(main())")


class Server:
    """`headrace serve` of a folder, in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it is ready."""
        command = [*HEADRACE, "--project", str(self.folder), "serve", "--port", str(self.port)]
        self._process = subprocess.Popen([*command, *self.options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with status {self._process.returncode}")
            with contextlib.suppress(OSError):
                if get(self.port, "/readyz")[0] == 200:
                    return
            time.sleep(0.02)
        raise RuntimeError("the server was not ready in 120 s")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """In order; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=60)
        self._process = None
        return status


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
