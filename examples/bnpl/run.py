"""The lender from end to end, in process: history, two models, the newest applications decided and recomputed.

    python examples/bnpl/run.py                          into a temporary folder, which goes when it ends
    python examples/bnpl/run.py --out build/bnpl --scale 0.2 --late-incident

Each step is a function that returns what it found, and each table one that shows it; `main` puts them in order. Whoever
wants another front (a server that is asked, a page that is written) takes the same steps.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

from generate import TOPICS, add_options, chosen, generate, write
from market import BEGIN, DAY, FRAUDS

from headrace.core.errors import HeadraceError
from headrace.core.times import Instant
from headrace.decisions.replay import ReplayReport
from headrace.features.training import Impact
from headrace.models.evaluate import Evaluation
from headrace.runtime import training
from headrace.runtime.project import Project, open_project
from headrace.schemas.define import AvailableAt, ImportOptions, ImportReport

HERE = Path(__file__).resolve().parent
MODELS = ("fraud", "default")
DECISION, REQUESTS = "checkout", "applications"
OUTCOMES = ("approve", "review", "decline")
WARM_UP = Instant(BEGIN + 20 * DAY)  # before it every window is half empty
TRAINED_AT = Instant(BEGIN + 150 * DAY)
ARRIVED = "arrived_at"
OPTIONS = ImportOptions(available_at=AvailableAt(column=ARRIVED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model, trained on what had matured at TRAINED_AT and tested on later applications that had matured since.
    immature: applications before TRAINED_AT that were left out."""

    name: str
    rows: int
    positives: int
    immature: int
    tested: Evaluation
    largest_difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was decided. taken: seconds until it was durable."""

    outcome: str
    reasons: tuple[str, ...]
    taken: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """answers: by application id. events: how many were appended between decisions."""

    answers: Mapping[int, Answer]
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What arrived between two requests, of one topic, in order of arrival."""

    topic: str
    rows: pa.RecordBatch


Request = dict[str, object]


def main() -> None:
    arguments = _arguments()
    console = Console()
    with _folder(arguments.out) as folder:
        data = folder / "data"
        with _step(console, "generate"):
            world = generate(chosen(arguments))
            write(world, data)
            console.print(f"  {world.events:,} events of {world.truth.num_rows:,} applications")
        live_from = newest(data, arguments.decide)
        with make_project(folder / "project") as project:
            with _step(console, "import what had arrived by then"):
                show_imports(console, import_history(project, data, live_from))
            with _step(console, "train, test on what matured later"):
                models = [train(project, name, live_from) for name in MODELS]
            impacts = []
            if arguments.late_incident:
                with _step(console, "what the late reports would have changed"):
                    impacts = impact(project, "default", live_from)
            with _step(console, "decide the newest applications as they come"):
                append, ask = in_process(project)
                decided = decide(data, live_from, append=append, ask=ask)
            with _step(console, "recompute every decision from the log"):
                replayed = project.replay_decisions(DECISION)
        console.print(models_table(models))
        if impacts:
            console.print(impacts_table(impacts))
        console.print(truth_table(data, decided))
        console.print(decided_table(decided, replayed))
        if replayed.mismatched or replayed.compared != len(decided.answers):
            raise SystemExit("recomputed decisions differ from what was recorded")
        if arguments.out is not None:
            console.print(f"events, truth and project: {folder}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A buy-now-pay-later lender on headrace.")
    parser.add_argument("--out", type=Path, help="a folder to keep it all in; a temporary one without it")
    parser.add_argument("--decide", type=int, default=2_000, help="how many of the newest applications are decided")
    add_options(parser)
    return parser.parse_args()


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="bnpl-") as made:
            yield Path(made)
        return
    for part in ("data", "project"):
        shutil.rmtree(out / part, ignore_errors=True)
    yield out.resolve()


@contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    console.print(f"[bold]{title}[/bold]")
    begun = time.perf_counter()
    yield
    console.print(f"  {time.perf_counter() - begun:.1f} s", style="dim")


# --- steps ---


def make_project(folder: Path) -> Project:
    """A project of its own with the example's definitions, applied."""
    folder.mkdir(parents=True)
    shutil.copy(HERE / "definitions.py", folder / "definitions.py")
    project = open_project(folder)
    project.apply()
    return project


def newest(data: Path, count: int) -> Instant:
    """When the first of so many newest applications was made."""
    times = np.sort(_instants(pq.read_table(data / f"{REQUESTS}.parquet"), "created_at"))
    return Instant(int(times[-min(count, len(times))]))


def import_history(project: Project, data: Path, until: Instant) -> list[ImportReport]:
    """All that the lender had before `until`, each event available when it arrived."""
    history = data / "history"
    history.mkdir(exist_ok=True)
    reports = []
    for topic in TOPICS:
        table = pq.read_table(data / f"{topic}.parquet")
        pq.write_table(table.filter(pa.array(_instants(table, ARRIVED) < until)), history / f"{topic}.parquet")
        reports.append(project.import_file(topic, history / f"{topic}.parquet", options=OPTIONS))
    return reports


def train(project: Project, name: str, now: Instant) -> Trained:
    """On applications whose label had matured at TRAINED_AT; tested on those after it whose label has matured `now`."""
    made = training.build_training_set(project, name, begin=WARM_UP, end=TRAINED_AT, t_label=TRAINED_AT)
    _, registered = training.train_model(project, name, made)
    later = training.build_training_set(project, name, begin=TRAINED_AT, t_label=now)
    tested, _ = training.evaluate_model(project, name, later.table)
    return Trained(
        name=name,
        rows=registered.rows,
        positives=registered.positives,
        immature=made.manifest.immature,
        tested=tested,
        largest_difference=registered.largest_difference,
    )


def impact(project: Project, name: str, now: Instant) -> list[Impact]:
    """What each input would have been, had every event arrived at once: those that differ, the most first."""
    found = training.late_data_impact(project, name, begin=TRAINED_AT, t_label=now)
    return sorted((one for one in found if one.differing), key=lambda one: -one.differing)


def decide(
    data: Path, begin: Instant, *, append: Callable[[Events], None], ask: Callable[[Request], Answer]
) -> Decided:
    """Each application from `begin` on, one by one, with all that arrived before it in the log.

    append, ask: how events get into the log, and how a decision is asked for; `in_process` is one way.
    """
    answers: dict[int, Answer] = {}
    events = 0
    for one in feed(data, begin):
        if isinstance(one, Events):
            append(one)
            events += one.rows.num_rows
        else:
            answers[int(str(one["application_id"]))] = ask(one)
    return Decided(answers=answers, events=events)


def in_process(project: Project) -> tuple[Callable[[Events], None], Callable[[Request], Answer]]:
    """`append` and `ask` of the project itself."""
    decider = project.decider(DECISION)

    def append(events: Events) -> None:
        topic = project.definitions.topic(events.topic)
        project.append(topic, events.rows.select(topic.schema.names))

    def ask(request: Request) -> Answer:
        begun = time.perf_counter()
        made = decider.decide(request)
        return Answer(outcome=made.outcome.value, reasons=made.reasons, taken=time.perf_counter() - begun)

    return append, ask


def feed(data: Path, begin: Instant) -> Iterator[Events | Request]:
    """All that arrives from `begin` on, in order: applications as requests, and before each what else has come."""
    table = pq.read_table(data / f"{REQUESTS}.parquet").drop_columns([ARRIVED])
    table = table.filter(pa.array(_instants(table, "created_at") >= begin))
    asked = _instants(table, "created_at")
    others = {topic: _arrivals(data / f"{topic}.parquet", begin) for topic in TOPICS if topic != REQUESTS}
    places = {topic: np.searchsorted(arrived, asked, side="right") for topic, (arrived, _) in others.items()}
    done = dict.fromkeys(others, 0)
    for row, request in enumerate(table.to_pylist()):
        for topic, (_, batch) in others.items():
            until = int(places[topic][row])
            if until > done[topic]:
                yield Events(topic=topic, rows=batch.slice(done[topic], until - done[topic]))
                done[topic] = until
        yield {**request, "created_at": request["created_at"].isoformat(), "amount": str(request["amount"])}


def _arrivals(path: Path, begin: Instant) -> tuple[np.ndarray, pa.RecordBatch]:
    """When each event from `begin` on arrived, rising, and the events."""
    table = pq.read_table(path)
    arrived = _instants(table, ARRIVED)
    order = np.argsort(arrived, kind="stable")
    order = order[arrived[order] >= begin]
    batch = table.drop_columns([ARRIVED]).take(pa.array(order)).combine_chunks()
    return arrived[order], batch.to_batches()[0] if len(order) else pa.RecordBatch.from_pylist([], batch.schema)


def _instants(table: pa.Table, column: str) -> np.ndarray:
    return table.column(column).cast(pa.int64()).to_numpy()


# --- what is shown ---


def show_imports(console: Console, reports: list[ImportReport]) -> None:
    taken = sum(r.taken + r.late for r in reports)
    seen = sum(r.rows for r in reports)
    late = sum(r.late for r in reports)
    console.print(f"  {taken:,} of {seen:,} events taken" + (f", {late:,} of them late" if late else ""))


def models_table(models: list[Trained]) -> Table:
    table = Table(title="models", title_justify="left")
    for name in ("model", "trained on", "true", "left out, immature", "tested on", "true", "AUC", "average precision"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for one in models:
        table.add_row(
            one.name,
            f"{one.rows:,}",
            f"{one.positives:,}",
            f"{one.immature:,}",
            f"{one.tested.rows:,}",
            f"{one.tested.positives:,}",
            f"{one.tested.auc_roc:.3f}",
            f"{one.tested.average_precision:.3f}",
        )
    return table


def impacts_table(impacts: list[Impact]) -> Table:
    table = Table(title="inputs that late reports would have changed", title_justify="left")
    for name in ("input", "applications", "of", "largest difference"):
        table.add_column(name, justify="left" if name == "input" else "right")
    for one in impacts:
        largest = "" if one.largest is None else f"{one.largest:,.2f}"
        table.add_row(one.feature, f"{one.differing:,}", f"{one.rows:,}", largest)
    return table


def truth_table(data: Path, decided: Decided) -> Table:
    """What was decided of whom: the truth file is read here and nowhere else."""
    truth = pq.read_table(data / "truth.parquet").to_pylist()
    what = {row["application_id"]: row["fraud"] or ("default" if row["defaults"] else "honest") for row in truth}
    counts = Counter((what[id], answer.outcome) for id, answer in decided.answers.items())
    table = Table(title="decisions beside the truth", title_justify="left")
    table.add_column("in truth")
    for outcome in OUTCOMES:
        table.add_column(outcome, justify="right")
    for kind in ("honest", "default", *(fraud for fraud in FRAUDS if fraud is not None)):
        table.add_row(kind, *(f"{counts[kind, outcome]:,}" for outcome in OUTCOMES))
    return table


def decided_table(decided: Decided, replayed: ReplayReport) -> Table:
    answers = decided.answers.values()
    table = Table(title=f"decision {DECISION}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("requests", f"{len(answers):,}")
    table.add_row("events between them", f"{decided.events:,}")
    table.add_section()
    for code, count in Counter(code for answer in answers for code in answer.reasons).most_common():
        table.add_row(code, f"{count:,}")
    table.add_section()
    p50, p99 = np.percentile([answer.taken for answer in answers], (50, 99)) * 1e3
    table.add_row("durable, p50", f"{p50:.2f} ms")
    table.add_row("durable, p99", f"{p99:.2f} ms")
    table.add_row("recomputed: compared", f"{replayed.compared:,}")
    table.add_row("recomputed: mismatched", f"{replayed.mismatched:,}")
    return table


if __name__ == "__main__":
    try:
        main()
    except HeadraceError as error:
        raise SystemExit(str(error)) from error
