"""Topics for people: what there is, what it holds, who lags, what may go. Touches the log through its port.

The one idea: only what every log can do is used, so that the same commands work on a file and on a cluster. Where
offsets have gaps (`Capabilities.gaps`) a count of offsets is no count of rows, and is called offsets.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace.core import schema
from headrace.core.columns import evaluate_columns
from headrace.core.errors import HeadraceError, InputError, NotFoundError, UsageError, did_you_mean
from headrace.core.expr import Expr, Reference, Source
from headrace.core.parse import parse_filter
from headrace.core.points import Cut, Partition
from headrace.core.schema import DataType
from headrace.core.times import Duration, Instant, instant
from headrace.log.define import Topic
from headrace.log.port import (
    AVAILABLE_AT,
    EVENT_TIME,
    OFFSET,
    SYSTEM_COLUMNS,
    VERDICT,
    Log,
    PartitionState,
    TopicState,
    Verdict,
)
from headrace.runtime.placing import topic_state
from headrace.runtime.project import Project

INTERNAL = "headrace."  # topics that headrace keeps for itself begin so
PARTITION = "_partition"
STEP_FIRST = 64  # offsets looked at backwards for the newest rows; doubled until there are enough
WAIT = Duration.parse("1s")  # following: how long before the topic is looked up anew, for partitions that appeared
_NAMES = [verdict.name.lower() for verdict in sorted(Verdict)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicLine:
    """A topic in one line. offsets: from the first that is kept to the end, of all partitions. available_at: of the
    newest row."""

    topic: str
    owner: str
    tags: tuple[str, ...]
    partitions: int
    imports: int
    offsets: int
    available_at: Instant | None
    retention: Duration | None
    protected: bool


def listed(log: Log, *, owner: str | None = None, tags: Iterable[str] = (), internal: bool = False) -> list[TopicLine]:
    """By name. owner, tags: only topics of this owner, with all of these tags. internal: headrace's own too."""
    wanted = set(tags)
    return [
        _line(state)
        for state in log.topics()
        if (internal or not state.topic.name.startswith(INTERNAL))
        and (owner is None or state.topic.stewardship.owner == owner)
        and wanted <= set(state.topic.stewardship.tags)
    ]


def _line(state: TopicState) -> TopicLine:
    held = state.topic.stewardship
    written = [p.available_at for p in state.partitions if p.end > p.start]
    return TopicLine(
        topic=state.topic.name,
        owner=held.owner,
        tags=held.tags,
        partitions=state.topic.partitions,
        imports=len(state.partitions) - state.topic.partitions,
        offsets=sum(p.end - p.start for p in state.partitions),
        available_at=max(written, default=None),
        retention=state.topic.retention,
        protected=held.protected,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A topic whole: as the log holds it, and what the definitions at hand make of it. declared: whether these
    definitions have it. version: of the definition in the log."""

    state: TopicState
    readers: tuple[str, ...]
    declared: bool


def described(project: Project, name: str) -> Described:
    """Raises: NotFoundError HR-0302."""
    state = topic_state(project.log, name)
    definitions = project.definitions
    return Described(state=state, readers=definitions.readers(name), declared=name in definitions.topics)


# --- rows ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a topic, whatever its verdict. event: its fields."""

    partition: int
    offset: int
    event_time: object
    available_at: object
    verdict: str
    event: Mapping[str, object]


Filter = Callable[[int, pa.RecordBatch], pa.RecordBatch]  # (index of the partition, batch) -> its rows that count


def where(topic: Topic, text: str | None) -> Filter:
    """A filter in the expression language: over the topic's fields, and `_partition`, `_offset`, `_event_time`,
    `_available_at`, `_verdict` (a text). Raises: InputError HR-0352."""
    if text is None:
        return lambda index, batch: batch
    test = parse_filter(text, _scope(topic))

    def chosen(index: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = {f"{topic.name}.{f.name}": batch.column(f.name) for f in topic.schema}
        columns |= {name: batch.column(name) for name in (OFFSET, EVENT_TIME, AVAILABLE_AT)}
        columns[VERDICT] = pa.array(_NAMES).take(batch.column(VERDICT))
        columns[PARTITION] = pa.repeat(pa.scalar(index, pa.int64()), batch.num_rows)
        return batch.filter(evaluate_columns(test, columns, rows=batch.num_rows))

    return chosen


def _scope(topic: Topic) -> dict[str, Expr]:
    """What a filter may name."""
    fields: dict[str, Expr] = {f.name: topic[f.name] for f in topic.schema}
    system = {PARTITION: schema.int64, OFFSET: schema.int64, VERDICT: schema.string}
    system |= {AVAILABLE_AT: schema.timestamp, EVENT_TIME: schema.timestamp}
    named: dict[str, Expr] = {name: _system(name, type) for name, type in system.items()}
    return {**fields, **{f"{topic.name}.{name}": value for name, value in fields.items()}, **named}


def _system(name: str, type: DataType) -> Reference:
    return Reference(source=Source.FIELD, owner="", name=name, type=type, nullable=False)


def newest(log: Log, topic: str, *, limit: int, chosen: Filter, partition: int | None = None) -> dict[int, list[Row]]:
    """The newest rows of each partition that the filter takes, at most `limit` of each, oldest first."""
    found: dict[int, list[Row]] = {}
    for held in _partitions(topic_state(log, topic), partition):
        rows: list[Row] = []
        end, step = held.end, STEP_FIRST
        while end > held.start and len(rows) < limit:
            begin = max(held.start, end - step)
            rows = [*_rows(log, held.partition, begin, end, chosen), *rows]
            end, step = begin, step * 2
        found[held.partition.index] = rows[-limit:] if limit else []
    return found


def tail(log: Log, topic: str, *, limit: int, chosen: Filter, partition: int | None = None) -> list[Row]:
    """The newest rows of all partitions together, by available_at, in each partition in its order."""
    found = newest(log, topic, limit=limit, chosen=chosen, partition=partition)
    return list(heapq.merge(*found.values(), key=_by_time))[-limit:] if limit else []


def begin_at(log: Log, topic: str, said: str | None, *, partition: int | None = None) -> dict[Partition, int]:
    """Where to read from, partition by partition. said: "beginning", an offset, or an instant (ISO 8601 with a zone),
    then the first row that was available then or later; None: the end.

    Cost of an instant: some thirty reads of one row a partition. Raises: InputError HR-0353, NotFoundError HR-0302.
    """
    held = _partitions(topic_state(log, topic), partition)
    if said is None:
        return {p.partition: p.end for p in held}
    if said.lower() == "beginning":
        return {p.partition: p.start for p in held}
    if said.isdecimal():
        return {p.partition: int(said) for p in held}
    try:
        at = instant(said)
    except HeadraceError as error:
        raise InputError(
            "HR-0353",
            f"{said!r} is no place to begin at",
            detail="expected 'beginning', an offset, or an instant with a zone, as in '2026-11-21T10:00:00Z'",
        ) from error
    return {p.partition: _since(log, p, at) for p in held}


def _since(log: Log, held: PartitionState, at: Instant) -> int:
    """The offset from which all rows were available at `at` or later: available_at never falls."""
    low, high = held.start, held.end
    while low < high:
        middle = (low + high) // 2
        first = next(iter(log.read(held.partition, middle, rows_max=1)), None)
        if first is None or _instant(first) >= at:
            high = middle
        else:
            low = first.column(OFFSET)[0].as_py() + 1
    return low


def rows_from(log: Log, topic: str, begin: Mapping[Partition, int], *, chosen: Filter) -> Iterator[Row]:
    """What there is from these places to the end as it is now, by available_at, in each partition in its order."""
    ends = {p.partition: p.end for p in topic_state(log, topic).partitions}
    known = [(partition, offset) for partition, offset in begin.items() if partition in ends]
    yield from heapq.merge(
        *(_rows(log, partition, offset, ends[partition], chosen) for partition, offset in known), key=_by_time
    )


def follow(
    log: Log, topic: str, begin: Mapping[Partition, int], *, chosen: Filter, every: bool = True
) -> Iterator[Row]:
    """As `rows_from`, and what comes then, without end. every: partitions that appear later are read too, from their
    first row."""
    places = dict(begin)
    while True:
        state = topic_state(log, topic)
        ends = {p.partition: p.end for p in state.partitions}
        for held in state.partitions if every else ():
            places.setdefault(held.partition, held.start)
        ready = {p: o for p, o in places.items() if ends.get(p, 0) > o}
        yield from heapq.merge(*(_rows(log, p, o, ends[p], chosen) for p, o in ready.items()), key=_by_time)
        places.update((partition, ends[partition]) for partition in ready)
        log.wait(Cut.of({p: o for p, o in places.items() if p in ends}), timeout=WAIT)


def _partitions(state: TopicState, index: int | None) -> tuple[PartitionState, ...]:
    if index is None:
        return state.partitions
    found = tuple(p for p in state.partitions if p.partition.index == index)
    if not found:
        known = ", ".join(str(p.partition.index) for p in state.partitions)
        raise NotFoundError(
            "HR-0302", f"topic {state.topic.name!r} has no partition {index}", detail=f"there is: {known}"
        )
    return found


def _rows(log: Log, partition: Partition, begin: int, end: int, chosen: Filter) -> Iterator[Row]:
    if begin >= end:
        return
    for batch in log.read(partition, begin, end=end):
        for row in chosen(partition.index, batch).to_pylist():
            system = {f.name: row.pop(f.name) for f in SYSTEM_COLUMNS}
            yield Row(
                partition=partition.index,
                offset=system[OFFSET],
                event_time=system[EVENT_TIME],
                available_at=system[AVAILABLE_AT],
                verdict=_NAMES[system[VERDICT]],
                event=row,
            )


def _by_time(row: Row) -> tuple[object, int]:
    return row.available_at, row.partition


def _instant(batch: pa.RecordBatch) -> Instant:
    return Instant(batch.column(AVAILABLE_AT).cast(pa.int64())[0].as_py())


# --- lag ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far a group is behind in one partition. committed: the next offset that it reads; None where it has none.
    offsets: from there to the end. behind: how long ago the first row that it has not read became available."""

    group: str
    topic: str
    partition: int
    committed: int | None
    end: int
    offsets: int
    behind: Duration


def lags(log: Log, topic: str, groups: Sequence[str], *, now: Instant) -> list[Lag]:
    """Of each group in each partition. Cost: one row read for each that is behind. Raises: NotFoundError HR-0302."""
    state = topic_state(log, topic)
    return [_lag(log, group, held, dict(log.group(group)), now) for group in groups for held in state.partitions]


def _lag(log: Log, group: str, held: PartitionState, cut: Mapping[Partition, int], now: Instant) -> Lag:
    committed = cut.get(held.partition)
    begin = held.start if committed is None else max(committed, held.start)
    behind = 0
    if begin < held.end:
        first = next(iter(log.read(held.partition, begin, end=held.end, rows_max=1)), None)
        behind = 0 if first is None else max(0, now - _instant(first))
    return Lag(
        group=group,
        topic=held.partition.topic,
        partition=held.partition.index,
        committed=committed,
        end=held.end,
        offsets=max(0, held.end - begin),
        behind=Duration(behind),
    )


# --- dropping ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropping:
    """What a drop would delete. approval: the text that must be given; "" where the topic is not protected."""

    line: TopicLine
    approval: str


def dropping(project: Project, name: str) -> Dropping:
    """Raises: NotFoundError HR-0302; UsageError HR-0817 for a topic of headrace's own, HR-0814 for one that is declared
    or in force, with what reads it."""
    refuse_internal(name)
    line = _line(topic_state(project.log, name))
    definitions = project.definitions
    if name in definitions.topics or ("topic", name) in project.catalog().entries:
        readers = ", ".join(definitions.readers(name))
        raise UsageError(
            "HR-0814",
            f"topic {name!r} is declared or in force",
            detail=f"it is read by {readers}" if readers else "",
            hint="take it out of the definitions, and headrace apply, first",
            readers=definitions.readers(name),
        )
    return Dropping(line=line, approval=f"{name}.drop" if line.protected else "")


def check_drop(what: Dropping, *, approved: Iterable[str] = ()) -> None:
    """That a drop has the approval that it needs. Raises: HeadraceError HR-0815 where the topic is protected and not
    approved, UsageError HR-0812 for another approval."""
    given = set(approved)
    if unknown := sorted(given - {what.approval}):
        raise UsageError(
            "HR-0812",
            f"nothing here needs the approval {unknown[0]!r}",
            hint=did_you_mean(unknown[0], [what.approval] if what.approval else []),
        )
    if what.approval and what.approval not in given:
        raise HeadraceError(
            "HR-0815",
            f"topic {what.line.topic!r} is protected",
            detail=f"{what.line.offsets:,} offsets in {what.line.partitions + what.line.imports} partitions would be "
            "deleted for ever",
            hint=f"headrace topics drop {what.line.topic} --approve {what.approval}",
        )


def drop(project: Project, what: Dropping, *, approved: Iterable[str] = ()) -> None:
    """Delete the topic and its rows. Raises: as `check_drop`."""
    check_drop(what, approved=approved)
    project.log.drop(what.line.topic)


def refuse_internal(name: str) -> None:
    """Raises: UsageError HR-0817 for a topic that headrace keeps for itself."""
    if name.startswith(INTERNAL):
        raise UsageError(
            "HR-0817",
            f"topic {name!r} is headrace's own",
            detail="records, changes and audits stand in it; it is read, and never written or deleted by hand",
            hint=f"headrace topics tail {name}",
        )


def taken(rows: Iterator[Row], limit: int | None) -> Iterator[Row]:
    """At most `limit` of them."""
    return rows if limit is None else itertools.islice(rows, limit)


def seconds(length: Duration) -> float:
    """As people read a lag: to the millisecond."""
    return math.floor(length.micros / 1000) / 1000
