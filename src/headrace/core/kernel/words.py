"""64-bit words, the digits of exact integers, alike in compiled code and in plain Python. Pure.

The one idea: every operation is written once. In compiled code a word is a uint64 and wraps by itself; with
NUMBA_DISABLE_JIT=1 it is a Python int in [0, 2**64), and `& MASK`, which compiles to nothing, makes it wrap. So a word is
never mixed with an int64 (numba would turn the pair into a float64): constants are words, and the few operations that
differ (reading, writing, the high half of a product, the bits of a double) have a plain body here and a compiled one by
`overload`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

Word = int  # in compiled code a uint64
Slab = NDArray[np.int64]

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """The function compiled at its first call and kept in numba's cache; plain Python with NUMBA_DISABLE_JIT=1.

    IEEE arithmetic as written: no fast math, no contraction, no exception at a division by zero.
    """
    return cast(_Function, numba.njit(cache=True, error_model="numpy")(function))


# A word of compiled code must be frozen as a uint64, one of plain Python must not overflow.
_word: Callable[[int], int] = int if numba.config.DISABLE_JIT else np.uint64

ZERO = _word(0)
ONE = _word(1)
MASK = _word(2**64 - 1)
LOW_HALF = _word(2**32 - 1)
TOP_BIT = _word(2**63)
_INFINITY_BITS = _word(0x7FF0 << 48)
_FRACTION = _word(2**52 - 1)
_HIDDEN_BIT = _word(2**52)
_EXPONENT = _word(0x7FF)


def to_word(value: int) -> Word:
    """The two's complement bits of an int64."""
    return int(value) & 0xFFFF_FFFF_FFFF_FFFF


def to_int64(word: Word) -> int:
    """The int64 of these bits."""
    return word - 2**64 if word >= 2**63 else word


def load(slab: Slab, at: int) -> Word:
    """The word at a place of a slab."""
    return int(slab[at]) & 0xFFFF_FFFF_FFFF_FFFF


def store(slab: Slab, at: int, word: Word) -> None:
    """Writes a word to a place of a slab."""
    slab[at] = word - 2**64 if word >= 2**63 else word


def high_product(a: Word, b: Word) -> Word:
    """The upper 64 bits of the 128-bit product."""
    return (a * b) >> 64


def leading_zeros(word: Word) -> int:
    """The number of zero bits above the highest one; 64 for zero."""
    return 64 - word.bit_length()


def float_bits(x: float) -> Word:
    """The bits of a double."""
    return int(struct.unpack("<Q", struct.pack("<d", x))[0])


def bits_float(bits: Word) -> float:
    """The double of these bits."""
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


@compiled
def split_float(x: float) -> tuple[Word, int]:
    """A finite double as (m, e): |x| = m * 2**e, m < 2**53, e >= -1074. e is 972 or more for NaN and infinity."""
    bits = float_bits(x)
    exponent = to_int64((bits >> 52) & _EXPONENT)
    if exponent == 0:
        return bits & _FRACTION, -1074
    return (bits & _FRACTION) | _HIDDEN_BIT, exponent - 1075


@compiled
def join_float(negative: bool, word: Word, exponent: int, sticky: bool) -> float:
    """The double nearest, ties to even, to word * 2**exponent, a little more where `sticky`; a word of zero is zero.

    sticky: something in (0, 1) * 2**exponent is missing; then word must hold at least 55 significant bits, so that it
    can only break ties. Beyond the range infinity; below it a subnormal or zero; never -0.0.
    """
    if word == ZERO:
        return 0.0
    up = leading_zeros(word)
    top = (word << up) & MASK
    biased = exponent - up + 1086  # the exponent field, were the result normal: 63 bits below the top, bias 1023
    if biased >= 2047:
        return -np.inf if negative else np.inf
    drop = 11 if biased >= 1 else 12 - biased
    if drop > 64:
        return 0.0  # below half of the smallest subnormal
    kept = ZERO if drop == 64 else top >> drop
    half = ONE << (drop - 1)
    rest = top & (half | (half - ONE))
    if rest > half or (rest == half and (sticky or (kept & ONE) != ZERO)):
        kept = kept + ONE
    if biased >= 1:
        kept = kept + (to_word(biased - 1) << 52)  # the hidden bit counts as one in the exponent field, a carry as two
    if negative and kept != ZERO:
        kept = kept | TOP_BIT
    return bits_float(kept)


@compiled
def divide(high: Word, low: Word, divisor: Word) -> tuple[Word, Word]:
    """Quotient and remainder of a 128-bit number by a divisor with its top bit set and above `high`.

    Two digits of 32 bits (Knuth, The Art of Computer Programming 4.3.1, algorithm D): 128-bit division is no instruction
    that every machine has.
    """
    divisor_high = divisor >> 32
    divisor_low = divisor & LOW_HALF
    quotient_high, rest = _divide_digit(high, low >> 32, divisor_high, divisor_low, divisor)
    quotient_low, rest = _divide_digit(rest, low & LOW_HALF, divisor_high, divisor_low, divisor)
    return ((quotient_high << 32) + quotient_low) & MASK, rest


@compiled
def _divide_digit(high: Word, digit: Word, divisor_high: Word, divisor_low: Word, divisor: Word) -> tuple[Word, Word]:
    quotient = high // divisor_high
    rest = high - quotient * divisor_high
    while quotient > LOW_HALF or quotient * divisor_low > ((rest << 32) | digit):
        quotient = quotient - ONE
        rest = rest + divisor_high
        if rest > LOW_HALF:
            break
    return quotient, (((high << 32) | digit) - quotient * divisor) & MASK


@compiled
def round_quotient(
    negative: bool,
    w3: Word,
    w2: Word,
    w1: Word,
    w0: Word,
    sticky: bool,
    unit: int,
    divisor: Word,
    divisor2: Word,
    divisor3: Word,
) -> float:
    """The double nearest, ties to even, to W * 2**unit / (divisor * divisor2 * divisor3); overflow gives infinity.

    W: the 256-bit number w3 w2 w1 w0, and a little more where `sticky`, which needs w3 != 0. Divisors: at least 1.
    The quotient is taken as floor(floor(W / a) / b), which equals floor(W / (a * b)), and is exact only if every
    remainder is zero. 62 or more bits are kept of it, so what is left only breaks ties.
    """
    for _ in range(3):
        if w3 != ZERO:
            break
        w3, w2, w1, w0 = w2, w1, w0, ZERO
        unit -= 64
    if w3 == ZERO:
        return 0.0
    up = leading_zeros(w3)
    w3 = ((w3 << up) | ((w2 >> 1) >> (63 - up))) & MASK
    w2 = ((w2 << up) | ((w1 >> 1) >> (63 - up))) & MASK
    w1 = ((w1 << up) | ((w0 >> 1) >> (63 - up))) & MASK
    w0 = (w0 << up) & MASK
    unit += 192 - up
    if divisor2 != ONE and high_product(divisor, divisor2) == ZERO:
        divisor, divisor2 = (divisor * divisor2) & MASK, ONE
    if divisor3 != ONE and high_product(divisor, divisor3) == ZERO:
        divisor, divisor3 = (divisor * divisor3) & MASK, ONE
    # W lies in [2**255, 2**256) and `unit` is the exponent of w3. Each division takes the top words, halved, so that
    # the first is below the divisor with its top bit set, and leaves a quotient of one word less.
    if divisor3 != ONE:
        up = leading_zeros(divisor3)
        scaled = (divisor3 << up) & MASK
        sticky = sticky or (w0 & ONE) != ZERO
        q2, rest = divide(w3 >> 1, ((w3 << 63) | (w2 >> 1)) & MASK, scaled)
        q1, rest = divide(rest, ((w2 << 63) | (w1 >> 1)) & MASK, scaled)
        q0, rest = divide(rest, ((w1 << 63) | (w0 >> 1)) & MASK, scaled)
        sticky = sticky or rest != ZERO
        w3, w2, w1, w0 = q2, q1, q0, ZERO
        unit += up + 1 - 64
    if divisor2 != ONE:
        up = leading_zeros(divisor2)
        scaled = (divisor2 << up) & MASK
        sticky = sticky or (w1 & ONE) != ZERO or w0 != ZERO
        q1, rest = divide(w3 >> 1, ((w3 << 63) | (w2 >> 1)) & MASK, scaled)
        q0, rest = divide(rest, ((w2 << 63) | (w1 >> 1)) & MASK, scaled)
        sticky = sticky or rest != ZERO
        w3, w2, w1, w0 = q1, q0, ZERO, ZERO
        unit += up + 1 - 64
    if divisor == ONE:
        return join_float(negative, w3, unit, sticky or (w2 | w1 | w0) != ZERO)
    up = leading_zeros(divisor)
    sticky = sticky or (w2 & ONE) != ZERO or (w1 | w0) != ZERO
    quotient, rest = divide(w3 >> 1, ((w3 << 63) | (w2 >> 1)) & MASK, (divisor << up) & MASK)
    return join_float(negative, quotient, unit + up + 1 - 64, sticky or rest != ZERO)


@intrinsic  # type: ignore[untyped-decorator]
def _high_product(_context: object, a: object, b: object) -> object:
    def build(_context: object, builder: ir.IRBuilder, _signature: object, args: list[ir.Value]) -> ir.Value:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def _leading_zeros(_context: object, word: object) -> object:
    def build(_context: object, builder: ir.IRBuilder, _signature: object, args: list[ir.Value]) -> ir.Value:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def _float_bits(_context: object, x: object) -> object:
    def build(_context: object, builder: ir.IRBuilder, _signature: object, args: list[ir.Value]) -> ir.Value:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), build


@intrinsic  # type: ignore[untyped-decorator]
def _bits_float(_context: object, bits: object) -> object:
    def build(_context: object, builder: ir.IRBuilder, _signature: object, args: list[ir.Value]) -> ir.Value:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), build


_Body = Callable[..., object]


@overload(to_word, strict=False)  # type: ignore[untyped-decorator]
def _to_word_compiled(value: object) -> _Body:
    return lambda value: np.uint64(value)


@overload(to_int64, strict=False)  # type: ignore[untyped-decorator]
def _to_int64_compiled(word: object) -> _Body:
    return lambda word: np.int64(word)


@overload(load, strict=False)  # type: ignore[untyped-decorator]
def _load_compiled(slab: object, at: object) -> _Body:
    return lambda slab, at: np.uint64(slab[at])


@overload(store, strict=False)  # type: ignore[untyped-decorator]
def _store_compiled(slab: object, at: object, word: object) -> _Body:
    def body(slab, at, word):  # type: ignore[no-untyped-def]
        slab[at] = np.int64(word)

    return body


@overload(high_product, strict=False)  # type: ignore[untyped-decorator]
def _high_product_compiled(a: object, b: object) -> _Body:
    return lambda a, b: _high_product(a, b)


@overload(leading_zeros, strict=False)  # type: ignore[untyped-decorator]
def _leading_zeros_compiled(word: object) -> _Body:
    return lambda word: _leading_zeros(word)


@overload(float_bits, strict=False)  # type: ignore[untyped-decorator]
def _float_bits_compiled(x: object) -> _Body:
    return lambda x: _float_bits(x)


@overload(bits_float, strict=False)  # type: ignore[untyped-decorator]
def _bits_float_compiled(bits: object) -> _Body:
    return lambda bits: _bits_float(bits)
