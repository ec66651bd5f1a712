"""`hr.SqlOffsets`: an event's offset and its effect in one transaction of a SQL database. Touches: the database.

    offsets = hr.SqlOffsets(lambda: sqlite3.connect("shop.db"))
    with hr.Consumer(cluster, payments, group="totals", offsets=offsets) as consumer:
        consumer.run(lambda event, connection: connection.execute("UPDATE ...", ...))

The one idea: `UPDATE ... SET next_offset = :b WHERE ... AND next_offset = :a` comes first in the effect's transaction.
Where it finds a row, nobody else has done what lies between a and b, and nobody will: the row is locked until the
effect is committed with it. Where it finds none, another consumer has the partition: everything is rolled back, the
partition is dropped. Any DB-API 2 driver will do; placeholders are written as its module's `paramstyle` says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headrace.core.errors import UsageError
from headrace.sdk.connect import Connection as Cluster
from headrace.sdk.define import Placed
from headrace.sdk.places import recreated

_NAME = re.compile(r":(\w+)")
_PROBE = "headrace probe"


class Cursor(Protocol):
    """What is asked of a DB-API cursor."""

    @property
    def rowcount(self) -> int: ...

    def execute(self, operation: str, parameters: object = ..., /) -> object: ...

    def fetchone(self) -> object: ...

    def close(self) -> object: ...


class Database(Protocol):
    """What is asked of a DB-API connection."""

    def cursor(self) -> Cursor: ...

    def commit(self) -> object: ...

    def rollback(self) -> object: ...

    def close(self) -> object: ...


class SqlOffsets:
    """Keeps a group's offsets in tables of the database that its effects go to: `headrace_offsets` (group_name, topic,
    partition_index, cluster_id, topic_id, next_offset) and `headrace_held` (what was set aside and not handled since).
    """

    def __init__(
        self, connect: Callable[[], Database], *, paramstyle: str | None = None, make_tables: bool = True
    ) -> None:
        """connect: makes a connection that does not commit by itself; it is called once a worker. paramstyle: of the
        driver; found out by default. make_tables: False where that is somebody else's right; docs/guides/events.md has
        their definitions."""
        self._connect = connect
        self._style = paramstyle
        self._make = make_tables

    def session(self) -> SqlSession:
        """For one thread. Raises: UsageError HR-0439."""
        connection = self._connect()
        if self._style is None:
            self._style = paramstyle_of(connection)
        return SqlSession(connection, self._style)

    def prepare(self, group: str) -> None:
        """Tables, and a look whether the connection commits by itself. Raises: UsageError HR-0438, HR-0439."""
        session = self.session()
        try:
            if self._make:
                for text in TABLES:
                    session.run(text)
                session.connection.commit()
            values = {"g": group, "t": _PROBE, "p": -1}
            session.run(DELETE_OFFSET, values)
            session.connection.commit()
            session.run(INSERT_OFFSET, {**values, "c": "", "i": "", "b": 0})
            session.connection.rollback()
            if session.one(SELECT_OFFSET, values) is not None:
                session.run(DELETE_OFFSET, values)
                raise UsageError(
                    "HR-0438",
                    "the connection commits by itself",
                    detail="a row was there after rollback(): effect and offset would not be one",
                    hint="leave out autocommit (sqlite3: isolation_level=None), and do not use a MyISAM table",
                )
            session.connection.rollback()
        finally:
            session.close()

    def begin(self, group: str, cluster: Cluster, first: Mapping[int, int]) -> dict[int, int]:
        """Where each partition goes on; where there is no row yet, it is made with `first`. Raises: StateError HR-0436
        where the rows are of another topic of the same name."""
        session = self.session()
        about = cluster.about
        try:
            found: dict[int, int] = {}
            for index, start in first.items():
                values = {"g": group, "t": cluster.name, "p": index}
                row = session.one(SELECT_OFFSET, values)
                if row is None:
                    session.run(INSERT_OFFSET, {**values, "c": about.cluster_id, "i": about.topic_id, "b": start})
                    session.connection.commit()
                    found[index] = start
                    continue
                cluster_id, topic_id, offset = row
                if (cluster_id, topic_id) != (about.cluster_id, about.topic_id):
                    raise recreated(cluster.name, group, f"{topic_id} in cluster {cluster_id}",
                                           f"{about.topic_id} in cluster {about.cluster_id}")  # fmt: skip
                found[index] = int(str(offset))
            session.connection.rollback()
            return found
        finally:
            session.close()

    def hold(self, group: str, topic_id: str, partition: int, offsets: Sequence[int]) -> None:
        """These offsets are set aside and not handled."""
        if not offsets:
            return
        session = self.session()
        try:
            for offset in offsets:
                session.hold(group, topic_id, Placed(partition, offset))
            session.connection.commit()
        finally:
            session.close()


class SqlSession:
    """A connection and its placeholders. One thread."""

    def __init__(self, connection: Database, style: str) -> None:
        self.connection = connection
        self._style = style

    def move(self, group: str, topic: str, topic_id: str, partition: int, a: int, b: int) -> bool:
        """Begin the transaction by moving the offset from a to b. False: it is not at a; nothing was begun."""
        values = {"g": group, "t": topic, "i": topic_id, "p": partition, "a": a, "b": b}
        if self.run(MOVE_OFFSET, values) == 1:
            return True
        self.connection.rollback()
        return False

    def hold(self, group: str, topic_id: str, at: Placed) -> None:
        """In the transaction: this offset is set aside, not handled."""
        values = {"g": group, "i": topic_id, "p": at.partition, "o": at.offset}
        self.run(DELETE_HELD, values)
        self.run(INSERT_HELD, values)

    def unhold(self, group: str, topic_id: str, at: Placed) -> bool:
        """Begin the transaction of an offset that was set aside. False: it has been handled; nothing was begun."""
        if self.run(DELETE_HELD, {"g": group, "i": topic_id, "p": at.partition, "o": at.offset}) == 1:
            return True
        self.connection.rollback()
        return False

    def offset(self, group: str, topic: str, partition: int) -> int | None:
        """Where the partition is now."""
        row = self.one(SELECT_OFFSET, {"g": group, "t": topic, "p": partition})
        self.connection.rollback()
        return None if row is None else int(str(row[2]))

    def run(self, text: str, values: Mapping[str, object] | None = None) -> int:
        """The number of rows."""
        cursor = self.connection.cursor()
        try:
            cursor.execute(*placed(text, values or {}, self._style))
            return cursor.rowcount
        finally:
            cursor.close()

    def one(self, text: str, values: Mapping[str, object]) -> tuple[object, ...] | None:
        cursor = self.connection.cursor()
        try:
            cursor.execute(*placed(text, values, self._style))
            row = cursor.fetchone()
            return None if row is None else tuple(row)  # type: ignore[arg-type]  # DB-API: a sequence
        finally:
            cursor.close()

    def close(self) -> None:
        self.connection.close()


def placed(text: str, values: Mapping[str, object], style: str) -> tuple[str, object]:
    """A statement with :names in a driver's style, and its parameters. Raises: UsageError HR-0439."""
    names = _NAME.findall(text)
    match style:
        case "qmark":
            return _NAME.sub("?", text), tuple(values[name] for name in names)
        case "format":
            return _NAME.sub("%s", text), tuple(values[name] for name in names)
        case "numeric":
            numbers = iter(range(1, len(names) + 1))
            return _NAME.sub(lambda _: f":{next(numbers)}", text), tuple(values[name] for name in names)
        case "named":
            return text, {name: values[name] for name in names}
        case "pyformat":
            return _NAME.sub(lambda found: f"%({found[1]})s", text), {name: values[name] for name in names}
    raise UsageError(
        "HR-0439",
        f"unknown paramstyle {style!r}",
        detail="expected qmark, numeric, named, format or pyformat",
        hint="hr.SqlOffsets(..., paramstyle=...), as the driver's module says",
    )


def paramstyle_of(connection: object) -> str:
    """As the module of the connection's class says, or one that holds it. Raises: UsageError HR-0439."""
    for kind in type(connection).__mro__:
        name = kind.__module__
        while name:
            style = getattr(sys.modules.get(name), "paramstyle", None)
            if isinstance(style, str):
                return style
            name = name.rpartition(".")[0]
    raise UsageError(
        "HR-0439",
        f"{type(connection).__module__}.{type(connection).__qualname__} does not say how it writes placeholders",
        hint="hr.SqlOffsets(..., paramstyle=...): qmark, numeric, named, format or pyformat",
    )


# `partition` is a reserved word in MySQL, and DB-API has no quoting that all databases share: hence partition_index.
TABLES = (
    "CREATE TABLE IF NOT EXISTS headrace_offsets (group_name VARCHAR(120) NOT NULL, topic VARCHAR(249) NOT NULL, "
    "partition_index INTEGER NOT NULL, cluster_id VARCHAR(64) NOT NULL, topic_id VARCHAR(64) NOT NULL, "
    "next_offset BIGINT NOT NULL, PRIMARY KEY (group_name, topic, partition_index))",
    "CREATE TABLE IF NOT EXISTS headrace_held (group_name VARCHAR(120) NOT NULL, topic_id VARCHAR(64) NOT NULL, "
    "partition_index INTEGER NOT NULL, held_offset BIGINT NOT NULL, "
    "PRIMARY KEY (group_name, topic_id, partition_index, held_offset))",
)
_OF_OFFSET = "WHERE group_name = :g AND topic = :t AND partition_index = :p"
_OF_HELD = "WHERE group_name = :g AND topic_id = :i AND partition_index = :p AND held_offset = :o"
SELECT_OFFSET = f"SELECT cluster_id, topic_id, next_offset FROM headrace_offsets {_OF_OFFSET}"
DELETE_OFFSET = f"DELETE FROM headrace_offsets {_OF_OFFSET}"
INSERT_OFFSET = (
    "INSERT INTO headrace_offsets (group_name, topic, partition_index, cluster_id, topic_id, next_offset) "
    "VALUES (:g, :t, :p, :c, :i, :b)"
)
MOVE_OFFSET = f"UPDATE headrace_offsets SET next_offset = :b {_OF_OFFSET} AND topic_id = :i AND next_offset = :a"
DELETE_HELD = f"DELETE FROM headrace_held {_OF_HELD}"
INSERT_HELD = "INSERT INTO headrace_held (group_name, topic_id, partition_index, held_offset) VALUES (:g, :i, :p, :o)"
