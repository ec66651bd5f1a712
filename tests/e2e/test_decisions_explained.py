"""`headrace decisions explain`: the whole of one decision, in words, as JSON and as a page that needs nothing else."""

from __future__ import annotations

import html.parser
import json
import math
import shutil
from pathlib import Path

import pytest

from tests.e2e.lender import make_lender
from tests.e2e.shop import Commands
from tests.needs import requires


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    requires("sklearn")
    return make_lender(tmp_path_factory.mktemp("lender"))


@pytest.fixture
def headrace(made: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(made, capsys)


def listed(headrace: Commands) -> list[dict[str, object]]:
    found = json.loads(headrace.done("decisions", "list", "guarded", "--limit", "100", "--output", "json"))
    assert len({one["outcome"] for one in found}) >= 2
    return list(found)


def explained(headrace: Commands, id: object, *more: str) -> dict[str, object]:
    return dict(json.loads(headrace.done("decisions", "explain", str(id), "--output", "json", *more)))


def test_every_decision_explains_itself_as_it_was_made(headrace: Commands) -> None:
    for record in listed(headrace):
        said = explained(headrace, record["decision_id"])
        assert (said["outcome"], said["models"][0]["score"]) == (record["outcome"], record["score"])
        assert [told["code"] for told in said["reasons"]] == record["reasons"]
        assert said["request"]["id"] == record["request_id"]
        assert said["replay"] == "it was computed again, to the same bits" and said["chain_holds"]
        (decided,) = [rule for rule in said["rules"] if rule["decided"]]
        assert decided["standing"] in ("held", "always holds", "had no truth value")
        behind = said["rules"][decided["index"] + 1 :]
        assert all(rule["standing"] == "not asked" for rule in behind)
        assert all(
            rule["standing"] in ("did not hold", "is for another segment", "had no truth value, skipped")
            for rule in said["rules"][: decided["index"]]
        )


def test_contributions_add_up_to_the_score_and_are_the_models_reasons(headrace: Commands) -> None:
    by_model = 0
    for record in listed(headrace):
        said = explained(headrace, record["decision_id"])
        (model,) = said["models"]
        margin = model["base"] + sum(one["share"] for one in model["contributions"])
        assert 1 / (1 + math.exp(-margin)) == pytest.approx(model["score"], abs=1e-9)
        assert [one["code"] for one in model["contributions"] if one["input"] == "activity.count_7d"] == [None]
        raising = [one["code"] for one in model["contributions"] if one["share"] > 0 and one["code"]]
        codes = [code for code in record["reasons"] if code in ("MERCHANT_HISTORY", "AMOUNT")]
        if codes:
            by_model += 1
            assert codes == raising
    assert by_model


def test_a_rule_of_a_segment_says_for_whom_it_is(headrace: Commands) -> None:
    standing = {}
    for record in listed(headrace):
        said = explained(headrace, record["decision_id"])
        if said["rule"] > 0:
            standing.setdefault(said["request"]["channel"], set()).add(said["rules"][1]["standing"])
    assert "for requests where channel = 'web'" in said["rules"][1]["said"]
    assert standing["shop"] == {"is for another segment"}
    assert standing[None] == {"had no truth value"}
    assert standing["web"] <= {"held", "did not hold"}


def test_events_of_a_view_are_those_that_it_counted(headrace: Commands) -> None:
    for record in listed(headrace)[::5]:
        said = explained(headrace, record["decision_id"], "--events", "1000")
        activity, merchant = (next(v for v in said["views"] if v["name"] == name) for name in ("activity", "merchant"))
        count = next(f["value"] for f in activity["features"] if f["name"] == "count_7d")
        assert activity["events_count"] == len(activity["events"]) == count - 1  # the request is not among them
        assert all(event["fields"]["customer"] == said["request"]["customer"] for event in activity["events"])
        times = [event["event_time"] for event in merchant["events"]]
        assert times == sorted(times, reverse=True) and max(times) <= merchant["until"] < said["t"]
        assert merchant["since"] < min(times)
        assert activity["entity"] == {"customer": said["request"]["customer"]}


def test_events_are_bounded_and_counted(headrace: Commands) -> None:
    last = listed(headrace)[-1]["decision_id"]
    all_of_them = explained(headrace, last, "--events", "1000")
    few = explained(headrace, last, "--events", "2")
    for view, bounded in zip(all_of_them["views"], few["views"], strict=True):
        assert bounded["events_count"] == view["events_count"] > 2
        assert bounded["events"] == view["events"][:2]
    assert not explained(headrace, last, "--events", "0")["views"][0]["events"]


def test_a_null_says_why(headrace: Commands) -> None:
    first = explained(headrace, listed(headrace)[0]["decision_id"])
    mean = next(f for v in first["views"] for f in v["features"] if f["name"] == "mean_amount_7d")
    assert (mean["value"], mean["reason"], mean["why"]) == (None, "EMPTY", "its window held no events")


def test_words_name_everything(headrace: Commands) -> None:
    record = next(one for one in listed(headrace) if "MERCHANT_HISTORY" in one["reasons"])
    out = headrace.done("decisions", "explain", str(record["decision_id"]))
    for part in (
        f"{record['decision_id']}: {record['outcome']}",
        "MERCHANT_HISTORY",
        "en: Bad <purchases> at this merchant.",
        "de: Schlechte Käufe",
        "View activity",
        "View merchant",
        "merchant.bad_rate_60d",
        "beside the request",
        "it was computed again, to the same bits",
        "version set",
    ):
        assert part in out, part
    german = headrace.done("decisions", "explain", str(record["decision_id"]), "--language", "de")
    assert "Schlechte Käufe" in german and "purchases" not in german


class Page(html.parser.HTMLParser):
    """A page's tags and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.links += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_whole_in_itself_and_escapes_what_came_from_outside(headrace: Commands, tmp_path: Path) -> None:
    strange = next(
        r for r in listed(headrace) if explained(headrace, r["decision_id"])["request"]["channel"][:1] == "<"
    )
    place = tmp_path / "page.html"
    headrace.done("decisions", "explain", str(strange["decision_id"]), "--page", place)
    text = place.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and not page.links
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "td", "th", "ul", "ol", "li",
        "code", "span", "br",
    }  # fmt: skip
    assert "url(" not in text and "@import" not in text and "http:" not in text and "https:" not in text
    assert "<script" not in text and '"<script>alert(1)</script>"' in "".join(page.texts)
    assert "default-src 'none'" in text
    for part in ("View activity", "Rules", "to the same bits"):
        assert part in "".join(page.texts)


def test_a_decision_of_other_definitions_shows_what_the_record_holds(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "project")
    headrace = Commands(tmp_path / "project", capsys)
    id = listed(headrace)[-1]["decision_id"]
    definitions = headrace.folder / "definitions.py"
    definitions.write_text(definitions.read_text(encoding="utf-8").replace("count_7d > 5", "count_7d > 6"))
    said = explained(headrace, id)
    assert (said["in_force"], said["rules"]) == (False, [])
    assert [(one["base"], one["contributions"]) for one in said["models"]] == [(None, [])]
    assert "not at hand" in said["replay"] and said["views"][0]["features"][0]["name"] == "count_7d"
    out = headrace.done("decisions", "explain", str(id), "--page", tmp_path / "page.html")
    assert "not at hand" in out and "not at hand" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_an_id_that_is_none_is_refused(headrace: Commands) -> None:
    for id in ("guarded/1/0/100000", "guarded", "guarded/1/7/0", "nothing/1/0/0"):
        status, _, err = headrace("decisions", "explain", id)
        assert status == 1 and ("HR-0716" in err or "HR-0806" in err), err
