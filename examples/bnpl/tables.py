"""The lender's run on a terminal: what was imported, how good the models are, what was decided of whom. Pure.

The one idea: a table shows what findings.py holds, and computes nothing but counts and percentiles.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from findings import KINDS, OUTCOMES, Findings
from rich.table import Table
from steps import DECISION, Trained
from wording import figure_words

from headrace.features.training import Impact
from headrace.schemas.define import ImportReport


def imported(reports: Sequence[ImportReport]) -> str:
    taken = sum(r.taken + r.late for r in reports)
    seen = sum(r.rows for r in reports)
    late = sum(r.late for r in reports)
    return f"{taken:,} of {seen:,} events taken" + (f", {late:,} of them late" if late else "")


def models_table(models: Sequence[Trained]) -> Table:
    table = _table("models, tested on what matured later", "model", "trained on", "true", "immature", "tested on")
    for name in ("true", "AUC", "avg prec."):
        table.add_column(name, justify="right")
    for one in models:
        table.add_row(*one.cells)
    return table


def impacts_table(impacts: Sequence[Impact], durations: Collection[str]) -> Table:
    """durations: the inputs that are."""
    table = _table("inputs that late reports would have changed", "input", "applications", "of", "largest difference")
    for one in impacts:
        largest = figure_words(one.largest, duration=one.feature in durations)
        table.add_row(one.feature, f"{one.differing:,}", f"{one.rows:,}", largest)
    return table


def truth_table(found: Findings) -> Table:
    """What was decided of whom."""
    table = _table("decisions beside the truth", "in truth", *OUTCOMES)
    for kind in KINDS:
        table.add_row(kind, *(f"{found.count(kind=kind, outcome=outcome):,}" for outcome in OUTCOMES))
    return table


def decided_table(found: Findings) -> Table:
    way = "over HTTP" if found.served else "in process"
    table = Table(title=f"decision {DECISION}, {way}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("requests", f"{len(found.cases):,}")
    table.add_row("events between them", f"{found.decided.events:,}")
    p50, p99 = np.percentile(found.milliseconds, (50, 99))
    table.add_row("answered and durable, p50", f"{p50:.2f} ms")
    table.add_row("answered and durable, p99", f"{p99:.2f} ms")
    table.add_section()
    for outcome in OUTCOMES:
        table.add_row(outcome, f"{found.count(outcome=outcome):,}")
    table.add_section()
    for code, count in found.reasons:
        table.add_row(code, f"{count:,}")
    table.add_section()
    for name in dict.fromkeys(name for case in found.cases for name in case.beside):
        other = sum(case.beside[name] != case.told.outcome for case in found.cases)
        table.add_row(f"otherwise by {name}, beside it", f"{other:,}")
    table.add_section()
    for one in found.trained:
        table.add_row(f"AUC of {one.name}, on what matured", f"{one.tested.auc_roc:.3f}")
    table.add_section()
    table.add_row("recomputed: compared", f"{found.replayed.compared:,}")
    table.add_row("recomputed: mismatched", f"{found.replayed.mismatched:,}")
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
