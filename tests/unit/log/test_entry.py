"""Entries: what goes into the file's two forms comes out the same, and a flipped bit does not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.codec import rows_to_batch
from headrace.core.schema import boolean, decimal, float64, int64, string, timestamp
from headrace.log.define import Topic
from headrace.log.port import Physical
from headrace.log.sqlite_entry import (
    ENTRY_ROWS,
    Columns,
    arrow_schema,
    assemble,
    checksum,
    decode_arrow,
    decode_rows,
    encode_batch,
    encode_rows,
)

TOPIC = Topic(
    "all_kinds",
    key="number",
    event_time="at",
    fields={
        "number": int64, "at": timestamp, "amount": decimal(18, 4), "text": string, "ratio": float64, "flag": boolean,
        "other": int64,
    },
)  # fmt: skip
WORDS = st.integers(-(2**63), 2**63 - 1)
UNITS = st.integers(-(10**18) + 1, 10**18 - 1)
ROWS = st.lists(
    st.tuples(
        WORDS,
        st.integers(-(10**15), 10**16),
        st.none() | UNITS | st.integers(0, 50),
        st.none() | st.text(max_size=5),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.booleans(),
        st.none() | WORDS | st.integers(1_000, 1_100),
    ),
    min_size=1,
    max_size=40,
).map(
    lambda rows: sorted(rows, key=lambda row: row[1])
)  # so that available_at, which never falls, may be the event time


def system(rows: list[tuple[Physical, ...]], draw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """available_at, event_times, verdicts of one of the shapes that are stored without a column, or of their own."""
    times = np.array([row[1] for row in rows], dtype=np.int64)
    stamps = [np.full(len(rows), 7 * 10**15), np.maximum.accumulate(times), times, np.arange(len(rows)) + 10**15][
        draw % 4
    ]
    times = [times, stamps, times + 1][draw // 4 % 3]
    verdicts = np.full(len(rows), draw % 2, dtype=np.uint8)
    if draw > 12:
        verdicts[0] = 5
    return stamps.astype(np.int64), times.astype(np.int64), verdicts


def expect_same(
    columns: Columns, batch: pa.RecordBatch, stamps: np.ndarray, times: np.ndarray, verdicts: np.ndarray
) -> None:
    seen = assemble(TOPIC, arrow_schema(TOPIC), 100, columns)
    seen.validate(full=True)
    assert seen.column(0).to_pylist() == list(range(100, 100 + batch.num_rows))
    assert seen.column(1).cast(pa.int64()).to_pylist() == stamps.tolist()
    assert seen.column(2).cast(pa.int64()).to_pylist() == times.tolist()
    assert seen.column(3).to_pylist() == verdicts.tolist()
    for name in TOPIC.schema.names:
        assert seen.column(name).equals(batch.column(name)), name


@given(ROWS, st.integers(0, 23))
def test_arrow_entries_hold_what_went_in(rows: list[tuple[Physical, ...]], draw: int) -> None:
    batch = rows_to_batch(TOPIC.schema, rows)
    stamps, times, verdicts = system(rows, draw)
    [(count, payload)] = list(encode_batch(TOPIC, 1, batch, stamps, times, verdicts))
    assert count == len(rows)
    expect_same(decode_arrow(TOPIC, payload), batch, stamps, times, verdicts)


@given(ROWS, st.integers(0, 23))
def test_row_entries_hold_what_went_in(rows: list[tuple[Physical, ...]], draw: int) -> None:
    stamps, times, verdicts = system(rows, draw)
    half = len(rows) // 2
    parts = [slice(0, half), slice(half, None)] if half else [slice(None)]
    payloads = [encode_rows(TOPIC, 3, rows[p], stamps[p], times[p], verdicts[p]) for p in parts]
    [columns] = list(decode_rows(TOPIC, {3: TOPIC.schema}, payloads))
    expect_same(columns, rows_to_batch(TOPIC.schema, rows), stamps, times, verdicts)


def test_slices_of_a_batch_are_stored_as_themselves() -> None:
    rows = [(n, n * 1000, n, str(n), n / 7, n % 3 == 0, None if n % 2 else n) for n in range(100)]
    batch = rows_to_batch(TOPIC.schema, rows).slice(13, 50)
    stamps, times, verdicts = system(rows[13:63], 0)
    [(_, payload)] = list(encode_batch(TOPIC, 1, batch, stamps, times, verdicts))
    expect_same(decode_arrow(TOPIC, payload), batch, stamps, times, verdicts)


def test_large_batches_are_split() -> None:
    count = 2 * ENTRY_ROWS + 10
    topic = Topic("numbers", key="number", fields={"number": int64})
    batch = pa.RecordBatch.from_arrays([pa.array(np.arange(count))], names=["number"])
    stamps = np.zeros(count, dtype=np.int64)
    parts = list(encode_batch(topic, 1, batch, stamps, stamps, np.zeros(count, dtype=np.uint8)))
    assert [rows for rows, _ in parts] == [ENTRY_ROWS, ENTRY_ROWS, 10]
    assert max(payload.size for _, payload in parts) < 5 * ENTRY_ROWS, "narrowed to four bytes a number"


def test_a_field_added_later_is_null_before() -> None:
    old = Topic("grown", key="number", fields={"number": int64})
    new = Topic("grown", key="number", fields={"extra": string, "number": int64})
    stamps, verdicts = np.array([5], dtype=np.int64), np.zeros(1, dtype=np.uint8)
    payload = encode_rows(old, 1, [(4,)], stamps, stamps, verdicts)
    [columns] = list(decode_rows(new, {1: old.schema, 2: new.schema}, [payload]))
    assert assemble(new, arrow_schema(new), 0, columns).to_pylist()[0]["extra"] is None
    assert assemble(new, arrow_schema(new), 0, columns).to_pylist()[0]["number"] == 4


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_flipped_bit_changes_the_checksum(payload: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(payload) * 8 - 1))
    flipped = bytearray(payload)
    flipped[place // 8] ^= 1 << place % 8
    assert checksum(9, 8, 7, 1, payload) != checksum(9, 8, 7, 1, bytes(flipped))


@pytest.mark.parametrize("other", [(1, 8, 7, 1), (9, 1, 7, 1), (9, 8, 1, 1), (9, 8, 7, 2)])
def test_a_payload_at_another_place_has_another_checksum(other: tuple[int, int, int, int]) -> None:
    assert checksum(9, 8, 7, 1, b"payload") != checksum(*other, b"payload")
