"""The two evaluations of an expression against each other, to the bit, and against the rules one by one."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import math
import struct
import zoneinfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace.core.schema as types
from headrace.core.codec import INSTANT_MAX, INSTANT_MIN, physical_array, physical_list
from headrace.core.columns import evaluate_columns
from headrace.core.errors import DefinitionError, SchemaError
from headrace.core.evaluate import compile_scalar
from headrace.core.expr import Literal, Reference, Source, call, coalesce, describe, hour, if_else, literal, weekday
from headrace.testing.expressions import evaluate as oracle

MONEY, RATE = types.decimal(18, 2), types.decimal(6, 4)
TYPES = {
    "i": types.int64,
    "x": types.float64,
    "y": types.float64,
    "m": MONEY,
    "r": RATE,
    "b": types.boolean,
    "s": types.string,
    "at": types.timestamp,
    "d": types.duration,
}
NAMES = list(TYPES)
REFERENCES = {n: Reference(source=Source.FIELD, owner="", name=n, type=t) for n, t in TYPES.items()}
ZONES = ["UTC", "Europe/Stockholm", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"]

INTEGERS = st.sampled_from([0, 1, -1, 7, 2**53 + 1, -(2**63), 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)
REALS = st.sampled_from([0.0, 1.0, -1.5, 1e308, -1e308, 5e-324, 0.1]) | st.floats(
    allow_nan=False, allow_infinity=False
).map(lambda x: x + 0.0)
VALUES = {
    "i": INTEGERS,
    "x": REALS,
    "y": REALS,
    "m": st.integers(-(10**18) + 1, 10**18 - 1) | st.integers(-500, 500),
    "r": st.integers(-(10**6) + 1, 10**6 - 1),
    "b": st.booleans(),
    "s": st.sampled_from(["", "web", "åäö", "z", "𝄞"]) | st.text(max_size=3),
    "at": st.integers(INSTANT_MIN, INSTANT_MAX) | st.integers(-(10**16), 2 * 10**15),
    "d": st.integers(-(10**15), 10**15),
}
ROWS = st.lists(st.tuples(*(st.none() | VALUES[n] for n in NAMES)), min_size=1, max_size=12)


@functools.cache
def trees(kind, depth):
    """Random trees of a kind: "number", "bool", "string", "time"."""
    leaf = {
        "number": st.sampled_from([REFERENCES[n] for n in "ixymrd"]) | (INTEGERS | REALS).map(literal),
        "bool": st.just(REFERENCES["b"]) | st.booleans().map(literal),
        "string": st.just(REFERENCES["s"]) | VALUES["s"].map(literal),
        "time": st.just(REFERENCES["at"]) | VALUES["at"].map(lambda at: Literal(at, types.timestamp)),
    }[kind]
    if depth == 0:
        return leaf
    number, boolean, string, time = (trees(k, depth - 1) for k in ("number", "bool", "string", "time"))
    functions = ["sqrt", "floor", "ceil", "exp", "log"]
    operators = ["add", "sub", "mul", "div", "pow"]
    same = {"number": number, "bool": boolean, "string": string, "time": time}[kind]
    choices = [leaf, st.builds(if_else, boolean, same, same), st.builds(coalesce, same, same)]
    if kind == "number":  # of every type that is one, mixed
        choices = [
            leaf,
            st.builds(call, st.sampled_from(operators), number, number),
            st.builds(call, st.sampled_from(operators), number, number),
            st.builds(call, st.sampled_from(functions), number),
            st.builds(call, st.sampled_from(["neg", "abs"]), number),
            st.builds(hour, time, tz=st.sampled_from(ZONES)),
            st.builds(weekday, time, tz=st.sampled_from(ZONES)),
            st.builds(if_else, boolean, number, number),
            st.builds(coalesce, number, number),
            number.map(lambda e: e.named("named")),
        ]
    if kind == "bool":
        comparisons = st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"])
        choices = [
            leaf,
            *(st.builds(call, comparisons, side, side) for side in (number, number, string, time)),
            st.builds(call, st.sampled_from(["eq", "ne"]), boolean, boolean),
            st.builds(call, st.sampled_from(["and", "or"]), boolean, boolean),
            st.builds(call, st.just("not"), boolean),
            st.builds(call, st.sampled_from(["is_null", "is_not_null"]), st.one_of(number, string, time, boolean)),
            *choices[1:],
        ]
    return st.one_of(choices)


def bits(value):
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


def both(expr, rows):
    """The values of both evaluations, after asserting that they are equal to the bit."""
    scalar = compile_scalar(expr, NAMES)
    columns = {name: physical_array([row[place] for row in rows], TYPES[name]) for place, name in enumerate(NAMES)}
    by_row = [scalar(row) for row in rows]
    array = evaluate_columns(expr, columns)
    assert array.type == expr.type.arrow
    by_column = physical_list(array)
    assert list(map(bits, by_row)) == list(map(bits, by_column)), describe(expr)
    for row, value in zip(rows, by_row, strict=True):
        with contextlib.suppress(DefinitionError, OverflowError):  # exp, log, pow; days at the ends of time
            assert bits(oracle(expr, lambda r, row=row: row[NAMES.index(r.name)])) == bits(value), describe(expr)
    sliced = evaluate_columns(expr, {name: column.slice(len(rows) // 2) for name, column in columns.items()})
    assert physical_list(sliced) == by_column[len(rows) // 2 :]
    return by_row


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["number", "number", "bool", "bool", "string", "time"]).flatmap(lambda k: trees(k, 2)), ROWS)
def test_one_row_and_columns_give_the_same_bits(expr, rows):
    for value in both(expr, rows):
        assert not isinstance(value, float) or (math.isfinite(value) and bits(value) != bits(-0.0))
        assert value is not None or expr.nullable or expr.type.kind is types.Kind.INT64


def value_of(expr, **values):
    """The one value, from both evaluations."""
    return both(expr, [tuple(values.get(n) for n in NAMES)])[0]


i, x, y, m, r, b, s, at, d = (REFERENCES[n] for n in NAMES)


@pytest.mark.parametrize(
    ("expr", "values", "expected"),
    [
        (x / y, {"x": 1.0, "y": 0.0}, None),
        (x * y, {"x": 1e308, "y": 10.0}, None),
        (x * y, {"x": -1.0, "y": 0.0}, 0.0),
        (-x, {"x": 0.0}, 0.0),
        (call("ceil", x), {"x": -0.5}, 0.0),
        (call("sqrt", x), {"x": -1.0}, None),
        (x + 1, {}, None),
        (-i, {"i": -(2**63)}, None),
        (abs(i), {"i": -(2**63)}, None),
        (-m, {"m": 5}, -5),
        (i == 2**53, {"i": 2**53 + 1}, False),  # equal types: exact
        (i == float(2**53), {"i": 2**53 + 1}, True),  # mixed: as doubles
        (m > 100, {"m": 10_001}, True),
        (m + 0.0, {"m": 999_999_999_999_999_999}, 999_999_999_999_999_999 / 100),
        (m / r, {"m": 333, "r": 1_000}, 3.33 / 0.1),
        (b & (x > 1), {"b": False}, False),
        (b & (x > 1), {"b": True}, None),
        (b | (x > 1), {"b": True}, True),
        (b | (x > 1), {"b": False}, None),
        (~b, {}, None),
        (x.is_null(), {}, True),
        (s.is_in("a", "b"), {"s": "b"}, True),
        (s.is_in("a", "b"), {}, None),
        (s < "z", {"s": "å"}, False),  # by code point
        (coalesce(i, x), {"x": 2.5}, 2.5),
        (coalesce(i, x), {"i": 2}, 2.0),
        (coalesce(d, d), {"d": 5}, 5),  # one type: stays a duration
        (coalesce(d, 0), {}, 0.0),  # mixed: microseconds as doubles
        (coalesce(d, 0), {"d": 2_000_000}, 2_000_000.0),
        (coalesce(x, d), {"d": 2**53 + 1}, float(2**53)),
        (coalesce(m, d), {"m": 250}, 2.5),
        (if_else(b, d, -1.0), {"b": False}, -1.0),
        (if_else(b, i, 0), {"i": 7}, 0),
        (hour(at), {"at": -1}, 23),
        (weekday(at), {"at": 0}, 3),
        (weekday(at), {"at": -1}, 2),
        (hour(at, tz="Europe/Stockholm"), {"at": 1_782_900_000_000_000}, 12),  # summer: UTC+2
    ],
)
def test_a_rule(expr, values, expected):
    assert bits(value_of(expr, **values)) == bits(expected)


@settings(max_examples=300, deadline=None)
@given(st.integers(-4 * 10**15, 4 * 10**15), st.sampled_from(ZONES))
def test_local_hours_are_those_of_zoneinfo(instant, tz):
    local = (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=instant)).astimezone(
        zoneinfo.ZoneInfo(tz)
    )
    assert value_of(hour(at, tz=tz), at=instant) == local.hour
    assert value_of(weekday(at, tz=tz), at=instant) == local.weekday()


def test_an_hour_in_which_the_zone_changes_is_exact_on_both_sides():
    change = int(dt.datetime(1996, 10, 27, 1, tzinfo=dt.UTC).timestamp()) * 1_000_000  # Stockholm leaves summer time
    lord_howe = int(dt.datetime(2024, 4, 6, 15, tzinfo=dt.UTC).timestamp()) * 1_000_000  # and this one by half an hour
    for tz, edge in (("Europe/Stockholm", change), ("Australia/Lord_Howe", lord_howe)):
        for step in (-1, 0, 1, -1_800_000_000, 1_800_000_000):
            local = dt.datetime.fromtimestamp((edge + step) // 1_000_000, zoneinfo.ZoneInfo(tz))
            assert value_of(hour(at, tz=tz), at=edge + step) == local.hour
    # before standard time the offset had seconds, and changed in the middle of an hour
    old = int(dt.datetime(1883, 11, 18, 17, tzinfo=dt.UTC).timestamp()) * 1_000_000
    for step in range(-3_600_000_000, 3_600_000_000, 97_000_001):
        local = (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=old + step)).astimezone(
            zoneinfo.ZoneInfo("America/New_York")
        )
        assert value_of(hour(at, tz="America/New_York"), at=old + step) == local.hour


def test_constants_need_the_number_of_rows():
    assert evaluate_columns(literal(1) + 2, {}, rows=3).to_pylist() == [3.0, 3.0, 3.0]
    assert evaluate_columns(literal("a"), {}, rows=2).to_pylist() == ["a", "a"]


def test_a_reference_that_nothing_supplies_is_named():
    for evaluate in (lambda: compile_scalar(x + 1, ["xx"]), lambda: evaluate_columns(x + 1, {"xx": pa.array([1.0])})):
        with pytest.raises(DefinitionError, match="nothing supplies x") as refused:
            evaluate()
        assert refused.value.code == "HR-0115"


def test_a_column_of_another_type_is_refused():
    with pytest.raises(SchemaError) as refused:
        evaluate_columns(x + 1, {"x": pa.array([1], pa.int64())})
    assert refused.value.code == "HR-0116"


def test_an_unknown_time_zone_is_refused():
    with pytest.raises(DefinitionError, match="Europe/Stokholm") as refused:
        compile_scalar(hour(at, tz="Europe/Stokholm"), NAMES)
    assert (refused.value.code, "Europe/Stockholm" in refused.value.hint) == ("HR-0114", True)


def test_chunked_columns_are_taken():
    chunked = pa.chunked_array([pa.array([1.0, None]), pa.array([3.0])])
    assert evaluate_columns(x * 2, {"x": chunked}).to_pylist() == [2.0, None, 6.0]
    assert np.isfinite(evaluate_columns(x * 2, {"x": chunked}).drop_null().to_numpy()).all()
