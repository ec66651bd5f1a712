"""The log for a process that does not own it: reads the file directly, writes through the owner's socket.

When the owner goes, the first to notice that may own becomes the owner; the others find it at the same socket. A call
that was sent and not answered has an unknown outcome and says so (HR-0311); one that could not be sent is sent again.
Touches: the file, the socket, the lock.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import apsw
import pyarrow as pa

from headrace.core.errors import HeadraceError, LogError, NotOwnerError
from headrace.core.points import Cut, Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.log import wire
from headrace.log.codec import topic_to_json
from headrace.log.define import Payload, Topic
from headrace.log.owner import OwnerLock, connect, owner_pid, receive, send
from headrace.log.port import Append, Appended, Capabilities, Log, PartitionState, TopicState
from headrace.log.sqlite import SqliteLog
from headrace.log.sqlite_catalog import existing
from headrace.log.sqlite_file import FILE_NAME, read_only, translated, unknown_outcome
from headrace.log.sqlite_read import Catalog, Reader, below, find, group_cut, load_catalog, refresh
from headrace.log.wire import Call, Reply

OWNER_WAIT_S = 10.0  # how long a call looks for an owner, or the chance to be it, before HR-0308
RETRY_S = 0.02
POLL_S_MIN, POLL_S_MAX = 0.0005, 0.004  # of the file's change counter, some 3 us each, while a `wait` lasts
Answer = TypeVar("Answer")


class RemoteLog(Log):
    """The log's port from a process beside the owner's."""

    capabilities = Capabilities(name="sqlite", multi_process_write=True, transactions=True, durable=True)

    def __init__(
        self, folder: Path, *, clock: Clock, own: Callable[[OwnerLock], SqliteLog] | None, writable: bool = True
    ) -> None:
        """own: makes the owner's log once the lock is taken; None for a process that never owns. writable: False
        refuses every call that writes."""
        self.folder = folder
        self.file = folder / FILE_NAME
        self._own = own
        self._writable = writable
        self._reader = Reader(self.file, clock=clock)
        self._mutex = threading.Lock()
        self._owned: SqliteLog | None = None
        self._idle: list[socket.socket] = []
        self._catalog: tuple[int, Catalog] = (-1, {})
        self._closed = False

    # --- reading: from the file ---

    def topics(self, *, fresh: bool = True) -> tuple[TopicState, ...]:
        if self._owned is not None:
            return self._owned.topics(fresh=fresh)
        with translated(self.file), self._reader.pool.lease() as connection:
            catalog = self._load(connection)
            for topic in catalog.values():
                for record in topic.partitions.values():
                    refresh(connection, record)
            return tuple(catalog[name].state() for name in sorted(catalog))

    def read(
        self, partition: Partition, offset: int, *, end: int | None = None, rows_max: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        if self._owned is not None:
            return self._owned.read(partition, offset, end=end, rows_max=rows_max)
        with translated(self.file), self._reader.pool.lease() as connection:
            topic, record = find(self._load(connection), partition)
            refresh(connection, record)
            stable = record.end if record.listed else 0
        return self._reader.read(topic, record, offset, end=below(stable, end), rows_max=rows_max)

    def group(self, name: str) -> Cut:
        with translated(self.file), self._reader.pool.lease() as connection:
            return group_cut(connection, name)

    def wait(self, cut: Cut, *, timeout: Duration) -> bool:
        deadline = time.monotonic() + timeout.micros / 1e6
        topics = cut.topics()
        known: set[Partition] | None = None
        seen, pause = -1, POLL_S_MIN
        with translated(self.file), self._reader.pool.lease(snapshot=False) as connection:
            while not self._closed:
                changes = connection.pragma("data_version")
                if changes != seen:
                    seen, pause = changes, POLL_S_MIN
                    listed = self._listed(connection, topics)
                    known = set(listed) if known is None else known
                    if any(listed.get(partition, 0) > offset for partition, offset in cut) or listed.keys() - known:
                        return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                time.sleep(min(left, pause))
                pause = min(2 * pause, POLL_S_MAX)
        raise LogError("HR-0316", "the log is closed")

    # --- writing: through the owner, or as the owner ---

    def declare(self, topic: Topic) -> TopicState:
        call = Call("declare", texts=[topic_to_json(topic)])
        self._do(lambda log: log.declare(topic) and None, lambda channel: _ask(channel, call))
        return next(state for state in self.topics() if state.topic.name == topic.name)

    def drop(self, topic: str) -> None:
        call = Call("drop", texts=[topic])
        self._do(lambda log: log.drop(topic), lambda channel: _ask(channel, call))

    def append(
        self,
        appends: Sequence[Append],
        *,
        group: str | None = None,
        cut: Cut | None = None,
        atomic: bool = True,
        patience: Duration | None = None,
    ) -> tuple[Appended, ...]:
        if self._owned is not None:
            return self._owned.append(appends, group=group, cut=cut)
        head, body = wire.append_call(appends, group, cut)
        return self._do(
            lambda log: log.append(appends, group=group, cut=cut), lambda channel: _exchange(channel, head, body)[1]
        )

    def import_partitions(
        self, topic: str, import_id: str, *, seal: bool = False, form: Payload = Payload.ARROW
    ) -> tuple[PartitionState, ...]:
        call = Call("import", texts=[topic, import_id], flag=seal)

        def ask(channel: socket.socket) -> tuple[PartitionState, ...]:
            index = _ask(channel, call).index
            with translated(self.file), self._reader.pool.lease() as connection:
                record = existing(self._load(connection), topic).partitions[index]
                refresh(connection, record)
                return (record.state(),)

        return self._do(lambda log: log.import_partitions(topic, import_id, seal=seal, form=form), ask)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            idle, self._idle = self._idle, []
        for channel in idle:
            channel.close()
        self._reader.close()
        if self._owned is not None:
            self._owned.close()

    def restart_clock(self, topic: str) -> Instant:
        """As SqliteLog.restart_clock."""
        call = Call("restart", texts=[topic])
        return self._do(lambda log: log.restart_clock(topic), lambda channel: Instant(_ask(channel, call).index))

    def reach(self) -> None:
        """Find the owner, or become it. Raises: NotOwnerError HR-0308."""
        self._do(lambda log: None, lambda channel: _ask(channel, Call("hello")) and None)

    def _do(self, locally: Callable[[SqliteLog], Answer], remotely: Callable[[socket.socket], Answer]) -> Answer:
        """Whichever way there is. Raises: NotOwnerError HR-0308, LogError HR-0311, and what the call raises."""
        if not self._writable:
            raise read_only(self.file)
        deadline = time.monotonic() + OWNER_WAIT_S
        while True:
            if self._closed:
                raise LogError("HR-0316", "the log is closed")
            if self._owned is not None:
                return locally(self._owned)
            channel = self._channel()
            if channel is not None:
                try:
                    answer = remotely(channel)
                except _NotSentError:
                    channel.close()
                    continue
                except HeadraceError as error:
                    self._keep(channel, error)
                    if error.code != "HR-0316":
                        raise
                except BaseException:
                    channel.close()
                    raise
                else:
                    self._keep(channel, None)
                    return answer
            elif self._promote():
                continue
            if time.monotonic() > deadline:
                raise NotOwnerError(
                    "HR-0308",
                    f"the owner of log {str(self.folder)!r} does not answer",
                    detail=f"process {owner_pid(self.folder)} holds or held it; waited {OWNER_WAIT_S:g} s",
                    hint="see whether that process is stopped; when it ends, this one can go on",
                    retryable=True,
                    path=str(self.folder),
                )
            time.sleep(RETRY_S)

    def _channel(self) -> socket.socket | None:
        """A connection that the owner has not closed, or None where nobody listens."""
        while True:
            with self._mutex:
                channel = self._idle.pop() if self._idle else None
            if channel is None:
                break
            # Readable while nothing was asked: closed. Seen here, a call is not lost to an unknown outcome.
            if not select.select([channel], [], [], 0)[0]:
                return channel
            channel.close()
        try:
            return connect(self.folder)
        except OSError:
            return None

    def _keep(self, channel: socket.socket, error: HeadraceError | None) -> None:
        with self._mutex:
            if not self._closed and (error is None or error.code not in ("HR-0311", "HR-0316")):
                self._idle.append(channel)
                return
        channel.close()

    def _promote(self) -> bool:
        """Become the owner if nobody is."""
        if self._own is None:
            return False
        with self._mutex:
            if self._owned is not None:
                return True
            lock = OwnerLock.take(self.folder)
            if lock is None:
                return False
            try:
                self._owned = self._own(lock)
            except BaseException:
                lock.release()
                raise
            return True

    def _load(self, connection: apsw.Connection) -> Catalog:
        """The definitions, read again only where they changed; ends are as old as their last `refresh`."""
        version = connection.execute("SELECT version FROM catalog").fetchone()[0]
        if self._catalog[0] != version:
            self._catalog = (version, load_catalog(connection))
        return self._catalog[1]

    def _listed(self, connection: apsw.Connection, topics: frozenset[str]) -> dict[Partition, int]:
        listed = {}
        catalog = self._load(connection)
        for name in topics & catalog.keys():
            for record in catalog[name].partitions.values():
                if record.listed:
                    refresh(connection, record)
                    listed[record.partition] = record.end
        return listed


class _NotSentError(Exception):
    """The call did not reach the owner whole, so it was not done."""


def _ask(channel: socket.socket, call: Call) -> Reply:
    return _exchange(channel, wire.encode_call(call), ())[0]


def _exchange(
    channel: socket.socket, head: bytes, body: Sequence[bytes | pa.Buffer]
) -> tuple[Reply, tuple[Appended, ...]]:
    """Send, then wait for the answer. Raises: what the owner raised, _NotSentError, LogError HR-0311."""
    try:
        send(channel, head, body)
    except OSError as error:
        # sendall fails before its last byte was handed over, so the owner never had a whole frame.
        raise _NotSentError from error
    try:
        answer = receive(channel)
    except (OSError, EOFError) as error:
        raise unknown_outcome("the owner of the log went away", str(error)) from error
    if answer is None:
        raise unknown_outcome("the owner of the log went away", "the connection was closed before an answer")
    return wire.read_reply(*answer)
