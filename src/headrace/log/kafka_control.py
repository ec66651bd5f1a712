"""The control topic of a Kafka log: what time brokers say it is, and where a partition's running maximum can be taken
up. Touches the cluster through its client.

The one idea: after retention took the beginning of a partition nobody can compute the running maximum of available_at
from what is left. So who reads a partition writes down now and then what the maximum was before a record (`Anchor`),
and who begins later begins at the first such record that is kept (docs/KAFKA.md K5). Which records those are follows
from the log, so all that write them write the same; keys come again after a while, so compaction bounds the topic.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from headrace.clients.kafka.port import KafkaClient, Outgoing, Place, Record, TopicFacts
from headrace.core.errors import HeadraceError, LogError
from headrace.core.times import Clock
from headrace.log.define import Topic
from headrace.log.kafka_clock import Asked
from headrace.log.kafka_feed import Anchor
from headrace.log.kafka_topics import ANCHOR_EVERY

NAME = "headrace.clocks"  # behind the log's prefix
# As many as there are brokers, so that Kafka gives each broker one to lead; more witnesses than this help nobody.
PARTITIONS_MAX = 16

Read = Callable[[Place, int, int], Iterator[Sequence[Record]]]  # records of a place from an offset to below another
Make = Callable[[str, int], TopicFacts]


class Control:
    """A process's. Any thread may call."""

    def __init__(self, client: KafkaClient, *, prefix: str, clock: Clock, make: Make) -> None:
        """make: the topic, of so many partitions."""
        self._client = client
        self._prefix = prefix
        self._clock = clock
        self._make = make
        self._lock = threading.Lock()
        self._partitions = 0  # of the topic, once it is known to be there
        self._known: dict[tuple[str, int], dict[int, Anchor]] = {}  # of a partition: by slot
        self._read_to: dict[Place, int] = {}

    # --- clocks ---

    def ask(self) -> Asked:
        """What time it is, here and at the brokers. One that cannot be asked is no witness; never raises for that."""
        before = self._clock.now()
        try:
            self._topic()
            times = self._client.broker_times(self._prefix + NAME)
        except HeadraceError as error:
            return Asked(before=before, after=self._clock.now(), times=(), why=f"{error.code} {error.message}")
        return Asked(before=before, after=self._clock.now(), times=times)

    def leader(self, place: Place) -> int | None:
        """Of a partition; None where nobody says."""
        try:
            return self._client.leaders(place.topic).get(place.partition)
        except HeadraceError:
            return None

    # --- anchors ---

    def begin(self, kafka_id: str, partition: int, start: int, read: Read) -> Anchor | None:
        """The first anchor of a partition at or behind an offset; None where there is none. Reads what was written
        since the last call. Raises: LogError HR-0340 to HR-0342, HR-0349."""
        self.learn(kafka_id, partition, read)
        with self._lock:
            known = self._known.get((kafka_id, partition), {})
            return min((each for each in known.values() if each.offset >= start), default=None)

    def learn(self, kafka_id: str, partition: int, read: Read) -> None:
        """What others wrote of a partition is not written again."""
        if not self._there():
            return
        place = self._place(partition)
        (span,) = self._client.spans([place])
        begin = self._read_to.get(place, span.start)
        for records in read(place, begin, span.end):
            for record in records:
                self._take(record)
        self._read_to[place] = max(begin, span.end)

    def anchored(self, kafka_id: str, partition: int, anchor: Anchor, *, slots: int) -> Outgoing | None:
        """The record that says so; None where it was said."""
        slot = anchor.maximum // ANCHOR_EVERY.micros % slots
        with self._lock:
            known = self._known.setdefault((kafka_id, partition), {})
            if known.get(slot, anchor).offset > anchor.offset or known.get(slot) == anchor:
                return None
            known[slot] = anchor
        self._topic()
        key = f"{kafka_id}/{partition}/{slot}".encode()
        return Outgoing(self._place(partition), key, json.dumps(anchor._asdict(), separators=(",", ":")).encode())

    def _take(self, record: Record) -> None:
        if record.key is None or record.value is None:
            return  # a probe
        kafka_id, partition, slot = record.key.decode().split("/")
        said: Mapping[str, int] = json.loads(record.value)
        with self._lock:
            self._known.setdefault((kafka_id, int(partition)), {})[int(slot)] = Anchor(**said)

    # --- the topic ---

    def _place(self, partition: int) -> Place:
        return Place(self._prefix + NAME, partition % self._partitions)

    def _there(self) -> bool:
        if not self._partitions:
            facts = self._client.cluster(self._prefix + NAME).topics.get(self._prefix + NAME)
            self._partitions = 0 if facts is None else facts.partitions
        return self._partitions > 0

    def _topic(self) -> None:
        """It is there on return. Raises: LogError."""
        if self._there():
            return
        brokers = self._client.cluster(self._prefix + NAME).brokers
        try:
            self._partitions = self._make(self._prefix + NAME, max(1, min(brokers, PARTITIONS_MAX))).partitions
        except LogError as error:
            if error.code != "HR-0348" or not self._there():
                raise


def anchor_slots(topic: Topic) -> int:
    """How many anchors of a partition are kept: as many as its retention is long, and some; 0 where nothing is deleted
    and nobody needs one."""
    return 0 if topic.retention is None else topic.retention.micros // ANCHOR_EVERY.micros + 3
