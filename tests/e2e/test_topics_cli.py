"""Self-service topics from the command line: a plan in words, approvals, rows by filters, lag, and a drop that is never
silent."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from headrace.cli.events import produce_batches
from headrace.core.points import Cut
from headrace.log.port import Append, Verdict
from headrace.runtime.project import open_project
from tests.e2e.shop import DEFINITIONS, Commands, instant, lines, make, order, started

OWNED = DEFINITIONS.replace(
    '"orders", key', '"orders", owner="shop", tags=["eu", "pii"], quota="5MB/s", description="Bought.", key'
)
WITHOUT_VISITS = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", partitions=2, fields={
    "order": hr.string, "customer": hr.int64, "amount": hr.decimal(8, 2), "weight": hr.float64, "at": hr.timestamp})
"""


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    commands = Commands(make(tmp_path / "shop", OWNED), capsys)
    commands.done("apply")
    return commands


def sold(shop: Commands, count: int = 6) -> None:
    events = [order(f"o{i}", i, amount=f"{i}.50", at=instant(0.001)) for i in range(count)]
    shop.done("topics", "produce", "orders", lines(shop.folder / "events.ndjson", events))


def orders_of(text: str) -> list[str]:
    return [json.loads(line)["event"]["order"] for line in text.splitlines()]


# Plan and apply.


def test_a_change_is_said_in_words_and_a_dangerous_one_is_refused_without_its_approval(shop: Commands) -> None:
    make(shop.folder, OWNED.replace('owner="shop"', 'owner="payments", retention="60d"').replace('"5MB/s"', '"6MB/s"'))
    status, out, _ = shop("plan")
    assert status == 3
    assert out.splitlines() == [
        "~ topic orders (version 2)",
        "    retention: for ever -> 60d; events older than that are deleted",
        "    owner: shop -> payments",
        "    quota: 5MB/s -> 6MB/s",
        "    needs --approve orders.retention",
        "    needs --approve orders.owner",
    ]
    status, _, err = shop("apply", "--yes", "--approve", "orders.owner")
    assert status == 3 and "HR-0811" in err and "headrace apply --approve orders.retention" in err
    status, _, err = shop("apply", "--yes", "--approve", "orders.onwer")
    assert status == 2 and "HR-0812" in err and "did you mean 'orders.owner'?" in err
    assert json.loads(shop.done("topics", "describe", "orders", "--output", "json"))["owner"] == "shop", (
        "nothing was done"
    )
    said = json.loads(
        shop.done("apply", "--approve", "orders.owner", "--approve", "orders.retention", "--output", "json")
    )
    assert [(step["name"], step["approvals"]) for step in said] == [("orders", ["orders.retention", "orders.owner"])]
    assert shop.done("plan") == ""
    described = json.loads(shop.done("topics", "describe", "orders", "--output", "json"))
    assert (described["owner"], described["retention"], described["quota"]) == ("payments", "60d", "6MB/s")


def test_more_partitions_name_the_views_that_read_them(shop: Commands) -> None:
    make(shop.folder, OWNED.replace("partitions=2", "partitions=4"))
    _, out, _ = shop("plan")
    assert "partitions: 2 -> 4; keys move" in out and "read by view activity, decision checkout" in out
    assert shop("apply", "--yes")[0] == 3
    shop.done("apply", "--approve", "orders.partitions")
    assert len(json.loads(shop.done("topics", "describe", "orders", "--output", "json"))["partitions"]) == 4


def test_an_owner_changes_no_view_and_no_decision(shop: Commands) -> None:
    sold(shop)
    make(shop.folder, OWNED.replace('tags=["eu", "pii"]', 'tags=["eu"]').replace("Bought.", "What was bought."))
    _, out, _ = shop("plan")
    assert out.splitlines() == [
        "~ topic orders (version 1)",
        "    tags: eu, pii -> eu",
        "    description: Bought. -> What was bought.",
    ]
    shop.done("apply")
    assert shop.done("plan") == ""
    assert shop.done("decide", "checkout", json.dumps(order("r1"))) == "approve\n"


def test_a_catalog_of_before_sees_no_change(shop: Commands) -> None:
    """As it was written before who looks after a topic was kept: its meaning alone."""
    with open_project(shop.folder) as project:
        held = next(s for s in project.log.topics() if s.topic.name == "headrace.catalog").partitions[0]
        batches = project.log.read(held.partition, 0)
        steps = [json.loads(text) for batch in batches for text in batch.column("step").to_pylist()]
        (made,) = [step for step in steps if (step["kind"], step["name"]) == ("topic", "visits")]
        meaning = json.loads(made["meaning"])
        for name in ("description", "owner", "tags", "quota", "protected"):
            del meaning[name]
        text = json.dumps({**made, "meaning": json.dumps(meaning, sort_keys=True, separators=(",", ":"))})
        project.log.append([Append(partition=held.partition, rows=[("topic visits", text, 0)])])
        assert project.plan() == ()


# Lists and rows.


def test_topics_are_listed_by_owner_and_tag(shop: Commands) -> None:
    def names(*more: str) -> list[str]:
        return [line["topic"] for line in json.loads(shop.done("topics", "list", "--output", "json", *more))]

    assert names() == ["orders", "visits"]
    assert names("--owner", "shop") == names("--tag", "eu") == names("--tag", "eu", "--tag", "pii") == ["orders"]
    assert names("--tag", "eu", "--tag", "us") == []
    assert "headrace.catalog" in names("--all")
    table = shop.done("topics", "list").splitlines()
    assert table[0].split() == ["topic", "owner", "partitions", "imports", "offsets", "newest", "retention", "tags"]
    assert table[1].split()[:4] == ["orders", "shop", "2", "0"] and table[1].endswith("for ever   eu, pii")


def test_a_topic_is_described_with_its_readers(shop: Commands) -> None:
    sold(shop)
    said = json.loads(shop.done("topics", "describe", "orders", "--output", "json"))
    assert said["readers"] == ["view activity", "decision checkout"]
    assert (said["owner"], said["tags"], said["quota"], said["protected"]) == ("shop", ["eu", "pii"], "5MB/s", True)
    assert [field["field"] for field in said["fields"]] == ["order", "customer", "amount", "weight", "at"]
    assert sum(held["end"] - held["start"] for held in said["partitions"]) == 6
    assert said["kafka"] == {}, "a file tells Kafka nothing"
    text = shop.done("topics", "describe", "orders")
    assert "owner         shop" in text and "retention     for ever" in text and "decimal(8, 2)" in text
    assert "HR-0302" in shop("topics", "describe", "order")[2]


def test_rows_are_found_by_filter_and_by_place(shop: Commands) -> None:
    sold(shop)
    assert orders_of(shop.done("topics", "tail", "orders", "--where", "amount > decimal('3.50')")) == ["o4", "o5"]
    assert sorted(orders_of(shop.done("topics", "tail", "orders", "--from", "beginning"))) == [
        f"o{i}" for i in range(6)
    ]
    assert len(orders_of(shop.done("topics", "tail", "orders", "--limit", "2"))) == 2
    assert shop.done("topics", "tail", "orders", "--from", instant(-1)) == ""
    assert len(shop.done("topics", "tail", "orders", "--from", instant(1)).splitlines()) == 6
    status, _, err = shop("topics", "tail", "orders", "--where", "amuont > 1")
    assert status == 1 and err.splitlines() == [
        "HR-0352 the expression, at 1: unknown name 'amuont'",
        "  amuont > 1",
        "  ^",
        "  hint: did you mean 'amount'?",
    ]
    assert "HR-0353" in shop("topics", "tail", "orders", "--from", "yesterday")[2]


def test_events_are_produced_from_the_command_line(shop: Commands) -> None:
    event = json.dumps(order("one"))
    assert shop.done("topics", "produce", "orders", "--event", event) == "accepted 1\n"
    assert json.loads(shop.done("topics", "produce", "orders", "--event", event, "--output", "json")) == {
        "duplicate": 1
    }
    assert "HR-0902" in shop("topics", "produce", "orders", "--event", "[1]")[2]
    for verb in (("topics", "produce"), ("produce",)):
        status, _, err = shop(*verb, "headrace.catalog", lines(shop.folder / "none.ndjson", []))
        assert status == 2 and "HR-0817" in err


def test_a_quota_is_held_to(shop: Commands) -> None:
    make(shop.folder, OWNED.replace("5MB/s", "100B/s"))
    shop.done("apply")
    waited: list[float] = []
    events = [order(f"o{i}", i, at=instant(0.001)) for i in range(20)]
    size = sum(len(json.dumps(event)) for event in events)
    with open_project(shop.folder) as project:
        counts = produce_batches(project, "orders", [events[:10], events[10:]], sleep=waited.append)
    assert counts[Verdict.ACCEPTED] == 20
    # Nobody slept, so the second batch waits for both; some of the time went by itself.
    assert waited == [pytest.approx(size / 200 - 1, abs=0.5), pytest.approx(size / 100 - 1, abs=1)]


def test_following_prints_what_comes(shop: Commands) -> None:
    sold(shop, 2)
    following = ("topics", "tail", "orders", "--from", "beginning", "--follow")
    with started("--project", shop.folder, *following, "--limit", "3") as tail:
        first = first_line(tail)
        shop.done("topics", "produce", "orders", "--event", json.dumps(order("after", at=instant(0.001))))
        rest = rest_of(tail)
        assert orders_of(first + rest)[2] == "after" and sorted(orders_of(first + rest)) == ["after", "o0", "o1"]
    assert tail.returncode == 0
    with started("--project", shop.folder, *following) as tail:
        first_line(tail)
        tail.send_signal(signal.SIGINT)
        tail.communicate(timeout=60)
    assert tail.returncode == 0, "how a person ends it"


def first_line(process: subprocess.Popen[str]) -> str:
    """The first that it writes; the process is ended where it writes none."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    if not ready:
        process.kill()
    assert ready, "nothing within a minute"
    return process.stdout.readline()


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it writes after that, until it ends; it is ended after a minute. By the reader that `first_line` used, which
    may hold lines already: `communicate` reads past them."""
    assert process.stdout is not None
    late = threading.Timer(60, process.kill)
    late.start()
    try:
        return process.stdout.read()
    finally:
        late.cancel()
        process.wait()


# Lag.


def test_lag_is_shown_for_groups(shop: Commands) -> None:
    sold(shop)
    with open_project(shop.folder) as project:
        (state,) = [s for s in project.log.topics() if s.topic.name == "orders"]
        ends = {p.partition: p.end for p in state.partitions}
        first = min(ends)
        row = ("x", 1, 100, None, int(project.now()))
        project.log.append(
            [Append(partition=first, rows=[row])], group="mailer", cut=Cut.of({**ends, first: ends[first] - 1})
        )
    said = json.loads(shop.done("topics", "lag", "orders", "--group", "mailer", "--output", "json"))
    assert [(line["partition"], line["offsets"]) for line in said] == [(0, 2), (1, 0)]
    assert said[0]["committed"] == ends[first] - 1 and said[0]["seconds"] > 0 and said[1]["seconds"] == 0
    table = shop.done("topics", "lag", "orders", "--group", "mailer", "--group", "none").splitlines()
    assert table[0].split() == ["group", "partition", "committed", "end", "offsets", "seconds"] and len(table) == 5
    assert shop("topics", "lag", "orders")[0] == 2


# Dropping.


def test_a_drop_is_never_silent(shop: Commands) -> None:
    shop.done("topics", "produce", "visits", "--event", json.dumps({"customer": 1, "at": instant(0.001)}))
    status, _, err = shop("topics", "drop", "visits", "--yes")
    assert status == 2 and "HR-0814" in err and "view attention" in err
    make(shop.folder, WITHOUT_VISITS)
    status, out, _ = shop("plan")
    assert "- topic visits (version 1)" in out and "needs --approve visits.retire" in out
    assert shop("apply", "--yes")[0] == 3
    shop.done("apply", "--approve", "visits.retire", "--approve", "orders.owner")
    status, _, err = shop("topics", "drop", "visits", "--yes")
    assert status == 1 and "HR-0815" in err and "headrace topics drop visits --approve visits.drop" in err
    status, _, err = shop("topics", "drop", "visits", "--approve", "visits.drop")
    assert status == 2 and "HR-0816" in err, "nobody is there to ask"
    assert len(shop.done("topics", "tail", "visits").splitlines()) == 1
    assert shop.done("topics", "drop", "visits", "--approve", "visits.drop", "--yes") == "dropped visits\n"
    assert "HR-0302" in shop("topics", "tail", "visits")[2]
