"""A training set as it is kept: the rows, a manifest that says how they were made, a hash that says whether they are
the same. Writes files where asked.

The one idea: the hash is of names, types and values, not of a file's bytes, so it holds whatever the codec, the chunks
and the version of Parquet; it is computed when it is first asked for, which may be beside the writing of the rows.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MANIFEST_FORMAT = 1
ROWS_FILE, MANIFEST_FILE = "rows.parquet", "manifest.json"
_ROW_GROUP_ROWS = 1 << 17  # what is encoded at a time, in the second-level cache's reach; 5 % faster than 2**20
_HASHED_ROWS = 1 << 20  # rows of a column given to the hash at a time; any number gives the same hash
_TRIED_ROWS = 1 << 13  # 64 KiB of doubles say whether a column shrinks
_CODEC = "lz4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that is needed to build it again, and to see that it is the same. cut: (topic, incarnation, partition, next
    offset). served, available, mixed: rows by how all of their views were replayed. immature: requests left out because
    their label had not matured; unlabelled: because no truth is known. where, outside: which requests are learned from,
    and how many others there were; None, and not written, where all are. content_hash: of names, types and values,
    whatever the chunks and files."""

    name: str
    topic: str
    label: str
    begin: str | None
    end: str | None
    t_label: str
    cut: tuple[tuple[str, int, int, int], ...]
    fingerprints: tuple[tuple[str, str], ...]
    inputs: tuple[tuple[str, str, str], ...]
    semantics: int
    rows: int
    positives: int | None
    served: int
    available: int
    mixed: int
    immature: int
    unlabelled: int
    where: str | None = None
    outside: int | None = None
    content_hash: str = ""

    def to_json(self) -> str:
        """Indented, keys in order: equal manifests are equal texts."""
        said = {name: getattr(self, name) for name in self.__slots__}
        if self.where is None:
            del said["where"], said["outside"]
        return json.dumps({"format": MANIFEST_FORMAT, **said}, indent=2, ensure_ascii=False) + "\n"


class TrainingSet:
    """table: the request's id, `_event_time`, the inputs, the label; in order of partition and offset."""

    __slots__ = ("_lock", "_manifest", "_threads", "table")

    def __init__(self, table: pa.Table, stated: Manifest, *, threads: int = 1) -> None:
        """stated: the manifest but for the hash. threads: that hash the columns."""
        self.table = table
        self._manifest = stated
        self._threads = threads
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """The hash, a nanosecond a value, is computed when this is first read."""
        with self._lock:
            if not self._manifest.content_hash:
                made = content_hash(self.table, threads=self._threads)
                self._manifest = replace(self._manifest, content_hash=made)
            return self._manifest


def write(made: TrainingSet, folder: Path) -> tuple[Path, Path]:
    """The rows as Parquet and the manifest beside them; the manifest comes last, so a folder that has one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, manifest = folder / ROWS_FILE, folder / MANIFEST_FILE
    manifest.unlink(missing_ok=True)
    part = folder / f"{ROWS_FILE}.part"
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        said = beside.submit(lambda: made.manifest)
        _write_rows(made.table, part)
    part.replace(rows)
    part = folder / f"{MANIFEST_FILE}.part"
    part.write_text(said.result().to_json(), encoding="utf-8")
    part.replace(manifest)
    return rows, manifest


def content_hash(table: pa.Table, *, threads: int = 1) -> str:
    """SHA-256 over names, types and values of the columns in order; chunks, slices and what lies under nulls do not
    matter."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(_column_hash, table.columns))
    whole = hashlib.sha256(f"headrace rows {table.num_rows}\n".encode())
    for field, digest in zip(table.schema, digests, strict=True):
        whole.update(f"{field.name}\n{_type_name(field.type)}\n".encode() + digest)
    return whole.hexdigest()


# --- Parquet ---


def _write_rows(table: pa.Table, path: Path) -> None:
    """Integers as differences: smaller than any codec makes them, and faster than compressing. Texts as dictionaries.
    What else shrinks is compressed; means of amounts do not, rates do."""
    pq.write_table(
        table,
        path,
        compression={_leaf(field): _compression(field.type, table.column(field.name)) for field in table.schema},
        use_dictionary=[field.name for field in table.schema if pa.types.is_string(field.type)],
        column_encoding={field.name: "DELTA_BINARY_PACKED" for field in table.schema if _is_integer(field.type)},
        store_decimal_as_integer=True,
        row_group_size=_ROW_GROUP_ROWS,
    )


def _leaf(field: pa.Field) -> str:
    """What Parquet calls the column of values."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def _is_integer(type: pa.DataType) -> bool:
    if pa.types.is_decimal(type):
        return bool(type.precision <= 18)  # stored in eight bytes
    return bool(pa.types.is_int64(type) or pa.types.is_timestamp(type) or pa.types.is_duration(type))


def _compression(type: pa.DataType, column: pa.ChunkedArray) -> str:
    if _is_integer(type):
        return "none"
    if not pa.types.is_floating(type):
        return _CODEC
    tried = np.ascontiguousarray(column.slice(len(column) // 2, _TRIED_ROWS).to_numpy())
    shrunk = len(pa.compress(pa.py_buffer(tried), codec=_CODEC, asbytes=True))
    return _CODEC if shrunk * 4 < tried.nbytes * 3 else "none"


# --- the hash ---


def _type_name(type: pa.DataType) -> str:
    """Of a list without the name of its items, which Parquet writes in another way."""
    return f"list<{type.value_type}>" if pa.types.is_list(type) else str(type)


def _column_hash(column: pa.ChunkedArray) -> bytes:
    """Values first, then which are null: of each value what it is, not how it lies in memory."""
    digest, nulls = hashlib.sha256(), hashlib.sha256()
    any_null = column.null_count > 0
    for start in range(0, len(column), _HASHED_ROWS):
        part = column.slice(start, _HASHED_ROWS)
        flat = part.chunk(0) if part.num_chunks == 1 else part.combine_chunks()
        flat = flat.chunk(0) if isinstance(flat, pa.ChunkedArray) else flat
        for piece in _canonical(flat):
            digest.update(piece.data)
        if any_null:
            nulls.update(np.packbits(flat.is_null().to_numpy(zero_copy_only=False), bitorder="little").data)
    return digest.digest() + (nulls.digest() if any_null else b"")


def _canonical(array: pa.Array) -> Iterable[npt.NDArray[np.generic]]:
    """The values' bytes, little end first: fixed-width ones as they are with zeros under nulls, texts as lengths and
    bytes, lists as lengths and their values."""
    if pa.types.is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        yield lengths.to_numpy(zero_copy_only=False).astype("<i4")
        yield from _canonical(array.flatten())
        return
    if pa.types.is_string(array.type):
        filled = array.fill_null("") if array.null_count else array
        offsets = np.frombuffer(filled.buffers()[1], "<i4")[filled.offset : filled.offset + len(filled) + 1]
        yield np.diff(offsets)
        texts = filled.buffers()[2]
        if texts is not None:
            yield np.frombuffer(texts, np.uint8)[offsets[0] : offsets[-1]]
        return
    if pa.types.is_boolean(array.type):
        yield array.fill_null(False).to_numpy(zero_copy_only=False).astype("u1")
        return
    width = array.type.bit_width // 64
    words = np.frombuffer(array.buffers()[1], "<i8")[array.offset * width : (array.offset + len(array)) * width]
    if array.null_count:
        words = np.where(np.repeat(array.is_null().to_numpy(zero_copy_only=False), width), 0, words)
    yield np.ascontiguousarray(words)
