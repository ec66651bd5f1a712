"""Stored models score and explain as when they were stored, to the bit, without the library that trained them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headrace.models.artifact import Scorer, decode, encode
from headrace.models.contributions import Contributions

FOLDER = Path(__file__).parent
VECTORS = json.loads((FOLDER / "vectors.json").read_text())


def test_there_is_a_model_of_every_method() -> None:
    assert {"logistic_regression", "decision_tree", "random_forest", "xgboost", "lightgbm"} <= VECTORS.keys()


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_a_stored_model_scores_the_same_bits(name: str) -> None:
    data = (FOLDER / f"{name}.model").read_bytes()
    artifact = decode(data)
    assert artifact.id == VECTORS[name]["id"] and encode(artifact) == data
    rows = np.array([[float.fromhex(x) for x in row] for row in VECTORS[name]["rows"]])
    served = Scorer(artifact)
    assert [score.hex() for score in served.many(rows).tolist()] == VECTORS[name]["scores"]
    assert [served.one(row).hex() for row in rows.tolist()] == VECTORS[name]["scores"]


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_a_stored_model_explains_by_the_same_bits(name: str) -> None:
    """Those of before contributions were exact, too: every artifact of trees has carried its covers."""
    ours = Contributions(decode((FOLDER / f"{name}.model").read_bytes()))
    rows = np.array([[float.fromhex(x) for x in row] for row in VECTORS[name]["rows"]])
    assert ours.base.hex() == VECTORS[name]["base"]
    assert [[x.hex() for x in row] for row in ours.many(rows).tolist()] == VECTORS[name]["contributions"]
