"""Where a project's states begin from and are written to: its own folder, or a place that processes share. Touches that
place.

The one idea: a checkpoint only makes the next start short. One that is missing, damaged or of another meaning costs the
time to read the log, and a place that fails is said and never stops what decides.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.core.errors import StateError
from headrace.features import checkpoint
from headrace.features.checkpoint_address import open_store
from headrace.features.checkpoint_folder import FolderCheckpoints
from headrace.features.checkpoint_store import CheckpointStore
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.port import Log, TopicState
from headrace.runtime.opening import origin_of

_logger = logging.getLogger(__name__)


class Checkpoints:
    """Of one project. url: of a shared place; "" is the folder, which on a shared log several processes write."""

    def __init__(self, folder: Path, url: str, log: Log) -> None:
        """Raises: UsageError HR-0560 for an address that is none."""
        self._folder = folder
        self._origin = origin_of(log)
        self._store: CheckpointStore | None = None
        if url:
            self._store = open_store(url)
            try:
                self._store.check()
            except StateError as error:
                _logger.error("states begin from the log: %s", error, extra={"code": error.code})
        elif log.capabilities.shared:
            self._store = FolderCheckpoints(folder, shared=True)

    def restore(
        self, plans: Sequence[ViewPlan], *, fingerprints: Mapping[str, str], held: Sequence[TopicState]
    ) -> FeatureState | None:
        """The state of the furthest checkpoint that fits; None where there is none. plans: fresh, and used up."""
        views = [plan.view.name for plan in plans]
        try:
            return checkpoint.restore(
                plans,
                self._place(views),
                fingerprints=fingerprints,
                topics=[state.topic for state in held],
                part=self._part(views),
                origin=self._origin,
                held=held,
            )
        except StateError as error:
            _logger.error(
                "the state of %s is read from the log: %s", ", ".join(views), error, extra={"code": error.code}
            )
            return None

    def write(self, state: FeatureState, *, fingerprints: Mapping[str, str]) -> None:
        """As it is now. Where that fails, it is said."""
        views = list(state.views)
        try:
            checkpoint.write(
                state,
                self._place(views),
                fingerprints={name: fingerprints[name] for name in views},
                part=self._part(views),
                origin=self._origin,
            )
        except StateError as error:
            _logger.error("no checkpoint of %s: %s", ", ".join(views), error, extra={"code": error.code})

    def _place(self, views: Sequence[str]) -> CheckpointStore | Path:
        return self._folder / "-".join(sorted(views)) if self._store is None else self._store

    def _part(self, views: Sequence[str]) -> str:
        """Of a place with the states of several sets of views: which set. Names of views may have any letters."""
        if self._store is None:
            return ""
        return "v" + hashlib.sha256("-".join(sorted(views)).encode()).hexdigest()[:16]
