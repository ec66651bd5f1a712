"""Which ids a topic knows, and what they said: the memory behind duplicates and conflicts. Pure.

The one idea: an id is remembered with a 64-bit hash of its event's payload and the available_at of its first taking,
in segments that are dropped whole once every id in them is older than the topic's `dedup`. Number ids live in
open-addressing tables of numpy arrays (24 bytes a slot, read in bulk or one at a time), text ids in dicts. The payload
hash is the same for a row of an Arrow batch and for a row of physical values, does not depend on the order of the
fields, and skips nulls, so a field that is added later (null before) changes no payload.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import refuse_lists, units
from headrace.core.schema import Field, Kind

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Keys = Integers | list[str]
Journal = list[Callable[[], None]]

UNKNOWN = -(2**63)  # the available_at of an id that is not there; no instant of the log is as old

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: Fibonacci hashing spreads sequential ids evenly
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_FLOAT, _WORD = struct.Struct("<d"), struct.Struct("<Q")
_TAIL = np.array([_MASK] + [(1 << (8 * n)) - 1 for n in range(1, 8)], dtype=np.uint64)  # bytes left in the last word
LONG_TEXT_BYTES = 256  # longer texts are hashed one by one: else one long text would cost a round a word


def text_word(text: str) -> int:
    """A 64-bit hash of the UTF-8 bytes."""
    data = text.encode()
    word = len(data)
    for start in range(0, len(data), 8):
        word = ((word ^ int.from_bytes(data[start : start + 8], "little")) * _GOLDEN) & _MASK
        word ^= word >> 29
    return word


def text_words(column: pa.Array) -> Words:
    """`text_word` of each value; 0 where null."""
    count = len(column)
    _, offsets_buffer, data_buffer = column.buffers()
    narrow = np.frombuffer(offsets_buffer, dtype=np.int32, count=count + 1 + column.offset)
    offsets = narrow[column.offset :].astype(np.int64)
    starts, lengths = offsets[:-1], np.diff(offsets)
    result = lengths.astype(np.uint64)
    low, high = int(offsets[0]), int(offsets[-1])
    if high > low:
        data = np.zeros(high - low + 8, dtype=np.uint8)  # 8 more bytes: a word may be read across the end
        data[:-8] = np.frombuffer(data_buffer, dtype=np.uint8, count=high)[low:]
        words = np.lib.stride_tricks.as_strided(data.view(np.uint8)[:8].view(np.uint64), (high - low + 1,), (1,))
        _hash_words(result, words, starts - low, lengths)
    for row in np.flatnonzero(lengths > LONG_TEXT_BYTES).tolist():
        result[row] = text_word(column[row].as_py() or "")
    if column.null_count:
        result[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return result


def _hash_words(result: Words, words: Words, starts: Integers, lengths: Integers) -> None:
    """One word of every text a round, until the longest is done."""
    rows: npt.NDArray[np.intp] | slice = slice(None)
    at, left = starts, np.where(lengths > LONG_TEXT_BYTES, 0, lengths)
    while True:
        alive = left > 0
        if not alive.all():
            rows = np.flatnonzero(alive) if isinstance(rows, slice) else rows[alive]
            at, left = at[alive], left[alive]
        if not len(left):
            return
        word = words[at]
        if (left < 8).any():
            word &= _TAIL[np.where(left < 8, left, 0)]
        word ^= result[rows]
        word *= np.uint64(_GOLDEN)
        word ^= word >> np.uint64(29)
        result[rows] = word
        at, left = at + 8, left - 8


def _field_salt(name: str) -> int:
    """FNV-1a of the name, made odd: a multiplier of its own for each field, so that values cannot change places."""
    word = _FNV_OFFSET
    for byte in name.encode():
        word = ((word ^ byte) * _FNV_PRIME) & _MASK
    return word | 1


class PayloadHash:
    """A 64-bit hash of an event's fields, the same from physical values and from Arrow.

    A chain of multiplications and shifts over the fields by name, each step a bijection of the state: payloads that
    differ in one number never collide, others with a chance of 2**-64. Late columns are left out: a live event must
    leave them null, so its import with the truth filled in says the same.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        """Raises: DefinitionError HR-0410 for a field of a list type, which no topic can hold."""
        refuse_lists(fields)
        said = sorted((f.name, place, f) for place, f in enumerate(fields) if f.available_after is None)
        self._fields = [(f, _field_salt(name)) for name, _, f in said]
        self._steps = [(place, _KINDS[f.type.kind], _field_salt(name)) for name, place, f in said]

    def of_row(self, row: Sequence[bool | int | float | str | None]) -> int:
        """Of one row of physical values in the fields' order."""
        total = _GOLDEN
        for place, kind, salt in self._steps:
            value = row[place]
            if value is None:
                continue
            if kind == _INTEGER:
                total ^= value & _MASK  # type: ignore[operator]  # validated rows: the kind says the class
            elif kind == _TEXT:
                total ^= text_word(value)  # type: ignore[arg-type]  # as above
            else:
                total ^= _WORD.unpack(_FLOAT.pack(value + 0.0))[0]  # type: ignore[operator]  # as above
            total = (total * salt) & _MASK
            total ^= total >> 32
        return total

    def of_batch(self, batch: pa.RecordBatch) -> Words:
        """Of each row of a batch that holds the fields by name; a field it lacks counts as null."""
        total = np.full(batch.num_rows, _GOLDEN, dtype=np.uint64)
        for f, salt in self._fields:
            place = batch.schema.get_field_index(f.name)
            if place < 0:
                continue
            array = batch.column(place)
            words = _column_words(array, f.type.kind) ^ total
            words *= np.uint64(salt)
            words ^= words >> np.uint64(32)
            if array.null_count:
                words = np.where(array.is_null().to_numpy(zero_copy_only=False), total, words)
            total = words
        return total


_INTEGER, _TEXT, _REAL = 0, 1, 2
_KINDS = dict.fromkeys(Kind, _INTEGER) | {Kind.STRING: _TEXT, Kind.FLOAT64: _REAL}


def _column_words(array: pa.Array, kind: Kind) -> Words:
    match kind:
        case Kind.STRING:
            return text_words(array)
        case Kind.FLOAT64:
            reals: npt.NDArray[np.float64] = array.fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
            return reals.view(np.uint64)
        case Kind.BOOLEAN:
            bits: npt.NDArray[np.bool_] = array.fill_null(False).to_numpy(zero_copy_only=False)
            return bits.astype(np.uint64)
        case _:
            return units(array).view(np.uint64)


class NumberSegment:
    """Open addressing with linear probing over int64 ids, half full at most."""

    def __init__(self) -> None:
        self.count = 0
        self.oldest, self.newest = 2**63 - 1, UNKNOWN
        self._allot(10)

    def _allot(self, bits: int) -> None:
        size = 1 << bits
        self._bits = bits
        self._adopt(np.zeros(size, np.int64), np.zeros(size, np.uint64), np.full(size, UNKNOWN, np.int64))

    def _adopt(self, keys: Integers, payloads: Words, available: Integers) -> None:
        self._keys, self._payloads, self._available = keys, payloads, available
        # memoryviews hand out Python ints several times faster than numpy hands out scalars
        self._key_view, self._payload_view, self._available_view = keys.data, payloads.data, available.data

    def find_one(self, key: int) -> tuple[int, int] | None:
        """(payload, available_at), or None."""
        available, keys, mask = self._available_view, self._key_view, (1 << self._bits) - 1
        eights = ((key >> 3) * _GOLDEN) & _MASK
        slot = (eights >> (67 - self._bits) << 3) | ((key + (eights >> 40)) & 7)
        while (at := available[slot]) != UNKNOWN:
            if keys[slot] == key:
                return self._payload_view[slot], at
            slot = (slot + 1) & mask
        return None

    def find(self, keys: Integers) -> tuple[Words, Integers]:
        slots = self._probe(keys)
        return self._payloads[slots], self._available[slots]

    def _home(self, keys: Integers) -> npt.NDArray[np.int64]:
        """The slot where the search begins: eight neighbouring ids share a line of the processor's cache, as ids that
        are counted up come together; the eights are spread, and turned, so that every eighth id alone is spread too."""
        eights = (keys >> 3).view(np.uint64) * np.uint64(_GOLDEN)
        within = (keys + (eights >> np.uint64(40)).view(np.int64)) & 7
        eights >>= np.uint64(67 - self._bits)
        return (eights.view(np.int64) << 3) | within

    def _probe(self, keys: Integers) -> Integers:
        """The slot of each key; where it is not there, the free slot that ended the search."""
        slots, mask = self._home(keys), (1 << self._bits) - 1
        rows = np.flatnonzero((self._keys[slots] != keys) & (self._available[slots] != UNKNOWN))
        while len(rows):
            slots[rows] = at = (slots[rows] + 1) & mask
            rows = rows[(self._keys[at] != keys[rows]) & (self._available[at] != UNKNOWN)]
        return slots

    def put_one(self, key: int, payload: int, at: int, journal: Journal | None) -> None:
        if 2 * (self.count + 1) > 1 << self._bits:
            self._grow(self._bits + 1, journal)
        self._span(at, at)
        available, keys, mask = self._available_view, self._key_view, (1 << self._bits) - 1
        eights = ((key >> 3) * _GOLDEN) & _MASK
        slot = (eights >> (67 - self._bits) << 3) | ((key + (eights >> 40)) & 7)
        while (held := available[slot]) != UNKNOWN and keys[slot] != key:
            slot = (slot + 1) & mask
        if journal is not None:
            journal.append(self._undo(slot, held, self._payload_view[slot]))
        keys[slot], self._payload_view[slot], available[slot] = key, payload, at
        self.count += held == UNKNOWN

    def _undo(self, slot: int, held: int, payload: int) -> Callable[[], None]:
        def undo() -> None:
            self._available_view[slot], self._payload_view[slot] = held, payload
            self.count -= held == UNKNOWN

        return undo

    def put(self, keys: Integers, payloads: Words, available: Integers, journal: Journal | None) -> None:
        """keys: distinct. A known key is overwritten."""
        if not len(keys):
            return
        if 2 * (self.count + len(keys)) > 1 << self._bits:
            # one bit to spare, so that a run of batches does not rehash at each
            self._grow((2 * (self.count + len(keys)) - 1).bit_length() + 1, journal)
        self._span(int(available.min()), int(available.max()))
        slots = self._probe(keys)
        known = self._available[slots] != UNKNOWN
        if known.any():
            replaced = slots[known]
            if journal is not None:
                journal.append(self._undo_replaced(replaced, self._payloads[replaced], self._available[replaced]))
            new = np.flatnonzero(~known)
            slots[new] = added = self._claim(keys[new], slots[new])
        else:
            slots = added = self._claim(keys, slots)
        if journal is not None:
            journal.append(self._undo_added(added))
        self._payloads[slots], self._available[slots] = payloads, available
        self.count += len(added)

    def _undo_replaced(self, slots: Integers, payloads: Words, available: Integers) -> Callable[[], None]:
        def undo() -> None:
            self._payloads[slots], self._available[slots] = payloads, available

        return undo

    def _undo_added(self, slots: Integers) -> Callable[[], None]:
        def undo() -> None:
            self._available[slots] = UNKNOWN
            self.count -= len(slots)

        return undo

    def _claim(self, keys: Integers, slots: Integers) -> Integers:
        """A free slot for each of distinct, unknown keys, marked as taken, from `slots` on, which it overwrites. Of two
        keys that want one slot the last wins the round, the other goes on."""
        mask = (1 << self._bits) - 1
        self._keys[slots] = keys
        lost = np.flatnonzero(self._keys[slots] != keys)
        self._available[slots] = 0
        while len(lost):
            at, wanted = (slots[lost] + 1) & mask, keys[lost]
            free = self._available[at] == UNKNOWN
            self._keys[at[free]] = wanted[free]
            won = free & (self._keys[at] == wanted)
            self._available[at[won]] = 0
            slots[lost] = at
            lost = lost[~won]
        return slots

    def _grow(self, bits: int, journal: Journal | None) -> None:
        old_bits, old = self._bits, (self._keys, self._payloads, self._available)
        if journal is not None:

            def undo() -> None:
                self._bits = old_bits
                self._adopt(*old)

            journal.append(undo)
        self._allot(bits)
        held = np.flatnonzero(old[2] != UNKNOWN)
        keys = old[0][held]
        slots = self._claim(keys, self._home(keys))
        self._payloads[slots], self._available[slots] = old[1][held], old[2][held]

    def entries(self) -> tuple[Integers, Words, Integers]:
        """(ids, payloads, available_at) of all that is held, in no order."""
        held = np.flatnonzero(self._available != UNKNOWN)
        return self._keys[held], self._payloads[held], self._available[held]

    def _span(self, oldest: int, newest: int) -> None:
        self.oldest, self.newest = min(self.oldest, oldest), max(self.newest, newest)


class TextSegment:
    """The same over text ids: a dict to places in flat arrays, with no object the garbage collector must visit."""

    def __init__(self) -> None:
        self.oldest, self.newest = 2**63 - 1, UNKNOWN
        self._places: dict[str, int] = {}
        self._payloads, self._available = array.array("Q"), array.array("q")

    @property
    def count(self) -> int:
        return len(self._places)

    def find_one(self, key: str) -> tuple[int, int] | None:
        place = self._places.get(key)
        return None if place is None else (self._payloads[place], self._available[place])

    def find(self, keys: list[str]) -> tuple[Words, Integers]:
        payloads, available = np.zeros(len(keys), np.uint64), np.full(len(keys), UNKNOWN, np.int64)
        if not self._places.keys().isdisjoint(keys):
            places = np.fromiter((self._places.get(key, -1) for key in keys), np.int64, len(keys))
            known = places >= 0
            payloads[known] = np.frombuffer(self._payloads, np.uint64)[places[known]]
            available[known] = np.frombuffer(self._available, np.int64)[places[known]]
        return payloads, available

    def put_one(self, key: str, payload: int, at: int, journal: Journal | None) -> None:
        self.oldest, self.newest = min(self.oldest, at), max(self.newest, at)
        if journal is not None:
            journal.append(self._undo((key,)))
        self._places[key] = len(self._payloads)
        self._payloads.append(payload)
        self._available.append(at)

    def put(self, keys: list[str], payloads: Words, available: Integers, journal: Journal | None) -> None:
        """keys: distinct. A known key moves to a new place."""
        if not keys:
            return
        self.oldest, self.newest = min(self.oldest, int(available.min())), max(self.newest, int(available.max()))
        if journal is not None:
            journal.append(self._undo(keys))
        first = len(self._payloads)
        self._places.update(zip(keys, range(first, first + len(keys)), strict=True))
        self._payloads.frombytes(payloads.tobytes())
        self._available.frombytes(available.tobytes())

    def entries(self) -> tuple[list[str], Words, Integers]:
        """(ids, payloads, available_at) of all that is held."""
        places = np.fromiter(self._places.values(), np.int64, len(self._places))
        payloads = np.frombuffer(self._payloads, np.uint64)[places]
        return list(self._places), payloads, np.frombuffer(self._available, np.int64)[places]

    def _undo(self, keys: Sequence[str]) -> Callable[[], None]:
        """Made before the keys are put; the places they are given stay, unused."""
        known = self._places.keys()
        before = {} if known.isdisjoint(keys) else {key: self._places[key] for key in keys if key in known}

        def undo() -> None:
            for key in keys:
                del self._places[key]
            self._places.update(before)

        return undo
