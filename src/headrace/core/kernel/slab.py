"""One int64 array that holds everything: its first words, free lists, keys. Touches only the slab it is given."""

from __future__ import annotations

from typing import Final

from headrace.core.kernel.program import (
    C_KIND,
    COLUMN_FIELDS,
    P_COLUMN_TABLE,
    P_EDGES,
    P_EXTREMA,
    P_LANES,
    P_PREFIX_WORDS,
    P_ROW,
    ROW_HEAD,
    ColumnKind,
)
from headrace.core.kernel.wide import VARIANCE_SCRATCH_WORDS
from headrace.core.kernel.words import Slab, bits_float, compiled, to_word

CHUNK: Final = 512  # entries: a late insert moves at most so many, a window's ends scan at most so many
FIRST_CAPACITY: Final = 8  # most keys of a lender have a handful of events
NEXT_CAPACITY: Final = 64  # of a chunk opened behind a full one
NO_ROOM: Final = -1  # what an answer returns instead of a reason where the slab has no room for its scratch
MIN_INT64: Final = -(2**63)
MAX_INT64: Final = 2**63 - 1

# The slab's first words. Free lists: of chunks by the logarithm of their capacity, of directories and tables' slots
# likewise, of nodes.
S_USED, S_CAPACITY, S_HORIZON, S_FIRST_CAPACITY = range(4)
S_FREE_CHUNKS: Final = 4
S_FREE_DIRECTORIES: Final = 20
S_FREE_NODES: Final = 60
S_EDGES_KEY: Final = 61  # whose edges stand in scratch, from the last query
S_FREE_TABLES: Final = 62
S_SCRATCH: Final = 96
# A key: its directory, how many rows that has room for, how many it has, the latest instant any history begins at, and
# the first of its tables of distinct values.
K_DIRECTORY, K_CAPACITY, K_CHUNKS, K_KNOWN, K_TABLES = range(5)
KEY_WORDS: Final = 5
# A node of an entry's history in one column: what holds from an instant on. Newest instant first.
N_NEXT, N_FROM, N_VALUE, N_VALID = range(4)
NODE_WORDS: Final = 4
# An edge of a query's windows: (chunk, index) behind the last entry it includes, that chunk's directory row, the totals
# before it in the chunk (0: none), and how many entries stand before it since the key's beginning.
G_CHUNK, G_INDEX, G_ENTRY, G_TOTALS, G_POSITION = range(5)
EDGE_WORDS: Final = 5
# A row as it comes in: time, valid bits, flags and output row (out << FLAG_BITS | flags), values; at code[P_TAIL] the
# rest of its order key and its key's handle, which the rows of a narrow replay leave out.
R_TIME, R_VALID, R_META = range(ROW_HEAD)
R_VALUES: Final = ROW_HEAD
FLAG_BITS: Final = 4
T_ORDER, T_SEQ, T_HANDLE = range(3)
ROW_TAIL: Final = 3

FLOAT: Final = int(ColumnKind.FLOAT)
INT: Final = int(ColumnKind.INT)


@compiled
def sortable(bits: int) -> int:
    """A double's IEEE bits as an integer that sorts like the double; its own inverse."""
    return bits if bits >= 0 else bits ^ MAX_INT64


@compiled
def as_float(raw: int) -> float:
    """The double behind a raw value of a FLOAT column."""
    return bits_float(to_word(sortable(raw)))


@compiled
def raw_of(code: Slab, column: int, value: int) -> int:
    """A value as it is kept: floats sortable."""
    return sortable(value) if code[code[P_COLUMN_TABLE] + column * COLUMN_FIELDS + C_KIND] == FLOAT else value


@compiled
def scratch_words(code: Slab) -> int:
    """Words that the kernel uses at S_SCRATCH: two totals, edges, a sum and a sum of squares, a variance's sides."""
    return 2 * (code[P_PREFIX_WORDS] + 8) + EDGE_WORDS * (code[P_EDGES] + 1) + 8 + VARIANCE_SCRATCH_WORDS


@compiled
def edges_at(code: Slab) -> int:
    """Where in scratch a query's edges stand; behind them the key's beginning."""
    return S_SCRATCH + 2 * (code[P_PREFIX_WORDS] + 8)


@compiled
def sums_at(code: Slab) -> int:
    """Where in scratch eight words are free for sums made anew; behind them a variance's sides."""
    return edges_at(code) + EDGE_WORDS * (code[P_EDGES] + 1)


@compiled
def clear(code: Slab, slab: Slab, capacity: int) -> None:
    """An empty slab of so many words: no keys, nothing free."""
    for i in range(S_SCRATCH):
        slab[i] = 0
    slab[S_USED] = S_SCRATCH + scratch_words(code)
    slab[S_CAPACITY] = capacity
    slab[S_HORIZON] = MIN_INT64
    slab[S_FIRST_CAPACITY] = FIRST_CAPACITY


@compiled
def directory_words(code: Slab) -> int:
    """What a directory takes for each chunk: a row, and its extrema behind the rows."""
    return code[P_ROW] + 2 * code[P_EXTREMA]


@compiled
def extremes_at(code: Slab, slab: Slab, key: int, extrema: int, highest: int) -> int:
    """Where the minima (highest 0) or maxima (1) of a key's chunks stand, one a chunk."""
    return slab[key + K_DIRECTORY] + slab[key + K_CAPACITY] * (code[P_ROW] + 2 * extrema + highest)


@compiled
def room(code: Slab, slab: Slab, key: int) -> bool:
    """Whether one more row surely fits: at worst a chunk grows or splits and the directory doubles."""
    entry = code[P_LANES] + code[P_PREFIX_WORDS]
    directory = 2 * (slab[key + K_CAPACITY] + 1) * directory_words(code)
    return slab[S_USED] + CHUNK * entry + directory + 4 * NODE_WORDS + KEY_WORDS <= slab[S_CAPACITY]


@compiled
def new_key(slab: Slab) -> int:
    """A key without events; -1 where there is no room."""
    key = slab[S_USED]
    if key + KEY_WORDS > slab[S_CAPACITY]:
        return -1
    slab[S_USED] = key + KEY_WORDS
    slab[key + K_DIRECTORY] = 0
    slab[key + K_CAPACITY] = 0
    slab[key + K_CHUNKS] = 0
    slab[key + K_KNOWN] = MIN_INT64
    slab[key + K_TABLES] = 0
    return key


@compiled
def take(slab: Slab, free: int, words: int) -> int:
    """A block from a free list, else from the slab's end; the caller checked for room."""
    block = slab[free]
    if block != 0:
        slab[free] = slab[block]
        return block
    block = slab[S_USED]
    slab[S_USED] = block + words
    return block


@compiled
def give(slab: Slab, free: int, block: int) -> None:
    slab[block] = slab[free]
    slab[free] = block


@compiled
def log2(capacity: int) -> int:
    exponent = 0
    while (1 << exponent) < capacity:
        exponent += 1
    return exponent
