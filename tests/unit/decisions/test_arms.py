"""Several models in one decision, and challengers beside it: who reads which score, who answers for whom."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.core.errors import DefinitionError
from headrace.decisions.define import Challenger, Decision, Outcome
from headrace.decisions.plan import Decided, Ruling, Version, key_place
from headrace.models.define import Model
from tests.unit.decisions.test_plan import ROW, VIEWS, FixedScores, answers, checkout
from tests.unit.models.lender import activity, applications, chargebacks, charged_back, fraud_model, merchant_risk

FRAUD = fraud_model(hr.xgboost())
DEFAULT = Model(
    "default",
    features=[applications.amount, activity.count_1d],
    label=charged_back,
    trainer=hr.xgboost(),
)
LEFT_OUT = [applications.trusted, hr.hour(applications.created_at), activity, merchant_risk]


def both(*rules: object, **changes: object) -> Decision:
    parts: dict[str, object] = {
        "request": applications,
        "models": [FRAUD, DEFAULT],
        "policy": [*rules, hr.approve()],
        "reasons": {merchant_risk: "MERCHANT", activity.count_1d: "RECENT", applications.amount: "AMOUNT"},
        "not_a_reason": [*LEFT_OUT[:3]],
        **changes,
    }
    return Decision("checkout", **parts)


def by_models(fraud: float, default: float, *rules: object) -> Decided:
    names = [i.name for i in FRAUD.inputs]
    version = Version(
        both(*rules),
        VIEWS,
        {
            "default": FixedScores(default, [1, 0], views={"customer_activity": "a1"}),
            "fraud": FixedScores(fraud, [names.index("merchant_risk.charged_back_rate_30d")]),
        },
    )
    return version.decide(ROW, answers()).answer


# --- several models ---


def test_each_rule_reads_the_score_it_names_and_gives_that_models_reasons() -> None:
    rules = (
        hr.decline_if(FRAUD.score > 0.9, reason=hr.from_model),
        hr.review_if(DEFAULT.score > 0.5, reason=["RISKY", hr.from_model]),
    )
    assert by_models(0.95, 0.6, *rules) == Decided(
        Outcome.DECLINE, ("MERCHANT",), 0, (("fraud", 0.95), ("default", 0.6))
    )
    assert by_models(0.2, 0.6, *rules) == Decided(
        Outcome.REVIEW, ("RISKY", "RECENT", "AMOUNT"), 1, (("fraud", 0.2), ("default", 0.6))
    )
    assert by_models(0.2, 0.1, *rules).outcome is Outcome.APPROVE
    assert by_models(0.5, 0.5, hr.decline_if(FRAUD.score + DEFAULT.score > 0.9, reason="BOTH")).rule == 0


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (hr.decline_if(hr.score > 0.9, reason="A"), "fraud.score"),
        (hr.decline_if(FRAUD.score > 0.9, reason="A"), None),
        (hr.review(reason=hr.from_model), "does not say of which model"),
        (hr.decline_if(FRAUD.score + DEFAULT.score > 1, reason=hr.from_model), "does not say of which model"),
        (hr.decline_if(activity.count_1d > 1, reason=hr.from_model), "does not say of which model"),
        (hr.decline_if(Model("other", features=[applications.amount], label=charged_back,
                             trainer=hr.xgboost()).score > 0.9, reason="A"), "other.score"),
    ],
)  # fmt: skip
def test_which_model_is_meant_is_said(rule: object, said: str | None) -> None:
    rules = [rule] if getattr(rule, "condition", None) is None else [rule, hr.approve()]
    if said is None:
        both(policy=rules)
        return
    with pytest.raises(DefinitionError) as caught:
        both(policy=rules)
    assert caught.value.code == "HR-0704" and said in str(caught.value)


def test_every_input_of_every_model_that_gives_reasons_is_mapped() -> None:
    rule = hr.decline_if(DEFAULT.score > 0.9, reason=hr.from_model)
    both(rule, reasons={activity.count_1d: "RECENT"}, not_a_reason=[applications.amount])  # fraud gives no reasons
    with pytest.raises(DefinitionError) as caught:
        both(rule, reasons={activity.count_1d: "RECENT"}, not_a_reason=[])
    assert caught.value.code == "HR-0708" and "'default'" in caught.value.message and "amount" in caught.value.detail


def test_models_are_named_once_and_in_one_way() -> None:
    for changes in ({"model": FRAUD}, {"models": [FRAUD, FRAUD]}):
        with pytest.raises(DefinitionError) as caught:
            both(**changes)
        assert caught.value.code == "HR-0705"
    with pytest.raises(DefinitionError) as caught:
        checkout(policy=[hr.decline_if(FRAUD.score > 0.9, reason="A"), hr.approve()])
    assert caught.value.code == "HR-0704" and "hr.score" in caught.value.hint


def test_the_version_set_of_one_model_is_what_it_was_and_of_several_names_each() -> None:
    one = Version(checkout(), VIEWS, {"fraud": FixedScores()})
    assert '"model":"artifact"' in one.text and "models" not in one.text and "challengers" not in one.text
    two = Version(both(), VIEWS, {"fraud": FixedScores(), "default": FixedScores(views={"customer_activity": "a1"})})
    assert '"model":null' in two.text and '"models":[["fraud","artifact"],["default","artifact"]]' in two.text


# --- challengers ---


def challenged(*shares: float) -> Decision:
    """By others that decline above 0.5, 0.4, ..."""
    others = [
        Challenger(
            Decision(
                f"next_{place}",
                request=applications,
                model=FRAUD,
                policy=[hr.decline_if(hr.score > 0.5 - place / 10, reason=f"NEXT_{place}"), hr.approve()],
            ),
            share=share,
        )
        for place, share in enumerate(shares)
    ]
    return checkout(challengers=others)


def ruled(decision: Decision, customer: int = 7, score: float = 0.6) -> Ruling:
    version = Version(decision, VIEWS, {"fraud": FixedScores(score)})
    return version.decide((ROW[0], customer, *ROW[2:]), answers())


def test_a_shadow_is_asked_and_does_not_answer() -> None:
    said = ruled(challenged(0, 0))
    assert said.answer.outcome is Outcome.APPROVE and said.arm is None
    scores = (("fraud", 0.6),)
    assert said.beside == (
        ("next_0", Decided(Outcome.DECLINE, ("NEXT_0",), 0, scores)),
        ("next_1", Decided(Outcome.DECLINE, ("NEXT_1",), 0, scores)),
    )


def test_a_share_of_the_keys_is_answered_by_the_challenger_and_by_the_same_every_time() -> None:
    def arms(*shares: float) -> list[str | None]:
        version = Version(challenged(*shares), VIEWS, {"fraud": FixedScores(0.6)})
        return [version.decide((ROW[0], customer, *ROW[2:]), answers()).arm for customer in range(2_000)]

    some, more = arms(0.05, 0.1), arms(0.1, 0.1)
    assert 60 < some.count("next_0") < 140 and 140 < some.count("next_1") < 260
    assert some == arms(0.05, 0.1)
    assert all(after == "next_0" for before, after in zip(some, more, strict=True) if before == "next_0")
    assert set(arms(1.0)) == {"next_0"} and set(arms(0.0)) == {None} and None not in arms(0.5, 0.5)


def test_where_a_challenger_answers_the_decision_itself_stands_beside() -> None:
    said = ruled(challenged(1.0, 0.0))
    assert (said.arm, said.answer.outcome, said.answer.reasons) == ("next_0", Outcome.DECLINE, ("NEXT_0",))
    assert [name for name, _ in said.beside] == ["checkout", "next_1"]
    assert said.beside[0][1].outcome is Outcome.APPROVE


def test_an_arm_is_found_by_its_name() -> None:
    version = Version(challenged(1.0, 0.0), VIEWS, {"fraud": FixedScores(0.6)})
    assert version.arm(None) is version.own and version.own.decision.name == "checkout"
    assert [version.arm(name).decision.name for name in ("next_0", "next_1")] == ["next_0", "next_1"]


def test_keys_stand_elsewhere_for_another_decision() -> None:
    places = [(key_place("checkout", k), key_place("limits", k)) for k in range(400)]
    assert sum((a < 2**63) == (b < 2**63) for a, b in places) in range(150, 250)
    assert key_place("checkout", "7") != key_place("checkout", 7)
    assert key_place("checkout", 7) == 0xEF87C794C291302F  # for ever: a record says who answered, not why


@pytest.mark.parametrize("share", [-0.1, 1.1, "5%", True, float("nan")])
def test_a_share_is_a_part_of_one(share: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        Challenger(checkout(), share=share)
    assert caught.value.code == "HR-0718"


def test_what_cannot_challenge_is_refused() -> None:
    elsewhere = Decision("other", request=chargebacks_with_id(), policy=[hr.approve()])
    for challengers in (
        [Challenger(elsewhere)],
        [Challenger(checkout())],
        [Challenger(Decision("next", request=applications, policy=[hr.approve()]))] * 2,
        [Challenger(Decision("outer", request=applications, policy=[hr.approve()], challengers=[
            Challenger(Decision("inner", request=applications, policy=[hr.approve()]))]))],
    ):  # fmt: skip
        with pytest.raises(DefinitionError) as caught:
            checkout(challengers=challengers)
        assert caught.value.code == "HR-0718"
    with pytest.raises(DefinitionError) as caught:
        challenged(0.6, 0.6)
    assert "more than 1" in caught.value.message


def chargebacks_with_id() -> hr.Topic:
    return hr.Topic(
        "others", key="id", id="id", fields={f.name: f.type for f in chargebacks.schema} | {"id": hr.string}
    )
