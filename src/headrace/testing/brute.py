"""Large logs answered by brute force over arrays, for what small ones cannot reach: many chunks of one hot key. Pure.

The one idea: a query is a mask over every event of its entity, and the value is made of what the mask leaves, by
Python's exact integers; no totals, no order kept, nothing shared with the kernel. The definitions are fixed in shape
and random in their windows; the log has a hot key, ties everywhere, late events, labels that come in any order.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core import schema
from headrace.core.aggregate import Function
from headrace.core.codec import decimals, instants
from headrace.core.points import Cut, Partition
from headrace.core.window import Lifetime, Sliding
from headrace.features import define as features
from headrace.features.define import Aggregate, Feature, FeatureView, Label
from headrace.log.define import Topic
from headrace.log.port import SYSTEM_COLUMNS

SECOND = 1_000_000
SPAN_SECONDS = 20_000
WHO, SHOPS = 6, 40
PARTITIONS = 2

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

sales = Topic(
    "sales",
    key="who",
    id="id",
    event_time="at",
    partitions=PARTITIONS,
    max_late="1000d",
    fields={
        "id": schema.int64,
        "who": schema.int64,
        "shop": schema.int64,
        "amount": schema.decimal(18, 2),
        "size": schema.float64,
        "money": schema.field(schema.float64, minimum=-1e6, maximum=1e6),
        "at": schema.timestamp,
    },
)
returns = Topic(
    "returns", key="id", event_time="at", max_late="1000d", fields={"id": schema.int64, "at": schema.timestamp}
)
returned = Label("returned", of=sales, source=returns, on="id", within="200s", grace="50s")
WITHIN, MATURITY = 200 * SECOND, 250 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LargeLog:
    """Events in order of arrival, as arrays. null: where amount, size and money are null. told_*: label events, by the
    number of sales that arrived before each; `told_of` is the sale's place, `told_at` when. exact: columns as
    integers."""

    seed: int
    time: Integers
    id: Integers
    who: Integers
    shop: Integers
    amount: Integers
    size: npt.NDArray[np.float64]
    money: npt.NDArray[np.float64]
    null: Mask
    partition: Integers
    offset: Integers
    told_before: Integers
    told_of: Integers
    told_at: Integers
    exact: dict[str, list[int]]

    def __len__(self) -> int:
        return len(self.time)

    def table(self, partition: int) -> pa.Table:
        """One partition's sales, as the log's `read` gives them."""
        rows = np.flatnonzero(self.partition == partition)
        columns = [
            pa.array(self.id[rows]),
            pa.array(self.who[rows]),
            pa.array(self.shop[rows]),
            decimals(self.amount[rows], schema.decimal(18, 2), self.null[rows]),
            pa.array(self.size[rows], mask=self.null[rows]),
            pa.array(self.money[rows], mask=self.null[rows]),
            instants(self.time[rows]),
        ]
        return _as_read(sales, self.time[rows], columns)

    def returns(self) -> pa.Table:
        return _as_read(returns, self.told_at, [pa.array(self.id[self.told_of]), instants(self.told_at)])

    def cut(self, place: int) -> Cut:
        """What had arrived before the sale at a place."""
        ends = {Partition("sales", 1, p): int((self.partition[:place] == p).sum()) for p in range(PARTITIONS)}
        return Cut.of(ends | {Partition("returns", 1, 0): int(np.searchsorted(self.told_before, place, side="right"))})


def _as_read(topic: Topic, times: Integers, columns: Sequence[pa.Array]) -> pa.Table:
    system = [
        pa.array(np.arange(len(times), dtype=np.int64)),
        instants(np.maximum.accumulate(times)),
        instants(times),
        pa.array(np.zeros(len(times), np.uint8)),
    ]
    fields = [*SYSTEM_COLUMNS, *(pa.field(f.name, f.type.arrow) for f in topic.schema)]
    return pa.Table.from_arrays([*system, *columns], schema=pa.schema(fields))


def large_log(seed: int, size: int) -> LargeLog:
    """Half of the sales are one person's; one in ten comes late, by up to the whole span."""
    draw = np.random.default_rng(seed)
    time = np.sort(draw.integers(0, SPAN_SECONDS, size)) * SECOND
    late = draw.random(size) < 0.1
    time = np.where(late, draw.integers(0, time // SECOND + 1) * SECOND, time).astype(np.int64)
    partition = draw.integers(0, PARTITIONS, size)
    offset = np.zeros(size, np.int64)
    for p in range(PARTITIONS):
        offset[partition == p] = np.arange((partition == p).sum())
    told_of = draw.integers(0, size, size // 5)
    told_before = np.clip(told_of + draw.integers(-200, 2_000, len(told_of)), 0, size)
    order = np.argsort(told_before, kind="stable")
    wide = draw.choice(np.array([1.0, 1e-9, 1e9, 1e300, 1e-300]), size, p=[0.9, 0.04, 0.04, 0.01, 0.01])
    amount, size_of = draw.integers(-(10**17), 10**17, size), draw.normal(size=size) * wide
    money = np.round(draw.normal(size=size) * 1e3, 2)
    return LargeLog(
        seed=seed,
        time=time,
        id=draw.permutation(size).astype(np.int64),
        who=np.where(draw.random(size) < 0.5, 0, draw.integers(0, WHO, size)),
        shop=draw.integers(0, SHOPS, size),
        amount=amount,
        size=size_of,
        money=money,
        null=draw.random(size) < 0.05,
        partition=partition,
        offset=offset,
        told_before=told_before[order],
        told_of=told_of[order],
        told_at=(time[told_of] + draw.integers(-5, 220, len(told_of)) * SECOND)[order],
        exact={
            "amount": amount.tolist(),
            "size": [_units(x) for x in size_of.tolist()],
            "money": [_units(x) for x in money.tolist()],
        },
    )


def large_view(seed: int) -> FeatureView:
    """Every aggregate, over windows drawn anew."""
    draw = random.Random(seed)
    kinds: list[Aggregate] = [
        features.count(),
        features.count(where=sales.shop < 7),
        features.sum(sales.amount),
        features.mean(sales.amount),
        features.variance(sales.amount),
        features.sum(sales.size),
        features.mean(sales.size, where=sales.shop > 30),
        features.std(sales.size, sample=True),
        features.std(sales.money),
        features.sum(sales.money),
        features.min(sales.size),
        features.max(sales.amount),
        features.first(sales["id"]),
        features.last(sales["id"]),
        features.last_n(sales["id"], 5),
        features.distinct(sales.shop),
        features.time_since_last(),
        features.rate(returned),
        features.rate(returned, known="so_far"),
    ]
    asked = []
    for place, kind in enumerate(kinds):
        width = draw.choice(("1s", "10s", "3m", "1h", "2h"))
        waits = draw.choice(("0s", "1s", "30s", "20m"))
        if kind.function is Function.RATE and kind.known == "matured":
            waits = draw.choice(("250s", "20m"))
        over = kind.lifetime(delay=waits) if draw.random() < 0.2 else kind.over(width, delay=waits)
        asked.append(over.named(f"f{place}"))
    return FeatureView("large", entity="who", source=sales, features=asked)


def answer(log: LargeLog, view: FeatureView, place: int) -> tuple[list[object], int]:
    """What the view says to the sale at a place, as a request that saw all that had arrived; and of how many events
    each value was drawn: those of the entity."""
    mine = np.flatnonzero(log.who[:place] == log.who[place])
    return [_value(log, feature, mine, place) for feature in view.features], len(mine)


def _value(log: LargeLog, feature: Feature, mine: Integers, place: int) -> object:
    window, t = feature.window, int(log.time[place])
    assert isinstance(window, (Sliding, Lifetime))
    high = t - window.delay.micros
    low = -(2**62) if isinstance(window, Lifetime) else high - window.width.micros
    candidates = np.append(mine, place) if feature.current else mine
    inside = candidates[(log.time[candidates] > low) & (log.time[candidates] <= high)]
    if feature.name == "f1":
        inside = inside[log.shop[inside] < 7]
    if feature.name == "f6":
        inside = inside[log.shop[inside] > 30]
    if feature.function is Function.COUNT:
        return len(inside)
    if feature.function is Function.SINCE_LAST:
        return t - int(log.time[inside].max()) if len(inside) else None
    if feature.function is Function.RATE:
        so_far = _returned(log, place, t)[inside]
        return int(so_far.sum()) / len(inside) if len(inside) else None
    if feature.function in (Function.FIRST, Function.LAST, Function.LAST_N):
        ordered = inside[np.lexsort((log.id[inside], log.time[inside]))]
        return _ends(feature, log.id[ordered].tolist())
    if feature.function is Function.DISTINCT:
        return len(np.unique(log.shop[inside])) or None
    return _folded(log, feature, inside[~log.null[inside]])


def _returned(log: LargeLog, place: int, t: int) -> Mask:
    """Which sales are known to be returned: a label event in [e, min(e + within, t)] has arrived."""
    arrived = log.told_before <= place
    begun = log.time[log.told_of]
    counts = arrived & (log.told_at >= begun) & (log.told_at <= begun + WITHIN) & (log.told_at <= t)
    mask = np.zeros(len(log), np.bool_)
    mask[log.told_of[counts]] = True
    return mask


def _ends(feature: Feature, ids: list[int]) -> object:
    if not ids:
        return None
    match feature.function:
        case Function.FIRST:
            return ids[0]
        case Function.LAST:
            return ids[-1]
    return ids[-feature.n :]


def _folded(log: LargeLog, feature: Feature, inside: Integers) -> object:
    """Of values that are not null, as exact integers: decimals in units, floats in the smallest subnormal's."""
    n = len(inside)
    if n == 0:
        return None
    name = _COLUMN[feature.name]
    match feature.function:
        case Function.MIN:
            return getattr(log, name)[inside].min().item()
        case Function.MAX:
            return getattr(log, name)[inside].max().item()
    whole = log.exact[name]
    exact, unit = [whole[i] for i in inside.tolist()], 100 if name == "amount" else 1 << 1074
    total = sum(exact)
    divisor = n - 1 if feature.sample else n
    if feature.function is Function.SUM and name == "amount":
        return total
    if divisor == 0:
        return None
    try:
        match feature.function:
            case Function.SUM:
                return total / unit + 0.0
            case Function.MEAN:
                return total / (n * unit) + 0.0
        spread = (n * sum(value * value for value in exact) - total * total) / (n * divisor * unit * unit)
        return math.sqrt(spread) if feature.function is Function.DEVIATION else spread
    except OverflowError:
        return None


_COLUMN = dict.fromkeys(("f2", "f3", "f4", "f11"), "amount") | dict.fromkeys(("f5", "f6", "f7", "f10"), "size")
_COLUMN |= {"f8": "money", "f9": "money"}


def _units(x: float) -> int:
    """x / 2**-1074, exactly: every double is a whole number of the smallest subnormal."""
    above, below = x.as_integer_ratio()
    return above * ((1 << 1074) // below)
