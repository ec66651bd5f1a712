"""The join of origins with label events and late truths: a function of both sets, whatever the order of arrival."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.core.codec import rows_to_batch
from headrace.core.errors import DefinitionError
from headrace.features.define import Label
from headrace.features.facts import (
    FROM_THE_BEGINNING,
    FactJoin,
    FactReader,
    FactRule,
    OriginFacts,
    Physical,
    Update,
    merged,
    updates,
)
from headrace.log.port import SYSTEM_COLUMNS, TAKEN, Verdict

WITHIN = 10
D = 7


def rule(*, within: int | None = WITHIN, value: bool = False, after: int = D) -> FactRule:
    return FactRule(
        name="bad",
        origin="plans",
        topic="bads",
        on="id",
        value=hr.Topic("bads", key="id", fields={"id": hr.int64, "v": hr.int64})["v"] if value else None,
        within=within,
        after=after,
    )


LABEL, VALUED, LATE = rule(), rule(value=True), rule(within=None, value=True)


def known(breakpoints: Sequence[tuple[int, Physical]], t: int) -> tuple[bool, Physical]:
    """(whether anything is known, what) at t."""
    found: tuple[bool, Physical] = (False, None)
    for known_from, value in breakpoints:
        if known_from <= t:
            found = (True, value)
    return found


def test_a_boolean_label_is_true_from_its_earliest_event_in_the_window() -> None:
    join = FactJoin(LABEL)
    for offset, at in enumerate((120, 108, 103, 99)):
        join.fact(1, at, (0, 0, offset))
    assert join.breakpoints(1, 100) == [(103, True)]
    assert join.breakpoints(1, 99) == [(99, True)]
    assert join.breakpoints(1, 109) == []  # 120 is one after 109 + 10
    assert join.breakpoints(1, 110) == [(120, True)]  # both ends belong
    assert join.breakpoints(2, 100) == []


def test_a_label_with_a_value_follows_its_last_event_by_order_key() -> None:
    join = FactJoin(VALUED)
    join.fact(1, 105, (7, 0, 3), 50)
    join.fact(1, 105, (9, 0, 1), 90)  # the same instant, a higher id: it stands, though its offset is lower
    join.fact(1, 103, (8, 0, 9), 30)
    join.fact(1, 111, (1, 0, 0), 99)  # beyond e + within
    assert join.breakpoints(1, 100) == [(103, 30), (105, 90)]


def test_a_reversal_to_null_is_known_and_null() -> None:
    join = FactJoin(VALUED)
    join.fact(1, 101, (0, 0, 0), 5)
    join.fact(1, 102, (0, 0, 1), None)
    assert join.breakpoints(1, 100) == [(101, 5), (102, None)]


def test_neighbours_that_are_equal_are_one_breakpoint() -> None:
    join = FactJoin(VALUED)
    join.fact(1, 101, (0, 0, 0), 5)
    join.fact(1, 104, (0, 0, 1), 5)
    assert join.breakpoints(1, 100) == [(101, 5)]


def test_the_same_event_twice_is_one_fact() -> None:
    join = FactJoin(LABEL)
    assert join.fact(1, 101, (0, 0, 0)) is True
    assert join.fact(1, 101, (0, 0, 0)) is False
    assert len(join) == 1


def test_an_imported_truth_is_known_from_e_plus_d() -> None:
    assert FactJoin(LATE).breakpoints(1, 100, 5) == [(107, 5)]
    assert FactJoin(LATE).breakpoints(1, 100) == []


def test_a_live_truth_is_known_from_its_own_event_time() -> None:
    join = FactJoin(LATE)
    join.fact(1, 103, (0, 0, 0), 8)
    assert join.breakpoints(1, 100) == [(103, 8)]
    join.fact(1, 102, (0, 0, 1), 6)
    assert join.breakpoints(1, 100) == [(102, 6), (103, 8)]


def test_a_live_truth_stands_above_the_imported_one_but_for_one_from_before_its_origin() -> None:
    join = FactJoin(LATE)
    join.fact(1, 103, (0, 0, 0), 8)
    assert join.breakpoints(1, 100, 5) == [(103, 8)]
    assert join.breakpoints(1, 103, 5) == [(103, 8)]  # the same instant: the live one
    assert join.breakpoints(1, 104, 5) == [(103, 8), (111, 5)]
    join.fact(1, 120, (0, 0, 1), 9)
    assert join.breakpoints(1, 104, 5) == [(103, 8), (111, 5), (120, 9)]


def naive_label(facts: Sequence[tuple[int, int, int, int]], e: int, t: int, valued: bool) -> tuple[bool, Physical]:
    """SEMANTICS 4.2 as it reads: facts are (event_time, id, offset, value)."""
    inside = [f for f in facts if e <= f[0] <= min(e + WITHIN, t)]
    if not inside:
        return False, None
    return True, (max(inside)[3] if valued else True)


def naive_late(
    facts: Sequence[tuple[int, int, int, int]], e: int, t: int, imported: int | None
) -> tuple[bool, Physical]:
    """SEMANTICS 4.1 as it reads, the D test of live truths left to the window."""
    truths: list[tuple[tuple[int, ...], int]] = [(f[:3], f[3]) for f in facts if f[0] <= t]
    if imported is not None and e + D <= t:
        truths.append(((e, -1, -1), imported))
    return (True, max(truths)[1]) if truths else (False, None)


FACTS = st.lists(
    st.tuples(st.integers(95, 125), st.integers(0, 3), st.integers(0, 50), st.integers(0, 3)),
    max_size=6,
    unique_by=lambda f: f[2],
)


@given(FACTS, st.integers(98, 110), st.permutations(range(6)), st.none() | st.integers(0, 3))
def test_breakpoints_say_what_the_rules_say_in_any_order(
    facts: list[tuple[int, int, int, int]], e: int, order: list[int], imported: int | None
) -> None:
    joins = [FactJoin(LABEL), FactJoin(VALUED), FactJoin(LATE)]
    for place in order:
        if place < len(facts):
            time, id, offset, value = facts[place]
            for join in joins:
                join.fact(1, time, (id, 0, offset), value)
    label, valued, late = (
        joins[0].breakpoints(1, e),
        joins[1].breakpoints(1, e),
        joins[2].breakpoints(1, e, imported),
    )
    for breakpoints in (label, valued, late):
        assert all(a[0] < b[0] and a[1] != b[1] for a, b in itertools.pairwise(breakpoints))
    for t in range(e, 130):
        assert known(label, t) == naive_label(facts, e, t, False)
        assert known(valued, t) == naive_label(facts, e, t, True)
        assert known(late, t) == naive_late(facts, e, t, imported)


def test_steps_of_several_names_merge() -> None:
    assert merged({"a": [(1, True), (5, False)], "b": [(3, 7), (5, 8)]}) == [
        (1, {"a": True}),
        (3, {"a": True, "b": 7}),
        (5, {"a": False, "b": 8}),
    ]
    assert merged({"a": [], "b": []}) == []


def test_origin_facts_say_what_is_known_at_an_instant() -> None:
    label, late = FactJoin(LABEL), FactJoin(rule(within=None, value=True, after=2))
    facts = OriginFacts([label, FactJoin(FactRule(**{**fields(late.rule), "name": "truth"}))])
    label.fact(1, 100, (0, 0, 0))
    assert facts.known(1, 100, 100, {}) == {"bad": True}
    assert facts.known(1, 100, 100, {"truth": 4}) == {"bad": True}
    assert facts.known(1, 100, 102, {"truth": 4}) == {"bad": True, "truth": 4}
    assert facts.known(1, 101, 102, {}) == {}
    assert 1 in facts
    assert 2 not in facts
    assert facts.ids() == {1}


def fields(one: FactRule) -> dict[str, object]:
    return {name: getattr(one, name) for name in FactRule.__slots__}


def test_a_forgotten_label_event_is_one_that_no_retained_origin_can_have() -> None:
    join = FactJoin(LABEL)
    for offset, (origin, at) in enumerate(((1, 100), (2, 101), (3, 102), (3, 99))):
        join.fact(origin, at, (0, 0, offset))
    join.forget(100, [])
    assert sorted(f[0] for _, f in join.facts()) == [101, 102]
    assert set(join.ids()) == {2, 3}


def test_a_truth_whose_origin_never_came_is_kept() -> None:
    join = FactJoin(LATE)
    join.fact(1, 90, (0, 0, 0), 5)
    join.fact(2, 90, (0, 0, 1), 6)
    join.forget(100, [1])
    assert set(join.ids()) == {2}


def evaluate(known: dict[str, Physical]) -> tuple[int, list[int]]:
    """Two columns: the label as 0/1, always there; an amount of 40 where the label is true."""
    bad = known.get("bad", False)
    return (0b11, [1, 40]) if bad else (0b01, [0, 0])


BASE = (0b01, [0, 0])


def test_updates_carry_each_change_once() -> None:
    steps = [(3, {"bad": True}), (4, {"bad": True, "other": 1}), (9, {"bad": False})]
    told = [Update(0, 3, 1, True, False), Update(0, 9, 0, True, False)]
    paid = [Update(1, 3, 40, True, False), Update(1, 9, 0, False, False)]
    assert updates((0, 1), BASE, [], steps, evaluate) == [*told, *paid]
    assert updates((1,), BASE, [], steps, evaluate) == paid
    assert updates((0, 1), BASE, steps[:1], steps, evaluate) == [told[1], paid[1]]
    assert updates((0, 1), BASE, steps, steps, evaluate) == []


def test_updates_tell_a_column_anew_where_its_past_changed() -> None:
    before, after = [(5, {"bad": True})], [(3, {"bad": True})]
    assert updates((0,), BASE, before, after, evaluate) == [
        Update(0, FROM_THE_BEGINNING, 0, True, True),
        Update(0, 3, 1, True, False),
    ]
    assert updates((1,), BASE, before, [(5, {"bad": False})], evaluate) == [
        Update(1, FROM_THE_BEGINNING, 0, False, True),
    ]


def test_rules_of_definitions() -> None:
    plans = hr.Topic(
        "plans",
        key="id",
        id="id",
        fields={"id": hr.int64, "fraud": hr.field(hr.boolean, available_after="7d")},
    )
    bads = hr.Topic("bads", key="id", fields={"id": hr.int64, "v": hr.int64})
    label = FactRule.of_label(Label("bad", of=plans, source=bads, on="id", within="30d", grace="3d", value=bads["v"]))
    assert (label.origin, label.topic, label.on, label.within) == ("plans", "bads", "id", 30 * 86_400_000_000)
    late = FactRule.of_late(plans, "fraud")
    assert (late.name, late.topic, late.on, late.after) == ("fraud", "plans.fraud", "id", 7 * 86_400_000_000)


def test_a_reader_finds_the_facts_that_count_in_a_batch_and_in_rows() -> None:
    bads = hr.Topic("bads", key="id", id="nr", fields={"nr": hr.int64, "id": hr.int64, "v": hr.int64})
    reader = FactReader(FactRule(**{**fields(VALUED), "value": -bads["v"]}), bads)
    rows = [(1, 10, 5), (2, None, 6), (3, 30, 7), (4, 40, None)]
    verdicts = [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.LATE, Verdict.RESTAMPED]
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([100, 101, 102, 103]),
            *[pa.array([7, 8, 9, 10], f.type) for f in SYSTEM_COLUMNS[1:3]],
            pa.array(verdicts, pa.uint8()),
            *rows_to_batch(bads.schema, rows).columns,
        ],
        names=[*(f.name for f in SYSTEM_COLUMNS), "nr", "id", "v"],
    )
    assert list(reader.batch(2, batch)) == [(10, 7, (1, 2, 100), -5), (40, 10, (4, 2, 103), None)]
    assert (30, 9, (3, 2, 102), -7) in list(reader.batch(2, batch, (*TAKEN, Verdict.LATE)))
    assert reader.row(2, 100, rows[0]) == (10, (1, 2, 100), -5)
    assert reader.row(2, 101, rows[1]) is None


def test_a_reader_refuses_a_topic_without_its_fields() -> None:
    with pytest.raises(DefinitionError, match="HR-0106"):
        FactReader(LABEL, hr.Topic("bads", key="nr", fields={"nr": hr.int64}))


@pytest.mark.parametrize("ids", [(1, 2), ("a", "b")])
def test_ids_may_be_numbers_or_texts(ids: tuple[int | str, int | str]) -> None:
    join = FactJoin(VALUED)
    join.fact(ids[0], 105, (ids[1], 0, 3), 50)
    join.fact(ids[0], 105, (ids[0], 0, 4), 60)
    assert join.breakpoints(ids[0], 100) == [(105, 50)]
