"""The example as a newcomer runs it, and its features on the handbook's own data, row by row against the contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.handbook import EXAMPLE, example
from tests.needs import requires, requires_data

DAY = 86_400_000_000
DAYS = (1, 7, 30)

Integers = npt.NDArray[np.int64]


@pytest.mark.slow
def test_the_simulated_example_ends_with_every_decision_recomputed(tmp_path: Path) -> None:
    requires("xgboost", "sklearn", "matplotlib")
    out = tmp_path / "features.parquet"
    command = [sys.executable, str(EXAMPLE / "run.py"), "--simulate", "--out", str(out), "--decide", "200"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "200 compared, 0 mismatched" in outcome.stdout
    assert "HR-0201" in outcome.stdout
    assert pq.read_metadata(out).num_rows == 90_000


@pytest.mark.slow
@pytest.mark.data
def test_every_row_of_the_handbook_equals_the_contract(tmp_path: Path) -> None:
    """Terminal columns in all rows; customer columns with ties in order of transaction_id, the current one included."""
    requires("xgboost", "sklearn", "matplotlib")
    data = requires_data()
    run = example("run")
    table = pq.read_table(data)
    with run._project(tmp_path / "project") as project:
        project.import_file("transactions", data, options=run.OPTIONS)
        run.write_features(project, tmp_path / "features.parquet", run.split(table))
    made = pq.read_table(tmp_path / "features.parquet")
    assert made.column("TRANSACTION_ID").equals(table.column("transaction_id").cast(pa.int64()))
    times = table.column("tx_datetime").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    cents = np.rint(table.column("tx_amount").to_numpy() * 100).astype(np.int64)
    frauds = table.column("tx_fraud").to_numpy().astype(np.int64)
    customers = _windows(table.column("customer_id").to_numpy(), times, cents, delay=0)
    terminals = _windows(table.column("terminal_id").to_numpy(), times, frauds, delay=7 * DAY)
    for days in DAYS:
        counts, sums = customers[days]
        assert (made.column(f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW").to_numpy() == counts).all()
        means = sums / (100 * counts)
        own = made.column(f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW").to_numpy()
        assert np.allclose(own, means, rtol=1e-9, atol=0)
        counts, sums = terminals[days]
        assert (made.column(f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW").to_numpy() == counts).all()
        risk = np.where(counts > 0, sums / np.maximum(counts, 1), 0.0)
        assert (made.column(f"TERMINAL_ID_RISK_{days}DAY_WINDOW").to_numpy() == risk).all()


def _windows(keys: Integers, times: Integers, values: Integers, *, delay: int) -> dict[int, tuple[Integers, Integers]]:
    """(count, sum) over (t - n days - delay, t - delay] of each row's key, in the rows' order; plain numpy."""
    order = np.lexsort((np.arange(len(keys)), keys))
    sorted_keys, sorted_times = keys[order], times[order]
    totals = np.concatenate([[0], np.cumsum(values[order])])
    starts = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]]))
    ends = np.append(starts[1:], len(keys))
    found = {}
    for days in DAYS:
        counts, sums = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
        for start, end in zip(starts, ends, strict=True):
            own = sorted_times[start:end]
            high = np.searchsorted(own, own - delay, side="right") if delay else np.arange(1, end - start + 1)
            low = np.searchsorted(own, own - delay - days * DAY, side="right")
            rows = order[start:end]
            counts[rows] = high - low
            sums[rows] = totals[start + high] - totals[start + low]
        found[days] = counts, sums
    return found
