"""A lock that nobody starves at. Pure, but for threads.

The one idea: whoever waits stands in a queue of one, and who had the lock last has to stand there again.
"""

from __future__ import annotations

import threading


class FairLock:
    """A lock that its holder may take again, and whose waiters come before whoever had it last: a thread that fetches
    until something comes lets the others fetch in between."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue = threading.Lock()
        self._holder: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._holder == me:
            self._lock.acquire()
        else:
            with self._queue:
                self._lock.acquire()
            self._holder = me
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._holder = None
        self._lock.release()
