"""Owners of a shared log: whatever comes between two of their steps, an answer is the one valid record of its
request."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from headrace.core.errors import ConflictError, HaltedError, HeadraceError, LogError, NotOwnerError
from headrace.core.points import Cut, Partition
from headrace.decisions.define import Outcome
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.record import Flag
from headrace.decisions.run import DecisionMade
from headrace.features.run import FeatureState
from headrace.log.port import Append, Log
from headrace.models.artifact import Artifact
from headrace.testing.clocks import ManualClock
from tests.needs import requires
from tests.unit.decisions.shared import RECORDS, ProcessGoneError, Shared, crash, lost_reply
from tests.unit.decisions.shop import Shop

requires("xgboost")


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Shop().artifact()


@pytest.fixture(params=[1, 1 << 16], ids=["plain", "positions"])
def shared(request: pytest.FixtureRequest, artifact: Artifact) -> Shared:
    return Shared(artifact, stride=request.param)


def decide_some(shared: Shared, owner: OwnedDecider, count: int, first: int = 0) -> list[DecisionMade]:
    made = []
    for number in range(first, first + count):
        made.append(owner.decide(shared.order(number)))
        if number % 4 == 3:
            shared.produce(shared.shop.returns, {"order": f"o-{number - 2}"})
        if number % 5 == 1:
            shared.produce(shared.shop.orders, shared.order(10_000 + number))
    return made


def holds(shared: Shared, *answers: DecisionMade) -> None:
    """The answers are the valid records, each once; the chain holds, and every record recomputes."""
    records = shared.records()
    assert len({record.decision_id for record in records}) == len(records)
    said = {r.decision_id: (r.outcome, r.reasons, r.score, r.t, r.flags) for r in records}
    for one in answers:
        assert said[one.decision_id] == (one.outcome, one.reasons, one.score, one.t, one.flags)
    report = shared.replay()
    assert (report.compared, report.mismatched, report.differences) == (len(records), 0, ())
    chain = shared.verify()
    assert (chain.places, chain.checked) == ([], len(records))


def test_what_an_owner_decided_replays_to_the_same_bits(shared: Shared) -> None:
    made = decide_some(shared, shared.owner("a", 0), 40)
    assert len(shared.records()) == 40 and len({one.score for one in made}) > 5
    holds(shared, *made)


def test_nothing_is_decided_without_a_claim(shared: Shared) -> None:
    owner = shared.owner("a")
    with pytest.raises(NotOwnerError) as caught:
        owner.decide(shared.order(1))
    assert (caught.value.code, caught.value.retryable) == ("HR-0722", True)
    assert caught.value.facts == {"partition": 0, "owner": None}
    assert shared.rows("orders") == []
    epoch = owner.claim(0)
    assert (owner.owned, owner.epochs) == ({0}, {0: epoch})
    owner.decide(shared.order(1))
    owner.release(0)
    with pytest.raises(NotOwnerError):
        owner.decide(shared.order(2))


def test_a_known_id_gets_the_recorded_answer_from_any_owner(shared: Shared) -> None:
    a = shared.owner("a", 0)
    request = shared.order(1)
    first = a.decide(request)
    assert a.decide(request) == dataclasses.replace(first, repeated=True)
    b = shared.owner("b", 0)
    assert b.decide(request) == dataclasses.replace(first, repeated=True)
    with pytest.raises(ConflictError) as caught:
        b.decide({**request, "note": "other"})
    assert (caught.value.code, caught.value.facts["field"]) == ("HR-0710", "note")
    assert len(shared.rows("orders")) == 1
    holds(shared, first)


def test_requests_that_wait_together_are_decided_in_the_order_of_the_log(artifact: Artifact) -> None:
    shared = Shared(artifact, partitions=3)
    owner = shared.owner("a", 0, 1, 2)
    requests = [shared.order(number) for number in range(40)]
    foreign = [shared.order(500 + number, customer=number % 5) for number in range(5)]
    shared.between("orders", lambda: shared.produce(shared.shop.orders, *foreign), late=True)
    made = owner.decide_many([*requests, requests[3], {**requests[4], "note": "x"}, {"order": 1}])
    assert [type(one).__name__ for one in made[40:]] == ["DecisionMade", "ConflictError", "SchemaError"]
    assert made[40] == dataclasses.replace(made[3], repeated=True)
    done = [one for one in made[:40] if isinstance(one, DecisionMade)]
    assert len(done) == 40 and len({r.request for r in shared.records()}) == 3
    holds(shared, *done)
    sums = {r.request_id: r.answers[0][0][0] for r in shared.records()}
    assert sums["o-0"] < sums["o-35"], "of one customer, the later counts the earlier"


def test_a_zombie_wakes_up_to_void_records(shared: Shared) -> None:
    """It appended its request, slept through the claim of another, and now appends its record."""
    a, b = shared.owner("a", 0), shared.owner("b")
    made = decide_some(shared, a, 5)
    request = shared.order(77)
    seen: list[DecisionMade] = []

    def takeover() -> None:
        b.claim(0)
        seen.append(b.decide(request))

    shared.between(RECORDS, takeover)
    with pytest.raises(NotOwnerError) as caught:
        a.decide(request)
    assert caught.value.facts == {"partition": 0, "owner": "b"}
    assert (a.owned, a.claims_lost, b.owned) == (set(), 1, {0})
    assert seen[0].flags == (Flag.RETRIED,)
    assert b.decide(request) == dataclasses.replace(seen[0], repeated=True)
    made.append(b.decide(shared.order(78)))
    assert b.voids == {0: 1} and shared.verify().void == 1
    holds(shared, *made, *seen)
    made.append(a.decide(request) if a.claim(0) else seen[0])
    assert made[-1] == dataclasses.replace(seen[0], repeated=True)
    holds(shared, *decide_some(shared, a, 5, first=100))


def test_of_two_claims_the_last_counts(shared: Shared) -> None:
    a, b = shared.owner("a"), shared.owner("b")
    shared.between(RECORDS, lambda: b.claim(0) and None, late=True)
    a.claim(0)
    assert a.owned == b.owned == {0}
    made = b.decide(shared.order(1))
    with pytest.raises(NotOwnerError):
        a.decide(shared.order(2))
    assert shared.verify().claims == 2
    holds(shared, made, b.decide(shared.order(3)))


def test_a_claim_between_a_record_and_its_reading_back_voids_nothing(shared: Shared) -> None:
    a, b = shared.owner("a", 0), shared.owner("b")
    shared.between(RECORDS, lambda: b.claim(0) and None, late=True)
    request = shared.order(1)
    made = a.decide(request)
    assert b.decide(request) == dataclasses.replace(made, repeated=True)
    with pytest.raises(NotOwnerError):
        a.decide(shared.order(2))
    holds(shared, made)


def test_a_retry_at_another_owner_between_request_and_record(shared: Shared) -> None:
    a, b = shared.owner("a", 0), shared.owner("b")
    request, made = shared.order(9), []
    shared.between("orders", lambda: made.append(b.decide(request) if b.claim(0) >= 0 else None), late=True)
    with pytest.raises(NotOwnerError):
        a.decide(request)
    assert [row["order"] for row in shared.rows("orders")] == ["o-9"]
    holds(shared, *made)


def test_a_request_that_came_first_by_another_way_is_decided_once(shared: Shared) -> None:
    """Between asking what is known and appending, the same request is appended by another: the log says so."""
    a = shared.owner("a", 0)
    decide_some(shared, a, 3)
    request = shared.order(9)
    shared.between("orders", lambda: shared.produce(shared.shop.orders, request))
    made = a.decide(request)
    assert made.flags == (Flag.RETRIED,)
    assert len([row for row in shared.rows("orders") if row["order"] == "o-9"]) == 2
    assert a.decide(request) == dataclasses.replace(made, repeated=True)
    other = {**shared.order(10), "note": "x"}
    shared.between("orders", lambda: shared.produce(shared.shop.orders, {**other, "note": "y"}))
    with pytest.raises(ConflictError):
        a.decide(other)
    holds(shared, made)


@pytest.mark.parametrize("late", [False, True], ids=["lost", "there"])
@pytest.mark.parametrize("topic", ["orders", RECORDS])
def test_after_an_unknown_outcome_the_claim_is_made_again(shared: Shared, topic: str, late: bool) -> None:
    a = shared.owner("a", 0)
    made, before = decide_some(shared, a, 4), a.epochs[0]
    request = shared.order(9)
    shared.between(topic, lost_reply, late=late)
    made.append(a.decide(request))
    assert a.epochs[0] > before and a.claims_made == 2
    again = topic == RECORDS or late
    assert (Flag.RETRIED in made[-1].flags) == (again and not made[-1].repeated)
    assert made[-1].repeated == (topic == RECORDS and late)
    assert len([row for row in shared.rows("orders") if row["order"] == "o-9"]) == 1
    made[-1] = dataclasses.replace(made[-1], repeated=False)
    holds(shared, *made, *decide_some(shared, a, 4, first=20))


def test_a_claim_whose_reply_is_lost_is_made_again_and_at_last_given_up(shared: Shared) -> None:
    a = shared.owner("a")
    shared.between(RECORDS, lost_reply, late=True)
    a.claim(0)
    assert [row["claim"] for row in shared.rows(RECORDS)] == ["a", "a"]
    holds(shared, a.decide(shared.order(1)))

    class Always:
        def before(self, *_: object) -> None:
            lost_reply()

    shared.log.interposed = Always()
    with pytest.raises(LogError) as caught:
        a.claim(0)
    assert (caught.value.code, a.owned) == ("HR-0311", set())


@pytest.mark.parametrize("topic", ["orders", RECORDS])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_retry_at_the_next_owner_after_a_crash(shared: Shared, topic: str, late: bool) -> None:
    a = shared.owner("a", 0)
    made = decide_some(shared, a, 6)
    request = shared.order(9)
    shared.between(topic, crash, late=late)
    with pytest.raises(ProcessGoneError):
        a.decide(request)
    b = shared.owner("b", 0)
    made += decide_some(shared, b, 3, first=20)
    again = b.decide(request)
    assert again.repeated == (topic == RECORDS and late)
    assert len([row for row in shared.rows("orders") if row["order"] == "o-9"]) == 1
    assert a.owned == {0}, "it does not know; whatever it appends now is void"
    with pytest.raises(NotOwnerError):
        a.decide(shared.order(30))
    holds(shared, *made, dataclasses.replace(again, repeated=False))


def test_a_foreign_event_between_a_request_and_its_neighbour_counts(shared: Shared) -> None:
    """In its partition everything below the request's offset counts, and nothing else."""
    a = shared.owner("a", 0)
    before, behind = shared.order(500, customer=1), shared.order(501, customer=1)
    shared.between("orders", lambda: shared.produce(shared.shop.orders, before))
    first = a.decide(shared.order(1, customer=1))
    shared.between("orders", lambda: shared.produce(shared.shop.orders, behind), late=True)
    second = a.decide(shared.order(2, customer=1))
    third = a.decide(shared.order(3, customer=1))
    counts = [record.answers[0][0][0] for record in shared.records()]
    assert counts == [2, 3, 5]
    holds(shared, first, second, third)


def test_an_open_transaction_ahead_of_the_request(shared: Shared) -> None:
    a = shared.owner("a", 0)
    made = decide_some(shared, a, 3)
    request = shared.order(9)
    shared.log.open_transaction(shared.partitions["orders"][0])
    for _ in range(2):
        with pytest.raises(LogError) as caught:
            a.decide(request)
        assert (caught.value.code, caught.value.retryable) == ("HR-0723", True)
        assert "claim" not in str(caught.value) and a.owned == {0}
    shared.log.end_transaction(shared.partitions["orders"][0])
    made.append(a.decide(request))
    holds(shared, *made, *decide_some(shared, a, 3, first=20))


def test_an_open_transaction_before_the_record(shared: Shared) -> None:
    a = shared.owner("a", 0)
    request = shared.order(9)
    shared.between("orders", lambda: shared.log.open_transaction(_records_of(shared)), late=True)
    with pytest.raises(LogError) as caught:
        a.decide(request)
    assert (caught.value.code, a.owned) == ("HR-0723", set())
    shared.log.end_transaction(_records_of(shared))
    a.claim(0)
    holds(shared, dataclasses.replace(a.decide(request), repeated=False))


def test_a_record_that_cannot_be_read_back_is_claimed_again(shared: Shared) -> None:
    """Something lies between the owner's last reading and its record, and cannot be read just then."""
    a, b = shared.owner("a", 0), shared.owner("b")
    made, request = decide_some(shared, a, 3), shared.order(9)

    def act(late: bool) -> None:
        if not late:
            b.claim(0)  # so that there is something to read
        else:
            shared.log.open_transaction(_records_of(shared), back=2)

    shared.log.interposed = Steps(RECORDS, act)
    with pytest.raises(LogError) as caught:
        a.decide(request)
    assert (caught.value.code, a.owned) == ("HR-0723", set())
    shared.log.interposed = None
    shared.log.end_transaction(_records_of(shared))
    with pytest.raises(NotOwnerError):
        a.decide(request)
    a.claim(0)
    made.append(dataclasses.replace(a.decide(request), repeated=False))
    holds(shared, *made)


@dataclasses.dataclass
class Steps:
    """Before and after the first append of a topic's rows."""

    topic: str
    act: Callable[[bool], None]
    left: int = 2

    def before(self, appends: Sequence[Append]) -> None:
        if self.left == 2 and appends[0].partition.topic == self.topic:
            self.left = 1
            self.act(False)

    def after(self, appends: Sequence[Append], done: object) -> None:
        if self.left == 1 and appends[0].partition.topic == self.topic:
            self.left = 0
            self.act(True)


def _records_of(shared: Shared) -> Partition:
    return next(s for s in shared.log.topics() if s.topic.name == RECORDS).partitions[0].partition


def test_answers_come_in_the_order_asked(shared: Shared) -> None:
    a = shared.owner("a", 0)
    known = shared.order(1)
    first = a.decide(known)
    left = shared.order(2)
    shared.produce(shared.shop.orders, left)
    answers = a.decide_many([known, left, shared.order(3), {"order": "bad"}])
    assert [one.request_id if isinstance(one, DecisionMade) else one.code for one in answers[:3]] == [
        "o-1",
        "o-2",
        "o-3",
    ]
    assert isinstance(answers[3], HeadraceError)
    holds(shared, first, *(one for one in answers[1:3] if isinstance(one, DecisionMade)))


class Lagging(FeatureState):
    """A state that does not get on with one partition."""

    held: Cut = Cut()

    def catch_up(self, log: Log, *, upto: Cut | None = None, halts: dict[Partition, HaltedError] | None = None) -> int:
        return super().catch_up(log, upto=Cut.of({**dict(upto or Cut()), **dict(self.held)}), halts=halts)


def test_a_view_that_stands_below_a_recorded_cut_is_missing(shared: Shared) -> None:
    """The new owner has not read what the old one had: it may not answer from an older past (K1.8)."""
    a = shared.owner("a", 0)
    made = decide_some(shared, a, 9)
    returns = shared.partitions["returns"][0]
    features = Lagging(shared.shop.plans())
    features.held = Cut.of({returns: 1})
    b = shared.owner("b", features=features)
    b.claim(0)
    behind = b.decide(shared.order(50))
    assert (behind.outcome, behind.reasons) == (Outcome.REVIEW, ("MISSING_DATA",))
    assert [point.absent for point in shared.records()[-1].points] == [None, "stale_owner"]
    left = shared.order(51)
    shared.produce(shared.shop.orders, left)
    again = b.decide(left)
    assert [point.absent for point in shared.records()[-1].points] == [None, "stale_owner"]
    features.held = Cut()
    made += [behind, again, b.decide(shared.order(52))]
    assert [point.absent for point in shared.records()[-1].points] == [None, None]
    holds(shared, *made)


def test_a_clock_that_is_wrong_refuses_nothing(shared: Shared, artifact: Artifact) -> None:
    """t is what the log says, by the broker's clock; the owner's own clock is minutes off."""
    own = ManualClock(shared.clock.now())
    own.advance("11m")
    a = shared.owner("a", 0, clock=own)
    at = shared.clock.now()
    fine = a.decide(shared.shop.order(1, at - 30_000_000))
    late = a.decide(shared.shop.order(2, at - 120_000_000))
    assert (fine.t, fine.flags) == (at - 30_000_000, ())
    assert (late.t, late.flags) == (at, (Flag.RESTAMPED,))
    assert shared.records()[0].decided_at == own.now()
    holds(shared, fine, late)


@pytest.mark.parametrize("seed", range(20))
def test_many_interleavings_by_chance(artifact: Artifact, seed: int) -> None:
    """Three owners that claim, sleep, crash and lose replies at any append; whatever was answered holds."""
    draw = random.Random(seed)
    shared = Shared(artifact, partitions=2, stride=draw.choice([1, 1 << 16]))
    owners = [shared.owner(name) for name in "abc"]
    answers: dict[object, DecisionMade] = {}
    requests = [shared.order(number) for number in range(12)]

    def act() -> None:
        chance = draw.random()
        if chance < 0.05:
            lost_reply()
        elif chance < 0.08:
            raise ProcessGoneError
        elif chance < 0.14:
            shared.produce(shared.shop.orders, shared.order(1_000 + draw.randrange(10**6)))
        elif chance < 0.25:
            other = draw.choice(owners)
            if not other._lock.locked():  # the one that sleeps in its append
                other.claim(draw.randrange(2))
                tell(other, draw.choice(requests))

    def tell(owner: OwnedDecider, *asked: dict[str, object]) -> None:
        for one in owner.decide_many(asked):
            if isinstance(one, DecisionMade):
                told = dataclasses.replace(one, repeated=False)
                assert answers.setdefault(one.request_id, told) == told
            else:
                assert one.code in ("HR-0722", "HR-0311", "HR-0724"), one

    shared.log.interposed = Chance(act)
    for _ in range(25):
        owner = draw.choice(owners)
        try:
            if draw.random() < 0.3:
                owner.claim(draw.randrange(2))
            tell(owner, *draw.sample(requests, draw.randint(1, 4)))
        except ProcessGoneError:
            owners[owners.index(owner)] = shared.owner("d")
        except LogError as error:
            assert error.code == "HR-0311"
    shared.log.interposed = None
    tell(shared.owner("z", 0, 1), *requests)
    assert len(answers) == len(requests), "each is decided at last"
    holds(shared, *answers.values())


@dataclasses.dataclass
class Chance:
    act: Callable[[], None]

    def before(self, *_: object) -> None:
        self.act()

    def after(self, *_: object) -> None:
        self.act()


def test_who_stands_by_reads_only_what_came_since(shared: Shared) -> None:
    """Takeover does not depend on how long a partition is: its past was read before it is claimed."""
    a, b = shared.owner("a", 0), shared.owner("b")
    made = decide_some(shared, a, 20)
    b.stand_by()
    made += decide_some(shared, a, 3, first=20)
    before = {"orders": len(shared.rows("orders")), RECORDS: len(shared.rows(RECORDS))}
    shared.log.rows_read = Counter()
    b.claim(0)
    rows = shared.log.rows_read
    assert 3 <= rows[RECORDS] <= 5 and 3 <= rows["orders"] <= 10 < min(before.values())
    assert b.decide(shared.order(50)).repeated is False
    known = [shared.shop.order(number, made[number].t) for number in (0, 22)]
    assert [b.decide(request).repeated for request in known] == [True, True]
    holds(shared, *made)


def test_what_was_released_or_lost_is_read_on_and_claimed_again(shared: Shared) -> None:
    a, b = shared.owner("a", 0), shared.owner("b")
    made = decide_some(shared, a, 7)
    a.release(0)
    a.stand_by()
    b.claim(0)
    made += decide_some(shared, b, 7, first=7)
    a.claim(0)
    made += decide_some(shared, a, 7, first=14)
    with pytest.raises(NotOwnerError):  # lost, and it hears so
        b.decide(shared.order(90))
    b.stand_by()
    b.claim(0)
    made += decide_some(shared, b, 7, first=21)
    assert b.claims_lost == 1 and a.owned == {0} and b.owned == {0}
    holds(shared, *made)
