"""The fold that says which records count, against the rule as it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.codec import Physical, rows_to_batch
from headrace.core.errors import SchemaError
from headrace.core.points import Cut, Partition
from headrace.core.schema import Schema
from headrace.core.times import Duration, Instant
from headrace.decisions import record as records
from headrace.decisions.chain import genesis
from headrace.decisions.claims import ClaimFold, Places, RequestPlace, Standing
from headrace.decisions.define import Outcome
from headrace.decisions.plan import Decided, Ruling
from headrace.decisions.record import ViewPoint
from headrace.log.define import Topic
from headrace.log.port import SYSTEM_COLUMNS

RECORDS = Partition("headrace.decisions.d", 1, 2)
VIEW = [Partition("payments", 1, 0), Partition("payments", 1, 1)]
RULING = Ruling(Decided(Outcome.APPROVE, (), 0))

Row = tuple[Physical, ...]


@dataclass(frozen=True)
class Naive:
    """What the rule says of rows: (standing, epoch) each, and what is left behind the last."""

    standings: list[Standing]
    epoch: int | None
    owner: str | None
    head: str
    places: dict[RequestPlace, int]
    floors: dict[Partition, int]


def naive(rows: Sequence[tuple[int, Row]]) -> Naive:
    names = list(records._FIELDS)
    epoch, owner, head = None, None, genesis(RECORDS)
    standings, places, floors = [], {}, {}
    for offset, row in rows:
        said = dict(zip(names, row, strict=True))
        if said["claim"] is not None:
            epoch, owner = offset, said["claim"]
            standings.append(Standing.CLAIM)
            continue
        place = RequestPlace(*(said[f"request_{name}"] for name in ("incarnation", "partition", "offset")))
        if said["epoch"] != epoch or place in places:
            standings.append(Standing.VOID)
            continue
        places[place] = offset
        head = said["chain"] or head
        record = records.from_row(row, "payments")
        for point in record.points:
            for partition, cut in point.cut if point.absent is None else ():
                floors[partition] = max(floors.get(partition, 0), cut)
        standings.append(Standing.VALID)
    return Naive(standings, epoch, owner, head, places, floors)


def record_row(
    request: int,
    *,
    epoch: int | None = None,
    incarnation: int = 1,
    index: int = 2,
    cuts: Sequence[int] = (0, 0),
    absent: str | None = None,
    chain: str = "",
) -> Row:
    points = [
        ViewPoint(cut=Cut.of({VIEW[0]: cuts[0]}), staleness=Duration(0)),
        ViewPoint(cut=Cut.of({VIEW[0]: cuts[0], VIEW[1]: cuts[1]}), staleness=Duration(9), absent=absent),
    ]
    return records.make_row(
        decision="d",
        request_id="r",
        request=Partition("payments", incarnation, index),
        offset=request,
        t=1,
        decided_at=2,
        versions="{}",
        points=records.points_text(points),
        features="[]",
        ruling=RULING,
        flags=(),
        chain=chain,
        epoch=epoch,
    )


def claim_row(owner: str) -> Row:
    return records.claim_row("d", Partition("payments", 1, 2), owner=owner, at=Instant(7))


def batch_of(rows: Sequence[tuple[int, Row]], without: Sequence[str] = ()) -> pa.RecordBatch:
    held = rows_to_batch(Schema.of("records", records._FIELDS), [row for _, row in rows])
    held = held.select([name for name in held.schema.names if name not in without])
    count = len(rows)
    system = [
        pa.array([offset for offset, _ in rows], pa.int64()),
        *(pa.array([0] * count, pa.int64()).cast(column.type) for column in SYSTEM_COLUMNS[1:3]),
        pa.array([0] * count, pa.uint8()),
    ]
    return pa.RecordBatch.from_arrays([*system, *held.columns], schema=pa.schema([*SYSTEM_COLUMNS, *held.schema]))


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[int, Row]]:
    """Claims, records under the claim in force, under earlier ones, under none; of few requests, most of them
    rising."""
    rows: list[tuple[int, Row]] = []
    epochs: list[int | None] = [None]
    offset, request = 0, 0
    for number in range(draw(st.integers(0, 40))):
        offset += draw(st.sampled_from([1, 1, 1, 2, 1 << 16]))
        if draw(st.integers(0, 7)) == 0:
            rows.append((offset, claim_row(draw(st.sampled_from(["a", "b"])))))
            epochs.append(offset)
            continue
        epoch = epochs[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from([*epochs, 99]))
        request = request + 1 if draw(st.integers(0, 3)) else draw(st.integers(0, request))
        strange = draw(st.integers(0, 9)) == 0
        row = record_row(
            request,
            epoch=epoch,
            incarnation=2 if strange else 1,
            index=draw(st.sampled_from([2, 3])) if strange else 2,
            cuts=(draw(st.integers(0, 9)), draw(st.integers(0, 9))),
            absent=draw(st.sampled_from([None, None, "stale"])),
            chain=draw(st.sampled_from(["", f"link {number}"])),
        )
        rows.append((offset, row))
    return rows


def same(fold: ClaimFold, rule: Naive, rows: Sequence[tuple[int, Row]], *, floors: bool) -> None:
    assert (fold.epoch, fold.owner, fold.head) == (rule.epoch, rule.owner, rule.head)
    assert fold.floors == (rule.floors if floors else {})
    counts = [rule.standings.count(one) for one in (Standing.VALID, Standing.VOID, Standing.CLAIM)]
    assert [fold.valid, fold.voids, fold.claims] == counts
    assert fold.next == (rows[-1][0] + 1 if rows else 0)
    asked = [RequestPlace(inc, index, request) for inc in (1, 2) for index in (2, 3) for request in range(-1, 42)]
    assert {place: fold.record(place) for place in asked} == {place: rule.places.get(place) for place in asked}


@settings(max_examples=80, deadline=None)
@given(rows=logs(), data=st.data())
def test_rows_and_batches_fold_to_what_the_rule_says(rows: list[tuple[int, Row]], data: st.DataObject) -> None:
    rule = naive(rows)
    one_by_one = ClaimFold(RECORDS, floors=True)
    assert [one_by_one.take(offset, row) for offset, row in rows] == rule.standings
    same(one_by_one, rule, rows, floors=True)
    mixed = ClaimFold(RECORDS, floors=data.draw(st.booleans()))
    found: list[int] = []
    left = list(rows)
    while left:
        size = data.draw(st.integers(1, len(left)))
        if size == 1:
            found.append(mixed.take(*left[0]))
        else:
            found += mixed.take_batch(batch_of(left[:size])).tolist()
        left = left[size:]
    assert found == rule.standings
    same(mixed, rule, rows, floors=mixed.floors != {} or rule.floors == {})


def test_without_a_claim_records_that_name_none_count() -> None:
    rows = [(at, record_row(at)) for at in range(5)]
    fold = ClaimFold(RECORDS)
    assert fold.take_batch(batch_of(rows, without=("epoch", "claim"))).tolist() == [Standing.VALID] * 5
    assert (fold.epoch, fold.owner, fold.valid, fold.voids) == (None, None, 5, 0)
    assert fold.take(5, record_row(9, epoch=3)) is Standing.VOID


def test_a_record_under_an_earlier_claim_is_void_whenever_it_comes() -> None:
    fold = ClaimFold(RECORDS)
    said = [
        fold.take(offset, row)
        for offset, row in [
            (10, claim_row("a")),
            (11, record_row(1, epoch=10)),
            (12, claim_row("b")),
            (13, record_row(2, epoch=10)),
            (14, record_row(1, epoch=12)),
            (15, record_row(2, epoch=12)),
            (16, record_row(2, epoch=12)),
            (17, record_row(3)),
        ]
    ]
    valid, void, claim = Standing.VALID, Standing.VOID, Standing.CLAIM
    assert said == [claim, valid, claim, void, void, valid, void, void]
    assert (fold.epoch, fold.owner) == (12, "b")
    assert fold.record(RequestPlace(1, 2, 1)) == 11 and fold.record(RequestPlace(1, 2, 2)) == 15


def test_an_empty_batch_changes_nothing() -> None:
    fold = ClaimFold(RECORDS)
    assert fold.take_batch(batch_of([])).tolist() == [] and fold.next == 0


def test_a_void_record_leaves_nothing_behind() -> None:
    fold = ClaimFold(RECORDS, floors=True)
    fold.take(0, claim_row("a"))
    fold.take(1, record_row(1, epoch=0, cuts=(3, 4), chain="kept"))
    fold.take(2, record_row(2, epoch=7, cuts=(9, 9), chain="void"))
    fold.take_batch(batch_of([(3, record_row(3, epoch=7, cuts=(9, 9), chain="void"))]))
    assert (fold.head, fold.floors, fold.voids) == ("kept", {VIEW[0]: 3, VIEW[1]: 4}, 2)


def test_points_that_are_none_are_no_record() -> None:
    row = list(record_row(1))
    row[records.POINTS] = '[["x"]]'
    with pytest.raises(SchemaError) as caught:
        ClaimFold(RECORDS, floors=True).take(0, tuple(row))
    assert caught.value.code == "HR-0713"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 30), min_size=1, max_size=8)), max_size=12))
def test_places_are_a_dictionary_that_keeps_the_first(calls: list[tuple[bool, list[int]]]) -> None:
    places, wanted, at = Places(), {}, 100
    for together, requests in calls:
        offsets = list(range(at, at + len(requests)))
        at += len(requests)
        expected = []
        for request, offset in zip(requests, offsets, strict=True):
            expected.append(request not in wanted)
            wanted.setdefault(request, offset)
        if together:
            assert places.put_all(np.array(requests, np.int64), np.array(offsets, np.int64)).tolist() == expected
        else:
            assert [places.put(*one) for one in zip(requests, offsets, strict=True)] == expected
        assert {request: places.find(request) for request in range(-1, 32)} == {
            request: wanted.get(request) for request in range(-1, 32)
        }
        assert places.first == min(wanted)
    assert places.first == min(wanted, default=None)


def test_a_claim_is_no_record_and_names_no_request() -> None:
    row = claim_row("me")
    with pytest.raises(SchemaError) as caught:
        records.from_row(row, "payments")
    assert caught.value.code == "HR-0713" and "claim" in caught.value.detail
    assert row[records.REQUEST : records.REQUEST + 3] == (1, 2, -1)
    batch_of([(0, row)]).validate(full=True)


def test_what_one_process_owns_has_the_links_of_before() -> None:
    """Two fields were added, null there: a record's link is what it was without them."""
    row = record_row(1)
    before = tuple(value for place, value in enumerate(row) if place not in (records.EPOCH, records.CLAIM))
    assert records.linked(row, "x" * 64)[-1] == records.linked(before, "x" * 64)[-1]
    assert records.linked(record_row(1, epoch=0), "x" * 64)[-1] != records.linked(row, "x" * 64)[-1]
    topic = Topic("payments", key="k", id="k", fields={"k": records._FIELDS["decision"]})
    assert topic.id == "k"
