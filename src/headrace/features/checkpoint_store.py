"""Where checkpoints lie: the port, kept by a folder and by S3. Touches nothing itself.

The one idea: a checkpoint is a handful of files under one name, and it is there when its last file, the manifest, is.
So a reader never sees half of one, and a name that is there never changes; what a file holds is checked by the hash in
the manifest (`features.checkpoint`), never by the store.

Invariants every adapter keeps, and `headrace.testing.contracts.checkpoints` checks:
- `names` gives a name only after all files of its `put` are durable, and the same bytes come back for as long as it is
  there;
- of two that put one name at once at most one succeeds, the other gets HR-0566; the files of the two never mix;
- a `put` that fails or is killed leaves nothing that `names` gives; what it leaves is in `unfinished`;
- an error of the store is a StateError HR-0561 to HR-0565 that names the place, so that whoever decides can go on
  without a checkpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

MANIFEST = "manifest.json"  # the file that makes a checkpoint be there

Bytes = bytes | memoryview
Part = tuple[str, Sequence[Bytes]]  # a file's name, and its bytes in parts


class CheckpointStore(ABC):
    """Checkpoints by name. One thread at a time; several processes may hold the same place where `shared`.

    place: its address, for messages; no secrets. shared: others may be writing here now, so what is unfinished is
    removed only when it is old.
    """

    place: str
    shared: bool

    @abstractmethod
    def check(self) -> None:
        """Write, overwrite in vain, and remove something small: what is wrong with the place is said at start.

        Raises: StateError HR-0561 to HR-0565, HR-0569.
        """

    @abstractmethod
    def names(self, prefix: str) -> Sequence[str]:
        """Of the checkpoints that are there, those that begin so, sorted. Fresh: what was put before is in it."""

    @abstractmethod
    def unfinished(self, prefix: str) -> Sequence[str]:
        """Names that begin so and were begun and not finished, sorted: by a writer that died, or that writes now."""

    @abstractmethod
    def put(self, name: str, files: Iterable[Part]) -> None:
        """Keep the files under the name, durable on return. The last one is MANIFEST.

        files: taken one after the other, so that they need not be in memory together.
        Raises: StateError HR-0566 where the name is there, or another writes it now; HR-0561 to HR-0565.
        """

    @abstractmethod
    def get(self, name: str, file: str) -> bytes:
        """A file's bytes. Raises: StateError HR-0567 where it is not there; HR-0561, HR-0563 to HR-0565."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Let a checkpoint go, finished or not; one that is not there is gone already. The manifest goes first, where
        files go one by one. Raises: StateError HR-0561, HR-0563 to HR-0565."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections."""
