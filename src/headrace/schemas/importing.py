"""`headrace import`: a file becomes a sealed partition of its own (SEMANTICS 1.5). Touches: the file, the log.

The one idea: read and check the whole file, put it in its order, append what is not durable yet, seal. Nothing is
visible before the seal, and a file that does not fit makes nothing. What was begun and sealed are events of
`headrace.imports`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.core.codec import partitions_of
from headrace.core.errors import InputError, NotFoundError, did_you_mean
from headrace.core.points import Partition
from headrace.core.times import Clock, Instant, instant
from headrace.log import define
from headrace.log.port import VERDICT, Append, Log, PartitionState, TopicState, Verdict
from headrace.schemas.define import BEGUN, IMPORTS, SEALED, ImportOptions, ImportReport, Progress
from headrace.schemas.files import digest, read_file
from headrace.schemas.plan import Ordered, imported_already, order_rows

APPEND_ROWS = 1 << 17  # rows a transaction: some 10 MB, and progress is seen several times a second

Record = Mapping[str, object]


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def import_file(
    log: Log,
    topic: str,
    path: Path,
    *,
    clock: Clock,
    options: ImportOptions | None = None,
    progress: Progress = silent,
) -> ImportReport:
    """Import a file into a topic: durable and visible when it returns, or nothing of it is visible.

    A call that was broken off goes on where it stopped, if the file and the options are the same.
    Raises: NotFoundError HR-0302 (no such topic), UsageError HR-0426 (these bytes were imported before), InputError
    HR-0428 (begun with other options), HR-0420 to HR-0425 and HR-0427 (the file), SchemaError HR-0401 to HR-0409 and
    HR-0103 (its rows), and what the log raises. Cost: some 1 us a row of Parquet.
    """
    asked = _Asked(log, _topic(log, topic), path, digest(path), options or ImportOptions(), clock, _ledger(log))
    import_id, begun = _choose(asked)
    progress("read", 0, 0)
    read = read_file(path, asked.target.topic, asked.options, progress)
    now = None if asked.target.topic.clock is define.Clock.SIMULATED else clock.now()
    ordered = order_rows(asked.target.topic, read.rows, read.available_at, now=now)
    states = log.import_partitions(topic, import_id, form=asked.options.payload)
    begun_at = _rows(states)
    if begun is not None and begun_at:
        _check_begun(asked, begun)
    if begun is None or begun["options"] != asked.options.text():
        _record(asked, BEGUN, import_id, {})
    key = asked.target.topic.key
    counts = Counter[int]() if states[0].sealed else _append(log, states, ordered, key, progress)
    log.import_partitions(topic, import_id, seal=True)
    if begun_at:
        counts = _count(log, states)
    report = ImportReport(
        topic=topic,
        partitions=tuple(state.partition for state in states),
        import_id=import_id,
        rows=read.rows.num_rows,
        taken=counts[Verdict.ACCEPTED],
        late=counts[Verdict.LATE],
        duplicates=counts[Verdict.DUPLICATE],
        conflicts=counts[Verdict.CONFLICT],
        ahead=counts[Verdict.AHEAD],
        rounded=read.rounded,
        left_out=read.rows.num_rows - sum(counts.values()),
        resumed_from=begun_at,
        ignored=read.ignored,
    )
    figures = ("rows", "taken", "late", "duplicates", "conflicts", "ahead", "left_out")
    _record(asked, SEALED, import_id, {name: getattr(report, name) for name in figures})
    return report


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an import is about, for the steps it is made of. ledger: the partition of the record of imports."""

    log: Log
    target: TopicState
    path: Path
    sha256: str
    options: ImportOptions
    clock: Clock
    ledger: Partition

    @property
    def origin(self) -> str:
        return f"file {self.path.name!r}"


def _topic(log: Log, name: str) -> TopicState:
    states = {state.topic.name: state for state in log.topics()}
    if name not in states:
        raise NotFoundError("HR-0302", f"no topic {name!r}", hint=did_you_mean(name, states), topic=name)
    return states[name]


def _choose(asked: _Asked) -> tuple[str, Record | None]:
    """The import's id, and the record of its beginning where it was begun and its end is not recorded.

    Raises: UsageError HR-0426.
    """
    topic, sha256 = asked.target.topic.name, asked.sha256
    mine = [r for r in _records(asked) if r["sha256"] == sha256]
    sealed = {r["import_id"]: r for r in mine if r["status"] == SEALED}
    begun = [r for r in mine if r["status"] == BEGUN and r["import_id"] not in sealed]
    if begun:
        return str(begun[-1]["import_id"]), begun[-1]
    if sealed and not asked.options.again:
        raise imported_already(topic, asked.origin, _latest(sealed.values()))
    return (f"{sha256}-{len(sealed) + 1}" if sealed else sha256), None


def _check_begun(asked: _Asked, begun: Record) -> None:
    """Rows are durable already: were they read in the same way? Raises: InputError HR-0428."""
    if begun["options"] != asked.options.text():
        raise InputError(
            "HR-0428",
            f"{asked.origin}: its import into topic {asked.target.topic.name!r} was begun with other options",
            detail=f"begun with {begun['options']}, seen {asked.options.text()}",
            hint="finish it with the options it was begun with",
        )


def _latest(records: Iterable[Record]) -> Instant:
    return max(instant(at) for r in records if isinstance(at := r["at"], dt.datetime))


def _rows(states: Sequence[PartitionState]) -> int:
    """How many rows an import's partitions hold together: the first so many, as each append is of all or none."""
    return sum(state.rows or 0 for state in states)


def _append(log: Log, states: Sequence[PartitionState], ordered: Ordered, key: str, progress: Progress) -> Counter[int]:
    """What is not durable yet, in order; verdicts by number of rows."""
    total, counts = len(ordered.available_at), Counter[int]()
    held = [state.rows or 0 for state in states]
    for first in range(_rows(states), total, APPEND_ROWS):
        rows = ordered.rows.slice(first, APPEND_ROWS)
        stamps = ordered.available_at[first : first + APPEND_ROWS]
        chosen = partitions_of(rows.column(key), len(states))
        parts = []
        for index in np.unique(chosen).tolist():
            mine = np.flatnonzero(chosen == index)
            some = rows if len(states) == 1 else rows.take(pa.array(mine))
            # `begins`: of two processes that import the same file at once, one is refused
            part = Append(partition=states[index].partition, rows=some, available_at=stamps[mine], begins=held[index])
            parts.append(part)
            held[index] += len(mine)
        for appended in log.append(parts):
            counts.update(_tally(appended.verdicts))
        progress("write", min(first + APPEND_ROWS, total), total)
    return counts


def _tally(verdicts: np.ndarray) -> dict[int, int]:
    numbers, counts = np.unique(verdicts, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _count(log: Log, states: Sequence[PartitionState]) -> Counter[int]:
    """Verdicts of sealed partitions, which an earlier attempt wrote a part of."""
    counts = Counter[int]()
    for state in states:
        for batch in log.read(state.partition, 0):
            counts.update(_tally(batch.column(VERDICT).to_numpy()))
    return counts


# --- the record of imports ---


def _ledger(log: Log) -> Partition:
    states = {state.topic.name: state for state in log.topics()}
    state = states[IMPORTS.name] if IMPORTS.name in states else log.declare(IMPORTS)
    return state.partitions[0].partition


def _records(asked: _Asked) -> Iterator[Record]:
    """What is recorded of imports into this incarnation of the topic, oldest first."""
    for batch in asked.log.read(asked.ledger, 0):
        for record in batch.select(list(IMPORTS.schema.names)).to_pylist():
            if (record["topic"], record["incarnation"]) == (asked.target.topic.name, asked.target.incarnation):
                yield record


def _record(asked: _Asked, status: str, import_id: str, figures: Mapping[str, int]) -> None:
    said: dict[str, str | int] = {
        "import_id": import_id,
        "topic": asked.target.topic.name,
        "incarnation": asked.target.incarnation,
        "status": status,
        "file": str(asked.path),
        "sha256": asked.sha256,
        "options": asked.options.text(),
        "at": asked.clock.now(),
        **figures,
    }
    row = tuple(said.get(name) for name in IMPORTS.schema.names)
    asked.log.append([Append(partition=asked.ledger, rows=[row])])
