"""Records: what goes in comes out, to the bit, as a row and as Arrow."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.core.aggregate import Reason
from headrace.core.codec import rows_to_batch
from headrace.core.errors import SchemaError
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.decisions.define import Decision, Outcome
from headrace.decisions.plan import Decided, Ruling
from headrace.decisions.record import (
    DecisionRecord,
    Flag,
    ViewPoint,
    features_text,
    from_batch,
    from_row,
    record_topic,
    same_bits,
    to_row,
)
from headrace.log.codec import topic_from_json, topic_to_json
from headrace.schemas.validate import validator
from tests.unit.models.lender import applications

DECISION = Decision("checkout", request=applications, policy=[hr.approve()])
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
VALUES = st.none() | st.booleans() | INT64 | st.integers(-(10**38), 10**38) | FLOATS | st.text(max_size=9)
PARTITIONS = st.builds(Partition, st.sampled_from(["applications", "shop.chargebacks", "größe"]), st.just(1), INT64)
ANSWERS = st.lists(
    st.tuples(VALUES | st.lists(VALUES, max_size=3).map(tuple), st.sampled_from(Reason)), max_size=4
).map(lambda pairs: (tuple(v for v, _ in pairs), tuple(r for _, r in pairs)))
POINTS = st.builds(
    ViewPoint,
    cut=st.dictionaries(PARTITIONS, INT64, max_size=3).map(Cut.of),
    staleness=st.integers(0, 10**15).map(Duration),
    absent=st.none() | st.sampled_from(["stale", "too_old"]),
)
INSTANTS = st.integers(-(10**15), 10**15).map(Instant)
SCORES = st.none() | FLOATS
NAMED = st.lists(st.tuples(st.sampled_from(["fraud", "default", "größe"]), SCORES), min_size=2, max_size=3).map(tuple)
CODES = st.lists(st.sampled_from(["A", "MISSING_DATA"]), max_size=4).map(tuple)
# The name of an only model is not in a record.
DECIDED = st.builds(
    Decided,
    outcome=st.sampled_from(Outcome),
    rule=st.integers(0, 99),
    reasons=CODES,
    scores=st.just(()) | FLOATS.map(lambda score: (("", score),)) | NAMED,
)
RULINGS = st.builds(
    Ruling,
    answer=DECIDED,
    arm=st.none() | st.just("next"),
    beside=st.lists(st.tuples(st.sampled_from(["checkout", "next", "a"]), DECIDED), max_size=2).map(tuple),
)
RECORDS = st.builds(
    DecisionRecord,
    decision=st.just("checkout"),
    request_id=st.text(max_size=9),
    request=st.builds(Partition, st.just("applications"), st.integers(1, 9), st.integers(0, 9)),
    offset=st.integers(0, 2**42),
    t=INSTANTS,
    decided_at=INSTANTS,
    versions=st.just('{"semantics":1}'),
    points=st.lists(POINTS, max_size=3).map(tuple),
    answers=st.lists(ANSWERS, max_size=3).map(tuple),
    ruling=RULINGS,
    flags=st.lists(st.sampled_from(Flag), max_size=3, unique=True).map(tuple),
)


@given(record=RECORDS)
def test_a_record_comes_back_from_its_row(record: DecisionRecord) -> None:
    back = from_row(to_row(record), "applications")
    assert back == record and to_row(back) == to_row(record)
    assert bits(back) == bits(record)


@given(records=st.lists(RECORDS, max_size=4))
def test_records_come_back_from_arrow(records: list[DecisionRecord]) -> None:
    back = from_batch(
        rows_to_batch(record_topic(DECISION).schema, [to_row(record) for record in records]), "applications"
    )
    assert back == records and [bits(one) for one in back] == [bits(one) for one in records]


def bits(record: DecisionRecord) -> list[object]:
    """What == does not tell apart: 1, 1.0 and True."""
    values = [value for answer in record.answers for value in answer[0]]
    rulings = [record.ruling.answer, *(one for _, one in record.ruling.beside)]
    scores = [score for one in rulings for _, score in one.scores]
    return [(type(v), struct.pack("<d", v) if type(v) is float else v) for v in [*values, *scores]]


def test_texts_tell_bits_apart() -> None:
    def text(value: object) -> str:
        return features_text([((value,), (Reason.VALUE,))])

    kinds = [1, 1.0, True, "1", None, (1,), 0.1, math.nextafter(0.1, 1), 5e-324, -1]
    assert len({text(kind) for kind in kinds}) == len(kinds)
    assert same_bits(None, None) and same_bits(0.1, 0.1)
    assert not same_bits(None, 0.0) and not same_bits(0.1, math.nextafter(0.1, 1))


def test_the_topic_lies_beside_its_requests() -> None:
    topic = record_topic(DECISION)
    assert topic.name == "headrace.decisions.checkout" and topic.partitions == applications.partitions
    assert topic_from_json(topic_to_json(topic)) == topic
    event = dict(zip(topic.schema.names, to_row(RECORD), strict=True))
    assert validator(topic)(event) == to_row(RECORD)


RECORD = DecisionRecord(
    decision="checkout",
    request_id="a-1",
    request=Partition("applications", 1, 0),
    offset=41,
    t=Instant(5),
    decided_at=Instant(6),
    versions="{}",
    points=(),
    answers=(),
    ruling=Ruling(Decided(Outcome.REVIEW, ("A",), 1, (("", 0.25),))),
    flags=(Flag.RETRIED,),
)


@pytest.mark.parametrize(
    ("place", "value"), [(4, None), (5, "41"), (9, "[["), (10, "[[1]]"), (12, "perhaps"), (15, "restamped,odd")]
)
def test_another_event_is_refused(place: int, value: object) -> None:
    row = list(to_row(RECORD))
    row[place] = value
    with pytest.raises(SchemaError) as caught:
        from_row(row, "applications")
    assert caught.value.code == "HR-0713"
    with pytest.raises(SchemaError):
        from_row(to_row(RECORD)[:-1], "applications")
