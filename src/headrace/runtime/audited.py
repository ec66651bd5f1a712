"""What a project's log gives an audit to look at: all that was logged, and of one model what it learned from, what it
was served live, and which requests were chosen. Reads the log.

The one idea: what a model learned from is compared with what it was served, and with the requests that it was not
shown; so rows that somebody chose by hand are worth more to an audit than rows built anew, which leave out nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.features import training as sets
from headrace.features.audit import Chosen, audit
from headrace.features.define import Label
from headrace.features.finding import Finding
from headrace.models.define import Model
from headrace.models.inputs import column
from headrace.runtime import training
from headrace.runtime.project import Project


def audit_availability(
    project: Project, model: str | None = None, *, rows: pa.Table | None = None, t_label: Instant | None = None
) -> list[Finding]:
    """Suspicions of leaks, strongest first (SEMANTICS 4.5).

    model: look at its training set too, at its inputs as decisions were served them, and at who was chosen. rows: what
    it learned from, as a training set's file has it; by default they are built anew. t_label: the rows' label instant;
    by default now. Raises: NotFoundError HR-0806; SchemaError HR-0607 for rows that are not this model's.
    """
    declared, logged = project.definitions, _logged(project)
    said = (declared.topics.values(), declared.labels.values(), declared.views.values(), logged)
    if model is None:
        return audit(*said)
    learned = declared.model(model)
    asked = training.asked(project, learned, t_label=project.now() if t_label is None else t_label)
    events, records = training.read_events(project, learned), training.recorded_cuts(project, learned)
    if rows is None:
        rows = sets.build(asked, project.compile(learned.views), events, records=records).table
    live = sets.inputs_served(asked, project.compile(learned.views), events, records)
    return audit(
        *said,
        training=_inputs_and_label(learned, rows),
        outcome=learned.label_name,
        live=live,
        trained=_chosen(learned, rows, asked.t_label),
    )


def _logged(project: Project) -> dict[str, list[tuple[Partition, pa.RecordBatch]]]:
    return {
        state.topic.name: [
            (held.partition, batch)
            for held in state.partitions
            for batch in project.log.read(held.partition, held.start)
        ]
        for state in project.log.topics()
    }


def _inputs_and_label(model: Model, rows: pa.Table) -> pa.Table:
    wanted = {one.name: one.type.arrow for one in model.inputs} | {model.label_name: pa.bool_()}
    return pa.table({name: column(model, rows, name, type) for name, type in wanted.items()})


def _chosen(model: Model, rows: pa.Table, t_label: Instant) -> Mapping[str, Chosen] | None:
    """None where the label is a late column, of which no event is missing for those left out, or the rows have no
    ids."""
    if not isinstance(model.label, Label) or model.label.on not in rows.column_names:
        return None
    ids = rows.column(model.label.on).to_pylist()
    return {model.label.name: Chosen(ids=ids, t_label=t_label, where=model.where)}
