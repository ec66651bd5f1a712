"""Exact sums in 64 to 256 bits, and their correctly rounded means and variances (SEMANTICS 3.2 to 3.4, 6). Pure.

The one idea: a sum is an integer multiple of 2**unit, kept in a few words of the kernel's slab, so that adding,
subtracting and the difference of two prefixes are exact and only a published value is rounded, once. Integers and decimals
have unit 0; floats a negative unit, chosen when the definition is loaded; what does not fit it goes to `accumulate`.

A number is `slab[at : at + words]`, little-endian two's complement, words 1, 2 or 4. Arithmetic is modular: that nothing
wraps is proven when the definition is loaded, or asked of `fits_float`.
"""

from __future__ import annotations

import numpy as np

from headrace.core.kernel.words import (
    MASK,
    ONE,
    TOP_BIT,
    ZERO,
    Slab,
    Word,
    bits_float,
    compiled,
    high_product,
    leading_zeros,
    load,
    round_quotient,
    split_float,
    store,
    to_int64,
    to_word,
)

EVENTS_BITS = 24  # what fits_float leaves free: 2**23 events of the largest value, and the sign
EXACT_FLOAT = 2.0**53  # integers below it are doubles

# round_variance: count * Q and S * S, aligned. S has at most 256 bits, so S * S 512; |S| <= count * max and the shift of
# one to the unit of the other bound both below 2**576 for sums of the same values.
_SIDE_WORDS = 10
VARIANCE_SCRATCH_WORDS = 2 * _SIDE_WORDS


@compiled
def add(slab: Slab, into: int, a: int, b: int, words: int) -> None:
    """into = a + b; `into` may be a or b."""
    low = load(slab, a)
    total = (low + load(slab, b)) & MASK
    store(slab, into, total)
    carry = total < low
    for i in range(1, words):
        left = load(slab, a + i)
        part = (left + load(slab, b + i)) & MASK
        total = (part + ONE) & MASK if carry else part
        carry = part < left or total < part
        store(slab, into + i, total)


@compiled
def subtract(slab: Slab, into: int, a: int, b: int, words: int) -> None:
    """into = a - b; `into` may be a or b."""
    left = load(slab, a)
    right = load(slab, b)
    store(slab, into, (left - right) & MASK)
    borrow = left < right
    for i in range(1, words):
        left = load(slab, a + i)
        right = load(slab, b + i)
        part = (left - right) & MASK
        total = (part - ONE) & MASK if borrow else part
        borrow = left < right or part < total
        store(slab, into + i, total)


@compiled
def add_value(slab: Slab, at: int, words: int, value: int) -> None:
    """Adds an int64, in units."""
    if value < 0:
        _subtract_words(slab, at, at + words, (ZERO - to_word(value)) & MASK, ZERO, ZERO)
    else:
        _add_words(slab, at, at + words, to_word(value), ZERO, ZERO)


@compiled
def subtract_value(slab: Slab, at: int, words: int, value: int) -> None:
    """Subtracts an int64, in units."""
    if value < 0:
        _add_words(slab, at, at + words, (ZERO - to_word(value)) & MASK, ZERO, ZERO)
    else:
        _subtract_words(slab, at, at + words, to_word(value), ZERO, ZERO)


@compiled
def add_square(slab: Slab, at: int, words: int, value: int) -> None:
    """Adds the square of an int64; words at least 2."""
    size = _magnitude(value)
    _add_words(slab, at, at + words, (size * size) & MASK, high_product(size, size), ZERO)


@compiled
def subtract_square(slab: Slab, at: int, words: int, value: int) -> None:
    """Subtracts the square of an int64; words at least 2."""
    size = _magnitude(value)
    _subtract_words(slab, at, at + words, (size * size) & MASK, high_product(size, size), ZERO)


@compiled
def fits_float(x: float, words: int, unit: int) -> bool:
    """Whether x is an integer number of units, fewer than 2**(64 * words - 1 - EVENTS_BITS). False for NaN, infinity."""
    size, exponent = split_float(x)
    if size == ZERO:
        return True
    if exponent >= 972:
        return False
    shift = exponent - int(unit)
    if shift < 0 and (shift <= -53 or (size & ((ONE << -shift) - ONE)) != ZERO):
        return False
    return 64 - leading_zeros(size) + shift < 64 * int(words) - EVENTS_BITS


@compiled
def fits_float_square(x: float, words: int, unit: int) -> bool:
    """The same of the exact square of x."""
    size, exponent = split_float(x)
    if size == ZERO:
        return True
    if exponent >= 972:
        return False
    shift = 2 * exponent - int(unit)
    if shift < 0:
        zeros = (1 - shift) // 2  # of x, so that its square has -shift
        if zeros >= 53 or (size & ((ONE << zeros) - ONE)) != ZERO:
            return False
    high = high_product(size, size)
    length = 128 - leading_zeros(high) if high != ZERO else 64 - leading_zeros((size * size) & MASK)
    return length + shift < 64 * int(words) - EVENTS_BITS


@compiled
def add_float(slab: Slab, at: int, words: int, unit: int, x: float) -> None:
    """Adds a double that fits_float."""
    size, exponent = split_float(x)
    _add_scaled(slab, at, at + words, x < 0.0, size, ZERO, exponent - int(unit))


@compiled
def subtract_float(slab: Slab, at: int, words: int, unit: int, x: float) -> None:
    """Subtracts a double that fits_float."""
    size, exponent = split_float(x)
    _add_scaled(slab, at, at + words, x > 0.0, size, ZERO, exponent - int(unit))


@compiled
def add_float_square(slab: Slab, at: int, words: int, unit: int, x: float) -> None:
    """Adds the exact square of a double that fits_float_square."""
    size, exponent = split_float(x)
    low = (size * size) & MASK
    _add_scaled(slab, at, at + words, False, low, high_product(size, size), 2 * exponent - int(unit))


@compiled
def subtract_float_square(slab: Slab, at: int, words: int, unit: int, x: float) -> None:
    """Subtracts the exact square of a double that fits_float_square."""
    size, exponent = split_float(x)
    low = (size * size) & MASK
    _add_scaled(slab, at, at + words, True, low, high_product(size, size), 2 * exponent - int(unit))


@compiled
def is_negative(slab: Slab, at: int, words: int) -> bool:
    return bool(slab[at + words - 1] < 0)


@compiled
def is_zero(slab: Slab, at: int, words: int) -> bool:
    for i in range(words):
        if slab[at + i] != 0:
            return False
    return True


@compiled
def to_int64_if_fits(slab: Slab, at: int, words: int) -> tuple[bool, int]:
    """Whether the number lies in the int64 range, and the number; 0 where it does not."""
    value = to_int64(load(slab, at))
    sign = -1 if value < 0 else 0
    for i in range(1, words):
        if slab[at + i] != sign:
            return False, 0
    return True, value


@compiled
def round_ratio(slab: Slab, at: int, words: int, unit: int, divisor: int, divisor2: int) -> float:
    """The double nearest, ties to even, to X * 2**unit / (divisor * divisor2), X the number at `at`.

    Divisors in [1, 2**62). Beyond the range of doubles infinity, below it a subnormal or zero; never -0.0.
    Oracle: float(fractions.Fraction). Cost: one IEEE division where X and the divisor are exact doubles.
    """
    small, value = to_int64_if_fits(slab, at, words)
    shift = int(unit)
    if small and -EXACT_FLOAT < value < EXACT_FLOAT and -900 <= shift <= 900:
        whole = float(divisor) * float(divisor2)
        if whole < EXACT_FLOAT:  # then the product was exact; and the power of two cannot leave the normal range
            quotient = value / whole
            return quotient if shift == 0 else quotient * bits_float(to_word(shift + 1023) << 52)
    negative, w3, w2, w1, w0 = _top_words(slab, at, words)
    return round_quotient(
        negative, w3, w2, w1, w0, False, shift - 256 + 64 * int(words), to_word(divisor), to_word(divisor2), ONE
    )


@compiled
def round_variance(
    slab: Slab,
    sum_at: int,
    sum_words: int,
    square_at: int,
    square_words: int,
    count: int,
    unit_sum: int,
    unit_square: int,
    scale_divisor: int,
    sample: bool,
    scratch: Slab,
    scratch_at: int,
) -> float:
    """The double nearest to the variance of `count` values: (n * Q - S * S) / (n * n) / scale_divisor**2.

    S * 2**unit_sum: their sum, Q * 2**unit_square: the sum of their squares, both of the same values.
    count: 1 to 2**31. sample: divides by n * (n - 1) instead of n * n; NaN for n < 2.
    scale_divisor: 10**scale of a decimal, 1 to 10**18.
    scratch: VARIANCE_SCRATCH_WORDS from `scratch_at` are overwritten; it may be the slab elsewhere.
    Never negative; exactly 0.0 where all values are equal. NaN where S and Q cannot be of the same values.
    """
    freedom = int(count) - 1 if sample else int(count)
    if freedom < 1:
        return np.nan
    n = to_word(count)
    divisor = n * to_word(freedom)
    scale = to_word(scale_divisor)
    shift = int(unit_square) - 2 * int(unit_sum)
    small, total = to_int64_if_fits(slab, sum_at, sum_words)
    two_words = square_words <= 2 or (slab[square_at + 2] | slab[square_at + 3]) == 0
    if small and shift == 0 and two_words:
        low = load(slab, square_at)
        high = load(slab, square_at + 1) if square_words > 1 else ZERO
        middle = high_product(n, low)
        above = (high * n + middle) & MASK
        if high_product(n, high) == ZERO and above >= middle:
            size = _magnitude(total)
            square_low = (size * size) & MASK
            square_high = high_product(size, size)
            low = (low * n) & MASK
            if above < square_high or (above == square_high and low < square_low):
                return np.nan
            above = (above - square_high) & MASK
            above = (above - ONE) & MASK if low < square_low else above
            low = (low - square_low) & MASK
            return round_quotient(False, above, low, ZERO, ZERO, False, int(unit_square) - 128, divisor, scale, scale)
    if not _subtract_squares(slab, sum_at, sum_words, square_at, square_words, n, shift, scratch, scratch_at):
        return np.nan
    return _round_side(scratch, scratch_at, min(int(unit_square), 2 * int(unit_sum)), divisor, scale)


@compiled
def _subtract_squares(
    slab: Slab,
    sum_at: int,
    sum_words: int,
    square_at: int,
    square_words: int,
    n: Word,
    shift: int,
    scratch: Slab,
    at: int,
) -> bool:
    """Writes n * Q * 2**shift - S * S, or n * Q - S * S * 2**-shift, to the first side of the scratch.

    False where that is negative or has no room: then S and Q are not of the same values.
    """
    other = at + _SIDE_WORDS
    for i in range(2 * _SIDE_WORDS):
        scratch[at + i] = 0
    negative = slab[sum_at + sum_words - 1] < 0
    carry = ONE if negative else ZERO
    length = 0
    for i in range(sum_words):  # |S|, for a moment on the first side
        word = load(slab, sum_at + i)
        if negative:
            word = ((word ^ MASK) + carry) & MASK
            carry = ONE if word == ZERO and carry == ONE else ZERO
        store(scratch, at + i, word)
        if word != ZERO:
            length = i + 1
    for i in range(length):
        left = load(scratch, at + i)
        carry = ZERO
        for j in range(length):
            right = load(scratch, at + j)
            before = load(scratch, other + i + j)
            low = (left * right) & MASK
            high = high_product(left, right)
            part = (low + before) & MASK
            high = high + (ONE if part < low else ZERO)
            total = (part + carry) & MASK
            carry = high + (ONE if total < part else ZERO)
            store(scratch, other + i + j, total)
        store(scratch, other + i + length, carry)
    carry = ZERO
    for i in range(square_words):
        word = load(slab, square_at + i)
        part = (word * n) & MASK
        total = (part + carry) & MASK
        carry = high_product(word, n) + (ONE if total < part else ZERO)
        store(scratch, at + i, total)
    for i in range(square_words, _SIDE_WORDS):
        scratch[at + i] = 0
    store(scratch, at + square_words, carry)
    if shift > 0 and not _shift_up(scratch, at, shift):
        return False
    if shift < 0 and not _shift_up(scratch, other, -shift):
        return False
    subtract(scratch, at, at, other, _SIDE_WORDS)
    return bool(scratch[at + _SIDE_WORDS - 1] >= 0)


@compiled
def _shift_up(slab: Slab, at: int, shift: int) -> bool:
    """Multiplies the non-negative number of one side by 2**shift, in place; False where it does not fit."""
    words = shift // 64
    bits = shift % 64
    top = _SIDE_WORDS - 1
    while top >= 0 and slab[at + top] == 0:
        top -= 1
    if top < 0:
        return True
    if top + words + 1 >= _SIDE_WORDS:
        return False
    for i in range(top + 1, -1, -1):
        high = load(slab, at + i)
        low = load(slab, at + i - 1) if i > 0 else ZERO
        store(slab, at + i + words, ((high << bits) | ((low >> 1) >> (63 - bits))) & MASK)
    for i in range(words):
        slab[at + i] = 0
    return True


@compiled
def _round_side(scratch: Slab, at: int, unit: int, divisor: Word, scale: Word) -> float:
    """The non-negative number of the first side * 2**unit / (divisor * scale * scale), rounded."""
    top = _SIDE_WORDS - 1
    while top > 3 and scratch[at + top] == 0:
        top -= 1
    sticky = False
    for i in range(top - 3):
        sticky = sticky or scratch[at + i] != 0
    place = at + top
    w3, w2, w1, w0 = load(scratch, place), load(scratch, place - 1), load(scratch, place - 2), load(scratch, place - 3)
    return round_quotient(False, w3, w2, w1, w0, sticky, unit + 64 * (top - 3), divisor, scale, scale)


@compiled
def _magnitude(value: int) -> Word:
    return (ZERO - to_word(value)) & MASK if value < 0 else to_word(value)


@compiled
def _top_words(slab: Slab, at: int, words: int) -> tuple[bool, Word, Word, Word, Word]:
    """Sign and magnitude of a number, the magnitude * 2**(256 - 64 * words) as four words from the highest."""
    w3 = load(slab, at + words - 1)
    w2 = load(slab, at + words - 2) if words > 1 else ZERO
    w1 = load(slab, at + 1) if words > 2 else ZERO
    w0 = load(slab, at) if words > 2 else ZERO
    if w3 < TOP_BIT:
        return False, w3, w2, w1, w0
    # The words below the number are zeros, and the negation of a zero hands its carry up.
    w0 = (ZERO - w0) & MASK
    w1 = (w1 ^ MASK) if w0 != ZERO else (ZERO - w1) & MASK
    w2 = (w2 ^ MASK) if (w1 | w0) != ZERO else (ZERO - w2) & MASK
    w3 = (w3 ^ MASK) if (w2 | w1 | w0) != ZERO else (ZERO - w3) & MASK
    return True, w3, w2, w1, w0


@compiled
def _add_scaled(slab: Slab, at: int, end: int, negative: bool, low: Word, high: Word, shift: int) -> None:
    """Adds, or where negative subtracts, the 128-bit number times 2**shift, which is an integer below 2**(end - at words)."""
    if shift < 0:
        if shift <= -64:
            low, high = high, ZERO
            shift += 64
        low = ((low >> -shift) | ((high << 1) << (63 + shift))) & MASK if shift != 0 else low
        high = high >> -shift
        shift = 0
    at += shift // 64
    bits = shift % 64
    w0 = (low << bits) & MASK
    w1 = ((high << bits) | ((low >> 1) >> (63 - bits))) & MASK
    w2 = (high >> 1) >> (63 - bits)
    if negative:
        _subtract_words(slab, at, end, w0, w1, w2)
    else:
        _add_words(slab, at, end, w0, w1, w2)


@compiled
def _add_words(slab: Slab, at: int, end: int, w0: Word, w1: Word, w2: Word) -> None:
    """Adds three words to the number that continues from `at` to `end`; what lies beyond the end is dropped."""
    if at >= end:
        return
    total = (load(slab, at) + w0) & MASK
    store(slab, at, total)
    carry = ONE if total < w0 else ZERO
    at += 1
    while at < end and (w1 | w2 | carry) != ZERO:
        part = (load(slab, at) + carry) & MASK
        carry = ONE if part < carry else ZERO
        total = (part + w1) & MASK
        carry = carry + (ONE if total < w1 else ZERO)
        store(slab, at, total)
        w1, w2 = w2, ZERO
        at += 1


@compiled
def _subtract_words(slab: Slab, at: int, end: int, w0: Word, w1: Word, w2: Word) -> None:
    """Subtracts three words from the number that continues from `at` to `end`."""
    if at >= end:
        return
    before = load(slab, at)
    store(slab, at, (before - w0) & MASK)
    borrow = ONE if before < w0 else ZERO
    at += 1
    while at < end and (w1 | w2 | borrow) != ZERO:
        before = load(slab, at)
        part = (before - borrow) & MASK
        borrow = ONE if before < borrow else ZERO
        total = (part - w1) & MASK
        borrow = borrow + (ONE if part < w1 else ZERO)
        store(slab, at, total)
        w1, w2 = w2, ZERO
        at += 1
