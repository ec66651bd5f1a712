"""How a file's rows enter the log: which column is which field, in what order, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace.core.schema as types
from headrace.core.errors import SchemaError, UsageError
from headrace.core.times import Duration, instant
from headrace.log.define import Topic
from headrace.schemas.define import AvailableAt, ImportOptions
from headrace.schemas.plan import Columns, available_by_rule, imported_already, match_columns, order_rows

FIELDS = {"id": types.int64, "customer": types.string, "at": types.timestamp, "amount": types.float64}
PAYMENTS = Topic("payments", key="customer", id="id", event_time="at", fields=FIELDS)
NAMED = Topic("named", key="customer", id="id", event_time="at", fields=FIELDS | {"id": types.string})
TIMELESS = Topic("timeless", key="customer", id="id", fields=FIELDS)
WITHOUT_ID = Topic("without_id", key="customer", event_time="at", fields=FIELDS)
AT = pa.timestamp("us", "UTC")


def matched(*have, topic=PAYMENTS, **options) -> Columns:
    return match_columns(topic, have, ImportOptions(**options), origin="a.csv")


def batch(ids: Sequence[object], at: Sequence[int]) -> pa.RecordBatch:
    """The rows' `customer` says their place in the file: a, b, c ..."""
    customers = [chr(ord("a") + place) for place in range(len(ids))]
    id_type = pa.string() if ids and isinstance(ids[0], str) else pa.int64()
    return pa.record_batch(
        {"id": pa.array(ids, id_type), "customer": pa.array(customers, pa.string()), "at": pa.array(at, AT)}
    )


def ordered(topic: Topic, ids: Sequence[object], at: Sequence[int], available: Sequence[int], now: int | None = None):
    """The places of the rows in the import's order, as letters; each row's available_at; how many are left out."""
    done = order_rows(topic, batch(ids, at), np.array(available, np.int64), now=now)
    return "".join(done.rows["customer"].to_pylist()), done.available_at.tolist(), done.left_out


def same_memory(one: pa.RecordBatch, other: pa.RecordBatch) -> bool:
    return one["at"].buffers()[1].address == other["at"].buffers()[1].address


# Which column is which field.


def test_columns_are_fields_by_name_and_the_others_are_ignored() -> None:
    found = matched("note", "at", "id", "customer", "amount")
    assert found.fields == {"id": "id", "customer": "customer", "at": "at", "amount": "amount"}
    assert (found.available_at, found.ignored) == (None, ("note",))
    assert found.wanted == ("id", "customer", "at", "amount")


def test_a_field_that_may_be_null_needs_no_column() -> None:
    assert "amount" not in matched("id", "customer", "at").fields


def test_a_mapping_says_which_column_a_field_is_and_frees_the_column_of_its_name() -> None:
    found = matched("number", "customer", "at", "eur", "id", columns={"id": "number", "amount": "eur"})
    assert found.fields == {"id": "number", "customer": "customer", "at": "at", "amount": "eur"}
    assert found.ignored == ("id",)


def test_the_column_of_available_at_is_read_and_is_no_field() -> None:
    found = matched("id", "customer", "at", "seen", available_at=AvailableAt(column="seen"))
    assert (found.available_at, found.ignored) == ("seen", ())
    assert found.wanted == ("id", "customer", "at", "seen")


def test_a_column_that_is_a_field_and_available_at_is_read_once() -> None:
    assert matched("id", "customer", "at", available_at=AvailableAt(column="at")).wanted == ("id", "customer", "at")


def test_a_mapping_of_no_field_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        matched("id", "customer", "at", "eur", columns={"amuont": "eur"})
    assert (refused.value.code, refused.value.hint) == ("HR-0427", "did you mean 'amount'?")
    assert refused.value.message == "topic 'payments' has no field 'amuont' to map a column to"


@pytest.mark.parametrize("lacking", ["id", "customer", "at"])
def test_a_required_field_needs_its_column(lacking: str) -> None:
    with pytest.raises(SchemaError) as refused:
        matched(*(name for name in ("id", "customer", "at", "amount") if name != lacking))
    assert refused.value.code == "HR-0423"
    assert refused.value.facts == {"field": lacking, "column": lacking}
    assert f"needs it for field {lacking!r}" in refused.value.detail


def test_a_mapped_column_must_be_there_even_where_its_field_may_be_null() -> None:
    with pytest.raises(SchemaError) as refused:
        matched("id", "customer", "at", "euro", columns={"amount": "eur"})
    assert (refused.value.code, refused.value.message) == ("HR-0423", "a.csv: no column 'eur'")
    assert refused.value.detail == "topic 'payments' needs it for field 'amount'; the file has id, customer, at, euro"
    assert refused.value.hint == "did you mean 'euro'? say --map amount=COLUMN"
    assert refused.value.facts == {"field": "amount", "column": "eur"}


def test_where_nothing_resembles_the_column_the_hint_lists_what_there_is() -> None:
    with pytest.raises(SchemaError) as refused:
        matched("x1", "x2")
    assert refused.value.hint == "there is: x1, x2"


def test_the_column_of_available_at_must_be_there_and_is_not_mapped() -> None:
    with pytest.raises(SchemaError) as refused:
        matched("id", "customer", "at", "seen_at", available_at=AvailableAt(column="seen_on"))
    assert (refused.value.code, refused.value.message) == ("HR-0423", "a.csv: no column 'seen_on'")
    assert "needs it for its available_at" in refused.value.detail
    assert refused.value.hint == "did you mean 'seen_at'?"
    assert refused.value.facts == {"field": "", "column": "seen_on"}


def test_the_file_s_first_twenty_columns_are_named() -> None:
    with pytest.raises(SchemaError) as refused:
        matched(*(f"x{number}" for number in range(1, 31)))
    assert refused.value.detail.endswith("; the file has " + ", ".join(f"x{number}" for number in range(1, 21)))


def test_a_file_without_columns_says_so() -> None:
    with pytest.raises(SchemaError) as refused:
        matched()
    assert refused.value.detail.endswith("; the file has none")


def test_two_columns_of_a_field_s_name_are_refused_and_two_others_are_not() -> None:
    with pytest.raises(SchemaError) as refused:
        matched("id", "customer", "at", "at")
    assert (refused.value.code, refused.value.column) == ("HR-0405", "at")
    assert matched("id", "customer", "at", "note", "note").ignored == ("note", "note")


def test_a_column_that_resembles_a_field_the_file_lacks_is_refused() -> None:
    with pytest.raises(SchemaError) as refused:
        matched("id", "customer", "at", "AMUONT")
    assert (refused.value.code, refused.value.field) == ("HR-0405", "amount")
    assert refused.value.message == "a.csv: unknown column 'AMUONT'"
    assert refused.value.hint == "say --map amount=AMUONT if it is, --ignore AMUONT if it is not"


def test_the_field_that_is_resembled_is_told_from_others_that_are_lacking() -> None:
    wide = Topic("wide", key="id", fields={"id": types.int64, "status": types.string, "amount": types.float64})
    with pytest.raises(SchemaError) as refused:
        matched("id", "amuont", topic=wide)
    assert refused.value.field == "amount"


def test_a_column_that_is_meant_to_be_ignored_is() -> None:
    assert matched("id", "customer", "at", "amuont", ignore=("amuont",)).ignored == ("amuont",)


def test_a_column_that_resembles_a_field_the_file_has_is_ignored() -> None:
    assert matched("id", "customer", "at", "amount", "amounts").ignored == ("amounts",)


# In what order.


def test_rows_come_by_available_at_first() -> None:
    assert ordered(PAYMENTS, [1, 2, 3], [1, 2, 3], [30, 10, 20]) == ("bca", [10, 20, 30], 0)


def test_rows_of_one_available_at_come_by_event_time() -> None:
    assert ordered(PAYMENTS, [1, 2, 3, 4], [3, 1, 2, 0], [7, 7, 7, 8]) == ("bcad", [7, 7, 7, 8], 0)


def test_rows_of_one_event_time_come_by_id_as_a_number() -> None:
    assert ordered(PAYMENTS, [10, 9, 2, 1], [5, 5, 5, 6], [7, 7, 7, 7])[0] == "cbad"


def test_rows_of_one_event_time_come_by_id_as_bytes() -> None:
    ids = ["b", "\U0001f600", "\ue000", "a", "B", "a "]
    assert ordered(NAMED, ids, [5] * 6, [7] * 6)[0] == "edfacb"  # UTF-16 would put the emoji before U+E000


def test_rows_of_one_id_keep_their_places() -> None:
    assert ordered(PAYMENTS, [2, 1, 1, 1], [5] * 4, [7] * 4)[0] == "bcda"
    assert ordered(NAMED, ["y", "x", "x", "x"], [5] * 4, [7] * 4)[0] == "bcda"


def test_without_an_event_time_the_id_follows_available_at() -> None:
    assert ordered(TIMELESS, [3, 1, 2], [0, 9, 9], [7, 7, 7])[0] == "bca"


def test_without_an_id_rows_of_one_event_time_keep_their_places() -> None:
    assert ordered(WITHOUT_ID, [3, 2, 1, 0], [5, 5, 5, 4], [7, 7, 7, 7])[0] == "dabc"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=8))
def test_the_order_is_that_of_the_rows_own_keys(rows: list[tuple[int, int, int]]) -> None:
    """Python's sort, which is stable, is the oracle; a number and its text are one id, so both kinds agree."""
    available, at, ids = ([row[place] for row in rows] for place in range(3))
    places = sorted(range(len(rows)), key=lambda place: rows[place])
    expected = ("".join(chr(ord("a") + place) for place in places), sorted(available), 0)
    assert ordered(PAYMENTS, ids, at, available) == expected
    assert ordered(NAMED, [str(id) for id in ids], at, available) == expected


@pytest.mark.parametrize(
    ("ids", "at", "available"),
    [
        ([1, 2, 3], [1, 2, 3], [7, 8, 9]),
        ([3, 2, 1], [3, 2, 1], [7, 8, 9]),  # a later key may fall where an earlier one rises
        ([3, 2, 1], [4, 5, 6], [7, 7, 7]),
        ([1, 1, 2], [5, 5, 5], [7, 7, 7]),
        ([1], [5], [7]),
    ],
)
def test_a_file_in_order_is_not_copied(ids: list[int], at: list[int], available: list[int]) -> None:
    rows, instants = batch(ids, at), np.array(available, np.int64)
    done = order_rows(PAYMENTS, rows, instants, now=None)
    assert same_memory(done.rows, rows) and np.shares_memory(done.available_at, instants)


def test_a_file_out_of_order_is_copied() -> None:
    rows = batch([2, 1], [5, 5])
    assert not same_memory(order_rows(PAYMENTS, rows, np.array([7, 7]), now=None).rows, rows)


def test_a_file_without_rows_is_in_order() -> None:
    assert ordered(PAYMENTS, [], [], []) == ("", [], 0)


# What is left out.


def test_what_is_available_only_after_now_is_left_out() -> None:
    assert ordered(PAYMENTS, [1, 2, 3, 4], [1, 2, 3, 4], [9, 8, 7, 6], now=7) == ("dc", [6, 7], 2)


def test_all_may_be_left_out_and_none() -> None:
    assert ordered(PAYMENTS, [1, 2], [1, 2], [8, 9], now=7) == ("", [], 2)
    assert ordered(PAYMENTS, [1, 2], [1, 2], [8, 9], now=9) == ("ab", [8, 9], 0)


def test_without_a_now_nothing_is_left_out() -> None:
    assert ordered(PAYMENTS, [1, 2], [1, 2], [8, 9]) == ("ab", [8, 9], 0)


# When a row could be seen, and a file that came before.


def test_available_at_is_the_event_time_and_the_declared_delay() -> None:
    rows = batch([1, 2], [10, 5])
    assert available_by_rule(PAYMENTS, rows, AvailableAt()).tolist() == [10, 5]
    assert available_by_rule(PAYMENTS, rows, AvailableAt(delay=Duration.parse("2s"))).tolist() == [2_000_010, 2_000_005]


def test_without_an_event_time_a_rule_of_event_times_is_refused() -> None:
    with pytest.raises(SchemaError) as refused:
        available_by_rule(TIMELESS, batch([1], [10]), AvailableAt())
    assert (refused.value.code, refused.value.hint) == ("HR-0425", "say --available-at column:NAME")
    assert refused.value.detail == "seen the rule event_time"


def test_a_file_imported_before_says_when_where_it_is_known() -> None:
    assert imported_already("payments", "a.csv", None).message == ("a.csv was imported into topic 'payments' before")
    when = instant("2026-06-01T00:00:00Z")
    assert imported_already("payments", "a.csv", when).message == (
        "a.csv was imported into topic 'payments' before, on 2026-06-01T00:00:00Z"
    )
    assert imported_already("payments", "a.csv", None).code == "HR-0426"
