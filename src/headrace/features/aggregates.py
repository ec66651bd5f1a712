"""Aggregates: what is asked of a window's events, before a view gives it an entity and a type. Frozen, pure.

`hr.mean(applications.amount).over("1d", "7d")`: a function of expressions becomes an `Aggregate`, which over windows is
`Asked`; a view makes a feature of each window. What an input may be is checked here (HR-0113), what it may know there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace.core import window
from headrace.core.aggregate import WITHOUT_CURRENT, WITHOUT_INPUT, Function, takes
from headrace.core.errors import DefinitionError
from headrace.core.expr import Expr, HasExpression, Literal, Named, Operand, Reference, describe, references, to_expr
from headrace.core.schema import Kind
from headrace.core.times import ZERO, Duration
from headrace.core.window import Lifetime, Window

KNOWN = ("matured", "so_far")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """A function of a window's events, before it has a window. current None: the function's default (SEMANTICS 2.2)."""

    function: Function
    input: Expr | None = None
    where: Expr | None = None
    current: bool | None = None
    n: int = 1
    sample: bool = False
    known: str = "matured"
    what: str = ""  # the word that a feature's name takes from the input

    def over(
        self, *widths: str | Duration, delay: str | Duration | None = None, empty: int | float | None = None
    ) -> Asked:
        """One feature a width, over (t - delay - width, t - delay]. delay: omitted, a label's maturity over a label,
        else 0."""
        if not widths:
            raise DefinitionError(
                "HR-0120", f"{self.word}: over() without a width", hint="say over('30d'), or lifetime()"
            )
        waited = None if delay is None else Duration.parse(delay)
        return Asked(
            self, tuple(window.sliding(w, waited or ZERO) for w in widths), delayed=waited is not None, empty=empty
        )

    def lifetime(self, *, delay: str | Duration | None = None, empty: int | float | None = None) -> Asked:
        """Over everything up to t - delay."""
        waited = None if delay is None else Duration.parse(delay)
        return Asked(self, (Lifetime(waited or ZERO),), delayed=waited is not None, empty=empty)

    def aligned(
        self, unit: str | Duration, *, tz: str = "UTC", complete: bool = False, empty: int | float | None = None
    ) -> Asked:
        """Over the running hour, day, week, month, year or epoch-aligned duration; complete: the last closed one."""
        return Asked(self, (window.aligned(unit, tz=tz, complete=complete),), delayed=True, empty=empty)

    def named(self, name: str) -> Asked:
        return self.alone().named(name)

    def alone(self) -> Asked:
        """Without a window: lifetime, for the functions where nothing else is usual."""
        if self.function in WITHOUT_CURRENT or self.function is Function.FIRST:
            return self.lifetime()
        raise DefinitionError(
            "HR-0120", f"{self.word} has no window", hint="add .over('30d'), .lifetime() or .aligned('day')"
        )

    @property
    def word(self) -> str:
        """What its features are called, before the window: count, mean_amount, charged_back_rate."""
        if self.function is Function.RATE:
            return f"{self.what}_rate"
        if self.function is Function.LAST_N:
            return f"last_{self.n}_{self.what}"
        return f"{self.function.value}_{self.what}" if self.what else self.function.value


@dataclass(frozen=True, slots=True)
class Asked:
    """An aggregate over one or more windows; each becomes a feature of the view."""

    aggregate: Aggregate
    windows: tuple[Window, ...]
    delayed: bool = False  # the delay was said
    empty: int | float | None = None
    name: str | None = None

    def named(self, name: str) -> Asked:
        """With one window the feature's whole name; with several what stands before the width."""
        return replace(self, name=identifier("feature", name))


def count(*, where: Operand | None = None, current: bool | None = None, known: str = "matured") -> Aggregate:
    """Events; with where=, those for which it is true."""
    return _aggregate(Function.COUNT, where=where, current=current, known=known)


def sum(
    input: Operand, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    """The exact sum, rounded once where the type is float64; of booleans the number that are true."""
    return _aggregate(Function.SUM, input, where=where, current=current, known=known)


def mean(
    input: Operand, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    """One correctly rounded division of the exact sum."""
    return _aggregate(Function.MEAN, input, where=where, current=current, known=known)


def min(
    input: Operand, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    return _aggregate(Function.MIN, input, where=where, current=current, known=known)


def max(
    input: Operand, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    return _aggregate(Function.MAX, input, where=where, current=current, known=known)


def variance(
    input: Operand,
    *,
    sample: bool = False,
    where: Operand | None = None,
    current: bool | None = None,
    known: str = "matured",
) -> Aggregate:
    """Of the population, or of the sample (n >= 2), rounded once from the exact rational."""
    return _aggregate(Function.VARIANCE, input, where=where, current=current, known=known, sample=sample)


def std(
    input: Operand,
    *,
    sample: bool = False,
    where: Operand | None = None,
    current: bool | None = None,
    known: str = "matured",
) -> Aggregate:
    """The square root of the rounded variance."""
    return _aggregate(Function.DEVIATION, input, where=where, current=current, known=known, sample=sample)


def first(
    input: Operand, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    """The first non-null value by order key."""
    return _aggregate(Function.FIRST, input, where=where, current=current, known=known)


def last(
    input: Operand, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    """The last non-null value by order key."""
    return _aggregate(Function.LAST, input, where=where, current=current, known=known)


def last_n(
    input: Operand, n: int, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    """The last n non-null values by order key, oldest first; fewer where there are fewer, null where there are none."""
    return _aggregate(Function.LAST_N, input, where=where, current=current, known=known, n=n)


def distinct(
    input: Operand, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    """How many different values, exactly; null with the reason LIMIT above the view's max_distinct. Empty is null."""
    return _aggregate(Function.DISTINCT, input, where=where, current=current, known=known)


def rate(
    input: Operand, *, where: Operand | None = None, current: bool | None = None, known: str = "matured"
) -> Aggregate:
    """The share of events for which a label or condition is true, among those where it is not null."""
    return _aggregate(Function.RATE, input, where=where, current=current, known=known)


def time_since_last(*, where: Operand | None = None, current: bool | None = None, known: str = "matured") -> Aggregate:
    """t minus the newest event's time, in microseconds."""
    return _aggregate(Function.SINCE_LAST, where=where, current=current, known=known)


def time_since_first(*, where: Operand | None = None, current: bool | None = None, known: str = "matured") -> Aggregate:
    """t minus the oldest event's time, in microseconds."""
    return _aggregate(Function.SINCE_FIRST, where=where, current=current, known=known)


def lookup(input: Operand) -> Aggregate:
    """The value in the newest event visible at the point (SEMANTICS 2.4), null where that event's value is null."""
    return _aggregate(Function.LOOKUP, input)


def _aggregate(
    function: Function,
    input: Operand | None = None,
    *,
    where: Operand | None = None,
    current: bool | None = None,
    known: str = "matured",
    n: int = 1,
    sample: bool = False,
) -> Aggregate:
    value = None if input is None else to_expr(input)
    predicate = None if where is None else to_expr(where)
    if known not in KNOWN:
        raise DefinitionError("HR-0138", f"known={known!r}", detail=f"expected one of {', '.join(KNOWN)}")
    if value is not None and not takes(function, value.type):
        raise DefinitionError("HR-0113", f"{function.value} does not take {value.type}", detail=f"in {describe(value)}")
    if value is None and function not in WITHOUT_INPUT:
        raise DefinitionError("HR-0113", f"{function.value} needs a value")
    if predicate is not None and predicate.type.kind is not Kind.BOOLEAN:
        raise DefinitionError(
            "HR-0113", f"where= is {predicate.type}", detail=f"expected boolean, in {describe(predicate)}"
        )
    if not 1 <= n <= 64:
        raise DefinitionError("HR-0139", f"last_n of {n}", detail="expected 1 to 64")
    for part in (value, predicate):
        # topic.id, .key, .event_time and .name are what the topic says of itself: text, and would be aggregated as such
        if isinstance(part, Literal) and isinstance(part.value, (str, bool)):
            raise DefinitionError(
                "HR-0113",
                f"{function.value} of the constant {part.value!r}",
                detail="expected a field, a label, or an expression over them",
                hint="where a field has the name of an attribute of the topic, write topic['id']",
            )
    return Aggregate(
        function=function,
        input=value,
        where=predicate,
        current=current,
        known=known,
        n=n,
        sample=sample,
        what="" if value is None or input is None else _word(input, value),
    )


def _word(given: Operand, value: Expr) -> str:
    match value:
        case Named() | Reference():
            return value.name
        case _ if isinstance(given, HasExpression):
            return given.expression.name if isinstance(given.expression, Reference) else "value"
        case _:
            inner = list(references(value))
            return inner[0].name if inner else "value"


def identifier(what: str, name: str) -> str:
    if not name.isidentifier() or name.startswith("_"):
        raise DefinitionError(
            "HR-0101", f"{name!r} cannot name a {what}", detail="expected a Python identifier without leading _"
        )
    return name
