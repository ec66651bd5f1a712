"""What is in force, followed while a process serves: the next version of a decision is made beside the present one.

The one idea: nothing that serves is ever changed. When something else was applied, or a model was trained, the
definitions are loaded anew, and each decision whose version set is no longer the one that serves gets a decider of its
own, warmed up from the log; whoever serves then switches to it between two requests. Touches the project's folder and
log.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.errors import DefinitionError
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.plan import Version
from headrace.decisions.run import Decider
from headrace.runtime.catalog_store import TOPIC
from headrace.runtime.project import Project

Mark = tuple[int, frozenset[str]]  # the catalog's end; the artifacts there are


class Following:
    """One thread's. `project` is the newest: the one to ask for everything else, and the one to close."""

    def __init__(self, project: Project, *, address: str | None = None) -> None:
        """address: of a server of a shared log, as `Project.decider` takes it."""
        self.project = project
        self.address = address
        self._seen: Mark | None = self._mark()

    def successors(self, serving: Mapping[str, Version]) -> dict[str, Decider | OwnedDecider]:
        """Of the decisions that are served, those whose version set in force is another, with a warm decider each.

        Empty where nothing changed. Cost: two look-ups where nothing did; else loading the definitions, and reading the
        log for each new decider. Raises: DefinitionError HR-0809 where the folder declares something else than what was
        applied, as code that is not there cannot serve; the definitions' own errors. What serves goes on; asked again,
        it looks again.
        """
        mark = self._mark()
        if mark == self._seen:
            return {}
        fresh = self.project.renewed()
        steps = fresh.plan()
        if steps:
            raise DefinitionError(
                "HR-0809",
                "the definitions in the folder are not those that were applied",
                detail=f"{len(steps)} of them differ, {steps[0].kind} {steps[0].name!r} first",
                hint="headrace plan shows what differs; headrace apply puts it in force",
            )
        made: dict[str, Decider | OwnedDecider] = {}
        for name, version in serving.items():
            if name not in fresh.definitions.decisions:
                continue  # no longer declared: what serves it goes on until the process ends
            if fresh.version(name).text == version.text:
                fresh.keep(name, self.project)
            else:
                made[name] = fresh.decider(name, address=self.address)
        self.project, self._seen = fresh, mark
        return made

    def _mark(self) -> Mark:
        states = (state for state in self.project.log.topics() if state.topic.name == TOPIC.name)
        end = next((state.partitions[0].end for state in states), 0)
        return end, self.project.models.ids()
