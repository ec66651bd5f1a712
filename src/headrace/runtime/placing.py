"""Rows to the partitions of their keys, in one append. Touches the log through its port."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import batch_to_rows, partitions_of
from headrace.core.errors import NotFoundError, did_you_mean
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.schema import Schema
from headrace.log.port import Append, Appended, Log, TopicState

FEW_ROWS = 16


def topic_state(log: Log, name: str) -> TopicState:
    """The topic as the log holds it. Raises: NotFoundError HR-0302."""
    states = {state.topic.name: state for state in log.topics()}
    if name not in states:
        raise NotFoundError(
            "HR-0302",
            f"no topic {name!r} in the log",
            hint=did_you_mean(name, states) or "headrace apply",
            topic=name,
        )
    return states[name]


def place_rows(log: Log, topic: str, batch: pa.RecordBatch) -> tuple[tuple[Appended, ...], npt.NDArray[np.int32]]:
    """Append rows that fit their topic already, all of them or none. Where they went, partition by partition, and the
    index of each row's partition, in the order of the rows. Raises: NotFoundError HR-0302, as `Log.append`."""
    state = topic_state(log, topic)
    live = [p.partition for p in state.partitions if p.partition.index < IMPORTS_FROM]
    chosen = partitions_of(batch.column(state.topic.key), len(live))
    return log.append(_by_partition(state.topic.schema, batch, chosen, live)), chosen


def _by_partition(
    schema: Schema, batch: pa.RecordBatch, chosen: npt.NDArray[np.int32], live: Sequence[Partition]
) -> list[Append]:
    """Their order is kept within each partition. Few rows go as rows: they take less time and room than Arrow does."""
    appends = []
    for index in np.unique(chosen).tolist():
        rows = batch if len(live) == 1 else batch.take(pa.array(np.flatnonzero(chosen == index)))
        few = batch_to_rows(schema, rows) if rows.num_rows <= FEW_ROWS else rows
        appends.append(Append(partition=live[index], rows=few))
    return appends
