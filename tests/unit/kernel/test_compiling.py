"""The canary over numba's private parts: says what broke when numba changes, before anything else fails."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from headrace.core.kernel.compiling import PLAIN, compiled, door
from headrace.core.kernel.memory import place, words_at

pytestmark = pytest.mark.skipif(PLAIN, reason="the JIT is off: there is nothing to compile")


@compiled
def _twice(x: int) -> int:
    return x + x


@compiled
def _sum(words: np.ndarray, count: int) -> int:
    total = 0
    for i in range(count):
        total += _twice(words[i])
    return total


@door
def _opened(address: int, count: int) -> int:
    return _sum(words_at(address), count) + _twice(1) - _twice(1)


def test_a_door_reaches_what_is_behind_it() -> None:
    words = np.arange(5, dtype=np.int64)
    assert _opened(place(words), 5) == 20


def test_an_inner_function_is_compiled_once_whatever_constants_it_is_given() -> None:
    words = np.arange(5, dtype=np.int64)
    _opened(place(words), 5)
    assert len(_opened.nopython_signatures) == 1  # type: ignore[attr-defined]  # numba's dispatcher


def test_numba_is_the_version_whose_private_parts_were_read() -> None:
    assert numba.__version__.startswith("0.68."), "read core/kernel/compiling.py beside numba's compiler again"
