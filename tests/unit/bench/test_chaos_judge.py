"""The judge of the chaos on Kafka: what is right passes, and each kind of wrong is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bench._chaos_judge import (
    Claim,
    Effect,
    Found,
    Message,
    Value,
    fold,
    judge_answers,
    judge_effects,
    judge_events,
    judge_records,
    judge_values,
)
from bench._chaos_spans import Answers, takeovers

NOON = "2026-11-01T12:00:00.000000Z"
NOON_MS = 1_793_534_400_000
VIEWS = [["activity", "f1"], ["attention", "f2"]]


def order(offset: int, id: str, *, amount: str = "10.00", partition: int = 0) -> Message:
    return Message(partition, offset, NOON_MS, {"order": id, "customer": 1, "amount": amount, "at": NOON})


def visit(offset: int, number: int, *, spent: str = "2.50", partition: int = 0) -> Message:
    return Message(
        partition,
        offset,
        NOON_MS,
        {"visit": f"0-{number}", "customer": 1, "number": number, "spent": spent, "at": NOON},
    )


def claim(offset: int, owner: str = "http://127.0.0.1:1") -> Message:
    return Message(0, offset, NOON_MS, {"claim": owner})


def record(
    offset: int,
    epoch: int,
    request: int,
    id: str,
    *,
    own: tuple[int, int, int] = (0, 1, 1_000),
    other: tuple[int, int, int | None] = (0, 0, None),
) -> Message:
    """own, other: next offset, count and sum of the two views."""
    points = [[[["orders", 1, 0, own[0]]], 0, None], [[["visits", 1, 0, other[0]]], 0, None]]
    features = [[[own[1], own[2]], [0, 0]], [[other[1], other[2]], [0, 0]]]
    value: Value = {
        "decision_id": f"checkout/1/0/{request}",
        "decision": "checkout",
        "request_id": id,
        "request_incarnation": 1,
        "request_partition": 0,
        "request_offset": request,
        "t": NOON,
        "versions": json.dumps({"views": VIEWS}),
        "points": json.dumps(points),
        "features": json.dumps(features),
        "outcome": "approve",
        "reasons": "[]",
        "flags": "",
        "epoch": epoch,
    }
    return Message(0, offset, NOON_MS, value)


def answer(request: int, id: str, **other: object) -> Value:
    said: dict[str, object] = {
        "decision_id": f"checkout/1/0/{request}",
        "request_id": id,
        "outcome": "approve",
        "score": None,
        "reasons": [],
        "flags": [],
        "t": NOON,
        "versions": {"views": VIEWS},
    }
    return {"request": {"order": id}, "answer": {**said, **other}, "sent": 1.0, "at": 2.0}


def kinds(found: Found) -> set[str]:
    return {line.partition(":")[0] for line in found.told}


def test_records_are_valid_by_the_claim_below_them_and_once_a_request() -> None:
    folded = fold(
        [
            claim(0),
            record(1, 0, 0, "a"),
            claim(2, "http://127.0.0.1:2"),
            record(3, 0, 1, "b"),  # of an owner that slept
            record(4, 2, 1, "b"),
            record(5, 2, 0, "a"),  # of a request that has one
        ]
    )
    assert [message.offset for message in folded.valid.values()] == [1, 4]
    assert [message.offset for message in folded.voids] == [3, 5]
    assert folded.zombies == {(0, 0)} and len(folded.claims) == 2
    found = Found()
    judge_records(folded, [order(0, "a"), order(1, "b")], found)
    judge_answers(folded, [answer(0, "a"), answer(1, "b"), answer(1, "b")], found)
    assert found.told == [] and found.counts["answered"] == 2 and found.counts["void_records"] == 2


def test_a_request_that_is_recorded_and_absent_or_decided_twice_is_told() -> None:
    folded = fold([claim(0), record(1, 0, 0, "a"), record(2, 0, 1, "a"), record(3, 0, 7, "c")])
    found = Found()
    judge_records(folded, [order(0, "a"), order(1, "a")], found)
    assert kinds(found) == {"duplicated", "lost"}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer(5, "a"), "lost"),
        (answer(0, "a", outcome="decline"), "unlike"),
        (answer(0, "a", reasons=["X"]), "unlike"),
        (answer(0, "a", score=0.5), "unlike"),
        (answer(0, "a", t="2026-11-01T12:00:00.000001Z"), "unlike"),
        (answer(0, "b"), "unlike"),
    ],
)
def test_an_answer_that_is_not_its_record_is_told(said: Value, kind: str) -> None:
    found = Found()
    judge_answers(fold([claim(0), record(1, 0, 0, "a")]), [said], found)
    assert kinds(found) == {kind}


def test_an_answer_of_a_record_that_is_void_is_told() -> None:
    found = Found()
    judge_answers(fold([claim(0), claim(1), record(2, 0, 0, "a")]), [answer(0, "a")], found)
    assert kinds(found) == {"lost"}


def test_events_that_were_sent_again_count_once_and_in_order() -> None:
    visits = [visit(0, 0), visit(1, 1), visit(2, 2), visit(3, 1), visit(4, 2), visit(5, 3)]
    sent = {"0-0": 1, "0-1": 2, "0-2": 2, "0-3": 1}
    found = Found()
    judge_events(visits, sent, [("0-0", 0, 0), ("0-2", 0, 4)], found)
    assert found.told == [] and found.counts["events"] == 4 and found.counts["events_again"] == 2


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda visits: visits[:1] + visits[2:], "lost"),
        (lambda visits: [*visits, visit(9, 0)], "duplicated"),
        (lambda visits: [visits[0], visit(1, 2), visit(2, 1)], "reordered"),
    ],
)
def test_events_lost_repeated_or_out_of_order_are_told(
    change: Callable[[list[Message]], list[Message]], kind: str
) -> None:
    visits = change([visit(0, 0), visit(1, 1), visit(2, 2)])
    acked = [("0-0", 0, 0), ("0-1", 0, 1)] if kind == "lost" else [("0-0", 0, 0)]
    found = Found()
    judge_events(visits, {"0-0": 1, "0-1": 1, "0-2": 1}, acked, found)
    assert kinds(found) == {kind}


@pytest.mark.parametrize(
    ("offsets", "kind"), [([0, 1, 1, 2], "duplicated"), ([0, 2], "lost"), ([1, 0, 2], "reordered"), ([0, 1, 2], "")]
)
def test_an_effect_comes_once_and_in_order(offsets: list[int], kind: str) -> None:
    found = Found()
    judge_effects([visit(0, 0), visit(1, 1), visit(2, 2)], [Effect(0, each, 1, each) for each in offsets], found)
    assert kinds(found) == ({kind} if kind else set())


def test_values_are_those_of_the_topics_at_the_records_cuts() -> None:
    orders = [order(0, "a"), order(1, "b", amount="5.00"), order(2, "a")]
    visits = [visit(0, 0), visit(1, 1), visit(2, 0), visit(3, 2)]
    right = [
        claim(0),
        record(1, 0, 0, "a", other=(3, 2, 500)),
        record(2, 0, 1, "b", own=(1, 2, 1_500), other=(4, 3, 750)),
    ]
    found = Found()
    judge_values(fold(right), orders, visits, found)
    assert found.told == [] and found.counts["values"] == 4
    twice = [claim(0), record(1, 0, 0, "a", other=(3, 3, 750))]  # the repeated event is in it
    judge_values(fold(twice), orders, visits, found)
    assert kinds(found) == {"miscounted"}


def test_a_takeover_lasts_until_the_last_partition_answers_a_new_attempt() -> None:
    def line(partition: int, sent: float, at: float) -> Value:
        return {"sent": sent, "at": at, "answer": {"decision_id": f"checkout/1/{partition}/0"}}

    answers = Answers([line(0, 9.9, 12.0), line(0, 10.5, 14.0), line(1, 16.0, 17.0), line(2, 10.1, 10.2)])
    claims = [
        Claim(0, 0, 1_000, "http://127.0.0.1:7"),
        Claim(1, 0, 1_000, "http://127.0.0.1:7"),
        Claim(2, 0, 1_000, "http://127.0.0.1:7"),
        Claim(2, 4, 2_000, "http://127.0.0.1:8"),
    ]
    (one,) = takeovers([(10.0, 7)], claims, answers)
    assert (one.partition, one.seconds) == (1, 7.0)
    assert takeovers([(10.0, 9)], claims, answers) == []
    assert answers.unanswered(10.0, 15.0) == 7.0, "begun before 15, and ended by the answer at 17"
    assert answers.unanswered(13.0, 20.0) == 7.0, "partition 2 gives none at all"
