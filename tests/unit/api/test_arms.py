"""Challengers over HTTP: who answered, what stood beside it, in whose words; and what is served at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.api.answers import encode, made_answer
from headrace.api.openapi import document
from headrace.core.times import Instant
from headrace.decisions.define import Outcome
from headrace.decisions.run import DecisionMade
from tests.e2e.shop import DEFINITIONS, order
from tests.needs import requires
from tests.unit.api.served import Served

requires("prometheus_client")

PATIENT = {"Headrace-Budget-Ms": "60000"}
CHALLENGED = (
    DEFINITIONS.replace(
        "checkout = hr.Decision(",
        """strict = hr.Decision("strict", request=orders, policy=[
    hr.decline_if(orders.amount > 10, reason="DEAR"), hr.approve()], texts={"DEAR": {"en": "It costs too much."}})
checkout = hr.Decision(""",
    ).rstrip()[: -len("])")]
    + "],\n    challengers=[hr.Challenger(strict, share=0.5)])\n"
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("challenged") / "shop", definitions=CHALLENGED) as served:
        yield served


def test_each_customer_is_answered_by_one_of_both_and_the_record_has_the_other(shop: Served) -> None:
    arms = {}
    for customer in range(24):
        said = shop.call("POST", "/v1/decisions/checkout", order(f"o{customer}", customer), PATIENT).json
        arms[customer] = said.get("arm")
        strict = said.get("arm") == "strict"
        assert (said["outcome"], said["reasons"]) == (("decline", ["DEAR"]) if strict else ("approve", []))
        assert said.get("reason_texts") == ([{"code": "DEAR", "text": "It costs too much."}] if strict else None)
        id = str(said["decision_id"]).replace("/", "%2F")
        kept = shop.call("GET", f"/v1/decisions/{id}").json
        assert kept.get("arm") == said.get("arm")
        other = {"name": "checkout", "outcome": "approve", "reasons": [], "scores": {}}
        own = {"name": "strict", "outcome": "decline", "reasons": ["DEAR"], "scores": {}}
        assert kept["beside"] == [other if strict else own]
    assert set(arms.values()) == {None, "strict"}
    again = shop.call("POST", "/v1/decisions/checkout", order("again", 3), PATIENT).json
    assert again.get("arm") == arms[3]


def test_a_challenger_is_not_served_by_its_own_name(shop: Served) -> None:
    shop.call("POST", "/v1/decisions/strict", order("x", 1), PATIENT).problem(404, "HR-0806")


def test_the_document_names_what_an_answer_may_hold(shop: Served) -> None:
    said = document(shop.project.definitions, ["checkout"])["components"]["schemas"]
    assert {"scores", "arm", "beside"} <= set(said["CheckoutAnswer"]["properties"])
    assert said["Beside"]["required"] == ["name", "outcome", "reasons", "scores"]


def test_scores_are_told_where_there_are_several() -> None:
    made = DecisionMade(
        decision_id="checkout/1/0/1",
        request_id="r",
        outcome=Outcome.APPROVE,
        reasons=(),
        score=0.25,
        t=Instant(0),
        flags=(),
        scores=(("fraud", 0.25), ("default", None)),
    )
    assert b'"scores":{"fraud":0.25,"default":null}' in encode(made_answer(made, "{}"))
    assert b'"scores"' not in encode(made_answer(DecisionMade(**{**fields_of(made), "scores": ()}), "{}"))


def fields_of(made: DecisionMade) -> dict[str, object]:
    return {name: getattr(made, name) for name in DecisionMade.__slots__}
