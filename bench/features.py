"""The features' speed: the fraud handbook's two views replayed from Arrow to Arrow, and answered one event at a time.

Counts and means of amounts by customer over 1, 7 and 30 days, counts and fraud rates by terminal over the same windows,
7 days old: on the handbook's own transactions where they are found, else on made ones of the same shape. CPU seconds
of one thread, which other work on the machine does not change; single answers are wall time, the Python call included.
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

from headrace.core.aggregate import Function
from headrace.core.kernel.program import Column, ColumnKind, Flag, Items, Output, Program, Span, build
from headrace.core.kernel.state import KeyedState, replay

DAY = 86_400_000_000
REPLAYED = int(Flag.INSERT | Flag.QUERY | Flag.OVERLAY)
FILE = "fdh/transactions.parquet"
Words = npt.NDArray[np.int64]


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of BENCH `features` that the kernel decides. Touches a temporary folder, for code compiled afresh."""
    table = transactions(200_000 if quick else None)
    views = handbook(table)
    figures = {"rows": float(table.num_rows), "first_compile_s": first_compile()}
    for view in views:
        replayed(view, table)  # compiled, and memory taken once
    figures["replay_events_per_s_core"] = rate(views, table)
    late = with_late(table)
    figures["replay_5pct_late_events_per_s_core"] = rate(views, late)
    figures |= online(views, table, 50_000 if quick else 300_000)
    figures |= hot_key(20_000 if quick else 1_000_000, 300 if quick else 2_000)
    figures["bytes_per_event"] = float(sum(view.program.bytes_per_event for view in views))
    return {"figures": figures, "peers": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A program, the column that its entity stands in, and the one that it takes values from."""

    program: Program
    entity: str
    value: str
    overlay: bool


def handbook(table: pa.Table) -> tuple[View, View]:
    amount = Column(kind=ColumnKind.INT, bits=40, scale=2, always=True)
    fraud = Column(kind=ColumnKind.INT, bits=1, always=True)
    near = tuple(Span(width=days * DAY) for days in (1, 7, 30))
    far = tuple(Span(width=days * DAY, delay=7 * DAY, overlaid=False) for days in (1, 7, 30))
    means = [
        Output(function=f, span=s, column=c) for s in range(3) for f, c in ((Function.COUNT, None), (Function.MEAN, 0))
    ]
    rates = [
        Output(function=f, span=s, column=c) for s in range(3) for f, c in ((Function.COUNT, None), (Function.RATE, 0))
    ]
    customers = View(program=build((amount,), near, tuple(means)), entity="customer_id", value="amount", overlay=True)
    terminals = View(program=build((fraud,), far, tuple(rates)), entity="terminal_id", value="fraud", overlay=False)
    return customers, terminals


def transactions(rows: int | None) -> pa.Table:
    """Columns time (us), customer_id, terminal_id, amount (cents), fraud: the handbook's first rows, else made ones."""
    roots = [Path(os.environ["HEADRACE_DATA"])] if "HEADRACE_DATA" in os.environ else []
    roots.append(Path(__file__).resolve().parents[2] / "shared" / "data")
    found = next((root / FILE for root in roots if (root / FILE).exists()), None)
    if found is None:
        return made(rows or 1_750_000)
    table = pq.read_table(found).combine_chunks()
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


def made(rows: int) -> pa.Table:
    """5,000 customers, 10,000 terminals, 183 days, in order."""
    random = np.random.default_rng(1)
    return pa.table(
        {
            "time": np.sort(random.integers(0, 183 * 86_400, rows)) * 1_000_000 + 1_522_540_800_000_000,
            "customer_id": random.integers(0, 5_000, rows),
            "terminal_id": random.integers(0, 10_000, rows),
            "amount": random.integers(0, 50_000, rows),
            "fraud": (random.random(rows) < 0.01).astype(np.int64),
        }
    )


def with_late(table: pa.Table) -> pa.Table:
    """One row in twenty up to a day older than its place."""
    random = np.random.default_rng(2)
    older = np.where(random.random(table.num_rows) < 0.05, random.integers(0, DAY, table.num_rows), 0)
    return table.set_column(0, "time", pa.array(table["time"].to_numpy() - older))


def replayed(view: View, table: pa.Table) -> pa.RecordBatch:
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
    words, reasons = replay(view.program, items, keys=len(encoded.dictionary), outs=rows)
    columns = []
    for o, output in enumerate(view.program.outputs):
        column = np.ascontiguousarray(words[:, view.program.slot[o]])
        counted = output.function is Function.COUNT
        columns.append(pa.array(column if counted else column.view(np.float64), mask=reasons[:, o] != 0))
    return pa.RecordBatch.from_arrays(columns, names=[f"feature_{o}" for o in range(len(columns))])


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


def hot_key(window: int, asked: int) -> dict[str, float]:
    """A key with so many events in its window, one in twenty late: minimum, maximum and deviation of a float."""
    column = Column(kind=ColumnKind.FLOAT, always=True, compact=True)
    functions = (Function.COUNT, Function.MIN, Function.MAX, Function.DEVIATION)
    outputs = tuple(Output(function=f, span=0, column=None if f is Function.COUNT else 0) for f in functions)
    state = KeyedState(build((column,), (Span(width=window * 1_000),), outputs))
    key = state.key()
    random = np.random.default_rng(3)
    values = np.round(random.uniform(0, 500, window + asked), 2).view(np.int64)
    times = np.arange(window + asked) * 1_000
    late = random.random(window + asked) < 0.05
    times = np.where(late, times - random.integers(0, window * 500, len(times)), times)
    zeros = np.zeros(window, np.int64)
    first = np.argsort(times[:window], kind="stable")
    state.apply(
        Items(
            key=zeros + key,
            flags=np.full(window, int(Flag.INSERT), np.uint8),
            time=times[:window][first],
            order=zeros,
            seq=np.arange(window),
            valid=zeros + 1,
            values=values[:window].reshape(1, -1),
            out=zeros,
        )
    )
    taken = []
    for i in range(window, window + asked):
        at, value = int(times[i]), int(values[i])
        start = time.perf_counter_ns()
        state.answer(key, at, 0, i, True, 1, (value,))
        state.insert(key, at, 0, i, 1, (value,))
        taken.append(time.perf_counter_ns() - start)
    return {"online_hot_key_p99_us": float(np.percentile(taken, 99)) / 1e3, "hot_key_events": float(window)}


def first_compile() -> float:
    """CPU seconds that the first call on a machine takes, in a process and a cache of its own."""
    script = (
        "import time; from headrace.core.kernel.warm import warm_up; "
        "start = time.process_time(); warm_up(); print(time.process_time() - start)"
    )
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        environment = os.environ | {"HEADRACE_CACHE_DIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
    return float(done.stdout)
