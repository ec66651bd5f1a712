"""A seeded, time-boxed share of the mutation runs, so that tests that went blind are seen before the full run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.mutation.targets import TARGETS, Target
from tests.tidy.tree import ROOT

SAMPLE = 24
SECONDS = 45
SLACK = 0.15  # two deviations of a share of 0.9 in 24; the full run (scripts/check --mutation) has none


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.path)
def test_a_sample_of_mutants_is_caught(target: Target) -> None:
    command = [sys.executable, "-m", "tests.mutation", target.path, "--quiet"]
    limits = ["--sample", str(SAMPLE), "--seconds", str(SECONDS), "--threshold", str(target.threshold - SLACK)]
    done = subprocess.run([*command, *limits], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
