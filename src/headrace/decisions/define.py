"""Decisions: a request, what is computed for it, and the rules that make of it an outcome with reasons. Frozen, pure.

Rules are tried in order and the first that applies decides; the last is unconditional, so there is always an outcome.
What a rule is stands in rules.py, what a reason may be in reasons.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.core.errors import DefinitionError
from headrace.core.expr import Expr, Source, describe, references
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

    reasons: a model input, a feature or a view -> the code that is given when it raised the score. not_a_reason: inputs
    and features that are left out on purpose; of a model that gives reasons every input is the one or the other.
    texts: code -> language -> what it says. budget: the time that a decision may take; a record of one that took longer
    says so. fallback: the outcome that a server answers, with the reason DEADLINE or UNAVAILABLE, where it could not
    decide within the budget; such an answer is no decision and is not recorded. Raises:
    DefinitionError HR-0701 to HR-0709, LeakError HR-0201, MaturityError HR-0202.
    """

    name: str
    request: Topic
    model: Model | None
    policy: tuple[Rule, ...]
    reasons: tuple[tuple[str, str], ...]  # (the canonical text of the expression, code)
    not_a_reason: tuple[str, ...]  # canonical texts
    texts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # (code, ((language, text), ...))
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
        reasons: Mapping[Meant, str] | None = None,
        not_a_reason: Sequence[Meant] = (),
        texts: Texts | None = None,
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
        put(self, "model", model)
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

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views that the model and the rules read, in order of first use."""
        own = view_names(condition for rule in self.policy for condition in rule.conditions)
        return tuple(dict.fromkeys((*(self.model.views if self.model is not None else ()), *own)))

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

    def meaning(self) -> dict[str, object]:
        """What the policy's fingerprint covers, as JSON values; the model and the topic are covered by their own."""
        return {
            "kind": "decision",
            "name": self.name,
            "request": self.request.name,
            "model": None if self.model is None else self.model.name,
            "policy": [rule.meaning() for rule in self.policy],
            "reasons": [list(pair) for pair in self.reasons],
            "budget": self.budget.micros,
            # Only where they are not the default, so that policies written before them keep their fingerprints. Texts
            # are no part of it: what is decided, and for which reasons, is the same in other words.
            **({"not_a_reason": list(self.not_a_reason)} if self.not_a_reason else {}),
            **({} if self.fallback is Outcome.REVIEW else {"fallback": self.fallback.value}),
        }


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
    if decision.model is not None and decision.model.topic != topic.name:
        raise DefinitionError(
            "HR-0705",
            f"decision {decision.name!r}: model {decision.model.name!r} scores topic {decision.model.topic!r}",
            detail=f"expected a model of the request's topic, {topic.name!r}",
        )
    for one in () if decision.model is None else decision.model.inputs:
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
        if rule.from_model and decision.model is None:
            raise DefinitionError(
                "HR-0704", f"decision {name!r}: rule {index} gives reasons from a model, and there is none"
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
            case Source.SCORE if decision.model is None:
                raise DefinitionError(
                    "HR-0704", f"{where} reads a score, and the decision has no model", hint="give it model=..."
                )
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
    inputs = () if decision.model is None else decision.model.inputs
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
    told = [(index, rule) for index, rule in enumerate(decision.policy) if rule.from_model]
    if decision.model is None or not told:
        return
    inputs = [(i.name, i.expr) for i in decision.model.inputs]
    names = unmapped(inputs, dict(decision.reasons), frozenset(decision.not_a_reason))
    if names:
        raise DefinitionError(
            "HR-0708",
            f"decision {decision.name!r}: {len(names)} of {len(inputs)} inputs of model {decision.model.name!r} are "
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
    "Decision",
    "FromModel",
    "OnNull",
    "Outcome",
    "Rule",
    "approve",
    "approve_if",
    "decline",
    "decline_if",
    "for_segment",
    "from_model",
    "review",
    "review_if",
    "score",
]
