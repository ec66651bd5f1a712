"""headrace init, plan, apply."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from headrace.catalog.plan import Change, Step
from headrace.cli.output import emit_json, output_option
from headrace.core.errors import UsageError
from headrace.runtime.project import open_project

PENDING = 3  # exit status of a plan that would change something

_TEMPLATE = '''"""What this project declares. `headrace plan` shows what would change, `headrace apply` does it."""

import headrace as hr

applications = hr.Topic("applications", key="customer_id", id="application_id", event_time="created_at", fields={
    "application_id": hr.string,
    "customer_id": hr.int64,
    "merchant_id": hr.int64,
    "amount": hr.decimal(12, 2),
    "created_at": hr.timestamp,
    "charged_back": hr.field(hr.boolean, available_after="30d"),  # its truth comes later, and the type says when
})

activity = hr.FeatureView("customer_activity", entity="customer_id", source=applications, features=[
    hr.count().over("1d", "7d"),
    hr.mean(applications.amount).over("7d"),
    hr.time_since_last(),
])

checkout = hr.Decision("checkout", request=applications, policy=[
    hr.decline_if(activity.count_1d > 10, reason="TOO_MANY_APPLICATIONS"),
    hr.review_if(applications.amount > 1000, reason="LARGE_AMOUNT"),
    hr.approve(),
])
'''


@click.command()
@click.argument("folder", default=".", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a project to start from in FOLDER: a definitions.py with a topic, a view and a decision."""
    file = folder / "definitions.py"
    if file.exists():
        raise UsageError("HR-0901", f"{str(file)!r} is there already", hint="headrace plan")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(_TEMPLATE, encoding="utf-8")
    click.echo(f"made {file}; next: headrace --project {folder} apply", err=True)


@click.command()
@output_option
@click.pass_obj
def plan(folder: str, output: str) -> None:
    """Show what apply would change."""
    with open_project(folder) as project:
        steps = project.plan()
    _show(steps, output)
    if steps:
        raise click.exceptions.Exit(PENDING)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@click.pass_obj
def apply(folder: str, yes: bool, output: str) -> None:
    """Make what is declared be in force, after showing the plan."""
    with open_project(folder) as project:
        steps = project.plan()
        _show(steps, output)
        if not steps:
            return
        if not yes and sys.stdin.isatty():
            click.confirm("apply?", abort=True, err=True)
        project.apply(steps)
    click.echo(f"applied {len(steps)} changes", err=True)


_SIGNS = {Change.ADD: "+", Change.CHANGE: "~", Change.RETIRE: "-"}


def _show(steps: tuple[Step, ...], output: str) -> None:
    if output == "json":
        emit_json([{"change": s.change, "kind": s.kind, "name": s.name, "version": s.version} for s in steps])
        return
    if not steps:
        click.echo("nothing would change", err=True)
    for step in steps:
        click.echo(f"{_SIGNS[step.change]} {step.kind} {step.name} (version {step.version})")
        for line in step.because:
            click.echo(f"    {line}")
