"""The lender's example, loaded from its folder for tests: its modules, and the tables of a small world."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "bnpl"


def load(name: str) -> ModuleType:
    """One of the example's modules, as the example itself imports it. Its names are told apart by where they are."""
    if str(EXAMPLE) not in sys.path:
        sys.path.insert(0, str(EXAMPLE))
    known = sys.modules.get(f"bnpl_{name}")
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(f"bnpl_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"bnpl_{name}"] = module
    spec.loader.exec_module(module)
    return module


def whole(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """A column as whole numbers: instants in microseconds, money in cents."""
    column = table.column(name)
    if pa.types.is_decimal(column.type):
        return np.array([int(value.scaleb(2)) for value in column.to_pylist()], np.int64)
    found: npt.NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return found
