"""The audit suspects what was planted, and nothing where all is honest."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.core.expr import Expr
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import Duration
from headrace.features import define
from headrace.features.audit import Chosen, audit
from headrace.features.audit_inputs import auc, distributions, psi, single_features
from headrace.features.define import FeatureView, Label
from headrace.features.finding import Check, Severity
from headrace.log.port import Physical, Verdict
from headrace.testing.oracles import Event
from tests.unit.features.followed import batch

DAY = Duration.parse("1d").micros
PLANS = hr.Topic(
    "plans",
    key="plan",
    id="plan",
    fields={
        "plan": hr.int64,
        "approved": hr.boolean,
        "note": hr.string,
        "fraud": hr.field(hr.boolean, available_after="7d"),
    },
)
TRUTHS = hr.Topic("plans.fraud", key="plan", fields={"plan": hr.int64, "fraud": hr.boolean})
BADS = hr.Topic("bads", key="plan", fields={"plan": hr.int64})
BAD = Label("bad", of=PLANS, source=BADS, on="plan", within="30d", grace="3d")
VIEW = FeatureView(
    "v",
    entity="approved",
    source=PLANS,
    features=[define.rate(PLANS.fraud).over("9d", delay="7d"), define.rate(BAD).over("9d")],
)
Place = Callable[[int], tuple[int, int, Physical]]


class World:
    """600 plans, one an hour, a tenth of them bad: logged live, honest unless told otherwise."""

    def __init__(self) -> None:
        self.plans: list[dict[str, Physical]] = []
        self.truth_delay = lambda number: 5 * DAY
        self.bad_age = lambda number: 20 * DAY
        self.bad_arrival = lambda number: 60_000_000
        self.bad_verdict = lambda number: Verdict.ACCEPTED
        for number in range(600):
            self.plans.append({"plan": number, "approved": number % 2 == 0, "note": "x", "fraud": None})
        self.bad = [number for number in range(600) if number % 20 < 2]
        self.imported: list[dict[str, Physical]] = []

    def time(self, number: int) -> int:
        return number * 3_600_000_000

    def event(
        self, topic: str, number: int, time: int, available: int, values: dict[str, Physical], **other: object
    ) -> Event:
        return Event(
            partition=Partition(topic, 1, int(other.get("index", 0))),  # type: ignore[call-overload]  # an int
            offset=number,
            event_time=time,
            available_at=available,
            verdict=other.get("verdict", Verdict.ACCEPTED),  # type: ignore[arg-type]  # a Verdict
            id=0,
            values=values,
        )

    def logged(self) -> dict[str, list[tuple[Partition, pa.RecordBatch]]]:
        plans = [self.event("plans", i, self.time(i), self.time(i), values) for i, values in enumerate(self.plans)]
        late = [self.event("plans", 600, 200 * DAY, 200 * DAY, {"plan": 10_000, "approved": True})]
        truths = []
        for i in range(600):
            at = self.time(i) + self.truth_delay(i)
            truths.append(self.event("plans.fraud", i, at, at, {"plan": i, "fraud": i in self.bad}))
        bads = []
        for place, i in enumerate(self.bad):
            at = self.time(i) + self.bad_age(i)
            bads.append(
                self.event("bads", place, at, at + self.bad_arrival(i), {"plan": i}, verdict=self.bad_verdict(i))
            )
        found = {
            "plans": [(Partition("plans", 1, 0), batch(plans + late, PLANS))],
            "plans.fraud": [(Partition("plans.fraud", 1, 0), batch(truths, TRUTHS))],
            "bads": [(Partition("bads", 1, 0), batch(bads, BADS))],
        }
        if self.imported:
            place = Partition("plans", 1, IMPORTS_FROM)
            events = [self.event("plans", i, i, i, v, index=IMPORTS_FROM) for i, v in enumerate(self.imported)]
            found["plans"].append((place, batch(events, PLANS)))
        return found

    def findings(self) -> list[tuple[Check, str]]:
        return [(f.check, f.subject) for f in audit([PLANS], [BAD], [VIEW], self.logged())]


def test_an_honest_log_gives_no_finding() -> None:
    assert World().findings() == []


def test_nothing_logged_gives_no_finding() -> None:
    assert audit([PLANS], [BAD], [VIEW], {}) == []


def test_a_late_column_filled_at_append() -> None:
    world = World()
    world.plans[5]["fraud"] = True
    found = audit([PLANS], [BAD], [VIEW], world.logged())
    assert [(f.check, f.subject, f.severity) for f in found] == [
        (Check.FILLED_AT_APPEND, "late column plans.fraud", Severity.STRONG)
    ]
    assert found[0].evidence == {"filled": 1, "rows": 601, "features": "v.fraud_rate_9d"}


def test_truths_that_come_later_than_declared() -> None:
    world = World()
    world.truth_delay = lambda number: 9 * DAY if number % 10 == 0 else 5 * DAY
    found = audit([PLANS], [BAD], [VIEW], world.logged())
    assert [(f.check, f.subject) for f in found] == [(Check.LATER_THAN_DECLARED, "late column plans.fraud")]
    assert found[0].evidence == {
        "later": 60,
        "events": 600,
        "declared": "7d",
        "features": "v.fraud_rate_9d",
        "p50": "5d",
        "p90": "5d",
        "p99": "9d",
        "max": "9d",
    }
    assert found[0].hint == "available_after of 9d would hold for 99 % of them"


def test_one_in_a_hundred_is_no_suspicion() -> None:
    world = World()
    world.truth_delay = lambda number: 9 * DAY if number % 100 == 0 else 5 * DAY
    assert world.findings() == []


def test_labels_that_arrive_after_they_matured() -> None:
    world = World()
    world.bad_arrival = lambda number: 14 * DAY  # 20 + 14 > 30 + 3
    found = audit([PLANS], [BAD], [VIEW], world.logged())
    assert [(f.check, f.subject, f.severity) for f in found] == [
        (Check.LATER_THAN_DECLARED, "label 'bad'", Severity.STRONG)
    ]
    assert found[0].evidence["declared"] == "33d"
    world.bad_arrival = lambda number: 13 * DAY
    assert world.findings() == []


def test_label_events_outside_their_window() -> None:
    world = World()
    world.bad_age = lambda number: -DAY if number % 40 == 0 else 31 * DAY if number % 40 == 1 else DAY
    found = [f for f in audit([PLANS], [BAD], [VIEW], world.logged()) if f.check is Check.OUTSIDE_WINDOW]
    assert found[0].evidence == {
        "outside": 30, "events": 60, "within": "30d", "p50": "1d", "p90": "31d", "p99": "31d", "max": "31d"
    }  # fmt: skip


def test_label_events_that_serving_never_sees() -> None:
    world = World()
    world.bad_verdict = lambda number: Verdict.LATE if number % 20 == 0 else Verdict.ACCEPTED
    assert (Check.UNSEEN_BY_SERVING, "label 'bad'") in world.findings()


def test_a_column_that_is_filled_in_afterwards() -> None:
    world = World()
    for plan in world.plans:
        plan["note"] = None
    world.imported = [{"plan": 20_000 + i, "approved": True, "note": "x" if i % 3 else None} for i in range(300)]
    assert (Check.UNDECLARED_LATE, "field plans.note") in world.findings()
    world.plans = [{**plan, "note": "x" if i % 10 == 0 else None} for i, plan in enumerate(world.plans)]
    assert (Check.UNDECLARED_LATE, "field plans.note") not in world.findings()


def test_a_group_without_any_chance_of_a_label() -> None:
    world = World()
    world.bad = [number for number in range(600) if number % 20 == 0]  # only approved ones
    found = [f for f in audit([PLANS], [BAD], [VIEW], world.logged()) if f.check is Check.NO_CHANCE]
    assert [(f.subject, f.evidence["origins"]) for f in found] == [("label 'bad'", 300)]
    assert "approved = False" in found[0].says
    assert found[0].evidence["chance"] == pytest.approx(0.95**300)


def test_a_time_before_labels_were_collected() -> None:
    world = World()
    world.time = lambda number: number * DAY // 8  # type: ignore[method-assign]  # 75 days
    world.bad = [number for number in range(300, 600) if number % 20 < 4]
    found = [f for f in audit([PLANS], [BAD], [VIEW], world.logged()) if f.check is Check.NO_CHANCE]
    assert [f.says.split(" = ")[1] for f in found] == [f"'number 0'; {2 * 30 / 6:.3g} % have one"]


def test_training_rows_that_were_chosen_by_outcome() -> None:
    world = World()
    some = {number for number in range(600) if number % 4 == 0}
    chosen = sorted(some | set(world.bad))

    def found(ids: list[int]) -> list[Check]:
        trained = {"bad": Chosen(ids=ids, t_label=100 * DAY)}
        return [f.check for f in audit([PLANS], [BAD], [VIEW], world.logged(), trained=trained)]

    assert found(chosen) == [Check.SELECTED]
    assert found([number for number in range(600) if number % 7 < 3]) == []


def test_training_rows_of_a_time_and_of_a_condition_are_compared_with_their_like() -> None:
    world = World()
    world.bad = [number for number in range(600) if number % 2 and (number < 300 or number % 20 < 8)]

    def found(ids: list[int], where: Expr | None = None) -> list[Check]:
        trained = {"bad": Chosen(ids=ids, t_label=100 * DAY, where=where)}
        said = audit([PLANS], [BAD], [VIEW], world.logged(), trained=trained)
        return [one.check for one in said if one.check is Check.SELECTED]

    odd, even = [n for n in range(600) if n % 2], [n for n in range(600) if n % 2 == 0]
    assert found(odd) == found(even) == [Check.SELECTED]  # only the odd are ever bad
    assert found(odd, ~PLANS.approved) == []  # chosen by what is known at the decision
    assert found(list(range(300))) == []  # all of its time, in which more were bad than later
    assert found([n for n in odd if n < 300 and n in world.bad] + [0, 299], None) != []


# --- inputs ---


def training(count: int = 500) -> pa.Table:
    rng = random.Random(3)
    label = [rng.random() < 0.2 for _ in range(count)]
    return pa.table(
        {
            "honest": [rng.gauss(1.0 if one else 0.0, 2.0) for one in label],
            "noise": [rng.randrange(100) for _ in label],
            "word": [rng.choice(["a", "b", None]) for _ in label],
            "label": label,
        }
    )


def test_honest_inputs_give_no_finding() -> None:
    assert single_features(training(), "label") == []
    assert distributions(training(), training()) == []


def test_an_input_that_tells_the_label() -> None:
    table = training()
    leak = [10.0 if one else float(i % 7) for i, one in enumerate(table.column("label").to_pylist())]
    found = single_features(table.append_column("leak", pa.array(leak)), "label")
    assert [(f.subject, f.severity, f.evidence["auc"]) for f in found] == [("input 'leak'", Severity.STRONG, 1.0)]


def test_an_input_that_is_there_only_with_the_outcome() -> None:
    table = training()
    leak = ["x" if one else None for one in table.column("label").to_pylist()]
    found = single_features(table.append_column("leak", pa.array(leak)), "label")
    assert [(f.subject, f.evidence["by"]) for f in found] == [("input 'leak'", "whether it is there")]


def test_an_input_far_above_all_others() -> None:
    table = training()
    leak = [1 if one != (i % 8 == 0) else 0 for i, one in enumerate(table.column("label").to_pylist())]
    found = single_features(table.append_column("leak", pa.array(leak)), "label")
    assert [(f.subject, f.severity) for f in found] == [("input 'leak'", Severity.SUSPICION)]
    assert 0.8 < found[0].evidence["auc"] < 0.95


def test_inputs_that_change_when_they_are_live() -> None:
    table = training()
    moved = table.set_column(0, "honest", pa.array([x + 3 for x in table.column("honest").to_pylist()]))
    gone = moved.set_column(2, "word", pa.array([None] * 500, pa.string()))
    found = distributions(table, gone)
    assert [(f.subject, f.severity) for f in found] == [
        ("input 'honest'", Severity.SUSPICION),
        ("input 'word'", Severity.SUSPICION),
    ]
    assert found[1].evidence["null_live"] == 1.0
    assert distributions(table, gone.slice(0, 50)) == []  # too few to say


def test_inputs_are_audited_with_the_log() -> None:
    table = training()
    leak = [10.0 if one else 0.0 for one in table.column("label").to_pylist()]
    found = audit([], [], [], {}, training=table.append_column("leak", pa.array(leak)), outcome="label", live=table)
    assert [f.subject for f in found] == ["input 'leak'"]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_auc_is_the_share_of_pairs_won(rows: list[tuple[int, bool]]) -> None:
    values = np.array([value for value, _ in rows], np.float64)
    positive = np.array([one for _, one in rows], np.bool_)
    pairs = [(p, n) for p in values[positive] for n in values[~positive]]
    won = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs)
    assert auc(values, positive) == (won / len(pairs) if pairs else 0.5)


def test_psi_is_its_formula() -> None:
    expected, seen = pa.chunked_array([["a", "a", "b", None]]), pa.chunked_array([["a", "c"]])
    p, q = np.array([1.5, 2.5, 1.5, 0.5]) / 6, np.array([0.5, 1.5, 0.5, 1.5]) / 4
    assert psi(expected, seen) == pytest.approx(sum((p - q) * np.log(p / q)))
    numbers = pa.chunked_array([list(range(1000))])
    assert psi(numbers, numbers) == 0.0
    assert math.isfinite(psi(numbers, pa.chunked_array([[None] * 10 + [5_000]])))
