"""An operator's event: halted partitions of a Kafka topic go on, and their clock is restarted. Touches the cluster
through the log's client.

The one idea: what a clock stamped wrongly is said to have come now, from where readers halted to the end, in the
registry that all readers read before they judge; so all judge alike, those that read on and those that begin later.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.core.errors import LogError
from headrace.core.times import Clock, Instant
from headrace.log import kafka_registry as registry
from headrace.log.kafka_clock import RESTART_MIN, Wrong, soon, void
from headrace.log.kafka_following import Following
from headrace.log.kafka_registry import Registered, Restart


def restart_clock(following: Following, topic: str, *, clock: Clock, change: Callable[[str, bytes], None]) -> Instant:
    """As `KafkaLog.restart_clock`. change: says a change of a topic in the registry, and reads it."""
    following.refresh()
    held = following.registered(topic)
    following.check_settings(held)
    at = Instant(clock.now() // 1_000 * 1_000)
    restarts = _restarts(following, held, at)
    if restarts:
        change(topic, registry.restarting(held, restarts))
        held = following.registered(topic)
        if not set(restarts) <= set(held.restarts):
            raise void(topic, at)
        _read_all(following, held, halting=False)
    return at


def _restarts(following: Following, held: Registered, at: Instant) -> list[Restart]:
    _read_all(following, held, halting=True)
    found = []
    for halt in following.halts.of(held.topic.name):
        if halt.stamp is not None:
            error = following.halts.error(halt.place)
            if following.halts.wrong is Wrong.READER and error is not None:
                raise error
            if halt.stamp * 1_000 <= at + RESTART_MIN.micros:
                raise soon(halt, at)
        (span,) = following.spans([halt.place], fresh=True)
        found.append(Restart(partition=halt.partition.index, begin=halt.offset, end=span.end, at=at // 1_000))
    return found


def _read_all(following: Following, held: Registered, *, halting: bool) -> None:
    """A topic's live partitions, to their ends. halting: or to where they halt."""
    for index in range(held.topic.partitions):
        place = following.feed(held.partition(index)).place
        (span,) = following.spans([place], fresh=True)
        try:
            following.pump_to({place: span.end})
        except LogError:
            if not halting or following.halts.error(place) is None:
                raise
