"""A query answered: every output of a program over one key's chunks, the request itself overlaid. Reads, never changes.

The one idea: an output is a difference of running totals at two edges, rounded once; order-dependent ones pick an entry
by its ordinal among the entries that are not null, which the running counts find. Where totals cannot answer (floats
outside the fixed point, facts from after t) the window's values are gathered and folded anew: slower, the same bits.
"""

from __future__ import annotations

import math

from headrace.core.aggregate import Reason
from headrace.core.kernel.chunks import behind, locate
from headrace.core.kernel.distinct import distinct
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
    EDGE_WORDS,
    G_CHUNK,
    G_ENTRY,
    G_INDEX,
    G_POSITION,
    G_TOTALS,
    K_CHUNKS,
    K_DIRECTORY,
    K_KNOWN,
    MAX_INT64,
    MIN_INT64,
    NO_ROOM,
    R_TIME,
    R_VALID,
    R_VALUES,
    S_EDGES_KEY,
    S_SCRATCH,
    edges_at,
    extremes_at,
    raw_of,
    sortable,
    sums_at,
)
from headrace.core.kernel.totals import clear_number, contribute, copy_number
from headrace.core.kernel.wide import add, round_ratio, round_variance, subtract
from headrace.core.kernel.words import Bytes, Slab, apart, float_bits, to_int64

VALUE = int(Reason.VALUE)
EMPTY = int(Reason.EMPTY)
OVERFLOW = int(Reason.OVERFLOW)
_FLOAT = int(ColumnKind.FLOAT)
STEPS_MAX = 16  # entries that an edge may advance one by one before a search is quicker


@apart
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
) -> bool:
    """Every output at the point row[at + R_TIME] into out[out_at:], its reason into reasons[reasons_at:].

    False: there was no room to gather a window; nothing changed. overlay: the row is the request, and counts in outputs
    that say `current`.
    Cost: O(log entries) an edge and O(1) an output, but O(entries moved past) for
    DISTINCT and O(window) for what must be gathered.
    """
    find_edges(code, slab, key, row, at)
    for o in range(code[P_OUTPUTS]):
        output = code[P_OUTPUT_TABLE] + o * OUTPUT_FIELDS
        into = out_at + code[output + O_SLOT]
        reason = answer_one(code, slab, key, row, at, overlay, output, out, into)
        if reason == NO_ROOM:
            return False
        reasons[reasons_at + o] = reason
    return True


@apart
def find_edges(code: Slab, slab: Slab, key: int, row: Slab, at: int) -> None:
    """Every edge, and the key's beginning, as rows of scratch.

    Queries of one key mostly ask at rising instants, so the search begins where the last one ended.
    """
    t = row[at + R_TIME]
    same = slab[S_EDGES_KEY] == key
    slab[S_EDGES_KEY] = key
    into = edges_at(code)
    for e in range(code[P_EDGES]):
        edge = code[P_EDGE_TABLE] + e * EDGE_FIELDS
        value = code[edge + E_VALUE]
        instant = t + value if code[edge + E_KIND] == EDGE_OFFSET else row[at + R_VALUES + code[P_COLUMNS] + value]
        chunk = -1
        index = 0
        if same:
            chunk = slab[into + G_CHUNK]
            index = _advance(code, slab, key, chunk, slab[into + G_INDEX], instant)
        if chunk < 0 or index < 0:
            chunk, index = locate(code, slab, key, instant)
        _set_edge(code, slab, key, chunk, index, into)
        into += EDGE_WORDS
    _set_edge(code, slab, key, 0, 0, into)


@apart
def _advance(code: Slab, slab: Slab, key: int, chunk: int, index: int, t: int) -> int:
    """The index behind the last entry with time <= t, if it lies a few steps from this one in its chunk; else -1."""
    if chunk >= slab[key + K_CHUNKS]:
        return -1
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    length = slab[entry + D_LENGTH]
    times = slab[entry + D_OFFSET]
    if index > length or (index == 0 and chunk > 0) or (index > 0 and slab[times + index - 1] > t):
        return -1
    last = min(length, index + STEPS_MAX)
    while index < last and slab[times + index] <= t:
        index += 1
    if index < length:
        return index if slab[times + index] > t else -1
    return index if chunk + 1 == slab[key + K_CHUNKS] else -1


@apart
def _set_edge(code: Slab, slab: Slab, key: int, chunk: int, index: int, into: int) -> None:
    entry = 0
    totals = 0
    position = 0
    if slab[key + K_CHUNKS] > 0:
        entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
        position = slab[entry + D_BEFORE] + index
        if index > 0:
            totals = slab[entry + D_OFFSET] + code[P_LANES] * slab[entry + D_CAPACITY]
            totals += (index - 1) * code[P_PREFIX_WORDS]
    slab[into + G_CHUNK] = chunk
    slab[into + G_INDEX] = index
    slab[into + G_ENTRY] = entry
    slab[into + G_TOTALS] = totals
    slab[into + G_POSITION] = position


@apart
def answer_one(
    code: Slab, slab: Slab, key: int, row: Slab, at: int, overlay: bool, output: int, out: Slab, into: int
) -> int:
    """One output; returns its reason. What is null is written as 0."""
    out[into] = 0
    function = code[output + O_FUNCTION]
    c = code[output + O_COLUMN]
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS if c >= 0 else -1
    current = overlay and code[output + O_CURRENT] != 0 and (c < 0 or ((row[at + R_VALID] >> c) & 1) != 0)
    edges = edges_at(code)
    high = edges + EDGE_WORDS * code[output + O_HIGH]
    low = edges + EDGE_WORDS * (code[output + O_LOW] if code[output + O_LOW] >= 0 else code[P_EDGES])
    if function == F_LOOKUP:
        return _lookup(code, slab, row, at, c, low, high, out, into)
    if function == F_DISTINCT:
        return distinct(code, slab, key, row, at, current, output, low, high, out, into)
    late = c >= 0 and code[column + C_HISTORY] >= 0 and row[at + R_TIME] < slab[key + K_KNOWN]
    if late:
        return fold(code, slab, key, row, at, current, output, low, high, out, into)
    first = _ordinal(code, slab, column, low)
    count = _ordinal(code, slab, column, high) - first
    if function == F_COUNT:
        out[into] = count + (1 if current else 0)
        return VALUE
    if count == 0 and not current:
        return EMPTY
    if function == F_MIN or function == F_MAX:
        return _extreme(code, slab, key, row, at, current, c, function == F_MAX, low, high, out, into)
    if function == F_SINCE_LAST or function == F_SINCE_FIRST:
        return _since(code, slab, key, row, at, column, function, first, count, out, into)
    if function == F_FIRST or function == F_LAST or function == F_LAST_N:
        return _ordered(code, slab, key, row, at, current, output, first, count, out, into)
    if code[column + C_UNFIT] >= 0:
        _total(code, slab, row, at, current, code[column + C_UNFIT], c, low, high, S_SCRATCH)
        if slab[S_SCRATCH] > 0:  # the window holds a float that the fixed point does not
            return fold(code, slab, key, row, at, current, output, low, high, out, into)
    return _rounded(code, slab, row, at, current, output, count + (1 if current else 0), low, high, out, into)


@apart
def _rounded(
    code: Slab,
    slab: Slab,
    row: Slab,
    at: int,
    current: bool,
    output: int,
    n: int,
    low: int,
    high: int,
    out: Slab,
    into: int,
) -> int:
    """Sums, means, rates, variances: differences of totals, over n > 0 values, rounded once."""
    function = code[output + O_FUNCTION]
    c = code[output + O_COLUMN]
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    scale = code[column + C_SCALE]
    _total(code, slab, row, at, current, code[column + C_SUM], c, low, high, S_SCRATCH)
    prefix = code[P_PREFIX_TABLE] + code[column + C_SUM] * PREFIX_FIELDS
    words = code[prefix + X_WORDS]
    unit = code[prefix + X_UNIT]
    if function == F_SUM and code[column + C_KIND] != _FLOAT:
        out[into] = slab[S_SCRATCH]
        out[into + 1] = slab[S_SCRATCH + 1] if words > 1 else (-1 if slab[S_SCRATCH] < 0 else 0)
        return VALUE
    if function == F_SUM:
        return publish(round_ratio(slab, S_SCRATCH, words, unit, 1, 1), out, into)
    if function == F_MEAN or function == F_RATE:
        return publish(round_ratio(slab, S_SCRATCH, words, unit, n, scale), out, into)
    sample = code[output + O_SAMPLE] != 0
    if sample and n < 2:
        return EMPTY
    square_at = S_SCRATCH + 4
    _total(code, slab, row, at, current, code[column + C_SQUARE], c, low, high, square_at)
    other = code[P_PREFIX_TABLE] + code[column + C_SQUARE] * PREFIX_FIELDS
    square_words = code[other + X_WORDS]
    square_unit = code[other + X_UNIT]
    scratch = sums_at(code) + 8
    variance = round_variance(
        slab, S_SCRATCH, words, square_at, square_words, n, unit, square_unit, scale, sample, slab, scratch
    )
    return publish(math.sqrt(variance) if function == F_DEVIATION else variance, out, into)


@apart
def publish(x: float, out: Slab, into: int) -> int:
    """A float's bits; null with OVERFLOW where it is not finite."""
    if not (x - x == 0.0):
        return OVERFLOW
    out[into] = to_int64(float_bits(x + 0.0))
    return VALUE


@apart
def _ordinal(code: Slab, slab: Slab, column: int, edge: int) -> int:
    """How many entries, not null in the column (its place in the table; -1: all), stand before an edge."""
    if column < 0 or code[column + C_ALWAYS] != 0:
        return slab[edge + G_POSITION]
    entry = slab[edge + G_ENTRY]
    if entry == 0:
        return 0
    offset = code[code[P_PREFIX_TABLE] + code[column + C_COUNT] * PREFIX_FIELDS + X_OFFSET]
    totals = slab[edge + G_TOTALS]
    return slab[entry + DIRECTORY_FIXED + offset] + (slab[totals + offset] if totals > 0 else 0)


@apart
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


@apart
def _total(
    code: Slab, slab: Slab, row: Slab, at: int, current: bool, prefix: int, c: int, low: int, high: int, into: int
) -> None:
    """A prefix's total between two edges, the request included where it counts."""
    table = code[P_PREFIX_TABLE] + prefix * PREFIX_FIELDS
    words = code[table + X_WORDS]
    offset = code[table + X_OFFSET]
    above = slab[high + G_TOTALS]
    below = slab[low + G_TOTALS]
    top = slab[high + G_ENTRY]
    bottom = slab[low + G_ENTRY]
    if words == 1:
        total = (slab[above + offset] if above > 0 else 0) - (slab[below + offset] if below > 0 else 0)
        if top != bottom:
            total += slab[top + DIRECTORY_FIXED + offset] - slab[bottom + DIRECTORY_FIXED + offset]
        slab[into] = total
    else:
        if above > 0:
            copy_number(slab, into, above + offset, words)
        else:
            clear_number(slab, into, words)
        if below > 0:
            subtract(slab, into, into, below + offset, words)
        if top != bottom:
            add(slab, into, into, top + DIRECTORY_FIXED + offset, words)
            subtract(slab, into, into, bottom + DIRECTORY_FIXED + offset, words)
    if current:
        other = S_SCRATCH + code[P_PREFIX_WORDS] + 8
        contribute(code, slab, prefix, other, raw_of(code, c, row[at + R_VALUES + c]), True)
        if words == 1:
            slab[into] += slab[other]
        else:
            add(slab, into, into, other, words)


@apart
def _extreme(
    code: Slab,
    slab: Slab,
    key: int,
    row: Slab,
    at: int,
    current: bool,
    c: int,
    highest: bool,
    low: int,
    high: int,
    out: Slab,
    into: int,
) -> int:
    """The lowest or highest value between two edges and of the request where it counts; there is at least one."""
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    best = MIN_INT64 if highest else MAX_INT64
    if current:
        best = raw_of(code, c, row[at + R_VALUES + c])
    if slab[high + G_POSITION] > slab[low + G_POSITION]:
        first = slab[low + G_CHUNK]
        last = slab[high + G_CHUNK]
        start = slab[low + G_INDEX]
        end = slab[high + G_INDEX] if first == last else slab[slab[low + G_ENTRY] + D_LENGTH]
        best = _scan_extreme(code, slab, slab[low + G_ENTRY], c, highest, start, end, best)
        extremes = extremes_at(code, slab, key, code[column + C_EXTREMA], 1 if highest else 0)
        if highest:
            for chunk in range(first + 1, last):
                best = max(best, slab[extremes + chunk])
        else:
            for chunk in range(first + 1, last):
                best = min(best, slab[extremes + chunk])
        if first < last:
            best = _scan_extreme(code, slab, slab[high + G_ENTRY], c, highest, 0, slab[high + G_INDEX], best)
    out[into] = sortable(best) if code[column + C_KIND] == _FLOAT else best
    return VALUE


@apart
def _scan_extreme(code: Slab, slab: Slab, entry: int, c: int, highest: bool, start: int, end: int, best: int) -> int:
    """The best so far, or what is better at places [start, end) of a chunk."""
    capacity = slab[entry + D_CAPACITY]
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    raws = slab[entry + D_OFFSET] + code[column + C_RAW] * capacity
    valids = slab[entry + D_OFFSET] + code[P_VALID] * capacity
    always = code[column + C_ALWAYS] != 0
    for j in range(start, end):
        if always or (slab[valids + j] >> c) & 1:
            raw = slab[raws + j]
            best = max(best, raw) if highest else min(best, raw)
    return best


@apart
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


@apart
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


@apart
def _after(code: Slab, slab: Slab, key: int, entry: int, index: int, row: Slab, at: int) -> bool:
    chunk = (entry - slab[key + K_DIRECTORY]) // code[P_ROW]
    return behind(code, slab, key, chunk, index, row, at)


@apart
def _lookup(code: Slab, slab: Slab, row: Slab, at: int, c: int, low: int, high: int, out: Slab, into: int) -> int:
    """The newest event's value, null where that is null."""
    if slab[high + G_POSITION] == slab[low + G_POSITION]:
        return EMPTY
    entry = slab[high + G_ENTRY]
    index = slab[high + G_INDEX]
    if index == 0:
        entry -= code[P_ROW]
        index = slab[entry + D_LENGTH]
    raw, valid = value_at(code, slab, entry, index - 1, c, row[at + R_TIME])
    if not valid:
        return EMPTY
    out[into] = sortable(raw) if code[code[P_COLUMN_TABLE] + c * COLUMN_FIELDS + C_KIND] == _FLOAT else raw
    return VALUE
