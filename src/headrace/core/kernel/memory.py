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

from headrace.core.kernel.words import Bytes, Slab, load, store

Flat = TypeVar("Flat", Slab, Bytes)


def place(array: Flat) -> int | Flat:
    """What the door takes for a flat, contiguous array. A microsecond; keep it where the array lives on."""
    return array if numba.config.DISABLE_JIT else int(array.ctypes.data)  # type: ignore[attr-defined]  # set by numba


def words_at(address: int | Slab) -> Slab:
    """The int64 words at what `place` gave for them."""
    return cast(Slab, address)


def octets_at(address: int | Bytes) -> Bytes:
    """The bytes at what `place` gave for them."""
    return cast(Bytes, address)


def _declare(function: Callable[..., object], item: types.Type) -> None:
    """In compiled code the function makes an integer a pointer."""
    type_callable(function)(lambda _context: lambda _address: signature(types.CPointer(item), types.int64))

    def emit(context: object, builder: ir.IRBuilder, typed: object, args: list[ir.Value]) -> ir.Value:
        return builder.inttoptr(args[0], ir.IntType(item.bitwidth).as_pointer())

    lower_builtin(function, types.int64)(emit)


_declare(words_at, types.int64)
_declare(octets_at, types.uint8)


@lower_builtin(load, types.CPointer, types.intp)
def _emit_load(_context: object, builder: ir.IRBuilder, _typed: object, args: list[ir.Value]) -> ir.Value:
    return builder.load(builder.gep(args[0], [args[1]]))


@lower_builtin(store, types.CPointer, types.intp, types.uint64)
def _emit_store(_context: object, builder: ir.IRBuilder, _typed: object, args: list[ir.Value]) -> ir.Value:
    builder.store(args[2], builder.gep(args[0], [args[1]]))
    return ir.Constant(ir.IntType(8).as_pointer(), None)


NO_WORDS = np.zeros(1, np.int64)
NO_OCTETS = np.zeros(1, np.uint8)
