"""Bad input through the command line: refused with the place it is at, or set aside; nothing half taken."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.shop import Commands, instant, lines, make, order


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    commands = Commands(make(tmp_path / "shop"), capsys)
    commands.done("apply")
    return commands


def logged(shop: Commands) -> list[str]:
    """Ids of every row of the topic, whatever its verdict."""
    rows = shop.done("topics", "read", "orders", "--limit", "1000").splitlines()
    return [json.loads(row)["event"]["order"] for row in rows]


WRONG = {
    "unknown field": ({"amuont": "1.00"}, ["HR-04", "'amuont'", "amount"]),
    "wrong type": ({"customer": "one"}, ["HR-04", "'customer'"]),
    "true is no number": ({"customer": True}, ["HR-04", "'customer'"]),
    "missing key": ({"customer": None}, ["HR-04", "'customer'"]),
    "missing id": ({"order": None}, ["HR-04", "'order'"]),
    "NaN": ({"weight": float("nan")}, ["HR-0", "'weight'", "NaN"]),
    "infinity": ({"weight": float("inf")}, ["HR-0", "'weight'"]),
    "decimal out of range": ({"amount": "1234567.00"}, ["HR-0", "'amount'", "1234567.00"]),
    "decimal too fine": ({"amount": "1.005"}, ["HR-0", "'amount'", "1.005"]),
    "timestamp without zone": ({"at": "2026-01-01T00:00:00"}, ["HR-0103", "'at'", "zone"]),
    "no timestamp": ({"at": "yesterday"}, ["HR-0", "'at'", "yesterday"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_refuses_its_batch_whole_and_says_where(shop: Commands, name: str) -> None:
    change, expected = WRONG[name]
    events = [order("a"), {**order("b"), **change}, order("c")]
    status, out, err = shop("produce", "orders", lines(shop.folder / "events.ndjson", events))
    assert (status, out) == (1, "")
    for text in [*expected, "'orders'"]:
        assert text in err, err
    assert "row 1" in err, err
    assert "Traceback" not in err
    assert logged(shop) == []


@pytest.mark.parametrize("name", ["unknown field", "NaN", "timestamp without zone", "missing key"])
def test_a_wrong_request_is_not_decided_and_not_taken(shop: Commands, name: str) -> None:
    change, expected = WRONG[name]
    status, out, err = shop("decide", "checkout", json.dumps({**order("a"), **change}))
    assert (status, out) == (1, "")
    for text in expected:
        assert text in err, err
    assert logged(shop) == []
    assert "approve" in shop.done("decide", "checkout", json.dumps(order("a")))


@pytest.mark.parametrize("name", ["wrong type", "missing key", "NaN", "decimal out of range", "timestamp without zone"])
def test_a_wrong_row_of_a_file_refuses_the_file_whole(shop: Commands, name: str) -> None:
    change, expected = WRONG[name]
    events = [order(f"a{i}", at=instant(days_ago=3)) for i in range(20)]
    events[7] |= change
    status, out, err = shop("import", "orders", lines(shop.folder / "events.ndjson", events))
    assert (status, out) == (1, "")
    for text in ["line 8"] if name == "NaN" else expected:  # NaN is no JSON; a CSV's would be the field's error
        assert text in err, err
    assert logged(shop) == []
    events[7] = order("a7", at=instant(days_ago=3))
    assert "taken 20" in shop.done("import", "orders", lines(shop.folder / "events.ndjson", events))


def test_what_is_no_json_names_its_line(shop: Commands) -> None:
    file = shop.folder / "events.ndjson"
    file.write_text(json.dumps(order("a")) + "\n{nonsense\n", encoding="utf-8")
    status, _, err = shop("produce", "orders", file)
    assert status == 1
    assert "HR-0902 line 2 is not JSON" in err
    file.write_text(json.dumps(order("a")) + "\n[1, 2]\n", encoding="utf-8")
    status, _, err = shop("produce", "orders", file)
    assert status == 1
    assert "HR-0902 line 2 is no JSON object" in err
    assert logged(shop) == []


def test_an_event_too_far_ahead_is_set_aside_and_listed(shop: Commands) -> None:
    events = [order("now"), order("ahead", at=instant(days_ago=-1))]
    out = shop.done("produce", "orders", lines(shop.folder / "events.ndjson", events))
    assert "accepted 1" in out
    assert "ahead 1" in out
    (row,) = map(json.loads, shop.done("quarantine", "list", "orders").splitlines())
    assert (row["verdict"], row["event"]["order"]) == ("ahead", "ahead")
    assert {"partition", "offset", "event_time", "available_at"} < row.keys()
    assert float(json.loads(shop.done("features", "read", "activity", "1", "--output", "json"))["count_1d"]) == 1


def test_an_id_used_twice_with_another_payload_is_set_aside(shop: Commands) -> None:
    at = instant()
    first, again, other = order("a", at=at), order("a", at=at), order("a", at=at, amount="99.00")
    out = shop.done("produce", "orders", lines(shop.folder / "events.ndjson", [first, again, other]))
    assert out.strip() == "accepted 1, duplicate 1, conflict 1"
    (row,) = map(json.loads, shop.done("quarantine", "list", "orders").splitlines())
    assert (row["verdict"], row["event"]["amount"]) == ("conflict", "99.00")
    assert json.loads(shop.done("features", "read", "activity", "1", "--output", "json"))["count_1d"] == 1


def test_a_request_id_used_twice_with_another_payload_is_refused(shop: Commands) -> None:
    request = order("a")
    answer = json.loads(shop.done("decide", "checkout", json.dumps(request), "--output", "json"))
    again = json.loads(shop.done("decide", "checkout", json.dumps(request), "--output", "json"))
    assert again == {**answer, "repeated": True}
    status, out, err = shop("decide", "checkout", json.dumps({**request, "amount": "99.00"}))
    assert (status, out) == (1, "")
    assert "HR-0710" in err
    assert "'amount'" in err
    assert logged(shop) == ["a"]


def test_a_wrong_file_is_refused_and_named(shop: Commands) -> None:
    text = shop.folder / "orders.parquet"
    text.write_text("this is no Parquet file", encoding="utf-8")
    status, _, err = shop("import", "orders", text)
    assert status == 1
    assert "orders.parquet" in err
    foreign = shop.folder / "foreign.parquet"
    pq.write_table(pa.table({"x": [1, 2], "y": ["a", "b"]}), foreign)
    status, _, err = shop("import", "orders", foreign)
    assert status == 1
    assert "'order'" in err or "foreign.parquet" in err
    status, _, err = shop("import", "orders", shop.folder / "there_is_none.csv")
    assert status == 2
    status, _, err = shop("import", "ordres", text)
    assert status == 1
    assert "did you mean 'orders'?" in err
    assert logged(shop) == []


def test_the_same_file_twice_is_refused_unless_told(shop: Commands) -> None:
    file = lines(shop.folder / "events.ndjson", [order("a", at=instant(days_ago=2))])
    shop.done("import", "orders", file)
    status, _, err = shop("import", "orders", file)
    assert status == 2
    assert "HR-0426" in err
    assert "taken 0, late 0, duplicates 1" in shop.done("import", "orders", file, "--again")
    assert json.loads(shop.done("features", "read", "activity", "1", "--output", "json"))["count_30d"] == 1


def test_a_csv_with_nan_names_row_and_field(shop: Commands) -> None:
    file = shop.folder / "orders.csv"
    file.write_text(f"order,customer,amount,weight,at\na,1,2.50,nan,{instant(days_ago=2)}\n", encoding="utf-8")
    status, _, err = shop("import", "orders", file)
    assert status == 1
    assert "'weight'" in err, err
    assert logged(shop) == []
