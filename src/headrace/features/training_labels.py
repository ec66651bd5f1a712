"""What became of each request, as of one later point: the labels of a training set (SEMANTICS 4.2, 4.3). Pure.

The one idea: facts sorted by (origin, order key) make "the first at or after e" and "the last up to" two binary
searches, so millions of requests are joined in columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.columns import evaluate_columns
from headrace.core.errors import NotFoundError
from headrace.core.expr import Expr, Reference, references
from headrace.core.kernel.program import Words
from headrace.core.schema import Kind
from headrace.core.times import Instant
from headrace.features.define import Label
from headrace.features.facts import FactRule
from headrace.features.replay_log import Events, TopicRows
from headrace.log.define import Topic

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """mature: of each request whether e + maturity <= t_label. values: of the label's type; null where it is not known,
    which of a mature one happens only with late columns whose truth never came, and values that are null."""

    mature: Mask
    values: pa.Array


def training_labels(label: Label | Reference, events: Events, topic: str, row: Words, t_label: Instant) -> Labelled:
    """The label of each request, at the end of these events.

    label: of the topic, or one of its late columns. row: of the topic's rows. Label events marked LATE count.
    Raises: NotFoundError HR-0520 for a label whose topic was not read.
    """
    rows = events.topic(topic)
    time = rows.event_time[row]
    if isinstance(label, Label):
        mature = time <= t_label - label.maturity.micros
        return Labelled(mature=mature, values=_of_label(label, events, rows, row, time, int(t_label)))
    mature = time <= t_label - label.availability.after.micros
    return Labelled(mature=mature, values=_of_late(label, events, rows, row, time, int(t_label)))


def _of_label(label: Label, events: Events, rows: TopicRows, row: Words, time: Words, t_label: int) -> pa.Array:
    if label.source.name not in events:
        raise NotFoundError(
            "HR-0520",
            f"no topic {label.source.name!r} among the events, from which label {label.name!r} comes",
            hint="declare it: headrace apply",
        )
    facts = _Facts(events.topic(label.source.name), label.on, label.value, rows, row)
    until = np.minimum(time + label.within.micros, t_label)
    if label.value is None:
        return pa.array(facts.any_between(time, until))
    place, found = facts.last_between(time, until)
    values = facts.values.take(pa.array(place, mask=~found))
    if label.type.kind is Kind.BOOLEAN:  # false where none came; what the last one says, be it null, where one did
        return pc.if_else(pa.array(found), values, False)
    return values


def _of_late(label: Reference, events: Events, rows: TopicRows, row: Words, time: Words, t_label: int) -> pa.Array:
    """Live truths, and imported ones where no live one is of their event's time or later (SEMANTICS 4.1)."""
    topic: Topic = rows.topic
    rule = FactRule.of_late(topic, label.name)
    column = rows.table.column(label.name).take(pa.array(row)).combine_chunks()
    imported = rows.imported[row]
    values = column if imported.all() else pc.if_else(pa.array(imported), column, pa.scalar(None, column.type))
    if not rule.on or rule.topic not in events or not len(events.topic(rule.topic)):
        return values
    facts = _Facts(events.topic(rule.topic), rule.on, events.topic(rule.topic).topic[label.name], rows, row)
    place, found = facts.last_between(np.full(len(row), np.iinfo(np.int64).min), np.full(len(row), t_label))
    live = facts.values.take(pa.array(place, mask=~found))
    held = values.is_valid().to_numpy(zero_copy_only=False)
    later = found & (~held | (facts.time_at(place) >= time))
    return pc.if_else(pa.array(later), live, values)


class _Facts:
    """Facts by the request they name, sorted by order key, beside the requests' own codes."""

    def __init__(self, topic: TopicRows, on: str, value: Expr | None, origins: TopicRows, row: Words) -> None:
        visible = topic.visible(late=True)
        named = topic.table.column(on).is_valid().to_numpy()
        facts = np.flatnonzero(named if visible is None else named & visible).astype(np.int64)
        on_column = topic.table.column(on).take(pa.array(facts)).combine_chunks()
        encoded = on_column.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        partition, offset = topic.partition_of(facts), topic.offset[facts]
        order = np.lexsort((offset, partition, topic.order()[facts], topic.event_time[facts], codes))
        self._codes, self._times = codes[order], topic.event_time[facts][order]
        self._instants = np.unique(self._times)
        self._keys = self._codes * (len(self._instants) + 1) + np.searchsorted(self._instants, self._times)
        self.values = pa.nulls(0)
        if value is not None:
            taken = pa.array(facts[order])
            columns = {r.path: topic.table.column(r.name).take(taken) for r in references(value)}
            self.values = evaluate_columns(value, columns, rows=len(order))
        asked = origins.table.column(str(origins.topic.id)).take(pa.array(row)).combine_chunks()
        found = pc.index_in(asked, value_set=encoded.dictionary, skip_nulls=True)
        self._asked = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    def any_between(self, first: Words, last: Words) -> Mask:
        """Whether each request has a fact with first <= event_time <= last."""
        named = np.flatnonzero(self._asked >= 0)
        place = np.searchsorted(self._keys, self._key(named, first[named], "left"), side="left")
        found = np.zeros(len(self._asked), np.bool_)
        inside = place < len(self._keys)
        at = place[inside]
        some = named[inside]
        found[some] = (self._codes[at] == self._asked[some]) & (self._times[at] <= last[some])
        return found

    def last_between(self, first: Words, last: Words) -> tuple[Words, Mask]:
        """(the last fact by order key of each request within the times, or 0; whether there is one)."""
        named = np.flatnonzero(self._asked >= 0)
        place = np.searchsorted(self._keys, self._key(named, last[named], "right"), side="left") - 1
        result, found = np.zeros(len(self._asked), np.int64), np.zeros(len(self._asked), np.bool_)
        inside = place >= 0
        at, some = place[inside], named[inside]
        good = (self._codes[at] == self._asked[some]) & (self._times[at] >= first[some])
        result[some[good]], found[some[good]] = at[good], True
        return result, found

    def time_at(self, place: Words) -> Words:
        return self._times[place] if len(self._times) else np.zeros(len(place), np.int64)

    def _key(self, named: npt.NDArray[np.intp], times: Words, side: str) -> Words:
        """Where a fact of the request at this time would stand: before ("left") or behind ("right") those of that
        time."""
        rank = np.searchsorted(self._instants, times, side="left" if side == "left" else "right")
        return self._asked[named] * (len(self._instants) + 1) + rank
