"""What a change of a topic does, in words; what cannot be taken back needs an approval, and nothing else does."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.catalog.define import Effect
from headrace.features.meaning import topic_meaning
from headrace.log.define import Topic
from headrace.log.effects import about, assumed, explain_with


def topic(**more: object) -> Topic:
    said: dict[str, object] = {
        "key": "customer",
        "fields": {"customer": hr.int64, "amount": hr.decimal(8, 2)},
        "owner": "shop",
        **more,
    }
    return hr.Topic("orders", **said)  # type: ignore[arg-type]  # each test gives what a topic takes


def effects(before: Topic, after: Topic, *readers: str) -> tuple[Effect, ...]:
    meanings = [{**topic_meaning(each), **about(each)} for each in (before, after)]
    return explain_with("orders", readers)(*meanings)


DELETED = "events older than that are deleted"


@pytest.mark.parametrize(
    ("before", "after", "says", "approval"),
    [
        ({}, {"retention": "30d"}, f"retention: for ever -> 30d; {DELETED}", "orders.retention"),
        ({"retention": "30d"}, {"retention": "7d"}, f"retention: 30d -> 7d; {DELETED}", "orders.retention"),
        ({"retention": "7d"}, {"retention": "30d"}, "retention: 7d -> 30d", ""),
        ({"retention": "7d"}, {}, "retention: 7d -> for ever", ""),
        (
            {"partitions": 4},
            {},
            "partitions: 4 -> 1; a log refuses fewer partitions, as their rows would have no place",
            "",
        ),
        ({}, {"owner": "pay"}, "owner: shop -> pay", "orders.owner"),
        ({}, {"owner": ""}, "owner: shop -> nobody", "orders.owner"),
        ({"owner": ""}, {}, "owner: nobody -> shop", ""),
        ({}, {"tags": ["b", "a"]}, "tags: none -> a, b", ""),
        ({"tags": ["a"]}, {"tags": ["b"]}, "tags: a -> b", ""),
        ({}, {"quota": "5MB/s"}, "quota: none -> 5MB/s", ""),
        ({"quota": "5MB/s"}, {"quota": "512KiB/s"}, "quota: 5MB/s -> 512KiB/s", ""),
        (
            {},
            {"protected": False},
            "protected: yes -> no; headrace topics drop orders then deletes its rows without an approval",
            "orders.unprotect",
        ),
        ({"protected": False}, {}, "protected: no -> yes", ""),
        ({}, {"description": "Bought."}, "description: none -> Bought.", ""),
        (
            {},
            {"partitioning": "foreign"},
            "partitioning: own -> foreign; events count in whatever partition they lie",
            "",
        ),
        (
            {"partitioning": "foreign"},
            {},
            "partitioning: foreign -> own; events in another partition than their key's are set aside",
            "",
        ),
        ({}, {"payload": "arrow"}, "payload: json -> arrow", ""),
        ({}, {"max_late": "1h"}, "max_late: 7d -> 1h", ""),
        ({}, {"dedup": "1d"}, "dedup: 14d -> 1d", ""),
        ({}, {"clock": "simulated"}, "clock: wall -> simulated", ""),
        ({}, {"id": "customer"}, "id: none -> customer", ""),
    ],
)
def test_a_change_is_said_in_words(
    before: dict[str, object], after: dict[str, object], says: str, approval: str
) -> None:
    assert effects(topic(**before), topic(**after))[0] == Effect(says, approval)


def test_more_partitions_name_what_reads_them() -> None:
    (effect,) = effects(topic(), topic(partitions=3), "view activity", "decision checkout")
    assert effect.says.startswith("partitions: 1 -> 3; keys move")
    assert effect.says.endswith("; it is read by view activity, decision checkout")
    assert effect.approval == "orders.partitions"
    (effect,) = effects(topic(), topic(partitions=3))
    assert "read by" not in effect.says


def test_fields_are_compared_by_name() -> None:
    after = topic(
        fields={
            "customer": hr.int64,
            "amount": hr.field(hr.decimal(8, 2), minimum=0, maximum="100.00", available_after="30d"),
            "shop": hr.field(hr.string, required=True),
        }
    )
    assert [effect.says for effect in effects(topic(), after)] == [
        "field amount, minimum: none -> 0",
        "field amount, maximum: none -> 100.00",
        "field amount, available_after: none -> 30d",
        "field shop: added, string, required",
    ]
    narrower = topic(fields={"customer": hr.field(hr.string)})
    assert [effect.says for effect in effects(topic(), narrower)] == [
        "field customer, type: int64 -> string",
        "field amount: removed",
    ]


def test_nothing_changed_says_nothing_and_long_texts_are_cut() -> None:
    assert effects(topic(), topic()) == ()
    (effect,) = effects(topic(), topic(description="x" * 100))
    assert effect.says == f"description: none -> {'x' * 77}..."


def test_before_these_were_kept_a_topic_was_nobodys() -> None:
    plain = topic(owner="", description="Bought.")
    assert {**assumed(plain), **topic_meaning(plain)} == {**about(plain), **topic_meaning(plain)}
