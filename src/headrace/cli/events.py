"""headrace import, produce."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import click

from headrace.cli.output import Bar, emit_json, output_option
from headrace.core.errors import InputError
from headrace.log.pace import Pace
from headrace.log.port import Verdict
from headrace.runtime.placing import topic_state
from headrace.runtime.project import Project, open_project
from headrace.runtime.topics import refuse_internal
from headrace.schemas.define import AvailableAt, ImportOptions

LINES_MAX = 10_000  # events of one append while producing: a second of work, a few megabytes


@click.command("import")
@click.argument("topic")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="A field whose column has another name.")
@click.option("--zone", help="The time zone of timestamps that have none; without it they are refused.")
@click.option(
    "--available-at",
    default="event_time",
    show_default=True,
    metavar="RULE",
    help="event_time, event_time+1h, or column:NAME.",
)
@click.option("--round", "rounded", multiple=True, metavar="FIELD", help="A decimal whose floats may be rounded.")
@click.option("--format", "form", type=click.Choice(["parquet", "csv", "ndjson"]), help="By the name unless told.")
@click.option("--again", is_flag=True, help="Take a file that was imported before once more; known ids are left out.")
@click.option("--ignore", multiple=True, metavar="COLUMN", help="A column to leave aside.")
@output_option
@click.pass_obj
def import_events(
    folder: str,
    topic: str,
    file: Path,
    maps: tuple[str, ...],
    zone: str | None,
    available_at: str,
    rounded: tuple[str, ...],
    form: str | None,
    again: bool,
    ignore: tuple[str, ...],
    output: str,
) -> None:
    """Import FILE into TOPIC: whole, or nothing of it. A broken import goes on when called again."""
    columns = dict(part.split("=", 1) for part in maps if "=" in part)
    if len(columns) < len(maps):
        raise click.BadParameter("expected FIELD=COLUMN", param_hint="--map")
    options = ImportOptions(
        columns=columns,
        zone=zone,
        available_at=AvailableAt.parse(available_at),
        round=rounded,
        again=again,
        ignore=ignore,
        format=form,
    )
    with open_project(folder) as project, Bar(f"import {file.name}") as bar:
        report = project.import_file(topic, file, options=options, progress=bar)
    if output == "json":
        emit_json(report)
        return
    figures = ("rows", "taken", "late", "duplicates", "conflicts", "ahead", "left_out", "rounded")
    click.echo(", ".join(f"{name} {getattr(report, name):,}" for name in figures))


@click.command()
@click.argument("topic")
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@output_option
@click.pass_obj
def produce(folder: str, topic: str, file: TextIO, output: str) -> None:
    """Append events to TOPIC, one JSON object a line, from FILE or stdin; no batch with a bad line is taken."""
    with open_project(folder) as project:
        said_of(produce_batches(project, topic, batches(file)), output)


def produce_batches(
    project: Project,
    topic: str,
    given: Iterable[Sequence[Mapping[str, object]]],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[Verdict, int]:
    """Append them batch by batch, no faster than the topic's quota; how many came to each verdict. sleep: for so many
    seconds."""
    refuse_internal(topic)
    counts = dict.fromkeys(Verdict, 0)
    quota = topic_state(project.log, topic).topic.stewardship.quota
    pace = None if quota is None else Pace(quota)
    for events in given:
        if pace is not None:
            size = sum(len(json.dumps(event, ensure_ascii=False).encode()) for event in events)
            sleep(pace.delay(size, now=project.now()).micros / 1e6)
        for appended in project.produce(topic, events):
            for verdict in appended.verdicts.tolist():
                counts[Verdict(verdict)] += 1
    return counts


def said_of(counts: Mapping[Verdict, int], output: str) -> None:
    """What became of the events that were appended."""
    said = {verdict.name.lower(): count for verdict, count in counts.items() if count}
    if output == "json":
        emit_json(said)
    else:
        click.echo(", ".join(f"{name} {count:,}" for name, count in said.items()) or "nothing to append")


def batches(file: TextIO) -> Iterator[list[dict[str, object]]]:
    """One JSON object a line, up to LINES_MAX together. Raises: InputError HR-0902."""
    events: list[dict[str, object]] = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        events.append(read_event(line, number))
        if len(events) == LINES_MAX:
            yield events
            events = []
    if events:
        yield events


def read_event(line: str, number: int) -> dict[str, object]:
    """Raises: InputError HR-0902 for what is no JSON object."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError("HR-0902", f"line {number} is not JSON", detail=str(error), line=number) from error
    if not isinstance(event, dict):
        raise InputError("HR-0902", f"line {number} is no JSON object", detail=f"seen {line.strip()[:80]}", line=number)
    return event
