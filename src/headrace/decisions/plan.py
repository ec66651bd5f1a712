"""From values to an outcome: a policy compiled once, and one version of a decision around it. Pure.

The one idea: a rule looks at why a value is null before it looks at the value, so nothing that is missing can pass for
something harmless. What is missing takes the rule's `on_missing`; a condition without truth value takes `on_empty`
where an empty window is why, else `on_missing` (SEMANTICS 3.5).

Everything that a decision depends on but its request and its features is in a `Version`: live decisions and replays run
the same code over it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from headrace.core.aggregate import Reason
from headrace.core.codec import Physical, canonical_json
from headrace.core.errors import DefinitionError
from headrace.core.evaluate import Evaluate, compile_scalar
from headrace.core.expr import Expr, Source, references
from headrace.core.times import Duration
from headrace.decisions.define import Decision, OnNull, Outcome, Rule
from headrace.decisions.reasons import MISSING_DATA, MODEL_SCORE, NO_EVENTS, REASONS_MAX, code_of
from headrace.log.define import Topic

SEMANTICS = 2  # of policies; raised when the same values would be decided otherwise

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
class _Asked:
    """A condition of a rule, compiled. computed: places of the features and the score that it reads; fields: of the
    request's fields."""

    truth: Evaluate
    computed: tuple[int, ...]
    fields: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """A rule, compiled. conditions: its segment, where it has one, and its condition."""

    rule: Rule
    conditions: tuple[_Asked, ...]
    codes: tuple[str, ...]
    from_model: bool


class Standing(enum.Enum):
    """How a rule stood in one decision. NULL: it had no truth value, and said what is then decided. SKIPPED: it had
    none, as a window was empty, and passed on."""

    HELD = "held"
    FALSE = "did not hold"
    OUTSIDE = "is for another segment"
    NULL = "had no truth value"
    SKIPPED = "had no truth value, skipped"
    NOT_ASKED = "not asked"


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
                    return Decided(step.rule.outcome, _codes(step, explain), index)
                case (outcome, code):
                    return Decided(outcome, (code,), index)
        raise AssertionError("a policy ends in an unconditional rule: decisions/define.py sees to it")

    def trace(self, values: Values, reasons: Sequence[Reason]) -> tuple[Standing, ...]:
        """How each rule stood, in order."""
        found: list[Standing] = []
        decided = False
        for step in self._steps:
            then = None if decided else _asked(step, values, reasons)
            match then:
                case None if decided:
                    found.append(Standing.NOT_ASKED)
                case None:
                    found.append(_passed(step, values))
                case Outcome():
                    found.append(Standing.HELD)
                case _:
                    found.append(Standing.NULL)
            decided = decided or then is not None
        return tuple(found)


def _step(rule: Rule, names: Sequence[str], places: Mapping[str, int]) -> _Step:
    conditions = tuple(_compiled(condition, names, places) for condition in rule.conditions)
    return _Step(rule, conditions, rule.codes, rule.from_model)


def _compiled(condition: Expr, names: Sequence[str], places: Mapping[str, int]) -> _Asked:
    truth = compile_scalar(condition, names)
    read = {r.path: r.source for r in references(condition)}
    fields = tuple(places[path] for path, source in read.items() if source is Source.FIELD)
    computed = tuple(places[path] for path, source in read.items() if source is not Source.FIELD)
    return _Asked(truth, computed, fields)


def _asked(step: _Step, values: Values, reasons: Sequence[Reason]) -> Outcome | tuple[Outcome, str] | None:
    """None: the next rule. An outcome alone: the rule applies. With a code: what it says of nulls."""
    rule = step.rule
    for condition in step.conditions:
        missing = False
        for place in condition.computed:
            if reasons[place] > Reason.EMPTY:
                missing = True
        if not missing:
            truth = condition.truth(values)  # type: ignore[arg-type]  # lists among them are read by no expression
            if truth is True:
                continue
            if truth is False:
                return None
        said, code = rule.on_missing, MISSING_DATA
        if not missing and rule.on_empty is not None and _is_empty(condition, values, reasons):
            said, code = rule.on_empty, NO_EVENTS
        match said:
            case OnNull.APPLY:
                continue
            case OnNull.SKIP:
                return None
            case OnNull.REVIEW:
                return Outcome.REVIEW, code
            case OnNull.DECLINE:
                return Outcome.DECLINE, code
            case OnNull.APPROVE:
                return Outcome.APPROVE, code
        assert_never(said)
    return rule.outcome


def _passed(step: _Step, values: Values) -> Standing:
    """Why a rule passed on."""
    for place, condition in enumerate(step.conditions):
        truth = condition.truth(values)  # type: ignore[arg-type]  # as above
        if truth is False:
            return Standing.OUTSIDE if place == 0 and step.rule.segment is not None else Standing.FALSE
        if truth is None and step.rule.on_empty is OnNull.SKIP:
            return Standing.SKIPPED
    return Standing.FALSE


def _is_empty(condition: _Asked, values: Values, reasons: Sequence[Reason]) -> bool:
    """Whether an empty window, and no field of the request, is why a condition has no truth value."""
    if any(values[place] is None for place in condition.fields):
        return False
    return any(reasons[place] is Reason.EMPTY for place in condition.computed)


def _codes(step: _Step, explain: Explain) -> tuple[str, ...]:
    """The rule's own, then the model's, each once."""
    if not step.from_model:
        return step.codes
    found = explain()
    if step.codes and found == (MODEL_SCORE,):
        return step.codes  # it stands only where nothing else can be said
    return tuple(dict.fromkeys((*step.codes, *found)))[:REASONS_MAX]


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
        codes, excluded = dict(decision.reasons), frozenset(decision.not_a_reason)
        put(self, "decision", decision)
        put(self, "views", tuple(views))
        put(self, "scores", scores)
        put(self, "names", names)
        put(self, "text", _text(decision, views, scores))
        put(self, "policy", Policy(decision.policy, names))
        put(self, "_score_reads", tuple(sorted(places[path] for path in read)))
        put(self, "_codes", tuple(code_of(i.expr, codes, excluded) for i in inputs))
        put(self, "_plain", (Reason.VALUE,) * len(decision.request.schema.fields))

    def decide(self, row: Sequence[Physical], answers: Sequence[Answer]) -> tuple[float | None, Decided]:
        """Score and outcome of a request's row, from its views' answers in order. An absent view's are all MISSING."""
        values, reasons, score = self.weigh(row, answers)
        return score, self.policy.evaluate(values, reasons, lambda: self._explain(values))

    def weigh(
        self, row: Sequence[Physical], answers: Sequence[Answer]
    ) -> tuple[list[Value], list[Reason], float | None]:
        """What the policy is asked with, by `names`: values, and why each is what it is; the score, which is the last
        of them."""
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
        return values, reasons, score

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
