"""What becomes of a source's rows in a derived topic, and which cut of the source a derived partition stands for. Pure.

The one idea: one writer carries a source partition over in its order, so within a derived partition the rows of one
source partition rise by their source offset. Hence who has applied a derived partition up to anywhere has applied, of
the keys there, exactly the rows below the highest source offset seen, + 1: the source cut. Where no row comes, what was
committed says how far the writer got: read before the derived partition's high watermark, it holds for whoever has
applied all below that (docs/KAFKA.md K2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from headrace.core.codec import partitions_of, units
from headrace.core.errors import LogError
from headrace.core.points import Cut, Partition
from headrace.core.times import Instant
from headrace.log.define import Topic
from headrace.log.port import (
    AVAILABLE_AT,
    CARRIED,
    EVENT_TIME,
    OFFSET,
    SOURCE_INCARNATION,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    VERDICT,
    Append,
    Inherited,
    Verdict,
)

NULL_KEY = "null_key"  # among what is left out: an event without a key has no partition (SEMANTICS 2.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """One transaction's. appends: one for each derived partition that gets rows. cut: of the source, behind the rows
    that were read. rows: that are carried. left_out: the others, by verdict or NULL_KEY."""

    appends: tuple[Append, ...]
    cut: Cut
    rows: int
    left_out: Mapping[str, int]


def writer_name(derived: Topic, incarnation: int, source: Partition) -> str:
    """Who carries one source partition over into one derived topic: a name that is the same for whoever comes next."""
    return f"headrace.derived.{derived.name}.{incarnation}.{source.incarnation}.{source.index}"


def outputs(batch: pa.RecordBatch, *, source: Partition, derived: Topic, incarnation: int) -> Outputs:
    """What a source partition's rows become. batch: as read, at least one row. incarnation: of the derived topic.

    Carried is what anything may see: taken rows and late ones, which labels and *known now* see. Duplicates and what
    was set aside are not: that a row is one is the source's to say, and the derived topic need not know of it.
    """
    offsets, verdicts = batch.column(OFFSET).to_numpy(), batch.column(VERDICT).to_numpy()
    counted = np.isin(verdicts, CARRIED)
    keyed = batch.column(derived.key).is_valid().to_numpy(zero_copy_only=False)
    left_out = {
        Verdict(verdict).name.lower(): int(count)
        for verdict, count in zip(*np.unique(verdicts[~counted], return_counts=True), strict=True)
    }
    if nulls := int((counted & ~keyed).sum()):
        left_out[NULL_KEY] = nulls
    rows = np.flatnonzero(counted & keyed)
    appends = _by_partition(batch.take(pa.array(rows)), source, derived, incarnation) if len(rows) else ()
    return Outputs(appends=appends, cut=Cut.of({source: int(offsets[-1]) + 1}), rows=len(rows), left_out=left_out)


def _by_partition(batch: pa.RecordBatch, source: Partition, derived: Topic, incarnation: int) -> tuple[Append, ...]:
    places = partitions_of(batch.column(derived.key), derived.partitions)
    order = np.argsort(places, kind="stable")
    indices, firsts = np.unique(places[order], return_index=True)
    batch = batch.take(pa.array(order))
    fields = batch.select(list(derived.schema.names))
    inherited = Inherited(
        source=source,
        offsets=batch.column(OFFSET).to_numpy(),
        available_at=units(batch.column(AVAILABLE_AT)),
        event_times=units(batch.column(EVENT_TIME)),
        verdicts=batch.column(VERDICT).to_numpy(),
    )
    made = []
    for index, first, end in zip(indices.tolist(), firsts.tolist(), [*firsts.tolist()[1:], len(order)], strict=True):
        part = Inherited(
            source=source,
            offsets=inherited.offsets[first:end],
            available_at=inherited.available_at[first:end],
            event_times=inherited.event_times[first:end],
            verdicts=inherited.verdicts[first:end],
        )
        partition = Partition(derived.name, incarnation, index)
        made.append(Append(partition=partition, rows=fields.slice(first, end - first), inherited=part))
    return tuple(made)


def check_fields(source: Topic, derived: Topic) -> None:
    """Raises: LogError HR-0365 where a derived topic has not the fields of its source: what it lacks would be lost to
    it for ever."""
    held = {f.name: f.type for f in derived.schema}
    given = {f.name: f.type for f in source.schema}
    for name in (*given, *held):
        if held.get(name) != given.get(name):
            raise LogError(
                "HR-0365",
                f"topic {derived.name!r} has not the fields of {source.name!r}",
                detail=f"field {name!r}: expected {given.get(name) or 'none'}, seen {held.get(name) or 'none'}",
                hint="headrace apply declares both; what came meanwhile is carried then",
                retryable=True,
                topic=derived.name,
            )


# --- source cuts ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What the writers of a derived topic have passed. cut: of the source, as they had committed it. at: all that had
    come to the source by then lies below that cut. ends: of the derived partitions, by index, read after it, behind
    what is not stable yet, too. Whoever has applied a partition up to its end holds what lies below `cut` of its
    keys."""

    at: Instant
    cut: Cut
    ends: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCut:
    """Of a state that has applied one derived partition up to `applied`. of: the source topic's name. cut: of its
    partitions; one that it does not hold has given nothing yet, as far as is known."""

    of: str
    applied: int = 0
    cut: Cut = field(default_factory=Cut)

    def after(self, batch: pa.RecordBatch) -> SourceCut:
        """Having applied more rows of the derived partition, as they are read. Raises: LogError HR-0367 where a source
        offset does not rise."""
        if not batch.num_rows:
            return self
        known = dict(self.cut)
        incarnations, partitions = (
            batch.column(SOURCE_INCARNATION).to_numpy(),
            batch.column(SOURCE_PARTITION).to_numpy(),
        )
        offsets = batch.column(SOURCE_OFFSET).to_numpy()
        for incarnation, index in set(zip(incarnations.tolist(), partitions.tolist(), strict=True)):
            source = Partition(self.of, incarnation, index)
            mine = offsets[(incarnations == incarnation) & (partitions == index)]
            if int(mine[0]) < known.get(source, 0) or not bool((np.diff(mine) > 0).all()):
                raise _fallen(source, known.get(source, 0))
            known[source] = int(mine[-1]) + 1
        return SourceCut(of=self.of, applied=int(batch.column(OFFSET)[-1].as_py()) + 1, cut=Cut.of(known))

    def through(self, end: int) -> SourceCut:
        """Having read up to `end`, of which no row is left: what ends a transaction has an offset and is no row."""
        return SourceCut(of=self.of, applied=max(self.applied, end), cut=self.cut)

    def proven(self, passed: Passed, index: int) -> SourceCut:
        """With what was passed, for the derived partition of this index; nothing where its end was not applied."""
        end = passed.ends.get(index)
        if end is None or self.applied < end:
            return self
        return SourceCut(of=self.of, applied=self.applied, cut=highest([self.cut, passed.cut]))


def highest(cuts: Iterable[Cut]) -> Cut:
    """Partition by partition."""
    found: dict[Partition, int] = {}
    for cut in cuts:
        for partition, offset in cut:
            found[partition] = max(found.get(partition, 0), offset)
    return Cut.of(found)


def _fallen(source: Partition, seen: int) -> LogError:
    return LogError(
        "HR-0367",
        f"a derived topic holds events of {source} twice or out of order",
        detail=f"expected source offsets that rise, from {seen} on",
        hint="drop the derived topic and apply; its re-keyers carry everything over again",
        source=str(source),
    )
