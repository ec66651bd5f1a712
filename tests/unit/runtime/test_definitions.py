"""A project's definitions as the catalog is told of them: what changes a fingerprint, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.catalog.run import load_definitions
from headrace.core.errors import DefinitionError, HeadraceError, NotFoundError
from headrace.runtime.definitions import CLASSES, Definitions
from headrace.runtime.project import open_project

SHOP = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", fields={
    "order": hr.string, "customer": hr.int64, "amount": hr.decimal(12, 2), "at": hr.timestamp})
returns = hr.Topic("returns", key="order", event_time="at", fields={"order": hr.string, "at": hr.timestamp})
returned = hr.Label("returned", of=orders, source=returns, on="order", within="30d", grace="3d")
activity = hr.FeatureView("activity", entity="customer", source=orders, features=[
    hr.count().over("1d"), hr.mean(orders.amount).over("7d")])
risk = hr.Model("risk", features=[orders.amount, activity.count_1d], label=returned,
                trainer=hr.logistic_regression())
checkout = hr.Decision("checkout", request=orders, policy=[
    hr.decline_if(activity.count_1d > 10, reason="MANY"), hr.approve()])
"""


def load(folder: Path, text: str) -> Definitions:
    (folder / "definitions.py").write_text(text, encoding="utf-8")
    return Definitions.of(load_definitions(folder, CLASSES))


def prints(definitions: Definitions, *, tz_version: str = "2026a") -> dict[tuple[str, str], str]:
    return {one.key: one.fingerprint for one in definitions.declared(tz_version=tz_version)}


def changed(folder: Path, before: str, after: str) -> set[str]:
    """What has another fingerprint where one text in the file stands for another."""
    assert before in SHOP
    was, now = prints(load(folder, SHOP)), prints(load(folder, SHOP.replace(before, after)))
    assert was.keys() == now.keys()
    return {f"{kind} {name}" for (kind, name), value in was.items() if now[kind, name] != value}


def test_what_is_declared_is_found_with_its_needs(tmp_path: Path) -> None:
    declared = {one.key: set(one.needs) for one in load(tmp_path, SHOP).declared(tz_version="2026a")}
    orders, returns, label = ("topic", "orders"), ("topic", "returns"), ("label", "returned")
    assert declared == {
        orders: set(),
        returns: set(),
        label: {orders, returns},
        ("view", "activity"): {orders},
        ("model", "risk"): {label, ("view", "activity")},
        ("decision", "checkout"): {orders, ("view", "activity")},
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"orders", key', '"orders", description="What was bought.", key'),
        ('"activity", entity', '"activity", description="How busy a customer is.", entity'),
        ("import headrace as hr", "# A comment.\nimport headrace as hr"),
        ("activity", "customer_activity_view"),
    ],
)
def test_a_change_of_text_is_no_change(tmp_path: Path, before: str, after: str) -> None:
    if before == "activity":  # another Python name for the same view
        text = SHOP.replace("activity", after).replace(f'"{after}"', '"activity"')
        assert prints(load(tmp_path, SHOP)) == prints(load(tmp_path, text))
    else:
        assert changed(tmp_path, before, after) == set()


def test_a_change_of_meaning_reaches_what_is_built_on_it(tmp_path: Path) -> None:
    assert changed(tmp_path, 'count().over("1d")', 'count(where=orders.amount > 5).over("1d")') == {
        "view activity",
        "model risk",
        "decision checkout",
    }
    assert changed(tmp_path, 'within="30d"', 'within="60d"') == {"label returned", "model risk"}
    assert changed(tmp_path, "> 10", "> 11") == {"decision checkout"}


def test_a_plan_of_the_same_project_is_empty_and_a_changed_one_says_what(tmp_path: Path) -> None:
    (tmp_path / "definitions.py").write_text(SHOP, encoding="utf-8")
    with open_project(tmp_path) as project:
        first = project.apply()
        assert [step.name for step in first] == ["orders", "returns", "returned", "activity", "risk", "checkout"]
        assert project.plan() == ()
        assert project.apply() == ()
    (tmp_path / "definitions.py").write_text(SHOP.replace("> 10", "> 11"), encoding="utf-8")
    with open_project(tmp_path) as project:
        stale = project.plan()
        assert [(step.kind, step.name, step.version) for step in stale] == [("decision", "checkout", 2)]
        assert any("10" in line and "11" in line for line in stale[0].because)
        project.apply(stale)
        with pytest.raises(HeadraceError, match="has changed since the plan was made"):
            project.apply(stale)
        assert project.plan() == ()


def test_two_different_definitions_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = (
        SHOP
        + '\nother = hr.FeatureView("activity", entity="customer", source=orders, features=[hr.count().over("2d")])\n'
    )
    with pytest.raises(DefinitionError, match="two definitions of view 'activity'") as seen:
        load(tmp_path, twice)
    assert seen.value.code == "HR-0801"


def test_an_unknown_name_has_a_hint(tmp_path: Path) -> None:
    definitions = load(tmp_path, SHOP)
    with pytest.raises(NotFoundError) as seen:
        definitions.decision("chekout")
    assert (seen.value.code, seen.value.hint) == ("HR-0806", "did you mean 'checkout'?")


def test_a_folder_without_definitions_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as seen:
        open_project(tmp_path)
    assert seen.value.code == "HR-0804"


def test_a_file_that_does_not_load_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as seen:
        load(tmp_path, SHOP + "\nwrong = nothing_of_that_name\n")
    assert seen.value.code == "HR-0805"
    assert seen.value.detail == f"at definitions.py:{SHOP.count(chr(10)) + 2}: wrong = nothing_of_that_name"


def test_a_folder_of_definitions_shares_its_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"  # another project on the path, as the working directory is in a notebook
    elsewhere.mkdir()
    (elsewhere / "definitions.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.syspath_prepend(str(elsewhere))
    folder = tmp_path / "definitions"
    folder.mkdir()
    (folder / "orders.py").write_text(SHOP, encoding="utf-8")
    (folder / "more.py").write_text(
        "import headrace as hr\nfrom definitions.orders import orders\n"
        'more = hr.FeatureView("more", entity="customer", source=orders, features=[hr.count().over("2d")])\n',
        encoding="utf-8",
    )
    found = Definitions.of(load_definitions(tmp_path, CLASSES))
    assert set(found.views) == {"activity", "more"}
    assert set(found.topics) == {"orders", "returns"}


DERIVED = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", partitions=2, fields={
    "order": hr.string, "customer": hr.int64, "merchant": hr.int64, "channel": hr.string,
    "refunded": hr.boolean, "at": hr.timestamp})
returns = hr.Topic("returns", key="order", event_time="at", fields={"order": hr.string, "at": hr.timestamp})
by_merchant = hr.derived_topic("by_merchant", of=orders, key="merchant")
merchant = hr.FeatureView("merchant", entity="merchant", source=by_merchant, features=[hr.count().over("1d")])
both = hr.FeatureView("both", entity=("merchant", "channel"), source=by_merchant, features=[hr.count().over("1d")])
"""


def test_a_view_over_a_derived_topic_means_what_that_is_derived_of(tmp_path: Path) -> None:
    before = prints(load(tmp_path, DERIVED))
    for part in ('key="customer"', 'event_time="at", partitions=2'):
        other = part.replace("customer", "channel").replace("partitions=2", 'partitions=2, dedup="3d"')
        after = prints(load(tmp_path, DERIVED.replace(part, other)))
        assert before["view", "merchant"] != after["view", "merchant"]
    needs = {one.key: set(one.needs) for one in load(tmp_path, DERIVED).declared(tz_version="2026a")}
    assert needs["view", "merchant"] == {("topic", "by_merchant"), ("topic", "orders")}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "x = hr.FeatureView('x', entity='customer', source=by_merchant, features=[hr.count().over('1d')])",
            "customer",
        ),
        (
            "x = hr.FeatureView('x', entity='merchant', source=hr.Sources("
            "by_merchant.emit(merchant=by_merchant.merchant), orders.emit(merchant=orders.merchant)), "
            "features=[hr.count().over('1d')])",
            "other sources",
        ),
        ("x = hr.Label('x', of=by_merchant, source=returns, on='order', within='1d')", "label 'x'"),
        ("x = hr.Decision('x', request=by_merchant, policy=[hr.approve()])", "decision 'x'"),
    ],
)
def test_what_cannot_stand_on_a_derived_topic_is_said(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path, DERIVED + more)
    assert caught.value.code == "HR-0369"
    assert said in str(caught.value) or said == "customer" and "'merchant'" in str(caught.value)


def test_a_derived_topic_that_a_view_reads_keeps_its_partitions(tmp_path: Path) -> None:
    found = load(tmp_path, DERIVED)
    found.check_held(found.topics.values())
    more = load(tmp_path, DERIVED.replace('key="merchant")', 'key="merchant", partitions=4)'))
    with pytest.raises(DefinitionError) as caught:
        more.check_held(found.topics.values())
    assert caught.value.code == "HR-0370"
