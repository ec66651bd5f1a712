"""Facts that come later: an entry's column changes, and remembers since when (SEMANTICS 4.1, 4.2)."""

from __future__ import annotations

from headrace.core.kernel.chunks import add_behind, free_history, locate, refresh_extrema
from headrace.core.kernel.program import (
    C_HISTORY,
    C_RAW,
    COLUMN_FIELDS,
    D_CAPACITY,
    D_LENGTH,
    D_OFFSET,
    P_COLUMN_TABLE,
    P_LANES,
    P_PREFIX_TABLE,
    P_PREFIX_WORDS,
    P_PREFIXES,
    P_ROW,
    P_SEQ,
    P_VALID,
    PREFIX_FIELDS,
    X_COLUMN,
    X_OFFSET,
    X_WORDS,
)
from headrace.core.kernel.slab import (
    K_DIRECTORY,
    K_KNOWN,
    MIN_INT64,
    N_FROM,
    N_NEXT,
    N_VALID,
    N_VALUE,
    NODE_WORDS,
    S_FREE_NODES,
    S_SCRATCH,
    raw_of,
    take,
)
from headrace.core.kernel.totals import add_to_all, contribute
from headrace.core.kernel.wide import subtract
from headrace.core.kernel.words import Slab, apart


@apart
def update(code: Slab, slab: Slab, key: int, time: int, seq: int, change: Slab, at: int) -> bool:
    """Give an entry's column the value change[at + 2] from instant change[at + 1] on (see Items); False: no such entry.

    Cost: O(CHUNK) and O(chunks behind it). The caller asked for `room` first.
    """
    chunk, index = locate(code, slab, key, time)
    found = False
    while not found:
        if index == 0:
            if chunk == 0:
                return False
            chunk -= 1
            index = slab[slab[key + K_DIRECTORY] + chunk * code[P_ROW] + D_LENGTH]
            continue
        index -= 1
        entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
        first = slab[entry + D_OFFSET] + index
        if slab[first] != time:
            return False
        found = slab[first + code[P_SEQ] * slab[entry + D_CAPACITY]] == seq
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    c = change[at]
    known_from = change[at + 1]
    raw = raw_of(code, c, change[at + 2])
    valid = (change[at + 3] & 1) != 0
    _remember(code, slab, entry, index, c, known_from, raw, change[at + 3])
    slab[key + K_KNOWN] = max(slab[key + K_KNOWN], known_from)
    _replace(code, slab, key, chunk, index, c, raw, valid)
    return True


@apart
def _remember(code: Slab, slab: Slab, entry: int, index: int, c: int, known_from: int, raw: int, bits: int) -> None:
    """Push a node on the entry's history; its value so far becomes the chain's last, from the beginning of time."""
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    capacity = slab[entry + D_CAPACITY]
    offset = slab[entry + D_OFFSET] + index
    head = offset + code[column + C_HISTORY] * capacity
    if bits & 2:
        free_history(slab, head)
        if known_from == MIN_INT64:
            return
        _push(slab, head, MIN_INT64, 0, 0)
    elif slab[head] == 0:
        was = (slab[offset + code[P_VALID] * capacity] >> c) & 1
        value = slab[offset + code[column + C_RAW] * capacity] if code[column + C_RAW] >= 0 else 0
        _push(slab, head, MIN_INT64, value, was)
    _push(slab, head, known_from, raw, bits & 1)


@apart
def _push(slab: Slab, head: int, known_from: int, raw: int, valid: int) -> None:
    node = take(slab, S_FREE_NODES, NODE_WORDS)
    slab[node + N_NEXT] = slab[head]
    slab[node + N_FROM] = known_from
    slab[node + N_VALUE] = raw
    slab[node + N_VALID] = valid
    slab[head] = node


@apart
def _replace(code: Slab, slab: Slab, key: int, chunk: int, index: int, c: int, raw: int, valid: bool) -> None:
    """Another value in an entry's column: the difference goes into all totals behind it."""
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    offset = slab[entry + D_OFFSET]
    capacity = slab[entry + D_CAPACITY]
    column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
    raw_at = offset + code[column + C_RAW] * capacity + index
    valid_at = offset + code[P_VALID] * capacity + index
    words = code[P_PREFIX_WORDS]
    had = ((slab[valid_at] >> c) & 1) != 0
    other = S_SCRATCH + words + 8
    for w in range(words):
        slab[S_SCRATCH + w] = 0
    for p in range(code[P_PREFIXES]):
        prefix = code[P_PREFIX_TABLE] + p * PREFIX_FIELDS
        if code[prefix + X_COLUMN] != c:
            continue
        into = S_SCRATCH + code[prefix + X_OFFSET]
        contribute(code, slab, p, into, raw, valid)
        contribute(code, slab, p, other, slab[raw_at] if code[column + C_RAW] >= 0 else 0, had)
        subtract(slab, into, into, other, code[prefix + X_WORDS])
    if code[column + C_RAW] >= 0:
        slab[raw_at] = raw
    slab[valid_at] = (slab[valid_at] | (1 << c)) if valid else (slab[valid_at] & ~(1 << c))
    base = offset + code[P_LANES] * capacity
    add_to_all(code, slab, base + index * words, words, slab[entry + D_LENGTH] - index, S_SCRATCH)
    add_behind(code, slab, key, chunk + 1, 0)
    refresh_extrema(code, slab, key, chunk)
