"""Reasons' texts over HTTP: where they stand, in which language, and of what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.api.openapi import document
from tests.e2e.shop import DEFINITIONS, order
from tests.needs import requires
from tests.unit.api.served import Served
from tests.unit.api.test_fallback import _late

requires("prometheus_client")

DECIDE = "/v1/decisions/checkout"
PATIENT = {"Headrace-Budget-Ms": "60000"}
TEXTS = """texts={
    "MANY": {"en": "Too many orders.", "de": "Zu viele Aufträge."},
    "CURIOUS": {"en": "Many visits.", "de": "Viele Besuche."}}"""
WORDED = DEFINITIONS.replace("count_1d > 1000", "count_1d > 1").replace(
    "    hr.approve()])", f"    hr.approve()],\n    {TEXTS})"
)
MANY = {"en": "Too many orders.", "de": "Zu viele Aufträge."}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("worded") / "shop", definitions=WORDED) as served:
        yield served


def declined(
    shop: Served, customer: int, path: str = DECIDE, headers: dict[str, str] | None = None
) -> dict[str, object]:
    """A second order of a customer."""
    shop.call("POST", DECIDE, order(f"first-{customer}", customer), PATIENT)
    said: dict[str, object] = shop.call(
        "POST", path, order(f"second-{customer}", customer), {**PATIENT, **(headers or {})}
    ).json
    assert (said["outcome"], said["reasons"]) == ("decline", ["MANY"])
    return said


def test_texts_come_in_the_language_of_the_header(shop: Served) -> None:
    for customer, (header, language) in enumerate(
        [("de-AT, en;q=0.5", "de"), ("fr", "en"), ("en", "en"), ("", "en")], 10
    ):
        said = declined(shop, customer, headers={"Accept-Language": header})
        assert said["language"] == language
        assert said["reason_texts"] == [{"code": "MANY", "text": MANY[language]}]
    said = declined(shop, 20)
    assert (said["language"], said["reason_texts"]) == ("en", [{"code": "MANY", "text": MANY["en"]}])


def test_a_language_by_name_goes_before_the_header(shop: Served) -> None:
    said = declined(shop, 21, f"{DECIDE}?language=de", {"Accept-Language": "en"})
    assert said["reason_texts"] == [{"code": "MANY", "text": MANY["de"]}]


def test_a_language_that_there_is_not_is_refused_before_anything_is_decided(shop: Served) -> None:
    before = shop.ends()
    shop.call("POST", f"{DECIDE}?language=fr", order("x", 30), PATIENT).problem(400, "HR-1007", "language")
    shop.call("POST", f"{DECIDE}?language=de&language=en", order("x", 30), PATIENT).problem(400, "HR-1007", "language")
    assert shop.ends() == before


def test_an_approval_has_no_texts_but_a_language(shop: Served) -> None:
    said = shop.call("POST", DECIDE, order("plain", 31), PATIENT).json
    assert (said["reasons"], said["reason_texts"], said["language"]) == ([], [], "en")


def test_a_recorded_and_a_repeated_decision_are_worded_as_they_are_asked(shop: Served) -> None:
    id = str(declined(shop, 32)["decision_id"]).replace("/", "%2F")
    text = [{"code": "MANY", "text": MANY["de"]}]
    for path in (f"/v1/decisions/{id}?language=de", f"/v1/decisions/{id}?features=true&language=de"):
        assert shop.call("GET", path).json["reason_texts"] == text
    assert shop.call("GET", f"/v1/decisions/{id}", headers={"Accept-Language": "de"}).json["reason_texts"] == text
    shop.call("GET", f"/v1/decisions/{id}?language=fr").problem(400, "HR-1007", "language")
    shop.call("POST", DECIDE, order("once", 33), PATIENT)
    request = order("twice", 33)
    for repeated in (False, True):
        said = shop.call("POST", f"{DECIDE}?language=de", request, PATIENT).json
        assert (said["repeated"], said["reason_texts"]) == (repeated, text)


def test_a_fallback_is_worded_too(shop: Served) -> None:
    said = shop.runner.run(_late(shop, order("late", 34))).json
    assert (said["decision_id"], said["reasons"]) == (None, ["DEADLINE"])
    assert said["reason_texts"] == [{"code": "DEADLINE", "text": "The request could not be assessed in time."}]


def test_a_decision_without_texts_has_none_and_takes_no_language(tmp_path: Path) -> None:
    with Served(tmp_path) as shop:
        said = shop.call("POST", DECIDE, order("a", 1), {**PATIENT, "Accept-Language": "de"}).json
        assert "reason_texts" not in said
        assert "language" not in said
        before = shop.ends()
        shop.call("POST", f"{DECIDE}?language=de", order("b", 1), PATIENT).problem(400, "HR-1007", "language")
        assert shop.ends() == before
        assert "ReasonText" not in json.dumps(document(shop.project.definitions, ["checkout"]))


def test_the_document_knows_texts_and_their_languages(shop: Served) -> None:
    made = document(shop.project.definitions, ["checkout"])
    said = json.loads(json.dumps(made))
    schemas = said["components"]["schemas"]
    for name in ("CheckoutAnswer", "RecordedDecision"):
        assert schemas[name]["properties"]["reason_texts"]["items"] == {"$ref": "#/components/schemas/ReasonText"}
        assert "reason_texts" not in schemas[name]["required"]
    for path, method in ((DECIDE, "post"), ("/v1/decisions/{decision_id}", "get")):
        parameters = {one["name"]: one for one in said["paths"][path][method]["parameters"]}
        assert parameters["language"]["schema"] == {"type": "string", "enum": ["en", "de"]}
        assert parameters["Accept-Language"]["in"] == "header"
