"""LightGBM's text becomes trees that score as it does: at nulls, at zero and what it takes for zero, at thresholds."""

from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from headrace.core.errors import InputError
from headrace.core.kernel.model import Floats, Form, Trees
from headrace.models.artifact import Scorer
from headrace.models.lightgbm import read_trees
from headrace.models.train import train
from tests.needs import requires
from tests.unit.models.lender import numbers_model, numbers_table
from tests.unit.models.test_contributions import of_inputs
from tests.unit.models.test_scorer import artifact, changed

requires("lightgbm")

SMALL = float(np.float32(1e-35))  # up to here a number is zero to LightGBM
EDGES = (
    0.0, 1e-36, -1e-36, 1e-42, SMALL, -SMALL, float(np.nextafter(np.float32(SMALL), np.float32(1))),
    -float(np.nextafter(np.float32(SMALL), np.float32(1))), 1.0, -1.0, 3e38, -3e38, np.inf, -np.inf, np.nan,
)  # fmt: skip
SETTINGS = {
    "objective": "binary", "num_leaves": 15, "min_child_samples": 2, "min_data_in_bin": 1, "verbosity": -1,
    "num_threads": 1, "seed": 1, "deterministic": True, "force_row_wise": True,
}  # fmt: skip


def booster_of(inputs: Floats, truths: Floats, *, rounds: int = 20, **settings: object) -> object:
    import lightgbm  # not on every machine; `requires` said so

    categorical = settings.pop("categorical_feature", "auto")
    given = lightgbm.Dataset(inputs.astype(np.float32), label=truths, categorical_feature=categorical)
    return lightgbm.train({**SETTINGS, **settings}, given, num_boost_round=rounds)


def rows_about(random: np.random.Generator, trees: Trees, inputs: int) -> Floats:
    """Rows of edges, and of what lies on a threshold or beside it."""
    asked = trees.threshold[trees.left >= 0]
    beside = np.concatenate([asked, np.nextafter(asked, np.float32(-np.inf)), np.nextafter(asked, np.float32(np.inf))])
    return random.choice(np.concatenate([EDGES, beside.astype(np.float64)]), (400, inputs))


def expect_same_scores(booster: object, random: np.random.Generator, inputs: int) -> None:
    trees = read_trees(booster.model_to_string())  # type: ignore[attr-defined]  # LightGBM has no types
    model = changed(artifact(Form.SUMMED, random, standardize=False), trees=trees, inputs=of_inputs(inputs), base=0.0)
    rows = rows_about(random, trees, inputs)
    theirs = booster.predict(rows.astype(np.float32))  # type: ignore[attr-defined]  # as above
    assert np.abs(Scorer(model).many(rows) - theirs).max() < 1e-12


def drawn(random: np.random.Generator, *, nulls: float) -> tuple[Floats, Floats]:
    """Three inputs: what is about zero, small whole numbers, any; truths lean on all."""
    inputs = np.column_stack(
        [
            random.choice([0.0, 1e-36, -1e-36, 1e-34, -1e-34, 1e-3, -1e-3], 600),
            random.integers(-2, 3, 600).astype(np.float64),
            random.normal(size=600),
        ]
    )
    lean = np.sign(inputs[:, 0]) * (np.abs(inputs[:, 0]) > SMALL) + (inputs[:, 1] == 0) + inputs[:, 2]
    truths = (lean + random.normal(size=600) > 0.5).astype(np.float64)
    inputs[random.random(inputs.shape) < nulls] = np.nan
    return inputs, truths


@pytest.mark.parametrize("nulls", [0.0, 0.15])
@pytest.mark.parametrize("seed", range(8))
def test_edges_score_as_in_the_library(seed: int, nulls: float) -> None:
    """Where training saw no null, a null is read as zero; where it did, it goes where the split says."""
    random = np.random.default_rng(seed)
    expect_same_scores(booster_of(*drawn(random, nulls=nulls)), random, 3)


def test_null_may_be_told_to_mean_nothing() -> None:
    random = np.random.default_rng(3)
    expect_same_scores(booster_of(*drawn(random, nulls=0.2), use_missing=False), random, 3)


def test_zero_as_missing_is_scored_where_it_can_be_and_refused_elsewhere() -> None:
    refused = scored = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        booster = booster_of(*drawn(random, nulls=0.1), zero_as_missing=True, rounds=1, num_leaves=3)
        try:
            expect_same_scores(booster, random, 3)
            scored += 1
        except InputError as error:
            assert error.code == "HR-0612" and "zero_as_missing" in error.message
            refused += 1
    assert scored and refused


@pytest.mark.parametrize("settings", [{"categorical_feature": [1]}, {"linear_tree": True}])
def test_what_cannot_be_scored_is_refused(settings: dict[str, object]) -> None:
    inputs, truths = drawn(np.random.default_rng(1), nulls=0.0)
    inputs[:, 1] += 2
    truths = np.where(inputs[:, 1] % 2 == 0, truths, 0.0)
    booster = booster_of(inputs, truths, **settings)
    with pytest.raises(InputError) as caught:
        read_trees(booster.model_to_string())  # type: ignore[attr-defined]  # LightGBM has no types
    assert caught.value.code == "HR-0612"


def test_rows_too_few_to_split_give_the_share_of_true_ones() -> None:
    table = numbers_table(12, 3, seed=1)
    trained = train(numbers_model(hr.lightgbm(), 3), table, training_set="t", fingerprint="f", views={})
    share = np.mean(table["truth"].to_numpy())
    assert trained.scores.tolist() == pytest.approx([share] * 12, abs=1e-12)
    trees = trained.artifact.trees
    assert trees is not None and (trees.left < 0).all()


def test_numbers_beyond_float32_are_refused() -> None:
    table = numbers_table(100, 3, seed=8, scales=(1e300, 1.0, 1.0))
    with pytest.raises(InputError) as caught:
        train(numbers_model(hr.lightgbm(), 3), table, training_set="t", fingerprint="f", views={})
    assert caught.value.code == "HR-0612"
