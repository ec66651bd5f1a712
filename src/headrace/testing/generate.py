"""Random definitions and random logs, the same for the same seed. Pure, given its `random.Random`.

The one idea: everything lies on a coarse grid, so that what is rare in the world is common here: ties, events exactly
at a window's edge or a microsecond beside it, label events at both ends of `within`, duplicates, ids told again,
partitions that disagree about the time. Values are drawn from the edges of their types: subnormals and 1e308, decimals
whose squares need many bits, int64's ends, nulls.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headrace.core import schema
from headrace.core.aggregate import WITHOUT_INPUT, Function, takes
from headrace.core.availability import latest
from headrace.core.expr import Expr, coalesce, hour, if_else, literal, sqrt, to_expr, weekday
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.schema import DataType, Field, Kind
from headrace.core.times import Duration
from headrace.features.define import Aggregate, Asked, FeatureView, Label, Sources
from headrace.log.define import Topic
from headrace.testing.expressions import Physical
from headrace.testing.oracles import Event, Row, judge_naive

SECOND = 1_000_000
SPAN_SECONDS = 240  # of a log: a few windows long
# Instants around which a log lies: a year's end, both changes of the clock, a day without midnight, before the epoch.
CENTRES = (
    "2026-01-01T00:00:00Z",
    "2026-03-29T01:00:00Z",
    "2026-10-25T01:00:00Z",
    "2018-11-04T03:00:00Z",
    "2026-03-02T00:00:00Z",
    "1969-12-31T23:59:00Z",
)
ZONES = ("UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "America/New_York")
WIDTHS = ("1us", "1s", "2s", "7s", "30s", "2m", "1h", "3d")
DELAYS = ("0s", "0s", "0s", "1us", "1s", "10s", "1m")
UNITS = ("10s", "1m", "hour", "day", "week", "month", "year")
TEXTS = ("web", "shop", "", "é", "\uffff", "\U0001f600")
FLOATS = (0.0, -0.0, 0.1, 0.2, 0.3, 1.0, -1.0, 2.0**53, 1e16, 5e-324, -5e-324, 1e-310, 1.7e308, -1.7e308, 1e100, -1e100)
WHOLES = (0, 1, -1, 7, 2**53 + 1, 2**62, 2**63 - 1, -(2**63))


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Topics, what is defined over them, and what happened.

    rows: what was appended, by topic, in order. events: what the log made of them, as they arrived: each partition's in
    offset order.
    """

    seed: int
    topics: Mapping[str, Topic]
    labels: Mapping[str, Label]
    views: tuple[FeatureView, ...]
    rows: Mapping[str, tuple[Row, ...]]
    events: tuple[Event, ...]
    requests: str = "payments"

    @property
    def main(self) -> Topic:
        """The topic whose events are requests."""
        return self.topics[self.requests]


def story(seed: int, *, size: int | None = None, views: int = 2, features_max: int = 6) -> Story:
    """Of about `size` events (default: 10 to 200, small ones more often)."""
    draw = random.Random(seed)
    world = _World(draw)
    count = draw.choice((10, 25, 50, 80, 200)) if size is None else size
    made = tuple(_view(world, f"v{i}", features_max) for i in range(views))
    topics = {topic.name: topic for topic in world.topics}
    rows = _appends(world, count)
    judged = [event for name, some in rows.items() for event in judge_naive(topics[name], some)]
    return Story(
        seed=seed,
        topics=topics,
        labels={label.name: label for label in world.labels},
        views=made,
        rows=rows,
        events=_arrival(draw, judged),
    )


# --- topics and labels ---


class _World:
    """The topics and labels of one story, and where in time it lies."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        centre = dt.datetime.fromisoformat(draw.choice(CENTRES))
        self.start = int(centre.timestamp()) * SECOND - draw.randrange(SPAN_SECONDS) * SECOND
        self.id = draw.choice((schema.int64, schema.int64, schema.string, None))
        self.amount = schema.decimal(*draw.choice(((12, 2), (18, 0), (18, 6), (18, 18), (5, 1))))
        self.payments = self._topic("payments", self._payment_fields())
        self.refunds = self._topic("refunds", {"amount": self.amount, "good": schema.boolean, "size": schema.float64})
        self.topics = [self.payments, self.refunds]
        self.labels: list[Label] = []
        if self.id is not None:
            self._labels(self.id)
            self._truths(self.id)

    def _payment_fields(self) -> dict[str, DataType | Field]:
        draw = self.draw
        after = [draw.choice(("1s", "5s", "20s")) for _ in range(2)]
        narrow = schema.field(schema.int64, minimum=-100, maximum=1_000, required=draw.random() < 0.5)
        return {
            "amount": self.amount,
            "size": schema.float64,
            "close": schema.field(schema.float64, minimum=-1000, maximum=1000),
            "number": schema.int64,
            "narrow": narrow,
            "channel": schema.string,
            "good": schema.boolean,
            "seen": schema.timestamp,
            "bad": schema.field(schema.boolean, available_after=after[0]),
            "cost": schema.field(draw.choice((self.amount, schema.float64, schema.int64)), available_after=after[1]),
        }

    def _topic(self, name: str, fields: Mapping[str, DataType | Field]) -> Topic:
        draw = self.draw
        named: dict[str, DataType | Field] = {"customer": schema.string, "shop": schema.int64, "at": schema.timestamp}
        if self.id is not None:
            named["id"] = self.id
        return Topic(
            name,
            key="customer",
            id=None if self.id is None else "id",
            event_time="at" if draw.random() < 0.9 else None,
            partitions=draw.choice((1, 2, 3)),
            max_late=draw.choice(("5s", "30s", "1h")),
            max_ahead=draw.choice(("0s", "3s", "1m")),
            dedup=draw.choice(("10s", "1h")),
            skew=draw.choice(("0s", "2s")),
            clock="simulated" if draw.random() < 0.1 else "wall",
            fields=named | dict(fields),
        )

    def _labels(self, id: DataType) -> None:
        draw = self.draw
        own = draw.choice((schema.int64, schema.string, None))
        fields: dict[str, DataType | Field] = {
            "id": id,
            "customer": schema.string,
            "kind": schema.string,
            "loss": schema.int64,
            "at": schema.timestamp,
        }
        if own is not None:
            fields["claim"] = own
        claims = Topic(
            "claims",
            key="customer",
            id=None if own is None else "claim",
            event_time="at",
            partitions=draw.choice((1, 2)),
            max_late=draw.choice(("5s", "1h")),
            fields=fields,
        )
        self.topics.append(claims)
        within, grace = draw.choice(("1s", "10s", "1m")), draw.choice(("0s", "1us", "5s"))
        for name, value in (("claimed", None), ("fraud", claims.kind == "web"), ("loss", claims.loss)):
            self.labels.append(
                Label(name, of=self.payments, source=claims, on="id", within=within, grace=grace, value=value)
            )

    def _truths(self, id: DataType) -> None:
        for column in self.payments.late_columns:
            fields = {"truth": schema.int64, "id": id, column.name: column.type, "at": schema.timestamp}
            self.topics.append(Topic(f"payments.{column.name}", key="id", id="truth", event_time="at", fields=fields))


# --- views ---


def _view(world: _World, name: str, features_max: int) -> FeatureView:
    """A view over payments, over claims, or over payments and refunds; its features' names are f0, f1, ..."""
    draw = world.draw
    kind = draw.choice(("payments", "payments", "payments", "both", "claims"))
    if kind == "claims" and not world.labels:
        kind = "both"
    source, columns = _source(world, kind)
    entity: str | tuple[str, ...] = draw.choice(("customer", "customer", "shop", ("customer", "shop"), "channel"))
    if (kind == "claims" and entity != "customer") or (kind == "both" and entity == "channel"):
        entity = "customer"
    asked = [_asked(world, columns, kind, i) for i in range(draw.randint(1, features_max))]
    return FeatureView(
        name,
        entity=entity,
        source=source,
        features=asked,
        lag=draw.choice(("0s", "0s", "1s", "10s")),
        max_distinct=draw.choice((4_096, 4_096, 2, 4)),
    )


def _source(world: _World, kind: str) -> tuple[Topic | Sources, list[Expr]]:
    """What a view reads, and the expressions over it to draw from."""
    payments, refunds = world.payments, world.refunds
    if kind == "payments":
        labels = [to_expr(label) for label in world.labels]
        return payments, [*(payments[f.name] for f in payments.schema if f.name not in ("id", "at")), *labels]
    if kind == "claims":
        claims = next(topic for topic in world.topics if topic.name == "claims")
        return claims, [claims.kind, claims.loss]
    late = world.draw.choice((payments.good, payments.bad, *(to_expr(x) for x in world.labels[:2])))
    both = Sources(
        payments.emit(customer=payments.customer, shop=payments.shop, delta=payments.amount, sign=late),
        refunds.emit(customer=refunds.customer, shop=refunds.shop, delta=-refunds.amount, sign=refunds.good),
    )
    return both, [both.delta, both.sign, both.shop]


def _asked(world: _World, columns: Sequence[Expr], kind: str, place: int) -> Asked:
    """A feature that the definitions accept: what reads late values waits for them, or takes what is known so far."""
    draw = world.draw
    function = draw.choice(list(Function))
    value = None if function in WITHOUT_INPUT else _value(draw, columns, function)
    where = _condition(draw, columns) if draw.random() < 0.4 and function is not Function.LOOKUP else None
    needed = latest(*(part.availability for part in (value, where) if part is not None))
    so_far = needed.late and draw.random() < 0.5 and function is not Function.LOOKUP
    current = draw.choice((None, None, True, False))
    if function in (Function.SINCE_LAST, Function.LOOKUP) or (function is Function.SINCE_FIRST and draw.random() < 0.9):
        current = None
    aggregate = Aggregate(
        function=function,
        input=value,
        where=where,
        current=current,
        known="so_far" if so_far else "matured",
        n=draw.choice((1, 2, 3, 8)) if function is Function.LAST_N else 1,
        sample=function in (Function.VARIANCE, Function.DEVIATION) and draw.random() < 0.5,
        what="",
    )
    return _windowed(draw, aggregate, needed.after if needed.late and not so_far else None).named(f"f{place}")


def _windowed(draw: random.Random, aggregate: Aggregate, needed: Duration | None) -> Asked:
    """needed: what the window must wait; an aligned one cannot."""
    empty = None
    if aggregate.function in (Function.COUNT, Function.MEAN, Function.RATE, Function.VARIANCE) and draw.random() < 0.3:
        empty = draw.choice((0, -1))
    kind = draw.choice(("over", "over", "over", "lifetime", "aligned"))
    delay = Duration.parse(draw.choice(DELAYS))
    if needed is not None:
        delay = needed + (delay if draw.random() < 0.5 else Duration(0))
        kind = "over" if kind == "aligned" else kind
    if kind == "over":
        return aggregate.over(draw.choice(WIDTHS), delay=delay, empty=empty)
    if kind == "lifetime":
        return aggregate.lifetime(delay=delay, empty=empty)
    unit = draw.choice(UNITS)
    zone = "UTC" if unit[0].isdigit() else draw.choice(ZONES)
    return aggregate.aligned(unit, tz=zone, complete=draw.random() < 0.4, empty=empty)


def _value(draw: random.Random, columns: Sequence[Expr], function: Function) -> Expr:
    """An input that the function takes."""
    for _ in range(20):
        found = draw.choice(columns) if draw.random() < 0.6 else _expression(draw, columns)
        if takes(function, found.type):
            return found
    fits = [c for c in columns if takes(function, c.type)]
    return draw.choice(fits) if fits else if_else(draw.choice(columns).is_null(), True, False)


def _expression(draw: random.Random, columns: Sequence[Expr]) -> Expr:
    one = draw.choice(columns)
    makers: list[Callable[[], Expr]] = [lambda: _condition(draw, columns), lambda: if_else(one.is_null(), 1, 2)]
    numbers = [c for c in columns if c.type.numeric]
    times = [c for c in columns if c.type.kind is Kind.TIMESTAMP]
    if numbers:
        a, b = draw.choice(numbers), draw.choice(numbers)
        makers += [
            lambda: a + b,
            lambda: a - b * 0.5,
            lambda: a / b,
            lambda: -a,
            lambda: abs(a),
            lambda: sqrt(a),
            lambda: coalesce(a, b),
            lambda: coalesce(a, 0),
            lambda: if_else(_condition(draw, columns), a, b),
        ]
    if times:
        moment = draw.choice(times)
        makers += [lambda: hour(moment, tz=draw.choice(ZONES)), lambda: weekday(moment, tz=draw.choice(ZONES))]
    return draw.choice(makers)()


def _condition(draw: random.Random, columns: Sequence[Expr]) -> Expr:
    one = draw.choice(columns)
    match one.type.kind:
        case Kind.BOOLEAN:
            simple = draw.choice((one, ~one))
        case Kind.STRING:
            simple = draw.choice((one == "web", one != "shop", one < "web", one.is_in("web", "")))
        case Kind.TIMESTAMP:
            simple = hour(one) > 12
        case Kind.INT64:
            simple = draw.choice((one > 0, one == 7, one <= literal(2**53)))
        case _:
            simple = draw.choice((one > 0, one < 0.25, one >= 0.1))
    simple = draw.choice((simple, simple, simple, one.is_null(), one.is_not_null()))
    if draw.random() < 0.25:
        other = _condition(draw, columns)
        return draw.choice((simple & other, simple | other))
    return simple


# --- the log ---


@dataclass(slots=True)
class _Draft:
    """A row before the log has judged it."""

    topic: Topic
    partition: int
    at: int
    values: dict[str, Physical]
    request: bool = False


def _appends(world: _World, count: int) -> dict[str, tuple[Row, ...]]:
    drafts = [_payment(world, i) for i in range(count)]
    drafts += [_refund(world) for _ in range(count // 4)]
    if world.labels:
        drafts += [_claim(world, drafts[: max(count, 1)], i) for i in range(count // 3)]
        drafts += [_truth(world, drafts[: max(count, 1)], i) for i in range(count // 4)]
    drafts += [_again(world, drafts) for _ in range(count // 8)]
    drafts.sort(key=lambda d: d.at)
    if world.draw.random() < 0.3:
        drafts += _import(world, max(count // 5, 1))
    if world.draw.random() < 0.5:  # a partition's clock may stand still while others go on
        slow = world.draw.randrange(3)
        for draft in drafts:
            draft.at -= 20 * SECOND if draft.partition == slow else 0
    return {
        topic.name: tuple(
            Row(partition=Partition(topic.name, 1, d.partition), values=d.values, at=d.at, request=d.request)
            for d in drafts
            if d.topic is topic
        )
        for topic in world.topics
    }


def _arrival(draw: random.Random, judged: Sequence[Event]) -> tuple[Event, ...]:
    """One order over all partitions, each in offset order: mostly by available_at, and an import at once."""
    queues: dict[Partition, list[Event]] = {}
    for event in judged:
        queues.setdefault(event.partition, []).append(event)
    order: list[Event] = []
    while queues:
        partitions = sorted(queues)
        chosen = min(partitions, key=lambda p: queues[p][0].available_at)
        if draw.random() < 0.2:
            chosen = draw.choice(partitions)
        whole = chosen.index >= IMPORTS_FROM
        taken = queues[chosen] if whole else queues[chosen][:1]
        order += taken
        queues[chosen] = queues[chosen][len(taken) :]
        if not queues[chosen]:
            del queues[chosen]
    return tuple(order)


def _instant(world: _World) -> int:
    """On the grid, or a microsecond beside it."""
    draw = world.draw
    return world.start + draw.randrange(SPAN_SECONDS) * SECOND + draw.choice((0, 0, 0, 0, 0, 0, 1, -1))


def _event_time(world: _World, topic: Topic, at: int) -> int:
    """About the append instant: late, too late, ahead and too far ahead, at the limits and a microsecond beyond."""
    draw = world.draw
    late, ahead = topic.max_late.micros, topic.max_ahead.micros
    kind = draw.random()
    if kind < 0.6:
        return at - draw.choice((0, 0, 0, 1, SECOND, 2 * SECOND))
    if kind < 0.85:
        return at - draw.randrange(min(late, 60 * SECOND) // SECOND + 1) * SECOND
    if kind < 0.93:
        return at - late - draw.choice((0, 1, SECOND))
    return at + ahead + draw.choice((0, 1, -1, -SECOND))


def _partition(world: _World, topic: Topic) -> int:
    return world.draw.randrange(topic.partitions)


def _whose(world: _World) -> dict[str, Physical]:
    draw = world.draw
    return {"customer": draw.choice(("ann", "ann", "bob", "é")), "shop": draw.choice((1, 1, 2, None))}


def _id(world: _World, id: DataType | None, number: int) -> dict[str, Physical]:
    """Ids of neighbouring events do not rise; some texts are prefixes of others."""
    if id is None:
        return {}
    draw = world.draw
    if id.kind is Kind.INT64:
        return {"id": draw.choice((number, -number, 2**63 - 1 - number))}
    return {"id": draw.choice(("a", "é", "\uffff", "\U0001f600", "")) + str(number * 7 % 100) + "x" * (number // 100)}


def _payment(world: _World, number: int) -> _Draft:
    draw, topic = world.draw, world.payments
    at = _instant(world)
    values = _id(world, world.id, number) | _whose(world) | {"at": _event_time(world, topic, at)}
    for field in topic.schema:
        if field.name not in values and field.available_after is None:
            values[field.name] = _drawn(draw, field, at)
    return _Draft(topic, _partition(world, topic), at, values, draw.random() < 0.3)


def _refund(world: _World) -> _Draft:
    draw, topic = world.draw, world.refunds
    at = _instant(world)
    values = _id(world, world.id, draw.randrange(10_000)) | _whose(world) | {"at": _event_time(world, topic, at)}
    values |= {name: _drawn(draw, topic.schema[name], at) for name in ("amount", "good", "size")}
    return _Draft(topic, _partition(world, topic), at, values)


def _claim(world: _World, payments: Sequence[_Draft], number: int) -> _Draft:
    """About one payment: at both ends of `within` and beside them; a payment that is not there, too."""
    draw = world.draw
    topic, within = next(t for t in world.topics if t.name == "claims"), world.labels[0].within.micros
    about = draw.choice(payments)
    e = about.values["at"]
    assert isinstance(e, int)
    at = e + draw.choice((-SECOND, -1, 0, 0, 1, within, within + 1, draw.randrange(max(within, 1))))
    values: dict[str, Physical] = {
        "id": about.values["id"],
        "customer": draw.choice((about.values["customer"], "ann")),
        "kind": draw.choice((*TEXTS, None)),
        "loss": draw.choice((*WHOLES, None)),
        "at": at,
    }
    if topic.id is not None:
        text = topic.schema["claim"].type.kind is Kind.STRING
        values["claim"] = f"c{number * 7 % 50}{number}" if text else number * 13 % 101 * 1_000 + number
    return _Draft(topic, _partition(world, topic), at + draw.choice((0, 0, SECOND, 30 * SECOND)), values)


def _truth(world: _World, payments: Sequence[_Draft], number: int) -> _Draft:
    draw = world.draw
    column = draw.choice(("bad", "cost"))
    topic = next(t for t in world.topics if t.name == f"payments.{column}")
    about = draw.choice(payments)
    e = about.values["at"]
    assert isinstance(e, int)
    at = e + draw.choice((0, 1, SECOND, 5 * SECOND, 20 * SECOND, 40 * SECOND))
    values = {"id": about.values["id"], "truth": number, column: _drawn(draw, topic.schema[column], at), "at": at}
    return _Draft(topic, _partition(world, topic), at + draw.choice((0, 0, SECOND, 30 * SECOND)), values)


def _again(world: _World, drafts: Sequence[_Draft]) -> _Draft:
    """A row told twice: the same, or with another payload, soon or after `dedup`."""
    draw = world.draw
    first = draw.choice(drafts)
    values = dict(first.values)
    if draw.random() < 0.4:
        values["customer" if "customer" in values else "at"] = "ann" if "customer" in values else first.at
    later = draw.choice((0, SECOND, 15 * SECOND, 2 * first.topic.dedup.micros))
    return _Draft(first.topic, first.partition, first.at + min(later, 100 * SECOND), values, first.request)


def _import(world: _World, count: int) -> list[_Draft]:
    """Payments with their truths, in order of (available_at, order key), available at their event time or later."""
    draw, topic = world.draw, world.payments
    delay = draw.choice((0, SECOND, 30 * SECOND))
    made = []
    for number in range(count):
        draft = _payment(world, draw.choice((number, 10_000 + number)))
        e = draft.values["at"]
        assert isinstance(e, int)
        for field in topic.late_columns:
            draft.values[field.name] = _drawn(draw, field, e)
        made.append(_Draft(topic, IMPORTS_FROM, e + delay, draft.values))
    return sorted(made, key=lambda d: (d.at, d.values["at"], d.values.get("id", 0)))


def _drawn(draw: random.Random, field: Field, at: int) -> Physical:
    """A value of the field, null one time in eight where it may be."""
    if not field.required and draw.random() < 0.125:
        return None
    plain = draw.random() < 0.5
    match field.type.kind:
        case Kind.FLOAT64 if field.maximum is not None:
            return draw.choice((0.1, 999.99, -1000.0, 5e-324, 1e-9, draw.uniform(-1000, 1000)))
        case Kind.FLOAT64:
            return draw.choice((0.5, 12.25, draw.uniform(-100, 100))) if plain else draw.choice(FLOATS)
        case Kind.DECIMAL:
            edge = 10**field.type.precision - 1
            return draw.randint(-99, 99) if plain else draw.choice((edge, -edge, edge // 3, 0))
        case Kind.INT64 if field.maximum is not None:
            return draw.choice((-100, 0, 7, 1_000, draw.randint(-100, 1_000)))
        case Kind.INT64:
            return draw.randint(-9, 9) if plain else draw.choice(WHOLES)
        case Kind.BOOLEAN:
            return draw.random() < 0.5
        case Kind.TIMESTAMP:
            return at - draw.randrange(10**6) * SECOND
    return draw.choice(TEXTS)
