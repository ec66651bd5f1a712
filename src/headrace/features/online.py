"""One view's online state: its kernel, the keys of its entities, and closures that insert and ask with nothing to look
up.

The one idea: everything that depends on the view, the topic or the partition is resolved when a partition or a request
topic is bound, so that an event costs its expressions, one dictionary look-up and one kernel call. Memory only; one
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.aggregate import ORDERED, Reason
from headrace.core.codec import Physical, physical_list, units
from headrace.core.errors import DefinitionError, HeadraceError, StateError, did_you_mean
from headrace.core.kernel.program import Flag, Items, Words
from headrace.core.kernel.state import KeyedState
from headrace.core.schema import Kind
from headrace.core.times import Instant, iso
from headrace.features.define import entity_expression
from headrace.features.derived import YoungEvents, source_places
from headrace.features.facts import Known, OriginFacts, Step, updates
from headrace.features.plan import Published, SourcePlan, ViewPlan
from headrace.features.reach import reach
from headrace.features.retained import Id, Origin
from headrace.log.define import Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, OFFSET

Row = Sequence[Physical]
Answer = tuple[tuple[Published, ...], tuple[Reason, ...]]  # values and reasons, in the view's order of features
Insert = Callable[[int, int, Row], None]  # offset, event time, row
Ask = Callable[[Row, int, int, int], Answer]  # row, t, partition index, offset

# An event's place in one word, unique within a view: the last part of its order key.
SOURCE_SHIFT, PARTITION_SHIFT = 58, 42
OFFSETS_MAX, PARTITIONS_MAX = 1 << PARTITION_SHIFT, 1 << 16
NOWHERE = ((PARTITIONS_MAX - 1) << PARTITION_SHIFT) | (OFFSETS_MAX - 1)  # of a request that is in no log: behind all
ORDER_STEP = 1 << 32  # between neighbours in a tie: room for 2**31 at either end, and 32 halvings in between
NO_INSTANT, NEVER = -(2**63), 2**63 - 1
NOTHING: Known = {}


def place_of(source: int, partition: int, offset: int) -> int:
    """The word that tells an event's place; `source` is its topic's index in the view."""
    return source << SOURCE_SHIFT | partition << PARTITION_SHIFT | offset


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A batch ready to apply. inserts and updates: for the kernel, in this order. slow: rows whose text id may decide a
    tie, as (handle, time, row number). All of it was computed; applying cannot fail but for want of memory."""

    inserts: Items
    updates: tuple[Items, ...]
    slow: tuple[int, ...]
    unindexed: int


class ViewState:
    """The events that a view's windows can still read, by entity, and the answers to what is asked of them."""

    def __init__(
        self, plan: ViewPlan, identity: Callable[[str, int, int], Id], kernel: KeyedState | None = None
    ) -> None:
        """identity: the id of the event at (topic, partition index, offset); asked only where a text id decides a
        tie."""
        self.plan = plan
        self.kernel = KeyedState(plan.program) if kernel is None else kernel
        self.keys: dict[Hashable, int] = {}
        self.unindexed = 0  # events without an entity (SEMANTICS 3.5)
        self.reach = reach(plan)
        self.before = NO_INSTANT  # events before it may be gone
        self.oldest = NO_INSTANT  # no read at an earlier t
        self._identity = identity
        self._failure: HeadraceError | None = None
        self._ordered = any(output.function in ORDERED for output in plan.program.outputs)
        spans = plan.program.spans
        self._overlaid = any(output.current and spans[output.span].overlaid for output in plan.program.outputs)
        self._rows = max(plan.program.value_rows, 4)
        self._newest = NO_INSTANT  # event time up to which a tie with a known event is possible
        self._read = self._asker_by(lambda row: row[0])
        self._direct = tuple(_direct(plan, source) for source in plan.sources)
        self._young = YoungEvents.of(plan)

    # --- inserting ---

    def inserter(self, source: SourcePlan, partition: int) -> Insert:
        """Inserts one taken live event of the partition: the hot path."""
        keys, kernel = self.keys, self.kernel
        entity_row, columns_row, put, new_key = source.entity_row, source.columns_row, kernel.insert, kernel.key
        base = place_of(source.index, partition, 0)
        order_of, texts = self._order_of(source), self.ties_by_text(source)
        numbered = self._id_place(source) if self._ordered and not texts else None

        def insert(offset: int, time: int, row: Row) -> None:
            entity = entity_row(row)
            if entity is None:
                self.unindexed += 1
                return
            key = keys.get(entity)
            if key is None:
                key = keys[entity] = new_key()
            valid, values = columns_row(row, NOTHING)
            order = row[numbered] if numbered is not None else order_of(key, time, row, base | offset)
            if texts:
                self._newest = max(self._newest, time)
            put(key, time, order, base | offset, valid, values)  # type: ignore[arg-type]  # an id of int64

        return insert

    def insert_imported(self, source: SourcePlan, origin: Origin) -> None:
        """Insert one taken event of an import, whose late columns may hold their truth; its steps are settled after."""
        entity = source.entity_row(origin.row)
        if entity is None:
            self.unindexed += 1
            return
        key = self._key(entity)
        place = place_of(source.index, origin.partition, origin.offset)
        valid, values = source.columns_row(origin.row, NOTHING)
        direct, _ = self._direct[source.index]
        if direct:
            later, words = source.columns_row(origin.row, imported(source, origin.row))
            for column in direct:
                valid = valid & ~(1 << column) | later & (1 << column)
                values[column] = words[column]
        order = self._order_of(source)(key, origin.event_time, origin.row, place)
        self._newest = max(self._newest, origin.event_time)
        self.kernel.insert(key, origin.event_time, order, place, valid, values)

    def settle(
        self,
        source: SourcePlan,
        origin: Origin,
        truths: Known,
        before: Sequence[Step],
        after: Sequence[Step],
        had: bool,
    ) -> None:
        """What is known of an inserted event became `after`; it was `before`.

        truths: the imported ones of its row. had: whether `before` holds facts; else it holds what `truths` say alone.
        """
        key = self.keys.get(source.entity_row(origin.row))
        if key is None:
            return
        place = place_of(source.index, origin.partition, origin.offset)
        evaluate = partial(source.columns_row, origin.row)
        direct, others = self._direct[source.index]
        changes = updates(others, evaluate(NOTHING), before, after, evaluate)
        if direct:
            changes += updates(direct, evaluate(truths), before if had else (), after, evaluate)
        for change in changes:
            self.kernel.update(
                key,
                origin.event_time,
                place,
                change.column,
                change.known_from,
                change.value,
                valid=change.valid,
                reset=change.reset,
            )

    def prepare(self, source: SourcePlan, partition: int, batch: pa.RecordBatch, *, truths: bool) -> Prepared:
        """Taken events as read from the log, ready to apply. truths: they are an import's, late columns may be filled.

        Raises: StateError HR-0510, HR-0511 of `SourcePlan.columns`; nothing has changed then.
        """
        entities = source.entity(batch)
        unindexed = entities.null_count
        if unindexed:
            there = entities.is_valid()
            batch, entities = batch.filter(there), entities.filter(there)
        times = units(batch.column(EVENT_TIME))
        if source.topic.derivation is None:
            places = units(batch.column(OFFSET)) | place_of(source.index, partition, 0)
        else:
            places = source_places(batch, PARTITION_SHIFT) | place_of(source.index, 0, 0)
        count = batch.num_rows
        handles = self._handles(entities)
        values = np.zeros((self._rows, count), np.int64)
        direct, others = self._direct[source.index]
        known = {name: batch.column(name) for name in source.late} if truths else {}
        valid, _ = source.columns(batch, {}, out=values)
        changes: list[Items] = []
        if known:
            changes = self._truth_steps(source, batch, known, others, (handles, times, places), valid, values)
            if direct:
                _overwrite(valid, values, source.columns(batch, known), direct)
        orders, slow = self._orders(source, batch, handles, times)
        inserts = _items(handles, Flag.INSERT, times, orders, places, valid, values)
        return Prepared(inserts=inserts, updates=tuple(changes), slow=slow, unindexed=unindexed)

    def apply(self, source: SourcePlan, prepared: Prepared, batch: pa.RecordBatch) -> None:
        """Take a prepared batch in. Raises: StateError HR-0503 where memory ends; the state is then of no more use."""
        self.unindexed += prepared.unindexed
        items = prepared.inserts
        if prepared.slow:
            fast = np.ones(len(items.key), np.bool_)
            fast[list(prepared.slow)] = False
            self.kernel.apply(_chosen(items, fast))
            self._apply_slowly(source, prepared, batch)
        else:
            self.kernel.apply(items)
        for change in prepared.updates:
            self.kernel.apply(change)
        if len(items.time):
            self._newest = max(self._newest, int(items.time.max()))
        if self._young is not None and batch.num_rows:
            self._young.add(items, int(units(batch.column(AVAILABLE_AT)).max()))

    def _apply_slowly(self, source: SourcePlan, prepared: Prepared, batch: pa.RecordBatch) -> None:
        """Rows that may tie, one by one: each finds its place among those before it."""
        items = prepared.inserts
        indexed = batch.filter(source.entity(batch).is_valid())
        ids = indexed.column(source.topic.id or "").to_pylist()
        columns = len(self.plan.program.columns)
        for i in prepared.slow:
            key, time, place = int(items.key[i]), int(items.time[i]), int(items.seq[i])
            order = items.order[i] = self._tied(key, time, ids[i])
            self.kernel.insert(key, time, order, place, int(items.valid[i]), items.values[:columns, i].tolist())

    def _truth_steps(
        self,
        source: SourcePlan,
        batch: pa.RecordBatch,
        known: Mapping[str, pa.Array],
        columns: Sequence[int],
        whose: tuple[Words, Words, Words],
        valid: Words,
        values: Words,
    ) -> list[Items]:
        """Updates at event_time + D where an imported truth changes a column that may be read before it is known."""
        handles, times, places = whose
        last_valid, last_values = valid, values
        result: list[Items] = []
        if not columns:
            return result
        delays = {name: source.topic[name].availability.after.micros for name in known}
        for delay in sorted(set(delays.values())):
            so_far = {name: array for name, array in known.items() if delays[name] <= delay}
            now_valid, now_values = source.columns(batch, so_far)
            for column in columns:
                bit = np.int64(1 << column)
                changed = ((last_valid ^ now_valid) & bit != 0) | (last_values[column] != now_values[column])
                rows = np.flatnonzero(changed)
                if not len(rows):
                    continue
                told = np.zeros((self._rows, len(rows)), np.int64)
                told[0] = column
                told[1] = times[rows] + delay
                told[2] = now_values[column][rows]
                told[3] = (now_valid[rows] & bit) != 0
                none = np.zeros(len(rows), np.int64)
                result.append(_items(handles[rows], Flag.UPDATE, times[rows], none, places[rows], none, told))
            last_valid, last_values = now_valid, now_values
        return result

    # --- asking ---

    def asker(self, request: Topic, facts: OriginFacts | None) -> Ask:
        """Answers a request of a topic at the present cut, itself overlaid where the topic is a source (SEMANTICS 2.2).

        facts: those of the request's topic. Raises: DefinitionError HR-0540 where the topic has no such entity. The
        closure raises StateError HR-0541 (TOO_OLD). A null entity, and one never seen, is answered as an empty one.
        """
        source = self.plan.source_of_requests(request.name)
        if source is None:
            return self._asker_by(self._named_in(request))
        if source.topic.derivation is not None and request.name != source.topic.name:
            return self._asker_beside(source)
        if not self._overlaid:
            return self._asker_by(source.entity_row)
        get, empty = self.keys.get, self.kernel.empty
        answer, publish = self.kernel.answer_bytes, self.plan.publisher.publish_bytes
        entity_row, columns_row, bounds_row = source.entity_row, source.columns_row, self._bounds_row()
        base = place_of(source.index, 0, 0)
        order_of = self._order_of(source)
        numbered = self._id_place(source) if self._ordered and not self.ties_by_text(source) else None
        id_place = self._id_place(source)
        asked = facts if source.labels or source.late else None

        def ask(row: Row, t: int, partition: int, offset: int) -> Answer:
            if t < self.oldest:
                raise self._too_old(t)
            entity = entity_row(row)
            key = get(entity, empty)
            known = NOTHING
            if asked is not None and id_place is not None:
                known = asked.known(row[id_place], t, t, NOTHING)  # type: ignore[arg-type]  # ids are never null
            valid, values = columns_row(row, known)
            place = base | partition << PARTITION_SHIFT | offset
            order = row[numbered] if numbered is not None else order_of(key, t, row, place)
            if bounds_row is not None:
                values += bounds_row(t)
            # `order` is an int: an id of int64, or what `order_of` gives.
            words, reasons = answer(key, t, order, place, entity is not None, valid, values)  # type: ignore[arg-type]
            return publish(words, reasons)

        return ask

    def _asker_beside(self, source: SourcePlan) -> Ask:
        """Answers requests whose topic the source is derived of: the request may be among the events already, under its
        own place, and counts as if it were not (SEMANTICS 5.1)."""
        get, empty, kernel, young = self.keys.get, self.kernel.empty, self.kernel, self._young
        publish = self.plan.publisher.publish_bytes
        base, order_of, bounds_row = place_of(source.index, 0, 0), self._order_of(source), self._bounds_row()

        def ask(row: Row, t: int, partition: int, offset: int) -> Answer:
            if t < self.oldest:
                raise self._too_old(t)
            entity = source.entity_row(row)
            key = get(entity, empty)
            valid, values = source.columns_row(row, NOTHING)
            place = base | partition << PARTITION_SHIFT | offset
            order = order_of(key, t, row, place)
            if bounds_row is not None:
                values += bounds_row(t)
            if young is not None and t < young.floor:
                raise self._too_old(t, young.floor)  # it is not known whether the request is among the events
            others = None if young is None else young.others(key, t, place)
            if others is None:
                return publish(*kernel.answer_bytes(key, t, order, place, entity is not None, valid, values))
            with kernel.before(key, t) as hidden:
                if hidden != len(others) + 1:
                    raise self._too_old(t, t + 1)
                for one in others:
                    kernel.insert(key, t, one.order, one.place, one.valid, one.values)
                return publish(*kernel.answer_bytes(key, t, order, place, True, valid, values))

        return ask

    def read(self, entity: Hashable, t: int) -> Answer:
        """A plain read. entity: its field's physical value, or a tuple where it has parts. Raises: StateError
        HR-0541."""
        return self._read((entity,), t, 0, 0)  # type: ignore[arg-type]  # an entity of several parts is a tuple

    def expire(self, t: int) -> None:
        """No read at an earlier t will come: what only such a read would see may go. Never moves back."""
        if self.reach is not None and t - self.reach > self.before:
            self.before, self.oldest = t - self.reach, t
            self.kernel.expire(self.before)

    def fail(self, error: HeadraceError) -> None:
        """The state broke while it changed: every question from now on is answered by an error."""
        self._failure, self.oldest = error, NEVER

    def restored(self, *, oldest: int, unindexed: int, newest: int) -> None:
        """Counters of a checkpoint, beside kernel and keys."""
        self.oldest, self.unindexed, self._newest = oldest, unindexed, newest
        if self._young is not None and newest != NO_INSTANT:
            self._young.floor = newest + 1
        self.before = NO_INSTANT if oldest == NO_INSTANT or self.reach is None else oldest - self.reach

    @property
    def newest(self) -> int:
        return self._newest

    def entity_of(self, request: Topic) -> Callable[[Row], Hashable | None]:
        """Whose values a request of a topic asks for. Raises: DefinitionError HR-0540."""
        source = self.plan.source_of_requests(request.name)
        return self._named_in(request) if source is None else source.entity_row

    # --- keys ---

    def _key(self, entity: Hashable) -> int:
        key = self.keys.get(entity)
        if key is None:
            key = self.keys[entity] = self.kernel.key()
        return key

    def _handles(self, entities: pa.Array | pa.ChunkedArray) -> Words:
        """A handle a row; entities without nulls."""
        flat = entities.combine_chunks() if isinstance(entities, pa.ChunkedArray) else entities
        if not len(flat):
            return np.zeros(0, np.int64)
        parts = flat.flatten() if pa.types.is_struct(flat.type) else [flat]
        encoded = [part.dictionary_encode() for part in parts]
        names = [physical_list(one.dictionary) for one in encoded]
        if len(parts) == 1:
            handles = np.array([self._key(name) for name in names[0]], np.int64)
            return handles[encoded[0].indices.to_numpy()]
        codes = np.stack([one.indices.to_numpy() for one in encoded], axis=1)
        distinct, places = np.unique(codes, axis=0, return_inverse=True)
        tuples = [tuple(of[code] for of, code in zip(names, row, strict=True)) for row in distinct.tolist()]
        return np.array([self._key(entity) for entity in tuples], np.int64)[places.reshape(-1)]

    def _named_in(self, request: Topic) -> Callable[[Row], Hashable | None]:
        """Whose values a request asks for whose topic is no source: its fields named like the entity say it."""
        view = self.plan.view
        types = [entity_expression(view.sources.emissions[0], part, view.name).type for part in view.entity]
        for part, type in zip(view.entity, types, strict=True):
            seen = request.schema[part].type if part in request.schema else None
            if seen != type:
                raise DefinitionError(
                    "HR-0540",
                    f"a request of topic {request.name!r} names no entity of view {view.name!r}",
                    detail=f"expected field {part!r} of {type}, seen {'none' if seen is None else seen}",
                    hint=did_you_mean(part, request.schema.names),
                )
        places = [request.schema.names.index(part) for part in view.entity]
        if len(places) == 1:
            alone = places[0]
            return lambda row: row[alone]
        return lambda row: tuple([row[place] for place in places])

    def _asker_by(self, entity_of: Callable[[Row], Hashable | None]) -> Ask:
        """Asks without an overlay: the request itself lies in none of the view's windows."""
        get, empty = self.keys.get, self.kernel.empty
        answer, publish = self.kernel.answer_bytes, self.plan.publisher.publish_bytes
        values, bounds_row = [0] * len(self.plan.program.columns), self._bounds_row()

        def ask(row: Row, t: int, partition: int, offset: int) -> Answer:
            if t < self.oldest:
                raise self._too_old(t)
            key = get(entity_of(row), empty)
            brought = values if bounds_row is None else values + bounds_row(t)
            words, reasons = answer(key, t, 0, NOWHERE, False, 0, brought)
            return publish(words, reasons)

        return ask

    def _bounds_row(self) -> Callable[[int], list[int]] | None:
        return self.plan.bounds_row if self.plan.program.calendars else None

    def _too_old(self, t: int, oldest: int | None = None) -> StateError:
        if self._failure is not None:
            return StateError(
                "HR-0544",
                f"the state of view {self.plan.view.name!r} broke while it took events in",
                detail=str(self._failure),
                hint="rebuild it from a checkpoint or the log",
            )
        oldest = self.oldest if oldest is None else oldest
        return StateError(
            "HR-0541",
            f"view {self.plan.view.name!r} no longer holds what a read at {iso(Instant(t))} would see (TOO_OLD)",
            detail=f"expected {iso(Instant(oldest))} or later",
            hint="replay it from the log",
            view=self.plan.view.name,
            t=t,
            oldest=oldest,
        )

    # --- the order of ids ---

    def _id_place(self, source: SourcePlan) -> int | None:
        topic = source.topic
        return None if topic.id is None else topic.schema.names.index(topic.id)

    def ties_by_text(self, source: SourcePlan) -> bool:
        """Whether text ids decide the order of what happened at one instant, so that ids must be retained."""
        topic = source.topic
        return self._ordered and topic.id is not None and topic.schema[topic.id].type.kind is Kind.STRING

    def _order_of(self, source: SourcePlan) -> Callable[[int, int, Row, int], int]:
        """The kernel's `order` of an event: its id if that is a number, else what sorts like the id among those it ties
        with; 0 where no order is asked for."""
        place = self._id_place(source)
        if place is None or not self._ordered:
            return lambda key, time, row, seq: 0
        if not self.ties_by_text(source):
            return lambda key, time, row, seq: row[place]  # type: ignore[return-value]  # an id of int64
        return lambda key, time, row, seq: self._tied(key, time, row[place])  # type: ignore[arg-type]  # a text

    def _orders(
        self, source: SourcePlan, batch: pa.RecordBatch, handles: Words, times: Words
    ) -> tuple[Words, tuple[int, ...]]:
        """(order of each row, rows that may tie by a text id and are inserted one by one)."""
        none = np.zeros(len(times), np.int64)
        if not self._ordered or source.topic.id is None:
            return none, ()
        if not self.ties_by_text(source):
            return units(batch.column(source.topic.id)), ()
        sorted_rows = np.lexsort((handles, times))
        same = (np.diff(times[sorted_rows]) == 0) & (np.diff(handles[sorted_rows]) == 0)
        slow = times <= self._newest
        slow[sorted_rows[1:][same]] = True
        slow[sorted_rows[:-1][same]] = True
        return none, tuple(np.flatnonzero(slow).tolist())

    def _tied(self, key: int, time: int, id: Id) -> int:
        """An `order` between those of the events at the same instant whose ids stand before and behind this one."""
        if time < self.before:
            return 0  # nothing reads it, and those beside it may be forgotten already
        low: int | None = None
        for order, place in self.kernel.ties(key, time):
            other = self._id_at(place)
            if other == id:
                return order
            if other > id:  # type: ignore[operator]  # ids of one view have one type
                if low is None:
                    return order - ORDER_STEP
                if order - low < 2:
                    raise self._crowded(time)
                return (low + order) // 2
            low = order
        return 0 if low is None else low + ORDER_STEP

    def _id_at(self, place: int) -> Id:
        topic = self.plan.sources[place >> SOURCE_SHIFT].topic.name
        return self._identity(topic, place >> PARTITION_SHIFT & (PARTITIONS_MAX - 1), place & (OFFSETS_MAX - 1))

    def _crowded(self, time: int) -> StateError:
        return StateError(
            "HR-0542",
            f"view {self.plan.view.name!r}: too many events of one entity at {iso(Instant(time))} came in an order of "
            "ids that leaves no room between them",
            hint="rebuild the state from the log",
        )


def imported(source: SourcePlan, row: Row) -> dict[str, Physical]:
    """The truths of late columns that an imported row brings along."""
    names = source.topic.schema.names
    values = {name: row[names.index(name)] for name in source.late}
    return {name: value for name, value in values.items() if value is not None}


def _direct(plan: ViewPlan, source: SourcePlan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(columns into which an imported truth goes at once, the others that keep a history).

    Where every window over a column waits at least D, no read can tell whether the truth was there from the beginning
    or from event_time + D on, and a column without a future change is read by running totals.
    """
    if not source.late:
        return (), source.history
    longest = max(source.topic[name].availability.after.micros for name in source.late)
    program = plan.program
    waits: dict[int, int] = {}
    for output in program.outputs:
        if output.column is not None:
            span = program.spans[output.span]
            delay = 0 if span.calendar is not None else span.delay
            waits[output.column] = min(delay, waits.get(output.column, delay))
    direct = tuple(column for column in source.history if waits[column] >= longest)
    return direct, tuple(column for column in source.history if column not in direct)


def _overwrite(valid: Words, values: Words, by: tuple[Words, Words], columns: Sequence[int]) -> None:
    """These columns as `by` has them, in place."""
    mask = np.int64(sum(1 << column for column in columns))
    valid &= ~mask
    valid |= by[0] & mask
    for column in columns:
        values[column] = by[1][column]


def _items(
    handles: Words, flag: Flag, times: Words, orders: Words, places: Words, valid: Words, values: Words
) -> Items:
    """Items of one kind, for `KeyedState.apply`, which takes handles as keys."""
    flags: npt.NDArray[np.uint8] = np.full(len(handles), int(flag), np.uint8)
    return Items(
        key=handles,  # type: ignore[arg-type]  # handles are int64
        flags=flags,
        time=np.array(
            times
        ),  # copies: Arrow's memory is read-only, which the kernel would have to be compiled for again
        order=np.array(orders),
        seq=np.array(places),
        valid=valid,
        values=values,
        out=np.zeros(0, np.int64),
    )


def _chosen(items: Items, rows: npt.NDArray[np.bool_]) -> Items:
    return Items(
        key=items.key[rows],
        flags=items.flags[rows],
        time=items.time[rows],
        order=items.order[rows],
        seq=items.seq[rows],
        valid=items.valid[rows],
        values=np.ascontiguousarray(items.values[:, rows]),
        out=items.out,
    )
