"""From a project's log to a training set: what decisions recorded is what their rows hold."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from headrace.core.times import Duration
from headrace.runtime.project import Project, open_project
from headrace.runtime.training import build_training_set, late_data_impact
from headrace.testing.clocks import ManualClock

SHOP = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", fields={
    "order": hr.int64, "customer": hr.int64, "amount": hr.decimal(12, 2), "at": hr.timestamp})
returns = hr.Topic("returns", key="order", event_time="at", fields={"order": hr.int64, "at": hr.timestamp})
returned = hr.Label("returned", of=orders, source=returns, on="order", within="1h", grace="1h")
fresh = hr.FeatureView("fresh", entity="customer", source=orders, max_staleness="10ms", features=[
    hr.count().over("1d")])
usual = hr.FeatureView("usual", entity="customer", source=orders, features=[hr.sum(orders.amount).over("1d")])
risk = hr.Model("risk", label=returned, trainer=hr.logistic_regression(), features=[
    orders.amount, fresh.count_1d, usual.sum_amount_1d, (fresh.count_1d / 2).named("half")])
checkout = hr.Decision("checkout", request=orders, policy=[
    hr.decline_if(fresh.count_1d > 10, reason="MANY"), hr.review_if(usual.sum_amount_1d > 1000, on_empty="skip"),
    hr.approve()])
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shop(tmp_path: Path, clock: ManualClock):
    (tmp_path / "definitions.py").write_text(SHOP, encoding="utf-8")
    with open_project(tmp_path, clock=clock) as project:
        project.apply()
        yield project


def order(project: Project, number: int) -> dict[str, object]:
    at = dt.datetime.fromtimestamp(project.now() / 1e6, dt.UTC).isoformat()
    return {"order": number, "customer": 7, "amount": "10.00", "at": at}


def test_a_view_that_was_absent_when_a_request_was_decided_is_absent_in_its_row(
    shop: Project, clock: ManualClock
) -> None:
    for number, waited in enumerate(("60ms", "20ms", "60ms")):  # a look proves the end; 20 ms later it is too old
        clock.advance(waited)
        shop.decide("checkout", order(shop, number))
    points = [record.points for record in shop.records("checkout")]
    assert [[point.absent for point in each] for each in points] == [[None, None], ["stale", None], [None, None]]
    shop.produce("orders", [order(shop, 3)])  # never decided: as it would have been
    clock.advance("3h")
    made = build_training_set(shop, "risk")
    _, counts, sums, halves = (made.table.column(i).to_pylist() for i in range(2, 6))
    assert counts == [1, None, 3, 4]
    assert halves == [0.5, None, 1.5, 2.0]
    assert [int(value) for value in sums] == [10, 20, 30, 40]
    assert (made.manifest.served, made.manifest.mixed, made.manifest.available) == (3, 0, 1)
    impact = {one.feature: one for one in late_data_impact(shop, "risk", t_label=shop.now())}
    assert (impact["fresh.count_1d"].null_in_one, impact["usual.sum_amount_1d"].differing) == (1, 0)


def test_records_of_an_older_version_keep_the_views_that_they_name(
    shop: Project, clock: ManualClock, tmp_path: Path
) -> None:
    clock.advance("60ms")
    shop.decide("checkout", order(shop, 0))
    clock.advance(Duration.parse("20ms"))
    shop.decide("checkout", order(shop, 1))
    shop.close()
    text = SHOP.replace('hr.decline_if(fresh.count_1d > 10, reason="MANY"), ', "")
    assert text != SHOP
    (tmp_path / "definitions.py").write_text(text, encoding="utf-8")
    with open_project(tmp_path, clock=clock) as project:
        project.apply()
        clock.advance("60ms")
        project.decide("checkout", order(project, 2))
        clock.advance("3h")
        made = build_training_set(project, "risk")
    assert made.table.column(3).to_pylist() == [1, None, 3]
    assert (made.manifest.served, made.manifest.mixed) == (2, 1)  # the newer version reads one view only
