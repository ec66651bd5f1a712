"""What producers and consumers need of a cluster: sends that are answered later, a place in a group, a look at ends.

`clients.kafka.messaging` has it over real Kafka, `testing.kafka.messages` without a broker; neither imports this: they
fit by shape. `headrace.testing.contracts.sdk` checks both through the producers and consumers above them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headrace.clients.kafka.messages import LINGER, About, Polled
from headrace.clients.kafka.port import Fetched, GroupOffset, Headers, Place, Span
from headrace.core.errors import HeadraceError
from headrace.core.times import Duration

Delivered = Callable[[int, HeadraceError | None], None]


class Outbox(Protocol):
    """Sends records: idempotent, acknowledged by all in-sync replicas. From any thread."""

    def post(
        self, place: Place, key: bytes | None, value: bytes | None, headers: Headers, delivered: Delivered
    ) -> bool:
        """Take a record; False where the buffer is full. delivered: called once by `serve`, with its offset, or with
        an error: LogError HR-0311 (it may be there all the same), or another (it is not). Raises: LogError HR-0343."""

    def serve(self, timeout: Duration) -> None:
        """Call what is answered; returns early where something was."""

    def begin(self) -> None: ...

    def commit(self) -> None:
        """Raises: LogError HR-0345, HR-0311, FencedError HR-0344."""

    def abort(self) -> None: ...

    def close(self) -> None:
        """Without waiting."""


class Watcher(Protocol):
    """Told of a member's partitions, inside its `poll` and `leave`. It may take its time, if not too long."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """The offsets to read them from."""

    def revoked(self, partitions: Sequence[int]) -> None:
        """They go when this returns; commits still count."""

    def lost(self, partitions: Sequence[int]) -> None:
        """They are gone, and may be at work elsewhere."""


class Member(Protocol):
    """A member of a group, of one topic. One thread."""

    def poll(self, *, timeout: Duration, records_max: int) -> Polled:
        """Committed records that have come, each partition's in order. ends: of partitions whose end was reached behind
        them, the offset of it. Raises: LogError HR-0303, HR-0347, HR-0341, HR-0342, NotFoundError HR-0302; what passes
        by itself is not raised."""

    def pause(self, partitions: Sequence[int]) -> None:
        """Until `resume`, or until they are given anew: whoever gets a partition, again too, reads it."""

    def resume(self, partitions: Sequence[int]) -> None: ...

    def seek(self, partition: int, offset: int) -> None:
        """Read on there, also where it was paused."""

    def commit(self, offsets: Mapping[int, GroupOffset], *, wait: bool) -> None:
        """wait: until it is durable. Raises: LogError HR-0446 where the group did not take it."""

    def leave(self) -> None:
        """`Watcher.revoked` is called first."""


class Tail(Protocol):
    """Reads partitions of any topic, as `clients.kafka.port.Fetcher` does. One thread."""

    def seek(self, place: Place, offset: int) -> None: ...

    def drop(self, place: Place) -> None: ...

    def fetch(self, *, timeout: Duration) -> Sequence[Fetched]: ...

    def close(self) -> None: ...


class Messages(Protocol):
    """A cluster, as producers and consumers see it. From any thread."""

    def topic_name(self, topic: str) -> str:
        """Its name in the cluster, where names begin with the prefix of the address."""

    def about(self, topic: str) -> About:
        """Raises: NotFoundError HR-0302, LogError HR-0340 to HR-0342."""

    def make(self, topic: str, partitions: int, settings: Mapping[str, str]) -> None:
        """Make a topic unless it is there."""

    def spans(self, places: Sequence[Place]) -> list[Span]: ...

    def committed(self, group: str, places: Sequence[Place]) -> dict[Place, GroupOffset]: ...

    def outbox(
        self,
        *,
        buffered_max: int,
        linger: Duration = LINGER,
        transactional_id: str | None = None,
        record_bytes_max: int,
    ) -> Outbox:
        """linger: a record waits so long for others of its partition, which go with it."""
        ...

    def join(self, group: str, topic: str, watcher: Watcher) -> Member: ...

    def tail(self) -> Tail: ...

    def close(self) -> None: ...
