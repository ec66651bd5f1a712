"""Runs the benchmarks in bench/: lists them, or runs one, prints its table and, as the last line, one JSON object.

A benchmark is a module bench/NAME.py (_ for -) with `run(*, quick: bool, peers: bool) -> dict` that returns
{"figures": {...}} and, where it compared, "peers": {...}; one that runs as long as it is told takes `minutes` too. A
figure that was not measured is absent, never 0. What it prints itself goes to stderr. The environment is added here.
`--record` appends the object to bench/results.jsonl. Reads git and /proc; exit status 0 unless the benchmark could not
run.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
RESULTS = BENCH / "results.jsonl"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Runs a benchmark, or lists them.")
    parser.add_argument("name", nargs="?", help="which one; without it they are listed")
    parser.add_argument("--quick", action="store_true", help="a smaller run of the same work, in at most 50 s")
    parser.add_argument("--peers", action="store_true", help="the peers too, in environments of their own")
    parser.add_argument("--minutes", type=float, help="how long, where the benchmark asks for it")
    parser.add_argument("--record", action="store_true", help="append the result to bench/results.jsonl")
    asked = parser.parse_args(arguments)
    known = benchmarks()
    if asked.name is None:
        for name, path in known.items():
            print(f"{name:<20} {summary(path)}")
        return 0
    if asked.name not in known:
        print(f"no benchmark {asked.name!r}; there is: {', '.join(known) or 'none'}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    with contextlib.redirect_stdout(sys.stderr):
        module = importlib.import_module(f"bench.{known[asked.name].stem}")
        asks = {} if asked.minutes is None else {"minutes": asked.minutes}
        measured = module.run(quick=asked.quick, peers=asked.peers, **asks)
    result = result_of(asked.name, measured, quick=asked.quick)
    print(table(result))
    line = json.dumps(result, allow_nan=False)
    if asked.record:
        with RESULTS.open("a") as out:
            out.write(line + "\n")
    print(line)
    return 0


def benchmarks() -> dict[str, Path]:
    """Name -> file, sorted. A module whose name begins with _ serves others."""
    return {path.stem.replace("_", "-"): path for path in sorted(BENCH.glob("*.py")) if not path.stem.startswith("_")}


def summary(path: Path) -> str:
    """The first line of its docstring; nothing is imported."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def result_of(name: str, measured: dict[str, dict[str, float]], *, quick: bool) -> dict[str, object]:
    """The object to print. Raises: ValueError for what a benchmark may not return."""
    unknown = set(measured) - {"figures", "peers"}
    if unknown or not measured.get("figures"):
        raise ValueError(
            f"benchmark {name}: expected figures and perhaps peers, seen {', '.join(sorted(measured)) or 'nothing'}"
        )
    for part, figures in measured.items():
        for figure, value in figures.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"benchmark {name}: {part} {figure} is {value!r}, not a finite number")
    result: dict[str, object] = {"bench": name, "figures": measured["figures"], "peers": measured.get("peers", {})}
    if quick:
        result["quick"] = True
    result["environment"] = environment()
    return result


def environment() -> dict[str, object]:
    return {"commit": commit(), "cpu": cpu(), "cores": cores(), "python": platform.python_version()}


def commit() -> str:
    """The commit, with -dirty where the tree differs from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(result: dict[str, object]) -> str:
    rows = Table("figure", title=f"{result['bench']}{' (quick)' if result.get('quick') else ''}", title_justify="left")
    rows.add_column("value", justify="right")
    for part in ("figures", "peers"):
        figures = result[part]
        assert isinstance(figures, dict)
        for figure, value in figures.items():
            rows.add_row(figure if part == "figures" else f"peer: {figure}", readable(value))
    console = Console(width=100)
    with console.capture() as captured:
        console.print(rows)
    return captured.get().rstrip()


def readable(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
