"""What must be true of a model's log when a run is over, found by reading its records and nothing of the product. Pure.

The one idea: the product folds claims, verdicts and chains with clever code, the judge with the plainest there is, from
the bytes that the model holds; whatever both say alike was not said by one mistake.

Checked: what was acknowledged is there; a request has one valid record at most, and it is of the first request with its
id; each answer that was given is what its record says; a record counts iff it names the last claim below it, and what
it says is what the log holds at its cut, which is never below that of a record before it; links join each valid record
to the one before it; a key's events lie in the order in which their producer was told that they are there.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from headrace.clients.kafka.port import Record

Fields = Mapping[str, object]
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a client was told. by: the process that said it."""

    request_id: str
    outcome: str
    reasons: tuple[str, ...]
    decision_id: str
    by: str


@dataclass(slots=True, kw_only=True)
class Told:
    """What the run's processes were told: by event id, the key and number of those acknowledged, in the order of the
    acknowledgements; answers; ids that were refused as of another payload."""

    events: dict[str, tuple[int, int]] = field(default_factory=dict)
    answers: list[Answered] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Found:
    """Violations in words, and what was counted. fenced: claims that took a partition from a process which wrote under
    its old claim afterwards."""

    violations: list[str] = field(default_factory=list)
    events: int = 0
    requests: int = 0
    valid: int = 0
    void: int = 0
    claims: int = 0
    repeated: int = 0
    zombies: int = 0
    absent: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a topic as the judge reads it. first: no row before it has its id."""

    offset: int
    micros: int
    said: Fields
    first: bool


class Judge:
    """logs: by topic and partition, the committed records. names: of the record topic's fields, in order."""

    def __init__(self, logs: Mapping[tuple[str, int], Sequence[Record]], names: Sequence[str], *, records: str) -> None:
        self.logs = logs
        self.names = tuple(names)
        self.records = records
        self.found = Found()
        self.events = {key: list(_lines(held, "event_id")) for key, held in logs.items() if key[0] == "events"}
        self.requests = {key: list(_lines(held, "request_id")) for key, held in logs.items() if key[0] == "requests"}
        self.valid: dict[str, Fields] = {}  # by request id

    def judge(self, told: Told) -> Found:
        for (_, index), lines in sorted(self.requests.items()):
            self._records(index, lines)
        self._acknowledged(told)
        self._answers(told)
        self.found.events = sum(map(len, self.events.values()))
        self.found.requests = sum(map(len, self.requests.values()))
        return self.found

    def _say(self, what: str) -> None:
        self.found.violations.append(what)

    # --- records ---

    def _records(self, index: int, requests: Sequence[Line]) -> None:
        """One partition's records, row by row."""
        place = f"{self.records}/{index}"
        by_offset = {line.offset: line for line in requests}
        epoch, owners, decided, link = -1, dict[int, str](), set[int](), None
        floors: dict[tuple[str, int], int] = {}
        for line in _lines(self.logs.get((self.records, index), ()), None):
            said = line.said
            if said.get("claim") is not None:
                epoch = line.offset
                owners[epoch] = str(said["claim"])
                self.found.claims += 1
                continue
            of = said.get("request_offset")
            assert type(of) is int
            if said.get("epoch") != epoch or of in decided:
                self.found.void += 1
                self.found.zombies += said.get("epoch") != epoch and said.get("epoch") in owners
                continue
            decided.add(of)
            self.found.valid += 1
            link = self._linked(f"{place} at {line.offset}", said, link)
            request = by_offset.get(of)
            if request is None:
                self._say(f"{place} at {line.offset}: a record of request offset {of}, which is not there")
                continue
            self._record(f"{place} at {line.offset}", said, request, index)
            self._cuts(f"{place} at {line.offset}", said, request, index, floors)

    def _cuts(self, where: str, said: Fields, request: Line, index: int, floors: dict[tuple[str, int], int]) -> None:
        """They never fall, and of the request's own partition they are its offset at the first attempt."""
        for cut, _, absent in json.loads(str(said["points"])):
            for topic, _, number, end in cut if absent is None else ():
                before = floors.get((topic, number), 0)
                if end < before:
                    self._say(f"{where}: its cut of {topic}/{number} is {end}, one before it had {before}")
                floors[topic, number] = max(before, end)
                first = "retried" not in str(said["flags"]).split(",")
                if first and (topic, number) == ("requests", index) and end != request.offset:
                    self._say(f"{where}: decided at once at cut {end}, its request lies at {request.offset}")

    def _linked(self, where: str, said: Fields, before: str | None) -> str:
        """The record's own link, from the one before it of those that count."""
        chain = str(said.get("chain"))
        if before is not None and chain[64:] != before:
            self._say(f"{where}: its chain does not join the record before it")
        fields = [_physical(name, said.get(name)) for name in self.names if name != "chain"]
        while fields and fields[-1] is None:
            fields.pop()
        own = hashlib.sha256(chain[64:].encode() + _encode(fields)).hexdigest()
        if own != chain[:64]:
            self._say(f"{where}: its link is not that of its fields")
        return chain[:64]

    def _record(self, where: str, said: Fields, request: Line, index: int) -> None:
        id = str(said["request_id"])
        if str(request.said["request_id"]) != id:
            self._say(f"{where}: of request {id!r}, but there lies {request.said['request_id']!r}")
            return
        if not request.first:
            self._say(f"{where}: of request {id!r} at {request.offset}, which repeats one before it")
        if id in self.valid:
            self._say(f"{where}: request {id!r} has two valid records")
        self.valid[id] = said
        t = _micros(said["t"])
        answers, expected = [], []
        for (values, reasons), (cut, _, absent), view in zip(
            json.loads(str(said["features"])), json.loads(str(said["points"])), self._views(said), strict=True
        ):
            if absent is None:
                answers.append((values, reasons))
                ends = {(topic, number): end for topic, _, number, end in cut}
                expected.append(self._recompute(view, request, index, ends, t))
        if answers != expected:
            self._say(f"{where}: request {id!r} says {answers}, the log at its cut {expected}")
        self._outcome(where, said)

    def _views(self, said: Fields) -> list[str]:
        return [name for name, _ in json.loads(str(said["versions"]))["views"]]

    def _recompute(
        self, view: str, request: Line, index: int, ends: Mapping[tuple[str, int], int], t: int
    ) -> tuple[list[int | None], list[int]]:
        lines = self.events if view == "spent" else self.requests
        customer, amounts = request.said["customer"], []
        for (topic, number), held in lines.items():
            for line in held:
                own = view == "asked" and number == index and line.offset == request.offset
                if line.offset >= ends.get((topic, number), 0) or own or not line.first or line.micros > t:
                    continue
                if line.said["customer"] == customer:
                    amount = line.said["amount"]
                    assert type(amount) is int
                    amounts.append(amount)
        if view == "asked":
            return [len(amounts) + 1], [0]
        return ([len(amounts), sum(amounts)], [0, 0]) if amounts else ([0, None], [0, 1])

    def _outcome(self, where: str, said: Fields) -> None:
        """What the policy of the scene says of the values that were recorded."""
        values = dict(zip(self._views(said), (v for v, _ in json.loads(str(said["features"]))), strict=True))
        asked, spent = values["asked"][0], values["spent"][0]
        expected = "approve"
        if asked is None or spent is None or spent > 5:
            expected = "review"
        if asked is not None and asked > 6:
            expected = "decline"
        self.found.absent += (asked is None) + (spent is None)
        if said["outcome"] != expected:
            self._say(f"{where}: {said['outcome']!r} of {values}, expected {expected!r}")

    # --- what was told ---

    def _acknowledged(self, told: Told) -> None:
        places: dict[str, int] = {}
        for held in self.events.values():
            for line in held:
                places.setdefault(str(line.said["event_id"]), line.offset)
                self.found.repeated += not line.first
        newest: dict[int, tuple[int, int]] = {}
        for id, (key, number) in told.events.items():
            at = places.get(id)
            if at is None:
                self._say(f"event {id!r} was acknowledged and is not there")
                continue
            before = newest.get(key)
            if before is not None and number > before[0] and at < before[1]:
                self._say(f"event {id!r} lies before one of its key that was acknowledged before it was sent")
            newest[key] = (number, at)

    def _answers(self, told: Told) -> None:
        for one in told.answers:
            said = self.valid.get(one.request_id)
            if said is None:
                self._say(f"request {one.request_id!r} was answered by {one.by} and has no valid record")
                continue
            recorded = (said["outcome"], tuple(json.loads(str(said["reasons"]))), said["decision_id"])
            if recorded != (one.outcome, one.reasons, one.decision_id):
                answered = (one.outcome, one.reasons, one.decision_id)
                self._say(f"request {one.request_id!r}: {one.by} answered {answered}, its record says {recorded}")
        first: dict[str, Fields] = {}
        for held in self.requests.values():
            for line in held:
                first.setdefault(str(line.said["request_id"]), line.said)
        for id in told.conflicts:
            if id not in first:
                self._say(f"request {id!r} was refused as a conflict and is not there")


def _lines(records: Sequence[Record], id: str | None) -> Iterator[Line]:
    known: set[object] = set()
    for record in records:
        if record.value is None:
            continue  # a mark of the log's, no row
        said = json.loads(record.value)
        name = None if id is None else said[id]
        yield Line(record.offset, record.timestamp * 1_000, said, id is None or name not in known)
        known.add(name)


def _physical(name: str, value: object) -> object:
    return _micros(value) if name in ("t", "decided_at") else value


def _micros(value: object) -> int:
    """Of an instant as JSON has it."""
    if type(value) is int:
        return value
    at = dt.datetime.fromisoformat(str(value))
    return (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
