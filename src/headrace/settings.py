"""A project's settings: where its log is, where checkpoints go. Read from its folder and from the environment.

    headrace.toml in the project's folder     the environment, which wins
    log = "kafka://127.0.0.1:9092/risk."      HEADRACE_LOG
    checkpoints = "s3://bucket/risk"          HEADRACE_CHECKPOINTS

Without any, both lie in the project's folder: one file, one process that owns it. Touches: that file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from headrace.core.errors import UsageError, did_you_mean

FILE = "headrace.toml"
VARIABLES = {"log": "HEADRACE_LOG", "checkpoints": "HEADRACE_CHECKPOINTS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSettings:
    """log: a URL of a Kafka cluster (clients.kafka.define); "" is a file in the project's folder. checkpoints: a URL of
    a folder or bucket that several processes share; "" is the project's folder."""

    log: str = ""
    checkpoints: str = ""


def read_settings(folder: Path, environ: Mapping[str, str]) -> ProjectSettings:
    """Raises: UsageError HR-0820 for a file that is none, or names what is no setting."""
    said: dict[str, object] = {}
    file = folder / FILE
    if file.is_file():
        try:
            said = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError("HR-0820", f"{FILE} cannot be read", detail=str(error), path=str(file)) from error
    known = [field.name for field in fields(ProjectSettings)]
    for name, value in said.items():
        if name not in known:
            raise UsageError("HR-0820", f"{FILE}: unknown setting {name!r}", hint=did_you_mean(name, known))
        if not isinstance(value, str):
            raise UsageError("HR-0820", f"{FILE}: setting {name!r} is no text", detail=f"seen {value!r}")
    said |= {name: environ[variable] for name, variable in VARIABLES.items() if environ.get(variable)}
    return ProjectSettings(**{name: str(value) for name, value in said.items()})
