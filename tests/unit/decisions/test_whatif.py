"""A dry run over records: asked where they were asked, absent where they were, counted by outcome, reason, segment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pytest

import headrace as hr
from headrace.decisions.define import Decision
from headrace.decisions.differing import REST, SEGMENTS_MAX
from headrace.decisions.plan import Answer, Version
from headrace.decisions.port import Question
from headrace.decisions.record import DecisionRecord
from headrace.decisions.whatif import WhatIfReport, what_if
from headrace.models.artifact import Artifact
from headrace.runtime.recompute import request_rows
from tests.needs import requires
from tests.unit.decisions.altered import DECIDED, decided
from tests.unit.decisions.shop import Open, Shop

requires("xgboost")


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Shop().artifact()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, artifact: Artifact) -> Iterator[Open]:
    shop = decided(tmp_path_factory.mktemp("log"), artifact)
    yield shop
    shop.close()


def tried(
    opened: Open, version: Version, found: Sequence[DecisionRecord] | None = None, **more: object
) -> WhatIfReport:
    rows = request_rows(opened.log, opened.shop.orders)
    parts: dict[str, object] = {"requests": rows, "recompute": opened.recompute, **more}
    return what_if(opened.records() if found is None else found, version, **parts)


def with_policy(opened: Open, *rules: object) -> Version:
    """The shop's version with other rules, over as many of its views as they and the model read."""
    shop = opened.shop
    decision = Decision(
        "checkout",
        request=shop.orders,
        model=shop.model,
        policy=rules,
        reasons={shop.customer: "CUSTOMER", shop.merchant: "MERCHANT", shop.orders.amount: "AMOUNT"},
    )
    return Version(decision, opened.version.views, opened.version.scores)


def test_the_version_that_decided_decides_the_same(opened: Open) -> None:
    report = tried(opened, opened.version, by=["merchant"])
    assert (report.compared, report.changed, report.rereasoned, report.rescored, report.gone) == (DECIDED, 0, 0, 0, 0)
    assert sum(segment.compared for segment in report.segments) == DECIDED
    assert all(segment.was == segment.now and segment.changed == 0 for segment in report.segments)


def test_other_reasons_are_told_apart_from_other_outcomes(opened: Open) -> None:
    report = tried(opened, with_policy(opened, *opened.shop.decision.policy))
    recent = sum("RECENT_ORDERS" in record.reasons for record in opened.records())
    assert report.changed == 0 and report.rereasoned == recent > 0
    counts = {reason.code: (reason.was, reason.now) for reason in report.reasons}
    assert counts["RECENT_ORDERS"] == (recent, 0) and counts["CUSTOMER"] == (0, recent)
    moves = [abs(reason.now - reason.was) for reason in report.reasons]
    assert moves == sorted(moves, reverse=True)


def test_everything_declined_is_counted_from_each_outcome(opened: Open) -> None:
    report = tried(opened, with_policy(opened, hr.decline(reason="ALL")))
    before = [record.outcome.value for record in opened.records()]
    assert {(m.was, m.now, m.count) for m in report.outcomes} == {(o, "decline", before.count(o)) for o in set(before)}
    assert report.changed == DECIDED - before.count("decline")
    assert [e.now_reasons for e in report.examples] == [("ALL",)] * min(20, report.changed)


def test_a_view_that_was_absent_is_absent_again(opened: Open) -> None:
    asked: list[Question] = []

    def recompute(views: Sequence[str], questions: Sequence[Question]) -> list[tuple[Answer | None, ...]]:
        asked.extend(questions)
        return opened.recompute(views, questions)

    record = opened.records()[5]
    absent = dataclasses.replace(
        record, points=(dataclasses.replace(record.points[0], absent="stale"), *record.points[1:])
    )
    report = tried(opened, opened.version, [absent], recompute=recompute)
    assert [cut is None for cut in asked[0].cuts] == [True, False]
    assert report.compared == 1 and report.outcomes[0].now == "review"  # a rule over what is missing


def test_a_view_that_is_new_is_asked_at_the_cuts_of_the_others(opened: Open) -> None:
    asked: list[Question] = []

    def recompute(views: Sequence[str], questions: Sequence[Question]) -> list[tuple[Answer | None, ...]]:
        asked.extend(questions)
        return opened.recompute(views, questions)

    record = opened.records()[-1]
    first = dataclasses.replace(
        record,
        points=record.points[:1],
        versions=record.versions.replace('"customer"', '"another"').replace(',["merchant","m1"]', ""),
    )
    tried(opened, opened.version, [first], recompute=recompute)
    assert asked[0].cuts == (record.points[0].cut,) * 2


def test_requests_that_are_gone_are_left_out(opened: Open) -> None:
    report = tried(opened, opened.version, requests=lambda partition, offsets: [None for _ in offsets])
    assert (report.compared, report.gone, report.outcomes) == (0, DECIDED, ())


def test_a_policy_without_views_needs_no_features(opened: Open) -> None:
    decision = Decision("checkout", request=opened.shop.orders, policy=[hr.review()])
    report = tried(opened, Version(decision, (), {}), recompute=None)
    assert {moved.now for moved in report.outcomes} == {"review"} and report.rescored == DECIDED


def test_segments_with_few_decisions_stand_together(opened: Open) -> None:
    """One record again and again, each time with another number in a field."""
    record, rows = opened.records()[0], {}
    found = []
    for number in range(SEGMENTS_MAX + 10):
        found.append(dataclasses.replace(record, offset=number))
        rows[number] = ("o-0", 1, 7 if number < 9 else number, 100, None, None)
    decision = Decision("checkout", request=opened.shop.orders, policy=[hr.review()])
    report = tried(
        opened,
        Version(decision, (), {}),
        found,
        requests=lambda partition, offsets: [rows[offset] for offset in offsets],
        by=["merchant", "amount"],
    )
    merchants = [segment for segment in report.segments if segment.field == "merchant"]
    assert [(each.value, each.compared) for each in (merchants[0], merchants[-1])] == [(7, 9), (REST, 2)]
    assert len(merchants) == SEGMENTS_MAX + 1 and sum(segment.compared for segment in merchants) == len(found)
    (amount,) = [segment for segment in report.segments if segment.field == "amount"]
    assert (amount.value, amount.compared) == ("1.00", len(found))
