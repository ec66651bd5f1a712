"""What a view keeps beside its windows where its source is a derived topic (SEMANTICS 5.1). Memory only.

The one idea: an event of a derived topic is its source's event, so its place in a view is its place there, and ties,
overlays and the request's own event are what they are in the same view over the source. A request may lie in the
derived topic before it is decided, or not yet; the newest events are remembered by place, so that its own can be left
out (core/kernel/hidden.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from headrace.core.codec import units
from headrace.core.kernel.program import Items, Words
from headrace.core.points import IMPORTS_FROM
from headrace.features.plan import ViewPlan
from headrace.log.port import AVAILABLE_AT, OFFSET, SOURCE_OFFSET, SOURCE_PARTITION

NEVER_SEEN = -(2**63)
# How far behind the newest event's available_at an event time may lie that is remembered, beside the declared skew: a
# request's t is within the skew of its append, and it is decided within seconds.
KEEP = 60_000_000
_BUCKET_BITS = 24  # microseconds: 17 s of event time are forgotten together
_PARTITION_BITS = 16


class Young(NamedTuple):
    """An event as the kernel took it in."""

    place: int
    order: int
    valid: int
    values: list[int]


class YoungEvents:
    """The events of the last minutes by key and event time. floor: of earlier event times nothing is known."""

    def __init__(self, columns: int, keep: int) -> None:
        """columns: how many of the items' values are the event's. keep: microseconds."""
        self.floor = NEVER_SEEN
        self._columns = columns
        self._keep = keep
        self._buckets: dict[int, dict[tuple[int, int], list[Young]]] = {}

    @classmethod
    def of(cls, plan: ViewPlan) -> YoungEvents | None:
        """Of a view over a derived topic; None where no window of it reaches up to t, or it reads none."""
        topic, spans = plan.derived, plan.program.spans
        if topic is None or not any(spans[output.span].overlaid for output in plan.program.outputs):
            return None
        return cls(len(plan.program.columns), topic.skew.micros + KEEP)

    def add(self, items: Items, available_at: int) -> None:
        """Events as they were inserted. available_at: of the newest among them."""
        self.floor = max(self.floor, available_at - self._keep)
        for bucket in [one for one in self._buckets if one + 1 << _BUCKET_BITS <= self.floor]:
            del self._buckets[bucket]
        rows = np.flatnonzero(items.time >= self.floor)
        if not len(rows):
            return
        values = items.values[: self._columns, rows].T.tolist()
        columns = (column[rows].tolist() for column in (items.key, items.time, items.seq, items.order, items.valid))
        for key, time, place, order, valid, words in zip(*columns, values, strict=True):
            of_bucket = self._buckets.setdefault(time >> _BUCKET_BITS, {})
            of_bucket.setdefault((key, time), []).append(Young(place, order, valid, words))

    def others(self, key: int, time: int, place: int) -> list[Young] | None:
        """The key's events at this instant, not below the floor, but for the one at the place; None where that is not
        among them."""
        beside = self._buckets.get(time >> _BUCKET_BITS, {}).get((key, time), ())
        found = [one for one in beside if one.place != place]
        return found if len(found) < len(beside) else None


class Horizon:
    """The available_at up to which a derived partition is told: that of the slowest live partition of its source that
    it has events of."""

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}

    def after(self, batch: pa.RecordBatch) -> int:
        """With more rows. Imports say nothing of it, unless there is nothing else."""
        available, partitions = units(batch.column(AVAILABLE_AT)), batch.column(SOURCE_PARTITION).to_numpy()
        for index in np.unique(partitions).tolist():
            newest = int(available[partitions == index].max())
            if index < IMPORTS_FROM:
                self._newest[index] = max(self._newest.get(index, newest), newest)
        return min(self._newest.values(), default=int(available.min()))


def source_places(batch: pa.RecordBatch, shift: int) -> Words:
    """Where each row of a derived topic lies in its source: partition << shift | offset."""
    partitions = batch.column(SOURCE_PARTITION).to_numpy().astype(np.int64)
    return partitions << shift | batch.column(SOURCE_OFFSET).to_numpy()


def retained_index(index: int, source: int) -> int:
    """Under which number the rows of a source partition are retained that came by a derived one: their offsets rise."""
    return index << _PARTITION_BITS | source


def by_source(index: int, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a derived partition by `retained_index`, with the offsets of their source."""
    partitions = batch.column(SOURCE_PARTITION).to_numpy()
    place = batch.schema.get_field_index(OFFSET)
    for source in np.unique(partitions).tolist():
        rows = batch.filter(pa.array(partitions == source))
        yield retained_index(index, source), rows.set_column(place, OFFSET, rows.column(SOURCE_OFFSET))
