"""Training sets of the handbook's log: from the log to Parquet, in a process of its own, so that its memory is its own.

Two logs of the same transactions. One is imported. The other was appended live, as single events in the groups that
group commit makes of them, and sealed; there a fraud becomes known by an event of its own, seven days later, because a
live row cannot say it. Both give the same features, which is compared.

    python -m bench._training FOLDER MODEL OUT    builds a project's training set three times, prints one JSON object
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.bits import EXAMPLE, OPTIONS
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.log.port import Append
from headrace.log.sqlite import SqliteLog
from headrace.runtime import training
from headrace.runtime.project import open_project

ROOT = Path(__file__).resolve().parent.parent
DAY = 86_400_000_000
BUILDS = 3  # the first warms up; the best of the others counts
GROUP = 256  # single events that one commit takes together
MODEL, LIVE_MODEL = "xgboost", "live"
LIVE = """
import headrace as hr

DAYS = ("1d", "7d", "30d")
transactions = hr.Topic("transactions", key="customer_id", id="transaction_id", event_time="tx_datetime",
    clock="simulated", fields={
        "transaction_id": hr.int64, "tx_datetime": hr.timestamp, "customer_id": hr.int64, "terminal_id": hr.int64,
        "tx_amount": hr.field(hr.decimal(12, 2), required=True)})
frauds = hr.Topic("frauds", key="transaction_id", event_time="at", clock="simulated", fields={
    "transaction_id": hr.int64, "at": hr.timestamp})
tx_fraud = hr.Label("tx_fraud", of=transactions, source=frauds, on="transaction_id", within="7d")
customer = hr.FeatureView("customer", entity="customer_id", source=transactions, features=[
    hr.count().over(*DAYS), hr.mean(transactions.tx_amount).over(*DAYS)])
terminal = hr.FeatureView("terminal", entity="terminal_id", source=transactions, features=[
    hr.count().over(*DAYS, delay="7d"), hr.rate(tx_fraud).over(*DAYS, delay="7d", empty=0)])
live = hr.Model("live", label=tx_fraud, trainer=hr.logistic_regression(), features=[
    transactions.tx_amount,
    (hr.weekday(transactions.tx_datetime) >= 5).named("weekend"),
    (hr.hour(transactions.tx_datetime) <= 6).named("night"),
    *(customer[f"{name}_{days}"].named(f"customer_{name}_{days}")
      for days in DAYS for name in ("count", "mean_tx_amount")),
    *(terminal[f"{name}_{days}"].named(f"terminal_{name}_{days}")
      for days in DAYS for name in ("count", "tx_fraud_rate"))])
"""


def figures(folder: Path, data: Path, rows: int | None) -> dict[str, float]:
    """The training set's figures of BENCH `features`. rows: only the first so many."""
    table = pq.read_table(data)
    table = table if rows is None else table.slice(0, rows)
    imported, live = folder / "imported", folder / "live"
    _import(imported, table)
    _append(live, table)
    of_import = _built(imported, MODEL, folder / "of_import")
    of_singles = _built(live, LIVE_MODEL, folder / "of_singles")
    return {
        "training_set_rows": of_import["rows"],
        "training_set_s": of_import["wall_s"],
        "training_set_cpu_s": of_import["cpu_s"],
        "training_set_peak_mb": of_import["peak_mb"],
        "training_set_from_singles_s": of_singles["wall_s"],
        "training_set_from_singles_cpu_s": of_singles["cpu_s"],
        "training_set_from_singles_peak_mb": of_singles["peak_mb"],
        "training_set_differing_values": float(_differing(folder / "of_import", folder / "of_singles")),
    }


def _import(folder: Path, table: pa.Table) -> None:
    folder.mkdir()
    shutil.copy(EXAMPLE / "definitions.py", folder / "definitions.py")
    data = folder / "transactions.parquet"
    pq.write_table(table, data)
    with open_project(folder) as project:
        project.apply()
        project.import_file("transactions", data, options=OPTIONS)


def _append(folder: Path, table: pa.Table) -> None:
    """As events that a service takes one by one; then sealed."""
    folder.mkdir()
    (folder / "definitions.py").write_text(LIVE, encoding="utf-8")
    at = table["tx_datetime"].cast(pa.timestamp("us")).cast(pa.int64())
    cents = np.round(table["tx_amount"].to_numpy() * 100).astype(np.int64)
    fields = [table["transaction_id"].to_pylist(), at.to_pylist()]
    fields += [table["customer_id"].to_pylist(), table["terminal_id"].to_pylist(), cents.tolist()]
    fraud = table.filter(pc.equal(table["tx_fraud"], 1))
    known = fraud["tx_datetime"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() + 7 * DAY
    with open_project(folder) as project:
        project.apply()
        log = project.log
        assert isinstance(log, SqliteLog)
        live = {state.topic.name: state.partitions[0].partition for state in log.topics()}
        _append_rows(log, live["transactions"], list(zip(*fields, strict=True)))
        _append_rows(log, live["frauds"], list(zip(fraud["transaction_id"].to_pylist(), known.tolist(), strict=True)))
        log.seal()


def _append_rows(log: SqliteLog, partition: Partition, rows: list[tuple[int, ...]]) -> None:
    for first in range(0, len(rows), GROUP):
        log.append([Append(partition=partition, rows=rows[first : first + GROUP])])


def _built(folder: Path, model: str, out: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench._training", str(folder), model, str(out)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _differing(one: Path, other: Path) -> int:
    """Values of equally named columns that are not equal, null to null."""
    a, b = pq.read_table(one / "rows.parquet"), pq.read_table(other / "rows.parquet")
    if a.column_names != b.column_names or a.num_rows != b.num_rows:
        raise AssertionError(f"{a.num_rows} rows of {a.column_names}, and {b.num_rows} of {b.column_names}")
    differing = 0
    for name in a.column_names:
        same = pc.fill_null(pc.equal(a[name], b[name]), False)
        both_null = pc.and_(pc.is_null(a[name]), pc.is_null(b[name]))
        differing += a.num_rows - int(pc.sum(pc.or_(same, both_null)).as_py())
    return differing


def _measure(folder: Path, model: str, out: Path) -> dict[str, float]:
    """The best build of those that are warm, and the most memory that the process ever had."""
    best = (float("inf"), float("inf"))
    with open_project(folder) as project:
        t_label = Instant(project.now())
        for number in range(BUILDS):
            wall, cpu = time.perf_counter(), time.process_time()
            made = training.build_training_set(project, model, t_label=t_label)
            training.write_training_set(made, out)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best = min(best, spent) if number else best
            rows = made.table.num_rows
            del made
    return {"rows": float(rows), "wall_s": best[0], "cpu_s": best[1], "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    """The most memory this program ever held. Not getrusage: that begins with what its parent held at the fork."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))))
