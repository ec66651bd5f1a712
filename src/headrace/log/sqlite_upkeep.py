"""What upkeep does to the file: rewrite runs of small entries, let old rows go, give dropped rooms back, move the WAL.

Reading and encoding happen beside the writer; only the swap itself takes a turn. Touches: the file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from headrace.core.times import Clock
from headrace.log import define
from headrace.log.sealing import EntrySize, runs_to_seal
from headrace.log.sqlite_append import Entry, reencoded
from headrace.log.sqlite_catalog import changed, transaction
from headrace.log.sqlite_entry import ENTRY_ROWS
from headrace.log.sqlite_file import OFFSET_BITS, connect_checkpointer, key, translated
from headrace.log.sqlite_read import PartitionRecord, Reader, TopicRecord

# A checkpoint costs two syncs whatever it moves; at 4 MiB that is one in about a thousand single commits, so it never
# shows in their 99th percentile, and the WAL stays in a few extents that are overwritten in place.
CHECKPOINT_PAGES = 1_000
PURGE_ENTRIES = 256  # deleted in one turn; at 1 MB an entry that is 60,000 pages put on the free list, some 10 ms
_OFFSET_MASK = (1 << OFFSET_BITS) - 1

PART_ROWS = 512  # decoded at once where a run is rewritten: some 5 ms, in which others have half the interpreter

Run = tuple[TopicRecord, PartitionRecord, int, int]
Rest = Callable[[float], None]


class Housekeeper:
    """Finds and does. Methods that take a `writer` belong in the writer's turn; the others run beside it."""

    def __init__(self, file: Path, *, reader: Reader, clock: Clock, vfs: str | None) -> None:
        self.file = file
        self._reader = reader
        self._clock = clock
        self._vfs = vfs
        self._settled: dict[int, int] = {}  # by partition number: the offset below which nothing is left to seal
        self._checkpointing = threading.Lock()
        self._checkpointer: apsw.Connection | None = None

    def close(self) -> None:
        with self._checkpointing:
            if self._checkpointer is not None:
                self._checkpointer.close()
                self._checkpointer = None

    # --- beside the writer ---

    def runs(self, topic: TopicRecord, record: PartitionRecord, *, all: bool) -> list[Run]:
        """What of this partition to seal now; empty, at the cost of a comparison, where too little came since."""
        settled = max(self._settled.get(record.number, 0), record.start)
        if record.end - settled < (2 if all else ENTRY_ROWS):
            return []
        with translated(self.file), self._reader.pool.lease() as connection:
            rows = connection.execute(
                "SELECT key, count, length(payload) FROM entries WHERE key >= ? AND key < ? ORDER BY key",
                (key(record.number, settled), key(record.number, record.end)),
            ).fetchall()
        sizes = [EntrySize(at & _OFFSET_MASK, count, size) for at, count, size in rows]
        found, self._settled[record.number] = runs_to_seal(sizes, all=all)
        return [(topic, record, first, end) for first, end in found]

    def encode(self, run: Run, rest: Rest) -> list[Entry]:
        """The run's rows as large entries at the offsets they have. Checks every checksum on the way. rest: told after
        each part how many seconds it took."""
        topic, record, first, end = run
        batches = []
        began = time.monotonic()
        for batch in self._reader.read(topic, record, first, end=end, rows_max=PART_ROWS, halting=False):
            batches.append(batch)
            rest(time.monotonic() - began)
            began = time.monotonic()
        return reencoded(topic, record, batches)

    def first_since(self, record: PartitionRecord, instant: int) -> int:
        """The offset of the first entry whose last row is not older than `instant`; the partition's end if none."""
        with translated(self.file), self._reader.pool.lease() as connection:
            row = connection.execute(
                "SELECT key FROM entries WHERE key >= ? AND key < ? AND available_at >= ? ORDER BY key LIMIT 1",
                (key(record.number, 0), key(record.number + 1, 0), instant),
            ).fetchone()
        return record.end if row is None else row[0] & _OFFSET_MASK

    def checkpoint(self) -> None:
        """Move what the WAL holds into the file, as far as no reader or writer is in the way; where one runs,
        nothing."""
        if not self._checkpointing.acquire(blocking=False):
            return
        try:
            with translated(self.file):
                if self._checkpointer is None:
                    self._checkpointer = connect_checkpointer(self.file, vfs=self._vfs)
                try:
                    self._checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                except apsw.BusyError:
                    return
        finally:
            self._checkpointing.release()

    # --- in the writer's turn ---

    def swap(self, writer: apsw.Connection, run: Run, entries: list[Entry]) -> None:
        """The large entries for the small ones, unless the rows were dropped or retained away meanwhile."""
        _, record, first, end = run
        low, high = key(record.number, first), key(record.number, end)
        with transaction(writer):
            held = writer.execute("SELECT sum(count) FROM entries WHERE key >= ? AND key < ?", (low, high)).fetchone()[
                0
            ]
            if held != end - first:
                return
            writer.execute("DELETE FROM entries WHERE key >= ? AND key < ?", (low, high))
            for entry in entries:
                writer.execute("INSERT INTO entries VALUES(?, ?, ?, ?, ?, ?)", entry)

    def retain(self, writer: apsw.Connection, topic: TopicRecord, record: PartitionRecord) -> int:
        """The partition's start after letting go what is older than the topic keeps: whole entries, never the last one.

        Live partitions only: an import says when its rows became available, not how long they are wanted."""
        retention = topic.topic.retention
        if retention is None or not record.live or record.end == record.start:
            return record.start
        now = self._clock.now() if topic.topic.clock is define.Clock.WALL else record.available_at
        low, high = key(record.number, 0), key(record.number + 1, 0)
        kept = writer.execute(
            "SELECT key FROM entries WHERE key >= ? AND key < ? AND available_at >= ? ORDER BY key LIMIT 1",
            (low, high, now - retention.micros),
        ).fetchone()
        last = writer.execute("SELECT max(key) FROM entries WHERE key >= ? AND key < ?", (low, high)).fetchone()
        start: int = min(kept[0] if kept is not None else last[0], last[0]) & _OFFSET_MASK
        if start <= record.start:
            return record.start
        with transaction(writer):
            writer.execute("DELETE FROM entries WHERE key >= ? AND key < ?", (low, key(record.number, start)))
            writer.execute("UPDATE partitions SET start = ? WHERE number = ?", (start, record.number))
            changed(writer)
        return start

    def purge(self, writer: apsw.Connection) -> bool:
        """Give back some room of dropped topics; whether there is more to do."""
        row = writer.execute("SELECT number FROM purges ORDER BY number LIMIT 1").fetchone()
        if row is None:
            return False
        low, high = key(row[0], 0), key(row[0] + 1, 0)
        with transaction(writer):
            writer.execute(
                "DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE key >= ? AND key < ? LIMIT ?)",
                (low, high, PURGE_ENTRIES),
            )
            if not writer.execute("SELECT 1 FROM entries WHERE key >= ? AND key < ? LIMIT 1", (low, high)).fetchone():
                writer.execute("DELETE FROM purges WHERE number = ?", (row[0],))
        return True
