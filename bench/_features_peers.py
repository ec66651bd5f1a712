"""The handbook's 12 features as others compute them; runs in an environment of its own, without headrace.

    python bench/_features_peers.py PEER INPUT OUTPUT THREADS     prints one JSON object: seconds, cpu_s, version

PEER is polars, duckdb or book. INPUT: Parquet with time (us), customer_id, terminal_id, amount (cents), fraud, in order
of time. OUTPUT gets twelve columns in INPUT's order. What is timed begins with the rows in the peer's own memory and
ends with its own result. The same windows for all: (t - width, t] of a customer, (t - 7d - width, t - 7d] of a
terminal; 0 where no transaction is in it. Each peer is given the fastest way that was found to say it:

polars: `rolling_*_by` over the customers; over the terminals, where it has no delay, the window that reaches up to t
less its last seven days (`DataFrame.rolling` has one, and took a quarter longer). duckdb: RANGE frames in SQL. book:
the steps of the handbook's chapter 3.4, group by group in pandas, written anew (its own code is under the GPL).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

DAYS, DELAY = (1, 7, 30), 7
DAY_US = 86_400_000_000
NAMES = tuple(
    f"{name}_{days}d"
    for name in ("customer_count", "customer_mean", "terminal_count", "terminal_rate")
    for days in DAYS
)
BEST_OF = {"polars": 3, "duckdb": 3, "book": 1}  # the book's minute says enough


def polars(path: str, out: str, threads: int) -> tuple[Callable[[], Any], Callable[[Any], None], str]:
    """`rolling_sum_by` over each entity; POLARS_MAX_THREADS was set before the import."""
    import polars as pl

    if pl.thread_pool_size() != threads:
        raise SystemExit(f"polars has {pl.thread_pool_size()} threads, asked for {threads}")
    rows = pl.read_parquet(path).with_columns(
        pl.col("time").cast(pl.Datetime("us")), pl.col("amount") / 100, pl.col("fraud").cast(pl.Float64), one=1.0
    )

    def total(column: str, days: int, entity: str) -> pl.Expr:
        return pl.col(column).rolling_sum_by("time", window_size=f"{days}d", closed="right").over(entity)

    def work() -> pl.DataFrame:
        columns = []
        for days in DAYS:
            columns.append(total("one", days, "customer_id").alias(f"customer_count_{days}d"))
            mean = pl.col("amount").rolling_mean_by("time", window_size=f"{days}d", closed="right").over("customer_id")
            columns.append(mean.alias(f"customer_mean_{days}d"))
        sums = [total(c, d, "terminal_id").alias(f"{c}{d}") for c in ("one", "fraud") for d in (7, 8, 14, 37)]
        found = rows.lazy().with_columns(*columns, *sums)
        for days in DAYS:
            count = pl.col(f"one{days + DELAY}") - pl.col("one7")
            frauds = pl.col(f"fraud{days + DELAY}") - pl.col("fraud7")
            rate = pl.when(count > 0).then(frauds / count).otherwise(0.0)
            found = found.with_columns(count.alias(f"terminal_count_{days}d"), rate.alias(f"terminal_rate_{days}d"))
        return found.select(NAMES).collect()

    return work, lambda result: result.write_parquet(out), pl.__version__


def duckdb(path: str, out: str, threads: int) -> tuple[Callable[[], Any], Callable[[Any], None], str]:
    """One query; frames with RANGE BETWEEN INTERVAL."""
    import duckdb as db

    connection = db.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute(
        "CREATE TABLE rows AS SELECT row_number() OVER () AS n, make_timestamp(time) AS moment, customer_id, "
        f"terminal_id, amount / 100.0::DOUBLE AS amount, fraud::DOUBLE AS fraud FROM read_parquet('{path}')"
    )
    frames, columns = [], []
    for days in DAYS:
        # A frame is closed on both sides, a window open where it begins.
        near, far = (f"INTERVAL {reach * DAY_US - 1} MICROSECONDS PRECEDING" for reach in (days, days + DELAY))
        of_customer, of_terminal = (
            f"PARTITION BY {entity} ORDER BY moment" for entity in ("customer_id", "terminal_id")
        )
        frames.append(f"c{days} AS ({of_customer} RANGE BETWEEN {near} AND CURRENT ROW)")
        frames.append(f"t{days} AS ({of_terminal} RANGE BETWEEN {far} AND INTERVAL {DELAY} DAYS PRECEDING)")
        columns.append(f"count(*) OVER c{days} AS customer_count_{days}d")
        columns.append(f"avg(amount) OVER c{days} AS customer_mean_{days}d")
        columns.append(f"count(*) OVER t{days} AS terminal_count_{days}d")
        columns.append(f"coalesce(avg(fraud) OVER t{days}, 0) AS terminal_rate_{days}d")
    query = f"SELECT n, {', '.join(columns)} FROM rows WINDOW {', '.join(frames)} ORDER BY n"

    def write(result: Any) -> None:
        import pyarrow.parquet as pq

        pq.write_table(result.select(list(NAMES)), out)

    return lambda: connection.sql(query).to_arrow_table(), write, db.__version__


def book(path: str, out: str, threads: int) -> tuple[Callable[[], Any], Callable[[Any], None], str]:
    """Rolling sums and counts of each customer and each terminal, a group at a time; one thread, as it is written."""
    import pandas as pd

    rows = pd.read_parquet(path)
    rows = rows.assign(at=pd.to_datetime(rows["time"], unit="us"), amount=rows["amount"] / 100, place=range(len(rows)))

    def of_customer(group: Any) -> Any:
        group = group.sort_values("at")
        group.index = group["at"]
        made = {"place": group["place"].to_numpy()}
        for days in DAYS:
            total = group["amount"].rolling(f"{days}D").sum()
            count = group["amount"].rolling(f"{days}D").count()
            made[f"customer_count_{days}d"] = count.to_numpy()
            made[f"customer_mean_{days}d"] = (total / count).to_numpy()
        return pd.DataFrame(made)

    def of_terminal(group: Any) -> Any:
        group = group.sort_values("at")
        group.index = group["at"]
        made = {"place": group["place"].to_numpy()}
        frauds_delay = group["fraud"].rolling(f"{DELAY}D").sum()
        count_delay = group["fraud"].rolling(f"{DELAY}D").count()
        for days in DAYS:
            frauds = group["fraud"].rolling(f"{DELAY + days}D").sum() - frauds_delay
            count = group["fraud"].rolling(f"{DELAY + days}D").count() - count_delay
            made[f"terminal_count_{days}d"] = count.to_numpy()
            made[f"terminal_rate_{days}d"] = (frauds / count).fillna(0).to_numpy()
        return pd.DataFrame(made)

    def work() -> Any:
        customers = rows.groupby("customer_id")[["at", "amount", "place"]].apply(of_customer).set_index("place")
        terminals = rows.groupby("terminal_id")[["at", "fraud", "place"]].apply(of_terminal).set_index("place")
        return customers.join(terminals).sort_index()[list(NAMES)]

    return work, lambda result: result.reset_index(drop=True).to_parquet(out), pd.__version__


def main(peer: str, path: str, out: str, threads: int) -> None:
    work, write, version = {"polars": polars, "duckdb": duckdb, "book": book}[peer](path, out, threads)
    best = (float("inf"), float("inf"))
    for _ in range(BEST_OF[peer]):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        best = min(best, (time.perf_counter() - wall, time.process_time() - cpu))
    write(result)
    print(json.dumps({"seconds": best[0], "cpu_s": best[1], "version": version}))


if __name__ == "__main__":
    os.environ["POLARS_MAX_THREADS"] = sys.argv[4]
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
