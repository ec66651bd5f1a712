"""Topics, views and rows that the tests of models and decisions share: a small lender, and a table to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

import headrace as hr
from headrace.features import define
from headrace.features.define import FeatureView, Label
from headrace.models.define import Model, Trainer

applications = hr.Topic(
    "applications",
    key="customer_id",
    id="application_id",
    event_time="created_at",
    fields={
        "application_id": hr.string,
        "customer_id": hr.int64,
        "merchant_id": hr.int64,
        "amount": hr.decimal(12, 2),
        "channel": hr.string,
        "trusted": hr.boolean,
        "created_at": hr.timestamp,
        "loss": hr.field(hr.float64, available_after="60d"),
        "fraud": hr.field(hr.boolean, available_after="7d"),
    },
)
chargebacks = hr.Topic(
    "chargebacks",
    key="application_id",
    event_time="reported_at",
    fields={"application_id": hr.string, "reported_at": hr.timestamp, "share": hr.float64},
)
charged_back = Label("charged_back", of=applications, source=chargebacks, on="application_id", within="30d", grace="3d")
activity = FeatureView(
    "customer_activity",
    entity="customer_id",
    source=applications,
    features=[
        define.count().over("1d", "7d"),
        define.mean(applications.amount).over("7d"),
        define.sum(applications.amount).over("7d", empty=0),
        define.time_since_last(),
    ],
)
merchant_risk = FeatureView(
    "merchant_risk",
    entity="merchant_id",
    source=applications,
    features=[define.rate(charged_back).over("30d", empty=0)],
)


def fraud_model(trainer: Trainer, **changes: object) -> Model:
    """Every kind of input: fields, a function of one, whole views, an expression over both."""
    parts: dict[str, object] = {
        "features": [
            applications.amount,
            applications.trusted,
            hr.hour(applications.created_at),
            activity,
            merchant_risk,
            (applications.amount / activity.mean_amount_7d).named("amount_vs_mean"),
        ],
        "label": charged_back,
        "trainer": trainer,
        **changes,
    }
    return Model("fraud", **parts)


def numbers_topic(count: int) -> hr.Topic:
    """A topic of so many float fields x0, x1, ... and a late truth."""
    fields = {f"x{i}": hr.float64 for i in range(count)}
    return hr.Topic(
        "rows",
        key="id",
        id="id",
        event_time="at",
        fields={"id": hr.int64, "at": hr.timestamp, **fields, "truth": hr.field(hr.boolean, available_after="1d")},
    )


def numbers_model(trainer: Trainer, count: int) -> Model:
    topic = numbers_topic(count)
    return Model("numbers", features=[topic[f"x{i}"] for i in range(count)], label=topic.truth, trainer=trainer)


def numbers_table(
    rows: int, count: int, *, seed: int, nulls: float = 0.0, scales: Sequence[float] = (1.0,)
) -> pa.Table:
    """Rows whose truth leans on the first inputs, with ties, nulls and columns of very different sizes."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows, count))
    inputs[:, 1 % count] = np.round(inputs[:, 1 % count], 1)
    lean = 1.5 * inputs[:, 0] - (inputs[:, -1] > 0.3) + inputs[:, 1 % count] ** 2 - 1.5
    truth = random.random(rows) < 1 / (1 + np.exp(-lean))
    truth[:2] = False, True
    inputs *= np.resize(np.array(scales), count)
    columns = {f"x{i}": pa.array(inputs[:, i], mask=random.random(rows) < nulls) for i in range(count)}
    return pa.table({**columns, "truth": pa.array(truth)})
