"""The rows of a replay as a view over a derived topic is asked them (SEMANTICS 1.6, 5.1). Pure.

The one idea: a derived event is its source's event, so what a row sees without a record is what the same view over the
source would see; only a recorded cut is of the derived topic. There a request is its own derived event: where that lies
below the cut it is left out, as of any request that was decided at a second try.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.kernel.program import Words
from headrace.core.points import Partition
from headrace.features.replay_cuts import Kind
from headrace.features.replay_log import Events, TopicRows
from headrace.features.replay_rows import Rows
from headrace.log.define import Topic
from headrace.log.port import (
    OFFSET,
    SOURCE_COLUMNS,
    SOURCE_INCARNATION,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SYSTEM_COLUMNS,
)

# A partition of rows that lie in no derived partition yet: no cut holds it, so nothing sees them. Behind all imports.
NOT_CARRIED = (1 << 16) - 2


class Asked(NamedTuple):
    """Some of the rows, and what they are asked of. places: theirs among all."""

    places: npt.NDArray[np.intp]
    events: Events
    rows: Rows


def asked_of_derived(derived: Topic, events: Events, rows: Rows, kind: Kind) -> list[Asked]:
    """The rows in up to two parts: those with a recorded cut of the derived topic, and the others."""
    assert derived.derivation is not None, "derived"
    recorded = np.zeros(len(rows), np.bool_)
    if kind is Kind.SERVED and rows.cuts is not None and derived.name in rows.cuts.mentions:
        recorded = rows.cuts.mentions[derived.name]
    found = []
    if not recorded.all():
        places = np.flatnonzero(~recorded)
        of = derived.derivation.of
        on_source = events.standing(derived.name, events.topic(of)) if of in events else Events([], {})
        found.append(Asked(places, on_source, rows.take(places).with_cuts(None)))
    if recorded.any():
        places = np.flatnonzero(recorded)
        found.append(Asked(places, *_on_derived(derived.name, events, rows.take(places))))
    return found


def _on_derived(name: str, events: Events, rows: Rows) -> tuple[Events, Rows]:
    """The derived topic as it is, and its source's requests as rows of it."""
    held = events.topic(name)
    derivation = held.topic.derivation
    assert derivation is not None, "derived"
    if rows.topic is None or rows.topic.topic.name != derivation.of:
        return events.standing(name, held), rows
    logged = np.flatnonzero(rows.row >= 0)
    place, carried = _places(held, rows.topic, rows.row[logged])
    missing = logged[~carried]
    if len(missing):
        ends = len(held)
        held = _with(held, rows.topic, np.unique(rows.row[missing]))
        place[~carried] = ends + np.searchsorted(np.unique(rows.row[missing]), rows.row[missing])
    row = rows.row.copy()
    row[logged] = place
    moved = Rows(
        t=rows.t,
        available_at=rows.available_at,
        topic=held,
        row=row,
        request=rows.request,
        table=rows.table,
        cuts=rows.cuts,
    )
    return events.standing(name, held), moved


def _places(held: TopicRows, source: TopicRows, row: Words) -> tuple[Words, npt.NDArray[np.bool_]]:
    """The derived row of each of the source's rows, and whether there is one."""
    index = np.array([p.index for p in source.partitions], np.int64)[source.partition_of(row)]
    wanted = index << 42 | source.offset[row]
    there = held.sequence(None, 0)
    order = np.argsort(there, kind="stable")
    found = np.minimum(np.searchsorted(there[order], wanted), max(len(order) - 1, 0))
    if not len(order):
        return np.zeros(len(row), np.int64), np.zeros(len(row), np.bool_)
    return order[found].astype(np.int64), there[order[found]] == wanted


def _with(held: TopicRows, source: TopicRows, row: Words) -> TopicRows:
    """The derived topic with more of the source's rows, which nothing sees. row: ascending."""
    tables = {
        partition: held.table.slice(int(start), int(end - start))
        for partition, start, end in zip(held.partitions, held.starts[:-1], held.starts[1:], strict=True)
    }
    names = [*(f.name for f in SYSTEM_COLUMNS), *(n for n in held.topic.schema.names if n in source.topic.schema)]
    more = source.table.select(names).take(pa.array(row))
    partitions = [source.partitions[place] for place in source.partition_of(row)]
    said = {
        SOURCE_INCARNATION: pa.array([p.incarnation for p in partitions], pa.int32()),
        SOURCE_PARTITION: pa.array([p.index for p in partitions], pa.int32()),
        SOURCE_OFFSET: more.column(OFFSET),
    }
    for field in SOURCE_COLUMNS:
        more = more.append_column(field.name, said[field.name])
    more = more.set_column(0, OFFSET, pa.array(np.arange(len(row), dtype=np.int64)))
    incarnation = held.partitions[0].incarnation if held.partitions else 1
    return TopicRows(held.topic, {**tables, Partition(held.topic.name, incarnation, NOT_CARRIED): more})
