"""headrace init, plan, apply."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from headrace.catalog.plan import Change, Step, check_approved
from headrace.cli.output import emit_json, output_option
from headrace.core.errors import HeadraceError, UsageError
from headrace.runtime.planned import Planned, apply_planned, planned
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
    """Show what apply would change, in words, and what of it needs an approval."""
    with open_project(folder) as project:
        found = planned(project)
    _show(found, output)
    if found.steps:
        raise click.exceptions.Exit(PENDING)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--approve", "approved", multiple=True, metavar="WHAT", help="Approve one change, by the text that plan shows."
)
@output_option
@click.pass_obj
def apply(folder: str, yes: bool, approved: tuple[str, ...], output: str) -> None:
    """Make what is declared be in force, after showing the plan. Exit 3 where an approval is missing: nothing was
    done."""
    with open_project(folder) as project:
        found = planned(project)
        _show(found, output)
        if not found.steps:
            return
        try:
            check_approved(found.steps, approved)
        except HeadraceError as error:
            if error.code != "HR-0811":
                raise
            # Its changes are pending, which is a status of its own.
            click.echo(str(error), err=True)
            raise click.exceptions.Exit(PENDING) from error
        if not yes and sys.stdin.isatty():
            click.confirm("apply?", abort=True, err=True)
        apply_planned(project, found, approved=approved)
    click.echo(f"applied {len(found.steps)} changes", err=True)


_SIGNS = {Change.ADD: "+", Change.CHANGE: "~", Change.RETIRE: "-"}


def _show(found: Planned, output: str) -> None:
    if output == "json":
        emit_json([_said(step, found) for step in found.steps])
        return
    if not found.steps:
        click.echo("nothing would change", err=True)
    for step in found.steps:
        click.echo(f"{_SIGNS[step.change]} {step.kind} {step.name} (version {step.version})")
        for line in step.because:
            click.echo(f"    {line}")
        for line in found.remarks.get(step.key, ()):
            click.echo(f"    Kafka: {line}")
        for text in step.approvals:
            click.echo(f"    needs --approve {text}")


def _said(step: Step, found: Planned) -> dict[str, object]:
    return {
        "change": step.change,
        "kind": step.kind,
        "name": step.name,
        "version": step.version,
        "because": step.because,
        "approvals": step.approvals,
        "kafka": found.remarks.get(step.key, ()),
    }
