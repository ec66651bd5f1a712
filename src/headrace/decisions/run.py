"""Deciding: a request in, an outcome out, both durable in one commit. Touches the log through its port.

The one idea: what was read is proven by the append. A decision is computed from all that lies before offset p of its
partition, and request and record are appended on the condition that the request gets p; if other producers came first,
nothing was taken, and it is computed again from what is now before it (SEMANTICS 1.1, 1.7, 5.3).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.core.codec import json_value, partition_of
from headrace.core.errors import ConflictError, LogError, NotFoundError, StateError
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.times import ZERO, Clock, Duration, Instant
from headrace.decisions import record as records
from headrace.decisions.define import Outcome
from headrace.decisions.known import NOT_THE_EVENT, Id, KnownRequests, row_at
from headrace.decisions.plan import Answer, Decided, Version
from headrace.decisions.record import DecisionRecord, Flag, ViewPoint
from headrace.log.define import Clock as TopicClock
from headrace.log.define import Topic
from headrace.log.port import Append, Appended, Log, Physical

Row = tuple[Physical, ...]
Validate = Callable[[Mapping[str, object]], Row]
AskAt = Callable[[int, Row, int], tuple[Answer, ...]]  # offset, row, t

OVERTAKEN_MAX = 64  # times that other producers may come first before the caller is told
LOOK_EVERY = Duration.parse("50ms")  # between two looks for new partitions, which cost more than one for new rows
_TOO_OLD = "HR-0541"
_OVERTAKEN = "HR-0330"
_NEVER = Instant(-(2**63))


class Features(Protocol):
    """The online state of the views that a decision reads, as far as the log was read; one thread at a time."""

    @property
    def topics(self) -> tuple[str, ...]: ...

    @property
    def frontier(self) -> Cut: ...

    def catch_up(self, log: Log) -> int: ...

    def ingest_row(
        self, partition: Partition, offset: int, available_at: int, event_time: int, verdict: int, row: Row
    ) -> None: ...

    def asker(self, views: Sequence[str], request: Topic, partition: Partition) -> AskAt: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request whose features are asked again, at a cut a view; None: the view is not asked."""

    request: Partition
    offset: int
    row: Row
    t: Instant
    cuts: tuple[Cut | None, ...]


class Recompute(Protocol):
    """Features from the log alone: for each question the views' answers in order, None where a cut is None."""

    def __call__(self, views: Sequence[str], questions: Sequence[Question]) -> Sequence[tuple[Answer | None, ...]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionMade:
    """What the caller is told. repeated: the request was known, this is its recorded answer."""

    decision_id: str
    request_id: Id
    outcome: Outcome
    reasons: tuple[str, ...]
    score: float | None
    t: Instant
    flags: tuple[Flag, ...]
    repeated: bool = False


class Decider:
    """Decides the requests of one topic. Any thread may call `decide`; they take turns.

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
        self._topic = version.decision.request
        names = self._topic.schema.names
        assert self._topic.id is not None, "a request topic has an id: decisions/define.py sees to it"
        self._id_place, self._key_place = names.index(self._topic.id), names.index(self._topic.key)
        self._time_place = None if self._topic.event_time is None else names.index(self._topic.event_time)
        self._record_topic = log.declare(records.record_topic(version.decision))
        self._known = KnownRequests(log, self._topic, self._record_topic.topic.name)
        self._views = tuple(view.name for view in version.views)
        self._watched = frozenset((*features.topics, self._topic.name, self._record_topic.topic.name))
        self._ends: dict[Partition, int] = {}
        self._maxima: dict[Partition, int] = {}
        self._askers: dict[Partition, AskAt] = {}
        self._live: tuple[Partition, ...] = ()
        self._prefixes: tuple[tuple[tuple[Partition, str], ...], ...] = ()
        self._looked = _NEVER
        with self._lock:
            self._look()

    def decide(self, request: Mapping[str, object]) -> DecisionMade:
        """Decide one request, durably.

        request: the topic's fields by name. Raises: SchemaError (HR-0401 to HR-0409) where it does not fit its topic,
        ConflictError HR-0710 where its id is known with another payload, LogError where it could not be made durable;
        then nothing was decided, or (HR-0311) it is not known, and the same request may be sent again.
        """
        row = self._validate(request)
        with self._lock:
            for _ in range(OVERTAKEN_MAX):
                made = self._turn(row)
                if made is not None:
                    return made
        raise LogError(
            "HR-0714",
            f"decision {self.version.decision.name!r}: other producers came first {OVERTAKEN_MAX} times",
            detail="a decision is computed from all that lies before its request",
            hint="let one process append to the request's partition",
            retryable=True,
        )

    # --- one try ---

    def _turn(self, row: Row) -> DecisionMade | None:
        """Decides from what is before the request now; None where it was overtaken."""
        proven = self._see()
        partition = self._live[partition_of(row[self._key_place], len(self._live))]  # type: ignore[arg-type]  # a key
        at = self._clock.now()
        id = self._id_of(row)
        maximum = max(self._maxima[partition], at)
        known = self._known.request(partition.index, id, maximum)
        if known is not None:
            return self._again(partition, known, row, at, proven)
        offset = self._ends[partition]
        t, flags = self._when(partition, row, at)
        answers, points = self._ask(partition, offset, row, t, maximum - proven)
        score, decided = self.version.decide(row, answers)
        if self._clock.now() - at > self.version.decision.budget.micros:
            flags = (*flags, Flag.OVER_BUDGET)
        made = self._record(partition, offset, id, t, at, answers, points, score, decided, flags)
        appends = (
            Append(partition=partition, rows=(row,), request=True, at=at, begins=offset),
            Append(partition=self._records(partition), rows=(made,)),
        )
        try:
            request, record = self._log.append(appends)
        except LogError as error:
            if error.code == _OVERTAKEN:
                self._looked = _NEVER
                return None
            raise
        self._applied(partition, id, row, request, record)
        if int(request.verdicts[0]) in NOT_THE_EVENT:
            # The log knows the id though it was not found: what was just recorded is of a row that counts for nothing.
            self._known = KnownRequests(self._log, self._topic, self._record_topic.topic.name)
            self._look()
            return None
        assert int(request.event_times[0]) == t, "the log judges a request's time by the rule of _when"
        return DecisionMade(
            decision_id=str(made[0]),
            request_id=id,
            outcome=decided.outcome,
            reasons=decided.reasons,
            score=score,
            t=t,
            flags=flags,
        )

    def _id_of(self, row: Row) -> Id:
        return row[self._id_place]  # type: ignore[return-value]  # an id is never null, and an int or a text

    def _when(self, partition: Partition, row: Row, at: Instant) -> tuple[Instant, tuple[Flag, ...]]:
        """The request's t, by the rule that the log will judge it by (SEMANTICS 2.1)."""
        if self._time_place is None:
            return at, ()
        time = Instant(row[self._time_place])  # type: ignore[arg-type]  # an instant, never null
        simulated = self._topic.clock is TopicClock.SIMULATED
        appended = Instant(max(self._maxima[partition], time)) if simulated else at
        if abs(time - appended) <= self._topic.skew.micros:
            return time, ()
        return appended, (Flag.RESTAMPED,)

    def _ask(
        self, partition: Partition, offset: int, row: Row, t: Instant, staleness: int
    ) -> tuple[tuple[Answer, ...], str]:
        """The views' answers, and their points as a record keeps them."""
        asker = self._askers.get(partition)
        if asker is None:
            asker = self._askers[partition] = self._features.asker(self._views, self._topic, partition)
        absent: dict[int, str] = {}
        try:
            answers = asker(offset, row, t)
        except StateError as error:
            if error.code != _TOO_OLD:
                raise
            answers, absent = self._ask_each(partition, offset, row, t)
        for place, view in enumerate(self.version.views):
            if view.max_staleness is not None and staleness > view.max_staleness.micros:
                absent[place] = "stale"
        if absent:
            answers = tuple(self.version.absent(i) if i in absent else one for i, one in enumerate(answers))
        return answers, self._points(staleness, absent)

    def _ask_each(
        self, partition: Partition, offset: int, row: Row, t: Instant
    ) -> tuple[tuple[Answer, ...], dict[int, str]]:
        """View by view, where one of them no longer holds what a read at t would see."""
        answers: list[Answer] = []
        absent: dict[int, str] = {}
        for place, view in enumerate(self._views):
            try:
                answers += self._features.asker((view,), self._topic, partition)(offset, row, t)
            except StateError as error:
                if error.code != _TOO_OLD:
                    raise
                answers.append(self.version.absent(place))
                absent[place] = "too_old"
        return tuple(answers), absent

    def _points(self, staleness: int, absent: Mapping[int, str]) -> str:
        """`record.points_text` of the present cut, from texts that are kept: 5 us less a view."""
        ends = self._ends
        parts = []
        for place, prefixes in enumerate(self._prefixes):
            cut = ",".join([f"{prefix}{ends[partition]}]" for partition, prefix in prefixes])
            why = f'"{absent[place]}"' if place in absent else "null"
            parts.append(f"[[{cut}],{staleness},{why}]")
        return f"[{','.join(parts)}]"

    def _record(
        self,
        partition: Partition,
        offset: int,
        id: Id,
        t: Instant,
        at: Instant,
        answers: Sequence[Answer],
        points: str,
        score: float | None,
        decided: Decided,
        flags: Sequence[Flag],
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
            score=score,
            outcome=decided.outcome,
            rule=decided.rule,
            reasons=decided.reasons,
            flags=flags,
        )

    # --- a request that is known ---

    def _again(self, partition: Partition, offset: int, row: Row, at: Instant, proven: Instant) -> DecisionMade:
        """The recorded answer; of a request that is in the log undecided, its decision at a fresh cut."""
        logged = row_at(self._log, self._topic, partition, offset)
        if logged.row != row:
            raise self._conflict(partition, offset, logged.row, row)
        found = self._known.record(partition.index, offset)
        if found is not None:
            place = self._records(partition)
            said = records.from_row(row_at(self._log, self._record_topic.topic, place, found).row, self._topic.name)
            return _made(said, self._id_of(row), repeated=True)
        staleness = max(0, logged.available_at - proven)
        cuts = [Cut.of({p: self._ends[p] for p, _ in prefixes}) for prefixes in self._prefixes]
        question = Question(request=partition, offset=offset, row=row, t=logged.event_time, cuts=tuple(cuts))
        answers: list[Answer] = []
        for place_of_view, answer in enumerate(self._recompute(self._views, [question])[0]):
            answers.append(self.version.absent(place_of_view) if answer is None else answer)
        score, decided = self.version.decide(row, answers)
        record = DecisionRecord(
            decision=self.version.decision.name,
            request_id=str(row[self._id_place]),
            request=partition,
            offset=offset,
            t=logged.event_time,
            decided_at=at,
            versions=self.version.text,
            points=tuple(ViewPoint(cut=cut, staleness=Duration(staleness)) for cut in cuts),
            answers=tuple(answers),
            score=score,
            outcome=decided.outcome,
            rule=decided.rule,
            reasons=decided.reasons,
            flags=(Flag.RETRIED,),
        )
        place = self._records(partition)
        (appended,) = self._log.append([Append(partition=place, rows=(records.to_row(record),))])
        self._known.learn_record(place, offset, appended.offset)
        return _made(record, self._id_of(row))

    def _conflict(self, partition: Partition, offset: int, before: Row, now: Row) -> ConflictError:
        fields = self._topic.schema.fields
        name, type, was, is_now = next(
            (f.name, f.type, a, b) for f, a, b in zip(fields, before, now, strict=True) if a != b
        )
        return ConflictError(
            "HR-0710",
            f"request {now[self._id_place]!r} is known with another payload",
            detail=f"field {name!r}: it was {json_value(was, type)!r}, now {json_value(is_now, type)!r}",
            hint="a new request needs a new id; a second try sends what the first one sent",
            field=name,
            partition=str(partition),
            offset=offset,
        )

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
        self._maxima = {h.partition: h.available_at for h in held if h.partition.topic == self._topic.name}
        live = [p for p in self._maxima if p.index < IMPORTS_FROM]
        if not live:
            raise NotFoundError("HR-0302", f"no topic {self._topic.name!r} in the log", hint="headrace apply")
        self._live = tuple(sorted(live))
        self._prefixes = tuple(
            tuple((p, f'["{p.topic}",{p.incarnation},{p.index},') for p in self._ends if p.topic in view.topics)
            for view in self.version.views
        )
        self._looked = Instant(looked)

    def _applied(self, partition: Partition, id: Id, row: Row, request: Appended, record: Appended) -> None:
        """What was appended is part of the state from now on."""
        available_at, event_time = int(request.available_at[0]), int(request.event_times[0])
        if self._topic.name in self._features.topics:
            self._features.ingest_row(
                partition, request.offset, available_at, event_time, int(request.verdicts[0]), row
            )
        self._known.learn(partition, id, request.offset, available_at)
        self._known.learn_record(record.partition, request.offset, record.offset)
        self._ends[partition] = request.offset + 1
        self._maxima[partition] = available_at

    def _records(self, request: Partition) -> Partition:
        """The partition of the record topic in which the request's record lies."""
        return Partition(self._record_topic.topic.name, self._record_topic.incarnation, request.index)


def _made(record: DecisionRecord, id: Id, *, repeated: bool = False) -> DecisionMade:
    return DecisionMade(
        decision_id=record.decision_id,
        request_id=id,
        outcome=record.outcome,
        reasons=record.reasons,
        score=record.score,
        t=record.t,
        flags=record.flags,
        repeated=repeated,
    )
