"""`headrace decisions ...` from outside: what is printed, and with which exit status."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from headrace.log.sqlite_entry import checksum
from tests.e2e import lender, shop
from tests.e2e.shop import Commands


@pytest.fixture
def headrace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    commands = Commands(shop.make(tmp_path / "shop"), capsys)
    commands.done("apply", "--yes")
    for number in range(8):
        commands.done("decide", "checkout", json.dumps(shop.order(f"o-{number}", number % 3)))
    return commands


def forge(headrace: Commands, was: bytes, now: bytes) -> None:
    """Alter a record in the log's file as one would who knows its format."""
    connection = sqlite3.connect(headrace.folder / ".headrace" / "log" / "log.sqlite")
    altered = 0
    for key, count, at, form, payload in connection.execute(
        "SELECT key, count, available_at, form, payload FROM entries"
    ).fetchall():
        if b"checkout/1/" in payload and was in payload:
            made = payload.replace(was, now)
            altered += 1
            connection.execute(
                "UPDATE entries SET payload = ?, checksum = ? WHERE key = ?",
                (made, checksum(key, count, at, form, made), key),
            )
    connection.commit()
    connection.close()
    assert altered


def test_verify_says_whole_and_prints_heads(headrace: Commands) -> None:
    out = headrace.done("decisions", "verify", "checkout")
    said, heads = out.splitlines()
    assert said.startswith("whole: checked 8, broken 0,")
    assert {one["partition"] for one in json.loads(heads)["heads"]} == {
        "headrace.decisions.checkout#1/0",
        "headrace.decisions.checkout#1/1",
    }
    report = json.loads(headrace.done("decisions", "verify", "checkout", "--output", "json"))
    assert (report["whole"], report["checked"], report["places"]) == (True, 8, [])


def test_verify_finds_what_was_altered_in_the_file(headrace: Commands, tmp_path: Path) -> None:
    forge(headrace, b"approve", b"decline")
    status, out, _ = headrace("decisions", "verify", "checkout")
    assert status == 1 and out.startswith("NOT WHOLE: checked ")
    assert "its link is not that of its fields" in out
    status, out, _ = headrace("decisions", "verify", "checkout", "--output", "json")
    assert status == 1 and not json.loads(out)["whole"]


@pytest.mark.parametrize("output", ["text", "json"])
def test_heads_of_an_earlier_verify_are_looked_for(headrace: Commands, tmp_path: Path, output: str) -> None:
    kept = tmp_path / "heads.json"
    kept.write_text(headrace.done("decisions", "verify", "checkout", "--output", output), encoding="utf-8")
    headrace.done("decide", "checkout", json.dumps(shop.order("later")))
    headrace.done("decisions", "verify", "checkout", "--heads", kept)
    link = json.loads(kept.read_text(encoding="utf-8").splitlines()[-1])["heads"][0]["link"]
    kept.write_text(kept.read_text(encoding="utf-8").replace(link, "0" * 64), encoding="utf-8")
    status, out, _ = headrace("decisions", "verify", "checkout", "--heads", kept)
    assert status == 1 and "known head" in out
    kept.write_text("[1]", encoding="utf-8")
    status, _, err = headrace("decisions", "verify", "checkout", "--heads", kept)
    assert status == 1 and "HR-0717" in err


@pytest.mark.parametrize("command", [("plan",), ("apply", "--yes"), ("decisions", "list", "guarded")])
def test_an_input_that_nobody_mapped_is_found_before_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    definitions = lender.DEFINITIONS.replace(", not_a_reason=[activity.count_7d]", "")
    commands = Commands(shop.make(tmp_path / "lender", definitions), capsys)
    status, _, err = commands(*command)
    assert status == 1 and "HR-0708" in err and "activity.count_7d" in err and "not_a_reason" in err
    assert not (commands.folder / ".headrace" / "log" / "log.sqlite").exists()
