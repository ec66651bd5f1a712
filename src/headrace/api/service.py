"""What the endpoints do: one project's decisions, features and events, called on the event loop.

The one idea: the loop only reads and writes bytes; what computes or touches the log runs in a decision's lane or at a
desk, and what does not fit in there is refused before any work. Touches: the project, lanes and desks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pyarrow as pa

from headrace.api import answers, bodies
from headrace.api.answers import DecisionAnswer
from headrace.api.arrow import arrow_of
from headrace.api.checkpoints import CheckpointProcess
from headrace.api.desk import Desk
from headrace.api.draining import DrainAnswer, Draining, no_others
from headrace.api.forwarded import Forward, Forwarded
from headrace.api.forwarding import Forwarder
from headrace.api.lanes import Lane, Undecided
from headrace.api.metrics import Metrics
from headrace.api.routing import Routing
from headrace.api.sampler import SamplerProcess
from headrace.api.series import CLAIMS_LOST, HELD, OWNED, PARTITIONS, STUCK, VOID
from headrace.api.settings import Settings
from headrace.api.texts import Texts, check_language
from headrace.api.views import CALLER, OtherProcesses
from headrace.core.codec import Physical, physical
from headrace.core.errors import (
    HeadraceError,
    InputError,
    LogError,
    NotFoundError,
    SchemaError,
    did_you_mean,
)
from headrace.core.schema import DataType, Kind
from headrace.core.times import Instant
from headrace.decisions.define import Decision
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.record import DecisionRecord
from headrace.decisions.run import Decides
from headrace.decisions.valid import ValidRecords
from headrace.features.define import FeatureView, entity_expression
from headrace.log.define import Topic
from headrace.runtime.holders import Holders
from headrace.runtime.holding import Holding, PartAnswer, PartQuestion
from headrace.runtime.lookup import find_record
from headrace.runtime.opening import ownership_of
from headrace.runtime.ownership import Ownership
from headrace.runtime.placing import place_rows, topic_state
from headrace.runtime.project import Project
from headrace.runtime.reading import Reader
from headrace.runtime.routed import HeldReads
from headrace.schemas.validate import Validate, validate_rows, validator

LOAD_SECONDS_MAX = 120.0  # how long a start goes on where brokers are away: longer than one takes to come back
RETRY_SECONDS = 1.0
INTERNAL = "headrace."  # topics that only headrace appends to

_logger = logging.getLogger(__name__)


class Service:
    """A project, served. Made and called on the loop; `close` may be called where the loop is gone."""

    def __init__(
        self,
        project: Project,
        *,
        settings: Settings,
        metrics: Metrics,
        decisions: Sequence[str] | None = None,
        address: str = "",
    ) -> None:
        """decisions: the names to serve; by default all that are declared, but for those that only challenge another.
        address: where others reach this process; on a shared log it decides what its group gives it, and sends the rest
        to who decides it. Loads their states and models, which takes as long as the log's tail is; raises what
        `Project.decider` does."""
        self.project = project
        self.settings = settings
        self.metrics = metrics
        self.stopping = False
        self._read_of, self._reads_by = project, Reader(project)
        self._reads_held: HeldReads | None = None
        self._valid = ValidRecords(project.log)
        served = list(project.definitions.served) if decisions is None else list(decisions)
        shared = project.log.capabilities.shared
        load = partial(patient, project, address) if shared else project.decider
        deciders = {name: load(name) for name in served}
        self._loop = asyncio.get_running_loop()
        self.lanes: dict[str, Lane] = {}
        self._reads = Desk("reads", threads=1, waiting_max=settings.reads_waiting_max)
        self._appends = Desk("appends", threads=2, waiting_max=settings.appends_waiting_max)
        self._records = Desk("records", threads=1, waiting_max=settings.lane_waiting_max)
        self._validators: dict[str, tuple[Topic, Validate]] = {}
        self._texts: dict[str, Texts] = {}
        for desk in (self._reads, self._appends, self._records):
            self._gauge(desk.name, desk.waits)
        for name, decider in deciders.items():
            self.add(name, decider)
        self.ownership: Ownership | None = None
        self._forwarder: Forwarder | None = None
        self._routing: Routing | None = None
        self._holders: Holders | None = None
        self._others: OtherProcesses | None = None
        self._draining: Draining | None = None
        self._held_once = False  # every partition of views that was given was read, at least once
        self._views = Desk("views", threads=2, waiting_max=settings.lane_waiting_max)
        if shared:
            self._share(address, served)
        self._sampler: SamplerProcess | None = None
        if settings.sample_share > 0:
            metrics.sampler_begins()
            self._sampler = SamplerProcess(
                project.folder, share=settings.sample_share, every=settings.sample_seconds, metrics=metrics
            )
        self._checkpoints: CheckpointProcess | None = None
        if settings.checkpoint_seconds > 0:
            self._checkpoints = CheckpointProcess(
                lambda: self.project, every=settings.checkpoint_seconds, metrics=metrics
            )
        metrics.gauge("headrace_ready", "1 where /readyz says ready.", {}, lambda: float(not self.unready()))

    def _share(self, address: str, served: Sequence[str]) -> None:
        """Join the group of processes that serve this log."""
        topics = {name: self.project.definitions.decision(name).request.name for name in served}
        holding = self.project.parts.holding
        holding.mean(self.project.parts.meant())
        self.ownership = ownership_of(
            self.project.log, name=address, topics=topics, owners=self._owners, held=holding.topics
        )
        self.ownership.begin()
        self._draining = Draining(self.ownership, self._owners, holding)
        if holding.topics:
            self._hold(holding, address, self._draining)
        self._forwarder = Forwarder(address)
        self._gauge("forwarded", self._forwarder.waits)
        ownership = self.ownership
        self._routing = Routing(self._forwarder, ownership.look_soon, waiting_max=self.settings.lane_waiting_max)
        self._gauge("ownerless", self._routing.waits)
        self.metrics.gauge(
            STUCK, "How long an open transaction holds requests back.", {}, lambda: ownership.stuck_seconds
        )
        for name in served:
            self._gauge_owner(name)

    def _hold(self, holding: Holding, address: str, draining: Draining) -> None:
        """Views over derived topics: those of the partitions that the group gives, and the others by their holders."""
        self._holders = Holders(
            self.project.log, address, lambda: {topic: holding.held(topic) for topic in holding.topics}
        )
        self._holders.begin()
        self._others = OtherProcesses(address, self._holders.holder)
        holding.elsewhere, holding.count = self._others, self.metrics.view_asked
        holding.hold(draining.wanted(self._holders.holder))
        self._gauge(self._views.name, self._views.waits)
        said = "Partitions of a derived topic whose views this process holds."
        for topic in holding.topics:
            self.metrics.gauge(HELD, said, {"topic": topic}, partial(_count, holding, topic))

    def _owners(self) -> dict[str, OwnedDecider]:
        found = {name: lane.decides for name, lane in list(self.lanes.items())}
        return {name: decides for name, decides in found.items() if isinstance(decides, OwnedDecider)}

    def _gauge_owner(self, name: str) -> None:
        def of(read: Callable[[OwnedDecider], float]) -> Callable[[], float]:
            return lambda: read(self._owners()[name])

        labels = {"decision": name}
        total = topic_state(self.project.log, self._owners()[name].version.decision.request.name).topic.partitions
        self.metrics.gauge(PARTITIONS, "Partitions of a decision's requests.", labels, lambda: total)
        self.metrics.gauge(OWNED, "Partitions whose requests this process decides.", labels, of(lambda o: len(o.owned)))
        self.metrics.gauge(
            VOID,
            "Records that count for nothing, in the partitions decided here.",
            labels,
            of(lambda o: sum(o.voids.values())),
        )
        self.metrics.gauge(CLAIMS_LOST, "Partitions that another claimed.", labels, of(lambda o: o.claims_lost))

    def _gauge(self, queue: str, read: Callable[[], float]) -> None:
        self.metrics.gauge("headrace_queue_waiting", "Calls that wait.", {"queue": queue}, read)

    def add(self, name: str, decides: Decides) -> None:
        """Serve one more decision. On the loop."""
        settings = self.settings
        lane = Lane(
            name, decides, loop=self._loop, waiting_max=settings.lane_waiting_max, batch_max=settings.lane_batch_max
        )
        self.lanes[name] = lane
        self.metrics.serving(name, decides.version.text)
        self._gauge(f"decision {name}", lane.waits)

    def unready(self) -> str:
        """Why the server should get no requests now; "" where it should."""
        if self.stopping:
            return "stopping"
        if self._draining is not None and self._draining.begun:
            return "draining"
        unfit = self.project.log.unfit(fresh=False)
        if unfit is not None:
            return f"{unfit.code} {unfit.message}: {unfit.detail}"
        if self.ownership is not None and not self.ownership.settled:
            return "no partition is owned yet"
        if self._others is not None and not self._held_once:
            holding = self.project.parts.holding
            self._held_once = all(holding.settled_for(topic) for topic in holding.topics)
            if not self._held_once:
                return "views over derived topics are not read yet"
        failing = [name for name, lane in self.lanes.items() if lane.failing]
        return f"decision {failing[0]!r} cannot be computed" if failing else ""

    def close(self) -> None:
        """Finish what was accepted. Called when no request is under way; the project stays open."""
        self.stopping = True
        if self._sampler is not None:
            self._sampler.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
        for lane in self.lanes.values():
            lane.close()
        if self.ownership is not None:
            self.ownership.leave()
        if self._others is not None:
            self.project.parts.holding.stop()
        if self._holders is not None:
            self._holders.close()
        for desk in (self._reads, self._appends, self._records, self._views):
            desk.close()
        if self._others is not None:
            self._others.close()

    def drain(self) -> None:
        """Hand everything over to the other processes, and go on answering. Raises: NotFoundError HR-1021."""
        if self._draining is None:
            raise no_others()
        self._draining.begin()

    def drained(self) -> DrainAnswer:
        """How far that is. Raises: NotFoundError HR-1021."""
        if self._draining is None:
            raise no_others()
        return self._draining.answer()

    async def disconnect(self) -> None:
        """Give up the connections to other processes; on the loop, after everything was answered."""
        if self._forwarder is not None:
            await self._forwarder.close()

    # --- decisions ---

    def lane(self, name: str) -> Lane:
        found = self.lanes.get(name)
        if found is None:
            raise NotFoundError(
                "HR-0806", f"no decision {name!r} is served here", hint=did_you_mean(name, self.lanes), name=name
            )
        return found

    async def decide(
        self,
        name: str,
        request: Mapping[str, object],
        *,
        budget: float | None,
        features: bool,
        language: str | None = None,
        accepted: bytes | None = None,
        caller: bytes = b"",
        forward: Forward | None = None,
    ) -> DecisionAnswer | Forwarded:
        """budget: seconds; the decision's own by default. features: the values too, read from the record. language:
        of the reasons' texts, by name; accepted: the header Accept-Language. caller: the header Authorization, shown to
        other processes that are asked for this request. forward: the request as it came, for the process that owns its
        partition; None where it was sent here by another. Raises: InputError HR-1007 for a language that there is not,
        before anything is decided."""
        lane = self.lane(name)
        decision = lane.decides.version.decision
        if language is not None:
            check_language(decision, language)
        within = decision.budget.micros / 1e6 if budget is None else budget
        if forward is None or self._routing is None:
            one = lane.submit(request, within, caller)
        else:
            found = await self._routing.decided(lane, request, within, caller, forward)
            if isinstance(found, Forwarded):
                return found
            one = found
        outcome = await one.future
        now = time.monotonic()
        if isinstance(outcome, HeadraceError):
            raise outcome
        if isinstance(outcome, Undecided):
            answer = self._fallback(lane, decision, request, outcome)
            return self._in_words(answer, decision, language, accepted)
        version = one.version or lane.decides.version
        self.metrics.decided(name, outcome.outcome.value, "repeated" if outcome.repeated else "decided")
        self.metrics.staged(
            name,
            queue=one.taken - one.entered,
            compute=one.decided - one.taken - one.appending,
            append=one.appending,
            total=now - one.entered,
        )
        if outcome.recorded is not None:  # what was recorded then may be of another version
            answer, decision = self._told(outcome.recorded, features=features, repeated=True)
        elif features:
            answer, decision = await self._recorded(outcome.decision_id, features=True)
        else:
            answer, decision = answers.made_answer(outcome, version.text), version.decision.answering(outcome.arm)
        return self._in_words(answer, decision, language, accepted)

    def _in_words(
        self, answer: DecisionAnswer, decision: Decision, language: str | None, accepted: bytes | None
    ) -> DecisionAnswer:
        """The answer with its reasons' texts, where the decision has any."""
        if decision.texts:
            known = self._texts.get(decision.name)
            if known is None or not known.is_of(decision):
                known = self._texts[decision.name] = Texts(decision)
            answer.language = known.language(language, accepted)
            answer.reason_texts = known.worded(answer.reasons, answer.language)
        return answer

    def _fallback(
        self, lane: Lane, decision: Decision, request: Mapping[str, object], why: Undecided
    ) -> DecisionAnswer:
        """Raises: SchemaError, as what does not fit is refused however late it is."""
        row = self._validator(lane.name, decision.request)(request)
        id = row[decision.request.schema.names.index(str(decision.request.id))]
        assert isinstance(id, str | int), "an id is never null"
        self.metrics.decided(lane.name, decision.fallback.value, "fallback")
        return answers.fallback_answer(decision, id, why, lane.decides.version.text, self.project.now())

    def _validator(self, name: str, topic: Topic) -> Validate:
        """Compiled once a version."""
        known = self._validators.get(name)
        if known is None or known[0] is not topic:
            known = self._validators[name] = (topic, validator(topic))
        return known[1]

    async def decision(
        self, decision_id: str, *, features: bool, language: str | None = None, accepted: bytes | None = None
    ) -> DecisionAnswer:
        """A recorded decision, its reasons in today's words. Raises: NotFoundError HR-0716, InputError HR-1007."""
        answer, decision = await self._recorded(decision_id, features=features)
        if language is not None:
            check_language(decision, language)
        return self._in_words(answer, decision, language, accepted)

    async def _recorded(self, decision_id: str, *, features: bool) -> tuple[DecisionAnswer, Decision]:
        return await self._records.do(
            lambda: self._told(find_record(self.project, decision_id, self._valid), features=features)
        )

    def _told(
        self, record: DecisionRecord, *, features: bool, repeated: bool = False
    ) -> tuple[DecisionAnswer, Decision]:
        definitions = self.project.definitions
        decision = definitions.decision(record.decision)
        answer = answers.record_answer(record, decision, definitions.views, features=features, repeated=repeated)
        return answer, decision.answering(record.ruling.arm)

    # --- features ---

    async def held(self, questions: Sequence[PartQuestion]) -> list[PartAnswer]:
        """What this process holds of views over derived topics. Raises: InputError HR-1006 for a question that does not
        fit its view, StateError HR-1008."""
        holding = self.project.parts.holding
        return await self._views.do(lambda: holding.answer(questions))

    async def features(
        self, view: str, keys: Sequence[object], t: str | None, *, caller: bytes = b""
    ) -> answers.FeaturesAnswer:
        """Many entities at one point. keys: as JSON has them, lists where an entity has several parts. caller: the
        header Authorization, shown to other processes that hold a part of the view."""
        declared = self.project.definitions.view(view)
        at = None if t is None else _instant(t)
        types = key_types(declared)
        entities = [_entity(declared, types, key, place) for place, key in enumerate(keys)]

        def read() -> answers.FeaturesAnswer:
            CALLER.set(caller)
            asked, cut, found = self._reader(view).read(view, entities, t=at)
            return answers.features_answer(declared, keys, asked, cut, found)

        return await self._reads.do(read)

    def _reader(self, view: str) -> Reader | HeldReads:
        """Of the project that is served now. In the thread of reads."""
        if self._read_of is not self.project:
            self._read_of, self._reads_by, self._reads_held = self.project, Reader(self.project), None
        if self._others is None:
            return self._reads_by
        if self._reads_held is None:
            self._reads_held = self._read_of.parts.reads()
        return self._reads_held if view in self._reads_held else self._reads_by

    # --- events ---

    async def append(self, topic: str, body: bytes, content_type: str) -> answers.EventsAnswer:
        """All events of a body, or none. Raises: InputError HR-1005, HR-1006, SchemaError with row and field."""
        if topic not in self.project.definitions.topics or topic.startswith(INTERNAL):
            raise NotFoundError(
                "HR-0806",
                f"no topic {topic!r} in this project",
                hint=did_you_mean(topic, [t for t in self.project.definitions.topics if not t.startswith(INTERNAL)]),
                name=topic,
            )
        found = await self._appends.do(lambda: self._append(topic, body, content_type))
        for verdict, count in found.verdicts.items():
            self.metrics.appended(topic, verdict, count)
        return found

    def _append(self, name: str, body: bytes, content_type: str) -> answers.EventsAnswer:
        topic = topic_state(self.project.log, name).topic  # as it is in force
        batch = _batch(topic, body, content_type)
        if not batch.num_rows:
            return answers.events_answer(topic.name, [])
        appended, chosen = place_rows(self.project.log, topic.name, batch)
        by_partition = {one.partition.index: one for one in appended}
        next_row = dict.fromkeys(by_partition, 0)
        places = []
        for index in chosen.tolist():
            one, row = by_partition[index], next_row[index]
            next_row[index] = row + 1
            places.append((index, one.offset + row, int(one.verdicts[row])))
        return answers.events_answer(topic.name, places)


def patient(project: Project, address: str, name: str) -> Decides:
    """The decider of a shared log, after some attempts where the log cannot be read for now: each goes on from what the
    one before has read. Raises: what `Project.decider` does; of what passes, what it did last."""
    until = time.monotonic() + LOAD_SECONDS_MAX
    while True:
        try:
            return project.decider(name, address=address)
        except LogError as error:
            if not error.retryable or time.monotonic() > until:
                raise
            _logger.warning("decision %s is not loaded yet: %s", name, error, extra={"code": error.code})
            time.sleep(RETRY_SECONDS)


def _batch(topic: Topic, body: bytes, content_type: str) -> pa.RecordBatch:
    if content_type == ARROW:
        return arrow_of(topic, body)
    events = bodies.lines_of(body) if content_type == NDJSON else bodies.events_of(body)
    batch, problems = validate_rows(topic, events)
    if problems:
        raise problems[0].error(topic.name, count=len(problems))
    return batch


JSON, NDJSON, ARROW = "application/json", "application/x-ndjson", "application/vnd.apache.arrow.stream"


def key_types(view: FeatureView) -> tuple[DataType, ...]:
    """The type of each part of a view's entity."""
    emission = view.sources.emissions[0]
    return tuple(entity_expression(emission, part, view.name).type for part in view.entity)


def _entity(view: FeatureView, types: Sequence[DataType], key: object, place: int) -> Physical | tuple[Physical, ...]:
    parts = key if isinstance(key, list) else [key]
    if len(parts) != len(types):
        raise InputError(
            "HR-1006",
            f"key {place} has {len(parts)} parts",
            detail=f"view {view.name!r} asks for {', '.join(view.entity)}",
            field=f"keys[{place}]",
        )
    made = []
    for name, type, part in zip(view.entity, types, parts, strict=True):
        try:
            made.append(physical(part, type))
        except SchemaError as error:
            error.message = f"key {place}, {name!r}: {error.message}"
            error.facts["field"] = f"keys[{place}]"
            raise
    return made[0] if len(made) == 1 else tuple(made)


def path_key(view: FeatureView, parts: Sequence[str]) -> object:
    """A key from a path's segments. Raises: InputError HR-1007."""
    types = key_types(view)
    if len(parts) != len(types):
        raise InputError(
            "HR-1007",
            f"the path names {len(parts)} parts of a key",
            detail=f"view {view.name!r} asks for {', '.join(view.entity)}",
            field="key",
        )
    made = [_path_part(name, type, part) for name, type, part in zip(view.entity, types, parts, strict=True)]
    return made[0] if len(made) == 1 else made


def _path_part(name: str, type: DataType, part: str) -> object:
    if type.kind in (Kind.INT64, Kind.DURATION) and part.removeprefix("-").isdecimal() and len(part) <= 20:
        return int(part)
    if type.kind is Kind.BOOLEAN and part in ("true", "false"):
        return part == "true"
    if type.kind in (Kind.STRING, Kind.TIMESTAMP, Kind.DECIMAL):
        return part
    raise InputError("HR-1007", f"{name!r} in the path: not a {type}: {part[:80]!r}", field=name)


def _instant(text: str) -> Instant:
    try:
        return Instant(int(physical(text, _TIMESTAMP)))  # type: ignore[arg-type]  # a text gives an instant
    except SchemaError as error:
        error.facts["field"] = "t"
        raise


_TIMESTAMP = DataType(Kind.TIMESTAMP)


def _count(holding: Holding, topic: str) -> float:
    return len(holding.held(topic))
