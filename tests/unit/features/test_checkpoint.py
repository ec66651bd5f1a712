"""Checkpoints: a restart answers with the same bits; a crash between any two steps leaves one that is whole."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

import headrace as hr
from headrace.core.errors import StateError
from headrace.core.points import Partition
from headrace.features import checkpoint, define
from headrace.features.checkpoint_folder import FolderCheckpoints, LocalFiles
from headrace.features.checkpoint_names import OTHERS_KEPT, CheckpointName
from headrace.features.checkpoint_state import bytes_hash
from headrace.features.checkpoint_store import MANIFEST, Bytes
from headrace.features.define import FeatureView
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.port import Append
from headrace.testing.clocks import ManualClock
from headrace.testing.fakes import MemoryLog
from headrace.testing.oracles import Event
from tests.unit.features.followed import Lender, RandomLog, batch, row

PRINTS = {"customer": "c1", "merchant": "m1", "flow": "f1", "pair": "p1"}


def follow(state: FeatureState, lender: Lender, events: Sequence[Event]) -> None:
    for event in events:
        if event.offset % 3:
            topic = lender.topics[event.partition.topic]
            state.ingest(event.partition, batch([event], topic))
        else:
            at = event.event_time
            state.ingest_row(
                event.partition,
                event.offset,
                event.available_at,
                at,
                event.verdict,
                row(event, lender.topics[event.partition.topic]),
            )


def plans(lender: Lender) -> list[ViewPlan]:
    return [ViewPlan.compile(view, lender.labels) for view in lender.views.values()]


def restored(lender: Lender, folder: Path, **changed: str) -> FeatureState:
    found = checkpoint.restore(plans(lender), folder, fingerprints=PRINTS | changed, topics=[lender.truths])
    assert found is not None
    return found


def numbers(folder: Path) -> list[int]:
    found = [CheckpointName.parse(path.name) for path in folder.iterdir()]
    assert None not in found, "nothing else is left there"
    return sorted(name.number for name in found if name is not None)


def answers(state: FeatureState, log: RandomLog, request: Event) -> object:
    lender = log.lender
    ask = state.asker(list(lender.views), lender.plans, request.partition)
    reads = [state.read("flow", entity, log.now) for entity in (1, 2, 3, 99)]
    old = [state.read("merchant", entity, log.now - 5) for entity in ("a", "b")]
    return ask(request.offset, row(request, lender.plans), request.event_time), reads, old


@pytest.mark.parametrize("seed", range(8))
def test_a_restart_answers_with_the_same_bits(seed: int, tmp_path: Path) -> None:
    lender = Lender(hr.int64 if seed % 2 else hr.string)
    log, rng, state = RandomLog(lender, seed), random.Random(seed), lender.state()
    for _ in range(5):
        follow(state, lender, [log.draw() for _ in range(rng.choice([1, 8, 20]))])
        checkpoint.write(state, tmp_path, fingerprints=PRINTS)
        again = restored(lender, tmp_path)
        assert again.frontier == state.frontier
        request = log.request()
        assert answers(again, log, request) == answers(state, log, request)
        tail = [log.draw() for _ in range(6)]
        follow(state, lender, tail)
        follow(again, lender, tail)
        request = log.request()
        assert answers(again, log, request) == answers(state, log, request)
        assert [v.unindexed for v in again.views.values()] == [v.unindexed for v in state.views.values()]
        state = again


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    lender = Lender()
    assert checkpoint.restore(plans(lender), tmp_path / "none", fingerprints=PRINTS) is None
    assert checkpoint.restore(plans(lender), tmp_path, fingerprints=PRINTS) is None


def test_an_empty_state_is_a_checkpoint_too(tmp_path: Path) -> None:
    lender = Lender()
    checkpoint.write(lender.state(), tmp_path, fingerprints=PRINTS)
    assert list(restored(lender, tmp_path).frontier) == []


def filled(seed: int, count: int) -> tuple[RandomLog, FeatureState]:
    lender = Lender()
    log, state = RandomLog(lender, seed), lender.state()
    follow(state, lender, [log.draw() for _ in range(count)])
    return log, state


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    log, state = filled(1, 10)
    for _ in range(4):
        checkpoint.write(state, tmp_path, fingerprints=PRINTS)
        follow(state, log.lender, [log.draw()])
    assert numbers(tmp_path) == [3, 4]


def refused(caplog: pytest.LogCaptureFixture, code: str) -> str:
    """What the log says of the one checkpoint that was passed over, once."""
    (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert record.__dict__["code"] == code
    caplog.clear()
    return record.getMessage()


def test_another_meaning_is_refused_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, state = filled(1, 10)
    checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    assert checkpoint.restore(plans(log.lender), tmp_path, fingerprints=PRINTS | {"flow": "f2"}) is None
    assert "other definitions of 'flow'" in refused(caplog, "HR-0550")
    assert checkpoint.restore(plans(log.lender)[:3], tmp_path, fingerprints=PRINTS) is None
    assert "'pair'" in refused(caplog, "HR-0550")


def test_an_older_one_of_this_meaning_is_used_behind_another_s(tmp_path: Path) -> None:
    """As after a version went back."""
    log, state = filled(1, 10)
    checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    older = state.frontier
    follow(state, log.lender, [log.draw() for _ in range(5)])
    for _ in range(4):
        checkpoint.write(state, tmp_path, fingerprints=PRINTS | {"flow": "f2"})
    assert numbers(tmp_path) == [1, 4, 5]
    assert restored(log.lender, tmp_path).frontier == older
    for _ in range(OTHERS_KEPT):
        checkpoint.write(state, tmp_path, fingerprints=PRINTS | {"flow": "f2"})
    assert 1 not in numbers(tmp_path), "another meaning's goes in the end"


def test_other_topics_of_truths_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, state = filled(1, 10)
    checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    loss = hr.Topic("plans.loss", key="plan", fields={"plan": hr.int64, "loss": hr.int64})

    def only() -> list[ViewPlan]:
        return [ViewPlan.compile(late_view(log.lender), {})]

    prints, place = {"late": "l"}, tmp_path / "late"
    checkpoint.write(FeatureState(only()), place, fingerprints=prints)
    assert checkpoint.restore(only(), place, fingerprints=prints) is not None
    assert checkpoint.restore(only(), place, fingerprints=prints, topics=[loss]) is None
    assert "other topics bring facts to its views" in refused(caplog, "HR-0550")


def late_view(lender: Lender) -> FeatureView:
    total = define.sum(lender.plans.loss).over("9us", delay="9us")
    return FeatureView("late", entity="customer", source=lender.plans, features=[total])


def test_another_format_and_other_semantics_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, state = filled(1, 4)
    place = tmp_path / checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    for name, expected in (("format", checkpoint.FORMAT), ("semantics", checkpoint.SEMANTICS)):
        sign(place, {**manifest(place), name: 99})
        assert checkpoint.restore(plans(log.lender), tmp_path, fingerprints=PRINTS) is None
        assert f"expected {name} {expected}, seen 99" in refused(caplog, "HR-0550")
        sign(place, {**manifest(place), name: expected})
    restored(log.lender, tmp_path)


def test_another_checkpoint_s_manifest_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, state = filled(1, 4)
    first = checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    second = checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    (tmp_path / second / MANIFEST).write_bytes((tmp_path / first / MANIFEST).read_bytes())
    assert restored(log.lender, tmp_path).frontier == state.frontier
    assert f"it is that of checkpoint {first}" in refused(caplog, "HR-0551")


def manifest(place: Path) -> dict[str, object]:
    return json.loads((place / "manifest.json").read_text())["manifest"]


def sign(place: Path, said: dict[str, object]) -> None:
    body = json.dumps(said, separators=(",", ":")).encode()
    signed = b'{"hash":"' + bytes_hash([body]).encode() + b'","manifest":' + body + b"}"
    (place / "manifest.json").write_bytes(signed)


def test_every_changed_byte_is_found_and_the_one_before_serves(tmp_path: Path) -> None:
    log, state = filled(3, 12)
    checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    older = state.frontier
    follow(state, log.lender, [log.draw() for _ in range(3)])
    place = tmp_path / checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    rng = random.Random(0)
    for path in sorted(place.iterdir()):
        body = bytearray(path.read_bytes())
        if not body:
            continue
        at = rng.randrange(len(body))
        body[at] ^= 1
        path.write_bytes(body)
        assert restored(log.lender, tmp_path).frontier == older, path.name
        body[at] ^= 1
        path.write_bytes(body)
    (place / "flow.keys.arrow").unlink()
    assert restored(log.lender, tmp_path).frontier == older


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_a_manifest_that_is_no_text_is_damaged_too(tmp_path: Path, bit: int) -> None:
    log, state = filled(3, 12)
    checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    older = state.frontier
    follow(state, log.lender, [log.draw() for _ in range(3)])
    path = tmp_path / checkpoint.write(state, tmp_path, fingerprints=PRINTS) / MANIFEST
    whole = path.read_bytes()
    for at in (*range(90), *range(90, len(whole), 37)):
        body = bytearray(whole)
        body[at] ^= bit
        path.write_bytes(body)
        assert restored(log.lender, tmp_path).frontier == older, at


def test_a_log_that_ends_before_the_checkpoint_is_refused(tmp_path: Path) -> None:
    """As one that was put back from a backup: what the state holds beside it is in no log."""
    lender = Lender()
    whole, shorter = MemoryLog(clock=ManualClock()), MemoryLog(clock=ManualClock())
    for topic in lender.topics.values():
        whole.declare(topic)
        shorter.declare(topic)
    partition = Partition("repayments", 1, 0)
    for nr in range(3):
        rows = [(nr, nr, 100)]
        whole.append([Append(partition=partition, rows=rows)])
        if nr < 2:
            shorter.append([Append(partition=partition, rows=rows)])
    state = lender.state()
    assert state.catch_up(whole) == 3
    checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    again = restored(lender, tmp_path)
    with pytest.raises(StateError, match="HR-0546") as error:
        again.catch_up(shorter)
    assert error.value.detail == "the state has read up to offset 3, the log ends at 2"
    assert restored(lender, tmp_path).catch_up(whole) == 0


class Recorded(LocalFiles):
    """Which folders were synced, in order."""

    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync(self, folder: Path) -> None:
        self.synced.append(folder)
        super().sync(folder)


def test_the_first_checkpoint_makes_the_names_of_its_folders_durable(tmp_path: Path) -> None:
    log, state = filled(1, 4)
    folder, files = tmp_path / "checkpoints" / "views", Recorded()
    store = FolderCheckpoints(folder, files=files)
    first, second = (checkpoint.write(state, store, fingerprints=PRINTS) for _ in range(2))
    around = [tmp_path / "checkpoints", tmp_path]
    assert files.synced == [*around, folder / f"writing-{first}", folder, folder / f"writing-{second}", folder]


def test_without_a_whole_one_the_damage_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, state = filled(3, 12)
    place = tmp_path / checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    (place / "flow.kernel.npy").write_bytes(b"")
    assert checkpoint.restore(plans(log.lender), tmp_path, fingerprints=PRINTS) is None
    assert "flow.kernel.npy" in refused(caplog, "HR-0551")


class CrashError(Exception):
    """The process ended here."""


class CrashingFiles(LocalFiles):
    """Ends the process at one step: before it, or in the middle of a write."""

    def __init__(self, at: int, *, torn: bool) -> None:
        self.at, self.torn, self.steps = at, torn, 0

    def _step(self) -> bool:
        """Whether this is the step; a step that is not a write ends before it begins."""
        self.steps += 1
        return self.steps == self.at

    def make(self, folder: Path) -> None:
        if self._step():
            raise CrashError
        super().make(folder)

    def write(self, path: Path, parts: Sequence[Bytes]) -> None:
        if self._step():
            if self.torn:
                whole = b"".join(parts)
                path.write_bytes(whole[: len(whole) // 2])
            raise CrashError
        super().write(path, parts)

    def sync(self, folder: Path) -> None:
        if self._step():
            raise CrashError
        super().sync(folder)

    def rename(self, source: Path, target: Path) -> None:
        if self._step():
            raise CrashError
        super().rename(source, target)

    def remove(self, folder: Path) -> None:
        if self._step():
            # Half of what is in it is gone.
            for path in sorted(folder.iterdir())[::2] if self.torn else []:
                path.unlink()
            raise CrashError
        super().remove(folder)


@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_between_any_two_steps_leaves_a_whole_checkpoint(tmp_path: Path, torn: bool) -> None:
    log, state = filled(5, 25)
    for _ in range(2):
        checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    older = state.frontier
    follow(state, log.lender, [log.draw() for _ in range(10)])
    request = log.request()
    wanted = answers(state, log, request)
    seen = set()
    step = 0
    while True:
        step += 1
        files = CrashingFiles(step, torn=torn)
        try:
            checkpoint.write(state, tmp_path, fingerprints=PRINTS, files=files)
        except CrashError:
            again = restored(log.lender, tmp_path)
            seen.add(again.frontier)
            assert again.frontier in (older, state.frontier)
            follow(again, log.lender, tail(log, again))
            assert answers(again, log, request) == wanted
        else:
            break
    assert step > 20
    assert seen == {older, state.frontier}
    assert len(numbers(tmp_path)) == 2


def tail(log: RandomLog, state: FeatureState) -> list[Event]:
    return [event for event in log.events if not state.frontier.holds(event.partition, event.offset)]
