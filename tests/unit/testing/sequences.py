"""Concrete event sequences for the rule tests: topics, rows that say only what matters, what a view answers of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from headrace.core import schema
from headrace.core.aggregate import Reason
from headrace.core.points import Cut, Partition
from headrace.features.define import Aggregate, Asked, FeatureView, Label, Sources
from headrace.log.define import Topic
from headrace.log.port import TAKEN, Verdict
from headrace.testing.agreement import online, replayed
from headrace.testing.generate import Story
from headrace.testing.oracles import Event, Owners, Value, entity_of, value
from headrace.testing.questions import Kind, Question, Tally, canonical, expected, whole_cuts

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Happened(Event):
    """An event that knows its topic's definition."""

    topic_of: Topic


def event(
    topic: Topic,
    at: int,
    *,
    offset: int = 0,
    partition: int = 0,
    available_at: int | None = None,
    verdict: Verdict = Verdict.ACCEPTED,
    **fields: object,
) -> Happened:
    """An event at an instant, available at once unless told; the topic's event time field follows."""
    held = dict(fields)
    if topic.event_time is not None:
        held.setdefault(topic.event_time, at)
    return Happened(
        partition=Partition(topic.name, 1, partition),
        offset=offset,
        event_time=at,
        available_at=at if available_at is None else available_at,
        verdict=verdict,
        id=0 if topic.id is None else held[topic.id],
        values=held,
        topic_of=topic,
    )


def paid(at: int, payment: int = 0, *, customer: str | None = "ann", **more: object) -> Happened:
    """A payment, by ann unless told; its offset is its id unless told."""
    where = {"offset": payment} | more
    return event(payments, at, payment=payment, customer=customer, **where)


def ask(asked: Asked | Aggregate, events: Iterable[Event], t: int, **how: object) -> Value:
    """What the one feature answers at t, of all the events; see `answer`."""
    return answer(asked, events, t, **how)[0]


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
    """The same with its reason: by the oracle, and the online state and the replay must say the same."""
    made = FeatureView("view", entity=entity, source=source, features=[asked], **view)
    known = {label.name: label for label in labels}
    log = as_log([*events])
    if request is not None:
        behind = max((e.offset + 1 for e in log if e.partition == request.partition), default=0)
        request = replace(request, offset=behind)
    visible = [e for e in log if e.verdict in TAKEN]
    found = value(made, made.features[0], known, visible, t, of, request)
    if request is None or entity_of(made, request) == of:  # a request asks for its own entity
        assert_all_say(found, made, known, log, t, of, request)
    return found


def as_log(events: Sequence[Event]) -> list[Event]:
    """The events with offsets as a log has them: none twice, and what lies between them was not taken."""
    taken: set[tuple[Partition, int]] = set()
    placed: list[Event] = []
    for one in events:
        offset = one.offset
        while (one.partition, offset) in taken:
            offset += 1
        taken.add((one.partition, offset))
        placed.append(one if offset == one.offset else replace(one, offset=offset))
    for partition in {e.partition for e in placed}:
        pattern = next(e for e in placed if e.partition == partition)
        for offset in range(max(e.offset for e in placed if e.partition == partition)):
            if (partition, offset) not in taken:
                placed.append(replace(pattern, offset=offset, verdict=Verdict.DUPLICATE))
    return sorted(placed, key=lambda e: (e.partition, e.offset))


def assert_all_say(
    found: tuple[Value, Reason],
    view: FeatureView,
    labels: dict[str, Label],
    log: Sequence[Event],
    t: int,
    entity: tuple[object, ...],
    request: Event | None,
) -> None:
    """The online state, restarted and not, and the replay. An online answer may be refused as too old."""
    whole = [*log, *([request] if request is not None else [])]
    topics = {topic.name: topic for topic in view.topics}
    topics |= {label.source.name: label.source for label in labels.values()}
    topics |= {e.topic: e.topic_of for e in whole if isinstance(e, Happened)}
    main = request.topic if request is not None else view.topics[0].name
    told = Story(seed=0, topics=topics, labels=labels, views=(view,), rows={}, events=tuple(whole), requests=main)
    served = Question(
        view=view.name,
        kind=Kind.SERVED,
        position=len(log),
        t=t,
        entity=entity,
        request=request,
        cut=whole_cuts(told)[len(log)],
    )
    wanted = (canonical(found[0]),), (found[1],)
    assert expected(told, served, Tally(), Owners()) == wanted
    for seed in range(2):
        for _, given in online(told, [served], random.Random(seed)):
            assert given in (None, wanted), "the online state"
    for _, given in replayed(told, [served]):
        assert given == wanted, "the replay"


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
