"""A view over a derived topic has the bits of the same view over its source: online at any cut, and replayed there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headrace.core.aggregate import Reason
from headrace.core.codec import partition_of
from headrace.core.errors import StateError
from headrace.core.points import Cut
from headrace.features import checkpoint
from headrace.features.plan import ViewPlan
from headrace.features.replay import Cuts, Events, Kind, Rows, replay, topics_of
from headrace.features.run import FeatureState
from headrace.testing.oracles import Event
from tests.unit.decisions.shop import answers_of
from tests.unit.features.derived import Story

SEEDS = range(6)


def said(expected: list[tuple[object, object]]) -> tuple[tuple[object, ...], tuple[Reason, ...]]:
    return (
        tuple(tuple(v) if isinstance(v, list) else v for v, _ in expected),
        tuple(reason for _, reason in expected),  # type: ignore[misc]  # reasons
    )


def row_of(event: Event) -> tuple[object, ...]:
    return tuple(event.values.values())


@pytest.mark.parametrize(
    ("id", "entity"), [("string", "merchant_id"), ("int64", "merchant_id"), ("string", ("merchant_id", "channel"))]
)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_is_answered_as_over_the_source_wherever_its_copy_lies(seed: int, id: str, entity: str) -> None:
    story = Story.of(seed, id=id, entity=entity)
    log = story.cluster.log()
    states = {index: FeatureState([story.plan()], only=index) for index in range(3)}
    asked, inside = [], 0
    for _ in range(14):
        story.append(8)
        story.carry(*story.draw.choice([(0,), (1,), (0, 1)]), rows_max=story.draw.choice([3, 6, 50]))
        events = story.events(log)
        newest = max(e.available_at for e in events.values())
        for index, state in states.items():
            state.catch_up(log)
            cut = state.frontier
            assert {p.index for p, _ in cut} <= {index}, "its own partition alone"
            seen = story.carried(log, story.derived(index), dict(cut).get(story.derived(index), 0))
            young = [e for e in events.values() if e.verdict == 0 and e.event_time > newest - 60_000_000]
            for request in young:
                if request.values["merchant_id"] is None or partition_of(request.values["merchant_id"], 3) != index:
                    continue
                place = (request.partition.index, request.offset)
                ask = state.asker(["merchant"], story.cluster.of, request.partition)
                (answer,) = ask(request.offset, row_of(request), request.event_time)
                assert answer == said(story.expected(events, seen, request)), (place, place in seen)
                asked.append((request, cut, answer))
                inside += place in seen
    assert inside > 20 and len(asked) > inside + 20, "both"
    replayed(story, asked)


def replayed(story: Story, asked: list[tuple[Event, Cut, object]]) -> None:
    """At the recorded cuts, and beside rows without one."""
    plan = story.plan()
    events = Events.read(story.cluster.log(), topics_of([plan]))
    topic = events.topic("applications")
    places = {
        (topic.partitions[topic.partition_of(np.array([r]))[0]], int(topic.offset[r])): r for r in range(len(topic))
    }
    row = np.array([places[request.partition, request.offset] for request, _, _ in asked], np.int64)
    rows = Rows.at(topic, row).with_cuts(Cuts.of([cut for _, cut, _ in asked]))
    found = answers_of(replay([plan], events, rows, reasons=True), plan)
    assert found == [answer for _, _, answer in asked]
    half = Rows.at(topic, row).with_cuts(Cuts.of([cut if i % 2 else None for i, (_, cut, _) in enumerate(asked)]))
    mixed = answers_of(replay([plan], events, half, reasons=True), plan)
    over_source = ViewPlan.compile(story.over_source, {})
    available = answers_of(replay([over_source], events, Rows.at(topic, row), reasons=True), over_source)
    for i, (_, _, answer) in enumerate(asked):
        assert mixed[i] == (answer if i % 2 else available[i])


@pytest.mark.parametrize("kind", [Kind.AVAILABLE, Kind.KNOWN_NOW, Kind.SERVED])
def test_without_records_a_replay_is_of_the_source(kind: Kind) -> None:
    story = Story.of(77)
    story.append(120)
    story.carry(0, rows_max=40)
    plans = [story.plan(), ViewPlan.compile(story.over_source, {})]
    events = Events.read(story.cluster.log(), topics_of(plans))
    rows = Rows.logged(events, "applications")
    tables = [replay([plan], events, rows, kind=kind, reasons=True) for plan in plans]
    assert tables[0].equals(tables[1])
    given = {"application_id": pa.array(["new"]), "customer_id": pa.array([3]), "merchant_id": pa.array([1])}
    table = pa.table({**given, "created_at": rows.column("created_at").slice(5, 1)})
    hypothetical = Rows.of(events, table, request="applications")
    plain = Rows.of(events, table.drop_columns(["application_id"]).rename_columns(["customer_id", "merchant_id", "t"]))
    for asked in (hypothetical, plain):
        one, other = (replay([plan], events, asked, kind=kind, reasons=True) for plan in plans)
        assert one.equals(other)


def test_a_request_of_long_ago_is_refused_where_it_may_be_counted() -> None:
    story = Story.of(5)
    log = story.cluster.log()
    story.append(30)
    story.carry(0, 1, rows_max=50)
    first = next(e for e in story.events(log).values() if e.values["merchant_id"] == 1 and e.verdict == 0)
    index = partition_of(1, 3)
    state = FeatureState([story.plan()], only=index)
    state.catch_up(log)
    story.cluster.clock.advance("10m")
    story.append(40)
    story.carry(0, 1, rows_max=100)
    state.catch_up(log)
    with pytest.raises(StateError) as caught:
        state.asker(["merchant"], story.cluster.of, first.partition)(first.offset, row_of(first), first.event_time)
    assert caught.value.code == "HR-0541"


def test_plain_reads_and_states_of_all_partitions_hold_every_event_once() -> None:
    story = Story.of(8)
    log = story.cluster.log()
    story.append(100)
    for _ in range(4):
        story.carry(0, 1, rows_max=20)
    whole = FeatureState([story.plan()])
    whole.catch_up(log)
    source = FeatureState([ViewPlan.compile(story.over_source, {})])
    source.catch_up(log)
    now = story.cluster.clock.now()
    for merchant in (1, 2, 3, 4, 5):
        part = FeatureState([story.plan()], only=partition_of(merchant, 3))
        part.catch_up(log)
        assert part.read("merchant", merchant, now) == whole.read("merchant", merchant, now)
    # All is carried over but where the source's own partitions are further.
    while story.cluster.rows().num_rows < sum(
        e.values["merchant_id"] is not None and e.verdict in (0, 1) for e in story.events(log).values()
    ):
        story.carry(0, 1, rows_max=100)
    whole.catch_up(log)
    for merchant in (1, 2, 3, 4, 5):
        assert whole.read("merchant", merchant, now) == source.read("merchant", merchant, now)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_part_goes_on_from_its_checkpoint(seed: int, tmp_path: Path) -> None:
    story = Story.of(seed)
    log, index = story.cluster.log(), partition_of(1, 3)
    whole = FeatureState([story.plan()], only=index)
    for _ in range(6):
        story.append(15)
        story.carry(0, 1, rows_max=50)
    whole.catch_up(log)
    checkpoint.write(whole, tmp_path, fingerprints={"merchant": "f"}, part=f"v1p{index}")
    kept = {"fingerprints": {"merchant": "f"}, "held": log.topics(), "make": partial(FeatureState, only=index)}
    restored = checkpoint.restore([story.plan()], tmp_path, part=f"v1p{index}", **kept)  # type: ignore[arg-type]  # as said
    assert restored is not None and restored.frontier == whole.frontier
    assert checkpoint.restore([story.plan()], tmp_path, part="v1p9", **kept) is None  # type: ignore[arg-type]  # likewise
    before = [e for e in story.events(log).values() if e.values["merchant_id"] == 1 and e.verdict == 0][-1]
    with pytest.raises(StateError):  # it may be counted: what was young then is not known
        restored.asker(["merchant"], story.cluster.of, before.partition)(
            before.offset, row_of(before), before.event_time
        )
    story.cluster.clock.advance("2m")
    story.append(40)
    story.carry(0, 1, rows_max=100)
    newest = story.cluster.clock.now()
    for state in (whole, restored):
        state.catch_up(log)
    asked = 0
    for event in story.events(log).values():
        if event.values["merchant_id"] == 1 and event.verdict == 0 and event.event_time > newest - 60_000_000:
            answers = [
                state.asker(["merchant"], story.cluster.of, event.partition)(
                    event.offset, row_of(event), event.event_time
                )
                for state in (whole, restored)
            ]
            assert answers[0] == answers[1]
            asked += 1
    assert asked > 1
