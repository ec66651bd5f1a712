"""What the log needs of Kafka, no more: topics, acknowledged sends, transactions, fetches to the stable end, groups.

The one idea: what a protocol depends on is said here, so that the same code runs over a cluster
(`clients.kafka.confluent`) and over a model of one (`testing.kafka.model`), which fails on purpose. Everything is
synchronous and owns no thread that a caller could see; a call returns within its limit or raises.

Invariants every adapter keeps, and `headrace.testing.contracts.kafka` checks:
- a fetch gives only what is committed, below the last stable offset, in order of offsets, each once per `seek`;
- `at_end` is Kafka's own word that nothing follows now, never a comparison of offsets: control and aborted records
  occupy offsets and are not given;
- what a send returns is acknowledged by all in-sync replicas; a send that fails says whether it may be there all the
  same (HR-0311) or is certainly not (every other code);
- of two senders with one transactional id only the newer sends: the older's next call raises FencedError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headrace.core.times import Duration

Headers = tuple[tuple[str, bytes], ...]


class Place(NamedTuple):
    """A partition of a Kafka topic, by the topic's own name."""

    topic: str
    partition: int


class Outgoing(NamedTuple):
    """A record to send. timestamp: milliseconds; where the topic stamps by the log's append time, it is overwritten."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int | None = None


class Record(NamedTuple):
    """A committed record. timestamp: milliseconds, as the topic says what it means."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Fetched(NamedTuple):
    """What a fetch found of one partition. next: where it goes on, past what was given and past control and aborted
    records that were met. at_end: nothing that is stable lies at `next` or behind it. created: offsets of records
    whose timestamp is their producer's (CreateTime); all others have their broker's."""

    place: Place
    records: Sequence[Record]
    next: int
    at_end: bool
    created: Sequence[int] = ()


class Span(NamedTuple):
    """start: the first offset that is kept. end: the last stable offset; open transactions lie behind it. high: the
    high watermark: where it is above `end` for long, a transaction is open."""

    start: int
    end: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """id: as Kafka gives it, anew for each topic that is made, whatever its name."""

    name: str
    id: str
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """id: of the cluster. brokers: how many are up. topics: by name, those whose name begins as asked."""

    id: str
    brokers: int
    topics: Mapping[str, TopicFacts]


class Acknowledged(NamedTuple):
    """Records that a send is certain of, in order. stamps: milliseconds at which their brokers appended them, which is
    what a fetch will say; None where a producer stamped one of them."""

    offsets: list[int]
    stamps: list[int] | None


class BrokerTime(NamedTuple):
    """What a broker's clock said, microseconds."""

    broker: int
    at: int


class GroupOffset(NamedTuple):
    """A committed offset and the text kept beside it."""

    offset: int
    note: str


class Sender(ABC):
    """Sends records: idempotent, acknowledged by all in-sync replicas, in order within a partition. One thread at a
    time.

    After HR-0311 a sender without transactional id sends nothing more (FencedError): what came before is unknown, so
    nothing may come behind it; make a new one and read first.
    """

    @abstractmethod
    def send(self, records: Sequence[Outgoing]) -> Acknowledged:
        """Where they lie, when all are acknowledged; inside a transaction they are not stable yet.

        Raises: LogError HR-0311 (unknown), HR-0343 (one is too large: none was sent), HR-0345 (the transaction must be
        aborted), HR-0340 (no broker answered, nothing was sent), HR-0341, HR-0342; FencedError HR-0344.
        """

    @abstractmethod
    def begin(self) -> None:
        """A transaction. Only with a transactional id."""

    @abstractmethod
    def commit(self, *, group: str | None = None, offsets: Mapping[Place, GroupOffset] | None = None) -> None:
        """The transaction's end: its records and, if given, the group's offsets, all or none.

        Raises: LogError HR-0345 (it must be aborted), HR-0311 (unknown: a new sender with the same id ends it either
        way before it is made); FencedError HR-0344."""

    @abstractmethod
    def abort(self) -> None:
        """Give the transaction up. Raises: FencedError HR-0344, LogError HR-0311."""

    @abstractmethod
    def close(self) -> None:
        """Without waiting; an open transaction is aborted by the broker, at the latest after its timeout."""


class Fetcher(ABC):
    """Reads partitions from places on. One thread at a time."""

    @abstractmethod
    def seek(self, place: Place, offset: int) -> None:
        """Read this partition too, or go on there. What was fetched of it and not yet given is dropped."""

    @abstractmethod
    def drop(self, place: Place) -> None:
        """Read it no more."""

    @abstractmethod
    def fetch(self, *, timeout: Duration, records_max: int = 10_000) -> Sequence[Fetched]:
        """What has come, at most one entry a partition; empty after `timeout` (ZERO: what is here already).

        A partition at its end is told so once each time that it gets there. Raises: LogError HR-0303 (its offset was
        retained away), HR-0347 (TRUNCATED: the log ends before the offset), HR-0340, HR-0341, HR-0342, NotFoundError
        HR-0302."""

    @abstractmethod
    def close(self) -> None: ...


class Assignment(NamedTuple):
    """The partitions that a member has now. epoch: rises with each change, for this member."""

    places: frozenset[Place]
    epoch: int


class Member(ABC):
    """A member of a group that shares partitions. It must poll more often than the session timeout, or is taken for
    dead."""

    @abstractmethod
    def poll(self, *, timeout: Duration) -> Assignment:
        """What it has now; returns early where that changes. Partitions that are lost are lost when this says so or
        before: fence what you write. Raises: LogError HR-0340 to HR-0342."""

    @abstractmethod
    def leave(self) -> None:
        """At once, so that others need not wait for the session timeout."""


class KafkaClient(ABC):
    """A cluster. Methods may be called from any thread; what they make belongs to one."""

    @abstractmethod
    def cluster(self, prefix: str = "") -> Cluster:
        """Fresh. Raises: LogError HR-0340 (cannot be reached), HR-0341 (credentials refused), within 10 s."""

    @abstractmethod
    def create(self, topic: str, *, partitions: int, settings: Mapping[str, str]) -> TopicFacts:
        """Make a topic, known to the cluster on return. Raises: LogError HR-0348 (it is there), HR-0342."""

    @abstractmethod
    def alter(self, topic: str, *, partitions: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        """More partitions, other settings; idempotent."""

    @abstractmethod
    def delete(self, topic: str) -> None:
        """Gone on return. Raises: NotFoundError HR-0302."""

    @abstractmethod
    def spans(self, places: Sequence[Place]) -> list[Span]:
        """Fresh, in order. Raises: NotFoundError HR-0302, LogError HR-0340 to HR-0342."""

    @abstractmethod
    def settings(self, topic: str) -> Mapping[str, str]:
        """What it is set to, by Kafka's names, the cluster's defaults included. Raises: NotFoundError HR-0302, LogError
        HR-0342 where this user may not ask."""

    @abstractmethod
    def leaders(self, topic: str) -> Mapping[int, int]:
        """Who leads each partition that has a leader: broker ids. Raises: NotFoundError HR-0302, LogError HR-0340 to
        HR-0342."""

    @abstractmethod
    def broker_times(self, topic: str) -> Sequence[BrokerTime]:
        """What the clocks of the brokers say that lead the partitions of `topic`, which stamps by append time: a record
        without value and with the key "probe" is appended to each partition, as no API of Kafka tells the time.

        One a broker, by id; who does not answer within 2 s is left out. Raises: as `leaders`."""

    @abstractmethod
    def group_offsets(self, group: str, places: Sequence[Place]) -> dict[Place, GroupOffset]:
        """What a group has committed, stable; places without are not there."""

    @abstractmethod
    def sender(self, *, transactional_id: str | None = None) -> Sender:
        """With a transactional id: older senders with it are fenced, what they left open is ended, on return."""

    @abstractmethod
    def fetcher(self, *, eager: bool = False) -> Fetcher:
        """eager: what comes is fetched at once, and else with what comes in the next moments, 50 ms or so: brokers then
        answer far fewer fetches."""

    @abstractmethod
    def member(self, group: str, topics: Sequence[str], *, name: str = "") -> Member:
        """Joins. name: told to others who describe the group, as a server's address."""

    @abstractmethod
    def members(self, group: str) -> Mapping[Place, str]:
        """Who has which partition: the members' names, as the coordinator knows them now."""

    @abstractmethod
    def close(self) -> None: ...
