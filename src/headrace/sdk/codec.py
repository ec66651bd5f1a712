"""An event as a Kafka record, JSON form: its value is canonical JSON, its key the key field's bytes, its partition
murmur2's. Pure.

The one idea: a topic is compiled once, into one writer a field that gives its piece of the text; what comes out is
`core.codec.canonical_json` of the fields' `json_value`, to the byte, at a third of the cost.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import NamedTuple

from headrace.core.codec import Physical, canonical_json, json_value, key_bytes, murmur2
from headrace.core.errors import DefinitionError, InputError, SchemaError
from headrace.core.schema import DataType, Kind
from headrace.log.define import Payload, Topic
from headrace.schemas.validate import Event, validator
from headrace.sdk.define import Failure, Reason

KEYS_MAX = 65_536  # keys whose partition is remembered: some 10 MB; murmur2 in Python costs 2 us, a look-up 0.1 us

_EPOCH = dt.datetime(1970, 1, 1)  # UTC; without a zone, whose text would have to be cut off again


class Encoded(NamedTuple):
    """What is sent of an event."""

    partition: int
    key: bytes
    value: bytes


class Poison(Exception):  # noqa: N818 - a record is not an error; it is never shown to anybody as one
    """A record that no handler can take. failure: why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class Codec:
    """Events of one topic to records and back. May be called from any thread."""

    def __init__(self, topic: Topic, partitions: int, *, ignore_unknown: bool = False) -> None:
        """ignore_unknown: fields that the definition does not have are left aside when reading. Raises: DefinitionError
        HR-0434 for a topic in Arrow form, HR-0410, HR-0411."""
        if topic.payload is not Payload.JSON:
            raise DefinitionError(
                "HR-0434",
                f"topic {topic.name!r} is in {topic.payload.value} form",
                detail="expected json: a record an event",
                hint="producers and consumers of single events need payload='json'; bulk goes by headrace import",
            )
        self.topic = topic
        self.partitions = partitions
        self.names = {f.name: (place, f.type) for place, f in enumerate(topic.schema)}
        self._validate = validator(topic)
        self._key = topic.schema.names.index(topic.key)
        self._text_key = topic.schema[topic.key].type.kind is Kind.STRING
        self._ignore = ignore_unknown
        self._pieces = [
            (place, f"{',' if number else '{'}{canonical_json(name)}:", _writer(type))
            for number, (name, (place, type)) in enumerate(sorted(self.names.items()))
        ]
        self._partition_of_key: dict[bytes, int] = {}

    def encode(self, event: Event) -> Encoded:
        """Raises: SchemaError HR-0401 to HR-0409, HR-0103."""
        row = self._validate(event)
        key = key_bytes(row[self._key])  # type: ignore[arg-type]  # a key is str or int, and never null: Topic says so
        return Encoded(self.partition(key), key, self.text(row).encode())

    def text(self, row: tuple[Physical, ...]) -> str:
        """The canonical JSON of a row."""
        parts = []
        for place, name, write in self._pieces:
            value = row[place]
            parts.append(name)
            parts.append("null" if value is None else write(value))
        parts.append("}")
        return "".join(parts)

    def partition(self, key: bytes) -> int:
        """Where a key's events are."""
        known = self._partition_of_key
        found = known.get(key)
        if found is None:
            if len(known) >= KEYS_MAX:
                known.clear()
            found = known[key] = (murmur2(key) & 0x7FFFFFFF) % self.partitions
        return found

    def decode(self, partition: int, key: bytes | None, value: bytes | None) -> tuple[str | int, tuple[Physical, ...]]:
        """The event's key and row. Raises: Poison."""
        if value is None:
            raise _poison(Reason.UNREADABLE, "HR-0440", "a record without a value")
        try:
            event = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _poison(Reason.UNREADABLE, "HR-0440", f"no JSON: {error}") from error
        if not isinstance(event, dict):
            raise _poison(Reason.UNREADABLE, "HR-0440", f"no JSON object: {type(event).__name__}")
        if self._ignore:
            event = {name: field for name, field in event.items() if name in self.names}
        try:
            row = self._validate(event)
        except SchemaError as error:
            raise _poison(Reason.UNFIT, error.code, error.message) from error
        found = row[self._key]
        wanted = key_bytes(found)  # type: ignore[arg-type]  # as above
        if key != wanted:
            raise _poison(Reason.MISPLACED, "HR-0441", f"the record's key is not that of its field {self.topic.key!r}")
        if self.partition(wanted) != partition:
            said = f"partition {partition}, its key belongs into {self.partition(wanted)}"
            raise _poison(Reason.MISPLACED, "HR-0441", said)
        return found, row  # type: ignore[return-value]  # as above

    def key(self, key: str | int) -> bytes:
        """A key's bytes. Raises: InputError HR-0445 for one that the topic's key field cannot hold."""
        if isinstance(key, bool) or isinstance(key, str) != self._text_key:
            raise InputError(
                "HR-0445",
                f"{key!r} is no key of topic {self.topic.name!r}",
                detail=f"expected {self.topic.schema[self.topic.key].type}",
            )
        return key_bytes(key)


def _poison(reason: Reason, kind: str, text: str) -> Poison:
    return Poison(Failure(reason=reason, kind=kind, text=text))


def _writer(type: DataType) -> Callable[[Physical], str]:
    match type.kind:
        case Kind.STRING:
            return encode_basestring  # type: ignore[return-value]  # given texts only, as the validator made them
        case Kind.INT64 | Kind.DURATION:
            return repr  # given ints only
        case Kind.BOOLEAN:
            return lambda value: "true" if value else "false"
        case Kind.FLOAT64:
            return repr  # finite, and never -0.0, as the validator made them
        case Kind.TIMESTAMP:
            return _timestamp
        case Kind.DECIMAL if 0 < type.scale <= 6:
            return _decimal(type.scale)
    return lambda value: canonical_json(json_value(value, type))


def _timestamp(value: Physical) -> str:
    return f'"{(_EPOCH + dt.timedelta(0, 0, value)).isoformat()}Z"'  # type: ignore[arg-type]  # microseconds


def _decimal(scale: int) -> Callable[[Physical], str]:
    """What str(Decimal) says of units, which is never in exponents as long as the scale is at most 6."""
    whole = 10**scale

    def write(value: Physical) -> str:
        units = int(value)  # type: ignore[arg-type]  # a decimal's physical value is its units
        high, low = divmod(-units if units < 0 else units, whole)
        return f'"{"-" if units < 0 else ""}{high}.{low:0{scale}d}"'

    return write
