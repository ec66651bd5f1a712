"""Where a decision's time went: waiting, computing, the log's append, all of it."""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.e2e.shop import order
from tests.needs import requires
from tests.unit.api.served import Served

requires("prometheus_client")

DECIDE = "/v1/decisions/checkout"
SUM = re.compile(r'headrace_decision_stage_seconds_(sum|count)\{decision="checkout",stage="(\w+)"\} (\S+)')


def test_stages_are_parts_of_the_whole(tmp_path: Path) -> None:
    with Served(tmp_path) as shop:
        began = time.monotonic()
        for number in range(5):
            shop.call("POST", DECIDE, order(f"a-{number}", number), {"Headrace-Budget-Ms": "60000"})
        spent = time.monotonic() - began
        found = {(of, stage): float(value) for of, stage, value in SUM.findall(shop.metrics.text().decode())}
        assert {stage: count for (of, stage), count in found.items() if of == "count"} == {
            "queue": 5.0, "compute": 5.0, "append": 5.0, "total": 5.0
        }  # fmt: skip
        stages = {stage: value for (of, stage), value in found.items() if of == "sum"}
        assert all(value > 0 for value in stages.values()), stages
        assert stages["queue"] + stages["compute"] + stages["append"] <= stages["total"] <= spent


def test_a_decider_says_what_its_newest_call_appended(tmp_path: Path) -> None:
    with Served(tmp_path) as shop:
        decider = shop.project.decider("checkout")
        assert decider.appending == 0.0
        began = time.perf_counter()
        decider.decide(order("a", 1))
        assert 0.0 < decider.appending < time.perf_counter() - began
        decider.decide_many([{}])
        assert decider.appending == 0.0, "nothing was appended for what does not fit"
