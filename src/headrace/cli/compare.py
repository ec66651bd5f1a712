"""headrace decisions compare."""

from __future__ import annotations

import click

from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.times import Instant, instant
from headrace.decisions.compare import ChallengerReport, ComparisonReport, Matured, Side
from headrace.decisions.differing import Differences
from headrace.runtime.compared import compare_decisions
from headrace.runtime.project import open_project


@click.command()
@click.argument("name")
@click.option("--from", "begin", help="Requests at or after this instant (ISO 8601, with zone).")
@click.option("--to", "end", help="Requests before this instant.")
@click.option("--labels-at", help="As of when labels are known; now by default.")
@click.option("--by", multiple=True, help="A field of the request to count by; may be given more than once.")
@output_option
@click.pass_obj
def compare(
    folder: str,
    name: str,
    begin: str | None,
    end: str | None,
    labels_at: str | None,
    by: tuple[str, ...],
    output: str,
) -> None:
    """Compare NAME with its challengers over recorded decisions: outcomes, reasons, and what matured since.

    Both answered at the same point, and both answers are in the record: nothing is computed again.
    """
    with open_project(folder) as project:
        report = compare_decisions(project, name, begin=_at(begin), end=_at(end), t_label=_at(labels_at), by=by)
    if output == "json":
        emit_json(report)
    else:
        _show(report)


def _at(text: str | None) -> Instant | None:
    return None if text is None else instant(text)


def _show(report: ComparisonReport) -> None:
    sets = f"{report.from_versions} version set{'' if report.from_versions == 1 else 's'}"
    click.echo(f"{report.decision}: {report.decisions:,} decisions, recorded by {sets}")
    for one in report.challengers:
        click.echo(f"\nChallenger {one.name}: {_role(one)}")
        show_differences(one, report.decision, one.name)
        if one.matured:
            click.echo("\nWhat matured")
            emit_table(
                ("label", "requests", "true", "whose", "approved", "true of these", "AUC", "average precision"),
                [
                    row
                    for matured in one.matured
                    for row in (
                        _matured(matured, report.decision, matured.own),
                        _matured(matured, one.name, matured.challenger),
                    )
                ],
            )


def _role(one: ChallengerReport) -> str:
    share = "a shadow" if one.share == 0 else f"answers for {one.share:.1%} of the keys"
    return f"{share}; beside {one.compared:,} decisions, {one.answered:,} answered by it"


def show_differences(found: Differences, was: str, now: str) -> None:
    """was, now: whose answers they are."""
    share = f" ({found.changed / found.compared:.1%})" if found.compared else ""
    click.echo(
        f"compared {found.compared:,}: other outcome {found.changed:,}{share}, same outcome for other reasons "
        f"{found.rereasoned:,}, other score {found.rescored:,}"
    )
    click.echo("\nOutcomes")
    emit_table((was, now, "decisions"), [(m.was, m.now, m.count) for m in found.outcomes])
    click.echo("\nReasons")
    emit_table(("code", was, now, "change"), [(r.code, r.was, r.now, f"{r.now - r.was:+,}") for r in found.reasons])
    if found.segments:
        click.echo("\nSegments")
        emit_table(
            ("field", "value", "decisions", "changed", was, now),
            [(s.field, s.value, s.compared, s.changed, _outcomes(s.was), _outcomes(s.now)) for s in found.segments],
        )
    if found.examples:
        click.echo("\nExamples")
        emit_table(
            ("decision_id", was, now, f"reasons {was}", f"reasons {now}"),
            [(e.decision_id, e.was, e.now, list(e.was_reasons), list(e.now_reasons)) for e in found.examples],
        )


def _outcomes(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def _matured(matured: Matured, whose: str, side: Side) -> tuple[object, ...]:
    return (
        matured.label,
        matured.requests,
        matured.true,
        whose,
        side.approved,
        side.true_approved,
        *("" if figure is None else f"{figure:.3f}" for figure in (side.auc_roc, side.average_precision)),
    )
