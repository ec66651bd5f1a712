"""From what a caller says, an address or a cluster, to what producers and consumers work with: the cluster, the topic
as it is there, its codec. Touches the cluster; reads the environment for a password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple, cast

from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.messages import About
from headrace.core.errors import DefinitionError
from headrace.log.define import Topic
from headrace.plugs import require
from headrace.sdk.codec import Codec
from headrace.sdk.port import Messages


class Connection(NamedTuple):
    """name: the topic's in the cluster. own: the cluster was opened for this, and is closed with it."""

    messages: Messages
    name: str
    about: About
    codec: Codec
    own: bool

    def close(self) -> None:
        if self.own:
            self.messages.close()


def open_messages(address: str, environ: Mapping[str, str] | None = None) -> Messages:
    """A cluster by its address. environ: where HEADRACE_KAFKA_PASSWORD is looked for, if the address has no
    password_file; by default the process's. Raises: UsageError HR-0350, MissingExtraError HR-0990."""
    settings = KafkaSettings.parse(address)
    require("confluent_kafka", wanted_by="a cluster's address")  # else its absence would be a bare ImportError
    messaging = require("headrace.clients.kafka.messaging", wanted_by="a cluster's address")
    return cast(Messages, messaging.KafkaMessages(settings, os.environ if environ is None else environ))


def connect(
    cluster: str | Messages,
    topic: Topic,
    *,
    ignore_unknown: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Connection:
    """Raises: UsageError HR-0350 (no such address), LogError HR-0340 to HR-0342, NotFoundError HR-0302 (no such topic),
    DefinitionError HR-0433 (another count of partitions), HR-0434, MissingExtraError HR-0990."""
    codec = Codec(topic, topic.partitions, ignore_unknown=ignore_unknown)
    own = isinstance(cluster, str)
    messages = open_messages(cluster, environ) if isinstance(cluster, str) else cluster
    try:
        name = messages.topic_name(topic.name)
        about = messages.about(name)
        if about.partitions != topic.partitions:
            raise DefinitionError(
                "HR-0433",
                f"topic {topic.name!r} is declared with {topic.partitions} partitions, the cluster has "
                f"{about.partitions}",
                detail="with another count keys lie in other partitions, and their events in another order",
                hint="declare as many as there are; headrace apply changes a topic",
                topic=topic.name,
            )
    except BaseException:
        if own:
            messages.close()
        raise
    return Connection(messages, name, about, codec, own)
