"""A Kafka cluster in memory, exact about what protocols depend on; its clients are in `model_client`.

What it keeps: partitions with markers, open transactions and the last stable offset; producers' numbers and epochs, so
that a batch that comes twice is taken once; transactional ids that fence, transactions that the coordinator gives up on
time; groups with sessions; append times by the clock of the partition's leader, and no two brokers' clocks agree;
retention, compaction, topic ids. What happens to a cluster is a method: a leader moves, a coordinator moves, an unclean
election cuts a partition short. Time is the clock that is handed in, which nothing here moves. Memory only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from headrace.clients.kafka.port import (
    Acknowledged,
    Assignment,
    BrokerTime,
    Cluster,
    GroupOffset,
    Outgoing,
    Place,
    Span,
    TopicFacts,
)
from headrace.core.errors import LogError, NotFoundError
from headrace.core.times import Clock, Duration
from headrace.testing.kafka.model_groups import ModelGroup
from headrace.testing.kafka.model_partition import ModelPartition, OutOfOrderError, StaleEpochError
from headrace.testing.kafka.model_transactions import Transactional
from headrace.testing.kafka.model_wire import fenced, given_up, unreachable

RECORD_BYTES_MAX = 1_048_576  # where a topic does not say max.message.bytes
LOG_APPEND_TIME = "LogAppendTime"
DEFAULTS: Mapping[str, str] = {  # Kafka's own, of what is asked for
    "cleanup.policy": "delete",
    "message.timestamp.type": "CreateTime",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
}
TRANSACTION_TIMEOUT = Duration.parse("10s")


class ModelTopic:
    """facts: id, made anew for each topic. settings: as `create` and `alter` gave them."""

    __slots__ = ("facts", "partitions", "settings")

    def __init__(self, facts: TopicFacts, settings: Mapping[str, str], partitions: list[ModelPartition]) -> None:
        self.facts = facts
        self.settings = dict(settings)
        self.partitions = partitions


class KafkaModel:
    """The cluster. Not safe between threads that run at once: turns see to that."""

    def __init__(
        self, clock: Clock, *, id: str = "model", skews: Sequence[int] = (0, 0, 0), lag: Callable[[], int] | None = None
    ) -> None:
        """skews: microseconds that each broker's clock is off. lag: microseconds from a transaction's end to the next
        marker that is written; none by default."""
        self.clock = clock
        self.id = id
        self.skews = list(skews)
        self.silent: set[int] = set()  # brokers that do not say what time it is
        self.topics: dict[str, ModelTopic] = {}
        self.groups: dict[str, ModelGroup] = {}
        self.transactional: dict[str, Transactional] = {}
        self.refused: dict[str, int] = {"fenced": 0, "given_up": 0, "timed_out": 0}
        self._lag = lag
        self._made = 0
        self._producers = 0
        self._members = 0

    # --- topics ---

    def cluster(self, prefix: str) -> Cluster:
        found = {name: topic.facts for name, topic in sorted(self.topics.items()) if name.startswith(prefix)}
        return Cluster(id=self.id, brokers=len(self.skews), topics=found)

    def create(self, name: str, partitions: int, settings: Mapping[str, str]) -> TopicFacts:
        if name in self.topics:
            raise LogError(
                "HR-0348", f"the cluster has a topic {name!r} already", hint="choose a prefix in the log's URL"
            )
        self._made += 1
        id = hashlib.sha256(f"{self.id} {name} {self._made}".encode()).hexdigest()[:22]
        facts = TopicFacts(name=name, id=id, partitions=partitions)
        held = [ModelPartition((self._made + index) % len(self.skews)) for index in range(partitions)]
        self.topics[name] = ModelTopic(facts, settings, held)
        return facts

    def alter(self, name: str, partitions: int | None, settings: Mapping[str, str] | None) -> None:
        topic = self._topic(name)
        topic.settings.update(settings or {})
        if partitions is not None and partitions > len(topic.partitions):
            more = range(len(topic.partitions), partitions)
            topic.partitions += [ModelPartition(index % len(self.skews)) for index in more]
            topic.facts = TopicFacts(name=name, id=topic.facts.id, partitions=partitions)

    def delete(self, name: str) -> None:
        self._topic(name)
        del self.topics[name]

    def partition(self, place: Place) -> ModelPartition:
        """Raises: NotFoundError HR-0302."""
        topic = self.topics.get(place.topic)
        if topic is None or not 0 <= place.partition < len(topic.partitions):
            raise _not_found(f"partition {place.topic}/{place.partition}")
        return topic.partitions[place.partition]

    def span(self, place: Place) -> Span:
        held = self.partition(place)
        return Span(held.start, held.stable, held.end)

    # --- producers ---

    def producer(self) -> int:
        """A new id, of a producer without transactional id."""
        self._producers += 1
        return self._producers

    def produce(self, place: Place, producer: int, first: int, records: Sequence[Outgoing]) -> Acknowledged:
        """A batch of an idempotent producer. Raises: NotFoundError, LogError HR-0340 where it is out of order."""
        held = self.partition(place)
        stamps = self._stamps(place, held, records)
        try:
            offset = held.append(records, stamps, producer=producer, epoch=0, first=first, open=False)
        except OutOfOrderError:
            raise unreachable(f"a batch to {place.topic}/{place.partition} is out of order") from None
        return self._acknowledged(place, held, range(offset, offset + len(records)))

    def initialise(self, id: str, timeout: Duration) -> tuple[int, int]:
        """A producer with this transactional id and its epoch: what an older one left open is given up."""
        held = self.transactional.get(id)
        if held is None:
            held = self.transactional[id] = Transactional(self.producer(), timeout.micros)
        self._settle(held)
        if held.ongoing:
            self._end(held, commit=False)
            self._settle(held)
        held.timeout = timeout.micros
        held.epoch += 1
        held.initialised = held.epoch
        held.ended = None
        return held.producer, held.epoch

    def write(self, id: str, epoch: int, place: Place, first: int, records: Sequence[Outgoing]) -> Acknowledged:
        """A batch within a transaction, which begins with it. Raises: FencedError; LogError HR-0345 where the
        coordinator gave the transaction up."""
        held = self.transactional[id]
        self._check(id, held, epoch)
        self._settle(held)
        partition = self.partition(place)
        stamps = self._stamps(place, partition, records)
        try:
            offset = partition.append(records, stamps, producer=held.producer, epoch=epoch, first=first, open=True)
        except (OutOfOrderError, StaleEpochError):
            raise given_up("a batch came out of order") from None
        held.begin(self.clock.now())
        held.places[place] = None
        return self._acknowledged(place, partition, range(offset, offset + len(records)))

    def join(self, id: str, epoch: int, group: str, offsets: Mapping[Place, GroupOffset]) -> None:
        """A group's offsets within a transaction, which begins with them if nothing was written. Raises as `write`."""
        held = self.transactional[id]
        self._check(id, held, epoch)
        self._settle(held)
        held.begin(self.clock.now())
        held.offsets.setdefault(group, {}).update(offsets)

    def end(self, id: str, epoch: int, *, commit: bool) -> int:
        """End a producer's transaction; the same end may come twice. Returns its epoch from now on. Raises:
        FencedError; LogError HR-0345."""
        held = self.transactional[id]
        if held.ended == (epoch, commit) and epoch == held.epoch - 1:
            return held.epoch
        if not commit and held.initialised <= epoch < held.epoch:
            return held.epoch  # the coordinator gave it up already
        if commit and held.initialised <= epoch < held.epoch:
            self.refused["fenced"] += 1
            raise fenced(f"transactional id {id!r}")  # as brokers say it of a transaction that took too long
        self._check(id, held, epoch)
        self._settle(held)
        if not held.ongoing:
            return held.epoch
        self._end(held, commit=commit)
        self.settle()
        return held.epoch

    def _check(self, id: str, held: Transactional, epoch: int) -> None:
        if epoch < held.initialised:
            self.refused["fenced"] += 1
            raise fenced(f"transactional id {id!r}")
        if epoch < held.epoch:
            self.refused["given_up"] += 1
            raise given_up(f"transactional id {id!r}: its transaction took longer than {Duration(held.timeout)}")

    def _end(self, held: Transactional, *, commit: bool) -> None:
        now: int = self.clock.now()
        due: dict[Place | str, int] = {}
        ends: list[Place | str] = [*held.places, *held.offsets]
        for each in ends:
            now += 0 if self._lag is None else self._lag()
            due[each] = now
        held.end(commit=commit, due=due)

    def _settle(self, held: Transactional, now: int | None = None) -> None:
        """Write a transaction's markers: those that are due, or all, for which a client waits."""
        left = []
        for marker in held.pending:
            if now is not None and marker.due > now:
                left.append(marker)
            elif marker.place is None:
                if marker.commit:
                    self.group(marker.group).offsets.update(held.last[marker.group])
            elif marker.place.topic in self.topics:
                self.partition(marker.place).mark(held.producer, held.epoch, commit=marker.commit)
        held.pending = left

    def settle(self) -> None:
        """What is due by now: markers, transactions that took too long, members that were silent."""
        now = self.clock.now()
        for held in self.transactional.values():
            if held.ongoing and now - held.started > held.timeout:
                self.refused["timed_out"] += 1
                self._end(held, commit=False)
            if held.pending:
                self._settle(held, now)
        for group in self.groups.values():
            group.expire(now)

    def _time(self, broker: int) -> int:
        """Its clock, microseconds."""
        return self.clock.now() + self.skews[broker]

    def broker_times(self, topic: str) -> list[BrokerTime]:
        """A probe in each partition, as a client appends it."""
        stamped = {held.leader: self._time(held.leader) // 1_000 * 1_000 for held in self._topic(topic).partitions}
        for index in range(len(self._topic(topic).partitions)):
            self.produce(Place(topic, index), self.producer(), 0, [Outgoing(Place(topic, index), b"probe", None)])
        return [BrokerTime(broker, at) for broker, at in sorted(stamped.items()) if broker not in self.silent]

    def leaders(self, topic: str) -> dict[int, int]:
        return {index: held.leader for index, held in enumerate(self._topic(topic).partitions)}

    def settings(self, topic: str) -> dict[str, str]:
        """As it was told, and Kafka's own defaults."""
        return {**DEFAULTS, **self._topic(topic).settings}

    def _append_time(self, topic: str) -> bool:
        return self.topics[topic].settings.get("message.timestamp.type") == LOG_APPEND_TIME

    def _acknowledged(self, place: Place, held: ModelPartition, offsets: range) -> Acknowledged:
        """What a producer is told of a batch, which keeps the type of its timestamps, whatever the topic is set to
        later. One that came before has the stamps of then."""
        if not self._append_time(place.topic):
            held.created.update(offsets)
        there = [held.entries[offset - held.start] for offset in offsets]
        known = held.created.isdisjoint(offsets)
        return Acknowledged(
            list(offsets),
            [record.timestamp for record in there if record is not None] if known and all(there) else None,
        )

    def _stamps(self, place: Place, held: ModelPartition, records: Sequence[Outgoing]) -> list[int]:
        if self._append_time(place.topic):
            return [self._time(held.leader) // 1_000] * len(records)
        sent = self.clock.now() // 1_000
        return [sent if record.timestamp is None else record.timestamp for record in records]

    # --- groups ---

    def group(self, name: str) -> ModelGroup:
        held = self.groups.get(name)
        if held is None:
            held = self.groups[name] = ModelGroup()
        return held

    def member(self) -> int:
        self._members += 1
        return self._members

    def poll(self, group: str, number: int, name: str, topics: tuple[str, ...], session: Duration) -> Assignment:
        places = {topic: len(self.topics[topic].partitions) for topic in topics if topic in self.topics}
        return self.group(group).poll(
            number, self.clock.now(), name=name, topics=topics, session=session.micros, places=places
        )

    def unsettled(self, group: str) -> bool:
        """Whether a transaction holds offsets of the group that are not stable yet."""
        return any(
            group in held.offsets or any(marker.group == group for marker in held.pending if marker.place is None)
            for held in self.transactional.values()
        )

    # --- what happens to a cluster ---

    def move_leader(self, place: Place, broker: int | None = None) -> None:
        """To this broker, by default the next: append times are by its clock from now on."""
        held = self.partition(place)
        held.leader = (held.leader + 1) % len(self.skews) if broker is None else broker
        held.leader_epoch += 1

    def move_coordinator(self) -> None:
        """Of groups and transactions: sessions begin anew; what was decided stays."""
        for group in self.groups.values():
            group.moved(self.clock.now())

    def retain(self, place: Place, start: int) -> None:
        self.partition(place).retain(start)

    def truncate(self, place: Place, end: int) -> None:
        """An unclean election."""
        self.partition(place).truncate(end)

    def compact(self, topic: str) -> None:
        for held in self._topic(topic).partitions:
            held.compact()

    def _topic(self, name: str) -> ModelTopic:
        held = self.topics.get(name)
        if held is None:
            raise _not_found(f"topic {name!r}")
        return held


def _not_found(what: str) -> NotFoundError:
    return NotFoundError("HR-0302", f"no {what} in the cluster", hint="headrace apply")
