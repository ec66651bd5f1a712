"""Whether decision records are as they were written: every link of every chain, and every request behind it. Reads.

The one idea: nothing is taken from a record that its own chain has not vouched for, and one pass in order finds the
first place where the chain and the log part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from headrace.core.codec import units
from headrace.core.errors import LogError, SchemaError
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.decisions import record as records
from headrace.decisions.chain import RequestHash, genesis, link
from headrace.decisions.known import NOT_THE_EVENT, rows_of
from headrace.log.define import Topic
from headrace.log.port import OFFSET, VERDICT, Log, PartitionState, TopicState

BROKEN_MAX = 100  # places that are told; all are counted
_BATCH = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A place in the record topic where the chain does not hold, and how."""

    partition: str
    offset: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest link of a partition: keep it elsewhere, and no later change of what stands before it goes unseen."""

    partition: str
    offset: int
    link: str


@dataclass(slots=True, kw_only=True)
class ChainReport:
    """checked: records whose link and request hold. unchained: records of before there was a chain. broken: how many
    places do not hold; places: the first of them. undecided: requests without a record behind the first record. gone:
    requests that retention took, of which only the hash is left."""

    checked: int = 0
    unchained: int = 0
    broken: int = 0
    undecided: int = 0
    gone: int = 0
    places: list[Broken] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.broken == 0 and self.undecided == 0

    def tell(self, partition: Partition, offset: int, why: str) -> None:
        self.broken += 1
        if len(self.places) < BROKEN_MAX:
            self.places.append(Broken(partition=str(partition), offset=offset, why=why))


def verify(log: Log, request: Topic, record_topic: str, *, heads: Sequence[Head] = ()) -> ChainReport:
    """Check every record of a decision.

    heads: of an earlier check; each must still be there, unchanged. Cost: one read of the records, some 20 us each,
    and of their requests.
    """
    report = ChainReport()
    states = {state.topic.name: state for state in log.topics()}
    made = states.get(record_topic)
    wanted = {(head.partition, head.offset): head.link for head in heads}
    for held in () if made is None else made.partitions:
        requests = _partition(states.get(request.name), held.partition.index)
        _Check(log, request, requests, report, wanted).partition(held)
    for (partition, offset), _ in wanted.items():
        report.broken += 1
        report.places.append(Broken(partition=partition, offset=offset, why="the record of a known head is not there"))
    return report


def _partition(state: TopicState | None, index: int) -> PartitionState | None:
    held = () if state is None else state.partitions
    return next((each for each in held if each.partition.index == index), None)


class _Check:
    """One partition's records, in order. Lives for one partition."""

    def __init__(
        self,
        log: Log,
        request: Topic,
        requests: PartitionState | None,
        report: ChainReport,
        wanted: dict[tuple[str, int], str],
    ) -> None:
        self._log = log
        self._request = request
        self._requests = requests
        self._report = report
        self._wanted = wanted
        self._hash = RequestHash(request.schema.names)
        self._decided: set[int] = set()

    def partition(self, held: PartitionState) -> None:
        place, report = held.partition, self._report
        previous = genesis(place)
        chained = False
        last: tuple[int, str] | None = None
        for batch in self._log.read(place, held.start, rows_max=_BATCH):
            rows = records.rows_of_batch(batch)
            self._check_requests(place, batch, rows)
            for offset, row in zip(units(batch.column(OFFSET)).tolist(), rows, strict=True):
                said = row[-1]
                if said is None and not chained:
                    report.unchained += 1
                    continue
                if not chained and held.start > 0:
                    previous = ""  # retention took what stood before: the first link is taken as it is
                found = link(previous, row[:-1])
                if said != found and (chained or held.start == 0):
                    report.tell(place, offset, "its link is not that of its fields and of the record before it")
                else:
                    report.checked += 1
                chained, previous = True, str(said)
                last = offset, previous
                self._check_head(place, offset, previous)
        if last is not None:
            report.heads.append(Head(partition=str(place), offset=last[0], link=last[1]))
        report.undecided += self._undecided()

    def _check_head(self, place: Partition, offset: int, seen: str) -> None:
        known = self._wanted.pop((str(place), offset), None)
        if known is not None and known != seen:
            self._report.tell(place, offset, "its link is another than that of the known head")

    def _check_requests(self, place: Partition, batch: pa.RecordBatch, rows: Sequence[records.Row]) -> None:
        """That each record's request is in the log as it was decided, and decided once."""
        asked: dict[int, tuple[int, str | None]] = {}
        for offset, row in zip(units(batch.column(OFFSET)).tolist(), rows, strict=True):
            try:
                said = records.from_row(row, self._request.name)
            except SchemaError as error:
                self._report.tell(place, offset, error.detail)
                continue
            if said.offset in self._decided:
                self._report.tell(place, offset, f"its request at offset {said.offset} is decided twice")
            self._decided.add(said.offset)
            if row[0] != said.decision_id or said.request.index != place.index:
                self._report.tell(place, offset, "it is not the record of the request that it names")
            asked[said.offset] = offset, said.request_hash or None
        for (at, (offset, wanted)), found in zip(sorted(asked.items()), self._rows(sorted(asked)), strict=True):
            if found is None:
                self._report.gone += 1
            elif wanted is not None and self._hash(found) != wanted:
                self._report.tell(place, offset, f"its request at offset {at} is not what was decided")

    def _rows(self, offsets: list[int]) -> Iterator[records.Row | None]:
        """The requests at rising offsets; None where retention took them, or they never were."""
        held = self._requests
        if held is None:
            yield from (None for _ in offsets)
            return
        there = [offset for offset in offsets if held.start <= offset < held.end]
        rows = rows_of(self._log, self._request, held.partition, there)
        for offset in offsets:
            yield next(rows) if held.start <= offset < held.end else None

    def _undecided(self) -> int:
        held = self._requests
        if held is None or not self._decided or held.partition.index >= IMPORTS_FROM:
            return 0
        first = max(min(self._decided), held.start)
        count = 0
        try:
            for batch in self._log.read(held.partition, first):
                offsets, verdicts = units(batch.column(OFFSET)).tolist(), batch.column(VERDICT).to_pylist()
                count += sum(
                    verdict not in NOT_THE_EVENT and offset not in self._decided
                    for offset, verdict in zip(offsets, verdicts, strict=True)
                )
        except LogError as error:
            self._report.tell(held.partition, first, f"the requests cannot be read: {error.message}")
        return count


__all__ = ["Broken", "ChainReport", "Head", "verify"]
