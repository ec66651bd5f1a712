"""The decision record: an event that keeps what a decision saw and said, exactly, so that it can be computed again.
Pure.

The one idea: a record holds the point, not the past: t, and per view the cut or the reason of its absence (SEMANTICS
1.1). The features' values stand beside it as they were published, to the bit: integers, decimals in units, and floats
by the shortest text that reads back as the same double.

Records are events of `headrace.decisions.<name>`, a topic with the request topic's partitions: a record lies in the
partition of its request. Texts are JSON: `versions` {"semantics", "policy", "model", "views": [[name, fingerprint]]};
`points` one entry a view, [cut, staleness in microseconds, null] or [cut, staleness, why it is absent], a cut being
[[topic, incarnation, partition, next offset]]; `features` one entry a view, [values, reason numbers]. `score` is the
first model's; `scores` all of several, [[model, score]]. Where there are challengers, `arm` is the one that gave the
answer, null for the decision itself, and `beside` what the others would have answered, [[name, outcome, rule, reasons,
[[model, score]]]]. Of `request_hash` and `chain` speaks chain.py, of `epoch` and `claim` claims.py: a row with a
`claim` is no record, and both are null in a log that one process owns.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace.core import schema
from headrace.core.aggregate import Reason
from headrace.core.codec import Physical, batch_to_rows
from headrace.core.errors import SchemaError
from headrace.core.points import Cut, Partition
from headrace.core.schema import field
from headrace.core.times import Duration, Instant
from headrace.decisions.chain import link
from headrace.decisions.define import Decision, Outcome
from headrace.decisions.plan import Answer, Decided, Ruling, Scored
from headrace.log.define import Partitioning, Topic

PREFIX = "headrace.decisions."
Row = tuple[Physical, ...]

_FIELDS = {
    "decision_id": field(schema.string, required=True),
    "decision": field(schema.string, required=True),
    "request_id": field(schema.string, required=True),
    "request_incarnation": field(schema.int64, required=True),
    "request_partition": field(schema.int64, required=True),
    "request_offset": field(schema.int64, required=True),
    "t": field(schema.timestamp, required=True),
    "decided_at": field(schema.timestamp, required=True),
    "versions": field(schema.string, required=True),
    "points": field(schema.string, required=True),
    "features": field(schema.string, required=True),
    "score": field(schema.float64),
    "outcome": field(schema.string, required=True),
    "rule": field(schema.int64, required=True),
    "reasons": field(schema.string, required=True),
    "flags": field(schema.string, required=True),
    "request_hash": field(schema.string),
    # What records got later stands here, before the chain and null where there is nothing to say: chain.py.
    "scores": field(schema.string),
    "arm": field(schema.string),
    "beside": field(schema.string),
    "epoch": field(schema.int64),
    "claim": field(schema.string),
    "chain": field(schema.string),
}
# Places in a row. REQUEST: of the first of three: incarnation, partition, offset.
REQUEST, DECIDED_AT, POINTS, REQUEST_HASH, EPOCH, CLAIM, CHAIN = (
    list(_FIELDS).index(name)
    for name in ("request_incarnation", "decided_at", "points", "request_hash", "epoch", "claim", "chain")
)
# Records are never refused for their time: t is their request's, and was judged with it.
_ANY_TIME = Duration.parse("36500d")


class Flag(enum.Enum):
    """RESTAMPED: the request's own event time lay outside the declared skew, t is the append instant (SEMANTICS 2.1).
    RETRIED: the request was in the log, undecided, and was decided at a later cut (5.3). OVER_BUDGET: it took
    longer."""

    RESTAMPED = "restamped"
    RETRIED = "retried"
    OVER_BUDGET = "over_budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPoint:
    """Where a view answered. staleness: the request's available_at less the instant at which the cut was last proven to
    be the log's end. absent: why there is no answer; None where there is one."""

    cut: Cut
    staleness: Duration
    absent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """points, answers: one a view, in the order of `versions`. ruling: what was answered, and beside it. request_hash,
    chain: empty in records of before there was a chain, and in one that is not written yet. epoch: the offset of the
    claim under which it was made; None in a log that one process owns."""

    decision: str
    request_id: str
    request: Partition
    offset: int
    t: Instant
    decided_at: Instant
    versions: str
    points: tuple[ViewPoint, ...]
    answers: tuple[Answer, ...]
    ruling: Ruling
    flags: tuple[Flag, ...]
    request_hash: str = ""
    chain: str = ""
    epoch: int | None = None

    @property
    def decision_id(self) -> str:
        return decision_id(self.decision, self.request, self.offset)

    @property
    def outcome(self) -> Outcome:
        return self.ruling.answer.outcome

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.ruling.answer.reasons

    @property
    def rule(self) -> int:
        """Of the policy that gave the answer."""
        return self.ruling.answer.rule

    @property
    def score(self) -> float | None:
        """Of the first model."""
        return self.ruling.answer.score


def decision_id(decision: str, request: Partition, offset: int) -> str:
    """One decision of one request: the place of the request says which."""
    return f"{decision}/{request.incarnation}/{request.index}/{offset}"


def record_topic(decision: Decision) -> Topic:
    """The topic of a decision's records."""
    request = decision.request
    return Topic(
        PREFIX + decision.name,
        key="request_id",
        event_time="t",
        partitions=request.partitions,
        partitioning=Partitioning.FOREIGN,  # that of its request, whose key is another
        clock=request.clock,
        max_late=_ANY_TIME,
        max_ahead=_ANY_TIME,
        fields=_FIELDS,
        description=f"what was decided on events of {request.name}",
    )


def to_row(record: DecisionRecord) -> Row:
    """The record as an event of its topic."""
    return make_row(
        decision=record.decision,
        request_id=record.request_id,
        request=record.request,
        offset=record.offset,
        t=record.t,
        decided_at=record.decided_at,
        versions=record.versions,
        points=points_text(record.points),
        features=features_text(record.answers),
        ruling=record.ruling,
        flags=record.flags,
        request_hash=record.request_hash,
        chain=record.chain,
        epoch=record.epoch,
    )


def make_row(
    *,
    decision: str,
    request_id: str,
    request: Partition,
    offset: int,
    t: int,
    decided_at: int,
    versions: str,
    points: str,
    features: str,
    ruling: Ruling,
    flags: Sequence[Flag],
    request_hash: str = "",
    chain: str = "",
    epoch: int | None = None,
) -> Row:
    """An event of a record's topic from its parts: the path of live decisions, which keeps some texts from call to
    call."""
    answer = ruling.answer
    return (
        decision_id(decision, request, offset),
        decision,
        request_id,
        request.incarnation,
        request.index,
        offset,
        t,
        decided_at,
        versions,
        points,
        features,
        answer.score,
        answer.outcome.value,
        answer.rule,
        _json(answer.reasons),
        ",".join([flag.value for flag in flags]),
        request_hash or None,
        scores_text(answer.scores) if len(answer.scores) > 1 else None,
        ruling.arm,
        beside_text(ruling) if ruling.beside else None,
        epoch,
        None,
        chain or None,
    )


def claim_row(decision: str, request: Partition, *, owner: str, at: Instant) -> Row:
    """An event by which `owner` takes over the records of a partition of requests; `at` by its own clock.

    No field names a request that there is. Its t is 1970: a simulated clock follows t, and a claim moves none.
    """
    place = ("", request.incarnation, request.index, -1)
    neutral = (0, at, "", "", "", None, "", -1, "", "", None, None, None, None)
    return (f"{decision}/claim", decision, *place, *neutral, None, owner, None)


def linked(row: Row, previous: str) -> Row:
    """The event with its link to the one before it in its partition."""
    fields = row[:-1]
    return (*fields, link(previous, fields))


def from_row(row: Sequence[Physical], topic: str) -> DecisionRecord:
    """The record of an event. topic: the name of the request's topic. Raises: SchemaError HR-0713 for another event."""
    try:
        said = dict(zip(_FIELDS, row, strict=True))
        if said["claim"] is not None:
            raise ValueError("it is a claim")
        return DecisionRecord(
            decision=str(said["decision"]),
            request_id=str(said["request_id"]),
            request=Partition(topic, _int(said["request_incarnation"]), _int(said["request_partition"])),
            offset=_int(said["request_offset"]),
            t=Instant(_int(said["t"])),
            decided_at=Instant(_int(said["decided_at"])),
            versions=str(said["versions"]),
            points=tuple(_point(*point) for point in json.loads(str(said["points"]))),
            answers=tuple(_answer(*answer) for answer in json.loads(str(said["features"]))),
            ruling=_ruling(said),
            flags=tuple(Flag(flag) for flag in str(said["flags"]).split(",") if flag),
            request_hash=str(said["request_hash"] or ""),
            chain=str(said["chain"] or ""),
            epoch=None if said["epoch"] is None else _int(said["epoch"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise SchemaError("HR-0713", "not a decision record", detail=f"{type(error).__name__}: {error}") from error


def rows_of_batch(batch: pa.RecordBatch) -> list[Row]:
    """Records of a batch as events; other columns are ignored."""
    return batch_to_rows(_SCHEMA, batch)


def from_batch(batch: pa.RecordBatch, topic: str) -> list[DecisionRecord]:
    """Records of a batch with the topic's fields; other columns are ignored. Raises: SchemaError HR-0713."""
    return [from_row(row, topic) for row in rows_of_batch(batch)]


def features_text(answers: Sequence[Answer]) -> str:
    """Equal texts are equal bits: 1, 1.0 and true differ, and each double has one shortest text."""
    return _json(answers)


def points_text(points: Sequence[ViewPoint]) -> str:
    return _json([[cut_json(point.cut), point.staleness.micros, point.absent] for point in points])


def scores_text(scores: Sequence[Scored]) -> str:
    """Equal texts are equal bits."""
    return _json(scores)


def beside_text(ruling: Ruling) -> str:
    """What others would have answered; equal texts are equal bits."""
    return _json([[name, one.outcome.value, one.rule, one.reasons, one.scores] for name, one in ruling.beside])


def cut_json(cut: Cut) -> list[tuple[str, int, int, int]]:
    """A cut as JSON values."""
    return [(p.topic, p.incarnation, p.index, offset) for p, offset in cut]


def same_bits(a: float | None, b: float | None) -> bool:
    """Whether two scores are one double."""
    return a is b if a is None or b is None else struct.pack("<d", a) == struct.pack("<d", b)


def _point(cut: list[tuple[str, int, int, int]], staleness: int, absent: str | None) -> ViewPoint:
    offsets = {Partition(topic, incarnation, index): offset for topic, incarnation, index, offset in cut}
    return ViewPoint(cut=Cut.of(offsets), staleness=Duration(staleness), absent=absent)


def _ruling(said: Mapping[str, Physical]) -> Ruling:
    score = None if said["score"] is None else float(said["score"])
    # A record says whose score it is where there are several; the name of the only model is not in it.
    only: tuple[Scored, ...] = () if score is None else (("", score),)
    scores = only if said["scores"] is None else _scores(json.loads(str(said["scores"])))
    answer = _decided(said["outcome"], _int(said["rule"]), json.loads(str(said["reasons"])), scores)
    beside = json.loads(str(said["beside"])) if said["beside"] is not None else []
    return Ruling(
        answer,
        None if said["arm"] is None else str(said["arm"]),
        tuple((str(name), _decided(outcome, rule, codes, _scores(all))) for name, outcome, rule, codes, all in beside),
    )


def _decided(outcome: object, rule: int, codes: list[str], scores: tuple[Scored, ...]) -> Decided:
    return Decided(Outcome(outcome), tuple(codes), rule, scores)


def _scores(said: list[tuple[str, float | None]]) -> tuple[Scored, ...]:
    return tuple((str(name), None if score is None else float(score)) for name, score in said)


def _answer(values: list[Physical | list[Physical]], reasons: list[int]) -> Answer:
    return tuple(tuple(v) if isinstance(v, list) else v for v in values), tuple(Reason(r) for r in reasons)


def _int(value: Physical) -> int:
    if type(value) is not int:
        raise ValueError(f"expected an integer, seen {value!r}")
    return value


_SCHEMA = schema.Schema.of(PREFIX, _FIELDS)
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
