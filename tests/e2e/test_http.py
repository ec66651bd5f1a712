"""The server as others meet it: over sockets, restarted, killed, stopped, and served to several clients at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.core.times import iso
from headrace.runtime.project import open_project
from tests.e2e.serving import DECIDE, Crowd, Serving
from tests.e2e.shop import DEFINITIONS, Commands, instant, make, order
from tests.needs import requires

requires("uvicorn", "httptools", "prometheus_client")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = make(tmp_path / "shop")
    with open_project(place) as project:
        project.apply()
    yield place


def request(number: int) -> dict[str, object]:
    return order(f"r-{number}", number % 7, amount=f"{number % 90 + 1}.25", weight=number / 7)


def test_an_answer_is_the_same_after_a_restart(folder: Path) -> None:
    one = request(1)
    with Serving(folder) as server:
        first = server.decide(one).json
        again = server.decide(one).json
        assert (first.pop("repeated"), again.pop("repeated")) == (False, True)
        assert again | first == again
        server.decide({**one, "amount": "99.00"}).problem(409, "HR-0710")
        assert server.stop() == 0
    with Serving(folder) as server:
        later = server.decide(one).json
        assert later.pop("repeated")
        assert later == again
        found = server.call("GET", f"/v1/decisions/{first['decision_id'].replace('/', '%2F')}").json
        assert {name: found[name] for name in first} == first
        server.decide({**one, "amount": "99.00"}).problem(409, "HR-0710")
        assert server.stop() == 0


def expect_once(folder: Path, answered: dict[str, dict[str, dict[str, object]]]) -> int:
    """Every answer is a record's, no request has two, and all replay to the same bits. How many records there are."""
    with open_project(folder) as project:
        records = list(project.records("checkout"))
        by_request = {record.request_id: record for record in records}
        assert len(by_request) == len(records), "a decision twice"
        for id, held in answered.items():
            record, answer = by_request[id], held["answer"]
            assert (record.decision_id, record.outcome.value) == (answer["decision_id"], answer["outcome"])
            assert iso(record.t) == answer["t"]
        report = project.replay_decisions("checkout")
    assert (report.compared, report.mismatched, report.unknown) == (len(records), 0, 0)
    return len(records)


def test_a_kill_under_load_loses_no_answer_and_retries_have_the_same(folder: Path) -> None:
    answered: dict[str, dict[str, dict[str, object]]] = {}
    for life in range(2):
        with Serving(folder) as server, Crowd(server.port, request, clients=4, first=life * 10_000_000) as crowd:
            time.sleep(1.0)
            server.kill()
            crowd.join()
            answered |= crowd.answered
            assert crowd.statuses == {200}
    assert len(answered) > 20
    recorded = expect_once(folder, answered)
    assert recorded - len(answered) <= 2 * 64, "at most a batch a kill was decided and not yet told"
    with Serving(folder) as server:
        for held in list(answered.values())[::7]:
            again = server.decide(held["request"]).json
            assert again["repeated"]
            assert {name: again[name] for name in ("decision_id", "outcome", "t")} == {
                name: held["answer"][name] for name in ("decision_id", "outcome", "t")
            }


def test_a_stop_under_load_answers_what_was_accepted(folder: Path) -> None:
    with Serving(folder) as server, Crowd(server.port, request, clients=6) as crowd:
        time.sleep(1.0)
        assert server.stop() == 0
        crowd.join()
        assert crowd.statuses == {200}
        assert '"message":"stopped"' in server.log()
    assert len(crowd.answered) > 20
    assert expect_once(folder, crowd.answered) == len(crowd.answered), "decided, and not told"
    assert list((folder / ".headrace" / "checkpoints").iterdir()), "the next start is short"


def test_another_version_takes_over_between_two_requests(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Serving(folder) as server:
        one = request(1)
        before = server.decide(one).json["versions"]
        make(folder, DEFINITIONS.replace("count_1d > 1000", "count_1d > 0"))
        Commands(folder, capsys).done("apply", "--yes")
        for number in range(2, 200):
            after = server.decide(request(number)).json
            if after["versions"] != before:
                break
            time.sleep(0.1)
        assert after["versions"] != before
        assert (after["outcome"], after["reasons"]) == ("decline", ["MANY"])
        assert server.decide(one).json["versions"] == before, "a recorded answer keeps its versions"
        make(folder, "import headrace as hr\nthis is no python")
        assert server.decide(request(1_000)).status == 200, "what serves goes on"
        make(folder, DEFINITIONS.replace("count_1d > 1000", "count_1d > 0"))
        assert server.stop() == 0


def test_a_decision_that_is_declared_later_is_served_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Serving(folder) as server:
        server.call("POST", "/v1/decisions/second", request(1)).problem(404, "HR-0806")
        make(folder, f'{DEFINITIONS}\nsecond = hr.Decision("second", request=orders, policy=[hr.decline(reason="NO")])')
        Commands(folder, capsys).done("apply", "--yes")
        for _ in range(200):
            found = server.call("POST", "/v1/decisions/second", request(1), {"Headrace-Budget-Ms": "60000"})
            if found.status == 200:
                break
            time.sleep(0.1)
        assert (found.json["outcome"], found.json["reasons"]) == ("decline", ["NO"])
        assert server.decide(request(2)).json["outcome"] == "approve"
        assert "/v1/decisions/second" in server.call("GET", "/openapi.json").json["paths"]
        assert server.stop() == 0


def test_tokens_let_in_who_has_one_until_it_is_revoked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Commands(folder, capsys)
    made = json.loads(
        shop.done("tokens", "create", "--name", "till", "--scope", "decisions:decide", "--output", "json")
    )
    bearer = {"Authorization": f"Bearer {made['token']}"}
    with Serving(folder, "--access-log") as server:
        server.decide(request(1)).problem(401, "HR-1009")
        assert server.decide(request(1), bearer).status == 200
        assert server.call("GET", "/healthz").status == 200
        server.call("GET", "/v1/features/activity/1", headers=bearer).problem(403, "HR-1010")
        other = shop.done("tokens", "create", "--name", "analyst", "--scope", "features:read").strip()
        time.sleep(1.1)
        analyst = {"Authorization": f"Bearer {other}"}
        assert server.call("GET", "/v1/features/activity/1", headers=analyst).status == 200
        shop.done("tokens", "revoke", "till")
        time.sleep(1.1)
        server.decide(request(2), bearer).problem(401, "HR-1009")
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log().splitlines()]
        answered = [line for line in lines if line["message"] == "answered"]
        assert {line["token"] for line in answered} == {"", made["id"], other.split("_")[1]}
        assert made["token"] not in server.log()
        assert made["token"].split("_", 2)[2] not in server.log()
    listed = json.loads(shop.done("tokens", "list", "--output", "json"))
    assert [(one["name"], one["state"]) for one in listed] == [("till", "revoked"), ("analyst", "valid")]
    with open_project(folder) as project:
        (state,) = [s for s in project.log.topics() if s.topic.name == "headrace.audit"]
        events = [row for batch in project.log.read(state.partitions[0].partition, 0) for row in batch.to_pylist()]
    assert [(e["action"], e["subject"]) for e in events] == [
        ("token created", made["id"]),
        ("token created", other.split("_")[1]),
        ("token revoked", made["id"]),
    ]


def test_a_public_address_asks_for_a_token_and_for_tls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Commands(folder, capsys)
    status, out, err = shop("serve", "--host", "0.0.0.0", "--port", "0")
    assert (status, out) == (2, "")
    assert "HR-1013" in err
    assert "valid token" in err
    shop.done("tokens", "create", "--name", "a", "--scope", "decisions:decide")
    status, _, err = shop("serve", "--host", "0.0.0.0", "--port", "0")
    assert status == 2
    assert "plain text" in err
    with Serving(folder, "--host", "0.0.0.0", "--insecure-plaintext") as server:
        server.decide(request(1)).problem(401, "HR-1009")
    assert "server opened" in shop.done("topics", "read", "headrace.audit")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--tls-cert", "file:cert.pem"), "HR-1013"),
        (("--tls-cert", "file:nope.pem", "--tls-key", "file:nope.pem"), "HR-1019"),
        (("--tls-cert", "file:nope.pem", "--tls-key", "env:HEADRACE_TEST_NO_SUCH"), "HR-1019"),
        (("--tls-cert", "file:nope.pem", "--tls-key", "-----BEGIN PRIVATE KEY-----secret"), "HR-1019"),
        (("--decision", "chekout"), "HR-0806"),
    ],
)
def test_options_that_cannot_be_right_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: str
) -> None:
    status, _, err = Commands(folder, capsys)("serve", "--port", "0", *options)
    assert status in (1, 2)
    assert code in err
    assert "secret" not in err.replace("reference to a secret", "")


def test_many_clients_are_served_at_once(folder: Path) -> None:
    with Serving(folder) as server:
        with Crowd(server.port, request, clients=24) as crowd:
            time.sleep(1.5)
        assert crowd.statuses == {200}
        assert server.stop() == 0
    assert expect_once(folder, crowd.answered) == len(crowd.answered)


def test_events_are_appended_beside_decisions(folder: Path) -> None:
    with Serving(folder) as server, Crowd(server.port, request, clients=2) as crowd:
        rows = [{"customer": number % 7, "at": instant()} for number in range(500)]
        for _ in range(5):
            said = server.call("POST", "/v1/topics/visits/events", rows).json
            assert said["verdicts"] == {"accepted": 500}
        assert server.call("POST", "/v1/features/attention", {"keys": [1]}).json["rows"][0]["values"]["count_30d"] > 300
        found = server.decide(request(77_000_008)).json
        assert (found["outcome"], found["reasons"]) == ("review", ["CURIOUS"])
    expect_once(folder, crowd.answered)


def test_the_address_of_decisions_is_as_the_document_says(folder: Path) -> None:
    with Serving(folder) as server:
        assert DECIDE in server.call("GET", "/openapi.json").json["paths"]
