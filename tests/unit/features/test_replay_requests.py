"""Rows as callers have them: logged ids, hypothetical requests, plain reads, given cuts, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import headrace as hr
from headrace.core import schema
from headrace.core.aggregate import Reason
from headrace.core.codec import instants, physical_array
from headrace.core.errors import NotFoundError, SchemaError, UsageError
from headrace.core.points import Cut, Partition
from headrace.features.plan import ViewPlan
from headrace.features.replay import column_names, replay, topics_of
from headrace.features.replay_given import Cuts
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows
from headrace.log.define import Topic
from headrace.log.port import Verdict

orders = Topic(
    "orders",
    key="customer",
    id="order",
    event_time="at",
    fields={
        "order": schema.string,
        "customer": schema.int64,
        "amount": schema.decimal(9, 2),
        "channel": schema.string,
        "at": schema.timestamp,
    },
)
activity = hr.FeatureView(
    "activity",
    entity="customer",
    source=orders,
    features=[hr.count().over("1d"), hr.sum(orders.amount).over("1d"), hr.last(orders.channel)],
)


def table(rows, verdicts=None, offsets=None):
    """orders: (order, customer, units, channel, at), available at their time."""
    at = np.array([row[4] for row in rows], np.int64)
    names = orders.schema.names
    fields = {n: physical_array([row[i] for row in rows], orders.schema[n].type) for i, n in enumerate(names)}
    return pa.table(
        {
            "_offset": pa.array(np.arange(len(rows)) if offsets is None else offsets),
            "_available_at": instants(at),
            "_event_time": instants(at),
            "_verdict": pa.array(np.zeros(len(rows), np.uint8) if verdicts is None else np.array(verdicts, np.uint8)),
            **fields,
        }
    )


LIVE = Partition("orders", 1, 0)
ROWS = [("a", 1, 100, "web", 10), ("b", 1, 200, "shop", 20), ("c", 2, 300, None, 30), ("d", 1, 400, None, 40)]


def asked(given, *, events=None, kind="served", request="orders", **more):
    events = Events([orders], {LIVE: table(ROWS)}) if events is None else events
    made = Rows.of(events, pa.table(given), request=request, **more)
    return replay([ViewPlan.compile(activity, {})], events, made, kind=kind, reasons=True).to_pydict()


def test_a_logged_id_is_that_request_with_the_payload_of_the_log() -> None:
    found = asked({"order": ["b", "d"], "customer": [7, 7], "amount": ["1.00", "1.00"]})
    assert found["count_1d"] == [2, 3]
    assert [str(one) for one in found["sum_amount_1d"]] == ["3.00", "7.00"]
    assert found["last_channel"] == ["web", "shop"]


def test_an_unknown_id_is_a_hypothetical_request_and_no_id_a_plain_read() -> None:
    given = {
        "order": ["z", None],
        "customer": pa.array([1, 1], pa.int32()),
        "amount": ["5.5", None],
        "t": ["1970-01-01T00:00:00.000020Z"] * 2,
    }
    found = asked(given)
    assert found["count_1d"] == [3, 2]
    assert [str(one) for one in found["sum_amount_1d"]] == ["8.50", "3.00"]
    assert found["last_channel"] == ["shop", "shop"]


def test_a_given_cut_stands_in_the_place_of_available() -> None:
    cuts = Cuts.of([Cut.of({LIVE: 1}), None, Cut.of({LIVE: 4})])
    found = asked({"customer": [1, 1, 1], "t": instants(np.array([25, 25, 25]))}, request=None, cuts=cuts)
    assert found["count_1d"] == [1, 2, 2]  # nothing after t is read, whatever the cut


def test_offsets_may_begin_anywhere_and_have_gaps() -> None:
    events = Events([orders], {LIVE: table(ROWS, offsets=np.array([5, 9, 10, 70]))})
    cuts = Cuts.of([Cut.of({LIVE: offset}) for offset in (5, 6, 9, 10, 71)])
    found = asked({"customer": [1] * 5, "t": instants(np.full(5, 40))}, events=events, request=None, cuts=cuts)
    assert found["count_1d"] == [0, 1, 1, 2, 3]


def test_a_null_entity_is_empty_and_counts_not_even_itself() -> None:
    found = asked({"order": ["z"], "customer": pa.array([None], pa.int64()), "t": instants(np.array([99]))})
    assert found["count_1d"] == [0] and found["sum_amount_1d"] == [None]
    assert found["sum_amount_1d__reason"] == [Reason.EMPTY.name]


def test_duplicates_and_quarantined_rows_are_no_requests() -> None:
    rows = [ROWS[0], ("a", 1, 100, "web", 15), ("q", 1, 900, "web", 18), ROWS[1]]
    verdicts = [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.AHEAD, Verdict.ACCEPTED]
    events = Events([orders], {LIVE: table(rows, verdicts)})
    assert len(Rows.logged(events, "orders")) == 2
    found = asked({"order": ["a", "b", "q"], "customer": [1, 1, 1], "t": instants(np.array([99] * 3))}, events=events)
    assert found["count_1d"] == [1, 2, 3]  # "q" is unknown: a hypothetical request


def test_a_late_request_is_answered_and_not_seen_by_others_but_known_now() -> None:
    rows = [ROWS[0], ("late", 1, 50, "web", 12), ROWS[1]]
    events = Events([orders], {LIVE: table(rows, [0, Verdict.LATE, 0])})
    given = {"order": ["a", "late", "b"]}
    assert asked(given, events=events)["count_1d"] == [1, 2, 2]
    assert asked(given, events=events, kind="known_now")["count_1d"] == [1, 2, 3]


def test_errors_name_the_column_and_the_row() -> None:
    with pytest.raises(SchemaError, match="HR-0522 column 'customer'") as no_number:
        asked({"order": ["z"], "customer": ["x"], "t": instants(np.array([1]))})
    assert no_number.value.code == "HR-0522"
    with pytest.raises(SchemaError, match="row 1 says no instant"):
        asked({"order": ["a", "z"], "customer": [1, 1]})
    with pytest.raises(SchemaError, match="no column 'customer'"):
        asked({"t": instants(np.array([1]))}, request=None)
    with pytest.raises(SchemaError, match="row 0 is not a finite number"):
        asked({"customer": [float("nan")], "t": instants(np.array([1]))}, request=None)
    with pytest.raises(SchemaError, match="timestamp without zone"):
        asked({"customer": [1], "t": ["2026-01-01T00:00:00"]}, request=None)
    with pytest.raises(NotFoundError, match="no topic 'order' among the events"):
        asked({"customer": [1]}, request="order")


def test_columns_are_named_by_the_view_where_two_share_a_name() -> None:
    other = hr.FeatureView(
        "channels", entity="channel", source=orders, features=[hr.count().over("1d"), hr.count().over("2d")]
    )
    plans = [ViewPlan.compile(view, {}) for view in (activity, other)]
    names = column_names(plans)
    assert names["activity", "count_1d"] == "activity.count_1d" and names["channels", "count_2d"] == "count_2d"
    assert topics_of(plans) == ("orders",)
    events = Events([orders], {LIVE: table(ROWS)})
    both = replay(plans, events, Rows.logged(events, "orders"), threads=2)
    alone = [replay([plan], events, Rows.logged(events, "orders")) for plan in plans]
    assert both.column("activity.count_1d").equals(alone[0].column("count_1d"))
    assert both.column("count_2d").equals(alone[1].column("count_2d"))


def test_a_row_asked_twice_is_answered_twice() -> None:
    found = asked({"order": ["b", "a", "b", "d", "b"]})
    assert found["count_1d"] == [2, 1, 2, 3, 2]


def test_nothing_asked_or_nothing_logged_gives_the_columns_all_the_same() -> None:
    nobody = Events([orders], {})
    plans = [ViewPlan.compile(activity, {})]
    none = replay(plans, nobody, Rows.logged(nobody, "orders"), reasons=True)
    assert none.num_rows == 0 and none.column_names[:2] == ["count_1d", "count_1d__reason"]
    given = {"order": ["a"], "customer": [1], "amount": ["1.00"], "channel": ["web"], "t": instants(np.array([5]))}
    for kind in ("served", "available", "known_now"):
        found = asked(given, events=nobody, kind=kind)
        assert found["count_1d"] == [1] and found["last_channel__reason"] == [Reason.EMPTY.name]
    alone = Rows.of(nobody, pa.table({"customer": [1], "t": instants(np.array([5]))}))
    assert replay(plans, Events([], {}), alone).to_pydict()["count_1d"] == [0]


def test_rows_of_other_events_are_refused() -> None:
    events, others = (Events([orders], {LIVE: table(ROWS)}) for _ in range(2))
    with pytest.raises(UsageError, match="HR-0532"):
        replay([ViewPlan.compile(activity, {})], events, Rows.logged(others, "orders"))


def test_what_lies_beyond_a_cut_is_not_there() -> None:
    events = Events([orders], {LIVE: table(ROWS), Partition("orders", 1, 1): table([("e", 1, 1, None, 5)])})
    assert events.cut() == Cut.of({LIVE: 4, Partition("orders", 1, 1): 1})
    some = events.below(Cut.of({LIVE: 2}))
    assert len(some.topic("orders")) == 2 and some.cut() == Cut.of({LIVE: 2})
    events.topic("orders")  # laid out or not, it is the same
    assert events.below(events.cut()).topic("orders").table.equals(events.topic("orders").table)
