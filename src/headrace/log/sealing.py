"""Upkeep beside the writes: small entries sealed into large ones, old rows let go, the WAL moved into the file.

`runs_to_seal` decides, purely; `Upkeep` is the one background thread that has it done. Sealing changes no offset and no
row: it only writes the same rows in the form that reads twenty times as fast. Touches: a thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.core.errors import LogError
from headrace.log.sqlite_entry import ENTRY_ROWS

_logger = logging.getLogger(__name__)

# An entry of at least half the wanted rows, or of so many bytes, stays as it is: rewriting it would gain little. And no
# more bytes are written as one: commits wait for the swap, 1 MiB is some 2 ms, and 1,000 decisions' records.
LARGE_ROWS = ENTRY_ROWS // 2
LARGE_BYTES = 1 << 20
# Upkeep beside others that wait for the interpreter: it rests so many times as long as it worked.
RESTS = 4.0
PAUSE_S = 1.0  # between rounds where nothing woke the thread; retention and idle sealing need no more


@dataclass(frozen=True, slots=True)
class EntrySize:
    """Of one entry: its first offset, its rows, its payload's bytes."""

    offset: int
    count: int
    size: int


def runs_to_seal(entries: Sequence[EntrySize], *, all: bool) -> tuple[list[tuple[int, int]], int]:
    """Which [first offset, next offset) to rewrite as one, and the offset below which nothing is left to do.

    entries: neighbours in order. all: also the run at the end that may still grow.
    """
    runs: list[tuple[int, int]] = []
    first, members, size = entries[0].offset if entries else 0, 0, 0
    for entry in entries:
        end = entry.offset + entry.count
        large = entry.count >= LARGE_ROWS or entry.size >= LARGE_BYTES
        if large or end - first > ENTRY_ROWS or size + entry.size > LARGE_BYTES:
            if members > 1:
                runs.append((first, entry.offset))
            first, members, size = (end, 0, 0) if large else (entry.offset, 1, entry.size)
        else:
            members, size = members + 1, size + entry.size
    if all and members > 1:
        runs.append((first, entries[-1].offset + entries[-1].count))
    return runs, first


class Upkeep:
    """A thread that calls `work` when woken, and each PAUSE_S. A failure is logged and tried again: nothing waits for
    it."""

    def __init__(self, work: Callable[[], None], *, name: str) -> None:
        self._work = work
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failing = False

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Soon, rather than at the next round. Cheap where it is awake already."""
        if not self._wake.is_set():
            self._wake.set()

    def stop(self) -> None:
        """Returns when the thread has ended, after the step that it is in."""
        self._stopping = True
        self._ended.set()
        self._wake.set()
        self._thread.join()

    def rest(self, worked: float) -> None:
        """After some seconds of work that others had to share the interpreter with; shorter where it is to end."""
        self._ended.wait(worked * RESTS)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(PAUSE_S)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self._work()
                self._failing = False
            except LogError as error:
                if self._stopping or error.code == "HR-0316":
                    return  # the log was closed while this round ran
                # Said once, not each second: a full disk stays full for a while.
                if not self._failing:
                    _logger.warning("log upkeep failed, will try again: %s", error, extra={"code": error.code})
                self._failing = True
