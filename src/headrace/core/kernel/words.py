"""64-bit words, the digits of exact integers, alike in compiled code and in plain Python. Pure.

The one idea: every operation is written once. In compiled code a word is a uint64 and wraps by itself; with
NUMBA_DISABLE_JIT=1 it is a Python int in [0, 2**64), and `& MASK`, which compiles to nothing, makes it wrap. So a word
is never mixed with an int64 (numba would turn the pair into a float64): constants are words, and the few operations
that differ (reading, writing, the high half of a product, the bits of a double) have a plain body here and their
instructions below.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_item_pointer
from numba.core.typing import templates
from numba.core.typing.templates import signature
from numba.extending import lower_builtin, type_callable
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from headrace.core.kernel.compiling import PLAIN, apart, compiled, door

__all__ = ["PLAIN", "apart", "compiled", "door"]

Word = int  # in compiled code a uint64
Slab = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_Function = TypeVar("_Function", bound=Callable[..., object])

# Parts of numba that have no types of their own.
_signature = cast(Callable[..., object], signature)
_make_array = cast(Callable[[object], Callable[..., object]], make_array)
_item_pointer = cast(Callable[..., ir.Value], get_item_pointer)
_emits = cast(Callable[..., Callable[[_Function], _Function]], lower_builtin)


def word(value: int) -> Word:
    """A constant: frozen as a uint64 in compiled code, and one that cannot overflow in plain Python."""
    return value if PLAIN else cast(Word, np.uint64(value))


ZERO = word(0)
ONE = word(1)
MASK = word(2**64 - 1)
LOW_HALF = word(2**32 - 1)
TOP_BIT = word(2**63)
_FRACTION = word(2**52 - 1)
_HIDDEN_BIT = word(2**52)
_EXPONENT = word(0x7FF)


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
def join_float(sign: Word, word: Word, exponent: int, sticky: Word) -> float:
    """The double nearest, ties to even, to word * 2**exponent, negative where `sign` is not zero.

    sticky: where not zero, something in (0, 1) * 2**exponent is missing from the word, which must then hold at least 55
    significant bits, so that it can only break ties. Beyond the range infinity; below it a subnormal or zero; never
    -0.0.
    """
    if word == ZERO:
        return 0.0
    up = leading_zeros(word)
    top = (word << up) & MASK
    biased = exponent - up + 1086  # the exponent field, were the result normal: 63 bits below the top, bias 1023
    if biased >= 2047:
        return -np.inf if sign != ZERO else np.inf
    drop = 11 if biased >= 1 else 12 - biased
    if drop > 64:
        return 0.0  # below half of the smallest subnormal
    kept = ZERO if drop == 64 else top >> drop
    half = ONE << (drop - 1)
    rest = top & (half | (half - ONE))
    if rest > half or (rest == half and (sticky | (kept & ONE)) != ZERO):
        kept = kept + ONE
    if biased >= 1:
        kept = kept + (to_word(biased - 1) << 52)  # the hidden bit counts as one in the exponent field, a carry as two
    if sign != ZERO and kept != ZERO:
        kept = kept | TOP_BIT
    return bits_float(kept)


@compiled
def divide(high: Word, low: Word, divisor: Word) -> tuple[Word, Word]:
    """Quotient and remainder of a 128-bit number by a divisor with its top bit set and above `high`.

    Two digits of 32 bits (Knuth, The Art of Computer Programming 4.3.1, algorithm D): not every machine can
    divide 128 bits.
    """
    divisor_high = divisor >> 32
    divisor_low = divisor & LOW_HALF
    quotient = ZERO
    for _ in range(2):
        digit = high // divisor_high
        rest = high - digit * divisor_high
        while digit > LOW_HALF or digit * divisor_low > ((rest << 32) | (low >> 32)):
            digit = digit - ONE
            rest = rest + divisor_high
            if rest > LOW_HALF:
                break
        high = (((high << 32) | (low >> 32)) - digit * divisor) & MASK
        low = (low << 32) & MASK
        quotient = ((quotient << 32) + digit) & MASK
    return quotient, high


@compiled
def round_quotient(
    sign: Word,
    w3: Word,
    w2: Word,
    w1: Word,
    w0: Word,
    sticky: Word,
    unit: int,
    divisor: Word,
    divisor2: Word,
    divisor3: Word,
) -> float:
    """The double nearest, ties to even, to W * 2**unit / (divisor * divisor2 * divisor3); overflow gives infinity.

    W: the 256-bit number w3 w2 w1 w0, and a little more where `sticky` is not zero, which needs w3 != 0.
    sign: not zero for negative. Divisors: at least 1.
    The quotient is taken as floor(floor(W / a) / b), which equals floor(W / (a * b)), and is exact only if every
    remainder is zero. 60 or more bits are kept of it, so what is left only breaks ties.
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
    if high_product(divisor, divisor2) == ZERO:
        divisor, divisor2 = (divisor * divisor2) & MASK, ONE
    if high_product(divisor, divisor3) == ZERO:
        divisor, divisor3 = (divisor * divisor3) & MASK, ONE
    if divisor2 == ONE:
        divisor2, divisor3 = divisor3, ONE
    # W lies in [2**255, 2**256) and `unit` is the exponent of w3. A division takes W halved, so that its first word is
    # below the divisor with its top bit set. The first leaves three exact words, a second two; what is below the exact
    # ones, and every remainder, is only known to be zero or not.
    while divisor2 != ONE:
        up = leading_zeros(divisor2)
        sticky = sticky | (w0 & ONE)
        rest = w3 >> 1
        w3, w2, w1 = _halved(w3, w2), _halved(w2, w1), _halved(w1, w0)
        for _ in range(3):
            quotient, rest = divide(rest, w3, (divisor2 << up) & MASK)
            w3, w2, w1 = w2, w1, quotient
        sticky = sticky | rest
        w0 = ZERO
        unit += up + 1 - 64
        divisor2, divisor3 = divisor3, ONE
    if divisor == ONE:
        return join_float(sign, w3, unit, sticky | w2 | w1 | w0)
    up = leading_zeros(divisor)
    quotient, rest = divide(w3 >> 1, _halved(w3, w2), (divisor << up) & MASK)
    return join_float(sign, quotient, unit + up + 1 - 64, sticky | rest | (w2 & ONE) | w1 | w0)


@compiled
def _halved(above: Word, word: Word) -> Word:
    """The word shifted down by one, with the lowest bit of the word above it."""
    return ((above << 63) | (word >> 1)) & MASK


# What the operations above are in compiled code: their types, and the instructions. Not `overload`, which would compile
# a function of its own for each, and the first call on a machine waits for all of them.

_Typer = Callable[..., object]


def _declare(function: Callable[..., object], typer: _Typer) -> None:
    type_callable(function)(lambda _context: typer)


_WORD = types.uint64
_declare(to_word, lambda _value: _signature(_WORD, types.int64))
_declare(to_int64, lambda _word: _signature(types.int64, _WORD))
_declare(load, lambda slab, _at: _signature(_WORD, slab, types.intp))
_declare(store, lambda slab, _at, _word: _signature(types.void, slab, types.intp, _WORD))
_declare(high_product, lambda _a, _b: _signature(_WORD, _WORD, _WORD))
_declare(leading_zeros, lambda _word: _signature(types.int64, _WORD))
_declare(float_bits, lambda _x: _signature(_WORD, types.float64))
_declare(bits_float, lambda _bits: _signature(types.float64, _WORD))


@_emits(to_word, types.int64)
@_emits(to_int64, types.uint64)
def _emit_same_bits(_context: object, _builder: ir.IRBuilder, _types: object, args: list[ir.Value]) -> ir.Value:
    return args[0]


@_emits(load, types.Array, types.intp)
def _emit_load(context: object, builder: ir.IRBuilder, typed: templates.Signature, args: list[ir.Value]) -> ir.Value:
    return builder.load(_place(context, builder, typed, args))


@_emits(store, types.Array, types.intp, types.uint64)
def _emit_store(context: object, builder: ir.IRBuilder, typed: templates.Signature, args: list[ir.Value]) -> ir.Value:
    builder.store(args[2], _place(context, builder, typed, args))
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _place(context: object, builder: ir.IRBuilder, typed: templates.Signature, args: list[ir.Value]) -> ir.Value:
    slab_type = typed.args[0]
    slab = _make_array(slab_type)(context, builder, args[0])
    return _item_pointer(context, builder, slab_type, slab, [args[1]], wraparound=False)


@_emits(high_product, types.uint64, types.uint64)
def _emit_high_product(_context: object, builder: ir.IRBuilder, _types: object, args: list[ir.Value]) -> ir.Value:
    wide = ir.IntType(128)
    product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
    return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))


@_emits(leading_zeros, types.uint64)
def _emit_leading_zeros(_context: object, builder: ir.IRBuilder, _types: object, args: list[ir.Value]) -> ir.Value:
    return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))


@_emits(float_bits, types.float64)
def _emit_float_bits(_context: object, builder: ir.IRBuilder, _types: object, args: list[ir.Value]) -> ir.Value:
    return builder.bitcast(args[0], ir.IntType(64))


@_emits(bits_float, types.uint64)
def _emit_bits_float(_context: object, builder: ir.IRBuilder, _types: object, args: list[ir.Value]) -> ir.Value:
    return builder.bitcast(args[0], ir.DoubleType())
