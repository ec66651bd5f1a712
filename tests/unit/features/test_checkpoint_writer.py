"""A place for checkpoints that fails: said at start, by name; counted, logged and tried again while decisions go on."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from headrace.core.errors import StateError
from headrace.features import checkpoint
from headrace.features.checkpoint_folder import FolderCheckpoints, LocalFiles
from headrace.features.checkpoint_store import Bytes, CheckpointStore
from headrace.features.checkpoint_writer import CheckpointWriter
from headrace.testing.clocks import ManualClock
from tests.unit.features.test_checkpoint import PRINTS, filled, follow, numbers, restored


class FailingFiles(LocalFiles):
    """Says `error` at every write while it is set."""

    def __init__(self, error: OSError | None) -> None:
        self.error = error

    def write(self, path: Path, parts: Sequence[Bytes]) -> None:
        if self.error is not None:
            raise self.error
        super().write(path, parts)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "HR-0562"),
        (errno.EDQUOT, "HR-0562"),
        (errno.EACCES, "HR-0561"),
        (errno.EROFS, "HR-0561"),
        (errno.EIO, "HR-0565"),
        (errno.ESTALE, "HR-0565"),
    ],
)
def test_what_the_disk_says_is_said_by_the_folder(tmp_path: Path, number: int, code: str) -> None:
    _, state = filled(1, 4)
    store = FolderCheckpoints(tmp_path, files=FailingFiles(OSError(number, "so it is", "a file")))
    for call in (store.check, lambda: checkpoint.write(state, store, fingerprints=PRINTS)):
        with pytest.raises(StateError) as error:
            call()
        assert error.value.code == code
        assert str(tmp_path) in error.value.message
        assert error.value.detail == "so it is: a file"
        assert error.value.retryable == (code != "HR-0561")


def test_a_folder_that_cannot_be_is_said_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/headrace")):
        with pytest.raises(StateError, match="HR-0561"):
            FolderCheckpoints(place, shared=True).check()


def writer(store: CheckpointStore, clock: ManualClock) -> CheckpointWriter:
    return CheckpointWriter(store, fingerprints=PRINTS, clock=clock, every="1m", retry="10s")


def test_a_writer_writes_what_changed_now_and_then(tmp_path: Path) -> None:
    log, state = filled(1, 6)
    clock = ManualClock()
    own = writer(FolderCheckpoints(tmp_path), clock)
    assert own.offer(state) and numbers(tmp_path) == [1]
    follow(state, log.lender, [log.draw()])
    assert not own.offer(state), "too soon"
    clock.advance("1m")
    assert own.offer(state) and numbers(tmp_path) == [1, 2]
    clock.advance("1h")
    assert not own.offer(state), "nothing changed"
    assert own.write(state), "what is there already is written"
    assert numbers(tmp_path) == [1, 2]
    follow(state, log.lender, [log.draw()])
    assert own.write(state) and numbers(tmp_path) == [2, 3]
    assert (own.written, own.failed, own.error) == (3, 0, None)


def test_a_checkpoint_that_cannot_be_written_is_counted_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, state = filled(1, 6)
    clock, files = ManualClock(), FailingFiles(OSError(errno.ENOSPC, "no room"))
    own = writer(FolderCheckpoints(tmp_path, files=files), clock)
    assert not own.offer(state)
    assert not own.offer(state), "not at once again"
    clock.advance("10s")
    assert not own.offer(state)
    assert (own.written, own.failed) == (0, 2)
    assert own.error is not None and own.error.code == "HR-0562"
    assert "HR-0562" in refused_last(caplog)
    files.error = None
    clock.advance("10s")
    assert own.offer(state)
    assert (own.written, own.failed, own.error) == (1, 2, None)
    assert restored(log.lender, tmp_path).frontier == state.frontier


def refused_last(caplog: pytest.LogCaptureFixture) -> str:
    return [one for one in caplog.records if one.levelno == logging.WARNING][-1].getMessage()


def test_a_snapshot_is_put_while_the_state_goes_on(tmp_path: Path) -> None:
    log, state = filled(1, 6)
    clock = ManualClock()
    own = writer(FolderCheckpoints(tmp_path), clock)
    taken = own.take(state)
    assert taken is not None
    clock.advance("1h")
    follow(state, log.lender, [log.draw() for _ in range(3)])
    assert own.take(state) is None, "one at a time"
    assert own.put(taken)
    assert own.take(state) is not None


def test_a_clock_that_steps_back_does_not_stop_the_checkpoints(tmp_path: Path) -> None:
    log, state = filled(1, 6)
    clock = ManualClock()
    own = writer(FolderCheckpoints(tmp_path), clock)
    assert own.offer(state)
    clock.set("2025-01-01T00:00:00Z")
    follow(state, log.lender, [log.draw()])
    assert own.offer(state)
