"""Imports in a Kafka log: a topic of their own, judged by who writes it, seen when the registry says that it is sealed.

The one idea: rows and their number travel together in one transaction, so a broken import goes on where its last record
says. Touches the cluster through its client.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from headrace.clients.kafka.port import KafkaClient, Place, Record, TopicFacts
from headrace.core.errors import LogError, UsageError
from headrace.core.times import Duration, Instant
from headrace.log import kafka_registry as registry
from headrace.log.define import Payload
from headrace.log.kafka_derived import refuse_derived
from headrace.log.kafka_following import Following
from headrace.log.kafka_registry import Import, Registered
from headrace.log.kafka_rows import Stored, position, rows_before
from headrace.log.plan import NEVER, Judge
from headrace.log.port import OFFSET, Append, PartitionKind, PartitionState

Create = Callable[[str, int, Payload, Duration | None], TopicFacts]
Change = Callable[[str, bytes], None]
LiveState = Callable[[Registered, int], PartitionState]


class Judged(NamedTuple):
    """An append's rows as the import takes them. before: how many rows its partition holds."""

    made: Import
    stored: Stored
    before: int


class Imports:
    """A log's. Any thread may call; one import of a topic at a time."""

    def __init__(
        self, client: KafkaClient, following: Following, *, create: Create, change: Change, live: LiveState
    ) -> None:
        """create: makes a Kafka topic. change: says a change of a topic in the registry, and reads it. live: the state
        of a live partition."""
        self._client = client
        self._following = following
        self._create = create
        self._change = change
        self._live = live
        self._judges: dict[str, Judge] = {}  # by the id of the import's Kafka topic

    def partitions(self, topic: str, import_id: str, *, seal: bool, form: Payload) -> tuple[PartitionState, ...]:
        """As `Log.import_partitions`."""
        self._following.refresh()
        held, made = self._import(topic, import_id)
        refuse_derived(held.topic)
        if made is None:
            held, made = self._make(held, import_id, form)
        if seal and not made.sealed:
            self._seal(held, made)
            held, made = self._known(topic, import_id)
            self._judges.pop(made.kafka_id, None)
        return tuple(self._state(held, made, number) for number in range(made.partitions))

    def judge(self, held: Registered, append: Append) -> Judged:
        """Judge rows of an unsealed import; they are known from here on, until `forget`. Raises: LogError HR-0314 (it
        is sealed), HR-0330 (its rows do not begin where they say), UsageError HR-0314."""
        found = held.import_of(append.partition.index)
        assert found is not None, "found before"
        made, number = found
        if made.sealed:
            raise LogError("HR-0314", f"{append.partition} is a sealed import")
        if append.available_at is None or len(append.available_at) != len(append.rows):
            raise UsageError("HR-0314", f"{append.partition}: rows of an import say when they were available")
        before = self._rows(Place(made.kafka_topic, number))
        if append.begins is not None and append.begins != before:
            raise LogError(
                "HR-0330",
                f"{append.partition}: rows that begin at row {append.begins} came when it held {before}",
                retryable=True,
                end=before,
            )
        judge, index = self._judge(held, made), append.partition.index
        judged = judge.imported(index, append.rows, append.available_at)
        judge.remember(index, append.rows, judged)
        return Judged(made, Stored(available_at=judged.available_at, verdicts=judged.verdicts), before)

    def forget(self) -> None:
        """What was judged was not appended, or that is not known: the next append reads what there is."""
        self._judges.clear()

    def _import(self, topic: str, import_id: str) -> tuple[Registered, Import | None]:
        held = self._following.registered(topic)
        return held, next((one for one in held.imports if one.import_id == import_id), None)

    def _known(self, topic: str, import_id: str) -> tuple[Registered, Import]:
        held, made = self._import(topic, import_id)
        assert made is not None, "the registry said so"
        return held, made

    def _make(self, held: Registered, import_id: str, form: Payload) -> tuple[Registered, Import]:
        """A Kafka topic for it, and its entry; where another process was first, that one's."""
        topic, first = held.topic.name, registry.next_import(held)
        name = f"{self._following.prefix}{topic}.import.{held.incarnation}.{first}.{uuid.uuid4().hex[:8]}"
        facts = self._create(name, held.topic.partitions, form, None)
        wanted = Import(
            import_id=import_id,
            first=first,
            partitions=held.topic.partitions,
            form=form,
            kafka_topic=name,
            kafka_id=facts.id,
        )
        self._change(topic, registry.importing(held, wanted))
        held, made = self._known(topic, import_id)
        if made.kafka_id != facts.id:
            self._client.delete(name)
        return held, made

    def _state(self, held: Registered, made: Import, number: int) -> PartitionState:
        if made.sealed:
            return sealed_state(held, made, number)
        return PartitionState(
            partition=held.partition(made.first + number),
            kind=PartitionKind.IMPORT,
            start=0,
            end=0,
            available_at=Instant(int(NEVER)),
            sealed=False,
            rows=self._rows(Place(made.kafka_topic, number)),
        )

    def _seal(self, held: Registered, made: Import) -> None:
        rows, ends = [], []
        for number in range(made.partitions):
            last = self._last(Place(made.kafka_topic, number))
            rows.append(0 if last is None else rows_before(last))
            ends.append(0 if last is None else self._behind(held, made, number, last))
        self._change(held.topic.name, registry.sealing(held, made.import_id, ends=tuple(ends), rows=tuple(rows)))

    def _behind(self, held: Registered, made: Import, number: int, last: Record) -> int:
        """The position behind the last row. Behind it lie markers of transactions, and whoever took them for rows that
        it has not read yet would look for them again and again."""
        first, end = position(made.form, last.offset), position(made.form, last.offset + 1)
        *_, batch = self._following.imported(held, made, number, first, end)
        return int(batch.column(OFFSET)[-1].as_py()) + 1

    def _rows(self, place: Place) -> int:
        """How many rows an import's partition holds: its last record says so."""
        last = self._last(place)
        return 0 if last is None else rows_before(last)

    def _last(self, place: Place) -> Record | None:
        (span,) = self._client.spans([place])
        back = 4
        while span.end > span.start:
            first = max(span.start, span.end - back)
            last = None
            for records in self._following.fetched(place, first, span.end):
                last = records[-1]
            if last is not None:
                return last
            if first == span.start:
                break
            back *= 8  # what an aborted append left lies between
        return None

    def _judge(self, held: Registered, made: Import) -> Judge:
        """Knows the ids of all that is visible of the topic, and of what this import holds; kept until it is sealed."""
        found = self._judges.get(made.kafka_id)
        if found is not None and found.topic == held.topic:
            return found
        found = self._judges[made.kafka_id] = Judge(held.topic)
        states = [self._live(held, index) for index in range(held.topic.partitions)]
        states += [sealed_state(held, one, n) for one in held.imports if one.sealed for n in range(one.partitions)]
        for state in states:
            for batch in self._following.read(state.partition, state.start, None, 1 << 18):
                _know(found, state.partition.index, batch)
        places = [Place(made.kafka_topic, number) for number in range(made.partitions)]
        for number, span in enumerate(self._client.spans(places)):
            for batch in self._following.imported(held, made, number, 0, position(made.form, span.end)):
                _know(found, made.first + number, batch)
        return found


def sealed_state(held: Registered, made: Import, number: int) -> PartitionState:
    assert made.ends is not None
    return PartitionState(
        partition=held.partition(made.first + number),
        kind=PartitionKind.IMPORT,
        start=0,
        end=made.ends[number],
        available_at=Instant(int(NEVER)),
        sealed=True,
        rows=made.rows[number],
    )


def _know(judge: Judge, index: int, batch: pa.RecordBatch) -> None:
    judge.restore([(index, batch)])
    judge.recall([(index, batch)])
