"""How good scores are: area under the curve, average precision, precision among the k highest entities. Pure.

The one idea: ties are counted, not broken, wherever a figure is over rows; the order of rows never changes one. Where
the highest k entities are taken, ties go to the entity that sorts first, so the figure is one number on every machine.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.core.errors import UsageError

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Of one model on one table. entity_precision: None where no entity and day were given."""

    rows: int
    positives: int
    auc_roc: float
    average_precision: float
    entity_precision: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """Points by falling threshold, one a distinct score, cumulated: rows at or above it that are true and that are
    not."""

    thresholds: Floats
    true: npt.NDArray[np.int64]
    false: npt.NDArray[np.int64]


def curve(truths: Truths, scores: Floats) -> Curve:
    """Raises: UsageError HR-0614 where the arrays differ in length, a score is NaN, or all rows are of one kind."""
    if len(truths) != len(scores) or np.isnan(scores).any() or truths.all() or not truths.any():
        raise UsageError(
            "HR-0614",
            "these rows cannot be evaluated",
            detail=f"expected as many truths as scores, both kinds, no NaN; seen {len(truths)} truths, "
            f"{int(truths.sum())} true, {len(scores)} scores, {int(np.isnan(scores).sum())} NaN",
        )
    order = np.argsort(-scores, kind="stable")
    falling, found = scores[order], truths[order].astype(np.int64)
    last = np.flatnonzero(np.append(np.diff(falling) != 0, True))  # the last row of each distinct score
    true = np.cumsum(found)[last]
    return Curve(thresholds=falling[last], true=true, false=last + 1 - true)


def auc_roc(truths: Truths, scores: Floats) -> float:
    """The probability that a true row scores above a false one, ties half: exact in integers, rounded once."""
    points = curve(truths, scores)
    true, false = np.diff(points.true, prepend=0), np.diff(points.false, prepend=0)
    # A true row beats the false rows below its score, and half of those at it. Twice the sum stays whole; Python's
    # integers do not wrap, and a product of row counts may pass 2**63.
    below = int(points.false[-1]) - points.false
    pairs = sum(int(t) * int(2 * b + f) for t, b, f in zip(true, below, false, strict=True) if t)
    return pairs / (2 * int(points.true[-1]) * int(points.false[-1]))


def average_precision(truths: Truths, scores: Floats) -> float:
    """The mean over true rows of the precision at their score: the step-wise area under precision and recall."""
    points = curve(truths, scores)
    gained = np.diff(points.true, prepend=0)
    precision = points.true / (points.true + points.false)
    return float(np.sum(gained * precision) / points.true[-1])


def entity_precision(
    truths: Truths,
    scores: Floats,
    *,
    entities: Sequence[Hashable] | npt.NDArray[np.generic],
    days: npt.NDArray[np.int64],
    k: int,
) -> float:
    """Precision among the k entities that score highest each day, the mean over days (the fraud handbook's card
    precision).

    An entity's score on a day is its highest; it is compromised if any of its rows of the day is true. Of the k highest
    those compromised are detected: they count, over k, and are left out on later days. days: a number that rises with
    the day, one a row. A day with fewer than k entities still divides by k, as the work of looking at k is what is
    planned.
    """
    if not len(truths) == len(scores) == len(entities) == len(days) or k < 1 or not len(truths):
        raise UsageError("HR-0614", "these rows cannot be evaluated", detail="expected equal lengths, k of at least 1")
    names, codes = np.unique(np.asarray(entities), return_inverse=True)
    detected = np.zeros(len(names), np.bool_)
    shares = []
    for day in np.unique(days):
        rows = np.flatnonzero((days == day) & ~detected[codes])
        highest = np.full(len(names), -np.inf)
        np.maximum.at(highest, codes[rows], scores[rows])
        compromised = np.zeros(len(names), np.bool_)
        compromised[codes[rows[truths[rows]]]] = True
        present = np.unique(codes[rows])
        chosen = present[np.argsort(-highest[present], kind="stable")[:k]]
        found = chosen[compromised[chosen]]
        shares.append(len(found) / k)
        detected[found] = True
    return float(np.mean(shares))


def evaluate(
    truths: Truths,
    scores: Floats,
    *,
    entities: Sequence[Hashable] | npt.NDArray[np.generic] | None = None,
    days: npt.NDArray[np.int64] | None = None,
    k: int = 100,
) -> Evaluation:
    """All figures of one table."""
    by_entity = None
    if entities is not None and days is not None:
        by_entity = entity_precision(truths, scores, entities=entities, days=days, k=k)
    return Evaluation(
        rows=len(truths),
        positives=int(truths.sum()),
        auc_roc=auc_roc(truths, scores),
        average_precision=average_precision(truths, scores),
        entity_precision=by_entity,
    )
