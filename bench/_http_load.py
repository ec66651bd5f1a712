"""The handbook's decision over HTTP at a constant rate: server and generator in a process of their own each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench._server import HEADRACE, Server

LOAD = Path(__file__).with_name("_load.py")
RATES = ((2_000, 60), (4_000, 30))  # requests a second, seconds
RATES_QUICK = ((1_000, 5),)
WARM = 2_000
CONNECTIONS = 64


def requests_needed(*, quick: bool) -> int:
    return WARM + sum(rate * seconds for rate, seconds in (RATES_QUICK if quick else RATES))


def http_figures(project: Path, requests: list[dict[str, object]], *, quick: bool) -> dict[str, float]:
    """Latency from the instant at which a request was due to its whole answer, which is durable before it is given;
    tokens and metrics are on. The first rate's figures are the bench's, the others' carry their rate. errors: answers
    other than 200."""
    said = subprocess.run(
        [*HEADRACE, "--project", str(project), "tokens", "create", "--name", "bench"]
        + ["--scope", "decisions:decide", "--output", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    token = str(json.loads(said.stdout)["token"])
    server = Server(project)
    figures: dict[str, float] = {"http_errors": 0.0}
    try:
        server.start()
        _send(server, token, requests[:WARM], 500)
        at = WARM
        for number, (rate, seconds) in enumerate(RATES_QUICK if quick else RATES):
            told = _send(server, token, requests[at : at + rate * seconds], rate)
            at += rate * seconds
            named = "" if number == 0 else f"{rate}_"
            figures[f"http_{named}requests_per_s"] = told["sent"] / told["seconds"]
            for percentile in ("50", "99", "99_9"):
                figures[f"http_{named}p{percentile}_ms"] = told[f"p{percentile}_ms"]
            figures["http_errors"] += told["sent"] - told["statuses"].get("200", 0)
        status = server.stop()
    finally:
        server.kill()
    return {**figures, "http_exit_status": float(status)}


def _send(server: Server, token: str, requests: list[dict[str, object]], rate: int) -> dict[str, float]:
    command = [sys.executable, str(LOAD), "--port", str(server.port), "--path", "/v1/decisions/payment"]
    command += ["--rate", str(rate), "--token", token, "--connections", str(CONNECTIONS)]
    body = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told
