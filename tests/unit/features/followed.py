"""A small lender in two units of microseconds, and a log of it as the oracle and the online state both read it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa

import headrace as hr
from headrace.core.codec import instants, rows_to_batch
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.core.schema import DataType
from headrace.features import define
from headrace.features.define import FeatureView, Label, Sources
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.define import Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, OFFSET, VERDICT, Physical, Verdict
from headrace.testing.oracles import Event

D, WITHIN, GRACE = 6, 8, 3


class Lender:
    """Topics, labels, views. id: the type of plans' ids."""

    def __init__(self, id: DataType = hr.int64) -> None:
        self.plans = hr.Topic(
            "plans",
            key="customer",
            id="plan",
            event_time="at",
            max_late="20us",
            fields={
                "plan": id,
                "customer": hr.int64,
                "merchant": hr.string,
                "amount": hr.decimal(9, 2),
                "x": hr.float64,
                "fraud": hr.field(hr.boolean, available_after=f"{D}us"),
                "loss": hr.field(hr.int64, available_after=f"{D - 2}us"),
                "at": hr.timestamp,
            },
        )
        self.bads = hr.Topic("bads", key="plan", id="nr", fields={"nr": hr.int64, "plan": id, "degree": hr.int64})
        self.truths = hr.Topic("plans.fraud", key="plan", id="nr", fields={"nr": id, "plan": id, "fraud": hr.boolean})
        self.repayments = hr.Topic(
            "repayments",
            key="customer",
            id="nr",
            fields={"nr": id, "customer": hr.int64, "amount": hr.decimal(9, 2)},
        )
        window = {"within": f"{WITHIN}us", "grace": f"{GRACE}us"}
        self.bad = Label("bad", of=self.plans, source=self.bads, on="plan", **window)
        self.degree = Label("degree", of=self.plans, source=self.bads, on="plan", value=self.bads.degree, **window)
        self.labels = {label.name: label for label in (self.bad, self.degree)}
        self.topics = {t.name: t for t in (self.plans, self.bads, self.truths, self.repayments)}
        self.views = self._views()

    def _views(self) -> dict[str, FeatureView]:
        p = self.plans
        flows = Sources(
            p.emit(delta=p.amount, customer=p.customer),
            self.repayments.emit(delta=-self.repayments.amount, customer=self.repayments.customer),
        )
        views = [
            FeatureView("customer", entity="customer", source=p, features=[
                define.count().over("7us", "20us"),
                define.mean(p.amount).over("7us", delay="2us"),
                define.count(where=p.merchant == "a", current=False).over("9us").named("a"),
                define.min(p.x).over("11us"),
                define.std(p.x).over("11us"),
                define.last(p.amount).over("15us"),
                define.last_n(p.merchant, 3, current=True).over("30us"),
                define.distinct(p.merchant).over("12us"),
                define.lookup(p.x).over("25us"),
                define.count().aligned("5us"),
            ]),
            FeatureView("merchant", entity="merchant", source=p, features=[
                define.rate(self.bad).over("14us"),
                define.rate(self.bad, known="so_far").over("9us").named("bad_so_far"),
                define.sum(p.amount, where=self.bad, known="so_far").over("12us").named("bad_amount"),
                define.mean(self.degree).over("30us"),
                define.sum(self.degree, known="so_far").over("30us").named("degree_so_far"),
                define.rate(p.fraud).over("20us", delay=f"{D}us"),
                define.rate(p.fraud, known="so_far").over("20us").named("fraud_so_far"),
                define.last(p.fraud, known="so_far", current=True).over("9us").named("fraud_last"),
                define.sum(p.loss).over("20us", delay=f"{D - 2}us"),
                define.sum(p.loss, where=p.fraud, known="so_far").over("20us").named("loss_so_far"),
                define.count(where=self.bad).over("10us").named("bads"),
            ]),
            FeatureView("flow", entity="customer", source=flows, features=[
                define.sum(flows.delta).over("16us"),
                define.last(flows.delta, current=True).lifetime(),
                define.time_since_last(),
            ]),
            FeatureView("pair", entity=("customer", "merchant"), source=p, features=[
                define.count().over("30us"), define.first(p.x).lifetime(),
            ]),
        ]  # fmt: skip
        return {view.name: view for view in views}

    def state(self, *views: str) -> FeatureState:
        names = views or tuple(self.views)
        return FeatureState([ViewPlan.compile(self.views[n], self.labels) for n in names], topics=[self.truths])

    def id(self, number: int) -> int | str:
        return number if self.plans.schema["plan"].type == hr.int64 else f"p{number}"


def row(event: Event, topic: Topic) -> tuple[Physical, ...]:
    return tuple(event.values.get(f.name) for f in topic.schema)


def batch(events: Sequence[Event], topic: Topic) -> pa.RecordBatch:
    """As the log's `read` gives them."""
    fields = rows_to_batch(topic.schema, [row(e, topic) for e in events])
    verdicts = pa.array([int(e.verdict) for e in events], pa.uint8())
    at = pa.array([e.event_time for e in events], pa.int64()).to_numpy()
    available = pa.array([e.available_at for e in events], pa.int64()).to_numpy()
    return pa.RecordBatch.from_arrays(
        [pa.array([e.offset for e in events]), instants(available), instants(at), verdicts, *fields.columns],
        names=[OFFSET, AVAILABLE_AT, EVENT_TIME, VERDICT, *topic.schema.names],
    )


class RandomLog:
    """Draws events of a lender, arriving in the order drawn: ties, late ones, other verdicts, imports, facts first."""

    def __init__(self, lender: Lender, seed: int) -> None:
        self.lender = lender
        self.rng = random.Random(seed)
        self.now = 0
        self.next: dict[Partition, int] = {}
        self.available: dict[Partition, int] = {}
        self.events: list[Event] = []

    def draw(self) -> Event:
        rng = self.rng
        self.now += rng.choice([0, 0, 1, 1, 2])
        kind = rng.choices(["plans", "bads", "plans.fraud", "repayments"], [6, 3, 2, 2])[0]
        imported = kind == "plans" and rng.random() < 0.3
        index = IMPORTS_FROM + rng.randrange(2) if imported else rng.randrange(2)
        time = self.now - (0 if rng.random() < 0.6 else rng.randrange(12)) + (2 if rng.random() < 0.05 else 0)
        values = getattr(self, "_" + kind.replace(".", "_"))(imported, time)
        verdict = rng.choices([Verdict.ACCEPTED, Verdict.RESTAMPED, Verdict.LATE, Verdict.DUPLICATE], [20, 2, 1, 1])[0]
        return self._append(Partition(kind, 1, index), time, verdict, values)

    def request(self) -> Event:
        """A plan that the log does not hold yet, at the place where it would be appended; `take` appends it."""
        partition = Partition("plans", 1, self.rng.randrange(2))
        values = self._plans(False, self.now)
        return self._event(partition, self.now, Verdict.ACCEPTED, values)

    def take(self, event: Event) -> Event:
        self.next[event.partition] = event.offset + 1
        self.available[event.partition] = event.available_at
        self.events.append(event)
        return event

    @property
    def cut(self) -> Cut:
        return Cut.of(self.next)

    def _append(self, partition: Partition, time: int, verdict: Verdict, values: dict[str, Physical]) -> Event:
        return self.take(self._event(partition, time, verdict, values))

    def _event(self, partition: Partition, time: int, verdict: Verdict, values: dict[str, Physical]) -> Event:
        topic = self.lender.topics[partition.topic]
        return Event(
            partition=partition,
            offset=self.next.get(partition, 0),
            event_time=time,
            available_at=max(self.now, self.available.get(partition, 0)),
            verdict=verdict,
            id=values[topic.id],  # type: ignore[arg-type]  # every topic here has one
            values=values,
        )

    def _id(self) -> int | str:
        """Often one that was there, or will be."""
        return self.lender.id(self.rng.randrange(max(8, len(self.events))))

    def _plans(self, imported: bool, time: int) -> dict[str, Physical]:
        rng = self.rng
        return {
            "plan": self._id(),
            "customer": rng.choice([1, 2, 3]),
            "merchant": rng.choice(["a", "b", "b", None]),
            "amount": rng.choice([None, 5, 1250, 99]),
            "x": rng.choice([None, 0.5, -3.25, 1e12]),
            "fraud": rng.choice([None, True, False]) if imported else None,
            "loss": rng.choice([None, 7, 11]) if imported else None,
            "at": time,
        }

    def _bads(self, imported: bool, time: int) -> dict[str, Physical]:
        return {"nr": self.rng.randrange(9), "plan": self._id(), "degree": self.rng.choice([1, 2, 2, None])}

    def _plans_fraud(self, imported: bool, time: int) -> dict[str, Physical]:
        return {"nr": self._id(), "plan": self._id(), "fraud": self.rng.choice([True, True, False, None])}

    def _repayments(self, imported: bool, time: int) -> dict[str, Physical]:
        return {"nr": self._id(), "customer": self.rng.choice([1, 2, 3]), "amount": self.rng.choice([None, 40, 7])}
