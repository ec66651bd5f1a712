"""The superaccumulator against fractions: sums and variances of any finite doubles, rounded once."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.core.kernel import accumulate as big
from headrace.core.kernel.words import PLAIN, Slab

CASES = 200 if PLAIN else 1_000  # of some ten doubles, five results each
SEEDS = [(1, CASES), pytest.param(2, 25_000, marks=pytest.mark.slow)]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
LARGEST = sys.float_info.max
TINIEST = 5e-324


def nearest(value: Fraction) -> float:
    """The oracle: the nearest double, infinity beyond the range, no -0.0."""
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def rounded_ratio(total: Slab, divisor: int, divisor2: int) -> float:
    return big.big_round_ratio(total, divisor, divisor2, np.full(big.BIG_WORDS, 77, np.int64))


def rounded_variance(total: Slab, squares: Slab, count: int, sample: bool) -> float:
    scratch, rest = np.full(big.BIG_WORDS, 77, np.int64), np.full(2 * big.BIG_WORDS, 77, np.int64)
    return big.big_round_variance(total, squares, count, sample, scratch, rest)


def check(xs: list[float], divisor: int, divisor2: int = 1) -> None:
    """Ratio and both variances of the doubles, twice, and again after more were added."""
    total, squares = np.full(big.BIG_WORDS, 77, np.int64), np.full(big.BIG_SQUARE_WORDS, 77, np.int64)
    big.big_clear(total, big.BIG_WORDS)
    big.big_clear(squares, big.BIG_SQUARE_WORDS)
    for half in (xs[: len(xs) // 2], xs[len(xs) // 2 :]):
        for x in half:
            big.big_add(total, x)
            big.big_add_square(squares, x)
        rounded_ratio(total, 1, 1)
    exact = [Fraction(x) for x in xs]
    s, q, n = sum(exact, Fraction(0)), sum((x * x for x in exact), Fraction(0)), len(xs)
    for _ in range(2):
        result = rounded_ratio(total, divisor, divisor2)
        expected = nearest(s / divisor / divisor2)
        assert (result, math.copysign(1, result)) == (expected, math.copysign(1, expected)), (xs, divisor, divisor2)
        for sample in (False, True):
            freedom = n - 1 if sample else n
            variance = rounded_variance(total, squares, n, sample)
            if freedom < 1:
                assert math.isnan(variance)
            else:
                assert variance == nearest((n * q - s * s) / (n * freedom)), (xs, sample)
                assert math.copysign(1, variance) == 1


@settings(max_examples=200)
@given(st.lists(FINITE, max_size=8), st.integers(1, 2**62 - 1), st.integers(1, 2**62 - 1))
@example([LARGEST] * 4, 1, 1)
@example([-LARGEST] * 4, 4, 1)
@example([LARGEST, -LARGEST, TINIEST], 1, 1)
@example([LARGEST, TINIEST, -LARGEST], 3, 1)
@example([TINIEST, TINIEST, TINIEST], 2, 1)
@example([TINIEST], 2, 1)
@example([-TINIEST], 2, 1)
@example([-0.0], 1, 1)
@example([], 1, 1)
def test_any_doubles(xs: list[float], divisor: int, divisor2: int) -> None:
    check(xs, divisor, divisor2)


@pytest.mark.parametrize(("seed", "cases"), SEEDS)
def test_random_doubles_of_near_and_far_magnitudes(seed: int, cases: int) -> None:
    generator = random.Random(seed)
    for _ in range(cases):
        count = generator.randint(1, 12)
        spread = generator.choice([0, 1, 30, 60, 300, 2000])
        lowest = generator.randint(-1074, 971 - min(spread, 2000))
        xs = [
            math.ldexp(
                generator.choice([-1, 1]) * generator.getrandbits(53), min(971, lowest + generator.randint(0, spread))
            )
            for _ in range(count)
        ]
        if generator.random() < 0.3:
            xs += [-x for x in xs]  # cancels to zero
        if generator.random() < 0.3:
            xs.append(xs[0] * 2.0**-53)  # just at or beside a tie
        generator.shuffle(xs)
        check(xs, max(1, generator.getrandbits(generator.randint(1, 62))))


def test_a_tie_is_broken_by_the_smallest_part_however_far_below() -> None:
    generator = random.Random(3)
    for _ in range(CASES):
        exponent = generator.randint(-900, 900)
        size = 2**52 + generator.getrandbits(52)
        tie = [math.ldexp(size, exponent), math.ldexp(0.5, exponent)]
        far = math.ldexp(generator.choice([-1, 1]), generator.randint(-1074, exponent - 2))
        check([*tie, far, generator.choice([0.0, -far])], 1)


def test_sum_does_not_depend_on_the_order() -> None:
    generator = random.Random(2)
    xs = [generator.uniform(-1, 1) * 10.0 ** generator.randint(-300, 300) for _ in range(200)]
    results = set()
    for _ in range(10):
        generator.shuffle(xs)
        acc = np.zeros(big.BIG_WORDS, np.int64)
        for x in xs:
            big.big_add(acc, x)
        results.add(rounded_ratio(acc, 7, 1))
    assert results == {nearest(sum(map(Fraction, xs), Fraction(0)) / 7)}


@pytest.mark.parametrize("x", [LARGEST, -LARGEST, 1.5, -TINIEST])
def test_as_many_events_as_promised_do_not_overflow_a_digit(x: float) -> None:
    once, squares = np.zeros(big.BIG_WORDS, np.int64), np.zeros(big.BIG_SQUARE_WORDS, np.int64)
    big.big_add(once, x)
    big.big_add_square(squares, x)
    total, all_squares = once * big.EVENTS_MAX, squares * big.EVENTS_MAX  # what so many additions leave
    n = big.EVENTS_MAX
    assert rounded_ratio(total, n, 1) == x
    assert rounded_variance(total, all_squares, n, True) == 0.0
    for _ in range(2):
        big.big_add(total, 0.75 * x)
        big.big_add_square(all_squares, 0.75 * x)
    mean = (n * Fraction(x) + 2 * Fraction(0.75 * x)) / (n + 2)
    squares_mean = (n * Fraction(x) ** 2 + 2 * Fraction(0.75 * x) ** 2) / (n + 2)
    assert rounded_ratio(total, n + 2, 1) == nearest(mean)
    assert rounded_variance(total, all_squares, n + 2, False) == nearest(squares_mean - mean**2)


def test_squares_that_cannot_be_of_the_same_values_give_nan() -> None:
    total, squares = np.zeros(big.BIG_WORDS, np.int64), np.zeros(big.BIG_SQUARE_WORDS, np.int64)
    big.big_add(total, 3.0)
    big.big_add_square(squares, 1.0)
    assert math.isnan(rounded_variance(total, squares, 2, False))


@pytest.mark.skipif(PLAIN, reason="this run is the plain one already")
def test_plain_python_passes_the_same_tests() -> None:
    # In there this very test skips, which is no lack of the machine.
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "HEADRACE_REQUIRE_ALL": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", str(Path(__file__))]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert outcome.returncode == 0, outcome.stdout[-4000:]
