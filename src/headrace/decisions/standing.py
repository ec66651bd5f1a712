"""The views of an owner, and where they stand: read to a request's offset, asked there, moved past it. Reads the log
through its port.

The one idea: where the views stand is known at any moment, partition by partition, because nobody else moves them. So
a request is asked at exactly its offset, and what a record says of the cut is what was true when the views answered.
Views that are held by partition were asked before (decisions/held.py): their answers and cuts stand beside these.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from headrace.core.errors import HaltedError, LogError, NotFoundError
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.decisions.asking import Asking
from headrace.decisions.held import NONE_HELD, HeldPoint
from headrace.decisions.plan import Answer, Version
from headrace.decisions.port import Features, Row
from headrace.decisions.present import PresentCuts
from headrace.log.port import Log, PartitionState, TopicState

# Between two looks for new partitions and for the log's ends, round trips while requests wait. What comes to partitions
# that are followed is seen at each request without one.
LOOK_EVERY = Duration.parse("1s")
RETRY_EVERY = Duration.parse("5s")  # after a look that failed: a broker that is stopped holds each for seconds
BESIDE = Duration.parse("30s")  # after that nobody proves ends beside any more
_logger = logging.getLogger(__name__)
_NEVER = Instant(-(2**63))
_UNPROVEN = Instant(0)  # a staleness of decades, which fits where stalenesses are kept


class StandingViews:
    """ends: where each partition that the views follow stands. live: the partitions of the requests. looked: when the
    ends were last proven to be the log's. One thread at a time."""

    def __init__(self, log: Log, version: Version, features: Features, clock: Clock) -> None:
        """Reads nothing yet: `look` comes first."""
        self.ends: dict[Partition, int] = {}
        self.live: tuple[Partition, ...] = ()
        self.looked, self._looked = _UNPROVEN, _NEVER  # the newest look need not have proven it
        self._log = log
        self._version = version
        self._features = features
        self._clock = clock
        self._topic = version.decision.request
        self._follows_requests = self._topic.name in features.topics  # they are events that views read
        self._asking = Asking(version, features, self._topic)
        self._present = PresentCuts(version.views, {})
        self._failed = _NEVER  # the newest look, if it did
        self._proving = _NEVER  # when ends were last asked for beside; and when with success, and what they were
        self._proven: tuple[Instant, Mapping[Partition, int]] = (_NEVER, {})

    def prove(self) -> None:
        """Ask the log for its ends, beside the decisions: the next that reaches them knows that they were the log's.
        Any thread; whoever calls does so again and again. Raises: LogError."""
        asked = self._proving = self._clock.now()
        self._proven = asked, {partition: each.end for partition, each in self._followed(self._log.topics()).items()}

    def see(self) -> None:
        """Look again, where the last look is a while ago, and nobody proves the ends beside. One that fails for now
        changes nothing: what is known is decided on, as stale as it is."""
        now = self._clock.now()
        if 0 <= now - self._failed <= RETRY_EVERY.micros:
            return
        try:
            if 0 <= now - self._proving <= BESIDE.micros:
                if self._proven[0] > self.looked:
                    self._reach(*self._proven)
            elif now - self._looked > LOOK_EVERY.micros or now < self._looked:
                self.look()
        except LogError as error:
            if not error.retryable:
                raise
            self._failed = now
            _logger.warning("the log's ends are not known: %s", error, extra={"code": error.code})

    def _reach(self, proven: Instant, ends: Mapping[Partition, int]) -> None:
        """What is at hand is read; where that is all that the log had when its ends were proven, it is said so."""
        states = self._log.topics(fresh=False)
        held = self._followed(states)
        if frozenset(_live(states, self._topic.name)) != frozenset(self.live) or any(p not in self.ends for p in held):
            self.look()
            return
        halts: dict[Partition, HaltedError] = {}
        self._features.catch_up(self._log, upto=Cut(), halts=halts)
        self._move()
        if not halts and all(each.at_hand >= ends.get(partition, each.start) for partition, each in held.items()):
            self.looked = proven

    def look(self) -> Mapping[Partition, PartitionState]:
        """Read the views' topics to their ends as they are now; what the log then says of the requests' partitions.

        Raises: NotFoundError HR-0302 where there is no such topic; as `Features.catch_up`."""
        looked = self._clock.now()
        halts: dict[Partition, HaltedError] = {}
        self._features.catch_up(self._log, halts=halts)
        states = self._log.topics(fresh=False)  # as that saw them
        read = dict(self._features.frontier)
        self.ends = {partition: read.get(partition, each.start) for partition, each in self._followed(states).items()}
        requests = _live(states, self._topic.name)
        if not requests:
            raise NotFoundError("HR-0302", f"no topic {self._topic.name!r} in the log", hint="headrace apply")
        self.live = tuple(sorted(requests))
        self._present = PresentCuts(self._version.views, self.ends)
        self._looked = looked
        if not halts:  # what lies behind a halt is not in the cut, and so nobody has proven that it is the log's end
            self.looked = looked
        return requests

    def stand(self, at: Mapping[Partition, int], *, moved: bool) -> None:
        """Stand exactly at these offsets of partitions of the requests, and elsewhere at the ends as far as the log
        knows them. moved: look for what came elsewhere, also where they stand there already."""
        follows = self._follows_requests
        if moved or (follows and any(self.ends.get(partition) != offset for partition, offset in at.items())):
            self._features.catch_up(self._log, upto=Cut.of(at if follows else {}), halts={})
            self._move()

    def _move(self) -> None:
        for partition, offset in self._features.frontier:
            if self.ends.get(partition) != offset:
                self.ends[partition] = offset
                self._present.moved(partition)

    def _followed(self, states: Iterable[TopicState]) -> dict[Partition, PartitionState]:
        topics = frozenset(self._features.topics)
        return {held.partition: held for state in states if state.topic.name in topics for held in state.partitions}

    def ask(
        self,
        partition: Partition,
        offset: int,
        row: Row,
        t: Instant,
        available_at: int,
        behind: Iterable[int],
        held: Mapping[int, HeldPoint] = NONE_HELD,
    ) -> tuple[tuple[Answer, ...], str]:
        """The views' answers to a request at whose offset they stand, and their points as a record keeps them. behind:
        places of views that have not reached a cut that was recorded before. held: what was answered elsewhere."""
        staleness = max(0, available_at - self.looked)
        return self._asking.ask(partition, offset, row, t, staleness, self._present, behind=behind, held=held)

    def ask_beside(self, partition: Partition, offset: int, row: Row, t: Instant) -> Mapping[int, Answer]:
        """Answers to a request that lies in the log already, at the present cut: those that can be given where the
        views stand, by the view's place."""
        return self._asking.ask_beside(partition, offset, row, t)

    def pass_by(self, partition: Partition, offset: int, row: Row, *, t: int, available_at: int, verdict: int) -> None:
        """The request at whose offset they stand is an event like any other from now on."""
        if self._follows_requests:
            self._features.ingest_row(partition, offset, available_at, t, verdict, row)
            self.ends[partition] = offset + 1
            self._present.moved(partition)

    def cuts(self) -> list[Cut]:
        """The present cut of each view."""
        return self._present.cuts()


def _live(states: Iterable[TopicState], name: str) -> dict[Partition, PartitionState]:
    return {
        held.partition: held
        for state in states
        for held in state.partitions
        if state.topic.name == name and held.partition.index < IMPORTS_FROM
    }
