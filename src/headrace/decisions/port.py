"""What deciding needs of the features: online answers at a request's place, and answers from the log alone.

The one idea: a decision asks twice for the same thing. Online state answers at the present cut, a replay at a recorded
one, and both give the same bits. Whoever wires a decider hands both in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.core.errors import HaltedError
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.decisions.plan import Answer
from headrace.log.define import Topic
from headrace.log.port import Log, Physical

Row = tuple[Physical, ...]
Validate = Callable[[Mapping[str, object]], Row]
Touched = Callable[[Row], tuple[Hashable, ...]]


class AskAt(Protocol):
    """Answers a request at an offset and t; ahead: rows just before it that share its commit."""

    def __call__(self, offset: int, row: Row, t: int, ahead: int = 0, /) -> tuple[Answer, ...]: ...


class Features(Protocol):
    """The online state of the views that a decision reads, as far as the log was read; one thread at a time."""

    @property
    def topics(self) -> tuple[str, ...]: ...

    @property
    def frontier(self) -> Cut: ...

    def catch_up(self, log: Log, *, upto: Cut | None = None, halts: dict[Partition, HaltedError] | None = None) -> int:
        """Read the log to its end; partitions that `upto` holds below its offset, to stand exactly there. halts: takes
        those of the others that the log does not read on, as the first raises otherwise."""

    def ingest_row(
        self, partition: Partition, offset: int, available_at: int, event_time: int, verdict: int, row: Row
    ) -> None: ...

    def asker(self, views: Sequence[str], request: Topic, partition: Partition) -> AskAt: ...

    def touches(self, request: Topic) -> Touched | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request whose features are asked again, at a cut a view; None: the view is not asked."""

    request: Partition
    offset: int
    row: Row
    t: Instant
    cuts: tuple[Cut | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldQuestion:
    """A request whose values one view is asked for that is held by partition (SEMANTICS 5.2). fingerprint: of the view
    as the asker means it. row: the request's, in its topic's declared order."""

    view: str
    fingerprint: str
    request: Partition
    offset: int
    row: Row
    t: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAnswer:
    """answer: None where there is none, and `absent` says why, as a record does. cut: where the view stands, also where
    it only cannot answer as of t; empty where nobody answered. proven: when the cut was last proven to be the log's
    end, by the asker's clock, never later than it was."""

    answer: Answer | None
    cut: Cut
    proven: Instant
    absent: str | None = None


class RemoteViews(Protocol):
    """Views that are held by partition, wherever they are held: in this process or another."""

    def ask(self, questions: Sequence[HeldQuestion], *, within: Duration) -> Sequence[HeldAnswer]:
        """An answer each, in order, within that time: what takes longer is absent. Raises nothing that another process
        can cause."""
        ...


class Recompute(Protocol):
    """Features from the log alone: for each question the views' answers in order, None where a cut is None."""

    def __call__(self, views: Sequence[str], questions: Sequence[Question]) -> Sequence[tuple[Answer | None, ...]]: ...
