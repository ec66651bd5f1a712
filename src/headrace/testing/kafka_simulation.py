"""One life of a shared log from one seed: producers, owners and clients, and processes that carry events over into a
derived topic, over a model of Kafka that fails on purpose. A seed has the ones, the others, or both.

The one idea: the product's own code runs, in as many processes as there would be, and what they said to each other and
to their clients is held against the bytes that the log holds in the end, by code that shares nothing with theirs
(`kafka_simulation_judge`, `kafka_simulation_derived`). In the end the weather clears, and whoever still waits must get
an answer, and what was appended until then must be carried over.

Touches memory, and threads that take turns (`testing.turns`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import Place, Record
from headrace.core.codec import partition_of
from headrace.core.errors import HeadraceError
from headrace.core.times import Duration
from headrace.decisions.record import record_topic
from headrace.log.kafka import KafkaLog
from headrace.log.port import TAKEN, Append, Verdict
from headrace.stream.plan import writer_name
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient
from headrace.testing.kafka_simulation_carrier import Carrier, CutReader, sources
from headrace.testing.kafka_simulation_derived import CutTold, judge_derived
from headrace.testing.kafka_simulation_judge import Judge, Told
from headrace.testing.kafka_simulation_owner import Inbox, Owner
from headrace.testing.kafka_simulation_scene import BY_SHOP, CHECK, CUSTOMERS, EVENTS, REQUESTS, event
from headrace.testing.kafka_simulation_wire import StormyWire, Weather
from headrace.testing.turns import Turns

STEPS, FAULTS_MIN = 400, 3
STEPS_ALONE = 1_000  # of carriers without owners: a life in which those that slept wake, and meet their successors
STEPS_MAX = 40_000  # in all, when it is clear and somebody still waits
PRODUCERS, OWNERS, CLIENTS, CARRIERS = 2, 3, 6, 2
SESSION = Duration.parse("6s")
SETTINGS = KafkaSettings(bootstrap="model:9092", session_timeout=SESSION)
RECORDS = record_topic(CHECK)
LIVES = ((True, False), (True, False), (True, True), (False, True))  # what a seed has: owners, carriers
_PAUSE = 4_000_000  # microseconds between two events of a producer, at most
_STRANGE = 5_000_000  # between two requests that another process appends, at most
_RETRY = 300_000  # microseconds until a producer tries again
_RESTART = 1_500_000  # until a process that ended has a successor, at most
_LONG = 60_000_000  # beyond any transaction's time


@dataclass(slots=True)
class Outcome:
    """What a seed did, and what it found; `violations` must be none. crashed: by call and what was being done.
    errors: what processes ended with, by code. fenced: claims that a process found lost."""

    seed: int
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    crashed: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    trace: str = ""


def simulate(seed: int, *, keep: bool = False) -> Outcome:
    """Run one seed: at least STEPS steps and FAULTS_MIN faults that fired. keep: with its trace."""
    return Life(seed, keep=keep).run()


Asking = tuple[str, int, int]  # a request's row: id, customer, amount


@dataclass(slots=True)
class Sending:
    """What a producer keeps durably: of each of its keys the number of the newest event that it began to send, and what
    is not acknowledged yet."""

    numbers: dict[int, int]
    pending: list[tuple[str, int, int]] = field(default_factory=list)  # id, customer, number


class Life:
    """A cluster, its processes, and what they were told; `run` lives it from the seed."""

    def __init__(self, seed: int, *, keep: bool = False) -> None:
        self.random = random.Random(seed)
        self.turns = Turns(self.random, keep=keep)
        self.decides, self.carries = self.random.choice(LIVES)
        self.steps = STEPS if self.decides else STEPS_ALONE
        self.pause = _PAUSE // 4 if self.carries else _PAUSE
        skews = [0, *(self.random.randrange(-900_000, 900_000) for _ in range(2))]
        lags = self.random.random() < 0.5
        self.model = KafkaModel(
            self.turns.clock(), skews=skews, lag=(lambda: int(self.random.random() * 60_000)) if lags else None
        )
        self.weather = Weather(turns=self.turns, model=self.model, session=SESSION, off=True)
        self.batch = self.random.choice((1, 2, 50))
        self.patience = self.random.choice((Duration.parse("10s"), Duration.parse("10s"), Duration.parse("30s")))
        self.outcome = Outcome(seed)
        self.told = Told()
        self.sending = [
            Sending({customer: 0 for customer in range(CUSTOMERS) if customer % PRODUCERS == index})
            for index in range(PRODUCERS)
        ]
        self.asking: dict[str, Asking] = {}  # requests that wait for an answer, by id
        self.strays: list[Asking] = []  # requests that another process appended, and nobody asked about yet
        self.inboxes = [Inbox() for _ in range(OWNERS)]
        self.cuts: list[CutTold] = []
        self.due: dict[int, int] = {}  # when it clears: of each partition of events, what must be carried over
        self.counted = self.outcome.counted
        self.waiting = 0
        self.strange = 0
        self.clearing = False
        self.set = False

    def run(self) -> Outcome:
        outcome = self.outcome
        self.turns.actor("scene", self._set_scene)
        self.turns.run(self._enough)
        outcome.steps = self.turns.steps
        outcome.faults = Counter({fault.value: count for fault, count in self.weather.fired.items()})
        outcome.crashed = self.weather.crashed
        if self.waiting:
            outcome.violations.append(f"{self.waiting} requests had no answer {STEPS_MAX} steps after the start")
        if not self._carried():
            outcome.violations.append(f"carried over below {self.committed()}, expected {self.due} or more")
        self._judge()
        outcome.counted["timed_out"] = self.model.refused["timed_out"]
        outcome.counted["members_expired"] = sum(group.expired for group in self.model.groups.values())
        outcome.trace = self.turns.trace
        return outcome

    def _enough(self) -> bool:
        if not self.set:
            return False
        if not self.clearing and self.turns.steps >= self.steps and sum(self.weather.fired.values()) >= FAULTS_MIN:
            self.clearing = self.weather.off = True
            if self.carries:
                self.due = {index: records[-1].offset + 1 for index, records in self._logs("events").items() if records}
        return self.turns.steps >= STEPS_MAX or (self.clearing and not self.waiting and self._carried())

    def _carried(self) -> bool:
        if not self.due:
            return True
        committed = self.committed()
        return all(committed.get(index, 0) >= offset for index, offset in self.due.items())

    def committed(self) -> dict[int, int]:
        """Of each partition of events, how far it was carried over."""
        found = {}
        for source in sources():
            group = self.model.groups.get(writer_name(BY_SHOP, 1, source))
            place = Place(source.topic, source.index)
            if group is not None and place in group.offsets:
                found[source.index] = group.offsets[place].offset
        return found

    def _logs(self, name: str) -> dict[int, list[Record]]:
        return {index: held.committed() for index, held in enumerate(self.model.topics[name].partitions)}

    def _judge(self) -> None:
        for _ in range(2):  # what is open is given up, then every marker is written
            self.turns.now += _LONG
            self.model.settle()
        if self.decides:
            self._judge_decisions()
        if self.carries:
            derived = judge_derived(
                self._logs("events"), self._logs(BY_SHOP.name), self.committed(), self.cuts, id="event_id", key="shop"
            )
            self.outcome.violations += derived.violations
            self.counted["derived"], self.counted["not_derived"] = derived.derived, derived.left_out
            self.counted["cuts_told"] = len(self.cuts)

    def _judge_decisions(self) -> None:
        logs = {
            (name, index): records
            for name in ("events", "requests", RECORDS.name)
            for index, records in self._logs(name).items()
        }
        found = Judge(logs, RECORDS.schema.names, records=RECORDS.name).judge(self.told)
        self.outcome.violations += found.violations
        for name in ("events", "requests", "valid", "void", "claims", "repeated", "zombies", "absent"):
            self.outcome.counted[name] = getattr(found, name)
        self.outcome.counted["answers"] = len(self.told.answers)
        self.outcome.counted["acknowledged"] = len(self.told.events)

    # --- processes ---

    def process(self, name: str, body: Callable[[StormyWire], None], doing: Callable[[], str]) -> None:
        """A process that is begun anew whenever it ends."""
        turns = self.turns

        def live() -> None:
            actor = turns.current
            assert actor is not None
            try:
                body(StormyWire(self.weather, actor, doing))
            except HeadraceError as error:
                self.outcome.errors[error.code] += 1
                turns.note(f"ends with {error.code} {error.message}")
            finally:
                turns.later(turns.now + int(self.random.random() * _RESTART), again)

        def again() -> None:
            turns.actor(name, live)

        again()

    def client(self, wire: StormyWire) -> ModelClient:
        return ModelClient(
            self.model, wire=wire, session_timeout=SESSION, transaction_timeout=self.patience, batch=self.batch
        )

    def log(self, wire: StormyWire) -> KafkaLog:
        return KafkaLog(
            self.client(wire), settings=SETTINGS, clock=self.model.clock, monotonic=lambda: self.turns.now / 1e6
        )

    def _set_scene(self) -> None:
        actor = self.turns.current
        assert actor is not None
        log = self.log(StormyWire(self.weather, actor, str))
        for topic in (EVENTS, *([REQUESTS, RECORDS] if self.decides else []), *([BY_SHOP] if self.carries else [])):
            log.declare(topic)
        log.close()
        self.set = True
        self.weather.off = False
        for index, sending in enumerate(self.sending):
            self.process(f"producer {index}", partial(self._produce, sending), lambda: "appends")
        if self.carries:
            self._begin_carriers()
        if self.decides:
            self._begin_owners()

    def _begin_carriers(self) -> None:
        for index in range(CARRIERS):
            carrier = Carrier(self, f"carrier {index}")
            self.process(carrier.name, carrier.live, carrier.doing)
        self.process("cut reader", CutReader(self).live, lambda: "reads cuts")

    def _begin_owners(self) -> None:
        for index, inbox in enumerate(self.inboxes):
            owner = Owner(self, f"owner {index}", inbox)
            self.process(owner.name, owner.live, owner.doing)
        self.process("stranger", self._append_requests, lambda: "appends")
        for index in range(CLIENTS):
            self.turns.actor(f"client {index}", partial(self._ask, index))

    # --- producers ---

    def _produce(self, sending: Sending, wire: StormyWire) -> None:
        log = self.log(wire)
        state = next(state for state in log.topics() if state.topic.name == "events")
        while True:
            if not sending.pending:
                for customer in self.random.sample(sorted(sending.numbers), self.random.choice((1, 1, 2))):
                    sending.numbers[customer] += 1
                    number = sending.numbers[customer]
                    sending.pending.append((f"e-{customer}-{number}", customer, number))
            by_partition: dict[int, list[tuple[str, int, int]]] = {}
            for one in sending.pending:
                by_partition.setdefault(partition_of(one[1], EVENTS.partitions), []).append(one)
            appends = [
                Append(
                    partition=state.partitions[index].partition, rows=tuple(event(id, key, n) for id, key, n in rows)
                )
                for index, rows in by_partition.items()
            ]
            try:
                done = log.append(appends, atomic=self.random.random() < 0.3)
            except HeadraceError as error:
                if not error.retryable:
                    raise
                self.turns.wait(self.turns.now + int(self.random.random() * _RETRY))
                continue
            for appended in done:
                for verdict in appended.verdicts.tolist():
                    if verdict not in TAKEN and verdict != Verdict.DUPLICATE:
                        self.outcome.violations.append(f"an event was judged {Verdict(verdict).name}")
            self.told.events.update({id: (key, number) for id, key, number in sending.pending})
            sending.pending = []
            self.turns.wait(self.turns.now + int(self.random.random() * self.pause))

    def _append_requests(self, wire: StormyWire) -> None:
        """Another process that writes requests: some of its own, some that a client asks an owner about just now; one
        by one, or in a transaction, behind which everybody waits."""
        log = self.log(wire)
        state = next(state for state in log.topics() if state.topic.name == "requests")
        while True:
            self.turns.wait(self.turns.now + int(self.random.random() * _STRANGE))
            rows: list[Asking] = []
            for _ in range(self.random.choice((1, 1, 2))):
                if self.asking and self.random.random() < 0.7:
                    rows.append(self.asking[self.random.choice(list(self.asking))])
                    continue
                self.strange += 1
                rows.append((f"s-{self.strange}", self.random.randrange(CUSTOMERS), self.random.randrange(1, 100)))
                self.strays.append(rows[-1])
            appends = [
                Append(
                    partition=state.partitions[partition_of(row[1], REQUESTS.partitions)].partition,
                    rows=(row,),
                    request=True,
                )
                for row in rows
            ]
            try:
                log.append(appends, atomic=self.random.random() < 0.5)
            except HeadraceError as error:
                if not error.retryable:
                    raise

    # --- clients ---

    def _ask(self, client: int) -> None:
        """Requests with an id each, sent to any owner, again with the same id where no answer came; now and then one
        that is known, as it was or with another payload."""
        turns, number, known = self.turns, 0, list[Asking]()
        while True:
            turns.wait(turns.now + int(self.random.random() * 300_000))
            if self.clearing:
                turns.wait(turns.now + 60_000_000)
                continue
            draw, expected = self.random.random(), "decided"
            if known and draw < 0.2:
                row = self.random.choice(known)
                if draw < 0.05:
                    row, expected = (row[0], row[1], row[2] + 1), "conflict"
            elif self.strays and draw < 0.5:
                row = self.strays.pop(0)
                known.append(row)
            else:
                number += 1
                row = (f"r-{client}-{number}", self.random.randrange(CUSTOMERS), self.random.randrange(1, 100))
                known.append(row)
            self.waiting += 1
            if expected == "decided":
                self.asking[row[0]] = row
            replies = self._until_answered(row)
            self.waiting -= 1
            self.asking.pop(row[0], None)
            if expected not in replies:
                self.outcome.violations.append(f"request {row[0]!r}: expected {expected!r}, seen {replies[0]!r}")

    def _until_answered(self, row: Asking) -> list[str]:
        turns = self.turns
        replies: list[str] = []
        while not replies:
            for _ in range(self.random.choice((1, 1, 1, 2))):
                index = self._holder(row[1]) if self.random.random() < 0.7 else self.random.randrange(OWNERS)
                self.inboxes[index].put(row, replies)
            turns.wait(turns.now + self.random.randrange(300_000, 3_000_000), lambda: bool(replies))
        return replies

    def _holder(self, customer: int) -> int:
        """Who has the partition, as the coordinator knows it."""
        group = self.model.groups.get("owners")
        place = Place("requests", partition_of(customer, REQUESTS.partitions))
        name = None if group is None else group.holders(self.turns.now).get(place)
        return self.random.randrange(OWNERS) if name is None else int(name.rpartition(" ")[2])
