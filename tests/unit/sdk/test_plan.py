"""The scheduler of keys: the cases that have a name, and a naive one beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.times import Duration
from headrace.sdk.define import Budget
from headrace.sdk.plan import LATER, Do, Entry, Held, Lanes, Outcome, Schedule
from tests.examples import examples

BUDGET = Budget(attempts=3, within=Duration.parse("1h"), first=Duration.parse("1ms"), longest=Duration.parse("4ms"))
KEYS = (b"a", b"b", b"c")


def schedule(lanes: Lanes = Lanes.KEY, *, buffer_max: int = 100, ahead_max: int = 1_000) -> Schedule[int]:
    return Schedule(lanes=lanes, budget=BUDGET, buffer_max=buffer_max, ahead_max=ahead_max)


def taken(made: Schedule[int], now: int = 0) -> Entry[int]:
    entry = made.take(now)
    assert entry is not None
    return entry


# --- by name ---


def test_keys_run_beside_each_other_and_a_key_in_order() -> None:
    made = schedule()
    made.assign(0, 0)
    for offset, key in enumerate([b"a", b"a", b"b"]):
        assert made.feed(0, offset, key, offset)
    first, second = taken(made), taken(made)
    assert (first.offset, second.offset) == (0, 2)
    assert made.take(0) is None
    assert made.settle(second, Outcome.DONE, 0)
    assert made.done() == {0: 0}, "what is done beyond a gap is not committed"
    assert made.settle(first, Outcome.DONE, 0)
    assert made.done() == {0: 1}
    assert taken(made).offset == 1


def test_without_order_events_of_a_key_run_beside_each_other() -> None:
    made = schedule(Lanes.EVENT)
    made.assign(0, 0)
    for offset in range(3):
        made.feed(0, offset, b"a", offset)
    entries = [taken(made) for _ in range(3)]
    assert [each.offset for each in entries] == [0, 1, 2]
    assert not entries[0].blocks, "set aside it blocks nothing"


def test_with_partitions_as_lanes_nothing_runs_beside() -> None:
    made = schedule(Lanes.PARTITION)
    made.assign(0, 0)
    made.assign(1, 0)
    for offset, key in enumerate([b"a", b"b"]):
        made.feed(0, offset, key, offset)
        made.feed(1, offset, key, offset)
    assert [(each.partition, each.offset) for each in (taken(made), taken(made))] == [(0, 0), (1, 0)]
    assert made.take(0) is None


def test_a_key_set_aside_takes_its_later_events_with_it_and_others_go_on() -> None:
    made = schedule(Lanes.PARTITION)
    made.assign(0, 0)
    for offset, key in enumerate([b"a", b"b", b"a"]):
        made.feed(0, offset, key, offset)
    entry = taken(made)
    for attempt in range(3):
        assert made.settle(entry, Outcome.FAILED, attempt * 10_000)
        entry = taken(made, attempt * 10_000 + 5_000)
    assert (entry.do, entry.attempts) == (Do.SET_ASIDE, 3)
    assert made.settle(entry, Outcome.DONE, 0, place=7)
    assert made.aside(0) == {b"a": {7: 0}}
    other = taken(made)
    assert (other.key, other.do) == (b"b", Do.HANDLE)
    made.settle(other, Outcome.DONE, 0)
    behind = taken(made)
    assert (behind.offset, behind.do) == (2, Do.SET_ASIDE)
    made.settle(behind, Outcome.DONE, 0, place=8)
    assert made.aside(0) == {b"a": {7: 0, 8: 2}}
    assert made.done() == {0: 3}


def test_poison_is_set_aside_at_once_and_blocks_nothing() -> None:
    made = schedule()
    made.assign(0, 0)
    made.feed(0, 0, b"a", 0)
    made.feed(0, 1, b"a", 1)
    entry = taken(made)
    made.settle(entry, Outcome.POISON, 0)
    again = taken(made)
    assert again is entry and again.do is Do.SET_ASIDE
    made.settle(again, Outcome.DONE, 0, place=-1)
    assert made.aside(0) == {}
    assert taken(made).do is Do.HANDLE


def test_what_was_taken_before_the_partition_went_counts_for_nothing() -> None:
    made = schedule()
    made.assign(0, 0)
    made.feed(0, 0, b"a", 0)
    entry = taken(made)
    made.drop([0])
    made.assign(0, 0)
    made.feed(0, 0, b"a", 0)
    assert not made.settle(entry, Outcome.DONE, 0)
    assert made.void == 1 and made.done() == {0: 0}
    assert taken(made).epoch == made.epoch(0) != entry.epoch


def test_a_partition_that_is_left_starts_nothing_more_and_counts_what_ends() -> None:
    made = schedule()
    made.assign(0, 0)
    made.feed(0, 0, b"a", 0)
    made.feed(0, 1, b"b", 1)
    entry = taken(made)
    made.leave([0])
    assert made.take(0) is None and made.running([0]) == 1
    assert not made.feed(0, 2, b"c", 2)
    assert made.settle(entry, Outcome.DONE, 0)
    assert made.done() == {0: 1} and made.running([0]) == 0


def test_what_was_done_before_is_not_done_again() -> None:
    made = schedule()
    made.assign(0, 5, beyond=[6, 8])
    fed = [made.feed(0, offset, b"a", offset) for offset in (4, 5, 6, 7, 8)]
    assert fed == [False, True, False, True, False]
    for _ in range(2):
        made.settle(taken(made), Outcome.DONE, 0)
    assert made.done() == {0: 9}


def test_a_partition_is_full_and_has_room_again_at_half() -> None:
    made = schedule(buffer_max=4)
    made.assign(0, 0)
    for offset in range(4):
        assert not made.full(0)
        made.feed(0, offset, b"%d" % offset, offset)
    assert made.full(0) and not made.roomy(0)
    for _ in range(2):
        made.settle(taken(made), Outcome.DONE, 0)
    assert not made.full(0) and made.roomy(0)


def test_reading_is_not_ahead_of_what_is_done_without_bound() -> None:
    made = schedule(ahead_max=10)
    made.assign(0, 0)
    made.feed(0, 0, b"slow", 0)
    taken(made)
    for offset in range(1, 10):
        made.feed(0, offset, b"%d" % offset, offset)
        made.settle(taken(made), Outcome.DONE, 0)
    assert made.full(0) and not made.roomy(0)


def test_a_budget_ends_by_attempts_or_by_time() -> None:
    budget = Budget(attempts=4, within=Duration.parse("10s"), first=Duration.parse("1s"), longest=Duration.parse("3s"))
    assert [budget.wait(attempt) for attempt in (1, 2, 3, 4)] == [1_000_000, 2_000_000, 3_000_000, 3_000_000]
    assert not budget.spent(1, 0, 0) and budget.spent(4, 0, 0)
    assert not budget.spent(3, 0, 7_000_000) and budget.spent(3, 0, 7_000_001)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_nothing_of_an_unknown_partition_is_taken(outcome: Outcome) -> None:
    made = schedule()
    assert not made.feed(3, 0, b"a", 0)
    made.passed(3, 9)
    made.leave([3])
    made.release(3, [Held(0, 0, b"a", 0)])
    assert made.take(0) is None and made.due() is None and made.done() == {} and made.aside(3) == {}
    assert not made.full(3) and not made.roomy(3) and made.epoch(3) == 0


# --- each by itself: what no other case asks ---


def test_an_assignment_has_an_epoch_of_its_own() -> None:
    made = schedule()
    assert [made.assign(0, 0), made.assign(1, 0), made.assign(0, 4)] == [1, 2, 3]
    assert (made.epoch(0), made.epoch(1), made.epoch(2)) == (3, 2, 0)
    assert made.partitions == (1, 0)
    made.drop([0, 5])
    assert made.partitions == (1,) and made.epoch(0) == 0


def test_an_event_begins_with_nothing_said_of_it() -> None:
    made = schedule()
    made.assign(0, 0)
    made.feed(0, 0, b"a", 70)
    entry = taken(made)
    assert (entry.item, entry.key, entry.partition, entry.place, entry.blocks) == (70, b"a", 0, -1, True)
    assert (entry.attempts, entry.first_failed, entry.written, entry.note, entry.held) == (0, 0, -1, None, False)
    assert made.settle(entry, Outcome.POISON, 5)
    assert (entry.attempts, entry.first_failed) == (1, 0)


def test_what_lies_at_the_quarantines_first_place_is_released_as_any_other() -> None:
    made = schedule()
    made.assign(0, 0, aside={b"a": {0: 10, 3: 11}})
    made.feed(0, 20, b"a", 20)
    made.release(0, [Held(0, 10, b"a", 10), Held(3, 11, b"a", 11)])
    assert made.aside(0) == {} and made.buffered() == 1, "what is released is no source event"
    order = []
    for _ in range(3):
        entry = taken(made)
        assert made.take(0) is None, "of a key one runs at a time"
        order.append((entry.offset, entry.place, entry.held, entry.blocks, entry.do))
        assert made.settle(entry, Outcome.DONE, 0)
    assert order == [
        (10, 0, True, True, Do.HANDLE), (11, 3, True, True, Do.HANDLE), (20, -1, False, True, Do.HANDLE),
    ]  # fmt: skip
    assert made.done() == {0: 21} and made.at_rest()


def test_what_is_released_comes_before_newer_events_that_wait_and_behind_the_one_that_runs() -> None:
    made = schedule(Lanes.PARTITION)
    made.assign(0, 0)
    for offset in (5, 6):
        made.feed(0, offset, b"a", offset)
    running = taken(made)
    made.release(0, [Held(2, 1, b"b", 1)], blocks=False)
    assert made.settle(running, Outcome.DONE, 0)
    assert made.done() == {0: 6}, "it is not taken for the one that was released meanwhile"
    released = taken(made)
    assert (released.offset, released.blocks) == (1, False)
    assert made.settle(released, Outcome.DONE, 0) and made.done() == {0: 6}
    assert taken(made).offset == 6


def test_a_record_that_blocks_nothing_frees_no_key() -> None:
    made = schedule(Lanes.EVENT)
    made.assign(0, 0, aside={b"a": {4: 1}})
    made.release(0, [Held(9, 2, b"a", 2)], blocks=False)
    assert made.aside(0) == {b"a": {4: 1}}
    entry = taken(made)
    assert entry.do is Do.HANDLE, "it comes from the quarantine, where its key is blocked"
    made.release(0, [Held(4, 1, b"a", 1)])
    assert made.aside(0) == {}


def test_of_a_key_that_is_blocked_from_the_start_later_events_go_aside() -> None:
    given_aside = {b"a": {4: 1}}
    made = schedule()
    made.assign(0, 5, aside=given_aside)
    for offset, key in enumerate((b"a", b"b", None), 5):
        made.feed(0, offset, key, offset)
    assert [(e.offset, e.do) for e in (taken(made), taken(made), taken(made))] == [
        (5, Do.SET_ASIDE), (6, Do.HANDLE), (7, Do.HANDLE),
    ]  # fmt: skip
    made.release(0, [Held(4, 1, b"a", 1)])
    assert given_aside == {b"a": {4: 1}}, "the caller's own is not changed"


def test_what_is_known_to_be_done_moves_the_end_of_what_is_done() -> None:
    made = schedule()
    made.assign(0, 5, beyond=[5, 7])
    assert not made.feed(0, 5, b"a", 5)
    assert made.done() == {0: 6} and made.beyond(0) == [7] and made.at_rest()
    made.passed(0, 4)
    assert made.done() == {0: 6}, "an end that lies behind changes nothing"
    made.passed(0, 7)
    assert made.done() == {0: 7}
    assert not made.feed(0, 6, b"a", 6), "below it nothing else comes"
    assert not made.feed(0, 7, b"a", 7)
    assert made.done() == {0: 8} and made.beyond(0) == []
    assert made.feed(0, 8, b"a", 8)
    made.passed(0, 20)
    assert made.done() == {0: 8}, "not beyond one that is open"
    made.settle(taken(made), Outcome.DONE, 0)
    assert made.done() == {0: 20}


def test_leaving_forgets_what_waits_and_hears_nothing_new() -> None:
    made = schedule()
    made.assign(0, 0, aside={b"b": {9: 0}})
    made.assign(1, 0)
    made.feed(0, 3, b"a", 3)
    made.feed(0, 4, b"a", 4)
    made.feed(0, 5, b"c", 5)
    made.feed(1, 0, b"a", 0)
    entry = taken(made)
    made.release(0, [Held(9, 0, b"b", 0), Held(10, 1, b"a", 1)])
    made.leave([0, 7])
    other = taken(made)
    assert other.partition == 1 and made.take(0) is None
    made.passed(0, 50)
    made.release(0, [Held(11, 2, b"z", 2)])
    assert not made.feed(0, 60, b"a", 60) and made.take(0) is None
    assert made.settle(entry, Outcome.LATER, 0) and made.due() is None, "it is not tried again here"
    assert made.done() == {0: 0, 1: 0} and made.running() == 1


def test_a_partition_that_is_left_still_settles_what_failed_and_what_is_aside() -> None:
    made = schedule()
    made.assign(0, 0, aside={b"b": {9: 0}})
    made.feed(0, 1, b"a", 1)
    made.feed(0, 2, b"b", 2)
    failing, behind = taken(made), taken(made)
    made.release(0, [Held(9, 0, b"b", 0)])
    made.leave([0])
    assert made.settle(failing, Outcome.FAILED, 0) and made.due() is None
    assert made.settle(behind, Outcome.DONE, 0, place=12), "its key was released while it was written"
    assert made.take(10**9) is None and made.aside(0) == {}


def test_what_waits_for_an_instant_goes_with_its_partition() -> None:
    made = schedule()
    made.assign(0, 0)
    made.assign(1, 0)
    made.feed(0, 0, b"a", 0)
    made.feed(1, 0, b"a", 0)
    first, second = taken(made), taken(made)
    made.settle(first, Outcome.FAILED, 0)
    made.settle(second, Outcome.LATER, 0)
    assert made.due() == 1_000
    made.drop([0])
    assert made.due() == LATER == 1_000_000
    assert made.take(LATER - 1) is None
    assert taken(made, LATER) is second
    assert made.due() is None and made.take(10**9) is None


def test_what_was_ready_goes_with_its_partition() -> None:
    made = schedule()
    made.assign(0, 0)
    made.feed(0, 0, b"a", 0)
    made.assign(0, 0)
    made.feed(0, 0, b"b", 0)
    assert taken(made).key == b"b" and made.take(0) is None


def test_of_one_instant_who_failed_first_comes_first() -> None:
    made = schedule()
    made.assign(0, 0)
    for offset, key in enumerate(KEYS):
        made.feed(0, offset, key, offset)
    for entry in [taken(made) for _ in KEYS]:
        made.settle(entry, Outcome.FAILED, 0)
    assert [taken(made, 1_000).offset for _ in KEYS] == [0, 1, 2]


def test_a_budgets_time_begins_with_the_first_failure() -> None:
    made = schedule()
    made.assign(0, 0)
    made.feed(0, 0, b"a", 0)
    entry = taken(made)
    late = BUDGET.within.micros * 3
    made.settle(entry, Outcome.FAILED, late)
    assert entry.do is Do.HANDLE and (entry.attempts, entry.first_failed) == (1, late)
    assert taken(made, late + 1_000) is entry
    made.settle(entry, Outcome.FAILED, late + BUDGET.within.micros)
    assert entry.do is Do.SET_ASIDE and (entry.attempts, entry.first_failed) == (2, late)


def test_what_has_no_key_or_no_place_blocks_nothing() -> None:
    made = schedule()
    made.assign(0, 0)
    for offset, key in enumerate((None, b"a")):
        made.feed(0, offset, key, offset)
    for entry, place in ((taken(made), 0), (taken(made), -1)):
        made.settle(entry, Outcome.POISON, 0)
        made.settle(taken(made), Outcome.DONE, 0, place=place)
    assert made.aside(0) == {} and made.done() == {0: 2}


def test_a_key_set_aside_at_place_0_is_blocked() -> None:
    made = schedule()
    made.assign(0, 0)
    made.feed(0, 0, b"a", 0)
    made.settle(taken(made), Outcome.POISON, 0)
    made.settle(taken(made), Outcome.DONE, 0, place=0)
    assert made.aside(0) == {b"a": {0: 0}}


def test_a_released_record_that_fails_takes_those_of_its_key_back_and_no_others() -> None:
    made = schedule(Lanes.PARTITION)
    made.assign(0, 0)
    held = [Held(1, 1, b"a", 1), Held(2, 2, b"b", 2), Held(3, 3, b"a", 3)]
    made.release(0, held)
    made.release(0, [Held(4, 4, b"a", 4)], blocks=False)
    entry = taken(made)
    made.settle(entry, Outcome.POISON, 0)
    made.settle(taken(made), Outcome.DONE, 0, place=1)
    assert made.aside(0) == {b"a": {1: 1, 3: 3}}, "one that blocks nothing stays released"
    left = []
    while (entry := made.take(0)) is not None:
        left.append(entry.place)
        made.settle(entry, Outcome.DONE, 0)
    assert left == [2, 4]


def test_what_was_released_while_its_successor_was_written_comes_before_it() -> None:
    made = schedule()
    made.assign(0, 0, aside={b"a": {3: 0}})
    made.feed(0, 1, b"a", 61)
    behind = taken(made)
    assert behind.do is Do.SET_ASIDE
    made.release(0, [Held(3, 0, b"a", 60)])
    made.settle(behind, Outcome.DONE, 0, place=8)
    assert made.done() == {0: 2} and made.buffered() == 0 and made.aside(0) == {}
    first = taken(made)
    assert (first.place, first.item) == (3, 60)
    made.settle(first, Outcome.DONE, 0)
    second = taken(made)
    assert (second.place, second.item, second.blocks, second.do) == (8, 61, True, Do.HANDLE)
    assert second.epoch == made.epoch(0)
    made.settle(second, Outcome.DONE, 0)
    assert made.at_rest() and not made.running()


def test_full_and_roomy_are_told_at_their_very_bounds() -> None:
    made = schedule(buffer_max=5, ahead_max=11)
    made.assign(0, 0)
    for offset in range(3):
        made.feed(0, offset, b"%d" % offset, offset)
    assert not made.full(0) and not made.roomy(0), "3 of 5"
    made.settle(taken(made), Outcome.DONE, 0)
    assert made.roomy(0), "2 of 5"
    made.passed(0, 6)
    assert made.roomy(0), "5 of 11 ahead"
    made.passed(0, 7)
    assert not made.roomy(0) and not made.full(0)
    made.passed(0, 11)
    assert not made.full(0)
    made.passed(0, 12)
    assert made.full(0), "11 ahead of 1, which is open"


def test_running_is_of_those_that_are_asked_for() -> None:
    made = schedule()
    for index in range(3):
        made.assign(index, 0)
        made.feed(index, 0, b"a", 0)
    entries = [taken(made) for _ in range(3)]
    assert (made.running(), made.running([0]), made.running([0, 2, 9]), made.running([])) == (3, 1, 2, 0)
    made.settle(entries[0], Outcome.LATER, 0)
    assert (made.running(), made.running([0]), made.buffered()) == (2, 0, 3)


def test_a_settled_event_of_a_dropped_partition_is_counted_each_time() -> None:
    made = schedule()
    made.assign(0, 0)
    made.feed(0, 0, b"a", 0)
    made.feed(0, 1, b"b", 1)
    entries = [taken(made), taken(made)]
    made.drop([0])
    assert [made.settle(each, Outcome.DONE, 0) for each in entries] == [False, False] and made.void == 2


# --- the naive one: every question is answered by going through all records ---


@dataclass
class Record:
    """state: waiting, running, done; aside: it is in the quarantine and blocks its key; of a released one it is
    neither. place: in the quarantine."""

    offset: int
    key: bytes
    state: str = "waiting"
    do: Do = Do.HANDLE
    attempts: int = 0
    not_before: int = 0
    place: int = -1
    aside: bool = False


@dataclass
class Naive:
    """One partition, lanes by key."""

    start: int = 0
    end: int = 0
    records: list[Record] = field(default_factory=list)

    def blocked(self, key: bytes) -> bool:
        return any(each.aside and each.key == key for each in self.records)

    def open(self, key: bytes) -> list[Record]:
        """Of a key what has to be worked on, in order."""
        return [each for each in self.records if each.key == key and not each.aside and each.state != "done"]

    def runnable(self, now: int) -> dict[int, Do]:
        found = {}
        for key in KEYS:
            waits = self.open(key)
            if any(each.state == "running" for each in waits):
                continue
            if waits and waits[0].not_before <= now:
                behind = self.blocked(key) and waits[0].place < 0
                found[waits[0].offset] = Do.SET_ASIDE if behind else waits[0].do
        return found

    def done(self) -> int:
        """A record in the quarantine needs nothing more of its partition."""
        unfinished = [each.offset for each in self.records if each.place < 0 and each.state != "done"]
        return min(unfinished, default=self.end)

    def at(self, offset: int) -> Record:
        return next(each for each in self.records if each.offset == offset)


def compare(made: Schedule[int], naive: Naive, now: int) -> list[Entry[int]]:
    """Take all that may run: exactly what the naive one says."""
    wanted = naive.runnable(now)
    running, entries = {}, []
    while (entry := made.take(now)) is not None:
        running[entry.offset] = entry.do
        record = naive.at(entry.offset)
        record.state, record.do = "running", entry.do
        entries.append(entry)
    assert running == wanted
    due = made.due()
    waits = [
        waits[0].not_before
        for key in KEYS
        if (waits := naive.open(key)) and all(each.state == "waiting" for each in waits) and waits[0].not_before > now
    ]
    assert due == min(waits, default=None)
    return entries


def settle(made: Schedule[int], naive: Naive, entry: Entry[int], outcome: Outcome, now: int, place: int) -> None:
    record = naive.at(entry.offset)
    record.state = "waiting"
    was_blocked, key = naive.blocked(record.key), record.key
    match outcome:
        case Outcome.DONE if entry.do is Do.HANDLE:
            record.state = "done"
        case Outcome.DONE if record.attempts or was_blocked or record.place >= 0:
            record.aside, record.place = True, place if record.place < 0 else record.place
            for each in naive.records:  # released ones of the key go back
                if each.key == key and each.place >= 0 and each.state == "waiting":
                    each.aside = True
            place = record.place
        case Outcome.DONE:  # its key was released meanwhile
            record.place, record.do = place, Do.HANDLE
        case Outcome.LATER:
            record.not_before = now + LATER
        case Outcome.FAILED:
            record.attempts += 1
            if record.attempts == BUDGET.attempts:
                record.do = Do.SET_ASIDE
            else:
                record.not_before = now + 1_000 * 2 ** (record.attempts - 1)
    assert made.settle(entry, outcome, now, place=place)


@examples(150)
@given(st.data())
def test_the_schedule_does_what_the_naive_one_does(data: st.DataObject) -> None:
    made, naive, now, place = schedule(), Naive(), 1, 0
    made.assign(0, 0)
    at_work: list[Entry[int]] = []
    for _ in range(data.draw(st.integers(1, 60))):
        action = data.draw(st.sampled_from(["feed", "feed", "settle", "settle", "settle", "wait", "release", "gap"]))
        if action == "feed":
            key = data.draw(st.sampled_from(KEYS))
            naive.records.append(Record(naive.end, key))
            assert made.feed(0, naive.end, key, naive.end)
            naive.end += 1
        elif action == "gap":
            naive.end += data.draw(st.integers(1, 3))
            made.passed(0, naive.end)
        elif action == "wait":
            now += data.draw(st.sampled_from([1_000, 4_000, LATER]))
        elif action == "release":
            key = data.draw(st.sampled_from(KEYS))
            released = [each for each in naive.records if each.key == key and each.aside]
            assert made.aside(0).get(key, {}) == {each.place: each.offset for each in released}
            for each in released:
                each.aside, each.do, each.attempts, each.not_before = False, Do.HANDLE, 0, 0
            made.release(0, [Held(each.place, each.offset, key, each.offset) for each in released])
        elif at_work:
            entry = at_work.pop(data.draw(st.integers(0, len(at_work) - 1)))
            outcomes = [Outcome.DONE, Outcome.LATER]
            if entry.do is Do.HANDLE:
                outcomes += [Outcome.FAILED, Outcome.FAILED]
            place += 1
            settle(made, naive, entry, data.draw(st.sampled_from(outcomes)), now, place)
        at_work += compare(made, naive, now)
        assert made.done() == {0: naive.done()}
        assert made.running() == len(at_work)
        assert made.at_rest() == all(each.aside or each.state == "done" for each in naive.records)
        assert made.buffered() == sum(each.place < 0 and each.state != "done" for each in naive.records)
        unfinished = {each.offset for each in naive.records if each.place < 0 and each.state != "done"}
        finished = {each.offset for each in naive.records} - unfinished
        assert made.beyond(0) == sorted(each for each in finished if each >= naive.done())
