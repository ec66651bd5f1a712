"""Offset and effect in one transaction, over SQLite and the fake cluster; placeholders of every driver's style."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import headrace as hr
from headrace.core.errors import StateError, UsageError
from headrace.sdk.connect import connect
from headrace.sdk.consumer import Consumer, options
from headrace.sdk.define import Budget, Event, Placed, Reason
from headrace.sdk.engine import Engine
from headrace.sdk.producer import Producer
from headrace.sdk.quarantine import release
from headrace.sdk.run import SqlWorker
from headrace.sdk.sql import MOVE_OFFSET, Database, SqlOffsets, SqlSession, paramstyle_of, placed
from headrace.testing.kafka.messages import MemoryMessages

TOPIC = hr.Topic("payments", key="customer", partitions=2, fields={"n": hr.int64, "customer": hr.string})


@pytest.fixture
def messages() -> MemoryMessages:
    made = MemoryMessages()
    made.make("payments", 2, {})
    with Producer(made, TOPIC) as producer:
        for number in range(40):
            producer.send({"n": number, "customer": f"c{number % 4}"})
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE effects (n INTEGER)")
    connection.close()
    return path


@pytest.fixture
def offsets(file: Path) -> SqlOffsets:
    return SqlOffsets(lambda: sqlite3.connect(file, timeout=10))


def rows(file: Path, text: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(text).fetchall()
    finally:
        connection.close()


def effect(event: Event, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO effects VALUES (?)", (event["n"],))


@pytest.mark.parametrize(
    ("style", "text", "values"),
    [
        ("qmark", "next_offset = ? WHERE group_name = ?", 7),
        ("format", "next_offset = %s WHERE group_name = %s", 7),
        ("numeric", "next_offset = :1 WHERE group_name = :2", 7),
        ("named", "next_offset = :b WHERE group_name = :g", {"b": 7}),
        ("pyformat", "next_offset = %(b)s WHERE group_name = %(g)s", {"b": 7}),
    ],
)
def test_placeholders_are_the_drivers(style: str, text: str, values: object) -> None:
    said, given = placed(MOVE_OFFSET, {"g": "g", "t": "t", "i": "i", "p": 0, "a": 3, "b": 7}, style)
    assert text in said
    if isinstance(given, dict):
        assert given == {"g": "g", "t": "t", "i": "i", "p": 0, "a": 3, "b": 7}
    else:
        assert given == (7, "g", "t", 0, "i", 3)


def test_a_style_is_found_out_or_asked_for() -> None:
    connection = sqlite3.connect(":memory:")
    assert paramstyle_of(connection) == "qmark"
    connection.close()
    with pytest.raises(UsageError) as raised:
        paramstyle_of(object())
    assert raised.value.code == "HR-0439"
    with pytest.raises(UsageError):
        placed("x", {}, "question marks")


def test_a_connection_that_commits_by_itself_is_refused(file: Path, messages: MemoryMessages) -> None:
    offsets = SqlOffsets(lambda: sqlite3.connect(file, isolation_level=None))
    with Consumer(messages, TOPIC, group="g", offsets=offsets) as consumer, pytest.raises(UsageError) as raised:
        consumer.run(effect, until="end")
    assert raised.value.code == "HR-0438"


def test_offsets_are_the_tables_and_not_the_groups(file: Path, offsets: SqlOffsets, messages: MemoryMessages) -> None:
    with Consumer(messages, TOPIC, group="g", offsets=offsets) as consumer:
        assert consumer.run(effect, until="end").handled == 40
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("DELETE FROM headrace_offsets WHERE partition_index = 0")
    connection.close()
    with Consumer(messages, TOPIC, group="g", offsets=offsets) as consumer:
        again = consumer.run(effect, until="end").handled
    assert again == len([each for each in messages.records("payments") if each[0] == 0]) > 0


def test_an_effect_is_rolled_back_with_its_failure(file: Path, offsets: SqlOffsets, messages: MemoryMessages) -> None:
    failing = {"c1"}

    def handle(event: Event, connection: sqlite3.Connection) -> None:
        effect(event, connection)
        if event.key in failing:
            raise ValueError("no")

    with Consumer(messages, TOPIC, group="g", offsets=offsets, budget=Budget(attempts=2)) as consumer:
        counts = consumer.run(handle, until="end")
    assert counts.set_aside == {Reason.FAILED: 1, Reason.BEHIND: 9} and counts.handled == 30
    assert len(rows(file, "SELECT * FROM effects")) == 30
    failing.clear()
    release(messages, TOPIC, group="g", key="c1")
    with Consumer(messages, TOPIC, group="g", offsets=offsets) as consumer:
        assert consumer.run(handle, until="end").released == 10
    assert sorted(rows(file, "SELECT n FROM effects")) == [(each,) for each in range(40)]


def test_a_partition_that_another_works_on_is_dropped_and_its_effect_rolled_back(
    file: Path, offsets: SqlOffsets, messages: MemoryMessages
) -> None:
    moved = []

    def handle(event: Event, connection: sqlite3.Connection) -> None:
        effect(event, connection)
        if not moved and event.offset == 3:
            moved.append(event)
            raise ValueError("tried again, when another has moved on")
        if moved and len(moved) == 1 and event.partition != moved[0].partition:
            return

    def other() -> None:
        """Another consumer of the group, which this one does not know of, does offset 3."""
        connection = sqlite3.connect(file, timeout=10)
        with connection:
            connection.execute("INSERT INTO effects VALUES (?)", (moved[0]["n"],))
            done = connection.execute(
                "UPDATE headrace_offsets SET next_offset = 4 WHERE partition_index = ? AND next_offset = 3",
                (moved[0].partition,),
            )
            assert done.rowcount == 1
        connection.close()

    consumer = Consumer(messages, TOPIC, group="g", offsets=offsets, budget=Budget(attempts=5))
    thread = threading.Thread(target=lambda: consumer.run(handle))
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not moved and time.monotonic() < deadline:
            time.sleep(0.001)
        other()
        while len(rows(file, "SELECT * FROM effects")) < 40 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        consumer.close()
        thread.join(20)
    assert sorted(rows(file, "SELECT n FROM effects")) == [(each,) for each in range(40)], "each once"


class Interrupted(SqlOffsets):
    """Something happens just before an offset is moved, once each."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        super().__init__(connect)
        self.acts: list[Callable[[], None]] = []

    def session(self) -> SqlSession:
        acts, found = self.acts, super().session()

        class Session(SqlSession):
            def move(self, group: str, topic: str, topic_id: str, partition: int, a: int, b: int) -> bool:
                if acts:
                    acts.pop()()
                return super().move(group, topic, topic_id, partition, a, b)

        return Session(found.connection, "qmark")


@pytest.mark.parametrize(
    "when", ["before it moves the offset", "as it moves the offset", "as it finds the offset moved"]
)
def test_an_event_of_before_a_partition_came_anew_counts_for_nothing(
    when: str, file: Path, messages: MemoryMessages
) -> None:
    """A worker sleeps with an event in its hand while the partition is lost, done further by another, and given again.
    Else the offset would go back to behind that event, and what the other did would be done twice."""
    offsets = Interrupted(lambda: sqlite3.connect(file, timeout=10))
    engine = Engine(
        connect(messages, TOPIC),
        options("g", "key", 1, None, "earliest", "refuse", 2_000, 20_000, "1s", "20s", sql=True),
        sql=offsets,
        ready=lambda _: None,
    )
    engine.open()
    worker = SqlWorker(engine, offsets, effect)

    def another_does(upto: int) -> None:
        engine.lost((index,))
        connection = sqlite3.connect(file, timeout=10)
        with connection:
            connection.execute("UPDATE headrace_offsets SET next_offset = ? WHERE partition_index = ?", (upto, index))
        connection.close()
        engine.assigned((index,))
        feed()

    def feed() -> None:
        for record in records:
            engine.schedule.feed(index, record.offset, record.key, record)

    index = messages.records("payments")[0][0]
    records = [record for place, record in messages.records("payments") if place == index]
    engine.assigned((index,))
    feed()
    first = engine.take()
    assert first is not None
    match when:
        case "before it moves the offset":
            another_does(8)
        case "as it moves the offset":
            offsets.acts.append(lambda: another_does(0))
        case _:
            offsets.acts.append(lambda: another_does(8))
    outcome = worker._work(first)
    assert not engine._moved, "it is looked at again where its own events find it moved"
    if outcome is not None:
        engine.settle(first, *outcome)
    done = 0
    while (engine.schedule.buffered() or engine._moved) and (entry := engine.take()) is not None:
        done += 1
        if (outcome := worker._work(entry)) is not None:
            engine.settle(entry, *outcome)
        elif engine._moved:
            engine.assigned((index,))
            feed()
    ((left,),) = rows(file, f"SELECT next_offset FROM headrace_offsets WHERE partition_index = {index}")
    assert left == records[-1].offset + 1 and done
    found = [int(str(n)) for (n,) in rows(file, "SELECT n FROM effects")]
    assert len(found) == len(set(found)) == len(records) - (0 if when == "as it moves the offset" else 8)
    engine.finish()


def test_a_topic_made_anew_is_an_error(offsets: SqlOffsets, messages: MemoryMessages) -> None:
    with Consumer(messages, TOPIC, group="g", offsets=offsets) as consumer:
        consumer.run(effect, until="end")
    messages.delete("payments")
    messages.make("payments", 2, {})
    with Consumer(messages, TOPIC, group="g", offsets=offsets) as consumer, pytest.raises(StateError) as raised:
        consumer.run(effect, until="end")
    assert raised.value.code == "HR-0436"


def test_a_database_that_is_away_costs_no_attempt(file: Path, messages: MemoryMessages) -> None:
    broken: Iterator[bool] = iter([False] * 3 + [True] * 4)

    def connect_sometimes() -> sqlite3.Connection:
        if next(broken, False):
            raise sqlite3.OperationalError("unable to open database file")
        return sqlite3.connect(file, timeout=10)

    with Consumer(messages, TOPIC, group="g", offsets=SqlOffsets(connect_sometimes), concurrency=2) as consumer:
        counts = consumer.run(effect, until="end")
    assert (counts.handled, counts.failed, counts.set_aside) == (40, 0, {})


def test_a_session_moves_and_holds(offsets: SqlOffsets, messages: MemoryMessages) -> None:
    offsets.prepare("g")
    connection = connect(messages, TOPIC)
    assert offsets.begin("g", connection, {0: 0, 1: 5}) == {0: 0, 1: 5}
    assert offsets.begin("g", connection, {0: 9, 1: 9}) == {0: 0, 1: 5}
    session, topic_id = offsets.session(), connection.about.topic_id
    assert session.move("g", "payments", topic_id, 1, 5, 8)
    session.connection.rollback()
    assert session.offset("g", "payments", 1) == 5
    assert session.move("g", "payments", topic_id, 1, 5, 8)
    session.connection.commit()
    assert not session.move("g", "payments", topic_id, 1, 5, 9)
    assert session.offset("g", "payments", 1) == 8 and session.offset("other", "payments", 1) is None
    offsets.hold("g", topic_id, 1, [6, 6])
    assert session.unhold("g", topic_id, Placed(1, 6))
    session.connection.commit()
    assert not session.unhold("g", topic_id, Placed(1, 6))
    session.close()
