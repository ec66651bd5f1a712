"""The judge of derived topics under chaos: what is right passes, and each kind of wrong is told."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from bench._chaos_derived import HEADER, Said, judge_derived, murmur2, partition_of
from bench._chaos_judge import Found, Message, Value

NOON = "2026-11-01T12:00:00.000000Z"
NOON_MS = 1_793_534_400_000
PARTITIONS = 4
SHOP, OTHER = "shop-1", "shop-2"


def visit(offset: int, number: int, shop: str | None = SHOP, *, at: int = 0, partition: int = 0) -> Message:
    value: Value = {
        "visit": f"{partition}-{number}",
        "customer": 1,
        "number": number,
        "spent": "2.50",
        "shop": shop,
        "at": "2026-11-01T12:00:00+00:00",
    }
    return Message(partition, offset, NOON_MS + at, value)


def place(shop: str) -> int:
    return partition_of(shop.encode(), PARTITIONS)


def derived(offset: int, of: Message, *, stamp: int = 0, said: Said | None = None, **changed: object) -> Message:
    """The record of a source event. stamp: the highest in its partition so far, behind noon, in milliseconds."""
    shop = str(changed.get("shop", of.value["shop"]))
    said = said or Said((NOON_MS + stamp) * 1_000, NOON_MS * 1_000, 0, 1, of.partition, of.offset)
    value = {**of.value, "spent": 2.5, "at": NOON, **changed}
    header = struct.pack(">qqBiiq", *said)
    return Message(place(shop), offset, NOON_MS + 9_000, value, shop.encode(), (("other", b""), (HEADER, header)))


# Number 1 was sent again, number 3 has no shop; the broker's clock fell back before number 2.
SOURCE = [
    visit(0, 0, at=5),
    visit(1, 1, OTHER, at=7),
    visit(2, 2, at=6),
    visit(3, 1, OTHER, at=8),
    visit(5, 3, None, at=9),
    visit(0, 0, partition=1),
]
RIGHT = [
    derived(0, SOURCE[0], stamp=5),
    derived(1, SOURCE[5]),
    derived(2, SOURCE[2], stamp=7),
    derived(0, SOURCE[1], stamp=7),
]


def judged(records: list[Message]) -> Found:
    found = Found()
    judge_derived(SOURCE, records, PARTITIONS, key="shop", found=found)
    return found


def test_each_event_with_a_key_lies_there_once_whichever_source_partition_came_first() -> None:
    assert place(SHOP) != place(OTHER)
    found = judged(RIGHT)
    assert found.told == []
    assert (found.counts["derived"], found.counts["not_derived"]) == (4, 2)
    assert judged([RIGHT[1], RIGHT[0], *RIGHT[2:]]).told == [], "across source partitions there is no order"


def replaced(index: int, change: Callable[[Message], Message]) -> list[Message]:
    return [change(record) if at == index else record for at, record in enumerate(RIGHT)]


def resaid(record: Message, **changed: int) -> Message:
    said = Said(*struct.unpack(">qqBiiq", dict(record.headers)[HEADER]))._replace(**changed)
    return record._replace(headers=((HEADER, struct.pack(">qqBiiq", *said)),))


@pytest.mark.parametrize(
    ("records", "kind", "what"),
    [
        (RIGHT[:3], "lost", "visits (0, 1) was not derived"),
        ([*RIGHT, derived(9, SOURCE[0], stamp=5)], "duplicated", "visits (0, 0)"),
        ([*RIGHT[1:3], derived(3, SOURCE[0], stamp=5), RIGHT[3]], "reordered", "behind offset 2"),
        ([*RIGHT, derived(9, SOURCE[3], stamp=8)], "unlike", "not to be carried over"),
        ([*RIGHT, derived(9, SOURCE[4], stamp=9)], "unlike", "not to be carried over"),
        ([*RIGHT, RIGHT[0]._replace(headers=())], "unlike", "does not say of which"),
        (replaced(0, lambda one: one._replace(partition=place(OTHER))), "unlike", "partition"),
        (replaced(0, lambda one: one._replace(key=b"shop-3")), "unlike", "key"),
        (replaced(0, lambda one: one._replace(value={**one.value, "number": 7})), "unlike", "values"),
        (replaced(0, lambda one: one._replace(value={**one.value, "spent": "2.51"})), "unlike", "values"),
        (replaced(2, lambda one: resaid(one, available_at=(NOON_MS + 6) * 1_000)), "unlike", "available_at"),
        (replaced(0, lambda one: resaid(one, event_time=1)), "unlike", "event time"),
        (replaced(0, lambda one: resaid(one, verdict=1)), "unlike", "verdict"),
        (replaced(0, lambda one: resaid(one, incarnation=2)), "unlike", "incarnation"),
    ],
)
def test_what_is_lost_repeated_out_of_order_or_unlike_is_told(records: list[Message], kind: str, what: str) -> None:
    (told,) = judged(records).told
    assert told.startswith(f"{kind}: ") and what in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_the_hash_is_that_of_javas_client(text: str, expected: int) -> None:
    assert murmur2(text.encode()) == expected & 0xFFFFFFFF
