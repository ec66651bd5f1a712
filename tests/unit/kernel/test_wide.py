"""Fixed-point sums against Python's integers, and their rounded ratios and variances against fractions."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.kernel import wide
from headrace.core.kernel.words import PLAIN, Slab, divide, high_product, leading_zeros

# A few thousand random cases with every run, above 10**5 of each kind with --all.
seeded = pytest.mark.parametrize(
    ("seed", "cases"), [(1, 1_000 if PLAIN else 5_000), pytest.param(2, 110_000, marks=pytest.mark.slow)]
)
WORDS = st.sampled_from([1, 2, 4])


def write(slab: Slab, at: int, words: int, value: int) -> None:
    for i in range(words):
        word = (value >> 64 * i) & (2**64 - 1)
        slab[at + i] = word - 2**64 if word >= 2**63 else word


def read(slab: Slab, at: int, words: int) -> int:
    value = sum((int(slab[at + i]) & (2**64 - 1)) << 64 * i for i in range(words))
    return value - 2 ** (64 * words) if value >= 2 ** (64 * words - 1) else value


def wrapped(value: int, words: int) -> int:
    half = 2 ** (64 * words - 1)
    return (value + half) % (2 * half) - half


def nearest(value: Fraction) -> float:
    """The oracle: the nearest double, infinity beyond the range, no -0.0."""
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def scaled(value: int, unit: int) -> Fraction:
    return value * Fraction(2) ** unit


def same_bits(left: float, right: float) -> bool:
    return np.float64(left).tobytes() == np.float64(right).tobytes()


def random_integer(generator: random.Random, bits: int) -> int:
    """Either sign, every magnitude up to 2**bits equally likely, sometimes a power of two or just beside one."""
    length = generator.randint(0, bits)
    value = generator.choice(
        [generator.getrandbits(length), 2**length - 1, 2**length >> 1, (generator.getrandbits(length) >> 9) << 9]
    )
    return generator.choice([-1, 1]) * min(value, 2**bits - 1)


def random_divisor(generator: random.Random) -> int:
    return generator.choice(
        [1, 1, max(1, generator.getrandbits(generator.randint(1, 62))), 10 ** generator.randint(0, 18)]
    )


def integers(words: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (64 * words - 1)), 2 ** (64 * words - 1) - 1)


@given(st.data(), WORDS)
def test_add_and_subtract_are_modular_and_may_overwrite_an_operand(data: st.DataObject, words: int) -> None:
    a, b = data.draw(integers(words)), data.draw(integers(words))
    slab = np.full(16, 77, np.int64)
    for operation, expected in ((wide.add, a + b), (wide.subtract, a - b)):
        for into in (1, 6, 11):
            write(slab, 1, words, a)
            write(slab, 6, words, b)
            operation(slab, into, 1, 6, words)
            assert read(slab, into, words) == wrapped(expected, words)
            assert slab[0] == slab[5] == slab[10] == slab[15] == 77


@given(st.data(), WORDS, st.integers(-(2**63), 2**63 - 1))
def test_add_and_subtract_of_one_value(data: st.DataObject, words: int, value: int) -> None:
    a = data.draw(integers(words))
    slab = np.full(6, 77, np.int64)
    cases = [(wide.add_value, a + value), (wide.subtract_value, a - value)]
    if words >= 2:
        cases += [(wide.add_square, a + value * value), (wide.subtract_square, a - value * value)]
    for operation, expected in cases:
        write(slab, 1, words, a)
        operation(slab, 1, words, value)
        assert read(slab, 1, words) == wrapped(expected, words)
        assert slab[0] == slab[words + 1] == 77


def units_of(x: float, unit: int, power: int) -> Fraction:
    return Fraction(x) ** power / Fraction(2) ** unit


def fits(x: float, words: int, unit: int, power: int) -> bool:
    units = units_of(x, unit, power)
    return units.denominator == 1 and abs(units) < 2 ** (64 * words - 1 - wide.EVENTS_BITS)


@seeded
@pytest.mark.parametrize("power", [1, 2])
def test_what_fits_is_added_and_subtracted_exactly(power: int, seed: int, cases: int) -> None:
    generator = random.Random(10 * seed + power)
    check = wide.fits_float if power == 1 else wide.fits_float_square
    add = wide.add_float if power == 1 else wide.add_float_square
    subtract = wide.subtract_float if power == 1 else wide.subtract_float_square
    slab = np.zeros(8, np.int64)
    fitting = 0
    for _ in range(cases):
        words = generator.choice([1, 2, 4])
        unit = generator.choice([-10, -74, -107, -148, -214, -generator.randint(1, 1200)])
        low = unit // power + generator.randint(-3, 3)
        x = random_integer(generator, 53) * 2.0 ** max(-1000, low + generator.randint(0, 64 * words // power))
        assert check(x, words, unit) == fits(x, words, unit, power), (x, words, unit)
        if fits(x, words, unit, power):
            fitting += 1
            before = random_integer(generator, 64 * words - 1)
            units = int(units_of(x, unit, power))
            write(slab, 2, words, before)
            add(slab, 2, words, unit, x)
            assert read(slab, 2, words) == wrapped(before + units, words), (x, words, unit)
            write(slab, 2, words, before)
            subtract(slab, 2, words, unit, x)
            assert read(slab, 2, words) == wrapped(before - units, words), (x, words, unit)
    assert fitting > cases // 10
    assert slab[0] == slab[1] == slab[6] == slab[7] == 0


@given(st.floats(allow_nan=True, allow_infinity=True), WORDS, st.integers(-2200, 0))
def test_fits_float_of_any_double(x: float, words: int, unit: int) -> None:
    finite = math.isfinite(x)
    assert wide.fits_float(x, words, unit) == (finite and fits(x, words, unit, 1))
    assert wide.fits_float_square(x, words, unit) == (finite and fits(x, words, unit, 2))


def test_2_to_the_23_of_the_largest_value_that_fits_do_not_wrap() -> None:
    largest = 2.0 ** (127 - wide.EVENTS_BITS - 74) * (1 - 2.0**-53)
    assert wide.fits_float(largest, 2, -74)
    assert not wide.fits_float(largest * 2, 2, -74)
    assert units_of(largest, -74, 1) * 2**23 < 2**127


@given(st.data(), WORDS)
def test_sign_zero_and_int64(data: st.DataObject, words: int) -> None:
    value = data.draw(st.one_of(integers(words), st.integers(-1, 1), st.sampled_from([2**63 - 1, -(2**63)])))
    slab = np.zeros(4, np.int64)
    write(slab, 0, words, value)
    assert wide.is_negative(slab, 0, words) == (value < 0)
    assert wide.is_zero(slab, 0, words) == (value == 0)
    inside = -(2**63) <= value < 2**63
    assert wide.to_int64_if_fits(slab, 0, words) == (inside, value if inside else 0)


def check_ratio(slab: Slab, value: int, words: int, unit: int, divisor: int, divisor2: int) -> None:
    write(slab, 3, words, value)
    result = wide.round_ratio(slab, 3, words, unit, divisor, divisor2)
    expected = nearest(scaled(value, unit) / (divisor * divisor2))
    assert same_bits(result, expected), (value, words, unit, divisor, divisor2, result, expected)


@seeded
def test_ratio_of_random_numbers(seed: int, cases: int) -> None:
    generator = random.Random(10 + seed)
    slab = np.zeros(8, np.int64)
    for _ in range(cases):
        words = generator.choice([1, 2, 4])
        unit = generator.choice([0, 0, -74, -107, -148, generator.randint(-300, 0), generator.randint(-1330, 1030)])
        value = random_integer(generator, 64 * words - 1)
        check_ratio(slab, value, words, unit, random_divisor(generator), random_divisor(generator))


@seeded
def test_ratio_exactly_between_two_doubles_goes_to_the_even_one(seed: int, cases: int) -> None:
    generator = random.Random(20 + seed)
    slab = np.zeros(8, np.int64)
    for _ in range(cases):
        divisor = max(1, generator.getrandbits(generator.randint(1, 62)))
        divisor2 = generator.choice([1, max(1, generator.getrandbits(generator.randint(1, 62)))])
        between = 2 * (2**52 + generator.getrandbits(52)) + 1
        value = between * divisor * divisor2
        value <<= generator.choice([0, 5, generator.randint(0, 254 - value.bit_length())])
        # beside the tie by as little as one unit of 2**-200 of the value, which only a remainder can tell
        value += generator.choice([0, 1, -1]) << generator.randint(0, max(0, value.bit_length() - 60))
        words = next(words for words in (1, 2, 4) if value < 2 ** (64 * words - 1))
        check_ratio(slab, generator.choice([-1, 1]) * value, words, generator.choice([0, -74, -148]), divisor, divisor2)


@seeded
def test_ratio_at_subnormals_and_at_their_ties(seed: int, cases: int) -> None:
    generator = random.Random(30 + seed)
    slab = np.zeros(8, np.int64)
    for _ in range(cases):
        divisor = max(1, generator.getrandbits(generator.randint(1, 30)))
        length = generator.randint(1, 54)
        between = 2 * generator.getrandbits(length) + 1  # in halves of the smallest subnormal
        extra = generator.randint(0, 60)
        value = (between * divisor << extra) + generator.choice([0, 0, 0, 1, -1])
        check_ratio(slab, generator.choice([-1, 1]) * value, 4, -1075 - extra, divisor, 1)
        divisor = max(1, generator.getrandbits(generator.randint(1, 52)))
        check_ratio(slab, random_integer(generator, 52), 1, generator.randint(-1080, -900), divisor, 1)


def test_ratio_at_the_end_of_the_range() -> None:
    slab = np.zeros(8, np.int64)
    for beyond in (-1, 0, 1):
        for sign in (-1, 1):
            # the least number that rounds to infinity is 2**1024 - 2**970
            check_ratio(slab, sign * (2**55 - 2**1 * 1 + beyond), 1, 969, 1, 1)
            check_ratio(slab, sign * (3 * (2**126 - 2**72) + beyond), 4, 898, 3, 1)
    check_ratio(slab, 1, 1, 1023, 1, 1)
    check_ratio(slab, 1, 1, 1024, 1, 1)
    check_ratio(slab, -(2**255), 4, 1000, 1, 1)


@settings(max_examples=500)
@given(st.data(), WORDS, st.integers(-1400, 1100))
def test_ratio_of_any_number(data: st.DataObject, words: int, unit: int) -> None:
    divisors = st.integers(1, 2**62 - 1)
    slab = np.zeros(8, np.int64)
    check_ratio(slab, data.draw(integers(words)), words, unit, data.draw(divisors), data.draw(divisors))


def test_zero_is_never_negative() -> None:
    slab = np.zeros(8, np.int64)
    for words in (1, 2, 4):
        check_ratio(slab, 0, words, -74, 3, 1)
        check_ratio(slab, -1, words, -1200, 3, 1)
        check_ratio(slab, -1, words, -1075, 1, 1)


def exact_variance(values: list[tuple[Fraction, int]], sample: bool) -> Fraction:
    n = sum(count for _, count in values)
    total = sum((value * count for value, count in values), Fraction(0))
    squares = sum((value * value * count for value, count in values), Fraction(0))
    return (n * squares - total * total) / (n * (n - 1 if sample else n))


def check_variance(
    values: list[tuple[int, int]], unit: int, unit_sum: int, unit_square: int, scale: int, sample: bool
) -> None:
    """values: (value in 2**unit, how often)."""
    total = sum(value * count for value, count in values)
    squares = sum(value * value * count for value, count in values)
    total_units, square_units = scaled(total, unit - unit_sum), scaled(squares, 2 * unit - unit_square)
    assert total_units.denominator == square_units.denominator == 1
    sum_words = next(words for words in (1, 2, 4) if abs(total_units) < 2 ** (64 * words - 1))
    square_words = next(words for words in (1, 2, 4) if square_units < 2 ** (64 * words - 1))
    slab = np.full(16 + wide.VARIANCE_SCRATCH_WORDS, 77, np.int64)
    write(slab, 1, sum_words, int(total_units))
    write(slab, 6, square_words, int(square_units))
    count = sum(count for _, count in values)
    result = wide.round_variance(
        slab, 1, sum_words, 6, square_words, count, unit_sum, unit_square, scale, sample, slab, 12
    )
    exact = [(Fraction(value * Fraction(2) ** unit) / scale, count) for value, count in values]
    expected = math.nan if sample and count < 2 else nearest(exact_variance(exact, sample))
    assert same_bits(result, expected), (values, unit, unit_sum, unit_square, scale, sample, result, expected)
    assert read(slab, 1, sum_words) == total_units and read(slab, 6, square_words) == square_units
    assert slab[11] == 77 and (slab[12 + wide.VARIANCE_SCRATCH_WORDS :] == 77).all()


def random_values(generator: random.Random, bits: int) -> list[tuple[int, int]]:
    """A few values of one magnitude or another, spread or close together or all equal, up to 2**31 of them."""
    distinct = generator.randint(1, 5)
    most = generator.choice([1, 1, 3, 1000, 2**31 // distinct])
    base = random_integer(generator, bits)
    spread = generator.randint(0, bits)
    values = []
    for _ in range(distinct):
        value = generator.choice([base, random_integer(generator, bits), base + random_integer(generator, spread)])
        values.append((max(-(2**bits) + 1, min(2**bits - 1, value)), generator.randint(1, most)))
    return values


@seeded
def test_variance_of_integers_and_decimals(seed: int, cases: int) -> None:
    generator = random.Random(40 + seed)
    for _ in range(cases):
        values = random_values(generator, generator.choice([20, 31, 47, 63]))
        scale = generator.choice([1, 100, 10 ** generator.randint(0, 18)])
        check_variance(values, 0, 0, 0, scale, generator.random() < 0.5)


@seeded
def test_variance_of_floats_with_units_that_differ(seed: int, cases: int) -> None:
    generator = random.Random(50 + seed)
    for _ in range(cases):
        bits = generator.choice([53, 60, 80, 95])
        unit = generator.choice([-74, -107, -30, -generator.randint(1, 1100)])
        unit_sum = unit - generator.randint(0, 120)
        unit_square = 2 * unit - generator.choice([0, 0, generator.randint(0, 25)])
        check_variance(random_values(generator, bits), unit, unit_sum, unit_square, 1, generator.random() < 0.5)


@seeded
def test_variance_exactly_between_two_doubles_goes_to_the_even_one(seed: int, cases: int) -> None:
    generator = random.Random(60 + seed)
    slab = np.zeros(8 + wide.VARIANCE_SCRATCH_WORDS, np.int64)
    for _ in range(cases):
        count = generator.randint(1, 2**31)
        square = (2 * (2**52 + generator.getrandbits(52)) + 1) * count  # a sum of 0 and any squares are possible
        square <<= generator.randint(0, 254 - square.bit_length())
        square += generator.choice([0, 1, -1]) << generator.randint(0, max(0, square.bit_length() - 60))
        write(slab, 1, 4, square)
        result = wide.round_variance(slab, 0, 1, 1, 4, count, -150, -300, 1, False, slab, 8)
        assert same_bits(result, nearest(scaled(square, -300) / count)), (square, count)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(1, 2**28)), min_size=1, max_size=7),
    st.integers(0, 18),
    st.booleans(),
)
def test_variance_of_any_integers(values: list[tuple[int, int]], scale: int, sample: bool) -> None:
    check_variance(values, 0, 0, 0, 10**scale, sample)


@given(st.integers(-(2**62), 2**62), st.integers(2, 2**31), st.integers(0, 18))
def test_variance_of_equal_values_is_exactly_zero(value: int, count: int, scale: int) -> None:
    check_variance([(value, count)], 0, 0, 0, 10**scale, True)
    assert exact_variance([(Fraction(value), count)], True) == 0


def test_variance_of_sums_that_belong_to_no_values_is_nan() -> None:
    slab = np.zeros(64, np.int64)
    slab[0], slab[4] = 100, 5  # sum 100 and squares 5 of 2 values
    for unit in (0, -1):
        assert math.isnan(wide.round_variance(slab, 0, 1, 4, 2, 2, unit, 0, 1, False, slab, 20))
    slab[4] = 5_001
    assert math.isnan(wide.round_variance(slab, 0, 1, 4, 2, 2, 0, 1000, 1, False, slab, 20))


HALVES = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]))
ANY_WORD = st.builds(lambda high, low: high << 32 | low, HALVES, HALVES)


@settings(max_examples=500)
@given(ANY_WORD, ANY_WORD, ANY_WORD, st.booleans())
def test_word_operations(high: int, low: int, divisor: int, largest: bool) -> None:
    divisor |= 2**63
    word = int if PLAIN else np.uint64
    assert int(high_product_of(word(high), word(low))) == high * low >> 64
    assert leading_zeros_of(word(high)) == 64 - high.bit_length()
    high = divisor - 1 if largest else high % divisor
    quotient, rest = divide(word(high), word(low), word(divisor))
    assert divmod(high * 2**64 + low, divisor) == (int(quotient), int(rest))


@numba.njit
def high_product_of(a: int, b: int) -> int:
    return high_product(a, b)


@numba.njit
def leading_zeros_of(word: int) -> int:
    return leading_zeros(word)


@pytest.mark.skipif(PLAIN, reason="this run is the plain one already")
def test_plain_python_passes_the_same_tests() -> None:
    # In there this very test skips, which is no lack of the machine.
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "HEADRACE_REQUIRE_ALL": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", str(Path(__file__))]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert outcome.returncode == 0, outcome.stdout[-4000:]
