"""The handbook's log as the world would bring it: late, told again, in three partitions, what became known apart.

The one idea: rows are drawn with the instant of their arrival, and appended in that order to a real log under a clock
that stands at each instant in turn. The first days come as an import that knows the truth of most of its rows; of all
others the truth comes as an event of its own, and fraud reports as a topic of their own. Writes through the log's port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import headrace as hr
from headrace.core.codec import partition_of, rows_to_batch
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.features.define import FeatureView, Label
from headrace.log.define import Topic
from headrace.log.port import Append, Log, Physical
from headrace.testing.clocks import ManualClock

MINUTE, DAY = 60_000_000, 86_400_000_000
TICK = 10 * MINUTE  # arrivals are appended together, so that partitions often agree on the instant
LATE, LATE_BY = 0.03, 5 * DAY  # beyond max_late, which is 4 days, in a fifth of them
IMPORTED_DAYS = 15
DAYS = ("1d", "7d", "30d")

Row = tuple[Physical, ...]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Topics and what is defined over them: the handbook's views, and more over what becomes known late."""

    transactions: Topic
    truths: Topic
    frauds: Topic
    labels: Mapping[str, Label]
    views: tuple[FeatureView, ...]

    @property
    def topics(self) -> tuple[Topic, ...]:
        return self.transactions, self.truths, self.frauds


def world() -> World:
    """The example's topic, in three partitions and with less patience; what becomes known comes as other topics."""
    tx = Topic(
        "transactions",
        key="customer_id",
        id="transaction_id",
        event_time="tx_datetime",
        partitions=3,
        max_late="4d",
        dedup="3d",
        fields={
            "transaction_id": hr.int64,
            "tx_datetime": hr.timestamp,
            "customer_id": hr.int64,
            "terminal_id": hr.int64,
            "tx_amount": hr.field(hr.decimal(12, 2), required=True),
            "tx_fraud": hr.field(hr.boolean, available_after="7d"),
        },
    )
    truths = Topic(
        "transactions.tx_fraud",
        key="transaction_id",
        id="number",
        event_time="at",
        partitions=2,
        fields={"number": hr.int64, "transaction_id": hr.int64, "tx_fraud": hr.boolean, "at": hr.timestamp},
    )
    frauds = Topic(
        "frauds",
        key="transaction_id",
        id="number",
        event_time="at",
        fields={"number": hr.int64, "transaction_id": hr.int64, "loss": hr.int64, "at": hr.timestamp},
    )
    window = {"of": tx, "source": frauds, "on": "transaction_id", "within": "5d", "grace": "2d"}
    reported, loss = Label("reported", **window), Label("loss", value=frauds.loss, **window)
    return World(
        transactions=tx,
        truths=truths,
        frauds=frauds,
        labels={"reported": reported, "loss": loss},
        views=_views(tx, reported, loss),
    )


def _views(tx: Topic, reported: Label, loss: Label) -> tuple[FeatureView, ...]:
    """`customer` and `terminal` are those of examples/handbook/definitions.py."""
    return (
        FeatureView(
            "customer",
            entity="customer_id",
            source=tx,
            features=[hr.count().over(*DAYS), hr.mean(tx.tx_amount).over(*DAYS)],
        ),
        FeatureView(
            "terminal",
            entity="terminal_id",
            source=tx,
            features=[
                hr.count().over(*DAYS, delay="7d"),
                hr.rate(tx.tx_fraud).over(*DAYS, delay="7d", empty=0),
            ],
        ),
        FeatureView(
            "habit",
            entity="customer_id",
            source=tx,
            features=[
                hr.min(tx.tx_amount).over("7d"),
                hr.max(tx.tx_amount, current=False).over("30d"),
                hr.std(tx.tx_amount).over("7d"),
                hr.last_n(tx.terminal_id, 3).over("30d"),
                hr.first(tx.tx_amount).over("7d"),
                hr.distinct(tx.terminal_id).over("7d"),
                hr.time_since_last(),
                hr.count().aligned("day", tz="Europe/Brussels"),
            ],
        ),
        FeatureView(
            "risk",
            entity="terminal_id",
            source=tx,
            lag="10m",
            features=[
                hr.rate(reported).over("7d", "30d", empty=0),
                hr.rate(reported, known="so_far").over("7d").named("reported_so_far"),
                hr.sum(tx.tx_amount, where=reported, known="so_far").over("30d").named("amount_reported"),
                hr.mean(loss).over("30d"),
                hr.rate(tx.tx_fraud, known="so_far").over("30d").named("fraud_so_far"),
                hr.last(tx.tx_fraud, known="so_far").over("7d").named("last_fraud"),
                hr.count(where=tx.tx_fraud).over("30d", delay="8d").named("frauds_30d"),
            ],
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A row on its way into the log. imported: it comes with the history."""

    arrival: int
    topic: Topic
    row: Row
    imported: bool = False


def draw(made: World, table: pa.Table, *, days: int, one_in: int, seed: int) -> list[Draft]:
    """What happens in the first `days` at every `one_in`th terminal, in order of arrival: one log a seed."""
    random = np.random.default_rng(seed)
    time = table.column("tx_datetime").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    terminal = table.column("terminal_id").to_numpy().astype(np.int64)
    begin = int(time.min()) // DAY * DAY
    place = np.flatnonzero((terminal % one_in == 0) & (time < begin + days * DAY))
    count = len(place)
    time, terminal = time[place], terminal[place]
    id = table.column("transaction_id").to_numpy()[place]
    customer = table.column("customer_id").to_numpy()[place].astype(np.int64)
    units = np.round(table.column("tx_amount").to_numpy()[place] * 100).astype(np.int64)
    fraud = (table.column("tx_fraud").to_numpy()[place] != 0) | (random.random(count) < 0.08)
    time = np.where(random.random(count) < 0.3, time // TICK * TICK, time)  # ties
    late = random.random(count) < LATE
    ahead = random.random(count) < 0.004
    arrival = time + np.where(late, random.integers(0, LATE_BY, count), random.integers(0, 5 * MINUTE, count))
    arrival = np.where(ahead, time - TICK, arrival)
    imported = time < begin + IMPORTED_DAYS * DAY
    told = random.random(count)  # whose truth an import knows
    again = random.random(count)
    drafts: list[Draft] = []
    columns = (id, time, customer, terminal, units, fraud, imported, told, again, arrival)
    for number, at, who, where, amount, bad, old, knows, retold, came in zip(
        *(c.tolist() for c in columns), strict=True
    ):
        truth = bad if old and knows < 0.9 else None
        row = (number, at, who, where, amount, truth)
        drafts.append(Draft(arrival=at if old else _tick(came), topic=made.transactions, row=row, imported=old))
        if old and retold < 0.005:
            drafts.append(Draft(arrival=at, topic=made.transactions, row=row, imported=True))
        elif not old and retold < 0.02:
            drafts.append(_again(made, row, at, came, retold))
    drafts += _truths(made, random, id, time, fraud)
    drafts += _frauds(made, random, id, time, fraud)
    drafts.sort(key=lambda draft: (not draft.imported, draft.arrival))
    return drafts


def append(made: World, log: Log, clock: ManualClock, drafts: list[Draft]) -> list[tuple[Partition, int, int]]:
    """Into the log, the import first. Returns what came one after the other: (partition, first offset, end)."""
    states = {topic.name: log.declare(topic) for topic in made.topics}
    order: list[tuple[Partition, int, int]] = []
    history = [draft for draft in drafts if draft.imported]
    if history:
        clock.set(Instant(history[-1].arrival))
        partition = log.import_partitions(made.transactions.name, "history")[0].partition
        rows = rows_to_batch(made.transactions.schema, [draft.row for draft in history])
        at = np.array([draft.arrival for draft in history], np.int64)
        log.append([Append(partition=partition, rows=rows, available_at=at)])
        log.import_partitions(made.transactions.name, "history", seal=True)
        order.append((partition, 0, len(history)))
    for arrival, some in groupby((d for d in drafts if not d.imported), key=lambda d: d.arrival):
        clock.set(Instant(arrival))
        rows_of: dict[Partition, list[Row]] = {}
        for draft in some:
            state = states[draft.topic.name]
            key = draft.row[draft.topic.schema.names.index(draft.topic.key)]
            assert isinstance(key, int)
            rows_of.setdefault(state.partitions[partition_of(key, draft.topic.partitions)].partition, []).append(
                draft.row
            )
        appended = log.append([Append(partition=partition, rows=rows) for partition, rows in rows_of.items()])
        order += [(one.partition, one.offset, one.offset + len(one.verdicts)) for one in appended]
    return order


def _again(made: World, row: Row, at: int, came: int, draw: float) -> Draft:
    """The same row within `dedup`, which is 3 days; its id with another payload; or the row after `dedup`, where it is
    another event. draw: below 0.02."""
    if draw < 0.01:
        return Draft(arrival=_tick(came + int(draw * 200 * DAY)), topic=made.transactions, row=row)
    if draw < 0.015:
        number, time, who, where, amount, truth = row
        assert isinstance(amount, int)
        return Draft(
            arrival=_tick(came + DAY), topic=made.transactions, row=(number, time, who, where, amount + 1, truth)
        )
    return Draft(arrival=_tick(max(came, at + 3 * DAY) + 3 * TICK), topic=made.transactions, row=row)


def _tick(at: int) -> int:
    return -(-at // TICK) * TICK


def _truths(
    made: World, random: np.random.Generator, id: Integers, time: Integers, fraud: npt.NDArray[np.bool_]
) -> list[Draft]:
    """Of four in ten transactions, around the time at which it must be known: some before their origin, some long
    after, some corrected, some of nothing that exists, a few null."""
    some = np.flatnonzero(random.random(len(id)) < 0.4)
    some = np.sort(np.concatenate([some, random.choice(some, len(some) // 15)]))
    count = len(some)
    arrival = time[some] + random.integers(-DAY, 12 * DAY, count)
    at = arrival - random.integers(0, DAY, count) - np.where(random.random(count) < 0.02, 8 * DAY, 0)
    flip = random.random(count)
    names = np.where(random.random(count) < 0.01, id[some] + 10**9, id[some])
    said = np.where(flip < 0.05, ~fraud[some], fraud[some])
    return [
        Draft(arrival=_tick(came), topic=made.truths, row=(number, name, None if odd > 0.99 else value, when))
        for number, (came, name, odd, value, when) in enumerate(
            zip(arrival.tolist(), names.tolist(), flip.tolist(), said.tolist(), at.tolist(), strict=True)
        )
    ]


def _frauds(
    made: World, random: np.random.Generator, id: Integers, time: Integers, fraud: npt.NDArray[np.bool_]
) -> list[Draft]:
    """Reports of frauds and of some that were none, from before the transaction to after `within`; some twice."""
    some = np.flatnonzero(fraud | (random.random(len(id)) < 0.02))
    some = np.sort(np.concatenate([some, random.choice(some, len(some) // 10)])) if len(some) else some
    count = len(some)
    at = time[some] + random.integers(-DAY // 2, 6 * DAY, count)
    at = np.where(random.random(count) < 0.02, time[some] + random.choice([0, 5 * DAY], count), at)  # both edges
    arrival = at + random.exponential(DAY, count).astype(np.int64)
    loss = random.integers(0, 500, count)
    return [
        Draft(arrival=_tick(came), topic=made.frauds, row=(number, name, amount if amount else None, when))
        for number, (came, name, amount, when) in enumerate(
            zip(arrival.tolist(), id[some].tolist(), loss.tolist(), at.tolist(), strict=True)
        )
    ]
