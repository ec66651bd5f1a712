"""Whether decision records are as they were written: every link of every chain, and every request behind it. Reads.

The one idea: nothing is taken from a record that its own chain has not vouched for, and one pass in order finds the
first place where the chain and the log part. Heads that were kept elsewhere say what no chain can say of itself: that
it was not made anew, or cut off at its end. In a log that several processes share the chain runs through the records
that count (claims.py); what is void, and the claims that say so, are counted.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from headrace.core.codec import batch_to_rows, physical_list, units
from headrace.core.errors import LogError, SchemaError
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.decisions import record as records
from headrace.decisions.chain import RequestHash, genesis, link, link_before, own_link
from headrace.decisions.claims import ClaimFold, Places, Standing
from headrace.decisions.known import NOT_THE_EVENT
from headrace.decisions.record import CLAIM, DECIDED_AT, EPOCH, REQUEST, REQUEST_HASH, DecisionRecord, Flag, Row
from headrace.log.define import Clock
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, OFFSET, VERDICT, Log, PartitionState, TopicState, Verdict

BROKEN_MAX = 100  # places that are told; all are counted
_BATCH = 4_096
_REPEATED = (Verdict.DUPLICATE, Verdict.CONFLICT)
_DECIDED = (Verdict.ACCEPTED, Verdict.LATE, Verdict.RESTAMPED)  # what a request may be judged
# What reading a log may raise whose bytes were altered and whose checksums were made to fit.
_UNREADABLE = (LogError, pa.ArrowException, ValueError, TypeError, OverflowError)
NEVER = -(2**63)
_RETAINED = "HR-0303"  # what the log says where retention took the rows meanwhile


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
    places do not hold; places: the first of them. gone: requests and known heads that retention took, of which only the
    record or nothing is left. repeats: records of requests that the log took for a repetition of an earlier one, which
    count for nothing. undecided: requests without a record behind the first that has one; where they stand
    behind the last one, their records may have been cut off, so that is a broken place too, save in a log that several
    processes share, where an owner may have crashed in between. heads: one a partition. claims: of who decides; void:
    records that count for nothing, as they were not made under the claim in force, or of a request that had one. Of
    what was made void by a claim that was added later only a known head tells."""

    checked: int = 0
    unchained: int = 0
    broken: int = 0
    undecided: int = 0
    gone: int = 0
    repeats: int = 0
    places: list[Broken] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    claims: int = 0
    void: int = 0

    @property
    def whole(self) -> bool:
        return self.broken == 0

    def tell(self, partition: object, offset: int, why: str) -> None:
        self.broken += 1
        if len(self.places) < BROKEN_MAX:
            self.places.append(Broken(partition=str(partition), offset=offset, why=why))


def verify(log: Log, decision: str, request: str, *, heads: Sequence[Head] = ()) -> ChainReport:
    """Check every record of a decision on a topic of requests, to the log's end as it is now.

    heads: of an earlier check; each must still be there, unchanged. Cost: one read of the records and two of
    their requests, some 100 us a record.
    """
    report = ChainReport()
    states = {state.topic.name: state for state in log.topics()}
    made, asked = states.get(records.PREFIX + decision), states.get(request)
    wanted = {(head.partition, head.offset): head for head in heads}
    for held in () if made is None else made.partitions:
        if held.start and made is not None and made.topic.retention is None:
            report.tell(held.partition, 0, f"{held.start} records are gone, and the topic keeps all")
        for place in [p for p in wanted if p[0] == str(held.partition) and p[1] < held.start]:
            del wanted[place]
            report.gone += 1
        requests = None if asked is None else _Requests(log, asked, held.partition.index)
        simulated = made is not None and made.topic.clock is Clock.SIMULATED
        _Check(log, decision, request, requests, report, wanted, simulated=simulated).partition(held)
    for head in wanted.values():
        report.tell(head.partition, head.offset, "the record of a known head is not there")
    return report


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as the log holds it."""

    event_time: int
    verdict: int
    row: Row


class _Requests:
    """One partition of the request topic, as far as it went when the check began."""

    def __init__(self, log: Log, topic: TopicState, index: int) -> None:
        self.topic = topic.topic
        self.incarnation = topic.incarnation
        found = next((each for each in topic.partitions if each.partition.index == index), None)
        self.held: PartitionState | None = found
        self.start, self.end = (0, 0) if found is None else (found.start, found.end)
        self._log = log
        self._decided = Places()
        self._last = -1
        self.hash = RequestHash(self.topic.schema.names)

    def decide(self, offset: int) -> bool:
        """Whether it is the first record of this request."""
        self._last = max(self._last, offset)
        return self._decided.put(offset, offset)

    def rows(self, offsets: Sequence[int]) -> Iterator[tuple[int, _Asked | None]]:
        """The requests at rising offsets; None where the log left the offset out. Raises: as `Log.read`."""
        assert self.held is not None, "no offset lies in a partition that is not there"
        left = list(offsets)
        while left:
            batch = next(iter(self._log.read(self.held.partition, left[0], rows_max=_BATCH)), None)
            if batch is None:
                yield from ((offset, None) for offset in left)
                return
            held = units(batch.column(OFFSET))
            here = left[: bisect.bisect_right(left, int(held[-1]))]
            left = left[len(here) :]
            found = np.isin(here, held)
            yield from ((offset, None) for offset in np.array(here)[~found].tolist())
            there = np.array(here)[found].tolist()
            part = batch.take(pa.array(np.searchsorted(held, there)))
            times, verdicts = units(part.column(EVENT_TIME)).tolist(), part.column(VERDICT).to_pylist()
            rows = batch_to_rows(self.topic.schema, part)
            yield from zip(there, map(_Asked, times, verdicts, rows), strict=True)

    def repeats(self, row: Row, offset: int) -> bool:
        """Whether an earlier event has the id of this row. Cost: reading what is before it. Raises: as `Log.read`."""
        assert self.held is not None, "the row lies in it"
        assert self.topic.id is not None, "a request topic has an id: decisions/define.py sees to it"
        own = row[self.topic.schema.names.index(self.topic.id)]
        for batch in self._log.read(self.held.partition, self.start):
            offsets, ids = units(batch.column(OFFSET)).tolist(), physical_list(batch.column(self.topic.id))
            for place, id, verdict in zip(offsets, ids, batch.column(VERDICT).to_pylist(), strict=True):
                if place >= offset:
                    return False
                if id == own and verdict not in NOT_THE_EVENT:
                    return True
        return False

    def undecided(self) -> tuple[int, int, int]:
        """How many events have no record from the first decided one on; how many of them behind the last; where these
        begin. Raises: as `Log.read`."""
        first = self._decided.first
        if self.held is None or first is None or self.held.partition.index >= IMPORTS_FROM:
            return 0, 0, 0
        without = [
            offset
            for offset, verdict in self._verdicts(first)
            if verdict not in NOT_THE_EVENT and self._decided.find(offset) is None
        ]
        behind = [offset for offset in without if offset > self._last]
        return len(without), len(behind), behind[0] if behind else 0

    def _verdicts(self, first: int) -> Iterator[tuple[int, int]]:
        assert self.held is not None, "asked only of a partition that is there"
        for batch in self._log.read(self.held.partition, first):
            for offset, verdict in zip(
                units(batch.column(OFFSET)).tolist(), batch.column(VERDICT).to_pylist(), strict=True
            ):
                if offset >= self.end:
                    return
                yield offset, verdict


class _Check:
    """One partition's records, in order. Lives for one partition."""

    def __init__(
        self,
        log: Log,
        decision: str,
        topic: str,
        requests: _Requests | None,
        report: ChainReport,
        wanted: dict[tuple[str, int], Head],
        *,
        simulated: bool,
    ) -> None:
        """simulated: the clock of the record topic."""
        self._log = log
        self._simulated = simulated
        self._decision = decision
        self._topic = topic
        self._requests = requests
        self._report = report
        self._wanted = wanted
        self._previous: str | None = None  # of the record before; None where there is none to be seen
        self._chained = False
        self._available_at = NEVER
        self._shared = log.capabilities.shared

    def partition(self, held: PartitionState) -> None:
        """held: as it was when the check began; what came since is left for the next one."""
        self._held = held
        self._fold = ClaimFold(held.partition)
        self._previous = genesis(held.partition) if held.start == 0 else None
        next_offset, last = held.start, None
        try:
            for batch in self._log.read(held.partition, held.start, end=held.end, rows_max=_BATCH):
                last = self._batch(batch, next_offset) or last
                next_offset += batch.num_rows
        except _UNREADABLE as error:
            self._report.tell(held.partition, next_offset, f"it cannot be read: {_said(error)}")
        if last is not None:
            self._report.heads.append(last)
        self._check_undecided()

    def _batch(self, batch: pa.RecordBatch, first: int) -> Head | None:
        """Check the records of a batch; the head behind it, None where none of them has a link."""
        offsets, rows = units(batch.column(OFFSET)).tolist(), _rows(batch)
        times, stamps = units(batch.column(EVENT_TIME)).tolist(), units(batch.column(AVAILABLE_AT)).tolist()
        verdicts = batch.column(VERDICT).to_pylist()
        wrong: dict[int, str] = {}
        said: dict[int, DecisionRecord] = {}
        head: Head | None = None
        unchained: set[int] = set()
        void: set[int] = set()
        for index, (offset, row) in enumerate(zip(offsets, rows, strict=True)):
            if row is None:
                wrong[offset] = "its bytes are no texts and numbers"
                self._chained, self._previous = True, ""
                continue
            standing, why = self._standing(offset, row)
            if standing is not Standing.VALID:
                self._report.claims += standing is Standing.CLAIM
                self._report.void += standing is Standing.VOID
                if why:
                    wrong[offset] = why
                self._available_at = stamps[index]
                void.add(offset)
                continue
            why = self._link(row, unchained, offset) or why
            if self._chained and row[-1] is not None:
                head = Head(partition=str(self._held.partition), offset=offset, link=own_link(str(row[-1])))
                why = self._known_head(head) or why
            if offset != first + index and not self._log.capabilities.gaps:
                why = why or f"the log says offset {offset} where {first + index} is next"
            if verdicts[index] != Verdict.ACCEPTED:
                why = why or "the log's own stamp of it is not one that a record gets"
            try:
                said[offset] = records.from_row(row, self._topic)
                why = why or self._stamp(said[offset], stamps[index])
                why = why or self._own(said[offset], row, times[index])
            except SchemaError as error:
                why = why or f"it does not read as a record: {error.detail}"
            self._available_at = stamps[index]
            if why:
                wrong[offset] = why
        self._requested(said, lambda offset, why: wrong.setdefault(offset, why))
        for offset, why in sorted(wrong.items()):
            self._report.tell(self._held.partition, offset, why)
        self._report.unchained += len(unchained)
        self._report.checked += len(set(offsets) - set(wrong) - unchained - void)
        return head

    def _standing(self, offset: int, row: Row) -> tuple[Standing, str]:
        """What a row is, and what is wrong with that. Where one process owns the log nobody claims."""
        if not self._shared:
            named = row[EPOCH] is not None or row[CLAIM] is not None
            return Standing.VALID, "it names a claim, in a log that one process owns" if named else ""
        try:
            standing = self._fold.take(offset, row)
        except (TypeError, OverflowError):
            return Standing.VALID, ""  # no record of ours: what is wrong with it is found when it is read
        if standing is not Standing.CLAIM:
            return standing, ""
        place = Partition(self._topic, row[REQUEST], self._held.partition.index)  # type: ignore[arg-type]  # a required integer
        same = row == records.claim_row(self._decision, place, owner=str(row[CLAIM]), at=row[DECIDED_AT])  # type: ignore[arg-type]  # as above
        return standing, "" if same else "it is a claim, and holds what no claim holds"

    def _link(self, row: Row, unchained: set[int], offset: int) -> str:
        """What is wrong with a record's link, if anything."""
        chain = row[-1]
        if chain is None and not self._chained and row[REQUEST_HASH] is None:
            unchained.add(offset)
            self._previous = genesis(self._held.partition)  # the first link of a chain stands on nothing
            return ""
        text = "" if chain is None else str(chain)
        # Behind what retention took, the first link says itself what stood before it.
        found = link(link_before(text) if self._previous is None else self._previous, row[:-1])
        self._chained, self._previous = True, text
        return "" if text == found else "its link is not that of its fields and of the record before it"

    def _known_head(self, seen: Head) -> str:
        known = self._wanted.pop((seen.partition, seen.offset), None)
        return "" if known is None or known == seen else "its link is another than that of the known head"

    def _stamp(self, record: DecisionRecord, available_at: int) -> str:
        """A record comes when it is decided, by its topic's clock, and never before the one ahead of it."""
        own = record.t if self._simulated else record.decided_at
        exact = bool(record.chain) and (self._available_at != NEVER or self._held.start == 0)
        exact = exact and record.epoch is None  # of a shared log the instants are not the owner's
        expected = max(own, self._available_at) if exact else self._available_at
        if available_at == expected or (not exact and available_at > expected):
            return ""
        return "the log's own stamp of it is not one that a record gets"

    def _own(self, said: DecisionRecord, row: Row, event_time: int) -> str:
        """What is wrong with a record by itself."""
        if row[0] != said.decision_id or said.request.index != self._held.partition.index:
            return "it is not the record of the request that it names"
        if said.decision != self._decision:
            return f"it is a record of decision {said.decision!r}"
        if event_time != said.t:
            return "the log's event time of it is not its t"
        return ""

    def _requested(self, said: dict[int, DecisionRecord], tell: Callable[[int, str], object]) -> None:
        """That each record's request is in the log as it was decided, and decided once. said: by the record's
        offset."""
        held = self._requests
        asked: dict[int, int] = {}
        for offset, record in said.items():
            if held is None or held.held is None or record.request.incarnation < held.incarnation:
                self._report.gone += 1
            elif record.request.incarnation > held.incarnation or not 0 <= record.offset < held.end:
                tell(offset, f"its request {record.request} offset {record.offset} is not in the log")
            elif record.offset < held.start:
                if held.topic.retention is None:
                    tell(offset, f"its request at offset {record.offset} is gone, and the topic keeps all")
                self._report.gone += 1
            elif not held.decide(record.offset):
                tell(offset, f"its request at offset {record.offset} is decided twice")
            else:
                asked[record.offset] = offset
        if held is None or not asked:
            return
        checked = 0
        places = sorted(asked)
        try:
            for at, found in held.rows(places):
                checked += 1
                if found is None:
                    tell(asked[at], f"its request {said[asked[at]].request} offset {at} is not in the log")
                    continue
                why = _unlike(found, said[asked[at]], held)
                if not why and found.verdict in _REPEATED:
                    self._report.repeats += 1
                if why:
                    tell(asked[at], why)
        except _UNREADABLE as error:
            left = places[checked:]
            if isinstance(error, LogError) and error.code == _RETAINED:
                self._report.gone += len(left)
                return
            for at in left:
                tell(asked[at], f"its request at offset {at} cannot be read: {_said(error)}")

    def _check_undecided(self) -> None:
        if self._requests is None:
            return
        try:
            count, behind, first = self._requests.undecided()
        except _UNREADABLE as error:
            self._report.tell(self._held.partition, self._held.end, f"the requests cannot be read: {_said(error)}")
            return
        self._report.undecided += count
        if behind and not self._shared:
            self._report.tell(
                self._held.partition,
                self._held.end,
                f"{behind} requests from offset {first} on, behind the last that has one, have no record: records were "
                "cut off, or others than the decision append requests",
            )


def _rows(batch: pa.RecordBatch) -> list[Row | None]:
    """The rows of a batch; None where a row cannot be read, which Arrow notices only when it is told to look."""
    try:
        batch.validate(full=True)
        return list(records.rows_of_batch(batch))
    except ValueError:  # ArrowInvalid and UnicodeDecodeError among them
        if batch.num_rows == 1:
            return [None]
        return [row for place in range(batch.num_rows) for row in _rows(batch.slice(place, 1))]


def _said(error: Exception) -> str:
    return error.message if isinstance(error, LogError) else f"{type(error).__name__}: {error}"


def _unlike(found: _Asked, said: DecisionRecord, requests: _Requests) -> str:
    """How a request differs from the one that was decided, if it does."""
    unlike = f"its request at offset {said.offset} is not what was decided"
    if said.request_hash and requests.hash(found.row) != said.request_hash:
        return unlike
    if found.event_time != said.t:
        return f"{unlike}: the log's event time is another"
    restamped = found.verdict == Verdict.RESTAMPED
    by_retry = Flag.RETRIED in said.flags  # such a request may have been appended by another than the decider
    if found.verdict in _REPEATED and requests.repeats(found.row, said.offset):
        return ""
    if found.verdict not in _DECIDED or (not by_retry and restamped != (Flag.RESTAMPED in said.flags)):
        return f"{unlike}: the log's verdict is another"
    return ""


__all__ = ["Broken", "ChainReport", "Head", "verify"]
