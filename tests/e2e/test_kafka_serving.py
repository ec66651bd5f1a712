"""Several serving processes of one project on real Kafka: any of them takes any request, one of them decides it, and
what dies or stops leaves its partitions to the others."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from headrace.core.codec import partition_of
from headrace.runtime.decided import verify_decisions
from headrace.runtime.project import open_project
from headrace.testing.kafka import KafkaCluster
from tests.e2e import shop
from tests.e2e.serving import Answer, Serving

PARTITIONS = 6
DEFINITIONS = shop.DEFINITIONS.replace("partitions=2", f"partitions={PARTITIONS}")
COMMAND = [sys.executable, "-c", "from headrace.cli.main import main; main()"]
FORWARDED = {"Headrace-Forwarded": "http://127.0.0.1:1"}  # as by another process: not to be sent on
# Some of each partition.
CUSTOMERS = [
    customer
    for index in range(PARTITIONS)
    for customer in [each for each in range(100) if partition_of(each, PARTITIONS) == index][:4]
]

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


def made(folder: Path, cluster: KafkaCluster, *, session_timeout: str) -> Path:
    """A project of its own topics in the cluster, applied."""
    project = shop.make(folder / "project", DEFINITIONS)
    address = f"kafka://{cluster.bootstrap}/{uuid.uuid4().hex[:8]}.?session_timeout={session_timeout}"
    (project / "headrace.toml").write_text(f'log = "{address}"\n', encoding="utf-8")
    with open_project(project) as opened:
        opened.apply()
    return project


@contextmanager
def serving(project: Path, count: int) -> Iterator[list[Serving]]:
    """So many processes, all ready; each ends with the test."""
    servers = [Serving(project) for _ in range(count)]
    with ThreadPoolExecutor(count) as threads:
        entered = [threads.submit(server.__enter__) for server in servers]
    try:
        for one in entered:
            one.result()
        until(lambda: all(server.call("GET", "/readyz").status == 200 for server in servers), "all are ready")
        yield servers
    finally:
        for server in servers:
            if hasattr(server, "process"):
                server.__exit__(None, None, None)


def until(condition: Any, what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def decided(servers: Sequence[Serving], request: Mapping[str, object], seconds: float = 60.0) -> Any:
    """The answer, of whomever; sent again, with the same id, until there is one that is a decision."""
    deadline, seen = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            seen = random.choice(servers).decide(request)
        except (OSError, HTTPException):
            continue
        if seen.status == 200 and seen.json["decision_id"]:
            return seen.json
        assert seen.status in (200, 503), seen
        time.sleep(0.1)
    raise AssertionError(f"no decision within {seconds} s, the last answer was {seen}")


class Clients:
    """Clients that send orders to random processes, one after the other, each until it is decided."""

    def __init__(self, servers: Sequence[Serving], name: str, *, clients: int = 4) -> None:
        self.answers: dict[str, tuple[Mapping[str, object], Any]] = {}
        self.failed: list[BaseException] = []
        self._servers = servers
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(f"{name}{n}",)) for n in range(clients)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.failed, self.failed

    def wait_more(self, count: int) -> None:
        before = len(self.answers)
        until(lambda: self.failed or len(self.answers) >= before + count, f"{count} more answers")

    def _send(self, name: str) -> None:
        draws, number = random.Random(name), 0
        try:
            while not self._stop.is_set():
                number += 1
                request = shop.order(f"{name}-{number}", draws.randrange(50))
                self.answers[str(request["order"])] = request, decided(self._servers, request)
        except AssertionError as error:
            self.failed.append(error)


def assert_recorded(project: Path, answers: Mapping[str, tuple[Mapping[str, object], Any]]) -> None:
    """Each answer is its record, no request has two, and all recompute to the same bits."""
    with open_project(project) as opened:
        records = list(opened.records("checkout"))
        report = opened.replay_decisions("checkout")
        chain = verify_decisions(opened, "checkout")
    by_request = {record.request_id: record for record in records}
    assert len(by_request) == len(records), "no request is decided twice"
    for id, (_, said) in answers.items():
        record = by_request[id]
        assert (record.decision_id, record.outcome.value, list(record.reasons)) == (
            said["decision_id"],
            said["outcome"],
            said["reasons"],
        )
    assert (report.compared, report.mismatched) == (len(records), 0), report.differences
    assert chain.broken == 0, chain.places[:3]


def partitions_of(answers: Mapping[str, tuple[Mapping[str, object], Any]]) -> set[int]:
    return {int(said["decision_id"].split("/")[2]) for _, said in answers.values()}


def test_a_killed_process_leaves_its_partitions_to_the_others(kafka: KafkaCluster, tmp_path: Path) -> None:
    project = made(tmp_path, kafka, session_timeout="3s")
    with serving(project, 3) as servers:
        with Clients(servers, "a") as clients:
            clients.wait_more(60)
            servers[0].kill()
            clients.wait_more(60)
        assert partitions_of(clients.answers) == set(range(PARTITIONS))
        left = servers[1:]
        for request, said in list(clients.answers.values())[::5]:
            again = decided(left, request)
            assert {name: again[name] for name in said} == {**said, "repeated": True}, "a retry is told the same"
        request, _ = next(iter(clients.answers.values()))
        left[0].decide({**request, "amount": "99.99"}).problem(409, "HR-0710")
        for server in left:
            assert server.stop() == 0
    assert_recorded(project, clients.answers)


def test_a_request_is_decided_by_the_owner_of_its_partition_alone_and_drained_ones_own_none(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    project = made(tmp_path, kafka, session_timeout="10s")
    with serving(project, 3) as servers:
        owners: dict[int, set[int]] = {}
        answers = {}
        for customer in CUSTOMERS:
            request = shop.order(f"o-{customer}", customer)
            by = by_each(servers, request)
            owning = [server.port for server, one in zip(servers, by, strict=True) if one.status == 200]
            assert len(owning) == 1, [(one.status, one.body) for one in by]
            for one in by:
                if one.status != 200:
                    assert one.problem(503, "HR-0722")["retryable"]
            said = decided(servers, request)
            answers[f"o-{customer}"] = request, said
            owners.setdefault(int(said["decision_id"].split("/")[2]), set()).update(owning)
            assert {server.decide(request).json["decision_id"] for server in servers} == {said["decision_id"]}
        assert set(owners) == set(range(PARTITIONS)) and all(len(ports) == 1 for ports in owners.values())
        assert set().union(*owners.values()) == {server.port for server in servers}, "each owns some"
        answers |= drained_under_load(project, servers[0])
    assert_recorded(project, answers)


def by_each(servers: Sequence[Serving], request: Mapping[str, object]) -> list[Answer]:
    """What each says of a request that it must not send on; again for a moment, where its partition goes from one to
    another just now."""
    by: list[Answer] = []

    def anybody() -> bool:
        by[:] = [server.decide(request, FORWARDED) for server in servers]
        return any(one.status == 200 for one in by)

    until(anybody, "somebody decides it", seconds=10.0)
    return by


def drained_under_load(project: Path, server: Serving) -> dict[str, tuple[Mapping[str, object], Any]]:
    """What a server answers from before it is drained until it is: each request at its first attempt."""
    drain = [*COMMAND, "--project", str(project), "serve", "drain", "--url", f"http://127.0.0.1:{server.port}"]
    answers = {}
    process = subprocess.Popen(drain, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None:
            request = shop.order(f"drained-{len(answers)}", len(answers) % 50)
            answers[str(request["order"])] = request, server.decide(request).json
    finally:
        process.kill()
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert len(answers) > PARTITIONS and all(said["decision_id"] for _, said in answers.values())
    assert server.call("GET", "/readyz").problem(503, "HR-1008")["detail"] == "not ready: draining"
    found = server.call("GET", "/v1/drain").json
    assert (found["state"], found["decides"], found["holds"]) == ("drained", [], [])
    return answers


def test_a_process_that_stops_in_order_hands_its_partitions_over(kafka: KafkaCluster, tmp_path: Path) -> None:
    # Where a partition had to wait for the session's end, nothing would be answered in time.
    project = made(tmp_path, kafka, session_timeout="40s")
    with serving(project, 2) as servers, Clients(servers, "a") as clients:
        clients.wait_more(40)
        assert servers[0].stop() == 0
        began = time.monotonic()
        found: dict[int, Any] = {}
        for customer in CUSTOMERS:
            said = decided(servers[1:], shop.order(f"later-{customer}", customer))
            found[int(said["decision_id"].split("/")[2])] = said
        assert time.monotonic() - began < 25
        assert set(found) == set(range(PARTITIONS))
    assert_recorded(project, clients.answers)


def test_a_broker_that_is_killed_takes_no_decision_with_it(kafka_to_hurt: KafkaCluster, tmp_path: Path) -> None:
    project = made(tmp_path, kafka_to_hurt, session_timeout="6s")
    with serving(project, 2) as servers, Clients(servers, "a") as clients:
        clients.wait_more(40)
        kafka_to_hurt.kill(2)
        clients.wait_more(100)
        kafka_to_hurt.start(2)
        clients.wait_more(40)
    kafka_to_hurt.mend()
    assert_recorded(project, clients.answers)
