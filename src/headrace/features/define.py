"""Feature views and labels: what is computed for an entity, over what, and what may be known when. Frozen, pure.

An aggregate (aggregates.py) is asked of a view's sources over a window: `hr.mean(applications.amount).over("7d")`. What
it reads carries when it is known: a window over a label or a late column that does not wait long enough is an error
here, when the definition is made (SEMANTICS 4.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.core import schema
from headrace.core.aggregate import ORDERED, WITHOUT_CURRENT, Function, gives
from headrace.core.availability import NOW, Availability, Lateness, latest
from headrace.core.errors import DefinitionError, LeakError, MaturityError, did_you_mean
from headrace.core.expr import Expr, Operand, Reference, Source, references, to_expr
from headrace.core.schema import DataType, Kind
from headrace.core.times import ZERO, Duration
from headrace.core.window import Aligned, Lifetime, Sliding, Window
from headrace.features.aggregates import (
    KNOWN,
    Aggregate,
    Asked,
    count,
    distinct,
    first,
    identifier,
    last,
    last_n,
    lookup,
    max,
    mean,
    min,
    rate,
    std,
    sum,
    time_since_first,
    time_since_last,
    variance,
)
from headrace.log.define import Emission, Topic

MAX_EVENTS = 1 << 23  # per key and window; the widths of exact sums are proven from it (SEMANTICS 3.2)
MAX_DISTINCT = 4_096  # above it a distinct count is null with the reason LIMIT (SEMANTICS 6)


@dataclass(frozen=True, slots=True, init=False)
class Label:
    """What became of an origin event: true iff a label event came within `within` of it (SEMANTICS 4.2).

    of: the origin topic, which has an id. source: the topic of label events. on: the field, in both, that names the
    origin; it is the origin's id. grace: how late a label event may arrive and still count. value: with it the label is
    the value of the last label event by order key (reversals); a boolean one is false, any other null, where none came.
    """

    name: str
    of: Topic
    source: Topic
    on: str
    within: Duration
    grace: Duration
    value: Expr | None

    def __init__(
        self,
        name: str,
        *,
        of: Topic,
        source: Topic,
        on: str,
        within: str | Duration,
        grace: str | Duration = ZERO,
        value: Operand | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "name", identifier("label", name))
        put(self, "of", of)
        put(self, "source", source)
        put(self, "on", on)
        put(self, "within", Duration.parse(within))
        put(self, "grace", Duration.parse(grace))
        put(self, "value", None if value is None else to_expr(value))
        of.schema[on], source.schema[on]  # both raise HR-0106 with the nearest name
        if of.id != on:
            raise DefinitionError(
                "HR-0203",
                f"label {name!r}: {on!r} does not identify an event of topic {of.name!r}",
                detail=f"expected its id, {of.id!r}",
                hint=f"declare id={on!r} on the topic, or join on its id",
            )
        if of.schema[on].type != source.schema[on].type:
            raise DefinitionError(
                "HR-0203",
                f"label {name!r}: {on!r} has different types in {of.name!r} and {source.name!r}",
                detail=f"{of.schema[on].type} in {of.name!r}, {source.schema[on].type} in {source.name!r}",
            )
        join = source[on].availability
        if join.late:
            raise _leak(
                f"label {name!r}: which origin its events name is known only later",
                (*join.path, name),
                hint=f"join on a field that stands in the event when it is appended, not on {join.path[-1]}",
            )
        if self.value is not None:
            _check_owned(f"label {name!r}", self.value, source.name, source.schema.names, (source,))
            value_is = self.value.availability
            if value_is.late:
                raise _leak(
                    f"label {name!r}: its value is itself known only later",
                    (*value_is.path, name),
                    hint="take a value that stands in the label event, or send another label event when it is known",
                )

    @property
    def maturity(self) -> Duration:
        return self.within + self.grace

    @property
    def type(self) -> DataType:
        return schema.boolean if self.value is None else self.value.type

    @property
    def expression(self) -> Reference:
        availability = Availability(self.maturity, Lateness.LABEL, (self.source.name, self.name))
        return Reference(
            source=Source.LABEL,
            owner=self.of.name,
            name=self.name,
            type=self.type,
            nullable=True,
            availability=availability,
        )


@dataclass(frozen=True, init=False)
class Sources:
    """Several topics as the sources of one view, each with its own expression for every value.

    `flows = hr.Sources(plans.emit(delta=plans.amount), repayments.emit(delta=-repayments.amount))`; then `flows.delta`.
    """

    emissions: tuple[Emission, ...]

    def __init__(self, *emissions: Emission) -> None:
        object.__setattr__(self, "emissions", emissions)
        if not emissions:
            raise DefinitionError("HR-0130", "sources without a topic", hint="give at least one topic.emit(...)")
        first = dict(emissions[0].columns)
        for emission in emissions:
            columns = dict(emission.columns)
            for name, value in columns.items():
                topic = emission.topic
                _check_owned(f"{topic.name}.emit({name}=...)", value, topic.name, topic.schema.names, (topic,))
            if {n: e.type for n, e in columns.items()} != {n: e.type for n, e in first.items()}:
                raise DefinitionError(
                    "HR-0130",
                    f"{emission.topic.name!r} does not emit what {emissions[0].topic.name!r} emits",
                    detail=f"expected {_types(first)}, seen {_types(columns)}",
                )
        if len({e.topic.name for e in emissions}) < len(emissions):
            raise DefinitionError("HR-0130", f"{self.name}: a topic stands twice")

    @property
    def name(self) -> str:
        return f"sources({', '.join(e.topic.name for e in self.emissions)})"

    def __getitem__(self, name: str) -> Reference:
        """An emitted value as an expression. Raises: DefinitionError HR-0106 with the nearest name."""
        found = [dict(e.columns)[name] for e in self.emissions if name in dict(e.columns)]
        if not found:
            known = [n for n, _ in self.emissions[0].columns]
            raise DefinitionError("HR-0106", f"{self.name} emits no {name!r}", hint=did_you_mean(name, known))
        return Reference(
            source=Source.FIELD,
            owner=self.name,
            name=name,
            type=found[0].type,
            nullable=any(e.nullable for e in found),
            availability=latest(*(e.availability for e in found)),
        )

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("_") or "emissions" not in self.__dict__:
            raise AttributeError(name)
        return self[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature of a view, fully said. Immutable meaning: its fingerprint covers all of it but the name."""

    view: str
    name: str
    function: Function
    input: Expr | None
    where: Expr | None
    window: Window
    current: bool
    empty: int | float | None
    n: int
    sample: bool
    known: str
    type: DataType
    nullable: bool

    @property
    def expression(self) -> Reference:
        return Reference(
            source=Source.FEATURE,
            owner=self.view,
            name=self.name,
            type=self.type,
            nullable=self.nullable,
            may_be_empty=self.nullable and self.empty is None,
        )


@dataclass(frozen=True, init=False)
class FeatureView:
    """Features of one entity over one or several sources. Features are attributes: `activity.count_1d`.

    entity: a field's name, or a tuple of names for a composite entity; with several sources each must have or emit it.
    lag: how much later than the log this view's state is taken to be in replays without a record (SEMANTICS 1.6).
    max_staleness: a value staler than this is missing. Raises: DefinitionError, LeakError HR-0201,
    MaturityError HR-0202.
    """

    name: str
    entity: tuple[str, ...]
    sources: Sources
    features: tuple[Feature, ...]
    lag: Duration
    max_staleness: Duration | None
    max_events: int
    max_distinct: int
    description: str

    def __init__(
        self,
        name: str,
        *,
        entity: str | Sequence[str],
        source: Topic | Sources,
        features: Sequence[Asked | Aggregate],
        lag: str | Duration = ZERO,
        max_staleness: str | Duration | None = None,
        max_events: int = MAX_EVENTS,
        max_distinct: int = MAX_DISTINCT,
        description: str = "",
    ) -> None:
        put = object.__setattr__
        put(self, "name", identifier("view", name))
        put(self, "entity", (entity,) if isinstance(entity, str) else tuple(entity))
        put(self, "sources", source if isinstance(source, Sources) else _whole(source))
        put(self, "lag", Duration.parse(lag))
        put(self, "max_staleness", None if max_staleness is None else Duration.parse(max_staleness))
        put(self, "max_events", max_events)
        put(self, "max_distinct", max_distinct)
        put(self, "description", description)
        owner = source.name
        for emission in self.sources.emissions:
            for part in self.entity:
                key = entity_expression(emission, part, self.name)
                if key.availability.late:
                    raise _leak(
                        f"view {name!r}: entity {part!r} is known only later",
                        (*key.availability.path, name),
                        hint="an event is found by what stands in it when it is appended: take another field",
                    )
        made: list[Feature] = []
        for asked in features:
            made.extend(_features(self, owner, asked if isinstance(asked, Asked) else asked.alone()))
        put(self, "features", tuple(made))
        if not made:
            raise DefinitionError("HR-0131", f"view {name!r} has no features")
        _check_unique(name, made)

    @property
    def topics(self) -> tuple[Topic, ...]:
        return tuple(e.topic for e in self.sources.emissions)

    def feature(self, name: str) -> Feature:
        """Raises: DefinitionError HR-0106 with the nearest name."""
        for f in self.features:
            if f.name == name:
                return f
        raise DefinitionError(
            "HR-0106",
            f"view {self.name!r} has no feature {name!r}",
            hint=did_you_mean(name, [f.name for f in self.features]),
        )

    def __getitem__(self, name: str) -> Reference:
        return self.feature(name).expression

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("_") or "features" not in self.__dict__:
            raise AttributeError(name)
        return self[name]


def entity_expression(emission: Emission, part: str, view: str) -> Expr:
    """The expression behind one part of the entity: an emitted value of that name, else the topic's field."""
    emitted = dict(emission.columns)
    key = emitted[part] if part in emitted else emission.topic[part]
    if key.type.kind in (Kind.FLOAT64, Kind.LIST):
        raise DefinitionError(
            "HR-0132", f"view {view!r}: entity {part!r} is {key.type}", detail="expected an exact type"
        )
    return key


def _whole(topic: Topic) -> Sources:
    """A topic alone: it emits its own fields."""
    return Sources(Emission(topic, tuple((f.name, topic[f.name]) for f in topic.schema)))


def _features(view: FeatureView, owner: str, asked: Asked) -> list[Feature]:
    aggregate = asked.aggregate
    topics = [e.topic.name for e in view.sources.emissions]
    names = [n for n, _ in view.sources.emissions[0].columns]
    for part in (aggregate.input, aggregate.where):
        if part is not None:
            _check_owned(
                f"view {view.name!r}: {aggregate.word}",
                part,
                owner if len(topics) == 1 else view.sources.name,
                names,
                view.topics,
            )
    availability = latest(*(e.availability for e in (aggregate.input, aggregate.where) if e is not None))
    result = []
    for one in asked.windows:
        name = _feature_name(asked, one)
        waits = one
        if availability.why is Lateness.LABEL and not asked.delayed and aggregate.known == "matured":
            waits = replace(one, delay=availability.after) if not isinstance(one, Aligned) else one
        _check_known(view.name, name, aggregate, waits, availability)
        result.append(_feature(view, name, aggregate, waits, asked.empty))
    return result


def _feature_name(asked: Asked, one: Window) -> str:
    word = asked.name or asked.aggregate.word
    if asked.name is not None and len(asked.windows) == 1:
        return word
    if isinstance(one, Lifetime) and (
        asked.aggregate.function in WITHOUT_CURRENT or asked.aggregate.function is Function.FIRST
    ):
        return word
    return f"{word}_{one.suffix}"


def _feature(view: FeatureView, name: str, aggregate: Aggregate, one: Window, empty: int | float | None) -> Feature:
    current = aggregate.current if aggregate.current is not None else aggregate.function not in WITHOUT_CURRENT
    if aggregate.function is Function.SINCE_LAST and current:
        raise DefinitionError(
            "HR-0133",
            f"feature {view.name}.{name}: time since last, the request included, is always 0",
            hint="drop current=True",
        )
    if aggregate.function in ORDERED and len(view.sources.emissions) > 1:
        ids = {None if t.id is None else t.schema[t.id].type for t in view.topics}
        if len(ids) > 1:
            raise DefinitionError(
                "HR-0134",
                f"feature {view.name}.{name}: its sources' ids have different types, so their events have no order",
                detail=", ".join(f"{t.name}: {'no id' if t.id is None else t.schema[t.id].type}" for t in view.topics),
            )
    type = gives(aggregate.function, None if aggregate.input is None else aggregate.input.type)
    if empty is not None and not type.numeric:
        raise DefinitionError("HR-0135", f"feature {view.name}.{name}: empty={empty!r} does not fit {type}")
    nullable = aggregate.function not in (Function.COUNT,)
    if empty is not None and aggregate.function in (Function.MEAN, Function.RATE):
        nullable = False  # of bounded inputs; a float mean may still overflow, which stays null with its reason
    return Feature(
        view=view.name,
        name=name,
        function=aggregate.function,
        input=aggregate.input,
        where=aggregate.where,
        window=one,
        current=current,
        empty=empty,
        n=aggregate.n,
        sample=aggregate.sample,
        known=aggregate.known,
        type=type,
        nullable=nullable,
    )


def _check_known(view: str, name: str, aggregate: Aggregate, one: Window, availability: Availability) -> None:
    """SEMANTICS 4.4: a window waits for its values' truth, or says known='so_far'."""
    if not availability.late or aggregate.known == "so_far" or one.delay >= availability.after:
        return
    path = (*availability.path, f"{view}.{name}")
    label = availability.why is Lateness.LABEL
    kind = MaturityError if label else LeakError
    verb = "matures" if label else "is known"
    raise kind(
        "HR-0202" if label else "HR-0201",
        f"feature {view}.{name} reads {availability.path[-1]!r} before it can be known",
        detail=f"it {verb} {availability.after} after its event; the window waits {one.delay}; "
        f"path: {' -> '.join(path)}",
        hint=f"say delay='{availability.after}' or more, or known='so_far' for what is known at the time "
        "(another quantity)",
        path=path,
        needed=availability.after,
        seen=one.delay,
    )


def _leak(message: str, path: tuple[str, ...], *, hint: str) -> LeakError:
    return LeakError("HR-0201", message, detail="path: " + " -> ".join(path), hint=hint, path=path)


def _check_owned(where: str, expr: Expr, owner: str, names: Sequence[str], topics: Sequence[Topic]) -> None:
    """What an expression reads is the owner's, and as the topics in use declare it."""
    for reference in references(expr):
        if reference.source not in (Source.FIELD, Source.LABEL):
            raise DefinitionError(
                "HR-0136",
                f"{where} reads {reference.path!r}, a {reference.source.value}",
                detail=f"expected fields and labels of {owner!r}",
                hint="derive it beside the view: (a / view.b).named('ratio') in a model's features",
            )
        if reference.owner != owner:
            raise DefinitionError(
                "HR-0136",
                f"{where} reads {reference.path!r}, which is not of {owner!r}",
                detail=f"there is: {', '.join(names)}",
                hint="give the view that topic as its source, or several by hr.Sources(...)",
            )
    for topic in topics:
        check_declared(where, expr, topic)


def check_declared(where: str, expr: Expr, topic: Topic) -> None:
    """What an expression reads of a topic is as the topic in use declares it: another object of the same name may not
    say that a column is less late. where: kind and name of what reads it. Raises: DefinitionError HR-0106, HR-0136."""
    for reference in references(expr):
        if reference.source is not Source.FIELD or reference.owner != topic.name:
            continue
        declared = topic[reference.name]
        if (reference.type, reference.availability) != (declared.type, declared.availability):
            raise DefinitionError(
                "HR-0136",
                f"{where} reads {reference.path!r} of another definition of topic {topic.name!r}",
                detail=f"there it is {_said(reference)}, in the topic that is read {_said(declared)}",
                hint="take the field from the topic that is used here",
            )


def _said(field: Reference) -> str:
    late = field.availability
    return f"{field.type}, known {f'{late.after} later' if late.late else 'at once'}"


def _check_unique(view: str, made: list[Feature]) -> None:
    seen: set[str] = set()
    for f in made:
        if f.name in seen:
            raise DefinitionError(
                "HR-0137", f"view {view!r} has two features named {f.name!r}", hint="name one of them: .named('...')"
            )
        seen.add(f.name)


def _types(columns: dict[str, Expr]) -> str:
    return ", ".join(f"{name}: {value.type}" for name, value in columns.items())


__all__ = [
    "KNOWN",
    "MAX_DISTINCT",
    "MAX_EVENTS",
    "NOW",
    "Aggregate",
    "Asked",
    "Feature",
    "FeatureView",
    "Label",
    "Sliding",
    "Sources",
    "count",
    "distinct",
    "entity_expression",
    "first",
    "last",
    "last_n",
    "lookup",
    "max",
    "mean",
    "min",
    "rate",
    "std",
    "sum",
    "time_since_first",
    "time_since_last",
    "variance",
]
