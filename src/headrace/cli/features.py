"""headrace features: read one entity, replay files of points."""

from __future__ import annotations

from pathlib import Path

import click

from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.codec import physical
from headrace.core.times import instant
from headrace.features.door import replay_files
from headrace.log.plan import Judge
from headrace.runtime.project import open_project


@click.group()
def features() -> None:
    """Read features, replay them from files."""


@features.command()
@click.argument("view")
@click.argument("key", nargs=-1, required=True)
@click.option("--t", "at", help="The instant to ask at, ISO 8601 with a zone; now by default.")
@output_option
@click.pass_obj
def read(folder: str, view: str, key: tuple[str, ...], at: str | None, output: str) -> None:
    """VIEW's features of the entity KEY (one word a part), at the log's end."""
    with open_project(folder) as project:
        declared = project.definitions.view(view)
        types = [declared.topics[0].schema[part].type for part in declared.entity]
        if len(key) != len(types):
            raise click.UsageError(f"view {view} asks for {' '.join(declared.entity)}")
        parts = tuple(physical(int(k) if t.kind.value == "int64" else k, t) for k, t in zip(key, types, strict=True))
        found = project.read(view, parts if len(parts) > 1 else parts[0], t=None if at is None else instant(at))
    if output == "json":
        emit_json(found)
    else:
        emit_table(("feature", "value"), found.items())


@features.command()
@click.option("--events", required=True, type=click.Path(exists=True, path_type=Path), help="Parquet or NDJSON.")
@click.option("--points", required=True, type=click.Path(exists=True, path_type=Path), help="Parquet or NDJSON.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The Parquet file to write.")
@click.option("--kind", type=click.Choice(["served", "available", "known_now"]), default="served", show_default=True)
@click.option("--project", "place", type=click.Path(path_type=Path), help="The folder that declares.")
@click.pass_obj
def replay(folder: str, events: Path, points: Path, out: Path, kind: str, place: Path | None) -> None:
    """Answer a file of points from a file of events, without a log: the door for checks from outside.

    The columns of both files are described in docs/guides/replay-door.md.
    """
    project = open_project(place or folder)
    declared = project.definitions
    answered = replay_files(
        list(declared.views.values()),
        declared.labels,
        list(declared.topics.values()),
        events=events,
        points=points,
        out=out,
        judge=Judge,
        kind=kind,
    )
    click.echo(f"{answered.points:,} points over {answered.events:,} events: {out}", err=True)
