"""The oracle's own reading of an expression: one tree, one event, plain Python. Pure.

It shares nothing with core/evaluate.py, so that a fault there is seen. Values are physical: instants and durations in
microseconds, decimals in units; None is null. `exp`, `log` and `pow` have one pinned implementation, which is the code
under test itself: the oracle refuses them rather than repeat it (SEMANTICS 3.4).
"""

from __future__ import annotations

import datetime as dt
import math
import zoneinfo
from collections.abc import Callable
from fractions import Fraction

from headrace.core.errors import DefinitionError
from headrace.core.expr import Call, Expr, Literal, Named, Reference
from headrace.core.schema import DataType, Kind

Physical = bool | int | float | str | None
Read = Callable[[Reference], Physical]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def evaluate(expr: Expr, read: Read) -> Physical:
    """The tree's value; `read` gives what its references hold. Raises: DefinitionError HR-0140 for exp, log, pow."""
    match expr:
        case Literal():
            return _plain(expr.value)
        case Reference():
            return _plain(read(expr))
        case Named():
            return evaluate(expr.expr, read)
        case Call():
            return _plain(_call(expr, read))
    raise DefinitionError("HR-0140", f"the oracle cannot read a {type(expr).__name__}")


def as_double(value: Physical, type: DataType) -> float:
    """A number as the nearest double: a decimal by its exact rational."""
    assert value is not None and not isinstance(value, str)
    if type.kind is Kind.DECIMAL:
        return float(Fraction(int(value), 10**type.scale))
    return float(value)


def local(instant: int, tz: str) -> dt.datetime:
    """What a wall clock in the zone shows."""
    return (EPOCH + dt.timedelta(microseconds=instant)).astimezone(zoneinfo.ZoneInfo(tz))


def _plain(value: Physical) -> Physical:
    """No value is -0.0."""
    return 0.0 if isinstance(value, float) and value == 0.0 else value


def _call(call: Call, read: Read) -> Physical:
    """Null where an operand is null, but for the operations that say otherwise."""
    values = [evaluate(arg, read) for arg in call.args]
    types = [arg.type for arg in call.args]
    match call.op:
        case "is_null":
            return values[0] is None
        case "is_not_null":
            return values[0] is not None
        case "and":
            return False if False in values else None if None in values else True
        case "or":
            return True if True in values else None if None in values else False
        case "coalesce":
            chosen = next((i for i, v in enumerate(values) if v is not None), None)
            return None if chosen is None else _as_type(values[chosen], types[chosen], call.type)
        case "if_else":
            chosen = 1 if values[0] is True else 2
            return _as_type(values[chosen], types[chosen], call.type)
    if None in values:
        return None
    return _strict(call, values, types)


def _strict(call: Call, values: list[Physical], types: list[DataType]) -> Physical:
    match call.op:
        case "eq" | "ne" | "lt" | "le" | "gt" | "ge":
            return _compare(call.op, values, types)
        case "not":
            return not values[0]
        case "neg" | "abs":
            number = values[0]
            assert number is not None and not isinstance(number, str)
            result = -number if call.op == "neg" or number < 0 else number
            return result if isinstance(result, float) or -(2**63) <= result < 2**63 else None
        case "hour":
            return local(_instant(values[0]), call.tz).hour
        case "weekday":
            return local(_instant(values[0]), call.tz).weekday()
    return _arithmetic(call.op, [as_double(v, t) for v, t in zip(values, types, strict=True)])


def _compare(op: str, values: list[Physical], types: list[DataType]) -> bool:
    """Equal types exactly, mixed numbers as doubles."""
    a: object = values[0] if types[0] == types[1] else as_double(values[0], types[0])
    b: object = values[1] if types[0] == types[1] else as_double(values[1], types[1])
    match op:
        case "eq":
            return a == b
        case "ne":
            return a != b
        case "lt":
            return a < b  # type: ignore[operator]  # one class of operands: their types were checked when the tree was built
        case "le":
            return a <= b  # type: ignore[operator]  # as above
        case "gt":
            return a > b  # type: ignore[operator]  # as above
    return a >= b  # type: ignore[operator]  # as above


def _arithmetic(op: str, x: list[float]) -> float | None:
    """IEEE double operations as written; null where there is no finite result."""
    try:
        match op:
            case "add":
                result = x[0] + x[1]
            case "sub":
                result = x[0] - x[1]
            case "mul":
                result = x[0] * x[1]
            case "div":
                result = x[0] / x[1]
            case "sqrt":
                result = math.sqrt(x[0])
            case "floor":
                result = float(math.floor(x[0]))
            case "ceil":
                result = float(math.ceil(x[0]))
            case _:
                raise DefinitionError("HR-0140", f"the oracle has no {op!r}", detail="its one implementation is pinned")
    except (ZeroDivisionError, ValueError):
        return None
    return result if math.isfinite(result) else None


def _as_type(value: Physical, given: DataType, wanted: DataType) -> Physical:
    """A chosen branch in the type of the whole: mixed numbers are doubles."""
    return value if value is None or given == wanted else as_double(value, given)


def _instant(value: Physical) -> int:
    assert isinstance(value, int)
    return value
