"""The part of the log that a replay reads: topics whole, their partitions end to end. Reads through the log's port.

The one idea: a topic is one table, its partitions one behind the other, so that an event is a row number and "below the
cut" a comparison of row numbers. Order keys are compared on numbers too: an id is itself, or its rank where it is text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import instants, units
from headrace.core.errors import HaltedError, NotFoundError, StateError, did_you_mean
from headrace.core.kernel.program import Words
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.log.define import Topic
from headrace.log.port import (
    AVAILABLE_AT,
    EVENT_TIME,
    OFFSET,
    SOURCE_COLUMNS,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SYSTEM_COLUMNS,
    TAKEN,
    VERDICT,
    Log,
    PartitionKind,
    Verdict,
)

Mask = npt.NDArray[np.bool_]

_TAKEN = np.isin(np.arange(256), TAKEN)
_TAKEN_OR_LATE = np.isin(np.arange(256), (*TAKEN, Verdict.LATE))


class TopicRows:
    """One topic's rows. partitions: by index, of one incarnation; rows starts[i] to starts[i + 1] are partition i's.

    table: SYSTEM_COLUMNS and fields, of a derived topic SOURCE_COLUMNS too. offset, event_time, available_at, verdict:
    one a row, the system columns as numbers.
    """

    def __init__(self, topic: Topic, tables: Mapping[Partition, pa.Table]) -> None:
        self.topic = topic
        self.partitions = tuple(sorted(tables))
        self.starts = np.concatenate([[0], np.cumsum([tables[p].num_rows for p in self.partitions])]).astype(np.int64)
        fields = [*SYSTEM_COLUMNS, *(pa.field(f.name, f.type.arrow) for f in topic.schema)]
        schema = pa.schema(fields if topic.derivation is None else [*fields, *SOURCE_COLUMNS])
        parts = [_as(tables[p], schema) for p in self.partitions]
        self.table = pa.concat_tables(parts) if parts else schema.empty_table()
        if topic.derivation is not None and self.table.column(SOURCE_OFFSET).null_count:
            raise StateError(
                "HR-0521",
                f"rows of derived topic {topic.name!r} do not say of which events they are",
                detail=f"expected column {SOURCE_OFFSET!r}, seen nulls",
                hint=f"give the events of {topic.derivation.of!r}, and no cut of what is derived of it",
            )
        self.offset = _integers(self.table, OFFSET)
        self.event_time = _integers(self.table, EVENT_TIME)
        self.available_at = _integers(self.table, AVAILABLE_AT)
        self.verdict: npt.NDArray[np.uint8] = self.table.column(VERDICT).to_numpy()
        if np.array_equal(self.available_at, self.event_time):  # imports say so as a rule
            self.available_at = self.event_time
        self.table = self._sharing()
        self._order: Words | None = None

    def __len__(self) -> int:
        return len(self.offset)

    def _sharing(self) -> pa.Table:
        """The table, its columns that are numbers here shared with those numbers: the log's copies may go."""
        times = instants(self.event_time)
        held = {OFFSET: pa.array(self.offset), EVENT_TIME: times, AVAILABLE_AT: instants(self.available_at)}
        own = self.topic.event_time
        if own is not None and np.array_equal(_integers(self.table, own), self.event_time):
            held[own] = times
        columns = [held.get(field.name, self.table.column(field.name)) for field in self.table.schema]
        return pa.Table.from_arrays(columns, schema=self.table.schema)

    def visible(self, *, late: bool) -> Mask | None:
        """Rows that state may take: TAKEN, and marked LATE if `late`. None where all may."""
        mask: Mask = (_TAKEN_OR_LATE if late else _TAKEN)[self.verdict]
        return None if mask.all() else mask

    @property
    def imported(self) -> Mask:
        """Rows of sealed imports."""
        mask = np.zeros(len(self), np.bool_)
        mask[self._imports_from() :] = True
        return mask

    def _imports_from(self) -> int:
        live = sum(1 for p in self.partitions if p.index < IMPORTS_FROM)
        return int(self.starts[live])

    def partition_of(self, rows: Words) -> npt.NDArray[np.intp]:
        """The place among `partitions` of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def sequence(self, rows: Words | None, source: int) -> Words:
        """What breaks ties beyond the id: source, partition, offset, packed as the kernel's `seq`; of derived events
        those of what they are derived of."""
        if self.topic.derivation is not None:
            partition = self.table.column(SOURCE_PARTITION).to_numpy().astype(np.int64)
            places = (source << 58) | (partition << 42) | _integers(self.table, SOURCE_OFFSET)
            return places if rows is None else places[rows]
        index = np.array([p.index for p in self.partitions], np.int64)
        if rows is None:
            above = np.repeat((source << 58) | (index << 42), np.diff(self.starts))
            return above | self.offset
        return (source << 58) | (index[self.partition_of(rows)] << 42) | self.offset[rows]

    def order(self) -> Words:
        """What sorts the ids of events of one event time: ids of type int64 as they are, ranks of texts, 0 without
        id."""
        if self._order is None:
            ids = None if self.topic.id is None else self.table.column(self.topic.id)
            self._order = id_order([self.event_time], [ids])[0]
        return self._order

    def by_arrival(self, rows: Words) -> Words:
        """The rows sorted by (available_at, order key)."""
        offset, time, available = self.offset[rows], self.event_time[rows], self.available_at[rows]
        order = self.order()[rows]
        return rows[np.lexsort((offset, self.partition_of(rows), order, time, available))]

    def by_time(self) -> Words:
        """All rows sorted by (event_time, available_at, order key): what *known now* calls before."""
        rows = np.arange(len(self))
        keys = (self.offset, self.partition_of(rows), self.order(), self.available_at, self.event_time)
        return np.lexsort(keys).astype(np.int64)


class Events:
    """Topics as a replay reads them; each is laid out when it is first asked for."""

    def __init__(self, topics: Iterable[Topic], tables: Mapping[Partition, pa.Table]) -> None:
        """tables: rows in offset order as `Log.read` gives them; a field that a table lacks is null."""
        self._topics = {topic.name: topic for topic in topics}
        self._tables: dict[str, dict[Partition, pa.Table]] = {name: {} for name in self._topics}
        self._rows: dict[str, TopicRows] = {}
        for partition, table in tables.items():
            if partition.topic in self._tables:
                self._tables[partition.topic][partition] = table

    @classmethod
    def read(cls, log: Log, topics: Iterable[str], *, halts: dict[Partition, HaltedError] | None = None) -> Events:
        """Whole topics up to their ends as they are now; a topic that the log does not have holds nothing. halts: takes
        the partitions that are read up to where the log halts, for who asks for nothing behind; without, the first
        raises."""
        wanted = set(topics)
        tables = {}
        found = []
        for state in log.topics():
            if state.topic.name not in wanted:
                continue
            found.append(state.topic)
            for one in state.partitions:
                if one.kind is PartitionKind.LIVE or one.sealed:
                    batches: list[pa.RecordBatch] = []
                    try:
                        batches.extend(log.read(one.partition, one.start))
                    except HaltedError as error:
                        if halts is None:
                            raise
                        halts[one.partition] = error
                    if batches:
                        tables[one.partition] = pa.Table.from_batches(batches)
        return cls(found, tables)

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def standing(self, name: str, rows: TopicRows) -> Events:
        """One topic alone, laid out by the caller, under a name that need not be its own."""
        made = Events([], {})
        made._topics[name], made._rows[name] = rows.topic, rows
        made._topics[rows.topic.name], made._rows[rows.topic.name] = rows.topic, rows
        return made

    def below(self, cut: Cut) -> Events:
        """What a cut holds: partitions that it does not mention are not there."""
        kept = {}
        for partition, offset in cut:
            table = self._table(partition)
            if table is not None:
                end = int(np.searchsorted(_integers(table, OFFSET), offset))
                kept[partition] = table.slice(0, end)
        return Events(self._topics.values(), kept)

    def cut(self) -> Cut:
        """The next offset of each partition: the end of what was read."""
        found = {}
        for name in self._topics:
            for partition in [
                *self._tables.get(name, ()),
                *(self._rows[name].partitions if name in self._rows else ()),
            ]:
                table = self._table(partition)
                assert table is not None
                found[partition] = int(table.column(OFFSET)[-1].as_py()) + 1 if table.num_rows else 0
        return Cut.of(found)

    def _table(self, partition: Partition) -> pa.Table | None:
        name = partition.topic
        if name in self._rows:
            rows = self._rows[name]
            if partition not in rows.partitions:
                return None
            place = rows.partitions.index(partition)
            return rows.table.slice(int(rows.starts[place]), int(rows.starts[place + 1] - rows.starts[place]))
        return self._tables.get(name, {}).get(partition)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._topics))

    def topic(self, name: str) -> TopicRows:
        """Raises: NotFoundError HR-0520 for a topic that was not read."""
        if name not in self._rows:
            if name not in self._topics:
                raise NotFoundError(
                    "HR-0520",
                    f"no topic {name!r} among the events",
                    hint=did_you_mean(name, self._topics),
                )
            self._rows[name] = TopicRows(self._topics[name], self._tables.pop(name))
        return self._rows[name]


def id_order(times: Sequence[Words], ids: Sequence[pa.ChunkedArray | pa.Array | None]) -> list[Words]:
    """One number an event, which sorts the ids of events of equal times over all the sequences; see TopicRows.order.

    Only ids at a time that occurs twice are ranked: sorting texts is the expensive part, and elsewhere nothing asks.
    Ids of different types do not compare and are all 0.
    """
    types = {None if one is None else str(one.type) for one in ids}
    if len(types) != 1 or None in types:
        return [np.zeros(len(one), np.int64) for one in times]
    if types == {"int64"}:
        return [integers(one) for one in ids]
    every = np.concatenate(times)
    ranks = np.zeros(len(every), np.int64)
    tied = _repeated(every)
    if tied.any():
        texts = pa.chunked_array([chunk for one in ids for chunk in _chunks(one)], pa.string()).filter(pa.array(tied))
        encoded = texts.combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        place = pc.sort_indices(encoded.dictionary).to_numpy()
        rank = np.empty(len(place), np.int64)
        rank[place] = np.arange(len(place))
        ranks[tied] = rank[encoded.indices.to_numpy()]
    return np.split(ranks, np.cumsum([len(one) for one in times])[:-1])


def integers(array: pa.ChunkedArray | pa.Array | None) -> Words:
    """The physical integers of a column, one array."""
    chunks = [units(chunk) for chunk in _chunks(array)]
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.int64)


def _chunks(array: pa.ChunkedArray | pa.Array | None) -> list[pa.Array]:
    if array is None:
        return []
    return list(array.chunks) if isinstance(array, pa.ChunkedArray) else [array]


def _integers(table: pa.Table, name: str) -> Words:
    return integers(table.column(name))


def _repeated(values: Words) -> Mask:
    """Which values occur more than once."""
    order = np.argsort(values, kind="stable")
    same = np.diff(values[order]) == 0
    mask = np.zeros(len(values), np.bool_)
    mask[order[1:][same]] = True
    mask[order[:-1][same]] = True
    return mask


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly these columns; one that is absent is null. Raises: StateError HR-0521 for another type."""
    columns = []
    for field in schema:
        place = table.schema.get_field_index(field.name)
        column = pa.chunked_array([pa.nulls(table.num_rows, field.type)]) if place < 0 else table.column(place)
        if column.type != field.type:
            raise StateError(
                "HR-0521",
                f"column {field.name!r} of the events has another type",
                detail=f"expected {field.type}, seen {column.type}",
            )
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=pa.schema([f.with_nullable(True) for f in schema]))
