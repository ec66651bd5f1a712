"""What callers are told of decisions, features and events, as JSON. Pure.

The one idea: JSON carries each value without loss: decimals and instants as text, durations in microseconds; and a null
never stands without its reason. The version set is passed through as the record keeps it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import msgspec

from headrace.core.aggregate import Reason
from headrace.core.codec import json_value
from headrace.core.points import Cut
from headrace.core.schema import DataType, Kind
from headrace.core.times import Instant, iso
from headrace.decisions.define import Decision
from headrace.decisions.plan import Answer, Value
from headrace.decisions.record import DecisionRecord
from headrace.decisions.run import DecisionMade
from headrace.features.define import FeatureView
from headrace.log.port import Verdict

FALLBACK = "fallback"  # the flag of an answer that is no decision


class Beside(msgspec.Struct, kw_only=True):
    """What another, a challenger or the decision itself, would have answered at the same point."""

    name: str
    outcome: str
    reasons: Sequence[str]
    scores: Mapping[str, float | None]


class DecisionAnswer(msgspec.Struct, kw_only=True):
    """decision_id: None where this is the fallback and no decision. score: the first model's; scores: of each, where
    there are several. arm: the challenger that gave the answer; beside: what the others would have. versions: the
    record's version set. language, reason_texts: of decisions that declare texts (api.texts)."""

    decision_id: str | None
    request_id: int | str
    outcome: str
    score: float | None
    reasons: Sequence[str]
    versions: msgspec.Raw
    t: str
    flags: Sequence[str]
    repeated: bool
    scores: Mapping[str, float | None] | msgspec.UnsetType = msgspec.UNSET
    arm: str | msgspec.UnsetType = msgspec.UNSET
    beside: Sequence[Beside] | msgspec.UnsetType = msgspec.UNSET
    language: str | msgspec.UnsetType = msgspec.UNSET
    reason_texts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    decided_at: str | msgspec.UnsetType = msgspec.UNSET
    rule: int | msgspec.UnsetType = msgspec.UNSET
    features: Mapping[str, Mapping[str, object]] | msgspec.UnsetType = msgspec.UNSET
    missing: Mapping[str, str] | msgspec.UnsetType = msgspec.UNSET


class Row(msgspec.Struct, kw_only=True):
    """One entity's features. missing: why those that are null are so."""

    key: object
    values: Mapping[str, object]
    missing: Mapping[str, str]


class Place(msgspec.Struct, kw_only=True):
    """A cut's next offset in one partition."""

    topic: str
    incarnation: int
    partition: int
    next: int


class FeaturesAnswer(msgspec.Struct, kw_only=True):
    """The point (t, cut) at which all rows were asked."""

    view: str
    t: str
    cut: Sequence[Place]
    rows: Sequence[Row]


class Placed(msgspec.Struct, kw_only=True):
    """Where an event went, and what the law says of it."""

    index: int
    partition: int
    offset: int
    verdict: str


class EventsAnswer(msgspec.Struct, kw_only=True):
    """One entry an event, in the order in which they were sent."""

    topic: str
    count: int
    verdicts: Mapping[str, int]
    events: Sequence[Placed]


encode = msgspec.json.Encoder().encode


def made_answer(made: DecisionMade, versions: str) -> DecisionAnswer:
    answer = DecisionAnswer(
        decision_id=made.decision_id,
        request_id=made.request_id,
        outcome=made.outcome.value,
        score=made.score,
        reasons=made.reasons,
        versions=msgspec.Raw(versions.encode()),
        t=iso(made.t),
        flags=[flag.value for flag in made.flags],
        repeated=made.repeated,
    )
    if made.scores:
        answer.scores = dict(made.scores)
    if made.arm is not None:
        answer.arm = made.arm
    return answer


def fallback_answer(
    decision: Decision, request_id: int | str, reason: enum.Enum, versions: str, t: Instant
) -> DecisionAnswer:
    """The declared fallback. It is no decision: there is no id, and nothing was appended."""
    return DecisionAnswer(
        decision_id=None,
        request_id=request_id,
        outcome=decision.fallback.value,
        score=None,
        reasons=[str(reason.value)],
        versions=msgspec.Raw(versions.encode()),
        t=iso(t),
        flags=[FALLBACK],
        repeated=False,
    )


def record_answer(
    record: DecisionRecord,
    decision: Decision,
    views: Mapping[str, FeatureView],
    *,
    features: bool,
    repeated: bool = False,
) -> DecisionAnswer:
    """A recorded decision. views: as declared now; a view's values are named where it is still of the recorded
    shape."""
    id_type = decision.request.schema[str(decision.request.id)].type
    answer = DecisionAnswer(
        decision_id=record.decision_id,
        request_id=int(record.request_id) if id_type.kind is Kind.INT64 else record.request_id,
        outcome=record.outcome.value,
        score=record.score,
        reasons=record.reasons,
        versions=msgspec.Raw(record.versions.encode()),
        t=iso(record.t),
        flags=[flag.value for flag in record.flags],
        repeated=repeated,
        decided_at=iso(record.decided_at),
        rule=record.rule,
    )
    ruling = record.ruling
    if len(ruling.answer.scores) > 1:
        answer.scores = dict(ruling.answer.scores)
    if ruling.arm is not None:
        answer.arm = ruling.arm
    if ruling.beside:
        answer.beside = [
            Beside(name=name, outcome=one.outcome.value, reasons=one.reasons, scores=dict(one.scores))
            for name, one in ruling.beside
        ]
    if features:
        answer.features, answer.missing = _recorded_features(record, views)
    return answer


def _recorded_features(
    record: DecisionRecord, views: Mapping[str, FeatureView]
) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
    names = [str(name) for name, _ in msgspec.json.decode(record.versions.encode())["views"]]
    found: dict[str, dict[str, object]] = {}
    missing: dict[str, str] = {}
    for name, answer in zip(names, record.answers, strict=True):
        view = views.get(name)
        if view is not None and len(view.features) == len(answer[0]):
            found[name], why = view_values(view, answer)
            missing |= {f"{name}.{feature}": reason for feature, reason in why.items()}
    return found, missing


def view_values(view: FeatureView, answer: Answer) -> tuple[dict[str, object], dict[str, str]]:
    """A view's values by name, and why each null is one."""
    values: dict[str, object] = {}
    missing: dict[str, str] = {}
    for feature, value, reason in zip(view.features, *answer, strict=True):
        values[feature.name] = shown(value, feature.type)
        if value is None:
            missing[feature.name] = Reason(reason).name
    return values, missing


def shown(value: Value, type: DataType) -> object:
    if isinstance(value, tuple):
        assert type.item is not None, "only a list's values are tuples"
        return [json_value(item, type.item) for item in value]
    return json_value(value, type)


def features_answer(
    view: FeatureView, keys: Sequence[object], t: Instant, cut: Cut, answers: Sequence[Answer]
) -> FeaturesAnswer:
    rows = []
    for key, answer in zip(keys, answers, strict=True):
        values, missing = view_values(view, answer)
        rows.append(Row(key=key, values=values, missing=missing))
    places = [Place(topic=p.topic, incarnation=p.incarnation, partition=p.index, next=offset) for p, offset in cut]
    return FeaturesAnswer(view=view.name, t=iso(t), cut=places, rows=rows)


def events_answer(topic: str, places: Sequence[tuple[int, int, int]]) -> EventsAnswer:
    """places: (partition, offset, verdict) of each event."""
    counts: dict[str, int] = {}
    events = []
    for index, (partition, offset, verdict) in enumerate(places):
        name = VERDICTS[verdict]
        counts[name] = counts.get(name, 0) + 1
        events.append(Placed(index=index, partition=partition, offset=offset, verdict=name))
    return EventsAnswer(topic=topic, count=len(events), verdicts=counts, events=events)


VERDICTS = {int(verdict): verdict.name.lower() for verdict in Verdict}
