"""The log on Kafka: batches and single events in and out beside the plain client, decisions on three copies, takeover.

One broker for the rates, as a rate on a machine that runs three is theirs; three brokers, three copies of everything,
for decisions and for takeover. The peer is confluent-kafka alone with the same values, which it neither makes nor
reads. The first minute of decisions is not measured: a broker is five to twenty times slower then.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, Producer, TopicPartition

from bench._server import Server, get
from bench.log import TRANSACTIONS, percentiles, rows
from headrace.cli.dev import machine_of
from headrace.clients.kafka.confluent import ConfluentClient
from headrace.clients.kafka.define import KafkaSettings
from headrace.clock import SystemClock
from headrace.core.codec import key_bytes, partition_of
from headrace.decisions.owners import OwnedDecider
from headrace.log.codec import topic_from_json, topic_to_json
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.port import Append
from headrace.runtime.project import Project, open_project
from headrace.schemas.json_payload import JsonPayload
from headrace.testing.kafka import KafkaCluster

BATCH = 1 << 17  # rows of an append in Arrow form
JSON_BATCH = 10_000
PARTITIONS = 6
RATE = 200  # decisions a second
HISTORY, HISTORY_QUICK = 1_000_000, 20_000
TAKEOVERS, TAKEOVERS_QUICK = 10, 1
WARM_SECONDS, WARM_SECONDS_QUICK = 60.0, 5.0
DEFINITIONS = f"""
import headrace as hr

payments = hr.Topic("payments", key="customer", id="payment", event_time="at", partitions={PARTITIONS},
    max_late="20000d", fields={{
    "payment": hr.int64, "customer": hr.int64, "amount": hr.decimal(12, 2), "at": hr.timestamp}})
orders = hr.Topic("orders", key="customer", id="order", event_time="at", partitions={PARTITIONS}, fields={{
    "order": hr.string, "customer": hr.int64, "amount": hr.decimal(8, 2), "at": hr.timestamp}})
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[
    hr.count().over("1d", "30d"), hr.mean(orders.amount).over("30d")])
paid = hr.FeatureView("paid", entity="customer", source=payments, features=[
    hr.count().over("30d"), hr.sum(payments.amount).over("30d")])
checkout = hr.Decision("checkout", request=orders, budget="5s", policy=[
    hr.decline_if(activity.count_1d > 1000, reason="MANY"), hr.review_if(paid.count_30d > 2000, reason="PAID"),
    hr.approve()])
"""


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """takeover_s: kill to the first durable answer, the worst partition of all kills. The peers belong to the figures:
    they are measured with and without `--peers`."""
    machine = machine_of(os.environ)
    figures: dict[str, float] = {}
    told: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-kafka-") as made:
        folder = Path(made)
        with KafkaCluster(folder / "one", machine=machine, long_lived=True) as cluster:
            figures |= arrow_rates(cluster, 1 << 20 if quick else 4 << 20)
            ours, theirs = json_rates(cluster, 50_000 if quick else 400_000, 1 if quick else 3)
            figures |= ours
            told |= theirs
        shutil.rmtree(folder / "one")
        with KafkaCluster(folder / "three", machine=machine, brokers=3, long_lived=True) as cluster:
            figures |= decisions(folder / "project", cluster, quick=quick)
            figures |= takeover(folder / "project", TAKEOVERS_QUICK if quick else TAKEOVERS)
    return {"figures": figures, "peers": told}


# --- rates ---


@contextmanager
def opened(cluster: KafkaCluster, prefix: str) -> Iterator[KafkaLog]:
    settings = KafkaSettings(bootstrap=cluster.bootstrap, prefix=prefix)
    log = KafkaLog(ConfluentClient(settings, os.environ), settings=settings, clock=SystemClock())
    try:
        yield log
    finally:
        log.close()


def arrow_rates(cluster: KafkaCluster, count: int) -> dict[str, float]:
    """Appends return when their rows were read back and judged; the reader is another log, which judges all anew."""
    prefix = f"{uuid.uuid4().hex[:8]}."
    topic = with_payload(TRANSACTIONS, "arrow")
    batches = [rows(BATCH, first) for first in range(0, count, BATCH)]
    with opened(cluster, prefix) as log:
        partition = log.declare(topic).partitions[0].partition
        log.append([Append(partition=partition, rows=rows(1_000, count))])
        began = time.perf_counter()
        for batch in batches:
            log.append([Append(partition=partition, rows=batch)])
        appended = count / (time.perf_counter() - began)
    read = max(read_rate(cluster, prefix, count + 1_000) for _ in range(3))
    return {"arrow_append_rows_per_s": appended, "arrow_read_rows_per_s": read}


def read_rate(cluster: KafkaCluster, prefix: str, count: int) -> float:
    with opened(cluster, prefix) as log:
        partition = log.topics()[0].partitions[0].partition
        began = time.perf_counter()
        seen = sum(batch.num_rows for batch in log.read(partition, 0))
        spent = time.perf_counter() - began
    if seen != count:
        raise AssertionError(f"expected {count} rows, read {seen}")
    return count / spent


def json_rates(cluster: KafkaCluster, count: int, times: int) -> tuple[dict[str, float], dict[str, float]]:
    """In turns with the plain client: the best of each."""
    found: dict[str, list[float]] = {}
    for _ in range(times):
        prefix = f"{uuid.uuid4().hex[:8]}."
        for name, rate in (
            ("json_append_per_s", lambda p=prefix: json_append(cluster, p, count)),
            ("json_read_per_s", lambda p=prefix: read_rate(cluster, p, count)),
            ("client_append_per_s", lambda p=prefix: client_append(cluster, f"{p}plain", count)),
            ("client_read_per_s", lambda p=prefix: client_read(cluster, f"{p}plain", count)),
        ):
            found.setdefault(name, []).append(rate())
    best = {name: max(rates) for name, rates in found.items()}
    ours = {name: rate for name, rate in best.items() if name.startswith("json")}
    return ours, {name: rate for name, rate in best.items() if name.startswith("client")}


def json_append(cluster: KafkaCluster, prefix: str, count: int) -> float:
    batches = [rows(JSON_BATCH, first) for first in range(0, count, JSON_BATCH)]
    with opened(cluster, prefix) as log:
        partition = log.declare(TRANSACTIONS).partitions[0].partition
        began = time.perf_counter()
        for batch in batches:
            log.append([Append(partition=partition, rows=batch)], atomic=False)
        return count / (time.perf_counter() - began)


def client_append(cluster: KafkaCluster, topic: str, count: int) -> float:
    """Acknowledged by all, idempotent, with keys, as ours; the values are made before."""
    codec = JsonPayload(TRANSACTIONS)
    pairs: list[tuple[bytes, bytes]] = []
    for first in range(0, count, JSON_BATCH):
        batch = rows(JSON_BATCH, first)
        pairs += zip(map(key_bytes, batch.column("customer_id").to_pylist()), codec.encode(batch), strict=True)
    client = ConfluentClient(KafkaSettings(bootstrap=cluster.bootstrap), os.environ)
    client.create(topic, partitions=1, settings={})
    client.close()
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000}
    )
    began = time.perf_counter()
    for first in range(0, count, JSON_BATCH):
        for key, value in pairs[first : first + JSON_BATCH]:
            producer.produce(topic, value, key, 0)
        producer.flush()  # as an append returns when its rows are durable
    return count / (time.perf_counter() - began)


def client_read(cluster: KafkaCluster, topic: str, count: int) -> float:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "peer", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        seen, size = 0, 0
        began = time.perf_counter()
        while seen < count:
            for message in consumer.consume(10_000, timeout=1):
                seen, size = (
                    seen + 1,
                    size + len(message.value() or b"") + len(message.key() or b"") + message.offset() % 2,
                )
        return count / (time.perf_counter() - began)
    finally:
        consumer.close()


def with_payload(topic: Topic, payload: str) -> Topic:
    return topic_from_json(json.dumps({**json.loads(topic_to_json(topic)), "payload": payload}))


# --- decisions ---


def decisions(folder: Path, cluster: KafkaCluster, *, quick: bool) -> dict[str, float]:
    """Open loop at RATE in one process that owns all partitions: from the instant that a request was meant to come."""
    folder.mkdir()
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "headrace.toml").write_text(f'log = "kafka://{cluster.bootstrap}/bench."\n')
    with open_project(folder) as project:
        project.apply()
        history(project, HISTORY_QUICK if quick else HISTORY)
        decider = project.decider("checkout")
        assert isinstance(decider, OwnedDecider)
        paced(decider, "warm", WARM_SECONDS_QUICK if quick else WARM_SECONDS)
        waits = paced(decider, "timed", 5.0 if quick else 30.0)
    return percentiles(waits, "decision_{}_ms", 1e3)


def history(project: Project, count: int) -> None:
    """Payments of the last month, in Arrow form."""
    now = int(time.time() * 1e6)
    draws = np.random.default_rng(0)
    at = np.sort(now - draws.integers(0, 29 * 86_400_000_000, count))
    columns = {
        "payment": pa.array(np.arange(count)),
        "customer": pa.array(draws.integers(0, 10_000, count)),
        "amount": pa.array(draws.integers(1, 500, count)),
        "at": pa.array(at).cast(pa.timestamp("us", tz="UTC")),
    }
    file = project.folder / "payments.parquet"
    pq.write_table(pa.table(columns), file)
    project.import_file("payments", file)


def paced(decider: OwnedDecider, name: str, seconds: float) -> list[float]:
    """Seconds from when each request was due to its answer. Those that are due together go together, as a lane does."""
    count, began, done = int(RATE * seconds), time.perf_counter(), 0
    draws, waits = random.Random(1), []
    while done < count:
        due = min(count, int((time.perf_counter() - began) * RATE) + 1)
        if due == done:
            time.sleep(max(0.0, began + done / RATE - time.perf_counter()))
            continue
        asked = [request(f"{name}-{number}", draws.randrange(10_000)) for number in range(done, due)]
        for answer in decider.decide_many(asked):
            if isinstance(answer, Exception):
                raise answer
        now = time.perf_counter()
        waits += [now - began - number / RATE for number in range(done, due)]
        done = due
    return waits


def request(id: str, customer: int) -> dict[str, object]:
    return {"order": id, "customer": customer, "amount": "12.50", "at": int(time.time() * 1e6)}


# --- takeover ---


@dataclass
class Crowd:
    """One client a partition, to any process but the one that is gone: when each partition was answered last."""

    servers: list[Server]
    customers: list[int]
    down: set[int] = field(default_factory=set)
    answered: dict[int, list[float]] = field(default_factory=dict)
    ended: bool = False

    def client(self, place: int) -> None:
        draws, number = random.Random(place), 0
        while not self.ended:
            number += 1
            body = json.dumps(request(f"takeover-{place}-{number}", self.customers[place]))
            while not self.ended:
                server = draws.choice([s for n, s in enumerate(self.servers) if n not in self.down])
                if self.post(server, body):
                    self.answered.setdefault(place, []).append(time.monotonic())
                    break
                time.sleep(0.02)
            time.sleep(0.05)

    def post(self, server: Server, body: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            head = {"Content-Type": "application/json", "Headrace-Budget-Ms": "1000"}
            connection.request("POST", "/v1/decisions/checkout", body, head)
            answer = connection.getresponse()
            return answer.status == 200 and bool(json.loads(answer.read()).get("decision_id"))
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()


def takeover(folder: Path, kills: int) -> dict[str, float]:
    """Three processes; one is killed, and how long each of its partitions goes unanswered."""
    servers = [Server(folder, "--sample", "0") for _ in range(3)]
    crowd = Crowd(servers, one_customer_a_partition())
    worst: list[float] = []
    try:
        for server in servers:
            server.start()
        clients = [threading.Thread(target=crowd.client, args=(place,)) for place in range(PARTITIONS)]
        for client in clients:
            client.start()
        draws = random.Random(0)
        for _ in range(kills):
            until(lambda: all(get(server.port, "/readyz")[0] == 200 for server in servers), 60)
            time.sleep(5.0)
            victim = draws.randrange(len(servers))
            crowd.down.add(victim)
            killed = time.monotonic()
            servers[victim].kill()
            until(
                lambda killed=killed: all(
                    any(at > killed for at in crowd.answered.get(p, [])) for p in range(PARTITIONS)
                ),
                60,
            )
            time.sleep(1.0)
            worst.append(max(min(at for at in crowd.answered[p] if at > killed) - killed for p in range(PARTITIONS)))
            servers[victim].start()
            crowd.down.discard(victim)
        crowd.ended = True
        for client in clients:
            client.join()
    finally:
        crowd.ended = True
        for server in servers:
            server.kill()
    return {"takeovers": kills, "takeover_s": max(worst), "takeover_median_s": sorted(worst)[len(worst) // 2]}


def one_customer_a_partition() -> list[int]:
    return [next(c for c in range(1_000) if partition_of(c, PARTITIONS) == p) for p in range(PARTITIONS)]


def until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:.0f} s")
        time.sleep(0.02)
