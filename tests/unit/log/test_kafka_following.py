"""How a partition of a Kafka log is followed, over a model of a cluster."""

from __future__ import annotations

import headrace as hr
from headrace.clients.kafka.define import KafkaSettings
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.port import VERDICT, Append
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient

START = Instant(1_800_000_000_000_000)


def test_two_bounds_of_one_hash_are_two_definitions() -> None:
    """-1 and -2 have one hash in Python; what the wider bound allows is read."""

    def orders(minimum: int) -> Topic:
        return hr.Topic(
            "orders", key="customer", fields={"customer": hr.int64, "amount": hr.field(hr.int64, minimum=minimum)}
        )

    log = KafkaLog(ModelClient(KafkaModel(ManualClock(START))), settings=KafkaSettings(bootstrap="model:1"))
    partition = Partition("orders", 1, 0)
    for minimum in (-1, -2):
        log.declare(orders(minimum))
        log.append([Append(partition=partition, rows=[(7, minimum)])])
    rows = [row for batch in log.read(partition, 0) for row in batch.to_pylist()]
    assert [(row["amount"], row[VERDICT]) for row in rows] == [(-1, 0), (-2, 0)]
