"""How values are carried: logical (Decimal, datetime), physical (for the hot path), Arrow, JSON, key bytes. Pure.

The one idea: a physical value is a plain bool, int, float or str, with instants in microseconds and decimals in units
of their scale, so that one row costs no objects and a column is a flat int64 array. Conversions are exact or refused.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.errors import DefinitionError, SchemaError
from headrace.core.schema import DataType, Field, Kind, Schema
from headrace.core.times import Instant, instant, iso

Physical = bool | int | float | str | None
Logical = bool | int | float | str | decimal.Decimal | dt.datetime | dt.timedelta | None
Integers = npt.NDArray[np.int64]

INSTANT_MIN = Instant(-62_135_596_800_000_000)  # 0001-01-01, the first instant ISO 8601 and datetime can write
INSTANT_MAX = Instant(253_402_300_799_999_999)  # 9999-12-31T23:59:59.999999, the last

# Decimals of 15 digits read back from their nearest double (DBL_DIG): below it a float names one number of units.
FLOAT_UNITS_MAX = 10**15

_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?\Z", re.ASCII
).match  # Decimal() also takes "1_0" and " 1"
too_fine = re.compile(r"[.,]\d{6}\d*[1-9]").search  # fromisoformat would cut it off silently
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
# Wide enough that scaling any finite double or any 18-digit decimal is exact; Inexact would be a bug, so it is trapped.
_WIDE = decimal.Context(prec=1_200, Emin=-decimal.MAX_EMAX, Emax=decimal.MAX_EMAX, traps=[])
_EXACT = decimal.Context(prec=1_200, Emin=-decimal.MAX_EMAX, Emax=decimal.MAX_EMAX, traps=[decimal.Inexact])


def decimal_units(value: decimal.Decimal | int | str | float, type: DataType) -> int:
    """Units of 10**-scale, exactly. A float counts as the shortest decimal text that reads back as it.

    Raises: SchemaError HR-0403 for NaN and infinity, HR-0402 for what is no number, has more than `scale` digits behind
    the point, or more than `precision` digits in all. Nothing is rounded.
    """
    if isinstance(value, str) and not _NUMBER(value):
        raise SchemaError("HR-0402", f"not a decimal: {value!r}", detail=f"expected {type}")
    number = decimal.Decimal(repr(value) if isinstance(value, float) else value)
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        raise SchemaError("HR-0403", f"not a finite number: {value!r}", detail=f"expected {type}")
    if not any(digits):
        return 0
    if number.adjusted() + 1 > type.precision - type.scale:
        whole = type.precision - type.scale
        raise SchemaError(
            "HR-0402",
            f"decimal out of range: {value!r}",
            detail=f"expected {type}: at most {whole} digits before the point",
        )
    if exponent < -type.scale:
        number = number.normalize(_EXACT)
        if int(number.as_tuple().exponent) < -type.scale:
            raise SchemaError(
                "HR-0402",
                f"too many digits: {value!r}",
                detail=f"expected {type}: at most {type.scale} digits behind the point",
                hint="round it where the rule for rounding is known; headrace never does it silently",
            )
    return int(number.scaleb(type.scale, _EXACT))


def rounded(value: decimal.Decimal | int | str | float, type: DataType) -> decimal.Decimal:
    """The nearest decimal of the type's scale, ties to even, where rounding was asked for. A float counts as its text.

    Raises: SchemaError HR-0402, HR-0403 for what is no finite number.
    """
    if isinstance(value, str) and not _NUMBER(value):
        raise SchemaError("HR-0402", f"not a decimal: {value!r}", detail=f"expected {type}")
    number = decimal.Decimal(repr(value) if isinstance(value, float) else value)
    if not number.is_finite():
        raise SchemaError("HR-0403", f"not a finite number: {value!r}", detail=f"expected {type}")
    return number.quantize(decimal.Decimal(1).scaleb(-type.scale), decimal.ROUND_HALF_EVEN, _WIDE)


def physical(value: object, type: DataType) -> Physical:
    """The physical value of a logical one; None stays None. Accepts the physical classes too, except that an int for a
    decimal is a number of wholes, not units.

    Raises: SchemaError HR-0401 (another class), HR-0402 (decimals), HR-0403 (NaN, infinity), HR-0404 (an int outside
    64 bits, an instant outside the years 1 to 9999 or finer than microseconds), HR-0409 (no UTF-8), HR-0103 (an instant
    without zone).
    """
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()  # what iterating over arrays and frames hands out
    match type.kind:
        case Kind.STRING if isinstance(value, str):
            return _utf8(value)
        case Kind.BOOLEAN if isinstance(value, bool):
            return value
        case Kind.INT64 if isinstance(value, int) and not isinstance(value, bool):
            return _int64(value)
        case Kind.FLOAT64 if isinstance(value, (int, float, decimal.Decimal)) and not isinstance(value, bool):
            return _float64(value)
        case Kind.DECIMAL if isinstance(value, (int, float, decimal.Decimal, str)) and not isinstance(value, bool):
            return decimal_units(value, type)
        case Kind.TIMESTAMP if isinstance(value, (dt.datetime, str, int)) and not isinstance(value, bool):
            return _instant(value)
        case Kind.DURATION if isinstance(value, (dt.timedelta, int)) and not isinstance(value, bool):
            return _int64(value // _MICROSECOND if isinstance(value, dt.timedelta) else value)
    raise SchemaError("HR-0401", f"{_class_name(value)} for {type}: {value!r}", detail=f"expected {type}")


def is_physical(value: object, type: DataType) -> bool:
    """Whether it is a value as the type's are kept; null is none."""
    match type.kind:
        case Kind.STRING:
            return value.__class__ is str
        case Kind.BOOLEAN:
            return value.__class__ is bool
        case Kind.FLOAT64:
            return isinstance(value, float) and math.isfinite(value)
        case Kind.LIST:
            return False
    return value.__class__ is int and -(2**63) <= value < 2**63


def _utf8(value: str) -> str:
    value = value if type(value) is str else str.__str__(value)  # an enum's text is its text
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SchemaError(
            "HR-0409", f"not UTF-8: {value!r}", detail=f"expected text; seen half a surrogate pair at {error.start}"
        ) from error
    return value


def _instant(value: dt.datetime | str | int) -> Instant:
    if isinstance(value, str) and too_fine(value) or getattr(value, "nanosecond", False):
        raise SchemaError("HR-0404", f"instant too fine: {value!s}", detail="expected at most microseconds")
    at = instant(value)
    if not INSTANT_MIN <= at <= INSTANT_MAX:
        raise SchemaError("HR-0404", f"instant out of range: {value!r}", detail="expected the years 1 to 9999")
    return at


def _int64(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise SchemaError("HR-0404", f"integer out of range: {value}", detail="expected a 64-bit integer")
    return int(value)


def _float64(value: float | decimal.Decimal) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SchemaError("HR-0403", f"not a finite number: {value!r}", detail="NaN and infinity never enter the log")
    return number + 0.0


def _class_name(value: object) -> str:
    """The class of a value in the words of the schema and of JSON."""
    words = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        dict: "object",
        list: "list",
        type(None): "null",
    }
    return words.get(type(value), type(value).__name__)


def logical(value: Physical, type: DataType) -> Logical:
    """The logical value of a physical one: Decimal at the type's scale, datetime in UTC, timedelta, or itself."""
    if value is None:
        return None
    match type.kind:
        case Kind.DECIMAL:
            return decimal.Decimal(int(value)).scaleb(-type.scale, _EXACT)
        case Kind.TIMESTAMP:
            return _EPOCH + dt.timedelta(microseconds=int(value))
        case Kind.DURATION:
            return dt.timedelta(microseconds=int(value))
    return value


def json_value(value: Physical, type: DataType) -> Physical:
    """As JSON carries it without loss: decimals as text, instants as ISO 8601, durations in microseconds."""
    if value is None:
        return None
    if type.kind is Kind.DECIMAL:
        return str(logical(value, type))
    return iso(Instant(int(value))) if type.kind is Kind.TIMESTAMP else value


def canonical_json(value: object) -> str:
    """One text for one meaning: keys sorted, no spaces, shortest floats, UTF-8 as it is.

    value: dicts with text keys, lists, tuples, str, int, finite float, bool, None. Raises: SchemaError HR-0403 for NaN
    and infinity, TypeError for another class.
    """
    try:
        return json.dumps(
            _positive_zero(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except ValueError as error:
        raise SchemaError("HR-0403", "not a finite number in JSON", detail=str(error)) from error


def _positive_zero(value: object) -> object:
    """-0.0 and 0.0 are one value here."""
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, dict):
        return {key: _positive_zero(item) for key, item in value.items()}
    return [_positive_zero(item) for item in value] if isinstance(value, (list, tuple)) else value


def refuse_lists(fields: Sequence[Field]) -> None:
    """Raises: DefinitionError HR-0410 for a field of a list type."""
    for f in fields:
        if f.type.kind is Kind.LIST:
            raise DefinitionError(
                "HR-0410",
                f"field {f.name!r}: a topic cannot hold {f.type}",
                detail="expected a single value: lists are feature values only",
                hint="send one event a member, or one field a member",
                field=f.name,
            )


# --- Arrow ---


def units(array: pa.Array) -> Integers:
    """The physical int64 values of an int64, timestamp[us] or decimal128 array; 0 where null. May share its memory."""
    width = 2 if pa.types.is_decimal128(array.type) else 1
    count, start = len(array), array.offset
    buffer = array.buffers()[1]
    if buffer is None or not count:
        return np.zeros(count, dtype=np.int64)
    words = np.frombuffer(buffer, dtype=np.int64)[start * width : (start + count) * width : width]
    if array.null_count:
        words = np.where(array.is_null().to_numpy(zero_copy_only=False), 0, words)
    return np.ascontiguousarray(words)


def decimals(words: Integers, type: DataType, nulls: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """A decimal128 array from units; null where `nulls`."""
    wide = np.empty((len(words), 2), dtype=np.int64)
    wide[:, 0], wide[:, 1] = words, words >> 63
    valid = None if nulls is None else pa.array(~nulls).buffers()[1]
    return pa.Array.from_buffers(type.arrow, len(words), [valid, pa.py_buffer(wide)])


def instants(words: Integers) -> pa.Array:
    """A timestamp[us, UTC] array from microseconds, sharing their memory."""
    return pa.Array.from_buffers(
        pa.timestamp("us", tz="UTC"), len(words), [None, pa.py_buffer(np.ascontiguousarray(words))]
    )


def physical_list(array: pa.Array) -> list[Physical]:
    """A column's physical values, None where null."""
    if pa.types.is_decimal(array.type) or pa.types.is_timestamp(array.type):
        values = units(array).tolist()
        if array.null_count:
            for row in np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)):
                values[row] = None
        return list(values)
    return list(array.to_pylist())


def physical_array(values: Sequence[Physical], type: DataType) -> pa.Array:
    """A column from physical values, None as null."""
    if type.kind is not Kind.DECIMAL:
        return pa.array(values, type.arrow)
    nulls = np.fromiter((v is None for v in values), dtype=np.bool_, count=len(values))
    words = np.fromiter((0 if v is None else v for v in values), dtype=np.int64, count=len(values))
    return decimals(words, type, nulls if nulls.any() else None)


def rows_to_batch(schema: Schema, rows: Sequence[tuple[Physical, ...]]) -> pa.RecordBatch:
    """Rows of physical values in declared order as an Arrow batch; nullability is not checked here."""
    columns: Iterable[Sequence[Physical]] = zip(*rows, strict=True) if rows else [() for _ in schema.fields]
    arrays = [physical_array(list(column), f.type) for f, column in zip(schema.fields, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=list(schema.names))


def batch_to_rows(schema: Schema, batch: pa.RecordBatch) -> list[tuple[Physical, ...]]:
    """A batch's fields as rows of physical values in declared order; a field that the batch lacks is null."""
    columns = []
    for f in schema.fields:
        place = batch.schema.get_field_index(f.name)
        columns.append([None] * batch.num_rows if place < 0 else physical_list(batch.column(place)))
    return list(zip(*columns, strict=True))


# --- Partitions by key: Kafka's default partitioner, so that other producers choose the same partition ---

_SEED, _M = 0x9747B28C, 0x5BD1E995
_LOW = 0xFFFFFFFF


def key_bytes(key: str | int) -> bytes:
    """A key's canonical bytes: UTF-8, or 8 bytes big-endian."""
    return key.encode() if isinstance(key, str) else key.to_bytes(8, "big", signed=True)


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (org.apache.kafka.common.utils.Utils.murmur2), as an unsigned int."""
    h = _SEED ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        k = (int.from_bytes(data[start : start + 4], "little") * _M) & _LOW
        k = ((k ^ (k >> 24)) * _M) & _LOW
        h = ((h * _M) & _LOW) ^ k
    if len(data) > whole:
        h = ((h ^ int.from_bytes(data[whole:], "little")) * _M) & _LOW
    h = ((h ^ (h >> 13)) * _M) & _LOW
    return h ^ (h >> 15)


def partition_of(key: str | int, partitions: int) -> int:
    """The partition of a key: murmur2(key bytes), sign bit off, modulo the number of partitions."""
    return 0 if partitions == 1 else (murmur2(key_bytes(key)) & 0x7FFFFFFF) % partitions


def partitions_of(keys: pa.Array, partitions: int) -> npt.NDArray[np.int32]:
    """`partition_of` of each key of a string or int64 array without nulls."""
    if partitions == 1:
        return np.zeros(len(keys), dtype=np.int32)
    hashes = _murmur2_texts(keys) if pa.types.is_string(keys.type) else _murmur2_numbers(units(keys))
    result: npt.NDArray[np.int32] = ((hashes & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)).astype(np.int32)
    return result


def _murmur2_numbers(keys: Integers) -> npt.NDArray[np.uint32]:
    halves = np.ascontiguousarray(keys).byteswap().view(np.uint32).reshape(-1, 2)
    h = np.full(len(keys), _SEED ^ 8, dtype=np.uint32)
    return _finish(_round(_round(h, halves[:, 0].copy()), halves[:, 1].copy()))


def _round(h: npt.NDArray[np.uint32], k: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    k *= np.uint32(_M)
    k ^= k >> np.uint32(24)
    k *= np.uint32(_M)
    return (h * np.uint32(_M)) ^ k


def _finish(h: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    h ^= h >> np.uint32(13)
    h *= np.uint32(_M)
    return h ^ (h >> np.uint32(15))


def _murmur2_texts(keys: pa.Array) -> npt.NDArray[np.uint32]:
    """Keys repeat, so each distinct text is hashed once."""
    encoded = keys.dictionary_encode()
    distinct = np.array([murmur2(text.encode()) for text in encoded.dictionary.to_pylist()], dtype=np.uint32)
    codes: npt.NDArray[np.int32] = encoded.indices.to_numpy()
    return distinct[codes] if len(distinct) else np.zeros(len(keys), dtype=np.uint32)
