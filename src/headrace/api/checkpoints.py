"""Checkpoints while a server serves: now and then a process beside it brings the newest ones to the log's end.

The one idea: a state is copied whole, which takes 60 ms for a million events, and no request may wait for it; so what
is written is another process's state, which follows the same log from the last checkpoint and ends with its writing.
It is `headrace checkpoint`. Of several servers that share a place one writes: whoever finds a newer checkpoint than it
knew has nothing to do, and nor has who shares the folder with one that writes now. Touches: one process, one thread,
the metrics, the place of checkpoints, a lock in the project's folder.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from headrace.api.metrics import Metrics
from headrace.core.errors import HeadraceError
from headrace.core.points import Partition
from headrace.locked import locked
from headrace.runtime.project import Project

# How far the process stands back: it needs some seconds of a processor, and on a machine that is always busy it would
# never be done. One that failed, or took longer than from one to the next, is followed by one that does not stand back.
NICE, NICE_LATE = 5, 0
LOCK = "checkpoints.lock"
END_SECONDS_MAX = 5.0  # one that is asked to end does so at once; then it is killed

_logger = logging.getLogger(__name__)

Views = tuple[str, ...]


class CheckpointProcess:
    """From time to time, until `close`."""

    def __init__(self, project: Callable[[], Project], *, every: float, metrics: Metrics) -> None:
        """project: the one that serves now. every: seconds between two, above 0."""
        self._project = project
        self._every = every
        self._nice = NICE
        self._metrics = metrics
        self._known = self._look({})  # numbers of the newest checkpoints that this process has seen
        self._ends: Mapping[Partition, int] = {}  # of the log, when one was last written
        self._closing = threading.Event()
        self._lock = threading.Lock()  # between starting one and closing
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="headrace-checkpoints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when the process is gone. What it had begun to write is let go by a later one."""
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
        while not self._closing.wait(self._every):
            try:
                self._turn()
            except Exception:
                _logger.exception("checkpoints cannot be written, tried again later")
                self._metrics.checkpointed(well=False)

    def _turn(self) -> None:
        """Write, unless another did or does, or nothing came."""
        with locked(self._project().state_folder / LOCK, wait=False) as mine:
            if mine:
                self._turn_alone()

    def _turn_alone(self) -> None:
        found = self._look(self._known)
        others = bool(found) and all(number > self._known.get(views, 0) for views, number in found.items())
        topics = self._project().log.topics(fresh=False)
        ends = {held.partition: held.end for state in topics for held in state.partitions}
        if not others and found and ends != self._ends:
            began = time.monotonic()
            status = self._write()
            late = bool(status) or time.monotonic() - began > self._every
            self._nice = NICE_LATE if late else NICE
            if self._closing.is_set():
                return
            if status:
                _logger.error("checkpoints were not all written, tried again later", extra={"status": status})
            else:
                self._ends = ends
            self._metrics.checkpointed(well=not status)
            found = self._look(found)
        self._known = found

    def _look(self, known: Mapping[Views, int]) -> dict[Views, int]:
        """The numbers of the newest checkpoints; as known, where the place cannot be asked: the process will say so."""
        project, found = self._project(), {}
        for views in project.definitions.views_served:
            try:
                found[views] = project.checkpoint(views, write=False)
            except HeadraceError:
                found[views] = known.get(views, 0)
        return found

    def _write(self) -> int:
        """The process's status."""
        command = [
            *(sys.executable, "-P", "-c", "from headrace.cli.main import main; main()"),
            *("--project", str(self._project().folder), "checkpoint", "--background", "--nice", str(self._nice)),
        ]
        with self._lock:
            if self._closing.is_set():
                return 0
            process = self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        status = process.wait()
        with self._lock:
            self._process = None
        return status
