"""Whose clock is wrong, where a record of a Kafka log is stamped ahead of its reader's clock. Pure.

The one idea: a broker whose clock jumped and a reader whose clock fell behind look alike from one record. So the reader
asks other brokers (docs/KAFKA.md K5): two that agree with it say that the record's broker was wrong, and its partition
halts; two that agree with each other and not with it say that it is wrong itself, and then it decides nothing; of a
single broker it cannot be told, and that counts as the second.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.clients.kafka.port import BrokerTime, Place
from headrace.core.codec import INSTANT_MAX
from headrace.core.errors import HaltedError, LogError
from headrace.core.points import Partition
from headrace.core.times import Duration, Instant, iso
from headrace.log.plan import AHEAD_MAX

WITNESSES = 2  # brokers whose clocks agree
# A restart takes rows whose stamps are this far ahead of the operator's clock. Readers whose clocks are right have
# halted before such a row, and will for AHEAD_MAX longer than the event takes to reach them; so all of them judge it as
# restarted. What is nearer goes on by itself sooner than an operator is there.
RESTART_MIN = Duration(2 * AHEAD_MAX.micros)


class Wrong(enum.Enum):
    """Whose clock is."""

    BROKER = "broker"
    READER = "reader"
    UNTOLD = "untold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the brokers' clocks said between two looks at the reader's. why: in words, where they could not be asked."""

    before: Instant
    after: Instant
    times: Sequence[BrokerTime]
    why: str = ""

    @property
    def wrong(self) -> Wrong:
        def agree(earliest: int, latest: int) -> int:
            low, high = earliest - AHEAD_MAX.micros, latest + AHEAD_MAX.micros
            return sum(low <= each.at <= high for each in self.times)

        if agree(self.before, self.after) >= WITNESSES:
            return Wrong.BROKER
        if any(agree(each.at, each.at) >= WITNESSES for each in self.times):
            return Wrong.READER
        return Wrong.UNTOLD

    @property
    def said(self) -> str:
        """As an error shows it."""
        brokers = ", ".join(f"broker {each.broker} {shown(each.at)}" for each in self.times)
        return f"clocks: here {shown(self.after)}, {brokers or 'no broker answers'}" + (
            f" ({self.why})" if self.why else ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Where a partition is not read on. position: of the first row that is not read. offset: of its record, as Kafka
    counts. stamp: the record's, milliseconds; None where its producer stamped it. leader: of the partition when it
    halted, where that is known."""

    partition: Partition
    place: Place
    position: int
    offset: int
    stamp: int | None
    leader: int | None

    @property
    def where(self) -> str:
        led = "" if self.leader is None else f", led by broker {self.leader}"
        return f"offset {self.offset:,} in {self.place.topic}/{self.place.partition}{led}"


def shown(micros: int) -> str:
    return iso(Instant(micros)) if micros <= INSTANT_MAX else f"{micros} microseconds, beyond the year 9999"


def halted(halt: Halt, asked: Asked) -> HaltedError:
    """SEMANTICS 1.2's halt."""
    assert halt.stamp is not None
    topic, limit = halt.partition.topic, asked.after + AHEAD_MAX.micros
    return HaltedError(
        "HR-0313",
        f"{halt.partition} is stamped ahead of this clock",
        detail=f"{halt.where}: expected an append instant up to {shown(limit)}, seen {shown(halt.stamp * 1_000)}; "
        f"{asked.said}",
        hint=f"set the broker's clock right, then `headrace log restart-clock {topic}`",
        topic=topic,
        partition=halt.partition.index,
        offset=halt.position,
        broker=halt.leader,
        stamped=halt.stamp * 1_000,
        now=int(asked.after),
    )


def unfit(halt: Halt, asked: Asked) -> LogError:
    """Of the reader, which decides nothing until its clock, or the brokers', was set right."""
    assert halt.stamp is not None
    told = asked.wrong is Wrong.READER
    return LogError(
        "HR-0354",
        "this machine's clock is behind the brokers'" if told else "whose clock is wrong cannot be told",
        detail=f"{halt.partition}, {halt.where}, is stamped {shown(halt.stamp * 1_000)}; {asked.said}"
        + ("" if told else f"; expected {WITNESSES} brokers that agree"),
        hint="set this machine's clock right: chronyc makestep; it goes on by itself"
        if told
        else "compare the clocks by hand: set this machine's right, or, where the broker's was wrong, "
        f"`headrace log restart-clock {halt.partition.topic}`",
        retryable=True,
        topic=halt.partition.topic,
        partition=halt.partition.index,
        broker=halt.leader,
    )


def passed(partition: Partition, offset: int) -> LogError:
    """Of a reader that has read rows as they were stamped, and learns that all others read them as restarted."""
    return LogError(
        "HR-0354",
        "this process has read rows that a restart of their clock is about",
        detail=f"{partition}: expected to halt at offset {offset:,}; this machine's clock ran ahead of the operator's",
        hint="set this machine's clock right, delete the checkpoints that it wrote since, and start it again",
        topic=partition.topic,
        partition=partition.index,
    )


def created(halt: Halt) -> HaltedError:
    """Of a record that says nothing of when it came."""
    topic, name = halt.partition.topic, halt.place.topic
    return HaltedError(
        "HR-0355",
        f"{halt.partition}: a record has its producer's time",
        detail=f"{halt.where}: expected message.timestamp.type LogAppendTime, seen CreateTime",
        hint=f"kafka-configs --alter --topic {name} --add-config message.timestamp.type=LogAppendTime, then "
        f"`headrace log restart-clock {topic}`",
        topic=topic,
        partition=halt.partition.index,
        offset=halt.position,
        setting="message.timestamp.type",
    )


def soon(halt: Halt, now: Instant) -> LogError:
    """Why a clock is not restarted: HR-0357."""
    assert halt.stamp is not None
    goes_on = halt.stamp * 1_000 - AHEAD_MAX.micros
    return LogError(
        "HR-0357",
        f"{halt.partition} goes on by itself at {shown(goes_on)}",
        detail=f"{halt.where}: stamped {shown(halt.stamp * 1_000)}, here it is {shown(now)}; expected a stamp more "
        f"than {RESTART_MIN} ahead, as nearer ones may be read before all know of the restart",
        hint="wait until then; nothing is lost",
        topic=halt.partition.topic,
        partition=halt.partition.index,
    )


def void(topic: str, now: Instant) -> LogError:
    """Why a restart does not count: HR-0357."""
    return LogError(
        "HR-0357",
        f"the clock of topic {topic!r} was not restarted",
        detail=f"the broker that leads the log's registry does not agree that it is {shown(now)}, or another operator "
        "was first",
        hint=f"set the clocks right, then `headrace log restart-clock {topic}` again",
        topic=topic,
    )
