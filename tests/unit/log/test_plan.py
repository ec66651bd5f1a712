"""The judge case by case: a row, a few and a batch get the same verdicts; what is remembered; imports; failed commits.

`test_judge.py` holds the judge against a naive one on random logs; here each rule has its own smallest log.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

import headrace.core.schema as types
from headrace.core.codec import instants, rows_to_batch
from headrace.core.errors import LogError
from headrace.core.points import IMPORTS_FROM
from headrace.core.times import Instant, iso
from headrace.log.define import Clock, Topic
from headrace.log.identity import NumberSegment, TextSegment
from headrace.log.plan import NEVER, ROWS_ONE_BY_ONE_MAX, Judge, Judged, _last_of_repeated, _repeated
from headrace.log.port import SYSTEM_COLUMNS, Verdict

A, L, D, C, H, R = Verdict.ACCEPTED, Verdict.LATE, Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.AHEAD, Verdict.RESTAMPED
WAYS = ("one by one", "together", "as a batch")
NOW = 1_000
each_way = pytest.mark.parametrize("way", WAYS)
each_id = pytest.mark.parametrize("id_type", [types.int64, types.string], ids=["number", "text"])


def topic(id_type=types.int64, **more) -> Topic:
    """Bounds of a few microseconds: dedup 10, max_late 8, max_ahead 4, skew 2."""
    given = {"id": "i", "dedup": "10us", "max_late": "8us", "max_ahead": "4us", "skew": "2us", "event_time": "at"}
    return Topic("t", key="i", fields={"i": id_type, "at": types.timestamp, "x": types.float64}, **(given | more))


def row(id, at: int = NOW, x: float = 0.0):
    return (id, at, x)


def take(judge: Judge, rows: Sequence[tuple], now: int = NOW, *, way="together", partition=0, request=False) -> Judged:
    """Judged and remembered, as an append does."""
    if way == "one by one":
        parts = [take(judge, [one], now, partition=partition, request=request) for one in rows]
        names = ("verdicts", "event_times", "available_at", "payloads")
        return Judged(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    given = rows if way == "together" else rows_to_batch(judge.topic.schema, rows)
    judged = judge.live(partition, given, Instant(now), request=request)
    judge.remember(partition, given, judged)
    return judged


def bring(judge: Judge, rows: Sequence[tuple], available_at: Sequence[int], *, index=0, way="together") -> list[int]:
    """The verdicts of an import, remembered."""
    given = rows if way == "together" else rows_to_batch(judge.topic.schema, rows)
    judged = judge.imported(IMPORTS_FROM + index, given, np.array(available_at, np.int64))
    assert judged.available_at.tolist() == list(available_at)
    judge.remember(IMPORTS_FROM + index, given, judged)
    return judged.verdicts.tolist()


def verdicts(judge: Judge, rows: Sequence[tuple], now: int = NOW, **more) -> list[int]:
    return take(judge, rows, now, **more).verdicts.tolist()


def name(id: int, id_type) -> int | str:
    return id if id_type is types.int64 else f"id-{id}"


def as_log(made: Topic, rows: Sequence[tuple], judged: Judged) -> pa.RecordBatch:
    """The batch as the log reads it back."""
    fields = rows_to_batch(made.schema, rows)
    offsets = pa.array(np.arange(len(rows)), pa.int64())
    system = [offsets, instants(judged.available_at), instants(judged.event_times), pa.array(judged.verdicts)]
    return pa.RecordBatch.from_arrays([*system, *fields.columns], schema=pa.schema([*SYSTEM_COLUMNS, *fields.schema]))


# Event time against available_at.


def test_before_the_first_row_the_maximum_is_the_year_one() -> None:
    assert iso(Judge(topic()).running_maximum(0)) == "0001-01-01T00:00:00Z"


@each_way
def test_late_and_ahead_begin_one_microsecond_beyond_their_bounds(way: str) -> None:
    rows = [row(0, NOW - 8), row(1, NOW - 9), row(2, NOW + 4), row(3, NOW + 5), row(4)]
    judged = take(Judge(topic()), rows, way=way)
    assert judged.verdicts.tolist() == [A, L, A, H, A]
    assert judged.event_times.tolist() == [NOW - 8, NOW - 9, NOW + 4, NOW + 5, NOW]


@each_way
def test_available_at_is_the_running_maximum_of_the_append_instant(way: str) -> None:
    judge = Judge(topic())
    assert take(judge, [row(1), row(2)], NOW, way=way).available_at.tolist() == [NOW, NOW]
    assert take(judge, [row(3), row(4)], NOW - 5, way=way).available_at.tolist() == [NOW, NOW]
    assert judge.running_maximum(0) == NOW
    assert take(judge, [row(5), row(6)], NOW + 5, way=way).available_at.tolist() == [NOW + 5, NOW + 5]
    assert (judge.running_maximum(0), judge.running_maximum(1)) == (NOW + 5, NEVER)


@each_way
def test_under_a_simulated_clock_available_at_is_the_running_maximum_of_event_times(way: str) -> None:
    judge = Judge(topic(clock=Clock.SIMULATED))
    judged = take(judge, [row(1, 50), row(2, 60), row(3, 52), row(4, 51), row(5, 70)], way=way)
    assert judged.available_at.tolist() == [50, 60, 60, 60, 70]
    assert judged.verdicts.tolist() == [A, A, A, L, A]
    assert take(judge, [row(6, 65), row(7, 66)], way=way).available_at.tolist() == [70, 70]


@each_way
@pytest.mark.parametrize("off", [-3, -2, 0, 2, 3])
def test_a_request_outside_the_skew_is_stamped_anew(way: str, off: int) -> None:
    rows = [row(1, NOW + off), row(2, NOW + off)]
    judged = take(Judge(topic()), rows, way=way, request=True)
    outside = abs(off) > 2
    assert judged.verdicts.tolist() == [R if outside else A] * 2
    assert judged.event_times.tolist() == [NOW if outside else NOW + off] * 2


@each_way
def test_a_request_s_skew_is_against_the_append_instant_and_not_the_maximum(way: str) -> None:
    judge = Judge(topic())
    take(judge, [row(0)], NOW + 6)
    judged = take(judge, [row(1), row(2, NOW + 6)], NOW, way=way, request=True)
    assert (judged.verdicts.tolist(), judged.event_times.tolist()) == ([A, R], [NOW, NOW])


@each_way
def test_under_a_simulated_clock_a_request_is_never_before_the_maximum_by_more_than_the_skew(way: str) -> None:
    judged = take(Judge(topic(clock="simulated")), [row(1, 50), row(2, 48), row(3, 47)], way=way, request=True)
    assert (judged.verdicts.tolist(), judged.event_times.tolist()) == ([A, A, R], [50, 48, 50])


@each_way
def test_without_an_event_time_the_append_instant_is_the_event_s(way: str) -> None:
    judged = take(Judge(topic(event_time=None)), [row(1, 3), row(2, 4)], way=way)
    assert (judged.verdicts.tolist(), judged.event_times.tolist()) == ([A, A], [NOW, NOW])


def test_no_rows_are_judged_and_remembered_as_none() -> None:
    judge = Judge(topic())
    assert verdicts(judge, [], way="as a batch") == []
    assert bring(judge, [], [], way="as a batch") == []
    assert (judge.running_maximum(0), judge.running_maximum(IMPORTS_FROM)) == (NEVER, NEVER)


# Ids.


@each_way
@each_id
def test_a_known_id_is_a_duplicate_or_a_conflict_until_dedup_has_passed(way: str, id_type) -> None:
    judge, one, two = Judge(topic(id_type)), name(1, id_type), name(2, id_type)
    assert verdicts(judge, [row(one, NOW, 1.0), row(two, NOW, 1.0)], way=way) == [A, A]
    again = [row(one, NOW, 1.0), row(two, NOW, 2.0)]
    assert verdicts(judge, again, NOW + 10, way=way) == [D, C]
    # What was refused renewed nothing, and an event time of a while ago is late.
    assert verdicts(judge, again, NOW + 11, way=way) == [L, L]
    assert verdicts(judge, [row(one, NOW, 1.0), row(two, NOW, 1.0)], NOW + 21, way=way) == [D, C]


@each_way
@each_id
def test_an_id_is_known_in_its_own_partition_only(way: str, id_type) -> None:
    judge = Judge(topic(id_type))
    rows = [row(name(1, id_type)), row(name(2, id_type))]
    assert verdicts(judge, rows, way=way, partition=0) == [A, A]
    assert verdicts(judge, rows, way=way, partition=1) == [A, A]
    assert verdicts(judge, rows, way=way, partition=0) == [D, D]


@each_way
@each_id
def test_an_id_that_comes_twice_in_one_append_is_taken_once(way: str, id_type) -> None:
    one, two, three = (name(id, id_type) for id in (3, 1, 2))
    rows = [row(one), row(two), row(one), row(one, NOW, 7.0), row(three), row(two)]
    assert verdicts(Judge(topic(id_type)), rows, way=way) == [A, A, D, C, A, D]


@each_way
def test_an_event_that_was_ahead_is_not_remembered_and_a_late_one_is(way: str) -> None:
    judge = Judge(topic())
    rows = [row(1, NOW + 5), row(2, NOW - 9), row(1, NOW + 5), row(2, NOW - 9)]
    assert verdicts(judge, rows, way=way) == [H, L, H, D]
    assert verdicts(judge, [row(1, NOW + 5), row(2, NOW - 9)], NOW + 1, way=way) == [A, D]


@each_way
def test_a_request_that_was_stamped_anew_is_remembered(way: str) -> None:
    judge = Judge(topic())
    assert verdicts(judge, [row(1, 0), row(2, 0), row(1, 0)], way=way, request=True) == [R, R, D]
    assert verdicts(judge, [row(2, 0), row(1, 1)], way=way, request=True) == [D, C]


@each_way
@each_id
def test_in_one_append_an_id_may_be_taken_again_where_dedup_has_passed_in_between(way: str, id_type) -> None:
    judge = Judge(topic(id_type, clock=Clock.SIMULATED))
    one, two = name(1, id_type), name(2, id_type)
    rows = [row(one, 0), row(one, 10), row(two, 11), row(one, 11, 5.0), row(one, 21, 5.0), row(one, 22, 6.0)]
    assert verdicts(judge, rows, way=way) == [A, C, A, A, C, A]
    assert verdicts(judge, [row(one, 22, 6.0), row(two, 11)], way=way) == [D, L]  # the last taken is the one known


@each_way
def test_an_id_known_before_the_append_may_be_taken_again_in_it(way: str) -> None:
    judge = Judge(topic(clock=Clock.SIMULATED))
    assert verdicts(judge, [row(1, 0)]) == [A]
    rows = [row(1, 0), row(1, 9, 3.0), row(1, 11, 4.0), row(1, 11, 4.0), row(1, 12, 5.0)]
    assert verdicts(judge, rows, way=way) == [D, C, A, D, C]
    assert verdicts(judge, [row(1, 11, 4.0)], way=way) == [D]


@each_way
def test_a_topic_without_id_takes_the_same_row_again(way: str) -> None:
    judge = Judge(topic(id=None))
    for _ in range(2):
        judged = take(judge, [row(1), row(1), row(1, NOW + 5)], way=way)
        assert (judged.verdicts.tolist(), len(judged.payloads)) == ([A, A, H], 0)
    assert bring(judge, [row(1), row(1)], [NOW, NOW]) == [A, A]


def test_a_few_rows_and_many_are_judged_alike() -> None:
    for count in (2, ROWS_ONE_BY_ONE_MAX, ROWS_ONE_BY_ONE_MAX + 1):
        judge, rows = Judge(topic()), [row(id) for id in range(count)]
        assert verdicts(judge, rows) == [A] * count
        assert verdicts(judge, rows) == [D] * count


@each_way
def test_judging_changes_nothing(way: str) -> None:
    judge = Judge(topic())
    rows = [row(1), row(2)] if way != "one by one" else [row(1)]
    given = rows_to_batch(judge.topic.schema, rows) if way == "as a batch" else rows
    assert judge.live(0, given, Instant(NOW)).verdicts.tolist() == [A] * len(rows)
    assert judge.running_maximum(0) == NEVER
    take(judge, [row(9)], NOW - 1)
    assert judge.live(0, given, Instant(NOW)).verdicts.tolist() == [A] * len(rows)
    assert judge.running_maximum(0) == NOW - 1


def test_a_new_definition_s_bounds_hold_for_the_rows_that_follow() -> None:
    judge = Judge(topic())
    take(judge, [row(1)])
    judge.declared(topic(dedup="20us", max_late="100us"))
    assert verdicts(judge, [row(1)], NOW + 20) == [D]
    assert verdicts(judge, [row(1)], NOW + 21) == [A]


@pytest.mark.parametrize("word", [list, np.array], ids=["texts", "numbers"])
def test_the_rows_that_need_a_closer_look_are_those_whose_id_comes_twice(word) -> None:
    assert list(_repeated(word([5, 3, 5, 9, 3, 5]))) == [0, 1, 2, 4, 5]
    assert list(_repeated(word([3, 1, 2]))) == list(_repeated(word([1, 2, 3]))) == []
    assert _last_of_repeated(word([5, 3, 5, 9, 3])).tolist() == [2, 3, 4]


# Segments.


@each_id
def test_ids_are_kept_in_segments_of_which_the_old_ones_go(id_type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.log.plan.SEGMENT_IDS", 2)
    judge = Judge(topic(id_type))
    segments = judge._targets(0)[0]

    def take_one(id: int, now: int) -> list[list[int | str]]:
        take(judge, [row(name(id, id_type), now)], now)
        return [sorted(keys if isinstance(keys, list) else keys.tolist()) for keys, _, _ in segments.entries()]

    one, two, three, four, five, six, seven = (name(id, id_type) for id in range(1, 8))
    assert take_one(1, 1_000) == [[one]]
    assert take_one(2, 1_005) == [[one, two]]
    assert take_one(3, 1_010) == [[one, two], [three]]  # the newest is full
    assert take_one(4, 1_012) == [[one, two], [three, four]]
    assert take_one(5, 1_015) == [[one, two], [three, four], [five]]  # the id of 1,005 is within dedup
    assert take_one(6, 1_016) == [[one, two], [three, four], [five, six]]
    assert take_one(7, 1_016) == [[three, four], [five, six], [seven]]  # and now it is not
    kind = NumberSegment if id_type is types.int64 else TextSegment
    assert {type(segment) for segment in segments._segments} == {kind}


def test_a_segment_takes_no_more_once_its_oldest_id_is_older_than_dedup(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(topic())
    for id, now in enumerate((1_000, 1_010, 1_011)):
        take(judge, [row(id, now)], now)
    assert [keys.tolist() for keys, _, _ in judge._targets(0)[0].entries()] == [[0, 1], [2]]


def test_the_newest_segment_that_knows_an_id_says_what_it_was() -> None:
    judge = Judge(topic(clock=Clock.SIMULATED))
    for at, payload in ((0, 1.0), (9, 2.0), (11, 3.0)):
        take(judge, [row(1 if payload != 2.0 else 2, at, payload)])
    assert verdicts(judge, [row(1, 11, 3.0)]) == [D]
    assert verdicts(judge, [row(1, 11, 3.0), row(2, 9, 2.0)], way="as a batch") == [D, D]
    assert verdicts(judge, [row(1, 11, 1.0)]) == [C]


# Imports.


@pytest.mark.parametrize("way", WAYS[1:])
@each_id
def test_an_import_leaves_out_what_any_partition_or_import_holds(way: str, id_type) -> None:
    judge = Judge(topic(id_type))
    one, two, three, four = (name(id, id_type) for id in range(1, 5))
    take(judge, [row(one)], partition=0)
    take(judge, [row(two)], partition=1)
    first = [row(one), row(two, NOW, 1.0), row(three), row(three)]
    assert bring(judge, first, [NOW] * 4, way=way) == [D, C, A, D]
    assert bring(judge, [row(three), row(four)], [NOW + 999] * 2, index=1, way=way) == [D, L]  # for ever, not dedup
    take(judge, [row(name(5, id_type))])
    assert bring(judge, [row(name(5, id_type)), row(name(6, id_type))], [NOW] * 2, index=2, way=way) == [D, A]
    assert verdicts(judge, [row(three)]) == [A]  # live appends do not ask imports


def test_an_import_s_event_times_are_judged_against_its_own_available_at() -> None:
    rows = [row(1, NOW - 8), row(2, NOW - 9), row(3, NOW + 4), row(4, NOW + 5), row(5, NOW + 9)]
    assert bring(Judge(topic()), rows, [NOW, NOW, NOW, NOW, NOW + 5]) == [A, L, A, H, A]
    judged = Judge(topic(event_time=None)).imported(IMPORTS_FROM, rows, np.arange(5))
    assert (judged.verdicts.tolist(), judged.event_times.tolist()) == ([A] * 5, [0, 1, 2, 3, 4])


@pytest.mark.parametrize("falling", [[NOW, NOW - 1], [NOW, NOW + 1, NOW], [NOW - 1, NOW + 1], [NOW - 1]])
def test_an_import_s_available_at_may_stay_and_never_falls(falling: list[int]) -> None:
    judge = Judge(topic())
    bring(judge, [row(1), row(2)], [NOW, NOW])
    with pytest.raises(LogError) as refused:
        judge.imported(IMPORTS_FROM, [row(10 + i) for i in range(len(falling))], np.array(falling))
    assert refused.value.code == "HR-0312"
    assert bring(judge, [row(3), row(4), row(5)], [NOW, NOW, NOW + 1]) == [A, A, A]
    assert judge.running_maximum(IMPORTS_FROM) == NOW + 1


def test_recall_makes_older_ids_known_until_release() -> None:
    made, rows = topic(), [row(1), row(2)]
    judge = Judge(made)
    log = as_log(made, rows, take(Judge(made), rows))
    judge.recall([(0, log)])
    assert bring(judge, [row(1), row(2, NOW, 1.0), row(3)], [NOW] * 3) == [D, C, A]
    judge.release()
    assert bring(judge, [row(1)], [NOW]) == [A]


def test_without_an_id_there_is_nothing_to_recall() -> None:
    made = topic(id=None)
    judge = Judge(made)
    judge.recall([(0, as_log(made, [row(1)], take(Judge(made), [row(1)])))])
    assert bring(judge, [row(1)], [NOW]) == [A] and judge._history is None


# Restarts and failed commits.


@each_id
def test_a_judge_restored_from_the_log_goes_on_as_the_first_would(id_type) -> None:
    made = topic(id_type)
    first, judge = Judge(made), Judge(made)
    one, two, three = (name(id, id_type) for id in range(1, 4))
    rows = [row(one), row(two, NOW - 9), row(three, NOW + 5)]
    log = as_log(made, rows, take(first, rows))
    judge.restore([(0, log), (0, log.slice(0, 0)), (1, log.slice(0, 0))])
    assert (judge.running_maximum(0), judge.running_maximum(1)) == (NOW, NEVER)
    again = [*rows, row(one, NOW, 1.0)]
    assert verdicts(judge, again) == verdicts(first, again) == [D, D, H, C]


def test_a_restore_knows_the_last_of_an_id_that_was_taken_twice() -> None:
    for id_type in (types.int64, types.string):
        made = topic(id_type, clock=Clock.SIMULATED)
        one, two = name(1, id_type), name(2, id_type)
        rows = [row(one, 0), row(two, 5), row(one, 11, 1.0)]
        log = as_log(made, rows, take(Judge(made), rows))
        judge = Judge(made)
        judge.restore([(0, log)])
        assert verdicts(judge, [row(one, 11, 1.0), row(one, 12, 2.0), row(two, 5)]) == [D, C, D]


def test_a_restore_without_ids_knows_the_maximum() -> None:
    made = topic(id=None)
    judge = Judge(made)
    judge.restore([(0, as_log(made, [row(1)], take(Judge(made), [row(1)])))])
    assert judge.running_maximum(0) == NOW
    judge.restore([(0, as_log(made, [row(1)], take(Judge(made), [row(1)], NOW - 5)))])
    assert judge.running_maximum(0) == NOW


@each_way
@each_id
def test_a_rollback_forgets_what_was_remembered_since_the_mark(way: str, id_type) -> None:
    judge = Judge(topic(id_type))
    one, two, three = (name(id, id_type) for id in (1, 2, 3))
    take(judge, [row(one, NOW - 20)], NOW - 20)
    mark = judge.mark()
    take(judge, [row(one, NOW, 1.0), row(two), row(three)], NOW, way=way)
    assert verdicts(judge, [row(two)]) == [D]
    judge.rollback(mark)
    assert judge.running_maximum(0) == NOW - 20
    assert verdicts(judge, [row(one, NOW - 20), row(two)], NOW - 18, way=way) == [D, H]


@each_way
def test_a_rollback_restores_segments_that_were_dropped(way: str) -> None:
    judge = Judge(topic())
    take(judge, [row(1)])
    mark = judge.mark()
    take(judge, [row(2, NOW + 50), row(3, NOW + 50)], NOW + 50, way=way)
    judge.rollback(mark)
    assert verdicts(judge, [row(1), row(2)], way=way) == [D, A]


@each_way
def test_a_judge_may_begin_where_what_lies_before_is_gone(way: str) -> None:
    judge, naive = Judge(topic()), Judge(topic())
    judge.begin(0, Instant(NOW + 5))
    assert judge.running_maximum(0) == NOW + 5
    assert judge.running_maximum(1) == NEVER
    for each, wanted in ((judge, [NOW + 5, NOW + 7]), (naive, [NOW, NOW + 7])):
        found = [take(each, [row(1, NOW)], NOW, way=way), take(each, [row(2, NOW + 7)], NOW + 7, way=way)]
        assert [int(one.available_at[0]) for one in found] == wanted
