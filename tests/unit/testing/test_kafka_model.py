"""The model of Kafka: what a cluster does beside what the contract asks of every client."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from headrace.clients.kafka.port import GroupOffset, Outgoing, Place, Sender, Span
from headrace.core.errors import FencedError, LogError
from headrace.core.times import ZERO, Duration
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient
from headrace.testing.kafka.model_partition import ModelPartition, OutOfOrderError, StaleEpochError

P = Place("t", 0)


def out(*values: str, place: Place = P, key: bytes | None = None) -> list[Outgoing]:
    return [Outgoing(place, key, value.encode()) for value in values]


class Cluster:
    """A model, its clock, and a client of it."""

    def __init__(self, *, skews: Sequence[int] = (0, 0, 0), lag: Callable[[], int] | None = None) -> None:
        self.clock = ManualClock()
        self.model = KafkaModel(self.clock, skews=skews, lag=lag)
        self.client = ModelClient(self.model)
        self.client.create("t", partitions=2, settings={"message.timestamp.type": "LogAppendTime"})

    def values(self, place: Place = P) -> list[bytes | None]:
        return [record.value for record in self.model.partition(place).committed()]

    def transaction(self, id: str = "x") -> Sender:
        sender = self.client.sender(transactional_id=id)
        sender.begin()
        return sender


def test_a_batch_that_comes_twice_is_taken_once() -> None:
    held = ModelPartition(0)

    def take(first: int, *values: str) -> int:
        return held.append(out(*values), [0] * len(values), producer=1, epoch=0, first=first, open=False)

    assert [take(0, "a", "b"), take(2, "c"), take(0, "a", "b"), take(2, "c")] == [0, 2, 0, 2]
    assert held.end == 3
    with pytest.raises(OutOfOrderError):
        take(4, "gap")
    for number in range(3, 9):
        take(number, "more")
    with pytest.raises(OutOfOrderError):  # older than the five that a broker knows
        take(0, "a", "b")
    assert held.end == 9


def test_a_batch_of_an_older_epoch_is_refused_after_the_marker() -> None:
    held = ModelPartition(0)
    held.append(out("a"), [0], producer=1, epoch=0, first=0, open=True)
    assert (held.stable, held.end) == (0, 1)
    held.mark(1, 1, commit=True)
    assert (held.stable, held.end, held.control) == (2, 2, {1: True})
    with pytest.raises(StaleEpochError):
        held.append(out("late"), [0], producer=1, epoch=0, first=1, open=True)
    assert held.append(out("b"), [0], producer=1, epoch=1, first=0, open=True) == 2


def test_the_stable_offset_waits_for_every_transaction() -> None:
    held = ModelPartition(0)
    held.append(out("a"), [0], producer=1, epoch=0, first=0, open=True)
    held.append(out("b"), [0], producer=2, epoch=0, first=0, open=True)
    held.append(out("c"), [0], producer=3, epoch=0, first=0, open=False)
    held.mark(2, 1, commit=True)
    assert held.stable == 0 and held.committed() == []
    held.mark(1, 1, commit=False)
    assert [record.value for record in held.committed()] == [b"b", b"c"] and held.stable == held.end == 5


def test_append_times_are_by_the_leaders_clock_and_may_fall() -> None:
    cluster = Cluster(skews=(700_000, -800_000, 0))
    cluster.model.move_leader(P, 0)
    sender = cluster.client.sender()
    sender.send(out("a"))
    cluster.clock.advance("100ms")
    cluster.model.move_leader(P, 1)
    sender.send(out("b"))
    first, second = (record.timestamp for record in cluster.model.partition(P).committed())
    assert second - first == 100 - 1_500 and cluster.model.partition(P).leader_epoch == 2


def test_a_transaction_that_takes_too_long_is_given_up() -> None:
    cluster = Cluster()
    sender = cluster.transaction()
    sender.send(out("a"))
    cluster.clock.advance("11s")
    assert cluster.client.spans([P]) == [Span(0, 2, 2)], "the coordinator wrote the marker"
    with pytest.raises(LogError) as caught:
        sender.send(out("b"))
    assert caught.value.code == "HR-0345"
    sender.abort()
    sender.begin()
    sender.send(out("c"))
    sender.commit()
    assert cluster.values() == [b"c"]


def test_a_commit_of_what_was_given_up_is_fenced() -> None:
    cluster = Cluster()
    sender = cluster.transaction()
    sender.send(out("a"))
    cluster.clock.advance("11s")
    with pytest.raises(FencedError):
        sender.commit()
    assert cluster.values() == []


def test_markers_may_come_late_and_offsets_with_them() -> None:
    cluster = Cluster(lag=lambda: 50_000)
    sender = cluster.transaction()
    sender.send(out("a") + out("b", place=Place("t", 1)))
    sender.commit(group="g", offsets={P: GroupOffset(3, "")})
    places = [P, Place("t", 1)]
    assert [span.end for span in cluster.client.spans(places)] == [0, 0]
    with pytest.raises(LogError):  # what is not stable is not told, and this clock stands still
        cluster.client.group_offsets("g", [P])
    cluster.clock.advance("60ms")
    assert [span.end for span in cluster.client.spans(places)] == [2, 0], "one partition before the other"
    cluster.clock.advance("1s")
    assert [span.end for span in cluster.client.spans(places)] == [2, 2]
    assert cluster.client.group_offsets("g", [P]) == {P: GroupOffset(3, "")}


def test_a_new_sender_waits_for_the_markers_of_the_one_before() -> None:
    cluster = Cluster(lag=lambda: 10**9)
    sender = cluster.transaction()
    sender.send(out("a"))
    sender.commit()
    assert cluster.values() == []
    cluster.client.sender(transactional_id="x")
    assert cluster.values() == [b"a"], "what was committed stays so"


def test_an_end_that_comes_twice_is_one() -> None:
    cluster = Cluster()
    producer, epoch = cluster.model.initialise("x", Duration.parse("10s"))
    cluster.model.write("x", epoch, P, 0, out("a"))
    ends = [cluster.model.end("x", epoch, commit=True) for _ in range(2)]
    assert ends == [epoch + 1] * 2 and cluster.values() == [b"a"] and producer > 0
    assert cluster.model.partition(P).control == {1: True}


def test_a_late_batch_of_a_fenced_sender_is_nowhere() -> None:
    cluster = Cluster()
    _, epoch = cluster.model.initialise("x", Duration.parse("10s"))
    cluster.model.initialise("x", Duration.parse("10s"))
    with pytest.raises(FencedError):
        cluster.model.write("x", epoch, P, 0, out("late"))
    assert cluster.model.partition(P).end == 0 and cluster.model.refused["fenced"] == 1


def test_who_does_not_poll_loses_its_partitions_and_hears_of_it_when_it_polls() -> None:
    cluster = Cluster()
    both = frozenset({P, Place("t", 1)})
    sleeper, other = (cluster.client.member("g", ["t"], name=name) for name in ("sleeper", "other"))
    sleeper.poll(timeout=ZERO)
    other.poll(timeout=ZERO)
    before = sleeper.poll(timeout=ZERO)
    for _ in range(4):
        cluster.clock.advance("2s")
        assert other.poll(timeout=ZERO).places <= both
    assert other.poll(timeout=ZERO).places == both, "the session is over"
    assert cluster.client.members("g") == dict.fromkeys(both, "other")
    woken = sleeper.poll(timeout=ZERO)
    assert woken.places == frozenset() and woken.epoch > before.epoch
    assert cluster.model.group("g").expired == 1
    other.poll(timeout=ZERO)
    assert len(sleeper.poll(timeout=ZERO).places) == 1, "it is a member again"


def test_a_partition_has_one_holder_at_a_time() -> None:
    cluster = Cluster()
    first = cluster.client.member("g", ["t"], name="first")
    assert len(first.poll(timeout=ZERO).places) == 2
    second = cluster.client.member("g", ["t"], name="second")
    assert second.poll(timeout=ZERO).places == frozenset(), "the first one was not told yet"
    left = first.poll(timeout=ZERO).places
    assert len(left) == 1 and second.poll(timeout=ZERO).places.isdisjoint(left)


def test_another_coordinator_begins_every_session_anew() -> None:
    cluster = Cluster()
    member = cluster.client.member("g", ["t"])
    places = member.poll(timeout=ZERO).places
    cluster.clock.advance("5s")
    cluster.model.move_coordinator()
    cluster.clock.advance("5s")
    assert member.poll(timeout=ZERO).places == places


def test_an_unclean_election_is_told_as_truncation() -> None:
    cluster = Cluster()
    cluster.client.sender().send(out("a", "b", "c"))
    fetcher = cluster.client.fetcher()
    fetcher.seek(P, 0)
    assert fetcher.fetch(timeout=ZERO)[0].next == 3
    cluster.model.truncate(P, 1)
    with pytest.raises(LogError) as caught:
        fetcher.fetch(timeout=ZERO)
    assert caught.value.code == "HR-0347"


def test_compaction_leaves_the_newest_of_each_key_at_its_offset() -> None:
    cluster = Cluster()
    sender = cluster.client.sender()
    for value, key in (("a", b"1"), ("b", b"2"), ("c", b"1"), ("d", None)):
        sender.send(out(value, key=key))
    cluster.model.compact("t")
    held = cluster.model.partition(P).committed()
    assert [(record.offset, record.value) for record in held] == [(1, b"b"), (2, b"c"), (3, b"d")]


def test_after_an_unknown_outcome_a_sender_sends_nothing_more() -> None:
    cluster = Cluster()

    class Losing:
        """The answer to the second batch is lost."""

        calls = 0

        def call(self, kind: object, name: str, apply: Callable[[], object]) -> object:
            self.calls += 1
            found = apply()
            if self.calls == 3:
                raise LogError("HR-0311", "no answer", retryable=True)
            return found

        def most(self, count: int) -> int:
            return count

        def wait(self, until: int, ready: Callable[[], bool]) -> None:
            return None

    sender = ModelClient(cluster.model, wire=Losing(), batch=1).sender()  # type: ignore[arg-type]  # answers as given
    with pytest.raises(LogError) as caught:
        sender.send(out("a", "b", "c"))
    assert caught.value.code == "HR-0311"
    assert cluster.values() == [b"a", b"b"], "what comes behind an unknown batch is not sent"
    with pytest.raises(FencedError):
        sender.send(out("d"))
