"""A decision and its challengers, compared over what was recorded, and over what became of the requests. Reads the log.

The one idea: labels are joined by the place of the request in the log, as a training set does, so that nothing counts
before it has matured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headrace.core.errors import DefinitionError
from headrace.core.schema import Kind
from headrace.core.times import Instant
from headrace.decisions.compare import ComparisonReport, Truths, compare
from headrace.features.define import Label
from headrace.features.facts import FactRule
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows
from headrace.features.training_labels import training_labels
from headrace.models.define import Model
from headrace.models.evaluate import auc_roc, average_precision
from headrace.runtime.decided import kept_rows
from headrace.runtime.project import Project


def compare_decisions(
    project: Project,
    name: str,
    *,
    begin: Instant | None = None,
    end: Instant | None = None,
    t_label: Instant | None = None,
    by: Sequence[str] = (),
) -> ComparisonReport:
    """What the challengers of a decision answered beside it (decisions.compare.compare).

    begin, end: of the requests' t, the end not included. t_label: as of when labels are known; now by default. by:
    fields of the request to count by. Raises: NotFoundError HR-0806, DefinitionError HR-0721 where it has no
    challengers, HR-0106 for a field that is none.
    """
    decision = project.definitions.decision(name)
    if not decision.challengers:
        raise DefinitionError(
            "HR-0721",
            f"decision {name!r} has no challengers",
            detail="there is nothing to compare it with",
            hint="hr.Decision(..., challengers=[hr.Challenger(other)]), then headrace apply",
        )
    at = project.now() if t_label is None else t_label
    found = (
        record
        for record in project.records(name)
        if (begin is None or record.t >= begin) and (end is None or record.t < end)
    )
    truths = {model.name: matured(project, model, at) for model in decision.scored if _is_truth(model)}
    return compare(found, decision, requests=kept_rows(project, decision.request), rank=_rank, by=by, truths=truths)


def matured(project: Project, model: Model, t_label: Instant) -> Truths:
    """The label of each logged request of a model's topic, by its place, where it has matured at t_label and is known
    (SEMANTICS 4.3). The label is boolean."""
    topic = project.definitions.topic(model.topic)
    if isinstance(model.label, Label):
        of_label = model.label.source.name
    else:
        of_label = FactRule.of_late(topic, model.label.name).topic
    events = Events.read(project.log, {topic.name, of_label})
    rows = Rows.logged(events, topic.name)
    said = training_labels(model.label, events, topic.name, rows.row, t_label)
    known = np.flatnonzero(said.mature & said.values.is_valid().to_numpy(zero_copy_only=False))
    held = events.topic(topic.name)
    row = rows.row[known]
    places = zip(held.partition_of(row).tolist(), held.offset[row].tolist(), strict=True)
    values = said.values.take(pa.array(known)).to_pylist()
    return {
        (held.partitions[partition], offset): value for (partition, offset), value in zip(places, values, strict=True)
    }


def _rank(truths: Sequence[bool], scores: Sequence[float]) -> tuple[float, float]:
    given = np.array(truths, np.bool_), np.array(scores, np.float64)
    return auc_roc(*given), average_precision(*given)


def _is_truth(model: Model) -> bool:
    return model.label.type.kind is Kind.BOOLEAN
