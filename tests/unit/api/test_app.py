"""The application: decisions, features, events, limits, tokens, problems; called without a socket."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.api.settings import Settings
from headrace.api.tokens import Scope
from headrace.core.times import Instant
from tests.e2e.shop import DEFINITIONS, instant, order
from tests.needs import requires
from tests.unit.api.served import Answer, Served

requires("prometheus_client")

DECIDE = "/v1/decisions/checkout"
EVENTS = "/v1/topics/visits/events"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One project for tests whose ids and customers are their own."""
    with Served(tmp_path_factory.mktemp("shop") / "shop") as served:
        yield served


# --- decisions ---


def test_a_decision_is_answered_with_its_id_versions_and_point(shop: Served) -> None:
    request = order("a-1", 1)
    found = shop.call("POST", DECIDE, request)
    assert found.status == 200
    assert found.headers["content-type"] == "application/json"
    said = found.json
    assert said["decision_id"].startswith("checkout/")
    assert (said["request_id"], said["outcome"], said["reasons"], said["score"]) == ("a-1", "approve", [], None)
    assert [name for name, _ in said["versions"]["views"]] == ["activity", "attention"]
    assert said["t"].endswith("Z")
    assert (said["repeated"], said["flags"]) == (False, [])
    assert "features" not in said


def test_the_same_request_again_has_the_same_answer_and_says_so(shop: Served) -> None:
    request = order("a-2", 2)
    first, again = shop.call("POST", DECIDE, request).json, shop.call("POST", DECIDE, request).json
    assert (first.pop("repeated"), again.pop("repeated")) == (False, True)
    assert {name: again[name] for name in first} == first


def test_another_payload_under_a_known_id_is_a_conflict_that_names_the_field(shop: Served) -> None:
    request = order("a-3", 3)
    shop.call("POST", DECIDE, request)
    before = shop.ends()
    shop.call("POST", DECIDE, {**request, "amount": "99.00"}).problem(409, "HR-0710", "amount")
    assert shop.ends() == before


def test_features_come_on_demand_with_reasons_for_nulls(shop: Served) -> None:
    said = shop.call("POST", f"{DECIDE}?features=true", order("a-4", 4, amount="7.25")).json
    assert said["features"]["activity"]["count_1d"] == 1
    assert said["features"]["activity"]["mean_amount_30d"] == 7.25
    assert said["features"]["activity"]["std_weight_30d"] is None
    assert said["missing"] == {"activity.std_weight_30d": "EMPTY"}


@pytest.mark.parametrize("encoded", [False, True])
def test_a_recorded_decision_is_found_by_its_id(shop: Served, encoded: bool) -> None:
    made = [shop.call("POST", DECIDE, order(f"a-5-{encoded}-{i}", i)).json for i in range(5)]
    for each in made:
        id = each["decision_id"].replace("/", "%2F") if encoded else each["decision_id"]
        said = shop.call("GET", f"/v1/decisions/{id}").json
        assert {name: said[name] for name in each} == each
        assert said["rule"] == 2


@pytest.mark.parametrize(
    "id", ["checkout/1/0/999999", "checkout/9/0/0", "checkout/1/77/0", "checkout", "checkout/x/0/0"]
)
def test_an_unknown_decision_id_is_not_found(shop: Served, id: str) -> None:
    shop.call("GET", f"/v1/decisions/{id}").problem(404, "HR-0716")


def test_a_decision_of_an_unknown_name_is_not_found(shop: Served) -> None:
    assert "checkout" in shop.call("POST", "/v1/decisions/chekout", order("a-6")).problem(404, "HR-0806")["hint"]
    shop.call("GET", "/v1/decisions/other/1/0/0").problem(404, "HR-0806")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"amount": "12.345"}, "HR-0402", "amount"),
        ({"amount": None, "customer": "7"}, "HR-0401", "customer"),
        ({"customer": None}, "HR-0406", "customer"),
        ({"at": "2026-01-01T10:00:00"}, "HR-0103", "at"),
        ({"amuont": "1.00"}, "HR-0405", "amuont"),
        ({"weight": 10**400}, "HR-0403", "weight"),
        ({"customer": 2**70}, "HR-0404", "customer"),
        ({"order": {"a": 1}}, "HR-0401", "order"),
        ({"order": ["a"]}, "HR-0401", "order"),
    ],
)
def test_a_field_that_does_not_fit_is_named(
    shop: Served, change: dict[str, object], code: str, field: str | None
) -> None:
    before = shop.ends()
    found = shop.call("POST", DECIDE, order("a-7", **change))  # type: ignore[arg-type]  # whatever is sent
    found.problem(400 if code.startswith("HR-10") else 422, code, field)
    assert shop.ends() == before


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", "HR-1005", "truncated"),
        (b"{", "HR-1005", "truncated"),
        (b'{"order": NaN}', "HR-1005", "byte 10"),
        (b'{"order": Infinity}', "HR-1005", "byte 10"),
        (b'{"order": "a"} x', "HR-1005", "byte 16"),
        (b'{"order": "\xff"}', "HR-1005", "UTF-8"),
        (b'{"order": "\\ud800"}', "HR-1005", "JSON"),
        (b"[" * 100_000, "HR-1006", "nested"),
        (b'{"a":' * 100_000, "HR-1006", "nested"),
        (b"[]", "HR-1006", "a list"),
        (b"null", "HR-1006", "null"),
        (b'{"order": "a", "order": "b"}', "HR-1006", "'order' stands twice"),
        (b'{"order": "a", "\\u006frder": "b"}', "HR-1006", "'order' stands twice"),
        (b'{"weight": 1e999}', "HR-1006", "range"),
    ],
)
def test_a_body_that_is_no_object_is_refused_with_the_place(shop: Served, body: bytes, code: str, words: str) -> None:
    before = shop.ends()
    assert words in shop.call("POST", DECIDE, body, {"content-type": "application/json"}).problem(400, code)["detail"]
    assert shop.ends() == before


def test_a_key_of_a_quoted_text_is_no_repeated_key(shop: Served) -> None:
    request = {**order('a-8 "order": \\ ', 8)}
    assert shop.call("POST", DECIDE, request).status == 200
    assert shop.call("POST", DECIDE, json.dumps(request).encode().replace(b"a-8", b"\\u0061-8")).json["repeated"]


def test_an_idempotency_key_must_be_the_requests_id(shop: Served) -> None:
    request = order("a-9", 9)
    shop.call("POST", DECIDE, request, {"Idempotency-Key": "a-1"}).problem(400, "HR-1007", "idempotency-key")
    assert not shop.call("POST", DECIDE, request, {"Idempotency-Key": "a-9"}).json["repeated"]


@pytest.mark.parametrize("budget", ["0", "-1", "1.5", "x", "60001", "9" * 50, ""])
def test_a_wrong_budget_is_refused(shop: Served, budget: str) -> None:
    headers = {"Headrace-Budget-Ms": budget}
    shop.call("POST", DECIDE, order("a-10"), headers).problem(400, "HR-1007", "headrace-budget-ms")


# --- features ---


def test_many_keys_are_read_at_one_point(shop: Served) -> None:
    for number in range(3):
        shop.call("POST", DECIDE, order(f"f-{number}", 501, amount="10.00"))
    said = shop.call("POST", "/v1/features/activity", {"keys": [501, 502]}).json
    assert said["view"] == "activity"
    assert [row["key"] for row in said["rows"]] == [501, 502]
    assert said["rows"][0]["values"]["count_1d"] == 3
    assert said["rows"][1]["values"]["count_1d"] == 0
    assert said["rows"][1]["missing"]["mean_amount_30d"] == "EMPTY"
    assert {(place["topic"], place["partition"]) for place in said["cut"]} == {("orders", 0), ("orders", 1)}
    alone = shop.call("GET", "/v1/features/activity/501").json
    assert alone["rows"] == said["rows"][:1]


def test_features_are_read_at_an_instant_and_refused_where_it_is_too_old(shop: Served) -> None:
    shop.call("POST", DECIDE, order("f-10", 511))
    at = instant(days_ago=0.5)
    said = shop.call("POST", "/v1/features/activity", {"keys": [511], "t": at}).json
    assert said["rows"][0]["values"]["count_1d"] == 0
    assert shop.call("GET", f"/v1/features/activity/511?t={at.replace('+', '%2B')}").json["rows"] == said["rows"]
    shop.call("POST", "/v1/features/activity", {"keys": [511], "t": "1999-01-01T00:00:00Z"}).problem(422, "HR-0541")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"keys": []}, 400, "HR-1006", "keys"),
        ({"keys": [1] * 1_001}, 400, "HR-1006", "keys"),
        ({"keys": 7}, 400, "HR-1006", "keys"),
        ({"keys": [1, 2.5]}, 400, "HR-1006", "keys[1]"),
        ({"keys": [1, "x"]}, 422, "HR-0401", "keys[1]"),
        ({"keys": [1, [1, 2]]}, 400, "HR-1006", "keys[1]"),
        ({"keys": [2**64]}, 422, "HR-0404", "keys[0]"),
        ({"keys": [1], "t": "yesterday"}, 422, "HR-0103", "t"),
        ({"keys": [1], "at": "x"}, 400, "HR-1006", None),
        ({}, 400, "HR-1006", None),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    shop: Served, body: object, status: int, code: str, field: str | None
) -> None:
    shop.call("POST", "/v1/features/activity", body).problem(status, code, field)


def test_a_batchs_repeated_member_is_refused(shop: Served) -> None:
    body = b'{"keys": [1], "keys": [2]}'
    shop.call("POST", "/v1/features/activity", body).problem(400, "HR-1006", "keys")


@pytest.mark.parametrize(
    "path", ["activity/x", "activity/1/2", "activity/1?t=x", "activity/1?x=1", "activity/1?t=1&t=2"]
)
def test_a_path_or_query_that_does_not_fit_is_refused(shop: Served, path: str) -> None:
    assert shop.call("GET", f"/v1/features/{path}").status in (400, 422)


def test_a_view_of_an_unknown_name_is_not_found(shop: Served) -> None:
    shop.call("GET", "/v1/features/activty/1").problem(404, "HR-0806")
    shop.call("POST", "/v1/features/activty", {"keys": [1]}).problem(404, "HR-0806")


# --- events ---


def test_events_are_appended_each_with_its_verdict_and_place(shop: Served) -> None:
    events = [order(f"e-{number % 4}", number % 4, at=instant(number % 4 / 24)) for number in range(8)]
    events.append(order("e-ahead", 1, at="2126-01-01T00:00:00Z"))
    before = shop.ends()["orders"]
    said = shop.call("POST", "/v1/topics/orders/events", events[:4] + [events[8]] + events[:4]).json
    assert [one["verdict"] for one in said["events"]] == ["accepted"] * 4 + ["ahead"] + ["duplicate"] * 4
    assert said["verdicts"] == {"accepted": 4, "ahead": 1, "duplicate": 4}
    assert [one["index"] for one in said["events"]] == list(range(9))
    assert len({(one["partition"], one["offset"]) for one in said["events"]}) == 9
    assert shop.ends()["orders"] == before + 9


@pytest.mark.parametrize("kind", ["one", "list", "lines", "arrow"])
def test_events_come_in_four_forms(shop: Served, kind: str) -> None:
    at = instant()
    rows = [{"customer": number, "at": at} for number in range(1 if kind == "one" else 3)]
    before = shop.ends()["visits"]
    said = _sent(shop, kind, rows).json
    assert said["count"] == len(rows)
    assert said["verdicts"] == {"accepted": len(rows)}
    assert shop.ends()["visits"] == before + len(rows)


def _sent(shop: Served, kind: str, rows: list[dict[str, object]]) -> Answer:
    match kind:
        case "one":
            return shop.call("POST", EVENTS, rows[0])
        case "list":
            return shop.call("POST", EVENTS, rows)
        case "lines":
            body = b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b"\n"
            return shop.call("POST", EVENTS, body, {"content-type": "application/x-ndjson"})
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    return shop.call("POST", EVENTS, body, {"content-type": "application/vnd.apache.arrow.stream"})


@pytest.mark.parametrize("kind", ["list", "lines", "arrow"])
def test_one_event_that_does_not_fit_refuses_all_and_is_named(shop: Served, kind: str) -> None:
    at = instant()
    before = shop.ends()
    rows: list[dict[str, object]] = [{"customer": 1, "at": at}, {"customer": 2, "at": "no instant"}]
    assert _sent(shop, kind, rows).problem(422, "HR-0103", "at")["row"] == 1
    rows[1] = {"customer": None, "at": at}
    assert _sent(shop, kind, rows).problem(422, "HR-0406", "customer")["row"] == 1
    assert shop.ends() == before


def test_lines_that_are_no_objects_are_named(shop: Served) -> None:
    body = b'{"customer": 1, "at": "2026-01-01T00:00:00Z"}\n\n[1]\n'
    said = shop.call("POST", EVENTS, body, {"content-type": "application/x-ndjson"}).problem(400, "HR-1006")
    assert said["detail"].startswith("line 3")
    assert said["row"] == 1


def test_more_lines_than_a_call_may_bring_are_refused(shop: Served) -> None:
    said = shop.call("POST", EVENTS, b"\n" * 100_001, {"content-type": "application/x-ndjson"}).problem(400, "HR-1006")
    assert "100,000" in said["detail"]


@pytest.mark.parametrize("topic", ["headrace.audit", "headrace.catalog", "headrace.decisions.checkout", "nope"])
def test_nobody_appends_to_internal_topics(shop: Served, topic: str) -> None:
    before = shop.ends()
    shop.call("POST", f"/v1/topics/{topic}/events", [{}]).problem(404, "HR-0806")
    assert shop.ends() == before


# --- routes, content types, limits ---


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/decisions", "/v1/topics/visits", "/v2/decisions/checkout", "//", "/%ff"]
)
def test_an_unknown_address_is_not_found(shop: Served, path: str) -> None:
    assert shop.call("GET", path).status in (400, 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", DECIDE, "GET, HEAD, POST"),
        ("GET", EVENTS, "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", DECIDE, "GET, HEAD, POST"),
        ("GET", "/v1/features/activity", "POST"),
        ("POST", "/v1/features/activity/1", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(shop: Served, method: str, path: str, allow: str) -> None:
    found = shop.call(method, path)
    found.problem(405, "HR-1002")
    assert found.headers["allow"] == allow


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": ""},
        {"content-type": "application/json; charset=latin-1"},
        {"content-encoding": "gzip"},
        {"content-type": "application/x-ndjson"},
    ],
)
def test_another_content_type_is_refused(shop: Served, headers: dict[str, str]) -> None:
    shop.call("POST", DECIDE, order("c-1"), headers).problem(415, "HR-1003")


def test_a_charset_of_utf_8_is_taken(shop: Served) -> None:
    assert shop.call("POST", DECIDE, order("c-2"), {"content-type": 'Application/JSON; charset="UTF-8"'}).status == 200


def test_a_head_request_has_no_body(shop: Served) -> None:
    found = shop.call("HEAD", "/healthz")
    assert (found.status, found.body) == (200, b"")


def test_a_body_that_is_too_large_is_refused_however_it_comes(tmp_path: Path) -> None:
    with Served(tmp_path, settings=Settings(json_bytes_max=2_000, bulk_bytes_max=5_000)) as shop:
        large = json.dumps(order("l", amount="1.00", weight=1.0)).encode() + b" " * 2_000
        shop.call("POST", DECIDE, large, {"content-length": str(len(large))}).problem(413, "HR-1004")
        shop.call("POST", DECIDE, large).problem(413, "HR-1004")
        shop.call("POST", DECIDE, chunks=[large[:1_500], large[1_500:]]).problem(413, "HR-1004")
        parts = [large[:700], large[700:1_400], large[1_400:1_900]]
        assert shop.call("POST", DECIDE, chunks=parts).status == 200
        lines = b'{"customer": 1, "at": "2026-01-01T00:00:00Z"}\n' * 200
        shop.call("POST", EVENTS, lines, {"content-type": "application/x-ndjson"}).problem(413, "HR-1004")
        assert shop.ends()["visits"] == 0


def test_bodies_that_arrive_at_once_are_bounded_together(tmp_path: Path) -> None:
    with Served(tmp_path, settings=Settings(buffered_bytes_max=1_000)) as shop:
        found = shop.call("POST", DECIDE, chunks=[b" " * 900, b" " * 900, b"{}"])
        found.problem(503, "HR-1008")
        assert found.headers["retry-after"] == "1"
        assert shop.call("POST", DECIDE, chunks=[b" " * 900, json.dumps(order("b")).encode()]).status in (200, 503)
        assert shop.call("POST", DECIDE, order("b-2")).status == 200


def test_a_caller_who_leaves_is_not_answered(shop: Served) -> None:
    async def leave() -> Answer:
        return await shop.answer("POST", DECIDE, chunks=[])

    assert shop.runner.run(leave()).status == 0


# --- operations ---


def test_health_readiness_and_metrics(shop: Served) -> None:
    shop.call("POST", DECIDE, order("m-1", 1))
    assert shop.call("GET", "/healthz").json == {"status": "ok"}
    assert shop.call("GET", "/readyz").json == {"status": "ready"}
    text = shop.call("GET", "/metrics").body.decode()
    assert 'headrace_decisions_total{decision="checkout",kind="decided",outcome="approve"}' in text
    for stage in ("queue", "compute", "append", "total"):
        assert f'headrace_decision_stage_seconds_count{{decision="checkout",stage="{stage}"}}' in text
    assert 'headrace_http_requests_total{route="decide",status="200"}' in text
    assert 'headrace_queue_waiting{queue="decision checkout"} 0.0' in text
    assert "headrace_ready 1.0" in text


def test_a_stopping_server_is_not_ready(tmp_path: Path) -> None:
    with Served(tmp_path) as shop:
        shop.service.stopping = True
        shop.call("GET", "/readyz").problem(503, "HR-1008")
        assert shop.call("GET", "/healthz").status == 200


def test_a_trace_goes_on_in_the_answer_and_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with Served(tmp_path, access_log=True) as shop, caplog.at_level(logging.INFO, "headrace.access"):
        found = shop.call("POST", DECIDE, order("t-1"), {"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        version, same, span, flags = found.headers["traceparent"].split("-")
        assert (version, same, flags) == ("00", trace, "01")
        assert span != "b7ad6b7169203331"
        (line,) = caplog.records
        assert (line.__dict__["trace_id"], line.__dict__["status"]) == (trace, 200)
        for wrong in ("00-" + "0" * 32 + "-b7ad6b7169203331-01", "x", f"ff-{trace}-b7ad6b7169203331-01"):
            assert "traceparent" not in shop.call("GET", "/healthz", headers={"traceparent": wrong}).headers
        assert "t-1" not in str([record.__dict__ for record in caplog.records])


# --- tokens ---


def test_a_project_with_a_token_asks_for_it_and_for_its_scope(tmp_path: Path) -> None:
    with Served(tmp_path) as shop:
        now = shop.project.now()
        token, text = shop.tokens.create("checkout", [Scope.DECIDE], now=now, expires=None)
        shop.tokens._looked = Instant(-(10**9))  # the file changed a moment ago; a server looks once a second
        none = shop.call("POST", DECIDE, order("k-1"))
        none.problem(401, "HR-1009")
        assert none.headers["www-authenticate"].startswith("Bearer")
        bearer = {"authorization": f"Bearer {text}"}
        assert shop.call("POST", DECIDE, order("k-1"), bearer).status == 200
        shop.call("GET", "/v1/features/activity/1", headers=bearer).problem(403, "HR-1010")
        shop.call("GET", "/metrics", headers=bearer).problem(403, "HR-1010")
        shop.call("POST", EVENTS, [], bearer).problem(403, "HR-1010")
        assert shop.call("GET", "/openapi.json", headers=bearer).status == 200
        assert shop.call("GET", "/healthz").status == 200
        for wrong in (text[:-1], text + "x", f"hr_{token.id}_", "hr", "", text.replace("hr_", "")):
            shop.call("POST", DECIDE, order("k-2"), {"authorization": f"Bearer {wrong}"}).problem(401, "HR-1009")
        shop.call("POST", DECIDE, order("k-2"), {"authorization": f"Basic {text}"}).problem(401, "HR-1009")
        shop.tokens.revoke(token.id, now=now)
        shop.tokens._looked = Instant(-(10**9))
        shop.call("POST", DECIDE, order("k-3"), bearer).problem(401, "HR-1009")
        assert shop.ends()["orders"] == 1


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1:8000", "localhost.evil.example"])
def test_without_tokens_only_localhost_is_answered(shop: Served, host: str) -> None:
    shop.call("GET", "/v1/features/activity/1", headers={"host": host}).problem(421, "HR-1017")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:8000", "127.0.0.5"])
def test_names_of_this_machine_are_local(shop: Served, host: str) -> None:
    assert shop.call("GET", "/v1/features/activity/1", headers={"host": host}).status == 200


# --- many at once ---


def test_requests_at_once_are_each_answered_once(shop: Served) -> None:
    async def all_of_them() -> list[Answer]:
        requests = [order(f"q-{number // 2}", number // 2 % 5, at=at) for number in range(80)]
        patient = {"Headrace-Budget-Ms": "60000"}
        return list(await asyncio.gather(*(shop.answer("POST", DECIDE, one, patient) for one in requests)))

    at = instant()
    before = shop.ends()["orders"]
    found = shop.runner.run(all_of_them())
    assert {one.status for one in found} == {200}
    for first, again in zip(found[::2], found[1::2], strict=True):
        assert first.json["decision_id"] == again.json["decision_id"]
        assert sorted((first.json["repeated"], again.json["repeated"])) == [False, True]
    assert shop.ends()["orders"] == before + 40


COMPOSITE = (
    DEFINITIONS
    + """
pairs = hr.FeatureView("pairs", entity=("customer", "order"), source=orders, features=[hr.count().over("1d")])
"""
)


def test_an_entity_of_several_parts_is_a_list_or_path_segments(tmp_path: Path) -> None:
    with Served(tmp_path, definitions=COMPOSITE) as shop:
        shop.call("POST", DECIDE, order("a/b %", 7))
        said = shop.call("POST", "/v1/features/pairs", {"keys": [[7, "a/b %"], [7, "c"]]}).json
        assert [row["values"]["count_1d"] for row in said["rows"]] == [1, 0]
        assert shop.call("GET", "/v1/features/pairs/7/a%2Fb%20%25").json["rows"] == said["rows"][:1]
