"""The online state: follows the log's partitions, and answers at the present cut. Reads the log through its port only.

The one idea: per partition one loop, apply what is before p, answer at p, apply p (SEMANTICS 1.7). State changes only
by reading the log; asking changes nothing. What a request needs is bound once (`asker`), so that an answer over several
views is a few microseconds of Python around the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from headrace.core.codec import Physical, batch_to_rows, units
from headrace.core.errors import DefinitionError, HaltedError, HeadraceError, NotFoundError, StateError, did_you_mean
from headrace.core.expr import Expr, Source, references
from headrace.core.kernel.state import KeyedState
from headrace.core.points import IMPORTS_FROM, Cut, Partition
from headrace.features.define import FeatureView, entity_expression
from headrace.features.derived import Horizon, by_source, retained_index
from headrace.features.facts import FactJoin, FactReader, FactRule, Id, Order, OriginFacts, Step
from headrace.features.online import NEVER, NO_INSTANT, OFFSETS_MAX, PARTITIONS_MAX, Answer, Ask, Insert, Row, ViewState
from headrace.features.plan import SourcePlan, ViewPlan
from headrace.features.retained import Origin, RetainedRows
from headrace.log.define import Emission, Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, OFFSET, TAKEN, VERDICT, Log, PartitionState, Verdict

FEW_ROWS = 16  # of a live partition: fewer are taken one by one
SWEEP_MIN = 60_000_000  # microseconds of available_at between two looks at what has expired
SWEEPS = 64  # how many of them a window's reach is worth: at most so much more than needed is kept
_IS_TAKEN = tuple(verdict in TAKEN for verdict in range(max(Verdict) + 1))


class AskAt(Protocol):
    """Answers a request at an offset and t; ahead: rows just before it that were not taken yet."""

    def __call__(self, offset: int, row: Row, t: int, ahead: int = 0, /) -> tuple[Answer, ...]: ...


class Feed:
    """One partition as it is followed. next: the next offset to read. available_at: the newest row's."""

    __slots__ = ("available_at", "horizon", "index", "inserts", "more", "next", "partition", "sweep_at", "topic")

    def __init__(self, partition: Partition, topic: TopicState, offset: int) -> None:
        self.partition = partition
        self.index = partition.index
        self.topic = topic
        self.next = offset
        self.available_at = NO_INSTANT
        self.sweep_at = NO_INSTANT
        self.inserts: tuple[Insert, ...] = ()
        self.more = False
        self.horizon = None if topic.topic.derivation is None else Horizon()

    @property
    def live(self) -> bool:
        return self.index < IMPORTS_FROM


class TopicState:
    """What one topic is to the views: a source, a place of facts, both.

    sources: the views that read its events. facts: what becomes known of its events later; None where nobody asks.
    retained: its events, where facts or ties ask for them again. readers: whose facts its events are.
    """

    __slots__ = ("facts", "feeds", "forgotten", "id_place", "late", "readers", "retained", "sources", "topic")

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.sources: list[tuple[ViewState, SourcePlan]] = []
        self.readers: list[tuple[FactReader, FactJoin, TopicState]] = []
        self.facts: OriginFacts | None = None
        self.retained: RetainedRows | None = None
        self.feeds: dict[int, Feed] = {}
        self.id_place = None if topic.id is None else topic.schema.names.index(topic.id)
        self.late: tuple[tuple[str, int], ...] = ()
        self.forgotten = NO_INSTANT

    def truths(self, feed_live: bool, row: Row) -> dict[str, Physical]:
        """The late columns of an imported row that are filled."""
        if feed_live:
            return {}
        return {name: row[place] for name, place in self.late if row[place] is not None}


class FeatureState:
    """The state of some views, as far as the log was read. One thread at a time.

    Events must come per partition in order of offsets; those read already are left out, so that a batch may be given
    twice. After an error from `ingest` or `ingest_row` other than HR-0543 the state answers nothing more (HR-0544).
    """

    def __init__(
        self,
        plans: Sequence[ViewPlan],
        *,
        topics: Iterable[Topic] = (),
        kernels: Mapping[str, KeyedState] | None = None,
        only: int | None = None,
    ) -> None:
        """plans: compiled for this state alone, as their codes grow with it. topics: definitions of the topics that
        bring live truths of late columns, `<topic>.<column>`; those of others the plans know. only: of every topic the
        partition of this index alone.

        Raises: DefinitionError HR-0545 where two plans know different topics under one name.
        """
        self._only = only
        self.topic_states: dict[str, TopicState] = {}
        self.feeds: dict[Partition, Feed] = {}
        self.views: dict[str, ViewState] = {}
        for plan in plans:
            view = ViewState(plan, self._identity, None if kernels is None else kernels[plan.view.name])
            self.views[plan.view.name] = view
            for source in plan.sources:
                self._topic(source.topic).sources.append((view, source))
        self._connect({topic.name: topic for topic in topics})

    # --- following the log ---

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics whose partitions the state wants to read, in order of name."""
        return tuple(sorted(self.topic_states))

    @property
    def frontier(self) -> Cut:
        """The next offset of each partition that was read."""
        return Cut.of({partition: feed.next for partition, feed in self.feeds.items()})

    def available_at(self, partition: Partition) -> int | None:
        """The running maximum as of the frontier; None where nothing was read."""
        feed = self.feeds.get(partition)
        return None if feed is None or feed.available_at == NO_INSTANT else feed.available_at

    def catch_up(self, log: Log, *, upto: Cut | None = None, halts: dict[Partition, HaltedError] | None = None) -> int:
        """Read everything that the log holds of the topics, up to its end as it is now. Returns how many rows that
        were.

        upto: partitions that it holds are read below its offset only, and then stand exactly there; the others as far
        as the log has their rows at hand, without waiting for anybody. halts: takes the partitions that the log does
        not read on, of those that `upto` does not hold, and the others are read; without, the first raises. Raises:
        StateError HR-0546 where a topic was made anew, or the log ends before what was read of it: old rows are gone,
        and the state must be; HaltedError.
        """
        count = 0
        ends = {} if upto is None else dict(upto)
        for found in log.topics(fresh=upto is None):
            if found.topic.name not in self.topic_states:
                continue
            for held in found.partitions:
                if self._only is not None and held.partition.index != self._only:
                    continue
                feed = self.feeds.get(held.partition)
                if upto is None and feed is not None and feed.next > held.end:
                    raise _ahead(feed, held.end)
                end = ends.get(held.partition)
                known = held.end if upto is None else held.at_hand
                try:
                    count += self._read(log, found.topic, held, known if end is None else end)
                except HaltedError as error:
                    if halts is None or end is not None:
                        raise
                    halts[held.partition] = error
                if end is not None:
                    feed = self._feed(held.partition, end)
                    feed.next = max(feed.next, end)
        return count

    def _read(self, log: Log, topic: Topic, held: PartitionState, end: int) -> int:
        """A partition's rows behind what was read of it, and below `end`."""
        partition = held.partition
        feed = self.feeds.get(partition)
        self._check_incarnation(partition)
        first, count = held.start if feed is None else feed.next, 0
        if first >= end:
            return 0
        for batch in log.read(partition, first, end=end):
            if batch.num_rows <= FEW_ROWS and partition.index < IMPORTS_FROM and topic.derivation is None:
                self._ingest_few(partition, topic, batch, first)
            else:
                self.ingest(partition, batch, behind=first)
            first = self.feeds[partition].next
            count += batch.num_rows
        return count

    def _ingest_few(self, partition: Partition, topic: Topic, batch: pa.RecordBatch, behind: int) -> None:
        """Row by row: what comes between two decisions is a row or two, and a batch costs ten rows more."""
        system = (units(batch.column(name)).tolist() for name in (OFFSET, AVAILABLE_AT, EVENT_TIME))
        verdicts = batch.column(VERDICT).to_pylist()
        feed = self._feed(partition, behind)
        for offset, at, time, verdict, row in zip(*system, verdicts, batch_to_rows(topic.schema, batch), strict=True):
            feed.next = max(feed.next, offset)  # what the log left out in between is no event
            self.ingest_row(partition, offset, at, time, verdict, row)

    def ingest(self, partition: Partition, batch: pa.RecordBatch, *, behind: int | None = None) -> None:
        """Take a batch as the log's `read` gives it: SYSTEM_COLUMNS, then the topic's fields.

        behind: it holds all that the log has from this offset to its last row, whatever offsets it leaves out (a log
        may have gaps); by default no offset may be missing. Raises: StateError HR-0543 where rows are missing in
        between; HR-0510, HR-0511 and HR-0503 break the state.
        """
        if not batch.num_rows:
            return
        offsets = units(batch.column(OFFSET))
        first, last = int(offsets[0]), int(offsets[-1])
        feed = self._feed(partition, first if behind is None else behind)
        if behind is None and last - first + 1 != batch.num_rows or (first if behind is None else behind) > feed.next:
            raise _gap(feed, first, last)
        if last < feed.next:
            return
        batch = batch.slice(int(np.searchsorted(offsets, feed.next)))
        taken = np.isin(batch.column(VERDICT).to_numpy(), TAKEN)
        try:
            self._take(feed, batch if taken.all() else batch.filter(pa.array(taken)))
        except HeadraceError as error:
            self._fail(error)
            raise
        feed.next = last + 1
        newest = int(units(batch.column(AVAILABLE_AT)).max())
        if feed.horizon is not None:
            newest = feed.horizon.after(batch)
        feed.available_at = max(feed.available_at, newest)
        if feed.available_at >= feed.sweep_at:
            self._sweep(feed)

    def ingest_row(
        self, partition: Partition, offset: int, available_at: int, event_time: int, verdict: int, row: Row
    ) -> None:
        """Take one row: what SYSTEM_COLUMNS say of it, then the topic's fields, physical. The path of single events."""
        feed = self.feeds.get(partition)
        if feed is None:
            feed = self._feed(partition, offset)
        if offset != feed.next:
            if offset > feed.next:
                raise _gap(feed, offset, offset)
            return
        feed.next = offset + 1
        if available_at > feed.available_at:
            feed.available_at = available_at
            if available_at >= feed.sweep_at:
                self._sweep(feed)
        if not _IS_TAKEN[verdict]:
            return
        try:
            for insert in feed.inserts:
                insert(offset, event_time, row)
            if feed.more:
                self._take_more(feed, offset, event_time, row)
        except HeadraceError as error:
            self._fail(error)
            raise

    # --- answering ---

    def asker(self, views: Sequence[str], request: Topic, partition: Partition) -> AskAt:
        """Answers requests of one partition over some views: `ask(offset, row, t, ahead)`, in order of the views.

        To be called when everything before `offset` was taken, but for the `ahead` rows just before it, which change no
        value that is asked (see `touches`), and the request itself was not: it enters by overlay alone (SEMANTICS
        1.1); at any time, where none of the views reads the request's topic. Raises: NotFoundError HR-0547 for an
        unknown view; DefinitionError HR-0540 where the topic names no entity of it. The closure raises StateError
        HR-0541 (TOO_OLD), HR-0548 (the state stands elsewhere).
        """
        asks = self._asks(views, request)
        index = partition.index
        held = self.topic_states.get(request.name)
        chosen = {id(self._view(name)) for name in views}
        if held is None or not (held.readers or any(id(view) in chosen for view, _ in held.sources)):
            return lambda offset, row, t, ahead=0: tuple([ask(row, t, index, offset) for ask in asks])
        feed = self._feed(partition, 0)

        def ask_at(offset: int, row: Row, t: int, ahead: int = 0, /) -> tuple[Answer, ...]:
            if offset - ahead != feed.next:
                raise _elsewhere(feed, offset)
            return tuple([ask(row, t, index, offset) for ask in asks])

        return ask_at

    def touches(self, request: Topic) -> Callable[[Row], tuple[Hashable, ...]] | None:
        """Whose values an event of the topic changes, each entity with its view; None where it may change others' too,
        as its events are facts of other events. What asks for none of them is answered alike before and after it."""
        held = self.topic_states.get(request.name)
        if held is None:
            return lambda row: ()
        if held.readers:
            return None
        sources = tuple((number, source.entity_row) for number, (_, source) in enumerate(held.sources))
        views = [list(self.views.values()).index(view) for view, _ in held.sources]

        def touched(row: Row) -> tuple[Hashable, ...]:
            return tuple([(views[number], entity_of(row)) for number, entity_of in sources])

        return touched

    def hypothetical(self, views: Sequence[str], request: Topic) -> Callable[[Row, int], tuple[Answer, ...]]:
        """Answers what a request would see if it came now, without being in the log: `ask(row, t)`. Raises as
        `asker`."""
        asks = self._asks(views, request)
        return lambda row, t: tuple([ask(row, t, PARTITIONS_MAX - 1, OFFSETS_MAX - 1) for ask in asks])

    def read(self, view: str, entity: Hashable, t: int) -> Answer:
        """A view's values of an entity at t, at the present cut; of one never seen, those of an empty one.

        entity: its field's physical value, or a tuple where it has parts. Raises: NotFoundError HR-0547, StateError
        HR-0541 (TOO_OLD).
        """
        return self._view(view).read(entity, t)

    # --- connecting ---

    def _topic(self, topic: Topic) -> TopicState:
        held = self.topic_states.get(topic.name)
        if held is None:
            held = self.topic_states[topic.name] = TopicState(topic)
        elif held.topic != topic:
            raise DefinitionError(
                "HR-0545",
                f"two different topics are named {topic.name!r}",
                hint="compile the views of one state from one definition",
            )
        return held

    def _connect(self, given: Mapping[str, Topic]) -> None:
        """Who tells whom what: labels' sources and truths' topics to the topics of the origins."""
        for held in list(self.topic_states.values()):
            rules: dict[str, tuple[FactRule, Topic | None]] = {}
            late: set[str] = set()
            for _, source in held.sources:
                late.update(source.late)
                for label in source.labels:
                    rules[label.name] = FactRule.of_label(label), label.source
                for name in source.late:
                    rule = FactRule.of_late(held.topic, name)
                    rules[name] = rule, given.get(rule.topic) if held.topic.id is not None else None
            names = held.topic.schema.names
            held.late = tuple((name, names.index(name)) for name in sorted(late))
            if rules:
                joins = [FactJoin(rule) for rule, _ in rules.values()]
                held.facts = OriginFacts(joins)
                for join, (rule, source_topic) in zip(joins, rules.values(), strict=True):
                    if source_topic is not None:
                        self._topic(source_topic).readers.append((FactReader(rule, source_topic), join, held))
            awaited = any(source_topic is not None for _, source_topic in rules.values())
            held.retained = _retained(held, awaited and held.topic.id is not None)

    def _feed(self, partition: Partition, offset: int) -> Feed:
        """The partition's feed; a new one begins at the offset. Raises: StateError HR-0546, HR-0549."""
        feed = self.feeds.get(partition)
        if feed is not None:
            return feed
        topic = self.topic_states.get(partition.topic)
        if topic is None:
            raise StateError(
                "HR-0549", f"no view of this state reads topic {partition.topic!r}", hint=", ".join(self.topics)
            )
        self._check_incarnation(partition)
        feed = Feed(partition, topic, offset)
        feed.inserts = tuple(self._insert(feed, view, source) for view, source in topic.sources)
        feed.more = bool(topic.retained is not None or topic.facts is not None or topic.readers)
        topic.feeds[partition.index] = feed
        self.feeds[partition] = feed
        return feed

    def _insert(self, feed: Feed, view: ViewState, source: SourcePlan) -> Insert:
        if feed.live or not source.late:
            return view.inserter(source, feed.index)
        return lambda offset, time, row: view.insert_imported(source, Origin(feed.index, offset, time, tuple(row)))

    def resume(self, partition: Partition, offset: int, available_at: int) -> None:
        """Of a checkpoint: the partition was read up to `offset`, its newest row was available then."""
        self._feed(partition, offset).available_at = available_at

    def _check_incarnation(self, partition: Partition) -> None:
        for other in self.feeds:
            if other.topic == partition.topic and other.incarnation != partition.incarnation:
                raise StateError(
                    "HR-0546",
                    f"topic {partition.topic!r} was made anew",
                    detail=f"the state holds incarnation {other.incarnation}, the log has {partition.incarnation}",
                    hint="delete the checkpoint; the state is rebuilt from the log",
                )

    def _identity(self, topic: str, partition: int, offset: int) -> Id:
        held = self.topic_states[topic]
        found = None
        if held.retained is not None and held.topic.derivation is None:
            found = held.retained.at(partition, offset)
        elif held.retained is not None:
            indices = (retained_index(feed, partition) for feed in held.feeds)
            found = next(filter(None, (held.retained.at(index, offset) for index in indices)), None)
        assert found is not None and held.id_place is not None, "the ids of what a view retains are retained"
        return found.row[held.id_place]  # type: ignore[return-value]  # ids are never null

    # --- taking ---

    def _take(self, feed: Feed, batch: pa.RecordBatch) -> None:
        """Taken rows: first everything is computed, then views, retained rows and facts change."""
        topic = feed.topic
        prepared = [
            (view, source, view.prepare(source, feed.index, batch, truths=not feed.live))
            for view, source in topic.sources
        ]
        if topic.retained is not None:
            derived = topic.topic.derivation is not None
            for index, rows in by_source(feed.index, batch) if derived else [(feed.index, batch)]:
                topic.retained.add_batch(index, rows)
        for view, source, one in prepared:
            view.apply(source, one, batch)
        if topic.facts is not None and topic.retained is not None and topic.facts.ids():
            self._settle_awaited(feed, batch)
        for reader, join, origins in topic.readers:
            for origin, time, order, value in reader.batch(feed.index, batch):
                self._fact(join, origins, origin, time, order, value)

    def _settle_awaited(self, feed: Feed, batch: pa.RecordBatch) -> None:
        """The rows of a batch whose facts came first."""
        topic, facts, retained = feed.topic, feed.topic.facts, feed.topic.retained
        assert facts is not None and retained is not None and topic.topic.id is not None
        awaited = facts.ids()
        ids = batch.column(topic.topic.id).to_pylist()
        offsets = units(batch.column(OFFSET))
        for place, id in enumerate(ids):
            if id in awaited:
                origin = retained.at(feed.index, int(offsets[place]))
                assert origin is not None, "it was added a moment ago"
                truths = topic.truths(feed.live, origin.row)
                after = facts.steps(id, origin.event_time, truths)
                before = facts.of_row(origin.event_time, truths)
                for view, source in topic.sources:
                    view.settle(source, origin, truths, before, after, False)

    def _take_more(self, feed: Feed, offset: int, time: int, row: Row) -> None:
        """What a row means beside its place in the views: kept, its late truths and awaited facts, facts of others."""
        topic = feed.topic
        if topic.retained is not None:
            topic.retained.add_row(feed.index, offset, time, row)
        facts = topic.facts
        if facts is not None:
            id = 0 if topic.id_place is None else row[topic.id_place]
            truths = topic.truths(feed.live, row)
            if truths or id in facts:
                origin = Origin(feed.index, offset, time, tuple(row))
                after = facts.steps(id, time, truths)  # type: ignore[arg-type]  # ids are never null
                for view, source in topic.sources:
                    view.settle(source, origin, truths, (), after, False)
        for reader, join, origins in topic.readers:
            found = reader.row(feed.index, offset, row)
            if found is not None:
                self._fact(join, origins, found[0], time, found[1], found[2])

    def _fact(self, join: FactJoin, topic: TopicState, id: Id, time: int, order: Order, value: Physical) -> None:
        """A fact came: what is known of the events that it names changes, in all views that read them."""
        facts, retained = topic.facts, topic.retained
        assert facts is not None and retained is not None
        had = id in facts
        named: list[tuple[Origin, dict[str, Physical], list[Step]]] = []
        for origin in retained.find(id):
            truths = topic.truths(origin.partition < IMPORTS_FROM, origin.row)
            named.append((origin, truths, facts.steps(id, origin.event_time, truths)))
        if not join.fact(id, time, order, value):
            return
        for origin, truths, before in named:
            after = facts.steps(id, origin.event_time, truths)
            for view, source in topic.sources:
                view.settle(source, origin, truths, before, after, had)

    def _fail(self, error: HeadraceError) -> None:
        for view in self.views.values():
            view.fail(error)

    # --- forgetting ---

    def _sweep(self, feed: Feed) -> None:
        """Let go what no read within max_late can see (SEMANTICS 1.4)."""
        reaches = [view.reach for view in self.views.values() if view.reach is not None]
        feed.sweep_at = feed.available_at + max(min(reaches) // SWEEPS, SWEEP_MIN) if reaches else NEVER
        for view in self.views.values():
            horizons = [_horizon(self.topic_states[source.topic.name]) for source in view.plan.sources]
            known = [horizon for horizon in horizons if horizon is not None]
            if known:
                view.expire(min(known))
        for topic in self.topic_states.values():
            if topic.retained is not None:
                _forget(topic, topic.retained)

    def _asks(self, views: Sequence[str], request: Topic) -> tuple[Ask, ...]:
        held = self.topic_states.get(request.name)
        facts = None if held is None else held.facts
        return tuple(self._view(name).asker(request, facts) for name in views)

    def _view(self, name: str) -> ViewState:
        view = self.views.get(name)
        if view is None:
            raise NotFoundError("HR-0547", f"no view {name!r} in this state", hint=did_you_mean(name, self.views))
        return view


def _horizon(topic: TopicState) -> int | None:
    """No decision on the topic's events will ask at an earlier t. Sealed imports bring no decisions, so live partitions
    say it where there are any. None while nothing was read."""
    live = [feed.available_at for feed in topic.feeds.values() if feed.live and feed.available_at != NO_INSTANT]
    sealed = [feed.available_at for feed in topic.feeds.values() if not feed.live and feed.available_at != NO_INSTANT]
    if live:
        return min(live) - topic.topic.max_late.micros
    return max(sealed) - topic.topic.max_late.micros if sealed else None


def _forget(topic: TopicState, retained: RetainedRows) -> None:
    """Retained rows and facts of events that all views have forgotten."""
    before = min((view.before for view, _ in topic.sources), default=NO_INSTANT)
    if any(view.reach is None for view, _ in topic.sources) or before <= topic.forgotten:
        return
    topic.forgotten = before
    gone = retained.forget(before)
    if topic.facts is not None:
        facts = topic.facts
        facts.forget(before, [id for id in gone if id in facts and not retained.find(id)])


def _retained(held: TopicState, by_id: bool) -> RetainedRows | None:
    """What of a topic's events must be kept for later: what facts need of their origins, and text ids for ties.

    by_id: facts will name them.
    """
    kept: set[str] = set()
    if by_id:
        for view, source in held.sources:
            emission = view.plan.view.sources.emissions[source.index]
            kept.update(_fields_read(view.plan.view, emission))
    if any(view.ties_by_text(source) for view, source in held.sources) and held.topic.id is not None:
        kept.add(held.topic.id)
    return RetainedRows(held.topic, kept, by_id=by_id) if kept or by_id else None


def _fields_read(view: FeatureView, emission: Emission) -> Iterator[str]:
    """The topic's own fields behind the entity and everything that facts change."""
    parts: list[Expr] = [entity_expression(emission, part, view.name) for part in view.entity]
    for feature in view.features:
        read = [part for part in (feature.input, feature.where) if part is not None]
        if any(part.availability.late for part in read):
            parts.extend(read)
    emitted = dict(emission.columns)
    while parts:
        for reference in references(parts.pop()):
            if reference.source is not Source.FIELD:
                continue
            if reference.owner == emission.topic.name:
                yield reference.name
            else:
                parts.append(emitted[reference.name])


def _gap(feed: Feed, first: int, last: int) -> StateError:
    return StateError(
        "HR-0543",
        f"rows are missing in {feed.partition}",
        detail=f"expected offset {feed.next}, seen {first} to {last}",
        hint="read the partition from the state's frontier on",
    )


def _ahead(feed: Feed, end: int) -> StateError:
    """Of a log that was put back from a backup, beside a newer checkpoint."""
    return StateError(
        "HR-0546",
        f"the log holds less of {feed.partition} than the state has read",
        detail=f"the state has read up to offset {feed.next}, the log ends at {end}",
        hint="delete the checkpoint; the state is rebuilt from the log",
    )


def _elsewhere(feed: Feed, offset: int) -> StateError:
    behind = offset > feed.next
    return StateError(
        "HR-0548",
        f"the state does not stand at offset {offset} of {feed.partition}",
        detail=f"its next offset is {feed.next}",
        hint="apply what is before the request first" if behind else "replay the request at its cut",
        retryable=behind,
    )
