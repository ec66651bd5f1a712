"""Random numbers that are the same on every machine: PCG64's bits, and arithmetic that rounds in one way.

NumPy promises the bits of a bit generator for ever, and not what its distributions make of them; so uniform numbers are
taken from the bits here, and all others from uniform ones. `exp` may differ by the last bit between processors: whoever
takes it rounds the result to cents or seconds. Pure, but for the stream's own place.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_STEPS = 4_096
_QUANTILES = np.array([round(NormalDist().inv_cdf((i + 0.5) / _STEPS), 6) for i in range(_STEPS)])
_PLACES = (np.arange(_STEPS) + 0.5) / _STEPS
_UNIT = 1_000_000  # a weight of 1 as an integer: sums of weights are exact


class Draws:
    """One stream. part: each part of the simulation has its own, so that an option of one does not move the others."""

    def __init__(self, seed: int, part: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, part]))

    def uniform(self, count: int) -> Floats:
        """In [0, 1), 53 bits each."""
        raw = np.asarray(self._bits.random_raw(count), np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, count: int, high: int) -> Integers:
        """Whole numbers in [0, high)."""
        return (self.uniform(count) * high).astype(np.int64)

    def happens(self, count: int, share: float | Floats) -> npt.NDArray[np.bool_]:
        return self.uniform(count) < share

    def normal(self, count: int) -> Floats:
        """Of mean 0 and variance 1, from a table: within 3.7 standard deviations."""
        return np.interp(self.uniform(count), _PLACES, _QUANTILES)

    def pick(self, count: int, weights: Floats) -> Integers:
        """Indexes, each as often as its weight says."""
        totals = cumulated(weights)
        return np.searchsorted(totals, self.below(count, int(totals[-1])), side="right").astype(np.int64)

    def pick_among_first(self, weights: Floats, firsts: Integers) -> Integers:
        """One index a row, below `firsts` of the row (at least 1), each as often as its weight says."""
        totals = cumulated(weights)
        places = (self.uniform(len(firsts)) * totals[firsts - 1]).astype(np.int64)
        return np.searchsorted(totals, places, side="right").astype(np.int64)


def cumulated(weights: Floats) -> Integers:
    """Exact running totals of weights."""
    return np.cumsum(np.rint(weights * _UNIT).astype(np.int64))


def logistic(x: Floats) -> Floats:
    """From log odds to a probability."""
    return 1.0 / (1.0 + np.exp(-x))
