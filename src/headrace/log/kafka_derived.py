"""Rows of a derived topic as Kafka records, and how a partition of them is followed. Pure.

The one idea: nothing about a derived row is judged again. Its re-keyer writes beside it what the source's log says of
it and where it lies there, in JSON form as one header, in Arrow form as columns; who reads takes that (SEMANTICS 5.1).
A record without it is no event of the topic, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.clients.kafka.port import Outgoing, Place, Record
from headrace.core.codec import units
from headrace.core.errors import LogError, SchemaError
from headrace.core.points import IMPORTS_FROM
from headrace.core.schema import Field
from headrace.log.define import Payload, Topic
from headrace.log.kafka_feed import Feed, by_version, conformed
from headrace.log.kafka_registry import Registry
from headrace.log.kafka_rows import ROW_BITS, Integers, ipc, keys_of, one_batch, read_ipc, slices
from headrace.log.port import CARRIED, SOURCE_COLUMNS, SYSTEM_COLUMNS, EventCodec, Inherited, Unreadable

SOURCE = "headrace-source"  # header of a derived topic's JSON record
# What it holds, big-endian: instants in microseconds, and the source position: the incarnation of the source's topic,
# the partition, the offset there, which in Arrow form has the row in it.
_HEADER = np.dtype(
    [
        ("available_at", ">i8"),
        ("event_time", ">i8"),
        ("verdict", "u1"),
        ("incarnation", ">i4"),
        ("partition", ">i4"),
        ("offset", ">i8"),
    ]
)
_COLUMNS = tuple((name, field.type) for name, field in zip(
    ("_available_at", "_event_time", "_verdict", *(each.name for each in SOURCE_COLUMNS)),
    (*SYSTEM_COLUMNS[1:], *SOURCE_COLUMNS),
    strict=True,
))  # fmt: skip

Headers = npt.NDArray[np.void]  # of _HEADER


def unbound(topic: Topic) -> Topic:
    """The definition as derived rows are read and written by it: what its fields allow was asked at the source, by the
    version in force there, which may have allowed more than today's."""
    fields = {f.name: Field(name=f.name, type=f.type) for f in topic.schema}
    return Topic(topic.name, key=topic.key, id=topic.id, event_time=topic.event_time, fields=fields)


def refuse_derived(topic: Topic) -> None:
    """Raises: LogError HR-0360 for a derived topic, to which only its re-keyers append."""
    if topic.derivation is not None:
        raise LogError(
            "HR-0360",
            f"topic {topic.name!r} is derived: nobody appends to it but its re-keyers",
            detail=f"its events are those of topic {topic.derivation.of!r}",
            hint=f"append to {topic.derivation.of!r}; headrace streams run carries it over",
            topic=topic.name,
        )


def source_of(registry: Registry, topic: Topic) -> int | None:
    """The incarnation of what a topic is derived of; None of one that is not. Raises: LogError HR-0362 where that is
    not in the log, or is derived itself."""
    if topic.derivation is None:
        return None
    held = registry.topics.get(topic.derivation.of)
    if held is None or held.topic.derivation is not None:
        seen = "no such topic in the log" if held is None else "it is derived itself"
        raise LogError(
            "HR-0362",
            f"topic {topic.name!r} cannot be derived of {topic.derivation.of!r}",
            detail=f"expected a topic of events, seen: {seen}",
            hint="declare the source first: headrace apply",
            topic=topic.name,
        )
    return held.incarnation


# --- out ---


def outgoing_derived(
    topic: Topic, codec: EventCodec, place: Place, rows: pa.RecordBatch, inherited: Inherited
) -> list[Outgoing]:
    """Derived rows of one source partition as records, in order. codec: of `unbound`."""
    source = inherited.source
    if topic.payload is Payload.ARROW:
        values: tuple[npt.NDArray[np.generic], ...] = (
            inherited.available_at,
            inherited.event_times,
            inherited.verdicts,
            np.full(rows.num_rows, source.incarnation, np.int32),
            np.full(rows.num_rows, source.index, np.int32),
            inherited.offsets,
        )
        batch = rows
        for (name, type), column in zip(_COLUMNS, values, strict=True):
            batch = batch.append_column(name, _column(column, type))
        return [Outgoing(place, None, ipc(part)) for part in slices(batch)]
    said = np.zeros(rows.num_rows, _HEADER)
    said["available_at"], said["event_time"] = inherited.available_at, inherited.event_times
    said["verdict"], said["offset"] = inherited.verdicts, inherited.offsets
    said["incarnation"], said["partition"] = source.incarnation, source.index
    data, size = said.tobytes(), _HEADER.itemsize
    return [
        Outgoing(place, key, value, ((SOURCE, data[row * size : (row + 1) * size]),))
        for row, (key, value) in enumerate(zip(keys_of(topic, rows), codec.encode(rows), strict=True))
    ]


# --- in ---


class DerivedFeed(Feed):
    """One partition of a derived topic. Its rows keep their sources' times, so it has no running maximum: available_at
    is the horizon, that of the slowest of the source's live partitions that it has rows of."""

    keeps = False  # it judges nothing
    _newest: dict[int, int] | None = None  # by live partition of the source

    @property
    def stamped(self) -> bool:
        """Its rows say themselves when they came: their source's reader has judged that."""
        return False

    def _read(self, topic: Topic, records: Sequence[Record]) -> tuple[pa.RecordBatch | None, Sequence[Unreadable]]:
        batch, unreadable = derived_rows(topic, self._codec(topic), records, form=self.form)
        if not batch.num_rows:
            return None, unreadable
        newest = {} if self._newest is None else self._newest
        partitions, available = batch.column(batch.num_columns - 2).to_numpy(), units(batch.column(1))
        for index in np.unique(partitions).tolist():
            if index < IMPORTS_FROM:
                newest[index] = max(newest.get(index, int(available.min())), int(available[partitions == index].max()))
        self._newest = newest
        self._available_at = min(newest.values(), default=self._available_at)
        return batch, unreadable

    def again(self, records: Sequence[Record], maximum: int, version: int) -> tuple[list[pa.RecordBatch], int, int]:
        batches = []
        for version, some in by_version(records, version):  # noqa: B020  # the version behind them is returned
            topic = self._known(version)
            batch, _ = derived_rows(topic, self._codec(topic), some, form=self.form)
            if batch.num_rows:
                batches.append(conformed(batch, self.held.topic.schema))
        return batches, maximum, version


def derived_rows(
    topic: Topic, codec: EventCodec, records: Sequence[Record], *, form: Payload
) -> tuple[pa.RecordBatch, list[Unreadable]]:
    """The rows of committed records as the log's port gives them, SOURCE_COLUMNS at their end; and the records that are
    no events, by offset. codec: of `unbound`."""
    if form is Payload.ARROW:
        return _rows_arrow(topic, codec, records)
    return _rows_json(topic, codec, records)


def _rows_json(topic: Topic, codec: EventCodec, records: Sequence[Record]) -> tuple[pa.RecordBatch, list[Unreadable]]:
    size = _HEADER.itemsize
    headers = [dict(record.headers).get(SOURCE, b"") if record.headers else b"" for record in records]
    fine = [len(header) == size for header in headers]
    said = np.frombuffer(b"".join(h for h, kept in zip(headers, fine, strict=True) if kept), _HEADER)
    known = np.isin(said["verdict"], CARRIED)
    whole = np.array(fine)
    whole[whole] = known
    unreadable = [_unsourced(record.offset) for record, kept in zip(records, whole.tolist(), strict=True) if not kept]
    kept = [record for record, kept in zip(records, whole.tolist(), strict=True) if kept]
    said = said[known]
    found = codec.decode([record.value or b"" for record in kept])
    unreadable += [one._replace(place=kept[one.place].offset) for one in found.unreadable]
    offsets = np.fromiter((record.offset for record in kept), np.int64, len(kept))
    return _with_columns(found.rows, offsets[found.places], said[found.places]), sorted(unreadable)


def _rows_arrow(topic: Topic, codec: EventCodec, records: Sequence[Record]) -> tuple[pa.RecordBatch, list[Unreadable]]:
    batches: list[pa.RecordBatch] = []
    offsets: list[Integers] = []
    said: list[Headers] = []
    unreadable: list[Unreadable] = []
    for record in records:
        try:
            batch = read_ipc(topic.schema, record.value, beside=_COLUMNS)
            rows = batch.select(topic.schema.names)
            codec.check(rows)
            columns = _said(batch)
        except SchemaError as error:
            unreadable.append(Unreadable(record.offset, error.code, error.message))
            continue
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError, TypeError, OSError) as error:
            unreadable.append(Unreadable(record.offset, "HR-0401", f"no batch of the topic's rows: {error}"))
            continue
        if columns is None:
            unreadable.append(_unsourced(record.offset))
            continue
        batches.append(rows)
        said.append(columns)
        offsets.append((record.offset << ROW_BITS) + np.arange(rows.num_rows))
    if not batches:
        return _with_columns(one_batch(topic.schema, []), np.zeros(0, np.int64), np.zeros(0, _HEADER)), unreadable
    return _with_columns(one_batch(topic.schema, batches), np.concatenate(offsets), np.concatenate(said)), unreadable


def _said(batch: pa.RecordBatch) -> Headers | None:
    """What a batch says beside its rows; None where it does not."""
    columns = [batch.column(name) for name, _ in _COLUMNS]
    if any(column.null_count for column in columns):
        return None
    said = np.zeros(batch.num_rows, _HEADER)
    for name, column in zip(_HEADER.names or (), columns, strict=True):
        said[name] = units(column) if pa.types.is_timestamp(column.type) else column.to_numpy()
    return said if bool(np.isin(said["verdict"], CARRIED).all()) else None


def _with_columns(rows: pa.RecordBatch, positions: Integers, said: Headers) -> pa.RecordBatch:
    """Rows as the log's port gives them."""
    native = [said[name].astype(said.dtype[name].newbyteorder("=")) for name in _HEADER.names or ()]
    columns = [_column(values, type) for values, (_, type) in zip(native, _COLUMNS, strict=True)]
    arrays = [pa.array(positions), *columns[:3], *rows.columns, *columns[3:]]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([*SYSTEM_COLUMNS, *rows.schema, *SOURCE_COLUMNS]))


def _column(values: npt.NDArray[np.generic], type: pa.DataType) -> pa.Array:
    array = pa.array(values)
    return array if array.type == type else array.cast(type)


def _unsourced(offset: int) -> Unreadable:
    return Unreadable(offset, "HR-0364", "it does not say of which event it is derived: no re-keyer wrote it")
