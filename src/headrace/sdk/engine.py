"""A consumer's place in its group: what is read, who may work on what, what is committed, what a rebalance takes.
Touches the cluster; runs in one thread, while workers take and settle from others.

The one idea: workers ask the schedule themselves, under a lock, so that from one event of a key to the next there is no
thread in between; this thread only reads, commits and looks after the partitions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.clients.kafka.port import GroupOffset, Place, Record, Span
from headrace.core.errors import HeadraceError, LogError
from headrace.core.times import Duration
from headrace.sdk.connect import Connection
from headrace.sdk.define import Budget, Counts, Reason, Start
from headrace.sdk.keeper import Keeper
from headrace.sdk.note import read_note, write_note
from headrace.sdk.places import check_inside, recreated
from headrace.sdk.plan import Entry, Held, Lanes, Outcome, Schedule
from headrace.sdk.port import Member
from headrace.sdk.sql import SqlOffsets

LOGGER = logging.getLogger(__name__)

POLL = Duration.parse("250ms")  # of an idle consumer; records end it at once
POLL_FULL = Duration.parse("20ms")  # while a partition is paused: it is read again so soon
RECORDS_MAX = 1_000
NEWS_EVERY_S = 1.0  # between two looks at the quarantine, for releases
TAKEN_AGAIN_S = 3.0  # a partition that turned out to be another's is looked at again, if it is ours still


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """buffered_max: events of a partition that wait or run; beyond, it is paused. ahead_max: see plan.Schedule. commit:
    how often. drain: how long a rebalance, or the end, waits for what runs."""

    group: str
    lanes: Lanes
    budget: Budget
    start: Start
    buffered_max: int = 2_000
    ahead_max: int = 20_000
    commit: Duration = Duration.parse("1s")
    drain: Duration = Duration.parse("20s")


class Engine:
    """A member of a group, from `open` to `finish`. It is its own sdk.port.Watcher."""

    def __init__(
        self, connection: Connection, options: Options, *, sql: SqlOffsets | None, ready: Callable[[int], None]
    ) -> None:
        """ready: told, in this thread, that so many events more may be taken."""
        self.connection = connection
        self.options = options
        self.keeper = Keeper(connection, options.group)
        self.schedule: Schedule[Record] = Schedule(
            lanes=options.lanes, budget=options.budget, buffer_max=options.buffered_max, ahead_max=options.ahead_max
        )
        self.changed = threading.Condition()  # guards the schedule and what follows
        self._sql_next: dict[int, int] = {}  # of each partition that is ours, the offset in SQL as we left it there
        self.counted: Counter[str] = Counter()
        self.set_aside: Counter[Reason] = Counter()
        self.stopping = False
        self._failure: BaseException | None = None
        self._sql = sql
        self._ready = ready
        self._member: Member | None = None
        self._ends: dict[int, int] = {}
        self._had_partitions = False
        self._paused: set[int] = set()
        self._moved: dict[int, float] = {}  # partitions that another has in SQL: when to look again
        self._committed: dict[int, GroupOffset] = {}
        self._commit_at = self._news_at = 0.0

    # --- the thread ---

    def open(self) -> None:
        """Join. Raises: LogError HR-0340 to HR-0342, UsageError HR-0438, HR-0439."""
        self.keeper.make()
        if self._sql is not None:
            self._sql.prepare(self.options.group)
        self._member = self.connection.messages.join(self.options.group, self.connection.name, self)

    def turn(self) -> None:
        """Read some, commit, look after things. Raises: what cannot pass by itself."""
        assert self._member is not None
        if self._failure is not None:
            raise self._failure
        polled = self._member.poll(timeout=POLL_FULL if self._paused or self._moved else POLL, records_max=RECORDS_MAX)
        if polled.records or polled.ends:
            with self.changed:
                fed = sum(
                    self.schedule.feed(index, record.offset, record.key, record) for index, record in polled.records
                )
                for index, end in polled.ends.items():
                    self.schedule.passed(index, end)
                self.changed.notify(fed)
            if fed:
                self._ready(fed)
        now = time.monotonic()
        self._balance()
        if self._moved:
            self._look_again(now)
        if now >= self._news_at:
            self._news()
            self._news_at = now + NEWS_EVERY_S
        if now >= self._commit_at:
            self._commit(wait=False)
            self._commit_at = now + self.options.commit.micros / 1e6

    def at_end(self) -> bool:
        """Whether all of our partitions are done up to where they ended when we got them."""
        with self.changed:
            done = self.schedule.done()
            return (
                self._had_partitions
                and not self._moved
                and self.schedule.at_rest()
                and all(done[index] >= self._ends.get(index, 0) for index in done)
            )

    def finish(self) -> None:
        """What runs may end, as long as `drain`; then leave. Raises nothing of the cluster: it is logged."""
        with self.changed:
            self.stopping = True
            self.schedule.leave(self.schedule.partitions)
            self.changed.notify_all()
        self._ready(0)
        self._drained(self.schedule.partitions)
        self._commit(wait=True)
        if self._member is not None:
            self._member.leave()
            self._member = None
        with self.changed:
            self.schedule.drop(self.schedule.partitions)
        self.keeper.close()

    def stop(self) -> None:
        """From any thread, and from a signal's handler: it takes no lock."""
        self.stopping = True

    def fail(self, error: BaseException) -> None:
        """From any thread: `turn` raises it."""
        self._failure = error

    # --- workers ---

    def take(self) -> Entry[Record] | None:
        """The next event to work on; waits for one. None when it is over."""
        with self.changed:
            while not self.stopping:
                now = time.monotonic_ns() // 1_000
                entry = self.schedule.take(now)
                if entry is not None:
                    return entry
                due = self.schedule.due()
                self.changed.wait(None if due is None else max(0.0, (due - now) / 1e6))
            return None

    def try_take(self) -> tuple[Entry[Record] | None, float | None]:
        """An event, or in how many seconds there may be one that waits for its next attempt."""
        with self.changed:
            if self.stopping:
                return None, None
            now = time.monotonic_ns() // 1_000
            entry = self.schedule.take(now)
            due = None if entry is not None else self.schedule.due()
            return entry, None if due is None else max(0.0, (due - now) / 1e6)

    def settle(self, entry: Entry[Record], outcome: Outcome, place: int = -1) -> bool:
        """See plan.Schedule.settle."""
        with self.changed:
            counts = self.schedule.settle(entry, outcome, time.monotonic_ns() // 1_000, place=place)
            if self.stopping or self.schedule.running((entry.partition,)) == 0:
                self.changed.notify_all()  # a rebalance may wait for it
            return counts

    def sql_next(self, entry: Entry[Record]) -> int | None:
        """The offset in SQL of an event's partition, as we left it there, never beyond the event; None where the
        partition went since it was taken. What is ours again begins anew: an event of before would move it back."""
        with self.changed:
            return self._sql_next[entry.partition] if self._ours(entry) else None

    def sql_done(self, entry: Entry[Record]) -> None:
        """The offset in SQL was moved past an event."""
        with self.changed:
            if self._ours(entry):
                self._sql_next[entry.partition] = entry.offset + 1

    def sql_moved(self, entry: Entry[Record]) -> bool:
        """The offset in SQL is not what we left there: somebody else works on this partition. False where it went since
        the event was taken."""
        with self.changed:
            if not self._ours(entry):
                return False
            self.schedule.drop((entry.partition,))
            self._moved[entry.partition] = time.monotonic() + TAKEN_AGAIN_S
        LOGGER.warning("%s/%d: its offset was moved by another consumer", self.connection.name, entry.partition)
        return True

    def _ours(self, entry: Entry[Record]) -> bool:
        """Under the lock: whether an event's partition is still ours, and has been since it was taken."""
        return self.schedule.epoch(entry.partition) == entry.epoch

    def counts(self) -> Counts:
        with self.changed:
            return Counts(
                handled=self.counted["handled"],
                failed=self.counted["failed"],
                set_aside=dict(self.set_aside),
                released=self.counted["released"],
                void=self.schedule.void,
                buffered=self.schedule.buffered(),
                running=self.schedule.running(),
            )

    # --- partitions: called inside the member's poll and leave ---

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        with self.changed:  # nothing of before goes on while it is read where they begin
            self.schedule.drop(partitions)
        places = [Place(self.connection.name, each) for each in partitions]
        spans = dict(zip(partitions, self.connection.messages.spans(places), strict=True)) if places else {}
        starts: dict[int, int] = {}
        self._had_partitions = True
        beyond = self._beyond(partitions, spans, starts)
        for index in partitions:
            self._begin(index, starts[index], beyond.get(index, ()))
            self._ends[index] = spans[index].end
        if partitions:
            LOGGER.info("group %s: got partitions %s of %s", self.options.group, list(partitions), self.connection.name)
        return starts

    def revoked(self, partitions: Sequence[int]) -> None:
        with self.changed:
            self.schedule.leave(partitions)
        self._drained(partitions)
        self._commit(wait=True, partitions=partitions)
        self.lost(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        with self.changed:
            self.schedule.drop(partitions)
        self.keeper.forget(partitions)
        for index in partitions:
            self._paused.discard(index)
            self._moved.pop(index, None)
            self._committed.pop(index, None)
        if partitions:
            LOGGER.info(
                "group %s: gave up partitions %s of %s", self.options.group, list(partitions), self.connection.name
            )

    # --- inside ---

    def _beyond(
        self, partitions: Sequence[int], spans: Mapping[int, Span], starts: dict[int, int]
    ) -> dict[int, frozenset[int]]:
        """Fills `starts`; returns what is done above them. Raises: LogError HR-0303, HR-0347, StateError HR-0436."""
        beyond: dict[int, frozenset[int]] = {}
        first = {
            index: span.start if self.options.start is Start.EARLIEST else span.end for index, span in spans.items()
        }
        if self._sql is not None:
            starts |= self._sql.begin(self.options.group, self.connection, first)
        else:
            topic_id = self.connection.about.topic_id
            places = [Place(self.connection.name, each) for each in partitions]
            held = self.connection.messages.committed(self.options.group, places) if places else {}
            for place in places:
                offset, note = held.get(place, GroupOffset(first[place.partition], ""))
                starts[place.partition] = offset
                stamp, beyond[place.partition] = read_note(note, offset)
                if stamp and stamp != topic_id:
                    raise recreated(self.connection.name, self.options.group, stamp, topic_id)
        for index, start in starts.items():
            check_inside(f"{self.connection.name}/{index}", start, spans[index])
        return beyond

    def _begin(self, index: int, start: int, beyond: Iterable[int]) -> None:
        fold = self.keeper.fold(index)
        aside = {key: places for key, places in fold.keys.items() if key not in fold.released}
        blocked: list[int] = [place for key in fold.released for place in fold.keys[key]]
        held = self.keeper.read_held(index, [*blocked, *fold.released_alone])
        if self._sql is not None:
            # Set aside, and then the transaction that moves the offset past it did not come about.
            open_ones = [offset for offset in fold.held_offsets() if offset >= start]
            self._sql.hold(self.options.group, self.connection.about.topic_id, index, open_ones)
        with self.changed:
            self.schedule.assign(
                index, start, beyond={*beyond, *(each for each in fold.offsets if each >= start)}, aside=aside
            )
            self._sql_next[index] = start
            self._moved.pop(index, None)
            self._release(index, held, fold.released_alone)
        self._paused.discard(index)
        self._committed.pop(index, None)

    def _release(self, index: int, held: Sequence[Held[Record]], alone: Iterable[int]) -> None:
        """Under the lock."""
        single = set(alone)
        self.schedule.release(index, [each for each in held if each.place not in single])
        self.schedule.release(index, [each for each in held if each.place in single], blocks=False)
        self.changed.notify(len(held))
        if held:
            self._ready(len(held))

    def _news(self) -> None:
        """Releases, and what somebody else held of our partitions: it does not count."""
        with self.changed:  # a key that is blocked now was said to be so before what is read next
            blocked = {index: set(self.schedule.aside(index)) for index in self.schedule.partitions}
        try:
            singles: dict[int, list[int]] = {}
            for index, record, step in self.keeper.news():
                if step.foreign:
                    self.keeper.done(index, record.key, record.offset, void=True)
                elif step.released_place is not None:
                    singles.setdefault(index, []).append(step.released_place)
            for index, keys in blocked.items():
                released = keys & self.keeper.folded(index).released
                with self.changed:
                    aside = self.schedule.aside(index)
                    places = [place for key in released for place in aside.get(key, ())]
                alone = singles.get(index, [])
                if places or alone:
                    held = self.keeper.read_held(index, [*places, *alone])
                    with self.changed:
                        self._release(index, held, alone)
        except LogError as error:
            LOGGER.warning("the quarantine of group %s could not be read: %s", self.options.group, error.message)

    def _balance(self) -> None:
        """Pause what is full, read on what has room."""
        assert self._member is not None
        with self.changed:
            full = [
                index for index in self.schedule.partitions if index not in self._paused and self.schedule.full(index)
            ]
            roomy = [index for index in self._paused if self.schedule.roomy(index)]
        if full:
            self._member.pause(full)
            self._paused.update(full)
        if roomy:
            self._member.resume(roomy)
            self._paused.difference_update(roomy)

    def _look_again(self, now: float) -> None:
        """At partitions that moved and are still ours: from where SQL says."""
        assert self._member is not None
        for index in [each for each, at in self._moved.items() if now >= at]:
            starts = self.assigned((index,))
            self._member.seek(index, starts[index])

    def _drained(self, partitions: Iterable[int]) -> None:
        chosen = tuple(partitions)
        deadline = time.monotonic() + self.options.drain.micros / 1e6
        with self.changed:
            while self.schedule.running(chosen) and time.monotonic() < deadline:
                self.changed.wait(max(0.0, deadline - time.monotonic()))
            left = self.schedule.running(chosen)
        if left:
            LOGGER.warning(
                "group %s: %d events still run after %s; they will be handled again elsewhere",
                self.options.group, left, self.options.drain,
            )  # fmt: skip

    def _commit(self, *, wait: bool, partitions: Iterable[int] | None = None) -> None:
        if self._member is None:
            return
        with self.changed:
            done = self.schedule.done()
            chosen = done if partitions is None else [each for each in partitions if each in done]
            offsets = {
                index: GroupOffset(
                    done[index], write_note(self.connection.about.topic_id, done[index], self.schedule.beyond(index))
                )
                for index in chosen
            }
        offsets = {index: each for index, each in offsets.items() if self._committed.get(index) != each}
        if not offsets:
            return
        try:
            self._member.commit(offsets, wait=wait)
            self._committed |= offsets
        except HeadraceError as error:
            # Whoever has the partitions next does these events again, as after a crash.
            LOGGER.warning("%s", error.message, extra={"code": error.code, "detail": error.detail})
