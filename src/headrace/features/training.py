"""Training sets: what each request's inputs were when it was made, and what became of it (SEMANTICS 1.6, 4.3).

The one idea: a training set is a function of the definitions, a cut and an instant. Events beyond the cut are not read,
so building it again gives the same rows with the same bits, whatever came since; the manifest says all that is needed,
and the content hash says whether it worked. Writes files where asked; else runs the kernel and touches nothing.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.core.columns import evaluate_columns
from headrace.core.errors import SchemaError, did_you_mean
from headrace.core.expr import Expr, Reference, Source, describe, references
from headrace.core.kernel.program import SEMANTICS
from headrace.core.points import Cut
from headrace.core.times import Instant, iso
from headrace.features.define import Label
from headrace.features.plan import ViewPlan
from headrace.features.replay import replay
from headrace.features.replay_cuts import Kind
from headrace.features.replay_given import Cuts
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows
from headrace.features.training_labels import training_labels
from headrace.log.port import EVENT_TIME

MANIFEST_FORMAT = 1
ROWS_FILE, MANIFEST_FILE = "rows.parquet", "manifest.json"
_ROW_GROUP_ROWS = 1 << 17  # what is encoded at a time, in the second-level cache's reach; 5 % faster than 2**20
_HASHED_ROWS = 1 << 20  # rows of a column given to the hash at a time; any number gives the same hash

Id = int | str
Records = Mapping[Id, Mapping[str, Cut]]  # request id -> view -> the cut that its decision record holds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """What a training set is to hold.

    inputs: (column, expression over the topic's fields and the views' features), in order. label: of the topic, or one
    of its late columns. begin, end: requests with begin <= event_time < end. t_label: when the outcome is looked at;
    younger requests than the label's maturity are left out. cut: what is read of the log; None: all that `events`
    holds. fingerprints: of the definitions, for the manifest.
    """

    name: str
    topic: str
    inputs: tuple[tuple[str, Expr], ...]
    label: Label | Reference
    t_label: Instant
    begin: Instant | None = None
    end: Instant | None = None
    cut: Cut | None = None
    fingerprints: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that is needed to build it again, and to see that it is the same. cut: (topic, incarnation, partition, next
    offset). served, available, mixed: rows by how all of their views were replayed. immature: requests left out because
    their label had not matured; unlabelled: because no truth is known. content_hash: of names, types and values,
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
    content_hash: str

    def to_json(self) -> str:
        """Indented, keys in order: equal manifests are equal texts."""
        said = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({"format": MANIFEST_FORMAT, **said}, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """table: the request's id, `_event_time`, the inputs, the label; in order of partition and offset."""

    table: pa.Table
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What late data changed in one feature: rows whose value *known now* differs from the one it had, how many are
    null in only one of them, and the largest and mean absolute difference of the others (None where not numeric)."""

    feature: str
    rows: int
    differing: int
    null_in_one: int
    largest: float | None
    mean: float | None


def build(
    asked: Asked, plans: Sequence[ViewPlan], events: Events, *, records: Records | None = None, threads: int = 2
) -> TrainingSet:
    """plans: of all views that the inputs read. events: at least what `topics_of(plans)` and the label need. records:
    of requests that were decided: their recorded cuts are replayed, the others follow *available*.

    Raises: SchemaError HR-0530 for an input that reads what is neither the topic's nor a view's, HR-0531 for two
    columns of one name; what `replay` raises.
    """
    _check(asked, plans)
    if asked.cut is not None:
        events = events.below(asked.cut)
    rows, values, counts = _rows(asked, events)
    cuts = [_cuts(asked.topic, plan.view.name, events, rows, records) for plan in plans]
    features = _features(plans, events, rows, cuts, Kind.SERVED, threads)
    columns = {f"{asked.topic}.{name}": rows.column(name) for name in _fields(asked)}
    arrays: list[pa.Array | pa.ChunkedArray] = []
    names: list[str] = []
    topic = events.topic(asked.topic).topic
    taken = {name for name, _ in asked.inputs}
    if topic.id is not None and topic.id not in taken:
        names.append(topic.id)
        arrays.append(rows.column(topic.id))
    names.append(EVENT_TIME)
    arrays.append(rows.column_of_times())
    for name, expr in asked.inputs:
        names.append(name)
        arrays.append(_input(expr, columns, features, len(rows)))
    names.append(asked.label.name)
    arrays.append(values)
    table = pa.Table.from_arrays(arrays, names=names)
    served, mixed = _served(cuts, len(rows))
    manifest = _manifest(asked, events, table, values, {**counts, "served": served, "mixed": mixed}, threads)
    return TrainingSet(table=table, manifest=manifest)


def write(made: TrainingSet, folder: Path) -> tuple[Path, Path]:
    """The rows as Parquet and the manifest beside them; the manifest comes last, so a folder that has one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, manifest = folder / ROWS_FILE, folder / MANIFEST_FILE
    manifest.unlink(missing_ok=True)
    part = folder / f"{ROWS_FILE}.part"
    # Numbers of training rows hardly repeat: dictionaries cost more than they save.
    texts = [field.name for field in made.table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        made.table,
        part,
        compression="lz4",
        use_dictionary=texts,
        store_decimal_as_integer=True,
        row_group_size=_ROW_GROUP_ROWS,
    )
    part.replace(rows)
    part = folder / f"{MANIFEST_FILE}.part"
    part.write_text(made.manifest.to_json(), encoding="utf-8")
    part.replace(manifest)
    return rows, manifest


def late_data_impact(
    asked: Asked, plans: Sequence[ViewPlan], events: Events, *, records: Records | None = None, threads: int = 2
) -> list[Impact]:
    """*Known now* minus what was served (or available), feature by feature, over the rows of the training set."""
    if asked.cut is not None:
        events = events.below(asked.cut)
    rows, _, _ = _rows(asked, events)
    cuts = [_cuts(asked.topic, plan.view.name, events, rows, records) for plan in plans]
    was = _features(plans, events, rows, cuts, Kind.SERVED, threads)
    now = _features(plans, events, rows, [None] * len(plans), Kind.KNOWN_NOW, threads)
    return [_impact(name, was[name], now[name]) for name in was]


def content_hash(table: pa.Table, *, threads: int = 1) -> str:
    """SHA-256 over names, types and values of the columns in order; chunks, slices and what lies under nulls do not
    matter."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(_column_hash, table.columns))
    whole = hashlib.sha256(f"headrace rows {table.num_rows}\n".encode())
    for field, digest in zip(table.schema, digests, strict=True):
        whole.update(f"{field.name}\n{_type_name(field.type)}\n".encode() + digest)
    return whole.hexdigest()


# --- rows, labels, features ---


def _rows(asked: Asked, events: Events) -> tuple[Rows, pa.Array, dict[str, int]]:
    """The requests that enter, their labels, and what was left out."""
    rows = Rows.logged(events, asked.topic, begin=asked.begin, end=asked.end)
    labelled = training_labels(asked.label, events, asked.topic, rows.row, asked.t_label)
    known = labelled.values.is_valid().to_numpy(zero_copy_only=False)
    kept = labelled.mature & known
    counts = {
        "immature": int(np.count_nonzero(~labelled.mature)),
        "unlabelled": int(np.count_nonzero(labelled.mature & ~known)),
    }
    if kept.all():
        return rows, labelled.values, counts
    return rows.take(np.flatnonzero(kept)), labelled.values.filter(pa.array(kept)), counts


def _cuts(topic: str, view: str, events: Events, rows: Rows, records: Records | None) -> Cuts | None:
    """Recorded cuts of one view; of the rows that have none, none."""
    id = events.topic(topic).topic.id
    if not records or id is None:
        return None
    ids = rows.column(id)
    assert ids is not None
    place = pc.index_in(ids, value_set=pa.array(list(records), ids.type))
    place = place.combine_chunks() if isinstance(place, pa.ChunkedArray) else place
    recorded = list(records.values())
    found: list[Cut | None] = [None] * len(rows)
    for row in np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False)).tolist():
        found[row] = recorded[place[row].as_py()].get(view)
    return Cuts.of(found)


def _served(cuts: Sequence[Cuts | None], rows: int) -> tuple[int, int]:
    """(rows replayed as served in all views, in some only)."""
    masks = [None if one is None else one.recorded for one in cuts]
    flags = np.stack([np.zeros(rows, np.bool_) if mask is None else mask for mask in masks]) if masks else None
    if flags is None:
        return 0, 0
    every, some = flags.all(axis=0), flags.any(axis=0)
    return int(np.count_nonzero(every)), int(np.count_nonzero(some & ~every))


def _features(
    plans: Sequence[ViewPlan], events: Events, rows: Rows, cuts: Sequence[Cuts | None], kind: Kind, threads: int
) -> dict[str, pa.ChunkedArray]:
    """By "view.feature". One view after another, each with all threads: their memory is the peak."""
    found = {}
    for plan, cut in zip(plans, cuts, strict=True):
        table = replay([plan], events, rows.with_cuts(cut), kind=kind, threads=threads)
        for feature in plan.view.features:
            found[f"{plan.view.name}.{feature.name}"] = table.column(feature.name)
    return found


def _fields(asked: Asked) -> list[str]:
    read = [r.name for _, expr in asked.inputs for r in references(expr) if r.source is Source.FIELD]
    return list(dict.fromkeys(read))


def _input(
    expr: Expr, fields: Mapping[str, pa.ChunkedArray], features: Mapping[str, pa.ChunkedArray], rows: int
) -> pa.Array | pa.ChunkedArray:
    if isinstance(expr, Reference):
        return features[expr.path] if expr.source is Source.FEATURE else fields[expr.path]
    columns = {r.path: (features if r.source is Source.FEATURE else fields)[r.path] for r in references(expr)}
    return evaluate_columns(expr, columns, rows=rows)


def _check(asked: Asked, plans: Sequence[ViewPlan]) -> None:
    features = {f"{plan.view.name}.{feature.name}" for plan in plans for feature in plan.view.features}
    for name, expr in asked.inputs:
        for reference in references(expr):
            is_field = reference.source is Source.FIELD and reference.owner == asked.topic
            is_feature = reference.source is Source.FEATURE and reference.path in features
            if not is_field and not is_feature:
                raise SchemaError(
                    "HR-0530",
                    f"training set {asked.name!r}: input {name!r} reads {reference.path!r}",
                    detail=f"expected fields of topic {asked.topic!r} and features of the given views",
                    hint=did_you_mean(reference.path, features),
                )
    names = [name for name, _ in asked.inputs] + [asked.label.name, EVENT_TIME]
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(
                "HR-0531",
                f"training set {asked.name!r} has two columns named {name!r}",
                hint="name the input: .named('...')",
            )


# --- manifest and hash ---


def _manifest(
    asked: Asked, events: Events, table: pa.Table, values: pa.Array, counts: Mapping[str, int], threads: int
) -> Manifest:
    read = events.cut() if asked.cut is None else asked.cut
    boolean = pa.types.is_boolean(values.type)
    return Manifest(
        name=asked.name,
        topic=asked.topic,
        label=asked.label.name,
        begin=None if asked.begin is None else iso(asked.begin),
        end=None if asked.end is None else iso(asked.end),
        t_label=iso(asked.t_label),
        cut=tuple((p.topic, p.incarnation, p.index, offset) for p, offset in read),
        fingerprints=tuple(sorted(asked.fingerprints.items())),
        inputs=tuple((name, describe(expr), str(expr.type)) for name, expr in asked.inputs),
        semantics=SEMANTICS,
        rows=table.num_rows,
        positives=int(pc.sum(values).as_py() or 0) if boolean else None,
        served=counts["served"],
        available=table.num_rows - counts["served"] - counts["mixed"],
        mixed=counts["mixed"],
        immature=counts["immature"],
        unlabelled=counts["unlabelled"],
        content_hash=content_hash(table, threads=threads),
    )


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


def _impact(feature: str, was: pa.ChunkedArray, now: pa.ChunkedArray) -> Impact:
    rows = len(was)
    was_null, now_null = (one.is_null().to_numpy() for one in (was, now))
    null_in_one = int(np.count_nonzero(was_null != now_null))
    if pa.types.is_list(was.type):
        different = sum(a != b for a, b in zip(was.to_pylist(), now.to_pylist(), strict=True))
        return Impact(feature=feature, rows=rows, differing=different, null_in_one=null_in_one, largest=None, mean=None)
    both = pa.array(~was_null & ~now_null)
    a, b = was.filter(both), now.filter(both)
    changed = pc.not_equal(a, b).to_numpy()
    differing = int(np.count_nonzero(changed)) + null_in_one
    largest = mean = None
    if pa.types.is_integer(was.type) or pa.types.is_floating(was.type) or pa.types.is_decimal(was.type):
        numbers = [one.cast(pa.float64()).to_numpy() for one in (a, b)]
        gaps = np.abs(numbers[1] - numbers[0])[changed]
        if len(gaps):
            largest, mean = float(gaps.max()), float(gaps.mean())
    return Impact(feature=feature, rows=rows, differing=differing, null_in_one=null_in_one, largest=largest, mean=mean)


__all__ = ["Asked", "Impact", "Manifest", "TrainingSet", "build", "content_hash", "late_data_impact", "write"]
