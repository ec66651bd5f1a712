"""A lane a decision: a bounded queue, and one thread that takes all that wait and decides them together.

The one idea: requests that wait together share one commit, so the rate follows the load while each waits for one sync
of the disk; and whoever waits longer than its budget is told the decision's fallback at once, by the loop, without
waiting for the thread. Such an answer is no decision: nothing was appended for it, and the same request sent again is
decided. Touches: one thread, the event loop that it answers to.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from headrace.api.views import CALLER
from headrace.core.errors import HeadraceError, LogError, StateError
from headrace.decisions.define import DEADLINE, UNAVAILABLE
from headrace.decisions.plan import Version
from headrace.decisions.run import Decides, DecisionMade

SWEEP_SECONDS = 0.005  # between two looks for requests whose budget ran out: a tenth of the usual budget
FAILING_SECONDS = 10.0  # how long a batch that could not be computed makes a server not ready

_logger = logging.getLogger(__name__)


class Undecided(enum.Enum):
    """Why there is the fallback and no decision. LATE: the budget ran out in the queue. FAILED: what decides could not
    compute one; the log says why."""

    LATE = DEADLINE
    FAILED = UNAVAILABLE


Outcome = DecisionMade | HeadraceError | Undecided
Request = Mapping[str, object]


class Waiting:
    """A request in its lane. Instants are the process's monotonic clock, in seconds. version: that of its decision.
    appending: how much of the time to `decided` its batch's append took."""

    __slots__ = ("appending", "caller", "decided", "entered", "expires", "future", "request", "taken", "version")

    def __init__(self, request: Request, budget: float, future: asyncio.Future[Outcome], caller: bytes) -> None:
        self.request = request
        self.caller = caller
        self.entered = self.taken = self.decided = time.monotonic()
        self.expires = self.entered + budget
        self.future = future
        self.version: Version | None = None
        self.appending = 0.0


class Lane:
    """Requests of one decision. `submit` is called on the loop; the thread ends with `close`."""

    def __init__(
        self, name: str, decides: Decides, *, loop: asyncio.AbstractEventLoop, waiting_max: int, batch_max: int
    ) -> None:
        self.name = name
        self._decides = decides
        self._loop = loop
        self._waiting_max = waiting_max
        self._batch_max = batch_max
        self._waiting: deque[Waiting] = deque()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # entered by its lock, which costs less
        self._idle = False
        self._closing = False
        self._sweeping = False
        self._failed = -FAILING_SECONDS  # when a batch could not be computed, if no later one could
        self._thread = threading.Thread(target=self._run, name=f"headrace-lane-{name}", daemon=True)
        self._thread.start()

    @property
    def decides(self) -> Decides:
        return self._decides

    @property
    def failing(self) -> bool:
        """The newest batch could not be computed, a moment ago. Only for a while: a server that gets no requests
        because of it would never be well again."""
        return time.monotonic() - self._failed < FAILING_SECONDS

    def waits(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    def switch(self, decides: Decides) -> None:
        """Decide by another version from the next batch on; a batch is decided by one."""
        self._decides = decides

    def submit(self, request: Request, budget: float, caller: bytes = b"") -> Waiting:
        """Queue a request; its future gets the outcome. budget: seconds until the fallback is the answer. caller: the
        credential that it came with, which is shown where others are asked for it.

        Raises: StateError HR-1008 where the queue is full, at once.
        """
        if len(self._waiting) >= self._waiting_max or self._closing:
            raise StateError(
                "HR-1008",
                f"decision {self.name!r}: {'the server stops' if self._closing else 'too many requests wait'}",
                detail="nothing was done for this one",
                hint="send it again after the time that Retry-After says, with the same id",
                retryable=True,
                decision=self.name,
            )
        one = Waiting(request, budget, self._loop.create_future(), caller)
        with self._lock:
            self._waiting.append(one)
            if self._idle:
                self._idle = False
                self._changed.notify()
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return one

    def close(self) -> None:
        """Decide what waits, then end the thread."""
        with self._lock:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    # --- the loop's side ---

    def _sweep(self) -> None:
        now = time.monotonic()
        late: list[Waiting] = []
        with self._lock:
            if self._waiting and min(one.expires for one in self._waiting) <= now:
                late = [one for one in self._waiting if one.expires <= now]
                self._waiting = deque(one for one in self._waiting if one.expires > now)
            self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self._deliver([(one, Undecided.LATE) for one in late])

    def _deliver(self, outcomes: Sequence[tuple[Waiting, Outcome]]) -> None:
        for one, outcome in outcomes:
            if not one.future.done():
                one.future.set_result(outcome)

    # --- the thread's side ---

    def _run(self) -> None:
        while taken := self._take():
            now = time.monotonic()
            outcomes: list[tuple[Waiting, Outcome]] = [(one, Undecided.LATE) for one in taken if one.expires <= now]
            live = [one for one in taken if one.expires > now]
            if live:
                decides = self._decides
                CALLER.set(next((one.caller for one in live if one.caller), b""))
                found = self._decide(decides, [one.request for one in live])
                done = time.monotonic()
                for one in live:
                    one.taken, one.decided, one.version = now, done, decides.version
                    one.appending = decides.appending
                outcomes += zip(live, found, strict=True)
            if not tell(self._loop, self._deliver, outcomes):
                return

    def _take(self) -> list[Waiting]:
        """All that wait, at most a batch; empty where the lane is closed and nothing waits."""
        with self._lock:
            while not self._waiting and not self._closing:
                self._idle = True
                self._changed.wait()
            self._idle = False
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_max))]

    def _decide(self, decides: Decides, requests: Sequence[Request]) -> Sequence[Outcome]:
        """The lane's boundary: whatever happens, each request has an outcome, and the next batch is taken."""
        try:
            found = decides.decide_many(requests)
        except LogError as error:
            _logger.error("decision %s: %s", self.name, error, extra={"code": error.code})
            return [error] * len(requests)
        except Exception:
            self._failed = time.monotonic()
            _logger.exception("decision %s could not be computed", self.name)
            return [Undecided.FAILED] * len(requests)
        failed = any(isinstance(one, StateError) for one in found)
        self._failed = time.monotonic() if failed else -FAILING_SECONDS
        return [self._judged(one) for one in found]

    def _judged(self, one: DecisionMade | HeadraceError) -> Outcome:
        """A state that cannot answer is a failure of ours, and takes the fallback; another error is the caller's, or
        the log's."""
        if isinstance(one, StateError):
            _logger.error("decision %s: %s", self.name, one, extra={"code": one.code})
            return Undecided.FAILED
        return one


def tell(
    loop: asyncio.AbstractEventLoop,
    deliver: Callable[[Sequence[tuple[Waiting, Outcome]]], None],
    outcomes: Sequence[tuple[Waiting, Outcome]],
) -> bool:
    """One wake-up of the loop for all of them; False where the loop is gone, and nobody waits any more."""
    try:
        loop.call_soon_threadsafe(deliver, outcomes)
    except RuntimeError:
        return False
    return True
