"""A log in memory that grows by a generated story's rows, another stretch of them for each seed. Memory only.

The one idea: definitions are dear to make and a log is cheap, so a process makes some stories once and every seed draws
from one of them: which views are followed, which rows come, which are left out, told again or told otherwise, and
when an import comes.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import Instant
from headrace.log.define import Topic
from headrace.log.port import Append, Verdict
from headrace.testing.clocks import ManualClock
from headrace.testing.expressions import Physical
from headrace.testing.fakes import MemoryLog
from headrace.testing.generate import SECOND, Story, story
from headrace.testing.oracles import Event, Row

STORIES, STORY_EVENTS = 48, 160
ROWS_MAX = 90  # of one log, and what is told again
NEIGHBOURS_MAX = 6  # rows of one append


@functools.cache
def told(number: int) -> Story:
    """One of STORIES; some 25 ms the first time."""
    return story(7_000 + number, size=STORY_EVENTS, views=2)


class GrowingLog:
    """story: what it draws from. log: what is there, by the log's port. held: the same by partition, as the oracle
    reads it."""

    def __init__(self, draw: random.Random) -> None:
        self.story = told(draw.randrange(STORIES))
        self.log = MemoryLog(clock=ManualClock())
        self.held: dict[Partition, list[Event]] = {}
        self._coming = _sequence(self.story, draw)
        for topic in self.story.topics.values():
            self.log.declare(topic)

    def append(self) -> int:
        """The next rows, or one whole import. Returns how many those are."""
        if not self._coming:
            return 0
        topic, rows = self._coming.pop()
        first = rows[0]
        if first.partition.index < IMPORTS_FROM:
            partition = Partition(topic.name, 1, first.partition.index)
            live = Append(partition=partition, rows=_tuples(topic, rows), request=first.request, at=Instant(first.at))
            return self._append(topic, live, rows)
        partition = self.log.import_partitions(topic.name, "import")[0].partition
        stamps = np.array([row.at for row in rows], np.int64)
        self._append(topic, Append(partition=partition, rows=_tuples(topic, rows), available_at=stamps), rows)
        self.log.import_partitions(topic.name, "import", seal=True)
        return len(rows)

    def batch(self, partition: Partition, first: int, end: int) -> pa.RecordBatch:
        """Rows from one offset to another, as the log gives them, in one batch."""
        whole = pa.Table.from_batches(self.log.read(partition, first)).slice(0, end - first)
        return whole.combine_chunks().to_batches()[0]

    def row(self, event: Event) -> tuple[Physical, ...]:
        return _row(self.story.topics[event.topic], event.values)

    def _append(self, topic: Topic, append: Append, rows: Sequence[Row]) -> int:
        (done,) = self.log.append([append])
        held = self.held.setdefault(append.partition, [])
        for place, row in enumerate(rows):
            id = 0 if topic.id is None else row.values[topic.id]
            assert isinstance(id, (int, str))
            held.append(
                Event(
                    partition=append.partition,
                    offset=done.offset + place,
                    event_time=int(done.event_times[place]),
                    available_at=int(done.available_at[place]),
                    verdict=Verdict(int(done.verdicts[place])),
                    id=id,
                    values=row.values,
                )
            )
        return len(rows)


def _sequence(made: Story, draw: random.Random) -> list[tuple[Topic, list[Row]]]:
    """What will be appended, last first: a stretch of the story's rows, neighbours of one partition together, some left
    out, some told again; an import at once."""
    rows = [(made.topics[name], row) for name, some in made.rows.items() for row in some]
    imports = [one for one in rows if one[1].partition.index >= IMPORTS_FROM]
    live = sorted((one for one in rows if one[1].partition.index < IMPORTS_FROM), key=lambda one: one[1].at)
    first = draw.randrange(max(1, len(live) - ROWS_MAX))
    live = [one for one in live[first : first + ROWS_MAX] if draw.random() < 0.9]
    for _ in range(len(live) // 12):
        place = draw.randrange(len(live))
        live.insert(draw.randrange(place, min(len(live), place + 30)) + 1, _again(*live[place], draw))
    groups: list[tuple[Topic, list[Row]]] = []
    for topic, row in live:
        last = groups[-1][1] if groups else []
        same = last and (last[0].partition, last[0].request) == (row.partition, row.request)
        if same and len(last) < NEIGHBOURS_MAX:
            last.append(row)
        else:
            groups.append((topic, [row]))
    if imports:
        groups.insert(draw.randrange(len(groups) + 1), (imports[0][0], [row for _, row in imports]))
    return groups[::-1]


def _again(topic: Topic, row: Row, draw: random.Random) -> tuple[Topic, Row]:
    """The same row, or one of its id that says something else."""
    values = row.values if draw.random() < 0.6 else {**row.values, "customer": "ann"}
    return topic, Row(partition=row.partition, values=values, at=row.at + SECOND, request=row.request)


def _tuples(topic: Topic, rows: Sequence[Row]) -> list[tuple[Physical, ...]]:
    return [_row(topic, row.values) for row in rows]


def _row(topic: Topic, values: Mapping[str, Physical]) -> tuple[Physical, ...]:
    return tuple(values.get(name) for name in topic.schema.names)
