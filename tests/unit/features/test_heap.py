"""Freed memory is given back to the system."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.features.heap import hand_back

STATUS = Path("/proc/self/status")


def held_mb() -> float:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1e3


@pytest.mark.skipif(not STATUS.exists(), reason=f"no /proc on {sys.platform} to read a process's memory from")
def test_columns_that_were_freed_are_given_back() -> None:
    before = held_mb()
    for _ in range(2):  # the first round teaches the C library that blocks of this size come again
        columns = [np.ones(1 << 20) for _ in range(30)]
        last = columns.pop()  # stands above the others, which therefore stay
        assert held_mb() > before + 200
        del columns
    hand_back()
    assert held_mb() < before + 50
    assert last.sum() == 1 << 20
