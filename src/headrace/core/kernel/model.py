"""A model as data: what the compiled scorer interprets, packed in one array of words. Pure; imports no numba.

`Trees` is the form that is stored and explained, `pack` lays it out as `core/kernel/scorer.py` walks it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Form(enum.IntEnum):
    """How a score is made of what the model holds; scorer.py says how exactly."""

    LINEAR = 0
    BOOSTED = 1
    AVERAGED = 2
    SUMMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """Nodes of all trees, one after another. roots: each tree's first node. left, right: a node's children, -1 at a
    leaf; both lie behind it. input: which input it asks. threshold: left where the input is below it. missing_left:
    where NaN goes. value: a leaf's. cover: the training rows, weighted, that came by."""

    roots: npt.NDArray[np.int32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    input: npt.NDArray[np.int16]
    threshold: npt.NDArray[np.float32]
    missing_left: npt.NDArray[np.bool_]
    value: Floats
    cover: Floats


# How `pack` lays a model out: a header, then its parts. Offsets are words from the beginning, -1 where there is no
# part.
M_FORM, M_INPUTS, M_TREES, M_BASE, M_MEANS, M_DEVIATIONS, M_FILLS, M_COEFFICIENTS, M_ROOTS = range(9)
MODEL_HEADER_WORDS: Final = 10
# A node is two words, beside each other: what to do, and the threshold or the leaf's value.
# What to do: -1 at a leaf, else left child << 16 | input << 1 | NaN goes right; the right child follows the left one.
NODE_WORDS: Final = 2
CHILD_SHIFT: Final = 16
INPUT_MASK: Final = 0x7FFF


def pack(
    form: Form,
    inputs: int,
    *,
    base: float = 0.0,
    means: Floats | None = None,
    deviations: Floats | None = None,
    fills: Floats | None = None,
    coefficients: Floats | None = None,
    trees: Trees | None = None,
) -> tuple[Words, Floats]:
    """The model as the scorer takes it: one array of words, and the same memory seen as doubles.

    base: the intercept of LINEAR, the base margin of BOOSTED and SUMMED. The parts are believed: models/artifact.py
    checks them.
    """
    header = np.full(MODEL_HEADER_WORDS, -1, np.int64)
    header[M_FORM], header[M_INPUTS], header[M_TREES] = int(form), inputs, 0 if trees is None else len(trees.roots)
    parts: list[Words] = [header]
    size = MODEL_HEADER_WORDS
    given = ((M_BASE, np.array([base])), (M_MEANS, means), (M_DEVIATIONS, deviations), (M_FILLS, fills))
    for place, part in (*given, (M_COEFFICIENTS, coefficients)):
        if part is not None:
            header[place] = size
            parts.append(np.ascontiguousarray(part, np.float64).view(np.int64))
            size += len(part)
    if trees is not None:
        header[M_ROOTS] = size
        parts.append(_pack_trees(trees, size))
    words = np.concatenate(parts)
    return words, words.view(np.float64)


def _pack_trees(trees: Trees, start: int) -> Words:
    """Roots' places, then nodes, each tree breadth first, so that siblings lie beside each other."""
    count = len(trees.left)
    order = _breadth_first(trees)
    first = start + len(trees.roots)
    place = np.empty(count, np.int64)
    place[order] = first + NODE_WORDS * np.arange(count)
    leaf = trees.left < 0
    child = place[np.where(leaf, 0, trees.left)]
    what = (child << CHILD_SHIFT) | (trees.input.astype(np.int64) << 1) | ~trees.missing_left
    numbers = np.where(leaf, trees.value, trees.threshold.astype(np.float64))
    nodes = np.empty((count, NODE_WORDS), np.int64)
    nodes[:, 0] = np.where(leaf, -1, what)[order]
    nodes[:, 1] = numbers.view(np.int64)[order]
    return np.concatenate([place[trees.roots], nodes.reshape(-1)])


def _breadth_first(trees: Trees) -> Words:
    """Node numbers in the order in which they are laid out."""
    order: list[int] = []
    left, right = trees.left.tolist(), trees.right.tolist()
    for root in trees.roots.tolist():
        at = len(order)
        order.append(root)
        while at < len(order):
            node = order[at]
            if left[node] >= 0:
                order += (left[node], right[node])
            at += 1
    return np.array(order, np.int64)
