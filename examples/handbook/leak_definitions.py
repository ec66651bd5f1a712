"""The same terminal features twice: over a column that claims to be known at once, and a week late, as it is known."""

import headrace as hr

DAYS = ("1d", "7d", "30d")
FIELDS = {
    "transaction_id": hr.int64,
    "tx_datetime": hr.timestamp,
    "customer_id": hr.int64,
    "terminal_id": hr.int64,
    "tx_amount": hr.field(hr.decimal(12, 2), required=True),
}


def _topic(name, fraud):
    return hr.Topic(
        name,
        key="customer_id",
        id="transaction_id",
        event_time="tx_datetime",
        clock="simulated",
        fields={**FIELDS, "tx_fraud": fraud},
    )


def _views(topic, delay):
    """A transaction's own fraud is never among what is known of it, so it is not counted."""
    customer = hr.FeatureView(
        f"{topic.name}_customer",
        entity="customer_id",
        source=topic,
        features=[hr.count().over(*DAYS), hr.mean(topic["tx_amount"]).over(*DAYS)],
    )
    terminal = hr.FeatureView(
        f"{topic.name}_terminal",
        entity="terminal_id",
        source=topic,
        features=[
            hr.count(current=False).over(*DAYS, delay=delay),
            hr.rate(topic["tx_fraud"], current=False).over(*DAYS, delay=delay, empty=0),
        ],
    )
    return customer, terminal


def _model(topic, label, customer, terminal):
    inputs = [
        topic["tx_amount"],
        (hr.weekday(topic["tx_datetime"]) >= 5).named("weekend"),
        (hr.hour(topic["tx_datetime"]) <= 6).named("night"),
    ]
    for view, name in ((customer, "mean_tx_amount"), (terminal, "tx_fraud_rate")):
        inputs += [view[f"{n}_{d}"].named(f"{view.entity[0]}_{n}_{d}") for d in DAYS for n in ("count", name)]
    return hr.Model(topic.name, features=inputs, label=label, trainer=hr.random_forest(standardize=True))


claimed_at_once = hr.field(hr.boolean)
known_after_a_week = hr.field(hr.boolean, available_after="7d")

claimed = _topic("claimed", claimed_at_once)
claimed_customer, claimed_terminal = _views(claimed, delay="0s")
outcomes = hr.Topic(
    "claimed_outcomes",
    key="transaction_id",
    event_time="tx_datetime",
    clock="simulated",
    fields={"transaction_id": hr.int64, "tx_datetime": hr.timestamp, "tx_fraud": hr.boolean},
)
outcome = hr.Label(
    "claimed_outcome", of=claimed, source=outcomes, on="transaction_id", within="1s", value=outcomes.tx_fraud
)
claimed_model = _model(claimed, outcome, claimed_customer, claimed_terminal)

honest = _topic("honest", known_after_a_week)
honest_customer, honest_terminal = _views(honest, delay="7d")
honest_model = _model(honest, honest.tx_fraud, honest_customer, honest_terminal)
