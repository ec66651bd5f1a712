"""Columns and cuts as callers give them, made what was declared: exactly, or refused. Pure.

Data frames and files bring int32 for int64, large strings, floats or texts for decimals, dictionaries, instants in
other units. What can be taken without losing anything is taken; the rest is an error that names the column and the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import Logical, physical, physical_array
from headrace.core.errors import SchemaError
from headrace.core.kernel.program import Words
from headrace.core.points import Cut, Partition
from headrace.core.schema import DataType, Kind

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Recorded cuts of n rows. mentions: of each topic that any of them holds, which rows' do; a row whose cut does not
    mention a topic follows *available* there. offsets: next offset by partition, one a row, 0 where a cut holds
    none."""

    mentions: Mapping[str, Mask] = field(default_factory=dict)
    offsets: Mapping[Partition, Words] = field(default_factory=dict)

    @classmethod
    def of(cls, cuts: Sequence[Cut | None]) -> Cuts:
        """None: the row has no record."""
        mentions: dict[str, Mask] = {}
        offsets: dict[Partition, Words] = {}
        for row, cut in enumerate(cuts):
            for partition, offset in cut or ():
                if partition not in offsets:
                    offsets[partition] = np.zeros(len(cuts), np.int64)
                    mentions.setdefault(partition.topic, np.zeros(len(cuts), np.bool_))
                offsets[partition][row] = offset
                mentions[partition.topic][row] = True
        return cls(mentions=mentions, offsets=offsets)

    def take(self, rows: npt.NDArray[np.intp]) -> Cuts:
        return Cuts(
            mentions={topic: mask[rows] for topic, mask in self.mentions.items()},
            offsets={partition: offsets[rows] for partition, offsets in self.offsets.items()},
        )

    @property
    def recorded(self) -> Mask | None:
        """Which rows have a record at all; None where no topic is mentioned."""
        masks = list(self.mentions.values())
        return np.logical_or.reduce(masks) if masks else None


def conform(column: pa.Array | pa.ChunkedArray | Sequence[object], type: DataType, what: str) -> pa.Array:
    """The column, or Python values, as an array of the type's Arrow type. what: names the column in an error.

    Taken are: smaller integers, integers and texts for decimals, floats for decimals where their shortest text fits,
    other units and zones of instants, ISO 8601 texts with a zone, dictionaries, views. Raises: SchemaError HR-0522.
    """
    try:
        if not isinstance(column, (pa.Array, pa.ChunkedArray)):
            return _by_value(column, type)
        return _array(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column, type)
    except SchemaError as error:
        raise SchemaError("HR-0522", f"{what}: {error.message}", detail=error.detail, hint=error.hint) from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        seen = column.type if isinstance(column, (pa.Array, pa.ChunkedArray)) else "JSON"
        raise SchemaError("HR-0522", f"{what} is no {type}", detail=f"it is {seen}: {error}") from error


def _array(array: pa.Array, type: DataType) -> pa.Array:
    _check_finite(array)
    if array.type == type.arrow:
        return array
    if pa.types.is_dictionary(array.type):
        return _array(array.dictionary_decode(), type)
    if pa.types.is_null(array.type) or _castable(array.type, type):
        return array.cast(type.arrow, safe=True)
    return _by_value(array.to_pylist(), type)


def _castable(have: pa.DataType, want: DataType) -> bool:
    """Whether Arrow's checked cast is exact."""
    match want.kind:
        case Kind.STRING:
            return pa.types.is_large_string(have) or pa.types.is_string_view(have)
        case Kind.INT64 | Kind.DURATION:
            return pa.types.is_integer(have) or pa.types.is_floating(have)
        case Kind.FLOAT64:
            return pa.types.is_floating(have) or pa.types.is_integer(have)
        case Kind.DECIMAL:
            return pa.types.is_integer(have) or pa.types.is_decimal(have)
        case Kind.TIMESTAMP:
            return pa.types.is_timestamp(have) and have.tz is not None
    return False


def _by_value(values: Sequence[object], type: DataType) -> pa.Array:
    found = []
    for row, value in enumerate(values):
        try:
            found.append(physical(_logical(value), type))
        except SchemaError as error:
            message = f"row {row}: {error.message}"
            raise SchemaError(error.code, message, detail=error.detail, hint=error.hint) from error
    return physical_array(found, type)


def _logical(value: object) -> Logical:
    """What Arrow gives for a value, if it is one that a field can hold."""
    if isinstance(value, (list, dict, bytes)):
        raise SchemaError("HR-0401", f"not a value of a field: {value!r}")
    return value  # type: ignore[return-value]  # `physical` refuses every other class


def _check_finite(array: pa.Array) -> None:
    """NaN and infinity are no values; a data frame's NaN is how it says null, which the caller decides."""
    if pa.types.is_floating(array.type) and len(array):
        numbers = array.fill_null(0.0).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise SchemaError(
                "HR-0522",
                f"row {bad[0]} is not a finite number",
                detail=f"seen {numbers[bad[0]]}",
                hint="write null where there is no value",
            )
