"""A dry run: what another policy, model or view would have decided of recorded requests. Reads through what it is
handed, records nothing.

The one idea: the other version is asked at the recorded points. Each view is asked at what the record's cuts hold, by
*available* where they do not mention its topics (SEMANTICS 1.6), and is absent where the record says that it was. So
with nothing changed nothing differs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from headrace.core.codec import Physical, json_value
from headrace.core.points import Cut, Partition
from headrace.decisions.define import Decision, Outcome
from headrace.decisions.plan import Decided, Version
from headrace.decisions.record import DecisionRecord
from headrace.decisions.replay import BATCH, Requests
from headrace.decisions.run import Question, Recompute, Row

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
class WhatIfReport:
    """compared: decisions that were decided again. changed: of these, with another outcome; rereasoned: with the same
    outcome for other reasons; rescored: with another score. gone: left out, as their request is no longer in the log.
    from_versions: of how many version sets the records are. outcomes, reasons, segments: what changes; first the
    weightiest. examples: the first that change."""

    compared: int
    changed: int
    rereasoned: int
    rescored: int
    gone: int
    from_versions: int
    version: dict[str, object]
    outcomes: tuple[Moved, ...]
    reasons: tuple[ReasonCount, ...]
    segments: tuple[Segment, ...]
    examples: tuple[Example, ...]


@dataclass(slots=True)
class _Tally:
    """segments: field -> value -> (outcome before, outcome after) -> decisions."""

    compared: int = 0
    changed: int = 0
    rereasoned: int = 0
    rescored: int = 0
    gone: int = 0
    versions: set[str] = field(default_factory=set)
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
    was: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    segments: dict[str, dict[Physical, Counter[tuple[str, str]]]] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)


def what_if(
    found: Iterable[DecisionRecord],
    version: Version,
    *,
    requests: Requests,
    recompute: Recompute,
    by: Sequence[str] = (),
) -> WhatIfReport:
    """Decide recorded requests again by another version.

    requests: rows at rising offsets, None where the log holds none. recompute: of the other version's views. by: fields
    of the request's topic to count by. Cost: that of `recompute`, and some 50 us a record. Memory: of BATCH records.
    """
    tally = _Tally(segments={name: {} for name in by})
    for group in _batches(found):
        _decide_again(group, version, requests, recompute, tally)
    return _report(tally, version)


def _batches(found: Iterable[DecisionRecord]) -> Iterator[list[DecisionRecord]]:
    group: list[DecisionRecord] = []
    for record in found:
        group.append(record)
        if len(group) == BATCH:
            yield group
            group = []
    if group:
        yield group


def _decide_again(
    group: Sequence[DecisionRecord], version: Version, requests: Requests, recompute: Recompute, tally: _Tally
) -> None:
    rows = _rows(group, requests)
    there = [(record, row) for record in group if (row := rows[record.request, record.offset]) is not None]
    tally.gone += len(group) - len(there)
    names = tuple(view.name for view in version.views)
    questions = [_question(record, row, names) for record, row in there]
    found = recompute(names, questions) if names and questions else [()] * len(questions)
    for (record, row), answers in zip(there, found, strict=True):
        given = [version.absent(place) if answer is None else answer for place, answer in enumerate(answers)]
        _count(record, row, version.decide(row, given).answer, version.decision, tally)


def _rows(group: Sequence[DecisionRecord], requests: Requests) -> dict[tuple[Partition, int], Row | None]:
    offsets: dict[Partition, set[int]] = {}
    for record in group:
        offsets.setdefault(record.request, set()).add(record.offset)
    return {
        (partition, offset): row
        for partition, asked in offsets.items()
        for offset, row in zip(sorted(asked), requests(partition, sorted(asked)), strict=True)
    }


def _question(record: DecisionRecord, row: Row, names: Sequence[str]) -> Question:
    """The other version's views at the recorded points."""
    known = {name: point for (name, _), point in zip(json.loads(record.versions)["views"], record.points, strict=True)}
    merged: dict[Partition, int] = {}
    for point in record.points:
        merged.update(dict(point.cut))
    cut = Cut.of(merged)
    absent = {name for name, point in known.items() if point.absent is not None}
    cuts = tuple(None if name in absent else cut for name in names)
    return Question(request=record.request, offset=record.offset, row=row, t=record.t, cuts=cuts)


def _count(record: DecisionRecord, row: Row, decided: Decided, decision: Decision, tally: _Tally) -> None:
    was, now = record.outcome.value, decided.outcome.value
    tally.compared += 1
    tally.changed += was != now
    tally.rereasoned += was == now and record.reasons != decided.reasons
    tally.rescored += record.score != decided.score
    tally.versions.add(record.versions)
    tally.moved[was, now] += 1
    tally.was.update(record.reasons)
    tally.now.update(decided.reasons)
    for name, values in tally.segments.items():
        value = row[decision.request.schema.names.index(name)]
        values.setdefault(value, Counter())[was, now] += 1
    if was != now and len(tally.examples) < EXAMPLES_MAX:
        tally.examples.append(
            Example(
                decision_id=record.decision_id,
                was=was,
                now=now,
                was_reasons=record.reasons,
                now_reasons=decided.reasons,
                was_score=record.score,
                now_score=decided.score,
            )
        )


def _report(tally: _Tally, version: Version) -> WhatIfReport:
    codes = sorted({*tally.was, *tally.now}, key=lambda code: (-abs(tally.now[code] - tally.was[code]), code))
    order = [outcome.value for outcome in Outcome]
    return WhatIfReport(
        compared=tally.compared,
        changed=tally.changed,
        rereasoned=tally.rereasoned,
        rescored=tally.rescored,
        gone=tally.gone,
        from_versions=len(tally.versions),
        version=json.loads(version.text),
        outcomes=tuple(
            Moved(was=was, now=now, count=tally.moved[was, now])
            for was in order
            for now in order
            if tally.moved[was, now]
        ),
        reasons=tuple(ReasonCount(code=code, was=tally.was[code], now=tally.now[code]) for code in codes),
        segments=tuple(
            segment for name, values in tally.segments.items() for segment in _segments(version.decision, name, values)
        ),
        examples=tuple(tally.examples),
    )


def _segments(decision: Decision, name: str, values: dict[Physical, Counter[tuple[str, str]]]) -> Iterator[Segment]:
    """The values with the most decisions, the rest together."""
    ranked = sorted(values.items(), key=lambda each: (-each[1].total(), str(each[0])))
    type = decision.request.schema[name].type
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
