"""The lender's steps up to trained models: a project, its history, two models, and what late reports changed. Touches
the project's folder.

The one idea: each step is a function that returns what it found, so that whoever wants another order, or another front,
takes the same steps.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from generate import TOPICS
from market import BEGIN, DAY

from headrace.core.times import Instant
from headrace.features.training import Impact
from headrace.models.evaluate import Evaluation, Floats, Truths
from headrace.models.inputs import labels
from headrace.runtime import training
from headrace.runtime.project import Project, open_project
from headrace.schemas.define import AvailableAt, ImportOptions, ImportReport

HERE = Path(__file__).resolve().parent
MODELS = ("fraud", "default")
DECISION, REQUESTS = "checkout", "applications"
WARM_UP = Instant(BEGIN + 20 * DAY)  # before it every window is half empty
TRAINED_AT = Instant(BEGIN + 150 * DAY)
ARRIVED = "arrived_at"
OPTIONS = ImportOptions(available_at=AvailableAt(column=ARRIVED))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A model, trained on what had matured at TRAINED_AT and tested on later applications that had matured since.
    immature: applications before TRAINED_AT that were left out. truths, scores: of the tested rows, in one order."""

    name: str
    rows: int
    positives: int
    immature: int
    tested: Evaluation
    truths: Truths
    scores: Floats
    largest_difference: float

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of a table: name, rows and true ones trained on, immature, rows and true ones tested on, AUC, average
        precision."""
        counts = (self.rows, self.positives, self.immature, self.tested.rows, self.tested.positives)
        figures = (self.tested.auc_roc, self.tested.average_precision)
        return (self.name, *(f"{count:,}" for count in counts), *(f"{figure:.3f}" for figure in figures))


def make_project(folder: Path) -> Project:
    """A project of its own with the example's definitions, applied. Nobody else on this machine may look into it."""
    folder.mkdir(parents=True, mode=0o700)
    for name in ("definitions.py", "headrace.toml"):
        shutil.copy(HERE / name, folder / name)
    project = open_project(folder)
    project.apply()
    return project


def newest(data: Path, count: int) -> Instant:
    """When the first of so many newest applications was made."""
    times = np.sort(instants(pq.read_table(data / f"{REQUESTS}.parquet"), "created_at"))
    return Instant(int(times[-min(count, len(times))]))


def import_history(project: Project, data: Path, until: Instant) -> list[ImportReport]:
    """All that the lender had before `until`, each event available when it arrived."""
    history = data / "history"
    history.mkdir(exist_ok=True)
    reports = []
    for topic in TOPICS:
        table = pq.read_table(data / f"{topic}.parquet")
        pq.write_table(table.filter(pa.array(instants(table, ARRIVED) < until)), history / f"{topic}.parquet")
        reports.append(project.import_file(topic, history / f"{topic}.parquet", options=OPTIONS))
    return reports


def train(project: Project, name: str, now: Instant) -> Trained:
    """On applications whose label had matured at TRAINED_AT; tested on those after it whose label has matured `now`."""
    made = training.build_training_set(project, name, begin=WARM_UP, end=TRAINED_AT, t_label=TRAINED_AT)
    _, registered = training.train_model(project, name, made)
    later = training.build_training_set(project, name, begin=TRAINED_AT, t_label=now)
    tested, scores = training.evaluate_model(project, name, later.table)
    return Trained(
        name=name,
        rows=registered.rows,
        positives=registered.positives,
        immature=made.manifest.immature,
        tested=tested,
        truths=labels(project.definitions.model(name), later.table),
        scores=scores,
        largest_difference=registered.largest_difference,
    )


def impact(project: Project, name: str, now: Instant) -> list[Impact]:
    """What each input would have been, had every event arrived at once: those that differ, the most first."""
    found = training.late_data_impact(project, name, begin=TRAINED_AT, t_label=now)
    return sorted((one for one in found if one.differing), key=lambda one: -one.differing)


def instants(table: pa.Table, column: str) -> npt.NDArray[np.int64]:
    """A column of instants in microseconds."""
    found: npt.NDArray[np.int64] = table.column(column).cast(pa.int64()).to_numpy()
    return found
