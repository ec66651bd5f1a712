"""The SQLite log beyond the contract: what it refuses, what it survives, what it lets go."""

from __future__ import annotations

import os
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import numpy as np
import pytest

from headrace.core.errors import HeadraceError, LogCorruptError, LogError, LogFormatError, LogFullError
from headrace.core.points import Partition
from headrace.core.schema import int64, string
from headrace.log.codec import topic_from_json, topic_to_json
from headrace.log.define import Topic
from headrace.log.port import Append, Physical
from headrace.log.run import open_log
from headrace.log.sqlite import SqliteLog
from headrace.log.sqlite_entry import checksum
from headrace.testing.clocks import ManualClock
from headrace.testing.contracts.log import batch, payments, refused
from headrace.testing.faults import Fault, FaultyDisk

TOPIC = Topic("numbers", key="number", id="number", fields={"number": int64, "text": string})
DAY = 86_400_000_000


def opened(
    folder: Path, clock: ManualClock | None = None, topic: Topic = TOPIC, vfs: str | None = None
) -> tuple[SqliteLog, Partition]:
    log = SqliteLog(folder, clock=clock or ManualClock(), background=False, vfs=vfs, room=vfs is None)
    return log, log.declare(topic).partitions[0].partition


def numbers(log: SqliteLog, partition: Partition) -> list[int]:
    return [number for each in log.read(partition, 0) for number in each.column("number").to_pylist()]


# --- the file ---


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)[0].close()
    raw = apsw.Connection(str(tmp_path / "log.sqlite"))
    raw.pragma("user_version", 99)
    raw.close()
    with pytest.raises(LogFormatError) as caught:
        opened(tmp_path)
    assert caught.value.code == "HR-0305" and caught.value.seen == 99


def test_another_file_is_no_log(tmp_path: Path) -> None:
    raw = apsw.Connection(str(tmp_path / "log.sqlite"))
    raw.execute("CREATE TABLE theirs(a)")
    raw.close()
    with pytest.raises(LogFormatError):
        opened(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "log.sqlite").write_bytes(b"this is not a file of SQLite's at all" * 100)
    with pytest.raises(LogCorruptError):
        opened(tmp_path / "other")


@pytest.mark.parametrize("sealed", [False, True])
def test_a_flipped_bit_is_found_and_placed(tmp_path: Path, sealed: bool) -> None:
    log, partition = opened(tmp_path)
    for number in range(200):
        log.append([Append(partition=partition, rows=[(number, "a text to be found " * 20)])])
    if sealed:
        log.seal()
    log.close()
    (tmp_path / "log.sqlite-wal").unlink()  # all of it is in the file; left there, it would hide what we break
    file = tmp_path / "log.sqlite"
    content = bytearray(file.read_bytes())
    places = [at for at in range(len(content)) if content.startswith(b"to be found", at)]
    content[places[len(places) // 2]] ^= 4
    file.write_bytes(content)
    log, _ = opened(tmp_path)
    with pytest.raises(LogCorruptError) as caught:
        list(log.read(partition, 0))
    assert caught.value.code == "HR-0304"
    assert (caught.value.topic, caught.value.partition) == ("numbers", 0)
    assert 0 <= caught.value.offset < 200  # type: ignore[operator]  # a fact of this error
    log.close()


def test_a_missing_entry_is_a_gap_and_not_an_end(tmp_path: Path) -> None:
    log, partition = opened(tmp_path)
    for number in range(10):
        log.append([Append(partition=partition, rows=[(number, None)])])
    log.close()
    raw = apsw.Connection(str(tmp_path / "log.sqlite"))
    raw.execute("DELETE FROM entries WHERE key & 1099511627775 = 5")
    raw.close()
    log, _ = opened(tmp_path)
    with pytest.raises(LogCorruptError) as caught:
        list(log.read(partition, 0))
    assert caught.value.offset == 5
    log.close()


def as_one_who_may_not_write(work: Callable[[], object]) -> str:
    """The code of the error that `work` raises in a process of a user without rights, "" for none."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = "no HeadraceError"
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()
            said = ""
        except HeadraceError as error:
            said = error.code
        finally:
            os.write(writing, said.encode() + b".")
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return answer.read().removesuffix(".")


def test_what_cannot_be_written_says_so() -> None:
    with tempfile.TemporaryDirectory() as made:  # not pytest's folder, which no other user may enter
        Path(made).chmod(0o755)
        folder = Path(made) / "log"
        log, partition = opened(folder)
        log.append([Append(partition=partition, rows=[(1, None)])])
        log.close()
        folder.chmod(0o555)
        (folder / "log.sqlite").chmod(0o444)
        assert as_one_who_may_not_write(lambda: open_log(folder)) == "HR-0307"
        assert as_one_who_may_not_write(lambda: SqliteLog(folder, clock=ManualClock())) == "HR-0307"
        folder.chmod(0o777)
        assert as_one_who_may_not_write(lambda: SqliteLog(folder, clock=ManualClock())) == "HR-0307"
        assert as_one_who_may_not_write(lambda: open_log(Path(made) / "new")) == "HR-0307"


# --- the disk ---


def test_a_full_disk_takes_nothing_and_recovers(tmp_path: Path) -> None:
    disk = FaultyDisk("test-full", random.Random(1))
    log, partition = opened(tmp_path, vfs="test-full")
    log.append([Append(partition=partition, rows=[(1, None)])])
    disk.arm(Fault.FULL, after=0, times=2)
    for _ in range(2):
        with pytest.raises(LogFullError) as caught:
            log.append([Append(partition=partition, rows=[(2, None)])])
        assert caught.value.retryable
    assert numbers(log, partition) == [1]
    assert log.append([Append(partition=partition, rows=[(3, None)])])[0].offset == 1
    assert numbers(log, partition) == [1, 3]
    log.close()
    disk.unregister()


@pytest.mark.parametrize("fault", [Fault.SYNC, Fault.WRITE, Fault.TORN])
def test_a_failing_disk_has_an_unknown_outcome_and_the_log_goes_on(tmp_path: Path, fault: Fault) -> None:
    disk = FaultyDisk("test-failing", random.Random(1))
    log, partition = opened(tmp_path, vfs="test-failing")
    log.append([Append(partition=partition, rows=[(1, None)])])
    disk.arm(fault, after=0)
    with pytest.raises(LogError) as caught:
        log.append([Append(partition=partition, rows=[(2, None)])])
    assert caught.value.code == "HR-0311" and caught.value.retryable
    again = log.append([Append(partition=partition, rows=[(2, None)])])[0]
    assert again.offset == 1 and again.verdicts.tolist() == [0]
    disk.dead = True
    log.close()
    disk.power_on()
    log, _ = opened(tmp_path, vfs="test-failing")
    assert numbers(log, partition) == [1, 2], "the commit after the failed one is whole, whatever the disk forgot"
    log.close()
    disk.unregister()


def test_the_wal_is_used_again(tmp_path: Path) -> None:
    log, partition = opened(tmp_path)
    wal = tmp_path / "log.sqlite-wal"
    size = wal.stat().st_size
    for number in range(1_500):
        log.append([Append(partition=partition, rows=[(number, "x" * 4_000)])])
    assert wal.stat().st_size <= 1.5 * size
    log.close()


# --- what does not fit ---


@pytest.mark.parametrize(
    "bad",
    [(1,), (1, "a", 2), ("1", "a"), (True, "a"), (1.0, "a"), (None, "a"), (2**63, "a"), (1, 2), (1, b"a")],
)
def test_rows_that_do_not_fit_harm_nobody(tmp_path: Path, bad: tuple[Physical, ...]) -> None:
    log, partition = opened(tmp_path)
    with refused("HR-0317"):
        log.append([Append(partition=partition, rows=[(1, "a"), bad])])
    assert log.append([Append(partition=partition, rows=[(1, "a")])])[0].offset == 0
    assert numbers(log, partition) == [1]
    log.close()


def test_batches_that_do_not_fit_harm_nobody(tmp_path: Path) -> None:
    log, partition = opened(tmp_path, topic=payments())
    now = ManualClock().now()
    good = batch(payments(), [1], [now])
    for bad in (good.select(good.schema.names[1:]), good.set_column(0, "payment", good.column("channel"))):
        with refused("HR-0317"):
            log.append([Append(partition=partition, rows=bad)])
    with refused("HR-0314"):
        log.append([Append(partition=partition, rows=good, available_at=np.array([now]))])
    assert list(log.read(partition, 0)) == []
    log.close()


def test_one_bad_call_of_a_group_fails_alone(tmp_path: Path) -> None:
    log, partition = opened(tmp_path)
    gate, failed, done = threading.Event(), [], []

    def work(number: int) -> None:
        gate.wait()
        rows: list[tuple[Physical, ...]] = [(number, "a")] if number % 4 else [("no number", "a")]
        try:
            done.append(log.append([Append(partition=partition, rows=rows)])[0].offset)
        except HeadraceError as error:
            failed.append(error.code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for each in threads:
        each.start()
    gate.set()
    for each in threads:
        each.join()
    assert failed == ["HR-0317"] * 10
    assert sorted(done) == list(range(30))
    assert sorted(numbers(log, partition)) == [number for number in range(40) if number % 4]
    log.close()


# --- time going on ---


def test_retention_lets_whole_entries_go(tmp_path: Path) -> None:
    clock = ManualClock()
    topic = Topic("numbers", key="number", id="number", retention="30d", fields={"number": int64, "text": string})
    log, partition = opened(tmp_path, clock, topic)
    for day in range(40):
        log.append([Append(partition=partition, rows=[(day, None)])])
        clock.advance("1d")
    log.maintain()
    start = log.topics()[0].partitions[0].start
    assert start == 10
    with pytest.raises(LogError) as caught:
        list(log.read(partition, 9))
    assert caught.value.code == "HR-0303" and caught.value.start == 10
    assert [n for each in log.read(partition, start) for n in each.column("number").to_pylist()] == list(range(10, 40))
    clock.advance("300d")
    log.maintain()
    state = log.topics()[0].partitions[0]
    assert (state.start, state.end) == (39, 40), "the last entry stays: it is where the partition's end is read"
    log.close()
    log, _ = opened(tmp_path, clock, topic)
    assert log.topics()[0].partitions[0] == state
    assert log.append([Append(partition=partition, rows=[(1, None)])])[0].offset == 40
    log.close()


def test_room_of_dropped_topics_is_given_back(tmp_path: Path) -> None:
    log, partition = opened(tmp_path)
    for number in range(600):
        log.append([Append(partition=partition, rows=[(number, None)])])
    log.drop("numbers")
    log.maintain()
    with log._reader.pool.lease() as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM purges").fetchone() == (0,)
    log.close()


def test_an_operator_restarts_a_clock_that_ran_ahead(tmp_path: Path) -> None:
    clock = ManualClock()
    log, partition = opened(tmp_path, clock)
    start = clock.now()
    log.append([Append(partition=partition, rows=[(1, None)])])
    clock.advance("90d")
    log.append([Append(partition=partition, rows=[(2, None)])])
    clock.set(start + 1)
    with refused("HR-0313"):
        list(log.read(partition, 0))
    log.restart_clock("numbers")
    log.append([Append(partition=partition, rows=[(3, None)])])
    for _ in range(2):
        stamps = [at for each in log.read(partition, 0) for at in each.column(1).cast("int64").to_pylist()]
        assert stamps == [start, start + 1, start + 1], "never falling, and not ahead"
        log.close()
        log, _ = opened(tmp_path, clock)
    log.close()


def test_rows_before_the_one_stamped_ahead_are_read(tmp_path: Path) -> None:
    clock = ManualClock()
    log, partition = opened(tmp_path, clock)
    start = clock.now()
    for number in range(3):
        log.append([Append(partition=partition, rows=[(number, None)])])
    clock.advance("1d")
    log.append([Append(partition=partition, rows=[(3, None)])])
    log.seal()
    clock.set(start)
    reading = log.read(partition, 0)
    assert next(reading).column("number").to_pylist() == [0, 1, 2]
    with refused("HR-0313"):
        next(reading)
    log.close()


# --- definitions ---


def test_definitions_survive_their_text() -> None:
    for topic in (TOPIC, payments(partitions=3, retention="30d", clock="simulated", description="the 'payments'")):
        text = topic_to_json(topic)
        assert topic_from_json(text) == topic and topic_to_json(topic_from_json(text)) == text
    with pytest.raises(LogFormatError):
        topic_from_json('{"name": "a"}')


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(LogError) as caught:
        SqliteLog(tmp_path / "a file" / "log", clock=ManualClock())
    assert caught.value.code == "HR-0309"


@pytest.mark.parametrize("sealed", [False, True])
def test_forged_bytes_under_a_matching_checksum_are_a_corrupt_log_and_nothing_else(
    tmp_path: Path, sealed: bool
) -> None:
    log, partition = opened(tmp_path)
    for number in range(60):
        log.append([Append(partition=partition, rows=[(number, f"text {number}")])])
    if sealed:
        log.seal()
    log.close()
    raw, draw = apsw.Connection(str(tmp_path / "log.sqlite")), random.Random(1)
    at, count, available_at, form, honest = raw.execute(
        "SELECT key, count, available_at, form, payload FROM entries ORDER BY length(payload) DESC LIMIT 1"
    ).fetchone()
    log, _ = opened(tmp_path)
    found = 0
    for _ in range(600):
        forged = bytearray(honest)
        for _ in range(draw.choice((1, 1, 2, 4))):
            forged[draw.randrange(len(forged))] = draw.randrange(256)
        sum = checksum(at, count, available_at, form, bytes(forged))
        raw.execute("UPDATE entries SET payload = ?, checksum = ? WHERE key = ?", (bytes(forged), sum, at))
        try:
            list(log.read(partition, 0))
        except LogError as error:
            assert error.code in ("HR-0304", "HR-0313")  # a forged append instant is a value too, ahead of the clock
            found += error.code == "HR-0304"
    assert found > 50  # the others are other values, which only the checksum tells apart
    raw.close()
    log.close()
