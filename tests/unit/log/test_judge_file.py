"""A judge that was resumed from bytes judges whatever comes as the one that read everything."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace.core.schema as types
from headrace.core.codec import rows_to_batch
from headrace.core.errors import StateError
from headrace.core.times import Instant
from headrace.log import plan
from headrace.log.define import Clock, Topic
from headrace.log.judge_file import JudgeFile, judge_from_bytes, judge_to_bytes, snapshot
from headrace.log.plan import NEVER, Judge
from tests.examples import examples
from tests.unit.log.test_judge import STEPS, row, topic


def taken(judge: Judge, partition: int, rows, now: int, *, as_batch: bool, request: bool = False) -> tuple:
    given_rows = rows_to_batch(judge.topic.schema, rows) if as_batch else rows
    judged = judge.live(partition, given_rows, Instant(now), request=request)
    judge.remember(partition, given_rows, judged)
    return judged.verdicts.tolist(), judged.event_times.tolist(), judged.available_at.tolist()


def resumed(judge: Judge, made, partitions=(0, 1)) -> Judge:
    again = Judge(made)
    for partition in partitions:
        read(judge_to_bytes(judge, partition, next=7), again, partition)
    return again


def read(body: bytes, judge: Judge, partition: int, origin: str = "") -> JudgeFile:
    return judge_from_bytes(
        body, partition, judge=lambda version: judge if version == 1 else None, what="it", origin=origin
    )


@pytest.mark.parametrize("small", [True, False])
@examples(150)
@given(STEPS, st.sampled_from(list(Clock)), st.sampled_from([types.int64, types.string, None]), st.booleans())
def test_a_resumed_judge_judges_as_the_one_that_read_everything(small, steps, clock, id_type, request_topic):
    """small: few ids in a segment, so that an id is in several, the older ones out of date."""
    with pytest.MonkeyPatch.context() as bounds:
        if small:
            bounds.setattr("headrace.log.plan.SEGMENT_IDS", 4)
            bounds.setattr("headrace.log.judge_file.SEGMENT_IDS", 4)
        made = topic(id_type or types.int64, clock=clock)
        if id_type is None:
            made = Topic("t", key="k", event_time="at", clock=clock, fields=FIELDS, max_late="8us", max_ahead="4us")
        name = str if id_type is types.string else int
        whole, stopped, now = Judge(made), Judge(made), 100
        for drawn, partition, passes, as_batch, outcome in steps:
            now += passes
            rows = [row(name(i), now + at, x, s) for i, at, x, s in drawn]
            if outcome in ("restart", "fail"):
                stopped = resumed(stopped, made)
            found = [taken(j, partition, rows, now, as_batch=as_batch, request=request_topic) for j in (whole, stopped)]
            assert found[0] == found[1]
            assert whole.running_maximum(partition) == stopped.running_maximum(partition)


FIELDS = {"k": types.int64, "i": types.int64, "at": types.timestamp, "x": types.float64, "s": types.string}


@pytest.mark.parametrize("id_type", [types.int64, types.string])
def test_only_what_can_still_decide_is_kept(id_type) -> None:
    made = topic(id_type)
    judge = Judge(made)
    name = str if id_type is types.string else int
    for now, id in ((100, 1), (105, 2), (115, 1), (116, 3)):
        taken(judge, 0, [row(name(id), now)], now, as_batch=False)
    found = snapshot(judge, 0)
    assert found.maximum == 116
    assert list(found.ids) == [name(1), name(3)], "the first taking of 1, and 2, are out of dedup"
    assert found.available_at.tolist() == [115, 116]


@pytest.mark.parametrize("id_type", [types.int64, types.string])
def test_where_dedup_grew_the_newer_taking_of_an_id_decides(id_type) -> None:
    """Its older one was out of dedup when it came again, and is within it now."""
    name = str if id_type is types.string else int
    judge = Judge(topic(id_type))
    for now, id, x in ((100, 1, 0.0), (105, 2, 0.0), (111, 1, 1.5), (111, 3, 0.0)):
        taken(judge, 0, [row(name(id), now, x)], now, as_batch=False)
    longer = topic(id_type, dedup="30us")
    judge.declared(longer)
    found = snapshot(judge, 0)
    assert dict(zip(found.ids, found.available_at.tolist(), strict=True)) == {name(2): 105, name(1): 111, name(3): 111}
    again = resumed(judge, longer, [0])
    rows = [row(name(1), 111, 1.5), row(name(1), 111, 0.0)]
    for one in (judge, again):
        verdicts, _, _ = taken(one, 0, rows, 112, as_batch=True)
        assert verdicts == [int(plan.Verdict.DUPLICATE), int(plan.Verdict.CONFLICT)]


def test_an_empty_partition_stays_empty() -> None:
    made = topic()
    again = Judge(made)
    found = read(judge_to_bytes(Judge(made), 3, next=0), again, 3)
    assert again.running_maximum(3) == NEVER and len(found.snapshot.payloads) == 0 and dict(found.more) == {}


def test_a_resumed_judge_keeps_imports_apart_from_what_it_knows() -> None:
    """An import leaves out what a live partition knows, also where that came from a snapshot."""
    made = topic()
    judge = Judge(made)
    taken(judge, 0, [row(1, 100)], 100, as_batch=False)
    again = resumed(judge, made, [0])
    rows = [row(1, 100), row(2, 101)]
    judged = again.imported(plan.IMPORTS_FROM, rows, np.array([100, 101], np.int64))
    assert judged.verdicts.tolist() == [int(plan.Verdict.DUPLICATE), int(plan.Verdict.ACCEPTED)]


def test_what_the_writer_adds_comes_back() -> None:
    made = topic()
    judge = Judge(made)
    taken(judge, 0, [row(1, 100)], 100, as_batch=True)
    more = {"marks": np.array([1, -5, 2**62], np.int64), "none": np.zeros(0, np.int64)}
    found = read(judge_to_bytes(judge, 0, next=2**50, more=more), Judge(made), 0)
    assert (found.next, found.version) == (2**50, 1)
    assert {name: array.tolist() for name, array in found.more.items()} == {"marks": [1, -5, 2**62], "none": []}


def test_every_changed_byte_is_found() -> None:
    made = topic()
    judge = Judge(made)
    taken(judge, 0, [row(nr, 100) for nr in range(5)], 100, as_batch=True)
    body = judge_to_bytes(judge, 0, next=5)
    for at in range(0, len(body), 7):
        changed = bytearray(body)
        changed[at] ^= 1
        with pytest.raises(StateError, match="HR-0551"):
            read(bytes(changed), Judge(made), 0)
    for short in (b"", body[:20], body[:-1]):
        with pytest.raises(StateError, match="HR-0551"):
            read(short, Judge(made), 0)


@pytest.mark.parametrize(
    "other", [{"partition": 1}, {"id_type": types.string}, {"dedup": "11us"}, {"origin": "b"}, {"version": 2}]
)
def test_what_is_of_another_log_partition_or_definition_is_refused(other) -> None:
    judge = Judge(topic())
    taken(judge, 0, [row(1, 100)], 100, as_batch=False)
    body = judge_to_bytes(judge, 0, next=1, origin="a", version=other.get("version", 1))
    again = Judge(topic(other.get("id_type", types.int64), dedup=other.get("dedup", "10us")))
    with pytest.raises(StateError, match="HR-0550"):
        read(body, again, other.get("partition", 0), other.get("origin", "a"))
    assert again.running_maximum(0) == NEVER
    if "version" not in other:
        read(body, Judge(topic(dedup="9us")), 0, "a")


def test_another_format_is_refused_whatever_else_it_says(monkeypatch) -> None:
    monkeypatch.setattr("headrace.log.judge_file.FORMAT", 2)
    body = judge_to_bytes(Judge(topic()), 0, next=1).replace(b'"maximum"', b'"maxinum"')
    body = body[:8] + hashlib.blake2b(body[40:], digest_size=32).digest() + body[40:]
    monkeypatch.undo()
    with pytest.raises(StateError, match="expected format 1, seen 2"):
        read(body, Judge(topic()), 0)
