"""Decision definitions: requests have an identity, policies an end, and no null falls through."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import headrace as hr
from headrace.core.errors import DefinitionError, LeakError, MaturityError
from headrace.decisions.define import Decision, OnNull, Outcome
from headrace.features import define
from headrace.features.define import FeatureView
from tests.unit.models.lender import activity, applications, chargebacks, charged_back, fraud_model, merchant_risk

FRAUD = fraud_model(hr.xgboost())
OTHERS = [applications.amount, applications.trusted, hr.hour(applications.created_at), activity]


def checkout(*policy: object, **changes: object) -> Decision:
    parts: dict[str, object] = {"request": applications, "model": FRAUD, "policy": [*policy, hr.approve()], **changes}
    return Decision("checkout", **parts)


def test_the_designs_example_stands() -> None:
    decision = checkout(
        hr.decline_if(activity.count_1d > 10, reason="TOO_MANY_APPLICATIONS"),
        hr.decline_if(hr.score > 0.92, reason=hr.from_model),
        hr.review_if(hr.score > 0.80),
        reasons={merchant_risk.charged_back_rate_30d: "MERCHANT_HISTORY", activity.count_1d: "RECENT_ACTIVITY"},
        not_a_reason=OTHERS,
        budget="20ms",
    )
    assert decision.views == ("customer_activity", "merchant_risk")
    assert [rule.outcome for rule in decision.policy] == [
        Outcome.DECLINE,
        Outcome.DECLINE,
        Outcome.REVIEW,
        Outcome.APPROVE,
    ]
    assert decision.reasons == (
        ("merchant_risk.charged_back_rate_30d", "MERCHANT_HISTORY"),
        ("customer_activity.count_1d", "RECENT_ACTIVITY"),
    )


def test_a_request_topic_without_id_is_refused() -> None:
    pings = hr.Topic("pings", key="device", fields={"device": hr.string})
    with pytest.raises(DefinitionError) as caught:
        checkout(request=pings, model=None)
    assert caught.value.code == "HR-0701"


@pytest.mark.parametrize(
    "policy",
    [
        [],
        [hr.review_if(activity.count_1d > 3)],
        [hr.approve(), hr.review_if(activity.count_1d > 3)],
        [hr.approve(), hr.review_if(activity.count_1d > 3), hr.approve()],
    ],
)
def test_a_policy_that_does_not_end_or_ends_early_is_refused(policy: list[object]) -> None:
    with pytest.raises(DefinitionError) as caught:
        checkout(policy=policy)
    assert caught.value.code == "HR-0702"


@pytest.mark.parametrize(
    "condition",
    [
        activity.mean_amount_7d > 100,
        activity.time_since_last < 60_000_000,
        applications.amount / activity.mean_amount_7d > 3,
        (activity.mean_amount_7d > 100) | (activity.count_1d > 3),
    ],
)
def test_a_rule_over_what_may_be_empty_says_what_then(condition: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        checkout(hr.decline_if(condition, reason="A"))
    assert caught.value.code == "HR-0703"
    assert "on_empty='skip'" in caught.value.hint
    checkout(hr.decline_if(condition, reason="A", on_empty="skip"))


@pytest.mark.parametrize(
    "condition",
    [
        activity.count_1d > 3,
        activity.sum_amount_7d > 1000,  # empty=0 stands in
        merchant_risk.charged_back_rate_30d > 0.1,
        hr.coalesce(activity.mean_amount_7d, 0.0) > 100,
        activity.mean_amount_7d.is_null(),
        hr.score > 0.5,
        applications.amount > 1000,
    ],
)
def test_a_rule_that_no_empty_window_can_make_null_need_not(condition: object) -> None:
    assert checkout(hr.decline_if(condition, reason="A")).policy[0].on_empty is None


@pytest.mark.parametrize(
    ("policy", "changes", "code"),
    [
        ([hr.review_if(hr.score > 0.5)], {"model": None}, "HR-0704"),
        ([hr.decline_if(activity.count_1d > 3, reason=hr.from_model)], {"model": None}, "HR-0704"),
        ([hr.review_if(chargebacks.share > 0.5)], {}, "HR-0704"),
        ([], {"reasons": {applications.channel: "CHANNEL"}}, "HR-0706"),
        ([], {"reasons": {activity.count_1d: "not a code"}}, "HR-0706"),
        ([], {"budget": "0s"}, "HR-0707"),
    ],
)
def test_what_is_not_at_hand_is_refused(policy: list[object], changes: dict[str, object], code: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        checkout(*policy, **changes)
    assert caught.value.code == code


def test_a_model_of_another_topic_is_refused() -> None:
    other = hr.Topic("other", key="id", id="id", fields={"id": hr.int64})
    with pytest.raises(DefinitionError) as caught:
        checkout(request=other)
    assert caught.value.code == "HR-0705"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: hr.decline_if(hr.score, reason="A"), "HR-0707"),
        (lambda: hr.decline_if(hr.score > 0.5, reason="too many"), "HR-0706"),
        (lambda: hr.decline_if(hr.score > 0.5, reason="A", on_missing="skip"), "HR-0707"),
        (lambda: hr.decline_if(hr.score > 0.5, reason="A", on_missing="ignore"), "HR-0707"),
        (lambda: hr.review_if(hr.score > 0.5, on_empty="ignore"), "HR-0707"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(make: Callable[[], object], code: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert caught.value.code == code


def test_a_rule_over_what_is_known_only_later_is_refused() -> None:
    with pytest.raises(LeakError) as leak:
        checkout(hr.review_if(applications.loss > 0))
    assert leak.value.facts["path"] == ("applications.loss", "checkout")
    with pytest.raises(MaturityError):
        checkout(hr.review_if(charged_back.expression))
    honest = FeatureView(
        "honest", entity="customer_id", source=applications, features=[define.rate(charged_back).over("90d", empty=0)]
    )
    assert checkout(hr.review_if(honest.charged_back_rate_90d > 0.5)).views[-1] == "honest"


def test_meaning_changes_with_a_rule_and_not_with_text() -> None:
    one = checkout(hr.review_if(hr.score > 0.8))
    assert checkout(hr.review_if(hr.score > 0.8), description="x").meaning() == one.meaning()
    for other in (
        hr.review_if(hr.score > 0.81),
        hr.review_if(hr.score > 0.8, on_missing="decline"),
        hr.decline_if(hr.score > 0.8, reason="A"),
        hr.review_if(hr.score > 0.8, reason="A"),
    ):
        assert checkout(other).meaning() != one.meaning()


def test_missing_is_reviewed_unless_said_otherwise() -> None:
    assert hr.decline_if(hr.score > 0.5, reason="A").on_missing is OnNull.REVIEW
