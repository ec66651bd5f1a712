"""The door for outside checks: events and points in files, feature values out, by the same replay that trains models.

`headrace features replay --project DIR --events FILE --points FILE --out FILE` calls `replay_files`. Whoever wants to
check headrace writes a log and points by a program of their own and compares the answers. The format is stable:

Files are Parquet, or NDJSON (one JSON object a line); a file that begins with PAR1 is Parquet.

EVENTS, one row an event, in any order:
    topic         text, one of the project's topics (or `<topic>.<late column>` for the truths of a late column)
    partition     integer; from 1024 on a sealed import
    offset        integer, unique in its partition; need not start at 0 nor be contiguous
    available_at  instant, never falling along the offsets of a partition
    request       optional, boolean: a decision's request, whose event time is replaced where it lies outside `skew`
    verdict       optional, text (ACCEPTED, LATE, DUPLICATE, CONFLICT, AHEAD, RESTAMPED): taken as given. Without it
                  rows are judged as the log judges them, in order of offset, live partitions before imports
  and either the fields of all topics as columns, null where a field is not of the row's topic, or `payload`, a JSON
  object.

POINTS, one row a question:
    point         what names the question in the answer, anything; unique is up to the caller
    view          optional, text: only this view is asked; null or absent: all
    t             instant; null or absent for a logged request, whose event time it is
    cut           optional: {"topic/partition": next offset, ...} or a list of {"topic": ..., "partition": ...,
                  "offset": ...}, in Parquet as JSON text. A topic that it does not mention, and everything where it is
                  null, follows *available*: what had become available, the view's lag included, at the request, or at t
    request       optional, text: the topic whose request the row is. Without the column: the one topic of the asked
                  views whose id is a column here
  and as columns the entity's fields, the request's id and its other fields. A logged id is that request, an unknown one
  a hypothetical request with these fields, none a plain read.

OUT, Parquet: `point`, then for every feature its value and `<feature>__reason` (VALUE, EMPTY, OVERFLOW, LIMIT), in the
points' order. A feature whose name two views have is called `view.feature`. Null, reason included, where it was not
asked.

Instants are timestamps with a zone, ISO 8601 texts with a zone, or integers of microseconds since 1970; decimals may be
texts. Reads two files and writes one, whole or not at all.
"""

from __future__ import annotations

import decimal
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core import schema
from headrace.core.codec import instants, units
from headrace.core.errors import InputError, NotFoundError, did_you_mean
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.schema import DataType
from headrace.core.times import Instant
from headrace.features.define import FeatureView, Label
from headrace.features.plan import ViewPlan
from headrace.features.replay import REASON_SUFFIX, column_names, replay
from headrace.features.replay_cuts import Kind
from headrace.features.replay_given import Cuts, conform
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows, entity_types
from headrace.log.define import Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, OFFSET, VERDICT, Verdict

INCARNATION = 1  # of every topic in a file
_EVENT_COLUMNS = ("topic", "partition", "offset", "available_at", "request", "verdict", "payload")
_POINT_COLUMNS = ("point", "view", "t", "cut", "request")

Places = npt.NDArray[np.intp]


class Judged(Protocol):
    """One entry a row: a Verdict each, and microseconds."""

    @property
    def verdicts(self) -> npt.NDArray[np.uint8]: ...
    @property
    def event_times(self) -> npt.NDArray[np.int64]: ...


class Judging(Protocol):
    """Says what the log says of rows: headrace.log.plan.Judge, which the caller brings."""

    def live(self, partition: int, rows: pa.RecordBatch, now: Instant, *, request: bool = False) -> Judged: ...
    def imported(self, partition: int, rows: pa.RecordBatch, available_at: npt.NDArray[np.int64]) -> Judged: ...
    def remember(self, partition: int, rows: pa.RecordBatch, judged: Judged) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a call did."""

    events: int
    points: int
    features: int


def replay_files(
    views: Sequence[FeatureView],
    labels: Mapping[str, Label],
    topics: Sequence[Topic],
    *,
    events: Path,
    points: Path,
    out: Path,
    judge: Callable[[Topic], Judging],
    kind: Kind | str = Kind.SERVED,
) -> Answered:
    """Answer a file of points from a file of events; see above. topics: all of the project's. judge: of one topic.

    Raises: InputError HR-0525 (a file cannot be read), HR-0526 (a column is missing, or null where it must not be),
    HR-0528 (offsets or available_at out of order), HR-0529 (a cut); NotFoundError HR-0527 (an unknown topic, view,
    field or verdict); SchemaError HR-0522 to HR-0524.
    """
    declared = {topic.name: topic for topic in topics}
    held, count = _events(_File.read(events, "events"), declared, judge)
    asked = _File.read(points, "points")
    table = _answers(asked, list(views), labels, declared, held, Kind(kind))
    written = out.with_name(out.name + ".part")
    pq.write_table(table, written)
    written.replace(out)
    return Answered(events=count, points=asked.count, features=sum(len(view.features) for view in views))


class _File:
    """A file's columns: of Parquet as Arrow has them, of NDJSON as Python values."""

    def __init__(self, what: str, columns: Mapping[str, pa.Array | Sequence[object]], count: int) -> None:
        self.what = what
        self.columns = columns
        self.count = count

    @classmethod
    def read(cls, path: Path, what: str) -> _File:
        try:
            with path.open("rb") as file:
                begins = file.read(4)
            if begins == b"PAR1":
                table = pq.read_table(path)
                columns = {name: table.column(name).combine_chunks() for name in table.column_names}
                return cls(what, columns, table.num_rows)
            return cls._of_lines(path, what)
        except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise InputError(
                "HR-0525", f"{what} file {str(path)!r} cannot be read", detail=f"{type(error).__name__}: {error}"
            ) from error

    @classmethod
    def _of_lines(cls, path: Path, what: str) -> _File:
        rows: list[Mapping[str, object]] = []
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    rows.append(_object(line, f"line {number} of the {what} file"))
        names = dict.fromkeys(name for row in rows for name in row)
        return cls(what, {name: [row.get(name) for row in rows] for name in names}, len(rows))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def column(self, name: str, type: DataType, rows: Places | None = None) -> pa.Array:
        """A column, or some rows of it, in the type's Arrow type; nulls where there is none."""
        if name not in self.columns:
            return pa.nulls(self.count if rows is None else len(rows), type.arrow)
        values = self.columns[name]
        if rows is not None:
            values = self.some(name, rows)
        return conform(values, type, f"{self.what}: column {name!r}")

    def some(self, name: str, rows: Places) -> pa.Array | Sequence[object]:
        """Some rows of a column as the file has them."""
        values = self.columns[name]
        return values.take(pa.array(rows)) if isinstance(values, pa.Array) else [values[row] for row in rows.tolist()]

    def needed(self, name: str, type: DataType, rows: Places | None = None) -> pa.Array:
        """A column that must be there, without nulls."""
        if name not in self.columns:
            raise InputError(
                "HR-0526", f"the {self.what} file has no column {name!r}", hint=did_you_mean(name, self.columns)
            )
        made = self.column(name, type, rows)
        if made.null_count:
            row = int(np.flatnonzero(made.is_null().to_numpy(zero_copy_only=False))[0])
            row = row if rows is None else int(rows[row])
            raise InputError("HR-0526", f"{self.what}: column {name!r} is null in row {row}")
        return made

    def objects(self, name: str) -> list[object]:
        """JSON values of a column: as they are in NDJSON, parsed from text or made of structs in Parquet."""
        values = self.columns.get(name)
        if values is None:
            return [None] * self.count
        found = values.to_pylist() if isinstance(values, pa.Array) else list(values)
        what = f"{self.what}: column {name!r}"
        return [_parsed(one, f"{what}, row {row}") if isinstance(one, str) else one for row, one in enumerate(found)]

    def there(self, name: str) -> Places:
        """The rows where a column is not null."""
        values = self.columns[name]
        if isinstance(values, pa.Array):
            return np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        return np.flatnonzero([value is not None for value in values])


def _parsed(text: str, what: str) -> object:
    """JSON, numbers with a point as decimals, so that nothing is lost before the field's type is known."""
    try:
        return json.loads(text, parse_float=decimal.Decimal)
    except ValueError as error:
        raise InputError("HR-0525", f"{what} is no JSON", detail=str(error)) from error


def _object(text: str, what: str) -> Mapping[str, object]:
    found = _parsed(text, what)
    if not isinstance(found, dict):
        raise InputError("HR-0525", f"{what} is no JSON object", detail=f"seen {text.strip()[:60]}")
    return found


# --- events ---


def _events(file: _File, topics: Mapping[str, Topic], judge: Callable[[Topic], Judging]) -> tuple[Events, int]:
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


def _check_fields(file: _File, topics: Mapping[str, Topic], names: pa.Array) -> None:
    """Every column is some topic's field, and holds nothing in the rows of a topic that has no such field."""
    known = {field.name for topic in topics.values() for field in topic.schema}
    said = names.to_pylist()
    for name in file.columns:
        if name in _EVENT_COLUMNS:
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


def _fields(file: _File, topic: Topic, rows: Places, payload: list[object] | None) -> pa.RecordBatch:
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
        file = _File("events", found, len(rows))
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
        file: _File,
        rows: Places,
        partition: npt.NDArray[np.int64],
        offset: npt.NDArray[np.int64],
        available: npt.NDArray[np.int64],
    ) -> None:
        self.partition, self.offset, self.available = partition[rows], offset[rows], available[rows]
        self.request = file.column("request", schema.boolean, rows).fill_null(False).to_numpy(zero_copy_only=False)
        self.verdicts = _given_verdicts(file, rows)


def _given_verdicts(file: _File, rows: Places) -> npt.NDArray[np.uint8] | None:
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
    topic: Topic, batch: pa.RecordBatch, system: _System, judge: Callable[[Topic], Judging]
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
    judging: Judging,
    fresh: Judging,
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


# --- points ---


def _answers(
    file: _File,
    views: list[FeatureView],
    labels: Mapping[str, Label],
    topics: Mapping[str, Topic],
    events: Events,
    kind: Kind,
) -> pa.Table:
    if "point" not in file:
        raise InputError("HR-0526", "the points file has no column 'point'", hint=did_you_mean("point", file.columns))
    wanted = file.column("view", schema.string).to_pylist()
    known = [view.name for view in views]
    for row, name in enumerate(wanted):
        if name is not None and name not in known:
            hint = did_you_mean(name, known)
            raise NotFoundError("HR-0527", f"points: row {row} asks unknown view {name!r}", hint=hint)
    cuts = [_cut(one, topics, row) for row, one in enumerate(file.objects("cut"))]
    plans = [ViewPlan.compile(view, labels) for view in views]
    names = column_names(plans)
    columns: dict[str, pa.Array] = {"point": _names(file.columns["point"])}
    for plan in plans:
        asked = np.flatnonzero([name is None or name == plan.view.name for name in wanted])
        found = _asked(plan, file, asked, cuts, topics, events, kind)
        place = np.full(file.count, -1, np.int64)
        place[asked] = np.arange(len(asked))
        indices = pa.array(place, mask=place < 0)
        for feature in plan.view.features:
            name = names[plan.view.name, feature.name]
            for column, told in ((name, feature.name), (name + REASON_SUFFIX, feature.name + REASON_SUFFIX)):
                columns[column] = found.column(told).combine_chunks().take(indices)
    return pa.table(columns)


def _names(points: pa.Array | Sequence[object]) -> pa.Array:
    """What names the points: as given, or as texts where JSON holds no one type of them."""
    if isinstance(points, pa.Array):
        return points
    if all(isinstance(point, int) and not isinstance(point, bool) for point in points):
        return pa.array(points, pa.int64())
    return pa.array([None if point is None else str(point) for point in points], pa.string())


def _asked(
    plan: ViewPlan,
    file: _File,
    asked: Places,
    cuts: list[Cut | None],
    topics: Mapping[str, Topic],
    events: Events,
    kind: Kind,
) -> pa.Table:
    """One view's answers, by the topic whose requests the rows are."""
    requests = _requests(plan.view, file, asked, topics)
    parts, places = [], []
    for request in dict.fromkeys(requests):
        rows = asked[[one == request for one in requests]]
        table = _point_table(plan.view, file, rows, None if request is None else topics[request])
        made = Rows.of(events, table, request=request, cuts=Cuts.of([cuts[row] for row in rows.tolist()]))
        parts.append(replay([plan], events, made, kind=kind, reasons=True))
        places.append(rows)
    if not parts:
        none = Rows.of(events, _point_table(plan.view, file, asked, None))
        return replay([plan], events, none, kind=kind, reasons=True)
    order = np.argsort(np.concatenate(places), kind="stable")
    return pa.concat_tables(parts).take(pa.array(order))


def _requests(view: FeatureView, file: _File, asked: Places, topics: Mapping[str, Topic]) -> list[str | None]:
    """The topic of each row's request; None is a plain read."""
    if "request" not in file:
        ids = [topic.name for topic in view.topics if topic.id is not None and topic.id in file]
        return [ids[0] if len(ids) == 1 else None] * len(asked)
    found: list[str | None] = file.column("request", schema.string, asked).to_pylist()
    for row, name in zip(asked.tolist(), found, strict=True):
        if name is not None and name not in topics:
            hint = did_you_mean(name, topics)
            raise NotFoundError("HR-0527", f"points: row {row} is a request of unknown topic {name!r}", hint=hint)
    return found


def _point_table(view: FeatureView, file: _File, rows: Places, request: Topic | None) -> pa.Table:
    """What `Rows.of` reads: t, the request's fields, and what the entity is called."""
    columns = {"t": file.column("t", schema.timestamp, rows)}
    fields = {} if request is None else {f.name: f.type for f in request.schema}
    for name in file.columns:
        if name in fields and name != "t":
            columns[name] = file.column(name, fields[name], rows)
        elif name in view.entity:
            type = entity_types(view)[view.entity.index(name)]
            columns[name] = conform(file.some(name, rows), type, f"points: column {name!r}")
    return pa.table(columns)


def _cut(said: object, topics: Mapping[str, Topic], row: int) -> Cut | None:
    """A cut as a point gives it. Raises: InputError HR-0529."""
    if said is None:
        return None
    try:
        if isinstance(said, Mapping):
            pairs = [(*str(key).rsplit("/", 1), offset) for key, offset in said.items() if offset is not None]
        elif isinstance(said, list):
            pairs = [(one["topic"], one["partition"], one["offset"]) for one in said]
        else:
            raise ValueError(f"expected an object or a list, seen {type(said).__name__}")
        found = {Partition(topic, INCARNATION, _whole(index)): _whole(offset) for topic, index, offset in pairs}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "HR-0529",
            f"points: the cut of row {row} cannot be read",
            detail=f"{type(error).__name__}: {error}; seen {str(said)[:80]}",
            hint='write {"topic/partition": next offset} or [{"topic": ..., "partition": ..., "offset": ...}]',
        ) from error
    for partition in found:
        if partition.topic not in topics:
            raise NotFoundError(
                "HR-0527",
                f"points: the cut of row {row} names unknown topic {partition.topic!r}",
                hint=did_you_mean(partition.topic, topics),
            )
    return Cut.of(found)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or int(value) < 0:
        raise ValueError(f"not an offset or partition: {value!r}")
    return int(value)


__all__ = ["Answered", "Judging", "replay_files"]
