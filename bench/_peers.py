"""The handbook's 12 features beside Polars, DuckDB and the book's own way: the same rows, machine and threads.

The peers run in a virtual environment of their own (build/peers-features), made when first asked for. Seconds are wall
time from the rows in memory to the result in memory, the best of several; `cpu` is the processor time of the same run.
Ours is the kernel's replay, Arrow in and Arrow out, keys hashed. With `_all` at as many threads as the process may use.

Answers are compared value by value. Counts are equal or not; means and rates may differ by 1e-9 of their size, because
the peers add doubles one after another and ours are exact sums of cents, rounded once. Where a customer has two
transactions at one instant, a window by time holds both for both, ours and the book's only what came before: those rows
are counted apart, as `tied_rows`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bench._features_peers import NAMES
from bench._peer_environment import peer_environment

SCRIPT = Path(__file__).resolve().parent / "_features_peers.py"
REQUIREMENTS = ("polars==2.1.0", "duckdb==2.0.0", "pandas==3.1.1", "pyarrow==26.0.1")
ONE_THREAD = ("book",)  # pandas has no other way
TOLERANCE = 1e-9
OURS_BEST_OF = 3
Replay = Callable[[pa.Table, int], list[pa.Array]]  # rows and threads -> the columns of NAMES


def compared(table: pa.Table, replay: Replay, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """(our figures, the peers'). table: as features.transactions gives it. folder: for files."""
    python = peer_environment("features", REQUIREMENTS)
    rows = folder / "rows.parquet"
    pq.write_table(table, rows)
    every = len(os.sched_getaffinity(0))
    figures, ours = {"same_work_rows": float(table.num_rows), "threads_all": float(every)}, _Answers(table)
    for threads, suffix in {1: "", every: "_all"}.items():
        seconds, cpu, found = _timed(lambda threads=threads: replay(table, threads))
        figures |= {f"same_work{suffix}_s": seconds, f"same_work{suffix}_cpu_s": cpu}
        ours.hold(found)
    peers: dict[str, float] = {}
    differing = 0
    for peer in ("polars", "duckdb", "book"):
        for threads, suffix in {1: "", every: "_all"}.items():
            if suffix and peer in ONE_THREAD:
                continue
            out = folder / f"{peer}.parquet"
            said = _run(python, peer, rows, out, threads)
            print(f"{peer} {said['version']}, {threads} thread(s): {said['seconds']:.2f} s", file=sys.stderr)
            peers |= {f"{peer}{suffix}_s": float(said["seconds"]), f"{peer}{suffix}_cpu_s": float(said["cpu_s"])}
            count = ours.differing(pq.read_table(out))
            peers[f"{peer}{suffix}_differing_values"] = float(count)
            differing += count
    figures |= {"differing_values": float(differing), "tied_rows": float(np.count_nonzero(ours.tied))}
    return figures, peers


class _Answers:
    """Ours, to compare others with. tied: rows whose customer has another transaction at the same instant."""

    def __init__(self, table: pa.Table) -> None:
        time, customer = table["time"].to_numpy(), table["customer_id"].to_numpy()
        order = np.lexsort((time, customer))
        same = (np.diff(time[order]) == 0) & (np.diff(customer[order]) == 0)
        self.tied = np.zeros(len(time), np.bool_)
        self.tied[order[1:][same]] = self.tied[order[:-1][same]] = True
        self._columns: list[npt.NDArray[np.float64]] = []

    def hold(self, columns: list[pa.Array]) -> None:
        """However many threads: the same bits."""
        found = [column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64) for column in columns]
        if self._columns and not all(np.array_equal(a, b) for a, b in zip(found, self._columns, strict=True)):
            raise AssertionError("one thread and several give different values")
        self._columns = found

    def differing(self, others: pa.Table) -> int:
        """Values of rows that are not tied which differ by more than the tolerance."""
        count = 0
        for name, own in zip(NAMES, self._columns, strict=True):
            theirs = others[name].to_numpy().astype(np.float64)
            allowed = 0.0 if "count" in name else TOLERANCE * np.maximum(np.abs(own), 1.0)
            near = np.abs(own - theirs) <= allowed  # a NaN is near nothing
            count += int(np.count_nonzero(~near & ~self.tied))
        return count


def _timed(work: Callable[[], list[pa.Array]]) -> tuple[float, float, list[pa.Array]]:
    best, found = (float("inf"), float("inf")), work()  # compiled, and memory taken once
    for _ in range(OURS_BEST_OF):
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        best = min(best, (time.perf_counter() - wall, time.process_time() - cpu))
    return *best, found


def _run(python: Path, peer: str, rows: Path, out: Path, threads: int) -> dict[str, float | str]:
    command = [str(python), str(SCRIPT), peer, str(rows), str(out), str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return said
