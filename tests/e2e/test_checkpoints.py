"""Checkpoints that a process beside a server writes: they are there when the server dies, and say what it knew."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from headrace.runtime.project import open_project
from tests.e2e.serving import Serving
from tests.e2e.shop import Commands, make, order
from tests.needs import requires

requires("uvicorn", "httptools", "prometheus_client")

WRITTEN = re.compile(r'^headrace_checkpoints_total\{result="(\w+)"\} ([\d.]+)', re.M)
WAIT_SECONDS_MAX = 60.0
VIEWS = ("activity", "attention")


def until_written(server: Serving, count: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        found = dict(WRITTEN.findall(server.call("GET", "/metrics").body.decode()))
        assert "failed" not in found, server.log()
        if float(found.get("written", 0)) >= count:
            return
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def test_a_server_that_is_killed_leaves_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "shop")
    with open_project(folder) as project:
        project.apply()
    with Serving(folder, "--checkpoint-seconds", "0.3") as server:
        for number in range(8):
            assert server.decide(order(f"o-{number}", 3)).status == 200
        until_written(server, 1)
        server.kill()
    with open_project(folder) as project:
        assert project.checkpoint(VIEWS, write=False) >= 1
        state = project.state(VIEWS)
        assert state.read("activity", 3, project.now())[0][0] == 8
    assert Commands(folder, capsys).done("checkpoint").startswith("activity, attention: ")


def test_a_place_that_cannot_be_written_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "shop")
    (tmp_path / "file").write_bytes(b"")
    (folder / "headrace.toml").write_text(f'checkpoints = "file://{tmp_path}/file/below"\n', encoding="utf-8")
    with open_project(folder) as project:
        project.apply()
    status, out, err = Commands(folder, capsys)("checkpoint")
    assert (status, out) == (1, "") and "HR-0561" in err
