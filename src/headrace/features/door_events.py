"""The events of the door's file as the log would read them back: typed, in order of offset, judged. Pure.

The one idea: a row is judged as if it had been appended at its available_at, by the log's own judge, which the caller
brings (a slice sees another only through its port).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core import schema
from headrace.core.codec import instants, units
from headrace.core.errors import InputError, NotFoundError, did_you_mean
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import Instant
from headrace.features.door_files import File, Places
from headrace.features.replay_log import Events
from headrace.log.define import Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, OFFSET, VERDICT, Verdict

INCARNATION = 1  # of every topic in a file
_COLUMNS = ("topic", "partition", "offset", "available_at", "request", "verdict", "payload")


class Judged(Protocol):
    """One entry a row: a Verdict each, and microseconds."""

    @property
    def verdicts(self) -> npt.NDArray[np.uint8]: ...
    @property
    def event_times(self) -> npt.NDArray[np.int64]: ...


Own = TypeVar("Own", bound=Judged)


class Judging(Protocol[Own]):
    """Says what the log says of rows: headrace.log.plan.Judge, which the caller brings. It remembers its own judgements
    only."""

    def live(self, partition: int, rows: pa.RecordBatch, now: Instant, *, request: bool = False) -> Own: ...
    def imported(self, partition: int, rows: pa.RecordBatch, available_at: npt.NDArray[np.int64]) -> Own: ...
    def remember(self, partition: int, rows: pa.RecordBatch, judged: Own) -> None: ...


def read_events(file: File, topics: Mapping[str, Topic], judge: Callable[[Topic], Judging[Own]]) -> tuple[Events, int]:
    names = file.needed("topic", schema.string)
    partition = units(file.needed("partition", schema.int64))
    offset = units(file.needed("offset", schema.int64))
    available = units(file.needed("available_at", schema.timestamp))
    encoded = names.dictionary_encode()
    of_topic = encoded.indices.to_numpy(zero_copy_only=False)
    for name in encoded.dictionary.to_pylist():
        if name not in topics:
            row = int(np.flatnonzero(of_topic == encoded.dictionary.to_pylist().index(name))[0])
            raise NotFoundError(
                "HR-0527", f"events: row {row} is of unknown topic {name!r}", hint=did_you_mean(name, topics)
            )
    if "payload" not in file:
        _check_fields(file, topics, names)
    payload = file.objects("payload") if "payload" in file else None
    tables: dict[Partition, pa.Table] = {}
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        rows = np.flatnonzero(of_topic == code)
        rows = rows[np.lexsort((offset[rows], partition[rows]))]
        _check_order(name, partition[rows], offset[rows], available[rows])
        topic = topics[name]
        batch = _fields(file, topic, rows, payload)
        system = _System(file, rows, partition, offset, available)
        tables.update(_judged(topic, batch, system, judge))
    return Events(topics.values(), tables), file.count


def _check_fields(file: File, topics: Mapping[str, Topic], names: pa.Array) -> None:
    """Every column is some topic's field, and holds nothing in the rows of a topic that has no such field."""
    known = {field.name for topic in topics.values() for field in topic.schema}
    said = names.to_pylist()
    for name in file.columns:
        if name in _COLUMNS:
            continue
        if name not in known:
            hint = did_you_mean(name, known)
            raise NotFoundError("HR-0527", f"events: column {name!r} is no field of any topic", hint=hint)
        strangers = {topic.name for topic in topics.values() if name not in topic.schema}
        for row in file.there(name).tolist() if strangers else ():
            if said[row] in strangers:
                raise NotFoundError(
                    "HR-0527",
                    f"events: row {row} holds {name!r}, which topic {said[row]!r} does not have",
                    hint=did_you_mean(name, topics[said[row]].schema.names),
                )


def _check_order(
    topic: str, partition: npt.NDArray[np.int64], offset: npt.NDArray[np.int64], available: npt.NDArray[np.int64]
) -> None:
    if len(partition) and not 0 <= int(partition.min()) <= int(partition.max()) < 1 << 16:
        raise InputError("HR-0528", f"events: topic {topic!r} has a partition outside 0 to 65535")
    if len(offset) and not 0 <= int(offset.min()) <= int(offset.max()) < 1 << 42:
        raise InputError("HR-0528", f"events: topic {topic!r} has an offset outside 0 to 2**42 - 1")
    same = np.diff(partition) == 0
    for wrong, what in ((np.diff(offset) == 0, "stands twice"), (np.diff(available) < 0, "became available before")):
        found = np.flatnonzero(same & wrong)
        if len(found):
            at = int(found[0]) + 1
            raise InputError(
                "HR-0528",
                f"events: offset {offset[at]} of {topic}/{partition[at]} {what}"
                + ("" if "twice" in what else f" offset {offset[at - 1]}"),
                detail="expected unique offsets, and available_at never falling along them",
            )


def _fields(file: File, topic: Topic, rows: Places, payload: list[object] | None) -> pa.RecordBatch:
    """The topic's fields in declared order."""
    if payload is not None:
        found: dict[str, list[object]] = {name: [] for name in topic.schema.names}
        for row in rows.tolist():
            one = payload[row]
            if not isinstance(one, Mapping):
                raise InputError("HR-0525", f"events: the payload of row {row} is no JSON object")
            for name in one:
                if name not in found:
                    raise NotFoundError(
                        "HR-0527",
                        f"events: row {row} holds {name!r}, which topic {topic.name!r} does not have",
                        hint=did_you_mean(str(name), topic.schema.names),
                    )
            for name, values in found.items():
                values.append(one.get(name))
        file = File("events", found, len(rows))
        rows = np.arange(len(rows))
    arrays = []
    for field in topic.schema:
        read = file.needed if field.name in (topic.key, topic.id, topic.event_time) and len(rows) else file.column
        arrays.append(read(field.name, field.type, rows))
    return pa.RecordBatch.from_arrays(arrays, names=list(topic.schema.names))


class _System:
    """The system columns of some rows."""

    def __init__(
        self,
        file: File,
        rows: Places,
        partition: npt.NDArray[np.int64],
        offset: npt.NDArray[np.int64],
        available: npt.NDArray[np.int64],
    ) -> None:
        self.partition, self.offset, self.available = partition[rows], offset[rows], available[rows]
        self.request = file.column("request", schema.boolean, rows).fill_null(False).to_numpy(zero_copy_only=False)
        self.verdicts = _given_verdicts(file, rows)


def _given_verdicts(file: File, rows: Places) -> npt.NDArray[np.uint8] | None:
    if "verdict" not in file:
        return None
    found = []
    for row, name in zip(rows.tolist(), file.needed("verdict", schema.string, rows).to_pylist(), strict=True):
        if name not in Verdict.__members__:
            hint = did_you_mean(name, Verdict.__members__)
            raise NotFoundError("HR-0527", f"events: row {row} has unknown verdict {name!r}", hint=hint)
        found.append(Verdict[name])
    return np.array(found, np.uint8)


def _judged(
    topic: Topic, batch: pa.RecordBatch, system: _System, judge: Callable[[Topic], Judging[Own]]
) -> dict[Partition, pa.Table]:
    """Each partition's rows as the log would read them back."""
    tables = {}
    judging = judge(topic)
    for index in np.unique(system.partition).tolist():
        rows = np.flatnonzero(system.partition == index)
        first, count = int(rows[0]), len(rows)
        part = batch.slice(first, count)
        available = system.available[rows]
        if system.verdicts is not None:
            verdicts = system.verdicts[rows]
            times = available if topic.event_time is None else units(part.column(topic.event_time)).copy()
            restamped = verdicts == Verdict.RESTAMPED
            times = np.where(restamped, available, times)
        elif index >= IMPORTS_FROM:
            found = judging.imported(index, part, available)
            judging.remember(index, part, found)
            verdicts, times = found.verdicts, found.event_times
        else:
            verdicts, times = _live(judging, judge(topic), index, part, available, system.request[rows])
        columns = {
            OFFSET: pa.array(system.offset[rows]),
            AVAILABLE_AT: instants(available),
            EVENT_TIME: instants(times),
            VERDICT: pa.array(verdicts),
        }
        fields = {name: part.column(name) for name in topic.schema.names}
        tables[Partition(topic.name, INCARNATION, index)] = pa.table({**columns, **fields})
    return tables


def _live(
    judging: Judging[Own],
    fresh: Judging[Own],
    index: int,
    batch: pa.RecordBatch,
    available: npt.NDArray[np.int64],
    request: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """A live partition's verdicts and event times, as if each row had been appended at its available_at.

    Where no id comes twice at all (what an import asks, for ever), and no row is a request, each row is judged by its
    times alone, and an import's judgement of the whole partition is the same; else run by run.
    """
    if not request.any():
        whole = fresh.imported(IMPORTS_FROM + index, batch, available)
        if not np.isin(whole.verdicts, (Verdict.DUPLICATE, Verdict.CONFLICT)).any():
            judging.remember(index, batch, whole)
            return whole.verdicts, whole.event_times
    changes = np.flatnonzero((np.diff(available) != 0) | (np.diff(request) != 0)) + 1
    starts = [0, *changes.tolist(), len(available)]
    verdicts = np.zeros(len(available), np.uint8)
    times = np.zeros(len(available), np.int64)
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        run = batch.slice(start, end - start)
        found = judging.live(index, run, Instant(int(available[start])), request=bool(request[start]))
        judging.remember(index, run, found)
        verdicts[start:end], times[start:end] = found.verdicts, found.event_times
    return verdicts, times
