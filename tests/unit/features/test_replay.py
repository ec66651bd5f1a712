"""Replays against the oracle, over random definitions and logs: every kind of replay, every view, to the bit.

`headrace.testing.agreement` asks logged requests, hypothetical ones and plain reads apart; here they stand mixed in one
call too, which splits the rows into passes otherwise.
"""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from headrace.core.aggregate import Reason
from headrace.core.codec import physical_array
from headrace.features.plan import ViewPlan
from headrace.features.replay import REASON_SUFFIX, Kind, replay
from headrace.features.replay_given import Cuts
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows
from headrace.testing import questions as asking
from headrace.testing.agreement import physical_values, replayed, tables
from headrace.testing.generate import Story, story
from headrace.testing.oracles import Owners
from headrace.testing.questions import Question, Tally, canonical, expected, questions

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_replay_says_what_the_oracle_says(seed: int) -> None:
    told = story(seed)
    asked = questions(told, random.Random(seed), share=0.4)
    owners = Owners()
    for question, answer in replayed(told, asked):
        assert answer == expected(told, question, Tally(), owners), question


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_of_all_kinds_in_one_call_are_answered_as_if_alone(seed: int) -> None:
    told = story(1_000 + seed)
    events = Events(told.topics.values(), tables(told))
    asked = questions(told, random.Random(seed), share=0.4, reads=0.8)
    for view in told.views:
        kinds = (asking.Kind.SERVED, asking.Kind.PARTLY, asking.Kind.RETRIED, asking.Kind.AVAILABLE)
        mine = [q for q in asked if q.view == view.name and q.kind in kinds]
        if mine:
            _compare(told, events, mine)


def _compare(told: Story, events: Events, asked: list[Question]) -> None:
    view = asking.view_of(told, asked[0])
    plan = ViewPlan.compile(view, told.labels)
    found = replay([plan], events, _mixed(told, events, view.entity, asked), kind=Kind.SERVED, reasons=True)
    values = [physical_values(found.column(f.name), f.type) for f in view.features]
    reasons = [found.column(f.name + REASON_SUFFIX).to_pylist() for f in view.features]
    owners = Owners()
    for i, question in enumerate(asked):
        answer = tuple(canonical(v[i]) for v in values), tuple(Reason[r[i]] for r in reasons)
        assert answer == expected(told, question, Tally(), owners), question


def _mixed(told: Story, events: Events, entity: tuple[str, ...], asked: list[Question]) -> Rows:
    topic = events.topic(told.main.name)
    start = {partition: int(first) for partition, first in zip(topic.partitions, topic.starts[:-1], strict=True)}
    row = [start.get(q.request.partition, -1) if q.request is not None else -1 for q in asked]
    row = [-1 if first < 0 else first + q.request.offset for first, q in zip(row, asked, strict=True)]
    columns = {}
    for field in told.main.schema:
        if field.name in entity:
            place = entity.index(field.name)
            found = [q.request.values.get(field.name) if q.request else (q.entity or ())[place] for q in asked]
        else:
            found = [q.request.values.get(field.name) if q.request else None for q in asked]
        columns[field.name] = physical_array(found, field.type)
    return Rows(
        t=np.array([q.t for q in asked], np.int64),
        available_at=np.array(
            [q.request.available_at if first >= 0 else q.t for first, q in zip(row, asked, strict=True)]
        ),
        topic=topic,
        row=np.array(row, np.int64),
        request=np.array([q.request is not None for q in asked]),
        table=pa.table(columns),
        cuts=Cuts.of([q.cut for q in asked]),
    )
