"""Consumers over the cluster in memory: what a member does that lost its partitions, and what others then see."""

from __future__ import annotations

import threading
import time

import headrace as hr
from headrace.clients.kafka.port import GroupOffset, Place
from headrace.core.times import Duration
from headrace.sdk.consumer import Consumer
from headrace.sdk.define import Budget, Event, Reason, quarantine_topic
from headrace.sdk.producer import Producer
from headrace.sdk.quarantine import quarantined
from headrace.testing.contracts.sdk import running, until
from headrace.testing.kafka.messages import MemoryMessages

TOPIC = hr.Topic("payments", key="customer", partitions=1, fields={"n": hr.int64, "customer": hr.string})
PLACE = Place("payments", 0)


def cluster(count: int) -> MemoryMessages:
    made = MemoryMessages()
    made.make("payments", 1, {})
    with Producer(made, TOPIC) as producer:
        for number in range(count):
            producer.send({"n": number, "customer": f"c{number % 4}"})
    return made


def committed(messages: MemoryMessages) -> int:
    return messages.committed("g", [PLACE]).get(PLACE, GroupOffset(0, "")).offset


def test_late_results_of_a_member_that_lost_its_partitions_commit_nothing() -> None:
    messages = cluster(8)
    go, entered = threading.Event(), threading.Event()

    def stuck(event: Event) -> None:
        entered.set()
        assert go.wait(20)

    zombie = Consumer(messages, TOPIC, group="g", commit_every="1ms", concurrency=4)
    other = Consumer(messages, TOPIC, group="g", commit_every="1ms")
    seen: list[object] = []
    with running(zombie, stuck):
        assert entered.wait(20)
        with running(other, lambda event: seen.append(event["n"])):
            until(lambda: messages.members("g", "payments") == 2, "both are there")
            messages.depose("g", "payments")
            until(lambda: len(seen) == 8, "the other handles all of them")
            go.set()
            until(lambda: zombie.counts.void == 4, "what ran ends, and counts for nothing")
            assert (zombie.counts.running, zombie.counts.handled) == (0, 4)
            until(lambda: committed(messages) == 8, "the other commits")


def test_what_a_zombie_sets_aside_blocks_no_key() -> None:
    messages = cluster(4)
    seen: list[object] = []

    def fail(event: Event) -> None:
        raise ValueError("no")

    with running(Consumer(messages, TOPIC, group="g"), lambda event: seen.append(event["n"])):
        until(lambda: len(seen) == 4, "all are handled")
        with Consumer(messages, TOPIC, group="zombie", budget=Budget(attempts=1)) as failing:
            failing.run(fail, until="end")
        for index, record in messages.records(quarantine_topic("payments", "zombie")):
            messages.put(Place(quarantine_topic("payments", "g"), index), record.key, record.value, record.headers)
        until(lambda: quarantined(messages, TOPIC, group="g") == [], "it is said to be void")


def test_a_quarantine_that_cannot_be_written_holds_the_event_back() -> None:
    messages = cluster(8)
    budget = Budget(attempts=2, first=Duration.parse("1ms"))
    consumer = Consumer(messages, TOPIC, group="g", budget=budget, commit_every="1ms")

    def fail(event: Event) -> None:
        if event.key == "c1":
            raise ValueError("no")

    messages.refuse(True)
    with running(consumer, fail):
        until(lambda: consumer.counts.failed == 2 and consumer.counts.handled == 6, "the others are handled")
        until(lambda: committed(messages) > 0, "what is done is committed")
        time.sleep(0.5)
        assert committed(messages) == 1, "not past what lies nowhere else"
        messages.refuse(False)
        until(lambda: committed(messages) == 8, "it is set aside")
    assert consumer.counts.set_aside == {Reason.FAILED: 1, Reason.BEHIND: 1}


def test_stopping_lets_what_runs_end_and_commits_it() -> None:
    messages = cluster(4)
    entered = threading.Barrier(5, timeout=20)

    def slow(event: Event) -> None:
        entered.wait()
        time.sleep(0.2)

    with running(Consumer(messages, TOPIC, group="g", concurrency=4), slow):
        entered.wait()
    assert committed(messages) == 4
