"""Model definitions: inputs named and ordered, types that a scorer takes, nothing that is known only later."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import headrace as hr
from headrace.core.errors import DefinitionError, LeakError, MaturityError
from headrace.core.times import Duration
from headrace.features import define
from headrace.features.define import FeatureView, Label
from headrace.models.define import Method, Model, check_entities
from tests.unit.models.lender import activity, applications, chargebacks, charged_back, fraud_model, merchant_risk

LOGISTIC = hr.logistic_regression()


def test_inputs_are_named_and_in_order() -> None:
    model = fraud_model(hr.xgboost(max_depth=6))
    assert [i.name for i in model.inputs] == [
        "amount",
        "trusted",
        "hour_created_at",
        "customer_activity.count_1d",
        "customer_activity.count_7d",
        "customer_activity.mean_amount_7d",
        "customer_activity.sum_amount_7d",
        "customer_activity.time_since_last",
        "merchant_risk.charged_back_rate_30d",
        "amount_vs_mean",
    ]
    assert model.views == ("customer_activity", "merchant_risk")
    assert model.topic == "applications"
    assert model.maturity == Duration.parse("33d")


def test_a_late_column_of_the_topic_can_be_the_label() -> None:
    model = fraud_model(LOGISTIC, label=applications.fraud, features=[applications.amount])
    assert (model.topic, model.label_name, model.maturity) == ("applications", "fraud", Duration.parse("7d"))


@pytest.mark.parametrize(
    ("leaky", "kind", "code", "path"),
    [
        (lambda: applications.loss, LeakError, "HR-0201", "applications.loss"),
        (lambda: (applications.loss * 2).named("twice"), LeakError, "HR-0201", "applications.loss"),
        (lambda: hr.coalesce(applications.loss, 0.0).named("or_zero"), LeakError, "HR-0201", "applications.loss"),
        (lambda: applications.loss.is_null().named("no_loss"), LeakError, "HR-0201", "applications.loss"),
        (lambda: applications.fraud, LeakError, "HR-0201", "applications.fraud"),
        (
            lambda: hr.if_else(applications.fraud, applications.amount, 0).named("x"),
            LeakError,
            "HR-0201",
            "applications.fraud",
        ),
        (lambda: charged_back, MaturityError, "HR-0202", "charged_back"),
        (lambda: (~charged_back.expression).named("paid"), MaturityError, "HR-0202", "charged_back"),
        (
            lambda: (activity.count_1d / (applications.loss + 1)).named("ratio"),
            LeakError,
            "HR-0201",
            "applications.loss",
        ),
    ],
)
def test_an_input_that_is_known_only_later_is_refused(
    leaky: Callable[[], object], kind: type[DefinitionError], code: str, path: str
) -> None:
    with pytest.raises(kind) as caught:
        fraud_model(LOGISTIC, features=[applications.amount, leaky()])
    assert caught.value.code == code
    assert path in caught.value.facts["path"]
    assert caught.value.facts["path"][-1] == "fraud"


def test_what_is_known_of_a_late_column_by_then_is_honest() -> None:
    losses = FeatureView(
        "losses",
        entity="customer_id",
        source=applications,
        features=[
            define.sum(applications.loss).over("30d", delay="60d").named("old"),
            define.sum(applications.loss, known="so_far").over("30d").named("so_far"),
        ],
    )
    assert len(fraud_model(LOGISTIC, features=[losses]).inputs) == 2


@pytest.mark.parametrize(
    ("features", "code"),
    [
        ([applications.channel], "HR-0601"),
        ([applications.created_at], "HR-0601"),
        ([activity, activity.count_1d], "HR-0602"),
        ([applications.amount + 1], "HR-0602"),
        ([chargebacks.share], "HR-0603"),
        ([(hr.score * 2).named("score_twice")], "HR-0603"),
        ([], "HR-0606"),
    ],
)
def test_an_input_that_cannot_be_one_is_refused(features: list[object], code: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        fraud_model(LOGISTIC, features=features)
    assert caught.value.code == code


def test_a_text_is_refused_with_a_way_out() -> None:
    with pytest.raises(DefinitionError) as caught:
        fraud_model(LOGISTIC, features=[applications.channel])
    assert ".named('is_web')" in caught.value.hint
    assert fraud_model(LOGISTIC, features=[(applications.channel == "web").named("is_web")]).inputs[0].name == "is_web"


@pytest.mark.parametrize(
    "label",
    [
        applications.loss,
        applications.trusted,
        activity.count_1d,
        Label(
            "share",
            of=applications,
            source=chargebacks,
            on="application_id",
            within="30d",
            value=chargebacks.share,
        ),
    ],
)
def test_a_label_that_cannot_be_one_is_refused(label: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        fraud_model(LOGISTIC, label=label)
    assert caught.value.code == "HR-0604"


@pytest.mark.parametrize(
    ("trainer", "setting"),
    [
        (lambda: hr.xgboost(max_depth=0), "max_depth"),
        (lambda: hr.xgboost(max_depth=True), "max_depth"),
        (lambda: hr.xgboost(learning_rate=0), "learning_rate"),
        (lambda: hr.xgboost(subsample=1.1), "subsample"),
        (lambda: hr.xgboost(base_score=1.0), "base_score"),
        (lambda: hr.xgboost(tree_method="gpu"), "tree_method"),
        (lambda: hr.xgboost(gamma=float("nan")), "gamma"),
        (lambda: hr.lightgbm(num_leaves=1), "num_leaves"),
        (lambda: hr.lightgbm(max_depth=0), "max_depth"),
        (lambda: hr.lightgbm(subsample_freq=-1), "subsample_freq"),
        (lambda: hr.lightgbm(max_bin=1), "max_bin"),
        (lambda: hr.logistic_regression(C=-1), "C"),
        (lambda: hr.logistic_regression(class_weight="none"), "class_weight"),
        (lambda: hr.logistic_regression(standardize="yes"), "standardize"),
        (lambda: hr.decision_tree(min_samples_split=1), "min_samples_split"),
        (lambda: hr.decision_tree(criterion="mse"), "criterion"),
        (lambda: hr.random_forest(max_features=0), "max_features"),
        (lambda: hr.random_forest(max_features="all"), "max_features"),
        (lambda: hr.random_forest(seed=-1), "seed"),
    ],
)
def test_a_trainer_setting_that_cannot_be_is_refused(trainer: Callable[[], object], setting: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        trainer()
    assert (caught.value.code, caught.value.facts["setting"]) == ("HR-0605", setting)


def test_trainers_are_values() -> None:
    assert hr.xgboost(max_depth=6) == hr.xgboost() != hr.xgboost(max_depth=5)
    assert hr.random_forest(max_features=0.5).method is Method.RANDOM_FOREST
    assert hr.logistic_regression().standardize and not hr.decision_tree().standardize


def test_where_is_of_the_request_and_part_of_the_meaning_only_where_it_is_given() -> None:
    plain, web = fraud_model(LOGISTIC), fraud_model(LOGISTIC, where=applications.channel == "web")
    assert plain.where is None and "where" not in plain.meaning()
    assert web.meaning() == {**plain.meaning(), "where": "eq(applications.channel, 'web')"}
    assert fraud_model(LOGISTIC, where=applications.trusted).meaning()["where"] == "applications.trusted"


@pytest.mark.parametrize(
    ("where", "kind", "code"),
    [
        (lambda: applications.fraud, LeakError, "HR-0201"),
        (lambda: applications.loss.is_null(), LeakError, "HR-0201"),
        (lambda: hr.coalesce(applications.loss, 0.0) > 1, LeakError, "HR-0201"),
        (lambda: charged_back, MaturityError, "HR-0202"),
        (lambda: activity.count_7d > 3, DefinitionError, "HR-0615"),
        (lambda: (applications.channel == "web") & (activity.count_7d > 3), DefinitionError, "HR-0615"),
        (lambda: chargebacks.share > 0.5, DefinitionError, "HR-0615"),
        (lambda: hr.score > 0.5, DefinitionError, "HR-0615"),
        (lambda: applications.amount, DefinitionError, "HR-0615"),
        (lambda: "web", DefinitionError, "HR-0615"),
    ],
)
def test_where_that_is_no_condition_on_the_request_is_refused(
    where: Callable[[], object], kind: type[DefinitionError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        fraud_model(LOGISTIC, where=where())
    assert caught.value.code == code


def test_meaning_changes_with_order_and_trainer_but_not_with_text() -> None:
    model = fraud_model(LOGISTIC)
    assert fraud_model(LOGISTIC, description="other words").meaning() == model.meaning()
    assert fraud_model(hr.logistic_regression(C=2)).meaning() != model.meaning()
    turned = [i.expr.named(i.name) for i in reversed(model.inputs)]
    assert fraud_model(LOGISTIC, features=turned).meaning() != model.meaning()


def test_a_view_whose_entity_the_request_does_not_name_is_refused() -> None:
    other = hr.Topic("logins", key="device", id="id", fields={"id": hr.int64, "device": hr.string})
    logins = FeatureView("logins", entity="device", source=other, features=[define.count().over("1d")])
    check_entities("model 'fraud'", applications, [activity, merchant_risk])
    with pytest.raises(DefinitionError) as caught:
        check_entities("model 'fraud'", applications, [activity, logins])
    assert caught.value.code == "HR-0603"


def test_the_definition_is_public() -> None:
    assert hr.Model is Model
