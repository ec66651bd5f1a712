"""How large a value can be, proven from declared ranges and types: what the widths of exact sums stand on. Pure.

Everything here is an upper bound of the magnitude, in wholes (of a decimal 12.34, not 1234), as an exact fraction; None
is "no bound is known". Rounding to a double is monotone and every bound that is used is itself a double or far below
its limit, so the rules for exact numbers hold for IEEE arithmetic too (SEMANTICS 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from headrace.core.expr import Call, Expr, Literal, Named, Reference, Source
from headrace.core.schema import DataType, Field, Kind
from headrace.features.define import Label
from headrace.log.define import Topic

COMPACT_BITS = 30  # floats declared to lie within 2**30 are summed in 128 bits (core/kernel/program.py)
WORD_BITS = 63


def bits_of(expr: Expr, topic: Topic, labels: Mapping[str, Label]) -> int:
    """Every |value| < 2**bits, of a value whose word is an integer: 63 where nothing better is known."""
    match expr.type.kind:
        case Kind.BOOLEAN:
            return 1
        case Kind.INT64 | Kind.DECIMAL | Kind.DURATION:
            bound = magnitude(expr, topic, labels)
            if bound is None:
                return WORD_BITS
            return min(math.floor(bound * 10**expr.type.scale).bit_length(), WORD_BITS)
    return WORD_BITS


def compact(expr: Expr, topic: Topic, labels: Mapping[str, Label]) -> bool:
    """Whether a float is proven to lie within 2**30."""
    bound = magnitude(expr, topic, labels)
    return bound is not None and bound <= 2**COMPACT_BITS


def magnitude(expr: Expr, topic: Topic, labels: Mapping[str, Label]) -> Fraction | None:
    """An upper bound of |value|, or None. topic: whose fields the expression reads."""
    match expr:
        case Named():
            return magnitude(expr.expr, topic, labels)
        case Literal():
            return None if isinstance(expr.value, str) else abs(Fraction(expr.value))
        case Reference(source=Source.FIELD):
            return _declared(topic.schema[expr.name])
        case Reference(source=Source.LABEL):
            label = labels[expr.name]
            return Fraction(1) if label.value is None else magnitude(label.value, label.source, {})
        case Call():
            return _called(expr, [magnitude(arg, topic, labels) for arg in expr.args])
    return None


def _declared(field: Field) -> Fraction | None:
    by_type = _typed(field.type)
    if field.minimum is None or field.maximum is None or not (field.type.numeric or field.type.kind is Kind.DURATION):
        return by_type
    said = max(abs(Fraction(field.minimum)), abs(Fraction(field.maximum)))
    return said if by_type is None else min(said, by_type)


def _typed(type: DataType) -> Fraction | None:
    match type.kind:
        case Kind.BOOLEAN:
            return Fraction(1)
        case Kind.DECIMAL:
            return Fraction(10**type.precision - 1, 10**type.scale)
    return None


def _called(expr: Call, bounds: list[Fraction | None]) -> Fraction | None:
    """By the operation; operands without a bound leave none, save where the result has one of its own."""
    match expr.op:
        case "hour":
            return Fraction(23)
        case "weekday":
            return Fraction(6)
        case "if_else":
            bounds = bounds[1:]
    if expr.type.kind is Kind.BOOLEAN:
        return Fraction(1)
    known = [b for b in bounds if b is not None]
    if len(known) < len(bounds):
        return None
    match expr.op:
        case "add" | "sub":
            return sum(known, Fraction())
        case "mul":
            return math.prod(known, start=Fraction(1))
        case "div":
            divisor = expr.args[1]
            least = known[1] if isinstance(divisor, Literal) else Fraction()
            return known[0] / least if least else None
        case "neg" | "abs" | "coalesce" | "if_else":
            return max(known)
        case "floor" | "ceil":
            return known[0] + 1
        case "sqrt":
            return max(known[0], Fraction(1))
    return None
