"""Where a project's server listens, for who looks after it: a file that lies there as long as it does. Touches:
`.headrace/server.json`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

FILE = "server.json"


class _Said(msgspec.Struct, frozen=True):
    pid: int
    address: str


class Announced:
    """One server's address, from `say` until the end of `announcing`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def say(self, address: str) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # a log elsewhere made none
        made = self._path.with_suffix(f".{os.getpid()}.new")
        made.write_bytes(msgspec.json.encode(_Said(os.getpid(), address)) + b"\n")
        made.replace(self._path)

    def take_back(self) -> None:
        said = _read(self._path)
        if said is not None and said.pid == os.getpid():  # a later server's stays
            self._path.unlink(missing_ok=True)


@contextmanager
def announcing(folder: Path) -> Iterator[Announced]:
    """folder: the project's state folder."""
    announced = Announced(folder)
    try:
        yield announced
    finally:
        announced.take_back()


def announced(folder: Path) -> str | None:
    """The address of the project's server on this machine; None where there is none. What a killed one left over is
    none."""
    said = _read(folder / FILE)
    if said is None:
        return None
    try:
        os.kill(said.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's: it lives
    return said.address


def _read(path: Path) -> _Said | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Said)
    except (OSError, msgspec.MsgspecError):
        return None
