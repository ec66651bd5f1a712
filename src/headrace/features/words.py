"""Values as the kernel's int64 words and back: codes of strings, bits of floats, columns of Arrow. Pure.

What `core/kernel/program.py` says of words, done for one value and for many. A code is a string's place in the order of
first appearance; it is stored with the state that holds it, and never compared or published.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import units
from headrace.core.schema import DataType, Kind

Words = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

_DOUBLE = struct.Struct("<d")
_INT64 = struct.Struct("<q")


class Codes:
    """Strings as integers from 0, in order of first appearance. Grows; nothing is ever forgotten."""

    __slots__ = ("_array", "_codes", "_texts")

    def __init__(self, texts: Sequence[str] = ()) -> None:
        """texts: what `texts` gave of another, in that order: then known strings keep their codes."""
        self._texts = list(texts)
        self._codes = {text: code for code, text in enumerate(self._texts)}
        self._array = pa.array(self._texts, pa.string())

    @property
    def texts(self) -> tuple[str, ...]:
        """Every string by its code: what a checkpoint keeps."""
        return tuple(self._texts)

    def code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._texts)
            self._texts.append(text)
        return code

    def text(self, code: int) -> str:
        return self._texts[code]

    def encode(self, array: pa.Array) -> Words:
        """The codes of a string array; 0 where null. One look-up in Python a distinct string."""
        encoded = array.dictionary_encode()
        codes = np.array([self.code(text) for text in encoded.dictionary.to_pylist()], dtype=np.int64)
        indices = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return codes[indices] if len(codes) else np.zeros(len(array), np.int64)

    def decode(self, codes: Words, nulls: Booleans) -> pa.Array:
        """The strings of codes, null where `nulls`."""
        if len(self._array) < len(self._texts):
            self._array = pa.array(self._texts, pa.string())
        return self._array.take(pa.array(codes, pa.int64(), mask=nulls))


def float_word(value: float) -> int:
    """The bits of a double as an int64; of -0.0 those of 0.0, as no value is -0.0 (SEMANTICS 3.3)."""
    return int(_INT64.unpack(_DOUBLE.pack(value + 0.0))[0])


def words_of(array: pa.Array, type: DataType, codes: Codes) -> tuple[Words, Booleans | None]:
    """(words, which are there) of a column; the second is None where all are. Words are 0 where null. May share."""
    there = None if not array.null_count else array.is_valid().to_numpy(zero_copy_only=False)
    match type.kind:
        case Kind.STRING:
            return codes.encode(array), there
        case Kind.BOOLEAN:
            filled = array if there is None else array.fill_null(False)
            return filled.to_numpy(zero_copy_only=False).astype(np.int64), there
        case Kind.FLOAT64:
            filled = array if there is None else array.fill_null(0.0)
            return (filled.to_numpy(zero_copy_only=False) + 0.0).view(np.int64), there
    return units(array), there
