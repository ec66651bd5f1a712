"""headrace decide, decisions."""

from __future__ import annotations

import json
import sys
import time

import click

from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.errors import InputError
from headrace.core.times import iso
from headrace.decisions.replay import ReplayReport
from headrace.decisions.run import DecisionMade
from headrace.runtime.project import open_project


@click.command()
@click.argument("name")
@click.argument("request", default="-")
@output_option
@click.pass_obj
def decide(folder: str, name: str, request: str, output: str) -> None:
    """Decide a REQUEST (a JSON object; - reads one a line from stdin) by decision NAME, durably."""
    with open_project(folder) as project:
        lines = sys.stdin if request == "-" else [request]
        for number, line in enumerate(lines, 1):
            if line.strip():
                _show(project.decide(name, _request(line, number)), output)


def _request(line: str, number: int) -> dict[str, object]:
    try:
        said = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError("HR-0902", f"line {number} is not JSON", detail=str(error), line=number) from error
    if not isinstance(said, dict):
        raise InputError("HR-0902", f"line {number} is no JSON object", detail=f"seen {line.strip()[:80]}", line=number)
    return said


def _show(made: DecisionMade, output: str) -> None:
    if output == "json":
        emit_json({**{name: getattr(made, name) for name in made.__slots__}, "t": iso(made.t)})
        return
    score = "" if made.score is None else f" (score {made.score:.4f})"
    why = f": {', '.join(made.reasons)}" if made.reasons else ""
    click.echo(f"{made.outcome.value}{score}{why}")


@click.group()
def decisions() -> None:
    """List recorded decisions, recompute them."""


@decisions.command("list")
@click.argument("name")
@click.option("--limit", default=20, show_default=True, help="The newest so many.")
@output_option
@click.pass_obj
def decisions_list(folder: str, name: str, limit: int, output: str) -> None:
    """The newest recorded decisions of NAME."""
    with open_project(folder) as project:
        found = list(project.records(name))[-limit:]
    names = ("decision_id", "request_id", "t", "outcome", "score", "reasons")
    rows = [(r.decision_id, r.request_id, iso(r.t), r.outcome, r.score, list(r.reasons)) for r in found]
    if output == "json":
        emit_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        emit_table(names, rows)


@decisions.command()
@click.argument("name")
@click.option("--limit", type=int, help="Only the newest so many.")
@click.option("--watch", is_flag=True, help="Again and again, as a sampler, until interrupted.")
@click.option("--every", default=10.0, show_default=True, help="Seconds between two looks with --watch.")
@output_option
@click.pass_obj
def replay(folder: str, name: str, limit: int | None, watch: bool, every: float, output: str) -> None:
    """Recompute recorded decisions of NAME from the log, compare every feature and score to the bit; exit 1 if any
    differs."""
    mismatched = 0
    with open_project(folder) as project:
        try:
            while True:
                report = project.replay_decisions(name, limit=limit)
                mismatched += report.mismatched
                _show_report(report, output)
                if not watch:
                    break
                time.sleep(every)
        except KeyboardInterrupt:
            if not watch:
                raise  # of a watch it is the end, and its status is what the watch has seen
    if mismatched:
        raise click.exceptions.Exit(1)


def _show_report(report: ReplayReport, output: str) -> None:
    if output == "json":
        emit_json(report)
        return
    click.echo(
        f"compared {report.compared:,}, mismatched {report.mismatched:,}, erased {report.erased:,}, "
        f"of other versions {report.unknown:,}"
    )
    for one in report.differences:
        click.echo(f"  {one.decision_id} {one.what}: recorded {one.recorded}, recomputed {one.recomputed}")
