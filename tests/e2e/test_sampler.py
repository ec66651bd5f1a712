"""The sampler beside a server: what it counts, what it finds, what it does not stand in the way of."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.core.points import Partition
from headrace.decisions import record as records
from headrace.log.port import Append
from headrace.runtime.project import open_project
from tests.e2e.serving import Serving
from tests.e2e.shop import DEFINITIONS, Commands, make, order
from tests.needs import requires

requires("uvicorn", "httptools", "prometheus_client")

ALL = ("--sample", "1", "--sample-seconds", "0.2")
LOOKED = re.compile(r'headrace_sampler_records_total\{decision="checkout",result="(\w+)"\} ([\d.]+)')
WAIT_SECONDS_MAX = 60.0  # a look of the test's 20 ms rests for a second; a process of Python's starts in two


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = make(tmp_path / "shop")
    with open_project(place) as project:
        project.apply()
    yield place


def counted(server: Serving) -> dict[str, int]:
    text = server.call("GET", "/metrics").body.decode()
    return {result: int(float(count)) for result, count in LOOKED.findall(text)}


def until(server: Serving, said: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """What is counted as soon as it is so."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        found = counted(server)
        if said(found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{counted(server)} after {WAIT_SECONDS_MAX} s\n{server.log()}")


def decide(server: Serving, *numbers: int) -> None:
    for number in numbers:
        answer = server.decide(order(f"o-{number}", number % 5, amount=f"{number + 1}.50"))
        assert answer.status == 200


def forge(folder: Path) -> str:
    """A record once more, with another outcome, as another program would append it; the decision's id."""
    with open_project(folder, role="remote") as project:
        true = next(iter(project.records("checkout")))
        row = list(records.to_row(true))
        row[records.record_topic(project.definitions.decision("checkout")).schema.names.index("outcome")] = "decline"
        partition = Partition("headrace.decisions.checkout", 1, true.request.index)
        project.log.append([Append(partition=partition, rows=(tuple(row),))])
    return true.decision_id


def test_every_decision_is_compared_once_and_a_wrong_record_is_an_error(folder: Path) -> None:
    with Serving(folder, *ALL) as server:
        until(server, lambda found: found == dict.fromkeys(found, 0) and bool(found))
        decide(server, *range(30))
        found = until(server, lambda found: found["compared"] >= 30)
        assert found == {"compared": 30, "mismatched": 0, "erased": 0, "unknown": 0, "skipped": 0}
        text = server.call("GET", "/metrics").body.decode()
        assert 'headrace_sampler_behind{decision="checkout"} 0.0' in text
        assert (
            abs(float(re.findall(r"^headrace_sampler_last_look_timestamp_seconds (\S+)", text, re.M)[0]) - time.time())
            < 30
        )
        assert "does not recompute" not in server.log()
        id = forge(folder)
        found = until(server, lambda found: found["compared"] >= 31)
        assert (found["compared"], found["mismatched"]) == (31, 1)
        (line,) = [json.loads(line) for line in server.log().splitlines() if "does not recompute" in line]
        assert (line["level"], line["decision_id"], line["what"]) == ("ERROR", id, "outcome")
        assert (line["recorded"], line["recomputed"]) == ("decline", "approve")
        decide(server, 99)
        assert until(server, lambda found: found["compared"] >= 32)["mismatched"] == 1, "once, not at every look"
        assert server.stop() == 0


@pytest.mark.slow
def test_what_was_decided_before_the_end_is_compared_by_the_next_server(folder: Path) -> None:
    rare = ("--sample", "1", "--sample-seconds", "3600")
    with Serving(folder, *rare) as server:
        until(server, bool)
        decide(server, *range(5))
        server.kill()
    with Serving(folder, *rare) as server:
        assert until(server, bool)["compared"] == 5
        assert server.stop() == 0


@pytest.mark.slow
def test_versions_that_follow_one_another_are_each_compared_with_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Serving(folder, *ALL) as server:
        until(server, bool)
        decide(server, *range(10))
        versions = set()
        for turn in range(2):
            make(folder, DEFINITIONS.replace("count_1d > 1000", f"count_1d > {turn}"))
            Commands(folder, capsys).done("apply", "--yes")
            time.sleep(2.0)
            for number in range(10):
                answer = server.decide(order(f"t-{turn}-{number}", number % 5))
                versions.add(json.dumps(answer.json["versions"]))
        assert len(versions) == 2
        found = until(server, lambda found: found["compared"] + found["unknown"] >= 30)
        assert (found["compared"], found["mismatched"], found["unknown"]) == (30, 0, 0), server.log()
        assert server.stop() == 0


def sampler_of(server: Serving) -> int:
    """The process id of its sampler."""
    (child,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split() or [
        each
        for task in Path(f"/proc/{server.process.pid}/task").iterdir()
        for each in (task / "children").read_text().split()
    ]
    return int(child)


@pytest.mark.slow
def test_it_ends_with_its_server_however_that_ends(folder: Path) -> None:
    for end in (Serving.stop, Serving.kill):
        with Serving(folder, *ALL) as server:
            until(server, bool)
            child = sampler_of(server)
            assert os.getpriority(os.PRIO_PROCESS, child) == 19
            end(server)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not Path(f"/proc/{child}").exists()


def test_a_sampler_that_is_killed_is_said_and_the_server_goes_on(folder: Path) -> None:
    with Serving(folder, *ALL) as server:
        until(server, bool)
        os.kill(sampler_of(server), signal.SIGKILL)
        decide(server, 1)
        deadline = time.monotonic() + 20
        while "the sampler ended with status -9" not in server.log() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "the sampler ended with status -9" in server.log()
        assert server.call("GET", "/readyz").status == 200
        assert server.stop() == 0, "it does not wait for the next one"


def test_none_is_started_where_none_is_wanted(folder: Path) -> None:
    with Serving(folder, "--sample", "0") as server:
        decide(server, 1)
        assert b"headrace_sampler" not in server.call("GET", "/metrics").body
        assert not any(
            (task / "children").read_text().split() for task in Path(f"/proc/{server.process.pid}/task").iterdir()
        )
        assert server.stop() == 0
