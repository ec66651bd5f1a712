"""Which partitions of a Kafka log this process does not read on, and why; whether it may judge at all. Touches nothing:
the control topic is asked through what it is given.

The one idea: what a row is judged follows from the log alone, so what halts is the reading. A record is taken once its
stamp is no more than five minutes ahead of an instant, by the reader's clock, at which it had read the registry to its
end: an operator's restart of a clock is about records that are further ahead than that (log/kafka_clock.py), so a
reader whose clock is right knows of it before it takes any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter

from headrace.clients.kafka.port import Fetched, Place, Record
from headrace.core.errors import HaltedError, LogError
from headrace.core.points import Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.log.kafka_clock import Asked, Halt, Wrong, created, halted, passed, unfit
from headrace.log.kafka_feed import Feed
from headrace.log.kafka_registry import Registered
from headrace.log.kafka_rows import position
from headrace.log.plan import AHEAD_MAX

# Between two times that the brokers are asked while a partition is halted: in each of them nothing is read.
ASK_EVERY = Duration.parse("10s")
_NEVER = Instant(-(2**63))
_stamp = itemgetter(Record._fields.index("timestamp"))


class Halts:
    """A process's. One thread at a time. checked: by the reader's clock, when the registry was last read to its end."""

    def __init__(self, clock: Clock, *, ask: Callable[[], Asked], leader: Callable[[Place], int | None]) -> None:
        self.clock = clock
        self.checked = _NEVER
        self._ask = ask
        self._leader = leader
        self._halts: dict[Place, Halt] = {}
        self._asked: Asked | None = None
        self._passed: LogError | None = None

    def __bool__(self) -> bool:
        return bool(self._halts)

    # --- taking ---

    def split(self, feed: Feed, one: Fetched) -> tuple[Sequence[Record], Fetched | None]:
        """Records of a feed that may be taken, as they count, and what may not be taken yet."""
        records = feed.counted(one.records)
        if not records or not feed.stamped:
            return records, None
        stop = self._stop(feed, records, one.created)
        if stop is None:
            return records, None
        return records[:stop], one._replace(records=records[stop:])

    def _stop(self, feed: Feed, records: Sequence[Record], created: Sequence[int]) -> int | None:
        if created:
            typed = {offset for offset in created if not feed.restarted(offset)}
            first = next((place for place, record in enumerate(records) if record.offset in typed), None)
            if first is not None:
                ahead = self._stop(feed, records[:first], ()) if first else None
                return first if ahead is None else ahead
        limit = (min(self.checked, self.clock.now()) + AHEAD_MAX.micros) // 1_000
        if max(map(_stamp, records)) <= limit:
            return None
        return next(place for place, record in enumerate(records) if record.timestamp > limit)

    def unchecked(self, rests: Iterable[Fetched]) -> bool:
        """Whether the registry must be read before these are judged: it was read too long ago."""
        limit = (self.clock.now() + AHEAD_MAX.micros) // 1_000
        old = (self.checked + AHEAD_MAX.micros) // 1_000
        return any(old < rest.records[0].timestamp <= limit for rest in rests)

    # --- halting ---

    def halt(self, feed: Feed, rest: Fetched) -> None:
        """Its partition is read no further than to the first record of `rest`."""
        first = rest.records[0]
        self._halts[feed.place] = Halt(
            partition=feed.partition,
            place=feed.place,
            position=position(feed.form, first.offset),
            offset=first.offset,
            stamp=None if first.offset in rest.created else first.timestamp,
            leader=self._leader(feed.place),
        )
        self._look()

    def resumed(self) -> list[Halt]:
        """Those that may be read on, as time went by or the reader's clock was set right; they are no longer halted."""
        if not self._due():
            return []
        limit = (self.clock.now() + AHEAD_MAX.micros) // 1_000
        found = [halt for halt in self._halts.values() if halt.stamp is not None and halt.stamp <= limit]
        for halt in found:
            del self._halts[halt.place]
        self._asked = None
        self._look()
        return found

    def changed(self, feed: Feed, held: Registered) -> Halt | None:
        """The topic of a feed is `held` from now on; its halt, where that is over."""
        for each in held.restarts:
            mine = each.partition == feed.partition.index and each not in feed.held.restarts
            if mine and each.begin < feed.next:
                self._passed = passed(feed.partition, each.begin)
        feed.held = held
        halt = self._halts.get(feed.place)
        if halt is None or not feed.restarted(halt.offset):
            return None
        return self._halts.pop(feed.place)

    def dropped(self, place: Place) -> None:
        self._halts.pop(place, None)

    def _look(self) -> None:
        if any(halt.stamp is not None for halt in self._halts.values()) and self._due():
            self._asked = self._ask()

    def _due(self) -> bool:
        return self._asked is None or not 0 <= self.clock.now() - self._asked.after < ASK_EVERY.micros

    # --- saying so ---

    def error(self, place: Place) -> LogError | None:
        """Why a partition is not read on; None where it is."""
        halt = self._halts.get(place)
        if halt is None:
            return None
        if halt.stamp is None:
            return created(halt)
        now = self.clock.now()
        asked = self._asked or Asked(before=now, after=now, times=(), why="they are being asked")
        return halted(halt, asked) if asked.wrong is Wrong.BROKER else unfit(halt, asked)

    def halted(self) -> Mapping[Partition, HaltedError]:
        errors = {halt.partition: self.error(halt.place) for halt in list(self._halts.values())}
        return {partition: error for partition, error in errors.items() if isinstance(error, HaltedError)}

    def unfit(self) -> LogError | None:
        """Why this process may not judge; None where it may."""
        if self._passed is not None or not self._halts:
            return self._passed
        errors = [self.error(place) for place in list(self._halts)]
        return next((error for error in errors if error is not None and not isinstance(error, HaltedError)), None)

    def of(self, topic: str) -> list[Halt]:
        """The halts of a topic."""
        return [halt for halt in self._halts.values() if halt.partition.topic == topic]

    @property
    def wrong(self) -> Wrong:
        """Whose clock is, as the brokers said last."""
        return Wrong.UNTOLD if self._asked is None else self._asked.wrong
