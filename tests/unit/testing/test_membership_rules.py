"""SEMANTICS 2: which events a window holds. Each rule with its concrete events."""

from __future__ import annotations

import datetime as dt

import pytest

from headrace.core import schema
from headrace.core.errors import DefinitionError
from headrace.core.window import aligned
from headrace.features.define import (
    Aggregate,
    Asked,
    FeatureView,
    Sources,
    count,
    distinct,
    first,
    last,
    last_n,
    lookup,
    max,
    mean,
    min,
    sum,
    time_since_first,
    time_since_last,
)
from headrace.log.define import Topic
from headrace.testing.oracles import bounds
from tests.unit.testing.sequences import DAY, HOUR, MINUTE, SECOND, Reason, answer, ask, event, paid, payments

WIDTH = 10 * SECOND


def test_2_1_a_window_is_left_open_and_right_closed() -> None:
    t = 100 * SECOND
    asked = count().over("10s")
    assert ask(asked, [paid(t - WIDTH)], t) == 0
    assert ask(asked, [paid(t - WIDTH + 1)], t) == 1
    assert ask(asked, [paid(t)], t) == 1
    assert ask(asked, [paid(t + 1)], t) == 0


def test_2_1_a_delay_moves_both_ends() -> None:
    t, delay = 100 * SECOND, 5 * SECOND
    asked = count().over("10s", delay="5s")
    assert ask(asked, [paid(t - delay - WIDTH)], t) == 0
    assert ask(asked, [paid(t - delay - WIDTH + 1)], t) == 1
    assert ask(asked, [paid(t - delay)], t) == 1
    assert ask(asked, [paid(t - delay + 1)], t) == 0


def test_2_1_lifetime_has_no_beginning() -> None:
    asked, delayed = count().lifetime(), count().lifetime(delay="5s")
    events = [paid(-(10**15), 1), paid(0, 2), paid(95 * SECOND, 3), paid(95 * SECOND + 1, 4)]
    assert ask(asked, events, 100 * SECOND) == 4
    assert ask(delayed, events, 100 * SECOND) == 3


@pytest.mark.parametrize(
    "asked",
    [
        first(payments.number),
        last(payments.number),
        last_n(payments.number, 3),
        min(payments.number),
        max(payments.number),
    ],
)
def test_2_1_every_aggregate_reads_the_same_set(asked: Aggregate) -> None:
    """Only the event inside counts, also for first, last and last-n."""
    t = 100 * SECOND
    events = [paid(t - WIDTH, 1, number=7), paid(t - 1, 2, number=8), paid(t + 1, 3, number=9)]
    assert ask(asked.over("10s"), events, t) in (8, [8])
    assert ask(asked.over("10s", delay="200s"), events, t) is None


def test_2_1_time_since_reads_the_window_too() -> None:
    t = 100 * SECOND
    events = [paid(t - 20 * SECOND, 1), paid(t - 9 * SECOND, 2), paid(t - SECOND, 3)]
    assert ask(time_since_last().over("10s"), events, t) == SECOND
    assert ask(time_since_last().over("10s", delay="5s"), events, t) == 9 * SECOND
    assert ask(time_since_first().over("10s"), events, t) == 9 * SECOND
    assert ask(time_since_first(), events, t) == 20 * SECOND


def test_2_1_where_is_applied_before_last_n() -> None:
    events = [paid(i, i, number=i, channel="web" if i % 2 else "shop") for i in range(1, 8)]
    assert ask(last_n(payments.number, 2, where=payments.channel == "web").lifetime(), events, 100) == [5, 7]
    assert ask(last_n(payments.number, 9, where=payments.channel == "web").lifetime(), events, 100) == [1, 3, 5, 7]


def test_2_1_a_null_predicate_is_false() -> None:
    events = [paid(1, 1, channel="web"), paid(2, 2, channel=None), paid(3, 3, channel="shop")]
    assert ask(count(where=payments.channel == "web").lifetime(), events, 9) == 1
    assert ask(count(where=~(payments.channel == "web")).lifetime(), events, 9) == 1


def test_2_1_the_request_passes_the_same_tests_as_any_event() -> None:
    t = 100 * SECOND
    request = paid(t, 9, number=5, channel="shop")
    assert ask(count().over("10s"), [], t, request=request) == 1
    assert ask(count().over("10s", delay="1us"), [], t, request=request) == 0, "it lies after t - delay"
    assert ask(count(where=payments.channel == "web").over("10s"), [], t, request=request) == 0
    assert ask(count().over("10s"), [], t, request=request, of=("bob",)) == 0, "another entity's"
    assert ask(sum(payments.number).over("10s"), [paid(t, 1, number=2)], t, request=request) == 7


def test_2_1_the_request_takes_its_place_by_the_order_key() -> None:
    """A visible event of the same instant with a greater id stands after it."""
    t = 100
    request = paid(t, 5, number=50)
    events = [paid(t, 4, number=40), paid(t, 6, number=60)]
    assert ask(last_n(payments.number, 3, current=True).lifetime(), events, t, request=request) == [40, 50, 60]
    assert ask(last(payments.number, current=True).lifetime(), events, t, request=request) == 60


def test_2_2_current_is_yes_except_for_time_since_last_and_last_n() -> None:
    t = 100
    request, events = paid(t, 9, number=5), [paid(90, 1, number=3)]

    def both(asked: Aggregate) -> object:
        return ask(asked.lifetime(), events, t, request=request)

    assert both(count()) == 2
    assert both(count(current=False)) == 1
    assert both(sum(payments.number)) == 8
    assert both(mean(payments.number)) == 4.0
    assert both(min(payments.number)) == 3
    assert both(max(payments.number)) == 5
    assert both(distinct(payments.number)) == 2
    assert both(first(payments.number, current=True)) == 3
    assert both(last(payments.number)) == 3
    assert both(last(payments.number, current=True)) == 5
    assert both(last_n(payments.number, 2)) == [3]
    assert both(lookup(payments.number)) == 3
    assert both(time_since_last()) == 10
    assert both(time_since_first()) == 10


def test_2_2_time_since_last_with_the_request_is_an_error() -> None:
    with pytest.raises(DefinitionError, match="HR-0133"):
        FeatureView("view", entity="customer", source=payments, features=[time_since_last(current=True).lifetime()])


def test_2_2_a_request_of_another_topic_is_in_no_window() -> None:
    asked_by = Topic("questions", key="q", id="q", fields={"q": schema.int64, "customer": schema.string})
    request = event(asked_by, 100, q=1, customer="ann")
    assert ask(count().lifetime(), [paid(90, 1)], 100, request=request) == 1


def micros(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1_000_000)


def edges_of(unit: str, t: str, *, tz: str = "UTC", complete: bool = False) -> tuple[str, str]:
    """The first instant that belongs, and the last one's next, as ISO texts in UTC."""
    low, high = bounds(aligned(unit, tz=tz, complete=complete), micros(t))
    assert low is not None
    return tuple(dt.datetime.fromtimestamp((x + 1) / 10**6, dt.UTC).strftime("%Y-%m-%dT%H:%M") for x in (low, high))  # type: ignore[return-value]  # two of two


@pytest.mark.parametrize(
    ("unit", "tz", "t", "begins", "closed"),
    [
        ("hour", "UTC", "2026-03-04T05:06:00Z", "2026-03-04T05:00", "2026-03-04T04:00"),
        ("day", "UTC", "2026-03-04T05:06:00Z", "2026-03-04T00:00", "2026-03-03T00:00"),
        ("week", "UTC", "2026-03-04T05:06:00Z", "2026-03-02T00:00", "2026-02-23T00:00"),  # Wednesday to Monday
        ("week", "UTC", "2026-03-02T00:00:00Z", "2026-03-02T00:00", "2026-02-23T00:00"),
        ("month", "UTC", "2026-03-31T23:59:00Z", "2026-03-01T00:00", "2026-02-01T00:00"),
        ("year", "UTC", "2026-03-04T05:06:00Z", "2026-01-01T00:00", "2025-01-01T00:00"),
        ("day", "Europe/Berlin", "2026-03-04T23:30:00Z", "2026-03-04T23:00", "2026-03-03T23:00"),
        ("day", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00", "2026-03-27T23:00"),  # 23 hours long
        ("day", "Europe/Berlin", "2026-03-30T12:00:00Z", "2026-03-29T22:00", "2026-03-28T23:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00", "2026-10-23T22:00"),  # 25 hours long
        ("hour", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T00:00", "2026-10-24T23:00"),  # 02:30, the first
        ("hour", "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:00", "2026-10-25T00:00"),  # 02:30, the second
        ("hour", "Asia/Kolkata", "2026-03-04T05:06:00Z", "2026-03-04T04:30", "2026-03-04T03:30"),
        ("day", "Asia/Kathmandu", "2026-03-04T18:20:00Z", "2026-03-04T18:15", "2026-03-03T18:15"),
        ("day", "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00", "2018-11-03T03:00"),  # no midnight
        ("month", "America/New_York", "2026-03-01T04:59:00Z", "2026-02-01T05:00", "2026-01-01T05:00"),
        ("day", "Pacific/Apia", "2011-12-30T11:00:00Z", "2011-12-30T10:00", "2011-12-29T10:00"),  # the 30th is left out
        ("hour", "Australia/Lord_Howe", "2026-10-03T15:45:00Z", "2026-10-03T15:30", "2026-10-03T14:30"),  # 02:30 first
        ("hour", "Australia/Lord_Howe", "2026-04-04T15:15:00Z", "2026-04-04T15:00", "2026-04-04T14:00"),  # 01:30 again
    ],
)
def test_2_3_aligned_windows_begin_with_the_unit(unit: str, tz: str, t: str, begins: str, closed: str) -> None:
    assert edges_of(unit, t, tz=tz)[0] == begins
    assert edges_of(unit, t, tz=tz, complete=True) == (closed, begins)


def test_2_3_the_running_window_is_start_to_t_both_ends_in() -> None:
    t = 3 * DAY + 5
    events = [paid(3 * DAY - 1, 1), paid(3 * DAY, 2), paid(t, 3), paid(t + 1, 4)]
    assert ask(count().aligned("day"), events, t) == 2
    assert ask(count().aligned("day"), [], t, request=paid(t, 9)) == 1


def test_2_3_the_last_closed_window_ends_before_the_running_one() -> None:
    t = 3 * DAY + 5
    events = [paid(2 * DAY - 1, 1), paid(2 * DAY, 2), paid(3 * DAY - 1, 3), paid(3 * DAY, 4)]
    assert ask(count().aligned("day", complete=True), events, t) == 2
    assert ask(count().aligned("day", complete=True), events, t, request=paid(t, 9)) == 2


def test_2_3_durations_align_to_the_epoch() -> None:
    t = 100 * MINUTE
    events = [paid(90 * MINUTE - 1, 1), paid(90 * MINUTE, 2), paid(75 * MINUTE - 1, 3), paid(75 * MINUTE, 4)]
    assert ask(count().aligned("15m"), events, t) == 1
    assert ask(count().aligned("15m", complete=True), events, t) == 2
    assert ask(count().aligned("15m"), [paid(-1, 1), paid(-15 * MINUTE, 2)], -1) == 2, "before the epoch too"


def test_2_4_an_entity_may_be_a_tuple() -> None:
    events = [paid(1, 1, channel="web"), paid(2, 2, channel="shop"), paid(3, 3, channel="web", customer="bob")]
    asked = count().lifetime()
    assert ask(asked, events, 9, entity=("customer", "channel"), of=("ann", "web")) == 1
    assert ask(asked, events, 9, entity=("channel", "customer"), of=("web", "bob")) == 1
    assert ask(asked, events, 9, entity="channel", of=("web",)) == 2


refunds = Topic(
    "refunds",
    key="buyer",
    id="refund",
    event_time="at",
    fields={"refund": schema.int64, "buyer": schema.string, "amount": schema.decimal(12, 2), "at": schema.timestamp},
)
flows = Sources(
    payments.emit(customer=payments.customer, delta=payments.amount),
    refunds.emit(customer=refunds.buyer, delta=-refunds.amount),
)


def refunded(at: int, refund: int, amount: int | None, buyer: str = "ann") -> object:
    return event(refunds, at, refund=refund, buyer=buyer, amount=amount)


def over_flows(asked: Aggregate | Asked, t: int = 100, **more: object) -> object:
    events = [paid(10, 5, amount=700), refunded(20, 6, 200), refunded(10, 3, 50), refunded(20, 7, 9, "bob")]
    return ask(asked, events, t, source=flows, **more)


def test_2_4_each_source_has_its_own_expression() -> None:
    assert over_flows(sum(flows.delta).lifetime()) == 700 - 200 - 50
    assert over_flows(count().lifetime()) == 3
    assert over_flows(count(where=flows.delta < 0).lifetime()) == 2
    assert over_flows(sum(flows.delta).lifetime(), of=("bob",)) == -9


def test_2_4_several_sources_have_one_order() -> None:
    assert over_flows(last_n(flows.delta, 9).lifetime()) == [-50, 700, -200], "at 10 the ids decide: 3, then 5"


def test_2_4_a_request_of_one_of_several_sources_is_current() -> None:
    request = refunded(100, 8, 1000)
    assert over_flows(sum(flows.delta).lifetime(), request=request) == 700 - 200 - 50 - 1000


def test_2_4_a_lookup_is_the_newest_event_by_order_key_null_or_not() -> None:
    events = [paid(10, 1, number=1), paid(20, 3, number=3), paid(20, 2, number=2)]
    assert ask(lookup(payments.number).lifetime(), events, 30) == 3
    events = [paid(10, 1, number=1), paid(20, 2, number=None)]
    assert ask(lookup(payments.number).lifetime(), events, 30) is None
    assert ask(last(payments.number).lifetime(), events, 30) == 1


def test_2_5_nothing_after_t_is_read_by_any_aggregate() -> None:
    events = [paid(10, 1, number=1), paid(31, 2, number=2)]
    for asked in (count(), sum(payments.number), max(payments.number), lookup(payments.number), last(payments.number)):
        assert ask(asked.lifetime(), events, 30) == 1


def test_3_5_an_event_without_entity_is_nobodys() -> None:
    events = [paid(1, 1, customer=None), paid(2, 2)]
    assert ask(count().lifetime(), events, 9) == 1
    assert (
        ask(count().lifetime(), [paid(1, 1, channel=None)], 9, entity=("customer", "channel"), of=("ann", "web")) == 0
    )
    assert answer(count().lifetime(), [], 9, request=paid(9, 1, customer=None)) == (0, Reason.EMPTY)


def test_1_3_ties_are_ordered_by_id_then_partition_then_offset() -> None:
    events = [
        paid(10, 3, number=3, offset=0),
        paid(10, 1, number=1, offset=1),
        paid(10, 2, number=22, partition=1, offset=0),
        paid(10, 2, number=21, partition=0, offset=7),
        paid(10, 2, number=23, partition=1, offset=5),
    ]
    assert ask(last_n(payments.number, 9).lifetime(), events, 10) == [1, 21, 22, 23, 3]
    assert ask(last_n(payments.number, 9).lifetime(), events[::-1], 10) == [1, 21, 22, 23, 3]


def test_1_3_text_ids_are_ordered_by_code_point() -> None:
    topic = Topic("notes", key="id", id="id", fields={"id": schema.string, "n": schema.int64, "who": schema.string})
    names = ["b", "B", "a", "aa", "\uffff", "\U0001f600", "é", ""]
    events = [event(topic, 5, id=name, n=place, who="ann", offset=place) for place, name in enumerate(names)]
    found = ask(last_n(topic.n, 9).lifetime(), events, 5, source=topic, entity="who")
    assert found == [7, 1, 2, 3, 0, 6, 4, 5]


def test_1_3_without_ids_partition_and_offset_decide() -> None:
    topic = Topic("notes", key="who", fields={"n": schema.int64, "who": schema.string})
    events = [
        event(topic, 5, n=1, who="ann", partition=1, offset=0),
        event(topic, 5, n=2, who="ann", partition=0, offset=9),
        event(topic, 5, n=3, who="ann", partition=0, offset=2),
    ]
    assert ask(last_n(topic.n, 9).lifetime(), events, HOUR, source=topic, entity="who") == [3, 2, 1]
