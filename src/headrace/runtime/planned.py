"""A plan with what it does to Kafka, and its apply with the approvals that it needs. Touches the log through the
project.

The one idea: the steps are the plan's own (`catalog/plan.py`), read here once more for what a cluster would be told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from headrace.catalog.plan import Change, Step
from headrace.log.define import Topic
from headrace.log.kafka_altered import REFUSED
from headrace.log.kafka_topics import kafka_settings
from headrace.log.port import TopicState
from headrace.runtime.opening import altered_of
from headrace.runtime.project import Project

_BY_CLUSTER = "min.insync.replicas"  # follows from how many brokers there are, not from the definition


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """steps: what apply does, in order. remarks: of topics on a shared log, what Kafka would be told, by step key."""

    steps: tuple[Step, ...]
    remarks: Mapping[tuple[str, str], tuple[str, ...]]


def planned(project: Project) -> Planned:
    """Raises: DefinitionError HR-0813 where the log is shared and a view joins unequal partition counts, LogError
    HR-0356 where a topic was altered by hand so that its rows would be something else (docs/KAFKA.md K5)."""
    for error in altered_of(project.log):
        if error.facts.get("setting") in REFUSED:
            raise error
    steps = project.plan()
    return Planned(steps=steps, remarks=_remarks(project, steps) if project.log.capabilities.shared else {})


def apply_planned(project: Project, plan: Planned, *, approved: Collection[str]) -> None:
    """Raises: HeadraceError HR-0811 for a missing approval, HR-0803 for a plan that is stale; UsageError HR-0812."""
    project.apply(plan.steps, approved=approved)


def _remarks(project: Project, steps: tuple[Step, ...]) -> dict[tuple[str, str], tuple[str, ...]]:
    held = {state.topic.name: state for state in project.log.topics()}
    return {
        step.key: tuple(_told(project.definitions.topic(step.name), held.get(step.name)))
        for step in steps
        if step.kind == "topic" and step.change is not Change.RETIRE
    }


def _told(topic: Topic, held: TopicState | None) -> Iterator[str]:
    settings = {**kafka_settings(topic), "partitions": str(topic.partitions)}
    before: Mapping[str, str] = {}
    if held is not None:
        before = {**kafka_settings(held.topic), "partitions": str(held.topic.partitions)}
    for name in ("partitions", *(name for name in sorted(settings) if name not in ("partitions", _BY_CLUSTER))):
        if before.get(name) != settings[name]:
            yield f"{name}={settings[name]}"
    if held is None:
        yield "copies, and how many of them acknowledge, by the number of brokers: three and two where there are three"
