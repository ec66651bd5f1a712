"""Broken bodies from a seed: refused in words, nothing half taken, and the server goes on. `bench/http_fuzz.py` runs
more of them, over sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.testing.http_bodies import broken, broken_bytes, broken_lines, broken_lists, encode
from tests.e2e.shop import instant, order
from tests.needs import requires
from tests.unit.api.served import Answer, Served

requires("prometheus_client")

COUNT = 400
PATIENT = {"Headrace-Budget-Ms": "60000"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("fuzz") / "shop") as served:
        yield served


def expect_refused_or_taken(shop: Served, before: dict[str, int], found: Answer, body: bytes) -> bool:
    """Whether it was taken. A refusal is problem details of a 4xx, and leaves the log as it was."""
    if found.status == 200:
        return True
    assert 400 <= found.status < 500, (body, found)
    said = found.problem(found.status, found.json["code"])
    assert said["detail"], body
    if said["code"].startswith("HR-04"):
        assert "field" in said, (body, said)
    assert shop.ends() == before, (body, said)
    return False


def test_requests_for_decisions(shop: Served) -> None:
    taken = 0
    for number, body in enumerate(broken(order("f-1", 3, weight=1.5), seed=1, count=COUNT)):
        before = shop.ends()
        headers = {**PATIENT, "content-type": "application/json"}
        if expect_refused_or_taken(shop, before, shop.call("POST", "/v1/decisions/checkout", body, headers), body):
            taken += 1
            grown = {name: end - before.get(name, 0) for name, end in shop.ends().items()}
            assert grown["orders"] == grown["headrace.decisions.checkout"] <= 1, (number, body)
    assert 0 < taken < COUNT / 2


def test_events_as_lists(shop: Served) -> None:
    valid = {"customer": 3, "at": instant()}
    for body in broken_lists(valid, seed=2, count=COUNT):
        before = shop.ends()
        found = shop.call("POST", "/v1/topics/visits/events", body, {"content-type": "application/json"})
        if expect_refused_or_taken(shop, before, found, body):
            assert shop.ends()["visits"] - before["visits"] == found.json["count"] == len(found.json["events"])


def test_events_as_lines(shop: Served) -> None:
    valid = {"customer": 3, "at": instant()}
    for body in broken_lines(valid, seed=3, count=COUNT):
        before = shop.ends()
        found = shop.call("POST", "/v1/topics/visits/events", body, {"content-type": "application/x-ndjson"})
        if expect_refused_or_taken(shop, before, found, body):
            assert shop.ends()["visits"] - before["visits"] == found.json["count"]


def test_events_as_arrow(shop: Served) -> None:
    table = pa.table({"customer": [1, 2, 3], "at": [instant()] * 3})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for body in broken_bytes(sink.getvalue().to_pybytes(), seed=4, count=COUNT):
        before = shop.ends()
        headers = {"content-type": "application/vnd.apache.arrow.stream"}
        found = shop.call("POST", "/v1/topics/visits/events", body, headers)
        if expect_refused_or_taken(shop, before, found, body):
            assert shop.ends()["visits"] - before["visits"] == found.json["count"]


def test_batch_reads(shop: Served) -> None:
    for body in broken({"keys": [1, 2, 3], "t": instant()}, seed=5, count=COUNT):
        before = shop.ends()
        found = shop.call("POST", "/v1/features/activity", body, {"content-type": "application/json"})
        expect_refused_or_taken(shop, before, found, body)


def test_addresses(shop: Served) -> None:
    for body in broken_bytes(b"/v1/decisions/checkout/1/0/0?features=true", seed=6, count=COUNT):
        path = "/" + body.decode("ascii", errors="ignore").replace("\r", "").replace("\n", "").lstrip("/")
        found = shop.call("GET", path)
        assert found.status in (200, 400, 404, 405), path


def test_the_project_is_whole_after_all(tmp_path: Path) -> None:
    with Served(tmp_path / "shop") as shop:
        for body in broken(order("w-1", 3), seed=7, count=100):
            shop.call("POST", "/v1/decisions/checkout", body, {**PATIENT, "content-type": "application/json"})
        assert shop.call("POST", "/v1/decisions/checkout", encode(order("w-2", 3))).status == 200
        report = shop.project.replay_decisions("checkout")
        assert report.mismatched == 0
        assert report.compared > 0
