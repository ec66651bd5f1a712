"""headrace training-set, models, audit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.times import Instant, instant, iso
from headrace.features.finding import Severity
from headrace.features.training_files import MANIFEST_FILE, ROWS_FILE
from headrace.log.port import QUARANTINED, VERDICT
from headrace.models.inputs import labels
from headrace.models.picture import picture
from headrace.runtime import training
from headrace.runtime.audited import audit_availability
from headrace.runtime.project import Project, open_project


def _at(text: str | None) -> Instant | None:
    return None if text is None else instant(text)


_BEGIN = click.option("--begin", help="The first event time, ISO 8601 with a zone.")
_END = click.option("--end", help="The event time behind the last.")
_T_LABEL = click.option("--t-label", help="When the outcome is looked at; now by default.")


@click.group("training-set")
def training_set() -> None:
    """Build training sets, show what late data changed."""


@training_set.command()
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@_BEGIN
@_END
@_T_LABEL
@click.pass_obj
def build(folder: str, model: str, out: Path, begin: str | None, end: str | None, t_label: str | None) -> None:
    """MODEL's training rows, with the values they had when they were asked, as Parquet with a manifest."""
    with open_project(folder) as project:
        made = training.build_training_set(project, model, begin=_at(begin), end=_at(end), t_label=_at(t_label))
        training.write_training_set(made, out)
    said = made.manifest
    outside = "" if said.outside is None else f", {said.outside:,} outside"
    click.echo(
        f"{said.rows:,} rows ({said.served:,} served, {said.available:,} available), {said.positives} positive; "
        f"left out: {said.immature:,} immature, {said.unlabelled:,} unlabelled{outside}",
        err=True,
    )
    click.echo(said.content_hash)


@training_set.command()
@click.argument("model")
@_BEGIN
@_END
@_T_LABEL
@output_option
@click.pass_obj
def impact(folder: str, model: str, begin: str | None, end: str | None, t_label: str | None, output: str) -> None:
    """What late data changed in each feature: known now against what was served."""
    with open_project(folder) as project:
        at = _at(t_label) or project.now()
        found = training.late_data_impact(project, model, begin=_at(begin), end=_at(end), t_label=at)
    if output == "json":
        emit_json(found)
    else:
        names = ("feature", "rows", "differing", "null_in_one", "largest", "mean")
        emit_table(names, [[getattr(one, name) for name in names] for one in found])


@click.group()
def models() -> None:
    """Train, list and evaluate models."""


@models.command()
@click.argument("model")
@_BEGIN
@_END
@_T_LABEL
@click.option("--training-set", "rows", type=click.Path(path_type=Path), help="Where to keep the training rows.")
@output_option
@click.pass_obj
def train(
    folder: str, model: str, begin: str | None, end: str | None, t_label: str | None, rows: Path | None, output: str
) -> None:
    """Build MODEL's training set, train, check headrace's scorer against the library on every row, register."""
    with open_project(folder) as project:
        made = training.build_training_set(project, model, begin=_at(begin), end=_at(end), t_label=_at(t_label))
        if rows is not None:
            training.write_training_set(made, rows)
        _, registered = training.train_model(project, model, made)
    if output == "json":
        emit_json(registered)
        return
    figures = registered.evaluation
    click.echo(
        f"{registered.rows:,} rows, {registered.positives:,} positive; on them AUC {figures.auc_roc:.3f}", err=True
    )
    click.echo(registered.id)


@models.command("list")
@output_option
@click.pass_obj
def models_list(folder: str, output: str) -> None:
    """Every registered artifact, oldest first."""
    with open_project(folder) as project:
        stored = list(project.models.list())
    if output == "json":
        emit_json([{**dataclasses.asdict(one), "stored_at": iso(one.stored_at)} for one in stored])
    else:
        names = ("model", "artifact", "definition", "stored_at")
        emit_table(names, [(s.model, s.id[:16], s.fingerprint, iso(s.stored_at)) for s in stored])


@models.command()
@click.argument("model")
@click.argument("rows", type=click.Path(exists=True, path_type=Path))
@click.option("--entity", help="A field of the requests; adds the entity precision@k, day by day.")
@click.option("-k", default=100, show_default=True, help="How many entities a day are looked at.")
@click.option("--picture", "png", type=click.Path(path_type=Path), help="A PNG of the curves and scores.")
@output_option
@click.pass_obj
def evaluate(folder: str, model: str, rows: Path, entity: str | None, k: int, png: Path | None, output: str) -> None:
    """MODEL's figures on labelled ROWS: a training set's folder, or a Parquet file of the same columns."""
    table = pq.read_table(rows / ROWS_FILE if rows.is_dir() else rows)
    with open_project(folder) as project:
        if entity is not None and entity not in table.column_names:
            table = table.append_column(entity, _logged(project, project.definitions.model(model).topic, table, entity))
        found, scores = training.evaluate_model(project, model, table, entity=entity, k=k)
        if png is not None:
            truths = labels(project.definitions.model(model), table)
            png.write_bytes(picture(truths, scores, title=model))
    if output == "json":
        emit_json(found)
    else:
        emit_table(("figure", "value"), [(name, getattr(found, name)) for name in found.__slots__])


def _logged(project: Project, topic: str, rows: pa.Table, name: str) -> pa.Array:
    """A field of each row's request, by its id: a training set holds inputs, and an entity is seldom one of them.

    Raises: DefinitionError HR-0106 where the topic has no such field; UsageError where a row is not in the log.
    """
    declared = project.definitions.topic(topic)
    declared[name]  # is a field, or says which one resembles it
    if declared.id is None or declared.id not in rows.column_names:
        raise click.UsageError(f"the rows have no column {name!r}, and none of ids to look it up by")
    held = [
        batch.filter(pa.array(~np.isin(batch.column(VERDICT).to_numpy(), QUARANTINED))).select([declared.id, name])
        for state in project.log.topics()
        if state.topic.name == topic
        for each in state.partitions
        for batch in project.log.read(each.partition, each.start)
    ]
    fields = [(declared.id, declared.schema[declared.id].type.arrow), (name, declared.schema[name].type.arrow)]
    logged = pa.Table.from_batches(held, schema=pa.schema(fields))
    places = pc.index_in(rows.column(declared.id), logged.column(declared.id))
    if places.null_count:
        raise click.UsageError(f"{places.null_count:,} rows are not in topic {topic!r}, so their {name!r} is not known")
    return logged.column(name).take(places).combine_chunks()


@click.group()
def audit() -> None:
    """Look for what types cannot see."""


@audit.command()
@click.option("--model", help="Look at what this model learned from and was served as well.")
@click.option(
    "--rows",
    type=click.Path(exists=True, path_type=Path),
    help="What it learned from: a training set's folder, or a Parquet file; built anew by default.",
)
@click.option("--t-label", help="When the outcome of --rows was looked at; by default what its manifest says, or now.")
@output_option
@click.pass_obj
def availability(folder: str, model: str | None, rows: Path | None, t_label: str | None, output: str) -> None:
    """Suspicions of leaks (SEMANTICS 4.5): how late truths really came, single features that know too much, inputs that
    are otherwise live, training rows that were chosen by their outcome.

    Exit 1 where there is a strong one.
    """
    if model is None and rows is not None:
        raise click.UsageError("--rows needs --model: whose rows are they?")
    table, said = (None, None) if rows is None else _learned_from(rows)
    with open_project(folder) as project:
        findings = audit_availability(project, model, rows=table, t_label=_at(t_label or said))
    if output == "json":
        emit_json(findings)
    elif not findings:
        click.echo("nothing suspicious", err=True)
    else:
        names = [name for name in findings[0].__slots__ if name != "evidence"]
        emit_table(names, [[getattr(one, name) for name in names] for one in findings])
    if any(one.severity is Severity.STRONG for one in findings):
        raise click.exceptions.Exit(1)


def _learned_from(rows: Path) -> tuple[pa.Table, str | None]:
    """(a training set's rows, the label instant that its manifest says)."""
    if not rows.is_dir():
        return pq.read_table(rows), None
    manifest = json.loads((rows / MANIFEST_FILE).read_text(encoding="utf-8"))
    return pq.read_table(rows / ROWS_FILE), str(manifest["t_label"])
