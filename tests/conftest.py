"""The ground under every test: what the machine lacks is said in one line each; random tests are the same every day.

Helpers for a test's own needs are in tests/needs.py and may be imported from here too.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.needs import DATA, PREFIX, requires, requires_data, requires_program

__all__ = ["requires", "requires_data", "requires_program"]
pytest_plugins = ("tests.kafka",)

# derandomize: a run depends on the code alone, so that a failure is never "once in CI". Fresh examples are the fuzz's
# work, which prints its seed. No deadline: the machine's noise, and the first call's compilation, are not failures.
settings.register_profile(
    "headrace", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
# A mutant is killed by any failing example; the smallest one is of no use to it. Fewer examples than the tests' own,
# because they run once a mutant: what they then miss counts as survived, so this can only make the threshold harder.
settings.register_profile(
    "mutation",
    settings.get_profile("headrace"),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    max_examples=15,
)
settings.load_profile("headrace")

# A shell that starts the tests in the background has them ignore SIGINT, and so whatever they start, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order of modules as collected, but what needs data or a long time last: a broken unit is seen first."""
    items.sort(key=lambda item: any(item.get_closest_marker(name) for name in ("slow", "fuzz", "data")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _skip_failed((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _skip_failed((yield))


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _skip_failed(report: Report) -> Report:
    """The report; a skip is a failure where everything is required, save for the data that CI cannot fetch."""
    required = os.environ.get("HEADRACE_REQUIRE_ALL") == "1"
    if required and report.skipped and not hasattr(report, "wasxfail") and _reason(report) != PREFIX + DATA:
        report.longrepr = f"skipped under HEADRACE_REQUIRE_ALL=1: {_reason(report)}"
        report.outcome = "failed"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each thing that tests were skipped for."""
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")
