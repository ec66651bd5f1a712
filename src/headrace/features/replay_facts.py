"""Label facts and live truths in a replay: which updates follow from which, and where in a pass they belong. Pure.

Facts are few beside origins: origins are found by a join over columns, then each origin that has facts is worked out in
Python by `facts.py`, the same code that the online state uses. An update takes effect where both its fact and its
origin are visible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import Physical, batch_to_rows, physical_list
from headrace.core.columns import evaluate_columns
from headrace.core.expr import Expr, references
from headrace.core.kernel.program import Words
from headrace.features.facts import FactJoin, FactRule, Id, Known, OriginFacts, updates
from headrace.features.facts import Order as FactOrder
from headrace.features.replay_cuts import Component
from headrace.features.replay_log import Events, TopicRows
from headrace.features.replay_order import Keys, Order, before
from headrace.features.source import SourcePlan

Places = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Facts:
    """All facts of one rule. rows: of the fact's topic. origin: what each names, as a code among the source's named
    ids."""

    rule: FactRule
    topic: TopicRows
    rows: Words
    origin: npt.NDArray[np.int64]
    orders: list[FactOrder]
    values: list[Physical]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceFacts:
    """The facts of all labels and late columns that one source reads. ids: every origin id that a fact names."""

    facts: tuple[Facts, ...]
    ids: pa.Array

    def codes(self, ids: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
        """The code of each id, -1 where no fact names it."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        flat = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        found = pc.index_in(flat, value_set=self.ids, skip_nulls=True)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        codes: npt.NDArray[np.int64] = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return codes


def source_facts(source: SourcePlan, events: Events, *, late: bool) -> SourceFacts | None:
    """What the log holds of a source's labels and live truths; None where it reads none. late: LATE facts count too."""
    rules = [FactRule.of_label(label) for label in source.labels]
    rules += [FactRule.of_late(source.topic, name) for name in source.late]
    if not rules:
        return None
    found = []
    for rule in rules:
        if rule.topic in events and rule.on:
            topic = events.topic(rule.topic)
            visible = topic.visible(late=late)
            named = topic.table.column(rule.on).is_valid().to_numpy()
            rows = np.flatnonzero(named if visible is None else named & visible).astype(np.int64)
            found.append((rule, topic, rows))
    named_by = [topic.table.column(rule.on).take(pa.array(rows)) for rule, topic, rows in found]
    chunks = [chunk for column in named_by for chunk in column.chunks]
    ids = pa.chunked_array(chunks).unique() if chunks else pa.array([], pa.int64())
    facts = []
    for (rule, topic, rows), column in zip(found, named_by, strict=True):
        codes = pc.index_in(column, value_set=ids)
        codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
        facts.append(
            Facts(
                rule=rule,
                topic=topic,
                rows=rows,
                origin=codes.to_numpy(zero_copy_only=False).astype(np.int64),
                orders=_orders(topic, rows),
                values=fact_values(rule.value, topic, rows),
            )
        )
    return SourceFacts(facts=tuple(facts), ids=ids)


def _orders(topic: TopicRows, rows: Words) -> list[FactOrder]:
    ids: Sequence[Physical] = [0] * len(rows)
    if topic.topic.id is not None:
        ids = topic.table.column(topic.topic.id).take(pa.array(rows)).to_pylist()
    index = np.array([p.index for p in topic.partitions], np.int64)[topic.partition_of(rows)]
    return list(zip(ids, index.tolist(), topic.offset[rows].tolist(), strict=True))  # type: ignore[arg-type]  # an id is an int64 or a string


def fact_values(value: Expr | None, topic: TopicRows, rows: Words) -> list[Physical]:
    """What each fact says: its value, or True where its being there says it."""
    if value is None:
        return [True] * len(rows)
    columns = {r.path: topic.table.column(r.name).take(pa.array(rows)) for r in references(value)}
    return physical_list(evaluate_columns(value, columns, rows=len(rows)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origins:
    """Entries that passes insert, or requests that queries overlay: where they stand and what they are.

    code: of the id, as of SourceFacts.codes. chain, place: as of replay_order; of a request its own place. row: of the
    source's topic; table, where given, holds the rows instead (hypothetical requests), `row` then counts in it.
    """

    code: npt.NDArray[np.int64]
    chain: Keys
    place: Words
    row: Words
    time: Words
    imported: Mask
    table: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRow:
    """One UPDATE of origin number `origin`, before sorted query `before`. words: as Items.values wants them."""

    origin: int
    before: int
    words: tuple[int, int, int, int]


def update_rows(
    source: SourcePlan,
    facts: SourceFacts,
    order: Order,
    components: Sequence[Component],
    origins: Origins,
    base: Callable[[int], tuple[int, Sequence[int]]],
    excluded: Callable[[TopicRows, Words, Keys], Mask] | None = None,
) -> Iterator[UpdateRow]:
    """Every update that facts bring to these entries. base: what entry i was inserted with.

    excluded: facts that a chain must not see, by the fact's topic, row and chain.
    """
    queries = len(order.places)
    times = [fact.topic.event_time[fact.rows].tolist() for fact in facts.facts]
    id_place = _id_place(source)
    for i, row, arrivals in _with_facts(source, facts, order, components, origins, excluded):
        time, imported = int(origins.time[i]), _imported(source, row, bool(origins.imported[i]))
        joins = {each.rule.name: FactJoin(each.rule) for each in facts.facts}
        for name in imported:
            joins.setdefault(name, FactJoin(FactRule.of_late(source.topic, name)))
        known = OriginFacts(list(joins.values()))
        origin = _origin_id(row, id_place)
        stood = int(origins.place[i])
        places = sorted({max(place, stood) for place, _, _ in arrivals})
        taken = 0
        # Imported truths are told by updates of their own; of a live row nothing is known before its first fact.
        told = known.steps(origin, time, imported) if imported else []
        for place in places:
            if place >= queries:
                break
            while taken < len(arrivals) and arrivals[taken][0] <= place:
                _, which, number = arrivals[taken]
                fact = facts.facts[which]
                joins[fact.rule.name].fact(origin, times[which][number], fact.orders[number], fact.values[number])
                taken += 1
            steps = known.steps(origin, time, imported)
            for one in updates(source.history, base(i), told, steps, partial(source.columns_row, row)):
                words = (one.column, one.known_from, one.value, int(one.valid) | (2 if one.reset else 0))
                yield UpdateRow(origin=i, before=place, words=words)
            told = steps


def known_of_requests(
    source: SourcePlan,
    facts: SourceFacts,
    order: Order,
    components: Sequence[Component],
    requests: Origins,
    excluded: Callable[[TopicRows, Words, Keys], Mask] | None = None,
) -> Iterator[tuple[int, tuple[int, list[int]]]]:
    """(i, words) of the requests of which something is known by facts at their own t. place: of each, its query's."""
    id_place = _id_place(source)
    for i, row, arrivals in _with_facts(source, facts, order, components, requests, excluded):
        visible = [(which, number) for place, which, number in arrivals if place <= int(requests.place[i])]
        if not visible:
            continue
        joins = {each.rule.name: FactJoin(each.rule) for each in facts.facts}
        imported = _imported(source, row, bool(requests.imported[i]))
        for name in imported:
            joins.setdefault(name, FactJoin(FactRule.of_late(source.topic, name)))
        origin, time = _origin_id(row, id_place), int(requests.time[i])
        for which, number in visible:
            fact = facts.facts[which]
            at = int(fact.topic.event_time[fact.rows[number]])
            joins[fact.rule.name].fact(origin, at, fact.orders[number], fact.values[number])
        known = OriginFacts(list(joins.values())).known(origin, time, time, imported)
        if known:
            yield i, source.columns_row(row, known)


Arrival = tuple[int, int, int]  # before which sorted query, which rule, which of its facts


def _with_facts(
    source: SourcePlan,
    facts: SourceFacts,
    order: Order,
    components: Sequence[Component],
    origins: Origins,
    excluded: Callable[[TopicRows, Words, Keys], Mask] | None,
) -> Iterator[tuple[int, tuple[Physical, ...], list[Arrival]]]:
    """(number, physical row, arrivals in order) of each origin that some visible fact names."""
    named = np.flatnonzero(origins.code >= 0)
    if not len(named):
        return
    pairs: dict[int, list[Arrival]] = {}
    for which, fact in enumerate(facts.facts):
        by_origin = np.argsort(fact.origin, kind="stable")
        codes = fact.origin[by_origin]
        first = np.searchsorted(codes, origins.code[named], side="left")
        count = np.searchsorted(codes, origins.code[named], side="right") - first
        each = np.repeat(np.arange(len(named)), count)
        number = by_origin[first[each] + np.arange(len(each)) - (np.cumsum(count) - count)[each]]
        chain = origins.chain[named[each]]
        places = _places(fact, order, components, chain, number)
        seen = places < len(order.places)
        if excluded is not None:
            seen &= ~excluded(fact.topic, fact.rows[number], chain)
        for i, place, n in zip(named[each[seen]].tolist(), places[seen].tolist(), number[seen].tolist(), strict=True):
            pairs.setdefault(i, []).append((place, which, n))
    if not pairs:
        return
    wanted = sorted(pairs)
    rows = batch_to_rows(source.topic.schema, _batch(origins.table.take(pa.array(origins.row[wanted]))))
    for i, row in zip(wanted, rows, strict=True):
        yield i, row, sorted(pairs[i])


def _places(fact: Facts, order: Order, components: Sequence[Component], chain: Keys, number: Places) -> Words:
    """Before which sorted query of its chain each (chain, fact) pair becomes visible."""
    rows = fact.rows[number]
    places = np.full(len(rows), len(order.places), np.int64)
    for component in components:
        if component.topic != fact.topic.topic.name:
            continue
        inside, numbers = numbers_in(component, rows, len(fact.topic))
        places[inside] = before(order, component.thresholds, chain[inside], numbers)
    return places


def numbers_in(component: Component, rows: Words, size: int) -> tuple[Places, Words]:
    """(which of the rows lie in the component, their numbers in it). size: rows of the topic."""
    if isinstance(component.rows, tuple):
        start, end = component.rows
        inside = np.flatnonzero((rows >= start) & (rows < end))
        return inside, rows[inside] - start
    number = np.full(size, -1, np.int64)
    number[component.rows] = np.arange(len(component.rows))
    inside = np.flatnonzero(number[rows] >= 0)
    return inside, number[rows[inside]]


def _imported(source: SourcePlan, row: tuple[Physical, ...], is_import: bool) -> Known:
    """The truths that an imported row brings along; a null is none (SEMANTICS 4.1)."""
    if not is_import:
        return {}
    names = source.topic.schema.names
    values = {name: row[names.index(name)] for name in source.late}
    return {name: value for name, value in values.items() if value is not None}


def _id_place(source: SourcePlan) -> int:
    """Where a row of the source's topic holds its id."""
    assert source.topic.id is not None, "only a topic with an id has facts"
    return source.topic.schema.names.index(source.topic.id)


def _origin_id(row: tuple[Physical, ...], place: int) -> Id:
    origin = row[place]
    assert isinstance(origin, (int, str))
    return origin


def _batch(table: pa.Table) -> pa.RecordBatch:
    combined = table.combine_chunks()
    batches = combined.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
