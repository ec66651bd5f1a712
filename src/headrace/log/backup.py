"""Back up, restore, examine a log. A backup is a folder: the log's file as of one instant, and a manifest with its
hash.

Touches: the log's folder, the backup's folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from headrace import __version__
from headrace.clock import SystemClock
from headrace.core.errors import LogCorruptError, LogError, LogFormatError, NotFoundError, UsageError
from headrace.core.times import Clock, iso
from headrace.log import sqlite_check
from headrace.log.owner import LOCK_NAME, SOCKET_NAME, OwnerLock, connect, owner_pid
from headrace.log.sqlite_file import FILE_NAME, FORMAT

MANIFEST_NAME = "manifest.json"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What `doctor` saw. serious: rows are damaged or in danger; otherwise it is worth knowing."""

    serious: bool
    text: str


def backup(folder: Path | str, to: Path | str, *, clock: Clock | None = None) -> Path:
    """Copy the log in `folder` into the new folder `to`, consistent as of one instant, while others write. Returns
    `to`.

    Raises: UsageError HR-0315 where `to` holds something, NotFoundError HR-0302 where there is no log, LogError.
    """
    folder, to = Path(folder), Path(to)
    if not (folder / FILE_NAME).exists():
        raise NotFoundError("HR-0302", f"no log in {str(folder)!r}", path=str(folder))
    _refuse_to_overwrite(to)
    to.mkdir(parents=True, exist_ok=True)
    sqlite_check.copy(folder / FILE_NAME, to / FILE_NAME)
    manifest = {
        "headrace": __version__,
        "made_at": iso((clock or SystemClock()).now()),
        "from": str(folder.resolve()),
        "files": {FILE_NAME: {"sha256": _hash(to / FILE_NAME), "bytes": (to / FILE_NAME).stat().st_size}},
        **sqlite_check.summary(to / FILE_NAME),
    }
    for beside in ("-wal", "-shm"):
        (to / (FILE_NAME + beside)).unlink(missing_ok=True)
    # The manifest comes last and whole: a backup without one was broken off.
    part = to / (MANIFEST_NAME + ".part")
    part.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    _sync(to / FILE_NAME, part)
    part.replace(to / MANIFEST_NAME)
    _sync(to)
    return to


def restore(source: Path | str, to: Path | str) -> Path:
    """Copy a backup into the new log folder `to`, its hashes checked first. Returns `to`.

    Raises: UsageError HR-0315 where `to` holds something, LogCorruptError HR-0304 where the backup is not what was
    written, LogFormatError HR-0305 for one of a newer headrace, NotFoundError HR-0302 where there is none.
    """
    source, to = Path(source), Path(to)
    try:
        manifest = json.loads((source / MANIFEST_NAME).read_text())
        said = manifest["files"][FILE_NAME]["sha256"]
    except FileNotFoundError as error:
        raise NotFoundError("HR-0302", f"no backup in {str(source)!r}", detail=f"expected {MANIFEST_NAME}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LogCorruptError(
            "HR-0304", f"backup {str(source)!r} is corrupt", detail=f"its manifest: {error}"
        ) from error
    if manifest.get("format", FORMAT + 1) > FORMAT:
        raise LogFormatError(
            "HR-0305",
            f"backup {str(source)!r} was made by a newer headrace",
            detail=f"expected format {FORMAT} or older, seen {manifest.get('format')}",
        )
    seen = _hash(source / FILE_NAME)
    if seen != said:
        raise LogCorruptError(
            "HR-0304",
            f"backup {str(source)!r} is corrupt",
            detail=f"{FILE_NAME}: expected sha256 {said}, seen {seen}",
            hint="use an older backup",
        )
    _refuse_to_overwrite(to)
    to.mkdir(parents=True, exist_ok=True)
    part = to / (FILE_NAME + ".part")
    shutil.copyfile(source / FILE_NAME, part)
    _sync(part)
    part.replace(to / FILE_NAME)
    _sync(to)
    return to


def doctor(folder: Path | str, *, clock: Clock | None = None) -> list[Finding]:
    """What is wrong with the log in `folder`; empty where all is well. Reads every row, changes nothing.

    Checked: SQLite's own structure, the checksum of every batch, offsets without gaps, verdicts, available_at that
    never falls, imports that were not sealed, a lock or socket that nobody holds.
    """
    folder = Path(folder)
    if not (folder / FILE_NAME).exists():
        return [Finding(serious=True, text=f"there is no log in {str(folder)!r}")]
    findings = [
        Finding(serious="was not sealed" not in text, text=text)
        for text in sqlite_check.problems(folder / FILE_NAME, clock or SystemClock())
    ]
    return findings + _left_over(folder)


def _left_over(folder: Path) -> list[Finding]:
    """A socket without an owner, an owner without a socket."""
    if not (folder / LOCK_NAME).exists():
        return []
    try:
        lock = OwnerLock.take(folder)
    except LogError as error:
        return [Finding(serious=True, text=str(error))]
    if lock is None:
        try:
            connect(folder).close()
        except OSError as error:
            text = f"process {owner_pid(folder)} owns the log and does not answer: {error}"
            return [Finding(serious=True, text=text)]
        return []
    try:
        if (folder / SOCKET_NAME).exists() and not _listening(folder):
            text = f"{SOCKET_NAME} is left over from process {owner_pid(folder)}; the next owner replaces it"
            return [Finding(serious=False, text=text)]
    finally:
        lock.release()
    return []


def _listening(folder: Path) -> bool:
    try:
        channel: socket.socket = connect(folder)
    except OSError:
        return False
    channel.close()
    return True


def _refuse_to_overwrite(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(
            "HR-0315",
            f"{str(to)!r} holds something already",
            detail="expected a folder that is empty or not there: nothing is overwritten",
            hint="name another folder, or move this one away",
            path=str(to),
        )


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise LogError("HR-0309", f"{str(file)!r} cannot be read", detail=str(error)) from error
    return digest.hexdigest()


def _sync(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
