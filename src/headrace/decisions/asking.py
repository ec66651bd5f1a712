"""Asking the views for a decision: at a request's place while it is decided, and again where it was left undecided.

The one idea: what the views said and where they said it are one thing, as a record keeps it: whoever has the answers
has the points. Touches the features that it is handed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from headrace.core.errors import StateError
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.decisions.held import NONE_HELD, STALE, STALE_OWNER, TOO_OLD, HeldPoint
from headrace.decisions.known import Logged
from headrace.decisions.plan import Answer, Version
from headrace.decisions.port import AskAt, Features, Question, Recompute, Row
from headrace.decisions.present import PresentCuts
from headrace.decisions.record import DecisionRecord, Flag, ViewPoint
from headrace.log.define import Topic

_TOO_OLD, _ELSEWHERE = "HR-0541", "HR-0548"


class Asking:
    """The views of one version, over one online state. Cost: some 5 us beside the views."""

    def __init__(self, version: Version, features: Features, request: Topic) -> None:
        self._version = version
        self._features = features
        self._request = request
        self._places = tuple(place for place, view in enumerate(version.views) if not view.held)
        self._views = tuple(version.views[place].name for place in self._places)
        self._all_here = len(self._places) == len(version.views)
        self._beside = tuple(place for place in self._places if request.name not in version.views[place].topics)
        self._askers: dict[Partition, AskAt] = {}

    def ask(
        self,
        partition: Partition,
        offset: int,
        row: Row,
        t: Instant,
        staleness: int,
        present: PresentCuts,
        ahead: int = 0,
        behind: Iterable[int] = (),
        held: Mapping[int, HeldPoint] = NONE_HELD,
    ) -> tuple[tuple[Answer, ...], str]:
        """The views' answers, and their points as a record keeps them. ahead: rows before the request that share its
        commit. behind: places of views whose cut lies below one that was recorded before. held: by place, what was
        answered where a view is held by partition."""
        asker = self._askers.get(partition)
        if asker is None:
            asker = self._askers[partition] = self._features.asker(self._views, self._request, partition)
        absent: dict[int, str] = {}
        try:
            answers = asker(offset, row, t, ahead)
        except StateError as error:
            if error.code != _TOO_OLD:
                raise
            answers, absent = self._ask_each(partition, offset, row, t, ahead)
        for place in self._places:
            view = self._version.views[place]
            if view.max_staleness is not None and staleness > view.max_staleness.micros:
                absent[place] = STALE
        for place in behind:
            absent[place] = STALE_OWNER
        if self._all_here and not absent:
            return answers, present.text(partition, offset, staleness, absent)
        found = dict(zip(self._places, answers, strict=True))
        for place, point in held.items():
            if point.absent is None and point.answer is not None:
                found[place] = point.answer
            else:
                absent[place] = point.absent or TOO_OLD
        answers = tuple(self._version.absent(i) if i in absent else found[i] for i in range(len(self._version.views)))
        elsewhere = {place: (point.cut, point.staleness) for place, point in held.items()}
        return answers, present.text(partition, offset, staleness, absent, elsewhere)

    def ask_beside(self, partition: Partition, offset: int, row: Row, t: Instant) -> dict[int, Answer]:
        """By place, the answers of views that read nothing of the requests' topic, at the present cut. A request that
        lies in the log is no event of theirs, so they are asked where they stand; of the others its own row would have
        to be taken out again. Left out is also who no longer holds what a read at t would see."""
        found: dict[int, Answer] = {}
        for place in self._beside:
            name = self._version.views[place].name
            try:
                (found[place],) = self._features.asker((name,), self._request, partition)(offset, row, t)
            except StateError as error:
                if error.code not in (_TOO_OLD, _ELSEWHERE):
                    raise
        return found

    def _ask_each(
        self, partition: Partition, offset: int, row: Row, t: Instant, ahead: int
    ) -> tuple[tuple[Answer, ...], dict[int, str]]:
        """View by view, where one of them no longer holds what a read at t would see."""
        answers: list[Answer] = []
        absent: dict[int, str] = {}
        for place, view in zip(self._places, self._views, strict=True):
            try:
                answers += self._features.asker((view,), self._request, partition)(offset, row, t, ahead)
            except StateError as error:
                if error.code != _TOO_OLD:
                    raise
                answers.append(self._version.absent(place))
                absent[place] = TOO_OLD
        return tuple(answers), absent


def ask_again(
    version: Version,
    recompute: Recompute,
    left: Sequence[tuple[Partition, Logged]],
    points: Sequence[Sequence[ViewPoint]],
    known: Sequence[Mapping[int, Answer]],
) -> list[list[Answer]]:
    """The views' answers to requests that are in the log undecided. points: of each request where each view is asked,
    or why it gives no answer. known: of each request the answers that were given there already, by the view's place.
    What is left is asked by at most one call of `recompute`, which reads the views' topics whole."""
    cuts = [
        tuple(None if point.absent is not None or place in given else point.cut for place, point in enumerate(asked))
        for asked, given in zip(points, known, strict=True)
    ]
    questions = [
        Question(request=partition, offset=logged.offset, row=logged.row, t=logged.event_time, cuts=asked)
        for (partition, logged), asked in zip(left, cuts, strict=True)
    ]
    views = [place for place in range(len(version.views)) if any(asked[place] is not None for asked in cuts)]
    answers = [
        {p: given[p] for p in given if asked[p].absent is None} for given, asked in zip(known, points, strict=True)
    ]
    if views:
        some = [replace(question, cuts=tuple(question.cuts[place] for place in views)) for question in questions]
        for found, each in zip(answers, recompute([version.views[place].name for place in views], some), strict=True):
            found.update((place, one) for place, one in zip(views, each, strict=True) if one is not None)
    return [[found[i] if i in found else version.absent(i) for i in range(len(version.views))] for found in answers]


def retried_record(
    version: Version,
    partition: Partition,
    logged: Logged,
    answers: Sequence[Answer],
    points: Sequence[ViewPoint],
    *,
    id: int | str,
    at: Instant,
    request_hash: str,
    epoch: int | None = None,
) -> DecisionRecord:
    """The record of a request that was in the log undecided, not linked yet."""
    return DecisionRecord(
        decision=version.decision.name,
        request_id=str(id),
        request=partition,
        offset=logged.offset,
        t=logged.event_time,
        decided_at=at,
        versions=version.text,
        points=tuple(points),
        answers=tuple(answers),
        ruling=version.decide(logged.row, answers),
        flags=(Flag.RETRIED,),
        request_hash=request_hash,
        epoch=epoch,
    )


def points_at(
    cuts: Sequence[Cut], staleness: int, absent: Mapping[int, str], held: Mapping[int, HeldPoint] = NONE_HELD
) -> list[ViewPoint]:
    """Where the views stand, of a request that is asked again. staleness: of what stands here. A view that is held by
    partition and cannot answer as of t any more is asked by replay at its cut, as the others are."""
    points = []
    for place, cut in enumerate(cuts):
        point = held.get(place)
        if point is None:
            points.append(ViewPoint(cut=cut, staleness=Duration(staleness), absent=absent.get(place)))
            continue
        again = point.absent == TOO_OLD and bool(dict(point.cut))
        points.append(
            ViewPoint(cut=point.cut, staleness=Duration(point.staleness), absent=None if again else point.absent)
        )
    return points
