"""Derived topics on a real cluster: processes that are killed, stopped and joined by others carry every event over
once, in order, and say where it came from. The judge is a plain consumer."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.clients.kafka.port import Outgoing, Place
from headrace.core.codec import partition_of
from headrace.core.errors import FencedError
from headrace.core.points import Partition
from headrace.log.kafka import KafkaLog
from headrace.runtime.project import Project, open_project
from headrace.stream.plan import writer_name
from headrace.stream.run import ReKeyer
from headrace.testing.kafka import KafkaCluster

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(600)]

DEFINITIONS = """
import headrace as hr
from headrace.stream.define import derived_topic

applications = hr.Topic("applications", key="customer_id", id="application_id", partitions=3, fields={
    "application_id": hr.string, "customer_id": hr.int64, "merchant_id": hr.int64, "amount": hr.int64})
by_merchant = derived_topic("applications_by_merchant", of=applications, key="merchant_id")
"""
DERIVED = "applications_by_merchant"
HEADER = struct.Struct(">qqBiiq")  # available_at, event_time, verdict, incarnation, partition, offset
SESSION_SECONDS = 6.0


@dataclass
class Shop:
    """A project over a cluster, and the events that were acknowledged."""

    folder: Path
    project: Project
    bootstrap: str
    prefix: str
    sent: int = 0

    @property
    def log(self) -> KafkaLog:
        assert isinstance(self.project.log, KafkaLog)
        return self.project.log

    def produce(self, count: int) -> None:
        rows = [
            {"application_id": f"a{n}", "customer_id": n % 97, "merchant_id": n * 7 % 31, "amount": n}
            for n in range(self.sent, self.sent + count)
        ]
        self.project.produce("applications", rows)
        self.sent += count

    def process(self) -> subprocess.Popen[str]:
        said = f"['run', '--status-seconds', '0.3'], obj={str(self.folder)!r}"
        run = f"from headrace.cli.streams import streams; streams({said})"
        return subprocess.Popen(
            [sys.executable, "-c", run], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )


@pytest.fixture
def shop(kafka: KafkaCluster, tmp_path: Path) -> Iterator[Shop]:
    prefix = f"{uuid.uuid4().hex[:8]}."
    (tmp_path / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    (tmp_path / "headrace.toml").write_text(f'log = "kafka://{kafka.bootstrap}/{prefix}"\n', encoding="utf-8")
    with open_project(tmp_path) as project:
        project.apply()
        yield Shop(tmp_path, project, kafka.bootstrap, prefix)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for each in started:
        if each.poll() is None:
            each.send_signal(signal.SIGCONT)
            each.kill()
        each.wait()
        assert each.stdout is not None
        each.stdout.close()


def plainly(shop: Shop) -> list[tuple[int, int, int, str, int]]:
    """(derived partition, source partition, source offset, id, merchant) of every committed record, as any client reads
    them."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    settings = {
        "bootstrap.servers": shop.bootstrap,
        "group.id": "judge",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(shop.prefix + DERIVED, index, 0) for index in range(3)])
    found, ended = [], set()
    while len(ended) < 3:
        message = consumer.poll(10.0)
        assert message is not None, "nothing came for 10 s"
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF
            ended.add(message.partition())
            continue
        headers = dict(message.headers() or [])
        _, _, verdict, incarnation, partition, offset = HEADER.unpack(headers["headrace-source"])
        assert (verdict, incarnation) == (0, 1)
        event = json.loads(message.value() or b"")
        found.append((message.partition(), partition, offset, event["application_id"], event["merchant_id"]))
    consumer.close()
    return found


def wait_until(done: Callable[[], bool], *, within: float) -> float:
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < within, f"not within {within} s"
        time.sleep(0.1)
    return time.monotonic() - begun


def caught_up(shop: Shop) -> bool:
    """Whether no row is left: offsets of which none is one may be."""
    states = {state.topic.name: state for state in shop.log.topics()}
    derived = states[DERIVED]
    for held in states["applications"].partitions:
        done = shop.log.group(writer_name(derived.topic, derived.incarnation, held.partition))[held.partition]
        if next(shop.log.read(held.partition, done), None) is not None:
            return False
    return True


def at_work(shop: Shop, process: subprocess.Popen[str]) -> None:
    """Until the group gives it a partition."""
    group = f"{shop.prefix}headrace.streams.{DERIVED}"
    mine = f":{process.pid}"
    wait_until(lambda: any(name.endswith(mine) for name in shop.log.client.members(group).values()), within=60)


def expect_once_and_in_order(shop: Shop) -> None:
    found = plainly(shop)
    ids = [id for _, _, _, id, _ in found]
    assert len(ids) == len(set(ids)), "an event is there twice"
    assert set(ids) == {f"a{n}" for n in range(shop.sent)}, "an event is lost"
    positions = [(source, offset) for _, source, offset, _, _ in found]
    assert len(positions) == len(set(positions))
    source = {}
    for state in shop.log.topics():
        if state.topic.name == "applications":
            for held in state.partitions:
                for batch in shop.log.read(held.partition, 0):
                    for row in batch.select(["_offset", "application_id"]).to_pylist():
                        source[held.partition.index, row["_offset"]] = row["application_id"]
    last: dict[tuple[int, int], int] = defaultdict(lambda: -1)
    for partition, index, offset, id, merchant in found:
        assert source[index, offset] == id, "it names another event's position"
        assert partition == partition_of(merchant, 3)
        assert offset > last[partition, index], "a key's events fall back"
        last[partition, index] = offset


def test_processes_that_are_killed_and_stopped_carry_every_event_over_once(
    shop: Shop, processes: list[subprocess.Popen[str]]
) -> None:
    stopping = threading.Event()

    def produce() -> None:
        while not stopping.wait(0.05):
            shop.produce(50)

    processes += [shop.process(), shop.process()]
    shop.produce(100)
    wait_until(lambda: caught_up(shop), within=60)
    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for turn in range(4):
            at_work(shop, processes[turn])
            time.sleep(0.5 + 0.37 * turn)
            processes[turn].send_signal(signal.SIGKILL)
            processes.append(shop.process())
        sleeper, other = processes[-2:]
        at_work(shop, sleeper)
        sleeper.send_signal(signal.SIGSTOP)
        time.sleep(2.5 * SESSION_SECONDS)  # longer than its session and than its transaction may take
        at_work(shop, other)
        sleeper.send_signal(signal.SIGCONT)
        at_work(shop, sleeper)
    finally:
        stopping.set()
        producer.join()
    wait_until(lambda: caught_up(shop), within=90)
    expect_once_and_in_order(shop)
    living = [each for each in processes if each.poll() is None]
    assert len(living) == 2
    for each in living:
        each.send_signal(signal.SIGTERM)
    lines = []
    for each in living:
        said, _ = each.communicate(timeout=30)
        assert each.returncode == 0
        lines += [json.loads(line) for line in said.splitlines()]
    assert {line["topic"] for line in lines} == {DERIVED}
    assert {line["source"] for line in lines} == {f"applications#1/{index}" for index in range(3)}
    assert any(line["rows"] for line in lines)


def test_a_process_that_ends_in_order_hands_over(shop: Shop, processes: list[subprocess.Popen[str]]) -> None:
    shop.produce(3_000)
    first = shop.process()
    processes.append(first)
    wait_until(lambda: caught_up(shop), within=60)
    second = shop.process()
    processes.append(second)
    group = f"{shop.prefix}headrace.streams.{DERIVED}"
    wait_until(lambda: len(set(shop.log.client.members(group).values())) == 2, within=30)
    shop.produce(3_000)
    wait_until(lambda: caught_up(shop), within=60)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=30) == 0
    shop.produce(300)
    assert wait_until(lambda: caught_up(shop), within=30) < SESSION_SECONDS, "nobody waits for who said good-bye"
    expect_once_and_in_order(shop)


def test_a_successor_does_not_wait_for_what_the_dead_one_left_open(shop: Shop) -> None:
    """With another transactional id it would, until the broker gives up."""
    source = Partition("applications", 1, 0)
    derived = next(state for state in shop.log.topics() if state.topic.name == DERIVED)
    shop.produce(100)
    dead = shop.log.client.sender(transactional_id=shop.prefix + writer_name(derived.topic, 1, source))
    dead.begin()
    dead.send([Outgoing(Place(shop.prefix + DERIVED, index), b"k", b"{}") for index in range(3)])
    begun = time.monotonic()
    successor = ReKeyer(shop.log, DERIVED, source)
    while successor.step():
        pass
    waited = time.monotonic() - begun
    for index in (1, 2):
        other = ReKeyer(shop.log, DERIVED, Partition("applications", 1, index))
        while other.step():
            pass
        other.close()
    expect_once_and_in_order(shop)
    assert waited < 5.0, "the broker would have given up after 10 s"
    successor.close()


def test_one_that_was_taken_over_is_fenced(shop: Shop) -> None:
    source = Partition("applications", 1, 0)
    shop.produce(600)
    zombie = ReKeyer(shop.log, DERIVED, source, rows_max=50)
    assert zombie.step()
    successor = ReKeyer(shop.log, DERIVED, source, rows_max=50)
    with pytest.raises(FencedError):
        zombie.step()
    while successor.step():
        pass
    for index in (1, 2):
        other = ReKeyer(shop.log, DERIVED, Partition("applications", 1, index))
        while other.step():
            pass
    expect_once_and_in_order(shop)
