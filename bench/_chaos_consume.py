"""A consumer that may be killed at any instant: each event's effect is a row in SQLite, in one transaction with the
offset. Touches the cluster and one file.

    python -m bench._chaos_consume ADDRESS FILE

No row is unlike another by force: an event that is handled twice leaves two. SIGTERM ends it.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import threading
import time

from bench._chaos_shop import visits
from headrace.core.errors import HeadraceError
from headrace.sdk.consumer import Consumer
from headrace.sdk.define import Event
from headrace.sdk.sql import SqlOffsets

GROUP = "effects"
LOCK_S = 90.0  # a consumer that is stopped inside its transaction holds the file's lock for as long as it is stopped


def connect(file: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=LOCK_S)
    connection.execute("PRAGMA synchronous=OFF")  # processes are killed here, not the machine
    return connection


def make(file: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS effects"
            " (part INTEGER, place INTEGER, customer INTEGER, number INTEGER, visit TEXT)"
        )
    connection.close()


def handle(event: Event, connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO effects VALUES (?, ?, ?, ?, ?)",
        (event.partition, event.offset, event["customer"], event["number"], event["visit"]),
    )


def main(address: str, file: str) -> int:
    make(file)
    consumers: list[Consumer] = []
    stopped = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopped.set()
        for consumer in consumers:
            consumer.stop()

    signal.signal(signal.SIGTERM, stop)
    while not stopped.is_set():
        try:
            offsets = SqlOffsets(lambda: connect(file))
            # SQLite has one writer at a time: more threads would wait for one another.
            with Consumer(address, visits, group=GROUP, concurrency=1, offsets=offsets) as consumer:
                consumers[:] = [consumer]
                counts = consumer.run(handle)
            print(json.dumps({"at": time.time(), "counts": str(counts)}), file=sys.stderr, flush=True)
        except HeadraceError as error:
            print(json.dumps({"at": time.time(), "code": error.code, "error": str(error)}), file=sys.stderr, flush=True)
            stopped.wait(1.0)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
