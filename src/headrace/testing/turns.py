"""Actors that take turns: synchronous code of many processes, one step at a time, in an order that one seed draws.

The one idea: each actor is a thread, and exactly one of them runs: it holds the baton, and gives it away only where it
calls `turn` or `wait`. Who goes on is drawn, and so is how far the clock moves; no thread ever runs beside another and
no real time passes, so a seed makes one trace, byte for byte. Whoever gives the baton away draws the next one himself:
a turn in which the same actor goes on costs no switch of threads.

Touches: threads of its own, which wait and end with the run.
"""

from __future__ import annotations

import functools
import heapq
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from headrace.core.times import Duration, Instant

STAY = 0.4  # the share of turns in which the same actor goes on without a draw: calls come in runs
THREADS_MAX = 256  # actors that live at a time
# How long a turn takes, in microseconds: mostly a call on a near machine, now and then a slow one. Mean some 20 ms, so
# that a session of seconds is some hundred turns.
PACES = (200, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 90_000)
START = Instant(1_767_225_600_000_000)


class EndedError(BaseException):
    """This actor's process has ended: nothing of it goes on. No error that a program handles, as SIGKILL is none."""


@dataclass(slots=True, eq=False)
class Actor:
    """One process. ended: it was killed, or is done. until: it is not asked before this instant, but for `ready`."""

    name: str
    baton: threading.Lock
    killed: bool = False
    ended: bool = False
    until: int = 0
    ready: Callable[[], bool] | None = None
    stopped: bool = False
    done: Future[None] | None = None


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Of all runs of this process: a thread that ended an actor is the next one's."""
    return ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="turns")


class TurnsClock:
    """The instant of the run, off by `skew` microseconds: no two processes' clocks agree."""

    __slots__ = ("_turns", "skew")

    def __init__(self, turns: Turns, skew: int = 0) -> None:
        self._turns, self.skew = turns, skew

    def now(self) -> Instant:
        return Instant(self._turns.now + self.skew)


class Turns:
    """One run. random: the only source of all that is drawn. trace: a line a turn, if kept."""

    def __init__(self, draw: random.Random, *, keep: bool = False) -> None:
        self.random = draw
        self.now: int = START
        self.steps = 0
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.keep = keep
        self.lines: list[tuple[int, str, str]] = []
        self._main = _taken()
        self._all: list[Actor] = []
        self._numbered = 0
        self._coming: list[tuple[int, int, Callable[[], None]]] = []
        self._enough: Callable[[], bool] = lambda: False
        self._over = False

    @property
    def trace(self) -> str:
        return "\n".join(f"{at - START} {name} {what}" for at, name, what in self.lines)

    def clock(self, skew: int = 0) -> TurnsClock:
        return TurnsClock(self, skew)

    def note(self, what: str) -> None:
        """A line of the trace, of the actor that runs."""
        if self.keep:
            self.lines.append((self.now, "-" if self.current is None else self.current.name, what))

    def actor(self, name: str, body: Callable[[], None]) -> Actor:
        """A new process: it begins when it is first drawn."""
        made = Actor(name, _taken())
        self.actors.append(made)
        self._all.append(made)
        made.done = _threads().submit(self._live, made, body)
        return made

    def run(self, enough: Callable[[], bool]) -> None:
        """Until `enough`, asked at each turn, or nobody is left; then all that still live are ended.

        Raises what an actor raised that nobody handled."""
        self._enough = enough
        first = self._next()
        if first is not None:
            self._hand(first)
            self._main.acquire()
        self._over = True
        for actor in tuple(self.actors):
            actor.killed = True
            self.current = actor
            actor.baton.release()
            assert actor.done is not None
            actor.done.exception()
        for actor in self._all:
            error = None if actor.done is None else actor.done.exception()
            if error is not None and not isinstance(error, EndedError):
                raise error

    def turn(self, what: str = "") -> None:
        """The running actor gives the baton away, and gets it back when it is drawn. Raises: EndedError."""
        actor = self.current
        assert actor is not None, "only an actor has turns"
        if actor.killed:
            raise EndedError
        if self.keep:
            self.lines.append((self.now, actor.name, what))
        draw = self.random.random()
        self.steps += 1
        self.now += PACES[int(draw * 1e6) & 7]
        if draw < STAY and not actor.stopped and not self._enough():
            return
        self._give(actor)

    def wait(self, until: int, ready: Callable[[], bool] | None = None) -> None:
        """The running actor does nothing until then, or until `ready`, which is asked at others' turns."""
        actor = self.current
        assert actor is not None, "only an actor waits"
        if actor.killed:
            raise EndedError
        actor.until, actor.ready = until, ready
        self.steps += 1
        self._give(actor)
        actor.until, actor.ready = 0, None

    def later(self, at: int, act: Callable[[], None]) -> None:
        """What happens by itself, at a turn from this instant on."""
        self._numbered += 1
        heapq.heappush(self._coming, (at, self._numbered, act))

    def stop(self, actor: Actor, length: Duration) -> None:
        """As SIGSTOP: it is not asked for so long, then it goes on as if nothing had been."""
        actor.stopped = True
        actor.until = self.now + length.micros

    def kill(self, actor: Actor) -> None:
        """As SIGKILL: the call that it waits in never returns."""
        actor.killed = True
        actor.until, actor.ready, actor.stopped = 0, None, False

    # --- the baton ---

    def _give(self, actor: Actor) -> None:
        chosen = self._next()
        if chosen is not actor:
            self._hand(chosen)
            actor.baton.acquire()
        self.current = actor
        if actor.killed:
            raise EndedError

    def _hand(self, chosen: Actor | None) -> None:
        self.current = chosen
        (self._main if chosen is None else chosen.baton).release()

    def _next(self) -> Actor | None:
        """Who goes on; None: the run is over. Where all wait, the clock moves to the first instant waited for."""
        if self._over or self._enough():
            return None
        while True:
            now = self.now
            while self._coming and self._coming[0][0] <= now:
                heapq.heappop(self._coming)[2]()
            able = [actor for actor in self.actors if self._able(actor, now)]
            if able:
                break
            waiting = [actor.until for actor in self.actors]
            if not waiting:
                return None
            if self._coming:
                waiting.append(self._coming[0][0])
            self.now = max(now, min(waiting))
        chosen = able[int(self.random.random() * len(able))]
        chosen.stopped = False
        return chosen

    def _able(self, actor: Actor, now: int) -> bool:
        if actor.until <= now:
            return True
        return not actor.stopped and actor.ready is not None and actor.ready()

    def _live(self, actor: Actor, body: Callable[[], None]) -> None:
        actor.baton.acquire()
        try:
            if not actor.killed:
                body()
        finally:
            actor.ended = True
            self.actors.remove(actor)
            if not self._over:
                self._hand(self._next())


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
