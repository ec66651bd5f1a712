"""A view's events and queries as kernel items: who is asked, which events are theirs, in which order they take effect. Pure.

The one idea: columns first, order last. Everything a pass needs of an event is computed once for the topic, in columns;
passes only say in which order rows are taken, so a log that replays itself is taken as it stands, without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import instants
from headrace.core.kernel.program import P_ORDER, Flag, Items, Words
from headrace.features.plan import ViewPlan
from headrace.features.replay_cuts import Group, Kind, groups
from headrace.features.replay_facts import (
    Origins,
    SourceFacts,
    known_of_requests,
    numbers_in,
    source_facts,
    update_rows,
)
from headrace.features.replay_keys import Column, entity_codes
from headrace.features.replay_log import Events, TopicRows, id_order
from headrace.features.replay_order import Keys, Order, ordered, placed
from headrace.features.replay_rows import Rows, entity_types
from headrace.features.source import SourcePlan
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, VERDICT

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

_NOWHERE = ((1 << 16) - 1) << 42 | (1 << 42) - 1  # the place of a request that is in no log: behind all that are
_INSERT, _UPDATE, _QUERY = range(3)  # what comes first among what stands before the same query
_ASKED = int(Flag.QUERY)
_REQUEST = int(Flag.QUERY | Flag.OVERLAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Items of one group, and how many keys they have. out: rows of the caller."""

    items: Items
    keys: int


@dataclass(slots=True, kw_only=True, eq=False)
class _Base:
    """What is needed of one source's events, a row each: those that passes insert (`event`) and those that are asked as
    requests; of the request's own source the hypothetical requests behind them. row: of the topic, -1 of those."""

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
    table: pa.Table  # the rows' fields, for facts
    ids: Column | None


class ViewItems:
    """The items of one view for some rows. Made once; `passes` gives them group by group."""

    def __init__(self, plan: ViewPlan, events: Events, rows: Rows, kind: Kind) -> None:
        self._plan = plan
        self._events = events
        self._rows = rows
        self._kind = kind
        self._late = kind is Kind.KNOWN_NOW
        self._own: _Base | None = None
        self._place: Words = np.zeros(0, np.int64)  # of each request in the own source's base
        self._facts = [source_facts(source, events, late=self._late) for source in plan.sources]
        self._make()

    def passes(self) -> list[Pass]:
        topics = [source.topic.name for source in self._plan.sources]
        for facts in self._facts:
            topics += [] if facts is None else [each.topic.topic.name for each in facts.facts]
        lag = self._plan.view.lag.micros
        present = [name for name in dict.fromkeys(topics) if name in self._events]
        return [self._pass(group) for group in groups(self._events, present, self._rows, self._kind, lag)]

    # --- columns ---

    def _make(self) -> None:
        plan, rows = self._plan, self._rows
        topics = [self._events.topic(s.topic.name) if s.topic.name in self._events else None for s in plan.sources]
        own = next((i for i, t in enumerate(topics) if t is not None and t is rows.topic), None)
        held = [
            _no_entities(plan) if topic is None else [*source.entity_parts(topic.table)]
            for source, topic in zip(plan.sources, topics, strict=True)
        ]
        asked = self._asked(own, held)
        self._key, codes, self._count = entity_codes(asked, held)
        self._bases = []
        for i, (source, topic) in enumerate(zip(plan.sources, topics, strict=True)):
            if topic is not None:
                base = self._base(source, topic, codes[i], own=i == own)
                self._bases.append(base)
                if i == own:
                    self._own = base
        self._set_orders()

    def _asked(self, own: int | None, held: Sequence[Sequence[Column]]) -> list[Column]:
        """The entity of each row: a request of one of the view's sources names it as its source does, others by name."""
        rows, plan = self._rows, self._plan
        if own is None:
            return rows.entities(plan.view, entity_types(plan.view))
        if len(rows.row) == len(self._events.topic(plan.sources[own].topic.name)) and bool((rows.row >= 0).all()):
            if bool((rows.row == np.arange(len(rows.row))).all()):
                return list(held[own])
        logged = rows.row >= 0
        of_log = [part.take(pa.array(np.maximum(rows.row, 0))) if logged.any() else None for part in held[own]]
        if logged.all():
            return [part for part in of_log if part is not None]
        assert rows.table is not None
        of_request = plan.sources[own].entity_parts(rows.table)
        by_name: list[Column] = of_request
        if not rows.request.all():
            by_name = list(rows.entities(plan.view, entity_types(plan.view)))
        found = []
        for log, request, name in zip(of_log, of_request, by_name, strict=True):
            column = pc.if_else(pa.array(rows.request), request, name)
            found.append(column if log is None else pc.if_else(pa.array(logged), log, column))
        return found

    def _base(self, source: SourcePlan, topic: TopicRows, key: Keys, *, own: bool) -> _Base:
        rows = self._rows
        event = key >= 0
        visible = topic.visible(late=self._late)
        if visible is not None:
            event &= visible
        needed = event
        if own:
            needed = event.copy()
            needed[rows.row[rows.row >= 0]] = True
        whole = bool(needed.all())
        row = np.arange(len(topic), dtype=np.int64) if whole else np.flatnonzero(needed).astype(np.int64)
        names = sorted(source.fields | {topic.topic.id} if topic.topic.id else source.fields)
        table = topic.table if whole else topic.table.select(names).take(pa.array(row))
        hypothetical = np.flatnonzero(rows.request & (rows.row < 0)) if own else np.zeros(0, np.int64)
        count = len(row) + len(hypothetical)
        values = np.zeros((self._plan.program.value_rows, count), np.int64)
        known = self._imported(source, topic, table, row)
        valid, _ = source.columns(table, known, out=values[:, : len(row)])
        base = _Base(
            plan=source,
            topic=topic,
            row=row,
            event=None if whole and event.all() else event[row],
            key=key if whole else key[row],
            time=topic.event_time if whole else topic.event_time[row],
            order=np.zeros(0, np.int64),
            seq=topic.sequence(None if whole else row, source.index),
            valid=valid,
            values=values,
            table=table,
            ids=None if topic.topic.id is None else table.column(topic.topic.id),
        )
        if own:
            self._place = rows.row if whole else np.searchsorted(row, rows.row)
            if len(hypothetical):
                self._place = self._place.copy()
                self._place[hypothetical] = len(row) + np.arange(len(hypothetical))
                self._append(base, hypothetical)
        return base

    def _append(self, base: _Base, hypothetical: Places) -> None:
        """The hypothetical requests behind the events of their topic."""
        rows, count = self._rows, len(base.row)
        assert rows.table is not None
        asked = rows.table.take(pa.array(hypothetical))
        valid, _ = base.plan.columns(asked, {}, out=base.values[:, count:])
        more = len(hypothetical)
        event = np.ones(count, np.bool_) if base.event is None else base.event
        base.event = np.concatenate([event, np.zeros(more, np.bool_)])
        base.row = np.concatenate([base.row, np.full(more, -1, np.int64)])
        base.key = np.concatenate([base.key, self._key[hypothetical]])
        base.time = np.concatenate([base.time, rows.t[hypothetical]])
        base.seq = np.concatenate([base.seq, np.full(more, base.plan.index << 58 | _NOWHERE, np.int64)])
        base.valid = np.concatenate([base.valid, valid])
        fields = [f for f in base.table.schema if f.name in base.topic.topic.schema]
        columns = []
        for field in fields:
            column = base.table.column(field.name)
            other = pa.nulls(more, field.type) if field.name not in asked.column_names else asked.column(field.name)
            columns.append(pa.chunked_array([*column.chunks, *_chunks(other)], field.type))
        base.table = pa.table(columns, names=[f.name for f in fields])
        if base.ids is not None:
            base.ids = base.table.column(base.topic.topic.id)

    def _imported(self, source: SourcePlan, topic: TopicRows, table: pa.Table, row: Words) -> dict[str, pa.Array]:
        """What imported rows say of late columns; only a window that waits D reads these columns, so it may stand in the
        entry from the beginning. Live rows say nothing."""
        found = {}
        for name in source.late:
            column = table.column(name)
            inside = topic.imported[row]
            found[name] = column if inside.all() else pc.if_else(pa.array(inside), column, pa.scalar(None, column.type))
        return found

    def _set_orders(self) -> None:
        if int(self._plan.program.code[P_ORDER]) < 0:
            for base in self._bases:
                base.order = np.zeros(len(base.time), np.int64)
            return
        orders = id_order([base.time for base in self._bases], [base.ids for base in self._bases])
        for base, order in zip(self._bases, orders, strict=True):
            base.order = order

    # --- order ---

    def _pass(self, group: Group) -> Pass:
        """One group's items."""
        raise AssertionError
