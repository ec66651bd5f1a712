"""The simulated log on Kafka: seeds without a violation, one trace a seed, and a judge that sees what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from headrace.clients.kafka.port import Record
from headrace.testing.kafka_simulation import FAULTS_MIN, RECORDS, STEPS, Life, simulate
from headrace.testing.kafka_simulation_judge import Answered, Judge, Told

SEEDS = range(7_000, 7_030)
_TRACE = "from headrace.testing.kafka_simulation import simulate; print(simulate(7_001, keep=True).trace)"

Logs = dict[tuple[str, int], list[Record]]


def test_seeds_hold_and_their_faults_fire() -> None:
    counted, faults, points = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for seed in SEEDS:
        outcome = simulate(seed)
        assert outcome.violations == [], f"seed {seed}"
        assert outcome.steps >= STEPS and outcome.faults.total() >= FAULTS_MIN
        counted += outcome.counted
        faults += outcome.faults
        points += outcome.crashed
    assert len(faults) >= 10, faults
    assert len(points) >= 10, points
    for name in ("acknowledged", "answers", "valid", "void", "zombies", "claims", "members_expired", "repeated"):
        assert counted[name] > 0, name


def test_a_seed_makes_one_trace_in_every_process() -> None:
    traces = {simulate(7_001, keep=True).trace for _ in range(2)}
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number}
        done = subprocess.run(
            [sys.executable, "-c", _TRACE], env=environment, capture_output=True, text=True, check=True
        )
        traces.add(done.stdout.removesuffix("\n"))
    assert len(traces) == 1
    assert len(traces.pop().splitlines()) > 200


# --- the judge ---


@pytest.fixture(scope="module")
def lived() -> Life:
    """A run that held, with at least four answers, and two records in a partition."""
    life = Life(7_003)
    assert life.run().violations == [] and len(life.told.answers) >= 4
    return life


def logs_of(life: Life) -> Logs:
    return {
        (name, index): held.committed()
        for name in ("events", "requests", RECORDS.name)
        for index, held in enumerate(life.model.topics[name].partitions)
    }


def judged(logs: Logs, told: Told) -> list[str]:
    return Judge(logs, RECORDS.schema.names, records=RECORDS.name).judge(told).violations


def valid_place(life: Life, logs: Logs) -> tuple[tuple[str, int], int]:
    """Where a record lies that was answered, and counts: void ones of the same request may lie before it."""
    answered = {one.decision_id for one in life.told.answers}
    for key in logs:
        claim = None
        for place, record in enumerate(logs[key] if key[0] == RECORDS.name else []):
            said = json.loads(record.value or b"")
            claim = record.offset if said.get("claim") is not None else claim
            if said["decision_id"] in answered and said.get("epoch") == claim:
                return key, place
    raise AssertionError("no answer has a record")


def changed(record: Record, **fields: object) -> Record:
    return record._replace(value=json.dumps({**json.loads(record.value or b""), **fields}).encode())


def lost_event(life: Life, logs: Logs) -> None:
    gone = next(iter(life.told.events))
    for key in logs:
        if key[0] == "events":
            logs[key] = [one for one in logs[key] if json.loads(one.value or b"")["event_id"] != gone]


def lost_record(life: Life, logs: Logs) -> None:
    key, place = valid_place(life, logs)
    del logs[key][place]


def other_values(life: Life, logs: Logs) -> None:
    key, place = valid_place(life, logs)
    features = json.loads(json.loads(logs[key][place].value or b"")["features"])
    features[0][0][0] += 1
    logs[key][place] = changed(logs[key][place], features=json.dumps(features))


def other_outcome(life: Life, logs: Logs) -> None:
    key, place = valid_place(life, logs)
    logs[key][place] = changed(logs[key][place], outcome="decline")


def other_claim(life: Life, logs: Logs) -> None:
    key, place = valid_place(life, logs)
    logs[key][place] = changed(logs[key][place], epoch=999)


def second_record(life: Life, logs: Logs) -> None:
    """Of a copy of the request further up, as if it were another."""
    key, place = valid_place(life, logs)
    said = json.loads(logs[key][place].value or b"")
    requests = logs["requests", key[1]]
    request = next(one for one in requests if one.offset == said["request_offset"])
    requests.append(request._replace(offset=requests[-1].offset + 1))
    again = changed(logs[key][place], request_offset=requests[-1].offset)
    logs[key].insert(place + 1, again)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lost_event, "was acknowledged and is not there"),
        (lost_record, "has no valid record"),
        (other_values, "the log at its cut"),
        (other_outcome, "its record says"),
        (other_claim, "has no valid record"),
        (second_record, "two valid records"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_judge_sees_it(lived: Life, change: Callable[[Life, Logs], None], said: str) -> None:
    logs = logs_of(lived)
    assert judged(logs, lived.told) == []
    change(lived, logs)
    assert any(said in one for one in judged(logs, lived.told))


def test_the_judge_sees_an_answer_that_nobody_recorded(lived: Life) -> None:
    stranger = Answered(request_id="r-9-9", outcome="approve", reasons=(), decision_id="check/1/0/99", by="owner 1")
    told = Told(events=lived.told.events, answers=[*lived.told.answers, stranger])
    assert judged(logs_of(lived), told) == ["request 'r-9-9' was answered by owner 1 and has no valid record"]


def test_the_judge_sees_links_that_do_not_hold(lived: Life) -> None:
    logs = logs_of(lived)
    key, place = valid_place(lived, logs)
    chain = json.loads(logs[key][place].value or b"")["chain"]
    logs[key][place] = changed(logs[key][place], chain="0" * 64 + chain[64:])
    assert any("its link is not that of its fields" in one for one in judged(logs, lived.told))
