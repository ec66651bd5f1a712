"""Broken bodies, addresses, heads and tokens against every endpoint of a running server, over sockets, from seeds.

What may come back is 200 or a refusal of 4xx in problem details; the server stays up, and afterwards the log holds what
was answered with 200 and nothing else. Counted over all: no_answer, server_errors (5xx), unnamed (a refusal without
problem details or words), half_taken (rows of the log that no answer accounts for, and answers that no row does).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import random
import tempfile
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from headrace.api.tokens import TokenStore, scopes_of
from headrace.core.errors import NotFoundError
from headrace.runtime.project import Project, open_project
from headrace.testing.http_bodies import broken, broken_bytes, broken_lines, broken_lists
from tests.e2e.serving import Answer, Client, Serving, raw_answer
from tests.e2e.shop import instant, make, order

BODIES, BODIES_QUICK = 10_000, 400
SEED = 20_260_101
SCOPES = "decisions:decide,decisions:read,features:read,topics:append,metrics:read"
JSON = "application/json"


@dataclass(slots=True)
class Seen:
    """What came back. decisions: ids of those that were decided. rows: of each topic, that were said to be
    taken."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    decisions: set[str] = field(default_factory=set)
    rows: Counter[str] = field(default_factory=Counter)
    no_answer: int = 0
    unnamed: int = 0
    worst: list[str] = field(default_factory=list)

    def take(self, endpoint: str, sent: object, answer: Answer | None) -> None:
        if answer is None:
            self.no_answer += 1
            self.worst.append(f"{endpoint}: no answer to {sent!r}")
            return
        self.statuses.setdefault(endpoint, Counter())[answer.status] += 1
        if answer.status == 200:
            if endpoint == "decide" and answer.json["decision_id"] is not None:
                self.decisions.add(answer.json["decision_id"])
            if endpoint.startswith("events"):
                self.rows[answer.json["topic"]] += answer.json["count"]
        elif answer.status >= 500 or not _named(answer):
            self.unnamed += answer.status < 500
            self.worst.append(f"{endpoint}: {answer.status} {answer.body[:200]!r} to {sent!r}")


def _named(answer: Answer) -> bool:
    """Problem details with a code and words; of a value that does not fit, with its field."""
    if answer.headers.get("content-type") != "application/problem+json":
        return False
    said = answer.json
    fits = not str(said.get("code")).startswith("HR-04") or "field" in said
    return said.get("status") == answer.status and bool(said.get("detail")) and fits


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of BENCH `http-fuzz`."""
    count = BODIES_QUICK if quick else BODIES
    seen = Seen()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-http-") as made:
        folder = make(Path(made) / "shop")
        with open_project(folder) as project:
            project.apply()
        token = _token(folder)
        with Serving(folder) as server:
            for endpoint, method, path, kind, bodies in _bodies(count):
                _send(server.port, seen, endpoint, method, path, kind, bodies, token)
            _addresses(server.port, seen, count, token)
            _tokens(server.port, seen, count, token)
            heads = _heads(server.port, seen, count // 10)
            well = server.decide(order("well", 1), {"Authorization": f"Bearer {token}"})
            seen.take("decide", "the last one", well)
            stopped = server.stop()
        half = _half_taken(folder, seen)
    for line in seen.worst[:20]:
        print(line)
    total = sum(seen.statuses.values(), Counter())
    figures: dict[str, float] = {
        "bodies": sum(total.values()),
        "heads": heads,
        "endpoints": len(seen.statuses),
        "fewest_an_endpoint": min(sum(statuses.values()) for statuses in seen.statuses.values()),
        "refused": sum(n for status, n in total.items() if 400 <= status < 500),
        "taken": total[200],
        "server_errors": sum(n for status, n in total.items() if status >= 500),
        "no_answer": seen.no_answer,
        "unnamed": seen.unnamed,
        "half_taken": half,
        "up_at_the_end": float(well.status == 200 and stopped == 0),
    }
    return {"figures": figures, "peers": {}}


def _token(folder: Path) -> str:
    with open_project(folder) as project:
        return TokenStore(project.state_folder).create("fuzz", scopes_of(SCOPES), now=project.now(), expires=None)[1]


def _bodies(count: int) -> Iterator[tuple[str, str, str, str, Iterable[bytes]]]:
    """(endpoint, method, path, content type, bodies)."""
    visit = {"customer": 3, "at": instant()}
    ids = (
        _with_id(body, number) for number, body in enumerate(broken(order("@", 3, weight=1.5), seed=SEED, count=count))
    )
    yield "decide", "POST", "/v1/decisions/checkout", JSON, ids
    keys = broken({"keys": [1, 2, 3], "t": instant()}, seed=SEED + 1, count=count)
    yield "features batch", "POST", "/v1/features/activity", JSON, keys
    events = "/v1/topics/visits/events"
    yield "events json", "POST", events, JSON, broken_lists(visit, seed=SEED + 2, count=count)
    yield "events lines", "POST", events, "application/x-ndjson", broken_lines(visit, seed=SEED + 3, count=count)
    arrow = "application/vnd.apache.arrow.stream"
    yield "events arrow", "POST", events, arrow, broken_bytes(_arrow(_visits()), seed=SEED + 4, count=count)
    orders = "/v1/topics/orders/events"
    yield "events arrow orders", "POST", orders, arrow, broken_bytes(_arrow(_orders()), seed=SEED + 9, count=count)


def _with_id(body: bytes, number: int) -> bytes:
    """Bodies that stay right are requests of their own."""
    return body.replace(b'"@"', b'"r-%d"' % number)


def _visits() -> pa.Table:
    return pa.table({"customer": [1, 2, 3], "at": [instant()] * 3})


def _orders() -> pa.Table:
    """Columns of each kind, with nulls, in types that need a cast."""
    return pa.table(
        {
            "order": pa.array([b"arrow-1", b"arrow-2", b"arrow-3"], pa.large_binary()),
            "customer": pa.array([1, 2, 3], pa.int16()),
            "amount": pa.array([Decimal("1.50"), None, Decimal("-2")], pa.decimal128(8, 2)),
            "weight": pa.array([1.5, None, 2.5], pa.float32()),
            "at": pa.array([dt.datetime.now(dt.UTC)] * 3, pa.timestamp("ns", tz="UTC")),
        }
    )


def _arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    made: bytes = sink.getvalue().to_pybytes()
    return made


def _send(
    port: int, seen: Seen, endpoint: str, method: str, path: str, kind: str, bodies: Iterable[bytes], token: str
) -> None:
    headers = {"Content-Type": kind, "Authorization": f"Bearer {token}", "Headrace-Budget-Ms": "60000"}
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(port))
        for body in bodies:
            try:
                seen.take(endpoint, body, client.call(method, path, body, headers))
            except (OSError, http.client.HTTPException):
                seen.take(endpoint, body, None)
                client = stack.enter_context(Client(port))


def _addresses(port: int, seen: Seen, count: int, token: str) -> None:
    """Addresses and queries of reads, broken; what no client library sends is quoted."""
    whole = (b"/v1/decisions/checkout/1/0/0?features=true", b"/v1/features/activity/1?t=2026-01-01T00%3A00%3A00Z")
    headers = {"Authorization": f"Bearer {token}"}
    for place, valid in enumerate(whole):
        endpoint = "decision" if place == 0 else "features"
        with Client(port) as client:
            for sent in broken_bytes(valid, seed=SEED + 5 + place, count=count):
                path = "/" + urllib.parse.quote(sent, safe="/?&=%+").lstrip("/")
                try:
                    seen.take(endpoint, path, client.call("GET", path, None, headers))
                except (OSError, http.client.HTTPException):
                    seen.take(endpoint, path, None)


def _tokens(port: int, seen: Seen, count: int, token: str) -> None:
    """Tokens that are nearly right; all of them are refused."""
    with Client(port) as client:
        for sent in broken_bytes(f"Bearer {token}".encode(), seed=SEED + 7, count=count):
            said = "".join(chr(byte) for byte in sent if 32 <= byte < 127)
            answer = client.call("GET", "/v1/features/activity/1", None, {"Authorization": said})
            same = said.split() == ["Bearer", token] or said.partition(" ")[2].strip() == token
            if not same and answer.status != 401:
                seen.unnamed += 1
                seen.worst.append(f"tokens: {answer.status} to {said!r}")
            seen.take("tokens", said, answer)


def _heads(port: int, seen: Seen, count: int) -> int:
    """Heads that are no HTTP: any answer is of 4xx, and a connection that is closed without one is an answer too."""
    chance = random.Random(SEED + 8)
    valid = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for sent in broken_bytes(valid, seed=SEED + 8, count=count):
        try:
            answer = raw_answer(
                port, sent, b"\r\n\r\n" if chance.random() < 0.5 else b"\r\nConnection: close\r\n\r\n", timeout=0.3
            )
        except OSError:
            continue  # kept open, as the head may go on: its time runs out
        if answer and answer[9:10] not in (b"2", b"4"):
            seen.unnamed += 1
            seen.worst.append(f"heads: {answer[:60]!r} to {sent!r}")
    return count


def _half_taken(folder: Path, seen: Seen) -> int:
    """Rows and records that no answer accounts for, answers without a record, and what replays otherwise."""
    with open_project(folder) as project:
        recorded = {record.decision_id for record in project.records("checkout")}
        rows = {topic: _rows(project, topic) for topic in ("orders", "visits")}
        mismatched = project.replay_decisions("checkout").mismatched
    said = {"orders": seen.rows["orders"] + len(recorded), "visits": seen.rows["visits"]}
    return len(recorded ^ seen.decisions) + sum(abs(rows[topic] - said[topic]) for topic in said) + mismatched


def _rows(project: Project, topic: str) -> int:
    for state in project.log.topics():
        if state.topic.name == topic:
            return sum(held.end for held in state.partitions)
    raise NotFoundError("HR-0302", f"no topic {topic!r}")
