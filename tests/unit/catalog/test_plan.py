"""The catalog's plan: it ends where the declaration says, in the order of needs, and never overwrites another's."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.catalog.define import KINDS, Catalog, Declared, Effect, InForce
from headrace.catalog.plan import Change, Step, applied, check, check_approved, differences, plan
from headrace.core.errors import DefinitionError, HeadraceError, UsageError

NAMES = ("a", "b", "c")
KEYS = [(kind, name) for kind in KINDS for name in NAMES]


def declare(kind: str, name: str, meaning: object = 1, needs: Iterable[tuple[str, str]] = ()) -> Declared:
    text = json.dumps(meaning)
    return Declared(kind=kind, name=name, fingerprint=f"print of {text}", meaning=text, needs=tuple(needs))


@st.composite
def declarations(draw: st.DrawFn) -> list[Declared]:
    """Any definitions in any order; each needs some of those of the kinds before it."""
    chosen = draw(st.lists(st.sampled_from(KEYS), unique=True))
    made = []
    for kind, name in chosen:
        before = [key for key in chosen if KINDS.index(key[0]) < KINDS.index(kind)]
        needs = draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        made.append(declare(kind, name, draw(st.integers(0, 2)), needs))
    return made


def apply_all(catalog: Catalog, steps: Iterable[Step]) -> Catalog:
    for step in steps:
        check(step, catalog)
        catalog = applied(catalog, step)
    return catalog


@given(declarations(), declarations())
def test_applying_a_plan_gives_what_is_declared_and_planning_again_nothing(
    first: list[Declared], second: list[Declared]
) -> None:
    catalog = apply_all(Catalog(), plan(first, Catalog()))
    catalog = apply_all(catalog, plan(second, catalog))
    assert {key: held.fingerprint for key, held in catalog.entries.items()} == {d.key: d.fingerprint for d in second}
    assert {key: held.meaning for key, held in catalog.entries.items()} == {d.key: d.meaning for d in second}
    assert plan(second, catalog) == ()


@given(declarations(), declarations())
def test_a_version_rises_by_one_with_each_change_of_meaning_only(first: list[Declared], second: list[Declared]) -> None:
    before = apply_all(Catalog(), plan(first, Catalog()))
    assert {held.version for held in before.entries.values()} <= {1}
    steps = plan(second, before)
    after = apply_all(before, steps)
    changed = {step.key for step in steps if step.change is Change.CHANGE}
    for key, held in after.entries.items():
        assert held.version == 1 + (key in changed)
    for one in second:
        held_before = before.entries.get(one.key)
        if held_before is not None:
            assert (one.key in changed) == (held_before.fingerprint != one.fingerprint)


@given(declarations(), declarations())
def test_every_step_finds_what_it_needs(first: list[Declared], second: list[Declared]) -> None:
    """Also while things are retired: nothing goes before what may still refer to it."""
    catalog = apply_all(Catalog(), plan(first, Catalog()))
    needs = {one.key: one.needs for one in first}
    now = {one.key: one.needs for one in second}
    for step in plan(second, catalog):
        catalog = applied(catalog, step)
        if step.change is not Change.RETIRE:
            needs[step.key] = now[step.key]
            assert all(need in catalog.entries for need in now[step.key])
        else:
            still = [key for key in catalog.entries if key not in now]
            assert not any(step.key in needs[key] for key in still), f"{step.key} went before what needs it"


@given(declarations(), st.data())
def test_the_plan_does_not_depend_on_the_order_of_the_files(declared: list[Declared], data: st.DataObject) -> None:
    assert plan(declared, Catalog()) == plan(data.draw(st.permutations(declared)), Catalog())


def test_steps_are_by_need_then_by_name_and_retired_in_reverse() -> None:
    declared = [declare(kind, name) for kind in reversed(KINDS) for name in ("b", "a")]
    steps = plan(declared, Catalog())
    assert [step.key for step in steps] == [(kind, name) for kind in KINDS for name in ("a", "b")]
    assert all(step.change is Change.ADD and step.version == 1 and step.because == () for step in steps)
    gone = plan([], apply_all(Catalog(), steps))
    assert [step.key for step in gone] == [(kind, name) for kind in reversed(KINDS) for name in ("a", "b")]
    assert all(step.change is Change.RETIRE for step in gone)


def test_a_step_says_what_it_expects_and_what_it_makes() -> None:
    catalog = apply_all(Catalog(), plan([declare("view", "v", {"width": "1d"})], Catalog()))
    (change,) = plan([declare("view", "v", {"width": "7d"})], catalog)
    assert change == Step(
        change=Change.CHANGE,
        kind="view",
        name="v",
        version=2,
        expects='print of {"width": "1d"}',
        fingerprint='print of {"width": "7d"}',
        meaning='{"width": "7d"}',
        because=('width: "1d" -> "7d"',),
        replaces='{"width": "1d"}',
    )
    (retire,) = plan([], catalog)
    assert retire == Step(
        change=Change.RETIRE,
        kind="view",
        name="v",
        version=1,
        expects='print of {"width": "1d"}',
        fingerprint=None,
        meaning=None,
        replaces='{"width": "1d"}',
    )


def kept(owner: str, *, meaning: int = 1, protected: bool = True) -> Declared:
    """A definition whose fingerprint covers `meaning` alone, as a topic's."""
    says = {"meaning": meaning, "owner": owner, "protected": protected}
    return Declared(
        kind="topic",
        name="t",
        fingerprint=f"print of {meaning}",
        meaning=json.dumps(says),
        assumed={"owner": "", "protected": True},
        explain=lambda before, after: (
            Effect(f"{before['owner']!r} -> {after['owner']!r}", "t.owner" if before["owner"] else ""),
        ),
    )


def test_what_no_fingerprint_covers_is_a_step_that_raises_no_version() -> None:
    catalog = apply_all(Catalog(), plan([kept("a")], Catalog()))
    (step,) = plan([kept("b")], catalog)
    assert (step.change, step.version, step.expects) == (Change.CHANGE, 1, "print of 1")
    assert (step.because, step.approvals) == (("'a' -> 'b'",), ("t.owner",))
    (both,) = plan([kept("b", meaning=2)], catalog)
    assert (both.version, both.fingerprint) == (2, "print of 2")
    after = apply_all(catalog, [step])
    assert after.entries["topic", "t"].version == 1 and plan([kept("b")], after) == ()


def test_what_was_applied_before_more_was_kept_is_no_change() -> None:
    held = InForce(kind="topic", name="t", version=3, fingerprint="print of 1", meaning='{"meaning": 1}')
    catalog = Catalog({held.key: held})
    assert plan([kept("")], catalog) == ()
    (step,) = plan([kept("a")], catalog)
    assert (step.version, step.because, step.approvals) == (3, ("'' -> 'a'",), ())
    (retire,) = plan([], catalog)
    assert retire.approvals == () and retire.because == ()


def test_a_stale_change_of_what_no_fingerprint_covers_is_refused() -> None:
    catalog = apply_all(Catalog(), plan([kept("a")], Catalog()))
    (mine,) = plan([kept("b")], catalog)
    (theirs,) = plan([kept("c")], catalog)
    (retire,) = plan([], catalog)
    catalog = apply_all(catalog, [theirs])
    for stale in (mine, retire):
        with pytest.raises(HeadraceError) as seen:
            check(stale, catalog)
        assert seen.value.code == "HR-0803"
        assert seen.value.detail == 'it means the same, and says something else: owner: "a" -> "c"'


def test_what_is_protected_is_retired_with_an_approval() -> None:
    catalog = apply_all(Catalog(), plan([kept("a")], Catalog()))
    (retire,) = plan([], catalog)
    assert retire.approvals == ("t.retire",) and retire.because == ("it is protected; what it holds stays",)
    unprotected = apply_all(Catalog(), plan([kept("a", protected=False)], Catalog()))
    (retire,) = plan([], unprotected)
    assert retire.approvals == ()


def test_what_needs_an_approval_is_refused_without_it_and_an_unknown_one_too() -> None:
    catalog = apply_all(Catalog(), plan([kept("a")], Catalog()))
    steps = plan([kept("b")], catalog)
    check_approved(steps, ["t.owner"])
    check_approved((), [])
    with pytest.raises(HeadraceError) as seen:
        check_approved(steps, [])
    assert str(seen.value).splitlines() == [
        "HR-0811 1 change of this plan needs an approval",
        "  nothing was applied",
        "  hint: headrace apply --approve t.owner",
    ]
    assert seen.value.facts["missing"] == ("t.owner",)
    two = (*steps, *plan([], catalog))
    with pytest.raises(HeadraceError, match="2 changes of this plan need an approval") as seen:
        check_approved(two, [])
    assert seen.value.hint == "headrace apply --approve t.owner --approve t.retire"
    with pytest.raises(UsageError, match=r"nothing here needs the approval 't\.onwer'") as wrong:
        check_approved(steps, ["t.owner", "t.onwer"])
    assert (wrong.value.code, wrong.value.hint) == ("HR-0812", "did you mean 't.owner'?")
    with pytest.raises(UsageError) as wrong:
        check_approved((), ["x"])
    assert wrong.value.hint == "headrace plan says what needs one"


def test_a_stale_plan_is_refused() -> None:
    declared = [declare("view", "v", 1)]
    (add,) = plan(declared, Catalog())
    held = apply_all(Catalog(), [add])
    (change,) = plan([declare("view", "v", 2)], held)
    with pytest.raises(HeadraceError) as seen:
        check(add, held)
    assert seen.value.code == "HR-0803"
    assert str(seen.value).splitlines() == [
        "HR-0803 view 'v' has changed since the plan was made",
        "  expected nothing in force, seen print of 1",
        "  hint: headrace plan, then headrace apply",
    ]
    with pytest.raises(HeadraceError, match="has changed") as seen:
        check(change, Catalog())
    assert seen.value.detail == "expected print of 1 in force, seen nothing"
    check(add, Catalog())
    check(change, held)


def test_applying_changes_no_catalog_in_place() -> None:
    empty = Catalog()
    (add,) = plan([declare("view", "v", 1)], empty)
    held = applied(empty, add)
    assert empty.entries == {}
    (retire,) = plan([], held)
    assert applied(held, retire).entries == {}
    assert held.entries == {
        ("view", "v"): InForce(kind="view", name="v", version=1, fingerprint="print of 1", meaning="1")
    }


def test_two_definitions_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError) as seen:
        plan([declare("view", "v", 1), declare("view", "v", 2)], Catalog())
    assert seen.value.code == "HR-0801"
    assert seen.value.message == "two definitions of view 'v'"
    assert seen.value.hint == "rename or delete one of them"
    assert len(plan([declare("view", "v"), declare("model", "v")], Catalog())) == 2


def test_a_need_that_is_not_declared_is_refused_with_the_nearest_name_of_its_kind() -> None:
    declared = [
        declare("view", "merchant_risks"),
        declare("topic", "merchant_risk"),
        declare("model", "m", 1, [("view", "merchant_risk")]),
    ]
    with pytest.raises(DefinitionError) as seen:
        plan(declared, Catalog())
    assert seen.value.code == "HR-0802"
    assert seen.value.message == "model 'm' needs view 'merchant_risk', which is not declared"
    assert seen.value.hint == "did you mean 'merchant_risks'?"


def differ(before: object, after: object) -> tuple[str, ...]:
    return differences(json.dumps(before), json.dumps(after))


def test_differences_are_paths_with_both_values() -> None:
    assert differ({"a": 1, "b": {"c": "x", "d": 0}}, {"a": 1, "b": {"c": "y"}}) == (
        'b.c: "x" -> "y"',
        "b.d: 0 -> null",
    )
    assert differ({"a": [1, 2, 3]}, {"a": [1, 5, 3]}) == ("a[1]: 2 -> 5",)
    assert differ({"a": [1, 2]}, {"a": [1, 2, 3]}) == ("a: [1, 2] -> [1, 2, 3]",)
    assert differ({"a": {"b": 1}}, {"a": [1]}) == ('a: {"b": 1} -> [1]',)
    assert differ({"a": [1]}, {"a": {"b": 1}}) == ('a: [1] -> {"b": 1}',)
    assert differ([], []) == differ({"a": 1}, {"a": 1}) == ()


def test_named_things_in_a_list_are_compared_by_name() -> None:
    before = {"features": [{"name": "x", "width": 1}, {"name": "y", "width": 1}]}
    after = {"features": [{"name": "z", "width": 1}, {"name": "y", "width": 2}]}
    assert differ(before, after) == (
        "features.x: removed",
        "features.y.width: 1 -> 2",
        "features.z: added",
    )
    assert differ([{"name": "x"}], [{"name": "x"}, 1]) == (': [{"name": "x"}] -> [{"name": "x"}, 1]',)


def test_differences_stay_readable() -> None:
    assert len(differ(list(range(30)), list(range(1, 31)))) == 20
    assert len(differ(list(range(19)), list(range(1, 20)))) == 19
    (line,) = differ({"a": "x" * 100}, {"a": "x" * 78})
    assert line == f'a: "{"x" * 76}... -> "{"x" * 78}"'
    (line,) = differ({"a": "x" * 78}, {"a": 1})
    assert line == f'a: "{"x" * 78}" -> 1'


def test_values_are_shown_as_written_and_up_to_eighty_characters() -> None:
    whole, long = "ü" * 78, "ü" * 79  # with their quotes 80 and 81
    (line,) = differences(json.dumps({"a": whole}), json.dumps({"a": long}))
    assert line == f'a: "{whole}" -> "{"ü" * 76}...'
