"""Training sets: what each request's inputs were when it was made, and what became of it (SEMANTICS 1.6, 4.3).

The one idea: a training set is a function of the definitions, a cut and an instant. Events beyond the cut are not read,
so building it again gives the same rows with the same bits, whatever came since; the manifest says all that is needed,
and the content hash says whether it worked. Runs the kernel; touches nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.columns import evaluate_columns
from headrace.core.errors import SchemaError, did_you_mean
from headrace.core.expr import Expr, Named, Reference, Source, describe, references
from headrace.core.kernel.program import SEMANTICS
from headrace.core.points import Cut
from headrace.core.times import Instant, iso
from headrace.features.define import Label
from headrace.features.plan import ViewPlan
from headrace.features.replay import replay
from headrace.features.replay_cuts import Kind
from headrace.features.replay_given import Cuts
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows
from headrace.features.training_files import Manifest, TrainingSet
from headrace.features.training_labels import training_labels
from headrace.features.training_records import Recorded, Records, decided, recorded, served_and_mixed
from headrace.log.port import EVENT_TIME


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """What a training set is to hold.

    inputs: (column, expression over the topic's fields and the views' features), in order. label: of the topic, or one
    of its late columns. where: a condition on the topic's fields; requests for which it is not true are left out.
    begin, end: requests with begin <= event_time < end. t_label: when the outcome is looked at;
    younger requests than the label's maturity are left out. cut: what is read of the log; None: all that `events`
    holds. fingerprints: of the definitions, for the manifest.
    """

    name: str
    topic: str
    inputs: tuple[tuple[str, Expr], ...]
    label: Label | Reference
    t_label: Instant
    where: Expr | None = None
    begin: Instant | None = None
    end: Instant | None = None
    cut: Cut | None = None
    fingerprints: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What late data changed in one feature: rows whose value *known now* differs from the one it had, how many are
    null in only one of them, and the largest and mean absolute difference of the others (None where not numeric)."""

    feature: str
    rows: int
    differing: int
    null_in_one: int
    largest: float | None
    mean: float | None


def build(
    asked: Asked, plans: Sequence[ViewPlan], events: Events, *, records: Records | None = None, threads: int = 2
) -> TrainingSet:
    """plans: of all views that the inputs read. events: at least what `topics_of(plans)` and the label need. records:
    of requests that were decided: their recorded cuts are replayed, an absent view's features are null as they were
    then, and what has no record follows *available* (SEMANTICS 1.1, 1.6).

    Raises: SchemaError HR-0530 for an input that reads what is neither the topic's nor a view's, HR-0531 for two
    columns of one name; what `replay` raises.
    """
    _check(asked, plans)
    if asked.cut is not None:
        events = events.below(asked.cut)
    rows, values, counts = _rows(asked, events)
    held = recorded([plan.view.name for plan in plans], rows, records)
    features = _served(plans, events, rows, held, threads)
    arrays: list[pa.Array | pa.ChunkedArray] = []
    names: list[str] = []
    topic = events.topic(asked.topic).topic
    taken = {name for name, _ in asked.inputs}
    if topic.id is not None and topic.id not in taken:
        names.append(topic.id)
        arrays.append(_column(rows, topic.id))
    names.append(EVENT_TIME)
    arrays.append(rows.column_of_times())
    for name, column in _inputs(asked, rows, features):
        names.append(name)
        arrays.append(column)
    names.append(asked.label.name)
    arrays.append(values)
    table = pa.Table.from_arrays(arrays, names=names)
    served, mixed = served_and_mixed(held, len(rows))
    stated = _stated(asked, events, table, values, {**counts, "served": served, "mixed": mixed})
    return TrainingSet(table, stated, threads=threads)


def late_data_impact(
    asked: Asked, plans: Sequence[ViewPlan], events: Events, *, records: Records | None = None, threads: int = 2
) -> list[Impact]:
    """*Known now* minus what was served (or available), feature by feature, over the rows of the training set."""
    if asked.cut is not None:
        events = events.below(asked.cut)
    rows, _, _ = _rows(asked, events)
    held = recorded([plan.view.name for plan in plans], rows, records)
    was = _served(plans, events, rows, held, threads)
    now = _features(plans, events, rows, [None] * len(plans), Kind.KNOWN_NOW, threads)
    return [_impact(name, was[name], now[name]) for name in was]


def inputs_served(
    asked: Asked, plans: Sequence[ViewPlan], events: Events, records: Records, *, threads: int = 2
) -> pa.Table:
    """The inputs, a column each, of the requests that have a record, as they were served; no label is looked at, so the
    newest are among them. Raises: as `build`."""
    _check(asked, plans)
    rows, _ = requests(asked, events if asked.cut is None else events.below(asked.cut))
    rows = rows.take(decided(rows, records))
    held = recorded([plan.view.name for plan in plans], rows, records)
    return pa.table(dict(_inputs(asked, rows, _served(plans, events, rows, held, threads))))


# --- rows, labels, features ---


def _rows(asked: Asked, events: Events) -> tuple[Rows, pa.Array, dict[str, int]]:
    """The requests that enter, their labels, and what was left out."""
    rows, outside = requests(asked, events)
    labelled = training_labels(asked.label, events, asked.topic, rows.row, asked.t_label)
    known = labelled.values.is_valid().to_numpy(zero_copy_only=False)
    kept = labelled.mature & known
    counts = {
        "outside": outside,
        "immature": int(np.count_nonzero(~labelled.mature)),
        "unlabelled": int(np.count_nonzero(labelled.mature & ~known)),
    }
    if kept.all():
        return rows, labelled.values, counts
    return rows.take(np.flatnonzero(kept)), labelled.values.filter(pa.array(kept)), counts


def requests(asked: Asked, events: Events) -> tuple[Rows, int]:
    """(the topic's requests of the asked time for which `where` is true, how many others there are)."""
    rows = Rows.logged(events, asked.topic, begin=asked.begin, end=asked.end)
    if asked.where is None:
        return rows, 0
    columns = {r.path: _column(rows, r.name) for r in references(asked.where)}
    true = evaluate_columns(asked.where, columns, rows=len(rows)).fill_null(False).to_numpy(zero_copy_only=False)
    return rows.take(np.flatnonzero(true)), int(np.count_nonzero(~true))


def _served(
    plans: Sequence[ViewPlan], events: Events, rows: Rows, held: Sequence[Recorded | None], threads: int
) -> dict[str, pa.ChunkedArray]:
    """As of the records; an absence is taken as given, not computed."""
    found = _features(plans, events, rows, [None if one is None else one.cuts for one in held], Kind.SERVED, threads)
    for plan, one in zip(plans, held, strict=True):
        if one is None or not one.absent.any():
            continue
        for name in (f"{plan.view.name}.{feature.name}" for feature in plan.view.features):
            found[name] = pc.if_else(pa.array(one.absent), pa.scalar(None, found[name].type), found[name])
    return found


def _features(
    plans: Sequence[ViewPlan], events: Events, rows: Rows, cuts: Sequence[Cuts | None], kind: Kind, threads: int
) -> dict[str, pa.ChunkedArray]:
    """By "view.feature". One view after another, each with all threads: their memory is the peak."""
    found = {}
    for plan, cut in zip(plans, cuts, strict=True):
        table = replay([plan], events, rows.with_cuts(cut), kind=kind, threads=threads)
        for feature in plan.view.features:
            found[f"{plan.view.name}.{feature.name}"] = table.column(feature.name)
    return found


def _inputs(
    asked: Asked, rows: Rows, features: Mapping[str, pa.ChunkedArray]
) -> Iterator[tuple[str, pa.Array | pa.ChunkedArray]]:
    """The inputs' columns in order. features: by "view.feature", of the same rows."""
    read = {r.path: r.name for _, expr in asked.inputs for r in references(expr) if r.source is Source.FIELD}
    columns = {path: _column(rows, name) for path, name in read.items()}
    for name, expr in asked.inputs:
        yield name, _input(expr, columns, features, len(rows))


def _column(rows: Rows, name: str) -> pa.Array | pa.ChunkedArray:
    """A field of logged requests; also of none."""
    assert rows.topic is not None, "a training set's rows are logged requests"
    return rows.column(name) if len(rows) else rows.topic.table.column(name).slice(0, 0)


def _input(
    expr: Expr, fields: Mapping[str, pa.ChunkedArray], features: Mapping[str, pa.ChunkedArray], rows: int
) -> pa.Array | pa.ChunkedArray:
    while isinstance(expr, Named):
        expr = expr.expr
    if isinstance(expr, Reference):
        return features[expr.path] if expr.source is Source.FEATURE else fields[expr.path]
    columns = {r.path: (features if r.source is Source.FEATURE else fields)[r.path] for r in references(expr)}
    return evaluate_columns(expr, columns, rows=rows)


def _check(asked: Asked, plans: Sequence[ViewPlan]) -> None:
    features = {f"{plan.view.name}.{feature.name}" for plan in plans for feature in plan.view.features}
    for reference in references(asked.where) if asked.where is not None else ():
        if reference.source is not Source.FIELD or reference.owner != asked.topic:
            raise SchemaError(
                "HR-0530",
                f"training set {asked.name!r}: where reads {reference.path!r}",
                detail=f"expected fields of topic {asked.topic!r}",
            )
    for name, expr in asked.inputs:
        for reference in references(expr):
            is_field = reference.source is Source.FIELD and reference.owner == asked.topic
            is_feature = reference.source is Source.FEATURE and reference.path in features
            if not is_field and not is_feature:
                raise SchemaError(
                    "HR-0530",
                    f"training set {asked.name!r}: input {name!r} reads {reference.path!r}",
                    detail=f"expected fields of topic {asked.topic!r} and features of the given views",
                    hint=did_you_mean(reference.path, features),
                )
    names = [name for name, _ in asked.inputs] + [asked.label.name, EVENT_TIME]
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(
                "HR-0531",
                f"training set {asked.name!r} has two columns named {name!r}",
                hint="name the input: .named('...')",
            )


def _stated(asked: Asked, events: Events, table: pa.Table, values: pa.Array, counts: Mapping[str, int]) -> Manifest:
    """The manifest but for the hash."""
    read = events.cut() if asked.cut is None else asked.cut
    boolean = pa.types.is_boolean(values.type)
    return Manifest(
        name=asked.name,
        topic=asked.topic,
        label=asked.label.name,
        begin=None if asked.begin is None else iso(asked.begin),
        end=None if asked.end is None else iso(asked.end),
        t_label=iso(asked.t_label),
        cut=tuple((p.topic, p.incarnation, p.index, offset) for p, offset in read),
        fingerprints=tuple(sorted(asked.fingerprints.items())),
        inputs=tuple((name, describe(expr), str(expr.type)) for name, expr in asked.inputs),
        where=None if asked.where is None else describe(asked.where),
        outside=None if asked.where is None else counts["outside"],
        semantics=SEMANTICS,
        rows=table.num_rows,
        positives=int(pc.sum(values).as_py() or 0) if boolean else None,
        served=counts["served"],
        available=table.num_rows - counts["served"] - counts["mixed"],
        mixed=counts["mixed"],
        immature=counts["immature"],
        unlabelled=counts["unlabelled"],
    )


def _impact(feature: str, was: pa.ChunkedArray, now: pa.ChunkedArray) -> Impact:
    rows = len(was)
    was_null, now_null = (one.is_null().to_numpy() for one in (was, now))
    null_in_one = int(np.count_nonzero(was_null != now_null))
    if pa.types.is_list(was.type):
        different = sum(a != b for a, b in zip(was.to_pylist(), now.to_pylist(), strict=True))
        return Impact(feature=feature, rows=rows, differing=different, null_in_one=null_in_one, largest=None, mean=None)
    both = pa.array(~was_null & ~now_null)
    a, b = was.filter(both), now.filter(both)
    changed = pc.not_equal(a, b).to_numpy()
    differing = int(np.count_nonzero(changed)) + null_in_one
    largest = mean = None
    if pa.types.is_integer(was.type) or pa.types.is_floating(was.type) or pa.types.is_decimal(was.type):
        numbers = [one.cast(pa.float64()).to_numpy() for one in (a, b)]
        gaps = np.abs(numbers[1] - numbers[0])[changed]
        if len(gaps):
            largest, mean = float(gaps.max()), float(gaps.mean())
    return Impact(feature=feature, rows=rows, differing=differing, null_in_one=null_in_one, largest=largest, mean=mean)
