"""What each row of a replay sees, as thresholds: the three replays of SEMANTICS 1.6. Pure.

The one idea: what a row sees of a partition is a prefix of it, in one of two orders: by offset (a recorded cut, the own
partition, whatever became available up to an instant), or by (available_at, order key), which decides between events of
the request's own topic in other partitions. So a visible set is one number for each component, and two of them compare
like vectors. The orders differ only among events that became available at the same instant; rows whose set is no prefix
by offset ("ragged") are therefore planned apart, one group for each partition that requests came from.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.core.kernel.program import Words
from headrace.features.replay_log import Events, TopicRows
from headrace.features.replay_rows import Rows

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


class Kind(enum.Enum):
    """SERVED: the recorded cut where there is one, else as AVAILABLE. AVAILABLE: what a decision would have seen.
    KNOWN_NOW: everything in the log, late events too; of the request's own topic what came before it."""

    SERVED = "served"
    AVAILABLE = "available"
    KNOWN_NOW = "known_now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a topic that becomes visible in one order. rows: the topic's row numbers in it, or where it begins and
    ends. thresholds: how many of them each query sees."""

    topic: str
    rows: Words | tuple[int, int]
    thresholds: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Queries that are planned together: their places among the rows, and the components all of them see by thresholds.
    alone: no two share a pass, because each must be answered as if its own row were not in the log (a retried request's
    cut lies beyond its own offset, SEMANTICS 1.1)."""

    queries: Places
    components: tuple[Component, ...]
    alone: bool = False


def groups(events: Events, topics: Sequence[str], rows: Rows, kind: Kind, lag: int) -> Iterator[Group]:
    """topics: all that are read, each once. lag: the view's, in microseconds."""
    if kind is Kind.KNOWN_NOW:
        yield _known_now(events, topics, rows)
        return
    parts = [(name, place) for name in topics for place in range(len(events.topic(name).partitions))]
    ragged = np.zeros(len(rows), np.bool_)
    retried = np.zeros(len(rows), np.bool_)
    by_offset: list[Component] = []
    arrivals: dict[int, Words] = {}  # of the own topic's partitions: thresholds in order of arrival
    for name, place in parts:
        topic = events.topic(name)
        start, end = int(topic.starts[place]), int(topic.starts[place + 1])
        own = rows.topic is topic
        here = own & (rows.row >= start) & (rows.row < end)
        if topic.topic.derivation is not None:  # by recorded cuts alone: its rows are not in order of available_at
            thresholds = np.zeros(len(rows), np.int64)
        elif own and here.all():  # a log that replays itself
            thresholds = arrivals[place] = rows.row - start
        elif own:
            thresholds = _available(topic, place, rows, lag)
            thresholds[here] = rows.row[here] - start
            others = (rows.row >= 0) & ~here
            arrivals[place], split = _arrival(topic, place, rows, others, lag, thresholds)
            thresholds = np.where(split, thresholds, arrivals[place])
            ragged |= split
        else:
            thresholds = _available(topic, place, rows, lag)
        recorded = _recorded(topic, place, rows, kind, thresholds)
        if own and recorded is not None:
            ragged &= ~recorded
            retried |= here & (thresholds > rows.row - start)
        by_offset.append(Component(topic=name, rows=(start, end), thresholds=thresholds))
    plain = ~ragged & ~retried
    yield from _by_offset(by_offset, plain, alone=False)
    if retried.any():
        yield from _by_offset(by_offset, retried, alone=True)
    if ragged.any():
        assert rows.topic is not None
        yield from _by_arrival(by_offset, parts, arrivals, rows, rows.topic, ragged)


def _by_offset(components: list[Component], which: Mask, *, alone: bool) -> Iterator[Group]:
    if which.all():
        yield Group(queries=np.arange(len(which)), components=tuple(components), alone=alone)
        return
    queries = np.flatnonzero(which)
    if len(queries):
        yield Group(queries=queries, components=tuple(_some(c, queries) for c in components), alone=alone)


def _some(component: Component, queries: Places) -> Component:
    return Component(topic=component.topic, rows=component.rows, thresholds=component.thresholds[queries])


def _by_arrival(
    components: list[Component],
    parts: list[tuple[str, int]],
    arrivals: dict[int, Words],
    rows: Rows,
    topic: TopicRows,
    ragged: Mask,
) -> Iterator[Group]:
    """Ragged rows, a group for each partition they lie in: it by offset, the topic's others together by arrival."""
    everything = np.arange(len(topic), dtype=np.int64)
    partition = topic.partition_of(rows.row)
    for own in np.unique(partition[ragged]).tolist():
        queries = np.flatnonzero(ragged & (partition == own))
        kept = [
            _some(component, queries)
            for component, (name, place) in zip(components, parts, strict=True)
            if name != topic.topic.name or place == own
        ]
        inside = (everything >= topic.starts[own]) & (everything < topic.starts[own + 1])
        total = np.zeros(len(queries), np.int64)
        for place, thresholds in arrivals.items():
            if place != own:
                total += thresholds[queries]
        others = topic.by_arrival(everything[~inside])
        yield Group(
            queries=queries, components=(*kept, Component(topic=topic.topic.name, rows=others, thresholds=total))
        )


def _available(topic: TopicRows, place: int, rows: Rows, lag: int) -> Words:
    """How many rows of a partition were available, lag included, at each row's instant."""
    start, end = topic.starts[place], topic.starts[place + 1]
    found = np.searchsorted(topic.available_at[start:end], rows.available_at - lag, side="right")
    return found.astype(np.int64)


def _recorded(topic: TopicRows, place: int, rows: Rows, kind: Kind, thresholds: Words) -> Mask | None:
    """Puts recorded offsets in the place of `thresholds`; returns which rows mention the topic."""
    if kind is not Kind.SERVED or rows.cuts is None or topic.topic.name not in rows.cuts.mentions:
        return None
    mentioned = rows.cuts.mentions[topic.topic.name]
    start, end = topic.starts[place], topic.starts[place + 1]
    offsets = rows.cuts.offsets.get(topic.partitions[place])
    if offsets is None:
        thresholds[mentioned] = 0
    else:
        thresholds[mentioned] = np.searchsorted(topic.offset[start:end], offsets[mentioned])
    return mentioned


def _arrival(topic: TopicRows, place: int, rows: Rows, others: Mask, lag: int, up_to: Words) -> tuple[Words, Mask]:
    """(thresholds, ragged) of requests of other partitions of the same topic: (available_at + lag, order key) is before
    the request's. up_to: the thresholds by available_at + lag <= a, which hold for all rows that are not `others`."""
    start, end = int(topic.starts[place]), int(topic.starts[place + 1])
    available = topic.available_at[start:end]
    thresholds = up_to.copy()
    ragged = np.zeros(len(rows), np.bool_)
    asked = np.flatnonzero(others)
    before = np.searchsorted(available, rows.available_at[asked] - lag, side="left")
    thresholds[asked] = before
    tied = before < up_to[asked]
    asked, before, last = asked[tied], before[tied], up_to[asked][tied]
    if not len(asked):
        return thresholds, ragged
    # Events that became available in the very instant of a request: the order key decides. Merge both by it.
    touched = np.zeros(end - start + 1, np.int64)
    np.add.at(touched, before, 1)
    np.add.at(touched, last, -1)
    inside = topic.by_arrival(start + np.flatnonzero(np.cumsum(touched[:-1]) > 0))
    request = rows.row[asked]
    merged = np.lexsort(
        (
            np.concatenate([topic.offset[inside], topic.offset[request]]),
            np.concatenate([topic.partition_of(inside), topic.partition_of(request)]),
            np.concatenate([topic.order()[inside], topic.order()[request]]),
            np.concatenate([topic.event_time[inside], rows.t[asked]]),
            np.concatenate([topic.available_at[inside], rows.available_at[asked] - lag]),
        )
    )
    is_event = merged < len(inside)
    events_before = np.empty(len(merged), np.int64)
    events_before[merged] = np.cumsum(is_event)
    count = events_before[len(inside) :]
    block = np.searchsorted(topic.available_at[inside], rows.available_at[asked] - lag, side="left")
    thresholds[asked] = before + count - block
    # A prefix by offset too, if none of its events lies behind its end.
    furthest = np.maximum.accumulate(np.concatenate([[-1], inside - start]))
    ragged[asked] = (count > block) & (furthest[count] >= thresholds[asked])
    return thresholds, ragged


def _known_now(events: Events, topics: Sequence[str], rows: Rows) -> Group:
    """Everything; of the request's own topic what is before it by (event_time, available_at, order key). Events after t
    are never read (SEMANTICS 2.5), so they may be there."""
    components = []
    for name in topics:
        topic = events.topic(name)
        thresholds = np.full(len(rows), len(topic), np.int64)
        if rows.topic is not topic:
            components.append(Component(topic=name, rows=(0, len(topic)), thresholds=thresholds))
            continue
        order = topic.by_time()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        logged = rows.row >= 0
        thresholds[logged] = rank[rows.row[logged]]
        components.append(Component(topic=name, rows=order, thresholds=thresholds))
    return Group(queries=np.arange(len(rows)), components=tuple(components))
