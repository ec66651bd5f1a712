"""What a file's own types leave open, decided by the import's options before the validation. Pure.

The one idea: texts that stand for numbers (CSV), local times, digits beyond a decimal's scale and 0 and 1 for booleans
are made exact here, or left as they are for the validation to refuse; nothing is guessed, and rounding is counted.
"""

from __future__ import annotations

import datetime as dt
import decimal
import zoneinfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import decimal_units, decimals, rounded, units
from headrace.core.errors import SchemaError, UsageError, did_you_mean
from headrace.core.schema import DataType, Kind
from headrace.core.zones import zone
from headrace.log.define import Topic
from headrace.schemas.batches import decimals_of
from headrace.schemas.define import ImportOptions
from headrace.schemas.validate import Problem


class Fitting:
    """Of one file. origin: how errors name it. rounded: values rounded so far."""

    def __init__(self, topic: Topic, options: ImportOptions, origin: str) -> None:
        """Raises: DefinitionError HR-0114 (no such zone), UsageError HR-0427 (rounding what is no decimal field)."""
        self.topic, self.options, self.origin = topic, options, origin
        self.rounded = 0
        if options.zone is not None:
            zone(options.zone)
        for name in options.round:
            if name not in topic.schema or topic.schema[name].type.kind is not Kind.DECIMAL:
                known = [f.name for f in topic.schema if f.type.kind is Kind.DECIMAL]
                raise UsageError(
                    "HR-0427",
                    f"topic {topic.name!r} has no decimal field {name!r} to round",
                    hint=did_you_mean(name, known),
                )

    def refused(self, row: int, field: str, code: str, message: str, detail: str = "") -> SchemaError:
        """An error at a row of the file, counted from 1."""
        problem = Problem(row=row, field=field, code=code, message=message, detail=detail)
        return problem.error(self.topic.name, origin=self.origin)

    def column(self, array: pa.Array, name: str, declared: DataType, first_row: int) -> pa.Array:
        """A column as the validation takes it. first_row: the number of its first row.

        Raises: SchemaError HR-0401 (a text that is no number), HR-0424 (a local time that names no one instant).
        """
        text = pa.types.is_string(array.type)
        if text and declared.kind is not Kind.STRING:
            array = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
        match declared.kind:
            case Kind.TIMESTAMP if self.options.zone is not None:
                return self._with_zone(array, name, self.options.zone, first_row)
            case Kind.DECIMAL if name in self.options.round:
                return self._rounded(array, declared)
            case Kind.BOOLEAN if pa.types.is_integer(array.type):
                wholes = units(array.cast(pa.int64()))
                return array.cast(pa.bool_()) if bool(((wholes == 0) | (wholes == 1)).all()) else array
            case Kind.INT64 | Kind.FLOAT64 | Kind.BOOLEAN | Kind.DURATION if text:
                return self._parsed(array, name, declared, first_row)
        return array

    def value(self, value: object, name: str, declared: DataType, row: int) -> object:
        """The same of one value of an object."""
        if declared.kind is Kind.TIMESTAMP and self.options.zone is not None and isinstance(value, str):
            return self._text_with_zone(value, name, self.options.zone, row)
        if name in self.options.round and isinstance(value, (str, float, decimal.Decimal)):
            try:
                nearest = rounded(value, declared)
            except SchemaError:
                return value  # the validation says what is wrong with it
            self.rounded += nearest != decimal.Decimal(repr(value) if isinstance(value, float) else value)
            return nearest
        return value

    def _parsed(self, texts: pa.Array, name: str, declared: DataType, first_row: int) -> pa.Array:
        """Numbers and booleans written as text."""
        try:
            return texts.cast(declared.arrow)
        except pa.ArrowInvalid:
            for row in range(len(texts)):
                try:
                    texts.slice(row, 1).cast(declared.arrow)
                except pa.ArrowInvalid:
                    seen = repr(texts.slice(row, 1).cast(pa.binary())[0].as_py().decode(errors="replace"))
                    message = f"not of type {declared}: {seen}"
                    raise self.refused(first_row + row, name, "HR-0401", message, f"expected {declared}") from None
            raise

    def _rounded(self, array: pa.Array, declared: DataType) -> pa.Array:
        """Decimals at the type's scale; what is no number or out of range is left for the validation."""
        if pa.types.is_floating(array.type):
            nulls = array.is_null().to_numpy(zero_copy_only=False)
            reals = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
            words, exact = decimals_of(reals, declared)
            for row in np.flatnonzero(~exact).tolist():
                near = self._nearest(float(reals[row]), declared)
                if near is None:
                    return array
                words[row] = near
            return decimals(words, declared, nulls if nulls.any() else None)
        values = []
        for row in range(len(array)):
            value = array[row].as_py()
            near = None if value is None else self._nearest(value, declared)
            if value is not None and near is None:
                return array
            values.append(near)
        nulls = np.array([v is None for v in values], dtype=np.bool_)
        return decimals(np.array([v or 0 for v in values], dtype=np.int64), declared, nulls if nulls.any() else None)

    def _nearest(self, value: float | str | decimal.Decimal, declared: DataType) -> int | None:
        """Units, counted where they differ from the value; None where they do not fit."""
        try:
            nearest = rounded(value, declared)
            made = decimal_units(nearest, declared)
        except SchemaError:
            return None
        self.rounded += nearest != decimal.Decimal(repr(value) if isinstance(value, float) else value)
        return made

    def _with_zone(self, array: pa.Array, name: str, tz: str, first_row: int) -> pa.Array:
        """Local times as instants; what has a zone keeps it."""
        local = array
        if pa.types.is_string(array.type):
            try:
                local = array.cast(pa.timestamp("us"))
            except pa.ArrowInvalid:
                texts = enumerate(array.to_pylist(), first_row)
                made = [None if t is None else self._text_with_zone(t, name, tz, row) for row, t in texts]
                return pa.array(made, pa.string())
        if not pa.types.is_timestamp(local.type) or local.type.tz is not None:
            return array
        try:
            return pc.assume_timezone(local, tz, ambiguous="raise", nonexistent="raise")
        except pa.ArrowInvalid:
            for row, at in enumerate(local.cast(pa.timestamp("us"), safe=False).to_pylist(), first_row):
                if at is not None:
                    self._offset(at, name, tz, row)
            raise

    def _text_with_zone(self, text: str, name: str, tz: str, row: int) -> str:
        """The same text where it has a zone, or is no time at all, which the validation then says."""
        try:
            at = dt.datetime.fromisoformat(text)
        except ValueError:
            return text
        return text if at.tzinfo is not None else text + self._offset(at, name, tz, row)

    def _offset(self, at: dt.datetime, name: str, tz: str, row: int) -> str:
        """The offset of a local time, as ISO 8601 writes it. Raises: SchemaError HR-0424."""
        first, second = (at.replace(tzinfo=zoneinfo.ZoneInfo(tz), fold=fold) for fold in (0, 1))
        if first.utcoffset() != second.utcoffset():
            message = f"local time {at.isoformat()} names no one instant in {tz}"
            detail = "expected a time that the zone's clock shows once; around a change some come twice, some never"
            raise self.refused(row, name, "HR-0424", message, detail)
        return first.isoformat()[len(at.isoformat()) :]
