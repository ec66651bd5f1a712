"""Online state, replay and oracle over one story: the same questions to each, and every value that differs.

The one idea: the online state is driven as a log drives it, in rows and batches, restarted from checkpoints and from
the log alone, asked in between; the replay gets the whole log at once. Both must say what the oracle says, to the bit.
"""

from __future__ import annotations

import decimal
import random
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.core import schema
from headrace.core.aggregate import Reason
from headrace.core.codec import batch_to_rows, rows_to_batch
from headrace.core.errors import StateError
from headrace.core.expr import describe
from headrace.core.points import Partition
from headrace.core.schema import DataType
from headrace.features import checkpoint
from headrace.features.define import Feature, FeatureView
from headrace.features.plan import ViewPlan
from headrace.features.replay import REASON_SUFFIX, Cuts, Events, Rows, replay
from headrace.features.replay import Kind as ReplayKind
from headrace.features.replay_rows import entity_types
from headrace.features.run import FeatureState
from headrace.log.port import SYSTEM_COLUMNS
from headrace.testing import brute
from headrace.testing.expressions import Physical
from headrace.testing.generate import Story
from headrace.testing.oracles import Event, Owners
from headrace.testing.questions import (
    NOWHERE,
    REQUESTS,
    Answer,
    Kind,
    Question,
    Tally,
    canonical,
    expected,
    questions,
)

BATCH_MAX = 7
RESTARTS = 4  # of the online state, on average in a story
CONTEXT = decimal.Context(prec=80)


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
            f"seed {self.seed}: {self.who} of {q.view}.{self.feature.name}, {q.kind.value} at t={q.t}, "
            f"{asked}, entity {q.entity}, after {q.position} events\n"
            f"  {said(self.feature)}\n"
            f"  oracle {self.expected[0]} {self.expected[1].name}, {self.who} {self.found[0]} {self.found[1].name}"
        )


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
        found += compare(story, "online", question, answers[id(question)], answer)
    for question, answer in replayed(story, asked):
        found += compare(story, "replay", question, answers[id(question)], answer)
    return found


def compare(story: Story, who: str, question: Question, wanted: Answer, given: Answer) -> Iterator[Difference]:
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


# --- a large log ---


def large_differences(seed: int, size: int, queries: int, tally: Tally) -> list[str]:
    """A large log by brute force, by a replay and by the online state, which takes it in batches. Each difference as a
    line; a pair is an event of the request's entity that had arrived."""
    log, view = brute.large_log(seed, size), brute.large_view(seed)
    asked = np.sort(np.random.default_rng(seed).choice(size, queries, replace=False)).tolist()
    wanted = [brute.answer(log, view, place) for place in asked]
    tally.pairs += sum(considered for _, considered in wanted)
    tally.queries += queries
    tally.values += queries * len(view.features)
    found = []
    answers = (("replay", _large_replay(log, view, asked)), ("online", _large_online(log, view, asked)))
    for who, given in answers:
        for place, (expected_values, _), values in zip(asked, wanted, given, strict=True):
            for feature, want, got in zip(view.features, expected_values, values, strict=True):
                if canonical(want) != canonical(got):
                    found.append(f"large seed {seed} size {size}: {who} at {place}, {said(feature)}: {want} not {got}")
    return found


def _large_tables(log: brute.LargeLog) -> dict[Partition, pa.Table]:
    sales = {Partition("sales", 1, p): log.table(p) for p in range(brute.PARTITIONS)}
    return sales | {Partition("returns", 1, 0): log.returns()}


def _large_plan(view: FeatureView) -> ViewPlan:
    return ViewPlan.compile(view, {brute.returned.name: brute.returned})


def _large_replay(log: brute.LargeLog, view: FeatureView, asked: Sequence[int]) -> Iterator[list[object]]:
    events = Events([brute.sales, brute.returns], _large_tables(log))
    topic = events.topic("sales")
    rows = Rows.at(topic, topic.starts[log.partition[asked]] + log.offset[asked])
    table = replay([_large_plan(view)], events, replace(rows, cuts=Cuts.of([log.cut(place) for place in asked])))
    columns = [physical_values(table.column(f.name), f.type) for f in view.features]
    for i in range(len(asked)):
        yield [column[i] for column in columns]


def _large_online(log: brute.LargeLog, view: FeatureView, asked: Sequence[int]) -> Iterator[list[object]]:
    state, tables_of = FeatureState([_large_plan(view)]), _large_tables(log)
    read = dict.fromkeys(tables_of, 0)
    for place in asked:
        for partition, end in log.cut(place):
            for batch in tables_of[partition].slice(read[partition], end - read[partition]).to_batches():
                state.ingest(partition, batch)
            read[partition] = end
        partition = Partition("sales", 1, int(log.partition[place]))
        batch = tables_of[partition].slice(int(log.offset[place]), 1).combine_chunks().to_batches()[0]
        (row,) = batch_to_rows(brute.sales.schema, batch)
        ask = state.asker([view.name], brute.sales, partition)
        ((values, _),) = ask(int(log.offset[place]), row, int(log.time[place]))
        yield list(values)


# --- the online state's answers ---


def online(story: Story, asked: Sequence[Question], draw: random.Random) -> Iterator[tuple[Question, Answer | None]]:
    """Every served question, answered by a state that follows the log: rows and batches at random, restarts in between.

    None: refused as too old (HR-0541).
    """
    state = fresh_state(story)
    by_position: dict[int, list[Question]] = {}
    for question in asked:
        if question.kind is Kind.SERVED:
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
        if draw.random() * len(story.events) < RESTARTS:
            _take(state, story, waiting, draw)
            waiting = []
            state = _restarted(state, story, position, draw)


def fresh_state(story: Story) -> FeatureState:
    plans = [ViewPlan.compile(view, story.labels) for view in story.views]
    return FeatureState(plans, topics=story.topics.values())


def _restarted(state: FeatureState, story: Story, position: int, draw: random.Random) -> FeatureState:
    """From a checkpoint; or from the log alone, one partition after the other and in other batches."""
    if draw.random() < 0.7:
        files, folder = MemoryFiles(), Path("checkpoints")
        prints = {view.name: view.name for view in story.views}
        checkpoint.write(state, folder, fingerprints=prints, files=files)
        plans = [ViewPlan.compile(view, story.labels) for view in story.views]
        held = checkpoint.restore(plans, folder, fingerprints=prints, topics=story.topics.values(), files=files)
        assert held is not None
        return held
    fresh = fresh_state(story)
    rows: dict[Partition, list[Event]] = {}
    for event in story.events[: position + 1]:
        if event.topic in fresh.topics:
            rows.setdefault(event.partition, []).append(event)
    for _, events in draw.sample(sorted(rows.items()), len(rows)):
        size = draw.choice((1, 3, len(events)))
        for start in range(0, len(events), size):
            _take(fresh, story, events[start : start + size], draw)
    return fresh


class MemoryFiles:
    """A folder of files in memory, for checkpoints."""

    def __init__(self) -> None:
        self._held: dict[Path, bytes] = {}

    def make(self, folder: Path) -> None:
        pass

    def write(self, path: Path, parts: Sequence[bytes | memoryview]) -> None:
        self._held[path] = b"".join(parts)

    def sync(self, folder: Path) -> None:
        pass

    def rename(self, source: Path, target: Path) -> None:
        self._held = {target / path.name if path.parent == source else path: body for path, body in self._held.items()}

    def remove(self, folder: Path) -> None:
        self._held = {path: body for path, body in self._held.items() if path.parent != folder}

    def names(self, folder: Path) -> list[str]:
        return sorted({path.parent.name for path in self._held if path.parent.parent == folder})

    def read(self, path: Path) -> bytes:
        return self._held[path]


def _take(state: FeatureState, story: Story, events: Sequence[Event], draw: random.Random) -> None:
    if not events:
        return
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
            topic, row = story.topics[request.topic], as_row(story, request)
            if request.partition.index == NOWHERE[0]:
                ((values, reasons),) = state.hypothetical([question.view], topic)(row, question.t)
            else:
                ask = state.asker([question.view], topic, request.partition)
                ((values, reasons),) = ask(request.offset, row, question.t)
    except StateError as error:
        if error.code == "HR-0541":
            return None
        raise
    return tuple(canonical(value) for value in values), reasons


def as_row(story: Story, event: Event) -> tuple[Physical, ...]:
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


# --- the replay's answers ---


def replayed(story: Story, asked: Sequence[Question]) -> Iterator[tuple[Question, Answer]]:
    """Every question, answered by replays of the whole log: each view's, requests and others apart."""
    events = Events(story.topics.values(), tables(story))
    requests = Counter(e.id for e in story.events if e.topic == story.requests and e.verdict in REQUESTS)
    alone = {id for id, count in requests.items() if count == 1} if story.main.id is not None else set()
    for view in story.views:
        mine = [q for q in asked if q.view == view.name]
        for kind in ReplayKind:
            some = [q for q in mine if _replay_kind(q) is kind]
            logged = [q for q in some if q.request is not None and q.request.partition.index != NOWHERE[0]]
            others = [q for q in some if q.request is None]
            never = [q for q in some if q.request is not None and q.request.partition.index == NOWHERE[0]]
            by_id = [q.position % 2 == 1 and q.request is not None and q.request.id in alone for q in logged]
            named = [q for q, yes in zip(logged, by_id, strict=True) if yes]
            placed = [q for q, yes in zip(logged, by_id, strict=True) if not yes]
            for group, rows in ((placed, _logged), (named, _named), (others, _plain), (never, _hypothetical)):
                if group:
                    yield from zip(
                        group, _replay(story, view, events, rows(story, view, events, group), kind), strict=True
                    )


def _replay_kind(question: Question) -> ReplayKind:
    match question.kind:
        case Kind.AVAILABLE:
            # Without a record a served replay is the available one: both doors are asked.
            return ReplayKind.SERVED if question.position % 2 else ReplayKind.AVAILABLE
        case Kind.KNOWN_NOW:
            return ReplayKind.KNOWN_NOW
    return ReplayKind.SERVED


def _replay(story: Story, view: FeatureView, events: Events, rows: Rows, kind: ReplayKind) -> Iterator[Answer]:
    table = replay([ViewPlan.compile(view, story.labels)], events, rows, kind=kind, reasons=True)
    values = [physical_values(table.column(f.name), f.type) for f in view.features]
    reasons = [table.column(f.name + REASON_SUFFIX).to_pylist() for f in view.features]
    for i in range(len(rows)):
        yield tuple(canonical(v[i]) for v in values), tuple(Reason[r[i]] for r in reasons)


def _logged(story: Story, view: FeatureView, events: Events, asked: Sequence[Question]) -> Rows:
    topic = events.topic(story.main.name)
    place = {partition: int(start) for partition, start in zip(topic.partitions, topic.starts[:-1], strict=True)}
    rows = [place[q.request.partition] + q.request.offset for q in asked if q.request is not None]
    return replace(Rows.at(topic, np.array(rows, np.int64)), cuts=Cuts.of([q.cut for q in asked]))


def _named(story: Story, view: FeatureView, events: Events, asked: Sequence[Question]) -> Rows:
    """By their ids alone, as a caller has them."""
    topic = story.main
    assert topic.id is not None
    ids = pa.array([q.request.id for q in asked if q.request is not None], topic.schema[topic.id].type.arrow)
    return Rows.of(events, pa.table({topic.id: ids}), request=topic.name, cuts=Cuts.of([q.cut for q in asked]))


def _plain(story: Story, view: FeatureView, events: Events, asked: Sequence[Question]) -> Rows:
    columns = {"t": pa.array([q.t for q in asked], pa.int64()).cast(schema.timestamp.arrow)}
    for i, (part, type) in enumerate(zip(view.entity, entity_types(view), strict=True)):
        columns[part] = pa.array([(q.entity or ())[i] for q in asked], type.arrow)
    return Rows.of(events, pa.table(columns), cuts=Cuts.of([q.cut for q in asked]))


def _hypothetical(story: Story, view: FeatureView, events: Events, asked: Sequence[Question]) -> Rows:
    topic = story.main
    rows = [as_row(story, q.request) for q in asked if q.request is not None]
    batch = rows_to_batch(topic.schema, rows)
    times = pa.array([q.t for q in asked], pa.int64()).cast(schema.timestamp.arrow)
    table = pa.table({f.name: batch.column(f.name) for f in topic.schema if f.name != topic.event_time} | {"t": times})
    made = Rows.of(events, table, request=topic.name, cuts=Cuts.of([q.cut for q in asked]))
    return made


def tables(story: Story) -> dict[Partition, pa.Table]:
    """The whole log, as the replay reads it."""
    held: dict[Partition, list[Event]] = {}
    for event in story.events:
        held.setdefault(event.partition, []).append(event)
    return {partition: pa.Table.from_batches([as_batch(story, events)]) for partition, events in held.items()}


def physical_values(column: pa.ChunkedArray, type: DataType) -> list[object]:
    """Published values as the oracle says them: decimals in units, instants in microseconds."""
    if type.kind is schema.Kind.LIST:
        assert type.item is not None
        whole = column.combine_chunks()
        items = physical_values(pa.chunked_array([whole.flatten()]), type.item)
        lengths = [None if one is None else len(one) for one in column.to_pylist()]
        taken = iter(items)
        return [None if n is None else [next(taken) for _ in range(n)] for n in lengths]
    if type.kind is schema.Kind.DECIMAL:
        return [None if v is None else int(v.scaleb(type.scale, CONTEXT)) for v in column.to_pylist()]
    if type.kind is schema.Kind.TIMESTAMP:
        return column.cast(pa.int64()).to_pylist()
    return column.to_pylist()
