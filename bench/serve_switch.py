"""A decision's version switched over and over while the server decides: no error, and no decision of two versions.

A generator sends requests of the handbook's decision at a constant rate; meanwhile another process changes the policy
and applies it, as soon as the server decides by what was applied before. Afterwards every answer's version set is
compared with its record's, and each version's records are replayed by that version's definitions.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench._server import HEADRACE, Server
from bench.bits import EXAMPLE
from bench.decisions import DECISION
from bench.serve_chaos import prepare
from headrace.runtime.project import open_project

SWITCHES, SWITCHES_QUICK = 50, 4
RATE = 500
SECONDS_A_SWITCH = 6  # an upper bound that requests are made for; what is left over is not sent
BUDGET_MS = "5000"  # of a request: two processes and a generator share the cores with those that apply
LOAD = Path(__file__).with_name("_load.py")
WAS, BECOMES = "customer.count_1d > 15", "customer.count_1d > 16"


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """errors: statuses other than 200. fallbacks: answers after the budget. mixed: answers whose version set is not
    that of their record."""
    switches = SWITCHES_QUICK if quick else SWITCHES
    with tempfile.TemporaryDirectory(prefix="headrace-bench-switch-") as made:
        folder = Path(made)
        project, requests = prepare(folder, min(int(switches * SECONDS_A_SWITCH * RATE), 80_000))
        probes, requests = requests[: 100 * switches], requests[100 * switches :]
        server = Server(project)
        try:
            server.start()
            generator = _Generator(server.port, requests, folder)
            generator.start()
            seconds = _switch(server.port, project, switches, probes)
            generator.stop()
            status = server.stop()
        finally:
            server.kill()
        figures = _check(project, generator)
    return {"figures": {"switches": switches, "switch_s": seconds / switches, "exit_status": float(status), **figures}}


class _Generator:
    """The load, in pieces of a second, so that it can end when the switches have."""

    def __init__(self, port: int, requests: list[dict[str, object]], folder: Path) -> None:
        self.sent: list[dict[str, object]] = []
        self.answers: list[dict[str, object]] = []
        self.statuses: dict[str, int] = {}
        self.worst_p99_ms = 0.0
        self._port, self._requests, self._folder = port, requests, folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        path, piece = self._folder / "answers.ndjson", 10 * RATE
        for first in range(0, len(self._requests), piece):
            if self._ended.is_set():
                return
            some = self._requests[first : first + piece]
            command = [sys.executable, str(LOAD), "--port", str(self._port), "--rate", str(RATE)]
            command += ["--path", f"/v1/decisions/{DECISION}", "--answers", str(path), "--budget-ms", BUDGET_MS]
            body = "".join(json.dumps(request) + "\n" for request in some)
            done = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
            said = json.loads(done.stdout)
            for status, count in said["statuses"].items():
                self.statuses[status] = self.statuses.get(status, 0) + count
            self.worst_p99_ms = max(self.worst_p99_ms, said["p99_ms"])
            self.sent += some
            self.answers += [json.loads(line) for line in path.read_bytes().splitlines()]


def _switch(port: int, project: Path, switches: int, probes: list[dict[str, object]]) -> float:
    """Applies the other policy, waits until it decides, and again. Returns the seconds that it took."""
    began = time.monotonic()
    definitions = project / "definitions.py"
    texts = [(EXAMPLE / "definitions.py").read_text(), ""]
    texts[1] = texts[0].replace(WAS, BECOMES)
    assert texts[0] != texts[1], "the example's policy has the rule that is changed"
    asked = iter(probes)
    now = _version(port, next(asked))
    for turn in range(switches):
        definitions.write_text(texts[(turn + 1) % 2])
        subprocess.run(
            [*HEADRACE, "--project", str(project), "apply", "--yes"],
            check=True,
            capture_output=True,
        )
        deadline = time.monotonic() + 60
        while (seen := _version(port, next(asked))) == now:
            if time.monotonic() > deadline:
                raise RuntimeError(f"switch {turn} was not seen in 60 s")
            time.sleep(0.1)
        now = seen
    return time.monotonic() - began


def _version(port: int, request: dict[str, object]) -> str:
    """The version set that a request is decided by."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json", "Headrace-Budget-Ms": "5000"}
        connection.request("POST", f"/v1/decisions/{DECISION}", json.dumps(request), headers)
        return str(_text(json.loads(connection.getresponse().read())["versions"]))
    finally:
        connection.close()


def _text(versions: object) -> str:
    return json.dumps(json.loads(versions) if isinstance(versions, str) else versions, sort_keys=True)


def _check(folder: Path, generator: _Generator) -> dict[str, float]:
    decided = {str(a["decision_id"]): _text(a["versions"]) for a in generator.answers if a and a.get("decision_id")}
    definitions = folder / "definitions.py"
    compared = mismatched = 0
    texts = [(EXAMPLE / "definitions.py").read_text()]
    texts.append(texts[0].replace(WAS, BECOMES))
    for text in texts:
        definitions.write_text(text)
        with open_project(folder) as project:
            report = project.replay_decisions(DECISION)
            recorded = {record.decision_id: _text(record.versions) for record in project.records(DECISION)}
        compared += report.compared
        mismatched += report.mismatched
    return {
        "requests": len(generator.sent),
        "requests_per_s": RATE,
        "errors": sum(count for status, count in generator.statuses.items() if status != "200"),
        "fallbacks": generator.statuses.get("200", 0) - len(decided),
        "mixed": sum(recorded.get(id) != text for id, text in decided.items()),
        "versions_seen": len(set(decided.values())),
        "p99_worst_10s_ms": generator.worst_p99_ms,
        "recorded": len(recorded),
        "replayed": compared,
        "mismatched": mismatched,
    }
