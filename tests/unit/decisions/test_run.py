"""Deciding: one commit, one answer an id, and nothing that a replay from the log would not find again."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.core.errors import ConflictError, LogError, SchemaError
from headrace.core.points import Cut
from headrace.core.times import Duration
from headrace.decisions.define import Outcome
from headrace.decisions.plan import Ruling, Version
from headrace.decisions.record import Flag, from_row, to_row
from headrace.decisions.run import OVERTAKEN_MAX, Decider
from headrace.log.port import Append, Appended
from headrace.log.sqlite import SqliteLog
from headrace.models.artifact import Artifact
from headrace.schemas.validate import validator
from headrace.testing.clocks import ManualClock
from tests.needs import requires
from tests.unit.decisions.shop import MINUTE, START, Open, Shop, instant

requires("xgboost")


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Shop().artifact()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(instant(0))


@pytest.fixture
def opened(tmp_path: Path, clock: ManualClock, artifact: Artifact) -> Iterator[Open]:
    shop = Open(Shop(), tmp_path, clock, artifact)
    yield shop
    shop.close()


def decide_some(opened: Open, count: int, first: int = 0) -> list[object]:
    made = []
    for number in range(first, first + count):
        opened.clock.advance("47s")
        made.append(opened.decider.decide(opened.shop.order(number, opened.clock.now())))
        if number % 4 == 3:
            opened.produce(opened.shop.returns, {"order": f"o-{number - 2}"})
        if number % 9 == 5:  # another producer, past the decider, in the request's own topic
            opened.produce(opened.shop.orders, opened.shop.order(10_000 + number, opened.clock.now()))
    return made


def test_what_was_decided_replays_to_the_same_bits(opened: Open) -> None:
    made = decide_some(opened, 60)
    records = opened.records()
    assert [r.decision_id for r in records] == [m.decision_id for m in made]
    assert [r.outcome for r in records] == [m.outcome for m in made]
    assert len({r.score for r in records}) > 5 and {r.outcome for r in records} > {Outcome.APPROVE}
    report = opened.replay()
    assert (report.compared, report.mismatched, report.differences) == (60, 0, ())


def test_a_record_holds_the_points(opened: Open) -> None:
    decide_some(opened, 12)
    record = opened.records()[-1]
    request = opened.partitions["orders"][0]
    assert record.points[0].cut == Cut.of({request: record.offset})
    assert record.points[1].cut[opened.partitions["returns"][0]] == 2
    assert record.points[0].staleness <= Duration.parse("50ms")
    assert to_row(from_row(to_row(record), "orders")) == to_row(record)


def test_request_and_record_are_one_commit(opened: Open) -> None:
    calls: list[int] = []

    class Counting:
        def append(self, appends: list[Append]) -> tuple[Appended, ...]:
            calls.append(len(appends))
            return opened.log.append(appends)

        def __getattr__(self, name: str) -> object:
            return getattr(opened.log, name)

    opened.decider._log = Counting()
    decide_some(opened, 3)
    assert calls == [2, 2, 2]


def test_a_known_id_gets_the_recorded_answer(opened: Open, tmp_path: Path, artifact: Artifact) -> None:
    request = opened.shop.order(1, opened.clock.now())
    first = opened.decider.decide(request)
    opened.clock.advance("5m")
    again = opened.decider.decide(request)
    assert again == dataclasses.replace(first, repeated=True)
    assert len(opened.records()) == 1
    opened.close()
    reopened = Open(opened.shop, tmp_path, opened.clock, artifact)
    assert reopened.decider.decide(request) == dataclasses.replace(first, repeated=True)
    reopened.close()


def test_a_known_id_with_another_payload_is_a_conflict(opened: Open) -> None:
    opened.decider.decide(opened.shop.order(1, opened.clock.now()))
    with pytest.raises(ConflictError) as caught:
        opened.decider.decide(opened.shop.order(1, opened.clock.now(), note="other"))
    assert (caught.value.code, caught.value.facts["field"]) == ("HR-0710", "note")
    assert len(opened.records()) == 1


def test_an_id_older_than_dedup_is_a_new_request(opened: Open) -> None:
    opened.decider.decide(opened.shop.order(1, opened.clock.now()))
    opened.clock.advance("15d")
    made = opened.decider.decide(opened.shop.order(1, opened.clock.now()))
    assert not made.repeated and len(opened.records()) == 2


def test_a_request_in_the_log_undecided_is_decided_at_a_fresh_cut(opened: Open) -> None:
    """As after a crash between request and record on a log that commits them apart."""
    decide_some(opened, 6)
    request = opened.shop.order(77, opened.clock.now())
    opened.produce(opened.shop.orders, request)
    decide_some(opened, 6, first=20)
    made = opened.decider.decide(request)
    assert made.flags == (Flag.RETRIED,) and not made.repeated
    record = opened.records()[-1]
    request_partition = opened.partitions["orders"][0]
    assert record.points[0].cut[request_partition] > record.offset + 1
    # The request itself is counted once: it lies below the cut, and is the current one.
    alone = opened.records()[0]
    assert record.request_id == "o-77" and alone.request_id == "o-0"
    assert opened.decider.decide(request) == dataclasses.replace(made, repeated=True)
    assert opened.replay().mismatched == 0


def test_a_restart_decides_as_if_there_had_been_none(opened: Open, tmp_path: Path, artifact: Artifact) -> None:
    decide_some(opened, 10)
    opened.close()
    reopened = Open(opened.shop, tmp_path, opened.clock, artifact)
    decide_some(reopened, 10, first=10)
    assert len(reopened.records()) == 20
    assert reopened.replay().mismatched == 0
    reopened.close()


def test_a_clock_that_is_wrong_refuses_nothing(opened: Open) -> None:
    at = opened.clock.now()
    late = opened.decider.decide(opened.shop.order(1, at - 2 * MINUTE))
    early = opened.decider.decide(opened.shop.order(2, at + 2 * MINUTE))
    fine = opened.decider.decide(opened.shop.order(3, at + MINUTE))
    assert (late.t, late.flags) == (at, (Flag.RESTAMPED,))
    assert (early.t, early.flags) == (at, (Flag.RESTAMPED,))
    assert (fine.t, fine.flags) == (at + MINUTE, ())
    decide_some(opened, 5, first=10)
    assert opened.replay().mismatched == 0


def test_without_event_time_the_append_instant_is_t(tmp_path: Path, clock: ManualClock, artifact: Artifact) -> None:
    shop = Open(Shop(event_time=False), tmp_path, clock, artifact)
    made = decide_some(shop, 8)
    assert made[-1].t == clock.now()
    assert shop.replay().mismatched == 0
    shop.close()


def test_a_simulated_clock_decides_the_past(tmp_path: Path, clock: ManualClock, artifact: Artifact) -> None:
    shop = Open(Shop(clock="simulated"), tmp_path, clock, artifact)
    past = START - 400 * 24 * 60 * MINUTE
    for number in range(20):
        made = shop.decider.decide(shop.shop.order(number, past + number * 20_000_000))
        assert (made.t, made.flags) == (past + number * 20_000_000, ())
    behind = shop.decider.decide(shop.shop.order(50, past))
    assert (behind.t, behind.flags) == (past + 19 * 20_000_000, (Flag.RESTAMPED,))
    assert shop.replay().mismatched == 0
    shop.close()


def test_partitions_are_decided_each_by_itself(tmp_path: Path, clock: ManualClock, artifact: Artifact) -> None:
    shop = Open(Shop(partitions=3), tmp_path, clock, artifact)
    decide_some(shop, 40)
    assert len({record.request for record in shop.records()}) > 1
    report = shop.replay()
    assert (report.compared, report.mismatched, report.differences) == (40, 0, ())
    shop.close()


def test_who_is_overtaken_decides_again(opened: Open) -> None:
    """Between asking and appending another producer comes: the answer that is given counts its event."""

    class Overtaken:
        def __init__(self, log: SqliteLog, times: int) -> None:
            self._inner, self.left = log, times

        def append(self, appends: list[Append]) -> tuple[Appended, ...]:
            if self.left:
                self.left -= 1
                number = 500 + self.left
                opened.clock.advance("1ms")
                opened.produce(opened.shop.orders, opened.shop.order(number, opened.clock.now(), customer=1))
            return self._inner.append(appends)

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    opened.decider._log = Overtaken(opened.log, 2)
    opened.decider.decide(opened.shop.order(1, opened.clock.now() + 1_000_000, customer=1))
    (record,) = opened.records()
    assert record.offset == 2 and record.answers[0][0][0] == 3
    assert opened.replay().mismatched == 0
    opened.decider._log = Overtaken(opened.log, OVERTAKEN_MAX)
    with pytest.raises(LogError) as caught:
        opened.decider.decide(opened.shop.order(2, opened.clock.now()))
    assert (caught.value.code, caught.value.retryable) == ("HR-0714", True)
    assert len(opened.records()) == 1


def test_bad_input_is_refused_before_anything(opened: Open) -> None:
    for bad in ({"amount": "x"}, {"order": None}, {"unknown": 1}, {"at": "2026-01-01T00:00:00"}):
        with pytest.raises(SchemaError):
            opened.decider.decide({**opened.shop.order(1, opened.clock.now()), **bad})
    assert opened.records() == []


def test_threads_take_turns(opened: Open) -> None:
    def some(first: int) -> None:
        for number in range(first, first + 10):
            opened.decider.decide(opened.shop.order(number, opened.clock.now()))

    threads = [threading.Thread(target=some, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.offset for record in opened.records()) == list(range(30))
    assert opened.replay().mismatched == 0


def test_a_stale_view_is_missing(opened: Open) -> None:
    views = [dataclasses.replace(v, max_staleness=Duration(0)) for v in opened.version.views]
    stale = Version(opened.shop.decision, views, opened.version.scores)
    decider = Decider(
        opened.log,
        stale,
        features=opened.state,
        validate=validator(opened.shop.orders),
        recompute=opened.recompute,
        clock=opened.clock,
    )
    opened.clock.advance("20ms")  # less than LOOK_EVERY: the last look proves the cut
    made = decider.decide(opened.shop.order(1, opened.clock.now()))
    assert (made.outcome, made.reasons) == (Outcome.REVIEW, ("MISSING_DATA",))
    assert [p.absent for p in opened.records()[0].points] == ["stale", "stale"]
    assert opened.replay().mismatched == 0


def rescored(ruling: Ruling) -> Ruling:
    return dataclasses.replace(ruling, answer=dataclasses.replace(ruling.answer, scores=(("risk", 0.5),)))


def test_what_does_not_replay_is_found(opened: Open) -> None:
    decide_some(opened, 5)
    records = opened.records()
    values, reasons = records[2].answers[0]
    wrong_value = dataclasses.replace(
        records[2], answers=(((values[0] + 1, *values[1:]), reasons), records[2].answers[1])
    )
    wrong_score = dataclasses.replace(records[3], ruling=rescored(records[3].ruling))
    unknown = dataclasses.replace(records[4], versions="{}")
    tampered = [records[0], records[1], wrong_value, wrong_score, unknown]
    opened.records = lambda: tampered
    report = opened.replay()
    assert (report.compared, report.mismatched, report.unknown, report.equal) == (4, 2, 1, False)
    assert [d.what for d in report.differences] == ["customer.count_10m", "score"]
    assert report.differences[0].recomputed == f"{values[0]!r} VALUE"


def test_requests_that_share_a_commit_are_decided_as_if_alone(tmp_path: Path, artifact: Artifact) -> None:
    """A crowd of requests, with some that come twice, do not fit or conflict, in groups and one by one."""
    shops = []
    for name in ("together", "alone"):
        clock = ManualClock(instant(0))
        shops.append(Open(Shop(partitions=2), tmp_path / name, clock, artifact))
    together, alone = shops
    calls: list[int] = []

    class Counting:
        def append(self, appends: list[Append]) -> tuple[Appended, ...]:
            calls.append(sum(len(append.rows) for append in appends) // 2)
            return together.log.append(appends)

        def __getattr__(self, name: str) -> object:
            return getattr(together.log, name)

    together.decider._log = Counting()
    told: list[list[object]] = [[], []]
    for crowd in range(12):
        for shop in shops:
            shop.clock.advance("90s")
        at = together.clock.now()
        requests = [
            together.shop.order(number, at - number % 3 * 1_000, customer=number % 97, merchant=number % 89)
            for number in range(crowd * 20, crowd * 20 + 20)
        ]
        requests[5] = {**requests[5], "amount": "x"}
        requests[7] = requests[6]
        requests[9] = {**requests[8], "note": "other"}
        requests[11] = {**requests[11], "customer": requests[10]["customer"]}
        told[0] += together.decider.decide_many(requests)
        for request in requests:
            try:
                told[1].append(alone.decider.decide(request))
            except (SchemaError, ConflictError) as error:
                told[1].append(error)
    for grouped, single in zip(*told, strict=True):
        if isinstance(single, SchemaError | ConflictError):
            assert isinstance(grouped, type(single)) and grouped.code == single.code
        else:
            assert grouped == single
    # Their points differ in how long ago the log was last looked at; and so do their links.
    fields = [[dataclasses.replace(r, points=(), chain="") for r in shop.records()] for shop in shops]
    assert fields[0] == fields[1] and len(fields[0]) == 12 * 17
    assert max(calls) > 5 and len(calls) < len(fields[0]) / 3
    for shop in shops:
        report = shop.replay()
        assert (report.compared, report.mismatched, report.differences) == (12 * 17, 0, ())
        shop.close()


def test_a_group_that_is_overtaken_is_decided_again_whole(opened: Open) -> None:
    class Overtaken:
        left = 1

        def append(self, appends: list[Append]) -> tuple[Appended, ...]:
            if self.left:
                self.left -= 1
                opened.produce(opened.shop.orders, opened.shop.order(500, opened.clock.now(), customer=1))
            return opened.log.append(appends)

        def __getattr__(self, name: str) -> object:
            return getattr(opened.log, name)

    opened.decider._log = Overtaken()
    at = opened.clock.now()
    made = opened.decider.decide_many([opened.shop.order(n, at, customer=n, merchant=n) for n in range(4)])
    assert [one.decision_id.rsplit("/", 1)[1] for one in made] == ["1", "2", "3", "4"]
    assert next(r for r in opened.records() if r.request_id == "o-1").answers[0][0][0] == 2  # the other's event counts
    assert opened.replay().mismatched == 0


def test_a_retry_by_a_simulated_clock_is_known_years_later(
    tmp_path: Path, clock: ManualClock, artifact: Artifact
) -> None:
    """Whether an id is still known goes by the topic's clock, not by the wall's: before a restart and after it."""
    shop = Open(Shop(clock="simulated"), tmp_path, clock, artifact)
    past = START - 400 * 24 * 60 * MINUTE
    first = [shop.decider.decide(shop.shop.order(number, past + number * 20_000_000)) for number in range(5)]
    again = [shop.decider.decide(shop.shop.order(number, past + number * 20_000_000)) for number in range(5)]
    assert again == [dataclasses.replace(made, repeated=True) for made in first]
    shop.close()
    shop = Open(shop.shop, tmp_path, clock, artifact)
    again = shop.decider.decide_many([shop.shop.order(number, past + number * 20_000_000) for number in range(5)])
    assert again == [dataclasses.replace(made, repeated=True) for made in first]
    assert len(shop.records()) == 5
    shop.close()
