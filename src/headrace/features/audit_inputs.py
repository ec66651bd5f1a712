"""What a training set's inputs give away: one that alone tells the label, and what changes once it is live. Pure.

AUC and the population stability index are computed from exact counts (SEMANTICS 4.5).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import units
from headrace.features.finding import Check, Evidence, Finding, Severity, nearest_rank

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

ROWS_MIN = 100  # below it distributions say little
CATEGORIES_MAX = 20  # distinct values up to which each is a group of its own
AUC_ALONE = 0.95  # honest inputs of credit and fraud stay well below, alone
AUC_JUMP, AUC_JUMP_FROM = 0.15, 0.80  # above the next best input, from where on it is worth a word
PSI_NOTE, PSI_SUSPECT = 0.10, 0.25  # the customary bounds of the population stability index
PSI_BINS = 10


def single_features(training: pa.Table, outcome: str) -> list[Finding]:
    """Each input alone against the label: suspicious where it nearly tells it, or stands far above all others."""
    target = _truth(training.column(outcome))
    known = target >= 0
    scored: list[tuple[float, str, str]] = []
    for name in training.column_names:
        if name != outcome:
            auc, how = _feature_auc(training.column(name), target, known)
            scored.append((max(auc, 1 - auc), name, how))
    scored.sort(key=lambda one: (-one[0], one[1]))
    findings = []
    for place, (auc, name, how) in enumerate(scored):
        after = scored[place + 1][0] if place + 1 < len(scored) else 0.5
        alone, jump = auc > AUC_ALONE, place == 0 and auc >= AUC_JUMP_FROM and auc - after >= AUC_JUMP
        if alone or jump:
            findings.append(
                Finding(
                    check=Check.SINGLE_FEATURE,
                    severity=Severity.STRONG if alone else Severity.SUSPICION,
                    subject=f"input {name!r}",
                    says=f"alone it tells the label with an AUC of {auc:.3f}",
                    evidence={"auc": auc, "next_best": after, "by": how, "rows": int(known.sum())},
                    hint="is it known when the decision is made, or filled in once the outcome is?",
                )
            )
    return findings


def auc(values: Reals, positive: Booleans) -> float:
    """The area under the ROC curve of values as scores, ties counted half: exact integers, divided once. 0.5 where one
    class is missing."""
    distinct, places = np.unique(values, return_inverse=True)
    positives = np.bincount(places[positive], minlength=len(distinct))
    negatives = np.bincount(places[~positive], minlength=len(distinct))
    total = int(positives.sum()) * int(negatives.sum())
    if total == 0:
        return 0.5
    below = np.cumsum(negatives) - negatives
    won = 2 * int((positives.astype(object) * below.astype(object)).sum())
    won += int((positives.astype(object) * negatives.astype(object)).sum())
    return won / (2 * total)


def _feature_auc(column: pa.ChunkedArray, target: Integers, known: Booleans) -> tuple[float, str]:
    """The better of the values' own AUC and that of their being there."""
    there = _valid(column)
    found = [(auc(there[known].astype(np.float64), target[known] == 1), "whether it is there")]
    values = _reals(column)
    if values is not None:
        rows = known & there
        found.append((auc(values[rows], target[rows] == 1), "its value"))
    return max(found, key=lambda one: abs(one[0] - 0.5))


# --- what changes once it is live ---


def distributions(training: pa.Table, live: pa.Table) -> list[Finding]:
    """Inputs as first served against the training set, by the population stability index: a leak is gone when it is
    live."""
    if min(training.num_rows, live.num_rows) < ROWS_MIN:
        return []
    findings = []
    for name in training.column_names:
        if name not in live.column_names:
            continue
        index = psi(training.column(name), live.column(name))
        if index >= PSI_NOTE:
            evidence: Evidence = {
                "psi": index,
                "null_training": training.column(name).null_count / training.num_rows,
                "null_live": live.column(name).null_count / live.num_rows,
            }
            findings.append(
                Finding(
                    check=Check.DISTRIBUTION,
                    severity=Severity.SUSPICION if index >= PSI_SUSPECT else Severity.NOTE,
                    subject=f"input {name!r}",
                    says=f"live it is distributed otherwise than in training (PSI {index:.2f})",
                    evidence=evidence,
                    hint="the world changed, or training knows what serving does not: compare rows of the same time",
                )
            )
    return findings


def psi(expected: pa.ChunkedArray, seen: pa.ChunkedArray) -> float:
    """The population stability index: sum of (p - q) ln(p / q) over groups, null one of them.

    Groups are distinct values where `expected` has few, else its deciles. Counts have 1/2 added to them, so that an
    empty group is no infinity.
    """
    groups, count = _groups(expected, seen)
    p, q = (np.bincount(group, minlength=count) + 0.5 for group in groups)
    p, q = p / p.sum(), q / q.sum()
    return math.fsum(((p - q) * np.log(p / q)).tolist())


def _groups(expected: pa.ChunkedArray, seen: pa.ChunkedArray) -> tuple[tuple[Integers, Integers], int]:
    """(group of each row of both, how many groups); null is group 0."""
    real, other = _reals(expected), _reals(seen)
    there, others = _valid(expected), _valid(seen)
    if real is not None and other is not None and len(np.unique(real[there])) > CATEGORIES_MAX:
        ordered = np.sort(real[there])
        edges = np.unique(ordered[[nearest_rank(i / PSI_BINS, len(ordered)) for i in range(1, PSI_BINS)]])
        first = np.where(there, np.searchsorted(edges, real) + 1, 0)
        second = np.where(others, np.searchsorted(edges, other) + 1, 0)
        return (first, second), len(edges) + 2
    names: dict[object, int] = {None: 0}
    first, second = (
        np.array([names.setdefault(value, len(names)) for value in column.to_pylist()], np.int64)
        for column in (expected, seen)
    )
    return (first, second), len(names)


# --- columns ---


def _valid(column: pa.ChunkedArray) -> Booleans:
    return np.asarray(column.is_valid().to_numpy(), np.bool_)


def _truth(column: pa.ChunkedArray) -> Integers:
    """1 true, 0 false, -1 unknown."""
    return np.array([-1 if value is None else int(bool(value)) for value in column.to_pylist()], np.int64)


def _reals(column: pa.ChunkedArray) -> Reals | None:
    """Numbers as doubles, 0 where null; None for what has no order here (texts, lists)."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return units(_one(column)).astype(np.float64)
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        filled = _one(column).cast(pa.float64()) if not pa.types.is_boolean(kind) else _one(column).cast(pa.int8())
        return np.asarray(filled.fill_null(0).to_numpy(zero_copy_only=False), np.float64)
    return None


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
