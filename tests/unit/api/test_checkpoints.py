"""When a server has checkpoints written beside it, and when it leaves that to another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.api.checkpoints import LOCK, NICE, NICE_LATE, CheckpointProcess
from headrace.api.metrics import Metrics
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.locked import locked
from headrace.log.port import Append
from headrace.runtime.project import Project, open_project
from headrace.testing.clocks import ManualClock
from tests.needs import requires

requires("prometheus_client")

DEFINITIONS = """
import headrace as hr
orders = hr.Topic("orders", key="customer", id="order", fields={"order": hr.int64, "customer": hr.int64})
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[hr.count().over("1d")])
checkout = hr.Decision("checkout", request=orders, policy=[
    hr.decline_if(activity.count_1d > 3, reason="MANY"), hr.approve()])
"""
START = Instant(1_800_000_000_000_000)


class Beside(CheckpointProcess):
    """Writes in this process, or fails where `status` says so."""

    status = 0
    count = 0

    def _write(self) -> int:
        self.count += 1
        if self.status == 0:
            another(self._project())
        return self.status


def another(project: Project) -> None:
    """A process writes."""
    with open_project(project.folder, clock=ManualClock(START), role="reader") as beside:
        beside.checkpoint(["activity"])


def produce(project: Project, number: int) -> None:
    project.log.append([Append(partition=Partition("orders", 1, 0), rows=[(number, 7)])])


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    with open_project(tmp_path, clock=ManualClock(START)) as made:
        made.apply()
        yield made


@pytest.fixture
def beside(project: Project) -> Iterator[Beside]:
    made = Beside(lambda: project, every=3_600, metrics=Metrics())
    yield made
    made.close()


def written(beside: Beside) -> dict[str, float]:
    lines = beside._metrics.text().decode().splitlines()
    found = [line for line in lines if line.startswith("headrace_checkpoints_total")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in found}


def test_it_writes_what_came_and_nothing_where_nothing_came(project: Project, beside: Beside) -> None:
    for number in range(2):
        produce(project, number)
        for _ in range(2):
            beside._turn()
        assert (beside.count, project.checkpoint(["activity"], write=False)) == (number + 1, number + 1)
    assert written(beside) == {"written": 2.0}


def test_where_another_wrote_meanwhile_it_has_nothing_to_do(project: Project, beside: Beside) -> None:
    for number in range(3):
        produce(project, number)
        another(project)
        beside._turn()
    assert beside.count == 0
    produce(project, 3)
    beside._turn()
    assert beside.count == 1, "the other is gone"


def test_what_failed_is_counted_and_tried_again(project: Project, beside: Beside) -> None:
    produce(project, 0)
    beside.status = 1
    beside._turn()
    beside._turn()
    assert written(beside) == {"failed": 2.0}
    beside.status = 0
    beside._turn()
    assert written(beside) == {"failed": 2.0, "written": 1.0}
    assert project.checkpoint(["activity"], write=False) == 1


def test_while_another_writes_in_the_folder_it_has_nothing_to_do(project: Project, beside: Beside) -> None:
    produce(project, 0)
    with locked(project.state_folder / LOCK):
        beside._turn()
    assert beside.count == 0
    beside._turn()
    assert beside.count == 1


def test_one_that_was_late_is_followed_by_one_that_does_not_stand_back(project: Project, beside: Beside) -> None:
    seen = []
    for number, status in enumerate((0, 1, 0, 0)):
        produce(project, number)
        beside.status = status
        seen.append(beside._nice)
        beside._turn()
    assert seen == [NICE, NICE, NICE_LATE, NICE]


def test_a_process_that_is_begun_ends_with_the_server(project: Project) -> None:
    produce(project, 0)
    made = CheckpointProcess(lambda: project, every=0.01, metrics=Metrics())
    while made._process is None and not project.checkpoint(["activity"], write=False):
        pass
    made.close()
    assert made._process is None and not made._thread.is_alive()
