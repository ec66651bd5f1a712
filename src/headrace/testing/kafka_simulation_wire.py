"""The way of one simulated process to the model of Kafka, and what may happen on it. Memory only.

The one idea: a call is where a process can be seen from outside, so everything that can go wrong goes wrong there: the
process ends before it or after it, its request or the answer is lost, the request comes late or twice, the process
sleeps until it is a zombie, a leader or a coordinator moves.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from headrace.clients.kafka.port import Place
from headrace.core.errors import HeadraceError
from headrace.core.times import Duration, Instant
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_wire import Kind, given_up, unknown, unreachable
from headrace.testing.turns import Actor, EndedError, Turns

T = TypeVar("T")

# Of calls that meet a fault: reads are most of all calls, and the least telling.
FAULTS_SHARES: Mapping[Kind, float] = {
    Kind.READ: 0.01,
    Kind.POLL: 0.05,
    Kind.PRODUCE: 0.12,
    Kind.WRITE: 0.1,
    Kind.OFFSETS: 0.15,
    Kind.COMMIT: 0.2,
    Kind.ABORT: 0.5,
    Kind.START: 0.25,
    Kind.CHANGE: 0.3,
}
SLOW_SHARE = 0.08  # of fetches that bring nothing, or only some of what is there
LATE_MAX = 8_000_000  # microseconds that a request may be on its way: beyond a session


class Fault(enum.Enum):
    """CRASH_BEFORE, CRASH_AFTER: the process ends, the request was not or was carried out. REPLY_LOST: it was carried
    out, the caller is told that this is not known. REQUEST_LOST: it was not, told alike. REFUSED: it was not, and the
    caller is told so. LATE: it is carried out when the caller has given up. REPEATED: it is carried out twice, at once
    or later. STOPPED, WOKEN: the process sleeps for more than its session before the request or before the answer.
    LEADER, COORDINATOR: another broker leads the partition, or coordinates groups and transactions, from here on.
    ABORTABLE: the coordinator wants the transaction given up."""

    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"
    REPLY_LOST = "reply_lost"
    REQUEST_LOST = "request_lost"
    REFUSED = "refused"
    LATE = "late"
    REPEATED = "repeated"
    STOPPED = "stopped"
    WOKEN = "woken"
    LEADER = "leader"
    COORDINATOR = "coordinator"
    ABORTABLE = "abortable"


_ANYWHERE = (
    *[Fault.CRASH_BEFORE] * 2,
    *[Fault.CRASH_AFTER] * 3,
    *[Fault.STOPPED] * 3,
    *[Fault.WOKEN] * 2,
    *[Fault.LEADER] * 2,
    Fault.COORDINATOR,
)
_SENT = (Fault.REPLY_LOST, Fault.REPLY_LOST, Fault.REQUEST_LOST, Fault.LATE, Fault.LATE, Fault.REPEATED)
_BY_KIND: Mapping[Kind, tuple[Fault, ...]] = {
    Kind.READ: (*_ANYWHERE, *[Fault.REFUSED] * 5),
    Kind.POLL: (*_ANYWHERE, Fault.REFUSED, Fault.REPLY_LOST, Fault.REPEATED),
    Kind.PRODUCE: (*_ANYWHERE, *_SENT, *_SENT, *[Fault.STOPPED] * 6, Fault.REFUSED),
    Kind.WRITE: (*_ANYWHERE, *_SENT, *[Fault.STOPPED] * 3, *[Fault.ABORTABLE] * 3),
    Kind.OFFSETS: (*_ANYWHERE, *_SENT, *[Fault.STOPPED] * 3, *[Fault.ABORTABLE] * 3),
    Kind.COMMIT: (*_ANYWHERE, *_SENT, *_SENT, Fault.ABORTABLE),
    Kind.ABORT: (
        *_ANYWHERE,
        *[Fault.CRASH_BEFORE] * 2,
        *[Fault.CRASH_AFTER] * 2,
        Fault.REPLY_LOST,
        Fault.REQUEST_LOST,
        Fault.LATE,
    ),
    Kind.START: (*_ANYWHERE, *[Fault.STOPPED] * 3, Fault.REFUSED, Fault.REPLY_LOST, Fault.REPEATED),
    Kind.CHANGE: (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.REFUSED),
}


@dataclass(slots=True)
class Weather:
    """What happened on the wires of one run. slow: the share of fetches that bring little. off: nothing goes wrong.
    crashed: by call and what the process was doing."""

    turns: Turns
    model: KafkaModel
    session: Duration
    slow: float = SLOW_SHARE
    off: bool = False
    fired: Counter[Fault] = field(default_factory=Counter)
    crashed: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: int = 0


class StormyWire:
    """One process's wire. doing: what it is doing, for what is counted."""

    __slots__ = ("_actor", "_doing", "_weather")

    def __init__(self, weather: Weather, actor: Actor, doing: Callable[[], str]) -> None:
        self._weather, self._actor, self._doing = weather, actor, doing

    def call(self, kind: Kind, name: str, apply: Callable[[], T]) -> T:
        weather = self._weather
        turns = weather.turns
        weather.calls += 1
        turns.turn(f"{kind.value} {name}")
        if weather.off or turns.random.random() >= FAULTS_SHARES[kind]:
            return apply()
        faults = _BY_KIND[kind]
        fault = faults[int(turns.random.random() * len(faults))]
        weather.fired[fault] += 1
        turns.note(f"{fault.value} at {kind.value} {name}")
        return self._strike(fault, kind, name, apply)

    def wait(self, until: Instant, ready: Callable[[], bool]) -> None:
        self._weather.turns.wait(until, ready)

    def most(self, count: int) -> int:
        weather = self._weather
        if weather.off or weather.turns.random.random() >= weather.slow:
            return count
        return min(count, int(weather.turns.random.random() * 4))

    def _strike(self, fault: Fault, kind: Kind, name: str, apply: Callable[[], T]) -> T:
        match fault:
            case Fault.CRASH_BEFORE:
                self._end(kind)
            case Fault.CRASH_AFTER:
                with suppress(HeadraceError):
                    apply()
                self._end(kind)
            case Fault.REPLY_LOST:
                apply()
                raise _doubt(kind, name)
            case Fault.REQUEST_LOST:
                raise _doubt(kind, name)
            case Fault.REFUSED:
                raise unreachable(f"{name}: refused")
            case Fault.LATE:
                self._later(apply)
                raise _doubt(kind, name)
            case Fault.REPEATED:
                first = apply()
                if self._weather.turns.random.random() < 0.5:
                    return apply()
                self._later(apply)
                return first
            case Fault.STOPPED:
                self._sleep("asleep")
                return apply()
            case Fault.WOKEN:
                found = apply()
                self._sleep("asleep, unanswered")
                return found
            case Fault.LEADER:
                self._move_leader()
                return apply()
            case Fault.COORDINATOR:
                self._weather.model.move_coordinator()
                return self._moved(kind, name, apply)
            case Fault.ABORTABLE:
                raise given_up("the coordinator moved")
        raise AssertionError(fault)

    def _end(self, kind: Kind) -> None:
        self._weather.crashed[kind.value, self._doing()] += 1
        self._weather.turns.kill(self._actor)
        raise EndedError

    def _sleep(self, what: str) -> None:
        turns = self._weather.turns
        length = int(self._weather.session.micros * (1.5 + 1.5 * turns.random.random()))
        turns.stop(self._actor, Duration(length))
        turns.turn(what)

    def _later(self, apply: Callable[[], object]) -> None:
        turns = self._weather.turns

        def arrive() -> None:
            turns.note("a late request arrives")
            with suppress(HeadraceError):
                apply()

        turns.later(turns.now + int(turns.random.random() ** 3 * LATE_MAX), arrive)

    def _move_leader(self) -> None:
        model, turns = self._weather.model, self._weather.turns
        topic = sorted(model.topics)[int(turns.random.random() * len(model.topics))] if model.topics else ""
        for index in range(len(model.topics[topic].partitions) if topic else 0):
            model.move_leader(Place(topic, index))

    def _moved(self, kind: Kind, name: str, apply: Callable[[], T]) -> T:
        """A call meets a coordinator that has just gone."""
        if kind in (Kind.OFFSETS, Kind.COMMIT, Kind.ABORT, Kind.POLL):
            if self._weather.turns.random.random() < 0.5:
                apply()
            raise _doubt(kind, name)
        return apply()


def _doubt(kind: Kind, name: str) -> HeadraceError:
    """What a caller is told of a request that got no answer."""
    match kind:
        case Kind.PRODUCE | Kind.COMMIT | Kind.ABORT:
            return unknown(f"{kind.value} {name}")
        case Kind.WRITE | Kind.OFFSETS:
            return given_up(f"{kind.value} {name}: no answer")
        case _:
            return unreachable(f"{kind.value} {name}: no answer")
