"""The kernel's words as published values: one answer, or columns of them. Pure.

Here `empty=` stands in for the null of an empty window, sums of 128 bits become decimals or 64-bit integers or
OVERFLOW, codes become strings again, and a count of 0 is EMPTY, as its window holds nothing (SEMANTICS 3.5). What is
published is what models, policies and decision records see.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.aggregate import Function, Reason
from headrace.core.codec import Physical, decimal_units, decimals
from headrace.core.errors import DefinitionError, SchemaError
from headrace.core.kernel.program import Program, Words
from headrace.core.schema import DataType, Kind
from headrace.features.define import Feature, FeatureView
from headrace.features.words import Booleans, Codes

Published = Physical | tuple[Physical, ...]
Reasons = npt.NDArray[np.uint8]

DECIMAL_UNITS_MAX = 10**38 - 1  # decimal128 of 38 digits
_BLOCK = 8_192  # rows turned into columns at a time: a block of a hundred slots stays in the second-level cache
_REASONS = tuple(Reason)
PATTERNS_MAX = 4_096  # of reasons kept ready; a handful is usual


class Publisher:
    """Turns answers of one program into the values of one view's features."""

    __slots__ = (
        "_all_there", "_alone", "_codes", "_counts", "_empties", "_features", "_format", "_patterns", "_plain",
        "_program", "_special", "_words",
    )  # fmt: skip

    def __init__(self, view: FeatureView, program: Program, codes: Codes) -> None:
        self._features = view.features
        self._program = program
        self._codes = codes
        self._empties = [_empty(f) for f in view.features]
        self._words = struct.Struct(f"<{program.slots}q")
        formats = [_slot_formats(f, width) for f, width in zip(view.features, program.width, strict=True)]
        self._format = struct.Struct("<" + "".join(formats))
        # One slot a feature and nothing to convert: the unpacked words are the values.
        convert = [_row_value(f, codes) for f in view.features]
        self._special = [(i, c) for i, c in enumerate(convert) if c is not None]
        self._plain = not self._special and all(width == 1 for width in program.width)
        self._patterns: dict[bytes, tuple[tuple[Reason, ...], tuple[tuple[int, Physical], ...]]] = {}
        self._all_there = bytes(len(view.features))
        self._alone = (Reason.VALUE,) * len(view.features)
        self._counts = [i for i, f in enumerate(view.features) if f.function is Function.COUNT]

    def publish_row(self, words: Sequence[int], reasons: bytes) -> tuple[tuple[Published, ...], tuple[Reason, ...]]:
        """Physical values (a decimal as int units, last_n a tuple) and reasons, in the view's order."""
        return self._published(self._format.unpack(self._words.pack(*words)), bytes(reasons))

    def publish_bytes(self, words: memoryview, reasons: bytes) -> tuple[tuple[Published, ...], tuple[Reason, ...]]:
        """`publish_row` of an answer as it lies in memory: the hot path."""
        return self._published(self._format.unpack_from(words), reasons)

    def _published(
        self, found: tuple[Physical, ...], reasons: bytes
    ) -> tuple[tuple[Published, ...], tuple[Reason, ...]]:
        if self._plain and reasons == self._all_there and not (self._counts and 0 in found):
            return found, self._alone
        marks = bytearray(reasons)
        slots, width = self._program.slot, self._program.width
        for i in self._counts:
            if not marks[i] and found[slots[i]] == 0:
                marks[i] = Reason.EMPTY
        values: list[Published] = [found[slot] for slot in slots]
        for i, convert in self._special:
            if not marks[i]:
                values[i], marks[i] = convert(found[slots[i] : slots[i] + width[i]])
        pattern = bytes(marks)
        said, instead = self._patterns.get(pattern) or self._pattern(pattern)
        for i, value in instead:
            values[i] = value
        return tuple(values), said

    def _pattern(self, marks: bytes) -> tuple[tuple[Reason, ...], tuple[tuple[int, Physical], ...]]:
        """The reasons of one pattern of them, and what stands for the values that are none. Few patterns ever occur."""
        if len(self._patterns) >= PATTERNS_MAX:
            self._patterns.clear()
        said = tuple(_REASONS[mark] for mark in marks)
        instead = tuple((i, self._empties[i] if r is Reason.EMPTY else None) for i, r in enumerate(said) if r)
        self._patterns[marks] = said, instead
        return said, instead

    def publish(self, words: Words, reasons: Reasons) -> pa.RecordBatch:
        """One column a feature, of the feature's type, one row an answer.

        words: int64[n, slots]; reasons: uint8[n, outputs], as the kernel gave them; corrected here where a sum leaves
        its type's range (OVERFLOW) and where a count is 0 (EMPTY). Null where the reason is not VALUE, but for
        `empty=`.
        """
        slots = _columns_of(words)
        all_there = not reasons.any()  # as most are, so that no feature need look at each of its reasons
        arrays = []
        for i, feature in enumerate(self._features):
            said = reasons[:, i]
            slot, width = self._program.slot[i], self._program.width[i]
            arrays.append(self._array(feature, slots[slot : slot + width], said, self._empties[i], all_there))
        fields = [pa.field(f.name, f.type.arrow) for f in self._features]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _array(self, feature: Feature, slots: Words, said: Reasons, empty: Physical, all_there: bool) -> pa.Array:
        if feature.function is Function.SUM and len(slots) == 2:
            return _sums(feature.type, slots, said, empty)
        if feature.function is Function.COUNT and not slots[0].all():
            said[(said == Reason.VALUE) & (slots[0] == 0)] = Reason.EMPTY
            all_there = False
        if all_there:
            return self._values(feature.type, slots, None)
        nulls = said != Reason.VALUE
        if not nulls.any():
            return self._values(feature.type, slots, None)
        if empty is not None:
            filled = said == Reason.EMPTY
            slots[0][filled] = _word(empty)
            nulls &= ~filled
        return self._values(feature.type, slots, nulls)

    def _values(self, type: DataType, slots: Words, nulls: Booleans | None) -> pa.Array:
        if type.kind is Kind.LIST:
            return self._lists(type, slots, nulls)
        return _plain_array(type, slots[0], nulls, self._codes)

    def _lists(self, type: DataType, slots: Words, nulls: Booleans | None) -> pa.Array:
        assert type.item is not None
        counts = slots[0] if nulls is None else np.where(nulls, 0, slots[0])
        inside = np.arange(len(slots) - 1)[:, None] < counts
        items = _plain_array(type.item, np.ascontiguousarray(slots[1:].T[inside.T]), None, self._codes)
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        offsets = pa.array(ends)
        made = pa.ListArray.from_arrays(offsets, items)
        if nulls is None:
            return made
        return pa.ListArray.from_buffers(type.arrow, len(made), [_bitmap(nulls), made.buffers()[1]], children=[items])


def _columns_of(words: Words) -> Words:
    """int64[slots, n] from int64[n, slots], block by block, so that both sides stay in the cache."""
    count, slots = words.shape
    columns = np.empty((slots, count), np.int64)
    for first in range(0, count, _BLOCK):
        columns[:, first : first + _BLOCK] = words[first : first + _BLOCK].T
    return columns


def _plain_array(type: DataType, words: Words, nulls: Booleans | None, codes: Codes) -> pa.Array:
    """One word a value."""
    match type.kind:
        case Kind.STRING:
            none = np.zeros(len(words), np.bool_) if nulls is None else nulls
            return codes.decode(np.where(none, 0, words), none)
        case Kind.BOOLEAN:
            return pa.array(words != 0, pa.bool_(), mask=nulls)
        case Kind.DECIMAL:
            return decimals(words, type, nulls)
    # int64, float64, timestamp: the words are the Arrow buffer.
    validity = None if nulls is None else _bitmap(nulls)
    return pa.Array.from_buffers(type.arrow, len(words), [validity, pa.py_buffer(words)])


def _bitmap(nulls: Booleans) -> pa.Buffer:
    return pa.py_buffer(np.packbits(~nulls, bitorder="little"))


def _sums(type: DataType, slots: Words, said: Reasons, empty: Physical) -> pa.Array:
    """Sums of 128 bits, low word first: decimals of 38 digits, or int64 where they fit."""
    low, high = slots
    valued = said == Reason.VALUE
    if type.kind is Kind.DECIMAL:
        # 10**38 is 0x4B3B4CA85A86C47A_098A224000000000: only words near the top need the exact test.
        suspects = valued & ((high >= 0x4B3B4CA85A86C47A) | (high <= -0x4B3B4CA85A86C47B))
        for row in np.flatnonzero(suspects).tolist():
            if abs((int(high[row]) << 64) | (int(low[row]) & (2**64 - 1))) > DECIMAL_UNITS_MAX:
                said[row] = Reason.OVERFLOW
    else:
        said[valued & (high != low >> 63)] = Reason.OVERFLOW
    filled = said == Reason.EMPTY
    if empty is not None and filled.any():
        assert isinstance(empty, int)
        low[filled], high[filled] = np.uint64(empty & (2**64 - 1)).astype(np.int64), empty >> 64
    nulls = said != Reason.VALUE if empty is None else (said != Reason.VALUE) & ~filled
    validity = _bitmap(nulls) if nulls.any() else None
    if type.kind is not Kind.DECIMAL:
        return pa.Array.from_buffers(type.arrow, len(low), [validity, pa.py_buffer(low)])
    wide = np.empty((len(low), 2), np.int64)
    wide[:, 0], wide[:, 1] = low, high
    return pa.Array.from_buffers(type.arrow, len(low), [validity, pa.py_buffer(wide)])


def _word(value: Physical) -> int:
    if isinstance(value, float):
        return int(np.float64(value).view(np.int64))
    assert isinstance(value, int)
    return value


def _empty(feature: Feature) -> Physical:
    """What an empty window publishes: 0 of a count, else what `empty=` says, else null.

    Raises: DefinitionError HR-0514 where `empty=` is not exact in the feature's type.
    """
    if feature.empty is None:
        return 0 if feature.function is Function.COUNT else None
    try:
        match feature.type.kind:
            case Kind.DECIMAL:
                return decimal_units(feature.empty, feature.type)
            case Kind.FLOAT64:
                if abs(feature.empty) < float("inf"):
                    return float(feature.empty) + 0.0
            case Kind.INT64:
                exact = Fraction(feature.empty)
                if exact.denominator == 1 and -(2**63) <= exact < 2**63:
                    return int(exact)
    except (SchemaError, OverflowError, ValueError) as error:
        raise _inexact(feature) from error
    raise _inexact(feature)


def _inexact(feature: Feature) -> DefinitionError:
    return DefinitionError(
        "HR-0514",
        f"feature {feature.view}.{feature.name}: empty={feature.empty!r} is no {feature.type}",
        detail=f"expected a value that {feature.type} holds exactly",
    )


def _slot_formats(feature: Feature, width: int) -> str:
    """How `struct` reads a feature's slots."""
    match feature.type.kind:
        case Kind.FLOAT64:
            return "d"
        case Kind.LIST:
            assert feature.type.item is not None
            return "q" + ("d" if feature.type.item.kind is Kind.FLOAT64 else "q") * (width - 1)
    return "Qq" if width == 2 else "q"


_Convert = Callable[[tuple[Physical, ...]], tuple[Published, Reason]]


def _row_value(feature: Feature, codes: Codes) -> _Convert | None:
    """What makes a value of a feature's slots; None where the slot is the value."""
    kind = feature.type.kind
    if kind is Kind.LIST:
        assert feature.type.item is not None
        one = _item(feature.type.item, codes)

        def several(slots: tuple[Physical, ...]) -> tuple[Published, Reason]:
            count = int(slots[0])  # type: ignore[arg-type]  # the first word says how many follow
            return tuple(one(value) for value in slots[1 : 1 + count]), Reason.VALUE

        return several
    if feature.function is Function.SUM and kind is not Kind.FLOAT64:
        low, high = (-DECIMAL_UNITS_MAX, DECIMAL_UNITS_MAX) if kind is Kind.DECIMAL else (-(2**63), 2**63 - 1)

        def total(slots: tuple[Physical, ...]) -> tuple[Published, Reason]:
            value = (int(slots[1]) << 64) + int(slots[0])  # type: ignore[arg-type]  # two words of an integer
            return (value, Reason.VALUE) if low <= value <= high else (None, Reason.OVERFLOW)

        return total
    if kind in (Kind.STRING, Kind.BOOLEAN):
        item = _item(feature.type, codes)
        return lambda slots: (item(slots[0]), Reason.VALUE)
    return None


def _item(type: DataType, codes: Codes) -> Callable[[Physical], Physical]:
    match type.kind:
        case Kind.STRING:
            return codes.text  # type: ignore[return-value]  # the word of a string is its code
        case Kind.BOOLEAN:
            return bool
    return lambda value: value
