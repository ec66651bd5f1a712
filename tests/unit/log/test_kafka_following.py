"""How a partition of a Kafka log is followed, over a model of a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

import headrace as hr
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import Outgoing, Place
from headrace.core.errors import LogError
from headrace.core.points import Partition
from headrace.core.times import Duration, Instant
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.port import VERDICT, Append
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
