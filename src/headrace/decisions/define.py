"""Decisions: a request, what is computed for it, and the rules that make of it an outcome with reasons. Frozen, pure.

Rules are tried in order and the first that applies decides; the last is unconditional, so there is always an outcome. A
value that is not there never passes for one that is harmless: each rule says, or inherits, what it then does (SEMANTICS
3.5).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from headrace.core import schema
from headrace.core.errors import DefinitionError
from headrace.core.expr import Expr, Operand, Reference, Source, describe, references, to_expr
from headrace.core.times import Duration
from headrace.features.define import Feature, check_declared
from headrace.log.define import Topic
from headrace.models.define import Model, check_known, view_names

MISSING_DATA = "MISSING_DATA"  # the reason given where a rule's value is missing
BUDGET = Duration.parse("50ms")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class Outcome(enum.Enum):
    """What is decided."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"


class OnNull(enum.Enum):
    """What a rule does where its condition has no truth value. APPLY: as if it were true. SKIP: as if it were false,
    which only an empty window may say; REVIEW, DECLINE, APPROVE: that outcome, here and now."""

    APPLY = "apply"
    SKIP = "skip"
    REVIEW = "review"
    DECLINE = "decline"
    APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class FromModel:
    """The reasons are the inputs that moved the model's score most, by the decision's `reasons`."""


score = Reference(source=Source.SCORE, owner="", name="score", type=schema.float64, nullable=False)
from_model = FromModel()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """condition None: always. on_empty None: not said, which only a rule that reads nothing empty may leave open."""

    outcome: Outcome
    condition: Expr | None = None
    reason: str | FromModel | None = None
    on_missing: OnNull = OnNull.REVIEW
    on_empty: OnNull | None = None

    @property
    def reads(self) -> tuple[Reference, ...]:
        """What the condition reads, each once, left to right."""
        if self.condition is None:
            return ()
        return tuple({r.path: r for r in references(self.condition)}.values())


def decline_if(
    condition: Operand, *, reason: str | FromModel, on_missing: str = "review", on_empty: str | None = None
) -> Rule:
    """Decline where the condition is true. reason: a code as in "TOO_MANY", or hr.from_model. on_missing: what is done
    where a value that it reads is missing: "review" (reason MISSING_DATA), "decline", "approve" or "apply". on_empty:
    where it is null because a window held nothing: these, or "skip" for the next rule. Raises: DefinitionError
    HR-0707."""
    return _rule(Outcome.DECLINE, condition, reason, on_missing, on_empty)


def review_if(
    condition: Operand,
    *,
    reason: str | FromModel | None = None,
    on_missing: str = "review",
    on_empty: str | None = None,
) -> Rule:
    """Hand to a person where the condition is true; the rest as in `decline_if`."""
    return _rule(Outcome.REVIEW, condition, reason, on_missing, on_empty)


def approve_if(
    condition: Operand, *, reason: str | None = None, on_missing: str = "review", on_empty: str | None = None
) -> Rule:
    """Approve where the condition is true, before the rules below are asked; the rest as in `decline_if`."""
    return _rule(Outcome.APPROVE, condition, reason, on_missing, on_empty)


def approve() -> Rule:
    """Approve what no rule above has decided."""
    return Rule(outcome=Outcome.APPROVE)


def review(*, reason: str | FromModel | None = None) -> Rule:
    """Review what no rule above has decided."""
    return Rule(outcome=Outcome.REVIEW, reason=_reason(reason))


def decline(*, reason: str | FromModel) -> Rule:
    """Decline what no rule above has decided."""
    return Rule(outcome=Outcome.DECLINE, reason=_reason(reason))


def _rule(
    outcome: Outcome,
    condition: Operand,
    reason: str | FromModel | None,
    on_missing: str,
    on_empty: str | None,
) -> Rule:
    tree = to_expr(condition)
    if tree.type != schema.boolean:
        raise DefinitionError(
            "HR-0707",
            f"{outcome.value}_if: {describe(tree)} is {tree.type}",
            detail="expected a condition",
            hint="compare it, as in hr.score > 0.9",
        )
    return Rule(
        outcome=outcome,
        condition=tree,
        reason=_reason(reason),
        on_missing=_on_null("on_missing", on_missing, skip=False),
        on_empty=None if on_empty is None else _on_null("on_empty", on_empty, skip=True),
    )


def _reason(reason: str | FromModel | None) -> str | FromModel | None:
    if reason is None or isinstance(reason, FromModel) or _CODE.fullmatch(reason):
        return reason
    raise DefinitionError(
        "HR-0706",
        f"{reason!r} cannot be a reason",
        detail="expected a code of capitals, digits and _, at most 64 long, as in 'TOO_MANY_APPLICATIONS'",
    )


def _on_null(name: str, said: str, *, skip: bool) -> OnNull:
    known = [each.value for each in OnNull if skip or each is not OnNull.SKIP]
    if said not in known:
        hint = ""
        if said == OnNull.SKIP.value:
            hint = "a missing value never falls through to the next rule: say what is then decided"
        raise DefinitionError("HR-0707", f"{name}={said!r}", detail=f"expected one of {', '.join(known)}", hint=hint)
    return OnNull(said)


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Decision:
    """What is decided for each request of a topic.

    reasons: a model input or feature -> the code that is given when it moved the score. budget: the time that a
    decision may take; a record of one that took longer says so. Raises: DefinitionError HR-0701 to HR-0707, LeakError
    HR-0201, MaturityError HR-0202.
    """

    name: str
    request: Topic
    model: Model | None
    policy: tuple[Rule, ...]
    reasons: tuple[tuple[str, str], ...]  # (the canonical text of the expression, code)
    budget: Duration
    description: str

    def __init__(
        self,
        name: str,
        *,
        request: Topic,
        policy: Sequence[Rule],
        model: Model | None = None,
        reasons: Mapping[Expr | Feature, str] | None = None,
        budget: str | Duration = BUDGET,
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
        put(self, "policy", tuple(policy))
        put(self, "budget", Duration.parse(budget))
        put(self, "description", description)
        _check_request(self)
        _check_policy(self)
        put(self, "reasons", tuple(_reasons(self, reasons or {})))

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views that the model and the rules read, in order of first use."""
        own = view_names(rule.condition for rule in self.policy if rule.condition is not None)
        return tuple(dict.fromkeys((*(self.model.views if self.model is not None else ()), *own)))

    def meaning(self) -> dict[str, object]:
        """What the policy's fingerprint covers, as JSON values; the model and the topic are covered by their own."""
        return {
            "kind": "decision",
            "name": self.name,
            "request": self.request.name,
            "model": None if self.model is None else self.model.name,
            "policy": [_rule_meaning(rule) for rule in self.policy],
            "reasons": [list(pair) for pair in self.reasons],
            "budget": self.budget.micros,
        }


def _rule_meaning(rule: Rule) -> dict[str, object]:
    said: dict[str, object] = {}
    for each in fields(rule):
        value = getattr(rule, each.name)
        match value:
            case Expr():
                said[each.name] = describe(value)
            case enum.Enum():
                said[each.name] = value.value
            case FromModel():
                said[each.name] = {"from": "model"}
            case _:
                said[each.name] = value
    return said


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
    if not policy or policy[-1].condition is not None:
        raise DefinitionError(
            "HR-0702",
            f"decision {name!r}: its policy may end without an outcome",
            detail="expected an unconditional last rule",
            hint="end it with hr.approve(), hr.review() or hr.decline(reason=...)",
        )
    for index, rule in enumerate(policy):
        if rule.condition is None and index < len(policy) - 1:
            raise DefinitionError(
                "HR-0702",
                f"decision {name!r}: rules after rule {index} are never asked",
                detail=f"rule {index} is unconditional: {rule.outcome.value}",
                hint="put it last",
                rule=index,
            )
        if rule.reason == from_model and decision.model is None:
            raise DefinitionError(
                "HR-0704", f"decision {name!r}: rule {index} gives reasons from a model, and there is none"
            )
        if rule.condition is not None:
            _check_condition(decision, index, rule, rule.condition)


def _check_condition(decision: Decision, index: int, rule: Rule, condition: Expr) -> None:
    where = f"decision {decision.name!r}: rule {index}"
    check_known(where, condition, (decision.name,))
    check_declared(where, condition, decision.request)
    for reference in rule.reads:
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
    empties = [r.path for r in rule.reads if r.may_be_empty]
    if empties and condition.nullable and rule.on_empty is None:
        raise DefinitionError(
            "HR-0703",
            f"{where} is null where {empties[0]} has no events",
            detail=f"in {describe(condition)}",
            hint="say on_empty='skip' (or 'apply', 'review', 'decline') on the rule, or empty=... on the feature",
            rule=index,
            feature=empties[0],
        )


def _reasons(decision: Decision, given: Mapping[Expr | Feature, str]) -> Iterator[tuple[str, str]]:
    """Each key must be something that can be a reason: an input of the model, or what an input or a rule reads."""
    model_inputs = () if decision.model is None else decision.model.inputs
    trees = [i.expr for i in model_inputs] + [r.condition for r in decision.policy if r.condition is not None]
    at_hand = {describe(i.expr) for i in model_inputs} | {r.path for tree in trees for r in references(tree)}
    for key, code in given.items():
        text = describe(to_expr(key))
        if text not in at_hand:
            raise DefinitionError(
                "HR-0706",
                f"decision {decision.name!r}: {text} cannot be the reason for {code!r}",
                detail="neither the model nor a rule reads it",
                hint="take it out, or give it to the model",
            )
        _reason(code)
        yield text, code
