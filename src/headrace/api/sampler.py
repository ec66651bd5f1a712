"""The sampler beside a server: a process that recomputes a share of the decisions while they are made.

The one idea: what recomputes has an interpreter of its own. A replay in the server's would hold its lock for
milliseconds at a time, while lanes wait; so it is `headrace decisions sample`, which stands back for the server in
every way that the system knows, and one thread here counts what it says. Touches: one process, one thread, the metrics.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from headrace.api.metrics import Metrics
from headrace.runtime.sampling import Look

RESTART_SECONDS = 30.0  # until one that ended is started again
END_SECONDS_MAX = 5.0  # one that is asked to end does so at once; then it is killed

_logger = logging.getLogger(__name__)


class _Line(msgspec.Struct):
    """What the process says: one of them."""

    look: Look | None = None
    behind: dict[str, int] | None = None


_decode = msgspec.json.Decoder(_Line).decode


class SamplerProcess:
    """Runs until `close`; one that ends by itself is started again."""

    def __init__(self, folder: Path, *, share: float, every: float, metrics: Metrics) -> None:
        """folder: the project's. share: of the decisions, above 0. every: seconds between two looks, at least."""
        self._command = [
            *(sys.executable, "-P", "-c", "from headrace.cli.main import main; main()"),
            *("--project", str(folder), "decisions", "sample", "--with-parent"),
            *("--share", repr(share), "--every", repr(every)),
        ]
        self._metrics = metrics
        self._closing = threading.Event()
        self._held = ""
        self._lock = threading.Lock()  # between starting one and closing
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="headrace-sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when the process is gone."""
        self._closing.set()
        with self._lock:
            if self._process is not None:
                self._process.terminate()
        self._thread.join(END_SECONDS_MAX)
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                status = self._follow()
            except Exception:
                _logger.exception("the sampler cannot be run")
            else:
                if not self._closing.is_set():
                    _logger.error("the sampler ended with status %s, it is started again", status)
            self._closing.wait(RESTART_SECONDS)

    def _follow(self) -> int:
        """One process, from its start to its end; its status."""
        with self._lock:
            if self._closing.is_set():
                return 0
            process = self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        said_by = process.stdout
        assert said_by is not None, "it was asked for"
        try:
            for line in said_by:
                said = _decode(line)
                if said.look is not None:
                    self._looked(said.look)
                if said.behind is not None:
                    self._metrics.sampler_behind(said.behind)
        finally:
            if process.poll() is None and not self._closing.is_set():
                process.kill()  # it said what cannot be read
            status = process.wait()
            said_by.close()
            with self._lock:
                self._process = None
        return status

    def _looked(self, look: Look) -> None:
        self._metrics.sampled(look)
        for each in look.sampled:
            for one in each.differences:
                _logger.error(
                    "decision %s does not recompute: %s",
                    one.decision_id,
                    one.what,
                    extra={
                        "decision": each.decision,
                        "decision_id": one.decision_id,
                        "what": one.what,
                        "recorded": one.recorded,
                        "recomputed": one.recomputed,
                    },
                )
        if look.held and look.held != self._held:
            _logger.warning("the sampler cannot load what is in force: %s", look.held)
        self._held = look.held
