"""A key's events in memory: chunks in order of the order key, each with running totals. Touches its slab only.

The one idea: a window is the difference of two running totals, so all windows share one array of them, and a late event
must not rebuild what lies behind it. So a key's events stand in chunks of at most CHUNK; totals run inside a chunk, and
a directory holds, for each chunk, the totals before it. A late event moves at most one chunk and adds itself to the
directory rows behind (SEMANTICS 6). All of it lives in one int64 array, the slab, so a checkpoint is a copy.

A chunk of capacity n: its lanes, n words each (time first; order, seq, valid, raw values and history heads where the
program has use for them), then for each entry its prefix words, inclusive running totals from the chunk's first entry.
Raw floats are kept as integers that sort like them (`sortable`).
"""

from __future__ import annotations

from headrace.core.kernel.distinct import enter
from headrace.core.kernel.program import (
    C_EXTREMA,
    C_HISTORY,
    C_RAW,
    COLUMN_FIELDS,
    D_BEFORE,
    D_CAPACITY,
    D_FIRST,
    D_LENGTH,
    D_OFFSET,
    DIRECTORY_FIXED,
    P_COLUMN_TABLE,
    P_COLUMNS,
    P_EXTREMA,
    P_LANES,
    P_ORDER,
    P_PREFIX_TABLE,
    P_PREFIX_WORDS,
    P_PREFIXES,
    P_ROW,
    P_SEQ,
    P_TAIL,
    P_VALID,
    PREFIX_FIELDS,
    X_COLUMN,
    X_OFFSET,
)
from headrace.core.kernel.slab import (
    CHUNK,
    K_CAPACITY,
    K_CHUNKS,
    K_DIRECTORY,
    K_TABLES,
    MAX_INT64,
    MIN_INT64,
    N_NEXT,
    NEXT_CAPACITY,
    R_TIME,
    R_VALID,
    R_VALUES,
    S_FIRST_CAPACITY,
    S_FREE_CHUNKS,
    S_FREE_DIRECTORIES,
    S_FREE_NODES,
    S_HORIZON,
    S_SCRATCH,
    T_ORDER,
    T_SEQ,
    directory_words,
    extremes_at,
    give,
    log2,
    raw_of,
    take,
)
from headrace.core.kernel.totals import add_prefixes, add_to_all, contribute, subtract_prefixes, totals_behind
from headrace.core.kernel.words import Slab, apart


@apart
def _take_chunk(code: Slab, slab: Slab, capacity: int) -> int:
    return take(slab, S_FREE_CHUNKS + log2(capacity), capacity * (code[P_LANES] + code[P_PREFIX_WORDS]))


@apart
def locate(code: Slab, slab: Slab, key: int, t: int) -> tuple[int, int]:
    """(chunk, index) behind the last entry with time <= t; (0, 0) where there is none."""
    chunks = slab[key + K_CHUNKS]
    if chunks == 0:
        return 0, 0
    row = code[P_ROW]
    directory = slab[key + K_DIRECTORY]
    low = 0
    high = chunks
    while high - low > 1:
        middle = (low + high) >> 1
        if slab[directory + middle * row + D_FIRST] <= t:
            low = middle
        else:
            high = middle
    at = directory + low * row
    return low, upper_bound(slab, slab[at + D_OFFSET], slab[at + D_LENGTH], t)


@apart
def upper_bound(slab: Slab, times: int, length: int, t: int) -> int:
    """How many of the sorted words slab[times : times + length] are <= t. Branch-free inside."""
    base = times
    rest = length
    while rest > 1:
        half = rest >> 1
        base += half if slab[base + half - 1] <= t else 0
        rest -= half
    if rest == 1 and slab[base] <= t:
        base += 1
    return base - times


@apart
def insert(code: Slab, slab: Slab, key: int, row: Slab, at: int) -> None:
    """Put the row at its place by (time, order, seq). The caller asked for `room` first.

    Cost: O(1) at the end of a key; a late row O(CHUNK) and O(chunks behind it).
    """
    words = code[P_ROW]
    chunk, index = _place(code, slab, key, row, at)
    if slab[key + K_CHUNKS] == 0:
        _open_chunk(code, slab, key, 0, slab[S_FIRST_CAPACITY])
    entry = slab[key + K_DIRECTORY] + chunk * words
    if slab[entry + D_LENGTH] == slab[entry + D_CAPACITY]:
        chunk, index = _make_room(code, slab, key, chunk, index)
        entry = slab[key + K_DIRECTORY] + chunk * words
    _write(code, slab, key, chunk, index, row, at)
    if slab[key + K_TABLES] != 0:
        enter(code, slab, key, row, at, slab[entry + D_BEFORE] + index)
    if chunk + 1 < slab[key + K_CHUNKS]:
        add_behind(code, slab, key, chunk + 1, 1)


@apart
def _place(code: Slab, slab: Slab, key: int, row: Slab, at: int) -> tuple[int, int]:
    """Where the row belongs: behind all entries that are before it by the order key."""
    chunks = slab[key + K_CHUNKS]
    if chunks == 0:
        return 0, 0
    time = row[at + R_TIME]
    entry = slab[key + K_DIRECTORY] + (chunks - 1) * code[P_ROW]
    length = slab[entry + D_LENGTH]
    if length > 0 and slab[slab[entry + D_OFFSET] + length - 1] < time:
        return chunks - 1, length
    chunk, index = locate(code, slab, key, time)
    if code[P_ORDER] < 0:
        return chunk, index
    while index > 0 or chunk > 0:
        if index == 0:
            chunk -= 1
            index = slab[slab[key + K_DIRECTORY] + chunk * code[P_ROW] + D_LENGTH]
            continue
        if not behind(code, slab, key, chunk, index - 1, row, at):
            break
        index -= 1
    return chunk, index


@apart
def behind(code: Slab, slab: Slab, key: int, chunk: int, index: int, row: Slab, at: int) -> bool:
    """Whether the entry comes after the row by the order key; the program has order lanes."""
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    first = slab[entry + D_OFFSET] + index
    capacity = slab[entry + D_CAPACITY]
    if slab[first] != row[at + R_TIME]:
        return slab[first] > row[at + R_TIME]
    order = slab[first + code[P_ORDER] * capacity]
    if order != row[at + code[P_TAIL] + T_ORDER]:
        return order > row[at + code[P_TAIL] + T_ORDER]
    return slab[first + code[P_SEQ] * capacity] > row[at + code[P_TAIL] + T_SEQ]


@apart
def _write(code: Slab, slab: Slab, key: int, chunk: int, index: int, row: Slab, at: int) -> None:
    """Into a chunk with room: shift what is behind, write the lanes, run the totals on."""
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    offset = slab[entry + D_OFFSET]
    capacity = slab[entry + D_CAPACITY]
    length = slab[entry + D_LENGTH]
    if index < length:
        for lane in range(code[P_LANES]):
            base = offset + lane * capacity
            for j in range(length, index, -1):
                slab[base + j] = slab[base + j - 1]
    slab[offset + index] = row[at + R_TIME]
    if code[P_ORDER] >= 0:
        slab[offset + code[P_ORDER] * capacity + index] = row[at + code[P_TAIL] + T_ORDER]
        slab[offset + code[P_SEQ] * capacity + index] = row[at + code[P_TAIL] + T_SEQ]
    valid = row[at + R_VALID]
    if code[P_VALID] >= 0:
        slab[offset + code[P_VALID] * capacity + index] = valid
    for c in range(code[P_COLUMNS]):
        column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
        if code[column + C_RAW] >= 0:
            raw = raw_of(code, c, row[at + R_VALUES + c])
            slab[offset + code[column + C_RAW] * capacity + index] = raw
            if code[column + C_EXTREMA] >= 0 and (valid >> c) & 1:
                _widen(code, slab, key, chunk, code[column + C_EXTREMA], raw)
        if code[column + C_HISTORY] >= 0:
            slab[offset + code[column + C_HISTORY] * capacity + index] = 0
    slab[entry + D_LENGTH] = length + 1
    slab[entry + D_FIRST] = slab[offset]
    _write_prefixes(code, slab, entry, index, row, at)


@apart
def _write_prefixes(code: Slab, slab: Slab, entry: int, index: int, row: Slab, at: int) -> None:
    """The new entry's running totals, and itself added to those behind it; its contribution stays at S_SCRATCH."""
    words = code[P_PREFIX_WORDS]
    length = slab[entry + D_LENGTH]
    base = slab[entry + D_OFFSET] + code[P_LANES] * slab[entry + D_CAPACITY]
    if index < length - 1:
        for j in range(length * words - 1, (index + 1) * words - 1, -1):
            slab[base + j] = slab[base + j - words]
    valid = row[at + R_VALID]
    for p in range(code[P_PREFIXES]):
        prefix = code[P_PREFIX_TABLE] + p * PREFIX_FIELDS
        c = code[prefix + X_COLUMN]
        into = S_SCRATCH + code[prefix + X_OFFSET]
        contribute(code, slab, p, into, raw_of(code, c, row[at + R_VALUES + c]), ((valid >> c) & 1) != 0)
    here = base + index * words
    if index > 0:
        add_prefixes(code, slab, here, here - words, S_SCRATCH)
    else:
        for w in range(words):
            slab[here + w] = slab[S_SCRATCH + w]
    add_to_all(code, slab, here + words, words, length - index - 1, S_SCRATCH)


@apart
def _widen(code: Slab, slab: Slab, key: int, chunk: int, extrema: int, raw: int) -> None:
    lowest = extremes_at(code, slab, key, extrema, 0) + chunk
    highest = extremes_at(code, slab, key, extrema, 1) + chunk
    if raw < slab[lowest]:
        slab[lowest] = raw
    if raw > slab[highest]:
        slab[highest] = raw


@apart
def add_behind(code: Slab, slab: Slab, key: int, first: int, entries: int) -> None:
    """The directory from chunk `first` on: that many entries more before it, and the contribution at S_SCRATCH."""
    row = code[P_ROW]
    at = slab[key + K_DIRECTORY] + first * row
    count = slab[key + K_CHUNKS] - first
    for i in range(count):
        slab[at + i * row + D_BEFORE] += entries
    add_to_all(code, slab, at + DIRECTORY_FIXED, row, count, S_SCRATCH)


@apart
def _open_chunk(code: Slab, slab: Slab, key: int, chunk: int, capacity: int) -> None:
    """A directory row for an empty chunk at this place; its totals before are those behind the chunk ahead of it."""
    row = code[P_ROW]
    chunks = slab[key + K_CHUNKS]
    if chunks == slab[key + K_CAPACITY]:
        _grow_directory(code, slab, key)
    directory = slab[key + K_DIRECTORY]
    for j in range((chunks + 1) * row - 1, (chunk + 1) * row - 1, -1):
        slab[directory + j] = slab[directory + j - row]
    for e in range(2 * code[P_EXTREMA]):
        extremes = extremes_at(code, slab, key, 0, e)
        for j in range(chunks, chunk, -1):
            slab[extremes + j] = slab[extremes + j - 1]
    slab[key + K_CHUNKS] = chunks + 1
    entry = directory + chunk * row
    slab[entry + D_OFFSET] = _take_chunk(code, slab, capacity)
    slab[entry + D_CAPACITY] = capacity
    slab[entry + D_LENGTH] = 0
    slab[entry + D_FIRST] = MAX_INT64
    _clear_extrema(code, slab, key, chunk)
    if chunk == 0:
        slab[entry + D_BEFORE] = 0
        for w in range(code[P_PREFIX_WORDS]):
            slab[entry + DIRECTORY_FIXED + w] = 0
        return
    ahead = entry - row
    slab[entry + D_BEFORE] = slab[ahead + D_BEFORE] + slab[ahead + D_LENGTH]
    totals_behind(code, slab, ahead, slab[ahead + D_LENGTH], entry + DIRECTORY_FIXED)


@apart
def _clear_extrema(code: Slab, slab: Slab, key: int, chunk: int) -> None:
    for e in range(code[P_EXTREMA]):
        slab[extremes_at(code, slab, key, e, 0) + chunk] = MAX_INT64
        slab[extremes_at(code, slab, key, e, 1) + chunk] = MIN_INT64


@apart
def _grow_directory(code: Slab, slab: Slab, key: int) -> None:
    chunks = slab[key + K_CHUNKS]
    capacity = slab[key + K_CAPACITY]
    wanted = max(2 * capacity, 1)
    old = slab[key + K_DIRECTORY]
    made = take(slab, S_FREE_DIRECTORIES + log2(wanted), wanted * directory_words(code))
    for j in range(chunks * code[P_ROW]):
        slab[made + j] = slab[old + j]
    for e in range(code[P_ROW], directory_words(code)):
        for j in range(chunks):
            slab[made + e * wanted + j] = slab[old + e * capacity + j]
    if capacity > 0:
        give(slab, S_FREE_DIRECTORIES + log2(capacity), old)
    slab[key + K_DIRECTORY] = made
    slab[key + K_CAPACITY] = wanted


@apart
def _make_room(code: Slab, slab: Slab, key: int, chunk: int, index: int) -> tuple[int, int]:
    """Room for one entry at a full chunk's place: forget what has expired, grow, open a chunk behind, or split."""
    gone_chunks, gone = _expire(code, slab, key)
    chunk -= gone_chunks
    if chunk < 0:
        chunk, index = 0, 0
    elif chunk == 0:
        index = max(index - gone, 0)
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    length = slab[entry + D_LENGTH]
    capacity = slab[entry + D_CAPACITY]
    if length < capacity:
        return chunk, index
    if capacity < CHUNK:
        _move_chunk(code, slab, entry, 2 * capacity)
        return chunk, index
    if index == length and chunk + 1 == slab[key + K_CHUNKS]:
        _open_chunk(code, slab, key, chunk + 1, NEXT_CAPACITY)
        return chunk + 1, 0
    _split(code, slab, key, chunk)
    half = CHUNK // 2
    if index <= half:
        return chunk, index
    return chunk + 1, index - half


@apart
def _expire(code: Slab, slab: Slab, key: int) -> tuple[int, int]:
    """Forget events older than the horizon: whole chunks, then the front of the first if that frees a quarter of it.

    Returns how many chunks and how many entries of the then first chunk are gone. The last chunk always stays.
    """
    horizon = slab[S_HORIZON]
    row = code[P_ROW]
    gone = 0
    while slab[key + K_CHUNKS] > 1:
        entry = slab[key + K_DIRECTORY]
        offset = slab[entry + D_OFFSET]
        length = slab[entry + D_LENGTH]
        if length > 0 and slab[offset + length - 1] >= horizon:
            break
        _free_histories(code, slab, entry, length)
        give(slab, S_FREE_CHUNKS + log2(slab[entry + D_CAPACITY]), offset)
        slab[key + K_CHUNKS] -= 1
        for j in range(slab[key + K_CHUNKS] * row):
            slab[entry + j] = slab[entry + j + row]
        for e in range(2 * code[P_EXTREMA]):
            extremes = extremes_at(code, slab, key, 0, e)
            for j in range(slab[key + K_CHUNKS]):
                slab[extremes + j] = slab[extremes + j + 1]
        gone += 1
    entry = slab[key + K_DIRECTORY]
    length = slab[entry + D_LENGTH]
    expired = upper_bound(slab, slab[entry + D_OFFSET], length, horizon - 1) if horizon > MIN_INT64 else 0
    if 4 * expired < slab[entry + D_CAPACITY]:
        return gone, 0
    _drop_front(code, slab, key, expired)
    return gone, expired


@apart
def _drop_front(code: Slab, slab: Slab, key: int, count: int) -> None:
    """The first chunk without its first entries; what they added moves into the totals before it."""
    entry = slab[key + K_DIRECTORY]
    _free_histories(code, slab, entry, count)
    offset = slab[entry + D_OFFSET]
    capacity = slab[entry + D_CAPACITY]
    left = slab[entry + D_LENGTH] - count
    words = code[P_PREFIX_WORDS]
    base = offset + code[P_LANES] * capacity
    for w in range(words):
        slab[S_SCRATCH + w] = slab[base + (count - 1) * words + w]
    for lane in range(code[P_LANES]):
        for j in range(left):
            slab[offset + lane * capacity + j] = slab[offset + lane * capacity + j + count]
    for j in range(left):
        subtract_prefixes(code, slab, base + j * words, base + (j + count) * words, S_SCRATCH)
    add_prefixes(code, slab, entry + DIRECTORY_FIXED, entry + DIRECTORY_FIXED, S_SCRATCH)
    slab[entry + D_BEFORE] += count
    slab[entry + D_LENGTH] = left
    slab[entry + D_FIRST] = slab[offset] if left > 0 else MAX_INT64
    refresh_extrema(code, slab, key, 0)


@apart
def _move_chunk(code: Slab, slab: Slab, entry: int, capacity: int) -> None:
    """The chunk in a larger block."""
    old = slab[entry + D_OFFSET]
    before = slab[entry + D_CAPACITY]
    length = slab[entry + D_LENGTH]
    made = _take_chunk(code, slab, capacity)
    lanes = code[P_LANES]
    for lane in range(lanes):
        for j in range(length):
            slab[made + lane * capacity + j] = slab[old + lane * before + j]
    for j in range(length * code[P_PREFIX_WORDS]):
        slab[made + lanes * capacity + j] = slab[old + lanes * before + j]
    give(slab, S_FREE_CHUNKS + log2(before), old)
    slab[entry + D_OFFSET] = made
    slab[entry + D_CAPACITY] = capacity


@apart
def _split(code: Slab, slab: Slab, key: int, chunk: int) -> None:
    """A full chunk in two halves, the second in a chunk of its own behind it."""
    row = code[P_ROW]
    half = CHUNK // 2
    slab[slab[key + K_DIRECTORY] + chunk * row + D_LENGTH] = half
    _open_chunk(code, slab, key, chunk + 1, CHUNK)
    entry = slab[key + K_DIRECTORY] + chunk * row
    behind = entry + row
    old = slab[entry + D_OFFSET]
    made = slab[behind + D_OFFSET]
    words = code[P_PREFIX_WORDS]
    lanes = code[P_LANES]
    for lane in range(lanes):
        for j in range(half):
            slab[made + lane * CHUNK + j] = slab[old + lane * CHUNK + half + j]
    base = old + lanes * CHUNK
    for j in range(half):
        into = made + lanes * CHUNK + j * words
        subtract_prefixes(code, slab, into, base + (half + j) * words, base + (half - 1) * words)
    slab[behind + D_LENGTH] = half
    slab[behind + D_FIRST] = slab[made]
    refresh_extrema(code, slab, key, chunk)
    refresh_extrema(code, slab, key, chunk + 1)


@apart
def refresh_extrema(code: Slab, slab: Slab, key: int, chunk: int) -> None:
    """A chunk's minima and maxima anew, after entries left it or changed."""
    _clear_extrema(code, slab, key, chunk)
    if code[P_EXTREMA] == 0:
        return
    entry = slab[key + K_DIRECTORY] + chunk * code[P_ROW]
    offset = slab[entry + D_OFFSET]
    capacity = slab[entry + D_CAPACITY]
    for c in range(code[P_COLUMNS]):
        column = code[P_COLUMN_TABLE] + c * COLUMN_FIELDS
        if code[column + C_EXTREMA] < 0:
            continue
        for j in range(slab[entry + D_LENGTH]):
            if code[P_VALID] < 0 or (slab[offset + code[P_VALID] * capacity + j] >> c) & 1:
                raw = slab[offset + code[column + C_RAW] * capacity + j]
                _widen(code, slab, key, chunk, code[column + C_EXTREMA], raw)


@apart
def _free_histories(code: Slab, slab: Slab, entry: int, count: int) -> None:
    """Give back the history nodes of a chunk's first entries."""
    offset = slab[entry + D_OFFSET]
    capacity = slab[entry + D_CAPACITY]
    for c in range(code[P_COLUMNS]):
        lane = code[code[P_COLUMN_TABLE] + c * COLUMN_FIELDS + C_HISTORY]
        if lane < 0:
            continue
        for j in range(count):
            free_history(slab, offset + lane * capacity + j)


@apart
def free_history(slab: Slab, head: int) -> None:
    """Give back a chain of nodes; `head` is the word that points to it."""
    node = slab[head]
    while node != 0:
        following = slab[node + N_NEXT]
        give(slab, S_FREE_NODES, node)
        node = following
    slab[head] = 0
