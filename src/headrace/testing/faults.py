"""A disk that forgets, tears and fails, under SQLite; everything it does follows from one seed.

`FaultyDisk` is an apsw VFS over real files, of which it keeps what is durable: the bytes as of each file's last sync,
and the writes since. A power cut keeps a random part of those, in sectors of 512 bytes and in no order, as disks do. A
sync that fails keeps a random part and forgets that the rest was ever unwritten, as Linux does. Touches: one folder.
"""

from __future__ import annotations

import enum
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import apsw

SECTOR_BYTES = 512


class Fault(enum.Enum):
    """What can go wrong at a call. CUT: the power goes: this call and all later ones leave nothing behind for
    certain."""

    CUT = "power cut"
    WRITE = "write fails"
    TORN = "write fails halfway"
    FULL = "no room"
    SYNC = "sync fails"
    READ = "read fails"
    TRUNCATE = "truncate fails"
    OPEN = "open fails"
    SIZE = "size fails"


# Which calls a fault can meet. A power cut meets any of those that would change something.
_MEETS: dict[Fault, frozenset[str]] = {
    Fault.CUT: frozenset({"write", "sync", "truncate", "open"}),
    Fault.WRITE: frozenset({"write"}),
    Fault.TORN: frozenset({"write"}),
    Fault.FULL: frozenset({"write"}),
    Fault.SYNC: frozenset({"sync"}),
    Fault.READ: frozenset({"read"}),
    Fault.TRUNCATE: frozenset({"truncate"}),
    Fault.OPEN: frozenset({"open"}),
    Fault.SIZE: frozenset({"size"}),
}
_CODES = {
    Fault.WRITE: apsw.SQLITE_IOERR_WRITE,
    Fault.TORN: apsw.SQLITE_IOERR_WRITE,
    Fault.SYNC: apsw.SQLITE_IOERR_FSYNC,
    Fault.READ: apsw.SQLITE_IOERR_READ,
    Fault.TRUNCATE: apsw.SQLITE_IOERR_TRUNCATE,
    Fault.SIZE: apsw.SQLITE_IOERR_FSTAT,
}


@dataclass(slots=True)
class _Content:
    """A file: its durable bytes, and what was done since, in order: (offset, bytes), or (size, None) for a truncate.

    named: its name in the folder is durable, which its first sync makes it."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    named: bool = False


@dataclass(slots=True)
class _Armed:
    """A fault that waits. after: how many more calls it lets pass. times: how many calls in a row it meets."""

    fault: Fault
    after: int
    times: int


class FaultyDisk(apsw.VFS):
    """Registered under `name` while it lives; give that name to SQLite as its VFS.

    arm: the next faults. fired: how many of each kind happened. dead: the power is off until `power_on`.
    """

    def __init__(self, name: str, random: random.Random) -> None:
        self.name = name
        self.random = random
        self.dead = False
        self.fired: Counter[Fault] = Counter()
        self.calls = 0
        self._armed: list[_Armed] = []
        self._files: dict[str, _Content] = {}
        super().__init__(name, "unix")

    def arm(self, fault: Fault, *, after: int, times: int = 1) -> None:
        """Let `after` calls that the fault could meet pass, then meet `times` of them."""
        self._armed.append(_Armed(fault, after, times))

    def disarm(self) -> None:
        """What has not happened yet will not."""
        self._armed.clear()

    def power_on(self) -> None:
        """After a cut, with every connection closed: the files as a disk could have kept them. Shared memory is
        gone."""
        for path, content in list(self._files.items()):
            kept = bytearray(content.durable)
            self._survive(kept, content.pending)
            if not content.named and not content.durable and self.random.random() < 0.5:
                Path(path).unlink(missing_ok=True)
                del self._files[path]
                continue
            Path(path).write_bytes(kept)
            content.durable, content.pending = kept, []
            Path(path.removesuffix("-wal") + "-shm").unlink(missing_ok=True)
        self.dead = False

    def excepthook(self, kind: object, error: object, trace: object) -> None:
        """apsw reports what callbacks raise here as well; the caller of SQLite gets it anyway."""

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - apsw calls it by this name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or not flags[0] & (apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL):
            return apsw.VFSFile("unix", name, flags)
        if self.meet("open") is Fault.OPEN:
            raise apsw.CantOpenError("injected")
        if path not in self._files:
            old = Path(path).read_bytes() if Path(path).exists() else b""
            self._files[path] = _Content(bytearray(old), [], bool(old))
        return _FaultyFile(name, flags, self, self._files[path])

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - apsw calls it by this name
        if not self.dead:
            super().xDelete(filename, syncdir)
            self._files.pop(filename, None)

    def meet(self, call: str) -> Fault | None:
        """Count the call; the fault that meets it, if one does."""
        self.calls += 1
        if self.dead or not self._armed:
            return None
        for armed in self._armed:
            if call not in _MEETS[armed.fault]:
                continue
            if armed.after:
                armed.after -= 1
                continue
            armed.times -= 1
            if not armed.times:
                self._armed.remove(armed)
            self.fired[armed.fault] += 1
            if armed.fault is Fault.CUT:
                self.dead = True
            return armed.fault
        return None

    def synced(self, content: _Content, *, failed: bool) -> None:
        """All writes since the last sync are durable; or a random part, and the rest will never be written on its
        own."""
        if failed:
            self._survive(content.durable, content.pending)
        else:
            content.named = True
            for offset, data in content.pending:
                _apply(content.durable, offset, data)
        content.pending.clear()

    def _survive(self, into: bytearray, pending: list[tuple[int, bytes | None]]) -> None:
        """A random part of the writes: by sector, any of them, with a chance that is the same for all of one cut."""
        chance = self.random.choice((0.0, 0.3, 0.7, 0.95, 1.0))
        if self.random.random() < 0.3:  # or in order up to a point, as a disk without a queue
            pending = pending[: self.random.randrange(len(pending) + 1)]
            chance = 1.0
        for offset, data in pending:
            if data is None:
                if self.random.random() < chance:
                    _apply(into, offset, None)
                continue
            for start in range(0, len(data), SECTOR_BYTES):
                if self.random.random() < chance:
                    _apply(into, offset + start, data[start : start + SECTOR_BYTES])


def _apply(into: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if offset < len(into):
            del into[offset:]
        else:
            into.extend(bytes(offset - len(into)))
        return
    if offset > len(into):
        into.extend(bytes(offset - len(into)))
    into[offset : offset + len(data)] = data


class _FaultyFile(apsw.VFSFile):
    """A main file or WAL. What is written is visible at once, as through the page cache; durable is another matter."""

    def __init__(self, name: apsw.URIFilename | str, flags: list[int], disk: FaultyDisk, content: _Content) -> None:
        self._disk = disk
        self._content = content
        super().__init__("unix", name, flags)

    def excepthook(self, kind: object, error: object, trace: object) -> None:
        """See FaultyDisk.excepthook."""

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - apsw calls it by this name
        if self._disk.meet("read") is Fault.READ:
            raise _failed(Fault.READ)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - apsw calls it by this name
        met = self._disk.meet("write")
        if met is None and not self._disk.dead:
            self._content.pending.append((offset, bytes(data)))
        elif met is Fault.FULL:
            raise apsw.FullError("injected")
        elif met is Fault.CUT:
            self._content.pending.append((offset, bytes(data)))
        elif met is Fault.TORN:
            part = bytes(data)[: self._disk.random.randrange(len(data))]
            self._content.pending.append((offset, part))
            super().xWrite(part, offset)
            raise _failed(met)
        elif met is not None:
            raise _failed(met)
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802 - apsw calls it by this name
        met = self._disk.meet("truncate")
        if met is Fault.TRUNCATE:
            raise _failed(met)
        if met is Fault.CUT or not self._disk.dead:
            self._content.pending.append((size, None))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw calls it by this name
        met = self._disk.meet("sync")
        if met is Fault.SYNC:
            self._disk.synced(self._content, failed=True)
            raise _failed(met)
        if not self._disk.dead:
            self._disk.synced(self._content, failed=False)

    def xFileSize(self) -> int:  # noqa: N802 - apsw calls it by this name
        met = self._disk.meet("size")
        if met is not None:
            raise _failed(met)
        return super().xFileSize()


def _failed(fault: Fault) -> apsw.IOError:
    error = apsw.IOError(f"injected: {fault.value}")
    error.extendedresult = _CODES[fault]
    error.result = apsw.SQLITE_IOERR
    return error
