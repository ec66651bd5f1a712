"""Compiled code: feature state and replay, exact arithmetic, the scorer. The only place that imports numba, lazily.

    program.py   a view's computation as data, and the rows it works on (no numba)
    state.py     KeyedState: insert, answer, update, one row or many, of the online state; replay of many rows
    wide.py      exact fixed-point sums, rounded once
    scorer.py    linear models and trees
    shap.py      contributions: what each input of a row adds to its margin

The two doors (in state.py):

    replay(program, items, *, keys: int, outs: int) -> (int64[outs, program.slots], uint8[outs, len(program.outputs)])
        All keys from nothing, items in order; the second array holds `Reason`s.
    KeyedState(program)
        .key() -> int                         a handle for a new key
        .insert(key, time, order, seq, valid, values) ; .update(key, time, seq, column, known_from, value, valid, reset)
        .answer(key, t, order, seq, overlay, valid, values) -> (words: list[int], reasons: bytes-like)
        .apply(items)                         many rows; Items.key holds handles, as int64
        .expire(before)                       events before this instant may be forgotten
        .snapshot() -> int64 array ; KeyedState.restore(program, array)
"""
