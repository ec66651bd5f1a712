"""What lies in a derived topic against its source: each source event that counts there once, in the partition of its
new key, in order, with the source's values and times. Pure; it knows Kafka records and JSON and nothing else of
headrace.

The one idea: the judge says itself which source events are carried over, the first of each id that has a key, and what
each of them has to look like there; the derived records are held against that by the source position in their header,
and what is then left over on either side is told.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from bench._chaos_judge import Found, Message, Value, micros, units

HEADER = "headrace-source"
_SAID = struct.Struct(">qqBiiq")
INCARNATION = 1  # of the source: nobody drops it in a run
ACCEPTED = 0  # the only verdict here: no event is seven days late
_MASK, _SEED, _M = 0xFFFFFFFF, 0x9747B28C, 0x5BD1E995

Place = tuple[int, int]  # partition, offset


class Said(NamedTuple):
    """What a derived record says of its source event; instants in microseconds."""

    available_at: int
    event_time: int
    verdict: int
    incarnation: int
    partition: int
    offset: int


def judge_derived(
    source: Sequence[Message], derived: Sequence[Message], partitions: int, *, key: str, found: Found
) -> None:
    """source, derived: committed records, each partition's in order of offsets. partitions: of the derived topic."""
    wanted = carried(source, key)
    left = dict(wanted)
    newest: dict[Place, int] = {}  # by derived partition and source partition: the highest source offset so far
    seen: dict[Place, Message] = {}
    for message in derived:
        said = said_of(message)
        if said is None:
            found.violation("unlike", f"derived {_at(message)} does not say of which event it is derived")
            continue
        place = (said.partition, said.offset)
        if place in seen:
            found.violation("duplicated", f"visits {place} was derived at {_at(seen[place])} and at {_at(message)}")
            continue
        seen[place] = message
        if said.offset < newest.get((message.partition, said.partition), -1):
            before = newest[message.partition, said.partition]
            found.violation("reordered", f"visits {place} was derived at {_at(message)}, behind offset {before}")
        newest[message.partition, said.partition] = said.offset
        event = left.pop(place, None)
        if event is None:
            found.violation("unlike", f"derived {_at(message)} is of visits {place}, which is not to be carried over")
            continue
        for differs in _unlike(message, said, event, partitions, key):
            found.violation("unlike", f"derived {_at(message)} of visits {place}: {differs}")
    for place in left:
        found.violation("lost", f"visits {place} was not derived")
    found.counts["derived"] += len(derived)
    found.counts["not_derived"] += len(source) - len(wanted)


class Event(NamedTuple):
    """One that is carried over. available_at: the highest timestamp in its partition up to it, in microseconds."""

    value: Value
    available_at: int


def carried(source: Sequence[Message], key: str) -> dict[Place, Event]:
    """The source events that the law passes on, by place: the first of each id of a partition, if it has the key."""
    wanted: dict[Place, Event] = {}
    known: set[tuple[int, object]] = set()
    stamps: dict[int, int] = {}
    for message in source:
        stamps[message.partition] = max(message.at * 1_000, stamps.get(message.partition, 0))
        id = (message.partition, message.value["visit"])
        if id not in known and message.value.get(key) is not None:
            wanted[message.partition, message.offset] = Event(message.value, stamps[message.partition])
        known.add(id)
    return wanted


def said_of(message: Message) -> Said | None:
    header = dict(message.headers).get(HEADER)
    return Said(*_SAID.unpack(header)) if header is not None and len(header) == _SAID.size else None


def _unlike(message: Message, said: Said, event: Event, partitions: int, key: str) -> list[str]:
    """Where a derived record differs from what its source event makes of it."""
    right = partition_of(str(event.value[key]).encode(), partitions)
    expected = {
        "partition": (message.partition, right),
        "key": (message.key, str(event.value[key]).encode()),
        "values": (_values(message.value), _values(event.value)),
        "available_at": (said.available_at, event.available_at),
        "event time": (said.event_time, micros(event.value["at"])),
        "verdict": (said.verdict, ACCEPTED),
        "incarnation": (said.incarnation, INCARNATION),
    }
    return [f"{name} {seen!r}, expected {wanted!r}" for name, (seen, wanted) in expected.items() if seen != wanted]


def _values(value: Value) -> dict[str, object]:
    """As values, however they were written; a field that is absent is null."""
    made = {name: one for name, one in value.items() if one is not None}
    return made | {"at": micros(value["at"]), "spent": units(value["spent"])}


def partition_of(key: bytes, partitions: int) -> int:
    """As Java's client chooses it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Of Java's client, as an unsigned number of 32 bits."""
    whole = len(data) // 4 * 4
    mixed = _SEED ^ len(data)
    for (part,) in struct.iter_unpack("<I", data[:whole]):
        part = part * _M & _MASK
        part = (part ^ part >> 24) * _M & _MASK
        mixed = (mixed * _M & _MASK) ^ part
    rest = data[whole:]
    if rest:
        mixed = (mixed ^ int.from_bytes(rest, "little")) * _M & _MASK
    mixed = (mixed ^ mixed >> 13) * _M & _MASK
    return mixed ^ mixed >> 15


def _at(message: Message) -> str:
    return f"{message.partition}/{message.offset}"
