"""Values on their way: units, Arrow, JSON, and the partition of a key."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace.core.schema as types
from headrace.core.codec import (
    batch_to_rows,
    canonical_json,
    decimal_units,
    decimals,
    json_value,
    logical,
    murmur2,
    partition_of,
    partitions_of,
    physical,
    rows_to_batch,
    units,
)
from headrace.core.errors import SchemaError
from headrace.core.schema import Schema


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # the vectors of Kafka's own UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data, expected):
    assert murmur2(data) == expected % 2**32


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(max_size=20)) | st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(1, 1024), st.integers(0, 2)
)
def test_the_partitions_of_a_column_are_those_of_its_keys(keys, partitions, skipped):
    column = pa.array(keys, pa.string() if keys and isinstance(keys[0], str) else pa.int64())
    expected = [partition_of(key, partitions) for key in keys]
    assert partitions_of(column.slice(skipped), partitions).tolist() == expected[skipped:]


def test_canonical_json_is_one_text_for_one_meaning():
    assert canonical_json({"b": [1.0, -0.0, None], "a": "å"}) == '{"a":"å","b":[1.0,0.0,null]}'
    with pytest.raises(SchemaError) as refused:
        canonical_json([float("nan")])
    assert refused.value.code == "HR-0403"


MONEY = types.decimal(18, 4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.integers(-(10**18) + 1, 10**18 - 1)), st.integers(0, 2))
def test_decimals_keep_their_units(values, skipped):
    nulls = np.array([v is None for v in values], dtype=np.bool_)
    column = decimals(np.array([v or 0 for v in values], dtype=np.int64), MONEY, nulls if nulls.any() else None)
    assert column.to_pylist() == [logical(v, MONEY) for v in values]
    assert units(column.slice(skipped)).tolist() == [v or 0 for v in values[skipped:]]
    assert [decimal_units(d, MONEY) for d in column.to_pylist() if d is not None] == [
        v for v in values if v is not None
    ]


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_for_a_decimal_means_its_shortest_text(value):
    exact = decimal.Decimal(repr(value))
    fits = abs(exact) < 10**14 and exact == round(exact, 4)
    try:
        assert logical(decimal_units(value, MONEY), MONEY) == exact
    except SchemaError:
        assert not fits
    else:
        assert fits


SCHEMA = Schema.of(
    "t",
    {"i": types.int64, "s": types.string, "x": types.float64, "b": types.boolean, "m": MONEY, "at": types.timestamp},
)
ROW = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.text(max_size=4),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.booleans(),
    st.none() | st.integers(-(10**18) + 1, 10**18 - 1),
    st.none() | st.integers(-(2**62), 2**62),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW))
def test_rows_survive_arrow(rows):
    batch = rows_to_batch(SCHEMA, rows)
    assert batch.schema.types == SCHEMA.arrow.types
    assert batch_to_rows(SCHEMA, batch) == rows
    assert batch_to_rows(SCHEMA, batch.slice(1)) == rows[1:]


def test_a_field_that_a_batch_lacks_is_null():
    assert batch_to_rows(SCHEMA, pa.RecordBatch.from_pydict({"i": [1]})) == [(1, None, None, None, None, None)]


@pytest.mark.parametrize(
    ("value", "declared", "expected"),
    [
        (dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC), types.timestamp, 1_000_000),
        (dt.timedelta(milliseconds=3), types.duration, 3_000),
        (np.int64(5), types.int64, 5),
        (np.float32(0.5), types.float64, 0.5),
        (np.str_("a"), types.string, "a"),
        (3, types.float64, 3.0),
        (None, types.string, None),
    ],
)
def test_physical_values(value, declared, expected):
    made = physical(value, declared)
    assert made == expected and type(made) is type(expected)


def test_json_loses_nothing():
    assert json_value(1250, types.decimal(12, 2)) == "12.50"
    assert json_value(1_500_000, types.timestamp) == "1970-01-01T00:00:01.500000Z"
    assert json_value(None, types.timestamp) is None
