"""A decision and its challenger in a whole project: trained, decided, replayed, compared with what matured."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headrace.core.errors import DefinitionError, NotFoundError
from headrace.decisions.define import Outcome
from headrace.models.evaluate import auc_roc
from headrace.runtime.compared import compare_decisions
from headrace.runtime.explained import explain_decision
from headrace.runtime.project import Project, open_project
from headrace.runtime.training import build_training_set, train_model
from headrace.testing.clocks import ManualClock
from tests.e2e.shop import Commands
from tests.needs import requires

requires("sklearn")

DEFINITIONS = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", partitions=2, fields={
    "order": hr.int64, "customer": hr.int64, "amount": hr.decimal(8, 2), "shop": hr.string, "at": hr.timestamp})
returns = hr.Topic("returns", key="order", event_time="at", fields={"order": hr.int64, "at": hr.timestamp})
returned = hr.Label("returned", of=orders, source=returns, on="order", within="1h", grace="1h")
usual = hr.FeatureView("usual", entity="customer", source=orders, features=[hr.count().over("1d")])
shops = hr.FeatureView("shops", entity="shop", source=orders, features=[hr.count().over("1d")])
risk = hr.Model("risk", label=returned, trainer=hr.logistic_regression(), features=[orders.amount, usual.count_1d])
pace = hr.Model("pace", label=returned, trainer=hr.logistic_regression(), features=[orders.amount, shops.count_1d])
REASONS = {orders.amount: "AMOUNT", usual.count_1d: "OFTEN"}
checkout_next = hr.Decision("checkout_next", request=orders, models=[risk, pace], policy=[
    hr.decline_if(usual.count_1d > 18, reason="OFTEN"),
    hr.decline_if(pace.score + risk.score > 0.9, reason="RISKY"), hr.approve()])
checkout = hr.Decision("checkout", request=orders, model=risk, reasons=REASONS, policy=[
    hr.decline_if(hr.score > 0.5, reason=hr.from_model), hr.approve()],
    challengers=[hr.Challenger(checkout_next, share=0.4)])
"""
COUNT = 80


def order(project: Project, number: int) -> dict[str, object]:
    at = dt.datetime.fromtimestamp(project.now() / 1e6, dt.UTC).isoformat()
    shop = "corner" if number % 3 else "mall"
    return {"order": number, "customer": number % 7, "amount": f"{number * 37 % 90 + 1}.00", "shop": shop, "at": at}


def returns(project: Project, number: int) -> dict[str, object]:
    return {"order": number, "at": order(project, number)["at"]}


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, clock: ManualClock) -> Iterator[Project]:
    """Twice as many orders as are decided, the first half to learn from; those of a high amount come back."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    with open_project(folder, clock=clock) as project:
        project.apply()
        for number in range(2 * COUNT):
            clock.advance("20s")
            if number == COUNT:
                clock.advance("3h")
                for name in ("risk", "pace"):
                    train_model(project, name, build_training_set(project, name))
            if number < COUNT:
                project.produce("orders", [order(project, number)])
            else:
                project.decide("checkout", order(project, number))
            if number * 37 % 90 > 50:
                project.produce("returns", [returns(project, number)])
        yield project


def test_every_answer_of_both_replays(shop: Project) -> None:
    report = shop.replay_decisions("checkout")
    assert (report.compared, report.mismatched, report.unknown) == (COUNT, 0, 0)
    arms = {record.ruling.arm for record in shop.records("checkout")}
    assert arms == {None, "checkout_next"}
    by_next = next(record for record in shop.records("checkout") if record.ruling.arm == "checkout_next")
    assert [name for name, _ in by_next.ruling.answer.scores] == ["risk", "pace"]


def test_answers_are_counted_beside_each_other(shop: Project) -> None:
    (found,) = compare_decisions(shop, "checkout", by=["shop"]).challengers
    records = list(shop.records("checkout"))
    assert (found.name, found.share, found.compared) == ("checkout_next", 0.4, COUNT)
    assert found.answered == sum(record.ruling.arm == "checkout_next" for record in records) > 0
    pairs = [({**dict(r.ruling.beside), r.ruling.arm or "checkout": r.ruling.answer}) for r in records]
    changed = sum(pair["checkout"].outcome is not pair["checkout_next"].outcome for pair in pairs)
    assert found.changed == changed == sum(m.count for m in found.outcomes if m.was != m.now)
    assert changed, "two that never differ would prove nothing"
    assert {s.value: s.compared for s in found.segments} == {
        "corner": sum(n % 3 > 0 for n in range(COUNT, 2 * COUNT)),
        "mall": sum(n % 3 == 0 for n in range(COUNT, 2 * COUNT)),
    }


def test_only_what_has_matured_counts_and_is_held_against_each(shop: Project, clock: ManualClock) -> None:
    before = compare_decisions(shop, "checkout").challengers[0].matured
    assert [one.requests for one in before] == [0] and before[0].own.auc_roc is None
    at = clock.now() + 3 * 3_600_000_000
    (matured,) = compare_decisions(shop, "checkout", t_label=at).challengers[0].matured
    came_back = {n for n in range(COUNT, 2 * COUNT) if n * 37 % 90 > 50}
    assert (matured.label, matured.requests, matured.true) == ("returned", COUNT, len(came_back))
    records = {int(record.request_id): record for record in shop.records("checkout")}
    for side, name in ((matured.own, "checkout"), (matured.challenger, "checkout_next")):
        answers = {
            n: {**dict(r.ruling.beside), r.ruling.arm or "checkout": r.ruling.answer}[name] for n, r in records.items()
        }
        approved = {n for n, answer in answers.items() if answer.outcome is Outcome.APPROVE}
        assert (side.approved, side.true_approved) == (len(approved), len(approved & came_back))
        order = sorted(answers)
        truths = np.array([n in came_back for n in order])
        assert side.auc_roc == auc_roc(truths, np.array([answers[n].score for n in order]))


def test_a_time_span_and_the_command(shop: Project, clock: ManualClock, capsys: pytest.CaptureFixture[str]) -> None:
    times = sorted(record.t for record in shop.records("checkout"))
    half = compare_decisions(shop, "checkout", begin=times[30], end=times[50])
    assert half.decisions == 20 and half.challengers[0].compared == 20
    run = Commands(shop.folder, capsys)
    text = run.done("decisions", "compare", "checkout", "--by", "shop")
    assert "Challenger checkout_next: answers for 40.0% of the keys" in text and "Segments" in text
    said = json.loads(run.done("decisions", "compare", "checkout", "--output", "json"))
    assert said["challengers"][0]["compared"] == COUNT


def test_the_list_says_all_scores_and_who_answered(shop: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run = Commands(shop.folder, capsys)
    said = json.loads(run.done("decisions", "list", "checkout", "--limit", str(COUNT), "--output", "json"))
    by_next = [one for one in said if one["arm"] == "checkout_next"]
    assert by_next and all(set(one["scores"]) == {"risk", "pace"} for one in by_next)
    assert all(one["scores"] == {} for one in said if one["arm"] is None)
    text = run.done("decisions", "list", "checkout", "--limit", str(COUNT))
    assert "arm" in text.splitlines()[0] and "pace 0." in text


def test_what_has_no_challengers_has_no_comparison(shop: Project) -> None:
    with pytest.raises(DefinitionError) as caught:
        compare_decisions(shop, "checkout_next")
    assert caught.value.code == "HR-0721"
    with pytest.raises(NotFoundError):
        compare_decisions(shop, "chekout")
    with pytest.raises(DefinitionError) as caught:
        compare_decisions(shop, "checkout", by=["colour"])
    assert caught.value.code == "HR-0106"


def test_a_challenger_is_not_served_by_itself(shop: Project) -> None:
    assert shop.definitions.served == ("checkout",)


def test_a_decision_of_a_challenger_is_explained(shop: Project) -> None:
    record = next(record for record in shop.records("checkout") if record.ruling.arm == "checkout_next")
    said = explain_decision(shop, record.decision_id)
    assert said.arm == "checkout_next" and [model.name for model in said.models] == ["risk", "pace"]
    assert all(model.base is not None and model.contributions for model in said.models)
    assert said.replay == "it was computed again, to the same bits"


def test_a_decision_that_is_challenged_anew_is_another_version(tmp_path: Path, clock: ManualClock) -> None:
    folder = tmp_path
    texts = [DEFINITIONS, DEFINITIONS.replace("> 0.9", "> 0.8"), DEFINITIONS.replace("share=0.4", "share=0.5")]
    fingerprints = []
    for text in texts:
        (folder / "definitions.py").write_text(text, encoding="utf-8")
        with open_project(folder, clock=clock) as project:
            steps = project.apply()
            assert ("decision", "checkout") in {(step.kind, step.name) for step in steps}
            fingerprints.append(project.fingerprints("decision")["checkout"])
    assert len(set(fingerprints)) == 3
