"""Exact sums of any finite doubles and of their squares, for windows that no fixed unit fits (SEMANTICS 3.3, 6). Pure.

The one idea: a superaccumulator (Kulisch) over the whole range of doubles, in digits of 32 bits kept in int64, so that
the 31 bits above a digit collect carries and an addition touches three digits (five for a square) and never ripples.
Carries are settled only when a value is rounded, which changes no sum: what is rounded depends on the doubles alone.

An accumulator is an int64 array of BIG_WORDS, or of BIG_SQUARE_WORDS for squares; digit i counts 2**(32 * i) units.
"""

from __future__ import annotations

import numpy as np

from headrace.core.kernel.words import (
    LOW_HALF,
    MASK,
    ONE,
    ZERO,
    Slab,
    Word,
    compiled,
    high_product,
    load,
    round_quotient,
    split_float,
    store,
    to_int64,
    to_word,
)

UNIT = -1074  # the smallest subnormal
UNIT_SQUARE = -2148
EVENTS_MAX = 2**31 - 2  # between two roundings a digit takes at most so many parts below 2**32, and one carried

# The largest double is below 2**1024, so 2**31 of them below 2**(1024 + 31 + 1074) = 2**2129 units: 67 digits and the
# sign. The square: 2**(2048 + 31 + 2148) = 2**4227, 133 digits and the sign. round_quotient reads eight at the top.
BIG_WORDS = 68
BIG_SQUARE_WORDS = 134


@compiled
def big_clear(acc: Slab, words: int) -> None:
    """Makes the sum zero; words: BIG_WORDS or BIG_SQUARE_WORDS."""
    for i in range(words):
        acc[i] = 0


@compiled
def big_add(acc: Slab, x: float) -> None:
    """Adds a finite double. At most EVENTS_MAX additions between two roundings."""
    size, exponent = split_float(x)
    place = exponent - UNIT
    bits = place % 32
    low = (size << bits) & MASK
    high = (size >> 1) >> (63 - bits)
    sign = -1 if x < 0.0 else 1
    i = place // 32
    acc[i] += sign * to_int64(low & LOW_HALF)
    acc[i + 1] += sign * to_int64(low >> 32)
    acc[i + 2] += sign * to_int64(high)


@compiled
def big_add_square(acc: Slab, x: float) -> None:
    """Adds the exact square of a finite double to an accumulator of squares."""
    size, exponent = split_float(x)
    place = 2 * exponent - UNIT_SQUARE
    bits = place % 32
    w0 = (size * size) & MASK
    w1 = high_product(size, size)
    w2 = (w1 >> 1) >> (63 - bits)
    w1 = ((w1 << bits) | ((w0 >> 1) >> (63 - bits))) & MASK
    w0 = (w0 << bits) & MASK
    i = place // 32
    acc[i] += to_int64(w0 & LOW_HALF)
    acc[i + 1] += to_int64(w0 >> 32)
    acc[i + 2] += to_int64(w1 & LOW_HALF)
    acc[i + 3] += to_int64(w1 >> 32)
    acc[i + 4] += to_int64(w2)


@compiled
def big_round_ratio(acc: Slab, divisor: int, divisor2: int, magnitude: Slab) -> float:
    """The double nearest, ties to even, to the sum / (divisor * divisor2); divisors in [1, 2**62).

    Beyond the range of doubles infinity, below it a subnormal or zero; never -0.0. Settles the carries of `acc`.
    magnitude: BIG_WORDS of scratch. Oracle: float(fractions.Fraction).
    """
    sign = _settle(acc, magnitude, BIG_WORDS)
    return _round_digits(sign, magnitude, BIG_WORDS, UNIT, to_word(divisor), to_word(divisor2))


@compiled
def big_round_variance(sum_acc: Slab, square_acc: Slab, count: int, sample: bool, total: Slab, rest: Slab) -> float:
    """The double nearest to the variance (n * Q - S * S) / (n * n), or / (n * (n - 1)) for a sample.

    sum_acc and square_acc hold the sum S and the squares Q of the same `count` doubles, count up to 2**31.
    Never negative, exactly 0.0 where all are equal; NaN for a count below 1, of a sample below 2, and where S and Q
    cannot be of the same values; beyond the range infinity. Settles the carries of both.
    total, rest: scratch of BIG_WORDS and of 2 * BIG_WORDS.
    """
    freedom = int(count) - 1 if sample else int(count)
    if freedom < 1:
        return np.nan
    n = to_word(count)
    big_clear(rest, 2 * BIG_WORDS)
    _settle(sum_acc, total, BIG_WORDS)
    _settle(square_acc, rest, BIG_SQUARE_WORDS)
    carry = ZERO
    for i in range(2 * BIG_WORDS):
        product = load(rest, i) * n + carry  # below 2**32 * 2**31 + 2**32
        store(rest, i, product & LOW_HALF)
        carry = product >> 32
    if not _subtract_square(rest, total):
        return np.nan
    return _round_digits(ZERO, rest, 2 * BIG_WORDS, UNIT_SQUARE, n * to_word(freedom), ONE)


@compiled
def _settle(acc: Slab, magnitude: Slab, words: int) -> Word:
    """Carries all digits but the last into [0, 2**32), writes the digits of |sum|; not zero where it is negative."""
    carry = 0
    last = words - 1
    for i in range(last):
        value = acc[i] + carry
        digit = value & 0xFFFF_FFFF
        acc[i] = digit
        carry = value >> 32
    acc[last] += carry
    if acc[last] >= 0:
        for i in range(words):
            magnitude[i] = acc[i]
        return ZERO
    carry = 0
    for i in range(words):
        value = carry - acc[i]
        digit = value & 0xFFFF_FFFF
        magnitude[i] = digit
        carry = value >> 32
    return ONE


@compiled
def _subtract_square(rest: Slab, total: Slab) -> bool:
    """rest -= total * total, in digits; False where that is negative."""
    low = 0
    while low < BIG_WORDS and total[low] == 0:
        low += 1
    high = BIG_WORDS
    while high > low and total[high - 1] == 0:
        high -= 1
    for i in range(low, high):
        left = load(total, i)
        borrow = ZERO
        for j in range(low, high):
            taken = left * load(total, j) + borrow  # at most 2**64 - 2**32
            before = load(rest, i + j)
            digit = taken & LOW_HALF
            store(rest, i + j, (before - digit) & LOW_HALF)
            borrow = (taken >> 32) + (ONE if before < digit else ZERO)
        k = i + high
        while borrow != ZERO and k < 2 * BIG_WORDS:
            before = load(rest, k)
            digit = borrow & LOW_HALF
            store(rest, k, (before - digit) & LOW_HALF)
            borrow = (borrow >> 32) + (ONE if before < digit else ZERO)
            k += 1
        if borrow != ZERO:
            return False
    return True


@compiled
def _round_digits(sign: Word, digits: Slab, words: int, unit: int, divisor: Word, divisor2: Word) -> float:
    """The number of digits in [0, 2**32) * 2**unit / (divisor * divisor2), rounded."""
    top = words - 1
    while top > 7 and digits[top] == 0:
        top -= 1
    sticky = ZERO
    for i in range(top - 7):
        sticky = sticky | load(digits, i)
    w3 = (load(digits, top) << 32) | load(digits, top - 1)
    w2 = (load(digits, top - 2) << 32) | load(digits, top - 3)
    w1 = (load(digits, top - 4) << 32) | load(digits, top - 5)
    w0 = (load(digits, top - 6) << 32) | load(digits, top - 7)
    return round_quotient(sign, w3, w2, w1, w0, sticky, unit + 32 * (top - 7), divisor, divisor2, ONE)
