"""The short way of a decision says what the general way says: each request is sent by both, and the answers compared.

A query makes a request go the general way.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from headrace.api import direct
from headrace.api.app import Application
from headrace.runtime.project import open_project
from tests.e2e.serving import DECIDE, PATIENT, Answer, Client, Serving
from tests.e2e.shop import make, order
from tests.needs import requires

requires("uvicorn", "httptools", "prometheus_client")

GENERAL = f"{DECIDE}?features=false"
JSON = (b"content-type", b"application/json")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = make(tmp_path_factory.mktemp("direct") / "shop")
    with open_project(folder) as project:
        project.apply()
    with Serving(folder) as serving:
        yield serving
        assert serving.stop() == 0
        assert "Traceback" not in serving.log()


def said(answer: Answer) -> tuple[int, dict[str, str], object]:
    """What both ways must have in common."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
    if "traceparent" in headers:
        version, trace, _, flags = headers["traceparent"].split("-")
        headers["traceparent"] = f"{version}-{trace}-{flags}"
    return answer.status, headers, answer.json if answer.status != 200 else sorted(answer.json)


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (None, {}),
        (None, {"traceparent": TRACE}),
        (None, {"Connection": "keep-alive"}),
        (None, {"Idempotency-Key": "another"}),
        (None, {"Headrace-Budget-Ms": "never"}),
        (None, {"Content-Type": "text/plain"}),
        (None, {"Content-Encoding": "gzip"}),
        (None, {"Host": "elsewhere.example"}),
        (b"", {}),
        (b"[]", {}),
        (b'{"order":', {}),
        (b'{"order": "twice", "order": "twice"}', {}),
        (b"\xff", {}),
        (b"{}", {}),
        (json.dumps({**order("unfit", 1), "amount": "much"}).encode(), {}),
        (json.dumps({**order("large", 1), "note": "x" * direct.BODY_BYTES_MAX}).encode(), {}),
    ],
)
def test_both_ways_answer_alike(server: Serving, body: bytes | None, headers: dict[str, str]) -> None:
    with Client(server.port) as client:
        found = []
        for number, path in enumerate((DECIDE, GENERAL)):
            whole = order(f"{abs(hash(tuple(headers.items())))}-{number}", 1) if body is None else body
            found.append(said(client.call("POST", path, whole, {**PATIENT, **headers})))
        assert found[0] == found[1]


def test_a_request_that_is_known_is_answered_from_its_record(server: Serving) -> None:
    request = order("known", 1)
    with Client(server.port) as client:
        first, second, third = (client.call("POST", path, request, PATIENT) for path in (DECIDE, DECIDE, GENERAL))
        assert second.json["decision_id"] == first.json["decision_id"]
        assert second.json["repeated"] is True
        assert said(second) == said(third) and second.json == third.json
        other = {**request, "amount": "99.00"}
        assert said(client.call("POST", DECIDE, other, PATIENT)) == said(client.call("POST", GENERAL, other, PATIENT))


def test_a_request_in_many_pieces_and_two_in_one_write(server: Serving) -> None:
    raw = [raw_request(order(f"raw-{number}", 1)) for number in range(4)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(raw[0]), 7):
            connection.sendall(raw[0][at : at + 7])
        assert next_answer(connection)["request_id"] == "raw-0"
        connection.sendall(b"".join(raw[1:]))
        assert [next_answer(connection)["request_id"] for _ in range(3)] == ["raw-1", "raw-2", "raw-3"]


def raw_request(request: dict[str, object]) -> bytes:
    body = json.dumps(request).encode()
    head = f"POST {DECIDE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Headrace-Budget-Ms: 60000\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def next_answer(connection: socket.socket) -> dict[str, object]:
    held = b""
    while b"\r\n\r\n" not in held:
        held += connection.recv(1)
    assert held.startswith(b"HTTP/1.1 200 "), held
    length = int(held.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    found: dict[str, object] = json.loads(body)
    return found


class Peer:
    """Takes no answer: which way a request goes is asked before there is one."""

    def answer(self, exchange: direct.Exchange, reply: object) -> None:
        raise AssertionError("nothing was asked")


class Service:
    lanes = {"checkout": None}


class App:
    service = Service()


@pytest.mark.parametrize(
    ("target", "headers", "short"),
    [
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"10")], True),
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"10"), (b"connection", b"Keep-Alive")], True),
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"16384")], True),
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"16385")], False),
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"100000")], False),
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"+1")], False),
        (b"/v1/decisions/checkout", [JSON], False),
        (b"/v1/decisions/checkout", [JSON, (b"transfer-encoding", b"chunked")], False),
        (b"/v1/decisions/checkout", [JSON, JSON, (b"content-length", b"10")], False),
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"10"), (b"connection", b"close")], False),
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"10"), (b"upgrade", b"h2c")], False),
        (b"/v1/decisions/checkout", [JSON, (b"content-length", b"10"), (b"expect", b"100-continue")], False),
        (b"/v1/decisions/checkout", [(b"content-type", b"text/plain"), (b"content-length", b"10")], False),
        (b"/v1/decisions/checkout?features=true", [JSON, (b"content-length", b"10")], False),
        (b"/v1/decisions/check%6fut", [JSON, (b"content-length", b"10")], False),
        (b"/v1/decisions/other", [JSON, (b"content-length", b"10")], False),
        (b"checkout", [JSON, (b"content-length", b"10")], False),
    ],
)
def test_what_is_plain_takes_the_short_way(target: bytes, headers: list[tuple[bytes, bytes]], short: bool) -> None:
    app: Application = App()  # type: ignore[assignment]  # all that the question needs of one
    way = direct.Direct(app)
    for _ in range(2):  # the second time by what is remembered
        assert (way.exchange(Peer(), target, headers) is not None) is short
