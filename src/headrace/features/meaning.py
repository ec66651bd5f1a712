"""What a topic, a label and a view mean, as JSON values: the text that their fingerprints cover. Pure.

Names given to things, comments and descriptions are not meaning; a feature's name is (others refer to it), a view's
too. Of its topics a view means only what its values depend on: their identity, their times, the fields that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.expr import Expr, Reference, describe, references
from headrace.core.kernel.program import SEMANTICS
from headrace.core.window import Aligned, Lifetime, Sliding, Unit, Window
from headrace.features.define import Feature, FeatureView, Label, entity_expression
from headrace.log.define import Partitioning, Payload, Topic

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def time_meaning(topic: Topic) -> dict[str, Json]:
    """What decides which of a topic's events are seen, and when."""
    return {
        "topic": topic.name,
        "key": topic.key,
        "id": topic.id,
        "event_time": topic.event_time,
        "max_late": topic.max_late.micros,
        "max_ahead": topic.max_ahead.micros,
        "dedup": topic.dedup.micros,
        "skew": topic.skew.micros,
        "clock": topic.clock.value,
        **({} if topic.partitioning is Partitioning.OWN else {"partitioning": topic.partitioning.value}),
        **({} if topic.derivation is None else {"derived_of": topic.derivation.of}),
    }


def topic_meaning(topic: Topic) -> dict[str, Json]:
    """All of a topic but its description and who looks after it. What came later is there where it is not the default
    only, so that fingerprints of before stay."""
    return {
        **time_meaning(topic),
        "partitions": topic.partitions,
        **({} if topic.payload is Payload.JSON else {"payload": topic.payload.value}),
        "retention": None if topic.retention is None else topic.retention.micros,
        "fields": [
            [
                f.name,
                str(f.type),
                f.name in topic.required,
                _plain(f.minimum),
                _plain(f.maximum),
                None if f.available_after is None else f.available_after.micros,
            ]
            for f in topic.schema
        ],
    }


def label_meaning(label: Label) -> dict[str, Json]:
    return {
        "label": label.name,
        "of": time_meaning(label.of),
        "source": time_meaning(label.source),
        "on": [label.on, str(label.of.schema[label.on].type)],
        "within": label.within.micros,
        "grace": label.grace.micros,
        "value": None if label.value is None else expr_meaning(label.value),
    }


def view_meaning(
    view: FeatureView, labels: Mapping[str, Label], *, tz_version: str, topics: Mapping[str, Topic] | None = None
) -> dict[str, Json]:
    """labels: by name; those that the view reads are part of it. tz_version: of the tz database (SEMANTICS 2.3).
    topics: by name; of a derived source what it is derived of is part of it."""
    read = sorted(label_names(view))
    return {
        "view": view.name,
        "semantics": SEMANTICS,
        "entity": [
            [expr_meaning(entity_expression(e, p, view.name)) for p in view.entity] for e in view.sources.emissions
        ],
        "sources": [
            [_source_meaning(e.topic, topics or {}), [[n, expr_meaning(v)] for n, v in e.columns if _is_read(view, n)]]
            for e in view.sources.emissions
        ],
        "features": [feature_meaning(f, tz_version) for f in view.features],
        "lag": view.lag.micros,
        "max_staleness": None if view.max_staleness is None else view.max_staleness.micros,
        "max_events": view.max_events,
        "max_distinct": view.max_distinct,
        "labels": [label_meaning(labels[name]) for name in read],
    }


def _source_meaning(topic: Topic, topics: Mapping[str, Topic]) -> dict[str, Json]:
    derivation = topic.derivation
    if derivation is None or derivation.of not in topics:
        return time_meaning(topic)
    return {**time_meaning(topic), "derived_of": time_meaning(topics[derivation.of])}


def feature_meaning(feature: Feature, tz_version: str) -> dict[str, Json]:
    return {
        "name": feature.name,
        "function": feature.function.value,
        "input": None if feature.input is None else expr_meaning(feature.input),
        "where": None if feature.where is None else expr_meaning(feature.where),
        "window": window_meaning(feature.window, tz_version),
        "current": feature.current,
        "empty": feature.empty,
        "n": feature.n,
        "sample": feature.sample,
        "known": feature.known,
        "type": str(feature.type),
    }


def expr_meaning(expr: Expr) -> Json:
    """The tree in canonical words, with the type of everything it reads."""
    read = sorted({(r.path, str(r.type), r.availability.after.micros) for r in references(expr)})
    return [describe(expr), [list(r) for r in read]]


def window_meaning(window: Window, tz_version: str) -> Json:
    match window:
        case Sliding():
            return ["sliding", window.width.micros, window.delay.micros]
        case Lifetime():
            return ["lifetime", window.delay.micros]
        case Aligned():
            unit = window.unit.value if isinstance(window.unit, Unit) else window.unit.micros
            zone: Json = window.tz if window.tz == "UTC" else [window.tz, tz_version]
            return ["aligned", unit, zone, window.complete]


def label_names(view: FeatureView) -> set[str]:
    """The labels that a view's features read."""
    return {r.name for r in _reads(view) if r.source.value == "label"}


def _is_read(view: FeatureView, column: str) -> bool:
    return any(r.name == column for r in _reads(view))


def _reads(view: FeatureView) -> list[Reference]:
    parts = [part for f in view.features for part in (f.input, f.where) if part is not None]
    return [r for part in parts for r in references(part)]


def _plain(value: int | float | str | None) -> Json:
    return value
