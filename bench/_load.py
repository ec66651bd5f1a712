"""An open-loop load generator for HTTP/1.1, in a process of its own: requests leave when they are due, not when the one
before was answered, and latency counts from the instant at which a request was due.

    python bench/_load.py --port P --rate R --path /v1/... [--token T] [--budget-ms B] < bodies.ndjson

One JSON body a line; they leave in order, `rate` a second. Each connection has one request under way; a request that
finds none free waits, and its wait is part of its latency. Answers are read, counted by status and kept with --answers.
Prints one JSON object: sent, seconds, statuses, latency percentiles in milliseconds, and the generator's own processor
seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections import Counter, deque
from pathlib import Path


class Connection(asyncio.Protocol):
    """One request at a time; `done(connection, status, body)` after each answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._held = b""
        self.due = 0.0
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._load.free(self)

    def send(self, number: int, due: float, request: bytes) -> None:
        self.number, self.due = number, due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        head = held.find(b"\r\n\r\n")
        if head < 0:
            self._held = held
            return
        at = held.lower().find(b"content-length:", 0, head)
        length = int(held[at + 15 : held.find(b"\r\n", at)]) if at >= 0 else 0
        if len(held) < head + 4 + length:
            self._held = held
            return
        self._held = b""
        self._load.answered(self, int(held[9:12]), held[head + 4 : head + 4 + length])

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """The requests, when they are due, and what became of them."""

    def __init__(self, requests: list[bytes], rate: float, answers: bool) -> None:
        self.requests = requests
        self.rate = rate
        self.statuses: Counter[int] = Counter()
        self.latencies = [float("inf")] * len(requests)
        self.answers: list[bytes | None] = [None] * len(requests) if answers else []
        self.finished = asyncio.Event()
        self.started = 0.0
        self._free: deque[Connection] = deque()
        self._next = 0
        self._open = len(requests)

    def free(self, connection: Connection) -> None:
        self._free.append(connection)

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        now = time.perf_counter()
        self.statuses[status] += 1
        self.latencies[connection.number] = now - connection.due
        if self.answers:
            self.answers[connection.number] = body
        self._ended()
        connection.number = -1
        self._free.append(connection)
        self._send_due(now)

    def lost(self, connection: Connection) -> None:
        if connection in self._free:
            self._free.remove(connection)
        if connection.number >= 0:
            self.statuses[0] += 1
            connection.number = -1
            self._ended()

    def _ended(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.finished.set()

    def _send_due(self, now: float) -> None:
        while self._free and self._next < len(self.requests):
            due = self.started + self._next / self.rate
            if due > now:
                return
            self._free.popleft().send(self._next, due, self.requests[self._next])
            self._next += 1

    async def run(self, host: str, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: Connection(self), host, port)
        await asyncio.sleep(0.2)
        self.started = time.perf_counter()
        while self._next < len(self.requests):
            now = time.perf_counter()
            self._send_due(now)
            due = self.started + self._next / self.rate
            await asyncio.sleep(max(due - time.perf_counter(), 0.0) if due > now else 0.0005)
        await asyncio.wait_for(self.finished.wait(), timeout=60)


def main() -> int:
    parser = argparse.ArgumentParser(description="Sends requests at a rate.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--token")
    parser.add_argument("--budget-ms", help="each request's Headrace-Budget-Ms; the decision's own without it")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--answers", type=Path, help="where each answer's body goes, a line each, in order")
    asked = parser.parse_args()
    allowed = f"Authorization: Bearer {asked.token}\r\n" if asked.token else ""
    allowed += f"Headrace-Budget-Ms: {asked.budget_ms}\r\n" if asked.budget_ms else ""
    head = f"POST {asked.path} HTTP/1.1\r\nHost: {asked.host}\r\nContent-Type: application/json\r\n{allowed}"
    bodies = [line.strip() for line in sys.stdin.buffer if line.strip()]
    requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    gc.disable()
    load = asyncio.run(_run(asked, requests))
    took = sorted(load.latencies)
    seconds = time.perf_counter() - load.started
    told = {
        "sent": len(requests),
        "seconds": seconds,
        "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
        **{f"p{name}_ms": took[min(int(len(took) * share), len(took) - 1)] * 1e3 for name, share in _SHARES.items()},
        "own_cpu_s": time.process_time(),
    }
    if asked.answers is not None:
        asked.answers.write_bytes(b"\n".join(answer or b"null" for answer in load.answers) + b"\n")
    print(json.dumps(told))
    return 0


_SHARES = {"50": 0.5, "90": 0.9, "99": 0.99, "99_9": 0.999}


async def _run(asked: argparse.Namespace, requests: list[bytes]) -> Load:
    load = Load(requests, asked.rate, asked.answers is not None)
    await load.run(asked.host, asked.port, asked.connections)
    return load


if __name__ == "__main__":
    sys.exit(main())
