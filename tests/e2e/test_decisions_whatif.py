"""`headrace decisions whatif`: recorded requests decided again by something else, and nothing recorded of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.lender import DECIDED, DEFINITIONS, make_lender, run
from tests.e2e.shop import Commands, make
from tests.needs import requires


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    requires("sklearn")
    return make_lender(tmp_path_factory.mktemp("lender"))


@pytest.fixture
def headrace(made: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(made, capsys)


def other(place: Path, *changes: tuple[str, str]) -> Path:
    text = DEFINITIONS
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return make(place, text)


def asked(headrace: Commands, *more: str | Path) -> dict[str, object]:
    before = headrace.done("decisions", "list", "guarded", "--limit", "1000")
    said = json.loads(headrace.done("decisions", "whatif", "guarded", "--output", "json", *more))
    assert headrace.done("decisions", "list", "guarded", "--limit", "1000") == before
    return dict(said)


def records(headrace: Commands) -> list[dict[str, object]]:
    return list(json.loads(headrace.done("decisions", "list", "guarded", "--limit", "1000", "--output", "json")))


def test_with_nothing_changed_nothing_differs(headrace: Commands, tmp_path: Path) -> None:
    for more in ((), ("--definitions", other(tmp_path / "same"))):
        said = asked(headrace, *more)
        assert (said["compared"], said["changed"], said["rereasoned"], said["rescored"]) == (DECIDED, 0, 0, 0)
        assert all(moved["was"] == moved["now"] for moved in said["outcomes"])
        assert all(reason["was"] == reason["now"] for reason in said["reasons"])
        assert said["examples"] == [] and said["from_versions"] == 1


def test_another_policy_changes_what_its_rules_say(headrace: Commands, tmp_path: Path) -> None:
    folder = other(tmp_path / "other", ("count_7d > 5", "count_7d > 3"))
    said = asked(headrace, "--definitions", folder, "--by", "channel", "--by", "merchant")
    found = records(headrace)
    explained = [
        json.loads(headrace.done("decisions", "explain", str(one["decision_id"]), "--output", "json")) for one in found
    ]
    counts = [one["views"][0]["features"][0]["value"] for one in explained]
    now = ["decline" if count > 3 else str(one["outcome"]) for one, count in zip(found, counts, strict=True)]
    changed = [one["decision_id"] for one, outcome in zip(found, now, strict=True) if one["outcome"] != outcome]
    assert said["changed"] == len(changed) > 0 and said["rescored"] == 0
    assert [one["decision_id"] for one in said["examples"]] == changed[:20]
    assert {(m["was"], m["now"]): m["count"] for m in said["outcomes"]} == {
        (str(one["outcome"]), outcome): sum(
            o["outcome"] == one["outcome"] and n == outcome for o, n in zip(found, now, strict=True)
        )
        for one, outcome in zip(found, now, strict=True)
    }
    many = next(reason for reason in said["reasons"] if reason["code"] == "MANY")
    assert many["was"] == sum("MANY" in one["reasons"] for one in found)
    assert many["now"] == sum(count > 3 for count in counts)
    for name in ("channel", "merchant"):
        segments = [each for each in said["segments"] if each["field"] == name]
        assert sum(each["compared"] for each in segments) == DECIDED
        assert sum(each["changed"] for each in segments) == said["changed"]
        assert {each["value"] for each in segments} == {one["request"][name] for one in explained}


def test_definitions_edited_since_are_what_is_tried_by_default(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "project")
    headrace = Commands(tmp_path / "project", capsys)
    other(tmp_path / "project", ("hr.approve()]", "hr.decline(reason='MANY')]"))
    said = asked(headrace)
    assert {moved["now"] for moved in said["outcomes"]} == {"decline", "review"}
    assert said["changed"] == sum(one["outcome"] == "approve" for one in records(headrace)) > 0
    assert all(example["was_reasons"] == [] and example["now_reasons"] == ["MANY"] for example in said["examples"])


def test_a_view_that_the_records_do_not_know_is_asked_at_their_points(headrace: Commands, tmp_path: Path) -> None:
    """Each customer's applications so far: the same as the known view counts, under another name."""
    folder = other(
        tmp_path / "viewed",
        ("fraud = hr.Model", "busy = hr.FeatureView('busy', entity='customer', source=applications, features=[\n"
         "    hr.count().over('7d')])\nfraud = hr.Model"),
        ("hr.decline_if(activity.count_7d > 5,", "hr.decline_if(busy.count_7d > 5,"),
    )  # fmt: skip
    said = asked(headrace, "--definitions", folder)
    assert (said["compared"], said["changed"], said["rereasoned"]) == (DECIDED, 0, 0)
    assert [name for name, _ in said["version"]["views"]] == ["activity", "merchant", "busy"]


def test_another_model_is_the_other_folders(headrace: Commands, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    shutil.copytree(made, folder)
    other(folder, ("trainer=hr.logistic_regression()", "trainer=hr.logistic_regression(C=0.001)"))
    status, _, err = headrace("decisions", "whatif", "guarded", "--definitions", str(folder))
    assert status == 1 and "HR-0807" in err  # not trained yet, in neither of them
    run(folder, "apply", "--yes")
    run(folder, "models", "train", "fraud")
    said = asked(headrace, "--definitions", folder)
    assert said["rescored"] == DECIDED and said["version"]["model"] not in (None, "")
    artifacts = json.loads(run(folder, "models", "list", "--output", "json"))
    first = next(one["id"] for one in artifacts if one["id"] != said["version"]["model"])
    status, _, err = headrace("decisions", "whatif", "guarded", "--artifact", "0" * 64)
    assert status == 1, err
    assert asked(headrace, "--artifact", first)["rescored"] == 0


def test_a_period_and_a_limit_bound_it(headrace: Commands) -> None:
    times = [str(one["t"]) for one in records(headrace)]
    assert asked(headrace, "--from", times[4])["compared"] == DECIDED - 4
    assert asked(headrace, "--from", times[4], "--to", times[6])["compared"] == 2
    assert asked(headrace, "--to", times[0])["compared"] == 0
    assert asked(headrace, "--limit", "3")["compared"] == 3


def test_the_table_says_what_changes(headrace: Commands, tmp_path: Path) -> None:
    folder = other(tmp_path / "table", ("count_7d > 5", "count_7d > 3"))
    out = headrace.done("decisions", "whatif", "guarded", "--definitions", folder, "--by", "channel")
    assert out.startswith(f"compared {DECIDED}: other outcome ")
    for part in ("Outcomes", "Reasons", "Segments", "Examples", "MANY", "approve  decline", "guarded/1/0/"):
        assert part in out, part


@pytest.mark.parametrize(
    ("changes", "more", "code"),
    [
        ([('hr.Topic("applications"', 'hr.Topic("orders"')], (), "HR-0719"),
        ([('"channel": hr.string,', '"channel": hr.string, "more": hr.int64,')], (), "HR-0719"),
        ([('hr.Decision("guarded"', 'hr.Decision("other"')], (), "HR-0806"),
        ([], ("--by", "chanel"), "HR-0106"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    headrace: Commands, tmp_path: Path, changes: list[tuple[str, str]], more: tuple[str, ...], code: str
) -> None:
    folder = other(tmp_path / "refused", *changes)
    status, _, err = headrace("decisions", "whatif", "guarded", "--definitions", folder, *more)
    assert status == 1 and code in err, err
