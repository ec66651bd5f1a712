"""The views over derived topics that this process holds: a state for each partition that its group gives it. Touches
threads and the log.

The one idea: an answer carries its cut, so who holds a partition needs no claim (SEMANTICS 5.2): two that hold it both
tell the truth, and one that is behind what was recorded is told so by who asked. A partition answers once it was read
to its stable end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from headrace.core.codec import is_physical
from headrace.core.errors import HaltedError, HeadraceError, InputError, LogError, StateError
from headrace.core.points import Cut, Partition
from headrace.core.schema import DataType
from headrace.core.times import Clock, Instant
from headrace.decisions.held import OTHER_VERSION, OWNER_AWAY, TOO_OLD
from headrace.decisions.plan import Answer
from headrace.features.run import AskAt, FeatureState
from headrace.log.define import Topic
from headrace.log.port import Log, Physical
from headrace.stream.plan import Passed
from headrace.stream.proving import Proving

Count = Callable[[str, str, float], None]  # of a view: what became of a question, and after how many seconds
LOOK_SECONDS = 1.0  # between two looks at how far the re-keyers are
SETTLE_SECONDS = 0.25  # between two looks at what the group gives
RETRY_SECONDS = 2.0  # after a state that could not be made
PASSED_MAX = 16  # instants that a part knows of and has not reached: a second each, where transactions stay open
OLD_SECONDS = 60.0  # for which states of the definitions before are kept: other processes take the new ones later
_TOO_OLD = "HR-0541"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartQuestion:
    """What whoever holds a partition is asked of one view. row: a request's, in the derived topic's declared order,
    where the topic is derived of the request's; then (source, offset) is its place there. Else entity: whose values. t:
    as of when."""

    topic: str
    index: int
    view: str
    fingerprint: str
    t: int
    row: tuple[Physical, ...] | None = None
    source: int = 0
    offset: int = 0
    entity: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartAnswer:
    """answer: None where `absent` says why. at: the next offset of the partition, None where nobody holds it here. age:
    microseconds since that was last proven to be the log's end."""

    answer: Answer | None = None
    incarnation: int = 0
    at: int | None = None
    age: int = 0
    absent: str | None = None


NOBODY = PartAnswer(absent=OWNER_AWAY)


class Elsewhere(Protocol):
    """Other processes that serve the same log."""

    def holder(self, topic: str, index: int) -> str | None:
        """Who should hold a partition: an address; None where it is not known, or it is this process. Asks nobody."""
        ...

    def ask(
        self, address: str, questions: Sequence[PartQuestion], *, within: float, reading: bool = False
    ) -> Future[Sequence[PartAnswer]]:
        """within: seconds. reading: for nobody's decision. The future fails where nobody answers."""
        ...


def uncounted(view: str, result: str, seconds: float) -> None:
    """Of who counts nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """What one derived topic's views are by the definitions in force. entities: the parts of each view's. make: the
    state of one partition, read to its end; write: its checkpoint."""

    topic: Topic
    source: Topic
    fingerprints: Mapping[str, str]
    entities: Mapping[str, Sequence[tuple[str, DataType]]]
    make: Callable[[int], FeatureState]
    write: Callable[[FeatureState, int], None]


class Part:
    """One partition as one set of definitions means it. proven: as of when it holds all of the source."""

    def __init__(self, log: Log, meant: Meant, index: int) -> None:
        self.meant = meant
        self.index = index
        self.proven: Instant | None = None
        self._passed: list[Passed] = []  # instants that writers passed, and this part has not reached
        self.lock = threading.Lock()
        self.replaced_at: float | None = None
        self.state: FeatureState | None = meant.make(index)
        self._log = log
        self._incarnation = next(
            (s.incarnation for s in log.topics(fresh=False) if s.topic.name == meant.topic.name), 0
        )
        incarnation, at = self._at(self.state)
        # A log follows what was read once: an empty partition's first rows are then seen as soon as they come.
        next(iter(log.read(Partition(meant.topic.name, incarnation, index), at, rows_max=1)), None)
        self._askers: dict[tuple[str, int], AskAt] = {}

    def prove(self, passed: Passed | None) -> None:
        """Take what the log has at hand, and know how fresh that is. passed: the newest instant that writers passed."""
        with self.lock:
            if passed is not None and passed.at != self.proven and passed not in self._passed:
                self._passed = [*self._passed[1 - PASSED_MAX :], passed]
            at_hand = self._at_hand()
            if self._catch_up():
                reached = [one for one in self._passed if one.ends.get(self.index, 0) <= at_hand]
                self.proven = max((one.at for one in reached), default=self.proven)
                self._passed = [one for one in self._passed if one not in reached]

    def _at_hand(self) -> int:
        topic = self.meant.topic.name
        held = [one for state in self._log.topics(fresh=False) if state.topic.name == topic for one in state.partitions]
        return next((one.at_hand for one in held if one.partition.index == self.index), 0)

    def _catch_up(self) -> bool:
        """Whether all that is at hand was taken. Where that fails for now, the cut stays, and what is said of its age
        is true all the same; a state that broke, or no longer fits the log, is of no more use and made anew."""
        if self.state is None:
            return False
        try:
            halts: dict[Partition, HaltedError] = {}
            self.state.catch_up(self._log, upto=Cut(), halts=halts)
            return not halts
        except LogError as error:
            if not error.retryable:
                _logger.warning("views stand still: %s", error, extra={"code": error.code})
        except StateError as error:
            _logger.error("a part of views is made anew: %s", error, extra={"code": error.code})
            self.state = None
        return False

    def check(self, one: PartQuestion) -> None:
        """Raises: InputError HR-1006 for a question whose row is none of the topic, or whose entity none of the
        view."""
        if one.row is not None:
            fields = [(f.name, f.type, f.name not in self.meant.topic.required) for f in self.meant.topic.schema]
            given: Sequence[object] = one.row
        else:
            given = one.entity if isinstance(one.entity, tuple) else (one.entity,)
            fields = [(name, type, False) for name, type in self.meant.entities[one.view]]
        fits = len(given) == len(fields) and all(
            (value is None and nullable) or is_physical(value, type)
            for value, (_, type, nullable) in zip(given, fields, strict=True)
        )
        if not fits or not (0 <= one.source < 1 << 16 and 0 <= one.offset < 1 << 42 and abs(one.t) < 1 << 62):
            raise InputError(
                "HR-1006",
                f"not a question to view {one.view!r}",
                detail=f"expected {', '.join(f'{name}: {type}' for name, type, _ in fields)}",
            )

    def answer(self, questions: Sequence[PartQuestion], clock: Clock) -> list[PartAnswer]:
        with self.lock:
            self._catch_up()
            if self.state is None or self.proven is None:
                return [NOBODY] * len(questions)
            age, (incarnation, at) = max(0, clock.now() - self.proven), self._at(self.state)
            return [self._one(self.state, one, incarnation, at, age) for one in questions]

    def _at(self, state: FeatureState) -> tuple[int, int]:
        found = next(iter(state.frontier), None)
        return (self._incarnation, 0) if found is None else (found[0].incarnation, found[1])

    def _one(self, state: FeatureState, one: PartQuestion, incarnation: int, at: int, age: int) -> PartAnswer:
        try:
            if one.row is None:
                answer = state.read(one.view, one.entity, one.t)
            else:
                ask = self._askers.get((one.view, one.source))
                if ask is None:
                    request = Partition(self.meant.source.name, 0, one.source)
                    ask = self._askers[one.view, one.source] = state.asker([one.view], self.meant.source, request)
                (answer,) = ask(one.offset, one.row, one.t)
        except StateError as error:
            absent = TOO_OLD if error.code == _TOO_OLD else OWNER_AWAY
            return PartAnswer(incarnation=incarnation, at=at, age=age, absent=absent)
        return PartAnswer(answer=answer, incarnation=incarnation, at=at, age=age)


def _nothing(topic: str) -> frozenset[int]:
    return frozenset()


class Holding:
    """All parts of one process. `mean` says what there is, `hold` which partitions; in between threads make it so."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._meant: dict[str, Meant] = {}
        self._wanted: Callable[[str], frozenset[int]] = _nothing
        self._looked = -LOOK_SECONDS
        self._parts: dict[tuple[str, int], list[Part]] = {}
        self._proving: dict[str, Proving] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failed: dict[tuple[str, int], float] = {}
        self.elsewhere: Elsewhere | None = None
        self.shared: frozenset[str] = frozenset()  # topics whose partitions the group shares
        self.count: Count = uncounted
        self.settled = False  # every partition that was wanted has been made, at least once

    # --- what there is ---

    @property
    def topics(self) -> tuple[str, ...]:
        """The derived topics whose views are held."""
        return tuple(sorted(self._meant))

    def mean(self, meant: Sequence[Meant]) -> None:
        """Hold by these definitions from now on; parts of the ones before answer for a while."""
        known = self._meant
        self._meant = {}
        for one in meant:
            before = known.get(one.topic.name)
            same = before is not None and (before.topic, before.fingerprints) == (one.topic, one.fingerprints)
            self._meant[one.topic.name] = before if before is not None and same else one

    @property
    def holds(self) -> bool:
        """Whether it was begun."""
        return bool(self._threads)

    def hold(self, wanted: Callable[[str], frozenset[int]]) -> None:
        """Begin to hold what is wanted, as it is said of a topic at any moment: of the topics that there are now."""
        self._wanted, self.shared = wanted, frozenset(self._meant)
        for run, name in ((self._settling, "headrace-parts"), (self._looking, "headrace-proofs")):
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def hold_now(self, wanted: Callable[[str], frozenset[int]]) -> None:
        """Make what is wanted, at once and without threads, of a process that holds all. Raises: LogError,
        StateError."""
        self._wanted = wanted
        self.settle()
        self.look()

    def stop(self) -> None:
        """Follow no more. May be called twice."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def write(self) -> None:
        """A checkpoint of each part."""
        for part in self._all():
            with part.lock:
                if part.state is not None and part.replaced_at is None:
                    part.meant.write(part.state, part.index)

    def held(self, topic: str) -> frozenset[int]:
        """Partitions that are answered for here."""
        return frozenset(
            index
            for (name, index), parts in list(self._parts.items())
            if name == topic and any(p.proven for p in parts)
        )

    def settled_for(self, topic: str) -> bool:
        """Whether everything wanted of a topic answers by the definitions in force."""
        meant = self._meant[topic]
        current = {p.index for p in self._all() if p.meant is meant and p.proven is not None}
        return self._wanted(topic) <= current

    # --- asking ---

    def answer(self, questions: Sequence[PartQuestion]) -> list[PartAnswer]:
        """An answer each, in order. Any thread. Raises: InputError HR-1006 for one that does not fit its view."""
        if not self._threads and self._wanted is not _nothing:
            self._look_again()
        found = [NOBODY] * len(questions)
        by: dict[Part, list[int]] = {}
        for place, one in enumerate(questions):
            parts = [part for part in self._parts.get((one.topic, one.index), ()) if part.proven is not None]
            part = next((p for p in parts if p.meant.fingerprints.get(one.view) == one.fingerprint), None)
            if part is not None:
                part.check(one)
                by.setdefault(part, []).append(place)
            elif parts:
                found[place] = PartAnswer(absent=OTHER_VERSION)
        for part, places in by.items():
            for place, answer in zip(places, part.answer([questions[p] for p in places], self._clock), strict=True):
                found[place] = answer
        return found

    # --- making it so ---

    def settle(self) -> None:
        """Make what is wanted and not there, and let go what is no longer. Raises: LogError, StateError."""
        for topic, meant in self._meant.items():
            wanted = self._wanted(topic)
            for index in sorted(wanted):
                key = topic, index
                parts = self._parts.get(key, [])
                if any(part.meant is meant and part.state is not None for part in parts):
                    continue
                made = Part(self._log, meant, index)
                now = time.monotonic()
                for part in parts:
                    part.replaced_at = now if part.replaced_at is None else part.replaced_at
                self._parts[key] = [made, *(part for part in parts if part.meant is not meant)]
        self._let_go()
        self.settled = self.settled or all(self.settled_for(topic) for topic in self._meant)

    def _let_go(self) -> None:
        now = time.monotonic()
        for key, parts in list(self._parts.items()):
            topic, index = key
            if index not in self._wanted(topic):
                del self._parts[key]
                for part in parts:
                    self._written(part)
                continue
            ready = any(p.replaced_at is None and p.proven is not None for p in parts)
            kept = [p for p in parts if p.replaced_at is None or not ready or now - p.replaced_at < OLD_SECONDS]
            if len(kept) < len(parts):
                self._parts[key] = kept

    def _written(self, part: Part) -> None:
        """Of a part that goes: whoever holds it next begins there."""
        with part.lock:
            if part.state is not None and part.replaced_at is None:
                part.meant.write(part.state, part.index)
            part.state = None

    def _look_again(self) -> None:
        """Of a process without threads: where the newest look is a while ago. One that fails changes nothing."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            self.look()
        except LogError as error:
            _logger.warning("how fresh views are is not known: %s", error, extra={"code": error.code})

    def look(self) -> None:
        """Prove how fresh the parts are. Raises: LogError."""
        for topic in {part.meant.topic.name for part in self._all()}:
            passed = self._proving.setdefault(topic, Proving(self._log, topic)).look(self._clock.now())
            for part in [part for part in self._all() if part.meant.topic.name == topic]:
                part.prove(passed)

    def _all(self) -> list[Part]:
        return [part for parts in list(self._parts.values()) for part in parts]

    # --- threads ---

    def _settling(self) -> None:
        while not self._closing.wait(SETTLE_SECONDS):
            try:
                self.settle()
            except HeadraceError as error:
                _logger.warning("a partition of views is not held yet: %s", error, extra={"code": error.code})
                self._closing.wait(RETRY_SECONDS)

    def _looking(self) -> None:
        while not self._closing.wait(LOOK_SECONDS if self.settled else SETTLE_SECONDS):
            try:
                self.look()
            except HeadraceError as error:
                _logger.warning("how fresh views are is not known: %s", error, extra={"code": error.code})
