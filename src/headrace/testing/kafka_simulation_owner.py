"""A simulated process that decides: a member of the group that shares the requests' partitions, with the product's own
decider. Memory only.

The one idea: it does what a server does between its sockets, and nothing to keep itself from harm: it claims what it is
given, releases what it lost when it hears of it, answers whoever asks, also when it is a zombie. Every other one hands
over as a drained server does: it goes on until another has claimed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from headrace.clients.kafka.port import Assignment
from headrace.core.errors import ConflictError, HeadraceError
from headrace.core.times import ZERO, Clock
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.port import Row
from headrace.decisions.run import DecisionMade
from headrace.log.port import Log
from headrace.schemas.validate import validator
from headrace.testing.kafka.model_client import ModelClient
from headrace.testing.kafka_simulation_judge import Answered, Told
from headrace.testing.kafka_simulation_scene import REQUESTS, SmallState, recompute_with, version
from headrace.testing.kafka_simulation_wire import StormyWire
from headrace.testing.turns import Turns

GROUP = "owners"
TOGETHER_MAX = 6  # requests that are decided together
IDLE = 300_000  # microseconds between two looks of a process that has nothing to do
_VALIDATE = validator(REQUESTS)
_VERSION = version()


@dataclass(slots=True)
class Inbox:
    """Requests on their way to a process, and where their answers go."""

    waiting: deque[tuple[Row, list[str]]] = field(default_factory=deque)

    def put(self, row: Row, replies: list[str]) -> None:
        self.waiting.append((row, replies))

    def take(self, count: int) -> list[tuple[Row, list[str]]]:
        return [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]


class Scene(Protocol):
    """What an owner needs of the run."""

    turns: Turns
    told: Told
    counted: Counter[str]

    def client(self, wire: StormyWire) -> ModelClient: ...

    def log(self, wire: StormyWire) -> Log: ...


class Owner:
    """name: ends with its number. Its memory is that of one process: `live` begins with nothing."""

    def __init__(self, scene: Scene, name: str, inbox: Inbox, *, skew: int = 0) -> None:
        self.name = name
        self._scene = scene
        self._inbox = inbox
        self._skew = skew
        self._hands_over = int(name[-1]) % 2 == 1
        self._does = "starts"
        self._has = 0

    def doing(self) -> str:
        if self._does in ("starts", "claims"):
            return self._does
        return f"{self._does}, owns {'some' if self._has else 'nothing'}"

    def live(self, wire: StormyWire) -> None:
        scene, turns = self._scene, self._scene.turns
        self._does, self._has = "starts", 0
        self._inbox.waiting.clear()  # whoever asked the one before it asks again
        clock: Clock = turns.clock(self._skew)
        client, log = scene.client(wire), scene.log(wire)
        decider = OwnedDecider(
            log,
            _VERSION,
            features=SmallState(),
            validate=_VALIDATE,
            recompute=recompute_with(log),
            clock=clock,
            name=self.name,
        )
        member = client.member(GROUP, [REQUESTS.name], name=self.name)
        while True:
            self._does = "polls"
            self._follow(decider, lambda: member.poll(timeout=ZERO))
            self._has = len(decider.owned)
            asked = self._inbox.take(TOGETHER_MAX)
            if not asked:
                self._does = "idle"
                turns.wait(turns.now + IDLE, lambda: bool(self._inbox.waiting))
                continue
            self._does = "decides"
            self._answer(decider, asked)

    def _follow(self, decider: OwnedDecider, poll: Callable[[], Assignment]) -> None:
        """Own what the group says, as far as claims succeed; the rest at the next look."""
        try:
            assigned = {place.partition for place in poll().places}
        except HeadraceError as error:
            self._survive(error)
            return
        for index in sorted(decider.owned - assigned):
            if not self._hands_over:
                decider.release(index)
        for index in sorted(assigned - decider.owned):
            self._does = "claims"
            try:
                decider.claim(index)
            except HeadraceError as error:
                self._survive(error)
        try:
            decider.notice()
        except HeadraceError as error:
            self._survive(error)

    def _survive(self, error: HeadraceError) -> None:
        self._scene.counted[f"survived {error.code}"] += 1
        if not error.retryable:
            raise error

    def _answer(self, decider: OwnedDecider, asked: list[tuple[Row, list[str]]]) -> None:
        names = REQUESTS.schema.names
        made = decider.decide_many([dict(zip(names, row, strict=True)) for row, _ in asked])
        for (row, replies), one in zip(asked, made, strict=True):
            id = str(row[0])
            match one:
                case DecisionMade():
                    self._scene.told.answers.append(
                        Answered(
                            request_id=id,
                            outcome=one.outcome.value,
                            reasons=one.reasons,
                            decision_id=one.decision_id,
                            by=self.name,
                        )
                    )
                    self._scene.counted["repeated answers"] += one.repeated
                    replies.append("decided")
                case ConflictError():
                    self._scene.told.conflicts.append(id)
                    replies.append("conflict")
                case _:
                    self._scene.counted[f"refused {one.code}"] += 1
        self._scene.turns.turn("answers")
