"""The log's contract over every log there is: the owner, a process beside it (here through the same socket), the
fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.log.port import Log
from headrace.log.run import open_log
from headrace.testing.clocks import ManualClock
from headrace.testing.contracts.log import CHECKS, LogUnderTest
from headrace.testing.fakes import MemoryLog


def memory(folder: Path, clock: ManualClock) -> LogUnderTest:
    log = MemoryLog(clock=clock)
    return LogUnderTest(log, clock, closing=[log])


def owner(folder: Path, clock: ManualClock) -> LogUnderTest:
    under = LogUnderTest(open_log(folder, clock=clock), clock)

    def reopen() -> Log:
        under.log.close()
        under.log = open_log(folder, clock=clock)
        under.closing.append(under.log)
        return under.log

    under.reopen = reopen
    under.again = open_log(folder, clock=clock, role="remote")
    under.closing = [under.again, under.log]
    return under


def remote(folder: Path, clock: ManualClock) -> LogUnderTest:
    first = open_log(folder, clock=clock)
    under = LogUnderTest(open_log(folder, clock=clock, role="remote"), clock, again=first)

    def reopen() -> Log:
        under.log.close()
        under.log = open_log(folder, clock=clock, role="remote")
        under.closing.insert(0, under.log)
        return under.log

    under.reopen = reopen
    under.closing = [under.log, first]
    return under


@pytest.fixture(params=[memory, owner, remote], ids=["memory", "owner", "remote"])
def under(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogUnderTest]:
    make: Callable[[Path, ManualClock], LogUnderTest] = request.param
    made = make(tmp_path / "log", ManualClock())
    yield made
    for log in made.closing:
        log.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_log_contract(under: LogUnderTest, check: Callable[[LogUnderTest], None]) -> None:
    check(under)
