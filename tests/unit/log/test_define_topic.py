"""A topic's definition: who looks after it, who chooses partitions, and that texts of before stay as they are."""

from __future__ import annotations

import json

import pytest

import headrace as hr
from headrace.core.errors import DefinitionError, LogFormatError
from headrace.core.rates import Rate
from headrace.features.meaning import topic_meaning
from headrace.log.codec import topic_from_json, topic_to_json
from headrace.log.define import Partitioning, Stewardship, Topic

OLD_KEYS = {
    "name", "key", "id", "event_time", "partitions", "max_late", "max_ahead", "dedup", "skew", "retention", "clock",
    "description", "fields",
}  # fmt: skip


def topic(**more: object) -> Topic:
    return hr.Topic("orders", key="customer", fields={"customer": hr.int64, "owner": hr.string}, **more)  # type: ignore[arg-type]  # each test gives what a topic takes


def test_a_topic_is_nobodys_and_protected_unless_it_says_more() -> None:
    plain = topic()
    assert plain.stewardship == Stewardship(owner="", tags=(), quota=None, protected=True)
    assert plain.partitioning is Partitioning.OWN
    kept = topic(owner="payments", tags=["pii", "eu", "pii"], quota="5MB/s", protected=False).stewardship
    assert (kept.owner, kept.tags, kept.quota, kept.protected) == ("payments", ("eu", "pii"), Rate(5_000_000), False)


def test_a_field_may_have_the_name_of_what_a_topic_says() -> None:
    orders = topic(owner="payments")
    assert orders.owner.path == "orders.owner", "the field, not the team"
    assert orders.stewardship.owner == "payments"


def test_a_text_of_before_stays_as_it_was() -> None:
    assert set(json.loads(topic_to_json(topic()))) == OLD_KEYS
    assert topic_from_json(topic_to_json(topic())) == topic()
    assert {"partitioning", "owner", "tags", "quota", "protected"}.isdisjoint(topic_meaning(topic()))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"owner": "payments"}, {"owner": "payments"}),
        ({"tags": ["pii", "eu"]}, {"tags": ["eu", "pii"]}),
        ({"quota": "512KiB/s"}, {"quota": 524_288}),
        ({"protected": False}, {"protected": False}),
        ({"partitioning": "foreign"}, {"partitioning": "foreign"}),
    ],
)
def test_what_is_said_is_stored_and_read_back(more: dict[str, object], text: dict[str, object]) -> None:
    made = topic(**more)
    stored = json.loads(topic_to_json(made))
    assert {name: value for name, value in stored.items() if name not in OLD_KEYS} == text
    assert topic_from_json(json.dumps(stored)) == made != topic()


def test_who_chooses_partitions_is_meaning_and_who_owns_is_not() -> None:
    assert topic_meaning(topic(partitioning="foreign")) == {**topic_meaning(topic()), "partitioning": "foreign"}
    owned = topic(owner="payments", tags=["a"], quota="1MB/s", protected=False, description="Bought.")
    assert topic_meaning(owned) == topic_meaning(topic())


@pytest.mark.parametrize("more", [{"quota": 0}, {"quota": "5MB/s"}, {"tags": "pii"}, {"owner": 3}])
def test_a_stored_text_that_says_something_else_is_refused(more: dict[str, object]) -> None:
    text = json.dumps({**json.loads(topic_to_json(topic())), **more})
    with pytest.raises((LogFormatError, DefinitionError)) as seen:
        topic_from_json(text)
    assert seen.value.code == "HR-0305"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"owner": "-payments"}, "topic 'orders': owner '-payments' cannot be"),
        ({"owner": "a\nb"}, "topic 'orders': owner 'a\\nb' cannot be"),
        ({"tags": ["ok", ""]}, "topic 'orders': tag '' cannot be"),
        ({"tags": ["x" * 64]}, f"topic 'orders': tag '{'x' * 64}' cannot be"),
        ({"tags": "pii"}, "topic 'orders': tags 'pii' cannot be"),
        ({"quota": "fast"}, "not a rate: 'fast'"),
    ],
)
def test_an_owner_a_tag_a_rate_that_cannot_be_is_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(DefinitionError) as seen:
        topic(**more)
    assert (seen.value.code, seen.value.message) == ("HR-0810", message)
    assert seen.value.detail.startswith("expected")


def test_partitions_are_chosen_by_someone() -> None:
    with pytest.raises(ValueError, match="'random' is not a valid Partitioning"):
        topic(partitioning="random")
