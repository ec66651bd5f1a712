"""What a replay is asked: logged requests, hypothetical ones, plain reads (SEMANTICS 1.6). Pure.

A row with a logged id is that request, at its event time, and brings the log's payload; one with an unknown id is a
hypothetical request at its own time; one without id is a plain read. All become one table of row numbers and instants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import instants, units
from headrace.core.errors import SchemaError, did_you_mean
from headrace.core.kernel.program import Words
from headrace.core.schema import DataType, timestamp
from headrace.core.times import Instant
from headrace.features.define import FeatureView, entity_expression
from headrace.features.replay_given import Cuts, conform
from headrace.features.replay_log import Events, TopicRows
from headrace.log.define import Topic
from headrace.log.port import Verdict

Mask = npt.NDArray[np.bool_]

_REQUESTS = (Verdict.ACCEPTED, Verdict.RESTAMPED, Verdict.LATE)  # duplicates and quarantined rows are none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """n rows to answer, in the caller's order.

    t: where each is asked. available_at: what *available* counts from; t itself where nothing is logged. topic: of the
    requests among them. row: the request's row in its topic, -1 where it is not logged. request: whether the row is a
    request, logged or not. table: fields by name of the rows that are not logged (of the others anything); None where
    all are. cuts: the recorded or given ones.
    """

    t: Words
    available_at: Words
    topic: TopicRows | None
    row: Words
    request: Mask
    table: pa.Table | None = None
    cuts: Cuts | None = None

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def logged(cls, events: Events, topic: str, *, begin: Instant | None = None, end: Instant | None = None) -> Rows:
        """Every request of a topic with begin <= event_time < end, in order of partition and offset."""
        rows = events.topic(topic)
        wanted = np.isin(rows.verdict, _REQUESTS)
        if begin is not None:
            wanted &= rows.event_time >= begin
        if end is not None:
            wanted &= rows.event_time < end
        return cls.at(rows, np.flatnonzero(wanted).astype(np.int64))

    @classmethod
    def at(cls, rows: TopicRows, row: Words) -> Rows:
        """The requests at these rows of a topic."""
        whole = _each(rows, row)
        return cls(
            t=rows.event_time if whole else rows.event_time[row],
            available_at=rows.available_at if whole else rows.available_at[row],
            topic=rows,
            row=row,
            request=np.ones(len(row), np.bool_),
        )

    @classmethod
    def of(
        cls,
        events: Events,
        table: pa.Table,
        *,
        request: str | None = None,
        t: str = "t",
        cuts: Cuts | None = None,
    ) -> Rows:
        """Rows as a caller has them.

        request: the topic whose requests they are; its id column may be absent or null: plain reads. t: the column that
        says when; where it is null or absent, a hypothetical request's event time field. A logged id is the first of
        that id, if it came again after `dedup`. Raises: SchemaError HR-0522 for a column that does not fit its field,
        HR-0523 for a row without an instant; NotFoundError HR-0520 for an unknown topic.
        """
        count = table.num_rows
        at = _instants(table, t)
        if request is None:
            _check_times(at, np.zeros(count, np.bool_), t)
            times = units(at)
            return cls(
                t=times,
                available_at=times,
                topic=None,
                row=np.full(count, -1, np.int64),
                request=np.zeros(count, np.bool_),
                table=table,
                cuts=cuts,
            )
        rows = events.topic(request)
        typed = _fields(table, rows.topic)
        row, is_request = _requests(rows, typed)
        logged = row >= 0
        own = rows.topic.event_time
        if own is not None and own in typed.column_names:
            at = pc.coalesce(at, typed.column(own).combine_chunks())
        _check_times(at, logged, t)
        times, available = units(at).copy(), units(at).copy()
        times[logged], available[logged] = rows.event_time[row[logged]], rows.available_at[row[logged]]
        return cls(t=times, available_at=available, topic=rows, row=row, request=is_request, table=typed, cuts=cuts)

    def entities(self, view: FeatureView, types: Sequence[DataType]) -> list[pa.ChunkedArray | pa.Array]:
        """The parts of the view's entity, one column each, by name: how rows that are no source's event name them.

        Raises: SchemaError HR-0524 where the rows do not have such a column.
        """
        found = []
        for part, type in zip(view.entity, types, strict=True):
            column = self.column(part)
            if column is None:
                known = [] if self.table is None else self.table.column_names
                raise SchemaError(
                    "HR-0524",
                    f"the rows have no column {part!r}, the entity of view {view.name!r}",
                    hint=did_you_mean(part, known if self.topic is None else [*known, *self.topic.topic.schema.names]),
                )
            found.append(conform(column, type, f"column {part!r}"))
        return found

    def column(self, name: str) -> pa.ChunkedArray | pa.Array | None:
        """A column by name: of logged requests the log's, of others the caller's; None where there is none."""
        logged = self.row >= 0
        place = -1 if self.table is None else self.table.schema.get_field_index(name)
        given = None if self.table is None or place < 0 else self.table.column(place)
        if self.topic is None or name not in self.topic.topic.schema or not logged.any():
            return given
        column = self.topic.table.column(name)
        if logged.all():
            return column if _each(self.topic, self.row) else column.take(pa.array(self.row))
        held = column.take(pa.array(np.where(logged, self.row, 0)))
        other = pa.nulls(len(self), held.type) if given is None else given
        return pc.if_else(pa.array(logged), held, other)

    def column_of_times(self) -> pa.Array:
        """t as instants."""
        return instants(self.t)

    def with_cuts(self, cuts: Cuts | None) -> Rows:
        """The same rows with other recorded cuts."""
        return replace(self, cuts=cuts)

    def take(self, rows: npt.NDArray[np.intp]) -> Rows:
        """Some of them."""
        return Rows(
            t=self.t[rows],
            available_at=self.available_at[rows],
            topic=self.topic,
            row=self.row[rows],
            request=self.request[rows],
            table=None if self.table is None else self.table.take(pa.array(rows)),
            cuts=None if self.cuts is None else self.cuts.take(rows),
        )


def _each(topic: TopicRows, row: Words) -> bool:
    """Whether these are all of a topic's rows, each once and in order: then nothing need be gathered. Not only as
    many."""
    return len(row) == len(topic) and bool((row == np.arange(len(row))).all())


def entity_types(view: FeatureView) -> list[DataType]:
    """The types of the entity's parts."""
    return [entity_expression(view.sources.emissions[0], part, view.name).type for part in view.entity]


def _requests(rows: TopicRows, table: pa.Table) -> tuple[Words, Mask]:
    """(row of each logged id, -1 elsewhere; which are requests) by the id column."""
    id = rows.topic.id
    if id is None or id not in table.column_names:
        return np.full(table.num_rows, -1, np.int64), np.zeros(table.num_rows, np.bool_)
    asked = table.column(id).combine_chunks()
    held = np.flatnonzero(np.isin(rows.verdict, _REQUESTS)).astype(np.int64)
    held = held[np.lexsort((rows.offset[held], rows.partition_of(held), rows.available_at[held]))]
    known = rows.table.column(id).take(pa.array(held))
    place = pc.index_in(asked, value_set=known.combine_chunks(), skip_nulls=True)
    found = place.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    there: Mask = asked.is_valid().to_numpy(zero_copy_only=False)
    row = np.where(found >= 0, held[np.maximum(found, 0)] if len(held) else -1, -1)
    return row, there


def _fields(table: pa.Table, topic: Topic) -> pa.Table:
    """The table with the topic's fields as they are declared; other columns stay."""
    columns, names = [], []
    for name in table.column_names:
        column = table.column(name)
        columns.append(conform(column, topic.schema[name].type, f"column {name!r}") if name in topic.schema else column)
        names.append(name)
    return pa.Table.from_arrays(columns, names=names)


def _instants(table: pa.Table, t: str) -> pa.Array:
    if t not in table.column_names:
        return pa.nulls(table.num_rows, timestamp.arrow)
    return conform(table.column(t), timestamp, f"column {t!r}")


def _check_times(at: pa.Array, logged: Mask, t: str) -> None:
    missing = at.is_null().to_numpy(zero_copy_only=False) & ~logged
    if missing.any():
        raise SchemaError(
            "HR-0523",
            f"row {int(np.flatnonzero(missing)[0])} says no instant",
            detail="a row that is no logged request is asked at a time of its own",
            hint=f"give a column {t!r} of instants with a zone",
        )
