"""Contributions against the libraries' own, on generated forests and rows, nulls among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import headrace as hr
from headrace.core.kernel.model import Floats
from headrace.models.contributions import Contributions
from headrace.models.define import Trainer
from headrace.models.inputs import labels, matrix
from headrace.models.train import train
from tests.needs import requires
from tests.unit.models.lender import numbers_model, numbers_table

requires("xgboost", "lightgbm", "sklearn")

TOLERANCE = 1e-4  # the libraries' own sums are in float32, or miss what they should add up to by some 1e-5
FORESTS, SHARE = 120, 25  # of each library; so many run always
ROWS = 100


def some_xgboost(random: np.random.Generator) -> Trainer:
    return hr.xgboost(
        n_estimators=int(random.integers(1, 60)),
        max_depth=int(random.integers(1, 10)),
        learning_rate=float(random.uniform(0.05, 0.6)),
        min_child_weight=float(random.choice([0.1, 1.0, 5.0])),
        subsample=float(random.choice([0.6, 1.0])),
        colsample_bytree=float(random.choice([0.5, 1.0])),
        gamma=float(random.choice([0.0, 0.3])),
        reg_alpha=float(random.choice([0.0, 0.2])),
        base_score=None if random.random() < 0.5 else float(random.uniform(0.05, 0.9)),
        seed=int(random.integers(1_000)),
    )


def some_lightgbm(random: np.random.Generator) -> Trainer:
    return hr.lightgbm(
        n_estimators=int(random.integers(1, 60)),
        num_leaves=int(random.integers(2, 64)),
        max_depth=None if random.random() < 0.5 else int(random.integers(1, 12)),
        learning_rate=float(random.uniform(0.05, 0.4)),
        min_child_samples=int(random.choice([1, 5, 20])),
        subsample=0.7,
        subsample_freq=int(random.integers(0, 2)),
        colsample_bytree=float(random.choice([0.5, 1.0])),
        reg_lambda=float(random.choice([0.0, 1.0])),
        seed=int(random.integers(1_000)),
    )


def xgboosts(trainer: Trainer, inputs: Floats, truths: Floats, rows: Floats) -> Floats:
    import xgboost  # not on every machine; `requires` said so

    settings = {name: value for name, value in trainer.settings if value is not None}
    rounds = settings.pop("n_estimators")
    settings |= {"objective": "binary:logistic", "seed": trainer.seed, "nthread": 1}
    booster = xgboost.train(settings, xgboost.DMatrix(inputs, label=truths), num_boost_round=rounds)
    found: Floats = booster.predict(xgboost.DMatrix(rows), pred_contribs=True).astype(np.float64)
    return found


def lightgbms(trainer: Trainer, inputs: Floats, truths: Floats, rows: Floats) -> Floats:
    import lightgbm  # not on every machine; `requires` said so

    settings = {name: value for name, value in trainer.settings if value is not None}
    rounds = settings.pop("n_estimators")
    settings |= {"objective": "binary", "seed": trainer.seed, "num_threads": 1, "verbosity": -1}
    settings |= {"deterministic": True, "force_row_wise": True}
    given = lightgbm.Dataset(inputs.astype(np.float32), label=truths)
    booster = lightgbm.train(settings, given, num_boost_round=rounds)
    found: Floats = booster.predict(rows.astype(np.float32), pred_contrib=True)
    return found


LIBRARIES: dict[str, tuple[Callable[..., Trainer], Callable[..., Floats]]] = {
    "xgboost": (some_xgboost, xgboosts),
    "lightgbm": (some_lightgbm, lightgbms),
}


def largest_difference(name: str, seed: int) -> float:
    """Of one generated forest, over its base and all contributions of rows that it has and has not seen."""
    random = np.random.default_rng(seed)
    some, theirs = LIBRARIES[name]
    count = int(random.integers(2, 16))
    nulls = float(random.choice([0.0, 0.05, 0.4]))
    table = numbers_table(int(random.integers(100, 800)), count, seed=seed, nulls=nulls, scales=(1.0, 1e-3, 1e4))
    model = numbers_model(some(random), count)
    trained = train(model, table, training_set="t", fingerprint="f", views={})
    ours = Contributions(trained.artifact)
    inputs, truths = matrix(model, table), labels(model, table).astype(np.float64)
    rows = np.concatenate([inputs[: ROWS // 2], random.permuted(inputs, axis=0)[: ROWS // 2]])
    rows[random.random(rows.shape) < 0.1] = np.nan  # also where training saw none
    rows[-1] = np.nan
    said = theirs(model.trainer, inputs, truths, rows)
    found = np.column_stack([ours.many(rows), np.full(len(rows), ours.base)])
    return float(np.abs(found - said).max())


@pytest.mark.parametrize("seed", range(SHARE))
@pytest.mark.parametrize("name", LIBRARIES)
def test_contributions_are_the_librarys(name: str, seed: int) -> None:
    assert largest_difference(name, seed) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_contributions_are_the_librarys_on_many_forests(name: str) -> None:
    differences = {seed: largest_difference(name, seed) for seed in range(SHARE, FORESTS)}
    assert max(differences.values()) < TOLERANCE, max(differences, key=differences.__getitem__)


def test_averaged_trees_contribute_to_the_probability() -> None:
    """scikit-learn has no contributions of its own: what they add up to is what it predicts."""
    table = numbers_table(400, 5, seed=1, nulls=0.1)
    model = numbers_model(hr.random_forest(n_estimators=10), 5)
    trained = train(model, table, training_set="t", fingerprint="f", views={})
    ours = Contributions(trained.artifact)
    sums = ours.base + ours.many(matrix(model, table)).sum(axis=1)
    assert np.abs(sums - trained.scores).max() < 1e-9
