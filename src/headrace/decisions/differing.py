"""How two answers to the same requests differ, counted: by outcome, reason and segment. Pure.

The one idea: one way to count, whoever gave the two answers: a record and a dry run, or a decision and its challenger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headrace.core.codec import Physical, json_value
from headrace.decisions.define import Outcome
from headrace.decisions.plan import Decided
from headrace.log.define import Topic

EXAMPLES_MAX = 20
SEGMENTS_MAX = 50  # values of a field that are told apart, those with the most decisions; the rest are one

REST = "(others)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How many decisions went from one outcome to another, or stayed."""

    was: str
    now: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """In how many decisions a reason was given, and would be."""

    code: str
    was: int
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The decisions whose request has this value in a field. was, now: outcome -> count."""

    field: str
    value: Physical
    compared: int
    changed: int
    was: dict[str, int]
    now: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A decision that would be another."""

    decision_id: str
    was: str
    now: str
    was_reasons: tuple[str, ...]
    now_reasons: tuple[str, ...]
    was_score: float | None
    now_score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """compared: requests with both answers. changed: of these, with another outcome; rereasoned: with the same outcome
    for other reasons; rescored: with another score. outcomes, reasons, segments: what changes; first the weightiest.
    examples: the first that change."""

    compared: int
    changed: int
    rereasoned: int
    rescored: int
    outcomes: tuple[Moved, ...]
    reasons: tuple[ReasonCount, ...]
    segments: tuple[Segment, ...]
    examples: tuple[Example, ...]


class Tally:
    """Counts pairs of answers to requests of one topic."""

    def __init__(self, topic: Topic, by: Sequence[str] = ()) -> None:
        """by: fields of the topic to count by. Raises: DefinitionError HR-0106 for one that is none."""
        self._topic = topic
        self._places = [(name, topic.schema.names.index(topic.schema[name].name)) for name in by]
        self._compared = self._changed = self._rereasoned = self._rescored = 0
        self._moved: Counter[tuple[str, str]] = Counter()
        self._was: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._segments: dict[str, dict[Physical, Counter[tuple[str, str]]]] = {name: {} for name in by}
        self._examples: list[Example] = []

    def count(self, decision_id: str, row: Sequence[Physical] | None, was: Decided, now: Decided) -> None:
        """row: the request's, where it is counted by fields; None where the log no longer holds it."""
        before, after = was.outcome.value, now.outcome.value
        self._compared += 1
        self._changed += before != after
        self._rereasoned += before == after and was.reasons != now.reasons
        self._rescored += was.score != now.score
        self._moved[before, after] += 1
        self._was.update(was.reasons)
        self._now.update(now.reasons)
        if row is not None:
            for name, place in self._places:
                self._segments[name].setdefault(row[place], Counter())[before, after] += 1
        if before != after and len(self._examples) < EXAMPLES_MAX:
            self._examples.append(
                Example(
                    decision_id=decision_id,
                    was=before,
                    now=after,
                    was_reasons=was.reasons,
                    now_reasons=now.reasons,
                    was_score=was.score,
                    now_score=now.score,
                )
            )

    def differences(self) -> Differences:
        was, now, moved = self._was, self._now, self._moved
        codes = sorted({*was, *now}, key=lambda code: (-abs(now[code] - was[code]), code))
        order = [outcome.value for outcome in Outcome]
        return Differences(
            compared=self._compared,
            changed=self._changed,
            rereasoned=self._rereasoned,
            rescored=self._rescored,
            outcomes=tuple(
                Moved(was=before, now=after, count=moved[before, after])
                for before in order
                for after in order
                if moved[before, after]
            ),
            reasons=tuple(ReasonCount(code=code, was=was[code], now=now[code]) for code in codes),
            segments=tuple(one for name, values in self._segments.items() for one in self._of_field(name, values)),
            examples=tuple(self._examples),
        )

    def _of_field(self, name: str, values: dict[Physical, Counter[tuple[str, str]]]) -> Iterator[Segment]:
        """The values with the most decisions, the rest together."""
        ranked = sorted(values.items(), key=lambda each: (-each[1].total(), str(each[0])))
        type = self._topic.schema[name].type
        for value, moved in ranked[:SEGMENTS_MAX]:
            yield _segment(name, json_value(value, type), moved)
        rest = sum((moved for _, moved in ranked[SEGMENTS_MAX:]), Counter())
        if rest:
            yield _segment(name, REST, rest)


def _segment(name: str, value: Physical, moved: Counter[tuple[str, str]]) -> Segment:
    was: Counter[str] = Counter()
    now: Counter[str] = Counter()
    for (before, after), count in moved.items():
        was[before] += count
        now[after] += count
    return Segment(
        field=name,
        value=value,
        compared=moved.total(),
        changed=sum(count for (before, after), count in moved.items() if before != after),
        was=dict(was),
        now=dict(now),
    )
