"""Points and cuts: where a value is asked. Frozen, pure.

There is no order over partitions: a cut is a set of next offsets, one for each partition that was read (SEMANTICS 1.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """A partition of one incarnation of a topic. incarnation: raised each time a topic of this name is made anew.

    index: 0 to partitions - 1 are live; IMPORTS_FROM and above are sealed imports (SEMANTICS 1.5).
    """

    topic: str
    incarnation: int
    index: int

    def __str__(self) -> str:
        return f"{self.topic}#{self.incarnation}/{self.index}"


IMPORTS_FROM = 1_024  # above the largest number of live partitions a topic may declare


@dataclass(frozen=True, slots=True)
class Cut:
    """The next offset of each partition that was read; a partition it does not hold was not read at all."""

    offsets: tuple[tuple[Partition, int], ...] = ()

    @classmethod
    def of(cls, offsets: Mapping[Partition, int]) -> Cut:
        return cls(tuple(sorted(offsets.items())))

    def __iter__(self) -> Iterator[tuple[Partition, int]]:
        return iter(self.offsets)

    def __getitem__(self, partition: Partition) -> int:
        """The next offset; 0 for a partition that the cut does not hold, of which nothing is visible."""
        for held, offset in self.offsets:
            if held == partition:
                return offset
        return 0

    def holds(self, partition: Partition, offset: int) -> bool:
        """Whether the event there is visible."""
        return offset < self[partition]

    def topics(self) -> frozenset[str]:
        return frozenset(p.topic for p, _ in self.offsets)
