"""What is counted: the sampler's series, the version set that serves, and names that alert rules use."""

from __future__ import annotations

import re

from headrace.api.metrics import Metrics
from headrace.api.series import versions_digest
from headrace.core.times import Instant
from headrace.runtime.sampling import Look, Sampled
from tests.needs import requires
from tests.tidy.tree import ROOT

requires("prometheus_client")


def look(*sampled: Sampled, behind: int = 0) -> Look:
    return Look(
        at=Instant(0),
        cpu_seconds=0.5,
        rest_seconds=24.5,
        sampled=sampled,
        behind={one.decision: behind for one in sampled},
    )


def test_looks_are_added_up() -> None:
    metrics = Metrics()
    assert b"headrace_sampler" not in metrics.text()
    metrics.sampler_begins()
    metrics.sampled(look(Sampled(decision="checkout", seen=9, compared=5, mismatched=1, unknown=2), behind=3))
    metrics.sampled(look(Sampled(decision="checkout", seen=4, compared=2, erased=1, skipped=7)))
    text = metrics.text().decode()
    for result, count in {"compared": 7, "mismatched": 1, "erased": 1, "unknown": 2, "skipped": 7}.items():
        assert f'headrace_sampler_records_total{{decision="checkout",result="{result}"}} {count}.0' in text
    assert 'headrace_sampler_behind{decision="checkout"} 0.0' in text
    assert "headrace_sampler_period_seconds 25.0" in text


def test_one_version_set_serves_a_decision() -> None:
    metrics = Metrics()
    for versions in ("one", "two", "two"):
        metrics.serving("checkout", versions)
    metrics.serving("other", "one")
    lines = [line for line in metrics.text().decode().splitlines() if line.startswith("headrace_serving{")]
    assert lines == [
        f'headrace_serving{{decision="checkout",versions="{versions_digest("two")}"}} 1.0',
        f'headrace_serving{{decision="other",versions="{versions_digest("one")}"}} 1.0',
    ]


def test_alert_rules_ask_for_series_that_there_are() -> None:
    metrics = Metrics()
    metrics.sampler_begins()
    metrics.gauge("headrace_ready", "1 where ready.", {}, lambda: 1.0)
    known = set(re.findall(r"^# TYPE (\w+)", metrics.text().decode(), re.MULTILINE))
    rules = (ROOT / "docs" / "runbooks" / "alerts" / "server.yml").read_text()
    asked = set(re.findall(r"headrace_\w+", rules))
    assert len(asked) > 5
    assert {re.sub("_bucket$", "", name) for name in asked} <= known


def test_every_alert_has_its_place_in_the_runbook() -> None:
    rules = (ROOT / "docs" / "runbooks" / "alerts" / "server.yml").read_text()
    runbook = (ROOT / "docs" / "runbooks" / "server.md").read_text()
    alerts = re.findall(r"alert: (\w+)", rules)
    assert len(alerts) == 7
    named = {"HeadraceDown", "HeadraceSlow"}  # under "Is it well?", and with HeadraceFallbacks
    assert [alert for alert in alerts if f"({alert})" not in runbook and alert not in named] == []
