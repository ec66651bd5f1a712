"""Serving and writing at once: decisions in one process, import, apply and produce in others; and the server killed.

Nothing fails, nothing is lost or twice, and every decision recomputes from the log to the bit.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.runtime.project import open_project
from tests.e2e.shop import DEFINITIONS, Commands, instant, lines, make, order, started

# Decides until its stdin closes, one line an answer; ids go on from a number, which is sent first.
SERVER = """
import json, sys, threading, time
import headrace as hr
from tests.e2e.shop import order
role = sys.argv[2]
with hr.open(sys.argv[1], role=role) as project:
    decider = project.decider("checkout")
    print("ready", flush=True)
    first = int(sys.stdin.readline())
    asked = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), asked.set()), daemon=True).start()
    number = first
    while not asked.is_set():
        made = decider.decide(order(f"s{number}", number % 7, amount=f"{number % 90 + 1}.25", weight=number / 7))
        print(json.dumps([made.request_id, made.decision_id, made.outcome.value, made.t]), flush=True)
        number += 1
        time.sleep(0.002)  # two cores serve four more processes
"""
SPENDING = """
spending = hr.FeatureView("spending", entity="customer", source=orders, features=[hr.sum(orders.amount).over("7d")])
"""
Answer = list[object]


@contextmanager
def server(folder: Path, first: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder), "owner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        line = process.stdout.readline()
        assert line == "ready\n", process.stderr.read() if process.stderr else ""
        process.stdin.write(f"{first}\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


def answers(process: subprocess.Popen[str], count: int) -> list[Answer]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def expect_replayed(folder: Path, recorded: int) -> None:
    with open_project(folder) as project:
        report = project.replay_decisions("checkout")
    assert report.differences == ()
    assert (report.compared, report.mismatched, report.unknown) == (recorded, 0, 0)


def test_import_apply_and_produce_work_while_another_process_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "shop")
    shop = Commands(folder, capsys)
    shop.done("apply")
    old = [order(f"old{i}", i % 7, at=instant(days_ago=1 + i / 500), amount=f"{i}.50") for i in range(2_000)]
    history = lines(tmp_path / "history.ndjson", old)
    fresh = [order(f"p{i}", i % 7, amount="5.00", weight=0.1 * i) for i in range(200)]
    seen = lines(tmp_path / "visits.ndjson", [{"customer": i % 7, "at": instant()} for i in range(300)])
    with server(folder, 0) as process:
        told = answers(process, 20)
        # A definitions change while the server goes on with what it has loaded.
        make(folder, DEFINITIONS + SPENDING)
        others = [
            started("--project", folder, "import", "orders", history, "--output", "json"),
            started("--project", folder, "apply", "--yes"),
            started("--project", folder, "produce", "orders", lines(tmp_path / "fresh.ndjson", fresh)),
            started("--project", folder, "produce", "visits", seen),
        ]
        said = [other.communicate(timeout=120) for other in others]
        for other, (_, err) in zip(others, said, strict=True):
            assert other.returncode == 0, err
        assert json.loads(said[0][0])["taken"] == 2_000
        assert said[1][0] == "+ view spending (version 1)\n"
        assert said[2][0] == "accepted 200\n"
        assert said[3][0] == "accepted 300\n"
        # What they wrote is seen: customers became curious. It may have waited until somebody reads what it says.
        while not any(outcome == "review" for _, _, outcome, _ in told) and len(told) < 10_000:
            told += answers(process, 1)
        assert process.stdin is not None
        process.stdin.close()  # it stops deciding, and leaves as it should
        assert process.stdout is not None
        told += [json.loads(line) for line in process.stdout]
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stdin = None
    assert len(told) > 20
    outcomes = Counter(outcome for _, _, outcome, _ in told)
    assert outcomes["approve"] > 0
    assert outcomes["review"] > 0
    expect_replayed(folder, len(told))
    assert json.loads(shop.done("decisions", "replay", "checkout", "--output", "json"))["mismatched"] == 0
    assert "nothing wrong" in shop("doctor")[2]


def test_a_killed_server_keeps_every_answered_decision_once_and_answers_again_the_same(tmp_path: Path) -> None:
    folder = make(tmp_path / "shop")
    with open_project(folder) as project:
        project.apply()
    told: list[Answer] = []
    for life in range(3):
        with server(folder, life * 1_000_000) as process:
            told += answers(process, 25 + 10 * life)
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            told += [json.loads(line) for line in process.stdout.readlines() if line.endswith("\n")]
    with open_project(folder) as project:
        records = list(project.records("checkout"))
        recorded = {record.request_id: record for record in records}
        assert len(recorded) == len(records), "a decision twice"
        assert len(records) - len(told) in range(4), "each kill may leave one that was decided and not yet told"
        for id, decision_id, outcome, t in told:
            held = recorded[str(id)]
            assert [held.decision_id, held.outcome.value, held.t] == [decision_id, outcome, t]
        rows = project.replay("activity", request="orders").select(["order", "customer", "amount", "weight", "at"])
        for row in [rows.slice(0, 1), rows.slice(rows.num_rows - 1, 1)]:
            (request,) = row.to_pylist()
            request = {**request, "amount": str(request["amount"]), "at": request["at"].isoformat()}
            again = project.decide("checkout", request)
            held = recorded[request["order"]]
            assert again.repeated
            assert (again.decision_id, again.outcome, again.t) == (held.decision_id, held.outcome, held.t)
        assert len(list(project.records("checkout"))) == len(records)
    expect_replayed(folder, len(records))
