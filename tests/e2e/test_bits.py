"""A small share of `bench bits`: one event at a time = replay = oracle, the handbook's log as it is and perturbed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import bits
from headrace.features.define import FeatureView, count
from headrace.log.port import Verdict
from headrace.log.sqlite import SqliteLog
from headrace.testing.clocks import ManualClock
from tests.needs import requires_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return pq.read_table(bits.simulated_data(tmp_path_factory.mktemp("data")))


def test_one_at_a_time_is_the_replay(simulated: pa.Table, tmp_path: Path) -> None:
    tally = bits.as_it_is(tmp_path / "project", simulated.slice(0, 8_000))
    assert (tally.events, tally.compared) == (8_000, 8_000 * 12 * 2)
    assert tally.differing == 0, tally.told


@pytest.mark.data
def test_one_at_a_time_is_the_replay_on_the_handbooks_log(tmp_path: Path) -> None:
    table = pq.read_table(requires_data()).slice(0, 12_000)  # amounts that are no decimals are among them
    tally = bits.as_it_is(tmp_path / "project", table)
    assert tally.events == 12_000
    assert tally.differing == 0, tally.told


def test_the_perturbed_log_is_answered_as_the_oracle_says(simulated: pa.Table, tmp_path: Path) -> None:
    tally = bits.as_it_comes(tmp_path, simulated, days=30, one_in=6, points=100, restarts=3, seed=7)
    assert tally.restarts == 3 and tally.points == 200 and tally.compared > 50_000
    assert tally.differing == 0, tally.told


def test_the_perturbation_reaches_what_it_is_for(simulated: pa.Table, tmp_path: Path) -> None:
    story = _story(simulated, tmp_path)
    verdicts = {event.verdict for events in story.events.values() for event in events}
    assert verdicts >= {Verdict.ACCEPTED, Verdict.LATE, Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.AHEAD}
    assert sum(1 for partition in story.events if partition.topic == "transactions") == 4  # three and the import
    truths = [e for p, events in story.events.items() if p.topic == "transactions.tx_fraud" for e in events]
    origins = {e.id: e for p, events in story.events.items() if p.topic == "transactions" for e in events}
    named = [
        (fact, origins[fact.values["transaction_id"]]) for fact in truths if fact.values["transaction_id"] in origins
    ]
    assert any(fact.available_at < origin.available_at for fact, origin in named), "a truth before its origin"
    assert any(fact.values["transaction_id"] not in origins for fact in truths), "a truth of nothing"


def test_a_wrong_answer_is_seen(simulated: pa.Table, tmp_path: Path) -> None:
    """The oracle is asked of windows that are a day shorter; what online and replay say must not pass."""
    story = _story(simulated, tmp_path)
    tx = story.made.transactions
    right = _only(story, FeatureView("v", entity="terminal_id", source=tx, features=[count().over("7d").named("f")]))
    wrong = _only(story, FeatureView("v", entity="terminal_id", source=tx, features=[count().over("6d").named("f")]))
    tally = bits.Tally()
    asked = [one for one in bits.online(right, tmp_path / "checkpoints", 0, tally) if one.answers is not None]
    for made, differing in ((right, False), (wrong, True)):
        oracle, tally = bits.Oracle(made), bits.Tally()
        for one in asked[-200:]:
            bits.compare(tally, made, "oracle", one.request, oracle.served(one.request, one.ends), bits.texts(one))
        assert (tally.differing > 0) is differing


def _story(table: pa.Table, folder: Path) -> bits.Story:
    made = bits.perturbed.world()
    clock = ManualClock()
    log = SqliteLog(folder / "log", clock=clock)
    try:
        drafts = bits.perturbed.draw(made, table, days=30, one_in=6, seed=3)
        return bits.read_story(made, log, bits.perturbed.append(made, log, clock, drafts))
    finally:
        log.close()


def _only(story: bits.Story, view: FeatureView) -> bits.Story:
    return replace(story, made=replace(story.made, views=(view,)))
