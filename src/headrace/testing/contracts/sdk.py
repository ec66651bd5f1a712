"""What producers and consumers keep, over whatever cluster. `CHECKS` runs over the fake and over real Kafka.

A check gets a cluster and asserts; the topics it makes have names of their own. Touches only the cluster.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headrace.clients.kafka.port import Place, Record
from headrace.core.codec import key_bytes, partition_of
from headrace.core.errors import HeadraceError, UsageError
from headrace.core.schema import decimal, int64, string, timestamp
from headrace.core.times import Duration
from headrace.log.define import Topic
from headrace.sdk.consumer import AsyncConsumer, Consumer
from headrace.sdk.define import Budget, Event, Reason
from headrace.sdk.port import Messages
from headrace.sdk.producer import AsyncProducer, Producer
from headrace.sdk.quarantine import quarantined, release, show

SOON = Budget(attempts=3, first=Duration.parse("5ms"), longest=Duration.parse("20ms"))
WAIT_S = 30.0


@dataclass(frozen=True)
class SdkUnderTest:
    """messages: the cluster. put: writes a record as any client could."""

    messages: Messages
    put: Callable[[Place, bytes | None, bytes | None], object]


def topic_of(under: SdkUnderTest, partitions: int = 3) -> Topic:
    """A topic of its own, made in the cluster."""
    made = Topic(
        f"orders_{uuid.uuid4().hex[:12]}",
        key="customer",
        id="number",
        partitions=partitions,
        fields={"number": int64, "customer": string, "amount": decimal(12, 2), "at": timestamp},
    )
    under.messages.make(under.messages.topic_name(made.name), partitions, {})
    return made


def order(number: int, customer: str = "", **changed: object) -> dict[str, object]:
    said: dict[str, object] = {
        "number": number, "customer": customer or f"c{number % 10}", "amount": "12.50", "at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return {**said, **changed}


def produce(under: SdkUnderTest, topic: Topic, count: int, *, first: int = 0) -> None:
    with Producer(under.messages, topic) as producer:
        for number in range(first, first + count):
            producer.send(order(number))


class Seen:
    """What a handler saw, by key, in order. failing: keys that fail for now."""

    def __init__(self, *failing: str) -> None:
        self.failing = set(failing)
        self.by_key: dict[str | int, list[int]] = {}
        self.attempts: dict[int, int] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        number = event["number"]
        assert isinstance(number, int)
        with self._lock:
            self.attempts[number] = event.attempt
            if event.key in self.failing:
                raise ValueError(f"order {number} fails")
            self.by_key.setdefault(event.key, []).append(number)

    async def later(self, event: Event) -> None:
        await asyncio.sleep(0)
        self(event)

    def all(self) -> list[int]:
        return sorted(number for numbers in self.by_key.values() for number in numbers)

    def in_order(self) -> bool:
        return all(numbers == sorted(numbers) for numbers in self.by_key.values())


@contextmanager
def refused(code: str) -> Iterator[None]:
    try:
        yield
    except HeadraceError as error:
        assert error.code == code, f"expected {code}, seen {error}"
        return
    raise AssertionError(f"expected {code}, nothing was raised")


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        time.sleep(0.01)


@contextmanager
def running(consumer: Consumer, handler: Callable[[Event], object]) -> Iterator[None]:
    """A consumer at work in a thread; closed at the end. What it raises is raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            consumer.run(handler)
        except BaseException as error:
            raised.append(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        consumer.close()
        thread.join(WAIT_S)
    assert not raised, raised
    assert not thread.is_alive()


# --- producers ---


def check_events_are_where_their_keys_belong(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    with Producer(under.messages, topic) as producer:
        receipts = [producer.send(order(number)) for number in range(50)]
        placed = [receipt.result() for receipt in receipts]
        assert all(receipt.done for receipt in receipts) and producer.waiting == 0
    assert [each.partition for each in placed] == [partition_of(f"c{number % 10}", 3) for number in range(50)]
    for partition in range(3):
        offsets = [each.offset for each in placed if each.partition == partition]
        assert offsets == sorted(set(offsets))
    records = read(under, topic)
    one = next(record for _, record in records if record.key == b"c7")
    assert one.value == b'{"amount":"12.50","at":"2026-01-01T00:00:00Z","customer":"c7","number":7}'
    assert one.key == key_bytes("c7")


def check_what_does_not_fit_is_not_sent(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    with Producer(under.messages, topic) as producer:
        for event, code in (
            (order(1, amount="1.234"), "HR-0402"),
            (order(1) | {"customer": None}, "HR-0406"),
            (order(1, extra=1), "HR-0405"),
            (order(1, customer="c" * 2_000_000), "HR-0430"),
        ):
            with refused(code):
                producer.send(event)
        producer.flush()
    assert read(under, topic) == []
    with refused("HR-0432"):
        producer.send(order(1))


def check_a_transaction_is_whole_or_not_at_all(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    name = f"orders {topic.name}"
    with Producer(under.messages, topic, transactional_id=name) as producer:
        with refused("HR-0444"):
            producer.send(order(0))
        with producer.transaction():
            for number in range(10):
                producer.send(order(number))
        try:
            with producer.transaction():
                producer.send(order(10))
                raise KeyError("not this one")
        except KeyError:
            pass
        with producer.transaction():
            producer.send(order(11))
        newer = Producer(under.messages, topic, transactional_id=name)
        with refused("HR-0344"), producer.transaction():
            producer.send(order(12))
        with newer.transaction():
            newer.send(order(13))
        newer.close()
    seen = Seen()
    with Consumer(under.messages, topic, group="readers") as consumer:
        consumer.run(seen, until="end")
    assert seen.all() == [*range(10), 11, 13]


def check_an_asynchronous_producer_does_the_same(under: SdkUnderTest) -> None:
    topic = topic_of(under)

    async def send() -> None:
        async with AsyncProducer(under.messages, topic, buffered_max=20) as producer:
            with refused("HR-0406"):
                await producer.send(order(1) | {"customer": None})
            receipts = [await producer.send(order(number)) for number in range(200)]
            placed = await asyncio.gather(*receipts)
            assert [each.partition for each in placed] == [partition_of(f"c{number % 10}", 3) for number in range(200)]
            await producer.flush()
            assert producer.waiting == 0

    asyncio.run(send())
    assert len(read(under, topic)) == 200


def check_partitions_must_be_as_declared(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    wider = Topic(topic.name, key="customer", partitions=4, fields={"customer": string})
    with refused("HR-0433"):
        Producer(under.messages, wider)
    with refused("HR-0302"):
        Consumer(under.messages, Topic(f"no_{topic.name}", key="customer", fields={"customer": string}), group="x")


# --- consumers ---


def check_each_event_is_handled_once_and_in_order(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    produce(under, topic, 500)
    seen = Seen()
    with Consumer(under.messages, topic, group="readers") as consumer:
        counts = consumer.run(seen, until="end")
    assert (counts.handled, counts.buffered, counts.running) == (500, 0, 0)
    assert seen.all() == list(range(500)) and seen.in_order()
    produce(under, topic, 10, first=500)
    seen = Seen()
    with Consumer(under.messages, topic, group="readers") as consumer:
        consumer.run(seen, until="end")
    assert seen.all() == list(range(500, 510)), "a group goes on where it was"
    seen = Seen()
    with Consumer(under.messages, topic, group="others", start="latest") as consumer:
        consumer.run(seen, until="end")
    assert seen.all() == []


def check_keys_run_at_more_concurrency_than_partitions(under: SdkUnderTest) -> None:
    topic = topic_of(under, 1)
    produce(under, topic, 8)
    together = threading.Barrier(8, timeout=WAIT_S)
    with Consumer(under.messages, topic, group="readers", concurrency=8) as consumer:
        assert consumer.run(lambda event: together.wait(), until="end").handled == 8


def check_asynchronous_handlers(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    produce(under, topic, 300)
    seen = Seen("c3")

    async def run() -> None:
        async with AsyncConsumer(under.messages, topic, group="readers", budget=SOON) as consumer:
            counts = await consumer.run(seen.later, until="end")
            assert counts.handled == 270 and counts.set_aside == {Reason.FAILED: 1, Reason.BEHIND: 29}

    asyncio.run(run())
    assert seen.all() == [number for number in range(300) if number % 10 != 3] and seen.in_order()


def check_a_failing_event_is_tried_again_and_others_go_on(under: SdkUnderTest) -> None:
    topic = topic_of(under, 1)
    produce(under, topic, 100)
    seen = Seen("c3")
    consumer = Consumer(
        under.messages, topic, group="readers", budget=Budget(attempts=10_000, longest=Duration.parse("100ms"))
    )
    with running(consumer, seen):
        until(lambda: len(seen.all()) == 90, "the other keys go on")
        until(lambda: seen.attempts.get(3, 0) > 2, "it is tried again")
        seen.failing.clear()
        until(lambda: len(seen.all()) == 100, "the key goes on")
    assert seen.in_order() and consumer.counts.set_aside == {}


def check_past_its_budget_a_key_is_set_aside_until_released(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    produce(under, topic, 100)
    seen = Seen("c3")
    with Consumer(under.messages, topic, group="readers", budget=SOON) as consumer:
        counts = consumer.run(seen, until="end")
    assert counts.set_aside == {Reason.FAILED: 1, Reason.BEHIND: 9} and counts.handled == 90
    held = quarantined(under.messages, topic, group="readers")
    assert [json.loads(each.value or b"")["number"] for each in held] == list(range(3, 100, 10))
    first = held[0]
    assert (first.key, first.attempts, first.failure.kind) == (b"c3", 3, "ValueError")
    assert "order 3 fails" in first.failure.text and first.failure.reason is Reason.FAILED
    assert show(under.messages, topic, group="readers", partition=first.partition, offset=first.offset) == first
    produce(under, topic, 20, first=100)
    with Consumer(under.messages, topic, group="readers", budget=SOON) as consumer:
        counts = consumer.run(seen, until="end")
    assert counts.set_aside == {Reason.BEHIND: 2} and counts.handled == 18, "that it is set aside outlives a consumer"
    assert release(under.messages, topic, group="readers", key="c3") == 12
    produce(under, topic, 10, first=120)
    seen.failing.clear()
    with Consumer(under.messages, topic, group="readers", budget=SOON) as consumer:
        counts = consumer.run(seen, until="end")
    assert (counts.released, counts.handled) == (12, 10)
    assert seen.by_key["c3"] == list(range(3, 130, 10)), "in order, and before any newer one"
    assert quarantined(under.messages, topic, group="readers") == []
    with refused("HR-0443"):
        release(under.messages, topic, group="readers", key="c3")


def check_a_release_is_taken_up_at_work(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    produce(under, topic, 50)
    seen = Seen("c3")
    with running(Consumer(under.messages, topic, group="readers", budget=SOON), seen):
        until(lambda: len(quarantined(under.messages, topic, group="readers")) == 5, "five are set aside")
        release(under.messages, topic, group="readers", key="c3")
        until(lambda: seen.attempts[3] == 3, "they are tried again")

        def again() -> bool:
            held = quarantined(under.messages, topic, group="readers")
            return len(held) == 5 and not any(each.released for each in held) and held[0].attempts == 3

        until(again, "and set aside again")
        seen.failing.clear()
        release(under.messages, topic, group="readers", everything=True)
        produce(under, topic, 10, first=50)
        until(lambda: len(seen.all()) == 60, "they are handled, and what came after")
    assert seen.in_order()
    assert quarantined(under.messages, topic, group="readers") == []


def check_poison_is_set_aside_at_once(under: SdkUnderTest) -> None:
    topic = topic_of(under)
    name = under.messages.topic_name(topic.name)
    home = partition_of("c1", 3)
    good = json.dumps(order(1, "c1")).encode()
    under.put(Place(name, home), b"c1", b'{"number": 1, "cust')
    under.put(Place(name, home), b"c1", b'{"number": "one", "customer": "c1"}')
    under.put(Place(name, (home + 1) % 3), b"c1", good)
    under.put(Place(name, home), b"c2", good)
    under.put(Place(name, home), None, good)
    under.put(Place(name, home), b"c1", None)
    under.put(Place(name, home), b"c1", good)
    seen = Seen()
    with Consumer(under.messages, topic, group="readers") as consumer:
        counts = consumer.run(seen, until="end")
    assert seen.by_key == {"c1": [1]}, "what fits goes on"
    assert counts.set_aside == {Reason.UNREADABLE: 2, Reason.UNFIT: 1, Reason.MISPLACED: 3}
    held = quarantined(under.messages, topic, group="readers")
    assert sorted((each.key, each.value) for each in held if each.value is not None and each.key is not None) == sorted(
        [(b"c1", b'{"number": 1, "cust'), (b"c1", b'{"number": "one", "customer": "c1"}'), (b"c1", good), (b"c2", good)]
    )
    assert sum(each.key is None for each in held) == 1 and sum(each.value is None for each in held) == 1
    with Consumer(under.messages, topic, group="readers") as consumer:
        assert consumer.run(seen, until="end").handled == 0
    (unfit,) = [each for each in held if each.failure.reason is Reason.UNFIT]
    assert release(under.messages, topic, group="readers", partition=unfit.partition, offset=unfit.offset) == 1
    with Consumer(under.messages, topic, group="readers") as consumer:
        assert consumer.run(seen, until="end").set_aside == {Reason.UNFIT: 1}, "it is as unfit as it was"
    assert len(quarantined(under.messages, topic, group="readers")) == 6


def check_without_order_nothing_waits_for_anything(under: SdkUnderTest) -> None:
    topic = topic_of(under, 1)
    produce(under, topic, 50)
    fails = {13, 23}

    def handle(event: Event) -> None:
        if event["number"] in fails:
            raise ValueError("no")

    with Consumer(under.messages, topic, group="readers", order="none", budget=SOON) as consumer:
        counts = consumer.run(handle, until="end")
    assert counts.handled == 48 and counts.set_aside == {Reason.FAILED: 2}
    fails.clear()
    assert release(under.messages, topic, group="readers", everything=True) == 2
    with Consumer(under.messages, topic, group="readers", order="none") as consumer:
        assert consumer.run(handle, until="end").released == 2


def check_two_consumers_share_and_nothing_is_lost(under: SdkUnderTest) -> None:
    topic = topic_of(under, 6)
    produce(under, topic, 200)
    seen = Seen()

    def handle(event: Event) -> None:
        time.sleep(0.002)
        seen(event)

    one, two = (Consumer(under.messages, topic, group="readers", commit_every="50ms") for _ in range(2))
    with running(one, handle):
        until(lambda: len(seen.all()) > 20, "the first is at work")
        sent = 200

        def shared() -> bool:
            """Events come until then: the first alone may be done with all that there are before."""
            nonlocal sent
            produce(under, topic, 100, first=sent)
            sent += 100
            return two.counts.handled > 0

        with running(two, handle):
            until(shared, "the second has a share")
            until(lambda: set(seen.all()) == set(range(sent)), "all are handled")
        produce(under, topic, 100, first=sent)
        until(lambda: set(seen.all()) == set(range(sent + 100)), "the first has all of it again")
    assert seen.all() == list(range(sent + 100)), "a graceful change handles nothing twice"
    assert seen.in_order()


def check_a_slow_consumer_reads_no_more_than_it_may(under: SdkUnderTest) -> None:
    topic = topic_of(under, 1)
    produce(under, topic, 500)
    go = threading.Event()
    seen = Seen()

    def handle(event: Event) -> None:
        assert go.wait(WAIT_S)
        seen(event)

    consumer = Consumer(under.messages, topic, group="readers", buffered_max=50, concurrency=2)
    with running(consumer, handle):
        until(lambda: consumer.counts.buffered >= 50, "it fills up")
        time.sleep(0.5)
        assert consumer.counts.buffered <= 50 + 1_000, "a poll's worth beyond at most"
        go.set()
        until(lambda: len(seen.all()) == 500, "it goes on")
    assert seen.in_order()


def check_what_is_done_beyond_a_gap_is_not_done_again(under: SdkUnderTest) -> None:
    topic = topic_of(under, 1)
    produce(under, topic, 50)
    stuck = Seen("c0")
    consumer = Consumer(
        under.messages, topic, group="readers", budget=Budget(attempts=10_000), drain="2s", commit_every="20ms"
    )
    with running(consumer, stuck):
        until(lambda: len(stuck.all()) == 45, "all but the failing key's")
    seen = Seen()
    with Consumer(under.messages, topic, group="readers") as consumer:
        consumer.run(seen, until="end")
    assert seen.all() == list(range(0, 50, 10)), "the first key was at the very beginning"


def check_a_consumer_is_used_as_it_is_meant(under: SdkUnderTest) -> None:
    topic = topic_of(under)

    async def asynchronous(event: Event) -> None: ...

    with Consumer(under.messages, topic, group="readers") as consumer:
        with refused("HR-0444"):
            consumer.run(asynchronous)
        with refused("HR-0444"):
            consumer.run(print, until="never")
        consumer.run(print, until="end")
        with refused("HR-0444"):
            consumer.run(print)
    for wrong in ({"group": "a b"}, {"group": "g", "order": "random"}, {"group": "g", "concurrency": 0}):
        try:
            Consumer(under.messages, topic, **wrong)
        except UsageError:
            continue
        raise AssertionError(wrong)


def read(under: SdkUnderTest, topic: Topic) -> list[tuple[int, Record]]:
    """All that is in a topic."""
    name = under.messages.topic_name(topic.name)
    places = [Place(name, index) for index in range(topic.partitions)]
    tail = under.messages.tail()
    waiting = {}
    for place, span in zip(places, under.messages.spans(places), strict=True):
        tail.seek(place, span.start)
        if span.start < span.end:
            waiting[place] = span.end
    found: list[tuple[int, Record]] = []
    deadline = time.monotonic() + WAIT_S
    while waiting:
        assert time.monotonic() < deadline
        for fetched in tail.fetch(timeout=Duration.parse("100ms")):
            found += [(fetched.place.partition, each) for each in fetched.records]
            if fetched.next >= waiting.get(fetched.place, 0):
                waiting.pop(fetched.place, None)
    tail.close()
    return found


CHECKS = tuple(value for name, value in sorted(globals().items()) if name.startswith("check_"))
