"""Everything on real Kafka, three brokers of which one is killed or stopped, serving processes, producers, consumers
and re-keyers killed and stopped at random, under load: nothing acknowledged is lost or counts twice, every answer is
its record.

100 decisions a second over HTTP to random processes, 1,000 events a second by producers of the SDK, consumers that keep
effect and offset in one transaction, re-keyers that carry the events over into a topic of another key. Then a checker
on plain confluent-kafka holds topics against answers, acknowledgements, effects and each other (bench/_chaos_judge.py
and bench/_chaos_derived.py say by what rules), and every decision is recomputed at its recorded cuts.

void_records: valid by nobody's claim, so never answered. fenced_zombies: claims under which somebody wrote after
another's, and fenced transactions; rekeyers_fenced: those of re-keyers alone. unlike: answers that are not their
record, derived events that are not their source's. miscounted: values of records that the topics do not give at their
cuts. takeover_s: kill of an owner to the first durable answer of its worst partition, the worst of all kills.
ended_by_themselves: processes that ended with an error, and were started again, as by whatever watches over processes.
broker_unanswered_s: the longest time that a partition gave no answer, begun while a broker was stopped and owners were
left alone; broker_unanswered_any_s: while owners were not.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench._chaos_check import acknowledged_of, check
from bench._chaos_judge import Claim, Found, Value
from bench._chaos_prey import Book, Hunt, Pace, Prey
from bench._chaos_spans import Answers, Takeover, takeovers
from bench._server import HEADRACE, get
from headrace.cli.dev import machine_of
from headrace.runtime.decided import verify_decisions
from headrace.runtime.project import open_project
from headrace.runtime.streaming import listed
from headrace.testing.kafka import KafkaCluster

ROOT = Path(__file__).resolve().parent.parent
DECISION = "checkout"
PREFIX = "chaos."
MINUTES, MINUTES_QUICK = 10.0, 0.3
DECISIONS_PER_S, EVENTS_PER_S = 100.0, 1_000.0
OWNERS, PRODUCERS, CONSUMERS, REKEYERS = 3, 2, 2, 2
SESSION_S = 6.0
READY_S, SETTLE_S, SERVED_S = 180.0, 180.0, 90.0
WARM_S, CHECKPOINT_S = 45.0, 60.0
STILL_S, SILENT_S = 3.0, 60.0  # without a new effect: where there are enough of them, and where there are not
# A request passes some twenty threads of five processes. Where they wait in one line with everybody else, each takes
# seconds on two processors. Elsewhere these have machines of their own; here, who may be late comes last.
AFTER = ("nice", "-n", "15")
# Owners are half of what is acted on: what they do is what is judged most.
TURNS = ("owner", "producer", "owner", "consumer", "owner", "rekeyer")
BROKER_ACTS = ("kill", "pause-quiet", "kill", "pause", "kill", "pause-quiet", "kill", "pause", "kill", "kill")
PACE = Pace(kill_every=24, pause_gap=12, timeout=SESSION_S, broker_every=38, broker_acts=BROKER_ACTS)
PACE_QUICK = Pace(kill_every=5, pause_gap=2, timeout=3.0, broker_every=6, broker_acts=("kill",))


def run(*, quick: bool, peers: bool, minutes: float | None = None) -> dict[str, dict[str, float]]:
    """The figures of `chaos-kafka`. Where anything is violated, or a request got no answer within its clients' patience
    (given_up), everything stays in the folder that is then named."""
    minutes = minutes or (MINUTES_QUICK if quick else MINUTES)
    folder = Path(tempfile.mkdtemp(prefix="headrace-chaos-kafka-"))
    print(f"in {folder}", flush=True)
    with ExitStack() as stack:
        stack.enter_context(ended_by_signal())
        cluster = KafkaCluster(folder / "kafka", brokers=3, machine=machine_of(os.environ), long_lived=True)
        stack.enter_context(cluster)
        timeout = PACE_QUICK.timeout if quick else SESSION_S
        address = f"kafka://{cluster.bootstrap}/{PREFIX}?session_timeout={timeout:g}s"
        project = make_project(folder, address)
        book = Book(folder / "acts.jsonl")
        prey = stack.enter_context(running(folder, project, address))
        statuses = chase(folder, cluster, prey, PACE_QUICK if quick else PACE, book, minutes)
        stopped = settle(folder, prey, cluster.bootstrap)
        print("checking", flush=True)
        found, folded, answers = check(cluster.bootstrap, PREFIX, folder)
        figures = figures_of(found, folded.claims, answers, book) | replayed(project, found)
    logged(prey, found)
    figures = {"minutes": minutes, **figures, "stopped_in_order": stopped}
    figures["ended_by_themselves"] = book.count("ended", "")
    figures["rekeyers_fenced"] = found.counts["rekeyers_fenced"]
    figures["fenced_zombies"] = found.counts["zombie_epochs"] + found.counts["fenced"]
    told(found, statuses)
    if found.told or found.counts["given_up"]:
        print(f"VIOLATED, or left unanswered; everything is in {folder}", flush=True)
        (folder / "found.txt").write_text("\n".join(found.told) + "\n", encoding="utf-8")
    else:
        shutil.rmtree(folder)
    return {"figures": figures}


# --- before ---


def make_project(folder: Path, address: str) -> Path:
    project = folder / "project"
    project.mkdir()
    shutil.copy(ROOT / "bench" / "_chaos_shop.py", project / "definitions.py")
    (project / "headrace.toml").write_text(f'log = "{address}"\n', encoding="utf-8")
    with open_project(project) as opened:
        opened.apply()
    return project


@contextmanager
def running(folder: Path, project: Path, address: str) -> Iterator[Mapping[str, Sequence[Prey]]]:
    """All processes, by kind; killed in the end. Owners begin alone: while nine processes start on a small machine,
    those that send would have sent for minutes before the first request is answered."""
    made = {
        "owner": [owner(folder, project, number) for number in range(OWNERS)],
        "producer": [producer(folder, address, number) for number in range(PRODUCERS)],
        "consumer": [consumer(folder, address, number) for number in range(CONSUMERS)],
        "rekeyer": [rekeyer(folder, project, number) for number in range(REKEYERS)],
    }
    try:
        for one in made["owner"]:
            one.start()
        wait_ready(made["owner"])
        for kind, of in made.items():
            for one in of if kind != "owner" else ():
                one.start()
        yield made
    finally:
        for kind in made.values():
            for one in kind:
                one.kill()


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """SIGTERM ends this process by way of what it has to end first: its processes outlive it otherwise."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def owner(folder: Path, project: Path, number: int) -> Prey:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    kept = ("--checkpoint-seconds", f"{CHECKPOINT_S:g}")  # whoever starts again would read minutes of events else
    command = [*HEADRACE, "--project", str(project), "serve", "--port", str(port), "--sample", "0", *kept]
    return Prey("owner", number, command, log=folder / f"owner-{number}.log", cwd=ROOT, port=port)


def producer(folder: Path, address: str, number: int) -> Prey:
    asked = [address, str(folder), str(number), str(PRODUCERS), str(EVENTS_PER_S / PRODUCERS)]
    command = [sys.executable, "-m", "bench._chaos_produce", *asked]
    return Prey("producer", number, command, log=folder / f"producer-{number}.log", cwd=ROOT)


def consumer(folder: Path, address: str, number: int) -> Prey:
    command = [*AFTER, sys.executable, "-m", "bench._chaos_consume", address, str(folder / "effects.db")]
    return Prey("consumer", number, command, log=folder / f"consumer-{number}.log", cwd=ROOT)


def rekeyer(folder: Path, project: Path, number: int) -> Prey:
    command = [*AFTER, *HEADRACE, "--project", str(project), "streams", "run"]
    return Prey("rekeyer", number, command, log=folder / f"rekeyer-{number}.log", cwd=ROOT)


def wait_ready(owners: Sequence[Prey]) -> None:
    """Raises: RuntimeError."""
    deadline = time.monotonic() + READY_S
    for one in owners:
        while not is_ready(one):
            if one.status is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{one.name} is not ready: {one.log.read_text(encoding='utf-8')[-2_000:]}")
            time.sleep(0.2)


def is_ready(one: Prey) -> bool:
    try:
        return get(one.port, "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


# --- meanwhile ---


def chase(
    folder: Path, cluster: KafkaCluster, prey: Mapping[str, Sequence[Prey]], pace: Pace, book: Book, minutes: float
) -> Mapping[str, int]:
    """Load, and acts for so long, once everything is warm: a broker that has just started is five to twenty times
    slower. What was answered, by status and code. Raises: RuntimeError where the load failed."""
    ports = [str(one.port) for one in prey["owner"]]
    command = [sys.executable, "-m", "bench._chaos_load", str(folder / "answers.jsonl")]
    command += [f"/v1/decisions/{DECISION}", str(DECISIONS_PER_S), str(WARM_S + minutes * 60), *ports]
    load = subprocess.Popen(command, cwd=ROOT)
    hunt = Hunt(prey, TURNS, cluster, pace, book)
    try:
        time.sleep(WARM_S)
        hunt.begin()
        load.wait(timeout=minutes * 60)
    except subprocess.TimeoutExpired:
        pass
    finally:
        try:
            hunt.end()
            cluster.mend()
            status = load.wait(timeout=SETTLE_S)
        finally:
            load.kill()
            load.wait()
    if status != 0:
        raise RuntimeError(f"the load ended with status {status}")
    with (folder / "answers.jsonl").open(encoding="utf-8") as file:
        statuses: Mapping[str, int] = json.loads(file.readlines()[-1])["statuses"]
    return statuses


def settle(folder: Path, prey: Mapping[str, Sequence[Prey]], bootstrap: str) -> int:
    """Producers end when all is acknowledged, consumers when all had its effect, re-keyers when all is carried over,
    then owners; how many owners and re-keyers ended as they should. Raises: RuntimeError where a producer does not
    end."""
    for one in prey["producer"]:
        one.ask_to_end()
    for one in prey["producer"]:
        if one.wait(SETTLE_S) != 0:
            raise RuntimeError(f"{one.name} did not end: {one.log.read_text(encoding='utf-8')[-2_000:]}")
    wait_effects(folder)
    for one in prey["consumer"]:
        one.ask_to_end()
        one.wait(SETTLE_S)
    wait_carried(folder / "project")
    stopped = 0
    for one in (*prey["rekeyer"], *prey["owner"]):
        one.ask_to_end()
        stopped += one.wait(SERVED_S) == 0
    return stopped


def wait_effects(folder: Path) -> None:
    """Until effects come no more: none for a while. What is missing then is told by the judge."""
    wanted = sum(1 for _ in acknowledged_of(folder))  # and some more, of what was sent again
    before, since = -1, time.monotonic()
    while time.monotonic() - since < (STILL_S if before >= wanted else SILENT_S):
        connection = sqlite3.connect(folder / "effects.db", timeout=60)
        count = int(connection.execute("SELECT count(*) FROM effects").fetchone()[0])
        connection.close()
        if count != before:
            before, since = count, time.monotonic()
        time.sleep(0.5)


def wait_carried(project: Path) -> None:
    """Until the derived topic is level with its source, or no longer comes nearer to it. What is missing then is told
    by the judge."""
    before, since = -1, time.monotonic()
    with open_project(project) as opened:
        while time.monotonic() - since < SILENT_S:
            lag = sum(line.lag for line in listed(opened.log))
            if not lag:
                return
            if lag != before:
                before, since = lag, time.monotonic()
            time.sleep(0.5)


# --- after ---


def figures_of(found: Found, claims: Sequence[Claim], answers: Sequence[Value], book: Book) -> dict[str, float]:
    counts = found.counts
    brokers = {f"broker_{act}s": book.count(act, "broker") for act in ("kill", "pause")}
    processes = {f"{act}s": book.count(act, "") - book.count(act, "broker") for act in ("kill", "pause")}
    owners = {f"{kind}_{act}s": book.count(act, kind) for kind in ("owner", "rekeyer") for act in ("kill", "pause")}
    named = (
        "events", "decisions", "void_records", "lost", "duplicated", "reordered", "unlike", "miscounted", "given_up",
        "acknowledged", "answers", "effects", "derived", "claims", "events_again", "requests_again", "absent_views",
    )  # fmt: skip
    figures: dict[str, float] = {**processes, **brokers, **owners, **{name: counts[name] for name in named}}
    times = Answers(answers)
    kills = [(float(str(act["at"])), int(str(act["port"]))) for act in book.of("kill", "owner")]
    taken = takeovers(kills, claims, times)
    show(taken)
    if taken:
        figures["takeover_s"] = max(one.seconds for one in taken)
        figures["takeover_p50_s"] = statistics.median(one.seconds for one in taken)
        figures["takeovers"] = len(taken)
    waits: dict[bool, list[float]] = {True: [], False: []}
    for act in book.of("resume", "broker"):
        waits[bool(act["quiet"])].append(times.unanswered(float(str(act["began"])), float(str(act["at"]))))
    for quiet, name in ((True, "broker_unanswered_s"), (False, "broker_unanswered_any_s")):
        if waits[quiet]:
            figures[name] = max(waits[quiet])
    late = sorted(float(str(line["at"])) - float(str(line["due"])) for line in answers)
    if late:
        figures["answered_p50_ms"] = late[len(late) // 2] * 1e3
        figures["answered_p99_s"] = late[int(len(late) * 0.99)]
    return figures


def show(taken: Sequence[Takeover]) -> None:
    for one in taken:
        print(
            f"takeover of partition {one.partition} from :{one.port} at {one.at:.1f}: {one.seconds:.2f} s", flush=True
        )


def replayed(project: Path, found: Found) -> dict[str, float]:
    """Every decision once more at its recorded cuts, and the chain of records."""
    with open_project(project) as opened:
        report = opened.replay_decisions(DECISION)
        chain = verify_decisions(opened, DECISION)
    for difference in report.differences:
        found.told.append(f"differing: {difference}")
    if report.compared != found.counts["decisions"]:
        found.violation("unlike", f"{report.compared} decisions were recomputed, there are {found.counts['decisions']}")
    if chain.broken:
        found.violation("unlike", f"the chain of records: {chain.broken} broken, as {chain.places[:3]}")
    return {"replayed": report.compared, "differing_values": report.mismatched, "links_broken": chain.broken}


def logged(prey: Mapping[str, Sequence[Prey]], found: Found) -> None:
    """What the processes said of fencing, and how many lines of warnings and errors, into the counts."""
    for kind, of in prey.items():
        for one in of:
            for line in one.log.read_text(encoding="utf-8", errors="replace").splitlines():
                fenced = "HR-0344" in line
                found.counts["fenced"] += fenced
                found.counts["rekeyers_fenced"] += fenced and kind == "rekeyer"
                for level in ("WARNING", "ERROR", "Traceback"):
                    found.counts[f"log {kind} {level}"] += level in line


def told(found: Found, statuses: Mapping[str, int]) -> None:
    for line in found.told:
        print(line, flush=True)
    print(f"HTTP answers: {dict(sorted(statuses.items()))}", flush=True)
    print(f"counted: { {name: count for name, count in sorted(found.counts.items()) if count} }", flush=True)
