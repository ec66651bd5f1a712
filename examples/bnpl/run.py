"""The lender from end to end: history, two models, a server, the newest applications decided and recomputed, a report.

    python examples/bnpl/run.py                          into a temporary folder, which goes when it ends
    python examples/bnpl/run.py --out build/bnpl --scale 0.2 --late-incident
    python examples/bnpl/run.py --in-process             without a server, where the extra `serve` is not installed

`main` puts the steps in order: generate.py makes the world, steps.py the project and its models, serving.py the server,
live.py the days that are decided, findings.py what came of it, tables.py and report.py show it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent))

import tables
from findings import DiffersError, Findings, check, explain_some, find_cases, texts_of, thresholds_of
from generate import add_options, chosen, generate, write
from live import Append, Ask, Decided, decide, in_process, requests_from
from report import write_report
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from serving import ServerError, make_token, over_http, serving
from steps import DECISION, MODELS, impact, import_history, make_project, newest, train
from wording import durations_of, rule_words

from headrace.core.errors import HeadraceError
from headrace.core.times import Instant
from headrace.plugs import require
from headrace.runtime.project import open_project

SERVER_NEEDS = ("uvicorn", "httptools", "prometheus_client")


def main() -> None:
    arguments = _arguments()
    if not arguments.in_process:
        for package in SERVER_NEEDS:  # before anything takes time
            require(package, wanted_by="the lender's server (--in-process goes without)")
    console = Console()
    with _ended_in_order(), _folder(arguments.out) as folder:
        found = run(arguments, folder, console)
        console.print(tables.models_table(found.trained))
        if found.impacts:
            console.print(tables.impacts_table(found.impacts, found.durations))
        console.print(tables.truth_table(found))
        console.print(tables.decided_table(found))
        if arguments.report is not None:
            write_report(found, arguments.report, project=None if arguments.out is None else folder / "project")
            console.print(f"report: {arguments.report}", soft_wrap=True)
        if arguments.out is not None:
            console.print(f"events, truth and project: {folder}", soft_wrap=True)
        check(found.decided, found.replayed)


def run(arguments: argparse.Namespace, folder: Path, console: Console) -> Findings:
    """All steps, in a folder that has no `data` and no `project` yet."""
    data, place = folder / "data", folder / "project"
    with _step(console, "generate"):
        world = generate(chosen(arguments))
        write(world, data)
        console.print(f"  {world.events:,} events of {world.truth.num_rows:,} applications")
    live_from = newest(data, arguments.decide)
    impacts = None
    with make_project(place) as project:
        with _step(console, "import what had arrived by then"):
            reports = import_history(project, data, live_from)
            console.print(f"  {tables.imported(reports)}")
        with _step(console, "train, test on what matured later"):
            trained = [train(project, name, live_from) for name in MODELS]
        if arguments.late_incident:
            with _step(console, "what the late reports would have changed"):
                impacts = impact(project, "default", live_from)
        token = "" if arguments.in_process else make_token(project)
        if arguments.in_process:
            with _step(console, "decide the newest applications as they come"):
                decided = _decide(console, data, live_from, *in_process(project))
    if not arguments.in_process:
        with (
            _step(console, "serve, and decide the newest applications over HTTP as they come"),
            serving(place, token=token, log=folder / "server.log") as server,
            over_http(server) as ways,
        ):
            console.print(f"  headrace serve is ready on port {server.port}, process {server.pid}")
            decided = _decide(console, data, live_from, *ways)
    with open_project(place) as project:
        with _step(console, "recompute every decision from the log"):
            replayed = project.replay_decisions(DECISION)
        with _step(console, "explain some of them"):
            cases = find_cases(project, data, decided)
            explained = explain_some(project, cases)
        decision, durations = project.definitions.decision(DECISION), durations_of(project.definitions)
    return Findings(
        options=chosen(arguments),
        served=not arguments.in_process,
        events=world.events,
        imported=sum(report.taken + report.late for report in reports),
        trained=trained,
        decided=decided,
        cases=cases,
        replayed=replayed,
        impacts=impacts,
        explained=explained,
        texts=texts_of(decision),
        thresholds=thresholds_of(decision),
        rules=[rule_words(decision, rule) for rule in decision.policy],
        durations=durations,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A buy-now-pay-later lender on headrace.")
    parser.add_argument("--out", type=Path, help="a folder to keep it all in; a temporary one without it")
    parser.add_argument("--decide", type=int, default=2_000, help="how many of the newest applications are decided")
    parser.add_argument("--report", type=Path, help="the HTML page; OUT/report.html where there is an OUT")
    parser.add_argument("--in-process", action="store_true", help="decide without a server")
    add_options(parser)
    arguments = parser.parse_args()
    if arguments.out is not None:
        arguments.out = arguments.out.resolve()
        arguments.report = arguments.report or arguments.out / "report.html"
    return arguments


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="bnpl-") as made:
            yield Path(made)
        return
    for part in ("data", "project"):
        shutil.rmtree(out / part, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    yield out


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Who is told to end, or whose terminal goes, leaves by an exception, so that the server is ended too."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    console.print(f"[bold]{title}[/bold]")
    begun = time.perf_counter()
    yield
    console.print(f"  {time.perf_counter() - begun:.1f} s", style="dim")


def _decide(console: Console, data: Path, begin: Instant, append: Append, ask: Ask) -> Decided:
    """With a bar that tells how far it is; where stdout is no terminal, without."""
    columns = (TextColumn("  "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=requests_from(data, begin))
        return decide(data, begin, append=append, ask=ask, told=lambda count: progress.update(task, completed=count))


if __name__ == "__main__":
    try:
        main()
    except (HeadraceError, ServerError, DiffersError) as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
