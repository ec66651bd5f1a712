"""Figures: equal to scikit-learn's, ties and all; entity precision against the handbook's own few lines of pandas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import UsageError
from headrace.models.evaluate import auc_roc, average_precision, curve, entity_precision, evaluate
from headrace.models.picture import picture
from tests.needs import requires

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60).filter(
    lambda rows: len({truth for truth, _ in rows}) == 2
)


@given(rows=ROWS)
def test_both_areas_are_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    requires("sklearn")
    from sklearn.metrics import average_precision_score, roc_auc_score

    truths, scores = np.array([t for t, _ in rows]), np.array([s / 7 for _, s in rows])
    assert auc_roc(truths, scores) == pytest.approx(roc_auc_score(truths, scores), abs=1e-12)
    assert average_precision(truths, scores) == pytest.approx(average_precision_score(truths, scores), abs=1e-12)


@given(rows=ROWS)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    true = [s for t, s in rows if t]
    false = [s for t, s in rows if not t]
    won = sum((a > b) + 0.5 * (a == b) for a in true for b in false)
    assert auc_roc(np.array([t for t, _ in rows]), np.array([float(s) for _, s in rows])) == won / (
        len(true) * len(false)
    )


def test_the_order_of_rows_changes_nothing() -> None:
    random = np.random.default_rng(0)
    truths, scores = random.random(500) < 0.3, np.round(random.random(500), 2)
    turned = random.permutation(500)
    assert auc_roc(truths, scores) == auc_roc(truths[turned], scores[turned])
    assert average_precision(truths, scores) == average_precision(truths[turned], scores[turned])
    assert len(curve(truths, scores).thresholds) == len(np.unique(scores))


def test_entity_precision_is_the_handbooks() -> None:
    requires("pandas")
    import pandas as pd

    random = np.random.default_rng(3)
    rows = 4_000
    frame = pd.DataFrame(
        {
            "day": random.integers(10, 17, rows),
            "card": random.integers(0, 300, rows),
            "fraud": random.random(rows) < 0.05,
            "score": random.random(rows),  # no ties: the handbook leaves their order to the sort
        }
    )
    detected: list[int] = []
    shares = []
    for _, day in frame.groupby("day"):
        day = day[~day.card.isin(detected)].groupby("card").max().sort_values("score", ascending=False).head(20)
        found = list(day[day.fraud].index)
        shares.append(len(found) / 20)
        detected += found
    ours = entity_precision(
        frame.fraud.to_numpy(),
        frame.score.to_numpy(),
        entities=frame.card.to_numpy(),
        days=frame.day.to_numpy(np.int64),
        k=20,
    )
    assert ours == pytest.approx(np.mean(shares), abs=1e-15)


def test_ties_go_to_the_entity_that_sorts_first() -> None:
    truths, scores = np.array([False, True, False]), np.array([0.5, 0.5, 0.1])
    days = np.zeros(3, np.int64)
    assert entity_precision(truths, scores, entities=["b", "a", "c"], days=days, k=1) == 1.0
    assert entity_precision(truths, scores, entities=["a", "b", "c"], days=days, k=1) == 0.0


def test_a_detected_entity_is_left_out_on_later_days() -> None:
    truths, scores = np.array([True, True, True]), np.array([0.9, 0.9, 0.2])
    days = np.array([1, 2, 2])
    assert entity_precision(truths, scores, entities=["a", "a", "b"], days=days, k=1) == 1.0
    assert entity_precision(truths, scores, entities=["a", "a", "b"], days=days, k=2) == 0.5


@pytest.mark.parametrize(
    ("truths", "scores"),
    [([True, True], [0.1, 0.2]), ([False], [0.1]), ([True, False], [0.1]), ([True, False], [0.1, float("nan")])],
)
def test_rows_that_say_nothing_are_refused(truths: list[bool], scores: list[float]) -> None:
    with pytest.raises(UsageError) as caught:
        auc_roc(np.array(truths), np.array(scores))
    assert caught.value.code == "HR-0614"


def test_all_figures_at_once() -> None:
    truths, scores = np.array([False, True, True, False]), np.array([0.1, 0.9, 0.4, 0.4])
    found = evaluate(truths, scores)
    assert (found.rows, found.positives, found.auc_roc, found.entity_precision) == (4, 2, 0.875, None)
    assert evaluate(truths, scores, entities=[1, 2, 3, 4], days=np.zeros(4, np.int64), k=2).entity_precision == 1.0


def test_a_picture_is_a_png_and_the_same_each_time() -> None:
    requires("matplotlib")
    truths, scores = np.array([False, True, True, False]), np.array([0.1, 0.9, 0.4, 0.4])
    data = picture(truths, scores, title="four rows")
    assert data.startswith(b"\x89PNG") and data == picture(truths, scores, title="four rows")
