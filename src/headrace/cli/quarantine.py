"""headrace quarantine list|show|replay: what was set aside, by the log or by a group that reads it."""

from __future__ import annotations

import dataclasses
import enum

import click

from headrace.cli.output import emit_json
from headrace.core.errors import UsageError
from headrace.core.schema import Kind
from headrace.log.define import Topic
from headrace.log.port import QUARANTINED, VERDICT
from headrace.runtime.placing import topic_state
from headrace.runtime.project import open_project
from headrace.runtime.topics import begin_at, rows_from, where
from headrace.sdk import quarantine as set_aside
from headrace.sdk.define import SetAside


@click.group()
def quarantine() -> None:
    """What was set aside."""


_group = click.option("--group", required=True, help="Whose consumer set it aside.")


@quarantine.command("list")
@click.argument("topic")
@click.option("--group", help="What this consumer group set aside; by default what the log did.")
@click.pass_obj
def quarantine_list(folder: str, topic: str, group: str | None) -> None:
    """Everything of TOPIC that was set aside, with its place and why, one JSON object a line."""
    if group is not None:
        url, found = _cluster(folder, topic)
        for each in set_aside.quarantined(url, found, group=group):
            emit_json(_said(each))
        return
    names = ", ".join(repr(verdict.name.lower()) for verdict in QUARANTINED)
    with open_project(folder) as project:
        chosen = where(topic_state(project.log, topic).topic, f"{VERDICT} in [{names}]")
        for row in rows_from(project.log, topic, begin_at(project.log, topic, "beginning"), chosen=chosen):
            emit_json(row)


@quarantine.command("show")
@click.argument("topic")
@click.argument("place", metavar="PARTITION/OFFSET")
@_group
@click.pass_obj
def quarantine_show(folder: str, topic: str, place: str, group: str) -> None:
    """One record that a group set aside, its bytes, and what became of it."""
    partition, _, offset = place.partition("/")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise UsageError("HR-0903", f"{place!r} is no place", detail="expected PARTITION/OFFSET, as in 2/4711")
    url, found = _cluster(folder, topic)
    emit_json(_said(set_aside.show(url, found, group=group, partition=int(partition), offset=int(offset))))


@quarantine.command("replay")
@click.argument("topic")
@_group
@click.option("--key", help="Everything of this key.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.pass_obj
def quarantine_replay(folder: str, topic: str, group: str, key: str | None, everything: bool) -> None:
    """Give what a group set aside back to its handler, each key in its order, before anything newer of it."""
    url, found = _cluster(folder, topic)
    whole = key is not None and found.schema[found.key].type.kind is Kind.INT64
    if whole and not str(key).removeprefix("-").isdecimal():
        raise UsageError("HR-0903", f"{key!r} is no key of {topic}", detail=f"expected an integer, as {found.key!r} is")
    typed = int(str(key)) if whole else key
    count = set_aside.release(url, found, group=group, key=typed, everything=everything)
    click.echo(f"released {count}", err=True)
    emit_json({"released": count})


def _cluster(folder: str, topic: str) -> tuple[str, Topic]:
    """The log's URL, and the topic as it is in force. Raises: UsageError HR-0903 where the log is a file."""
    with open_project(folder) as project:
        if not project.settings.log:
            raise UsageError(
                "HR-0903",
                "this project's log is a file: no group reads it over Kafka",
                hint="headrace quarantine list TOPIC shows what the log set aside",
            )
        return project.settings.log, topic_state(project.log, topic).topic


def _said(one: SetAside) -> dict[str, object]:
    return {name: _plain(value) for name, value in dataclasses.asdict(one).items()}


def _plain(value: object) -> object:
    match value:
        case bytes():
            return value.decode("utf-8", errors="backslashreplace")
        case enum.Enum():
            return value.value
        case dict():
            return {name: _plain(each) for name, each in value.items()}
    return value
