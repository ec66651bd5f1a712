"""Online state, replay and oracle over one story: the same questions to each, and every value that differs.

The one idea: a question is a point, an entity and perhaps a request; whoever answers it, the published value and its
reason must be the same to the bit. What differs is a `Difference`, which `shrink` makes small enough to read.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace.core.aggregate import Reason
from headrace.core.codec import rows_to_batch
from headrace.core.errors import StateError
from headrace.core.expr import describe
from headrace.core.points import Cut
from headrace.features.define import Feature, FeatureView
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.port import SYSTEM_COLUMNS
from headrace.testing.generate import SECOND, Story
from headrace.testing.oracles import (
    Entity,
    Event,
    Owners,
    Seen,
    entity_of,
    of_members,
    visible_available,
    visible_known_now,
    visible_served,
)

BATCH_MAX = 7
NOWHERE = 2**16 - 1, 2**42 - 1  # the partition and offset of a request that is in no log: behind all

Answer = tuple[tuple[str, ...], tuple[Reason, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a view says of an entity at t. position: how many events had arrived. request: None is a plain read."""

    view: str
    kind: str  # served, available or known_now
    position: int
    t: int
    entity: Entity | None
    request: Event | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two answers to one question, of one feature."""

    seed: int
    who: str
    question: Question
    feature: Feature
    expected: tuple[str, Reason]
    found: tuple[str, Reason]

    def __str__(self) -> str:
        q = self.question
        asked = f"request {place(q.request)}" if q.request is not None else "plain read"
        return (
            f"seed {self.seed}: {self.who} of {q.view}.{self.feature.name}, {q.kind} at t={q.t}, "
            f"{asked}, entity {q.entity}, after {q.position} events\n"
            f"  {said(self.feature)}\n"
            f"  oracle {self.expected[0]} {self.expected[1].name}, {self.who} {self.found[0]} {self.found[1].name}"
        )


@dataclass(slots=True)
class Tally:
    """What was compared. pairs: (visible event, query) pairs; see `expected`. members: events that lay in a window."""

    pairs: int = 0
    queries: int = 0
    values: int = 0
    members: int = 0
    refused: int = 0


def said(feature: Feature) -> str:
    """The definition in one line."""
    value = "" if feature.input is None else describe(feature.input)
    where = "" if feature.where is None else f" where {describe(feature.where)}"
    more = f" n={feature.n}" if feature.n > 1 else ""
    return (
        f"{feature.function.value}({value}){where} over {feature.window} current={feature.current} "
        f"empty={feature.empty} known={feature.known} sample={feature.sample}{more} -> {feature.type}"
    )


def place(event: Event | None) -> str:
    return "nowhere" if event is None else f"{event.partition}@{event.offset} id={event.id!r}"


# --- questions ---


def questions(story: Story, draw: random.Random, *, share: float = 1.0, reads: float = 0.3) -> list[Question]:
    """Requests of the payments as they arrive, each served and sometimes replayed otherwise, and plain reads."""
    found: list[Question] = []
    for position, event in enumerate(story.events):
        own = event.topic == story.main.name
        for view in story.views:
            if own and draw.random() < share:
                entity = asked_entity(story, view, event)
                for kind in ("served", *(k for k in ("available", "known_now") if draw.random() < 0.3)):
                    found.append(
                        Question(
                            view=view.name,
                            kind=kind,
                            position=position,
                            t=event.event_time,
                            entity=entity,
                            request=event,
                        )
                    )
            if draw.random() < reads * share:
                whose = entity_of(view, draw.choice(story.events[: position + 1]))
                t = draw.choice((event.event_time, event.available_at)) + draw.choice(
                    (-SECOND, -1, 0, 0, 1, 10 * SECOND)
                )
                found.append(
                    Question(view=view.name, kind="served", position=position, t=t, entity=whose, request=None)
                )
    return [q for q in found if q.entity is not None or q.request is not None]


def asked_entity(story: Story, view: FeatureView, request: Event) -> Entity | None:
    """Whose values a request asks for: by the source's own expression, or by fields named like the entity."""
    if any(topic.name == request.topic for topic in view.topics):
        return entity_of(view, request)
    parts = tuple(request.values.get(part) for part in view.entity)
    return None if None in parts else parts


# --- the oracle's answers ---


def expected(story: Story, question: Question, tally: Tally, owners: Owners) -> Answer:
    """By the oracle. Each visible event of the topics that the view reads is one pair, whatever its features."""
    view = next(v for v in story.views if v.name == question.view)
    arrived, request = story.events[: question.position], question.request
    match question.kind:
        case "served":
            visible = visible_served(arrived, cut_of(arrived), request)
        case "available":
            assert request is not None
            visible = visible_available(story.events, request, view.lag)
        case _:
            visible = visible_known_now(story.events, question.t, request)
    seen = Seen(visible, question.t, owners)
    entity = () if question.entity is None else question.entity
    found = [of_members(view, feature, story.labels, seen, entity, request) for feature in view.features]
    read = topics_read(story, view)
    tally.pairs += sum(1 for event in visible if event.topic in read)
    tally.members += sum(count for _, count in found)
    tally.queries += 1
    tally.values += len(found)
    return tuple(canonical(value) for (value, _), _ in found), tuple(reason for (_, reason), _ in found)


def topics_read(story: Story, view: FeatureView) -> set[str]:
    """The view's sources and what says something of their events later: label topics, topics of truths."""
    own = {topic.name for topic in view.topics}
    late = {f"{topic.name}.{field.name}" for topic in view.topics for field in topic.late_columns}
    labels = {label.source.name for label in story.labels.values() if label.of.name in own}
    return own | ((late | labels) & set(story.topics))


def cut_of(arrived: Sequence[Event]) -> Cut:
    return Cut.of({event.partition: event.offset + 1 for event in arrived})


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


# --- the online state's answers ---


def online(story: Story, asked: Sequence[Question], draw: random.Random) -> Iterator[tuple[Question, Answer | None]]:
    """Every served question, answered by a state that follows the log: rows and batches at random, restarts in between.

    None: refused as too old (HR-0541).
    """
    state = fresh_state(story)
    by_position: dict[int, list[Question]] = {}
    for question in asked:
        if question.kind == "served":
            by_position.setdefault(question.position, []).append(question)
    waiting: list[Event] = []
    for position, event in enumerate(story.events):
        ask_now = by_position.get(position, [])
        if waiting and (ask_now or event.partition != waiting[0].partition or len(waiting) >= BATCH_MAX):
            _take(state, story, waiting, draw)
            waiting = []
        for question in ask_now:
            yield question, _ask(state, story, question)
        if event.topic in state.topics:
            waiting.append(event)


def fresh_state(story: Story) -> FeatureState:
    plans = [ViewPlan.compile(view, story.labels) for view in story.views]
    return FeatureState(plans, topics=story.topics.values())


def _take(state: FeatureState, story: Story, events: Sequence[Event], draw: random.Random) -> None:
    partition = events[0].partition
    if draw.random() < 0.5:
        state.ingest(partition, as_batch(story, events))
        return
    for event in events:
        row = as_row(story, event)
        state.ingest_row(partition, event.offset, event.available_at, event.event_time, int(event.verdict), row)


def _ask(state: FeatureState, story: Story, question: Question) -> Answer | None:
    request = question.request
    try:
        if request is None:
            assert question.entity is not None
            whose: Hashable = question.entity if len(question.entity) > 1 else question.entity[0]
            values, reasons = state.read(question.view, whose, question.t)
        else:
            ask = state.asker([question.view], story.topics[request.topic], request.partition)
            ((values, reasons),) = ask(request.offset, as_row(story, request), question.t)
    except StateError as error:
        if error.code == "HR-0541":
            return None
        raise
    return tuple(canonical(value) for value in values), reasons


def as_row(story: Story, event: Event) -> tuple[object, ...]:
    return tuple(event.values.get(name) for name in story.topics[event.topic].schema.names)


def as_batch(story: Story, events: Sequence[Event]) -> pa.RecordBatch:
    """As the log's `read` gives them."""
    fields = rows_to_batch(story.topics[events[0].topic].schema, [as_row(story, e) for e in events])
    system = [
        pa.array(np.array([e.offset for e in events], np.int64)),
        pa.array(np.array([e.available_at for e in events], np.int64)).cast(SYSTEM_COLUMNS[1].type),
        pa.array(np.array([e.event_time for e in events], np.int64)).cast(SYSTEM_COLUMNS[2].type),
        pa.array(np.array([int(e.verdict) for e in events], np.uint8)),
    ]
    schema = pa.schema([*SYSTEM_COLUMNS, *fields.schema])
    return pa.RecordBatch.from_arrays([*system, *fields.columns], schema=schema)


# --- comparing ---


def differences(story: Story, draw: random.Random, tally: Tally, **which: float) -> list[Difference]:
    """Every value of every question on which somebody disagrees with the oracle."""
    asked = questions(story, draw, **which)
    owners = Owners()
    answers = {id(q): expected(story, q, tally, owners) for q in asked}
    found: list[Difference] = []
    for question, answer in online(story, asked, draw):
        if answer is None:
            tally.refused += 1
            continue
        found += _compare(story, "online", question, answers[id(question)], answer)
    return found


def _compare(story: Story, who: str, question: Question, wanted: Answer, given: Answer) -> Iterator[Difference]:
    view = next(v for v in story.views if v.name == question.view)
    for i, feature in enumerate(view.features):
        if (wanted[0][i], wanted[1][i]) != (given[0][i], given[1][i]):
            yield Difference(
                seed=story.seed,
                who=who,
                question=question,
                feature=feature,
                expected=(wanted[0][i], wanted[1][i]),
                found=(given[0][i], given[1][i]),
            )
