"""Processes that are killed and stopped at random, brokers too, and what was done to whom and when. Touches processes,
the clock, one file.

The one idea: three hands act beside each other, one kills, one stops, one has the brokers; they share a book of acts,
and a broker is touched only when all replicas are in sync. A fourth starts what ended by itself, as whatever watches
over processes elsewhere does.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.testing.kafka import KafkaCluster

WATCH_S = 1.0  # from the end of what ended by itself to its next start
QUIET_S = 12.0  # owners are left alone so long before a broker that is stopped while they are


class Book:
    """Acts as lines of a file, with their instants."""

    def __init__(self, file: Path) -> None:
        self._out = file.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self.acts: list[dict[str, object]] = []

    def note(self, act: str, who: str, **more: object) -> None:
        line = {"at": time.time(), "act": act, "who": who, **more}
        with self._lock:
            self.acts.append(line)
            self._out.write(json.dumps(line) + "\n")
            self._out.flush()

    def count(self, act: str, kind: str) -> int:
        with self._lock:
            return sum(line["act"] == act and str(line["who"]).startswith(kind) for line in self.acts)

    def of(self, act: str, kind: str) -> list[dict[str, object]]:
        with self._lock:
            return [line for line in self.acts if line["act"] == act and str(line["who"]).startswith(kind)]


class Prey:
    """One process, started anew on what it left. kind: what it does. port: that it serves at, or 0."""

    def __init__(self, kind: str, number: int, command: Sequence[str], *, log: Path, cwd: Path, port: int = 0) -> None:
        self.kind, self.port = kind, port
        self.name = f"{kind}-{number}"
        self.log = log
        self.paused = False
        self.busy = threading.Lock()  # whoever does something to it
        self._command, self._cwd = list(command), cwd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=log, cwd=self._cwd)

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    @property
    def status(self) -> int | None:
        """How it ended by itself; None while it runs, and when it was killed."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.paused = False

    def pause(self) -> None:
        self.paused = True
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.paused:
            os.kill(self.pid, signal.SIGCONT)
            self.paused = False

    def ask_to_end(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int | None:
        """How it ended; None where it did not in time."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds. kill_every: from one kill to the next, within a quarter of it. pause_gap: between two pauses. timeout: a
    session's; what is stopped is so for 1.5 to 3 of them. broker_every: between the end of one act on brokers and the
    next. broker_acts: "kill", "pause" and "pause-quiet", in turn; quiet: with no act on owners shortly before and
    meanwhile."""

    kill_every: float
    pause_gap: float
    timeout: float
    broker_every: float
    broker_acts: tuple[str, ...]


class Hunt:
    """`begin`, wait, `end`: then all acts are over, whatever was stopped goes on, whatever was killed runs again."""

    def __init__(
        self, prey: Mapping[str, Sequence[Prey]], turns: Sequence[str], cluster: KafkaCluster, pace: Pace, book: Book
    ) -> None:
        """prey: by kind. turns: the kinds that are acted on, in turn; one that there is none of is passed over."""
        self._prey = prey
        self._turns = [kind for kind in turns if prey.get(kind)]
        self._cluster = cluster
        self._pace = pace
        self._book = book
        self._over = threading.Event()
        self._quiet = threading.Event()
        self._failed: list[BaseException] = []
        hands = (self._kill, self._pause, self._brokers, self._watch)
        self._threads = [threading.Thread(target=self._guarded, args=(hand,), daemon=True) for hand in hands]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Raises: what a hand met with, as a cluster that did not come back."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]

    def _guarded(self, hand: object) -> None:
        assert callable(hand)
        try:
            hand()
        except (HeadraceError, OSError, subprocess.SubprocessError) as error:
            self._book.note("failed", type(error).__name__, error=str(error))
            self._failed.append(error)

    def _kill(self) -> None:
        turn = 0
        while not self._over.wait(random.uniform(0.75, 1.25) * self._pace.kill_every):
            prey = self._choose(turn)
            turn += 1
            if prey is None:
                continue
            with prey.busy:
                self._book.note("kill", prey.name, port=prey.port, pid=prey.pid, ended=prey.status)
                prey.kill()
                self._over.wait(random.uniform(0.5, 3.0))
                prey.start()
                self._book.note("start", prey.name, pid=prey.pid)

    def _pause(self) -> None:
        turn = 1
        while not self._over.wait(random.uniform(0.5, 1.5) * self._pace.pause_gap):
            prey = self._choose(turn)
            turn += 1
            if prey is None:
                continue
            with prey.busy:
                seconds = random.uniform(1.5, 3.0) * self._pace.timeout
                self._book.note("pause", prey.name, port=prey.port, pid=prey.pid, seconds=seconds)
                prey.pause()
                try:
                    self._over.wait(seconds)
                finally:
                    prey.resume()
                self._book.note("resume", prey.name)

    def _watch(self) -> None:
        while not self._over.wait(WATCH_S):
            for prey in [one for of in self._prey.values() for one in of]:
                if prey.status is None or not prey.busy.acquire(blocking=False):
                    continue
                try:
                    if prey.status is not None:
                        self._book.note("ended", prey.name, status=prey.status)
                        prey.start()
                finally:
                    prey.busy.release()

    def _choose(self, turn: int) -> Prey | None:
        """One of the kind whose turn it is that nobody is at; another kind while owners are to be left alone."""
        kinds = [self._turns[(turn + step) % len(self._turns)] for step in range(len(self._turns))]
        for kind in kinds:
            free = [one for one in self._prey[kind] if not one.busy.locked() and one.status is None]
            if free and not (kind == "owner" and self._quiet.is_set()):
                return random.choice(free)
        return None

    def _brokers(self) -> None:
        for act in self._pace.broker_acts:
            if self._over.wait(random.uniform(0.75, 1.25) * self._pace.broker_every):
                return
            if act == "pause-quiet":
                self._quiet.set()
                self._over.wait(QUIET_S)
            try:
                self._cluster.wait_in_sync()
                if not self._over.is_set():
                    self._hurt(random.choice(self._cluster.nodes), act)
            finally:
                self._quiet.clear()

    def _hurt(self, node: int, act: str) -> None:
        name, began = f"broker-{node}", time.time()
        if act == "kill":
            self._book.note("kill", name)
            self._cluster.kill(node)
            self._over.wait(random.uniform(1.0, 6.0))
            self._cluster.start(node)
            self._book.note("start", name)
        else:
            seconds = random.uniform(1.5, 3.0) * self._pace.timeout
            self._book.note("pause", name, seconds=seconds, quiet=act == "pause-quiet")
            self._cluster.pause(node)
            try:
                self._over.wait(seconds)
            finally:
                self._cluster.resume(node)
            self._book.note("resume", name, began=began, quiet=act == "pause-quiet")
        self._cluster.wait_ready()
        self._cluster.wait_in_sync()
        self._book.note("in sync", name, after=time.time() - began)
