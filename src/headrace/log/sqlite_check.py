"""The log's file as a whole: checked from end to end, copied while it is written. Touches: the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np

from headrace.core.errors import HeadraceError
from headrace.core.times import Clock
from headrace.log.define import Topic
from headrace.log.port import Verdict
from headrace.log.sqlite_entry import ENTRY_ROWS
from headrace.log.sqlite_file import FORMAT, connect_reader, key, translated
from headrace.log.sqlite_read import Catalog, PartitionRecord, Reader, TopicRecord, load_catalog

COPY_PAGES = 4_096  # 16 MiB between two looks at the progress


def copy(file: Path, to: Path) -> None:
    """A copy of one instant, made while others write. Raises: LogError of either file."""
    source = connect_reader(file)
    try:
        with translated(file):
            # One read transaction over the whole copy: the online backup would start over at each commit otherwise.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM catalog").fetchone()
            target = apsw.Connection(str(to))
            try:
                with target.backup("main", source, "main") as backup:
                    while not backup.done:
                        backup.step(COPY_PAGES)
                target.pragma("journal_mode", "delete")  # one file, nothing beside it
            finally:
                target.close()
    finally:
        source.close()


def summary(file: Path) -> dict[str, object]:
    """What a manifest says of a log: format, and of each topic its incarnation, version, partitions and their ends."""
    connection = connect_reader(file)
    try:
        with translated(file):
            connection.execute("BEGIN")
            catalog = load_catalog(connection)
    finally:
        connection.close()
    topics = {
        name: {
            "incarnation": record.incarnation,
            "version": record.version,
            "partitions": {str(p.partition.index): [p.start, p.end] for p in record.partitions.values()},
        }
        for name, record in catalog.items()
    }
    return {"format": FORMAT, "topics": topics}


def problems(file: Path, clock: Clock) -> Iterator[str]:
    """What is wrong with the file, one sentence each; nothing where all is well. Reads every byte."""
    try:
        connection = connect_reader(file)
    except HeadraceError as error:
        yield str(error)
        return
    try:
        with translated(file):
            for (line,) in connection.execute("PRAGMA integrity_check(20)"):
                if line != "ok":
                    yield f"SQLite: {line}"
            connection.execute("BEGIN")
            catalog = load_catalog(connection)
            connection.execute("COMMIT")
            yield from _strangers(connection, catalog)
    except HeadraceError as error:
        yield str(error)
        return
    finally:
        connection.close()
    reader = Reader(file, clock=clock)
    try:
        for record in catalog.values():
            for partition in record.partitions.values():
                yield from _partition(reader, record, partition)
    finally:
        reader.close()


def _strangers(connection: apsw.Connection, catalog: Catalog) -> Iterator[str]:
    """Rows of partitions that nothing declares and nothing is about to purge."""
    known = {p.number for record in catalog.values() for p in record.partitions.values()}
    known |= {number for (number,) in connection.execute("SELECT number FROM purges")}
    at = 0
    while (row := connection.execute("SELECT min(key) FROM entries WHERE key >= ?", (at,)).fetchone())[0] is not None:
        number = row[0] >> 40
        if number not in known:
            yield f"entries of partition number {number} belong to no topic"
        at = key(number + 1, 0)


def _partition(reader: Reader, topic: TopicRecord, record: PartitionRecord) -> Iterator[str]:
    """Checksums, offsets without gaps, verdicts that exist, available_at that does not fall, ids that are taken
    once."""
    offset, last = record.start, None
    if not record.listed:
        yield f"{record.partition}: import {record.import_id!r} was not sealed; {record.end} rows wait for it to go on"
    try:
        batches = reader.read(topic, record, record.start, end=record.end, rows_max=ENTRY_ROWS, halting=False)
        for batch in batches:
            offsets, instants = (batch.column(place).cast("int64").to_numpy() for place in (0, 1))
            verdicts = batch.column(3).to_numpy()
            if offsets[0] != offset or not np.array_equal(offsets, np.arange(offset, offset + len(offsets))):
                yield f"{record.partition} at offset {offset}: offsets have a gap"
            if verdicts.max() > max(Verdict):
                yield f"{record.partition} at offset {offset}: verdict {verdicts.max()} is none"
            if (last is not None and instants[0] < last) or (np.diff(instants) < 0).any():
                yield f"{record.partition} at offset {offset}: available_at falls"
            yield from _nulls(topic.topic, record, offset, batch)
            offset, last = int(offsets[-1]) + 1, int(instants[-1])
    except HeadraceError as error:
        yield str(error)
        return
    if offset != record.end:
        yield f"{record.partition}: ends at offset {offset}, expected {record.end}"


def _nulls(topic: Topic, record: PartitionRecord, offset: int, batch: object) -> Iterator[str]:
    for name in (topic.key, topic.id, topic.event_time):
        if name is not None and batch.column(name).null_count:  # type: ignore[attr-defined]  # a RecordBatch
            yield f"{record.partition} at offset {offset}: {name!r} is null"
