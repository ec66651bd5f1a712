"""The log's port over a Kafka cluster: what one SQLite file does, for several processes as equals.

The one idea: Kafka says where a row lies and when it came; what the law says of it follows from what lies before it in
its partition, so every process that reads judges alike (log/kafka_feed.py), and an append is done when it was read
back. What one file decides by one commit is decided here by the order of one partition. docs/KAFKA.md has the
protocols. Touches the cluster through its client; has no thread of its own.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace import plugs
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import GroupOffset, KafkaClient, Outgoing, Place, Sender, TopicFacts
from headrace.core.codec import units
from headrace.core.errors import FencedError, LogError, UsageError
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.log import kafka_registry as registry
from headrace.log.changing import refuse_change
from headrace.log.define import Payload, Topic
from headrace.log.kafka_following import SLICE, Codecs, Following
from headrace.log.kafka_registry import Import, Registered, judges_alike
from headrace.log.kafka_rows import (
    Stored,
    offset_of,
    outgoing,
    outgoing_judged,
    position,
    row_bits,
    rows_before,
    versioning,
)
from headrace.log.kafka_topics import form_settings, in_sync, replicas
from headrace.log.payload import EventCodec
from headrace.log.plan import NEVER, Judge
from headrace.log.port import (
    AVAILABLE_AT,
    EVENT_TIME,
    OFFSET,
    VERDICT,
    Append,
    Appended,
    Capabilities,
    Log,
    PartitionKind,
    PartitionState,
    TopicState,
)

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
    rows: Sequence[int]  # of each record
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

    def __init__(self, client: KafkaClient, *, settings: KafkaSettings, codecs: Codecs | None = None) -> None:
        """Makes the registry's topic where it is not there. codecs: of JSON by default.

        Raises: LogError HR-0340 to HR-0342, within 10 s."""
        self._client = client
        self._settings = settings
        cluster = client.cluster(settings.prefix)
        self._replication = replicas(settings.replication, brokers=cluster.brokers)
        name = settings.prefix + registry.NAME
        if name not in cluster.topics:
            self._create(name, 1, Payload.JSON, None)
        self._following = Following(client, prefix=settings.prefix, codecs=codecs or _codecs())
        self._following.refresh()
        self._sending = threading.RLock()
        self._sender: Sender | None = None
        self._transactor: Sender | None = None
        self._transactional_id = f"{settings.prefix}headrace.append.{uuid.uuid4()}"
        self._importing: dict[str, Judge] = {}
        self._closed = False

    @property
    def client(self) -> KafkaClient:
        """For what is no part of the port: membership."""
        return self._client

    @property
    def prefix(self) -> str:
        return self._settings.prefix

    # --- topics ---

    def topics(self, *, fresh: bool = True) -> tuple[TopicState, ...]:
        """available_at is that of what this process has read: NEVER of a partition that it does not follow."""
        self._open()
        if fresh:
            self._following.refresh()
        with self._following.lock:
            held = dict(self._following.registry.topics)
        live = [
            Place(self._settings.prefix + name, index) for name in held for index in range(held[name].topic.partitions)
        ]
        spans = dict(zip(live, self._following.spans(live, fresh=fresh), strict=True))
        if not fresh:
            self._following.pump()
        return tuple(self._state(held[name], spans) for name in sorted(held))

    def _state(self, held: Registered, spans: Mapping[Place, object]) -> TopicState:
        partitions = [self._live_state(held, index) for index in range(held.topic.partitions)]
        for made in held.imports:
            if made.sealed:
                partitions += [_import_state(held, made, number) for number in range(made.partitions)]
        return TopicState(
            topic=held.topic, incarnation=held.incarnation, version=held.version, partitions=tuple(partitions)
        )

    def _live_state(self, held: Registered, index: int) -> PartitionState:
        partition, form = held.partition(index), held.topic.payload
        (span,) = self._following.spans([self._following.place(held, index)], fresh=False)
        feed = self._following.feeds.get(partition)
        followed = feed is not None and feed.next >= span.end
        return PartitionState(
            partition=partition,
            kind=PartitionKind.LIVE,
            start=position(form, span.start),
            end=feed.end if feed is not None and followed else position(form, span.end),
            available_at=Instant(int(NEVER) if feed is None else feed.available_at),
            sealed=True,
        )

    def declare(self, topic: Topic) -> TopicState:
        self._open()
        for _ in range(CHANGES_MAX):
            self._following.refresh()
            held = self._following.registry.topics.get(topic.name)
            if held is None:
                facts = self._made(topic)
                number = self._following.registry.incarnations.get(topic.name, 0) + 1
                change = registry.declaration(topic, incarnation=number, version=1, kafka_id=facts.id)
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
            return self._create(name, topic.partitions, topic.payload, topic.retention)
        spans = self._client.spans([Place(name, index) for index in range(facts.partitions)])
        if facts.partitions != topic.partitions or any(span.high for span in spans):
            raise LogError(
                "HR-0348",
                f"the cluster has a topic {name!r} already",
                detail=f"expected none, or an empty one of {topic.partitions} partitions",
                hint="choose a prefix in the log's URL, or another name",
                topic=topic.name,
            )
        self._client.alter(name, settings=self._kafka_settings(topic.payload, topic.retention))
        return facts

    def _create(self, name: str, partitions: int, form: Payload, retention: Duration | None) -> TopicFacts:
        return self._client.create(name, partitions=partitions, settings=self._kafka_settings(form, retention))

    def _kafka_settings(self, form: Payload, retention: Duration | None) -> Mapping[str, str]:
        return form_settings(form, retention, min_insync_replicas=in_sync(self._replication))

    def _altered(self, old: Topic, new: Topic) -> None:
        """In Kafka, before the registry says so: each step may be done again."""
        self._client.alter(
            self._settings.prefix + new.name,
            partitions=new.partitions if new.partitions > old.partitions else None,
            settings=self._kafka_settings(new.payload, new.retention),
        )

    def _put_in_force(self, held: Registered) -> None:
        """Say in each live partition that its newest definition judges from there on, where that is not said yet."""
        behind = []
        for index in range(held.topic.partitions):
            feed = self._following.feed(held.partition(index))
            (span,) = self._following.spans([feed.place], fresh=True)
            self._following.pump_to({feed.place: span.end})
            first = held.versions[feed.version - 1]
            if feed.version < held.version and not judges_alike(first, held.topic):
                behind.append(feed)
        if behind:
            offsets = self._send([versioning(feed.place, held.version) for feed in behind])
            self._following.pump_to({f.place: offset + 1 for f, offset in zip(behind, offsets, strict=True)})

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
        (offset,) = self._send([Outgoing(place, topic.encode(), value)])
        self._following.pump_to({place: offset + 1})

    # --- appending ---

    def append(
        self, appends: Sequence[Append], *, group: str | None = None, cut: Cut | None = None, atomic: bool = True
    ) -> tuple[Appended, ...]:
        self._open()
        if (group is None) != (cut is None):
            raise UsageError("HR-0314", "append needs both group and cut, or neither")
        sent = [self._prepared(append) for append in appends]
        offsets = None if group is None or cut is None else self._group_offsets(cut)
        records = [record for one in sent for record in one.records]
        if offsets is not None or (atomic and len(records) > 1):
            found = self._transaction(records, group=group, offsets=offsets)
        else:
            found = self._send(records)
        self._read_back(records, found)
        answers, first = [], 0
        for one in sent:
            answers.append(self._appended(one, found[first : first + len(one.records)]))
            first += len(one.records)
        return tuple(answers)

    def _prepared(self, append: Append) -> _Sent:
        held = self._following.find(append.partition)
        index, topic = append.partition.index, held.topic
        if append.at is not None or append.begins is not None and index < IMPORTS_FROM:
            raise UsageError(
                "HR-0314",
                f"{append.partition}: an append cannot say when or where it is in a shared log",
                detail="its instant is the broker's, and others may come first",
            )
        place = self._following.place(held, index)
        if index < IMPORTS_FROM:
            if append.available_at is not None:
                raise UsageError(
                    "HR-0314", f"{append.partition}: rows of a live partition are available when they come"
                )
            codec = self._following.codec(topic, live=True)
            records = outgoing(topic, codec, place, append.rows, request=append.request)
            return _Sent(append, held, place, topic.payload, records, _rows_of(records, append, topic.payload))
        return self._prepared_import(append, held, place)

    def _prepared_import(self, append: Append, held: Registered, place: Place) -> _Sent:
        found = held.import_of(append.partition.index)
        assert found is not None, "found before"
        made, number = found
        if made.sealed:
            raise LogError("HR-0314", f"{append.partition} is a sealed import")
        if append.available_at is None or len(append.available_at) != len(append.rows):
            raise UsageError("HR-0314", f"{append.partition}: rows of an import say when they were available")
        before = self._import_rows(place)
        if append.begins is not None and append.begins != before:
            raise LogError(
                "HR-0330",
                f"{append.partition}: rows that begin at row {append.begins} came when it held {before}",
                retryable=True,
                end=before,
            )
        judge = self._import_judge(held, made)
        index = append.partition.index
        judged = judge.imported(index, append.rows, append.available_at)
        judge.remember(index, append.rows, judged)
        stored = Stored(available_at=judged.available_at, verdicts=judged.verdicts)
        codec = self._following.codec(held.topic, live=False)
        records = outgoing_judged(held.topic, codec, place, append.rows, stored, form=made.form, before=before)
        return _Sent(append, held, place, made.form, records, _rows_of(records, append, made.form), stored)

    def _read_back(self, records: Sequence[Outgoing], offsets: Sequence[int]) -> None:
        """Until what was appended to live partitions has been judged, and what was appended to imports is stable: a
        transaction is committed before its partitions are told."""
        targets: dict[Place, int] = {}
        for record, offset in zip(records, offsets, strict=True):
            targets[record.place] = max(targets.get(record.place, 0), offset + 1)
        live = {place: partition for place in targets if (partition := self._live_partition(place)) is not None}
        for partition in live.values():
            self._following.feed(partition)
        self._following.pump_to({place: targets[place] for place in live}, patience=READ_BACK)
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
        counts = np.array(one.rows, np.int64)
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

    # --- sending: one call at a time ---

    def _send(self, records: Sequence[Outgoing]) -> list[int]:
        if not records:
            return []
        with self._sending:
            if self._sender is None:
                self._sender = self._client.sender()
            try:
                return self._sender.send(records)
            except LogError as error:
                if error.code == "HR-0311" or isinstance(error, FencedError):
                    self._sender.close()
                    self._sender = None
                raise

    def _transaction(
        self, records: Sequence[Outgoing], *, group: str | None, offsets: Mapping[Place, GroupOffset] | None
    ) -> list[int]:
        with self._sending:
            if self._transactor is None:
                self._transactor = self._client.sender(transactional_id=self._transactional_id)
            sender = self._transactor
            try:
                sender.begin()
                found = sender.send(records) if records else []
                sender.commit(group=None if group is None else self._group_name(group), offsets=offsets)
                return found
            except LogError as error:
                self._transactor = None  # the next one with this id ends what is open, either way
                if error.code in ("HR-0343", "HR-0345"):
                    self._give_up(sender)
                sender.close()
                raise

    def _give_up(self, sender: Sender) -> None:
        try:
            sender.abort()
        except LogError:
            pass  # the broker aborts it, at the latest after its timeout

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
        self._following.pump_to({feed.place: span.end for feed, span in zip(feeds, spans, strict=True)})

    def _moved(self, cut: Cut) -> bool:
        feeds = self._following.feeds
        return any(partition in feeds and feeds[partition].end > at for partition, at in cut)

    def _listed(self, cut: Cut) -> set[Partition]:
        topics = self._following.registry.topics
        there = [topics[name] for name in cut.topics() if name in topics]
        live = {held.partition(index) for held in there for index in range(held.topic.partitions)}
        sealed = [(held, one) for held in there for one in held.imports if one.sealed]
        return live | {held.partition(one.first + number) for held, one in sealed for number in range(one.partitions)}

    # --- imports ---

    def import_partitions(
        self, topic: str, import_id: str, *, seal: bool = False, form: Payload = Payload.ARROW
    ) -> tuple[PartitionState, ...]:
        self._open()
        self._following.refresh()
        held, made = self._import(topic, import_id)
        if made is None:
            number = sum(one.partitions for one in held.imports)
            name = f"{self._settings.prefix}{topic}.import.{held.incarnation}.{number}.{uuid.uuid4().hex[:8]}"
            facts = self._create(name, held.topic.partitions, form, None)
            wanted = Import(
                import_id=import_id,
                first=registry.next_import(held),
                partitions=held.topic.partitions,
                form=form,
                kafka_topic=name,
                kafka_id=facts.id,
            )
            self._change(topic, registry.importing(held, wanted))
            held, made = self._import(topic, import_id)
            assert made is not None, "this one counts, or another's of the same id"
            if made.kafka_id != facts.id:
                self._client.delete(name)
        if seal and not made.sealed:
            self._seal(held, made)
            held, made = self._import(topic, import_id)
            assert made is not None
            self._importing.pop(made.kafka_id, None)
        return tuple(self._import_partition(held, made, number) for number in range(made.partitions))

    def _import(self, topic: str, import_id: str) -> tuple[Registered, Import | None]:
        held = self._following.registered(topic)
        return held, next((one for one in held.imports if one.import_id == import_id), None)

    def _import_partition(self, held: Registered, made: Import, number: int) -> PartitionState:
        if made.sealed:
            return _import_state(held, made, number)
        rows = self._import_rows(Place(made.kafka_topic, number))
        return PartitionState(
            partition=held.partition(made.first + number),
            kind=PartitionKind.IMPORT,
            start=0,
            end=0,
            available_at=Instant(int(NEVER)),
            sealed=False,
            rows=rows,
        )

    def _seal(self, held: Registered, made: Import) -> None:
        places = [Place(made.kafka_topic, number) for number in range(made.partitions)]
        spans = self._client.spans(places)
        rows = tuple(self._import_rows(place) for place in places)
        ends = tuple(position(made.form, span.end) for span in spans)
        self._change(held.topic.name, registry.sealing(held, made.import_id, ends=ends, rows=rows))

    def _import_rows(self, place: Place) -> int:
        """How many rows an import's partition holds: its last record says so."""
        (span,) = self._client.spans([place])
        back = 4
        while span.end > span.start:
            first = max(span.start, span.end - back)
            last = None
            for records in self._following.fetched(place, first, span.end):
                last = records[-1]
            if last is not None:
                return rows_before(last)
            if first == span.start:
                break
            back *= 8  # what an aborted append left lies between
        return 0

    def _import_judge(self, held: Registered, made: Import) -> Judge:
        """Knows the ids of all that is visible of the topic, and of what this import holds; kept until it is sealed."""
        found = self._importing.get(made.kafka_id)
        if found is None or found.topic != held.topic:
            found = Judge(held.topic)
            states = [self._live_state(held, index) for index in range(held.topic.partitions)]
            states += [_import_state(held, one, n) for one in held.imports if one.sealed for n in range(one.partitions)]
            for state in states:
                for batch in self._following.read(state.partition, state.start, None, 1 << 18):
                    _know(found, state.partition.index, batch)
            for number, span in enumerate(
                self._client.spans([Place(made.kafka_topic, n) for n in range(made.partitions)])
            ):
                for batch in self._following.imported(held, made, number, 0, position(made.form, span.end)):
                    _know(found, made.first + number, batch)
            self._importing[made.kafka_id] = found
        return found

    # --- ending ---

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._sending:
            for sender in (self._sender, self._transactor):
                if sender is not None:
                    sender.close()
        self._following.close()
        self._client.close()

    def _open(self) -> None:
        if self._closed:
            raise LogError("HR-0316", "the log is closed")


def _codecs() -> Codecs:
    """JSON's codec, by its plug: it stands on the law of valid rows, above the log."""
    made: Callable[..., EventCodec] = plugs.load("payload", "json")  # type: ignore[assignment]  # what the plug names
    return lambda topic, live: made(topic, live=live)


def _know(judge: Judge, index: int, batch: pa.RecordBatch) -> None:
    judge.restore([(index, batch)])
    judge.recall([(index, batch)])


def _rows_of(records: Sequence[Outgoing], append: Append, form: Payload) -> Sequence[int]:
    """How many rows each record holds: one, or in Arrow form slices alike but for the last."""
    if form is Payload.JSON or not records:
        return [1] * len(records)
    return [_arrow_rows(record) for record in records]


def _arrow_rows(record: Outgoing) -> int:
    assert record.value is not None
    with pa.ipc.open_stream(record.value) as reader:
        return sum(batch.num_rows for batch in reader)


def _import_state(held: Registered, made: Import, number: int) -> PartitionState:
    assert made.ends is not None
    return PartitionState(
        partition=held.partition(made.first + number),
        kind=PartitionKind.IMPORT,
        start=0,
        end=made.ends[number],
        available_at=Instant(int(NEVER)),
        sealed=True,
        rows=made.rows[number],
    )


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
