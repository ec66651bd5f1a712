"""A view's events and queries as kernel items, in the order in which they take effect. Pure.

Each group of queries (replay_cuts.py) is one pass: its order says before which query an event becomes visible
(replay_order.py); an event that becomes visible right behind its own query is one item with it, so that a log that
replays itself is its own list of items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headrace.core.kernel.program import Flag, Items, Words
from headrace.features.plan import ViewPlan
from headrace.features.replay_base import SourceRows, ViewRows, view_rows
from headrace.features.replay_cuts import Component, Group, Kind, groups
from headrace.features.replay_facts import (
    Origins,
    SourceFacts,
    known_of_requests,
    numbers_in,
    source_facts,
    update_rows,
)
from headrace.features.replay_log import Events, TopicRows
from headrace.features.replay_order import Keys, Order, ordered, placed
from headrace.features.replay_rows import Rows

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

_NO_PLACES: Places = np.zeros(0, np.intp)
_NO_KEYS: Keys = np.zeros(0, np.int32)
_NO_WORDS: Words = np.zeros(0, np.int64)

# What comes first among what stands before the same query.
_INSERT, _UPDATE, _QUERY, _KINDS = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """Items of one group; keys: one more than the highest code. `out` counts the caller's rows."""

    items: Items
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Copies:
    """A source's events as one pass takes them: place in the base, chain, before which sorted query."""

    base: SourceRows
    event: Places
    chain: Keys
    before: Words

    def only(self, mask: Mask) -> _Copies:
        return _Copies(base=self.base, event=self.event[mask], chain=self.chain[mask], before=self.before[mask])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Updates:
    """UPDATE items: of which source and place in its base, chain, before which sorted query, four words each."""

    base: SourceRows
    event: Places
    chain: Keys
    before: Words
    words: Words


def passes(plan: ViewPlan, events: Events, rows: Rows, kind: Kind) -> Iterable[Pass]:
    """The items of all groups, one after another; rows without an entity are in none and stay EMPTY."""
    late = kind is Kind.KNOWN_NOW
    found = view_rows(plan, events, rows, late=late)
    facts = {id(base): source_facts(base.plan, events, late=late) for base in found.sources}
    topics = [base.topic.topic.name for base in found.sources]
    for of_source in facts.values():
        topics += [] if of_source is None else [each.topic.topic.name for each in of_source.facts]
    makers = [
        _PassMaker(plan, rows, found, facts, group)
        for group in groups(events, list(dict.fromkeys(topics)), rows, kind, plan.view.lag.micros)
    ]
    del found, facts  # with the last maker goes what is as large as the log: the kernel needs the room
    while makers:
        made = makers.pop(0).make()
        if made is not None:
            yield made
            del made


class _PassMaker:
    """One group's pass. Lives for one call."""

    def __init__(
        self, plan: ViewPlan, rows: Rows, found: ViewRows, facts: dict[int, SourceFacts | None], group: Group
    ) -> None:
        self._plan = plan
        self._rows = rows
        self._found = found
        self._facts = facts
        self._codes: dict[int, Words] = {}
        self._group = group
        key = found.key[group.queries]
        self._asked = np.flatnonzero(key >= 0)  # places in the group of queries that have an entity
        self._key = key if len(self._asked) == len(key) else key[self._asked]
        self._components = [self._of_asked(component) for component in group.components]

    def make(self) -> Pass | None:
        if not len(self._asked):
            return None
        thresholds = [component.thresholds for component in self._components]
        self._order = order = ordered(self._key, thresholds, count=self._found.keys, alone=self._group.alone)
        self._query = self._group.queries[self._asked[order.places]]  # the caller's row of each sorted query
        if self._replays_itself():
            queries = self._queries()
            event = self._found.sources[0].event
            queries.flags[slice(None) if event is None else event] |= int(Flag.INSERT)
            return Pass(items=_items(self._plan, queries, [], []), keys=max(self._found.keys, 1))
        copies = [self._copies(base) for base in self._found.sources]
        updates = [update for each in copies for update in self._updates(each)]
        queries = self._queries()
        copies = [self._joined(each, queries) for each in copies]
        keys = self._found.keys if order.whole else len(order.keys)
        return Pass(items=_items(self._plan, queries, copies, updates), keys=max(keys, 1))

    def _replays_itself(self) -> bool:
        """Whether the queries are all of one partition's rows that matter, each at its own offset, and nothing else is
        read: then every event belongs right behind its own query."""
        if len(self._found.sources) != 1 or len(self._components) != 1 or not self._order.whole or self._group.alone:
            return False
        (base,), (component,) = self._found.sources, self._components
        if base is not self._found.own or base.later or len(self._query) != len(base.row) or base.row[-1] < 0:
            return False
        rows = component.rows
        return (
            isinstance(rows, tuple)
            and np.array_equal(component.thresholds, base.row - rows[0])
            and np.array_equal(self._rows.row[self._query], base.row)
        )

    def _of_asked(self, component: Component) -> Component:
        if len(self._asked) == len(component.thresholds):
            return component
        return replace(component, thresholds=component.thresholds[self._asked])

    # --- events ---

    def _copies(self, base: SourceRows) -> _Copies:
        """Where this pass takes the source's events."""
        name, logged = base.topic.topic.name, base.logged
        event: list[Places] = []
        chain: list[Keys] = []
        before: list[Words] = []
        for component in self._components:
            if component.topic != name:
                continue
            inside, numbers = numbers_in(component, base.row[:logged], len(base.topic))
            kept = base.key[inside] >= 0
            if base.event is not None:
                kept &= base.event[inside]
            if not kept.all():
                inside, numbers = inside[kept], numbers[kept]
            found = placed(self._order, component.thresholds, numbers, base.key[inside])
            event.append(inside[found.event])
            chain.append(found.chain)
            before.append(found.before)
        made = _Copies(
            base=base,
            event=event[0] if len(event) == 1 else np.concatenate([_NO_PLACES, *event]),
            chain=chain[0] if len(chain) == 1 else np.concatenate([_NO_KEYS, *chain]),
            before=before[0] if len(before) == 1 else np.concatenate([_NO_WORDS, *before]),
        )
        if self._group.alone and base.topic is self._rows.topic:
            own = self._rows.row[self._query]  # chain numbers are sorted queries here
            return made.only(base.row[made.event] != own[made.chain])
        return made

    def _updates(self, copies: _Copies) -> Iterable[_Updates]:
        """What facts and imported truths change of the entries, later than their insertion."""
        base = copies.base
        if base.imported is not None and base.later:
            yield from _imported_updates(copies, base.imported)
        facts = self._facts[id(base)]
        if facts is None or not len(facts.ids):
            return
        code = self._named(base, facts)
        named = np.flatnonzero(code[copies.event] >= 0)
        event = copies.event[named]
        origins = self._origins(base, code, event, copies.chain[named], copies.before[named])

        def inserted(i: int) -> tuple[int, list[int]]:
            return int(base.valid[event[i]]), base.values[:, event[i]].tolist()

        args = (base.plan, facts, self._order, self._components, origins)
        found = list(update_rows(*args, inserted, self._excluded()))
        if found:
            origin = named[[one.origin for one in found]]
            yield _Updates(
                base=base,
                event=copies.event[origin],
                chain=copies.chain[origin],
                before=np.array([one.before for one in found], np.int64),
                words=np.array([one.words for one in found], np.int64).T,
            )

    def _named(self, base: SourceRows, facts: SourceFacts) -> Words:
        """The code of each row's id among those that facts name, -1 where none does."""
        if id(base) not in self._codes:
            self._codes[id(base)] = facts.codes(base.table.column(str(base.topic.topic.id)))
        return self._codes[id(base)]

    def _origins(self, base: SourceRows, code: Words, event: Places, chain: Keys, place: Words) -> Origins:
        imported = np.zeros(len(event), np.bool_) if base.imported is None else base.imported[event]
        return Origins(
            code=code[event],
            chain=chain,
            place=place,
            row=event.astype(np.int64),
            time=base.time[event],
            imported=imported,
            table=base.table,
        )

    def _excluded(self) -> Callable[[TopicRows, Words, Keys], Mask] | None:
        """A retried request is not among what it sees, as a fact neither."""
        if not self._group.alone:
            return None
        own = self._rows.row[self._query]

        def is_own(topic: TopicRows, rows: Words, chain: Keys) -> Mask:
            mask: Mask = rows == own[chain] if topic is self._rows.topic else np.zeros(len(rows), np.bool_)
            return mask

        return is_own

    # --- queries ---

    def _queries(self) -> _Queries:
        rows, query, own = self._rows, self._query, self._found.own
        if own is None:
            made = _Queries.plain(self._order, query, rows.t[query], self._plan.program.value_rows)
        else:
            made = _Queries.of_requests(self._order, query, rows, own, self._found.place)
            facts = self._facts[id(own)]
            if facts is not None and len(facts.ids):
                made = made.knowing(self._known(made, own, facts))
        bounds = self._plan.spans_bounds(made.time)
        columns = len(self._plan.program.columns)
        if len(bounds):
            made.values[columns : columns + len(bounds)] = bounds
        return made

    def _known(self, queries: _Queries, own: SourceRows, facts: SourceFacts) -> list[tuple[int, tuple[int, list[int]]]]:
        """(query, words) where facts say something of the request itself, at its own instant."""
        requests = np.flatnonzero(queries.request)
        code = self._named(own, facts)
        event = queries.event[requests]
        named = np.flatnonzero(code[event] >= 0)
        places = requests[named]
        origins = self._origins(own, code, event[named], self._order.chain[places], places)
        found = known_of_requests(own.plan, facts, self._order, self._components, origins, self._excluded())
        return [(int(places[i]), words) for i, words in found]

    def _joined(self, copies: _Copies, queries: _Queries) -> _Copies:
        """Without the events that become visible right behind their own query: those are one item with it."""
        if copies.base is not self._found.own:
            return copies
        at = np.full(len(copies.base.row), -1, np.int64)
        own = np.flatnonzero(queries.request & ~queries.changed)
        at[queries.event[own]] = own
        query = at[copies.event]
        joined = (query >= 0) & (copies.before == query + 1)
        joined[joined] = self._order.chain[query[joined]] == copies.chain[joined]
        queries.flags[query[joined]] |= int(Flag.INSERT)
        return copies.only(~joined)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Queries:
    """The sorted queries as items. request: which are requests of the view's own source; event: their places in its
    base, of others 0. changed: whose words are not those of the base."""

    key: Keys
    flags: npt.NDArray[np.uint8]
    time: Words
    order: Words
    seq: Words
    valid: Words
    values: Words
    out: Words
    request: Mask
    event: Words
    changed: Mask

    @classmethod
    def plain(cls, order: Order, query: Places, time: Words, value_rows: int) -> _Queries:
        n = len(query)
        nothing = np.zeros(n, np.int64)
        return cls(
            key=order.chain,
            flags=np.full(n, int(Flag.QUERY), np.uint8),
            time=time,
            order=nothing,
            seq=nothing,
            valid=nothing,
            values=np.zeros((value_rows, n), np.int64),
            out=query.astype(np.int64),
            request=np.zeros(n, np.bool_),
            event=nothing,
            changed=np.zeros(n, np.bool_),
        )

    @classmethod
    def of_requests(cls, order: Order, query: Places, rows: Rows, own: SourceRows, place: Words) -> _Queries:
        """place: of each of the caller's rows in the base, where it is a request."""
        request = rows.request[query]
        event = np.where(request, place[query], 0)
        as_it_stands = len(event) == len(own.row) and bool(request.all()) and _is_range(event)

        def taken(of_base: Words) -> Words:
            return of_base if as_it_stands else np.where(request, of_base[..., event], 0)

        return cls(
            key=order.chain,
            flags=np.where(request, int(Flag.QUERY | Flag.OVERLAY), int(Flag.QUERY)).astype(np.uint8),
            time=rows.t[query],
            order=taken(own.order),
            seq=taken(own.seq),
            valid=taken(own.valid),
            values=taken(own.values),
            out=query.astype(np.int64),
            request=request,
            event=event,
            changed=np.zeros(len(query), np.bool_),
        )

    def knowing(self, known: list[tuple[int, tuple[int, list[int]]]]) -> _Queries:
        """With the words of some requests as their facts have them."""
        if not known:
            return self
        made = replace(self, valid=self.valid.copy(), values=self.values.copy())
        for i, (valid, words) in known:
            made.valid[i] = valid
            made.values[: len(words), i] = words
            made.changed[i] = True
        return made


def _imported_updates(copies: _Copies, imported: Mask) -> Iterable[_Updates]:
    """What imported truths say later, in columns that read them so_far: an update where it changes something."""
    base = copies.base
    entries = np.flatnonzero(imported[copies.event])
    event = copies.event[entries]
    valid, values = base.valid[event], base.values[:, event]
    for later in base.later:
        then_valid, then_values = later.valid[event], later.values[:, event]
        for column in base.plan.so_far:
            there, then = (valid >> column) & 1, (then_valid >> column) & 1
            changed = np.flatnonzero((there != then) | ((then == 1) & (values[column] != then_values[column])))
            words = np.stack(
                [
                    np.full(len(changed), column, np.int64),
                    base.time[event[changed]] + later.after,
                    then_values[column][changed],
                    then[changed],
                ]
            )
            entry = entries[changed]
            yield _Updates(
                base=base, event=event[changed], chain=copies.chain[entry], before=copies.before[entry], words=words
            )
        valid, values = then_valid, then_values


def _items(plan: ViewPlan, queries: _Queries, copies: list[_Copies], updates: list[_Updates]) -> Items:
    """Everything in the order in which it takes effect."""
    inserts = sum(len(each.event) for each in copies)
    changes = sum(len(each.event) for each in updates)
    if not inserts and not changes:
        return Items(
            key=queries.key,
            flags=queries.flags,
            time=queries.time,
            order=queries.order,
            seq=queries.seq,
            valid=queries.valid,
            values=queries.values,
            out=queries.out,
        )
    stands = [each.before * _KINDS + _INSERT for each in copies]
    stands += [each.before * _KINDS + _UPDATE for each in updates]
    stands.append(np.arange(len(queries.key), dtype=np.int64) * _KINDS + _QUERY)
    order = np.argsort(np.concatenate(stands), kind="stable")

    rows = plan.program.value_rows
    flags = [np.full(inserts, int(Flag.INSERT), np.uint8), np.full(changes, int(Flag.UPDATE), np.uint8), queries.flags]
    values = np.empty((rows, len(order)), np.int64)
    for row in range(rows):
        parts = [each.base.values[row][each.event] for each in copies]
        parts += [each.words[row] if row < len(each.words) else np.zeros(len(each.event), np.int64) for each in updates]
        np.take(np.concatenate([*parts, queries.values[row]]), order, out=values[row])
    entries: list[_Copies | _Updates] = [*copies, *updates]
    valid = [*(each.base.valid[each.event] for each in copies), np.zeros(changes, np.int64), queries.valid]
    return Items(
        key=np.concatenate([*(each.chain for each in entries), queries.key])[order],
        flags=np.concatenate(flags)[order],
        time=np.concatenate([*(each.base.time[each.event] for each in entries), queries.time])[order],
        order=np.concatenate([*(each.base.order[each.event] for each in entries), queries.order])[order],
        seq=np.concatenate([*(each.base.seq[each.event] for each in entries), queries.seq])[order],
        valid=np.concatenate(valid)[order],
        values=values,
        out=np.concatenate([np.full(inserts + changes, -1, np.int64), queries.out])[order],
    )


def _is_range(values: Words) -> bool:
    return bool((values == np.arange(len(values))).all())
