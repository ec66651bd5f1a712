"""Trees as `core/kernel/shap.py` walks them, and the points that it integrates at. Pure; imports no numba.

What a tree expects of a row of which only some inputs are known: at a node that asks another one it goes both ways,
each with the share of the training rows, weighed by cover, that went there (path-dependent TreeSHAP, Lundberg et al.,
"From local explanations to global understanding with explainable AI for trees", Nature Machine Intelligence 2, 2020).
The Shapley value of input i is then a sum over leaves, with d inputs asked on the leaf's path,

    value * (o_i - z_i) * integral over t from 0 to 1 of the product over j other than i of (z_j (1 - t) + o_j t)

where o_j is 1 where the row meets all that the path asks of j, else 0, and z_j the share of the training rows that stay
on the path wherever it asks j. The integrand is a polynomial of degree d - 1, so Gauss and Legendre's rule of n points
gives it exactly for d <= 2n: no table, no subtraction of what is nearly equal, at any depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final

import numpy as np
import numpy.typing as npt

from headrace.core.kernel.model import Floats, Form, Trees, Words

# A block of points is what the walk carries along in registers: three serve trees that ask six inputs on a path, which
# is what boosted trees of the usual depth ask.
BLOCK: Final = 3
BLOCK_WORDS: Final = 4 * BLOCK  # t, 1 - t, weight, 1 / (1 - t)
# The header: how many trees, and of each, one after another: where its nodes begin, how many of them are inner ones and
# leaves, how many blocks of points it takes, where they begin. Then points, then each tree's inner nodes and leaves.
E_TREES: Final = 0
EXPLAINED_HEADER_WORDS: Final = 1
T_NODES, T_INNER, T_LEAVES, T_BLOCKS, T_POINTS = range(5)
TREE_WORDS: Final = 5
# An inner node. Places are of lines of the walk's scratch. ASKS: input << 1 | NaN goes right. ABOVE: the line of the
# edge above at which the path last asked this input, that of the root where it had not. SHARES: z of its children.
N_OWN, N_LEFT, N_RIGHT, N_ASKS, N_THRESHOLD, N_ABOVE, N_LEFT_SHARE, N_RIGHT_SHARE = range(8)
INNER_WORDS: Final = 8
LEAF_WORDS: Final = 2  # its line, its value
LINE_WORDS: Final = 8  # a line of scratch: see shap.py

# A node that no training row came by has share 0, by which nothing can be divided. This stands for it: so far below the
# last bit of any sum that no result changes, and above zero in every product with the shares of others.
_SHARE_MIN: Final = 2.0**-100
_DIGITS: Final = 50  # of the points' arithmetic; doubles have 17


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explained:
    """words, floats: one memory, as the walk takes it. scratch_words: how much it writes to. expected: what the trees
    score over the training rows, weighed by cover, without the base. span: by how much rows can differ in score."""

    words: Words
    floats: Floats
    scratch_words: int
    expected: float
    span: float


def explained(form: Form, trees: Trees) -> Explained:
    """The trees laid out. Cost: a few passes over all nodes for each level of depth."""
    nodes, count = len(trees.left), len(trees.roots)
    paths = _paths(trees)
    values = trees.value * (1.0 / count if form is Form.AVERAGED else 1.0)
    tree = np.repeat(np.arange(count), np.diff(np.append(trees.roots, nodes)))
    inner, leaf = np.flatnonzero(trees.left >= 0), np.flatnonzero(trees.left < 0)
    inners, leaves = np.bincount(tree[inner], minlength=count), np.bincount(tree[leaf], minlength=count)
    asked = np.maximum.reduceat(paths.asked, trees.roots)
    blocks = np.maximum(1, -(-asked // (2 * BLOCK)))
    points, begins_of = _all_points(blocks)

    first_point = EXPLAINED_HEADER_WORDS + count * TREE_WORDS
    sizes = inners * INNER_WORDS + leaves * LEAF_WORDS
    begins = first_point + len(points) + _sums_before(sizes)
    words = np.empty(first_point + len(points) + int(sizes.sum()), np.int64)
    floats = words.view(np.float64)
    words[E_TREES] = count
    head = words[EXPLAINED_HEADER_WORDS:first_point].reshape(count, TREE_WORDS)
    head[:, T_NODES], head[:, T_INNER], head[:, T_LEAVES], head[:, T_BLOCKS] = begins, inners, leaves, blocks
    head[:, T_POINTS] = [first_point + begins_of[number] for number in blocks.tolist()]
    floats[first_point : first_point + len(points)] = points

    line = (np.arange(nodes) - trees.roots[tree]) * LINE_WORDS
    of, left, right = tree[inner], trees.left[inner], trees.right[inner]
    at = begins[of] + (np.arange(len(inner)) - _sums_before(inners)[of]) * INNER_WORDS
    words[at + N_OWN], words[at + N_LEFT], words[at + N_RIGHT] = line[inner], line[left], line[right]
    words[at + N_ASKS] = (trees.input[inner].astype(np.int64) << 1) | ~trees.missing_left[inner]
    words[at + N_ABOVE] = line[np.where(paths.above >= 0, paths.above, trees.roots[tree])[inner]]
    floats[at + N_THRESHOLD] = trees.threshold[inner]
    floats[at + N_LEFT_SHARE], floats[at + N_RIGHT_SHARE] = paths.share[left], paths.share[right]
    of = tree[leaf]
    at = begins[of] + inners[of] * INNER_WORDS + (np.arange(len(leaf)) - _sums_before(leaves)[of]) * LEAF_WORDS
    ends = _sums_before(leaves)
    most, least = np.maximum.reduceat(values[leaf], ends), np.minimum.reduceat(values[leaf], ends)
    # Contributions do not change where all of a tree's leaves are moved by one number, and about zero they round least.
    words[at], floats[at + 1] = line[leaf], values[leaf] - (most / 2 + least / 2)[of]
    return Explained(
        words=words,
        floats=floats,
        scratch_words=int((inners + leaves).max()) * LINE_WORDS,
        expected=math.fsum((values[leaf] * paths.reach[leaf]).tolist()),
        span=math.fsum((most - least).tolist()),
    )


def gauss_legendre(count: int) -> tuple[tuple[Decimal, Decimal], ...]:
    """(point, weight) of the rule over [0, 1] that integrates polynomials up to degree 2 * count - 1 exactly, rising.

    By Newton's method on Legendre's recurrence, in decimals far longer than a double, so that a first guess of another
    last bit, as another machine's cosine may give, comes to the same doubles.
    """
    with localcontext() as context:
        context.prec = _DIGITS
        found = []
        for place in range(count):
            x = Decimal(-math.cos(math.pi * (place + 0.75) / (count + 0.5)))
            for _ in range(8):  # each step doubles the digits that are right; the guess has two
                value, slope = _legendre(count, x)
                x -= value / slope
            _, slope = _legendre(count, x)
            found.append(((1 + x) / 2, 1 / ((1 - x * x) * slope * slope)))
        return tuple(found)


def _legendre(degree: int, x: Decimal) -> tuple[Decimal, Decimal]:
    """Value and slope of Legendre's polynomial."""
    before, value = Decimal(1), x
    for k in range(2, degree + 1):
        before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
    return value, degree * (x * value - before) / (x * x - 1)


def _all_points(blocks: npt.NDArray[np.int64]) -> tuple[Floats, dict[int, int]]:
    """The points of every number of blocks that some tree needs, and where each begins."""
    parts: list[float] = []
    places: dict[int, int] = {}
    for count in sorted(set(blocks.tolist())):
        places[count] = len(parts)
        rule = gauss_legendre(count * BLOCK)
        for first in range(0, len(rule), BLOCK):
            points = rule[first : first + BLOCK]
            parts += [float(t) for t, _ in points]
            parts += [float(1 - t) for t, _ in points]
            parts += [float(weight) for _, weight in points]
            parts += [float(1 / (1 - t)) for t, _ in points]
    return np.array(parts, np.float64), places


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Paths:
    """Of each node. above: of an inner one the node whose edge from its parent asked the same input last, -1 where none
    did. share: z of its edge. reach: the share of the training rows that come by. asked: how many inputs lead to it."""

    above: npt.NDArray[np.int64]
    share: Floats
    reach: Floats
    asked: npt.NDArray[np.int64]


def _paths(trees: Trees) -> _Paths:
    count = len(trees.left)
    inner = np.flatnonzero(trees.left >= 0)
    parent = np.full(count, -1, np.int64)
    parent[trees.left[inner]] = inner
    parent[trees.right[inner]] = inner
    above = _above(trees, parent)
    part = np.ones(count)
    cover_left, cover_right = trees.cover[trees.left[inner]], trees.cover[trees.right[inner]]
    both = cover_left + cover_right
    known = both > 0
    part[trees.left[inner]] = np.where(known, cover_left / np.where(known, both, 1.0), 0.5)
    part[trees.right[inner]] = np.where(known, cover_right / np.where(known, both, 1.0), 0.5)
    share, reach, asked = np.ones(count), np.ones(count), np.zeros(count, np.int64)
    level = trees.roots.astype(np.int64)
    while len(level := level[trees.left[level] >= 0]):
        before = np.where(above[level] >= 0, share[above[level]], 1.0)
        new = asked[level] + (above[level] < 0)
        for children in (trees.left[level], trees.right[level]):
            share[children] = np.maximum(before * part[children], _SHARE_MIN)
            reach[children] = reach[level] * part[children]
            asked[children] = new
        level = np.concatenate([trees.left[level], trees.right[level]]).astype(np.int64)
    return _Paths(above=above, share=share, reach=reach, asked=asked)


def _above(trees: Trees, parent: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each inner node, all at once: up its path, until a node's parent asks the same input."""
    above = np.full(len(parent), -1, np.int64)
    searching = np.flatnonzero(trees.left >= 0)
    at = searching
    while len(searching):
        higher = parent[at]
        found = (higher >= 0) & (trees.input[higher] == trees.input[searching])
        above[searching[found]] = at[found]
        on = ~found & (higher >= 0)
        searching, at = searching[on], higher[on]
    return above


def _sums_before(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each part begins, of parts one behind another."""
    return np.cumsum(counts) - counts
