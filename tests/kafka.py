"""Real Kafka for tests: started when a test first asks for it, once a run, ended with the run however that ends.

    kafka             one broker
    kafka_cluster     three brokers, replication factor 3, min ISR 2; to be left as it was found
    kafka_to_hurt     the same three, for tests that kill and pause: mended after each

Tests that take one are marked slow and kafka. Topics are a test's own: clusters are shared, names are not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli.dev import machine_of
from headrace.core.errors import MissingExtraError
from headrace.testing.kafka import KafkaCluster, KafkaClusterError, Machine
from headrace.testing.kafka.machine import tools
from tests.needs import lack, requires


def requires_kafka() -> Machine:
    """What starts real Kafka on this machine, its libraries fetched; or skip, saying what to install."""
    requires("confluent_kafka")
    machine = machine_of(os.environ)
    try:
        tools(machine, say=lambda _: None)
    except MissingExtraError as error:
        lack(f"Kafka: {error.message}: {error.hint}")
    except KafkaClusterError as error:
        lack(f"Kafka: {error.message}: {error.detail}")
    return machine


@pytest.fixture(scope="session")
def kafka_machine() -> Machine:
    """For tests that start a cluster of their own."""
    return requires_kafka()


@pytest.fixture(scope="session")
def kafka(kafka_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    yield from _started(tmp_path_factory, kafka_machine, brokers=1)


@pytest.fixture(scope="session")
def kafka_cluster(kafka_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    yield from _started(tmp_path_factory, kafka_machine, brokers=3)


@pytest.fixture
def kafka_to_hurt(kafka_cluster: KafkaCluster) -> Iterator[KafkaCluster]:
    kafka_cluster.mend()
    yield kafka_cluster
    kafka_cluster.mend()


def _started(folders: pytest.TempPathFactory, machine: Machine, *, brokers: int) -> Iterator[KafkaCluster]:
    folder = Path(folders.mktemp("kafka")) / "cluster"
    with KafkaCluster(folder, machine=machine, brokers=brokers) as cluster:
        yield cluster
    shutil.rmtree(folder)  # hundreds of MB after a long run, and its ports are free again
