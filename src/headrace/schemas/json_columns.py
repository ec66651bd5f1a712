"""Many events at once between JSON and columns, where nothing about them is unusual. Pure.

The one idea: this way takes only what the way of single events takes (schemas/json_payload.py), and gives the same;
what it finds unusual it does not judge, it says so, and the other way does. A column of JSON fragments is text in
Arrow; a value is decoded by one typed structure for its topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import units
from headrace.core.errors import SchemaError
from headrace.core.schema import Field, Kind
from headrace.log.define import Topic
from headrace.schemas.batches import validate_batch

_CLASSES: dict[Kind, type] = {
    Kind.STRING: str, Kind.INT64: int, Kind.FLOAT64: float, Kind.BOOLEAN: bool,
    Kind.TIMESTAMP: str, Kind.DURATION: int, Kind.DECIMAL: str,
}  # fmt: skip
_ESCAPED = r'["\\\x00-\x1f]'
_INSTANT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"
_DECIMAL = r"^-?\d{1,18}(\.\d{1,18})?$"
_FIRST_YEAR = -30_610_224_000_000_000  # of four digits: 1000-01-01


class JsonColumns:
    """A topic's events, columnwise."""

    def __init__(self, topic: Topic, *, live: bool) -> None:
        self._topic, self._live = topic, live
        self._fields = topic.schema.fields
        # Names of their own: a field may have a name that a structure cannot have.
        names = [f"f{place}" for place in range(len(self._fields))]
        members = [(name, _CLASSES[f.type.kind] | None, None) for name, f in zip(names, self._fields, strict=True)]
        renamed = {name: f.name for name, f in zip(names, self._fields, strict=True)}
        made = msgspec.defstruct("Event", members, rename=renamed, forbid_unknown_fields=True, gc=False)
        self._decode = msgspec.json.Decoder(made).decode_lines
        # Of one name the getter gives no tuple; a topic of one field is read by single events.
        self._values = attrgetter(*names)

    def encode(self, batch: pa.RecordBatch) -> list[bytes] | None:
        """A value for each row; None where a row must be written by itself."""
        pieces: list[pa.Array | str] = []
        for f in self._fields:
            text = _texts(f, batch.column(f.name))
            if text is None:
                return None
            pieces.append(pc.binary_join_element_wise(f",{msgspec.json.encode(f.name).decode()}:", text, ""))
        joined = pc.binary_join_element_wise(*pieces, "", null_handling="replace", null_replacement="")
        whole = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(joined, 1), "}", "")
        return list(whole.cast(pa.binary()).to_pylist())

    def decode(self, values: Sequence[bytes]) -> pa.RecordBatch | None:
        """A row for each value; None where one of them must be read by itself."""
        lines = b"\n".join(values)
        if len(self._fields) < 2 or lines.count(b"\n") != len(values) - 1:
            return None
        try:
            found = self._decode(lines)
            if len(found) != len(values):
                return None
            columns = zip(*map(self._values, found), strict=True)
            arrays = [_array(f, column) for f, column in zip(self._fields, columns, strict=True)]
            if any(array is None for array in arrays):
                return None
            batch = pa.RecordBatch.from_arrays(arrays, names=[f.name for f in self._fields])
            return validate_batch(self._topic, batch, live=self._live)
        except (msgspec.DecodeError, pa.ArrowInvalid, OverflowError, UnicodeError, SchemaError):
            return None


def _texts(f: Field, column: pa.Array) -> pa.Array | None:
    """A column as JSON texts, null where null."""
    match f.type.kind:
        case Kind.STRING:
            if pc.any(pc.match_substring_regex(column, _ESCAPED)).as_py():
                return None
            return pc.binary_join_element_wise('"', column, '"', "")
        case Kind.TIMESTAMP:
            if len(column) and int(units(column.drop_null()).min(initial=0)) < _FIRST_YEAR:
                return None
            text = pc.replace_substring(pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ"), ".000000Z", "Z")
            return pc.binary_join_element_wise('"', text, '"', "")
        case Kind.DECIMAL:
            return pc.binary_join_element_wise('"', column.cast(pa.string()), '"', "")
        case Kind.DURATION:
            return column.cast(pa.int64()).cast(pa.string())
    return column.cast(pa.string())


def _array(f: Field, values: Sequence[object]) -> pa.Array | None:
    match f.type.kind:
        case Kind.TIMESTAMP:
            texts = pa.array(values, pa.string())
            return texts.cast(f.type.arrow) if _all(texts, _INSTANT) else None
        case Kind.DECIMAL:
            texts = pa.array(values, pa.string())
            return texts.cast(f.type.arrow) if _all(texts, _DECIMAL) else None
        case Kind.FLOAT64:
            reals = pa.array(values, pa.float64())
            return pc.add(reals, pa.scalar(0.0)) if len(values) else reals  # no value is -0.0
        case Kind.DURATION:
            return pa.array(values, pa.int64()).cast(f.type.arrow)
    return pa.array(values, f.type.arrow)


def _all(texts: pa.Array, pattern: str) -> bool:
    return bool(np.all(pc.match_substring_regex(texts, pattern).drop_null().to_numpy(zero_copy_only=False)))
