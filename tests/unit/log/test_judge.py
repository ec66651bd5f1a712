"""The judge against a plain reading of SEMANTICS 1.2 to 1.5: rows, batches, imports, restarts, failed commits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace.core.schema as types
from headrace.core.codec import instants, rows_to_batch
from headrace.core.errors import DefinitionError, LogError
from headrace.core.points import IMPORTS_FROM
from headrace.core.times import Duration, Instant
from headrace.log.define import Clock, Topic
from headrace.log.plan import NEVER, Judge, Judged
from headrace.log.port import SYSTEM_COLUMNS, Verdict
from tests.examples import examples

DAY = 86_400_000_000
MINUTE = 60_000_000


def topic(id_type=types.int64, **more):
    given = {"dedup": "10us", "max_late": "8us", "max_ahead": "4us", "skew": "2us"} | more
    fields = {"k": types.int64, "i": id_type, "at": types.timestamp, "x": types.float64, "s": types.string}
    return Topic("t", key="k", id="i", event_time="at", fields=fields, **given)


def row(id, at, x=0.0, s=None):
    return (1, id, at, x, s)


class NaiveJudge:
    """SEMANTICS 1.2 to 1.5, row by row, with every id ever taken in a list."""

    def __init__(self, topic):
        self.topic = topic
        self.taken = []  # (partition, id, payload, available_at)
        self.maxima = {}

    def judge(self, partition, row, now, request):
        time, t = row[2], self.topic
        simulated = t.clock is Clock.SIMULATED
        available = max(self.maxima.get(partition, NEVER), time if simulated else now)
        self.maxima[partition] = available
        appended = available if simulated else now
        verdict = Verdict.ACCEPTED
        if request and abs(time - appended) > t.skew.micros:
            verdict, time = Verdict.RESTAMPED, appended
        elif time > available + t.max_ahead.micros:
            verdict = Verdict.AHEAD
        elif time < available - t.max_late.micros:
            verdict = Verdict.LATE
        known = [p for q, i, p, a in self.taken if q == partition and i == row[1] and available - a <= t.dedup.micros]
        if known:
            verdict = Verdict.DUPLICATE if known[-1] == row else Verdict.CONFLICT
        elif verdict != Verdict.AHEAD:
            self.taken.append((partition, row[1], row, available))
        return int(verdict), time, available

    def imported(self, row, available):
        time, t = row[2], self.topic
        verdict = Verdict.ACCEPTED
        if time > available + t.max_ahead.micros:
            verdict = Verdict.AHEAD
        elif time < available - t.max_late.micros:
            verdict = Verdict.LATE
        known = [p for _, i, p, _ in self.taken if i == row[1]]
        if known:
            verdict = Verdict.DUPLICATE if known[-1] == row else Verdict.CONFLICT
        elif verdict != Verdict.AHEAD:
            self.taken.append((IMPORTS_FROM, row[1], row, available))
        return int(verdict)


def as_log(topic, rows, judged: Judged, offset=0):
    """The batch as the log would read it back."""
    fields = rows_to_batch(topic.schema, rows)
    system = [
        pa.array(np.arange(offset, offset + len(rows)), pa.int64()),
        instants(judged.available_at),
        instants(judged.event_times),
        pa.array(judged.verdicts),
    ]
    return pa.RecordBatch.from_arrays([*system, *fields.columns], schema=pa.schema([*SYSTEM_COLUMNS, *fields.schema]))


ROWS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(-12, 8),
        st.sampled_from([0.0, 1.5]),
        st.sampled_from([None, "", "a", "a longer text"]),
    ),
    min_size=1,
    max_size=24,
)
STEPS = st.lists(
    st.tuples(
        ROWS,
        st.integers(0, 1),  # partition
        st.integers(-3, 9),  # the clock moves; it may step back
        st.booleans(),  # as an Arrow batch
        st.sampled_from(["keep", "keep", "keep", "fail", "restart"]),
    ),
    max_size=8,
)


@examples(250)
@given(STEPS, st.booleans(), st.sampled_from(list(Clock)), st.sampled_from([types.int64, types.string]))
def test_verdicts_are_those_of_the_naive_judge(steps, request_topic, clock, id_type):
    made = topic(id_type, clock=clock)
    judge, naive, now, log = Judge(made), NaiveJudge(made), 100, []
    name = str if id_type is types.string else int
    for drawn, partition, passes, as_batch, outcome in steps:
        now += passes
        rows = [row(name(i), now + at, x, s) for i, at, x, s in drawn]
        given_rows = rows_to_batch(made.schema, rows) if as_batch else rows
        mark = judge.mark()
        judged = judge.live(partition, given_rows, Instant(now), request=request_topic)
        judge.remember(partition, given_rows, judged)
        if outcome == "fail":
            judge.rollback(mark)
            again = judge.live(partition, given_rows, Instant(now), request=request_topic)
            judge.remember(partition, given_rows, again)
            assert again.verdicts.tolist() == judged.verdicts.tolist()
        expected = [naive.judge(partition, r, now, request_topic) for r in rows]
        assert list(zip(judged.verdicts, judged.event_times, judged.available_at, strict=True)) == expected
        assert judge.running_maximum(partition) == naive.maxima[partition]
        log.append((partition, as_log(made, rows, judged)))
        if outcome == "restart":
            judge = Judge(made)
            judge.restore(log)


@examples(150)
@given(STEPS, ROWS, ROWS, st.booleans())
def test_an_import_leaves_out_every_id_the_topic_knows(steps, first, second, restart):
    made = topic()
    judge, naive, now, log = Judge(made), NaiveJudge(made), 100, []
    for drawn, partition, passes, as_batch, _ in steps:
        now += passes
        rows = [row(i, now + at, x, s) for i, at, x, s in drawn]
        given_rows = rows_to_batch(made.schema, rows) if as_batch else rows
        judged = judge.live(partition, given_rows, Instant(now))
        judge.remember(partition, given_rows, judged)
        for r in rows:
            naive.judge(partition, r, now, False)
        log.append((partition, as_log(made, rows, judged)))
    if restart:
        judge = Judge(made)
        judge.restore(log)
    judge.recall(log)
    for at, drawn in ((200, first), (300, second)):
        rows = [row(i, at + t, x, s) for i, t, x, s in drawn]
        available = np.full(len(rows), at, np.int64)
        judged = judge.imported(IMPORTS_FROM, rows_to_batch(made.schema, rows), available)
        assert judged.verdicts.tolist() == [naive.imported(r, at) for r in rows]
        judge.remember(IMPORTS_FROM, rows_to_batch(made.schema, rows), judged)


def test_judging_alone_changes_nothing():
    judge = Judge(topic())
    for _ in range(2):
        judged = judge.live(0, [row(1, 100)], Instant(100))
        assert judged.verdicts.tolist() == [Verdict.ACCEPTED]
    assert judge.running_maximum(0) == NEVER


def test_an_import_does_not_make_a_live_id_known():
    judge = Judge(topic())
    imported = judge.imported(IMPORTS_FROM, [row(1, 100)], np.array([100]))
    judge.remember(IMPORTS_FROM, [row(1, 100)], imported)
    assert judge.live(0, [row(1, 100)], Instant(100)).verdicts.tolist() == [Verdict.ACCEPTED]


def test_an_import_whose_instants_fall_is_refused():
    judge = Judge(topic())
    with pytest.raises(LogError) as refused:
        judge.imported(IMPORTS_FROM, [row(1, 100), row(2, 99)], np.array([100, 99]))
    assert refused.value.code == "HR-0312"


def test_an_import_goes_on_at_the_instant_where_it_stopped():
    judge = Judge(topic())
    for id in (1, 2):
        rows = [row(id, 100)]
        judge.remember(IMPORTS_FROM, rows, judge.imported(IMPORTS_FROM, rows, np.array([100])))
    assert judge.running_maximum(IMPORTS_FROM) == 100
    with pytest.raises(LogError):
        judge.imported(IMPORTS_FROM, [row(3, 99)], np.array([99]))


def test_ids_older_than_dedup_are_forgotten_segment_by_segment(monkeypatch):
    monkeypatch.setattr("headrace.log.plan.SEGMENT_IDS", 4)
    judge = Judge(topic())
    for id in range(100):
        now = Instant(1_000 + 5 * id)
        judge.remember(0, [row(id, now)], judge.live(0, [row(id, now)], now))
    assert sum(len(keys) for keys, _, _ in judge._ids[0].entries()) <= 12
    assert judge.live(0, [row(98, now)], now).verdicts.tolist() == [Verdict.CONFLICT]
    assert judge.live(0, [row(90, now)], now).verdicts.tolist() == [Verdict.ACCEPTED]


def test_a_rollback_restores_a_table_that_grew_and_segments_that_were_dropped(monkeypatch):
    monkeypatch.setattr("headrace.log.plan.SEGMENT_IDS", 600)
    judge = Judge(topic(max_late="1d", dedup="50us"))
    first = [row(id, 100) for id in range(400)]
    judge.remember(0, first, judge.live(0, first, Instant(100)))
    mark = judge.mark()
    for now in (110, 140, 180):
        more = [row(id + now * 1_000, now) for id in range(900)]
        judge.remember(0, more, judge.live(0, more, Instant(now)))
    judge.rollback(mark)
    assert judge.running_maximum(0) == 100
    assert judge.live(0, first, Instant(120)).verdicts.tolist() == [Verdict.DUPLICATE] * 400
    assert judge.live(0, more, Instant(120)).verdicts.tolist() == [Verdict.AHEAD] * 900


def test_the_payload_is_the_same_before_and_after_a_field_is_added():
    old = Topic("t", key="k", id="k", fields={"k": types.int64, "x": types.float64})
    new = Topic("t", key="k", id="k", fields={"k": types.int64, "x": types.float64, "more": types.string})
    judge = Judge(old)
    judge.remember(0, [(1, 2.0)], judge.live(0, [(1, 2.0)], Instant(5)))
    judge.declared(new)
    assert judge.live(0, [(1, 2.0, None)], Instant(6)).verdicts.tolist() == [Verdict.DUPLICATE]
    assert judge.live(0, [(1, 2.0, "said")], Instant(6)).verdicts.tolist() == [Verdict.CONFLICT]


@examples(200)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.none() | st.text(max_size=40) | st.text(min_size=250, max_size=300),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.booleans(),
            st.none() | st.integers(-(10**12) + 1, 10**12 - 1),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 3),
)
def test_the_payload_hash_of_a_row_is_that_of_its_batch(rows, skipped):
    fields = {"i": types.int64, "s": types.string, "x": types.float64, "b": types.boolean, "d": types.decimal(12, 2)}
    made = Topic("t", key="i", id="i", fields=fields)
    judge = Judge(made)
    batch = rows_to_batch(made.schema, rows).slice(skipped)
    assert judge._payload.of_batch(batch).tolist() == [judge._payload.of_row(r) for r in rows[skipped:]]


def test_late_columns_do_not_change_the_payload():
    truth = types.field(types.boolean, available_after="7d")
    made = Topic("t", key="i", id="i", fields={"i": types.int64, "x": types.float64, "fraud": truth})
    judge = Judge(made)
    judge.remember(0, [(1, 2.0, None)], judge.live(0, [(1, 2.0, None)], Instant(5)))
    again = judge.imported(IMPORTS_FROM, [(1, 2.0, True)], np.array([5]))
    assert again.verdicts.tolist() == [Verdict.DUPLICATE]


def test_a_topic_without_id_or_event_time_takes_everything_at_the_append_instant():
    made = Topic("t", key="k", fields={"k": types.int64})
    judge = Judge(made)
    judged = judge.live(0, [(1,), (1,)], Instant(7 * DAY))
    assert (judged.verdicts.tolist(), judged.event_times.tolist()) == ([0, 0], [7 * DAY] * 2)
    judge.remember(0, [(1,), (1,)], judged)
    assert judge.running_maximum(0) == 7 * DAY


def test_the_defaults_are_those_of_the_law():
    made = Topic("t", key="i", id="i", event_time="at", fields={"i": types.int64, "at": types.timestamp})
    judge, now = Judge(made), Instant(100 * DAY)
    bounds = [now + 5 * MINUTE, now + 5 * MINUTE + 1, now - 7 * DAY, now - 7 * DAY - 1]
    judged = judge.live(0, [(i, at) for i, at in enumerate(bounds)], now)
    assert judged.verdicts.tolist() == [Verdict.ACCEPTED, Verdict.AHEAD, Verdict.ACCEPTED, Verdict.LATE]
    assert made.dedup == Duration.parse("14d")


def test_a_list_field_is_refused():
    with pytest.raises(DefinitionError) as refused:
        Judge(Topic("t", key="i", fields={"i": types.int64, "l": types.DataType(types.Kind.LIST, item=types.int64)}))
    assert refused.value.code == "HR-0410"
