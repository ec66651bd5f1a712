"""The model's transaction coordinator: epochs that fence, transactions that end on time. Memory only.

The one idea: as brokers since KIP-890, each end of a transaction raises its producer's epoch, so a batch that comes
late belongs to no later transaction; and what is decided is one fact, its markers come after it, partition by
partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.clients.kafka.port import GroupOffset, Place


@dataclass(slots=True)
class Marker:
    """What is still to be written of a transaction that has ended: a place's marker, or a group's offsets."""

    due: int
    place: Place | None
    group: str
    commit: bool


@dataclass(slots=True)
class Transactional:
    """A transactional id. epoch: of the producer now; `initialised`: of the newest one that began; what has a lower one
    is fenced, what lies between was given up by the coordinator."""

    producer: int
    timeout: int
    epoch: int = -1
    initialised: int = -1
    ongoing: bool = False
    started: int = 0
    places: dict[Place, None] = field(default_factory=dict)  # in the order of their first batch
    offsets: dict[str, dict[Place, GroupOffset]] = field(default_factory=dict)
    pending: list[Marker] = field(default_factory=list)
    ended: tuple[int, bool] | None = None  # epoch and outcome of the newest transaction
    last: dict[str, dict[Place, GroupOffset]] = field(default_factory=dict)  # offsets whose markers are pending

    def begin(self, now: int) -> None:
        if not self.ongoing:
            self.ongoing, self.started = True, now

    def end(self, *, commit: bool, due: Mapping[Place | str, int]) -> None:
        """Decide; markers follow when they are due. The epoch rises."""
        self.ended = (self.epoch, commit)
        self.epoch += 1
        self.pending = [Marker(due[place], place, "", commit) for place in self.places]
        self.pending += [Marker(due[group], None, group, commit) for group in self.offsets]
        self.last = self.offsets
        self.ongoing, self.places, self.offsets = False, {}, {}
