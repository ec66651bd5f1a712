"""What the lender's report says in numbers and words: bins, intervals, rules, values; and that data stays data."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from headrace.catalog.run import load_definitions
from headrace.runtime.definitions import CLASSES, Definitions
from tests.unit.examples.bnpl import EXAMPLE, load


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return Definitions.of(load_definitions(EXAMPLE, CLASSES))


@pytest.fixture(scope="module")
def wording() -> ModuleType:
    return load("wording")


def test_rules_are_said_as_one_writes_them(definitions: Definitions, wording: ModuleType) -> None:
    checkout = definitions.decision("checkout")
    said = [wording.rule_words(checkout, rule) for rule in checkout.policy]
    assert "decline if utilisation > 2.5 (LIMIT_EXCEEDED)" in said
    assert "review if default.score × amount > 30 (the reasons of default)" in said
    assert "review if payments.last_failed and utilisation > 1 (MISSED_PAYMENTS)" in said
    assert said[-1] == "approve"
    assert not any("(gt" in each or "gt(" in each for each in said)


def test_the_scores_where_rules_cut_are_found(definitions: Definitions) -> None:
    found = load("findings").thresholds_of(definitions.decision("checkout"))
    assert found == {"fraud": [("decline", 0.6), ("review", 0.15)], "default": [("decline", 0.25)]}


def test_durations_are_known_and_said_in_units(definitions: Definitions, wording: ModuleType) -> None:
    found = wording.durations_of(definitions)
    assert {"profile.known_for", "customer.time_since_last", "since_device"} <= found
    assert "customer.count_1d" not in found
    day = 86_400_000_000
    assert [wording.duration_words(each) for each in (36 * day, day / 8, 90_000_000, 1_500_000, -2 * day)] == [
        "36.0 d",
        "3.0 h",
        "1.5 min",
        "1.5 s",
        "-2.0 d",
    ]
    assert wording.value_words(3, duration=False) == "3"
    assert wording.value_words(True, duration=True) == "true"
    assert wording.value_words(None) == "none"


def test_calibration_is_of_the_rows_of_each_bin() -> None:
    findings = load("findings")
    scores = np.concatenate([np.full(100, 0.02), np.full(50, 0.5), np.full(10, 0.9)])
    truths = np.concatenate([np.arange(100) < 3, np.arange(50) < 20, np.arange(10) < 9])
    low, high = findings.calibration(truths, scores)
    assert (low.rows, low.true, low.share) == (100, 3, 0.03)
    assert (high.rows, high.true) == (60, 29)  # 0.9 is of the same half decade
    assert low.predicted == pytest.approx(0.02)
    assert low.low < low.share < low.high
    assert findings.calibration(truths[:10], scores[:10]) == []  # too few


@pytest.mark.parametrize(("true", "rows"), [(0, 50), (50, 50), (1, 3), (500, 1_000)])
def test_an_interval_holds_its_share_and_stays_a_share(true: int, rows: int) -> None:
    low, high = load("findings").wilson(true, rows)
    assert 0 <= low <= true / rows <= high <= 1
    assert high > low


def test_wilsons_interval_is_the_books() -> None:
    low, high = load("findings").wilson(10, 100)
    assert (low, high) == (pytest.approx(0.0552, abs=1e-4), pytest.approx(0.1744, abs=1e-4))


def test_cells_and_legends_are_escaped() -> None:
    markup = load("markup")
    hostile = "<img src=x onerror=alert(1)>\"'"
    assert "<img" not in markup.table((hostile,), [(hostile,)])
    key = load("pictures").Key(name=hostile, style='x" onclick="y')
    assert "<img" not in markup.legend([key])
    assert 'class="x"' not in markup.legend([key])


def test_nothing_of_nothing_is_no_share() -> None:
    markup = load("markup")
    assert markup.share(0, 0) == "–"
    assert markup.share(1, 8) == "12.5%"
    assert markup.money(123_456_789) == "1,234,567.89"
