"""From the log to a registered model: training sets, training, evaluation. Touches the project's log and folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.core.points import Cut, Partition
from headrace.core.times import Instant
from headrace.features import training as sets
from headrace.features.define import Label
from headrace.features.facts import FactRule
from headrace.features.replay import topics_of
from headrace.features.replay_log import Events
from headrace.features.training import Impact
from headrace.features.training_files import TrainingSet, write
from headrace.features.training_records import Records
from headrace.log.port import EVENT_TIME
from headrace.models.artifact import Scorer
from headrace.models.define import Model
from headrace.models.evaluate import Evaluation, Floats, evaluate
from headrace.models.inputs import labels, matrix
from headrace.models.train import Trained, train
from headrace.runtime.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A trained model in the store. id: the artifact's content hash. training_set: that of its rows."""

    id: str
    training_set: str
    rows: int
    positives: int
    evaluation: Evaluation
    largest_difference: float


def asked(
    project: Project,
    model: Model,
    *,
    begin: Instant | None = None,
    end: Instant | None = None,
    t_label: Instant,
    cut: Cut | None = None,
) -> sets.Asked:
    """What a model's training set is to hold."""
    views = project.fingerprints("view")
    fingerprints = {f"view {name}": views[name] for name in model.views}
    fingerprints[f"model {model.name}"] = project.fingerprints("model")[model.name]
    return sets.Asked(
        name=model.name,
        topic=model.topic,
        inputs=tuple((i.name, i.expr) for i in model.inputs),
        label=model.label,
        t_label=t_label,
        where=model.where,
        begin=begin,
        end=end,
        cut=cut,
        fingerprints=fingerprints,
    )


def read_events(project: Project, model: Model) -> Events:
    """All that a model's training set is made from: its requests, its views' topics, its label's."""
    plans = project.compile(model.views)
    if isinstance(model.label, Label):
        of_label = model.label.source.name
    else:
        of_label = FactRule.of_late(project.definitions.topic(model.topic), model.label.name).topic
    return Events.read(project.log, {*topics_of(plans), model.topic, of_label})


def recorded_cuts(project: Project, model: Model) -> Records:
    """The cuts at which decisions on the model's topic were made, by request and view; None where a view was absent.

    Where several decisions were made of one request, those that the model scored count before others.
    """
    found: dict[tuple[Partition, int], dict[str, Cut | None]] = {}
    of_topic = [d for d in project.definitions.decisions.values() if d.request.name == model.topic]
    for decision in sorted(of_topic, key=lambda d: model.name in {each.name for each in d.scored}):
        for record in project.records(decision.name):
            views = [name for name, _ in json.loads(record.versions)["views"]]  # of the version that decided
            points = zip(views, record.points, strict=True)
            cuts = {view: point.cut if point.absent is None else None for view, point in points}
            found.setdefault((record.request, record.offset), {}).update(cuts)
    return found


def build_training_set(
    project: Project,
    name: str,
    *,
    begin: Instant | None = None,
    end: Instant | None = None,
    t_label: Instant | None = None,
    events: Events | None = None,
    threads: int = 2,
) -> TrainingSet:
    """Requests with begin <= event_time < end whose label has matured at t_label (now), with the values they had.

    Raises: NotFoundError HR-0806 for an unknown model; SchemaError HR-0530, HR-0531.
    """
    model = project.definitions.model(name)
    said = asked(project, model, begin=begin, end=end, t_label=project.now() if t_label is None else t_label)
    held = read_events(project, model) if events is None else events
    return sets.build(said, project.compile(model.views), held, records=recorded_cuts(project, model), threads=threads)


def late_data_impact(
    project: Project, name: str, *, begin: Instant | None = None, end: Instant | None = None, t_label: Instant
) -> list[Impact]:
    """What late data changed in each feature of a model's training set."""
    model = project.definitions.model(name)
    said = asked(project, model, begin=begin, end=end, t_label=t_label)
    held = read_events(project, model)
    return sets.late_data_impact(said, project.compile(model.views), held, records=recorded_cuts(project, model))


def train_model(project: Project, name: str, made: TrainingSet) -> tuple[Trained, Registered]:
    """Train on a training set, check the own scorer against the library on every row, and register the artifact."""
    model = project.definitions.model(name)
    views = project.fingerprints("view")
    trained = train(
        model,
        made.table,
        training_set=made.manifest.content_hash,
        fingerprint=project.fingerprints("model")[name],
        views={view: views[view] for view in model.views},
    )
    id = project.models.put(trained.artifact)
    return trained, Registered(
        id=id,
        training_set=made.manifest.content_hash,
        rows=trained.report.rows,
        positives=trained.report.positives,
        evaluation=evaluate(labels(model, made.table), trained.scores),
        largest_difference=trained.report.largest_difference,
    )


def score_rows(project: Project, name: str, table: pa.Table, artifact: str | None = None) -> Floats:
    """The model's scores of rows that hold its inputs by name, as a training set does."""
    model = project.definitions.model(name)
    found = project.models.get(artifact or project.newest(name))
    return Scorer(found).many(matrix(model, table))


def evaluate_model(
    project: Project,
    name: str,
    table: pa.Table,
    *,
    entity: str | None = None,
    k: int = 100,
    artifact: str | None = None,
) -> tuple[Evaluation, Floats]:
    """The figures of a model on labelled rows. entity: a column; with it the entity precision@k, day by day in UTC."""
    model = project.definitions.model(name)
    scores = score_rows(project, name, table, artifact)
    days = None
    entities = None
    if entity is not None:
        times = table.column(EVENT_TIME).cast(pa.int64()).to_numpy()
        days = (times // 86_400_000_000).astype(np.int64)
        entities = table.column(entity).to_numpy(zero_copy_only=False)
    return evaluate(labels(model, table), scores, entities=entities, days=days, k=k), scores


def write_training_set(made: TrainingSet, folder: Path) -> tuple[Path, Path]:
    """Rows as Parquet, manifest beside them."""
    return write(made, folder)
