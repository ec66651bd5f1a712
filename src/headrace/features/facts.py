"""What becomes known of an event after it: label events and the live truths of late columns (SEMANTICS 4.1, 4.2). Pure.

The one idea: a fact is kept by the id of the origin it names, and what an origin's columns hold is a function of both
sets, so neither waits for the other: `FactJoin.breakpoints` says from which instant on which value is known, and is the
same whatever came first. Online and replay use it alike: a `FactReader` finds the facts in a topic's events,
`OriginFacts` merges all labels and late columns of a topic into steps, and `updates` turns the steps into what the
kernel's UPDATE takes.

Facts are Python objects: they are rare beside origins, and origins without facts never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.availability import NOW
from headrace.core.codec import physical_list, units
from headrace.core.columns import evaluate_columns
from headrace.core.evaluate import compile_scalar
from headrace.core.expr import Expr, references
from headrace.features.define import Label
from headrace.log.define import Topic
from headrace.log.port import EVENT_TIME, OFFSET, TAKEN, VERDICT, Physical, Verdict

Id = int | str
Order = tuple[Id, int, int]  # (id of the fact's own event, or 0 where its topic has none; partition index; offset)
Fact = tuple[int, Id, int, int, Physical]  # event_time, order, value: its first four are the order key
Breakpoint = tuple[int, Physical]  # from this instant on, this value
Known = Mapping[str, Physical]  # label or late column -> what is known of it; absent: nothing yet
Step = tuple[int, dict[str, Physical]]  # from this instant on, this is known


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRule:
    """How events of `topic` say something of events of `origin`.

    name: the label's, or the late column's. on: the field that names the origin by its id. value: what a fact says, an
    expression over `topic`; None where its being there says True. within: of a label, how long after its origin's event
    time a fact counts, in microseconds; None for a late column. after: of a late column, its D; 0 for a label.
    """

    name: str
    origin: str
    topic: str
    on: str
    value: Expr | None
    within: int | None
    after: int = 0

    @classmethod
    def of_label(cls, label: Label) -> FactRule:
        return cls(
            name=label.name,
            origin=label.of.name,
            topic=label.source.name,
            on=label.on,
            value=label.value,
            within=label.within.micros,
        )

    @classmethod
    def of_late(cls, topic: Topic, column: str) -> FactRule:
        """Of a late column: its truths are events of `<topic>.<column>`, which name the origin in a field called as its
        id and hold the truth in a field called as the column. A topic without id has imported truths only."""
        declared = topic[column]
        return cls(
            name=column,
            origin=topic.name,
            topic=f"{topic.name}.{column}",
            on=topic.id or "",
            value=replace(declared, owner=f"{topic.name}.{column}", availability=NOW),
            within=None,
            after=declared.availability.after.micros,
        )


class FactJoin:
    """The facts of one label or late column, by the origin they name. Any order of arrival gives the same answers.

    Cost: `fact` and `breakpoints` are linear in the facts of that one origin; some 250 bytes a fact.
    """

    __slots__ = ("_facts", "rule")

    def __init__(self, rule: FactRule) -> None:
        self.rule = rule
        self._facts: dict[Id, tuple[Fact, ...]] = {}

    def fact(self, origin: Id, event_time: int, order: Order, value: Physical = True) -> bool:
        """Take a visible fact; its origin may come later. Returns whether it is new: the same order key is one fact.

        order: (id, partition index, offset) of the fact's own event. The caller leaves out verdicts it must not see:
        of online state and *available* all but TAKEN (SEMANTICS 1.4).
        """
        made: Fact = (event_time, *order, value)
        held = self._facts.get(origin)
        if held is None:
            self._facts[origin] = (made,)
            return True
        place = len(held)
        while place and held[place - 1][:4] > made[:4]:
            place -= 1
        if place and held[place - 1][:4] == made[:4]:
            return False
        self._facts[origin] = (*held[:place], made, *held[place:])
        return True

    def breakpoints(self, origin: Id, event_time: int, imported: Physical = None) -> list[Breakpoint]:
        """What is known of the origin event at `event_time`, ascending by instant, no two neighbours equal.

        imported: the late column's value in the row itself; a live row has none. Before the first breakpoint nothing is
        known: a label is false (boolean) or null, a late column null, or false where a boolean is read `so_far`.
        """
        facts = self._facts.get(origin, ())
        within = self.rule.within
        if within is None:
            return self._truths(facts, event_time, imported)
        last = event_time + within
        inside = [(fact[0], fact[4]) for fact in facts if event_time <= fact[0] <= last]
        if self.rule.value is None:
            return [(inside[0][0], True)] if inside else []
        return _compressed(inside)

    def _truths(self, facts: Sequence[Fact], event_time: int, imported: Physical) -> list[Breakpoint]:
        """Known at t is the last by order key of the live truths up to t and, from event_time + D on, the imported one.

        The imported truth's order key is its row's, so a live truth of the same instant or later stands above it. The D
        test of live truths is the window's: it waits at least D, or says so_far, which drops it (SEMANTICS 4.4).
        """
        if imported is None:
            return _compressed([(fact[0], fact[4]) for fact in facts])
        arrivals: list[tuple[int, tuple[Physical, ...], Physical]] = [
            (event_time + self.rule.after, (event_time,), imported)
        ]
        arrivals.extend((fact[0], fact[:4], fact[4]) for fact in facts)
        arrivals.sort(key=lambda arrival: arrival[:2])  # a shorter tuple stands before a longer with the same beginning
        steps: list[Breakpoint] = []
        newest: tuple[Physical, ...] | None = None
        for known_from, key, value in arrivals:
            if newest is None or key > newest:  # type: ignore[operator]  # ids of one topic have one type
                newest = key
                steps.append((known_from, value))
        return _compressed(steps)

    def ids(self) -> KeysView[Id]:
        """The origins that facts name, known or not."""
        return self._facts.keys()

    def facts(self) -> Iterator[tuple[Id, Fact]]:
        """All that is held, for a checkpoint; per origin by order key."""
        for origin, held in self._facts.items():
            for fact in held:
                yield origin, fact

    def __len__(self) -> int:
        return sum(len(held) for held in self._facts.values())

    def forget(self, before: int, origins: Iterable[Id]) -> None:
        """Drop what can no longer count: no retained origin has an event time up to `before`.

        Of a label every fact up to `before` goes, as a fact never precedes its origin. A truth may, so only those of
        `origins`, the ids that were forgotten, go; one whose origin never came is kept.
        """
        ids = self._facts if self.rule.within is not None else dict.fromkeys(origins)  # an id may have named several
        named = [origin for origin in ids if origin in self._facts]
        for origin in named:
            kept = tuple(fact for fact in self._facts[origin] if fact[0] > before)
            if kept:
                self._facts[origin] = kept
            else:
                del self._facts[origin]


class FactReader:
    """Finds one rule's facts in the events of its topic. Raises: DefinitionError HR-0106 where the topic lacks a
    field."""

    def __init__(self, rule: FactRule, topic: Topic) -> None:
        """topic: the definition of `rule.topic`."""
        self.rule = rule
        self._fields = topic.schema.names
        self._id = topic.id
        topic.schema[rule.on]
        for reference in () if rule.value is None else references(rule.value):
            topic.schema[reference.name]
        self._on_place = self._fields.index(rule.on)
        self._id_place = None if topic.id is None else self._fields.index(topic.id)
        names = [f"{topic.name}.{name}" for name in self._fields]
        self._value = None if rule.value is None else compile_scalar(rule.value, names)

    def row(self, partition: int, offset: int, row: Sequence[Physical]) -> tuple[Id, Order, Physical] | None:
        """(origin, order, value) of one event; None where it names no origin. row: the topic's fields, physical."""
        origin = row[self._on_place]
        if origin is None:
            return None
        id = 0 if self._id_place is None else row[self._id_place]
        value = True if self._value is None else self._value(row)
        return origin, (id, partition, offset), value  # type: ignore[return-value]  # ids are never null, int or str

    def batch(
        self, partition: int, batch: pa.RecordBatch, verdicts: Sequence[Verdict] = TAKEN
    ) -> Iterator[tuple[Id, int, Order, Physical]]:
        """(origin, event_time, order, value) of every event with one of the verdicts that names an origin, as `fact`
        takes them. batch: as the log's `read` gives it."""
        kept = pc.and_(
            pc.is_in(batch.column(VERDICT), pa.array(list(verdicts), pa.uint8())),
            pc.is_valid(batch.column(self.rule.on)),
        )
        batch = batch.filter(kept)
        if not batch.num_rows:
            return
        offsets = batch.column(OFFSET).to_pylist()
        ids = [0] * batch.num_rows if self._id is None else batch.column(self._id).to_pylist()
        values: Sequence[Physical] = [True] * batch.num_rows
        if self.rule.value is not None:
            columns = {f"{self.rule.topic}.{name}": batch.column(name) for name in self._fields}
            values = physical_list(evaluate_columns(self.rule.value, columns, rows=batch.num_rows))
        times = units(batch.column(EVENT_TIME)).tolist()
        origins = batch.column(self.rule.on).to_pylist()
        for origin, time, id, offset, value in zip(origins, times, ids, offsets, values, strict=True):
            yield origin, time, (id, partition, offset), value


class OriginFacts:
    """All labels and late columns that the views over one topic read: what is known of its events, from when on."""

    __slots__ = ("joins", "_single")

    def __init__(self, joins: Sequence[FactJoin]) -> None:
        self.joins = {join.rule.name: join for join in joins}
        self._single = joins[0] if len(joins) == 1 else None

    def __contains__(self, origin: object) -> bool:
        if self._single is not None:
            return origin in self._single.ids()
        return any(origin in join.ids() for join in self.joins.values())

    def ids(self) -> set[Id]:
        """The origins that any fact names; all others have no steps but those of imported truths."""
        return {origin for join in self.joins.values() for origin in join.ids()}

    def steps(self, origin: Id, event_time: int, imported: Known) -> list[Step]:
        """Everything known of an origin, ascending by instant; each step says all that is known from it on.

        imported: the late columns of its own row that are not null, by name.
        """
        if self._single is not None:
            name = self._single.rule.name
            found = self._single.breakpoints(origin, event_time, imported.get(name))
            return [(known_from, {name: value}) for known_from, value in found]
        return merged(
            {name: join.breakpoints(origin, event_time, imported.get(name)) for name, join in self.joins.items()}
        )

    def of_row(self, event_time: int, imported: Known) -> list[Step]:
        """The steps of an origin that no fact names: what the truths in its own row say, each from its D on."""
        return merged({name: [(event_time + self.joins[name].rule.after, imported[name])] for name in imported})

    def known(self, origin: Id, event_time: int, t: int, imported: Known) -> Known:
        """What is known of an origin at t: of a request before it is in the log, t is its event time."""
        found: Known = {}
        if not imported and origin not in self:
            return found
        for known_from, known in self.steps(origin, event_time, imported):
            if known_from > t:
                break
            found = known
        return found

    def forget(self, before: int, origins: Iterable[Id]) -> None:
        gone = list(origins)
        for join in self.joins.values():
            join.forget(before, gone)


def merged(parts: Mapping[str, Sequence[Breakpoint]]) -> list[Step]:
    """The breakpoints of several names as steps that each say all that is known."""
    changes: dict[int, dict[str, Physical]] = {}
    for name, breakpoints in parts.items():
        for known_from, value in breakpoints:
            changes.setdefault(known_from, {})[name] = value
    steps: list[Step] = []
    known: dict[str, Physical] = {}
    for known_from in sorted(changes):
        known = {**known, **changes[known_from]}
        steps.append((known_from, known))
    return steps


class Update(NamedTuple):
    """What the kernel's UPDATE of one entry takes. reset: its column forgets what it held, the insert included."""

    column: int
    known_from: int
    value: int
    valid: bool
    reset: bool


Words = tuple[int, Sequence[int]]  # valid bits and values of a row's columns, as SourcePlan.columns_row gives them
FROM_THE_BEGINNING = -(2**63)  # the kernel's instant before all others


def updates(
    columns: Sequence[int],
    base: Words,
    before: Sequence[Step],
    after: Sequence[Step],
    evaluate: Callable[[Known], Words],
) -> list[Update]:
    """The fewest updates that take an entry's columns from the steps `before` to the steps `after`, in order.

    columns: those of the program that keep a history. base: what the entry was inserted with. before: the steps that
    earlier updates brought, none for a new entry. evaluate: the row's columns when so much is known. A column whose
    new steps only go on from the old ones is added to; any other is told anew, from its base on.
    """
    old = [(known_from, evaluate(known)) for known_from, known in before]
    new = [(known_from, evaluate(known)) for known_from, known in after]
    result: list[Update] = []
    for column in columns:
        first = _word(base, column)
        held, wanted = _history(column, first, old), _history(column, first, new)
        if held == wanted[: len(held)]:
            wanted = wanted[len(held) :]
        else:
            result.append(Update(column, FROM_THE_BEGINNING, first[1], first[0], True))
        result.extend(Update(column, known_from, value, valid, False) for known_from, (valid, value) in wanted)
    return result


def _history(
    column: int, first: tuple[bool, int], steps: Sequence[tuple[int, Words]]
) -> list[tuple[int, tuple[bool, int]]]:
    """The steps at which a column's own value changes."""
    result = []
    last = first
    for known_from, words in steps:
        now = _word(words, column)
        if now != last:
            result.append((known_from, now))
            last = now
    return result


def _word(words: Words, column: int) -> tuple[bool, int]:
    """(whether it is there, its value or 0)."""
    there = bool(words[0] >> column & 1)
    return there, words[1][column] if there else 0


def _compressed(steps: Iterable[Breakpoint]) -> list[Breakpoint]:
    """Ascending steps by order key: of one instant the last stands, and a step that changes nothing goes."""
    latest: dict[int, Physical] = {}
    for known_from, value in steps:
        latest[known_from] = value
    result: list[Breakpoint] = []
    for known_from, value in latest.items():
        if not result or result[-1][1] != value or type(result[-1][1]) is not type(value):
            result.append((known_from, value))
    return result
