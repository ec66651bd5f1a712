"""The scorer: linear models and ensembles of trees, one row or many, the same bits on any machine (SEMANTICS 5.7).

The one idea: a model is not code but one array of words, so that scoring compiles once per machine; a batch is the
single row in a loop, every sum runs in a fixed order, and exp is our own (core/elementary.py), so no library or
instruction set can change a bit. A null input is NaN, in here and nowhere else. Touches nothing.

Inputs first pass `(x - mean) / deviation` where the model was trained so. A linear model takes `fills` for a NaN, adds
coefficient * input in input order to the intercept, and squashes. A tree compares the input, rounded to float32, with
`<` against a float32; NaN goes the way its node says. BOOSTED sums leaves in float32 in tree order onto the base and
squashes, SUMMED does so in float64; AVERAGED divides the float64 sum of leaves by the number of trees.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from headrace.core.elementary import _EXP_MIN, _EXP_TAIL, _LN2_HIGH, _LN2_LOW, _PER_LN2, _ROUNDER, _SPLITTER
from headrace.core.kernel.model import (
    CHILD_SHIFT,
    INPUT_MASK,
    M_BASE,
    M_COEFFICIENTS,
    M_DEVIATIONS,
    M_FILLS,
    M_FORM,
    M_INPUTS,
    M_MEANS,
    M_ROOTS,
    M_TREES,
    NODE_WORDS,
    Floats,
    Words,
)
from headrace.core.kernel.words import compiled, door

# From here on a double rounds to infinity as a float32: halfway between the largest float32 and the next power of two.
_FLOAT32_END: Final = 3.4028235677973366e38


@door
def score_one(words: Words, floats: Floats, inputs: Floats) -> float:
    """The score of one row, in [0, 1]. words, floats: of `pack`. inputs: float64[n], NaN where null."""
    return _score(words, floats, inputs, np.empty(words[M_INPUTS], np.float64))


@door
def score_batch(words: Words, floats: Floats, inputs: Floats, scores: Floats) -> None:
    """scores[i] = score_one(inputs[i]), to the bit. inputs: float64[rows, n], C order. scores: float64[rows],
    written."""
    scratch = np.empty(words[M_INPUTS], np.float64)
    for row in range(inputs.shape[0]):
        scores[row] = _score(words, floats, inputs[row], scratch)


@door
def margin_batch(words: Words, floats: Floats, inputs: Floats, margins: Floats) -> None:
    """As score_batch, before the squashing: log odds; of AVERAGED the score itself."""
    scratch = np.empty(words[M_INPUTS], np.float64)
    for row in range(inputs.shape[0]):
        margins[row] = _margin(words, floats, inputs[row], scratch)


@compiled
def exp(x: float) -> float:
    """core.elementary.exp_scalar of x <= 0, the same operations one by one, so the same bits (tests compare them)."""
    if x < _EXP_MIN:
        return 0.0
    exponent = (x * _PER_LN2 + _ROUNDER) - _ROUNDER
    high = x - exponent * _LN2_HIGH
    low = 0.0 - exponent * _LN2_LOW
    # r + rest = high + low, exactly
    r = high + low
    part = r - high
    rest = (high - (r - part)) + (low - part)
    # square + square_rest = r * r, exactly
    square = r * r
    scaled = _SPLITTER * r
    upper = scaled - (scaled - r)
    lower = r - upper
    square_rest = lower * lower - (((square - upper * upper) - lower * upper) - upper * lower)
    tail = r * 0.0 + _EXP_TAIL[0]
    for i in range(1, len(_EXP_TAIL)):
        tail = tail * r + _EXP_TAIL[i]
    one = 1.0 + r
    rest_one = r - (one - 1.0)
    half = 0.5 * square
    two = one + half
    rest_two = half - (two - one)
    result = two + (rest_one + (rest_two + (rest + (r * rest + (0.5 * square_rest + square * r * tail)))))
    first = int(exponent) // 2
    return float(result * math.ldexp(1.0, first) * math.ldexp(1.0, int(exponent) - first))


@compiled
def sigmoid(margin: float) -> float:
    """1 / (1 + exp(-margin)), by the exp that does not overflow."""
    if margin >= 0.0:
        return 1.0 / (1.0 + exp(-margin))
    grown = exp(margin)
    return grown / (1.0 + grown)


@compiled
def _score(words: Words, floats: Floats, inputs: Floats, scratch: Floats) -> float:
    margin = _margin(words, floats, inputs, scratch)
    return margin if words[M_FORM] == 2 else sigmoid(margin)


@compiled
def _margin(words: Words, floats: Floats, inputs: Floats, scratch: Floats) -> float:
    form = words[M_FORM]
    count = words[M_INPUTS]
    prepare(words, floats, inputs, scratch)
    if form == 0:
        total = floats[words[M_BASE]]
        coefficients = words[M_COEFFICIENTS]
        for i in range(count):
            total += floats[coefficients + i] * scratch[i]
        return float(total)
    for i in range(count):
        scratch[i] = narrow(scratch[i])
    trees = words[M_TREES]
    leaves = np.empty(trees, np.float64)
    _fall(words, floats, scratch, leaves)
    if form == 1:
        margin = np.float32(floats[words[M_BASE]])
        for tree in range(trees):
            margin = np.float32(margin + np.float32(leaves[tree]))
        return float(margin)
    total = floats[words[M_BASE]] if form == 3 else 0.0
    for tree in range(trees):
        total += leaves[tree]
    return float(total) if form == 3 else float(total / trees)


@compiled
def prepare(words: Words, floats: Floats, inputs: Floats, prepared: Floats) -> None:
    """Nulls filled and inputs standardised, where the model was trained so."""
    means = words[M_MEANS]
    deviations = words[M_DEVIATIONS]
    fills = words[M_FILLS]
    for i in range(words[M_INPUTS]):
        x = inputs[i]
        if fills >= 0 and x != x:
            x = floats[fills + i]
        if means >= 0:
            x = (x - floats[means + i]) / floats[deviations + i]
        prepared[i] = x


@compiled
def _fall(words: Words, floats: Floats, inputs: Floats, leaves: Floats) -> None:
    """leaves[tree] = the value of the leaf that the row falls into.

    Four trees at a time while none has come to its leaf: their steps do not wait for each other, which halves the time.
    """
    roots = words[M_ROOTS]
    trees = words[M_TREES]
    tree = 0
    while tree + 4 <= trees:
        a = words[roots + tree]
        b = words[roots + tree + 1]
        c = words[roots + tree + 2]
        d = words[roots + tree + 3]
        while words[a] >= 0 and words[b] >= 0 and words[c] >= 0 and words[d] >= 0:
            a = _step(words, floats, a, inputs)
            b = _step(words, floats, b, inputs)
            c = _step(words, floats, c, inputs)
            d = _step(words, floats, d, inputs)
        leaves[tree] = _leaf(words, floats, a, inputs)
        leaves[tree + 1] = _leaf(words, floats, b, inputs)
        leaves[tree + 2] = _leaf(words, floats, c, inputs)
        leaves[tree + 3] = _leaf(words, floats, d, inputs)
        tree += 4
    while tree < trees:
        leaves[tree] = _leaf(words, floats, words[roots + tree], inputs)
        tree += 1


@compiled
def _step(words: Words, floats: Floats, at: int, inputs: Floats) -> int:
    """The child that an inner node sends the row to."""
    what = words[at]
    x = inputs[(what >> 1) & INPUT_MASK]
    right = np.int64(x >= floats[at + 1]) | ((what & 1) & np.int64(x != x))
    return int((what >> CHILD_SHIFT) + NODE_WORDS * right)


@compiled
def _leaf(words: Words, floats: Floats, at: int, inputs: Floats) -> float:
    """The value of the leaf below a node that the row falls into."""
    while words[at] >= 0:
        at = _step(words, floats, at, inputs)
    return float(floats[at + 1])


@compiled
def narrow(value: float) -> float:
    """The nearest float32, as a double; infinite beyond the largest. NaN stays NaN."""
    if value >= _FLOAT32_END:
        return np.inf
    if value <= -_FLOAT32_END:
        return -np.inf
    return float(np.float32(value))
