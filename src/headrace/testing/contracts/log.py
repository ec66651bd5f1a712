"""What every log keeps, whatever holds its rows. `CHECKS` runs over each adapter and over the fake.

A check gets a fresh `LogUnderTest` and asserts; it may close and reopen where the adapter is durable. Touches only the
log that it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from headrace.core.codec import decimals
from headrace.core.errors import HeadraceError
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.schema import boolean, decimal, float64, int64, string, timestamp
from headrace.core.schema import field as declared
from headrace.core.times import Duration, Instant
from headrace.log.define import Topic
from headrace.log.port import (
    EVENT_TIME,
    OFFSET,
    SYSTEM_COLUMNS,
    Append,
    Appended,
    Log,
    PartitionKind,
    Physical,
    Verdict,
)
from headrace.testing.clocks import ManualClock

SOON, NOT_LONG = Duration.parse("5s"), Duration.parse("30ms")
DAY, HOUR = 86_400_000_000, 3_600_000_000


@dataclass
class LogUnderTest:
    """log: open. clock: the one it was given. reopen: closes it and opens the same rows again; None where there are
    none to open. again: another open log over the same rows, as another process would hold it; None where there is
    none. stamps_us: how exact the log's instants are; 0 where they are not of `clock` at all, but of the machine's."""

    log: Log
    clock: ManualClock
    stamps_us: int = 1
    reopen: Callable[[], Log] | None = None
    again: Log | None = None
    closing: list[Log] = field(default_factory=list)

    def expect_stamped(self, seen: Iterable[int], now: int) -> None:
        """Every one of these is the log's instant for what is appended at an instant of `clock`."""
        for each in seen:
            if self.stamps_us:
                assert each == now - now % self.stamps_us, (each, now)
            else:
                assert abs(each - now) < HOUR, (each, now)


def payments(partitions: int = 1, **changed: object) -> Topic:
    """A topic with a field of each kind."""
    said: dict[str, object] = {
        "key": "customer",
        "id": "payment",
        "event_time": "at",
        "partitions": partitions,
        "max_late": "7d",
        "fields": {
            "payment": int64, "customer": int64, "at": timestamp, "amount": decimal(12, 2),
            "channel": string, "risk": float64, "fraud": boolean,
        },
    }  # fmt: skip
    return Topic("payments", **{**said, **changed})  # type: ignore[arg-type]  # the keywords of Topic


def row(number: int, at: int, **changed: Physical) -> tuple[Physical, ...]:
    said: dict[str, Physical] = {
        "payment": number, "customer": number % 7, "at": at, "amount": number * 100 - 250,
        "channel": None if number % 3 == 0 else f"c{number % 5}", "risk": None if number % 4 == 0 else number / 8,
        "fraud": number % 2 == 0,
    }  # fmt: skip
    return tuple({**said, **changed}.values())


def batch(topic: Topic, numbers: Sequence[int], at: Iterable[int]) -> pa.RecordBatch:
    """The same rows as `row` makes, in Arrow."""
    rows = [row(number, int(instant)) for number, instant in zip(numbers, at, strict=True)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    arrays = []
    for each, column in zip(topic.schema, columns, strict=True):
        if each.name == "amount":
            arrays.append(decimals(np.array(column, dtype=np.int64), each.type))
        else:
            arrays.append(pa.array(column, each.type.arrow))
    return pa.RecordBatch.from_arrays(arrays, schema=topic.schema.arrow)


def read_all(log: Log, partition: Partition, offset: int = 0, *, rows_max: int = 1 << 20) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for each in log.read(partition, offset, rows_max=rows_max):
        assert 0 < each.num_rows <= rows_max, each.num_rows
        each.validate(full=True)
        rows += each.to_pylist()
    return rows


def offsets(rows: Sequence[dict[str, object]]) -> list[object]:
    return [each[OFFSET] for each in rows]


def placed(under: LogUnderTest, done: Iterable[Appended]) -> list[int]:
    """Where rows went that were appended one after the other to one partition that was empty. They rise, and where the
    log has no gaps they are counted from 0."""
    found = [offset for one in done for offset in one.offsets.tolist()]
    assert all(a < b for a, b in zip(found, found[1:], strict=False)), found
    assert under.log.capabilities.gaps or found == list(range(len(found))), found
    return found


@contextmanager
def refused(code: str) -> Iterator[None]:
    try:
        yield
    except HeadraceError as error:
        assert error.code == code, f"expected {code}, seen {error}"
        return
    raise AssertionError(f"expected {code}, nothing was raised")


# --- rows ---


def check_rows_come_back_as_they_went_in(under: LogUnderTest) -> None:
    topic = payments()
    partition = under.log.declare(topic).partitions[0].partition
    now = under.clock.now()
    one = under.log.append([Append(partition=partition, rows=[row(1, now - 5), row(2, now - 4)])])[0]
    two = under.log.append([Append(partition=partition, rows=batch(topic, range(3, 300), [now - 3] * 297))])[0]
    three = under.log.append([Append(partition=partition, rows=[row(300, now)])])[0]
    went = placed(under, (one, two, three))
    assert [each.offset for each in (one, two, three)] == [went[0], went[2], went[299]]
    assert one.verdicts.tolist() == [Verdict.ACCEPTED] * 2 and one.verdicts.dtype == np.uint8
    assert one.event_times.tolist() == [now - 5, now - 4]
    assert len(one.available_at) == 2
    under.expect_stamped(one.available_at.tolist(), now)
    rows = read_all(under.log, partition)
    assert offsets(rows) == went
    wanted = batch(topic, range(1, 301), [now - 5, now - 4, *[now - 3] * 297, now])
    seen = pa.Table.from_batches(under.log.read(partition, 0)).combine_chunks().to_batches()[0]
    assert seen.schema.names[: len(SYSTEM_COLUMNS)] == [each.name for each in SYSTEM_COLUMNS]
    assert seen.schema.equals(pa.schema([*SYSTEM_COLUMNS, *topic.schema.arrow]))
    assert seen.select(list(topic.schema.names)).equals(wanted)
    assert seen.column(EVENT_TIME).equals(wanted.column("at"))
    if under.reopen is not None:
        log = under.reopen()
        assert pa.Table.from_batches(log.read(partition, 0)).combine_chunks().to_batches()[0].equals(seen)
        assert log.append([Append(partition=partition, rows=[row(301, now)])])[0].offset > went[-1]


def check_reads_begin_anywhere_and_end_at_the_end(under: LogUnderTest) -> None:
    topic = payments()
    partition = under.log.declare(topic).partitions[0].partition
    now = under.clock.now()
    tens = [[row(n, now) for n in range(first, first + 10)] for first in range(0, 100, 10)]
    went = placed(under, [under.log.append([Append(partition=partition, rows=rows)])[0] for rows in tens])
    for offset in (0, 1, 9, 10, 55, went[-1], went[-1] + 1, went[-1] + 2):
        behind = [each for each in went if each >= offset]
        for rows_max in (1, 7, 1000):
            assert offsets(read_all(under.log, partition, offset, rows_max=rows_max)) == behind
        for end in (0, 1, 50, went[-1], went[-1] + 9):
            found = [each[OFFSET] for part in under.log.read(partition, offset, end=end) for each in part.to_pylist()]
            assert found == [each for each in behind if each < end]
    reading = under.log.read(partition, 0)
    first = next(reading)
    under.log.append([Append(partition=partition, rows=[row(100, now)])])
    assert first.num_rows + sum(each.num_rows for each in reading) == 100, "the end is that of the call"


def check_empty_appends_take_no_offset(under: LogUnderTest) -> None:
    topic = payments()
    partition = under.log.declare(topic).partitions[0].partition
    assert under.log.append([]) == ()
    none = under.log.append([Append(partition=partition, rows=[])])[0]
    assert none.offset == 0 and len(none.verdicts) == 0
    assert read_all(under.log, partition) == []


def check_an_append_to_several_partitions_is_one(under: LogUnderTest) -> None:
    topic = payments(partitions=3)
    places = [each.partition for each in under.log.declare(topic).partitions]
    other = under.log.declare(Topic("decisions", key="payment", fields={"payment": int64})).partitions[0].partition
    now = under.clock.now()
    done = under.log.append(
        [
            Append(partition=places[2], rows=[row(1, now)]),
            Append(partition=other, rows=[(1,)]),
            Append(partition=places[0], rows=batch(topic, [2, 3], [now, now])),
            Append(partition=places[2], rows=batch(topic, [4], [now])),
        ]
    )
    assert [(each.partition, each.offset) for each in done] == [
        (places[2], 0),
        (other, 0),
        (places[0], 0),
        (places[2], 1),
    ]
    assert [each["payment"] for each in read_all(under.log, places[2])] == [1, 4]
    with refused("HR-0302"):
        missing = Partition(topic.name, places[0].incarnation, 3)
        under.log.append(
            [Append(partition=places[0], rows=[row(9, now)]), Append(partition=missing, rows=[row(9, now)])]
        )
    assert len(read_all(under.log, places[0])) == 2, "nothing of a refused append is taken"


def check_threads_share_a_partition(under: LogUnderTest) -> None:
    topic = payments(partitions=2)
    places = [each.partition for each in under.log.declare(topic).partitions]
    now = under.clock.now()
    told: list[tuple[int, int, int]] = []
    failed: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for step in range(25):
                number = thread * 1_000 + step
                where = places[step % 2]
                rows = [row(number, now)] if step % 5 else batch(topic, [number], [now])
                told.append((where.index, under.log.append([Append(partition=where, rows=rows)])[0].offset, number))
        except HeadraceError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failed, failed
    assert len(told) == 150
    held = {(where.index, each[OFFSET]): each["payment"] for where in places for each in read_all(under.log, where)}
    assert held == {(index, offset): number for index, offset, number in told}


# --- verdicts ---


def check_verdicts_are_stored(under: LogUnderTest) -> None:
    topic = payments()
    partition = under.log.declare(topic).partitions[0].partition
    now = under.clock.now()
    rows = [row(1, now), row(1, now), row(1, now, amount=1), row(2, now - 8 * DAY), row(3, now + DAY)]
    wanted = [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.LATE, Verdict.AHEAD]
    judged = [under.log.append([Append(partition=partition, rows=[each])])[0].verdicts.tolist()[0] for each in rows]
    assert judged == wanted
    assert [each["_verdict"] for each in read_all(under.log, partition)] == wanted
    if under.reopen is not None:
        log = under.reopen()
        again = log.append([Append(partition=partition, rows=[row(1, now), row(2, now - 8 * DAY)])])[0]
        assert again.verdicts.tolist() == [Verdict.DUPLICATE, Verdict.DUPLICATE], "what is known outlives the process"


def check_available_at_never_falls(under: LogUnderTest) -> None:
    topic = payments()
    partition = under.log.declare(topic).partitions[0].partition
    first = under.clock.now()
    under.log.append([Append(partition=partition, rows=[row(1, first)])])
    if not under.stamps_us:
        return  # the machine's clock is not set back
    under.clock.set(Instant(first - 60_000_000))
    done = under.log.append([Append(partition=partition, rows=[row(2, first)])])[0]
    assert done.available_at.tolist() == [first], "a clock that steps back does not take the maximum with it"
    assert under.log.topics()[0].partitions[0].available_at == first


def check_an_instant_too_far_ahead_halts(under: LogUnderTest) -> None:
    if under.log.capabilities.shared:
        return  # whose clock is wrong is not seen from one instant
    topic = payments()
    partition = under.log.declare(topic).partitions[0].partition
    first = under.clock.now()
    under.log.append([Append(partition=partition, rows=[row(1, first)])])
    under.clock.set(Instant(first - DAY))
    if under.log.capabilities.durable:
        with refused("HR-0313"):
            list(under.log.read(partition, 0))
        with refused("HR-0313"):
            under.log.append([Append(partition=partition, rows=[row(2, first)])])
    under.clock.set(first)
    assert len(read_all(under.log, partition)) == 1


def check_a_request_is_refused_by_no_clock(under: LogUnderTest) -> None:
    partition = under.log.declare(payments()).partitions[0].partition
    now = under.clock.now()
    done = under.log.append([Append(partition=partition, rows=[row(1, now + DAY)], request=True)])[0]
    assert done.verdicts.tolist() == [Verdict.RESTAMPED]
    under.expect_stamped(done.event_times.tolist(), now)
    rows = read_all(under.log, partition)
    assert rows[0]["at"].timestamp() * 1e6 == now + DAY, "the client's value stays"  # type: ignore[attr-defined]  # a datetime
    assert rows[0][EVENT_TIME].timestamp() * 1e6 == done.event_times[0]  # type: ignore[attr-defined]  # a datetime


def check_an_append_may_say_when_and_where(under: LogUnderTest) -> None:
    partition = under.log.declare(payments()).partitions[0].partition
    now = under.clock.now()
    known = Instant(now - 1_000)
    if not under.log.capabilities.conditional:
        for append in (
            Append(partition=partition, rows=[row(1, now)], at=known),
            Append(partition=partition, rows=[row(1, now)], begins=0),
        ):
            with refused("HR-0314"):
                under.log.append([append])
        assert read_all(under.log, partition) == []
        return
    done = under.log.append([Append(partition=partition, rows=[row(1, now)], at=known, begins=0)])[0]
    assert done.available_at.tolist() == [known]
    with refused("HR-0330"):
        under.log.append([Append(partition=partition, rows=[row(2, now)], begins=0)])
    assert under.log.append([Append(partition=partition, rows=[row(2, now)], begins=1)])[0].offset == 1
    assert len(read_all(under.log, partition)) == 2


# --- topics ---


def check_declare_changes_and_refuses(under: LogUnderTest) -> None:
    topic = payments()
    first = under.log.declare(topic)
    partition = first.partitions[0].partition
    now = under.clock.now()
    under.log.append([Append(partition=partition, rows=[row(1, now)])])
    assert under.log.declare(topic) == under.log.topics()[0], "declared again as it is, nothing changes"
    wider = payments(
        partitions=2,
        max_late="30d",
        fields={**{f.name: f for f in topic.schema}, "country": string},
    )
    second = under.log.declare(wider)
    assert (second.incarnation, second.version, len(second.partitions)) == (1, 2, 2)
    done = under.log.append([Append(partition=partition, rows=[(*row(2, now - 20 * DAY), "AT")])])[0]
    assert done.verdicts.tolist() == [Verdict.ACCEPTED], "the version in force judges"
    assert [each["country"] for each in read_all(under.log, partition)] == [None, "AT"]
    for change in (
        payments(partitions=2, fields={**{f.name: f for f in topic.schema}}),
        payments(partitions=1, fields={f.name: f for f in wider.schema}),
        payments(partitions=2, key="payment", fields={f.name: f for f in wider.schema}),
        payments(partitions=2, id="customer", fields={f.name: f for f in wider.schema}),
        payments(partitions=2, fields={**{f.name: f for f in wider.schema}, "amount": decimal(12, 3)}),
        payments(partitions=2, fields={**{f.name: f for f in wider.schema}, "more": declared(int64, required=True)}),
    ):
        with refused("HR-0310"):
            under.log.declare(change)
    if under.reopen is not None:
        assert under.reopen().topics()[0].topic == wider


def check_drop_begins_a_new_incarnation(under: LogUnderTest) -> None:
    topic = payments()
    old = under.log.declare(topic).partitions[0].partition
    now = under.clock.now()
    under.log.append([Append(partition=old, rows=[row(1, now)])], group="g", cut=Cut.of({old: 1}))
    under.log.drop(topic.name)
    assert under.log.topics() == () and under.log.group("g") == Cut()
    with refused("HR-0302"):
        under.log.drop(topic.name)
    new = under.log.declare(topic)
    assert new.incarnation == 2 and new.partitions[0].end == 0
    with refused("HR-0302"):
        under.log.append([Append(partition=old, rows=[row(1, now)])])
    with refused("HR-0302"):
        list(under.log.read(old, 0))
    done = under.log.append([Append(partition=new.partitions[0].partition, rows=[row(1, now)])])[0]
    assert done.verdicts.tolist() == [Verdict.ACCEPTED], "another incarnation knows no ids of this one"


# --- groups ---


def check_groups_move_with_an_append(under: LogUnderTest) -> None:
    places = [each.partition for each in under.log.declare(payments(partitions=2)).partitions]
    now = under.clock.now()
    assert under.log.group("scorer") == Cut()
    under.log.append([Append(partition=places[0], rows=[row(1, now)])], group="scorer", cut=Cut.of({places[0]: 1}))
    under.log.append([], group="scorer", cut=Cut.of({places[1]: 0}))
    under.log.append([], group="other", cut=Cut.of({places[0]: 0}))
    assert under.log.group("scorer") == Cut.of({places[0]: 1, places[1]: 0}), "partitions of a group move one by one"
    with refused("HR-0302"):
        gone = Partition("payments", 1, 77)
        under.log.append([Append(partition=places[0], rows=[row(2, now)])], group="scorer", cut=Cut.of({gone: 1}))
    assert len(read_all(under.log, places[0])) == 1
    if under.reopen is not None:
        assert under.reopen().group("scorer") == Cut.of({places[0]: 1, places[1]: 0})


# --- imports ---


def check_an_import_is_seen_when_it_is_sealed(under: LogUnderTest) -> None:
    topic = payments()
    live = under.log.declare(topic).partitions[0].partition
    now = under.clock.now()
    (made,) = under.log.import_partitions("payments", "2025.parquet")
    assert made.kind is PartitionKind.IMPORT and not made.sealed and made.partition.index >= IMPORTS_FROM
    at = np.arange(now - 500 * DAY, now - 400 * DAY, DAY, dtype=np.int64)
    done = under.log.append([Append(partition=made.partition, rows=batch(topic, range(100), at), available_at=at)])[0]
    assert done.available_at.tolist() == at.tolist() and done.verdicts.tolist() == [0] * 100
    assert list(under.log.read(made.partition, 0)) == []
    assert [each.partition for each in under.log.topics()[0].partitions] == [live]
    assert under.log.import_partitions("payments", "2025.parquet")[0].rows == 100, "where a broken import goes on"
    (sealed,) = under.log.import_partitions("payments", "2025.parquet", seal=True)
    assert sealed.sealed and sealed.rows == 100
    assert [each.partition for each in under.log.topics()[0].partitions] == [live, made.partition]
    rows = read_all(under.log, made.partition)
    assert len(rows) == 100 and [each["_available_at"] for each in rows] == [each["at"] for each in rows]
    with refused("HR-0314"):
        more = batch(topic, [100], [now])
        under.log.append([Append(partition=made.partition, rows=more, available_at=np.array([now]))])
    (second,) = under.log.import_partitions("payments", "2024.parquet")
    assert second.partition.index == made.partition.index + 1
    known = batch(topic, [5, 1000], [int(at[5]), now])
    done = under.log.append([Append(partition=second.partition, rows=known, available_at=np.array([at[5], now]))])[0]
    assert done.verdicts.tolist() == [Verdict.DUPLICATE, Verdict.ACCEPTED], "an id of another import is known"


# --- waiting ---


def check_wait_wakes(under: LogUnderTest) -> None:
    places = [each.partition for each in under.log.declare(payments(partitions=2)).partitions]
    now = under.clock.now()
    cut = Cut.of({places[0]: 0, places[1]: 0})
    assert not under.log.wait(cut, timeout=NOT_LONG)
    writer = under.again or under.log

    def later(work: Callable[[], object]) -> bool:
        timer = threading.Timer(0.05, work)
        timer.start()
        woke = under.log.wait(cut, timeout=SOON)
        timer.join()
        return woke

    assert later(lambda: writer.append([Append(partition=places[1], rows=[row(1, now)])]))
    assert under.log.wait(cut, timeout=NOT_LONG), "what came before the call counts"
    cut = Cut.of({places[0]: 0, places[1]: 1})
    assert not under.log.wait(cut, timeout=NOT_LONG)
    assert later(lambda: writer.import_partitions("payments", "late.csv", seal=True)), "a partition that appears"


def check_two_processes_see_one_log(under: LogUnderTest) -> None:
    if under.again is None:
        return
    topic = payments()
    partition = under.log.declare(topic).partitions[0].partition
    now = under.clock.now()
    assert under.again.topics() == under.log.topics()
    for number in range(20):
        writer, reader = (under.log, under.again) if number % 2 else (under.again, under.log)
        assert writer.append([Append(partition=partition, rows=[row(number, now)])])[0].offset == number
        assert offsets(read_all(reader, partition, number)) == [number], "durable is visible, to every process"
    assert under.log.append([Append(partition=partition, rows=[row(3, now)])])[0].verdicts.tolist() == [
        Verdict.DUPLICATE
    ]
    assert under.again.append([Append(partition=partition, rows=[row(3, now)])])[0].verdicts.tolist() == [
        Verdict.DUPLICATE
    ]


def check_a_closed_log_says_so(under: LogUnderTest) -> None:
    partition = under.log.declare(payments()).partitions[0].partition
    under.log.close()
    under.log.close()
    with refused("HR-0316"):
        under.log.append([Append(partition=partition, rows=[row(1, under.clock.now())])])


CHECKS: tuple[Callable[[LogUnderTest], None], ...] = tuple(
    check for name, check in sorted(globals().items()) if name.startswith("check_")
)
