"""Decisions: a request, what is computed for it, and the rules that make of it an outcome with reasons. Frozen, pure.

Rules are tried in order and the first that applies decides; the last is unconditional, so there is always an outcome.
What a rule is stands in rules.py, what a reason may be in reasons.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.core.errors import DefinitionError
from headrace.core.expr import Expr, Reference, Source, describe, references
from headrace.core.times import Duration
from headrace.decisions.reasons import (
    DEADLINE,
    MISSING_DATA,
    MODEL_SCORE,
    NO_EVENTS,
    UNAVAILABLE,
    Meant,
    Texts,
    check_code,
    check_texts,
    leans,
    meant,
    unmapped,
)
from headrace.decisions.rules import (
    FromModel,
    OnNull,
    Outcome,
    Rule,
    Rules,
    approve,
    approve_if,
    decline,
    decline_if,
    flat,
    for_segment,
    from_model,
    review,
    review_if,
    score,
)
from headrace.features.define import FeatureView, check_declared
from headrace.log.define import Topic
from headrace.models.define import Model, check_known, view_names

BUDGET = Duration.parse("50ms")


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Decision:
    """What is decided for each request of a topic.

    models: several that score each request, read by the rules as `fraud.score`; model: the only one, read as
    `hr.score`. reasons: a model input, a feature or a view -> the code that is given when it raised the score.
    not_a_reason: inputs and features that are left out on purpose; of a model that gives reasons every input is the one
    or the other. texts: code -> language -> what it says. challengers: other decisions of the same requests, tried
    beside this one (`Challenger`). budget: the time that a decision may take; a record of one that took longer says so.
    fallback: the outcome that a server answers, with the reason DEADLINE or UNAVAILABLE, where it could not decide
    within the budget; such an answer is no decision and is not recorded. Raises: DefinitionError HR-0701 to HR-0709,
    HR-0718, LeakError HR-0201, MaturityError HR-0202.
    """

    name: str
    request: Topic
    models: tuple[Model, ...]
    policy: tuple[Rule, ...]
    reasons: tuple[tuple[str, str], ...]  # (the canonical text of the expression, code)
    not_a_reason: tuple[str, ...]  # canonical texts
    texts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # (code, ((language, text), ...))
    challengers: tuple[Challenger, ...]
    budget: Duration
    fallback: Outcome
    description: str

    def __init__(
        self,
        name: str,
        *,
        request: Topic,
        policy: Sequence[Rules],
        model: Model | None = None,
        models: Sequence[Model] = (),
        reasons: Mapping[Meant, str] | None = None,
        not_a_reason: Sequence[Meant] = (),
        texts: Texts | None = None,
        challengers: Sequence[Challenger] = (),
        budget: str | Duration = BUDGET,
        fallback: str | Outcome = Outcome.REVIEW,
        description: str = "",
    ) -> None:
        if not name.isidentifier() or name.startswith("_"):
            raise DefinitionError(
                "HR-0101", f"{name!r} cannot name a decision", detail="expected a Python identifier without leading _"
            )
        put = object.__setattr__
        put(self, "name", name)
        put(self, "request", request)
        put(self, "models", _models(name, model, models))
        put(self, "policy", tuple(flat(policy)))
        put(self, "budget", Duration.parse(budget))
        put(self, "fallback", _fallback(name, fallback))
        put(self, "description", description)
        _check_request(self)
        _check_policy(self)
        put(self, "reasons", tuple(_reasons(self, reasons or {}, not_a_reason)))
        put(self, "not_a_reason", tuple(_excluded(self, not_a_reason)))
        _check_reasons(self)
        put(self, "texts", () if texts is None else check_texts(name, texts, self.codes))
        put(self, "challengers", tuple(challengers))
        _check_challengers(self)

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views that the models and the rules read, in order of first use; its challengers' behind
        them."""
        ours = [view for model in self.models for view in model.views]
        own = view_names(condition for rule in self.policy for condition in rule.conditions)
        theirs = [view for one in self.challengers for view in one.decision.views]
        return tuple(dict.fromkeys((*ours, *own, *theirs)))

    @property
    def scored(self) -> tuple[Model, ...]:
        """Every model that scores a request: its own, and its challengers' behind them, each once."""
        own, theirs = self.models, (model for one in self.challengers for model in one.decision.models)
        return tuple({model.name: model for model in (*own, *theirs)}.values())

    def told_by(self, rule: Rule) -> Model | None:
        """The model whose reasons a rule of this decision gives; None where it gives none."""
        if not rule.from_model:
            return None
        if len(self.models) == 1:
            return self.models[0]
        read = {r.owner for r in rule.reads if r.source is Source.SCORE}
        found = [model for model in self.models if model.name in read]
        return found[0] if len(found) == 1 else None

    @property
    def codes(self) -> tuple[str, ...]:
        """Every reason that it can give, its fallback's among them."""
        own = [code for rule in self.policy for code in rule.codes]
        ours = [MISSING_DATA, DEADLINE, UNAVAILABLE]
        if any(rule.on_empty not in (None, OnNull.APPLY, OnNull.SKIP) for rule in self.policy):
            ours.append(NO_EVENTS)
        if any(rule.from_model for rule in self.policy):
            own += [code for _, code in self.reasons]
            ours.append(MODEL_SCORE)
        return tuple(dict.fromkeys((*own, *ours)))

    def text(self, code: str, language: str) -> str | None:
        """What a reason says in a language; None where there are no texts, or none in it."""
        return dict(dict(self.texts).get(code, ())).get(language)

    @property
    def languages(self) -> tuple[str, ...]:
        """Of the texts, in the order in which they were given."""
        return tuple(language for language, _ in self.texts[0][1]) if self.texts else ()

    def answering(self, arm: str | None) -> Decision:
        """Whose policy an answer is of: the challenger of this name; itself where it is None, or no longer there."""
        return next((one.decision for one in self.challengers if one.decision.name == arm), self)

    def meaning(self) -> dict[str, object]:
        """What the policy's fingerprint covers, as JSON values; the model and the topic are covered by their own."""
        return {
            "kind": "decision",
            "name": self.name,
            "request": self.request.name,
            "model": self.models[0].name if len(self.models) == 1 else None,
            "policy": [rule.meaning() for rule in self.policy],
            "reasons": [list(pair) for pair in self.reasons],
            "budget": self.budget.micros,
            # Only where they are not the default, so that policies written before them keep their fingerprints. Texts
            # are no part of it: what is decided, and for which reasons, is the same in other words.
            **({"not_a_reason": list(self.not_a_reason)} if self.not_a_reason else {}),
            **({} if self.fallback is Outcome.REVIEW else {"fallback": self.fallback.value}),
            **({"models": [model.name for model in self.models]} if len(self.models) > 1 else {}),
            **({"challengers": [[c.decision.name, c.share] for c in self.challengers]} if self.challengers else {}),
        }


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Challenger:
    """Another decision of the same requests, made at the same point, beside the one that names it.

    share: of the requests' keys, those for which it gives the answer, above 0 and at most 1; the same keys every time,
    and a larger share takes in the keys of a smaller one. 0: it gives none, it is a shadow. Whoever does not give the
    answer is recorded beside it. Of a challenger count its models, policy and reasons; the budget and the fallback are
    those of the decision that names it. Raises: DefinitionError HR-0718.
    """

    decision: Decision
    share: float

    def __init__(self, decision: Decision, *, share: float = 0.0) -> None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise DefinitionError(
                "HR-0718",
                f"challenger {decision.name!r}: share={share!r}",
                detail="expected the part of the keys that it decides, from 0 (none) to 1 (all)",
            )
        object.__setattr__(self, "decision", decision)
        object.__setattr__(self, "share", float(share))


def explaining(decision: Decision) -> tuple[Model, ...]:
    """The models that some rule of it, or of its challengers, gives reasons from."""
    all = (decision, *(one.decision for one in decision.challengers))
    told = (model for one in all for rule in one.policy if (model := one.told_by(rule)) is not None)
    return tuple({model.name: model for model in told}.values())


def _models(name: str, model: Model | None, models: Sequence[Model]) -> tuple[Model, ...]:
    if model is not None and models:
        raise DefinitionError("HR-0705", f"decision {name!r} has model= and models=", hint="name all of them in models")
    given = (model,) if model is not None else tuple(models)
    if len({one.name for one in given}) < len(given):
        raise DefinitionError("HR-0705", f"decision {name!r} names a model twice", hint="name each once")
    return given


def _check_challengers(decision: Decision) -> None:
    seen: set[str] = {decision.name}
    for one in decision.challengers:
        other = one.decision
        if other.name in seen:
            raise DefinitionError("HR-0718", f"decision {decision.name!r}: {other.name!r} cannot challenge it twice")
        seen.add(other.name)
        if other.request is not decision.request:
            raise DefinitionError(
                "HR-0718",
                f"decision {decision.name!r}: challenger {other.name!r} decides other requests",
                detail=f"expected topic {decision.request.name!r}, seen {other.request.name!r}",
            )
        if other.challengers:
            raise DefinitionError(
                "HR-0718", f"decision {decision.name!r}: challenger {other.name!r} has challengers of its own"
            )
    if sum(one.share for one in decision.challengers) > 1:
        raise DefinitionError(
            "HR-0718",
            f"decision {decision.name!r}: its challengers' shares are more than 1 together",
            detail=", ".join(f"{one.decision.name} {one.share}" for one in decision.challengers),
        )


def _fallback(name: str, said: str | Outcome) -> Outcome:
    known = {each.value: each for each in Outcome}
    found = said if isinstance(said, Outcome) else known.get(said)
    if found is None:
        raise DefinitionError(
            "HR-0707", f"decision {name!r}: fallback={said!r}", detail=f"expected one of {', '.join(known)}"
        )
    return found


def _check_request(decision: Decision) -> None:
    topic = decision.request
    if topic.id is None:
        raise DefinitionError(
            "HR-0701",
            f"decision {decision.name!r}: topic {topic.name!r} has no id",
            detail="expected a request to have an identity: a second try must find the first one's answer",
            hint=f"hr.Topic({topic.name!r}, id='request_id', ...)",
        )
    if decision.budget.micros <= 0:
        raise DefinitionError(
            "HR-0707", f"decision {decision.name!r}: budget {decision.budget}", detail="expected above 0"
        )
    for model in decision.models:
        if model.topic != topic.name:
            raise DefinitionError(
                "HR-0705",
                f"decision {decision.name!r}: model {model.name!r} scores topic {model.topic!r}",
                detail=f"expected a model of the request's topic, {topic.name!r}",
            )
        for one in model.inputs:
            check_declared(f"decision {decision.name!r}: input {one.name!r}", one.expr, topic)


def _check_policy(decision: Decision) -> None:
    name, policy = decision.name, decision.policy
    if not policy or not policy[-1].always:
        raise DefinitionError(
            "HR-0702",
            f"decision {name!r}: its policy may end without an outcome",
            detail="expected an unconditional last rule",
            hint="end it with hr.approve(), hr.review() or hr.decline(reason=...)",
        )
    for index, rule in enumerate(policy):
        if rule.always and index < len(policy) - 1:
            raise DefinitionError(
                "HR-0702",
                f"decision {name!r}: rules after rule {index} are never asked",
                detail=f"rule {index} is unconditional: {rule.outcome.value}",
                hint="put it last",
                rule=index,
            )
        if rule.from_model and decision.told_by(rule) is None:
            several = len(decision.models) > 1
            raise DefinitionError(
                "HR-0704",
                f"decision {name!r}: rule {index} gives reasons from a model, and there is none"
                if not several
                else f"decision {name!r}: rule {index} does not say of which model its reasons are",
                detail=f"models: {', '.join(model.name for model in decision.models)}" if several else "",
                hint="compare the score of one of them in it, as in "
                f"hr.decline_if({decision.models[0].name}.score > 0.9, reason=hr.from_model)"
                if several
                else "",
                rule=index,
            )
        for condition in rule.conditions:
            _check_condition(decision, index, rule, condition)


def _check_condition(decision: Decision, index: int, rule: Rule, condition: Expr) -> None:
    where = f"decision {decision.name!r}: rule {index}"
    check_known(where, condition, (decision.name,))
    check_declared(where, condition, decision.request)
    for reference in references(condition):
        match reference.source:
            case Source.FIELD if reference.owner != decision.request.name:
                raise DefinitionError(
                    "HR-0704",
                    f"{where} reads {reference.path!r}, which is not of the request's topic {decision.request.name!r}",
                    hint="what other topics know enters through a feature view",
                )
            case Source.SCORE:
                _check_score(decision, where, reference)
    empties = [r.path for r in references(condition) if r.may_be_empty]
    if empties and condition.nullable and rule.on_empty is None:
        raise DefinitionError(
            "HR-0703",
            f"{where} is null where {empties[0]} has no events",
            detail=f"in {describe(condition)}",
            hint="say on_empty='skip' (or 'apply', 'review', 'decline') on the rule, or empty=... on the feature",
            rule=index,
            feature=empties[0],
        )


def _check_score(decision: Decision, where: str, reference: Reference) -> None:
    """`hr.score` is that of the only model; of several each is asked for by name."""
    names = [model.name for model in decision.models]
    if not names:
        raise DefinitionError(
            "HR-0704", f"{where} reads a score, and the decision has no model", hint="give it model=..."
        )
    if len(names) == 1 and reference.owner:
        known = reference.owner in names
        raise DefinitionError(
            "HR-0704",
            f"{where} reads {reference.path}",
            detail=f"the decision has one model, {names[0]!r}",
            hint="its score is hr.score" if known else f"models=[{names[0]}, {reference.owner}]",
        )
    if len(names) > 1 and reference.owner not in names:
        raise DefinitionError(
            "HR-0704",
            f"{where} reads {'hr.score' if not reference.owner else reference.path}",
            detail=f"the decision has {len(names)} models: {', '.join(names)}",
            hint=f"say whose score: {names[0]}.score",
        )
    taken = {r.path for rule in decision.policy for r in rule.reads if r.source is not Source.SCORE}
    if reference.path in taken:
        raise DefinitionError(
            "HR-0705",
            f"{where} reads {reference.path}, the score of a model and a value of that name",
            hint="rename the model",
        )


def _reasons(decision: Decision, given: Mapping[Meant, str], excluded: Sequence[Meant]) -> Iterator[tuple[str, str]]:
    """Each key must be something that can be a reason. A view stands for those of its features that have no code of
    their own and are not left out by themselves."""
    alone = {text for text, named in meant(excluded) if not isinstance(named, FeatureView)}
    at_hand = _at_hand(decision)
    codes: dict[str, str] = {}
    whole: dict[str, str] = {}
    for key, code in given.items():
        check_code(code)
        if isinstance(key, FeatureView) and any(key is each for each in excluded):
            raise _both(decision, f"view {key.name!r}", code)
        for text, named in meant([key]):
            _check_at_hand(decision, text, at_hand, named, f"the reason for {code!r}")
            (whole if isinstance(named, FeatureView) else codes)[text] = code
    yield from codes.items()
    yield from ((text, code) for text, code in whole.items() if text in at_hand and text not in {*codes, *alone})


def _excluded(decision: Decision, given: Sequence[Meant]) -> Iterator[str]:
    at_hand, codes = _at_hand(decision), dict(decision.reasons)
    for text, named in meant(given):
        _check_at_hand(decision, text, at_hand, named, "left out of the reasons")
        if text not in at_hand or (isinstance(named, FeatureView) and text in codes):
            continue
        if text in codes:
            raise _both(decision, text, codes[text])
        yield text


def _both(decision: Decision, what: str, code: str) -> DefinitionError:
    return DefinitionError(
        "HR-0706",
        f"decision {decision.name!r}: {what} is the reason for {code!r} and left out of the reasons",
        hint="take it out of reasons or of not_a_reason",
    )


def _at_hand(decision: Decision) -> set[str]:
    """An input of the model, and what an input or a rule reads."""
    inputs = [i for model in decision.models for i in model.inputs]
    trees = [i.expr for i in inputs] + [condition for r in decision.policy for condition in r.conditions]
    return {describe(i.expr) for i in inputs} | {r.path for tree in trees for r in references(tree)}


def _check_at_hand(decision: Decision, text: str, at_hand: set[str], named: Meant, what: str) -> None:
    seen = any(part in at_hand for part, _ in meant([named])) if isinstance(named, FeatureView) else text in at_hand
    if not seen:
        raise DefinitionError(
            "HR-0706",
            f"decision {decision.name!r}: {text} cannot be {what}",
            detail="neither the model nor a rule reads it",
            hint="take it out, or give it to the model",
        )


def _check_reasons(decision: Decision) -> None:
    """A model that gives reasons gives all of them, and those of the rules that it gives them for."""
    told = {model.name: model for rule in decision.policy if (model := decision.told_by(rule)) is not None}
    for model in told.values():
        inputs = [(i.name, i.expr) for i in model.inputs]
        names = unmapped(inputs, dict(decision.reasons), frozenset(decision.not_a_reason))
        if names:
            raise DefinitionError(
                "HR-0708",
                f"decision {decision.name!r}: {len(names)} of {len(inputs)} inputs of model {model.name!r} are "
                "neither a reason nor left out on purpose",
                detail=", ".join(names),
                hint="map each in reasons={...: 'CODE'}, or name it in not_a_reason=[...]",
                inputs=tuple(names),
            )
    approving: frozenset[int] = frozenset()
    for index, rule in enumerate(decision.policy):
        ways = frozenset(way for condition in rule.conditions for way in leans(condition))
        if rule.outcome is Outcome.APPROVE:
            approving |= ways
        # An unconditional rule decides what no rule before it has approved.
        if rule.from_model and (ways == {-1} or (not ways and approving == {1})):
            raise DefinitionError(
                "HR-0704",
                f"decision {decision.name!r}: rule {index} decides on low scores and gives the model's reasons",
                detail="the model's reasons are the inputs that raised the score",
                hint="train the model on the opposite label, or give the rule a code of its own",
                rule=index,
            )


__all__ = [
    "BUDGET",
    "DEADLINE",
    "MISSING_DATA",
    "UNAVAILABLE",
    "Challenger",
    "Decision",
    "FromModel",
    "OnNull",
    "Outcome",
    "Rule",
    "approve",
    "approve_if",
    "decline",
    "decline_if",
    "explaining",
    "for_segment",
    "from_model",
    "review",
    "review_if",
    "score",
]
