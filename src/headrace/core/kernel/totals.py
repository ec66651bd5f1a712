"""Running totals: what a value adds to each prefix of a program, and sums of all prefixes at once."""

from __future__ import annotations

from headrace.core.kernel.program import (
    C_KIND,
    COLUMN_FIELDS,
    D_CAPACITY,
    D_OFFSET,
    DIRECTORY_FIXED,
    P_COLUMN_TABLE,
    P_LANES,
    P_PREFIX_TABLE,
    P_PREFIX_WORDS,
    P_PREFIXES,
    PREFIX_COUNT,
    PREFIX_FIELDS,
    PREFIX_SQUARE,
    PREFIX_SUM,
    X_COLUMN,
    X_KIND,
    X_OFFSET,
    X_UNIT,
    X_WORDS,
)
from headrace.core.kernel.slab import INT, as_float
from headrace.core.kernel.wide import (
    add,
    add_float,
    add_float_square,
    add_square,
    add_to_each,
    add_value,
    fits_float,
    fits_float_square,
    subtract,
)
from headrace.core.kernel.words import Slab, apart


@apart
def clear_number(slab: Slab, into: int, words: int) -> None:
    """Zero. Not a loop: LLVM would call memset, and what is read behind that waits for it, longer than all else."""
    slab[into] = 0
    if words > 1:
        slab[into + 1] = 0
    if words > 2:
        slab[into + 2] = 0
        slab[into + 3] = 0


@apart
def copy_number(slab: Slab, into: int, source: int, words: int) -> None:
    slab[into] = slab[source]
    if words > 1:
        slab[into + 1] = slab[source + 1]
    if words > 2:
        slab[into + 2] = slab[source + 2]
        slab[into + 3] = slab[source + 3]


@apart
def contribute(code: Slab, slab: Slab, prefix: int, into: int, value: int, valid: bool) -> None:
    """What one value adds to one prefix, as a number at `into`. value: raw."""
    at = code[P_PREFIX_TABLE] + prefix * PREFIX_FIELDS
    words = code[at + X_WORDS]
    clear_number(slab, into, words)
    if not valid:
        return
    kind = code[at + X_KIND]
    if kind == PREFIX_COUNT:
        slab[into] = 1
        return
    column = code[P_COLUMN_TABLE] + code[at + X_COLUMN] * COLUMN_FIELDS
    if code[column + C_KIND] == INT:
        if kind == PREFIX_SUM:
            if words == 1:
                slab[into] = value
            else:
                add_value(slab, into, words, value)
        elif kind == PREFIX_SQUARE:
            add_square(slab, into, words, value)
        return
    _contribute_float(code, slab, at, column, into, as_float(value))


@apart
def _contribute_float(code: Slab, slab: Slab, at: int, column: int, into: int, x: float) -> None:
    """A float enters the totals only where its sum and its square both fit; PREFIX_UNFIT counts the others."""
    fits = True
    first = code[P_PREFIX_TABLE]
    for other in range(code[P_PREFIXES]):
        p = first + other * PREFIX_FIELDS
        if code[p + X_COLUMN] != code[at + X_COLUMN]:
            continue
        if code[p + X_KIND] == PREFIX_SUM:
            fits = fits and fits_float(x, code[p + X_WORDS], code[p + X_UNIT])
        elif code[p + X_KIND] == PREFIX_SQUARE:
            fits = fits and fits_float_square(x, code[p + X_WORDS], code[p + X_UNIT])
    kind = code[at + X_KIND]
    if kind == PREFIX_SUM:
        if fits:
            add_float(slab, into, code[at + X_WORDS], code[at + X_UNIT], x)
    elif kind == PREFIX_SQUARE:
        if fits:
            add_float_square(slab, into, code[at + X_WORDS], code[at + X_UNIT], x)
    elif not fits:
        slab[into] = 1


@apart
def add_prefixes(code: Slab, slab: Slab, into: int, a: int, b: int) -> None:
    """into = a + b, over all prefix words of an entry."""
    for p in range(code[P_PREFIXES]):
        at = code[P_PREFIX_TABLE] + p * PREFIX_FIELDS
        offset = code[at + X_OFFSET]
        if code[at + X_WORDS] == 1:
            slab[into + offset] = slab[a + offset] + slab[b + offset]
        else:
            add(slab, into + offset, a + offset, b + offset, code[at + X_WORDS])


@apart
def add_to_all(code: Slab, slab: Slab, first: int, step: int, count: int, addend: int) -> None:
    """The prefix words at `addend` added to those of `count` entries, `step` words apart: prefix by prefix, as what
    one is decides how it is added to, and a late event changes thousands."""
    for p in range(code[P_PREFIXES]):
        at = code[P_PREFIX_TABLE] + p * PREFIX_FIELDS
        offset = code[at + X_OFFSET]
        add_to_each(slab, first + offset, step, count, addend + offset, code[at + X_WORDS])


@apart
def subtract_prefixes(code: Slab, slab: Slab, into: int, a: int, b: int) -> None:
    for p in range(code[P_PREFIXES]):
        at = code[P_PREFIX_TABLE] + p * PREFIX_FIELDS
        offset = code[at + X_OFFSET]
        subtract(slab, into + offset, a + offset, b + offset, code[at + X_WORDS])


@apart
def totals_behind(code: Slab, slab: Slab, entry: int, index: int, into: int) -> None:
    """All prefixes over everything before place `index` of a chunk, from the key's beginning."""
    words = code[P_PREFIX_WORDS]
    if index == 0:
        for w in range(words):
            slab[into + w] = slab[entry + DIRECTORY_FIXED + w]
        return
    last = slab[entry + D_OFFSET] + code[P_LANES] * slab[entry + D_CAPACITY] + (index - 1) * words
    add_prefixes(code, slab, into, entry + DIRECTORY_FIXED, last)
