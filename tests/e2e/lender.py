"""A lender with a trained model, a policy with segments and reasons, and decisions that were made: for tests of what is
asked of decisions afterwards."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import random
from pathlib import Path

import pytest

from headrace.cli.main import main
from tests.e2e.shop import instant, make

DEFINITIONS = """
import headrace as hr

applications = hr.Topic("applications", key="customer", id="id", event_time="at", fields={
    "id": hr.string, "customer": hr.int64, "merchant": hr.int64, "amount": hr.decimal(8, 2), "channel": hr.string,
    "at": hr.timestamp, "bad": hr.field(hr.boolean, available_after="20d")})
activity = hr.FeatureView("activity", entity="customer", source=applications, features=[
    hr.count().over("7d"), hr.mean(applications.amount, current=False).over("7d")])
merchant = hr.FeatureView("merchant", entity="merchant", source=applications, features=[
    hr.rate(applications.bad).over("60d", delay="20d", empty=0)])
fraud = hr.Model("fraud", features=[applications.amount, activity.count_7d, merchant], label=applications.bad,
    trainer=hr.logistic_regression())
guarded = hr.Decision("guarded", request=applications, model=fraud,
    policy=[
        hr.decline_if(activity.count_7d > 5, reason="MANY"),
        hr.for_segment(applications.channel == "web", [
            hr.decline_if(hr.score > 0.12, reason=["ONLINE", hr.from_model])]),
        hr.decline_if(hr.score > 0.3, reason=hr.from_model),
        hr.review_if(activity.mean_amount_7d > 400, reason="HIGH", on_empty="skip"),
        hr.approve()],
    reasons={merchant: "MERCHANT_HISTORY", applications.amount: "AMOUNT"}, not_a_reason=[activity.count_7d],
    texts={
        "MANY": {"en": "Too many applications & orders.", "de": "Zu viele Anträge."},
        "ONLINE": {"en": "Bought online.", "de": "Online gekauft."},
        "MERCHANT_HISTORY": {"en": "Bad <purchases> at this merchant.", "de": "Schlechte Käufe bei diesem Händler."},
        "AMOUNT": {"en": "The amount.", "de": "Der Betrag."},
        "HIGH": {"en": "High amounts lately.", "de": "Zuletzt hohe Beträge."}})
"""
HEADER = "id,customer,merchant,amount,channel,at,seen,bad\n"
ROWS, DECIDED = 600, 24
RISKY = 3  # the merchant where four of ten are bad


def days(count: float) -> str:
    """An instant so many days after the first application, 90 days ago at midnight."""
    midnight = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + dt.timedelta(days=count - 90)).isoformat()


def request(id: str, *, customer: int = 1, merchant: int = RISKY, channel: str | None = "web", amount: str = "20.00"):  # type: ignore[no-untyped-def]  # of a test
    return {"id": id, "customer": customer, "merchant": merchant, "channel": channel, "amount": amount, "at": instant()}


def run(folder: Path, *command: str | Path) -> str:
    """A command that must succeed; its stdout."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main(["--project", str(folder), *map(str, command)])
    assert left.value.code == 0, err.getvalue()
    return out.getvalue()


def make_lender(place: Path) -> Path:
    """History, a model, and DECIDED decisions: of five customers and merchants, by web, shop, or no known channel."""
    folder = make(place / "project", DEFINITIONS)
    draw = random.Random(11)
    rows = []
    for i in range(ROWS):
        merchant, when = draw.randrange(5), days(60 * i / ROWS)
        bad = draw.random() < (0.4 if merchant == RISKY else 0.02)
        channel = draw.choice(["web", "shop"])
        rows.append(f"a{i},{draw.randrange(50)},{merchant},{draw.uniform(5, 500):.2f},{channel},{when},{when},{bad}")
    (place / "history.csv").write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    run(folder, "apply", "--yes")
    run(folder, "import", "applications", place / "history.csv", "--available-at", "column:seen")
    run(folder, "training-set", "build", "fraud", "--out", place / "training", "--end", days(65))
    run(folder, "models", "train", "fraud", "--end", days(65))
    for i in range(DECIDED):
        channel = ("web", "shop", None)[i % 3] if i % 8 else "<script>alert(1)</script>"
        made = request(f"r{i}", customer=i % 3, merchant=i % 5, channel=channel, amount=f"{10 + 37 * i % 480}.00")
        run(folder, "decide", "guarded", json.dumps(made))
    return folder
