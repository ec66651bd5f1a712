"""Reading a Kafka log: the registry and every partition that was asked for, followed by one fetcher; older rows by one
of their own.

The one idea: nobody is told of new records, everyone who wants to know asks: each call fetches for all partitions that
are followed, and gives its feed what came. So there is no thread, and a test decides when something is read. Touches
the cluster through its client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from headrace.clients.kafka.port import Acknowledged, Cluster, Fetched, KafkaClient, Outgoing, Place, Record, Span
from headrace.core.errors import LogError, NotFoundError, StateError, did_you_mean
from headrace.core.garbage import uncollected
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import ZERO, Clock, Duration
from headrace.log import kafka_registry as registry
from headrace.log.define import Payload, Topic
from headrace.log.fair_lock import FairLock
from headrace.log.kafka_altered import altered, deleted, refused, widened
from headrace.log.kafka_control import NAME as CONTROL
from headrace.log.kafka_control import Control, anchor_slots
from headrace.log.kafka_derived import DerivedFeed, unbound
from headrace.log.kafka_feed import Anchor, Feed, conformed, with_system
from headrace.log.kafka_fetchers import Fetchers, unread
from headrace.log.kafka_halts import Halts
from headrace.log.kafka_registry import Import, Registered, Registry
from headrace.log.kafka_rows import below, decoded, offset_of, parts, position, since, without
from headrace.log.kafka_topics import control_settings, form_settings, kafka_settings
from headrace.log.plan import Judged
from headrace.log.port import OFFSET, EventCodec

Codecs = Callable[[Topic, bool], EventCodec]  # of a definition; whether its rows are live

SLICE = Duration.parse("10ms")  # of a fetch that waits: others want to fetch too
PATIENCE = Duration.parse("30s")  # until rows that are stable have been read; K8's longest silence of a leader is 6.5 s
RECORDS = 10_000
MISSED_S = (0.1, 0.2, 0.4, 0.8)  # pauses, while a topic that was declared is missing
PASSED_BY = 500  # records of its own, taken: from so many on it costs less to seek past them than to fetch them in vain


class Following:
    """What this process has read of the log. Any thread may call; one fetches at a time."""

    def __init__(
        self,
        client: KafkaClient,
        *,
        prefix: str,
        codecs: Codecs,
        clock: Clock,
        control: Control,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """monotonic: seconds, by which patience ends where others' records come and come."""
        self.client = client
        self.halts = Halts(clock, ask=control.ask, leader=control.leader)
        self.prefix = prefix
        self.lock = FairLock()
        self.registry = Registry()
        self.registry_place = Place(prefix + registry.NAME, 0)
        self.feeds: dict[Partition, Feed] = {}
        self._clock = clock
        self._control = control
        self._waiting: dict[Place, list[Fetched]] = {}  # what may not be taken before the registry was read
        self._settling = False
        self._codecs = codecs
        self._monotonic = monotonic
        self._made_codecs: dict[tuple[str, bool], tuple[Topic, EventCodec]] = {}
        self._by_place: dict[Place, Feed] = {}
        self._spans: dict[Place, Span] = {}
        self._settled: set[str] = set()  # ids of topics whose settings were looked at
        self._begins: dict[tuple[str, int, int], int] = {}  # of partitions that are not followed, by what is kept
        self._fetcher = Fetchers(client, monotonic=monotonic)
        self._registry_next = client.spans([self.registry_place])[0].start
        self._fetcher.seek(self.registry_place, self._registry_next)

    def close(self) -> None:
        with self.lock:
            self._fetcher.close()

    # --- what there is ---

    def refresh(self) -> None:
        """Read the registry to its stable end."""
        now = self._clock.now()
        self.pump_to({self.registry_place: self.client.spans([self.registry_place])[0].end})
        with self.lock:
            self.halts.checked = now

    def look(self) -> None:
        """`refresh`, and the spans of all live partitions, by one call where the registry says nothing new."""
        now = self._clock.now()
        with self.lock:
            before = dict(self.registry.topics)
        live = [self.place(held, index) for held in before.values() for index in range(held.topic.partitions)]
        places = [self.registry_place, *live]
        try:
            found = self.client.spans(places)
        except NotFoundError:  # one was dropped meanwhile, which the registry says
            found = self.client.spans(places[:1])
        self.pump_to({self.registry_place: found[0].end})
        with self.lock:
            self.halts.checked = now
            if len(found) == len(places) and self.registry.topics == before:
                self._spans.update(zip(places, found, strict=True))
                return
            held = list(self.registry.topics.values())
        self.spans([self.place(one, index) for one in held for index in range(one.topic.partitions)], fresh=True)

    def registered(self, topic: str) -> Registered:
        """Raises: NotFoundError HR-0302."""
        held = self.registry.topics.get(topic)
        if held is None:
            raise NotFoundError(
                "HR-0302", f"no topic {topic!r} in the log", hint=did_you_mean(topic, self.registry.topics)
            )
        return held

    def find(self, partition: Partition) -> Registered:
        """The topic of a partition. Raises: NotFoundError HR-0302."""
        held = self.registry.topics.get(partition.topic)
        if held is None or held.incarnation != partition.incarnation or not _has(held, partition.index):
            self.refresh()
            held = self.registered(partition.topic)
        if held.incarnation != partition.incarnation or not _has(held, partition.index):
            raise NotFoundError("HR-0302", f"no partition {partition} in the log")
        return held

    def place(self, held: Registered, index: int) -> Place:
        """Where a partition lies in the cluster."""
        if index < IMPORTS_FROM:
            return Place(self.prefix + held.topic.name, index)
        found = held.import_of(index)
        assert found is not None, "found before"
        return Place(found[0].kafka_topic, found[1])

    def spans(self, places: list[Place], *, fresh: bool) -> list[Span]:
        """fresh: False takes those that were seen last, where all of them were."""
        if fresh or any(place not in self._spans for place in places):
            found = self.client.spans(places)
            self._spans.update(zip(places, found, strict=True))
            return found
        return [self._spans[place] for place in places]

    def codec(self, topic: Topic, *, live: bool) -> EventCodec:
        """Made once a definition; of a topic under several, once again where they take turns."""
        found = self._made_codecs.get((topic.name, live))
        if found is None or found[0] is not topic and not _reads_alike(found[0], topic):
            found = self._made_codecs[topic.name, live] = topic, self._codecs(topic, live)
        return found[1]

    # --- following ---

    def feed(self, partition: Partition) -> Feed:
        """The live partition's feed, followed from its start from now on. Raises: NotFoundError HR-0302, LogError
        HR-0346 (another topic has its name now)."""
        with self.lock:
            found = self.feeds.get(partition)
            return self._followed(self._made(partition)[0]) if found is None else found

    def resume(self, partition: Partition, body: bytes) -> bool:
        """Follow a live partition from where the feed of another process was, which `body` knows (`Feed.kept`). False
        where it is followed already.

        Raises: as `feed`; StateError HR-0550, HR-0551, HR-0568 where that feed was of another log, or of more than is
        there: it is not followed then."""
        with self.lock:
            if partition in self.feeds:
                return False
            made, span = self._made(partition)
            made.resume(body)
            if not span.start <= made.next <= span.end:
                raise StateError(
                    "HR-0568",
                    f"the judge's checkpoint of {partition} does not fit the log",
                    detail=f"it was judged up to Kafka offset {made.next}, the log has {span.start} to {span.end}",
                    hint="the partition is read from its start",
                )
            self._followed(made)
            return True

    def _made(self, partition: Partition) -> tuple[Feed, Span]:
        held = self.find(partition)
        place = self.place(held, partition.index)
        self.check_id(held, self._cluster(held))
        if held.kafka_id not in self._settled:
            self.check_settings(held)
            self._settled.add(held.kafka_id)
        derived = held.topic.derivation is not None
        (span,) = self.client.spans([place])
        if (error := deleted(held, place, span.start)) is not None:
            raise error
        made = (DerivedFeed if derived else Feed)(
            held,
            partition.index,
            place,
            start=span.start,
            codec=lambda topic: self.codec(unbound(topic) if derived else topic, live=not derived),
            known=lambda version: self._definition(partition.topic, version),
            lock=self.lock,
            anchor=None if derived else self._anchor(held, partition.index, span.start),
        )
        return made, span

    def _cluster(self, held: Registered) -> Cluster:
        """A broker that has just come back may not know all topics yet: where it misses one it is asked again."""
        for pause_s in MISSED_S:
            found = self.client.cluster(self.prefix)
            if self.prefix + held.topic.name in found.topics:
                return found
            time.sleep(pause_s)
        return self.client.cluster(self.prefix)

    def _followed(self, feed: Feed) -> Feed:
        self.feeds[feed.partition] = self._by_place[feed.place] = feed
        self._fetcher.seek(feed.place, feed.next)
        return feed

    def _anchor(self, held: Registered, index: int, start: int) -> Anchor | None:
        """Where a reader begins of a partition that lost its first records; at what is kept, where nobody said more."""
        if start == 0 or not anchor_slots(held.topic):
            return None
        return self._control.begin(held.kafka_id, index, start, self.fetched)

    def begin(self, held: Registered, index: int, start: int) -> int:
        """The first Kafka offset of a live partition that is read. start: that is kept."""
        feed = self.feeds.get(held.partition(index))
        if feed is not None:
            return max(feed.begin, start)
        if held.topic.derivation is not None:
            return start
        known = self._begins.get((held.kafka_id, index, start))
        if known is None:
            anchor = self._anchor(held, index, start)
            known = self._begins[held.kafka_id, index, start] = start if anchor is None else anchor.offset
        return known

    def anchored(self) -> list[Outgoing]:
        """What is to be written down of the partitions that are followed."""
        with self.lock:
            passed = [(feed, anchors) for feed in self.feeds.values() if (anchors := feed.passed())]
        found = []
        for feed, anchors in passed:
            id, index, slots = feed.held.kafka_id, feed.partition.index, anchor_slots(feed.held.topic)
            self._control.learn(id, index, self.fetched)
            said = [self._control.anchored(id, index, each, slots=slots) for each in anchors[-slots:] if slots]
            found += [each for each in said if each is not None]
        return found

    def check_settings(self, held: Registered) -> None:
        """Raises: LogError HR-0356 where a setting would change what rows are."""
        name = self.prefix + held.topic.name
        if (error := refused(name, kafka_settings(held.topic), self._settings(name))) is not None:
            raise error

    def _settings(self, name: str) -> Mapping[str, str]:
        """As the cluster says them; none where this user may not ask."""
        try:
            return self.client.settings(name)
        except LogError as error:
            if error.code == "HR-0342":
                return {}
            raise

    def altered(self) -> Iterator[LogError]:
        """What was altered by hand, of all topics."""
        cluster = self.client.cluster(self.prefix)
        for held in self.registry.topics.values():
            try:
                self.check_id(held, cluster)
            except LogError as wrong:
                yield wrong
                continue
            name = self.prefix + held.topic.name
            yield from altered(name, kafka_settings(held.topic), self._settings(name))
            places = [self.place(held, index) for index in range(held.topic.partitions)]
            for place, span in zip(places, self.client.spans(places), strict=True):
                if (error := deleted(held, place, span.start)) is not None:
                    yield error
            for made in held.imports:
                wanted = form_settings(made.form, None, min_insync_replicas=1)
                if made.kafka_topic in cluster.topics:
                    yield from altered(made.kafka_topic, wanted, self._settings(made.kafka_topic))
        wanted = form_settings(Payload.JSON, None, min_insync_replicas=1)
        yield from altered(self.registry_place.topic, wanted, self._settings(self.registry_place.topic))
        control = self.prefix + CONTROL
        if control in cluster.topics:
            yield from altered(control, control_settings(min_insync_replicas=1), self._settings(control))

    def check_id(self, held: Registered, cluster: Cluster) -> None:
        """Raises: LogError HR-0346, HR-0356 where it has other partitions than were declared."""
        facts = cluster.topics.get(self.prefix + held.topic.name)
        if facts is None or facts.id != held.kafka_id:
            raise LogError(
                "HR-0346",
                f"topic {held.topic.name!r} is not the one that was declared",
                detail=f"expected the Kafka topic with id {held.kafka_id}, seen "
                + ("none of its name" if facts is None else f"one with id {facts.id}"),
                hint="what it held is gone; headrace topics drop, then headrace apply, begin it anew",
                topic=held.topic.name,
            )
        if (error := widened(held, facts)) is not None:
            raise error

    def _definition(self, topic: str, version: int) -> Topic:
        """A version's definition; one that is newer than what was read of the registry is read now."""
        if version > self.registered(topic).version:
            self.refresh()
        return self.registered(topic).versions[version - 1]

    def pump(self, timeout: Duration = ZERO) -> bool:
        """Fetch once; whether anything came."""
        with self.lock:
            self._resume()
            found = self._fetcher.fetch(timeout=timeout, records_max=RECORDS)
            for one in found:
                self._take(one)
            if self._waiting and not self._settling:
                self._settle()
            return bool(found)

    def take_own(self, records: Sequence[Outgoing], found: Acknowledged) -> None:
        """Records that this process has just appended, outside a transaction, to partitions that it may follow: of each
        partition that was read up to the first of them, with nothing of others between, they are what a fetch would
        bring next, and so are taken as if it had (docs/adr/0025). Elsewhere nothing is done."""
        if found.stamps is None:
            return
        by: dict[Place, list[Record]] = {}
        with uncollected(len(records)):
            for (place, key, value, headers, _), offset, stamp in zip(
                records, found.offsets, found.stamps, strict=True
            ):
                by.setdefault(place, []).append(Record(offset, stamp, key, value, headers))
        with self.lock:
            for place, own in by.items():
                feed, end = self._by_place.get(place), own[-1].offset + 1
                if feed is None or feed.next != own[0].offset or end - feed.next != len(own):
                    continue
                if place not in self._waiting and self.halts.error(place) is None:
                    self._take(Fetched(place, own, end, False))
                if feed.next == end and len(own) >= PASSED_BY:
                    self._fetcher.seek(place, end)
            if self._waiting and not self._settling:
                self._settle()

    def check_going(self, place: Place) -> None:
        """Raises: where a partition is not read on, why (log/kafka_clock.py)."""
        if (error := self.looked().error(place)) is not None:
            raise error

    def looked(self) -> Halts:
        """What halts now: whose time has come goes on, as does what an operator restarted, and the brokers' clocks are
        asked now and then."""
        if self.halts:
            try:
                self.pump()
            except LogError:
                pass  # who reads is told; what halted before does still
        return self.halts

    def _resume(self) -> None:
        for halt in self.halts.resumed() if self.halts else ():
            self._fetcher.seek(halt.place, halt.offset)

    def hurry(self, places: Iterable[Place]) -> None:
        """Somebody waits for what it appended to these, which are followed."""
        with self.lock:
            self._fetcher.hurry(places)

    def pump_to(self, targets: Mapping[Place, int], *, patience: Duration = PATIENCE) -> None:
        """Fetch until each partition is read up to a Kafka offset; between two fetches others have their turn. Raises:
        LogError HR-0349 where that takes longer, NotFoundError HR-0302 where one of them is dropped meanwhile."""
        waited, timeout = 0, ZERO
        while missing := [place for place, end in targets.items() if self._next(place) < end]:
            before, began = sum(map(self._next, missing)), self._monotonic()
            if self.pump(timeout):  # of others, perhaps, and it may be long until they bring nothing
                waited += int((self._monotonic() - began) * 1e6)
            else:
                waited, timeout = waited + timeout.micros, SLICE
            for place in missing:
                error = self.halts.error(place)
                if error is not None and self._next(place) < targets[place]:
                    raise error
            if sum(map(self._next, missing)) != before:
                waited, timeout = 0, ZERO
            elif waited > patience.micros:
                place = missing[0]
                raise unread(place, f"expected to reach offset {targets[place]}, at {self._next(place)}", patience)

    def wait_stable(self, targets: Mapping[Place, int]) -> None:
        """Until the last stable offset of each partition is at or behind a Kafka offset. Raises: LogError HR-0349."""
        waited = 0
        while targets:
            spans = self.spans(list(targets), fresh=True)
            behind = [place for (place, end), span in zip(targets.items(), spans, strict=True) if span.end < end]
            if not behind:
                return
            if waited > PATIENCE.micros:
                raise unread(behind[0], f"expected offset {targets[behind[0]]} to be stable", PATIENCE)
            self.pump(SLICE)
            waited += SLICE.micros

    def _next(self, place: Place) -> int:
        if place == self.registry_place:
            return self._registry_next
        feed = self._by_place.get(place)
        if feed is None:
            raise NotFoundError("HR-0302", f"topic {place.topic.removeprefix(self.prefix)!r} was dropped meanwhile")
        return feed.next

    def _take(self, one: Fetched) -> None:
        if one.place == self.registry_place:
            for record in one.records:
                if self.registry.take(record.value or b"", record.timestamp):
                    self._changed()
            self._registry_next = one.next
            return
        feed = self._by_place.get(one.place)
        if feed is None or one.next < feed.next:
            return
        one = without(one, below=feed.next)
        if one.place in self._waiting:
            self._waiting[one.place].append(one)
        elif (rest := self._taken(feed, one)) is not None:
            self._waiting[one.place] = [rest]

    def _taken(self, feed: Feed, one: Fetched) -> Fetched | None:
        """Take what may be taken; the rest."""
        records, rest = self.halts.split(feed, one)
        feed.take(records, one.next if rest is None else rest.records[0].offset)
        return rest

    def _settle(self) -> None:
        """What waits is taken, or its partition halts. Raises: LogError where the registry cannot be read; then what
        waits is fetched again."""
        self._settling = True
        try:
            if self.halts.unchecked(stash[0] for stash in self._waiting.values()):
                self.refresh()
        except LogError:
            waiting, self._waiting = self._waiting, {}
            for place in waiting:
                if place in self._by_place:
                    self._fetcher.seek(place, self._by_place[place].next)
            raise
        finally:
            self._settling = False
        waiting, self._waiting = self._waiting, {}
        for place, stash in waiting.items():
            feed = self._by_place.get(place)
            for one in stash if feed is not None else ():
                assert feed is not None
                if (rest := self._taken(feed, one)) is not None:
                    self._fetcher.drop(place)
                    self.halts.halt(feed, rest)
                    break

    def _changed(self) -> None:
        """The registry moved: feeds see their topics as they are now, those of dropped ones end."""
        for partition, feed in list(self.feeds.items()):
            held = self.registry.topics.get(partition.topic)
            if held is not None and held.incarnation == partition.incarnation:
                if (over := self.halts.changed(feed, held)) is not None:
                    self._fetcher.seek(feed.place, over.offset)
            else:
                del self.feeds[partition], self._by_place[feed.place]
                self._waiting.pop(feed.place, None)
                self.halts.dropped(feed.place)
                self._fetcher.drop(feed.place)

    # --- reading ---

    def read(self, partition: Partition, at: int, end: int | None, rows_max: int) -> Iterator[pa.RecordBatch]:
        """As `Log.read`. The checks are made at the call, the reading as the rows are taken."""
        held = self.find(partition)
        place = self.place(held, partition.index)
        found = held.import_of(partition.index)
        if found is not None:
            made, number = found
            stable = made.ends[number] if made.ends is not None else 0
            batches = self.imported(held, made, number, at, stable if end is None else min(end, stable))
            return parts(batches, rows_max)
        feed = self.feed(partition)
        span = self._spans.get(place)
        if end is None or span is None or feed.next < offset_of(feed.form, end - 1) + 1:
            span = self.spans([place], fresh=True)[0]
        first = position(feed.form, max(span.start, feed.begin))
        if at < first:
            raise LogError(
                "HR-0303",
                f"{partition}: offset {at} is no longer kept",
                detail=f"the first that is: {first}",
                hint="a state that needs it is built anew; keep the topic longer (retention)",
                partition=str(partition),
            )
        stable = position(feed.form, max(span.end, feed.next))
        return parts(self._live(feed, at, stable if end is None else min(end, stable)), rows_max)

    def _live(self, feed: Feed, at: int, end: int) -> Iterator[pa.RecordBatch]:
        """Rows of [at, end): from memory, or judged as they are fetched, or fetched again."""
        while at < end:
            with self.lock:
                old = min(end, feed.tail_from)
                batch = feed.recent(at) if at >= old else None
                done = feed.next > offset_of(feed.form, end - 1)
            if at < old:
                yield from self._old(feed, at, old)
                at = old
                continue
            if batch is None:
                if done:
                    return
                self._pump_on(feed, end)
                continue
            batch = below(batch, end)
            if not batch.num_rows:
                return
            yield batch
            at = int(batch.column(OFFSET)[-1].as_py()) + 1

    def _pump_on(self, feed: Feed, end: int) -> None:
        """Until the feed has read something more."""
        self.pump_to({feed.place: min(feed.next + 1, offset_of(feed.form, end - 1) + 1)})

    def _old(self, feed: Feed, at: int, end: int) -> Iterator[pa.RecordBatch]:
        """Rows of [at, end) that were judged before and are no longer in memory."""
        with self.lock:
            offset, maximum, version = feed.mark(at)
        for records in self.fetched(feed.place, offset, offset_of(feed.form, end - 1) + 1):
            batches, maximum, version = feed.again(records, maximum, version)
            for batch in batches:
                wanted = below(since(batch, at), end)
                if wanted.num_rows:
                    yield wanted

    def imported(self, held: Registered, made: Import, number: int, at: int, end: int) -> Iterator[pa.RecordBatch]:
        """Rows of [at, end) of an import's partition, sealed or not."""
        if at >= end:
            return
        topic, place = held.topic, Place(made.kafka_topic, number)
        for records in self.fetched(place, offset_of(made.form, at), offset_of(made.form, end - 1) + 1):
            found = decoded(topic, self.codec(topic, live=False), records, form=made.form, judged=True)
            if found.unreadable:
                one = found.unreadable[0]
                raise LogError(
                    "HR-0304", f"{place.topic}/{place.partition}: offset {one.place} of an import: {one.reason}"
                )
            assert found.stored is not None
            times = found.stored.available_at
            if topic.event_time is not None:
                times = found.rows.column(topic.event_time).cast(pa.int64()).to_numpy()
            judged = Judged(
                verdicts=found.stored.verdicts,
                event_times=times,
                available_at=found.stored.available_at,
                payloads=np.zeros(0, np.uint64),
            )
            batch = below(since(conformed(with_system(found, judged), topic.schema), at), end)
            if batch.num_rows:
                yield batch

    def fetched(self, place: Place, offset: int, end: int) -> Iterator[list[Record]]:
        """Records of [offset, end), by a fetcher of their own, as somebody waits for them."""
        fetcher = self.client.fetcher(eager=True)
        try:
            fetcher.seek(place, offset)
            waited = 0
            while offset < end:
                came = fetcher.fetch(timeout=SLICE, records_max=RECORDS)
                waited = 0 if came else waited + SLICE.micros
                for one in came:
                    records = [record for record in one.records if record.offset < end]
                    offset = one.next
                    if records:
                        yield records
                if waited > PATIENCE.micros:
                    raise unread(place, f"expected to reach offset {end}, at {offset}", PATIENCE)
        finally:
            fetcher.close()


def _has(held: Registered, index: int) -> bool:
    return index < held.topic.partitions if index < IMPORTS_FROM else held.import_of(index) is not None


def _reads_alike(one: Topic, other: Topic) -> bool:
    return one.schema.fields == other.schema.fields and one.required == other.required
