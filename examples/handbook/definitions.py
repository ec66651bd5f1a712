"""The Fraud Detection Handbook's features, models and a decision, declared.

The transform, the models and the protocol are those of Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible
Machine Learning for Credit Card Fraud Detection" (2022), chapters 3.4 and 3.5. A fraud is known seven days after its
transaction, which is declared once, on the column; every window over it must wait that long.
"""

import headrace as hr

DAYS = ("1d", "7d", "30d")

transactions = hr.Topic(
    "transactions",
    key="customer_id",
    id="transaction_id",
    event_time="tx_datetime",
    clock="simulated",
    fields={
        "transaction_id": hr.int64,
        "tx_datetime": hr.timestamp,
        "customer_id": hr.int64,
        "terminal_id": hr.int64,
        "tx_amount": hr.field(hr.decimal(12, 2), required=True),
        "tx_fraud": hr.field(hr.boolean, available_after="7d"),
    },
)

customer = hr.FeatureView(
    "customer",
    entity="customer_id",
    source=transactions,
    features=[hr.count().over(*DAYS), hr.mean(transactions.tx_amount).over(*DAYS)],
)

terminal = hr.FeatureView(
    "terminal",
    entity="terminal_id",
    source=transactions,
    features=[
        hr.count().over(*DAYS, delay="7d"),
        hr.rate(transactions.tx_fraud).over(*DAYS, delay="7d", empty=0),
    ],
)

inputs = [
    transactions.tx_amount,
    (hr.weekday(transactions.tx_datetime) >= 5).named("weekend"),
    (hr.hour(transactions.tx_datetime) <= 6).named("night"),
    *(
        customer[f"{name}_{days}"].named(f"customer_{name}_{days}")
        for days in DAYS
        for name in ("count", "mean_tx_amount")
    ),
    *(
        terminal[f"{name}_{days}"].named(f"terminal_{name}_{days}")
        for days in DAYS
        for name in ("count", "tx_fraud_rate")
    ),
]


def _model(name, trainer):
    return hr.Model(name, features=inputs, label=transactions.tx_fraud, trainer=trainer)


logistic_regression = _model("logistic_regression", hr.logistic_regression())
tree_depth_2 = _model("decision_tree_depth_2", hr.decision_tree(max_depth=2, standardize=True))
tree_unlimited = _model("decision_tree_unlimited", hr.decision_tree(standardize=True))
forest = _model("random_forest", hr.random_forest(standardize=True))
boosted = _model("xgboost", hr.xgboost(tree_method="exact", base_score=0.5, standardize=True))

payment = hr.Decision(
    "payment",
    request=transactions,
    model=boosted,
    policy=[
        hr.decline_if(hr.score > 0.9, reason=hr.from_model),
        hr.review_if(hr.score > 0.5, reason=hr.from_model),
        hr.review_if(customer.count_1d > 15, reason="MANY_TRANSACTIONS"),
        hr.approve(),
    ],
    reasons={
        terminal.tx_fraud_rate_1d: "TERMINAL_HISTORY",
        terminal.tx_fraud_rate_7d: "TERMINAL_HISTORY",
        terminal.tx_fraud_rate_30d: "TERMINAL_HISTORY",
        transactions.tx_amount: "AMOUNT",
        inputs[1]: "TIME_OF_DAY",
        inputs[2]: "TIME_OF_DAY",
        customer.count_1d: "RECENT_TRANSACTIONS",
        customer.count_7d: "RECENT_TRANSACTIONS",
        customer.count_30d: "RECENT_TRANSACTIONS",
        customer.mean_tx_amount_1d: "USUAL_AMOUNT",
        customer.mean_tx_amount_7d: "USUAL_AMOUNT",
        customer.mean_tx_amount_30d: "USUAL_AMOUNT",
    },
    # How busy a terminal is says nothing to the customer who is declined there.
    not_a_reason=[terminal.count_1d, terminal.count_7d, terminal.count_30d],
    texts={
        "TERMINAL_HISTORY": {
            "en": "There was fraud at this terminal before.",
            "de": "An diesem Terminal gab es schon Betrug.",
        },
        "AMOUNT": {"en": "The amount of the payment.", "de": "Der Betrag der Zahlung."},
        "TIME_OF_DAY": {"en": "The time of the payment.", "de": "Der Zeitpunkt der Zahlung."},
        "RECENT_TRANSACTIONS": {"en": "The number of recent payments.", "de": "Die Zahl der letzten Zahlungen."},
        "USUAL_AMOUNT": {"en": "The usual amount of your payments.", "de": "Der übliche Betrag Ihrer Zahlungen."},
        "MANY_TRANSACTIONS": {"en": "Too many payments in one day.", "de": "Zu viele Zahlungen an einem Tag."},
    },
)
