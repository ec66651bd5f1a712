"""headrace decide, decisions."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.errors import InputError
from headrace.core.times import Instant, instant, iso
from headrace.decisions.explain_words import page as explained_page
from headrace.decisions.explain_words import words
from headrace.decisions.replay import ReplayReport
from headrace.decisions.run import DecisionMade
from headrace.decisions.verify import ChainReport, Head
from headrace.decisions.whatif import WhatIfReport
from headrace.runtime.decided import verify_decisions, whatif
from headrace.runtime.explained import EVENTS_MAX, explain_decision
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
    """List recorded decisions, explain them, recompute them, verify them, try another policy on them."""


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


@decisions.command()
@click.argument("name")
@click.option(
    "--heads",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What an earlier verify printed: its heads must still be there.",
)
@output_option
@click.pass_obj
def verify(folder: str, name: str, heads: Path | None, output: str) -> None:
    """Check that no record of NAME was altered, dropped, added or moved, nor the request that it decided; exit 1 if one
    was.

    Prints the newest link of each partition: keep them where the log's keeper cannot write, and give them to the next
    verify. A chain that was made anew, or cut off at its end, is found by them alone.
    """
    known = () if heads is None else _heads(heads)
    with open_project(folder) as project:
        report = verify_decisions(project, name, heads=known)
    if output == "json":
        emit_json({"whole": report.whole, **{f: getattr(report, f) for f in ChainReport.__slots__}})
    else:
        _show_chain(report)
    if not report.whole:
        raise click.exceptions.Exit(1)


@decisions.command()
@click.argument("decision_id")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write it as an HTML page as well.")
@click.option("--language", help="Of the reasons' texts; every one by default.")
@click.option("--events", default=EVENTS_MAX, show_default=True, type=click.IntRange(0), help="Shown of each view.")
@output_option
@click.pass_obj
def explain(folder: str, decision_id: str, page: Path | None, language: str | None, events: int, output: str) -> None:
    """Explain a decision: request, events, values, contributions, rules, and whether it recomputes to the same bits.

    The page is one file that needs no other. Values and events may be personal: keep it as you keep the log.
    """
    with open_project(folder) as project:
        said = explain_decision(project, decision_id, events=events)
    if page is not None:
        page.write_text(explained_page(said), encoding="utf-8")
    if output == "json":
        emit_json(said)
    else:
        click.echo(words(said, language=language))


@decisions.command("whatif")
@click.argument("name")
@click.option(
    "--definitions",
    "other",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with other definitions; by default this project's own, as edited since.",
)
@click.option("--artifact", help="A model's content hash; by default its newest.")
@click.option("--from", "begin", help="Requests at or after this instant (ISO 8601, with zone).")
@click.option("--to", "end", help="Requests before this instant.")
@click.option("--by", multiple=True, help="A field of the request to count by; may be given more than once.")
@click.option("--limit", type=click.IntRange(1), help="Only the newest so many.")
@output_option
@click.pass_obj
def decisions_whatif(
    folder: str,
    name: str,
    other: Path | None,
    artifact: str | None,
    begin: str | None,
    end: str | None,
    by: tuple[str, ...],
    limit: int | None,
    output: str,
) -> None:
    """Decide recorded requests of NAME again by other definitions or another model, and say what changes.

    A dry run: nothing is recorded. Every request is asked at its recorded point.
    """
    with open_project(folder) as project:
        report = whatif(
            project, name, folder=other, artifact=artifact, begin=_at(begin), end=_at(end), by=by, limit=limit
        )
    if output == "json":
        emit_json(report)
    else:
        _show_whatif(report)


def _at(text: str | None) -> Instant | None:
    return None if text is None else instant(text)


def _show_whatif(report: WhatIfReport) -> None:
    share = f" ({report.changed / report.compared:.1%})" if report.compared else ""
    click.echo(
        f"compared {report.compared:,}: other outcome {report.changed:,}{share}, same outcome for other reasons "
        f"{report.rereasoned:,}, other score {report.rescored:,}; requests gone {report.gone:,}; recorded by "
        f"{report.from_versions} version set{'' if report.from_versions == 1 else 's'}"
    )
    click.echo("\nOutcomes")
    emit_table(("was", "now", "decisions"), [(m.was, m.now, m.count) for m in report.outcomes])
    click.echo("\nReasons")
    emit_table(
        ("code", "was", "now", "change"), [(r.code, r.was, r.now, f"{r.now - r.was:+,}") for r in report.reasons]
    )
    if report.segments:
        click.echo("\nSegments")
        emit_table(
            ("field", "value", "decisions", "changed", "was", "now"),
            [(s.field, s.value, s.compared, s.changed, _outcomes(s.was), _outcomes(s.now)) for s in report.segments],
        )
    if report.examples:
        click.echo("\nExamples")
        emit_table(
            ("decision_id", "was", "now", "reasons before", "reasons now"),
            [(e.decision_id, e.was, e.now, list(e.was_reasons), list(e.now_reasons)) for e in report.examples],
        )


def _outcomes(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def _heads(path: Path) -> list[Head]:
    """Heads from what `verify` printed: its JSON, or the last line of its text."""
    text = path.read_text(encoding="utf-8").strip()
    try:
        said = json.loads(text if text.startswith("{") and "\n" not in text else text.rpartition("\n")[2])
        return [
            Head(partition=str(one["partition"]), offset=int(one["offset"]), link=str(one["link"]))
            for one in said["heads"]
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            "HR-0717",
            f"{path} holds no heads",
            detail=f'expected what verify printed, {{"heads": [...]}}; {type(error).__name__}: {error}',
            hint="headrace decisions verify NAME --output json > heads.json",
        ) from error


def _show_chain(report: ChainReport) -> None:
    click.echo(
        f"{'whole' if report.whole else 'NOT WHOLE'}: checked {report.checked:,}, broken {report.broken:,}, "
        f"of before the chain {report.unchained:,}, requests gone {report.gone:,}, repeated {report.repeats:,}, "
        f"undecided {report.undecided:,}"
    )
    for place in report.places:
        click.echo(f"  {place.partition} offset {place.offset}: {place.why}")
    emit_json({"heads": report.heads})
