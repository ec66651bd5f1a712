"""The features' speed: the fraud handbook's two views replayed from Arrow to Arrow, and answered one event at a time;
its training set from the log to Parquet; a key that holds a million events; with --peers others beside it.

Counts and means of amounts by customer over 1, 7 and 30 days, counts and fraud rates by terminal over the same windows,
7 days old: on the handbook's own transactions where they are found, else on the example's simulated ones, which
`simulated` says. Rates are CPU seconds of one thread, which other work on the machine does not change; single answers
are wall time, the Python call included; training sets and peers are wall time, with the processor's beside it.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench._features_peers import DAYS, NAMES
from bench._hot_key import hot_key
from bench._peers import compared
from bench._training import figures as training_figures
from bench.bits import EXAMPLE, find_data, simulated_data
from headrace.catalog.run import load_definitions
from headrace.core.kernel.program import Flag, Items, Program
from headrace.core.kernel.state import KeyedState, replay
from headrace.features.define import FeatureView
from headrace.features.plan import ViewPlan

DAY = 86_400_000_000
REPLAYED = int(Flag.INSERT | Flag.QUERY | Flag.OVERLAY)
QUICK_ROWS = 200_000
Words = npt.NDArray[np.int64]


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of BENCH `features`. Touches temporary folders; with peers also build/peers-features."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-features-") as made:
        folder = Path(made)
        data, simulated = find_data(folder)
        rows = QUICK_ROWS if quick else None
        table = transactions(data, rows)
        views = handbook()
        figures = {"rows": float(table.num_rows), "simulated": float(simulated)}
        figures |= processes()
        for view in views:
            replayed(view, table)  # compiled, and memory taken once
        figures["replay_events_per_s_core"] = rate(views, table)
        figures["replay_5pct_late_events_per_s_core"] = rate(views, with_late(table))
        figures |= online(views, table, 50_000 if quick else 300_000)
        figures |= hot_key(50_000 if quick else 1_000_000, 300 if quick else 20_000)
        figures["bytes_per_event"] = float(sum(view.program.bytes_per_event for view in views))
        figures |= training_figures(folder, data, rows)
        others: dict[str, float] = {}
        if peers:
            # The book's way costs a group, not a row: quickly it is only done on the simulated log, which has few.
            same = transactions(simulated_data(folder), None) if quick else table
            ours, others = compared(same, lambda rows, threads: features(views, rows, threads), folder)
            figures |= ours
    return {"figures": figures, "peers": others}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view's plan, the column that its entity stands in, and the one that it takes values from."""

    plan: ViewPlan
    entity: str
    value: str
    overlay: bool

    @property
    def program(self) -> Program:
        return self.plan.program


def handbook() -> tuple[View, View]:
    """The example's own views."""
    views = {view.name: view for view in load_definitions(EXAMPLE, (FeatureView,)) if isinstance(view, FeatureView)}
    customer, terminal = (ViewPlan.compile(views[name], {}) for name in ("customer", "terminal"))
    return (
        View(plan=customer, entity="customer_id", value="amount", overlay=True),
        View(plan=terminal, entity="terminal_id", value="fraud", overlay=False),
    )


def transactions(data: Path, rows: int | None) -> pa.Table:
    """Columns time (us), customer_id, terminal_id, amount (cents), fraud of the first rows, in order of time."""
    table = pq.read_table(data).combine_chunks()
    table = table if rows is None else table.slice(0, rows)
    cents = np.round(table["tx_amount"].to_numpy() * 100).astype(np.int64)
    moments = table["tx_datetime"].cast(pa.timestamp("us")).cast(pa.int64())
    return pa.table(
        {
            "time": moments,
            "customer_id": table["customer_id"],
            "terminal_id": table["terminal_id"],
            "amount": cents,
            "fraud": table["tx_fraud"].cast(pa.int64()),
        }
    ).combine_chunks()


def with_late(table: pa.Table) -> pa.Table:
    """One row in twenty up to a day older than its place."""
    random = np.random.default_rng(2)
    older = np.where(random.random(table.num_rows) < 0.05, random.integers(0, DAY, table.num_rows), 0)
    return table.set_column(0, "time", pa.array(table["time"].to_numpy() - older))


def features(views: tuple[View, View], table: pa.Table, threads: int) -> list[pa.Array]:
    """The columns of NAMES."""
    customers, terminals = (replayed(view, table, threads) for view in views)
    found: dict[str, pa.Array] = {}
    for days in DAYS:
        found[f"customer_count_{days}d"] = customers[f"count_{days}d"]
        found[f"customer_mean_{days}d"] = customers[f"mean_tx_amount_{days}d"]
        found[f"terminal_count_{days}d"] = terminals[f"count_{days}d"]
        found[f"terminal_rate_{days}d"] = terminals[f"tx_fraud_rate_{days}d"]
    return [found[name] for name in NAMES]


def replayed(view: View, table: pa.Table, threads: int = 1) -> pa.RecordBatch:
    """All features at all rows, from Arrow to Arrow."""
    rows = table.num_rows
    encoded = pc.dictionary_encode(table[view.entity].combine_chunks())
    zeros = np.zeros(rows, np.int64)
    items = Items(
        key=encoded.indices.to_numpy(),
        flags=np.full(rows, REPLAYED if view.overlay else int(Flag.INSERT | Flag.QUERY), np.uint8),
        time=table["time"].to_numpy(),
        order=zeros,
        seq=zeros,
        valid=np.ones(rows, np.int64),
        values=table[view.value].to_numpy().reshape(1, -1),
        out=np.arange(rows),
    )
    words, reasons = replay(view.program, items, keys=len(encoded.dictionary), outs=rows, threads=threads)
    return view.plan.publish(words, reasons)


def rate(views: tuple[View, View], table: pa.Table) -> float:
    """Events through both views a CPU second of one thread; the best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        for view in views:
            replayed(view, table)
        best = min(best, time.thread_time() - start)
    return table.num_rows / best


def online(views: tuple[View, View], table: pa.Table, rows: int) -> dict[str, float]:
    """One event through both views: answered, then inserted, the calls from Python included."""
    states = [KeyedState(view.program) for view in views]
    handles: list[dict[int, int]] = [{}, {}]
    columns = [table["time"].to_pylist()[:rows]]
    columns += [table[view.entity].to_pylist()[:rows] for view in views]
    columns += [table[view.value].to_pylist()[:rows] for view in views]
    taken: list[int] = []
    gc.disable()
    try:
        for i, (at, *rest) in enumerate(zip(*columns, strict=True)):
            entities, values = rest[:2], rest[2:]
            start = time.perf_counter_ns()
            for state, known, view, entity, value in zip(states, handles, views, entities, values, strict=True):
                handle = known.get(entity)
                if handle is None:
                    handle = known[entity] = state.key()
                state.answer(handle, at, 0, i, view.overlay, 1, (value,))
                state.insert(handle, at, 0, i, 1, (value,))
            taken.append(time.perf_counter_ns() - start)
    finally:
        gc.enable()
    half, most = np.percentile(taken[len(taken) // 10 :], (50, 99))
    return {"online_p50_us": half / 1e3, "online_p99_us": most / 1e3}


def processes() -> dict[str, float]:
    """Seconds of the first call on a machine, in a cache of its own, and of a later process from its start to the end
    of its first call: the processor's, and the clock's."""
    script = "from headrace.core.kernel.warm import warm_up; warm_up()"
    figures = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-cache-") as folder:
        environment = os.environ | {"HEADRACE_CACHE_DIR": folder}
        for name in ("first_compile", "later_start"):
            wall, before = time.perf_counter(), os.times()
            subprocess.run([sys.executable, "-c", script], env=environment, check=True)
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            figures |= {f"{name}_s": spent, f"{name}_wall_s": time.perf_counter() - wall}
    return figures
