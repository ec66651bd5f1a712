"""A derived topic is a topic: the source's fields and rules of time, another key."""

from __future__ import annotations

import pytest

from headrace.core.errors import DefinitionError
from headrace.log.codec import topic_from_json, topic_to_json
from headrace.log.define import Partitioning, Payload, Topic
from headrace.stream.define import derived_topic
from tests.unit.stream.log import by_merchant, source


def test_it_has_the_fields_and_the_rules_of_its_source() -> None:
    of = source(payload="arrow")
    derived = by_merchant(of)
    assert isinstance(derived, Topic)
    assert derived.schema.fields == of.schema.fields
    assert (derived.key, derived.id, derived.event_time) == ("merchant_id", "application_id", "created_at")
    assert (derived.max_late, derived.dedup, derived.payload) == (of.max_late, of.dedup, Payload.ARROW)
    assert derived.derivation is not None
    assert derived.derivation.of == "applications"
    assert derived.amount.path == "by_merchant.amount"


def test_partitions_and_retention_are_its_sources_unless_it_says_otherwise() -> None:
    of = source(partitions=4)
    assert derived_topic("x", of=of, key="merchant_id").partitions == 4
    given = derived_topic("x", of=of, key="merchant_id", partitions=2, retention="30d", payload="arrow")
    assert (given.partitions, str(given.retention), given.payload) == (2, "30d", Payload.ARROW)


def test_its_key_places_its_events_also_where_a_foreign_rule_placed_the_source() -> None:
    derived = derived_topic("x", of=source(partitioning="foreign"), key="customer_id")
    assert derived.partitioning is Partitioning.OWN


def test_nothing_is_derived_of_what_is_derived() -> None:
    with pytest.raises(DefinitionError) as raised:
        derived_topic("again", of=by_merchant(source()), key="customer_id")
    assert raised.value.code == "HR-0361"


@pytest.mark.parametrize(("key", "code"), [("nothing", "HR-0106"), ("amount", "HR-0108")])
def test_its_key_is_a_field_that_can_be_one(key: str, code: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        derived_topic("x", of=source(), key=key)
    assert raised.value.code == code


def test_its_definition_survives_the_logs_text() -> None:
    derived = by_merchant(source())
    assert topic_from_json(topic_to_json(derived)) == derived
    assert "derived_of" not in topic_to_json(source())
