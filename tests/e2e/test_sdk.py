"""Producers and consumers on real Kafka, in processes that die: each effect once, order per key, little idle work."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

import headrace as hr
from headrace.clients.kafka.confluent import ConfluentClient
from headrace.clients.kafka.define import KafkaSettings
from headrace.core.errors import StateError
from headrace.core.times import Duration
from headrace.sdk.connect import open_messages
from headrace.sdk.consumer import Consumer
from headrace.sdk.define import Budget, Event, Reason
from headrace.sdk.port import Member
from headrace.sdk.producer import Producer
from headrace.sdk.quarantine import quarantined, release
from headrace.sdk.sql import SqlOffsets
from headrace.testing.kafka import KafkaCluster

pytestmark = [pytest.mark.slow, pytest.mark.kafka]
SHORT = Duration.parse("200ms")

# A consumer whose effect is a row and a sum, in SQLite. It is killed, again and again.
CONSUMER = """
    import sqlite3, sys
    import headrace as hr
    from headrace.sdk.consumer import Consumer
    from headrace.sdk.sql import SqlOffsets

    address, name, file = sys.argv[1:]
    payments = hr.Topic(name, key="customer", id="number", partitions=3,
                        fields={"number": hr.int64, "customer": hr.string})

    def handle(event, connection):
        connection.execute("INSERT INTO effects VALUES (?, ?)", (event["number"], event.key))
        connection.execute("UPDATE totals SET n = n + 1 WHERE customer = ?", (event.key,))

    with Consumer(address, payments, group="totals",
                  offsets=SqlOffsets(lambda: sqlite3.connect(file, timeout=30))) as consumer:
        consumer.run(handle)
"""

# One that has nothing to do, and says what share of a processor that takes.
IDLE = """
    import os, sys, threading, time
    import headrace as hr
    from headrace.sdk.consumer import Consumer

    address, name = sys.argv[1:]
    payments = hr.Topic(name, key="customer", id="number", partitions=3,
                        fields={"number": hr.int64, "customer": hr.string})

    def busy(seconds):
        before, begun = os.times(), time.monotonic()
        time.sleep(seconds)
        after = os.times()
        return (after.user + after.system - before.user - before.system) / (time.monotonic() - begun)

    consumer = Consumer(address, payments, group="idle")
    thread = threading.Thread(target=lambda: consumer.run(lambda event: None))
    thread.start()
    time.sleep(5)
    print(min(busy(2) for _ in range(3)))
    consumer.close()
    thread.join(30)
"""


def payments(name: str) -> hr.Topic:
    return hr.Topic(name, key="customer", id="number", partitions=3, fields={"number": hr.int64, "customer": hr.string})


@pytest.fixture
def address(kafka: KafkaCluster) -> str:
    return f"kafka://{kafka.bootstrap}/e{uuid.uuid4().hex[:8]}."


def made(address: str) -> hr.Topic:
    topic = payments("payments")
    messages = open_messages(address)
    messages.make(messages.topic_name(topic.name), topic.partitions, {})
    messages.close()
    return topic


def produce(address: str, topic: hr.Topic, numbers: range, customers: int = 20) -> None:
    with Producer(address, topic) as producer:
        for number in numbers:
            producer.send({"number": number, "customer": f"c{number % customers}"})


def database(file: Path, customers: int = 20) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE effects (number INTEGER, customer TEXT)")  # no key: twice would be two rows
        connection.execute("CREATE TABLE totals (customer TEXT PRIMARY KEY, n INTEGER)")
        connection.executemany("INSERT INTO totals VALUES (?, 0)", [(f"c{each}",) for each in range(customers)])
    connection.close()


def rows(file: Path, text: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(file, timeout=30)
    try:
        return connection.execute(text).fetchall()
    finally:
        connection.close()


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def started(address: str, topic: hr.Topic, file: Path, program: str = CONSUMER) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), address, topic.name, str(file)],
        stdout=subprocess.DEVNULL,
    )


class FromStart:
    """Whoever gets a partition reads it from its start."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[int]) -> None: ...

    def lost(self, partitions: Sequence[int]) -> None: ...


def test_a_partition_that_was_paused_is_read_by_whoever_gets_it_again(address: str) -> None:
    topic = made(address)
    produce(address, topic, range(60))
    messages = open_messages(address)
    name = messages.topic_name(topic.name)

    def come(member: Member) -> set[int]:
        return {index for index, _ in member.poll(timeout=SHORT, records_max=100).records}

    first, seen = messages.join("readers", name, FromStart()), set[int]()
    deadline = time.monotonic() + 60
    while len(seen) < 3 and time.monotonic() < deadline:
        seen |= come(first)
    assert seen == {0, 1, 2}
    first.pause([0])
    first.seek(0, 0)
    until(lambda: 0 in come(first), "what was sought")
    first.pause([0, 1, 2])
    second, taken = messages.join("readers", name, FromStart()), set[int]()
    deadline = time.monotonic() + 60
    while not taken and time.monotonic() < deadline:
        come(first)
        taken |= come(second)
    assert taken
    second.leave()
    until(lambda: bool(taken & come(first)), "it has them again, and reads them")
    first.leave()
    messages.close()


def test_an_effect_in_sql_comes_once_whoever_is_killed(address: str, tmp_path: Path) -> None:
    topic, file = made(address), tmp_path / "shop.db"
    database(file)
    count = 3_000
    produce(address, topic, range(count))
    running = [started(address, topic, file), started(address, topic, file)]
    try:
        for kill in range(4):
            before = len(rows(file, "SELECT 1 FROM effects"))
            until(lambda: len(rows(file, "SELECT 1 FROM effects")) > before + 100, "it is at work")  # noqa: B023 - now
            running[kill % 2].send_signal(signal.SIGKILL)
            running[kill % 2].wait(10)
            running[kill % 2] = started(address, topic, file)
        until(lambda: len(rows(file, "SELECT 1 FROM effects")) >= count, "all effects", 120)
        produce(address, topic, range(count, count + 100))
        until(lambda: len(rows(file, "SELECT 1 FROM effects")) >= count + 100, "later ones too")
    finally:
        for each in running:
            each.kill()
            each.wait(10)
    assert rows(file, "SELECT number FROM effects ORDER BY number") == [(each,) for each in range(count + 100)]
    assert rows(file, "SELECT DISTINCT n FROM totals") == [((count + 100) // 20,)]
    for customer in range(20):
        found = rows(file, f"SELECT number FROM effects WHERE customer = 'c{customer}' ORDER BY rowid")
        assert found == sorted(found), "in order of its key"


# A consumer without a database: it appends what it handled to a file of its own, one line an event.
PLAIN = """
    import sys, threading
    import headrace as hr
    from headrace.sdk.consumer import Consumer

    address, name, file = sys.argv[1:]
    payments = hr.Topic(name, key="customer", id="number", partitions=3,
                        fields={"number": hr.int64, "customer": hr.string})
    lines, lock = open(file, "a", buffering=1), threading.Lock()

    def handle(event):
        threading.Event().wait(0.002)
        with lock:
            lines.write(f"{event.key} {event['number']}\\n")

    with Consumer(address, payments, group="plain", commit_every="100ms", concurrency=8) as consumer:
        consumer.run(handle)
"""


def test_without_a_database_nothing_is_lost_and_a_key_keeps_its_order(address: str, tmp_path: Path) -> None:
    topic, count = made(address), 2_000
    produce(address, topic, range(count))
    file = tmp_path / "handled"
    file.touch()

    def handled() -> list[list[str]]:
        return [line.split() for line in file.read_text().splitlines() if line.count(" ") == 1]

    running = started(address, topic, file, PLAIN)
    try:
        for _ in range(2):
            before = len(handled())
            until(lambda: len(handled()) > before + 200, "it is at work")  # noqa: B023 - now
            running.kill()
            running.wait(10)
            running = started(address, topic, file, PLAIN)
        until(lambda: len({number for _, number in handled()}) == count, "all are handled", 120)
    finally:
        running.kill()
        running.wait(10)
    assert len(handled()) < count + 1_500, "what was committed is not done again"
    for customer in range(20):
        first: dict[int, None] = {int(number): None for key, number in handled() if key == f"c{customer}"}
        assert list(first) == sorted(first), "events of a key are first handled in order"


def test_what_fails_in_sql_is_set_aside_and_comes_once_when_released(address: str, tmp_path: Path) -> None:
    topic, file = made(address), tmp_path / "shop.db"
    database(file)
    produce(address, topic, range(200))
    failing = {"c3"}

    def handle(event: Event, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO effects VALUES (?, ?)", (event["number"], event.key))
        if event.key in failing:
            raise ValueError("after its effect, which is rolled back")

    def run() -> dict[Reason, int]:
        offsets = SqlOffsets(lambda: sqlite3.connect(file, timeout=30))
        budget = Budget(attempts=2)
        with Consumer(address, topic, group="totals", offsets=offsets, budget=budget) as consumer:
            return consumer.run(handle, until="end").set_aside

    assert run() == {Reason.FAILED: 1, Reason.BEHIND: 9}
    assert len(rows(file, "SELECT 1 FROM effects")) == 190 and len(rows(file, "SELECT 1 FROM headrace_held")) == 10
    assert release(address, topic, group="totals", key="c3") == 10
    failing.clear()
    assert run() == {}
    assert rows(file, "SELECT number FROM effects ORDER BY number") == [(each,) for each in range(200)]
    assert [each[0] for each in rows(file, "SELECT number FROM effects WHERE customer = 'c3' ORDER BY rowid")] == list(
        range(3, 200, 20)
    )
    assert rows(file, "SELECT 1 FROM headrace_held") == []
    assert quarantined(address, topic, group="totals") == []


def test_a_topic_made_anew_is_an_error_and_not_a_silence(address: str, tmp_path: Path) -> None:
    topic, file = made(address), tmp_path / "shop.db"
    database(file)
    produce(address, topic, range(50))
    settings = KafkaSettings.parse(address)
    offsets = SqlOffsets(lambda: sqlite3.connect(file, timeout=30))

    def handle(event: Event, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO effects VALUES (?, ?)", (event["number"], event.key))

    with Consumer(address, topic, group="totals", offsets=offsets) as consumer:
        consumer.run(handle, until="end")
    ConfluentClient(settings, {}).delete(settings.prefix + topic.name)
    made(address)
    with Consumer(address, topic, group="totals", offsets=offsets) as consumer, pytest.raises(StateError) as raised:
        consumer.run(handle, until="end")
    assert raised.value.code == "HR-0436"


def test_a_waiting_consumer_costs_little(address: str) -> None:
    """In a process of its own: what else was begun in this one goes on."""
    topic = made(address)
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IDLE), address, topic.name], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    share = float(process.stdout)
    assert share < 0.05, f"{share:.1%} of a processor, with nothing to do"
