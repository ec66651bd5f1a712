"""A key without what lies at an instant and behind it: answers as if one event were not there, and nothing changed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from headrace.core.kernel.program import Flag, Program, build
from headrace.core.kernel.state import KeyedState
from headrace.core.kernel.words import PLAIN
from tests.unit.kernel.test_state import SEEDS, Row, masked, random_program, random_value, reference, word


def steady(program: Program) -> Program:
    """Without columns whose facts come later."""
    columns = tuple(replace(column, history=False) for column in program.columns)
    return build(columns, program.spans, program.outputs, max_distinct=int(program.code[9]))


def asked(state: KeyedState, program: Program, key: int, row: Row) -> tuple[list[int], list[int]]:
    valid = sum(1 << c for c, v in enumerate(row.values) if v is not None)
    words, reasons = state.answer(key, row.time, row.order, row.seq, True, valid, [word(v) for v in row.values])
    return masked(program, words, reasons), reasons


@pytest.mark.parametrize("ties", [0, 3, 700])
@pytest.mark.parametrize("seed", range(max(3, SEEDS // 4)))
def test_one_event_is_left_out_and_put_back(seed: int, ties: int) -> None:
    """ties: how many events share the instant of those that are left out: more than a chunk holds, too."""
    rng = random.Random(4_000 + seed)
    program = steady(random_program(rng))
    state = KeyedState(program, bytes_max=1 << 26)
    keys = [state.key(), state.key()]
    rows: list[list[Row]] = [[], []]
    count, instants = (40 if PLAIN else 900), []
    for seq in range(count):
        key = rng.randrange(2)
        time = seq * 10 if rng.random() < 0.8 else rng.randrange(count) * 10
        if rows[key] and ties and rng.random() < (0.8 if ties > 500 else 0.3):
            time = max(instants[-1], 0)
        instants.append(time)
        row = Row(time, rng.randint(-2, 2), seq, [random_value(rng, column, 0) for column in program.columns])
        rows[key].append(row)
        valid = sum(1 << c for c, v in enumerate(row.values) if v is not None)
        state.insert(keys[key], row.time, row.order, row.seq, valid, [word(v) for v in row.values])
        if rng.random() < (0.2 if PLAIN else 0.03):
            check(state, program, keys[key], rows[key], rng)
    for key in range(2):
        check(state, program, keys[key], rows[key], rng)


def check(state: KeyedState, program: Program, key: int, rows: list[Row], rng: random.Random) -> None:
    out = rng.choice(rows)
    ordered = program.code[17] >= 0
    others = [r for r in rows if r is not out]
    if rng.random() < 0.5:
        asked(state, program, key, out)  # the question before leaves tables and edges behind
    was = state.snapshot().tobytes()
    with state.before(key, out.time) as hidden:
        same = [r for r in others if r.time == out.time]
        assert hidden == len(same) + 1
        for one in same:
            valid = sum(1 << c for c, v in enumerate(one.values) if v is not None)
            state.insert(key, one.time, one.order, one.seq, valid, [word(v) for v in one.values])
        words, reasons = asked(state, program, key, out)
    assert state.snapshot().tobytes() == was, "every word is as it was"
    expected: list[int] = []
    whys = []
    for output in program.outputs:
        got, why = reference(program, output, [r for r in others if r.time <= out.time], out, out.time)
        expected += got
        whys.append(int(why))
    assert reasons == whys
    assert words == masked(program, expected, whys), (ordered, Flag.QUERY)


def test_a_key_that_holds_nothing_hides_nothing() -> None:
    program = steady(random_program(random.Random(1)))
    state = KeyedState(program, bytes_max=1 << 26)
    for key in (state.empty, state.key()):
        with state.before(key, 5) as hidden:
            assert hidden == 0
