"""Processes that share a model of a cluster, decide by a view over a derived topic, and hold it by partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import headrace as hr
from headrace.core.codec import partition_of
from headrace.decisions.define import Decision
from headrace.decisions.owners import OwnedDecider
from headrace.decisions.plan import Version, ViewVersion
from headrace.decisions.record import DecisionRecord, record_topic
from headrace.decisions.replay import ReplayReport, replay
from headrace.decisions.valid import valid_records
from headrace.features import define
from headrace.features.define import FeatureView
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.kafka import KafkaLog
from headrace.runtime.holding import Holding, Meant, PartAnswer, PartQuestion
from headrace.runtime.recompute import recompute_with, request_rows
from headrace.runtime.routed import Routed
from headrace.schemas.validate import validator
from headrace.stream.run import ReKeyer
from tests.unit.features.derived import applications, by_merchant, merchant_view
from tests.unit.stream.log import Cluster

PARTITIONS = 3


class Fleet:
    """Definitions and the cluster. budget, max_staleness: of the decision, of the view."""

    def __init__(self, *, max_staleness: str | None = None) -> None:
        of = applications()
        self.of, self.derived = of, by_merchant(of, partitions=PARTITIONS)
        self.cluster = Cluster(of, self.derived)
        self.merchant = merchant_view(self.derived)
        if max_staleness is not None:
            self.merchant = FeatureView(
                "merchant",
                entity="merchant_id",
                source=self.derived,
                features=[define.count().over("10m")],
                max_staleness=max_staleness,
            )
        self.customer = FeatureView(
            "customer", entity="customer_id", source=of, features=[define.count().over("10m"), define.last(of.channel)]
        )
        m = self.merchant
        self.decision = Decision(
            "check",
            request=of,
            policy=[
                hr.decline_if(m.count_10m > 8, reason="BUSY", on_missing="review"),
                hr.review_if(self.customer.count_10m > 6, reason="MANY"),
                hr.approve(),
            ],
        )
        self.views = {"merchant": self.merchant, "customer": self.customer}
        self.made = 0

    def compile(self, names: Sequence[str]) -> list[ViewPlan]:
        return [ViewPlan.compile(self.views[name], {}) for name in names]

    def version(self, fingerprint: str = "m1") -> Version:
        views = [
            ViewVersion(
                name=name,
                fingerprint=fingerprint if name == "merchant" else "c1",
                features=tuple(f.name for f in self.views[name].features),
                topics=("by_merchant",) if name == "merchant" else ("applications",),
                max_staleness=self.views[name].max_staleness,
                held=name == "merchant",
            )
            for name in self.decision.views
        ]
        return Version(self.decision, views, {})

    def carry(self, *indices: int, rows_max: int = 100) -> None:
        for index in indices or range(2):
            rekeyer = ReKeyer(self.cluster.log(), "by_merchant", self.cluster.source(index), rows_max=rows_max)
            rekeyer.step()
            rekeyer.close()

    def request(
        self, *, merchant: int | None = 1, customer: int = 3, id: str | None = None, **said: object
    ) -> dict[str, object]:
        self.cluster.clock.advance("700ms")
        self.made += 1
        return {
            "application_id": id or f"r{self.made}",
            "customer_id": customer,
            "merchant_id": merchant,
            "channel": ["web", "app", None][self.made % 3],
            "amount": "12.50",
            "risk": self.made / 7,
            "created_at": self.cluster.clock.now() // 1_000_000 * 1_000_000,
            **said,
        }

    def records(self) -> list[DecisionRecord]:
        log, topic = self.cluster.log(), record_topic(self.decision).name
        state = next(state for state in log.topics() if state.topic.name == topic)
        return [record for held in state.partitions for record in valid_records(log, held, "applications")]

    def replayed(self) -> ReplayReport:
        log, version = self.cluster.log(), self.version()
        return replay(
            self.records(),
            versions=lambda text: version if text == version.text else None,
            requests=request_rows(log, self.of),
            recompute=recompute_with(log, self.compile),
        )


class Process:
    """A process of the fleet. holds: partitions of the derived topic. owns: of the requests."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        holds: Sequence[int] = range(PARTITIONS),
        owns: Sequence[int] = (0, 1),
        fingerprint: str = "m1",
    ) -> None:
        self.fleet = fleet
        self.log: KafkaLog = fleet.cluster.log()
        self.wanted = frozenset(holds)
        self.holding = Holding(self.log, fleet.cluster.clock)
        self.mean(fingerprint)
        self.holding.hold_now(lambda topic: self.wanted)
        self.routed = Routed(
            self.holding,
            fleet.compile(["merchant"]),
            fleet.of,
            partitions=lambda topic: PARTITIONS,
            clock=fleet.cluster.clock,
        )
        self.decider = OwnedDecider(
            self.log,
            fleet.version(fingerprint),
            features=FeatureState(fleet.compile(["customer"])),
            validate=validator(fleet.of),
            recompute=recompute_with(self.log, fleet.compile),
            clock=fleet.cluster.clock,
            name="here",
            remote=self.routed,
        )
        for index in owns:
            self.decider.claim(index)

    def mean(self, fingerprint: str) -> None:
        def make(index: int) -> FeatureState:
            state = FeatureState(self.fleet.compile(["merchant"]), only=index)
            state.catch_up(self.log)
            return state

        meant = Meant(
            topic=self.fleet.derived,
            source=self.fleet.of,
            fingerprints={"merchant": fingerprint},
            entities={"merchant": [("merchant_id", hr.int64)]},
            make=make,
            write=lambda state, index: None,
        )
        self.holding.mean([meant])

    def decides(self, **said: object) -> DecisionRecord:
        made = self.decider.decide(self.fleet.request(**said))  # type: ignore[arg-type]  # the fields of a request
        return next(record for record in self.fleet.records() if record.decision_id == made.decision_id)


class Others:
    """Other processes, reached without a wire. who: address -> its answers."""

    def __init__(self, who: dict[str, Process], holders: dict[int, str]) -> None:
        self.who, self.holders = who, holders
        self.asked: list[tuple[str, int]] = []
        self.answer: Callable[[Process, Sequence[PartQuestion]], Future[Sequence[PartAnswer]]] = self._at_once

    def holder(self, topic: str, index: int) -> str | None:
        return self.holders.get(index)

    def ask(
        self, address: str, questions: Sequence[PartQuestion], *, within: float, reading: bool = False
    ) -> Future[Sequence[PartAnswer]]:
        self.asked.append((address, len(questions)))
        return self.answer(self.who[address], questions)

    def _at_once(self, process: Process, questions: Sequence[PartQuestion]) -> Future[Sequence[PartAnswer]]:
        made: Future[Sequence[PartAnswer]] = Future()
        made.set_result(process.holding.answer(questions))
        return made


def merchant_in(index: int) -> int:
    return next(n for n in range(100) if partition_of(n, PARTITIONS) == index)
