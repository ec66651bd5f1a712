"""A cluster in memory, for tests of code that uses producers and consumers: no broker, no network, no waiting.

    messages = MemoryMessages()
    messages.make("payments", 3, {})
    with hr.Producer(messages, payments) as producer: ...
    hr.Consumer(messages, payments, group="mailer").run(handle, until="end")

It keeps what the real one keeps, where producers and consumers can tell: offsets with gaps where a transaction ended,
nothing visible of an open or aborted one, partitions that go from member to member one by one, commits refused from who
has them no more. `headrace.testing.contracts.sdk` runs over both. From any thread.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.clients.kafka.messages import LINGER, About, Polled
from headrace.clients.kafka.port import Fetched, GroupOffset, Headers, Place, Record, Span
from headrace.core.errors import FencedError, HeadraceError, LogError, NotFoundError
from headrace.core.times import Duration
from headrace.sdk.port import Delivered, Watcher

RECORD_BYTES_MAX = 1_048_588


@dataclass
class _Slot:
    """What lies at an offset. record: None where it is a transaction's end. open: its transaction is."""

    record: Record | None
    open: bool = False
    aborted: bool = False


@dataclass
class _Topic:
    id: str
    settings: Mapping[str, str]
    partitions: list[list[_Slot]]
    starts: list[int]


@dataclass
class _Group:
    members: list[MemoryReader] = field(default_factory=list)
    owners: dict[int, MemoryReader] = field(default_factory=dict)
    offsets: dict[int, GroupOffset] = field(default_factory=dict)


class MemoryMessages:
    """A cluster. `refuse(True)` makes every send fail from then on, as with no broker; `depose` takes a member's
    partitions as a session timeout does."""

    def __init__(self, *, prefix: str = "") -> None:
        self._prefix = prefix
        self._cluster_id = uuid.uuid4().hex
        self._changed = threading.Condition()  # reentrant
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._producers: dict[str, MemoryOutbox] = {}
        self._refusing = False

    # --- what a test does to it ---

    def refuse(self, refusing: bool) -> None:
        """Whether sends fail."""
        self._refusing = refusing

    def depose(self, group: str, topic: str, member: int = 0) -> None:
        """The member is taken for dead: it loses its partitions, and hears of it when it polls next."""
        with self._changed:
            found = self._groups[group, topic]
            deposed = found.members.pop(member)
            found.owners = {index: each for index, each in found.owners.items() if each is not deposed}
            deposed.deposed = True
            self._changed.notify_all()

    def members(self, group: str, topic: str) -> int:
        """How many a group has."""
        with self._changed:
            return len(self._groups[group, topic].members)

    def put(self, place: Place, key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
        """A record as any client could write it."""
        with self._changed:
            return self._append(place, key, value, headers, open=False)

    def delete(self, topic: str) -> None:
        """With its groups' offsets."""
        with self._changed:
            self._topic(topic)
            del self._topics[topic]
            for (_, name), group in self._groups.items():
                if name == topic:
                    group.offsets.clear()

    def retain(self, place: Place, start: int) -> None:
        """Records below `start` are gone."""
        with self._changed:
            self._topic(place.topic).starts[place.partition] = start

    def records(self, topic: str) -> list[tuple[int, Record]]:
        """All that is committed, with the partitions."""
        with self._changed:
            found = self._topic(topic)
            return [
                (index, slot.record)
                for index, slots in enumerate(found.partitions)
                for slot in slots[: _stable(slots)]
                if slot.record is not None and not slot.aborted
            ]

    # --- sdk.port.Messages ---

    def topic_name(self, topic: str) -> str:
        return self._prefix + topic

    def about(self, topic: str) -> About:
        with self._changed:
            found = self._topic(topic)
            return About(
                cluster_id=self._cluster_id,
                topic_id=found.id,
                partitions=len(found.partitions),
                record_bytes_max=int(found.settings.get("max.message.bytes", RECORD_BYTES_MAX)),
            )

    def make(self, topic: str, partitions: int, settings: Mapping[str, str]) -> None:
        with self._changed:
            if topic not in self._topics:
                slots: list[list[_Slot]] = [[] for _ in range(partitions)]
                self._topics[topic] = _Topic(uuid.uuid4().hex, dict(settings), slots, [0] * partitions)

    def spans(self, places: Sequence[Place]) -> list[Span]:
        with self._changed:
            return [self._span(place) for place in places]

    def committed(self, group: str, places: Sequence[Place]) -> dict[Place, GroupOffset]:
        with self._changed:
            return {
                place: found.offsets[place.partition]
                for place in places
                if (found := self._groups.get((group, place.topic))) is not None and place.partition in found.offsets
            }

    def outbox(
        self,
        *,
        buffered_max: int,
        linger: Duration = LINGER,
        transactional_id: str | None = None,
        record_bytes_max: int,
    ) -> MemoryOutbox:
        """Nothing waits for others here."""
        outbox = MemoryOutbox(self, buffered_max)
        if transactional_id is not None:
            with self._changed:
                older = self._producers.get(transactional_id)
                if older is not None:
                    older.fence()
                self._producers[transactional_id] = outbox
        return outbox

    def join(self, group: str, topic: str, watcher: Watcher) -> MemoryReader:
        with self._changed:
            self._topic(topic)
            reader = MemoryReader(self, group, topic, watcher)
            self._groups.setdefault((group, topic), _Group()).members.append(reader)
            self._changed.notify_all()
            return reader

    def tail(self) -> MemoryTail:
        return MemoryTail(self)

    def close(self) -> None:
        """Its topics stay, as a cluster's do."""

    # --- inside: under the lock ---

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            raise NotFoundError("HR-0302", f"the Kafka cluster has no topic {name!r}")
        return self._topics[name]

    def _span(self, place: Place) -> Span:
        topic = self._topic(place.topic)
        slots = topic.partitions[place.partition]
        return Span(topic.starts[place.partition], _stable(slots), len(slots))

    def _append(self, place: Place, key: bytes | None, value: bytes | None, headers: Headers, *, open: bool) -> int:
        slots = self._topic(place.topic).partitions[place.partition]
        record = Record(len(slots), time.time_ns() // 1_000_000, key, value, headers)
        slots.append(_Slot(record, open=open))
        self._changed.notify_all()
        return record.offset

    def _read(self, place: Place, offset: int, records_max: int) -> tuple[list[Record], int, bool]:
        """Records from an offset on, the next offset, whether that is the end. Raises: LogError HR-0303, HR-0347."""
        span, slots = self._span(place), self._topic(place.topic).partitions[place.partition]
        if offset < span.start:
            raise LogError("HR-0303", f"{place.topic}/{place.partition}: offset {offset:,} is gone", start=span.start)
        if offset > span.high:
            raise LogError("HR-0347", f"partition {place.topic}/{place.partition} ends at {span.high:,}")
        records: list[Record] = []
        while offset < span.end and len(records) < records_max:
            slot = slots[offset]
            if slot.record is not None and not slot.aborted:
                records.append(slot.record)
            offset += 1
        return records, offset, offset >= span.end


class MemoryOutbox:
    """See sdk.port.Outbox. A send is in the topic at once, and answered by `serve`."""

    def __init__(self, messages: MemoryMessages, buffered_max: int) -> None:
        self._messages = messages
        self._buffered_max = buffered_max
        self._waiting: list[tuple[Delivered, int, HeadraceError | None]] = []
        self._sent: list[tuple[Place, _Slot]] = []
        self._in_transaction = False
        self._fenced = False

    def post(
        self, place: Place, key: bytes | None, value: bytes | None, headers: Headers, delivered: Delivered
    ) -> bool:
        messages = self._messages
        with messages._changed:
            if len(self._waiting) >= self._buffered_max:
                return False
            if messages._refusing:
                down = LogError("HR-0340", "no broker of the cluster in memory answers", retryable=True)
                self._waiting.append((delivered, -1, down))
                return True
            offset = messages._append(place, key, value, headers, open=self._in_transaction)
            if self._in_transaction:
                self._sent.append((place, messages._topic(place.topic).partitions[place.partition][offset]))
            self._waiting.append((delivered, offset, None))
            return True

    def serve(self, timeout: Duration) -> None:
        with self._messages._changed:
            answered, self._waiting = self._waiting, []
        for delivered, offset, error in answered:
            delivered(offset, error)
        if not answered and timeout.micros:
            time.sleep(min(timeout.micros / 1e6, 0.001))

    def begin(self) -> None:
        self._check()
        self._in_transaction = True

    def commit(self) -> None:
        self._check()
        self._end(aborted=False)

    def abort(self) -> None:
        self._check()
        self._end(aborted=True)

    def close(self) -> None:
        with self._messages._changed:
            self._end(aborted=True)
        self.serve(Duration(0))

    def fence(self) -> None:
        """A newer one has the name: what is open is aborted, nothing more goes through."""
        self._end(aborted=True)
        self._fenced = True

    def _check(self) -> None:
        if self._fenced:
            raise FencedError("HR-0344", "another process took over")

    def _end(self, *, aborted: bool) -> None:
        with self._messages._changed:
            for _, slot in self._sent:
                slot.open, slot.aborted = False, aborted
            for place in dict.fromkeys(place for place, _ in self._sent):
                # the end of a transaction occupies an offset, and is no event
                self._messages._topic(place.topic).partitions[place.partition].append(_Slot(None))
            self._sent = []
            self._in_transaction = False
            self._messages._changed.notify_all()


class MemoryReader:
    """See sdk.port.Member."""

    def __init__(self, messages: MemoryMessages, group: str, topic: str, watcher: Watcher) -> None:
        self._messages = messages
        self._group = group
        self._topic = topic
        self._watcher = watcher
        self._positions: dict[int, int] = {}
        self._paused: set[int] = set()
        self._told: dict[int, int] = {}
        self.deposed = False

    def poll(self, *, timeout: Duration, records_max: int) -> Polled:
        deadline = time.monotonic() + timeout.micros / 1e6
        while True:
            self._rebalance()
            with self._messages._changed:
                polled = self._found(records_max)
                left = deadline - time.monotonic()
                if polled.records or polled.ends or left <= 0:
                    return polled
                self._messages._changed.wait(left)

    def pause(self, partitions: Sequence[int]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[int]) -> None:
        self._paused.difference_update(partitions)

    def seek(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset
        self._told.pop(partition, None)
        self._paused.discard(partition)

    def commit(self, offsets: Mapping[int, GroupOffset], *, wait: bool) -> None:
        with self._messages._changed:
            group = self._messages._groups[self._group, self._topic]
            for index, offset in offsets.items():
                if group.owners.get(index) is not self:
                    raise LogError("HR-0446", f"group {self._group!r} did not take a commit", retryable=True)
                group.offsets[index] = offset

    def leave(self) -> None:
        self._give_up(list(self._positions))
        with self._messages._changed:
            members = self._messages._groups[self._group, self._topic].members
            if self in members:
                members.remove(self)
            self._messages._changed.notify_all()

    def _rebalance(self) -> None:
        """One step: partitions that go are given up before their next owner gets them."""
        messages = self._messages
        with messages._changed:
            group = messages._groups[self._group, self._topic]
            lost = self.deposed
        if lost:
            self.deposed = False
            gone = list(self._positions)
            self._positions.clear()
            self._told.clear()
            self._watcher.lost(gone)
            with messages._changed:
                group.members.append(self)
                messages._changed.notify_all()
        with messages._changed:
            count = len(messages._topic(self._topic).partitions)
            mine = group.members.index(self)
            wanted = {index for index in range(count) if index % len(group.members) == mine}
            going = [index for index in self._positions if index not in wanted]
        if going:
            self._give_up(going)
        with messages._changed:
            coming = [index for index in sorted(wanted - set(self._positions)) if index not in group.owners]
            for index in coming:
                group.owners[index] = self
        if coming:
            self._positions.update(self._watcher.assigned(coming))

    def _give_up(self, partitions: Sequence[int]) -> None:
        self._watcher.revoked(partitions)
        with self._messages._changed:
            group = self._messages._groups[self._group, self._topic]
            for index in partitions:
                self._positions.pop(index, None)
                self._told.pop(index, None)
                self._paused.discard(index)
                if group.owners.get(index) is self:
                    del group.owners[index]
            self._messages._changed.notify_all()

    def _found(self, records_max: int) -> Polled:
        records: list[tuple[int, Record]] = []
        ends: dict[int, int] = {}
        for index, position in self._positions.items():
            if index in self._paused:
                continue
            found, after, at_end = self._messages._read(Place(self._topic, index), position, records_max - len(records))
            records += [(index, each) for each in found]
            self._positions[index] = after
            if at_end and self._told.get(index) != after:
                ends[index] = self._told[index] = after
        return Polled(records, ends)


class MemoryTail:
    """See sdk.port.Tail."""

    def __init__(self, messages: MemoryMessages) -> None:
        self._messages = messages
        self._positions: dict[Place, int] = {}

    def seek(self, place: Place, offset: int) -> None:
        self._positions[place] = offset

    def drop(self, place: Place) -> None:
        self._positions.pop(place, None)

    def fetch(self, *, timeout: Duration) -> Sequence[Fetched]:
        fetched = []
        with self._messages._changed:
            for place, position in self._positions.items():
                records, after, at_end = self._messages._read(place, position, 10_000)
                self._positions[place] = after
                fetched.append(Fetched(place, records, after, at_end))
        return fetched

    def close(self) -> None:
        self._positions.clear()


def _stable(slots: Sequence[_Slot]) -> int:
    return next((offset for offset, slot in enumerate(slots) if slot.open), len(slots))
