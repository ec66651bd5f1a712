"""Runs tests against each mutant, in a forked process each, so that libraries are imported once.

The child finds the mutated tree instead of the file when it imports the module; nothing is written. A mutant is killed
when a test fails, the module does not import, or the time is up. Touches: processes, the clock.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.util
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

import pyarrow as pa
import pytest

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.targets import Target

ROOT = Path(__file__).resolve().parent.parent.parent
SEED = 20_180_401  # of samples; fixed, so that a run depends on the code alone
LIBRARIES = (
    "numpy", "pyarrow", "pyarrow.parquet", "pyarrow.compute", "pyarrow.csv", "hypothesis", "msgspec", "apsw",
    "zoneinfo", "fractions", "numba", "headrace.core.kernel.state",
)  # fmt: skip
# What a mutant may take, times what the tests take unmutated: an endless loop is a killed mutant, not a hung run. The
# processor's time is the strict one, as load does not change it; the wall's catches what waits for ever.
PROCESSOR_FACTOR = 2
WALL_FACTOR = 6
LEAST_S = 3.0
UNMUTATED_S = 600.0
MEMORY_MAX_BYTES = 4 << 30  # a loop that appends for ever ends here, long before the machine's memory does


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one mutant's tests: processor time and time on the wall, in seconds."""

    processor_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """mutants: how many there are; killed, survived: those that were run; stopped: the time was up before the rest."""

    target: Target
    mutants: int
    killed: tuple[Mutant, ...]
    survived: tuple[Mutant, ...]
    stopped: bool

    @property
    def share(self) -> float:
        run = len(self.killed) + len(self.survived)
        return len(self.killed) / run if run else 1.0

    @property
    def guards_survived(self) -> tuple[Mutant, ...]:
        return tuple(mutant for mutant in self.survived if mutant.kind == "guard")


class UnmutatedFailError(Exception):
    """The tests fail on the file as it is, so they can tell nothing of mutants."""


def run(
    target: Target,
    *,
    sample: int | None = None,
    seconds: float | None = None,
    jobs: int = 1,
    tell: Callable[[Mutant, bool], None] = lambda mutant, passed: None,
) -> Result:
    """All mutants, or a seeded sample of them, for at most so many seconds. tell: called with each as it ends, and
    whether the tests passed all the same. Raises: UnmutatedFailError."""
    for library in LIBRARIES:
        importlib.import_module(library)
    pa.array([0])  # where pandas is installed the first array of a process imports it: here once, and in no child again
    source = (ROOT / target.path).read_text()
    began, spent = time.monotonic(), _spent_s()
    if not _passes(_start(target, ast.parse(source), processor_s=UNMUTATED_S), timeout_s=UNMUTATED_S):
        raise UnmutatedFailError(f"{' '.join(target.tests)} does not pass on {target.path} as it is")
    limits = Limits(
        processor_s=LEAST_S + PROCESSOR_FACTOR * (_spent_s() - spent),
        wall_s=LEAST_S + WALL_FACTOR * (time.monotonic() - began),
    )
    every = list(mutants(source))
    chosen = every
    if sample is not None and sample < len(every):
        places = sorted(random.Random(SEED).sample(range(len(every)), sample))
        chosen = [every[place] for place in places]
    ends = None if seconds is None else began + seconds
    killed, survived = [], []
    for mutant, passed in _outcomes(target, chosen, limits, ends=ends, jobs=jobs):
        (survived if passed else killed).append(mutant)
        tell(mutant, passed)
    return Result(
        target=target,
        mutants=len(every),
        killed=tuple(killed),
        survived=tuple(survived),
        stopped=len(killed) + len(survived) < len(chosen),
    )


def _outcomes(
    target: Target, chosen: Sequence[Mutant], limits: Limits, *, ends: float | None, jobs: int
) -> Iterator[tuple[Mutant, bool]]:
    """Each mutant and whether the tests passed all the same, in order of completion; `jobs` of them at a time."""
    waiting = list(reversed(chosen))
    running: dict[int, tuple[Mutant, float]] = {}
    try:
        while waiting or running:
            now = time.monotonic()
            while waiting and len(running) < jobs and (ends is None or now < ends):
                mutant = waiting.pop()
                process = _start(target, mutant.tree, processor_s=limits.processor_s)
                running[process] = (mutant, now + limits.wall_s)
            if not running:
                return
            for process, (mutant, deadline) in list(running.items()):
                passed = _ended(process, late=time.monotonic() > deadline)
                if passed is not None:
                    del running[process]
                    yield mutant, passed
            time.sleep(0.005)
    finally:
        for process in running:
            _ended(process, late=True)


def _spent_s() -> float:
    """The processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _passes(process: int, *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while (passed := _ended(process, late=time.monotonic() > deadline)) is None:
        time.sleep(0.005)
    return passed


def _ended(process: int, *, late: bool) -> bool | None:
    """Whether the tests passed; None while they run. A late one is killed with all that it started."""
    if late:
        os.killpg(process, signal.SIGKILL)
    ended, status = os.waitpid(process, 0 if late else os.WNOHANG)
    return None if ended == 0 else os.waitstatus_to_exitcode(status) == 0


def _start(target: Target, tree: ast.Module, *, processor_s: float) -> int:
    """A process that runs the tests with the module made from the tree; its exit status is pytest's. The kernel ends it
    after so much processor time and refuses it more memory than is sane, so that no endless loop outlives this run."""
    sys.stdout.flush()
    process = os.fork()
    if process != 0:
        try:
            os.setpgid(process, process)
        except (PermissionError, ProcessLookupError):
            pass  # the child did it first, or has ended
        return process
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    status = 3
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (int(processor_s) + 1, int(processor_s) + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
        sys.meta_path.insert(0, _Mutated(_module_name(target.path), target.path, tree))
        status = pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--hypothesis-profile=mutation", *target.tests]
        )
    finally:
        os._exit(int(status))


def _module_name(path: str) -> str:
    return ".".join(Path(path.removeprefix("src/")).with_suffix("").parts)


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module, as the tree."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(ROOT / self._path))

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._tree, str(ROOT / self._path), "exec")

    def get_source(self, fullname: str) -> str:
        return (ROOT / self._path).read_text()
