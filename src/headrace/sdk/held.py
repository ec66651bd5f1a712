"""What a group set aside, as records of a Kafka topic, and what these records together mean. Pure.

The one idea: one topic is the whole truth. Its partition i holds what was set aside of the source's partition i, so who
takes a partition over reads one partition and knows which keys are blocked; there is no second place that could say
otherwise. Four kinds of record:

    held      a record that was set aside: its key and value as they were, why in headers
    release   an operator's word: the held records of this key (or the one at this place) go back to the handler
    again     a released record failed again: it, and what is held of its key, waits for another release
    done      a released record was handled; or a held record is void, as whoever wrote it no longer had the partition
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from headrace.clients.kafka.port import Headers, Record
from headrace.core.errors import LogFormatError
from headrace.core.times import Instant, instant, iso
from headrace.sdk.define import Failure, Reason, SetAside

KIND, HELD, RELEASE, AGAIN, DONE = b"headrace-kind", b"held", b"release", b"again", b"done"
TEXT_MAX = 2_000  # characters of an error's text that are kept
_NAMES = (
    "headrace-kind", "headrace-by", "headrace-blocks", "headrace-topic", "headrace-topic-id", "headrace-partition",
    "headrace-offset", "headrace-timestamp", "headrace-reason", "headrace-error", "headrace-text", "headrace-attempts",
    "headrace-first-failure", "headrace-at", "headrace-no-value",
)  # fmt: skip


class Origin(NamedTuple):
    """A topic as it is in the cluster."""

    topic: str
    topic_id: str


def held_headers(
    origin: Origin,
    partition: int,
    record: Record,
    failure: Failure,
    *,
    by: str,
    blocks: bool,
    attempts: int,
    first_failed: Instant,
    at: Instant,
) -> Headers:
    """Of a held record: ours first, then the record's own as they were. by: who sets it aside."""
    said = (
        "held", by, "1" if blocks else "0", origin.topic, origin.topic_id, str(partition), str(record.offset),
        str(record.timestamp), failure.reason.value, failure.kind, failure.text[:TEXT_MAX], str(attempts),
        iso(first_failed), iso(at), "1" if record.value is None else "0",
    )  # fmt: skip
    ours = tuple((name, text.encode(errors="replace")) for name, text in zip(_NAMES, said, strict=True))
    return (*ours, *record.headers)


def mark_headers(kind: str, *, place: int | None = None, failure: Failure | None = None, attempts: int = 0,
                 void: bool = False) -> Headers:  # fmt: skip
    """Of a release, again or done. place: the held record's; None for all of the key."""
    said = {"headrace-kind": kind, "headrace-place": "" if place is None else str(place), "headrace-void": "1" if void
            else "0"}  # fmt: skip
    if failure is not None:
        said |= {"headrace-reason": failure.reason.value, "headrace-error": failure.kind,
                 "headrace-text": failure.text[:TEXT_MAX], "headrace-attempts": str(attempts)}  # fmt: skip
    return tuple((name, text.encode(errors="replace")) for name, text in said.items())


def read_held(record: Record) -> SetAside:
    """A held record. Raises: LogFormatError HR-0447."""
    try:
        said = {name: value.decode() for name, value in record.headers[: len(_NAMES)]}
        return SetAside(
            place=record.offset,
            topic=said["headrace-topic"],
            topic_id=said["headrace-topic-id"],
            partition=int(said["headrace-partition"]),
            offset=int(said["headrace-offset"]),
            timestamp=int(said["headrace-timestamp"]),
            key=record.key,
            value=None if said["headrace-no-value"] == "1" else record.value,
            headers=record.headers[len(_NAMES) :],
            failure=Failure(
                reason=Reason(said["headrace-reason"]), kind=said["headrace-error"], text=said["headrace-text"]
            ),
            attempts=int(said["headrace-attempts"]),
            first_failed=instant(said["headrace-first-failure"]),
            at=instant(said["headrace-at"]),
        )
    except (KeyError, ValueError) as error:
        raise LogFormatError(
            "HR-0447", f"quarantine: the record at {record.offset:,} cannot be read", detail=repr(error)
        ) from error


@dataclass(frozen=True, slots=True)
class Step:
    """What a record of the quarantine changed. released_place: of a record that blocks nothing and is released now.
    foreign: it is held, and by somebody else."""

    released_place: int | None = None
    foreign: bool = False


class Fold:
    """One partition of the quarantine, folded. Keeps places and offsets, no values."""

    def __init__(self, topic_id: str, *, by: str = "") -> None:
        """topic_id: the source's; what came from another incarnation of it is not ours. by: who we are."""
        self._topic_id = topic_id
        self._by = by
        self.keys: dict[bytes, dict[int, int]] = {}  # blocked: of each key what is held, place: offset
        self.released: set[bytes] = set()  # of these
        self.alone: dict[int, tuple[bytes | None, int]] = {}  # held and blocking nothing; place: key, offset
        self.released_alone: set[int] = set()
        self.offsets: set[int] = set()  # the source's, that were set aside and need nothing more of their partition
        self.failures: dict[int, tuple[Failure, int]] = {}  # by place, of those that failed again: why, attempts
        self._owner: dict[int, tuple[bytes | None, int]] = {}  # place: key or None, offset

    def apply(self, record: Record) -> Step:
        """The next record, in order. Raises: LogFormatError HR-0447."""
        said = {name: value for name, value in record.headers[: len(_NAMES)] if name.startswith("headrace-")}
        try:
            kind = said["headrace-kind"]
            if kind == HELD:
                return self._held(record, said)
            text = said["headrace-place"]
            place = int(text) if text else None
            match kind:
                case b"release":
                    return self._release(record.key, place)
                case b"again" if place is not None:
                    self._again(place, said)
                case b"done" if place is not None:
                    self._done(place, void=said["headrace-void"] == b"1")
                case _:
                    raise ValueError(kind)
        except (KeyError, ValueError) as error:
            raise LogFormatError(
                "HR-0447", f"quarantine: the record at {record.offset:,} cannot be read", detail=repr(error)
            ) from error
        return Step()

    def _held(self, record: Record, said: Mapping[str, bytes]) -> Step:
        if said["headrace-topic-id"].decode() != self._topic_id:
            return Step()
        offset, place, key = int(said["headrace-offset"]), record.offset, record.key
        foreign = bool(self._by) and said["headrace-by"].decode() != self._by
        if said["headrace-blocks"] == b"1" and key is not None:
            self._owner[place] = (key, offset)
            self.keys.setdefault(key, {})[place] = offset
        else:
            self._owner[place] = (None, offset)
            self.alone[place] = (key, offset)
        self.offsets.add(offset)
        return Step(foreign=foreign)

    def _release(self, key: bytes | None, place: int | None) -> Step:
        if place is not None:
            if place in self.alone and place not in self.released_alone:
                self.released_alone.add(place)
                return Step(released_place=place)
        elif key is not None and key in self.keys and key not in self.released:
            self.released.add(key)
        return Step()

    def _again(self, place: int, said: Mapping[str, bytes]) -> None:
        failure = Failure(
            reason=Reason(said["headrace-reason"].decode()),
            kind=said["headrace-error"].decode(),
            text=said["headrace-text"].decode(),
        )
        self.failures[place] = (failure, int(said["headrace-attempts"]))
        key = self._owner.get(place, (None, 0))[0]
        if key is not None:
            self.released.discard(key)
        self.released_alone.discard(place)

    def _done(self, place: int, *, void: bool) -> None:
        if place not in self._owner:
            return
        key, offset = self._owner.pop(place)
        if void and all(other != offset for _, other in self._owner.values()):
            self.offsets.discard(offset)
        self.failures.pop(place, None)
        self.alone.pop(place, None)
        self.released_alone.discard(place)
        if key is not None:
            places = self.keys[key]
            places.pop(place)
            if not places:
                del self.keys[key]
                self.released.discard(key)

    def places(self) -> Iterable[int]:
        """Of all that is held, in order."""
        return sorted(self._owner)

    def held_offsets(self) -> list[int]:
        """The source's, of all that is held, in order."""
        return sorted({offset for _, offset in self._owner.values()})

    def is_released(self, place: int) -> bool:
        key = self._owner[place][0]
        return place in self.released_alone if key is None else key in self.released
