"""Stories (headrace.testing.generate) as what a replay takes, and its answers as the oracle writes them."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa

from headrace.core.aggregate import Reason
from headrace.core.codec import physical_array
from headrace.core.schema import DataType, Kind
from headrace.features.plan import ViewPlan
from headrace.features.replay import REASON_SUFFIX, replay
from headrace.features.replay_given import Cuts
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows, entity_types
from headrace.testing.agreement import Answer, Question, as_batch, canonical, cut_of
from headrace.testing.generate import Story

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def events_of(story: Story) -> Events:
    by_partition: dict = {}
    for event in story.events:
        by_partition.setdefault(event.partition, []).append(event)
    tables = {p: pa.Table.from_batches([as_batch(story, found)]) for p, found in by_partition.items()}
    return Events(story.topics.values(), tables)


def rows_of(story: Story, events: Events, asked: list[Question], plan: ViewPlan) -> Rows:
    """The questions of one view, in their order."""
    main = events.topic(story.main.name)
    place = {(p, int(o)): i for i, (p, o) in enumerate(_places(main))}
    row = np.array([-1 if q.request is None else place[q.request.partition, q.request.offset] for q in asked], np.int64)
    t = np.array([q.t for q in asked], np.int64)
    columns = {}
    for i, (part, type) in enumerate(zip(plan.view.entity, entity_types(plan.view), strict=True)):
        values = [None if q.entity is None or q.request is not None else q.entity[i] for q in asked]
        columns[part] = physical_array(values, type)
    return Rows(
        t=t,
        available_at=np.array([q.t if q.request is None else q.request.available_at for q in asked], np.int64),
        topic=main,
        row=row,
        request=row >= 0,
        table=pa.table(columns),
        cuts=Cuts.of([_whole(story, cut_of(story.events[: q.position])) for q in asked]),
    )


def _whole(story: Story, cut):
    """A record mentions every topic that was read, with 0 where nothing was there yet."""
    from headrace.core.points import Cut

    return Cut.of({**{event.partition: 0 for event in story.events}, **dict(cut)})


def _places(topic):
    for i, partition in enumerate(topic.partitions):
        for offset in topic.offset[topic.starts[i] : topic.starts[i + 1]]:
            yield partition, offset


def answers(story: Story, events: Events, asked: list[Question], kind: str) -> list[Answer]:
    """Of questions about one view."""
    view = next(v for v in story.views if v.name == asked[0].view)
    plan = ViewPlan.compile(view, story.labels)
    table = replay([plan], events, rows_of(story, events, asked, plan), kind=kind, reasons=True)
    assert table.num_rows == len(asked)
    columns = [physical_texts(table.column(f.name), f.type) for f in view.features]
    said = [[Reason[r] for r in table.column(f.name + REASON_SUFFIX).to_pylist()] for f in view.features]
    return list(zip(zip(*columns, strict=True), zip(*said, strict=True), strict=True))


def physical_texts(column: pa.ChunkedArray, type: DataType) -> list[str]:
    assert column.type == type.arrow, (column.type, type)
    return [canonical(_physical(value, type)) for value in column.to_pylist()]


def _physical(value, type: DataType):
    if value is None:
        return None
    match type.kind:
        case Kind.LIST:
            return [_physical(one, type.item) for one in value]
        case Kind.DECIMAL:
            return int(value.scaleb(type.scale, decimal.Context(prec=60)))
        case Kind.TIMESTAMP:
            return (value - EPOCH) // dt.timedelta(microseconds=1)
    return value
