"""What the simulated processes share: topics, one of them derived, a decision over two views, and a small state of
those views. Pure.

The one idea: a step should cost what the protocol costs, so the views are counts and sums that a dictionary holds. The
state keeps `decisions.port.Features` as the true one does: it stands where it was read to, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from headrace.core.aggregate import Reason
from headrace.core.codec import batch_to_rows, units
from headrace.core.errors import HaltedError, StateError
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.schema import int64, string
from headrace.decisions.define import Decision, approve, decline_if, review_if
from headrace.decisions.plan import Answer, Version, ViewVersion
from headrace.decisions.port import AskAt, Question, Recompute, Row
from headrace.features.define import FeatureView, count
from headrace.features.define import sum as total
from headrace.log.define import Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, OFFSET, TAKEN, VERDICT, Log, PartitionState
from headrace.stream.define import derived_topic

PARTITIONS, CUSTOMERS, SHOPS = 2, 4, 5
EVENTS = Topic(
    "events",
    key="customer",
    id="event_id",
    partitions=PARTITIONS,
    fields={"event_id": string, "customer": int64, "amount": int64, "shop": int64},
)
BY_SHOP = derived_topic("events_by_shop", of=EVENTS, key="shop", partitions=3)
REQUESTS = Topic(
    "requests",
    key="customer",
    id="request_id",
    partitions=PARTITIONS,
    fields={"request_id": string, "customer": int64, "amount": int64},
)
SPENT = FeatureView(
    "spent", entity="customer", source=EVENTS, features=[count().lifetime(), total(EVENTS.amount).lifetime()]
)
ASKED = FeatureView("asked", entity="customer", source=REQUESTS, features=[count().lifetime()])
CHECK = Decision(
    "check",
    request=REQUESTS,
    policy=[
        decline_if(ASKED.count_lifetime > 6, reason="MANY"),
        review_if(SPENT.count_lifetime > 5),
        approve(),
    ],
)


def event(id: str, customer: int, number: int) -> Row:
    """A customer's event of this number, the same whenever it is made: now and then one without a shop."""
    return id, customer, number * 10, None if number % 6 == 0 else (customer + number) % SHOPS


def version() -> Version:
    found = {"spent": SPENT, "asked": ASKED}
    views = tuple(
        ViewVersion(
            name=name,
            fingerprint=f"of {name}",
            features=tuple(feature.name for feature in found[name].features),
            topics=("events",) if name == "spent" else ("requests",),
        )
        for name in CHECK.views
    )
    return Version(CHECK, views, {})


class Seen(NamedTuple):
    """An event of a customer."""

    partition: Partition
    offset: int
    event_time: int
    amount: int


class SmallState:
    """The views' state: every event that was read and counts, by topic and customer."""

    topics = ("events", "requests")

    def __init__(self) -> None:
        self._next: dict[Partition, int] = {}
        self._held: dict[tuple[str, int], list[Seen]] = {}

    @property
    def frontier(self) -> Cut:
        return Cut.of(self._next)

    def catch_up(self, log: Log, *, upto: Cut | None = None, halts: dict[Partition, HaltedError] | None = None) -> int:
        taken = 0
        ends = {} if upto is None else dict(upto)
        for state in log.topics(fresh=upto is None):
            if state.topic.name in self.topics:
                for held in state.partitions:
                    taken += self._read(log, state.topic, held, ends.get(held.partition))
        return taken

    def _read(self, log: Log, topic: Topic, held: PartitionState, end: int | None) -> int:
        """A cut is the last event's offset + 1, whatever markers lie behind it, but where it was asked for."""
        at = self._next.setdefault(held.partition, held.start)
        taken = self.read_upto(log, topic, held.partition, held.end if end is None else end, at=at)
        if end is not None:
            self._next[held.partition] = max(self._next[held.partition], end)
        return taken

    def read_upto(self, log: Log, topic: Topic, partition: Partition, stop: int, *, at: int = 0) -> int:
        """Take a live partition's rows of [at, stop)."""
        taken = 0
        if at < stop and partition.index < IMPORTS_FROM:
            for batch in log.read(partition, at, end=stop):
                system = (units(batch.column(name)).tolist() for name in (OFFSET, AVAILABLE_AT, EVENT_TIME))
                verdicts = batch.column(VERDICT).to_pylist()
                for offset, _, event_time, verdict, row in zip(
                    *system, verdicts, batch_to_rows(topic.schema, batch), strict=True
                ):
                    self._take(partition, offset, event_time, verdict, row)
                    taken += 1
        return taken

    def ingest_row(
        self, partition: Partition, offset: int, available_at: int, event_time: int, verdict: int, row: Row
    ) -> None:
        if offset >= self._next.get(partition, 0):
            self._take(partition, offset, event_time, verdict, row)

    def _take(self, partition: Partition, offset: int, event_time: int, verdict: int, row: Row) -> None:
        self._next[partition] = offset + 1
        if verdict in TAKEN:
            customer, amount = row[1], row[2]
            assert type(customer) is int and type(amount) is int
            seen = Seen(partition, offset, event_time, amount)
            self._held.setdefault((partition.topic, customer), []).append(seen)

    def asker(self, views: Sequence[str], request: Topic, partition: Partition) -> AskAt:
        def ask(offset: int, row: Row, t: int, ahead: int = 0, /) -> tuple[Answer, ...]:
            stands = self._next.get(partition, 0)
            if stands > offset - ahead and list(views) != ["spent"]:
                raise StateError("HR-0548", f"the state stands at {stands}", detail=f"{partition}: asked at {offset}")
            return tuple(self.answer(view, row, t, partition, offset) for view in views)

        return ask

    def answer(self, view: str, row: Row, t: int, partition: Partition, offset: int) -> Answer:
        """At the present frontier."""
        topic = "events" if view == "spent" else "requests"
        customer = row[1]
        assert type(customer) is int
        found = [
            seen
            for seen in self._held.get((topic, customer), ())
            if seen.event_time <= t and (seen.partition, seen.offset) != (partition, offset)
        ]
        if view == "asked":
            return (len(found) + 1,), (Reason.VALUE,)
        if not found:
            return (0, None), (Reason.VALUE, Reason.EMPTY)
        return (len(found), sum(seen.amount for seen in found)), (Reason.VALUE, Reason.VALUE)

    def touches(self, request: Topic) -> Callable[[Row], tuple[Hashable, ...]]:
        return lambda row: (row[1],)


def recompute_with(log: Log) -> Recompute:
    """Answers at recorded cuts, by a state that is read for each anew."""

    def recompute(views: Sequence[str], questions: Sequence[Question]) -> Sequence[tuple[Answer | None, ...]]:
        found = []
        for question in questions:
            answers: list[Answer | None] = []
            for view, cut in zip(views, question.cuts, strict=True):
                if cut is None:
                    answers.append(None)
                    continue
                state = SmallState()
                for partition, end in cut:
                    if end > 0:
                        topic = EVENTS if partition.topic == "events" else REQUESTS
                        state.read_upto(log, topic, partition, end)
                answers.append(state.answer(view, question.row, question.t, question.request, question.offset))
            found.append(tuple(answers))
        return found

    return recompute
