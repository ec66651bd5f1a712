"""The online state answers as the law does, at every cut: rows and batches, imports, late facts, reads in between."""

from __future__ import annotations

import random

import pytest

import headrace as hr
from headrace.core.errors import DefinitionError, NotFoundError, StateError
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import Instant
from headrace.features import define
from headrace.features.define import FeatureView
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.port import Append, Verdict
from headrace.testing.clocks import ManualClock
from headrace.testing.fakes import MemoryLog
from headrace.testing.oracles import Event, Seen, entity_of, values, visible_served
from tests.unit.features.followed import Lender, RandomLog, batch, row


def published(answer: object) -> list[object]:
    values, reasons = answer  # type: ignore[misc]  # an Answer
    return [(list(v) if isinstance(v, tuple) else v, r) for v, r in zip(values, reasons, strict=True)]


def expected(log: RandomLog, view: FeatureView, entity: object, t: int, request: Event | None) -> list[object]:
    parts = entity if isinstance(entity, tuple) else (entity,)
    seen = Seen(visible_served(log.events, log.cut, request), t)
    return values(view, log.lender.labels, seen, parts, request)


def feed(state: FeatureState, lender: Lender, events: list[Event], rng: random.Random) -> None:
    """The events per partition in order, as rows or batches, partitions in any order among each other."""
    queues: dict[Partition, list[Event]] = {}
    for event in events:
        queues.setdefault(event.partition, []).append(event)
    while queues:
        partition = rng.choice(sorted(queues))
        topic = lender.topics[partition.topic]
        count = rng.choice([1, 1, 2, 7])
        taken, queues[partition] = queues[partition][:count], queues[partition][count:]
        if rng.random() < 0.5:
            state.ingest(partition, batch(taken, topic))
        else:
            for e in taken:
                state.ingest_row(e.partition, e.offset, e.available_at, e.event_time, e.verdict, row(e, topic))
        if not queues[partition]:
            del queues[partition]


@pytest.mark.parametrize("seed", range(24))
def test_answers_are_the_laws_at_every_cut(seed: int) -> None:
    lender = Lender(hr.int64 if seed % 2 else hr.string)
    log, rng, state = RandomLog(lender, seed), random.Random(seed), lender.state()
    names = list(lender.views)
    for _ in range(14):
        feed(state, lender, [log.draw() for _ in range(rng.choice([1, 5, 12]))], rng)
        request = log.request()
        ask = state.asker(names, lender.plans, request.partition)
        before = state.frontier
        answers = ask(request.offset, row(request, lender.plans), request.event_time)
        assert answers == ask(request.offset, row(request, lender.plans), request.event_time)
        for name, answer in zip(names, answers, strict=True):
            view = lender.views[name]
            entity = entity_of(view, request)
            if entity is not None:
                assert published(answer) == expected(log, view, entity, request.event_time, request), name
        for entity in (1, 2, 77):
            t = log.now - rng.randrange(6)
            assert published(state.read("flow", entity, t)) == expected(log, lender.views["flow"], entity, t, None)
        assert published(state.read("merchant", "b", log.now)) == expected(
            log, lender.views["merchant"], "b", log.now, None
        )
        assert state.frontier == before
        log.take(request)
        feed(state, lender, [request], rng)


def plain(name: str = "v") -> tuple[Lender, FeatureState]:
    lender = Lender()
    view = FeatureView(name, entity="customer", source=lender.plans, features=[define.count().over("10us")])
    return lender, FeatureState([ViewPlan.compile(view, {})])


def plan(offset: int, time: int, *, customer: int | None = 1, index: int = 0, available: int | None = None) -> Event:
    values = {"plan": offset, "customer": customer, "at": time}
    at = time if available is None else available
    where = Partition("plans", 1, index)
    return Event(
        partition=where,
        offset=offset,
        event_time=time,
        available_at=at,
        verdict=Verdict.ACCEPTED,
        id=offset,
        values=values,
    )


def ingest(state: FeatureState, lender: Lender, *events: Event) -> None:
    for event in events:
        state.ingest(event.partition, batch([event], lender.topics[event.partition.topic]))


def test_an_unknown_entity_is_answered_as_an_empty_one_and_reading_changes_nothing() -> None:
    lender, state = plain()
    assert state.read("v", 5, 100) == ((0,), (1,))
    assert state.views["v"].keys == {}
    ingest(state, lender, plan(0, 95))
    before = state.views["v"].kernel.usage(), state.read("v", 1, 100), state.frontier
    state.read("v", 5, 100)
    state.asker(["v"], lender.plans, Partition("plans", 1, 0))(1, row(plan(1, 100), lender.plans), 100)
    assert (state.views["v"].kernel.usage(), state.read("v", 1, 100), state.frontier) == before
    assert list(state.views["v"].keys) == [1]


def test_a_request_with_a_null_entity_sees_nothing_and_is_counted_once_in_the_log() -> None:
    lender, state = plain()
    ask = state.asker(["v"], lender.plans, Partition("plans", 1, 0))
    nobody = plan(0, 100, customer=None)
    assert ask(0, row(nobody, lender.plans), 100) == (((0,), (1,)),)
    ingest(state, lender, nobody)
    assert state.views["v"].unindexed == 1
    state.ingest_row(nobody.partition, 1, 100, 100, Verdict.ACCEPTED, row(nobody, lender.plans))
    assert state.views["v"].unindexed == 2


def test_rows_given_twice_are_taken_once() -> None:
    lender, state = plain()
    events = [plan(offset, 90 + offset) for offset in range(4)]
    state.ingest(events[0].partition, batch(events[:3], lender.plans))
    state.ingest(events[0].partition, batch(events, lender.plans))
    state.ingest_row(events[0].partition, 2, 92, 92, Verdict.ACCEPTED, row(events[2], lender.plans))
    assert state.read("v", 1, 95)[0] == (4,)
    assert state.frontier[events[0].partition] == 4


def test_missing_rows_are_refused() -> None:
    lender, state = plain()
    ingest(state, lender, plan(0, 90))
    with pytest.raises(StateError, match="HR-0543"):
        ingest(state, lender, plan(2, 90))
    with pytest.raises(StateError, match="HR-0543"):
        state.ingest_row(Partition("plans", 1, 0), 2, 90, 90, Verdict.ACCEPTED, row(plan(2, 90), lender.plans))
    with pytest.raises(StateError, match="HR-0543"):
        state.ingest(Partition("plans", 1, 0), batch([plan(1, 90), plan(3, 90)], lender.plans))
    assert state.read("v", 1, 95)[0] == (1,)


def test_a_topic_that_no_view_reads_is_refused() -> None:
    lender, state = plain()
    assert state.topics == ("plans",)
    with pytest.raises(StateError, match="HR-0549"):
        state.ingest_row(Partition("bads", 1, 0), 0, 1, 1, 0, (1, 1, 1))


def test_a_topic_made_anew_is_refused() -> None:
    lender, state = plain()
    ingest(state, lender, plan(0, 90))
    with pytest.raises(StateError, match="HR-0546"):
        state.ingest(Partition("plans", 2, 0), batch([plan(0, 90)], lender.plans))


def test_a_request_is_answered_only_where_the_state_stands() -> None:
    lender, state = plain()
    ask = state.asker(["v"], lender.plans, Partition("plans", 1, 0))
    with pytest.raises(StateError, match="HR-0548") as error:
        ask(1, row(plan(1, 100), lender.plans), 100)
    assert error.value.retryable
    ingest(state, lender, plan(0, 90))
    with pytest.raises(StateError, match="HR-0548") as error:
        ask(0, row(plan(0, 90), lender.plans), 90)
    assert not error.value.retryable
    assert state.hypothetical(["v"], lender.plans)(row(plan(0, 95), lender.plans), 95) == (((2,), (0,)),)


def test_nothing_within_max_late_expires_and_older_reads_are_refused() -> None:
    lender, state = plain()
    hour = 3_600_000_000
    ingest(state, lender, plan(0, hour), plan(1, 2 * hour), plan(2, 3 * hour))
    oldest = state.views["v"].oldest
    assert oldest == 3 * hour - 20  # max_late
    assert state.read("v", 1, oldest)[0] == (0,)
    with pytest.raises(StateError, match="HR-0541") as error:
        state.read("v", 1, oldest - 1)
    assert error.value.oldest == oldest
    with pytest.raises(StateError, match="HR-0541"):
        state.asker(["v"], lender.plans, Partition("plans", 1, 0))(3, row(plan(3, 5), lender.plans), 5)


def test_the_slowest_live_partition_says_what_expires_and_imports_do_not() -> None:
    lender, state = plain()
    hour = 3_600_000_000
    ingest(state, lender, plan(0, 5 * hour, index=IMPORTS_FROM))
    assert state.views["v"].oldest == 5 * hour - 20
    lender, state = plain()
    ingest(state, lender, plan(0, hour, index=1), plan(0, 9 * hour, index=IMPORTS_FROM), plan(0, 4 * hour))
    assert state.views["v"].oldest == hour - 20
    ingest(state, lender, plan(1, 6 * hour, index=1))
    assert state.views["v"].oldest == 4 * hour - 20


def test_a_lifetime_never_expires() -> None:
    lender = Lender()
    state = lender.state("flow", "pair")
    hour = 3_600_000_000
    ingest(state, lender, plan(0, hour), plan(1, 9 * hour))
    assert [view.oldest for view in state.views.values()] == [-(2**63)] * 2


def test_facts_and_origins_are_forgotten_with_what_they_belong_to() -> None:
    lender = Lender()
    state = lender.state("merchant")
    hour = 3_600_000_000
    for offset in range(3):
        at = (offset + 1) * hour
        bad = Event(
            partition=Partition("bads", 1, 0),
            offset=offset,
            event_time=at,
            available_at=at,
            verdict=Verdict.ACCEPTED,
            id=offset,
            values={"nr": offset, "plan": offset, "degree": 1},
        )
        ingest(state, lender, bad, plan(offset, at))
    held = state.topic_states["plans"]
    assert held.retained is not None
    assert held.facts is not None
    assert len(held.retained) == 1
    assert held.facts.ids() == {2}


def test_a_request_topic_that_is_no_source_names_the_entity() -> None:
    lender, state = plain()
    ingest(state, lender, plan(0, 95))
    asked = hr.Topic("asked", key="customer", id="nr", fields={"nr": hr.int64, "customer": hr.int64})
    assert state.asker(["v"], asked, Partition("asked", 1, 0))(17, (3, 1), 100) == (((1,), (0,)),)
    with pytest.raises(DefinitionError, match="HR-0540"):
        state.asker(["v"], hr.Topic("other", key="nr", fields={"nr": hr.int64}), Partition("other", 1, 0))
    text = hr.Topic("text", key="customer", fields={"customer": hr.string})
    with pytest.raises(DefinitionError, match="seen string"):
        state.asker(["v"], text, Partition("text", 1, 0))


def test_a_composite_entity_is_asked_by_the_fields_of_a_stranger() -> None:
    lender = Lender()
    state = lender.state("pair")
    event = plan(0, 95)
    named = Event(**{**{f: getattr(event, f) for f in Event.__slots__}, "values": {**event.values, "merchant": "a"}})
    ingest(state, lender, named)
    asked = hr.Topic("asked", key="merchant", fields={"merchant": hr.string, "customer": hr.int64})
    ask = state.asker(["pair"], asked, Partition("asked", 1, 0))
    assert ask(0, ("a", 1), 100)[0][0][0] == 1
    assert ask(0, ("b", 1), 100)[0][0][0] == 0


def test_a_state_reads_a_log_from_its_frontier_on() -> None:
    lender, state = plain()
    log = MemoryLog(clock=ManualClock(Instant(100)))
    log.declare(lender.plans)
    log.declare(lender.bads)
    place = Partition("plans", 1, 0)
    rows = [row(plan(number, 90), lender.plans) for number in range(3)]
    log.append([Append(partition=place, rows=rows), Append(partition=Partition("bads", 1, 0), rows=[(1, 1, 1)])])
    assert state.catch_up(log) == 3
    assert state.catch_up(log) == 0
    log.append([Append(partition=place, rows=[row(plan(3, 91), lender.plans)])])
    assert state.catch_up(log) == 1
    assert state.read("v", 1, 95)[0] == (4,)
    assert (state.frontier[place], state.available_at(place)) == (4, 100)
    log.drop("plans")
    log.declare(lender.plans)
    with pytest.raises(StateError, match="HR-0546"):
        state.catch_up(log)


def test_an_unknown_view_is_named() -> None:
    _, state = plain("activity")
    with pytest.raises(NotFoundError, match="HR-0547") as error:
        state.read("activty", 1, 1)
    assert "activity" in error.value.hint


def test_two_topics_of_one_name_are_refused() -> None:
    one, other = Lender(), Lender(hr.string)
    plans = [ViewPlan.compile(lender.views[name], lender.labels) for lender, name in ((one, "pair"), (other, "flow"))]
    with pytest.raises(DefinitionError, match="HR-0545"):
        FeatureState(plans)


def test_a_state_that_broke_answers_nothing_more() -> None:
    lender = Lender()
    bound = hr.Topic(
        "plans",
        key="customer",
        fields={"customer": hr.int64, "n": hr.field(hr.int64, required=True, minimum=0, maximum=9)},
    )
    view = FeatureView("v", entity="customer", source=bound, features=[define.sum(bound.n).over("10us")])
    state = FeatureState([ViewPlan.compile(view, lender.labels)])
    event = plan(0, 5)
    wrong = Event(**{**{f: getattr(event, f) for f in Event.__slots__}, "values": {"customer": 1, "n": 99}})
    with pytest.raises(StateError, match="HR-0511"):
        state.ingest(wrong.partition, batch([wrong], bound))
    with pytest.raises(StateError, match="HR-0544"):
        state.read("v", 1, 10)


@pytest.mark.parametrize("order", [range(200), range(199, -1, -1), random.Random(3).sample(range(200), 200)])
def test_text_ids_order_what_happened_at_one_instant(order: list[int]) -> None:
    lender = Lender(hr.string)
    state = lender.state("customer")
    expected_last = {}
    for offset, number in enumerate(order):
        event = plan(offset, 50)
        values = {"plan": f"p{number:03}", "customer": 1, "at": 50, "amount": number, "merchant": f"m{number:03}"}
        one = Event(**{**{f: getattr(event, f) for f in Event.__slots__}, "values": values})
        state.ingest_row(one.partition, offset, 50, 50, Verdict.ACCEPTED, row(one, lender.plans))
        expected_last[values["plan"]] = number
        names = [f.name for f in lender.views["customer"].features]
        answer = dict(zip(names, state.read("customer", 1, 55)[0], strict=True))
        assert answer["last_amount_15us"] == expected_last[max(expected_last)]
        assert answer["last_3_merchant_30us"] == tuple(f"m{p[1:]}" for p in sorted(expected_last)[-3:])
