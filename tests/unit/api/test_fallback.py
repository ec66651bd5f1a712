"""The fallback over HTTP, and its declaration: an answer that is no decision, and says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import headrace as hr
from headrace.core.errors import DefinitionError
from headrace.decisions.define import Outcome
from tests.e2e.shop import DEFINITIONS, order
from tests.needs import requires
from tests.unit.api.served import Answer, Served

requires("prometheus_client")

DECIDE = "/v1/decisions/checkout"
DECLINES = DEFINITIONS.replace('hr.Decision("checkout",', 'hr.Decision("checkout", fallback="decline",')


@pytest.mark.parametrize(("definitions", "outcome"), [(DEFINITIONS, "review"), (DECLINES, "decline")])
def test_a_late_request_has_the_declared_fallback_and_is_decided_when_sent_again(
    tmp_path: Path, definitions: str, outcome: str
) -> None:
    with Served(tmp_path, definitions=definitions) as shop:
        request = order("late", 1)
        before = shop.ends()
        found = shop.runner.run(_late(shop, request)).json
        assert (found["decision_id"], found["outcome"], found["reasons"]) == (None, outcome, ["DEADLINE"])
        assert (found["flags"], found["repeated"], found["request_id"]) == (["fallback"], False, "late")
        assert shop.ends() == before, "nothing was appended for it"
        decided = shop.call("POST", DECIDE, request, {"Headrace-Budget-Ms": "60000"}).json
        assert (decided["outcome"], decided["repeated"]) == ("approve", False)
        assert decided["versions"] == found["versions"]
        text = shop.call("GET", "/metrics").body.decode()
        assert f'headrace_decisions_total{{decision="checkout",kind="fallback",outcome="{outcome}"}} 1.0' in text


async def _late(shop: Served, request: dict[str, object]) -> Answer:
    """The loop is held while the request's budget runs out, and the lane with it: its lock is."""
    lane = shop.service.lanes["checkout"]
    with lane._changed:
        task = asyncio.create_task(_submitted(shop, request))
        return await task


async def _submitted(shop: Served, request: dict[str, object]) -> Answer:
    return await shop.answer("POST", DECIDE, request, {"Headrace-Budget-Ms": "1"})


def test_a_late_request_that_does_not_fit_is_refused_all_the_same(tmp_path: Path) -> None:
    with Served(tmp_path) as shop:
        shop.runner.run(_late(shop, order("late", 1, amount="x"))).problem(422, "HR-0402", "amount")


def test_the_fallback_is_part_of_what_a_decision_means() -> None:
    topic = hr.Topic("orders", key="order", id="order", fields={"order": hr.string})
    plain, declines = (
        hr.Decision("checkout", request=topic, policy=[hr.approve()], **more)
        for more in ({}, {"fallback": Outcome.DECLINE})
    )
    assert plain.fallback is Outcome.REVIEW
    assert "fallback" not in plain.meaning(), "policies from before it keep their fingerprints"
    assert declines.meaning()["fallback"] == "decline"
    with pytest.raises(DefinitionError, match="HR-0707"):
        hr.Decision("checkout", request=topic, policy=[hr.approve()], fallback="wait")
