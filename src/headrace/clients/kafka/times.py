"""What the brokers' clocks say: a record is appended to each partition of a topic that stamps by append time, and the
acknowledgement says when that was. Connects, by a producer of its own; rarely called.

The one idea: no API of Kafka tells a broker's time, but each acknowledgement of such a topic does, so nothing has to be
read back. A broker that is silent is left out after a moment: who asks holds up others meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message, Producer

from headrace.clients.kafka.connection import Connection, Health, made
from headrace.clients.kafka.port import BrokerTime
from headrace.core.times import Duration

PROBE = b"probe"  # the key: compaction leaves one of them a partition
PATIENCE = Duration.parse("2s")  # an acknowledgement takes some milliseconds where all is well
_LOOK_S = 0.05


def broker_times(connection: Connection, topic: str, leaders: Callable[[], Mapping[int, int]]) -> Sequence[BrokerTime]:
    """As `KafkaClient.broker_times`. leaders: of the topic's partitions, asked before and after, so that no broker gets
    another's time when a leader moves in between."""
    health, before = Health(connection), leaders()
    properties = {
        **connection.properties(health),
        "request.timeout.ms": 1000,
        "message.timeout.ms": PATIENCE.micros // 1000,
        "enable.idempotence": False,
        "acks": 1,  # the leader's word is asked for, not the record's safety
        "linger.ms": 0,
    }
    producer = made(connection, lambda: Producer(properties, logger=connection.logger))
    stamps: dict[int, int] = {}
    left = len(before)

    def told(error: KafkaError | None, message: Message) -> None:
        nonlocal left
        left -= 1
        kind, stamp = message.timestamp()
        if error is None and kind == TIMESTAMP_LOG_APPEND_TIME:
            stamps[message.partition() or 0] = stamp * 1_000

    for partition in before:
        producer.produce(topic, None, PROBE, partition, told)
    until = time.monotonic() + PATIENCE.micros / 1e6
    while left and time.monotonic() < until:
        producer.poll(_LOOK_S)
    producer.purge()
    producer.poll(0)
    after = leaders()
    found = {before[each]: at for each, at in stamps.items() if after.get(each) == before[each]}
    return [BrokerTime(broker, at) for broker, at in sorted(found.items())]
