"""A member of a group, by a librdkafka consumer that never reads: its partitions are paused as they are given.

The one idea: a group is used to share partitions and to notice the dead, nothing else. Who polls too late is out, which
librdkafka sees to by itself (`max.poll.interval.ms`), whichever protocol the broker speaks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from headrace.clients.kafka.connection import PATIENCE, Connection, Health, made
from headrace.clients.kafka.port import Assignment, Member, Place
from headrace.clients.kafka.topics import Topics
from headrace.core.times import Duration

# librdkafka calls back from inside a poll and waits on: a change is known to the caller after this long at most.
_SLICE_S = 0.02
_PROBE_S = 0.5
# Members hear of a change at their next heartbeat.
_HEARTBEATS_A_SESSION = 12


class ConfluentMember(Member):
    """Raises (made): LogError HR-0340 to HR-0342."""

    def __init__(self, connection: Connection, topics: Topics, group: str, names: Sequence[str], name: str) -> None:
        self._connection = connection
        self._group = group
        self._health = Health(connection)
        self._places: frozenset[Place] = frozenset()
        self._epoch = 0
        self._refusal: KafkaError | None = None
        session_ms = connection.settings.session_timeout.micros // 1000
        heartbeat_ms = max(100, session_ms // _HEARTBEATS_A_SESSION)
        properties = {
            **connection.properties(self._health, name=name or "headrace"),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "latest",
            "allow.auto.create.topics": False,
            "max.poll.interval.ms": session_ms,
        }
        # The new protocol moves partitions one by one, and takes its times from the group's settings at the broker. An
        # older broker has none, and one with other bounds refuses ours: then the old protocol keeps our times.
        times = {"consumer.session.timeout.ms": session_ms, "consumer.heartbeat.interval.ms": heartbeat_ms}
        if topics.tuned_group(group, {key: str(value) for key, value in times.items()}):
            properties["group.protocol"] = "consumer"
        else:
            properties["session.timeout.ms"] = session_ms
            properties["heartbeat.interval.ms"] = heartbeat_ms
            properties["partition.assignment.strategy"] = "cooperative-sticky"
        self._consumer: Consumer | None = made(connection, lambda: Consumer(properties, logger=connection.logger))
        self._consumer.subscribe(list(names), on_assign=self._given, on_revoke=self._taken, on_lost=self._lost)

    def poll(self, *, timeout: Duration) -> Assignment:
        consumer = self._consumer
        if consumer is None:
            return Assignment(frozenset(), self._epoch)
        epoch, until = self._epoch, time.monotonic() + timeout.micros / 1e6
        while True:
            left_s = until - time.monotonic()
            message = consumer.poll(max(0.0, min(_SLICE_S, left_s)))
            if message is not None and (error := message.error()) is not None:
                self._told(error)
            if self._refusal is not None:
                refusal, self._refusal = self._refusal, None
                raise self._connection.failure(refusal, f"join group {self._group!r}")
            self._look(consumer)
            if self._epoch != epoch or left_s <= _SLICE_S:
                return Assignment(self._places, self._epoch)

    def leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
            self._places = frozenset()

    def _given(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """At their ends, and paused before the first fetch: nothing of them comes."""
        for each in partitions:
            each.offset = OFFSET_END
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)
        self._changed(self._places | _places(partitions))

    def _taken(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_unassign(partitions)
        self._changed(self._places - _places(partitions))

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Others may have them already."""
        self._taken(consumer, partitions)

    def _changed(self, places: frozenset[Place]) -> None:
        if places != self._places:
            self._places = places
            self._epoch += 1

    def _told(self, error: KafkaError) -> None:
        if error.code() in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            self._refusal = error
        else:
            self._health.told(error)

    def _look(self, consumer: Consumer) -> None:
        self._health.check()
        if self._health.down_s < PATIENCE.micros / 1e6:
            return
        try:
            consumer.list_topics(timeout=_PROBE_S)
        except KafkaException as error:
            raise self._connection.unreachable(self._health.seen) from error
        self._health.well()


def _places(partitions: Sequence[TopicPartition]) -> frozenset[Place]:
    return frozenset(Place(each.topic, each.partition) for each in partitions)
