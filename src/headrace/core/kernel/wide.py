"""Exact sums in 64 to 256 bits, and their correctly rounded means and variances (SEMANTICS 3.2 to 3.4, 6). Pure.

The one idea: a sum is an integer multiple of 2**unit, kept in a few words of the kernel's slab, so that adding,
subtracting and the difference of two prefixes are exact and only a published value is rounded, once. Integers and
decimals have unit 0; floats a negative unit, chosen when the definition is loaded; what does not fit it goes to
`accumulate`.

A number is `slab[at : at + words]`, little-endian two's complement, words 1, 2 or 4. Arithmetic is modular: that
nothing wraps is proven when the definition is loaded, or asked of `fits_float`.
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

# round_variance has two sides: count * Q and S * S, brought to the finer of their units. With |value| < 2**255 units of
# the sum and 2**31 values both stay below 2**576 units, whichever is shifted, as S * S <= count * Q of the same values.
_SIDE_WORDS = 10
VARIANCE_SCRATCH_WORDS = 2 * _SIDE_WORDS


@compiled
def add(slab: Slab, into: int, a: int, b: int, words: int) -> None:
    """into = a + b; `into` may be a or b."""
    _add_numbers(slab, into, a, b, words, ZERO, ZERO)


@compiled
def add_to_each(slab: Slab, first: int, step: int, count: int, addend: int, words: int) -> None:
    """The number at `addend` added to `count` numbers that stand `step` words apart and not over it."""
    b0 = load(slab, addend)
    b1 = load(slab, addend + 1) if words > 1 else ZERO
    b2 = load(slab, addend + 2) if words > 2 else ZERO
    b3 = load(slab, addend + 3) if words > 2 else ZERO
    for i in range(count):
        at = first + i * step
        total, carry = _add_carry(load(slab, at), b0, ZERO)
        store(slab, at, total)
        if words > 1:
            total, carry = _add_carry(load(slab, at + 1), b1, carry)
            store(slab, at + 1, total)
        if words > 2:
            total, carry = _add_carry(load(slab, at + 2), b2, carry)
            store(slab, at + 2, total)
            total, carry = _add_carry(load(slab, at + 3), b3, carry)
            store(slab, at + 3, total)


@compiled
def subtract(slab: Slab, into: int, a: int, b: int, words: int) -> None:
    """into = a - b; `into` may be a or b."""
    _add_numbers(slab, into, a, b, words, MASK, ONE)


@compiled
def add_value(slab: Slab, at: int, words: int, value: int) -> None:
    """Adds an int64, in units."""
    _add_words(slab, at, words, _sign(value), _magnitude(value), ZERO, ZERO, ZERO)


@compiled
def subtract_value(slab: Slab, at: int, words: int, value: int) -> None:
    """Subtracts an int64, in units."""
    _add_words(slab, at, words, _sign(value) ^ MASK, _magnitude(value), ZERO, ZERO, ZERO)


@compiled
def add_square(slab: Slab, at: int, words: int, value: int) -> None:
    """Adds the square of an int64; words at least 2."""
    size = _magnitude(value)
    _add_words(slab, at, words, ZERO, (size * size) & MASK, high_product(size, size), ZERO, ZERO)


@compiled
def subtract_square(slab: Slab, at: int, words: int, value: int) -> None:
    """Subtracts the square of an int64; words at least 2."""
    size = _magnitude(value)
    _add_words(slab, at, words, MASK, (size * size) & MASK, high_product(size, size), ZERO, ZERO)


@compiled
def fits_float(x: float, words: int, unit: int) -> bool:
    """Whether x is an integer number of units, fewer than 2**(64 * words - 1 - EVENTS_BITS); no for NaN."""
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
    _add_scaled(slab, at, words, MASK if x < 0.0 else ZERO, size, ZERO, exponent - int(unit))


@compiled
def subtract_float(slab: Slab, at: int, words: int, unit: int, x: float) -> None:
    """Subtracts a double that fits_float."""
    size, exponent = split_float(x)
    _add_scaled(slab, at, words, ZERO if x < 0.0 else MASK, size, ZERO, exponent - int(unit))


@compiled
def add_float_square(slab: Slab, at: int, words: int, unit: int, x: float) -> None:
    """Adds the exact square of a double that fits_float_square."""
    size, exponent = split_float(x)
    low = (size * size) & MASK
    _add_scaled(slab, at, words, ZERO, low, high_product(size, size), 2 * exponent - int(unit))


@compiled
def subtract_float_square(slab: Slab, at: int, words: int, unit: int, x: float) -> None:
    """Subtracts the exact square of a double that fits_float_square."""
    size, exponent = split_float(x)
    low = (size * size) & MASK
    _add_scaled(slab, at, words, MASK, low, high_product(size, size), 2 * exponent - int(unit))


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
    sign, w3, w2, w1, w0 = _top_words(slab, at, words)
    unit_of_top = shift - 256 + 64 * int(words)
    return round_quotient(sign, w3, w2, w1, w0, ZERO, unit_of_top, to_word(divisor), to_word(divisor2), ONE)


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
    unit = int(unit_square) - 128
    valid, w3, w2 = _small_numerator(slab, sum_at, sum_words, square_at, square_words, n)
    w1, w0, sticky = ZERO, ZERO, ZERO
    shift = int(unit_square) - 2 * int(unit_sum)
    if not valid or shift != 0:
        if not _subtract_squares(slab, sum_at, sum_words, square_at, square_words, n, shift, scratch, scratch_at):
            return np.nan
        w3, w2, w1, w0, sticky, top = _top_of_side(scratch, scratch_at)
        unit = min(int(unit_square), 2 * int(unit_sum)) + 64 * (top - 3)
    return round_quotient(ZERO, w3, w2, w1, w0, sticky, unit, divisor, scale, scale)


@compiled
def _small_numerator(
    slab: Slab, sum_at: int, sum_words: int, square_at: int, square_words: int, n: Word
) -> tuple[bool, Word, Word]:
    """n * Q - S * S of equal units as two words, high first, where S is an int64 and n * Q below 2**128; else False."""
    small, total = to_int64_if_fits(slab, sum_at, sum_words)
    if not small or (square_words > 2 and (slab[square_at + 2] | slab[square_at + 3]) != 0):
        return False, ZERO, ZERO
    low = load(slab, square_at)
    high = load(slab, square_at + 1) if square_words > 1 else ZERO
    middle = high_product(n, low)
    above = (high * n + middle) & MASK
    fits = high_product(n, high) == ZERO and above >= middle
    low = (low * n) & MASK
    size = _magnitude(total)
    square_low = (size * size) & MASK
    square_high = high_product(size, size)
    fits = fits and (above > square_high or (above == square_high and low >= square_low))
    above = (above - square_high) & MASK
    above = (above - ONE) & MASK if low < square_low else above
    return fits, above, (low - square_low) & MASK


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
    flip = _sign(slab[sum_at + sum_words - 1])
    carry = flip & ONE
    length = 0
    for i in range(sum_words):  # |S|, for a moment on the first side
        word, carry = _add_carry(load(slab, sum_at + i) ^ flip, ZERO, carry)
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
    carry = ONE
    for i in range(_SIDE_WORDS):
        total, carry = _add_carry(load(scratch, at + i), load(scratch, other + i) ^ MASK, carry)
        store(scratch, at + i, total)
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
def _top_of_side(scratch: Slab, at: int) -> tuple[Word, Word, Word, Word, Word, int]:
    """The first side's four words from the highest that is not zero, whether any below is not, and its index."""
    top = _SIDE_WORDS - 1
    while top > 3 and scratch[at + top] == 0:
        top -= 1
    sticky = ZERO
    for i in range(top - 3):
        sticky = sticky | load(scratch, at + i)
    i = at + top
    return load(scratch, i), load(scratch, i - 1), load(scratch, i - 2), load(scratch, i - 3), sticky, top


@compiled
def _sign(value: int) -> Word:
    """All bits where the value is negative, else none."""
    return MASK if value < 0 else ZERO


@compiled
def _magnitude(value: int) -> Word:
    return (ZERO - to_word(value)) & MASK if value < 0 else to_word(value)


@compiled
def _top_words(slab: Slab, at: int, words: int) -> tuple[Word, Word, Word, Word, Word]:
    """Sign (all bits or none) and magnitude, the magnitude * 2**(256 - 64 * words) as four words, highest first."""
    w3 = load(slab, at + words - 1)
    w2 = load(slab, at + words - 2) if words > 1 else ZERO
    w1 = load(slab, at + 1) if words > 2 else ZERO
    w0 = load(slab, at) if words > 2 else ZERO
    if w3 < TOP_BIT:
        return ZERO, w3, w2, w1, w0
    # The words below the number are zeros, and the negation of a zero hands its carry up.
    w0 = (ZERO - w0) & MASK
    w1 = (w1 ^ MASK) if w0 != ZERO else (ZERO - w1) & MASK
    w2 = (w2 ^ MASK) if (w1 | w0) != ZERO else (ZERO - w2) & MASK
    w3 = (w3 ^ MASK) if (w2 | w1 | w0) != ZERO else (ZERO - w3) & MASK
    return MASK, w3, w2, w1, w0


@compiled
def _add_scaled(slab: Slab, at: int, words: int, flip: Word, low: Word, high: Word, shift: int) -> None:
    """Adds, or with a flip of all bits subtracts, the 128-bit number high low times 2**shift, which is an integer."""
    if (low | high) == ZERO:
        return  # a zero has the least exponent, whose shift is no shift of a word
    if shift < 0:
        if shift <= -64:
            low, high = high, ZERO
            shift += 64
        low = ((low >> -shift) | ((high << 1) << (63 + shift))) & MASK if shift != 0 else low
        high = high >> -shift
        shift = 0
    bits = shift % 64
    w0 = (low << bits) & MASK
    w1 = ((high << bits) | ((low >> 1) >> (63 - bits))) & MASK
    w2 = (high >> 1) >> (63 - bits)
    w3 = ZERO
    for _ in range(shift // 64):
        w0, w1, w2, w3 = ZERO, w0, w1, w2
    _add_words(slab, at, words, flip, w0, w1, w2, w3)


@compiled
def _add_words(slab: Slab, at: int, words: int, flip: Word, w0: Word, w1: Word, w2: Word, w3: Word) -> None:
    """Adds, or with a flip of all bits subtracts, the number w3 w2 w1 w0; words past `words` are dropped.

    No branch depends on the value: signs come at random, and a branch guessed wrong costs more than the addition.
    """
    total, carry = _add_carry(load(slab, at), w0 ^ flip, flip & ONE)
    store(slab, at, total)
    if words > 1:
        total, carry = _add_carry(load(slab, at + 1), w1 ^ flip, carry)
        store(slab, at + 1, total)
    if words > 2:
        total, carry = _add_carry(load(slab, at + 2), w2 ^ flip, carry)
        store(slab, at + 2, total)
        total, carry = _add_carry(load(slab, at + 3), w3 ^ flip, carry)
        store(slab, at + 3, total)


@compiled
def _add_numbers(slab: Slab, into: int, a: int, b: int, words: int, flip: Word, carry: Word) -> None:
    """into = a + (b ^ flip) + carry; a flip of all bits and a carry of one subtract."""
    total, carry = _add_carry(load(slab, a), load(slab, b) ^ flip, carry)
    store(slab, into, total)
    if words > 1:
        total, carry = _add_carry(load(slab, a + 1), load(slab, b + 1) ^ flip, carry)
        store(slab, into + 1, total)
    if words > 2:
        total, carry = _add_carry(load(slab, a + 2), load(slab, b + 2) ^ flip, carry)
        store(slab, into + 2, total)
        total, carry = _add_carry(load(slab, a + 3), load(slab, b + 3) ^ flip, carry)
        store(slab, into + 3, total)


@compiled
def _add_carry(a: Word, b: Word, carry: Word) -> tuple[Word, Word]:
    """The sum's low word, and the carry, 0 or 1, out of it."""
    part = (a + b) & MASK
    total = (part + carry) & MASK
    return total, ONE if part < a or total < part else ZERO
