"""Groups of the model: who is a member, which partitions each has, what was committed. Memory only.

The one idea: as brokers since KIP-848, the coordinator says who has what. A partition that is to move stays with its
holder until the holder was told, or was silent for its session; so two members never have one at a time as the
coordinator sees it, and a member that sleeps goes on believing for as long as it sleeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headrace.clients.kafka.port import Assignment, GroupOffset, Place

_NOTHING: frozenset[Place] = frozenset()


@dataclass(slots=True)
class Joined:
    """A member as the coordinator knows it. session: microseconds that it may be silent."""

    name: str
    topics: tuple[str, ...]
    session: int
    seen: int
    places: frozenset[Place] = _NOTHING
    epoch: int = 0


@dataclass(slots=True)
class ModelGroup:
    """members: by the number that each got when it first joined. generation: rises as members come and go."""

    members: dict[int, Joined] = field(default_factory=dict)
    offsets: dict[Place, GroupOffset] = field(default_factory=dict)
    generation: int = 0
    expired: int = 0

    def poll(
        self, number: int, now: int, *, name: str, topics: tuple[str, ...], session: int, places: Mapping[str, int]
    ) -> Assignment:
        """A member's sign of life, and what it has from now on. places: how many partitions each topic has."""
        self.expire(now)
        member = self.members.get(number)
        if member is None:
            # New, or taken for dead meanwhile: then it hears now that it has nothing. Its epoch rises all the same.
            member = self.members[number] = Joined(name, topics, session, now, epoch=self.generation + 1)
            self.generation += 1
            return Assignment(_NOTHING, member.epoch)
        member.seen = now
        wanted = self._wanted(places).get(number, _NOTHING)
        taken = {place for other, one in self.members.items() if other != number for place in one.places}
        has = frozenset(place for place in wanted if place in member.places or place not in taken)
        if has != member.places:
            member.places = has
            self.generation += 1
            member.epoch = self.generation
        return Assignment(has, member.epoch)

    def expire(self, now: int) -> None:
        """Members that were silent for their session are members no more."""
        gone = [number for number, one in self.members.items() if now - one.seen > one.session]
        for number in gone:
            del self.members[number]
            self.generation += 1
            self.expired += 1

    def leave(self, number: int) -> None:
        if self.members.pop(number, None) is not None:
            self.generation += 1

    def moved(self, now: int) -> None:
        """Another broker coordinates: every session begins anew."""
        for member in self.members.values():
            member.seen = now

    def holders(self, now: int) -> dict[Place, str]:
        self.expire(now)
        return {place: one.name for one in self.members.values() for place in sorted(one.places)}

    def _wanted(self, places: Mapping[str, int]) -> dict[int, frozenset[Place]]:
        """Who should have what: as many each, who has one keeps it where that is fair."""
        wanted: dict[int, set[Place]] = {number: set() for number in self.members}
        for topic, count in sorted(places.items()):
            takers = sorted(number for number, one in self.members.items() if topic in one.topics)
            if takers:
                _share([Place(topic, index) for index in range(count)], takers, self.members, wanted)
        return {number: frozenset(held) for number, held in wanted.items()}


def _share(
    places: Iterable[Place], takers: list[int], members: Mapping[int, Joined], wanted: dict[int, set[Place]]
) -> None:
    places = list(places)
    least, more = divmod(len(places), len(takers))
    room = dict.fromkeys(takers, least)
    # Who has more than the least already is the one to have one more.
    ranked = sorted(takers, key=lambda number: (-sum(p in members[number].places for p in places), number))
    for number in ranked[:more]:
        room[number] += 1
    free = []
    for place in places:
        holder = next((number for number in takers if place in members[number].places), None)
        if holder is not None and room[holder] > 0:
            room[holder] -= 1
            wanted[holder].add(place)
        else:
            free.append(place)
    for place in free:
        number = next(number for number in takers if room[number] > 0)
        room[number] -= 1
        wanted[number].add(place)
