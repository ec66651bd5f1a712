"""What is in force is followed: another version decides from one request to the next, and none is decided by two."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from headrace.core.errors import DefinitionError
from headrace.decisions.run import Decider
from headrace.runtime.following import Following
from headrace.runtime.project import Project, open_project
from tests.e2e import shop

LIMITS = ("> 1000", "> 2000")


def declare(folder: Path, limit: str) -> None:
    shop.make(folder, shop.DEFINITIONS.replace("> 1000", limit))


def opened(folder: Path) -> Project:
    declare(folder, LIMITS[0])
    project = open_project(folder)
    project.apply()
    return project


def test_nothing_new_costs_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        decider = project.decider("checkout")
        following = Following(project)
        assert following.successors({"checkout": decider.version}) == {}
        assert following.project is project


def test_what_was_applied_is_served_and_what_was_not_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        serving = {"checkout": project.decider("checkout").version}
        following = Following(project)
        declare(tmp_path, LIMITS[1])
        assert following.successors(serving) == {}  # not applied yet: nothing says so
        project.renewed().apply()
        made = following.successors(serving)
        assert list(made) == ["checkout"] and made["checkout"].version.text != serving["checkout"].text
        declare(tmp_path, "> 3000")
        project.renewed().apply()
        declare(tmp_path, "> 4000")
        serving = {"checkout": made["checkout"].version}
        for _ in range(2):  # it is said as long as it is so
            with pytest.raises(DefinitionError) as caught:
                following.successors(serving)
            assert caught.value.code == "HR-0809"
        declare(tmp_path, "> 3000")
        assert list(following.successors(serving)) == ["checkout"]


def test_a_decision_that_is_gone_holds_up_no_other(tmp_path: Path) -> None:
    second = shop.DEFINITIONS + 'other = hr.Decision("other", request=orders, policy=[hr.approve()])\n'
    shop.make(tmp_path, second)
    with open_project(tmp_path) as project:
        project.apply()
        serving = {name: project.decider(name).version for name in ("checkout", "other")}
        following = Following(project)
        declare(tmp_path, LIMITS[1])
        project.renewed().apply()
        assert list(following.successors(serving)) == ["checkout"]


def test_versions_change_while_another_thread_decides(tmp_path: Path) -> None:
    """One thread decides without a pause, another switches twelve times between two versions."""
    with opened(tmp_path) as project:
        following = Following(project)
        serving: list[Decider] = [project.decider("checkout")]
        wrong: list[Exception] = []
        done, by = threading.Event(), []

        def decide() -> None:
            number = 0
            while not done.is_set():
                decider = serving[0]
                at = project.now()
                try:
                    made = decider.decide(shop.order(f"o{number}", number % 7, at=at))
                except Exception as error:  # noqa: BLE001  # whatever it is, the test must fail by it
                    wrong.append(error)
                    return
                by.append((made.decision_id, decider.version.text))
                number += 1

        thread = threading.Thread(target=decide)
        thread.start()
        switched = 0
        for turn in range(12):
            declare(tmp_path, LIMITS[(turn + 1) % 2])
            following.project.renewed().apply()
            made = following.successors({"checkout": serving[0].version})
            switched += len(made)
            serving[0] = made["checkout"]
        done.set()
        thread.join()
        assert wrong == [] and switched == 12 and len({text for _, text in by}) == 2
        newest = following.project
        records = {record.decision_id: record for record in newest.records("checkout")}
        assert [records[id].versions for id, _ in by] == [text for _, text in by]
        assert len(records) == len(by)
        report = newest.replay_decisions("checkout")
        of_newest = sum(record.versions == serving[0].version.text for record in records.values())
        assert (report.compared, report.mismatched, report.unknown) == (of_newest, 0, len(by) - of_newest)
