"""The sampler: each record looked at once, by its own version set, and a wrong one found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.core.points import Partition
from headrace.decisions import record as records
from headrace.decisions.define import Outcome
from headrace.decisions.record import DecisionRecord
from headrace.log.port import Append
from headrace.runtime.project import Project, open_project
from headrace.runtime.sampling import COST, FILE, Look, Sampled, Sampler, hash_of
from tests.e2e import shop

TOPIC = "headrace.decisions.checkout"


def opened(folder: Path, limit: str = "> 1000") -> Project:
    shop.make(folder, shop.DEFINITIONS.replace("> 1000", limit))
    project = open_project(folder)
    project.apply()
    return project


def decide(project: Project, *numbers: int) -> None:
    for number in numbers:
        project.decide("checkout", shop.order(f"o-{number}", number % 5, amount=f"{number + 1}.50", weight=number / 3))


def looked(sampler: Sampler) -> Sampled:
    (one,) = sampler.look().sampled
    return one


def forge(project: Project, record: DecisionRecord, field: str, was: object, now: object) -> None:
    """The record once more, with another value, as another program would append it."""
    place = records.record_topic(project.definitions.decision("checkout")).schema.names.index(field)
    row = list(records.to_row(record))
    changed = row[place].replace(was, now, 1) if isinstance(was, str) else now  # type: ignore[union-attr, arg-type]  # texts
    assert row[place] != changed
    row[place] = changed  # type: ignore[call-overload]  # a value of the field's type
    partition = Partition(TOPIC, 1, record.request.index)
    project.log.append([Append(partition=partition, rows=(tuple(row),))])


def test_each_record_is_compared_once(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        decide(project, 0, 1, 2)
        sampler = Sampler(project, 1.0)
        assert looked(sampler) == Sampled(decision="checkout"), "it begins at the end"
        decide(project, *range(3, 20))
        assert sampler.behind() == {"checkout": 17}
        assert looked(sampler) == Sampled(decision="checkout", seen=17, compared=17)
        assert sampler.behind() == {"checkout": 0}
        assert looked(sampler) == Sampled(decision="checkout")
        decide(project, 20)
        assert looked(sampler) == Sampled(decision="checkout", seen=1, compared=1)


def test_the_place_is_remembered(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        decide(project, 0)
        Sampler(project, 1.0).look()
        decide(project, 1, 2)
        again = Sampler(project, 1.0)
        assert looked(again) == Sampled(decision="checkout", seen=2, compared=2)
        assert looked(Sampler(project, 1.0)) == Sampled(decision="checkout")


def test_a_place_behind_the_end_or_that_cannot_be_read_is_the_end(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        decide(project, *range(6))
        Sampler(project, 1.0)
        place = project.state_folder / FILE
        said = json.loads(place.read_text())
        place.write_text(json.dumps({**said, "next": [[t, i, p, offset + 10] for t, i, p, offset in said["next"]]}))
        sampler = Sampler(project, 1.0)
        assert sampler.behind() == {"checkout": 0}
        assert looked(sampler) == Sampled(decision="checkout")
        decide(project, 6)
        assert looked(sampler) == Sampled(decision="checkout", seen=1, compared=1)
        for text in ("", "{", "[]", '{"next": 7}', '{"next": [[1]]}'):
            place.write_text(text)
            assert looked(Sampler(project, 1.0)) == Sampled(decision="checkout")


def test_a_decision_that_comes_later_is_sampled_from_its_first_record(tmp_path: Path) -> None:
    more = 'other = hr.Decision("other", request=orders, policy=[hr.approve_if(activity.count_1d < 3), hr.review()])\n'
    with opened(tmp_path) as project:
        sampler = Sampler(project, 1.0)
        shop.make(tmp_path, shop.DEFINITIONS + more)
        fresh = project.renewed()
        fresh.apply()
        fresh.decide("other", shop.order("x", 1))
        assert looked(sampler) == Sampled(decision="other", seen=1, compared=1)


FORGERIES = {
    "outcome": ("outcome", "approve", "decline"),
    "reasons": ("reasons", "[]", '["OTHER"]'),
    "rule": ("rule", 2, 0),
    "activity.count_1d": ("features", "[[[1,", "[[[7,"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_wrong_record_is_found_and_named(tmp_path: Path, name: str) -> None:
    field, was, now = FORGERIES[name]
    with opened(tmp_path) as project:
        sampler = Sampler(project, 1.0)
        decide(project, *range(4))
        true = list(project.records("checkout"))
        forge(project, true[2], field, was, now)
        found = looked(sampler)
        assert (found.compared, found.mismatched, found.unknown) == (5, 1, 0)
        (difference,) = found.differences
        assert difference.decision_id == true[2].decision_id
        assert difference.what == name
        assert looked(sampler).mismatched == 0, "counted once"


def test_what_is_no_record_is_a_mismatch_too_and_stops_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        sampler = Sampler(project, 1.0)
        decide(project, *range(4))
        forge(project, next(iter(project.records("checkout"))), "points", "[[", "nonsense")
        found = looked(sampler)
        assert (found.compared, found.mismatched) == (5, 1)
        assert found.differences[0].what == "record"


def test_records_of_versions_before_and_after_are_each_compared_with_their_own(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        sampler = Sampler(project, 1.0)
        decide(project, *range(5))
        newest = project
        for number in range(3):
            shop.make(tmp_path, shop.DEFINITIONS.replace("> 1000", f"> {number}"))
            newest = newest.renewed()
            newest.apply()
            sampler.follow()
            decide(newest, *range(10 * number + 10, 10 * number + 15))
        decide(project, 99)  # one that was under way by the old version
        found = looked(sampler)
        assert (found.seen, found.compared, found.mismatched, found.unknown) == (21, 21, 0, 0)
        outcomes = {record.outcome for record in newest.records("checkout")}
        assert outcomes == {Outcome.APPROVE, Outcome.DECLINE}, "the versions decide differently"


def test_records_of_versions_that_are_not_at_hand_are_unknown(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        Sampler(project, 1.0)
        decide(project, 0, 1)
        shop.make(tmp_path, shop.DEFINITIONS.replace("> 1000", "> 5"))
        newest = project.renewed()
        newest.apply()
        decide(newest, 2)
        found = looked(Sampler(newest, 1.0))
        assert (found.compared, found.unknown, found.mismatched) == (1, 2, 0)


def test_definitions_that_do_not_load_leave_the_known_ones(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        sampler = Sampler(project, 1.0)
        shop.make(tmp_path, shop.DEFINITIONS.replace("> 1000", "> 5"))
        project.renewed().apply()
        shop.make(tmp_path, "nonsense(")
        decide(project, 0)
        look = sampler.look()
        assert "HR-0805" in look.held
        assert look.sampled[0].compared == 1
        shop.make(tmp_path, shop.DEFINITIONS.replace("> 1000", "> 5"))
        assert sampler.look().held == ""


def test_the_share_is_chosen_by_the_id_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        sampler = Sampler(project, 0.5)
        decide(project, *range(40))
        ids = [record.decision_id for record in project.records("checkout")]
        chosen = [id for id in ids if hash_of(id) < 1 << 63]
        assert 5 < len(chosen) < 35
        found = looked(sampler)
        assert (found.seen, found.compared) == (40, len(chosen))


def test_hashes_are_even() -> None:
    shares = [
        sum(hash_of(f"checkout/1/0/{n}") < int(share * (1 << 64)) for n in range(20_000)) for share in (0.01, 0.5)
    ]
    assert 140 < shares[0] < 260
    assert 9_700 < shares[1] < 10_300


def test_of_too_many_the_smallest_hashes_are_compared_and_the_others_counted(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        sampler = Sampler(project, 1.0, compared_max=5)
        decide(project, *range(12))
        true = sorted(project.records("checkout"), key=lambda one: hash_of(one.decision_id))
        forge(project, true[0], "rule", 2, 0)
        forge(project, true[-1], "rule", 2, 0)  # skipped
        found = looked(sampler)
        assert (found.seen, found.compared, found.skipped, found.mismatched) == (14, 5, 9, 1)


def test_the_rest_follows_from_what_a_look_cost(tmp_path: Path) -> None:
    with opened(tmp_path) as project:
        sampler = Sampler(project, 1.0, every=0.01)
        decide(project, *range(10))
        look: Look = sampler.look()
        assert look.cpu_seconds > 0
        assert look.cpu_seconds / (look.cpu_seconds + look.rest_seconds) <= COST + 1e-9
        assert Sampler(project, 1.0, every=3_600.0).look().rest_seconds == 3_600.0
