"""Many points answered from the log: training values, checks of what was served, hypothetical requests (SEMANTICS 1.6).

The one idea: a replay is a list of items in the order in which they take effect, and the kernel that serves runs it
from nothing. All that differs between the three replays is which events a row sees; `replay_cuts.py` says that in
numbers, `replay_items.py` makes the list. Runs the kernel and hands freed memory back; touches nothing else.
"""

from __future__ import annotations

import concurrent.futures
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.aggregate import Reason
from headrace.core.errors import UsageError
from headrace.core.kernel.program import Words
from headrace.features.facts import FactRule
from headrace.features.heap import ROWS_MIN, hand_back
from headrace.features.plan import ViewPlan
from headrace.features.replay_cuts import Kind
from headrace.features.replay_derived import asked_of_derived
from headrace.features.replay_given import Cuts
from headrace.features.replay_items import Pass, passes
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows

REASON_SUFFIX = "__reason"

Reasons = npt.NDArray[np.uint8]


def replay(
    plans: Sequence[ViewPlan],
    events: Events,
    rows: Rows,
    *,
    kind: Kind | str = Kind.SERVED,
    reasons: bool = False,
    threads: int = 1,
) -> pa.Table:
    """Every feature of the views at every row, in the rows' order.

    plans: each used by no other thread meanwhile. events: at least `topics_of(plans)`, whole. kind: SERVED uses the
    rows' cuts where they have any. reasons: after each feature a column `<feature>__reason`, text. threads: at most;
    the views share them, then the entities of each view. Columns are named by the feature where that is unique among
    the views, else `view.feature`. Cost: O(events of the rows' entities + rows), once for each group of rows whose
    visible sets do not form a chain. Raises: SchemaError HR-0524 for rows that do not name a view's entity, StateError
    HR-0510, HR-0511.
    """
    kind = Kind(kind)
    if rows.topic is not None and events.topic(rows.topic.topic.name) is not rows.topic:
        raise UsageError(
            "HR-0532",
            f"the rows are requests of topic {rows.topic.topic.name!r} as other events have it",
            detail="row numbers count in the events that the rows were made from",
            hint="make rows and replay from the same Events",
        )
    each = max(1, threads // max(len(plans), 1))
    if threads > 1 and len(plans) > 1:
        with concurrent.futures.ThreadPoolExecutor(min(threads, len(plans))) as pool:
            for name in topics_of(plans):  # laid out here, so that no two threads lay out the same topic
                if name in events:
                    events.topic(name)
            jobs = [pool.submit(_view, plan, events, rows, kind, each) for plan in plans]
            found = [job.result() for job in jobs]
    else:
        found = [_view(plan, events, rows, kind, threads) for plan in plans]
    names = column_names(plans)
    texts = pa.array([reason.name for reason in Reason], pa.string())
    columns: dict[str, pa.Array] = {}
    for plan, (batch, said) in zip(plans, found, strict=True):
        for i, feature in enumerate(plan.view.features):
            name = names[plan.view.name, feature.name]
            columns[name] = batch.column(i)
            if reasons:
                columns[name + REASON_SUFFIX] = texts.take(pa.array(np.ascontiguousarray(said[:, i])))
    return pa.table(columns)


def topics_of(plans: Sequence[ViewPlan]) -> tuple[str, ...]:
    """The topics that a replay of these views reads: sources, what they are derived of, and where labels and late
    columns' truths come from."""
    names: list[str] = []
    for plan in plans:
        for source in plan.sources:
            names.append(source.topic.name)
            if source.topic.derivation is not None:
                names.append(source.topic.derivation.of)
            names += [label.source.name for label in source.labels]
            names += [FactRule.of_late(source.topic, column).topic for column in source.late]
    return tuple(dict.fromkeys(names))


def column_names(plans: Sequence[ViewPlan]) -> dict[tuple[str, str], str]:
    """(view, feature) -> the column's name: the feature's where no other view has one of that name, else
    view.feature."""
    count = Counter(feature.name for plan in plans for feature in plan.view.features)
    return {
        (plan.view.name, feature.name): feature.name if count[feature.name] == 1 else f"{plan.view.name}.{feature.name}"
        for plan in plans
        for feature in plan.view.features
    }


def _view(plan: ViewPlan, events: Events, rows: Rows, kind: Kind, threads: int) -> tuple[pa.RecordBatch, Reasons]:
    if plan.derived is None:
        words, said = _answered(plan, events, rows, kind, threads)
        return plan.publish(words, said), said
    words, said = _empty(plan, len(rows))
    for places, its_events, its_rows in asked_of_derived(plan.derived, events, rows, kind):
        words[places], said[places] = _answered(plan, its_events, its_rows, kind, threads)
    return plan.publish(words, said), said


def _empty(plan: ViewPlan, rows: int) -> tuple[Words, Reasons]:
    shape = (rows, len(plan.program.outputs))
    return np.zeros((rows, plan.program.slots), np.int64), np.full(shape, int(Reason.EMPTY), np.uint8)


def _answered(plan: ViewPlan, events: Events, rows: Rows, kind: Kind, threads: int) -> tuple[Words, Reasons]:
    words: Words | None = None
    said: Reasons | None = None
    for made in passes(plan, events, rows, kind):
        some_words, some_said = _run(plan, made, len(rows), threads)
        if words is None or said is None:
            words, said = some_words, some_said
        else:
            answered = made.items.out[made.items.out >= 0]
            words[answered], said[answered] = some_words[answered], some_said[answered]
        del made, some_words, some_said  # a pass is as large as its log: not two of them at once, nor beside the answer
    return _empty(plan, len(rows)) if words is None or said is None else (words, said)


def _run(plan: ViewPlan, made: Pass, outs: int, threads: int) -> tuple[Words, Reasons]:
    from headrace.core.kernel import state  # numba loads when a kernel first runs: 400 ms

    if len(made.items.key) >= ROWS_MIN:
        hand_back()
    return state.replay(plan.program, made.items, keys=made.keys, outs=outs, threads=threads)


__all__ = ["Cuts", "Events", "Kind", "Rows", "column_names", "replay", "topics_of"]
