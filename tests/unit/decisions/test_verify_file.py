"""The file under the chain: bytes that a forger alters, with checksums that fit."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

from headrace.core.codec import Physical
from headrace.core.points import Partition
from headrace.log.sqlite import SqliteLog
from headrace.log.sqlite_entry import checksum
from headrace.log.sqlite_file import FILE_NAME, OFFSET_BITS
from tests.needs import requires
from tests.unit.decisions.altered import RECORDS, Copied, check, decided
from tests.unit.decisions.shop import Shop

requires("xgboost")


def test_bytes_of_the_file_that_a_forger_alters_are_found(tmp_path: Path) -> None:
    """Any byte of the records' payloads, the file's own checksum made to fit. What is not found has changed nothing
    that a record says: only the instant at which the log says it got it."""
    shop = decided(tmp_path, Shop().artifact(), partitions=1, count=14)
    clock = shop.clock
    pristine = Copied(shop.log)
    heads = check(shop.log).heads
    shop.close()
    file = tmp_path / FILE_NAME
    for sealed in (False, True):
        if sealed:
            log = SqliteLog(tmp_path, clock=clock, background=False)
            log.seal()
            log.close()
        entries = _entries(file)
        found = 0
        for seed in range(150):
            draw = random.Random(seed)
            entry = draw.choice(entries)
            altered = bytearray(entry[4])
            altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
            _write(file, entry, bytes(altered))
            log = SqliteLog(tmp_path, clock=clock, background=False)
            report = check(log, heads)
            if report.whole:
                assert _but_for_stamps(Copied(log)) == _but_for_stamps(pristine), (sealed, seed)
            found += not report.whole
            log.close()
            _write(file, entry, entry[4])
        assert found > (135 if not sealed else 90), (sealed, found)


def _entries(file: Path) -> list[tuple[int, int, int, int, bytes]]:
    """The records' entries: key, count, available_at, form, payload."""
    connection = sqlite3.connect(file)
    (number,) = connection.execute(
        "SELECT p.number FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ?", (RECORDS,)
    ).fetchone()
    found = connection.execute(
        "SELECT key, count, available_at, form, payload FROM entries WHERE key >= ? AND key < ?",
        (number << OFFSET_BITS, (number + 1) << OFFSET_BITS),
    ).fetchall()
    connection.close()
    return found


def _write(file: Path, entry: tuple[int, int, int, int, bytes], payload: bytes) -> None:
    key, count, available_at, form, _ = entry
    connection = sqlite3.connect(file)
    connection.execute(
        "UPDATE entries SET payload = ?, checksum = ? WHERE key = ?",
        (payload, checksum(key, count, available_at, form, payload), key),
    )
    connection.commit()
    connection.close()


def _but_for_stamps(log: Copied) -> dict[Partition, list[tuple[int, int, list[Physical]]]]:
    return {place: [(one.event_time, one.verdict, one.row) for one in rows] for place, rows in log.held.items()}
