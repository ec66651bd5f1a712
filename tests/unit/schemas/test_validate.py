"""What callers send: the three paths (an event, rows, a batch) take and refuse the same, with the place."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace.core.schema as types
from headrace.core.codec import batch_to_rows
from headrace.core.errors import DefinitionError, SchemaError
from headrace.log.define import Topic
from headrace.schemas import validate_batch, validate_rows, validator
from tests.examples import examples

D = decimal.Decimal
APPLICATIONS = Topic(
    "applications",
    key="customer_id",
    id="application_id",
    event_time="created_at",
    fields={
        "application_id": types.string,
        "customer_id": types.int64,
        "amount": types.field(types.decimal(12, 2), minimum=0, maximum="5000.50"),
        "score": types.field(types.float64, required=True),
        "web": types.boolean,
        "created_at": types.timestamp,
        "waited": types.duration,
        "fraud": types.field(types.boolean, available_after="7d"),
    },
)
GOOD = {
    "application_id": "a1",
    "customer_id": 7,
    "amount": "12.5",
    "score": 0.25,
    "web": True,
    "created_at": "2026-11-21T10:00:00Z",
    "waited": 5,
}
CREATED = 1_795_255_200_000_000
ROW = ("a1", 7, 1250, 0.25, True, CREATED, 5, None)


def test_an_event_becomes_physical_values_in_declared_order():
    assert validator(APPLICATIONS)(GOOD) == ROW


def test_what_is_left_out_is_null():
    least = {n: GOOD[n] for n in ("application_id", "customer_id", "score", "created_at")}
    assert validator(APPLICATIONS)(least) == ("a1", 7, None, 0.25, None, CREATED, None, None)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"amuont": 1}, "HR-0405", "unknown field 'amuont'"),
        ({"customer_id": "7"}, "HR-0401", "string for int64"),
        ({"customer_id": 7.0}, "HR-0401", "number for int64"),
        ({"customer_id": True}, "HR-0401", "boolean for int64"),
        ({"customer_id": None}, "HR-0406", "missing or null"),
        ({"customer_id": 2**63}, "HR-0404", "out of range"),
        ({"application_id": 1}, "HR-0401", "integer for string"),
        ({"application_id": "\ud800"}, "HR-0409", "not UTF-8"),
        ({"score": None}, "HR-0406", "missing or null"),
        ({"score": float("nan")}, "HR-0403", "not a finite number"),
        ({"score": float("inf")}, "HR-0403", "not a finite number"),
        ({"amount": float("nan")}, "HR-0403", "not a finite number"),
        ({"amount": "12.345"}, "HR-0402", "too many digits"),
        ({"amount": 12.345}, "HR-0402", "too many digits"),
        ({"amount": 0.1 + 0.2}, "HR-0402", "too many digits"),
        ({"amount": "1e10"}, "HR-0402", "out of range"),
        ({"amount": "1_0"}, "HR-0402", "not a decimal"),
        ({"amount": -1}, "HR-0407", "out of range: '-1.00'"),
        ({"amount": "5000.51"}, "HR-0407", "out of range"),
        ({"web": 1}, "HR-0401", "integer for boolean"),
        ({"created_at": "2026-11-21T10:00:00"}, "HR-0103", "without zone"),
        ({"created_at": dt.datetime(2026, 11, 21)}, "HR-0103", "without zone"),
        ({"created_at": "yesterday"}, "HR-0103", "not an instant"),
        ({"created_at": "2026-11-21T10:00:00.1234567Z"}, "HR-0404", "too fine"),
        ({"created_at": 2**60}, "HR-0404", "out of range"),
        ({"fraud": True}, "HR-0408", "late column"),
        ({"score": {"x": 1}}, "HR-0401", "object for float64"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(change, code, words):
    event = GOOD | change
    field = next(iter(change))
    with pytest.raises(SchemaError) as refused:
        validator(APPLICATIONS)(event)
    error = refused.value
    assert (error.code, error.topic, error.field) == (code, "applications", field)
    assert words in error.message and repr(field) in error.message
    batch, problems = validate_rows(APPLICATIONS, [GOOD, event, GOOD])
    assert batch.num_rows == 0
    assert [(p.row, p.field, p.code) for p in problems] == [(1, field, code)]
    assert words in problems[0].message
    assert "row 1" in str(problems[0].error("applications"))


def test_an_event_that_is_no_object_is_refused():
    with pytest.raises(SchemaError) as refused:
        validator(APPLICATIONS)([1, 2])
    assert refused.value.code == "HR-0401"


def test_all_problems_are_found_and_counted_up_to_a_limit():
    _, problems = validate_rows(APPLICATIONS, [GOOD | {"score": None}] * 150)
    assert len(problems) == 100
    assert "(and 99 more)" in problems[0].error("applications", count=100).message


def test_an_import_may_fill_late_columns():
    batch, problems = validate_rows(APPLICATIONS, [GOOD | {"fraud": True}], live=False)
    assert not problems and batch.column("fraud").to_pylist() == [True]
    table = pa.table({n: [v] for n, v in GOOD.items()} | {"fraud": [True]})
    assert validate_batch(APPLICATIONS, table, live=False).column("fraud").to_pylist() == [True]
    with pytest.raises(SchemaError) as refused:
        validate_batch(APPLICATIONS, table)
    assert refused.value.code == "HR-0408"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("amount", pa.array([12, 0], pa.int16()), [D("12.00"), D("0.00")]),
        ("amount", pa.array([12.34, None]), [D("12.34"), None]),
        ("amount", pa.array([D("1.2300"), D("2")], pa.decimal128(20, 4)), [D("1.23"), D("2.00")]),
        ("amount", pa.array(["1e2", "-0.0"]), [D("100.00"), D("0.00")]),
        ("score", pa.array([1, 2], pa.int32()), [1.0, 2.0]),
        ("score", pa.array([1.5, -0.0], pa.float32()), [1.5, 0.0]),
        ("score", pa.array([D("1.1"), D("2")]), [1.1, 2.0]),
        ("customer_id", pa.array([1, 2], pa.uint64()), [1, 2]),
        ("application_id", pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        ("application_id", pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        ("application_id", pa.array([b"a", b"b"]), ["a", "b"]),
        ("waited", pa.array([1, 2], pa.duration("ms")), [1000, 2000]),
        ("web", pa.array([None, None], pa.null()), [None, None]),
    ],
)
def test_a_column_is_taken_where_it_is_exact(name, values, expected):
    columns = {n: pa.array([GOOD[n]] * 2) for n in GOOD} | {name: values}
    made = validate_batch(APPLICATIONS, pa.table(columns))
    assert made.column(name).type == APPLICATIONS.schema[name].type.arrow
    assert made.column(name).to_pylist() == expected
    assert not np.signbit(made.column("score").to_numpy()).any()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_instants_of_any_unit_are_taken(unit):
    at = pa.array([CREATED], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "Europe/Stockholm"))
    columns = {n: pa.array([GOOD[n]]) for n in GOOD} | {"created_at": at}
    assert batch_to_rows(APPLICATIONS.schema, validate_batch(APPLICATIONS, pa.table(columns))) == [ROW]


@pytest.mark.parametrize(
    ("name", "values", "code"),
    [
        ("amount", pa.array([1.0, 1.005]), "HR-0402"),
        ("amount", pa.array([1, 10**10]), "HR-0402"),
        ("amount", pa.array(["1", "1.005"]), "HR-0402"),
        ("amount", pa.array([1.0, 6000.0]), "HR-0407"),
        ("score", pa.array([1.0, float("nan")]), "HR-0403"),
        ("score", pa.array(["1.0", "x"]), "HR-0401"),
        ("customer_id", pa.array([1, 2**63], pa.uint64()), "HR-0404"),
        ("customer_id", pa.array([1, None]), "HR-0406"),
        ("created_at", pa.array([0, 1], pa.timestamp("us")), "HR-0103"),
        ("created_at", pa.array(["2026-11-21T10:00:00Z", "2026-11-21T10:00:00"]), "HR-0103"),
        ("created_at", pa.array([1000, 1001], pa.timestamp("ns", "UTC")), "HR-0404"),
        ("created_at", pa.array([0, 2**62], pa.timestamp("us", "UTC")), "HR-0404"),
        ("created_at", pa.array([0, 2**62], pa.timestamp("s", "UTC")), "HR-0404"),
        ("application_id", pa.array([b"a", b"\xff"]), "HR-0409"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_at_its_row(name, values, code):
    columns = {n: pa.array([GOOD[n]] * 2) for n in GOOD} | {name: values}
    with pytest.raises(SchemaError) as refused:
        validate_batch(APPLICATIONS, pa.table(columns), origin="file x.csv", first_row=10)
    error = refused.value
    whole = name == "created_at" and pa.types.is_timestamp(values.type) and values.type.tz is None
    assert (error.code, error.field) == (code, name)
    assert error.row == (10 if whole or values.type == pa.string() and name == "score" else 11)
    assert error.message.startswith(f"file x.csv, row {error.row}, field '{name}'")


def test_bytes_that_claim_to_be_text_are_checked():
    offsets = pa.array([0, 1, 2], pa.int32()).buffers()[1]
    bad = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"a\xff"))
    columns = {n: pa.array([GOOD[n]] * 2) for n in GOOD} | {"application_id": bad}
    with pytest.raises(SchemaError) as refused:
        validate_batch(APPLICATIONS, pa.table(columns))
    assert (refused.value.code, refused.value.row) == ("HR-0409", 1)


def test_columns_that_are_missing_unknown_or_double_are_refused():
    columns = {n: pa.array([GOOD[n]]) for n in GOOD}
    for names, arrays, code, field in [
        ([n for n in columns if n != "customer_id"], None, "HR-0406", "customer_id"),
        ([*columns, "extra"], pa.array([1]), "HR-0405", "extra"),
        ([*columns, "web"], pa.array([True]), "HR-0405", "web"),
    ]:
        table = pa.Table.from_arrays([columns.get(n, arrays) for n in names], names=names)
        with pytest.raises(SchemaError) as refused:
            validate_batch(APPLICATIONS, table)
        assert (refused.value.code, refused.value.field) == (code, field)


def test_a_range_that_its_type_cannot_hold_is_a_definition_error():
    topic = Topic("t", key="k", fields={"k": types.int64, "x": types.field(types.decimal(4, 2), maximum="1.001")})
    for use in (lambda: validator(topic), lambda: validate_batch(topic, pa.table({"k": [1], "x": [1]}))):
        with pytest.raises(DefinitionError) as refused:
            use()
        assert refused.value.code == "HR-0411"


ANY = Topic(
    "any",
    key="k",
    fields={
        "k": types.int64,
        "s": types.string,
        "i": types.int64,
        "x": types.float64,
        "m": types.decimal(9, 3),
        "at": types.timestamp,
    },
)
MONEY = (
    st.integers(-(10**7), 10**7)
    | st.floats(allow_nan=True)
    | st.decimals(allow_nan=False, allow_infinity=False, places=4).filter(lambda d: abs(d) < 10**12)
    | st.integers(-(10**10), 10**10).map(lambda u: u / 1000)
    | st.sampled_from(["1.5", "1e3", "1e-3", "1e-4", "x", "", " 1", "1_0", "+.5", "٣"])
)
TEXT_INSTANTS = st.sampled_from(
    [
        "2026-11-21T10:00:00Z",
        "2026-11-21 10:00:00.5+02:00",
        "20261121T100000Z",
        "2026-11-21T10:00:00",
        "2026-11-21",
        "2026-11-21T10:00:00.1234560Z",
        "2026-11-21T10:00:00.1234567Z",
        "0001-01-01T00:00:00+01:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59.999999-01:00",
        "nonsense",
    ]
)
REALS = st.floats() | st.integers(-(2**70), 2**70)


@examples(500)
@given(
    st.sampled_from(["s", "i", "x", "m", "at"]).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.lists(
                st.none()
                | {
                    "s": st.text(max_size=5),
                    "i": st.integers(-(2**64), 2**64),
                    "x": REALS,
                    "m": MONEY,
                    "at": TEXT_INSTANTS | st.integers(-(2**63), 2**63 - 1),
                }[name],
                min_size=1,
                max_size=4,
            ),
        )
    )
)
def test_a_batch_takes_and_refuses_what_rows_do(drawn):
    name, values = drawn
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return  # no one Arrow type holds them
    values = array.to_pylist()
    rows = [{"k": 1, name: value} for value in values]
    by_row, problems = validate_rows(ANY, rows)
    table = pa.table({"k": pa.array([1] * len(values)), name: array})
    try:
        by_column = validate_batch(ANY, table)
    except SchemaError as error:
        assert problems, f"refused only as a batch: {error}"
        assert (error.row, error.code) == (problems[0].row, problems[0].code)
    else:
        assert not problems
        assert by_column.equals(by_row)
