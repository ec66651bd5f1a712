"""One recorded decision, explained from the log: what it read, what each rule made of it, whether it recomputes. Reads
the log.

The one idea: the record says where it looked, so the events behind a value are those below its cut, of its entity, in
the view's widest window. Reading them costs what reading the view's topics costs.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import Physical, batch_to_rows, json_value, physical_array, units
from headrace.core.columns import evaluate_columns
from headrace.core.errors import HeadraceError, LogError, NotFoundError
from headrace.core.expr import references
from headrace.core.points import Cut, Partition
from headrace.core.schema import Schema
from headrace.core.times import Instant, iso
from headrace.core.window import Aligned
from headrace.decisions.explain import EventSeen, Explanation, ViewSeen, explain, view_seen
from headrace.decisions.record import DecisionRecord
from headrace.decisions.replay import Difference
from headrace.decisions.replay import replay as replay_records
from headrace.features.define import FeatureView, entity_expression
from headrace.log.define import Emission
from headrace.log.port import EVENT_TIME, OFFSET, TAKEN, VERDICT, Log
from headrace.runtime.definitions import reach
from headrace.runtime.lookup import find_record
from headrace.runtime.project import Project
from headrace.runtime.recompute import recompute_with, request_rows
from headrace.runtime.versions import versions_of

EVENTS_MAX = 20  # of each view that are shown; all are counted
_RETAINED = "HR-0303"


def explain_decision(project: Project, decision_id: str, *, events: int = EVENTS_MAX) -> Explanation:
    """Everything about one recorded decision.

    events: how many of each view's are shown at most. Raises: NotFoundError HR-0716, HR-0806.
    """
    record = find_record(project, decision_id)
    decision = project.definitions.decision(record.decision)
    row = _request(project, record)
    version = versions_of(project, record.decision)(record.versions)
    said, differences = _recomputed(project, record)
    names = [str(name) for name, _ in json.loads(record.versions)["views"]]
    views = []
    for name, point, answer in zip(names, record.points, record.answers, strict=True):
        view = project.definitions.views.get(name)
        seen = view_seen(name, view, decision, row, point, answer)
        if view is not None and row is not None and point.absent is None:
            key = [row[decision.request.schema.names.index(part)] for part in view.entity]
            seen = _Events(project.log, view, key, record, events).of(seen, point.cut)
        views.append(seen)
    return explain(record, decision, version=version, row=row, views=views, replay=said, differences=differences)


def _request(project: Project, record: DecisionRecord) -> Sequence[Physical] | None:
    topic = project.definitions.decision(record.decision).request
    try:
        (row,) = request_rows(project.log, topic)(record.request, [record.offset])
    except NotFoundError:  # its topic was dropped, or made anew
        return None
    except LogError as error:
        if error.code != _RETAINED:
            raise
        return None
    return row


def _recomputed(project: Project, record: DecisionRecord) -> tuple[str, Sequence[Difference]]:
    """Whether the record recomputes to the same bits, in words."""
    try:
        report = replay_records(
            [record],
            versions=versions_of(project, record.decision),
            requests=request_rows(project.log, project.definitions.decision(record.decision).request),
            recompute=recompute_with(project.log, project.compile),
        )
    except HeadraceError as error:
        return f"it could not be computed again: {error.message}", ()
    if report.unknown:
        return "it was not computed again: the definitions or the model that decided are not at hand", ()
    if report.erased:
        return "it was not computed again: the request is no longer in the log", ()
    if report.mismatched:
        return "it was computed again and DIFFERS", report.differences
    return "it was computed again, to the same bits", ()


class _Events:
    """The events that one view's answer looked at. Lives for one view of one decision."""

    def __init__(self, log: Log, view: FeatureView, key: Sequence[Physical], record: DecisionRecord, show: int) -> None:
        reaches = [reach(feature.window) for feature in view.features]
        widest = None if None in reaches else max(each.micros for each in reaches if each is not None)
        self._log, self._view, self._key, self._record, self._show = log, view, key, record, show
        self._since = None if widest is None else Instant(record.t - widest)
        delays = [0 if isinstance(f.window, Aligned) else f.window.delay.micros for f in view.features]
        self._until = Instant(record.t - min(delays))
        self._newest: list[tuple[int, int, EventSeen]] = []  # (event time, a number, event): a heap, the oldest first
        self._numbers = itertools.count()  # so that equal times are told apart, and events are not compared
        self._count = 0

    def of(self, seen: ViewSeen, cut: Cut) -> ViewSeen:
        """The answer with its events. cut: where it was asked."""
        starts = {held.partition: held.start for state in self._log.topics() for held in state.partitions}
        for emission in self._view.sources.emissions:
            fields = self._fields(emission)
            for partition, end in cut:
                start = starts.get(partition, end)
                if partition.topic == emission.topic.name and start < end:
                    for batch in self._log.read(partition, start, end=end):
                        self._batch(emission, fields, partition, batch)
        return dataclasses.replace(
            seen,
            since=None if self._since is None else iso(self._since),
            until=iso(self._until),
            events=tuple(event for _, _, event in sorted(self._newest, reverse=True)),
            events_count=self._count,
        )

    def _fields(self, emission: Emission) -> Schema:
        """Of a source's events, what says whose they are and what the view reads."""
        read = [part for f in self._view.features for part in (f.input, f.where) if part is not None]
        emitted = {r.name for part in read for r in references(part)}
        parts = [expr for name, expr in emission.columns if name in emitted]
        parts += [entity_expression(emission, part, self._view.name) for part in self._view.entity]
        names = {r.name for part in parts for r in references(part)} | {emission.topic.id}
        kept = tuple(f for f in emission.topic.schema if f.name in names)
        return Schema(emission.topic.name, kept)

    def _batch(self, emission: Emission, fields: Schema, partition: Partition, batch: pa.RecordBatch) -> None:
        offsets, times = units(batch.column(OFFSET)), units(batch.column(EVENT_TIME))
        wanted = np.isin(batch.column(VERDICT).to_numpy(), TAKEN) & (times <= self._until)
        if self._since is not None:
            wanted &= times > self._since
        if partition == self._record.request:
            wanted &= offsets != self._record.offset
        columns = {f"{emission.topic.name}.{name}": batch.column(name) for name in emission.topic.schema.names}
        for part, value in zip(self._view.entity, self._key, strict=True):
            expr = entity_expression(emission, part, self._view.name)
            same = pc.equal(evaluate_columns(expr, columns), physical_array([value], expr.type)[0])
            wanted &= same.fill_null(False).to_numpy(zero_copy_only=False)
        places = np.flatnonzero(wanted)
        self._count += len(places)
        newest = places[np.argsort(times[places], kind="stable")][-self._show :] if self._show else places[:0]
        for place in newest.tolist():
            (row,) = batch_to_rows(fields, batch.slice(place, 1))
            event = EventSeen(
                topic=partition.topic,
                partition=partition.index,
                offset=int(offsets[place]),
                event_time=iso(Instant(int(times[place]))),
                fields={f.name: json_value(value, f.type) for f, value in zip(fields, row, strict=True)},
            )
            heapq.heappush(self._newest, (int(times[place]), next(self._numbers), event))
            if len(self._newest) > self._show:
                heapq.heappop(self._newest)
