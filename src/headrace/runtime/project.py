"""A project, opened: the only place that wires definitions, log, state, models and decisions together.

`hr.open(".")` gives a `Project`. Nothing runs until it is asked for: definitions load at once, the log opens at first
use, a feature state is made from its checkpoint and the log's tail when a view is first read.
"""

from __future__ import annotations

import importlib.metadata
import os
import threading
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from headrace.catalog import plan as catalog_plan
from headrace.catalog.define import Catalog
from headrace.catalog.plan import Step
from headrace.catalog.run import load_definitions
from headrace.clock import SystemClock
from headrace.core.codec import logical
from headrace.core.errors import HaltedError, InputError, NotFoundError, StateError
from headrace.core.points import Partition
from headrace.core.schema import DataType, Kind
from headrace.core.times import Clock, Instant
from headrace.decisions import record as records
from headrace.decisions.define import explaining
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.plan import Version, ViewVersion, value_names
from headrace.decisions.record import DecisionRecord
from headrace.decisions.replay import ReplayReport
from headrace.decisions.replay import replay as replay_records
from headrace.decisions.run import Decider, DecisionMade
from headrace.decisions.valid import valid_records
from headrace.features.define import FeatureView
from headrace.features.plan import ViewPlan
from headrace.features.replay import replay, topics_of
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows
from headrace.features.run import FeatureState
from headrace.log.define import Topic
from headrace.log.port import Appended, Log, Physical
from headrace.log.run import Role
from headrace.models.folder import FolderModelStore
from headrace.models.serve import ServedModel
from headrace.runtime.catalog_store import CatalogStore
from headrace.runtime.deciding import make_decider
from headrace.runtime.definitions import CLASSES, Definitions
from headrace.runtime.opening import open_log_of
from headrace.runtime.parts import Parts
from headrace.runtime.placing import place_rows, topic_state
from headrace.runtime.reading import Reader
from headrace.runtime.recompute import recompute_with, request_rows
from headrace.runtime.versions import versions_of
from headrace.schemas.define import ImportOptions, ImportReport, Progress
from headrace.schemas.importing import import_file, silent
from headrace.schemas.validate import validate_rows
from headrace.settings import ProjectSettings, read_settings

STATE_FOLDER = ".headrace"


class Project:
    """One folder's definitions and everything that was made of them. Any thread may call; decisions take turns.

    Use it as a context manager, or call `close`: it writes a checkpoint, so that the next start is short.
    """

    def __init__(
        self,
        folder: Path,
        definitions: Definitions,
        *,
        clock: Clock,
        role: Role,
        settings: ProjectSettings | None = None,
    ) -> None:
        self.folder = folder
        self.definitions = definitions
        self.settings = settings or read_settings(folder, os.environ)
        self.clock = clock
        self._role = role
        self._log: Log | None = None
        self.parts = Parts(self)
        self._deciders: dict[str, Decider | OwnedDecider] = {}
        self._states: dict[str, FeatureState] = {}  # by the names of their views, the newest
        self._reader = Reader(self)
        self._lock = threading.RLock()
        self._tz_version = tz_version()

    # --- parts ---

    @property
    def log(self) -> Log:
        """The project's log; where it is a file, this process owns it if nobody else does."""
        with self._lock:
            if self._log is None:
                self._log = open_log_of(
                    self.settings.log, self.state_folder / "log", clock=self.clock, role=self._role, environ=os.environ
                )
            return self._log

    @property
    def state_folder(self) -> Path:
        return self.folder / STATE_FOLDER

    @property
    def models(self) -> FolderModelStore:
        return FolderModelStore(self.state_folder / "models")

    def fingerprints(self, kind: str) -> dict[str, str]:
        return self.definitions.fingerprints(kind, tz_version=self._tz_version)

    def now(self) -> Instant:
        """The project's clock."""
        return self.clock.now()

    def compile(self, views: Iterable[str]) -> list[ViewPlan]:
        """Fresh plans; a state or a replay keeps those that it is given."""
        return [ViewPlan.compile(self.definitions.view(name), self.definitions.labels) for name in views]

    # --- definitions ---

    def plan(self) -> tuple[Step, ...]:
        """What `apply` would do, in order; empty where nothing would change. Raises: DefinitionError HR-0813, HR-0370
        on a shared log, HR-0366 on one that is not."""
        if self.log.capabilities.shared:
            self.definitions.check_joint()
            self.definitions.check_held(state.topic for state in self.log.topics(fresh=False))
        else:
            self.definitions.check_alone()
        return catalog_plan.plan(self.definitions.declared(tz_version=self._tz_version), self.catalog())

    def catalog(self) -> Catalog:
        return CatalogStore(self.log).read()

    def apply(self, steps: Sequence[Step] | None = None, *, approved: Collection[str] = ()) -> tuple[Step, ...]:
        """Make what is declared be in force. steps: of an earlier `plan`; refused if something changed since. approved:
        what a person allows, by the names that the steps say. Raises: as `catalog.plan.check` and `check_approved`.

        Topics are made or changed in the log first; then the whole change of the catalog is one append.
        """
        steps = self.plan() if steps is None else tuple(steps)
        store = CatalogStore(self.log)
        catalog = store.read()
        for step in steps:
            catalog_plan.check(step, catalog)
        catalog_plan.check_approved(steps, approved)
        declared = [self.definitions.topic(s.name) for s in steps if s.kind == "topic" and s.fingerprint is not None]
        for topic in sorted(declared, key=lambda one: one.derivation is not None):  # behind what they are derived of
            self.log.declare(topic)
        store.append(steps, at=self.clock.now())
        return steps

    # --- events ---

    def import_file(
        self, topic: str, path: Path | str, *, options: ImportOptions | None = None, progress: Progress = silent
    ) -> ImportReport:
        """A file's rows into a topic, whole or not at all (schemas.importing.import_file)."""
        self._applied(topic)
        return import_file(self.log, topic, Path(path), clock=self.clock, options=options, progress=progress)

    def produce(self, topic: str, events: Sequence[Mapping[str, object]]) -> tuple[Appended, ...]:
        """Events as JSON-like mappings; refused whole where one does not fit, with the first problem in words.

        Returns where they went, partition by partition. Raises: SchemaError, NotFoundError HR-0302.
        """
        declared = self._applied(topic)
        batch, problems = validate_rows(declared, events)
        if problems:
            raise problems[0].error(topic, count=len(problems))
        return self.append(declared, batch)

    def append(self, topic: Topic, batch: pa.RecordBatch) -> tuple[Appended, ...]:
        """Rows that fit their topic already, to the partitions of their keys, in one transaction."""
        return place_rows(self.log, topic.name, batch)[0]

    def _applied(self, topic: str) -> Topic:
        """The topic as the log holds it."""
        return topic_state(self.log, topic).topic

    # --- features ---

    def state(self, views: Sequence[str], *, halts: dict[Partition, HaltedError] | None = None) -> FeatureState:
        """The online state of some views, from its checkpoint or from nothing, read up to the log's end. halts: as of
        `FeatureState.catch_up`."""
        state = self._states["-".join(sorted(views))] = self._state(views, halts)
        return state

    def _state(self, views: Sequence[str], halts: dict[Partition, HaltedError] | None = None) -> FeatureState:
        fingerprints = {name: self.fingerprints("view")[name] for name in views}
        held = self.log.topics()
        topics = [each.topic for each in held]
        state = self.parts.checkpoints.restore(self.compile(views), fingerprints=fingerprints, held=held)
        if state is None:
            state = FeatureState(self.compile(views), topics=topics)
        try:
            state.catch_up(self.log, halts=halts)
        except StateError as error:
            if error.code != "HR-0546":
                raise
            state = FeatureState(self.compile(views), topics=topics)
            state.catch_up(self.log, halts=halts)
        return state

    def read(self, view: str, entity: Hashable | list[Hashable], *, t: Instant | None = None) -> dict[str, object]:
        """A view's features of an entity at t (now), at the log's end, by name: decimals as Decimal, instants as
        datetime, last-n as tuples."""
        key = tuple(entity) if isinstance(entity, list) else entity
        _, _, ((values, _),) = self._reader.read(view, [key], t=t)
        features = self.definitions.view(view).features
        return {f.name: _shown(value, f.type) for f, value in zip(features, values, strict=True)}

    def replay(
        self,
        views: str | FeatureView | Sequence[str | FeatureView],
        *,
        rows: pa.Table | object | None = None,
        request: str | Topic | None = None,
        kind: str = "available",
        reasons: bool = False,
        threads: int = 2,
        sample: int | None = None,
    ) -> pa.Table:
        """Features at points of the past (SEMANTICS 1.6), a row each, beside the rows' own columns.

        rows: an Arrow table or a data frame; a row whose id is logged is that request, with an unknown id a
        hypothetical one, without id a plain read at its `t`. None: every logged request of the topic. request: the
        topic whose requests the rows are; by default the first view's source. kind: "served", "available" or
        "known_now". sample: only the first so many rows, for a preview.
        """
        names = [
            v if isinstance(v, str) else v.name for v in ([views] if isinstance(views, str | FeatureView) else views)
        ]
        plans = self.compile(names)
        topic = request.name if isinstance(request, Topic) else request or plans[0].view.topics[0].name
        for plan in plans:
            if plan.derived is not None and topic == plan.derived.name and plan.derived.derivation is not None:
                topic = plan.derived.derivation.of  # its events are that one's, and so are the requests
        events = Events.read(self.log, {*topics_of(plans), topic})
        if rows is None:
            asked = Rows.logged(events, topic)
            given = events.topic(topic).table.take(asked.row)
            given = given.select([f.name for f in events.topic(topic).topic.schema])
            if sample is not None:
                asked, given = Rows.at(events.topic(topic), asked.row[:sample]), given.slice(0, sample)
        else:
            given = _table(rows)
            given = given if sample is None else given.slice(0, sample)
            id_field = self._applied(topic).id
            asked = Rows.of(events, given, request=topic if id_field in given.column_names else None)
        table = replay(plans, events, asked, kind=kind, reasons=reasons, threads=threads)
        kept = [name for name in given.column_names if name not in table.column_names]
        return pa.table(
            {**{name: given.column(name) for name in kept}, **{n: table.column(n) for n in table.column_names}}
        )

    # --- decisions ---

    def decider(self, name: str, *, address: str | None = None) -> Decider | OwnedDecider:
        """The one that decides by this name, warmed up: state, model and policy of the definitions in force here.

        address: where a server of a shared log can be reached; it owns nothing until its group gives it partitions.
        Without, of a shared log, every partition is claimed at once: whoever had it claims it again.
        """
        with self._lock:
            if name not in self._deciders:
                self._deciders[name] = make_decider(self, name, address, clock=self.clock)
            return self._deciders[name]

    def decide(self, name: str, request: Mapping[str, object]) -> DecisionMade:
        """Decide one request, durably (decisions.run.Decider.decide)."""
        return self.decider(name).decide(request)

    def renewed(self) -> Project:
        """The project with the definitions that its folder has now, on the same log: who has both closes this one
        only."""
        made = Project(
            self.folder,
            Definitions.of(load_definitions(self.folder, CLASSES)),
            clock=self.clock,
            role=self._role,
            settings=self.settings,
        )
        made._log = self.log
        made.parts.adopt(self.parts)
        return made

    def keep(self, name: str, other: Project) -> None:
        """The decider that another of the same log has by this name, and its state, are this one's too."""
        with self._lock, other._lock:
            if name in other._deciders:
                self._deciders[name] = other._deciders[name]
                place = "-".join(sorted(self.parts.here(name)))
                if place in other._states:
                    self._states[place] = other._states[place]

    def version(self, name: str, artifacts: Mapping[str, str] | None = None) -> Version:
        """A decision with everything pinned. artifacts: model -> content hash; by default the newest registered one.

        Raises: NotFoundError HR-0807 where a model was never trained.
        """
        decision = self.definitions.decision(name)
        fingerprints = self.fingerprints("view")
        views = []
        for view in decision.views:
            (plan,) = self.compile([view])
            views.append(
                ViewVersion(
                    name=view,
                    fingerprint=fingerprints[view],
                    features=tuple(f.name for f in plan.view.features),
                    topics=tuple(topics_of([plan])) if plan.derived is None else (plan.derived.name,),
                    max_staleness=plan.view.max_staleness,
                    held=plan.derived is not None,
                )
            )
        names = value_names(decision.request, views)
        told = {model.name for model in explaining(decision)}
        scores = {}
        for model in decision.scored:
            chosen = (artifacts or {}).get(model.name) or self.newest(model.name)
            scores[model.name] = ServedModel(model, self.models.get(chosen), names)
            if model.name in told:
                scores[model.name].explainer()  # made now, not by the first decision that gives reasons
        return Version(decision, views, scores)

    def newest(self, model: str) -> str:
        """The content hash of the model's newest artifact of the definition in force."""
        wanted = self.fingerprints("model")[self.definitions.model(model).name]
        stored = [s for s in self.models.list() if s.model == model and s.fingerprint == wanted]
        if not stored:
            raise NotFoundError(
                "HR-0807",
                f"model {model!r} has no artifact of its present definition",
                hint=f"headrace models train {model}",
            )
        return stored[-1].id

    def records(self, name: str) -> Iterable[DecisionRecord]:
        """Every decision record of this name that counts, partition by partition, in order."""
        decision = self.definitions.decision(name)
        topic = records.record_topic(decision).name
        for state in self.log.topics():
            for held in state.partitions if state.topic.name == topic else ():
                yield from valid_records(self.log, held, decision.request.name)

    def replay_decisions(self, name: str, *, limit: int | None = None) -> ReplayReport:
        """Recompute recorded decisions from the log and compare every feature and score to the bit.

        limit: only the newest so many.
        """
        found = list(self.records(name))
        found = found if limit is None else found[-limit:]
        return replay_records(
            found,
            versions=versions_of(self, name),
            requests=request_rows(self.log, self.definitions.decision(name).request),
            recompute=recompute_with(self.log, self.compile),
        )

    # --- checkpoints, closing ---

    def checkpoint(self, views: Sequence[str], *, write: bool = True) -> int:
        """The number of the newest checkpoint of some views, whoever wrote it; 0 where there is none. write: bring it
        to the log's end before, by a state of its own that goes at once: what serves is not touched.

        Raises: StateError HR-0561 to HR-0565 where the place cannot be asked, or written."""
        fingerprints = self.fingerprints("view")
        if write:
            self.parts.checkpoints.write(self._state(views), fingerprints=fingerprints)
        return self.parts.checkpoints.newest(self.compile(views), fingerprints=fingerprints)

    def close(self) -> None:
        """Write every state's checkpoint, then give everything back."""
        with self._lock:
            if self._log is not None:
                self.parts.stop()
                self.parts.write()
                self.parts.checkpoints.write_all(self._states.values(), fingerprints=self.fingerprints("view"))
                self._log.close()
                self._log = None

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_project(folder: Path | str = ".", *, clock: Clock | None = None, role: Role | str = Role.ANY) -> Project:
    """The project in a folder. Raises: NotFoundError HR-0804; DefinitionError and its kin for a wrong definition."""
    place = Path(folder).resolve()
    definitions = Definitions.of(load_definitions(place, CLASSES))
    return Project(place, definitions, clock=clock or SystemClock(), role=Role(role))


def tz_version() -> str:
    """The tz database's version, part of the fingerprint of what reads a zone (SEMANTICS 2.3)."""
    for place in (Path("/usr/share/zoneinfo/tzdata.zi"), Path("/usr/share/zoneinfo/+VERSION")):
        if place.is_file():
            with place.open(encoding="utf-8", errors="replace") as file:
                return file.readline().strip().removeprefix("# version ")
    try:
        return importlib.metadata.version("tzdata")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _shown(value: Physical | tuple[Physical, ...], type: DataType) -> object:
    if isinstance(value, tuple):
        assert type.item is not None, "only a list's values are tuples"
        return tuple(logical(item, type.item) for item in value)
    return value if type.kind is Kind.DURATION else logical(value, type)  # microseconds (SEMANTICS 3.4)


def _table(rows: object) -> pa.Table:
    """Rows as a caller has them: Arrow, or a pandas data frame."""
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if type(rows).__module__.partition(".")[0] == "pandas":
        return pa.Table.from_pandas(rows, preserve_index=False)
    raise InputError(
        "HR-0521",
        f"rows are {type(rows).__name__}",
        detail="expected a pyarrow table, a record batch or a pandas data frame",
    )
