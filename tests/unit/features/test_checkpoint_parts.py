"""Checkpoints of parts, beside a log that is not what was read, and with what a writer adds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.core.errors import UsageError
from headrace.core.points import Cut, Partition
from headrace.features import checkpoint
from headrace.features.checkpoint_folder import FolderCheckpoints
from headrace.features.checkpoint_names import CheckpointName
from headrace.features.run import FeatureState
from headrace.log.port import Append, TopicState
from headrace.testing.clocks import ManualClock
from headrace.testing.fakes import MemoryLog
from tests.unit.features.followed import Lender
from tests.unit.features.test_checkpoint import PRINTS, filled, follow, numbers, plans, refused, restored


def test_a_part_s_checkpoint_is_no_other_s(tmp_path: Path) -> None:
    log, state = filled(1, 10)
    older = state.frontier
    checkpoint.write(state, tmp_path, fingerprints=PRINTS, part="p3")
    follow(state, log.lender, [log.draw() for _ in range(5)])
    checkpoint.write(state, tmp_path, fingerprints=PRINTS, part="p30")
    for part, frontier in (("p3", older), ("p30", state.frontier)):
        found = checkpoint.restore(
            plans(log.lender), tmp_path, fingerprints=PRINTS, topics=[log.lender.truths], part=part
        )
        assert found is not None and found.frontier == frontier
    assert checkpoint.restore(plans(log.lender), tmp_path, fingerprints=PRINTS) is None
    with pytest.raises(UsageError, match="HR-0560"):
        checkpoint.write(state, tmp_path, fingerprints=PRINTS, part="p-3")


def test_a_checkpoint_of_another_log_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, state = filled(1, 10)
    checkpoint.write(state, tmp_path, fingerprints=PRINTS, origin="staging")
    assert checkpoint.restore(plans(log.lender), tmp_path, fingerprints=PRINTS, origin="live") is None
    assert "it is of log 'staging', this is 'live'" in refused(caplog, "HR-0550")


def test_a_process_that_slept_does_not_stand_before_what_is_newer(tmp_path: Path) -> None:
    log, state = filled(2, 8)
    slept = filled(2, 8)[1]
    follow(state, log.lender, [log.draw() for _ in range(6)])
    for _ in range(3):
        checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    assert slept.frontier != state.frontier
    checkpoint.write(slept, FolderCheckpoints(tmp_path, shared=True), fingerprints=PRINTS)
    assert restored(log.lender, tmp_path).frontier == state.frontier


class Busy(FolderCheckpoints):
    """Another writes while this process looks: what it is about to read is gone."""

    def __init__(self, folder: Path, happens: Callable[[], None]) -> None:
        super().__init__(folder, shared=True)
        self.happens: Callable[[], None] | None = happens

    def get(self, name: str, file: str) -> bytes:
        if self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return super().get(name, file)


def test_what_others_let_go_while_it_is_read_is_not_missed(tmp_path: Path) -> None:
    log, state = filled(2, 8)
    checkpoint.write(state, tmp_path, fingerprints=PRINTS)

    def others_write() -> None:
        for _ in range(4):
            follow(state, log.lender, [log.draw()])
            checkpoint.write(state, tmp_path, fingerprints=PRINTS)

    busy = Busy(tmp_path, others_write)
    found = checkpoint.restore(plans(log.lender), busy, fingerprints=PRINTS, topics=[log.lender.truths])
    assert found is not None and found.frontier == state.frontier


def test_a_name_says_of_what_kind_a_checkpoint_is(tmp_path: Path) -> None:
    log, state = filled(2, 8)
    name = CheckpointName.parse(checkpoint.write(state, tmp_path, fingerprints=PRINTS, origin="live"))
    assert name is not None
    assert name.kind == checkpoint.kind(plans(log.lender), fingerprints=PRINTS, origin="live")
    assert name.kind != checkpoint.kind(plans(log.lender), fingerprints=PRINTS)
    assert name.kind != checkpoint.kind(plans(log.lender), fingerprints={**PRINTS, "pair": "new"}, origin="live")


def test_what_a_writer_adds_comes_back(tmp_path: Path) -> None:
    log, state = filled(2, 8)
    store = FolderCheckpoints(tmp_path)
    extra = {"judge.plans.0": b"judged", "empty": b""}
    name = checkpoint.write(state, store, fingerprints=PRINTS, extra=extra)
    found = checkpoint.restore_whole(plans(log.lender), store, fingerprints=PRINTS, topics=[log.lender.truths])
    assert found is not None
    assert (found.name, dict(found.extra)) == (name, extra)
    assert found.state.frontier == state.frontier


def logged(lender: Lender, counts: Sequence[int]) -> tuple[MemoryLog, FeatureState, list[Cut]]:
    """A log of repayments with as many rows, a state that followed it, and where it stood after each."""
    log, state, cuts, number = MemoryLog(clock=ManualClock()), lender.state(), [], 0
    for topic in lender.topics.values():
        log.declare(topic)
    for count in counts:
        rows = [(number + nr, nr, 100) for nr in range(count)]
        number += count
        log.append([Append(partition=Partition("repayments", 1, 0), rows=rows)])
        state.catch_up(log)
        cuts.append(state.frontier)
    return log, state, cuts


def moved(log: MemoryLog, **changed: int) -> list[TopicState]:
    """The log's topics, the one of repayments with other ends or another incarnation."""
    found = []
    for topic in log.topics():
        if topic.topic.name == "repayments":
            incarnation = changed.get("incarnation", topic.incarnation)
            partitions = [
                replace(
                    one,
                    start=changed.get("start", one.start),
                    end=changed.get("end", one.end),
                    partition=replace(one.partition, index=changed.get("index", 0)),
                )
                for one in topic.partitions
            ]
            topic = replace(topic, incarnation=incarnation, partitions=tuple(partitions))
        found.append(topic)
    return found


@pytest.mark.parametrize(
    ("changed", "said", "older"),
    [
        ({}, "", 1),
        ({"end": 4}, "up to offset 5, the log ends at 4", 0),
        ({"end": 2}, "up to offset 3, the log ends at 2", None),
        ({"start": 6}, "up to offset 3, the log keeps it from 6 on", None),
        ({"start": 4}, "", 1),
        ({"incarnation": 2}, "was made anew: it read incarnation 1, the log has 2", None),
        ({"index": 7}, "the log has no partition repayments#1/0", None),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_log_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, int], said: str, older: int | None
) -> None:
    lender = Lender()
    log, state, cuts = logged(lender, [3, 2])
    again, _, _ = logged(lender, [3])
    first = lender.state()
    first.catch_up(again)
    for one in (first, state):
        checkpoint.write(one, tmp_path, fingerprints=PRINTS)
    held = moved(log, **changed)
    found = checkpoint.restore(plans(lender), tmp_path, fingerprints=PRINTS, topics=[lender.truths], held=held)
    assert (None if found is None else found.frontier) == (None if older is None else cuts[older])
    assert said in caplog.text
    assert sum(r.levelno == logging.WARNING for r in caplog.records) == {1: 0, 0: 1, None: 2}[older]


def test_a_topic_that_is_gone_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lender = Lender()
    _, state, _ = logged(lender, [3])
    checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    assert checkpoint.restore(plans(lender), tmp_path, fingerprints=PRINTS, held=[]) is None
    assert "the log has no topic 'repayments'" in refused(caplog, "HR-0568")


def test_after_another_incarnation_the_new_one_s_are_kept(tmp_path: Path) -> None:
    """The dead one's lie further, as offsets begin anew."""
    lender = Lender()
    _, dead, _ = logged(lender, [50])
    for _ in range(2):
        checkpoint.write(dead, tmp_path, fingerprints=PRINTS)
    log, _, _ = logged(lender, [1])
    log.drop("repayments")
    log.declare(lender.repayments)
    state = lender.state()
    for number in range(4):
        log.append([Append(partition=Partition("repayments", 2, 0), rows=[(number, number, 100)])])
        state.catch_up(log)
        checkpoint.write(state, tmp_path, fingerprints=PRINTS)
    assert numbers(tmp_path) == [1, 2, 5, 6]
    held = log.topics()
    found = checkpoint.restore(plans(lender), tmp_path, fingerprints=PRINTS, topics=[lender.truths], held=held)
    assert found is not None and found.frontier == state.frontier


@pytest.mark.parametrize("stride", [1, 1 << 16])
def test_a_log_with_gaps_is_taken_over_where_it_was_left(tmp_path: Path, stride: int) -> None:
    """As of a log that several processes write: what lies between two rows is no event, and the tail begins there."""
    lender, clock = Lender(), ManualClock()
    log = MemoryLog(clock=clock, shared=True, stride=stride)
    for topic in lender.topics.values():
        log.declare(topic)
    state, partition, store = lender.state(), Partition("repayments", 1, 0), FolderCheckpoints(tmp_path, shared=True)
    for number in range(0, 30, 3):
        log.append([Append(partition=partition, rows=[(number + nr, nr, 100 + number) for nr in range(3)])])
        clock.advance("1us")
        if number == 15:
            state.catch_up(log)
            checkpoint.write(state, store, fingerprints=PRINTS, part="p0", origin="cluster")
    again = checkpoint.restore(
        plans(lender),
        store,
        fingerprints=PRINTS,
        topics=[lender.truths],
        part="p0",
        origin="cluster",
        held=log.topics(),
    )
    assert again is not None and again.frontier == state.frontier
    assert again.catch_up(log) == state.catch_up(log) == 12
    assert again.frontier == state.frontier
    for customer in (0, 1, 2, 99):
        assert again.read("flow", customer, clock.now()) == state.read("flow", customer, clock.now())
