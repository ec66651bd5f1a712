"""A producer that may be killed at any instant: what it means to send is written down first, what was acknowledged
after. Touches the cluster and two files.

    python -m bench._chaos_produce ADDRESS FOLDER NUMBER OF RATE

Producer NUMBER of OF sends the events of the customers that are its own, in order, RATE a second. What it finds written
down and not acknowledged when it starts is sent again, with the same ids, before anything else; so it does with what
came back with an error. FOLDER/NUMBER.sent has a line for each time that an event was given to the SDK,
FOLDER/NUMBER.acked one for each acknowledgement: number, partition, offset. SIGTERM ends it when all is acknowledged.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from bench._chaos_shop import visits
from headrace.core.errors import HeadraceError
from headrace.sdk.producer import Producer
from headrace.sdk.sending import Receipt

CUSTOMERS, SHOPS = 200, 50
SHOPLESS = 40  # one event in so many
TICK_S = 0.02
WAITING_MAX = 20_000  # events without an answer, beyond which nothing new is sent

Event = dict[str, object]


def lines(file: Path) -> list[bytes]:
    """A file's whole lines; what a kill left of a last one is cut off."""
    if not file.exists():
        return []
    raw = file.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        os.truncate(file, len(whole))
    return whole.splitlines()


class Books:
    """What was given to the SDK, and what it acknowledged."""

    def __init__(self, folder: Path, number: int) -> None:
        sent, acked = folder / f"{number}.sent", folder / f"{number}.acked"
        known: dict[int, Event] = {}
        for line in lines(sent):
            event = json.loads(line)
            known[event["number"]] = event
        done = {int(line.split()[0]) for line in lines(acked)}
        self.next = max(known, default=-1) + 1
        self.open = {number: known[number] for number in sorted(known.keys() - done)}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._sent, self._acked = os.open(sent, flags, 0o644), os.open(acked, flags, 0o644)

    def send(self, events: list[Event]) -> None:
        os.write(self._sent, b"".join(json.dumps(event).encode() + b"\n" for event in events))

    def acknowledge(self, placed: list[tuple[int, int, int]]) -> None:
        if placed:
            os.write(self._acked, b"".join(b"%d %d %d\n" % one for one in placed))


def new_events(first: int, number: int, of: int) -> Iterator[Event]:
    """Each customer is one producer's, so that a customer's numbers rise."""
    draws = random.Random(f"{number}/{first}")
    own = range(number, CUSTOMERS, of)
    while True:
        yield {
            "visit": f"{number}-{first}",
            "customer": draws.choice(own),
            "number": first,
            "spent": f"{draws.randrange(1, 10_000) / 100:.2f}",
            "shop": f"shop-{draws.randrange(SHOPS)}" if first % SHOPLESS else None,
            "at": dt.datetime.now(dt.UTC).isoformat(),
        }
        first += 1


class Session:
    """One producer of the SDK, until it fails or everything is over."""

    def __init__(self, address: str, books: Books, fresh: Iterator[Event], rate: float) -> None:
        # Thirteen processes share the machine: ten requests a second of each partition and producer are enough.
        self._producer = Producer(address, visits, linger="100ms")
        self._books = books
        self._fresh = fresh
        self._rate = rate
        self._waiting: deque[tuple[int, Receipt]] = deque()

    def run(self, stopped: list[int]) -> None:
        """Raises: HeadraceError of the first event that failed; those behind it are open still."""
        self._send(list(self._books.open.values()))
        due = time.monotonic()
        while not stopped:
            self._collect()
            late = min(time.monotonic() - due, 1.0)  # what a pause held up is not made up for at once
            count = int(late * self._rate)
            if count and len(self._waiting) < WAITING_MAX:
                due = time.monotonic()
                made = [next(self._fresh) for _ in range(count)]
                self._books.open.update({int(str(event["number"])): event for event in made})
                self._send(made)
            time.sleep(TICK_S)
        while self._waiting:
            self._collect()
            time.sleep(TICK_S)
        self._producer.close()

    def _send(self, events: list[Event]) -> None:
        self._books.send(events)
        for event in events:
            self._waiting.append((int(str(event["number"])), self._producer.send(event)))

    def _collect(self) -> None:
        placed: list[tuple[int, int, int]] = []
        try:
            while self._waiting and self._waiting[0][1].done:
                number, receipt = self._waiting[0]
                partition, offset = receipt.result()
                self._waiting.popleft()
                placed.append((number, partition, offset))
        finally:
            self._books.acknowledge(placed)
            for number, _, _ in placed:
                del self._books.open[number]


def main(address: str, folder: str, number: int, of: int, rate: float) -> int:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    books = Books(Path(folder), number)
    fresh = new_events(books.next, number, of)
    while True:
        try:
            Session(address, books, fresh, rate).run(stopped)
            return 0
        except HeadraceError as error:
            print(json.dumps({"at": time.time(), "code": error.code, "error": str(error)}), file=sys.stderr, flush=True)
            time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
