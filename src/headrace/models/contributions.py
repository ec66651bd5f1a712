"""Contributions: what each input adds to one row's margin, exactly, and which inputs are therefore reasons.

The one idea: base plus contributions is the margin, and Shapley's is the one split of it that treats inputs alike. Of a
linear model a contribution is coefficient times distance from the training mean; of trees it is what
`core/kernel/shap_model.py` derives. Pure but for numba, loaded when the first is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from headrace.core.kernel.model import Floats, Form
from headrace.core.kernel.shap_model import explained
from headrace.models.artifact import Artifact

# A contribution below this part of what the trees' scores can differ by is what rounding leaves of zero, and two that
# differ by less are equal, so that no order of reasons hangs on a last bit. Rounding stays below some 2**-48.
_MOVED_BITS: Final = 40


class Contributions:
    """An artifact, ready to explain; not shared between threads, as it owns what it hands to the compiled code.

    base: the margin of the training mean for a linear model; for trees the mean of what they score, weighed by cover.
    Base plus a row's contributions is its margin (AVERAGED: its score), but for the rounding of either sum. Cost: a row
    of 100 trees of depth 6 some 80 us; making one some milliseconds, and compiling once a machine.
    """

    __slots__ = ("_model", "_moved", "_one", "_owned", "_place", "_row", "_shares", "_work", "base")

    def __init__(self, artifact: Artifact) -> None:
        # numba loads in some 250 ms, and only a model whose reasons are asked for needs this door compiled
        from headrace.core.kernel import compiling, shap
        from headrace.core.kernel.memory import frame, place  # 250 ms, as above

        self._work = compiling.direct(shap.contribute)
        words, floats = artifact.pack()
        laid, numbers, scratch = words, floats, np.empty(len(artifact.inputs), np.float64)
        self._moved = 0.0
        if artifact.trees is None:
            self.base = _margin_of_means(artifact)
        else:
            made = explained(artifact.form, artifact.trees)
            laid, numbers = made.words, made.floats
            scratch = np.empty(len(artifact.inputs) + made.scratch_words, np.float64)
            self.base = made.expected + _start(artifact)
            if made.span > 0:
                self._moved = math.ldexp(1.0, math.frexp(made.span)[1] - _MOVED_BITS)
        self._row, self._shares = np.empty(len(artifact.inputs)), np.empty(len(artifact.inputs))
        self._owned = (words, floats, laid, numbers, scratch)  # kept, as the frames hold their addresses
        self._model = (place(words), place(floats), place(laid), place(numbers), place(scratch))
        self._one = frame(1, *self._model, place(self._row), place(self._shares))
        self._place = place(self._one)

    def one(self, numbers: Sequence[float]) -> Floats:
        """float64[inputs] of one row: the artifact's inputs in order, NaN where null. Raises: ValueError for another
        length."""
        self._row[:] = numbers
        self._work(self._place)
        return self._shares.copy()

    def many(self, rows: Floats) -> Floats:
        """float64[rows, inputs], from the same; equal to `one` of each row, to the bit."""
        from headrace.core.kernel.memory import frame, place  # 0 ms: whoever made this has loaded it

        if rows.ndim != 2 or rows.shape[1] != len(self._row):
            raise ValueError(f"rows of shape {rows.shape}, expected (rows, {len(self._row)})")
        given = np.ascontiguousarray(rows, np.float64).reshape(-1)
        shares = np.empty(len(given), np.float64)
        framed = frame(len(rows), *self._model, place(given), place(shares))
        self._work(place(framed))
        return shares.reshape(rows.shape)

    def raising(self, numbers: Sequence[float]) -> list[int]:
        """The inputs that raised this row's margin, the most first; equal ones in the order of inputs, and none that
        only rounding moved."""
        shares = self.one(numbers)
        counted = np.rint(shares / self._moved) if self._moved else shares
        order = np.argsort(-counted, kind="stable")
        return [place for place in order.tolist() if counted[place] > 0]


def _margin_of_means(artifact: Artifact) -> float:
    """What a linear model says of the row of training means, which stand for nulls."""
    assert artifact.fills is not None and artifact.coefficients is not None, "a linear artifact has both: _check"
    mean = artifact.fills
    if artifact.means is not None and artifact.deviations is not None:
        mean = (mean - artifact.means) / artifact.deviations
    total = artifact.base
    for coefficient, x in zip(artifact.coefficients.tolist(), mean.tolist(), strict=True):
        total += coefficient * x
    return total


def _start(artifact: Artifact) -> float:
    """What the sum of trees begins with, as the scorer has it."""
    match artifact.form:
        case Form.BOOSTED:
            return float(np.float32(artifact.base))
        case Form.SUMMED:
            return artifact.base
    return 0.0
