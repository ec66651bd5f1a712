"""The price of a leak: terminal features that pretend frauds are known at once, and what they are worth when served.

Where it is declared honestly the leak is refused. To show what it would cost, the same file is imported into a topic
that claims its `tx_fraud` is known with the transaction: the model is trained on that, and scored once on such features
(how it looks offline) and once on the same windows as far as they can be known, a week late (how it is served).
"""

from __future__ import annotations

from pathlib import Path

from protocol import Split, evaluate

import headrace as hr
from headrace.core.errors import LeakError
from headrace.models.inputs import labels
from headrace.runtime import training
from headrace.runtime.project import open_project
from headrace.schemas.define import ImportOptions

OPTIONS = ImportOptions(zone="UTC", round=("tx_amount",), ignore=("tx_fraud_scenario",))
ONLY_OUTCOMES = ImportOptions(zone="UTC")
BOOK = {"offline": (0.967, 0.880), "served": (0.868, 0.573)}
DEFINITIONS = Path(__file__).with_name("leak_definitions.py")


def refused() -> str:
    """What headrace says to a window that does not wait for its values' truth."""
    fraud = hr.field(hr.boolean, available_after="7d")
    topic = hr.Topic("transactions", key="customer_id", fields={"customer_id": hr.int64, "tx_fraud": fraud})
    try:
        hr.FeatureView("risk", entity="customer_id", source=topic, features=[hr.rate(topic.tx_fraud).over("1d")])
    except LeakError as error:
        return str(error)
    raise AssertionError("a leaking definition was accepted")


def show_leak(data: Path, folder: Path, periods: Split, *, compare: bool) -> dict[str, tuple[float, float, float]]:
    """Refuse it; then train on it under a false declaration, and score what would really have been served."""
    print("  " + refused().replace("\n", "\n  "))
    folder.mkdir(parents=True)
    (folder / "definitions.py").write_text(DEFINITIONS.read_text(encoding="utf-8"), encoding="utf-8")
    found = {}
    with open_project(folder) as project:
        project.apply()
        for topic in ("claimed", "honest"):
            project.import_file(topic, data, options=OPTIONS)
        project.import_file("claimed_outcomes", data, options=ONLY_OUTCOMES)
        week = training.build_training_set(
            project, "claimed", begin=periods.train_begin, end=periods.train_end, t_label=periods.t_label_train
        )
        training.train_model(project, "claimed", week)
        for name, model in (("offline", "claimed"), ("served", "honest")):
            test = training.build_training_set(
                project, model, begin=periods.test_begin, end=periods.test_end, t_label=periods.t_label_all
            )
            kept, customers, days = periods.test_rows(test.table)
            truths = labels(project.definitions.model(model), kept)
            own = evaluate(truths, training.score_rows(project, "claimed", kept), customers, days)
            found[name] = own
            book = f" (the book's data: {BOOK[name][0]:.3f}, {BOOK[name][1]:.3f})" if compare else ""
            print(f"  a leaking model, {name}: AUC {own[0]:.3f}, average precision {own[1]:.3f}{book}")
    return found
