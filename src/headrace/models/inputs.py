"""What a model's scorer is given: float64 numbers in the order of its inputs, NaN where null. Pure.

The one idea: training and serving turn values into numbers by the same rule, the nearest double, so a row scores the
same bits whether it came as Arrow columns or as one request (SEMANTICS 3.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.columns import evaluate_columns
from headrace.core.errors import SchemaError, did_you_mean
from headrace.core.evaluate import Row, compile_scalar
from headrace.core.expr import Expr
from headrace.core.schema import Kind
from headrace.models.define import Input, Model

Floats = npt.NDArray[np.float64]
Numbers = Callable[[Row], list[float]]

_DECIMAL_EXACT = 2**53  # units up to here, and powers of ten up to 22, are doubles: one division rounds once


def compile_numbers(inputs: Sequence[Input], names: Sequence[str]) -> Numbers:
    """A function of one row: `row[i]` is the physical value of the reference whose path is `names[i]`; it returns the
    inputs as numbers. Raises: DefinitionError HR-0115 where an input reads a path that is not among the names."""
    steps = tuple((compile_scalar(i.expr, names), _divisor(i.expr)) for i in inputs)
    nan = math.nan

    def numbers(row: Row) -> list[float]:
        result = []
        for evaluate, divisor in steps:
            value = evaluate(row)
            result.append(nan if value is None else value / divisor)  # type: ignore[operator]  # a number, by its type
        return result

    return numbers


def _divisor(expr: Expr) -> int:
    """A physical number over this is its nearest double: int / int is rounded once, whatever its size."""
    return 10**expr.type.scale if expr.type.kind is Kind.DECIMAL else 1


def derive(model: Model, columns: Mapping[str, pa.Array | pa.ChunkedArray], *, rows: int) -> pa.RecordBatch:
    """The model's inputs, one column each in order and by name, from columns by reference path: fields by
    "topic.field", features by "view.feature"."""
    arrays = [evaluate_columns(i.expr, columns, rows=rows) for i in model.inputs]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([pa.field(i.name, i.type.arrow) for i in model.inputs]))


def matrix(model: Model, table: pa.Table) -> Floats:
    """float64[rows, inputs], C order, from a table with a column for each input by its name; NaN where null.

    Raises: SchemaError HR-0607 for a column that is not there or has another type.
    """
    result = np.empty((table.num_rows, len(model.inputs)), np.float64)
    for place, one in enumerate(model.inputs):
        result[:, place] = numbers_of(column(model, table, one.name, one.type.arrow))
    return result


def labels(model: Model, table: pa.Table) -> npt.NDArray[np.bool_]:
    """bool[rows], from the label's column. Raises: SchemaError HR-0607, also where a label is null."""
    truths = column(model, table, model.label_name, pa.bool_())
    if truths.null_count:
        raise SchemaError(
            "HR-0607",
            f"model {model.name!r}: label {model.label_name!r} is null in {truths.null_count} rows",
            detail="expected only rows whose label has matured (SEMANTICS 4.3)",
            hint="leave rows of unknown outcome out of the training set",
        )
    found: npt.NDArray[np.bool_] = truths.to_numpy(zero_copy_only=False)
    return found


def column(model: Model, table: pa.Table, name: str, expected: pa.DataType) -> pa.Array:
    """A training set's column as one array. Raises: SchemaError HR-0607."""
    if name not in table.column_names:
        raise SchemaError(
            "HR-0607",
            f"model {model.name!r}: its training set has no column {name!r}",
            hint=did_you_mean(name, table.column_names),
            column=name,
        )
    found = table.column(name)
    if found.type != expected:
        raise SchemaError(
            "HR-0607",
            f"model {model.name!r}: column {name!r} of its training set is {found.type}",
            detail=f"expected {expected}",
            column=name,
        )
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def numbers_of(array: pa.Array) -> Floats:
    """Each value's nearest double, NaN where null."""
    if pa.types.is_decimal(array.type):
        return _decimal_numbers(array)
    whole = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
    values = pc.fill_null(whole, 0).to_numpy(zero_copy_only=False).astype(np.float64)
    if array.null_count:
        values[array.is_null().to_numpy(zero_copy_only=False)] = math.nan
    result: Floats = values + 0.0
    return result


def _decimal_numbers(array: pa.Array) -> Floats:
    """units / 10**scale, rounded once: as doubles where both are exact, else by Python's integers."""
    scale = array.type.scale
    words = _decimal_words(array)
    low, high = words[:, 0], words[:, 1]
    small = (high == low >> 63) & (np.abs(low) <= _DECIMAL_EXACT) & (low != np.iinfo(np.int64).min)
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    if scale > 22:
        small[:] = False
    values: Floats = low / 10.0 ** min(scale, 22)
    for row in np.flatnonzero(~small & ~nulls).tolist():
        units = (int(high[row]) << 64) + (int(low[row]) & 0xFFFF_FFFF_FFFF_FFFF)
        values[row] = units / 10**scale
    values[nulls] = math.nan
    return values + 0.0


def _decimal_words(array: pa.Array) -> npt.NDArray[np.int64]:
    """int64[n, 2] of a decimal128 array: low and high words of its units."""
    whole = array if array.type.bit_width == 128 else array.cast(pa.decimal128(array.type.precision, array.type.scale))
    buffer = whole.buffers()[1]
    if buffer is None:
        return np.zeros((len(whole), 2), np.int64)
    return np.frombuffer(buffer, np.int64).reshape(-1, 2)[whole.offset : whole.offset + len(whole)]
