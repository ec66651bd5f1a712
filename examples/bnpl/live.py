"""The lender's live days: events as they arrive, each application asked for a decision when its turn comes.

The one idea: how events get into the log and how a decision is asked for are two callables, so that the same days go
through the project itself or over HTTP (serving.py). Touches what the callables touch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from generate import TOPICS
from steps import ARRIVED, DECISION, REQUESTS, instants

from headrace.core.times import Instant
from headrace.runtime.project import Project

Request = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What arrived between two requests, of one topic, in order of arrival."""

    topic: str
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was told of a request. taken: seconds from asking until the answer, which is durable by then."""

    decision_id: str
    outcome: str
    reasons: tuple[str, ...]
    taken: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """answers: by application id. events: how many were appended between decisions. taken: seconds for all of it."""

    answers: Mapping[int, Answer]
    events: int
    taken: float


Append = Callable[[Events], None]
Ask = Callable[[Request], Answer]


def decide(
    data: Path, begin: Instant, *, append: Append, ask: Ask, told: Callable[[int], None] = lambda count: None
) -> Decided:
    """Each application from `begin` on, one by one, with all that arrived before it in the log.

    append, ask: how events get into the log, and how a decision is asked for; `in_process` is one way. told: called
    after each answer with how many there are.
    """
    answers: dict[int, Answer] = {}
    events = 0
    begun = time.perf_counter()
    for one in feed(data, begin):
        if isinstance(one, Events):
            append(one)
            events += one.rows.num_rows
        else:
            answers[int(str(one["application_id"]))] = ask(one)
            told(len(answers))
    return Decided(answers=answers, events=events, taken=time.perf_counter() - begun)


def in_process(project: Project) -> tuple[Append, Ask]:
    """`append` and `ask` of the project itself."""
    decider = project.decider(DECISION)

    def append(events: Events) -> None:
        topic = project.definitions.topic(events.topic)
        project.append(topic, events.rows.select(topic.schema.names))

    def ask(request: Request) -> Answer:
        begun = time.perf_counter()
        made = decider.decide(request)
        return Answer(
            decision_id=made.decision_id,
            outcome=made.outcome.value,
            reasons=tuple(made.reasons),
            taken=time.perf_counter() - begun,
        )

    return append, ask


def feed(data: Path, begin: Instant) -> Iterator[Events | Request]:
    """All that arrives from `begin` on, in order: applications as requests, and before each what else has come."""
    table = pq.read_table(data / f"{REQUESTS}.parquet").drop_columns([ARRIVED])
    table = table.filter(pa.array(instants(table, "created_at") >= begin))
    asked = instants(table, "created_at")
    others = {topic: _arrivals(data / f"{topic}.parquet", begin) for topic in TOPICS if topic != REQUESTS}
    places = {topic: np.searchsorted(arrived, asked, side="right") for topic, (arrived, _) in others.items()}
    done = dict.fromkeys(others, 0)
    for row, request in enumerate(table.to_pylist()):
        for topic, (_, batch) in others.items():
            until = int(places[topic][row])
            if until > done[topic]:
                yield Events(topic=topic, rows=batch.slice(done[topic], until - done[topic]))
                done[topic] = until
        yield {**request, "created_at": request["created_at"].isoformat(), "amount": str(request["amount"])}


def requests_from(data: Path, begin: Instant) -> int:
    """How many requests `feed` gives."""
    return int((instants(pq.read_table(data / f"{REQUESTS}.parquet"), "created_at") >= begin).sum())


def _arrivals(path: Path, begin: Instant) -> tuple[npt.NDArray[np.int64], pa.RecordBatch]:
    """When each event from `begin` on arrived, rising, and the events."""
    table = pq.read_table(path)
    arrived = instants(table, ARRIVED)
    order = np.argsort(arrived, kind="stable")
    order = order[arrived[order] >= begin]
    batch = table.drop_columns([ARRIVED]).take(pa.array(order)).combine_chunks()
    return arrived[order], batch.to_batches()[0] if len(order) else pa.RecordBatch.from_pylist([], batch.schema)
