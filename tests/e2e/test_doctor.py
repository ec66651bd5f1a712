"""`headrace doctor` of projects and of running servers: each fault is found, with what to do; a sound one has none."""

from __future__ import annotations

import http.server
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from headrace.api import address
from headrace.api.checkup import check_tokens
from headrace.api.series import LAST_LOOK, PERIOD, SERVING, versions_digest
from headrace.api.tokens import Scope, TokenStore
from headrace.core.times import Duration, Instant
from headrace.runtime.project import open_project
from tests.e2e import lender
from tests.e2e.serving import Serving
from tests.e2e.shop import DEFINITIONS, Commands, make, order
from tests.e2e.test_sampler import ALL, forge, until
from tests.needs import requires

requires("uvicorn", "httptools", "prometheus_client")

SOUND = (0, "nothing wrong\n")
HOUR = Duration.parse("1h").micros


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    commands = Commands(make(tmp_path / "shop"), capsys)
    commands.done("apply", "--yes")
    return commands


def findings(shop: Commands, *options: str) -> list[str]:
    status, out, err = shop("doctor", "--output", "json", *options)
    found = [one["text"] for one in json.loads(out)]
    assert status == (1 if found else 0), err
    return found


# --- a project ---


def test_a_sound_project_has_nothing_wrong(shop: Commands) -> None:
    for options in ((), ("--server",)):
        status, out, err = shop("doctor", *options)
        assert (status, err) == SOUND
        assert out == ""


def test_definitions_that_were_not_applied_are_found(shop: Commands) -> None:
    make(shop.folder, DEFINITIONS.replace("> 1000", "> 5"))
    (found,) = findings(shop)
    assert "decision 'checkout' first" in found
    assert "headrace apply" in found


def test_definitions_that_do_not_load_are_found(shop: Commands) -> None:
    make(shop.folder, "nonsense(")
    (found,) = findings(shop)
    assert found.startswith("HR-0805")


def test_a_folder_that_declares_nothing_is_a_fault_of_a_server_alone(shop: Commands) -> None:
    (shop.folder / "definitions.py").unlink()
    assert findings(shop) == []
    (first, *_) = findings(shop, "--server")
    assert first.startswith("HR-0804")


def test_a_model_that_was_never_trained_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Commands(make(tmp_path / "lender", lender.DEFINITIONS), capsys)
    shop.done("apply", "--yes")
    (found,) = findings(shop)
    assert found.startswith("decision 'guarded' cannot be served: HR-0807")
    assert "headrace models train fraud" in found


def test_a_decision_without_texts_beside_one_that_has_them_is_found(shop: Commands) -> None:
    words = 'texts={"MANY": {"en": "Too many."}, "CURIOUS": {"en": "Visits."}}'
    more = 'other = hr.Decision("other", request=orders, policy=[hr.approve()])\n'
    make(shop.folder, DEFINITIONS.replace("    hr.approve()])", f"    hr.approve()], {words})") + more)
    shop.done("apply", "--yes")
    (found,) = findings(shop)
    assert found.startswith("decision 'other' has no texts")


def test_no_decision_is_a_finding_of_a_server(shop: Commands) -> None:
    make(shop.folder, DEFINITIONS[: DEFINITIONS.index("checkout =")])
    shop.done("apply", "--yes")
    assert findings(shop) == []
    (found,) = findings(shop, "--server")
    assert found.startswith("no decision is declared")


def test_tokens_that_let_nobody_in_or_soon_will_not_are_found(tmp_path: Path) -> None:
    store, now = TokenStore(tmp_path), Instant(1_000 * HOUR)

    def found() -> list[str]:
        return [one.text for one in check_tokens(tmp_path, now)]

    assert found() == []
    reads, _ = store.create("analyst", [Scope.READ_FEATURES], now=now, expires=None)
    (one,) = found()
    assert "no valid token allows decisions:decide" in one
    store.create("till", [Scope.DECIDE], now=now, expires=Instant(now + 30 * HOUR))
    (one,) = found()
    assert "of 'till' expires at" in one and one.endswith("headrace tokens create --name till")
    store.create("till", [Scope.DECIDE], now=now, expires=Instant(now + 1_000 * HOUR))
    assert found() == [], "its successor is there"
    store.revoke("till", now=now)
    store.revoke(reads.id, now=now)
    (one,) = found()
    assert one.startswith("all 3 tokens are revoked or expired")
    (tmp_path / "tokens.json").write_text("{")
    (one,) = found()
    assert one.startswith("nobody is let in: HR-1014")


# --- a running server ---


def test_a_sound_server_is_found_by_its_project_and_by_its_address(shop: Commands) -> None:
    with Serving(shop.folder, *ALL) as server:
        until(server, bool)
        assert server.decide(order("a")).status == 200
        said = address.announced(shop.folder / ".headrace")
        assert said == f"http://127.0.0.1:{server.port}"
        status, _, err = shop("doctor")
        assert (status, err) == SOUND
        status, _, err = shop("doctor", "--url", f"http://localhost:{server.port}/")
        assert (status, err) == SOUND
        assert server.stop() == 0
    assert address.announced(shop.folder / ".headrace") is None
    assert not (shop.folder / ".headrace" / "server.json").exists()


def test_a_server_that_was_killed_leaves_no_finding_and_one_that_is_asked_for_does(shop: Commands) -> None:
    with Serving(shop.folder) as server:
        server.kill()
        assert (shop.folder / ".headrace" / "server.json").exists()
    assert address.announced(shop.folder / ".headrace") is None
    assert [text for text in findings(shop) if "server" in text] == []
    found = findings(shop, "--url", f"http://127.0.0.1:{server.port}")
    assert [text for text in found if text.startswith("no server answers at")]


def test_a_version_that_took_over_is_the_one_in_force(shop: Commands) -> None:
    with Serving(shop.folder) as server:
        make(shop.folder, DEFINITIONS.replace("> 1000", "> 5"))
        shop.done("apply", "--yes")
        deadline = time.monotonic() + 30
        while (seen := findings(shop)) and time.monotonic() < deadline:
            assert [text for text in seen if "by another version" not in text] == []
            time.sleep(0.2)
        assert seen == []
        assert server.stop() == 0


def test_a_decision_that_is_not_served_is_found(shop: Commands) -> None:
    more = 'other = hr.Decision("other", request=orders, policy=[hr.approve()])\n'
    make(shop.folder, DEFINITIONS + more)
    shop.done("apply", "--yes")
    with Serving(shop.folder, "--decision", "checkout") as server:
        (found,) = findings(shop)
        assert found.startswith("decision 'other' is in force and not served")
        assert server.stop() == 0


@pytest.mark.slow
def test_a_mismatch_of_the_sampler_is_found(shop: Commands) -> None:
    with Serving(shop.folder, *ALL) as server:
        until(server, bool)
        for number in range(4):
            assert server.decide(order(f"o-{number}", number)).status == 200
        forge(shop.folder)
        until(server, lambda found: found["mismatched"] > 0)
        (found,) = findings(shop)
        assert found.startswith("1 sampled records of decision 'checkout' do not recompute")
        assert "headrace decisions replay checkout" in found


def test_a_server_with_tokens_says_the_rest_to_a_token(shop: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {
        scope: shop.done("tokens", "create", "--name", scope, "--scope", scope).strip()
        for scope in ("metrics:read", "decisions:decide")
    }
    with Serving(shop.folder) as server:
        status, _, err = shop("doctor")
        assert status == 0
        assert "with --token env:NAME (scope metrics:read)" in err
        monkeypatch.setenv("HEADRACE_TEST_TOKEN", tokens["metrics:read"])
        status, _, err = shop("doctor", "--token", "env:HEADRACE_TEST_TOKEN")
        assert (status, err) == SOUND
        place = shop.folder / "token"
        place.write_text(tokens["decisions:decide"] + "\n")
        (found,) = findings(shop, "--token", f"file:{place}")
        assert "refuses the token" in found
        for wrong in ("env:HEADRACE_TEST_NONE", "file:/nonexistent/token", tokens["metrics:read"]):
            status, out, err = shop("doctor", "--token", wrong)
            assert (status, out) == (2, "")
            assert "HR-1019" in err
            assert tokens["metrics:read"] not in err
        assert server.stop() == 0


# --- what a server may say ---


class Said:
    """An HTTP server that says what a test tells it to."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str]] = {
            "/healthz": (200, '{"status":"ok"}'),
            "/readyz": (200, '{"status":"ready"}'),
            "/metrics": (200, ""),
        }
        self.ahead = 0.0
        said = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = said.answers.get(self.path, (404, ""))
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() + said.ahead, usegmt=True))
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def said() -> Iterator[Said]:
    made = Said()
    yield made
    made.close()


def serving(shop: Commands) -> str:
    with open_project(shop.folder, role="reader") as project:
        return f'{SERVING}{{decision="checkout",versions="{versions_digest(project.version("checkout").text)}"}} 1.0\n'


def asked(shop: Commands, said: Said, more: str = "") -> list[str]:
    said.answers["/metrics"] = (200, f"# HELP x y\n{serving(shop)}{more}")
    return findings(shop, "--url", said.url)


def test_a_sound_answer_has_no_finding(shop: Commands, said: Said) -> None:
    well = f"{LAST_LOOK} {time.time()}\n{PERIOD} 10.0\n" + 'headrace_queue_waiting{queue="decision checkout"} 64.0\n'
    assert asked(shop, said, well) == []


def test_another_version_than_the_one_in_force_is_found(shop: Commands, said: Said) -> None:
    line = serving(shop)
    said.answers["/metrics"] = (200, line.replace('versions="', 'versions="0'))
    (found,) = findings(shop, "--url", said.url)
    assert found.startswith("decision 'checkout' is served by another version")
    make(shop.folder, DEFINITIONS.replace("> 1000", "> 5"))
    (found,) = findings(shop, "--url", said.url)
    assert "not those that were applied" in found, "what is in force is not known here"


@pytest.mark.parametrize("ahead", [-60.0, 60.0])
def test_a_clock_that_differs_is_found(shop: Commands, said: Said, ahead: float) -> None:
    said.ahead = ahead
    (found,) = asked(shop, said)
    assert re.search(r"is (59|60|61) s (ahead of|behind) this machine's", found)
    assert ("ahead of" in found) == (ahead > 0)


def test_a_server_that_is_not_ready_is_found(shop: Commands, said: Said) -> None:
    said.answers["/readyz"] = (503, json.dumps({"detail": "not ready: decision 'checkout' cannot be computed"}))
    (found,) = asked(shop, said)
    assert "decision 'checkout' cannot be computed" in found


def test_a_sampler_that_stands_still_is_found(shop: Commands, said: Said) -> None:
    (found,) = asked(shop, said, f"{LAST_LOOK} {time.time() - 3_600}\n{PERIOD} 60.0\n")
    assert found.startswith("the sampler has not looked for 60 minutes")


def test_a_long_queue_is_found(shop: Commands, said: Said) -> None:
    (found,) = asked(shop, said, 'headrace_queue_waiting{queue="decision checkout"} 65.0\n')
    assert found.startswith("65 calls wait at decision checkout")


def test_what_is_no_headrace_server_is_found(shop: Commands, said: Said) -> None:
    for answer in ((404, ""), (200, "hello"), (200, "[]"), (500, '{"status":"ok"}')):
        said.answers["/healthz"] = answer
        (found,) = findings(shop, "--url", said.url)
        assert "is no headrace server" in found


@pytest.mark.parametrize(
    "url", ["nonsense", "http://", "ftp://127.0.0.1", "http://127.0.0.1:1", "http://[::1", "file:///etc"]
)
def test_an_address_where_nobody_answers_is_found(shop: Commands, url: str) -> None:
    (found,) = findings(shop, "--url", url)
    assert found.startswith("no server answers at")


def test_metrics_that_fail_are_found(shop: Commands, said: Said) -> None:
    said.answers["/metrics"] = (500, "")
    (found,) = findings(shop, "--url", said.url)
    assert "answers /metrics with status 500" in found


def test_an_address_file_of_another_process_is_not_taken_away(tmp_path: Path) -> None:
    with address.announcing(tmp_path) as announced:
        announced.say("http://127.0.0.1:1")
        assert address.announced(tmp_path) == "http://127.0.0.1:1"
        (tmp_path / address.FILE).write_text(json.dumps({"pid": os.getppid(), "address": "http://127.0.0.1:2"}))
    assert address.announced(tmp_path) == "http://127.0.0.1:2"
    for text in ("", "{", '{"pid": "x"}'):
        (tmp_path / address.FILE).write_text(text)
        assert address.announced(tmp_path) is None
