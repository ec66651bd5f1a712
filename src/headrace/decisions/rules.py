"""The rules of a policy: what is decided where a condition holds, and what where it has no truth value. Frozen, pure.

Rules are tried in order and the first that applies decides. A value that is not there never passes for one that is
harmless: each rule says, or inherits, what it then does (SEMANTICS 3.5).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from headrace.core import schema
from headrace.core.errors import DefinitionError
from headrace.core.expr import Expr, Operand, Reference, Source, describe, references, to_expr
from headrace.decisions.reasons import REASONS_MAX, check_code


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
    """The reasons are the inputs that raised the model's score most, by the decision's `reasons`."""


score = Reference(source=Source.SCORE, owner="", name="score", type=schema.float64, nullable=False)
from_model = FromModel()

Reasons = str | FromModel | Sequence[str | FromModel]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """condition None: always. segment: the requests that the rule is for; None: all. reason: a code, the model's, or
    codes and then the model's. on_empty None: not said, which only a rule that reads nothing empty may leave open."""

    outcome: Outcome
    condition: Expr | None = None
    reason: str | FromModel | tuple[str | FromModel, ...] | None = None
    on_missing: OnNull = OnNull.REVIEW
    on_empty: OnNull | None = None
    segment: Expr | None = None

    @property
    def always(self) -> bool:
        """Whether no rule behind it is ever asked."""
        return self.condition is None and self.segment is None

    @property
    def conditions(self) -> tuple[Expr, ...]:
        """What is asked, in order: the segment, then the condition."""
        return tuple(each for each in (self.segment, self.condition) if each is not None)

    @property
    def reads(self) -> tuple[Reference, ...]:
        """What the conditions read, each once, left to right."""
        return tuple({r.path: r for each in self.conditions for r in references(each)}.values())

    @property
    def codes(self) -> tuple[str, ...]:
        """The reasons of its own, the weightiest first."""
        said = self.reason if isinstance(self.reason, tuple) else (self.reason,)
        return tuple(each for each in said if isinstance(each, str))

    @property
    def from_model(self) -> bool:
        """Whether the model's reasons stand behind its own."""
        said = self.reason if isinstance(self.reason, tuple) else (self.reason,)
        return any(isinstance(each, FromModel) for each in said)

    def meaning(self) -> dict[str, object]:
        """As JSON values. A rule without a segment means what it did before there were any."""
        said = {each.name: _meaning(getattr(self, each.name)) for each in fields(self)}
        return said if self.segment is not None else {k: v for k, v in said.items() if k != "segment"}


Rules = Rule | Sequence["Rules"]


def flat(policy: Iterable[Rules]) -> Iterator[Rule]:
    """The rules of a policy in order, those of segments among them."""
    for one in policy:
        if isinstance(one, Rule):
            yield one
        else:
            yield from flat(one)


def decline_if(condition: Operand, *, reason: Reasons, on_missing: str = "review", on_empty: str | None = None) -> Rule:
    """Decline where the condition is true. reason: a code as in "TOO_MANY", hr.from_model, or codes and then
    hr.from_model. on_missing: what is done where a value that it reads is missing: "review" (reason MISSING_DATA),
    "decline", "approve" or "apply". on_empty: where it is null because a window held nothing: these, or "skip" for the
    next rule. Raises: DefinitionError HR-0706, HR-0707."""
    return _rule(Outcome.DECLINE, condition, reason, on_missing, on_empty)


def review_if(
    condition: Operand, *, reason: Reasons | None = None, on_missing: str = "review", on_empty: str | None = None
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


def review(*, reason: Reasons | None = None) -> Rule:
    """Review what no rule above has decided."""
    return Rule(outcome=Outcome.REVIEW, reason=_reason(reason))


def decline(*, reason: Reasons) -> Rule:
    """Decline what no rule above has decided."""
    return Rule(outcome=Outcome.DECLINE, reason=_reason(reason))


def for_segment(segment: Operand, rules: Iterable[Rules]) -> tuple[Rule, ...]:
    """Rules for the requests of which the condition `segment` is true, in their place among the others of a policy.

    Requests of which it is false pass them by. Where it has no truth value, each rule's on_missing and on_empty say
    what is done, as for its own condition. An unconditional rule at the end (`hr.approve()`) ends the policy for the
    segment; without one the rules behind are asked. Segments stand within segments. Raises: DefinitionError HR-0702,
    HR-0707.
    """
    tree = _condition("for_segment", segment)
    made = []
    within = tuple(flat(rules))
    for index, rule in enumerate(within):
        if rule.always and index < len(within) - 1:
            raise DefinitionError(
                "HR-0702",
                f"for_segment({describe(tree)}): rules after rule {index} are never asked",
                detail=f"rule {index} is unconditional: {rule.outcome.value}",
                hint="put it last",
                rule=index,
            )
        made.append(dataclasses.replace(rule, segment=tree if rule.segment is None else tree & rule.segment))
    if not made:
        raise DefinitionError("HR-0702", f"for_segment({describe(tree)}) has no rules", hint="give it some")
    return tuple(made)


def _rule(outcome: Outcome, condition: Operand, reason: Reasons | None, on_missing: str, on_empty: str | None) -> Rule:
    return Rule(
        outcome=outcome,
        condition=_condition(f"{outcome.value}_if", condition),
        reason=_reason(reason),
        on_missing=_on_null("on_missing", on_missing, skip=False),
        on_empty=None if on_empty is None else _on_null("on_empty", on_empty, skip=True),
    )


def _condition(what: str, condition: Operand) -> Expr:
    tree = to_expr(condition)
    if tree.type != schema.boolean:
        raise DefinitionError(
            "HR-0707",
            f"{what}: {describe(tree)} is {tree.type}",
            detail="expected a condition",
            hint="compare it, as in hr.score > 0.9",
        )
    return tree


def _reason(reason: Reasons | None) -> str | FromModel | tuple[str | FromModel, ...] | None:
    if reason is None or isinstance(reason, FromModel):
        return reason
    if isinstance(reason, str):
        check_code(reason)
        return reason
    said = tuple(reason)
    for code in said[:-1] if said and isinstance(said[-1], FromModel) else said:
        check_code(code)
    if not said or len(said) > REASONS_MAX or len(set(said)) < len(said):
        raise DefinitionError(
            "HR-0706",
            f"{list(said)!r} cannot be the reasons of a rule",
            detail=f"expected one to {REASONS_MAX} different codes, hr.from_model last if at all",
        )
    return said[0] if len(said) == 1 else said


def _on_null(name: str, said: str, *, skip: bool) -> OnNull:
    known = [each.value for each in OnNull if skip or each is not OnNull.SKIP]
    if said not in known:
        hint = ""
        if said == OnNull.SKIP.value:
            hint = "a missing value never falls through to the next rule: say what is then decided"
        raise DefinitionError("HR-0707", f"{name}={said!r}", detail=f"expected one of {', '.join(known)}", hint=hint)
    return OnNull(said)


def _meaning(value: object) -> object:
    match value:
        case Expr():
            return describe(value)
        case enum.Enum():
            return value.value
        case FromModel():
            return {"from": "model"}
        case tuple():
            return [_meaning(each) for each in value]
    return value
