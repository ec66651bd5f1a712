"""SEMANTICS 1: what a point sees, and what the log says of a row. Each rule with its concrete events."""

from __future__ import annotations

from headrace.core import schema
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import ZERO, Duration
from headrace.log.define import Topic
from headrace.log.port import Verdict
from headrace.testing.oracles import (
    Row,
    judge_naive,
    visible_at,
    visible_available,
    visible_known_now,
    visible_served,
)
from tests.unit.testing.sequences import DAY, HOUR, MINUTE, SECOND, cut, event, ids, paid

other = Topic("reports", key="customer", event_time="at", fields={"customer": schema.string, "at": schema.timestamp})


def report(at: int, offset: int, **more: int) -> object:
    return event(other, at, offset=offset, customer="ann", **more)


def test_1_1_an_event_is_visible_iff_its_offset_is_below_the_cut() -> None:
    events = [paid(10, 0), paid(20, 1), paid(30, 2), paid(5, 9, partition=1, offset=0)]
    assert ids(visible_served(events, cut(payments=2))) == [0, 1]
    assert ids(visible_served(events, cut(payments=(2, 1)))) == [0, 1, 9]
    assert ids(visible_served(events, cut(payments=(0, 1)))) == [9]
    assert ids(visible_served(events, cut())) == []


def test_1_1_the_request_is_never_among_the_visible() -> None:
    """At a retry the cut of its own partition is the log's end, beyond its own offset."""
    events = [paid(10, 0), paid(20, 1), paid(30, 2)]
    assert ids(visible_served(events, cut(payments=3), events[1])) == [0, 2]
    assert ids(visible_known_now(events, 30, events[2])) == [0, 1]
    assert ids(visible_available(events, events[1], ZERO)) == [0]


def test_1_1_another_incarnation_of_the_topic_is_not_read() -> None:
    events = [paid(10, 0), paid(20, 1)]
    of_next = [(Partition("payments", 2, 0), 2)]
    assert visible_served(events, cut().of(dict(of_next))) == []


def test_1_4_only_known_now_sees_late_events_and_nothing_sees_quarantined_ones() -> None:
    events = [
        paid(10, 0, available_at=20),
        paid(5, 1, available_at=20, verdict=Verdict.LATE),
        paid(10, 2, available_at=20, verdict=Verdict.DUPLICATE),
        paid(10, 3, available_at=20, verdict=Verdict.CONFLICT),
        paid(99, 4, available_at=20, verdict=Verdict.AHEAD),
        paid(20, 5, available_at=20, verdict=Verdict.RESTAMPED),
    ]
    assert ids(visible_served(events, cut(payments=6))) == [0, 5]
    assert ids(visible_at(events, 30, ZERO)) == [0, 5]
    assert ids(visible_available(events, paid(30, 6), ZERO)) == [0, 5]
    assert ids(visible_known_now(events, 30, None)) == [0, 1, 5]


def test_1_6_available_takes_the_own_partition_below_the_request() -> None:
    """Whatever their instants say: offsets decide in the own partition."""
    request = paid(50, 2, available_at=60)
    events = [paid(90, 0, available_at=60), paid(10, 1, available_at=60), request, paid(20, 3, available_at=60)]
    assert ids(visible_available(events, request, ZERO)) == [0, 1]
    assert ids(visible_available(events, request, Duration(DAY))) == [0, 1]


def test_1_6_available_takes_other_partitions_by_available_at_then_order_key() -> None:
    request = paid(50, 7, available_at=60)
    events = [
        paid(40, 1, partition=1, available_at=59),  # before
        paid(70, 2, partition=1, available_at=59),  # before: available_at goes first
        paid(50, 6, partition=1, available_at=60),  # before by id
        paid(50, 7, partition=1, available_at=60),  # after by partition
        paid(50, 8, partition=1, available_at=60),  # after by id
        paid(49, 9, partition=1, available_at=60),  # before by event time
        paid(10, 10, partition=1, available_at=61),  # after
    ]
    assert ids(visible_available(events, request, ZERO)) == [1, 2, 6, 9]


def test_1_6_available_adds_the_lag_to_other_partitions_and_topics() -> None:
    request = paid(50, 7, available_at=60)
    events = [
        paid(40, 1, partition=1, available_at=50),
        paid(40, 2, partition=1, available_at=51),
        report(40, 0, available_at=50),
        report(40, 1, available_at=51),
    ]
    assert [e.offset for e in visible_available(events, request, Duration(10))] == [1, 0]
    assert [e.offset for e in visible_available(events, request, Duration(9))] == [1, 2, 0, 1]


def test_1_6_available_takes_other_topics_up_to_the_same_instant() -> None:
    request = paid(50, 7, available_at=60)
    events = [report(55, 0, available_at=60), report(55, 1, available_at=61)]
    assert [e.offset for e in visible_available(events, request, ZERO)] == [0]


def test_1_6_known_now_of_the_own_topic_is_what_is_before_t() -> None:
    request = paid(50, 5, available_at=60)
    events = [
        paid(49, 9, available_at=90),  # came later and is known now
        paid(50, 4, available_at=60),  # at t, before by id
        paid(50, 6, available_at=60),  # at t, after by id
        paid(50, 6, partition=1, available_at=59),  # at t, before by available_at
        paid(51, 1, available_at=51),  # after t
        report(50, 0, available_at=90),  # another topic: everything
    ]
    seen = visible_known_now(events, 50, request)
    assert [(e.topic, e.id, e.partition.index) for e in seen] == [
        ("payments", 9, 0),
        ("payments", 4, 0),
        ("payments", 6, 1),
        ("reports", 0, 0),
    ]


def test_1_6_a_plain_read_sees_what_was_available_by_its_t() -> None:
    events = [paid(10, 0, available_at=20), paid(10, 1, available_at=21)]
    assert ids(visible_at(events, 20, ZERO)) == [0]
    assert ids(visible_at(events, 21, Duration(1))) == [0]


# --- verdicts ---

plain = Topic(
    "plain",
    key="k",
    id="i",
    event_time="at",
    max_late="1h",
    max_ahead="5m",
    dedup="1d",
    partitions=2,
    fields={"i": schema.int64, "k": schema.string, "v": schema.float64, "at": schema.timestamp},
)


def row(i: int, at: int, now: int, v: float | None = 1.0, partition: int = 0, **more: bool) -> Row:
    return Row(partition=Partition("plain", 1, partition), values={"i": i, "k": "a", "v": v, "at": at}, at=now, **more)


def verdicts(*rows: Row) -> list[Verdict]:
    return [e.verdict for e in judge_naive(plain, rows)]


def test_1_2_available_at_is_the_running_maximum_of_the_partition() -> None:
    rows = [row(1, 10, 10), row(2, 10, 30), row(3, 10, 20), row(4, 10, 20, partition=1), row(5, 10, 40)]
    assert [e.available_at for e in judge_naive(plain, rows)] == [10, 30, 30, 20, 40]


def test_1_2_a_simulated_clock_runs_on_event_times() -> None:
    topic = Topic(
        "plain", key="k", event_time="at", clock="simulated", fields={"k": schema.string, "at": schema.timestamp}
    )
    partition = Partition("plain", 1, 0)
    rows = [Row(partition=partition, values={"k": "a", "at": at}, at=10**9) for at in (5, 9, 7, 9, 11)]
    assert [e.available_at for e in judge_naive(topic, rows)] == [5, 9, 9, 9, 11]


def test_1_3_a_second_event_of_equal_payload_is_a_duplicate_and_of_another_is_quarantined() -> None:
    assert verdicts(row(1, 5, 10), row(1, 5, 11), row(1, 5, 12, v=2.0), row(2, 5, 12)) == [
        Verdict.ACCEPTED,
        Verdict.DUPLICATE,
        Verdict.CONFLICT,
        Verdict.ACCEPTED,
    ]


def test_1_3_identity_is_of_the_partition() -> None:
    assert verdicts(row(1, 5, 10), row(1, 5, 10, partition=1)) == [Verdict.ACCEPTED, Verdict.ACCEPTED]


def test_1_3_an_id_is_known_for_dedup_of_available_at() -> None:
    now = 10 * DAY
    assert verdicts(row(1, now, now), row(1, now, now + DAY), row(1, now + DAY, now + DAY + 1)) == [
        Verdict.ACCEPTED,
        Verdict.DUPLICATE,
        Verdict.ACCEPTED,
    ]


def test_1_3_a_late_column_is_no_part_of_the_payload() -> None:
    topic = Topic(
        "plain",
        key="i",
        id="i",
        fields={"i": schema.int64, "late": schema.field(schema.boolean, available_after="1d")},
    )
    rows = [
        Row(partition=Partition("plain", 1, 0), values={"i": 1, "late": None}, at=10),
        Row(partition=Partition("plain", 1, IMPORTS_FROM), values={"i": 1, "late": True}, at=10),
    ]
    assert [e.verdict for e in judge_naive(topic, rows)] == [Verdict.ACCEPTED, Verdict.DUPLICATE]


def test_1_4_lateness_is_event_time_against_available_at_exact_to_the_microsecond() -> None:
    now = DAY
    assert verdicts(
        row(1, now - HOUR, now),
        row(2, now - HOUR - 1, now),
        row(3, now + 5 * MINUTE, now),
        row(4, now + 5 * MINUTE + 1, now),
    ) == [Verdict.ACCEPTED, Verdict.LATE, Verdict.ACCEPTED, Verdict.AHEAD]


def test_1_4_an_event_too_far_ahead_may_come_again_when_its_time_has_come() -> None:
    ahead = DAY + HOUR
    assert verdicts(row(1, ahead, DAY), row(1, ahead, ahead)) == [Verdict.AHEAD, Verdict.ACCEPTED]


def test_1_4_lateness_is_measured_by_the_running_maximum() -> None:
    assert verdicts(row(1, DAY, DAY), row(2, DAY - HOUR - 1, DAY - HOUR)) == [Verdict.ACCEPTED, Verdict.LATE]


def test_1_5_an_import_knows_the_ids_of_every_partition_for_ever() -> None:
    imported = Row(partition=Partition("plain", 1, IMPORTS_FROM), values=row(1, 5, 10).values, at=40 * DAY)
    unequal = Row(partition=Partition("plain", 1, IMPORTS_FROM), values=row(1, 5, 10, v=2.0).values, at=40 * DAY)
    assert verdicts(row(1, 5, 10), imported, unequal) == [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.CONFLICT]


def test_1_5_a_live_row_does_not_know_the_ids_of_imports() -> None:
    imported = Row(partition=Partition("plain", 1, IMPORTS_FROM), values=row(1, 5, 10).values, at=10)
    assert verdicts(imported, row(1, 5, 11)) == [Verdict.ACCEPTED, Verdict.ACCEPTED]


def test_2_1_a_request_outside_the_skew_is_stamped_with_the_append_instant() -> None:
    now = DAY
    rows = [
        row(1, now - MINUTE, now, request=True),
        row(2, now - MINUTE - 1, now, request=True),
        row(3, now + HOUR, now, request=True),
        row(4, now - 2 * MINUTE, now),
    ]
    judged = judge_naive(plain, rows)
    assert [e.verdict for e in judged] == [Verdict.ACCEPTED, Verdict.RESTAMPED, Verdict.RESTAMPED, Verdict.ACCEPTED]
    assert [e.event_time for e in judged] == [now - MINUTE, now, now, now - 2 * MINUTE]
    assert judged[1].values["at"] == now - MINUTE - 1, "the client's value stays in its field"


def test_2_1_without_an_event_time_field_an_event_happens_when_it_is_appended() -> None:
    topic = Topic("plain", key="k", fields={"k": schema.string})
    rows = [Row(partition=Partition("plain", 1, 0), values={"k": "a"}, at=at) for at in (3 * SECOND, 2 * SECOND)]
    assert [(e.event_time, e.available_at) for e in judge_naive(topic, rows)] == [
        (3 * SECOND, 3 * SECOND),
        (2 * SECOND, 3 * SECOND),
    ]
