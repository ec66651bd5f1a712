"""Checkpoint and replay under faults: a fixed share of seeds finds nothing, every guard that is broken is caught."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from headrace.core.aggregate import Function
from headrace.features import checkpoint
from headrace.features.checkpoint_folder import Files
from headrace.features.checkpoint_names import parsed
from headrace.features.checkpoint_state import bytes_hash
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.define import Topic
from headrace.testing.checkpoint_simulation import (
    FAULTS_MIN,
    PLACE,
    STEPS,
    VIOLATIONS,
    CheckpointDisk,
    Outcome,
    Parts,
    simulate,
)
from headrace.testing.faulty_files import CALLS, EndedError, Fault, FaultyFiles, Rot
from headrace.testing.growing_log import STORIES, told

SEEDS = 50  # some 5 s; ten thousand run in the benchmark `checkpoint-faults`
BROKEN_SEEDS = 150  # a broken guard is found within so many, mostly by the first few


def test_what_was_served_before_a_crash_is_served_after_it() -> None:
    total, ended = Counter[str](), Counter[str]()
    for seed in range(SEEDS):
        outcome = simulate(seed)
        assert outcome.violations == 0, (seed, outcome.others, outcome.told)
        assert outcome.steps >= STEPS
        total.update(outcome.faults)
        ended.update(call for call, _ in outcome.ended.elements())
        for name in ("from_newest", "from_older", "from_nothing", "checkpoints_failed", "refused_corrupt"):
            total[name] += getattr(outcome, name)
        total["compared"] += outcome.compared
        assert sum(total[fault.name.lower()] for fault in Fault) >= FAULTS_MIN * (seed + 1)
    assert {name for name in total if total[name]} >= {fault.name.lower() for fault in Fault}
    assert {name for name in total if total[name]} >= {f"rot_{rot.name.lower()}" for rot in Rot}
    assert set(ended) == set(CALLS), "the process ended at every kind of call"
    assert total["compared"] > 50 * SEEDS
    assert min(total[name] for name in ("from_newest", "from_older", "from_nothing", "refused_corrupt")) > SEEDS // 4


def test_the_same_seed_lives_the_same_life() -> None:
    assert simulate(11) == simulate(11)


def test_the_definitions_hold_every_function_labels_and_late_columns() -> None:
    views = [view for number in range(STORIES) for view in told(number).views]
    features = [feature for view in views for feature in view.features]
    assert {feature.function for feature in features} == set(Function)
    late = [part for f in features for part in (f.input, f.where) if part is not None and part.availability.late]
    assert late
    assert any(len(view.topics) > 1 for view in views)


# --- guards, each broken on purpose ---


def ahead(state: FeatureState, folder: Path, *, fingerprints: Mapping[str, str], files: Files | None = None) -> str:
    """The frontier is written ahead of the state."""
    feeds = [feed for feed in state.feeds.values() if feed.next]
    for feed in feeds:
        feed.next += 1
    try:
        return checkpoint.write(state, folder, fingerprints=fingerprints, files=files)
    finally:
        for feed in feeds:
            feed.next -= 1


def restored(
    plans: Sequence[ViewPlan],
    folder: Path,
    fingerprints: Mapping[str, str],
    topics: Iterable[Topic],
    files: Files | None,
) -> FeatureState | None:
    return checkpoint.restore(plans, folder, fingerprints=fingerprints, topics=topics, files=files)


def behind(
    plans: Sequence[ViewPlan],
    folder: Path,
    *,
    fingerprints: Mapping[str, str],
    topics: Iterable[Topic] = (),
    files: Files | None = None,
) -> FeatureState | None:
    """The tail begins before the frontier."""
    state = restored(plans, folder, fingerprints, topics, files)
    for feed in () if state is None else state.feeds.values():
        feed.next = max(0, feed.next - 2)
    return state


def forgetful(
    plans: Sequence[ViewPlan],
    folder: Path,
    *,
    fingerprints: Mapping[str, str],
    topics: Iterable[Topic] = (),
    files: Files | None = None,
) -> FeatureState | None:
    """One entity of each view is not in it."""
    state = restored(plans, folder, fingerprints, topics, files)
    if state is not None:
        for view in state.views.values():
            if view.keys:
                view.keys.popitem()
    return state


class UnsyncedFiles(CheckpointDisk):
    """A file is renamed before its bytes are on the disk."""

    def write(self, path: Path, parts: Sequence[bytes | memoryview]) -> None:
        self.write_unsynced(path, parts)


class UnsyncedNames(CheckpointDisk):
    """What a folder holds is never synced."""

    def sync(self, folder: Path) -> None:
        pass


class UnsyncedInside(CheckpointDisk):
    """What a checkpoint's own folder holds is not synced before it is renamed."""

    def sync(self, folder: Path) -> None:
        if folder.parent != PLACE:
            super().sync(folder)


class UnsyncedRename(CheckpointDisk):
    """The new name is not synced."""

    def sync(self, folder: Path) -> None:
        if folder != PLACE:
            super().sync(folder)


class UnsyncedFolder(CheckpointDisk):
    """The names of the folders around the checkpoints are never synced."""

    def sync(self, folder: Path) -> None:
        if folder not in PLACE.parents:
            super().sync(folder)


class OnlyNewest(CheckpointDisk):
    """There is nothing to fall back to."""

    def names(self, folder: Path) -> list[str]:
        found = super().names(folder)
        checkpoints = [str(name) for name in parsed(found)]
        return [name for name in found if name not in checkpoints[:-1]]


class Unchecked(CheckpointDisk):
    """Whatever a file holds, the manifest says that it is right."""

    def read(self, path: Path) -> bytes:
        body = super().read(path)
        if path.name != checkpoint.MANIFEST:
            return body
        said = json.loads(body)["manifest"]
        for name in said["files"]:
            held = super().read(path.parent / name)
            said["files"][name] = {"bytes": len(held), "hash": bytes_hash([held])}
        return signed(json.dumps(said, separators=(",", ":")).encode())


class Unsigned(CheckpointDisk):
    """Whatever the manifest says, its own hash is right."""

    def read(self, path: Path) -> bytes:
        body = super().read(path)
        head, found, said = body.partition(b'"manifest":')
        return signed(said[:-1]) if path.name == checkpoint.MANIFEST and found else body


def signed(said: bytes) -> bytes:
    return b'{"hash":"' + bytes_hash([said]).encode() + b'","manifest":' + said + b"}"


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        pytest.param(Parts(write=ahead), ("lost", "differing"), id="frontier-ahead-of-state"),
        pytest.param(Parts(restore=behind), ("twice", "differing"), id="tail-read-twice"),
        pytest.param(Parts(restore=forgetful), ("lost", "differing"), id="entity-not-restored"),
        pytest.param(Parts(files=UnsyncedFiles), ("checkpoints_lost",), id="bytes-not-synced"),
        pytest.param(Parts(files=UnsyncedNames), ("checkpoints_lost",), id="names-not-synced"),
        pytest.param(Parts(files=UnsyncedInside), ("checkpoints_lost",), id="names-inside-not-synced"),
        pytest.param(Parts(files=UnsyncedRename), ("checkpoints_lost",), id="rename-not-synced"),
        pytest.param(Parts(files=UnsyncedFolder), ("checkpoints_lost",), id="folder-around-not-synced"),
        pytest.param(Parts(files=OnlyNewest), ("checkpoints_lost",), id="no-older-one-to-fall-back-to"),
        pytest.param(
            Parts(files=Unsigned, rots=(Rot.FLIP,), spared=(".npy", ".arrow")),
            ("corrupt_loaded",),
            id="manifest-not-checked",
        ),
        # Of rot only what leaves files that make sense, as others would end the process.
        pytest.param(
            Parts(
                files=Unchecked, rots=(Rot.STALE,), spared=(".npy", ".codes.arrow", ".retained.arrow", "manifest.json")
            ),
            ("corrupt_loaded",),
            id="checksums-not-checked",
        ),
    ],
)
def test_a_broken_guard_is_caught(parts: Parts, found: tuple[str, ...]) -> None:
    total = Counter[str]()
    for seed in range(BROKEN_SEEDS):
        _add(total, simulate(seed, parts))
        if all(total[name] for name in found):
            return
    pytest.fail(f"not found: {[name for name in found if not total[name]]}")


def _add(total: Counter[str], outcome: Outcome) -> None:
    total.update({name: getattr(outcome, name) for name in VIOLATIONS})


# --- the disk itself ---


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else() -> None:
    seen = set()
    for seed in range(60):
        files = FaultyFiles(random.Random(seed))
        files.make(Path("a"))
        files.sync(Path())
        files.write(Path("a/kept"), [b"kept"])
        files.sync(Path("a"))
        files.write(Path("a/unnamed"), [b"unnamed"])
        files.write_unsynced(Path("a/torn"), [bytes(range(256)) * 8])
        files.cut()
        there = files.names(Path("a"))
        assert "kept" in there and files.read(Path("a/kept")) == b"kept"
        if "torn" in there:
            seen.add(("torn", len(files.read(Path("a/torn"))) == 2_048))
        seen.add(("unnamed", "unnamed" in there))
    assert seen == {("torn", True), ("torn", False), ("unnamed", True), ("unnamed", False)}


def test_a_kill_keeps_what_was_written() -> None:
    files = FaultyFiles(random.Random(0))
    files.write_unsynced(Path("a"), [b"body"])
    for _ in range(500):
        files.arm(Fault.KILL)
    with pytest.raises(EndedError):
        for _ in range(20):
            files.write(Path("b"), [b"other"])
    files.disarm()
    assert files.read(Path("a")) == b"body"
