"""Events as JSON: the columnwise way takes only what the way of single events takes, and both give the same rows."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.codec import INSTANT_MAX, INSTANT_MIN, rows_to_batch
from headrace.core.schema import boolean, decimal, duration, field, float64, int64, string, timestamp
from headrace.log.define import Topic
from headrace.schemas.json_columns import JsonColumns
from headrace.schemas.json_payload import MANY, JsonPayload

TOPIC = Topic(
    "events",
    key="customer",
    id="event",
    event_time="at",
    fields={
        "event": int64, "customer": string, "at": timestamp, "amount": field(decimal(12, 2), minimum="-5"),
        "wait": duration, "risk": float64, "fraud": boolean, "note": string,
    },
)  # fmt: skip
INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
REALS = st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
ROWS = st.tuples(
    INTEGERS, TEXTS, st.integers(INSTANT_MIN, INSTANT_MAX), st.none() | st.integers(-500, 10**12 - 1),
    st.none() | INTEGERS, st.none() | REALS, st.none() | st.booleans(), st.none() | TEXTS,
)  # fmt: skip
ODD: list[Any] = [
    None, True, 1, 1.0, -0.0, 1e300, 10**30, "1", "-6", "-5.00", "1e2", "0.001", "x", "", [], {}, "\ud800",
    "2025-02-28T24:00:00Z", "2025-02-28T23:59:60Z", "2025-02-28T10:00:00+01:00", "2025-02-28 10:00:00Z",
    "2025-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "2025-02-28T10:00:00.1234567Z", "2025-02-28T10:00:00.5Z",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(ROWS, min_size=MANY, max_size=MANY + 3))
def test_rows_come_back_from_both_ways(rows: list[tuple[Any, ...]]) -> None:
    codec = JsonPayload(TOPIC)
    batch = rows_to_batch(TOPIC.schema, rows)
    for values in (codec.encode(batch), codec.encode(rows)):
        assert [len(value) > 0 for value in values] == [True] * len(rows)
        found = codec.decode(values)
        assert not found.unreadable and found.rows.equals(batch)
        alone = [codec.decode([value]) for value in values]
        assert all(not one.unreadable for one in alone)
        assert [one.rows.to_pylist()[0] for one in alone] == batch.to_pylist()


@settings(max_examples=600, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=2), st.sampled_from(TOPIC.schema.names), st.sampled_from(ODD))
def test_what_is_odd_is_judged_alike(rows: list[tuple[Any, ...]], name: str, value: Any) -> None:
    codec, columns = JsonPayload(TOPIC), JsonColumns(TOPIC, live=True)
    values = codec.encode(rows)
    said = json.loads(values[0]) | {name: value}
    values[0] = json.dumps(said).encode()
    fast = columns.decode(values)
    slow = codec.decode(values)
    if fast is not None:
        assert not slow.unreadable, slow.unreadable
        assert fast.equals(slow.rows)


def test_values_that_are_none_alone_are_none_together() -> None:
    """Joined, halves of objects would make whole ones."""
    codec = JsonPayload(TOPIC)
    good = codec.encode([(n, "c", 0, None, None, None, None, None) for n in range(MANY)])
    for odd in (b"", b"{", b"null", b"1,2", good[0] + b"\n" + good[1], good[0][:-1], b"\xff", b"[]", b'{"nobody":1}'):
        values = [*good[:3], odd, *good[3:]]
        found = codec.decode(values)
        assert [one.place for one in found.unreadable] == [3]
        assert found.places.tolist() == [place for place in range(len(values)) if place != 3]
        assert found.rows.num_rows == MANY


def test_a_value_may_be_written_over_several_lines() -> None:
    codec = JsonPayload(TOPIC)
    good = codec.encode([(n, "c", 0, None, None, None, None, None) for n in range(MANY)])
    pretty = [msgspec.json.format(value, indent=2) for value in good]
    assert codec.decode(pretty).rows.equals(codec.decode(good).rows)
