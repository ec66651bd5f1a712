"""The server against clients that are slow, large, broken or many."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.runtime.project import open_project
from tests.e2e.serving import Client, Serving, raw_answer
from tests.e2e.shop import make, order
from tests.needs import requires, requires_program

requires("uvicorn", "httptools", "prometheus_client")

HEAD = b"POST /v1/decisions/checkout HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
IDLE = 1_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One for all: it must stay up."""
    folder = make(tmp_path_factory.mktemp("limits") / "shop")
    with open_project(folder) as project:
        project.apply()
    with Serving(folder, "--head-seconds-max", "1", "--body-seconds-max", "2") as serving:
        yield serving
        assert serving.stop() == 0
        assert "Traceback" not in serving.log()


def expect_well(server: Serving, id: str) -> None:
    assert server.decide(order(id, 1)).status == 200


def problem(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == code


def test_a_body_that_is_too_large_is_refused_and_the_connection_is_in_order(server: Serving) -> None:
    server.call("POST", "/v1/decisions/checkout", b" " * 1_200_000).problem(413, "HR-1004")
    with Client(server.port) as client:
        pieces = (b" " * 65_536 for _ in range(20))
        client.call("POST", "/v1/decisions/checkout", pieces, {"Content-Type": "application/json"}).problem(
            413, "HR-1004"
        )
        assert client.call("GET", "/healthz").status == 200
    expect_well(server, "large")


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"X-Large: " + b"a" * 20_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 100) for i in range(400)) + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_a_head_that_is_too_large_is_refused(server: Serving, sent: bytes) -> None:
    problem(raw_answer(server.port, sent), 431, "HR-1012")
    expect_well(server, f"head-{len(sent)}")


def test_a_head_without_an_end_is_refused(server: Serving) -> None:
    problem(raw_answer(server.port, HEAD + b"X-Endless: " + b"a" * 20_000), 431, "HR-1012")


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server: Serving, sent: bytes) -> None:
    assert raw_answer(server.port, sent).startswith(b"HTTP/1.1 4")
    expect_well(server, f"broken-{hash(sent)}")


def test_slow_clients_are_told_and_closed(server: Serving) -> None:
    began = time.monotonic()
    problem(raw_answer(server.port, HEAD), 408, "HR-1011")
    problem(raw_answer(server.port, HEAD + b'Content-Length: 100\r\n\r\n{"order": "a"'), 408, "HR-1011")
    assert time.monotonic() - began < 20
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as dripping:
        for byte in HEAD:
            try:
                dripping.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.05)
        problem(dripping.recv(65_536), 408, "HR-1011")
    expect_well(server, "slow")


def test_a_client_that_leaves_in_the_middle_takes_nothing_with_it(server: Serving) -> None:
    body = json.dumps(order("half", 1)).encode()
    for cut in range(0, len(body), 7):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as leaving:
            leaving.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:cut])
    expect_well(server, "left")
    assert not server.decide(order("half", 1)).json["repeated"], "none of the halves was taken"


def test_requests_in_one_write_are_answered_in_order(server: Serving) -> None:
    parts = []
    for number in range(5):
        body = json.dumps(order(f"pipe-{number}", 1)).encode()
        last = b"Connection: close\r\n" if number == 4 else b""
        parts.append(HEAD + b"Headrace-Budget-Ms: 60000\r\n" + last + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = raw_answer(server.port, b"".join(parts))
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    places = [answer.index(b'"request_id":"pipe-%d"' % number) for number in range(5)]
    assert places == sorted(places)


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"


@pytest.mark.parametrize("form", ["one write", "two writes", "chunked", "no body"])
def test_an_offer_of_another_protocol_is_passed_over(server: Serving, form: str) -> None:
    """Java's client offers HTTP/2 with its first request; the body must not get lost."""
    body = json.dumps(order(f"h2c-{form}", 1)).encode()
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head = HEAD + b"Headrace-Budget-Ms: 60000\r\n" + UPGRADE
    sized = head + b"Content-Length: %d\r\n\r\n" % len(body)
    match form:
        case "one write":
            answer = raw_answer(server.port, sized + body + last)
        case "two writes":
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(sized)
                time.sleep(0.1)
                connection.sendall(body[:10])
                time.sleep(0.1)
                connection.sendall(body[10:] + last)
                answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        case "chunked":
            pieces = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
            answer = raw_answer(server.port, head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + last)
        case _:
            get = b"GET /v1/features/activity/1 HTTP/1.1\r\nHost: localhost\r\n"
            answer = raw_answer(server.port, get + UPGRADE + b"\r\n" + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 2, answer
    assert b'"status":"ok"' in answer
    assert (b'"request_id":"h2c-' in answer) == (form != "no body")


def test_idle_connections_do_not_stand_in_the_way(server: Serving) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 300
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("this machine lacks open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    idle: list[socket.socket] = []
    try:
        for _ in range(IDLE):
            idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        for number in range(20):
            expect_well(server, f"idle-{number}")
        assert server.call("GET", "/readyz").status == 200
    finally:
        for each in idle:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    expect_well(server, "after-idle")


def test_tls_is_served_from_references(tmp_path: Path) -> None:
    requires_program("openssl")
    folder = make(tmp_path / "shop")
    with open_project(folder) as project:
        project.apply()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )  # fmt: skip
    secret = {"HEADRACE_TEST_KEY": key.read_text()}
    options = ("--tls-cert", f"file:{cert}", "--tls-key", "env:HEADRACE_TEST_KEY")
    with Serving(folder, *options, environment=secret) as server:
        context = ssl.create_default_context(cafile=str(cert))
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0
        assert "PRIVATE" not in server.log()
