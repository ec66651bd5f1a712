"""What stands between a project and deciding: definitions, what is in force, models, texts. Reads the folder, the log,
the model store; changes nothing.

The one idea: it does what a server does at its start, decision by decision, and says what that would say, all at once
instead of the first.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.core.errors import HeadraceError
from headrace.log.backup import Finding
from headrace.runtime.opening import altered_of
from headrace.runtime.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """versions: decision -> the text of the version set in force, where it can be made; None where the folder declares
    something else."""

    findings: tuple[Finding, ...]
    versions: dict[str, str] | None


def check_project(project: Project) -> Checked:
    """Each finding with the command that mends it. Cost: loads every decision's model. Raises: LogError."""
    findings = [Finding(serious=True, text=said(error)) for error in altered_of(project.log)]
    steps = project.plan()
    if steps:
        first = steps[0]
        findings.append(
            Finding(
                serious=False,
                text=f"the definitions in the folder are not those that were applied: {len(steps)} of them differ, "
                f"{first.kind} {first.name!r} first; headrace plan shows what differs, headrace apply puts it in force",
            )
        )
    versions: dict[str, str] = {}
    for name in project.definitions.served:
        try:
            versions[name] = project.version(name).text
        except HeadraceError as error:
            findings.append(Finding(serious=True, text=f"decision {name!r} cannot be served: {said(error)}"))
    findings += _without_texts(project)
    return Checked(findings=tuple(findings), versions=None if steps else versions)


def _without_texts(project: Project) -> list[Finding]:
    """Where one decision has texts, its callers read texts."""
    served = [project.definitions.decision(name) for name in project.definitions.served]
    decisions = [*served, *(one.decision for each in served for one in each.challengers if one.share > 0)]
    worded = [one.name for one in decisions if one.texts]
    return [
        Finding(
            serious=False,
            text=f"decision {one.name!r} has no texts for its reasons, and {worded[0]!r} has; give it texts={{...}}, "
            "then headrace plan",
        )
        for one in decisions
        if worded and not one.texts
    ]


def said(error: HeadraceError) -> str:
    """An error in one line, with what to do next."""
    parts = [error.message if not error.detail else f"{error.message}: {error.detail}", error.hint]
    return f"{error.code} {'; '.join(part for part in parts if part)}"
