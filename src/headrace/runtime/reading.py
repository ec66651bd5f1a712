"""Plain reads of views: many entities at one point, each view from a state that follows the log. Reads the log.

The one idea: a view's own state, for reads alone: deciders share theirs with nobody. Several keys are asked between two
looks at the log, so that one answer has one cut.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from headrace.core.points import Cut
from headrace.core.times import Instant
from headrace.decisions.plan import Answer
from headrace.features.run import FeatureState

if TYPE_CHECKING:
    from headrace.runtime.project import Project


class Reader:
    """Of one project. Any thread may read; they take turns."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._states: dict[str, FeatureState] = {}
        self._lock = threading.Lock()

    def read(
        self, view: str, entities: Sequence[Hashable], *, t: Instant | None = None
    ) -> tuple[Instant, Cut, list[Answer]]:
        """A view's answers for entities at one point: (t, cut, physical values and reasons one an entity).

        entities: physical keys, tuples where they have parts. t: now by default. Raises: NotFoundError HR-0806,
        StateError HR-0541 (TOO_OLD).
        """
        with self._lock:
            state = self._states.get(view)
            if state is None:
                self._project.definitions.view(view)
                state = self._states[view] = self._project.state([view])
            else:
                state.catch_up(self._project.log)
            at = self._project.now() if t is None else t
            return at, state.frontier, [state.read(view, entity, at) for entity in entities]
