"""A file system in memory that fails, fills up, loses what was not synced, and rots; from one seed.

The one idea: every folder and file has what a process sees and what is durable. A file's bytes become durable when it
is synced, a name when the folder around it is; a power cut keeps a random part of the rest, bytes in sectors of 512 and
names in no order, as disks do. A kill keeps everything that was seen. Touches memory only.
"""

from __future__ import annotations

import enum
import errno
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512


class EndedError(Exception):
    """The process ended at this call."""


class Fault(enum.Enum):
    """What can go wrong at a call."""

    CUT = "power cut"
    KILL = "process killed"
    FAIL = "call fails"
    TORN = "write fails halfway"
    FULL = "no room"
    SYNC = "sync fails"
    READ = "read fails"


class Rot(enum.Enum):
    """What can happen to a file at rest. STALE: it has the bytes of an older file of its name again."""

    FLIP = "flipped bytes"
    SHORT = "truncated"
    LONG = "bytes behind its end"
    ZERO = "a sector of zeros"
    STALE = "older bytes"
    LOST = "the file is gone"


# The calls that a fault can meet, and how many of them pass at most before it does: a checkpoint has that many.
_CHANGES = {"make": 2, "write": 9, "fsync": 9, "sync": 4, "rename": 1, "remove": 6}
_ASKS = {"names": 4, "read": 9}
_MEETS: dict[Fault, dict[str, int]] = {
    Fault.CUT: _CHANGES | _ASKS,
    Fault.KILL: _CHANGES | _ASKS,
    Fault.FAIL: {"make": 2, "write": 9, "rename": 1, "remove": 6},
    Fault.TORN: {"write": 9},
    Fault.FULL: {"write": 9, "make": 2},
    Fault.SYNC: {"fsync": 9, "sync": 4},
    Fault.READ: _ASKS,
}
CALLS = (*_CHANGES, *_ASKS)


@dataclass(slots=True, eq=False)
class File:
    """meant: what the writer wanted in it. seen: what a reader gets. durable: what a power cut leaves for certain."""

    meant: bytes
    seen: bytes = b""
    durable: bytes = b""
    rotten: bool = False


@dataclass(slots=True, eq=False)
class Folder:
    """seen, durable: by name. pending: changes of names since the last sync, in order; None is a name that goes.

    meant: the files it held when it got its last name. stamp: what `FaultyFiles.stamp` was then.
    """

    seen: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[dict[str, File | Folder | None]] = field(default_factory=list)
    meant: dict[str, File] = field(default_factory=dict)
    stamp: object = None
    rotten: bool = False

    def change(self, names: dict[str, File | Folder | None]) -> None:
        _apply(self.seen, names)
        self.pending.append(names)

    @property
    def whole(self) -> bool:
        """It holds what its writer meant, to the byte."""
        return bool(self.meant) and all(
            self.seen.get(name) is file and file.seen == file.meant for name, file in self.meant.items()
        )


@dataclass(slots=True)
class _Armed:
    """A fault that waits for a call. after: how many more it lets pass. times: how many calls in a row it meets."""

    fault: Fault
    call: str
    after: int
    times: int


class FaultyFiles:
    """What `features.checkpoint.Files` asks for, with faults. One root, which is there and durable.

    fired: how many faults of each kind happened. rotted: how many files. ended: by (call, checkpoints that are whole),
    how often the process ended there. stamp: set it to mark the folders that are renamed. last: whose file was read
    last.
    """

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.fired: Counter[Fault] = Counter()
        self.rotted: Counter[Rot] = Counter()
        self.ended: Counter[tuple[str, int]] = Counter()
        self.stamp: object = None
        self.last: Folder | None = None
        self._root = Folder()
        self._armed: list[_Armed] = []

    # --- faults ---

    def arm(self, fault: Fault) -> None:
        """Let it meet one of the next calls that it can meet."""
        call = self.random.choice(sorted(_MEETS[fault]))
        times = self.random.randrange(1, 6) if fault is Fault.FULL else 1
        self._armed.append(_Armed(fault, call, self.random.randrange(_MEETS[fault][call]), times))

    def disarm(self) -> None:
        """What has not happened yet will not."""
        self._armed.clear()

    def cut(self) -> None:
        """The power goes and comes back: of what was not durable a random part is there."""
        chance = self.random.choice((0.0, 0.3, 0.7, 0.95, 1.0))
        in_order = self.random.random() < 0.3
        self._settle(self._root, chance, in_order)

    def rot(self, checkpoints: Path, kinds: Sequence[Rot] = tuple(Rot), spared: tuple[str, ...] = ()) -> Rot | None:
        """Damage one file of one folder there, as seen and as durable. spared: ends of names that are left alone. None
        where nothing was to be damaged."""
        folders = [folder for _, folder in self.numbered(checkpoints) if folder.seen]
        if not folders:
            return None
        folder = self.random.choice(folders)
        files = {n: f for n, f in folder.seen.items() if isinstance(f, File) and not n.endswith(spared)}
        if not files:
            return None
        name = self.random.choice(sorted(files))
        file, kind = files[name], self.random.choice(kinds)
        if kind is Rot.LOST:
            del folder.seen[name]
            folder.durable.pop(name, None)
        else:
            held = (other.seen.get(name) for other in folders)
            file.seen = file.durable = self._rotted(file.seen, kind, [f.seen for f in held if isinstance(f, File)])
        if folder.whole:
            return None  # it was empty, or the older bytes are the same
        folder.rotten = True
        self.rotted[kind] += 1
        return kind

    def numbered(self, checkpoints: Path) -> list[tuple[int, Folder]]:
        """The folders there that are named by a number, ascending."""
        folder = self._find(checkpoints)
        inside = {} if folder is None else folder.seen
        return sorted((int(n), f) for n, f in inside.items() if n.isdigit() and isinstance(f, Folder))

    # --- what a checkpoint asks for ---

    def make(self, folder: Path) -> None:
        at = self._root
        for name in folder.parts:
            if name not in at.seen:
                self._meet("make")
                at.change({name: Folder()})
            at = _folder(at.seen[name], folder)

    def write(self, path: Path, parts: Sequence[bytes | memoryview]) -> None:
        """Written and synced."""
        file = self.write_unsynced(path, parts)
        try:
            self._meet("fsync")
        except OSError:
            # The rest counts as written: no later sync will bring it to the disk.
            file.durable = self._torn(file.seen, self.random.random())
            raise
        file.durable = file.seen

    def write_unsynced(self, path: Path, parts: Sequence[bytes | memoryview]) -> File:
        """Written, as far as a process can see; durable is nothing of it."""
        file = File(b"".join(parts))
        file.seen = file.meant[: self.random.randrange(len(file.meant) + 1)]
        self._around(path).change({path.name: file})
        self._meet("write")
        file.seen = file.meant
        return file

    def sync(self, folder: Path) -> None:
        self._meet("sync")
        held = self._held(folder)
        held.durable = dict(held.seen)
        held.pending.clear()

    def rename(self, source: Path, target: Path) -> None:
        self._meet("rename")
        around = self._around(source)
        moved = _folder(around.seen[source.name], source)
        moved.meant = {name: file for name, file in moved.seen.items() if isinstance(file, File)}
        moved.stamp = self.stamp
        around.change({source.name: None, target.name: moved})

    def remove(self, folder: Path) -> None:
        held = self._held(folder)
        for name in self.random.sample(sorted(held.seen), len(held.seen)):
            self._meet("remove")
            held.change({name: None})
        self._meet("remove")
        self._around(folder).change({folder.name: None})

    def names(self, folder: Path) -> list[str]:
        self._meet("names")
        found = self._find(folder)
        return [] if found is None else sorted(found.seen)

    def read(self, path: Path) -> bytes:
        self._meet("read")
        folder = self._around(path)
        file = folder.seen.get(path.name)
        self.last = folder
        if not isinstance(file, File):
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return file.seen

    # --- inside ---

    def _meet(self, call: str) -> None:
        """Let an armed fault happen. Raises: OSError, or EndedError where the process ends here."""
        for armed in self._armed:
            if armed.call != call:
                continue
            if armed.after:
                armed.after -= 1
                continue
            armed.times -= 1
            if not armed.times:
                self._armed.remove(armed)
            self.fired[armed.fault] += 1
            if armed.fault not in (Fault.CUT, Fault.KILL):
                code = errno.ENOSPC if armed.fault is Fault.FULL else errno.EIO
                raise OSError(code, f"injected: {armed.fault.value}")
            self.ended[call, min(2, sum(folder.whole for folder in self._folders(self._root)))] += 1
            if armed.fault is Fault.CUT:
                self.cut()
            raise EndedError(call)

    def _settle(self, folder: Folder, chance: float, in_order: bool) -> None:
        pending = folder.pending
        if in_order:
            pending = pending[: self.random.randrange(len(pending) + 1)]
        for names in pending:
            if in_order or self.random.random() < chance:
                _apply(folder.durable, names)
        folder.seen, folder.pending = dict(folder.durable), []
        for held in folder.seen.values():
            if isinstance(held, Folder):
                self._settle(held, chance, in_order)
            elif held.durable != held.seen:
                held.seen = held.durable = self._torn(held.seen, chance) if not held.durable else held.durable

    def _torn(self, body: bytes, chance: float) -> bytes:
        """Some sectors, zeros between them, perhaps without the end."""
        kept = bytearray()
        for start in range(0, len(body), SECTOR_BYTES):
            if self.random.random() < chance:
                kept += bytes(start - len(kept)) + body[start : start + SECTOR_BYTES]
        return bytes(kept)

    def _rotted(self, body: bytes, kind: Rot, others: Sequence[bytes]) -> bytes:
        made, at = bytearray(body), self.random.randrange(max(1, len(body)))
        match kind:
            case Rot.FLIP if body:
                made[at] ^= 1 << self.random.randrange(8)
            case Rot.SHORT:
                del made[at:]
            case Rot.LONG:
                made += bytes(self.random.randrange(1, 9))
            case Rot.ZERO:
                start = at - at % SECTOR_BYTES
                made[start : start + SECTOR_BYTES] = bytes(len(made[start : start + SECTOR_BYTES]))
            case Rot.STALE:
                made[:] = self.random.choice(others)
        return bytes(made)

    def _folders(self, folder: Folder) -> Iterator[Folder]:
        yield folder
        for held in folder.seen.values():
            if isinstance(held, Folder):
                yield from self._folders(held)

    def _find(self, folder: Path) -> Folder | None:
        at = self._root
        for name in folder.parts:
            if name not in at.seen:
                return None
            at = _folder(at.seen[name], folder)
        return at

    def _held(self, folder: Path) -> Folder:
        found = self._find(folder)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
        return found

    def _around(self, path: Path) -> Folder:
        return self._held(path.parent)


def _apply(entries: dict[str, File | Folder], names: dict[str, File | Folder | None]) -> None:
    for name, held in names.items():
        if held is None:
            entries.pop(name, None)
        else:
            entries[name] = held


def _folder(held: File | Folder, path: Path) -> Folder:
    if isinstance(held, File):
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))
    return held
