"""Kernel state against a naive reading of the rules, over random programs and orders of arrival."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest

from headrace.core.aggregate import Function, Reason
from headrace.core.kernel.program import Column, ColumnKind, Flag, Items, Output, Program, Span, build
from headrace.core.kernel.state import KeyedState, replay
from headrace.core.kernel.words import PLAIN

NUMERIC = (
    Function.SUM,
    Function.MEAN,
    Function.MIN,
    Function.MAX,
    Function.VARIANCE,
    Function.DEVIATION,
    Function.FIRST,
    Function.LAST,
    Function.LAST_N,
    Function.DISTINCT,
)
EVENT = (Function.COUNT, Function.SINCE_LAST, Function.SINCE_FIRST)
STEP = 10  # between two instants; small, so that many events tie
SEEDS = int(os.environ.get("HEADRACE_STATE_SEEDS", "3" if PLAIN else "40"))


@dataclass
class Row:
    """An event as the reference keeps it: columns' values as they are, and what facts made of them since when."""

    time: int
    order: int
    seq: int
    values: list[int | float | None]
    history: dict[int, list[tuple[int, int | float | None]]] = field(default_factory=dict)

    def place(self) -> tuple[int, int, int]:
        return self.time, self.order, self.seq

    def known(self, column: int, t: int) -> int | float | None:
        for known_from, value in reversed(self.history.get(column, [])):
            if known_from <= t:
                return value
        return self.values[column]


def bits(x: float) -> int:
    return int(np.array([x + 0.0]).view(np.int64)[0])


def word(value: int | float | None) -> int:
    return 0 if value is None else bits(value) if isinstance(value, float) else value


def nearest(value: Fraction) -> float:
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def reference(program: Program, output: Output, rows: list[Row], request: Row | None, t: int) -> tuple[list[int], int]:
    """(words, reason) by SEMANTICS 2.1 and 3.2 to 3.5, of the rows and, where it counts, the request."""
    span = program.spans[output.span]
    high = t - span.delay
    low = -(2**62) if span.width is None else high - span.width
    members = [r for r in rows if low < r.time <= high]
    if request is not None and output.current and span.overlaid:
        members.append(request)
    members.sort(key=Row.place)
    c = output.column
    taken = [(r.time, None if c is None else r.known(c, t)) for r in members]
    if c is not None:
        taken = [(time, value) for time, value in taken if value is not None]
    function, n = output.function, len(taken)
    width = program.width[program.outputs.index(output)]
    if function is Function.COUNT:
        return [n], Reason.VALUE
    if n == 0:
        return [0] * width, Reason.EMPTY
    if function in (Function.SINCE_LAST, Function.SINCE_FIRST):
        return [t - taken[-1 if function is Function.SINCE_LAST else 0][0]], Reason.VALUE
    values = [value for _, value in taken if value is not None]
    if function is Function.DISTINCT:
        different = len({word(v) for v in values})
        return ([0], Reason.LIMIT) if different > program.code[9] else ([different], Reason.VALUE)
    if function is Function.FIRST or function is Function.LAST:
        return [word(values[0] if function is Function.FIRST else values[-1])], Reason.VALUE
    if function is Function.LAST_N:
        kept = [word(v) for v in values[-output.n :]]
        return [len(kept), *kept, *[0] * (output.n - len(kept))], Reason.VALUE
    if function is Function.MIN or function is Function.MAX:
        return [word(min(values) if function is Function.MIN else max(values))], Reason.VALUE
    column = program.columns[c or 0]
    exact = [Fraction(v) for v in values]
    total = sum(exact, Fraction(0))
    if function is Function.SUM and column.kind is ColumnKind.INT:
        low_word = int(total) & (2**64 - 1)
        return [low_word - 2**64 if low_word >= 2**63 else low_word, int(total) >> 64], Reason.VALUE
    scale = 1 if column.kind is ColumnKind.FLOAT else 10**column.scale
    if function is Function.SUM:
        x = nearest(total)
    elif function is Function.MEAN or function is Function.RATE:
        x = nearest(total / (n * scale))
    else:
        if output.sample and n < 2:
            return [0], Reason.EMPTY
        squares = sum((v * v for v in exact), Fraction(0))
        x = nearest((n * squares - total * total) / (n * (n - 1 if output.sample else n)) / scale**2)
        x = math.sqrt(x) if function is Function.DEVIATION else x
    return ([bits(x)], Reason.VALUE) if math.isfinite(x) else ([0], Reason.OVERFLOW)


def random_program(rng: random.Random) -> Program:
    columns = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice((ColumnKind.INT, ColumnKind.INT, ColumnKind.FLOAT))
        bits_of = rng.choice((8, 20, 40, 62)) if kind is ColumnKind.INT else 63
        scale = rng.choice((0, 2)) if kind is ColumnKind.INT else 0
        history = rng.random() < 0.3
        always = not history and rng.random() < 0.5
        compact = kind is ColumnKind.FLOAT and rng.random() < 0.5
        columns.append(Column(kind=kind, bits=bits_of, scale=scale, always=always, history=history, compact=compact))
    spans = [Span(width=rng.choice((None, STEP, 7 * STEP, 300 * STEP, 10_000 * STEP))) for _ in range(2)]
    spans.append(Span(width=50 * STEP, delay=5 * STEP, overlaid=False))
    outputs: list[Output] = []
    for _ in range(rng.randint(1, 8)):
        span = rng.randrange(3)
        if rng.random() < 0.25:
            function = rng.choice(EVENT)
            current = function is Function.COUNT and rng.random() < 0.5
            output = Output(function=function, span=span, current=current)
        else:
            function = rng.choice(NUMERIC)
            n = rng.randint(1, 4) if function is Function.LAST_N else 1
            output = Output(
                function=function,
                span=span,
                column=rng.randrange(len(columns)),
                current=rng.random() < 0.5,
                n=n,
                sample=function in (Function.VARIANCE, Function.DEVIATION) and rng.random() < 0.5,
            )
        if output not in outputs:
            outputs.append(output)
    return build(tuple(columns), tuple(spans), tuple(outputs), max_distinct=rng.choice((3, 4_096)))


def narrow_program(rng: random.Random) -> Program:
    """Counts, sums and means that take one word, as most views have: replays answer their rows in runs."""
    columns = tuple(
        Column(kind=ColumnKind.INT, bits=rng.choice((1, 20, 39)), scale=2, always=rng.random() < 0.5) for _ in range(2)
    )
    spans = (Span(width=7 * STEP), Span(width=rng.choice((None, 90 * STEP))), Span(width=50 * STEP, delay=5 * STEP))
    choices = [
        Output(function=function, span=span, column=column, current=current)
        for function in (Function.COUNT, Function.SUM, Function.MEAN, Function.RATE)
        for span in range(3)
        for column in (None, 0, 1)
        for current in (False, True)
        if column is not None or function is Function.COUNT
    ]
    program = build(columns, spans, tuple(rng.sample(choices, 6)))
    assert program.narrow
    return program


def random_value(rng: random.Random, column: Column, style: int) -> int | float | None:
    if not column.always and rng.random() < 0.2:
        return None
    if column.kind is ColumnKind.INT:
        most = (1 << min(column.bits, 62)) - 1
        return rng.choice((rng.randint(-3, 3), rng.randint(-most, most)))
    if style == 0 or column.compact:
        x = round(rng.uniform(-1000, 1000), 2)
    else:
        x = rng.choice((rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300), 1e308, 0.0, 5e-324))
    return x + 0.0


@dataclass
class Story:
    """Rows in the order in which they take effect, and what each query must answer."""

    items: Items
    expected: list[tuple[list[int], list[int]]]
    keys: int


def tell(rng: random.Random, program: Program, length: int, keys: int, *, steady: bool = False) -> Story:
    """steady: every row is asked, and all alike."""
    always_overlaid = rng.random() < 0.5
    ordered = program.code[17] >= 0
    style = rng.choice((0, 0, 1))
    rows: list[list[Row]] = [[] for _ in range(keys)]
    table: list[tuple[int, ...]] = []
    values: list[list[int]] = []
    expected = []
    now = 0
    late_columns = [c for c, column in enumerate(program.columns) if column.history]
    lateness = rng.choice((0.0, 0.05, 0.5))
    every = 1 if steady else rng.choice((1, 3)) if length < 200 else 37
    for seq in range(length):
        now += rng.choice((0, 0, STEP, 3 * STEP))
        key = rng.randrange(keys)
        if late_columns and rows[key] and rng.random() < 0.2:
            row = rng.choice(rows[key])
            c = rng.choice(late_columns)
            value = random_value(rng, program.columns[c], style)
            reset = rng.random() < 0.2
            past = row.history.get(c, [])
            since = -(2**63) if reset and rng.random() < 0.3 else max([now - 20 * STEP, *[k for k, _ in past]])
            if reset:
                row.values[c] = value if since == -(2**63) else None
                row.history[c] = [(since, value)] if since != -(2**63) else []
            else:
                row.history.setdefault(c, []).append((since, value))
            table.append((key, int(Flag.UPDATE), row.time, row.order, row.seq, 0, -1))
            values.append([c, since, word(value), int(value is not None) | (2 if reset else 0)])
            continue
        time = now - rng.randint(0, 400) * STEP if rng.random() < lateness else now
        fresh = [random_value(rng, column, style) for column in program.columns]
        row = Row(time, rng.randint(-2, 2) if ordered else 0, seq, fresh)
        flags, out = int(Flag.INSERT), -1
        if seq % every == 0 or length - seq < 20:
            overlay = always_overlaid if steady else rng.random() < 0.6
            flags |= int(Flag.QUERY) | (int(Flag.OVERLAY) if overlay else 0)
            words: list[int] = []
            reasons = []
            for output in program.outputs:
                got, reason = reference(program, output, rows[key], row if overlay else None, time)
                words += got
                reasons.append(int(reason))
            out = len(expected)
            expected.append((words, reasons))
        rows[key].append(row)
        valid = sum(1 << c for c, v in enumerate(fresh) if v is not None)
        table.append((key, flags, time, row.order, seq, valid, out))
        values.append([word(v) for v in fresh])
    flat = np.zeros((program.value_rows, len(table)), np.int64)
    for i, line in enumerate(values):
        flat[: len(line), i] = line
    key_, flags_, time_, order_, seq_, valid_, out_ = (np.array(x, np.int64) for x in zip(*table, strict=True))
    items = Items(
        key=key_.astype(np.int32),
        flags=flags_.astype(np.uint8),
        time=time_,
        order=order_,
        seq=seq_,
        valid=valid_,
        values=flat,
        out=out_,
    )
    return Story(items, expected, keys)


def check_replay(program: Program, story: Story, *, threads: int = 1) -> None:
    words, reasons = replay(program, story.items, keys=story.keys, outs=len(story.expected), threads=threads)
    for i, (expected, why) in enumerate(story.expected):
        assert reasons[i].tolist() == why, (i, program.outputs)
        assert masked(program, words[i].tolist(), why) == masked(program, expected, why), (i, program.outputs)


def masked(program: Program, words: list[int], reasons: list[int]) -> list[int]:
    """Words of values only; what is null may hold anything, and so may the rest of a short list."""
    kept: list[int] = []
    for o, reason in enumerate(reasons):
        if reason == Reason.VALUE:
            mine = words[program.slot[o] : program.slot[o] + program.width[o]]
            kept += mine[: mine[0] + 1] if program.outputs[o].function is Function.LAST_N else mine
    return kept


def check_online(program: Program, story: Story, *, cut: int | None = None, bulk: bool = False) -> None:
    state = KeyedState(program, bytes_max=1 << 26)
    handles = [state.key() for _ in range(story.keys)]
    items = story.items
    for i in range(len(items.key)):
        key, flags, line = handles[items.key[i]], int(items.flags[i]), items.values[:, i].tolist()
        time, order, seq, valid = int(items.time[i]), int(items.order[i]), int(items.seq[i]), int(items.valid[i])
        if cut == i:
            state = KeyedState.restore(program, state.snapshot(), bytes_max=1 << 26)
        if flags & Flag.QUERY:
            words, reasons = state.answer(key, time, order, seq, bool(flags & Flag.OVERLAY), valid, line)
            expected, why = story.expected[int(items.out[i])]
            assert list(reasons) == why, (i, program.outputs)
            assert masked(program, words, why) == masked(program, expected, why), (i, program.outputs)
        if flags & Flag.UPDATE:
            state.update(key, time, seq, line[0], line[1], line[2], valid=bool(line[3] & 1), reset=bool(line[3] & 2))
        elif flags & Flag.INSERT:
            state.insert(key, time, order, seq, valid, line)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_replay_and_state_answer_as_the_rules_say(seed: int) -> None:
    rng = random.Random(seed)
    program = random_program(rng)
    story = tell(rng, program, 60 if PLAIN else rng.choice((80, 300)), rng.choice((1, 3)))
    check_replay(program, story)
    check_online(program, story, cut=30)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_rows_in_runs_answer_as_the_rules_say(seed: int) -> None:
    rng = random.Random(2_000 + seed)
    program = narrow_program(rng)
    story = tell(rng, program, 60 if PLAIN else rng.choice((80, 700)), rng.choice((1, 3)), steady=seed % 4 > 0)
    check_replay(program, story)
    check_online(program, story)


def test_a_replay_without_updates_needs_no_histories() -> None:
    rng = random.Random(11)
    columns = (Column(kind=ColumnKind.INT, bits=8, history=True), Column(kind=ColumnKind.INT, bits=8))
    outputs = (Output(function=Function.MEAN, span=0, column=0), Output(function=Function.COUNT, span=0, column=1))
    program = build(columns, (Span(width=90 * STEP),), outputs)
    assert not program.narrow
    lighter = program.without_history()
    assert lighter.narrow and (lighter.slot, lighter.width) == (program.slot, program.width)
    assert lighter.without_history() is lighter
    check_replay(program, tell(rng, lighter, 60 if PLAIN else 700, 2, steady=True))


@pytest.mark.skipif(PLAIN, reason="minutes in plain Python")
@pytest.mark.parametrize("seed", range(8))
def test_across_chunks(seed: int) -> None:
    rng = random.Random(1000 + seed)
    program = random_program(rng)
    story = tell(rng, program, 2_500, 1)
    check_replay(program, story)
    check_online(program, story, cut=1_700)


@pytest.mark.parametrize("seed", range(2 if PLAIN else 12))
def test_distinct_counts_of_large_windows_follow_them(seed: int) -> None:
    rng = random.Random(3_000 + seed)
    always = rng.random() < 0.5
    columns = (
        Column(kind=ColumnKind.INT, bits=rng.choice((3, 8, 30)), always=always),
        Column(kind=ColumnKind.FLOAT, compact=True),
    )
    spans = (Span(width=None), Span(width=300 * STEP), Span(width=900 * STEP, delay=40 * STEP, overlaid=False))
    outputs = tuple(
        Output(function=Function.DISTINCT, span=span, column=column, current=rng.random() < 0.5)
        for span in range(3)
        for column in range(2)
    )
    program = build(columns, spans, outputs, max_distinct=rng.choice((5, 200, 4_096)))
    story = tell(rng, program, 500 if PLAIN else 2_500, 1)
    check_replay(program, story)
    check_online(program, story, cut=300 if PLAIN else 1_700)


def test_a_distinct_count_survives_events_before_its_window_and_forgotten_ones() -> None:
    column = Column(kind=ColumnKind.INT, bits=20, always=True)
    program = build((column,), (Span(width=1_000 * STEP),), (Output(function=Function.DISTINCT, span=0, column=0),))
    state = KeyedState(program, bytes_max=1 << 26)
    key = state.key()
    rows: list[Row] = []

    def enter(time: int, value: int) -> None:
        rows.append(Row(time, 0, len(rows), [value]))
        state.insert(key, time, 0, len(rows), 1, (value,))

    def ask(t: int) -> None:
        words, reasons = state.answer(key, t, 0, 0, False, 0, (0,))
        expected, reason = reference(program, program.outputs[0], rows, None, t)
        assert (words, reasons) == (expected, [reason])

    for i in range(1_600):
        enter(i * STEP, i if i >= 600 else i + 100)
    ask(1_599 * STEP)
    for i in range(30):  # behind the window: every position in it moves
        enter(i * STEP, 5_000 + i)
    ask(1_600 * STEP)
    state.expire(660 * STEP)
    for i in range(1_600, 1_720):
        enter(i * STEP, i)
    for t in (1_720, 1_721, 1_700, 2_400):  # at first, what is to be given up was forgotten
        ask(t * STEP)


@pytest.mark.skipif(PLAIN, reason="threads of compiled code")
def test_threads_and_more_room_change_nothing() -> None:
    rng = random.Random(7)
    program = random_program(rng)
    story = tell(rng, program, 3_000, 9)
    check_replay(program, story, threads=3)


def test_expiry_changes_no_window_that_it_may_not_touch() -> None:
    rng = random.Random(5)
    outputs = tuple(
        Output(function=f, span=s, column=c)
        for s in (0, 1)
        for f, c in (
            (Function.COUNT, None),
            (Function.SUM, 0),
            (Function.MAX, 0),
            (Function.LAST, 0),
            (Function.DISTINCT, 0),
            (Function.VARIANCE, 1),
        )
    )
    columns = (Column(kind=ColumnKind.INT, bits=20), Column(kind=ColumnKind.FLOAT))
    program = build(columns, (Span(width=50 * STEP), Span(width=300 * STEP)), outputs)
    state = KeyedState(program, bytes_max=1 << 26)
    key = state.key()
    rows: list[Row] = []
    now = 0
    for seq in range(200 if PLAIN else 4_000):
        now += rng.choice((0, STEP))
        time = now - rng.randint(0, 100) * STEP if rng.random() < 0.1 else now
        row = Row(time, 0 if program.code[17] < 0 else rng.randint(0, 1), seq, [rng.randint(0, 9), rng.uniform(-1, 1)])
        if seq % 11 == 0:
            seen = [r for r in rows if r.time > time - 400 * STEP]
            words, reasons = state.answer(key, time, row.order, seq, True, 3, [word(v) for v in row.values])
            for o, output in enumerate(outputs):
                expected, reason = reference(program, output, seen, row, time)
                assert reasons[o] == reason
                at = program.slot[o]
                assert words[at : at + program.width[o]] == expected, (seq, output)
        state.insert(key, time, row.order, seq, 3, [word(v) for v in row.values])
        rows.append(row)
        state.expire(now - 400 * STEP)
    if not PLAIN:
        assert state.usage().bytes_used < 4_000 * program.bytes_per_event  # most of it was used again


def test_ties_come_in_order() -> None:
    columns = (Column(kind=ColumnKind.INT, bits=20, always=True),)
    program = build(columns, (Span(),), (Output(function=Function.LAST, span=0, column=0),))
    state = KeyedState(program, bytes_max=1 << 26)
    key = state.key()
    assert state.ties(key, 5) == []
    rng = random.Random(3)
    wanted: dict[int, list[tuple[int, int]]] = {}
    for seq in range(40 if PLAIN else 1_500):
        time, order = rng.randint(0, 3), rng.randint(0, 99)
        state.insert(key, time, order, seq, 1, [seq])
        wanted.setdefault(time, []).append((order, seq))
    for time in range(-1, 5):
        assert state.ties(key, time) == sorted(wanted.get(time, []))
