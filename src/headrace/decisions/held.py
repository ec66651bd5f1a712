"""Views that are held by partition, asked for all requests of a turn at once (SEMANTICS 5.2). Asks through a port.

The one idea: an answer is a value with the cut at which it was true, whoever gave it, so it stands as recorded. What
does not come in time, or comes from somebody who is behind what was recorded before (docs/KAFKA.md K1.8), is absent
with its reason, and the policy says what then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.decisions.plan import Answer, Version
from headrace.decisions.port import HeldAnswer, HeldQuestion, RemoteViews, Row

# Why a view gave no answer, as a record says it. TIMEOUT: not in time. OWNER_AWAY: nobody is known to hold the
# partition, or who is does not answer, or not yet. OTHER_VERSION: who holds it means another view by its name.
STALE, TOO_OLD, STALE_OWNER = "stale", "too_old", "stale_owner"
TIMEOUT, OWNER_AWAY, OTHER_VERSION = "timeout", "owner_away", "other_version"

SHARE = 2  # a half of a decision's budget may pass before a view is missing; the other is for appending twice


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPoint:
    """What is recorded of a view that is held by partition. staleness: microseconds. absent: why there is no answer."""

    answer: Answer | None
    cut: Cut
    staleness: int
    absent: str | None = None


NONE_HELD: Mapping[int, HeldPoint] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRequest:
    """A request for which such views are asked. floors: the highest cuts that valid records of its partition hold."""

    partition: Partition
    offset: int
    row: Row
    t: Instant
    available_at: int
    floors: Mapping[Partition, int]


class HeldViews:
    """Those of one version. One thread at a time."""

    def __init__(self, version: Version, views: RemoteViews | None) -> None:
        """views: None where the version has no such view."""
        self.places = tuple(place for place, view in enumerate(version.views) if view.held)
        assert views is not None or not self.places, "whoever wires a decider hands them in"
        self._version = version
        self._views = views
        self._within = Duration(version.decision.budget.micros // SHARE)

    def ask(self, requests: Sequence[HeldRequest]) -> list[Mapping[int, HeldPoint]]:
        """Of each request, by the view's place."""
        if self._views is None or not requests:
            return [NONE_HELD] * len(requests)
        questions = [
            HeldQuestion(
                view=view.name,
                fingerprint=view.fingerprint,
                request=one.partition,
                offset=one.offset,
                row=one.row,
                t=one.t,
            )
            for one in requests
            for view in (self._version.views[place] for place in self.places)
        ]
        answers = iter(self._views.ask(questions, within=self._within))
        return [{place: self._point(place, one, next(answers)) for place in self.places} for one in requests]

    def _point(self, place: int, one: HeldRequest, found: HeldAnswer) -> HeldPoint:
        staleness = max(0, one.available_at - found.proven) if dict(found.cut) or found.absent is None else 0
        absent, limit = found.absent, self._version.views[place].max_staleness
        if any(offset < one.floors.get(partition, -1) for partition, offset in found.cut):
            absent = STALE_OWNER
        elif absent is None and limit is not None and staleness > limit.micros:
            absent = STALE
        return HeldPoint(answer=found.answer, cut=found.cut, staleness=staleness, absent=absent)
