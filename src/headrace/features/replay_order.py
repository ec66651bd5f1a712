"""In which order a kernel pass takes events and queries, so that each query sees exactly its own visible set. Pure.

The one idea: a pass only ever adds events, so the queries of one pass must see ever more: their threshold vectors must
form a chain. If they do, the sum of the thresholds sorts them, whatever the components; and an event belongs before the
first query whose threshold lies beyond it. Queries of one entity that do not compare are split over several chains,
each a pass of its own over that entity's events, under a key of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.core.kernel.program import Words

Places = npt.NDArray[np.intp]
Keys = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """Queries in the order in which they are answered. places: the queries, sorted. chain: of each sorted query. keys:
    the entity of each chain. whole: all queries, of whatever entity, form one chain, and chain numbers are entity
    codes."""

    places: Places
    chain: Keys
    keys: Keys
    whole: bool


def ordered(keys: Keys, thresholds: Sequence[Words], *, count: int, alone: bool) -> Order:
    """keys: the entity code of each query, below `count`. alone: each query is a chain of its own."""
    n = len(keys)
    total = np.zeros(n, np.int64)
    for one in thresholds:
        total += one
    if alone:
        order = np.argsort(keys, kind="stable")
        return Order(places=order, chain=np.arange(n, dtype=np.int32), keys=keys[order], whole=False)
    rising = n < 2 or bool((total[1:] >= total[:-1]).all())
    places = np.arange(n) if rising else np.argsort(total, kind="stable")
    if all(_rises(one if rising else one[places]) for one in thresholds):
        return Order(
            places=places, chain=keys if rising else keys[places], keys=np.arange(count, dtype=np.int32), whole=True
        )
    places = np.lexsort((total, keys))
    sorted_keys = keys[places]
    broken = np.zeros(count, np.bool_)
    for one in thresholds:
        falls = (np.diff(one[places]) < 0) & (np.diff(sorted_keys) == 0)
        broken[sorted_keys[1:][falls]] = True
    within = np.zeros(n, np.int64)  # the chain of each sorted query among those of its entity
    suspects = np.flatnonzero(broken[sorted_keys])
    if len(suspects):
        rows = np.stack([one[places[suspects]] for one in thresholds], axis=1).tolist()
        within[suspects] = _split(sorted_keys[suspects].tolist(), rows)
    places = places[np.lexsort((np.arange(n), within, sorted_keys))]
    within = within[np.lexsort((np.arange(n), within, sorted_keys))]
    sorted_keys = keys[places]
    begins = np.ones(n, np.bool_)
    begins[1:] = (np.diff(sorted_keys) != 0) | (np.diff(within) != 0)
    chain = (np.cumsum(begins) - 1).astype(np.int32)
    return Order(places=places, chain=chain, keys=sorted_keys[begins], whole=False)


def _rises(values: Words) -> bool:
    return len(values) < 2 or bool((values[1:] >= values[:-1]).all())


def _split(keys: list[int], rows: list[list[int]]) -> list[int]:
    """Greedy: each query, in order of its sum, joins the first chain of its entity whose last one sees no more than
    it."""
    result = []
    tails: list[list[int]] = []
    for i, row in enumerate(rows):
        if i == 0 or keys[i] != keys[i - 1]:
            tails = []
        for number, tail in enumerate(tails):
            if all(a <= b for a, b in zip(tail, row, strict=True)):
                tails[number] = row
                result.append(number)
                break
        else:
            result.append(len(tails))
            tails.append(row)
    return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """Events as passes take them: `event` (its place among those given) goes into `chain`, before sorted query
    `before`. An event that no query of a chain sees is not among them; one that several chains see is, once for
    each."""

    event: Places
    chain: Keys
    before: Words


def placed(order: Order, thresholds: Words, events: Words, keys: Keys) -> Placed:
    """Where events of one component belong.

    thresholds: of the queries, in their own order. events: their numbers in the component; of any order. keys: their
    entities, each of some chain.
    """
    n = len(order.places)
    sorted_thresholds = thresholds[order.places]
    if order.whole:
        size = int(max(events.max(initial=-1), sorted_thresholds.max(initial=0))) + 2
        # How many thresholds are at or below an event's number: the queries that do not see it, which come first.
        before = np.cumsum(np.bincount(sorted_thresholds, minlength=size))[events]
        seen = before < n
        if seen.all():
            return Placed(event=np.arange(len(events)), chain=keys, before=before)
        event = np.flatnonzero(seen)
        return Placed(event=event, chain=keys[event], before=before[event])
    first = np.searchsorted(order.keys, keys, side="left")
    copies = np.searchsorted(order.keys, keys, side="right") - first
    event = np.repeat(np.arange(len(events)), copies)
    ends = np.cumsum(copies)
    chain = first[event] + np.arange(len(event)) - (ends - copies)[event]
    before = _before(order, sorted_thresholds, chain, events[event])
    seen = before < n
    seen[seen] = order.chain[before[seen]] == chain[seen]
    return Placed(event=event[seen], chain=chain[seen].astype(np.int32), before=before[seen].astype(np.int64))


def before(order: Order, thresholds: Words, chain: Keys, events: Words) -> Words:
    """Of events of one component, the first sorted query of a given chain that sees each; the number of queries where
    none does. thresholds: of the queries, in their own order."""
    n = len(order.places)
    found = _before(order, thresholds[order.places], chain, events)
    if order.whole:
        return found
    inside = found < n
    inside[inside] = order.chain[found[inside]] == chain[inside]
    return np.where(inside, found, n)


def _before(order: Order, sorted_thresholds: Words, chain: Keys | Words, events: Words) -> Words:
    if order.whole:
        return np.searchsorted(sorted_thresholds, events, side="right").astype(np.int64)
    size = int(max(events.max(initial=-1), sorted_thresholds.max(initial=0))) + 2
    places = order.chain.astype(np.int64) * size + sorted_thresholds
    return np.searchsorted(places, chain.astype(np.int64) * size + events, side="right").astype(np.int64)
