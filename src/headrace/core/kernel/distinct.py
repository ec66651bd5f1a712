"""Exact distinct counts: of small windows folded, of large ones by a table that follows the window as it moves.

The one idea: the window of one key and output mostly moves forward by a few entries between two questions, so a table
of how often each value occurs takes in what entered and gives up what left: O(moved), not O(window). Entries are named
by their position since the key's beginning, which no split and no expiry changes; a late event inside adds itself. A
question far from the table's window is folded, or the table is made anew. Only for columns whose values never change
(no history); others are folded, newest first, which ends early where there are too many values.
"""

from __future__ import annotations

from typing import Final

from headrace.core.aggregate import Reason
from headrace.core.kernel.history import value_at
from headrace.core.kernel.program import (
    C_HISTORY,
    COLUMN_FIELDS,
    D_BEFORE,
    D_LENGTH,
    O_COLUMN,
    P_COLUMN_TABLE,
    P_DISTINCT,
    P_ROW,
)
from headrace.core.kernel.slab import (
    G_CHUNK,
    G_INDEX,
    G_POSITION,
    K_CHUNKS,
    K_DIRECTORY,
    K_TABLES,
    MAX_INT64,
    NO_ROOM,
    R_TIME,
    R_VALID,
    R_VALUES,
    S_CAPACITY,
    S_FREE_TABLES,
    S_USED,
    give,
    log2,
    raw_of,
    take,
)
from headrace.core.kernel.words import MASK, Slab, apart, compiled, to_int64, to_word, word

WINDOW_MIN: Final = 128  # entries: a smaller window is folded in less time than a table costs
_SIZE_MIN: Final = 256
_NEAR: Final = 64  # entries by which a table may always move, back too
# A table: the key's next one; its output; the window it holds, by position; how many values occur; its slots and how
# many, 0 where it gave up as too many values occur; how many are not free. A slot: a value, and how often it occurs
# plus one; 0 where it is free.
(T_NEXT, T_OUTPUT, T_LOW, T_HIGH, T_DIFFERENT, T_SLOTS, T_SIZE, T_TAKEN) = range(8)
TABLE_WORDS: Final = 8
VALUE = int(Reason.VALUE)
EMPTY = int(Reason.EMPTY)
LIMIT = int(Reason.LIMIT)
_SPREAD = word(0x9E37_79B9_7F4A_7C15)  # the golden ratio: neighbours land far apart


@apart
def distinct(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    current: bool,
    output: int,
    low: int,
    high: int,
    out: Slab,
    into: int,
) -> int:
    """How many different values, the request's among them; returns the reason, or NO_ROOM."""
    first = slab[low + G_POSITION]
    last = slab[high + G_POSITION]
    c = code[output + O_COLUMN]
    steady = code[code[P_COLUMN_TABLE] + c * COLUMN_FIELDS + C_HISTORY] < 0
    table = _table_of(slab, key, output) if steady and last - first >= WINDOW_MIN else 0
    was_first = slab[table + T_LOW]
    was_last = slab[table + T_HIGH]
    if table != 0 and _at_window(code, slab, key, table, c, first, last):
        different = slab[table + T_DIFFERENT]
        if current:
            own = _slot(slab, slab[table + T_SLOTS], slab[table + T_SIZE], raw_of(code, c, row[at + R_VALUES + c]))
            different += 1 if slab[own + 1] < 2 else 0
        if was_last - last > _NEAR:  # a look back pays its way forth, not the next question
            _move(code, slab, key, table, c, was_first, was_last)
    else:
        different = _folded(code, slab, key, row, at, current, c, low, high)
    if different == NO_ROOM:
        return NO_ROOM
    if different == 0:
        return EMPTY
    if different > code[P_DISTINCT]:
        return LIMIT
    out[into] = different
    return VALUE


@apart
def _folded(code: Slab, slab: Slab, key: int, row: Slab, at: int, current: bool, c: int, low: int, high: int) -> int:
    """How many different values as known at t, counted anew, at most one more than the limit; or NO_ROOM."""
    t = row[at + R_TIME]
    limit = code[P_DISTINCT]
    most = slab[high + G_POSITION] - slab[low + G_POSITION] + 1
    size = 2
    while size < 2 * min(most, limit + 1):
        size *= 2
    slots = slab[S_USED]
    if slots + 2 * size > slab[S_CAPACITY]:
        return NO_ROOM
    for i in range(2 * size):
        slab[slots + i] = 0
    different = 0
    if current:
        different = _seen(slab, slots, size, raw_of(code, c, row[at + R_VALUES + c]))
    chunk = slab[high + G_CHUNK] if slab[key + K_CHUNKS] > 0 else -1
    index = slab[high + G_INDEX]
    while chunk >= slab[low + G_CHUNK] and different <= limit:
        entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
        start = slab[low + G_INDEX] if chunk == slab[low + G_CHUNK] else 0
        while index > start and different <= limit:
            index -= 1
            raw, valid = value_at(code, slab, entry, index, c, t)
            if valid:
                different += _seen(slab, slots, size, raw)
        chunk -= 1
        if chunk >= 0:
            index = slab[entry - code[P_ROW] + D_LENGTH]
    return different


@compiled
def _seen(slab: Slab, slots: int, size: int, raw: int) -> int:
    """1 where the value was not among the slots; now it is."""
    place = _slot(slab, slots, size, raw)
    if slab[place + 1] != 0:
        return 0
    slab[place] = raw
    slab[place + 1] = 1
    return 1


@apart
def enter(code: Slab, slab: Slab, key: int, row: Slab, at: int, position: int) -> None:
    """A new entry of the key, at a position, in the tables of the windows that it lies in."""
    table = slab[key + K_TABLES]
    while table != 0:
        if position < slab[table + T_LOW]:
            slab[table + T_LOW] += 1
            slab[table + T_HIGH] += 1
        elif position < slab[table + T_HIGH]:
            slab[table + T_HIGH] += 1
            c = code[slab[table + T_OUTPUT] + O_COLUMN]
            if (row[at + R_VALID] >> c) & 1:
                _count(code, slab, table, raw_of(code, c, row[at + R_VALUES + c]), 1)
        table = slab[table + T_NEXT]


@compiled
def _table_of(slab: Slab, key: int, output: int) -> int:
    """The output's table; 0 where there is no room for one."""
    table = slab[key + K_TABLES]
    while table != 0 and slab[table + T_OUTPUT] != output:
        table = slab[table + T_NEXT]
    if table == 0 and slab[S_USED] + TABLE_WORDS <= slab[S_CAPACITY]:
        table = _new_table(slab, key, output)
    return table


@apart
def _at_window(code: Slab, slab: Slab, key: int, table: int, c: int, first: int, last: int) -> bool:
    """Whether the table now holds the window [first, last); False where folding is quicker or there is no room."""
    was_first = slab[table + T_LOW]
    was_last = slab[table + T_HIGH]
    apart_now = first >= was_last or last <= was_first
    if slab[table + T_SIZE] == 0 and not apart_now:
        return False
    moved = abs(first - was_first) + abs(last - was_last)
    forgotten = min(was_first, first) < slab[slab[key + K_DIRECTORY] + D_BEFORE]
    if apart_now or forgotten or (moved > _NEAR and 4 * moved > last - first):
        if first < was_first or last < was_last:
            return False  # a look back: the table stays with the newest window
        _restart(slab, table, first)
    _move(code, slab, key, table, c, first, last)
    return slab[table + T_SIZE] > 0


@apart
def _move(code: Slab, slab: Slab, key: int, table: int, c: int, first: int, last: int) -> None:
    """What enters the window is counted, then what leaves it no longer is."""
    was_first = slab[table + T_LOW]
    was_last = slab[table + T_HIGH]
    _count_range(code, slab, key, table, c, first, was_first, 1)
    _count_range(code, slab, key, table, c, was_last, last, 1)
    _count_range(code, slab, key, table, c, was_first, first, -1)
    _count_range(code, slab, key, table, c, last, was_last, -1)
    slab[table + T_LOW] = first
    slab[table + T_HIGH] = last


@compiled
def _new_table(slab: Slab, key: int, output: int) -> int:
    table = slab[S_USED]
    slab[S_USED] = table + TABLE_WORDS
    for i in range(TABLE_WORDS):
        slab[table + i] = 0
    slab[table + T_NEXT] = slab[key + K_TABLES]
    slab[table + T_OUTPUT] = output
    slab[key + K_TABLES] = table
    return table


@compiled
def _restart(slab: Slab, table: int, first: int) -> None:
    """An empty window at a position, with slots if there is room for some."""
    _free_slots(slab, table)
    slab[table + T_DIFFERENT] = 0
    slab[table + T_LOW] = first
    slab[table + T_HIGH] = first
    _take_slots(slab, table, _SIZE_MIN)


@compiled
def _take_slots(slab: Slab, table: int, size: int) -> None:
    """Free slots; none where there is no room."""
    slab[table + T_SIZE] = 0
    slab[table + T_TAKEN] = 0
    free = S_FREE_TABLES + log2(size)
    if slab[free] == 0 and slab[S_USED] + 2 * size > slab[S_CAPACITY]:
        return
    slots = take(slab, free, 2 * size)
    for i in range(2 * size):
        slab[slots + i] = 0
    slab[table + T_SLOTS] = slots
    slab[table + T_SIZE] = size


@compiled
def _free_slots(slab: Slab, table: int) -> None:
    if slab[table + T_SIZE] > 0:
        give(slab, S_FREE_TABLES + log2(slab[table + T_SIZE]), slab[table + T_SLOTS])
        slab[table + T_SIZE] = 0


@apart
def _count_range(code: Slab, slab: Slab, key: int, table: int, c: int, first: int, last: int, times: int) -> None:
    """The values of the entries at positions [first, last) once more, or once less."""
    if first >= last:
        return
    row = code[P_ROW]
    directory = slab[key + K_DIRECTORY]
    low = 0
    high = slab[key + K_CHUNKS]
    while high - low > 1:
        middle = (low + high) >> 1
        if slab[directory + middle * row + D_BEFORE] <= first:
            low = middle
        else:
            high = middle
    entry = directory + low * row
    index = first - slab[entry + D_BEFORE]
    for _ in range(last - first):
        if index == slab[entry + D_LENGTH]:
            entry += row
            index = 0
        raw, valid = value_at(code, slab, entry, index, c, MAX_INT64)
        if valid:
            _count(code, slab, table, raw, times)
        index += 1


@apart
def _count(code: Slab, slab: Slab, table: int, raw: int, times: int) -> None:
    """A value occurs once more, or once less. Where too many different ones do, the table gives up."""
    size = slab[table + T_SIZE]
    if size == 0:
        return
    place = _slot(slab, slab[table + T_SLOTS], size, raw)
    if slab[place + 1] == 0:
        slab[place] = raw
        slab[place + 1] = 1
        slab[table + T_TAKEN] += 1
    slab[place + 1] += times
    if times < 0:
        slab[table + T_DIFFERENT] -= 1 if slab[place + 1] == 1 else 0
        return
    slab[table + T_DIFFERENT] += 1 if slab[place + 1] == 2 else 0
    if slab[table + T_DIFFERENT] > 2 * code[P_DISTINCT]:
        _free_slots(slab, table)
    elif 4 * slab[table + T_TAKEN] > 3 * size:
        _rehash(slab, table)


@compiled
def _rehash(slab: Slab, table: int) -> None:
    """The values that occur in slots of which at most half are taken; gives up where there is no room."""
    size = slab[table + T_SIZE]
    slots = slab[table + T_SLOTS]
    wanted = _SIZE_MIN
    while wanted < 2 * slab[table + T_DIFFERENT]:
        wanted *= 2
    _take_slots(slab, table, wanted)
    if slab[table + T_SIZE] > 0:
        for i in range(size):
            if slab[slots + 2 * i + 1] > 1:
                place = _slot(slab, slab[table + T_SLOTS], wanted, slab[slots + 2 * i])
                slab[place] = slab[slots + 2 * i]
                slab[place + 1] = slab[slots + 2 * i + 1]
                slab[table + T_TAKEN] += 1
    give(slab, S_FREE_TABLES + log2(size), slots)


@compiled
def _slot(slab: Slab, slots: int, size: int, raw: int) -> int:
    """Where the value stands, or a free slot for it. size: a power of two; some slot is free."""
    hashed = (to_word(raw) * _SPREAD) & MASK
    place = to_int64(hashed >> 32) & (size - 1)
    while slab[slots + 2 * place + 1] != 0 and slab[slots + 2 * place] != raw:
        place = (place + 1) & (size - 1)
    return slots + 2 * place
