"""The commands for running a project: backup and restore, training sets and what late data changed, models' figures,
the audit, a watch over recorded decisions, and a clock that ran ahead."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import random
import select
import shutil
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from headrace.cli.main import main
from headrace.core.times import instant as parsed
from headrace.runtime.project import open_project
from headrace.testing.clocks import ManualClock
from tests.e2e.shop import Commands, instant, make, order, started
from tests.needs import requires

LENDER = """
import headrace as hr

applications = hr.Topic("applications", key="customer", id="id", event_time="at", fields={
    "id": hr.string, "customer": hr.int64, "merchant": hr.int64, "amount": hr.decimal(8, 2), "at": hr.timestamp,
    "bad": hr.field(hr.boolean, available_after="20d")})
activity = hr.FeatureView("activity", entity="customer", source=applications, features=[hr.count().over("7d")])
merchant = hr.FeatureView("merchant", entity="merchant", source=applications, features=[
    hr.rate(applications.bad).over("30d", delay="20d", empty=0)])
fraud = hr.Model("fraud", features=[applications.amount, activity, merchant], label=applications.bad,
    trainer=hr.logistic_regression())
guarded = hr.Decision("guarded", request=applications, model=fraud, policy=[
    hr.decline_if(hr.score > 0.5, reason=hr.from_model), hr.approve()],
    reasons={merchant: "MERCHANT_HISTORY"}, not_a_reason=[applications.amount, activity])
"""
HEADER = "id,customer,merchant,amount,at,seen,bad\n"
ROWS = 600
LONER, HERMIT = 9_001, 9_002  # customers of one application each


def at(days: float) -> str:
    """An instant so many days after the first application, 90 days ago at midnight."""
    midnight = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + dt.timedelta(days=days - 90)).isoformat()


def history() -> str:
    """Applications over 60 days, four of ten bad at merchant 3, else few; each seen when it happened."""
    random_ = random.Random(11)
    rows = []
    for i in range(ROWS):
        merchant, when = random_.randrange(5), at(60 * i / ROWS)
        bad = random_.random() < (0.4 if merchant == 3 else 0.02)
        rows.append(f"a{i},{random_.randrange(50)},{merchant},{random_.uniform(5, 500):.2f},{when},{when},{bad}")
    rows.append(f"loner,{LONER},77,10.00,{at(50)},{at(50)},False")
    rows.append(f"hermit,{HERMIT},78,10.00,{at(50)},{at(50)},False")
    return HEADER + "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with history, a training set beside it, a model and a decision; tests that write copy it."""
    requires("sklearn")
    place = tmp_path_factory.mktemp("lender")
    folder = make(place / "project", LENDER)
    (place / "history.csv").write_text(history())
    for command in (
        ("apply", "--yes"),
        ("import", "applications", place / "history.csv", "--available-at", "column:seen"),
        ("training-set", "build", "fraud", "--out", place / "training", "--end", at(65)),
        ("models", "train", "fraud", "--end", at(65)),
        ("decide", "guarded", json.dumps(request("first"))),
    ):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as left:
            main(["--project", str(folder), *map(str, command)])
        assert left.value.code == 0, said.getvalue()
    return folder


@pytest.fixture
def lender(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The commands of a copy of it."""
    shutil.copytree(trained, tmp_path / "project")
    return Commands(tmp_path / "project", capsys)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    commands = Commands(make(tmp_path / "shop"), capsys)
    commands.done("apply", "--yes")
    return commands


def request(id: str) -> dict[str, object]:
    return {"id": id, "customer": 1, "merchant": 3, "amount": "20.00", "at": instant()}


# Backup and restore.


def test_a_restored_backup_holds_what_was_there_and_decides_the_same_again(lender: Commands, tmp_path: Path) -> None:
    copy, elsewhere = tmp_path / "backup", tmp_path / "restored"
    assert lender.done("backup", copy) == f"{copy}\n"
    lender.done("decide", "guarded", json.dumps(request("after the backup")))
    restored = Commands(make(elsewhere, LENDER), lender._captured)
    stale = elsewhere / ".headrace" / "checkpoints" / "of_before"
    stale.mkdir(parents=True)
    restored.done("restore", copy)
    assert not stale.exists()  # it may know of events that the backup lacks
    shutil.copytree(lender.folder / ".headrace" / "models", elsewhere / ".headrace" / "models")
    assert "nothing wrong" in restored("doctor")[2]
    assert restored("plan")[0] == 0
    (record,) = json.loads(restored.done("decisions", "list", "guarded", "--output", "json"))
    assert record["request_id"] == "first"
    assert restored.done("decisions", "replay", "guarded").startswith("compared 1, mismatched 0")
    restored.done("decide", "guarded", json.dumps(request("after the restore")))


def test_a_backup_and_a_restore_overwrite_nothing(shop: Commands, tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    shop.done("backup", copy)
    for again in (("backup", copy), ("restore", copy)):
        status, _, err = shop(*again)
        assert status == 2
        assert "HR-0315" in err


def test_a_damaged_backup_is_not_restored(shop: Commands, tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    shop.done("backup", copy)
    (file,) = copy.glob("*.sqlite")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    restored = Commands(make(tmp_path / "restored"), shop._captured)
    status, _, err = restored("restore", copy)
    assert status == 1
    assert "HR-0304" in err
    assert not (restored.folder / ".headrace" / "log" / file.name).exists()


def test_where_there_is_no_log_there_is_no_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Commands(make(tmp_path / "empty"), capsys)
    status, _, err = empty("backup", tmp_path / "backup")
    assert status == 1
    assert "HR-0302" in err
    assert not (tmp_path / "backup").exists()


# Training sets and models.


def test_the_impact_of_late_data_is_what_came_after_it_was_asked_for(lender: Commands, tmp_path: Path) -> None:
    before = json.loads(lender.done("training-set", "impact", "fraud", "--end", at(65), "--output", "json"))
    assert {one["feature"]: one["differing"] for one in before} == {"activity.count_7d": 0, "merchant.bad_rate_30d": 0}
    assert {one["rows"] for one in before} == {ROWS + 2}
    late = tmp_path / "late.csv"  # the loner had applied the day before, which was seen a day after
    late.write_text(HEADER + f"late,{LONER},77,10.00,{at(49)},{at(51)},False\n")
    lender.done("import", "applications", late, "--available-at", "column:seen")
    after = json.loads(lender.done("training-set", "impact", "fraud", "--end", at(65), "--output", "json"))
    count, rate = sorted(after, key=lambda one: str(one["feature"]))
    assert (count["feature"], count["rows"], count["differing"], count["largest"]) == (
        "activity.count_7d",
        ROWS + 3,
        1,
        1.0,
    )
    assert (rate["differing"], rate["null_in_one"]) == (0, 0)
    table = lender.done("training-set", "impact", "fraud", "--end", at(65)).splitlines()
    assert table[0].split() == ["feature", "rows", "differing", "null_in_one", "largest", "mean"]
    assert len(table) == 3


def test_a_model_is_evaluated_on_a_training_set(lender: Commands, trained: Path, tmp_path: Path) -> None:
    rows, png = trained.parent / "training", tmp_path / "fraud.png"
    plain = json.loads(lender.done("models", "evaluate", "fraud", rows, "--output", "json"))
    assert 0.5 < plain["auc_roc"] < 1
    by_entity = json.loads(
        lender.done("models", "evaluate", "fraud", rows, "--entity", "customer", "-k", "5", "--output", "json")
    )
    assert {name for name in plain if plain[name] != by_entity[name]} == {"entity_precision"}
    assert plain["entity_precision"] is None
    assert 0 < by_entity["entity_precision"] <= 1
    text = dict(line.split() for line in lender.done("models", "evaluate", "fraud", rows).splitlines())
    assert float(text["auc_roc"]) == plain["auc_roc"]
    requires("matplotlib")
    lender.done("models", "evaluate", "fraud", rows, "--picture", png)
    assert png.read_bytes().startswith(b"\x89PNG\r\n")


def test_an_entity_that_no_request_names_is_refused_in_words(lender: Commands, trained: Path) -> None:
    status, _, err = lender("models", "evaluate", "fraud", trained.parent / "training", "--entity", "custommer")
    assert status == 1
    assert "HR-0106" in err
    assert "did you mean 'customer'?" in err


def test_rows_that_lack_an_input_cannot_be_evaluated(lender: Commands, trained: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (file,) = (trained.parent / "training").glob("*.parquet")
    pq.write_table(pq.read_table(file).drop_columns(["activity.count_7d"]), tmp_path / "lacking.parquet")
    status, _, err = lender("models", "evaluate", "fraud", tmp_path / "lacking.parquet")
    assert status == 1
    assert "activity.count_7d" in err


def test_a_model_with_where_learns_from_its_requests_only_and_scores_every_one(
    lender: Commands, tmp_path: Path
) -> None:
    chosen = LENDER.replace("label=applications.bad,", "label=applications.bad, where=applications.amount > 50,")
    assert chosen != LENDER
    (lender.folder / "definitions.py").write_text(chosen, encoding="utf-8")
    assert "model fraud" in lender("plan")[1]
    lender.done("apply", "--yes")
    status, _, err = lender("decide", "guarded", json.dumps(request("too early")))
    assert status == 1 and "HR-0807" in err  # the artifact is of the model without where
    _, _, err = lender("training-set", "build", "fraud", "--out", tmp_path / "rows", "--end", at(65))
    amounts = pq.read_table(tmp_path / "rows" / "rows.parquet").column("amount").to_pylist()
    manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    assert min(amounts) > 50 and manifest["rows"] == len(amounts)
    assert manifest["where"] == "gt(applications.amount, 50)" and manifest["outside"] > 0
    assert f", {manifest['outside']:,} outside" in err
    lender.done("models", "train", "fraud", "--end", at(65))
    lender.done("decide", "guarded", json.dumps(request("of 20.00, which it did not learn from")))
    newest = json.loads(lender.done("decisions", "list", "guarded", "--output", "json"))
    assert all(0 < record["score"] < 1 for record in newest) and len(newest) == 2


# The audit.


def test_the_audit_finds_nothing_where_nothing_is_wrong(lender: Commands) -> None:
    status, out, err = lender("audit", "availability", "--model", "fraud")
    assert (status, out) == (0, ""), out
    assert "nothing suspicious" in err


def test_the_audit_names_a_single_feature_that_knows_the_outcome_and_fails(lender: Commands, tmp_path: Path) -> None:
    told = tmp_path / "told.csv"  # whoever wrote these amounts knew how it would end
    rows = []
    for i in range(4_000):
        when, bad = at(61 + i / 1_000), i % 2 == 0
        rows.append(f"t{i},{i},{i % 5},{i % 50 + (600 if bad else 10)}.00,{when},{when},{bad}")
    told.write_text(HEADER + "\n".join(rows) + "\n")
    lender.done("import", "applications", told, "--available-at", "column:seen")
    status, out, _ = lender("audit", "availability", "--model", "fraud", "--output", "json")
    assert status == 1
    (found,) = [one for one in json.loads(out) if one["severity"] == "strong suspicion"]
    assert (found["check"], found["subject"]) == ("single feature", "input 'amount'")
    status, out, _ = lender("audit", "availability", "--model", "fraud")
    assert status == 1
    assert out.splitlines()[0].split() == ["check", "severity", "subject", "says", "hint"]


def test_the_audit_looks_at_the_rows_that_it_is_given(lender: Commands, trained: Path, tmp_path: Path) -> None:
    built = trained.parent / "training"
    status, out, err = lender("audit", "availability", "--model", "fraud", "--rows", built)
    assert (status, out) == (0, "") and "nothing suspicious" in err
    table = pq.read_table(built / "rows.parquet")
    type = table.schema.field("amount").type
    told = pc.if_else(table.column("bad"), pa.scalar(Decimal(9_000), type), pa.scalar(Decimal(1), type))
    place = table.schema.get_field_index("amount")
    pq.write_table(table.set_column(place, "amount", told), tmp_path / "told.parquet")
    asked = ("audit", "availability", "--model", "fraud", "--rows", tmp_path / "told.parquet", "--output", "json")
    status, out, _ = lender(*asked)
    assert (status, json.loads(out)[0]["subject"]) == (1, "input 'amount'")
    status, _, err = lender("audit", "availability", "--rows", built)
    assert status == 2 and "--rows needs --model" in err


# The watch.


def test_a_watch_sees_new_decisions_and_ends_well_when_interrupted(shop: Commands) -> None:
    shop.done("decide", "checkout", json.dumps(order("o-1")))
    watch = started(
        "--project", shop.folder, "decisions", "replay", "checkout", "--watch", "--every", "0.1", "--output", "json"
    )
    try:
        assert next_report(watch) == (1, 0)
        shop.done("decide", "checkout", json.dumps(order("o-2")))
        assert any(next_report(watch) == (2, 0) for _ in range(50))
        watch.send_signal(signal.SIGINT)
        _, err = watch.communicate(timeout=60)
        assert (watch.returncode, err) == (0, "")
    finally:
        watch.kill()
        watch.communicate()


def next_report(watch: subprocess.Popen[str]) -> tuple[int, int]:
    """Compared and mismatched of the next line."""
    assert watch.stdout is not None
    ready, _, _ = select.select([watch.stdout], [], [], 60)
    assert ready, "no report within a minute"
    said = json.loads(watch.stdout.readline())
    return said["compared"], said["mismatched"]


# A clock that ran ahead.


def run_ahead(folder: Path) -> None:
    """An order stamped in a day, by a machine whose clock is a day ahead."""
    tomorrow = ManualClock(parsed(instant(days_ago=-1)))
    with open_project(folder, clock=tomorrow) as project:
        project.produce("orders", [order("ahead", at=instant(days_ago=-1))])


def test_a_topic_goes_on_once_its_clock_is_restarted(shop: Commands) -> None:
    shop.done("produce", "orders", write(shop.folder, order("before")))
    run_ahead(shop.folder)
    status, _, err = shop("topics", "read", "orders")
    assert status == 1
    assert "HR-0313" in err
    assert "headrace log restart-clock" in err
    stamped = parsed(shop.done("log", "restart-clock", "orders").strip())
    assert abs(stamped - parsed(instant())) < 60_000_000
    assert shop.done("produce", "orders", write(shop.folder, order("after"))) == "accepted 1\n"
    rows = [json.loads(line) for line in shop.done("topics", "read", "orders").splitlines()]
    assert [row["event"]["order"] for row in rows] == ["before", "ahead", "after"]
    assert [parsed(row["available_at"]) <= parsed(instant()) for row in rows] == [True] * 3
    assert "nothing wrong" in shop("doctor")[2]


OWNER = """
import sys
import headrace as hr
with hr.open(sys.argv[1], role="owner") as project:
    project.log.topics()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_clock_is_restarted_through_the_process_that_owns_the_log(shop: Commands) -> None:
    run_ahead(shop.folder)
    command = [sys.executable, "-c", OWNER, str(shop.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        shop.done("log", "restart-clock", "orders")
        assert shop.done("produce", "orders", write(shop.folder, order("after"))) == "accepted 1\n"
        owner.communicate(timeout=60)
    assert owner.returncode == 0
    assert len(shop.done("topics", "read", "orders").splitlines()) == 2


def test_a_topic_that_is_not_there_has_no_clock(shop: Commands) -> None:
    status, _, err = shop("log", "restart-clock", "order")
    assert status == 1
    assert "HR-0302" in err
    assert "did you mean 'orders'?" in err


def write(folder: Path, *events: object) -> Path:
    path = folder.parent / "events.ndjson"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path
