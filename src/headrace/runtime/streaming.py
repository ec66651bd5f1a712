"""The re-keyers of this process: for each derived topic those of the source partitions that its group gives. Touches
threads, the log, the group.

The one idea: membership only says who should carry a partition over; the name under which it is written says who does
(docs/KAFKA.md K2). So a member that is told late does no harm: what it writes after another began is refused. One
thread a derived topic shows signs of life, one a source partition carries over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.clients.kafka.port import KafkaClient, Member
from headrace.core.errors import FencedError, HeadraceError, LogError, NotFoundError, UsageError, did_you_mean
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.times import Duration
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log, TopicState
from headrace.runtime.ownership import POLL
from headrace.runtime.project import Project
from headrace.stream.plan import writer_name
from headrace.stream.run import Counts, ReKeyer

GROUP = "headrace.streams."  # behind the log's prefix, before the derived topic's name
WAIT = Duration.parse("250ms")  # for rows, before it is looked whether to go on
# From one transaction of a source partition to the next, where few rows come: as Kafka Streams does, exactly once. A
# transaction is some ten requests however few rows it has.
GATHER_SECONDS = 0.1
GATHER_ROWS = 1_000
IMPORTS_SECONDS = 1.0  # between two looks for imports of the source
RETRY_SECONDS = 0.5  # after a re-keyer that ended while its partition is still given; doubled up to the next
RETRY_SECONDS_MAX = 30.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLine:
    """A source partition of a derived topic, as this process carries it over. lag: source offsets that are not carried
    over yet; error: why it stands, or ""."""

    topic: str
    source: str
    rows: int
    left_out: dict[str, int]
    transactions: int
    aborts: int
    fenced: int
    at: int | None
    lag: int | None
    error: str


@dataclass(slots=True)
class _Work:
    """One live partition of a source, and the imports that go with it."""

    index: int
    stopping: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    ended_at: float = 0.0
    failures: int = 0
    error: str = ""

    @property
    def running(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class Streams:
    """All of one process. `begin` joins the groups, `leave` ends in order; in between partitions come and go."""

    def __init__(self, log: Log, client: KafkaClient, *, prefix: str, topics: Sequence[Topic], name: str) -> None:
        """topics: derived ones. name: of this process, told to who asks for the groups' members."""
        self._log = log
        self._shares = [_Share(log, client, prefix=prefix, topic=topic, name=name) for topic in topics]

    def begin(self) -> None:
        """Raises: LogError HR-0340 to HR-0342."""
        for share in self._shares:
            share.begin()

    def leave(self) -> None:
        """Finish the transactions that are open, and say so to the groups. May be called twice."""
        for share in self._shares:
            share.stop()
        for share in self._shares:
            share.leave()

    def status(self) -> list[StreamLine]:
        """Of what this process carries over now, or has. Raises: LogError HR-0340 to HR-0342."""
        ends = {held.partition: held.end for state in self._log.topics() for held in state.partitions}
        return [line for share in self._shares for line in share.lines(ends)]


class _Share:
    """One derived topic's source partitions, those of this process."""

    def __init__(self, log: Log, client: KafkaClient, *, prefix: str, topic: Topic, name: str) -> None:
        assert topic.derivation is not None, "derived"
        self._log, self._client, self._prefix, self._name = log, client, prefix, name
        self._topic, self._source = topic.name, topic.derivation.of
        self._member: Member | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._works: dict[int, _Work] = {}
        self._counts: dict[Partition, Counts] = {}

    def begin(self) -> None:
        group = self._prefix + GROUP + self._topic
        self._member = self._client.member(group, [self._prefix + self._source], name=self._name)
        self._thread = threading.Thread(target=self._follow, name=f"headrace-member-{self._topic}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._closing.set()
        for work in list(self._works.values()):
            work.stopping.set()

    def leave(self) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self.stop()  # what was begun while it ended, too
        for work in list(self._works.values()):
            if work.thread is not None:
                work.thread.join()
        if self._member is not None:
            self._member.leave()
            self._member = None

    def lines(self, ends: dict[Partition, int]) -> list[StreamLine]:
        errors = {work.index: work.error for work in list(self._works.values())}
        found = []
        for partition, counts in sorted(self._counts.items()):
            end = ends.get(partition)
            line = StreamLine(
                topic=self._topic,
                source=str(partition),
                rows=counts.rows,
                left_out=dict(counts.left_out),
                transactions=counts.transactions,
                aborts=counts.aborts,
                fenced=counts.fenced,
                at=counts.at,
                lag=None if end is None or counts.at is None else max(0, end - counts.at),
                error=errors.get(partition.index, ""),
            )
            found.append(line)
        return found

    # --- threads ---

    def _follow(self) -> None:
        """Signs of life, and re-keyers for what is given; who ended for a reason that may pass begins anew."""
        assert self._member is not None, "begun"
        given: frozenset[int] = frozenset()
        while not self._closing.is_set():
            try:
                places = self._member.poll(timeout=POLL).places
            except LogError as error:
                _logger.warning("the group cannot be asked: %s", error, extra={"code": error.code})
                self._closing.wait(RETRY_SECONDS)
                continue
            wanted = frozenset(place.partition for place in places)
            if wanted != given:
                _logger.info("topic %s: source partitions given: %s", self._topic, sorted(wanted))
                given = wanted
            self._settle(wanted)

    def _settle(self, wanted: frozenset[int]) -> None:
        for index, work in list(self._works.items()):
            if index not in wanted:
                work.stopping.set()  # it is fenced if another is faster
                if not work.running:
                    del self._works[index]
        for index in () if self._closing.is_set() else sorted(wanted):
            work = self._works.setdefault(index, _Work(index))
            if work.stopping.is_set() and not work.running:
                work = self._works[index] = _Work(index)  # it came back
            pause = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2 ** min(work.failures, 10))
            if work.running or work.stopping.is_set() or (work.failures and time.monotonic() - work.ended_at < pause):
                continue
            work.thread = threading.Thread(
                target=self._work, args=(work,), name=f"headrace-rekey-{self._topic}-{index}", daemon=True
            )
            work.thread.start()

    def _work(self, work: _Work) -> None:
        """A re-keyer's life. What ends it is said once, and it begins anew while its partition is given."""
        carrying: dict[Partition, ReKeyer] = {}
        try:
            self._carry(work, carrying)
        except FencedError as error:
            for partition in carrying:
                self._counts[partition].fenced += 1
            _logger.info(
                "topic %s: source partition %d: another process has it now",
                self._topic,
                work.index,
                extra={"code": error.code},
            )
        except HeadraceError as error:
            if str(error) != work.error:
                _logger.warning(
                    "topic %s: source partition %d stands: %s",
                    self._topic,
                    work.index,
                    error,
                    extra={"code": error.code},
                )
            work.error = str(error)
        finally:
            work.ended_at = time.monotonic()
            work.failures += not work.stopping.is_set()
            for each in carrying.values():
                each.close()

    def _carry(self, work: _Work, carrying: dict[Partition, ReKeyer]) -> None:
        done: set[Partition] = set()
        looked = -IMPORTS_SECONDS
        live = None
        while not work.stopping.is_set():
            if time.monotonic() - looked >= IMPORTS_SECONDS:
                looked = time.monotonic()
                for partition in self._sources(work.index):
                    if partition not in carrying and partition not in done:
                        carrying[partition] = self._begun(partition)
                    live = partition if partition.index == work.index else live
            began, before, moved = time.monotonic(), _rows(carrying), False
            for partition, each in list(carrying.items()):
                if work.stopping.is_set():
                    return
                if each.step():
                    moved, work.failures, work.error = True, 0, ""
                elif partition.index >= IMPORTS_FROM:  # sealed: nothing comes any more
                    carrying.pop(partition).close()
                    done.add(partition)
            if not moved and live is not None:
                self._log.wait(Cut.of({live: carrying[live].at}), timeout=WAIT)
            elif _rows(carrying) - before < GATHER_ROWS:
                work.stopping.wait(max(0.0, began + GATHER_SECONDS - time.monotonic()))

    def _sources(self, index: int) -> list[Partition]:
        """The live partition, and the sealed imports that go with it."""
        for state in self._log.topics():
            if state.topic.name == self._source:
                partitions = [held.partition for held in state.partitions]
                return [p for p in partitions if _goes_with(p, state) == index]
        raise NotFoundError("HR-0302", f"no topic {self._source!r} in the log", hint="headrace apply")

    def _begun(self, partition: Partition) -> ReKeyer:
        counts = self._counts.setdefault(partition, Counts())
        made = ReKeyer(self._log, self._topic, partition, counts=counts)
        _logger.info("topic %s: carries over %s from offset %d on", self._topic, partition, made.at)
        return made


def _rows(carrying: Mapping[Partition, ReKeyer]) -> int:
    return sum(each.counts.rows for each in carrying.values())


def streams_of(project: Project, names: Sequence[str], *, name: str) -> Streams:
    """Of a project's derived topics, all or those of these names. Raises: NotFoundError HR-0368, UsageError HR-0366."""
    log = project.log
    topics = derived_topics(project)
    for each in names:
        if each not in topics:
            raise NotFoundError(
                "HR-0368", f"no derived topic {each!r} in this project", hint=did_you_mean(each, topics), topic=each
            )
    if not isinstance(log, KafkaLog):
        raise UsageError(
            "HR-0366",
            f"a log of kind {log.capabilities.name!r} has no derived topics",
            detail="one process owns it and reads all of its partitions, so no view needs them",
            hint='name a Kafka cluster in headrace.toml: log = "kafka://HOST:PORT"',
        )
    chosen = [topics[each] for each in names or topics]
    if not chosen:
        raise NotFoundError(
            "HR-0368",
            "no derived topic in this project",
            hint="hr.derived_topic(...) declares one; then headrace apply",
        )
    return Streams(log, log.client, prefix=log.settings.prefix, topics=chosen, name=name)


def derived_topics(project: Project) -> dict[str, Topic]:
    """By name, as declared."""
    return {name: topic for name, topic in project.definitions.topics.items() if topic.derivation is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedLine:
    """A derived topic and how far it is behind. lag: source offsets that no process has carried over yet."""

    topic: str
    of: str
    key: str
    partitions: int
    lag: int


def listed(log: Log) -> list[DerivedLine]:
    """Every derived topic of the log, by name, whoever carries it over."""
    states = {state.topic.name: state for state in log.topics()}
    found = []
    for state in states.values():
        derivation = state.topic.derivation
        if derivation is None:
            continue
        source = states.get(derivation.of)
        lag = 0
        for held in source.partitions if source is not None else ():
            done = dict(log.group(writer_name(state.topic, state.incarnation, held.partition)))
            lag += max(0, held.end - max(held.start, done.get(held.partition, 0)))
        line = DerivedLine(
            topic=state.topic.name, of=derivation.of, key=state.topic.key, partitions=state.topic.partitions, lag=lag
        )
        found.append(line)
    return found


def _goes_with(partition: Partition, state: TopicState) -> int:
    """The live partition whose re-keyer's process carries this one over, too."""
    if partition.index < IMPORTS_FROM:
        return partition.index
    return (partition.index - IMPORTS_FROM) % state.topic.partitions
