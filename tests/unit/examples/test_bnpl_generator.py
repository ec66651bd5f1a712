"""The lender's generator: one seed, one world, on every machine; what it says of itself holds in its tables."""

from __future__ import annotations

import hashlib
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.unit.examples.bnpl import load, whole

SCALE = 0.02
DAY = 86_400_000_000
# Of the values of scale 0.02, seed 0. A change of the generator changes it; a machine must not.
KNOWN = "a34ace725f4ef9fa1a88173c27c7d380aebfb4cbcb747494bbec4c0171ba3a19"
TIMES = {
    "customers": "changed_at",
    "merchants": "onboarded_at",
    "devices": "first_seen_at",
    "applications": "created_at",
    "plans": "opened_at",
    "repayments": "tried_at",
    "refunds": "refunded_at",
    "chargebacks": "reported_at",
}


@pytest.fixture(scope="module")
def made() -> ModuleType:
    return load("generate")


def digest(world: object) -> str:
    """Of all values, by topic and in order; instants as numbers, for their zone has more than one name in Python."""
    tables = {**world.tables, "truth": world.truth}  # type: ignore[attr-defined]  # a World of the example's
    sha = hashlib.sha256()
    for name, table in tables.items():
        for column in table.column_names:
            values = table.column(column)
            values = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
            sha.update(repr((name, column, str(values.type), values.to_pylist())).encode())
    return sha.hexdigest()


def test_the_same_seed_gives_the_same_values_on_every_machine(made: ModuleType) -> None:
    first = made.generate(made.Options(scale=SCALE))
    assert digest(first) == digest(made.generate(made.Options(scale=SCALE)))
    assert digest(first) == KNOWN
    assert digest(first) != digest(made.generate(made.Options(scale=SCALE, seed=1)))


def test_the_late_incident_moves_arrivals_and_no_event_times(made: ModuleType) -> None:
    plain = made.generate(made.Options(scale=SCALE))
    late = made.generate(made.Options(scale=SCALE, late_incident=True))
    assert late.truth.equals(plain.truth)
    moved = 0
    for name, table in plain.tables.items():
        other = late.tables[name]
        assert other.drop_columns(["arrived_at"]).equals(table.drop_columns(["arrived_at"])), name
        gap = whole(other, "arrived_at") - whole(table, "arrived_at")
        assert (gap >= 0).all()
        assert (gap <= 2 * DAY).all()
        moved += int(np.count_nonzero(gap))
    assert 20 <= moved <= 300


def test_no_event_arrives_before_it_happens_and_ids_follow_time(made: ModuleType) -> None:
    world = made.generate(made.Options(scale=SCALE, late_incident=True, drift=True))
    for name, table in world.tables.items():
        at = whole(table, TIMES[name])
        assert (whole(table, "arrived_at") >= at).all(), name
        assert (np.diff(at) >= 0).all(), name
        if name != "merchants":  # the largest merchant is number 1, whenever it came
            ids = table.column(0).to_numpy()
            assert (ids == np.arange(1, len(ids) + 1)).all(), name


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_happens_is_as_frequent_as_it_says(made: ModuleType, seed: int) -> None:
    world = made.generate(made.Options(scale=0.1, seed=seed))
    truth, applications = world.truth, world.tables["applications"]
    fraud = truth.column("fraud").is_valid().to_numpy()
    kinds = {one["values"]: one["counts"] for one in pc.value_counts(truth.column("fraud").drop_null()).to_pylist()}
    assert 0.012 <= fraud.mean() <= 0.025
    assert set(kinds) == {"account_takeover", "merchant_compromise", "application_stacking"}
    assert min(kinds.values()) >= 0.1 * fraud.sum()
    honest_defaults = truth.column("defaults").to_numpy()[~fraud]
    assert 0.025 <= honest_defaults.mean() <= 0.06
    delay = whole(truth.filter(truth.column("charged_back_at").is_valid()), "charged_back_at")
    made_at = whole(truth.filter(truth.column("charged_back_at").is_valid()), "created_at")
    assert ((delay - made_at >= DAY) & (delay - made_at <= 25 * DAY)).all()
    assert 0.85 <= truth.column("charged_back_at").is_valid().to_numpy()[fraud].mean() <= 0.98
    cents = whole(applications, "amount")
    assert 5_000 <= np.median(cents) <= 12_000
    assert cents.mean() >= 1.25 * np.median(cents)  # few large ones
    sales = np.sort(np.bincount(applications.column("merchant_id").to_numpy()))[::-1]
    assert sales[:20].sum() >= 0.4 * sales.sum()
    hour = whole(applications, "created_at") // 3_600_000_000 % 24
    assert np.count_nonzero((hour >= 18) & (hour < 22)) >= 10 * np.count_nonzero(hour < 4)


def test_every_plan_is_paid_to_the_cent_or_its_truth_says_why(made: ModuleType) -> None:
    """Plans whose last instalment and its retries lie before the end: paid and refunded are what was lent, but for
    defaults and for frauds that were charged back."""
    world = made.generate(made.Options(scale=0.05))
    repayments, refunds = world.tables["repayments"], world.tables["refunds"]
    cents = whole(world.tables["applications"], "amount")
    count = len(cents)
    back = np.zeros(count, np.int64)
    np.add.at(back, repayments.column("application_id").to_numpy() - 1, whole(repayments, "paid"))
    np.add.at(back, refunds.column("application_id").to_numpy() - 1, whole(refunds, "amount"))
    ended = whole(world.truth, "created_at") < load("market").END - 50 * DAY
    fraud = world.truth.column("fraud").is_valid().to_numpy()
    charged_back = world.truth.column("charged_back_at").is_valid().to_numpy()
    defaults = world.truth.column("defaults").to_numpy()
    paid = ended & ~defaults & ~(fraud & charged_back)
    assert paid.sum() > 1_000
    assert (back[paid] == cents[paid]).all()
    assert (back[ended & defaults] < cents[ended & defaults]).all()


def test_the_exposure_by_schedule_is_that_of_a_naive_sum(made: ModuleType) -> None:
    market, lending = load("market"), load("lending")
    draws = load("draws").Draws(7, 0)
    count = 300
    at = np.sort(market.BEGIN + draws.below(count, 90 * DAY))
    zeros = np.zeros(count, np.int64)
    amount = 1_000 + draws.below(count, 9_999)
    customer = draws.below(count, 12)
    applications = market.Applications(
        at=at,
        customer=customer,
        merchant=zeros,
        device=zeros,
        amount=amount,
        channel=zeros,
        items=zeros,
        new_address=zeros > 0,
        fraud=zeros,
    )
    found = lending.scheduled_exposure(applications)
    for i in range(count):
        owed = 0
        for j in np.flatnonzero((customer == customer[i]) & (at < at[i])).tolist():
            paid = 1 + min(3, int((at[i] - at[j]) // (14 * DAY)))
            owed += int(amount[j] // 4) * (4 - paid)
        assert found[i] == owed


def test_money_keeps_its_sign_and_its_cents(made: ModuleType) -> None:
    cents = np.array([0, 1, -1, 123_456, -99_999, 2**62], np.int64)
    assert [int(value.scaleb(2)) for value in made._money(cents[:5]).to_pylist()] == cents[:5].tolist()
    assert made._money(cents).type == pa.decimal128(12, 2)
