"""exp, log and pow, pinned: the same bits on any machine, for one value and for a column (SEMANTICS 3.4). Pure.

The one idea: a platform's own functions differ in the last bit from library to library, so these are made of IEEE
operations that no machine rounds differently (+ - * /, and scaling by powers of two), never contracted. A value is
carried as an unevaluated pair of doubles, high and low, about 106 bits, and rounded at the end: errors stay below 0.53
units in the last place (one unit where the result is subnormal). The same functions serve a float and an array, so both
give the same bits.

Where a result is undefined or not finite (an argument that is not finite, log of x <= 0, a negative base with an
exponent that is no integer, 0 to a negative power, overflow) it is NaN, which the caller makes null. Never -0.0.

Pairs: Dekker, "A floating-point technique for extending the available precision" (1971), and Knuth, The Art of Computer
Programming 4.2.2. Reductions: the textbook ones, exp(x) = 2**k exp(x - k ln 2) and log(2**k m) = k ln 2 + 2 artanh((m -
1) / (m + 1)), with Taylor coefficients.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
_Real = TypeVar("_Real", float, Column)

# ln 2 in two parts, the first of 41 bits, so that its product with an exponent is exact; the rest is below 2**-96.
_LN2_HIGH = float.fromhex("0x1.62e42fefa3p-1")
_LN2_LOW = float.fromhex("0x1.3de6af278ece6p-42")
_PER_LN2 = float.fromhex("0x1.71547652b82fep+0")
_THIRD_LOW = float.fromhex("0x1.5555555555555p-56")  # 1/3 and 1/5 less their nearest doubles
_FIFTH_LOW = float.fromhex("-0x1.999999999999ap-57")
_SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
_SPLITTER = 2.0**27 + 1.0
_ROUNDER = 1.5 * 2.0**52  # adding and subtracting it rounds to an integer

# Above, exp overflows; below, it is under half of the smallest subnormal. Both lie a little outside, so that the last
# step decides at the edge.
_EXP_MAX = 709.8
_EXP_MIN = -745.2
_POW_EXPONENT_MAX = 2.0**64  # |log x| is at least 2**-53 where x != 1: more is 0 or overflow

# exp(r) = 1 + r + r**2/2 + r**3 * (1/3! + r/4! + ...): |r| <= 0.347, the first term left out is below 2**-63.
_EXP_TAIL = tuple(1.0 / math.factorial(n) for n in range(14, 2, -1))
# artanh(s) = s * (1 + q * (1/3 + q * (1/5 + q * (1/7 + q/9 + ...)))), q = s**2 <= 0.0295: left out, below 2**-75 of it.
_LOG_TAIL = tuple(1.0 / (2 * n + 1) for n in range(14, 2, -1))


def exp_scalar(x: float) -> float:
    """e**x; NaN where it overflows."""
    if not math.isfinite(x):
        return math.nan
    return _exp_finite(x, 0.0)


def log_scalar(x: float) -> float:
    """The natural logarithm; NaN where x <= 0."""
    if not (math.isfinite(x) and x > 0.0):
        return math.nan
    high, low = _log_pair(*_reduce(x))
    return high + low + 0.0


def pow_scalar(x: float, y: float) -> float:
    """x**y; 1.0 where y is 0; NaN where it overflows, for x = 0 with y < 0, and for x < 0 unless y is an integer."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return math.nan
    remainder = math.fmod(abs(y), 2.0)
    if (x == 0.0 and y < 0.0) or (x < 0.0 and remainder != 0.0 and remainder != 1.0):
        return math.nan
    if y == 0.0:
        return 1.0
    if x == 0.0:
        return 0.0
    limited = min(max(y, -_POW_EXPONENT_MAX), _POW_EXPONENT_MAX)
    power = _exp_finite(*_scale_pair(limited, *_log_pair(*_reduce(abs(x)))))
    return (-power if x < 0.0 and remainder == 1.0 else power) + 0.0


def exp_columns(x: Column) -> Column:
    """exp_scalar of every value, bit for bit."""
    valid = np.isfinite(x)
    return np.where(valid, _exp_finite_columns(np.where(valid, x, 0.0), np.zeros(x.shape)), np.nan)


def log_columns(x: Column) -> Column:
    """log_scalar of every value, bit for bit."""
    valid = np.isfinite(x) & (x > 0.0)
    high, low = _log_pair(*_reduce_columns(np.where(valid, x, 1.0)))
    return np.where(valid, high + low + 0.0, np.nan)


def pow_columns(x: Column, y: Column) -> Column:
    """pow_scalar of every pair of values, bit for bit; equal shapes."""
    finite = np.isfinite(x) & np.isfinite(y)
    remainder = np.fmod(np.abs(np.where(finite, y, 0.0)), 2.0)
    undefined = ~finite | ((x == 0.0) & (y < 0.0)) | ((x < 0.0) & (remainder != 0.0) & (remainder != 1.0))
    ordinary = ~undefined & (x != 0.0) & (y != 0.0)
    limited = np.clip(np.where(ordinary, y, 1.0), -_POW_EXPONENT_MAX, _POW_EXPONENT_MAX)
    pair = _log_pair(*_reduce_columns(np.abs(np.where(ordinary, x, 1.0))))
    power = _exp_finite_columns(*_scale_pair(limited, *pair))
    power = np.where((x < 0.0) & (remainder == 1.0), -power, power) + 0.0
    return np.where(undefined, np.nan, np.where(y == 0.0, 1.0, np.where(x == 0.0, 0.0, power)))


def _exp_finite(high: float, low: float) -> float:
    """exp(high + low) of finite high, NaN at overflow."""
    if high > _EXP_MAX:
        return math.nan
    if high < _EXP_MIN:
        return 0.0
    exponent = _nearest_exponent(high)
    result = _exp_pair(high, low, exponent)
    # In two steps: 2**1024 is no double, and a subnormal must be rounded once.
    first = int(exponent) // 2
    result = result * math.ldexp(1.0, first) * math.ldexp(1.0, int(exponent) - first)
    return result if math.isfinite(result) else math.nan


def _exp_finite_columns(high: Column, low: Column) -> Column:
    within = np.clip(high, _EXP_MIN, _EXP_MAX)
    exponent = _nearest_exponent(within)
    result = _exp_pair(within, low, exponent)
    whole = exponent.astype(np.int64)
    first = whole // 2
    with np.errstate(over="ignore", under="ignore"):
        result = result * _powers_of_two(first) * _powers_of_two(whole - first)
    result = np.where(np.isfinite(result) & (high <= _EXP_MAX), result, np.nan)
    return np.where(high < _EXP_MIN, 0.0, result)


def _powers_of_two(exponent: NDArray[np.int64]) -> Column:
    return ((exponent + 1023) << 52).view(np.float64)


def _nearest_exponent(x: _Real) -> _Real:
    """x / ln 2 rounded to an integer."""
    return (x * _PER_LN2 + _ROUNDER) - _ROUNDER


def _exp_pair(high: _Real, low: _Real, exponent: _Real) -> _Real:
    """exp(high + low) / 2**exponent, rounded once from about 60 bits; it lies in [0.7, 1.5]."""
    # The first difference is exact: both are multiples of 2**-54, and it is below 1.
    r, rest = _add(high - exponent * _LN2_HIGH, low - exponent * _LN2_LOW)
    square, square_rest = _multiply(r, r)
    tail = r * 0.0 + _EXP_TAIL[0]
    for coefficient in _EXP_TAIL[1:]:
        tail = tail * r + coefficient
    one, rest_one = _add_ordered(r * 0.0 + 1.0, r)
    two, rest_two = _add_ordered(one, 0.5 * square)
    return two + (rest_one + (rest_two + (rest + (r * rest + (0.5 * square_rest + square * r * tail)))))


def _reduce(x: float) -> tuple[float, float]:
    """Positive x as (m, k): x = m * 2**k, m in [sqrt(1/2), sqrt(2))."""
    fraction, exponent = math.frexp(x)
    return (2.0 * fraction, exponent - 1.0) if fraction < _SQRT_HALF else (fraction, float(exponent))


def _reduce_columns(x: Column) -> tuple[Column, Column]:
    fraction, exponent = np.frexp(x)
    small = fraction < _SQRT_HALF
    return np.where(small, 2.0 * fraction, fraction), exponent.astype(np.float64) - np.where(small, 1.0, 0.0)


def _log_pair(m: _Real, exponent: _Real) -> tuple[_Real, _Real]:
    """log(m * 2**exponent) as a pair; about 70 bits of it are right."""
    f = m - 1.0  # exact
    d, d_rest = _add(m, m * 0.0 + 1.0)
    s = f / d
    product, product_rest = _multiply(s, d)
    s_rest = (((f - product) - product_rest) - s * d_rest) / d
    q, q_rest = _multiply_pairs(s, s_rest, s, s_rest)
    tail = q * 0.0 + _LOG_TAIL[0]
    for coefficient in _LOG_TAIL[1:]:
        tail = tail * q + coefficient
    u, u_rest = _add_ordered(q * 0.0 + 0.2, q * tail)
    v, v_rest = _multiply_pairs(q, q_rest, u, u_rest + _FIFTH_LOW)
    v, v_low = _add_ordered(q * 0.0 + 1.0 / 3.0, v)
    w, w_rest = _multiply_pairs(q, q_rest, v, v_low + (v_rest + _THIRD_LOW))
    w, w_rest = _multiply_pairs(s, s_rest, w, w_rest)
    high, low = _add_ordered(2.0 * s, 2.0 * w)
    low = low + (2.0 * s_rest + 2.0 * w_rest)
    high, carried = _add(exponent * _LN2_HIGH, high)
    return _add_ordered(high, carried + (low + exponent * _LN2_LOW))


def _scale_pair(y: _Real, high: _Real, low: _Real) -> tuple[_Real, _Real]:
    product, rest = _multiply(y, high)
    return _add_ordered(product, rest + y * low)


def _add(a: _Real, b: _Real) -> tuple[_Real, _Real]:
    """a + b rounded, and exactly what was lost."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _add_ordered(a: _Real, b: _Real) -> tuple[_Real, _Real]:
    """The same for |a| >= |b|, or a = 0."""
    total = a + b
    return total, b - (total - a)


def _multiply(a: _Real, b: _Real) -> tuple[_Real, _Real]:
    """a * b rounded, and exactly what was lost; for |a|, |b| below 2**900 and products above 2**-900."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _split(a: _Real) -> tuple[_Real, _Real]:
    """Two parts of at most 26 bits."""
    scaled = _SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high


def _multiply_pairs(a: _Real, a_rest: _Real, b: _Real, b_rest: _Real) -> tuple[_Real, _Real]:
    product, rest = _multiply(a, b)
    return product, rest + (a * b_rest + a_rest * b)
