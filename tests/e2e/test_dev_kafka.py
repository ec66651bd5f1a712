"""`headrace dev kafka` and `KafkaCluster`, on real Apache Kafka: what they start answers, goes on with its data after a
kill, and what must end ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.core.times import ZERO, Duration
from headrace.testing.kafka import KafkaCluster, KafkaClusterError, Machine, NodeState, processes
from headrace.testing.kafka.folder import STATE, node_data, ports_in_use

MAIN = [sys.executable, "-c", "from headrace.cli.main import main; main()", "dev", "kafka"]
PATIENT = pytest.mark.timeout(600)  # a machine with other things to do starts a JVM in a minute


class Dev:
    """`headrace dev kafka` over a folder of its own, in processes of their own."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = {**os.environ, "HEADRACE_DEV_DIR": str(folder), **(environment or {})}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*MAIN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment
        )

    def run(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """stdout and stderr of a command that ends with this status."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=500)
        assert process.returncode == status, f"{arguments}: exit {process.returncode}\n{out}\n{err}"
        return out, err

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--output", "json")[0])

    def end(self) -> None:
        """Whatever runs."""
        processes.end([*processes.found_under(self.folder)], grace=ZERO)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    found = Dev(tmp_path.resolve() / "clusters")
    yield found
    found.end()


def pids(report: Any) -> list[int]:
    return [node["pid"] for node in report["nodes"]]


def wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def new_topic(bootstrap: str, *, partitions: int = 1, replicas: int = 1) -> str:
    from confluent_kafka.admin import AdminClient, NewTopic

    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})  # a client that is let go of cancels what it was asked
    admin.create_topics([NewTopic(name, partitions, replicas)])[name].result(60)
    return name


def produce(bootstrap: str, topic: str, values: list[str]) -> None:
    """Each acknowledged by all replicas in sync."""
    from confluent_kafka import Producer

    refused: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "delivery.timeout.ms": 60_000})
    for value in values:
        producer.produce(topic, value=value, on_delivery=lambda error, _: refused.append(error) if error else None)
    assert producer.flush(90) == 0
    assert refused == []


def consume(bootstrap: str, topic: str, count: int) -> list[str]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found: list[str] = []
    until = time.monotonic() + 60
    while len(found) < count and time.monotonic() < until:
        for message in consumer.consume(count, timeout=1.0):
            assert message.error() is None, message.error()
            value = message.value()
            assert value is not None
            found.append(value.decode())
    consumer.close()
    return found


def signs_in(bootstrap: str, user: str, password: str) -> bool:
    """Whether the cluster lets this user in. An error where it does not answer at all."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    errors: list[KafkaError] = []
    configuration: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password,
        "error_cb": errors.append,
    }
    admin = AdminClient(configuration)
    try:
        return bool(admin.list_topics(timeout=10).brokers)
    except KafkaException:
        admin.poll(0)
        assert KafkaError._AUTHENTICATION in [error.code() for error in errors]
        return False


@pytest.mark.slow
@pytest.mark.kafka
@PATIENT
def test_clusters_by_name_start_go_on_with_their_data_and_end(dev: Dev, kafka_machine: Machine) -> None:
    # Two of one name and one of another, at once: one cluster each, on ports of its own.
    starting = [dev.start("up", "--output", "json", *name) for name in ([], [], ["--name", "other"])]
    said = [process.communicate(timeout=500) for process in starting]
    assert [process.returncode for process in starting] == [0, 0, 0], said
    first, again, other = (json.loads(out) for out, _ in said)
    assert "it runs until: headrace dev kafka down --name dev" in said[0][1]
    assert pids(first) == pids(again) != pids(other)
    assert first["bootstrap"] == again["bootstrap"] != other["bootstrap"]
    assert first["cluster_id"] != other["cluster_id"]
    assert [node["state"] for node in first["nodes"]] == ["up"]
    assert dev.folder.joinpath("dev").stat().st_mode & 0o777 == 0o700

    bootstrap = first["bootstrap"]
    topic = new_topic(bootstrap)
    values = [f"v{i}" for i in range(1_000)]
    produce(bootstrap, topic, values)
    assert consume(bootstrap, topic, 1_000) == values

    # Idempotent: the same process, within a moment; another count is refused.
    assert dev.run("up")[0] == f"{bootstrap}\n"
    assert pids(dev.json("status", "--name", "dev")[0]) == pids(first)
    _, refusal = dev.run("up", "--brokers", "3", status=2)
    assert "HR-0910 cluster 'dev' has 1 broker, not 3" in refusal

    # After a kill of everything: the same ports, the same data.
    os.kill(pids(first)[0], signal.SIGKILL)
    wait(lambda: processes.find(dev.folder / "dev" / "node-1") is None)
    assert "down" in dev.run("status", "--name", "dev", status=1)[0]
    assert dev.run("up")[0] == f"{bootstrap}\n"
    assert consume(bootstrap, topic, 1_000) == values

    table = dev.run("status")[0].splitlines()
    assert [line.split()[:4] for line in table[1:]] == [
        ["dev", "1", "broker+controller", "up"],
        ["other", "1", "broker+controller", "up"],
    ]
    lines = dev.run("logs", "--name", "other", "--lines", "5")[0].splitlines()
    assert len(lines) == 5 and all(line.startswith("1: ") for line in lines)

    # A paused one is resumed; an orderly end is said in the log that is followed.
    os.kill(pids(dev.json("status", "--name", "dev")[0])[0], signal.SIGSTOP)
    assert "paused" in dev.run("status", "--name", "dev", status=1)[0]
    dev.run("up")
    following = dev.start("logs", "--lines", "0", "--follow")
    assert following.stdout is not None and following.stderr is not None
    assert "ended 1 node" in dev.run("down")[1]
    with following.stdout, following.stderr:
        assert any("shut" in line for line in iter(following.stdout.readline, ""))
        following.kill()
        following.wait()
    assert "nothing ran" in dev.run("down")[1]
    assert dev.run("down", "--name", "other", "--delete")[1] == "cluster other: ended 1 node, data deleted\n"
    assert processes.found_under(dev.folder) == {}
    assert not (dev.folder / "other").exists() and node_data(dev.folder / "dev", 1).is_dir()
    dev.run("status", "--name", "other", status=1)


STARTER = """
    import os, sys, threading, time
    from pathlib import Path
    from headrace.cli.dev import machine_of
    from headrace.testing.kafka import KafkaCluster
    cluster = KafkaCluster(Path(sys.argv[1]), machine=machine_of(os.environ), users={"app": "right"})
    thread = threading.Thread(target=cluster.__enter__)
    thread.start()
    thread.join()
    print(cluster.bootstrap, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.kafka
@PATIENT
def test_nodes_of_a_test_die_with_its_process_and_go_on_with_its_data(tmp_path: Path, kafka_machine: Machine) -> None:
    folder = tmp_path.resolve() / "a clüster"  # paths reach Java as they are
    starter = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STARTER), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    with starter.stdout:
        bootstrap = starter.stdout.readline().strip()
        port = int(bootstrap.rpartition(":")[2])
        topic = new_topic(bootstrap)  # the thread that started the node has ended, the node has not
        produce(bootstrap, topic, ["a", "b"])
        with pytest.raises(KafkaClusterError) as busy, KafkaCluster(folder, machine=kafka_machine):
            pass
        assert busy.value.code == "HR-0918"
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    wait(lambda: processes.found_under(folder) == {} and not ports_in_use((port,)), seconds=10)

    # A port that somebody took meanwhile is named.
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(KafkaClusterError) as taken, KafkaCluster(folder, machine=kafka_machine):
            pass
        assert taken.value.code == "HR-0914" and str(port) in taken.value.message

    # What was acknowledged before the kill is there; the folder's own count of brokers counts.
    with KafkaCluster(folder, machine=kafka_machine) as cluster:
        assert cluster.bootstrap == bootstrap
        assert consume(bootstrap, topic, 2) == ["a", "b"]
        assert signs_in(cluster.sasl_bootstrap, "app", "right")
        assert not signs_in(cluster.sasl_bootstrap, "app", "wrong")
    assert processes.found_under(folder) == {}

    # A node that dies at its start says why.
    properties = node_data(folder, 1) / "meta.properties"
    properties.write_text(properties.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(KafkaClusterError) as dead, KafkaCluster(folder, machine=kafka_machine):
        pass
    assert dead.value.code == "HR-0915"
    assert "node 1 of cluster 'test' did not start" in dead.value.message
    assert "7" in dead.value.detail and "ERROR" in dead.value.detail
    assert processes.found_under(folder) == {}


@pytest.mark.slow
@pytest.mark.kafka
@PATIENT
def test_three_nodes_are_killed_paused_and_restarted_one_by_one(kafka_to_hurt: KafkaCluster) -> None:
    cluster = kafka_to_hurt
    topic = new_topic(cluster.bootstrap, replicas=3)
    produce(cluster.bootstrap, topic, ["whole"])

    cluster.kill(2)
    assert (cluster.pid(2), cluster.state(2)) == (0, NodeState.DOWN)
    produce(cluster.bootstrap, topic, ["one killed"])
    with pytest.raises(KafkaClusterError) as lacking:
        cluster.wait_ready()
    assert "node 2" in lacking.value.message
    cluster.start(2)
    cluster.wait_ready()
    cluster.wait_in_sync()

    cluster.pause(3)
    wait(lambda: cluster.state(3) is NodeState.PAUSED)
    produce(cluster.bootstrap, topic, ["one paused"])
    with pytest.raises(KafkaClusterError) as behind:
        cluster.wait_in_sync(Duration.parse("1s"))
    assert "node 3" in behind.value.detail
    cluster.resume(3)
    cluster.wait_in_sync()

    before = cluster.pid(1)
    thread = threading.Thread(target=cluster.restart, args=[1])  # and a thread that ends takes no node with it
    thread.start()
    thread.join()
    cluster.wait_ready()
    assert cluster.pid(1) not in (0, before)
    cluster.wait_in_sync()
    assert consume(cluster.bootstrap, topic, 3) == ["whole", "one killed", "one paused"]


@pytest.mark.slow
@pytest.mark.kafka
def test_one_broker_for_most_tests(kafka: KafkaCluster) -> None:
    topic = new_topic(kafka.bootstrap, partitions=2)
    produce(kafka.bootstrap, topic, ["a"])
    assert kafka.nodes == (1,)
    assert kafka.state(1) is NodeState.UP
    kafka.wait_in_sync()
    assert "Kafka Server started" in kafka.log(1)


# From here on no JVM runs: what is wrong is seen before one would.


@pytest.mark.parametrize("brokers", ["0", "-1", "9"])
def test_a_wrong_count_of_brokers_is_a_usage_error(dev: Dev, brokers: str) -> None:
    _, said = dev.run("up", "--brokers", brokers, status=2)
    assert f"HR-0910 a cluster of {brokers} brokers cannot be started" in said
    assert not dev.folder.exists()


def test_a_wrong_name_is_a_usage_error(dev: Dev) -> None:
    for verb in ("up", "down", "status", "logs"):
        assert "HR-0910 a cluster cannot be named '../x'" in dev.run(verb, "--name", "../x", status=2)[1]


def test_an_unknown_cluster_is_said_with_what_there_is(dev: Dev) -> None:
    assert "no clusters" in dev.run("status")[1]
    assert dev.run("status", "--output", "json")[0] == "[]\n"
    (dev.folder / "orders").mkdir(parents=True)
    for verb in ("down", "status", "logs"):
        said = dev.run(verb, "--name", "order", status=1)[1]
        assert "HR-0913 no Kafka cluster 'order'" in said and "did you mean 'orders'?" in said


def test_no_java_is_said_with_what_to_install(dev: Dev, tmp_path: Path) -> None:
    bare = Dev(dev.folder, {"PATH": str(tmp_path), "JAVA_HOME": ""})
    said = bare.run("up", status=1)[1]
    assert "HR-0911 Kafka needs Java" in said and "apt-get install openjdk-17-jdk-headless" in said
    assert not (dev.folder / "dev").exists()


def test_a_folder_that_cannot_be_used_is_said(dev: Dev) -> None:
    dev.folder.write_text("a file")
    below = Dev(dev.folder / "clusters")
    said = below.run("up", status=1)[1]
    assert "HR-0917" in said and str(below.folder) in said


def test_a_damaged_state_is_said_and_can_be_deleted(dev: Dev) -> None:
    (dev.folder / "dev").mkdir(parents=True)
    (dev.folder / "dev" / STATE).write_text('{"format": 1, "layout"')
    for verb in ("up", "logs"):
        said = dev.run(verb, status=1)[1]
        assert "HR-0916" in said and "headrace dev kafka down --name dev" in said
    out, said = dev.run("status")
    assert "unreadable" in out and str(dev.folder / "dev") in said
    assert "nothing ran" in dev.run("down", "--delete")[1]
    assert not (dev.folder / "dev").exists()


@pytest.mark.slow
def test_maven_without_a_network_is_said_with_the_command_to_try(
    dev: Dev, tmp_path: Path, kafka_machine: Machine
) -> None:
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text("<settings><offline>true</offline></settings>")
    offline = Dev(
        dev.folder,
        {
            "HEADRACE_CACHE_DIR": str(tmp_path / "cache"),
            "MAVEN_OPTS": f"-Dmaven.repo.local={tmp_path / 'empty'} -Duser.home={tmp_path}",
        },
    )
    said = offline.run("up", status=1)[1]
    assert "HR-0912 Apache Kafka 4.3.1 could not be fetched" in said
    assert "offline" in said and "mvn --batch-mode --file" in said
    assert not (dev.folder / "dev").exists()
