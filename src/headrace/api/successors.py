"""The next version of a decision takes over while the server serves. Touches: one thread, the project's folder and log.

The one idea: the thread makes what is next, beside what serves; the switch is one assignment between two batches of a
lane. So no request waits for it, and no decision is of two versions.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from headrace.api.service import Service
from headrace.core.errors import HeadraceError
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.plan import Version
from headrace.decisions.run import Decides
from headrace.runtime.following import Following
from headrace.runtime.project import Project

LOOK_SECONDS = 0.5  # between two looks whether something else is in force
CLOSE_SECONDS_MAX = 5.0  # a new version may read the log for longer than a stop can wait

_logger = logging.getLogger(__name__)


class Successors:
    """Follows what is in force until `close`. Made on the loop."""

    def __init__(self, service: Service, following: Following, *, every: bool) -> None:
        """every: decisions that are declared later are served too."""
        self._service = service
        self._following = following
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._closing = threading.Event()
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="headrace-successors", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when nothing is being made any more, or after a while: what is half made is of no use to anybody."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS_MAX)

    def _run(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            try:
                self._look()
            except HeadraceError as error:
                self._say(str(error), error.code)
            except Exception:
                _logger.exception("the next version could not be made; the present one goes on")

    def _look(self) -> None:
        lanes = dict(self._service.lanes)
        before = self._following.project
        made: dict[str, Decides] = dict(
            self._following.successors({name: lane.decides.version for name, lane in lanes.items()})
        )
        project = self._following.project
        if project is before:
            return
        address = self._following.address
        if self._every:
            new = [name for name in project.definitions.served if name not in lanes]
            made |= {name: project.decider(name, address=address) for name in new}
        for name, decides in made.items():
            warm(decides.version)
            if self._service.ownership is not None and isinstance(decides, OwnedDecider):
                self._service.ownership.serve(name, decides.version.decision.request.name)
                self._service.ownership.take(name, decides)
        self._said = ""
        self._loop.call_soon_threadsafe(self._take_over, project, made)

    def _take_over(self, project: Project, made: dict[str, Decides]) -> None:
        """On the loop."""
        self._service.project = project
        for name, decides in made.items():
            lane = self._service.lanes.get(name)
            if lane is None:
                self._service.add(name, decides)
            else:
                lane.switch(decides)
                self._service.metrics.serving(name, decides.version.text)
            _logger.info("decision %s is served by another version", name, extra={"versions": decides.version.text})

    def _say(self, words: str, code: str) -> None:
        """Once, not at every look."""
        if words != self._said:
            self._said = words
            _logger.warning("what serves goes on: %s", words, extra={"code": code})


def warm(version: Version) -> None:
    """Score once, so that the first request does not load what scoring needs. Nothing is appended."""
    row = [None] * len(version.decision.request.schema.fields)
    version.decide(row, [version.absent(place) for place in range(len(version.views))])
