"""Clients that send requests at a rate to random processes, and do not give up: each request is sent, with the same id,
until it is decided, and some once more after that. Touches sockets and one file; knows nothing of headrace but HTTP.

    python -m bench._chaos_load FILE PATH RATE SECONDS PORT PORT ...

FILE gets a line for each decision that was answered, as JSON: the request, when it was due, when the attempt that was
answered left and came back, by which port, and the answer. The last line counts all answers by status and code.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TextIO

import uvloop

CUSTOMERS = 200
TIMEOUT_S = 4.0  # of one attempt: a process that is stopped keeps its connections open
PATIENCE_S = 120.0  # of one request
BACKOFF_S = (0.1, 20.0)  # between two attempts: doubled each time, and drawn below
# What is sent again, of all requests together: a quota, as clients of good services have it. Without one, what waits is
# asked for ten times as often as what is new, and keeps down what it waits for long after the fault is over.
RETRIES_PER_S = 80.0
NO_QUOTA_S = 2.0  # until it is asked for again
AGAIN = 0.03  # of the requests are sent once more
BUDGET_MS = 3_000

Answered = tuple[int, dict[str, object]]


class Server:
    """Connections to one port, kept alive."""

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Headrace-Budget-Ms: {BUDGET_MS}\r\n"
        )
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: bytes) -> Answered:
        """Raises: OSError, EOFError, TimeoutError, ValueError: there is no answer."""
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                head = await reader.readuntil(b"\r\n\r\n")
                said = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
                answer = await reader.readexactly(int(said[b"content-length"]))
            except BaseException:
                writer.close()
                raise
        self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), json.loads(answer)


class Crowd:
    def __init__(self, servers: list[Server], out: TextIO) -> None:
        self._servers = servers
        self._out = out
        self._draws = random.Random()
        self._retries, self._filled = RETRIES_PER_S, time.monotonic()  # what the quota holds, at most a second's
        self.counts: Counter[str] = Counter()

    async def decide(self, number: int, due: float) -> None:
        draws = self._draws
        request = {
            "order": f"o-{number}",
            "customer": draws.randrange(CUSTOMERS),
            "amount": f"{draws.randrange(1, 10_000) / 100:.2f}",
            "at": dt.datetime.now(dt.UTC).isoformat(),
        }
        if not await self._until_decided(request, due):
            self._write({"given_up": request, "due": due})
        elif draws.random() < AGAIN:
            await asyncio.sleep(draws.uniform(0, 5))
            await self._until_decided(request, time.time())

    async def _until_decided(self, request: dict[str, object], due: float) -> bool:
        body, wait, ends = json.dumps(request).encode(), BACKOFF_S[0], time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            server, sent = self._draws.choice(self._servers), time.time()
            try:
                status, answer = await server.ask(body)
            except (OSError, EOFError, TimeoutError, ValueError, KeyError) as error:
                self.counts[f"0 {type(error).__name__}"] += 1
            else:
                if status == 200 and answer.get("decision_id"):
                    self.counts["200"] += 1
                    times = {"due": due, "sent": sent, "at": time.time(), "port": server.port}
                    self._write({"request": request, **times, "answer": answer})
                    return True
                self.counts[f"{status} {answer.get('code') or answer.get('reasons')}"] += 1
            await asyncio.sleep(self._draws.uniform(0.5, 1.0) * wait)
            wait = min(2 * wait, BACKOFF_S[1])
            while not self._may_retry() and time.monotonic() < ends:
                await asyncio.sleep(self._draws.uniform(0.5, 1.5) * NO_QUOTA_S)
        return False

    def _may_retry(self) -> bool:
        now = time.monotonic()
        self._retries = min(RETRIES_PER_S, self._retries + (now - self._filled) * RETRIES_PER_S)
        self._filled = now
        if self._retries < 1:
            return False
        self._retries -= 1
        return True

    def _write(self, line: dict[str, object]) -> None:
        self._out.write(json.dumps(line) + "\n")


async def run(out: TextIO, path: str, rate: float, seconds: float, ports: list[int]) -> None:
    crowd = Crowd([Server(port, path) for port in ports], out)
    began, due, number = time.monotonic(), time.time(), 0
    asked: set[asyncio.Task[None]] = set()
    while (into := time.monotonic() - began) < seconds:
        while number < into * rate:
            task = asyncio.create_task(crowd.decide(number, due + number / rate))
            asked.add(task)
            task.add_done_callback(asked.discard)
            number += 1
        await asyncio.sleep(0.005)
    if asked:
        await asyncio.wait(asked)
    out.write(json.dumps({"asked": number, "statuses": dict(crowd.counts)}) + "\n")


def main(file: str, path: str, rate: float, seconds: float, ports: list[int]) -> int:
    with Path(file).open("w", encoding="utf-8") as out:
        uvloop.run(run(out, path, rate, seconds, ports))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), [int(one) for one in sys.argv[5:]]))
