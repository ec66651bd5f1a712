"""The log's port: topics, appends, reads, groups. What one SQLite file and a Kafka cluster both do.

Invariants every adapter keeps, and `headrace.testing.contracts.log` checks:
- offsets of a partition rise with each row and never change, whatever is sealed or compacted beneath them. Where
  `capabilities.gaps`, they rise by more than one now and then: what lies between is no event. So a cut is the newest
  row's offset + 1, or anything up to the next row's;
- an append is durable when `append` returns, and is there wholly or not at all, group offsets included, unless it was
  asked for row by row (`atomic=False`);
- no order over partitions is exposed; readers hold cuts;
- duplicates and quarantined rows occupy offsets and carry their verdict; readers that fold state skip them.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.errors import HaltedError, LogError, UsageError
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.log.define import Payload, Topic

# Columns that every batch read from the log starts with, before the topic's own fields in declared order.
OFFSET = "_offset"  # int64
AVAILABLE_AT = "_available_at"  # timestamp[us, UTC]: the running maximum of append instants (SEMANTICS 1.2)
EVENT_TIME = "_event_time"  # timestamp[us, UTC]: the event's time; the append instant where the topic names no field
VERDICT = "_verdict"  # uint8, a Verdict
SYSTEM_COLUMNS = (
    pa.field(OFFSET, pa.int64(), nullable=False),
    pa.field(AVAILABLE_AT, pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field(EVENT_TIME, pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field(VERDICT, pa.uint8(), nullable=False),
)


class Verdict(enum.IntEnum):
    """What the law says of a row (SEMANTICS 1.3, 1.4); stored with it, never judged again."""

    ACCEPTED = 0
    LATE = 1  # later than max_late: only training labels and *known now* see it
    DUPLICATE = 2  # same id, same payload, within dedup: counted, not taken
    CONFLICT = 3  # same id, another payload: quarantined
    AHEAD = 4  # event time further ahead than max_ahead: quarantined
    # A live row whose event_time field lay outside the declared skew, of a request topic: its _event_time is the append
    # instant (SEMANTICS 2.1). It is taken like ACCEPTED.
    RESTAMPED = 5
    MISPLACED = 6  # its key belongs into another partition: quarantined. Only where others may write


TAKEN = (Verdict.ACCEPTED, Verdict.RESTAMPED)
CARRIED = (*TAKEN, Verdict.LATE)  # what derived topics hold of their source: all that anything may see (SEMANTICS 5.1)
QUARANTINED = (Verdict.CONFLICT, Verdict.AHEAD, Verdict.MISPLACED)


class PartitionKind(enum.Enum):
    LIVE = "live"
    IMPORT = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """What is known of one partition. start: first offset still kept. end: the next offset, its stable end: no row lies
    at or behind it. available_at: the running maximum. sealed: an import that is complete; readers are not told of
    unsealed ones. rows: of an import, how many it holds. read: how far this process has read it, where that may be less
    than `end`. high: behind what is appended and not stable yet, too, where a transaction is open; None: nothing lies
    behind `end`."""

    partition: Partition
    kind: PartitionKind
    start: int
    end: int
    available_at: Instant
    sealed: bool
    rows: int | None = None
    read: int | None = field(default=None, compare=False)
    high: int | None = None

    @property
    def at_hand(self) -> int:
        """Below it rows are read without waiting for anybody."""
        return self.end if self.read is None else self.read


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """A topic as the log holds it: the definition in force, its incarnation, its partitions in order of index. source:
    of a derived topic, the incarnation of what it is derived of."""

    topic: Topic
    incarnation: int
    version: int
    partitions: tuple[PartitionState, ...]
    source: int | None = None


# Columns that rows of a derived topic end with, behind its own fields: where each was read of its source.
SOURCE_INCARNATION = "_source_incarnation"
SOURCE_PARTITION = "_source_partition"
SOURCE_OFFSET = "_source_offset"
SOURCE_COLUMNS = (
    pa.field(SOURCE_INCARNATION, pa.int32(), nullable=False),
    pa.field(SOURCE_PARTITION, pa.int32(), nullable=False),
    pa.field(SOURCE_OFFSET, pa.int64(), nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What derived rows have of the rows that they are of (SEMANTICS 5.1). source: the partition those lie in. The rest
    one a row: offsets there, which rise; available_at and event_times, int64 microseconds; verdicts, uint8."""

    source: Partition
    offsets: npt.NDArray[np.int64]
    available_at: npt.NDArray[np.int64]
    event_times: npt.NDArray[np.int64]
    verdicts: npt.NDArray[np.uint8]


Physical = bool | int | float | str | None  # instants in microseconds, decimals in units


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Rows for one partition, validated already (schemas.validate): the topic's fields in declared order.

    rows: an Arrow batch, or a few rows of physical values (the path of single events, which skips Arrow).
    available_at: of imports only, one instant a row, never falling; live partitions take the append instant.
    request: the rows are a decision's requests, which no clock refuses (SEMANTICS 2.1, Verdict.RESTAMPED).
    at: of live rows, the append instant, where the caller had to know it before (a decision's t is its request's event
    time); by default the log's clock says. begins: the offset that the first row must get, where what is appended was
    computed from all that lies before it; by default wherever the end is. Both only where `capabilities.conditional`.
    inherited: of rows for a derived topic, which are a batch then; by `Log.exclusive` only.
    """

    partition: Partition
    rows: pa.RecordBatch | Sequence[tuple[Physical, ...]]
    available_at: npt.NDArray[np.int64] | None = None
    request: bool = False
    at: Instant | None = None
    begins: int | None = None
    inherited: Inherited | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """Where an Append's rows went. offset: the first row's; of the end where there are none. One a row: verdicts,
    uint8; event_times and available_at, int64 microseconds; offsets, int64, which rise."""

    partition: Partition
    offset: int
    verdicts: npt.NDArray[np.uint8]
    event_times: npt.NDArray[np.int64]
    available_at: npt.NDArray[np.int64]
    sparse: npt.NDArray[np.int64] | None = None

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """sparse: these, where the log has gaps; without, one behind the other."""
        if self.sparse is not None:
            return self.sparse
        return np.arange(self.offset, self.offset + len(self.verdicts), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an adapter can do, for callers to branch on when they plan.

    conditional: an append may say where it must begin, and when it is. Without, others may always come first: what
    depends on the order is fenced by claims in the log (decisions/claims.py). gaps: offsets rise by more than one.
    shared: several processes read and write it as equals; then partitions have owners, and instants are the broker's.
    """

    name: str
    multi_process_write: bool
    transactions: bool
    durable: bool
    conditional: bool = True
    gaps: bool = False
    shared: bool = False


class Exclusive(ABC):
    """The writer by a name: of those that were made with it the one that was made last. One thread at a time.

    What it appends and how far it has read what it made that of are one transaction, so whoever comes next goes on
    where the last one got to, and nothing is written twice (docs/KAFKA.md K2).
    """

    @abstractmethod
    def cut(self) -> Cut:
        """How far its name has got, committed; asked anew with each call, and final once this writer is made: older
        ones were fenced before. Raises: LogError HR-0340 to HR-0342."""

    @abstractmethod
    def append(self, appends: Sequence[Append], *, cut: Cut) -> None:
        """Append all of them and move the name to `cut`, or nothing of both. They are not read back.

        Raises: FencedError HR-0344 (another was made with this name), LogError HR-0345 or HR-0343 (nothing was taken;
        ask `cut` again before you go on), HR-0311 (unknown: make another writer of this name and ask it). After any
        error but HR-0345 and HR-0343 this writer is over."""

    @abstractmethod
    def close(self) -> None:
        """Without waiting. Others need not wait for it either."""


Row = tuple[Physical, ...]


class Unreadable(NamedTuple):
    """A value that is no event of its topic. place: among those that were given. code: of the error that says why."""

    place: int
    code: str
    reason: str


class Decoded(NamedTuple):
    """rows: what could be read, the topic's fields in declared order. places: of each row, among the values given."""

    rows: pa.RecordBatch
    places: npt.NDArray[np.int64]
    unreadable: Sequence[Unreadable]


class EventCodec(ABC):
    """Of one definition of a topic, for live events or for an import's."""

    @abstractmethod
    def encode(self, rows: pa.RecordBatch | Sequence[Row]) -> list[bytes]:
        """A value for each row, in order. The rows are valid already."""

    @abstractmethod
    def decode(self, values: Sequence[bytes]) -> Decoded:
        """Rows in the order of their values. One that is no event of the topic harms no other."""

    @abstractmethod
    def check(self, batch: pa.RecordBatch) -> None:
        """Rows that came as Arrow, with the topic's fields and types: do they keep to its rules? Raises: SchemaError
        for the first that does not."""


class Log(ABC):
    """An append-only log of topics. All methods may be called from any thread; `append` by several is one commit."""

    capabilities: Capabilities

    @abstractmethod
    def topics(self, *, fresh: bool = True) -> tuple[TopicState, ...]:
        """Every topic, by name, those of `headrace.` included: a call sees what was durable before it. fresh: False
        allows what this log saw last, where asking anew costs a round trip."""

    @abstractmethod
    def declare(self, topic: Topic) -> TopicState:
        """Make a topic, or change it to this definition. Fields may be added (null before), defaults of time changed,
        partitions raised. Raises: LogError HR-0310 for a change that would change what is stored (a field's type, the
        key, the id, fewer partitions)."""

    @abstractmethod
    def drop(self, topic: str) -> None:
        """Forget a topic and its rows; a later `declare` of the name starts a new incarnation."""

    @abstractmethod
    def append(
        self,
        appends: Sequence[Append],
        *,
        group: str | None = None,
        cut: Cut | None = None,
        atomic: bool = True,
        patience: Duration | None = None,
    ) -> tuple[Appended, ...]:
        """Append all of them and, if given, move `group` to `cut`: one transaction, durable on return.

        atomic: False lets each row be durable for itself, which costs some logs less: after an error some may be there
        and others not, in each partition the first ones; and nothing of it lies within a transaction, so that no
        reader waits for it. On return all are durable, and read by this log: `Appended` says how each was judged.
        patience: in a log that several processes share, how long what is durable is waited for until it can be read,
        which another's open transaction may prevent; by default as long as a broker takes to be replaced.

        Raises: LogFullError, LogReadOnlyError, NotOwnerError, NotFoundError HR-0302 (no such topic or partition),
        LogError HR-0330 retryable (an append does not begin where it says): nothing was taken. An unknown outcome
        raises LogError HR-0311 with retryable=True: read before you retry; what is durable and cannot be read in time
        HR-0349, retryable.
        """

    @abstractmethod
    def read(
        self, partition: Partition, offset: int, *, end: int | None = None, rows_max: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        """Batches from `offset` to the end as it is now, in order, of at most rows_max rows: SYSTEM_COLUMNS, fields.
        No batch is empty. end: only rows below it.

        A field added after a row was written is null there. Unsealed imports are empty. Raises: LogError HR-0303 where
        `offset` was retained away, LogCorruptError HR-0304 with the place."""

    @abstractmethod
    def wait(self, cut: Cut, *, timeout: Duration) -> bool:
        """Until any partition of the cut holds more, or a partition appears in its topics; False on timeout."""

    @abstractmethod
    def group(self, name: str) -> Cut:
        """A consumer group's committed cut; empty for an unknown group."""

    @abstractmethod
    def import_partitions(
        self, topic: str, import_id: str, *, seal: bool = False, form: Payload = Payload.ARROW
    ) -> tuple[PartitionState, ...]:
        """The import's partitions, made unsealed at first call; `seal=True` makes all of their rows visible at once.

        One, or one for each live partition: then a row goes where its key would. form: of the rows, where the log has
        several; at the first call. A second call with a known id returns them with how many rows they hold, from which
        a broken import goes on."""

    def exclusive(self, name: str) -> Exclusive:
        """A writer of its own by this name, made now: older ones of the same name are fenced on return. Its group has
        the name too. Raises: UsageError HR-0366 where the log has none."""
        raise UsageError(
            "HR-0366",
            f"a log of kind {self.capabilities.name!r} has no derived topics",
            detail="one process owns it and reads all of its partitions, so no view needs them",
            hint='name a Kafka cluster in headrace.toml: log = "kafka://HOST:PORT"',
        )

    def halted(self) -> Mapping[Partition, HaltedError]:
        """Partitions that this log does not read on, as far as it has read, with what `read` and `append` raise for
        them; the others go on."""
        return {}

    def unfit(self, *, fresh: bool = True) -> LogError | None:
        """Why nothing that this process reads may be decided on: its clock is wrong, or may be. None where all is
        well. fresh: False says what was known last, without a round trip."""
        return None

    def kept(self, cut: Cut) -> Mapping[str, bytes]:
        """What this log has learned of a cut's partitions by reading them, as files to lie beside a state that stands
        there; `resume` takes them. None where verdicts are stored with the rows."""
        return {}

    def resume(self, kept: Mapping[str, bytes]) -> int:
        """Go on reading partitions where another process's log was, instead of from their starts; to be called before
        they are read. Returns how many these are. Rows are the same to the bit either way. What does not fit is passed
        over, and said in a log line. Raises: LogError HR-0340 to HR-0342, HR-0346."""
        return 0

    @abstractmethod
    def close(self) -> None:
        """Release the file; appends that were acknowledged are durable already."""
