"""The contract of `KafkaClient` over a real cluster."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import Place
from headrace.testing.contracts import kafka_times
from headrace.testing.contracts.kafka import CHECKS, KafkaUnderTest
from headrace.testing.kafka import KafkaCluster

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


@pytest.fixture
def under(kafka: KafkaCluster) -> Iterator[KafkaUnderTest]:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    from headrace.clients.kafka.confluent import ConfluentClient

    def trim(place: Place, offset: int) -> None:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        for future in admin.delete_records([TopicPartition(place.topic, place.partition, offset)]).values():
            future.result(30)

    settings = KafkaSettings.parse(f"kafka://{kafka.bootstrap}")
    client, again = ConfluentClient(settings, {}), ConfluentClient(settings, {})
    made = KafkaUnderTest(client, again, prefix=f"c{uuid.uuid4().hex[:12]}.", trim=trim)
    yield made
    made.close()
    again.close()
    client.close()


@pytest.mark.parametrize("check", CHECKS + kafka_times.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_client_contract(under: KafkaUnderTest, check: Callable[[KafkaUnderTest], None]) -> None:
    check(under)
