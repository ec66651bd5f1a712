"""What a checkpoint is called, and which ones stay. Pure.

    p3-00000041-9c1f0a52be77d310-00000000000000184022-5b0e6ad1c4f29377
    |  |        |                |                    the cut: a hash of it
    |  |        |                how far: the sum of the cut's offsets
    |  |        of what: the views' meanings, and the log they are of
    |  number: one more than the highest that was there
    part: which partitions, "all" where it is of all

The one idea: two cuts of one state are ordered by their sums, as offsets never fall. So a listing says which checkpoint
is furthest, and one that a process writes which slept while another went on does not stand before what is newer. No
clock is read: what is old, of others' or unfinished ones, is said by numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.core.errors import UsageError
from headrace.core.points import Cut

KEPT = 2  # so that one whose disk rotted still leaves one, with a longer tail to read
# Of another meaning, or unfinished: how many later ones of the part make it old. Two versions that serve side by side
# write in turns, so each keeps its own; sixteen take longer than any one writer.
OTHERS_KEPT = 16
WHOLE = "all"
_PART = re.compile(r"[a-z0-9_.]{1,64}\Z")
_NAME = re.compile(r"([a-z0-9_.]{1,64})-([0-9]{8,})-([0-9a-f]{16})-([0-9]{20,})-([0-9a-f]{16})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointName:
    """The parts of a name. kind, cut: 16 hexadecimal digits of a hash."""

    part: str
    number: int
    kind: str
    progress: int
    cut: str

    @classmethod
    def of(cls, cut: Cut, *, part: str, number: int, kind: str) -> CheckpointName:
        said = "\n".join(f"{partition} {offset}" for partition, offset in cut)
        return cls(part=part, number=number, kind=kind, progress=sum(offset for _, offset in cut), cut=short_hash(said))

    @classmethod
    def parse(cls, text: str) -> CheckpointName | None:
        """None for what is no checkpoint's name."""
        found = _NAME.match(text)
        if found is None:
            return None
        part, number, kind, progress, cut = found.groups()
        return cls(part=part, number=int(number), kind=kind, progress=int(progress), cut=cut)

    def __str__(self) -> str:
        return f"{self.part}-{self.number:08d}-{self.kind}-{self.progress:020d}-{self.cut}"

    @property
    def rank(self) -> tuple[int, int]:
        """Furthest last; of equally far ones the later."""
        return self.progress, self.number


def part_name(part: str) -> str:
    """As it stands in names; WHOLE for "". Raises: UsageError HR-0560 for what cannot stand there."""
    if not part:
        return WHOLE
    if not _PART.match(part):
        raise UsageError(
            "HR-0560",
            f"{part!r} cannot name a part of the partitions",
            detail="expected lower case letters, digits, '_', '.', 64 at most, as in 'p3'",
        )
    return part


def short_hash(text: str) -> str:
    """16 hexadecimal digits."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def parsed(names: Iterable[str]) -> list[CheckpointName]:
    """Those that are checkpoints' names, furthest last."""
    found = (CheckpointName.parse(name) for name in names)
    return sorted((name for name in found if name is not None), key=lambda name: name.rank)


def next_number(names: Sequence[CheckpointName]) -> int:
    return max((name.number for name in names), default=0) + 1


def outdated(there: Sequence[CheckpointName], written: CheckpointName, *, kept: int = KEPT) -> list[CheckpointName]:
    """What may go once `written` is there.

    Of its kind the `kept` furthest and the `kept` last written stay. Mostly these are the same; they differ where one
    that is damaged, or of a topic that was made anew, lies ahead of a state that began before it, and where a process
    writes that slept. Of another kind what is OTHERS_KEPT numbers older goes.
    """
    own = [name for name in there if name.kind == written.kind]
    stay = {written, *sorted(own, key=lambda name: name.rank)[-kept:]}
    stay.update(sorted(own, key=lambda name: name.number)[-kept:])
    return [name for name in there if (name.kind == written.kind and name not in stay) or _is_old(name, written)]


def abandoned(unfinished: Sequence[CheckpointName], number: int) -> list[CheckpointName]:
    """What nobody writes any more, seen from the number that is written now."""
    return [name for name in unfinished if name.number <= number - OTHERS_KEPT]


def _is_old(name: CheckpointName, written: CheckpointName) -> bool:
    return name.kind != written.kind and name.number <= written.number - OTHERS_KEPT
