"""What a view needs of the rows of a replay, in columns: whose they are, when, and the kernel's words. Pure.

The one idea: columns first, order last. Everything a pass needs of an event is computed once for the topic; passes only
say in which order rows are taken, so a log that replays itself is taken as it stands, without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.kernel.program import P_ORDER, Words
from headrace.features.plan import ViewPlan
from headrace.features.replay_keys import Keys, entity_codes
from headrace.features.replay_log import Events, TopicRows, id_order
from headrace.features.replay_rows import Rows, entity_types
from headrace.features.source import SourcePlan

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

NOWHERE = ((1 << 16) - 1) << 42 | (1 << 42) - 1  # the place of a request that is in no log: behind all that are


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Later:
    """What imported truths say from `after` microseconds behind their event on, in columns that read them so_far."""

    after: int
    valid: Words
    values: Words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceRows:
    """One source's rows: events that passes insert (`event`; None: all are) and requests that are asked, in the topic's
    order; of the request's own source the hypothetical requests behind them.

    row: of the topic, -1 of hypothetical ones. key: of the entity, -1 where nobody asks for it. values:
    Items.value_rows high. imported: rows of imports, None where nothing asks. later: ascending. table: the fields that
    are read, and the id.
    """

    plan: SourcePlan
    topic: TopicRows
    row: Words
    event: Mask | None
    key: Keys
    time: Words
    order: Words
    seq: Words
    valid: Words
    values: Words
    imported: Mask | None
    later: tuple[Later, ...]
    table: pa.Table

    @property
    def logged(self) -> int:
        """How many rows are the topic's; hypothetical ones stand behind."""
        return int(np.count_nonzero(self.row >= 0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewRows:
    """Of each source that the log has. key: the entity code of each asked row, -1 where it has none. keys: how many
    codes. own: the request's source; place: each asked row's place in it (of plain reads anything)."""

    sources: tuple[SourceRows, ...]
    key: Keys
    keys: int
    own: SourceRows | None
    place: Words


def view_rows(plan: ViewPlan, events: Events, rows: Rows, *, late: bool) -> ViewRows:
    """late: rows marked LATE are events too (*known now*)."""
    present = [s for s in plan.sources if s.topic.name in events]
    topics = [events.topic(s.topic.name) for s in present]
    own = next((i for i, topic in enumerate(topics) if topic is rows.topic), None)
    held = [source.entity_parts(topic.table) for source, topic in zip(present, topics, strict=True)]
    asked = (
        rows.entities(plan.view, entity_types(plan.view))
        if own is None
        else _asked(plan, rows, present[own], held[own])
    )
    key, codes, count = entity_codes(asked, held)
    hypothetical = np.flatnonzero(rows.request & (rows.row < 0))
    found = [
        _Found.of(source, topic, codes[i], rows if i == own else None, hypothetical, key, late)
        for i, (source, topic) in enumerate(zip(present, topics, strict=True))
    ]
    if int(plan.program.code[P_ORDER]) < 0:
        orders = [np.zeros(len(one.row), np.int64) for one in found]
    else:
        orders = id_order([one.time for one in found], [one.ids for one in found])
    sources = tuple(_source_rows(plan, one, order) for one, order in zip(found, orders, strict=True))
    place = rows.row
    if own is not None:
        logged = sources[own].logged
        place = rows.row if logged == len(topics[own]) else np.searchsorted(sources[own].row[:logged], rows.row)
        if len(hypothetical):
            place = place.copy()
            place[hypothetical] = logged + np.arange(len(hypothetical))
    return ViewRows(sources=sources, key=key, keys=count, own=None if own is None else sources[own], place=place)


def _asked(
    plan: ViewPlan, rows: Rows, source: SourcePlan, held: Sequence[pa.Array | pa.ChunkedArray]
) -> list[pa.Array | pa.ChunkedArray]:
    """The entity of each row: a request names it as its source does, a plain read by the entity's name."""
    logged = rows.row >= 0
    if logged.all():
        same = rows.topic is not None and len(rows) == len(rows.topic) and bool((np.diff(rows.row) == 1).all())
        return list(held) if same else [part.take(pa.array(rows.row)) for part in held]
    assert rows.table is not None
    parts: Sequence[pa.Array | pa.ChunkedArray] = source.entity_parts(rows.table) if rows.request.any() else []
    if not rows.request.all():
        named = rows.entities(plan.view, entity_types(plan.view))
        parts = (
            [pc.if_else(pa.array(rows.request), a, b) for a, b in zip(parts, named, strict=True)] if parts else named
        )
    if not logged.any():
        return list(parts)
    of_log = [part.take(pa.array(np.where(logged, rows.row, 0))) for part in held]
    return [pc.if_else(pa.array(logged), a, b) for a, b in zip(of_log, parts, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """A source's rows before their words are computed; fields as of SourceRows."""

    plan: SourcePlan
    topic: TopicRows
    row: Words
    event: Mask
    key: Keys
    time: Words
    seq: Words
    table: pa.Table

    @property
    def ids(self) -> pa.ChunkedArray | None:
        id = self.topic.topic.id
        return None if id is None else self.table.column(id)

    @classmethod
    def of(
        cls,
        source: SourcePlan,
        topic: TopicRows,
        key: Keys,
        rows: Rows | None,
        hypothetical: Places,
        asked: Keys,
        late: bool,
    ) -> _Found:
        """rows: where the topic is the requests' own."""
        event = key >= 0
        visible = topic.visible(late=late)
        if visible is not None:
            event &= visible
        wanted = event
        if rows is not None:
            wanted = event.copy()
            wanted[rows.row[rows.row >= 0]] = True
        names = sorted(source.fields | ({topic.topic.id} if topic.topic.id else set()))
        table, whole = topic.table.select(names), bool(wanted.all())
        row = np.arange(len(topic), dtype=np.int64) if whole else np.flatnonzero(wanted).astype(np.int64)
        found = cls(
            plan=source,
            topic=topic,
            row=row,
            event=event if whole else event[row],
            key=key if whole else key[row],
            time=topic.event_time if whole else topic.event_time[row],
            seq=topic.sequence(None if whole else row, source.index),
            table=table if whole else table.take(pa.array(row)),
        )
        return found if rows is None or not len(hypothetical) else found._with(rows, hypothetical, asked)

    def _with(self, rows: Rows, hypothetical: Places, asked: Keys) -> _Found:
        """The hypothetical requests behind the events of their topic."""
        assert rows.table is not None
        more = len(hypothetical)
        given = rows.table.take(pa.array(hypothetical))
        columns = []
        for field in self.table.schema:
            other = pa.nulls(more, field.type)
            if field.name in given.column_names and field.name not in self.plan.late:
                other = given.column(field.name)
            chunks = other.chunks if isinstance(other, pa.ChunkedArray) else [other]
            columns.append(pa.chunked_array([*self.table.column(field.name).chunks, *chunks], field.type))
        return _Found(
            plan=self.plan,
            topic=self.topic,
            row=np.concatenate([self.row, np.full(more, -1, np.int64)]),
            event=np.concatenate([self.event, np.zeros(more, np.bool_)]),
            key=np.concatenate([self.key, asked[hypothetical]]),
            time=np.concatenate([self.time, rows.t[hypothetical]]),
            seq=np.concatenate([self.seq, np.full(more, self.plan.index << 58 | NOWHERE, np.int64)]),
            table=pa.table(columns, names=self.table.column_names),
        )


def _source_rows(plan: ViewPlan, found: _Found, order: Words) -> SourceRows:
    source = found.plan
    values = np.zeros((plan.program.value_rows, len(found.row)), np.int64)
    imported = None
    later: tuple[Later, ...] = ()
    known: dict[str, pa.Array] = {}
    if source.late:
        imported = np.zeros(len(found.row), np.bool_)
        logged = found.row >= 0
        imported[logged] = found.topic.imported[found.row[logged]]
        known = {name: _masked(found.table.column(name), imported) for name in source.late}
    valid, _ = source.columns(found.table, known, out=values)
    if source.so_far and any(column.null_count < len(column) for column in known.values()):
        later = _later(source, found.table, known, valid, values)
    return SourceRows(
        plan=source,
        topic=found.topic,
        row=found.row,
        event=None if found.event.all() else found.event,
        key=found.key,
        time=found.time,
        order=order,
        seq=found.seq,
        valid=valid,
        values=values,
        imported=imported,
        later=later,
        table=found.table,
    )


def _masked(column: pa.ChunkedArray, inside: Mask) -> pa.ChunkedArray:
    """The column where `inside`, else null: a live row says nothing of a late column."""
    return column if inside.all() else pc.if_else(pa.array(inside), column, pa.scalar(None, column.type))


def _later(
    source: SourcePlan, table: pa.Table, known: dict[str, pa.Array], valid: Words, values: Words
) -> tuple[Later, ...]:
    """How imported truths come to be known in columns that read them so_far; puts what is known at once into `valid`
    and `values`. The other columns are read by windows that wait, so they hold the truth from the beginning."""
    after = {name: source.topic[name].availability.after.micros for name in source.late}
    steps = []
    for instant in sorted({0, *after.values()}):
        some = {name: column for name, column in known.items() if after[name] <= instant}
        then_valid, then_values = source.columns(table, some)
        if instant == 0:
            mask = np.int64(sum(1 << c for c in source.so_far))
            valid[:] = (valid & ~mask) | (then_valid & mask)
            for c in source.so_far:
                values[c] = then_values[c]
        else:
            steps.append(Later(after=instant, valid=then_valid, values=then_values))
    return tuple(steps)
