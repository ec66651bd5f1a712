"""What is mutated: every plan.py, the tests that must notice, and the share of mutants that they must catch. Pure."""

from __future__ import annotations

from dataclasses import dataclass

THRESHOLD = 0.90  # DESIGN: automatic mutation of a plan.py is caught to at least 90 %, every guard that raises to 100 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """path: the file to mutate. tests: what pytest runs for each mutant; it must be fast."""

    path: str
    tests: tuple[str, ...]
    threshold: float = THRESHOLD


TARGETS = (
    Target(path="src/headrace/testing/kafka/plan.py", tests=("tests/unit/testing/test_kafka_plan.py",)),
    Target(path="src/headrace/catalog/plan.py", tests=("tests/unit/catalog/test_plan.py",)),
    Target(path="src/headrace/log/plan.py", tests=("tests/unit/log/test_plan.py", "tests/unit/log/test_judge.py")),
    Target(path="src/headrace/features/plan.py", tests=("tests/unit/features/test_plan.py",)),
    Target(path="src/headrace/sdk/plan.py", tests=("tests/unit/sdk/test_plan.py",)),
    Target(path="src/headrace/stream/plan.py", tests=("tests/unit/stream/test_plan.py",)),
    Target(path="src/headrace/schemas/plan.py", tests=("tests/unit/schemas/test_plan.py",)),
    Target(
        path="src/headrace/decisions/plan.py",
        tests=tuple(f"tests/unit/decisions/{name}.py" for name in ("test_plan", "test_arms", "test_reasons")),
    ),
)
