"""A shop that decides: a real log in a folder, the online state, a trained model, and replay from the log beside
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

import headrace as hr
from headrace.core.aggregate import Reason
from headrace.core.codec import Physical, physical_array, physical_list
from headrace.core.schema import Kind
from headrace.core.times import Instant
from headrace.decisions.define import Decision
from headrace.decisions.plan import Answer, Version, ViewVersion, value_names
from headrace.decisions.port import Question
from headrace.decisions.record import DecisionRecord, from_batch
from headrace.decisions.replay import ReplayReport, replay
from headrace.decisions.run import Decider
from headrace.features import define
from headrace.features import replay as features
from headrace.features.define import FeatureView, Label
from headrace.features.plan import ViewPlan
from headrace.features.replay import Cuts, Events, Rows
from headrace.features.run import FeatureState
from headrace.log.port import Append, Log
from headrace.log.sqlite import SqliteLog
from headrace.models.artifact import Artifact
from headrace.models.define import Model
from headrace.models.serve import ServedModel
from headrace.models.train import train
from headrace.runtime.recompute import request_rows
from headrace.schemas.validate import validator
from headrace.testing.clocks import ManualClock

START = 1_767_225_600_000_000  # 2026-01-01
MINUTE = 60_000_000


class Shop:
    """Definitions. clock, partitions: of the request topic."""

    def __init__(self, *, clock: str = "wall", partitions: int = 1, event_time: bool = True) -> None:
        self.orders = hr.Topic(
            "orders",
            key="customer",
            id="order",
            event_time="at" if event_time else None,
            clock=clock,
            partitions=partitions,
            fields={
                "order": hr.string,
                "customer": hr.int64,
                "merchant": hr.int64,
                "amount": hr.decimal(9, 2),
                "note": hr.string,
                "at": hr.timestamp,
            },
        )
        self.returns = hr.Topic("returns", key="order", fields={"order": hr.string})
        self.returned = Label("returned", of=self.orders, source=self.returns, on="order", within="1h", grace="10m")
        o = self.orders
        self.customer = FeatureView(
            "customer",
            entity="customer",
            source=o,
            features=[
                define.count().over("10m", "1h"),
                define.mean(o.amount).over("1h"),
                define.sum(o.amount).over("1h", empty=0),
                define.std(o.amount).over("1h"),
                define.time_since_last(),
                define.last_n(o.merchant, 2),
            ],
        )
        self.merchant = FeatureView(
            "merchant",
            entity="merchant",
            source=o,
            features=[define.rate(self.returned).over("1d", empty=0), define.distinct(o.customer).over("1h", empty=0)],
        )
        self.views = {"customer": self.customer, "merchant": self.merchant}
        c = self.customer
        numbers = [c.count_10m, c.count_1h, c.mean_amount_1h, c.sum_amount_1h, c.std_amount_1h, c.time_since_last]
        self.model = Model(
            "risk",
            features=[o.amount, *numbers, self.merchant, (o.amount / c.mean_amount_1h).named("amount_vs_mean")],
            label=self.returned,
            trainer=hr.xgboost(n_estimators=8, max_depth=3),
        )
        self.decision = Decision(
            "checkout",
            request=o,
            model=self.model,
            policy=[
                hr.decline_if(c.count_10m > 6, reason="TOO_MANY"),
                hr.review_if(c.time_since_last < 1_000_000, on_empty="skip"),
                hr.decline_if(hr.score > 0.6, reason=hr.from_model),
                hr.approve(),
            ],
            reasons={c.count_1h: "RECENT_ORDERS", self.merchant.returned_rate_1d: "MERCHANT_HISTORY"},
            not_a_reason=[o.amount, c, self.merchant],
        )

    def plans(self) -> list[ViewPlan]:
        return [ViewPlan.compile(view, {"returned": self.returned}) for view in self.views.values()]

    def artifact(self) -> Artifact:
        """Trained on made-up rows of the sizes that decisions meet, so that scores differ from row to row."""
        random = np.random.default_rng(4)
        rows = 600
        columns = {}
        for one in self.model.inputs:
            numbers = random.integers(0, 10, rows)
            if one.type.kind is Kind.FLOAT64:
                columns[one.name] = pa.array(numbers / 4 if "vs" in one.name else numbers * 9.5, mask=numbers == 9)
            else:
                units = 1_000 if one.type.kind is Kind.DECIMAL else 20_000_000 if "since" in one.name else 1
                columns[one.name] = physical_array((numbers * units).tolist(), one.type)
        lean = (
            np.array(columns["customer.count_1h"])
            + 6 * np.array(columns["merchant.returned_rate_1d"].fill_null(0)) / 90
        )
        table = pa.table({**columns, "returned": pa.array(lean + random.normal(size=rows) > 7)})
        views = {"customer": "c1", "merchant": "m1"}
        return train(self.model, table, training_set="made up", fingerprint="f", views=views).artifact

    def version(self, artifact: Artifact) -> Version:
        topics = {"customer": ("orders",), "merchant": ("orders", "returns")}
        views = [
            ViewVersion(
                name=name,
                fingerprint=f"{name[0]}1",
                features=tuple(f.name for f in self.views[name].features),
                topics=topics[name],
            )
            for name in self.decision.views
        ]
        names = value_names(self.orders, views)
        return Version(self.decision, views, {"risk": ServedModel(self.model, artifact, names)})

    def order(self, number: int, at: int, **changes: object) -> dict[str, object]:
        event: dict[str, object] = {
            "order": f"o-{number}",
            "customer": number * 7 % 5,
            "merchant": number % 3,
            "amount": f"{number * 13 % 90 + 1}.{number % 100:02d}",
            "note": None,
            "at": at,
        }
        return {**event, **changes}


class FromLog:
    """Features from the log alone, at recorded cuts: a `Recompute`."""

    def __init__(self, shop: Shop, log: Log) -> None:
        self._shop, self._log = shop, log

    def __call__(self, views: Sequence[str], questions: Sequence[Question]) -> list[tuple[Answer | None, ...]]:
        columns = [self._view(name, place, questions) for place, name in enumerate(views)]
        return list(zip(*columns, strict=True)) if columns else [()] * len(questions)

    def _view(self, name: str, place: int, questions: Sequence[Question]) -> list[Answer | None]:
        plan = ViewPlan.compile(self._shop.views[name], {"returned": self._shop.returned})
        events = Events.read(self._log, features.topics_of([plan]))
        asked = [q for q in questions if q.cuts[place] is not None]
        table = pa.table({"order": pa.array([str(q.row[0]) for q in asked], pa.string())})
        rows = Rows.of(events, table, request="orders", cuts=Cuts.of([q.cuts[place] for q in asked]))
        assert rows.t.tolist() == [q.t for q in asked], "a request's t is the event time that the log has"
        answered = iter(answers_of(features.replay([plan], events, rows, reasons=True), plan))
        return [None if q.cuts[place] is None else next(answered) for q in questions]


def answers_of(table: pa.Table, plan: ViewPlan) -> list[Answer]:
    names = [f.name for f in plan.view.features]
    values = [_physical(table[name].combine_chunks()) for name in names]
    reasons = [[Reason[r] for r in table[f"{name}__reason"].to_pylist()] for name in names]
    return list(zip(zip(*values, strict=True), zip(*reasons, strict=True), strict=True))


def _physical(array: pa.Array) -> list[Physical | tuple[Physical, ...]]:
    if pa.types.is_list(array.type):
        return [None if one is None else tuple(one) for one in array.to_pylist()]
    if pa.types.is_decimal(array.type):
        return [None if one is None else int(one.scaleb(array.type.scale)) for one in array.to_pylist()]
    return physical_list(array)


class Open:
    """A shop's log, opened, and its decider. Opening the same folder again is a restart."""

    def __init__(self, shop: Shop, folder: Path, clock: ManualClock, artifact: Artifact) -> None:
        self.shop, self.clock = shop, clock
        self.log = SqliteLog(folder, clock=clock, background=False)
        self.partitions = {
            topic.name: [p.partition for p in self.log.declare(topic).partitions]
            for topic in (shop.orders, shop.returns)
        }
        self.state = FeatureState(shop.plans())
        self.version = shop.version(artifact)
        self.recompute = FromLog(shop, self.log)
        self.decider = Decider(
            self.log,
            self.version,
            features=self.state,
            validate=validator(shop.orders),
            recompute=self.recompute,
            clock=clock,
        )

    def produce(self, topic: hr.Topic, *events: Mapping[str, object], partition: int = 0) -> None:
        """As another producer would, past the decider."""
        validate = validator(topic)
        rows = [validate(event) for event in events]
        self.log.append([Append(partition=self.partitions[topic.name][partition], rows=rows)])

    def records(self) -> list[DecisionRecord]:
        state = next(s for s in self.log.topics() if s.topic.name == "headrace.decisions.checkout")
        return [
            record
            for held in state.partitions
            for batch in self.log.read(held.partition, 0)
            for record in from_batch(batch, "orders")
        ]

    def replay(self) -> ReplayReport:
        return replay(
            self.records(),
            versions=lambda text: self.version if text == self.version.text else None,
            requests=request_rows(self.log, self.shop.orders),
            recompute=self.recompute,
        )

    def close(self) -> None:
        self.log.close()


def instant(minutes: float) -> Instant:
    return Instant(START + int(minutes * MINUTE))
