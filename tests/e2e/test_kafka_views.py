"""A view over a derived topic, served on real Kafka: each process holds a part of it, asks the others for the rest, and
what a killed one held is held by another; every decision replays."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from headrace.api.tokens import Scope, TokenStore
from headrace.clock import SystemClock
from headrace.runtime.project import STATE_FOLDER, open_project
from headrace.testing.kafka import KafkaCluster
from tests.e2e import shop
from tests.e2e.serving import Serving
from tests.e2e.test_kafka_serving import serving, until

DEFINITIONS = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", partitions=4, fields={
    "order": hr.string, "customer": hr.int64, "merchant": hr.int64, "amount": hr.decimal(8, 2), "at": hr.timestamp})
by_merchant = hr.derived_topic("by_merchant", of=orders, key="merchant", partitions=6)
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[hr.count().over("1d")])
merchant = hr.FeatureView("merchant", entity="merchant", source=by_merchant, features=[
    hr.count().over("1d"), hr.sum(by_merchant.amount).over("1d", empty=0), hr.last_n(by_merchant.customer, 3),
    hr.max(by_merchant.amount).over("1d"), hr.time_since_last()])
checkout = hr.Decision("checkout", request=orders, budget="20s", policy=[
    hr.decline_if(merchant.count_1d > 10_000, reason="BUSY", on_missing="review"),
    hr.review_if(activity.count_1d > 10_000, reason="MANY"),
    hr.approve()])
"""

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


@contextmanager
def re_keyer(project: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "from headrace.cli.main import main; main()", "--project", str(project)]
    process = subprocess.Popen([*command, "streams", "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()


class Shoppers:
    """They send orders one by one to any server, in the name of a token, until each is decided."""

    def __init__(self, servers: Sequence[Serving], token: str) -> None:
        self.servers, self.decided = list(servers), 0
        self._headers = {"Authorization": f"Bearer {token}"}
        self._draw = random.Random(5)

    def send(self, count: int) -> None:
        for _ in range(count):
            self.decided += 1
            request = shop.order(f"o-{self.decided}", self._draw.randrange(40), merchant=self._draw.randrange(12))
            deadline = time.monotonic() + 60
            while not self._sent(request):
                assert time.monotonic() < deadline, request
                time.sleep(0.1)

    def _sent(self, request: dict[str, object]) -> bool:
        try:
            answer = self._draw.choice(self.servers).decide(request, self._headers)
        except (OSError, HTTPException):
            return False
        assert answer.status in (200, 503), answer
        return answer.status == 200 and bool(answer.json["decision_id"])


def answered(project: Path, shoppers: Shoppers) -> bool:
    """Whether each of some orders was decided with the view that is held by partition."""
    shoppers.send(10)
    with open_project(project) as opened:
        records = {record.request_id: record for record in opened.records("checkout")}
    newest = range(shoppers.decided - 9, shoppers.decided + 1)
    return all(records[f"o-{number}"].points[0].absent is None for number in newest)


def test_what_others_hold_is_asked_and_outlives_who_held_it(kafka: KafkaCluster, tmp_path: Path) -> None:
    project = shop.make(tmp_path / "project", DEFINITIONS)
    address = f"kafka://{kafka.bootstrap}/{uuid.uuid4().hex[:8]}.?session_timeout=6s"
    (project / "headrace.toml").write_text(f'log = "{address}"\n', encoding="utf-8")
    with open_project(project) as opened:
        opened.apply()
    clock = SystemClock()
    _, token = TokenStore(project / STATE_FOLDER).create(
        "test", [Scope.DECIDE, Scope.READ_METRICS], now=clock.now(), expires=None
    )
    with re_keyer(project), serving(project, 3) as servers:
        shoppers = Shoppers(servers, token)
        shoppers.send(40)
        until(lambda: answered(project, shoppers), "every view is answered")
        held = [_series(server, token, 'headrace_views_held{topic="by_merchant"}') for server in servers]
        assert sum(held) == 6 and max(held) < 6, held
        said = 'headrace_view_answers_total{result="answered",view="merchant"}'
        assert sum(_series(server, token, said) for server in servers) >= 10
        servers[0].kill()
        shoppers.servers = servers[1:]
        shoppers.send(40)
        until(lambda: answered(project, shoppers), "every view is answered again")
        assert all(server.stop() == 0 for server in servers[1:])
    with open_project(project) as opened:
        records = sorted(opened.records("checkout"), key=lambda record: record.decided_at)
        report = opened.replay_decisions("checkout")
    assert len(records) == shoppers.decided
    assert (report.compared, report.mismatched) == (len(records), 0), report.differences
    counts = [record.answers[0][0][0] for record in records]
    assert max(count for count in counts if isinstance(count, int)) > 5, "the derived topic was filled meanwhile"
    assert len({partition for record in records for partition, _ in record.points[0].cut}) > 3, "of each process"


def _series(server: Serving, token: str, name: str) -> int:
    text = server.call("GET", "/metrics", headers={"Authorization": f"Bearer {token}"}).body.decode()
    return next((int(float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if line.startswith(name)), 0)
