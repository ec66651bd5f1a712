"""Bits: the handbook's log one event at a time against its replay; the same perturbed, against the oracle too.

First the log as it is: every transaction is asked and then taken, one at a time, and every published value and reason
is compared with the replays of the whole log, *available* and *served* at the recorded cuts. Then some of the same
transactions late, told twice, in three partitions, with what became known as events of their own, and with restarts in
between (bench/_perturbed.py): online = replay for every request, and both = oracle at sampled points, in all three
replays.

`values_compared` counts values with their reasons, once for each comparison. Where the handbook's data is not on the
machine, its simulated log is used, which `simulated` says.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import _perturbed as perturbed
from headrace.core.aggregate import Reason
from headrace.core.codec import batch_to_rows
from headrace.core.errors import StateError
from headrace.core.points import Cut, Partition
from headrace.core.schema import DataType, Kind
from headrace.features import checkpoint
from headrace.features.define import FeatureView
from headrace.features.online import Answer
from headrace.features.plan import ViewPlan
from headrace.features.replay import REASON_SUFFIX, Cuts, Events, Rows, column_names, replay, topics_of
from headrace.features.replay import Kind as ReplayKind
from headrace.features.run import AskAt, FeatureState
from headrace.log.define import Topic
from headrace.log.port import AVAILABLE_AT, EVENT_TIME, TAKEN, VERDICT, Log, Physical, Verdict
from headrace.log.sqlite import SqliteLog
from headrace.runtime.project import open_project
from headrace.schemas.define import ImportOptions
from headrace.testing.agreement import physical_values
from headrace.testing.clocks import ManualClock
from headrace.testing.oracles import (
    Event,
    Owners,
    Seen,
    entity_of,
    values,
    visible_available,
    visible_known_now,
    visible_served,
)
from headrace.testing.questions import canonical
from scripts import handbook_data

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "handbook"
# Amounts in the file are doubles, 85.64999999999999 among them; they are money and mean 85.65.
OPTIONS = ImportOptions(zone="UTC", ignore=("tx_fraud_scenario",), round=("tx_amount",))
CHUNK = 1 << 15  # online answers held as Python objects at a time
REQUESTS = (*TAKEN, Verdict.LATE)
REASONS = pa.array([reason.name for reason in Reason])  # by their numbers
TOLD_MAX = 20
TOO_OLD = "HR-0541"


Canonical = tuple[tuple[str, ...], tuple[Reason, ...]]  # a view's values as texts, and their reasons


@dataclass(slots=True)
class Tally:
    """What was compared. told: the first differences, in words."""

    events: int = 0
    compared: int = 0
    differing: int = 0
    points: int = 0
    restarts: int = 0
    refused: int = 0
    online_seconds: float = 0.0
    told: list[str] = field(default_factory=list)

    def differ(self, text: str) -> None:
        self.differing += 1
        if len(self.told) < TOLD_MAX:
            self.told.append(text)
            print(text, file=sys.stderr, flush=True)


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of `bits`; there are no peers. Some 600 MB of the folder for temporary files."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-bits-") as made:
        folder = Path(made)
        data, simulated = find_data(folder)
        table = pq.read_table(data)
        plain = as_it_is(folder / "plain", table.slice(0, 20_000) if quick else table)
        one_in = 1 if simulated else 5
        days, share = (25, 10 * one_in) if quick else (60, one_in)
        other = as_it_comes(
            folder / "perturbed", table, days=days, one_in=share, points=400 if quick else 5_000, restarts=8, seed=1
        )
    return {
        "figures": {
            "events": plain.events,
            "values_compared": plain.compared,
            "differing_values": plain.differing,
            "online_events_per_s": plain.events / plain.online_seconds,
            "perturbed_events": other.events,
            "perturbed_values_compared": other.compared,
            "perturbed_differing": other.differing,
            "points_against_oracle": other.points,
            "refused_too_old": other.refused,
            "restarts": other.restarts,
            "simulated": int(simulated),
            "seconds": time.perf_counter() - begun,
        }
    }


def find_data(folder: Path) -> tuple[Path, bool]:
    """The handbook's transactions, or a simulated log of the same kind; whether it is the latter."""
    found = handbook_data.find()
    if found is not None:
        return found, False
    return simulated_data(folder), True


def simulated_data(folder: Path) -> Path:
    """The example's simulated log, as a file in the folder."""
    sys.path.insert(0, str(EXAMPLE))  # it is no package
    from simulate import simulate

    return simulate(folder / "transactions.parquet")


# --- the log as it is ---


def as_it_is(folder: Path, table: pa.Table) -> Tally:
    """Imported through the example's definitions; each transaction asked and taken by itself, then replayed."""
    folder.mkdir(parents=True)
    shutil.copy(EXAMPLE / "definitions.py", folder / "definitions.py")
    pq.write_table(table, folder / "transactions.parquet")
    views = ("customer", "terminal")
    tally = Tally()
    with open_project(folder) as project:
        project.apply()
        report = project.import_file("transactions", folder / "transactions.parquet", options=OPTIONS)
        topic = project.definitions.topic("transactions")
        state = FeatureState(project.compile(views), topics=[s.topic for s in project.log.topics()])
        live = [s for s in project.log.topics() if s.topic.name == "transactions"][0].partitions
        partition = next(p.partition for p in live if p.end)
        plans = project.compile(views)
        events = Events.read(project.log, topics_of(plans))
        rows = Rows.logged(events, "transactions")
        cuts = Cuts(
            mentions={"transactions": np.ones(len(rows), np.bool_)},
            offsets={partition: events.topic("transactions").offset},
        )
        replayed = {
            "available": replay(plans, events, rows, kind=ReplayKind.AVAILABLE, reasons=True),
            "served": replay(plans, events, rows.with_cuts(cuts), kind=ReplayKind.SERVED, reasons=True),
        }
        for first, answers in _one_at_a_time(project.log, state, topic, partition, views, tally):
            for place, plan in enumerate(plans):
                online = _columns(plan.view, [answer[place] for answer in answers])
                for who, answered in replayed.items():
                    _compare_columns(tally, who, plan.view, online, answered.slice(first, len(answers)), first)
        assert tally.events == len(rows) == report.taken, "every transaction was asked"
    return tally


def _one_at_a_time(
    log: Log, state: FeatureState, topic: Topic, partition: Partition, views: Sequence[str], tally: Tally
) -> Iterator[tuple[int, list[tuple[Answer, ...]]]]:
    """(place of the first, answers) of a chunk after the other: apply what is before p, answer at p, apply p."""
    ask = state.asker(views, topic, partition)
    for batch in log.read(partition, 0, rows_max=CHUNK):
        answers = []
        first = tally.events
        times, available = _micros(batch, EVENT_TIME), _micros(batch, AVAILABLE_AT)
        verdicts = batch.column(VERDICT).to_pylist()
        rows = batch_to_rows(topic.schema, batch)
        begin = batch.column(0)[0].as_py()
        began = time.perf_counter()
        for offset, (row, at, came, verdict) in enumerate(zip(rows, times, available, verdicts, strict=True), begin):
            answers.append(ask(offset, row, at))
            state.ingest_row(partition, offset, came, at, verdict, row)
        tally.online_seconds += time.perf_counter() - began
        tally.events += len(rows)
        print(f"  {tally.events:,} events, {tally.differing} differing values", file=sys.stderr, flush=True)
        yield first, answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A feature's values as their 64 bits, 0 where null; which are null; the reasons."""

    words: npt.NDArray[np.int64]
    absent: npt.NDArray[np.bool_]
    reasons: npt.NDArray[np.int64]


def _columns(view: FeatureView, answers: Sequence[Answer]) -> list[Column]:
    """What was published, by feature."""
    patterns = {id(reasons): reasons for _, reasons in answers}  # few: most answers share one tuple
    numbers = {key: number for number, key in enumerate(patterns)}
    table = np.array([[int(reason) for reason in reasons] for reasons in patterns.values()], np.int64)
    reasons = table[[numbers[id(said)] for _, said in answers]]
    columns = []
    for i, feature in enumerate(view.features):
        words, absent = _bits([published[i] for published, _ in answers], feature.type)
        columns.append(Column(words=words, absent=absent, reasons=reasons[:, i]))
    return columns


def _compare_columns(
    tally: Tally, who: str, view: FeatureView, online: Sequence[Column], table: pa.Table, first: int
) -> None:
    """By arrays, as there are tens of millions of values: equal bits, equal nulls, equal reasons."""
    for feature, mine in zip(view.features, online, strict=True):
        name = feature.name if feature.name in table.column_names else f"{view.name}.{feature.name}"
        theirs = table.column(name).combine_chunks()
        null = theirs.is_null().to_numpy(zero_copy_only=False)
        words = theirs.fill_null(0).to_numpy(zero_copy_only=False).view(np.int64)
        said = table.column(name + REASON_SUFFIX).combine_chunks()
        reasons = pc.index_in(said, value_set=REASONS).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero((mine.words != words) | (mine.absent != null) | (mine.reasons != reasons))
        tally.compared += len(words)
        for row in wrong.tolist():
            online_said = f"{mine.words[row]:#x} {Reason(int(mine.reasons[row])).name}"
            tally.differ(
                f"{who}: row {first + row}, {view.name}.{feature.name}: online {online_said}, "
                f"replay {words[row]:#x} {said[row]}"
            )


def _bits(values: Sequence[object], type: DataType) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(the values' 64 bits, 0 for null; which are null). Raises: AssertionError for a value of another type."""
    wanted = {Kind.FLOAT64: float, Kind.INT64: int}[type.kind]
    assert {value.__class__ for value in values} <= {wanted, None.__class__}, f"published as {type}"
    absent = np.array([value is None for value in values])
    filled = [0 if value is None else value for value in values]
    if wanted is float:
        return np.array(filled, np.float64).view(np.int64), absent
    return np.array(filled, np.int64), absent


def _micros(batch: pa.RecordBatch, name: str) -> list[int]:
    return batch.column(name).cast(pa.int64()).to_pylist()


# --- the log as it comes ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A perturbed log and what its requests are. events: of each partition, by offset. order: as they arrived.
    tables: the same as the replay reads them."""

    made: perturbed.World
    events: dict[Partition, list[Event]]
    order: list[tuple[Partition, int, int]]
    tables: dict[Partition, pa.Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that the online state was asked. ends: the next offset of each of the partitions. answers: None where
    its t was too old."""

    request: Event
    ends: tuple[int, ...]
    answers: tuple[Answer, ...] | None


def as_it_comes(
    folder: Path, table: pa.Table, *, days: int, one_in: int, points: int, restarts: int, seed: int
) -> Tally:
    """points: sampled requests, each held against the oracle as served; half as many as available, and as known now."""
    made = perturbed.world()
    tally = Tally()
    clock = ManualClock()
    drafts = perturbed.draw(made, table, days=days, one_in=one_in, seed=seed)
    log = SqliteLog(folder / "log", clock=clock)
    try:
        story = read_story(made, log, perturbed.append(made, log, clock, drafts))
    finally:
        log.close()
    _tell(f"  {len(drafts):,} rows appended")
    asked = list(online(story, folder / "checkpoints", restarts, tally))
    tally.events = sum(len(some) for some in story.events.values())
    _tell(f"  {len(asked):,} requests answered, {tally.refused} too old, {tally.restarts} restarts")
    chance = random.Random(seed)
    events = Events(made.topics, story.tables)
    served = _replayed(story, events, [one.request for one in asked], ReplayKind.SERVED, [one.ends for one in asked])
    for one, answers in zip(asked, served, strict=True):
        if one.answers is not None:
            compare(tally, story, "online and replay", one.request, texts(one), answers)
    _tell(f"  {tally.compared:,} values online = replay but {tally.differing}")
    oracle = Oracle(story)
    for place in sorted(chance.sample(range(len(asked)), min(points, len(asked)))):
        wanted = oracle.served(asked[place].request, asked[place].ends)
        compare(tally, story, "oracle and served", asked[place].request, wanted, served[place])
        tally.points += 1
    for kind, answer in ((ReplayKind.AVAILABLE, oracle.available), (ReplayKind.KNOWN_NOW, oracle.known_now)):
        some = chance.sample([one.request for one in asked], min(points // 2, len(asked)))
        for request, given in zip(some, _replayed(story, events, some, kind, None), strict=True):
            compare(tally, story, f"oracle and {kind.value}", request, answer(request), given)
            tally.points += 1
    _tell(f"  {tally.points:,} points against the oracle, {tally.differing} differing values in all")
    return tally


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def read_story(made: perturbed.World, log: Log, order: list[tuple[Partition, int, int]]) -> Story:
    """The log as it is read: every partition, whole."""
    topics = {topic.name: topic for topic in made.topics}
    tables, events = {}, {}
    for state in log.topics():
        for held in state.partitions:
            batches = list(log.read(held.partition, 0))
            if state.topic.name in topics and batches:
                tables[held.partition] = pa.Table.from_batches(batches)
                events[held.partition] = [
                    e for b in batches for e in _events(held.partition, topics[state.topic.name], b)
                ]
    return Story(made=made, events=events, order=order, tables=tables)


def _events(partition: Partition, topic: Topic, batch: pa.RecordBatch) -> Iterator[Event]:
    assert topic.id is not None
    names = topic.schema.names
    system = (batch.column(0).to_pylist(), _micros(batch, AVAILABLE_AT), _micros(batch, EVENT_TIME))
    verdicts = batch.column(VERDICT).to_pylist()
    for offset, came, at, verdict, row in zip(*system, verdicts, batch_to_rows(topic.schema, batch), strict=True):
        found = dict(zip(names, row, strict=True))
        yield Event(
            partition=partition,
            offset=offset,
            event_time=at,
            available_at=came,
            verdict=Verdict(verdict),
            id=found[topic.id],  # type: ignore[arg-type]  # ids are never null
            values=found,
        )


def online(story: Story, folder: Path, restarts: int, tally: Tally) -> Iterator[Asked]:
    """Every request in order of arrival, asked before it is taken."""
    made = story.made
    views = [view.name for view in made.views]
    partitions = sorted(story.events)
    ends = dict.fromkeys(partitions, 0)
    every = len(story.order) // (restarts + 1) or 1
    state = _state(made)
    askers = {p: state.asker(views, made.transactions, p) for p in partitions if p.topic == made.transactions.name}
    for number, (partition, first, end) in enumerate(story.order, 1):
        for event in story.events[partition][first:end]:
            row = tuple(event.values.values())
            if partition in askers and event.verdict in REQUESTS:
                answers = _ask(askers[partition], event, row)
                tally.refused += answers is None
                if answers is None and event.verdict in TAKEN:  # SEMANTICS 1.4: only beyond max_late may it be refused
                    tally.differ(f"{event.partition}@{event.offset} was taken and its read refused as too old")
                yield Asked(request=event, ends=tuple(ends.values()), answers=answers)
            if partition.topic in state.topics:
                state.ingest_row(partition, event.offset, event.available_at, event.event_time, int(event.verdict), row)
            ends[partition] += 1
        if number % every == 0 and tally.restarts < restarts:
            tally.restarts += 1
            state = _restarted(story, state, folder, ends, from_log=tally.restarts % 3 == 0)
            askers = {p: state.asker(views, made.transactions, p) for p in askers}


def _ask(ask: AskAt, event: Event, row: tuple[Physical, ...]) -> tuple[Answer, ...] | None:
    try:
        return ask(event.offset, row, event.event_time)
    except StateError as error:
        if error.code == TOO_OLD:
            return None
        raise


def _state(made: perturbed.World) -> FeatureState:
    return FeatureState([ViewPlan.compile(view, made.labels) for view in made.views], topics=made.topics)


def _restarted(
    story: Story, state: FeatureState, folder: Path, ends: dict[Partition, int], *, from_log: bool
) -> FeatureState:
    """From a checkpoint on the disk; or from the log alone, one partition after the other."""
    made = story.made
    if not from_log:
        prints = {view.name: view.name for view in made.views}
        checkpoint.write(state, folder, fingerprints=prints)
        plans = [ViewPlan.compile(view, made.labels) for view in made.views]
        found = checkpoint.restore(plans, folder, fingerprints=prints, topics=made.topics)
        assert found is not None, "it was written a moment ago"
        return found
    fresh = _state(made)
    for partition in [p for p in reversed(list(ends)) if p.topic in fresh.topics]:
        for batch in story.tables[partition].slice(0, ends[partition]).to_batches():
            fresh.ingest(partition, batch)
    return fresh


def texts(asked: Asked) -> list[Canonical]:
    """What the online state answered, of each view. It did answer."""
    assert asked.answers is not None
    return [(tuple(map(canonical, published)), reasons) for published, reasons in asked.answers]


def _replayed(
    story: Story, events: Events, requests: Sequence[Event], kind: ReplayKind, ends: Sequence[tuple[int, ...]] | None
) -> list[list[Canonical]]:
    """Of each request the answer of every view. ends: its cut, by partition in order."""
    made = story.made
    topic = events.topic(made.transactions.name)
    place = dict(zip(topic.partitions, topic.starts[:-1].tolist(), strict=True))
    rows = Rows.at(topic, np.array([place[r.partition] + r.offset for r in requests], np.int64))
    if ends is not None:
        table = np.array(ends, np.int64)
        everyone = {topic.name: np.ones(len(requests), np.bool_) for topic in made.topics}
        offsets = {partition: np.ascontiguousarray(table[:, i]) for i, partition in enumerate(sorted(story.events))}
        rows = rows.with_cuts(Cuts(mentions=everyone, offsets=offsets))
    plans = [ViewPlan.compile(view, made.labels) for view in made.views]
    table = replay(plans, events, rows, kind=kind, reasons=True)
    names = column_names(plans)
    by_view = [_canonical(view, table, names) for view in made.views]
    return [list(one) for one in zip(*by_view, strict=True)]


def _canonical(view: FeatureView, table: pa.Table, names: dict[tuple[str, str], str]) -> list[Canonical]:
    columns = [names[view.name, feature.name] for feature in view.features]
    published = [physical_values(table.column(c), f.type) for c, f in zip(columns, view.features, strict=True)]
    reasons = [[Reason[text] for text in table.column(c + REASON_SUFFIX).to_pylist()] for c in columns]
    texts = [[canonical(value) for value in column] for column in published]
    return list(zip(zip(*texts, strict=True), zip(*reasons, strict=True), strict=True))


def compare(
    tally: Tally, story: Story, who: str, request: Event, wanted: Sequence[Canonical], given: Sequence[Canonical]
) -> None:
    for view, one, other in zip(story.made.views, wanted, given, strict=True):
        tally.compared += len(view.features)
        if one == other:
            continue
        for i, feature in enumerate(view.features):
            if (one[0][i], one[1][i]) != (other[0][i], other[1][i]):
                where = f"{request.partition}@{request.offset} id {request.id} t {request.event_time}"
                first, second = f"{one[0][i]} {one[1][i].name}", f"{other[0][i]} {other[1][i].name}"
                tally.differ(
                    f"{who} differ at {where} {request.verdict.name}, {view.name}.{feature.name}: {first}, {second}"
                )


class Oracle:
    """The naive oracle over one log. Only events of the request's entity, and what says something of them, are put
    before it, as no rule lets another event matter."""

    def __init__(self, story: Story) -> None:
        self._made = story.made
        self._partitions = sorted(story.events)
        self._owners = Owners()
        self._of: dict[tuple[str, Physical], list[Event]] = defaultdict(list)
        self._naming: dict[Physical, list[Event]] = defaultdict(list)
        for partition in self._partitions:
            for event in story.events[partition]:
                if partition.topic != self._made.transactions.name:
                    self._naming[event.values["transaction_id"]].append(event)
                    continue
                for field_name in ("customer_id", "terminal_id"):
                    self._of[field_name, event.values[field_name]].append(event)

    def served(self, request: Event, ends: tuple[int, ...]) -> list[Canonical]:
        cut = Cut(tuple(zip(self._partitions, ends, strict=True)))
        return [
            self._answer(view, request, visible_served(self._near(view, request), cut, request))
            for view in self._made.views
        ]

    def available(self, request: Event) -> list[Canonical]:
        views = self._made.views
        return [self._answer(v, request, visible_available(self._near(v, request), request, v.lag)) for v in views]

    def known_now(self, request: Event) -> list[Canonical]:
        views = self._made.views
        return [
            self._answer(v, request, visible_known_now(self._near(v, request), request.event_time, request))
            for v in views
        ]

    def _near(self, view: FeatureView, request: Event) -> list[Event]:
        (part,) = view.entity
        mine = self._of[part, request.values[part]]
        ids = dict.fromkeys(event.id for event in mine)
        return [*mine, *(fact for id in ids for fact in self._naming.get(id, ()))]

    def _answer(self, view: FeatureView, request: Event, visible: list[Event]) -> Canonical:
        entity = entity_of(view, request)
        assert entity is not None, "no key of the handbook's log is null"
        found = values(view, self._made.labels, Seen(visible, request.event_time, self._owners), entity, request)
        return tuple(canonical(value) for value, _ in found), tuple(reason for _, reason in found)
