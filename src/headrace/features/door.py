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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core import schema
from headrace.core.errors import InputError, NotFoundError, did_you_mean
from headrace.core.points import Cut, Partition
from headrace.features.define import FeatureView, Label
from headrace.features.door_events import INCARNATION, Judging, Own, read_events
from headrace.features.door_files import File, Places
from headrace.features.plan import ViewPlan
from headrace.features.replay import REASON_SUFFIX, column_names, replay
from headrace.features.replay_cuts import Kind
from headrace.features.replay_given import Cuts, conform
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows, entity_types
from headrace.log.define import Topic


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
    judge: Callable[[Topic], Judging[Own]],
    kind: Kind | str = Kind.SERVED,
) -> Answered:
    """Answer a file of points from a file of events; see above. topics: all of the project's. judge: of one topic.

    Raises: InputError HR-0525 (a file cannot be read), HR-0526 (a column is missing, or null where it must not be),
    HR-0528 (offsets or available_at out of order), HR-0529 (a cut); NotFoundError HR-0527 (an unknown topic, view,
    field or verdict); SchemaError HR-0522 to HR-0524.
    """
    declared = {topic.name: topic for topic in topics}
    held, count = read_events(File.read(events, "events"), declared, judge)
    asked = File.read(points, "points")
    table = _answers(asked, list(views), labels, declared, held, Kind(kind))
    written = out.with_name(out.name + ".part")
    pq.write_table(table, written)
    written.replace(out)
    return Answered(events=count, points=asked.count, features=sum(len(view.features) for view in views))


def _answers(
    file: File,
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
    file: File,
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


def _requests(view: FeatureView, file: File, asked: Places, topics: Mapping[str, Topic]) -> list[str | None]:
    """The topic of each row's request; None is a plain read."""
    if "request" not in file:
        asking = [topic for topic in view.topics if topic.id is not None and topic.id in file]
        ids = [topic.name if topic.derivation is None else topic.derivation.of for topic in asking]
        return [ids[0] if len(ids) == 1 else None] * len(asked)
    found: list[str | None] = file.column("request", schema.string, asked).to_pylist()
    for row, name in zip(asked.tolist(), found, strict=True):
        if name is not None and name not in topics:
            hint = did_you_mean(name, topics)
            raise NotFoundError("HR-0527", f"points: row {row} is a request of unknown topic {name!r}", hint=hint)
    return found


def _point_table(view: FeatureView, file: File, rows: Places, request: Topic | None) -> pa.Table:
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
