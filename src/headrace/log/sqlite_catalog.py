"""What is declared in the log's file: topics, versions, incarnations, partitions. Each change is one transaction.

Touches: the file, through the writer's connection, in the writer's turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from headrace.core.errors import NotFoundError, did_you_mean
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import Instant
from headrace.log.changing import refuse_change
from headrace.log.codec import topic_to_json
from headrace.log.define import Topic
from headrace.log.sqlite_read import Catalog, PartitionRecord, TopicRecord, refresh


@contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """All within, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def changed(connection: apsw.Connection) -> None:
    """Other processes read the catalog again when this number moves."""
    connection.execute("UPDATE catalog SET version = version + 1")


def existing(catalog: Catalog, name: str) -> TopicRecord:
    """Raises: NotFoundError HR-0302."""
    if name not in catalog:
        raise NotFoundError("HR-0302", f"no topic {name!r} in the log", hint=did_you_mean(name, catalog), topic=name)
    return catalog[name]


def declare(connection: apsw.Connection, known: TopicRecord | None, topic: Topic) -> TopicRecord:
    """The topic as it is now declared, made or changed. Raises: LogError HR-0310."""
    if known is not None:
        refuse_change(known.topic, topic)
        if topic_to_json(known.topic) == topic_to_json(topic):
            return known
    with transaction(connection):
        if known is None:
            number, incarnation, version = *_insert_topic(connection, topic.name), 1
        else:
            number, incarnation, version = known.number, known.incarnation, known.version + 1
        connection.execute("INSERT INTO versions VALUES(?, ?, ?)", (number, version, topic_to_json(topic)))
        partitions = {} if known is None else dict(known.partitions)
        for index in range(topic.partitions):
            if index not in partitions:
                partitions[index] = _insert_partition(
                    connection, number, Partition(topic.name, incarnation, index), None
                )
        changed(connection)
    schemas = {} if known is None else dict(known.schemas)
    return TopicRecord(
        number=number,
        topic=topic,
        incarnation=incarnation,
        version=version,
        schemas={**schemas, version: topic.schema},
        partitions=partitions,
    )


def _insert_topic(connection: apsw.Connection, name: str) -> tuple[int, int]:
    row = connection.execute("SELECT coalesce(max(incarnation), 0) + 1 FROM topics WHERE name = ?", (name,)).fetchone()
    connection.execute("INSERT INTO topics(name, incarnation) VALUES(?, ?)", (name, row[0]))
    return connection.last_insert_rowid(), row[0]


def _insert_partition(
    connection: apsw.Connection, topic: int, partition: Partition, import_id: str | None
) -> PartitionRecord:
    connection.execute(
        "INSERT INTO partitions(topic, place, import_id, sealed) VALUES(?, ?, ?, ?)",
        (topic, partition.index, import_id, 0 if import_id is not None else 1),
    )
    number = connection.last_insert_rowid()
    return PartitionRecord(number=number, partition=partition, import_id=import_id, sealed=import_id is None, start=0)


def drop(connection: apsw.Connection, known: TopicRecord) -> None:
    """Gone at once for readers; its rows' room is given back by upkeep, a little at a time."""
    with transaction(connection):
        connection.execute("UPDATE topics SET dropped = 1 WHERE id = ?", (known.number,))
        connection.execute("INSERT INTO purges SELECT number FROM partitions WHERE topic = ?", (known.number,))
        connection.execute(
            "DELETE FROM groups WHERE partition IN (SELECT number FROM partitions WHERE topic = ?)", (known.number,)
        )
        connection.execute("DELETE FROM partitions WHERE topic = ?", (known.number,))
        connection.execute("DELETE FROM versions WHERE topic = ?", (known.number,))
        changed(connection)


def import_partition(connection: apsw.Connection, known: TopicRecord, import_id: str, *, seal: bool) -> PartitionRecord:
    """The import's partition, made at its first call. Raises nothing for one that is sealed already."""
    found = next((each for each in known.partitions.values() if each.import_id == import_id), None)
    if found is not None and (found.sealed or not seal):
        return found
    with transaction(connection):
        if found is None:
            index = max([*known.partitions, IMPORTS_FROM - 1]) + 1
            partition = Partition(known.topic.name, known.incarnation, index)
            found = _insert_partition(connection, known.number, partition, import_id)
        if seal:
            connection.execute("UPDATE partitions SET sealed = 1 WHERE number = ?", (found.number,))
        changed(connection)
    refresh(connection, found)
    return found


def restart_clock(connection: apsw.Connection, known: TopicRecord, now: Instant) -> None:
    with transaction(connection):
        for each in known.partitions.values():
            if each.live and each.available_at > now:
                connection.execute(
                    "UPDATE partitions SET restart_offset = ?, restart_at = ? WHERE number = ?",
                    (each.end, now, each.number),
                )
        changed(connection)
