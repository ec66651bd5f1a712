"""Retained events: found by id and by place, whatever lies in the tail, in a segment, or was merged."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

import headrace as hr
from headrace.core.codec import rows_to_batch
from headrace.features.retained import TAIL_ROWS, Origin, RetainedRows
from headrace.log.define import Topic
from headrace.log.port import EVENT_TIME, OFFSET

KINDS = ("number", "text")


def topic(kind: str) -> Topic:
    return hr.Topic(
        "plans",
        key="id",
        id="id",
        fields={
            "id": hr.int64 if kind == "number" else hr.string,
            "amount": hr.decimal(12, 2),
            "at": hr.timestamp,
            "note": hr.string,
            "ok": hr.boolean,
        },
    )


def row(kind: str, number: int) -> tuple[object, ...]:
    id = number if kind == "number" else f"plan-{number}"
    return (id, -number, number * 1_000, None if number % 3 else f"n{number}", number % 2 == 0)


def batch(kind: str, offsets: list[int], times: list[int], rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    fields = rows_to_batch(topic(kind).schema, rows)
    times_array = pa.array(times, pa.timestamp("us", tz="UTC"))
    return pa.RecordBatch.from_arrays(
        [pa.array(offsets, pa.int64()), times_array, *fields.columns], names=[OFFSET, EVENT_TIME, *fields.schema.names]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_found_by_id_and_place_however_they_came(kind: str) -> None:
    rows = RetainedRows(topic(kind), ["amount", "at", "note", "ok"], by_id=True)
    rng = random.Random(7)
    expected: dict[object, list[Origin]] = {}
    next_offset = {0: 0, 1_030: 5}
    for _ in range(40):
        partition = rng.choice([0, 1_030])
        count = rng.choice([1, 3, 500])
        offsets = [next_offset[partition] + 2 * i for i in range(count)]  # every second row was not taken
        next_offset[partition] = offsets[-1] + 1
        made = [row(kind, rng.randrange(3_000)) for _ in range(count)]
        times = [rng.randrange(1_000) for _ in range(count)]
        if count == 500:
            rows.add_batch(partition, batch(kind, offsets, times, made))
        for offset, time, one in zip(offsets, times, made, strict=True):
            if count != 500:
                rows.add_row(partition, offset, time, one)
            expected.setdefault(one[0], []).append(Origin(partition, offset, time, one))
    assert len(rows) == sum(map(len, expected.values()))
    for id, origins in expected.items():
        assert sorted(rows.find(id)) == sorted(origins)
        assert all(rows.at(o.partition, o.offset) == o for o in origins)
    assert rows.find(9_999 if kind == "number" else "plan-9999") == []
    assert rows.at(1_030, 4) is None
    assert rows.at(0, 10**9) is None
    assert rows.at(3, 0) is None


def test_what_is_not_kept_is_none() -> None:
    rows = RetainedRows(topic("number"), ["amount"], by_id=True)
    rows.add_row(0, 0, 5, row("number", 4))
    rows.add_batch(0, batch("number", [1], [6], [row("number", 5)]))
    assert rows.at(0, 1) == Origin(0, 1, 6, (5, -5, None, None, None))
    assert rows.at(0, 0) == Origin(0, 0, 5, (4, -4, None, None, None))  # it was settled into a segment
    assert {f.name for f in rows.fields} == {"id", "amount"}


def test_the_tail_becomes_segments_whose_number_stays_small() -> None:
    rows = RetainedRows(topic("number"), [], by_id=True)
    for offset in range(10 * TAIL_ROWS + 5):
        rows.add_row(0, offset, offset, row("number", offset))
    held = rows._partitions[0]
    assert len(held.tail) == 5
    assert len(held.segments) <= 4
    assert [o.offset for o in rows.find(TAIL_ROWS)] == [TAIL_ROWS]


def test_old_segments_are_forgotten_and_name_their_ids() -> None:
    rows = RetainedRows(topic("number"), ["amount"], by_id=True)
    rows.add_batch(0, batch("number", [0, 1], [10, 20], [row("number", 1), row("number", 2)]))
    rows.add_batch(0, batch("number", list(range(2, 12)), [30] * 10, [row("number", i) for i in range(2, 12)]))
    rows.add_batch(1, batch("number", [0], [15], [row("number", 3)]))
    assert rows.forget(14) == []
    assert sorted(rows.forget(29)) == [3]  # partition 0 was merged, and has newer ones
    assert [o.partition for o in rows.find(3)] == [0]
    assert len(rows.forget(30)) == 12
    assert len(rows) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_batches_give_restores(kind: str) -> None:
    rows = RetainedRows(topic(kind), ["amount", "at", "note", "ok"], by_id=True)
    for offset in range(50):
        rows.add_row(offset % 2, offset, offset, row(kind, offset))
    again = RetainedRows(topic(kind), ["amount", "at", "note", "ok"], by_id=True)
    for partition, part in rows.batches():
        again.add_batch(partition, part)
    assert all(again.at(n % 2, n) == Origin(n % 2, n, n, row(kind, n)) for n in range(50))
    assert len(again) == 50


def test_numbers_in_arrays_are_python_numbers() -> None:
    rows = RetainedRows(topic("number"), ["amount"], by_id=True)
    rows.add_batch(0, batch("number", [0], [1], [row("number", 3)]))
    found = rows.find(int(np.int64(3)))[0]
    assert [type(v) for v in (found.partition, found.offset, found.event_time, found.row[1])] == [int] * 4
