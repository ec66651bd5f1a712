"""The log's contract over every log there is: the owner, a process beside it (here through the same socket), the
fakes, Kafka's over a model of a cluster and over a real one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.clients.kafka.confluent import ConfluentClient
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import KafkaClient
from headrace.clock import SystemClock
from headrace.core.times import Instant
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log
from headrace.log.run import open_log
from headrace.testing.clocks import ManualClock
from headrace.testing.contracts.log import CHECKS, LogUnderTest
from headrace.testing.fakes import MemoryLog
from headrace.testing.kafka import KafkaCluster
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient
from headrace.testing.kafka.model_wire import Direct


def memory(folder: Path, clock: ManualClock) -> LogUnderTest:
    log = MemoryLog(clock=clock)
    return LogUnderTest(log, clock, closing=[log])


def shared(folder: Path, clock: ManualClock) -> LogUnderTest:
    log = MemoryLog(clock=clock, shared=True)
    return LogUnderTest(log, clock, closing=[log])


class Patient(Direct):
    """The model's wire between threads: who waits for data waits for another thread."""

    def wait(self, until: Instant, ready: Callable[[], bool]) -> None:
        for _ in range(10):
            if ready():
                return
            time.sleep(0.001)


def model(folder: Path, clock: ManualClock) -> LogUnderTest:
    cluster = KafkaModel(clock)
    return over_kafka(lambda: ModelClient(cluster, wire=Patient()), KafkaSettings(bootstrap="model:1"), clock, 1_000)


def over_kafka(
    client: Callable[[], KafkaClient], settings: KafkaSettings, clock: ManualClock, stamps_us: int
) -> LogUnderTest:
    """Two processes' logs of one prefix."""
    under = LogUnderTest(KafkaLog(client(), settings=settings, clock=clock), clock, stamps_us)
    under.again = KafkaLog(client(), settings=settings, clock=clock)
    under.closing = [under.again, under.log]

    def reopen() -> Log:
        under.log.close()
        under.log = KafkaLog(client(), settings=settings, clock=clock)
        under.closing.append(under.log)
        return under.log

    under.reopen = reopen
    return under


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


@pytest.fixture(params=[memory, shared, owner, remote, model], ids=["memory", "shared", "owner", "remote", "model"])
def under(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogUnderTest]:
    make: Callable[[Path, ManualClock], LogUnderTest] = request.param
    made = make(tmp_path / "log", ManualClock())
    yield made
    for log in made.closing:
        log.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_log_contract(under: LogUnderTest, check: Callable[[LogUnderTest], None]) -> None:
    check(under)


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_log_contract_on_kafka(kafka: KafkaCluster, check: Callable[[LogUnderTest], None]) -> None:
    settings = KafkaSettings(bootstrap=kafka.bootstrap, prefix=f"{uuid.uuid4().hex[:8]}.")
    made = over_kafka(lambda: ConfluentClient(settings, {}), settings, ManualClock(SystemClock().now()), 0)
    try:
        check(made)
    finally:
        for log in made.closing:
            log.close()
