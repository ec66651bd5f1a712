"""Nouns of producers and consumers: an event as a handler gets it, how it is tried again, what was set aside. Frozen,
pure.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import NamedTuple

from headrace.core.codec import Logical, Physical, logical
from headrace.core.errors import UsageError
from headrace.core.schema import DataType
from headrace.core.times import Duration, Instant

_GROUP = re.compile(r"[A-Za-z0-9._-]{1,120}\Z")


class Order(enum.Enum):
    """KEY: the events of a key one after the other. NONE: every event for itself."""

    KEY = "key"
    NONE = "none"


class Start(enum.Enum):
    """Where a group begins that has read nothing of a partition yet."""

    EARLIEST = "earliest"
    LATEST = "latest"


class Placed(NamedTuple):
    """Where an event is in its topic."""

    partition: int
    offset: int


class Event(NamedTuple):
    """An event as a handler gets it: `event["amount"]` is a Decimal, a datetime, an int, a str ..., or None.

    timestamp: the record's, as its topic says what that means. attempt: 1 the first time. row, names: behind `[]`.
    """

    topic: str
    partition: int
    offset: int
    key: str | int
    timestamp: Instant
    attempt: int
    headers: tuple[tuple[str, bytes], ...]
    row: tuple[Physical, ...]
    names: dict[str, tuple[int, DataType]]

    def __getitem__(self, name: str) -> Logical:  # type: ignore[override]  # a place by name, not by number
        place, type = self.names[name]
        return logical(self.row[place], type)

    def values(self) -> dict[str, Logical]:
        """All fields, in declared order."""
        return {name: logical(self.row[place], type) for name, (place, type) in self.names.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a failing event is tried again before it is set aside: as many attempts, and no attempt later than
    `within` after the first failure. Between two attempts: `first`, doubled each time, at most `longest`."""

    attempts: int = 10
    within: Duration = Duration.parse("2m")
    first: Duration = Duration.parse("100ms")
    longest: Duration = Duration.parse("20s")

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first.micros < 1 or self.longest.micros < self.first.micros:
            raise UsageError(
                "HR-0444",
                f"a budget of {self.attempts} attempts, {self.first} to {self.longest} apart",
                detail="expected at least 1 attempt, and 0 < first <= longest",
            )

    def wait(self, attempts: int) -> int:
        """Microseconds between the attempt of this number, which failed, and the next."""
        return min(self.first.micros << min(attempts - 1, 40), self.longest.micros)

    def spent(self, attempts: int, first_failed: int, now: int) -> bool:
        """Whether an event that failed so often gets no further attempt."""
        return attempts >= self.attempts or now + self.wait(attempts) - first_failed > self.within.micros


class Reason(enum.Enum):
    """Why an event was set aside. FAILED: its handler did, past the budget. BEHIND: an event of its key was set aside
    before it. The others are poison: no handler ever sees the record."""

    FAILED = "failed"
    BEHIND = "behind"
    UNREADABLE = "unreadable"
    UNFIT = "unfit"
    MISPLACED = "misplaced"

    @property
    def poison(self) -> bool:
        return self not in (Reason.FAILED, Reason.BEHIND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an attempt ended with. kind: the error's class, or its code where it has one."""

    reason: Reason
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A record in a group's quarantine.

    place: its offset in the quarantine topic's partition, which has the source's number. topic_id, partition, offset:
    where it came from. key, value: its bytes as they were. at: when it was set aside; first_failed: its first failure.
    released: it waits for a consumer to take it up.
    """

    place: int
    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    failure: Failure
    attempts: int
    first_failed: Instant
    at: Instant
    released: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a consumer did since it was made. handled: events whose handler returned. failed: attempts that did
    not. set_aside: by reason. released: events of the quarantine that were handled. void: results that no
    longer counted, as the partition had moved. buffered, running: now."""

    handled: int
    failed: int
    set_aside: dict[Reason, int]
    released: int
    void: int
    buffered: int
    running: int


def group_name(name: str) -> str:
    """Raises: UsageError HR-0435."""
    if not _GROUP.match(name):
        raise UsageError(
            "HR-0435", f"{name!r} cannot name a group", detail="expected 1 to 120 letters, digits, '.', '_', '-'"
        )
    return name


def quarantine_topic(topic: str, group: str) -> str:
    """The name of the Kafka topic that holds what `group` set aside of `topic`."""
    return f"{topic}.quarantine.{group}"
