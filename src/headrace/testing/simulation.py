"""One life of a log from one seed: appends, upkeep, faults, power cuts, reopenings, and what must be true after each.

What is checked: every acknowledged append is there once, whole, at its offsets, for ever; an append that was not
acknowledged is there wholly or not at all, and once seen to be there or not, stays so; a group's cut moves exactly with
the append that it came with; an append refused for want of room is never there. Touches: a folder of its own.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.core.errors import HeadraceError, LogFullError
from headrace.core.points import Cut, Partition
from headrace.core.schema import int64
from headrace.log.define import Topic
from headrace.log.port import Append
from headrace.log.sqlite import SqliteLog
from headrace.testing.clocks import ManualClock
from headrace.testing.faults import Fault, FaultyDisk

STEPS, FAULTS_MIN = 200, 3
GROUP = "reader"
EVENTS = Topic("events", key="number", id="number", partitions=2, fields={"number": int64, "attempt": int64})
NOTES = Topic("notes", key="number", fields={"number": int64, "attempt": int64})
# A cut tells most; the others show that an error leaves the log usable and loses nothing.
_CHOICES = (
    *[Fault.CUT] * 6,
    *[Fault.SYNC] * 3,
    *[Fault.FULL] * 2,
    Fault.WRITE,
    Fault.TORN,
    Fault.READ,
    Fault.OPEN,
    Fault.SIZE,
)


@dataclass(slots=True)
class Attempt:
    """One call of append. rows: by partition, the numbers sent. offsets: by partition, where they went, once known.

    known: True is there for certain, False is not there for certain, None is not known yet."""

    number: int
    rows: dict[Partition, list[int]]
    moves_group: bool
    offsets: dict[Partition, int] = field(default_factory=dict)
    known: bool | None = None


Held = dict[int, list[tuple[int, int]]]  # of one partition: by attempt, (offset, number) in order


@dataclass(slots=True)
class Outcome:
    """What a seed did, and what it found. All of lost, duplicated, half_batches and others must be 0."""

    seed: int
    steps: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    acknowledged: int = 0
    unknown_there: int = 0
    unknown_absent: int = 0
    lost: int = 0
    duplicated: int = 0
    half_batches: int = 0
    others: list[str] = field(default_factory=list)

    @property
    def violations(self) -> int:
        return self.lost + self.duplicated + self.half_batches + len(self.others)


def simulate(seed: int) -> Outcome:
    """Run one seed: at least STEPS steps and FAULTS_MIN faults that fired. Cost: some 40 ms."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="headrace-sim-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        return Life(seed, folder, FaultyDisk(f"headrace-faults-{os.getpid()}-{seed}", random.Random(seed))).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _BeyondRepairError(Exception):
    """The log cannot even be opened, though nothing is in its way any more."""


class Life:
    """A log, its disk, and what was tried; `run` lives it from the seed. folder: its own, new."""

    def __init__(self, seed: int, folder: Path, disk: FaultyDisk) -> None:
        self.random = disk.random
        self.outcome = Outcome(seed)
        self.folder = folder
        self.clock = ManualClock()
        self.disk = disk
        self.log: SqliteLog | None = None
        self.attempts: list[Attempt] = []
        self.number = 0
        self.partitions: list[Partition] = []
        self.imports = 0
        self.importing: Partition | None = None

    def run(self) -> Outcome:
        """To the end of the steps, a last power cut, and the last check."""
        try:
            while self.outcome.steps < STEPS or sum(self.disk.fired.values()) < FAULTS_MIN:
                if self.outcome.steps > 10 * STEPS:
                    self.outcome.others.append("faults did not fire")
                    break
                self.step()
            self.disk.disarm()
            self.cut_power()
            self.check()
            self.log_open().close()
        except _BeyondRepairError as error:
            self.outcome.others.append(f"step {self.outcome.steps}: {error}")
        finally:
            self.disk.disarm()
            if self.log is not None:
                self.log.close()
            self.disk.unregister()
        self.outcome.faults = self.disk.fired
        return self.outcome

    def step(self) -> None:
        self.outcome.steps += 1
        draw = self.random.random()
        if self.random.random() < 0.05:
            fault = self.random.choice(_CHOICES)
            times = self.random.randrange(1, 6) if fault is Fault.FULL else 1
            self.disk.arm(fault, after=self.random.randrange(12), times=times)
        if draw < 0.82:
            self.append()
        elif draw < 0.86:
            self.upkeep()
        elif draw < 0.90:
            self.import_rows()
        elif draw < 0.93:
            self.clock.advance("1s")
        elif draw < 0.94:
            self.check()
        else:
            with self.faults_expected():
                for partition in self.partitions:
                    for _ in self.log_open().read(partition, 0, rows_max=50):
                        break
        if self.disk.dead:
            self.cut_power()
            self.check()

    @contextmanager
    def faults_expected(self) -> Iterator[None]:
        """What the log raises within is an error of ours, or a fault shows through."""
        try:
            yield
        except HeadraceError as error:
            if not (self.disk.dead or self.disk.fired):
                self.outcome.others.append(f"step {self.outcome.steps}: {error}")

    def log_open(self) -> SqliteLog:
        """The log, opened again where it is not; the opening meets faults too."""
        if self.log is None:
            log = SqliteLog(self.folder, clock=self.clock, vfs=self.disk.name, background=False, room=False)
            self.log = log
            try:
                events, notes = log.declare(EVENTS), log.declare(NOTES)
            except HeadraceError:
                self.log = None
                log.close()
                raise
            live = [each.partition for each in (*events.partitions, *notes.partitions) if each.partition.index < 3]
            self.partitions = live + [p for p in self.partitions if p not in live]
        return self.log

    def cut_power(self) -> None:
        """What was being done ends; what the disk kept is what there is."""
        self.disk.dead = True
        if self.log is not None:
            self.log.close()
            self.log = None
        self.disk.power_on()

    # --- doing ---

    def numbers(self, count: int) -> list[int]:
        self.number += count
        return list(range(self.number - count, self.number))

    def append(self) -> None:
        with self.faults_expected():
            log = self.log_open()
            live = self.partitions[:3]
            chosen = self.random.sample(live, self.random.choice((1, 1, 1, 2, 3)))
            attempt = Attempt(len(self.attempts), {}, self.random.random() < 0.2)
            appends = []
            for partition in chosen:
                arrow = self.random.random() < 0.06
                numbers = self.numbers(self.random.randrange(1, 60) if arrow else self.random.choice((1, 1, 1, 3)))
                attempt.rows[partition] = numbers
                appends.append(Append(partition=partition, rows=_rows(numbers, attempt.number, arrow=arrow)))
            cut = Cut.of({live[0]: attempt.number}) if attempt.moves_group else None
            self.attempt(log, attempt, appends, cut)

    def attempt(self, log: SqliteLog, attempt: Attempt, appends: list[Append], cut: Cut | None) -> None:
        self.attempts.append(attempt)
        try:
            done = log.append(appends, group=None if cut is None else GROUP, cut=cut)
        except LogFullError:
            if not self.disk.dead:
                attempt.known = False
            raise
        if self.disk.dead:
            return  # the machine was off before it could answer
        attempt.known = True
        attempt.offsets = {each.partition: each.offset for each in done}
        self.outcome.acknowledged += 1

    def import_rows(self) -> None:
        with self.faults_expected():
            log = self.log_open()
            name = f"import-{self.imports}"
            seal = self.random.random() < 0.3
            (state,) = log.import_partitions(EVENTS.name, name, seal=seal)
            if self.disk.dead:
                return
            if state.sealed:
                self.partitions.append(state.partition)
                self.imports += 1
                return
            numbers = self.numbers(self.random.randrange(1, 40))
            attempt = Attempt(len(self.attempts), {state.partition: numbers}, False)
            stamps = np.full(len(numbers), self.clock.now() - 1_000_000, dtype=np.int64)
            rows = _rows(numbers, attempt.number, arrow=True)
            self.attempt(log, attempt, [Append(partition=state.partition, rows=rows, available_at=stamps)], None)

    def upkeep(self) -> None:
        with self.faults_expected():
            if self.random.random() < 0.4:
                self.log_open().seal()
            else:
                self.log_open().maintain()

    # --- checking ---

    def check(self) -> None:
        """Everything that the log holds against everything that was tried. Faults are held back meanwhile."""
        armed, self.disk._armed = self.disk._armed, []
        try:
            log = self.log_open()
            for topic in log.topics():  # imports that a crash sealed, or that were sealed without an answer
                for each in topic.partitions:
                    if each.partition not in self.partitions:
                        self.partitions.append(each.partition)
            held = {partition: self.read(log, partition) for partition in self.partitions}
            for attempt in self.attempts:
                self.check_attempt(attempt, held)
            self.check_group(log)
        except HeadraceError as error:
            raise _BeyondRepairError(str(error)) from error
        finally:
            self.disk._armed = armed

    def read(self, log: SqliteLog, partition: Partition) -> Held:
        """What each attempt left there. An error here is a loss: no fault is armed."""
        held: Held = {}
        offset = 0
        try:
            for batch in log.read(partition, 0, rows_max=1000):
                if batch.column(0)[0].as_py() != offset:
                    self.outcome.others.append(f"{partition}: offset {batch.column(0)[0]} read at {offset}")
                numbers, attempts = batch.column("number").to_pylist(), batch.column("attempt").to_pylist()
                for number, attempt in zip(numbers, attempts, strict=True):
                    held.setdefault(attempt, []).append((offset, number))
                    offset += 1
        except HeadraceError as error:
            self.outcome.others.append(f"{partition}: {error}")
        strangers = [a for a in held if a >= len(self.attempts) or partition not in self.attempts[a].rows]
        if strangers:
            self.outcome.others.append(f"{partition} holds attempts {strangers}, which were not sent there")
        return held

    def check_attempt(self, attempt: Attempt, held: dict[Partition, Held]) -> None:
        seen = []
        for partition, numbers in attempt.rows.items():
            if partition not in held:
                return  # an import that is not sealed yet
            rows = held[partition].get(attempt.number, [])
            at = attempt.offsets.get(partition, rows[0][0] if rows else 0)
            there = rows == [(at + place, number) for place, number in enumerate(numbers)]
            if len(rows) > len(numbers):
                self.outcome.duplicated += 1
            elif rows and not there:
                self.outcome.half_batches += 1
            if there:
                attempt.offsets[partition] = at
            seen.append(there)
        if any(seen) != all(seen):
            self.outcome.half_batches += 1
        elif attempt.known is None:
            attempt.known = all(seen)
            self.outcome.unknown_there += attempt.known
            self.outcome.unknown_absent += not attempt.known
        elif attempt.known and not all(seen):
            self.outcome.lost += 1
        elif not attempt.known and any(seen):
            self.outcome.others.append(f"attempt {attempt.number} was not there, and is now")

    def check_group(self, log: SqliteLog) -> None:
        moved = [attempt.number for attempt in self.attempts if attempt.moves_group and attempt.known]
        wanted = Cut.of({self.partitions[0]: max(moved)}) if moved else Cut()
        if log.group(GROUP) != wanted:
            self.outcome.others.append(f"group: expected {wanted}, seen {log.group(GROUP)}")


def _rows(numbers: list[int], attempt: int, *, arrow: bool) -> pa.RecordBatch | list[tuple[int, int]]:
    if not arrow:
        return [(number, attempt) for number in numbers]
    columns = [pa.array(numbers, pa.int64()), pa.array([attempt] * len(numbers), pa.int64())]
    return pa.RecordBatch.from_arrays(columns, schema=EVENTS.schema.arrow)
