"""What librdkafka says of a partition's offsets, before it is believed."""

from __future__ import annotations

import pytest

confluent_kafka = pytest.importorskip("confluent_kafka")

from confluent_kafka.admin import ListOffsetsResultInfo  # noqa: E402 - the extra may be absent

from headrace.clients.kafka.topics import _offset  # noqa: E402 - as above


def test_an_offset_that_nobody_gave_is_asked_for_again() -> None:
    """`retried` asks again after this error; taken for an offset it was kept as where a group begins."""
    assert _offset(ListOffsetsResultInfo(0, -1, -1)) == 0
    with pytest.raises(confluent_kafka.KafkaException) as raised:
        _offset(ListOffsetsResultInfo(-1001, -1, -1))
    assert raised.value.args[0].code() == confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE
