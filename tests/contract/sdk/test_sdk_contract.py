"""The contract of producers and consumers, over the fake and over real Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from headrace.clients.kafka.port import Place
from headrace.plugs import require
from headrace.sdk.connect import open_messages
from headrace.testing.contracts.sdk import CHECKS, SdkUnderTest
from headrace.testing.kafka import KafkaCluster
from headrace.testing.kafka.messages import MemoryMessages

Check = Callable[[SdkUnderTest], None]


def named(check: Check) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize("check", CHECKS, ids=named)
def test_in_memory(check: Check) -> None:
    messages = MemoryMessages(prefix="shop.")
    check(SdkUnderTest(messages, messages.put))


@pytest.fixture(scope="module")
def real(kafka: KafkaCluster) -> Iterator[SdkUnderTest]:
    producer = require("confluent_kafka", wanted_by="this test").Producer(
        {"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True}
    )

    def put(place: Place, key: bytes | None, value: bytes | None) -> None:
        producer.produce(place.topic, value, key, place.partition)
        assert producer.flush(30) == 0

    messages = open_messages(f"kafka://{kafka.bootstrap}/sdk.")
    yield SdkUnderTest(messages, put)
    messages.close()


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.parametrize("check", CHECKS, ids=named)
def test_on_kafka(check: Check, real: SdkUnderTest) -> None:
    check(real)
