"""What Kafka is told of a topic when it is made or changed: its settings, by their names in Kafka. Pure.

The one idea: settings are a function of the definition, so that `plan` can show what a cluster would get, and a second
`apply` changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.times import Duration
from headrace.log.define import Payload, Topic

# Of available_at: between two records at which a reader may begin after retention took the first (docs/KAFKA.md K5).
ANCHOR_EVERY = Duration.parse("1m")
# Of one batch in Kafka, compressed. JSON: Kafka's own default, rounded to what people say; a larger event is no fact
# but a file. ARROW: a batch of 2**16 rows of 100 bytes, the most that one record may hold.
RECORD_BYTES_MAX: Mapping[Payload, int] = {Payload.JSON: 1 << 20, Payload.ARROW: 8 << 20}
# Of a derived topic, whatever its form: an event that fitted its source compressed goes out as it is, with a header;
# one that did not fit would hold up all behind it. It is what a sender takes at most.
DERIVED_BYTES_MAX = 64 << 20


def kafka_settings(topic: Topic, *, min_insync_replicas: int = 1) -> Mapping[str, str]:
    """What a topic in Kafka is set to, all of it, whatever the cluster's defaults; topics of `headrace.` alike.

    Nothing is compacted away: a log's rows keep their offsets, and what a view read can be read again. The time of a
    record is its broker's, which readers fold into available_at (docs/KAFKA.md K5). Retention in milliseconds is
    rounded up, and has what lies before the first record at which a reader may begin: a row can be read at least as
    long as declared.
    """
    kept = None if topic.retention is None else Duration(topic.retention.micros + ANCHOR_EVERY.micros)
    settings = form_settings(topic.payload, kept, min_insync_replicas=min_insync_replicas)
    return settings if topic.derivation is None else {**settings, "max.message.bytes": str(DERIVED_BYTES_MAX)}


def form_settings(form: Payload, retention: Duration | None, *, min_insync_replicas: int) -> Mapping[str, str]:
    """The same for a topic of no definition of its own: an import's, the registry's."""
    return {
        "cleanup.policy": "delete",
        "max.message.bytes": str(RECORD_BYTES_MAX[form]),
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(min_insync_replicas),
        "retention.bytes": "-1",  # a limit in bytes would delete what the definition says is kept
        "retention.ms": "-1" if retention is None else str(-(-retention.micros // 1000)),
    }


def control_settings(*, min_insync_replicas: int) -> Mapping[str, str]:
    """Of the topic that keeps what brokers' clocks and running maxima were (log/kafka_control.py): the newest of each
    key."""
    settings = form_settings(Payload.JSON, None, min_insync_replicas=min_insync_replicas)
    return {**settings, "cleanup.policy": "compact"}


def replicas(asked: int, *, brokers: int) -> int:
    """How many copies a topic's partitions get. asked: 0 means three, or one a broker where there are fewer."""
    return asked or min(3, max(1, brokers))


def in_sync(replication: int) -> int:
    """How many copies must have a record before it is acknowledged: all but one, so that one broker may be away."""
    return max(1, replication - 1)
