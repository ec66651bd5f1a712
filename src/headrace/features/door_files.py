"""Files of events and points as columns: Parquet as Arrow has it, NDJSON as Python values. Reads files.

Nothing is guessed: values become typed when a column is asked for with its type, and JSON numbers with a point are
decimals until then, so that nothing is lost on the way.
"""

from __future__ import annotations

import decimal
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core.errors import InputError, did_you_mean
from headrace.core.schema import DataType
from headrace.features.replay_given import conform

Places = npt.NDArray[np.intp]


class File:
    """A file's columns: of Parquet as Arrow has them, of NDJSON as Python values."""

    def __init__(self, what: str, columns: Mapping[str, pa.Array | Sequence[object]], count: int) -> None:
        self.what = what
        self.columns = columns
        self.count = count

    @classmethod
    def read(cls, path: Path, what: str) -> File:
        try:
            with path.open("rb") as file:
                begins = file.read(4)
            if begins == b"PAR1":
                table = pq.read_table(path)
                columns = {name: table.column(name).combine_chunks() for name in table.column_names}
                return cls(what, columns, table.num_rows)
            return cls._of_lines(path, what)
        except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise InputError(
                "HR-0525", f"{what} file {str(path)!r} cannot be read", detail=f"{type(error).__name__}: {error}"
            ) from error

    @classmethod
    def _of_lines(cls, path: Path, what: str) -> File:
        rows: list[Mapping[str, object]] = []
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    rows.append(_object(line, f"line {number} of the {what} file"))
        names = dict.fromkeys(name for row in rows for name in row)
        return cls(what, {name: [row.get(name) for row in rows] for name in names}, len(rows))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def column(self, name: str, type: DataType, rows: Places | None = None) -> pa.Array:
        """A column, or some rows of it, in the type's Arrow type; nulls where there is none."""
        if name not in self.columns:
            return pa.nulls(self.count if rows is None else len(rows), type.arrow)
        values = self.columns[name]
        if rows is not None:
            values = self.some(name, rows)
        return conform(values, type, f"{self.what}: column {name!r}")

    def some(self, name: str, rows: Places) -> pa.Array | Sequence[object]:
        """Some rows of a column as the file has them."""
        values = self.columns[name]
        return values.take(pa.array(rows)) if isinstance(values, pa.Array) else [values[row] for row in rows.tolist()]

    def needed(self, name: str, type: DataType, rows: Places | None = None) -> pa.Array:
        """A column that must be there, without nulls."""
        if name not in self.columns:
            raise InputError(
                "HR-0526", f"the {self.what} file has no column {name!r}", hint=did_you_mean(name, self.columns)
            )
        made = self.column(name, type, rows)
        if made.null_count:
            row = int(np.flatnonzero(made.is_null().to_numpy(zero_copy_only=False))[0])
            row = row if rows is None else int(rows[row])
            raise InputError("HR-0526", f"{self.what}: column {name!r} is null in row {row}")
        return made

    def objects(self, name: str) -> list[object]:
        """JSON values of a column: as they are in NDJSON, parsed from text or made of structs in Parquet."""
        values = self.columns.get(name)
        if values is None:
            return [None] * self.count
        found = values.to_pylist() if isinstance(values, pa.Array) else list(values)
        what = f"{self.what}: column {name!r}"
        return [_parsed(one, f"{what}, row {row}") if isinstance(one, str) else one for row, one in enumerate(found)]

    def there(self, name: str) -> Places:
        """The rows where a column is not null."""
        values = self.columns[name]
        if isinstance(values, pa.Array):
            return np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        return np.flatnonzero([value is not None for value in values])


def _parsed(text: str, what: str) -> object:
    """JSON, numbers with a point as decimals, so that nothing is lost before the field's type is known."""
    try:
        return json.loads(text, parse_float=decimal.Decimal)
    except ValueError as error:
        raise InputError("HR-0525", f"{what} is no JSON", detail=str(error)) from error


def _object(text: str, what: str) -> Mapping[str, object]:
    found = _parsed(text, what)
    if not isinstance(found, dict):
        raise InputError("HR-0525", f"{what} is no JSON object", detail=f"seen {text.strip()[:60]}")
    return found
