"""A training set's labels are what the oracle says of each request at (t_label, cut_label) (SEMANTICS 4.2, 4.3)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.features.replay import Events
from headrace.features.training_labels import training_labels
from headrace.log.define import Emission
from headrace.log.port import TAKEN, Verdict
from headrace.testing.agreement import physical_values, tables
from headrace.testing.generate import SECOND, Story, story
from headrace.testing.oracles import Event, Known, Seen, training_label, truth_of

SEEDS = [seed for seed in range(8_000_000, 8_000_060) if story(seed, size=1, views=1).labels]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_label_is_asked_at_its_own_point(seed: int) -> None:
    draw = random.Random(seed)
    whole = story(seed, size=60, views=1)
    made = replace(whole, events=whole.events[: draw.randint(1, len(whole.events))])
    t_label = draw.choice(made.events).event_time + draw.choice((0, 1, -1, 30 * SECOND, 200 * SECOND))
    seen = Seen([e for e in made.events if e.verdict in (*TAKEN, Verdict.LATE)], t_label)
    events = Events(made.topics.values(), tables(made))
    requests = in_order_of_rows([e for e in made.events if e.topic == made.main.name])
    rows = np.arange(len(requests), dtype=np.int64)
    for label in made.labels.values():
        found = training_labels(label, events, made.main.name, rows, Instant(t_label))
        wanted = [training_label(label, event, seen) for event in requests]
        assert said(found.mature.tolist(), physical_values(found.values, label.type)) == oracle_says(wanted)
    for column in made.main.late_columns:
        found = training_labels(made.main[column.name], events, made.main.name, rows, Instant(t_label))
        truths = [truth(made, column.name, event, seen) for event in requests]
        assert said(found.mature.tolist(), physical_values(found.values, column.type)) == oracle_says(truths)


def in_order_of_rows(events: Sequence[Event]) -> list[Event]:
    place: dict[Partition, int] = {p: i for i, p in enumerate(sorted({e.partition for e in events}))}
    return sorted(events, key=lambda e: (place[e.partition], e.offset))


def truth(made: Story, column: str, event: Event, seen: Seen) -> Known:
    """A late column as a label: known once D has passed; null where its truth never came."""
    after = made.main.schema[column].available_after
    assert after is not None
    if event.event_time + after.micros > seen.t:
        return Known(False)
    known = truth_of(Emission(made.main, ()), column, event, seen, so_far=False)
    return Known(True, known.value if known.there else None)


def said(mature: list[bool], values: list[object]) -> list[object]:
    return [value if known else "unknown" for known, value in zip(mature, values, strict=True)]


def oracle_says(wanted: Sequence[Known]) -> list[object]:
    return [known.value if known.there else "unknown" for known in wanted]
