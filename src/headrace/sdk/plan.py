"""Which event may run now, what is done up to where, which keys are set aside: the scheduler of a consumer. Pure.

The one idea: events wait in lanes, and of a lane one runs at a time, in order. With order by key a lane is a key of a
partition, so there may be more at work than there are partitions; with effects in SQL it is the partition; without
order each event has its own. Offsets are done in any order; what may be committed is the end of those that are done
without a gap. Nothing here waits, and nothing knows a clock: callers say what instant it is.

A partition's assignment has an epoch. What began under an older one comes back and counts for nothing.
"""

from __future__ import annotations

import enum
import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from headrace.sdk.define import Budget

T = TypeVar("T")

LATER = 1_000_000  # microseconds until what failed for another reason than its event is tried again


class Lanes(enum.Enum):
    """What runs one after the other."""

    KEY = "key"
    PARTITION = "partition"
    EVENT = "event"


class Do(enum.Enum):
    """HANDLE: give it to the handler. SET_ASIDE: write it to the quarantine, its handler does not see it (again)."""

    HANDLE = "handle"
    SET_ASIDE = "set aside"


class Outcome(enum.Enum):
    """What became of a task. DONE: as it was meant. FAILED: the handler failed. POISON: no handler can take the record.
    LATER: something else failed, as the database or the quarantine; the event's budget is not touched."""

    DONE = "done"
    FAILED = "failed"
    POISON = "poison"
    LATER = "later"


class Entry(Generic[T]):
    """An event on its way. place: where it lies in the quarantine, if it comes from there; else -1. blocks: set aside,
    it holds up its key. note, written: whoever works on it may keep
    something here."""

    __slots__ = (
        "attempts", "blocks", "do", "epoch", "first_failed", "item", "key", "note", "offset", "partition", "place",
        "written",
    )  # fmt: skip

    def __init__(
        self, partition: int, epoch: int, offset: int, key: bytes | None, item: T, place: int, *, blocks: bool
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.offset = offset
        self.key = key
        self.item = item
        self.place = place
        self.blocks = blocks
        self.do = Do.HANDLE
        self.attempts = 0
        self.first_failed = 0
        self.note: object = None
        self.written = -1

    @property
    def held(self) -> bool:
        return self.place >= 0


class Held(NamedTuple, Generic[T]):
    """A record of the quarantine that is to be handled."""

    place: int
    offset: int
    key: bytes | None
    item: T


class _Lane(Generic[T]):
    __slots__ = ("dropped", "held", "name", "queue", "running", "waiting")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.held: deque[Entry[T]] = deque()  # released: before anything that came later
        self.queue: deque[Entry[T]] = deque()
        self.running = False
        self.waiting = False  # in `ready`, or in `timers` until an instant
        self.dropped = False

    def first(self) -> Entry[T] | None:
        return self.held[0] if self.held else self.queue[0] if self.queue else None


class _Partition(Generic[T]):
    __slots__ = ("aside", "beyond", "end", "epoch", "lanes", "leaving", "open", "running", "start", "waiting")

    def __init__(self, epoch: int, start: int, beyond: Iterable[int]) -> None:
        self.epoch = epoch
        self.start = start  # everything below is done
        self.end = start  # everything below was fed
        self.open: deque[int] = deque()  # fed and at or above `start`, in order
        self.beyond = set(beyond)  # done at or above `start`; also such as are not fed again yet
        self.lanes: dict[Hashable, _Lane[T]] = {}
        self.aside: dict[bytes, dict[int, int]] = {}  # keys that are blocked: of each what is set aside, place: offset
        self.waiting = 0  # source entries that are not done
        self.running = 0
        self.leaving = False


class Schedule(Generic[T]):
    """The events of one consumer. One caller at a time."""

    def __init__(self, *, lanes: Lanes, budget: Budget, buffer_max: int, ahead_max: int) -> None:
        """buffer_max: events of a partition that wait or run. ahead_max: how far its reading may be ahead of what is
        done without a gap: as many may be read again after a crash."""
        self._by = lanes
        self._budget = budget
        self._buffer_max = buffer_max
        self._ahead_max = ahead_max
        self._partitions: dict[int, _Partition[T]] = {}
        self._ready: deque[_Lane[T]] = deque()
        self._timers: list[tuple[int, int, _Lane[T]]] = []
        self._epoch = 0
        self._ticket = 0  # mutation: only the order of tickets counts
        self.void = 0

    # --- partitions ---

    def assign(
        self,
        partition: int,
        start: int,
        *,
        beyond: Iterable[int] = (),
        aside: Mapping[bytes, Mapping[int, int]] | None = None,
    ) -> int:
        """Begin at `start`. beyond: offsets above that need nothing more. aside: the keys that are blocked, of each the
        records in quarantine, place: offset. Returns the epoch."""
        self.drop((partition,))
        self._epoch += 1
        mine = self._partitions[partition] = _Partition(self._epoch, start, beyond)
        mine.aside = {key: dict(places) for key, places in (aside or {}).items()}
        return self._epoch

    def leave(self, partitions: Iterable[int]) -> None:
        """Start nothing more of these; what runs may still end, and counts."""
        for index in partitions:
            mine = self._partitions.get(index)
            if mine is not None:
                mine.leaving = True
                for lane in mine.lanes.values():
                    lane.held.clear()
                    lane.queue.clear()

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget these: what still runs counts for nothing."""
        for index in partitions:
            mine = self._partitions.pop(index, None)
            if mine is not None:
                for lane in mine.lanes.values():
                    lane.dropped = True

    @property
    def partitions(self) -> tuple[int, ...]:
        return tuple(self._partitions)

    def epoch(self, partition: int) -> int:
        """0 where the partition is not ours."""
        mine = self._partitions.get(partition)
        return 0 if mine is None else mine.epoch

    # --- events in ---

    def feed(self, partition: int, offset: int, key: bytes | None, item: T) -> bool:
        """An event, offsets rising. False where it is not waited for: not ours, seen before, done before."""
        mine = self._partitions.get(partition)
        if mine is None or mine.leaving or offset < mine.end:
            return False
        mine.end = offset + 1
        mine.open.append(offset)
        if offset in mine.beyond:
            self._advance(mine)
            return False
        mine.waiting += 1
        lane = self._lane(mine, partition, offset, key)
        lane.queue.append(Entry(partition, mine.epoch, offset, key, item, -1, blocks=self._by is not Lanes.EVENT))
        self._wake(lane)
        return True

    def passed(self, partition: int, end: int) -> None:
        """Below `end` nothing else comes: what lies there are no events."""
        mine = self._partitions.get(partition)
        if mine is not None and not mine.leaving and end > mine.end:
            mine.end = end
            self._advance(mine)

    def release(self, partition: int, records: Sequence[Held[T]], *, blocks: bool = True) -> None:
        """Give records of the quarantine to the handler, in this order, before any newer one of their key. blocks: they
        held up their keys, which are free then; they are all that the keys have in quarantine."""
        mine = self._partitions.get(partition)
        if mine is None or mine.leaving:
            return
        for place, offset, key, item in records:
            if blocks and key is not None:
                mine.aside.pop(key, None)
            lane = self._lane(mine, partition, offset, key)
            lane.held.append(Entry(partition, mine.epoch, offset, key, item, place, blocks=blocks))
            self._wake(lane)

    # --- work ---

    def take(self, now: int) -> Entry[T] | None:
        """An event that may run now, from then on running; None where none may. `entry.do` says what to do."""
        while self._timers and self._timers[0][0] <= now:
            lane = heapq.heappop(self._timers)[2]
            if not lane.dropped:
                self._ready.append(lane)
        while self._ready:
            lane = self._ready.popleft()
            lane.waiting = False
            entry = lane.first()
            if lane.dropped or entry is None:
                continue
            mine = self._partitions[entry.partition]
            if entry.key is not None and entry.key in mine.aside and not entry.held:
                entry.do = Do.SET_ASIDE
            lane.running = True
            mine.running += 1
            return entry
        return None

    def due(self) -> int | None:
        """The instant at which something may run that may not now, as long as nothing else happens."""
        while self._timers and self._timers[0][2].dropped:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def settle(self, entry: Entry[T], outcome: Outcome, now: int, *, place: int = -1) -> bool:
        """A taken event's end. place: where it lies in quarantine now, of one that was set aside and blocks its key.
        False where it no longer counts, as its partition went."""
        mine = self._partitions.get(entry.partition)
        if mine is None or mine.epoch != entry.epoch:
            self.void += 1
            return False
        lane = mine.lanes[self._name(entry.partition, entry.offset, entry.key)]
        lane.running = False
        mine.running -= 1
        match outcome:
            case Outcome.DONE if entry.do is Do.HANDLE:
                self._finish(mine, lane, entry)
            case Outcome.DONE:
                self._aside(mine, lane, entry, place)
            case Outcome.POISON:
                entry.do, entry.attempts = Do.SET_ASIDE, entry.attempts + 1
            case Outcome.FAILED:
                entry.attempts += 1
                entry.first_failed = entry.first_failed or now
                if self._budget.spent(entry.attempts, entry.first_failed, now):
                    entry.do = Do.SET_ASIDE
                else:
                    self._later(lane, now + self._budget.wait(entry.attempts))
            case Outcome.LATER:
                self._later(lane, now + LATER)
        if lane.first() is None:
            del mine.lanes[lane.name]  # nothing else has it: it ran, so it waited nowhere
        else:
            self._wake(lane)
        return True

    # --- what is done ---

    def done(self) -> dict[int, int]:
        """Of each partition the offset below which everything is done or set aside."""
        return {index: mine.start for index, mine in self._partitions.items()}

    def beyond(self, partition: int) -> list[int]:
        """Offsets above, done already, in order."""
        mine = self._partitions[partition]
        return sorted(mine.beyond)

    def full(self, partition: int) -> bool:
        """Whether no more of the partition should be read for now."""
        mine = self._partitions.get(partition)
        return mine is not None and (mine.waiting >= self._buffer_max or mine.end - mine.start >= self._ahead_max)

    def roomy(self, partition: int) -> bool:
        """Whether a partition that was full should be read again: at half, so that it does not flutter."""
        mine = self._partitions.get(partition)
        return mine is not None and (
            mine.waiting <= self._buffer_max // 2 and mine.end - mine.start <= self._ahead_max // 2
        )

    def running(self, partitions: Iterable[int] | None = None) -> int:
        chosen = self._partitions if partitions is None else partitions
        return sum(self._partitions[index].running for index in chosen if index in self._partitions)

    def buffered(self) -> int:
        """Events that wait or run."""
        return sum(mine.waiting for mine in self._partitions.values())

    def at_rest(self) -> bool:
        """Whether nothing waits or runs, of the partitions or of the quarantine."""
        return not any(mine.lanes for mine in self._partitions.values())

    def aside(self, partition: int) -> Mapping[bytes, Mapping[int, int]]:
        """The keys that are blocked, of each what lies in quarantine of it, place: offset."""
        mine = self._partitions.get(partition)
        return {} if mine is None else mine.aside

    # --- inside ---

    def _name(self, partition: int, offset: int, key: bytes | None) -> Hashable:
        match self._by:
            case Lanes.KEY:
                return key
            case Lanes.PARTITION:
                return partition
            case Lanes.EVENT:
                return offset

    def _lane(self, mine: _Partition[T], partition: int, offset: int, key: bytes | None) -> _Lane[T]:
        name = self._name(partition, offset, key)
        lane = mine.lanes.get(name)
        if lane is None:
            lane = mine.lanes[name] = _Lane(name)
        return lane

    def _wake(self, lane: _Lane[T]) -> None:
        if not (lane.running or lane.waiting) and lane.first() is not None:
            lane.waiting = True
            self._ready.append(lane)

    def _later(self, lane: _Lane[T], at: int) -> None:
        if lane.first() is not None:  # empty where the partition is being left
            self._ticket += 1
            lane.waiting = True
            heapq.heappush(self._timers, (at, self._ticket, lane))

    def _finish(self, mine: _Partition[T], lane: _Lane[T], entry: Entry[T]) -> None:
        _remove(lane, entry)
        if not entry.held:
            mine.waiting -= 1
            mine.beyond.add(entry.offset)
            self._advance(mine)

    def _aside(self, mine: _Partition[T], lane: _Lane[T], entry: Entry[T], place: int) -> None:
        """It lies in quarantine now. Where it blocks its key, what is released of the key goes back there too."""
        key, blocked = entry.key, entry.key is not None and entry.key in mine.aside
        self._finish(mine, lane, entry)
        if place < 0 or key is None:
            return
        if not (entry.held or entry.attempts or blocked):
            # Its key was blocked when it was taken and was released while it was written: so it is released too, and
            # what lies before it in the quarantine is in front of it here.
            if not mine.leaving:
                lane.held.append(Entry(entry.partition, entry.epoch, entry.offset, key, entry.item, place, blocks=True))
            return
        places = mine.aside.setdefault(key, {})
        places[place] = entry.offset
        back = [each for each in lane.held if each.key == key and each.blocks]
        places.update({each.place: each.offset for each in back})
        if back:
            lane.held = deque(each for each in lane.held if each not in back)

    @staticmethod
    def _advance(mine: _Partition[T]) -> None:
        while mine.open and mine.open[0] in mine.beyond:
            mine.beyond.remove(mine.open.popleft())
        mine.start = mine.open[0] if mine.open else mine.end


def _remove(lane: _Lane[T], entry: Entry[T]) -> None:
    """It is the first, unless records were released before it while it ran."""
    waits = lane.held if entry.held else lane.queue
    if waits and waits[0] is entry:
        waits.popleft()
