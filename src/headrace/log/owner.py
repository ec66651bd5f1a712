"""Who owns the log's file, and how others write through it.

The lock is the kernel's (flock): it falls when the process does, however it ends. The owner listens on a Unix socket
beside the file that only its own user may open; each connection has a thread, so that appends of many processes meet in
one group commit. Touches: the lock file, the socket, threads.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pyarrow as pa

from headrace.core.errors import HeadraceError, LogError, LogReadOnlyError
from headrace.log import wire
from headrace.log.codec import topic_from_json
from headrace.log.sqlite import SqliteLog
from headrace.log.wire import FRAME, Call, Reply

LOCK_NAME = "log.lock"
SOCKET_NAME = "log.sock"
# sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
SOCKET_PATH_BYTES_MAX = 100
CONNECTIONS_MAX = 256  # threads; a process uses as many as it has threads that append at once

_logger = logging.getLogger(__name__)


class OwnerLock:
    """Held from `take` until `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        # A forked child must not keep the lock alive beyond its parent.
        held = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _release(held))

    @classmethod
    def take(cls, folder: Path) -> OwnerLock | None:
        """None where another process, or another log object of this one, holds it. Raises: LogReadOnlyError HR-0307."""
        try:
            descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (PermissionError, OSError) as error:
            raise LogReadOnlyError(
                "HR-0307",
                f"log {str(folder)!r} cannot be owned",
                detail=str(error),
                hint=f"check `ls -ld {folder}`, or open the log with role 'reader'",
                path=str(folder),
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _release(held: weakref.ref[OwnerLock]) -> None:
    lock = held()
    if lock is not None:
        lock.release()


def owner_pid(folder: Path) -> int | None:
    """The process that owns the log now, or did last; for messages."""
    try:
        return int((folder / LOCK_NAME).read_text().strip() or 0) or None
    except (OSError, ValueError):
        return None


class Server:
    """Serves a log to other processes until `close`."""

    def __init__(self, log: SqliteLog, folder: Path) -> None:
        self._log = log
        self._path = folder / SOCKET_NAME
        self._closing = False
        self._mutex = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._listener = _listen(folder)
        self._accepting = threading.Thread(target=self._accept, name="headrace-log-accept", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Returns when no call is under way."""
        self._closing = True
        with suppress(OSError):
            self._path.unlink()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        with self._mutex:
            threads = list(self._threads)
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RD)  # a reply under way may still leave
        for thread in threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._mutex:
                if self._closing or len(self._open) >= CONNECTIONS_MAX:
                    connection.close()
                    continue
                thread = threading.Thread(
                    target=self._serve, args=(connection,), name="headrace-log-serve", daemon=True
                )
                self._open.add(connection)
                self._threads.add(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while not self._closing:
                frame = receive(connection)
                if frame is None:
                    return
                head, body = self._answer(*frame)
                send(connection, head, body)
        except (OSError, EOFError):
            pass  # the other side left; what it asked for is done or not, and it reads to know which
        finally:
            connection.close()
            with self._mutex:
                self._open.discard(connection)
                self._threads.discard(threading.current_thread())

    def _answer(self, head: bytes, body: pa.Buffer) -> tuple[bytes, Sequence[bytes]]:
        try:
            call = wire.read_call(head)
            return self._do(call, body)
        except HeadraceError as error:
            return wire.encode_reply(Reply(fault=wire.fault_of(error))), ()
        except (msgspec.MsgspecError, pa.ArrowException, ValueError, TypeError) as error:
            _logger.warning("a call that cannot be read: %s", error)
            fault = wire.fault_of(LogError("HR-0318", "the owner cannot read this call", detail=str(error)))
            return wire.encode_reply(Reply(fault=fault)), ()

    def _do(self, call: Call, body: pa.Buffer) -> tuple[bytes, Sequence[bytes]]:
        index = 0
        match call.verb, call.texts:
            case "append", _:
                appended = self._log.append(wire.appends_of(call, body), group=call.group, cut=wire.cut_of(call))
                return wire.append_reply(appended)
            case "declare", [text]:
                self._log.declare(topic_from_json(text))
            case "drop", [topic]:
                self._log.drop(topic)
            case "import", [topic, import_id]:
                index = self._log.import_partitions(topic, import_id, seal=call.flag)[0].partition.index
            case "restart", [topic]:
                index = self._log.restart_clock(topic)
            case "hello", _:
                pass
            case _:
                raise LogError(
                    "HR-0318", f"the owner knows no call {call.verb!r}", hint="use one version of headrace for both"
                )
        return wire.encode_reply(Reply(index=index)), ()


def receive(connection: socket.socket) -> tuple[bytes, pa.Buffer] | None:
    """One frame, or None where the other side closed before one. Raises: EOFError within a frame, OSError."""
    start = _receive_exactly(connection, memoryview(bytearray(FRAME.size)), closing=True)
    if start is None:
        return None
    head_size, body_size = FRAME.unpack(start)
    if head_size > wire.HEAD_BYTES_MAX or body_size > wire.BODY_BYTES_MAX:
        raise EOFError(f"a frame of {head_size} and {body_size} bytes")
    head = _receive_exactly(connection, memoryview(bytearray(head_size)))
    body = pa.allocate_buffer(body_size)
    if body_size:
        _receive_exactly(connection, memoryview(body))
    return bytes(head or b""), body


def _receive_exactly(connection: socket.socket, into: memoryview, *, closing: bool = False) -> memoryview | None:
    at = 0
    while at < len(into):
        got = connection.recv_into(into[at:])
        if not got:
            if closing and not at:
                return None
            raise EOFError("closed within a frame")
        at += got
    return into


def send(connection: socket.socket, head: bytes, body: Sequence[bytes | pa.Buffer]) -> None:
    """One frame. Raises: OSError."""
    size = sum(len(each) for each in body)
    connection.sendall(FRAME.pack(len(head), size) + head)
    for each in body:
        if len(each):
            connection.sendall(memoryview(each))


def connect(folder: Path) -> socket.socket:
    """A connection to the owner. Raises: OSError where there is none."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(folder) as short:
            made.connect(str(short / SOCKET_NAME))
    except OSError:
        made.close()
        raise
    return made


def _listen(folder: Path) -> socket.socket:
    """Bound in a folder that only we may enter, then moved into place: never open to others, not for a moment."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    private = Path(tempfile.mkdtemp(prefix=".s", dir=folder))
    try:
        with _short(private) as short:
            listener.bind(str(short / "s"))
        (private / "s").chmod(0o600)
        listener.listen(128)
        (private / "s").replace(folder / SOCKET_NAME)
    except BaseException:
        listener.close()
        raise
    finally:
        with suppress(OSError):
            (private / "s").unlink()
        with suppress(OSError):
            private.rmdir()
    return listener


@contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """A way to the folder that fits into a socket's address: itself, or a symbolic link while it is needed."""
    if len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="hr") as near:
        link = Path(near) / "l"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link
