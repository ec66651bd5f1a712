"""Writes and reads a group's quarantine. Touches: the quarantine topic.

The one idea: a record is set aside when the quarantine has acknowledged it, and only then may its offset be committed.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator

from headrace.clients.kafka.port import Headers, Place, Record
from headrace.core.errors import LogError, NotFoundError
from headrace.core.times import Duration, Instant
from headrace.sdk.connect import Connection
from headrace.sdk.define import Failure, quarantine_topic
from headrace.sdk.held import Fold, Origin, Step, held_headers, mark_headers, read_held
from headrace.sdk.plan import Held
from headrace.sdk.port import Outbox
from headrace.sdk.sending import Sending

PATIENCE = Duration.parse("10s")
READ_WITHIN_S = 30.0
SETTINGS = {"cleanup.policy": "delete", "retention.ms": "-1"}  # kept until somebody decides
RECORD_ROOM = 65_536  # bytes that our headers may take beyond the source's largest record


class Keeper:
    """The quarantine of one topic and group. Writes come from any thread, reads from one."""

    def __init__(self, connection: Connection, group: str) -> None:
        self._messages = connection.messages
        self._origin = Origin(connection.name, connection.about.topic_id)
        self._partitions = connection.about.partitions
        self._bytes_max = connection.about.record_bytes_max + RECORD_ROOM
        self.topic = quarantine_topic(connection.name, group)
        self.by = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._sending: Sending | None = None
        self._outbox: Outbox | None = None
        self._folds: dict[int, Fold] = {}
        self._next: dict[int, int] = {}  # what is folded of each partition ends there

    def make(self) -> None:
        """The topic, unless it is there. Raises: LogError HR-0340 to HR-0342."""
        try:
            if self._messages.about(self.topic).partitions >= self._partitions:
                return
        except NotFoundError:
            pass
        self._messages.make(self.topic, self._partitions, {**SETTINGS, "max.message.bytes": str(self._bytes_max)})

    # --- writing ---

    def hold(self, partition: int, record: Record, failure: Failure, *, blocks: bool, attempts: int,
             first_failed: Instant, now: Instant) -> int:  # fmt: skip
        """Set a record aside; returns its place. Raises: LogError HR-0311, HR-0340, HR-0431."""
        headers = held_headers(
            self._origin, partition, record, failure, by=self.by, blocks=blocks, attempts=attempts,
            first_failed=first_failed, at=now,
        )  # fmt: skip
        # A record without a value keeps its key; that it had none is in the headers.
        return self._write(partition, record.key, record.value, headers)

    def again(self, partition: int, key: bytes | None, place: int, failure: Failure, attempts: int) -> None:
        """A released record failed again."""
        self._write(partition, key, None, mark_headers("again", place=place, failure=failure, attempts=attempts))

    def done(self, partition: int, key: bytes | None, place: int, *, void: bool = False) -> None:
        """A released record was handled; or, void, a held one never counted."""
        self._write(partition, key, None, mark_headers("done", place=place, void=void))

    def release(self, partition: int, key: bytes | None, place: int | None) -> None:
        """The word that consumers wait for."""
        self._write(partition, key, None, mark_headers("release", place=place))

    def _write(self, partition: int, key: bytes | None, value: bytes | None, headers: Headers) -> int:
        with self._lock:
            if self._sending is None:
                self._outbox = self._messages.outbox(buffered_max=10_000, record_bytes_max=self._bytes_max)
                self._sending = Sending(self._outbox, patience=PATIENCE)
        return self._sending.send(Place(self.topic, partition), key, value, headers).result(PATIENCE).offset

    # --- reading ---

    def fold(self, partition: int) -> Fold:
        """A partition's whole quarantine, as it is now; `news` goes on from there."""
        span = self._messages.spans([Place(self.topic, partition)])[0]
        fold = self._folds[partition] = Fold(self._origin.topic_id, by=self.by)
        self._next[partition] = span.start
        for record in self._read(partition, span.start, span.end):
            fold.apply(record)
        return fold

    def news(self) -> list[tuple[int, Record, Step]]:
        """What was written since, by whomever; folded. One question to the cluster where there is nothing."""
        partitions = list(self._folds)
        spans = self._messages.spans([Place(self.topic, each) for each in partitions]) if partitions else []
        return [
            (partition, record, self._folds[partition].apply(record))
            for partition, span in zip(partitions, spans, strict=True)
            for record in self._read(partition, self._next[partition], span.end)
        ]

    def folded(self, partition: int) -> Fold:
        return self._folds[partition]

    def forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._folds.pop(partition, None)

    def read(self, partition: int, places: Iterable[int]) -> dict[int, Record]:
        """Held records by their places, as they lie there; places that were retained away are left out."""
        wanted = set(places)
        if not wanted:
            return {}
        start = max(min(wanted), self._messages.spans([Place(self.topic, partition)])[0].start)
        found = self._read(partition, start, max(wanted) + 1)
        return {each.offset: each for each in found if each.offset in wanted}

    def _read(self, partition: int, start: int, end: int) -> Iterator[Record]:
        """All that lies in [start, end)."""
        if start >= end:
            return
        place = Place(self.topic, partition)
        tail = self._messages.tail()
        deadline = time.monotonic() + READ_WITHIN_S
        try:
            tail.seek(place, start)
            while start < end:
                for fetched in tail.fetch(timeout=Duration.parse("250ms")):
                    start = fetched.next
                    for record in fetched.records:
                        if record.offset < end:
                            self._next[partition] = max(self._next.get(partition, 0), record.offset + 1)
                            yield record
                if time.monotonic() > deadline:
                    raise LogError(
                        "HR-0340", f"the quarantine {place.topic}/{partition} could not be read", retryable=True
                    )
        finally:
            tail.close()

    def read_held(self, partition: int, places: Iterable[int]) -> list[Held[Record]]:
        """The same as the source's records, in order of the source's offsets."""
        made = []
        for place, record in self.read(partition, places).items():
            held = read_as_source(record)
            made.append(Held(place, held.offset, held.key, held))
        return sorted(made, key=lambda each: each.offset)

    def close(self) -> None:
        if self._outbox is not None:
            self._outbox.close()


def read_as_source(record: Record) -> Record:
    """A held record as it was in its topic."""
    held = read_held(record)
    return Record(held.offset, held.timestamp, held.key, held.value, held.headers)
