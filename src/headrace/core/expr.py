"""The only expression language: a typed tree with SQL null semantics. Pure.

A tree is built by Python operators on references (`applications.amount > 100`) and by the functions below, typed as it
is built, and evaluated two ways that are proved equal (core/evaluate.py): one row, and columns. Arithmetic takes values
as the nearest double and is IEEE double as written; negation and absolute value keep integers and decimals exact;
comparisons of equal types are exact, of mixed numbers as doubles (SEMANTICS 3.4). `and`/`or`/`not` are written &, |, ~.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from headrace.core import schema
from headrace.core.availability import NOW, Availability, latest
from headrace.core.errors import DefinitionError
from headrace.core.schema import DataType, Kind

Scalar = bool | int | float | str


class Source(enum.Enum):
    """What a reference reads."""

    FIELD = "field"  # a topic's field: owner is the topic
    LABEL = "label"  # a label of the owner topic's event: name is the label
    FEATURE = "feature"  # a published feature: owner is the view
    SCORE = "score"  # the model's score: owner is the model, or "" for the decision's


# [override] throughout: == and != build trees as the other operators do, and what a tree derives from its parts is a
# read-only property where `Expr` says an attribute.
class Expr:
    """A typed value. Operators build larger trees; nothing is computed here."""

    __slots__ = ()
    type: DataType
    nullable: bool
    availability: Availability

    def named(self, name: str) -> Named:
        """The same value under a name of its own, as a feature or model input."""
        return Named(expr=self, name=name)

    def is_null(self) -> Expr:
        return call("is_null", self)

    def is_not_null(self) -> Expr:
        return call("is_not_null", self)

    def is_in(self, *values: Scalar) -> Expr:
        """True where equal to any of the values; null where self is null."""
        if not values:
            raise DefinitionError("HR-0110", f"{describe(self)}.is_in() has no values", hint="give at least one value")
        result = self == values[0]
        for value in values[1:]:
            result = result | (self == value)
        return result

    def between(self, low: Operand, high: Operand) -> Expr:
        """low <= self <= high."""
        return (self >= low) & (self <= high)

    def __add__(self, other: Operand) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return call("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return call("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return call("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return call("div", other, self)

    def __pow__(self, other: Operand) -> Expr:
        return call("pow", self, other)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __abs__(self) -> Expr:
        return call("abs", self)

    def __eq__(self, other: Operand) -> Expr:  # type: ignore[override]
        return call("eq", self, other)

    def __ne__(self, other: Operand) -> Expr:  # type: ignore[override]
        return call("ne", self, other)

    def __lt__(self, other: Operand) -> Expr:
        return call("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return call("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return call("gt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return call("ge", self, other)

    def __and__(self, other: Operand) -> Expr:
        return call("and", self, other)

    def __or__(self, other: Operand) -> Expr:
        return call("or", self, other)

    def __invert__(self) -> Expr:
        return call("not", self)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise DefinitionError(
            "HR-0111",
            f"{describe(self)} has no truth value while it is being defined",
            hint="write & for and, | for or, ~ for not, .between(low, high) for a chained comparison",
        )


@runtime_checkable
class HasExpression(Protocol):
    """A definition that can stand in an expression: a label, a feature."""

    @property
    def expression(self) -> Expr: ...


Operand = Expr | HasExpression | Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Literal(Expr):
    """A constant. value: bool, int, float (finite) or str; instants are hr.instant(...) and hold microseconds."""

    value: Scalar
    type: DataType

    nullable = False
    availability = NOW


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reference(Expr):
    """A named value that someone else supplies, typed where it is declared. may_be_empty: null where a window holds no
    events and nothing stands in for it, which a policy must answer for (SEMANTICS 3.5)."""

    source: Source
    owner: str
    name: str
    type: DataType
    nullable: bool = True
    availability: Availability = NOW
    may_be_empty: bool = False

    @property
    def path(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


@dataclass(frozen=True, slots=True, eq=False)
class Call(Expr):
    """An operation on values; `tz` of hour and weekday only."""

    op: str
    args: tuple[Expr, ...]
    type: DataType
    nullable: bool
    tz: str = "UTC"

    @property
    def availability(self) -> Availability:  # type: ignore[override]
        return latest(*(arg.availability for arg in self.args))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Named(Expr):
    """A value with a name; evaluates as what it names."""

    expr: Expr
    name: str

    @property
    def type(self) -> DataType:  # type: ignore[override]
        return self.expr.type

    @property
    def nullable(self) -> bool:  # type: ignore[override]
        return self.expr.nullable

    @property
    def availability(self) -> Availability:  # type: ignore[override]
        return self.expr.availability


def literal(value: Scalar) -> Literal:
    """Raises: DefinitionError HR-0112 for a value that is no constant here (None, NaN, infinity, another class)."""
    match value:
        case bool():
            return Literal(value, schema.boolean)
        case int() if -(2**63) <= value < 2**63:
            return Literal(value, schema.int64)
        case float() if math.isfinite(value):
            return Literal(value + 0.0, schema.float64)
        case str():
            return Literal(value, schema.string)
        case _:
            raise DefinitionError(
                "HR-0112",
                f"{value!r} cannot stand in an expression",
                detail="expected a bool, a 64-bit int, a finite float, a str, or a reference",
            )


def to_expr(value: Operand) -> Expr:
    """An operand as a tree."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, HasExpression):
        return value.expression
    return literal(value)


# op -> (kinds of operands, result). "number": any numeric; "same": all of one type; results keep SQL null semantics:
# null where any operand is null, except is_null, is_not_null, coalesce, if_else and the Kleene and/or.
ARITHMETIC = ("add", "sub", "mul", "div", "pow")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
FUNCTIONS = ("exp", "log", "sqrt", "floor", "ceil")
MAY_BE_NULL = ("div", "pow", "exp", "log", "sqrt", "add", "sub", "mul")  # division by zero, a result out of range


def call(op: str, *operands: Operand, tz: str = "UTC") -> Call:
    """A typed operation. Raises: DefinitionError HR-0113 where the operands' types do not fit."""
    args = tuple(to_expr(operand) for operand in operands)
    result = _result_type(op, args)
    if result is None:
        raise DefinitionError(
            "HR-0113",
            f"{op} does not take ({', '.join(str(a.type) for a in args)})",
            detail="in " + ", ".join(describe(a) for a in args),
        )
    nullable = any(a.nullable for a in args) or op in MAY_BE_NULL or op == "abs"
    if op in ("is_null", "is_not_null"):
        nullable = False
    if op == "coalesce":
        nullable = all(a.nullable for a in args)
    if op == "if_else":
        nullable = args[1].nullable or args[2].nullable
    return Call(op, args, result, nullable, tz)


def _result_type(op: str, args: tuple[Expr, ...]) -> DataType | None:
    types = [a.type for a in args]
    numbers = _are_numbers(types)
    if op in ARITHMETIC or op in FUNCTIONS:
        return schema.float64 if numbers else None
    if op in ("neg", "abs"):
        return types[0] if numbers else None
    if op in COMPARISONS:
        comparable = numbers or (types[0] == types[1] and types[0].kind is not Kind.LIST)
        ordered = types[0].kind is not Kind.BOOLEAN or op in ("eq", "ne")
        return schema.boolean if comparable and ordered else None
    if op in ("and", "or", "not"):
        return schema.boolean if all(t.kind is Kind.BOOLEAN for t in types) else None
    if op in ("is_null", "is_not_null"):
        return schema.boolean
    if op == "coalesce":
        return _common(types)
    if op == "if_else":
        return _common(types[1:]) if types[0].kind is Kind.BOOLEAN else None
    if op in ("hour", "weekday"):
        return schema.int64 if types[0].kind is Kind.TIMESTAMP else None
    return None


def _common(types: list[DataType]) -> DataType | None:
    """One type for whichever is chosen: theirs, or double where numbers are mixed; a duration is its microseconds."""
    if all(t == types[0] for t in types):
        return types[0]
    return schema.float64 if _are_numbers(types) else None


def _are_numbers(types: list[DataType]) -> bool:
    return all(t.numeric or t.kind is Kind.DURATION for t in types)


def hour(value: Operand, *, tz: str = "UTC") -> Expr:
    """The hour of day, 0 to 23, in a time zone."""
    return call("hour", value, tz=tz)


def weekday(value: Operand, *, tz: str = "UTC") -> Expr:
    """The day of week, Monday 0 to Sunday 6, in a time zone."""
    return call("weekday", value, tz=tz)


def coalesce(*values: Operand) -> Expr:
    """The first that is not null. Of one type it stays that type; mixed numbers are doubles, a duration among them its
    microseconds."""
    return call("coalesce", *values)


def if_else(condition: Operand, then: Operand, otherwise: Operand) -> Expr:
    """`then` where the condition is true, else `otherwise`; a null condition is not true."""
    return call("if_else", condition, then, otherwise)


def exp(value: Operand) -> Expr:
    return call("exp", value)


def log(value: Operand) -> Expr:
    """The natural logarithm; null where the value is not above 0."""
    return call("log", value)


def sqrt(value: Operand) -> Expr:
    """The square root; null below 0."""
    return call("sqrt", value)


def references(expr: Expr) -> Iterator[Reference]:
    """Every reference in the tree, left to right, repeats included."""
    match expr:
        case Reference():
            yield expr
        case Call():
            for arg in expr.args:
                yield from references(arg)
        case Named():
            yield from references(expr.expr)


def describe(expr: Expr) -> str:
    """The tree in canonical words: equal text means equal meaning. Names given by `.named` do not count."""
    match expr:
        case Literal():
            return f"{expr.value!r}"
        case Reference():
            return expr.path
        case Call():
            zone = f", tz={expr.tz}" if expr.op in ("hour", "weekday") else ""
            return f"{expr.op}({', '.join(describe(a) for a in expr.args)}{zone})"
        case Named():
            return describe(expr.expr)
    return type(expr).__name__
