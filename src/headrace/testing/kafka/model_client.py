"""A client of the model: the port of Kafka's client over `KafkaModel`, each of its calls through a wire. Memory only.

The one idea: what a process knows lies here and dies with it, what the cluster knows lies in the model; between them is
the wire, which may lose, repeat or delay what it carries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.clients.kafka.port import (
    Acknowledged,
    Assignment,
    BrokerTime,
    Cluster,
    Fetched,
    Fetcher,
    GroupOffset,
    KafkaClient,
    Member,
    Outgoing,
    Place,
    Sender,
    Span,
    TopicFacts,
)
from headrace.core.errors import FencedError, LogError
from headrace.core.times import ZERO, Duration, Instant
from headrace.testing.kafka.model import RECORD_BYTES_MAX, TRANSACTION_TIMEOUT, KafkaModel, ModelTopic
from headrace.testing.kafka.model_wire import Direct, Kind, Wire, deadline, fenced, given_up, unknown, unreachable

SESSION_TIMEOUT = Duration.parse("6s")
BATCH_RECORDS = 1_000
SETTLED_WITHIN = Duration.parse("10s")  # that a client waits for another's transaction to end
_NOT_TAKEN = (-1, None)
POLLS_A_SESSION = 3  # signs of life while a member waits


class ModelClient(KafkaClient):
    """One process's. wire: by default nothing fails. batch: records that travel as one, which are there together."""

    def __init__(
        self,
        model: KafkaModel,
        *,
        wire: Wire | None = None,
        session_timeout: Duration = SESSION_TIMEOUT,
        transaction_timeout: Duration = TRANSACTION_TIMEOUT,
        batch: int = BATCH_RECORDS,
    ) -> None:
        self.model = model
        self.wire: Wire = Direct() if wire is None else wire
        self.session_timeout = session_timeout
        self.transaction_timeout = transaction_timeout
        self.batch = batch

    def cluster(self, prefix: str = "") -> Cluster:
        return self.wire.call(Kind.READ, "cluster", lambda: self.model.cluster(prefix))

    def create(self, topic: str, *, partitions: int, settings: Mapping[str, str]) -> TopicFacts:
        return self.wire.call(Kind.CHANGE, "create", lambda: self.model.create(topic, partitions, settings))

    def alter(self, topic: str, *, partitions: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.wire.call(Kind.CHANGE, "alter", lambda: self.model.alter(topic, partitions, settings))

    def delete(self, topic: str) -> None:
        self.wire.call(Kind.CHANGE, "delete", lambda: self.model.delete(topic))

    def spans(self, places: Sequence[Place]) -> list[Span]:
        def apply() -> list[Span]:
            self.model.settle()
            return [self.model.span(place) for place in places]

        return self.wire.call(Kind.READ, "spans", apply)

    def settings(self, topic: str) -> Mapping[str, str]:
        return self.wire.call(Kind.READ, "settings", lambda: self.model.settings(topic))

    def leaders(self, topic: str) -> Mapping[int, int]:
        return self.wire.call(Kind.READ, "leaders", lambda: self.model.leaders(topic))

    def broker_times(self, topic: str) -> Sequence[BrokerTime]:
        return self.wire.call(Kind.READ, "broker_times", lambda: self.model.broker_times(topic))

    def group_offsets(self, group: str, places: Sequence[Place]) -> dict[Place, GroupOffset]:
        def stable() -> bool:
            self.model.settle()
            return not self.model.unsettled(group)

        def apply() -> dict[Place, GroupOffset] | None:
            if not stable():
                return None
            held = self.model.group(group).offsets
            return {place: held[place] for place in places if place in held}

        found = self.wire.call(Kind.READ, "group_offsets", apply)
        if found is None:
            self.wire.wait(deadline(self.model.clock, SETTLED_WITHIN), stable)
            found = self.wire.call(Kind.READ, "group_offsets", apply)
        if found is None:
            raise unreachable(f"a transaction with offsets of group {group!r} is open")
        return found

    def sender(self, *, transactional_id: str | None = None) -> Sender:
        return ModelSender(self, transactional_id)

    def fetcher(self, *, eager: bool = False) -> Fetcher:
        return ModelFetcher(self)

    def member(self, group: str, topics: Sequence[str], *, name: str = "") -> Member:
        return ModelMember(self, group, tuple(topics), name)

    def members(self, group: str) -> Mapping[Place, str]:
        return self.wire.call(Kind.READ, "members", lambda: self.model.group(group).holders(self.model.clock.now()))

    def close(self) -> None:
        return None


class ModelSender(Sender):
    """Numbers its records by partition, so that a batch that comes twice is known."""

    def __init__(self, client: ModelClient, id: str | None) -> None:
        self._client, self._model, self._wire = client, client.model, client.wire
        self._id = id
        self._next: dict[Place, int] = {}
        self._dead: str | None = None  # why nothing more is sent
        self._failed = False  # the transaction must be aborted
        self._open = False
        self._epoch = 0
        if id is None:
            self._producer = self._wire.call(Kind.START, "producer", self._model.producer)
        else:
            self._producer, self._epoch = self._wire.call(
                Kind.START, "initialise", lambda: self._model.initialise(id, client.transaction_timeout)
            )

    def send(self, records: Sequence[Outgoing]) -> Acknowledged:
        self._alive()
        if self._id is not None and not self._open:
            raise ValueError("a sender with a transactional id sends within a transaction")
        if self._failed:
            raise given_up("it failed before")
        for record in records:
            size, most = _size(record), _bytes_max(self._model.topics.get(record.place.topic))
            if size > most:
                raise LogError(
                    "HR-0343",
                    f"topic {record.place.topic!r}: a record of {size:,} bytes",
                    detail=f"expected at most {most:,}",
                    hint="send fewer fields, or raise max.message.bytes of the topic",
                )
        by_place: dict[Place, list[int]] = {}
        for index, record in enumerate(records):
            self._model.partition(record.place)
            by_place.setdefault(record.place, []).append(index)
        taken: list[tuple[int, int | None]] = [_NOT_TAKEN] * len(records)
        errors: list[LogError] = []
        for place, indices in by_place.items():
            errors += self._send_place(place, [records[i] for i in indices], indices, taken)
        if errors:
            raise self._worst(errors, any(each is not _NOT_TAKEN for each in taken))
        stamps = [stamp for _, stamp in taken if stamp is not None]
        return Acknowledged([offset for offset, _ in taken], stamps if len(stamps) == len(taken) else None)

    def _send_place(
        self,
        place: Place,
        records: Sequence[Outgoing],
        indices: Sequence[int],
        taken: list[tuple[int, int | None]],
    ) -> list[LogError]:
        """Batch by batch, until one fails: what comes behind it is not sent."""
        for begin in range(0, len(records), self._client.batch):
            part = records[begin : begin + self._client.batch]
            try:
                found = self._batch(place, self._next.get(place, 0), part)
            except FencedError:
                self._dead = "it was fenced"
                raise
            except LogError as error:
                return [error]
            self._next[place] = self._next.get(place, 0) + len(part)
            stamps: Sequence[int | None] = found.stamps or [None] * len(part)
            for index, one in zip(
                indices[begin : begin + len(part)], zip(found.offsets, stamps, strict=True), strict=True
            ):
                taken[index] = one
        return []

    def _batch(self, place: Place, first: int, part: Sequence[Outgoing]) -> Acknowledged:
        name = f"{place.topic}/{place.partition}"
        if self._id is None:
            producer = self._producer
            return self._wire.call(Kind.PRODUCE, name, lambda: self._model.produce(place, producer, first, part))
        id, epoch = self._id, self._epoch

        def write() -> Acknowledged:
            self._model.settle()
            return self._model.write(id, epoch, place, first, part)

        return self._wire.call(Kind.WRITE, name, write)

    def _worst(self, errors: Sequence[LogError], some: bool) -> LogError:
        """What the call is told: what is unknown of any batch is unknown of all."""
        if self._id is not None:
            self._failed = True
            return next((error for error in errors if error.code == "HR-0345"), given_up(errors[0].message))
        doubt = next((error for error in errors if error.code == "HR-0311"), None)
        if doubt is None and some:
            doubt = unknown("some of the records were not sent")
        if doubt is not None:
            self._dead = "what it sent before is unknown"
        return doubt or errors[0]

    def begin(self) -> None:
        self._alive()
        if self._id is None or self._open:
            raise ValueError("a transaction begins once, on a sender with a transactional id")
        self._open, self._failed = True, False

    def commit(self, *, group: str | None = None, offsets: Mapping[Place, GroupOffset] | None = None) -> None:
        if self._failed:
            raise given_up("it failed before")
        if group is not None and offsets:
            self._join(group, dict(offsets))
        self._end(Kind.COMMIT)

    def abort(self) -> None:
        self._end(Kind.ABORT)

    def _join(self, group: str, offsets: dict[Place, GroupOffset]) -> None:
        id, epoch = self._begun(), self._epoch

        def apply() -> None:
            self._model.settle()
            self._model.join(id, epoch, group, offsets)

        try:
            self._wire.call(Kind.OFFSETS, "offsets", apply)
        except FencedError:
            self._dead = "it was fenced"
            raise
        except LogError:
            self._failed = True
            raise

    def _begun(self) -> str:
        self._alive()
        if self._id is None or not self._open:
            raise ValueError("no transaction has begun")
        return self._id

    def _end(self, kind: Kind) -> None:
        id, epoch, commit = self._begun(), self._epoch, kind is Kind.COMMIT

        def apply() -> int:
            self._model.settle()
            return self._model.end(id, epoch, commit=commit)

        try:
            self._epoch = self._wire.call(kind, kind.value, apply)
        except FencedError:
            self._dead = "it was fenced"
            raise
        except LogError as error:
            if error.code == "HR-0311":
                self._dead = "how its transaction ended is unknown"
            self._failed = True
            raise
        self._open = self._failed = False
        self._next = {}

    def close(self) -> None:
        self._dead = self._dead or "it was closed"

    def _alive(self) -> None:
        if self._dead is not None:
            raise fenced(f"a sender sends nothing more: {self._dead}")


class ModelFetcher(Fetcher):
    """Where it is of each partition lies here; what it brings is committed and stable."""

    def __init__(self, client: ModelClient) -> None:
        self._model, self._wire = client.model, client.wire
        self._next: dict[Place, int] = {}
        self._told: dict[Place, int] = {}  # ends that were told

    def seek(self, place: Place, offset: int) -> None:
        self._next.pop(place, None)
        self._next[place] = offset
        self._told.pop(place, None)

    def drop(self, place: Place) -> None:
        self._next.pop(place, None)
        self._told.pop(place, None)

    def fetch(self, *, timeout: Duration, records_max: int = 10_000) -> Sequence[Fetched]:
        until = deadline(self._model.clock, timeout)
        while True:
            most = self._wire.most(records_max)
            if most:
                found = self._wire.call(Kind.READ, "fetch", lambda: self._look(most))  # noqa: B023  # called within
                if found:
                    return found
            if timeout == ZERO or self._model.clock.now() >= until:
                return ()
            before = self._model.clock.now()
            self._wire.wait(until, self._ready)
            if self._model.clock.now() == before and not self._ready():
                return ()  # nobody moves the clock

    def _ready(self) -> bool:
        self._model.settle()
        return any(self._told.get(place) != self._model.span(place).end for place in self._next)

    def _look(self, most: int) -> list[Fetched]:
        self._model.settle()
        found = []
        for place, offset in self._next.items():
            if most <= 0:
                break
            held = self._model.partition(place)
            if offset < held.start:
                raise LogError(
                    "HR-0303",
                    f"{place.topic}/{place.partition}: offset {offset} is gone",
                    detail=f"retention keeps records from offset {held.start}",
                    start=held.start,
                )
            if offset > held.end:
                raise LogError(
                    "HR-0347",
                    f"partition {place.topic}/{place.partition} ends at {held.end}, offset {offset} was read of it",
                    hint="find out what was lost before anything decides on it",
                )
            stable = held.stable
            if offset >= stable and self._told.get(place) == offset:
                continue
            records, next = held.read(offset, most)
            most -= len(records)
            at_end = next >= stable
            created = [record.offset for record in records if record.offset in held.created] if held.created else []
            found.append(Fetched(place, records, next, at_end, created))
        for each in found:
            self._next[each.place] = each.next
            if each.at_end:
                self._told[each.place] = each.next
        # The next fetch begins with those that this one did not come to.
        for each in found:
            self._next[each.place] = self._next.pop(each.place)
        return found

    def close(self) -> None:
        self._next = {}


class ModelMember(Member):
    """Gives a sign of life with each poll, and while it waits in one."""

    def __init__(self, client: ModelClient, group: str, topics: tuple[str, ...], name: str) -> None:
        self._client, self._model, self._wire = client, client.model, client.wire
        self._group, self._topics, self._name = group, topics, name
        self._number = client.model.member()
        self._told: Assignment | None = None
        self._sign()

    def poll(self, *, timeout: Duration) -> Assignment:
        until = deadline(self._model.clock, timeout)
        while True:
            told, before = self._told, self._model.clock.now()
            self._told = self._sign()
            if self._told != told or before >= until:
                return self._told
            generation = self._model.group(self._group).generation
            pause = Instant(min(until, before + self._client.session_timeout.micros // POLLS_A_SESSION))
            self._wire.wait(pause, lambda: self._changed(generation))  # noqa: B023  # called within
            if self._model.clock.now() == before and not self._changed(generation):
                return self._told  # nobody moves the clock

    def _changed(self, generation: int) -> bool:
        self._model.settle()
        return self._model.group(self._group).generation != generation

    def _sign(self) -> Assignment:
        session = self._client.session_timeout
        return self._wire.call(
            Kind.POLL,
            "poll",
            lambda: self._model.poll(self._group, self._number, self._name, self._topics, session),
        )

    def leave(self) -> None:
        self._wire.call(Kind.CHANGE, "leave", lambda: self._model.group(self._group).leave(self._number))


def _bytes_max(held: ModelTopic | None) -> int:
    return RECORD_BYTES_MAX if held is None else int(held.settings.get("max.message.bytes", RECORD_BYTES_MAX))


def _size(record: Outgoing) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
