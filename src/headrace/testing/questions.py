"""What is asked of a story, and what the oracle answers: requests in all the ways they are seen, and plain reads. Pure.

The one idea: a question is a point, an entity and perhaps a request, and says by which rule its visible events are
chosen; whoever answers it, the online state or a replay, is held to the same canonical texts.
"""

from __future__ import annotations

import enum
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from headrace.core import schema
from headrace.core.aggregate import Reason
from headrace.core.points import Cut, Partition
from headrace.features.define import FeatureView
from headrace.log.define import Topic
from headrace.log.port import TAKEN, Verdict
from headrace.testing.generate import SECOND, Story
from headrace.testing.oracles import (
    Entity,
    Event,
    Owners,
    Seen,
    entity_of,
    of_members,
    visible_at,
    visible_available,
    visible_known_now,
    visible_recorded,
)

NOWHERE = 2**16 - 1, 2**42 - 1  # the partition and offset of a request that is in no log: behind all
REQUESTS = (*TAKEN, Verdict.LATE)

Answer = tuple[tuple[str, ...], tuple[Reason, ...]]  # canonical values and reasons, in the view's order


class Kind(enum.Enum):
    """What a question sees. SERVED: what had arrived, nothing else. PARTLY: a record's cut that does not mention every
    topic. RETRIED: a cut behind the request's own offset. AVAILABLE, KNOWN_NOW: without a record."""

    SERVED = "served"
    PARTLY = "partly"
    RETRIED = "retried"
    AVAILABLE = "available"
    KNOWN_NOW = "known_now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a view says of an entity at t. position: how many events had arrived. request: None is a plain read.

    cut: of the kinds that have one.
    """

    view: str
    kind: Kind
    position: int
    t: int
    entity: Entity | None
    request: Event | None
    cut: Cut | None = None


@dataclass(slots=True)
class Tally:
    """What was compared. pairs: (visible event, query) pairs; see `expected`. members: events that lay in a window."""

    pairs: int = 0
    queries: int = 0
    values: int = 0
    members: int = 0
    refused: int = 0


def questions(story: Story, draw: random.Random, *, share: float = 1.0, reads: float = 0.3) -> list[Question]:
    """Requests as they arrive, served and sometimes replayed otherwise, hypothetical ones and plain reads.

    share: of the requests and of the places for the others.
    """
    made: list[Question] = []
    cuts = whole_cuts(story)
    for position, event in enumerate(story.events):
        for view in story.views:
            if draw.random() < share and event.topic == story.main.name and event.verdict in REQUESTS:
                made += _of_request(story, draw, view, position, cuts)
            if draw.random() < reads * share:
                made += _of_nobody(story, draw, view, position, cuts[position])
    return made


def _of_request(
    story: Story, draw: random.Random, view: FeatureView, position: int, cuts: Sequence[Cut]
) -> Iterator[Question]:
    request = story.events[position]
    entity = asked_entity(story, view, request)
    some = Question(
        view=view.name, kind=Kind.SERVED, position=position, t=request.event_time, entity=entity, request=request
    )
    yield replace(some, cut=cuts[position])
    if draw.random() < 0.15:  # a record that says nothing of some topics
        cut = cuts[position]
        kept = draw.sample(sorted(cut.topics()), draw.randint(1, len(cut.topics())))
        yield replace(some, kind=Kind.PARTLY, cut=Cut(tuple(x for x in cut if x[0].topic in kept)))
    if draw.random() < 0.15:  # decided at a fresh cut, after a crash
        later = draw.randint(position, len(story.events))
        yield replace(some, kind=Kind.RETRIED, position=later, cut=cuts[later])
    if draw.random() < 0.3:
        yield replace(some, kind=Kind.AVAILABLE)
    if draw.random() < 0.3:
        yield replace(some, kind=Kind.KNOWN_NOW)


def _of_nobody(story: Story, draw: random.Random, view: FeatureView, position: int, cut: Cut) -> Iterator[Question]:
    """A plain read, or a request that never was: somebody's values at some instant, mostly near the newest."""
    event = draw.choice(story.events[: position + 1])
    t = draw.choice((event.event_time, event.available_at)) + draw.choice((-SECOND, -1, 0, 0, 1, 10 * SECOND))
    kind = draw.choice((Kind.SERVED, Kind.SERVED, Kind.AVAILABLE, Kind.KNOWN_NOW))
    entity = entity_of(view, event)
    if event.topic == story.main.name and story.main.id is not None and draw.random() < 0.5:
        nowhere = _never(story.main, draw, event, t)
        whose = asked_entity(story, view, event)
        yield Question(view=view.name, kind=Kind.SERVED, position=position, t=t, entity=whose, request=nowhere, cut=cut)
    elif entity is not None:
        recorded = cut if kind is Kind.SERVED else None
        yield Question(view=view.name, kind=kind, position=position, t=t, entity=entity, request=None, cut=recorded)


def _never(topic: Topic, draw: random.Random, event: Event, t: int) -> Event:
    """A request like the event, at t, with an id that no event has."""
    assert topic.id is not None
    fresh: int | str = draw.choice((-(10**9), 10**9)) + draw.randrange(10**6)
    if topic.schema[topic.id].type.kind is schema.Kind.STRING:
        fresh = draw.choice(("a", "b", "", "\U0001f600")) + f"?{fresh}"
    values = {**event.values, topic.id: fresh}
    where = Partition(topic.name, 1, NOWHERE[0])
    return replace(event, partition=where, offset=NOWHERE[1], event_time=t, id=fresh, values=values)


def asked_entity(story: Story, view: FeatureView, request: Event) -> Entity | None:
    """Whose values a request asks for: by the source's own expression, or by fields named like the entity."""
    if any(topic.name == request.topic for topic in view.topics):
        return entity_of(view, request)
    parts = tuple(request.values.get(part) for part in view.entity)
    return None if None in parts else parts


def whole_cuts(story: Story) -> list[Cut]:
    """What had arrived before each event, and in the end: of every partition, also of topics without events."""
    ends = {Partition(name, 1, 0): 0 for name in story.topics} | {event.partition: 0 for event in story.events}
    cuts = [Cut.of(ends)]
    for event in story.events:
        ends[event.partition] = event.offset + 1
        cuts.append(Cut.of(ends))
    return cuts


# --- the oracle's answers ---


def expected(story: Story, question: Question, tally: Tally, owners: Owners) -> Answer:
    """By the oracle. Each visible event of the topics that the view reads is one pair, whatever its features."""
    view = view_of(story, question)
    visible = _visible(story, view, question)
    seen = Seen(visible, question.t, owners)
    entity = () if question.entity is None else question.entity
    found = [of_members(view, feature, story.labels, seen, entity, question.request) for feature in view.features]
    read = topics_read(story, view)
    tally.pairs += sum(1 for event in visible if event.topic in read)
    tally.members += sum(count for _, count in found)
    tally.queries += 1
    tally.values += len(found)
    return tuple(canonical(value) for (value, _), _ in found), tuple(reason for (_, reason), _ in found)


def _visible(story: Story, view: FeatureView, question: Question) -> list[Event]:
    request, t = question.request, question.t
    if question.cut is not None:
        arrived = story.events[: question.position] if question.kind is Kind.SERVED else story.events
        return visible_recorded(arrived, question.cut, t, request, view.lag)
    if question.kind is Kind.KNOWN_NOW:
        return visible_known_now(story.events, t, request)
    if request is None:
        return visible_at(story.events, t, view.lag)
    return visible_available(story.events, request, view.lag)


def topics_read(story: Story, view: FeatureView) -> set[str]:
    """The view's sources and what says something of their events later: label topics, topics of truths."""
    own = {topic.name for topic in view.topics}
    late = {f"{topic.name}.{field.name}" for topic in view.topics for field in topic.late_columns}
    labels = {label.source.name for label in story.labels.values() if label.of.name in own}
    return own | ((late | labels) & set(story.topics))


def view_of(story: Story, question: Question) -> FeatureView:
    return next(v for v in story.views if v.name == question.view)


def canonical(value: object) -> str:
    """Equal texts are equal values, to the bit and of one type."""
    match value:
        case bool() | None | str():
            return repr(value)
        case float():
            return f"{value!r} {struct.pack('>d', value).hex()}"
        case int():
            return str(value)
        case _:
            assert isinstance(value, (list, tuple))
            return "[" + ", ".join(canonical(one) for one in value) + "]"
