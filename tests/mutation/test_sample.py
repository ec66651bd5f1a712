"""A seeded, time-boxed share of the mutation runs, so that tests that went blind are seen before the full run."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.mutation.targets import TARGETS, Target
from tests.tidy.tree import ROOT

SAMPLE = 24
SECONDS = 45
DEVIATIONS = 2.5  # a sample may be unlucky by so much; the full run (scripts/check --mutation) may not


def survivors_max(target: Target, ran: int) -> float:
    """Of so many mutants, how many may survive before luck explains it no longer (a binomial's deviations)."""
    lost = 1 - target.threshold
    return ran * lost + DEVIATIONS * (ran * lost * target.threshold) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.path)
def test_a_sample_of_mutants_is_caught(target: Target) -> None:
    limits = ["--sample", str(SAMPLE), "--seconds", str(SECONDS), "--threshold", "0", "--quiet"]
    command = [sys.executable, "-m", "tests.mutation", target.path, *limits]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr  # 1: a guard survived
    counted = re.search(r": (\d+) of (\d+) mutants killed", done.stdout)
    assert counted is not None, done.stdout
    killed, ran = int(counted[1]), int(counted[2])
    assert ran - killed <= survivors_max(target, ran), done.stdout


def test_a_sample_forgives_bad_luck_and_no_blindness() -> None:
    target = Target(path="a", tests=())
    assert 1 <= survivors_max(target, 4) < 2
    assert 5 <= survivors_max(target, 24) < 7
    assert survivors_max(target, 1_000) < 130
