"""Turns: one actor at a time, in an order that the seed alone draws."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from headrace.core.times import Duration
from headrace.testing.turns import START, Actor, EndedError, Turns

STEPS_A_SECOND_MIN = 20_000


def run(seed: int, body: Callable[[Turns, int], None], *, actors: int = 3, steps: int = 200) -> Turns:
    turns = Turns(random.Random(seed), keep=True)
    for index in range(actors):
        turns.actor(f"a{index}", partial(body, turns, index))
    turns.run(lambda: turns.steps >= steps)
    return turns


def for_ever(turns: Turns, index: int) -> None:
    while True:
        turns.turn(f"works {index}")


def test_a_seed_makes_one_trace() -> None:
    traces = [run(seed, for_ever).trace for seed in (1, 1, 2)]
    assert traces[0] == traces[1] != traces[2]
    assert len(traces[0].splitlines()) >= 200
    assert {line.split()[1] for line in traces[0].splitlines()} == {"a0", "a1", "a2"}


def test_only_one_actor_runs() -> None:
    running: list[int] = []

    def alone(turns: Turns, index: int) -> None:
        while True:
            running.append(index)
            assert len(running) == 1
            assert running.pop() == index
            turns.turn()

    run(3, alone, actors=5, steps=2_000)


def test_time_moves_with_turns_and_jumps_where_all_wait() -> None:
    seen: list[int] = []

    def sleeps(turns: Turns, index: int) -> None:
        turns.wait(turns.now + 3_600_000_000)
        seen.append(turns.now - START)

    turns = run(1, sleeps, actors=2)
    assert len(seen) == 2 and all(3_600_000_000 <= at < 3_601_000_000 for at in seen)
    assert turns.steps == 2


def test_a_wait_ends_when_what_it_waits_for_is_there() -> None:
    turns = Turns(random.Random(5))
    there: list[int] = []
    woken: list[int] = []

    def waits() -> None:
        turns.wait(turns.now + 10**12, lambda: bool(there))
        woken.append(turns.now)

    def brings() -> None:
        for _ in range(20):
            turns.turn()
        there.append(1)
        for _ in range(200):
            turns.turn()

    turns.actor("waits", waits)
    turns.actor("brings", brings)
    turns.run(lambda: False)
    assert woken and woken[0] < START + 10**9


def test_who_is_killed_ends_in_its_call_and_never_goes_on() -> None:
    turns = Turns(random.Random(7))
    seen: list[str] = []
    actors: list[Actor] = []

    def victim() -> None:
        try:
            for_ever(turns, 0)
        finally:
            try:
                turns.turn("once more")
            except EndedError:
                seen.append("ended again")
        seen.append("went on")

    def killer() -> None:
        for _ in range(10):
            turns.turn()
        turns.kill(actors[0])
        for _ in range(10):
            turns.turn()
        seen.append("done")

    actors.append(turns.actor("victim", victim))
    turns.actor("killer", killer)
    turns.run(lambda: False)
    assert sorted(seen) == ["done", "ended again"]


def test_who_is_stopped_goes_on_as_if_nothing_had_been() -> None:
    turns = Turns(random.Random(9), keep=True)
    woke: list[int] = []

    def sleeper() -> None:
        actor = turns.current
        assert actor is not None
        turns.stop(actor, Duration.parse("9s"))
        turns.turn("asleep")
        woke.append(turns.now - START)

    def other() -> None:
        while not woke:
            turns.turn("works")

    turns.actor("sleeper", sleeper)
    turns.actor("other", other)
    turns.run(lambda: False)
    assert woke[0] >= 9_000_000
    assert sum("works" in line for line in turns.trace.splitlines()) > 100, "others went on meanwhile"


def test_what_happens_by_itself_happens_on_time() -> None:
    turns = Turns(random.Random(1))
    seen: list[tuple[str, int]] = []

    def body() -> None:
        turns.later(turns.now + 5_000_000, lambda: seen.append(("second", turns.now - START)))
        turns.later(turns.now + 1_000_000, lambda: seen.append(("first", turns.now - START)))
        turns.wait(turns.now + 8_000_000)

    turns.actor("a", body)
    turns.run(lambda: False)
    assert seen == [("first", 1_000_000), ("second", 5_000_000)]


def test_a_new_actor_may_come_at_any_turn() -> None:
    turns = Turns(random.Random(2))
    born: list[int] = []

    def body(depth: int) -> None:
        born.append(depth)
        turns.turn()
        if depth < 5:
            turns.actor(f"child {depth}", lambda: body(depth + 1))

    turns.actor("first", lambda: body(0))
    turns.run(lambda: False)
    assert born == [0, 1, 2, 3, 4, 5] and not turns.actors


def test_an_error_that_nobody_handles_is_told() -> None:
    def breaks(turns: Turns, index: int) -> None:
        turns.turn()
        if index == 1:
            raise ValueError("a mistake")
        for_ever(turns, index)

    with pytest.raises(ValueError, match="a mistake"):
        run(1, breaks)


def test_no_thread_is_left_running_and_a_step_costs_little() -> None:
    run(0, for_ever, actors=8)
    before, began = threading.active_count(), time.perf_counter()
    for seed in range(5):
        run(seed, for_ever, actors=8, steps=4_000)
    lasted = time.perf_counter() - began
    assert threading.active_count() <= before + 8, "threads are used again"
    assert 20_000 / lasted > STEPS_A_SECOND_MIN / 10, "with room for a machine that does other work"
