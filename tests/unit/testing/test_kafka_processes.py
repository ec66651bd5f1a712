"""Nodes' processes: started, found, ended, never left behind. Small Python processes carry a node's command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.core.times import ZERO, Duration
from headrace.testing.kafka import processes
from headrace.testing.kafka.define import KafkaClusterError
from headrace.testing.kafka.plan import MARK

SLEEPS = "import time; print('begun', flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)"
GRACE = Duration.parse("10s")


def command(folder: Path, code: str = SLEEPS) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, f"{MARK}{folder}", "kafka.Kafka", f"{folder}/server.properties"]


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def started(folder: Path, code: str = SLEEPS, *, leash: bool = False) -> subprocess.Popen[str]:
    launcher = processes.start(command(folder, code), folder=folder, log=folder / "log", leash=leash)
    wait(lambda: "begun" in (folder / "log").read_text())
    return launcher


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path.resolve() / "node-1"
    place.mkdir()
    yield place
    processes.end([place], grace=ZERO)


def test_a_node_is_found_from_the_moment_it_is_started(folder: Path) -> None:
    assert processes.find(folder) is None
    launcher = processes.start(command(folder), folder=folder, log=folder / "log", leash=False)
    found = processes.find(folder)
    assert found is not None and not found.paused
    assert launcher.returncode == 0
    assert processes.found_under(folder.parent) == {folder: found}
    assert processes.found_under(folder.parent / "node-10") == {}


def test_a_node_has_a_group_of_its_own(folder: Path) -> None:
    started(folder)
    found = processes.find(folder)
    assert found is not None
    assert os.getpgid(found.pid) == found.pid != os.getpgid(0)
    assert Path(f"/proc/{found.pid}/cwd").resolve() == folder


def test_a_paused_node_is_seen_and_goes_on(folder: Path) -> None:
    started(folder)

    def paused() -> bool:
        found = processes.find(folder)
        return found is not None and found.paused

    assert processes.send(folder, signal.SIGSTOP)
    wait(paused)
    assert processes.send(folder, signal.SIGCONT)
    wait(lambda: not paused())


def test_a_node_is_ended_in_order(folder: Path) -> None:
    started(folder)
    assert processes.end([folder], grace=GRACE) == []
    assert processes.find(folder) is None
    assert processes.end([folder], grace=GRACE) == []
    assert not processes.send(folder, signal.SIGTERM)


def test_one_that_does_not_end_is_killed(folder: Path) -> None:
    started(folder, DEAF)
    assert processes.end([folder], grace=Duration.parse("100ms")) == [folder]
    assert processes.find(folder) is None


def test_a_paused_one_is_killed_without_waiting(folder: Path) -> None:
    started(folder)
    processes.send(folder, signal.SIGSTOP)
    begun = time.monotonic()
    assert processes.end([folder], grace=Duration.parse("1m")) == [folder]
    assert time.monotonic() - begun < 20


def test_without_grace_it_is_killed(folder: Path) -> None:
    started(folder)
    assert processes.end([folder], grace=ZERO) == [folder]


def test_another_process_with_the_same_folder_in_its_words_is_left_alone(folder: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", SLEEPS, f"{MARK}{folder}"], stdout=subprocess.DEVNULL)
    try:
        assert processes.find(folder) is None
        assert processes.end([folder], grace=GRACE) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("leash", [True, False])
@pytest.mark.parametrize(
    ("program", "log", "why"),
    [
        ("/nothing/java", "log", "/nothing/java: No such file or directory"),
        (sys.executable, "no/log", "no/log: No such file or directory"),
    ],
)
def test_what_cannot_be_started_is_an_error(folder: Path, leash: bool, program: str, log: str, why: str) -> None:
    with pytest.raises(KafkaClusterError) as caught:
        processes.start([program, *command(folder)[1:]], folder=folder, log=folder / log, leash=leash)
    assert caught.value.code == "HR-0915"
    assert why in caught.value.detail
    assert processes.find(folder) is None


def test_on_a_leash_the_launcher_ends_with_its_node_and_its_status(folder: Path) -> None:
    launcher = started(folder, "print('begun', flush=True); raise SystemExit(7)", leash=True)
    assert launcher.wait(timeout=20) == 7


def test_a_node_on_a_leash_dies_with_its_launcher(folder: Path) -> None:
    launcher = started(folder, leash=True)
    launcher.kill()
    launcher.wait()
    wait(lambda: processes.find(folder) is None)


def test_a_node_on_a_leash_outlives_the_thread_that_started_it(folder: Path) -> None:
    launchers: list[subprocess.Popen[str]] = []
    thread = threading.Thread(target=lambda: launchers.append(started(folder, leash=True)))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert processes.find(folder) is not None
    processes.end([folder], grace=ZERO)
    launchers[0].wait()


STARTER = """
    import sys, time
    from pathlib import Path
    from headrace.testing.kafka import processes
    from tests.unit.testing.test_kafka_processes import command
    folder = Path(sys.argv[1])
    processes.start(command(folder), folder=folder, log=folder / "log", leash=sys.argv[2] == "leash")
    print("started", flush=True)
    {then}
"""
WAITS = "time.sleep(60)"
# A child that lives on holds all descriptors: what waits for the end of a pipe would wait for it too.
FORKS = "import os; os.fork() or (time.sleep(3), os._exit(0)); time.sleep(60)"


@pytest.mark.parametrize(("mode", "then"), [("leash", WAITS), ("leash", FORKS), ("detach", WAITS)])
def test_a_node_ends_with_a_killed_starter_where_it_is_on_a_leash(folder: Path, mode: str, then: str) -> None:
    code = textwrap.dedent(STARTER).format(then=then)
    starter = subprocess.Popen([sys.executable, "-c", code, str(folder), mode], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    with starter.stdout:
        assert starter.stdout.readline() == "started\n"
        assert processes.find(folder) is not None
        starter.kill()
        starter.wait()
    if mode == "leash":
        wait(lambda: processes.find(folder) is None)
    else:
        time.sleep(0.3)
        assert processes.find(folder) is not None
