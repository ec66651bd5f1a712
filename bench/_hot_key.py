"""One key that holds a great deal: what an event of it costs online, through a view's plan, the Python calls included.

Keys are drawn by Zipf's law, so the hottest has a third and more of all events; one event in twenty comes late, by up
to half a window. The view asks for what is dear over many events: minimum, maximum, distinct count and the standard
deviation of floats, beside the count. Each event is answered at the latest instant so far, as a decision would be, and
inserted at its own; times are wall time of both. `late_question` is what an answer at a late event's own instant costs.
"""

from __future__ import annotations

import gc
import time

import numpy as np
import numpy.typing as npt

import headrace as hr
from headrace.core.kernel.program import Flag, Items
from headrace.core.kernel.state import KeyedState
from headrace.features.plan import ViewPlan

KEYS, EXPONENT = 1_000, 1.5  # the hottest key's share is 1 / 2.6
LATE = 0.05
MERCHANTS = 500
STEP_US = 1_000  # between two events of the hottest key
WARM = 100
ALONE = 50  # answers at late events' own instants
Words = npt.NDArray[np.int64]


def hot_key(events: int, asked: int) -> dict[str, float]:
    """events: what the hottest key holds in its window. asked: how many more of it come, each answered first."""
    plan = _plan(events)
    program = plan.program
    state = KeyedState(program)
    random = np.random.default_rng(3)
    keys, times = _stream(events, asked, random)
    count = len(keys)
    handles = np.array([state.key() for _ in range(KEYS)], np.int64)
    values = np.zeros((program.value_rows, count), np.int64)
    floats = np.round(random.uniform(0, 500, count), 2).tolist()
    merchants = random.integers(0, MERCHANTS, count).tolist()
    valid = np.zeros(count, np.int64)
    for i, row in enumerate(zip(keys.tolist(), merchants, floats, strict=True)):
        valid[i], values[: len(program.columns), i] = plan.sources[0].columns_row(row, {})
    before = int(np.flatnonzero(keys == 0)[events])  # where the hottest key has filled its window
    zeros = np.zeros(before, np.int64)
    state.apply(
        Items(
            key=handles[keys[:before]],  # type: ignore[arg-type]  # handles are wider than codes, see KeyedState.apply
            flags=np.full(before, int(Flag.INSERT), np.uint8),
            time=times[:before],
            order=zeros,
            seq=np.arange(before),
            valid=valid[:before],
            values=values[:, :before],
            out=zeros,
        )
    )
    held = state.usage().bytes_used / before
    taken, late, alone = _ask(state, keys, handles, times, valid, values[: len(program.columns)], before)
    taken, late = taken[WARM:] / 1e3, late[WARM:]
    return {
        "hot_key_events": float(events),
        "online_hot_key_p50_us": float(np.percentile(taken, 50)),
        "online_hot_key_p99_us": float(np.percentile(taken, 99)),
        "online_hot_key_in_order_p99_us": float(np.percentile(taken[~late], 99)),
        "online_hot_key_late_p50_us": float(np.percentile(taken[late], 50)),
        "online_hot_key_late_p99_us": float(np.percentile(taken[late], 99)),
        "online_hot_key_late_question_p50_us": float(np.percentile(alone, 50)) / 1e3,
        "hot_key_bytes_per_event": float(program.bytes_per_event),
        "hot_key_memory_bytes_per_event": held,
    }


def _plan(events: int) -> ViewPlan:
    """A window as long as the hottest key takes for so many events."""
    payments = hr.Topic(
        "payments",
        key="card",
        fields={
            "card": hr.int64,
            "merchant": hr.field(hr.int64, required=True),
            "amount": hr.field(hr.float64, required=True, minimum=0.0, maximum=1e6),
        },
    )
    window = f"{events * STEP_US // 1_000}ms"
    features = [hr.count(), hr.min(payments.amount), hr.max(payments.amount)]
    features += [hr.distinct(payments.merchant), hr.std(payments.amount)]
    view = hr.FeatureView("card", entity="card", source=payments, features=[f.over(window) for f in features])
    return ViewPlan.compile(view, {})


def _stream(events: int, asked: int, random: np.random.Generator) -> tuple[Words, Words]:
    """(key, event time) in order of arrival: 0 is the hottest key."""
    share = np.arange(1, KEYS + 1) ** -EXPONENT
    share /= share.sum()
    count = int((events + asked) / share[0] * 1.02) + 1_000  # so that the hottest surely has enough
    keys = random.choice(KEYS, count, p=share).astype(np.int64)
    arrived = np.arange(count, dtype=np.int64) * int(STEP_US * share[0])
    late = random.random(count) < LATE
    times = np.where(late, arrived - random.integers(0, events * STEP_US // 2, count), arrived)
    last = int(np.flatnonzero(keys == 0)[events + asked - 1]) + 1
    return keys[:last], times[:last]


def _ask(
    state: KeyedState, keys: Words, handles: Words, times: Words, valid: Words, values: Words, before: int
) -> tuple[Words, npt.NDArray[np.bool_], list[int]]:
    """Of each event of the hottest key the nanoseconds of its answer and its insertion, and whether it was late; and
    the nanoseconds of the answers at late events' own instants. Others' events are inserted in between."""
    rows = zip(
        keys[before:].tolist(),
        handles[keys[before:]].tolist(),
        times[before:].tolist(),
        valid[before:].tolist(),
        values[:, before:].T.tolist(),
        strict=True,
    )
    taken: list[int] = []
    late: list[bool] = []
    alone: list[int] = []
    now = int(times[:before].max())
    gc.disable()
    try:
        for seq, (key, handle, at, there, words) in enumerate(rows, start=before):
            behind, now = at < now, max(at, now)
            if key != 0:
                state.insert(handle, at, 0, seq, there, words)
                continue
            start = time.perf_counter_ns()
            state.answer(handle, now, 0, seq, True, there, words)
            state.insert(handle, at, 0, seq, there, words)
            taken.append(time.perf_counter_ns() - start)
            late.append(behind)
            if behind and len(alone) < ALONE:
                start = time.perf_counter_ns()
                state.answer(handle, at, 0, seq, True, there, words)
                alone.append(time.perf_counter_ns() - start)
    finally:
        gc.enable()
    return np.array(taken), np.array(late), alone
