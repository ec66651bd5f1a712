"""Deciding the partitions of a log that other processes write too. Touches the log through its port.

The one idea: order in the log takes the place of a lock (docs/KAFKA.md K1). An owner claims a partition in its record
topic; each request is appended first and decided at the offset that it got; its record counts iff it lies behind the
owner's claim and before any later one, and only then is it answered. Whoever sleeps through a takeover wakes up to
records that are void.

Requests that wait together are appended together and decided in the order of their offsets, each with everything below
it applied; their records are one append, too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from headrace.core.codec import partition_of
from headrace.core.errors import FencedError, HeadraceError, LogError, NotFoundError, NotOwnerError, SchemaError
from headrace.core.points import Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.decisions import record as records
from headrace.decisions.asking import ask_again, points_at, retried_record
from headrace.decisions.chain import RequestHash
from headrace.decisions.claims import RequestPlace, Standing
from headrace.decisions.held import NONE_HELD, STALE_OWNER, HeldPoint, HeldRequest, HeldViews
from headrace.decisions.known import NOT_THE_EVENT, Id, conflict, row_at
from headrace.decisions.owned import Asked, Computed, Owned, read_records
from headrace.decisions.plan import Version
from headrace.decisions.port import Features, Recompute, RemoteViews, Row, Validate
from headrace.decisions.record import Flag
from headrace.decisions.run import Decides, DecisionMade, made, made_before
from headrace.decisions.standby import Standby
from headrace.decisions.standing import StandingViews
from headrace.log.port import Append, Appended, Log, Verdict

GROUP_MAX = 64  # requests in one append: bounds how long the first waits for the last to be computed
CLAIMS_MAX = 3  # claims in a row whose outcome is not known, and turns in a row that decide nothing, before it is told
# For requests that are durable to be readable, where the budget is shorter: as long others' requests wait, too.
PATIENCE_MIN = Duration.parse("2s")
_UNKNOWN = "HR-0311"
_UNREAD = "HR-0349"  # durable, and not read in time: as where another's open transaction lies before it


class OwnedDecider(Decides):
    """Decides the requests of one topic, of the partitions that it owns. Any thread may call; calls take turns. What a
    claim has to read of the past it reads before its turn.

    Cost: beside views, model and the log's two appends some 200 us.
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
        name: str,
        remote: RemoteViews | None = None,
    ) -> None:
        """validate, recompute: as of `Decider`. name: what claims say of who made them: an address that others can send
        requests to, or any text. remote: where the version has views that are held by partition. Declares the record
        topic; owns nothing yet."""
        self.version = version
        self.name = name
        self.appending = 0.0
        self.claims_made = self.claims_lost = 0
        self._log = log
        self._validate = validate
        self._recompute = recompute
        self._clock = clock
        self._lock = threading.Lock()
        self._topic = version.decision.request
        names = self._topic.schema.names
        assert self._topic.id is not None, "a request topic has an id: decisions/define.py sees to it"
        self._id_place, self._key_place = names.index(self._topic.id), names.index(self._topic.key)
        self._record_topic = log.declare(records.record_topic(version.decision))
        self._hash = RequestHash(names)
        self._owned: dict[int, Owned] = {}
        self._views = StandingViews(log, version, features, clock)
        self._patience = Duration(max(version.decision.budget.micros, PATIENCE_MIN.micros))
        self._held = HeldViews(version, remote)
        self._standby = Standby(log, self._topic, self._record_topic)
        with self._lock:
            self._views.look()

    # --- who owns ---

    @property
    def owned(self) -> frozenset[int]:
        return frozenset(self._owned)

    @property
    def epochs(self) -> Mapping[int, int]:
        """Of each partition that is owned, the offset of its claim."""
        return {index: one.epoch for index, one in list(self._owned.items())}

    @property
    def voids(self) -> Mapping[int, int]:
        """Of each partition that is owned, how many of its records are void, by whomever."""
        return {index: one.fold.voids for index, one in list(self._owned.items())}

    def owner_of(self, index: int) -> str | None:
        """Who decides a partition, by the last claim that was read; None where nobody is known, or it was this process
        and is not any more. Reads nothing: `stand_by` does."""
        if index in self._owned:
            return self.name
        claimant = self._standby.claimant(index)
        return None if claimant == self.name else claimant

    def index_of(self, request: Mapping[str, object]) -> int | None:
        """The partition of a request; None where it does not fit its topic, which `decide_many` says. Any thread."""
        try:
            row = self._validate(request)
        except SchemaError:
            return None
        return partition_of(row[self._key_place], len(self._views.live))  # type: ignore[arg-type]  # a key

    def claim(self, index: int) -> int:
        """Take over a partition of the requests; the epoch. One that is owned already is claimed anew.

        Reads its records and its requests as far as that was not done before (`stand_by`), and all views to their ends.
        Raises: LogError, and then the partition is not owned; NotFoundError HR-0302 for one that is not there.
        """
        if index not in self._owned:
            self._standby.read([index])
            self._log.topics()  # a broker that does not answer keeps only this one waiting
        with self._lock:
            return self._claim(index)

    def stand_by(self) -> None:
        """Read on in the views, and in all partitions that are not owned, so that one of them can be claimed soon, and
        who claimed it is known; ask the log for its ends, so that no decision does. Called again and again by a thread
        of its own. Raises: LogError."""
        self._standby.read([each.index for each in self._views.live if each.index not in self._owned])
        self._views.prove()
        with self._lock:
            self._views.see()

    def release(self, index: int) -> None:
        """Decide nothing of a partition any more. Nothing is written: the next owner's claim says enough."""
        with self._lock:
            owned = self._owned.pop(index, None)
            if owned is not None:
                self._standby.keep(index, owned)

    def notice(self) -> None:
        """Decide nothing any more of what another claimed. Called now and then, as nobody else reads the records of a
        partition that gets no requests: who holds it for its own keeps all waiting that know better. Raises:
        LogError."""
        with self._lock:
            self._standby.fold(self._owned)
            for index in [index for index, owned in self._owned.items() if owned.lost]:
                self._drop(index)

    # --- deciding ---

    def decide_many(self, requests: Sequence[Mapping[str, object]]) -> list[DecisionMade | HeadraceError]:
        """Decide several requests, each partition's as if one by one in this order.

        Returns an answer each, in order, or the error that `decide` would raise; also, retryable, and then the same
        request may be sent again: NotOwnerError HR-0722 where another owns its partition, LogError HR-0723 while
        another's open transaction lies before it.
        """
        answers: list[DecisionMade | HeadraceError | None] = [None] * len(requests)
        asked: list[tuple[int, Asked]] = []
        with self._lock:
            self.appending = 0.0
            for place, request in enumerate(requests):
                try:
                    asked.append((place, self._asked(self._validate(request))))
                except HeadraceError as error:
                    answers[place] = error
            waiting, stuck = self._answerable([one for _, one in asked]), 0
            while waiting and stuck < CLAIMS_MAX:
                self._turn(waiting[:GROUP_MAX])
                left = [one for one in waiting if one.answer is None]
                stuck = stuck + 1 if len(left) == len(waiting) else 0
                waiting = left
        for place, one in asked:
            answers[place] = one.error if one.answer is None else one.answer
        return [self._undecided() if answer is None else answer for answer in answers]

    def _answerable(self, asked: Sequence[Asked]) -> list[Asked]:
        """Those that can be decided at all; the others have their answer: all where this process may not judge, else
        those of partitions that are not read on."""
        unfit, halted = self._log.unfit(), self._log.halted()
        if unfit is None and not halted:
            return list(asked)
        for one in asked:
            records = self._records(one.partition.index)
            one.answer = unfit or halted.get(one.partition) or halted.get(records)
        return [one for one in asked if one.answer is None]

    def _records(self, index: int) -> Partition:
        return Partition(self._record_topic.topic.name, self._record_topic.incarnation, index)

    def _asked(self, row: Row) -> Asked:
        live = self._views.live
        partition = live[partition_of(row[self._key_place], len(live))]  # type: ignore[arg-type]  # a key
        return Asked(row=row, id=row[self._id_place], partition=partition)  # type: ignore[arg-type]  # an id is never null

    # --- one turn ---

    def _turn(self, waiting: Sequence[Asked]) -> None:
        """Gives each request its answer, or leaves it for the next turn: one whose id another of the same turn has, and
        all of a partition that had to be claimed again."""
        self._views.see()
        at = self._clock.now()
        new: list[Asked] = []
        again: list[Asked] = []
        ids: set[tuple[Partition, Id]] = set()
        for one in waiting:
            owned = self._owned.get(one.partition.index)
            if owned is None:
                one.answer = self.not_owned(one.partition.index)
                continue
            if (one.partition, one.id) in ids:
                continue
            ids.add((one.partition, one.id))
            one.offset = owned.known.request(one.partition.index, one.id, max(owned.maximum, at))
            (new if one.offset is None else again).append(one)
        again += self._append_requests(new)
        computed = self._decide_first([one for one in new if one.first])
        computed += self._decide_again(again)
        self._append_records(computed)

    def _append_requests(self, new: Sequence[Asked]) -> list[Asked]:
        """Append requests that are not known; returns those that the log knows all the same (K1.4)."""
        by: dict[int, list[Asked]] = {}
        for one in new:
            by.setdefault(one.partition.index, []).append(one)
        appends = [
            Append(partition=of[0].partition, rows=tuple([one.row for one in of]), request=True) for of in by.values()
        ]
        appended = self._append(appends, new, patience=self._patience)
        if appended is None:
            return []
        known: list[Asked] = []
        for (index, of), done in zip(by.items(), appended, strict=True):
            owned = self._owned[index]
            self._learn(owned, of, done)
            stamps, times, verdicts = done.available_at.tolist(), done.event_times.tolist(), done.verdicts.tolist()
            owned.maximum = max(owned.maximum, stamps[-1])
            rows = zip(of, done.offsets.tolist(), stamps, times, verdicts, strict=True)
            for one, offset, one.available_at, time_, one.verdict in rows:
                one.t, one.offset = Instant(time_), offset
                one.first = one.verdict not in NOT_THE_EVENT
                if not one.first:
                    known += self._known(owned, one)
        return known

    def _learn(self, owned: Owned, of: Sequence[Asked], done: Appended) -> None:
        """Know the ids up to the newest offset: of what came between, too."""
        offsets, known, partition = done.offsets.tolist(), owned.known, done.partition
        if known.next(partition) == offsets[0] and offsets[-1] - offsets[0] == len(offsets) - 1:
            rows = zip(of, offsets, done.available_at.tolist(), done.verdicts.tolist(), strict=True)
            for one, offset, available_at, verdict in rows:
                if verdict not in NOT_THE_EVENT:
                    known.learn(partition, one.id, offset, available_at)
        known.read_to(partition, offsets[-1] + 1)

    def _known(self, owned: Owned, one: Asked) -> list[Asked]:
        """A request that repeats an earlier one, with the offset of that one; none where it counts for nothing."""
        place = owned.known.place(one.partition.index, one.id)
        if place is None or one.verdict not in (Verdict.DUPLICATE, Verdict.CONFLICT):
            one.answer = LogError(
                "HR-0720",
                f"request {one.id!r} counts for nothing in the log, and no request that it repeats is found",
                detail=f"{one.partition}: it was appended, and marked as a duplicate or set aside",
                hint="headrace doctor checks the log; the request is not decided",
                request=one.id,
            )
            return []
        one.offset = place
        return [one]

    # --- deciding what is in the log ---

    def _decide_first(self, asked: Sequence[Asked]) -> list[Computed]:
        """Decide requests that were just appended, each at its offset: what is below it is applied, what is not is not,
        in its own partition; elsewhere the present cut, but never beyond a request that still waits."""
        waiting: dict[Partition, deque[tuple[Asked, Mapping[int, HeldPoint]]]] = {}
        for one, held in zip(asked, self._ask_held(asked), strict=True):
            waiting.setdefault(one.partition, deque()).append((one, held))
        computed: list[Computed] = []
        moved = True
        while waiting:
            self._views.stand({partition: _offset(queue[0][0]) for partition, queue in waiting.items()}, moved=moved)
            moved = False
            for partition in list(waiting):
                one, held = waiting[partition].popleft()
                if not waiting[partition]:
                    del waiting[partition]
                try:
                    computed.append(self._compute(one, held))
                except HeadraceError as error:
                    one.answer = error
                self._views.pass_by(
                    one.partition, _offset(one), one.row, t=one.t, available_at=one.available_at, verdict=one.verdict
                )
        return computed

    def _ask_held(self, asked: Sequence[Asked]) -> Sequence[Mapping[int, HeldPoint]]:
        """What views that are held by partition say of requests that are in the log, for all of them at once."""
        if not self._held.places:
            return [NONE_HELD] * len(asked)
        requests = [
            HeldRequest(
                partition=one.partition,
                offset=_offset(one),
                row=one.row,
                t=one.t if one.logged is None else one.logged.event_time,
                available_at=one.available_at if one.logged is None else one.logged.available_at,
                floors=self._owned[one.partition.index].fold.floors,
            )
            for one in asked
        ]
        return self._held.ask(requests)

    def _compute(self, one: Asked, held: Mapping[int, HeldPoint]) -> Computed:
        owned, at, offset = self._owned[one.partition.index], self._clock.now(), _offset(one)
        behind = owned.views_behind(self._views.ends, self.version.views)
        answers, points = self._views.ask(one.partition, offset, one.row, one.t, one.available_at, behind, held)
        ruling = self.version.decide(one.row, answers)
        flags = (Flag.RESTAMPED,) if one.verdict == Verdict.RESTAMPED else ()
        if self._clock.now() - at > self.version.decision.budget.micros:
            flags = (*flags, Flag.OVER_BUDGET)
        row = records.make_row(
            decision=self.version.decision.name,
            request_id=str(one.id),
            request=one.partition,
            offset=offset,
            t=one.t,
            decided_at=at,
            versions=self.version.text,
            points=points,
            features=records.features_text(answers),
            ruling=ruling,
            flags=flags,
            request_hash=self._hash(one.row),
            epoch=owned.epoch,
        )
        return Computed(asked=one, row=row, made=made(str(row[0]), one.id, one.t, ruling, flags))

    def _decide_again(self, asked: Sequence[Asked]) -> list[Computed]:
        """The recorded answers of requests that are known; what is undecided is decided at a fresh cut."""
        left: list[Asked] = []
        for one in asked:
            owned = self._owned.get(one.partition.index)
            if owned is None:  # lost while the others were appended
                one.answer = self.not_owned(one.partition.index)
                continue
            try:
                if not self._recorded(owned, one):
                    left.append(one)
            except HeadraceError as error:
                one.answer = error
        if not left:
            return []
        try:
            return self._decide_left(left)
        except HeadraceError as error:
            for one in left:
                one.answer = error
            return []

    def _recorded(self, owned: Owned, one: Asked) -> bool:
        """Whether a request that is known has a valid record: then that is its answer."""
        logged = row_at(self._log, self._topic, one.partition, _offset(one))
        if logged.row != one.row:
            raise conflict(self._topic, one.partition, logged, one.row)
        one.logged = logged
        found = owned.fold.record(_place(one))
        if found is None:
            return False
        row = row_at(self._log, self._record_topic.topic, owned.records, found).row
        said = records.from_row(row, self._topic.name)
        one.answer = made_before(said, one.id)
        return True

    def _decide_left(self, left: Sequence[Asked]) -> list[Computed]:
        self._views.stand({}, moved=True)  # nobody is asked: a broker that is silent would keep the others waiting
        at, cuts = self._clock.now(), self._views.cuts()
        owned = [self._owned[one.partition.index] for one in left]
        absent = [dict.fromkeys(each.views_behind(self._views.ends, self.version.views), STALE_OWNER) for each in owned]
        there = [(one.partition, one.logged) for one in left if one.logged is not None]
        points = [
            points_at(cuts, max(0, logged.available_at - self._views.looked), without, held)
            for (_, logged), without, held in zip(there, absent, self._ask_held(left), strict=True)
        ]
        beside = [self._views.ask_beside(where, each.offset, each.row, each.event_time) for where, each in there]
        found = ask_again(self.version, self._recompute, there, points, beside)
        computed = []
        for one, each, (_, logged), answers, said in zip(left, owned, there, found, points, strict=True):
            record = retried_record(
                self.version,
                one.partition,
                logged,
                answers,
                said,
                id=one.id,
                at=at,
                request_hash=self._hash(one.row),
                epoch=each.epoch,
            )
            told = made(record.decision_id, one.id, record.t, record.ruling, record.flags)
            computed.append(Computed(asked=one, row=records.to_row(record), made=told))
        return computed

    # --- making it count ---

    def _append_records(self, computed: Sequence[Computed]) -> None:
        by: dict[int, list[Computed]] = {}
        for each in computed:
            by.setdefault(each.asked.partition.index, []).append(each)
        appends = []
        for index, of in by.items():
            owned = self._owned[index]
            previous = owned.fold.head
            for each in of:
                each.row = records.linked(each.row, previous)
                previous = str(each.row[records.CHAIN])
            appends.append(Append(partition=owned.records, rows=tuple([each.row for each in of])))
        appended = self._append(appends, [each.asked for each in computed])
        for (index, of), done in zip(by.items(), appended or (), strict=appended is not None):
            try:
                self._settle(index, of, done)
            except LogError as error:  # they are durable, and it is not known whether they count
                self._claim_again([index], error, [each.asked for each in of])

    def _settle(self, index: int, of: Sequence[Computed], done: Appended) -> None:
        """Answer what counts, by what lies in the log up to it (K1.6)."""
        owned = self._owned[index]
        standings = read_records(self._log, owned, done.offsets.tolist(), [each.row for each in of])
        if owned.lost:
            self._drop(index)
        for each, standing in zip(of, standings, strict=True):
            if standing is Standing.VALID:
                each.asked.answer = each.made
            elif owned.lost:
                each.asked.answer = self.not_owned(index)
            else:
                self._recorded(owned, each.asked)

    def _append(
        self, appends: Sequence[Append], asked: Sequence[Asked], *, patience: Duration | None = None
    ) -> tuple[Appended, ...] | None:
        """Append for these requests, row by row. None where that failed: then each has its answer, or its partition was
        claimed anew, and it waits for the next turn (K1.7)."""
        if not appends:
            return ()
        began = time.perf_counter()
        try:
            return self._log.append(appends, atomic=False, patience=patience)
        except LogError as error:
            self._failed(error, appends, asked)
            return None
        finally:
            self.appending += time.perf_counter() - began

    def _failed(self, error: LogError, appends: Sequence[Append], asked: Sequence[Asked]) -> None:
        partitions = [append.partition for append in appends]
        unread = error.code == _UNREAD and partitions[0].topic == self._record_topic.topic.name
        if error.code == _UNKNOWN or unread:
            return self._claim_again([partition.index for partition in partitions], error, asked)
        if isinstance(error, FencedError):
            for partition in partitions:
                self._drop(partition.index)
        for one in asked:
            one.answer = self._told(error, one)
        return None

    def _claim_again(self, indices: Sequence[int], error: LogError, asked: Sequence[Asked]) -> None:
        """What was sent to these partitions may be there, or come yet: what was sent under the old claim counts for
        nothing from now on, and what came before the new one is read."""
        for index in indices:
            of = [one for one in asked if one.partition.index == index and one.answer is None]
            for one in of:
                one.error = self._told(error, one)
            try:
                self._claim(index)
            except HeadraceError as failed:
                for one in of:
                    one.answer = self._told(failed, one)

    def _told(self, error: HeadraceError, one: Asked) -> HeadraceError:
        """What the caller is told of an error of the log."""
        if isinstance(error, FencedError):
            return self.not_owned(one.partition.index)
        return _open_transaction(one.partition) if error.code == _UNREAD else error

    # --- claiming ---

    def _claim(self, index: int) -> int:
        owned = self._owned.pop(index, None) or self._standby.take(index)
        try:
            return self._claimed(index, owned)
        except HeadraceError:
            self._standby.keep(index, owned)
            raise

    def _claimed(self, index: int, owned: Owned) -> int:
        request = next((p for p in self._views.live if p.index == index), None)
        if request is None:
            request = next((p for p in self._views.look() if p.index == index), None)
        if request is None:
            raise NotFoundError("HR-0302", f"no partition {index} of topic {self._topic.name!r} in the log")
        if (unfit := self._log.unfit()) is not None:
            raise unfit
        owned.epoch = epoch = self._append_claim(request, owned.records)
        read_records(self._log, owned, [epoch], ())
        held = self._views.look()[request]
        owned.known.begin(held)
        owned.known.read_to(request, held.end)
        owned.maximum = held.available_at
        owned.claimed()
        self._owned[index] = owned
        return epoch

    def _append_claim(self, request: Partition, place: Partition) -> int:
        """The offset of a claim that is in the log. One whose outcome is not known is made again: the last counts."""
        name = self.version.decision.name
        for left in reversed(range(CLAIMS_MAX)):
            row = records.claim_row(name, request, owner=self.name, at=self._clock.now())
            try:
                (appended,) = self._log.append([Append(partition=place, rows=(row,))], atomic=False)
            except LogError as error:
                if error.code == _UNREAD:
                    raise _open_transaction(place) from error
                if error.code != _UNKNOWN or not left:
                    raise
            else:
                self.claims_made += 1
                return appended.offset
        raise AssertionError("the last attempt returns or raises")

    def _drop(self, index: int) -> None:
        owned = self._owned.pop(index, None)
        if owned is not None:
            self._standby.keep(index, owned)
            self.claims_lost += 1

    def not_owned(self, index: int) -> NotOwnerError:
        """What who asks for a partition is told that another owns, or nobody."""
        owner = self.owner_of(index)
        return NotOwnerError(
            "HR-0722",
            f"decision {self.version.decision.name!r}: partition {index} of its requests is not owned here",
            detail="its owner is not known" if owner is None else f"its owner is {owner}",
            hint="send the request to the owner, or again in a moment, with the same id",
            retryable=True,
            partition=index,
            owner=owner,
        )

    def _undecided(self) -> LogError:
        return LogError(
            "HR-0724",
            f"decision {self.version.decision.name!r}: no answer after {CLAIMS_MAX} attempts",
            detail="the request may be in the log; it is not decided",
            hint="send it again, with the same id",
            retryable=True,
        )


def _offset(one: Asked) -> int:
    assert one.offset is not None, "it was appended, or found in the log"
    return one.offset


def _place(one: Asked) -> RequestPlace:
    return RequestPlace(one.partition.incarnation, one.partition.index, _offset(one))


def _open_transaction(partition: Partition) -> LogError:
    return LogError(
        "HR-0723",
        f"{partition}: what was appended could not be read back in time",
        detail="another's open transaction lies before it, or the partition's broker is silent; it is durable",
        hint="send the request again, with the same id: it is decided once the partition can be read",
        retryable=True,
        partition=partition.index,
    )
