"""A small log of the handbook's kind, from a seed: customers with habits, terminals, two kinds of fraud."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CUSTOMERS, TERMINALS, DAYS, PER_DAY = 400, 800, 75, 1_200
BEGIN = np.datetime64("2018-05-26T00:00:00", "s")


def simulate(path: Path, *, seed: int = 0) -> Path:
    """Transactions in order of time with the columns of the handbook's raw data. The same seed gives the same file.

    Amounts follow each customer's habit. A few terminals are compromised for four weeks at a time, and a few customers'
    cards for two, in which a third of the amounts are five times the habit.
    """
    random = np.random.default_rng(seed)
    count = DAYS * PER_DAY
    second = np.sort(random.integers(0, DAYS * 86_400, count))
    day = second // 86_400
    customer = random.integers(0, CUSTOMERS, count)
    home = random.integers(0, TERMINALS, (CUSTOMERS, 12))
    terminal = home[customer, random.integers(0, 12, count)]
    habit = random.uniform(5, 100, CUSTOMERS)
    amount = np.abs(random.normal(habit[customer], habit[customer] / 2))
    fraud = amount > 220
    for begin in range(0, DAYS, 3):
        taken = random.choice(TERMINALS, 2, replace=False)
        fraud |= np.isin(terminal, taken) & (day >= begin) & (day < begin + 28)
        stolen = random.choice(CUSTOMERS, 2, replace=False)
        hit = np.isin(customer, stolen) & (day >= begin) & (day < begin + 14) & (random.random(count) < 1 / 3)
        amount = np.where(hit, amount * 5, amount)
        fraud |= hit
    table = pa.table(
        {
            "transaction_id": np.arange(count),
            "tx_datetime": pa.array(BEGIN + second.astype("timedelta64[s]"), pa.timestamp("s")).cast(
                pa.timestamp("ms")
            ),
            "customer_id": customer.astype(np.int32),
            "terminal_id": terminal.astype(np.int32),
            "tx_amount": np.round(amount, 2),
            "tx_fraud": fraud.astype(np.int8),
            "tx_fraud_scenario": np.zeros(count, np.int8),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path
