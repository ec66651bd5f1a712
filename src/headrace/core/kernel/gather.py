"""A window's values gathered and folded anew: the kernel's slow way, for what running totals cannot say. Reads.

It serves floats outside the fixed point, and values that were known otherwise at t. Its scratch is the slab's free end.
"""

from __future__ import annotations

import math
from typing import Final

from headrace.core.aggregate import Reason
from headrace.core.kernel.accumulate import (
    BIG_SQUARE_WORDS,
    BIG_WORDS,
    big_add,
    big_add_square,
    big_clear,
    big_round_ratio,
    big_round_variance,
)
from headrace.core.kernel.chunks import behind
from headrace.core.kernel.history import value_at
from headrace.core.kernel.memory import words_from
from headrace.core.kernel.program import (
    C_KIND,
    C_SCALE,
    COLUMN_FIELDS,
    D_LENGTH,
    D_OFFSET,
    F_COUNT,
    F_DEVIATION,
    F_FIRST,
    F_LAST,
    F_LAST_N,
    F_MAX,
    F_MEAN,
    F_MIN,
    F_RATE,
    F_SINCE_FIRST,
    F_SINCE_LAST,
    F_SUM,
    O_COLUMN,
    O_FUNCTION,
    O_N,
    O_SAMPLE,
    P_COLUMN_TABLE,
    P_ORDER,
    P_ROW,
    ColumnKind,
)
from headrace.core.kernel.slab import (
    G_CHUNK,
    G_INDEX,
    G_POSITION,
    K_CHUNKS,
    K_DIRECTORY,
    NO_ROOM,
    R_TIME,
    R_VALUES,
    S_CAPACITY,
    S_USED,
    as_float,
    raw_of,
    sortable,
    sums_at,
)
from headrace.core.kernel.totals import clear_number
from headrace.core.kernel.wide import add_square, add_value, round_ratio, round_variance
from headrace.core.kernel.words import Slab, apart, compiled, float_bits, to_int64

VALUE = int(Reason.VALUE)
EMPTY = int(Reason.EMPTY)
OVERFLOW = int(Reason.OVERFLOW)
_FLOAT = int(ColumnKind.FLOAT)
_FLOAT_WORDS: Final = BIG_WORDS + BIG_SQUARE_WORDS + 3 * BIG_WORDS


@apart
def fold(
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
    """An output over a window, entry by entry; returns its reason, or NO_ROOM. Cost: O(window)."""
    c = code[output + O_COLUMN]
    most = slab[high + G_POSITION] - slab[low + G_POSITION] + 1
    values = slab[S_USED]
    times = values + most
    free = times + most
    if free + _FLOAT_WORDS > slab[S_CAPACITY]:
        return NO_ROOM
    n = _gather(code, slab, key, row, at, current, c, low, high, values, times)
    function = code[output + O_FUNCTION]
    if function == F_COUNT:
        out[into] = n
        return VALUE
    if n == 0:
        return EMPTY
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    is_float = code[column + C_KIND] == _FLOAT
    if function == F_SINCE_FIRST or function == F_SINCE_LAST:
        out[into] = row[at + R_TIME] - (slab[times] if function == F_SINCE_FIRST else slab[times + n - 1])
        return VALUE
    if function == F_LAST_N:
        kept = min(n, code[output + O_N])
        out[into] = kept
        for k in range(kept):
            value = slab[values + n - kept + k]
            out[into + 1 + k] = sortable(value) if is_float else value
        return VALUE
    if function == F_FIRST or function == F_LAST or function == F_MIN or function == F_MAX:
        value = slab[values] if function == F_FIRST else slab[values + n - 1]
        if function == F_MIN or function == F_MAX:
            for i in range(n):
                other = slab[values + i]
                if (other < value) == (function == F_MIN):
                    value = other
        out[into] = sortable(value) if is_float else value
        return VALUE
    if code[output + O_SAMPLE] != 0 and n < 2:
        return EMPTY
    if is_float:
        return _fold_floats(slab, values, free, n, function, code[output + O_SAMPLE] != 0, out, into)
    sample = code[output + O_SAMPLE] != 0
    return _fold_integers(slab, sums_at(code), values, n, function, sample, code[column + C_SCALE], out, into)


@apart
def _gather(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    current: bool,
    c: int,
    low: int,
    high: int,
    values: int,
    times: int,
) -> int:
    """The window's values that are not null as known at t, in order of the order key, the request at its place; to
    slab[values:] and slab[times:], returns how many."""
    t = row[at + R_TIME]
    low_chunk, low_index = slab[low + G_CHUNK], slab[low + G_INDEX]
    high_chunk, high_index = slab[high + G_CHUNK], slab[high + G_INDEX]
    directory = slab[key + K_DIRECTORY]
    last = high_chunk if slab[key + K_CHUNKS] > 0 else -1
    n = 0
    own = raw_of(code, c, row[at + R_VALUES + c]) if current and c >= 0 else 0
    waiting = current
    for chunk in range(low_chunk, last + 1):
        entry = directory + chunk * code[P_ROW]
        start = low_index if chunk == low_chunk else 0
        end = high_index if chunk == high_chunk else slab[entry + D_LENGTH]
        for index in range(start, end):
            if waiting and code[P_ORDER] >= 0 and behind(code, slab, key, chunk, index, row, at):
                slab[values + n] = own
                slab[times + n] = t
                n += 1
                waiting = False
            raw, valid = (0, True) if c < 0 else value_at(code, slab, entry, index, c, t)
            if valid:
                slab[values + n] = raw
                slab[times + n] = slab[slab[entry + D_OFFSET] + index]
                n += 1
    if waiting:
        slab[values + n] = own
        slab[times + n] = t
        n += 1
    return n


@compiled
def _fold_floats(slab: Slab, values: int, free: int, n: int, function: int, sample: bool, out: Slab, into: int) -> int:
    """free: _FLOAT_WORDS of scratch."""
    sums = words_from(slab, free)
    squares = words_from(slab, free + BIG_WORDS)
    scratch = words_from(slab, free + BIG_WORDS + BIG_SQUARE_WORDS)
    big_clear(sums, BIG_WORDS)
    for i in range(n):
        big_add(sums, as_float(slab[values + i]))
    if function == F_SUM:
        x = big_round_ratio(sums, 1, 1, scratch)
    elif function == F_MEAN or function == F_RATE:
        x = big_round_ratio(sums, n, 1, scratch)
    else:
        big_clear(squares, BIG_SQUARE_WORDS)
        for i in range(n):
            big_add_square(squares, as_float(slab[values + i]))
        rest = words_from(slab, free + 2 * BIG_WORDS + BIG_SQUARE_WORDS)
        x = big_round_variance(sums, squares, n, sample, scratch, rest)
        if function == F_DEVIATION:
            x = math.sqrt(x)
    if not (x - x == 0.0):
        return OVERFLOW
    out[into] = to_int64(float_bits(x + 0.0))
    return VALUE


@compiled
def _fold_integers(
    slab: Slab, work: int, values: int, n: int, function: int, sample: bool, scale: int, out: Slab, into: int
) -> int:
    """work: eight words of scratch for the sum and the sum of squares, behind them a variance's."""
    clear_number(slab, work, 4)
    clear_number(slab, work + 4, 4)
    for i in range(n):
        add_value(slab, work, 4, slab[values + i])
    if function == F_SUM:
        out[into] = slab[work]
        out[into + 1] = slab[work + 1]
        return VALUE
    if function == F_MEAN or function == F_RATE:
        x = round_ratio(slab, work, 4, 0, n, scale)
    else:
        for i in range(n):
            add_square(slab, work + 4, 4, slab[values + i])
        x = round_variance(slab, work, 4, work + 4, 4, n, 0, 0, scale, sample, slab, work + 8)
        if function == F_DEVIATION:
            x = math.sqrt(x)
    out[into] = to_int64(float_bits(x + 0.0))
    return VALUE
