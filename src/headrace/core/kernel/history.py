"""What an entry's column held at an instant, where facts changed it later (SEMANTICS 4.1, 4.2). Reads."""

from __future__ import annotations

from headrace.core.kernel.program import (
    C_ALWAYS,
    C_HISTORY,
    C_RAW,
    COLUMN_FIELDS,
    D_CAPACITY,
    D_OFFSET,
    P_COLUMN_TABLE,
    P_VALID,
)
from headrace.core.kernel.slab import N_FROM, N_NEXT, N_VALID, N_VALUE
from headrace.core.kernel.words import Slab, compiled


@compiled
def value_at(code: Slab, slab: Slab, entry: int, index: int, c: int, t: int) -> tuple[int, bool]:
    """(raw value, not null) of an entry's column as known at t."""
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    capacity = slab[entry + D_CAPACITY]
    place = slab[entry + D_OFFSET] + index
    if code[column + C_HISTORY] >= 0:
        node = slab[place + code[column + C_HISTORY] * capacity]
        while node != 0:
            if slab[node + N_FROM] <= t:
                return slab[node + N_VALUE], slab[node + N_VALID] != 0
            node = slab[node + N_NEXT]
    valid = code[column + C_ALWAYS] != 0 or ((slab[place + code[P_VALID] * capacity] >> c) & 1) != 0
    raw = slab[place + code[column + C_RAW] * capacity] if code[column + C_RAW] >= 0 else 0
    return raw, valid
