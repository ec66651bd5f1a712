"""How a partition of a Kafka log is followed, over a model of a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

import headrace as hr
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import Cluster, Outgoing, Place
from headrace.core.codec import partition_of
from headrace.core.errors import LogError
from headrace.core.points import Partition
from headrace.core.times import Duration, Instant
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_following import PASSED_BY
from headrace.log.port import AVAILABLE_AT, VERDICT, Append, Verdict
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient
from headrace.testing.kafka.model_wire import Direct

START = Instant(1_800_000_000_000_000)


def test_two_bounds_of_one_hash_are_two_definitions() -> None:
    """-1 and -2 have one hash in Python; what the wider bound allows is read."""

    def orders(minimum: int) -> Topic:
        return hr.Topic(
            "orders", key="customer", fields={"customer": hr.int64, "amount": hr.field(hr.int64, minimum=minimum)}
        )

    log = KafkaLog(
        ModelClient(KafkaModel(ManualClock(START))),
        settings=KafkaSettings(bootstrap="model:1"),
        clock=ManualClock(START),
    )
    partition = Partition("orders", 1, 0)
    for minimum in (-1, -2):
        log.declare(orders(minimum))
        log.append([Append(partition=partition, rows=[(7, minimum)])])
    rows = [row for batch in log.read(partition, 0) for row in batch.to_pylist()]
    assert [(row["amount"], row[VERDICT]) for row in rows] == [(-1, 0), (-2, 0)]


class Busy(Direct):
    """Another client appends before each fetch."""

    act: Callable[[], object] = staticmethod(lambda: None)
    times = 0

    def most(self, count: int) -> int:
        self.act()
        self.times += 1
        return count


def test_patience_ends_while_others_records_come_without_end() -> None:
    """One partition's open transaction keeps a reader of a busy log no longer than it said."""
    model, wire, seconds = KafkaModel(ManualClock(START)), Busy(), itertools.count()
    log = KafkaLog(
        ModelClient(model, wire=wire),
        settings=KafkaSettings(bootstrap="model:1"),
        clock=ManualClock(START),
        monotonic=lambda: float(next(seconds)),
    )
    topic = hr.Topic("orders", key="customer", fields={"customer": hr.int64}, partitions=2, partitioning="foreign")
    stuck, busy = (held.partition for held in log.declare(topic).partitions)
    for partition in (stuck, busy):
        log.append([Append(partition=partition, rows=[(7,)])], atomic=False)
    other = ModelClient(model)
    transactor, sender = other.sender(transactional_id="theirs"), other.sender()
    transactor.begin()
    transactor.send([Outgoing(Place("orders", 0), b"7", b'{"customer": 7}')])
    wire.act = lambda: sender.send([Outgoing(Place("orders", 1), b"8", b'{"customer": 8}')])
    wire.times = 0
    with pytest.raises(LogError) as caught:
        log.append([Append(partition=stuck, rows=[(7,)])], atomic=False, patience=Duration.parse("5s"))
    assert caught.value.code == "HR-0349" and 5 <= wire.times <= 12
    transactor.commit()
    assert [row["customer"] for batch in log.read(stuck, 0) for row in batch.to_pylist()] == [7, 7, 7]


def test_patience_is_for_what_does_not_come_and_not_for_a_process_that_slept() -> None:
    """A fetch that brought rows after an hour, as where the process was stopped meanwhile, is no reason to give up."""
    model, wire, clock = KafkaModel(ManualClock(START)), Busy(), [0.0]
    log = KafkaLog(
        ModelClient(model, wire=wire),
        settings=KafkaSettings(bootstrap="model:1"),
        clock=ManualClock(START),
        monotonic=lambda: clock[0],
    )
    topic = hr.Topic("orders", key="customer", fields={"customer": hr.int64})
    (held,) = log.declare(topic).partitions
    sender = ModelClient(model).sender()
    sender.send([Outgoing(Place("orders", 0), b"7", b'{"customer": 7}') for _ in range(12_000)])  # more than one fetch

    def sleep() -> None:
        clock[0] += 3_600

    wire.act = sleep
    assert sum(batch.num_rows for batch in log.read(held.partition, 0)) == 12_000


def both_of(model: KafkaModel, wire: Busy) -> tuple[KafkaLog, KafkaLog, Partition]:
    """The logs of two processes, the first one's by the wire, and the one partition of their topic."""
    logs = [
        KafkaLog(ModelClient(model, wire=one), settings=KafkaSettings(bootstrap="model:1"), clock=ManualClock(START))
        for one in (wire, Direct())
    ]
    topic = hr.Topic("orders", key="customer", id="order", fields={"order": hr.int64, "customer": hr.int64})
    partitions = [held.partition for log in logs for held in log.declare(topic).partitions]
    return logs[0], logs[1], partitions[0]


def rows_of(log: KafkaLog, partition: Partition) -> list[dict[str, object]]:
    return [row for batch in log.read(partition, 0) for row in batch.to_pylist()]


@pytest.mark.parametrize("count", [1, 3, PASSED_BY + 1])
def test_who_appended_has_read_it_where_nothing_lies_between(count: int) -> None:
    wire = Busy()
    here, there, partition = both_of(KafkaModel(ManualClock(START)), wire)
    here.append([Append(partition=partition, rows=[(0, 7)])], atomic=False)  # it is followed from now on
    wire.times = 0
    rows = [(number, 7) for number in (0, *range(1, count))]
    (done,) = here.append([Append(partition=partition, rows=rows)], atomic=False)
    assert wire.times == 0, "nothing was fetched"
    assert done.verdicts.tolist() == [int(Verdict.DUPLICATE)] + [0] * (count - 1)
    there.append([Append(partition=partition, rows=[(-1, 7)])], atomic=False)
    assert rows_of(here, partition) == rows_of(there, partition), "and what is fetched later is not taken twice"
    assert len(rows_of(here, partition)) == count + 2


def test_who_appended_reads_what_others_appended_before_it() -> None:
    wire = Busy()
    here, there, partition = both_of(KafkaModel(ManualClock(START)), wire)
    here.append([Append(partition=partition, rows=[(0, 7)])], atomic=False)
    there.append([Append(partition=partition, rows=[(1, 7)])], atomic=False)
    (done,) = here.append([Append(partition=partition, rows=[(1, 7)])], atomic=False)
    assert wire.times and done.offset == 2 and done.verdicts.tolist() == [int(Verdict.DUPLICATE)]
    assert [row["order"] for row in rows_of(here, partition)] == [0, 1, 1]


class Forgetful(ModelClient):
    """Of a broker that has just come back: it knows no topics yet, so many times that it is asked."""

    times = 2

    def cluster(self, prefix: str = "") -> Cluster:
        found = super().cluster(prefix)
        self.times -= 1
        return found if self.times < 0 else replace(found, topics={})


def test_a_broker_that_has_just_come_back_may_not_know_all_topics() -> None:
    model = KafkaModel(ManualClock(START))
    here, _, partition = both_of(model, Busy())
    here.append([Append(partition=partition, rows=[(0, 7)])])
    log = KafkaLog(Forgetful(model), settings=KafkaSettings(bootstrap="model:1"), clock=ManualClock(START))
    assert [row["order"] for row in rows_of(log, partition)] == [0]


def test_what_lies_in_a_wrong_partition_moves_the_running_maximum_however_it_is_read() -> None:
    """A leader whose clock is behind stamps the next row lower: it is available no earlier than what lies before it."""
    clock = ManualClock(START)
    model = KafkaModel(clock, skews=(0, -60_000_000, 0))
    topic = hr.Topic("orders", key="customer", id="id", partitions=2, fields={"id": hr.int64, "customer": hr.int64})
    own, other = (next(n for n in range(99) if partition_of(n, 2) == index) for index in (0, 1))

    def log() -> KafkaLog:
        return KafkaLog(ModelClient(model), settings=KafkaSettings(bootstrap="model:1"), clock=clock)

    writing = log()
    writing.declare(topic)
    partition, place = Partition("orders", 1, 0), Place("orders", 0)
    model.move_leader(place, 0)
    writing.append([Append(partition=partition, rows=[(2, other)])], atomic=False)
    model.move_leader(place, 1)
    writing.append([Append(partition=partition, rows=[(3, own)])], atomic=False)
    at_once = [row for batch in log().read(partition, 0) for row in batch.to_pylist()]
    one_by_one = [row for batch in writing.read(partition, 0) for row in batch.to_pylist()]
    assert [row[VERDICT] for row in at_once] == [int(Verdict.MISPLACED), 0]
    assert {row[AVAILABLE_AT] for row in at_once} == {at_once[0][AVAILABLE_AT]}
    assert one_by_one == at_once
