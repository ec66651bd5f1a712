"""Asking the views for a decision: at a request's place while it is decided, and again where it was left undecided.

The one idea: what the views said and where they said it are one thing, as a record keeps it: whoever has the answers
has the points. Touches the features that it is handed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headrace.core.errors import StateError
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.decisions.known import Logged
from headrace.decisions.plan import Answer, Version
from headrace.decisions.port import AskAt, Features, Question, Recompute, Row
from headrace.decisions.present import PresentCuts
from headrace.decisions.record import DecisionRecord, Flag, ViewPoint
from headrace.log.define import Topic

STALE, TOO_OLD, STALE_OWNER = "stale", "too_old", "stale_owner"  # why a view gave no answer, as a record says it
_TOO_OLD = "HR-0541"


class Asking:
    """The views of one version, over one online state. Cost: some 5 us beside the views."""

    def __init__(self, version: Version, features: Features, request: Topic) -> None:
        self._version = version
        self._features = features
        self._request = request
        self._views = tuple(view.name for view in version.views)
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
    ) -> tuple[tuple[Answer, ...], str]:
        """The views' answers, and their points as a record keeps them. ahead: rows before the request that share its
        commit. behind: places of views whose cut lies below one that was recorded before."""
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
        for place, view in enumerate(self._version.views):
            if view.max_staleness is not None and staleness > view.max_staleness.micros:
                absent[place] = STALE
        for place in behind:
            absent[place] = STALE_OWNER
        if absent:
            answers = tuple(self._version.absent(i) if i in absent else one for i, one in enumerate(answers))
        return answers, present.text(partition, offset, staleness, absent)

    def _ask_each(
        self, partition: Partition, offset: int, row: Row, t: Instant, ahead: int
    ) -> tuple[tuple[Answer, ...], dict[int, str]]:
        """View by view, where one of them no longer holds what a read at t would see."""
        answers: list[Answer] = []
        absent: dict[int, str] = {}
        for place, view in enumerate(self._views):
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
    cuts: Sequence[Cut],
    absent: Sequence[Mapping[int, str]],
) -> list[list[Answer]]:
    """The views' answers to requests that are in the log undecided, at these cuts, one a view. absent: of each request
    the views that give none. One call of `recompute`."""
    questions = [
        Question(
            request=partition,
            offset=logged.offset,
            row=logged.row,
            t=logged.event_time,
            cuts=tuple(None if place in without else cut for place, cut in enumerate(cuts)),
        )
        for (partition, logged), without in zip(left, absent, strict=True)
    ]
    found = recompute([view.name for view in version.views], questions)
    return [[version.absent(i) if one is None else one for i, one in enumerate(answers)] for answers in found]


def retried_record(
    version: Version,
    partition: Partition,
    logged: Logged,
    answers: Sequence[Answer],
    cuts: Sequence[Cut],
    *,
    id: int | str,
    staleness: int,
    at: Instant,
    request_hash: str,
    absent: Mapping[int, str],
    epoch: int | None = None,
) -> DecisionRecord:
    """The record of a request that was in the log undecided, not linked yet."""
    points = (
        ViewPoint(cut=cut, staleness=Duration(staleness), absent=absent.get(place)) for place, cut in enumerate(cuts)
    )
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
