"""Challengers, from the log and back: decided beside the decision, recorded with it, computed again, explained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

import headrace as hr
from headrace.decisions.define import Challenger, Decision, Outcome
from headrace.decisions.explain import explain
from headrace.decisions.explain_words import page, words
from headrace.decisions.record import DecisionRecord
from headrace.decisions.run import DecisionMade
from headrace.testing.clocks import ManualClock
from tests.unit.decisions.shop import Open, Shop, instant


class Tried(Shop):
    """The shop, beside it a stricter policy with the same model that answers for half of the customers."""

    def __init__(self) -> None:
        super().__init__()
        c = self.customer
        stricter = Decision(
            "stricter",
            request=self.orders,
            model=self.model,
            policy=[
                hr.decline_if(c.count_10m > 2, reason="SOON"),
                hr.decline_if(hr.score > 0.4, reason=hr.from_model),
                hr.approve(),
            ],
            reasons={c.count_1h: "STRICTER_RECENT"},
            not_a_reason=[self.orders.amount, c, self.merchant],
        )
        self.decision = Decision(
            "checkout",
            request=self.orders,
            model=self.model,
            policy=self.decision.policy,
            reasons={c.count_1h: "RECENT_ORDERS", self.merchant.returned_rate_1d: "MERCHANT_HISTORY"},
            not_a_reason=[self.orders.amount, c, self.merchant],
            challengers=[Challenger(stricter, share=0.5)],
        )


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory):
    shop = Tried()
    opened = Open(shop, tmp_path_factory.mktemp("tried"), ManualClock(instant(0)), shop.artifact())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def made(tried: Open) -> list[DecisionMade]:
    found = []
    for number in range(120):
        tried.clock.advance("20s")
        found.append(tried.decider.decide(tried.shop.order(number, tried.clock.now())))
    return found


def records_by_id(tried: Open) -> dict[str, DecisionRecord]:
    return {one.decision_id: one for one in tried.records()}


def test_the_answer_and_what_stood_beside_it_are_recorded(tried: Open, made: Sequence[DecisionMade]) -> None:
    kept = records_by_id(tried)
    assert {one.arm for one in made} == {None, "stricter"}
    for one in made:
        record = kept[one.decision_id]
        assert (record.outcome, record.reasons, record.score) == (one.outcome, one.reasons, one.score)
        ((name, _),) = record.ruling.beside
        assert (record.ruling.arm, name) == (one.arm, "stricter" if one.arm is None else "checkout")
    customers = {row.ruling.arm for row in kept.values()}
    assert customers == {None, "stricter"}
    differing = [one for one in kept.values() if one.ruling.beside[0][1].outcome is not one.outcome]
    assert differing, "two policies that never differ would prove nothing"


def test_every_arm_is_computed_again_to_the_bit(tried: Open, made: Sequence[DecisionMade]) -> None:
    report = tried.replay()
    assert (report.compared, report.mismatched, report.unknown) == (len(made), 0, 0)


@pytest.mark.parametrize("what", ["arm", "answer", "beside", "gone"])
def test_a_record_whose_arms_say_otherwise_is_found(tried: Open, made: Sequence[object], what: str) -> None:
    sound = tried.records()
    ruling = sound[3].ruling
    name, beside = ruling.beside[0]
    changed = {
        "arm": dataclasses.replace(ruling, arm="stricter" if ruling.arm is None else None),
        "answer": dataclasses.replace(ruling, answer=dataclasses.replace(ruling.answer, rule=9)),
        "beside": dataclasses.replace(ruling, beside=((name, dataclasses.replace(beside, reasons=("ODD",))),)),
        "gone": dataclasses.replace(ruling, beside=()),
    }[what]
    wrong = [*sound[:3], dataclasses.replace(sound[3], ruling=changed), *sound[4:]]
    keep, tried.records = tried.records, lambda: wrong
    try:
        report = tried.replay()
    finally:
        tried.records = keep
    assert report.mismatched == 1
    expected = {"arm": "arm", "answer": "rule", "beside": f"{name}: reasons", "gone": f"{name}: answer"}[what]
    assert [one.what for one in report.differences] == [expected]


def test_a_second_try_gets_the_first_ones_arm(tried: Open, made: Sequence[DecisionMade]) -> None:
    by_challenger = next(place for place, one in enumerate(made) if one.arm == "stricter")
    request = tried.shop.order(by_challenger, made[by_challenger].t)
    again = tried.decider.decide(request)
    assert again == dataclasses.replace(made[by_challenger], repeated=True)


def test_an_explanation_is_of_the_arm_that_answered(tried: Open, made: Sequence[DecisionMade]) -> None:
    by_challenger = next(one for one in made if one.arm == "stricter" and one.outcome is Outcome.DECLINE)
    record = records_by_id(tried)[by_challenger.decision_id]
    row = tried.decider._validate(tried.shop.order(int(str(by_challenger.request_id)[2:]), by_challenger.t))
    said = explain(record, tried.shop.decision, version=tried.version, row=row, views=(), replay="", differences=())
    assert said.arm == "stricter" and [one.name for one in said.beside] == ["checkout"]
    decided = next(rule for rule in said.rules if rule.decided)
    assert decided.standing == "held" and len(said.rules) == 3
    for text in (words(said), page(said)):
        assert "by challenger stricter" in text and "checkout would have answered" in text


def test_the_decision_can_be_stopped_being_challenged(tried: Open, made: Sequence[object], tmp_path: Path) -> None:
    """Records with arms and without lie in one chain."""
    plain = Shop()
    clock = ManualClock(tried.clock.now())
    first = Open(Tried(), tmp_path, clock, tried.shop.artifact())
    for number in range(6):
        clock.advance("1m")
        first.decider.decide(first.shop.order(number, clock.now()))
    first.close()
    second = Open(plain, tmp_path, clock, plain.artifact())
    clock.advance("1m")
    second.decider.decide(plain.order(99, clock.now()))
    kept = second.records()
    assert [bool(one.ruling.beside) for one in kept] == [True] * 6 + [False]
    second.close()
