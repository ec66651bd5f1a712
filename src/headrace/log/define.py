"""Topics: what a fact is, who it belongs to, when it happened, how late it may come. Frozen, pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.core.availability import Availability, Lateness
from headrace.core.errors import DefinitionError
from headrace.core.expr import Expr, Operand, Reference, Source, to_expr
from headrace.core.rates import Rate
from headrace.core.schema import DataType, Field, Kind, Schema
from headrace.core.times import Duration

MAX_LATE = Duration.parse("7d")
MAX_AHEAD = Duration.parse("5m")
DEDUP = Duration.parse("14d")
SKEW = Duration.parse("1m")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/@-]{0,62}\Z")  # of an owner, of a tag: what a table shows in one line


class Clock(enum.Enum):
    """Where available_at comes from. SIMULATED: the running maximum of event times (replays, demos, tests)."""

    WALL = "wall"
    SIMULATED = "simulated"


class Payload(enum.Enum):
    """How a topic's rows lie in Kafka. JSON: one record an event, which any client can write. ARROW: one Arrow batch a
    record, for headrace's own topics and for bulk. The embedded log has its own form for both."""

    JSON = "json"
    ARROW = "arrow"


class Partitioning(enum.Enum):
    """Who chooses an event's partition (docs/KAFKA.md K3). OWN: its key does, by headrace's rule; an event elsewhere is
    set aside. FOREIGN: its producers do, by a rule of their own; views and decisions read a derived topic."""

    OWN = "own"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stewardship:
    """Who looks after a topic, and how: nothing that an event of it means.

    owner: a team; "" for nobody. tags: in order of the alphabet, each once. quota: what one producer may send; None for
    no limit. protected: its rows are deleted, and it is retired, with an approval only.
    """

    owner: str = ""
    tags: tuple[str, ...] = ()
    quota: Rate | None = None
    protected: bool = True

    @classmethod
    def of(cls, topic: str, owner: str, tags: Sequence[str], quota: str | Rate | None, protected: bool) -> Stewardship:
        """Raises: DefinitionError HR-0810 for what is no owner, tag or rate."""
        if isinstance(tags, str):
            raise _unfit(topic, f"tags {tags!r}", "expected several texts, as in tags=['pii', 'payments']")
        for what, word in (*((("owner", owner),) if owner else ()), *(("tag", tag) for tag in tags)):
            if not isinstance(word, str) or not _WORD.match(word):
                raise _unfit(topic, f"{what} {word!r}", "expected letters, digits, spaces and ._:/@-, at most 63")
        return cls(
            owner=owner,
            tags=tuple(sorted(set(tags))),
            quota=None if quota is None else Rate.parse(quota),
            protected=bool(protected),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """A topic's events are another's, in partitions of another key (docs/KAFKA.md K2). of: that topic's name."""

    of: str


@dataclass(frozen=True, slots=True)
class Emission:
    """One source of a view: a topic, and the expression behind each value it emits."""

    topic: Topic
    columns: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, init=False)
class Topic:
    """A named stream of facts.

    Fields are attributes: `applications.amount` is an expression; where a field has the name of an attribute of the
    topic itself (key, id, name ...), write `applications["name"]`. Raises: DefinitionError HR-0101 to HR-0109,
    HR-0810.
    """

    name: str
    schema: Schema
    key: str
    id: str | None
    event_time: str | None
    partitions: int
    max_late: Duration
    max_ahead: Duration
    dedup: Duration
    skew: Duration
    retention: Duration | None
    clock: Clock
    payload: Payload
    partitioning: Partitioning
    stewardship: Stewardship
    derivation: Derivation | None
    description: str

    def __init__(
        self,
        name: str,
        *,
        key: str,
        fields: Mapping[str, DataType | Field],
        id: str | None = None,
        event_time: str | None = None,
        partitions: int = 1,
        max_late: str | Duration = MAX_LATE,
        max_ahead: str | Duration = MAX_AHEAD,
        dedup: str | Duration = DEDUP,
        skew: str | Duration = SKEW,
        retention: str | Duration | None = None,
        clock: Clock | str = Clock.WALL,
        payload: Payload | str = Payload.JSON,
        partitioning: Partitioning | str = Partitioning.OWN,
        owner: str = "",
        tags: Sequence[str] = (),
        quota: str | Rate | None = None,
        protected: bool = True,
        derivation: Derivation | None = None,
        description: str = "",
    ) -> None:
        """key: the field that chooses the partition, never null. id: the field that identifies an event, never null; a
        request's topic must have one. event_time: the field that says when it happened; without one, the append
        instant. retention: None keeps for ever. derivation: of a derived topic, as `hr.derived_topic` makes it. owner,
        tags, quota, protected: `Stewardship`; they are the topic's `stewardship`, so that fields may have these
        names."""
        put = object.__setattr__
        put(self, "name", _topic_name(name))
        put(self, "schema", Schema.of(name, fields))
        put(self, "key", key)
        put(self, "id", id)
        put(self, "event_time", event_time)
        put(self, "partitions", partitions)
        put(self, "max_late", Duration.parse(max_late))
        put(self, "max_ahead", Duration.parse(max_ahead))
        put(self, "dedup", Duration.parse(dedup))
        put(self, "skew", Duration.parse(skew))
        put(self, "retention", None if retention is None else Duration.parse(retention))
        put(self, "clock", Clock(clock))
        put(self, "payload", Payload(payload))
        put(self, "partitioning", Partitioning(partitioning))
        put(self, "stewardship", Stewardship.of(name, owner, tags, quota, protected))
        put(self, "derivation", derivation)
        put(self, "description", description)
        self._check()

    def _check(self) -> None:
        for role in ("key", "id", "event_time"):
            named = getattr(self, role)
            if named is not None and self.schema[named].available_after is not None:
                raise DefinitionError(
                    "HR-0107", f"topic {self.name!r}: its {role} {named!r} cannot come later than the event"
                )
        if self.event_time is not None and self.schema[self.event_time].type.kind is not Kind.TIMESTAMP:
            seen = self.schema[self.event_time].type
            raise DefinitionError(
                "HR-0108",
                f"topic {self.name!r}: event_time {self.event_time!r} is not a timestamp",
                detail=f"expected timestamp, seen {seen}",
            )
        for role in ("key", "id"):
            named = getattr(self, role)
            if named is not None and self.schema[named].type.kind not in (Kind.STRING, Kind.INT64):
                raise DefinitionError(
                    "HR-0108",
                    f"topic {self.name!r}: {role} {named!r} cannot identify",
                    detail=f"expected string or int64, seen {self.schema[named].type}",
                )
        if not 1 <= self.partitions <= 1024:
            raise DefinitionError(
                "HR-0109", f"topic {self.name!r}: {self.partitions} partitions", detail="expected 1 to 1024"
            )

    @property
    def required(self) -> frozenset[str]:
        """Fields that are never null: the key, the id, the event time, and those declared so."""
        named = {n for n in (self.key, self.id, self.event_time) if n is not None}
        return frozenset(named | {f.name for f in self.schema if f.required})

    @property
    def late_columns(self) -> tuple[Field, ...]:
        return tuple(f for f in self.schema if f.available_after is not None)

    def __getitem__(self, name: str) -> Reference:
        """The field as an expression. Raises: DefinitionError HR-0106 with the nearest name."""
        f = self.schema[name]
        availability = (
            Availability()
            if f.available_after is None
            else Availability(f.available_after, Lateness.COLUMN, (f"{self.name}.{f.name}",))
        )
        return Reference(
            source=Source.FIELD,
            owner=self.name,
            name=name,
            type=f.type,
            nullable=name not in self.required,
            availability=availability,
        )

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("_") or "schema" not in self.__dict__:
            raise AttributeError(name)
        return self[name]

    def emit(self, **columns: Operand) -> Emission:
        """This topic as one source of a view, each named value by its own expression."""
        return Emission(self, tuple((name, to_expr(value)) for name, value in columns.items()))


def _unfit(topic: str, what: str, detail: str) -> DefinitionError:
    return DefinitionError("HR-0810", f"topic {topic!r}: {what} cannot be", detail=detail)


def _topic_name(name: str) -> str:
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise DefinitionError(
            "HR-0101",
            f"{name!r} cannot name a topic",
            detail="expected identifiers joined by dots, as in 'lender.applications'",
        )
    return name
