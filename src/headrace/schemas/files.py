"""Files of events, read whole into validated rows: Parquet, CSV, NDJSON. Touches: the file, read only.

The one idea: a format only brings columns (or objects) of its own types; what fits and what does not is said by the
same validation as for a live append, with the file's name and the row, counted from 1 (of NDJSON the line).
"""

from __future__ import annotations

import csv
import dataclasses
import decimal
import gzip
import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from headrace.core.codec import physical, units
from headrace.core.errors import InputError, SchemaError, UsageError
from headrace.core.schema import Kind, field, int64, timestamp
from headrace.log.define import Topic
from headrace.schemas.batches import validate_batch
from headrace.schemas.define import ImportOptions, Progress
from headrace.schemas.fitting import Fitting
from headrace.schemas.plan import Columns, Integers, available_by_rule, match_columns
from headrace.schemas.validate import validate_rows

FORMATS = {".parquet": "parquet", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
CHUNK_ROWS = 1 << 16  # rows checked at once: progress is seen, and the Python values of a chunk stay below 100 MB
HEADER_BYTES_MAX = 1 << 20  # of a CSV file's first line

# The validation of a column that is no field: when each row could be seen.
_INSTANTS = Topic("available_at", key="row", fields={"row": int64, "at": field(timestamp, required=True)})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRows:
    """rows: validated, the topic's fields in declared order, in the file's order. available_at: microseconds, one a
    row. ignored: the file's columns that are no field. rounded: values that were rounded, where asked."""

    rows: pa.RecordBatch
    available_at: Integers
    ignored: tuple[str, ...]
    rounded: int


def digest(path: Path) -> str:
    """The file's SHA-256. Raises: InputError HR-0420 where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def read_file(path: Path, topic: Topic, options: ImportOptions, progress: Progress) -> FileRows:
    """The whole file, or an error that names file, row and column.

    Raises: InputError HR-0420 (cannot be read), HR-0421 (not of its format, or cut off), UsageError HR-0422 (no format
    known), SchemaError HR-0423 (no such column), HR-0424 (a local time that names no instant), HR-0425, and whatever
    validation says (HR-0401 to HR-0409, HR-0103). Memory: the file's rows in Arrow, twice at the peak.
    """
    origin, named = f"file {path.name!r}", _format(path, options)
    try:
        return _READERS[named](path, Fitting(topic, options, origin), progress)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise _unreadable(path, error) from error
    except (OSError, EOFError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(
            "HR-0421",
            f"{origin} cannot be read as {named}",
            detail=(str(error).splitlines() or [repr(error)])[0],
            hint="check that it is whole, and of the format its name says (or say --format)",
            file=str(path),
        ) from error
    except SchemaError as error:
        if error.code == "HR-0103" and "without zone" in error.message:
            error.hint = "say --zone UTC, or the zone of the file's clock, as in --zone Europe/Stockholm"
        raise


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        "HR-0420", f"file {str(path)!r} cannot be read", detail=error.strerror or str(error), file=str(path)
    )


def _format(path: Path, options: ImportOptions) -> str:
    suffix = next((s for s in reversed(path.suffixes) if s != ".gz"), "")
    named = options.format or FORMATS.get(suffix.lower(), "")
    if named not in _READERS:
        raise UsageError(
            "HR-0422",
            f"no format known for file {path.name!r}",
            detail=f"expected one of {', '.join(sorted(_READERS))}, seen {options.format or suffix or 'no suffix'}",
            hint="say --format",
        )
    return named


def _bytes_of(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


# --- columns: Parquet and CSV ---


def _read_parquet(path: Path, fitting: Fitting, progress: Progress) -> FileRows:
    with pq.ParquetFile(path) as file:
        columns = match_columns(fitting.topic, file.schema_arrow.names, fitting.options, origin=fitting.origin)
        batches = file.iter_batches(CHUNK_ROWS, columns=list(columns.wanted))
        return _checked(batches, columns, fitting, progress, file.metadata.num_rows)


def _read_csv(path: Path, fitting: Fitting, progress: Progress) -> FileRows:
    with _bytes_of(path) as stream:
        head = stream.readline(HEADER_BYTES_MAX).decode("utf-8-sig")
    if not head.strip("\r\n").replace("\t", "").isprintable():
        raise pa.ArrowInvalid("its first line is no line of text")
    names = next(csv.reader(io.StringIO(head)), [])
    columns = match_columns(fitting.topic, names, fitting.options, origin=fitting.origin)
    convert = pa_csv.ConvertOptions(
        include_columns=list(columns.wanted),
        column_types={name: pa.string() for name in columns.wanted},
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,  # "" is an empty text, nothing at all is null
        null_values=[""],
        check_utf8=False,  # the validation does, and names the row
    )
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    with _bytes_of(path) as stream:
        table = pa_csv.read_csv(stream, convert_options=convert, parse_options=parse)
    return _checked(table.to_batches(CHUNK_ROWS), columns, fitting, progress, table.num_rows)


def _checked(
    batches: Iterable[pa.RecordBatch], columns: Columns, fitting: Fitting, progress: Progress, total: int
) -> FileRows:
    """Batch by batch through the validation."""
    topic, rule = fitting.topic, fitting.options.available_at
    made = [validate_rows(topic, ())[0]]
    available: list[Integers] = [np.zeros(0, np.int64)]
    done = 0
    for batch in batches:
        arrays = [
            fitting.column(batch.column(column), name, topic.schema[name].type, done + 1)
            for name, column in columns.fields.items()
        ]
        given = pa.RecordBatch.from_arrays(arrays, names=list(columns.fields))
        made.append(validate_batch(topic, given, live=False, origin=fitting.origin, first_row=done + 1))
        if columns.available_at is None:
            available.append(available_by_rule(topic, made[-1], rule))
        else:
            available.append(_available_column(fitting, batch, columns.available_at, done + 1))
        done += batch.num_rows
        progress("check", done, total)
    return _joined(made, available, columns.ignored, fitting)


def _joined(
    made: list[pa.RecordBatch], available: list[Integers], ignored: tuple[str, ...], fitting: Fitting
) -> FileRows:
    rows = pa.Table.from_batches(made).combine_chunks().to_batches()
    whole = rows[0] if rows else made[0]
    return FileRows(rows=whole, available_at=np.concatenate(available), ignored=ignored, rounded=fitting.rounded)


def _available_column(fitting: Fitting, batch: pa.RecordBatch, column: str, first_row: int) -> Integers:
    """When each row could be seen, by the rules of a required timestamp."""
    array = fitting.column(batch.column(column), column, timestamp, first_row)
    given = pa.RecordBatch.from_arrays([pa.array(np.arange(batch.num_rows)), array], names=["row", "at"])
    try:
        made = validate_batch(_INSTANTS, given, origin=fitting.origin, first_row=first_row)
    except SchemaError as error:
        message, row = error.message.replace("field 'at'", f"column {column!r}"), error.facts["row"]
        raise SchemaError(error.code, message, detail=error.detail, hint=error.hint, row=row, column=column) from error
    return units(made.column("at"))


# --- objects: NDJSON ---


def _read_ndjson(path: Path, fitting: Fitting, progress: Progress) -> FileRows:
    topic, options = fitting.topic, fitting.options
    made = [validate_rows(topic, ())[0]]
    available: list[Integers] = [np.zeros(0, np.int64)]
    seen: dict[str, None] = {}
    column_of = {f: options.columns.get(f.name, f.name) for f in topic.schema}
    done = 0
    with _bytes_of(path) as stream:
        for lines, objects in _objects(stream, fitting):
            rows = []
            for line, found in zip(lines, objects, strict=True):
                seen.update(dict.fromkeys(found))
                rows.append(
                    {
                        f.name: fitting.value(found[column], f.name, f.type, line)
                        for f, column in column_of.items()
                        if column in found
                    }
                )
            batch, problems = validate_rows(topic, rows, live=False)
            if problems:
                first = dataclasses.replace(problems[0], row=lines[problems[0].row])
                raise first.error(topic.name, origin=fitting.origin, count=len(problems))
            made.append(batch)
            if options.available_at.column is None:
                available.append(available_by_rule(topic, batch, options.available_at))
            else:
                available.append(_available_values(fitting, lines, objects, options.available_at.column))
            done += len(rows)
            progress("check", done, 0)
    ignored = match_columns(topic, list(seen), options, origin=fitting.origin).ignored if seen else ()
    return _joined(made, available, ignored, fitting)


def _objects(stream: BinaryIO, fitting: Fitting) -> Iterator[tuple[list[int], list[dict[str, object]]]]:
    """Chunks of (line numbers, objects); blank lines are skipped. Raises: SchemaError HR-0401, InputError HR-0421."""
    # with decimals about, a number keeps its digits, which a double might not hold
    exact = any(f.type.kind is Kind.DECIMAL for f in fitting.topic.schema)
    decode = msgspec.json.Decoder(float_hook=decimal.Decimal if exact else None).decode
    numbered = ((number, line) for number, line in enumerate(stream, 1) if not line.isspace())
    while chunk := list(itertools.islice(numbered, CHUNK_ROWS)):
        objects = []
        for number, line in chunk:
            try:
                found = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InputError(
                    "HR-0421", f"{fitting.origin}, line {number}: not JSON", detail=str(error), row=number
                ) from error
            if not isinstance(found, dict):
                raise fitting.refused(number, "", "HR-0401", f"not an object: {type(found).__name__}")
            objects.append(found)
        yield [number for number, _ in chunk], objects


def _available_values(fitting: Fitting, lines: list[int], objects: list[dict[str, object]], column: str) -> Integers:
    made = np.zeros(len(lines), np.int64)
    for place, (line, found) in enumerate(zip(lines, objects, strict=True)):
        try:
            micros = physical(fitting.value(found.get(column), column, timestamp, line), timestamp)
        except SchemaError as error:
            if "row" in error.facts:
                raise
            raise fitting.refused(line, column, error.code, error.message, error.detail) from error
        if micros is None:
            raise fitting.refused(line, column, "HR-0406", "missing or null", "expected timestamp")
        made[place] = micros
    return made


_Read = Callable[[Path, Fitting, Progress], FileRows]
_READERS: dict[str, _Read] = {"parquet": _read_parquet, "csv": _read_csv, "ndjson": _read_ndjson}
