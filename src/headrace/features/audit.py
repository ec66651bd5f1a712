"""What a type cannot see: suspicions that a value was known later than declared (SEMANTICS 4.5). Pure: rows to
findings.

The one idea: a leak leaves traces in what was logged. A late column that is filled at append, truths and labels that
come later than declared, one input that alone tells the outcome, inputs that are distributed otherwise once they are
live, origins that could never get a label. Each trace is measured exactly and becomes a `Finding` with its evidence. A
finding is a suspicion, never a proof, and no finding is no proof either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import units
from headrace.core.columns import evaluate_columns
from headrace.core.expr import Expr, references
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.schema import Kind
from headrace.core.times import Duration
from headrace.features.audit_inputs import distributions, single_features
from headrace.features.define import FeatureView, Label
from headrace.features.finding import Check, Finding, Severity, nearest_rank, percent
from headrace.log.define import Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, TAKEN, VERDICT, Verdict

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Logged = Mapping[str, Sequence[tuple[Partition, pa.RecordBatch]]]  # topic -> batches as the log's `read` gives them

ROWS_MIN = 100  # below it shares and distributions say little
LATER_MAX = 0.01  # of truths or labels may come later than declared before it is worth a word
EMPTY_LIVE, FILLED_IMPORTED = 0.95, 0.5  # shares: a column null in nearly all live rows, there in most imported ones
CATEGORIES_MAX = 20  # distinct values up to which a field can tell groups of origins apart
CHANCE_MIN = 1e-6  # a group without a single label is a suspicion where chance alone would give it more rarely
MONTH = Duration.parse("30d").micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which origins a training set holds. ids: of its rows, by the label's `on`. t_label: its label instant. where: the
    condition on the origin by which rows were chosen on purpose; None: all were meant."""

    ids: Iterable[int | str]
    t_label: int
    where: Expr | None = None


def audit(
    topics: Iterable[Topic],
    labels: Iterable[Label],
    views: Iterable[FeatureView],
    logged: Logged,
    *,
    training: pa.Table | None = None,
    outcome: str | None = None,
    live: pa.Table | None = None,
    trained: Mapping[str, Chosen] | None = None,
) -> list[Finding]:
    """Every check that the given rows allow, strongest first.

    logged: of the topics, their truth topics `<topic>.<column>` and the labels' sources, as far as there is any.
    training: a training set's inputs and, in the column `outcome`, its boolean or 0/1 label. live: the same inputs as
    they were served, without the label. trained: by label, the origins in a training set.
    """
    held = {name: [(p, b) for p, b in batches if b.num_rows] for name, batches in logged.items()}
    readers = _readers(views)
    findings: list[Finding] = []
    for topic in topics:
        findings += late_columns(topic, held, readers)
        findings += undeclared_late_columns(topic, held)
    for label in labels:
        findings += label_lateness(label, held, readers)
        findings += no_chance(label, held)
        if trained is not None and label.name in trained:
            findings += selected_by_outcome(label, held, trained[label.name])
    if training is not None and outcome is not None:
        findings += single_features(training, outcome)
    if training is not None and live is not None:
        findings += distributions(training.drop_columns([outcome] if outcome else []), live)
    rank = {Severity.STRONG: 0, Severity.SUSPICION: 1, Severity.NOTE: 2}
    return sorted(findings, key=lambda finding: rank[finding.severity])


# --- what comes later, against what was declared ---


def late_columns(topic: Topic, logged: Logged, readers: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Declared late columns: are live appends null there, and do live truths come within D?

    readers: `topic.column` -> the features that read it.
    """
    findings = []
    live = _rows(topic, logged, live=True)
    for column in topic.late_columns:
        subject, path = f"late column {topic.name}.{column.name}", f"{topic.name}.{column.name}"
        read_by = ", ".join(readers.get(path, ())) or "none"
        if live is not None and (filled := live.num_rows - live.column(column.name).null_count):
            findings.append(
                Finding(
                    check=Check.FILLED_AT_APPEND,
                    severity=Severity.STRONG,
                    subject=subject,
                    says=f"{filled} of {live.num_rows} live events were appended with it",
                    evidence={"filled": filled, "rows": live.num_rows, "features": read_by},
                    hint="its truth belongs into an event of its own; what is appended here is not counted as known",
                )
            )
        assert column.available_after is not None
        truths = _rows_of(f"{topic.name}.{column.name}", logged, live=True, verdicts=(*TAKEN, Verdict.LATE))
        origins = _rows(topic, logged, live=True)
        if topic.id is None or truths is None or origins is None or topic.id not in truths.schema.names:
            continue
        came = _joined(origins, topic.id, truths, topic.id)
        delays = came.available_at - came.origin
        findings += _unseen(subject, truths, f"{topic.name}.{column.name}")
        findings += _measured(subject, delays, column.available_after, "available_after", read_by)
    return findings


def undeclared_late_columns(topic: Topic, logged: Logged) -> list[Finding]:
    """Ordinary columns that are null in nearly every live row and there in most imported ones: filled in afterwards?"""
    live, imports = _rows(topic, logged, live=True), _rows(topic, logged, live=False)
    if live is None or imports is None or min(live.num_rows, imports.num_rows) < ROWS_MIN:
        return []
    findings = []
    for column in topic.schema:
        if column.available_after is not None or column.name in topic.required:
            continue
        empty = live.column(column.name).null_count / live.num_rows
        there = 1 - imports.column(column.name).null_count / imports.num_rows
        if empty >= EMPTY_LIVE and there >= FILLED_IMPORTED:
            findings.append(
                Finding(
                    check=Check.UNDECLARED_LATE,
                    severity=Severity.STRONG,
                    subject=f"field {topic.name}.{column.name}",
                    says=f"null in {percent(empty)} of live events, there in {percent(there)} of imported ones",
                    evidence={"null_live": empty, "filled_imported": there, "rows_live": live.num_rows},
                    hint="if its truth comes later, declare hr.field(..., available_after=...)",
                )
            )
    return findings


def label_lateness(label: Label, logged: Logged, readers: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Label events: do they fall into `within`, do they arrive before the label has matured, does serving see them?"""
    facts = _rows_of(label.source.name, logged, live=None, verdicts=(*TAKEN, Verdict.LATE))
    origins = _rows(label.of, logged, live=None)
    if facts is None or origins is None:
        return []
    subject = f"label {label.name!r}"
    read_by = ", ".join(readers.get(f"{label.of.name}.{label.name}", ())) or "none"
    findings = _unseen(subject, facts, label.source.name)
    came = _joined(origins, label.on, facts, label.on)
    if not len(came.origin):
        return findings
    age = came.event_time - came.origin
    outside = int(((age < 0) | (age > label.within.micros)).sum())
    if outside / len(age) > LATER_MAX:
        evidence: dict[str, int | float | str] = {"outside": outside, "events": len(age), "within": str(label.within)}
        findings.append(
            Finding(
                check=Check.OUTSIDE_WINDOW,
                severity=Severity.NOTE,
                subject=subject,
                says=f"{outside} of {len(age)} of its events lie outside [e, e + within] and never count",
                evidence=evidence | _quantiles(age),
                hint="a longer within= counts more of them, and matures later",
            )
        )
    counting = came.live & (age >= 0) & (age <= label.within.micros)
    arrival = (came.available_at - came.origin)[counting]
    return findings + _measured(subject, arrival, label.maturity, "within + grace", read_by)


def _unseen(subject: str, facts: pa.Table, topic: str) -> list[Finding]:
    """Facts that came later than their topic's max_late: training sees what serving never will."""
    marked = int(pc.sum(pc.equal(facts.column(VERDICT), int(Verdict.LATE))).as_py())
    if marked / facts.num_rows <= LATER_MAX:
        return []
    return [
        Finding(
            check=Check.UNSEEN_BY_SERVING,
            severity=Severity.SUSPICION,
            subject=subject,
            says=f"{marked} of {facts.num_rows} of its events came later than max_late",
            evidence={"late": marked, "events": facts.num_rows},
            hint=f"training labels see them and serving does not: raise max_late of topic {topic!r}",
        )
    ]


def _measured(subject: str, delays: Integers, declared: Duration, name: str, read_by: str) -> list[Finding]:
    """How long after their origin live truths became available, against what was declared."""
    if not len(delays):
        return []
    later = int((delays > declared.micros).sum())
    share = later / len(delays)
    if share <= LATER_MAX:
        return []
    evidence: dict[str, int | float | str] = {
        "later": later,
        "events": len(delays),
        "declared": str(declared),
        "features": read_by,
    }
    enough = int(np.sort(delays)[nearest_rank(1 - LATER_MAX, len(delays))])
    return [
        Finding(
            check=Check.LATER_THAN_DECLARED,
            severity=Severity.STRONG if share > 10 * LATER_MAX else Severity.SUSPICION,
            subject=subject,
            says=f"{later} of {len(delays)} live truths ({percent(share)}) became available later than declared",
            evidence=evidence | _quantiles(delays),
            hint=f"{name} of {Duration(enough)} would hold for {percent(1 - LATER_MAX)} of them",
        )
    ]


# --- who could have got a label at all ---


def no_chance(label: Label, logged: Logged) -> list[Finding]:
    """Groups of origins without a single label event where chance alone would hardly give that: an outcome that nobody
    could have seen (a declined request has no chargeback), or a time before labels were collected."""
    facts, origins = _rows_of(label.source.name, logged, live=None), _rows(label.of, logged, live=None)
    if facts is None or origins is None:
        return []
    newest = max(int(units(_one(table.column(AVAILABLE_AT))).max()) for table in (facts, origins))
    matured = units(_one(origins.column(EVENT_TIME))) + label.maturity.micros <= newest
    origins = origins.filter(pa.array(matured))
    if origins.num_rows < ROWS_MIN:
        return []
    labelled = _labelled(label, origins, facts)
    rate = float(labelled.mean())
    if rate == 0:
        return []
    groups: list[tuple[str, list[object]]] = []
    for column in label.of.schema:
        if column.name not in (label.of.id, label.of.event_time) and column.type.kind in (
            Kind.STRING,
            Kind.BOOLEAN,
            Kind.INT64,
        ):
            values = origins.column(column.name).to_pylist()
            if 2 <= len(set(values)) <= CATEGORIES_MAX:
                groups.append((column.name, values))
    months = (units(_one(origins.column(EVENT_TIME))) // MONTH).tolist()
    groups.append(("30 days of event time", [f"number {month}" for month in months]))
    findings = []
    for name, values in groups:
        for value in sorted(set(values), key=str):
            inside = np.array([one == value for one in values], np.bool_)
            count = int(inside.sum())
            # The chance that `count` origins of the overall rate have no label among them.
            chance = math.exp(count * math.log1p(-rate)) if rate < 1 else 0.0
            if not labelled[inside].any() and chance < CHANCE_MIN and count < len(values):
                findings.append(
                    Finding(
                        check=Check.NO_CHANCE,
                        severity=Severity.SUSPICION,
                        subject=f"label {label.name!r}",
                        says=f"no label event for {count} origins with {name} = {value!r}; {percent(rate)} have one",
                        evidence={"origins": count, "share": count / len(values), "rate": rate, "chance": chance},
                        hint="if their outcome cannot be seen it is unknown, not false: leave them out of training",
                    )
                )
    return findings


def selected_by_outcome(label: Label, logged: Logged, trained: Chosen) -> list[Finding]:
    """Whether the training rows are a choice that depends on the outcome.

    Compares the share with a label event among the matured origins in the set and those left out (two-proportion z); of
    both those that `where` means, in the time that the set spans.
    """
    facts, origins = _rows_of(label.source.name, logged, live=None), _rows(label.of, logged, live=None)
    if facts is None or origins is None:
        return []
    chosen, times = set(trained.ids), units(_one(origins.column(EVENT_TIME)))
    inside = np.array([id in chosen for id in origins.column(label.on).to_pylist()], np.bool_)
    if not inside.any():
        return []
    meant = (times >= times[inside].min()) & (times <= times[inside].max())
    meant &= times + label.maturity.micros <= trained.t_label
    if trained.where is not None:
        meant &= _true(trained.where, origins)
    labelled, inside = _labelled(label, origins, facts)[meant], inside[meant]
    count, out = int(inside.sum()), int((~inside).sum())
    if min(count, out) < ROWS_MIN:
        return []
    rates = float(labelled[inside].mean()), float(labelled[~inside].mean())
    pooled = float(labelled.mean())
    spread = math.sqrt(pooled * (1 - pooled) * (1 / count + 1 / out))
    z = abs(rates[0] - rates[1]) / spread if spread else 0.0
    if z < 5:  # beyond five deviations chance is one in 1.7 million
        return []
    return [
        Finding(
            check=Check.SELECTED,
            severity=Severity.SUSPICION,
            subject=f"label {label.name!r}",
            says=f"label events: {percent(rates[0])} of {count} training rows, {percent(rates[1])} of {out} left out",
            evidence={"rate_in": rates[0], "rate_out": rates[1], "rows_in": count, "rows_out": out, "z": z},
            hint="choose training rows by what was known at the decision, and let maturity alone leave rows out",
        )
    ]


# --- rows ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    """Facts beside their origins: the origin's event time, the fact's event time and available_at; whether it was
    live."""

    origin: Integers
    event_time: Integers
    available_at: Integers
    live: Booleans


_LIVE = "_live"


def _rows(topic: Topic, logged: Logged, *, live: bool | None) -> pa.Table | None:
    return _rows_of(topic.name, logged, live=live)


def _rows_of(topic: str, logged: Logged, *, live: bool | None, verdicts: Sequence[Verdict] = TAKEN) -> pa.Table | None:
    """The rows of live partitions, of imports, or of both, with one of the verdicts; None where there are none."""
    parts = []
    for partition, batch in logged.get(topic, ()):
        is_live = partition.index < IMPORTS_FROM
        if live is None or live == is_live:
            parts.append(batch.append_column(_LIVE, pa.array(np.full(batch.num_rows, is_live))))
    if not parts:
        return None
    table = pa.Table.from_batches(parts)
    table = table.filter(pc.is_in(table.column(VERDICT), pa.array([int(v) for v in verdicts], pa.uint8())))
    return table.combine_chunks() if table.num_rows else None


def _joined(origins: pa.Table, id: str, facts: pa.Table, on: str) -> _Joined:
    """Facts whose origin is there; of several origins of one id the first counts."""
    first: dict[object, int] = {}
    times = units(_one(origins.column(EVENT_TIME))).tolist()
    for key, time in zip(origins.column(id).to_pylist(), times, strict=True):
        if key not in first or time < first[key]:
            first[key] = time
    named = facts.column(on).to_pylist()
    rows = np.array([key in first for key in named], np.bool_)
    return _Joined(
        origin=np.array([first[key] for key in named if key in first], np.int64),
        event_time=units(_one(facts.column(EVENT_TIME)))[rows],
        available_at=units(_one(facts.column(AVAILABLE_AT)))[rows],
        live=facts.column(_LIVE).to_numpy()[rows],
    )


def _labelled(label: Label, origins: pa.Table, facts: pa.Table) -> Booleans:
    """Which origins have a label event within [e, e + within]."""
    events: dict[object, list[int]] = {}
    for key, time in zip(
        facts.column(label.on).to_pylist(), units(_one(facts.column(EVENT_TIME))).tolist(), strict=True
    ):
        events.setdefault(key, []).append(time)
    within = label.within.micros
    times = units(_one(origins.column(EVENT_TIME))).tolist()
    keys = origins.column(label.on).to_pylist()
    return np.array(
        [any(e <= t <= e + within for t in events.get(key, ())) for key, e in zip(keys, times, strict=True)], np.bool_
    )


def _true(condition: Expr, origins: pa.Table) -> Booleans:
    columns = {reference.path: origins.column(reference.name) for reference in references(condition)}
    found = evaluate_columns(condition, columns, rows=origins.num_rows).fill_null(False)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def _readers(views: Iterable[FeatureView]) -> dict[str, list[str]]:
    """`topic.column` or `topic.label` -> the features that read it."""
    found: dict[str, list[str]] = {}
    for view in views:
        for feature in view.features:
            parts = [part for part in (feature.input, feature.where) if part is not None]
            for path in {reference.path for part in parts for reference in references(part)}:
                found.setdefault(path, []).append(f"{view.name}.{feature.name}")
    return found


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _quantiles(micros: Integers) -> dict[str, int | float | str]:
    """p50, p90, p99 and the longest, by nearest rank."""
    ordered = np.sort(micros)
    found = {f"p{round(100 * q)}": ordered[nearest_rank(q, len(ordered))] for q in (0.5, 0.9, 0.99)} | {
        "max": ordered[-1]
    }
    return {name: _length(int(value)) for name, value in found.items()}


def _length(micros: int) -> str:
    return f"-{Duration(-micros)}" if micros < 0 else str(Duration(micros))
