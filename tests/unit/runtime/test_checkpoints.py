"""A project's checkpoints: written beside what serves, gone on from by the next process, by one of several writers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.clients.kafka.define import KafkaSettings
from headrace.core.codec import partition_of
from headrace.core.errors import StateError
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.log.kafka import KafkaLog
from headrace.log.port import Append
from headrace.log.run import Role
from headrace.runtime.project import Project, open_project
from headrace.settings import ProjectSettings
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient

DEFINITIONS = """
import headrace as hr
orders = hr.Topic("orders", key="customer", id="order", event_time="at", partitions=2, fields={
    "order": hr.int64, "customer": hr.int64, "amount": hr.int64, "at": hr.timestamp})
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[
    hr.count().over("1d"), hr.sum(orders.amount).over("7d")])
checkout = hr.Decision("checkout", request=orders, policy=[
    hr.decline_if(activity.count_1d > 3, reason="MANY"), hr.approve()])
"""
VIEWS = ("activity",)
START = Instant(1_800_000_000_000_000)
Open = Callable[..., Project]


@pytest.fixture(params=["file", "kafka"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """A process's project: of a file beside its owner, or of a model of a cluster."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    clock = ManualClock(START)
    model = KafkaModel(clock)

    def make(*, role: Role = Role.READER, checkpoints: str = "") -> Project:
        project = open_project(folder, clock=clock, role=role)
        project.settings = ProjectSettings(checkpoints=checkpoints)
        if request.param == "kafka":
            project._log = KafkaLog(ModelClient(model), settings=KafkaSettings(bootstrap="model:1"), clock=clock)
        return project

    return make


def produce(project: Project, first: int, count: int) -> None:
    """Each third is an earlier one again."""
    for index in range(2):
        customers = [n for n in range(20) if partition_of(n, 2) == index]
        numbers = [n if n % 3 else max(0, n - 3) for n in range(first, first + count)]
        rows = [(2 * n + index, customers[n % len(customers)], n % 7, START - n) for n in numbers]
        project.log.append([Append(partition=Partition("orders", 1, index), rows=rows)])


def values(project: Project) -> list[object]:
    return [project.read("activity", customer, t=START) for customer in range(20)]


def read_from(project: Project) -> list[int]:
    """Of a Kafka log, from where on it read each partition of orders."""
    following = project.log._following  # type: ignore[attr-defined]  # a KafkaLog
    return [following.feeds[Partition("orders", 1, index)].tail_from for index in range(2)]


def test_a_process_goes_on_from_what_another_wrote_beside_the_one_that_serves(opened: Open) -> None:
    with opened(role=Role.ANY) as serving:
        serving.apply()
        produce(serving, 0, 40)
        with opened() as beside:
            assert beside.checkpoint(VIEWS, write=False) == 0
            assert beside.checkpoint(VIEWS) == 1
            assert beside.checkpoint(VIEWS, write=False) == serving.checkpoint(VIEWS, write=False) == 1
        produce(serving, 40, 9)
        with opened() as later:
            assert values(later) == values(serving)
            if later.log.capabilities.shared:
                assert all(at >= 40 for at in read_from(later)), "it read what came behind the checkpoint"
                assert read_from(serving) == [0, 0]


def test_what_is_written_already_is_not_written_again(opened: Open) -> None:
    with opened(role=Role.ANY) as serving:
        serving.apply()
        produce(serving, 0, 5)
        for _ in range(2):
            with opened() as beside:
                assert beside.checkpoint(VIEWS) == 1
        assert serving.checkpoint(VIEWS, write=False) == 1
        produce(serving, 5, 5)
        with opened() as beside:
            assert beside.checkpoint(VIEWS) == 2
        assert serving.checkpoint(VIEWS, write=False) == 2
    with opened() as again:
        assert again.checkpoint(VIEWS, write=False) == 2, "no state was made here, so none is written at the end"


def test_a_place_that_fails_is_said_and_harms_nothing_else(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with opened(role=Role.ANY) as serving:
        serving.apply()
        produce(serving, 0, 5)
        with opened(checkpoints=f"file://{tmp_path}/file/below") as beside, caplog.at_level(logging.ERROR):
            with pytest.raises(StateError, match="HR-0561"):
                beside.checkpoint(VIEWS)
            assert values(beside) == values(serving)
        assert "no checkpoint of activity" in caplog.text and "HR-0561" in caplog.text


def test_what_the_log_learned_may_be_lost(opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a checkpoint that says nothing of the partitions the state is used, and they are read from their starts."""
    with opened(role=Role.ANY) as serving:
        serving.apply()
        produce(serving, 0, 40)
        with opened() as beside, pytest.MonkeyPatch.context() as nothing:
            nothing.setattr(type(beside.log), "kept", lambda self, cut: {})
            assert beside.checkpoint(VIEWS) == 1
        produce(serving, 40, 9)
        with opened() as later:
            assert values(later) == values(serving)
            if later.log.capabilities.shared:
                assert read_from(later) == [0, 0]
