"""An explanation where something is not there: what cannot be said is said to be so, in words and on the page."""

from __future__ import annotations

import dataclasses

import pytest

from headrace.core.aggregate import Reason
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.decisions.define import Outcome
from headrace.decisions.explain import Contributing, Explanation, explain, view_seen
from headrace.decisions.explain_words import page, words
from headrace.decisions.plan import Decided, Ruling, Standing, Version
from headrace.decisions.record import DecisionRecord, Flag, ViewPoint, from_row, linked, to_row
from headrace.decisions.replay import Difference
from tests.unit.decisions.test_plan import ROW, VIEWS, FixedScores, answers, checkout
from tests.unit.models.lender import activity, merchant_risk

REQUEST = Partition("applications", 1, 0)


class Explained(FixedScores):
    """A model whose contributions are known."""

    base = -2.5

    def contributions(self, row: object) -> list[float]:
        return [0.25, -0.5, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0, -1.75, 0.25]


def ruling(
    outcome: Outcome = Outcome.DECLINE, reasons: tuple[str, ...] = ("MERCHANT_HISTORY",), **more: object
) -> Ruling:
    return Ruling(Decided(outcome, reasons, more.get("rule", 0), (("fraud", more.get("score", 0.95)),)))


def record(**changes: object) -> DecisionRecord:
    points = tuple(ViewPoint(cut=Cut.of({REQUEST: 7}), staleness=Duration(12)) for _ in VIEWS)
    parts: dict[str, object] = {
        "decision": "checkout",
        "request_id": "a-1",
        "request": REQUEST,
        "offset": 7,
        "t": Instant(1_000_000),
        "decided_at": Instant(1_500_000),
        "versions": Version(checkout(), VIEWS, {"fraud": FixedScores()}).text,
        "points": points,
        "answers": tuple(answers()),
        "ruling": ruling(),
        "flags": (Flag.RETRIED,),
        "request_hash": "0" * 64,
        **changes,
    }
    return from_row(linked(to_row(DecisionRecord(**parts)), "1" * 64), "applications")


def explained(
    made: DecisionRecord, *, version: Version | None = None, row: object = ROW, **more: object
) -> Explanation:
    decision = checkout()
    views = [
        view_seen(name, view, decision, row, point, answer)
        for (name, view), point, answer in zip(
            (("customer_activity", activity), ("merchant_risk", merchant_risk)), made.points, made.answers, strict=True
        )
    ]
    parts: dict[str, object] = {"version": version, "row": row, "views": views, "replay": "", "differences": (), **more}
    return explain(made, decision, **parts)


VERSION = Version(checkout(), VIEWS, {"fraud": Explained()})


def test_contributions_stand_by_weight_and_ties_by_input() -> None:
    assert isinstance(VERSION.scores["fraud"], Contributing) and not isinstance(FixedScores(), Contributing)
    said = explained(record(), version=VERSION)
    assert [(one.input, one.share) for one in said.models[0].contributions][:5] == [
        ("merchant_risk.charged_back_rate_30d", -1.75),
        ("customer_activity.count_1d", 1.5),
        ("trusted", -0.5),
        ("amount", 0.25),
        ("amount_vs_mean", 0.25),
    ]
    by_name = {one.input: one for one in said.models[0].contributions}
    assert (by_name["amount"].code, by_name["amount"].value) == (None, "12.50")
    assert by_name["merchant_risk.charged_back_rate_30d"].code == "MERCHANT_HISTORY"
    assert "base -2.5000" in words(said) and "-1.7500" in page(said)


def test_a_model_that_cannot_say_is_said_to_be_so() -> None:
    said = explained(record(), version=Version(checkout(), VIEWS, {"fraud": FixedScores()}))
    assert said.models[0].base is None and "cannot be said" in words(said) and "cannot be said" in page(said)


def test_a_request_that_is_gone_leaves_what_the_record_holds() -> None:
    said = explained(record(), version=VERSION, row=None)
    assert (said.request, said.rules, said.models[0].contributions) == (None, (), ())
    for text in (words(said), page(said)):
        assert "no longer in the log" in text and "rule 0 decided" in text and "count_1d" in text


def test_an_absent_view_says_why() -> None:
    made = record(
        points=(record().points[0], dataclasses.replace(record().points[1], absent="stale")),
        answers=(answers()[0], ((None,), (Reason.MISSING,))),
    )
    said = explained(made, version=VERSION)
    (rate,) = said.views[1].features
    assert (rate.value, rate.reason, rate.why) == (None, "MISSING", "absent: stale")
    assert "absent: stale" in words(said) and "absent: stale" in page(said)


def test_a_view_of_another_shape_has_features_without_names() -> None:
    made = record(answers=(((1, 2), (Reason.VALUE, Reason.VALUE)), answers()[1]))
    assert [f.name for f in explained(made, row=ROW).views[0].features] == ["0", "1"]


def test_a_link_that_does_not_fit_and_bits_that_differ_are_marked() -> None:
    sound = explained(record(), version=VERSION)
    assert sound.chain_holds and "is that of its fields" in words(sound) and "class=wrong" not in page(sound)
    forged = explained(
        dataclasses.replace(record(), ruling=ruling(score=0.5)),
        version=VERSION,
        replay="it was computed again and DIFFERS",
        differences=[Difference(decision_id="x", what="score", recorded="0.5", recomputed="<0.95>")],
    )
    assert forged.chain_holds is False and "is NOT that of its fields" in words(forged)
    assert "score: recorded 0.5, recomputed <0.95>" in words(forged)
    assert page(forged).count("class=wrong") == 3 and "recomputed &lt;0.95&gt;" in page(forged)
    unchained = explained(dataclasses.replace(record(), chain=""), version=VERSION)
    assert unchained.chain_holds is None and "before there was a chain" in words(unchained)


def test_flags_and_an_answer_without_reasons_are_told() -> None:
    said = explained(record(ruling=ruling(Outcome.APPROVE, ())), version=VERSION)
    assert "(retried)" in words(said) and "none given" in words(said) and "none given" in page(said)


@pytest.mark.parametrize(("count", "standing"), [(3, Standing.HELD)])
def test_rules_say_how_they_stood(count: int, standing: Standing) -> None:
    said = explained(record(), version=VERSION)
    assert [rule.standing for rule in said.rules] == [standing.value, Standing.NOT_ASKED.value]
    assert said.rules[0].said == "decline if score > 0.92 (the model's reasons)"
    last = explained(record(ruling=ruling(rule=1)), version=Version(checkout(), VIEWS, {"fraud": Explained(0.1)}))
    assert [rule.standing for rule in last.rules] == ["did not hold", "always holds"]
