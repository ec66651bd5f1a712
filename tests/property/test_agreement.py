"""Online = replay = oracle, to the bit, on random definitions and logs (SEMANTICS 3.1); `bench/fuzz.py` runs more."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.aggregate import Function, Reason
from headrace.core.window import Aligned, Lifetime, Sliding
from headrace.features.define import FeatureView, count
from headrace.log.port import Verdict
from headrace.testing.agreement import differences, large_differences, replayed
from headrace.testing.generate import Story, story
from headrace.testing.oracles import Owners
from headrace.testing.questions import Kind, Question, Tally, expected, questions
from headrace.testing.shrink import shrink, told

ROOT_SEED = 7_000_000  # far from the benchmark's seeds


def assert_agreement(made: Story, **which: float) -> Tally:
    tally = Tally()
    found = differences(made, random.Random(made.seed), tally, **which)
    assert not found, told(*shrink(made, found[0]))
    return tally


@pytest.mark.parametrize("seed", range(ROOT_SEED, ROOT_SEED + 10))
def test_online_and_replay_answer_what_the_oracle_answers(seed: int) -> None:
    tally = assert_agreement(story(seed, size=40))
    assert tally.queries > 10


@settings(max_examples=15)
@given(seed=st.integers(0, 2**40), size=st.integers(1, 40), views=st.integers(1, 3))
def test_they_agree_whatever_the_seed(seed: int, size: int, views: int) -> None:
    assert_agreement(story(seed, size=size, views=views))


def test_they_agree_on_a_log_of_many_chunks() -> None:
    tally = Tally()
    assert large_differences(ROOT_SEED, 12_000, 40, tally) == []
    assert tally.pairs > 10_000


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(ROOT_SEED + 100, ROOT_SEED + 180))
def test_they_agree_on_larger_logs(seed: int) -> None:
    assert_agreement(story(seed))


def test_they_agree_with_the_compiler_off() -> None:
    """The kernel as plain Python: an overflow or an index that the compiler lets pass is an error here."""
    code = (
        "import random; from headrace.testing.agreement import differences; "
        "from headrace.testing.generate import story; from headrace.testing.questions import Tally\n"
        "tally = Tally()\n"
        f"for seed in range({ROOT_SEED + 50}, {ROOT_SEED + 56}):\n"
        "    found = differences(story(seed, size=10), random.Random(seed), tally, share=0.5)\n"
        "    assert not found, found[0]\n"
        "print(tally.queries)"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


# --- the comparison itself ---


def test_the_same_seed_tells_the_same_story() -> None:
    one, other = story(5), story(5)
    assert [(e.partition, e.offset, e.values) for e in one.events] == [
        (e.partition, e.offset, e.values) for e in other.events
    ]
    assert [q.t for q in questions(one, random.Random(1))] == [q.t for q in questions(other, random.Random(1))]


def test_stories_reach_every_case() -> None:
    """What is never drawn is never tested."""
    verdicts: Counter[Verdict] = Counter()
    features: Counter[object] = Counter()
    kinds: Counter[Kind] = Counter()
    reasons: Counter[Reason] = Counter()
    for seed in range(ROOT_SEED, ROOT_SEED + 60):
        made = story(seed, size=30)
        verdicts.update(event.verdict for event in made.events)
        asked = questions(made, random.Random(seed), share=0.5)
        kinds.update(question.kind for question in asked)
        for view in made.views:
            features.update(x for f in view.features for x in (f.function, type(f.window), f.known, f.current))
            features.update([len(view.sources.emissions), len(view.entity) > 1])
        owners, tally = Owners(), Tally()
        for question in asked[-15:]:
            reasons.update(expected(made, question, tally, owners)[1])
    # MISPLACED is said of rows in a log that others write, and never taken, as CONFLICT and AHEAD are not.
    assert set(verdicts) == set(Verdict) - {Verdict.MISPLACED}
    assert set(kinds) == set(Kind)
    assert set(Function) | {Sliding, Lifetime, Aligned, "matured", "so_far", True, False, 2} <= set(features)
    assert {Reason.VALUE, Reason.EMPTY, Reason.OVERFLOW, Reason.LIMIT} <= set(reasons)


def test_a_wrong_answer_is_found_and_made_small() -> None:
    """The replay is asked with windows that are a microsecond off; what it then says must not pass."""
    made = story(ROOT_SEED, size=60)
    right = FeatureView("v0", entity="customer", source=made.main, features=[count().over("7s").named("f0")])
    wrong = FeatureView("v0", entity="customer", source=made.main, features=[count().over("6s").named("f0")])
    asked = questions(replace(made, views=(right,)), random.Random(1))
    truth = {id(q): expected(replace(made, views=(right,)), q, Tally(), Owners()) for q in asked}
    off = [q for q, answer in replayed(replace(made, views=(wrong,)), asked) if answer != truth[id(q)]]
    assert off
    same = [q for q, answer in replayed(replace(made, views=(right,)), asked) if answer != truth[id(q)]]
    assert same == []


def test_a_question_says_what_it_sees() -> None:
    made = story(ROOT_SEED + 1, size=30)
    asked = questions(made, random.Random(3))
    for question in asked:
        assert isinstance(question, Question)
        assert (question.cut is None) == (question.kind in (Kind.AVAILABLE, Kind.KNOWN_NOW))
