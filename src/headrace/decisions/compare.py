"""A decision and its challengers beside each other, from what their records hold. Pure.

The one idea: both answered at the same point, and both answers are recorded, so nothing is computed again: they are
counted, and where it is known by now what became of a request, each is held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from headrace.core.points import Partition
from headrace.decisions.define import Decision, Outcome
from headrace.decisions.differing import Differences, Tally
from headrace.decisions.plan import Decided, Scored
from headrace.decisions.port import Row
from headrace.decisions.record import DecisionRecord
from headrace.decisions.replay import Requests, batches, requests_of

Place = tuple[Partition, int]
Truths = Mapping[Place, bool]  # where a request lies -> its label, of those that have matured

# (truths, scores), of both kinds -> area under the ROC curve, average precision
Rank = Callable[[Sequence[bool], Sequence[float]], tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one of the two would have done with the requests whose label has matured. approved, true_approved: so many
    it would have approved, and of these the label is true. auc_roc, average_precision: of its model of this label, over
    the requests that it gave a score; None where there is no such model, or the requests are all of one kind."""

    approved: int
    true_approved: int
    auc_roc: float | None
    average_precision: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matured:
    """requests: those with both answers whose label has matured; true: of these the label is true. What it would have
    become of a request that was declined is not known; a label that only what was approved can get leans towards the
    one that answered."""

    label: str
    requests: int
    true: int
    own: Side
    challenger: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengerReport(Differences):
    """was: the decision itself; now: the challenger. share: of the keys it answers for, by the definitions in force;
    answered: how many of the requests it did."""

    name: str
    share: float
    answered: int
    matured: tuple[Matured, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """decisions: recorded in all. from_versions: of how many version sets."""

    decision: str
    decisions: int
    from_versions: int
    challengers: tuple[ChallengerReport, ...]


@dataclass(slots=True)
class _Beside:
    """What was counted of one challenger."""

    tally: Tally
    answered: int = 0
    pairs: list[tuple[Place, Decided, Decided]] = field(default_factory=list)


def compare(
    found: Iterable[DecisionRecord],
    decision: Decision,
    *,
    requests: Requests,
    rank: Rank,
    by: Sequence[str] = (),
    truths: Mapping[str, Truths] | None = None,
) -> ComparisonReport:
    """found: records of the decision. by: fields of the request's topic to count by. requests: rows at rising offsets,
    None where the log holds none; asked only with by. rank: how well scores tell truths apart. truths: by model, what
    its label turned out to be. Cost: some 10 us a record and challenger. Memory: of BATCH records, and the answers to
    requests with a truth."""
    known = {one.decision.name: _Beside(tally=Tally(decision.request, by)) for one in decision.challengers}
    wanted = {place for each in (truths or {}).values() for place in each}
    versions: set[str] = set()
    count = 0
    for group in batches(found):
        rows = requests_of(group, requests) if by else {}
        count += len(group)
        versions.update(record.versions for record in group)
        for record in group:
            place = record.request, record.offset
            _count(record, decision, known, rows.get(place), place in wanted)
    return ComparisonReport(
        decision=decision.name,
        decisions=count,
        from_versions=len(versions),
        challengers=tuple(
            _report(decision, one.decision, one.share, known[one.decision.name], truths or {}, rank)
            for one in decision.challengers
        ),
    )


def _count(
    record: DecisionRecord, decision: Decision, known: Mapping[str, _Beside], row: Row | None, has_truth: bool
) -> None:
    """One record's answers, of each challenger that gave one."""
    answers = {record.ruling.arm or decision.name: record.ruling.answer, **dict(record.ruling.beside)}
    own = answers.get(decision.name)
    for name, beside in known.items():
        if own is not None and name in answers:
            beside.tally.count(record.decision_id, row, own, answers[name])
            beside.answered += record.ruling.arm == name
            if has_truth:
                beside.pairs.append(((record.request, record.offset), own, answers[name]))


def _report(
    decision: Decision, challenger: Decision, share: float, beside: _Beside, truths: Mapping[str, Truths], rank: Rank
) -> ChallengerReport:
    differences = beside.tally.differences()
    labels = {model.name: model.label_name for model in decision.scored}
    matured = []
    for label in dict.fromkeys(labels[name] for name in truths):
        of_label = [name for name in truths if labels[name] == label]
        truth = truths[of_label[0]]
        pairs = [(truth[place], own, other) for place, own, other in beside.pairs if place in truth]
        matured.append(
            Matured(
                label=label,
                requests=len(pairs),
                true=sum(true for true, _, _ in pairs),
                own=_side(decision, of_label, [(true, own) for true, own, _ in pairs], rank),
                challenger=_side(challenger, of_label, [(true, other) for true, _, other in pairs], rank),
            )
        )
    return ChallengerReport(
        name=challenger.name,
        share=share,
        answered=beside.answered,
        matured=tuple(matured),
        **{one.name: getattr(differences, one.name) for one in fields(differences)},
    )


def _side(decision: Decision, models: Sequence[str], answers: Sequence[tuple[bool, Decided]], rank: Rank) -> Side:
    """models: those of the label."""
    approved = [truth for truth, answer in answers if answer.outcome is Outcome.APPROVE]
    names = [model.name for model in decision.models]
    place = next((names.index(name) for name in names if name in models), None)
    scored = [
        (truth, score)
        for truth, answer in answers
        if place is not None and (score := _score(answer.scores, place)) is not None
    ]
    truths, scores = [truth for truth, _ in scored], [score for _, score in scored]
    area, precision = rank(truths, scores) if any(truths) and not all(truths) else (None, None)
    return Side(approved=len(approved), true_approved=sum(approved), auc_roc=area, average_precision=precision)


def _score(scores: Sequence[Scored], place: int) -> float | None:
    """By place: a record does not name an only model."""
    return scores[place][1] if place < len(scores) else None
