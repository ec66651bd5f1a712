"""Recorded decisions, computed again from the log and compared to the bit. Touches the log through what it is handed.

The one idea: a record is checked by the code that made it. Features are asked at the recorded cuts, score and outcome
come from `Version.decide`, challengers' too, and texts are compared that have one form for one bit pattern. Absences
are taken as given (SEMANTICS 1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from headrace.core.points import Partition
from headrace.decisions.plan import Answer, Decided, Ruling, Version
from headrace.decisions.port import Question, Recompute, Row
from headrace.decisions.record import DecisionRecord, features_text, same_bits, scores_text

BATCH = 4_096  # records computed at a time: enough that one replay of the log serves many, few enough to lie in memory
DIFFERENCES_MAX = 20

# The rows at rising offsets of one request partition, in order; None where the request was erased.
Requests = Callable[[Partition, Sequence[int]], Iterable[Row | None]]
Versions = Callable[[str], Version | None]  # the version behind a record's `versions`; None where it is not at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """what: "view.feature", "arm", "score", "outcome", "rule" or "reasons", a challenger's behind its name; both sides
    as text."""

    decision_id: str
    what: str
    recorded: str
    recomputed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """compared: records that were computed again; mismatched of them differ in anything. erased: those whose request
    was erased (SEMANTICS 5.8). unknown: those whose version set is not at hand. differences: the first ones."""

    compared: int = 0
    mismatched: int = 0
    erased: int = 0
    unknown: int = 0
    differences: tuple[Difference, ...] = ()

    @property
    def equal(self) -> bool:
        return self.mismatched == 0


@dataclass(slots=True)
class _Count:
    compared: int = 0
    mismatched: int = 0
    erased: int = 0
    unknown: int = 0
    differences: list[Difference] = field(default_factory=list)


def replay(
    records: Iterable[DecisionRecord], *, versions: Versions, requests: Requests, recompute: Recompute
) -> ReplayReport:
    """Compute every record again and compare: each feature's value and reason, the score's bits, outcome, rule,
    reasons.

    Cost: that of `recompute`, and some 50 us a record. Memory: of BATCH records.
    """
    count = _Count()
    for group in _batches(records):
        _replay_batch(group, versions(group[0].versions), requests, recompute, count)
    return ReplayReport(
        compared=count.compared,
        mismatched=count.mismatched,
        erased=count.erased,
        unknown=count.unknown,
        differences=tuple(count.differences),
    )


def _batches(records: Iterable[DecisionRecord]) -> Iterator[list[DecisionRecord]]:
    """Runs of one version set, at most BATCH long."""
    group: list[DecisionRecord] = []
    for record in records:
        if group and (len(group) == BATCH or record.versions != group[0].versions):
            yield group
            group = []
        group.append(record)
    if group:
        yield group


def _replay_batch(
    group: Sequence[DecisionRecord], version: Version | None, requests: Requests, recompute: Recompute, count: _Count
) -> None:
    if version is None:
        count.unknown += len(group)
        return
    rows = requests_of(group, requests)
    there = [record for record in group if rows[record.request, record.offset] is not None]
    count.erased += len(group) - len(there)
    if not there:
        return
    questions = [_question(record, rows[record.request, record.offset]) for record in there]
    found = recompute([view.name for view in version.views], questions)
    for record, question, answers in zip(there, questions, found, strict=True):
        count.compared += 1
        differences = list(_compare(record, version, question.row, answers))
        count.mismatched += bool(differences)
        count.differences += differences[: DIFFERENCES_MAX - len(count.differences)]


def batches(found: Iterable[DecisionRecord]) -> Iterator[list[DecisionRecord]]:
    """In order, BATCH at a time."""
    group: list[DecisionRecord] = []
    for record in found:
        group.append(record)
        if len(group) == BATCH:
            yield group
            group = []
    if group:
        yield group


def requests_of(group: Sequence[DecisionRecord], requests: Requests) -> dict[tuple[Partition, int], Row | None]:
    """The requests of a batch, by their places; asked for by partition and in order."""
    offsets: dict[Partition, set[int]] = {}
    for record in group:
        offsets.setdefault(record.request, set()).add(record.offset)
    return {
        (partition, offset): row
        for partition, asked in offsets.items()
        for offset, row in zip(sorted(asked), requests(partition, sorted(asked)), strict=True)
    }


def _question(record: DecisionRecord, row: Row | None) -> Question:
    assert row is not None, "erased requests were left out"
    cuts = tuple(point.cut if point.absent is None else None for point in record.points)
    return Question(request=record.request, offset=record.offset, row=row, t=record.t, cuts=cuts)


def _compare(
    record: DecisionRecord, version: Version, row: Row, found: Sequence[Answer | None]
) -> Iterator[Difference]:
    answers = [version.absent(place) if answer is None else answer for place, answer in enumerate(found)]
    for place, (was, now) in enumerate(zip(record.answers, answers, strict=True)):
        if features_text([was]) != features_text([now]):
            yield from _feature_differences(record, version, place, was, now)
    yield from _ruling_differences(record, version.decide(row, answers))


def _ruling_differences(record: DecisionRecord, now: Ruling) -> Iterator[Difference]:
    was = record.ruling
    if was.arm != now.arm:
        yield _difference(record, "arm", str(was.arm), str(now.arm))
    yield from _decided_differences(record, "", was.answer, now.answer)
    before, after = dict(was.beside), dict(now.beside)
    for name in dict.fromkeys((*before, *after)):
        if name in before and name in after:
            yield from _decided_differences(record, f"{name}: ", before[name], after[name])
        else:
            yield _difference(record, f"{name}: answer", str(name in before), str(name in after))


def _decided_differences(record: DecisionRecord, whose: str, was: Decided, now: Decided) -> Iterator[Difference]:
    if not same_bits(was.score, now.score):
        yield _difference(record, f"{whose}score", _hex(was.score), _hex(now.score))
    elif len(now.scores) > 1 and scores_text(was.scores) != scores_text(now.scores):
        yield _difference(record, f"{whose}scores", scores_text(was.scores), scores_text(now.scores))
    if was.outcome is not now.outcome:
        yield _difference(record, f"{whose}outcome", was.outcome.value, now.outcome.value)
    if was.rule != now.rule:
        yield _difference(record, f"{whose}rule", str(was.rule), str(now.rule))
    if was.reasons != now.reasons:
        yield _difference(record, f"{whose}reasons", ",".join(was.reasons), ",".join(now.reasons))


def _feature_differences(
    record: DecisionRecord, version: Version, place: int, was: Answer, now: Answer
) -> Iterator[Difference]:
    names = version.views[place].features
    for name, before, why_before, after, why_after in zip(names, was[0], was[1], now[0], now[1], strict=True):
        sides = f"{before!r} {why_before.name}", f"{after!r} {why_after.name}"
        if sides[0] != sides[1]:
            yield _difference(record, f"{version.views[place].name}.{name}", *sides)


def _difference(record: DecisionRecord, what: str, recorded: str, recomputed: str) -> Difference:
    return Difference(decision_id=record.decision_id, what=what, recorded=recorded, recomputed=recomputed)


def _hex(score: float | None) -> str:
    return "null" if score is None else f"{score!r} ({score.hex()})"
