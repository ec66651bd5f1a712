"""A buy-now-pay-later lender, declared: what happens, what is known of it when, two models, what the checkout decides
by both of them, and a stricter policy beside it.

Two labels say when an outcome is certain. A chargeback comes within thirty days and is heard of up to three days later;
a plan has defaulted if its last payment within sixty days failed. No view, model or rule can read either of them
earlier.
"""

import headrace as hr
from headrace.decisions.define import Rule

MONEY = hr.field(hr.decimal(12, 2), required=True, minimum=0, maximum=100_000)

customers = hr.Topic(
    "customers",
    key="customer_id",
    id="change_id",
    event_time="changed_at",
    clock="simulated",
    fields={
        "change_id": hr.int64,
        "customer_id": hr.int64,
        "changed_at": hr.timestamp,
        "signed_up_at": hr.field(hr.timestamp, required=True),
        "region": hr.string,
        "income_band": hr.field(hr.int64, minimum=1, maximum=5),
        "thin_file": hr.boolean,
        "credit_limit": hr.field(hr.decimal(12, 2), required=True, minimum=0, maximum=100_000),
    },
)

merchants = hr.Topic(
    "merchants",
    key="merchant_id",
    id="merchant_id",
    event_time="onboarded_at",
    clock="simulated",
    fields={
        "merchant_id": hr.int64,
        "onboarded_at": hr.timestamp,
        "category": hr.field(hr.string, required=True),
        "region": hr.string,
        "verified": hr.field(hr.boolean, required=True),
    },
)

devices = hr.Topic(
    "devices",
    key="device_id",
    id="device_id",
    event_time="first_seen_at",
    clock="simulated",
    fields={
        "device_id": hr.int64,
        "first_seen_at": hr.timestamp,
        "system": hr.string,
        "emulator": hr.field(hr.boolean, required=True),
    },
)

applications = hr.Topic(
    "applications",
    key="customer_id",
    id="application_id",
    event_time="created_at",
    clock="simulated",
    description="The request: a customer at a merchant's checkout asks to pay in four instalments.",
    fields={
        "application_id": hr.int64,
        "created_at": hr.timestamp,
        "customer_id": hr.int64,
        "merchant_id": hr.field(hr.int64, required=True),
        "device_id": hr.field(hr.int64, required=True),
        "amount": MONEY,
        "items": hr.field(hr.int64, required=True, minimum=1, maximum=10_000),
        "channel": hr.field(hr.string, required=True),
        "new_address": hr.field(hr.boolean, required=True),
    },
)

plans = hr.Topic(
    "plans",
    key="customer_id",
    id="plan_id",
    event_time="opened_at",
    clock="simulated",
    fields={
        "plan_id": hr.int64,
        "opened_at": hr.timestamp,
        "application_id": hr.int64,
        "customer_id": hr.int64,
        "merchant_id": hr.int64,
        "amount": MONEY,
        "instalments": hr.int64,
    },
)

repayments = hr.Topic(
    "repayments",
    key="customer_id",
    id="repayment_id",
    event_time="tried_at",
    clock="simulated",
    description="One event a try to collect an instalment; paid is 0 where it failed.",
    fields={
        "repayment_id": hr.int64,
        "tried_at": hr.timestamp,
        "application_id": hr.int64,
        "customer_id": hr.int64,
        "merchant_id": hr.int64,
        "instalment": hr.field(hr.int64, minimum=1, maximum=24),
        "attempt": hr.field(hr.int64, minimum=1, maximum=10),
        "amount": MONEY,
        "paid": MONEY,
        "failed": hr.field(hr.boolean, required=True),
    },
)

refunds = hr.Topic(
    "refunds",
    key="customer_id",
    id="refund_id",
    event_time="refunded_at",
    clock="simulated",
    fields={
        "refund_id": hr.int64,
        "refunded_at": hr.timestamp,
        "application_id": hr.int64,
        "customer_id": hr.int64,
        "merchant_id": hr.int64,
        "amount": MONEY,
    },
)

chargebacks = hr.Topic(
    "chargebacks",
    key="application_id",
    id="chargeback_id",
    event_time="reported_at",
    clock="simulated",
    fields={
        "chargeback_id": hr.int64,
        "reported_at": hr.timestamp,
        "application_id": hr.int64,
        "customer_id": hr.int64,
        "merchant_id": hr.int64,
        "amount": MONEY,
    },
)

# --- what becomes of an application ---

charged_back = hr.Label(
    "charged_back", of=applications, source=chargebacks, on="application_id", within="30d", grace="3d"
)
defaulted = hr.Label(
    "defaulted",
    of=applications,
    source=repayments,
    on="application_id",
    within="60d",
    grace="3d",
    value=repayments.failed,  # of the last try within sixty days: who pays on a retry has not defaulted
)

# --- what is known when one is made ---

customer = hr.FeatureView(
    "customer",
    entity="customer_id",
    source=applications,
    features=[
        hr.count().over("1h", "1d", "7d", "30d"),
        hr.mean(applications.amount).over("30d", "90d", empty=0),  # never empty: the request is among them
        hr.max(applications.amount, current=False).lifetime().named("max_amount_before"),
        hr.sum(applications.amount).over("1d", empty=0),
        hr.distinct(applications.device_id).over("30d", empty=0),
        hr.distinct(applications.merchant_id).over("1d", empty=0),
        hr.count(where=applications.new_address).over("7d").named("new_address_7d"),
        hr.time_since_last(),
        hr.last(applications.device_id).named("last_device"),
        hr.first(applications.merchant_id, current=False).named("first_merchant"),
    ],
)

profile = hr.FeatureView(
    "profile",
    entity="customer_id",
    source=customers,
    description="The customer's attributes, as of the newest change.",
    features=[
        hr.lookup(customers.credit_limit).named("credit_limit"),
        hr.lookup(customers.income_band).named("income_band"),
        hr.lookup(customers.thin_file).named("thin_file"),
        hr.time_since_first().named("known_for"),
    ],
)

shop = hr.FeatureView(
    "shop",
    entity="merchant_id",
    source=merchants,
    features=[
        hr.lookup(merchants.category).named("category"),
        hr.lookup(merchants.verified).named("verified"),
        hr.time_since_first().named("known_for"),
    ],
)

handset = hr.FeatureView(
    "handset",
    entity="device_id",
    source=devices,
    features=[hr.lookup(devices.emulator).named("emulator"), hr.time_since_first().named("known_for")],
)

device = hr.FeatureView(
    "device",
    entity="device_id",
    source=applications,
    features=[hr.count().over("1d", "30d"), hr.distinct(applications.customer_id).over("7d", "30d", empty=0)],
)

merchant = hr.FeatureView(
    "merchant",
    entity="merchant_id",
    source=applications,
    features=[
        hr.count().over("1d", "30d"),
        hr.mean(applications.amount).over("30d", empty=0),
        hr.rate(applications.new_address).over("7d", empty=0),
        hr.rate(charged_back).over("90d", empty=0),  # waits for the label's maturity, 33 days
    ],
)

# What banks report, when they report it: no label, so nothing to wait for. Reports are counted, no share of purchases.
merchant_reports = hr.FeatureView(
    "merchant_reports", entity="merchant_id", source=chargebacks, features=[hr.count().over("7d", "30d")]
)
customer_reports = hr.FeatureView(
    "customer_reports", entity="customer_id", source=chargebacks, features=[hr.count().over("90d")]
)

customer_at_merchant = hr.FeatureView(
    "customer_at_merchant",
    entity=("customer_id", "merchant_id"),
    source=applications,
    features=[hr.count(current=False).lifetime().named("purchases_before"), hr.time_since_last()],
)

customer_on_device = hr.FeatureView(
    "customer_on_device",
    entity=("customer_id", "device_id"),
    source=applications,
    features=[hr.count(current=False).lifetime().named("purchases_before"), hr.time_since_last()],
)

# What is owed: a plan adds to it, payments and refunds take from it.
flows = hr.Sources(
    plans.emit(customer_id=plans.customer_id, change=plans.amount),
    repayments.emit(customer_id=repayments.customer_id, change=-repayments.paid),
    refunds.emit(customer_id=refunds.customer_id, change=-refunds.amount),
)
exposure = hr.FeatureView(
    "exposure",
    entity="customer_id",
    source=flows,
    features=[hr.sum(flows.change).lifetime(empty=0).named("owed")],
)

payments = hr.FeatureView(
    "payments",
    entity="customer_id",
    source=repayments,
    features=[
        hr.count().over("30d", "90d"),
        hr.count(where=repayments.failed).over("14d", "30d", "90d").named("failed"),
        hr.rate(repayments.failed).over("90d", empty=0),
        hr.last(repayments.failed).named("last_failed"),
        hr.time_since_last(where=repayments.failed).named("since_failed"),
    ],
)

# --- what the models read ---

amount_to_mean = (applications.amount / customer.mean_amount_90d).named("amount_to_mean")
utilisation = ((exposure.owed + applications.amount) / profile.credit_limit).named("utilisation")
easy_to_sell = shop.category.is_in("electronics", "gift_cards").named("easy_to_sell")
same_device = hr.coalesce(customer.last_device == applications.device_id, True).named("same_device")
merchant_pace = (merchant.count_1d / merchant.count_30d).named("merchant_pace")

fraud = hr.Model(
    "fraud",
    label=charged_back,
    features=[
        applications.amount,
        applications.items,
        applications.new_address,
        hr.hour(applications.created_at),
        (applications.channel == "web").named("web"),
        amount_to_mean,
        easy_to_sell,
        *(customer[name] for name in ("count_1h", "count_1d", "count_7d", "sum_amount_1d", "distinct_device_id_30d")),
        customer.distinct_merchant_id_1d,
        customer.time_since_last,
        same_device,
        profile.known_for,
        profile.thin_file,
        handset,
        device,
        merchant.count_1d,
        merchant.new_address_rate_7d,
        merchant.charged_back_rate_90d,
        merchant_pace,
        merchant_reports,
        customer_reports,
        customer_at_merchant.purchases_before.named("purchases_at_merchant"),
        customer_on_device.purchases_before.named("purchases_on_device"),
        customer_on_device.time_since_last.named("since_device"),
    ],
    trainer=hr.xgboost(n_estimators=100, max_depth=4, learning_rate=0.1, min_child_weight=2, subsample=0.8),
)

default = hr.Model(
    "default",
    label=defaulted,
    features=[
        applications.amount,
        utilisation,
        (exposure.owed > 0).named("owes"),
        profile.income_band,
        profile.thin_file,
        profile.known_for,
        easy_to_sell,
        (shop.category == "groceries").named("groceries"),
        customer.count_7d,
        customer.count_30d,
        payments.count_90d,
        payments.failed_14d,
        payments.failed_30d,
        payments.failed_90d,
        payments.failed_rate_90d,
        payments.last_failed,
        device.distinct_customer_id_30d,
    ],
    trainer=hr.xgboost(n_estimators=80, max_depth=3, learning_rate=0.1, min_child_weight=5, subsample=0.8),
)

# --- what is decided ---

# Which inputs of the models are said to be the reason, and by which code. The hour and the channel are nobody's reason.
REASONS = {
    "AMOUNT": (applications.amount, amount_to_mean),
    "GOODS": (easy_to_sell, shop.category == "groceries", applications.items),
    "NEW_ADDRESS": (applications.new_address,),
    "NEW_CUSTOMER": (profile.known_for, profile.thin_file),
    "NEW_AT_MERCHANT": (customer_at_merchant.purchases_before,),
    "RECENT_APPLICATIONS": (
        customer.count_1h,
        customer.count_1d,
        customer.count_7d,
        customer.count_30d,
        customer.sum_amount_1d,
        customer.distinct_merchant_id_1d,
        customer.time_since_last,
    ),
    "DEVICE": (
        same_device,
        customer.distinct_device_id_30d,
        customer_on_device.purchases_before,
        customer_on_device.time_since_last,
        handset.emulator,
        handset.known_for,
    ),
    "SHARED_DEVICE": (
        device.count_1d,
        device.count_30d,
        device.distinct_customer_id_7d,
        device.distinct_customer_id_30d,
    ),
    "MERCHANT_HISTORY": (
        merchant.count_1d,
        merchant_pace,
        merchant.new_address_rate_7d,
        merchant.charged_back_rate_90d,
        merchant_reports.count_7d,
        merchant_reports.count_30d,
    ),
    "EARLIER_CHARGEBACKS": (customer_reports.count_90d,),
    "INCOME": (profile.income_band,),
    "LIMIT_USED": (utilisation, exposure.owed > 0),
    "PAYMENT_HISTORY": (payments.count_90d,),
    "MISSED_PAYMENTS": (
        payments.failed_14d,
        payments.failed_30d,
        payments.failed_90d,
        payments.failed_rate_90d,
        payments.last_failed,
    ),
}

TEXTS = {
    "AMOUNT": {
        "en": "The amount of this purchase, also beside your usual ones.",
        "de": "Der Betrag dieses Einkaufs, auch im Vergleich zu Ihren üblichen.",
    },
    "GOODS": {
        "en": "What is bought, and how many items.",
        "de": "Was gekauft wird, und wie viele Artikel.",
    },
    "NEW_ADDRESS": {
        "en": "The delivery address is new.",
        "de": "Die Lieferadresse ist neu.",
    },
    "NEW_CUSTOMER": {
        "en": "We have known you for a short time, or there is little credit history.",
        "de": "Wir kennen Sie erst seit Kurzem, oder es gibt wenig Kreditgeschichte.",
    },
    "NEW_AT_MERCHANT": {
        "en": "Your first purchases at this merchant.",
        "de": "Ihre ersten Einkäufe bei diesem Händler.",
    },
    "RECENT_APPLICATIONS": {
        "en": "The number and amount of your recent applications.",
        "de": "Anzahl und Höhe Ihrer letzten Anträge.",
    },
    "TOO_MANY_APPLICATIONS": {
        "en": "Too many applications within one day.",
        "de": "Zu viele Anträge innerhalb eines Tages.",
    },
    "DEVICE": {
        "en": "The device is not one that you usually buy from.",
        "de": "Das Gerät ist keines, von dem Sie gewöhnlich kaufen.",
    },
    "SHARED_DEVICE": {
        "en": "Several customers applied from this device.",
        "de": "Von diesem Gerät haben mehrere Kunden Anträge gestellt.",
    },
    "MERCHANT_HISTORY": {
        "en": "Recent purchases at this merchant.",
        "de": "Die letzten Einkäufe bei diesem Händler.",
    },
    "EARLIER_CHARGEBACKS": {
        "en": "Earlier payments of yours were charged back.",
        "de": "Frühere Zahlungen von Ihnen wurden zurückgebucht.",
    },
    "INCOME": {
        "en": "Your income, as far as we know it.",
        "de": "Ihr Einkommen, soweit wir es kennen.",
    },
    "LIMIT_USED": {
        "en": "How much of your limit is in use.",
        "de": "Wie weit Ihr Rahmen ausgeschöpft ist.",
    },
    "LIMIT_EXCEEDED": {
        "en": "The purchase would take you far beyond your limit.",
        "de": "Der Einkauf würde Ihren Rahmen weit überschreiten.",
    },
    "PAYMENT_HISTORY": {
        "en": "How many payments of yours we have seen so far.",
        "de": "Wie viele Zahlungen wir von Ihnen bisher kennen.",
    },
    "MISSED_PAYMENTS": {
        "en": "Instalments could not be collected lately.",
        "de": "Raten konnten zuletzt nicht eingezogen werden.",
    },
    "LARGE_FIRST_PURCHASE": {
        "en": "A first purchase of a large amount.",
        "de": "Ein erster Einkauf mit hohem Betrag.",
    },
}


def policy(*, fraud_above: float, default_above: float, loss_above: float) -> list[Rule]:
    """The rules, as strict as these say: the scores above which it declines, and the loss to expect, the chance of a
    default times the amount, above which a person looks at it."""
    return [
        hr.decline_if(customer.count_1d > 8, reason="TOO_MANY_APPLICATIONS"),
        hr.decline_if(device.distinct_customer_id_7d > 3, reason="SHARED_DEVICE"),
        hr.decline_if(utilisation > 2.5, reason="LIMIT_EXCEEDED", on_empty="review"),
        hr.decline_if(payments.failed_14d >= 3, reason="MISSED_PAYMENTS"),
        hr.decline_if(fraud.score > fraud_above, reason=hr.from_model),
        hr.decline_if(default.score > default_above, reason=hr.from_model),
        hr.review_if(fraud.score > fraud_above / 4, reason=hr.from_model),
        hr.review_if(default.score * applications.amount > loss_above, reason=hr.from_model),
        hr.review_if(
            payments.last_failed & (utilisation > 1),
            reason="MISSED_PAYMENTS",
            on_empty="skip",
        ),
        hr.review_if(
            (applications.amount > 1_000) & customer.max_amount_before.is_null(), reason="LARGE_FIRST_PURCHASE"
        ),
        hr.approve(),
    ]


MEANT = {input: code for code, inputs in REASONS.items() for input in inputs}
NO_REASONS = [hr.hour(applications.created_at), applications.channel == "web"]

# Tried beside the one that serves: asked at the same point, recorded, and told to nobody.
stricter = hr.Decision(
    "stricter",
    request=applications,
    models=[fraud, default],
    policy=policy(fraud_above=0.3, default_above=0.15, loss_above=15),
    reasons=MEANT,
    not_a_reason=NO_REASONS,
    texts=TEXTS,
)

# Of those whose score of default is above 0.25 some one in four does default, in what the model was tested on.
checkout = hr.Decision(
    "checkout",
    request=applications,
    models=[fraud, default],
    budget="20ms",
    policy=policy(fraud_above=0.6, default_above=0.25, loss_above=30),
    reasons=MEANT,
    not_a_reason=NO_REASONS,
    texts=TEXTS,
    challengers=[hr.Challenger(stricter)],
)
