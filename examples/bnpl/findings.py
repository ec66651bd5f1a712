"""What a run of the lender found, as numbers: what the table and the report both show. Reads the project's records and
the generator's files, the truth among them.

The one idea: a decision's record is what counts, and not what the client was told; both are read, and a difference
between them is a failure of the run. The truth file is read here, after everything is decided, and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from generate import Options
from live import Answer, Decided
from market import FRAUDS
from steps import DECISION, REQUESTS, Trained

from headrace.core.expr import Call, Expr, Literal, Named, Reference, Source
from headrace.core.times import Instant
from headrace.decisions.define import Decision
from headrace.decisions.explain import Explanation
from headrace.decisions.record import DecisionRecord
from headrace.decisions.replay import ReplayReport
from headrace.features.training import Impact
from headrace.models.evaluate import Floats, Truths
from headrace.runtime.explained import explain_decision
from headrace.runtime.project import Project

OUTCOMES = ("approve", "review", "decline")
HONEST, DEFAULT = "honest", "default"
FRAUD_KINDS = tuple(fraud for fraud in FRAUDS if fraud is not None)
KINDS = (HONEST, DEFAULT, *FRAUD_KINDS)
SEGMENTS = ("category", "channel", "file")
EVENTS_SHOWN = 3  # of each view, in a decision that is explained
CALIBRATION_ROWS = 40  # below it, a share says little
Z = 1.96  # of 95 %


class DiffersError(Exception):
    """What a caller was told, what is recorded, and what is computed again are not the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One decided application. scores: by model. rule: the place of the one that decided. beside: what a challenger
    would have decided, by its name. kind: the truth, one of KINDS. segments: one value for each of SEGMENTS. cents: the
    amount."""

    application: int
    at: Instant
    told: Answer
    scores: Mapping[str, float]
    rule: int
    beside: Mapping[str, str]
    kind: str
    cents: int
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """why: why this one is shown."""

    why: str
    case: Case
    said: Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of it. events: what was generated. served: whether it was asked over HTTP. impacts: None without the
    incident. texts: of each reason, by language. thresholds: by model, outcomes with the score above which a rule
    gives them. rules: in words, in order. durations: the names of values that are."""

    options: Options
    served: bool
    events: int
    imported: int
    trained: Sequence[Trained]
    decided: Decided
    cases: Sequence[Case]
    replayed: ReplayReport
    impacts: Sequence[Impact] | None
    explained: Sequence[Explained]
    texts: Mapping[str, Mapping[str, str]]
    thresholds: Mapping[str, Sequence[tuple[str, float]]]
    rules: Sequence[str]
    durations: frozenset[str]

    def count(self, *, kind: str | None = None, outcome: str | None = None) -> int:
        return sum(1 for _ in self.chosen(kind=kind, outcome=outcome))

    def chosen(self, *, kind: str | None = None, outcome: str | None = None) -> Iterator[Case]:
        for case in self.cases:
            if kind in (None, case.kind) and outcome in (None, case.told.outcome):
                yield case

    @property
    def milliseconds(self) -> Floats:
        """From asking to the answer, one a request."""
        return np.array([case.told.taken * 1e3 for case in self.cases])

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Codes by how often they were given, the most first."""
        counts = Counter(code for case in self.cases for code in case.told.reasons)
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def find_cases(project: Project, data: Path, decided: Decided) -> list[Case]:
    """Every answer beside its record and its truth, in the order of requests. Raises: DiffersError."""
    recorded = {record.decision_id: record for record in project.records(DECISION)}
    if len(recorded) != len(decided.answers):
        raise DiffersError(f"{len(decided.answers):,} answers were given, and {len(recorded):,} are recorded")
    truth = _by_id(data / "truth.parquet", "application_id")
    requests = _by_id(data / f"{REQUESTS}.parquet", "application_id")
    categories = {id: row["category"] for id, row in _by_id(data / "merchants.parquet", "merchant_id").items()}
    thin = {id: row["thin_file"] for id, row in _by_id(data / "customers.parquet", "customer_id").items()}
    cases = []
    for id, told in decided.answers.items():
        record, request, true = recorded.get(told.decision_id), requests[id], truth[id]
        if record is None or (str(id), told.outcome, told.reasons) != _told(record):
            raise DiffersError(f"application {id}: {told} was told, and {record} is recorded")
        cases.append(
            Case(
                application=id,
                at=record.t,
                told=told,
                scores={name: score for name, score in record.ruling.answer.scores if score is not None},
                rule=record.rule,
                beside={name: one.outcome.value for name, one in record.ruling.beside},
                kind=str(true["fraud"] or (DEFAULT if true["defaults"] else HONEST)),
                cents=int(Decimal(str(request["amount"])) * 100),
                segments=(
                    str(categories[request["merchant_id"]]),
                    str(request["channel"]),
                    "thin file" if thin[request["customer_id"]] else "usual file",
                ),
            )
        )
    return cases


def _told(record: DecisionRecord) -> tuple[str, str, tuple[str, ...]]:
    return record.request_id, record.outcome.value, tuple(record.reasons)


def _by_id(path: Path, id: str) -> dict[object, dict[str, object]]:
    """Rows by their id, of repeated ones the last."""
    return {row[id]: row for row in pq.read_table(path).to_pylist()}


def texts_of(decision: Decision) -> dict[str, dict[str, str]]:
    """What each reason says, by language."""
    return {
        code: {language: decision.text(code, language) or "" for language in decision.languages}
        for code in decision.codes
    }


def thresholds_of(decision: Decision) -> dict[str, list[tuple[str, float]]]:
    """By model, each outcome that a rule gives above some score, in the order of rules."""
    found: dict[str, list[tuple[str, float]]] = {}
    for rule in decision.policy:
        for condition in rule.conditions:
            for model, at in _above(condition):
                found.setdefault(model or decision.models[0].name, []).append((rule.outcome.value, at))
    return found


def _above(condition: Expr) -> Iterator[tuple[str, float]]:
    match condition:
        case Named(expr=inner):
            yield from _above(inner)
        case Call(op="gt" | "ge", args=(Reference(source=Source.SCORE, owner=model), Literal(value=float() as at))):
            yield model, at
        case Call(args=parts):
            for part in parts:
                yield from _above(part)


def check(decided: Decided, replayed: ReplayReport) -> None:
    """Raises: DiffersError unless every decision was computed again, to the same bits."""
    if replayed.mismatched or replayed.compared != len(decided.answers):
        raise DiffersError(
            f"of {len(decided.answers):,} decisions {replayed.compared:,} were computed again, "
            f"{replayed.mismatched:,} of them differ: {replayed.differences[:3]}"
        )


def explain_some(project: Project, cases: Sequence[Case]) -> list[Explained]:
    """A fraud that was stopped, an honest customer who was not served, a fraud that got through: of each the one of
    the highest amount, as far as there is one."""
    wanted: tuple[tuple[str, Callable[[Case], bool]], ...] = (
        ("A fraud, stopped", lambda case: case.kind in FRAUD_KINDS and case.told.outcome != "approve"),
        ("An honest customer, declined", lambda case: case.kind == HONEST and case.told.outcome == "decline"),
        ("A fraud, let through", lambda case: case.kind in FRAUD_KINDS and case.told.outcome == "approve"),
    )
    found = []
    for why, fits in wanted:
        fitting = [case for case in cases if fits(case)]
        if fitting:
            case = max(fitting, key=lambda each: (each.cents, -each.application))
            said = explain_decision(project, case.told.decision_id, events=EVENTS_SHOWN)
            found.append(Explained(why=why, case=case, said=said))
    return found


# --- figures ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Rows of like scores: what was predicted of them on average, the share that came true, and the interval of 95 %
    in which that share may as well lie (Wilson's)."""

    rows: int
    true: int
    predicted: float
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.true / self.rows


def calibration(truths: Truths, scores: Floats) -> list[Bin]:
    """By the score's half decades, so that rare truths are seen at both ends; bins of too few rows are left out."""
    found = []
    edges = 10.0 ** np.arange(-4, 0.01, 0.5)
    places = np.clip(np.searchsorted(edges, scores, side="right"), 1, len(edges) - 1)
    for place in np.unique(places):
        chosen = places == place
        rows, true = int(chosen.sum()), int(truths[chosen].sum())
        if rows >= CALIBRATION_ROWS:
            low, high = wilson(true, rows)
            found.append(Bin(rows=rows, true=true, predicted=float(scores[chosen].mean()), low=low, high=high))
    return found


def wilson(true: int, rows: int) -> tuple[float, float]:
    """The interval of 95 % of a share, by Wilson's score."""
    share, more = true / rows, Z * Z / rows
    middle = (share + more / 2) / (1 + more)
    half = Z / (1 + more) * float(np.sqrt(share * (1 - share) / rows + more / (4 * rows)))
    return max(0.0, middle - half), min(1.0, middle + half)
