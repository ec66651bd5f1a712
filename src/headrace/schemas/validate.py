"""What callers send, turned into rows of physical values, or refused with the place. Pure.

The one idea: a topic's fields are compiled once to one converter each, which passes the usual class straight through
and leaves the rest to `core.codec.physical`. A problem names row, field, what was seen and what was expected; of rows
with a problem among them none is taken.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace.core.codec import (
    FLOAT_UNITS_MAX,
    INSTANT_MAX,
    INSTANT_MIN,
    Physical,
    json_value,
    physical,
    refuse_lists,
    rows_to_batch,
    too_fine,
)
from headrace.core.errors import DefinitionError, SchemaError, did_you_mean
from headrace.core.schema import DataType, Field, Kind
from headrace.log.define import Topic

Event = Mapping[str, object]
Validate = Callable[[Event], tuple[Physical, ...]]
Convert = Callable[[object], Physical]

DAY = 86_400_000_000
PROBLEMS_MAX = 100  # found in one call; beyond, the sender's code is wrong, not a row
SEEN_MAX = 80  # characters of a value that an error shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with one value. row: its place among the rows, from 0. field: "" where the row itself is wrong."""

    row: int
    field: str
    code: str
    message: str
    detail: str = ""
    hint: str = ""

    def error(self, topic: str, *, origin: str = "", count: int = 1) -> SchemaError:
        """As an error. origin: the file, where there is one. count: problems in all."""
        place = f"{origin or f'topic {topic!r}'}, row {self.row}" + (f", field {self.field!r}" if self.field else "")
        more = f" (and {count - 1} more)" if count > 1 else ""
        return SchemaError(
            self.code,
            f"{place}: {self.message}{more}",
            detail=self.detail,
            hint=self.hint,
            topic=topic,
            row=self.row,
            field=self.field,
        )


def validator(topic: Topic) -> Validate:
    """The path of single events: a function from an event to its row, fields in declared order.

    event: JSON-like: str, int, float, bool, None, Decimal, aware datetime or ISO 8601 text by field name; a field left
    out is null. Late columns must be null (SEMANTICS 4.1). Cost: some 4 us for 6 fields.
    Raises, when called: SchemaError HR-0401 to HR-0409, HR-0103, with facts topic, field. Raises at once:
    DefinitionError HR-0410 (a list field), HR-0411 (a declared minimum or maximum that its type cannot hold).
    """
    return compile_row(topic, live=True)


def validate_rows(
    topic: Topic, rows: Sequence[Event], *, live: bool = True
) -> tuple[pa.RecordBatch, tuple[Problem, ...]]:
    """Rows as an Arrow batch of the topic's fields; where there are problems, the batch is empty.

    live: late columns must be null; False for an import, whose truth is known. At most PROBLEMS_MAX problems are looked
    for, at most one a row. Raises: as `validator` does at once.
    """
    convert = compile_row(topic, live=live)
    made: list[tuple[Physical, ...]] = []
    problems: list[Problem] = []
    for place, row in enumerate(rows):
        try:
            made.append(convert(row))
        except SchemaError as error:
            problems.append(problem_of(error, place))
            if len(problems) == PROBLEMS_MAX:
                break
    return rows_to_batch(topic.schema, () if problems else made), tuple(problems)


def problem_of(error: SchemaError, row: int) -> Problem:
    """The problem behind an error of a validator."""
    reason = error.facts.get("reason", error.message)
    return Problem(
        row=row,
        field=str(error.facts.get("field", "")),
        code=error.code,
        message=str(reason),
        detail=error.detail,
        hint=error.hint,
    )


def compile_row(topic: Topic, *, live: bool) -> Validate:
    """As `validator`. live: False takes late columns too, for an import, whose truth is known."""
    refuse_lists(topic.schema.fields)
    name = topic.name
    steps = [(f.name, converter(topic, f, live=live)) for f in topic.schema.fields]
    known, required = frozenset(topic.schema.names), topic.required

    def validate(event: Event) -> tuple[Physical, ...]:
        field = ""
        try:
            get = event.get
            row = []
            for field, convert in steps:
                value = get(field)
                row.append(convert(value) if value is not None or field in required else None)
        except SchemaError as error:
            raise _placed(error, name, field) from error
        except AttributeError as error:
            if isinstance(event, Mapping):
                raise
            reason = f"not an object: {shown(event)}"
            raise SchemaError("HR-0401", f"topic {name!r}: {reason}", reason=reason, topic=name, field="") from error
        if not known.issuperset(event):
            raise _unknown(topic, event)
        return tuple(row)

    return validate


def _placed(error: SchemaError, topic: str, field: str) -> SchemaError:
    return SchemaError(
        error.code,
        f"topic {topic!r}, field {field!r}: {error.message}",
        detail=error.detail,
        hint=error.hint,
        reason=error.message,
        topic=topic,
        field=field,
    )


def _unknown(topic: Topic, event: Event) -> SchemaError:
    unknown = next(n for n in event if n not in topic.schema)
    return unknown_field(topic, str(unknown), f"topic {topic.name!r}")


def unknown_field(topic: Topic, field: str, place: str) -> SchemaError:
    """HR-0405."""
    reason = f"unknown field {field!r}"
    return SchemaError(
        "HR-0405",
        f"{place}: {reason}",
        detail=f"topic {topic.name!r} has {len(topic.schema.names)} fields",
        hint=did_you_mean(field, topic.schema.names),
        reason=reason,
        topic=topic.name,
        field=field,
    )


def missing(topic: Topic, field: str) -> SchemaError:
    """HR-0406."""
    roles = [
        r for r, named in (("key", topic.key), ("id", topic.id), ("event time", topic.event_time)) if named == field
    ]
    return SchemaError(
        "HR-0406",
        "missing or null",
        detail=f"expected {topic.schema[field].type}: it is "
        + (f"the topic's {' and '.join(roles)}" if roles else "required"),
    )


def late(f: Field) -> SchemaError:
    """HR-0408."""
    return SchemaError(
        "HR-0408",
        "a late column has a value at append",
        detail=f"expected null: its truth is known {f.available_after} after the event",
        hint="append its truth later, to the topic named '<topic>.<column>'",
    )


def outside(f: Field, seen: str) -> SchemaError:
    """HR-0407."""
    low = "" if f.minimum is None else f"at least {f.minimum}"
    high = "" if f.maximum is None else f"at most {f.maximum}"
    return SchemaError(
        "HR-0407", f"out of range: {seen}", detail="expected " + " and ".join(part for part in (low, high) if part)
    )


def limits(topic: Topic, f: Field) -> tuple[Physical, Physical]:
    """The declared minimum and maximum as physical values. Raises: DefinitionError HR-0411."""
    try:
        low, high = (_limit(value, f.type) for value in (f.minimum, f.maximum))
    except SchemaError as error:
        raise DefinitionError(
            "HR-0411",
            f"topic {topic.name!r}, field {f.name!r}: its declared range does not fit {f.type}",
            detail=error.message,
            topic=topic.name,
            field=f.name,
        ) from error
    return low, high


def _limit(value: int | float | str | None, declared: DataType) -> Physical:
    if declared.kind is Kind.FLOAT64 and isinstance(value, str):
        try:
            value = float(value)
        except ValueError as error:
            raise SchemaError("HR-0401", f"string for {declared}: {value!r}", detail=f"expected {declared}") from error
    return physical(value, declared)


def converter(topic: Topic, f: Field, *, live: bool) -> Convert:
    """A field's converter. It is given null only where the topic requires a value."""
    convert = _CONVERTERS[f.type.kind](f.type)
    low, high = limits(topic, f)
    if live and f.available_after is not None:

        def refuse(value: object) -> Physical:
            raise late(f)

        return refuse
    if f.name in topic.required:
        present = convert

        def convert(value: object) -> Physical:
            if value is None:
                raise missing(topic, f.name)
            return present(value)

    if low is None and high is None:
        return convert
    inner = convert

    def bounded(value: object) -> Physical:
        made = inner(value)
        # comparable: both physical values of one type, which is what `limits` made sure of
        if (low is not None and made < low) or (high is not None and made > high):  # type: ignore[operator]
            raise outside(f, shown(json_value(made, f.type)))
        return made

    return bounded


def shown(value: object) -> str:
    """A value as an error shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SEEN_MAX else f"{text[:SEEN_MAX]}..."


def _text(declared: DataType) -> Convert:
    def text(value: object) -> Physical:
        return value if type(value) is str and value.isascii() else physical(value, declared)

    return text


def _integer(declared: DataType) -> Convert:
    def integer(value: object) -> Physical:
        return value if type(value) is int and -(2**63) <= value < 2**63 else physical(value, declared)

    return integer


def _real(declared: DataType) -> Convert:
    def real(value: object) -> Physical:
        return value + 0.0 if type(value) is float and math.isfinite(value) else physical(value, declared)

    return real


def _boolean(declared: DataType) -> Convert:
    def boolean(value: object) -> Physical:
        return value if type(value) is bool else physical(value, declared)

    return boolean


def _decimal(declared: DataType) -> Convert:
    scale: int = 10**declared.scale
    bound: int = 10 ** (declared.precision - declared.scale)

    def decimal(value: object) -> Physical:
        if type(value) is int and -bound < value < bound:
            return value * scale
        if type(value) is float and -bound < value < bound:
            # the units whose nearest double is this float, if there are any: the digits that the sender wrote
            units: int = round(value * scale)
            if -FLOAT_UNITS_MAX < units < FLOAT_UNITS_MAX and units / scale == value:
                return units
        return physical(value, declared)

    return decimal


def _timestamp(declared: DataType) -> Convert:
    def timestamp(value: object) -> Physical:
        if type(value) is str and not too_fine(value):
            try:
                passed = parse(value) - epoch
            except (ValueError, TypeError):  # no ISO 8601, or no zone: `physical` says which
                return physical(value, declared)
            micros = passed.days * DAY + passed.seconds * 1_000_000 + passed.microseconds
            if INSTANT_MIN <= micros <= INSTANT_MAX:
                return micros
        return physical(value, declared)

    parse, epoch = dt.datetime.fromisoformat, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

    return timestamp


_CONVERTERS: dict[Kind, Callable[[DataType], Convert]] = {
    Kind.STRING: _text,
    Kind.INT64: _integer,
    Kind.FLOAT64: _real,
    Kind.BOOLEAN: _boolean,
    Kind.DECIMAL: _decimal,
    Kind.TIMESTAMP: _timestamp,
    Kind.DURATION: _integer,
}
