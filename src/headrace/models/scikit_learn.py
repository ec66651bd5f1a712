"""Trains by scikit-learn and hands over arrays: logistic regression, decision tree, random forest. Uses one processor.

The one idea: scikit-learn compares the float32 of an input by `<=` with a float64 threshold; the smallest float32 above
that threshold, compared by `<`, decides alike for every float32, and so every tree here has one kind of node.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from headrace import plugs
from headrace.core.errors import InputError
from headrace.core.kernel.model import Form, Trees
from headrace.models.define import Method, Trainer
from headrace.models.port import Floats, Learned, TrainerLibrary, Truths


class ScikitLearn(TrainerLibrary):
    """Logistic regression takes no null: it is filled by the mean before; trees send it where training sent it."""

    def takes_null(self, trainer: Trainer) -> bool:
        return trainer.method is not Method.LOGISTIC_REGRESSION

    def train(self, trainer: Trainer, inputs: Floats, truths: Truths) -> Learned:
        library = plugs.require("sklearn", wanted_by=f"trainer {trainer.method.value!r}")
        settings = dict(trainer.settings)
        try:
            estimator = _estimator(trainer, settings)
            # Not converged is a fact about the data, and the report's scores say what it costs.
            with warnings.catch_warnings(action="ignore"):
                estimator.fit(inputs, truths)
        except ValueError as error:
            raise InputError(
                "HR-0612", f"scikit-learn refuses to train {trainer.method.value!r}", detail=str(error)
            ) from error
        scores = estimator.predict_proba(inputs)[:, 1]
        libraries = (("scikit-learn", str(library.__version__)), ("numpy", np.__version__))
        if trainer.method is Method.LOGISTIC_REGRESSION:
            return Learned(
                form=Form.LINEAR,
                base=float(estimator.intercept_[0]),
                coefficients=np.array(estimator.coef_[0], np.float64),
                scores=scores,
                libraries=libraries,
            )
        trees = [estimator] if trainer.method is Method.DECISION_TREE else estimator.estimators_
        return Learned(form=Form.AVERAGED, trees=_trees([t.tree_ for t in trees]), scores=scores, libraries=libraries)


def _estimator(trainer: Trainer, settings: dict[str, Any]) -> Any:
    wanted_by = f"trainer {trainer.method.value!r}"
    match trainer.method:
        case Method.LOGISTIC_REGRESSION:
            linear: ModuleType = plugs.require("sklearn.linear_model", wanted_by=wanted_by)
            return linear.LogisticRegression(**settings, random_state=trainer.seed)
        case Method.DECISION_TREE:
            tree: ModuleType = plugs.require("sklearn.tree", wanted_by=wanted_by)
            return tree.DecisionTreeClassifier(**settings, random_state=trainer.seed)
        case Method.RANDOM_FOREST:
            ensemble: ModuleType = plugs.require("sklearn.ensemble", wanted_by=wanted_by)
            # Trees are grown from seeds of their own, so the number of threads changes nothing but the time.
            return ensemble.RandomForestClassifier(**settings, random_state=trainer.seed, n_jobs=-1)
    raise InputError("HR-0612", f"scikit-learn does not train {trainer.method.value!r}")


def _trees(grown: Sequence[Any]) -> Trees:
    """scikit-learn's trees, one after another; a leaf's value is the share of true rows in it."""
    counts = [tree.node_count for tree in grown]
    roots = np.cumsum([0, *counts[:-1]])
    shift = np.repeat(roots, counts)
    left, right = (np.concatenate([getattr(t, f"children_{side}") for t in grown]) for side in ("left", "right"))
    leaf = left < 0
    shares = np.concatenate([t.value[:, 0, 1] / t.value[:, 0, :].sum(axis=1) for t in grown])
    return Trees(
        roots=roots.astype(np.int32),
        left=np.where(leaf, -1, left + shift).astype(np.int32),
        right=np.where(leaf, -1, right + shift).astype(np.int32),
        input=np.where(leaf, 0, np.concatenate([t.feature for t in grown])).astype(np.int16),
        threshold=above(np.where(leaf, 0.0, np.concatenate([t.threshold for t in grown]))),
        missing_left=np.where(leaf, False, np.concatenate([t.missing_go_to_left for t in grown]).astype(bool)),
        value=np.where(leaf, shares, 0.0),
        cover=np.concatenate([t.weighted_n_node_samples for t in grown]),
    )


def above(thresholds: Floats) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The smallest float32 above each threshold: x <= threshold iff x < it, for every x that is a float32."""
    nearest = thresholds.astype(np.float32)
    below = nearest.astype(np.float64) <= thresholds
    return np.where(below, np.nextafter(nearest, np.float32(np.inf)), nearest).astype(np.float32)
