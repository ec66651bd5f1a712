"""Arrays as bare addresses in compiled code, so that a call passes words and counts no references. Pure.

Handing an array from one compiled function to the next costs reference counting and several times the compile time.
Behind the door the kernel sees pointers: `place(array)` outside, `words_at(address)` inside. With NUMBA_DISABLE_JIT=1
both are the identity on the array. The caller keeps the array alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing import signature
from numba.extending import lower_builtin, type_callable
from numpy.typing import NDArray

from headrace.core.kernel.words import Bytes, Slab, load, store

Codes = NDArray[np.int32]
Reals = NDArray[np.float64]
Flat = TypeVar("Flat", Slab, Bytes, Codes, Reals)


def place(array: Flat) -> int | Flat:
    """What the door takes for a flat, contiguous array. A microsecond; keep it where the array lives on."""
    return array if numba.config.DISABLE_JIT else int(array.ctypes.data)  # type: ignore[attr-defined]  # set by numba


def frame(*words: int | Slab | Bytes | Codes | Reals) -> Slab:
    """Numbers, and what `place` gave, as the one argument of a door: hand on `place` of it, and keep it alive."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # set by numba
        return cast(Slab, words)
    return np.array(words, np.int64)


def words_at(address: int | Slab) -> Slab:
    """The int64 words at what `place` gave for them."""
    return cast(Slab, address)


def octets_at(address: int | Bytes) -> Bytes:
    """The bytes at what `place` gave for them."""
    return cast(Bytes, address)


def codes_at(address: int | Codes) -> Codes:
    """The int32 codes at what `place` gave for them."""
    return cast(Codes, address)


def reals_at(address: int | Reals) -> Reals:
    """The doubles at what `place` gave for them."""
    return cast(Reals, address)


def words_from(words: Slab, at: int) -> Slab:
    """The words from a place on, as words of their own; not to leave the function that asks for them."""
    return words[at:]


def reals_from(reals: Reals, at: int) -> Reals:
    """The same of doubles."""
    return reals[at:]


def _declare(function: Callable[..., object], item: types.Type) -> None:
    """In compiled code the function makes an integer a pointer."""
    type_callable(function)(lambda _context: lambda _address: signature(types.CPointer(item), types.int64))
    there = ir.DoubleType() if item is types.float64 else ir.IntType(item.bitwidth)

    def emit(context: object, builder: ir.IRBuilder, typed: object, args: list[ir.Value]) -> ir.Value:
        return builder.inttoptr(args[0], there.as_pointer())

    lower_builtin(function, types.int64)(emit)


_declare(words_at, types.int64)
_declare(octets_at, types.uint8)
_declare(codes_at, types.int32)
_declare(reals_at, types.float64)


@lower_builtin(load, types.CPointer, types.intp)
def _emit_load(_context: object, builder: ir.IRBuilder, _typed: object, args: list[ir.Value]) -> ir.Value:
    return builder.load(builder.gep(args[0], [args[1]]))


@lower_builtin(store, types.CPointer, types.intp, types.uint64)
def _emit_store(_context: object, builder: ir.IRBuilder, _typed: object, args: list[ir.Value]) -> ir.Value:
    builder.store(args[2], builder.gep(args[0], [args[1]]))
    return ir.Constant(ir.IntType(8).as_pointer(), None)


for _from in (words_from, reals_from):
    type_callable(_from)(lambda _context: lambda flat, _at: signature(flat, flat, types.intp))


@lower_builtin(words_from, types.CPointer, types.intp)
@lower_builtin(reals_from, types.CPointer, types.intp)
def _emit_from(_context: object, builder: ir.IRBuilder, _typed: object, args: list[ir.Value]) -> ir.Value:
    return builder.gep(args[0], [args[1]])


def expect_words(words: Slab, at: int) -> None:
    """The processor begins to fetch what will be written there soon. A hint: any place will do."""


def expect_octets(octets: Bytes, at: int) -> None:
    """The same of bytes."""


def _emit_expect(_context: object, builder: ir.IRBuilder, _typed: object, args: list[ir.Value]) -> ir.Value:
    octet, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [octet, flag, flag, flag])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [octet], kind)
    place = builder.bitcast(builder.gep(args[0], [args[1]]), octet)
    builder.call(prefetch, [place, flag(1), flag(3), flag(1)])  # to be written; kept close; data
    return ir.Constant(octet, None)


for _expect in (expect_words, expect_octets):
    type_callable(_expect)(lambda _context: lambda pointer, _at: signature(types.void, pointer, types.intp))
    lower_builtin(_expect, types.CPointer, types.intp)(_emit_expect)

NO_WORDS = np.zeros(1, np.int64)
NO_OCTETS = np.zeros(1, np.uint8)
