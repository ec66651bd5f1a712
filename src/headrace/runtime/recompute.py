"""Recorded decisions' features, computed again from the log alone. Touches the log through its port, and the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from headrace.core.aggregate import Reason
from headrace.core.codec import Physical, batch_to_rows, physical_list, units
from headrace.core.errors import HaltedError, NotFoundError
from headrace.core.points import Partition
from headrace.decisions.plan import Answer
from headrace.decisions.port import Question, Recompute, Row
from headrace.features.plan import ViewPlan
from headrace.features.replay import REASON_SUFFIX, column_names, replay, topics_of
from headrace.features.replay_cuts import Kind
from headrace.features.replay_given import Cuts
from headrace.features.replay_log import Events, TopicRows
from headrace.features.replay_rows import Rows
from headrace.log.define import Topic
from headrace.log.port import OFFSET, Log

Compile = Callable[[Iterable[str]], list[ViewPlan]]


def recompute_with(log: Log, compile: Compile) -> Recompute:
    """Features of questions by replay at their cuts (SEMANTICS 1.6, served). A call reads its topics whole."""

    def recompute(views: Sequence[str], questions: Sequence[Question]) -> Sequence[tuple[Answer | None, ...]]:
        plans = compile(views)
        topic = questions[0].request.topic
        halts: dict[Partition, HaltedError] = {}
        events = Events.read(log, {*topics_of(plans), topic}, halts=halts)
        _check_behind(questions, halts)
        rows = events.topic(topic)
        places = _places(rows, questions)
        columns = [_answers(plan, i, events, rows, places, questions) for i, plan in enumerate(plans)]
        return [tuple(column[q] for column in columns) for q in range(len(questions))]

    return recompute


def _check_behind(questions: Sequence[Question], halts: Mapping[Partition, HaltedError]) -> None:
    """No cut reaches behind where the log halts. Raises: HaltedError."""
    for question in questions if halts else ():
        for cut in question.cuts:
            for partition, offset in cut or ():
                error = halts.get(partition)
                if error is not None and offset > int(str(error.facts["offset"])):
                    raise error


def _places(rows: TopicRows, questions: Sequence[Question]) -> list[int]:
    """The row of each question's request."""
    spans = {
        partition: (int(start), int(end))
        for partition, start, end in zip(rows.partitions, rows.starts[:-1], rows.starts[1:], strict=True)
    }
    places = []
    for question in questions:
        start, end = spans.get(question.request, (0, 0))
        place = start + int(np.searchsorted(rows.offset[start:end], question.offset))
        if place >= end or int(rows.offset[place]) != question.offset:
            raise NotFoundError(
                "HR-0715",
                f"request {question.request} offset {question.offset} is no longer in the log",
                hint="restore a backup that holds it",
            )
        places.append(place)
    return places


def _answers(
    plan: ViewPlan,
    view: int,
    events: Events,
    rows: TopicRows,
    places: Sequence[int],
    questions: Sequence[Question],
) -> list[Answer | None]:
    """One view's answers; None where the question does not ask it."""
    asked = [q for q, question in enumerate(questions) if question.cuts[view] is not None]
    found: list[Answer | None] = [None] * len(questions)
    if not asked:
        return found
    at = np.array([places[q] for q in asked], np.int64)
    given = Rows(
        t=np.array([questions[q].t for q in asked], np.int64),
        available_at=rows.available_at[at],
        topic=rows,
        row=at,
        request=np.ones(len(asked), np.bool_),
        cuts=Cuts.of([questions[q].cuts[view] for q in asked]),
    )
    table = replay([plan], events, given, kind=Kind.SERVED, reasons=True)
    names = column_names([plan])
    values, reasons = [], []
    for feature in plan.view.features:
        name = names[plan.view.name, feature.name]
        values.append(_physical(table.column(name)))
        reasons.append([Reason[text] for text in table.column(name + REASON_SUFFIX).to_pylist()])
    for place, q in enumerate(asked):
        found[q] = tuple(column[place] for column in values), tuple(column[place] for column in reasons)
    return found


def _physical(column: pa.ChunkedArray) -> list[Physical | tuple[Physical, ...]]:
    array = column.combine_chunks()
    if pa.types.is_list(array.type):
        return [None if item is None or not item.is_valid else tuple(physical_list(item.values)) for item in array]
    return list(physical_list(array))


def request_rows(log: Log, topic: Topic) -> Callable[[Partition, Sequence[int]], Iterable[Row | None]]:
    """The physical rows of requests at rising offsets of one partition, in order; None where the log holds none."""
    names = [field.name for field in topic.schema]

    def rows(partition: Partition, offsets: Sequence[int]) -> Iterable[Row | None]:
        found: dict[int, Row] = {}
        for batch in log.read(partition, offsets[0], end=offsets[-1] + 1):
            held = units(batch.column(OFFSET))
            places = np.flatnonzero(np.isin(held, offsets))
            if len(places):
                part = batch.select(names).take(pa.array(places))
                found.update(zip(held[places].tolist(), batch_to_rows(topic.schema, part), strict=True))
        return [found.get(offset) for offset in offsets]

    return rows
