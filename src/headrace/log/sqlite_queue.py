"""Group commit: many callers, one commit. Touches: locks.

Whoever comes first leads: it takes what waits and does it, on its own thread and without a hand-off. Who comes
meanwhile waits, and the leader's end makes the first of them the next leader. An uncontended call costs one lock; n
concurrent calls share one commit. Each caller waits on a lock of its own, so that an end wakes exactly those it
concerns.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Done = TypeVar("Done")

GROUP_MAX = 512  # calls in one commit: bounds how long the first of them waits for the last to be encoded


class Turn(Generic[Asked, Answer]):
    """One call in the queue: what was asked, then its answer or its error."""

    __slots__ = ("answer", "asked", "done", "error", "gate")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.done = False
        self.gate: threading.Lock | None = None


class CommitQueue(Generic[Asked, Answer]):
    """Runs `commit` on groups of calls, never twice at the same time.

    commit: gets the turns of a group in order of arrival and gives each its answer or error; what it raises, every
    turn of the group that has neither gets. interrupted: the error for the others where the leader's thread was
    interrupted (Ctrl-C) in between; only the leader gets the interrupt itself.
    """

    __slots__ = ("_commit", "_interrupted", "_leading", "_mutex", "_waiting")

    def __init__(
        self, commit: Callable[[list[Turn[Asked, Answer]]], None], interrupted: Callable[[BaseException], Exception]
    ) -> None:
        self._commit = commit
        self._interrupted = interrupted
        self._mutex = threading.Lock()
        self._leading = False
        self._waiting: deque[Turn[Asked, Answer]] = deque()

    def call(self, asked: Asked) -> Answer:
        """Do it as one of a group; returns its answer or raises its error."""
        turn: Turn[Asked, Answer] = Turn(asked)
        with self._mutex:
            leads = not self._leading
            if leads:
                self._leading = True
            else:
                turn.gate = threading.Lock()
                turn.gate.acquire()
                self._waiting.append(turn)
        if leads:
            self._lead([turn])
        elif turn.gate is not None:
            turn.gate.acquire()
            if not turn.done:
                self._lead([turn, *self._take()])
        if turn.error is not None:
            raise turn.error
        return turn.answer  # type: ignore[return-value]  # done without error means answered

    def alone(self, work: Callable[[], Done]) -> Done:
        """Run `work` between two groups, on this thread."""
        turn: Turn[Asked, Answer] = Turn(None)  # type: ignore[arg-type]  # never reaches commit
        with self._mutex:
            waits = self._leading
            if waits:
                turn.gate = threading.Lock()
                turn.gate.acquire()
                # Marked by having no asked value: `_take` stops before it.
                self._waiting.append(turn)
            self._leading = True
        if turn.gate is not None:
            turn.gate.acquire()
        try:
            return work()
        finally:
            self._pass_on()

    def _take(self) -> list[Turn[Asked, Answer]]:
        """Those who wait, up to one who wants to be alone."""
        taken: list[Turn[Asked, Answer]] = []
        with self._mutex:
            while self._waiting and self._waiting[0].asked is not None and len(taken) < GROUP_MAX - 1:
                taken.append(self._waiting.popleft())
        return taken

    def _lead(self, group: list[Turn[Asked, Answer]]) -> None:
        try:
            self._commit(group)
        except BaseException as error:
            shared = error if isinstance(error, Exception) else self._interrupted(error)
            for turn in group[1:]:
                if turn.answer is None and turn.error is None:
                    turn.error = shared
            raise
        finally:
            for turn in group:
                turn.done = True
            self._pass_on()
            for turn in group[1:]:
                if turn.gate is not None:
                    turn.gate.release()

    def _pass_on(self) -> None:
        """Make the first who waits the leader: its gate opens while it is not done."""
        with self._mutex:
            if not self._waiting:
                self._leading = False
                return
            first = self._waiting.popleft()
        assert first.gate is not None
        first.gate.release()
