"""What lies between a client of the model and the model: each call that leaves the process goes through a wire.

The one idea: a call is a request that may be made again, or later, or never; whoever holds the wire decides that, and
what the caller is told. `Direct` lets every call through at once. Touches nothing.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from headrace.core.errors import FencedError, LogError
from headrace.core.times import Clock, Duration, Instant

T = TypeVar("T")


class Kind(enum.Enum):
    """What a call is, hence what its failure looks like to the caller."""

    READ = "read"  # asks: it fails with HR-0340
    POLL = "poll"  # of a member: HR-0340
    PRODUCE = "produce"  # a batch to one partition: HR-0340 where nothing was taken, else HR-0311
    WRITE = "write"  # a batch within a transaction: HR-0345 whatever became of it
    OFFSETS = "offsets"  # of a group, within a transaction: HR-0345
    COMMIT = "commit"  # HR-0311, HR-0345
    ABORT = "abort"  # HR-0311
    START = "start"  # a sender: HR-0340
    CHANGE = "change"  # of topics: HR-0340


class Wire(Protocol):
    """One client's way to the cluster."""

    def call(self, kind: Kind, name: str, apply: Callable[[], T]) -> T:
        """Make the request: `apply`, which may be called again, later, or never. Returns or raises what it did."""

    def wait(self, until: Instant, ready: Callable[[], bool]) -> None:
        """Until `ready`, at most until then."""

    def most(self, count: int) -> int:
        """How many records a fetch brings, of at most `count`; 0: it brings nothing this time."""


_ONE_AT_A_TIME = threading.RLock()  # what a request does happens at once, in whichever thread


class Direct:
    """Nothing fails, nothing waits: what is not ready now is waited for by whoever calls again."""

    __slots__ = ()

    def call(self, kind: Kind, name: str, apply: Callable[[], T]) -> T:
        with _ONE_AT_A_TIME:
            return apply()

    def wait(self, until: Instant, ready: Callable[[], bool]) -> None:
        return None

    def most(self, count: int) -> int:
        return count


def deadline(clock: Clock, timeout: Duration) -> Instant:
    return Instant(clock.now() + timeout.micros)


def unknown(what: str) -> LogError:
    return LogError(
        "HR-0311",
        f"{what}: whether the cluster took it is not known",
        detail="no answer came in time",
        hint="read before it is sent again",
        retryable=True,
    )


def unreachable(what: str) -> LogError:
    return LogError(
        "HR-0340",
        "no broker of the model answers",
        detail=what,
        hint="is the cluster up? headrace dev kafka status",
        retryable=True,
    )


def given_up(what: str) -> LogError:
    return LogError("HR-0345", "a transaction must be given up", detail=what, retryable=True)


def fenced(what: str) -> FencedError:
    return FencedError("HR-0344", f"{what}: another process took over", hint="it begins anew by itself")
