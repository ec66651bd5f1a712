"""A plan over a log that several processes share: what Kafka would be told, and what is refused there alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headrace.catalog.run import load_definitions
from headrace.core.errors import DefinitionError, HeadraceError
from headrace.log.port import Log
from headrace.log.run import Role
from headrace.runtime.definitions import CLASSES, Definitions
from headrace.runtime.planned import apply_planned, planned
from headrace.runtime.project import Project
from headrace.testing.clocks import ManualClock
from headrace.testing.fakes import MemoryLog

SHOP = """
import headrace as hr
orders = hr.Topic("orders", key="customer", partitions=3, fields={"customer": hr.int64, "shop": hr.int64})
returns = hr.Topic("returns", key="customer", partitions=RETURNS, fields={"customer": hr.int64, "shop": hr.int64})
both = hr.FeatureView("both", entity="ENTITY", source=hr.Sources(orders.emit(shop=orders.shop),
    returns.emit(shop=returns.shop)), features=[hr.count().over("1d")])
"""


def shop(*, returns: int = 3, entity: str = "customer") -> str:
    return SHOP.replace("RETURNS", str(returns)).replace("ENTITY", entity)


def project_over(log: Log, folder: Path, text: str) -> Project:
    (folder / "definitions.py").write_text(text, encoding="utf-8")
    made = Project(folder, Definitions.of(load_definitions(folder, CLASSES)), clock=ManualClock(), role=Role.ANY)
    made._log = log
    return made


def log_of(*, shared: bool) -> MemoryLog:
    log = MemoryLog(clock=ManualClock())
    log.capabilities = replace(log.capabilities, shared=shared)
    return log


def test_a_shared_log_refuses_joins_of_unequal_partition_counts(tmp_path: Path) -> None:
    unequal = shop(returns=4)
    with pytest.raises(DefinitionError) as seen:
        planned(project_over(log_of(shared=True), tmp_path, unequal))
    assert (seen.value.code, seen.value.message, seen.value.detail, seen.value.hint) == (
        "HR-0813",
        "view 'both' joins topics of unequal partition counts",
        "orders has 3, returns has 4",
        "declare partitions=4 for each of them",
    )
    assert planned(project_over(log_of(shared=False), tmp_path, unequal)).steps, "one process has them all"
    assert planned(project_over(log_of(shared=True), tmp_path, shop())).steps
    other_key = planned(project_over(log_of(shared=True), tmp_path, shop(returns=4, entity="shop")))
    assert other_key.steps, "both come by derived topics"


def test_a_plan_over_a_shared_log_says_what_kafka_is_told(tmp_path: Path) -> None:
    log = log_of(shared=True)
    first = planned(project_over(log, tmp_path, shop()))
    said = first.remarks["topic", "orders"]
    assert said[0] == "partitions=3"
    assert {"message.timestamp.type=LogAppendTime", "retention.ms=-1", "max.message.bytes=1048576"} <= set(said)
    assert not any("min.insync.replicas" in line for line in said) and said[-1].startswith("copies")
    assert ("view", "both") not in first.remarks
    apply_planned(project_over(log, tmp_path, shop()), first, approved=[])

    kept = shop().replace('"orders", key', '"orders", retention="30d", owner="shop", key')
    second = planned(project_over(log, tmp_path, kept))
    assert second.remarks == {("topic", "orders"): ("retention.ms=2592060000",)}, "only what changes"
    assert planned(project_over(log_of(shared=False), tmp_path, shop())).remarks == {}


def test_nothing_is_applied_without_the_approvals(tmp_path: Path) -> None:
    log = log_of(shared=False)
    project = project_over(log, tmp_path, shop())
    apply_planned(project, planned(project), approved=[])
    kept = shop().replace('"orders", key', '"orders", retention="30d", key')
    project = project_over(log, tmp_path, kept)
    plan = planned(project)
    with pytest.raises(HeadraceError) as seen:
        apply_planned(project, plan, approved=[])
    assert seen.value.code == "HR-0811"
    assert planned(project).steps == plan.steps
    assert {state.topic.name: state.topic.retention for state in log.topics()}["orders"] is None
    apply_planned(project, plan, approved=["orders.retention"])
    assert planned(project).steps == ()


def test_a_change_of_owner_changes_no_view(tmp_path: Path) -> None:
    log = log_of(shared=False)
    project = project_over(log, tmp_path, shop())
    apply_planned(project, planned(project), approved=[])
    owned = shop().replace('"orders", key', '"orders", owner="shop", tags=["eu"], quota="1MB/s", key')
    project = project_over(log, tmp_path, owned)
    (step,) = planned(project).steps
    assert (step.kind, step.name, step.version) == ("topic", "orders", 1)
    assert step.because == ("owner: nobody -> shop", "tags: none -> eu", "quota: none -> 1MB/s")
    apply_planned(project, planned(project), approved=[])
    assert planned(project).steps == ()
    held = {state.topic.name: state.topic for state in log.topics()}["orders"]
    assert held.stewardship.owner == "shop"
