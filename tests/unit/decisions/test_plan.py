"""Policies: the first rule that applies decides, and every kind of null goes where its rule says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

import headrace as hr
from headrace.core.aggregate import Reason
from headrace.core.errors import DefinitionError
from headrace.decisions.define import Decision, Outcome, Rule
from headrace.decisions.plan import (
    Decided,
    Policy,
    Ruling,
    Values,
    Version,
    ViewVersion,
    policy_fingerprint,
    value_names,
)
from headrace.decisions.reasons import MISSING_DATA, MODEL_SCORE, NO_EVENTS
from tests.unit.models.lender import activity, applications, fraud_model, merchant_risk

VIEWS = (
    ViewVersion(
        name="customer_activity",
        fingerprint="a1",
        features=tuple(f.name for f in activity.features),
        topics=("applications",),
    ),
    ViewVersion(
        name="merchant_risk",
        fingerprint="b1",
        features=tuple(f.name for f in merchant_risk.features),
        topics=("applications", "chargebacks"),
    ),
)
NAMES = (*value_names(applications, VIEWS), "score")
ROW = ("a-1", 7, 9, 12_50, "web", None, 1_000_000, None, None)


def answers(count: int | None = 3, mean: float | None = 20.0, why: Reason = Reason.VALUE) -> list[object]:
    """Of both views; `why` is why the mean is what it is."""
    activity_values = (count, 9, mean, 180_00, 5_000_000)
    return [
        (activity_values, (Reason.VALUE, Reason.VALUE, why, Reason.VALUE, Reason.VALUE)),
        ((0.25,), (Reason.VALUE,)),
    ]


def decided(*rules: Rule, row: Sequence[object] = ROW, said: list[object] | None = None) -> Decided:
    policy = Policy(rules, NAMES)
    values, reasons = list(row), [Reason.VALUE] * len(row)
    for found, why in answers() if said is None else said:
        values += found
        reasons += why
    return policy.evaluate([*values, 0.9], [*reasons, Reason.VALUE], lambda rule: ("FROM_MODEL",))


def test_the_first_rule_that_applies_decides() -> None:
    rules = (
        hr.decline_if(activity.count_1d > 3, reason="MANY"),
        hr.review_if(applications.amount > 12),
        hr.decline_if(hr.score > 0.5, reason=hr.from_model),
        hr.approve(),
    )
    assert decided(*rules) == Decided(Outcome.REVIEW, (), 1)
    assert decided(*rules, said=answers(count=4)) == Decided(Outcome.DECLINE, ("MANY",), 0)
    cheap = (*ROW[:3], 1_00, *ROW[4:])
    assert decided(*rules, row=cheap) == Decided(Outcome.DECLINE, ("FROM_MODEL",), 2)
    assert decided(*rules[:2], hr.approve(), row=cheap) == Decided(Outcome.APPROVE, (), 2)


MEAN_RULE = {"condition": activity.mean_amount_7d > 100, "reason": "HIGH_MEAN"}


@pytest.mark.parametrize("why", [Reason.MISSING, Reason.LIMIT, Reason.OVERFLOW, Reason.ERASED])
@pytest.mark.parametrize(
    ("on_missing", "expected"),
    [
        ("review", Decided(Outcome.REVIEW, (MISSING_DATA,), 0)),
        ("decline", Decided(Outcome.DECLINE, (MISSING_DATA,), 0)),
        ("approve", Decided(Outcome.APPROVE, (MISSING_DATA,), 0)),
        ("apply", Decided(Outcome.DECLINE, ("HIGH_MEAN",), 0)),
    ],
)
def test_missing_takes_on_missing(why: Reason, on_missing: str, expected: Decided) -> None:
    rule = hr.decline_if(**MEAN_RULE, on_missing=on_missing, on_empty="skip")
    assert decided(rule, hr.approve(), said=answers(mean=None, why=why)) == expected


@pytest.mark.parametrize(
    ("on_empty", "expected"),
    [
        ("skip", Decided(Outcome.APPROVE, (), 1)),
        ("review", Decided(Outcome.REVIEW, (NO_EVENTS,), 0)),
        ("decline", Decided(Outcome.DECLINE, (NO_EVENTS,), 0)),
        ("apply", Decided(Outcome.DECLINE, ("HIGH_MEAN",), 0)),
    ],
)
def test_empty_takes_on_empty(on_empty: str, expected: Decided) -> None:
    rule = hr.decline_if(**MEAN_RULE, on_empty=on_empty)
    assert decided(rule, hr.approve(), said=answers(mean=None, why=Reason.EMPTY)) == expected


def test_missing_is_not_hidden_by_coalesce() -> None:
    rule = hr.decline_if(hr.coalesce(activity.mean_amount_7d, 0.0) > 100, reason="A")
    assert decided(rule, hr.approve(), said=answers(mean=None, why=Reason.EMPTY)).outcome is Outcome.APPROVE
    assert decided(rule, hr.approve(), said=answers(mean=None, why=Reason.MISSING)).outcome is Outcome.REVIEW


def test_a_null_field_of_the_request_is_missing() -> None:
    rule = hr.decline_if(~applications.trusted, reason="A")
    assert decided(rule, hr.approve()) == Decided(Outcome.REVIEW, (MISSING_DATA,), 0)


def test_a_null_field_beside_an_empty_window_is_missing() -> None:
    rule = hr.decline_if(
        applications.trusted & (activity.mean_amount_7d > 100), reason="A", on_empty="skip", on_missing="decline"
    )
    said = answers(mean=None, why=Reason.EMPTY)
    assert decided(rule, hr.approve(), said=said) == Decided(Outcome.DECLINE, (MISSING_DATA,), 0)


def test_a_null_of_arithmetic_is_missing() -> None:
    rule = hr.decline_if(applications.amount / activity.count_1d > 3, reason="A")
    assert decided(rule, hr.approve(), said=answers(count=0)) == Decided(Outcome.REVIEW, (MISSING_DATA,), 0)


def test_no_null_falls_through_to_approve() -> None:
    """Every way to be null, every on_missing but approve, every on_empty but skip: never APPROVE."""
    ways = [
        ({"mean": None, "why": why}, ROW)
        for why in (Reason.EMPTY, Reason.MISSING, Reason.LIMIT, Reason.OVERFLOW, Reason.ERASED, Reason.VALUE)
    ]
    conditions = [activity.mean_amount_7d > 100, applications.amount / activity.mean_amount_7d > 3]
    for (said, row), condition, on_missing, on_empty in itertools.product(
        ways, conditions, ("review", "decline", "apply"), ("review", "decline", "apply")
    ):
        rule = hr.decline_if(condition, reason="A", on_missing=on_missing, on_empty=on_empty)
        found = decided(rule, hr.approve(), row=row, said=answers(**said))
        assert found.outcome is not Outcome.APPROVE and found.rule == 0


class FixedScores:
    """A model that always says the same."""

    def __init__(self, score: float = 0.95, raised: Sequence[int] = (), views: dict[str, str] | None = None) -> None:
        self.id = "artifact"
        self.views = {"customer_activity": "a1", "merchant_risk": "b1"} if views is None else views
        self._score, self._raised = score, raised

    def score(self, row: Values) -> float:
        return self._score

    def raised_by(self, row: Values) -> Sequence[int]:
        return self._raised


def checkout(**changes: object) -> Decision:
    parts: dict[str, object] = {
        "request": applications,
        "model": fraud_model(hr.xgboost()),
        "policy": [hr.decline_if(hr.score > 0.92, reason=hr.from_model), hr.approve()],
        "reasons": {
            merchant_risk.charged_back_rate_30d: "MERCHANT_HISTORY",
            activity.mean_amount_7d: "USUAL_AMOUNT",
            activity.count_1d: "RECENT_ACTIVITY",
        },
        "not_a_reason": [applications.amount, applications.trusted, hr.hour(applications.created_at), activity],
        **changes,
    }
    return Decision("checkout", **parts)


def test_reasons_are_the_codes_of_what_raised_the_score() -> None:
    names = [i.name for i in fraud_model(hr.xgboost()).inputs]
    raised = [names.index(n) for n in ("amount_vs_mean", "amount", "merchant_risk.charged_back_rate_30d")]
    version = Version(checkout(), VIEWS, {"fraud": FixedScores(raised=raised)})
    found = version.decide(ROW, answers()).answer
    score = found.score
    # The derived input has no code of its own: that of the feature it reads stands for it.
    assert (score, found) == (
        0.95,
        Decided(Outcome.DECLINE, ("USUAL_AMOUNT", "MERCHANT_HISTORY"), 0, (("fraud", 0.95),)),
    )
    nothing = Version(checkout(), VIEWS, {"fraud": FixedScores(raised=[names.index("amount")])})
    assert nothing.decide(ROW, answers()).answer.reasons == (MODEL_SCORE,)


def test_an_input_with_a_code_of_its_own_gives_that_one() -> None:
    ratio = (applications.amount / activity.mean_amount_7d).named("amount_vs_mean")
    decision = checkout(reasons={ratio: "UNUSUAL_AMOUNT", activity.mean_amount_7d: "USUAL_AMOUNT", merchant_risk: "M"})
    names = [i.name for i in fraud_model(hr.xgboost()).inputs]
    version = Version(decision, VIEWS, {"fraud": FixedScores(raised=[names.index("amount_vs_mean")])})
    assert version.decide(ROW, answers()).answer.reasons == ("UNUSUAL_AMOUNT",)


def test_four_reasons_are_given_each_once_and_the_weightiest_first() -> None:
    coded = ("count_1d", "count_7d", "mean_amount_7d", "sum_amount_7d", "time_since_last")
    decision = checkout(reasons={merchant_risk: "M", **{activity[name]: name.upper() for name in coded}})
    names = [i.name for i in fraud_model(hr.xgboost()).inputs]
    raised = [names.index(f"customer_activity.{name}") for name in (*coded[::-1], coded[3])]
    version = Version(decision, VIEWS, {"fraud": FixedScores(raised=raised[:1] * 2 + raised)})
    assert version.decide(ROW, answers()).answer.reasons == tuple(name.upper() for name in coded[::-1][:4])


def test_a_score_over_a_missing_input_is_a_guess() -> None:
    version = Version(checkout(), VIEWS, {"fraud": FixedScores()})
    for why, expected in (
        (Reason.EMPTY, Outcome.DECLINE),
        (Reason.LIMIT, Outcome.DECLINE),
        (Reason.MISSING, Outcome.REVIEW),
    ):
        found = version.decide(ROW, answers(mean=None, why=why)).answer
        score = found.score
        assert (score, found.outcome) == (0.95, expected)


def test_a_score_that_is_no_number_is_null() -> None:
    version = Version(checkout(), VIEWS, {"fraud": FixedScores(float("nan"))})
    assert version.decide(ROW, answers()) == Ruling(Decided(Outcome.REVIEW, (MISSING_DATA,), 0, (("fraud", None),)))


def test_an_absent_view_is_missing_everywhere() -> None:
    version = Version(checkout(), VIEWS, {"fraud": FixedScores()})
    said = [answers()[0], version.absent(1)]
    assert version.absent(1) == ((None,), (Reason.MISSING,))
    assert version.decide(ROW, said).answer.outcome is Outcome.REVIEW


@pytest.mark.parametrize(
    ("views", "scores"),
    [
        (VIEWS[::-1], {"fraud": FixedScores()}),
        (VIEWS[:1], {"fraud": FixedScores()}),
        (VIEWS, {}),
        (VIEWS, {"other": FixedScores()}),
        (VIEWS, {"fraud": FixedScores(), "other": FixedScores()}),
        (VIEWS, {"fraud": FixedScores(views={"customer_activity": "a1", "merchant_risk": "b0"})}),
    ],
)
def test_a_version_pins_what_its_model_was_trained_on(
    views: Sequence[ViewVersion], scores: dict[str, FixedScores]
) -> None:
    with pytest.raises(DefinitionError) as caught:
        Version(checkout(), views, scores)
    assert caught.value.code == "HR-0712"


def test_the_version_set_names_every_part() -> None:
    decision = checkout()
    text = Version(decision, VIEWS, {"fraud": FixedScores()}).text
    assert policy_fingerprint(decision) in text and '"model":"artifact"' in text
    assert '[["customer_activity","a1"],["merchant_risk","b1"]]' in text
    assert '"semantics":2' in text


def test_a_version_without_a_model_decides_by_its_rules() -> None:
    decision = checkout(
        model=None,
        reasons=None,
        not_a_reason=(),
        policy=[hr.decline_if(activity.count_1d > 2, reason="MANY"), hr.approve()],
    )
    version = Version(decision, VIEWS[:1], {})
    assert '"model":null' in version.text
    assert version.decide(ROW, answers()[:1]) == Ruling(Decided(Outcome.DECLINE, ("MANY",), 0))
    assert version.decide(ROW, answers(count=2)[:1]) == Ruling(Decided(Outcome.APPROVE, (), 1))


def test_what_a_version_prints_is_what_it_is_made_of() -> None:
    version = Version(checkout(), VIEWS, {"fraud": FixedScores()})
    assert (version.views, version.own.names) == (VIEWS, NAMES) and version.decision.name == "checkout"
    assert not any(
        computed in repr(version) for computed in ("_score_reads", "_told", "_places", "_plain", "_ramps", "_key")
    )
