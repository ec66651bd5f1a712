"""A decision's parts as others serve them: a score by FastAPI and XGBoost, features by Feast's server on SQLite; with
the same model, values, machine, load generator and number of connections.

FastAPI and XGBoost: the caller sends the 15 feature values; none is looked up, nothing is kept, there is no token, and
reasons only under the name that says so. Feast: its online store holds the 12 windowed features as headrace says them
at one instant, computed by headrace, as Feast computes no windows; the three that are made of the request are an
on-demand view. It neither scores nor decides. Each is easier than a decision, of which it is a part.

Each peer is asked at rates that rise until it does not keep one. NAME_requests_per_s, _p50_ms and _p99_ms are of the
highest rate that it kept, or of the lowest where it kept none; NAME_RATE_p50_ms and _p99_ms are of each that was tried,
and NAME_reached_per_s is what came of the rate that it did not keep. Every answer is compared with what headrace says
of the same row. The environments, build/peers-fastapi and build/peers-feast, are made when first asked for.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost

from bench._http_load import CONNECTIONS, LOAD
from bench._peer_environment import peer_environment
from bench._server import get
from headrace.core.schema import Kind
from headrace.core.times import Instant
from headrace.models.contributions import Contributions
from headrace.models.define import Model
from headrace.models.inputs import Floats, labels, matrix
from headrace.models.port import Truths
from headrace.models.train import Trained
from headrace.runtime.project import Project

HERE = Path(__file__).resolve().parent
FASTAPI = (
    "fastapi==0.165.0",
    "starlette==1.10.0",
    "pydantic==2.14.3",
    "uvicorn[standard]==0.54.0",
    "xgboost-cpu==3.2.0",
    "numpy==2.4.6",
)
FEAST = (
    "feast==0.67.0",
    "fastapi==0.165.0",
    "starlette==1.10.0",
    "pydantic==2.14.3",
    "uvicorn==0.54.0",
    "gunicorn==27.0.1",
    "pandas==2.3.3",
    "pyarrow==26.0.1",
)
SCORE_RATES, STORE_RATES, SECONDS = (500, 1_000, 2_000), (100, 200, 500, 1_000, 2_000), 15
QUICK_SCORE_RATES, QUICK_STORE_RATES, QUICK_SECONDS = (500,), (100,), 3
WARM, WARM_RATE = 200, 100
KEPT = 0.98  # of a rate; the last answers of a rate that is kept come some milliseconds after the last request
SCORE_TOLERANCE, SHARE_TOLERANCE = 1e-6, 1e-4
REASONS_MAX = 4
READY_S, STOP_S = 120, 30
Figures = dict[str, float]
Check = Callable[[int, Mapping[str, object]], int]  # the number of a body and its answer -> values that differ


def prepare() -> None:
    """The environments, before anything is measured: minutes the first time. Raises: CalledProcessError."""
    peer_environment("fastapi", FASTAPI)
    peer_environment("feast", FEAST)


def score_peers(model: Model, table: pa.Table, trained: Trained, folder: Path, *, quick: bool) -> Figures:
    """FastAPI and XGBoost, without and with reasons.

    table, trained: the training set and what was made of it; its rows are what is asked. folder: for files.
    """
    rows = matrix(model, table)
    _save_model(model, rows, labels(model, table), trained, folder)
    bodies = _bodies(model, rows)
    contributions = Contributions(trained.artifact).many(rows)
    names = [one.name for one in model.inputs]

    def score(number: int, answer: Mapping[str, object]) -> int:
        if "score" not in answer:
            return 0  # counted as an error
        return int(not abs(_number(answer["score"]) - trained.scores[number]) <= SCORE_TOLERANCE)

    def score_and_reasons(number: int, answer: Mapping[str, object]) -> int:
        if "score" not in answer:
            return 0
        said = answer["reasons"]
        assert isinstance(said, list)
        fits = _in_order(contributions[number], [names.index(name) for name in said])
        return score(number, answer) + int(not fits)

    command = [str(peer_environment("fastapi", FASTAPI)), "-m", "uvicorn", "_serving_peers_fastapi:app"]
    command += ["--app-dir", str(HERE), "--workers", "1", "--no-access-log", "--log-level", "warning", "--port"]
    rates, seconds = (QUICK_SCORE_RATES, QUICK_SECONDS) if quick else (SCORE_RATES, SECONDS)
    figures: Figures = {}
    with _Peer(command, "/docs", folder, {"PEER_MODEL": str(folder)}) as peer:
        for name, path, check in (
            ("fastapi", "/score", score),
            ("fastapi_reasons", "/score-with-reasons", score_and_reasons),
        ):
            figures |= peer.climb(name, path, bodies, rates, seconds, check)
    return figures


def store_peer(
    project: Project, requests: Sequence[Mapping[str, object]], t: Instant, folder: Path, *, quick: bool
) -> Figures:
    """Feast's server, its store filled with what the views say at t of the requests' customers and terminals.

    folder: for files.
    """
    python = peer_environment("feast", FEAST)
    said = {view: _features_at(project, view, [row[f"{view}_id"] for row in requests], t) for view in VIEWS}
    for view, table in said.items():
        stamped = table.append_column("event_timestamp", pa.array([t] * table.num_rows, pa.timestamp("us", "UTC")))
        pq.write_table(stamped, folder / f"{view}.parquet")
    made = subprocess.run(
        [str(python), str(HERE / "_serving_peers_feast.py"), str(folder)], cwd=folder, env=_quiet(), capture_output=True
    )
    if made.returncode:
        raise RuntimeError(f"Feast's repository was not made:\n{made.stderr.decode()[-2_000:]}")
    stored = {view: {row[f"{view}_id"]: row for row in table.to_pylist()} for view, table in said.items()}
    features = [f"{view}:{name}" for view, table in said.items() for name in table.column_names if name != f"{view}_id"]
    features += ["asked:tx_amount", "asked:weekend", "asked:night"]
    asked = [_asked(request) for request in requests]
    expected = [
        {**stored["customer"][one["customer_id"]], **stored["terminal"][one["terminal_id"]], **of_request}
        for one, (_, of_request) in zip(requests, asked, strict=True)
    ]

    def values(number: int, answer: Mapping[str, object]) -> int:
        if "results" not in answer:
            return 0  # counted as an error
        found = _feast_values(answer)
        return sum(found.get(name, _ABSENT) != value for name, value in expected[number].items())

    bodies = [json.dumps({"features": features, "entities": entities}).encode() for entities, _ in asked]
    # No restart in the middle, which is what a thousand requests do by default.
    command = [str(python), "-m", "feast.cli.cli", "serve", "--no-access-log", "--max-requests", "0", "--port"]
    rates, seconds = (QUICK_STORE_RATES, QUICK_SECONDS) if quick else (STORE_RATES, SECONDS)
    with _Peer(command, "/health", folder, {}) as peer:
        return peer.climb("feast", "/get-online-features", bodies, rates, seconds, values)


VIEWS = ("customer", "terminal")
_ABSENT = object()


# --- what is asked, and what is expected ---


def _save_model(model: Model, rows: Floats, truths: Truths, trained: Trained, folder: Path) -> None:
    """The model as its own library saves it: trained anew by the same settings, as the artifact has only its trees.
    That it is the same is what the comparison of every score says."""
    artifact, settings = trained.artifact, {name: v for name, v in model.trainer.settings if v is not None}
    rounds = settings.pop("n_estimators")
    settings |= {"objective": "binary:logistic", "seed": model.trainer.seed, "verbosity": 0}
    names = [one.name for one in model.inputs]
    scaled = (rows - artifact.means) / artifact.deviations
    booster = xgboost.train(
        settings, xgboost.DMatrix(scaled, label=truths.astype(np.float32), feature_names=names), num_boost_round=rounds
    )
    booster.save_model(folder / "model.json")
    assert artifact.means is not None and artifact.deviations is not None
    scaling = {"means": artifact.means.tolist(), "deviations": artifact.deviations.tolist()}
    (folder / "scaling.json").write_text(json.dumps(scaling))


def _bodies(model: Model, rows: Floats) -> list[bytes]:
    """Each row as a JSON object of its values, of the inputs' types."""
    taken = [(one.name, {Kind.BOOLEAN: bool, Kind.INT64: int}.get(one.type.kind, float)) for one in model.inputs]
    return [
        json.dumps(
            {name: None if math.isnan(value) else of(value) for (name, of), value in zip(taken, row, strict=True)}
        ).encode()
        for row in rows.tolist()
    ]


def _in_order(shares: Floats, said: Sequence[int]) -> bool:
    """Whether inputs are the up to four that raised the score most, the most first; shares this near are equal."""
    near, last = SHARE_TOLERANCE, math.inf
    for place in said:
        if shares[place] > last + near or shares[place] < -near:
            return False
        last = float(shares[place])
    rest = np.delete(shares, said)
    limit = last if len(said) == REASONS_MAX else 0.0
    return len(said) <= REASONS_MAX and bool((rest <= limit + near).all())


def _features_at(project: Project, view: str, keys: Sequence[object], t: Instant) -> pa.Table:
    """A row for each key, its features named as the model names them."""
    entity = f"{view}_id"
    distinct = sorted({key for key in keys if isinstance(key, int)})
    rows = pa.table({entity: distinct, "t": pa.array([t] * len(distinct), pa.timestamp("us", "UTC"))})
    said = project.replay(view, rows=rows)
    names = [feature.name for feature in project.definitions.view(view).features]
    return pa.table({entity: distinct, **{f"{view}_{name}": said.column(name) for name in names}})


def _asked(request: Mapping[str, object]) -> tuple[dict[str, list[object]], dict[str, object]]:
    """(Feast's entities and request values, the features that are made of the request)."""
    at = np.datetime64(str(request["tx_datetime"]).removesuffix("+00:00"), "s").astype(int).item()
    amount = float(str(request["tx_amount"]))
    entities = {name: [request[name]] for name in ("customer_id", "terminal_id")}
    weekday, hour = (at // 86_400 + 3) % 7, at // 3_600 % 24
    return (
        {**entities, "amount": [amount], "at": [at]},
        {"tx_amount": amount, "weekend": weekday >= 5, "night": hour <= 6},
    )


def _feast_values(answer: Mapping[str, object]) -> dict[str, object]:
    metadata, results = answer["metadata"], answer["results"]
    assert isinstance(metadata, dict) and isinstance(results, list)
    names = metadata["feature_names"]
    return {name: result["values"][0] for name, result in zip(names, results, strict=True)}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


# --- a peer's process, and the load ---


class _Peer:
    """A peer's server in a process group of its own, from ready to stopped."""

    def __init__(self, command: Sequence[str], ready: str, folder: Path, environment: Mapping[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._command, self._ready, self._folder = [*command, str(self._port)], ready, folder
        self._environment = {**_quiet(), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Peer:
        log = self._folder / "server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if get(self._port, self._ready)[0] == 200:
                    return self
            time.sleep(0.1)
        self._end()
        raise RuntimeError(f"{' '.join(self._command)} did not answer:\n{log.read_text()[-2_000:]}")

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # also workers that their master left behind
        self._process.wait()

    def climb(
        self, name: str, path: str, bodies: Sequence[bytes], rates: Sequence[int], seconds: int, check: Check
    ) -> Figures:
        """Rates in order till one is not kept. bodies: taken in order, again from the first where they end."""
        self._send(path, bodies, WARM_RATE, WARM, 0, check)
        figures: Figures = {f"{name}_differing_values": 0.0, f"{name}_errors": 0.0}
        at = WARM
        for rate in rates:
            told, errors, differing = self._send(path, bodies, rate, rate * seconds, at, check)
            at += rate * seconds
            reached = told["sent"] / told["seconds"]
            kept = reached >= KEPT * rate
            print(
                f"{name} at {rate}/s: {reached:.0f}/s, p50 {told['p50_ms']:.2f} ms, p99 {told['p99_ms']:.2f} ms",
                file=sys.stderr,
            )
            figures[f"{name}_errors"] += errors
            figures[f"{name}_differing_values"] += differing
            for percentile in ("p50_ms", "p99_ms"):
                figures[f"{name}_{rate}_{percentile}"] = told[percentile]
                if kept or rate == rates[0]:
                    figures[f"{name}_{percentile}"] = told[percentile]
            if kept or rate == rates[0]:
                figures[f"{name}_requests_per_s"] = reached
            if not kept:
                figures[f"{name}_reached_per_s"] = reached
                break
        return figures

    def _send(
        self, path: str, bodies: Sequence[bytes], rate: int, count: int, first: int, check: Check
    ) -> tuple[dict[str, float], int, int]:
        """(what the generator told, answers other than 200, values that differ)."""
        numbers = [(first + place) % len(bodies) for place in range(count)]
        answers = self._folder / "answers.ndjson"
        command = [sys.executable, str(LOAD), "--port", str(self._port), "--path", path, "--rate", str(rate)]
        command += ["--connections", str(CONNECTIONS), "--answers", str(answers)]
        asked = b"\n".join(bodies[number] for number in numbers)
        told = json.loads(subprocess.run(command, input=asked, capture_output=True, check=True).stdout)
        errors = count - told["statuses"].get("200", 0)
        found = [json.loads(line) for line in answers.read_bytes().splitlines()]  # null where none came
        return told, errors, sum(check(number, one or {}) for number, one in zip(numbers, found, strict=True))


def _quiet() -> dict[str, str]:
    """The environment without what would lead a peer to headrace's packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
