"""Checkpoints in a folder, of this machine or shared. Touches files, through the layer it is given.

The one idea: a checkpoint is written beside the others under another name, synced, and renamed, so that a folder with a
checkpoint's name is whole or is not there; its name is durable when the folder around it is synced. A shared folder
must do what POSIX says of rename and fsync, as NFS and the cluster file systems do.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from headrace.core.errors import StateError
from headrace.features.checkpoint_store import MANIFEST, Bytes, CheckpointStore, Part

WRITING = "writing-"
_PROBE_BYTES = 1 << 20  # what `check` writes: a disk that has no room for this has none for a checkpoint

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.EEXIST})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})


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
    """The file system of this machine, with what is mounted into it."""

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


class FolderCheckpoints(CheckpointStore):
    """A folder a checkpoint. It and the folder around it are made where they are missing."""

    def __init__(self, folder: Path, *, files: Files | None = None, shared: bool = False) -> None:
        """shared: other processes write here too; without, what is unfinished is of a process that is gone."""
        self.place = str(folder)
        self.shared = shared
        self._folder = folder
        self._files: Files = LocalFiles() if files is None else files
        self._named = False  # whether the names of the folders themselves are durable

    def check(self) -> None:
        made = self._folder / f"{WRITING}check~{secrets.token_hex(4)}"
        with self._told("cannot be written"):
            self._make()
            self._files.make(made)
            try:
                self._files.write(made / "probe", [bytes(_PROBE_BYTES)])
                self._files.sync(made)
            finally:
                self._files.remove(made)

    def names(self, prefix: str) -> Sequence[str]:
        with self._told("cannot be listed"):
            found = self._files.names(self._folder)
        return [name for name in found if name.startswith(prefix) and not name.startswith(WRITING)]

    def unfinished(self, prefix: str) -> Sequence[str]:
        with self._told("cannot be listed"):
            found = {_written(folder) for folder in self._files.names(self._folder)}
        return sorted(name for name in found if name is not None and name.startswith(prefix))

    def put(self, name: str, files: Iterable[Part]) -> None:
        # Two processes that write one name each write a folder of their own; of the two renames one fails.
        owner = f"~{os.getpid()}-{secrets.token_hex(4)}" if self.shared else ""
        made = self._folder / f"{WRITING}{name}{owner}"
        with self._told("cannot be written"):
            self._make()
            self._files.make(made)
            last = ""
            for last, parts in files:
                self._files.write(made / last, parts)
            assert last == MANIFEST, "the manifest is what makes a checkpoint be there"
            self._files.sync(made)
        try:
            self._files.rename(made, self._folder / name)
        except OSError as error:
            if error.errno in _TAKEN:
                with self._told("cannot be written"):
                    self._files.remove(made)
                raise _taken(self.place, name) from error
            raise self._error("cannot be written", error) from error
        with self._told("cannot be written"):
            self._files.sync(self._folder)

    def get(self, name: str, file: str) -> bytes:
        try:
            return self._files.read(self._folder / name / file)
        except FileNotFoundError as error:
            raise missing(self.place, name, file) from error
        except OSError as error:
            raise self._error(f"does not give {name}/{file}", error) from error

    def remove(self, name: str) -> None:
        with self._told("cannot be written"):
            for folder in self._files.names(self._folder):
                if folder == name or _written(folder) == name:
                    self._files.remove(self._folder / folder)

    def close(self) -> None:
        """Nothing is held."""

    def _make(self) -> None:
        """The folder, its name durable: a power cut would take it, and with it all that is ever written here."""
        self._files.make(self._folder)
        if not self._named:
            self._files.sync(self._folder.parent)
            self._files.sync(self._folder.parent.parent)
            self._named = True

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(what, error) from error

    def _error(self, what: str, error: OSError) -> StateError:
        return folder_error(self.place, what, error)


def _written(folder: str) -> str | None:
    """The checkpoint that is written in a folder; None where none is."""
    return folder.removeprefix(WRITING).partition("~")[0] if folder.startswith(WRITING) else None


def folder_error(place: str, what: str, error: OSError) -> StateError:
    """By its number, the code that says what can be done."""
    detail = error.strerror or str(error)
    if error.filename is not None:
        detail = f"{detail}: {error.filename}"
    if error.errno in _FULL:
        return StateError(
            "HR-0562",
            f"no room for checkpoints in {place}",
            detail=detail,
            hint="free room; it is tried again by itself",
            retryable=True,
        )
    if error.errno in _REFUSED:
        return StateError(
            "HR-0561",
            f"the checkpoint folder {place} {what}",
            detail=detail,
            hint="name a folder that this process may write",
        )
    return StateError(
        "HR-0565",
        f"the checkpoint folder {place} {what}",
        detail=detail,
        hint="look at the disk or the mount; it is tried again by itself",
        retryable=True,
    )


def _taken(place: str, name: str) -> StateError:
    return StateError("HR-0566", f"checkpoint {name} is in {place} already", hint="it is never overwritten")


def missing(place: str, name: str, file: str) -> StateError:
    """The error of a file that is not there."""
    return StateError("HR-0567", f"checkpoint {name} in {place} has no file {file!r}")
