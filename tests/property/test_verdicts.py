"""The log's judge says of random rows what SEMANTICS 1.2 to 1.5 say, row by row and in batches, restored in between."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from headrace.core.codec import rows_to_batch
from headrace.core.points import IMPORTS_FROM
from headrace.core.times import Instant
from headrace.log.define import Topic
from headrace.log.plan import Judge
from headrace.testing.agreement import as_batch
from headrace.testing.generate import Story, story
from headrace.testing.oracles import Event, Row, judge_naive

Said = list[tuple[int, int, int]]  # verdict, event_time, available_at


@pytest.mark.parametrize("seed", range(60))
def test_the_judge_says_what_the_law_says(seed: int) -> None:
    draw = random.Random(seed)
    made = story(seed, views=1)
    for name, rows in made.rows.items():
        topic = made.topics[name]
        events = judge_naive(topic, rows)
        wanted = [(int(e.verdict), e.event_time, e.available_at) for e in events]
        for longest in (1, draw.choice((2, 5, 40))):
            assert judged(made, topic, rows, events, longest) == wanted


def judged(story: Story, topic: Topic, rows: Sequence[Row], events: Sequence[Event], longest: int) -> Said:
    """By the judge, in runs of rows that one append could bring: of one partition and instant, all requests or none.

    events: what the log holds in the end, which an import recalls up to its own beginning.
    """
    judge, said = Judge(topic), Said()
    place, recalled = 0, False
    while place < len(rows):
        first = rows[place]
        run = [first]
        for row in rows[place + 1 : place + longest]:
            if _together(first, row):
                run.append(row)
            else:
                break
        place += len(run)
        values = [tuple(row.values.get(f.name) for f in topic.schema) for row in run]
        given = values if len(run) == 1 else rows_to_batch(topic.schema, values)
        if first.partition.index >= IMPORTS_FROM:
            if not recalled:
                judge.recall((e.partition.index, as_batch(story, [e])) for e in events[: place - len(run)])
                recalled = True
            found = judge.imported(first.partition.index, given, np.array([row.at for row in run], np.int64))
        else:
            found = judge.live(first.partition.index, given, Instant(first.at), request=first.request)
        judge.remember(first.partition.index, given, found)
        said += zip(found.verdicts.tolist(), found.event_times.tolist(), found.available_at.tolist(), strict=True)
    return said


def _together(first: Row, row: Row) -> bool:
    imported = first.partition.index >= IMPORTS_FROM
    same_instant = imported or first.at == row.at
    return first.partition == row.partition and first.request == row.request and same_instant
