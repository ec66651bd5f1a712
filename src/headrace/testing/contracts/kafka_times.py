"""What every `KafkaClient` keeps about time: who stamped a record, and what brokers' clocks say. `CHECKS` runs over
real Kafka and over the model, as those of `testing/contracts/kafka.py`, by whose rules they are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.clients.kafka.port import Fetched, Outgoing, Place
from headrace.testing.contracts.kafka import A_WHILE, TRIES_MAX, KafkaUnderTest, out, read_to_end, refused


def check_who_stamped_a_record_is_told_with_it(under: KafkaUnderTest) -> None:
    """A batch keeps the type of its timestamps, whatever its topic is set to later."""
    (place,) = under.topic(message_timestamp_type="LogAppendTime")
    under.sender().send(out(place, "a"))
    assert under.client.settings(place.topic)["message.timestamp.type"] == "LogAppendTime"
    under.client.alter(place.topic, settings={"message.timestamp.type": "CreateTime"})
    for _ in range(TRIES_MAX):  # brokers hear of it a moment later
        if under.client.settings(place.topic)["message.timestamp.type"] == "CreateTime":
            break
        time.sleep(A_WHILE.micros / 1e6)
    assert under.client.settings(place.topic)["message.timestamp.type"] == "CreateTime"
    for _ in range(TRIES_MAX):
        under.sender().send(out(place, "b"))
        created = [offset for each in _fetches(under, place) for offset in each.created]
        if created:
            break
    end = under.client.spans([place])[0].end
    assert created and created[0] > 0 and created == list(range(created[0], end))


def _fetches(under: KafkaUnderTest, place: Place) -> list[Fetched]:
    fetcher, end = under.fetcher(place), under.client.spans([place])[0].end
    found: list[Fetched] = []
    for _ in range(TRIES_MAX):
        found += fetcher.fetch(timeout=A_WHILE)
        if found and found[-1].next >= end:
            return found
    raise AssertionError(f"not at {end}: {found}")


def check_brokers_tell_their_time(under: KafkaUnderTest) -> None:
    one, two = under.topic(partitions=2, message_timestamp_type="LogAppendTime", cleanup_policy="compact")
    leaders = under.client.leaders(one.topic)
    assert set(leaders) == {one.partition, two.partition}
    first = under.client.broker_times(one.topic)
    assert [each.broker for each in first] == sorted(set(leaders.values()))
    under.sender().send([Outgoing(one, b"k", b"later")])
    (record,) = [each for each in read_to_end(under.fetcher(one), one)[one].records if each.key == b"k"]
    at = next(each.at for each in first if each.broker == leaders[0])
    assert 0 < at <= record.timestamp * 1_000
    assert [each.broker for each in under.again.broker_times(one.topic)] == [each.broker for each in first]
    with refused("HR-0302"):
        under.client.leaders(under.prefix + "nothing")


CHECKS: tuple[Callable[[KafkaUnderTest], None], ...] = (
    check_who_stamped_a_record_is_told_with_it,
    check_brokers_tell_their_time,
)
