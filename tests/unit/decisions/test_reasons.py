"""Reasons: each input mapped or left out on purpose, each code with its text, the model's only where they are true."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

import headrace as hr
from headrace.core.aggregate import Reason
from headrace.core.errors import DefinitionError
from headrace.core.expr import Expr
from headrace.decisions.define import Decision, Rule
from headrace.decisions.plan import Decided, Outcome, Standing, Version
from headrace.decisions.reasons import MISSING_DATA, MODEL_SCORE, NO_EVENTS, TEXTS, leans
from tests.unit.decisions.test_plan import ROW, VIEWS, FixedScores, answers
from tests.unit.models.lender import activity, applications, fraud_model, merchant_risk

FRAUD = fraud_model(hr.xgboost())
NAMES = [i.name for i in FRAUD.inputs]
RATIO = (applications.amount / activity.mean_amount_7d).named("amount_vs_mean")
HOUR = hr.hour(applications.created_at)
BY_MODEL = hr.decline_if(hr.score > 0.9, reason=hr.from_model)
LEFT_OUT = [applications.amount, applications.trusted, HOUR]


def checkout(*rules: Rule, **changes: object) -> Decision:
    parts: dict[str, object] = {
        "request": applications,
        "model": FRAUD,
        "policy": [*(rules or (BY_MODEL,)), hr.approve()],
        "reasons": {merchant_risk: "MERCHANT", activity: "ACTIVITY"},
        "not_a_reason": LEFT_OUT,
        **changes,
    }
    return Decision("checkout", **parts)


def given(decision: Decision, raised: Sequence[str], score: float = 0.95) -> tuple[str, ...]:
    version = Version(decision, VIEWS, {"fraud": FixedScores(score, [NAMES.index(name) for name in raised])})
    return version.decide(ROW, answers()).answer.reasons


# --- mapped, or left out on purpose ---


def test_an_input_that_is_neither_is_named() -> None:
    with pytest.raises(DefinitionError) as caught:
        checkout(reasons={merchant_risk: "MERCHANT", activity.count_1d: "RECENT"}, not_a_reason=[HOUR])
    assert caught.value.code == "HR-0708"
    assert caught.value.facts["inputs"] == (
        "amount",
        "trusted",
        "customer_activity.count_7d",
        "customer_activity.mean_amount_7d",
        "customer_activity.sum_amount_7d",
        "customer_activity.time_since_last",
        "amount_vs_mean",
    )
    assert "not_a_reason" in caught.value.hint


def test_every_single_input_that_is_forgotten_is_named() -> None:
    everything = {"amount": applications.amount, "trusted": applications.trusted, "hour_created_at": HOUR}
    everything |= {f"customer_activity.{f.name}": activity[f.name] for f in activity.features}
    everything |= {"merchant_risk.charged_back_rate_30d": merchant_risk.charged_back_rate_30d, "amount_vs_mean": RATIO}
    assert list(everything) == NAMES
    codes = dict.fromkeys(everything.values(), "A")
    checkout(reasons=codes, not_a_reason=[])
    for name, expr in everything.items():
        if name in ("amount_vs_mean",):
            continue  # what it reads has a code, which then stands for it
        with pytest.raises(DefinitionError) as caught:
            checkout(reasons={e: "A" for e in everything.values() if e is not expr}, not_a_reason=[])
        assert caught.value.facts["inputs"] == (name,)


def test_a_decision_that_gives_no_reasons_of_the_model_need_not_map_any() -> None:
    checkout(hr.decline_if(hr.score > 0.9, reason="HIGH_RISK"), reasons=None, not_a_reason=())


def test_a_derived_input_is_left_out_with_all_that_it_reads_or_by_itself() -> None:
    by_parts = checkout(reasons={merchant_risk: "MERCHANT"}, not_a_reason=[*LEFT_OUT, activity])
    assert given(by_parts, ["amount_vs_mean", "merchant_risk.charged_back_rate_30d"]) == ("MERCHANT",)
    by_itself = checkout(not_a_reason=[*LEFT_OUT, RATIO])
    assert given(by_itself, ["amount_vs_mean"]) == (MODEL_SCORE,)
    assert given(checkout(), ["amount_vs_mean"]) == ("ACTIVITY",)  # of what it reads


def test_a_view_stands_for_those_of_its_features_that_have_no_code() -> None:
    decision = checkout(reasons={activity: "ACTIVITY", activity.count_1d: "RECENT", merchant_risk: "MERCHANT"})
    assert given(decision, ["customer_activity.count_1d", "customer_activity.count_7d"]) == ("RECENT", "ACTIVITY")
    but_one = checkout(not_a_reason=[*LEFT_OUT, activity.count_7d])
    assert given(but_one, ["customer_activity.count_7d", "customer_activity.count_1d"]) == ("ACTIVITY",)
    assert given(but_one, ["customer_activity.count_7d"]) == (MODEL_SCORE,)
    left = checkout(reasons={activity.count_1d: "RECENT", merchant_risk: "M"}, not_a_reason=[*LEFT_OUT, activity])
    assert given(left, ["customer_activity.count_7d", "customer_activity.count_1d"]) == ("RECENT",)


@pytest.mark.parametrize(
    "changes",
    [
        {"not_a_reason": [*LEFT_OUT, applications.channel]},
        {"not_a_reason": [*LEFT_OUT, applications.amount > 3]},
        {"reasons": {activity: "ACTIVITY", merchant_risk: "M", applications.amount: "AMOUNT"}},
        {"reasons": {activity: "not a code", merchant_risk: "M"}},
        {"not_a_reason": [*LEFT_OUT, activity]},
    ],
)
def test_what_cannot_be_left_out_or_is_both_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(DefinitionError) as caught:
        checkout(**changes)
    assert caught.value.code == "HR-0706"


def test_leaving_out_is_part_of_what_a_policy_means_and_nothing_else_is_new() -> None:
    plain = checkout(hr.review_if(hr.score > 0.9), reasons=None, not_a_reason=())
    assert set(plain.meaning()) == {"kind", "name", "request", "model", "policy", "reasons", "budget"}
    assert set(plain.policy[0].meaning()) == {"outcome", "condition", "reason", "on_missing", "on_empty"}
    assert checkout().meaning() != checkout(not_a_reason=[*LEFT_OUT, RATIO]).meaning()


# --- which, and in which order ---


def test_a_rules_code_stands_before_the_models_reasons() -> None:
    rule = hr.decline_if(hr.score > 0.9, reason=["HIGH_RISK", hr.from_model])
    raised = ["merchant_risk.charged_back_rate_30d", "customer_activity.count_1d"]
    assert given(checkout(rule), raised) == ("HIGH_RISK", "MERCHANT", "ACTIVITY")
    assert given(checkout(rule), []) == ("HIGH_RISK",)  # nothing else can be said, and need not be
    assert given(checkout(), []) == (MODEL_SCORE,)
    twice = hr.decline_if(hr.score > 0.9, reason=("ACTIVITY", hr.from_model))
    assert given(checkout(twice), raised) == ("ACTIVITY", "MERCHANT")
    only = hr.decline_if(hr.score > 0.9, reason=("FIRST", "SECOND"))
    assert given(checkout(only), raised) == ("FIRST", "SECOND")


def test_at_most_four_are_given() -> None:
    codes = {activity[f.name]: f.name.upper() for f in activity.features}
    rule = hr.decline_if(hr.score > 0.9, reason=["HIGH_RISK", hr.from_model])
    decision = checkout(rule, reasons={merchant_risk: "MERCHANT", **codes})
    raised = [f"customer_activity.{f.name}" for f in activity.features]
    assert given(decision, raised) == ("HIGH_RISK", "COUNT_1D", "COUNT_7D", "MEAN_AMOUNT_7D")


@pytest.mark.parametrize(
    "reason",
    [[], ["A", "A"], [hr.from_model, "A"], ["A", "B", "C", "D", "E"], ["a"], [3], [hr.from_model, hr.from_model]],
)
def test_reasons_of_a_rule_that_cannot_be_are_refused(reason: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        hr.decline_if(hr.score > 0.9, reason=reason)
    assert caught.value.code == "HR-0706"


# --- only what moved the score toward the outcome ---


SCORE, COUNT = hr.score, activity.count_1d


@pytest.mark.parametrize(
    ("condition", "ways"),
    [
        (SCORE > 0.9, {1}),
        (SCORE > 0.9, {1}),
        (SCORE < 0.9, {-1}),
        (~(SCORE >= 0.9), {-1}),
        (1 - SCORE > 0.9, {-1}),
        (-SCORE > -0.1, {-1}),
        (SCORE * 100 > 90, {1}),
        (SCORE / -1 > -0.5, {-1}),
        (SCORE.between(0.3, 0.9), {1, -1}),
        ((SCORE > 0.9) | (COUNT > 3), {1}),
        ((SCORE > 0.9) & (SCORE < 0.95), {1, -1}),
        (SCORE == 0.9, {1, -1}),
        (SCORE > SCORE, {1, -1}),
        (hr.coalesce(SCORE, 0.0) > 0.5, {1}),
        (hr.ln(SCORE).named("log") > -0.5, {1}),
        (hr.if_else(COUNT > 3, SCORE, 0.0) > 0.5, {1, -1}),
        (SCORE.is_null(), set()),
        (COUNT > 3, set()),
    ],
)
def test_which_way_a_condition_leans(condition: Expr, ways: set[int]) -> None:
    assert leans(condition) == ways


@pytest.mark.parametrize(
    "rules",
    [
        [hr.decline_if(hr.score < 0.2, reason=hr.from_model)],
        [hr.decline_if(~(hr.score > 0.2), reason=["LOW", hr.from_model])],
        [hr.approve_if(hr.score > 0.8), hr.decline(reason=hr.from_model)],
        [hr.for_segment(hr.score < 0.5, [hr.review(reason=hr.from_model)])],
    ],
)
def test_the_models_reasons_for_a_low_score_are_refused(rules: list[Rule]) -> None:
    with pytest.raises(DefinitionError) as caught:
        checkout(policy=rules if getattr(rules[-1], "always", False) else [*rules, hr.approve()])
    assert caught.value.code == "HR-0704" and "low scores" in caught.value.message


@pytest.mark.parametrize(
    "rules",
    [
        [hr.approve_if(hr.score < 0.2), hr.decline(reason=hr.from_model)],
        [hr.review_if(hr.score.between(0.5, 0.9), reason=hr.from_model), hr.approve()],
        [hr.review_if(activity.count_1d > 3, reason=hr.from_model), hr.approve()],
    ],
)
def test_the_models_reasons_where_they_may_be_true_are_taken(rules: list[Rule]) -> None:
    checkout(policy=rules)


# --- texts ---


def texts(*codes: str, languages: Sequence[str] = ("en", "de")) -> dict[str, dict[str, str]]:
    return {code: {language: f"{code} in {language}" for language in languages} for code in codes}


def test_texts_are_found_by_code_and_language() -> None:
    decision = checkout(texts=texts("MERCHANT", "ACTIVITY"))
    assert decision.languages == ("en", "de")
    assert decision.text("MERCHANT", "de") == "MERCHANT in de"
    assert decision.text(MODEL_SCORE, "de") == TEXTS[MODEL_SCORE]["de"]
    assert (decision.text("MERCHANT", "fr"), decision.text("UNKNOWN", "en")) == (None, None)
    assert (checkout().languages, checkout().text("MERCHANT", "en")) == ((), None)


def test_our_own_codes_say_what_a_decision_says_instead() -> None:
    decision = checkout(texts={**texts("MERCHANT", "ACTIVITY"), MODEL_SCORE: {"en": "Our assessment."}})
    assert decision.text(MODEL_SCORE, "en") == "Our assessment."
    assert decision.text(MODEL_SCORE, "de") == TEXTS[MODEL_SCORE]["de"]


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ({}, None),
        (texts("MERCHANT"), ("ACTIVITY (en, de)",)),
        ({**texts("MERCHANT"), "ACTIVITY": {"en": "x"}}, ("ACTIVITY (de)",)),
        ({**texts("MERCHANT"), "ACTIVITY": {"en": "x", "de": "  "}}, ("ACTIVITY (de)",)),
        (
            texts("MERCHANT", "ACTIVITY", languages=["fr"]),
            ("MISSING_DATA (fr)", "DEADLINE (fr)", "UNAVAILABLE (fr)", "MODEL_SCORE (fr)"),
        ),
    ],
)
def test_a_code_without_a_text_in_a_language_is_named(
    said: dict[str, dict[str, str]], missing: tuple[str, ...] | None
) -> None:
    if missing is None:
        assert checkout(texts=said).languages == ()
        return
    with pytest.raises(DefinitionError) as caught:
        checkout(texts=said)
    assert (caught.value.code, caught.value.facts["missing"]) == ("HR-0709", missing)


def test_a_code_of_a_rule_needs_a_text_and_one_that_is_never_given_may_have_one() -> None:
    with pytest.raises(DefinitionError) as caught:
        checkout(hr.decline_if(activity.count_1d > 3, reason="MANY"), texts=texts("OTHER"))
    assert caught.value.facts["missing"] == ("MANY (en, de)",)
    decision = checkout(hr.decline_if(activity.count_1d > 3, reason="MANY"), texts=texts("MANY", "OTHER"))
    assert decision.text("OTHER", "en") == "OTHER in en"


def test_a_language_that_is_none_is_refused() -> None:
    with pytest.raises(DefinitionError) as caught:
        checkout(texts=texts("MERCHANT", "ACTIVITY", languages=["English"]))
    assert caught.value.code == "HR-0709"


def test_texts_do_not_change_what_a_policy_means() -> None:
    assert checkout(texts=texts("MERCHANT", "ACTIVITY")).meaning() == checkout().meaning()


def test_every_code_of_ours_that_can_be_given_is_among_a_decisions_codes() -> None:
    assert {MISSING_DATA, MODEL_SCORE} <= set(checkout().codes) and NO_EVENTS not in checkout().codes
    empty = hr.decline_if(activity.mean_amount_7d > 3, reason="A", on_empty="review")
    assert NO_EVENTS in checkout(empty).codes and MODEL_SCORE not in checkout(empty).codes
    assert set(TEXTS) >= {MISSING_DATA, NO_EVENTS, MODEL_SCORE, "DEADLINE", "UNAVAILABLE"}
    assert {tuple(said) for said in TEXTS.values()} == {("en", "de")}


# --- segments ---


WEB = applications.channel == "web"
STRICT = hr.for_segment(WEB, [hr.decline_if(activity.count_1d > 2, reason="MANY_WEB"), hr.approve()])


def decided(*rules: object, row: Sequence[object] = ROW, count: int = 3) -> Decided:
    decision = checkout(model=None, reasons=None, not_a_reason=(), policy=[*rules, hr.review(reason="REST")])
    version = Version(decision, VIEWS[: len(decision.views)], {})
    return version.decide(row, answers(count=count)[: len(decision.views)]).answer


def row(channel: str | None, trusted: bool | None = None) -> tuple[object, ...]:
    return (*ROW[:4], channel, trusted, *ROW[6:])


def test_a_segments_rules_are_asked_of_its_requests_only() -> None:
    general = hr.decline_if(activity.count_1d > 5, reason="MANY")
    assert decided(STRICT, general) == Decided(Outcome.DECLINE, ("MANY_WEB",), 0)
    assert decided(STRICT, general, count=1) == Decided(Outcome.APPROVE, (), 1)
    assert decided(STRICT, general, row=row("shop")) == Decided(Outcome.REVIEW, ("REST",), 3)
    assert decided(STRICT, general, row=row("shop"), count=6) == Decided(Outcome.DECLINE, ("MANY",), 2)


def test_a_request_of_which_it_is_not_known_takes_what_the_rule_says() -> None:
    assert decided(STRICT, row=row(None)) == Decided(Outcome.REVIEW, (MISSING_DATA,), 0)
    harder = hr.for_segment(WEB, [hr.decline_if(activity.count_1d > 2, reason="A", on_missing="decline")])
    assert decided(harder, row=row(None)) == Decided(Outcome.DECLINE, (MISSING_DATA,), 0)
    as_if = hr.for_segment(WEB, [hr.decline_if(activity.count_1d > 2, reason="A", on_missing="apply")])
    assert decided(as_if, row=row(None)) == Decided(Outcome.DECLINE, ("A",), 0)
    assert decided(as_if, row=row(None), count=1) == Decided(Outcome.REVIEW, ("REST",), 1)


def test_what_a_segments_rule_lacks_is_no_matter_outside() -> None:
    rule = hr.for_segment(WEB, [hr.decline_if(applications.trusted, reason="A")])
    assert decided(rule, row=row("web")) == Decided(Outcome.REVIEW, (MISSING_DATA,), 0)
    assert decided(rule, row=row("shop")) == Decided(Outcome.REVIEW, ("REST",), 1)


def test_segments_stand_within_segments() -> None:
    inner = hr.for_segment(applications.amount > 10, [hr.decline_if(activity.count_1d > 2, reason="A"), hr.approve()])
    rules = hr.for_segment(WEB, [inner, hr.review(reason="SMALL")])
    assert decided(rules) == Decided(Outcome.DECLINE, ("A",), 0)
    small = (*ROW[:3], 5_00, *ROW[4:])
    assert decided(rules, row=small) == Decided(Outcome.REVIEW, ("SMALL",), 2)
    assert decided(rules, row=row("shop")) == Decided(Outcome.REVIEW, ("REST",), 3)


def test_a_segment_is_part_of_what_a_policy_means() -> None:
    rule = hr.decline_if(activity.count_1d > 2, reason="A")
    made = [checkout(*rules).policy[0].meaning() for rules in ([rule], hr.for_segment(WEB, [rule]))]
    assert made[1] == {**made[0], "segment": "eq(applications.channel, 'web')"}
    other = checkout(*hr.for_segment(applications.channel == "shop", [rule])).policy[0].meaning()
    assert other != made[1]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: hr.for_segment(applications.channel, [hr.approve()]), "HR-0707"),
        (lambda: hr.for_segment(WEB, []), "HR-0702"),
        (lambda: hr.for_segment(WEB, [hr.approve(), hr.review()]), "HR-0702"),
        (lambda: checkout(policy=[hr.for_segment(WEB, [hr.approve()])]), "HR-0702"),
        (lambda: checkout(*hr.for_segment(activity.mean_amount_7d > 3, [hr.review()])), "HR-0703"),
        (lambda: checkout(model=None, reasons=None, not_a_reason=(), policy=[
            hr.for_segment(hr.score > 3, [hr.review()]), hr.approve()]), "HR-0704"),
    ],
)  # fmt: skip
def test_a_segment_that_cannot_be_is_refused(make: object, code: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert caught.value.code == code


def test_a_views_segment_is_read() -> None:
    rule = hr.for_segment(merchant_risk.charged_back_rate_30d > 0.5, [hr.review(reason="RISKY")])
    assert checkout(model=None, reasons=None, not_a_reason=(), policy=[rule, hr.approve()]).views == ("merchant_risk",)


def test_what_a_trace_says_is_what_was_decided() -> None:
    """Every mix of segments, conditions and nulls: the rule that decides is the one whose standing says so, what stands
    before it passed, what stands behind it was not asked."""
    mean = activity.mean_amount_7d
    asked = [
        hr.decline_if(mean > 15, reason="A", on_empty="skip"),
        hr.for_segment(
            WEB, [hr.review_if(mean > 25, on_empty="apply"), hr.decline_if(activity.count_1d > 9, reason="B")]
        ),
        hr.for_segment(applications.trusted, [hr.approve()]),
        hr.review_if(applications.amount / mean > 3, on_empty="decline", on_missing="apply"),
    ]
    seen = set()
    for order in itertools.permutations(asked):
        decision = checkout(model=None, reasons=None, not_a_reason=(), policy=[*order, hr.approve()])
        version = Version(decision, VIEWS[:1], {})
        for channel, trusted, count, (value, why) in itertools.product(
            ("web", "shop", None),
            (True, False, None),
            (3, 10),
            ((20.0, Reason.VALUE), (10.0, Reason.VALUE), (None, Reason.EMPTY), (None, Reason.MISSING)),
        ):
            given = row(channel, trusted), answers(count=count, mean=value, why=why)[:1]
            found = version.decide(*given).answer
            standings = version.own.policy.trace(*version.own.weighed(*version.weigh(*given)))
            passed = {Standing.FALSE, Standing.OUTSIDE, Standing.SKIPPED}
            assert set(standings[: found.rule]) <= passed
            assert standings[found.rule] in (Standing.HELD, Standing.NULL)
            assert set(standings[found.rule + 1 :]) <= {Standing.NOT_ASKED}
            null = found.reasons in ((MISSING_DATA,), (NO_EVENTS,))
            assert (standings[found.rule] is Standing.NULL) == null
            seen |= set(standings)
    assert seen == set(Standing)
