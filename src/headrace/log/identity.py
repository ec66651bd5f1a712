"""Which ids a topic knows, and what they said: the memory behind duplicates and conflicts. Pure.

The one idea: an id is remembered with a 64-bit hash of its event's payload and the available_at of its first taking, in
segments that are dropped whole once every id in them is older than the topic's `dedup`. Number ids live in open-addressing
tables of numpy arrays (about 48 bytes an id, read in bulk or one at a time), text ids in dicts (about 250 bytes an id).
The payload hash is the same for a row of an Arrow batch and for a row of physical values, does not depend on the order of
the fields, and skips nulls, so a field that is added later (null before) changes no payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import units
from headrace.core.errors import DefinitionError
from headrace.core.schema import Field, Kind

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Keys = Integers | list[str]
Journal = list[Callable[[], None]]

UNKNOWN = -(2**63)  # the available_at of an id that is not there; no instant of the log is as old

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: Fibonacci hashing spreads sequential ids evenly
_MIX_1 = 0xFF51AFD7ED558CCD  # MurmurHash3's 64-bit finalizer
_MIX_2 = 0xC4CEB9FE1A85EC53
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_FLOAT, _WORD = struct.Struct("<d"), struct.Struct("<Q")
_TAIL = np.array([_MASK] + [(1 << (8 * n)) - 1 for n in range(1, 8)], dtype=np.uint64)  # bytes left in the last word
LONG_TEXT_BYTES = 256  # longer texts are hashed one by one: a round over the column per word would cost a long outlier's length


def mix(word: int) -> int:
    """A word whose every bit depends on every bit of the input."""
    word ^= word >> 33
    word = (word * _MIX_1) & _MASK
    word ^= word >> 33
    word = (word * _MIX_2) & _MASK
    return word ^ (word >> 33)


def mix_column(words: Words) -> Words:
    """`mix` of each, in place."""
    words ^= words >> np.uint64(33)
    words *= np.uint64(_MIX_1)
    words ^= words >> np.uint64(33)
    words *= np.uint64(_MIX_2)
    words ^= words >> np.uint64(33)
    return words


def text_word(text: str) -> int:
    """A 64-bit hash of the UTF-8 bytes."""
    data = text.encode()
    word = len(data)
    for start in range(0, len(data), 8):
        word = ((word ^ int.from_bytes(data[start : start + 8], "little")) * _GOLDEN) & _MASK
        word ^= word >> 29
    return word


def text_words(array: pa.Array) -> Words:
    """`text_word` of each value; 0 where null."""
    count = len(array)
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32, count=count + 1 + array.offset)[array.offset :].astype(np.int64)
    starts, lengths = offsets[:-1], np.diff(offsets)
    result = lengths.astype(np.uint64)
    low, high = int(offsets[0]), int(offsets[-1])
    if high > low:
        data = np.zeros(high - low + 8, dtype=np.uint8)  # 8 more bytes: a word may be read across the end
        data[:-8] = np.frombuffer(data_buffer, dtype=np.uint8, count=high)[low:]
        words = np.lib.stride_tricks.as_strided(data.view(np.uint8)[:8].view(np.uint64), (high - low + 1,), (1,))
        _hash_words(result, words, starts - low, lengths)
    for row in np.flatnonzero(lengths > LONG_TEXT_BYTES):
        result[row] = text_word(array[int(row)].as_py() or "")
    if array.null_count:
        result[array.is_null().to_numpy(zero_copy_only=False)] = 0
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
    """FNV-1a of the name: a payload does not depend on the order in which fields are declared."""
    word = _FNV_OFFSET
    for byte in name.encode():
        word = ((word ^ byte) * _FNV_PRIME) & _MASK
    return word


def _float_word(value: float) -> int:
    word: int = _WORD.unpack(_FLOAT.pack(value + 0.0))[0]
    return word


class PayloadHash:
    """A 64-bit hash of an event's fields, the same from physical values and from Arrow.

    Late columns are left out: a live event must leave them null, so its import with the truth filled in says the same.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        """Raises: DefinitionError HR-0410 for a field of a list type, which no topic can hold."""
        refuse_lists(fields)
        self._fields = [(place, f, _field_salt(f.name)) for place, f in enumerate(fields) if f.available_after is None]
        self._steps = [(place, _KINDS[f.type.kind], salt) for place, f, salt in self._fields]

    def of_row(self, row: Sequence[bool | int | float | str | None]) -> int:
        """Of one row of physical values in the fields' order."""
        total = 0
        for place, kind, salt in self._steps:
            value = row[place]
            if value is None:
                continue
            if kind == _INTEGER:
                word = value & _MASK  # type: ignore[operator]  # validated rows: the kind says the class
            elif kind == _TEXT:
                word = text_word(value)  # type: ignore[arg-type]
            else:
                word = _float_word(value)  # type: ignore[arg-type]
            # mix(), written out: a call a field would double the cost of a single event's judgement
            word ^= salt
            word ^= word >> 33
            word = (word * _MIX_1) & _MASK
            word ^= word >> 33
            word = (word * _MIX_2) & _MASK
            total += word ^ (word >> 33)
        return total & _MASK

    def of_batch(self, batch: pa.RecordBatch) -> Words:
        """Of each row of a batch that holds the fields by name; a field it lacks counts as null."""
        total = np.zeros(batch.num_rows, dtype=np.uint64)
        for _, f, salt in self._fields:
            place = batch.schema.get_field_index(f.name)
            if place < 0:
                continue
            array = batch.column(place)
            mixed = mix_column(_column_words(array, f.type.kind) ^ np.uint64(salt))
            if array.null_count:
                mixed[array.is_null().to_numpy(zero_copy_only=False)] = 0
            total += mixed
        return total


def refuse_lists(fields: Sequence[Field]) -> None:
    """Raises: DefinitionError HR-0410 for a field of a list type."""
    for f in fields:
        if f.type.kind is Kind.LIST:
            raise DefinitionError(
                "HR-0410",
                f"field {f.name!r}: a topic cannot hold {f.type}",
                detail="expected a single value: lists are feature values only",
                hint="send one event a member, or one field a member",
                field=f.name,
            )


_INTEGER, _TEXT, _REAL = 0, 1, 2
_KINDS = {kind: _INTEGER for kind in Kind} | {Kind.STRING: _TEXT, Kind.FLOAT64: _REAL}


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
        self._key_view, self._payload_view, self._available_view = memoryview(keys), memoryview(payloads), memoryview(available)

    def find_one(self, key: int) -> tuple[int, int] | None:
        """(payload, available_at), or None."""
        available, keys, mask = self._available_view, self._key_view, (1 << self._bits) - 1
        slot = ((key * _GOLDEN) & _MASK) >> (64 - self._bits)
        while (at := available[slot]) != UNKNOWN:
            if keys[slot] == key:
                return self._payload_view[slot], at
            slot = (slot + 1) & mask
        return None

    def find(self, keys: Integers) -> tuple[Words, Integers]:
        slots = self._slots(keys)
        found = np.maximum(slots, 0)
        available = self._available[found]
        available[slots < 0] = UNKNOWN
        return self._payloads[found], available

    def _home(self, keys: Integers) -> npt.NDArray[np.int64]:
        return ((keys.view(np.uint64) * np.uint64(_GOLDEN)) >> np.uint64(64 - self._bits)).view(np.int64)

    def _slots(self, keys: Integers) -> Integers:
        """The slot of each key, -1 where it is not there."""
        result = np.full(len(keys), -1, dtype=np.int64)
        rows, slots, mask = np.arange(len(keys)), self._home(keys), (1 << self._bits) - 1
        while len(rows):
            taken = self._available[slots] != UNKNOWN
            rows, slots, keys = rows[taken], slots[taken], keys[taken]
            same = self._keys[slots] == keys
            result[rows[same]] = slots[same]
            other = ~same
            rows, slots, keys = rows[other], (slots[other] + 1) & mask, keys[other]
        return result

    def put_one(self, key: int, payload: int, at: int, journal: Journal | None) -> None:
        if 2 * (self.count + 1) > 1 << self._bits:
            self._grow(self._bits + 1, journal)
        self._span(at, at)
        available, keys, mask = self._available_view, self._key_view, (1 << self._bits) - 1
        slot = ((key * _GOLDEN) & _MASK) >> (64 - self._bits)
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
        bits = max(self._bits, int(2 * (self.count + len(keys)) - 1).bit_length())
        if bits > self._bits:
            self._grow(bits, journal)
        self._span(int(available.min()), int(available.max()))
        slots = self._slots(keys)
        known, new = slots >= 0, slots < 0
        slots[new] = self._claim(keys[new])
        if journal is not None:
            journal.append(self._undo_many(slots, known, self._payloads[slots], self._available[slots]))
        self._payloads[slots], self._available[slots] = payloads, available
        self.count += int(new.sum())

    def _undo_many(self, slots: Integers, known: npt.NDArray[np.bool_], payloads: Words, at: Integers) -> Callable[[], None]:
        held = np.where(known, at, UNKNOWN)

        def undo() -> None:
            self._payloads[slots], self._available[slots] = payloads, held
            self.count -= int((~known).sum())

        return undo

    def _claim(self, keys: Integers) -> Integers:
        """A free slot for each of distinct, unknown keys, marked as taken; of two keys that want one slot the last wins a
        round, the other goes on."""
        result = np.empty(len(keys), dtype=np.int64)
        rows, slots, mask = np.arange(len(keys)), self._home(keys), (1 << self._bits) - 1
        while len(rows):
            free = self._available[slots] == UNKNOWN
            self._keys[slots[free]] = keys[free]
            won = free & (self._keys[slots] == keys)
            self._available[slots[won]] = 0
            result[rows[won]] = slots[won]
            rows, slots, keys = rows[~won], (slots[~won] + 1) & mask, keys[~won]
        return result

    def _grow(self, bits: int, journal: Journal | None) -> None:
        old_bits, old = self._bits, (self._keys, self._payloads, self._available)
        if journal is not None:

            def undo() -> None:
                self._bits = old_bits
                self._adopt(*old)

            journal.append(undo)
        self._allot(bits)
        held = np.flatnonzero(old[2] != UNKNOWN)
        slots = self._claim(old[0][held])
        self._payloads[slots], self._available[slots] = old[1][held], old[2][held]

    def entries(self) -> tuple[Integers, Words, Integers]:
        """(ids, payloads, available_at) of all that is held, in no order."""
        held = np.flatnonzero(self._available != UNKNOWN)
        return self._keys[held], self._payloads[held], self._available[held]

    def _span(self, oldest: int, newest: int) -> None:
        self.oldest, self.newest = min(self.oldest, oldest), max(self.newest, newest)


class TextSegment:
    """The same over text ids."""

    def __init__(self) -> None:
        self.oldest, self.newest = 2**63 - 1, UNKNOWN
        self._held: dict[str, tuple[int, int]] = {}

    @property
    def count(self) -> int:
        return len(self._held)

    def find_one(self, key: str) -> tuple[int, int] | None:
        return self._held.get(key)

    def find(self, keys: list[str]) -> tuple[Words, Integers]:
        payloads, available = np.zeros(len(keys), np.uint64), np.full(len(keys), UNKNOWN, np.int64)
        if not self._held.keys().isdisjoint(keys):
            for row, held in enumerate(map(self._held.get, keys)):
                if held is not None:
                    payloads[row], available[row] = held
        return payloads, available

    def put_one(self, key: str, payload: int, at: int, journal: Journal | None) -> None:
        self.oldest, self.newest = min(self.oldest, at), max(self.newest, at)
        if journal is not None:
            journal.append(self._undo({key: self._held.get(key)}))
        self._held[key] = payload, at

    def put(self, keys: list[str], payloads: Words, available: Integers, journal: Journal | None) -> None:
        if not keys:
            return
        self.oldest, self.newest = min(self.oldest, int(available.min())), max(self.newest, int(available.max()))
        if journal is not None:
            journal.append(self._undo({key: self._held.get(key) for key in keys}))
        self._held.update(zip(keys, zip(payloads.tolist(), available.tolist(), strict=True), strict=True))

    def entries(self) -> tuple[list[str], Words, Integers]:
        """(ids, payloads, available_at) of all that is held."""
        payloads = np.fromiter((payload for payload, _ in self._held.values()), np.uint64, len(self._held))
        available = np.fromiter((at for _, at in self._held.values()), np.int64, len(self._held))
        return list(self._held), payloads, available

    def _undo(self, before: dict[str, tuple[int, int] | None]) -> Callable[[], None]:
        def undo() -> None:
            for key, held in before.items():
                if held is None:
                    del self._held[key]
                else:
                    self._held[key] = held

        return undo
