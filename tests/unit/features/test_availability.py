"""Availability as a type: how it flows through expressions, and what a window makes of it (SEMANTICS 4.4)."""

from __future__ import annotations

import pytest

from headrace.core import schema
from headrace.core.availability import NOW, Availability, Lateness, latest
from headrace.core.errors import DefinitionError, LeakError, MaturityError
from headrace.core.expr import Expr, coalesce, if_else, to_expr
from headrace.core.times import ZERO, Duration
from headrace.core.window import Lifetime, Sliding
from headrace.features.define import Aggregate, Asked, Feature, FeatureView, Label, Sources, count, last, rate, sum
from headrace.log.define import Topic

loans = Topic(
    "loans",
    key="person",
    id="loan",
    event_time="at",
    fields={
        "loan": schema.int64,
        "person": schema.string,
        "amount": schema.int64,
        "at": schema.timestamp,
        "arrears": schema.field(schema.int64, available_after="10d"),
        "closed": schema.field(schema.boolean, available_after="1d"),
    },
)
defaults = Topic("defaults", key="loan", fields={"loan": schema.int64, "loss": schema.int64})
defaulted = Label("defaulted", of=loans, source=defaults, on="loan", within="8d", grace="2d")
DAY = Duration.parse("1d")


def feature(asked: Aggregate | Asked, source: Topic | Sources = loans) -> Feature:
    return FeatureView("v", entity="person", source=source, features=[asked]).features[0]


def after(value: Expr) -> str:
    return f"{value.availability.after} {value.availability.why.value}"


def test_a_field_is_known_at_once_and_a_late_column_later() -> None:
    assert loans.amount.availability == NOW
    assert not loans.amount.availability.late
    assert loans.arrears.availability == Availability(Duration.parse("10d"), Lateness.COLUMN, ("loans.arrears",))


def test_a_label_is_known_when_it_has_matured() -> None:
    availability = to_expr(defaulted).availability
    assert (availability.after, availability.why) == (Duration.parse("10d"), Lateness.LABEL)
    assert availability.path == ("defaults", "defaulted")


def test_an_expression_is_known_when_its_latest_part_is() -> None:
    assert after(loans.amount + 1) == "0s none"
    assert after(loans.closed & (loans.arrears > 0)) == "10d late column"
    assert after(if_else(loans.closed, loans.amount, 0)) == "1d late column"
    assert after(coalesce(loans.arrears, 0).named("honest")) == "10d late column"
    assert after(loans.arrears.is_null()) == "10d late column"


def test_a_label_wins_a_tie() -> None:
    """Both are known after ten days; the label's fix is the stricter."""
    assert after(to_expr(defaulted) & (loans.arrears > 0)) == "10d label"
    assert after((loans.arrears > 0) & to_expr(defaulted)) == "10d label"


def test_the_latest_of_nothing_is_now() -> None:
    assert latest() == NOW
    assert latest(NOW, NOW) == NOW


def test_a_path_grows_by_the_definitions_that_carry_it() -> None:
    assert loans.arrears.availability.then("v.f").path == ("loans.arrears", "v.f")
    assert NOW.then("v.f") == NOW


def test_a_column_that_is_late_by_nothing_still_says_so() -> None:
    topic = Topic("t", key="k", fields={"k": schema.string, "x": schema.field(schema.int64, available_after="0s")})
    assert topic.x.availability.late
    view = FeatureView("v", entity="k", source=topic, features=[sum(topic.x).over("1d")])
    assert view.features[0].window == Sliding(DAY)


def test_an_omitted_delay_over_a_label_is_its_maturity() -> None:
    assert feature(rate(defaulted).over("1d")).window == Sliding(DAY, Duration.parse("10d"))
    assert feature(rate(defaulted).lifetime()).window == Lifetime(Duration.parse("10d"))
    assert feature(count(where=defaulted).over("1d")).window == Sliding(DAY, Duration.parse("10d"))


def test_a_delay_that_is_said_stands() -> None:
    assert feature(rate(defaulted).over("1d", delay="11d")).window == Sliding(DAY, Duration.parse("11d"))
    with pytest.raises(MaturityError):
        feature(rate(defaulted).over("1d", delay="0s"))


def test_an_omitted_delay_over_a_late_column_is_none_and_refused() -> None:
    with pytest.raises(LeakError) as caught:
        feature(sum(loans.arrears).over("1d"))
    assert caught.value.facts["needed"] == Duration.parse("10d")
    assert caught.value.facts["seen"] == ZERO
    assert caught.value.facts["path"] == ("loans.arrears", "v.sum_arrears_1d")


def test_so_far_needs_no_delay_and_gets_none() -> None:
    assert feature(rate(defaulted, known="so_far").over("1d")).window == Sliding(DAY)
    assert feature(sum(loans.arrears, known="so_far").over("1d")).window == Sliding(DAY)
    assert feature(rate(defaulted, known="so_far").over("1d", delay="1d")).window == Sliding(DAY, DAY)


def test_of_several_windows_each_waits() -> None:
    view = FeatureView("v", entity="person", source=loans, features=[rate(defaulted).over("1d", "30d")])
    assert [f.window.delay for f in view.features] == [Duration.parse("10d")] * 2


def test_a_value_that_waits_for_nothing_is_not_delayed_by_its_neighbours() -> None:
    view = FeatureView("v", entity="person", source=loans, features=[count().over("1d"), rate(defaulted).over("1d")])
    assert [f.window.delay for f in view.features] == [ZERO, Duration.parse("10d")]


def test_several_sources_are_known_when_the_latest_is() -> None:
    both = Sources(
        loans.emit(person=loans.person, value=loans.arrears), repaid.emit(person=repaid.person, value=repaid.amount)
    )
    assert after(both.value) == "10d late column"
    assert feature(sum(both.value).over("1d", delay="10d"), both).window == Sliding(DAY, Duration.parse("10d"))
    with pytest.raises(LeakError):
        feature(sum(both.value).over("1d"), both)


repaid = Topic("repaid", key="person", fields={"person": schema.string, "amount": schema.int64})


def test_a_published_feature_is_known_at_its_point() -> None:
    view = FeatureView("v", entity="person", source=loans, features=[rate(defaulted).over("1d").named("r")])
    assert view.r.availability == NOW
    assert (view.r * 2).availability == NOW


def test_a_field_of_another_definition_of_the_topic_is_refused() -> None:
    """Whoever writes the topic twice must not make a late column known at once."""
    other = Topic(
        "loans", key="person", fields={"person": schema.string, "arrears": schema.int64, "extra": schema.int64}
    )
    with pytest.raises(DefinitionError, match="known at once, in the topic that is read int64, known 10d later"):
        feature(sum(other.arrears).over("1d"))
    with pytest.raises(DefinitionError, match="HR-0106"):
        feature(sum(other.extra).over("1d"))


def test_a_topics_own_attribute_is_not_its_field() -> None:
    """`topic.id` is the id field's name; its values are `topic["id"]`."""
    topic = Topic("t", key="k", id="id", fields={"id": schema.int64, "k": schema.string})
    with pytest.raises(DefinitionError, match="the constant 'id'"):
        last(topic.id)  # type: ignore[arg-type]  # the mistake that is meant
    with pytest.raises(DefinitionError, match="the constant False"):
        count(where=topic.id == 5)
    assert last(topic["id"]).input is not None
