"""The compiled door: packed rows in, outputs out. Touches only the memory whose addresses it is given.

One function, so that everything behind it is compiled and optimised once a machine. Packed rows are laid out as
slab.py says, `width` words each.
"""

from __future__ import annotations

from typing import Final

from headrace.core.kernel.answer import answer
from headrace.core.kernel.change import update
from headrace.core.kernel.chunks import insert
from headrace.core.kernel.memory import Codes, codes_at, expect_octets, expect_words, octets_at, words_at
from headrace.core.kernel.program import P_NARROW, P_OUTPUTS, P_SLOTS, P_TAIL, Flag
from headrace.core.kernel.runs import answer_run, run_length
from headrace.core.kernel.slab import (
    CHUNK,
    FLAG_BITS,
    R_META,
    R_TIME,
    R_VALUES,
    S_FIRST_CAPACITY,
    S_SCRATCH,
    S_USED,
    T_HANDLE,
    T_SEQ,
    clear,
    new_key,
    room,
)
from headrace.core.kernel.words import Bytes, Slab, apart, compiled, door

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
    in_runs = code[P_NARROW] != 0 and handle >= 0
    i = first
    while i < last:
        if in_runs:
            n = run_length(code, slab, handle, packed, width, i, last)
            if n > 1:
                answer_run(code, slab, handle, packed, width, i, n, out, reasons)
                i += n
                continue
        at = i * width
        if i + _AHEAD < last:  # outputs lie in the order of the questions, so each is far from the one before
            next_row = packed[at + _AHEAD * width + R_META] >> FLAG_BITS
            expect_words(out, next_row * slots)
            expect_octets(reasons, next_row * outputs)
        key = handle if handle >= 0 else packed[at + code[P_TAIL] + T_HANDLE]
        meta = packed[at + R_META]
        if meta & _QUERY:
            row = meta >> FLAG_BITS
            overlay = meta & _OVERLAY != 0
            if not answer(code, slab, key, packed, at, overlay, out, row * slots, reasons, row * outputs):
                return i
        if meta & _CHANGE:
            if not room(code, slab, key):
                return i
            if meta & _INSERT:
                insert(code, slab, key, packed, at)
            else:
                seq = packed[at + code[P_TAIL] + T_SEQ]
                update(code, slab, key, packed[at + R_TIME], seq, packed, at + R_VALUES)
        i += 1
    return last


@door
def work(frame_at: int | Slab) -> int:
    """Three jobs behind one door, so that there is one compilation; what it takes in one frame, as every argument costs
    a tenth of a microsecond. The frame: code, slab, capacity, packed, starts, width, first, last, out, reasons.

    capacity > 0: clear a slab of so many words, then keys [first, last) with rows starts[key] to starts[key + 1], every
    key from nothing; returns the first key that did not fit, or `last`. capacity 0: rows [first, last) on a living
    slab; returns the first that found no room, or `last`. width 0: a new key's handle, -1 without room.
    """
    frame = words_at(frame_at)
    code, slab = words_at(frame[0]), words_at(frame[1])
    capacity = frame[2]
    packed, starts = words_at(frame[3]), words_at(frame[4])
    width, first, last = frame[5], frame[6], frame[7]
    out, reasons = words_at(frame[8]), octets_at(frame[9])
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
def pack(frame_at: int | Slab) -> None:
    """Rows grouped by key, each in one run of words, in their order. The frame: keys (int32), flags (uint8), output
    rows, packed, cursor (where each key's rows begin; moved on), width, how many rows there are, how many columns, and
    where each column stands, in the order of a packed row without R_META."""
    frame = words_at(frame_at)
    keys, flags = codes_at(frame[0]), octets_at(frame[1])
    _pack(frame, keys, flags, words_at(frame[2]), words_at(frame[3]), words_at(frame[4]), frame[5], frame[6], frame[7])


@compiled
def _pack(
    frame: Slab, keys: Codes, flags: Bytes, out: Slab, packed: Slab, cursor: Slab, width: int, count: int, columns: int
) -> None:
    for i in range(count):
        key = keys[i]
        at = cursor[key] * width
        cursor[key] += 1
        packed[at + R_META] = (out[i] << FLAG_BITS) | flags[i]
        for c in range(columns):
            packed[at + c + (1 if c >= R_META else 0)] = words_at(frame[8 + c])[i]
