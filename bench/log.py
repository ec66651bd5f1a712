"""The log's speed: batches in, batches out, durable single events, beside the disk's own sync.

The topic has the shape of the fraud handbook's transactions. Rates are one process; the sync is measured on the same
disk by the pattern of a commit: 4 KiB written over in place, then fdatasync.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.clock import SystemClock
from headrace.core.codec import decimals
from headrace.core.points import Partition
from headrace.core.schema import boolean, decimal, int64, timestamp
from headrace.log.define import Topic
from headrace.log.port import Append
from headrace.log.sqlite import SqliteLog

THREADS = 8
TRANSACTIONS = Topic(
    "transactions",
    key="customer_id",
    id="transaction_id",
    event_time="tx_datetime",
    max_late="20000d",  # the made rows are of 2018, and none is late
    fields={
        "transaction_id": int64, "tx_datetime": timestamp, "customer_id": int64, "terminal_id": int64,
        "amount": decimal(12, 2), "fraud": boolean,
    },
)  # fmt: skip
DECISIONS = Topic("decisions", key="transaction_id", fields={"transaction_id": int64, "score": int64})


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of BENCH `log`. Uses some 200 MiB of the folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-log-") as made:
        folder = Path(made)
        figures = measure_sync(folder, 500 if quick else 3_000)
        log = SqliteLog(folder / "log", clock=SystemClock())
        try:
            figures |= batches(log, 1 << 20, 3 if quick else 8)
            figures |= singles(log, 4_000 if quick else 40_000)
            figures |= threads(log, 1_000 if quick else 8_000)
        finally:
            log.close()
        log = SqliteLog(folder / "singles", clock=SystemClock())
        try:
            figures |= sealed_singles(log, 40_000 if quick else 200_000)
        finally:
            log.close()
    return {"figures": figures, "peers": {}}


def rows(count: int, first: int) -> pa.RecordBatch:
    """Transactions as the handbook's simulator makes them: 5,000 customers, 10,000 terminals, 183 days, in order."""
    random = np.random.default_rng(first)
    at = np.sort(random.integers(0, 183 * 86_400, count)) * 1_000_000 + 1_522_540_800_000_000
    arrays = [
        pa.array(np.arange(first, first + count, dtype=np.int64)),
        pa.array(at).cast(pa.timestamp("us", tz="UTC")),
        pa.array(random.integers(0, 5_000, count)),
        pa.array(random.integers(0, 10_000, count)),
        decimals(random.integers(0, 50_000, count), decimal(12, 2)),
        pa.array(random.random(count) < 0.01),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=TRANSACTIONS.schema.arrow)


def percentiles(seconds: list[float], name: str, unit: float) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        name.format("p50"): ordered[len(ordered) // 2] * unit,
        name.format("p99"): ordered[int(len(ordered) * 0.99)] * unit,
    }


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_sync(folder: Path, count: int) -> dict[str, float]:
    """The disk's: 4 KiB at a moving place of a file of 4 MiB, as the WAL is written, then fdatasync."""
    descriptor = os.open(folder / "sync", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, bytes(4 << 20), 0)
        os.fsync(descriptor)

        def once(number: int) -> None:
            os.pwrite(descriptor, b"x" * 4_096, number % 1_000 * 4_096)
            os.fdatasync(descriptor)

        return percentiles([timed(lambda n=n: once(n)) for n in range(count)], "fsync_{}_ms", 1e3)
    finally:
        os.close(descriptor)


def batches(log: SqliteLog, size: int, count: int) -> dict[str, float]:
    """Rows in batches of a million, the best of three reads of all. Every row is read, widened and checked."""
    partition = log.declare(TRANSACTIONS).partitions[0].partition
    made = [rows(size, number * size) for number in range(count)]
    spent = sum(timed(lambda each=each: log.append([Append(partition=partition, rows=each)])) for each in made)
    return {"append_rows_per_s": size * count / spent, "read_rows_per_s": read_rate(log, partition, size * count)}


def read_rate(log: SqliteLog, partition: Partition, count: int) -> float:
    def all_rows() -> None:
        seen = sum(batch.num_rows for batch in log.read(partition, 0))
        if seen != count:
            raise AssertionError(f"expected {count} rows, read {seen}")

    return count / min(timed(all_rows) for _ in range(3))


def single(number: int) -> tuple[int, int, int, int, int, bool]:
    return (
        number,
        1_522_540_800_000_000 + number % 1_000_000 * 9_000_000,
        number % 5_000,
        number % 10_000,
        number % 50_000,
        False,
    )


def singles(log: SqliteLog, count: int) -> dict[str, float]:
    """One thread: a request alone, and a request with its decision in one transaction."""
    requests = log.declare(TRANSACTIONS).partitions[0].partition
    decided = log.declare(DECISIONS).partitions[0].partition

    def alone(number: int) -> None:
        log.append([Append(partition=requests, rows=[single(number)])])

    def both(number: int) -> None:
        log.append([Append(partition=requests, rows=[single(number)]), Append(partition=decided, rows=[(number, 1)])])

    first = 1 << 40
    one = [timed(lambda n=n: alone(n)) for n in range(first, first + count)]
    two = [timed(lambda n=n: both(n)) for n in range(first + count, first + 2 * count)]
    return {
        "one_thread_singles_per_s": count / sum(one),
        **percentiles(one, "single_{}_ms", 1e3),
        **percentiles(two, "request_and_decision_{}_ms", 1e3),
    }


def threads(log: SqliteLog, count: int) -> dict[str, float]:
    """Several threads, each waiting for its own event to be durable before the next."""
    partition = log.declare(TRANSACTIONS).partitions[0].partition

    def work(thread: int) -> None:
        first = (2 << 40) + thread * count
        for number in range(first, first + count):
            log.append([Append(partition=partition, rows=[single(number)])])

    started = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]

    def all_threads() -> None:
        for each in started:
            each.start()
        for each in started:
            each.join()

    return {"durable_singles_per_s": THREADS * count / timed(all_threads)}


def sealed_singles(log: SqliteLog, count: int) -> dict[str, float]:
    """A log that was written one event at a time, by threads so that it does not take all day, then sealed."""
    partition = log.declare(TRANSACTIONS).partitions[0].partition
    threads(log, count // THREADS)
    spent = timed(log.seal)
    return {"seal_s": spent, "read_rows_from_singles_per_s": read_rate(log, partition, count // THREADS * THREADS)}
