"""What decides, made of a project: alone on a log of its own, or as an owner of partitions of a shared one. Touches the
log."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from headrace.core.times import Clock
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.run import Decider
from headrace.runtime.recompute import recompute_with
from headrace.schemas.validate import validator

if TYPE_CHECKING:
    from headrace.runtime.project import Project


def make_decider(project: Project, name: str, address: str | None, *, clock: Clock) -> Decider | OwnedDecider:
    """As `Project.decider`."""
    decision, log = project.definitions.decision(name), project.log
    # What halts keeps no other partition from being decided; who decides looks again, and says so.
    version, features = project.version(name), project.state(project.parts.here(name), halts={})
    validate, recompute = validator(decision.request), recompute_with(log, project.compile)
    if not log.capabilities.shared:
        return Decider(log, version, features=features, validate=validate, recompute=recompute, clock=clock)
    owner = address or f"process {os.getpid()} on {socket.gethostname()}"
    made = OwnedDecider(
        log,
        version,
        features=features,
        validate=validate,
        recompute=recompute,
        clock=clock,
        name=owner,
        remote=project.parts.routed(name, address),
    )
    if address is None:
        for index in range(_partitions(project, decision.request.name)):
            made.claim(index)
    return made


def _partitions(project: Project, topic: str) -> int:
    return next(state.topic.partitions for state in project.log.topics() if state.topic.name == topic)
