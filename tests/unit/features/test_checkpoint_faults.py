"""A folder for checkpoints that fails: said at start, by name."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from headrace.core.errors import StateError
from headrace.features import checkpoint
from headrace.features.checkpoint_folder import FolderCheckpoints, LocalFiles
from headrace.features.checkpoint_store import Bytes
from tests.unit.features.test_checkpoint import PRINTS, filled


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
