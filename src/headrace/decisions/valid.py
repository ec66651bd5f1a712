"""The records that count, read from the log partition by partition. Touches the log through its port.

The one idea: nobody reads a record topic but through the fold (claims.py). What is void is nobody's decision: it was
answered to no one, and a replay, a report or a training set that took it would tell of something that never happened.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from headrace.core.points import Partition
from headrace.decisions import record as records
from headrace.decisions.claims import ClaimFold, RequestPlace, Standing
from headrace.decisions.record import DecisionRecord
from headrace.log.port import Log, PartitionState


def valid_batches(log: Log, held: PartitionState, *, fold: ClaimFold | None = None) -> Iterator[pa.RecordBatch]:
    """The valid rows of a partition's batches, in order; none is empty. fold: of what lies before, from where it goes
    on; by default of nothing, from the beginning. Raises: SchemaError HR-0713, as `Log.read`."""
    fold = ClaimFold(held.partition) if fold is None else fold
    for batch in log.read(held.partition, max(fold.next, held.start)):
        valid = fold.take_batch(batch) == Standing.VALID
        if valid.all():
            yield batch
        elif valid.any():
            yield batch.filter(pa.array(valid))


def valid_records(log: Log, held: PartitionState, request: str) -> Iterator[DecisionRecord]:
    """The records of a partition that count, in order. request: the name of the requests' topic."""
    for batch in valid_batches(log, held):
        yield from records.from_batch(batch, request)


class ValidRecords:
    """The records that count, found by their requests. One thread at a time.

    Cost: what came since the last question is folded once, 0.2 us a record; then a row is read. Memory: 16 bytes a
    record of partitions that were asked for.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._folds: dict[Partition, ClaimFold] = {}

    def find(self, held: PartitionState, place: RequestPlace, request: str) -> DecisionRecord | None:
        """The record of one request. held: the partition that it would lie in. request: the name of its topic."""
        fold = self._folds.setdefault(held.partition, ClaimFold(held.partition))
        offset = fold.record(place)
        if offset is None:
            for batch in self._log.read(held.partition, max(fold.next, held.start)):
                fold.take_batch(batch)
            offset = fold.record(place)
        if offset is None:
            return None
        (one,) = records.from_batch(next(iter(self._log.read(held.partition, offset, end=offset + 1))), request)
        return one
