"""What is asked of recorded decisions after they were made, project and all. Reads the log.

The one idea: each question is a function of an open project, so that `Project` stays the wiring and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace.catalog.run import load_definitions
from headrace.clock import SystemClock
from headrace.core.errors import DefinitionError, NotFoundError
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.decisions.plan import Version
from headrace.decisions.port import Row
from headrace.decisions.replay import Requests
from headrace.decisions.verify import ChainReport, Head, verify
from headrace.decisions.whatif import WhatIfReport, what_if
from headrace.log.define import Topic
from headrace.log.run import Role
from headrace.runtime.definitions import CLASSES, Definitions
from headrace.runtime.project import STATE_FOLDER, Project
from headrace.runtime.recompute import recompute_with, request_rows


def verify_decisions(project: Project, name: str, *, heads: Sequence[Head] = ()) -> ChainReport:
    """Check the chain of a decision's records (decisions.verify.verify). heads: of an earlier check.

    Raises: NotFoundError HR-0806.
    """
    return verify(project.log, name, project.definitions.decision(name).request.name, heads=heads)


def whatif(
    project: Project,
    name: str,
    *,
    folder: Path | None = None,
    artifact: str | None = None,
    begin: Instant | None = None,
    end: Instant | None = None,
    by: Sequence[str] = (),
    limit: int | None = None,
) -> WhatIfReport:
    """What a decision's recorded requests would be decided by other definitions or another model. Records nothing.

    folder: of the definitions that decide again, with a decision of this name over the same topic, and of their models
    where the project has none; by default the project's own, which may have been edited since it decided. artifact: a
    model's content hash; by default the newest of those definitions' model. begin, end: of the requests' t, the end not
    included. by: fields of the request to count by. limit: only the newest so many.
    Raises: NotFoundError HR-0806, HR-0807; DefinitionError HR-0719, HR-0712, HR-0106 for a field that is none.
    """
    request = project.definitions.decision(name).request
    definitions = project.definitions if folder is None else Definitions.of(load_definitions(folder, CLASSES))
    there = definitions.decision(name).request
    if there.name != request.name or there.schema.fields != request.schema.fields:
        raise DefinitionError(
            "HR-0719",
            f"decision {name!r} of the other definitions decides other requests",
            detail=f"expected topic {request.name!r} with its fields, seen {there.name!r}",
            hint="a dry run decides the requests that are in the log",
        )
    for field in by:
        there.schema[field]  # raises HR-0106 with the nearest name
    asked, version = _other_version(project, definitions, name, folder, artifact)
    found = (
        record
        for record in project.records(name)
        if (begin is None or record.t >= begin) and (end is None or record.t < end)
    )
    chosen = found if limit is None else list(found)[-limit:]
    return what_if(
        chosen,
        version,
        requests=kept_rows(project, there),
        recompute=recompute_with(project.log, asked.compile),
        by=by,
    )


def _other_version(
    project: Project, definitions: Definitions, name: str, folder: Path | None, artifact: str | None
) -> tuple[Project, Version]:
    """What decides again, and the project that compiles its views; that one never opens a log."""
    if folder is None:
        return project, project.version(name, _artifacts(project, artifact))
    asked = Project(project.folder, definitions, clock=SystemClock(), role=Role.READER)
    try:
        return asked, asked.version(name, _artifacts(asked, artifact))
    except NotFoundError:
        if not (folder / STATE_FOLDER).is_dir():
            raise
    asked = Project(folder, definitions, clock=SystemClock(), role=Role.READER)
    return asked, asked.version(name, _artifacts(asked, artifact))


def _artifacts(project: Project, artifact: str | None) -> dict[str, str]:
    """The artifact by the model that it is of; empty where none is named."""
    return {} if artifact is None else {project.models.get(artifact).model: artifact}


def kept_rows(project: Project, topic: Topic) -> Requests:
    """As `request_rows`, None for what retention took."""
    starts = {held.partition: held.start for state in project.log.topics() for held in state.partitions}
    rows = request_rows(project.log, topic)

    def kept(partition: Partition, offsets: Sequence[int]) -> Iterator[Row | None]:
        start = starts.get(partition)
        there = [offset for offset in offsets if start is not None and offset >= start]
        found = iter(rows(partition, there)) if there else iter(())
        for offset in offsets:
            yield next(found) if start is not None and offset >= start else None

    return kept
