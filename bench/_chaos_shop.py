"""What the project under chaos declares: requests, a topic of events, the same events by another key, views, a
decision. Serves as the project's definitions.py; producers and consumers take their topics from it. Pure.
"""

from __future__ import annotations

import headrace as hr

PARTITIONS = 3  # one an owner: brokers answer requests of each partition apart, and have half of a small machine

orders = hr.Topic(
    "orders",
    key="customer",
    id="order",
    event_time="at",
    partitions=PARTITIONS,
    fields={"order": hr.string, "customer": hr.int64, "amount": hr.decimal(8, 2), "at": hr.timestamp},
)
visits = hr.Topic(
    "visits",
    key="customer",
    id="visit",
    event_time="at",
    partitions=PARTITIONS,
    fields={
        "visit": hr.string,
        "customer": hr.int64,
        "number": hr.int64,  # rises with each event of a customer
        "spent": hr.decimal(6, 2),
        "shop": hr.string,  # absent from some: they are not carried over
        "at": hr.timestamp,
    },
)
visits_by_shop = hr.derived_topic("visits_by_shop", of=visits, key="shop", partitions=2)
# The checker computes these four values itself, from the topics alone.
activity = hr.FeatureView(
    "activity",
    entity="customer",
    source=orders,
    features=[hr.count().over("30d"), hr.sum(orders.amount).over("30d")],
)
attention = hr.FeatureView(
    "attention",
    entity="customer",
    source=visits,
    features=[hr.count().over("30d"), hr.sum(visits.spent).over("30d")],
)
# Outcomes turn on all that was counted: an amount against the running means.
checkout = hr.Decision(
    "checkout",
    request=orders,
    policy=[
        hr.decline_if(
            orders.amount * activity.count_30d > activity.sum_amount_30d * 1.7, reason="FAR_ABOVE_OWN", on_empty="skip"
        ),
        hr.review_if(
            orders.amount * attention.count_30d > attention.sum_spent_30d, reason="ABOVE_VISITS", on_empty="skip"
        ),
        hr.approve(),
    ],
)
