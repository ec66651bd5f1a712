"""From values to an outcome: a policy compiled once, and one version of a decision around it. Pure.

The one idea: a rule looks at why a value is null before it looks at the value, so nothing that is missing can pass for
something harmless. What is missing takes the rule's `on_missing`; a condition without truth value takes `on_empty`
where an empty window is why, else `on_missing` (SEMANTICS 3.5).

Everything that a decision depends on but its request and its features is in a `Version`: live decisions and replays run
the same code over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from headrace.core.aggregate import Reason
from headrace.core.codec import Physical, canonical_json
from headrace.core.errors import DefinitionError
from headrace.core.evaluate import Evaluate, compile_scalar
from headrace.core.expr import Expr, Source, describe, references
from headrace.core.times import Duration
from headrace.decisions.define import MISSING_DATA, Decision, FromModel, OnNull, Outcome, Rule
from headrace.log.define import Topic

SEMANTICS = 1  # of policies; raised when the same values would be decided otherwise
MODEL_SCORE = "MODEL_SCORE"  # the reason given where the model decides and no input with a code of its own raised it
NO_EVENTS = "NO_EVENTS"  # the reason given where a rule's on_empty names an outcome
REASONS_MAX = 4  # more than four principal reasons help nobody who is declined

Value = Physical | tuple[Physical, ...]
Values = Sequence[Value]
Answer = tuple[tuple[Value, ...], tuple[Reason, ...]]  # a view's values and reasons, in its order of features
Explain = Callable[[], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Decided:
    """rule: the index of the rule that decided. reasons: codes, the weightiest first."""

    outcome: Outcome
    reasons: tuple[str, ...]
    rule: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewVersion:
    """A view as a decision reads it. features: names in the order of its answers. topics: all whose events its values
    depend on: sources, labels' sources, late truths."""

    name: str
    fingerprint: str
    features: tuple[str, ...]
    topics: tuple[str, ...]
    max_staleness: Duration | None = None


class Scores(Protocol):
    """A trained model, ready: what a decision needs of the models. `row` holds the version's values by `names`."""

    @property
    def id(self) -> str:
        """The artifact's content hash."""

    @property
    def views(self) -> Mapping[str, str]:
        """name -> fingerprint of each view that it was trained on."""

    def score(self, row: Values) -> float: ...

    def raised_by(self, row: Values) -> Sequence[int]:
        """The indices of the model's inputs that raised this score, the most first."""


def value_names(request: Topic, views: Sequence[ViewVersion]) -> tuple[str, ...]:
    """The paths of a decision's values, in order: the request's fields, each view's features, the score."""
    fields = [f"{request.name}.{name}" for name in request.schema.names]
    return (*fields, *(f"{view.name}.{feature}" for view in views for feature in view.features), "score")


# --- the policy ---


@dataclass(frozen=True, slots=True)
class _Step:
    """A rule, compiled. computed: places of the features and the score that it reads; fields: of the request's
    fields."""

    rule: Rule
    condition: Evaluate | None
    computed: tuple[int, ...]
    fields: tuple[int, ...]


class Policy:
    """Rules over one order of values. Cost: some 0.5 us a rule that is asked."""

    __slots__ = ("_steps",)

    def __init__(self, rules: Sequence[Rule], names: Sequence[str]) -> None:
        """Raises: DefinitionError HR-0115 where a rule reads a path that is not among the names."""
        places = {name: place for place, name in enumerate(names)}
        self._steps = tuple(_step(rule, names, places) for rule in rules)

    def evaluate(self, values: Values, reasons: Sequence[Reason], explain: Explain) -> Decided:
        """The first rule that applies. reasons: why each value is what it is. explain: asked where the model's reasons
        are wanted."""
        for index, step in enumerate(self._steps):
            then = _asked(step, values, reasons)
            match then:
                case None:
                    continue
                case Outcome():
                    return Decided(step.rule.outcome, _codes(step.rule, explain), index)
                case (outcome, code):
                    return Decided(outcome, (code,), index)
        raise AssertionError("a policy ends in an unconditional rule: decisions/define.py sees to it")


def _step(rule: Rule, names: Sequence[str], places: Mapping[str, int]) -> _Step:
    if rule.condition is None:
        return _Step(rule, None, (), ())
    condition = compile_scalar(rule.condition, names)
    fields = tuple(places[r.path] for r in rule.reads if r.source is Source.FIELD)
    computed = tuple(places[r.path] for r in rule.reads if r.source is not Source.FIELD)
    return _Step(rule, condition, computed, fields)


def _asked(step: _Step, values: Values, reasons: Sequence[Reason]) -> Outcome | tuple[Outcome, str] | None:
    """None: the next rule. An outcome alone: the rule applies. With a code: what it says of nulls."""
    rule = step.rule
    if step.condition is None:
        return rule.outcome
    for place in step.computed:
        if reasons[place] > Reason.EMPTY:
            return _then(rule, rule.on_missing, MISSING_DATA)
    truth = step.condition(values)  # type: ignore[arg-type]  # lists among the values are read by no expression
    if truth is True:
        return rule.outcome
    if truth is False:
        return None
    field_null = any(values[place] is None for place in step.fields)
    if rule.on_empty is not None and not field_null and any(reasons[p] is Reason.EMPTY for p in step.computed):
        return _then(rule, rule.on_empty, NO_EVENTS)
    return _then(rule, rule.on_missing, MISSING_DATA)


def _then(rule: Rule, said: OnNull, code: str) -> Outcome | tuple[Outcome, str] | None:
    match said:
        case OnNull.APPLY:
            return rule.outcome
        case OnNull.SKIP:
            return None
        case OnNull.REVIEW:
            return Outcome.REVIEW, code
        case OnNull.DECLINE:
            return Outcome.DECLINE, code
        case OnNull.APPROVE:
            return Outcome.APPROVE, code
    assert_never(said)


def _codes(rule: Rule, explain: Explain) -> tuple[str, ...]:
    if isinstance(rule.reason, FromModel):
        return explain()
    return () if rule.reason is None else (rule.reason,)


# --- one version of a decision ---


@dataclass(frozen=True, slots=True, init=False)
class Version:
    """A decision with everything pinned (SEMANTICS 5.6). text: the version set, as records keep it: canonical JSON."""

    decision: Decision
    views: tuple[ViewVersion, ...]
    scores: Scores | None
    names: tuple[str, ...]
    text: str
    policy: Policy
    _score_reads: tuple[int, ...] = field(repr=False)
    _codes: tuple[str | None, ...] = field(repr=False)  # of each model input
    _plain: tuple[Reason, ...] = field(repr=False)  # of the request's fields

    def __init__(self, decision: Decision, views: Sequence[ViewVersion], scores: Scores | None) -> None:
        """views: in the order of `decision.views`. scores: of the decision's model, compiled over `value_names`.

        Raises: DefinitionError HR-0712 where views or model are not those that the decision reads or was trained on.
        """
        _check_pins(decision, views, scores)
        put = object.__setattr__
        names = value_names(decision.request, views)
        places = {name: place for place, name in enumerate(names)}
        inputs = () if decision.model is None else decision.model.inputs
        read = {r.path for i in inputs for r in references(i.expr) if r.source is Source.FEATURE}
        codes = dict(decision.reasons)
        put(self, "decision", decision)
        put(self, "views", tuple(views))
        put(self, "scores", scores)
        put(self, "names", names)
        put(self, "text", _text(decision, views, scores))
        put(self, "policy", Policy(decision.policy, names))
        put(self, "_score_reads", tuple(sorted(places[path] for path in read)))
        put(self, "_codes", tuple(_code(i.expr, codes) for i in inputs))
        put(self, "_plain", (Reason.VALUE,) * len(decision.request.schema.fields))

    def decide(self, row: Sequence[Physical], answers: Sequence[Answer]) -> tuple[float | None, Decided]:
        """Score and outcome of a request's row, from its views' answers in order. An absent view's are all MISSING."""
        values: list[Value] = list(row)
        reasons = list(self._plain)
        for found, why in answers:
            values += found
            reasons += why
        score, said = None, Reason.VALUE
        if self.scores is not None:
            score = self.scores.score(values)
            if score != score:  # finite inputs so large that a sum of them is no number (SEMANTICS 3.3)
                score, said = None, Reason.OVERFLOW
            # An input that a view did not answer for makes the score a guess: rules over it take `on_missing`.
            if any(reasons[place] >= Reason.MISSING for place in self._score_reads):
                said = Reason.MISSING
        values.append(score)
        reasons.append(said)
        return score, self.policy.evaluate(values, reasons, lambda: self._explain(values))

    def absent(self, view: int) -> Answer:
        """The answer of a view that gave none."""
        count = len(self.views[view].features)
        return (None,) * count, (Reason.MISSING,) * count

    def _explain(self, values: Values) -> tuple[str, ...]:
        """The codes of the inputs that raised the score, each once, the most first."""
        assert self.scores is not None, "reasons from a model without one: decisions/define.py refuses them (HR-0704)"
        codes = [self._codes[i] for i in self.scores.raised_by(values)]
        found = dict.fromkeys(code for code in codes if code is not None)
        return tuple(found)[:REASONS_MAX] or (MODEL_SCORE,)


def _code(expr: Expr, codes: Mapping[str, str]) -> str | None:
    """An input's own code, else that of the first thing it reads that has one."""
    from_input = codes.get(describe(expr))
    if from_input is not None:
        return from_input
    return next((codes[r.path] for r in references(expr) if r.path in codes), None)


def _check_pins(decision: Decision, views: Sequence[ViewVersion], scores: Scores | None) -> None:
    seen = tuple(view.name for view in views)
    if seen != decision.views:
        raise DefinitionError(
            "HR-0712",
            f"decision {decision.name!r} does not read these views",
            detail=f"expected {', '.join(decision.views) or 'none'}; seen {', '.join(seen) or 'none'}",
        )
    if (scores is None) != (decision.model is None):
        raise DefinitionError(
            "HR-0712",
            f"decision {decision.name!r} has {'no' if decision.model is None else 'a'} model, "
            f"and {'none' if scores is None else 'one'} was given",
            hint="headrace models train",
        )
    given = {view.name: view.fingerprint for view in views}
    for name, fingerprint in {} if scores is None else scores.views.items():
        if given.get(name) != fingerprint:
            raise DefinitionError(
                "HR-0712",
                f"decision {decision.name!r}: its model was trained on another version of view {name!r}",
                detail=f"trained on {fingerprint}, in force {given.get(name)}",
                hint="train the model anew, or go back to the view it was trained on",
                view=name,
            )


def policy_fingerprint(decision: Decision) -> str:
    """The hash of what the policy means."""
    return hashlib.sha256(canonical_json(decision.meaning()).encode()).hexdigest()


def _text(decision: Decision, views: Sequence[ViewVersion], scores: Scores | None) -> str:
    return canonical_json(
        {
            "semantics": SEMANTICS,
            "policy": policy_fingerprint(decision),
            "model": None if scores is None else scores.id,
            "views": [[view.name, view.fingerprint] for view in views],
        }
    )
