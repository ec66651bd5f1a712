"""headrace backup, restore, doctor, log, warm."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

import click

from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.times import Instant, iso
from headrace.log import backup as backups
from headrace.runtime.project import STATE_FOLDER, open_project


@runtime_checkable
class Stamping(Protocol):
    """A log that stamps its rows itself, so that its clock can have been wrong."""

    def restart_clock(self, topic: str) -> Instant: ...


def _log(folder: str) -> Path:
    return Path(folder) / STATE_FOLDER / "log"


@click.command()
@click.argument("to", type=click.Path(path_type=Path))
@click.pass_obj
def backup(folder: str, to: Path) -> None:
    """Copy the log into the folder TO, consistent while others write, with the hashes of what it holds."""
    click.echo(backups.backup(_log(folder), to))


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.pass_obj
def restore(folder: str, source: Path) -> None:
    """Put the backup SOURCE in place; refuses where a log is. Checkpoints go: they know of events that it may lack."""
    log = _log(folder)
    click.echo(backups.restore(source, log))
    shutil.rmtree(log.parent / "checkpoints", ignore_errors=True)


@click.command()
@output_option
@click.pass_obj
def doctor(folder: str, output: str) -> None:
    """Check the log: pages, checksums, offsets, what was left over. Exit 1 where something is wrong."""
    findings = backups.doctor(_log(folder))
    if output == "json":
        emit_json(findings)
    elif findings:
        names = list(findings[0].__slots__)
        emit_table(names, [[getattr(one, name) for name in names] for one in findings])
    else:
        click.echo("nothing wrong", err=True)
    if findings:
        raise click.exceptions.Exit(1)


@click.group()
def log() -> None:
    """Set right what a wrong clock wrote."""


@log.command("restart-clock")
@click.argument("topic")
@click.pass_obj
def restart_clock(folder: str, topic: str) -> None:
    """Go on with TOPIC after a clock that ran ahead (HR-0313): rows stamped above this machine's clock count as stamped
    now.

    Set the clock right first. Safe beside a running owner, which does it.
    """
    with open_project(folder) as project:
        held = project.log
        if not isinstance(held, Stamping):
            raise click.UsageError("this log's rows are stamped by another clock, which is not headrace's to restart")
        at = held.restart_clock(topic)
    click.echo(iso(at))


@click.command()
def warm() -> None:
    """Compile the kernel now and keep it, at install or image time."""
    from headrace.core.kernel.warm import warm_up  # loads numba, 0.5 s

    begun = time.monotonic()
    warm_up()
    click.echo(f"warm after {time.monotonic() - begun:.1f} s", err=True)
