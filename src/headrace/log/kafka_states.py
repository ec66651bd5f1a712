"""What a Kafka log says of its topics and partitions, as they were seen last. Reads what this process follows.

The one idea: each decision asks for the state of every partition that its views read, and nearly all of them are what
they were a moment ago. So a state is made anew only where what it is made of has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.clients.kafka.port import Place, Span
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.log.define import Payload
from headrace.log.kafka_feed import Seen
from headrace.log.kafka_following import Following
from headrace.log.kafka_imports import sealed_state
from headrace.log.kafka_registry import Registered
from headrace.log.kafka_rows import position
from headrace.log.plan import NEVER
from headrace.log.port import PartitionKind, PartitionState, TopicState


class States:
    """Any thread may call."""

    def __init__(self, following: Following) -> None:
        self._following = following
        self._places: dict[str, tuple[Registered, Sequence[tuple[Partition, Place]]]] = {}
        self._known: dict[Partition, tuple[tuple[Span, Seen | None], PartitionState]] = {}

    def look(self, topics: Iterable[Registered]) -> None:
        """Ask for the ends of live partitions that were never asked for, by one call."""
        self._following.spans([place for held in topics for _, place in self._live(held)], fresh=False)

    def topic(self, held: Registered, *, exact: bool) -> TopicState:
        """exact: judge what was not judged yet, as rows say where the last one is."""
        partitions = [self.live(held, index, exact=exact) for index in range(held.topic.partitions)]
        for made in held.imports:
            if made.sealed:
                partitions += [sealed_state(held, made, number) for number in range(made.partitions)]
        return TopicState(
            topic=held.topic,
            incarnation=held.incarnation,
            version=held.version,
            partitions=tuple(partitions),
            source=held.source,
        )

    def live(self, held: Registered, index: int, *, exact: bool = True) -> PartitionState:
        partition, place = self._live(held)[index]
        (span,) = self._following.spans([place], fresh=False)
        feed = self._following.feeds.get(partition)
        kept = Span(self._following.begin(held, index, span.start), span.end, span.high)
        seen = kept, None if feed is None else feed.seen(exact=exact)
        known = self._known.get(partition)
        if known is None or known[0] != seen:
            known = self._known[partition] = seen, _live_state(partition, held.topic.payload, *seen)
        return known[1]

    def _live(self, held: Registered) -> Sequence[tuple[Partition, Place]]:
        """A topic's live partitions, and where they lie. Made once a version."""
        name = held.topic.name
        known = self._places.get(name)
        if known is None or known[0] is not held:
            made = [(held.partition(i), self._following.place(held, i)) for i in range(held.topic.partitions)]
            known = self._places[name] = held, made
        return known[1]


def _live_state(partition: Partition, form: Payload, span: Span, seen: Seen | None) -> PartitionState:
    return PartitionState(
        partition=partition,
        kind=PartitionKind.LIVE,
        start=position(form, span.start),
        end=position(form, span.end) if seen is None or seen.next < span.end else seen.end,
        available_at=Instant(int(NEVER) if seen is None else seen.available_at),
        sealed=True,
        read=None if seen is None else position(form, seen.next),
        high=position(form, span.high) if span.high > span.end else None,
    )
