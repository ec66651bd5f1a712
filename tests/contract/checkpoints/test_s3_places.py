"""What is wrong with a place on S3 is said at start, by the bucket, within seconds; and nothing of it is fatal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.clients.s3 import S3Bucket, S3Settings
from headrace.core.errors import StateError
from headrace.features import checkpoint
from headrace.features.checkpoint_address import open_store
from headrace.features.checkpoint_s3 import S3Checkpoints
from tests.contract.checkpoints.s3_server import BUCKET, CREDENTIALS, S3Server, free_port, s3_server
from tests.needs import requires
from tests.unit.features.test_checkpoint import PRINTS, filled, follow

SAID_WITHIN_S = 10


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    requires("boto3")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    requires("boto3", "moto", "flask_cors")
    with s3_server(Path(tmp_path_factory.mktemp("s3"))) as started:
        yield started


def refusal(url: str) -> StateError:
    """What `check` says, and that it says it soon."""
    begun = time.monotonic()
    with pytest.raises(StateError) as error:
        store = open_store(url)
        try:
            store.check()
        finally:
            store.close()
    assert time.monotonic() - begun < SAID_WITHIN_S
    return error.value


def test_a_bucket_that_does_not_exist_is_said(server: S3Server) -> None:
    error = refusal(f"s3://no-such-bucket/a?endpoint={server.endpoint}")
    assert (error.code, error.facts["bucket"], error.retryable) == ("HR-0563", "no-such-bucket", False)
    assert server.endpoint in error.message


def test_refused_credentials_are_said(server: S3Server) -> None:
    server.refuse_everybody()
    try:
        error = refusal(f"s3://{BUCKET}/a?endpoint={server.endpoint}")
    finally:
        server.refuse_everybody(False)
    assert (error.code, error.facts["bucket"]) == ("HR-0564", BUCKET)


def test_credentials_that_nobody_gave_are_said(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert refusal(f"s3://{BUCKET}/a?endpoint={server.endpoint}").code == "HR-0564"
    assert refusal(f"s3://{BUCKET}/a?endpoint={server.endpoint}&profile=nobody").code == "HR-0564"


def test_a_server_that_is_not_there_is_said() -> None:
    error = refusal(f"s3://{BUCKET}/a?endpoint=http://127.0.0.1:{free_port()}")
    assert (error.code, error.retryable) == ("HR-0565", True)


class Overwriting(BaseHTTPRequestHandler):
    """Takes everything, whatever the condition."""

    def _take(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200 if self.command == "PUT" else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_DELETE = _take  # noqa: N815 - the names that the server asks for

    def log_message(self, format: str, *args: object) -> None:
        """Said nowhere."""


@contextmanager
def overwriting() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Overwriting) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()
            thread.join()


def test_a_server_that_overwrites_is_refused() -> None:
    with overwriting() as endpoint:
        error = refusal(f"s3://{BUCKET}/a?endpoint={endpoint}")
    assert error.code == "HR-0569"


def test_a_server_that_dies_is_said(tmp_path: Path) -> None:
    requires("moto", "flask_cors")
    log, state = filled(1, 6)
    with s3_server(tmp_path) as own:
        store = open_store(f"s3://{BUCKET}/a?endpoint={own.endpoint}")
        checkpoint.write(state, store, fingerprints=PRINTS)
        own.process.kill()
        own.process.wait()
        follow(state, log.lender, [log.draw()])
        with pytest.raises(StateError) as error:
            checkpoint.write(state, store, fingerprints=PRINTS)
        assert error.value.code == "HR-0565"
        store.close()


def test_a_large_object_that_was_begun_is_found_and_let_go(server: S3Server) -> None:
    """As a writer leaves it that is killed between two pieces."""
    bucket = S3Bucket(S3Settings(bucket=BUCKET, endpoint=server.endpoint), wanted_by="a test", piece_bytes=5 << 20)
    store = S3Checkpoints(S3Settings(bucket=BUCKET, endpoint=server.endpoint), "begun")
    server.ask("POST", f"{BUCKET}/begun/p1-1/state.kernel.npy?uploads")
    assert [upload.key for upload in bucket.uploads("begun/")] == ["begun/p1-1/state.kernel.npy"]
    assert list(store.unfinished("p1-")) == ["p1-1"]
    store.remove("p1-1")
    assert list(bucket.uploads("")) == []
    assert list(store.unfinished("")) == []
    bucket.close()
    store.close()


def test_a_large_object_is_never_overwritten_either(server: S3Server) -> None:
    bucket = S3Bucket(S3Settings(bucket=BUCKET, endpoint=server.endpoint), wanted_by="a test", piece_bytes=5 << 20)
    one, other = bytes(11 << 20), b"\1" * (11 << 20)
    assert bucket.put("large", [one])
    assert not bucket.put("large", [other])
    assert not bucket.put("large", [b"small"])
    assert bucket.get("large") == one
    assert list(bucket.uploads("")) == [], "the pieces of what was refused are gone"
    bucket.remove(["large", "large"])
    assert bucket.get("large") is None
    bucket.close()
