"""Contributions: how much each input of a row moved its score from what the model expects, exactly. Touches nothing.

The one idea: Shapley values of trees are integrals of polynomials (`shap_model.py`), and a rule of few points gives
such an integral without error. So one walk down carries, for each point, the product of all that the path asks, and one
walk back up the sum of what the leaves below give; an edge then says what its input contributes. Time grows with nodes
times points, memory not at all, and there is nothing to build beforehand but the layout.

A line of scratch, one a node, is three points' products on the way down and sums on the way up, then 1 / (z (1 - t) + o
t) at them, then o and z of the edge from its parent. The root's line stands for "not asked above": o = z = 1, which
adds nothing anywhere.

Additions run in one order: tree by tree, block by block of points, from the last inner node to the first. A batch is
the single row in a loop. So one row and a batch give the same bits, on any machine.
"""

from __future__ import annotations

import numpy as np

from headrace.core.kernel.memory import Reals, reals_at, reals_from, words_at, words_from
from headrace.core.kernel.model import M_COEFFICIENTS, M_FILLS, M_FORM, M_INPUTS
from headrace.core.kernel.scorer import narrow, prepare
from headrace.core.kernel.shap_model import (
    BLOCK_WORDS,
    E_TREES,
    EXPLAINED_HEADER_WORDS,
    INNER_WORDS,
    LEAF_WORDS,
    LINE_WORDS,
    N_ABOVE,
    N_ASKS,
    N_LEFT,
    N_LEFT_SHARE,
    N_OWN,
    N_RIGHT,
    N_RIGHT_SHARE,
    N_THRESHOLD,
    T_BLOCKS,
    T_INNER,
    T_LEAVES,
    T_NODES,
    T_POINTS,
    TREE_WORDS,
)
from headrace.core.kernel.words import Slab, apart, compiled, door

# The one argument, a frame: how many rows, then the places of `pack`'s words and doubles, of those of `explained`, of
# the scratch, the rows and the shares.
F_ROWS, F_WORDS, F_FLOATS, F_LAID, F_NUMBERS, F_SCRATCH, F_INPUTS, F_SHARES = range(8)


@door
def contribute(given: int) -> int:
    """shares[row, i] = what input i contributes to the row's margin; of AVERAGED to the score itself. Returns 0.

    given: the place of a frame. Rows: float64[rows, n], NaN where null. Shares: likewise, written. Scratch: as many
    doubles as there are inputs and `scratch_words` more, of any content. LINEAR: coefficient times the distance of the
    prepared input from the prepared training mean; what `explained` gives is not read.
    """
    framed = words_at(given)
    words = words_at(framed[F_WORDS])
    floats = reals_at(framed[F_FLOATS])
    rows = reals_at(framed[F_INPUTS])
    shares = reals_at(framed[F_SHARES])
    scratch = reals_at(framed[F_SCRATCH])
    count = words[M_INPUTS]
    for row in range(framed[F_ROWS]):
        into = reals_from(shares, row * count)
        prepare(words, floats, reals_from(rows, row * count), scratch)
        if words[M_FORM] == 0:
            prepare(words, floats, reals_from(floats, words[M_FILLS]), into)
            coefficients = words[M_COEFFICIENTS]
            for i in range(count):
                into[i] = floats[coefficients + i] * (scratch[i] - into[i])
        else:
            for i in range(count):
                scratch[i] = narrow(scratch[i])
                into[i] = 0.0
            _trees(words_at(framed[F_LAID]), reals_at(framed[F_NUMBERS]), scratch, reals_from(scratch, count), into)
    return 0


@compiled
def _trees(laid: Slab, numbers: Reals, inputs: Reals, lines: Reals, shares: Reals) -> None:
    for tree in range(laid[E_TREES]):
        head = EXPLAINED_HEADER_WORDS + tree * TREE_WORDS
        nodes = laid[head + T_NODES]
        inner = laid[head + T_INNER]
        leaves = laid[head + T_LEAVES]
        for block in range(laid[head + T_BLOCKS]):
            points = reals_from(numbers, laid[head + T_POINTS] + block * BLOCK_WORDS)
            _walk(words_from(laid, nodes), reals_from(numbers, nodes), inner, leaves, points, inputs, lines, shares)


@apart
def _walk(
    nodes: Slab, numbers: Reals, inner: int, leaves: int, points: Reals, inputs: Reals, lines: Reals, shares: Reals
) -> None:
    """Adds what one tree gives at one block of points. nodes, numbers: one memory, which nothing here writes."""
    for place in range(LINE_WORDS):
        lines[place] = 1.0
    _descend(nodes, numbers, inner, points, inputs, lines)
    at = inner * INNER_WORDS
    for _ in range(leaves):
        line = nodes[at]
        value = numbers[at + 1]
        lines[line] *= value
        lines[line + 1] *= value
        lines[line + 2] *= value
        at += LEAF_WORDS
    w0 = points[6]
    w1 = points[7]
    w2 = points[8]
    at = inner * INNER_WORDS
    for _ in range(inner):
        at -= INNER_WORDS
        own = nodes[at + N_OWN]
        a = nodes[at + N_LEFT]
        b = nodes[at + N_RIGHT]
        up = nodes[at + N_ABOVE]
        moved_a = lines[a + 6] - lines[a + 7]
        moved_b = lines[b + 6] - lines[b + 7]
        moved_up = lines[up + 6] - lines[up + 7]
        up0 = moved_up * lines[up + 3]
        up1 = moved_up * lines[up + 4]
        up2 = moved_up * lines[up + 5]
        a0 = lines[a]
        a1 = lines[a + 1]
        a2 = lines[a + 2]
        b0 = lines[b]
        b1 = lines[b + 1]
        b2 = lines[b + 2]
        sum0 = (moved_a * lines[a + 3] - up0) * a0 + (moved_b * lines[b + 3] - up0) * b0
        sum1 = (moved_a * lines[a + 4] - up1) * a1 + (moved_b * lines[b + 4] - up1) * b1
        sum2 = (moved_a * lines[a + 5] - up2) * a2 + (moved_b * lines[b + 5] - up2) * b2
        shares[nodes[at + N_ASKS] >> 1] += (w0 * sum0 + w1 * sum1) + w2 * sum2
        lines[own] = a0 + b0
        lines[own + 1] = a1 + b1
        lines[own + 2] = a2 + b2


@apart
def _descend(nodes: Slab, numbers: Reals, inner: int, points: Reals, inputs: Reals, lines: Reals) -> None:
    """Fills the lines of all nodes of a tree but the root's, parents first."""
    t0 = points[0]
    t1 = points[1]
    t2 = points[2]
    u0 = points[3]
    u1 = points[4]
    u2 = points[5]
    per0 = points[9]
    per1 = points[10]
    per2 = points[11]
    at = 0
    for _ in range(inner):
        asks = nodes[at + N_ASKS]
        x = inputs[asks >> 1]
        right = np.int64(x >= numbers[at + N_THRESHOLD]) | ((asks & 1) & np.int64(x != x))
        taken = nodes[at + N_LEFT + right]
        other = nodes[at + N_RIGHT - right]
        z = numbers[at + N_LEFT_SHARE + right]
        z_other = numbers[at + N_RIGHT_SHARE - right]
        own = nodes[at + N_OWN]
        up = nodes[at + N_ABOVE]
        met = lines[up + 6]
        # The product above, without what it already held of this input.
        p0 = lines[own] * lines[up + 3]
        p1 = lines[own + 1] * lines[up + 4]
        p2 = lines[own + 2] * lines[up + 5]
        g0 = z * u0 + met * t0
        g1 = z * u1 + met * t1
        g2 = z * u2 + met * t2
        lines[taken] = p0 * g0
        lines[taken + 1] = p1 * g1
        lines[taken + 2] = p2 * g2
        lines[taken + 3] = 1.0 / g0
        lines[taken + 4] = 1.0 / g1
        lines[taken + 5] = 1.0 / g2
        lines[taken + 6] = met
        lines[taken + 7] = z
        per = 1.0 / z_other
        lines[other] = p0 * (z_other * u0)
        lines[other + 1] = p1 * (z_other * u1)
        lines[other + 2] = p2 * (z_other * u2)
        lines[other + 3] = per * per0
        lines[other + 4] = per * per1
        lines[other + 5] = per * per2
        lines[other + 6] = 0.0
        lines[other + 7] = z_other
        at += INNER_WORDS
