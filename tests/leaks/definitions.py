"""Leaky definitions, each another way to know too early, and beside each its honest twin.

A pair is made by two functions, called by the test. `why`: the error's class; `path`: what its path must name, in
order, so that a reader finds the place; `fix`: what the hint must offer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.core import schema
from headrace.core.errors import DefinitionError, LeakError, MaturityError
from headrace.core.expr import Operand, coalesce, hour, if_else, sqrt, to_expr
from headrace.core.schema import DataType, Field
from headrace.decisions.define import Decision, Rule, approve, decline_if, review_if
from headrace.features.define import (
    Aggregate,
    Asked,
    FeatureView,
    Label,
    Sources,
    count,
    distinct,
    first,
    last,
    last_n,
    lookup,
    max,
    mean,
    min,
    rate,
    std,
    sum,
    time_since_first,
    time_since_last,
    variance,
)
from headrace.log.define import Topic
from headrace.models.define import Model, logistic_regression

Make = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    name: str
    leaky: Make
    honest: Make
    why: type[DefinitionError] = LeakError
    path: tuple[str, ...] = ()
    fix: str = ""


def orders_with(name: str = "orders", **fields: DataType | Field) -> Topic:
    declared: dict[str, DataType | Field] = {
        "order": schema.int64,
        "customer": schema.string,
        "merchant": schema.string,
        "amount": schema.decimal(12, 2),
        "at": schema.timestamp,
        "bad": schema.field(schema.boolean, available_after="7d"),
        "cost": schema.field(schema.decimal(12, 2), available_after="2d"),
        "settled": schema.field(schema.timestamp, available_after="2d"),
        "agent": schema.field(schema.string, available_after="1h"),
        "reviewed": schema.field(schema.boolean, available_after="60d"),
    }
    return Topic(name, key="customer", id="order", event_time="at", fields=declared | fields)


orders = orders_with()
claims = Topic(
    "claims",
    key="order",
    id="claim",
    event_time="at",
    fields={
        "claim": schema.int64,
        "order": schema.int64,
        "customer": schema.string,
        "kind": schema.string,
        "sum": schema.int64,
        "ruling": schema.field(schema.boolean, available_after="90d"),
        "at": schema.timestamp,
    },
)
claimed = Label("claimed", of=orders, source=claims, on="order", within="30d", grace="3d")
lost = Label("lost", of=orders, source=claims, on="order", within="30d", grace="3d", value=claims["sum"])
early = Label("early", of=orders, source=claims, on="order", within="1d")
ALMOST_2D = "1d23h59m59s999ms999us"
ALMOST_33D = "32d23h59m59s999ms999us"


def view(
    *features: Aggregate | Asked, source: Topic | Sources = orders, entity: str | tuple[str, ...] = "customer"
) -> Make:
    return lambda: FeatureView("v", entity=entity, source=source, features=features)


def cost(name: str, asked: Aggregate) -> Pair:
    """An aggregate over the late column `cost`, without the delay and with it."""
    return Pair(
        name=name,
        leaky=view(asked.over("30d")),
        honest=view(asked.over("30d", delay="2d")),
        path=("orders.cost", "v."),
        fix="delay='2d'",
    )


def bad(name: str, asked: Aggregate) -> Pair:
    """The same over the late column `bad`, 7 days."""
    return Pair(
        name=name,
        leaky=view(asked.over("30d")),
        honest=view(asked.over("30d", delay="7d")),
        path=("orders.bad", "v."),
        fix="delay='7d'",
    )


def label(name: str, asked: Aggregate, *, waits: str = "30d") -> Pair:
    """An aggregate over a label of 33 days, with too short a delay and with none said, which is the maturity."""
    return Pair(
        name=name,
        leaky=view(asked.over("30d", delay=waits)),
        honest=view(asked.over("30d")),
        why=MaturityError,
        path=("claims", "v."),
        fix="delay='33d'",
    )


late_column = [
    cost("a late column, summed", sum(orders.cost)),
    cost("its mean", mean(orders.cost)),
    cost("its minimum", min(orders.cost)),
    cost("its maximum", max(orders.cost)),
    cost("its variance", variance(orders.cost)),
    cost("its standard deviation", std(orders.cost, sample=True)),
    cost("its first value", first(orders.cost)),
    cost("its last value", last(orders.cost)),
    cost("its last values", last_n(orders.cost, 3)),
    cost("how many different values it has", distinct(orders.cost)),
    cost("the newest event's value of it", lookup(orders.cost)),
    bad("the share of events where it is true", rate(orders.bad)),
    bad("a filter by it", count(where=orders.bad)),
    bad("a filter by it, over an honest value", mean(orders.amount, where=orders.bad)),
    bad("a filter by its opposite", count(where=~orders.bad)),
    bad("a filter by whether it is known", count(where=orders.bad.is_not_null())),
    bad("a filter by whether it is not known", count(where=orders.bad.is_null())),
    bad("the instant of the last event where it is true", time_since_last(where=orders.bad)),
    bad("the instant of the first event where it is true", time_since_first(where=orders.bad)),
    bad("one side of an or", count(where=(orders.amount > 100) | orders.bad)),
    cost("an expression over it", mean(orders.cost * 2 + 1)),
    cost("a ratio with it below", mean(orders.amount / orders.cost)),
    cost("its negative", sum(-orders.cost)),
    cost("its magnitude", sum(abs(orders.cost))),
    cost("its square root", sum(sqrt(orders.cost))),
    cost("a comparison with it", sum(orders.cost > 5)),
    cost("a range of it", count(where=orders.cost.between(1, 5))),
    cost("a default in its place", mean(coalesce(orders.cost, orders.amount))),
    bad("a choice by it", mean(if_else(orders.bad, 1.0, 0.0))),
    cost("a branch that reads it", mean(if_else(orders.amount > 5, orders.cost, orders.amount))),
    cost("an alias that hides its name", mean(orders.cost.named("amount"))),
    cost("an alias of an alias", mean((orders.cost.named("amount") + 1).named("size"))),
    Pair(
        name="the hour of a late instant",
        leaky=view(mean(hour(orders.settled)).over("30d")),
        honest=view(mean(hour(orders.at)).over("30d")),
        path=("orders.settled", "v."),
        fix="delay='2d'",
    ),
    Pair(
        name="one of several texts, known late",
        leaky=view(count(where=orders.agent.is_in("ann", "bob")).over("30d", delay="59m")),
        honest=view(count(where=orders.agent.is_in("ann", "bob")).over("30d", delay="1h")),
        path=("orders.agent", "v."),
        fix="delay='1h'",
    ),
]

late_window = [
    Pair(
        name="a delay that is short by a microsecond",
        leaky=view(sum(orders.cost).over("30d", delay=ALMOST_2D)),
        honest=view(sum(orders.cost).over("30d", delay="2d")),
        path=("orders.cost", "v."),
        fix="delay='2d'",
    ),
    Pair(
        name="two late columns, of which only the shorter is waited for",
        leaky=view(count(where=orders.bad & (orders.cost > 5)).over("30d", delay="2d")),
        honest=view(count(where=orders.bad & (orders.cost > 5)).over("30d", delay="7d")),
        path=("orders.bad", "v."),
        fix="delay='7d'",
    ),
    Pair(
        name="an input that is waited for, and a filter that is not",
        leaky=view(mean(orders.cost, where=orders.bad).over("30d", delay="2d")),
        honest=view(mean(orders.cost, where=orders.bad).over("30d", delay="7d")),
        path=("orders.bad", "v."),
        fix="delay='7d'",
    ),
    Pair(
        name="one of several windows",
        leaky=view(sum(orders.amount).over("1d"), sum(orders.cost).over("1d", "90d", delay="1d")),
        honest=view(sum(orders.amount).over("1d"), sum(orders.cost).over("1d", "90d", delay="2d")),
        path=("orders.cost", "v.sum_cost_1d"),
        fix="delay='2d'",
    ),
    Pair(
        name="a lifetime over a late column",
        leaky=view(sum(orders.cost).lifetime()),
        honest=view(sum(orders.cost).lifetime(delay="2d")),
        path=("orders.cost", "v."),
        fix="delay='2d'",
    ),
    Pair(
        name="a lookup's own lifetime",
        leaky=view(lookup(orders.cost)),
        honest=view(lookup(orders.cost).lifetime(delay="2d")),
        path=("orders.cost", "v."),
        fix="delay='2d'",
    ),
    Pair(
        name="a calendar day over a late column",
        leaky=view(sum(orders.cost).aligned("day")),
        honest=view(sum(orders.cost, known="so_far").aligned("day")),
        path=("orders.cost", "v."),
        fix="known='so_far'",
    ),
    Pair(
        name="the last closed day, which closed a microsecond ago",
        leaky=view(sum(orders.cost).aligned("day", complete=True)),
        honest=view(sum(orders.amount).aligned("day", complete=True)),
        path=("orders.cost", "v."),
        fix="known='so_far'",
    ),
    Pair(
        name="what is known so far, misspelled",
        leaky=lambda: sum(orders.cost, known="sofar"),
        honest=view(sum(orders.cost, known="so_far").over("30d")),
        why=DefinitionError,
        path=("so_far",),
    ),
]

refunds = Topic(
    "refunds",
    key="customer",
    id="refund",
    event_time="at",
    fields={
        "refund": schema.int64,
        "customer": schema.string,
        "amount": schema.decimal(12, 2),
        "at": schema.timestamp,
    },
)


def flows(value: Operand) -> Sources:
    return Sources(
        orders.emit(customer=orders.customer, value=value),
        refunds.emit(customer=refunds.customer, value=refunds.amount),
    )


def over_flows(value: Operand, delay: str) -> Make:
    def make() -> FeatureView:
        source = flows(value)
        return FeatureView("v", entity="customer", source=source, features=[sum(source.value).over("30d", delay=delay)])

    return make


def emitted_entity(name: Operand) -> Make:
    def make() -> FeatureView:
        source = Sources(orders.emit(who=name, value=orders.amount))
        return FeatureView("v", entity="who", source=source, features=[sum(source.value).over("30d")])

    return make


def topic(**roles: str) -> Make:
    """A topic of which every field is late but those the roles need."""
    fields = {
        "k": schema.field(schema.string, available_after="1d"),
        "i": schema.field(schema.int64, available_after="1d"),
        "t": schema.field(schema.timestamp, available_after="1d"),
        "key": schema.string,
        "id": schema.int64,
        "at": schema.timestamp,
    }
    said = {"key": "key", "id": "id", "event_time": "at"} | roles
    return lambda: Topic("t", fields=fields, **said)  # type: ignore[arg-type]  # roles name fields


late_by_the_side = [
    Pair(
        name="a late column under an emitted name",
        leaky=over_flows(orders.cost, "1d"),
        honest=over_flows(orders.cost, "2d"),
        path=("orders.cost", "v."),
        fix="delay='2d'",
    ),
    Pair(
        name="an emitted expression over a late column",
        leaky=over_flows(coalesce(orders.cost, orders.amount), "0s"),
        honest=over_flows(orders.amount, "0s"),
        why=DefinitionError,
    ),
    Pair(
        name="an entity that is known late",
        leaky=view(count().over("30d"), entity="agent"),
        honest=view(count().over("30d"), entity="merchant"),
        path=("orders.agent", "v"),
    ),
    Pair(
        name="one part of an entity that is known late",
        leaky=view(count().over("30d"), entity=("customer", "agent")),
        honest=view(count().over("30d"), entity=("customer", "merchant")),
        path=("orders.agent", "v"),
    ),
    Pair(
        name="an entity emitted from a late column",
        leaky=emitted_entity(orders.agent),
        honest=emitted_entity(orders.merchant),
        path=("orders.agent", "v"),
    ),
    Pair(
        name="an entity emitted from an expression over a late column",
        leaky=emitted_entity(coalesce(orders.agent, orders.merchant)),
        honest=emitted_entity(coalesce(orders.merchant, orders.customer)),
        path=("orders.agent", "v"),
    ),
    Pair(name="a key that is known late", leaky=topic(key="k"), honest=topic(), why=DefinitionError, path=("'k'",)),
    Pair(name="an id that is known late", leaky=topic(id="i"), honest=topic(), why=DefinitionError, path=("'i'",)),
    Pair(
        name="an event time that is known late",
        leaky=topic(event_time="t"),
        honest=topic(),
        why=DefinitionError,
        path=("'t'",),
    ),
    Pair(
        name="another object of the topic's name, on which the column is not late",
        leaky=view(sum(orders_with(cost=schema.decimal(12, 2)).cost).over("30d")),
        honest=view(sum(orders_with().cost).over("30d", delay="2d")),
        why=DefinitionError,
        path=("orders.cost",),
    ),
    Pair(
        name="another object of the topic's name, on which the column is less late",
        leaky=view(
            sum(orders_with(cost=schema.field(schema.decimal(12, 2), available_after="1s")).cost).over(
                "30d", delay="1s"
            )
        ),
        honest=view(sum(orders_with().cost).over("30d", delay="2d")),
        why=DefinitionError,
        path=("orders.cost",),
    ),
    Pair(
        name="another topic's field",
        leaky=view(count(where=claims.kind == "fraud").over("30d")),
        honest=view(count(where=claims.kind == "fraud").over("30d"), source=claims),
        why=DefinitionError,
        path=("claims.kind",),
    ),
]

labels = [
    label("a label's share, waiting for its events but not for their grace", rate(claimed), waits="30d"),
    label("a label's share, short by a microsecond", rate(claimed), waits=ALMOST_33D),
    label("a label's share, at once", rate(claimed), waits="0s"),
    label("a filter by a label", count(where=claimed), waits="0s"),
    label("a filter by a label's opposite", count(where=~to_expr(claimed)), waits="0s"),
    label("a filter by what is not yet labelled", count(where=to_expr(claimed).is_null()), waits="1d"),
    label("a label in an expression", mean(if_else(claimed, orders.amount, 0))),
    label("a label under an alias", rate(to_expr(claimed).named("returned"))),
    label("a label with a default", rate(coalesce(claimed, False))),
    label("a label's value", sum(lost)),
    label("the last events that were labelled", last_n(orders.amount, 3, where=claimed)),
    label("time since the last labelled event", time_since_last(where=claimed)),
    label("the newest event's label", lookup(claimed)),
    label("a label and an honest filter", count(where=to_expr(claimed) & (orders.amount > 5))),
    Pair(
        name="two labels, of which only the shorter is waited for",
        leaky=view(count(where=to_expr(early) | to_expr(claimed)).over("30d", delay="1d")),
        honest=view(count(where=to_expr(early) | to_expr(claimed)).over("30d")),
        why=MaturityError,
        path=("claims", "claimed", "v."),
        fix="delay='33d'",
    ),
    Pair(
        name="a label's lifetime",
        leaky=view(rate(claimed).lifetime(delay="1d")),
        honest=view(rate(claimed).lifetime()),
        why=MaturityError,
        path=("claims", "claimed", "v."),
        fix="delay='33d'",
    ),
    Pair(
        name="a calendar month over a label",
        leaky=view(rate(claimed).aligned("month")),
        honest=view(rate(claimed, known="so_far").aligned("month")),
        why=MaturityError,
        path=("claims", "claimed", "v."),
        fix="known='so_far'",
    ),
    Pair(
        name="the last closed month over a label",
        leaky=view(rate(claimed).aligned("month", complete=True)),
        honest=view(rate(claimed, known="so_far").aligned("month", complete=True)),
        why=MaturityError,
        path=("claims", "claimed", "v."),
        fix="known='so_far'",
    ),
    Pair(
        name="a label and a later column, of which the label is waited for",
        leaky=view(count(where=to_expr(claimed) & orders.reviewed).over("30d")),
        honest=view(count(where=to_expr(claimed) & orders.reviewed).over("30d", delay="60d")),
        path=("orders.reviewed", "v."),
        fix="delay='60d'",
    ),
    Pair(
        name="a label through an emitted value",
        leaky=over_flows(if_else(claimed, orders.amount, orders.amount), "32d"),
        honest=over_flows(if_else(claimed, orders.amount, orders.amount), "33d"),
        why=MaturityError,
        path=("claims", "claimed", "v."),
        fix="delay='33d'",
    ),
    Pair(
        name="a label whose value is itself known late",
        leaky=lambda: Label("ruled", of=orders, source=claims, on="order", within="30d", value=claims.ruling),
        honest=lambda: Label("kind", of=orders, source=claims, on="order", within="30d", value=claims.kind == "fraud"),
        path=("claims.ruling", "ruled"),
    ),
    Pair(
        name="a label whose value reads another label",
        leaky=lambda: Label(
            "twice",
            of=orders,
            source=claims,
            on="order",
            within="30d",
            value=to_expr(Label("appealed", of=claims, source=appeals, on="claim", within="30d")),
        ),
        honest=lambda: Label("appealed", of=claims, source=appeals, on="claim", within="30d"),
        path=("appeals", "twice"),
    ),
    Pair(
        name="a label whose events name their origin late",
        leaky=lambda: Label("late", of=orders, source=named_late, on="order", within="30d"),
        honest=lambda: Label("claimed", of=orders, source=claims, on="order", within="30d"),
        path=("named_late.order", "late"),
    ),
    Pair(
        name="a label of another topic's events",
        leaky=view(rate(claimed).over("30d"), source=claims),
        honest=view(count().over("30d"), source=claims),
        why=DefinitionError,
        path=("orders.claimed",),
    ),
]

appeals = Topic("appeals", key="claim", id="a", fields={"a": schema.int64, "claim": schema.int64})
named_late = Topic(
    "named_late",
    key="claim",
    fields={"claim": schema.int64, "order": schema.field(schema.int64, available_after="40d")},
)

activity = FeatureView(
    "activity",
    entity="customer",
    source=orders,
    features=[count().over("7d"), mean(orders.amount).over("7d", empty=0), rate(claimed).over("30d", empty=0)],
)


def model(*features: Operand | FeatureView, of: Label | None = None) -> Make:
    return lambda: Model("m", features=features, label=of or claimed, trainer=logistic_regression())


def policy(rule: Callable[[], Rule]) -> Make:
    return lambda: Decision("checkout", request=orders, policy=[rule(), approve()])


scored = [
    Pair(
        name="a late column as a model's input",
        leaky=model(orders.amount, orders.cost),
        honest=model(orders.amount),
        path=("orders.cost", "m"),
        fix="window",
    ),
    Pair(
        name="an expression over it as a model's input",
        leaky=model((orders.cost / orders.amount).named("share")),
        honest=model((orders.amount / activity.mean_amount_7d).named("share")),
        path=("orders.cost", "m"),
        fix="window",
    ),
    Pair(
        name="whether it is known as a model's input",
        leaky=model(orders.bad.is_null().named("open")),
        honest=model((orders.merchant.is_null()).named("open")),
        path=("orders.bad", "m"),
        fix="window",
    ),
    Pair(
        name="the label itself as a model's input",
        leaky=model(orders.amount, claimed),
        honest=model(orders.amount, activity.claimed_rate_30d),
        why=MaturityError,
        path=("claims", "claimed", "m"),
        fix="window",
    ),
    Pair(
        name="the label under another name as a model's input",
        leaky=model(if_else(claimed, 1, 0).named("known_customer")),
        honest=model(if_else(orders.amount > 5, 1, 0).named("known_customer")),
        why=MaturityError,
        path=("claims", "claimed", "m"),
        fix="window",
    ),
    Pair(
        name="another label of the same events as a model's input",
        leaky=model(orders.amount, early),
        honest=model(orders.amount, of=early),
        why=MaturityError,
        path=("claims", "early", "m"),
        fix="window",
    ),
    Pair(
        name="a field of the label's topic as a model's input",
        leaky=model(orders.amount, (claims.kind == "fraud").named("fraud")),
        honest=model(orders.amount, (orders.merchant == "x").named("x")),
        why=DefinitionError,
        path=("claims.kind",),
    ),
    Pair(
        name="a rule on a late column",
        leaky=policy(lambda: decline_if(orders.bad, reason="BAD")),
        honest=policy(lambda: decline_if(orders.amount > 5, reason="LARGE")),
        path=("orders.bad", "checkout"),
        fix="window",
    ),
    Pair(
        name="a rule on whether a late column is known",
        leaky=policy(lambda: review_if(orders.cost.is_not_null() & (orders.amount > 5))),
        honest=policy(lambda: review_if(orders.merchant.is_not_null() & (orders.amount > 5))),
        path=("orders.cost", "checkout"),
        fix="window",
    ),
    Pair(
        name="a rule on a label",
        leaky=policy(lambda: decline_if(claimed, reason="CLAIMED")),
        honest=policy(lambda: decline_if(activity.claimed_rate_30d > 0.5, reason="CLAIMED")),
        why=MaturityError,
        path=("claims", "claimed", "checkout"),
        fix="window",
    ),
    Pair(
        name="a rule that compares a feature with a late column",
        leaky=policy(lambda: decline_if(activity.mean_amount_7d < orders.cost, reason="DEAR")),
        honest=policy(lambda: decline_if(activity.mean_amount_7d < orders.amount, reason="DEAR")),
        path=("orders.cost", "checkout"),
        fix="window",
    ),
]

elsewhere = orders_with(cost=schema.decimal(12, 2))
scored += [
    Pair(
        name="another object of the topic's name, as a model's input",
        leaky=model(orders.amount, elsewhere.cost),
        honest=model(orders_with().amount),
        why=DefinitionError,
        path=("orders.cost",),
    ),
    Pair(
        name="another object of the topic's name, in a rule",
        leaky=policy(lambda: decline_if(elsewhere.cost > 5, reason="DEAR")),
        honest=policy(lambda: decline_if(orders_with().amount > 5, reason="DEAR")),
        why=DefinitionError,
        path=("orders.cost",),
    ),
]

PAIRS = [*late_column, *late_window, *late_by_the_side, *labels, *scored]
