"""The log between processes: owners that are killed, writers beside them, backups while they write."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.core.errors import HeadraceError, LogCorruptError, LogReadOnlyError, NotOwnerError, UsageError
from headrace.core.points import Cut
from headrace.core.schema import int64
from headrace.core.times import Duration
from headrace.log.backup import backup, doctor, restore
from headrace.log.define import Topic
from headrace.log.owner import SOCKET_NAME, connect, receive
from headrace.log.port import Append, Log
from headrace.log.run import open_log

EVENTS = Topic("events", key="number", id="number", partitions=2, fields={"number": int64})

WRITER = """
import sys, threading
from headrace.core.points import Partition
from headrace.log.port import Append
from headrace.log.run import open_log
from tests.e2e.log.test_processes import EVENTS
log = open_log(sys.argv[1])
places = [each.partition for each in log.declare(EVENTS).partitions]
said = threading.Lock()
def work(thread):
    number = int(sys.argv[2]) + thread * 1_000_000
    while True:
        rows = [(number + n,) for n in range(1 + number % 3)]
        both = [Append(partition=places[number % 2], rows=rows)]
        if number % 5 == 0:
            both.append(Append(partition=places[1 - number % 2], rows=[(number + 500_000,)]))
        told = log.append(both)
        with said:
            for append, answer in zip(both, told):
                for place, row in enumerate(append.rows):
                    print(answer.partition.index, answer.offset + place, row[0])
            sys.stdout.flush()
        number += len(rows)
for thread in range(3):
    threading.Thread(target=work, args=(thread,)).start()
"""


@contextmanager
def writer(folder: Path, first: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def held(log: Log) -> dict[tuple[int, int], int]:
    """Number by (partition, offset)."""
    found = {}
    for state in log.topics()[0].partitions:
        for each in log.read(state.partition, 0):
            for offset, number in zip(each.column(0).to_pylist(), each.column("number").to_pylist(), strict=True):
                found[state.partition.index, offset] = number
    return found


def test_a_killed_owner_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: dict[tuple[int, int], int] = {}
    for life in range(3):
        with writer(tmp_path / "log", life * 100_000_000) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(150 + 40 * life)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        for line in lines:
            if line.endswith("\n"):
                index, offset, number = map(int, line.split())
                assert acknowledged.setdefault((index, offset), number) == number
        log = open_log(tmp_path / "log", role="owner")
        seen = held(log)
        assert acknowledged.items() <= seen.items(), "lost or moved"
        assert len(set(seen.values())) == len(seen), "twice"
        expect_whole(life * 100_000_000, set(seen.values()))
        log.close()
    assert len(acknowledged) > 450


def expect_whole(first: int, numbers: set[int]) -> None:
    """Each append of the writer's threads is there with all of its rows, in both partitions, or with none."""
    for thread in range(3):
        number = first + thread * 1_000_000
        while number in numbers:
            rows = {number + n for n in range(1 + number % 3)} | ({number + 500_000} if number % 5 == 0 else set())
            assert rows <= numbers, f"half of the append that begins with {number}"
            number += 1 + number % 3
        assert not numbers & set(range(number, number + 3)) and number + 500_000 not in numbers


def test_who_writes_beside_a_killed_owner_goes_on_as_the_owner(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with writer(folder, 0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        log = open_log(folder)
        place = log.topics()[0].partitions[0].partition
        with pytest.raises(NotOwnerError):
            open_log(folder, role="owner")
        first = log.append([Append(partition=place, rows=[(-1,)])])[0].offset
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 20
        while True:
            try:
                again = log.append([Append(partition=place, rows=[(-2,)])])[0]
                if process.poll() is not None:
                    break
            except HeadraceError as error:
                assert error.code in ("HR-0311", "HR-0308") and error.retryable, error
            assert time.monotonic() < deadline
    assert again.offset > first
    assert held(log)[0, first] == -1
    with pytest.raises(NotOwnerError):
        open_log(folder, role="owner")
    log.close()
    open_log(folder, role="owner").close()


def test_a_stopped_owner_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.log.sqlite_remote.OWNER_WAIT_S", 0.3)
    folder = tmp_path / "log"
    with writer(folder, 0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (folder / SOCKET_NAME).unlink()
        with pytest.raises(NotOwnerError) as caught:
            open_log(folder)
        assert caught.value.retryable and str(process.pid) in caught.value.detail


def test_waiting_across_processes_takes_milliseconds(tmp_path: Path) -> None:
    owner = open_log(tmp_path)
    place = owner.declare(EVENTS).partitions[0].partition
    beside = open_log(tmp_path, role="remote")
    late = []
    for number in range(20):
        sent: list[float] = []

        def send(number: int = number, sent: list[float] = sent) -> None:
            time.sleep(0.02)
            owner.append([Append(partition=place, rows=[(number,)])])
            sent.append(time.monotonic())

        thread = threading.Thread(target=send)
        thread.start()
        assert beside.wait(Cut.of({place: number}), timeout=Duration.parse("5s"))
        woke = time.monotonic()
        thread.join()
        late.append(woke - sent[0])
    assert sorted(late)[10] < 0.02, late
    beside.close()
    owner.close()


def test_the_socket_is_ours_alone_and_paths_may_be_long(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    owner = open_log(folder)
    assert stat.S_IMODE((folder / SOCKET_NAME).stat().st_mode) == 0o600
    beside = open_log(folder, role="remote")
    place = beside.declare(EVENTS).partitions[0].partition
    assert beside.append([Append(partition=place, rows=[(1,)])])[0].offset == 0
    beside.close()
    owner.close()
    assert not (folder / SOCKET_NAME).exists()
    assert not [each for each in folder.iterdir() if each.name.startswith(".s")]


def test_a_reader_needs_no_owner_and_writes_nothing(tmp_path: Path) -> None:
    owner = open_log(tmp_path)
    place = owner.declare(EVENTS).partitions[0].partition
    owner.append([Append(partition=place, rows=[(7,)])])
    reader = open_log(tmp_path, role="reader")
    assert held(reader) == {(0, 0): 7}
    with pytest.raises(LogReadOnlyError):
        reader.append([Append(partition=place, rows=[(8,)])])
    owner.close()
    assert held(reader) == {(0, 0): 7}
    reader.close()


def test_nonsense_on_the_socket_harms_nobody(tmp_path: Path) -> None:
    owner = open_log(tmp_path)
    place = owner.declare(EVENTS).partitions[0].partition
    for nonsense in (b"x", b"\xff" * 64, b"\x03\0\0\0" + bytes(8) + b"abc"):
        channel = connect(tmp_path)
        channel.sendall(nonsense)
        if nonsense.endswith(b"abc"):
            assert receive(channel) is not None, "an answer that says so"
        channel.close()
    assert owner.append([Append(partition=place, rows=[(1,)])])[0].offset == 0
    owner.close()


def test_a_backup_made_while_writing_is_of_one_instant(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with writer(folder, 0) as process:
        assert process.stdout is not None
        before = [tuple(map(int, process.stdout.readline().split())) for _ in range(100)]
        backup(folder, tmp_path / "kept")
    restore(tmp_path / "kept", tmp_path / "again")
    log = open_log(tmp_path / "again")
    seen = held(log)
    for index, offset, number in before:
        assert seen[index, offset] == number
    for index in (0, 1):
        assert [offset for place, offset in sorted(seen) if place == index] == list(
            range(len([1 for p, _ in seen if p == index]))
        )
    log.close()
    assert doctor(tmp_path / "again") == []
    with pytest.raises(UsageError):
        restore(tmp_path / "kept", tmp_path / "again")
    with pytest.raises(UsageError):
        backup(folder, tmp_path / "kept")


def test_a_broken_backup_is_not_restored(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    log.declare(EVENTS)
    log.close()
    backup(tmp_path / "log", tmp_path / "kept")
    file = tmp_path / "kept" / "log.sqlite"
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.raises(LogCorruptError):
        restore(tmp_path / "kept", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    assert doctor(tmp_path)[0].serious
    log = open_log(tmp_path)
    place = log.declare(EVENTS).partitions[0].partition
    for number in range(300):
        log.append([Append(partition=place, rows=[(number,)])])
    (waiting,) = log.import_partitions("events", "half.csv")
    assert [each.text for each in doctor(tmp_path)] == [
        f"{waiting.partition}: import 'half.csv' was not sealed; 0 rows wait for it to go on"
    ]
    log.close()
    (tmp_path / SOCKET_NAME).touch()
    (tmp_path / "log.sqlite-wal").unlink()
    file = tmp_path / "log.sqlite"
    content = file.read_bytes()
    place_of = content.rfind(b"\x95\x01\xcf")  # a small entry's payload
    assert place_of > 0
    file.write_bytes(content[: place_of + 4] + bytes([content[place_of + 4] ^ 1]) + content[place_of + 5 :])
    said = doctor(tmp_path)
    assert any(each.serious and "events#1/0 at offset" in each.text for each in said), said
    assert any(not each.serious and SOCKET_NAME in each.text for each in said)


def test_a_forked_child_does_not_keep_the_log(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    log.close()
    open_log(tmp_path, role="owner").close()
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)
