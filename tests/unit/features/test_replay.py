"""Replays against the oracle, over random definitions and logs: every kind of replay, every view, to the bit."""

from __future__ import annotations

import random

import pytest

from headrace.testing.agreement import Tally, expected, questions
from headrace.testing.generate import story
from tests.unit.features.replays import answers, events_of

SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_replay_says_what_the_oracle_says(seed: int) -> None:
    told = story(seed)
    events = events_of(told)
    asked = questions(told, random.Random(seed), share=0.5)
    for view in told.views:
        for kind in ("served", "available", "known_now"):
            some = [q for q in asked if q.view == view.name and q.kind == kind]
            if not some:
                continue
            found = answers(told, events, some, kind)
            for question, answer in zip(some, found, strict=True):
                assert answer == expected(told, question, Tally()), question
