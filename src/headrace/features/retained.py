"""Events that are asked for again: by id, when a fact names its origin; by place, when an id decides a tie. Memory
only.

The one idea: the newest rows lie in a list and a dictionary, older ones in segments of arrays, each sorted by id beside
its order of offsets, neighbours merged while they are small. So a million origins cost their fields and 12 bytes each,
not a million Python objects, and a look-up asks a handful of segments by bisection.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import Physical, rows_to_batch, units
from headrace.core.schema import Field, Kind, Schema
from headrace.log.define import Topic
from headrace.log.port import EVENT_TIME, OFFSET

Id = int | str
Integers = npt.NDArray[np.int64]

TAIL_ROWS = 4_096  # rows kept as Python objects before they become a segment; making one of this size takes some 3 ms
SEGMENT_ROWS = 1 << 18  # segments are merged up to here: few to ask, and old ones go as a whole


class Origin(NamedTuple):
    """An event that was retained. row: its topic's fields in declared order; None too where a field was not kept."""

    partition: int
    offset: int
    event_time: int
    row: tuple[Physical, ...]


class RetainedRows:
    """Taken events of one topic. One thread.

    Cost: `add_row` a list append; `find` some 2 us a segment (texts 6 us), of which there are one for 2**18 rows and a
    few.
    """

    def __init__(self, topic: Topic, kept: Collection[str], *, by_id: bool) -> None:
        """kept: the fields to keep. by_id: whether `find` will be asked; then the id is kept too."""
        wanted = {*kept, topic.id} if by_id and topic.id is not None else set(kept)
        self._schema = Schema(topic.name, tuple(f for f in topic.schema if f.name in wanted))
        self._places = [place for place, f in enumerate(topic.schema) if f.name in wanted]
        self._width = len(topic.schema.fields)
        self._id = topic.id if by_id else None
        self._id_place = topic.schema.names.index(topic.id) if by_id and topic.id is not None else None
        self._partitions: dict[int, _Partition] = {}

    @property
    def fields(self) -> tuple[Field, ...]:
        return self._schema.fields

    def add_row(self, partition: int, offset: int, event_time: int, row: Sequence[Physical]) -> None:
        """Offsets rise."""
        held = self._partition(partition)
        if self._id_place is not None:
            held.recent.setdefault(row[self._id_place], []).append(len(held.tail))
        held.tail.append((offset, event_time, tuple(row)))
        if len(held.tail) >= TAIL_ROWS:
            self._settle(held)

    def add_batch(self, partition: int, batch: pa.RecordBatch) -> None:
        """Rows as the log's `read` gives them, the taken ones, or as `batches` does; offsets rise."""
        if not batch.num_rows:
            return
        held = self._partition(partition)
        self._settle(held)
        columns = [
            batch.column(f.name) if f.name in batch.schema.names else pa.nulls(batch.num_rows, f.type.arrow)
            for f in self._schema
        ]
        offsets, times = units(batch.column(OFFSET)), units(batch.column(EVENT_TIME))
        self._push(held, _Segment.of(offsets, times, columns, self._schema, self._id))

    def find(self, id: Id) -> list[Origin]:
        """The events of that id, of any partition; more than one where partitions, or time beyond `dedup`, part
        them."""
        found: list[Origin] = []
        for partition, held in self._partitions.items():
            for segment in held.segments:
                for index in segment.places_of(id):
                    found.append(self._origin(partition, segment, index))
            for place in held.recent.get(id, ()):
                found.append(Origin(partition, *held.tail[place]))
        return found

    def at(self, partition: int, offset: int) -> Origin | None:
        """The event at a place; None where it was not retained."""
        held = self._partitions.get(partition)
        if held is None:
            return None
        place = bisect.bisect_left(held.tail, offset, key=lambda entry: entry[0])
        if place < len(held.tail) and held.tail[place][0] == offset:
            return Origin(partition, *held.tail[place])
        number = bisect.bisect_right(held.segments, offset, key=lambda segment: int(segment.offsets[0])) - 1
        if number < 0:
            return None
        segment = held.segments[number]
        index = int(np.searchsorted(segment.offsets, offset))
        if index == len(segment.offsets) or segment.offsets[index] != offset:
            return None
        return self._origin(partition, segment, index)

    def forget(self, before: int) -> list[Id]:
        """Drop segments without an event after `before`; returns the ids that went, some of which other events may
        have."""
        gone: list[Id] = []
        for held in self._partitions.values():
            self._settle(held)
            for segment in held.segments:
                if segment.newest <= before and self._id is not None:
                    gone.extend(segment.ids())
            held.segments = [segment for segment in held.segments if segment.newest > before]
        return gone

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """All that is retained, per partition by offset: offset, event time, kept fields. For `add_batch`."""
        fields = [
            pa.field(OFFSET, pa.int64()),
            pa.field(EVENT_TIME, pa.int64()),
            *(pa.field(f.name, f.type.arrow) for f in self._schema),
        ]
        for partition, held in self._partitions.items():
            self._settle(held)
            for segment in held.segments:
                arrays = [pa.array(segment.offsets), pa.array(segment.times), *segment.columns]
                yield partition, pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def __len__(self) -> int:
        return sum(len(held.tail) + sum(len(s.offsets) for s in held.segments) for held in self._partitions.values())

    def _partition(self, partition: int) -> _Partition:
        held = self._partitions.get(partition)
        if held is None:
            held = self._partitions[partition] = _Partition()
        return held

    def _origin(self, partition: int, segment: _Segment, index: int) -> Origin:
        row: list[Physical] = [None] * self._width
        for place, field, column in zip(self._places, self._schema, segment.columns, strict=True):
            row[place] = _physical(column[index], field)
        return Origin(partition, int(segment.offsets[index]), int(segment.times[index]), tuple(row))

    def _settle(self, held: _Partition) -> None:
        """The tail becomes a segment."""
        if not held.tail:
            return
        rows = [tuple(row[place] for place in self._places) for _, _, row in held.tail]
        columns = rows_to_batch(self._schema, rows).columns if self._places else []
        offsets = np.array([offset for offset, _, _ in held.tail], np.int64)
        times = np.array([time for _, time, _ in held.tail], np.int64)
        held.tail, held.recent = [], {}
        self._push(held, _Segment.of(offsets, times, columns, self._schema, self._id))

    def _push(self, held: _Partition, made: _Segment) -> None:
        """A segment at the end, merged with smaller neighbours, so that their number stays logarithmic."""
        while held.segments:
            last = held.segments[-1]
            count = len(last.offsets) + len(made.offsets)
            if len(last.offsets) >= 2 * len(made.offsets) or count > SEGMENT_ROWS:
                break
            held.segments.pop()
            columns = [pa.concat_arrays([a, b.cast(a.type)]) for a, b in zip(last.columns, made.columns, strict=True)]
            offsets = np.concatenate([last.offsets, made.offsets])
            times = np.concatenate([last.times, made.times])
            made = _Segment.of(offsets, times, columns, self._schema, self._id)
        held.segments.append(made)


class _Partition:
    """segments: by offset. tail: (offset, event time, whole row), behind them. recent: where in the tail an id is."""

    __slots__ = ("recent", "segments", "tail")

    def __init__(self) -> None:
        self.segments: list[_Segment] = []
        self.tail: list[tuple[int, int, tuple[Physical, ...]]] = []
        self.recent: dict[Physical, list[int]] = {}


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """offsets, times: int64, by offset. columns: kept fields. order: the rows by id; sorted_ids: their ids so. newest:
    the latest event time."""

    offsets: Integers
    times: Integers
    columns: list[pa.Array]
    sorted_ids: Integers | pa.Array | None
    order: npt.NDArray[np.int32] | None
    newest: int

    @classmethod
    def of(
        cls, offsets: Integers, times: Integers, columns: Iterable[pa.Array], schema: Schema, id: str | None
    ) -> _Segment:
        held = list(columns)
        newest = int(times.max())
        if id is None:
            return cls(offsets, times, held, None, None, newest)
        ids = held[schema.names.index(id)]
        if schema[id].type.kind is Kind.STRING:
            places = pc.array_sort_indices(ids)
            order = places.to_numpy().astype(np.int32)
            return cls(offsets, times, held, ids.take(places), order, newest)
        numbers = units(ids)
        order = np.argsort(numbers, kind="stable").astype(np.int32)
        return cls(offsets, times, held, numbers[order], order, newest)

    def places_of(self, id: Id) -> list[int]:
        """The rows with that id."""
        if self.sorted_ids is None or self.order is None:
            return []
        ids = self.sorted_ids
        if isinstance(ids, np.ndarray):
            if not isinstance(id, int):
                return []
            low, high = int(np.searchsorted(ids, id)), int(np.searchsorted(ids, id, side="right"))
        else:
            low = bisect.bisect_left(range(len(ids)), id, key=lambda place: ids[place].as_py())
            high = low
            while high < len(ids) and ids[high].as_py() == id:
                high += 1
        return sorted(self.order[low:high].tolist())

    def ids(self) -> list[Id]:
        if self.sorted_ids is None:
            return []
        return self.sorted_ids.tolist() if isinstance(self.sorted_ids, np.ndarray) else self.sorted_ids.to_pylist()


def _physical(value: pa.Scalar, field: Field) -> Physical:
    """One value of an Arrow column as the hot path has it."""
    if not value.is_valid:
        return None
    if field.type.kind is Kind.TIMESTAMP:
        return int(value.value)
    if field.type.kind is Kind.DECIMAL:
        return int(value.as_py().scaleb(field.type.scale))
    return value.as_py()  # type: ignore[no-any-return]  # str, int, float or bool, as the field's type says
