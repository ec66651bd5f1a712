"""The version set behind a record, made again from the definitions and artifacts at hand. Touches the model store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from headrace.core.errors import DefinitionError, InputError, NotFoundError
from headrace.decisions.plan import Version

if TYPE_CHECKING:
    from headrace.runtime.project import Project


def versions_of(project: Project, name: str) -> Callable[[str], Version | None]:
    """A record's `versions` -> the version set, each made once; None where its definitions are not the present ones or
    its artifact is gone. Its model may be older than the newest."""
    known: dict[str, Version | None] = {}

    def versions(text: str) -> Version | None:
        if text not in known:
            known[text] = _version_of(project, name, text)
        return known[text]

    return versions


def _version_of(project: Project, name: str, text: str) -> Version | None:
    artifacts = _artifacts(project, name, json.loads(text))
    if artifacts is None:
        return None
    try:
        version = project.version(name, artifacts)
    except (NotFoundError, InputError, DefinitionError):
        return None
    return version if version.text == text else None


def _artifacts(project: Project, name: str, said: Mapping[str, object]) -> dict[str, str] | None:
    """model -> artifact, of a version set; None where one of them is gone."""
    decision = project.definitions.decision(name)
    several = said.get("models")
    if isinstance(several, list):
        found = {str(model): str(artifact) for model, artifact in several}
    elif said.get("model") is not None and len(decision.scored) == 1:
        found = {decision.scored[0].name: str(said["model"])}
    else:
        found = {}
    return found if set(found.values()) <= project.models.ids() else None
