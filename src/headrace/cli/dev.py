"""headrace dev kafka: up, down, status, logs. A real Kafka cluster on this machine, for development."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import click

from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.times import Duration
from headrace.testing.kafka import run
from headrace.testing.kafka.define import KAFKA_VERSION, Layout
from headrace.testing.kafka.machine import Machine
from headrace.testing.kafka.run import ClusterReport


@click.group()
def dev() -> None:
    """What developing and testing needs on this machine."""


@dev.group()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="HEADRACE_DEV_DIR",
    help="Where clusters live.  [default: headrace/kafka in $XDG_STATE_HOME, or in ~/.local/state]",
)
@click.pass_context
def kafka(ctx: click.Context, folder: Path | None) -> None:
    """Real Apache Kafka clusters on this machine, on 127.0.0.1, by name."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    ctx.obj = folder or Path(state) / "headrace" / "kafka"


def machine_of(environment: Mapping[str, str]) -> Machine:
    """JAVA_HOME is Java's place; libraries are kept where the kernel's code is: HEADRACE_CACHE_DIR, else
    $XDG_CACHE_HOME/headrace, else ~/.cache/headrace."""
    chosen = environment.get("HEADRACE_CACHE_DIR")
    cache = Path(chosen) if chosen else Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"
    return Machine(cache=cache.absolute(), java_home=environment.get("JAVA_HOME", ""))


_name = click.option("--name", default="dev", show_default=True, help="Which cluster.")


@kafka.command()
@click.option("--brokers", type=int, help="How many, 1 to 8; 3 survive the loss of one.  [default: 1]")
@_name
@click.option("--tls", is_flag=True, help="For clients that speak TLS as well, with a certificate of its own.")
@click.option("--timeout", default="2m", show_default=True, help="How long to wait until it is ready.")
@output_option
@click.pass_obj
def up(root: Path, brokers: int | None, name: str, tls: bool, timeout: str, output: str) -> None:
    """Start a cluster, or what is dead of it, and wait until it answers. It runs on in the background until `down`.

    Prints bootstrap.servers. One that runs already is left as it is; one with data goes on with them, on its ports.
    """
    begun = time.monotonic()
    report = run.up(
        root,
        name,
        brokers,
        machine=machine_of(os.environ),
        patience=Duration.parse(timeout),
        say=lambda text: click.echo(text, err=True),
        tls=tls,
    )
    cluster = report.cluster
    assert cluster is not None
    if output == "json":
        emit_json(_shown(report))
    else:
        click.echo(cluster.bootstrap)
    if report.ca is not None:
        click.echo(f"over TLS: kafka+tls://{cluster.tls_bootstrap}?ca={report.ca}", err=True)
    click.echo(
        f"cluster {name}: {_counted(cluster)}, ready after {time.monotonic() - begun:.1f} s; "
        f"it runs until: headrace dev kafka down --name {name}",
        err=True,
    )


def _counted(cluster: Layout) -> str:
    """Brokers, and how many vote where not all do."""
    voters = len(cluster.voters)
    said = run.counted(cluster)
    return said if voters == len(cluster.nodes) else f"{said}, {voters} of them {'votes' if voters == 1 else 'vote'}"


@kafka.command()
@_name
@click.option("--delete", is_flag=True, help="Delete its data as well.")
@click.pass_obj
def down(root: Path, name: str, delete: bool) -> None:
    """End every node of a cluster. Its data stay, and `up` goes on with them."""
    ended = run.down(root, name, delete=delete)
    said = f"ended {ended} node{'s' if ended != 1 else ''}" if ended else "nothing ran"
    click.echo(f"cluster {name}: {said}{', data deleted' if delete else ''}", err=True)


@kafka.command()
@click.option("--name", help="Only this one.")
@output_option
@click.pass_obj
def status(root: Path, name: str | None, output: str) -> None:
    """Clusters and their nodes: whether they answer, their processes and ports. Exit 1 where the one of --name is not
    wholly up."""
    reports = run.status(root, name)
    if output == "json":
        emit_json([_shown(one) for one in reports])
    elif reports:
        emit_table(
            ("cluster", "node", "roles", "state", "pid", "port", "controller_port"),
            [row for one in reports for row in _rows(one)],
        )
    for one in reports:
        if one.problem:
            click.echo(f"{one.name}: {one.problem}", err=True)
    if not reports:
        click.echo(f"no clusters in {root}", err=True)
    if name is not None and not all(one.up for one in reports):
        raise click.exceptions.Exit(1)


@kafka.command()
@_name
@click.option("--node", type=int, help="Only this one.")
@click.option("--lines", type=click.IntRange(0), default=100, show_default=True, help="How many to begin with.")
@click.option("--follow", is_flag=True, help="Go on until interrupted.")
@click.pass_obj
def logs(root: Path, name: str, node: int | None, lines: int, follow: bool) -> None:
    """What the nodes of a cluster say, each line with its node."""
    for id, line in run.logs(root, name, node, lines_max=lines, follow=follow):
        click.echo(line if node is not None else f"{id}: {line}")


def _shown(report: ClusterReport) -> dict[str, object]:
    cluster = report.cluster
    return {
        "name": report.name,
        "up": report.up,
        "bootstrap": None if cluster is None else cluster.bootstrap,
        "tls_bootstrap": (cluster.tls_bootstrap or None) if cluster is not None else None,
        "ca": str(report.ca) if report.ca is not None else None,
        "cluster_id": None if cluster is None else cluster.cluster_id,
        "version": KAFKA_VERSION,
        "folder": str(report.folder),
        "problem": report.problem or None,
        "nodes": [
            {
                "node": node.id,
                "roles": node.roles,
                "state": node.state,
                "pid": node.pid or None,
                "port": node.port,
                "controller_port": node.controller_port or None,
            }
            for node in report.nodes
        ],
    }


def _rows(report: ClusterReport) -> list[tuple[object, ...]]:
    if report.cluster is None:
        return [(report.name, None, None, "unreadable", None, None, None)]
    return [
        (report.name, n.id, "+".join(n.roles), n.state, n.pid or None, n.port, n.controller_port or None)
        for n in report.nodes
    ]
