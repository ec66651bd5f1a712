"""A desk: a few threads behind a short queue, for what is no decision. Touches: threads.

The one idea: what may wait must not stand in the way of what may not. Reads and appends have fewer threads and shorter
queues than decisions, and are refused first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headrace.core.errors import StateError

T = TypeVar("T")


class Desk:
    """Called on the loop. waiting_max: calls beyond those that threads are at."""

    def __init__(self, name: str, *, threads: int, waiting_max: int) -> None:
        self.name = name
        self._limit = threads + waiting_max
        self._held = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"headrace-{name}")

    def waits(self) -> int:
        """Calls that are under way or wait."""
        return self._held

    async def do(self, work: Callable[[], T]) -> T:
        """Raises: StateError HR-1008 where the queue is full, at once; what the work raises."""
        if self._held >= self._limit:
            raise StateError(
                "HR-1008",
                f"too many {self.name} wait",
                detail="nothing was done for this call",
                hint="send it again after the time that Retry-After says",
                retryable=True,
            )
        self._held += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._held -= 1

    def close(self) -> None:
        """Returns when nothing is under way."""
        self._threads.shutdown(wait=True)
