"""Where partitions begin and end, as their leaders say. Connects by two consumers that read nothing; for any thread.

The one idea: a consumer asks for offsets by time, and the two ends of a partition are times like any others. The admin
client has a call of its own for it, by which processes ended with a segmentation fault while brokers were slow (seen
with librdkafka 2.16, in `list_offsets`); this one is what every consumer uses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from headrace.clients.kafka.connection import PASSING, PATIENCE, Connection, Health, made
from headrace.clients.kafka.port import Place, Span
from headrace.core.errors import LogError

_ATTEMPT_S = 2.0  # a leader that is stopped is asked again: another may lead by then
_PAUSE_S = 0.02
_NOT_THERE = (
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._NOENT,
)
_SILENT = (
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
)


class Spans:
    """there: raises what is the matter with places of which no leader is known (NotFoundError HR-0302, LogError
    HR-0342); returns where there will be one."""

    def __init__(self, connection: Connection, there: Callable[[Sequence[Place]], None]) -> None:
        self._connection = connection
        self._there = there
        self._health = Health(connection)
        self._consumers: tuple[Consumer, Consumer] | None = None  # what is stable to it, and all; made when first asked
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, places: Sequence[Place]) -> list[Span]:
        """Of each place, in order. Raises: NotFoundError HR-0302, LogError HR-0340 to HR-0342, HR-0351."""
        until = time.monotonic() + PATIENCE.micros / 1e6
        unique = list(dict.fromkeys(places))
        while True:
            try:
                found = self._asked(unique, min(time.monotonic() + _ATTEMPT_S, until))
            except KafkaException as error:
                self._failed(error.args[0], unique, over=time.monotonic() + _PAUSE_S > until)
                time.sleep(_PAUSE_S)
            else:
                self._health.well()
                return [found[place] for place in places]

    def close(self) -> None:
        """What is asked at the moment is answered yet: librdkafka's threads end with the last who holds them."""
        with self._lock:
            self._closed, self._consumers = True, None

    def _opened(self) -> tuple[Consumer, Consumer]:
        with self._lock:
            if self._closed:
                raise LogError("HR-0316", "this client is closed")
            if self._consumers is None:
                self._consumers = self._consumer("read_committed"), self._consumer("read_uncommitted")
            return self._consumers

    def _asked(self, places: Sequence[Place], until: float) -> dict[Place, Span]:
        """By three requests to each leader: the start, and the end as both kinds of readers see it."""
        stable, everything = self._opened()
        starts = _offsets(stable, places, OFFSET_BEGINNING, until)
        ends = _offsets(stable, places, OFFSET_END, until)
        highs = _offsets(everything, places, OFFSET_END, until)  # what was met later lies further
        found = {}
        for place, start, end, high in zip(places, starts, ends, highs, strict=True):
            found[place] = Span(start, max(start, end), max(start, end, high))
        return found

    def _failed(self, error: KafkaError, places: Sequence[Place], *, over: bool) -> None:
        """Returns where it is asked again."""
        for consumer in self._opened():
            consumer.poll(0)  # hears what is said beside
        self._health.check()
        code = error.code()
        if code in _NOT_THERE:
            self._there(places)
        elif code in _SILENT:
            if over:
                raise self._health.given_up()
            return
        if over or not (code in PASSING or code in _NOT_THERE):
            raise self._connection.failure(error, f"read {places[0].topic}/{places[0].partition}")

    def _consumer(self, isolation: str) -> Consumer:
        properties = {
            **self._connection.properties(self._health),
            "group.id": f"{self._connection.settings.prefix}headrace.spans",  # librdkafka wants one
            "enable.auto.commit": False,
            "allow.auto.create.topics": False,
            "isolation.level": isolation,
        }
        return made(self._connection, lambda: Consumer(properties, logger=self._connection.logger))


def _offsets(consumer: Consumer, places: Sequence[Place], which: int, until: float) -> list[int]:
    """Raises: KafkaException."""
    asked = [TopicPartition(place.topic, place.partition, which) for place in places]
    found = consumer.offsets_for_times(asked, timeout=max(0.05, until - time.monotonic()))
    offsets = {Place(each.topic, each.partition): _given(each) for each in found}
    return [offsets[place] for place in places]


def _given(found: TopicPartition) -> int:
    """While a broker goes, librdkafka gives -1001 without an error where it got none: taken for an offset, an end lies
    at the start, and whoever begins there begins nowhere. Raises: KafkaException, which passes."""
    if found.error is not None:
        raise KafkaException(found.error)
    if found.offset < 0:
        raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    return int(found.offset)
