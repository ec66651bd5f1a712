"""What an audit of a model is given: its training rows, what was served live, who was chosen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.core.errors import SchemaError
from headrace.features.finding import Check, Finding
from headrace.runtime.audited import audit_availability
from headrace.runtime.project import Project, open_project
from headrace.runtime.training import build_training_set
from headrace.testing.clocks import ManualClock

SHOP = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", fields={
    "order": hr.int64, "customer": hr.int64, "amount": hr.int64, "web": hr.boolean, "at": hr.timestamp})
returns = hr.Topic("returns", key="order", event_time="at", fields={"order": hr.int64, "at": hr.timestamp})
returned = hr.Label("returned", of=orders, source=returns, on="order", within="1h", grace="1h")
usual = hr.FeatureView("usual", entity="customer", source=orders, features=[hr.count().over("1d")])
risk = hr.Model("risk", label=returned, trainer=hr.logistic_regression(), features=[orders.amount, usual])
web = hr.Model("web", label=returned, trainer=hr.logistic_regression(), features=[orders.amount, usual],
    where=orders.web)
checkout = hr.Decision("checkout", request=orders, policy=[
    hr.decline_if(usual.count_1d > 1000, reason="MANY"), hr.approve()])
"""
COUNT = 400


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """400 orders, half of them on the web, a quarter of those returned and none of the others; then three hours."""
    (tmp_path / "definitions.py").write_text(SHOP, encoding="utf-8")
    clock = ManualClock()
    with open_project(tmp_path, clock=clock) as project:
        project.apply()
        project.produce("orders", [order(project, number) for number in range(COUNT)])
        clock.advance("10m")
        project.produce("returns", [{"order": n, "at": now(project)} for n in range(COUNT) if n % 8 == 1])
        clock.advance("3h")
        yield project


def now(project: Project) -> str:
    return dt.datetime.fromtimestamp(project.now() / 1e6, dt.UTC).isoformat()


def order(project: Project, number: int, amount: int = 0) -> dict[str, object]:
    return {
        "order": number, "customer": number % 50, "amount": amount + number * 7 % 100, "web": number % 2 == 1,
        "at": now(project),
    }  # fmt: skip


def checks(findings: list[Finding], *of: Check) -> list[tuple[Check, str]]:
    return [(one.check, one.subject) for one in findings if one.check in of]


def rows_of(shop: Project, model: str, wanted: Callable[[int], bool]) -> pa.Table:
    table = build_training_set(shop, model).table
    return table.filter(pa.array([wanted(number) for number in table.column("order").to_pylist()]))


def test_a_model_whose_rows_are_built_anew_leaves_nobody_out(shop: Project) -> None:
    assert checks(audit_availability(shop, "risk"), Check.SELECTED, Check.DISTRIBUTION) == []


def test_rows_that_were_chosen_by_their_outcome_are_found(shop: Project) -> None:
    rows = rows_of(shop, "risk", lambda number: number % 8 == 1 or number % 4 == 0 or number in (0, COUNT - 1))
    assert checks(audit_availability(shop, "risk", rows=rows), Check.SELECTED) == [(Check.SELECTED, "label 'returned'")]
    honest = rows_of(shop, "risk", lambda number: number // 8 % 2 == 0 or number == COUNT - 1)
    assert checks(audit_availability(shop, "risk", rows=honest), Check.SELECTED) == []
    early = shop.now() - 3 * 3_600_000_000  # nothing had matured
    assert checks(audit_availability(shop, "risk", rows=rows, t_label=early), Check.SELECTED) == []


def test_rows_that_where_leaves_out_are_not_held_against_a_model(shop: Project) -> None:
    rows = build_training_set(shop, "web").table
    assert rows.num_rows == COUNT / 2
    assert checks(audit_availability(shop, "web", rows=rows), Check.SELECTED) == []
    assert checks(audit_availability(shop, "risk", rows=rows), Check.SELECTED) == [(Check.SELECTED, "label 'returned'")]


def test_inputs_that_are_served_otherwise_than_learned_are_found_before_a_label_has_matured(shop: Project) -> None:
    for number in range(120):
        shop.decide("checkout", order(shop, COUNT + number, amount=1_000))
    found = audit_availability(shop, "risk")
    assert (Check.DISTRIBUTION, "input 'amount'") in checks(found, Check.DISTRIBUTION)
    (amount,) = (one for one in found if one.subject == "input 'amount'")
    assert amount.evidence["null_live"] == 0.0 and amount.evidence["psi"] > 1


def test_inputs_that_are_served_as_they_were_learned_are_not(shop: Project) -> None:
    for number in range(200):
        shop.decide("checkout", order(shop, COUNT + number))
    found = checks(audit_availability(shop, "risk"), Check.DISTRIBUTION)
    assert (Check.DISTRIBUTION, "input 'amount'") not in found
    assert (Check.DISTRIBUTION, "input 'usual.count_1d'") in found  # some orders of the day came before them


def test_rows_of_another_model_are_refused(shop: Project) -> None:
    with pytest.raises(SchemaError) as caught:
        audit_availability(shop, "risk", rows=pa.table({"amount": [1]}))
    assert caught.value.code == "HR-0607"
