"""headrace import, produce, topics, quarantine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click
import pyarrow as pa

from headrace.cli.output import Bar, emit_json, emit_table, output_option
from headrace.core.errors import InputError, NotFoundError, did_you_mean
from headrace.core.times import iso
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, OFFSET, QUARANTINED, VERDICT, TopicState, Verdict
from headrace.runtime.project import Project, open_project
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
    counts = dict.fromkeys(Verdict, 0)
    with open_project(folder) as project:
        for events in _batches(file):
            for appended in project.produce(topic, events):
                for verdict in appended.verdicts.tolist():
                    counts[Verdict(verdict)] += 1
    said = {verdict.name.lower(): count for verdict, count in counts.items() if count}
    if output == "json":
        emit_json(said)
    else:
        click.echo(", ".join(f"{name} {count:,}" for name, count in said.items()) or "nothing to append")


def _batches(file: TextIO) -> Iterator[list[dict[str, object]]]:
    events: list[dict[str, object]] = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError("HR-0902", f"line {number} is not JSON", detail=str(error), line=number) from error
        if not isinstance(event, dict):
            raise InputError(
                "HR-0902", f"line {number} is no JSON object", detail=f"seen {line.strip()[:80]}", line=number
            )
        events.append(event)
        if len(events) == LINES_MAX:
            yield events
            events = []
    if events:
        yield events


@click.group()
def topics() -> None:
    """List topics, read what they hold."""


@topics.command("list")
@output_option
@click.pass_obj
def topics_list(folder: str, output: str) -> None:
    """Every topic and its partitions."""
    with open_project(folder) as project:
        rows = [
            (s.topic.name, p.partition.index, p.kind, p.start, p.end, iso(p.available_at) if p.end else None)
            for s in project.log.topics()
            for p in s.partitions
        ]
    names = ("topic", "partition", "kind", "start", "end", "available_at")
    if output == "json":
        emit_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        emit_table(names, rows)


@topics.command("read")
@click.argument("topic")
@click.option("--limit", default=10, show_default=True, help="Rows, the newest of each partition.")
@click.pass_obj
def topics_read(folder: str, topic: str, limit: int) -> None:
    """The newest rows of TOPIC, one JSON object a line."""
    with open_project(folder) as project:
        for row in _rows(project, topic, limit=limit):
            emit_json(row)


@click.group()
def quarantine() -> None:
    """Rows that were set aside."""


@quarantine.command("list")
@click.argument("topic")
@click.pass_obj
def quarantine_list(folder: str, topic: str) -> None:
    """Every row of TOPIC that was set aside, with its place and why, one JSON object a line."""
    with open_project(folder) as project:
        for row in _rows(project, topic, only=frozenset(int(v) for v in QUARANTINED)):
            emit_json(row)


def _rows(
    project: Project, topic: str, *, limit: int | None = None, only: frozenset[int] | None = None
) -> Iterator[dict[str, object]]:
    for held in _state(project, topic).partitions:
        start = held.start if limit is None else max(held.start, held.end - limit)
        for batch in project.log.read(held.partition, start):
            for row in _chosen(batch, only).to_pylist():
                place = {"partition": held.partition.index, "offset": row.pop(OFFSET)}
                verdict = Verdict(row.pop(VERDICT)).name.lower()
                times = {"event_time": row.pop(EVENT_TIME), "available_at": row.pop(AVAILABLE_AT)}
                yield {**place, **times, "verdict": verdict, "event": row}


def _chosen(batch: pa.RecordBatch, only: frozenset[int] | None) -> pa.RecordBatch:
    if only is None:
        return batch
    verdicts = batch.column(VERDICT).to_pylist()
    return batch.filter(pa.array([verdict in only for verdict in verdicts], pa.bool_()))


def _state(project: Project, topic: str) -> TopicState:
    states = {state.topic.name: state for state in project.log.topics()}
    if topic not in states:
        raise NotFoundError("HR-0302", f"no topic {topic!r} in the log", hint=did_you_mean(topic, states))
    return states[topic]
