"""The handbook's example, for tests that use its parts: `example("run")` is examples/handbook/run.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "handbook"


def example(name: str) -> ModuleType:
    """One of its files as a module."""
    spec = importlib.util.spec_from_file_location(f"handbook_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
