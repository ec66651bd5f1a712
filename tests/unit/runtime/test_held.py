"""Views over derived topics, held by partition: what a decision saw of them is in its record, and replays."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from headrace.core.codec import partition_of
from headrace.core.errors import HeadraceError, InputError, StateError
from headrace.core.points import Cut, Partition
from headrace.decisions.define import Outcome
from headrace.log.port import Append
from headrace.runtime.holders import Holders
from headrace.runtime.holding import PartAnswer, PartQuestion
from headrace.runtime.routed import HeldReads
from tests.unit.runtime.held import PARTITIONS, Fleet, Others, Process, merchant_in


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def holds(fleet: Fleet) -> None:
    report, records = fleet.replayed(), fleet.records()
    assert (report.compared, report.mismatched, report.differences) == (len(records), 0, ())


@pytest.mark.parametrize("seed", range(3))
def test_what_one_process_decided_replays_to_the_same_bits(fleet: Fleet, seed: int) -> None:
    draw = random.Random(seed)
    process = Process(fleet)
    for number in range(40):
        many = [
            fleet.request(merchant=draw.choice([None, 1, 1, 2, 5]), customer=draw.randrange(9))
            for _ in range(draw.choice([1, 1, 4]))
        ]
        assert all(not isinstance(one, HeadraceError) for one in process.decider.decide_many(many))
        if number % 3 == 1:
            fleet.carry(*draw.choice([(0,), (1,), (0, 1)]), rows_max=draw.choice([2, 100]))
    records = fleet.records()
    counts = [record.answers[0][0][1] for record in records]
    assert max(counts) > 8 and {record.outcome for record in records} >= {Outcome.APPROVE, Outcome.DECLINE}  # type: ignore[type-var]  # counts
    for record in records:
        cut = record.points[0].cut
        merchant = record.points[0].absent
        assert merchant is None and len(dict(cut)) <= 1, "of its own partition alone"
    assert {
        dict(r.points[0].cut).get(Partition("by_merchant", 1, i)) is not None for r in records for i in range(3)
    } == {True, False}
    holds(fleet)


def test_a_request_that_was_left_undecided_is_decided_at_the_cut_of_who_holds_the_view(fleet: Fleet) -> None:
    """Its copy lies below the cut by then, and is not counted twice."""
    first = Process(fleet)
    for _ in range(5):
        first.decides()
    request = fleet.request()
    validated = first.decider._validate(request)
    place = Partition("applications", 1, partition_of(3, 2))
    first.log.append([Append(partition=place, rows=[validated], request=True)], atomic=False)
    fleet.carry()
    second = Process(fleet)
    made = second.decider.decide(request)
    (record,) = [one for one in fleet.records() if one.decision_id == made.decision_id]
    assert record.answers[0][0][1] == 6 and record.points[0].cut != Cut()
    fleet.cluster.clock.advance("30m")
    other = fleet.request()
    second.log.append([Append(partition=place, rows=[second.decider._validate(other)], request=True)], atomic=False)
    for _ in range(3):
        fleet.cluster.clock.advance("10m")
        second.decides()
        fleet.carry()
    later = Process(fleet)
    made = later.decider.decide(other)
    (record,) = [one for one in fleet.records() if one.decision_id == made.decision_id]
    assert record.points[0].absent is None, "asked by replay, long after"
    holds(fleet)


def test_each_process_holds_what_it_is_given_and_asks_the_others_once_a_turn(fleet: Fleet) -> None:
    here, there = Process(fleet, holds=[0]), Process(fleet, holds=[1, 2], owns=())
    assert {index for process in (here, there) for index in process.holding.held("by_merchant")} == {0, 1, 2}
    assert here.holding.held("by_merchant") == {0}
    others = here.holding.elsewhere = Others({"there": there}, {1: "there", 2: "there"})
    merchants = [merchant_in(index) for index in range(PARTITIONS)]
    for _ in range(4):
        made = here.decider.decide_many([fleet.request(merchant=merchant) for merchant in [*merchants, None]])
        assert all(not isinstance(one, HeadraceError) for one in made)
        fleet.carry()
    assert others.asked == [("there", 2)] * 4
    assert all(point.absent is None for record in fleet.records() for point in record.points)
    holds(fleet)


def test_what_nobody_answers_is_missing_with_its_reason(fleet: Fleet) -> None:
    here, there = Process(fleet, holds=[]), Process(fleet, owns=())
    assert here.decides().points[0].absent == "owner_away", "nobody else is known"
    others = here.holding.elsewhere = Others({"there": there}, {})
    assert here.decides().points[0].absent == "owner_away", "the group says nobody"
    others.holders = dict.fromkeys(range(PARTITIONS), "there")
    assert here.decides().points[0].absent is None
    others.answer = lambda process, questions: Future()
    record = here.decides()
    assert (record.points[0].absent, record.outcome) == ("timeout", Outcome.REVIEW)

    def gone(process: Process, questions: Sequence[PartQuestion]) -> Future[Sequence[PartAnswer]]:
        made: Future[Sequence[PartAnswer]] = Future()
        made.set_exception(ConnectionRefusedError())
        return made

    others.answer = gone
    assert here.decides().points[0].absent == "owner_away"
    others.answer = others._at_once
    there.mean("m2")
    there.holding.settle()
    there.holding.look()
    assert here.decides().points[0].absent is None, "by the definitions of before, for a while"
    fleet.carry()
    fresh = Process(fleet, owns=(), fingerprint="m2")
    others.who["there"] = fresh
    assert here.decides().points[0].absent == "other_version"
    holds(fleet)


def test_who_is_behind_what_was_recorded_is_not_believed(fleet: Fleet) -> None:
    here, there, behind = Process(fleet, holds=[]), Process(fleet, owns=()), Process(fleet, owns=())
    here.holding.elsewhere = others = Others({"there": there, "behind": behind}, dict.fromkeys(range(3), "there"))
    for part in behind.holding._all():
        part._catch_up = lambda: False  # type: ignore[method-assign]  # it sleeps
    for _ in range(3):
        here.decides()
    fleet.carry()
    there.holding.look()
    record = here.decides()
    assert record.points[0].absent is None and record.answers[0][0][1] == 4
    others.holders = dict.fromkeys(range(3), "behind")
    record = here.decides()
    assert record.points[0].absent == "stale_owner" and record.outcome is Outcome.REVIEW
    others.holders = dict.fromkeys(range(3), "there")
    assert here.decides().points[0].absent is None
    holds(fleet)


def test_a_view_is_as_stale_as_its_re_keyers_are_behind() -> None:
    fleet = Fleet(max_staleness="5s")
    process = Process(fleet)
    record = process.decides()
    assert record.points[0].absent is None, "nothing had come to the source before"
    for _ in range(12):
        fleet.carry()
        process.holding.look()
        record = process.decides()
        assert record.points[0].absent is None and record.points[0].staleness.micros <= 2_000_000
    for _ in range(12):
        process.holding.look()
        record = process.decides()
    assert record.points[0].absent == "stale"
    assert record.points[0].staleness.micros == 13 * 700_000, "since the look at which all was carried over"
    for _ in range(3):
        fleet.carry()
        process.holding.look()
    assert process.decides().points[0].absent is None
    holds(fleet)


def test_parts_come_and_go_with_what_is_wanted(fleet: Fleet) -> None:
    process = Process(fleet, holds=[0, 1])
    assert process.holding.held("by_merchant") == {0, 1}
    process.wanted = frozenset([1, 2])
    process.holding.settle()
    process.holding.look()
    assert process.holding.held("by_merchant") == {1, 2}


@pytest.mark.parametrize(
    "change",
    [
        {"row": ("x",)},
        {"row": ("r1", 3, 1, "web", 5, 0.5, "now")},
        {"row": ("r1", 3, None, "web", 5, 0.5, 1)},
        {"row": ("r1", 3, True, "web", 5, 0.5, 1)},
        {"row": ("r1", 3, 1, "web", 2**63, 0.5, 1)},
        {"row": None, "entity": "1"},
        {"row": None, "entity": (1, 2)},
        {"row": None, "entity": None},
        {"offset": -1},
        {"source": 1 << 16},
        {"t": 1 << 62},
    ],
)
def test_a_question_that_does_not_fit_its_view_is_refused(fleet: Fleet, change: dict[str, object]) -> None:
    process = Process(fleet, owns=())
    said = {
        "topic": "by_merchant",
        "index": 0,
        "view": "merchant",
        "fingerprint": "m1",
        "t": fleet.cluster.clock.now(),
        "row": ("r1", 3, 1, None, 5, 0.5, 1),
    }
    (answer,) = process.holding.answer([PartQuestion(**said)])  # type: ignore[arg-type]  # fits
    assert answer.absent is None
    with pytest.raises(InputError) as caught:
        process.holding.answer([PartQuestion(**{**said, **change})])  # type: ignore[arg-type]  # does not
    assert caught.value.code == "HR-1006"


def test_plain_reads_ask_whoever_holds_the_entity(fleet: Fleet) -> None:
    here, there = Process(fleet, holds=[0]), Process(fleet, holds=[1, 2], owns=())
    here.holding.elsewhere = others = Others({"there": there}, {1: "there"})
    merchants = [merchant_in(index) for index in range(PARTITIONS)]
    for number in range(6):
        here.decides(merchant=merchants[number % 2])
    fleet.carry()
    reads = HeldReads(
        here.holding,
        fleet.compile(["merchant"]),
        fingerprints={"merchant": "m1"},
        partitions=lambda topic: PARTITIONS,
        clock=fleet.cluster.clock,
    )
    assert "merchant" in reads and "customer" not in reads
    at, cut, answers = reads.read("merchant", merchants[:2])
    assert at == fleet.cluster.clock.now() and {p.index for p, _ in cut} == {0, 1}
    assert [values[1] for values, _ in answers] == [3, 3]
    assert others.asked[-1] == ("there", 1)
    for merchant, why in ((merchants[2], "owner_away"), (merchants[1], "timeout")):
        others.answer = lambda process, questions: Future()
        with pytest.raises(StateError) as caught:
            reads.read("merchant", [merchant], within=0.01)
        assert caught.value.code == "HR-0552" and why in str(caught.value)


def test_who_holds_what_is_said_in_the_log(fleet: Fleet) -> None:
    holds = {"a": {"by_merchant": frozenset([0, 1])}, "b": {"by_merchant": frozenset([2])}}
    a, b = (Holders(fleet.cluster.log(), name, lambda name=name: holds[name]) for name in "ab")
    assert a.holder("by_merchant", 0) is None

    def look() -> None:
        for _ in range(2):
            a.look()
            b.look()

    look()
    assert [a.holder("by_merchant", index) for index in range(4)] == [None, None, "b", None]
    assert [b.holder("by_merchant", index) for index in range(4)] == ["a", "a", None, None]
    holds["a"], holds["b"] = {"by_merchant": frozenset([0])}, {"by_merchant": frozenset([1, 2])}
    look()
    assert [a.holder("by_merchant", index) for index in range(3)] == [None, "b", "b"]
    fresh = Holders(fleet.cluster.log(), "c", lambda: {})
    fresh.look()
    assert [fresh.holder("by_merchant", index) for index in range(3)] == ["a", "b", "b"]
