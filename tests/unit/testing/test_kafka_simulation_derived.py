"""Re-keyers in the simulated log: lives that have them, and a judge of derived topics that sees what is wrong."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable

import pytest

from headrace.clients.kafka.port import Record
from headrace.core.codec import partition_of as placed
from headrace.testing.kafka_simulation import Life
from headrace.testing.kafka_simulation_derived import CutTold, judge_derived, partition_of

SEEDS = range(7_100, 7_124)
_SAID = struct.Struct(">qqBiiq")

Logs = dict[int, list[Record]]


def test_lives_with_rekeyers_hold_and_their_crashes_are_everywhere() -> None:
    counted, points = Counter[str](), Counter[tuple[str, str]]()
    for seed in SEEDS:
        life = Life(seed)
        if life.carries:
            outcome = life.run()
            assert outcome.violations == [], f"seed {seed}"
            counted += outcome.counted
            points += outcome.crashed
    for name in ("derived", "transactions", "aborts", "re-keyers", "re-keyers fenced", "cuts_told"):
        assert counted[name] > 0, name
    assert len({call for call, doing in points if doing.startswith("carrier")}) >= 4, points


# --- the judge ---


@pytest.fixture(scope="module")
def lived() -> Life:
    """A run that held, with rows of both source partitions and some that are not carried over."""
    for seed in SEEDS:
        life = Life(seed)
        if life.carries and life.run().violations == []:
            derived, left_out = life.counted["derived"], life.counted["not_derived"]
            if derived >= 10 and left_out and len(life.committed()) == 2:
                return life
    raise AssertionError("no such seed")


def logs_of(life: Life, name: str) -> Logs:
    return {index: held.committed() for index, held in enumerate(life.model.topics[name].partitions)}


def judged(life: Life, derived: Logs, committed: dict[int, int], *told: CutTold) -> list[str]:
    found = judge_derived(logs_of(life, "events"), derived, committed, told, id="event_id", key="shop")
    return found.violations


def filled(derived: Logs) -> int:
    """A partition with at least two records of one source partition."""
    return max(derived, key=lambda index: len(derived[index]))


def resaid(record: Record, **changed: int) -> Record:
    names = ("available_at", "event_time", "verdict", "incarnation", "partition", "offset")
    said = dict(zip(names, _SAID.unpack(dict(record.headers)["headrace-source"]), strict=True)) | changed
    return record._replace(headers=(("headrace-source", _SAID.pack(*said.values())),))


def lost(derived: Logs) -> None:
    del derived[filled(derived)][0]


def twice(derived: Logs) -> None:
    records = derived[filled(derived)]
    records.append(records[-1]._replace(offset=records[-1].offset + 1))


def out_of_order(derived: Logs) -> None:
    derived[filled(derived)].reverse()


def elsewhere(derived: Logs) -> None:
    index = filled(derived)
    derived[(index + 1) % len(derived)].append(derived[index].pop()._replace(offset=10_000))


def other_values(derived: Logs) -> None:
    records = derived[filled(derived)]
    fields = json.loads(records[0].value or b"")
    records[0] = records[0]._replace(value=json.dumps({**fields, "amount": -1}).encode())


def other_key(derived: Logs) -> None:
    records = derived[filled(derived)]
    records[0] = records[0]._replace(key=b"\0" * 8)


def other_time(derived: Logs) -> None:
    records = derived[filled(derived)]
    records[0] = resaid(records[0], available_at=1)


def without_header(derived: Logs) -> None:
    records = derived[filled(derived)]
    records[0] = records[0]._replace(headers=())


def of_nothing(derived: Logs) -> None:
    records = derived[filled(derived)]
    records.append(resaid(records[-1], offset=9_999)._replace(offset=10_000))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lost, "is not derived"),
        (twice, "already"),
        (out_of_order, "comes behind"),
        (elsewhere, "partition"),
        (other_values, "values"),
        (other_key, "key"),
        (other_time, "available_at"),
        (without_header, "does not say of which event"),
        (of_nothing, "not to be carried over"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_judge_sees_it(lived: Life, change: Callable[[Logs], None], said: str) -> None:
    derived, committed = logs_of(lived, "events_by_shop"), lived.committed()
    assert judged(lived, derived, committed) == []
    change(derived)
    assert any(said in one for one in judged(lived, derived, committed))


def test_the_judge_holds_committed_offsets_against_what_was_made(lived: Life) -> None:
    derived, committed = logs_of(lived, "events_by_shop"), lived.committed()
    said = judged(lived, derived, {0: 0, 1: 0})
    assert len(said) == sum(map(len, derived.values())) and all("not below the committed" in one for one in said)
    newest = max(_source(one) for records in derived.values() for one in records)
    before = {index: [one for one in records if _source(one) != newest] for index, records in derived.items()}
    behind = committed | {newest[0]: newest[1]}
    assert judged(lived, before, behind) == [], "what is not committed is not carried yet"
    (lacking,) = judged(lived, before, committed)
    assert "is not derived" in lacking


def _source(record: Record) -> tuple[int, int]:
    said = _SAID.unpack(dict(record.headers)["headrace-source"])
    return said[4], said[5]


def test_the_judge_sees_a_cut_of_which_the_reader_had_not_all(lived: Life) -> None:
    derived, committed = logs_of(lived, "events_by_shop"), lived.committed()
    index = filled(derived)
    last = derived[index][-1]
    right = CutTold(index=index, end=last.offset + 1, cut=committed)
    assert judged(lived, derived, committed, right) == []
    early = CutTold(index=index, end=last.offset, cut=committed)
    (said,) = judged(lived, derived, committed, early)
    assert "without" in said and str(_source(last)) in said


@pytest.mark.parametrize("number", [0, 1, -1, 7, 12_345, 2**40, -(2**62)])
def test_the_judge_places_keys_as_the_law_says(number: int) -> None:
    assert all(partition_of(number, count) == placed(number, count) for count in (1, 2, 3, 7))
