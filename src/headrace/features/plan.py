"""A view made ready to run: its kernel program, what each source brings to it, how its answers are published. Pure.

The one idea: features that ask for the same (input, where, known) share a column and those over the same window a span,
so a view is a small table of distinct inputs, however many features it has. `source.py` fills the table from a topic's
events, `publish.py` turns the kernel's words into values.

A plan holds a growing dictionary of strings (`codes`), which belongs to the state that was built with it. It is used by
one thread at a time; compiling another is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from headrace.core.aggregate import Reason
from headrace.core.codec import Physical
from headrace.core.errors import DefinitionError, did_you_mean
from headrace.core.expr import Call, Expr, Named, Reference, Source, call, describe, references
from headrace.core.kernel.program import Column, ColumnKind, Output, Program, Span, Words, build
from headrace.core.schema import Kind
from headrace.core.times import Instant
from headrace.core.window import Aligned, Lifetime, Sliding, Window, edges
from headrace.features.define import Feature, FeatureView, Label, entity_expression
from headrace.features.publish import Published, Publisher
from headrace.features.ranges import bits_of, compact
from headrace.features.source import Input, SourcePlan
from headrace.features.words import Codes
from headrace.log.define import Emission, Topic


class ViewPlan:
    """A view ready to run. program: for the kernel. sources: one a topic, in the view's order. codes: of strings."""

    __slots__ = ("_publisher", "_spans", "codes", "program", "sources", "view")

    def __init__(
        self,
        view: FeatureView,
        program: Program,
        sources: tuple[SourcePlan, ...],
        calendars: tuple[Aligned, ...],
        codes: Codes,
    ) -> None:
        """Of parts that fit each other: call `compile`."""
        self.view = view
        self.program = program
        self.sources = sources
        self.codes = codes
        self._spans = calendars
        self._publisher = Publisher(view, program, codes)

    @classmethod
    def compile(cls, view: FeatureView, labels: Mapping[str, Label]) -> ViewPlan:
        """labels: by name, at least those that the view reads.

        Raises: DefinitionError HR-0501, HR-0502 (core/kernel/program.py), HR-0512 for a label that is not given or
        whose name is also a field's, HR-0513 for sources whose entities have different types, HR-0514 for an `empty=`
        that the feature's type cannot hold.
        """
        codes = Codes()
        table = _Table(view, labels)
        for feature in view.features:
            table.add(feature)
        emissions = view.sources.emissions
        inputs = [table.inputs(emission) for emission in emissions]
        columns = tuple(_column([of[c] for of in inputs]) for c in range(len(table.columns)))
        program = build(
            columns,
            tuple(_span(window, table.calendars) for window in table.windows),
            tuple(table.outputs),
            max_events=view.max_events,
            max_distinct=view.max_distinct,
        )
        entities = [[entity_expression(e, part, view.name) for part in view.entity] for e in emissions]
        _check_entities(view, entities)
        sources = tuple(
            SourcePlan(
                view.name,
                emission.topic,
                index,
                entities[index],
                [replace(one, column=column) for one, column in zip(inputs[index], columns, strict=True)],
                labels,
                codes,
            )
            for index, emission in enumerate(emissions)
        )
        return cls(view, program, sources, tuple(table.calendars), codes)

    def source(self, topic: str) -> SourcePlan | None:
        """The topic as a source; None where the view does not read it."""
        return next((source for source in self.sources if source.topic.name == topic), None)

    def source_of_requests(self, topic: str) -> SourcePlan | None:
        """The source whose events a topic's requests are: the topic itself, or what is derived of it."""
        for source in self.sources:
            derivation = source.topic.derivation
            if topic == source.topic.name or (derivation is not None and topic == derivation.of):
                return source
        return None

    @property
    def derived(self) -> Topic | None:
        """The derived topic that the view reads, which is then its only source (SEMANTICS 5.1); else None."""
        topic = self.sources[0].topic
        return None if topic.derivation is None else topic

    def publish(self, words: Words, reasons: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> pa.RecordBatch:
        """Answers as columns, in the view's order: Publisher.publish."""
        return self._publisher.publish(words, reasons)

    def publish_row(self, words: list[int], reasons: bytes) -> tuple[tuple[Published, ...], tuple[Reason, ...]]:
        """One answer as physical values: Publisher.publish_row."""
        return self._publisher.publish_row(words, reasons)

    @property
    def publisher(self) -> Publisher:
        """What publishes: its methods, bound once, save the hot path a call."""
        return self._publisher

    def spans_bounds(self, t: Words) -> Words:
        """int64[2 * calendars, n]: low and high, low < event_time <= high, of each calendar span at each t."""
        bounds = np.zeros((len(self._spans), 2, len(t)), np.int64)
        if self._spans and len(t):
            ordered, place = np.unique(t, return_inverse=True)
            for i, window in enumerate(self._spans):
                bounds[i] = _steps(window, ordered)[:, place]
        return bounds.reshape(2 * len(self._spans), len(t))

    def bounds_row(self, t: int) -> list[int]:
        """`spans_bounds` of one t: what stands behind a query's values."""
        return [bound for window in self._spans for bound in edges(window, Instant(t))]


class _Table:
    """The distinct columns, windows and outputs of a view, in order of first use."""

    def __init__(self, view: FeatureView, labels: Mapping[str, Label]) -> None:
        self.view = view
        self.labels = labels
        self.columns: list[Feature] = []  # each column by the first feature that asks for it
        self.windows: list[Window] = []
        self.calendars: list[Aligned] = []
        self.outputs: list[Output] = []
        self._keys: list[tuple[str, str, str]] = []

    def add(self, feature: Feature) -> None:
        window = feature.window
        if window not in self.windows:
            self.windows.append(window)
            if isinstance(window, Aligned):
                self.calendars.append(window)
        self.outputs.append(
            Output(
                function=feature.function,
                span=self.windows.index(window),
                column=self._column(feature),
                current=feature.current,
                n=feature.n,
                sample=feature.sample,
            )
        )

    def _column(self, feature: Feature) -> int | None:
        if feature.input is None and feature.where is None:
            return None
        texts = ["" if e is None else describe(e) for e in (feature.input, feature.where)]
        late = any(e is not None and e.availability.late for e in (feature.input, feature.where))
        key = (texts[0], texts[1], feature.known if late else "")
        if key not in self._keys:
            self._keys.append(key)
            self.columns.append(feature)
        return self._keys.index(key)

    def inputs(self, emission: Emission) -> list[Input]:
        """The columns as one source fills them."""
        return [self._input(feature, emission) for feature in self.columns]

    def _input(self, feature: Feature, emission: Emission) -> Input:
        value = None if feature.input is None else _emitted(feature.input, emission)
        where = None if feature.where is None else _emitted(feature.where, emission)
        late = False
        for part in (value, where):
            if part is not None:
                self._check_labels(part, emission)
                late = late or part.availability.late
        always = where is None and value is not None and not value.nullable and not late
        if value is None:
            column = Column(kind=ColumnKind.NONE, history=late)
        elif value.type.kind is Kind.FLOAT64:
            narrow = compact(value, emission.topic, self.labels)
            column = Column(kind=ColumnKind.FLOAT, always=always, history=late, compact=narrow)
        else:
            bits = bits_of(value, emission.topic, self.labels)
            scale = value.type.scale
            column = Column(kind=ColumnKind.INT, bits=bits, scale=scale, always=always, history=late)
        ranged = value is not None and column.kind is ColumnKind.INT and column.bits < 63
        return Input(value=value, where=where, so_far=feature.known == "so_far", column=column, ranged=ranged)

    def _check_labels(self, part: Expr, emission: Emission) -> None:
        for reference in references(part):
            if reference.source is not Source.LABEL:
                continue
            if reference.name not in self.labels:
                raise DefinitionError(
                    "HR-0512",
                    f"view {self.view.name!r} reads label {reference.name!r}, which is not given",
                    hint=did_you_mean(reference.name, self.labels),
                )
            if reference.name in emission.topic.schema:
                raise DefinitionError(
                    "HR-0512",
                    f"label {reference.name!r} is also a field of topic {emission.topic.name!r}",
                    detail=f"in view {self.view.name!r}, which reads the label",
                    hint="give the label another name",
                )


def _emitted(expr: Expr, emission: Emission) -> Expr:
    """The expression over the topic's own fields and labels: what it emits put in the place of its names."""
    match expr:
        case Named():
            return _emitted(expr.expr, emission)
        case Reference(source=Source.FIELD) if expr.owner != emission.topic.name:
            return dict(emission.columns)[expr.name]
        case Call():
            return call(expr.op, *(_emitted(arg, emission) for arg in expr.args), tz=expr.tz)
    return expr


def _column(of: list[Input]) -> Column:
    """One column that holds what every source gives it."""
    columns = [one.column for one in of]
    return replace(
        columns[0],  # mutation: kind and scale are the same in all
        bits=max(column.bits for column in columns),
        always=all(column.always for column in columns),
        history=any(column.history for column in columns),
        compact=all(column.compact for column in columns),
    )


def _span(window: Window, calendars: list[Aligned]) -> Span:
    match window:
        case Sliding():
            delay = window.delay.micros
            return Span(width=window.width.micros, delay=delay, overlaid=delay == 0)
        case Lifetime():
            return Span(delay=window.delay.micros, overlaid=window.delay.micros == 0)
        case Aligned():
            return Span(calendar=calendars.index(window), overlaid=not window.complete)


def _check_entities(view: FeatureView, entities: list[list[Expr]]) -> None:
    first = [str(part.type) for part in entities[0]]
    for emission, parts in zip(view.sources.emissions, entities, strict=True):
        seen = [str(part.type) for part in parts]
        if seen != first:
            raise DefinitionError(
                "HR-0513",
                f"view {view.name!r}: its sources' entities have different types",
                detail=f"expected {', '.join(first)}, seen {', '.join(seen)} in {emission.topic.name!r}",
                hint="emit the entity under its name, with one type: topic.emit(customer_id=...)",
            )


def _steps(window: Aligned, ordered: Words) -> Words:
    """Bounds at rising instants, at least one. Units do not overlap: two instants whose units begin at one place lie in
    one, as do all between them, so units are looked up for few instants, and at most twice for each."""
    bounds = np.empty((2, len(ordered)), np.int64)

    def at(place: int) -> tuple[int, int]:
        return edges(window, Instant(int(ordered[place])))

    asked = [(0, len(ordered), at(0), at(-1))]
    while asked:
        first, end, low, high = asked.pop()
        if low[0] == high[0]:
            bounds[:, first:end] = np.array(low)[:, None]
        else:
            middle = (first + end) // 2
            asked += [(first, middle, low, at(middle - 1)), (middle, end, at(middle), high)]
    if not window.complete:
        bounds[1] = ordered  # the running unit ends at t itself
    return bounds


__all__ = ["Physical", "Published", "SourcePlan", "ViewPlan"]
