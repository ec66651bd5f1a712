"""`hr.Consumer` and `hr.AsyncConsumer`: events of a topic to a handler, in order per key, at more concurrency than
there are partitions. Touches the cluster; the synchronous one has worker threads, the other one thread beside the loop.

    with hr.Consumer("kafka://127.0.0.1:9092", payments, group="mailer") as consumer:
        consumer.run(send_mail)

The one idea: both are one engine in one thread; what differs is who takes events from it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Mapping
from types import TracebackType

from headrace.core.errors import UsageError
from headrace.core.times import Duration
from headrace.log.define import Topic
from headrace.sdk.connect import Connection, connect
from headrace.sdk.define import Budget, Counts, Order, Start, group_name
from headrace.sdk.engine import Engine, Options
from headrace.sdk.plan import Lanes
from headrace.sdk.port import Messages
from headrace.sdk.run import AsyncHandler, Handler, SqlHandler, SqlWorker, Worker, work_async
from headrace.sdk.sql import SqlOffsets

CONCURRENCY = 16
_LANES = {Order.KEY: Lanes.KEY, Order.NONE: Lanes.EVENT}


class Consumer:
    """A member of a group. `run` in one thread; `stop`, `close` and `counts` from any."""

    def __init__(
        self,
        cluster: str | Messages,
        topic: Topic,
        *,
        group: str,
        order: str | Order = Order.KEY,
        concurrency: int = CONCURRENCY,
        budget: Budget | None = None,
        start: str | Start = Start.EARLIEST,
        offsets: SqlOffsets | None = None,
        unknown_fields: str = "refuse",
        buffered_max: int = 2_000,
        ahead_max: int = 20_000,
        commit_every: str | Duration = "1s",
        drain: str | Duration = "20s",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """cluster: an address, as "kafka://HOST:PORT/PREFIX", or a fake.

        order: "key" runs the events of a key one after the other, others beside them; "none" every event for itself.
        concurrency: handlers at work at once. budget: how a failing event is tried again. start: where a new group
        begins, "earliest" or "latest". offsets: keep them in SQL with the effects; then the events of a partition run
        one after the other. unknown_fields: "refuse" sets records with fields aside that the definition does not have,
        "ignore" leaves these fields out. buffered_max, ahead_max: see engine.Options. commit_every: how often what is
        done is committed. drain: how long a rebalance and the end wait for handlers that run. environ: where the
        password is looked for.

        Raises: as `connect.connect` does; UsageError HR-0435 (group), HR-0444.
        """
        self._options = options(
            group, order, concurrency, budget, start, unknown_fields, buffered_max, ahead_max, commit_every, drain,
            sql=offsets is not None,
        )  # fmt: skip
        self._concurrency = concurrency
        self._offsets = offsets
        self._connection = connect(cluster, topic, ignore_unknown=unknown_fields == "ignore", environ=environ)
        self._engine: Engine | None = None
        self._stopping = False
        self._over = threading.Event()
        self._over.set()

    def run(self, handler: Handler | SqlHandler, *, until: str = "stopped") -> Counts:
        """Give events to `handler`, until `stop` or `close`; or, until="end", until all that was there at the beginning
        is done. handler(event), or handler(event, connection) with `offsets`; what it raises is a failure of its event.

        Raises: LogError HR-0303, HR-0340 to HR-0342, HR-0347, StateError HR-0436, UsageError HR-0438, HR-0439, HR-0444.
        Nothing passes that would pass by itself: a cluster that is down is waited for.
        """
        _refuse(until, inspect.iscoroutinefunction(handler), "hr.AsyncConsumer takes async handlers")
        if self._engine is not None or self._stopping:
            raise UsageError("HR-0444", "a consumer runs once", hint="make another one")
        engine = self._engine = Engine(self._connection, self._options, sql=self._offsets, ready=lambda _: None)
        self._over.clear()
        workers = [
            threading.Thread(target=self._worker(engine, handler).run, name=f"headrace-{number}", daemon=True)
            for number in range(self._concurrency)
        ]
        try:
            engine.open()
            for each in workers:
                each.start()
            while not (self._stopping or (until == "end" and engine.at_end())):
                engine.turn()
        finally:
            engine.finish()
            deadline = self._options.drain.micros / 1e6
            for each in workers:
                if each.ident is not None:
                    each.join(timeout=deadline)
            self._over.set()
        return engine.counts()

    def stop(self) -> None:
        """`run` is to end when what runs has ended. From any thread, and from a signal's handler."""
        self._stopping = True

    def close(self) -> None:
        """Stop, wait for the end of `run`, and let go."""
        self.stop()
        self._over.wait()
        self._connection.close()

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return NOTHING if self._engine is None else self._engine.counts()

    def _worker(self, engine: Engine, handler: Handler | SqlHandler) -> Worker | SqlWorker:
        if self._offsets is None:
            return Worker(engine, handler)  # type: ignore[arg-type]  # `offsets` says which of the two it is
        return SqlWorker(engine, self._offsets, handler)  # type: ignore[arg-type]  # as above

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncConsumer:
    """A member of a group, whose handlers are coroutines on the loop that `run` is awaited on."""

    def __init__(
        self,
        cluster: str | Messages,
        topic: Topic,
        *,
        group: str,
        order: str | Order = Order.KEY,
        concurrency: int = 100,
        budget: Budget | None = None,
        start: str | Start = Start.EARLIEST,
        unknown_fields: str = "refuse",
        buffered_max: int = 2_000,
        ahead_max: int = 20_000,
        commit_every: str | Duration = "1s",
        drain: str | Duration = "20s",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """As `Consumer`, without `offsets`: DB-API connections would hold the loop up."""
        self._options = options(
            group, order, concurrency, budget, start, unknown_fields, buffered_max, ahead_max, commit_every, drain,
            sql=False,
        )  # fmt: skip
        self._concurrency = concurrency
        self._connection: Connection = connect(
            cluster, topic, ignore_unknown=unknown_fields == "ignore", environ=environ
        )
        self._engine: Engine | None = None
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._over: asyncio.Event | None = None

    async def run(self, handler: AsyncHandler, *, until: str = "stopped") -> Counts:
        """As `Consumer.run`; handler is a coroutine function. Cancelled, it ends as by `stop`."""
        _refuse(until, not inspect.iscoroutinefunction(handler), "hr.Consumer takes handlers that are no coroutines")
        if self._engine is not None or self._stopping:
            raise UsageError("HR-0444", "a consumer runs once", hint="make another one")
        loop = asyncio.get_running_loop()

        def pump() -> None:
            self._pump(loop, engine, handler)

        def ready(_: int) -> None:
            loop.call_soon_threadsafe(pump)

        engine = self._engine = Engine(self._connection, self._options, sql=None, ready=ready)
        self._over = asyncio.Event()
        driving = asyncio.ensure_future(asyncio.to_thread(self._drive, engine, until))
        try:
            await asyncio.shield(driving)
        except asyncio.CancelledError:
            self._stopping = True
            await asyncio.wait([driving])
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._over.set()
        return engine.counts()

    def stop(self) -> None:
        """`run` is to end when what runs has ended. From any thread, and from a signal's handler."""
        self._stopping = True

    async def close(self) -> None:
        """Stop, wait for the end of `run`, and let go."""
        self.stop()
        if self._over is not None:
            await self._over.wait()
        self._connection.close()

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return NOTHING if self._engine is None else self._engine.counts()

    def _drive(self, engine: Engine, until: str) -> None:
        """The thread."""
        try:
            engine.open()
            while not (self._stopping or (until == "end" and engine.at_end())):
                engine.turn()
        finally:
            engine.finish()

    def _pump(self, loop: asyncio.AbstractEventLoop, engine: Engine, handler: AsyncHandler) -> None:
        """Start what may run, as much as there is room for. On the loop."""
        while len(self._tasks) < self._concurrency:
            entry, wait_s = engine.try_take()
            if entry is None:
                if wait_s is not None:
                    if self._timer is not None:
                        self._timer.cancel()
                    self._timer = loop.call_later(wait_s, self._pump, loop, engine, handler)
                return
            task = loop.create_task(work_async(engine, entry, handler))
            self._tasks.add(task)

            def ended(task: asyncio.Task[None]) -> None:
                self._tasks.discard(task)
                self._pump(loop, engine, handler)

            task.add_done_callback(ended)

    async def __aenter__(self) -> AsyncConsumer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


NOTHING = Counts(handled=0, failed=0, set_aside={}, released=0, void=0, buffered=0, running=0)


def options(
    group: str,
    order: str | Order,
    concurrency: int,
    budget: Budget | None,
    start: str | Start,
    unknown_fields: str,
    buffered_max: int,
    ahead_max: int,
    commit_every: str | Duration,
    drain: str | Duration,
    *,
    sql: bool,
) -> Options:
    """Raises: UsageError HR-0435, HR-0444."""
    for name, value, known in (
        ("order", getattr(order, "value", order), [each.value for each in Order]),
        ("start", getattr(start, "value", start), [each.value for each in Start]),
        ("unknown_fields", unknown_fields, ["refuse", "ignore"]),
    ):
        if value not in known:
            raise UsageError("HR-0444", f"{name}={value!r}", detail=f"expected {' or '.join(map(repr, known))}")
    for name, number in (("concurrency", concurrency), ("buffered_max", buffered_max), ("ahead_max", ahead_max)):
        if number < 1:
            raise UsageError("HR-0444", f"{name}={number}", detail="expected at least 1")
    return Options(
        group=group_name(group),
        lanes=Lanes.PARTITION if sql else _LANES[Order(order)],
        budget=budget or Budget(),
        start=Start(start),
        buffered_max=buffered_max,
        ahead_max=ahead_max,
        commit=Duration.parse(commit_every),
        drain=Duration.parse(drain),
    )


def _refuse(until: str, wrong_kind: bool, hint: str) -> None:
    if until not in ("stopped", "end"):
        raise UsageError("HR-0444", f"until={until!r}", detail="expected 'stopped' or 'end'")
    if wrong_kind:
        raise UsageError("HR-0444", "a handler of the wrong kind", hint=hint)
