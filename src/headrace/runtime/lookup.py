"""One recorded decision by its id, found in the log. Reads the log through its port.

The one idea: a partition's records follow their requests' offsets, save for requests that were decided at a second try,
whose records come later. So the place is found by bisection over records of first tries, and what is not there is
looked for behind it. Where several processes decide, records may be void, and what counts is found by the fold.
"""

from __future__ import annotations

import re

from headrace.core.errors import NotFoundError
from headrace.core.points import IMPORTS_FROM
from headrace.decisions import record as records
from headrace.decisions.claims import RequestPlace
from headrace.decisions.record import DecisionRecord, Flag
from headrace.decisions.valid import ValidRecords
from headrace.log.port import PartitionState
from headrace.runtime.project import Project

_ID = re.compile(r"([^/]{1,200})/(\d{1,18})/(\d{1,4})/(\d{1,18})\Z", re.ASCII).match


def find_record(project: Project, decision_id: str, valid: ValidRecords | None = None) -> DecisionRecord:
    """valid: kept by who asks often, of the project's log. Raises: NotFoundError HR-0716 where there is no such record,
    HR-0806 for an unknown decision.

    Cost: some 20 reads of a row; of a request that was decided at a second try, reading what came after it. In a log
    that several processes share, the fold up to it (decisions.valid.ValidRecords).
    """
    found = _ID(decision_id)
    if found is None:
        raise _missing(decision_id)
    name, incarnation, index, offset = found[1], int(found[2]), int(found[3]), int(found[4])
    decision = project.definitions.decision(name)
    topic = records.record_topic(decision).name
    for state in project.log.topics():
        for held in state.partitions if state.topic.name == topic else ():
            if held.partition.index == index < IMPORTS_FROM:
                if project.log.capabilities.shared:
                    place = RequestPlace(incarnation, index, offset)
                    one = (valid or ValidRecords(project.log)).find(held, place, decision.request.name)
                else:
                    one = _Records(project, held, decision.request.name).find(incarnation, offset)
                if one is not None:
                    return one
    raise _missing(decision_id)


class _Records:
    """One partition of a record topic."""

    def __init__(self, project: Project, held: PartitionState, request: str) -> None:
        self._project, self._held, self._request = project, held, request

    def find(self, incarnation: int, offset: int) -> DecisionRecord | None:
        low, high = self._held.start, self._held.end
        while low < high:
            middle = (low + high) // 2
            at, one = self._first_try(middle, high)
            if one is None or (one.request.incarnation, one.offset) >= (incarnation, offset):
                if one is not None and (one.request.incarnation, one.offset) == (incarnation, offset):
                    return one
                high = middle
            else:
                low = at + 1
        for batch in self._project.log.read(self._held.partition, low):
            for one in records.from_batch(batch, self._request):
                if (one.request.incarnation, one.offset) == (incarnation, offset):
                    return one
        return None

    def _first_try(self, at: int, end: int) -> tuple[int, DecisionRecord | None]:
        """The first record from `at` on that is of a first try, and where."""
        while at < end:
            batch = next(iter(self._project.log.read(self._held.partition, at, rows_max=1)))
            (one,) = records.from_batch(batch, self._request)
            if Flag.RETRIED not in one.flags:
                return at, one
            at += 1
        return end, None


def _missing(decision_id: str) -> NotFoundError:
    return NotFoundError(
        "HR-0716",
        f"no recorded decision {decision_id[:100]!r}",
        detail="expected the decision_id of an answer, as in checkout/1/0/42",
        hint="headrace decisions list NAME",
    )
