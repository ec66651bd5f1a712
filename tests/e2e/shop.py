"""A small project for tests from outside: its folder, its commands in this process or in others."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from headrace.cli.main import main

DEFINITIONS = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", partitions=2, fields={
    "order": hr.string, "customer": hr.int64, "amount": hr.decimal(8, 2), "weight": hr.float64, "at": hr.timestamp})
visits = hr.Topic("visits", key="customer", event_time="at", fields={"customer": hr.int64, "at": hr.timestamp})
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[
    hr.count().over("1d", "30d"), hr.mean(orders.amount).over("30d"), hr.std(orders.weight).over("30d")])
attention = hr.FeatureView("attention", entity="customer", source=visits, features=[hr.count().over("30d")])
checkout = hr.Decision("checkout", request=orders, policy=[
    hr.decline_if(activity.count_1d > 1000, reason="MANY"),
    hr.review_if(attention.count_30d > 20, reason="CURIOUS"),
    hr.approve()])
"""


def make(folder: Path, definitions: str = DEFINITIONS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "definitions.py").write_text(definitions, encoding="utf-8")
    return folder


def instant(days_ago: float = 0.0) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(days=days_ago)).isoformat()


def order(
    id: str, customer: int = 1, *, at: str | None = None, amount: object = "12.50", **more: object
) -> dict[str, object]:
    return {"order": id, "customer": customer, "amount": amount, "at": at or instant(), **more}


def lines(path: Path, events: Sequence[object]) -> Path:
    """A file of one JSON object a line."""
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    return path


class Commands:
    """`headrace` of one project, in this process: exit status, stdout and stderr of each call."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._captured = captured

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self._captured.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["--project", str(self.folder), *map(str, arguments)])
        said = self._captured.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out, said.err

    def done(self, *arguments: str | Path) -> str:
        """A call that must succeed; its stdout."""
        status, out, err = self(*arguments)
        assert status == 0, err
        return out


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """`headrace` in another process."""
    command = [sys.executable, "-c", "from headrace.cli.main import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
