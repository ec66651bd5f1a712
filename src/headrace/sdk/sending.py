"""Sends that are answered later, and who waits for the answers. Touches: an outbox of the cluster, threads' locks.

The one idea: no thread of its own. Whoever waits serves the outbox for all who wait; the others wait for him, or take
over when he has what he wanted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from headrace.clients.kafka.port import Headers, Place
from headrace.core.errors import HeadraceError, LogError
from headrace.core.times import ZERO, Duration
from headrace.sdk.define import Placed
from headrace.sdk.port import Outbox

SLICE = Duration.parse("50ms")  # of a wait, so that a change of who serves is noticed
SERVE_EVERY = 256  # sends between two looks at the answers: a look costs 1 us


class Receipt:
    """A send's answer, when it is there. From any thread."""

    __slots__ = ("_error", "_offset", "_partition", "_sending")

    def __init__(self, sending: Sending, partition: int) -> None:
        self._sending = sending
        self._partition = partition
        self._offset = -1
        self._error: HeadraceError | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is there. Looks once."""
        if not self.answered:
            self._sending.serve(ZERO)
        return self.answered

    def result(self, timeout: str | Duration = "2m") -> Placed:
        """Where the event is, acknowledged by all in-sync replicas.

        Raises: LogError HR-0311 (not known whether it is there), HR-0431 (no answer in time), and what else its sending
        ended with: then it is not there.
        """
        self._sending.wait(lambda: self.answered, Duration.parse(timeout), "an acknowledgement")
        if self._error is not None:
            raise self._error
        return Placed(self._partition, self._offset)

    @property
    def answered(self) -> bool:
        return self._offset >= 0 or self._error is not None

    def answer(self, offset: int, error: HeadraceError | None) -> None:
        """Called by the outbox."""
        self._error = error
        self._offset = offset
        self._sending.answered(error)


class Sending:
    """Records on their way through one outbox. From any thread."""

    def __init__(self, outbox: Outbox, *, patience: Duration) -> None:
        """patience: how long a send waits for room."""
        self._outbox = outbox
        self._patience = patience
        self._serving = threading.Lock()
        self._progress = threading.Condition()
        self._count = threading.Lock()
        self._posted = self._answered = 0
        self._failed: HeadraceError | None = None

    @property
    def waiting(self) -> int:
        """Sends without answer."""
        return self._posted - self._answered

    def send(self, place: Place, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Receipt:
        """Raises: LogError HR-0431 (no room in time), HR-0343."""
        receipt = Receipt(self, place.partition)
        with self._count:
            self._posted += 1
        try:
            while not self._outbox.post(place, key, value, headers, receipt.answer):
                before = self._answered
                self.wait(lambda: self._answered > before, self._patience, "room in the buffer")  # noqa: B023 - called at once
        except BaseException:
            with self._count:
                self._posted -= 1
            raise
        if self._posted % SERVE_EVERY == 0:
            self._outbox.serve(ZERO)
        return receipt

    def try_send(self, place: Place, key: bytes, value: bytes, headers: Headers, receipt: Receipt) -> bool:
        """False where there is no room now."""
        with self._count:
            self._posted += 1
        taken = False
        try:
            taken = self._outbox.post(place, key, value, headers, receipt.answer)
        finally:
            if not taken:
                with self._count:
                    self._posted -= 1
        return taken

    def flush(self, timeout: Duration) -> None:
        """Until all sends are answered. Raises: LogError HR-0431; the first error of a send since the last flush."""
        self.wait(lambda: self.waiting == 0, timeout, f"{self.waiting:,} acknowledgements")
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def forget(self) -> None:
        """Errors so far are known: of an aborted transaction."""
        self._failed = None

    def answered(self, error: HeadraceError | None) -> None:
        with self._count:
            self._answered += 1
            if error is not None and self._failed is None:
                self._failed = error

    def serve(self, timeout: Duration) -> None:
        """Take answers in, or wait for who does."""
        if self._serving.acquire(blocking=False):
            try:
                self._outbox.serve(timeout)
            finally:
                self._serving.release()
            with self._progress:
                self._progress.notify_all()
        elif timeout.micros:
            with self._progress:
                self._progress.wait(timeout.micros / 1e6)

    def wait(self, ended: Callable[[], bool], timeout: Duration, what: str) -> None:
        deadline = time.monotonic() + timeout.micros / 1e6
        while not ended():
            left = deadline - time.monotonic()
            if left <= 0:
                raise LogError(
                    "HR-0431",
                    f"no {what} within {timeout}",
                    detail=f"{self.waiting:,} sends are without answer",
                    hint="is the cluster up? headrace dev kafka status",
                    retryable=True,
                )
            self.serve(Duration(min(SLICE.micros, max(1_000, int(left * 1e6)))))
