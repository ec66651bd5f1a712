"""Topics for people: lists, rows from a place on, lag, and what may be dropped, over a log's port."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.core.codec import rows_to_batch
from headrace.core.errors import HeadraceError, InputError, NotFoundError, UsageError
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, instant, iso
from headrace.log.define import Topic
from headrace.log.port import Append, Log
from headrace.runtime import topics
from headrace.runtime.placing import place_rows
from headrace.runtime.project import Project, open_project
from headrace.testing.clocks import ManualClock
from headrace.testing.fakes import MemoryLog

START = "2026-01-01T00:00:00Z"


def orders(partitions: int = 2, **more: object) -> Topic:
    fields = {"order": hr.string, "customer": hr.int64, "amount": hr.decimal(8, 2)}
    return hr.Topic("orders", key="customer", id="order", partitions=partitions, fields=fields, **more)  # type: ignore[arg-type]  # each test gives what a topic takes


class Shop:
    """A log with orders: one a minute, of customers 0, 1, 2 in turn."""

    def __init__(self, partitions: int = 2) -> None:
        self.clock = ManualClock(START)
        self.log: Log = MemoryLog(clock=self.clock)
        self.topic = self.log.declare(orders(partitions)).topic
        self._count = 0

    def sell(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance("1m")
            row = (f"o{self._count}", self._count % 3, self._count * 100)
            place_rows(self.log, "orders", rows_to_batch(self.topic.schema, [row]))
            self._count += 1

    def where(self, text: str | None = None) -> topics.Filter:
        return topics.where(self.topic, text)


def names(rows: list[topics.Row]) -> list[object]:
    return [row.event["order"] for row in rows]


# Lists.


def test_a_list_says_whose_a_topic_is_and_how_much_it_holds() -> None:
    clock = ManualClock(START)
    log = MemoryLog(clock=clock)
    log.declare(orders(owner="shop", tags=["eu", "pii"], retention="30d", protected=False))
    for name, owner, tags in (("returns", "shop", ["eu"]), ("visits", "", [])):
        log.declare(hr.Topic(name, key="customer", fields={"customer": hr.int64}, owner=owner, tags=tags))
    log.declare(hr.Topic("headrace.catalog", key="customer", fields={"customer": hr.int64}))
    place_rows(log, "orders", rows_to_batch(orders().schema, [("o1", 1, 100), ("o2", 2, 100)]))
    assert [line.topic for line in topics.listed(log)] == ["orders", "returns", "visits"]
    assert [line.topic for line in topics.listed(log, internal=True)][0] == "headrace.catalog"
    assert [line.topic for line in topics.listed(log, owner="shop")] == ["orders", "returns"]
    assert [line.topic for line in topics.listed(log, owner="")] == ["visits"]
    assert [line.topic for line in topics.listed(log, tags=["eu"])] == ["orders", "returns"]
    assert topics.listed(log, tags=["eu", "pii"]) == [
        topics.TopicLine(
            topic="orders",
            owner="shop",
            tags=("eu", "pii"),
            partitions=2,
            imports=0,
            offsets=2,
            available_at=clock.now(),
            retention=Duration.parse("30d"),
            protected=False,
        )
    ]
    assert topics.listed(log, owner="")[0].available_at is None


# Rows.


def test_the_newest_rows_are_of_all_partitions_in_the_order_they_came() -> None:
    shop = Shop()
    shop.sell(200)  # more than a first look backwards holds
    every = shop.where()
    assert names(topics.tail(shop.log, "orders", limit=5, chosen=every)) == [f"o{i}" for i in range(195, 200)]
    assert names(topics.tail(shop.log, "orders", limit=500, chosen=every)) == [f"o{i}" for i in range(200)]
    assert topics.tail(shop.log, "orders", limit=0, chosen=every) == []
    few = shop.where("amount < 3")
    assert names(topics.tail(shop.log, "orders", limit=2, chosen=few)) == ["o1", "o2"], "they lie far behind"
    each = topics.newest(shop.log, "orders", limit=2, chosen=every)
    assert set(each) == {0, 1} and all(len(rows) == 2 for rows in each.values())
    one = topics.tail(shop.log, "orders", limit=3, chosen=every, partition=1)
    assert {row.partition for row in one} == {1} and len(one) == 3


def test_a_row_says_where_it_lies_and_what_became_of_it() -> None:
    shop = Shop(1)
    shop.sell(1)
    again = rows_to_batch(shop.topic.schema, [("o0", 0, 0), ("o0", 0, 5)])
    place_rows(shop.log, "orders", again)
    first, duplicate, conflict = topics.tail(shop.log, "orders", limit=9, chosen=shop.where())
    assert (first.partition, first.offset, first.verdict) == (0, 0, "accepted")
    assert first.event["order"] == "o0" and set(first.event) == {"order", "customer", "amount"}
    assert str(first.available_at) == "2026-01-01 00:01:00+00:00"
    assert (duplicate.verdict, conflict.verdict) == ("duplicate", "conflict")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("orders.amount >= decimal('8.00')", ["o8", "o9"]),
        ("order in ['o3', 'o5']", ["o3", "o5"]),
        ("_available_at < '2026-01-01T00:03:00Z'", ["o0", "o1"]),
        ("_event_time >= timestamp('2026-01-01T00:10:00Z')", ["o9"]),
        ("_verdict != 'accepted'", []),
        ("_offset == 0 and _partition == 0 and customer is not null", ["o0"]),
    ],
)
def test_a_filter_reads_fields_and_what_the_log_says(text: str, found: list[str]) -> None:
    shop = Shop(1)
    shop.sell(10)
    assert names(topics.tail(shop.log, "orders", limit=9, chosen=shop.where(text))) == found


def test_a_filter_that_is_wrong_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InputError) as seen:
        topics.where(orders(), "amuont > 1")
    assert (seen.value.code, seen.value.hint) == ("HR-0352", "did you mean 'amount'?")


def test_a_place_is_the_beginning_an_offset_or_an_instant() -> None:
    shop = Shop(1)
    shop.sell(10)
    (partition,) = topics.begin_at(shop.log, "orders", None)

    def begin(said: str | None) -> int:
        return topics.begin_at(shop.log, "orders", said)[partition]

    assert [begin(said) for said in (None, "Beginning", "7")] == [10, 0, 7]
    assert [begin(said) for said in ("2026-01-01T00:03:00Z", "2026-01-01T00:03:01+00:00", "2025-01-01T00:00:00Z")] == [
        2, 3, 0,
    ]  # fmt: skip
    assert begin("2027-01-01T00:00:00Z") == 10
    for said in ("-1", "now", "2026-01-01T00:00:00"):
        with pytest.raises(InputError) as seen:
            begin(said)
        assert (seen.value.code, seen.value.message) == ("HR-0353", f"{said!r} is no place to begin at")
    rows = topics.rows_from(shop.log, "orders", {partition: 7}, chosen=shop.where("order != 'o8'"))
    assert names(list(rows)) == ["o7", "o9"]
    with pytest.raises(NotFoundError, match="topic 'orders' has no partition 4"):
        topics.begin_at(shop.log, "orders", None, partition=4)
    with pytest.raises(NotFoundError, match="no topic 'order' in the log"):
        topics.begin_at(shop.log, "order", None)


@given(st.lists(st.integers(0, 5), min_size=0, max_size=30), st.integers(-2, 100))
def test_an_instant_is_found_where_a_look_at_every_row_finds_it(steps: list[int], asked: int) -> None:
    """steps: minutes between one append and the next; several rows have one instant."""
    shop = Shop(1)
    begun, times = shop.clock.now(), []
    for number, step in enumerate(steps):
        shop.clock.advance(Duration.parse(f"{step}m"))
        place_rows(shop.log, "orders", rows_to_batch(shop.topic.schema, [(f"o{number}", 1, 1)]))
        times.append(shop.clock.now())
    at = begun + asked * 60_000_000
    (found,) = topics.begin_at(shop.log, "orders", iso(instant(at))).values()
    assert found == sum(time < at for time in times)


def test_following_gives_what_comes_and_what_appears() -> None:
    shop = Shop()
    shop.sell(4)
    begin = topics.begin_at(shop.log, "orders", None)
    rows = topics.follow(shop.log, "orders", begin, chosen=shop.where())
    shop.sell(3)
    assert names(list(islice(rows, 3))) == ["o4", "o5", "o6"]
    shop.topic = shop.log.declare(orders(8)).topic  # its partitions are read from their first row
    shop.sell(6)
    assert sorted(map(str, names(list(islice(rows, 6))))) == ["o10", "o11", "o12", "o7", "o8", "o9"]
    rows.close()  # type: ignore[attr-defined]  # a generator is what follow returns


def test_following_one_partition_reads_no_other() -> None:
    shop = Shop()
    begin = topics.begin_at(shop.log, "orders", "beginning", partition=1)
    rows = topics.follow(shop.log, "orders", begin, chosen=shop.where(), every=False)
    shop.sell(12)
    held = {p.partition.index: p.end for p in shop.log.topics()[0].partitions}
    assert held[0] and held[1]
    assert {row.partition for row in islice(rows, held[1])} == {1}


def test_so_many_rows_are_taken_and_no_more() -> None:
    rows = [object(), object(), object()]
    assert list(topics.taken(iter(rows), 2)) == rows[:2]  # type: ignore[arg-type]  # any values
    assert list(topics.taken(iter(rows), None)) == rows  # type: ignore[arg-type]  # any values


# Lag.


def commit(log: Log, group: str, offsets: dict[Partition, int]) -> None:
    spare = log.declare(hr.Topic("spare", key="key", fields={"key": hr.int64})).partitions[0].partition
    log.append([Append(partition=spare, rows=[(1,)])], group=group, cut=Cut.of(offsets))


def test_lag_is_in_offsets_and_since_the_first_unread_row() -> None:
    shop = Shop(1)
    shop.sell(10)
    (partition,) = topics.begin_at(shop.log, "orders", None)
    commit(shop.log, "mailer", {partition: 7})
    commit(shop.log, "done", {partition: 10})
    shop.clock.advance("30s")
    now = shop.clock.now()
    behind, done, new = topics.lags(shop.log, "orders", ["mailer", "done", "new"], now=now)
    assert behind == topics.Lag(
        group="mailer",
        topic="orders",
        partition=0,
        committed=7,
        end=10,
        offsets=3,
        behind=Duration.parse("2m30s"),
    )
    assert topics.seconds(behind.behind) == 150.0
    assert (done.committed, done.offsets, done.behind.micros) == (10, 0, 0)
    assert (new.committed, new.offsets, new.behind) == (None, 10, Duration.parse("9m30s"))
    early = topics.lags(shop.log, "orders", ["new"], now=instant(START))
    assert early[0].behind.micros == 0, "a reader's clock that is behind makes no negative lag"


# Dropping.

SHOP = """
import headrace as hr
visits = hr.Topic("visits", key="customer", fields={"customer": hr.int64})
orders = hr.Topic("orders", key="customer", PROTECTED fields={"customer": hr.int64})
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[hr.count().over("1d")])
"""


def opened(folder: Path, text: str) -> Project:
    (folder / "definitions.py").write_text(text, encoding="utf-8")
    return open_project(folder)


def retired(folder: Path, protected: str = "") -> Project:
    """A project whose log holds orders, one row, which nothing declares any more."""
    with opened(folder, SHOP.replace("PROTECTED", protected)) as project:
        project.apply()
        project.produce("orders", [{"customer": 1}])
    without = "\n".join(SHOP.splitlines()[:3])
    with opened(folder, without) as project:
        project.apply(approved=() if protected else ("orders.retire",))
    return open_project(folder)


def test_what_is_declared_is_not_dropped_and_says_what_reads_it(tmp_path: Path) -> None:
    with opened(tmp_path, SHOP.replace("PROTECTED", "")) as project:
        project.apply()
        with pytest.raises(UsageError) as seen:
            topics.dropping(project, "orders")
        assert (seen.value.code, seen.value.detail) == ("HR-0814", "it is read by view activity")
        with pytest.raises(UsageError) as seen:
            topics.dropping(project, "headrace.catalog")
        assert seen.value.code == "HR-0817"
        with pytest.raises(NotFoundError):
            topics.dropping(project, "order")
    with opened(tmp_path, "\n".join(SHOP.splitlines()[:3])) as project:
        with pytest.raises(UsageError) as seen:  # not declared, and in force until it is applied
            topics.dropping(project, "orders")
        assert (seen.value.code, seen.value.detail) == ("HR-0814", "")


def test_a_protected_topic_is_dropped_with_an_approval_only(tmp_path: Path) -> None:
    with retired(tmp_path) as project:
        what = topics.dropping(project, "orders")
        assert (what.line.offsets, what.approval) == (1, "orders.drop")
        with pytest.raises(HeadraceError) as seen:
            topics.drop(project, what)
        assert (seen.value.code, seen.value.hint) == ("HR-0815", "headrace topics drop orders --approve orders.drop")
        with pytest.raises(UsageError) as wrong:
            topics.drop(project, what, approved=["orders.drop", "order.drop"])
        assert (wrong.value.code, wrong.value.hint) == ("HR-0812", "did you mean 'orders.drop'?")
        assert topics.dropping(project, "orders").line.offsets == 1, "nothing was dropped"
        topics.drop(project, what, approved=["orders.drop"])
        with pytest.raises(NotFoundError):
            topics.dropping(project, "orders")


def test_an_unprotected_topic_needs_none(tmp_path: Path) -> None:
    with retired(tmp_path, "protected=False,") as project:
        what = topics.dropping(project, "orders")
        assert what.approval == ""
        with pytest.raises(UsageError) as wrong:
            topics.drop(project, what, approved=["orders.drop"])
        assert (wrong.value.code, wrong.value.hint) == ("HR-0812", "")
        topics.drop(project, what)
        assert [line.topic for line in topics.listed(project.log)] == ["visits"]


def test_a_topic_is_described_with_what_reads_it(tmp_path: Path) -> None:
    with opened(tmp_path, SHOP.replace("PROTECTED", "")) as project:
        project.apply()
        found = topics.described(project, "orders")
        assert (found.readers, found.declared, found.state.version) == (("view activity",), True, 1)
        internal = topics.described(project, "headrace.catalog")
        assert (internal.readers, internal.declared) == ((), False)
