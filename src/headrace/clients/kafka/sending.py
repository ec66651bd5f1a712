"""Sends records by librdkafka's idempotent producer, alone or in transactions. One producer a sender.

The one idea: a failure is certain only where nothing of the call was acknowledged and the broker's answer says so.
Everything else is unknown (HR-0311): the sender is over, and what is still queued in it never goes out, so that nothing
lands behind a record of which nobody knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from headrace.clients.kafka.connection import FENCED, IN_FLIGHT, LOOK_S, PATIENCE, Connection, Health, made
from headrace.clients.kafka.port import Acknowledged, GroupOffset, Headers, Outgoing, Place, Sender
from headrace.clients.kafka.topics import Topics
from headrace.core.errors import FencedError, HeadraceError, LogError
from headrace.core.garbage import uncollected
from headrace.core.times import Duration

# A leader that is stopped by a signal takes 6.5 s to be left, a coordinator that died and its transaction as long again
# (docs/KAFKA.md K8).
SEND_PATIENCE = Duration.parse("20s")
TRANSACTION_TIMEOUT = Duration.parse("10s")
# librdkafka gathers what is queued into batches of this size. One record may be larger, where its topic takes it.
_BATCH_BYTES = 1_000_000
_RECORD_BYTES_MAX = 64 << 20
# What a batch of one record holds besides key, value and headers: 61 for the batch, at most 23 for the record.
_FRAME_BYTES = 84
_HEADER_BYTES = 10

# Answers that say that the broker has not taken it.
_CERTAIN = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.POLICY_VIOLATION,
)
_STAMPED_BY_OTHERS = -1  # instead of a stamp: the topic keeps that of who made the record
_Report = tuple[int, int]  # offset and stamp
# Of records that stood behind one that failed: they were never sent.
_BEHIND = (KafkaError._PURGE_QUEUE, KafkaError._GAPLESS_GUARANTEE)


class ConfluentSender(Sender):
    """Raises (made): LogError HR-0340 to HR-0342, within 10 s; the same codes for a transactional id in 20 s."""

    def __init__(self, connection: Connection, topics: Topics, transactional_id: str | None) -> None:
        self._connection = connection
        self._topics = topics
        self._transactional_id = transactional_id
        self._health = Health(connection)
        self._over = ""  # why nothing more is sent
        self._ended = False  # an abort that the caller has not asked for yet was done
        self._groups: dict[str, object] = {}
        self._producer: Producer | None = None
        self._begun()

    def _begun(self) -> Producer:
        """The producer, made where there is none."""
        if self._producer is None:
            producer = self._producer = made(
                self._connection, lambda: Producer(self._properties(), logger=self._connection.logger)
            )
            try:
                if self._transactional_id is None:
                    self._reached(producer)
                else:
                    self._initialized(producer)
            except BaseException:
                self._drop()
                raise
        return self._producer

    def _properties(self) -> dict[str, object]:
        given: dict[str, object] = {
            **self._connection.properties(self._health),
            "request.timeout.ms": 3000,
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": IN_FLIGHT,
            "acks": "all",
            "enable.gapless.guarantee": True,
            # What waits for company gains nothing: a send's records are queued faster than the first batch is answered.
            # With 0.1 ms one record takes 1.5 ms instead of 0.2 ms, and 10,000 are no faster.
            "linger.ms": 0,
            "batch.size": _BATCH_BYTES,
            "message.max.bytes": _RECORD_BYTES_MAX,
            "queue.buffering.max.messages": 0,
            "queue.buffering.max.kbytes": 1 << 20,
            "topic.metadata.propagation.max.ms": 3000,
        }
        if self._transactional_id is None:
            # Longer than `send` waits: what is late is purged at once, and not record by record, whose order would let
            # a later one land without an earlier one.
            given["message.timeout.ms"] = 6 * SEND_PATIENCE.micros // 1000
        else:
            given["transactional.id"] = self._transactional_id
            given["transaction.timeout.ms"] = TRANSACTION_TIMEOUT.micros // 1000
        return given

    def _reached(self, producer: Producer) -> None:
        until = time.monotonic() + PATIENCE.micros / 1e6
        while True:
            try:
                if producer.cluster_id(timeout=LOOK_S):
                    break
            except KafkaException:
                pass  # not yet
            _polled(producer, 0)
            self._health.check()
            if time.monotonic() > until:
                raise self._health.given_up()
        self._health.well()

    def _initialized(self, producer: Producer) -> None:
        doing = f"take over transactional id {self._transactional_id!r}"
        reached = False

        def initialize(timeout_s: float) -> None:
            nonlocal reached
            if not reached:
                self._reached(producer)
                reached = True
            producer.init_transactions(timeout_s)

        error = self._repeated(initialize)
        if error is not None:
            raise self._connection.failure(error, doing)

    # --- sends ---

    def send(self, records: Sequence[Outgoing]) -> Acknowledged:
        self._usable()
        groups = self._sized(records)
        producer = self._begun()
        reports: list[_Report] = []
        with uncollected(len(records)):
            for group in groups:
                reports += self._sent(producer, group, first=not reports)
        offsets, stamps = map(list, zip(*reports, strict=True)) if reports else ([], [])
        return Acknowledged(offsets, None if _STAMPED_BY_OTHERS in stamps else stamps)

    def _sized(self, records: Sequence[Outgoing]) -> list[Sequence[Outgoing]]:
        """The records, in groups that may be on their way together: a batch is as large as its topic takes at most.
        Raises: LogError HR-0343, NotFoundError HR-0302."""
        limits = {place: self._topics.takes(*place) - _FRAME_BYTES for place in {each.place for each in records}}
        largest = min(limits.values(), default=_RECORD_BYTES_MAX)
        sizes = [
            len(key or b"") + len(value or b"") + (_headers_bytes(headers) if headers else 0)
            for _, key, value, headers, _ in records
        ]
        if max(sizes, default=0) > largest:
            for each, size in zip(records, sizes, strict=True):
                if size > limits[each.place]:
                    raise _too_large(each.place.topic, size, limits[each.place])
        if largest >= _BATCH_BYTES or not records:
            return [records] if records else []
        groups, begin, total = [], 0, 0
        for index, size in enumerate(sizes):
            total += size + _FRAME_BYTES
            if total > largest and index > begin:
                groups.append(records[begin:index])
                begin, total = index, size + _FRAME_BYTES
        return [*groups, records[begin:]]

    def _sent(self, producer: Producer, records: Sequence[Outgoing], *, first: bool) -> list[_Report]:
        """first: nothing of the call was sent before."""
        reports: dict[Place, list[_Report]] = {}
        failed: list[KafkaError] = []
        until = time.monotonic() + SEND_PATIENCE.micros / 1e6
        queued = self._queued(producer, records, reports, failed, until)
        single = len(reports) == 1
        only = next(iter(reports.values()), [])
        refused = len(failed)  # by the queue, so that no report follows
        while (len(only) if single else sum(map(len, reports.values()))) + len(failed) - refused < queued:
            if (fatal := _polled(producer, LOOK_S)) is not None:
                failed.append(fatal)
                refused += 1
            if time.monotonic() > until:
                self._purged(producer, failed)
                break
        if failed:
            raise self._failed(producer, records, failed, nothing=first and not any(reports.values()))
        self._health.well()
        if single:
            return only
        rest = {place: iter(reported) for place, reported in reports.items()}
        return [next(rest[each.place]) for each in records]

    def _queued(
        self,
        producer: Producer,
        records: Sequence[Outgoing],
        reports: dict[Place, list[_Report]],
        failed: list[KafkaError],
        until: float,
    ) -> int:
        """Hands them to librdkafka, whose threads begin to send at once; how many it took. What stops it is in `failed`
        and nothing after it was taken."""
        calls: dict[Place, Callable[[KafkaError | None, Message], None]] = {}
        produce = producer.produce
        count = 0
        for place, key, value, headers, timestamp in records:
            call = calls.get(place)
            if call is None:
                reports[place], call = _reporting(failed)
                calls[place] = call
            while True:
                try:
                    if not headers and timestamp is None:
                        produce(place.topic, value, key, place.partition, call)
                    else:
                        produce(
                            place.topic, value, key, place.partition, call,
                            timestamp=timestamp or 0, headers=list(headers),
                        )  # fmt: skip
                    count += 1
                    break
                except BufferError:  # a GB is on its way
                    error = _polled(producer, LOOK_S)
                except KafkaException as unqueued:
                    error = unqueued.args[0]
                    if error.code() == KafkaError._UNKNOWN_PARTITION:
                        error = self._refreshed(producer, place.topic)
                if error is not None or time.monotonic() > until:
                    failed.append(error or KafkaError(KafkaError._TIMED_OUT))
                    return count
        return count

    def _refreshed(self, producer: Producer, topic: str) -> KafkaError | None:
        """For a partition that is there, and was not when the producer looked last."""
        try:
            producer.list_topics(topic, timeout=1.0)
        except KafkaException as error:
            return error.args[0]
        time.sleep(LOOK_S / 10)
        return None

    def _purged(self, producer: Producer, failed: list[KafkaError]) -> None:
        """What is queued does not go out any more, what is on its way is not waited for."""
        if self._transactional_id is None:
            producer.purge()
            _polled(producer, 0)
        failed.append(KafkaError(KafkaError._TIMED_OUT, f"no acknowledgement within {SEND_PATIENCE}"))

    def _failed(
        self, producer: Producer, records: Sequence[Outgoing], failed: Sequence[KafkaError], *, nothing: bool
    ) -> HeadraceError:
        """nothing: of the call was acknowledged."""
        topic = records[0].place.topic
        telling = next((each for each in failed if each.code() not in _BEHIND), failed[0])
        if self._transactional_id is not None:
            return self._transaction_failed(producer, telling, f"write topic {topic!r} in a transaction")
        self._drop()
        if nothing and all(each.code() in (*_CERTAIN, *_BEHIND) for each in failed) and telling.code() in _CERTAIN:
            if telling.code() != KafkaError.MSG_SIZE_TOO_LARGE:
                return self._connection.failure(telling, f"write topic {topic!r}")
            self._topics.forget(topic)
            size = max(len(each.key or b"") + len(each.value or b"") for each in records)
            return _too_large(topic, size, size - 1)
        self._over = "what it sent last is unknown"
        return _unknown(f"topic {topic!r}", telling)

    # --- transactions ---

    def begin(self) -> None:
        self._usable()
        self._ended = False
        try:
            self._begun().begin_transaction()
        except KafkaException as error:
            raise self._transaction_failed(self._begun(), error.args[0], "begin a transaction") from error

    def commit(self, *, group: str | None = None, offsets: Mapping[Place, GroupOffset] | None = None) -> None:
        self._usable()
        producer = self._begun()
        if group is not None and offsets:
            places = [
                TopicPartition(place.topic, place.partition, each.offset, each.note) for place, each in offsets.items()
            ]
            metadata = self._group(group)
            error = self._repeated(lambda timeout_s: producer.send_offsets_to_transaction(places, metadata, timeout_s))
            if error is not None:
                raise self._transaction_failed(producer, error, f"commit offsets of group {group!r}")
        error = self._repeated(producer.commit_transaction)
        if error is None:
            return
        if error.retriable() and not error.txn_requires_abort() and not error.fatal():
            self._over = "whether its last transaction was committed is unknown"
            self._drop()
            raise _unknown("a transaction", error)
        raise self._transaction_failed(producer, error, "commit a transaction")

    def abort(self) -> None:
        self._usable()
        if self._ended:
            self._ended = False
            return
        producer = self._begun()
        error = self._repeated(producer.abort_transaction)
        if error is None:
            return
        if not _fenced(error):
            self._over = "whether its last transaction was given up is unknown"
            self._drop()
            raise _unknown("a transaction that is given up", error)
        raise self._transaction_failed(producer, error, "give a transaction up")

    def _group(self, group: str) -> object:
        """Who commits: nobody of the group, which is taken where the transaction proves who it is."""
        if group not in self._groups:
            properties = {**self._connection.properties(self._health), "group.id": group}
            consumer = made(self._connection, lambda: Consumer(properties, logger=self._connection.logger))
            self._groups[group] = consumer.consumer_group_metadata()
            consumer.close()
        return self._groups[group]

    def _repeated(self, call: Callable[[float], None]) -> KafkaError | None:
        """A call that may be called again where it says so; None when it went well, else what stopped it."""
        until = time.monotonic() + SEND_PATIENCE.micros / 1e6
        while True:
            begun = time.monotonic()
            try:
                call(1.0)
            except KafkaException as error:
                found = error.args[0]
                assert self._producer is not None
                _polled(self._producer, 0)
                self._health.check()
                if not found.retriable() or found.txn_requires_abort() or found.fatal() or time.monotonic() > until:
                    return found
                time.sleep(max(0.0, 0.01 - (time.monotonic() - begun)))
            else:
                self._health.well()
                return None

    def _transaction_failed(self, producer: Producer, error: KafkaError, doing: str) -> HeadraceError:
        if error.code() == KafkaError.INVALID_PRODUCER_EPOCH and not error.fatal():
            # Either a newer sender took over, or the coordinator gave a slow transaction up, which raised the epoch as
            # well. Ending it tells.
            ended = self._repeated(producer.abort_transaction)
            if ended is None:
                self._ended = True
                return _to_give_up(doing, error)
            error = ended
        if _fenced(error) or error.fatal():
            self._over = "another process took over" if _fenced(error) else error.str()
            self._drop()
            return FencedError(
                "HR-0344",
                f"transactional id {self._transactional_id!r}: {self._over}",
                detail=f"seen: {error.str()}",
                hint="it begins anew by itself; seen often, two processes are configured with one name",
            )
        if error.code() in (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, *_CERTAIN):
            return self._connection.failure(error, doing)
        return _to_give_up(doing, error)

    # --- the end ---

    def _usable(self) -> None:
        if self._over:
            name = f"transactional id {self._transactional_id!r}" if self._transactional_id else "this sender"
            raise FencedError("HR-0344", f"{name} sends nothing more: {self._over}", hint="make a new one")

    def _drop(self) -> None:
        """The producer goes, and what is queued in it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(blocking=False)

    def close(self) -> None:
        self._over = self._over or "it was closed"
        self._drop()


def _polled(producer: Producer, timeout_s: float) -> KafkaError | None:
    """Serves reports. An error that ends the producer is raised by whatever is called next: here it is returned."""
    try:
        producer.poll(timeout_s)
    except KafkaException as error:
        return error.args[0]
    return None


def _reporting(failed: list[KafkaError]) -> tuple[list[_Report], Callable[[KafkaError | None, Message], None]]:
    """Of a partition, in the order in which its records were queued: that is the order of the reports."""
    reports: list[_Report] = []
    append = reports.append

    def report(error: KafkaError | None, message: Message) -> None:
        if error is None:
            type, stamp = message.timestamp()
            stamp = stamp if type == TIMESTAMP_LOG_APPEND_TIME else _STAMPED_BY_OTHERS
            append((message.offset(), stamp))  # type: ignore[arg-type]  # a report has an offset
        else:
            failed.append(error)

    return reports, report


def _headers_bytes(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value) + _HEADER_BYTES for name, value in headers)


def _fenced(error: KafkaError) -> bool:
    return error.code() in FENCED


def _too_large(topic: str, size: int, size_max: int) -> LogError:
    return LogError(
        "HR-0343",
        f"topic {topic!r}: a record of {size:,} bytes",
        detail=f"expected at most {size_max:,}",
        hint="send fewer fields, or raise max.message.bytes of the topic",
        size_bytes=size,
        size_bytes_max=size_max,
    )


def _unknown(what: str, error: KafkaError) -> LogError:
    return LogError(
        "HR-0311",
        f"what was sent to {what} may be there or not",
        detail=f"seen: {error.str()}",
        hint="read the partition's end before you send again",
        retryable=True,
    )


def _to_give_up(doing: str, error: KafkaError) -> LogError:
    return LogError(
        "HR-0345",
        f"a transaction must be given up: it could not {doing}",
        detail=f"seen: {error.str()}",
        retryable=True,
    )
