"""Trains by XGBoost and hands over arrays: boosted trees of a binary logistic model. Uses all processors.

The one idea: everything is read from the model's own JSON, whose numbers are the float32 that XGBoost computes with:
the input rounded to float32 and compared by `<`, leaves summed in float32, null as the node's default says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace import plugs
from headrace.core.errors import InputError
from headrace.core.kernel.model import Form, Trees
from headrace.models.define import Trainer
from headrace.models.port import Floats, Learned, TrainerLibrary, Truths

_ROWS_ALONE_MAX = 20_000  # up to here threads wait for each other longer than they work, on a machine that does more


class XGBoost(TrainerLibrary):
    """Takes nulls as they are."""

    def takes_null(self, trainer: Trainer) -> bool:
        return True

    def train(self, trainer: Trainer, inputs: Floats, truths: Truths) -> Learned:
        library = plugs.require("xgboost", wanted_by=f"trainer {trainer.method.value!r}")
        settings = {name: value for name, value in trainer.settings if value is not None}
        rounds = settings.pop("n_estimators")
        threads = 1 if len(inputs) < _ROWS_ALONE_MAX else 0  # 0: all
        settings |= {"objective": "binary:logistic", "seed": trainer.seed, "verbosity": 0, "nthread": threads}
        try:
            rows = library.DMatrix(inputs, label=truths.astype(np.float32), missing=np.nan)
            booster = library.train(settings, rows, num_boost_round=rounds)
        except (ValueError, library.core.XGBoostError) as error:
            raise InputError(
                "HR-0612", f"XGBoost refuses to train {trainer.method.value!r}", detail=str(error)
            ) from error
        said = json.loads(bytes(booster.save_raw("json")))["learner"]
        return Learned(
            form=Form.BOOSTED,
            base=_base_margin(said["learner_model_param"]["base_score"]),
            trees=_trees(said["gradient_booster"]["model"]["trees"]),
            scores=booster.predict(rows).astype(np.float64),
            libraries=(("xgboost", str(library.__version__)), ("numpy", np.__version__)),
        )


def _base_margin(said: str) -> float:
    """The log odds of base_score in float32, as XGBoost computes them: -log(1 / p - 1). 3.1 writes the number in
    brackets."""
    share = np.float32(json.loads(said)[0] if said.startswith("[") else said)
    return float(-np.log(np.float32(1) / share - np.float32(1))) + 0.0


def _trees(grown: Sequence[dict[str, Any]]) -> Trees:
    """XGBoost's trees, one after another, without the nodes that pruning left behind."""
    parts = [_reached(tree) for tree in grown]
    counts = [len(part["left"]) for part in parts]
    roots = np.cumsum([0, *counts[:-1]])
    shift = np.repeat(roots, counts)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    leaf = joined["left"] < 0
    return Trees(
        roots=roots.astype(np.int32),
        left=np.where(leaf, -1, joined["left"] + shift).astype(np.int32),
        right=np.where(leaf, -1, joined["right"] + shift).astype(np.int32),
        input=np.where(leaf, 0, joined["input"]).astype(np.int16),
        threshold=np.where(leaf, 0, joined["number"]).astype(np.float32),
        missing_left=np.where(leaf, False, joined["missing_left"].astype(bool)),
        value=np.where(leaf, joined["number"].astype(np.float64), 0.0),
        cover=joined["cover"].astype(np.float64),
    )


def _reached(tree: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """A tree's nodes from its root, breadth first, numbered anew."""
    if tree.get("categories"):
        raise InputError("HR-0612", "XGBoost's categorical splits cannot be scored here")
    left, right = tree["left_children"], tree["right_children"]
    order = [0]
    for node in order:  # grows as it is walked
        if left[node] >= 0:
            order += (left[node], right[node])
    place = {node: number for number, node in enumerate(order)}
    take = np.array(order)
    return {
        "left": np.array([place.get(left[node], -1) for node in order]),
        "right": np.array([place.get(right[node], -1) for node in order]),
        "input": np.array(tree["split_indices"])[take],
        "number": np.array(tree["split_conditions"], np.float32)[take],
        "missing_left": np.array(tree["default_left"])[take],
        "cover": np.array(tree["sum_hessian"], np.float64)[take],
    }
