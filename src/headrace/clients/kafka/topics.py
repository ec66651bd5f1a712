"""What is asked about a cluster, and changed in it: topics, spans, groups. Connects by one admin client, whose own
threads answer; safe for any thread.

The one idea: Kafka says that a thing is done when its controller knows, and brokers hear of it a moment later. What is
made or deleted here is known, or gone, on return.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    TopicDescription,
    TopicMetadata,
)

from headrace.clients.kafka.connection import (
    COORDINATOR_PATIENCE,
    LOOK_S,
    PASSING,
    PATIENCE,
    Connection,
    Health,
    awaited,
    made,
    retried,
)
from headrace.clients.kafka.port import Cluster, GroupOffset, Place, Span, TopicFacts
from headrace.clients.kafka.spans import Spans
from headrace.core.errors import HeadraceError, LogError, NotFoundError

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

# librdkafka gives up before we do, and says more than that it took long.
_REQUEST_S = PATIENCE.micros / 1e6 - 0.5
_COMMITTED_S = 2.0  # of one attempt to ask for a group's offsets
_REPLICATION = 3
_RECORD_BYTES_MAX = 1_048_588  # Kafka's own default of max.message.bytes
# How long what a topic takes is believed without asking again. Where it was made smaller meanwhile the broker refuses.
_LIMIT_VALID_S = 300.0


class Topics:
    """The admin's side of a client."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._health = Health(connection)
        properties = connection.properties(self._health)
        self._held: AdminClient | None = made(connection, lambda: AdminClient(properties, logger=connection.logger))
        self._spans = Spans(connection, self._led)
        self._limits: dict[str, tuple[float, int, int]] = {}

    def cluster(self, prefix: str) -> Cluster:
        found = self._metadata()
        names = [name for name in found.topics if name.startswith(prefix)]
        facts = self._described(names, f"describe topics of {prefix!r}") if names else {}
        return Cluster(id=str(found.cluster_id), brokers=len(found.brokers), topics=facts)

    def create(self, topic: str, *, partitions: int, settings: Mapping[str, str]) -> TopicFacts:
        doing = f"make topic {topic!r}"
        replication = self._connection.settings.replication or min(_REPLICATION, len(self._metadata().brokers))
        new = NewTopic(topic, partitions, replication, config=dict(settings))
        self.forget(topic)
        try:
            self._each(lambda: self._admin.create_topics([new], request_timeout=_REQUEST_S), doing)
        except HeadraceError as error:
            if _cause(error) == KafkaError.TOPIC_ALREADY_EXISTS:
                raise LogError(
                    "HR-0348",
                    f"the cluster has a topic {topic!r} already",
                    hint="choose a prefix in the log's URL, or let the topic be adopted by its owner",
                ) from error
            raise
        return self._known(topic, partitions, doing)

    def alter(self, topic: str, *, partitions: int | None, settings: Mapping[str, str] | None) -> None:
        doing = f"change topic {topic!r}"
        now = self._partitions(topic)
        if settings:
            entries = [
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in settings.items()
            ]
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
            self._each(lambda: self._admin.incremental_alter_configs([resource], request_timeout=_REQUEST_S), doing)
        if partitions is not None and partitions != now:
            more = NewPartitions(topic, partitions)
            self._each(lambda: self._admin.create_partitions([more], request_timeout=_REQUEST_S), doing)
            self._known(topic, partitions, doing)
        self.forget(topic)

    def delete(self, topic: str) -> None:
        doing = f"delete topic {topic!r}"
        self.forget(topic)
        self._each(lambda: self._admin.delete_topics([topic], request_timeout=_REQUEST_S), doing)
        self._everywhere(lambda found: topic not in found.topics, doing)

    def spans(self, places: Sequence[Place]) -> list[Span]:
        return self._spans.ask(places) if places else []

    def _led(self, places: Collection[Place]) -> None:
        """Why one of them has no leader. Raises: NotFoundError HR-0302, LogError HR-0342; nothing where they are there,
        and a leader will be."""
        for place in places:
            partitions = self._partitions(place.topic)
            if place.partition >= partitions:
                raise no_partition(*place, partitions)

    def group_offsets(self, group: str, places: Sequence[Place]) -> dict[Place, GroupOffset]:
        """By a consumer that is no member: librdkafka's admin client has a fault where the coordinator's connection is
        lost while it asks, which ends the process (confluentinc/librdkafka#4605, seen with 2.16)."""
        if not places:
            return {}
        properties = {
            **self._connection.properties(self._health),
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",  # offsets of open transactions are waited for
        }
        consumer = made(self._connection, lambda: Consumer(properties, logger=self._connection.logger))
        try:
            found = self._committed(consumer, group, [TopicPartition(*place) for place in dict.fromkeys(places)])
        finally:
            consumer.close()
        return {
            Place(each.topic, each.partition): GroupOffset(each.offset, each.metadata or "")
            for each in found
            if each.offset >= 0
        }

    def _committed(self, consumer: Consumer, group: str, asked: list[TopicPartition]) -> list[TopicPartition]:
        doing = f"read the offsets of group {group!r}"

        def ask() -> list[TopicPartition]:
            try:
                found = consumer.committed(asked, timeout=_COMMITTED_S)
                for each in found:
                    if each.error is not None:
                        raise KafkaException(each.error)
            except KafkaException as error:
                told = consumer.poll(0)  # where the coordinator is refused, which `committed` only waits for
                self._health.check()
                said = (told.error() if told is not None else None) or error.args[0]
                if said.code() in PASSING or said.code() == KafkaError._TIMED_OUT:
                    raise
                raise self._connection.failure(said, doing) from error
            self._health.well()
            return found

        return retried(ask, connection=self._connection, doing=doing, patience=COORDINATOR_PATIENCE)

    def members(self, group: str) -> Mapping[Place, str]:
        doing = f"describe group {group!r}"

        def ask() -> dict[Place, str]:
            try:
                found = self._answer(
                    self._admin.describe_consumer_groups([group], request_timeout=_REQUEST_S)[group], doing
                )
            except HeadraceError as error:
                if _cause(error) == KafkaError.GROUP_ID_NOT_FOUND:
                    return {}
                raise
            return {
                Place(each.topic, each.partition): member.client_id
                for member in found.members
                if member.assignment is not None
                for each in member.assignment.topic_partitions
            }

        return retried(ask, connection=self._connection, doing=doing, patience=COORDINATOR_PATIENCE)

    def takes(self, topic: str, partition: int) -> int:
        """The largest record that a topic takes, as it said lately. Raises: NotFoundError HR-0302."""
        valid_until, partitions, bytes_max = self._limits.get(topic, (0.0, 0, 0))
        if partition >= partitions or time.monotonic() > valid_until:
            partitions, bytes_max = self._partitions(topic), self._record_bytes_max(topic)
            self._limits[topic] = time.monotonic() + _LIMIT_VALID_S, partitions, bytes_max
            if partition >= partitions:
                raise no_partition(topic, partition, partitions)
        return bytes_max

    def asked(self, names: Collection[str], *, timeout_s: float) -> dict[str, Future[TopicDescription]]:
        """What the cluster says of these topics, without waiting."""
        return self._admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)

    def forget(self, topic: str) -> None:
        """What is known of it is asked anew."""
        self._limits.pop(topic, None)

    def tuned_group(self, group: str, settings: Mapping[str, str]) -> bool:
        """Whether the coordinator took these settings of a group: False where it knows no such settings, has other
        bounds, or does not let us."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
        ]
        resource = ConfigResource(ConfigResource.Type.GROUP, group, incremental_configs=entries)
        try:
            self._each(
                lambda: self._admin.incremental_alter_configs([resource], request_timeout=_REQUEST_S),
                f"set up group {group!r}",
            )
        except LogError as error:
            if error.code in ("HR-0342", "HR-0351"):
                return False
            raise
        return True

    def close(self) -> None:
        """Ends librdkafka's threads, and what was asked and is not answered: whoever waits for it is told HR-0316. A
        thread of librdkafka that answers while the interpreter ends would end it with a fault."""
        self._held = None
        self._spans.close()

    @property
    def _admin(self) -> AdminClient:
        if self._held is None:
            raise LogError("HR-0316", "this client is closed")
        return self._held

    def settings(self, topic: str) -> Mapping[str, str]:
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        (found,) = self._each(
            lambda: self._admin.describe_configs([resource], request_timeout=_REQUEST_S),
            f"read the settings of topic {topic!r}",
        )
        return {name: entry.value for name, entry in found.items() if entry.value is not None}

    def leaders(self, topic: str) -> Mapping[int, int]:
        (found,) = self._each(
            lambda: self._admin.describe_topics(TopicCollection([topic]), request_timeout=_REQUEST_S),
            f"describe topic {topic!r}",
        )
        return {each.id: each.leader.id for each in found.partitions if each.leader is not None}

    def _record_bytes_max(self, topic: str) -> int:
        try:
            found = self.settings(topic)
        except LogError as error:
            if error.code == "HR-0342":
                return _RECORD_BYTES_MAX  # who may write need not be allowed to read settings
            raise
        return int(found.get("max.message.bytes", _RECORD_BYTES_MAX))

    def _partitions(self, topic: str) -> int:
        """Raises: NotFoundError HR-0302, LogError HR-0342."""
        (found,) = self._each(
            lambda: self._admin.describe_topics(TopicCollection([topic]), request_timeout=_REQUEST_S),
            f"describe topic {topic!r}",
        )
        return len(found.partitions)

    def _metadata(self) -> ClusterMetadata:
        """Fresh, from any broker. Raises: LogError HR-0340, HR-0341."""
        until = time.monotonic() + PATIENCE.micros / 1e6
        while True:
            try:
                found = self._admin.list_topics(timeout=min(2.0, max(LOOK_S, until - time.monotonic())))
            except KafkaException as error:
                self._admin.poll(0)
                self._health.check()
                if time.monotonic() > until:
                    raise self._health.given_up() from error
                continue
            self._health.well()
            return found

    def _described(self, names: Sequence[str], doing: str) -> dict[str, TopicFacts]:
        """One that goes meanwhile is left out."""
        futures = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=_REQUEST_S)
        found = {}
        for name, future in sorted(futures.items()):
            try:
                one = self._answer(future, doing)
            except NotFoundError:
                continue
            except KafkaException:  # it is being made
                continue
            found[name] = TopicFacts(name=name, id=str(one.topic_id), partitions=len(one.partitions))
        return found

    def _known(self, topic: str, partitions: int, doing: str) -> TopicFacts:
        """When every partition is led."""

        def led(found: ClusterMetadata) -> bool:
            one: TopicMetadata | None = found.topics.get(topic)
            return (
                one is not None
                and one.error is None
                and len(one.partitions) >= partitions
                and all(each.leader >= 0 for each in one.partitions.values())
            )

        self._everywhere(led, doing)
        until = time.monotonic() + PATIENCE.micros / 1e6
        while time.monotonic() < until:
            facts = self._described([topic], doing).get(topic)
            if facts is not None and facts.partitions >= partitions:
                return facts
            time.sleep(LOOK_S / 10)
        raise self._unknown(doing)

    def _everywhere(self, condition: Callable[[ClusterMetadata], bool], doing: str) -> None:
        """Any broker may answer: as many answers in a row as there are brokers, where one is not enough."""
        until, seen = time.monotonic() + PATIENCE.micros / 1e6, 0
        while time.monotonic() < until:
            found = self._metadata()
            seen = seen + 1 if condition(found) else 0
            if seen >= (2 * len(found.brokers) if len(found.brokers) > 1 else 1):
                return
            if not seen:
                time.sleep(LOOK_S / 10)
        raise self._unknown(doing)

    def _unknown(self, doing: str) -> LogError:
        return LogError(
            "HR-0351",
            f"the Kafka cluster could not {doing}",
            detail=f"seen: brokers do not agree on it after {PATIENCE}",
            retryable=True,
        )

    def _each(self, ask: Callable[[], Mapping[_Item, Future[_Result]]], doing: str) -> list[_Result]:
        return self._retried(lambda: [self._answer(each, doing) for each in ask().values()], doing)

    def _answer(self, future: Future[_Result], doing: str) -> _Result:
        return awaited(
            future,
            connection=self._connection,
            health=self._health,
            serve=lambda: self._admin.poll(0),
            doing=doing,
        )

    def _retried(self, ask: Callable[[], _Result], doing: str) -> _Result:
        return retried(ask, connection=self._connection, doing=doing)


def no_partition(topic: str, partition: int, partitions: int) -> NotFoundError:
    return NotFoundError("HR-0302", f"topic {topic!r} has no partition {partition}", partitions=partitions)


def _cause(error: HeadraceError) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None
