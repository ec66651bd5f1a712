"""headrace backup, restore, checkpoint, doctor, log, warm."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

import click

from headrace.api import logs
from headrace.cli.background import LAST, end_with, stand_back
from headrace.cli.output import emit_json, emit_table, output_option
from headrace.cli.secrets import secret
from headrace.clock import SystemClock
from headrace.core.errors import HeadraceError, StateError
from headrace.core.times import Instant, iso
from headrace.log import backup as backups
from headrace.log.backup import Finding
from headrace.log.run import Role
from headrace.log.sqlite_file import FILE_NAME
from headrace.runtime.checkup import Checked, check_project, said
from headrace.runtime.project import STATE_FOLDER, open_project
from headrace.settings import read_settings


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
@click.option("--background", is_flag=True, help="In the background of the process that started it, and no longer.")
@click.option(
    "--nice", default=LAST, show_default=True, type=click.IntRange(0, LAST), help="With --background: how far."
)
@click.pass_obj
def checkpoint(folder: str, background: bool, nice: int) -> None:
    """Write checkpoints of what the served decisions' views hold: the next start, or takeover, reads only what comes
    behind them. Says the views and the number of each; exit 1 where one could not be written.

    Goes on from the newest ones and reads the log beside whoever decides. `headrace serve` has it done now and then.
    """
    if background:
        logs.to_stream(sys.stderr)
        end_with(os.getppid())
        stand_back(nice)
    failed = False
    with open_project(folder, role=Role.READER) as project:
        for views in project.definitions.views_served:
            try:
                number = project.checkpoint(views)
            except StateError as error:
                click.echo(f"{', '.join(views)}: {error}", err=True)
                failed = True
            else:
                click.echo(f"{', '.join(views)}: {number}")
    if failed:
        raise click.exceptions.Exit(1)


@click.command()
@click.option("--server", is_flag=True, help="What `headrace serve` needs of this machine, too.")
@click.option("--url", metavar="URL", help="Ask the server there; by default this project's on this machine, if any.")
@click.option("--token", metavar="REF", help="With the scope metrics:read, for the server: file:PATH or env:NAME.")
@output_option
@click.pass_obj
def doctor(folder: str, server: bool, url: str | None, token: str | None, output: str) -> None:
    """Check the log (a file: pages, checksums, offsets, what was left over; on Kafka: what was altered by hand),
    whether every declared decision can be made, and the running server. Exit 1 where something is wrong.

    A server's certificate must be one that this machine trusts; SSL_CERT_FILE names others.
    """
    from headrace.api import address, checkup  # urllib's HTTP: 40 ms

    shared = bool(read_settings(Path(folder), os.environ).log)
    findings = [] if shared else backups.doctor(_log(folder))
    state_folder = Path(folder) / STATE_FOLDER
    checked, decisions = _check_project(folder, shared=shared, needed=server or url is not None)
    findings += checked.findings
    if server or url is not None:
        findings += checkup.check_needs(decisions)
    findings += checkup.check_tokens(state_folder, SystemClock().now())
    asked = url or address.announced(state_folder)
    if asked is not None:
        answers = checkup.ask_server(asked, None if token is None else secret(token), checked.versions)
        findings += answers.findings
        for note in answers.notes:
            click.echo(note, err=True)
    if output == "json":
        emit_json(findings)
    elif findings:
        names = list(findings[0].__slots__)
        emit_table(names, [[getattr(one, name) for name in names] for one in findings])
    else:
        click.echo("nothing wrong", err=True)
    if findings:
        raise click.exceptions.Exit(1)


def _check_project(folder: str, *, shared: bool, needed: bool) -> tuple[Checked, int]:
    """What is found, and how many decisions are declared. needed: a folder that declares nothing is a finding; else it
    may hold a restored log and no more."""
    if not shared and not (_log(folder) / FILE_NAME).exists():
        return Checked(findings=(), versions=None), 0  # which is a finding already
    try:
        with open_project(folder, role=Role.READER) as project:
            return check_project(project), len(project.definitions.decisions)
    except HeadraceError as error:
        declares_nothing = error.code == "HR-0804" and not needed
        findings = () if declares_nothing else (Finding(serious=True, text=said(error)),)
        return Checked(findings=findings, versions=None), 0


@click.group()
def log() -> None:
    """Set right what a wrong clock wrote."""


@log.command("restart-clock")
@click.argument("topic")
@click.pass_obj
def restart_clock(folder: str, topic: str) -> None:
    """Go on with TOPIC after a clock that ran ahead (HR-0313): rows stamped above this machine's clock count as stamped
    now. On Kafka: those from where each partition halted to its end, also for a record with its producer's time
    (HR-0355).

    Set the clock right first. Safe beside a running owner, which does it, and beside any number of servers.
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
