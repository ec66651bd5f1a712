"""The door for outside checks: both file formats, verdicts as the log gives them, cuts, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.core import schema
from headrace.core.errors import HeadraceError
from headrace.core.times import Instant, iso
from headrace.features.door import replay_files
from headrace.log.define import Topic
from headrace.log.plan import Judge

SECOND = 1_000_000

orders = Topic(
    "orders",
    key="customer",
    id="order",
    event_time="at",
    max_late="1h",
    fields={
        "order": schema.string,
        "customer": schema.int64,
        "amount": schema.decimal(9, 2),
        "weight": schema.float64,
        "at": schema.timestamp,
    },
)
returns = Topic("returns", key="order", event_time="at", fields={"order": schema.string, "at": schema.timestamp})
returned = hr.Label("returned", of=orders, source=returns, on="order", within="1m")
activity = hr.FeatureView(
    "activity",
    entity="customer",
    source=orders,
    features=[hr.count().over("1d"), hr.sum(orders.amount).over("1d"), hr.max(orders.weight).over("1d")],
)
quality = hr.FeatureView(
    "quality",
    entity="customer",
    source=orders,
    features=[hr.count().over("1d"), hr.rate(returned, known="so_far").over("1d", delay="0s")],
)


def event(offset, order, customer, at, *, partition=0, amount="1.00", available=None, **more):
    said = {"topic": "orders", "partition": partition, "offset": offset, "order": order, "customer": customer}
    available = at if available is None else available
    times = {"at": iso(Instant(at * SECOND)), "available_at": iso(Instant(available * SECOND))}
    return {**said, "amount": amount, "weight": 0.5, **times, **more}


EVENTS = [
    event(3, "a", 1, 10),
    event(7, "b", 1, 20),
    event(8, "b", 1, 20, available=21),
    event(9, "c", 1, 30),
    event(0, "d", 1, 5, partition=1, available=25),
    {
        "topic": "returns",
        "partition": 0,
        "offset": 0,
        "order": "a",
        "at": iso(Instant(15 * SECOND)),
        "available_at": iso(Instant(16 * SECOND)),
    },
]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(tmp_path, points, events=EVENTS, views=(activity, quality), **more):
    given = events if hasattr(events, "exists") else lines(tmp_path / "events.ndjson", events)
    asked = points if hasattr(points, "exists") else lines(tmp_path / "points.ndjson", points)
    out = tmp_path / "out.parquet"
    done = replay_files(
        views, {"returned": returned}, [orders, returns], events=given, points=asked, out=out, judge=Judge, **more
    )
    assert done.points == pq.read_metadata(out).num_rows and not list(tmp_path.glob("*.part"))
    return pq.read_table(out).to_pydict()


def test_requests_hypothetical_requests_and_plain_reads_are_answered(tmp_path) -> None:
    points = [
        {"point": "logged", "order": "c"},
        {"point": "never", "order": "z", "customer": 1, "amount": 2.5, "weight": 9, "t": iso(Instant(30 * SECOND))},
        {"point": "read", "customer": 1, "t": 30 * SECOND},
        {"point": "read", "customer": 2, "t": 30 * SECOND, "view": "activity"},
    ]
    found = answers(tmp_path, points)
    assert found["point"] == ["logged", "never", "read", "read"]
    assert found["activity.count_1d"] == [4, 5, 4, 0]  # the duplicate is not taken
    assert [None if v is None else str(v) for v in found["sum_amount_1d"]] == ["4.00", "6.50", "4.00", None]
    assert found["max_weight_1d"] == [0.5, 9.0, 0.5, None]
    assert found["quality.count_1d"] == [4, 5, 4, None]
    assert found["returned_rate_1d"] == [1 / 4, 1 / 5, 1 / 4, None]
    assert found["sum_amount_1d__reason"] == ["VALUE", "VALUE", "VALUE", "EMPTY"]
    assert found["quality.count_1d__reason"] == ["VALUE"] * 3 + [None]


def test_cuts_are_objects_or_lists_and_offsets_need_not_be_dense(tmp_path) -> None:
    at = {"customer": 1, "t": iso(Instant(40 * SECOND))}
    cuts = [
        {"orders/0": 8, "orders/1": 1, "returns/0": 0},
        [{"topic": "orders", "partition": 0, "offset": 4}],
        {"orders/1": 0},
        json.dumps({"orders/0": 100, "orders/1": 100}),
        None,
    ]
    found = answers(tmp_path, [{"point": i, "cut": cut, **at} for i, cut in enumerate(cuts)])
    assert found["point"] == [0, 1, 2, 3, 4]
    assert found["activity.count_1d"] == [3, 1, 0, 4, 4]
    assert found["returned_rate_1d"] == [0.0, 1.0, None, 1 / 4, 1 / 4]


def test_parquet_and_payloads_say_the_same_as_ndjson(tmp_path) -> None:
    points = [{"point": 1, "order": "c"}, {"point": 2, "order": "b"}]
    wanted = answers(tmp_path, points)
    columns = ("topic", "partition", "offset", "available_at")
    payloads = [
        {**{c: row[c] for c in columns}, "payload": {k: v for k, v in row.items() if k not in columns}}
        for row in EVENTS
    ]
    assert answers(tmp_path, points, payloads) == wanted
    as_text = [{**row, "payload": json.dumps(row["payload"])} for row in payloads]
    names = list(dict.fromkeys(name for row in EVENTS for name in row))
    table = pa.table({name: [row.get(name) for row in EVENTS] for name in names})
    amount = table.schema.get_field_index("amount")
    table = table.set_column(amount, "amount", table.column("amount").cast(pa.decimal128(9, 2)))
    pq.write_table(table, tmp_path / "events.parquet")
    pq.write_table(pa.Table.from_pylist(as_text), tmp_path / "payloads.parquet")
    pq.write_table(pa.Table.from_pylist(points), tmp_path / "points.parquet")
    assert answers(tmp_path, tmp_path / "points.parquet", tmp_path / "events.parquet") == wanted
    assert answers(tmp_path, points, tmp_path / "payloads.parquet") == wanted


def test_events_in_any_order_are_judged_in_order_of_offset(tmp_path) -> None:
    events = [
        event(0, "a", 1, 100_000),
        event(1, "b", 1, 100_000 - 3_700, available=100_000),  # late by more than an hour
        event(2, "a", 1, 100_000, amount="7.00"),  # the id again, with another payload
        event(3, "c", 1, 200_000, available=100_001),  # a day ahead
        event(4, "d", 1, 100_002),
    ]
    points = [{"point": 1, "customer": 1, "t": iso(Instant(300_000 * SECOND)), "cut": {"orders/0": 9}}]
    assert answers(tmp_path, points, events[::-1], [quality])["count_1d"] == [0]
    points[0]["t"] = iso(Instant(150_000 * SECOND))
    assert answers(tmp_path, points, events[::-1], [quality])["count_1d"] == [2]
    assert answers(tmp_path, points, events, [quality], kind="known_now")["count_1d"] == [3]
    verdicts = ("ACCEPTED", "ACCEPTED", "ACCEPTED", "CONFLICT", "LATE")
    given = [{**row, "verdict": verdict} for row, verdict in zip(events, verdicts, strict=True)]
    assert answers(tmp_path, points, given, [quality])["count_1d"] == [3]


def test_a_request_outside_its_skew_counts_at_the_instant_of_its_append(tmp_path) -> None:
    events = [event(0, "a", 1, 100, request=True), event(1, "b", 1, 900, available=110, request=True)]
    found = answers(tmp_path, [{"point": 1, "order": "b"}, {"point": 2, "order": "a"}], events, [quality])
    assert found["count_1d"] == [2, 1]


def test_no_points_give_no_rows_and_all_columns(tmp_path) -> None:
    empty = pa.table({"point": pa.array([], pa.int64()), "customer": pa.array([], pa.int64())})
    pq.write_table(empty, tmp_path / "none.parquet")
    found = answers(tmp_path, tmp_path / "none.parquet")
    assert set(found) >= {"point", "sum_amount_1d", "sum_amount_1d__reason"} and found["point"] == []


BAD = [
    ("events", [{"partition": 0}], "HR-0526", "no column 'topic'"),
    ("events", [event(0, None, 1, 1)], "HR-0526", "column 'order' is null in row 0"),
    ("events", [{**event(0, "a", 1, 1), "topic": "order"}], "HR-0527", "unknown topic 'order'"),
    ("events", [event(0, "a", 1, 1, amuont=3)], "HR-0527", "'amuont' is no field of any topic"),
    ("events", [*EVENTS[:1], {**EVENTS[5], "customer": 1}], "HR-0527", "row 1 holds 'customer'"),
    ("events", [event(0, "a", "x", 1)], "HR-0522", "column 'customer': row 0"),
    ("events", [event(0, "a", 1, 1, amount="1.005")], "HR-0522", "too many digits"),
    ("events", [event(0, "a", 1, 1), event(0, "b", 1, 1)], "HR-0528", "offset 0 of orders/0 stands twice"),
    ("events", [event(0, "a", 1, 5), event(1, "b", 1, 1)], "HR-0528", "became available before offset 0"),
    ("events", [event(-1, "a", 1, 5)], "HR-0528", "offset outside"),
    ("events", [{**event(0, "a", 1, 1), "available_at": "2026-01-01T00:00:00"}], "HR-0522", "without zone"),
    ("events", [{**event(0, "a", 1, 1), "verdict": "FINE"}], "HR-0527", "unknown verdict 'FINE'"),
    ("points", [{"order": "a"}], "HR-0526", "no column 'point'"),
    ("points", [{"point": 1, "view": "activty", "order": "a"}], "HR-0527", "unknown view 'activty'"),
    ("points", [{"point": 1, "request": "orderz"}], "HR-0527", "unknown topic 'orderz'"),
    ("points", [{"point": 1, "order": "a", "cut": {"orders": 1}}], "HR-0529", "cut of row 0"),
    ("points", [{"point": 1, "order": "a", "cut": {"orders/0": -1}}], "HR-0529", "cut of row 0"),
    ("points", [{"point": 1, "order": "a", "cut": {"ordres/0": 1}}], "HR-0527", "unknown topic 'ordres'"),
    ("points", [{"point": 1, "order": "a", "cut": "{"}], "HR-0525", "is no JSON"),
    ("points", [{"point": 1, "order": "zz", "customer": 1}], "HR-0523", "says no instant"),
    ("points", [{"point": 1, "t": "1970-01-01T00:00:00Z"}], "HR-0524", "no column 'customer'"),
]


@pytest.mark.parametrize(("where", "rows", "code", "words"), BAD)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, where, rows, code, words) -> None:
    points = rows if where == "points" else [{"point": 1, "order": "a"}]
    events = rows if where == "events" else EVENTS
    with pytest.raises(HeadraceError) as refused:
        answers(tmp_path, points, events)
    assert refused.value.code == code and words in str(refused.value)
    assert not (tmp_path / "out.parquet").exists()


def test_files_that_are_none_are_refused(tmp_path) -> None:
    (tmp_path / "broken").write_bytes(b"PAR1 and nothing more")
    (tmp_path / "words").write_text("point\n1\n")
    for path in (tmp_path / "absent", tmp_path / "broken", tmp_path / "words"):
        with pytest.raises(HeadraceError) as refused:
            answers(tmp_path, path)
        assert refused.value.code == "HR-0525"


def test_many_distinct_instants_are_judged_in_one_go_and_alike(tmp_path) -> None:
    """Without a repeated id a partition is judged whole; with one, run by run: the others' verdicts are the same."""
    rng = np.random.default_rng(7)
    available = np.sort(rng.integers(100_000, 103_000, 300))
    times = available - rng.choice([0, 10, 4_000], 300)
    events = [
        event(i, f"o{i}", 1, int(t), available=int(a)) for i, (t, a) in enumerate(zip(times, available, strict=True))
    ]
    points = [{"point": 1, "customer": 1, "t": iso(Instant(200_000 * SECOND)), "cut": {"orders/0": 1_000}}]
    points = [{**points[0], "t": iso(Instant(104_000 * SECOND))}]
    whole = answers(tmp_path, points, events, [quality])["count_1d"]
    again = event(300, "o0", 1, int(times[0]), available=103_500)
    assert answers(tmp_path, points, [*events, again], [quality])["count_1d"] == whole
    assert whole == [int((available - times < 3_600).sum())]
