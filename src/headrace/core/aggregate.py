"""Aggregate functions: what each takes, what it gives, what it needs of the state. Pure (SEMANTICS 2.2, 3)."""

from __future__ import annotations

import enum

from headrace.core import schema
from headrace.core.schema import DataType, Kind


class Function(enum.Enum):
    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    VARIANCE = "variance"
    DEVIATION = "std"
    FIRST = "first"
    LAST = "last"
    LAST_N = "last_n"
    DISTINCT = "distinct"
    RATE = "rate"
    SINCE_LAST = "time_since_last"
    SINCE_FIRST = "time_since_first"
    LOOKUP = "lookup"  # the newest event's value, null where that is null; LAST skips nulls


ORDERED = frozenset({Function.FIRST, Function.LAST, Function.LAST_N, Function.LOOKUP})  # read in order of the order key
# The request is not in these by default (SEMANTICS 2.2).
WITHOUT_CURRENT = frozenset(
    {Function.SINCE_LAST, Function.SINCE_FIRST, Function.LAST, Function.LAST_N, Function.LOOKUP}
)
WITHOUT_INPUT = frozenset({Function.COUNT, Function.SINCE_LAST, Function.SINCE_FIRST})


class Reason(enum.IntEnum):
    """Why a value is what it is (SEMANTICS 3.3, 3.5). EMPTY: no events; the rest are null and name what is missing."""

    VALUE = 0
    EMPTY = 1
    OVERFLOW = 2
    LIMIT = 3
    MISSING = 4  # a view did not answer in time, is stale, or its owner is away
    ERASED = 5


def takes(function: Function, type: DataType) -> bool:
    """Whether the function can be asked of values of this type."""
    match function:
        case Function.SUM | Function.MEAN | Function.VARIANCE | Function.DEVIATION:
            return type.numeric or type.kind in (Kind.BOOLEAN, Kind.DURATION)
        case Function.RATE:
            return type.kind is Kind.BOOLEAN
        case Function.MIN | Function.MAX:
            return type.numeric or type.kind in (Kind.TIMESTAMP, Kind.DURATION)
        case _:
            return type.kind is not Kind.LIST


def gives(function: Function, input: DataType | None) -> DataType:
    """The type of the published value. A sum of decimals has 18 digits or as many as int64 holds at that scale."""
    match function:
        case Function.COUNT | Function.DISTINCT:
            return schema.int64
        case Function.MEAN | Function.VARIANCE | Function.DEVIATION | Function.RATE:
            return schema.float64
        case Function.SINCE_LAST | Function.SINCE_FIRST:
            return schema.duration
        case Function.SUM:
            assert input is not None
            if input.kind is Kind.DECIMAL:
                return DataType(Kind.DECIMAL, precision=38, scale=input.scale)
            return schema.int64 if input.kind in (Kind.BOOLEAN, Kind.INT64) else input
        case Function.LAST_N:
            assert input is not None
            return DataType(Kind.LIST, item=input)
        case _:
            assert input is not None
            return input
