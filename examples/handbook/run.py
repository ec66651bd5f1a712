"""The handbook's chapter 3 on headrace: import, features, five models, a day of decisions, all of it recomputed.

    python examples/handbook/run.py --data transactions.parquet --out build/demo/features.parquet
    python examples/handbook/run.py --simulate --out build/demo/features.parquet

Writes the features under the handbook's column names to OUT, and beside it a project folder with the log, the models, a
picture and `table.json`. Everything is computed through the definitions in definitions.py.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))

from leak import show_leak
from protocol import Split, evaluate, split
from simulate import simulate

from headrace.core.errors import HeadraceError
from headrace.core.times import iso
from headrace.models.inputs import labels
from headrace.models.picture import picture
from headrace.runtime import training
from headrace.runtime.project import Project, open_project
from headrace.schemas.define import ImportOptions

HERE = Path(__file__).resolve().parent
# Some amounts are floats an ulp beside their cents, which headrace refuses as a decimal unless rounding is asked for.
OPTIONS = ImportOptions(zone="UTC", round=("tx_amount",), ignore=("tx_fraud_scenario",))
BOOK = {  # Table A: AUC ROC, average precision, card precision@100
    "logistic_regression": (0.871, 0.606, 0.291),
    "decision_tree_depth_2": (0.763, 0.496, 0.241),
    "decision_tree_unlimited": (0.788, 0.309, 0.243),
    "random_forest": (0.867, 0.658, 0.287),
    "xgboost": (0.862, 0.639, 0.273),
}
NAMES = {  # the handbook's column names
    "tx_amount": "TX_AMOUNT",
    "weekend": "TX_DURING_WEEKEND",
    "night": "TX_DURING_NIGHT",
    **{f"customer_count_{n}d": f"CUSTOMER_ID_NB_TX_{n}DAY_WINDOW" for n in (1, 7, 30)},
    **{f"customer_mean_tx_amount_{n}d": f"CUSTOMER_ID_AVG_AMOUNT_{n}DAY_WINDOW" for n in (1, 7, 30)},
    **{f"terminal_count_{n}d": f"TERMINAL_ID_NB_TX_{n}DAY_WINDOW" for n in (1, 7, 30)},
    **{f"terminal_tx_fraud_rate_{n}d": f"TERMINAL_ID_RISK_{n}DAY_WINDOW" for n in (1, 7, 30)},
}


def main() -> None:
    arguments = _arguments()
    out: Path = arguments.out.resolve()
    work = out.parent / "handbook"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    data = simulate(work / "transactions.parquet") if arguments.simulate else arguments.data
    periods = split(pq.read_table(data))
    with _project(work / "all") as project:
        with _step("import"):
            report = project.import_file("transactions", data, options=OPTIONS)
            print(f"  {report.taken:,} of {report.rows:,} transactions taken")
        with _step("features of every transaction"):
            write_features(project, out, periods)
        rows = train(project, periods, work, compare=not arguments.simulate)
    with _step("the price of a leak"):
        show_leak(data, work / "leak", periods, compare=not arguments.simulate)
    with _step(f"a day of decisions: {arguments.decide or 'all'} requests"):
        decide(data, work, periods, arguments.decide)
    (work / "table.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(f"\nfeatures: {out}\nlog, models, picture, table: {work}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The handbook's chapter 3 on headrace.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="the handbook's raw transactions, Parquet")
    source.add_argument("--simulate", action="store_true", help="make a small log of the same kind")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file for the features")
    parser.add_argument("--decide", type=int, default=2_000, help="requests of the day to decide; 0 for all of them")
    return parser.parse_args()


@contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"{title} ...", flush=True)
    begun = time.perf_counter()
    yield
    print(f"  {time.perf_counter() - begun:.1f} s", flush=True)


def _project(folder: Path) -> Project:
    """A project of its own with the example's definitions, applied."""
    folder.mkdir(parents=True)
    shutil.copy(HERE / "definitions.py", folder / "definitions.py")
    project = open_project(folder)
    project.apply()
    return project


def write_features(project: Project, out: Path, periods: Split) -> None:
    """All model inputs of all transactions, under the handbook's names."""
    made = training.build_training_set(project, "xgboost", t_label=periods.t_label_all)
    columns = {"TRANSACTION_ID": made.table.column("transaction_id")}
    columns |= {NAMES[name]: made.table.column(name) for name in NAMES}
    table = pa.table(columns)
    flags = ("TX_DURING_WEEKEND", "TX_DURING_NIGHT")
    for name in flags:
        table = table.set_column(table.schema.get_field_index(name), name, table.column(name).cast(pa.int8()))
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out)
    print(f"  {table.num_rows:,} rows x {len(NAMES)} inputs, content {made.manifest.content_hash[:16]}")


def train(project: Project, periods: Split, work: Path, *, compare: bool) -> dict[str, dict[str, float]]:
    """The five models of Table A, beside the book's figures where the data is the book's."""
    rows: dict[str, dict[str, float]] = {}
    print("models: AUC ROC, average precision, card precision@100" + (" (the book's)" if compare else ""))
    for name, book in BOOK.items():
        made = training.build_training_set(
            project, name, begin=periods.train_begin, end=periods.train_end, t_label=periods.t_label_train
        )
        _, registered = training.train_model(project, name, made)
        test = training.build_training_set(
            project, name, begin=periods.test_begin, end=periods.test_end, t_label=periods.t_label_all
        )
        kept, customers, days = periods.test_rows(test.table)
        scores = training.score_rows(project, name, kept)
        truths = labels(project.definitions.model(name), kept)
        found = evaluate(truths, scores, customers, days)
        rows[name] = {"auc_roc": found[0], "average_precision": found[1], "card_precision": found[2]}
        pairs = zip(found, book, strict=True)
        figures = "   ".join(f"{own:.3f}" + (f" ({theirs:.3f})" if compare else "") for own, theirs in pairs)
        print(f"  {name:24} {figures}   scorer within {registered.largest_difference:.1e} of the library", flush=True)
        if name == "xgboost":
            (work / "xgboost.png").write_bytes(picture(truths, scores, title="xgboost, test week"))
    return rows


def decide(data: Path, work: Path, periods: Split, limit: int) -> None:
    """Transactions up to the test week are history; those of its first day are decided, one by one, and recomputed."""
    table = pq.read_table(data)
    at = pc.cast(table.column("tx_datetime"), pa.timestamp("us"))
    begin = pa.scalar(_naive(periods.test_begin), pa.timestamp("us"))
    end = pa.scalar(_naive(periods.test_begin) + dt.timedelta(days=1), pa.timestamp("us"))
    history = work / "history.parquet"
    pq.write_table(table.filter(pc.less(at, begin)), history)
    day = table.filter(pc.and_(pc.greater_equal(at, begin), pc.less(at, end)))
    day = day.slice(0, limit) if limit else day
    with _project(work / "deciding") as project:
        project.import_file("transactions", history, options=OPTIONS)
        shutil.copytree(work / "all" / ".headrace" / "models", work / "deciding" / ".headrace" / "models")
        decider = project.decider("payment")
        outcomes: dict[str, int] = {}
        taken = []
        for request in _requests(day):
            begun = time.perf_counter()
            made = decider.decide(request)
            taken.append(time.perf_counter() - begun)
            outcomes[made.outcome.value] = outcomes.get(made.outcome.value, 0) + 1
        report = project.replay_decisions("payment")
    print(f"  {', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))}")
    p50, p99 = np.percentile(taken, (50, 99)) * 1e3
    print(f"  durable, in process: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    print(f"  recomputed from the log: {report.compared:,} compared, {report.mismatched} mismatched")
    if report.mismatched or report.compared != len(taken):
        raise SystemExit("recomputed decisions differ from what was recorded")


def _requests(day: pa.Table) -> Iterator[dict[str, object]]:
    for row in day.to_pylist():
        yield {
            "transaction_id": row["transaction_id"],
            "tx_datetime": row["tx_datetime"].replace(tzinfo=dt.UTC).isoformat(),
            "customer_id": row["customer_id"],
            "terminal_id": row["terminal_id"],
            "tx_amount": f"{row['tx_amount']:.2f}",
        }


def _naive(at: int) -> dt.datetime:
    return dt.datetime.fromisoformat(iso(at).replace("Z", ""))


if __name__ == "__main__":
    try:
        main()
    except HeadraceError as error:
        raise SystemExit(str(error)) from error
