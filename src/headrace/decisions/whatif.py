"""A dry run: what another policy, model or view would have decided of recorded requests. Reads through what it is
handed, records nothing.

The one idea: the other version is asked at the recorded points. Each view is asked at what the record's cuts hold, by
*available* where they do not mention its topics (SEMANTICS 1.6), and is absent where the record says that it was. So
with nothing changed nothing differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

from headrace.core.points import Cut, Partition
from headrace.decisions.differing import Differences, Tally
from headrace.decisions.plan import Version
from headrace.decisions.port import Question, Recompute, Row
from headrace.decisions.record import DecisionRecord
from headrace.decisions.replay import Requests, batches, requests_of


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfReport(Differences):
    """was: as recorded; now: by the other version. gone: left out, as their request is no longer in the log.
    from_versions: of how many version sets the records are."""

    gone: int
    from_versions: int
    version: dict[str, object]


@dataclass(slots=True)
class _Count:
    tally: Tally
    gone: int = 0
    versions: set[str] = field(default_factory=set)


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
    count = _Count(tally=Tally(version.decision.request, by))
    for group in batches(found):
        _decide_again(group, version, requests, recompute, count)
    differences = count.tally.differences()
    return WhatIfReport(
        gone=count.gone,
        from_versions=len(count.versions),
        version=json.loads(version.text),
        **{one.name: getattr(differences, one.name) for one in fields(differences)},
    )


def _decide_again(
    group: Sequence[DecisionRecord], version: Version, requests: Requests, recompute: Recompute, count: _Count
) -> None:
    rows = requests_of(group, requests)
    there = [(record, row) for record in group if (row := rows[record.request, record.offset]) is not None]
    count.gone += len(group) - len(there)
    names = tuple(view.name for view in version.views)
    questions = [_question(record, row, names) for record, row in there]
    found = recompute(names, questions) if names and questions else [()] * len(questions)
    for (record, row), answers in zip(there, found, strict=True):
        given = [version.absent(place) if answer is None else answer for place, answer in enumerate(answers)]
        count.versions.add(record.versions)
        count.tally.count(record.decision_id, row, record.ruling.answer, version.decide(row, given).answer)


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
