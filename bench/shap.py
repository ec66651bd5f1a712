"""Scores and exact contributions, one row at a time: 100 and 500 boosted trees of depth 6, 15 inputs, a tenth null.

The models are XGBoost's with its own defaults, trained here on generated rows that they have to work for: interactions,
noise, nulls. A figure is the time of `Scorer.one` and `Contributions.raising` on one row as a list of numbers, which is
what a decision with reasons asks; the rows take turns. `ready_ms` is what the first explanation waits for, where code
is compiled already. With `--peers` XGBoost explains the same rows one by one, by `pred_contribs` over a matrix made
beforehand, on one thread; it is the library that trained, so it runs in this environment, and every value is compared.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from headrace.core.kernel.model import Form
from headrace.models.artifact import Artifact, ArtifactInput, Scorer
from headrace.models.contributions import Contributions
from headrace.models.define import xgboost as xgboost_trainer
from headrace.models.xgboost import XGBoost

INPUTS = 15
TREES = (100, 500)
TOLERANCE = 1e-4
WARM = 200  # rows before the first that is measured

Floats = npt.NDArray[np.float64]


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figure of BENCH `decisions` that needs no decision, for two sizes of model."""
    inputs, truths = _rows(10_000 if quick else 50_000)
    asked = inputs[: WARM + (2_000 if quick else 20_000)]
    figures: dict[str, float] = {}
    beside: dict[str, float] = {}
    for trees in TREES:
        artifact = _artifact(trees, inputs, truths)
        assert artifact.trees is not None
        scorer = Scorer(artifact)
        begun = time.perf_counter()
        contributions = Contributions(artifact)
        ready = time.perf_counter() - begun
        rows = asked.tolist()
        only = _spent(rows, scorer.one)
        both = _spent(rows, lambda row, s=scorer, c=contributions: (s.one(row), c.raising(row)))
        suffix = "" if trees == TREES[0] else f"_{trees}"
        figures |= {f"ready{suffix}_ms": ready * 1e3, f"nodes{suffix}": len(artifact.trees.left)}
        for name, spent in (("score", only), ("score_and_shap", both)):
            figures[f"{name}{suffix}_p50_us"] = float(np.percentile(spent, 50)) * 1e6
            figures[f"{name}{suffix}_p99_us"] = float(np.percentile(spent, 99)) * 1e6
        if peers:
            beside |= _library(trees, suffix, inputs, truths, asked[: WARM + 1_000], contributions)
    return {"figures": figures, **({"peers": beside} if peers else {})}


def _rows(count: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    random = np.random.default_rng(4)
    inputs = random.normal(size=(count, INPUTS))
    lean = inputs[:, 0] * inputs[:, 1] + np.sin(3 * inputs[:, 2]) + inputs[:, 3:8].sum(axis=1) / 2
    truths = lean + random.normal(size=count) > 1
    inputs[random.random(inputs.shape) < 0.1] = np.nan
    return inputs, truths


def _artifact(trees: int, inputs: Floats, truths: npt.NDArray[np.bool_]) -> Artifact:
    learned = XGBoost().train(xgboost_trainer(n_estimators=trees), inputs, truths)
    return Artifact(
        model="bench",
        fingerprint="",
        method="xgboost",
        inputs=tuple(ArtifactInput(name=f"x{i}", reads=f"rows.x{i}", type="float64") for i in range(INPUTS)),
        label="truth",
        views=(),
        training_set="",
        libraries=learned.libraries,
        form=Form.BOOSTED,
        base=learned.base,
        trees=learned.trees,
    )


def _spent(rows: list[list[float]], work: Callable[[list[float]], object]) -> list[float]:
    """Seconds of each row, the first ones not counted."""
    spent = []
    for row in rows:
        begun = time.perf_counter()
        work(row)
        spent.append(time.perf_counter() - begun)
    return spent[WARM:]


def _library(
    trees: int, suffix: str, inputs: Floats, truths: npt.NDArray[np.bool_], rows: Floats, ours: Contributions
) -> dict[str, float]:
    """XGBoost's own contributions of the same rows by the same model: its time, and how many values differ."""
    import xgboost  # 300 ms, and only a run with peers needs it here

    settings = {name: value for name, value in xgboost_trainer().settings if value is not None}
    del settings["n_estimators"]
    settings |= {"objective": "binary:logistic", "seed": 0, "nthread": 1}
    booster = xgboost.train(settings, xgboost.DMatrix(inputs, label=truths), num_boost_round=trees)
    given = [xgboost.DMatrix(row.reshape(1, -1), nthread=1) for row in rows]
    found, spent = [], []
    for one in given:
        begun = time.perf_counter()
        found.append(booster.predict(one, pred_contribs=True)[0, :-1])
        spent.append(time.perf_counter() - begun)
    differing = int((np.abs(np.array(found) - ours.many(rows)) > TOLERANCE).sum())
    print(f"XGBoost {xgboost.__version__}, {trees} trees: {differing} of {rows.size} values differ", file=sys.stderr)
    return {
        f"xgboost{suffix}_p50_us": float(np.percentile(spent[WARM:], 50)) * 1e6,
        f"xgboost{suffix}_p99_us": float(np.percentile(spent[WARM:], 99)) * 1e6,
        f"xgboost{suffix}_differing_values": differing,
    }
