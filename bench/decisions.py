"""Decisions in process and over HTTP: features, score, policy and a durable record, beside the disk's own sync; then
recomputed.

The handbook example's `payment` decision, its boosted trees trained on a week of the log: history is imported, the
transactions that follow are decided one by one, each durable before it is answered. Every one of them is then
recomputed from the log. Requests come as a caller has them, as mappings with texts; the time is that of the whole call.
The disk's sync is measured on the same disk, before and after. Where the handbook's data is not on the machine, its
simulated log is used, which `simulated` says. With peers, what others serve of such a decision is asked at rising
rates after our own run, on the same machine (`_serving_peers.py` says what each of them does and does not).
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import _serving_peers
from bench._http_load import http_figures, requests_needed
from bench.bits import EXAMPLE, OPTIONS, find_data
from bench.log import measure_sync
from headrace.core.times import Instant
from headrace.models.artifact import Scorer
from headrace.models.define import Model
from headrace.models.inputs import matrix
from headrace.models.train import Trained
from headrace.runtime import training
from headrace.runtime.project import Project, open_project

DAY = dt.timedelta(days=1)
TRAINED_DAYS, HISTORY_DAYS = (26, 33), 41  # labels of the week are known when the history ends
QUICK_TRAINED_DAYS, QUICK_HISTORY_DAYS = (1, 3), 10
DECISION, MODEL = "payment", "xgboost"
WARM = 200  # decisions before the first that is measured
STORE_REQUESTS = 20_000  # whose entities a peer's store is filled with


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of BENCH `decisions`. Uses some 500 MB for temporary files; with peers also build/peers-fastapi and
    build/peers-feast."""
    if peers:
        _serving_peers.prepare()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-decisions-") as made:
        folder = Path(made)
        data, simulated = find_data(folder)
        trained, days = (QUICK_TRAINED_DAYS, QUICK_HISTORY_DAYS) if quick else (TRAINED_DAYS, HISTORY_DAYS)
        own = WARM + (1_000 if quick else 10_000)
        history, requests = split(folder, pq.read_table(data), days, own + requests_needed(quick=quick))
        syncs = 500 if quick else 3_000
        before = measure_sync(folder, syncs)
        project_folder = folder / "project"
        project_folder.mkdir()
        shutil.copy(EXAMPLE / "definitions.py", project_folder / "definitions.py")
        with open_project(project_folder) as project:
            project.apply()
            project.import_file("transactions", history, options=OPTIONS)
            table, taught = train(project, first_day(history), trained, days)
            model = project.definitions.model(MODEL)
            score_us = score_p99_us(model, table, taught, rows=2_000 if quick else 20_000)
            decider = project.decider(DECISION)
            spent = [_spent(lambda one=one: decider.decide(one)) for one in requests[:own]][WARM:]
        http = http_figures(project_folder, requests[own:], quick=quick)
        with open_project(project_folder) as project:
            report = project.replay_decisions(DECISION)
            recorded = sum(1 for _ in project.records(DECISION))
        after = measure_sync(folder, syncs)
        others: dict[str, float] = {}
        if peers:
            (place := folder / "peers").mkdir()
            others = _serving_peers.score_peers(model, table, taught, place, quick=quick)
            with open_project(project_folder) as project:
                asked = requests[own : own + STORE_REQUESTS]
                others |= _serving_peers.store_peer(project, asked, _last(asked), place, quick=quick)
    measured = {
        "figures": {
            "fsync_p50_ms": (before["fsync_p50_ms"] + after["fsync_p50_ms"]) / 2,
            "fsync_p99_ms": max(before["fsync_p99_ms"], after["fsync_p99_ms"]),
            "in_process_p50_ms": float(np.percentile(spent, 50)) * 1e3,
            "in_process_p99_ms": float(np.percentile(spent, 99)) * 1e3,
            "score_p99_us": score_us,
            **http,
            "decided": recorded,
            "fallbacks": len(requests) - recorded,  # answered after the budget, without a decision
            "replayed": report.compared,
            "mismatched": report.mismatched,
            "simulated": int(simulated),
        }
    }
    return {**measured, "peers": others} if peers else measured


def split(folder: Path, table: pa.Table, days: int, count: int) -> tuple[Path, list[dict[str, object]]]:
    """(the file of the first days, the requests that follow)."""
    at = table.column("tx_datetime").cast(pa.timestamp("us"))
    end = pc.min(at).as_py().replace(hour=0, minute=0, second=0, microsecond=0) + days * DAY
    boundary = pa.scalar(end, pa.timestamp("us"))
    history = folder / "history.parquet"
    pq.write_table(table.filter(pc.less(at, boundary)), history)
    asked = table.filter(pc.greater_equal(at, boundary)).slice(0, count).to_pylist()
    return history, [_request(row) for row in asked]


def _request(row: dict[str, object]) -> dict[str, object]:
    at = row["tx_datetime"]
    assert isinstance(at, dt.datetime)
    return {
        "transaction_id": row["transaction_id"],
        "tx_datetime": at.replace(tzinfo=dt.UTC).isoformat(),
        "customer_id": row["customer_id"],
        "terminal_id": row["terminal_id"],
        "tx_amount": f"{row['tx_amount']:.2f}",
    }


def first_day(history: Path) -> Instant:
    """The first instant of the data's first day."""
    first = pc.min(pq.read_table(history, columns=["tx_datetime"]).column("tx_datetime")).as_py()
    begin = first.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=dt.UTC)
    return Instant(int(begin.timestamp()) * 1_000_000)


def train_and_score(project: Project, begin: Instant, trained_days: tuple[int, int], days: int, *, rows: int) -> float:
    """Trains and registers the model; the p99 of one row's score by it, in microseconds."""
    table, taught = train(project, begin, trained_days, days)
    return score_p99_us(project.definitions.model(MODEL), table, taught, rows=rows)


def train(project: Project, begin: Instant, trained_days: tuple[int, int], days: int) -> tuple[pa.Table, Trained]:
    """Trains and registers the model: (its training set, what was made of it)."""
    first, end, t_label = (Instant(begin + day * 86_400_000_000) for day in (*trained_days, days))
    made = training.build_training_set(project, MODEL, begin=first, end=end, t_label=t_label)
    trained, _ = training.train_model(project, MODEL, made)
    return made.table, trained


def score_p99_us(model: Model, table: pa.Table, taught: Trained, *, rows: int) -> float:
    """One row at a time."""
    assert taught.artifact.trees is not None
    scorer = Scorer(taught.artifact)
    numbers = matrix(model, table)[:rows].tolist()
    scorer.one(numbers[0])
    return float(np.percentile([_spent(lambda row=row: scorer.one(row)) for row in numbers], 99)) * 1e6


def _last(requests: list[dict[str, object]]) -> Instant:
    """The latest instant of a transaction."""
    latest = max(dt.datetime.fromisoformat(str(request["tx_datetime"])) for request in requests)
    return Instant(round(latest.timestamp()) * 1_000_000)


def _spent(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
