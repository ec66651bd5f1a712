"""The lender's example as a newcomer runs it: over HTTP, with a report; its server never outlives it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from headrace.decisions.record import DecisionRecord
from headrace.runtime.project import open_project
from tests.needs import requires
from tests.unit.examples.bnpl import EXAMPLE, load

pytestmark = pytest.mark.slow

DECIDED = 60
PICTURES = (
    "Outcomes over time",
    "Not approved, over time",
    "Score of fraud, live, by the truth",
    "Score of default, live, by the truth",
    "Ranking: ROC on matured labels",
    "Precision and recall on matured labels",
    "Calibration on matured labels",
    "Score of fraud, by the matured label",
    "Score of default, by the matured label",
    "From request to durable answer",
)
FETCHING = {"src", "srcset", "href", "data", "action", "poster", "xlink:href", "background"}


def command(folder: Path, *more: str) -> list[str]:
    options = ["--scale", "0.05", "--decide", str(DECIDED), "--out", str(folder), *more]
    return [sys.executable, str(EXAMPLE / "run.py"), *options]


def server_pid(said: str) -> int:
    found = re.search(r"headrace serve is ready on port \d+, process (\d+)", said)
    assert found is not None, said
    return int(found[1])


def alive(pid: int, folder: Path) -> bool:
    """Whether the process is still a server of this folder; a number may be given again."""
    try:
        return str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that ended. page, seen: its report. records: what its project holds."""

    folder: Path
    said: str
    page: str
    seen: Seen
    records: list[DecisionRecord]


class Seen(HTMLParser):
    """What a browser would see of a page: tags, attributes that fetch, pictures, and tables' cells under the heading
    before them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.fetches: list[str] = []
        self.pictures: dict[str, Counter[str]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.tiles: list[str] = []
        self._picture: Counter[str] | None = None
        self._heading, self._in = "", ""
        self._row: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = {name: value or "" for name, value in attrs}
        self.fetches += [f"{name}={value}" for name, value in given.items() if name in FETCHING]
        self.fetches += [value for name, value in given.items() if "url(" in value or name.startswith("on")]
        if tag == "svg":
            self._picture = self.pictures.setdefault(given["aria-label"], Counter())
        elif self._picture is not None:
            self._picture[tag] += 1
        if tag in ("h2", "h3"):
            self._heading, self._in = "", tag
        if tag in ("td", "th"):
            self._row.append("")
            self._in = tag
        if given.get("class") == "tile":
            self.tiles.append("")
            self._in = "tile"

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._picture = None
        if tag == "tr" and self._row:
            self.tables.setdefault(self._heading, []).append(self._row)
            self._row = []
        if tag in ("h2", "h3", "td", "th", "div"):
            self._in = ""

    def handle_data(self, data: str) -> None:
        match self._in:
            case "h2" | "h3":
                self._heading += data
            case "td" | "th":
                self._row[-1] += data + " "
            case "tile":
                self.tiles[-1] += data + " "

    def rows(self, heading: str) -> dict[str, list[str]]:
        """By their first cell."""
        found = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in self.tables[heading]}
        assert found, heading
        return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    requires("xgboost", "uvicorn", "httptools", "prometheus_client")
    folder = tmp_path_factory.mktemp("bnpl") / "kept"
    outcome = subprocess.run(
        command(folder, "--drift", "--late-incident"), capture_output=True, text=True, timeout=280, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    page = (folder / "report.html").read_text(encoding="utf-8")
    with open_project(folder / "project") as project:
        records = list(project.records("checkout"))
    yield Run(folder=folder, said=outcome.stdout, page=page, seen=Seen(page), records=records)


def test_every_request_was_decided_over_http_and_recomputes(ran: Run) -> None:
    said = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in ran.said.splitlines() if "│" in line}
    assert "over HTTP" in ran.said
    assert (said["recomputed: compared"], said["recomputed: mismatched"]) == (str(DECIDED), "0")
    assert said["requests"] == str(DECIDED) == str(len(ran.records))
    outcomes = Counter(record.outcome.value for record in ran.records)
    assert {name: int(said[name]) for name in ("approve", "review", "decline")} == {
        name: outcomes[name] for name in ("approve", "review", "decline")
    }
    asked = pq.read_table(ran.folder / "data" / "applications.parquet").column("application_id").to_pylist()
    assert [int(record.request_id) for record in ran.records] == asked[-DECIDED:]
    assert all({name for name, _ in record.ruling.answer.scores} == {"fraud", "default"} for record in ran.records)
    assert all([name for name, _ in record.ruling.beside] == ["stricter"] for record in ran.records)


def test_the_server_is_gone_and_ended_in_order(ran: Run) -> None:
    pid = server_pid(ran.said)
    assert not alive(pid, ran.folder)
    lines = [json.loads(line) for line in (ran.folder / "server.log").read_text(encoding="utf-8").splitlines()]
    assert [line["message"] for line in lines if line["message"] in ("serving", "stopped")] == ["serving", "stopped"]
    assert not [line for line in lines if line["level"] in ("ERROR", "CRITICAL")], lines
    assert (ran.folder / "project").stat().st_mode & 0o077 == 0


def test_the_report_needs_nothing_but_itself(ran: Run) -> None:
    assert ran.seen.fetches == []
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(ran.seen.tags)
    assert not re.search(r"https?://|url\(|@import|javascript:", ran.page)
    assert "default-src 'none'" in ran.page
    assert "${" not in ran.page


def test_every_picture_is_there_and_is_one(ran: Run) -> None:
    assert tuple(ran.seen.pictures) == PICTURES
    for name, shapes in ran.seen.pictures.items():
        assert shapes["title"] >= 1, name
        assert shapes["text"] >= 1, name
    drawn = [name for name, shapes in ran.seen.pictures.items() if shapes["path"] + shapes["rect"] >= 5]
    assert len(drawn) >= len(PICTURES) - 2  # of so few applications there may be none that defaults, or no fraud


def test_the_reports_numbers_are_those_of_the_records(ran: Run) -> None:
    truth = {row["application_id"]: row for row in pq.read_table(ran.folder / "data" / "truth.parquet").to_pylist()}
    kinds = {id: row["fraud"] or ("default" if row["defaults"] else "honest") for id, row in truth.items()}
    words = {"default": "will default"}
    counts = Counter((kinds[int(r.request_id)], r.outcome.value) for r in ran.records)
    rows = ran.seen.rows("Decisions beside the truth")
    for kind in ("honest", "default", "account_takeover", "merchant_compromise", "application_stacking"):
        cells = rows[words.get(kind, kind.replace("_", " "))]
        outcomes = [int(cell.split()[0]) for cell in cells[1:4]]
        assert outcomes == [counts[kind, outcome] for outcome in ("approve", "review", "decline")], kind
        assert int(cells[0]) == sum(outcomes)
    given = Counter(code for record in ran.records for code in record.reasons)
    reasons = ran.seen.rows("Why: reasons that were given")
    assert {code: int(cells[0]) for code, cells in reasons.items() if code != "reason"} == dict(given)
    rules = ran.seen.rows("Which rule decided")
    decided = Counter(record.rule for record in ran.records)
    assert [int(rules[str(place + 1)][1]) for place in range(len(rules) - 1)] == [decided[p] for p in range(11)]
    replayed = {name: cells[0] for name, cells in ran.seen.rows("Computed again from the log").items()}
    assert (replayed["compared"], replayed["mismatched"], replayed["answers given"]) == ("60", "0", "60")
    frauds = [record for record in ran.records if kinds[int(record.request_id)] not in ("honest", "default")]
    stopped = sum(record.outcome.value != "approve" for record in frauds)
    assert any(tile.startswith(f"{stopped} of {len(frauds)} ") for tile in ran.seen.tiles), ran.seen.tiles


def test_the_report_explains_decisions_and_tells_what_came_late(ran: Run) -> None:
    explained = [heading for heading in ran.seen.tables if heading.startswith("Model fraud: score")]
    assert explained
    assert "it was computed again, to the same bits" in ran.page
    assert "DIFFERS" not in ran.page
    assert "input of default" in ran.page
    (declined, *_) = [record for record in ran.records if record.outcome.value == "decline"]
    texts = load("definitions").TEXTS[declined.reasons[0]]
    assert texts["en"].replace("'", "&#x27;") in ran.page
    assert texts["de"] in ran.page


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_takes_the_server_along(number: signal.Signals, tmp_path: Path) -> None:
    requires("xgboost", "uvicorn", "httptools", "prometheus_client")
    folder = tmp_path / "kept"
    running = subprocess.Popen(
        command(folder, "--decide", "300"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert running.stdout is not None
    try:
        said = ""
        while "headrace serve is ready" not in said:
            line = running.stdout.readline()
            assert line, said
            said += line
        pid = server_pid(said)
        assert alive(pid, folder)
        time.sleep(0.3)  # in the middle of a request, as likely as not
        running.send_signal(number)
        assert running.wait(timeout=60) == 128 + number
        assert not alive(pid, folder)
        assert "Traceback" not in running.stdout.read()
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def test_a_server_that_does_not_come_is_said_with_its_log_and_is_gone(tmp_path: Path) -> None:
    requires("uvicorn", "httptools", "prometheus_client")
    steps: ModuleType = load("steps")
    serving: ModuleType = load("serving")
    with steps.make_project(tmp_path / "project"):
        pass  # its models were never trained
    begun = time.monotonic()
    with (
        pytest.raises(serving.ServerError) as failed,
        serving.serving(tmp_path / "project", token="none", log=tmp_path / "server.log"),
    ):
        raise AssertionError("it cannot be ready")
    assert "the server ended before it was ready" in str(failed.value)
    assert "HR-0807" in str(failed.value)
    assert time.monotonic() - begun < 60
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    assert not any(alive(int(pid), tmp_path / "project") for pid in children)


def test_without_a_server_it_decides_in_process(tmp_path: Path) -> None:
    requires("xgboost")
    report = tmp_path / "elsewhere" / "page.html"
    outcome = subprocess.run(
        [*command(tmp_path / "kept", "--in-process"), "--report", str(report)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "in process" in outcome.stdout
    assert "headrace serve" not in outcome.stdout
    assert not (tmp_path / "kept" / "server.log").exists()
    page = report.read_text(encoding="utf-8")
    assert tuple(Seen(page).pictures) == PICTURES
    assert "Not in this run." in page  # no late reports
