"""The scripts' own logic: what a benchmark may return and how it is printed, where data is looked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import benchmark, handbook_data
from tests.tidy.tree import ROOT


def test_a_result_has_the_parts_that_are_promised() -> None:
    result = benchmark.result_of("log", {"figures": {"append_rows_per_s": 1.5e6}}, quick=True)
    assert list(result) == ["bench", "figures", "peers", "quick", "environment"]
    assert set(benchmark.environment()) == {"commit", "cpu", "cores", "python"}
    assert "quick" not in benchmark.result_of("log", {"figures": {"a": 1}}, quick=False)


@pytest.mark.parametrize(
    "measured",
    [
        {},
        {"figures": {}},
        {"figures": {"a": 1}, "notes": {}},
        {"figures": {"a": float("nan")}},
        {"figures": {"a": True}},
    ],
)
def test_a_benchmark_that_measured_nothing_is_refused(measured: dict[str, dict[str, float]]) -> None:
    with pytest.raises(ValueError):
        benchmark.result_of("log", measured, quick=False)


def test_a_table_shows_every_figure() -> None:
    result = benchmark.result_of(
        "log", {"figures": {"rows_per_s": 1234567.0, "p99_us": 4.5}, "peers": {"x_s": 2}}, quick=True
    )
    printed = benchmark.table(result)
    assert all(part in printed for part in ("log (quick)", "rows_per_s", "1,234,567", "4.5", "peer: x_s"))


def test_the_benchmarks_are_listed_and_an_unknown_one_is_a_usage_error() -> None:
    command = [sys.executable, "scripts/benchmark.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(benchmark.benchmarks())
    unknown = subprocess.run([*command, "nothing"], cwd=ROOT, capture_output=True, text=True)
    assert unknown.returncode == 2


def test_recorded_results_are_one_object_a_line() -> None:
    if benchmark.RESULTS.exists():
        for line in benchmark.RESULTS.read_text().splitlines():
            assert {"bench", "figures", "environment"} <= set(json.loads(line))


def test_the_named_folder_of_the_data_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path))
    assert next(handbook_data.folders()) == tmp_path
    file = tmp_path / handbook_data.FILE
    file.touch()
    assert handbook_data.find() == file
    monkeypatch.setenv("HEADRACE_DATA", str(file))
    assert handbook_data.find() == file
