"""As of when a derived topic holds all of its source: never later than true, and soon after its writers pass."""

from __future__ import annotations

import pytest

from headrace.core.codec import partition_of
from headrace.core.errors import LogError, NotFoundError
from headrace.core.times import Instant
from headrace.log.port import Append
from headrace.stream.proving import PATIENCE_LOOKS, WAITING_MAX, Proving
from headrace.stream.run import ReKeyer
from tests.unit.stream.log import Cluster, by_merchant, source


@pytest.fixture
def cluster() -> Cluster:
    of = source()
    return Cluster(of, by_merchant(of))


def carry(cluster: Cluster, *indices: int) -> None:
    for index in indices or (0, 1):
        rekeyer = ReKeyer(cluster.log(), "by_merchant", cluster.source(index))
        while rekeyer.step():
            pass
        rekeyer.close()


def looked(cluster: Cluster, proving: Proving) -> Instant | None:
    cluster.clock.advance("1s")
    passed = proving.look(cluster.clock.now())
    return None if passed is None else passed.at


def test_of_an_empty_source_all_is_there(cluster: Cluster) -> None:
    proving = Proving(cluster.log(), "by_merchant")
    assert looked(cluster, proving) == cluster.clock.now()


def test_an_instant_is_proven_when_all_writers_have_passed_it(cluster: Cluster) -> None:
    proving = Proving(cluster.log(), "by_merchant")
    first = looked(cluster, proving)
    cluster.some(0, 5)
    cluster.some(1, 5)
    assert looked(cluster, proving) == first
    carry(cluster, 0)
    assert looked(cluster, proving) == first, "one is behind"
    before = cluster.clock.now()
    cluster.some(0, 1)
    carry(cluster, 1)
    assert looked(cluster, proving) == before, "what came since is on its way"
    carry(cluster)
    assert looked(cluster, proving) == cluster.clock.now()
    ends = {held.partition: held.end for held in cluster.state().partitions}
    assert sum(batch.num_rows for p, end in ends.items() for batch in cluster.log().read(p, 0, end=end)) == 11


def test_what_ends_a_transaction_is_passed_by_who_stands_before_it(cluster: Cluster) -> None:
    customers = [n for n in range(99) if partition_of(n, 2) == 0]
    rows = [cluster.event(customer=customers[n], merchant=n) for n in range(3)]
    cluster.writing.append([Append(partition=cluster.source(0), rows=rows)])
    proving = Proving(cluster.log(), "by_merchant")
    carry(cluster)
    found = [looked(cluster, proving) for _ in range(2)]
    assert found[-1] == cluster.clock.now()


def test_where_writers_stand_the_source_says_since_when(cluster: Cluster) -> None:
    cluster.some(0, 3)
    carry(cluster)
    cluster.clock.advance("10m")
    since = cluster.clock.now()
    cluster.some(0, 3)
    cluster.clock.advance("5m")
    cluster.some(1, 3)
    proving = Proving(cluster.log(), "by_merchant")
    found = [looked(cluster, proving) for _ in range(PATIENCE_LOOKS)]
    assert found == [None] * (PATIENCE_LOOKS - 1) + [since]
    carry(cluster)
    assert looked(cluster, proving) == cluster.clock.now()


def test_instants_that_wait_are_bounded(cluster: Cluster) -> None:
    proving = Proving(cluster.log(), "by_merchant")
    looked(cluster, proving)
    cluster.some(0, 1)
    for _ in range(WAITING_MAX + 10):
        looked(cluster, proving)
    assert len(proving._waiting) <= WAITING_MAX
    carry(cluster)
    assert looked(cluster, proving) == cluster.clock.now()


def test_what_is_no_derived_topic_or_of_another_source_is_said(cluster: Cluster) -> None:
    with pytest.raises(NotFoundError):
        looked(cluster, Proving(cluster.log(), "applications"))
    log = cluster.log()
    cluster.writing.drop("applications")
    with pytest.raises(LogError) as caught:
        looked(cluster, Proving(log, "by_merchant"))
    assert caught.value.code == "HR-0363"
