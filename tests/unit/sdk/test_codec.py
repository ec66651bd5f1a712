"""Events to records and back: the text is the canonical one to the byte, poison is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.core.codec import canonical_json, json_value, key_bytes, partition_of
from headrace.core.errors import DefinitionError, InputError, SchemaError
from headrace.sdk.codec import Codec, Poison
from headrace.sdk.define import Reason
from tests.examples import examples

TOPIC = hr.Topic(
    "everything",
    key="customer",
    id="n",
    partitions=5,
    fields={
        "n": hr.int64, "customer": hr.string, "real": hr.float64, "flag": hr.boolean, "at": hr.timestamp,
        "money": hr.decimal(18, 2), "whole": hr.decimal(9, 0), "fine": hr.decimal(18, 12), "Größe": hr.string,
    },
)  # fmt: skip
CODEC = Codec(TOPIC, 5)
INT64 = st.integers(-(2**63), 2**63 - 1)
UNITS = st.integers(-(10**18) + 1, 10**18 - 1)
ROWS = st.tuples(
    INT64,
    st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),
    st.none() | st.booleans(),
    st.none() | st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    st.none() | UNITS,
    st.none() | st.integers(-(10**9) + 1, 10**9 - 1),
    st.none() | UNITS,
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)


@examples(300)
@given(ROWS)
def test_the_text_is_the_canonical_one_and_reads_back(row: tuple[object, ...]) -> None:
    text = CODEC.text(row)  # type: ignore[arg-type]  # physical values, as drawn
    named = zip(TOPIC.schema, row, strict=True)
    assert text == canonical_json({f.name: json_value(v, f.type) for f, v in named})  # type: ignore[arg-type]  # as above
    key = key_bytes(str(row[1]))
    found, again = CODEC.decode(partition_of(str(row[1]), 5), key, text.encode())
    assert (found, again) == (row[1], row)


def test_an_integer_key_is_eight_bytes() -> None:
    topic = hr.Topic("numbers", key="n", partitions=7, fields={"n": hr.int64})
    encoded = Codec(topic, 7).encode({"n": -5})
    assert encoded.key == (-5).to_bytes(8, "big", signed=True) and encoded.partition == partition_of(-5, 7)
    with pytest.raises(InputError) as raised:
        Codec(topic, 7).key("five")
    assert raised.value.code == "HR-0445"


@pytest.mark.parametrize(
    ("key", "value", "partition", "reason", "kind"),
    [
        (b"a", None, 0, Reason.UNREADABLE, "HR-0440"),
        (b"a", b"\xff\xfe", 0, Reason.UNREADABLE, "HR-0440"),
        (b"a", b'{"n": 1', 0, Reason.UNREADABLE, "HR-0440"),
        (b"a", b"[" * 100_000, 0, Reason.UNREADABLE, "HR-0440"),
        (b"a", b"[1]", 0, Reason.UNREADABLE, "HR-0440"),
        (b"a", b'{"n": 1, "customer": "a", "real": NaN}', 0, Reason.UNFIT, "HR-0403"),
        (b"a", b'{"n": 1, "customer": null}', 0, Reason.UNFIT, "HR-0406"),
        (b"a", b'{"n": 1, "customer": "a", "more": 1}', 0, Reason.UNFIT, "HR-0405"),
        (b"b", b'{"n": 1, "customer": "a"}', 0, Reason.MISPLACED, "HR-0441"),
        (None, b'{"n": 1, "customer": "a"}', 0, Reason.MISPLACED, "HR-0441"),
        (b"a", b'{"n": 1, "customer": "a"}', (partition_of("a", 5) + 1) % 5, Reason.MISPLACED, "HR-0441"),
    ],
)
def test_poison_is_named(key: bytes | None, value: bytes | None, partition: int, reason: Reason, kind: str) -> None:
    with pytest.raises(Poison) as raised:
        CODEC.decode(partition, key, value)
    assert (raised.value.failure.reason, raised.value.failure.kind) == (reason, kind)


def test_unknown_fields_can_be_left_out() -> None:
    row = {"n": 1, "customer": "a", "more": {"deep": [1]}}
    codec = Codec(TOPIC, 5, ignore_unknown=True)
    assert codec.decode(partition_of("a", 5), b"a", json.dumps(row).encode())[1][:2] == (1, "a")


def test_a_topic_in_arrow_form_is_refused() -> None:
    with pytest.raises(DefinitionError) as raised:
        Codec(hr.Topic("bulk", key="n", fields={"n": hr.int64}, payload="arrow"), 1)
    assert raised.value.code == "HR-0434"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SchemaError):
        CODEC.encode({"n": 1, "customer": "a", "money": "1.234"})
