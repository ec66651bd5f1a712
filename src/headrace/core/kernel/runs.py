"""Rows of one key in order, answered and inserted together: how a replay goes fast, to the same bits.

The one idea: a row behind everything its key holds sees exactly what stands before it, so a run of such rows can enter
the chunk first; each row's windows then end at its own place, the windows' beginnings only ever move forward, and an
output is one loop over the run. Only for programs whose outputs are differences of one-word totals (Program.narrow). A
row that comes late, and what needs another chunk, goes the ordinary way.
"""

from __future__ import annotations

from typing import Final

from headrace.core.aggregate import Reason
from headrace.core.kernel.answer import find_edges, publish
from headrace.core.kernel.memory import expect_words
from headrace.core.kernel.program import (
    C_ALWAYS,
    C_COUNT,
    C_RAW,
    C_SCALE,
    C_SUM,
    COLUMN_FIELDS,
    D_BEFORE,
    D_CAPACITY,
    D_FIRST,
    D_LENGTH,
    D_OFFSET,
    DIRECTORY_FIXED,
    E_VALUE,
    EDGE_FIELDS,
    F_COUNT,
    F_SUM,
    O_COLUMN,
    O_CURRENT,
    O_FUNCTION,
    O_HIGH,
    O_LOW,
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
    P_PREFIXES,
    P_ROW,
    P_SLOTS,
    P_VALID,
    PREFIX_COUNT,
    PREFIX_FIELDS,
    X_COLUMN,
    X_KIND,
    X_OFFSET,
    Flag,
)
from headrace.core.kernel.slab import (
    EDGE_WORDS,
    FLAG_BITS,
    G_CHUNK,
    G_INDEX,
    K_CHUNKS,
    K_DIRECTORY,
    MAX_INT64,
    R_META,
    R_TIME,
    R_VALID,
    R_VALUES,
    S_CAPACITY,
    S_EDGES_KEY,
    S_SCRATCH,
    S_USED,
    edges_at,
)
from headrace.core.kernel.wide import EXACT_FLOAT, round_ratio
from headrace.core.kernel.words import Bytes, Slab, apart

RUN_MAX: Final = 64  # rows: what they need stays in the first-level cache
_QUERY, _OVERLAY, _INSERT = int(Flag.QUERY), int(Flag.OVERLAY), int(Flag.INSERT)
_FLAGS_MASK: Final = (1 << FLAG_BITS) - 1
_EMPTY = int(Reason.EMPTY)


@apart
def run_length(code: Slab, slab: Slab, key: int, packed: Slab, width: int, first: int, last: int) -> int:
    """How many rows from `first` on are asked and then inserted alike, each at or behind all before it, with room for
    them in the key's last chunk and in the slab; 0 or 1: not worth it."""
    chunks = slab[key + K_CHUNKS]
    if chunks == 0 or slab[S_USED] + _scratch_words(code) > slab[S_CAPACITY]:
        return 0
    at = first * width
    flags = packed[at + R_META] & _FLAGS_MASK
    if flags != _QUERY | _INSERT and flags != _QUERY | _INSERT | _OVERLAY:
        return 0
    entry = slab[key + K_DIRECTORY] + (chunks - 1) * code[P_ROW]
    length = slab[entry + D_LENGTH]
    end = min(last, first + min(slab[entry + D_CAPACITY] - length, RUN_MAX))
    time = slab[slab[entry + D_OFFSET] + length - 1] if length > 0 else packed[at + R_TIME]
    i = first
    while i < end and packed[at + R_TIME] >= time and packed[at + R_META] & _FLAGS_MASK == flags:
        time = packed[at + R_TIME]
        at += width
        i += 1
    return i - first


@apart
def _scratch_words(code: Slab) -> int:
    """An array of RUN_MAX for each edge, and for the beginning, of the positions and of each total."""
    return (code[P_EDGES] + 1) * (1 + code[P_PREFIX_WORDS]) * RUN_MAX


@apart
def answer_run(
    code: Slab, slab: Slab, key: int, packed: Slab, width: int, first: int, n: int, out: Slab, reasons: Bytes
) -> None:
    """Answer n rows from `first` on and insert them, n from `run_length`. Reasons are written where they are not VALUE.

    Cost: O(1) a row and output, O(1) on average a row and edge.
    """
    at = first * width
    slots = code[P_SLOTS]
    for i in range(n):  # outputs lie in the order of the questions, so each is far from the one before
        into = (packed[at + i * width + R_META] >> FLAG_BITS) * slots
        expect_words(out, into)
        expect_words(out, into + slots - 1)
    find_edges(code, slab, key, packed, at)
    entry = slab[key + K_DIRECTORY] + (slab[key + K_CHUNKS] - 1) * code[P_ROW]
    before = slab[entry + D_LENGTH]
    _append(code, slab, entry, packed, width, at, n)
    step = (1 + code[P_PREFIX_WORDS]) * RUN_MAX
    here = slab[S_USED]
    for e in range(code[P_EDGES]):
        _follow_edge(code, slab, key, packed, width, at, before, n, e, here + e * step)
    slab[S_EDGES_KEY] = 0  # the places in scratch are those of the run's first row
    beginning = here + code[P_EDGES] * step
    for i in range(step):
        slab[beginning + i] = 0
    for o in range(code[P_OUTPUTS]):
        _answer_output(code, slab, packed, width, at, n, o, here, step, out, reasons)


@apart
def _append(code: Slab, slab: Slab, entry: int, packed: Slab, width: int, at: int, n: int) -> None:
    """Rows behind the last of a chunk that has room for them."""
    offset = slab[entry + D_OFFSET]
    capacity = slab[entry + D_CAPACITY]
    length = slab[entry + D_LENGTH]
    for i in range(n):
        slab[offset + length + i] = packed[at + i * width + R_TIME]
    if code[P_VALID] >= 0:
        lane = offset + code[P_VALID] * capacity + length
        for i in range(n):
            slab[lane + i] = packed[at + i * width + R_VALID]
    for c in range(code[P_COLUMNS]):
        raw = code[code[P_COLUMN_TABLE] + c * COLUMN_FIELDS + C_RAW]
        if raw >= 0:
            lane = offset + raw * capacity + length
            for i in range(n):
                slab[lane + i] = packed[at + i * width + R_VALUES + c]
    words = code[P_PREFIX_WORDS]
    base = offset + code[P_LANES] * capacity + length * words
    for p in range(code[P_PREFIXES]):
        prefix = code[P_PREFIX_TABLE] + p * PREFIX_FIELDS
        into = base + code[prefix + X_OFFSET]
        c = code[prefix + X_COLUMN]
        counts = code[prefix + X_KIND] == PREFIX_COUNT
        total = slab[into - words] if length > 0 else 0
        for i in range(n):
            row = at + i * width
            if (packed[row + R_VALID] >> c) & 1:
                total += 1 if counts else packed[row + R_VALUES + c]
            slab[into + i * words] = total
    slab[entry + D_LENGTH] = length + n
    slab[entry + D_FIRST] = slab[offset]


@apart
def _follow_edge(
    code: Slab, slab: Slab, key: int, packed: Slab, width: int, at: int, before: int, n: int, e: int, into: int
) -> None:
    """For each row of the run how many entries stand before an edge, then the totals before it, prefix by prefix.

    before: the last chunk's entries ahead of the run; row i sees i more.
    """
    value = code[code[P_EDGE_TABLE] + e * EDGE_FIELDS + E_VALUE]
    edge = edges_at(code) + e * EDGE_WORDS
    chunk = slab[edge + G_CHUNK]
    last = slab[key + K_CHUNKS] - 1
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    if value == 0:  # the rows' own instants: everything ahead of each, as no row is behind another
        entry = slab[key + K_DIRECTORY] + last * code[P_ROW]
        for i in range(n):
            slab[into + i] = before + i
        _totals(code, slab, entry, 0, n, into)
        return
    index = slab[edge + G_INDEX]
    done = 0
    while done < n:
        first = done
        times = slab[entry + D_OFFSET]
        length = slab[entry + D_LENGTH]
        end = slab[entry + code[P_ROW] + D_FIRST] if chunk < last else MAX_INT64
        while done < n:
            instant = packed[at + done * width + R_TIME] + value
            if instant >= end:
                break
            # An edge mostly moves by few entries, how many no branch can foretell: so four are compared at once.
            moved = 4
            if index + 4 <= length:
                moved = _passed(slab, times + index, instant)
                index += moved
            if moved == 4:
                while index < length and slab[times + index] <= instant:
                    index += 1
            slab[into + done] = index
            done += 1
        _totals(code, slab, entry, first, done, into)
        chunk += 1
        entry += code[P_ROW]
        index = 0


@apart
def _passed(slab: Slab, times: int, instant: int) -> int:
    """How many of four sorted words are <= instant."""
    low = (1 if slab[times] <= instant else 0) + (1 if slab[times + 1] <= instant else 0)
    return low + (1 if slab[times + 2] <= instant else 0) + (1 if slab[times + 3] <= instant else 0)


@apart
def _totals(code: Slab, slab: Slab, entry: int, first: int, last: int, into: int) -> None:
    """From places in a chunk, at `into` for rows [first, last), the totals before them; the places become positions."""
    words = code[P_PREFIX_WORDS]
    inside = slab[entry + D_OFFSET] + code[P_LANES] * slab[entry + D_CAPACITY] - words
    for w in range(words):
        ahead = slab[entry + DIRECTORY_FIXED + w]
        totals = into + (1 + w) * RUN_MAX
        for i in range(first, last):
            index = slab[into + i]
            slab[totals + i] = ahead + (slab[inside + index * words + w] if index > 0 else 0)
    ahead = slab[entry + D_BEFORE]
    for i in range(first, last):
        slab[into + i] += ahead


@apart
def _answer_output(
    code: Slab,
    slab: Slab,
    packed: Slab,
    width: int,
    at: int,
    n: int,
    o: int,
    here: int,
    step: int,
    out: Slab,
    reasons: Bytes,
) -> None:
    """One output of every row of the run."""
    output = code[P_OUTPUT_TABLE] + o * OUTPUT_FIELDS
    function = code[output + O_FUNCTION]
    c = code[output + O_COLUMN]
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS if c >= 0 else -1
    current = packed[at + R_META] & _OVERLAY != 0 and code[output + O_CURRENT] != 0
    high = here + step * code[output + O_HIGH]
    low = here + step * (code[output + O_LOW] if code[output + O_LOW] >= 0 else code[P_EDGES])
    counted = 0
    if c >= 0 and code[column + C_ALWAYS] == 0:
        counted = RUN_MAX * (1 + code[code[P_PREFIX_TABLE] + code[column + C_COUNT] * PREFIX_FIELDS + X_OFFSET])
    summed = 0
    if function != F_COUNT:
        summed = RUN_MAX * (1 + code[code[P_PREFIX_TABLE] + code[column + C_SUM] * PREFIX_FIELDS + X_OFFSET])
    scale = code[column + C_SCALE] if c >= 0 else 1
    slots = code[P_SLOTS]
    slot = code[output + O_SLOT]
    outputs = code[P_OUTPUTS]
    for i in range(n):
        row = at + i * width
        answered = packed[row + R_META] >> FLAG_BITS
        into = answered * slots + slot
        own = current and (c < 0 or (packed[row + R_VALID] >> c) & 1 != 0)
        count = slab[high + counted + i] - slab[low + counted + i] + (1 if own else 0)
        if function == F_COUNT:
            out[into] = count
            continue
        total = slab[high + summed + i] - slab[low + summed + i]
        if own:
            total += packed[row + R_VALUES + c]
        if count == 0:
            out[into] = 0
            reasons[answered * outputs + o] = _EMPTY
        elif function == F_SUM:
            out[into] = total
            out[into + 1] = -1 if total < 0 else 0
        else:
            _ratio(slab, total, count, scale, out, into)


@apart
def _ratio(slab: Slab, total: int, count: int, scale: int, out: Slab, into: int) -> None:
    """A mean: what `round_ratio` does, without its way through memory where both sides are exact doubles."""
    whole = float(count) * float(scale)
    if -EXACT_FLOAT < total < EXACT_FLOAT and whole < EXACT_FLOAT:
        publish(total / whole, out, into)
    else:
        slab[S_SCRATCH] = total
        publish(round_ratio(slab, S_SCRATCH, 1, 0, count, scale), out, into)
