"""Sealing: which runs of entries are rewritten, and that it changes nothing that is read."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.points import Partition
from headrace.core.schema import int64
from headrace.log.define import Topic
from headrace.log.port import Append
from headrace.log.sealing import LARGE_BYTES, LARGE_ROWS, EntrySize, runs_to_seal
from headrace.log.sqlite import SqliteLog
from headrace.log.sqlite_entry import ENTRY_ROWS
from headrace.testing.clocks import ManualClock

TOPIC = Topic("numbers", key="number", fields={"number": int64})
SIZES = st.lists(
    st.tuples(
        st.sampled_from([1, 10, 4_096, LARGE_ROWS - 1, LARGE_ROWS, ENTRY_ROWS]),
        st.sampled_from([10, LARGE_BYTES // 3, LARGE_BYTES]),
    ),
    max_size=30,
)


@given(SIZES, st.integers(0, 1000), st.booleans())
def test_runs_are_small_entries_side_by_side(sizes: list[tuple[int, int]], start: int, whole: bool) -> None:
    entries, at = [], start
    for count, size in sizes:
        entries.append(EntrySize(at, count, size))
        at += count
    runs, settled = runs_to_seal(entries, all=whole)
    bounds = {entry.offset for entry in entries} | {at}
    for first, end in runs:
        inside = [entry for entry in entries if first <= entry.offset < end]
        assert len(inside) > 1 and end - first <= ENTRY_ROWS and {first, end} <= bounds
        assert sum(entry.size for entry in inside) <= LARGE_BYTES
        assert all(entry.count < LARGE_ROWS and entry.size < LARGE_BYTES for entry in inside)
    assert runs == sorted(runs) and all(a[1] <= b[0] for a, b in zip(runs, runs[1:], strict=False))
    assert settled in bounds | {0} or not entries
    if not whole and entries:
        assert all(end <= settled for _, end in runs), "what may still grow is left for the next round"


def opened(folder: Path) -> tuple[SqliteLog, Partition]:
    log = SqliteLog(folder, clock=ManualClock(), background=False)
    return log, log.declare(TOPIC).partitions[0].partition


def entries(log: SqliteLog) -> int:
    with log._reader.pool.lease() as connection:
        return connection.execute("SELECT count(*) FROM entries").fetchone()[0]


def table(log: SqliteLog, partition: Partition) -> pa.Table:
    return pa.Table.from_batches(log.read(partition, 0)).combine_chunks()


def test_sealing_changes_no_row_and_no_offset(tmp_path: Path) -> None:
    log, partition = opened(tmp_path)
    for number in range(300):
        log.append([Append(partition=partition, rows=[(number,)])])
    before = table(log, partition)
    assert entries(log) == 300
    log.seal()
    assert entries(log) == 1
    assert table(log, partition) == before
    assert log.append([Append(partition=partition, rows=[(300,)])])[0].offset == 300
    log.close()
    log, _ = opened(tmp_path)
    assert table(log, partition).slice(0, 300) == before
    log.close()


def test_a_reader_meets_no_gap_while_entries_are_sealed(tmp_path: Path) -> None:
    log, partition = opened(tmp_path)
    for number in range(500):
        log.append([Append(partition=partition, rows=[(number,)])])
    reading = log.read(partition, 0, rows_max=7)
    seen = next(reading).column("number").to_pylist()
    sealing = threading.Thread(target=log.seal)
    sealing.start()
    for batch in reading:
        seen += batch.column("number").to_pylist()
    sealing.join()
    assert seen == list(range(500))
    log.close()


def test_upkeep_seals_a_full_run_by_itself(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, clock=ManualClock())
    partition = log.declare(TOPIC).partitions[0].partition
    rows = [(number,) for number in range(1_000)]
    for _ in range(ENTRY_ROWS // 1_000 + 10):
        log.append([Append(partition=partition, rows=rows)])
    waited = threading.Event()
    for _ in range(100):
        if entries(log) < 20:
            break
        waited.wait(0.05)
    assert entries(log) < 20
    assert table(log, partition).num_rows == 1_000 * (ENTRY_ROWS // 1_000 + 10)
    log.close()
