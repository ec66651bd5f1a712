"""What is asked of recorded decisions after they were made, project and all. Reads the log.

The one idea: each question is a function of an open project, so that `Project` stays the wiring and no more.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.decisions.verify import ChainReport, Head, verify
from headrace.runtime.project import Project


def verify_decisions(project: Project, name: str, *, heads: Sequence[Head] = ()) -> ChainReport:
    """Check the chain of a decision's records (decisions.verify.verify). heads: of an earlier check.

    Raises: NotFoundError HR-0806.
    """
    return verify(project.log, name, project.definitions.decision(name).request.name, heads=heads)
