"""The server killed under load, over and over: every answered decision is in the log, none twice, a retry is told what
was decided, and everything recomputes to the same bits.

Clients send requests of the handbook's decision over HTTP; each sends a request again, with the same id, until it is
answered. Meanwhile the server is killed (SIGKILL) at random instants and started again, and the last time stopped in
order. Then the answers that clients hold are compared with the records, one by one, the chain of records is verified,
and all is replayed from the log.
"""

from __future__ import annotations

import http.client
import json
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from bench._server import Server
from bench.bits import EXAMPLE, OPTIONS, find_data, simulated_data
from bench.decisions import DECISION, first_day, split, train_and_score
from headrace.runtime.decided import verify_decisions
from headrace.runtime.project import open_project

KILLS, KILLS_QUICK = 20, 3
CLIENTS = 12
SIMULATED_MAX = 40_000  # requests that the simulated log has for sure
REQUESTS, REQUESTS_QUICK = 120_000, 3_000
HISTORY_DAYS, TRAINED_DAYS = 10, (1, 3)
BETWEEN_S = (1.0, 4.0)  # a kill comes so long after the server was ready


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """lost: answered, and not in the log. twice: requests with two records. changed: answers that differ from their
    record, or from an earlier answer."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-chaos-") as made:
        folder = Path(made)
        project_folder, requests = prepare(folder, REQUESTS_QUICK if quick else REQUESTS)
        server = Server(project_folder)
        crowd = Crowd(requests, server.port)
        began = time.monotonic()
        kills = 0
        try:
            server.start()
            crowd.start()
            while kills < (KILLS_QUICK if quick else KILLS) and not crowd.done:
                time.sleep(random.uniform(*BETWEEN_S) / (3 if quick else 1))
                server.kill()
                kills += 1
                server.start()
            crowd.join()
            stopped = server.stop()
        finally:
            server.kill()
            crowd.end()
        seconds = time.monotonic() - began
        found = check(project_folder, crowd)
    return {"figures": {"kills": kills, "seconds": seconds, "stopped_in_order": float(stopped == 0), **found}}


def prepare(folder: Path, count: int) -> tuple[Path, list[dict[str, object]]]:
    """A project of the handbook's example with some history and a trained model, and the requests that follow it."""
    data, _ = (simulated_data(folder), True) if count < SIMULATED_MAX else find_data(folder)
    table = pq.read_table(data)
    history, requests = split(folder, table, HISTORY_DAYS, count)
    project_folder = folder / "project"
    project_folder.mkdir()
    shutil.copy(EXAMPLE / "definitions.py", project_folder / "definitions.py")
    with open_project(project_folder) as project:
        project.apply()
        project.import_file("transactions", history, options=OPTIONS)
        train_and_score(project, first_day(history), TRAINED_DAYS, HISTORY_DAYS, rows=100)
    return project_folder, requests


class Crowd:
    """Clients that do not give up: each request is sent until it is answered, and some are sent once more."""

    def __init__(self, requests: list[dict[str, object]], port: int) -> None:
        self.port = port
        self.answers: dict[object, dict[str, object]] = {}
        self.changed = 0
        self.retried = 0
        self.statuses: Counter[int] = Counter()
        self._requests = requests
        self._next = 0
        self._ended = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(CLIENTS)]

    @property
    def done(self) -> bool:
        return self._next >= len(self._requests)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def end(self) -> None:
        self._ended = True

    def _client(self, number: int) -> None:
        draws = random.Random(number)
        connection: http.client.HTTPConnection | None = None
        while not self._ended:
            with self._lock:
                if self.done:
                    return
                request = self._requests[self._next]
                self._next += 1
            for _ in range(2 if draws.random() < 0.05 else 1):
                connection = self._until_answered(connection, request)

    def _until_answered(
        self, connection: http.client.HTTPConnection | None, request: dict[str, object]
    ) -> http.client.HTTPConnection | None:
        body = json.dumps(request)
        while not self._ended:
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("POST", f"/v1/decisions/{DECISION}", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError):
                connection = None
                self.retried += 1
                time.sleep(0.01)
                continue
            self.statuses[answer.status] += 1
            if answer.status == 200 and said.get("decision_id"):
                self._keep(request["transaction_id"], said)
                return connection
            time.sleep(0.02)
        return connection

    def _keep(self, id: object, said: dict[str, object]) -> None:
        told = {name: said[name] for name in ("decision_id", "outcome", "score", "reasons")}
        with self._lock:
            if self.answers.setdefault(id, told) != told:
                self.changed += 1


def check(folder: Path, crowd: Crowd) -> dict[str, float]:
    """The answers that clients hold against the log."""
    with open_project(folder) as project:
        records: dict[str, list[dict[str, object]]] = {}
        for record in project.records(DECISION):
            told = {
                "decision_id": record.decision_id,
                "outcome": record.outcome.value,
                "score": record.score,
                "reasons": list(record.reasons),
            }
            records.setdefault(record.request_id, []).append(told)
        report = project.replay_decisions(DECISION)
        chain = verify_decisions(project, DECISION)
    changed = crowd.changed
    for id, told in crowd.answers.items():
        held = records.get(str(id), [])
        changed += bool(held) and told not in held
    return {
        "answered": len(crowd.answers),
        "sent_again": crowd.retried,
        "refused": sum(count for status, count in crowd.statuses.items() if status != 200),
        "recorded": sum(len(held) for held in records.values()),
        "lost": sum(str(id) not in records for id in crowd.answers),
        "twice": sum(len(held) > 1 for held in records.values()),
        "changed": changed,
        "replayed": report.compared,
        "mismatched": report.mismatched,
        "links_checked": chain.checked,
        "links_broken": chain.broken,
        "undecided": chain.undecided,
    }
