"""exp, log and pow: within a unit in the last place of the truth, one value and a column alike, undefined is NaN."""

from __future__ import annotations

import decimal
import hashlib
import math
import random
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.elementary import exp_columns, exp_scalar, log_columns, log_scalar, pow_columns, pow_scalar

TINIEST, LEAST_NORMAL, LARGEST = 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308
NEAR_ONE = [1.0, math.nextafter(1, 0), math.nextafter(1, 2), 1 - 2.0**-40, 1 + 2.0**-40, math.sqrt(0.5), math.sqrt(2)]
SPECIAL = [
    *(0.0, -0.0, TINIEST, LEAST_NORMAL / 2, LEAST_NORMAL, 1e-300, 1e-20, 0.5, 2.0, 3.0, 10.0, 1e20, 1e300, LARGEST),
    *(*NEAR_ONE, 2.0**31, 2.0**53, 2.0**53 + 2, 2.0**63, 2.0**64, 2.0**65, 1e19, 709.782712893384, 709.7827128933841),
    *(
        745.1332191019411,
        745.1332191019412,
        745.2,
        709.8,
        708.3964185322641,
        1024.0,
        1074.0,
        1075.0,
        0.34657359,
        math.pi,
    ),
    *(math.inf, math.nan),
]
EDGES = np.array(SPECIAL + [-x for x in SPECIAL])
CONTEXT = decimal.Context(prec=40, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def magnitudes(count: int, lowest: float, highest: float, seed: int) -> np.ndarray:
    """Doubles of either sign whose binary exponents are equally likely."""
    generator = np.random.default_rng(seed)
    sizes = np.ldexp(generator.uniform(0.5, 1.0, count), generator.uniform(lowest, highest, count).astype(int))
    return generator.choice([-1.0, 1.0], count) * sizes


def exponents(count: int) -> np.ndarray:
    return np.concatenate(
        [EDGES, magnitudes(count // 2, -60, 11, 1), np.random.default_rng(2).uniform(-750, 715, count // 2)]
    )


def arguments(count: int) -> np.ndarray:
    near = np.random.default_rng(3).uniform(0.6, 1.6, count // 2)
    return np.concatenate([EDGES, np.abs(magnitudes(count // 2, -1073, 1024, 4)), near])


def powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of edges; bases and exponents whose power is in range; whole exponents of negative bases."""
    xs, ys = (grid.ravel() for grid in np.meshgrid(EDGES, EDGES))
    generator = np.random.default_rng(5)
    base = np.abs(magnitudes(count, -1073, 1024, 6))
    base[::3] = generator.uniform(0.9, 1.1, base[::3].size)
    exponent = generator.uniform(-750, 715, count) / np.where(base == 1.0, 1.0, np.log(base))
    small = generator.integers(-40, 40, count).astype(float)
    whole = generator.integers(-30, 30, count).astype(float)
    return np.concatenate([xs, base, small]), np.concatenate([ys, exponent, whole])


def bits(values: np.ndarray) -> np.ndarray:
    """Bit patterns, every NaN alike."""
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def units_off(result: float, truth: Decimal) -> float:
    """The distance in units in the last place of the result's binade."""
    return float(abs(Decimal(result) - truth) / Decimal(math.ulp(result)))


def test_columns_have_the_bits_of_scalars() -> None:
    xs = exponents(120_000)
    assert np.array_equal(bits(exp_columns(xs)), bits(np.array([exp_scalar(x) for x in xs.tolist()])))
    xs = arguments(120_000)
    assert np.array_equal(bits(log_columns(xs)), bits(np.array([log_scalar(x) for x in xs.tolist()])))
    bases, ys = powers(60_000)
    scalars = np.array([pow_scalar(x, y) for x, y in zip(bases.tolist(), ys.tolist(), strict=True)])
    assert np.array_equal(bits(pow_columns(bases, ys)), bits(scalars))


def test_empty_columns() -> None:
    empty = np.zeros(0)
    assert exp_columns(empty).size == log_columns(empty).size == pow_columns(empty, empty).size == 0


def test_no_result_is_infinite_or_negative_zero() -> None:
    for result in (exp_columns(exponents(10_000)), log_columns(arguments(10_000)), pow_columns(*powers(10_000))):
        assert not np.isinf(result).any()
        assert not (np.signbit(result) & (result == 0.0)).any()


def test_exp_is_within_a_unit() -> None:
    worst = 0.0
    for x in exponents(8_000).tolist():
        result = exp_scalar(x)
        if not math.isfinite(x) or abs(x) > 1e4:
            assert result == 0.0 if -math.inf < x < 0.0 else math.isnan(result)
            continue
        truth = CONTEXT.exp(Decimal(x))
        if math.isnan(result):
            assert truth > Decimal(LARGEST)
        else:
            off = units_off(result, truth)
            worst = max(worst, off if result >= LEAST_NORMAL else 0.0)
            assert off < (0.53 if result >= LEAST_NORMAL else 1.0), (x, result)
    assert worst > 0.4  # of many results some lie near the middle between two doubles


def test_log_is_within_a_unit() -> None:
    for x in arguments(8_000).tolist():
        result = log_scalar(x)
        if not (math.isfinite(x) and x > 0.0):
            assert math.isnan(result)
        else:
            assert units_off(result, CONTEXT.ln(Decimal(x))) < 0.51, x


def test_pow_is_within_a_unit() -> None:
    bases, ys = powers(4_000)
    generator = random.Random(7)
    checked = 0
    for x, y in zip(bases.tolist(), ys.tolist(), strict=True):
        if not (math.isfinite(x) and math.isfinite(y)) or x == 0.0 or abs(y) > 1e25 or generator.random() < 0.3:
            continue
        result = pow_scalar(x, y)
        if x < 0.0 and y != math.floor(y):
            assert math.isnan(result)
            continue
        exponent = CONTEXT.multiply(Decimal(y), CONTEXT.ln(Decimal(x).copy_abs()))
        if exponent > 720 or exponent < -760:
            assert math.isnan(result) if exponent > 0 else result == 0.0
            continue
        truth = CONTEXT.exp(exponent).copy_sign(Decimal(-1 if x < 0.0 and math.fmod(y, 2.0) != 0.0 else 1))
        if math.isnan(result):
            assert abs(truth) > Decimal(LARGEST) * (1 + Decimal(2) ** -56)
        else:
            assert units_off(result, truth) < (0.54 if abs(result) >= LEAST_NORMAL else 1.0), (x, y, result)
            checked += 1
    assert checked > 4_000


@given(st.integers(-1000, 1000), st.integers(0, 30))
def test_a_power_that_is_a_double_is_exact(base: int, exponent: int) -> None:
    exact = base**exponent
    if abs(exact) < 2**53:
        assert pow_scalar(float(base), float(exponent)) == exact
    assert pow_scalar(float(base), 1.0) == base
    assert pow_scalar(2.0, float(-exponent)) == 2.0**-exponent


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (exp_scalar, (0.0,), 1.0),
        (exp_scalar, (-0.0,), 1.0),
        (exp_scalar, (1.0,), math.e),
        (exp_scalar, (709.782712893384,), math.exp(709.782712893384)),
        (exp_scalar, (709.7827128933841,), math.nan),
        (exp_scalar, (-745.1332191019411,), TINIEST),
        (exp_scalar, (-745.1332191019412,), 0.0),
        (exp_scalar, (math.inf,), math.nan),
        (log_scalar, (1.0,), 0.0),
        (log_scalar, (0.0,), math.nan),
        (log_scalar, (-0.0,), math.nan),
        (log_scalar, (-1.0,), math.nan),
        (log_scalar, (TINIEST,), -744.4400719213812),
        (pow_scalar, (0.0, 0.0), 1.0),
        (pow_scalar, (-7.5, 0.0), 1.0),
        (pow_scalar, (0.0, -1.0), math.nan),
        (pow_scalar, (0.0, 2.5), 0.0),
        (pow_scalar, (-0.0, 3.0), 0.0),
        (pow_scalar, (-2.0, 0.5), math.nan),
        (pow_scalar, (-2.0, 3.0), -8.0),
        (pow_scalar, (-2.0, -2.0), 0.25),
        (pow_scalar, (-1.0, 2.0**53), 1.0),
        (pow_scalar, (-1.0, 2.0**53 - 1), -1.0),
        (pow_scalar, (1.0, LARGEST), 1.0),
        (pow_scalar, (math.nextafter(1, 2), LARGEST), math.nan),
        (pow_scalar, (math.nextafter(1, 2), -LARGEST), 0.0),
        (pow_scalar, (-10.0, -401.0), 0.0),
        (pow_scalar, (2.0, 1023.0), 2.0**1023),
        (pow_scalar, (2.0, 1024.0), math.nan),
        (pow_scalar, (2.0, -1074.0), TINIEST),
        (pow_scalar, (2.0, -1076.0), 0.0),
        (pow_scalar, (math.nan, 0.0), math.nan),
    ],
)
def test_edges(function: Callable[..., float], args: tuple[float, ...], expected: float) -> None:
    result = function(*args)
    assert (math.isnan(result) and math.isnan(expected)) or (
        result == expected and math.copysign(1, result or 1) == (math.copysign(1, expected or 1))
    )


def test_bits_are_the_pinned_ones() -> None:
    """Golden: a change of any bit is a new `semantics` number."""
    xs = np.arange(-4_000, 4_000) / 7.0
    digest = hashlib.sha256()
    for result in (exp_columns(xs), log_columns(np.abs(xs)), pow_columns(np.abs(xs), xs[::-1] / 300.0)):
        digest.update(np.where(np.isnan(result), 77.0, result).astype("<f8").tobytes())
    assert digest.hexdigest() == "b18697f7eaea291c81c0365e9e5eb0fafef3b408c17ab9f522c63d23650e97cb"
