"""What lies in the topics against what was answered and acknowledged: nothing lost, twice, out of order, or unlike what
was told. Pure; it knows Kafka records and JSON and nothing else of headrace.

The one idea: the judge folds claims itself and counts events itself, so that it shares no line with what it judges. A
record of a decision is valid iff the last claim below it in its partition is the one that it names, and no valid record
of the same request lies below it (docs/KAFKA.md K1); an event counts once, where its id occurs first in its partition.
"""

from __future__ import annotations

import datetime as dt
import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

TOLD_MAX = 20  # violations of a kind that are told one by one
SKEW_MICROS = 60_000_000  # how far a request's own instant may be from the log's
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICRO = dt.timedelta(microseconds=1)

Value = Mapping[str, object]


class Message(NamedTuple):
    """A Kafka record with a value. at: its timestamp in milliseconds. key, headers: where the topic's are judged."""

    partition: int
    offset: int
    at: int
    value: Value
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Claim(NamedTuple):
    partition: int
    offset: int
    at: int
    owner: str


class Effect(NamedTuple):
    """What a consumer did of the event at a place, in the order in which it was committed."""

    partition: int
    offset: int
    customer: int
    number: int


@dataclass(slots=True)
class Found:
    """counts: by kind; the kinds of violations are lost, duplicated, reordered, unlike and miscounted."""

    counts: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    _told: Counter[str] = field(default_factory=Counter)

    def violation(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        self._told[kind] += 1
        if self._told[kind] <= TOLD_MAX:
            self.told.append(f"{kind}: {what}")


@dataclass(slots=True)
class Folded:
    """The records of all partitions. valid: by decision id. zombies: (partition, epoch) under which something was
    written after another's claim."""

    valid: dict[str, Message] = field(default_factory=dict)
    voids: list[Message] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    zombies: set[tuple[int, int]] = field(default_factory=set)


def fold(records: Iterable[Message]) -> Folded:
    """records: each partition's in order of offsets."""
    folded = Folded()
    epochs: dict[int, int] = {}
    for message in records:
        value, partition = message.value, message.partition
        if value.get("claim") is not None:
            epochs[partition] = message.offset
            folded.claims.append(Claim(partition, message.offset, message.at, str(value["claim"])))
            continue
        if value.get("epoch") != epochs.get(partition):
            folded.voids.append(message)
            folded.zombies.add((partition, int(str(value.get("epoch")))))
        elif place_of(value) in folded.valid:
            folded.voids.append(message)
        else:
            folded.valid[place_of(value)] = message
    return folded


def place_of(value: Value) -> str:
    """The decision id that a record's request gives it."""
    parts = (value["decision"], value["request_incarnation"], value["request_partition"], value["request_offset"])
    return "/".join(str(part) for part in parts)


# --- decisions ---


def judge_records(folded: Folded, orders: Sequence[Message], found: Found) -> None:
    """A valid record has its request, and no request has two, by place or by id."""
    requests = {(message.partition, message.offset): str(message.value["order"]) for message in orders}
    seen: dict[str, str] = {}
    for id, message in folded.valid.items():
        value = message.value
        request = str(value["request_id"])
        if value["decision_id"] != id:
            found.violation("unlike", f"record {_at(message)} calls itself {value['decision_id']}, its request is {id}")
        where = (int(str(value["request_partition"])), int(str(value["request_offset"])))
        if requests.get(where) != request:
            found.violation(
                "lost", f"record {_at(message)} is of request {request}; at {where} lies {requests.get(where)}"
            )
        if message.partition != where[0]:
            found.violation("unlike", f"record {_at(message)} lies beside its request's partition {where[0]}")
        if request in seen:
            found.violation("duplicated", f"request {request} has valid records {seen[request]} and {id}")
        seen[request] = id
    found.counts["decisions"] += len(folded.valid)
    found.counts["void_records"] += len(folded.voids)
    found.counts["zombie_epochs"] += len(folded.zombies)
    found.counts["claims"] += len(folded.claims)


def judge_answers(folded: Folded, answers: Iterable[Value], found: Found) -> None:
    """Every answer that has a decision id is that of the valid record; a request has one."""
    told: dict[str, str] = {}
    for line in answers:
        request, answer = line["request"], line["answer"]
        assert isinstance(request, dict) and isinstance(answer, dict)
        found.counts["answers"] += 1
        order, id = str(request["order"]), str(answer["decision_id"])
        record = folded.valid.get(id)
        if record is None:
            found.violation("lost", f"order {order} was answered at {line['at']} as {id}, which has no valid record")
            continue
        if told.setdefault(order, id) != id:
            found.violation("duplicated", f"order {order} was answered as {told[order]} and as {id}")
        differs = [name for name, a, b in _same(answer, record.value) if a != b]
        if differs or str(record.value["request_id"]) != order or str(answer["request_id"]) != order:
            found.violation("unlike", f"answer {id} of {line['at']} is not its record {_at(record)}: {differs}")
    found.counts["answered"] += len(told)


def _same(answer: Value, record: Value) -> Iterable[tuple[str, object, object]]:
    yield "outcome", answer["outcome"], record["outcome"]
    yield "reasons", answer["reasons"], json.loads(str(record["reasons"]))
    yield "score", answer["score"], record.get("score")
    yield "t", micros(answer["t"]), micros(record["t"])
    yield "flags", answer["flags"], [flag for flag in str(record["flags"]).split(",") if flag]
    yield "versions", answer["versions"], json.loads(str(record["versions"]))


# --- events ---


def judge_events(
    visits: Sequence[Message], sent: Mapping[str, int], acked: Iterable[tuple[str, int, int]], found: Found
) -> None:
    """sent: how often each id was given to a producer. acked: ids and where they were said to be."""
    there = {(message.partition, message.offset): str(message.value["visit"]) for message in visits}
    for id, partition, offset in acked:
        found.counts["acknowledged"] += 1
        if there.get((partition, offset)) != id:
            seen = there.get((partition, offset))
            found.violation("lost", f"visit {id} was acknowledged at {partition}/{offset}, where {seen} lies")
    times = Counter(there.values())
    for id, count in times.items():
        if count > sent.get(id, 0):
            found.violation(
                "duplicated", f"visit {id} lies {count} times in the log, it was sent {sent.get(id, 0)} times"
            )
    found.counts["events"] += len(times)
    found.counts["events_again"] += len(there) - len(times)
    newest: dict[object, tuple[int, Message]] = {}
    known: set[str] = set()
    for message in visits:
        id, customer, number = str(message.value["visit"]), message.value["customer"], int(str(message.value["number"]))
        if id in known:
            continue
        known.add(id)
        before = newest.get(customer)
        if before is not None and number <= before[0]:
            found.violation(
                "reordered",
                f"customer {customer}: number {number} at {_at(message)} behind {before[0]} at {_at(before[1])}",
            )
        newest[customer] = (number, message)


def judge_effects(visits: Sequence[Message], effects: Sequence[Effect], found: Found) -> None:
    """Each record of the topic had its effect once, each partition's in order."""
    times = Counter((effect.partition, effect.offset) for effect in effects)
    for place, count in times.items():
        if count > 1:
            found.violation("duplicated", f"the effect of visits {place} came {count} times")
    for message in visits:
        if (message.partition, message.offset) not in times:
            found.violation("lost", f"visits {_at(message)} had no effect")
    newest: dict[int, int] = {}
    for effect in effects:
        if effect.offset < newest.get(effect.partition, -1):
            found.violation(
                "reordered",
                f"the effect of visits {effect.partition}/{effect.offset} came behind {newest[effect.partition]}",
            )
        newest[effect.partition] = max(effect.offset, newest.get(effect.partition, -1))
    found.counts["effects"] += len(effects)


# --- what decisions saw ---


class History:
    """The events of each customer in their partition, each id once."""

    def __init__(self, messages: Sequence[Message], *, id: str, amount: str, skew: bool) -> None:
        """skew: of requests, whose own instant counts only near the log's."""
        self._of: dict[object, _Customer] = defaultdict(_Customer)
        known: set[tuple[int, object]] = set()
        stamps: dict[int, int] = {}
        for message in messages:
            value = message.value
            stamp = stamps[message.partition] = max(message.at * 1_000, stamps.get(message.partition, 0))
            if (message.partition, value[id]) in known:
                continue
            known.add((message.partition, value[id]))
            at = micros(value["at"])
            if skew and abs(at - stamp) > SKEW_MICROS:
                at = stamp
            self._of[value["customer"]].put(message.partition, message.offset, at, units(value[amount]))

    def seen(self, customer: object, partition: int, cut: int, t: int) -> tuple[int, int]:
        """How many events of a customer lie below a cut and not after t, and the sum of their amounts in units."""
        return self._of[customer].seen(partition, cut, t)


class _Customer:
    __slots__ = ("amounts", "at", "newest", "offsets", "partition", "sums")

    def __init__(self) -> None:
        self.partition = -1
        self.offsets: list[int] = []
        self.at: list[int] = []
        self.newest: list[int] = []  # the greatest `at` so far
        self.amounts: list[int] = []
        self.sums = [0]

    def put(self, partition: int, offset: int, at: int, amount: int) -> None:
        assert self.partition in (-1, partition), "a customer's events lie in one partition"
        self.partition = partition
        self.offsets.append(offset)
        self.at.append(at)
        self.newest.append(max(at, self.newest[-1]) if self.newest else at)
        self.amounts.append(amount)
        self.sums.append(self.sums[-1] + amount)

    def seen(self, partition: int, cut: int, t: int) -> tuple[int, int]:
        if self.partition not in (-1, partition):
            return -1, 0
        count = bisect_left(self.offsets, cut)
        total, place, kept = self.sums[count], count, count
        while place and self.newest[place - 1] > t:
            place -= 1
            if self.at[place] > t:
                kept -= 1
                total -= self.amounts[place]
        return kept, total


def judge_values(folded: Folded, orders: Sequence[Message], visits: Sequence[Message], found: Found) -> None:
    """Counts and sums of every valid record, computed again from the topics at the record's own cuts."""
    own = History(orders, id="order", amount="amount", skew=True)
    other = History(visits, id="visit", amount="spent", skew=False)
    requests = {(message.partition, message.offset): message for message in orders}
    for message in folded.valid.values():
        value = message.value
        place = int(str(value["request_partition"])), int(str(value["request_offset"]))
        request = requests.get(place)
        if request is None:
            continue  # told by judge_records
        t, customer = micros(value["t"]), request.value["customer"]
        points, features = json.loads(str(value["points"])), json.loads(str(value["features"]))
        names = [name for name, _ in json.loads(str(value["versions"]))["views"]]
        for name, (cut, _, absent), (values, _) in zip(names, points, features, strict=True):
            if absent is not None:
                found.counts["absent_views"] += 1
                continue
            topic = "orders" if name == "activity" else "visits"
            next_offset = next((at for named, _, index, at in cut if (named, index) == (topic, place[0])), 0)
            count, total = (own if name == "activity" else other).seen(customer, place[0], next_offset, t)
            if name == "activity" and next_offset <= place[1]:
                count, total = count + 1, total + units(request.value["amount"])
            found.counts["values"] += 1
            if values != [count, total if count else None]:
                found.violation(
                    "miscounted",
                    f"record {_at(message)}, view {name} at {next_offset}: {values}, the topic gives {[count, total]}",
                )


def micros(text: object) -> int:
    """An instant as text, in microseconds."""
    return (dt.datetime.fromisoformat(str(text)) - _EPOCH) // _MICRO


def units(text: object) -> int:
    """Of an amount with two places."""
    return round(float(str(text)) * 100)


def _at(message: Message) -> str:
    return f"{message.partition}/{message.offset}"
