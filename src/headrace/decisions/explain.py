"""One recorded decision, laid out for a reader: what was asked, known, scored, ruled and told. Pure.

The one idea: an explanation is data first, every value as JSON carries it; words and page (explain_page.py) only print
it. What is said of rules and contributions is computed by the version that decided, from what the record holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from headrace.core.aggregate import Reason
from headrace.core.codec import Physical, json_value
from headrace.core.evaluate import compile_scalar
from headrace.core.infix import infix
from headrace.core.schema import DataType
from headrace.core.times import iso
from headrace.decisions import record as records
from headrace.decisions.chain import link, link_before, own_link
from headrace.decisions.define import Decision, Rule
from headrace.decisions.plan import Answer, Scores, Standing, Value, Values, Version
from headrace.decisions.reasons import TEXTS, code_of
from headrace.decisions.record import DecisionRecord, ViewPoint
from headrace.decisions.replay import Difference
from headrace.features.define import FeatureView
from headrace.models.define import Model

Shown = Physical | tuple[Physical, ...]

WHY = {
    Reason.VALUE: "",
    Reason.EMPTY: "its window held no events",
    Reason.OVERFLOW: "the result lies outside of what its type can hold",
    Reason.LIMIT: "more distinct values than the view's max_distinct",
    Reason.MISSING: "the view gave no answer",
    Reason.ERASED: "the entity was erased",
}


@runtime_checkable
class Contributing(Protocol):
    """A model that says what each of its inputs added to a row's margin."""

    @property
    def base(self) -> float:
        """The margin that contributions start from."""

    def contributions(self, row: Values) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A reason as it was given. texts: language -> text, by the definitions in force now."""

    code: str
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSeen:
    """why: in words, for a null."""

    name: str
    value: Shown
    reason: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSeen:
    """An event that counted, or may have: below the cut, of the entity, within the view's windows."""

    topic: str
    partition: int
    offset: int
    event_time: str
    fields: Mapping[str, Shown]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSeen:
    """A view's answer. absent: why there is none. since, until: where the widest of its windows begins, None for all
    the way, and where the one with the shortest delay ends; events: the newest of events_count in between, the request
    itself not among them."""

    name: str
    entity: Mapping[str, Shown]
    cut: Sequence[tuple[str, int, int, int]]
    staleness_us: int
    absent: str | None
    features: tuple[FeatureSeen, ...]
    since: str | None = None
    until: str | None = None
    events: tuple[EventSeen, ...] = ()
    events_count: int | None = None  # None: the events were not looked up


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What an input added to the model's margin. code: the reason it stands for; None: it is left out on purpose, or no
    rule gives the model's reasons."""

    input: str
    value: Shown
    share: float
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSeen:
    """What a model said. name: "" where the version set is not at hand and the record does not say it. base: the margin
    that contributions start from; None, and no contributions, where they cannot be said."""

    name: str
    score: float | None
    base: float | None = None
    contributions: tuple[Contribution, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideSeen:
    """What another, a challenger or the decision itself, would have answered at the same point."""

    name: str
    outcome: str
    reasons: tuple[str, ...]
    scores: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSeen:
    """standing: how it stood. said: the rule in words."""

    index: int
    said: str
    standing: str
    decided: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """request: None where the log no longer holds it. models: those of the policy that gave the answer. rules: empty
    where the version set that decided is not at hand. arm: the challenger that gave the answer; beside: what the others
    would have answered. replay: whether it recomputes to the same bits, in words; differences: where not."""

    decision_id: str
    decision: str
    request_id: str
    request: Mapping[str, Shown] | None
    t: str
    decided_at: str
    outcome: str
    reasons: tuple[Told, ...]
    flags: tuple[str, ...]
    rule: int
    rules: tuple[RuleSeen, ...]
    views: tuple[ViewSeen, ...]
    models: tuple[ModelSeen, ...]
    arm: str | None
    beside: tuple[BesideSeen, ...]
    versions: Mapping[str, object]
    in_force: bool
    chain: str | None
    link_before: str | None
    chain_holds: bool | None
    replay: str
    differences: tuple[Difference, ...]


def explain(
    record: DecisionRecord,
    decision: Decision,
    *,
    version: Version | None,
    row: Sequence[Physical] | None,
    views: Sequence[ViewSeen],
    replay: str,
    differences: Sequence[Difference],
) -> Explanation:
    """version: that which the record names, None where it is not at hand. row: the request's. views: what
    `view_seen` makes, with their events."""
    served = decision.answering(record.ruling.arm)
    return Explanation(
        decision_id=record.decision_id,
        decision=record.decision,
        request_id=record.request_id,
        request=None if row is None else fields_shown(decision, row),
        t=iso(record.t),
        decided_at=iso(record.decided_at),
        outcome=record.outcome.value,
        reasons=tuple(Told(code=code, texts=texts_of(served, code)) for code in record.reasons),
        flags=tuple(flag.value for flag in record.flags),
        rule=record.rule,
        rules=() if version is None or row is None else _rules(version, row, record),
        views=tuple(views),
        models=_models(version, row, record),
        arm=record.ruling.arm,
        beside=tuple(
            BesideSeen(name=name, outcome=one.outcome.value, reasons=one.reasons, scores=dict(one.scores))
            for name, one in record.ruling.beside
        ),
        versions=json.loads(record.versions),
        in_force=version is not None,
        chain=own_link(record.chain) or None,
        link_before=link_before(record.chain) or None,
        chain_holds=_chain_holds(record),
        replay=replay,
        differences=tuple(differences),
    )


def view_seen(
    name: str,
    view: FeatureView | None,
    decision: Decision,
    row: Sequence[Physical] | None,
    point: ViewPoint,
    said: Answer,
) -> ViewSeen:
    """A view's answer as the record holds it. view: as defined now; None, or another number of features, leaves the
    features nameless."""
    if view is not None and len(view.features) != len(said[0]):
        view = None
    features = []
    for place, (value, reason) in enumerate(zip(*said, strict=True)):
        feature = None if view is None else view.features[place]
        shown = value if feature is None else value_shown(value, feature.type)
        why = WHY[reason] if value is None else ""
        features.append(
            FeatureSeen(
                name=f"{place}" if feature is None else feature.name,
                value=shown,
                reason=reason.name,
                why=f"absent: {point.absent}" if point.absent and value is None else why,
            )
        )
    entity = {} if view is None or row is None else {part: _field(decision, row, part) for part in view.entity}
    return ViewSeen(
        name=name,
        entity=entity,
        cut=records.cut_json(point.cut),
        staleness_us=point.staleness.micros,
        absent=point.absent,
        features=tuple(features),
    )


def value_shown(value: Value, type: DataType) -> Shown:
    """A value as JSON carries it."""
    if isinstance(value, tuple):
        assert type.item is not None, "only a list's values are tuples"
        return tuple(json_value(item, type.item) for item in value)
    return json_value(value, type)


def fields_shown(decision: Decision, row: Sequence[Physical]) -> dict[str, Shown]:
    """A request's fields by name."""
    return {f.name: json_value(value, f.type) for f, value in zip(decision.request.schema, row, strict=True)}


def texts_of(decision: Decision, code: str) -> dict[str, str]:
    """What a code says, by language: the decision's texts, else our own."""
    return dict(dict(decision.texts).get(code, ())) or dict(TEXTS.get(code, {}))


def _field(decision: Decision, row: Sequence[Physical], name: str) -> Shown:
    return json_value(row[decision.request.schema.names.index(name)], decision.request.schema[name].type)


def _chain_holds(record: DecisionRecord) -> bool | None:
    """Whether the record's own link is that of its fields; `headrace decisions verify` asks after the others."""
    if not record.chain:
        return None
    return link(link_before(record.chain), records.to_row(record)[:-1]) == record.chain


def _models(version: Version | None, row: Sequence[Physical] | None, record: DecisionRecord) -> tuple[ModelSeen, ...]:
    scores = record.ruling.answer.scores
    if version is None or row is None:
        return tuple(ModelSeen(name=name, score=score) for name, score in scores)
    values = version.weigh(row, record.answers)[0]
    arm = version.arm(record.ruling.arm)
    found = []
    for model, scorer, (_, score) in zip(arm.decision.models, arm.scores, scores, strict=False):
        base, contributions = _contributions(version, arm.decision, model, scorer, values)
        found.append(ModelSeen(name=model.name, score=score, base=base, contributions=tuple(contributions)))
    return tuple(found)


def _contributions(
    version: Version, decision: Decision, model: Model, scores: Scores, values: Sequence[Value]
) -> tuple[float | None, list[Contribution]]:
    """The inputs that moved the score, the most first; equal ones in input order."""
    if not isinstance(scores, Contributing):
        return None, []
    shares = [float(share) for share in scores.contributions(values)]
    codes, excluded = dict(decision.reasons), frozenset(decision.not_a_reason)
    found = []
    for one, share in zip(model.inputs, shares, strict=True):
        value = compile_scalar(one.expr, version.names)(values)  # type: ignore[arg-type]  # lists are read by no input
        found.append(
            Contribution(
                input=one.name,
                value=json_value(value, one.type),
                share=share,
                code=code_of(one.expr, codes, excluded),
            )
        )
    return scores.base, sorted(found, key=lambda each: -abs(each.share))


def _rules(version: Version, row: Sequence[Physical], record: DecisionRecord) -> tuple[RuleSeen, ...]:
    arm = version.arm(record.ruling.arm)
    standings = arm.policy.trace(*arm.weighed(*version.weigh(row, record.answers)))
    return tuple(
        RuleSeen(index=index, said=rule_words(rule), standing=_stood(rule, standing), decided=index == record.rule)
        for index, (rule, standing) in enumerate(zip(arm.decision.policy, standings, strict=True))
    )


def _stood(rule: Rule, standing: Standing) -> str:
    return "always holds" if standing is Standing.HELD and rule.always else standing.value


def rule_words(rule: Rule) -> str:
    """A rule in words: outcome, condition, segment, reason."""
    return " ".join(_rule_words(rule))


def _rule_words(rule: Rule) -> Iterator[str]:
    yield rule.outcome.value
    if rule.condition is not None:
        yield f"if {infix(rule.condition)}"
    if rule.segment is not None:
        yield f"for requests where {infix(rule.segment)}"
    told = [*rule.codes, *(["the model's reasons"] if rule.from_model else [])]
    if told:
        yield f"({', '.join(told)})"
