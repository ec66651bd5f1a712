"""Concrete event sequences for the rule tests: topics, rows that say only what matters, and what a view answers of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.core import schema
from headrace.core.aggregate import Reason
from headrace.core.points import Cut, Partition
from headrace.features import define as features
from headrace.features.define import Aggregate, Asked, FeatureView, Label, Sources
from headrace.log.define import Topic
from headrace.log.port import Verdict
from headrace.testing.oracles import Event, Seen, Value, value, values

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

payments = Topic(
    "payments",
    key="customer",
    id="payment",
    event_time="at",
    partitions=3,
    fields={
        "payment": schema.int64,
        "customer": schema.string,
        "amount": schema.decimal(12, 2),
        "size": schema.float64,
        "number": schema.int64,
        "channel": schema.string,
        "good": schema.boolean,
        "at": schema.timestamp,
    },
)


def event(
    topic: Topic,
    at: int,
    *,
    offset: int = 0,
    partition: int = 0,
    available_at: int | None = None,
    verdict: Verdict = Verdict.ACCEPTED,
    **fields: object,
) -> Event:
    """An event at an instant, available at once unless told; the topic's event time field follows."""
    held = dict(fields)
    if topic.event_time is not None:
        held.setdefault(topic.event_time, at)
    return Event(
        partition=Partition(topic.name, 1, partition),
        offset=offset,
        event_time=at,
        available_at=at if available_at is None else available_at,
        verdict=verdict,
        id=0 if topic.id is None else held[topic.id],
        values=held,
    )


def paid(at: int, payment: int = 0, *, customer: str | None = "ann", **more: object) -> Event:
    """A payment, by ann unless told; its offset is its id unless told."""
    where = {"offset": payment} | more
    return event(payments, at, payment=payment, customer=customer, **where)


def ask(
    asked: Asked | Aggregate,
    events: Iterable[Event],
    t: int,
    *,
    request: Event | None = None,
    source: Topic | Sources = payments,
    entity: str | Sequence[str] = "customer",
    of: tuple[object, ...] = ("ann",),
    labels: Sequence[Label] = (),
    **view: object,
) -> Value:
    """What the one feature answers at t, of all the events."""
    return answer(asked, events, t, request=request, source=source, entity=entity, of=of, labels=labels, **view)[0]


def answer(
    asked: Asked | Aggregate,
    events: Iterable[Event],
    t: int,
    *,
    request: Event | None = None,
    source: Topic | Sources = payments,
    entity: str | Sequence[str] = "customer",
    of: tuple[object, ...] = ("ann",),
    labels: Sequence[Label] = (),
    **view: object,
) -> tuple[Value, Reason]:
    """The same with its reason."""
    made = FeatureView("view", entity=entity, source=source, features=[asked], **view)
    (feature,) = made.features
    known = {label.name: label for label in labels}
    found = value(made, feature, known, events, t, of, request)
    assert values(made, known, Seen(events, t), of, request) == [found]
    return found


def cut(**ends: int | Sequence[int]) -> Cut:
    """Of topic=end, or topic=(end of partition 0, of 1, ...)."""
    return Cut.of(
        {
            Partition(topic, 1, index): end
            for topic, given in ends.items()
            for index, end in enumerate([given] if isinstance(given, int) else given)
        }
    )


def ids(events: Iterable[Event]) -> list[object]:
    return [e.id for e in events]


__all__ = [
    "DAY", "HOUR", "MINUTE", "SECOND", "Reason", "answer", "ask", "cut", "event", "features", "ids", "paid", "payments",
]  # fmt: skip
