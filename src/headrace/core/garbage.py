"""Python's garbage collector, kept from looking in vain. Touches the interpreter's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MANY = 500


@contextmanager
def uncollected(count: int) -> Iterator[None]:
    """No garbage collection while many tuples are made at once, none of which can be garbage: they took 0.7 us each
    with it, 0.3 us without. count: how many; of few it makes no difference."""
    if count < _MANY or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
