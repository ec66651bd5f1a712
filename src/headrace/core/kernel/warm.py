"""Compiles everything that is compiled, once: what `headrace warm` does at install or image time."""

from __future__ import annotations

import numpy as np

from headrace.core.aggregate import Function
from headrace.core.kernel.compiling import direct
from headrace.core.kernel.program import Column, ColumnKind, Flag, Items, Output, Span, build
from headrace.core.kernel.shap import contribute
from headrace.core.kernel.state import KeyedState, replay


def warm_up() -> None:
    """One row through both doors, and the door of contributions; a second or two from the cache, else as long as
    compiling takes."""
    direct(contribute)
    program = build((Column(kind=ColumnKind.INT, bits=8, always=True),), (Span(width=1),), (_COUNT,))
    zero = np.zeros(1, np.int64)
    items = Items(
        key=np.zeros(1, np.int32),
        flags=np.full(1, int(Flag.INSERT | Flag.QUERY), np.uint8),
        time=zero,
        order=zero,
        seq=zero,
        valid=zero,
        values=np.zeros((program.value_rows, 1), np.int64),
        out=zero,
    )
    replay(program, items, keys=1, outs=1)
    state = KeyedState(program)
    state.insert(state.key(), 0, 0, 0, 1, (0,))


_COUNT = Output(function=Function.COUNT, span=0)
