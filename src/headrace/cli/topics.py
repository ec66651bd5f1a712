"""headrace topics: list, describe, tail, read, produce, lag, drop."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TextIO

import click

from headrace.cli.events import batches, produce_batches, read_event, said_of
from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.errors import UsageError
from headrace.core.times import iso
from headrace.log.define import Topic
from headrace.log.kafka_topics import kafka_settings
from headrace.runtime import topics as runtime
from headrace.runtime.placing import topic_state
from headrace.runtime.project import Project, open_project
from headrace.runtime.topics import Described, Lag, Row, TopicLine

NEWEST = 10  # rows that tail shows unless told: a screen's half
REFRESH_SECONDS = 1.0  # of the live view of lag: as fast as a person reads numbers


@click.group()
def topics() -> None:
    """List topics, read what they hold, write to them, see who lags."""


@topics.command("list")
@click.option("--owner", help="Only topics of this owner.")
@click.option("--tag", "tags", multiple=True, help="Only topics with this tag; with several, with all of them.")
@click.option("--all", "internal", is_flag=True, help="Those that headrace keeps for itself, too.")
@output_option
@click.pass_obj
def topics_list(folder: str, owner: str | None, tags: tuple[str, ...], internal: bool, output: str) -> None:
    """Every topic: whose it is, how much it holds, for how long."""
    with open_project(folder) as project:
        found = runtime.listed(project.log, owner=owner, tags=tags, internal=internal)
    if output == "json":
        emit_json([_line_said(line) for line in found])
        return
    names = ("topic", "owner", "partitions", "imports", "offsets", "newest", "retention", "tags")
    emit_table(
        names,
        [
            (
                line.topic,
                line.owner or None,
                line.partitions,
                line.imports,
                line.offsets,
                None if line.available_at is None else iso(line.available_at),
                "for ever" if line.retention is None else str(line.retention),
                ", ".join(line.tags) or None,
            )
            for line in found
        ],
    )


def _line_said(line: TopicLine) -> dict[str, object]:
    return {
        "topic": line.topic,
        "owner": line.owner,
        "tags": line.tags,
        "partitions": line.partitions,
        "imports": line.imports,
        "offsets": line.offsets,
        "available_at": None if line.available_at is None else iso(line.available_at),
        "retention": None if line.retention is None else str(line.retention),
        "protected": line.protected,
    }


@topics.command()
@click.argument("topic")
@output_option
@click.pass_obj
def describe(folder: str, topic: str, output: str) -> None:
    """TOPIC whole: its fields and settings, its partitions, what reads it."""
    with open_project(folder) as project:
        found = runtime.described(project, topic)
        shared = project.log.capabilities.shared
    said = _described_said(found, shared=shared)
    if output == "json":
        emit_json(said)
        return
    said["retention"] = said["retention"] or "for ever"
    apart = ("fields", "partitions", "kafka")
    emit_table(
        ("topic", topic), [(name, _cell(value)) for name, value in said.items() if name not in (*apart, "topic")]
    )
    for part in apart:
        listed = said[part]
        if isinstance(listed, dict) and listed:
            click.echo()
            emit_table(("in Kafka", ""), listed.items())
        elif isinstance(listed, list) and listed:
            click.echo()
            emit_table(tuple(listed[0]), [tuple(map(_cell, each.values())) for each in listed])


def _cell(value: object) -> object:
    match value:
        case "" | []:
            return None
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(str(each) for each in value)
    return value


def _described_said(found: Described, *, shared: bool) -> dict[str, object]:
    state, topic = found.state, found.state.topic
    return {
        "topic": topic.name,
        **_settings(topic),
        "incarnation": state.incarnation,
        "version": state.version,
        "declared": found.declared,
        "readers": list(found.readers),
        "fields": [
            {
                "field": f.name,
                "type": str(f.type),
                "required": f.name in topic.required,
                "minimum": f.minimum,
                "maximum": f.maximum,
                "available_after": None if f.available_after is None else str(f.available_after),
                "description": f.description,
            }
            for f in topic.schema
        ],
        "partitions": [
            {
                "partition": held.partition.index,
                "kind": held.kind,
                "start": held.start,
                "end": held.end,
                "available_at": iso(held.available_at) if held.end > held.start else None,
            }
            for held in state.partitions
        ],
        "kafka": dict(kafka_settings(topic)) if shared else {},
    }


def _settings(topic: Topic) -> dict[str, object]:
    held = topic.stewardship
    return {
        "description": topic.description,
        "owner": held.owner,
        "tags": list(held.tags),
        "quota": None if held.quota is None else str(held.quota),
        "protected": held.protected,
        "retention": None if topic.retention is None else str(topic.retention),
        "key": topic.key,
        "id": topic.id,
        "event_time": topic.event_time,
        "partitioning": topic.partitioning,
        "payload": topic.payload,
        "clock": topic.clock,
        "max_late": str(topic.max_late),
        "max_ahead": str(topic.max_ahead),
        "dedup": str(topic.dedup),
        "skew": str(topic.skew),
    }


# --- rows ---


@topics.command()
@click.argument("topic")
@click.option("--from", "begin", metavar="PLACE", help="'beginning', an offset, or an instant; by default the newest.")
@click.option("--limit", type=click.IntRange(0), help=f"So many rows; the newest {NEWEST} where nothing says more.")
@click.option("--where", "condition", metavar="EXPR", help='Only rows for which this is true, as in "amount > 100".')
@click.option("--partition", type=int, help="Only this partition.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until stopped.")
@click.pass_obj
def tail(
    folder: str,
    topic: str,
    begin: str | None,
    limit: int | None,
    condition: str | None,
    partition: int | None,
    follow: bool,
) -> None:
    """Rows of TOPIC, one JSON object a line: the newest, from a place on, or as they come.

    EXPR reads the topic's fields, and _partition, _offset, _event_time, _available_at, _verdict.
    """
    with open_project(folder) as project:
        chosen = runtime.where(topic_state(project.log, topic).topic, condition)
        if begin is None and not follow:
            count = NEWEST if limit is None else limit
            _emit(runtime.tail(project.log, topic, limit=count, chosen=chosen, partition=partition))
            return
        places = runtime.begin_at(project.log, topic, begin, partition=partition)
        if follow:
            rows = runtime.follow(project.log, topic, places, chosen=chosen, every=partition is None)
        else:
            rows = runtime.rows_from(project.log, topic, places, chosen=chosen)
        try:
            _emit(runtime.taken(rows, limit))
        except KeyboardInterrupt:
            return  # what a person does to end it


@topics.command("read")
@click.argument("topic")
@click.option("--limit", default=NEWEST, show_default=True, help="Rows, the newest of each partition.")
@click.pass_obj
def topics_read(folder: str, topic: str, limit: int) -> None:
    """The newest rows of each partition of TOPIC, one JSON object a line; tail can do more."""
    with open_project(folder) as project:
        found = runtime.newest(project.log, topic, limit=limit, chosen=runtime.where(_topic(project, topic), None))
    _emit(chain.from_iterable(found.values()))


def _topic(project: Project, name: str) -> Topic:
    return topic_state(project.log, name).topic


def _emit(rows: Sequence[Row] | Iterator[Row] | chain[Row]) -> None:
    for row in rows:
        emit_json(row)


@topics.command("produce")
@click.argument("topic")
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@click.option("--event", "events", multiple=True, metavar="JSON", help="An event, instead of a file; may be repeated.")
@output_option
@click.pass_obj
def produce(folder: str, topic: str, file: TextIO, events: tuple[str, ...], output: str) -> None:
    """Append events to TOPIC: --event, or one JSON object a line from FILE or stdin, at the topic's quota."""
    given = [[read_event(text, number) for number, text in enumerate(events, 1)]] if events else batches(file)
    with open_project(folder) as project:
        said_of(produce_batches(project, topic, given), output)


# --- lag ---


@topics.command()
@click.argument("topic")
@click.option("--group", "groups", multiple=True, required=True, help="A consumer group; may be repeated.")
@click.option("--follow", is_flag=True, help="A view that goes on, until stopped.")
@output_option
@click.pass_obj
def lag(folder: str, topic: str, groups: tuple[str, ...], follow: bool, output: str) -> None:
    """How far groups are behind in TOPIC, in offsets and in seconds since the first unread row became available."""
    with open_project(folder) as project:
        if not follow:
            _show_lags(runtime.lags(project.log, topic, groups, now=project.now()), output)
            return
        try:
            _follow_lags(project, topic, groups, output)
        except KeyboardInterrupt:
            return  # what a person does to end it


def _show_lags(found: Sequence[Lag], output: str) -> None:
    if output == "json":
        emit_json([_lag_said(each) for each in found])
        return
    emit_table(_LAG_NAMES, [_lag_cells(each) for each in found])


def _follow_lags(project: Project, topic: str, groups: Sequence[str], output: str) -> None:
    """On a terminal one table that is redrawn; elsewhere a table or a JSON list each time."""
    if output == "json" or not sys.stdout.isatty():
        while True:
            _show_lags(runtime.lags(project.log, topic, groups, now=project.now()), output)
            sys.stdout.flush()
            time.sleep(REFRESH_SECONDS)
    from rich.live import Live  # with the table 60 ms, only for the view that needs it
    from rich.table import Table

    with Live(auto_refresh=False) as live:
        while True:
            table = Table(*_LAG_NAMES, title=topic)
            for each in runtime.lags(project.log, topic, groups, now=project.now()):
                table.add_row(*("-" if cell is None else str(cell) for cell in _lag_cells(each)))
            live.update(table, refresh=True)
            time.sleep(REFRESH_SECONDS)


_LAG_NAMES = ("group", "partition", "committed", "end", "offsets", "seconds")


def _lag_cells(each: Lag) -> tuple[object, ...]:
    return each.group, each.partition, each.committed, each.end, each.offsets, runtime.seconds(each.behind)


def _lag_said(each: Lag) -> dict[str, object]:
    return dict(zip(("topic", *_LAG_NAMES), (each.topic, *_lag_cells(each)), strict=True))


# --- dropping ---


@topics.command()
@click.argument("topic")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--approve", "approved", multiple=True, metavar="WHAT", help="Needed for a protected topic: TOPIC.drop.")
@output_option
@click.pass_obj
def drop(folder: str, topic: str, yes: bool, approved: tuple[str, ...], output: str) -> None:
    """Delete TOPIC and its rows for ever. Refused while it is declared, and without approval where it is protected."""
    with open_project(folder) as project:
        what = runtime.dropping(project, topic)
        runtime.check_drop(what, approved=approved)
        line = what.line
        click.echo(
            f"- topic {topic}: {line.offsets:,} offsets in {line.partitions + line.imports} partitions, for ever",
            err=True,
        )
        if not yes:
            _confirm(topic)
        runtime.drop(project, what, approved=approved)
    if output == "json":
        emit_json({"dropped": topic, "offsets": line.offsets})
    else:
        click.echo(f"dropped {topic}")


def _confirm(topic: str) -> None:
    """By its name, not by a key that is pressed anyway."""
    if not sys.stdin.isatty():
        raise UsageError("HR-0816", f"dropping topic {topic!r} was not confirmed", hint="add --yes, once you are sure")
    if click.prompt("type the topic's name to delete it", err=True) != topic:
        raise UsageError("HR-0816", f"dropping topic {topic!r} was not confirmed", detail="another name was typed")
