"""Views that other processes hold, asked over HTTP: the same answers, in the caller's name, and in time or not at
all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from headrace.api.views import CALLER, OtherProcesses, answers_text, questions_of
from headrace.core.aggregate import Reason
from headrace.core.errors import InputError
from headrace.runtime.holding import PartAnswer, PartQuestion

QUESTIONS = [
    PartQuestion(
        topic="by_merchant",
        index=2,
        view="merchant",
        fingerprint="f",
        t=-5,
        row=('ä"', None, 7, 0.1, True),
        source=1025,
        offset=9,
    ),
    PartQuestion(topic="by_merchant", index=0, view="merchant", fingerprint="f", t=2**61, entity=("a", 3)),
    PartQuestion(topic="by_merchant", index=0, view="merchant", fingerprint="f", t=1, entity="b"),
]
ANSWERS = [
    PartAnswer(
        answer=(
            (1, 2**100, 0.1 + 0.2, None, ("a", None), True),
            (Reason.VALUE,) * 3 + (Reason.EMPTY,) + (Reason.VALUE,) * 2,
        ),
        incarnation=3,
        at=12,
        age=7,
    ),
    PartAnswer(incarnation=1, at=0, age=2**40, absent="too_old"),
    PartAnswer(absent="owner_away"),
]


class Holder:
    """A process that answers as it is told. seen: bodies and credentials."""

    def __init__(self) -> None:
        self.status, self.body, self.sleep = 200, answers_text(ANSWERS), 0.0
        self.seen: list[tuple[str, list[PartQuestion], str | None]] = []
        holder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                said = self.rfile.read(int(self.headers["content-length"]))
                holder.seen.append((self.path, questions_of(said), self.headers["authorization"]))
                time.sleep(holder.sleep)
                self.send_response(holder.status)
                self.send_header("content-length", str(len(holder.body)))
                self.end_headers()
                self.wfile.write(holder.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def holder() -> Iterator[Holder]:
    made = Holder()
    yield made
    made.close()


@pytest.fixture
def others() -> Iterator[OtherProcesses]:
    made = OtherProcesses("http://here:1", lambda topic, index: ["http://here:1", "http://there:2", None][index])
    yield made
    made.close()


def test_questions_and_answers_come_through_as_they_are(holder: Holder, others: OtherProcesses) -> None:
    CALLER.set(b"Bearer hr_x_y")
    for _ in range(3):  # by one connection
        assert list(others.ask(holder.address, QUESTIONS, within=5.0).result()) == ANSWERS
    assert holder.seen == [("/v1/held", QUESTIONS, "Bearer hr_x_y")] * 3
    CALLER.set(b"")
    others.ask(holder.address, QUESTIONS, within=5.0).result()
    assert holder.seen[-1][2] is None


def test_this_process_is_not_asked(others: OtherProcesses) -> None:
    assert [others.holder("t", index) for index in range(3)] == [None, "http://there:2", None]


def test_who_is_not_there_says_so_and_who_is_slow_is_not_waited_for(holder: Holder, others: OtherProcesses) -> None:
    holder.sleep = 3.0
    began = time.monotonic()
    with pytest.raises(OSError):
        others.ask(holder.address, QUESTIONS, within=0.1).result()
    assert time.monotonic() - began < 2.0
    with pytest.raises(OSError):
        others.ask("http://127.0.0.1:9", QUESTIONS, within=1.0).result()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b"{}"),
        (200, b"[]"),
        (200, b"{"),
        (200, b'{"answers":[[1]]}'),
        (200, b'{"answers":[[[1],[9],1,1,1,null]]}'),
    ],
)
def test_another_answer_is_none(holder: Holder, others: OtherProcesses, status: int, body: bytes) -> None:
    holder.status, holder.body = status, body
    with pytest.raises((ValueError, OSError)):
        others.ask(holder.address, QUESTIONS, within=5.0).result()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b"\xff", b'{"questions":1}', b'{"questions":[[]]}', b'{"questions":[],"more":1}',
        b'{"questions":[["t",1,"v","f",1,[[1]],0,0,null]]}', b'{"questions":[["t",1.5,"v","f",1,null,0,0,null]]}',
        json.dumps({"questions": [["t", 0, "v", "f", 1, None, 0, 0, 1]] * 5_000}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(body: bytes) -> None:
    with pytest.raises(InputError) as caught:
        questions_of(body)
    assert caught.value.code == "HR-1006"
