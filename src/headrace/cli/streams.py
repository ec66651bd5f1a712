"""headrace streams: run, list."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType

import click

from headrace.api import logs
from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.errors import LogError
from headrace.runtime.project import open_project
from headrace.runtime.streaming import Streams, listed, streams_of


@click.group()
def streams() -> None:
    """Run what is computed from topics into topics."""


@streams.command("run")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--status-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Between two lines on stdout that say how far each partition is.",
)
@click.pass_obj
def run(folder: str, names: tuple[str, ...], status_seconds: float) -> None:
    """Fill derived topics until SIGTERM or SIGINT: those of these names, or all.

    Several such processes share the source's partitions. What happens is said in JSON lines on stderr.
    """
    logs.to_stream(sys.stderr)
    ending = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ending.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, end)
    with open_project(folder) as project:
        running = streams_of(project, names, name=f"{socket.gethostname()}:{os.getpid()}")
        running.begin()
        try:
            while not ending.wait(status_seconds):
                _say(running)
        finally:
            running.leave()
        _say(running)


def _say(running: Streams) -> None:
    """One line a source partition. A cluster that does not answer now is asked again."""
    try:
        lines = running.status()
    except LogError as error:
        click.echo(f"the log cannot be asked: {error.message}", err=True)
        return
    for line in lines:
        emit_json(line)


@streams.command("list")
@output_option
@click.pass_obj
def streams_list(folder: str, output: str) -> None:
    """Every derived topic of the log, and how far it is behind its source."""
    with open_project(folder) as project:
        found = listed(project.log)
    if output == "json":
        emit_json(found)
        return
    names = ("topic", "of", "key", "partitions", "lag")
    emit_table(names, [(line.topic, line.of, line.key, line.partitions, line.lag) for line in found])
