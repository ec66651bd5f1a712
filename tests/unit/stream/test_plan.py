"""What becomes of a source's rows, and which cut of the source a derived partition stands for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from headrace.core.codec import partition_of
from headrace.core.errors import LogError
from headrace.core.points import Cut, Partition
from headrace.core.schema import field, int64, string
from headrace.core.times import Instant
from headrace.log.define import Topic
from headrace.log.port import SOURCE_COLUMNS, SYSTEM_COLUMNS, Append, Inherited, Verdict
from headrace.stream.define import derived_topic
from headrace.stream.plan import (
    NULL_KEY,
    Outputs,
    Passed,
    SourceCut,
    check_fields,
    highest,
    outputs,
    writer_name,
)

OF = Topic("orders", key="customer", fields={"customer": string, "shop": int64})
DERIVED = derived_topic("by_shop", of=OF, key="shop", partitions=3)
ONE, TWO = Partition("orders", 1, 0), Partition("orders", 1, 1)


def batch(rows: Sequence[tuple[int, int | None, Verdict]]) -> pa.RecordBatch:
    """(offset, shop, verdict) each; times that tell rows apart."""
    offsets = [offset for offset, _, _ in rows]
    system = [
        pa.array(offsets, pa.int64()),
        pa.array([1_000 + at for at in offsets], pa.int64()).cast(SYSTEM_COLUMNS[1].type),
        pa.array([500 + at for at in offsets], pa.int64()).cast(SYSTEM_COLUMNS[2].type),
        pa.array([verdict for _, _, verdict in rows], pa.uint8()),
    ]
    fields = [pa.array([f"c{at}" for at in offsets]), pa.array([shop for _, shop, _ in rows], pa.int64())]
    return pa.RecordBatch.from_arrays([*system, *fields], schema=pa.schema([*SYSTEM_COLUMNS, *OF.schema.arrow]))


def made(rows: Sequence[tuple[int, int | None, Verdict]]) -> Outputs:
    return outputs(batch(rows), source=ONE, derived=DERIVED, incarnation=7)


def inherited(append: Append) -> Inherited:
    assert append.inherited is not None
    return append.inherited


OK = Verdict.ACCEPTED


def test_rows_go_where_their_new_key_belongs_in_the_order_of_the_source() -> None:
    rows = [(10 + n, n % 7, OK) for n in range(40)]
    found = made(rows)
    assert found.rows == 40
    assert found.left_out == {}
    assert [append.partition.index for append in found.appends] == [0, 1, 2]
    assert {append.partition.topic for append in found.appends} == {"by_shop"}
    assert {append.partition.incarnation for append in found.appends} == {7}
    for append in found.appends:
        assert isinstance(append.rows, pa.RecordBatch)
        offsets, shops = inherited(append).offsets.tolist(), append.rows.column("shop").to_pylist()
        expected = [(at, shop) for at, shop, _ in rows if partition_of(shop or 0, 3) == append.partition.index]
        assert list(zip(offsets, shops, strict=True)) == expected
        assert append.rows.schema.names == ["customer", "shop"]
        assert append.rows.column("customer").to_pylist() == [f"c{at}" for at in offsets]


def test_rows_inherit_their_times_and_verdicts_and_name_their_partition() -> None:
    found = made([(3, 1, OK), (5, 1, Verdict.LATE), (6, 1, Verdict.RESTAMPED)])
    (append,) = found.appends
    said = inherited(append)
    assert said.source == ONE
    assert said.offsets.tolist() == [3, 5, 6]
    assert said.available_at.tolist() == [1_003, 1_005, 1_006]
    assert said.event_times.tolist() == [503, 505, 506]
    assert said.verdicts.tolist() == [Verdict.ACCEPTED, Verdict.LATE, Verdict.RESTAMPED]


@pytest.mark.parametrize("verdict", [Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.AHEAD, Verdict.MISPLACED])
def test_what_nothing_may_see_is_not_carried_and_counted(verdict: Verdict) -> None:
    found = made([(3, 1, OK), (4, 1, verdict), (9, 2, verdict)])
    assert found.rows == 1
    assert found.left_out == {verdict.name.lower(): 2}
    assert found.cut == Cut.of({ONE: 10}), "it is behind them all the same"


def test_an_event_without_the_new_key_is_not_carried_and_counted() -> None:
    found = made([(3, None, OK), (4, 1, OK), (5, None, Verdict.DUPLICATE)])
    assert found.rows == 1
    assert found.left_out == {NULL_KEY: 1, "duplicate": 1}


def test_rows_of_which_none_is_carried_still_move_the_cut() -> None:
    found = made([(3, None, OK)])
    assert found.appends == ()
    assert found.rows == 0
    assert found.cut == Cut.of({ONE: 4})


def test_a_writers_name_is_of_incarnations_and_partition() -> None:
    names = {
        writer_name(DERIVED, 1, ONE),
        writer_name(DERIVED, 2, ONE),
        writer_name(DERIVED, 1, TWO),
        writer_name(DERIVED, 1, Partition("orders", 2, 0)),
        writer_name(derived_topic("other", of=OF, key="shop"), 1, ONE),
    }
    assert len(names) == 5
    assert writer_name(DERIVED, 1, ONE) == "headrace.derived.by_shop.1.1.0"


@pytest.mark.parametrize(
    "fields",
    [
        {"customer": string, "shop": int64, "more": int64},
        {"customer": string},
        {"customer": string, "shop": string},
    ],
)
def test_fields_that_are_not_the_sources_are_waited_for(fields: dict[str, object]) -> None:
    changed = Topic("orders", key="customer", fields=fields)  # type: ignore[arg-type]  # types of fields
    with pytest.raises(LogError) as raised:
        check_fields(changed, DERIVED)
    assert raised.value.code == "HR-0365"
    assert raised.value.retryable


def test_what_a_field_allows_may_differ() -> None:
    check_fields(Topic("orders", key="customer", fields={"customer": string, "shop": field(int64, minimum=0)}), DERIVED)


# --- source cuts ---


def derived_batch(rows: Sequence[tuple[int, Partition, int]]) -> pa.RecordBatch:
    """(offset, source partition, offset there) each."""
    plain = batch([(offset, 1, OK) for offset, _, _ in rows])
    source = [
        pa.array([one.incarnation for _, one, _ in rows], pa.int32()),
        pa.array([one.index for _, one, _ in rows], pa.int32()),
        pa.array([at for _, _, at in rows], pa.int64()),
    ]
    schema = pa.schema([*plain.schema, *SOURCE_COLUMNS])
    return pa.RecordBatch.from_arrays([*plain.columns, *source], schema=schema)


def test_a_source_cut_is_behind_the_newest_row_of_each_source_partition() -> None:
    start = SourceCut(of="orders")
    folded = start.after(derived_batch([(0, ONE, 5), (1, TWO, 2), (2, ONE, 9)]))
    assert folded == SourceCut(of="orders", applied=3, cut=Cut.of({ONE: 10, TWO: 3}))
    further = folded.after(derived_batch([(4, TWO, 3)]))
    assert further == SourceCut(of="orders", applied=5, cut=Cut.of({ONE: 10, TWO: 4}))
    assert start.after(derived_batch([])) is start


def test_incarnations_of_a_source_are_partitions_of_their_own() -> None:
    other = Partition("orders", 2, 0)
    folded = SourceCut(of="orders").after(derived_batch([(0, ONE, 5), (1, other, 1)]))
    assert folded.cut == Cut.of({ONE: 6, other: 2})


@pytest.mark.parametrize("rows", [[(3, ONE, 5)], [(3, ONE, 9), (4, ONE, 9)], [(3, ONE, 9), (4, ONE, 8)]])
def test_a_source_offset_that_does_not_rise_is_refused(rows: list[tuple[int, Partition, int]]) -> None:
    begun = SourceCut(of="orders").after(derived_batch([(0, TWO, 50), (1, ONE, 5)]))
    with pytest.raises(LogError) as raised:
        begun.after(derived_batch(rows))
    assert raised.value.code == "HR-0367"


def test_who_has_applied_up_to_the_end_has_applied_what_was_committed_before() -> None:
    folded = SourceCut(of="orders").after(derived_batch([(0, ONE, 5), (1, TWO, 2)]))
    proof = Passed(at=Instant(7), cut=Cut.of({ONE: 40, TWO: 1}), ends={0: 2, 1: 100})
    assert folded.proven(proof, 0).cut == Cut.of({ONE: 40, TWO: 3}), "never below what was applied"
    assert folded.proven(proof, 1) == folded, "its end was not reached"
    assert folded.proven(proof, 2) == folded, "a partition that came later"
    further = Passed(at=Instant(7), cut=Cut.of({ONE: 40}), ends={0: 3})
    assert folded.proven(further, 0) == folded
    assert folded.through(1).proven(further, 0) == folded, "it is never less far than its rows"
    assert folded.through(3).proven(further, 0) == SourceCut(of="orders", applied=3, cut=Cut.of({ONE: 40, TWO: 3}))


def test_the_highest_of_cuts_is_taken_partition_by_partition() -> None:
    assert highest([Cut.of({ONE: 3, TWO: 1}), Cut.of({ONE: 2, TWO: 4})]) == Cut.of({ONE: 3, TWO: 4})
    assert highest([]) == Cut()


@pytest.mark.parametrize("seed", range(20))
def test_a_source_cut_says_which_rows_of_its_keys_were_applied(seed: int) -> None:
    """Whatever the sizes of transactions and the order in which writers take turns."""
    random = np.random.default_rng(seed)
    sources = {one: [(int(at), int(random.integers(9)), OK) for at in np.flatnonzero(random.random(60) < 0.7)]
               for one in (ONE, TWO)}  # fmt: skip
    log: dict[int, list[tuple[int, Partition, int]]] = {0: [], 1: [], 2: []}
    left = dict(sources)
    while any(left.values()):
        one = [each for each in left if left[each]][int(random.integers(sum(bool(rows) for rows in left.values())))]
        count = int(random.integers(1, 8))
        for append in outputs(batch(left[one][:count]), source=one, derived=DERIVED, incarnation=1).appends:
            held = log[append.partition.index]
            held += [(len(held) + n, one, at) for n, at in enumerate(inherited(append).offsets.tolist())]
        left[one] = left[one][count:]
    for index, rows in log.items():
        applied = int(random.integers(len(rows) + 1))
        folded = SourceCut(of="orders").after(derived_batch(rows[:applied]))
        for one, given in sources.items():
            below = [at for at, shop, _ in given if partition_of(shop or 0, 3) == index and at < folded.cut[one]]
            assert below == [at for _, each, at in rows[:applied] if each == one]
