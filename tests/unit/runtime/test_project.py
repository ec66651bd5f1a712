"""A project read from Python: values as Python has them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

from headrace.runtime.project import open_project

SHOP = """
import headrace as hr
orders = hr.Topic("orders", key="customer", id="order", event_time="at", fields={
    "order": hr.string, "customer": hr.int64, "amount": hr.decimal(12, 2), "at": hr.timestamp})
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[
    hr.count().over("1d"), hr.sum(orders.amount).over("7d"), hr.last_n(orders.amount, 2).over("7d"),
    hr.last(orders.at).over("7d"), hr.time_since_last()])
"""


def test_a_read_gives_decimals_instants_and_lists_as_python_has_them(tmp_path: Path) -> None:
    (tmp_path / "definitions.py").write_text(SHOP, encoding="utf-8")
    at = dt.datetime.now(dt.UTC)
    with open_project(tmp_path) as project:
        project.apply()
        for number, amount in enumerate(("1.50", "2.25")):
            project.produce("orders", [{"order": f"o{number}", "customer": 7, "amount": amount, "at": at.isoformat()}])
        count, total, latest, last_at, since = project.read("activity", 7).values()
        assert (count, total, last_at) == (2, Decimal("3.75"), at)
        assert str(total) == "3.75"
        assert isinstance(latest, tuple)
        assert {*latest} == {Decimal("1.50"), Decimal("2.25")}
        assert isinstance(since, int)
        assert list(project.read("activity", 8).values())[:2] == [0, None]


def test_a_second_read_sees_what_came_since_the_first(tmp_path: Path) -> None:
    (tmp_path / "definitions.py").write_text(SHOP, encoding="utf-8")
    with open_project(tmp_path) as project:
        project.apply()
        counts = []
        for number in range(3):
            at = dt.datetime.now(dt.UTC).isoformat()
            project.produce("orders", [{"order": f"o{number}", "customer": 7, "amount": "1.00", "at": at}])
            counts.append(project.read("activity", 7)["count_1d"])
    assert counts == [1, 2, 3]
