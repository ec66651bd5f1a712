"""Deciding: requests in, outcomes out, both durable in one commit. Touches the log through its port.

The one idea: what was read is proven by the append. A decision is computed from all that lies before offset p of its
partition, and request and record are appended on the condition that the request gets p; if other producers came first,
nothing was taken, and it is computed again from what is now before it (SEMANTICS 1.1, 1.7, 5.3).

Requests that wait together share a commit as long as none changes what another reads: each is computed as if those
before it were in the log already, and its offset is what it will then be.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.core.codec import partition_of
from headrace.core.errors import HeadraceError, LogError, NotFoundError
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.times import ZERO, Clock, Duration, Instant
from headrace.decisions import record as records
from headrace.decisions.asking import Asking, ask_again, points_at, retried_record
from headrace.decisions.chain import RequestHash, genesis
from headrace.decisions.define import Outcome
from headrace.decisions.known import NOT_THE_EVENT, Id, KnownRequests, conflict, row_at
from headrace.decisions.plan import Answer, Ruling, Scored, Version
from headrace.decisions.port import Features, Recompute, Row, Validate
from headrace.decisions.present import PresentCuts
from headrace.decisions.record import DecisionRecord, Flag
from headrace.log.define import Clock as TopicClock
from headrace.log.port import Append, Appended, Log, PartitionState

GROUP_MAX = 64  # requests in one commit: bounds how long the first waits for the last to be computed
OVERTAKEN_MAX = 64  # times that other producers may come first before the caller is told
LOOK_EVERY = Duration.parse("50ms")  # between two looks for new partitions, which cost more than one for new rows
_OVERTAKEN = "HR-0330"
_NEVER = Instant(-(2**63))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionMade:
    """What the caller is told. score: the first model's. scores: of each model, where there are several. arm: the
    challenger that gave the answer. repeated: the request was known, this is its recorded answer; recorded: as the log
    has it, and nothing else of the request need be read."""

    decision_id: str
    request_id: Id
    outcome: Outcome
    reasons: tuple[str, ...]
    score: float | None
    t: Instant
    flags: tuple[Flag, ...]
    scores: tuple[Scored, ...] = ()
    arm: str | None = None
    repeated: bool = False
    recorded: DecisionRecord | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True, kw_only=True)
class _Computed:
    """A decision that is not durable yet. maximum: its partition's running one, with it."""

    partition: Partition
    id: Id
    row: Row
    record: Row
    made: DecisionMade
    maximum: int


@dataclass(slots=True)
class _Group:
    """Decisions that will share a commit, in the order of their requests; an error stands for one that takes no
    part."""

    answers: list[_Computed | HeadraceError] = field(default_factory=list)
    rows: dict[Partition, list[_Computed]] = field(default_factory=dict)
    ids: set[tuple[Partition, Id]] = field(default_factory=set)
    touched: set[Hashable] = field(default_factory=set)

    def add(self, computed: _Computed) -> None:
        self.answers.append(computed)
        self.rows.setdefault(computed.partition, []).append(computed)
        self.ids.add((computed.partition, computed.id))


class Decides(ABC):
    """What decides the requests of one topic. appending: seconds of the newest call that the log took for its appends;
    the rest was computing."""

    version: Version
    appending: float

    def decide(self, request: Mapping[str, object]) -> DecisionMade:
        """Decide one request, durably.

        request: the topic's fields by name. Raises: SchemaError (HR-0401 to HR-0409) where it does not fit its topic,
        ConflictError HR-0710 where its id is known with another payload, LogError where it could not be made durable;
        then nothing was decided, or (HR-0311) it is not known, and the same request may be sent again.
        """
        (answer,) = self.decide_many([request])
        if isinstance(answer, HeadraceError):
            raise answer
        return answer

    @abstractmethod
    def decide_many(self, requests: Sequence[Mapping[str, object]]) -> list[DecisionMade | HeadraceError]:
        """Decide several requests; an answer each, in order, or the error that `decide` would raise."""


class Decider(Decides):
    """Decides the requests of one topic. Any thread may call `decide` and `decide_many`; they take turns.

    Cost: beside views, model and the disk's sync some 150 us.
    """

    def __init__(
        self,
        log: Log,
        version: Version,
        *,
        features: Features,
        validate: Validate,
        recompute: Recompute,
        clock: Clock,
    ) -> None:
        """validate: of the request's topic (schemas.validate.validator). recompute: for requests that are in the log
        undecided. Declares the record topic, reads the log to its end: what is known, what the views hold."""
        self.version = version
        self._log = log
        self._features = features
        self._validate = validate
        self._recompute = recompute
        self._clock = clock
        self._lock = threading.Lock()
        self.appending = 0.0
        self._topic = version.decision.request
        names = self._topic.schema.names
        assert self._topic.id is not None, "a request topic has an id: decisions/define.py sees to it"
        self._id_place, self._key_place = names.index(self._topic.id), names.index(self._topic.key)
        self._time_place = None if self._topic.event_time is None else names.index(self._topic.event_time)
        self._record_topic = log.declare(records.record_topic(version.decision))
        self._known = KnownRequests(log, self._topic, self._record_topic.topic.name)
        self._simulated = self._topic.clock is TopicClock.SIMULATED
        self._watched = frozenset((*features.topics, self._topic.name, self._record_topic.topic.name))
        self._hash = RequestHash(names)
        self._heads: dict[Partition, tuple[int, str]] = {}  # of the records: next offset, the link before it
        self._ends: dict[Partition, int] = {}
        self._maxima: dict[Partition, int] = {}
        self._asking = Asking(version, features, self._topic)
        self._read_too = self._topic.name in features.topics  # the requests are events that views read
        self._places: dict[int, Partition] = {}  # of the records, by index
        self._touches = features.touches(self._topic)
        self._live: tuple[Partition, ...] = ()
        self._present = PresentCuts(version.views, {})
        self._looked = _NEVER
        with self._lock:
            self._look()

    def decide_many(self, requests: Sequence[Mapping[str, object]]) -> list[DecisionMade | HeadraceError]:
        """Decide several requests as if one by one in this order, with one commit for as many as can share it.

        Returns an answer each, in order, or the error that `decide` would raise.
        """
        answers: list[DecisionMade | HeadraceError | None] = [None] * len(requests)
        waiting: list[tuple[int, Row]] = []
        for place, request in enumerate(requests):
            try:
                waiting.append((place, self._validate(request)))
            except HeadraceError as error:
                answers[place] = error
        overtaken = 0
        with self._lock:
            self.appending = 0.0
            while waiting and overtaken < OVERTAKEN_MAX:
                done = self._turn([row for _, row in waiting])
                overtaken = 0 if done else overtaken + 1
                for (place, _), made in zip(waiting, done, strict=False):
                    answers[place] = made
                waiting = waiting[len(done) :]
        return [self._never_first() if answer is None else answer for answer in answers]

    def _never_first(self) -> LogError:
        return LogError(
            "HR-0714",
            f"decision {self.version.decision.name!r}: other producers came first {OVERTAKEN_MAX} times",
            detail="a decision is computed from all that lies before its request",
            hint="let one process append to the request's partition",
            retryable=True,
        )

    # --- one try ---

    def _turn(self, rows: Sequence[Row]) -> list[DecisionMade | HeadraceError]:
        """Decides the first of the rows, and those behind it that can share its commit, from what is before them now.
        Returns their answers; none where they were overtaken."""
        proven = self._see()
        at = self._clock.now()
        group = _Group()
        for row in rows[:GROUP_MAX]:
            try:
                if not self._join(group, row, at, proven):
                    break
            except HeadraceError as error:
                group.answers.append(error)
        if not group.answers:
            repeated = self._repeated(rows[0], at, proven)
            return [] if repeated is None else [repeated]
        if not group.rows:
            return [answer for answer in group.answers if isinstance(answer, HeadraceError)]
        return self._commit(group, at)

    def _join(self, group: _Group, row: Row, at: Instant, proven: Instant) -> bool:
        """Decide a request as one of a group. False where it must wait for the group's end, or is known already."""
        partition = self._live[partition_of(row[self._key_place], len(self._live))]  # type: ignore[arg-type]  # a key
        id = self._id_of(row)
        before = group.rows.get(partition, ())
        maximum = before[-1].maximum if before else self._maxima[partition]
        if (partition, id) in group.ids or self._request(partition, row, maximum, at) is not None:
            return False
        touched = () if self._touches is None else self._touches(row)
        if group.rows and (self._touches is None or not group.touched.isdisjoint(touched)):
            return False
        t, flags = self._when(maximum, row, at)
        staleness = max(maximum, at) - proven
        offset = self._ends[partition] + len(before)
        answers, points = self._asking.ask(partition, offset, row, t, staleness, self._present, len(before))
        ruling = self.version.decide(row, answers)
        if self._clock.now() - at > self.version.decision.budget.micros:
            flags = (*flags, Flag.OVER_BUDGET)
        record = self._record(partition, offset, id, t, at, answers, points, ruling, flags, self._hash(row))
        record = records.linked(record, str(before[-1].record[-1]) if before else self._head(partition)[1])
        said = made(str(record[0]), id, t, ruling, flags)
        running = max(maximum, t if self._simulated else at)
        group.add(_Computed(partition=partition, id=id, row=row, record=record, made=said, maximum=running))
        group.touched.update(touched)
        return True

    def _commit(self, group: _Group, at: Instant) -> list[DecisionMade | HeadraceError]:
        """Make a group durable: all of it or nothing."""
        appends = []
        for partition, computed in group.rows.items():
            rows, made = tuple([one.row for one in computed]), tuple([one.record for one in computed])
            appends.append(Append(partition=partition, rows=rows, request=True, at=at, begins=self._ends[partition]))
            begins = self._head(partition)[0]
            appends.append(Append(partition=self._records(partition), rows=made, at=at, begins=begins))
        began = time.perf_counter()
        try:
            appended = self._log.append(appends)
        except LogError as error:
            if error.code == _OVERTAKEN:
                self._looked = _NEVER
                return []
            return [answer if isinstance(answer, HeadraceError) else error for answer in group.answers]
        finally:
            self.appending += time.perf_counter() - began
        strange: set[tuple[Partition, Id]] = set()
        for place, computed in enumerate(group.rows.values()):
            strange.update(self._applied(computed, appended[2 * place], appended[2 * place + 1]))
        answers: list[DecisionMade | HeadraceError] = []
        for answer in group.answers:
            if isinstance(answer, _Computed):
                if (answer.partition, answer.id) not in strange:
                    answers.append(answer.made)
                    continue
                # The log knows the id though it was not found: what was just recorded is of a row that counts for
                # nothing. It is asked again, and so is what stands behind it.
                self._known = KnownRequests(self._log, self._topic, self._record_topic.topic.name)
                self._look()
                if self._request(answer.partition, answer.row, self._maxima[answer.partition], at) is None:
                    answers.append(self._unaccountable(answer))
                    continue
                break
            answers.append(answer)
        return answers

    def _unaccountable(self, one: _Computed) -> LogError:
        return LogError(
            "HR-0720",
            f"request {one.id!r} counts for nothing in the log, and no request that it repeats is found",
            detail=f"{one.partition}: it was appended, and marked as a duplicate or set aside",
            hint="headrace doctor checks the log; the request is not decided",
            request=one.id,
        )

    def _repeated(self, row: Row, at: Instant, proven: Instant) -> DecisionMade | HeadraceError | None:
        """The answer to a request that is known; None where another wrote records meanwhile."""
        partition = self._live[partition_of(row[self._key_place], len(self._live))]  # type: ignore[arg-type]  # a key
        known = self._request(partition, row, self._maxima[partition], at)
        assert known is not None, "a row joins an empty group unless it is known"
        try:
            return self._again(partition, known, row, at, proven)
        except HeadraceError as error:
            if error.code != _OVERTAKEN:
                return error
            self._looked = _NEVER
            return None

    def _id_of(self, row: Row) -> Id:
        return row[self._id_place]  # type: ignore[return-value]  # an id is never null, and an int or a text

    def _when(self, maximum: int, row: Row, at: Instant) -> tuple[Instant, tuple[Flag, ...]]:
        """The request's t, by the rule that the log will judge it by (SEMANTICS 2.1). maximum: its partition's running
        one."""
        if self._time_place is None:
            return at, ()
        time = Instant(row[self._time_place])  # type: ignore[arg-type]  # an instant, never null
        appended = self._appended(maximum, row, at)
        if abs(time - appended) <= self._topic.skew.micros:
            return time, ()
        return appended, (Flag.RESTAMPED,)

    def _appended(self, maximum: int, row: Row, at: Instant) -> Instant:
        """The append instant by the topic's clock; the row's available_at is never less than the maximum before it."""
        if not self._simulated or self._time_place is None:
            return at
        return Instant(max(maximum, row[self._time_place]))  # type: ignore[arg-type, type-var]  # an instant, never null

    def _request(self, partition: Partition, row: Row, maximum: int, at: Instant) -> int | None:
        """Where the log has the request, as it will judge it (SEMANTICS 1.3): within `dedup` of when it would come."""
        return self._known.request(partition.index, self._id_of(row), max(maximum, self._appended(maximum, row, at)))

    def _record(
        self,
        partition: Partition,
        offset: int,
        id: Id,
        t: Instant,
        at: Instant,
        answers: Sequence[Answer],
        points: str,
        ruling: Ruling,
        flags: Sequence[Flag],
        request_hash: str,
    ) -> Row:
        return records.make_row(
            decision=self.version.decision.name,
            request_id=str(id),
            request=partition,
            offset=offset,
            t=t,
            decided_at=at,
            versions=self.version.text,
            points=points,
            features=records.features_text(answers),
            ruling=ruling,
            flags=flags,
            request_hash=request_hash,
        )

    # --- a request that is known ---

    def _again(self, partition: Partition, offset: int, row: Row, at: Instant, proven: Instant) -> DecisionMade:
        """The recorded answer; of a request that is in the log undecided, its decision at a fresh cut."""
        logged = row_at(self._log, self._topic, partition, offset)
        if logged.row != row:
            raise conflict(self._topic, partition, logged, row)
        found = self._known.record(partition.index, offset)
        if found is not None:
            place = self._records(partition)
            said = records.from_row(row_at(self._log, self._record_topic.topic, place, found).row, self._topic.name)
            return made_before(said, self._id_of(row))
        points = points_at(self._present.cuts(), max(0, logged.available_at - proven), {})
        beside = self._asking.ask_beside(partition, offset, row, logged.event_time)
        (answers,) = ask_again(self.version, self._recompute, [(partition, logged)], [points], [beside])
        record = retried_record(
            self.version,
            partition,
            logged,
            answers,
            points,
            id=self._id_of(row),
            at=at,
            request_hash=self._hash(logged.row),
        )
        place, (begins, previous) = self._records(partition), self._head(partition)
        row_made = records.linked(records.to_row(record), previous)
        (appended,) = self._log.append([Append(partition=place, rows=(row_made,), at=at, begins=begins)])
        self._known.learn_record(place, offset, appended.offset)
        self._heads[place] = appended.offset + 1, str(row_made[-1])
        return made(record.decision_id, self._id_of(row), record.t, record.ruling, record.flags)

    # --- following the log ---

    def _see(self) -> Instant:
        """Reads what came; the instant at which what was read was last proven to be the log's end."""
        now = self._clock.now()
        due = now - self._looked > LOOK_EVERY.micros or now < self._looked
        if due or self._log.wait(Cut(tuple(self._ends.items())), timeout=ZERO):
            self._look()
        return Instant(self._looked)

    def _look(self) -> None:
        """Read everything to the end as it is now.

        In this order, views before known ids: what comes in between is known, and not yet in the views, so the append
        that is computed from them is refused.
        """
        looked = self._clock.now()
        self._features.catch_up(self._log)
        states = self._log.topics()
        self._known.follow(states)
        read = dict(self._features.frontier)
        held = [h for state in states if state.topic.name in self._watched for h in state.partitions]
        followed = frozenset(self._features.topics)
        self._ends = {}
        for each in held:
            partition = each.partition
            if partition.topic in followed:
                self._ends[partition] = read.get(partition, each.start)
            elif partition.topic == self._topic.name:
                self._ends[partition] = each.end
            if partition.topic == self._record_topic.topic.name and self._head_end(partition) != each.end:
                self._heads[partition] = each.end, self._link_at(each)
        self._maxima = {h.partition: h.available_at for h in held if h.partition.topic == self._topic.name}
        live = [p for p in self._maxima if p.index < IMPORTS_FROM]
        if not live:
            raise NotFoundError("HR-0302", f"no topic {self._topic.name!r} in the log", hint="headrace apply")
        self._live = tuple(sorted(live))
        self._present = PresentCuts(self.version.views, self._ends)
        self._looked = Instant(looked)

    def _applied(self, computed: Sequence[_Computed], requests: Appended, kept: Appended) -> list[tuple[Partition, Id]]:
        """What was appended to a partition is part of the state from now on. Returns what counts for nothing there."""
        partition, records_at, known = requests.partition, kept.partition, self._known
        ingest = self._features.ingest_row if self._read_too else None
        strange: list[tuple[Partition, Id]] = []
        stamps = requests.available_at.tolist()
        judged = zip(computed, stamps, requests.event_times.tolist(), requests.verdicts.tolist(), strict=True)
        for offset, (one, available_at, event_time, verdict) in enumerate(judged, requests.offset):
            if ingest is not None:
                ingest(partition, offset, available_at, event_time, verdict, one.row)
            if verdict in NOT_THE_EVENT:
                strange.append((partition, one.id))
                continue
            known.learn(partition, one.id, offset, available_at)
            assert event_time == one.made.t, "the log judges a request's time by the rule of _when"
        known.learn_records(records_at, requests.offset, kept.offset, len(computed))
        self._heads[records_at] = kept.offset + len(computed), str(computed[-1].record[-1])
        self._ends[partition] = requests.offset + len(computed)
        self._maxima[partition] = stamps[-1]
        self._present.moved(partition)
        return strange

    def _head(self, request: Partition) -> tuple[int, str]:
        """Where the record of the partition's next request goes, and the link before it."""
        place = self._records(request)
        return self._heads.get(place) or (0, genesis(place))

    def _head_end(self, records: Partition) -> int | None:
        return self._heads[records][0] if records in self._heads else None

    def _link_at(self, held: PartitionState) -> str:
        """The link of a partition's newest record."""
        if held.end == held.start:
            return genesis(held.partition)
        newest = row_at(self._log, self._record_topic.topic, held.partition, held.end - 1).row
        return genesis(held.partition) if newest[-1] is None else str(newest[-1])

    def _records(self, request: Partition) -> Partition:
        """The partition of the record topic in which the request's record lies."""
        found = self._places.get(request.index)
        if found is None:
            topic = self._record_topic
            found = self._places[request.index] = Partition(topic.topic.name, topic.incarnation, request.index)
        return found


def made(
    decision_id: str,
    id: Id,
    t: Instant,
    ruling: Ruling,
    flags: tuple[Flag, ...],
    *,
    recorded: DecisionRecord | None = None,
) -> DecisionMade:
    """What the caller is told of a ruling."""
    answer = ruling.answer
    return DecisionMade(
        decision_id=decision_id,
        request_id=id,
        outcome=answer.outcome,
        reasons=answer.reasons,
        score=answer.score,
        t=t,
        flags=flags,
        scores=answer.scores if len(answer.scores) > 1 else (),
        arm=ruling.arm,
        repeated=recorded is not None,
        recorded=recorded,
    )


def made_before(said: DecisionRecord, id: Id) -> DecisionMade:
    """What the caller is told of a request that has a record."""
    return made(said.decision_id, id, said.t, said.ruling, said.flags, recorded=said)
