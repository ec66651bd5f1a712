"""What an owner knows of a partition that it claimed, and of a request on its way. Reads the log through its port.

The one idea: ownership is a sentence in the log, so a partition is lost when the fold of its records says so, and not
before: there is no flag that could say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.core.codec import units
from headrace.core.errors import HeadraceError, LogError
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.decisions.claims import ClaimFold, Standing
from headrace.decisions.known import Id, KnownRequests, Logged
from headrace.decisions.plan import ViewVersion
from headrace.decisions.port import Row
from headrace.decisions.run import DecisionMade
from headrace.log.port import OFFSET, Log, Verdict


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request that waits for its answer. offset: where the log has it, with its t, available_at and verdict. first:
    it is decided there, at its first attempt. logged: as the log has it, where it was there before. error: why it still
    has no answer."""

    row: Row
    id: Id
    partition: Partition
    offset: int | None = None
    t: Instant = Instant(0)
    available_at: int = 0
    verdict: int = int(Verdict.ACCEPTED)
    first: bool = False
    logged: Logged | None = None
    answer: DecisionMade | HeadraceError | None = None
    error: HeadraceError | None = None


@dataclass(slots=True, kw_only=True)
class Computed:
    """A decision whose record is not in the log yet, or not read back. made: what is answered if it counts."""

    asked: Asked
    row: Row
    made: DecisionMade


@dataclass(slots=True, kw_only=True)
class Owned:
    """What is known of a partition. epoch: the offset of the claim under which it is owned, -1 before there is one.
    fold: of its records, as far as they were read. known:
    the ids of its requests. maximum: the newest available_at of these. floors: cuts of its valid records that the views
    here had not reached when they were last compared."""

    records: Partition
    fold: ClaimFold
    known: KnownRequests
    epoch: int = -1
    maximum: int = 0
    floors: dict[Partition, int] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Partition, known: KnownRequests) -> Owned:
        """Of a partition of which nothing was read."""
        return cls(records=records, fold=ClaimFold(records, floors=True), known=known)

    @property
    def lost(self) -> bool:
        """Whether another claim lies behind this one."""
        return self.fold.epoch != self.epoch

    def claimed(self) -> None:
        """Its records were read through the claim: no cut below theirs is served any more."""
        self.floors = dict(self.fold.floors)

    def views_behind(self, ends: Mapping[Partition, int], views: Sequence[ViewVersion]) -> Iterable[int]:
        """Places of the views that stand below a cut which a valid record holds (K1.8). ends: where each partition that
        is followed stands, which never falls; so what was reached once is not compared again."""
        if self.floors:
            self.floors = {p: floor for p, floor in self.floors.items() if ends.get(p, -1) < floor}
        if not self.floors:
            return ()
        # A topic that was made anew has nothing in common with the one of before.
        there = {(p.topic, p.incarnation) for p in ends}
        topics = {p.topic for p in self.floors if (p.topic, p.incarnation) in there}
        return [place for place, view in enumerate(views) if topics.intersection(view.topics)]


def read_records(log: Log, owned: Owned, offsets: Sequence[int], rows: Sequence[Row]) -> list[Standing]:
    """Fold what lies in a partition's records up to the last of these offsets; what the rows there are.

    rows: what lies at the offsets, where the caller appended it. Where nothing can lie between, nothing is read: the
    log has read them back before it said where they are. Raises: LogError HR-0349 where they are not read all the same;
    what was read until then is folded.
    """
    fold = owned.fold
    if rows and offsets[0] == fold.next and offsets[-1] - offsets[0] == len(offsets) - 1:
        return [fold.take(offset, row) for offset, row in zip(offsets, rows, strict=True)]
    found: dict[int, int] = {}
    for batch in log.read(owned.records, fold.next, end=offsets[-1] + 1):
        found.update(zip(units(batch.column(OFFSET)).tolist(), fold.take_batch(batch).tolist(), strict=True))
    if offsets[-1] not in found:
        raise LogError(
            "HR-0349",
            f"{owned.records}: what was appended could not be read",
            detail=f"expected to reach offset {offsets[-1]}, at {fold.next}",
            hint="try again: where the log ends there for long, a transaction is open",
            retryable=True,
        )
    return [Standing(found[offset]) for offset in offsets]
