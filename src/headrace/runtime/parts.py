"""What a project keeps of its views' states beside them: where they begin from, who holds views over derived topics,
and how one part of them is made. Touches the log and the place of checkpoints."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.core.errors import DefinitionError, StateError
from headrace.core.schema import DataType
from headrace.features.define import FeatureView
from headrace.features.replay_rows import entity_types
from headrace.features.run import FeatureState
from headrace.log.define import Topic
from headrace.runtime.checkpoints import Checkpoints
from headrace.runtime.holding import Holding, Meant
from headrace.runtime.routed import HeldReads, Routed

if TYPE_CHECKING:
    from headrace.runtime.project import Project

SETTLED_SECONDS_MAX = 60.0  # that a new version waits for its parts: what decides goes on meanwhile


class Parts:
    """Of one project. Any thread may call."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._holding: Holding | None = None
        self._lock = threading.Lock()

    @functools.cached_property
    def checkpoints(self) -> Checkpoints:
        project = self._project
        return Checkpoints(project.state_folder / "checkpoints", project.settings.checkpoints, project.log)

    @property
    def holding(self) -> Holding:
        """The views over derived topics that this process holds, by whichever definitions."""
        with self._lock:
            if self._holding is None:
                self._holding = Holding(self._project.log, self._project.clock)
            return self._holding

    def adopt(self, other: Parts) -> None:
        """Hold what another of the same log holds."""
        self._holding = other._holding

    def write(self) -> None:
        """A checkpoint of all that is held."""
        if self._holding is not None:
            self._holding.write()

    def stop(self) -> None:
        """Follow no more."""
        if self._holding is not None:
            self._holding.stop()

    # --- what there is ---

    def here(self, decision: str) -> list[str]:
        """The views of a decision that whoever decides it holds whole: all but those that are held by partition."""
        held = self._project.definitions.held
        return [view for view in self._project.definitions.decision(decision).views if view not in held]

    def meant(self) -> list[Meant]:
        """One a derived topic that views read."""
        definitions, by = self._project.definitions, dict[str, list[str]]()
        held = self._project.definitions.held
        for view, topic in held.items():
            by.setdefault(topic.name, []).append(view)
        fingerprints = self._project.fingerprints("view") if by else {}
        found = []
        for views in by.values():
            topic = held[views[0]]
            assert topic.derivation is not None, "derived"
            meant = Meant(
                topic=topic,
                source=definitions.topic(topic.derivation.of),
                fingerprints={view: fingerprints[view] for view in sorted(views)},
                entities={view: _entity(definitions.view(view)) for view in views},
                make=functools.partial(self._made, tuple(sorted(views))),
                write=self._write,
            )
            found.append(meant)
        return found

    # --- who asks ---

    def routed(self, decision: str, address: str | None) -> Routed | None:
        """What a decision asks for its views that are held by partition; None where it has none. address: of a process
        that holds what its group gives it; without one it holds all. Waits, for a while, until what is held is read.

        Raises: DefinitionError HR-0371 where the group does not share what it would have to."""
        declared, held = self._project.definitions.decision(decision), self._project.definitions.held
        views = [view for view in declared.views if view in held]
        if not views:
            return None
        holding, meant, counts = self.holding, self.meant(), self._counts()
        if holding.holds:
            _check_shared(holding, [held[view] for view in views])
        holding.mean(meant)
        if address is None:
            holding.hold_now(lambda topic: frozenset(range(counts.get(topic, 0))))
        else:
            _wait(holding)
        plans, clock = self._project.compile(views), self._project.clock
        return Routed(holding, plans, declared.request, partitions=lambda topic: counts[topic], clock=clock)

    def reads(self) -> HeldReads:
        """Plain reads of the views that are held by partition, by the definitions in force."""
        project, counts = self._project, self._counts()
        return HeldReads(
            self.holding,
            project.compile(sorted(self._project.definitions.held)),
            fingerprints=project.fingerprints("view"),
            partitions=lambda topic: counts[topic],
            clock=project.clock,
        )

    def _counts(self) -> dict[str, int]:
        return {state.topic.name: state.topic.partitions for state in self._project.log.topics()}

    # --- one part ---

    def _made(self, views: tuple[str, ...], index: int) -> FeatureState:
        """The state of one partition, from its checkpoint or from nothing, read to the end as it is now."""
        project = self._project
        fingerprints, held = project.fingerprints("view"), project.log.topics()
        chosen = {view: fingerprints[view] for view in views}
        state = self.checkpoints.restore(project.compile(views), fingerprints=chosen, held=held, only=index)
        if state is not None:
            try:
                state.catch_up(project.log)
            except StateError as error:
                if error.code != "HR-0546":
                    raise
            else:
                return state
        state = FeatureState(project.compile(views), only=index)
        state.catch_up(project.log)
        return state

    def _write(self, state: FeatureState, index: int) -> None:
        self.checkpoints.write_all([state], fingerprints=self._project.fingerprints("view"), only=index)


def _entity(view: FeatureView) -> list[tuple[str, DataType]]:
    return list(zip(view.entity, entity_types(view), strict=True))


def _check_shared(holding: Holding, topics: Sequence[Topic]) -> None:
    """Raises: DefinitionError HR-0371."""
    for topic in topics:
        if topic.name not in holding.shared:
            raise DefinitionError(
                "HR-0371",
                f"nobody holds views over derived topic {topic.name!r} yet",
                detail="servers share the partitions of the topics that views read when they start",
                hint="start the servers again, one after the other; until then they decide as before",
                topic=topic.name,
            )


def _wait(holding: Holding) -> None:
    until = time.monotonic() + SETTLED_SECONDS_MAX
    while holding.holds and time.monotonic() < until:
        if all(holding.settled_for(topic) for topic in holding.topics):
            return
        time.sleep(0.05)
