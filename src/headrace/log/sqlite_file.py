"""The log's one file: its tables, its format version, its connections, and SQLite's errors in our words.

Everything of one partition lies in one stretch of one B-tree: an entry's key is the partition's number times 2**40 plus
the offset of its first row. An append of one event therefore writes one leaf page and nothing else: a partition's end
and its running maximum are read off its last entry. Touches: the file, through apsw.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from headrace.core.errors import (
    HeadraceError,
    LogCorruptError,
    LogError,
    LogFormatError,
    LogFullError,
    LogReadOnlyError,
)

FILE_NAME = "log.sqlite"
FORMAT = 1  # raised when an older headrace could misread the file; kept in SQLite's user_version
APPLICATION_ID = 0x48524C47  # "HRLG", so that `file` and we can tell a log from another SQLite file
OFFSET_BITS = 40  # 10**12 rows a partition and 2**23 partitions ever made, in one 63-bit key
BUSY_MS_MAX = 10_000  # another process recovering the file after a kill holds it for as long as the WAL takes to read
# 4 KiB is what one small commit writes; 8 and 16 KiB read large entries 0 to 20 % faster and commit 10 to 20 % slower.
PAGE_BYTES = 4_096
# What the WAL grows to between two checkpoints of single commits (sqlite_upkeep.CHECKPOINT_PAGES), and a quarter above.
WAL_ROOM_BYTES = 5 << 20

_TABLES = f"""
CREATE TABLE entries(
    key INTEGER PRIMARY KEY, count INTEGER NOT NULL, available_at INTEGER NOT NULL, form INTEGER NOT NULL,
    checksum INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE topics(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, incarnation INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0,
    UNIQUE(name, incarnation));
CREATE TABLE versions(
    topic INTEGER NOT NULL, version INTEGER NOT NULL, definition TEXT NOT NULL, PRIMARY KEY(topic, version)) WITHOUT
    ROWID;
CREATE TABLE partitions(
    number INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, place INTEGER NOT NULL, import_id TEXT,
    sealed INTEGER NOT NULL, start INTEGER NOT NULL DEFAULT 0, restart_offset INTEGER NOT NULL DEFAULT 0,
    restart_at INTEGER NOT NULL DEFAULT 0, UNIQUE(topic, place));
CREATE TABLE purges(number INTEGER PRIMARY KEY);
CREATE TABLE groups(
    name TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY(name, partition)) WITHOUT ROWID;
CREATE TABLE catalog(version INTEGER NOT NULL);
INSERT INTO catalog VALUES(0);
CREATE TABLE room(payload BLOB);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""


def key(number: int, offset: int) -> int:
    """The entries key of an offset of the partition with this number."""
    return number << OFFSET_BITS | offset


def make_folder(folder: Path) -> None:
    """The log's folder, its name durable before anything is in it. Raises: LogReadOnlyError HR-0307, LogError
    HR-0309."""
    if folder.is_dir():
        return
    with translated(folder / FILE_NAME):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except PermissionError as error:
            raise read_only(folder / FILE_NAME) from error
        parent = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def connect_writer(file: Path, *, vfs: str | None = None, room: bool = True) -> apsw.Connection:
    """The one connection that writes, the file made if there is none. room: give the WAL its length now.

    Raises: LogReadOnlyError HR-0307, LogFormatError HR-0305, LogCorruptError HR-0304, LogFullError HR-0306.
    """
    with translated(file):
        connection = _open(file, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs)
        try:
            if connection.readonly("main"):
                raise read_only(file)
            fresh = _check_format(connection, file)
            if fresh:
                connection.pragma("page_size", PAGE_BYTES)
            if connection.pragma("journal_mode", "wal") != "wal":
                raise read_only(file)
            # FULL: the WAL is synced at each commit, which is what "durable on return" means.
            connection.pragma("synchronous", "FULL")
            connection.wal_autocheckpoint(0)
            if fresh:
                # One transaction, BEGIN to COMMIT: a crash leaves no file or a whole one.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_TABLES)
                connection.execute("COMMIT")
            if room:
                _make_room(connection, file)
        except BaseException:
            connection.close()
            raise
        return connection


def connect_reader(file: Path, *, vfs: str | None = None) -> apsw.Connection:
    """A connection that only reads. Raises: as `connect_writer`, and LogError HR-0309 where there is no file."""
    with translated(file):
        connection = _open(file, apsw.SQLITE_OPEN_READWRITE, vfs)
        try:
            if _check_format(connection, file):
                raise LogError("HR-0309", f"log {str(file)!r} is empty", retryable=True)
            # A reader that is the last to leave must not write the file it may only read.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.pragma("query_only", 1)
        except BaseException:
            connection.close()
            raise
        return connection


def connect_checkpointer(file: Path, *, vfs: str | None = None) -> apsw.Connection:
    """A connection that moves what the WAL holds into the file, beside the writer. Raises: as `connect_writer`."""
    with translated(file):
        connection = _open(file, apsw.SQLITE_OPEN_READWRITE, vfs)
        connection.pragma("synchronous", "FULL")
        connection.wal_autocheckpoint(0)
        return connection


def _make_room(connection: apsw.Connection, file: Path) -> None:
    """A WAL of its full length, kept from one owner to the next.

    Each sync of a file that has grown waits for the file system's journal, and with it for whatever others have
    written: 4 ms and more a commit were measured beside busy neighbours, against 0.07 ms where the WAL is written over
    in place.
    """
    kept = ctypes.c_int(1)
    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(kept))
    wal = file.with_name(file.name + "-wal")
    if wal.exists() and wal.stat().st_size >= WAL_ROOM_BYTES:
        return
    connection.execute("INSERT INTO room VALUES(zeroblob(?))", (WAL_ROOM_BYTES,))
    connection.execute("DELETE FROM room")  # its pages are the next ones that rows take
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def _open(file: Path, flags: int, vfs: str | None) -> apsw.Connection:
    connection = apsw.Connection(str(file), flags=flags, vfs=vfs)
    connection.set_busy_timeout(BUSY_MS_MAX)
    return connection


def _check_format(connection: apsw.Connection, file: Path) -> bool:
    """Whether the file is new and empty."""
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application == APPLICATION_ID:
        if version > FORMAT:
            raise LogFormatError(
                "HR-0305",
                f"log {str(file)!r} was written by a newer headrace",
                detail=f"expected format {FORMAT} or older, seen {version}",
                hint="upgrade headrace here, or open the log with the version that wrote it",
                seen=version,
                expected=FORMAT,
            )
        return False
    if application == 0 and version == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        return True
    raise LogFormatError(
        "HR-0305",
        f"{str(file)!r} is not a headrace log",
        detail=f"expected application id {APPLICATION_ID:#x}, seen {application:#x}",
        hint="name the folder that `headrace init` or the first `headrace apply` made",
    )


def read_only(file: Path) -> LogReadOnlyError:
    return LogReadOnlyError(
        "HR-0307",
        f"log {str(file)!r} cannot be written",
        detail="the file, its folder or its file system is read-only for this user",
        hint=f"check `ls -ld {file.parent} {file}` and the mount, or open the log with role 'reader'",
        path=str(file),
    )


def corrupt(place: str, detail: str, **facts: str | int) -> LogCorruptError:
    """place: the file, or topic, partition and offset."""
    return LogCorruptError(
        "HR-0304",
        f"{place} is corrupt",
        detail=detail,
        hint="run `headrace doctor` to see how far it goes, then `headrace restore` the last backup beside it",
        retryable=False,
        **facts,
    )


@contextmanager
def translated(file: Path, place: str = "", *, writing: bool = False, **facts: str | int) -> Iterator[None]:
    """SQLite's errors within, as HeadraceError. place: what was read, for a corrupt file; the file itself by default.
    writing: within a commit, where an input or output error leaves the outcome unknown."""
    try:
        yield
    except HeadraceError:
        raise
    except apsw.FullError as error:
        raise LogFullError(
            "HR-0306",
            f"no room for log {str(file)!r}",
            detail=f"nothing of this was taken; {_free(file)}",
            hint="free some space, then call again: what was acknowledged is there",
            retryable=True,
            path=str(file),
        ) from error
    except apsw.ReadOnlyError as error:
        raise read_only(file) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise corrupt(place or f"log {str(file)!r}", str(error), path=str(file), **facts) from error
    except (apsw.CantOpenError, apsw.PermissionsError) as error:
        if file.parent.is_dir() and not os.access(file if file.exists() else file.parent, os.W_OK):
            raise read_only(file) from error
        raise LogError(
            "HR-0309", f"log {str(file)!r} cannot be opened", detail=str(error), retryable=False, path=str(file)
        ) from error
    except apsw.BusyError as error:
        raise LogError(
            "HR-0309",
            f"log {str(file)!r} is held by another program",
            detail=f"waited {BUSY_MS_MAX} ms: {error}",
            hint="only headrace may open the file; close other SQLite programs",
            retryable=True,
            path=str(file),
        ) from error
    except (apsw.IOError, OSError) as error:
        if writing:
            raise unknown_outcome(f"log {str(file)!r} could not be synced", str(error)) from error
        raise LogError(
            "HR-0309",
            f"log {str(file)!r}: input or output failed",
            detail=str(error),
            hint="see the kernel's log for the disk's errors",
            retryable=True,
            path=str(file),
        ) from error
    except apsw.Error as error:
        raise LogError("HR-0309", f"log {str(file)!r}: {error}", detail=type(error).__name__, path=str(file)) from error


def unknown_outcome(message: str, detail: str) -> LogError:
    return LogError(
        "HR-0311",
        f"{message}: whether the rows were taken is not known",
        detail=detail,
        hint="read the partition's end before you send them again; rows with an id may simply be sent again",
        retryable=True,
    )


def _free(file: Path) -> str:
    try:
        seen = os.statvfs(file.parent)
    except OSError:
        return "the disk is full"
    return f"{seen.f_bavail * seen.f_frsize // (1 << 20)} MiB are free"
