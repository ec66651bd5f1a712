"""`hr.Producer` and `hr.AsyncProducer`: events of a topic, checked, placed by their key, sent and acknowledged. Touches
the cluster.

    with hr.Producer("kafka://127.0.0.1:9092", payments) as producer:
        receipt = producer.send({"payment": "p-1", "customer": "c-1", "amount": "12.50"})
        partition, offset = receipt.result()

The one idea: an event that does not fit never leaves; one that fits is sent once, and its receipt says where it is.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from headrace.clients.kafka.messages import LINGER
from headrace.clients.kafka.port import Headers, Place
from headrace.core.errors import HeadraceError, InputError, LogError, UsageError
from headrace.core.times import Duration
from headrace.log.define import Topic
from headrace.schemas.validate import Event
from headrace.sdk.connect import connect
from headrace.sdk.define import Placed
from headrace.sdk.port import Messages
from headrace.sdk.sending import SLICE, Receipt, Sending

RECORD_OVERHEAD = 128  # bytes of a record and its batch beside key, value and headers, rounded up
Said = Mapping[str, bytes]


class _Desk:
    """What both producers share: the topic, its codec, its limits."""

    def __init__(
        self,
        cluster: str | Messages,
        topic: Topic,
        *,
        buffered_max: int,
        linger: Duration,
        patience: Duration,
        transactional_id: str | None,
        environ: Mapping[str, str] | None,
    ) -> None:
        self.connection = connect(cluster, topic, environ=environ)
        self.outbox = self.connection.messages.outbox(
            buffered_max=buffered_max,
            linger=linger,
            transactional_id=transactional_id,
            record_bytes_max=self.connection.about.record_bytes_max,
        )
        self.sending = Sending(self.outbox, patience=patience)
        self.places = [Place(self.connection.name, each) for each in range(topic.partitions)]
        self._bytes_max = self.connection.about.record_bytes_max - RECORD_OVERHEAD
        self._topic = topic
        self.closed = False

    def prepare(self, event: Event, said: Said | None) -> tuple[Place, bytes, bytes, Headers]:
        """Raises: SchemaError, InputError HR-0430, UsageError HR-0432."""
        if self.closed:
            raise UsageError("HR-0432", f"the producer of topic {self._topic.name!r} is closed")
        partition, key, value = self.connection.codec.encode(event)
        headers = tuple(said.items()) if said else ()
        size = len(key) + len(value) + sum(len(name) + len(text) for name, text in headers)
        if size > self._bytes_max:
            raise InputError(
                "HR-0430",
                f"topic {self._topic.name!r}: an event of {size:,} bytes",
                detail=f"expected at most {self._bytes_max:,}, as the topic's max.message.bytes says",
                hint="a large text belongs into an object store, and its address into the event",
                size_bytes=size,
            )
        return self.places[partition], key, value, headers

    def close(self) -> None:
        self.closed = True
        self.outbox.close()
        self.connection.close()


class Producer:
    """Sends events of a topic. From any thread; a transaction is one thread's."""

    def __init__(
        self,
        cluster: str | Messages,
        topic: Topic,
        *,
        buffered_max: int = 100_000,
        linger: str | Duration = LINGER,
        patience: str | Duration = "30s",
        transactional_id: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """cluster: an address, as "kafka://HOST:PORT/PREFIX", or a fake. environ: where the password is looked for.
        buffered_max: events on their way; beyond, `send` waits for at most `patience`. linger: an event waits so long
        for others of its partition, which go in one request: more is slower for each, and far less work for all.
        transactional_id: names this producer over restarts; with it, events are sent in transactions only, and an older
        producer of the name is fenced off.

        Raises: as `connect.connect` does.
        """
        self._desk = _Desk(
            cluster,
            topic,
            buffered_max=buffered_max,
            linger=Duration.parse(linger),
            patience=Duration.parse(patience),
            transactional_id=transactional_id,
            environ=environ,
        )
        self._transactional = transactional_id is not None
        self._open = False

    def send(self, event: Event, *, headers: Said | None = None) -> Receipt:
        """Send an event; its receipt has the answer. headers: of the record.

        Raises, with nothing sent: SchemaError HR-0401 to HR-0409, HR-0103 (it does not fit the topic), InputError
        HR-0430 (too large), LogError HR-0431 (no room in time), UsageError HR-0432 (closed), HR-0444 (no transaction).
        """
        if self._transactional and not self._open:
            raise UsageError(
                "HR-0444", "a transactional producer outside of a transaction", hint="with producer.transaction(): ..."
            )
        return self._desk.sending.send(*self._desk.prepare(event, headers))

    def flush(self, timeout: str | Duration = "2m") -> None:
        """Until all that was sent is acknowledged. Raises: LogError HR-0431; the first error of a send since the last
        flush."""
        self._desk.sending.flush(Duration.parse(timeout))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is sent inside becomes visible at its end, all of it; or, where anything is raised, nothing.

        Raises: LogError HR-0345 (given up, may be done again), HR-0311 (unknown: a new producer of the name ends it),
        FencedError HR-0344, UsageError HR-0444.
        """
        if not self._transactional or self._open:
            raise UsageError(
                "HR-0444",
                "a transaction within another"
                if self._open
                else "a transaction of a producer without transactional_id",
                hint="hr.Producer(..., transactional_id=NAME)",
            )
        outbox, sending = self._desk.outbox, self._desk.sending
        outbox.begin()
        self._open = True
        try:
            try:
                yield
                sending.flush(Duration.parse("1m"))
            except BaseException:
                outbox.abort()
                raise
            try:
                outbox.commit()
            except LogError as error:
                if error.code == "HR-0345":
                    outbox.abort()
                raise
        finally:
            sending.forget()  # what became of them is what became of the transaction
            self._open = False

    @property
    def waiting(self) -> int:
        """Events that are sent and not acknowledged."""
        return self._desk.sending.waiting

    def close(self, timeout: str | Duration = "2m") -> None:
        """Flush, and let go. Raises: as `flush` does, when everything is let go."""
        if self._desk.closed:
            return
        try:
            if not self._open:
                self.flush(timeout)
        finally:
            self._desk.close()

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Waited(Receipt):
    """A receipt that says when it is answered."""

    __slots__ = ("_answers", "future")

    def __init__(
        self, sending: Sending, partition: int, future: asyncio.Future[Placed], answers: deque[_Waited]
    ) -> None:
        super().__init__(sending, partition)
        self.future = future
        self._answers = answers

    def answer(self, offset: int, error: HeadraceError | None) -> None:
        super().answer(offset, error)
        self._answers.append(self)


class AsyncReceipt(Awaitable[Placed]):
    """`partition, offset = await receipt`."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Placed]) -> None:
        self._future = future

    @property
    def done(self) -> bool:
        return self._future.done()

    def __await__(self) -> Generator[object, None, Placed]:
        return asyncio.shield(self._future).__await__()


class AsyncProducer:
    """Sends events of a topic, on the event loop that `send` is first awaited on. It has one thread, which waits for
    answers while there are any to come."""

    def __init__(
        self,
        cluster: str | Messages,
        topic: Topic,
        *,
        buffered_max: int = 100_000,
        linger: str | Duration = LINGER,
        patience: str | Duration = "30s",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """As `Producer`; it asks the cluster, some milliseconds. Transactions are the synchronous producer's."""
        self._patience = Duration.parse(patience)
        self._desk = _Desk(
            cluster,
            topic,
            buffered_max=buffered_max,
            linger=Duration.parse(linger),
            patience=self._patience,
            transactional_id=None,
            environ=environ,
        )
        self._answers: deque[_Waited] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._room: asyncio.Event | None = None

    async def send(self, event: Event, *, headers: Said | None = None) -> AsyncReceipt:
        """Send an event; waits where there is no room. Raises: as `Producer.send` does."""
        place, key, value, said = self._desk.prepare(event, headers)
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._room = asyncio.Event()
            self._thread = threading.Thread(target=self._serve, args=(loop,), name="headrace-producer", daemon=True)
            self._thread.start()
        sending, future = self._desk.sending, loop.create_future()
        receipt = _Waited(sending, place.partition, future, self._answers)
        deadline = loop.time() + self._patience.micros / 1e6
        while not sending.try_send(place, key, value, said, receipt):
            left = deadline - loop.time()
            if left <= 0:
                raise LogError(
                    "HR-0431", f"no room in the buffer within {self._patience}",
                    detail=f"{self._desk.sending.waiting:,} sends are without answer", retryable=True,
                )  # fmt: skip
            assert self._room is not None
            self._room.clear()
            try:
                await asyncio.wait_for(self._room.wait(), min(left, 1.0))
            except TimeoutError:
                pass
        self._wake.set()
        return AsyncReceipt(future)

    async def flush(self, timeout: str | Duration = "2m") -> None:
        """As `Producer.flush`."""
        await asyncio.to_thread(self._desk.sending.flush, Duration.parse(timeout))

    @property
    def waiting(self) -> int:
        return self._desk.sending.waiting

    async def close(self, timeout: str | Duration = "2m") -> None:
        """As `Producer.close`."""
        if self._desk.closed:
            return
        try:
            await self.flush(timeout)
        finally:
            self._desk.closed = True
            self._wake.set()
            if self._thread is not None:
                await asyncio.to_thread(self._thread.join)
            self._desk.close()

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: answers in, and the loop told of many at once."""
        sending = self._desk.sending
        while not self._desk.closed:
            if not sending.waiting:
                self._wake.clear()
                if not sending.waiting and not self._desk.closed:
                    self._wake.wait()
                continue
            before = sending.waiting
            sending.serve(SLICE)
            if sending.waiting != before and not loop.is_closed():
                loop.call_soon_threadsafe(self._tell)
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        """On the loop."""
        assert self._room is not None
        self._room.set()
        while self._answers:
            receipt = self._answers.popleft()
            if receipt.future.done():
                continue
            try:
                receipt.future.set_result(receipt.result())
            except HeadraceError as error:
                receipt.future.set_exception(error)
                receipt.future.exception()  # who only flushes is told by `flush`, and not by a warning about it
