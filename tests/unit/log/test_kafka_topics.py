"""What Kafka is told of a topic: all of it, as the definition says."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.log.define import Topic
from headrace.log.kafka_topics import in_sync, kafka_settings, replicas


def topic(**more: object) -> Topic:
    return hr.Topic("orders", key="customer", fields={"customer": hr.int64}, **more)  # type: ignore[arg-type]  # each test gives what a topic takes


def test_a_topic_is_kept_for_ever_stamped_by_its_broker_and_never_compacted() -> None:
    assert kafka_settings(topic(), min_insync_replicas=2) == {
        "cleanup.policy": "delete",
        "max.message.bytes": "1048576",
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": "2",
        "retention.bytes": "-1",
        "retention.ms": "-1",
    }


@pytest.mark.parametrize(
    ("retention", "milliseconds"), [("30d", "2592060000"), ("1ms", "60001"), ("1us", "60001"), ("1001us", "60002")]
)
def test_retention_is_what_is_declared_and_a_minute(retention: str, milliseconds: str) -> None:
    assert kafka_settings(topic(retention=retention))["retention.ms"] == milliseconds


def test_an_arrow_batch_may_be_larger_than_an_event() -> None:
    plain, arrow = kafka_settings(topic()), kafka_settings(topic(payload="arrow"))
    assert {name for name in plain if plain[name] != arrow[name]} == {"max.message.bytes"}
    assert arrow["max.message.bytes"] == "8388608"


def test_copies_follow_the_brokers_and_one_may_be_away() -> None:
    assert [replicas(0, brokers=count) for count in (0, 1, 2, 3, 12)] == [1, 1, 2, 3, 3]
    assert replicas(2, brokers=12) == 2
    assert [in_sync(count) for count in (1, 2, 3, 4)] == [1, 1, 2, 3]
