"""Where a project's states begin from and are written to: its own folder, or a place that processes share. Touches that
place.

The one idea: a checkpoint only makes the next start short. One that is missing, damaged or of another meaning costs the
time to read the log, and a place that fails is said and never stops what decides. Beside a state lies what the log had
learned by reading (`Log.kept`), so that neither reads again what lies before.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from headrace.core.errors import StateError
from headrace.core.points import Cut
from headrace.features import checkpoint
from headrace.features.checkpoint_address import open_store
from headrace.features.checkpoint_folder import FolderCheckpoints
from headrace.features.checkpoint_names import parsed, part_name
from headrace.features.checkpoint_store import CheckpointStore
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.port import Log, TopicState
from headrace.runtime.opening import origin_of

_logger = logging.getLogger(__name__)


class Checkpoints:
    """Of one project. url: of a shared place; "" is the folder. Other processes may write there too. Any thread may
    call; they take turns."""

    def __init__(self, folder: Path, url: str, log: Log) -> None:
        """Raises: UsageError HR-0560 for an address that is none."""
        self._folder = folder
        self._log = log
        self._origin = origin_of(log)
        self._lock = threading.Lock()  # a store is one thread's at a time
        # By views and partition, the cut of the checkpoint that this process knows of.
        self._there: dict[tuple[tuple[str, ...], int | None], Cut] = {}
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
        self,
        plans: Sequence[ViewPlan],
        *,
        fingerprints: Mapping[str, str],
        held: Sequence[TopicState],
        only: int | None = None,
    ) -> FeatureState | None:
        """The state of the furthest checkpoint that fits; None where there is none. The log goes on from there too.
        plans: fresh, and used up. only: of every topic the partition of this index alone. Raises: LogError, as
        `Log.resume`."""
        views = [plan.view.name for plan in plans]
        try:
            with self._lock:
                found = checkpoint.restore_whole(
                    plans,
                    self._place(views),
                    fingerprints=fingerprints,
                    topics=[state.topic for state in held],
                    part=self._part(views, only),
                    origin=self._origin,
                    held=held,
                    make=FeatureState if only is None else partial(FeatureState, only=only),
                )
        except StateError as error:
            _logger.error(
                "the state of %s is read from the log: %s", ", ".join(views), error, extra={"code": error.code}
            )
            return None
        if found is None:
            return None
        self._log.resume(found.extra)
        self._there[tuple(sorted(views)), only] = found.state.frontier
        return found.state

    def write_all(
        self, states: Iterable[FeatureState], *, fingerprints: Mapping[str, str], only: int | None = None
    ) -> None:
        """At an orderly end: what cannot be written is said. only: as it was restored."""
        for state in states:
            try:
                self.write(state, fingerprints=fingerprints, only=only)
            except StateError as error:
                _logger.error("no checkpoint of %s: %s", ", ".join(state.views), error, extra={"code": error.code})

    def write(self, state: FeatureState, *, fingerprints: Mapping[str, str], only: int | None = None) -> None:
        """As it is now; not where it is written already. only: as it was restored. Raises: StateError HR-0561 to
        HR-0565."""
        views = tuple(sorted(state.views))
        if state.frontier == self._there.get((views, only)):
            return
        kept = self._log.kept(state.frontier)
        with self._lock:
            checkpoint.write(
                state,
                self._place(views),
                fingerprints={name: fingerprints[name] for name in views},
                part=self._part(views, only),
                origin=self._origin,
                extra=kept,
            )
        self._there[views, only] = state.frontier

    def newest(self, plans: Sequence[ViewPlan], *, fingerprints: Mapping[str, str]) -> int:
        """The number of the newest checkpoint of these views, whoever wrote it; 0 where there is none. Raises:
        StateError HR-0561 to HR-0565 where the place cannot be asked."""
        views = [plan.view.name for plan in plans]
        of = checkpoint.kind(plans, fingerprints=fingerprints, origin=self._origin)
        with self._lock:
            names = parsed(self._place(views).names(f"{part_name(self._part(views, None))}-"))
        return max((name.number for name in names if name.kind == of), default=0)

    def _place(self, views: Sequence[str]) -> CheckpointStore:
        if self._store is not None:
            return self._store
        return FolderCheckpoints(self._folder / "-".join(sorted(views)), shared=True)

    def _part(self, views: Sequence[str], only: int | None) -> str:
        """Of a place with the states of several sets of views: which set, and which of its partitions. Names of views
        may have any letters."""
        if self._store is None:
            return ""
        which = "v" + hashlib.sha256("-".join(sorted(views)).encode()).hexdigest()[:16]
        return which if only is None else f"{which}p{only}"
