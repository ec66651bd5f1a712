"""How long partitions went without an answer, from the answers' own instants. Pure; seconds of one clock throughout."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench._chaos_judge import Claim, Value

SEARCHED_S = 120.0  # behind a kill; an answer that came later belongs to something else


class Takeover(NamedTuple):
    """An owner's kill, and when the last of its partitions gave its first answer."""

    at: float
    port: int
    partition: int
    seconds: float


class Answers:
    """Of each partition: when attempts that were answered left, and when the answers came."""

    def __init__(self, answers: Iterable[Value]) -> None:
        self._of: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for line in answers:
            answer = line["answer"]
            assert isinstance(answer, dict)
            partition = int(str(answer["decision_id"]).split("/")[2])
            self._of[partition].append((float(str(line["sent"])), float(str(line["at"]))))
        self._came: dict[int, list[float]] = {}
        for partition, times in self._of.items():
            times.sort()
            self._came[partition] = sorted(at for _, at in times)

    def first_after(self, partition: int, at: float) -> float | None:
        """When the first answer came to an attempt that left after an instant."""
        times = self._of.get(partition, [])
        begin, end = bisect_left(times, (at, 0.0)), bisect_left(times, (at + SEARCHED_S, 0.0))
        return min((came for _, came in times[begin:end]), default=None)

    def unanswered(self, begin: float, end: float) -> float:
        """The longest time, begun between two instants, in which a partition gave no answer."""
        worst = 0.0
        for came in self._came.values():
            before = begin
            for at in came[bisect_left(came, begin) :]:
                worst = max(worst, at - before)
                before = at
                if at > end:
                    break
            worst = max(worst, end - before)
        return worst


def owned_by(claims: Sequence[Claim], at: float) -> Mapping[int, str]:
    """Who made the last claim of each partition before an instant."""
    owners: dict[int, str] = {}
    for claim in sorted(claims, key=lambda one: (one.partition, one.offset)):
        if claim.at / 1_000 <= at:
            owners[claim.partition] = claim.owner
    return owners


def takeovers(kills: Iterable[tuple[float, int]], claims: Sequence[Claim], answers: Answers) -> list[Takeover]:
    """kills: when, and the port of who was killed. Those of owners of nothing, and of what was never answered again,
    are left out."""
    found = []
    for at, port in kills:
        owned = [index for index, owner in owned_by(claims, at).items() if owner.endswith(f":{port}")]
        came = [(first - at, index) for index in owned if (first := answers.first_after(index, at)) is not None]
        if came and len(came) == len(owned):
            seconds, index = max(came)
            found.append(Takeover(at, port, index, seconds))
    return found
