"""A key as it was before an instant, for as long as a question takes; then every word is as it was. Touches its slab.

The one idea: nothing later than t is read, and a request's own event lies at t, so whoever leaves out what lies at t
and behind it, and puts back the others of that instant, has the key without the request's event. Totals run in order of
time, so leaving out is shortening two lengths. All words that an insert or an answer may write then are copied before
and put back after; new memory is taken behind what is used, and is free again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from headrace.core.kernel.program import (
    C_ALWAYS,
    C_EXTREMA,
    C_RAW,
    COLUMN_FIELDS,
    D_CAPACITY,
    D_FIRST,
    D_LENGTH,
    D_OFFSET,
    P_COLUMN_TABLE,
    P_COLUMNS,
    P_EXTREMA,
    P_LANES,
    P_PREFIX_WORDS,
    P_ROW,
    P_VALID,
    Words,
)
from headrace.core.kernel.slab import (
    K_CAPACITY,
    K_CHUNKS,
    K_DIRECTORY,
    K_TABLES,
    KEY_WORDS,
    MAX_INT64,
    MIN_INT64,
    S_EDGES_KEY,
    S_FREE_CHUNKS,
    S_HORIZON,
    S_SCRATCH,
)


@contextmanager
def before(code: Words, slab: Words, key: int, time: int, *, head: int) -> Iterator[int]:
    """The key without its entries at `time` and later; how many entries at exactly `time` that hides. head: words of
    the slab before its first key. One thread; what is inserted meanwhile is gone afterwards."""
    row, directory, chunks = int(code[P_ROW]), int(slab[key + K_DIRECTORY]), int(slab[key + K_CHUNKS])
    chunk, index, hidden = _found(slab, row, directory, chunks, time)
    kept = [(0, slab[:head].copy()), (key, slab[key : key + KEY_WORDS].copy())]
    if chunks:
        words = int(slab[key + K_CAPACITY]) * (row + 2 * int(code[P_EXTREMA]))
        kept.append((directory, slab[directory : directory + words].copy()))
        for number in (chunk - 1, chunk):  # an insert at the end may move the chunk ahead of an empty one
            if 0 <= number < chunks:
                entry = directory + number * row
                at, capacity = int(slab[entry + D_OFFSET]), int(slab[entry + D_CAPACITY])
                words = capacity * (int(code[P_LANES]) + int(code[P_PREFIX_WORDS]))
                kept.append((at, slab[at : at + words].copy()))
    try:
        # Nothing from the free lists, whose blocks hold their links; nothing forgotten, which would move chunks; no
        # table of distinct values, which names places behind `time`; no edges of the question before.
        slab[S_FREE_CHUNKS:S_SCRATCH] = 0
        slab[S_EDGES_KEY], slab[S_HORIZON], slab[key + K_TABLES] = 0, MIN_INT64, 0
        slab[key + K_CHUNKS] = chunk + (index > 0)
        if index:
            slab[directory + chunk * row + D_LENGTH] = index
            _narrow(code, slab, key, chunk, index)
        yield hidden
    finally:
        for at, words_before in kept:
            slab[at : at + len(words_before)] = words_before


def _found(slab: Words, row: int, directory: int, chunks: int, time: int) -> tuple[int, int, int]:
    """(chunk, index) of the first entry at `time` or later, behind the last where there is none; how many lie at it."""
    if not chunks:
        return 0, 0, 0
    firsts = slab[directory + D_FIRST : directory + chunks * row : row]
    chunk = max(int(np.searchsorted(firsts, time)) - 1, 0)
    first: tuple[int, int] | None = None
    hidden = 0
    for number in range(chunk, chunks):
        entry = directory + number * row
        at, length = int(slab[entry + D_OFFSET]), int(slab[entry + D_LENGTH])
        low, high = np.searchsorted(slab[at : at + length], (time, time + 1)).tolist()
        if first is None and (low < length or number + 1 == chunks):
            first = number, low
        hidden += high - low
        if high < length:
            break
    assert first is not None, "the last chunk gives one"
    return *first, hidden


def _narrow(code: Words, slab: Words, key: int, chunk: int, length: int) -> None:
    """The extremes of a chunk, of its first entries alone: another chunk may come behind it."""
    row, directory = int(code[P_ROW]), int(slab[key + K_DIRECTORY])
    entry = directory + chunk * row
    at, capacity = int(slab[entry + D_OFFSET]), int(slab[entry + D_CAPACITY])
    for c in range(int(code[P_COLUMNS])):
        column = int(code[P_COLUMN_TABLE]) + c * COLUMN_FIELDS
        extrema = int(code[column + C_EXTREMA])
        if extrema < 0:
            continue
        lane = at + int(code[column + C_RAW]) * capacity
        raw = slab[lane : lane + length]
        if not code[column + C_ALWAYS]:
            lane = at + int(code[P_VALID]) * capacity
            raw = raw[(slab[lane : lane + length] >> c) & 1 != 0]
        extremes = directory + int(slab[key + K_CAPACITY]) * (row + 2 * extrema) + chunk
        slab[extremes] = raw.min(initial=MAX_INT64)
        slab[extremes + int(slab[key + K_CAPACITY])] = raw.max(initial=MIN_INT64)
