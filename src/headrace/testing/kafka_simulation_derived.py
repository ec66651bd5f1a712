"""What must be true of a model's derived topic when a run is over, found by reading its records and nothing of the
product. Pure.

The one idea: the judge says itself which source records are carried over, the first of each id that has a key, and how
each must look there; what lies in the derived topic is held against that by the source position in its header, and the
committed offsets and the cuts that readers folded against both.

Checked: below a source partition's committed offset each such record lies in the derived topic once, at or behind it
none; it lies in the partition of its key, with the source's values and times, in the source partition's order; whoever
was told a source cut had all of it below the end that it had read to.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.clients.kafka.port import Record

_HEADER, _SAID = "headrace-source", struct.Struct(">qqBiiq")
_ACCEPTED, _INCARNATION = 0, 1
_MASK, _M = 0xFFFFFFFF, 0x5BD1E995

Logs = Mapping[int, Sequence[Record]]  # committed records by partition
Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CutTold:
    """A reader said: below `end` of derived partition `index` lies all of its keys below `cut`, by source partition."""

    index: int
    end: int
    cut: Mapping[int, int]


@dataclass(slots=True, kw_only=True)
class DerivedFound:
    """Violations in words, and what was counted. left_out: source records that are not carried over."""

    violations: list[str] = field(default_factory=list)
    derived: int = 0
    left_out: int = 0


class Said(NamedTuple):
    """What a derived record's header says; instants in microseconds."""

    available_at: int
    event_time: int
    verdict: int
    incarnation: int
    partition: int
    offset: int


class Wanted(NamedTuple):
    """A source record that is carried over, and its running maximum of timestamps."""

    record: Record
    fields: Fields
    maximum: int


def judge_derived(
    source: Logs, derived: Logs, committed: Mapping[int, int], told: Iterable[CutTold], *, id: str, key: str
) -> DerivedFound:
    """committed: by source partition, what its writer's group has; where nothing was, it is not there."""
    found = DerivedFound(derived=sum(map(len, derived.values())))
    wanted = dict(_carried(source, id, key))
    found.left_out = sum(map(len, source.values())) - len(wanted)
    places: dict[tuple[int, int], tuple[int, int]] = {}  # of each source position, where it lies
    for index, records in sorted(derived.items()):
        newest: dict[int, int] = {}
        for record in records:
            where = f"derived {index}/{record.offset}"
            said = _said(record)
            if said is None:
                found.violations.append(f"{where} does not say of which event it is derived")
                continue
            place = (said.partition, said.offset)
            if place in places:
                found.violations.append(f"{where}: the event at {place} lies at {places[place]} already")
            places[place] = (index, record.offset)
            if said.offset < newest.get(said.partition, -1):
                found.violations.append(f"{where}: the event at {place} comes behind that at {newest[said.partition]}")
            newest[said.partition] = said.offset
            if said.offset >= committed.get(said.partition, 0):
                found.violations.append(f"{where}: the event at {place} is not below the committed offset")
            event = wanted.get(place)
            if event is None:
                found.violations.append(f"{where}: the event at {place} is not to be carried over")
                continue
            found.violations += [
                f"{where}: {what}" for what in _unlike(record, index, said, event, key, partitions=len(derived))
            ]
    for place in wanted:
        if place not in places and place[1] < committed.get(place[0], 0):
            found.violations.append(f"the event at {place} is not derived; committed is {committed[place[0]]}")
    found.violations += _cuts(wanted, places, told, key, partitions=len(derived))
    return found


def _carried(source: Logs, id: str, key: str) -> Iterator[tuple[tuple[int, int], Wanted]]:
    for index, records in source.items():
        known: set[object] = set()
        maximum = 0
        for record in records:
            if record.value is None:
                continue  # a mark of the log's, no row
            fields = json.loads(record.value)
            maximum = max(maximum, record.timestamp)
            if fields[id] not in known and fields.get(key) is not None:
                yield (index, record.offset), Wanted(record, fields, maximum)
            known.add(fields[id])


def _said(record: Record) -> Said | None:
    header = dict(record.headers).get(_HEADER, b"")
    return Said(*_SAID.unpack(header)) if len(header) == _SAID.size else None


def _unlike(record: Record, index: int, said: Said, event: Wanted, key: str, *, partitions: int) -> Iterator[str]:
    """Where it differs from what its source record makes of it. A source without event times has the broker's."""
    number = event.fields[key]
    assert type(number) is int
    compared = {
        "partition": (index, partition_of(number, partitions)),
        "key": (record.key, struct.pack(">q", number)),
        "values": (_values(json.loads(record.value or b"{}")), _values(event.fields)),
        "available_at": (said.available_at, event.maximum * 1_000),
        "event time": (said.event_time, event.record.timestamp * 1_000),
        "verdict": (said.verdict, _ACCEPTED),
        "incarnation": (said.incarnation, _INCARNATION),
    }
    for name, (seen, expected) in compared.items():
        if seen != expected:
            yield f"{name} {seen!r}, expected {expected!r}"


def _values(fields: Fields) -> Fields:
    """A field that is absent is null."""
    return {name: value for name, value in fields.items() if value is not None}


def _cuts(
    wanted: Mapping[tuple[int, int], Wanted],
    places: Mapping[tuple[int, int], tuple[int, int]],
    told: Iterable[CutTold],
    key: str,
    *,
    partitions: int,
) -> Iterator[str]:
    of: dict[int, list[tuple[int, int]]] = {}
    for place, event in wanted.items():
        number = event.fields[key]
        assert type(number) is int
        of.setdefault(partition_of(number, partitions), []).append(place)
    for one in told:
        for place in of.get(one.index, ()):
            if place[1] < one.cut.get(place[0], 0):
                index, offset = places.get(place, (one.index, one.end))
                if index == one.index and offset >= one.end:
                    yield f"a reader of {one.index} up to {one.end} was told the cut {one.cut}, without {place}"


def partition_of(number: int, partitions: int) -> int:
    """Of a key of eight bytes, as Java's client places it: murmur2."""
    mixed = 0x9747B28C ^ 8
    for part in struct.unpack("<2I", struct.pack(">q", number)):
        part = part * _M & _MASK
        part = (part ^ part >> 24) * _M & _MASK
        mixed = (mixed * _M & _MASK) ^ part
    mixed = (mixed ^ mixed >> 13) * _M & _MASK
    return ((mixed ^ mixed >> 15) & 0x7FFFFFFF) % partitions
