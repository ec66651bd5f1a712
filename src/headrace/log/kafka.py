"""The log's port over a Kafka cluster: what one SQLite file does, for several processes as equals.

The one idea: Kafka says where a row lies and when it came; what the law says of it follows from what lies before it in
its partition, so every process that reads judges alike (log/kafka_feed.py), and an append is done when all up to it was
read. What one file decides by one commit is decided here by the order of one partition. docs/KAFKA.md has the
protocols. Touches the cluster through its client; has no thread of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace import plugs
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import Acknowledged, GroupOffset, KafkaClient, Outgoing, Place, TopicFacts
from headrace.core.codec import units
from headrace.core.errors import HaltedError, LogError, UsageError
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.log import kafka_registry as registry
from headrace.log.changing import refuse_change
from headrace.log.define import Payload, Topic
from headrace.log.kafka_control import Control
from headrace.log.kafka_derived import refuse_derived, source_of
from headrace.log.kafka_exclusive import KafkaExclusive
from headrace.log.kafka_following import SLICE, Codecs, Following
from headrace.log.kafka_imports import Imports
from headrace.log.kafka_registry import Registered, judges_alike
from headrace.log.kafka_restart import restart_clock
from headrace.log.kafka_resume import kept, resume
from headrace.log.kafka_rows import (
    Stored,
    offset_of,
    outgoing,
    outgoing_judged,
    position,
    row_bits,
    versioning,
)
from headrace.log.kafka_sending import Sending
from headrace.log.kafka_states import States
from headrace.log.kafka_topics import control_settings, form_settings, in_sync, kafka_settings, replicas
from headrace.log.port import (
    AVAILABLE_AT,
    EVENT_TIME,
    OFFSET,
    VERDICT,
    Append,
    Appended,
    Capabilities,
    EventCodec,
    Exclusive,
    Log,
    PartitionState,
    TopicState,
)

# No broker answered, or the partition halted: with the first row that was appended, or just before it.
_UNSENT = ("HR-0340", "HR-0341", "HR-0342", "HR-0313", "HR-0354", "HR-0355")
BETWEEN_CHANGES = Duration.parse("200ms")  # for another's change to be said
CHANGES_MAX = 8  # times that others may change the registry first
READ_BACK = Duration.parse("15s")  # for what was appended: a leader that is stopped is replaced in 6.5 s
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Sent:
    """An append on its way. positions: of each row, once it is sent."""

    append: Append
    held: Registered
    place: Place
    form: Payload
    records: Sequence[Outgoing]
    counts: Sequence[int]  # rows of each record
    stored: Stored | None = None


class KafkaLog(Log):
    """The log of all processes that name the same cluster and prefix. Any thread may call."""

    capabilities = Capabilities(
        name="kafka",
        multi_process_write=True,
        transactions=True,
        durable=True,
        conditional=False,
        gaps=True,
        shared=True,
    )

    def __init__(
        self,
        client: KafkaClient,
        *,
        settings: KafkaSettings,
        clock: Clock,
        codecs: Codecs | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the registry's topic where it is not there. clock: the machine's, which brokers' stamps are compared
        with and nothing is stamped by. codecs: of JSON by default. monotonic: seconds.

        Raises: LogError HR-0340 to HR-0342, within 10 s."""
        self._client = client
        self._settings = settings
        cluster = client.cluster(settings.prefix)
        self._replication = replicas(settings.replication, brokers=cluster.brokers)
        name = settings.prefix + registry.NAME
        if name not in cluster.topics:
            self._begin(name)
        self._clock = clock
        self._following = Following(
            client,
            prefix=settings.prefix,
            codecs=codecs or _codecs(),
            clock=clock,
            control=Control(client, prefix=settings.prefix, clock=clock, make=self._create_control),
            monotonic=monotonic,
        )
        self._following.refresh()
        self._sending = Sending(client, prefix=settings.prefix)
        self._states = States(self._following)
        self._imports = Imports(
            client, self._following, create=self._create, change=self._change, live=self._states.live
        )
        self._closed = False

    @property
    def client(self) -> KafkaClient:
        """For what is no part of the port: membership."""
        return self._client

    @property
    def settings(self) -> KafkaSettings:
        return self._settings

    # --- topics ---

    def topics(self, *, fresh: bool = True) -> tuple[TopicState, ...]:
        """available_at is that of what this process has read: NEVER of a partition that it does not follow."""
        self._open()
        if fresh:
            self._following.look()
        with self._following.lock:
            held = dict(self._following.registry.topics)
        self._states.look(held.values())
        if not fresh:
            self._following.pump()
        return tuple(self._states.topic(held[name], exact=fresh) for name in sorted(held))

    def declare(self, topic: Topic) -> TopicState:
        self._open()
        refused: LogError | None = None
        for _ in range(CHANGES_MAX):
            self._following.refresh()
            held = self._following.registry.topics.get(topic.name)
            if held is None:
                source = source_of(self._following.registry, topic)
                try:
                    facts = self._made(topic)
                except LogError as error:  # another process made it, and says so in the registry in a moment
                    if error.code != "HR-0348":
                        raise
                    refused = error
                    self._following.pump(BETWEEN_CHANGES)
                    continue
                number = self._following.registry.incarnations.get(topic.name, 0) + 1
                change = registry.declaration(topic, incarnation=number, version=1, kafka_id=facts.id, source=source)
            elif held.topic == topic:
                self._put_in_force(held)
                return next(state for state in self.topics() if state.topic.name == topic.name)
            else:
                refuse_change(held.topic, topic)
                self._altered(held.topic, topic)
                change = registry.declaration(
                    topic, incarnation=held.incarnation, version=held.version + 1, kafka_id=held.kafka_id
                )
            self._change(topic.name, change)
        if refused is not None:
            raise refused
        raise LogError("HR-0311", f"topic {topic.name!r}: others changed it {CHANGES_MAX} times first", retryable=True)

    def _made(self, topic: Topic) -> TopicFacts:
        """Its Kafka topic, made or found empty: a process that went away made it and said nothing yet.

        Raises: LogError HR-0348."""
        name = self._settings.prefix + topic.name
        facts = self._client.cluster(self._settings.prefix).topics.get(name)
        if facts is not None and facts.id in self._following.registry.dropped:
            self._client.delete(name)
            facts = None
        if facts is None:
            return self._client.create(name, partitions=topic.partitions, settings=self._settings_of(topic))
        spans = self._client.spans([Place(name, index) for index in range(facts.partitions)])
        if facts.partitions != topic.partitions or any(span.high for span in spans):
            raise LogError(
                "HR-0348",
                f"the cluster has a topic {name!r} already",
                detail=f"expected none, or an empty one of {topic.partitions} partitions",
                hint="choose a prefix in the log's URL, or another name",
                topic=topic.name,
            )
        self._client.alter(name, settings=self._settings_of(topic))
        return facts

    def _begin(self, name: str) -> None:
        """Make the registry's topic, unless another was first, or the broker that was asked did not know it yet."""
        try:
            self._create(name, 1, Payload.JSON, None)
        except LogError as error:
            if error.code != "HR-0348":
                raise

    def _create(self, name: str, partitions: int, form: Payload, retention: Duration | None) -> TopicFacts:
        settings = form_settings(form, retention, min_insync_replicas=in_sync(self._replication))
        return self._client.create(name, partitions=partitions, settings=settings)

    def _create_control(self, name: str, partitions: int) -> TopicFacts:
        settings = control_settings(min_insync_replicas=in_sync(self._replication))
        return self._client.create(name, partitions=partitions, settings=settings)

    def _settings_of(self, topic: Topic) -> Mapping[str, str]:
        return kafka_settings(topic, min_insync_replicas=in_sync(self._replication))

    def _altered(self, old: Topic, new: Topic) -> None:
        """In Kafka, before the registry says so: each step may be done again."""
        self._client.alter(
            self._settings.prefix + new.name,
            partitions=new.partitions if new.partitions > old.partitions else None,
            settings=self._settings_of(new),
        )

    def _put_in_force(self, held: Registered) -> None:
        """Say in each live partition that its newest definition judges from there on, where that is not said yet."""
        behind = []
        for index in range(held.topic.partitions):
            feed = self._following.feed(held.partition(index))
            (span,) = self._following.spans([feed.place], fresh=True)
            try:
                self._following.pump_to({feed.place: span.end})
            except HaltedError:
                if feed.version < held.version:
                    raise  # from where on it would be in force is not known
            first = held.versions[feed.version - 1]
            if feed.version < held.version and not judges_alike(first, held.topic):
                behind.append(feed)
        if behind:
            sent = self._sending.send([versioning(feed.place, held.version) for feed in behind])
            self._following.pump_to({f.place: offset + 1 for f, offset in zip(behind, sent.offsets, strict=True)})

    def drop(self, topic: str) -> None:
        self._open()
        self._following.refresh()
        held = self._following.registered(topic)
        self._change(topic, registry.dropping(held))
        there = self._client.cluster(self._settings.prefix).topics
        for name in [self._settings.prefix + topic, *(one.kafka_topic for one in held.imports)]:
            if name in there and there[name].id in self._following.registry.dropped:
                self._client.delete(name)

    def _change(self, topic: str, value: bytes) -> None:
        """Say a change in the registry and read it; whether it counts is seen there."""
        place = self._following.registry_place
        (offset,) = self._sending.send([Outgoing(place, topic.encode(), value)]).offsets
        self._following.pump_to({place: offset + 1})

    # --- appending ---

    def append(
        self,
        appends: Sequence[Append],
        *,
        group: str | None = None,
        cut: Cut | None = None,
        atomic: bool = True,
        patience: Duration | None = None,
    ) -> tuple[Appended, ...]:
        self._open()
        if (group is None) != (cut is None):
            raise UsageError("HR-0314", "append needs both group and cut, or neither")
        try:
            sent = [self._prepared(append) for append in appends]
            offsets = None if group is None or cut is None else self._group_offsets(cut)
            records = [record for one in sent for record in one.records]
            if offsets is not None or (atomic and len(records) > 1):
                named = None if group is None else self._group_name(group)
                # Nothing of it is stable before its markers, which have offsets, too: it is read back.
                found = Acknowledged(self._sending.transaction(records, group=named, offsets=offsets), None)
            else:
                found = self._sending.send(records)
        except LogError:
            self._imports.forget()
            raise
        try:
            return self._answers(sent, records, found, READ_BACK if patience is None else patience)
        except LogError as error:
            if error.code not in _UNSENT:
                raise
            # Elsewhere these say that nothing was sent, and whoever relies on it would send the next before this one.
            raise LogError(
                "HR-0311",
                "rows were appended and could not be read back",
                detail=f"{error.code} {error.message}",
                hint="read before they are sent again; rows with an id may simply be sent again",
                retryable=True,
            ) from error

    def _answers(
        self, sent: Sequence[_Sent], records: Sequence[Outgoing], found: Acknowledged, patience: Duration
    ) -> tuple[Appended, ...]:
        self._read_back(records, found, patience)
        answers, first = [], 0
        for one in sent:
            answers.append(self._appended(one, found.offsets[first : first + len(one.records)]))
            first += len(one.records)
        return tuple(answers)

    def _prepared(self, append: Append) -> _Sent:
        held = self._following.find(append.partition)
        index, topic = append.partition.index, held.topic
        refuse_derived(topic)
        if append.at is not None or append.begins is not None and index < IMPORTS_FROM:
            raise UsageError(
                "HR-0314",
                f"{append.partition}: an append cannot say when or where it is in a shared log",
                detail="its instant is the broker's, and others may come first",
            )
        place = self._following.place(held, index)
        if index < IMPORTS_FROM:
            self._following.check_going(place)
            if append.available_at is not None:
                raise UsageError(
                    "HR-0314", f"{append.partition}: rows of a live partition are available when they come"
                )
            codec = self._following.codec(topic, live=True)
            made = outgoing(topic, codec, place, append.rows, request=append.request)
            return _Sent(append, held, place, topic.payload, made.records, made.counts)
        judged = self._imports.judge(held, append)
        form, codec = judged.made.form, self._following.codec(topic, live=False)
        made = outgoing_judged(topic, codec, place, append.rows, judged.stored, form=form, before=judged.before)
        return _Sent(append, held, place, form, made.records, made.counts, judged.stored)

    def _read_back(self, records: Sequence[Outgoing], found: Acknowledged, patience: Duration) -> None:
        """Until what was appended to live partitions was read, and what was appended to imports is stable: a
        transaction is committed before its partitions are told."""
        targets: dict[Place, int] = {}
        for record, offset in zip(records, found.offsets, strict=True):
            targets[record.place] = max(targets.get(record.place, 0), offset + 1)
        live = {place: partition for place in targets if (partition := self._live_partition(place)) is not None}
        for partition in live.values():
            self._following.feed(partition)
        self._following.take_own(records, found)
        wanted = {place: targets[place] for place in live}
        self._following.hurry(wanted)
        self._following.pump_to(wanted, patience=patience)
        self._following.wait_stable({place: end for place, end in targets.items() if place not in live})

    def _live_partition(self, place: Place) -> Partition | None:
        held = self._following.registry.topics.get(place.topic.removeprefix(self._settings.prefix))
        return None if held is None else held.partition(place.partition)

    def _appended(self, one: _Sent, offsets: Sequence[int]) -> Appended:
        partition, form = one.append.partition, one.form
        bits = row_bits(form)
        if not offsets:
            (span,) = self._following.spans([one.place], fresh=True)
            end = position(form, span.end)
            return Appended(
                partition=partition, offset=end, verdicts=_NONE.astype(np.uint8), event_times=_NONE, available_at=_NONE
            )
        starts = np.array(offsets, np.int64) << bits
        counts = np.array(one.counts, np.int64)
        positions = np.repeat(starts, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        if one.stored is not None:
            verdicts, available = one.stored.verdicts, one.stored.available_at
            times = self._event_times(one, available)
        else:
            verdicts, times, available = self._judged(partition, positions)
        return Appended(
            partition=partition,
            offset=int(positions[0]),
            verdicts=verdicts,
            event_times=times,
            available_at=available,
            sparse=positions,
        )

    def _judged(self, partition: Partition, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Verdicts, event times and available_at of rows that were read back."""
        batches = list(self._following.read(partition, int(positions[0]), int(positions[-1]) + 1, 1 << 20))
        offsets = np.concatenate([batch.column(OFFSET).to_numpy() for batch in batches])
        mine = np.searchsorted(offsets, positions)
        if len(mine) and (mine[-1] >= len(offsets) or not np.array_equal(offsets[mine], positions)):
            raise LogError("HR-0304", f"{partition}: rows that were appended are not read as rows of the topic")
        verdicts = np.concatenate([batch.column(VERDICT).to_numpy() for batch in batches])
        times = np.concatenate([units(batch.column(EVENT_TIME)) for batch in batches])
        available = np.concatenate([units(batch.column(AVAILABLE_AT)) for batch in batches])
        return verdicts[mine], times[mine], available[mine]

    def _event_times(self, one: _Sent, available: np.ndarray) -> np.ndarray:
        topic, rows = one.held.topic, one.append.rows
        if topic.event_time is None:
            return available
        if isinstance(rows, pa.RecordBatch):
            return units(rows.column(topic.event_time))
        place = topic.schema.names.index(topic.event_time)
        return np.array([row[place] for row in rows], np.int64)

    def exclusive(self, name: str) -> Exclusive:
        self._open()
        return KafkaExclusive(
            self._client.sender(transactional_id=self._settings.prefix + name),
            self._following,
            name=name,
            group=self._group_name(name),
            committed=self.group,
            offsets=self._group_offsets,
        )

    # --- groups ---

    def _group_name(self, group: str) -> str:
        return self._settings.prefix + group

    def _group_offsets(self, cut: Cut) -> dict[Place, GroupOffset]:
        found = {}
        for partition, at in cut:
            held = self._following.find(partition)
            place = self._following.place(held, partition.index)
            form, kafka_id = _form(held, partition.index), _kafka_id(held, partition.index)
            note = json.dumps({"position": at, "topic": kafka_id}, separators=(",", ":"))
            found[place] = GroupOffset(offset_of(form, at), note)
        return found

    def group(self, name: str) -> Cut:
        self._open()
        self._following.refresh()
        partitions = {}
        for held in self._following.registry.topics.values():
            indices = [*range(held.topic.partitions)]
            indices += [one.first + number for one in held.imports for number in range(one.partitions)]
            partitions.update({self._following.place(held, index): (held, index) for index in indices})
        found = self._client.group_offsets(self._group_name(name), list(partitions))
        offsets = {}
        for place, committed in found.items():
            held, index = partitions[place]
            said = _note(committed.note)
            if said is not None and said["topic"] == _kafka_id(held, index):
                offsets[held.partition(index)] = int(str(said["position"]))
        return Cut.of(offsets)

    # --- reading ---

    def read(
        self, partition: Partition, offset: int, *, end: int | None = None, rows_max: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        if rows_max < 1:
            raise ValueError(f"rows_max must be at least 1, seen {rows_max}")
        self._open()
        return self._following.read(partition, offset, end, rows_max)

    def wait(self, cut: Cut, *, timeout: Duration) -> bool:
        self._open()
        listed = self._listed(cut)
        if timeout.micros > 0:
            self._catch_up(cut)
        left = timeout.micros
        while True:
            self._following.pump(SLICE if left > SLICE.micros else Duration(max(0, left)))
            self._open()
            if self._moved(cut) or self._listed(cut) - listed:
                return True
            if left <= 0:
                return False
            left -= SLICE.micros

    def _catch_up(self, cut: Cut) -> None:
        """What came before the call counts."""
        self._following.refresh()
        feeds = [self._following.feed(partition) for partition, _ in cut if partition.index < IMPORTS_FROM]
        spans = self._following.spans([feed.place for feed in feeds], fresh=True)
        for feed, span in zip(feeds, spans, strict=True):
            try:
                self._following.pump_to({feed.place: span.end})
            except HaltedError:
                pass  # `read` says so to who reads there

    def _moved(self, cut: Cut) -> bool:
        feeds = self._following.feeds
        return any(partition in feeds and feeds[partition].end > at for partition, at in cut)

    def _listed(self, cut: Cut) -> set[Partition]:
        topics = self._following.registry.topics
        there = [topics[name] for name in cut.topics() if name in topics]
        live = {held.partition(index) for held in there for index in range(held.topic.partitions)}
        sealed = [(held, one) for held in there for one in held.imports if one.sealed]
        return live | {held.partition(one.first + number) for held, one in sealed for number in range(one.partitions)}

    # --- from where another process was ---

    def kept(self, cut: Cut) -> Mapping[str, bytes]:
        self._open()
        return kept(self._following, cut)

    def resume(self, kept: Mapping[str, bytes]) -> int:
        self._open()
        return resume(self._following, kept)

    # --- clocks ---

    def halted(self) -> Mapping[Partition, HaltedError]:
        return self._following.looked().halted()

    def unfit(self, *, fresh: bool = True) -> LogError | None:
        return (self._following.looked() if fresh else self._following.halts).unfit()

    def keep_anchors(self) -> int:
        """Write down where later readers may begin of the partitions that are followed (docs/KAFKA.md K5); how many
        places. To be called every minute or so by who follows for long. Raises: LogError; then later calls write on."""
        self._open()
        found = self._following.anchored()
        self._sending.send(found)
        return len(found)

    def restart_clock(self, topic: str) -> Instant:
        """An operator's word that append instants ran ahead, or were a producer's: the rows of each halted partition,
        from where it halted to its end, count as stamped now (SEMANTICS 1.2). Returns that instant. Without a halted
        partition nothing is done.

        Raises: LogError HR-0354 (it is this machine's clock that is wrong), HR-0357 (not now, and why), HR-0356 (the
        topic is still not stamped by its brokers), NotFoundError HR-0302."""
        self._open()
        return restart_clock(self._following, topic, clock=self._clock, change=self._change)

    def altered(self) -> tuple[LogError, ...]:
        """What was altered in the cluster by hand, of all topics of this log: HR-0346, HR-0356. Cost: a request a
        topic."""
        self._open()
        self._following.refresh()
        return tuple(self._following.altered())

    # --- imports ---

    def import_partitions(
        self, topic: str, import_id: str, *, seal: bool = False, form: Payload = Payload.ARROW
    ) -> tuple[PartitionState, ...]:
        self._open()
        return self._imports.partitions(topic, import_id, seal=seal, form=form)

    # --- ending ---

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._sending.close()
        self._following.close()
        self._client.close()

    def _open(self) -> None:
        if self._closed:
            raise LogError("HR-0316", "the log is closed")


def _codecs() -> Codecs:
    """JSON's codec, by its plug: it stands on the law of valid rows, above the log."""
    made: Callable[..., EventCodec] = plugs.load("payload", "json")  # type: ignore[assignment]  # what the plug names
    return lambda topic, live: made(topic, live=live)


def _form(held: Registered, index: int) -> Payload:
    found = held.import_of(index)
    return held.topic.payload if found is None else found[0].form


def _kafka_id(held: Registered, index: int) -> str:
    found = held.import_of(index)
    return held.kafka_id if found is None else found[0].kafka_id


def _note(text: str) -> dict[str, object] | None:
    """What was kept beside a group's offset; None where another tool committed it."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.keys() >= {"position", "topic"} else None
