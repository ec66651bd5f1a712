"""What the log says of a row before it takes it: event time, available_at, verdict (SEMANTICS 1.2 to 1.5). Pure.

The one idea: judging and remembering are two steps. `live` and `imported` change nothing; `remember` takes what was
judged into account for the rows that follow; `mark` and `rollback` undo what was remembered for a commit that failed.
Verdicts depend on nothing but the partition's log and the topic's definition, so a judge restored from the log judges
the same.

Order of the tests: a known id decides first (DUPLICATE, CONFLICT), then a request's skew (RESTAMPED), then the event
time against available_at (AHEAD, LATE). Rows that were taken, late ones included, are remembered; the others are not,
so an event that was too far ahead may come again when its time has come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import Physical, rows_to_batch, units
from headrace.core.errors import LogError
from headrace.core.points import IMPORTS_FROM
from headrace.core.schema import Kind
from headrace.core.times import Duration, Instant
from headrace.log.define import Clock, Topic
from headrace.log.identity import (
    UNKNOWN,
    Integers,
    Journal,
    Keys,
    NumberSegment,
    PayloadHash,
    TextSegment,
    Words,
)
from headrace.log.port import AVAILABLE_AT, VERDICT, Verdict

Booleans: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = pa.RecordBatch | Sequence[tuple[Physical, ...]]

NEVER = Instant(-62_135_596_800_000_000)  # the running maximum of a partition that holds nothing: year 1
# SEMANTICS 1.2: an append instant further above the reader's clock halts its partition
AHEAD_MAX = Duration.parse("5m")
# Some 3 us a row; above it, the 280 us that an Arrow batch of any size costs are soon less.
ROWS_ONE_BY_ONE_MAX = 64  # mutation: both ways judge alike
# Ids in a segment before the next is begun; growing one of this size takes some 40 ms.
SEGMENT_IDS = 1 << 20  # mutation: any size holds the same ids

# an IntEnum's member costs a descriptor call each time it is read; the hot path reads these
ACCEPTED, LATE, DUPLICATE, CONFLICT, AHEAD, RESTAMPED = (int(v) for v in (
    Verdict.ACCEPTED, Verdict.LATE, Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.AHEAD, Verdict.RESTAMPED,
))  # fmt: skip
_KEPT_ONE = frozenset((ACCEPTED, LATE, RESTAMPED))
_KEPT = np.array([verdict in _KEPT_ONE for verdict in sorted(Verdict)])  # by verdict: whether the id is remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One entry a row, in the rows' order.

    verdicts: a Verdict each. event_times, available_at: microseconds. payloads: the hashes that `remember` keeps; empty
    where the topic has no id.
    """

    verdicts: npt.NDArray[np.uint8]
    event_times: Integers
    available_at: Integers
    payloads: Words


class Mark:
    """A place to roll back to; opaque."""

    __slots__ = ("journal", "maxima")

    def __init__(self, maxima: dict[int, int]) -> None:
        self.journal: Journal = []
        self.maxima = maxima


class Judge:
    """Judges the rows of one topic incarnation, all partitions. Not thread-safe: the log's one writer calls it.

    Cost: a row alone some 8 us with its `remember`, each of a few some 3 us; in bulk some 2 M rows/s with an int64 id,
    0.5 M with a text.
    """

    def __init__(self, topic: Topic) -> None:
        """Of a topic that holds nothing, or before `restore`. Raises: DefinitionError HR-0410 for a list field."""
        self._maxima: dict[int, int] = {}
        self._ids: dict[int, _Ids] = {}
        self._history: _Ids | None = None
        self._mark: Mark | None = None
        self.declared(topic)

    def declared(self, topic: Topic) -> None:
        """The definition changed in a way that keeps what is stored (Log.declare): the next rows are judged by it."""
        names = topic.schema.names
        self.topic = topic
        self._payload = PayloadHash(topic.schema.fields)
        self._id = None if topic.id is None else names.index(topic.id)
        self._event_time = None if topic.event_time is None else names.index(topic.event_time)
        self._text = topic.id is not None and topic.schema[topic.id].type.kind is Kind.STRING
        self._simulated = topic.clock is Clock.SIMULATED
        for ids in self._ids.values():
            ids.dedup = topic.dedup.micros

    def running_maximum(self, partition: int) -> Instant:
        """The available_at of the partition's newest row; NEVER where it has none."""
        return Instant(self._maxima.get(partition, NEVER))

    def begin(self, partition: int, maximum: Instant) -> None:
        """The running maximum of a partition, of which no row was judged yet, where what lies before is gone."""
        self._maxima[partition] = maximum

    # --- judging ---

    def live(self, partition: int, rows: Rows, now: Instant | Integers, *, request: bool | Booleans = False) -> Judged:
        """Judge rows for a live partition; changes nothing.

        rows: validated, the topic's fields in declared order. now: the append instant, or one a row. request: the rows
        are requests of a decision, or those that say so are, which no clock refuses: an event time outside `skew` is
        replaced by the append instant (SEMANTICS 2.1).
        """
        if isinstance(now, np.ndarray) or isinstance(request, np.ndarray):
            batch = rows if isinstance(rows, pa.RecordBatch) else rows_to_batch(self.topic.schema, rows)
            return self._live_batch(partition, batch, now, request)
        if isinstance(rows, pa.RecordBatch):
            return self._live_batch(partition, rows, now, request)
        if len(rows) <= ROWS_ONE_BY_ONE_MAX:  # mutation: both ways judge alike
            return self._live_rows(partition, rows, now, request)
        return self._live_batch(partition, rows_to_batch(self.topic.schema, rows), now, request)

    def imported(self, partition: int, rows: Rows, available_at: Integers) -> Judged:
        """Judge rows for an import's partition; changes nothing. available_at: one instant a row, never falling.

        An id known in any of the topic's partitions is left out: DUPLICATE with the same payload, CONFLICT with
        another. Known are the ids within `dedup` and those of imports; `recall` adds the older ones.
        Raises: LogError HR-0312 where available_at falls.
        """
        batch = rows if isinstance(rows, pa.RecordBatch) else rows_to_batch(self.topic.schema, rows)
        last = self.running_maximum(partition)
        if len(available_at) and (int(available_at[0]) < last or bool((np.diff(available_at) < 0).any())):
            raise LogError(
                "HR-0312",
                f"import of topic {self.topic.name!r}: available_at falls",
                detail=f"expected instants that never fall, from {last} microseconds on: an import is in their order",
            )
        event_times = available_at if self._event_time is None else self._times(batch)
        base = self._by_time(event_times, available_at)
        if self._id is None:
            return Judged(verdicts=base, event_times=event_times, available_at=available_at, payloads=_NONE)
        payloads = self._payload.of_batch(batch)
        self._by_id(base, self._keys(batch), payloads, available_at, self._whole_history(), dedup=None)
        return Judged(verdicts=base, event_times=event_times, available_at=available_at, payloads=payloads)

    def _live_rows(self, partition: int, rows: Sequence[tuple[Physical, ...]], now: int, request: bool) -> Judged:
        """A few rows, one after the other, as if each were remembered before the next. The hot path of single events:
        plain ints to the end."""
        topic, event_time, id = self.topic, self._event_time, self._id
        skew, max_ahead, max_late, dedup = (
            topic.skew.micros, topic.max_ahead.micros, topic.max_late.micros, topic.dedup.micros,
        )  # fmt: skip
        ids = None if id is None else self._ids.get(partition)
        at = self._maxima.get(partition, NEVER)
        here: dict[Physical, tuple[int, int]] = {}
        verdicts, times, stamps, payloads = [], [], [], []
        for row in rows:
            time: int = now if event_time is None else row[event_time]  # type: ignore[assignment]  # never null, an instant
            at = max(at, time if self._simulated else now)
            appended = at if self._simulated else now
            verdict = ACCEPTED
            by_time = time
            if request and not -skew <= time - appended <= skew:
                verdict, by_time = RESTAMPED, appended
            elif time > at + max_ahead:
                verdict = AHEAD
            elif time < at - max_late:
                verdict = LATE
            if id is not None:
                key, payload = row[id], self._payload.of_row(row)
                known = here.get(key)
                if known is None and ids is not None:
                    known = ids.find_one(key)
                if known is not None and at - known[1] <= dedup:
                    verdict = DUPLICATE if known[0] == payload else CONFLICT
                elif verdict in _KEPT_ONE:
                    here[key] = payload, at
                payloads.append(payload)
            verdicts.append(verdict)
            times.append(by_time)
            stamps.append(at)
        return Judged(
            verdicts=np.array(verdicts, np.uint8),
            event_times=np.array(times, np.int64),
            available_at=np.array(stamps, np.int64),
            payloads=np.array(payloads, np.uint64) if payloads else _NONE,
        )

    def _live_batch(
        self, partition: int, batch: pa.RecordBatch, now: int | Integers, request: bool | Booleans
    ) -> Judged:
        timed = self.timed(batch, now, maximum=self._maxima.get(partition, int(NEVER)), request=request)
        return self.identified(partition, batch, timed)

    def identified(self, partition: int, batch: pa.RecordBatch, timed: Judged) -> Judged:
        """Rows of a live partition that were judged by the clock (`timed`, which is used up), by their ids too."""
        if self._id is None:
            return timed
        payloads, ids = self._payload.of_batch(batch), self._ids.get(partition, _Ids(self._text, None))
        dedup = self.topic.dedup.micros
        self._by_id(timed.verdicts, self._keys(batch), payloads, timed.available_at, ids, dedup=dedup)
        return replace(timed, payloads=payloads)

    def timed(self, batch: pa.RecordBatch, now: int | Integers, *, maximum: int, request: bool | Booleans) -> Judged:
        """As `live`, by the clock alone: whether an id is known is not asked. maximum: the running one before it."""
        stamps: Integers = np.full(batch.num_rows, now, np.int64) if isinstance(now, int) else now
        event_times = stamps if self._event_time is None else self._times(batch)
        available = np.maximum(np.maximum.accumulate(event_times if self._simulated else stamps), maximum)
        verdicts = self._by_time(event_times, available)
        if np.any(request):
            appended = available if self._simulated else stamps
            outside = (np.abs(event_times - appended) > self.topic.skew.micros) & request
            verdicts[:] = np.where(outside, RESTAMPED, verdicts)
            event_times = np.where(outside, appended, event_times)
        return Judged(verdicts=verdicts, event_times=event_times, available_at=available, payloads=_NONE)

    def _by_time(self, event_times: Integers, available: Integers) -> npt.NDArray[np.uint8]:
        verdicts = np.zeros(len(event_times), dtype=np.uint8)
        verdicts[event_times < available - self.topic.max_late.micros] = LATE
        verdicts[event_times > available + self.topic.max_ahead.micros] = AHEAD
        return verdicts

    def _by_id(
        self,
        verdicts: npt.NDArray[np.uint8],
        keys: Keys,
        payloads: Words,
        available: Integers,
        ids: _Ids,
        *,
        dedup: int | None,
    ) -> None:
        """Overwrite the verdicts of rows whose id is known, or comes twice among the rows. dedup: None is for ever."""
        known_payloads, known_at = ids.find(keys)
        known = known_at != UNKNOWN
        if dedup is not None:
            known &= available - known_at <= dedup
        by_time = verdicts.copy()
        verdicts[known] = np.where(known_payloads[known] == payloads[known], DUPLICATE, CONFLICT)
        here: dict[int | str, tuple[int, int]] = {}
        for row in _repeated(keys):
            key, payload, at = keys[row], int(payloads[row]), int(available[row])
            before = here.get(key)
            if before is None and known[row]:
                continue  # judged above; a later one of the same id may lie beyond dedup, and is judged above too
            if before is not None and (dedup is None or at - before[1] <= dedup):
                verdicts[row] = DUPLICATE if before[0] == payload else CONFLICT
            else:
                verdicts[row] = by_time[row]
                if by_time[row] != AHEAD:
                    here[key] = payload, at

    # --- remembering ---

    def remember(self, partition: int, rows: Rows, judged: Judged) -> None:
        """The rows are appended, or will be by the commit since the last `mark`: later ones are judged after them."""
        if not len(judged.verdicts):
            return
        newest = int(judged.available_at[-1])
        self._maxima[partition] = max(self._maxima.get(partition, NEVER), newest)
        if self._id is None:
            return
        journal = None if self._mark is None else self._mark.journal
        targets = self._targets(partition)
        # The hot path of single events: without an Arrow batch.
        if (
            not isinstance(rows, pa.RecordBatch) and len(rows) <= ROWS_ONE_BY_ONE_MAX
        ):  # mutation: below the same is kept
            verdicts, payloads = judged.verdicts.tolist(), judged.payloads.tolist()
            for row, verdict, payload, at in zip(rows, verdicts, payloads, judged.available_at.tolist(), strict=True):
                if verdict in _KEPT_ONE:
                    for ids in targets:
                        ids.put_one(row[self._id], payload, at, journal)
            return
        batch = rows if isinstance(rows, pa.RecordBatch) else rows_to_batch(self.topic.schema, rows)
        self._keep(targets, batch, judged.verdicts, judged.payloads, judged.available_at, journal)

    def mark(self) -> Mark:
        """What is remembered from here on can be rolled back, until the next mark; earlier marks are void."""
        self._mark = Mark(dict(self._maxima))
        return self._mark

    def rollback(self, mark: Mark) -> None:
        """Forget what was remembered since `mark`, the newest one: its commit failed and nothing of it was taken."""
        assert mark is self._mark, "only the newest mark can be rolled back to"
        while mark.journal:
            mark.journal.pop()()
        self._maxima = dict(mark.maxima)

    def restore(self, batches: Iterable[tuple[int, pa.RecordBatch]]) -> None:
        """Remember what the log holds: (partition, batch as read with its system columns), each partition in its order.

        Live partitions need what is within `dedup` of their newest available_at; more does no harm.
        """
        for partition, batch in batches:
            available = units(batch.column(AVAILABLE_AT))
            if not len(available):
                continue
            self._maxima[partition] = max(self._maxima.get(partition, NEVER), int(available.max()))
            if self._id is not None:
                self._restore_batch(self._targets(partition), batch, available)

    def recall(self, batches: Iterable[tuple[int, pa.RecordBatch]]) -> None:
        """Before an import into a topic with more history than `dedup`: know the ids of all of these batches, as read,
        until `release`."""
        if self._id is None:
            return
        history = self._whole_history()
        for _, batch in batches:
            self._restore_batch([history], batch, units(batch.column(AVAILABLE_AT)))

    def release(self) -> None:
        """After the imports: give back the memory of what only imports need. The next one needs `recall`."""
        self._history = None

    def _restore_batch(self, targets: Sequence[_Ids], batch: pa.RecordBatch, available: Integers) -> None:
        verdicts = batch.column(VERDICT).to_numpy()
        self._keep(targets, batch, verdicts, self._payload.of_batch(batch), available, None)

    def _keep(
        self,
        targets: Sequence[_Ids],
        batch: pa.RecordBatch,
        verdicts: npt.NDArray[np.uint8],
        payloads: Words,
        available: Integers,
        journal: Journal | None,
    ) -> None:
        kept = _KEPT[verdicts]
        if not kept.all():
            batch, payloads, available = batch.filter(pa.array(kept)), payloads[kept], available[kept]
        if not batch.num_rows:
            return
        keys = self._keys(batch)
        # Within dedup no id was taken twice.
        if int(available[-1]) - int(available[0]) > self.topic.dedup.micros:  # mutation: asking in vain changes nothing
            last = _last_of_repeated(keys)
            payloads, available = payloads[last], available[last]
            keys = [keys[row] for row in last] if isinstance(keys, list) else keys[last]
        for ids in targets:
            ids.put(keys, payloads, available, journal)

    def _targets(self, partition: int) -> list[_Ids]:
        """Where the ids of a partition's rows belong. Imports' ids matter to imports only (SEMANTICS 1.3, 1.5)."""
        if partition >= IMPORTS_FROM:
            return [self._whole_history()]
        own = self._ids.get(partition)
        if own is None:
            own = self._ids[partition] = self._new_ids()
        return [own] if self._history is None else [own, self._history]

    def _whole_history(self) -> _Ids:
        """The ids of all partitions, made of the live ones at first use."""
        if self._history is None:
            self._history = _Ids(self._text, None)
            for ids in self._ids.values():
                for keys, payloads, available in ids.entries():
                    self._history.put(keys, payloads, available, None)
        return self._history

    def _new_ids(self) -> _Ids:
        return _Ids(self._text, self.topic.dedup.micros)

    def _keys(self, batch: pa.RecordBatch) -> Keys:
        assert self.topic.id is not None
        array = batch.column(self.topic.id)
        return array.to_pylist() if self._text else units(array)

    def _times(self, batch: pa.RecordBatch) -> Integers:
        assert self.topic.event_time is not None
        return units(batch.column(self.topic.event_time))


_NONE: Words = np.zeros(0, dtype=np.uint64)


_Segment: TypeAlias = NumberSegment | TextSegment


class _Ids:
    """The known ids of one partition, newest segment last. dedup: microseconds of available_at; None never forgets."""

    def __init__(self, text: bool, dedup: int | None) -> None:
        self.dedup = dedup
        self._text = text
        self._segments: list[_Segment] = []

    def find_one(self, key: Physical) -> tuple[int, int] | None:
        for segment in reversed(self._segments):
            found = segment.find_one(key)  # type: ignore[arg-type]  # the topic's id type chose the segments' class
            if found is not None:
                return found
        return None

    def find(self, keys: Keys) -> tuple[Words, Integers]:
        """(payloads, available_at), UNKNOWN where the id is not there."""
        payloads, available = np.zeros(len(keys), np.uint64), np.full(len(keys), UNKNOWN, np.int64)
        for segment in self._segments:  # newest last, so that it wins
            here_payloads, here = segment.find(keys)  # type: ignore[arg-type]  # as above
            found = here != UNKNOWN
            payloads[found], available[found] = here_payloads[found], here[found]
        return payloads, available

    def put_one(self, key: Physical, payload: int, at: int, journal: Journal | None) -> None:
        self._segment(at, journal).put_one(key, payload, at, journal)  # type: ignore[arg-type]  # as above

    def put(self, keys: Keys, payloads: Words, available: Integers, journal: Journal | None) -> None:
        """keys: distinct."""
        self._segment(int(available.max()), journal).put(keys, payloads, available, journal)  # type: ignore[arg-type]  # as above

    def entries(self) -> Iterator[tuple[Keys, Words, Integers]]:
        """Everything held, oldest segment first."""
        for segment in self._segments:
            yield segment.entries()

    def _segment(self, at: int, journal: Journal | None) -> _Segment:
        """The segment to put into, after dropping those that are older than dedup."""
        segments = self._segments
        if segments:
            newest = segments[-1]
            fresh = self.dedup is None or at - newest.oldest <= self.dedup
            if newest.count < SEGMENT_IDS and fresh:
                return newest
        if journal is not None:
            journal.append(lambda: setattr(self, "_segments", segments))
        made: _Segment = TextSegment() if self._text else NumberSegment()
        kept = [s for s in segments if self.dedup is None or at - s.newest <= self.dedup]
        self._segments = [*kept, made]
        return made


def _repeated(keys: Keys) -> Sequence[int]:
    """The rows whose key comes more than once, in order. Rising keys, the common case, cost one pass."""
    if isinstance(keys, list):
        if len(set(keys)) == len(keys):  # mutation: the long way finds none either
            return ()
        counts = Counter(keys)
        return [row for row, key in enumerate(keys) if counts[key] > 1]
    if bool((keys[1:] > keys[:-1]).all()):  # mutation: the long way finds none either
        return ()
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return ()
    place = np.minimum(np.searchsorted(twice, keys), len(twice) - 1)
    rows: list[int] = np.flatnonzero(twice[place] == keys).tolist()
    return rows


def _last_of_repeated(keys: Keys) -> npt.NDArray[np.intp]:
    """The rows to keep so that each key is there once: its last."""
    rows = _repeated(keys)
    last = {keys[row]: row for row in rows}
    kept = np.ones(len(keys), dtype=np.bool_)
    kept[list(rows)] = False
    kept[list(last.values())] = True
    return np.flatnonzero(kept)
