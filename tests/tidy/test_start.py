"""Start: importing is light and does nothing. Times are a fresh process's processor time, whatever the load."""

from __future__ import annotations

import importlib.util
import resource
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT, expect_none, modules

IMPORT_SECONDS_MAX = 0.25
HELP_SECONDS_MAX = 0.3
RUNS = 5
SLACK = 2.0  # what a shared, slow or cold machine may take more than the one the budgets were set on

# Neither is needed to say what headrace is; each would cost the whole budget.
HEAVY = ("numba", "pyarrow", "numpy", "pandas", "sklearn", "xgboost", "matplotlib", "asyncio")

# Compiled modules decorate when they are imported, and numba looks for its cache then: that is theirs, and comes before
# the traps. Nothing else may.
KERNEL = "headrace.core.kernel."

# Runs in a process of its own: every module imported, each with traps for files opened for writing, changes of the
# file system, sockets, processes, threads, and reads of the environment. What others do when they are imported first is
# theirs, so they come before the traps.
TRAPS = """
    import importlib, os, sys, threading, traceback
    sys.dont_write_bytecode = True
    names, libraries = sys.argv[1].split(","), sys.argv[2].split(",")
    for library in libraries:
        importlib.import_module(library)
    seen, armed, current = [], True, ""
    STANDARD = os.path.dirname(os.__file__)

    def caught(what):
        global armed
        if armed:
            armed = False
            frames = [f for f in traceback.extract_stack() if "headrace" in f.filename]
            place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
            seen.append(f"importing {current} {what} at {place}")
            armed = True

    def audit(event, args):
        if event == "open":
            path, mode, flags = args
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags and flags & (os.O_WRONLY | os.O_RDWR)):
                caught(f"opens {path!r} for writing")
        elif event.split(".")[0] in ("socket", "subprocess", "shutil", "tempfile", "sqlite3", "webbrowser"):
            caught(f"does {event}")
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.system", "os.fork", "os.exec", "os.putenv",
                       "pickle.find_class"):
            caught(f"does {event}")

    class Environment(type(os.environ)):
        def __getitem__(self, key):
            for frame in reversed(traceback.extract_stack()[:-1]):
                # A library that is imported late reads for itself; a compiled one has no frame but the import's.
                if "site-packages" in frame.filename or "importlib" in frame.filename:
                    break
                if not frame.filename.startswith((STANDARD, "<frozen")):
                    caught(f"reads ${key}")
                    break
            return super().__getitem__(key)

    def start(thread):
        caught(f"starts the thread {thread.name}")

    threading.Thread.start = start
    sys.addaudithook(audit)
    os.environ.__class__ = Environment
    for current in names:
        try:
            importlib.import_module(current)
        except ModuleNotFoundError as error:
            if error.name.split(".")[0] == "headrace":
                raise
    armed = False
    print("\\n".join(seen))
"""


def processor_seconds(*command: str) -> float:
    """Median over runs of what the process and its children took, user and system."""
    taken = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.fail(done.stderr, pytrace=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken)


def trapped(names: list[str], libraries: list[str], *, folder: Path = ROOT) -> list[str]:
    """What importing the modules does beside importing, in a process that runs in the folder."""
    command = [sys.executable, "-c", textwrap.dedent(TRAPS), ",".join(names), ",".join(libraries)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(done.stderr, pytrace=False)
    return [line for line in done.stdout.splitlines() if line]


def test_importing_headrace_is_fast() -> None:
    taken = processor_seconds(sys.executable, "-c", "import headrace")
    assert taken <= IMPORT_SECONDS_MAX * SLACK, f"{taken:.3f} s of {IMPORT_SECONDS_MAX} s"


def test_importing_headrace_brings_no_heavy_library() -> None:
    code = f"import headrace, sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_command_line_helps_fast(arguments: list[str]) -> None:
    taken = processor_seconds(sys.executable, "-m", "headrace.cli.main", *arguments)
    assert taken <= HELP_SECONDS_MAX * SLACK, f"{taken:.3f} s of {HELP_SECONDS_MAX} s"


def test_importing_does_nothing_else() -> None:
    every = [module.name for module in modules("src/headrace/")]
    kernel = [name for name in every if name.startswith(KERNEL)]
    known = (
        "numpy",
        "pyarrow",
        "pyarrow.parquet",
        "pyarrow.csv",
        "apsw",
        "click",
        "rich.console",
        "msgspec",
        "asyncio",
    )
    extras = ("sklearn", "xgboost", "pandas", "matplotlib", "hypothesis")
    libraries = [name for name in (*known, *extras) if importlib.util.find_spec(name.partition(".")[0])]
    expect_none(trapped([name for name in every if name not in kernel], libraries + kernel))


@pytest.mark.parametrize(
    "body",
    [
        "open('made', 'w')",
        "import socket\nsocket.socket()",
        "import os\nos.environ.get('HOME')",
        "import os\nos.getenv('HOME')",
        "import pathlib\npathlib.Path('made').mkdir()",
        "import subprocess\nsubprocess.run(['true'])",
        "import threading\nthreading.Thread(target=int).start()",
    ],
)
def test_a_busy_import_is_found(body: str, tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(body)
    assert trapped(["busy"], ["socket", "subprocess", "pathlib"], folder=tmp_path)


def test_an_idle_import_passes() -> None:
    assert trapped(["json.tool"], ["json", "argparse"]) == []
