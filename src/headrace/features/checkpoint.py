"""Checkpoints of the online state: files with their hashes, in a store. Touches the store that it is given.

The one idea: a restart, or a takeover, is a checkpoint and the tail of the log (SEMANTICS 1.7); without one that fits
it is the log alone, so a refusal costs time and never a value. The manifest says what the state belongs to, up to which
offsets it has read, and what every file's bytes are. A checkpoint is of a part of the partitions ("p3" where a process
owns some) or of all of them, and never changes; which one is furthest is in its name (`checkpoint_names`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from headrace.core.errors import StateError
from headrace.core.kernel.program import SEMANTICS
from headrace.features.checkpoint_folder import Files, FolderCheckpoints
from headrace.features.checkpoint_names import (
    KEPT,
    CheckpointName,
    abandoned,
    next_number,
    outdated,
    parsed,
    part_name,
    short_hash,
)
from headrace.features.checkpoint_state import (
    MakeState,
    StateSaid,
    bytes_hash,
    files_of,
    program_hash,
    said_of,
    state_from,
)
from headrace.features.checkpoint_store import MANIFEST, CheckpointStore, Part
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.define import Topic
from headrace.log.port import TopicState

FORMAT = 3
ATTEMPTS_MAX = 8  # names that others take at the same moment; each try is one number higher
EXTRA = "extra."  # what files that a caller adds begin with

_log = logging.getLogger(__name__)


class _Whole(msgspec.Struct, forbid_unknown_fields=True):
    bytes: int
    hash: str


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """name: of the checkpoint, so that one with another's manifest is not taken for it. origin: which log."""

    format: int
    name: str
    semantics: int
    origin: str
    state: StateSaid
    files: dict[str, _Whole]


class _Signed(msgspec.Struct, forbid_unknown_fields=True):
    """hash: of the manifest's bytes."""

    hash: str
    manifest: msgspec.Raw


class _Version(msgspec.Struct):
    format: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """name: of the checkpoint. extra: the files that its writer added, by their names."""

    name: str
    state: FeatureState
    extra: Mapping[str, bytes]


def write(
    state: FeatureState,
    place: CheckpointStore | Path,
    *,
    fingerprints: Mapping[str, str],
    part: str = "",
    origin: str = "",
    extra: Mapping[str, bytes] | None = None,
    kept: int = KEPT,
    files: Files | None = None,
) -> str:
    """Write the state as a checkpoint, durable on return, and drop older ones. Returns its name.

    place: a store, or a folder that is this process's alone; files: of a folder, the disk. fingerprints: of every
    view's meaning. part, origin, extra: as of `restore`. The state must not change meanwhile; cost: its bytes, once
    through memory. A crash at any point leaves the checkpoints that were there, or those and this one.
    Raises: StateError HR-0561 to HR-0565 as the store does.
    """
    store = _store(place, files)
    of = kind([view.plan for view in state.views.values()], fingerprints=fingerprints, origin=origin)
    part = part_name(part)
    there = parsed(store.names(f"{part}-"))
    number = next_number(there)
    left = store.unfinished(f"{part}-")
    for gone in map(str, abandoned(parsed(left), number)) if store.shared else left:
        store.remove(gone)
    for attempt in range(ATTEMPTS_MAX):
        made = CheckpointName.of(state.frontier, part=part, number=number + attempt, kind=of)
        try:
            store.put(str(made), _with_manifest(state, fingerprints, origin, extra, str(made)))
        except StateError as error:
            if error.code != "HR-0566" or attempt + 1 == ATTEMPTS_MAX:
                raise
            continue
        break
    _remove_old(store, outdated([*there, made], made, kept=kept))
    return str(made)


def kind(plans: Sequence[ViewPlan], *, fingerprints: Mapping[str, str], origin: str = "") -> str:
    """Of what a checkpoint of these views is, as names have it (`CheckpointName.kind`): only one of the same kind is
    restored."""
    meanings = sorted((plan.view.name, fingerprints[plan.view.name], program_hash(plan)) for plan in plans)
    return short_hash(repr((FORMAT, SEMANTICS, origin, meanings)))


def restore(
    plans: Sequence[ViewPlan],
    place: CheckpointStore | Path,
    *,
    fingerprints: Mapping[str, str],
    topics: Iterable[Topic] = (),
    part: str = "",
    origin: str = "",
    held: Sequence[TopicState] | None = None,
    make: MakeState = FeatureState,
    files: Files | None = None,
) -> FeatureState | None:
    """The state of the furthest checkpoint that is whole and fits; None where there is none. Then read the log from its
    frontier on.

    plans: fresh from `compile`, of the same views in any order; used up, also where there is none. topics: as of
    `FeatureState`. part: which partitions, as it was said to `write`, as in "p3". origin: which log, as its cluster's
    id; a checkpoint of another is not used. held: the log's topics as they are now (`Log.topics`): a checkpoint of
    another incarnation, behind the log's start or ahead of its end is not used; None leaves that to
    `FeatureState.catch_up`. make: what makes the state. Each one that is passed over is said in a log line with the
    reason (HR-0550, HR-0551, HR-0568).
    Raises: StateError HR-0561 to HR-0565 where the store cannot be asked.
    """
    found = restore_whole(
        plans,
        _store(place, files),
        fingerprints=fingerprints,
        topics=topics,
        part=part,
        origin=origin,
        held=held,
        make=make,
    )
    return None if found is None else found.state


def restore_whole(
    plans: Sequence[ViewPlan],
    store: CheckpointStore,
    *,
    fingerprints: Mapping[str, str],
    topics: Iterable[Topic] = (),
    part: str = "",
    origin: str = "",
    held: Sequence[TopicState] | None = None,
    make: MakeState = FeatureState,
) -> Restored | None:
    """`restore`, with what the checkpoint's writer added to it."""
    tried: set[CheckpointName] = set()
    # Others write and let old ones go meanwhile; whoever finds that what was listed is gone looks at what is there now.
    while left := [name for name in parsed(store.names(f"{part_name(part)}-")) if name not in tried]:
        name = left[-1]
        tried.add(name)
        where = f"{name} in {store.place}"
        try:
            manifest = _manifest(store, str(name), where)
            _check_meaning(where, manifest, plans, fingerprints, origin)
            if held is not None:
                _check_log(where, manifest.state, held)
            contents = _contents(store, str(name), where, manifest)
        except StateError as error:
            if error.code not in _PASSED_OVER:
                raise
            _passed_over(name, error)
            continue
        return _state(str(name), where, plans, tuple(topics), manifest, contents, make)
    return None


# What is of the checkpoint; every other error is the store's.
_PASSED_OVER = frozenset({"HR-0550", "HR-0551", "HR-0568"})


def _state(
    name: str,
    where: str,
    plans: Sequence[ViewPlan],
    topics: Sequence[Topic],
    manifest: _Manifest,
    contents: dict[str, bytes],
    make: MakeState,
) -> Restored | None:
    """Of a whole checkpoint that fits. None ends the search: the plans' codes are this checkpoint's from here on, so an
    older one would be read by the wrong ones."""
    extra = {file.removeprefix(EXTRA): contents.pop(file) for file in [*contents] if file.startswith(EXTRA)}
    try:
        state = state_from(plans, topics, manifest.state, contents, make)
        if state is None:
            raise _unfit(where, "other topics bring facts to its views")
    except StateError as error:
        if error.code not in ("HR-0504", "HR-0550"):
            raise
        _passed_over(name, error)
        return None
    return Restored(name=name, state=state, extra=extra)


def _passed_over(name: object, error: StateError) -> None:
    _log.warning("checkpoint passed over: %s", error, extra={"checkpoint": str(name), "code": error.code})


# --- writing ---


def _remove_old(store: CheckpointStore, names: Sequence[CheckpointName]) -> None:
    """What cannot be removed now is there at the next time; the checkpoint is written all the same."""
    try:
        for name in names:
            store.remove(str(name))
    except StateError as error:
        _log.warning("old checkpoints stay: %s", error, extra={"code": error.code})


def _store(place: CheckpointStore | Path, files: Files | None) -> CheckpointStore:
    return FolderCheckpoints(place, files=files) if isinstance(place, Path) else place


def _with_extra(files: Iterator[Part], extra: Mapping[str, bytes] | None) -> Iterator[Part]:
    yield from files
    for name, body in (extra or {}).items():
        yield EXTRA + name, [body]


def _with_manifest(
    state: FeatureState, fingerprints: Mapping[str, str], origin: str, extra: Mapping[str, bytes] | None, name: str
) -> Iterator[Part]:
    """The files, and then what each of them is."""
    wholes: dict[str, _Whole] = {}
    for file, parts in _with_extra(files_of(state), extra):
        wholes[file] = _Whole(bytes=sum(len(part) for part in parts), hash=bytes_hash(parts))
        yield file, parts
    said = _Manifest(
        format=FORMAT,
        name=name,
        semantics=SEMANTICS,
        origin=origin,
        state=said_of(state, fingerprints),
        files=wholes,
    )
    body = msgspec.json.encode(said)
    yield MANIFEST, [msgspec.json.encode(_Signed(hash=bytes_hash([body]), manifest=msgspec.Raw(body)))]


# --- reading ---


def _manifest(store: CheckpointStore, name: str, where: str) -> _Manifest:
    """Raises: StateError HR-0551 where it is not what was written, HR-0550 for another format."""
    signed = _decoded(where, _bytes_of(store, name, where, MANIFEST), _Signed)
    body = bytes(signed.manifest)
    if bytes_hash([body]) != signed.hash:
        raise _damaged(where, MANIFEST, "its hash differs")
    version = _decoded(where, body, _Version).format
    if version != FORMAT:
        raise _unfit(where, f"expected format {FORMAT}, seen {version}")
    manifest = _decoded(where, body, _Manifest)
    if manifest.name != name:
        raise _damaged(where, MANIFEST, f"it is that of checkpoint {manifest.name}")
    return manifest


def _contents(store: CheckpointStore, name: str, where: str, manifest: _Manifest) -> dict[str, bytes]:
    """Every file's bytes. Raises: StateError HR-0551 with the file that is not what was written."""
    contents: dict[str, bytes] = {}
    for file, whole in manifest.files.items():
        body = _bytes_of(store, name, where, file)
        if len(body) != whole.bytes or bytes_hash([body]) != whole.hash:
            raise _damaged(where, file, f"expected {whole.bytes} bytes of hash {whole.hash[:12]}...")
        contents[file] = body
    return contents


def _bytes_of(store: CheckpointStore, name: str, where: str, file: str) -> bytes:
    try:
        return store.get(name, file)
    except StateError as error:
        # One file that cannot be read is no reason not to try an older checkpoint.
        raise _damaged(where, file, f"{error.message} {error.detail}".strip()) from error


_Decoded = TypeVar("_Decoded", _Signed, _Manifest, _Version)


def _decoded(where: str, body: bytes, kind: type[_Decoded]) -> _Decoded:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # a text that is no text is not an error of msgspec's
        raise _damaged(where, MANIFEST, str(error)) from error


def _check_meaning(
    where: str, manifest: _Manifest, plans: Sequence[ViewPlan], fingerprints: Mapping[str, str], origin: str
) -> None:
    """Raises: StateError HR-0550."""
    if manifest.semantics != SEMANTICS:
        raise _unfit(where, f"expected semantics {SEMANTICS}, seen {manifest.semantics}")
    if manifest.origin != origin:
        raise _unfit(where, f"it is of log {manifest.origin!r}, this is {origin!r}")
    wanted = {plan.view.name: (fingerprints[plan.view.name], program_hash(plan)) for plan in plans}
    seen = {name: (view.fingerprint, view.program) for name, view in manifest.state.views.items()}
    differing = sorted(name for name in wanted.keys() | seen.keys() if wanted.get(name) != seen.get(name))
    if differing:
        raise _unfit(where, f"other definitions of {', '.join(repr(name) for name in differing)}")


def _check_log(where: str, said: StateSaid, held: Sequence[TopicState]) -> None:
    """Raises: StateError HR-0568 where the log is not the one that was read, or holds too little of it."""
    topics = {topic.topic.name: topic for topic in held}
    for read in said.frontier:
        topic = topics.get(read.topic)
        if topic is None:
            raise _elsewhere(where, f"the log has no topic {read.topic!r}")
        if topic.incarnation != read.incarnation:
            raise _elsewhere(
                where,
                f"topic {read.topic!r} was made anew: it read incarnation {read.incarnation}, the log has "
                f"{topic.incarnation}",
            )
        state = next((one for one in topic.partitions if one.partition.index == read.index), None)
        if state is None:
            raise _elsewhere(where, f"the log has no partition {read.partition}")
        if read.next < state.start:
            raise _elsewhere(
                where, f"it read {read.partition} up to offset {read.next}, the log keeps it from {state.start} on"
            )
        if read.next > state.end:
            raise _elsewhere(where, f"it read {read.partition} up to offset {read.next}, the log ends at {state.end}")


def _damaged(where: str, name: str, why: str) -> StateError:
    return StateError(
        "HR-0551",
        f"checkpoint {where} is damaged: {name}",
        detail=why,
        hint="an older one is used, or the log alone; if it happens again, check the disk",
    )


def _unfit(where: str, why: str) -> StateError:
    return StateError(
        "HR-0550",
        f"checkpoint {where} is of another state",
        detail=why,
        hint="an older one is used, or the log alone",
    )


def _elsewhere(where: str, why: str) -> StateError:
    return StateError(
        "HR-0568",
        f"checkpoint {where} does not fit the log",
        detail=why,
        hint="an older one is used, or the log alone",
    )
