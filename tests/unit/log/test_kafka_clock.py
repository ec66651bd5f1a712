"""A clock that is wrong, on the log over a model of Kafka: a broker's, a reader's, and what a producer stamped itself
(SEMANTICS 1.2, docs/KAFKA.md K5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import headrace as hr
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import BrokerTime, Fetched, Outgoing, Place
from headrace.core.errors import HeadraceError
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_clock import Asked, Wrong
from headrace.log.port import Append
from headrace.testing.clocks import ManualClock
from headrace.testing.contracts.log import refused
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient
from headrace.testing.kafka.model_wire import Kind, unreachable
from tests.unit.stream.log import Failing

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
SETTINGS = KafkaSettings(bootstrap="model:1", prefix="t.")
NUMBERS = Place("t.numbers", 0)


def numbers(*, partitions: int = 1, payload: str = "json", **more: object) -> Topic:
    return Topic(  # type: ignore[arg-type]  # each test gives what a topic takes
        "numbers", key="number", fields={"number": hr.int64}, partitions=partitions, payload=payload,
        partitioning="foreign", **more,
    )  # fmt: skip


class World:
    """Three brokers, or as many as are said, and processes with clocks of their own."""

    def __init__(self, topic: Topic | None = None, *, brokers: int = 3) -> None:
        self.clock = ManualClock()  # what time it really is
        self.model = KafkaModel(self.clock, skews=[0] * brokers)
        self.topic = topic or numbers()
        self.writing = self.log()
        self.writing.declare(self.topic)
        self.count = 0

    def log(self, clock: ManualClock | None = None) -> KafkaLog:
        return KafkaLog(ModelClient(self.model), settings=SETTINGS, clock=clock or self.clock)

    def behind(self, micros: int) -> ManualClock:
        return ManualClock(Instant(self.clock.now() - micros))

    def partition(self, index: int = 0) -> Partition:
        return Partition("numbers", 1, index)

    def send(self, count: int = 1, *, index: int = 0) -> None:
        """As any producer does, which reads nothing."""
        place = Place("t.numbers", index)
        values = [Outgoing(place, b"", b'{"number": %d}' % (self.count + n)) for n in range(count)]
        self.count += count
        self.model.produce(place, self.model.producer(), 0, values)

    def jump(self, by: int, *, index: int = 0) -> int:
        """The clock of the broker that leads a partition; its id."""
        leader = self.model.topics["t.numbers"].partitions[index].leader
        self.model.skews[leader] = by
        return leader


def stamps(log: KafkaLog, partition: Partition, at: int | None = None) -> list[int]:
    start = next(s for s in log.topics() if s.topic.name == partition.topic).partitions[partition.index].start
    batches = list(log.read(partition, start if at is None else at))
    return [each for batch in batches for each in batch.column(1).cast("int64").to_pylist()]


def raised(log: KafkaLog, partition: Partition) -> HeadraceError:
    with pytest.raises(HeadraceError) as error:
        list(log.read(partition, 0))
    return error.value


# --- whose clock it is ---


def asked(*skews: int, brokers: Sequence[int] | None = None) -> Asked:
    now = Instant(HOUR)
    ids = range(len(skews)) if brokers is None else brokers
    times = [BrokerTime(id, now + skew) for id, skew in zip(ids, skews, strict=True)]
    return Asked(before=now, after=now, times=times)


@pytest.mark.parametrize(
    ("skews", "wrong"),
    [
        ((0, 0, HOUR), Wrong.BROKER),
        ((0, -4 * MINUTE, HOUR), Wrong.BROKER),
        ((0, 0, 0), Wrong.BROKER),  # set right since
        ((HOUR, HOUR, HOUR), Wrong.READER),
        ((HOUR, HOUR + 4 * MINUTE), Wrong.READER),
        ((0, HOUR, HOUR), Wrong.READER),  # one that agrees is not enough against two
        ((0, HOUR), Wrong.UNTOLD),
        ((0,), Wrong.UNTOLD),
        ((HOUR,), Wrong.UNTOLD),
        ((), Wrong.UNTOLD),
        ((HOUR, 2 * HOUR, 3 * HOUR), Wrong.UNTOLD),
    ],
)
def test_it_takes_two_brokers_that_agree(skews: tuple[int, ...], wrong: Wrong) -> None:
    assert asked(*skews).wrong is wrong


def test_a_slow_answer_is_compared_with_the_time_that_it_took() -> None:
    before, after = Instant(HOUR), Instant(HOUR + 20 * MINUTE)
    times = [BrokerTime(0, HOUR + 10 * MINUTE), BrokerTime(1, HOUR + 24 * MINUTE)]
    assert Asked(before=before, after=after, times=times).wrong is Wrong.BROKER


# --- a broker's clock that jumps ---


def test_a_partition_halts_at_a_record_of_a_broker_whose_clock_jumped_and_the_others_go_on() -> None:
    world = World(numbers(partitions=3))
    for index in range(3):
        world.send(2, index=index)
    leader = world.jump(HOUR)
    for index in range(3):
        world.send(1, index=index)
    log = world.log()
    reading = log.read(world.partition(0), 0)
    assert next(reading).num_rows == 2, "what lies before is read"
    with refused("HR-0313"):
        next(reading)
    error = raised(log, world.partition(0))
    assert error.facts["broker"] == leader
    assert f"led by broker {leader}" in error.detail
    assert f"broker {leader} 2026-01-01T01:00:00Z" in error.detail
    assert "headrace log restart-clock numbers" in error.hint
    assert [len(stamps(log, world.partition(index))) for index in (1, 2)] == [3, 3]
    assert set(log.halted()) == {world.partition(0)}
    assert log.unfit() is None


def test_nothing_is_appended_behind_a_halt() -> None:
    world = World()
    world.send()
    world.jump(HOUR)
    with refused("HR-0311"):
        world.writing.append([Append(partition=world.partition(), rows=[(1,)])])
    end = world.model.span(NUMBERS).end
    with refused("HR-0313"):
        world.writing.append([Append(partition=world.partition(), rows=[(2,)])])
    assert world.model.span(NUMBERS).end == end


def test_who_waits_for_other_partitions_is_not_kept_by_one_that_halts() -> None:
    world = World(numbers(partitions=2))
    log = world.log()
    cut = Cut.of({world.partition(index): 0 for index in range(2)})
    world.jump(HOUR)
    world.send()
    assert not log.wait(cut, timeout=Duration.parse("1ms"))
    world.send(index=1)
    assert log.wait(cut, timeout=Duration.parse("1ms"))


def test_a_halted_partition_goes_on_by_itself_when_its_time_has_come() -> None:
    world = World()
    world.jump(10 * MINUTE)
    world.send(2)
    log = world.log()
    start = world.clock.now()
    assert raised(log, world.partition()).code == "HR-0313"
    world.clock.advance("5m")
    assert stamps(log, world.partition()) == [start + 10 * MINUTE] * 2
    assert log.halted() == {}


def test_what_is_ahead_by_five_minutes_is_read() -> None:
    world = World()
    world.jump(5 * MINUTE)
    world.send()
    assert len(stamps(world.log(), world.partition())) == 1
    world.jump(5 * MINUTE + 1_000)
    world.send()
    assert raised(world.log(), world.partition()).code == "HR-0313"


def test_a_simulated_clock_is_nobodys() -> None:
    world = World(numbers(clock="simulated"))
    world.jump(HOUR)
    world.send()
    assert len(stamps(world.log(), world.partition())) == 1


# --- a reader's clock that is behind ---


def test_a_reader_whose_clock_is_behind_is_unfit_and_goes_on_once_it_was_set_right() -> None:
    world = World(numbers(partitions=2))
    world.send()
    clock = world.behind(HOUR)
    log = world.log(clock)
    error = raised(log, world.partition())
    assert error.code == "HR-0354"
    assert "this machine's clock is behind" in error.message
    unfit = log.unfit()
    assert unfit is not None and unfit.code == "HR-0354"
    assert log.halted() == {}, "it is not the partition's fault"
    clock.set(world.clock.now())
    assert len(stamps(log, world.partition())) == 1
    assert log.unfit() is None


def test_a_clock_that_falls_behind_while_it_reads_is_seen_with_the_next_record() -> None:
    world = World()
    clock = ManualClock(world.clock.now())
    log = world.log(clock)
    world.send()
    assert len(stamps(log, world.partition())) == 1
    clock.set(Instant(clock.now() - HOUR))
    world.send()
    assert raised(log, world.partition()).code == "HR-0354"


def test_of_one_broker_it_cannot_be_told() -> None:
    world = World(brokers=1)
    world.jump(HOUR)
    world.send()
    error = raised(world.log(), world.partition())
    assert error.code == "HR-0354"
    assert "cannot be told" in error.message
    assert "expected 2 brokers that agree" in error.detail
    assert "headrace log restart-clock numbers" in error.hint


def test_brokers_that_do_not_answer_are_no_witnesses() -> None:
    world = World()
    leader = world.jump(HOUR)
    world.send()
    world.model.silent = {each for each in range(3) if each != leader}
    log = world.log()
    assert raised(log, world.partition()).code == "HR-0354"
    world.model.silent = set()
    world.clock.advance("10s")
    assert raised(log, world.partition()).code == "HR-0313", "they are asked again"
    assert log.unfit() is None


# --- an operator's event ---


@pytest.mark.parametrize("payload", ["json", "arrow"])
def test_every_reader_reads_the_same_after_a_clock_was_restarted(payload: str) -> None:
    world = World(numbers(payload=payload))
    start = world.clock.now()
    followed = world.log()
    for micros in (0, HOUR, 0):
        world.jump(micros)
        sent = world.log()
        try:
            sent.append([Append(partition=world.partition(), rows=[(1,), (2,)])], atomic=False)
        except HeadraceError as error:
            assert error.code in ("HR-0311", "HR-0313")
    if world.model.span(NUMBERS).end < 3:  # what came behind was refused; any producer may write it
        world.model.move_leader(NUMBERS)
    assert raised(followed, world.partition()).code == "HR-0313"
    world.clock.advance("10s")
    restarted = world.log().restart_clock("numbers")
    assert restarted == start + 10 * SECOND
    world.clock.advance("1s")
    world.writing.append([Append(partition=world.partition(), rows=[(3,)])])
    wanted = stamps(world.log(), world.partition())
    assert wanted[:2] == [start] * 2
    assert wanted[-2] == restarted and wanted[-1] == start + 11 * SECOND
    assert all(np.diff(wanted) >= 0) and max(wanted) <= world.clock.now()
    assert stamps(followed, world.partition()) == wanted
    world.clock.advance("2h")
    assert stamps(world.log(), world.partition()) == wanted, "when they are in the past"


def test_a_reader_reads_old_rows_again_as_restarted() -> None:
    world = World()
    world.jump(HOUR)
    world.send(20)
    world.jump(0)
    world.log().restart_clock("numbers")
    world.send(2_000)
    log = world.log()
    first = stamps(log, world.partition())
    feed = log._following.feed(world.partition())
    feed._tail_from = feed.end  # as if all was forgotten
    feed._tail, feed._firsts = [], []
    assert stamps(log, world.partition()) == first


def test_an_operator_whose_own_clock_is_behind_restarts_nothing() -> None:
    world = World()
    world.send()
    with refused("HR-0354"):
        world.log(world.behind(HOUR)).restart_clock("numbers")
    assert len(stamps(world.log(), world.partition())) == 1


def test_a_single_brokers_clock_is_restarted_by_who_compared_them_by_hand() -> None:
    world = World(brokers=1)
    world.send()
    world.jump(HOUR)
    world.send()
    with refused("HR-0357"):
        world.log().restart_clock("numbers")  # its clock is still wrong, and it leads the registry too
    world.jump(0)
    world.log().restart_clock("numbers")
    assert len(stamps(world.log(), world.partition())) == 2


def test_what_goes_on_by_itself_soon_is_not_restarted() -> None:
    world = World()
    world.jump(10 * MINUTE)
    world.send()
    with refused("HR-0357"):
        world.log().restart_clock("numbers")


def test_an_event_that_comes_late_is_void() -> None:
    world = World()
    world.jump(HOUR)
    world.send()
    world.jump(0)
    clock = world.behind(2 * MINUTE)
    with refused("HR-0357"):
        world.log(clock).restart_clock("numbers")
    assert world.log()._following.registry.void == 1
    assert raised(world.log(), world.partition()).code == "HR-0313"


def test_a_reader_that_went_past_is_unfit_once_it_learns() -> None:
    world = World()
    world.jump(HOUR)
    world.send()
    world.jump(0)
    fast = world.log(ManualClock(Instant(world.clock.now() + HOUR)))
    assert len(stamps(fast, world.partition())) == 1
    assert fast.unfit() is None
    world.log().restart_clock("numbers")
    fast.topics()
    error = fast.unfit()
    assert error is not None and error.code == "HR-0354"
    assert "has read rows" in error.message


def test_a_reader_that_was_cut_off_from_the_registry_reads_it_before_it_judges_on() -> None:
    """Follows a partition for an hour, and asks for nothing else meanwhile."""
    world = World()
    log = world.log()
    log._following.feed(world.partition())
    for _ in range(4):
        world.clock.advance("20m")
        world.send()
        log._following.pump()
    assert log._following.feed(world.partition()).next == 4
    assert log._following.halts.checked == world.clock.now()


def test_a_registry_that_cannot_be_read_keeps_nothing_and_nothing_is_lost() -> None:
    """What was fetched and may not be judged yet is fetched again."""
    world = World()
    wire = Failing(world.clock)
    client = ModelClient(world.model, wire=wire)
    log = KafkaLog(client, settings=SETTINGS, clock=world.clock)
    log._following.feed(world.partition())
    world.clock.advance("20m")
    world.send(3)
    reads = iter([False, True])  # the fetch goes well, the look at the registry's end does not
    wire.at = lambda kind: wire.fail(Kind.READ, "before", lambda: unreachable("gone")) if next(reads, False) else None
    with refused("HR-0340"):
        log._following.pump()
    assert log._following.feed(world.partition()).next == 0
    assert len(stamps(log, world.partition())) == 3


def test_a_halted_partition_is_told_while_others_are_never_at_rest() -> None:
    world = World(numbers(partitions=2))
    log = world.log()
    for index in range(2):
        log._following.feed(world.partition(index))
    world.jump(HOUR)
    world.send()
    place = log._following.feed(world.partition()).place
    fetch, sent = log._following._fetcher.fetch, iter(range(100))

    def never_at_rest(*, timeout: Duration, records_max: int = 10_000) -> Sequence[Fetched]:
        next(sent)
        world.send(index=1)
        return fetch(timeout=timeout, records_max=records_max)

    log._following._fetcher.fetch = never_at_rest  # type: ignore[method-assign]  # a producer between any two fetches
    with refused("HR-0313"):
        log._following.pump_to({place: 1})


# --- what a producer stamped itself ---


def test_a_record_with_its_producers_time_halts_its_partition_until_the_clock_is_restarted() -> None:
    world = World()
    world.send()
    log, followed = world.log(), world.log()
    assert len(stamps(followed, world.partition())) == 1
    world.model.alter("t.numbers", None, {"message.timestamp.type": "CreateTime"})
    world.send(2)
    error = raised(followed, world.partition())
    assert error.code == "HR-0355"
    assert "expected message.timestamp.type LogAppendTime, seen CreateTime" in error.detail
    assert "--add-config message.timestamp.type=LogAppendTime" in error.hint
    assert set(followed.halted()) == {world.partition()}
    with refused("HR-0356"):
        log.restart_clock("numbers")
    world.model.alter("t.numbers", None, {"message.timestamp.type": "LogAppendTime"})
    at = log.restart_clock("numbers")
    world.send()
    wanted = [at] * 4
    assert stamps(followed, world.partition()) == wanted
    assert stamps(world.log(), world.partition()) == wanted


# --- where a reader begins that comes after deletion ---


def kept(payload: str = "json") -> World:
    """A partition whose stamps fall back now and then, a minute or less between its rows; a version in the middle."""
    world = World(numbers(payload=payload, retention="1d"))
    for number in range(40):
        world.jump(30 * SECOND if number % 3 == 0 else -30 * SECOND)
        world.writing.append([Append(partition=world.partition(), rows=[(number,), (number + 1,)])])
        if number == 10:
            world.writing.declare(numbers(payload=payload, retention="1d", max_late="3d"))
        world.clock.advance("23s")
    world.jump(0)
    return world


@pytest.mark.parametrize("payload", ["json", "arrow"])
def test_available_at_is_the_same_for_readers_from_before_and_after_deletion(payload: str) -> None:
    world = kept(payload)
    before = world.log()
    partition = world.partition()
    whole = {row: at for batch in before.read(partition, 0) for row, at in _rows(batch)}
    assert before.keep_anchors() > 10
    assert before.keep_anchors() == 0
    other = world.log()
    stamps(other, partition)
    assert other.keep_anchors() == 0, "what another wrote is not written again"
    end = world.model.span(NUMBERS).end
    fell = 0
    for start in range(1, end - 12):
        world.model.retain(NUMBERS, start)
        after = world.log()
        state = next(s for s in after.topics() if s.topic.name == "numbers")
        begin = state.partitions[0].start
        found = {row: at for batch in after.read(partition, begin) for row, at in _rows(batch)}
        assert found == {row: at for row, at in whole.items() if row >= begin}
        assert after.topics()[0].partitions[0].start == begin
        shift = 16 if payload == "arrow" else 0
        assert (begin >> shift) - start <= 12, "no more than a minute's rows are left out"
        feed = after._following.feed(partition)
        assert feed.version == before._following.feed(partition).version
        raw = world.model.partition(NUMBERS).read(start, 1)[0]
        fell += bool(raw) and raw[0].timestamp * 1_000 < max(whole.values())
        if (begin >> shift) > start:
            with refused("HR-0303"):
                after.read(partition, start << shift)
    assert fell


def test_readers_differ_without_anchors() -> None:
    """What the anchors are for: the same deletion, and nobody wrote any."""
    world = kept()
    partition = world.partition()
    whole = {row: at for batch in world.log().read(partition, 0) for row, at in _rows(batch)}
    differ = 0
    for start in range(1, 40):
        world.model.retain(NUMBERS, start)
        for batch in world.log().read(partition, start):
            differ += sum(whole[row] != at for row, at in _rows(batch))
    assert differ


def test_a_topic_that_is_kept_for_ever_needs_no_anchors() -> None:
    world = World()
    for _ in range(5):
        world.send()
        world.clock.advance("2m")
    log = world.log()
    stamps(log, world.partition())
    assert log.keep_anchors() == 0
    assert "t.headrace.clocks" not in world.model.topics


def _rows(batch: object) -> list[tuple[int, int]]:
    offsets = batch.column(0).to_pylist()  # type: ignore[attr-defined]  # a batch
    return list(zip(offsets, batch.column(1).cast("int64").to_pylist(), strict=True))  # type: ignore[attr-defined]  # a batch


# --- a topic altered by hand ---


@pytest.mark.parametrize(
    ("setting", "value", "opens"),
    [
        ("message.timestamp.type", "CreateTime", False),
        ("cleanup.policy", "compact", False),
        ("cleanup.policy", "compact,delete", False),
        ("retention.ms", "3600000", True),
        ("retention.bytes", "1000000", True),
    ],
)
def test_a_setting_that_was_altered_by_hand_is_named(setting: str, value: str, opens: bool) -> None:
    world = World()
    world.send()
    wanted = world.model.settings("t.numbers")[setting]
    world.model.alter("t.numbers", None, {setting: value})
    (error,) = world.log().altered()
    assert error.code == "HR-0356"
    assert error.facts["setting"] == setting
    assert f"expected {setting}={wanted}, seen {value}" in error.detail
    assert error.hint == f"kafka-configs --alter --topic t.numbers --add-config {setting}={wanted}"
    if opens:
        assert len(stamps(world.log(), world.partition())) == 1
    else:
        assert raised(world.log(), world.partition()).code == "HR-0356"
    world.model.alter("t.numbers", None, {setting: wanted})
    assert world.log().altered() == ()
    assert len(stamps(world.log(), world.partition())) == 1


def test_more_retention_than_was_declared_harms_nothing() -> None:
    world = World(numbers(retention="1d"))
    for value in ("-1", "999999999999"):
        world.model.alter("t.numbers", None, {"retention.ms": value})
        assert world.log().altered() == ()


def test_partitions_that_were_added_by_hand_are_told_and_can_be_declared() -> None:
    world = World()
    world.send()
    world.model.alter("t.numbers", 3, None)
    for error in (world.log().altered()[0], raised(world.log(), world.partition())):
        assert error.code == "HR-0356"
        assert "expected 1 partitions, seen 3" in error.detail
        assert "numbers.partitions" in error.hint
    world.writing.declare(numbers(partitions=3))
    assert world.log().altered() == ()
    assert len(stamps(world.log(), world.partition(0))) == 1


def test_a_topic_that_was_deleted_or_made_anew_is_told() -> None:
    world = World()
    world.model.delete("t.numbers")
    assert [error.code for error in world.log().altered()] == ["HR-0346"]
    world.model.create("t.numbers", 1, {})
    assert [error.code for error in world.log().altered()] == ["HR-0346"]
    with refused("HR-0346"):
        list(world.log().read(world.partition(), 0))


def test_rows_that_were_deleted_of_a_topic_that_is_kept_for_ever_are_missed() -> None:
    world = World()
    world.send(10)
    world.model.retain(NUMBERS, 4)
    assert [error.code for error in world.log().altered()] == ["HR-0356"]
    error = raised(world.log(), world.partition())
    assert "expected partition 0 to begin at offset 0" in error.detail
    world.log().declare(numbers(retention="1d"))
    assert len(stamps(world.log(), world.partition())) == 6


def test_the_logs_own_topics_are_looked_at_too() -> None:
    world = World()
    world.jump(HOUR)
    world.send()
    assert raised(world.log(), world.partition()).code == "HR-0313"
    world.model.alter("t.headrace.clocks", None, {"message.timestamp.type": "CreateTime"})
    (error,) = world.log().altered()
    assert error.facts["topic"] == "t.headrace.clocks"
    world.model.alter("t.headrace.clocks", None, {"message.timestamp.type": "LogAppendTime"})
    world.model.alter("t.headrace.topics", None, {"cleanup.policy": "compact"})
    (error,) = world.log().altered()
    assert error.facts["topic"] == "t.headrace.topics"
