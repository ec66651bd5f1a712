"""The compiled door: packed rows in, outputs out. Touches only the memory whose addresses it is given.

One function, so that everything behind it is compiled and optimised once a machine. A packed row is `width` words:
time, order, seq, valid, values, then its key's handle, its flags and its output row.
"""

from __future__ import annotations

from typing import Final

from headrace.core.kernel.answer import answer
from headrace.core.kernel.change import update
from headrace.core.kernel.chunks import insert
from headrace.core.kernel.memory import Codes, codes_at, expect_octets, expect_words, octets_at, words_at
from headrace.core.kernel.program import P_OUTPUTS, P_SLOTS, Flag
from headrace.core.kernel.slab import (
    CHUNK,
    R_ORDER,
    R_SEQ,
    R_TIME,
    R_VALID,
    R_VALUES,
    S_FIRST_CAPACITY,
    S_SCRATCH,
    S_USED,
    clear,
    new_key,
    room,
)
from headrace.core.kernel.words import Bytes, Slab, apart, door

ROW_TAIL: Final = 3
HANDLE, FLAGS, OUT = 3, 2, 1  # counted back from a row's end
_INSERT, _QUERY, _OVERLAY, _UPDATE = int(Flag.INSERT), int(Flag.QUERY), int(Flag.OVERLAY), int(Flag.UPDATE)
_CHANGE = _INSERT | _UPDATE
_AHEAD: Final = 6  # rows: about as long as memory takes


@apart
def _rows(
    code: Slab, slab: Slab, packed: Slab, width: int, first: int, last: int, handle: int, out: Slab, reasons: Bytes
) -> int:
    """Rows [first, last) in order; returns the first that found no room. handle: their key; -1: each row says."""
    slots = code[P_SLOTS]
    outputs = code[P_OUTPUTS]
    for i in range(first, last):
        at = i * width
        key = handle if handle >= 0 else packed[at + width - HANDLE]
        flags = packed[at + width - FLAGS]
        if i + _AHEAD < last:  # outputs lie in the order of the questions, so each is far from the one before
            next_row = packed[at + _AHEAD * width + width - OUT]
            expect_words(out, next_row * slots)
            expect_octets(reasons, next_row * outputs)
        if flags & _QUERY:
            row = packed[at + width - OUT]
            overlay = flags & _OVERLAY != 0
            if not answer(code, slab, key, packed, at, overlay, out, row * slots, reasons, row * outputs):
                return i
        if flags & _CHANGE:
            if not room(code, slab, key):
                return i
            if flags & _INSERT:
                insert(code, slab, key, packed, at)
            else:
                update(code, slab, key, packed[at + R_TIME], packed[at + R_SEQ], packed, at + R_VALUES)
    return last


@door
def work(
    code_at: int | Slab,
    slab_at: int | Slab,
    capacity: int,
    packed_at: int | Slab,
    starts_at: int | Slab,
    width: int,
    first: int,
    last: int,
    out_at: int | Slab,
    reasons_at: int | Bytes,
) -> int:
    """Three jobs behind one door, so that there is one compilation.

    capacity > 0: clear a slab of so many words, then keys [first, last) with rows starts[key] to starts[key + 1], every
    key from nothing; returns the first key that did not fit, or `last`. capacity 0: rows [first, last) on a living
    slab; returns the first that found no room, or `last`. width 0: a new key's handle, -1 without room.
    """
    code = words_at(code_at)
    slab = words_at(slab_at)
    packed = words_at(packed_at)
    starts = words_at(starts_at)
    out = words_at(out_at)
    reasons = octets_at(reasons_at)
    if width == 0:
        return new_key(slab)
    if capacity == 0:
        return _rows(code, slab, packed, width, first, last, -1, out, reasons)
    clear(code, slab, capacity)
    empty = slab[S_USED]
    for key in range(first, last):
        slab[S_USED] = empty
        for i in range(S_FIRST_CAPACITY + 1, S_SCRATCH):
            slab[i] = 0
        events = starts[key + 1] - starts[key]
        chunk = 8
        while chunk < events and chunk < CHUNK:
            chunk *= 2
        slab[S_FIRST_CAPACITY] = chunk
        handle = new_key(slab)
        if _rows(code, slab, packed, width, starts[key], starts[key + 1], handle, out, reasons) < starts[key + 1]:
            return key
    return last


@door
def pack(
    keys_at: int | Codes,
    flags_at: int | Bytes,
    time_at: int | Slab,
    order_at: int | Slab,
    seq_at: int | Slab,
    valid_at: int | Slab,
    values_at: int | Slab,
    out_at: int | Slab,
    cursor_at: int | Slab,
    packed_at: int | Slab,
    width: int,
    rows: int,
    count: int,
) -> None:
    """Rows grouped by key, each in one run of words, in their order. keys: int32. values: `rows` words of each, one
    after another. cursor: where each key's rows begin; moved on."""
    _pack(
        codes_at(keys_at),
        octets_at(flags_at),
        words_at(time_at),
        words_at(order_at),
        words_at(seq_at),
        words_at(valid_at),
        words_at(values_at),
        words_at(out_at),
        words_at(cursor_at),
        words_at(packed_at),
        width,
        rows,
        count,
    )


@apart
def _pack(
    keys: Codes,
    flags: Bytes,
    time: Slab,
    order: Slab,
    seq: Slab,
    valid: Slab,
    values: Slab,
    out: Slab,
    cursor: Slab,
    packed: Slab,
    width: int,
    rows: int,
    count: int,
) -> None:
    for i in range(count):
        key = keys[i]
        at = cursor[key] * width
        cursor[key] += 1
        packed[at + R_TIME] = time[i]
        packed[at + R_ORDER] = order[i]
        packed[at + R_SEQ] = seq[i]
        packed[at + R_VALID] = valid[i]
        for r in range(rows):
            packed[at + R_VALUES + r] = values[r * count + i]
        packed[at + width - HANDLE] = -1
        packed[at + width - FLAGS] = flags[i]
        packed[at + width - OUT] = out[i]
