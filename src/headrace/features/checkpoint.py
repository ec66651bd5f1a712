"""Checkpoints of the online state: a folder of arrays with their hashes. Touches files, through the layer it is given.

The one idea: a checkpoint is written beside the last one under another name, synced, and renamed, so that a folder with
a number is whole or is not there; the manifest in it says what it belongs to, up to which offsets it has read, and what
every file's bytes are. A restart is a checkpoint and the tail of the log (SEMANTICS 1.7); without a checkpoint that
fits it is the log alone, so a refusal costs time and never a value. Nothing here is pickled.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from headrace.core.errors import StateError
from headrace.core.kernel.program import SEMANTICS, Words
from headrace.core.kernel.state import KeyedState
from headrace.core.points import Partition
from headrace.features.facts import FactJoin
from headrace.features.online import ViewState
from headrace.features.plan import ViewPlan
from headrace.features.retained import RetainedRows
from headrace.features.run import FeatureState
from headrace.log.define import Topic

FORMAT = 2
KEPT = 2  # so that one whose disk rotted still leaves one, with a longer tail to read
MANIFEST = "manifest.json"
WRITING = "writing-"
PARTITION = "_partition"

Bytes = bytes | memoryview


class Files(Protocol):
    """What a checkpoint does to the disk. `write` and `rename` are durable when the folder around them was synced."""

    def make(self, folder: Path) -> None: ...

    def write(self, path: Path, parts: Sequence[Bytes]) -> None: ...

    def sync(self, folder: Path) -> None: ...

    def rename(self, source: Path, target: Path) -> None: ...

    def remove(self, folder: Path) -> None: ...

    def names(self, folder: Path) -> list[str]: ...

    def read(self, path: Path) -> bytes: ...


class LocalFiles:
    """The file system of this machine."""

    def make(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, parts: Sequence[Bytes]) -> None:
        """Written and synced."""
        with path.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())

    def sync(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def remove(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def names(self, folder: Path) -> list[str]:
        """Sorted; none where there is no such folder."""
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def read(self, path: Path) -> bytes:
        return path.read_bytes()


class _Read(msgspec.Struct, forbid_unknown_fields=True):
    """How far a partition was read."""

    topic: str
    incarnation: int
    index: int
    next: int
    available_at: int


class _View(msgspec.Struct, forbid_unknown_fields=True):
    """fingerprint: of its meaning. program: hash of what the kernel runs."""

    fingerprint: str
    program: str
    oldest: int
    newest: int
    unindexed: int


class _Whole(msgspec.Struct, forbid_unknown_fields=True):
    bytes: int
    hash: str


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """number: of the checkpoint, so that one with another's manifest is not taken for it."""

    format: int
    number: int
    semantics: int
    views: dict[str, _View]
    frontier: list[_Read]
    forgotten: dict[str, int]
    files: dict[str, _Whole]


class _Signed(msgspec.Struct, forbid_unknown_fields=True):
    """hash: of the manifest's bytes."""

    hash: str
    manifest: msgspec.Raw


def write(state: FeatureState, folder: Path, *, fingerprints: Mapping[str, str], files: Files | None = None) -> Path:
    """Write the state as the newest checkpoint of `folder`, durable on return, and drop all but the last two.

    folder: it and the one around it are made where they are missing. fingerprints: of every view's meaning. The state
    must not change meanwhile; cost: its bytes, once through memory. A crash at any point leaves the checkpoints that
    were there, or those and this one. Raises: OSError as the disk does.
    """
    disk: Files = LocalFiles() if files is None else files
    disk.make(folder)
    for name in disk.names(folder):
        if name.startswith(WRITING):
            disk.remove(folder / name)
    number = max(_numbers(disk, folder), default=0) + 1
    if number == 1:
        # Both folders may be new: a power cut would take their names, and with them all that is ever written here.
        disk.sync(folder.parent)
        disk.sync(folder.parent.parent)
    made, target = folder / f"{WRITING}{number:08d}", folder / f"{number:08d}"
    disk.make(made)
    wholes: dict[str, _Whole] = {}
    for name, parts in _contents(state):
        disk.write(made / name, parts)
        wholes[name] = _Whole(bytes=sum(len(part) for part in parts), hash=_hash(parts))
    disk.write(made / MANIFEST, [_manifest(state, number, fingerprints, wholes)])
    disk.sync(made)
    disk.rename(made, target)
    disk.sync(folder)
    for old in sorted(_numbers(disk, folder))[:-KEPT]:
        disk.remove(folder / f"{old:08d}")
    return target


def restore(
    plans: Sequence[ViewPlan],
    folder: Path,
    *,
    fingerprints: Mapping[str, str],
    topics: Iterable[Topic] = (),
    files: Files | None = None,
) -> FeatureState | None:
    """The state of the newest checkpoint that is whole; None where there is none. Then read the log from its frontier
    on.

    plans: fresh from `compile`, of the same views in any order. topics: as of `FeatureState`.
    Raises: StateError HR-0550 where the newest whole one is of other views, definitions or another version of headrace;
    HR-0551 where none is whole. Then start from an empty state and the log's beginning.
    """
    disk: Files = LocalFiles() if files is None else files
    damaged: StateError | None = None
    for number in sorted(_numbers(disk, folder), reverse=True):
        place = folder / f"{number:08d}"
        try:
            manifest, contents = _read_whole(disk, place)
        except StateError as error:
            damaged = damaged or error
            continue
        _check_meaning(place, manifest, plans, fingerprints)
        return _state(place, plans, topics, manifest, contents)
    if damaged is not None:
        raise damaged
    return None


# --- what is in it ---


def _contents(state: FeatureState) -> Iterable[tuple[str, list[Bytes]]]:
    """(file name, its bytes in parts)."""
    for name, view in state.views.items():
        yield f"{name}.kernel.npy", _npy(view.kernel.snapshot())
        yield f"{name}.keys.arrow", _arrow([_keys(view)])
        yield f"{name}.codes.arrow", _arrow([pa.record_batch([pa.array(view.plan.codes.texts, pa.string())], ["text"])])
    for name, topic in state.topic_states.items():
        if topic.retained is not None:
            yield f"{name}.retained.arrow", _arrow(_retained(topic.retained))
        if topic.facts is not None:
            for rule, join in topic.facts.joins.items():
                yield f"{name}.{rule}.facts.arrow", _arrow([_facts(join)])


def _names(state: FeatureState) -> set[str]:
    """The files that `_contents` makes of such a state."""
    names = {f"{name}.{part}" for name in state.views for part in ("kernel.npy", "keys.arrow", "codes.arrow")}
    for name, topic in state.topic_states.items():
        if topic.retained is not None:
            names.add(f"{name}.retained.arrow")
        if topic.facts is not None:
            names.update(f"{name}.{rule}.facts.arrow" for rule in topic.facts.joins)
    return names


def _manifest(state: FeatureState, number: int, fingerprints: Mapping[str, str], wholes: dict[str, _Whole]) -> bytes:
    said = _Manifest(
        format=FORMAT,
        number=number,
        semantics=SEMANTICS,
        views={
            name: _View(
                fingerprint=fingerprints[name],
                program=_program(view.plan),
                oldest=view.oldest,
                newest=view.newest,
                unindexed=view.unindexed,
            )
            for name, view in state.views.items()
        },
        frontier=[
            _Read(
                topic=p.topic, incarnation=p.incarnation, index=p.index, next=feed.next, available_at=feed.available_at
            )
            for p, feed in sorted(state.feeds.items())
        ],
        forgotten={name: topic.forgotten for name, topic in state.topic_states.items()},
        files=wholes,
    )
    body = msgspec.json.encode(said)
    return msgspec.json.encode(_Signed(hash=_hash([body]), manifest=msgspec.Raw(body)))


def _keys(view: ViewState) -> pa.RecordBatch:
    """A column a part of the entity, then the handles."""
    entities = list(view.keys)
    parts: list[Sequence[object]] = [entities]
    if len(view.plan.view.entity) > 1:
        # A composite entity is a tuple, which `Hashable` does not say.
        parts = [[entity[i] for entity in entities] for i in range(len(view.plan.view.entity))]  # type: ignore[index]
    columns = [pa.array(part) for part in parts]
    return pa.record_batch(
        [*columns, pa.array(view.keys.values(), pa.int64())], [*map(str, range(len(parts))), "handle"]
    )


def _retained(rows: RetainedRows) -> list[pa.RecordBatch]:
    return [
        batch.append_column(PARTITION, pa.array(np.full(batch.num_rows, partition, np.int64)))
        for partition, batch in rows.batches()
    ]


def _facts(join: FactJoin) -> pa.RecordBatch:
    held = list(join.facts())
    columns = [[origin for origin, _ in held], *([fact[i] for _, fact in held] for i in range(5))]
    return pa.record_batch(
        [pa.array(c) for c in columns], ["origin", "event_time", "id", "partition", "offset", "value"]
    )


# --- and back ---


def _read_whole(disk: Files, place: Path) -> tuple[_Manifest, dict[str, bytes]]:
    """The manifest and every file's bytes. Raises: StateError HR-0551 with the file, HR-0550 for another format."""
    signed = _decoded(place, _bytes_of(disk, place, MANIFEST), _Signed)
    body = bytes(signed.manifest)
    if _hash([body]) != signed.hash:
        raise _damaged(place, MANIFEST, "its hash differs")
    version = _decoded(place, body, _Version).format
    if version != FORMAT:
        raise _unfit(place, f"expected format {FORMAT}, seen {version}")
    manifest = _decoded(place, body, _Manifest)
    if place.name != f"{manifest.number:08d}":
        raise _damaged(place, MANIFEST, f"it is that of checkpoint {manifest.number}")
    contents: dict[str, bytes] = {}
    for name, whole in manifest.files.items():
        contents[name] = _bytes_of(disk, place, name)
        if len(contents[name]) != whole.bytes or _hash([contents[name]]) != whole.hash:
            raise _damaged(place, name, f"expected {whole.bytes} bytes of hash {whole.hash[:12]}...")
    return manifest, contents


class _Version(msgspec.Struct):
    format: int


def _bytes_of(disk: Files, place: Path, name: str) -> bytes:
    try:
        return disk.read(place / name)
    except OSError as error:
        raise _damaged(place, name, str(error)) from error


_Decoded = TypeVar("_Decoded", _Signed, _Manifest, _Version)


def _decoded(place: Path, body: bytes, kind: type[_Decoded]) -> _Decoded:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # a text that is no text is not an error of msgspec's
        raise _damaged(place, MANIFEST, str(error)) from error


def _check_meaning(
    place: Path, manifest: _Manifest, plans: Sequence[ViewPlan], fingerprints: Mapping[str, str]
) -> None:
    if manifest.semantics != SEMANTICS:
        raise _unfit(place, f"expected semantics {SEMANTICS}, seen {manifest.semantics}")
    wanted = {plan.view.name: (fingerprints[plan.view.name], _program(plan)) for plan in plans}
    seen = {name: (view.fingerprint, view.program) for name, view in manifest.views.items()}
    differing = sorted(name for name in wanted.keys() | seen.keys() if wanted.get(name) != seen.get(name))
    if differing:
        raise _unfit(place, f"other definitions of {', '.join(repr(name) for name in differing)}")


def _state(
    place: Path,
    plans: Sequence[ViewPlan],
    topics: Iterable[Topic],
    manifest: _Manifest,
    contents: Mapping[str, bytes],
) -> FeatureState:
    kernels = {}
    for plan in plans:
        for text in _batches(contents[f"{plan.view.name}.codes.arrow"])[0].column(0).to_pylist():
            plan.codes.code(text)
        words: Words = np.load(io.BytesIO(contents[f"{plan.view.name}.kernel.npy"]), allow_pickle=False)
        kernels[plan.view.name] = KeyedState.restore(plan.program, words)
    state = FeatureState(plans, topics=topics, kernels=kernels)
    if _names(state) != contents.keys():
        raise _unfit(place, "other topics bring facts to its views")
    for name, said in manifest.views.items():
        view = state.views[name]
        view.restored(oldest=said.oldest, newest=said.newest, unindexed=said.unindexed)
        _restore_keys(view, _batches(contents[f"{name}.keys.arrow"])[0])
    for name, topic in state.topic_states.items():
        topic.forgotten = manifest.forgotten.get(name, topic.forgotten)
        if topic.retained is not None:
            for batch in _batches(contents[f"{name}.retained.arrow"]):
                topic.retained.add_batch(batch.column(PARTITION)[0].as_py(), batch)
        if topic.facts is not None:
            for rule, join in topic.facts.joins.items():
                _restore_facts(join, _batches(contents[f"{name}.{rule}.facts.arrow"])[0])
    for read in manifest.frontier:
        state.resume(Partition(read.topic, read.incarnation, read.index), read.next, read.available_at)
    return state


def _restore_keys(view: ViewState, batch: pa.RecordBatch) -> None:
    *parts, handles = (column.to_pylist() for column in batch.columns)
    entities: Iterable[Hashable] = parts[0] if len(parts) == 1 else zip(*parts, strict=True)
    view.keys.update(zip(entities, handles, strict=True))


def _restore_facts(join: FactJoin, batch: pa.RecordBatch) -> None:
    for origin, time, id, partition, offset, value in zip(*(c.to_pylist() for c in batch.columns), strict=True):
        join.fact(origin, time, (id, partition, offset), value)


# --- bytes ---


def _npy(words: Words) -> list[Bytes]:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(words))
    return [head.getvalue(), words.data.cast("B")]


def _arrow(batches: Sequence[pa.RecordBatch]) -> list[Bytes]:
    """An Arrow IPC stream; of no batches an empty file."""
    if not batches:
        return [b""]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return [memoryview(sink.getvalue())]


def _batches(body: bytes) -> list[pa.RecordBatch]:
    return list(pa.ipc.open_stream(body)) if body else []


def _hash(parts: Iterable[Bytes]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _program(plan: ViewPlan) -> str:
    return _hash([plan.program.code.tobytes()])


def _numbers(disk: Files, folder: Path) -> list[int]:
    return [int(name) for name in disk.names(folder) if name.isdigit()]


def _damaged(place: Path, name: str, why: str) -> StateError:
    return StateError(
        "HR-0551",
        f"checkpoint {place} is damaged: {name}",
        detail=why,
        hint="delete the folder; the state is rebuilt from the log",
    )


def _unfit(place: Path, why: str) -> StateError:
    return StateError(
        "HR-0550",
        f"checkpoint {place} is of another state",
        detail=why,
        hint="delete the folder; the state is rebuilt from the log",
    )
