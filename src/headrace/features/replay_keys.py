"""Entities as dense codes: those that are asked for, and which events are theirs. Pure.

Only entities that some query asks for get a code, so a sample of a large log reads only what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import units
from headrace.core.kernel.program import Words

Keys = npt.NDArray[np.int32]

_TABLE_SLACK = 1 << 20  # entries of a look-up table that are worth having for any number of rows


def entity_codes(
    asked: Sequence[pa.Array | pa.ChunkedArray], held: Sequence[Sequence[pa.Array | pa.ChunkedArray]]
) -> tuple[Keys, list[Keys], int]:
    """(codes of the asked, codes of each source's events, how many codes there are).

    asked: the parts of the entity, one column each; held: the same of each source. -1: a part is null, or nobody asks.
    """
    codes, others, count = _part(asked[0], [parts[0] for parts in held])
    for place in range(1, len(asked)):
        more, more_others, more_count = _part(asked[place], [parts[place] for parts in held])
        pairs = [_pair(codes, more, more_count)]
        pairs += [_pair(a, b, more_count) for a, b in zip(others, more_others, strict=True)]
        there = np.unique(pairs[0][pairs[0] >= 0])
        codes, *others = [_find(pair, there) for pair in pairs]
        count = len(there)
    return codes, others, count


def _pair(codes: Keys, more: Keys, count: int) -> Words:
    return np.where((codes < 0) | (more < 0), -1, codes.astype(np.int64) * count + more)


def _find(values: Words, there: Words) -> Keys:
    if not len(there):
        return np.full(len(values), -1, np.int32)
    place = np.minimum(np.searchsorted(there, values), len(there) - 1)
    return np.where(there[place] == values, place, -1).astype(np.int32)


def _part(
    asked: pa.Array | pa.ChunkedArray, held: Sequence[pa.Array | pa.ChunkedArray]
) -> tuple[Keys, list[Keys], int]:
    if pa.types.is_string(asked.type) or pa.types.is_boolean(asked.type):
        return _by_dictionary(asked, held)
    numbers = _numbers(asked)
    others = [numbers if one is asked else _numbers(one) for one in held]
    there = numbers[0] if numbers[1] is None else numbers[0][numbers[1]]
    if not len(there):
        return np.full(len(asked), -1, np.int32), [np.full(len(one), -1, np.int32) for one in held], 0
    low, high = int(there.min()), int(there.max())
    if high - low > 4 * len(there) + _TABLE_SLACK:
        distinct = np.unique(there)
        found = [_masked(_find(values, distinct), valid) for values, valid in (numbers, *others)]
        return found[0], found[1:], len(distinct)
    # A look-up table over the range: one pass, no hashing. It may hold codes that are not dense, which costs nothing.
    present = np.zeros(high - low + 1, np.bool_)
    present[there - low] = True
    code = np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)
    made = {id(numbers): _masked(code[_inside(numbers[0], low, high)], numbers[1])}
    for one in others:
        if id(one) not in made:
            made[id(one)] = _looked_up(one[0], one[1], code, low, high)
    return made[id(numbers)], [made[id(one)] for one in others], int(present.sum())


def _inside(values: Words, low: int, high: int) -> Words:
    """Places in the table; of what is null (0) any place inside."""
    return np.clip(values, low, high) - low


def _looked_up(values: Words, valid: npt.NDArray[np.bool_] | None, code: Keys, low: int, high: int) -> Keys:
    found = code[_inside(values, low, high)]
    outside = (values < low) | (values > high)
    if outside.any():
        found[outside] = -1
    return _masked(found, valid)


def _masked(codes: Keys, valid: npt.NDArray[np.bool_] | None) -> Keys:
    return codes if valid is None else np.where(valid, codes, -1).astype(np.int32)


def _numbers(column: pa.Array | pa.ChunkedArray) -> tuple[Words, npt.NDArray[np.bool_] | None]:
    flat = _flat(column)
    valid = flat.is_valid().to_numpy(zero_copy_only=False) if flat.null_count else None
    return units(flat), valid


def _by_dictionary(
    asked: pa.Array | pa.ChunkedArray, held: Sequence[pa.Array | pa.ChunkedArray]
) -> tuple[Keys, list[Keys], int]:
    encoded = _flat(asked).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    others = []
    for one in held:
        if one is asked:
            others.append(codes)
            continue
        found = pc.index_in(_flat(one), value_set=encoded.dictionary, skip_nulls=True)
        others.append(found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32))
    return codes, others, len(encoded.dictionary)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
