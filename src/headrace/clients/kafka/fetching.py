"""Reads partitions by librdkafka's consumer, which fetches ahead in threads of its own; no group has a part in it.

The one idea: `next` and `at_end` come from librdkafka's partition-EOF events, which know of control and aborted
records; what a message holds is taken out of all of them a column at a time, in C.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import groupby, repeat

from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import TopicDescription

from headrace.clients.kafka.connection import PASSING, Connection, Health, made
from headrace.clients.kafka.port import Fetched, Fetcher, Headers, Place, Record, Span
from headrace.clients.kafka.topics import Topics, no_partition
from headrace.core.errors import HeadraceError, LogError, NotFoundError
from headrace.core.garbage import uncollected
from headrace.core.times import Duration

# A broker holds a fetch open so long, until this much has come for it. The end of a partition is told by an empty
# answer: it takes as long to be known, and so many empty answers a second are what an idle reader costs.
_GATHERING = {"fetch.min.bytes": 32 << 10, "fetch.wait.max.ms": 50}
_EAGER = {"fetch.min.bytes": 1, "fetch.wait.max.ms": 50}
_AHEAD_KILOBYTES = 64 << 10
# Of a partition in an answer. With the default of 1 MiB each record in Arrow form is an answer of its own, and a reader
# of many waits for a broker between any two: a fifth of its time.
_FETCH_BYTES = 8 << 20
# Where nothing comes, the cluster is asked so often whether the topics are still there, and given as long to answer:
# a topic that was deleted, or a cluster that is down, is known within 10 s.
_ASK_S = 4.0

_OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)
_GONE = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_ID,
)
_record: Callable[[tuple[object, ...]], Record] = partial(tuple.__new__, Record)


class ConfluentFetcher(Fetcher):
    """topics: what the cluster says of partitions, to tell offsets that are gone from those that never were."""

    def __init__(self, connection: Connection, topics: Topics, *, eager: bool = False) -> None:
        self._connection = connection
        self._topics = topics
        self._health = Health(connection)
        properties = {
            **connection.properties(self._health),
            # librdkafka wants one; nothing is committed under it.
            "group.id": f"{connection.settings.prefix}headrace.fetcher",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "topic.metadata.propagation.max.ms": 3000,
            **(_EAGER if eager else _GATHERING),
            "fetch.error.backoff.ms": 50,
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": _AHEAD_KILOBYTES,
            "fetch.message.max.bytes": _FETCH_BYTES,
        }
        self._consumer: Consumer | None = made(connection, lambda: Consumer(properties, logger=connection.logger))
        self._next: dict[Place, int] = {}
        self._trouble: dict[Place, HeadraceError] = {}
        self._asked: Mapping[str, Future[TopicDescription]] = {}
        self._asks_at = 0.0
        self._silence: LogError | None = None

    def seek(self, place: Place, offset: int) -> None:
        assert offset >= 0, offset
        self.drop(place)
        self._assign(place, offset)
        self._next[place] = offset
        self._asks_at = 0.0  # librdkafka waits for what is not there

    def drop(self, place: Place) -> None:
        if self._next.pop(place, None) is not None:
            self._open().incremental_unassign([TopicPartition(*place)])
        self._trouble.pop(place, None)

    def _assign(self, place: Place, offset: int) -> None:
        self._open().incremental_assign([TopicPartition(place.topic, place.partition, offset)])

    def fetch(self, *, timeout: Duration, records_max: int = 10_000) -> Sequence[Fetched]:
        consumer = self._open()
        until = time.monotonic() + timeout.micros / 1e6
        wait_s = timeout.micros / 1e6
        while True:
            for trouble in self._trouble.values():
                raise trouble
            first = consumer.poll(wait_s)
            if first is not None:
                rest = consumer.consume(records_max - 1, 0) if records_max > 1 else []
                found = self._sorted([first, *rest])
                if found:
                    self._health.well()
                    self._silence = None
                    return found
            wait_s = until - time.monotonic()
            if wait_s <= 0 and not self._trouble:
                self._look()
                return []

    def _sorted(self, messages: Sequence[Message]) -> list[Fetched]:
        """By partition. What is wrong with one is kept for the next call, if anything else has come."""
        errors = list(map(Message.error, messages))
        keys = list(zip(map(Message.topic, messages), map(Message.partition, messages), map(id, errors), strict=True))
        found: dict[Place, tuple[list[Record], bool]] = {}
        created: dict[Place, list[int]] = {}
        for (topic, partition, _), run in groupby(range(len(messages)), key=keys.__getitem__):
            begin, *more = run
            end = more[-1] + 1 if more else begin + 1
            error, place = errors[begin], Place(topic, partition)  # type: ignore[arg-type]  # None in errors of no topic
            if place not in self._next:
                if error is not None:
                    self._told(place, error)
                continue
            records, _at_end = found.get(place, ([], False))
            if error is None:
                taken, typed = self._taken(place, messages[begin:end])
                if typed:
                    created.setdefault(place, []).extend(typed)
                if taken:
                    found[place] = [*records, *taken] if records else taken, False
                    self._next[place] = taken[-1].offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._next[place] = max(self._next[place], messages[end - 1].offset() or 0)
                found[place] = records, True
            else:
                self._told(place, error)
        return [
            Fetched(place, records, self._next[place], at_end, created.get(place, ()))
            for place, (records, at_end) in found.items()
        ]

    def _taken(self, place: Place, messages: Sequence[Message]) -> tuple[list[Record], list[int]]:
        """Records, and the offsets of those that their producer stamped."""
        headers = list(map(Message.headers, messages))
        types, stamps = zip(*map(Message.timestamp, messages), strict=True)
        with uncollected(len(messages)):
            columns = zip(
                map(Message.offset, messages),
                stamps,
                map(Message.key, messages),
                map(Message.value, messages),
                map(_headers, headers) if any(headers) else repeat(()),  # type: ignore[arg-type]  # lists, of bytes
                strict=False,
            )
            records: list[Record] = list(map(_record, columns))
        created: list[int] = []
        if TIMESTAMP_CREATE_TIME in types:
            created = [each.offset for each, type in zip(records, types, strict=True) if type == TIMESTAMP_CREATE_TIME]
        if records[0].offset < self._next[place]:  # of before a seek
            return [each for each in records if each.offset >= self._next[place]], created
        return records, created

    def _told(self, place: Place, error: KafkaError) -> None:
        """An error that came instead of a record."""
        code = error.code()
        if place not in self._next:
            self._health.told(error)
        elif code in _OUT_OF_RANGE or code in _GONE:
            self._judge(place, error)
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self._trouble[place] = self._connection.failure(error, f"read topic {place.topic!r}")

    def _judge(self, place: Place, error: KafkaError) -> None:
        """The cluster is asked before anybody is told that something is lost: a leader that has just changed may know
        less for a moment."""
        offset = self._next[place]
        try:
            (span,) = self._topics.spans([place])
        except NotFoundError as gone:
            self._trouble[place] = gone
            return
        except LogError:
            span = Span(offset, offset, offset)  # nobody says; it is read on when somebody does
        if offset < span.start:
            self._trouble[place] = LogError(
                "HR-0303",
                f"{place.topic}/{place.partition}: offset {offset:,} is gone",
                detail=f"retention keeps records from offset {span.start:,}",
                hint="read from the partition's start, or raise the topic's retention before records age",
                start=span.start,
            )
        elif offset > span.high or error.code() == KafkaError._LOG_TRUNCATION:
            self._trouble[place] = LogError(
                "HR-0347",
                f"partition {place.topic}/{place.partition} ends at {span.high:,}, offset {offset:,} was read of it",
                detail=f"seen: {error.str()}",
                hint="find out what was lost before anything decides on it; then rebuild states from the log",
                end=span.high,
            )
        else:
            self._open().incremental_unassign([TopicPartition(*place)])
            self._assign(place, offset)

    def _look(self) -> None:
        """When nothing came: at what was said beside, and at what the cluster says of the topics, which is asked now
        and then and never waited for. Raises: LogError HR-0340, HR-0341."""
        self._health.check()
        if self._asked and all(future.done() for future in self._asked.values()):
            self._heard()
        if self._silence is not None:
            raise self._silence
        if not self._asked and self._next and time.monotonic() >= self._asks_at:
            self._asks_at = time.monotonic() + _ASK_S
            self._asked = self._topics.asked({place.topic for place in self._next}, timeout_s=_ASK_S)

    def _heard(self) -> None:
        asked, self._asked = self._asked, {}
        self._silence = None
        for place in self._next:
            future = asked.get(place.topic)
            if future is None:
                self._asks_at = 0.0  # sought since
                continue
            error = future.exception()
            if error is None:
                partitions = len(future.result().partitions)
                if place.partition >= partitions:
                    self._trouble[place] = no_partition(place.topic, place.partition, partitions)
            elif isinstance(error, KafkaException) and error.args[0].code() not in PASSING:
                said = self._connection.failure(error.args[0], f"read topic {place.topic!r}")
                if said.code in ("HR-0302", "HR-0342"):
                    self._trouble[place] = said
                else:
                    self._silence, self._asks_at = self._health.given_up(), 0.0

    def _open(self) -> Consumer:
        if self._consumer is None:
            raise LogError("HR-0316", "this fetcher is closed")
        return self._consumer

    def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()


def _headers(found: Sequence[tuple[str, bytes | None]] | None) -> Headers:
    return tuple((name, value or b"") for name, value in found) if found else ()
