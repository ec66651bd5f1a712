"""The fallback over HTTP, and its declaration: an answer that is no decision, and says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import headrace as hr
from headrace.api.lanes import Decides
from headrace.core.errors import DefinitionError, HeadraceError
from headrace.decisions.define import Outcome
from headrace.decisions.run import DecisionMade
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


class Held:
    """A decider that waits until it is let."""

    appending = 0.0

    def __init__(self, decides: Decides) -> None:
        self.version = decides.version
        self.begun, self.go = threading.Event(), threading.Event()
        self._decides = decides

    def decide_many(self, requests: Sequence[Mapping[str, object]]) -> Sequence[DecisionMade | HeadraceError]:
        self.begun.set()
        self.go.wait()
        return self._decides.decide_many(requests)


async def _late(shop: Served, request: dict[str, object]) -> Answer:
    """The lane is at another request, which fits nothing and appends nothing, while the request's budget runs out."""
    lane = shop.service.lanes["checkout"]
    well = lane.decides
    held = Held(well)
    lane.switch(held)
    before = asyncio.create_task(shop.answer("POST", DECIDE, {}, {"Headrace-Budget-Ms": "60000"}))
    await asyncio.to_thread(held.begun.wait)
    try:
        return await _submitted(shop, request)
    finally:
        held.go.set()
        await before
        lane.switch(well)


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
