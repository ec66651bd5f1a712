"""Makes the golden models anew: `python -m tests.golden.models.refresh`. Only where SEMANTICS allows a score to change.

Each model is trained once, here, and stored; the tests then score it without the library, on any machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import headrace as hr
from headrace.core.kernel.model import Floats
from headrace.models.artifact import Scorer, encode
from headrace.models.contributions import Contributions
from headrace.models.define import Trainer
from headrace.models.inputs import matrix
from headrace.models.train import train
from tests.unit.models.lender import numbers_model, numbers_table

FOLDER = Path(__file__).parent
VECTORS = FOLDER / "vectors.json"
COUNT = 5
TRAINERS: dict[str, Trainer] = {
    "logistic_regression": hr.logistic_regression(),
    "decision_tree": hr.decision_tree(max_depth=4, standardize=True),
    "random_forest": hr.random_forest(n_estimators=6, max_depth=4),
    "xgboost": hr.xgboost(n_estimators=12, max_depth=4),
    "lightgbm": hr.lightgbm(n_estimators=12, num_leaves=9, min_child_samples=5),
    "xgboost_standardized": hr.xgboost(n_estimators=7, max_depth=3, standardize=True, base_score=0.2),
}


def rows_of(random: np.random.Generator, inputs: Floats) -> Floats:
    """Rows as trained on, and rows at the edges of what a double can be."""
    edges = random.choice([0.0, 1e-310, -1e-40, 3.4e38, 1e39, -1e300, 0.1, np.nan], (20, COUNT))
    return np.concatenate([inputs[:40], edges, np.full((1, COUNT), np.nan)])


def main() -> None:
    vectors = {}
    for name, trainer in TRAINERS.items():
        model = numbers_model(trainer, COUNT)
        table = numbers_table(600, COUNT, seed=26, nulls=0.08, scales=(1.0, 1e-5, 1e6))
        artifact = train(model, table, training_set="golden", fingerprint="golden", views={}).artifact
        rows = rows_of(np.random.default_rng(len(name)), matrix(model, table))
        scores = Scorer(artifact).many(rows)
        (FOLDER / f"{name}.model").write_bytes(encode(artifact))
        vectors[name] = {
            "id": artifact.id,
            "rows": [[x.hex() for x in row] for row in rows.tolist()],
            "scores": [score.hex() for score in scores.tolist()],
            "base": Contributions(artifact).base.hex(),
            "contributions": [[x.hex() for x in row] for row in Contributions(artifact).many(rows).tolist()],
        }
    VECTORS.write_text(json.dumps(vectors, indent=0) + "\n")


if __name__ == "__main__":
    main()
