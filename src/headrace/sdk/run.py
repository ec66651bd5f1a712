"""One event's work: decode, hand to the handler, say what became of it. Touches: what the handler touches, the
quarantine, the database of a `SqlOffsets`.

The one idea: whatever a handler raises is a failure of its event, and nothing else is. This is the boundary that
catches it; trouble with the cluster or the database is not the event's, costs it no attempt and is waited out.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable

from headrace.clients.kafka.port import Record
from headrace.core.errors import HeadraceError
from headrace.core.times import Instant
from headrace.sdk.codec import Poison
from headrace.sdk.define import Event, Failure, Placed, Reason
from headrace.sdk.engine import Engine
from headrace.sdk.plan import Do, Entry, Lanes, Outcome
from headrace.sdk.sql import Database, SqlOffsets, SqlSession

LOGGER = logging.getLogger(__name__)
BEHIND = Failure(reason=Reason.BEHIND, kind="", text="an event of the same key before it was set aside")

Handler = Callable[[Event], object]
AsyncHandler = Callable[[Event], Awaitable[object]]
SqlHandler = Callable[[Event, Database], object]


class Worker:
    """Works on one event at a time."""

    def __init__(self, engine: Engine, handler: Handler) -> None:
        self._engine = engine
        self._handler = handler

    def run(self) -> None:
        """Until it is over: the body of a thread."""
        engine = self._engine
        try:
            while (entry := engine.take()) is not None:
                engine.settle(entry, *_work(engine, entry, self._handler))
        except Exception as error:
            LOGGER.exception("a worker of group %s ends", engine.options.group)
            engine.fail(error)


async def work_async(engine: Engine, entry: Entry[Record], handler: AsyncHandler) -> None:
    """One event, on the loop; writes to the quarantine in a thread beside it."""
    try:
        if entry.do is Do.SET_ASIDE:
            outcome, place = await asyncio.to_thread(_set_aside, engine, entry)
        else:
            outcome, place = await _handle_async(engine, entry, handler), -1
        if outcome is Outcome.DONE and entry.do is Do.HANDLE and entry.held:
            outcome = await asyncio.to_thread(_done, engine, entry)
        _count(engine, entry, outcome)
        if not engine.settle(entry, outcome, place=place) and outcome is Outcome.FAILED:
            LOGGER.info("an event that failed was given up with its partition")
    except Exception as error:
        LOGGER.exception("a task of group %s ends", engine.options.group)
        engine.fail(error)
    except asyncio.CancelledError:
        engine.settle(entry, Outcome.LATER)
        raise


class SqlWorker:
    """Works on one event at a time, in a transaction each; a connection of its own."""

    def __init__(self, engine: Engine, offsets: SqlOffsets, handler: SqlHandler) -> None:
        self._engine = engine
        self._offsets = offsets
        self._handler = handler
        self._session: SqlSession | None = None

    def run(self) -> None:
        """Until it is over: the body of a thread."""
        engine = self._engine
        try:
            while (entry := engine.take()) is not None:
                outcome = self._work(entry)
                if outcome is not None:
                    engine.settle(entry, *outcome)
        except Exception as error:
            LOGGER.exception("a worker of group %s ends", engine.options.group)
            engine.fail(error)
        finally:
            self._reset()

    def _work(self, entry: Entry[Record]) -> tuple[Outcome, int] | None:
        """None: the partition is another's, and dropped."""
        engine = self._engine
        place = -1
        failure: Failure | None = None
        event: Event | None = None
        if entry.do is Do.SET_ASIDE:
            outcome, place = _set_aside(engine, entry)
            if outcome is not Outcome.DONE or entry.held:
                return outcome, place
        else:
            try:
                event = _event(engine, entry)
            except Poison as poison:
                entry.note = poison.failure
                return Outcome.POISON, -1
        try:
            session = self._open()
            began = self._begin(session, entry)
            if began is False:
                return self._not_there(session, entry)
            if event is None:
                session.hold(
                    engine.options.group, engine.connection.about.topic_id, Placed(entry.partition, entry.offset)
                )
            else:
                failure = self._effect(session, entry, event)
            if failure is not None:
                session.connection.rollback()
                entry.note = failure
                return _failed(engine, entry), -1
            session.connection.commit()
        except Exception as error:  # noqa: BLE001 - whatever a handler or a driver raises
            # The database's trouble, or a commit of which nobody knows: what the table says next is what is true.
            LOGGER.warning("the offsets of group %s: %s: %s", engine.options.group, type(error).__name__, error)
            self._reset()
            return self._afterwards(entry, place)
        if not entry.held:
            engine.sql_done(entry)
        elif _done(engine, entry) is not Outcome.DONE:
            return Outcome.LATER, -1
        _count(engine, entry, Outcome.DONE)
        return Outcome.DONE, place

    def _begin(self, session: SqlSession, entry: Entry[Record]) -> bool:
        engine, about = self._engine, self._engine.connection.about
        if entry.held:
            return session.unhold(engine.options.group, about.topic_id, Placed(entry.partition, entry.offset))
        a = engine.sql_next(entry)
        return a is not None and session.move(
            engine.options.group, engine.connection.name, about.topic_id, entry.partition, a, entry.offset + 1
        )

    def _not_there(self, session: SqlSession, entry: Entry[Record]) -> tuple[Outcome, int] | None:
        if entry.held:  # it was handled before, and only its mark in the quarantine is missing; or it was held in vain
            return _done(self._engine, entry), -1
        if not self._engine.sql_moved(entry):
            self._engine.settle(entry, Outcome.LATER)
        return None

    def _effect(self, session: SqlSession, entry: Entry[Record], event: Event) -> Failure | None:
        try:
            self._handler(event, session.connection)
        except Exception as error:  # noqa: BLE001 - whatever a handler or a driver raises
            return _failure(error)
        return None

    def _afterwards(self, entry: Entry[Record], place: int) -> tuple[Outcome, int]:
        """After an error in a transaction: done where the table says so."""
        if entry.held:
            return Outcome.LATER, -1
        engine = self._engine
        try:
            at = self._open().offset(engine.options.group, engine.connection.name, entry.partition)
        except Exception:  # noqa: BLE001 - whatever a handler or a driver raises
            self._reset()
            return Outcome.LATER, -1
        if at == entry.offset + 1:
            engine.sql_done(entry)
            _count(engine, entry, Outcome.DONE)
            return Outcome.DONE, place
        return Outcome.LATER, -1

    def _open(self) -> SqlSession:
        if self._session is None:
            self._session = self._offsets.session()
        return self._session

    def _reset(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except Exception as error:  # noqa: BLE001 - whatever a handler or a driver raises
                LOGGER.debug("closing a connection: %s", error)


def _work(engine: Engine, entry: Entry[Record], handler: Handler) -> tuple[Outcome, int]:
    place = -1
    if entry.do is Do.SET_ASIDE:
        outcome, place = _set_aside(engine, entry)
    else:
        outcome = _handle(engine, entry, handler)
        if outcome is Outcome.DONE and entry.held:
            outcome = _done(engine, entry)
    _count(engine, entry, outcome)
    return outcome, place


def _handle(engine: Engine, entry: Entry[Record], handler: Handler) -> Outcome:
    try:
        handler(_event(engine, entry))
    except Poison as poison:
        entry.note = poison.failure
        return Outcome.POISON
    except Exception as error:  # noqa: BLE001 - whatever a handler or a driver raises
        entry.note = _failure(error)
        return _failed(engine, entry)
    return Outcome.DONE


async def _handle_async(engine: Engine, entry: Entry[Record], handler: AsyncHandler) -> Outcome:
    try:
        await handler(_event(engine, entry))
    except Poison as poison:
        entry.note = poison.failure
        return Outcome.POISON
    except Exception as error:  # noqa: BLE001 - whatever a handler or a driver raises
        entry.note = _failure(error)
        return _failed(engine, entry)
    return Outcome.DONE


def _event(engine: Engine, entry: Entry[Record]) -> Event:
    """Raises: Poison."""
    record, codec = entry.item, engine.connection.codec
    key, row = codec.decode(entry.partition, record.key, record.value)
    return Event(
        codec.topic.name, entry.partition, record.offset, key, Instant(record.timestamp * 1_000), entry.attempts + 1,
        record.headers, row, codec.names,
    )  # fmt: skip


def _set_aside(engine: Engine, entry: Entry[Record]) -> tuple[Outcome, int]:
    """Write it to the quarantine; its place there, where it blocks its key."""
    failure = entry.note if isinstance(entry.note, Failure) else BEHIND
    poison, keeper, record = failure.reason.poison, engine.keeper, entry.item
    if entry.written >= 0:  # in the quarantine already; what came behind it failed
        return Outcome.DONE, entry.written if entry.blocks and not poison else -1
    now = Instant(time.time_ns() // 1_000)
    since = time.monotonic_ns() // 1_000 - entry.first_failed if entry.first_failed else 0
    blocks = entry.blocks and not poison and engine.options.lanes is not Lanes.EVENT
    try:
        if entry.held and not (poison and entry.blocks):
            keeper.again(entry.partition, record.key, entry.place, failure, entry.attempts)
            place = entry.place
        else:
            place = keeper.hold(
                entry.partition, record, failure, blocks=blocks, attempts=entry.attempts,
                first_failed=Instant(now - since), now=now,
            )  # fmt: skip
            entry.written = place
            if entry.held:  # poison that blocked its key: it lies there alone from now on
                keeper.done(entry.partition, record.key, entry.place)
    except HeadraceError as error:
        LOGGER.warning("an event of %s waits, as it cannot be set aside: %s", engine.connection.name, error.message)
        return Outcome.LATER, -1
    if failure.reason is not Reason.BEHIND:
        LOGGER.warning(
            "set aside: %s/%d offset %d: %s %s", engine.connection.name, entry.partition, record.offset, failure.kind,
            failure.text[:200], extra={"reason": failure.reason.value, "group": engine.options.group},
        )  # fmt: skip
    with engine.changed:
        engine.set_aside[failure.reason] += 1
    return Outcome.DONE, place if blocks else -1


def _done(engine: Engine, entry: Entry[Record]) -> Outcome:
    """Say in the quarantine that a released event was handled."""
    try:
        engine.keeper.done(entry.partition, entry.item.key, entry.place)
    except HeadraceError as error:
        LOGGER.warning("an event of %s will be handled again: %s", engine.connection.name, error.message)
        return Outcome.LATER
    return Outcome.DONE


def _failed(engine: Engine, entry: Entry[Record]) -> Outcome:
    with engine.changed:
        engine.counted["failed"] += 1
    return Outcome.FAILED


def _count(engine: Engine, entry: Entry[Record], outcome: Outcome) -> None:
    if outcome is Outcome.DONE and entry.do is Do.HANDLE:
        engine.counted["released" if entry.held else "handled"] += 1


def _failure(error: Exception) -> Failure:
    kind = error.code if isinstance(error, HeadraceError) else type(error).__qualname__
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" (in {last[0].name}, line {last[0].lineno})" if last else ""
    return Failure(reason=Reason.FAILED, kind=kind, text=f"{error}{where}")
