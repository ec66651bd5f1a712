"""What of a topic in Kafka was altered by hand, so that its rows would be something else than declared. Pure.

The one idea: a setting that a value depends on is compared with what the definition asks for, and an error names it,
with what is seen, what was expected, and the command that sets it back. What costs rows or times is refused where the
topic is opened; a retention that was shortened is told by `plan` and `doctor`, as what it deletes may be old enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headrace.clients.kafka.port import Place, TopicFacts
from headrace.core.errors import LogError
from headrace.log.kafka_registry import Registered

TYPE, POLICY, KEPT_MS, KEPT_BYTES = "message.timestamp.type", "cleanup.policy", "retention.ms", "retention.bytes"
REFUSED = (TYPE, POLICY)  # before anything is read, and by `plan`
_WHY = {
    TYPE: "records would have their producers' times, and available_at none",
    POLICY: "what must be kept would go, or what must go would be kept",
    KEPT_MS: "rows would be deleted before they may be",
    KEPT_BYTES: "rows would be deleted before they may be",
}


def altered(kafka_topic: str, wanted: Mapping[str, str], seen: Mapping[str, str]) -> Iterator[LogError]:
    """HR-0356 for each setting that is another. wanted: as log/kafka_topics.py says. seen: as the cluster does."""
    for setting, why in _WHY.items():
        found = seen.get(setting, wanted[setting])
        if found != wanted[setting] and not _longer(setting, found, wanted[setting]):
            yield LogError(
                "HR-0356",
                f"the Kafka topic {kafka_topic!r} was altered by hand: {setting}",
                detail=f"expected {setting}={wanted[setting]}, seen {found}; {why}",
                hint=f"kafka-configs --alter --topic {kafka_topic} --add-config {setting}={wanted[setting]}",
                topic=kafka_topic,
                setting=setting,
                expected=wanted[setting],
                seen=found,
            )


def refused(kafka_topic: str, wanted: Mapping[str, str], seen: Mapping[str, str]) -> LogError | None:
    """What keeps a topic from being read."""
    return next((e for e in altered(kafka_topic, wanted, seen) if e.facts["setting"] in REFUSED), None)


def widened(held: Registered, facts: TopicFacts) -> LogError | None:
    """HR-0356 where a topic has partitions that nobody declared: what is in them would be read by nobody, and keys lie
    elsewhere than their earlier events."""
    declared, name = held.topic.partitions, held.topic.name
    if facts.partitions == declared:
        return None
    return LogError(
        "HR-0356",
        f"the Kafka topic {facts.name!r} was altered by hand: its partitions",
        detail=f"expected {declared} partitions, seen {facts.partitions}; what is written to the others is read by "
        "nobody",
        hint=f"stop its producers; declare partitions={facts.partitions}, then headrace apply --approve "
        f"{name}.partitions",
        retryable=True,  # another process that applies raises them a moment before it says so
        topic=facts.name,
        setting="partitions",
        expected=declared,
        seen=facts.partitions,
    )


def deleted(held: Registered, place: Place, start: int) -> LogError | None:
    """HR-0356 where rows are gone of a topic that is kept for ever."""
    if not start or held.topic.retention is not None:
        return None
    return LogError(
        "HR-0356",
        f"the Kafka topic {place.topic!r} was altered by hand: its first rows were deleted",
        detail=f"expected partition {place.partition} to begin at offset 0, as it is kept for ever, seen {start:,}",
        hint="what it held is gone; declare a retention for the topic, then headrace apply, to go on with what is left",
        topic=place.topic,
        setting=KEPT_MS,
        expected="-1",
        seen=start,
    )


def _longer(setting: str, found: str, wanted: str) -> bool:
    """Whether more is kept than was asked for, which harms nothing."""
    if setting not in (KEPT_MS, KEPT_BYTES) or wanted == "-1":
        return False
    return found == "-1" or int(found) >= int(wanted)
