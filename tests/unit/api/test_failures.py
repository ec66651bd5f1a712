"""What is a fault of ours: told by its code alone, logged in full, and the server goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from headrace.api.settings import Settings
from headrace.core.errors import HeadraceError, LogFullError, StateError
from headrace.decisions.plan import Version
from headrace.decisions.run import DecisionMade
from tests.e2e.shop import order
from tests.needs import requires
from tests.unit.api.served import Served

requires("prometheus_client")

DECIDE = "/v1/decisions/checkout"
PATIENT = {"Headrace-Budget-Ms": "60000"}
SECRET = "/var/lib/secret-place"


class Failing:
    """A decider that can do nothing."""

    appending = 0.0

    def __init__(self, version: Version, error: Exception) -> None:
        self.version = version
        self._error = error

    def decide_many(self, requests: Sequence[Mapping[str, object]]) -> Sequence[DecisionMade | HeadraceError]:
        if isinstance(self._error, HeadraceError):
            return [self._error] * len(requests)
        raise self._error


class Broken:
    """A reader that fails as no reader should."""

    def read(self, *_: object, **__: object) -> object:
        raise KeyError(SECRET)


def test_a_log_without_room_is_503_and_tells_no_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Served(tmp_path) as shop:
        lane = shop.service.lanes["checkout"]
        well = lane.decides
        lane.switch(
            Failing(well.version, LogFullError("HR-0306", f"no room in {SECRET}", detail=SECRET, retryable=True))
        )
        found = shop.call("POST", DECIDE, order("a", 1), PATIENT)
        said = found.problem(503, "HR-0306")
        assert said["retryable"]
        assert found.headers["retry-after"] == "1"
        assert SECRET not in found.body.decode()
        assert SECRET in caplog.text
        lane.switch(well)
        assert shop.call("POST", DECIDE, order("a", 1), PATIENT).status == 200


@pytest.mark.parametrize("error", [ZeroDivisionError("in a model"), StateError("HR-0544", "the state is broken")])
def test_a_decision_that_cannot_be_computed_has_the_fallback_and_unreadies_the_server(
    tmp_path: Path, error: Exception
) -> None:
    with Served(tmp_path) as shop:
        lane = shop.service.lanes["checkout"]
        well = lane.decides
        lane.switch(Failing(well.version, error))
        said = shop.call("POST", DECIDE, order("a", 1), PATIENT).json
        assert (said["decision_id"], said["outcome"], said["reasons"]) == (None, "review", ["UNAVAILABLE"])
        assert "checkout" in shop.call("GET", "/readyz").problem(503, "HR-1008")["detail"]
        lane.switch(well)
        assert shop.call("POST", DECIDE, order("a", 1), PATIENT).json["outcome"] == "approve"
        assert shop.call("GET", "/readyz").status == 200


def test_a_server_is_ready_again_after_a_while_without_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(tmp_path) as shop:
        lane = shop.service.lanes["checkout"]
        lane.switch(Failing(lane.decides.version, ZeroDivisionError()))
        shop.call("POST", DECIDE, order("a", 1), PATIENT)
        assert shop.call("GET", "/readyz").status == 503
        monkeypatch.setattr("headrace.api.lanes.FAILING_SECONDS", 0.0)
        assert shop.call("GET", "/readyz").status == 200


def test_an_unforeseen_error_is_500_with_its_code_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Served(tmp_path) as shop, caplog.at_level(logging.ERROR):
        shop.service._reads_by = Broken()  # type: ignore[assignment]  # of no project
        found = shop.call("GET", "/v1/features/activity/1")
        found.problem(500, "HR-1018")
        assert SECRET not in found.body.decode()
        assert "Traceback" not in found.body.decode()
        assert SECRET in caplog.text
        assert shop.call("POST", DECIDE, order("a", 1), PATIENT).status == 200


def test_a_full_lane_is_503_with_retry_after_and_nothing_is_done(tmp_path: Path) -> None:
    with Served(tmp_path, settings=Settings(lane_waiting_max=0)) as shop:
        before = shop.ends()
        found = shop.call("POST", DECIDE, order("a", 1), PATIENT)
        assert "checkout" in found.problem(503, "HR-1008")["detail"]
        assert found.headers["retry-after"] == "1"
        assert shop.ends() == before
        assert 'headrace_overload_total{queue="decide"} 1.0' in shop.call("GET", "/metrics").body.decode()
