"""Columns through an expression, to the same bits as `core/evaluate.py` row by row (SEMANTICS 3.4). Pure.

The one idea: a value in flight is a flat numpy array of physical values and a mask of what is there; texts stay in
Arrow. numpy's float64 operations are the same IEEE operations as Python's, one at a time, in the tree's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core import elementary
from headrace.core.codec import decimals, instants, units
from headrace.core.errors import DefinitionError, SchemaError
from headrace.core.evaluate import INT64_MIN, as_double, unknown_reference
from headrace.core.expr import ARITHMETIC, COMPARISONS, FUNCTIONS, Call, Expr, Literal, Named, Reference, describe
from headrace.core.schema import DataType, Kind, float64
from headrace.core.zones import DAY, HOUR, zone

Reals = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
# A numpy array of float64, int64 or bool, or an Arrow array of texts: the tree's types say which, mypy cannot follow.
Values: TypeAlias = pa.Array


_EXACT_INTEGERS = 2**53  # integers up to here are doubles, so one division rounds once


@dataclass(frozen=True, slots=True)
class _Column:
    """values: physical, anything where not valid; of texts an Arrow array, its own nulls aside. valid: True where there
    is a value."""

    values: Values
    valid: Mask


def evaluate_columns(
    expr: Expr, columns: Mapping[str, pa.Array | pa.ChunkedArray], *, rows: int | None = None
) -> pa.Array:
    """The expression over columns by reference path, as an array of `expr.type.arrow`.

    columns: of equal length, each of its reference's Arrow type; more than the tree reads are ignored. rows: needed
    only where there are none. Cost: one pass a node, some 10 ns a row.
    Raises: DefinitionError HR-0115 (a path nothing supplies), HR-0114 (a time zone), SchemaError HR-0116 (a column of
    another type).
    """
    count = len(next(iter(columns.values()))) if rows is None else rows
    with np.errstate(all="ignore"):  # what IEEE calls exceptions are nulls here, and are found in the results
        return _to_arrow(_evaluate(expr, columns, count), expr.type)


def _evaluate(expr: Expr, columns: Mapping[str, pa.Array | pa.ChunkedArray], rows: int) -> _Column:
    match expr:
        case Literal(value=value):
            valid = np.ones(rows, dtype=np.bool_)
            return _Column(pa.repeat(value, rows) if isinstance(value, str) else np.full(rows, value), valid)
        case Reference():
            if expr.path not in columns:
                raise unknown_reference(expr, tuple(columns))
            return _from_arrow(columns[expr.path], expr)
        case Named():
            return _evaluate(expr.expr, columns, rows)
        case Call():
            return _evaluate_call(expr, [_evaluate(a, columns, rows) for a in expr.args])
    raise DefinitionError("HR-0117", f"{describe(expr)} cannot be evaluated", detail=f"it is a {type(expr).__name__}")


def _evaluate_call(expr: Call, args: Sequence[_Column]) -> _Column:
    op, types = expr.op, [a.type for a in expr.args]
    if op in ARITHMETIC:
        return _finite(
            _ARITHMETIC[op](_real(args[0], types[0]), _real(args[1], types[1])), args[0].valid & args[1].valid
        )
    if op in FUNCTIONS:
        return _function(op, _real(args[0], types[0]), args[0].valid)
    if op in COMPARISONS:
        return _comparison(op, args[0], args[1], types)
    first = args[0]
    match op:
        case "neg" | "abs":
            return _sign(op, first)
        case "and" | "or":
            return _kleene(first, args[1], absorbing=op == "or")
        case "not":
            return _Column(~first.values, first.valid)
        case "is_null":
            return _Column(~first.valid, np.ones(len(first.valid), dtype=np.bool_))
        case "is_not_null":
            return _Column(first.valid, np.ones(len(first.valid), dtype=np.bool_))
        case "coalesce":
            return _coalesce([_typed(a, t, expr.type) for a, t in zip(args, types, strict=True)])
        case "if_else":
            then, otherwise = (_typed(a, t, expr.type) for a, t in zip(args[1:], types[1:], strict=True))
            return _choose(first.valid & first.values, then, otherwise)
        case "hour" | "weekday":
            local = first.values + zone(expr.tz).offsets(first.values)
            return _Column(local // HOUR % 24 if op == "hour" else (local // DAY + 3) % 7, first.valid)
    raise DefinitionError("HR-0117", f"{op} cannot be evaluated", detail=f"in {describe(expr)}")


_ARITHMETIC: dict[str, Callable[[Reals, Reals], Reals]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,  # by zero gives an infinity or NaN, which is null
    "pow": elementary.pow_columns,
}


def _finite(values: Reals, valid: Mask) -> _Column:
    """A result as the law has it: null where it is not finite, never -0.0."""
    return _Column(values + 0.0, valid & np.isfinite(values))


def _function(op: str, x: Reals, valid: Mask) -> _Column:
    match op:
        case "exp":
            return _finite(elementary.exp_columns(x), valid)
        case "log":
            return _finite(elementary.log_columns(x), valid)
        case "sqrt":
            inside = valid & (x >= 0.0)
            return _Column(np.sqrt(np.where(inside, x, 0.0)) + 0.0, inside)
        case _:
            return _Column((np.floor(x) if op == "floor" else np.ceil(x)) + 0.0, valid)


def _comparison(op: str, left: _Column, right: _Column, types: Sequence[DataType]) -> _Column:
    valid = left.valid & right.valid
    if types[0].kind is Kind.STRING:
        compare = {"eq": pc.equal, "ne": pc.not_equal, "lt": pc.less, "le": pc.less_equal}
        compare |= {"gt": pc.greater, "ge": pc.greater_equal}
        found = compare[op](left.values, right.values).fill_null(False)
        return _Column(found.to_numpy(zero_copy_only=False), valid)
    exact = types[0] == types[1]
    a = left.values if exact else _real(left, types[0])
    b = right.values if exact else _real(right, types[1])
    operators = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal}
    operators |= {"gt": np.greater, "ge": np.greater_equal}
    return _Column(operators[op](a, b), valid)


def _sign(op: str, value: _Column) -> _Column:
    flipped = np.negative(value.values) if op == "neg" else np.abs(value.values)
    if value.values.dtype == np.float64:
        return _Column(flipped + 0.0, value.valid)
    return _Column(flipped, value.valid & (value.values != INT64_MIN))


def _kleene(left: _Column, right: _Column, *, absorbing: bool) -> _Column:
    """`and` (absorbing False) and `or` (absorbing True): the absorbing value decides, whatever the other is."""
    decided = (left.valid & (left.values == absorbing)) | (right.valid & (right.values == absorbing))
    return _Column(decided if absorbing else ~decided, decided | (left.valid & right.valid))


def _coalesce(values: Sequence[_Column]) -> _Column:
    result = values[-1]
    for value in reversed(values[:-1]):
        result = _choose(value.valid, value, result)
    return result


def _choose(where: Mask, then: _Column, otherwise: _Column) -> _Column:
    valid = np.where(where, then.valid, otherwise.valid)
    if isinstance(then.values, pa.Array):
        return _Column(pc.if_else(pa.array(where), then.values, otherwise.values), valid)
    return _Column(np.where(where, then.values, otherwise.values), valid)


def _typed(value: _Column, have: DataType, want: DataType) -> _Column:
    """The value as the common type of a choice: itself, or its nearest double."""
    return _Column(_real(value, have), value.valid) if have != want and want == float64 else value


def _real(value: _Column, type: DataType) -> Reals:
    """Nearest doubles."""
    if type.kind is not Kind.DECIMAL:
        reals: Reals = value.values.astype(np.float64, copy=False)
        return reals
    result: Reals = value.values / np.float64(10**type.scale)
    for row in np.flatnonzero(np.abs(value.values) > _EXACT_INTEGERS).tolist():
        result[row] = as_double(int(value.values[row]), type)
    return result


def _from_arrow(given: pa.Array | pa.ChunkedArray, expr: Reference) -> _Column:
    array = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
    if array.type != expr.type.arrow:
        raise SchemaError("HR-0116", f"column {expr.path} is {array.type}", detail=f"expected {expr.type.arrow}")
    if array.null_count:
        valid: Mask = array.is_valid().to_numpy(zero_copy_only=False)
    else:
        valid = np.ones(len(array), dtype=np.bool_)
    match expr.type.kind:
        case Kind.STRING:
            return _Column(array, valid)
        case Kind.BOOLEAN:
            return _Column(array.fill_null(False).to_numpy(zero_copy_only=False), valid)
        case Kind.FLOAT64:
            return _Column(array.fill_null(0.0).to_numpy(zero_copy_only=False), valid)
    return _Column(units(array), valid)


def _to_arrow(result: _Column, type: DataType) -> pa.Array:
    nulls = None if result.valid.all() else ~result.valid
    match type.kind:
        case Kind.STRING:
            return (
                result.values
                if nulls is None
                else pc.if_else(pa.array(result.valid), result.values, pa.scalar(None, pa.string()))
            )
        case Kind.DECIMAL:
            return decimals(result.values, type, nulls)
        case Kind.TIMESTAMP:
            if nulls is None:
                return instants(result.values)
            return pa.array(result.values, mask=nulls).cast(type.arrow)
    return pa.array(result.values, type=type.arrow, mask=nulls)
