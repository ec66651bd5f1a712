"""Two fetchers as one: nothing is lost or given twice where a partition goes from one to the other, or one fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.clients.kafka.port import Fetcher, Outgoing, Place
from headrace.core.errors import LogError
from headrace.core.times import ZERO
from headrace.log.kafka_fetchers import KEEP_SECONDS, Fetchers
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient

OWN, OTHER = Place("orders", 0), Place("orders", 1)


class Failing(Fetcher):
    """A fetcher whose next fetch fails, where it is told so."""

    def __init__(self, inner: Fetcher) -> None:
        self._inner = inner
        self.fails = False
        self.read: set[Place] = set()

    def seek(self, place: Place, offset: int) -> None:
        self.read.add(place)
        self._inner.seek(place, offset)

    def drop(self, place: Place) -> None:
        self.read.discard(place)
        self._inner.drop(place)

    def fetch(self, *, timeout, records_max=10_000):  # type: ignore[no-untyped-def]  # the port's
        if self.fails:
            raise LogError("HR-0340", "no broker answers", retryable=True)
        return self._inner.fetch(timeout=timeout, records_max=records_max)

    def close(self) -> None:
        self._inner.close()


class Cluster(ModelClient):
    """Its fetchers, as they are made."""

    def __init__(self, model: KafkaModel) -> None:
        super().__init__(model)
        self.made: list[Failing] = []

    def fetcher(self, *, eager: bool = False) -> Fetcher:
        assert eager == bool(self.made), "the second hurries"
        self.made.append(Failing(super().fetcher()))
        return self.made[-1]


class Shop:
    def __init__(self) -> None:
        self.cluster = Cluster(KafkaModel(ManualClock()))
        self.cluster.create("orders", partitions=2, settings={})
        self._sender = self.cluster.sender()
        self.now = 0.0
        self.fetchers = Fetchers(self.cluster, monotonic=lambda: self.now)
        self.seen: dict[Place, list[bytes]] = {OWN: [], OTHER: []}
        for place in (OWN, OTHER):
            self.fetchers.seek(place, 0)

    def send(self, text: bytes, *places: Place) -> None:
        self._sender.send([Outgoing(place, b"", text) for place in places or (OWN, OTHER)])

    def fetch(self) -> None:
        for one in self.fetchers.fetch(timeout=ZERO):
            self.seen[one.place] += [record.value or b"" for record in one.records]


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.fetchers.close()


def test_a_partition_goes_over_without_a_gap(shop: Shop) -> None:
    shop.send(b"1")
    shop.fetch()
    shop.send(b"2")
    shop.fetchers.hurry([OWN])
    shop.fetch()
    shop.send(b"3")
    shop.now += KEEP_SECONDS + 1
    shop.fetch()  # and back
    shop.send(b"4")
    shop.fetch()
    assert shop.seen == {OWN: [b"1", b"2", b"3", b"4"], OTHER: [b"1", b"2", b"3", b"4"]}
    gathering, hurrying = shop.cluster.made
    assert (gathering.read, hurrying.read) == ({OWN, OTHER}, set())


def test_what_came_is_given_where_the_other_fetcher_fails(shop: Shop) -> None:
    shop.fetchers.hurry([OWN])
    gathering, hurrying = shop.cluster.made
    shop.send(b"1")
    hurrying.fails = True
    shop.fetch()
    assert shop.seen == {OWN: [], OTHER: [b"1"]}
    with pytest.raises(LogError, match="HR-0340"):
        shop.fetch()
    hurrying.fails = False
    gathering.fails = True
    with pytest.raises(LogError, match="HR-0340"):
        shop.fetch()
    gathering.fails = False
    shop.fetch()
    assert shop.seen == {OWN: [b"1"], OTHER: [b"1"]}


def test_what_is_not_read_is_not_hurried(shop: Shop) -> None:
    shop.fetchers.drop(OWN)
    shop.fetchers.hurry([OWN])
    shop.send(b"1")
    shop.fetch()
    assert shop.seen == {OWN: [], OTHER: [b"1"]} and len(shop.cluster.made) == 1
    shop.fetchers.seek(OWN, 0)
    shop.fetch()
    assert shop.seen[OWN] == [b"1"]
