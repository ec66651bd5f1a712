"""A share of recorded decisions, recomputed from the log as they come. Reads the log; keeps its place in a file.

The one idea: a place in each partition of records. What lies behind it was looked at, once; a look takes all that lies
ahead, chooses by a hash of the decision's id, compares by the code of `decisions replay`, and moves the place to the
end. A look reads the views' topics whole, so what it costs grows with the log; the rest after it grows as much.

In a log that several processes share only some records count, and which depends on all before them
(decisions/claims.py). So the first look there reads them from the beginning, and the fold is kept in memory: in the
file it would be as large as an index of all decisions, written anew after each look, to save one reading a start.
"""

from __future__ import annotations

import heapq
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from headrace.core.codec import units
from headrace.core.errors import HeadraceError, SchemaError
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import Instant
from headrace.decisions import record as records
from headrace.decisions.claims import ClaimFold, Standing
from headrace.decisions.define import Decision
from headrace.decisions.plan import Version
from headrace.decisions.record import DecisionRecord
from headrace.decisions.replay import Difference, ReplayReport, replay
from headrace.log.port import OFFSET, PartitionState, TopicState
from headrace.runtime.decided import kept_rows
from headrace.runtime.following import Following
from headrace.runtime.project import Project
from headrace.runtime.recompute import recompute_with
from headrace.runtime.versions import versions_of

SHARE = 0.01  # of the decisions: at 300 a second, one every third of a second
EVERY_SECONDS = 10.0  # between two looks, at least
COST = 0.02  # of one core: the rest after a look is so long that looks take no larger share of it
COMPARED_MAX = 4_096  # of one decision in one look, the rest is skipped: some 2 s, and what lies in memory
PROJECTS_MAX = 8  # definitions that are kept, the newest and those before it: records of all of them can be compared
READ_ROWS = 16_384  # records in memory at a time while a look chooses
FILE = "sampler.json"
_HASHES = 1 << 64

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One decision's part of a look. seen: records that the place moved over, void ones left out. compared, mismatched,
    erased, unknown, differences: of those that were chosen, as in a ReplayReport. skipped: chosen, and more than a look
    compares."""

    decision: str
    seen: int = 0
    compared: int = 0
    mismatched: int = 0
    erased: int = 0
    unknown: int = 0
    skipped: int = 0
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """at: when it ended. cpu_seconds: of the process, while it looked. rest_seconds: until the next one. behind:
    records by decision that nobody has looked at. held: why newer definitions could not be loaded, "" where they
    could."""

    at: Instant
    cpu_seconds: float
    rest_seconds: float
    sampled: tuple[Sampled, ...]
    behind: dict[str, int]
    held: str = ""


class Sampler:
    """One thread's. Other processes, or none, decide meanwhile."""

    def __init__(
        self, project: Project, share: float, *, every: float = EVERY_SECONDS, compared_max: int = COMPARED_MAX
    ) -> None:
        """It goes on at the place that it remembers; where it has none, at the end as it is now. share: from 0 to 1.
        every: seconds between two looks, at least."""
        self._following = Following(project)
        self._bound = int(share * _HASHES)
        self._every = every
        self._compared_max = compared_max
        self._path = project.state_folder / FILE
        self._projects: deque[_Known] = deque([_Known(project)], maxlen=PROJECTS_MAX)
        self._folds: dict[Partition, ClaimFold] = {}
        self._counted: dict[Partition, tuple[int, int]] = {}  # where there are gaps: up to where, how many rows ahead
        known = _places(self._path)
        self._next = self._ends() if known is None else dict(known)
        self._kept = known
        self._keep()

    @property
    def project(self) -> Project:
        """The newest: the one to close."""
        return self._following.project

    def look(self) -> Look:
        """Compare what is chosen of all that was recorded since the last look. Raises: LogError."""
        began = time.process_time()
        states = self._topics()
        # After the ends were read, so that every record before them was made by definitions that were applied by now.
        held = self.follow()
        sampled = tuple(self._decision(state) for state in states)
        self._keep()
        spent = time.process_time() - began
        return Look(
            at=self.project.now(),
            cpu_seconds=spent,
            rest_seconds=max(self._every, spent / COST - spent),
            sampled=sampled,
            behind=self.behind(),
            held=held,
        )

    def behind(self) -> dict[str, int]:
        """Records by decision that were not looked at yet. Cost: one look-up in the log's catalog; where offsets have
        gaps, reading what came since the last call."""
        return {_name(state): sum(self._rows_ahead(held) for held in _live(state)) for state in self._topics()}

    def follow(self) -> str:
        """Take note of what is in force; why that could not be, where it could not. Called between looks too, so that
        what is in force for a short while is known. Cost: two look-ups where nothing changed."""
        before = self.project
        try:
            self._following.successors({})
        except HeadraceError as error:
            return str(error)
        if self.project is not before:
            self._projects.appendleft(_Known(self.project))
        return ""

    # --- places ---

    def _topics(self) -> list[TopicState]:
        return [state for state in self.project.log.topics() if state.topic.name.startswith(records.PREFIX)]

    def _ends(self) -> dict[Partition, int]:
        return {held.partition: held.end for state in self._topics() for held in _live(state)}

    def _from(self, held: PartitionState) -> int:
        """Where to go on: not before what retention left, nor behind the end, as in a log that was restored."""
        return min(max(self._next.get(held.partition, held.start), held.start), held.end)

    def _rows_ahead(self, held: PartitionState) -> int:
        """How many rows lie between the place and the end."""
        begin = self._from(held)
        if not self.project.log.capabilities.gaps:
            return held.end - begin
        upto, count = self._counted.get(held.partition, (begin, 0))
        if not begin <= upto <= held.end:
            upto, count = begin, 0
        if upto < held.end:
            count += sum(batch.num_rows for batch in self.project.log.read(held.partition, upto, end=held.end))
        self._counted[held.partition] = held.end, count
        return count

    def _keep(self) -> None:
        if self._next == self._kept:
            return
        rows = [[p.topic, p.incarnation, p.index, offset] for p, offset in sorted(self._next.items())]
        made = self._path.with_suffix(".new")
        made.write_text(json.dumps({"version": 1, "next": rows}), encoding="utf-8")
        made.replace(self._path)
        self._kept = dict(self._next)

    # --- one decision ---

    def _decision(self, state: TopicState) -> Sampled:
        name = _name(state)
        decision = next((d for d in (known.decision(name) for known in self._projects) if d is not None), None)
        seen = 0
        chosen = _Chosen(self._bound, self._compared_max)
        for held in _live(state):
            for batch in self._ahead(held):
                chosen.take(held.partition, batch)
                seen += batch.num_rows
            self._next[held.partition] = held.end
            self._counted.pop(held.partition, None)
        if decision is None:
            return Sampled(decision=name, seen=seen, unknown=len(chosen), skipped=chosen.skipped)
        readable, broken = _read(chosen.rows(), decision.request.name)
        report = self._compare(name, readable)
        return Sampled(
            decision=name,
            seen=seen,
            compared=report.compared + len(broken),
            mismatched=report.mismatched + len(broken),
            erased=report.erased,
            unknown=report.unknown,
            skipped=chosen.skipped,
            differences=(*broken, *report.differences),
        )

    def _ahead(self, held: PartitionState) -> Iterator[pa.RecordBatch]:
        """What counts of what was not looked at, up to the end as it was."""
        log, at = self.project.log, self._from(held)
        if at == held.end:
            return
        fold = self._fold(held, at) if log.capabilities.shared else None
        for batch in log.read(held.partition, at, end=held.end, rows_max=READ_ROWS):
            valid = None if fold is None else fold.take_batch(batch) == Standing.VALID
            yield batch if valid is None or valid.all() else batch.filter(pa.array(valid))

    def _fold(self, held: PartitionState, at: int) -> ClaimFold:
        """What lies before a place, folded; the first time from the beginning."""
        fold = self._folds.get(held.partition)
        if fold is None or fold.next > at:  # behind the place: the log was restored
            fold = self._folds[held.partition] = ClaimFold(held.partition)
        if fold.next < at:
            for batch in self.project.log.read(held.partition, max(fold.next, held.start), end=at, rows_max=READ_ROWS):
                fold.take_batch(batch)
        return fold

    def _compare(self, name: str, chosen: Sequence[DecisionRecord]) -> ReplayReport:
        """Each version set's records with that version set."""
        groups: dict[str, list[DecisionRecord]] = {}
        for one in chosen:
            groups.setdefault(one.versions, []).append(one)
        reports = [self._compare_group(name, text, group) for text, group in groups.items()]
        return ReplayReport(
            compared=sum(r.compared for r in reports),
            mismatched=sum(r.mismatched for r in reports),
            erased=sum(r.erased for r in reports),
            unknown=sum(r.unknown for r in reports),
            differences=tuple(d for r in reports for d in r.differences),
        )

    def _compare_group(self, name: str, text: str, group: Sequence[DecisionRecord]) -> ReplayReport:
        for known in self._projects:
            versions = known.versions(name)
            version = versions(text)
            if version is not None:
                return replay(
                    group,
                    versions=versions,
                    requests=kept_rows(self.project, version.decision.request),
                    recompute=recompute_with(self.project.log, known.project.compile),
                )
        return ReplayReport(unknown=len(group))


class _Known:
    """Definitions that decided, and the versions that are made of them."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._versions: dict[str, Callable[[str], Version | None]] = {}

    def decision(self, name: str) -> Decision | None:
        return self.project.definitions.decisions.get(name)

    def versions(self, name: str) -> Callable[[str], Version | None]:
        if self.decision(name) is None:
            return lambda _: None
        if name not in self._versions:
            self._versions[name] = versions_of(self.project, name)
        return self._versions[name]


class _Chosen:
    """The records of one look whose ids' hashes are below the bound; of too many, those with the smallest."""

    def __init__(self, bound: int, limit: int) -> None:
        self._bound = bound
        self._limit = limit
        self._held: list[tuple[int, Partition, int, records.Row]] = []  # a heap, the largest hash first
        self.skipped = 0

    def __len__(self) -> int:
        return len(self._held)

    def take(self, partition: Partition, batch: pa.RecordBatch) -> None:
        hashes = [hash_of(id) for id in batch.column("decision_id").to_pylist()]
        places = [place for place, number in enumerate(hashes) if number < self._bound]
        if not places:
            return
        offsets = units(batch.column(OFFSET))
        for place, row in zip(places, records.rows_of_batch(batch.take(pa.array(places))), strict=True):
            one = (-hashes[place], partition, int(offsets[place]), row)
            if len(self._held) < self._limit:
                heapq.heappush(self._held, one)
            else:
                heapq.heappushpop(self._held, one)
                self.skipped += 1

    def rows(self) -> list[records.Row]:
        """In the order of the log."""
        return [row for _, _, _, row in sorted(self._held, key=lambda one: (one[1], one[2]))]


def hash_of(decision_id: str) -> int:
    """The same for the same decision everywhere, 64 bits, evenly spread."""
    return int.from_bytes(blake2b(decision_id.encode(), digest_size=8).digest(), "big")


def _read(rows: Sequence[records.Row], request: str) -> tuple[list[DecisionRecord], list[Difference]]:
    """The records of rows, and those that are none: headrace never wrote them, so they differ from what it would."""
    readable: list[DecisionRecord] = []
    broken: list[Difference] = []
    for row in rows:
        try:
            readable.append(records.from_row(row, request))
        except SchemaError as error:
            broken.append(Difference(decision_id=str(row[0]), what="record", recorded=str(error), recomputed=""))
    return readable, broken


def _places(path: Path) -> dict[Partition, int] | None:
    """What was remembered; None where there is nothing, or it cannot be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return {Partition(str(t), int(i), int(p)): int(offset) for t, i, p, offset in said["next"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        _logger.warning("%s cannot be read, the sampler begins at the log's end: %s", path.name, error)
        return None


def _name(state: TopicState) -> str:
    return state.topic.name.removeprefix(records.PREFIX)


def _live(state: TopicState) -> list[PartitionState]:
    return [held for held in state.partitions if held.partition.index < IMPORTS_FROM]
