"""A process's re-keyers, in threads over a model of a cluster: partitions that come, go, and are carried on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from headrace.core.codec import partition_of
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.log.kafka import KafkaLog
from headrace.log.port import Append
from headrace.runtime.streaming import Streams, listed
from tests.unit.stream.log import Cluster, Failing, by_merchant, source


class Patient(Failing):
    """Who waits for data waits for another thread."""

    def wait(self, until: Instant, ready: Callable[[], bool]) -> None:
        for _ in range(10):
            if ready():
                return
            time.sleep(0.001)


@pytest.fixture
def cluster() -> Cluster:
    of = source()
    return Cluster(of, by_merchant(of))


def streams(cluster: Cluster, log: KafkaLog, name: str) -> Streams:
    return Streams(log, log.client, prefix=log.settings.prefix, topics=[cluster.derived], name=name)


def wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not done():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.02)


def test_all_is_carried_over_and_told(cluster: Cluster) -> None:
    cluster.some(0, 30)
    cluster.some(1, 20)
    running = streams(cluster, cluster.log(Patient(cluster.clock)), "one")
    running.begin()
    wait_until(lambda: sum(line.rows for line in running.status()) == 50)
    running.leave()
    running.leave()
    lines = running.status()
    assert [(line.source, line.rows, line.lag, line.error) for line in lines] == [
        ("applications#1/0", 30, 0, ""),
        ("applications#1/1", 20, 0, ""),
    ]
    assert cluster.rows().num_rows == 50
    (line,) = listed(cluster.log())
    assert (line.topic, line.of, line.key, line.partitions, line.lag) == (
        "by_merchant", "applications", "merchant_id", 3, 0,
    )  # fmt: skip


def test_what_one_leaves_another_carries_on(cluster: Cluster) -> None:
    first = streams(cluster, cluster.log(Patient(cluster.clock)), "one")
    first.begin()
    cluster.some(0, 10)
    wait_until(lambda: cluster.rows().num_rows == 10)
    first.leave()
    cluster.some(0, 5)
    cluster.some(1, 5)
    assert next(iter(listed(cluster.log()))).lag == 10
    second = streams(cluster, cluster.log(Patient(cluster.clock)), "two")
    second.begin()
    wait_until(lambda: cluster.rows().num_rows == 20)
    second.leave()
    assert sum(line.rows for line in second.status()) == 10


def test_a_partition_that_stands_says_why_and_goes_on_by_itself(cluster: Cluster) -> None:
    wire = Patient(cluster.clock)
    running = streams(cluster, cluster.log(wire), "one")
    cluster.writing.drop("applications")
    cluster.writing.declare(cluster.of)
    running.begin()
    wait_until(lambda: any("HR-0363" in work.error for work in running._shares[0]._works.values()))
    cluster.writing.drop("by_merchant")
    cluster.writing.declare(cluster.derived)
    row = cluster.event(customer=next(n for n in range(99) if partition_of(n, 2) == 0), merchant=1)
    cluster.writing.append([Append(partition=Partition("applications", 2, 0), rows=[row])], atomic=False)  # type: ignore[list-item]  # physical values
    wait_until(lambda: sum(line.rows for line in running.status()) == 1)
    running.leave()
