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
from headrace.models.define import Model

SEMANTICS = 2  # of policies; raised when the same values would be decided otherwise

Value = Physical | tuple[Physical, ...]
Values = Sequence[Value]
Answer = tuple[tuple[Value, ...], tuple[Reason, ...]]  # a view's values and reasons, in its order of features
Explain = Callable[[int], tuple[str, ...]]  # a rule's index -> what its model's reasons are
Scored = tuple[str, float | None]  # a model's name, and its score


@dataclass(frozen=True, slots=True)
class Decided:
    """rule: the index of the rule that decided. reasons: codes, the weightiest first. scores: of each of its models, in
    their order."""

    outcome: Outcome
    reasons: tuple[str, ...]
    rule: int
    scores: tuple[Scored, ...] = ()

    @property
    def score(self) -> float | None:
        """Of the first model; None where there is none, or it gave no number."""
        return self.scores[0][1] if self.scores else None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is said of one request. answer: what is served. arm: the challenger that gave it; None: the decision itself.
    beside: what the others would have answered, by name: challengers in their order, before them the decision itself
    where it did not give the answer."""

    answer: Decided
    arm: str | None = None
    beside: tuple[tuple[str, Decided], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewVersion:
    """A view as a decision reads it. features: names in the order of its answers. topics: all whose events its values
    depend on: sources, labels' sources, late truths. held: it is held by partition, by whoever has that one of its
    derived topic, and asked through `RemoteViews`."""

    name: str
    fingerprint: str
    features: tuple[str, ...]
    topics: tuple[str, ...]
    max_staleness: Duration | None = None
    held: bool = False


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
    """The paths of what is known of a request, in order: its fields, each view's features. Scores follow them."""
    fields = [f"{request.name}.{name}" for name in request.schema.names]
    return (*fields, *(f"{view.name}.{feature}" for view in views for feature in view.features))


def score_names(decision: Decision) -> tuple[str, ...]:
    """The paths of its models' scores: that of an only one is "score"."""
    names = [model.name for model in decision.models]
    return tuple(f"{name}.score" for name in names) if len(names) > 1 else ("score",) * len(names)


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

    def evaluate(
        self, values: Values, reasons: Sequence[Reason], explain: Explain, scores: tuple[Scored, ...] = ()
    ) -> Decided:
        """The first rule that applies. reasons: why each value is what it is. explain: asked where a rule wants its
        model's reasons. scores: go with what is decided."""
        for index, step in enumerate(self._steps):
            then = _asked(step, values, reasons)
            match then:
                case None:
                    continue
                case Outcome():
                    return Decided(step.rule.outcome, _codes(step, index, explain), index, scores)
                case (outcome, code):
                    return Decided(outcome, (code,), index, scores)
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


def _codes(step: _Step, index: int, explain: Explain) -> tuple[str, ...]:
    """The rule's own, then the model's, each once."""
    if not step.from_model:
        return step.codes
    found = explain(index)
    if step.codes and found == (MODEL_SCORE,):
        return step.codes  # it stands only where nothing else can be said
    return tuple(dict.fromkeys((*step.codes, *found)))[:REASONS_MAX]


# --- one version of a decision ---


@dataclass(frozen=True, slots=True, init=False)
class Arm:
    """One of those that decide a request: the decision itself, or a challenger. names: the paths of the values that its
    policy is asked with, its models' scores last."""

    decision: Decision
    names: tuple[str, ...]
    policy: Policy
    scores: tuple[Scores, ...]  # of its models, in their order
    _places: tuple[tuple[str, int], ...] = field(repr=False)  # of its models: name, place among all that score
    _told: tuple[tuple[Scores, tuple[str | None, ...]] | None, ...] = field(repr=False)  # by rule: model, inputs' codes

    def __init__(self, decision: Decision, known: Sequence[str], scores: Mapping[str, Scores]) -> None:
        """known: what stands before the scores. scores: of all models that score, by name, in order."""
        put = object.__setattr__
        names = (*known, *score_names(decision))
        order = list(scores)
        put(self, "decision", decision)
        put(self, "names", names)
        put(self, "policy", Policy(decision.policy, names))
        put(self, "scores", tuple(scores[model.name] for model in decision.models))
        put(self, "_places", tuple((model.name, order.index(model.name)) for model in decision.models))
        put(self, "_told", tuple(_told(decision, rule, scores) for rule in decision.policy))

    def decide(
        self, values: Sequence[Value], reasons: Sequence[Reason], scored: Sequence[tuple[float | None, Reason]]
    ) -> Decided:
        """scored: what every model said, with why it is what it is."""
        values, reasons = self.weighed(values, reasons, scored)
        said = tuple([(name, scored[place][0]) for name, place in self._places])
        return self.policy.evaluate(values, reasons, lambda rule: self._explain(rule, values), said)

    def weighed(
        self, values: Sequence[Value], reasons: Sequence[Reason], scored: Sequence[tuple[float | None, Reason]]
    ) -> tuple[list[Value], list[Reason]]:
        """What its policy is asked with, by `names`."""
        all_values, all_reasons = list(values), list(reasons)
        for _, place in self._places:
            score, why = scored[place]
            all_values.append(score)
            all_reasons.append(why)
        return all_values, all_reasons

    def _explain(self, rule: int, values: Values) -> tuple[str, ...]:
        """The codes of the inputs that raised the score of the rule's model, each once, the most first."""
        told = self._told[rule]
        assert told is not None, "reasons from a model without one: decisions/define.py refuses them (HR-0704)"
        scores, codes = told
        found = dict.fromkeys(code for i in scores.raised_by(values) if (code := codes[i]) is not None)
        return tuple(found)[:REASONS_MAX] or (MODEL_SCORE,)


def _told(decision: Decision, rule: Rule, scores: Mapping[str, Scores]) -> tuple[Scores, tuple[str | None, ...]] | None:
    """The model whose reasons a rule gives, and the code of each of its inputs."""
    model = decision.told_by(rule)
    if model is None:
        return None
    codes, excluded = dict(decision.reasons), frozenset(decision.not_a_reason)
    return scores[model.name], tuple(code_of(i.expr, codes, excluded) for i in model.inputs)


@dataclass(frozen=True, slots=True, init=False)
class Version:
    """A decision with everything pinned (SEMANTICS 5.6). scores: of every model, by name. text: the version set, as
    records keep it: canonical JSON."""

    decision: Decision
    views: tuple[ViewVersion, ...]
    scores: Mapping[str, Scores]
    names: tuple[str, ...]
    text: str
    own: Arm
    challengers: tuple[Arm, ...]
    _score_reads: tuple[tuple[int, ...], ...] = field(repr=False)  # of each model, the places of what it reads
    _plain: tuple[Reason, ...] = field(repr=False)  # of the request's fields
    _ramps: tuple[tuple[int, int], ...] = field(repr=False)  # (key places below, the challenger that answers)
    _key: int = field(repr=False)

    def __init__(self, decision: Decision, views: Sequence[ViewVersion], scores: Mapping[str, Scores]) -> None:
        """views: in the order of `decision.views`. scores: of each of `decision.scored`, compiled over `value_names`.

        Raises: DefinitionError HR-0712 where views or models are not those that the decision reads or was trained on.
        """
        _check_pins(decision, views, scores)
        put = object.__setattr__
        names = value_names(decision.request, views)
        ordered = {model.name: scores[model.name] for model in decision.scored}
        put(self, "decision", decision)
        put(self, "views", tuple(views))
        put(self, "scores", ordered)
        put(self, "names", names)
        put(self, "text", _text(decision, views, ordered))
        put(self, "own", Arm(decision, names, ordered))
        put(self, "challengers", tuple(Arm(one.decision, names, ordered) for one in decision.challengers))
        put(self, "_score_reads", tuple(_reads(model, names) for model in decision.scored))
        put(self, "_plain", (Reason.VALUE,) * len(decision.request.schema.fields))
        put(self, "_ramps", _ramps(decision))
        put(self, "_key", decision.request.schema.names.index(decision.request.key))

    def decide(self, row: Sequence[Physical], answers: Sequence[Answer]) -> Ruling:
        """What is said of a request's row, from its views' answers in order. An absent view's are all MISSING."""
        values, reasons, scored = self.weigh(row, answers)
        own = self.own.decide(values, reasons, scored)
        if not self.challengers:
            return Ruling(own)
        said = [(arm.decision.name, arm.decide(values, reasons, scored)) for arm in self.challengers]
        chosen = self._chosen(row)
        if chosen is None:
            return Ruling(own, None, tuple(said))
        arm, answer = said.pop(chosen)
        return Ruling(answer, arm, ((self.decision.name, own), *said))

    def weigh(
        self, row: Sequence[Physical], answers: Sequence[Answer]
    ) -> tuple[list[Value], list[Reason], list[tuple[float | None, Reason]]]:
        """What is known of a request, by `names`: values, and why each is what it is; what each model says of it."""
        values: list[Value] = list(row)
        reasons = list(self._plain)
        for found, why in answers:
            values += found
            reasons += why
        scored: list[tuple[float | None, Reason]] = []
        for scores, reads in zip(self.scores.values(), self._score_reads, strict=True):
            score: float | None = scores.score(values)
            said = Reason.VALUE
            if score != score:  # finite inputs so large that a sum of them is no number (SEMANTICS 3.3)
                score, said = None, Reason.OVERFLOW
            # An input that a view did not answer for makes the score a guess: rules over it take `on_missing`.
            if any(reasons[place] >= Reason.MISSING for place in reads):
                said = Reason.MISSING
            scored.append((score, said))
        return values, reasons, scored

    def arm(self, name: str | None) -> Arm:
        """The challenger of this name; None: the decision itself."""
        return self.own if name is None else next(arm for arm in self.challengers if arm.decision.name == name)

    def absent(self, view: int) -> Answer:
        """The answer of a view that gave none."""
        count = len(self.views[view].features)
        return (None,) * count, (Reason.MISSING,) * count

    def _chosen(self, row: Sequence[Physical]) -> int | None:
        """The challenger that answers for the request's key."""
        if not self._ramps:
            return None
        place = key_place(self.decision.name, row[self._key])
        return next((challenger for below, challenger in self._ramps if place < below), None)


_PLACES = 2**64


def key_place(decision: str, key: Physical) -> int:
    """Where a key stands among 2**64 places, the same for ever, and another for each decision's name."""
    return int.from_bytes(hashlib.blake2b(canonical_json([decision, key]).encode(), digest_size=8).digest(), "big")


def _ramps(decision: Decision) -> tuple[tuple[int, int], ...]:
    """Shares as places, one behind the other."""
    made, below = [], 0.0
    for place, one in enumerate(decision.challengers):
        below += one.share
        if one.share:
            made.append((min(_PLACES, int(below * _PLACES)), place))
    return tuple(made)


def _reads(model: Model, names: Sequence[str]) -> tuple[int, ...]:
    read = {r.path for i in model.inputs for r in references(i.expr) if r.source is Source.FEATURE}
    return tuple(sorted(names.index(path) for path in read))


def _check_pins(decision: Decision, views: Sequence[ViewVersion], scores: Mapping[str, Scores]) -> None:
    seen = tuple(view.name for view in views)
    if seen != decision.views:
        raise DefinitionError(
            "HR-0712",
            f"decision {decision.name!r} does not read these views",
            detail=f"expected {', '.join(decision.views) or 'none'}; seen {', '.join(seen) or 'none'}",
        )
    given = {view.name: view.fingerprint for view in views}
    wanted = [model.name for model in decision.scored]
    if set(scores) != set(wanted):
        raise DefinitionError(
            "HR-0712",
            f"decision {decision.name!r} is not given the models that score for it",
            detail=f"expected {', '.join(wanted) or 'none'}; seen {', '.join(scores) or 'none'}",
            hint="headrace models train",
        )
    for model in wanted:
        for name, fingerprint in scores[model].views.items():
            if given.get(name) != fingerprint:
                raise DefinitionError(
                    "HR-0712",
                    f"decision {decision.name!r}: its model {model!r} was trained on another version of view {name!r}",
                    detail=f"trained on {fingerprint}, in force {given.get(name)}",
                    hint="train the model anew, or go back to the view it was trained on",
                    view=name,
                    model=model,
                )


def policy_fingerprint(decision: Decision) -> str:
    """The hash of what the policy means."""
    return hashlib.sha256(canonical_json(decision.meaning()).encode()).hexdigest()


def _text(decision: Decision, views: Sequence[ViewVersion], scores: Mapping[str, Scores]) -> str:
    """`model`: the artifact of the only one. What there is only with several models, or challengers, is said only
    there, so that the text of a version set of before is what it was."""
    only = len(scores) == 1 and len(decision.models) == 1
    return canonical_json(
        {
            "semantics": SEMANTICS,
            "policy": policy_fingerprint(decision),
            "model": next(iter(scores.values())).id if only else None,
            "views": [[view.name, view.fingerprint] for view in views],
            **({"models": [[name, one.id] for name, one in scores.items()]} if scores and not only else {}),
            **(
                {"challengers": [[c.decision.name, policy_fingerprint(c.decision)] for c in decision.challengers]}
                if decision.challengers
                else {}
            ),
        }
    )
