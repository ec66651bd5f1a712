"""SEMANTICS 4: labels and late columns, at the instant at which each becomes known, with concrete events."""

from __future__ import annotations

from headrace.core import schema
from headrace.core.points import IMPORTS_FROM
from headrace.features.define import (
    Aggregate,
    Asked,
    FeatureView,
    Label,
    Sources,
    count,
    last_n,
    mean,
    rate,
    sum,
)
from headrace.log.define import Topic
from headrace.testing.oracles import UNKNOWN, Event, Known, Seen, label_of, training_label
from tests.unit.testing.sequences import DAY, Reason, answer, ask, event, paid, payments

claims = Topic(
    "claims",
    key="payment",
    id="claim",
    event_time="at",
    fields={
        "claim": schema.int64,
        "payment": schema.int64,
        "kind": schema.string,
        "sum": schema.int64,
        "at": schema.timestamp,
    },
)
claimed = Label("claimed", of=payments, source=claims, on="payment", within="30d", grace="3d")
fraudulent = Label(
    "fraudulent", of=payments, source=claims, on="payment", within="30d", grace="3d", value=claims.kind == "fraud"
)
lost = Label("lost", of=payments, source=claims, on="payment", within="30d", grace="3d", value=claims["sum"])
E = 100 * DAY  # the origin's event time
WITHIN, MATURITY = 30 * DAY, 33 * DAY
origin = paid(E, 1)


def claim(
    at: int, payment: int = 1, id: int = 1, *, kind: str | None = None, sum: int | None = None, **more: int
) -> Event:
    return event(claims, at, payment=payment, claim=id, offset=id, kind=kind, sum=sum, **more)


def known(events: list[Event], t: int, label: Label = claimed) -> Known:
    return label_of(label, origin, Seen(events, t))


def test_4_2_a_label_event_counts_from_the_origin_to_the_end_of_within() -> None:
    t = E + 99 * DAY
    assert known([claim(E - 1)], t) == Known(True, False)
    assert known([claim(E)], t) == Known(True, True)
    assert known([claim(E + WITHIN)], t) == Known(True, True)
    assert known([claim(E + WITHIN + 1)], t) == Known(True, False)


def test_4_2_a_label_event_after_t_is_not_read() -> None:
    assert known([claim(E + 5)], E + 5) == Known(True, True)
    assert known([claim(E + 5)], E + 4) == UNKNOWN


def test_4_2_without_a_label_event_it_is_unknown_until_it_matures() -> None:
    assert known([], E + MATURITY - 1) == UNKNOWN
    assert known([], E + MATURITY) == Known(True, False)


def test_4_2_a_label_event_that_names_another_origin_or_none_is_nothing() -> None:
    assert known([claim(E + 5, payment=2)], E + MATURITY) == Known(True, False)
    nobody = event(claims, E + 5, claim=1, payment=None)
    assert known([nobody], E + MATURITY) == Known(True, False)


def test_4_2_a_label_event_may_come_before_its_origin() -> None:
    """The join is of both visible sets: the claim's offset and available_at may be earlier than the payment's."""
    early = claim(E, available_at=E - DAY)
    assert known([early], E) == Known(True, True)


def test_4_2_several_label_events_any() -> None:
    assert known([claim(E - 1, id=1), claim(E + 9, id=2), claim(E + 40 * DAY, id=3)], E + 50 * DAY) == Known(True, True)


def test_4_2_with_a_value_the_last_by_order_key_counts() -> None:
    reversed_later = [claim(E + 5, id=1, kind="fraud"), claim(E + 9, id=2, kind="mistake")]
    assert known(reversed_later, E + 8, fraudulent) == Known(True, True)
    assert known(reversed_later, E + 9, fraudulent) == Known(True, False)
    assert known(reversed_later[::-1], E + 9, fraudulent) == Known(True, False), "arrival order is irrelevant"
    tied = [claim(E + 5, id=3, kind="fraud"), claim(E + 5, id=2, kind="mistake")]
    assert known(tied, E + 9, fraudulent) == Known(True, True), "at one instant the id decides"


def test_4_2_a_reversal_after_within_does_not_count() -> None:
    events = [claim(E + 5, id=1, kind="fraud"), claim(E + WITHIN + 1, id=2, kind="mistake")]
    assert known(events, E + MATURITY, fraudulent) == Known(True, True)


def test_4_2_a_value_is_false_or_null_where_no_label_event_came() -> None:
    assert known([], E + MATURITY, fraudulent) == Known(True, False)
    assert known([], E + MATURITY, lost) == Known(True, None)
    assert known([], E + MATURITY - 1, lost) == UNKNOWN
    assert known([claim(E, sum=5), claim(E + 1, id=2, sum=7)], E + MATURITY, lost) == Known(True, 7)


def over(asked: Asked | Aggregate, events: list[Event], t: int, **more: object) -> object:
    return ask(asked, events, t, labels=(claimed, fraudulent, lost), **more)


def test_4_2_windows_stand_on_the_origins_event_time() -> None:
    """A claim inside the window of a payment before it changes nothing."""
    t = E + MATURITY + 10 * DAY
    events = [paid(E, 1), paid(E + 8 * DAY, 2), claim(E + 20 * DAY, 1), claim(E + 20 * DAY, 2, id=2)]
    asked = sum(claimed).over("5d")  # waits 33 days: (E + 5d, E + 10d]
    assert over(asked, events, t) == 1
    assert over(asked, events, t - 3 * DAY) is None


def test_4_4_a_window_over_a_label_waits_for_its_maturity() -> None:
    events = [paid(E, 1), claim(E + 1, 1)]
    asked = rate(claimed).over("5d")
    assert over(asked, events, E + MATURITY - 1) is None
    assert over(asked, events, E + MATURITY) == 1.0
    assert over(asked, events, E + MATURITY + 5 * DAY - 1) == 1.0
    assert over(asked, events, E + MATURITY + 5 * DAY) is None


def test_4_4_so_far_counts_unknown_as_not_yet() -> None:
    events = [paid(E, 1), paid(E, 2), claim(E + 5, 1)]
    asked = rate(claimed, known="so_far").over("5d")
    assert over(asked, events, E + 4) == 0.0
    assert over(asked, events, E + 5) == 0.5
    assert over(mean(lost, known="so_far").over("5d"), events, E + 5) is None


def test_4_4_the_requests_own_label_is_not_yet() -> None:
    request = paid(E, 9)
    asked = rate(claimed, known="so_far").over("5d")
    assert over(asked, [paid(E - 1, 1), claim(E, 1)], E, request=request) == 0.5
    assert over(asked, [claim(E, 9)], E, request=request) == 1.0, "unless it is visible already"


def test_4_4_the_label_topic_itself_is_honest_without_a_delay() -> None:
    events = [claim(E, id=1), claim(E + 1, id=2, payment=5)]
    assert ask(count().over("30d"), events, E + 1, source=claims, entity="payment", of=(5,)) == 1


def test_4_3_a_row_enters_a_training_set_only_when_its_label_has_matured() -> None:
    assert training_label(claimed, origin, Seen([claim(E + 1)], E + MATURITY - 1)) == UNKNOWN, "though it is true"
    assert training_label(claimed, origin, Seen([claim(E + 1)], E + MATURITY)) == Known(True, True)
    assert training_label(claimed, origin, Seen([], E + MATURITY)) == Known(True, False)


# --- late columns ---

orders = Topic(
    "orders",
    key="customer",
    id="order",
    event_time="at",
    fields={
        "order": schema.int64,
        "customer": schema.string,
        "bad": schema.field(schema.boolean, available_after="7d"),
        "cost": schema.field(schema.int64, available_after="2d"),
        "at": schema.timestamp,
    },
)
truths = Topic(
    "orders.bad",
    key="order",
    id="truth",
    event_time="at",
    fields={"truth": schema.int64, "order": schema.int64, "bad": schema.boolean, "at": schema.timestamp},
)


def ordered(at: int, order: int, *, imported: bool = False, **more: object) -> Event:
    partition = IMPORTS_FROM if imported else 0
    return event(orders, at, order=order, customer="ann", partition=partition, offset=order, **more)


def truth(at: int, order: int, bad: bool | None, id: int = 1) -> Event:
    return event(truths, at, truth=id, order=order, bad=bad, offset=id)


def bad_rate(events: list[Event], t: int, known: str = "matured", delay: str = "7d") -> object:
    asked = rate(orders.bad, known=known).over("30d", delay=delay)
    return ask(asked, events, t, source=orders)


def test_4_1_an_imported_truth_is_known_after_its_delay() -> None:
    events = [ordered(E, 1, imported=True, bad=True)]
    assert bad_rate(events, E + 7 * DAY - 1) is None, "the window ends before it"
    assert bad_rate(events, E + 7 * DAY) == 1.0
    assert bad_rate(events, E + 7 * DAY - 1, "so_far", "0s") == 0.0, "not yet"
    assert bad_rate(events, E + 7 * DAY, "so_far", "0s") == 1.0


def test_4_1_a_live_truth_is_known_once_its_event_is_visible_and_its_delay_is_over() -> None:
    live = [ordered(E, 1)]
    assert bad_rate(live, E + 7 * DAY) is None, "it has not come: unknown, so null"
    assert bad_rate([*live, truth(E + 3 * DAY, 1, True)], E + 7 * DAY - 1) is None
    assert bad_rate([*live, truth(E + 3 * DAY, 1, True)], E + 7 * DAY) == 1.0
    assert bad_rate([*live, truth(E + 9 * DAY, 1, True)], E + 9 * DAY - 1) is None, "nothing after t is read"
    assert bad_rate([*live, truth(E + 9 * DAY, 1, True)], E + 9 * DAY) == 1.0


def test_4_4_so_far_drops_the_delay_of_live_truths() -> None:
    events = [ordered(E, 1), truth(E + 5, 1, True)]
    assert bad_rate(events, E + 4, "so_far", "0s") == 0.0
    assert bad_rate(events, E + 5, "so_far", "0s") == 1.0


def test_4_1_the_last_truth_by_order_key_counts() -> None:
    events = [ordered(E, 1), truth(E + 6, 1, False, id=1), truth(E + 5, 1, True, id=2), truth(E + 6, 1, True, id=0)]
    assert bad_rate(events, E + 5, "so_far", "0s") == 1.0
    assert bad_rate(events, E + 6, "so_far", "0s") == 0.0
    assert bad_rate(events, E + 7 * DAY) == 0.0


def test_4_1_a_live_truth_corrects_an_imported_one() -> None:
    events = [ordered(E, 1, imported=True, bad=True), truth(E + 8 * DAY, 1, False)]
    assert bad_rate(events, E + 8 * DAY - 1) == 1.0
    assert bad_rate(events, E + 8 * DAY) == 0.0


def test_4_1_a_null_truth_is_null() -> None:
    events = [ordered(E, 1), ordered(E, 2), truth(E + 5, 1, True, id=1), truth(E + 5, 2, None, id=2)]
    assert bad_rate(events, E + 7 * DAY) == 1.0, "of one order"


def test_4_1_an_unknown_number_is_null_also_so_far() -> None:
    asked = mean(orders.cost, known="so_far").over("30d")
    events = [ordered(E, 1, imported=True, cost=7)]
    assert answer(asked, events, E + 1, source=orders) == (None, Reason.EMPTY)
    assert answer(asked, events, E + 2 * DAY, source=orders) == (7.0, Reason.VALUE)


def test_4_4_two_late_columns_wait_for_the_later() -> None:
    asked = count(where=orders.bad & (orders.cost > 5)).over("30d", delay="7d")
    events = [ordered(E, 1, imported=True, cost=7, bad=True), ordered(E, 2, imported=True, cost=3, bad=True)]
    assert ask(asked, events, E + 7 * DAY - 1, source=orders) == 0
    assert ask(asked, events, E + 7 * DAY, source=orders) == 1


def test_4_1_a_truth_changes_what_a_predicate_admits() -> None:
    asked = last_n(orders.order, 5, where=orders.bad, known="so_far").lifetime()
    events = [ordered(E, 1), ordered(E + 1, 2), truth(E + 5, 2, True, id=1), truth(E + 9, 1, True, id=2)]
    assert ask(asked, events, E + 4, source=orders) is None
    assert ask(asked, events, E + 5, source=orders) == [2]
    assert ask(asked, events, E + 9, source=orders) == [1, 2]


def test_4_2_labels_flow_through_what_a_source_emits() -> None:
    both = Sources(payments.emit(customer=payments.customer, gone=claimed))
    view = FeatureView("view", entity="customer", source=both, features=[rate(both.gone).over("5d")])
    assert view.features[0].window.delay.micros == MATURITY
    events = [paid(E, 1), claim(E + 1, 1)]
    assert over(rate(both.gone).over("5d"), events, E + MATURITY, source=both) == 1.0
