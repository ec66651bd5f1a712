"""The law in plain Python: what a value is, by counting it out. Pure, slow, and obviously right.

It implements docs/SEMANTICS.md and nothing else: from the definitions (topics, labels, views) and a list of events it
says what a point sees (1.6), which of that belongs to a window (2), and what the value is (3, 4), with `fractions` and
without any state. It shares no code with the kernel, the replay or the online state, which are all compared to it, to
the bit.

Published conventions: counts and integers are int, decimals int in units of their scale, instants and durations int
microseconds, floats float, last_n a list (oldest first), null None. Where the law leaves a case open, the choice stands
in the docstring of the function that makes it.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from headrace.core.aggregate import Function, Reason
from headrace.core.expr import Reference, Source
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.schema import DataType, Kind
from headrace.core.times import ZERO, Duration
from headrace.core.window import Aligned, Lifetime, Sliding, Unit, Window
from headrace.features.define import Feature, FeatureView, Label, entity_expression
from headrace.log.define import Clock, Emission, Topic
from headrace.log.port import TAKEN, Verdict
from headrace.testing.expressions import Physical, as_double, evaluate, local

Value = Physical | Sequence[Physical]
Entity = tuple[Physical, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Event:
    """A row of the log. id: 0 where its topic has none. values: its fields by name, physical; absent is null."""

    partition: Partition
    offset: int
    event_time: int
    available_at: int
    verdict: Verdict
    id: int | str
    values: Mapping[str, Physical]

    @property
    def topic(self) -> str:
        return self.partition.topic

    @property
    def order_key(self) -> tuple[int, int | str, int, int]:
        """(event_time, id, partition, offset), SEMANTICS 1.3."""
        return self.event_time, self.id, self.partition.index, self.offset


# --- what a point sees (SEMANTICS 1.1, 1.6) ---


def visible_served(events: Iterable[Event], cut: Cut, request: Event | None = None) -> list[Event]:
    """The recorded cut: what lies below it, late and quarantined events and the request itself aside."""
    ends = dict(cut)
    return [e for e in events if e.verdict in TAKEN and e.offset < ends.get(e.partition, 0) and not _same(e, request)]


def visible_available(events: Iterable[Event], request: Event, lag: Duration) -> list[Event]:
    """What a decision on the request would have seen."""
    a = request.available_at

    def seen(event: Event) -> bool:
        if event.topic != request.topic:
            return event.available_at + lag.micros <= a
        if event.partition == request.partition:
            return event.offset < request.offset
        return (event.available_at + lag.micros, event.order_key) < (a, request.order_key)

    return [e for e in events if e.verdict in TAKEN and not _same(e, request) and seen(e)]


def visible_recorded(
    events: Sequence[Event], cut: Cut, t: int, request: Event | None = None, lag: Duration = ZERO
) -> list[Event]:
    """The recorded cut; a topic that it does not mention follows *available*."""
    mentioned = cut.topics()
    others = [e for e in events if e.topic not in mentioned]
    available = visible_at(others, t, lag) if request is None else visible_available(others, request, lag)
    return [*visible_served(events, cut, request), *available]


def visible_at(events: Iterable[Event], t: int, lag: Duration) -> list[Event]:
    """Of a plain read at t, by *available*: what was available by then."""
    return [e for e in events if e.verdict in TAKEN and e.available_at + lag.micros <= t]


def visible_known_now(events: Iterable[Event], t: int, request: Event | None) -> list[Event]:
    """Everything, late events too; of the request's own topic what is before t, and at t what came before it."""

    def seen(event: Event) -> bool:
        if request is None or event.topic != request.topic or event.event_time < t:
            return True
        mine = (request.available_at, request.order_key)
        return event.event_time == t and (event.available_at, event.order_key) < mine

    late = (*TAKEN, Verdict.LATE)
    return [e for e in events if e.verdict in late and not _same(e, request) and seen(e)]


def _same(event: Event, request: Event | None) -> bool:
    return request is not None and event.offset == request.offset and event.partition == request.partition


class Seen:
    """Visible events at t, found by topic, by entity and by the origin they name. Nothing with event_time > t is read
    (2.5). owners: may be shared between points, to ask each event only once whose it is."""

    def __init__(self, visible: Iterable[Event], t: int, owners: Owners | None = None) -> None:
        self.t = t
        self.owners = Owners() if owners is None else owners
        self._of_entity: dict[tuple[str, Entity], list[Event]] = {}
        self._by_topic: dict[str, list[Event]] = defaultdict(list)
        self._naming: dict[tuple[str, str], dict[Physical, list[Event]]] = {}
        for event in visible:
            if event.event_time <= t:
                self._by_topic[event.topic].append(event)

    def of(self, topic: str) -> list[Event]:
        return self._by_topic.get(topic, [])

    def of_entity(self, view: FeatureView, entity: Entity) -> list[Event]:
        """The events of the view's sources that belong to the entity."""
        if (view.name, entity) not in self._of_entity:
            mine = [e for t in view.topics for e in self.of(t.name) if self.owners.of(view, e) == entity]
            self._of_entity[view.name, entity] = mine
        return self._of_entity[view.name, entity]

    def naming(self, topic: str, field: str, id: Physical) -> list[Event]:
        """The events of a topic whose field holds the id; an event that names none is nobody's."""
        if (topic, field) not in self._naming:
            found = self._naming[topic, field] = defaultdict(list)
            for event in self.of(topic):
                found[event.values.get(field)].append(event)
        return [] if id is None else self._naming[topic, field].get(id, [])


class Owners:
    """Whose each event is, by view; an answer once given is kept."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Event], Entity | None] = {}

    def of(self, view: FeatureView, event: Event) -> Entity | None:
        if (view.name, event) not in self._known:
            self._known[view.name, event] = entity_of(view, event)
        return self._known[view.name, event]


# --- the value of a feature (SEMANTICS 2, 3) ---


def value(
    view: FeatureView,
    feature: Feature,
    labels: Mapping[str, Label],
    visible: Iterable[Event],
    t: int,
    entity: Entity,
    request: Event | None = None,
) -> tuple[Value, Reason]:
    """The published value and its reason. visible: what one of the three replays sees, never the request itself."""
    return of_members(view, feature, labels, Seen(visible, t), entity, request)[0]


def values(
    view: FeatureView,
    labels: Mapping[str, Label],
    seen: Seen,
    entity: Entity,
    request: Event | None = None,
) -> list[tuple[Value, Reason]]:
    """Of every feature, in the view's order."""
    return [of_members(view, f, labels, seen, entity, request)[0] for f in view.features]


def of_members(
    view: FeatureView,
    feature: Feature,
    labels: Mapping[str, Label],
    seen: Seen,
    entity: Entity,
    request: Event | None,
) -> tuple[tuple[Value, Reason], int]:
    """The value and its reason, and of how many events it was made."""
    inside = members(view, feature, labels, seen, entity, request)
    found, reason = _aggregate(view, feature, labels, seen, inside)
    if reason is Reason.EMPTY and feature.empty is not None:
        found = _constant(feature.empty, feature.type)
    return (found, reason), len(inside)


def members(
    view: FeatureView,
    feature: Feature,
    labels: Mapping[str, Label],
    seen: Seen,
    entity: Entity,
    request: Event | None,
) -> list[Event]:
    """The one set that every aggregate reads (SEMANTICS 2.1), in order of the order key.

    With several sources, what is equal up to the id is ordered by the source's place in the view, partition, offset.
    """
    candidates = seen.of_entity(view, entity)
    if feature.current and request is not None and seen.owners.of(view, request) == entity:
        candidates = [*candidates, request]
    low, high = bounds(feature.window, seen.t)
    inside = [e for e in candidates if (low is None or low < e.event_time) and e.event_time <= high]
    if feature.where is not None:
        reads = [_Row(view, feature, labels, seen, e) for e in inside]
        inside = [row.event for row in reads if evaluate(feature.where, row.read) is True]
    places = {topic.name: place for place, topic in enumerate(view.topics)}

    def order(event: Event) -> tuple[int, int | str, int, int, int]:
        return event.event_time, event.id, places[event.topic], event.partition.index, event.offset

    return sorted(inside, key=order) if feature.function not in _UNORDERED else inside


# Of these the order cannot show, and several sources may have ids that do not compare.
_UNORDERED = frozenset(Function) - {Function.FIRST, Function.LAST, Function.LAST_N, Function.LOOKUP}


def entity_of(view: FeatureView, event: Event) -> Entity | None:
    """Whom the event belongs to; None where it is of none of the view's sources or a part of the key is null (3.5)."""
    for emission in view.sources.emissions:
        if emission.topic.name == event.topic:
            parts = [entity_expression(emission, part, view.name) for part in view.entity]
            found = tuple(evaluate(part, lambda r: event.values.get(r.name)) for part in parts)
            return None if None in found else found
    return None


def bounds(window: Window, t: int) -> tuple[int | None, int]:
    """(low, high]: low None is the beginning of time (SEMANTICS 2.1, 2.3)."""
    match window:
        case Sliding():
            return t - window.delay.micros - window.width.micros, t - window.delay.micros
        case Lifetime():
            return None, t - window.delay.micros
        case Aligned(complete=False):
            return start_of(window, t) - 1, t
    end = start_of(window, t)
    return start_of(window, end - 1) - 1, end - 1


@functools.lru_cache(maxsize=1 << 16)
def start_of(window: Aligned, t: int) -> int:
    """The first instant of the unit that holds t: found by bisection over what a wall clock shows.

    Where midnight does not exist a day begins with the jump; where an hour occurs twice each occurrence is an hour.
    """
    if isinstance(window.unit, Duration):
        return t - t % window.unit.micros

    def shows(instant: int) -> tuple[int, ...]:
        at = local(instant, window.tz)
        offset = at.utcoffset()
        assert offset is not None
        match window.unit:
            case Unit.HOUR:  # after the clock was set back the same hour is another one
                return at.year, at.month, at.day, at.hour, int(offset.total_seconds())
            case Unit.DAY:
                return at.year, at.month, at.day
            case Unit.WEEK:
                return (at.toordinal() - at.weekday(),)
            case Unit.MONTH:
                return at.year, at.month
        return (at.year,)

    reach = {Unit.HOUR: 1, Unit.DAY: 48, Unit.WEEK: 24 * 8, Unit.MONTH: 24 * 32, Unit.YEAR: 24 * 367}
    before, first = t - reach[window.unit] * 3_600_000_000, t
    while first - before > 1:
        middle = (before + first) // 2
        before, first = (before, middle) if shows(middle) == shows(t) else (middle, first)
    return first


# --- what a row's expressions read (SEMANTICS 4.1, 4.2, 4.4) ---


@dataclass(frozen=True, slots=True)
class _Row:
    """An event as the expressions of one feature see it at the point."""

    view: FeatureView
    feature: Feature
    labels: Mapping[str, Label]
    seen: Seen
    event: Event

    def read(self, reference: Reference) -> Physical:
        emission = next(e for e in self.view.sources.emissions if e.topic.name == self.event.topic)
        so_far = self.feature.known == "so_far"
        if reference.source is Source.LABEL:
            known = label_of(self.labels[reference.name], self.event, self.seen)
        elif reference.owner != emission.topic.name:
            return evaluate(dict(emission.columns)[reference.name], self.read)
        elif emission.topic.schema[reference.name].available_after is None:
            return self.event.values.get(reference.name)
        else:
            known = truth_of(emission, reference.name, self.event, self.seen, so_far=so_far)
        if known.there:
            return known.value
        return False if so_far and reference.type.kind is Kind.BOOLEAN else None  # "unknown counts as not yet"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a label or a late column. there: False is unknown, whatever the value."""

    there: bool
    value: Physical = None


UNKNOWN = Known(False)


def label_of(label: Label, origin: Event, seen: Seen) -> Known:
    """SEMANTICS 4.2 for the origin event at time e, at (t, cut).

    With `value=` a visible label event makes it known at once, as without; a boolean value is false where none came,
    any other null; a value that is null in the last event is null.
    """
    e, t = origin.event_time, seen.t
    within, maturity = label.within.micros, label.within.micros + label.grace.micros
    came = [
        x
        for x in seen.naming(label.source.name, label.on, origin.values.get(label.on))
        if e <= x.event_time <= min(e + within, t)
    ]
    if came and label.value is None:
        return Known(True, True)
    if came:
        last = max(came, key=lambda x: x.order_key)
        assert label.value is not None
        return Known(True, evaluate(label.value, lambda r: last.values.get(r.name)))
    if e + maturity <= t:
        return Known(True, False if label.type.kind is Kind.BOOLEAN else None)
    return UNKNOWN


def training_label(label: Label, origin: Event, seen: Seen) -> Known:
    """SEMANTICS 4.3 at (t_label, cut_label) = what `seen` holds: unknown is left out, whatever its label."""
    matured = origin.event_time + label.within.micros + label.grace.micros <= seen.t
    return label_of(label, origin, seen) if matured else UNKNOWN


def truth_of(emission: Emission, column: str, origin: Event, seen: Seen, *, so_far: bool) -> Known:
    """SEMANTICS 4.1: what is known of a late column of the origin event at (t, cut).

    An imported truth has its row's event time, and stands before a live one of the same instant; a null in an import is
    no truth. A live truth's event names its origin in a field called like the origin's id and holds the truth in one
    called like the column.
    """
    topic = emission.topic
    after = topic.schema[column].available_after
    assert after is not None
    waited = origin.event_time + after.micros <= seen.t
    came = [] if topic.id is None else seen.naming(f"{topic.name}.{column}", topic.id, origin.values.get(topic.id))
    live = [(x.order_key, x.values.get(column)) for x in came if waited or so_far]
    imported = origin.partition.index >= IMPORTS_FROM and origin.values.get(column) is not None
    if imported and waited and not any(key[0] >= origin.event_time for key, _ in live):
        return Known(True, origin.values[column])
    return Known(True, max(live, key=lambda truth: truth[0])[1]) if live else UNKNOWN


# --- aggregates (SEMANTICS 3) ---


def _aggregate(
    view: FeatureView, feature: Feature, labels: Mapping[str, Label], seen: Seen, inside: list[Event]
) -> tuple[Value, Reason]:
    """Null inputs are skipped; nothing left is EMPTY, and so is a lookup whose newest event holds a null.

    inside: in order of the order key.
    """
    if feature.function is Function.COUNT:
        return len(inside), Reason.VALUE if inside else Reason.EMPTY
    if not inside:
        return None, Reason.EMPTY
    if feature.function is Function.SINCE_LAST:
        return seen.t - max(e.event_time for e in inside), Reason.VALUE
    if feature.function is Function.SINCE_FIRST:
        return seen.t - min(e.event_time for e in inside), Reason.VALUE
    assert feature.input is not None
    read = [evaluate(feature.input, _Row(view, feature, labels, seen, e).read) for e in inside]
    if feature.function is Function.LOOKUP:
        return read[-1], Reason.EMPTY if read[-1] is None else Reason.VALUE
    there = [v for v in read if v is not None]
    if not there:
        return None, Reason.EMPTY
    match feature.function:
        case Function.FIRST:
            return there[0], Reason.VALUE
        case Function.LAST:
            return there[-1], Reason.VALUE
        case Function.LAST_N:
            return there[-feature.n :], Reason.VALUE
        case Function.DISTINCT:
            distinct = len(set(there))
            return (distinct, Reason.VALUE) if distinct <= view.max_distinct else (None, Reason.LIMIT)
        case Function.MIN:
            return min(there), Reason.VALUE
        case Function.MAX:
            return max(there), Reason.VALUE
    return _numbers(feature, [Fraction(v) for v in there], feature.input.type)


def _numbers(feature: Feature, numbers: list[Fraction], type: DataType) -> tuple[Value, Reason]:
    """Sums and what is made of them: exact, and rounded once. numbers: of decimals their units."""
    count, scale = len(numbers), 10**type.scale if type.kind is Kind.DECIMAL else 1
    total = sum(numbers, Fraction())
    match feature.function:
        case Function.SUM if feature.type.kind is Kind.FLOAT64:
            return rounded(total)
        case Function.SUM:
            fits = feature.type.kind is Kind.DECIMAL or -(2**63) <= total < 2**63
            return (int(total), Reason.VALUE) if fits else (None, Reason.OVERFLOW)
        case Function.MEAN | Function.RATE:
            return rounded(total / (count * scale))
    divisor = count - 1 if feature.sample else count
    if divisor == 0:
        return None, Reason.EMPTY
    mean = total / count
    variance, reason = rounded(sum(((x - mean) ** 2 for x in numbers), Fraction()) / (divisor * scale**2))
    if feature.function is Function.VARIANCE or not isinstance(variance, float):
        return variance, reason
    return math.sqrt(variance), reason


def rounded(exact: Fraction) -> tuple[Value, Reason]:
    """The nearest double, never -0.0; outside the range null with the reason OVERFLOW (SEMANTICS 3.3)."""
    try:
        return float(exact) + 0.0, Reason.VALUE
    except OverflowError:
        return None, Reason.OVERFLOW


def _constant(empty: int | float, type: DataType) -> Value:
    """What `empty=` says, in the feature's type; of a decimal the units of what was written."""
    if type.kind is Kind.DECIMAL:
        return int(Fraction(str(empty)) * 10**type.scale)
    return as_double(empty, type) if type.kind is Kind.FLOAT64 else int(empty)


# --- what the log says of a row (SEMANTICS 1.2 to 1.5) ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row on its way into the log. at: the append instant; of an import its declared available_at. request: a
    decision's request, which no clock refuses."""

    partition: Partition
    values: Mapping[str, Physical]
    at: int
    request: bool = False


def judge_naive(topic: Topic, rows: Sequence[Row]) -> list[Event]:
    """The rows, in the order in which they are appended, as the log holds them.

    A known id decides first, then a request's skew, then the event time against available_at. Only what was taken, late
    events included, makes an id known. An import's rows are compared with every partition, for ever; a live row with
    its own partition, within `dedup`.
    """
    judged: list[Event] = []
    for row in rows:
        mine = [e for e in judged if e.partition == row.partition]
        declared = row.at if topic.event_time is None else row.values[topic.event_time]
        assert isinstance(declared, int)
        live = row.partition.index < IMPORTS_FROM
        instant = declared if live and topic.clock is Clock.SIMULATED else row.at
        at = max([instant, *(e.available_at for e in mine)])
        appended = at if topic.clock is Clock.SIMULATED else row.at
        verdict, event_time = _by_time(topic, declared, at), declared
        if row.request and abs(declared - appended) > topic.skew.micros:
            verdict, event_time = Verdict.RESTAMPED, appended
        known = [e for e in (mine if live else judged) if _takes_id(topic, e, row)]
        near = [e for e in known if not live or at - e.available_at <= topic.dedup.micros]
        if near:
            verdict = (
                Verdict.DUPLICATE
                if _payload(topic, near[-1].values) == _payload(topic, row.values)
                else Verdict.CONFLICT
            )
        judged.append(
            Event(
                partition=row.partition,
                offset=len(mine),
                event_time=event_time,
                available_at=at,
                verdict=verdict,
                id=_id(topic, row),
                values=row.values,
            )
        )
    return judged


def _id(topic: Topic, row: Row) -> int | str:
    id = 0 if topic.id is None else row.values[topic.id]
    assert isinstance(id, (int, str))
    return id


def _by_time(topic: Topic, event_time: int, available_at: int) -> Verdict:
    if event_time > available_at + topic.max_ahead.micros:
        return Verdict.AHEAD
    return Verdict.LATE if event_time < available_at - topic.max_late.micros else Verdict.ACCEPTED


def _takes_id(topic: Topic, earlier: Event, row: Row) -> bool:
    if topic.id is None or earlier.verdict not in (*TAKEN, Verdict.LATE):
        return False
    return earlier.values[topic.id] == row.values[topic.id]


def _payload(topic: Topic, values: Mapping[str, Physical]) -> list[Physical]:
    """What must be equal in a duplicate: all but the late columns, which a live event leaves null."""
    return [values.get(f.name) for f in topic.schema if f.available_after is None]
