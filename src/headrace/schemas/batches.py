"""Arrow batches and tables, turned into the log's own types, or refused with the place. Pure.

The one idea: each column is cast whole by a rule that is exact or fails; only where it fails are its values asked one
by one, by the converters of `schemas.validate`, for the first row that does not fit. So both paths take and refuse the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import (
    FLOAT_UNITS_MAX,
    INSTANT_MAX,
    INSTANT_MIN,
    decimals,
    json_value,
    physical_array,
    physical_list,
    refuse_lists,
    units,
)
from headrace.core.errors import SchemaError
from headrace.core.schema import DataType, Field, Kind
from headrace.log.define import Topic
from headrace.schemas.validate import Problem, converter, late, limits, missing, outside, shown, unknown_field

Refuse = Callable[[int, SchemaError], SchemaError]
Mask = npt.NDArray[np.bool_]

Given: TypeAlias = pa.RecordBatch | pa.Table


def validate_batch(
    topic: Topic, given: Given, *, live: bool = True, origin: str = "", first_row: int = 0
) -> pa.RecordBatch:
    """The same rows as the topic's fields in declared order, in their Arrow types; fields left out are null.

    given: columns by field name. Taken as they stand: any width of integers for int64, floats, integers and decimals
    for float64, texts, floats, integers and decimals for a decimal (exactly, never rounded), zoned timestamps of any
    unit and ISO 8601 texts for a timestamp. live: late columns must be null; False for an import. origin: the file that
    an error names. first_row: the number of the first row in it.
    Raises: SchemaError HR-0401 to HR-0409, HR-0103, with facts topic, row, field, at the first row of the first field
    that does not fit; nothing is taken. DefinitionError HR-0410, HR-0411. Cost: some 10 ns a value.
    """
    refuse_lists(topic.schema.fields)
    batch = _whole(given)
    place = origin or f"topic {topic.name!r}"
    names = batch.schema.names
    for name in names:
        if name not in topic.schema:
            raise unknown_field(topic, name, place)
        if names.count(name) > 1:
            raise SchemaError("HR-0405", f"{place}: two columns are named {name!r}", topic=topic.name, field=name)
    arrays = [_column(topic, f, batch, live=live, origin=origin, first_row=first_row) for f in topic.schema.fields]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([pa.field(f.name, f.type.arrow) for f in topic.schema]))


def _whole(given: Given) -> pa.RecordBatch:
    """As one batch."""
    if isinstance(given, pa.RecordBatch):
        return given
    arrays = [c.combine_chunks() if c.num_chunks != 1 else c.chunk(0) for c in given.columns]
    arrays = [a.combine_chunks() if isinstance(a, pa.ChunkedArray) else a for a in arrays]
    return pa.RecordBatch.from_arrays(arrays, names=given.schema.names)


def _column(topic: Topic, f: Field, batch: pa.RecordBatch, *, live: bool, origin: str, first_row: int) -> pa.Array:
    place = batch.schema.get_field_index(f.name)
    array = pa.nulls(batch.num_rows, f.type.arrow) if place < 0 else batch.column(place)

    def refuse(row: int, error: SchemaError) -> SchemaError:
        detail, hint = error.detail, error.hint
        found = Problem(
            row=first_row + row, field=f.name, code=error.code, message=error.message, detail=detail, hint=hint
        )
        return found.error(topic.name, origin=origin)

    if f.name in topic.required and (place < 0 or array.null_count):
        error = missing(topic, f.name)
        if place < 0:
            where = origin or f"topic {topic.name!r}"
            raise SchemaError(
                error.code, f"{where}: no column {f.name!r}", detail=error.detail, topic=topic.name, field=f.name
            )
        raise refuse(_first(_nulls(array)), error)
    if array.null_count == len(array):
        return pa.nulls(len(array), f.type.arrow)
    if live and f.available_after is not None:
        raise refuse(_first(~_nulls(array)), late(f))
    made = _cast(array, f.type)
    if made is None:
        made = _one_by_one(topic, f, array, refuse)
    _check_limits(topic, f, made, refuse)
    return made


def _first(rows: Mask) -> int:
    return int(np.argmax(rows))


def _nulls(array: pa.Array) -> Mask:
    nulls: Mask = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _check_limits(topic: Topic, f: Field, made: pa.Array, refuse: Refuse) -> None:
    """Raises: HR-0407 at the first value outside the declared range."""
    low, high = limits(topic, f)
    if low is None and high is None:
        return
    if f.type.kind is Kind.STRING:
        texts = made.to_pylist()
        wrong = np.array([t is not None and ((low or "") > t or (high is not None and t > high)) for t in texts])
    else:
        values = made.fill_null(0.0).to_numpy(zero_copy_only=False) if f.type.kind is Kind.FLOAT64 else units(made)
        wrong = np.zeros(len(made), dtype=np.bool_)
        if low is not None:
            wrong |= values < np.array(low)
        if high is not None:
            wrong |= values > np.array(high)
        wrong &= ~_nulls(made)
    if wrong.any():
        row = _first(wrong)
        raise refuse(row, outside(f, shown(json_value(physical_list(made.slice(row, 1))[0], f.type))))


def _one_by_one(topic: Topic, f: Field, array: pa.Array, refuse: Refuse) -> pa.Array:
    """A column that could not be cast whole: refused at its first value that does not fit. Where the casts are narrower
    than the converters (dates in ISO 8601's basic form) the column after all."""
    convert = converter(topic, f, live=False)
    values = []
    for row in range(len(array)):
        try:
            value = array[row].as_py()
            if isinstance(value, bytes) and f.type.kind is Kind.STRING:
                value = value.decode()
            values.append(None if value is None else convert(value))
        except UnicodeDecodeError as error:
            reason = SchemaError(
                "HR-0409", "not UTF-8", detail=f"expected text; seen byte {error.object[error.start]:#x}"
            )
            raise refuse(row, reason) from error
        except (ValueError, OverflowError) as error:  # an instant that datetime cannot hold
            reason = SchemaError(
                "HR-0404",
                f"instant out of range: {array[row].value} {array.type.unit}",
                detail="expected the years 1 to 9999",
            )
            raise refuse(row, reason) from error
        except SchemaError as error:
            raise refuse(row, error) from error
    return physical_array(values, f.type)


def _cast(array: pa.Array, declared: DataType) -> pa.Array | None:
    """The whole column exactly, or None where any value does not fit or the column's type needs a closer look."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    try:
        return _CASTS[declared.kind](array, declared)
    except pa.ArrowInvalid:
        return None


def _cast_text(array: pa.Array, declared: DataType) -> pa.Array | None:
    have = array.type
    if not (pa.types.is_string(have) or pa.types.is_binary(have) or pa.types.is_large_binary(have)):
        return None
    made = array.cast(pa.string())
    made.validate(full=True)  # raises where the bytes are not UTF-8
    return made


def _cast_integer(array: pa.Array, declared: DataType) -> pa.Array | None:
    if declared.kind is Kind.DURATION and pa.types.is_duration(array.type):
        return array.cast(pa.duration("us")).cast(pa.int64())
    return array.cast(pa.int64()) if pa.types.is_integer(array.type) else None


def _cast_real(array: pa.Array, declared: DataType) -> pa.Array | None:
    if pa.types.is_integer(array.type):
        reals = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    elif pa.types.is_floating(array.type):
        reals = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    else:
        return None
    if not np.isfinite(reals).all():
        return None
    return pa.array(reals + 0.0, mask=_nulls(array) if array.null_count else None)


def _cast_boolean(array: pa.Array, declared: DataType) -> pa.Array | None:
    return array if pa.types.is_boolean(array.type) else None


def _cast_timestamp(array: pa.Array, declared: DataType) -> pa.Array | None:
    have = array.type
    if pa.types.is_integer(have):
        made = array.cast(pa.int64()).cast(declared.arrow)
    elif (pa.types.is_timestamp(have) and have.tz is not None) or pa.types.is_string(have):
        made = array.cast(declared.arrow)
    else:
        return None
    micros = units(made)
    inside = len(micros) == 0 or (int(micros.min()) >= INSTANT_MIN and int(micros.max()) <= INSTANT_MAX)
    return made if inside else None


def decimals_of(reals: npt.NDArray[np.float64], declared: DataType) -> tuple[npt.NDArray[np.int64], Mask]:
    """(units, exact): the units whose nearest double is each float, the digits that its sender wrote; where there are
    none that fit the type, not exact and 0."""
    scale, bound = 10**declared.scale, min(FLOAT_UNITS_MAX, 10**declared.precision)
    with np.errstate(all="ignore"):
        nearest = np.rint(reals * scale)
        exact = (np.abs(nearest) < bound) & (nearest / scale == reals)
    return np.where(exact, nearest, 0.0).astype(np.int64), exact


def _cast_decimal(array: pa.Array, declared: DataType) -> pa.Array | None:
    have, scale = array.type, 10**declared.scale
    if pa.types.is_decimal(have) or pa.types.is_string(have):
        return array.cast(declared.arrow)
    if pa.types.is_integer(have):
        wholes = units(array.cast(pa.int64()))
        bound = 10 ** (declared.precision - declared.scale)
        if bool(((wholes <= -bound) | (wholes >= bound)).any()):
            return None
        return decimals(wholes * scale, declared, _nulls(array) if array.null_count else None)
    if not pa.types.is_floating(have):
        return None
    made, exact = decimals_of(array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False), declared)
    return decimals(made, declared, _nulls(array) if array.null_count else None) if exact.all() else None


_CASTS: dict[Kind, Callable[[pa.Array, DataType], pa.Array | None]] = {
    Kind.STRING: _cast_text,
    Kind.INT64: _cast_integer,
    Kind.FLOAT64: _cast_real,
    Kind.BOOLEAN: _cast_boolean,
    Kind.TIMESTAMP: _cast_timestamp,
    Kind.DURATION: _cast_integer,
    Kind.DECIMAL: _cast_decimal,
}
