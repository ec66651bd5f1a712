"""headrace decide, decisions."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from pathlib import Path

import click

from headrace.api import logs
from headrace.cli.background import end_with, stand_back
from headrace.cli.compare import compare, show_differences
from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.errors import HeadraceError, InputError
from headrace.core.times import Instant, instant, iso
from headrace.decisions.explain_words import page as explained_page
from headrace.decisions.explain_words import words
from headrace.decisions.record import DecisionRecord
from headrace.decisions.replay import ReplayReport
from headrace.decisions.run import DecisionMade
from headrace.decisions.verify import ChainReport, Head
from headrace.decisions.whatif import WhatIfReport
from headrace.runtime.decided import verify_decisions, whatif
from headrace.runtime.explained import EVENTS_MAX, explain_decision
from headrace.runtime.project import open_project
from headrace.runtime.sampling import EVERY_SECONDS, Sampler

FAILED_REST_SECONDS_MAX = 600.0  # between two looks of a sampler that cannot look

_logger = logging.getLogger(__name__)


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
        told = {name: getattr(made, name) for name in made.__slots__ if name != "recorded"}
        emit_json({**told, "t": iso(made.t)})
        return
    scores = made.scores or (() if made.score is None else (("score", made.score),))
    said = [f"{name} {score:.4f}" for name, score in scores if score is not None]
    score = f" ({', '.join(said)})" if said else ""
    why = f": {', '.join(made.reasons)}" if made.reasons else ""
    by = f", by challenger {made.arm}" if made.arm is not None else ""
    click.echo(f"{made.outcome.value}{score}{why}{by}")


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
        emit_json(
            [
                {**dict(zip(names, row, strict=True)), "scores": _scores(r), "arm": r.ruling.arm}
                for row, r in zip(rows, found, strict=True)
            ]
        )
        return
    several = any(_scores(r) for r in found)
    armed = any(r.ruling.arm is not None for r in found)
    emit_table(
        (*names, *(["scores"] if several else []), *(["arm"] if armed else [])),
        [
            (
                *row,
                *([", ".join(f"{name} {score}" for name, score in _scores(r).items())] if several else []),
                *([r.ruling.arm] if armed else []),
            )
            for row, r in zip(rows, found, strict=True)
        ],
    )


def _scores(record: DecisionRecord) -> dict[str, float | None]:
    """Of each model, where there are several."""
    scores = record.ruling.answer.scores
    return dict(scores) if len(scores) > 1 else {}


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


@decisions.command(hidden=True)
@click.option("--share", required=True, type=click.FloatRange(0, 1), help="Of the decisions, by a hash of their ids.")
@click.option("--every", default=EVERY_SECONDS, show_default=True, help="Seconds between two looks, at least.")
@click.option("--with-parent", is_flag=True, help="In the background of the process that started it, and no longer.")
@click.pass_obj
def sample(folder: str, share: float, every: float, with_parent: bool) -> None:
    """Recompute a share of what is decided from now on, as `headrace serve` has it done beside it; JSON lines."""
    from headrace.core.kernel.warm import warm_up  # loads numba, 0.5 s

    if with_parent:
        end_with(os.getppid())
        logs.to_stream(sys.stderr)
        stand_back()
    with contextlib.ExitStack() as closing:
        project = open_project(folder, role="reader")
        closing.callback(project.close)
        warm_up()  # no look's cost: the rest after one goes by it
        sampler = Sampler(project, share, every=every)
        closing.callback(lambda: sampler.project.close())
        rest = every
        while True:
            try:
                look = sampler.look()
            except Exception as error:  # one record must not keep all others from being looked at
                rest = max(rest, min(2 * rest, FAILED_REST_SECONDS_MAX))
                code = error.code if isinstance(error, HeadraceError) else ""
                _logger.exception("a look at the records failed, the next one is taken", extra={"code": code})
            else:
                rest = look.rest_seconds
                emit_json({"look": look})
            until = time.monotonic() + rest
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(left, 1.0))
                sampler.follow()
                emit_json({"behind": sampler.behind()})


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
    show_differences(report, "was", "now")
    click.echo(
        f"\nrequests gone {report.gone:,}; recorded by {report.from_versions} version "
        f"set{'' if report.from_versions == 1 else 's'}"
    )


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
        f"undecided {report.undecided:,}" + (f", claims {report.claims:,}, void {report.void:,}" * bool(report.claims))
    )
    for place in report.places:
        click.echo(f"  {place.partition} offset {place.offset}: {place.why}")
    emit_json({"heads": report.heads})


decisions.add_command(compare)
