"""Layers and purity: what import contracts (pyproject.toml) cannot say, as they see modules, not what they do."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from tests.tidy.tree import Import, Module, expect_none, found, imports, modules, violations, within

SLICES = ("log", "ledger", "schemas", "cdc", "stream", "lake", "batch", "features", "models", "decisions", "fleet")

# What a pure file may not import: sockets, clocks, files, threads, randomness, logging, and what brings them.
IMPURE = (
    "socket", "ssl", "select", "selectors", "asyncio", "http", "urllib", "ftplib", "smtplib", "socketserver",
    "time", "sched", "signal",
    "os", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "mmap", "fcntl", "sqlite3",
    "dbm", "shelve", "pickle", "csv", "zipfile", "tarfile", "gzip", "bz2", "lzma", "subprocess", "ctypes", "getpass",
    "platform", "atexit",
    "threading", "multiprocessing", "concurrent", "queue", "_thread", "contextvars",
    "random", "secrets", "uuid", "logging", "warnings",
    "numpy.random", "pyarrow.fs", "pyarrow.parquet", "pyarrow.csv", "pyarrow.json", "pyarrow.feather", "pyarrow.orc",
    "pyarrow.dataset", "pyarrow.flight",
)  # fmt: skip
PURE_LIBRARIES = ("numpy", "pyarrow")
PURE_PARTS = ("urllib.parse",)  # of what is impure: it takes texts apart
IMPURE_CALLS = ("open", "input", "print", "exec", "eval", "breakpoint")
CLOCK_CALLS = ("now", "utcnow", "today")  # of datetime and date

# Heavy extras that a function may import, with the measured cost in a comment beside the import.
HEAVY = ("sklearn", "xgboost", "lightgbm", "pandas", "matplotlib", "polars", "duckdb", "scipy", "numba", "pyarrow")


def is_pure(module: Module) -> bool:
    """core/ but for the kernel's compiler, every define.py, every plan.py."""
    inside = module.inside
    if inside.startswith("core/kernel/"):
        return False
    return inside.startswith("core/") or inside.endswith(("/define.py", "/plan.py"))


def impure_import(module: Module) -> Iterator[str]:
    if is_pure(module):
        yield from _impure_import(module)


def _impure_import(module: Module) -> Iterator[str]:
    for one in imports(module):
        top = one.name.partition(".")[0]
        foreign = top not in sys.stdlib_module_names and top not in (*PURE_LIBRARIES, "headrace")
        if (within(one.name, *IMPURE) and not within(one.name, *PURE_PARTS)) or foreign:
            yield f"{module.path}:{one.line} imports {one.name}: this file is pure; pass the value in"


def impure_call(module: Module) -> Iterator[str]:
    if is_pure(module):
        yield from _impure_call(module)


def _impure_call(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in IMPURE_CALLS:
                yield f"{module.path}:{node.lineno} calls {name}(): this file is pure"
            case ast.Attribute(value=value, attr=name) if name in CLOCK_CALLS and ast.unparse(value).split(".")[-1] in (
                "datetime",
                "date",
                "dt",
            ):
                yield f"{module.path}:{node.lineno} reads the clock by {name}(): pass an Instant in"
            case ast.Attribute(value=value) if ast.unparse(value).split(".")[-2:] in (
                ["np", "random"],
                ["numpy", "random"],
            ):
                yield f"{module.path}:{node.lineno} draws randomness: pass the values in"


def impurely_borrowed(sources: tuple[Module, ...]) -> Iterator[str]:
    """What a pure file imports of its own slice is pure too, and what that imports: a split moves no clock out of
    sight. The kernel, which compiles, and ports, which only say what others do, end the walk."""
    known = {module.name: module for module in sources}
    waiting = [(module, module.path) for module in sources if is_pure(module)]
    seen = {module.path for module, _ in waiting}
    while waiting:
        module, of = waiting.pop()
        for one in imports(module):
            target = known.get(one.name) or known.get(one.name.rpartition(".")[0])
            if (
                one.typing
                or target is None
                or target.path in seen
                or target.inside.endswith(("/port.py", "__init__.py"))
            ):
                continue
            if target.inside.startswith("core/kernel/"):
                continue
            seen.add(target.path)
            waiting.append((target, of))
            for one_more in (*_impure_import(target), *_impure_call(target)):
                yield f"{one_more} ({of} imports it)"


def misplaced_library(module: Module) -> Iterator[str]:
    inside = module.inside
    for one in imports(module):
        if within(one.name, "numba", "llvmlite") and not inside.startswith("core/kernel/"):
            yield f"{module.path}:{one.line} imports {one.name}: only core/kernel compiles; call it"
        if within(one.name, "apsw") and not inside.startswith(("log/sqlite", "clients/", "testing/")):
            yield f"{module.path}:{one.line} imports apsw: go through the log's port"
        if within(one.name, "sqlite3"):
            yield f"{module.path}:{one.line} imports sqlite3: its WAL can corrupt; apsw, in log/sqlite*.py"
        # The one pickle a process reads is numba's own cache, which needs no import of ours.
        if within(one.name, "pickle", "cloudpickle", "joblib", "shelve", "marshal"):
            yield f"{module.path}:{one.line} imports {one.name}: no pickle; write a versioned format of arrays"


def foreign_inside(module: Module) -> Iterator[str]:
    """A slice sees another only through its define and port. Wiring, surfaces and tests see more."""
    own = module.inside.partition("/")[0]
    if own not in (*SLICES, "catalog"):
        return
    for one in imports(module):
        parts = one.name.split(".")
        if parts[0] != "headrace" or len(parts) < 2 or parts[1] == own or parts[1] not in (*SLICES, "catalog"):
            continue
        if len(parts) < 3 or parts[2] not in ("define", "port"):
            yield f"{module.path}:{one.line} imports {one.name}: of a slice only define and port; wire it in runtime"


def deferred_import(module: Module) -> Iterator[str]:
    inside = module.inside
    if inside == "plugs.py" or inside.startswith("core/kernel/"):
        return
    for one in imports(module):
        if one.function and not one.typing and not _deferred_for_cost(module, one):
            yield (
                f"{module.path}:{one.line} imports {one.name} in a function: at the top, through plugs.py, "
                "or with its measured cost in a comment ('# 320 ms')"
            )


def _deferred_for_cost(module: Module, one: Import) -> bool:
    """Kernel or heavy library, or any module in a command of the CLI, its cost said on the line or the two above."""
    worth = within(one.name, *HEAVY, "headrace.core.kernel") or module.inside.startswith("cli/")
    beside = "\n".join(module.lines[max(0, one.line - 3) : one.line])
    return worth and re.search(r"#.*\d ?m?s\b", beside) is not None


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module, each sorted (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    knots: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(knot := stack[at:]) > 1:
                knots.append(sorted(knot))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return knots


def import_graph(sources: tuple[Module, ...]) -> dict[str, set[str]]:
    """Who imports whom, imports in functions included: a cycle hidden there is one all the same."""
    known = {module.name for module in sources}
    graph: dict[str, set[str]] = {name: set() for name in known}
    for module in sources:
        for one in imports(module):
            if one.typing:
                continue
            target = one.name if one.name in known else one.name.rpartition(".")[0]
            if target in known and target != module.name:
                graph[module.name].add(target)
    return graph


def test_pure_files_import_nothing_impure() -> None:
    expect_none(violations(impure_import))


def test_pure_files_call_nothing_impure() -> None:
    expect_none(violations(impure_call))


def test_what_pure_files_import_is_pure() -> None:
    expect_none(impurely_borrowed(modules("src/headrace/")))


def test_libraries_stay_in_their_places() -> None:
    expect_none(violations(misplaced_library))


def test_slices_see_each_other_through_define_and_port() -> None:
    expect_none(violations(foreign_inside))


def test_imports_are_at_the_top() -> None:
    expect_none(violations(deferred_import))


def test_there_is_no_import_cycle() -> None:
    expect_none(" > ".join(knot) for knot in cycles(import_graph(modules("src/headrace/"))))


def test_an_impure_import_is_found() -> None:
    for text in (
        "import time",
        "from socket import socket",
        "def f():\n    import logging",
        "import numpy.random",
        "import click",
    ):
        assert found(impure_import, text), text
        assert found(impure_import, text, path="src/headrace/core/times.py"), text
        assert found(impure_import, text, path="src/headrace/log/run.py") == [], text
    assert found(impure_import, "import datetime\nimport numpy as np\nfrom headrace.core import times") == []


def test_an_impure_call_is_found() -> None:
    for text in ("open('x')", "dt.datetime.now()", "datetime.utcnow()", "date.today()", "np.random.default_rng(1)"):
        assert found(impure_call, text), text
    assert found(impure_call, "log.open('x')\ndt.datetime.fromisoformat('x')") == []


def test_an_impure_import_behind_a_pure_file_is_found() -> None:
    define = Module.of("src/headrace/log/define.py", "from headrace.log.rows import f")
    rows = Module.of("src/headrace/log/rows.py", "from headrace.log.clock import f")
    clock = Module.of("src/headrace/log/clock.py", "import time")
    assert list(impurely_borrowed((define, rows, clock)))
    assert not list(impurely_borrowed((rows, clock)))
    assert not list(impurely_borrowed((define, rows)))


def test_a_misplaced_library_is_found() -> None:
    assert found(misplaced_library, "import apsw", path="src/headrace/features/run.py")
    assert found(misplaced_library, "import apsw", path="src/headrace/log/sqlite_owner.py") == []
    assert found(misplaced_library, "from numba import njit", path="src/headrace/models/score.py")
    assert found(misplaced_library, "from numba import njit", path="src/headrace/core/kernel/words.py") == []
    assert found(misplaced_library, "import sqlite3", path="src/headrace/log/sqlite.py")
    assert found(misplaced_library, "import pickle", path="src/headrace/models/run.py")


def test_a_look_inside_another_slice_is_found() -> None:
    path = "src/headrace/features/run.py"
    assert found(foreign_inside, "from headrace.log.sqlite import SqliteLog", path=path)
    assert found(foreign_inside, "from headrace import log", path=path)
    assert found(foreign_inside, "from headrace.log.port import Log\nfrom headrace.log import define", path=path) == []
    assert found(foreign_inside, "from headrace.features.replay import replay", path=path) == []
    assert found(foreign_inside, "from headrace.log.sqlite import SqliteLog", path="src/headrace/runtime.py") == []


def test_a_deferred_import_is_found() -> None:
    assert found(deferred_import, "def f():\n    import json")
    assert found(deferred_import, "def f():\n    import xgboost")
    assert found(deferred_import, "def f():\n    # 320 ms\n    import xgboost") == []
    assert found(deferred_import, "def f():\n    import json  # 320 ms")
    assert found(deferred_import, "def f():\n    import json", path="src/headrace/plugs.py") == []
    assert found(deferred_import, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import json") == []


def test_a_cycle_is_found_even_through_a_function() -> None:
    one = Module.of("src/headrace/a.py", "from headrace.b import f")
    two = Module.of("src/headrace/b.py", "def f():\n    from headrace import a")
    three = Module.of("src/headrace/c.py", "from headrace import a")
    assert cycles(import_graph((one, two, three))) == [["headrace.a", "headrace.b"]]
    assert cycles(import_graph((one, three))) == []
