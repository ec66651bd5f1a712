"""`KafkaClient` over a real cluster, by confluent-kafka, that is librdkafka. Connects; has threads inside librdkafka.

The work is beside: `topics.py` asks and changes the cluster; `sending.py`, `fetching.py` and `membership.py` are what
it makes; `connection.py` says how librdkafka is told, and what its errors mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.clients.kafka.connection import Connection
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.fetching import ConfluentFetcher
from headrace.clients.kafka.membership import ConfluentMember
from headrace.clients.kafka.port import (
    BrokerTime,
    Cluster,
    Fetcher,
    GroupOffset,
    KafkaClient,
    Member,
    Place,
    Sender,
    Span,
    TopicFacts,
)
from headrace.clients.kafka.sending import ConfluentSender
from headrace.clients.kafka.times import broker_times
from headrace.clients.kafka.topics import Topics


class ConfluentClient(KafkaClient):
    """environ: where the password is looked for. Connects when it is first asked.

    Raises: UsageError HR-0350 where a user has no password, or a file of certificates cannot be read.
    """

    def __init__(self, settings: KafkaSettings, environ: Mapping[str, str]) -> None:
        self._connection = Connection(settings, environ)
        self._topics = Topics(self._connection)

    def cluster(self, prefix: str = "") -> Cluster:
        return self._topics.cluster(prefix)

    def create(self, topic: str, *, partitions: int, settings: Mapping[str, str]) -> TopicFacts:
        return self._topics.create(topic, partitions=partitions, settings=settings)

    def alter(self, topic: str, *, partitions: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._topics.alter(topic, partitions=partitions, settings=settings)

    def delete(self, topic: str) -> None:
        self._topics.delete(topic)

    def spans(self, places: Sequence[Place]) -> list[Span]:
        return self._topics.spans(places)

    def settings(self, topic: str) -> Mapping[str, str]:
        return self._topics.settings(topic)

    def leaders(self, topic: str) -> Mapping[int, int]:
        return self._topics.leaders(topic)

    def broker_times(self, topic: str) -> Sequence[BrokerTime]:
        return broker_times(self._connection, topic, lambda: self._topics.leaders(topic))

    def group_offsets(self, group: str, places: Sequence[Place]) -> dict[Place, GroupOffset]:
        return self._topics.group_offsets(group, places)

    def sender(self, *, transactional_id: str | None = None) -> Sender:
        return ConfluentSender(self._connection, self._topics, transactional_id)

    def fetcher(self, *, eager: bool = False) -> Fetcher:
        return ConfluentFetcher(self._connection, self._topics, eager=eager)

    def member(self, group: str, topics: Sequence[str], *, name: str = "") -> Member:
        return ConfluentMember(self._connection, self._topics, group, topics, name)

    def members(self, group: str) -> Mapping[Place, str]:
        return self._topics.members(group)

    def close(self) -> None:
        """What it made is closed by whoever has it."""
        self._topics.close()
