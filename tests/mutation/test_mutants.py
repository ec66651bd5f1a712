"""The mutation runner itself: which mutants there are, and that a survivor is told from a killed one."""

from __future__ import annotations

import ast
import subprocess
import sys

from tests.mutation.mutants import mutants
from tests.mutation.targets import TARGETS
from tests.tidy.tree import ROOT, expect_none, files


def changes(source: str) -> set[tuple[str, str]]:
    """(kind, the mutated source) of every mutant."""
    return {(mutant.kind, ast.unparse(mutant.tree)) for mutant in mutants(source)}


def test_comparisons_flip_at_their_boundary() -> None:
    assert changes("a < b") == {("comparison", "a <= b")}
    assert changes("a < b != c") == {("comparison", "a <= b != c"), ("comparison", "a < b == c")}


def test_arithmetic_is_swapped_and_text_is_not() -> None:
    assert changes("a + b") == {("arithmetic", "a - b")}
    assert changes("a -= b") == {("arithmetic", "a += b")}
    assert changes("a + f'{b}'") == set()
    assert changes("Rows = Batch | Table") == set()
    assert changes("READ | WRITE") == {("arithmetic", "READ & WRITE")}


def test_constants_move_by_one() -> None:
    assert changes("a = 7") == {("constant", "a = 8"), ("constant", "a = 6")}
    assert changes("a = True") == {("constant", "a = False")}
    assert changes("a = 'text'") == set()


def test_conditions_are_negated() -> None:
    assert ("boolean", "a or b") in changes("a and b")
    assert ("boolean", "a") in changes("not a")
    assert ("boolean", "b if not a else c") in changes("b if a else c")


def test_returns_and_statements_are_removed() -> None:
    assert changes("def f():\n    return a") == {("return", "def f():\n    return None")}
    assert changes("a.append(b)") == {("statement", "pass")}


def test_a_check_that_raises_is_a_guard() -> None:
    guard = "if a < b:\n    raise Error(1 + 2)"
    assert changes(guard) == {
        ("guard", "if a < b:\n    pass"),
        ("comparison", "if a <= b:\n    raise Error(1 + 2)"),
    }
    assert ("early exit", "for a in b:\n    if a:\n        pass") in changes("for a in b:\n    if a:\n        continue")


def test_what_no_test_can_tell_is_left_alone() -> None:
    for source in (
        'def f():\n    """Text."""',
        "def f(a: Literal[1]) -> Literal[2]:\n    pass",
        "@dataclass(frozen=True)\nclass A:\n    pass",
        "assert a < 1",
        "assert_never(a)",
        "a = zip(b, c, strict=True)",
        "a = 7  # mutation: any capacity above zero gives the same result",
        "if TYPE_CHECKING:\n    a = 1",
    ):
        assert changes(source) == set(), source


def test_every_plan_is_a_target() -> None:
    known = {target.path for target in TARGETS}
    plans = {path for path in files() if path.startswith("src/headrace/") and path.endswith("/plan.py")}
    expect_none(f"{path} is no target in tests/mutation/targets.py" for path in sorted(plans - known))
    expect_none(
        f"tests/mutation/targets.py names {path}, which does not exist"
        for target in TARGETS
        for path in (target.path, *target.tests)
        if not (ROOT / path.partition("::")[0]).exists()
    )


def test_a_killed_mutant_is_told_from_a_survivor() -> None:
    """The runner on a module of ours with known tests: what they check is killed, what they do not survives."""
    example = "tests/mutation/example/"
    command = [sys.executable, "-m", "tests.mutation", f"{example}bounded.py", "--tests", f"{example}check_bounded.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    outcomes = {(line.split()[0], line.split()[1], line.split("  ->  ")[-1]) for line in done.stdout.splitlines()[:-1]}
    assert outcomes == {
        ("killed", "comparison", "low >= high"),
        ("killed", "guard", "if low > high: pass"),
        ("killed", "return", "return None"),
        ("survived", "return", "return None"),
        ("survived", "arithmetic", "value - 1"),
        ("survived", "constant", "2"),
        ("survived", "constant", "0"),
    }, done.stdout + done.stderr
    assert done.returncode == 1
