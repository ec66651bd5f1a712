"""Trains by LightGBM and hands over arrays: boosted trees of a binary model. Uses all processors.

The one idea: LightGBM computes in doubles, so it is given inputs that are float32 already, as the scorer has them; then
its `<=` with a float64 threshold is `<` with the smallest float32 above, as for scikit-learn's trees. Its own rules of
null and zero become thresholds too: numbers within 1e-35 of zero are read as zero, and where training saw no null, a
null is read as zero. Covers are counts of rows, which is what LightGBM's own contributions weigh by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from headrace import plugs
from headrace.core.errors import InputError
from headrace.core.kernel.model import Form, Trees
from headrace.models.define import Trainer
from headrace.models.port import Floats, Learned, TrainerLibrary, Truths
from headrace.models.scikit_learn import above

_ROWS_ALONE_MAX = 20_000  # up to here threads wait for each other longer than they work, on a machine that does more
_ZERO = np.float32(1e-35)  # numbers up to here are zero to LightGBM (kZeroThreshold)
# A node's decision_type: bit 0 says categorical, bit 1 that the default is left, bits 2 and 3 what counts as missing.
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_MISSING_NONE, _MISSING_ZERO = 0, 1  # 2: NaN


class LightGBM(TrainerLibrary):
    """Takes nulls as they are."""

    def takes_null(self, trainer: Trainer) -> bool:
        return True

    def train(self, trainer: Trainer, inputs: Floats, truths: Truths) -> Learned:
        lightgbm = plugs.require("lightgbm", wanted_by=f"trainer {trainer.method.value!r}")
        settings = {name: value for name, value in trainer.settings if value is not None}
        rounds = settings.pop("n_estimators")
        threads = 1 if len(inputs) < _ROWS_ALONE_MAX else 0  # 0: all
        settings |= {"objective": "binary", "seed": trainer.seed, "verbosity": -1, "num_threads": threads}
        # Else LightGBM times both ways to build histograms and takes the faster, and sums differ by rounding.
        settings |= {"deterministic": True, "force_row_wise": True}
        with np.errstate(over="ignore"):
            rows = inputs.astype(np.float32)
        if np.isinf(rows).any():
            raise InputError("HR-0612", "LightGBM is given inputs rounded to float32, and one lies beyond it")
        try:
            booster = lightgbm.train(settings, lightgbm.Dataset(rows, label=truths), num_boost_round=rounds)
        except lightgbm.basic.LightGBMError as error:
            raise InputError(
                "HR-0612", f"LightGBM refuses to train {trainer.method.value!r}", detail=str(error)
            ) from error
        return Learned(
            form=Form.SUMMED,
            trees=read_trees(booster.model_to_string()),
            scores=booster.predict(rows),
            libraries=(("lightgbm", str(lightgbm.__version__)), ("numpy", np.__version__)),
        )


def read_trees(text: str) -> Trees:
    """The trees of LightGBM's text format (version 4), one after another. Raises: InputError HR-0612 for what cannot be
    scored here: categorical and linear trees, and zeros that go another way than their neighbours."""
    parts = [_tree(_said(lines)) for lines in text.split("end of trees")[0].split("\nTree=")[1:]]
    counts = [len(part["left"]) for part in parts]
    roots = np.cumsum([0, *counts[:-1]])
    shift = np.repeat(roots, counts)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    leaf = joined["left"] < 0
    return Trees(
        roots=roots.astype(np.int32),
        left=np.where(leaf, -1, joined["left"] + shift).astype(np.int32),
        right=np.where(leaf, -1, joined["right"] + shift).astype(np.int32),
        input=joined["input"].astype(np.int16),
        threshold=joined["threshold"].astype(np.float32),
        missing_left=joined["missing_left"].astype(np.bool_),
        value=joined["value"],
        cover=joined["cover"],
    )


def _said(lines: str) -> Mapping[str, Sequence[str]]:
    pairs = (line.partition("=") for line in lines.splitlines())
    return {name: value.split() for name, _, value in pairs}


def _tree(said: Mapping[str, Sequence[str]]) -> dict[str, npt.NDArray[np.generic]]:
    """One tree's arrays: nodes in the order in which a walk from the root meets them, level by level."""
    leaves = int(said["num_leaves"][0])
    if said.get("num_cat", ["0"])[0] != "0" or said.get("is_linear", ["0"])[0] != "0":
        raise InputError("HR-0612", "LightGBM's categorical splits and linear trees cannot be scored here")
    inner = leaves - 1
    if not inner:
        said = {**said, "left_child": [], "right_child": [], "leaf_count": said.get("leaf_count") or ["0"]}
    # In LightGBM a child of 0 or more is an inner node, else leaf -1 - child; here leaves are numbered behind.
    left, right = (np.array(said[side], np.int64) for side in ("left_child", "right_child"))
    left, right = (np.where(side >= 0, side, inner - 1 - side) for side in (left, right))
    asked, default, threshold = _splits(said, inner)
    # All numbers go left, only null may not. No number's `<` takes infinity too, so all go right of -infinity instead.
    turned = _numbers(said, "threshold", inner) == np.inf
    left, right = np.where(turned, right, left), np.where(turned, left, right)
    default, threshold = default ^ turned, np.where(turned, np.float32(-np.inf), threshold)
    order = [0]
    for node in order:  # grows as it is walked
        if node < inner:
            order += (int(left[node]), int(right[node]))
    place = np.empty(inner + leaves, np.int64)
    place[order] = np.arange(len(order))
    none = np.zeros(leaves)
    parts = {
        "left": np.append(place[left], np.full(leaves, -1)),
        "right": np.append(place[right], np.full(leaves, -1)),
        "input": np.append(asked, none),
        "threshold": np.append(threshold, none),
        "missing_left": np.append(default, none),
        "value": np.append(np.zeros(inner), np.array(said["leaf_value"], np.float64)),
        "cover": np.append(_numbers(said, "internal_count", inner), np.array(said["leaf_count"], np.float64)),
    }
    return {name: part[order] for name, part in parts.items()}


def _splits(
    said: Mapping[str, Sequence[str]], inner: int
) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Of each inner node: which input it asks, whether null goes left, below which float32 the others do."""
    asked, given = _numbers(said, "split_feature", inner), _numbers(said, "threshold", inner)
    kind = _numbers(said, "decision_type", inner).astype(np.int64)
    missing = (kind >> _MISSING_SHIFT) & 3
    default = (kind & _DEFAULT_LEFT) != 0
    zero_left = given >= 0.0
    if (kind & _CATEGORICAL).any():
        raise InputError("HR-0612", "LightGBM's categorical splits cannot be scored here")
    if ((missing == _MISSING_ZERO) & (default != zero_left)).any():
        raise InputError(
            "HR-0612",
            "LightGBM's zero_as_missing cannot be scored here",
            detail="a split sends zero one way and both its neighbours the other",
            hint="let null stand for what is missing",
        )
    near = np.abs(given) <= float(_ZERO)
    with np.errstate(over="ignore"):  # a threshold beyond float32 has infinity above it
        threshold = above(np.where(near & zero_left, float(_ZERO), given))
    threshold[near & ~zero_left] = -_ZERO
    return asked, np.where(missing == _MISSING_NONE, zero_left, default), threshold


def _numbers(said: Mapping[str, Sequence[str]], name: str, inner: int) -> Floats:
    return np.array(said[name] if inner else [], np.float64)
