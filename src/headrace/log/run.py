"""Open a log: as its owner where nobody is, beside the owner where somebody is. Touches: the log's folder."""

from __future__ import annotations

import enum
from pathlib import Path

from headrace.clock import SystemClock
from headrace.core.errors import NotOwnerError
from headrace.core.times import Clock
from headrace.log.owner import OwnerLock, Server, owner_pid
from headrace.log.port import Log
from headrace.log.sqlite import SqliteLog
from headrace.log.sqlite_file import make_folder
from headrace.log.sqlite_remote import RemoteLog


class Role(enum.Enum):
    """ANY: own the file if nobody does, and take over when its owner goes. OWNER: own it or fail. REMOTE: never own it.
    READER: only read, without an owner as well, also where nothing may be written but SQLite's shared memory."""

    ANY = "any"
    OWNER = "owner"
    REMOTE = "remote"
    READER = "reader"


def open_log(folder: Path | str, *, clock: Clock | None = None, role: Role | str = Role.ANY) -> Log:
    """The log in `folder` (its file is log.sqlite there), made if there is none. clock: the machine's by default.

    Raises: NotOwnerError HR-0308 (another process owns it, and role says owner, or it does not answer for 10 s),
    LogReadOnlyError HR-0307, LogFormatError HR-0305, LogCorruptError HR-0304, LogError HR-0309.
    """
    folder, role, clock = Path(folder), Role(role), clock or SystemClock()
    if role is Role.READER:
        return RemoteLog(folder, clock=clock, own=None, writable=False)
    if role in (Role.ANY, Role.OWNER):
        make_folder(folder)
        lock = OwnerLock.take(folder)
        if lock is not None:
            try:
                return own_log(folder, clock, lock)
            except BaseException:
                lock.release()
                raise
        if role is Role.OWNER:
            raise NotOwnerError(
                "HR-0308",
                f"log {str(folder)!r} is owned by another process",
                detail=f"process {owner_pid(folder)} holds it",
                hint="stop that process, or open the log with role 'any' and write through it",
                retryable=True,
                path=str(folder),
            )
    own = None if role is Role.REMOTE else lambda lock: own_log(folder, clock, lock)
    log = RemoteLog(folder, clock=clock, own=own)
    try:
        log.reach()
    except BaseException:
        log.close()
        raise
    return log


def own_log(folder: Path, clock: Clock, lock: OwnerLock) -> SqliteLog:
    """The owner's log, served to other processes until it is closed. lock: taken; released by the log's `close`."""
    served: list[Server] = []

    def leave() -> None:
        for server in served:
            server.close()
        lock.release()

    log = SqliteLog(folder, clock=clock, on_close=leave)
    try:
        served.append(Server(log, folder))
    except BaseException:
        log.close()
        raise
    return log
