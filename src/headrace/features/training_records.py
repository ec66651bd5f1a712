"""What decision records say of a training set's rows: the cuts to replay at, and the views that were absent. Pure.

The one idea: a record is found by the place of its request, so that an id that came again names one request each time;
what it says of a view stands, be it a cut or an absence (SEMANTICS 1.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.core.kernel.program import Words
from headrace.core.points import Cut, Partition
from headrace.features.replay_given import Cuts
from headrace.features.replay_rows import Rows

Mask = npt.NDArray[np.bool_]

# Where a request lies (partition, offset) -> view -> the cut that its record holds; None where the view was absent.
Records = Mapping[tuple[Partition, int], Mapping[str, Cut | None]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """What records say of one view at n rows. cuts: of the rows where it answered. absent: where it did not. some:
    where a record says either."""

    cuts: Cuts
    absent: Mask
    some: Mask


def recorded(views: Iterable[str], rows: Rows, records: Records | None) -> list[Recorded | None]:
    """Of each view; None where no record of these rows mentions it. rows: logged requests, in order of their places."""
    found = _places(rows, records or {})
    result: list[Recorded | None] = []
    for name in views:
        cuts: list[Cut | None] = [None] * len(rows)
        absent, some = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
        for place, said in found:
            if name in said:
                cuts[place] = cut = said[name]
                absent[place], some[place] = cut is None, True
        result.append(Recorded(cuts=Cuts.of(cuts), absent=absent, some=some) if some.any() else None)
    return result


def decided(rows: Rows, records: Records) -> npt.NDArray[np.intp]:
    """Which of these rows have a record, ascending."""
    return np.array(sorted(place for place, _ in _places(rows, records)), np.intp)


def served_and_mixed(found: Sequence[Recorded | None], rows: int) -> tuple[int, int]:
    """(rows all of whose views stand as recorded, rows of which some do)."""
    masks = [np.zeros(rows, np.bool_) if one is None else one.some for one in found]
    if not masks:
        return 0, 0
    every, some = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
    return int(np.count_nonzero(every)), int(np.count_nonzero(some & ~every))


def _places(rows: Rows, records: Records) -> list[tuple[int, Mapping[str, Cut | None]]]:
    """(place among the rows, what its record says) of the requests that have a record."""
    topic = rows.topic
    assert topic is not None, "a training set's rows are logged requests"
    found = []
    for i, partition in enumerate(topic.partitions):
        said = [(offset, views) for (where, offset), views in records.items() if where == partition]
        start, end = int(topic.starts[i]), int(topic.starts[i + 1])
        row, in_log = _sought(topic.offset[start:end], np.array([offset for offset, _ in said], np.int64))
        place, entered = _sought(rows.row, start + row)
        for at, held, (_, views) in zip(place.tolist(), (in_log & entered).tolist(), said, strict=True):
            if held:
                found.append((at, views))
    return found


def _sought(ascending: Words, values: Words) -> tuple[Words, Mask]:
    """(where each value stands, whether it is there)."""
    place = np.searchsorted(ascending, values).astype(np.int64)
    there = place < len(ascending)
    there[there] = ascending[place[there]] == values[there]
    return place, there
