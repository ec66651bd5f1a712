"""A query answered: every output of a program over one key's chunks, the request itself overlaid. Reads, never changes.

The one idea: an output is a difference of running totals at two edges, rounded once; order-dependent ones pick an entry by
its ordinal among the entries that are not null, which the running counts find. Where totals cannot answer (floats outside
the fixed point, facts from after t) the window's values are gathered and folded anew: slower, the same bits.
"""

from __future__ import annotations

import math

from headrace.core.aggregate import Reason
from headrace.core.kernel.chunks import behind, locate
from headrace.core.kernel.gather import fold
from headrace.core.kernel.history import value_at
from headrace.core.kernel.program import (
    C_ALWAYS,
    C_COUNT,
    C_EXTREMA,
    C_HISTORY,
    C_KIND,
    C_RAW,
    C_SCALE,
    C_SQUARE,
    C_SUM,
    C_UNFIT,
    COLUMN_FIELDS,
    D_BEFORE,
    D_CAPACITY,
    D_LENGTH,
    D_OFFSET,
    DIRECTORY_FIXED,
    E_KIND,
    E_VALUE,
    EDGE_FIELDS,
    EDGE_OFFSET,
    F_COUNT,
    F_DEVIATION,
    F_DISTINCT,
    F_FIRST,
    F_LAST,
    F_LAST_N,
    F_LOOKUP,
    F_MAX,
    F_MEAN,
    F_MIN,
    F_RATE,
    F_SINCE_FIRST,
    F_SINCE_LAST,
    F_SUM,
    O_COLUMN,
    O_CURRENT,
    O_FUNCTION,
    O_HIGH,
    O_LOW,
    O_N,
    O_SAMPLE,
    O_SLOT,
    OUTPUT_FIELDS,
    P_COLUMN_TABLE,
    P_COLUMNS,
    P_EDGE_TABLE,
    P_EDGES,
    P_LANES,
    P_OUTPUT_TABLE,
    P_OUTPUTS,
    P_PREFIX_TABLE,
    P_PREFIX_WORDS,
    P_ROW,
    P_VALID,
    PREFIX_FIELDS,
    X_OFFSET,
    X_UNIT,
    X_WORDS,
    ColumnKind,
)
from headrace.core.kernel.slab import (
    K_CHUNKS,
    K_DIRECTORY,
    K_KNOWN,
    MAX_INT64,
    MIN_INT64,
    R_TIME,
    R_VALID,
    R_VALUES,
    S_SCRATCH,
    raw_of,
    sortable,
    sums_at,
)
from headrace.core.kernel.totals import contribute
from headrace.core.kernel.wide import add, round_ratio, round_variance, subtract
from headrace.core.kernel.words import Bytes, Slab, compiled, float_bits, to_int64

VALUE = int(Reason.VALUE)
EMPTY = int(Reason.EMPTY)
OVERFLOW = int(Reason.OVERFLOW)
_FLOAT = int(ColumnKind.FLOAT)


@compiled
def answer(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    overlay: bool,
    out: Slab,
    out_at: int,
    reasons: Bytes,
    reasons_at: int,
) -> None:
    """Every output at the point row[at + R_TIME] into out[out_at:], its reason into reasons[reasons_at:].

    overlay: the row is the request, and counts in outputs that say `current`.
    Cost: O(log entries) an edge and O(1) an output, but O(window) for DISTINCT and for what must be gathered.
    """
    find_edges(code, slab, key, row, at)
    for o in range(code[P_OUTPUTS]):
        output = code[P_OUTPUT_TABLE] + o * OUTPUT_FIELDS
        into = out_at + code[output + O_SLOT]
        reasons[reasons_at + o] = answer_one(code, slab, key, row, at, overlay, output, out, into)


@compiled
def find_edges(code: Slab, slab: Slab, key: int, row: Slab, at: int) -> None:
    """(chunk, index) of each edge, kept in scratch."""
    t = row[at + R_TIME]
    into = S_SCRATCH + 2 * (code[P_PREFIX_WORDS] + 8)
    for e in range(code[P_EDGES]):
        edge = code[P_EDGE_TABLE] + e * EDGE_FIELDS
        value = code[edge + E_VALUE]
        instant = t + value if code[edge + E_KIND] == EDGE_OFFSET else row[at + R_VALUES + code[P_COLUMNS] + value]
        slab[into + 2 * e], slab[into + 2 * e + 1] = locate(code, slab, key, instant)


@compiled
def answer_one(
    code: Slab, slab: Slab, key: int, row: Slab, at: int, overlay: bool, output: int, out: Slab, into: int
) -> int:
    """One output; returns its reason. What is null is written as 0."""
    out[into] = 0
    function = code[output + O_FUNCTION]
    c = code[output + O_COLUMN]
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    current = overlay and code[output + O_CURRENT] != 0 and (c < 0 or ((row[at + R_VALID] >> c) & 1) != 0)
    low_chunk, low_index, high_chunk, high_index = _window(code, slab, output)
    if function == F_LOOKUP:
        return _lookup(code, slab, key, row, at, c, high_chunk, high_index, low_chunk, low_index, out, into)
    late = c >= 0 and code[column + C_HISTORY] >= 0 and row[at + R_TIME] < slab[key + K_KNOWN]
    if late or function == F_DISTINCT:
        return fold(code, slab, key, row, at, current, output, low_chunk, low_index, high_chunk, high_index, out, into)
    first = _ordinal(code, slab, key, column if c >= 0 else -1, low_chunk, low_index)
    count = _ordinal(code, slab, key, column if c >= 0 else -1, high_chunk, high_index) - first
    if function == F_COUNT:
        out[into] = count + (1 if current else 0)
        return VALUE
    if count == 0 and not current:
        return EMPTY
    if function == F_MIN or function == F_MAX:
        highest = function == F_MAX
        best = _extreme(code, slab, key, c, highest, low_chunk, low_index, high_chunk, high_index)
        if current:
            raw = raw_of(code, c, row[at + R_VALUES + c])
            best = max(best, raw) if highest else min(best, raw)
        out[into] = sortable(best) if code[column + C_KIND] == _FLOAT else best
        return VALUE
    if function == F_SINCE_LAST or function == F_SINCE_FIRST:
        return _since(code, slab, key, row, at, column if c >= 0 else -1, function, first, count, out, into)
    if function == F_FIRST or function == F_LAST or function == F_LAST_N:
        return _ordered(code, slab, key, row, at, current, output, first, count, out, into)
    if code[column + C_KIND] == _FLOAT and _unfit(
        code, slab, key, row, at, current, column, c, low_chunk, low_index, high_chunk, high_index
    ):
        return fold(code, slab, key, row, at, current, output, low_chunk, low_index, high_chunk, high_index, out, into)
    n = count + (1 if current else 0)
    _total(
        code,
        slab,
        key,
        row,
        at,
        current,
        code[column + C_SUM],
        c,
        low_chunk,
        low_index,
        high_chunk,
        high_index,
        S_SCRATCH,
    )
    prefix = code[P_PREFIX_TABLE] + code[column + C_SUM] * PREFIX_FIELDS
    words = code[prefix + X_WORDS]
    unit = code[prefix + X_UNIT]
    scale = code[column + C_SCALE]
    if function == F_SUM:
        if code[column + C_KIND] != _FLOAT:
            out[into] = slab[S_SCRATCH]
            out[into + 1] = slab[S_SCRATCH + 1] if words > 1 else (-1 if slab[S_SCRATCH] < 0 else 0)
            return VALUE
        return publish(round_ratio(slab, S_SCRATCH, words, unit, 1, 1), out, into)
    if function == F_MEAN or function == F_RATE:
        return publish(round_ratio(slab, S_SCRATCH, words, unit, n, scale), out, into)
    if code[output + O_SAMPLE] != 0 and n < 2:
        return EMPTY
    second = S_SCRATCH + 4
    square = code[column + C_SQUARE]
    _total(code, slab, key, row, at, current, square, c, low_chunk, low_index, high_chunk, high_index, second)
    other = code[P_PREFIX_TABLE] + square * PREFIX_FIELDS
    scratch = sums_at(code) + 8
    variance = round_variance(
        slab,
        S_SCRATCH,
        words,
        second,
        code[other + X_WORDS],
        n,
        unit,
        code[other + X_UNIT],
        scale,
        code[output + O_SAMPLE] != 0,
        slab,
        scratch,
    )
    return publish(math.sqrt(variance) if function == F_DEVIATION else variance, out, into)


@compiled
def publish(x: float, out: Slab, into: int) -> int:
    """A float's bits; null with OVERFLOW where it is not finite."""
    if not (x - x == 0.0):
        return OVERFLOW
    out[into] = to_int64(float_bits(x + 0.0))
    return VALUE


@compiled
def _window(code: Slab, slab: Slab, output: int) -> tuple[int, int, int, int]:
    """The edges of an output's window, as found before."""
    edges = S_SCRATCH + 2 * (code[P_PREFIX_WORDS] + 8)
    high = edges + 2 * code[output + O_HIGH]
    if code[output + O_LOW] < 0:
        return 0, 0, slab[high], slab[high + 1]
    low = edges + 2 * code[output + O_LOW]
    return slab[low], slab[low + 1], slab[high], slab[high + 1]


@compiled
def _ordinal(code: Slab, slab: Slab, key: int, column: int, chunk: int, index: int) -> int:
    """How many entries, not null in the column (its place in the table; -1: all), stand before a place."""
    if slab[key + K_CHUNKS] == 0:
        return 0
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    if column < 0 or code[column + C_ALWAYS] != 0:
        return slab[entry + D_BEFORE] + index
    offset = code[code[P_PREFIX_TABLE] + code[column + C_COUNT] * PREFIX_FIELDS + X_OFFSET]
    before = slab[entry + DIRECTORY_FIXED + offset]
    if index == 0:
        return before
    base = slab[entry + D_OFFSET] + code[P_LANES] * slab[entry + D_CAPACITY]
    return before + slab[base + (index - 1) * code[P_PREFIX_WORDS] + offset]


@compiled
def select(code: Slab, slab: Slab, key: int, column: int, ordinal: int) -> tuple[int, int]:
    """(directory row, index) of the entry with so many entries, not null in the column, before it."""
    row = code[P_ROW]
    directory = slab[key + K_DIRECTORY]
    always = column < 0 or code[column + C_ALWAYS] != 0
    offset = 0 if always else code[code[P_PREFIX_TABLE] + code[column + C_COUNT] * PREFIX_FIELDS + X_OFFSET]
    field = D_BEFORE if always else DIRECTORY_FIXED + offset
    low = 0
    high = slab[key + K_CHUNKS]
    while high - low > 1:
        middle = (low + high) >> 1
        if slab[directory + middle * row + field] <= ordinal:
            low = middle
        else:
            high = middle
    entry = directory + low * row
    rank = ordinal - slab[entry + field]
    if always:
        return entry, rank
    base = slab[entry + D_OFFSET] + code[P_LANES] * slab[entry + D_CAPACITY] + offset
    words = code[P_PREFIX_WORDS]
    first = 0
    last = slab[entry + D_LENGTH] - 1
    while first < last:
        middle = (first + last) >> 1
        if slab[base + middle * words] > rank:
            last = middle
        else:
            first = middle + 1
    return entry, first


@compiled
def _total(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    current: bool,
    prefix: int,
    c: int,
    low_chunk: int,
    low_index: int,
    high_chunk: int,
    high_index: int,
    into: int,
) -> None:
    """A prefix's total over the window, the request included where it counts."""
    table = code[P_PREFIX_TABLE] + prefix * PREFIX_FIELDS
    words = code[table + X_WORDS]
    offset = code[table + X_OFFSET]
    for w in range(words):
        slab[into + w] = 0
    if slab[key + K_CHUNKS] > 0:
        directory = slab[key + K_DIRECTORY]
        high = directory + high_chunk * code[P_ROW]
        low = directory + low_chunk * code[P_ROW]
        high_at = slab[high + D_OFFSET] + code[P_LANES] * slab[high + D_CAPACITY] + offset
        low_at = slab[low + D_OFFSET] + code[P_LANES] * slab[low + D_CAPACITY] + offset
        width = code[P_PREFIX_WORDS]
        if words == 1:
            total = slab[high_at + (high_index - 1) * width] if high_index > 0 else 0
            total -= slab[low_at + (low_index - 1) * width] if low_index > 0 else 0
            if high != low:
                total += slab[high + DIRECTORY_FIXED + offset] - slab[low + DIRECTORY_FIXED + offset]
            slab[into] = total
        else:
            if high_index > 0:
                add(slab, into, into, high_at + (high_index - 1) * width, words)
            if low_index > 0:
                subtract(slab, into, into, low_at + (low_index - 1) * width, words)
            if high != low:
                add(slab, into, into, high + DIRECTORY_FIXED + offset, words)
                subtract(slab, into, into, low + DIRECTORY_FIXED + offset, words)
    if current:
        other = S_SCRATCH + code[P_PREFIX_WORDS] + 8
        contribute(code, slab, prefix, other, raw_of(code, c, row[at + R_VALUES + c]), True)
        add(slab, into, into, other, words)


@compiled
def _unfit(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    current: bool,
    column: int,
    c: int,
    low_chunk: int,
    low_index: int,
    high_chunk: int,
    high_index: int,
) -> bool:
    """Whether the window holds a float that the fixed point does not."""
    _total(
        code,
        slab,
        key,
        row,
        at,
        current,
        code[column + C_UNFIT],
        c,
        low_chunk,
        low_index,
        high_chunk,
        high_index,
        S_SCRATCH,
    )
    return slab[S_SCRATCH] > 0


@compiled
def _extreme(
    code: Slab,
    slab: Slab,
    key: int,
    c: int,
    highest: bool,
    low_chunk: int,
    low_index: int,
    high_chunk: int,
    high_index: int,
) -> int:
    """The lowest or highest raw value in the window, the request aside; the neutral one where there is none."""
    best = MIN_INT64 if highest else MAX_INT64
    if slab[key + K_CHUNKS] == 0:
        return best
    row = code[P_ROW]
    directory = slab[key + K_DIRECTORY]
    place = DIRECTORY_FIXED + code[P_PREFIX_WORDS]
    place += 2 * code[code[P_COLUMN_TABLE] + c * COLUMN_FIELDS + C_EXTREMA] + (1 if highest else 0)
    for chunk in range(low_chunk, high_chunk + 1):
        entry = directory + chunk * row
        start = low_index if chunk == low_chunk else 0
        end = high_index if chunk == high_chunk else slab[entry + D_LENGTH]
        if start == 0 and end == slab[entry + D_LENGTH]:
            found = slab[entry + place]
        else:
            found = _scan_extreme(code, slab, entry, c, highest, start, end)
        best = max(best, found) if highest else min(best, found)
    return best


@compiled
def _scan_extreme(code: Slab, slab: Slab, entry: int, c: int, highest: bool, start: int, end: int) -> int:
    capacity = slab[entry + D_CAPACITY]
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    raws = slab[entry + D_OFFSET] + code[column + C_RAW] * capacity
    valids = slab[entry + D_OFFSET] + code[P_VALID] * capacity
    always = code[column + C_ALWAYS] != 0
    best = MIN_INT64 if highest else MAX_INT64
    for j in range(start, end):
        if always or (slab[valids + j] >> c) & 1:
            raw = slab[raws + j]
            best = max(best, raw) if highest else min(best, raw)
    return best


@compiled
def _since(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    column: int,
    function: int,
    first: int,
    count: int,
    out: Slab,
    into: int,
) -> int:
    """Microseconds since the last or first entry; the request, at t, is never older."""
    if count > 0:
        ordinal = first + count - 1 if function == F_SINCE_LAST else first
        entry, index = select(code, slab, key, column, ordinal)
        out[into] = row[at + R_TIME] - slab[slab[entry + D_OFFSET] + index]
    return VALUE


@compiled
def _ordered(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    current: bool,
    output: int,
    first: int,
    count: int,
    out: Slab,
    into: int,
) -> int:
    """FIRST, LAST and LAST_N by the order key; the request stands among entries of its instant by its id."""
    c = code[output + O_COLUMN]
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    function = code[output + O_FUNCTION]
    own = raw_of(code, c, row[at + R_VALUES + c]) if current else 0
    if function == F_FIRST:
        if count == 0:
            value = own
        else:
            entry, index = select(code, slab, key, column, first)
            value = slab[slab[entry + D_OFFSET] + code[column + C_RAW] * slab[entry + D_CAPACITY] + index]
            if current and _after(code, slab, key, entry, index, row, at):
                value = own
        out[into] = sortable(value) if code[column + C_KIND] == _FLOAT else value
        return VALUE
    wanted = 1 if function == F_LAST else code[output + O_N]
    n = min(wanted, count + (1 if current else 0))
    place = into if function == F_LAST else into + 1
    left = count
    waiting = current
    for k in range(n):
        take_own = waiting and left == 0
        value = own
        if left > 0:
            entry, index = select(code, slab, key, column, first + left - 1)
            take_own = waiting and not _after(code, slab, key, entry, index, row, at)
            if not take_own:
                value = slab[slab[entry + D_OFFSET] + code[column + C_RAW] * slab[entry + D_CAPACITY] + index]
                left -= 1
        if take_own:
            waiting = False
        out[place + n - 1 - k] = sortable(value) if code[column + C_KIND] == _FLOAT else value
    if function == F_LAST_N:
        out[into] = n
    return VALUE


@compiled
def _after(code: Slab, slab: Slab, key: int, entry: int, index: int, row: Slab, at: int) -> bool:
    chunk = (entry - slab[key + K_DIRECTORY]) // code[P_ROW]
    return behind(code, slab, key, chunk, index, row, at)


@compiled
def _lookup(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    c: int,
    high_chunk: int,
    high_index: int,
    low_chunk: int,
    low_index: int,
    out: Slab,
    into: int,
) -> int:
    """The newest event's value, null where that is null."""
    if _ordinal(code, slab, key, -1, high_chunk, high_index) == _ordinal(code, slab, key, -1, low_chunk, low_index):
        return EMPTY
    entry = slab[key + K_DIRECTORY] + high_chunk * code[P_ROW]
    if high_index == 0:
        entry -= code[P_ROW]
        high_index = slab[entry + D_LENGTH]
    raw, valid = value_at(code, slab, entry, high_index - 1, c, row[at + R_TIME])
    if not valid:
        return EMPTY
    out[into] = sortable(raw) if code[code[P_COLUMN_TABLE] + c * COLUMN_FIELDS + C_KIND] == _FLOAT else raw
    return VALUE
