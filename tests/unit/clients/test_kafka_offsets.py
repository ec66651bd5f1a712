"""What librdkafka says of a partition's offsets, before it is believed."""

from __future__ import annotations

import pytest

confluent_kafka = pytest.importorskip("confluent_kafka")

from headrace.clients.kafka.spans import _given  # noqa: E402 - the extra may be absent


def test_an_offset_that_nobody_gave_is_asked_for_again() -> None:
    """It is asked again after this error; taken for an offset it was kept as where a group begins."""
    assert _given(confluent_kafka.TopicPartition("orders", 0, 0)) == 0
    with pytest.raises(confluent_kafka.KafkaException) as raised:
        _given(confluent_kafka.TopicPartition("orders", 0, -1001))
    assert raised.value.args[0].code() == confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE
