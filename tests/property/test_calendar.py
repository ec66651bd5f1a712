"""Calendar windows by the code that serves and by bisection over what a wall clock shows (SEMANTICS 2.3)."""

from __future__ import annotations

import datetime as dt
import random

import numpy as np
import pytest

from headrace.core import schema
from headrace.core.times import Instant
from headrace.core.window import aligned, edges
from headrace.features.define import FeatureView, count
from headrace.features.plan import ViewPlan
from headrace.log.define import Topic
from headrace.testing.oracles import bounds

UNITS = ("hour", "day", "week", "month", "year", "15m", "7d")
# Half an hour of summer time, no midnight, a day left out, quarters of an hour, a change at midnight, both hemispheres.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia",
    "Asia/Kathmandu", "America/Havana", "Africa/Casablanca", "Asia/Gaza", "America/Asuncion", "Pacific/Chatham",
)  # fmt: skip
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DAY = 86_400_000_000


def test_an_hour_in_which_the_clock_is_set_by_half_an_hour_begins_there() -> None:
    """The morning of 4 October 2026 on Lord Howe Island, and the night of 5 April: every five minutes."""
    for begin in ("2026-10-03T14:00:00+00:00", "2026-04-04T13:30:00+00:00"):
        start = int(dt.datetime.fromisoformat(begin).timestamp()) * 1_000_000
        for t in range(start, start + DAY // 8, DAY // 288):
            for complete in (False, True):
                window = aligned("hour", tz="Australia/Lord_Howe", complete=complete)
                assert edges(window, Instant(t)) == bounds(window, t)


def instants(draw: random.Random, count: int) -> list[int]:
    """Since 1975, often near a change of some clock: the small hours of the days where they happen."""
    found = []
    for _ in range(count):
        day = dt.datetime(
            draw.randint(1975, 2036), draw.choice((3, 4, 9, 10, 11, 12, 1)), draw.randint(1, 28), tzinfo=dt.UTC
        )
        start = (day - EPOCH) // dt.timedelta(microseconds=1)
        found.append(start + draw.randrange(3 * 96) * DAY // 96 + draw.choice((-1, 0, 0, 1, 12_345_678)))
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_a_window_begins_and_ends_where_the_wall_clock_says(zone: str) -> None:
    draw = random.Random(zone)
    for unit in UNITS:
        if unit[0].isdigit() and zone != "UTC":
            continue
        for complete in (False, True):
            window = aligned(unit, tz=zone, complete=complete)
            for t in instants(draw, 60):
                assert edges(window, Instant(t)) == bounds(window, t), f"{unit} in {zone} at {t}"


@pytest.mark.parametrize("zone", ZONES)
def test_a_plan_finds_the_bounds_of_many_points_as_of_each(zone: str) -> None:
    topic = Topic("t", key="k", fields={"k": schema.string})
    asked = [
        count().aligned(unit, tz=zone, complete=complete).named(f"{unit}_{complete}")
        for unit in ("hour", "day", "week", "month", "year")
        for complete in (False, True)
    ]
    plan = ViewPlan.compile(FeatureView("v", entity="k", source=topic, features=asked), {})
    points = instants(random.Random(zone), 150)
    found = plan.spans_bounds(np.array(points, np.int64))
    for i, t in enumerate(points):
        assert found[:, i].tolist() == plan.bounds_row(t)
