"""Events as JSON objects, one a record: what any client of any language can write and read. Pure.

The one idea: a value goes through the validator of single events, so that an event is the same whether it came over
HTTP, from a file, or by a client of Kafka that never heard of headrace. Many at once go columnwise where nothing about
them is unusual (json_columns.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.core.codec import Physical, batch_to_rows, json_value, rows_to_batch
from headrace.core.errors import SchemaError
from headrace.log.define import Topic
from headrace.log.port import Decoded, EventCodec, Row, Unreadable
from headrace.schemas.batches import validate_batch
from headrace.schemas.json_columns import JsonColumns
from headrace.schemas.validate import compile_row

MANY = 8  # events from which the columnwise way costs less
_encode = msgspec.json.Encoder().encode


class JsonPayload(EventCodec):
    """A topic's fields by name; decimals as text, instants as ISO 8601, durations in microseconds; null where a field
    is left out."""

    def __init__(self, topic: Topic, *, live: bool = True) -> None:
        """live: late columns must be null. Raises: DefinitionError HR-0410, HR-0411."""
        self._topic, self._live = topic, live
        self._schema = topic.schema
        self._names = topic.schema.names
        self._types = [field.type for field in topic.schema]
        self._columns = JsonColumns(topic, live=live)
        self._validate: Callable[[Any], Row] = compile_row(topic, live=live)

    def encode(self, rows: pa.RecordBatch | Sequence[Row]) -> list[bytes]:
        if isinstance(rows, pa.RecordBatch) and rows.num_rows >= MANY:
            values = self._columns.encode(rows)
            if values is not None:
                return values
        found = batch_to_rows(self._schema, rows) if isinstance(rows, pa.RecordBatch) else rows
        return [_encode(self._said(row)) for row in found]

    def _said(self, row: Row) -> dict[str, Physical]:
        pairs = zip(self._names, row, self._types, strict=True)
        return {name: json_value(value, type) for name, value, type in pairs if value is not None}

    def decode(self, values: Sequence[bytes]) -> Decoded:
        if len(values) >= MANY:
            batch = self._columns.decode(values)
            if batch is not None:
                return Decoded(batch, np.arange(len(values)), ())
        rows: list[Row] = []
        places: list[int] = []
        unreadable: list[Unreadable] = []
        decode, validate = msgspec.json.decode, self._validate
        for place, value in enumerate(values):
            try:
                rows.append(validate(decode(value)))
                places.append(place)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                unreadable.append(Unreadable(place, "HR-0401", f"not JSON: {error}"))
            except SchemaError as error:
                unreadable.append(Unreadable(place, error.code, error.message))
            except RecursionError:
                unreadable.append(Unreadable(place, "HR-0401", "nested too deeply"))
        return Decoded(rows_to_batch(self._schema, rows), np.array(places, np.int64), unreadable)

    def check(self, batch: pa.RecordBatch) -> None:
        validate_batch(self._topic, batch, live=self._live)
