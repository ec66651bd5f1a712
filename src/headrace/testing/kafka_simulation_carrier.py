"""Simulated processes around a derived topic: some that carry events over, with the product's own re-keyers, and one
that reads what they made and folds the source cut. Memory only.

The one idea: a carrier does what `headrace streams run` does with its threads, in turns, and nothing to keep itself
from harm: it is a member of a group, has a re-keyer for each source partition that it was given, and goes on with it
until the group or the cluster tells it otherwise, also when it has slept for longer than its session.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from headrace.clients.kafka.port import Member
from headrace.core.errors import FencedError, HeadraceError
from headrace.core.points import Cut, Partition
from headrace.core.times import ZERO, Duration
from headrace.log.port import Log, PartitionState
from headrace.stream.plan import Passed, SourceCut
from headrace.stream.proving import Proving
from headrace.stream.run import ReKeyer
from headrace.testing.kafka.model_client import ModelClient
from headrace.testing.kafka_simulation_derived import CutTold
from headrace.testing.kafka_simulation_scene import BY_SHOP, EVENTS
from headrace.testing.kafka_simulation_wire import StormyWire
from headrace.testing.turns import Turns

GROUP = "carriers"
WAIT = Duration.parse("400ms")  # for rows, before it is looked whether to go on
IDLE = 300_000  # microseconds between two looks of a process that was given nothing
LEAVES = 0.02  # of its rounds, after which a process ends in order
ROWS_MAX = (1, 2, 3, 50)  # of a transaction
PROOFS_KEPT = 4
_READS = 2_000_000  # microseconds between two looks of the reader, at most


class Scene(Protocol):
    """What they need of the run."""

    turns: Turns
    random: random.Random
    counted: Counter[str]
    cuts: list[CutTold]

    def client(self, wire: StormyWire) -> ModelClient: ...

    def log(self, wire: StormyWire) -> Log: ...


def sources() -> list[Partition]:
    return [Partition(EVENTS.name, 1, index) for index in range(EVENTS.partitions)]


class Carrier:
    """Its memory is that of one process: `live` begins with nothing."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.name = name
        self._scene = scene
        self._does = "starts"
        self._carrying: dict[int, ReKeyer] = {}

    def doing(self) -> str:
        return f"carrier {self._does}"

    def live(self, wire: StormyWire) -> None:
        scene = self._scene
        self._does, self._carrying = "starts", {}
        client, log = scene.client(wire), scene.log(wire)
        rows_max = scene.random.choice(ROWS_MAX)
        member = client.member(GROUP, [EVENTS.name], name=self.name)
        while scene.random.random() >= LEAVES:
            self._settle(log, self._given(member), rows_max)
            if not self._carrying:
                self._does = "idle"
                scene.turns.wait(scene.turns.now + IDLE)
            elif not self._carry():
                self._does = "waits"
                stands = Cut.of({each.source: each.at for each in self._carrying.values()})
                self._try(partial(log.wait, stands, timeout=WAIT))
        self._does = "leaves"
        self._settle(log, frozenset(), rows_max)
        member.leave()

    def _given(self, member: Member) -> frozenset[int]:
        """What the group says; what it has where the group cannot be asked."""
        self._does = "polls"
        given = frozenset(self._carrying)

        def poll() -> None:
            nonlocal given
            given = frozenset(place.partition for place in member.poll(timeout=ZERO).places)

        self._try(poll)
        return given

    def _settle(self, log: Log, given: frozenset[int], rows_max: int) -> None:
        """A re-keyer for each that is given, as far as that succeeds; the rest at the next look."""
        for index in sorted(self._carrying.keys() - given):
            self._carrying.pop(index).close()
        for source in sources():
            if source.index in given and source.index not in self._carrying:
                self._does = "begins a re-keyer"
                self._begin(log, source, rows_max)

    def _begin(self, log: Log, source: Partition, rows_max: int) -> None:
        def begin() -> None:
            self._carrying[source.index] = ReKeyer(log, BY_SHOP.name, source, rows_max=rows_max)
            self._scene.counted["re-keyers"] += 1

        self._try(begin)

    def _carry(self) -> bool:
        """A step of each; False where none found anything."""
        moved: list[bool] = []
        for index, each in sorted(self._carrying.items()):
            self._does = "carries over"
            if not self._try(partial(self._step, each, moved)):
                self._carrying.pop(index).close()
            for name in ("transactions", "aborts"):
                self._scene.counted[name] += getattr(each.counts, name)
                setattr(each.counts, name, 0)
        return any(moved)

    def _step(self, each: ReKeyer, moved: list[bool]) -> None:
        moved.append(each.step())

    def _try(self, act: Callable[[], object]) -> bool:
        """Whether it went well. Raises: HeadraceError of what does not pass by itself."""
        try:
            act()
        except FencedError:
            self._scene.counted["re-keyers fenced"] += 1
            return False
        except HeadraceError as error:
            self._scene.counted[f"survived {error.code}"] += 1
            if not error.retryable:
                raise
            return False
        return True


class CutReader:
    """Reads one derived partition after another to its end, and says which source cut that is."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def live(self, wire: StormyWire) -> None:
        scene = self._scene
        log = scene.log(wire)
        folded = [SourceCut(of=EVENTS.name) for _ in range(BY_SHOP.partitions)]
        proving, clock = Proving(log, BY_SHOP.name), scene.turns.clock()
        proofs: deque[Passed] = deque(maxlen=PROOFS_KEPT)  # that may not be reached yet
        while True:
            scene.turns.wait(scene.turns.now + int(scene.random.random() * _READS))
            try:
                passed = proving.look(clock.now())
                if passed is not None and passed not in proofs:
                    proofs.append(passed)
                (state,) = (state for state in log.topics(fresh=False) if state.topic.name == BY_SHOP.name)
                for held in state.partitions:
                    index = held.partition.index
                    folded[index] = self._read(log, folded[index], held)
                    for proof in proofs:
                        folded[index] = folded[index].proven(proof, index)
                    cut = {source.index: offset for source, offset in folded[index].cut}
                    scene.cuts.append(CutTold(index=index, end=folded[index].applied, cut=cut))
            except HeadraceError as error:
                if not error.retryable:
                    raise

    def _read(self, log: Log, folded: SourceCut, held: PartitionState) -> SourceCut:
        for batch in log.read(held.partition, folded.applied, end=held.end):
            folded = folded.after(batch)
        return folded.through(held.end)
