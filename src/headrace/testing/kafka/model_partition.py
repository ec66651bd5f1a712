"""One partition as its leader holds it: records, markers, open transactions, what producers have sent. Memory only.

The one idea: every record that was ever appended lies at the place of its offset, and a place holds `None` where a
fetch of what is committed gives nothing: a marker, an aborted record, one that compaction took. A reader then needs the
last stable offset and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.clients.kafka.port import Outgoing, Record

BATCHES_KEPT = 5  # of a producer, by which a broker knows a batch that comes twice


class Batch(NamedTuple):
    """A batch as it was taken: its producer's epoch, the first and last number of its records, where it went."""

    epoch: int
    first: int
    last: int
    offset: int


@dataclass(slots=True)
class Held:
    """What a partition knows of a producer."""

    epoch: int
    batches: deque[Batch] = field(default_factory=lambda: deque(maxlen=BATCHES_KEPT))


class OutOfOrderError(Exception):
    """A batch is not the next one of its producer: nothing was taken."""


class StaleEpochError(Exception):
    """A producer of this id with a higher epoch wrote here already: nothing was taken."""


class ModelPartition:
    """entries: by offset less `start`; None is nothing that a reader gets. control: offsets of markers. created:
    offsets of records whose producer stamped them."""

    __slots__ = ("control", "created", "entries", "held", "leader", "leader_epoch", "open", "start")

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.leader_epoch = 0
        self.start = 0
        self.entries: list[Record | None] = []
        self.control: dict[int, bool] = {}  # True: a commit
        self.created: set[int] = set()
        self.open: dict[int, list[int]] = {}  # producer -> offsets of its open transaction
        self.held: dict[int, Held] = {}

    @property
    def end(self) -> int:
        """The high watermark: what is taken is on all in-sync replicas."""
        return self.start + len(self.entries)

    @property
    def stable(self) -> int:
        """The last stable offset."""
        return min((offsets[0] for offsets in self.open.values()), default=self.end)

    def append(
        self, records: Sequence[Outgoing], stamps: Sequence[int], *, producer: int, epoch: int, first: int, open: bool
    ) -> int:
        """Take a batch, once however often it comes. first: the number of its first record. open: it belongs to a
        transaction. Returns the first record's offset. Raises: OutOfOrderError, StaleEpochError."""
        held = self.held.get(producer)
        if held is None:
            held = self.held[producer] = Held(epoch)
        if epoch < held.epoch:
            raise StaleEpochError
        held.epoch = epoch
        last = first + len(records) - 1
        for batch in held.batches:
            if (batch.epoch, batch.first, batch.last) == (epoch, first, last):
                return batch.offset
        newest = held.batches[-1] if held.batches else None
        expected = newest.last + 1 if newest is not None and newest.epoch == epoch else 0
        if first != expected:
            raise OutOfOrderError
        offset = self.end
        for place, (record, stamp) in enumerate(zip(records, stamps, strict=True), offset):
            self.entries.append(Record(place, stamp, record.key, record.value, record.headers))
        held.batches.append(Batch(epoch, first, last, offset))
        if open:
            self.open.setdefault(producer, []).extend(range(offset, self.end))
        return offset

    def mark(self, producer: int, epoch: int, *, commit: bool) -> None:
        """The end of a producer's transaction here; a batch of a lower epoch is refused from now on."""
        offsets = self.open.pop(producer, [])
        if not commit:
            for offset in offsets:
                if offset >= self.start:
                    self.entries[offset - self.start] = None
        self.control[self.end] = commit
        self.entries.append(None)
        self.held.setdefault(producer, Held(epoch)).epoch = epoch

    def read(self, offset: int, count: int) -> tuple[list[Record], int]:
        """At most `count` committed records from `offset` on, and where it goes on."""
        place, stop, entries = offset - self.start, self.stable - self.start, self.entries
        found: list[Record] = []
        while place < stop and len(found) < count:
            entry = entries[place]
            if entry is not None:
                found.append(entry)
            place += 1
        while place < stop and entries[place] is None:
            place += 1
        return found, max(offset, self.start + place)

    def committed(self) -> list[Record]:
        """All that a reader gets, from the first that is kept to the last stable one."""
        return self.read(self.start, len(self.entries))[0]

    def retain(self, start: int) -> None:
        """Let go what lies before `start`, at most what is stable."""
        start = min(start, self.stable)
        if start > self.start:
            del self.entries[: start - self.start]
            self.start = start

    def truncate(self, end: int) -> None:
        """An unclean election: what lies at `end` or behind it is gone."""
        del self.entries[max(0, end - self.start) :]
        self.control = {offset: commit for offset, commit in self.control.items() if offset < end}
        self.created = {offset for offset in self.created if offset < end}
        left = {producer: [o for o in offsets if o < end] for producer, offsets in self.open.items()}
        self.open = {producer: offsets for producer, offsets in left.items() if offsets}
        for held in self.held.values():
            held.batches = deque((b for b in held.batches if b.offset < end), maxlen=BATCHES_KEPT)

    def compact(self) -> None:
        """Only the newest stable record of each key is left; records without a key stay."""
        newest = {record.key: record.offset for record in self.committed()}
        for offset in range(self.start, self.stable):
            record = self.entries[offset - self.start]
            if record is not None and record.key is not None and newest[record.key] != offset:
                self.entries[offset - self.start] = None
