"""How a file's rows enter the log: which column is which field, in what order, and what is left out. Pure.

The one idea: an import's order (available_at, order key) does not depend on when it runs, and what is left out is its
end. So a broken import goes on where it stopped, and the rows are those of an import in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.codec import units
from headrace.core.errors import SchemaError, UsageError, did_you_mean
from headrace.core.schema import Kind
from headrace.core.times import Instant, iso
from headrace.log.define import Topic
from headrace.schemas.define import AvailableAt, ImportOptions

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """fields: the file's column of each field it has. available_at: the column that says so, where the rule names one.
    ignored: the others."""

    fields: Mapping[str, str]
    available_at: str | None
    ignored: tuple[str, ...]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns to read, each once."""
        names = [*self.fields.values(), *([self.available_at] if self.available_at else [])]
        return tuple(dict.fromkeys(names))


def match_columns(topic: Topic, have: Sequence[str], options: ImportOptions, *, origin: str) -> Columns:
    """Which of a file's columns is which field.

    Raises: UsageError HR-0427 (a mapping of no field), SchemaError HR-0423 (a column that is not there), HR-0405 (a
    column that is no field but resembles one the file lacks: a typing error would leave the field null unseen).
    """
    for name in options.columns:
        if name not in topic.schema:
            raise UsageError(
                "HR-0427",
                f"topic {topic.name!r} has no field {name!r} to map a column to",
                hint=did_you_mean(name, topic.schema.names),
            )
    fields = {f.name: options.columns.get(f.name, f.name) for f in topic.schema}
    for name, column in fields.items():
        if column not in have and (name in options.columns or name in topic.required):
            raise _no_column(topic, column, have, origin, field=name)
    for column in fields.values():
        if have.count(column) > 1:
            raise SchemaError("HR-0405", f"{origin}: two columns are named {column!r}", column=column)
    said = options.available_at.column
    if said is not None and said not in have:
        raise _no_column(topic, said, have, origin, field=None)
    fields = {name: column for name, column in fields.items() if column in have}
    ignored = tuple(c for c in have if c not in fields.values() and c != said)
    lacking = {name.lower(): name for name in topic.schema.names if name not in fields}
    for column in ignored:
        hint = did_you_mean(column.lower(), lacking)
        if column not in options.ignore and hint.startswith("did you mean"):
            near = next(name for low, name in lacking.items() if repr(low) in hint)
            raise SchemaError(
                "HR-0405",
                f"{origin}: unknown column {column!r}",
                detail=f"it resembles field {near!r}, for which the file has no column",
                hint=f"say --map {near}={column} if it is, --ignore {column} if it is not",
                field=near,
            )
    return Columns(fields=fields, available_at=said, ignored=ignored)


def _no_column(topic: Topic, column: str, have: Sequence[str], origin: str, *, field: str | None) -> SchemaError:
    wanted_by = "its available_at" if field is None else f"field {field!r}"
    near = did_you_mean(column, have)
    return SchemaError(
        "HR-0423",
        f"{origin}: no column {column!r}",
        detail=f"topic {topic.name!r} needs it for {wanted_by}; the file has {', '.join(have[:20]) or 'none'}",
        hint=near if field is None or near.startswith("there is") else f"{near} say --map {field}=COLUMN",
        field=field or "",
        column=column,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """rows: the batch in the import's order, without what is left out. available_at: one a row, never falling."""

    rows: pa.RecordBatch
    available_at: Integers
    left_out: int


def order_rows(topic: Topic, batch: pa.RecordBatch, available_at: Integers, *, now: Instant | None) -> Ordered:
    """Rows by (available_at, event time, id, place in the file), without those available only after `now`.

    batch: validated. now: None leaves nothing out (a simulated clock has no such instant). Cost: O(n log n), O(n) where
    the file is in order already.
    """
    keys = [available_at]
    if topic.event_time is not None:
        keys.append(units(batch.column(topic.event_time)))
    if topic.id is not None:
        ids = batch.column(topic.id)
        if topic.schema[topic.id].type.kind is Kind.STRING:
            keys.append(
                pc.rank(ids, tiebreaker="dense").to_numpy().astype(np.int64)
            )  # by bytes, which is by code point
        else:
            keys.append(units(ids))
    if not _in_order(keys):
        order = np.lexsort(keys[::-1])  # stable, and its last key is the first to sort by
        batch, available_at = batch.take(pa.array(order)), available_at[order]
    count = len(available_at) if now is None else int(np.searchsorted(available_at, now, side="right"))
    return Ordered(rows=batch.slice(0, count), available_at=available_at[:count], left_out=len(available_at) - count)


def _in_order(keys: Sequence[Integers]) -> bool:
    """Whether no row comes before the one it follows: no key falls where all keys before it are tied."""
    tied: np.bool_ | npt.NDArray[np.bool_] = np.True_
    falls: np.bool_ = np.False_
    for key in keys:
        this, following = key[:-1], key[1:]
        falls = falls | (tied & (following < this)).any()
        tied = tied & (following == this)
    return not falls


def available_by_rule(topic: Topic, batch: pa.RecordBatch, rule: AvailableAt) -> Integers:
    """available_at by event time and delay. Raises: SchemaError HR-0425 where the topic has no event time."""
    if topic.event_time is None:
        raise SchemaError(
            "HR-0425",
            f"topic {topic.name!r} names no event_time, so its imports need a column for available_at",
            detail=f"seen the rule {rule}",
            hint="say --available-at column:NAME",
        )
    return units(batch.column(topic.event_time)) + rule.delay.micros


def imported_already(topic: str, origin: str, at: Instant | None) -> UsageError:
    """HR-0426."""
    when = "" if at is None else f", on {iso(at)}"
    return UsageError(
        "HR-0426",
        f"{origin} was imported into topic {topic!r} before{when}",
        detail="expected a file whose bytes were not seen yet",
        hint="say --again to take the rows whose ids are not known yet",
    )
