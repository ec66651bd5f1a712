"""How fresh features are: from the instant an event was meant to be appended until a state that follows the log has it.

The writer is a process of its own kind: another open log, in another thread. Open loop, one event at a time; the
follower waits for the log and reads what came, as a server that answers reads does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from bench.log import percentiles
from headrace.cli.dev import machine_of
from headrace.core.points import Cut
from headrace.core.times import Duration
from headrace.features.run import FeatureState
from headrace.log.port import Append, Log
from headrace.runtime.project import open_project
from headrace.testing.kafka import KafkaCluster

RATE = 100  # events a second
WAIT = Duration.parse("100ms")
DEFINITIONS = """
import headrace as hr

visits = hr.Topic("visits", key="customer", id="visit", event_time="at", fields={
    "visit": hr.int64, "customer": hr.int64, "at": hr.timestamp})
attention = hr.FeatureView("attention", entity="customer", source=visits, features=[hr.count().over("30d")])
"""


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """p50 and p99 in milliseconds. Kafka: one broker, half a minute of it not measured."""
    count = 500 if quick else 6_000
    with tempfile.TemporaryDirectory(prefix="headrace-bench-freshness-") as made:
        folder = Path(made)
        figures = percentiles(measure(folder / "embedded", "", 200, count), "embedded_{}_ms", 1e3)
        with KafkaCluster(folder / "cluster", machine=machine_of(os.environ), long_lived=True) as cluster:
            url = f"kafka://{cluster.bootstrap}/freshness."
            figures |= percentiles(measure(folder / "kafka", url, 300 if quick else 3_000, count), "kafka_{}_ms", 1e3)
        shutil.rmtree(folder / "cluster")
    return {"figures": figures, "peers": {}}


def measure(folder: Path, url: str, warm: int, count: int) -> list[float]:
    """Seconds of each event after the first `warm`."""
    folder.mkdir()
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "headrace.toml").write_text(f'log = "{url}"\n')
    with open_project(folder) as reading, open_project(folder) as writing:
        reading.apply()
        state = reading.state(["attention"])
        due: list[float] = []
        writer = threading.Thread(target=_write, args=(writing.log, due, warm + count))
        seen: list[float] = []
        writer.start()
        _follow(reading.log, state, seen, warm + count)
        writer.join()
    return [at - meant for at, meant in zip(seen[warm:], due[warm:], strict=True)]


def _write(log: Log, due: list[float], count: int) -> None:
    partition = next(s for s in log.topics() if s.topic.name == "visits").partitions[0].partition
    began = time.perf_counter()
    for number in range(count):
        meant = began + number / RATE
        time.sleep(max(0.0, meant - time.perf_counter()))
        due.append(meant)
        log.append([Append(partition=partition, rows=[(number, number % 100, int(time.time() * 1e6))])], atomic=False)


def _follow(log: Log, state: FeatureState, seen: list[float], count: int) -> None:
    deadline = time.monotonic() + count / RATE + 60
    while len(seen) < count:
        log.wait(state.frontier, timeout=WAIT)
        came = state.catch_up(log, upto=Cut())  # as far as the log knows: it was waited for
        seen += [time.perf_counter()] * came
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(seen)} of {count} events were seen")
