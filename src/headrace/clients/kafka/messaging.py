"""Producers and consumers of confluent-kafka as the SDK needs them: sends that are answered later, groups whose
partitions come and go. Touches: the network.

The one idea: what librdkafka decides by a default which differs from Java's, or which loses events, is decided here:
acknowledged by all, idempotent, no partitioner, no automatic commit, no reset of offsets. The rest, how a cluster is
addressed and asked and what its errors mean, is that of the log's client.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from headrace.clients.kafka.connection import FENCED, IN_FLIGHT, PATIENCE, Connection, Health, made
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.fetching import ConfluentFetcher
from headrace.clients.kafka.messages import LINGER, About, Polled
from headrace.clients.kafka.port import GroupOffset, Headers, Place, Record, Span
from headrace.clients.kafka.topics import Topics
from headrace.core.errors import FencedError, HeadraceError, LogError, NotFoundError
from headrace.core.times import Duration

LOGGER = logging.getLogger(__name__)

DELIVERY_MS = 120_000  # longer than any change of leaders; after it an outcome is called unknown
TRANSACTION_MS = 60_000
TRANSACTION_S = 30.0  # for its commit or its end
HEARTBEATS_A_SESSION = 12  # as the log's members: a second member has its partitions within a second
POLL_MS_MAX = 60_000  # a rebalance waits so long for a member whose events are still running
# An idle consumer costs an empty answer of the broker each so often; records that come are answered at once.
IDLE_WAIT_MS = 500
Delivered = Callable[[int, HeadraceError | None], None]


class Watcher(Protocol):
    """See sdk.port."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]: ...

    def revoked(self, partitions: Sequence[int]) -> None: ...

    def lost(self, partitions: Sequence[int]) -> None: ...


class KafkaMessages:
    """A cluster at an address. environ: where the password is looked for. Connects when it is first asked.

    Raises: UsageError HR-0350.
    """

    def __init__(self, settings: KafkaSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._connection = Connection(settings, environ)
        self._topics = Topics(self._connection)

    def topic_name(self, topic: str) -> str:
        return self._settings.prefix + topic

    def about(self, topic: str) -> About:
        cluster = self._topics.cluster(topic)
        facts = cluster.topics.get(topic)
        if facts is None:
            raise NotFoundError(
                "HR-0302", f"the Kafka cluster has no topic {topic!r}", hint="headrace apply makes what is declared"
            )
        bytes_max = self._topics.takes(topic, 0)
        return About(cluster_id=cluster.id, topic_id=facts.id, partitions=facts.partitions, record_bytes_max=bytes_max)

    def make(self, topic: str, partitions: int, settings: Mapping[str, str]) -> None:
        try:
            self._topics.create(topic, partitions=partitions, settings=settings)
        except LogError as error:
            if error.code != "HR-0348":
                raise

    def spans(self, places: Sequence[Place]) -> list[Span]:
        return self._topics.spans(places)

    def committed(self, group: str, places: Sequence[Place]) -> dict[Place, GroupOffset]:
        return self._topics.group_offsets(group, places)

    def outbox(
        self,
        *,
        buffered_max: int,
        linger: Duration = LINGER,
        transactional_id: str | None = None,
        record_bytes_max: int,
    ) -> ConfluentOutbox:
        return ConfluentOutbox(self._connection, buffered_max, linger, transactional_id, record_bytes_max)

    def join(self, group: str, topic: str, watcher: Watcher) -> ConfluentReader:
        return ConfluentReader(self._connection, self._topics, group, topic, watcher)

    def tail(self) -> ConfluentFetcher:
        return ConfluentFetcher(self._connection, self._topics)

    def close(self) -> None:
        self._topics.close()


class ConfluentOutbox:
    """See sdk.port.Outbox. Raises (made): LogError HR-0340 to HR-0342, UsageError HR-0350."""

    def __init__(
        self,
        connection: Connection,
        buffered_max: int,
        linger: Duration,
        transactional_id: str | None,
        record_bytes_max: int,
    ) -> None:
        self._connection = connection
        self._health = Health(connection)
        properties: dict[str, object] = {
            **connection.properties(self._health),
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": IN_FLIGHT,
            "acks": "all",
            "linger.ms": linger.micros / 1e3,
            "compression.type": "lz4",
            "queue.buffering.max.messages": buffered_max,
            "queue.buffering.max.kbytes": 1 << 18,  # 256 MB
            "message.max.bytes": max(1_000_000, record_bytes_max),
            "delivery.timeout.ms": DELIVERY_MS,
            "request.timeout.ms": 3_000,
            "topic.metadata.propagation.max.ms": 3_000,
            "partitioner": "murmur2_random",  # never asked, as each record names its partition; never librdkafka's own
        }
        if transactional_id is not None:
            properties |= {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_MS,
                "delivery.timeout.ms": TRANSACTION_MS - 5_000,
            }
        self._client = made(connection, lambda: Producer(properties, logger=connection.logger))
        self._produce = self._client.produce
        if transactional_id is not None:
            self._ended(lambda: self._client.init_transactions(PATIENCE.micros / 1e6), "take over a transactional id")

    def post(
        self, place: Place, key: bytes | None, value: bytes | None, headers: Headers, delivered: Delivered
    ) -> bool:
        def answered(seen: KafkaError | None, message: Message) -> None:
            if seen is None:
                delivered(message.offset(), None)  # type: ignore[arg-type]  # a delivered message has one
            else:
                delivered(-1, self._failure(seen, place.topic))

        try:
            if headers:
                self._produce(place.topic, value, key, place.partition, answered, headers=list(headers))
            else:
                self._produce(place.topic, value, key, place.partition, answered)
        except BufferError:
            return False
        except KafkaException as error:
            raise self._failure(error.args[0], place.topic) from error
        return True

    def serve(self, timeout: Duration) -> None:
        if self._client.poll(timeout.micros / 1e6):
            self._health.well()
        elif timeout.micros:
            self._health.check()

    def begin(self) -> None:
        self._ended(self._client.begin_transaction, "begin a transaction")

    def commit(self) -> None:
        self._ended(lambda: self._client.commit_transaction(TRANSACTION_S), "commit a transaction")

    def abort(self) -> None:
        self._ended(lambda: self._client.abort_transaction(TRANSACTION_S), "give a transaction up")

    def close(self) -> None:
        self._client.purge()
        self._client.poll(0)

    def _ended(self, call: Callable[[], object], doing: str) -> None:
        try:
            call()
        except KafkaException as error:
            self._client.poll(0)
            self._health.check()
            seen = error.args[0]
            if seen.code() in FENCED or seen.fatal():
                raise FencedError(
                    "HR-0344", f"another process took over; could not {doing}", detail=seen.str()
                ) from error
            if seen.txn_requires_abort():
                raise LogError(
                    "HR-0345",
                    f"a transaction must be given up: it could not {doing}",
                    detail=seen.str(),
                    retryable=True,
                ) from error
            if seen.code() == KafkaError._TIMED_OUT and doing.startswith("commit"):
                raise LogError(
                    "HR-0311", "whether a transaction was committed is not known", detail=seen.str(), retryable=True
                ) from error
            raise self._connection.failure(seen, doing) from error

    def _failure(self, seen: KafkaError, topic: str) -> HeadraceError:
        code = seen.code()
        if code in (KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_INFLIGHT, KafkaError._TIMED_OUT) or seen.fatal():
            return LogError(
                "HR-0311",
                f"an event of topic {topic!r} may be there or not",
                detail=f"seen: {seen.str()}",
                hint="events with an id may be sent again: a second one is a duplicate to whoever reads",
                retryable=True,
            )
        if code == KafkaError._PURGE_QUEUE:
            return LogError(
                "HR-0432", f"an event of topic {topic!r} was given up before it was sent", detail=f"seen: {seen.str()}"
            )
        return self._connection.failure(seen, f"write topic {topic!r}")


class ConfluentReader:
    """See sdk.port.Member."""

    def __init__(self, connection: Connection, topics: Topics, group: str, topic: str, watcher: Watcher) -> None:
        self._connection = connection
        self._topics = topics
        self._group = group
        self._topic = topic
        self._watcher = watcher
        self._paused: set[int] = set()
        self._health = Health(connection)
        self._raised: HeadraceError | None = None
        self._down_said = False
        session_ms = connection.settings.session_timeout.micros // 1_000
        properties = {
            **connection.properties(self._health),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "fetch.min.bytes": 1,
            "fetch.wait.max.ms": IDLE_WAIT_MS,
            "fetch.error.backoff.ms": 50,
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": 32 << 10,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": max(100, session_ms // HEARTBEATS_A_SESSION),
            "max.poll.interval.ms": max(POLL_MS_MAX, session_ms),
        }
        self._client = made(connection, lambda: Consumer(properties, logger=connection.logger))
        self._client.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def poll(self, *, timeout: Duration, records_max: int) -> Polled:
        # `consume` waits for all that it was asked for; so one is waited for, and the rest is what is there already
        try:
            first = self._client.poll(timeout.micros / 1e6)
            rest = [] if first is None else self._client.consume(records_max - 1, timeout=0)
        except KafkaException as error:
            raise self._connection.failure(error.args[0], f"read topic {self._topic!r}") from error
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if first is None:
            self._look()
            return Polled((), {})
        records: list[tuple[int, Record]] = []
        ends: dict[int, int] = {}
        for message in (first, *rest):
            partition, seen = message.partition(), message.error()
            if seen is None:
                records.append((partition, _record(message)))  # type: ignore[arg-type]  # a message without error has one
            elif seen.code() == KafkaError._PARTITION_EOF:
                ends[partition] = message.offset() or 0  # type: ignore[index]  # it is a partition's
            else:
                self._told(message, seen)
        if records:
            self._health.well()
        return Polled(records, ends)

    def pause(self, partitions: Sequence[int]) -> None:
        self._client.pause([self._at(each) for each in partitions])
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[int]) -> None:
        self._client.resume([self._at(each) for each in partitions])
        self._paused.difference_update(partitions)

    def seek(self, partition: int, offset: int) -> None:
        self._unassign(self._client, [partition])
        self._client.incremental_assign([self._at(partition, offset)])

    def commit(self, offsets: Mapping[int, GroupOffset], *, wait: bool) -> None:
        wanted = [TopicPartition(self._topic, index, each.offset, each.note) for index, each in offsets.items()]
        try:
            if not wait:
                self._client.commit(offsets=wanted, asynchronous=True)
                return
            for each in self._client.commit(offsets=wanted, asynchronous=False) or []:
                if each.error is not None:
                    raise KafkaException(each.error)
        except KafkaException as error:
            raise LogError(
                "HR-0446", f"group {self._group!r} did not take a commit", detail=f"seen: {error.args[0].str()}",
                retryable=True,
            ) from error  # fmt: skip

    def leave(self) -> None:
        self._client.close()

    def _assigned(self, client: Consumer, places: list[TopicPartition]) -> None:
        # What is raised in here would be raised by whichever call of librdkafka runs it; it is kept for `poll`.
        starts: Mapping[int, int] = {}
        try:
            starts = self._watcher.assigned([each.partition for each in places])
        except HeadraceError as error:
            self._raised = error
        client.incremental_assign([self._at(index, offset) for index, offset in starts.items()])

    def _revoked(self, client: Consumer, places: list[TopicPartition]) -> None:
        self._watcher.revoked([each.partition for each in places])
        self._let_go(client, places)

    def _lost(self, client: Consumer, places: list[TopicPartition]) -> None:
        self._watcher.lost([each.partition for each in places])
        self._let_go(client, places)

    def _let_go(self, client: Consumer, places: list[TopicPartition]) -> None:
        """Those that are assigned: one of which the watcher could not say where it begins never was."""
        there = {each.partition for each in client.assignment()}
        self._unassign(client, [each.partition for each in places if each.partition in there])

    def _unassign(self, client: Consumer, partitions: Sequence[int]) -> None:
        """librdkafka keeps that a partition was paused while others have it: it would never be read again. What is
        resumed is what is still assigned, as that has a place to go on from."""
        places = [self._at(each) for each in partitions]
        client.resume([each for each in places if each.partition in self._paused])
        self._paused.difference_update(partitions)
        client.incremental_unassign(places)

    def _told(self, message: Message, seen: KafkaError) -> None:
        """An error that came instead of a record. Raises what does not pass by itself."""
        doing = f"read topic {self._topic!r}"
        if seen.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION):
            raise self._outside(message.partition() or 0, message.offset(), seen)
        if seen.fatal() or seen.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError._UNKNOWN_PARTITION,
            KafkaError.UNKNOWN_TOPIC_ID,
        ):
            raise self._connection.failure(seen, doing)
        self._health.told(seen)

    def _outside(self, partition: int, offset: int | None, seen: KafkaError) -> HeadraceError:
        (span,) = self._topics.spans([Place(self._topic, partition)])
        if seen.code() == KafkaError._LOG_TRUNCATION or (offset is not None and offset > span.high):
            return truncated(f"{self._topic}/{partition}", offset or 0, span)
        return LogError(
            "HR-0303", f"{self._topic}/{partition}: an offset is gone", detail=f"seen: {seen.str()}", start=span.start
        )

    def _look(self) -> None:
        """At what was said beside the records, when none came. A cluster that is down is waited for: that is what a
        consumer is for; it is said once."""
        self._health.check()
        down = self._health.down_s >= PATIENCE.micros / 1e6
        if down and not self._down_said:
            LOGGER.warning("no broker of %s answers; waiting", self._connection.settings.bootstrap)
        self._down_said = down

    def _at(self, partition: int, offset: int | None = None) -> TopicPartition:
        return (
            TopicPartition(self._topic, partition) if offset is None else TopicPartition(self._topic, partition, offset)
        )


def truncated(place: str, offset: int, span: Span) -> LogError:
    """HR-0347."""
    return LogError(
        "HR-0347",
        f"partition {place} ends at {span.high:,}, offset {offset:,} was read of it",
        hint="find out what was lost before anything goes on from there",
        end=span.high,
    )


def _record(message: Message) -> Record:
    offset = message.offset()
    assert offset is not None  # a message without error has one
    return Record(
        offset,
        message.timestamp()[1],
        message.key(),
        message.value(),
        _headers(message.headers()),  # type: ignore[arg-type]  # given as pairs; the stubs also know a mapping
    )


def _headers(found: Sequence[tuple[str, object]] | None) -> Headers:
    return tuple((name, value if isinstance(value, bytes) else b"") for name, value in found) if found else ()
