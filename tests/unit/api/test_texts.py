"""Reasons in words: the language that is chosen, what is worded, what it costs where there are no texts."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

import headrace as hr
from headrace.api.texts import HEADERS_MAX, WORDED_MAX, Texts, check_language, ranges
from headrace.core.errors import InputError

TOPIC = hr.Topic("orders", key="order", id="order", fields={"order": hr.string, "amount": hr.int64})


def decision(*languages: str, codes: Sequence[str] = ("MANY", "HIGH")) -> hr.Decision:
    ours = ("MISSING_DATA", "DEADLINE", "UNAVAILABLE")
    return hr.Decision(
        "checkout",
        request=TOPIC,
        policy=[*(hr.decline_if(TOPIC.amount > 3, reason=code) for code in codes), hr.approve()],
        texts={code: {one: f"{code} in {one}" for one in languages} for code in (*codes, *ours)} if languages else None,
    )


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, "en"),
        (b"", "en"),
        (b"de", "de"),
        (b"DE", "de"),
        (b"de-AT", "de"),
        (b"de-AT-1996, en;q=0.1", "de"),
        (b"fr, de;q=0.5, en;q=0.4", "de"),
        (b"en;q=0.4, de;q=0.5", "de"),
        (b"de;q=0, en", "en"),
        (b"de;q=0", "en"),
        (b"fr", "en"),
        (b"*", "en"),
        (b"fr, *;q=0.1, de;q=0.05", "en"),
        (b"pt", "pt-BR"),
        (b"pt-PT", "en"),
        (b"pt-br", "pt-BR"),
        (b"de;q=2", "en"),
        (b"de;x=1, ;;;, \xff\xfe, de;q=1.0", "de"),
        (b"x" * 10_000, "en"),
        (b"fr," * 10_000 + b"de", "en"),
    ],
)
def test_a_language_is_negotiated(header: bytes | None, found: str) -> None:
    texts = Texts(decision("en", "de", "pt-BR"))
    for _ in range(2):
        assert texts.language(None, header) == found


def test_a_language_by_name_goes_before_the_header() -> None:
    texts = Texts(decision("en", "de"))
    assert texts.language("DE", b"en") == "de"
    assert texts.language("fr", b"de") == "de", "checked before; an answer is never refused for it"


def test_a_language_that_there_is_not_is_refused_by_name() -> None:
    check_language(decision("en", "pt-BR"), "PT-br")
    for one, asked in ((decision("en", "de"), "fr"), (decision("en"), ""), (decision(), "en")):
        with pytest.raises(InputError) as refused:
            check_language(one, asked)
        assert (refused.value.code, refused.value.facts["field"]) == ("HR-1007", "language")


def test_reasons_are_worded_in_order() -> None:
    texts = Texts(decision("en", "de"))
    for _ in range(2):
        assert json.loads(bytes(texts.worded(("HIGH", "MANY"), "de"))) == [
            {"code": "HIGH", "text": "HIGH in de"},
            {"code": "MANY", "text": "MANY in de"},
        ]
    assert texts.worded(("HIGH",), "en") is texts.worded(["HIGH"], "en"), "made once"
    assert json.loads(bytes(texts.worded((), "en"))) == []


def test_a_code_of_before_is_left_out() -> None:
    said = json.loads(bytes(Texts(decision("en")).worded(("GONE", "MANY"), "en")))
    assert said == [{"code": "MANY", "text": "MANY in en"}]


def test_what_is_remembered_is_bounded() -> None:
    texts = Texts(decision("en", "de"))
    for number in range(2 * HEADERS_MAX):
        assert texts.language(None, b"de, fr;q=0.%03d" % (number % 1_000)) == "de"
        assert len(texts._chosen) <= HEADERS_MAX
    for number in range(2 * WORDED_MAX):
        texts.worded((f"CODE_{number}",), "en")
        assert len(texts._worded) <= WORDED_MAX


def test_ranges_are_by_weight_and_in_order_where_equal() -> None:
    assert ranges(b"a, b;q=0.5, c ; q=1.000, d;q=0.75") == ["a", "c", "d", "b"]
    assert ranges(b"a;q=1.001, b;q=0.0001, c;q, d;q=, e;q=0.000") == []
