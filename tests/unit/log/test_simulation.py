"""Seeds of the log under a faulty disk; and that the simulation would see a log, or a disk, that loses what it
promised."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from headrace.testing.faults import Fault, FaultyDisk, _Content
from headrace.testing.simulation import FAULTS_MIN, STEPS, Life, Outcome, simulate


def expect_kept(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert not outcome.violations, outcome
        assert outcome.steps >= STEPS and sum(outcome.faults.values()) >= FAULTS_MIN, outcome


def test_nothing_acknowledged_is_lost() -> None:
    outcomes = [simulate(seed) for seed in range(25)]
    expect_kept(outcomes)
    fired = sum((outcome.faults for outcome in outcomes), Counter[Fault]())
    assert fired[Fault.CUT] > 25 and fired[Fault.SYNC] > 10 and fired[Fault.FULL] > 10
    assert sum(outcome.unknown_there for outcome in outcomes) and sum(outcome.unknown_absent for outcome in outcomes)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_more_seeds() -> None:
    expect_kept([simulate(seed) for seed in range(1_000, 1_200)])


def test_a_seed_is_the_same_each_time() -> None:
    first, again = simulate(3), simulate(3)
    assert first == again


class LyingDisk(FaultyDisk):
    """Says that it has synced, and has not."""

    def synced(self, content: _Content, *, failed: bool) -> None:
        content.named = True


def test_a_disk_that_lies_is_found(tmp_path: Path) -> None:
    found = 0
    for seed in range(3):
        disk = LyingDisk(f"test-lying-{seed}", random.Random(seed))
        outcome = Life(seed, tmp_path / str(seed), disk).run()
        found += outcome.lost + len(outcome.others) > 0
    assert found == 3


def test_a_torn_write_keeps_some_sectors(tmp_path: Path) -> None:
    kept = set()
    for seed in range(20):
        disk = FaultyDisk(f"test-torn-{seed}", random.Random(seed))
        content = _Content(bytearray(4096), [(0, b"x" * 4096)], True)
        disk.synced(content, failed=True)
        kept.add(content.durable.count(b"x") // 512)
        assert content.durable.count(b"x") % 512 == 0 and not content.pending
        disk.unregister()
    assert {0, 8} < kept, "none, all, and something in between"
