"""The log in one SQLite file: the owner's side, the only one that writes.

An uncontended append is one INSERT on the caller's thread: judge, encode, one page to the WAL, one sync. Appends that
come meanwhile share the next one. What the file holds is mirrored in memory (definitions, ends, running maxima, known
ids), and the mirror moves only after the commit; after a commit of unknown outcome it is read anew. Touches: the file,
and one background thread (sealing, retention, checkpoints) unless told not to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import apsw
import pyarrow as pa

from headrace.core.errors import HeadraceError, LogError, LogFullError, UsageError
from headrace.core.points import Cut, Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.log import define, sqlite_catalog
from headrace.log.define import Payload, Topic
from headrace.log.plan import Judge, Judged
from headrace.log.port import Append, Appended, Capabilities, Log, PartitionState, TopicState
from headrace.log.sealing import Upkeep
from headrace.log.sqlite_append import AppendTurn, Asked, Entry, Piece, answers, check, collect
from headrace.log.sqlite_entry import ENTRY_ROWS
from headrace.log.sqlite_file import FILE_NAME, connect_writer, make_folder, translated, unknown_outcome
from headrace.log.sqlite_queue import CommitQueue
from headrace.log.sqlite_read import (
    AHEAD_MAX,
    PartitionRecord,
    Reader,
    TopicRecord,
    ahead,
    below,
    find,
    group_cut,
    load_catalog,
    refresh,
)
from headrace.log.sqlite_upkeep import CHECKPOINT_PAGES, Housekeeper, Rest

WAL_PAGES_MAX = 16_384  # 64 MiB: above it the writer moves the WAL into the file itself, rather than let it grow
STATEMENT_ENTRIES_MAX = 64  # entries in one INSERT; more go in several, inside one transaction

IMPORTS_IDLE_S = 60.0  # how long the ids that only imports need stay in memory after the last one
Done = TypeVar("Done")
Resolved = list[tuple[TopicRecord, PartitionRecord]]


class SqliteLog(Log):
    """The log's port over `<folder>/log.sqlite`; one object owns a file, which `headrace.log.run.open_log` sees to."""

    capabilities = Capabilities(name="sqlite", multi_process_write=True, transactions=True, durable=True)

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        vfs: str | None = None,
        background: bool = True,
        room: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """folder: made if there is none. background: False leaves upkeep to calls of `maintain`.
        room: give a new WAL its length at once, which steadies the time of a commit and costs some 10 ms. on_close:
        called last.

        Raises: LogReadOnlyError, LogFormatError, LogCorruptError, LogFullError."""
        self.folder = folder
        self.file = folder / FILE_NAME
        make_folder(folder)
        self._clock = clock
        self._on_close = on_close
        self._connection = connect_writer(self.file, vfs=vfs, room=room)
        self._connection.set_wal_hook(self._committed)
        self._wal_pages = 0
        self._stale = False
        self._closed = False
        self._judges: dict[int, Judge] = {}
        self._imports_known: dict[int, float] = {}  # by topic number: monotonic second of the last import's append
        self._changed = threading.Condition(threading.Lock())
        self._queue: CommitQueue[Asked, tuple[Appended, ...]] = CommitQueue(
            self._commit, lambda error: unknown_outcome("the committing thread was interrupted", repr(error))
        )
        try:
            with translated(self.file):
                self._catalog = load_catalog(self._connection)
        except BaseException:
            self._connection.close()
            raise
        self._reader = Reader(self.file, clock=clock, vfs=vfs)
        self._housekeeper = Housekeeper(self.file, reader=self._reader, clock=clock, vfs=vfs)
        self._upkeep = Upkeep(self._maintain_quietly, name="headrace-log-upkeep") if background else None
        if self._upkeep is not None:
            self._upkeep.start()

    # --- the port ---

    def topics(self, *, fresh: bool = True) -> tuple[TopicState, ...]:
        with self._changed:
            return tuple(self._catalog[name].state() for name in sorted(self._catalog))

    def declare(self, topic: Topic) -> TopicState:
        def work() -> TopicState:
            self._fresh()
            with self._stale_unless_done(), translated(self.file, writing=True):
                record = sqlite_catalog.declare(self._connection, self._catalog.get(topic.name), topic)
            judge = self._judges.get(record.number)
            if judge is not None:
                judge.declared(topic)
            with self._changed:
                self._catalog = {**self._catalog, topic.name: record}
                self._changed.notify_all()
                return record.state()

        return self._alone(work)

    def drop(self, topic: str) -> None:
        def work() -> None:
            self._fresh()
            record = sqlite_catalog.existing(self._catalog, topic)
            with self._stale_unless_done(), translated(self.file, writing=True):
                sqlite_catalog.drop(self._connection, record)
            self._judges.pop(record.number, None)
            with self._changed:
                self._catalog = {name: kept for name, kept in self._catalog.items() if name != topic}
                self._changed.notify_all()

        self._alone(work)

    def append(
        self,
        appends: Sequence[Append],
        *,
        group: str | None = None,
        cut: Cut | None = None,
        atomic: bool = True,
        patience: Duration | None = None,
    ) -> tuple[Appended, ...]:
        if (group is None) != (cut is None):
            raise UsageError("HR-0314", "append needs both group and cut, or neither")
        return self._queue.call(Asked(appends, group, cut))

    def read(
        self, partition: Partition, offset: int, *, end: int | None = None, rows_max: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        with self._changed:
            topic, record = find(self._catalog, partition)
            stable = record.end if record.listed else 0
        return self._reader.read(topic, record, offset, end=below(stable, end), rows_max=rows_max)

    def wait(self, cut: Cut, *, timeout: Duration) -> bool:
        deadline = time.monotonic() + timeout.micros / 1e6
        topics = cut.topics()
        with self._changed:
            known = self._listed(topics)
            while not self._closed:
                listed = self._listed(topics)
                if any(listed.get(partition, 0) > offset for partition, offset in cut) or listed.keys() - known.keys():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        raise LogError("HR-0316", "the log is closed")

    def group(self, name: str) -> Cut:
        with translated(self.file), self._reader.pool.lease() as connection:
            return group_cut(connection, name)

    def import_partitions(
        self, topic: str, import_id: str, *, seal: bool = False, form: Payload = Payload.ARROW
    ) -> tuple[PartitionState, ...]:
        def work() -> tuple[PartitionState, ...]:
            self._fresh()
            record = sqlite_catalog.existing(self._catalog, topic)
            with self._stale_unless_done(), translated(self.file, writing=True):
                made = sqlite_catalog.import_partition(self._connection, record, import_id, seal=seal)
            with self._changed:
                record.partitions = {**record.partitions, made.partition.index: made}
                made.sealed = made.sealed or seal
                self._changed.notify_all()
                return (made.state(),)

        return self._alone(work)

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        if self._upkeep is not None:
            self._upkeep.stop()
        try:
            self._reader.close()
            self._housekeeper.close()
            # Last, so that it is the one that moves the WAL into the file. A disk that fails now loses nothing: the
            # next open reads the WAL.
            with suppress(apsw.Error):
                self._queue.alone(self._connection.close)
        finally:
            if self._on_close is not None:
                self._on_close()

    # --- beyond the port ---

    def maintain(self) -> None:
        """One round of upkeep now: seal what is due, let old rows go, move the WAL. Raises: LogError of the disk."""
        self._maintain(all=False, rest=_on)

    def seal(self) -> None:
        """Write every run of small entries as large ones, and the WAL into the file; for backups and measurements."""
        self._maintain(all=True, rest=_on)

    def restart_clock(self, topic: str) -> Instant:
        """An operator's word that the append instants so far ran ahead: rows stamped above the clock count as stamped
        now, and the running maximum of each partition starts again from here (SEMANTICS 1.2). Returns that instant."""

        def work() -> Instant:
            self._fresh()
            record = sqlite_catalog.existing(self._catalog, topic)
            now = self._clock.now()
            with self._stale_unless_done(), translated(self.file, writing=True):
                sqlite_catalog.restart_clock(self._connection, record, now)
                self._judges.pop(record.number, None)
                for each in record.partitions.values():
                    if each.live:
                        each.restart_offset, each.restart_at = each.end, now
                        refresh(self._connection, each)
            return now

        return self._alone(work)

    # --- committing: everything below runs in one turn at a time ---

    def _alone(self, work: Callable[[], Done]) -> Done:
        return self._queue.alone(work)

    def _commit(self, turns: list[AppendTurn]) -> None:
        self._fresh()
        ready: list[AppendTurn] = []
        resolved: list[Resolved] = []
        for turn in turns:
            try:
                resolved.append(self._resolve(turn.asked))
                ready.append(turn)
            except HeadraceError as error:
                turn.error = error
        while ready:
            ready, resolved = _beginning(ready, resolved)
            pieces, count = collect(ready, resolved)
            self._commit_group(ready[:count], resolved[:count], pieces)
            ready, resolved = ready[count:], resolved[count:]
        if self._wal_pages >= (WAL_PAGES_MAX if self._upkeep is not None else CHECKPOINT_PAGES):
            self._checkpoint_inline()
        elif self._wal_pages >= CHECKPOINT_PAGES and self._upkeep is not None:
            self._upkeep.wake()

    def _resolve(self, asked: Asked) -> Resolved:
        """Where each append goes; refused here, a call harms no other of its group."""
        found: Resolved = []
        requests: dict[int, bool] = {}
        for append in asked.appends:
            topic, record = find(self._catalog, append.partition)
            check(topic, record, append)
            if requests.setdefault(record.number, append.request) != append.request:
                raise UsageError("HR-0314", f"{record.partition}: one call of append holds requests and other rows")
            if record.live and topic.topic.clock is define.Clock.WALL:
                now = self._clock.now()
                if record.available_at > now + AHEAD_MAX.micros:
                    raise ahead(record.partition, Instant(record.available_at), now)
            found.append((topic, record))
        for partition, _ in asked.cut or ():
            find(self._catalog, partition)
        return found

    def _commit_group(self, turns: Sequence[AppendTurn], resolved: Sequence[Resolved], pieces: list[Piece]) -> None:
        try:
            judged = [self._judge(piece) for piece in pieces]
            entries = [entry for piece, each in zip(pieces, judged, strict=True) for entry in piece.entries(each)]
        except HeadraceError as error:
            if len(turns) == 1:
                turns[0].error = error
                return
            for turn, targets in zip(turns, resolved, strict=True):  # one of them spoils it: each for itself
                self._commit_group([turn], [targets], collect([turn], [targets])[0])
            return
        cuts = [
            (turn.asked.group, find(self._catalog, partition)[1].number, offset)
            for turn in turns
            if turn.asked.cut is not None
            for partition, offset in turn.asked.cut
        ]
        if entries or cuts:
            self._stale = True
            try:
                self._write(entries, cuts)
            except (apsw.Error, OSError) as error:
                # Entered only here: on the way that every commit takes, two context managers cost a tenth of it.
                with self._stale_unless_done(), translated(self.file, writing=True):
                    raise error
            self._stale = False
        placed = []
        with self._changed:
            for piece, each in zip(pieces, judged, strict=True):
                placed.append((piece, each, piece.record.end))
                piece.record.end += piece.count
                piece.record.available_at = int(each.available_at[-1])
            self._changed.notify_all()
        for piece, each in zip(pieces, judged, strict=True):
            self._judges[piece.topic.number].remember(piece.record.partition.index, piece.rows, each)
        for turn, answer in zip(turns, answers(turns, resolved, placed), strict=True):
            turn.answer = answer

    def _write(self, entries: list[Entry], cuts: list[tuple[str | None, int, int]]) -> None:
        if not cuts and len(entries) <= STATEMENT_ENTRIES_MAX:
            # One statement is one transaction, and one time that this thread gives the interpreter's lock away.
            self._connection.execute(_insert(len(entries)), [value for entry in entries for value in entry])
            return
        with sqlite_catalog.transaction(self._connection):
            for first in range(0, len(entries), STATEMENT_ENTRIES_MAX):
                some = entries[first : first + STATEMENT_ENTRIES_MAX]
                self._connection.execute(_insert(len(some)), [value for entry in some for value in entry])
            for cut in cuts:
                self._connection.execute("INSERT OR REPLACE INTO groups VALUES(?, ?, ?)", cut)

    def _judge(self, piece: Piece) -> Judged:
        topic, record = piece.topic, piece.record
        judge = self._judges.get(topic.number)
        if judge is None:
            judge = Judge(topic.topic)
            judge.restore(self._recent(topic))
            self._judges[topic.number] = judge
        if record.live:
            now = self._clock.now() if piece.at is None else piece.at
            return judge.live(record.partition.index, piece.rows, now, request=piece.request)
        if topic.number not in self._imports_known:
            judge.recall(self._everything(topic))
            judge.restore(self._last_rows(topic))
        self._imports_known[topic.number] = time.monotonic()
        assert piece.available_at is not None
        return judge.imported(record.partition.index, piece.rows, piece.available_at)

    def _recent(self, topic: TopicRecord) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Live rows within `dedup` of their partition's running maximum; only the last where there are no ids to
        know."""
        for record in topic.partitions.values():
            if record.live and record.end > record.start:
                first = record.end - 1
                if topic.topic.id is not None:
                    first = self._housekeeper.first_since(record, record.available_at - topic.topic.dedup.micros)
                yield from self._rows(topic, record, first)

    def _everything(self, topic: TopicRecord) -> Iterator[tuple[int, pa.RecordBatch]]:
        for record in topic.partitions.values():
            yield from self._rows(topic, record, record.start)

    def _last_rows(self, topic: TopicRecord) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Of the imports that may still grow: where their available_at goes on."""
        for record in topic.partitions.values():
            if not record.listed and record.end:
                yield from self._rows(topic, record, record.end - 1)

    def _rows(self, topic: TopicRecord, record: PartitionRecord, first: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in self._reader.read(topic, record, first, end=record.end, rows_max=ENTRY_ROWS, halting=False):
            yield record.partition.index, batch

    def _committed(self, connection: apsw.Connection, database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint_inline(self) -> None:
        # What was appended is durable and answered; a disk that fails here is met again by the next round of upkeep.
        with suppress(LogError):
            self._housekeeper.checkpoint()

    @contextmanager
    def _stale_unless_done(self) -> Iterator[None]:
        """The mirror in memory follows only what succeeds; anything else makes the next turn read the file."""
        self._stale = True
        try:
            yield
        except LogFullError:
            # Rolled back for certain: nothing was synced, and the next commit overwrites what was written.
            self._stale = False
            raise
        self._stale = False

    def _fresh(self) -> None:
        if self._closed:
            raise LogError("HR-0316", "the log is closed")
        if not self._stale:
            return
        with translated(self.file):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            catalog = load_catalog(self._connection)
        with self._changed:
            before = {r.number: r.end for topic in self._catalog.values() for r in topic.partitions.values()}
            for topic in catalog.values():
                if any(before.get(record.number) != record.end for record in topic.partitions.values()):
                    self._judges.pop(topic.number, None)
                    self._imports_known.pop(topic.number, None)
            self._catalog = catalog
            self._stale = False
            self._changed.notify_all()

    def _listed(self, topics: frozenset[str]) -> dict[Partition, int]:
        return {
            record.partition: record.end
            for name in topics
            if name in self._catalog
            for record in self._catalog[name].partitions.values()
            if record.listed
        }

    # --- upkeep: on its own thread, with turns where it writes ---

    def _maintain_quietly(self) -> None:
        if not self._closed:
            self._maintain(all=False, rest=self._rest)

    def _rest(self, worked: float) -> None:
        """Between two parts of a round. The WAL does not wait for the round's end."""
        self._checkpoint_from(CHECKPOINT_PAGES)
        assert self._upkeep is not None, "only its thread rests"
        self._upkeep.rest(worked)

    def _maintain(self, *, all: bool, rest: Rest) -> None:
        with self._changed:
            held = [(topic, record) for topic in self._catalog.values() for record in topic.partitions.values()]
        for topic, record in held:
            for run in self._housekeeper.runs(topic, record, all=all):
                if self._closed:
                    return
                entries = self._housekeeper.encode(run, rest)
                began = time.monotonic()
                self._turn(partial(self._housekeeper.swap, self._connection, run, entries))
                rest(time.monotonic() - began)
            if topic.topic.retention is not None:
                self._turn(partial(self._retain, topic, record))
        while not self._closed and self._turn(lambda: self._housekeeper.purge(self._connection)):
            pass
        self._forget_imports()
        self._checkpoint_from(1 if all else CHECKPOINT_PAGES)

    def _checkpoint_from(self, pages: int) -> None:
        """Move the WAL into the file, where it holds so many pages."""
        if self._wal_pages >= pages and not self._closed:
            self._housekeeper.checkpoint()
            # Now but for a few pages: done in a turn, so that the next commit finds all moved and starts the WAL over.
            self._turn(self._housekeeper.checkpoint)

    def _turn(self, work: Callable[[], Done]) -> Done:
        def fresh() -> Done:
            self._fresh()
            with self._stale_unless_done(), translated(self.file):
                return work()

        return self._alone(fresh)

    def _retain(self, topic: TopicRecord, record: PartitionRecord) -> None:
        record.start = self._housekeeper.retain(self._connection, topic, record)

    def _forget_imports(self) -> None:
        """The ids that only imports need, once none has come for a while."""
        idle = [n for n, at in self._imports_known.items() if time.monotonic() - at > IMPORTS_IDLE_S]
        if idle:
            self._turn(lambda: self._release(idle))

    def _release(self, numbers: list[int]) -> None:
        for number in numbers:
            self._imports_known.pop(number, None)
            if number in self._judges:
                self._judges[number].release()


def _on(worked: float) -> None:
    """Upkeep that somebody waits for does not rest."""


def _beginning(turns: list[AppendTurn], resolved: list[Resolved]) -> tuple[list[AppendTurn], list[Resolved]]:
    """Without the calls that an append before them has overtaken; asked before each group, as each moves the ends."""
    for turn, targets in zip(turns, resolved, strict=True):
        for append, (_, record) in zip(turn.asked.appends, targets, strict=True):
            if append.begins is not None and append.begins != record.end:
                turn.error = LogError(
                    "HR-0330",
                    f"{record.partition}: rows that begin at offset {append.begins} came when its end was {record.end}",
                    detail="expected the end: what is appended was computed from all that lies before it",
                    hint="read to the end, compute again, append again",
                    retryable=True,
                    end=record.end,
                )
                break
    if all(turn.error is None for turn in turns):
        return turns, resolved
    kept = [(turn, targets) for turn, targets in zip(turns, resolved, strict=True) if turn.error is None]
    return [turn for turn, _ in kept], [targets for _, targets in kept]


@lru_cache(maxsize=STATEMENT_ENTRIES_MAX)
def _insert(count: int) -> str:
    return "INSERT INTO entries VALUES" + ",".join(["(?,?,?,?,?,?)"] * count)
