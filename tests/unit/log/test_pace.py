"""A quota is held to over any stretch of time, with a second's worth at once, and never waits for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.rates import Rate
from headrace.core.times import ZERO, Duration, Instant
from headrace.log.pace import AHEAD_MAX, Pace

SECOND = 1_000_000


def test_a_seconds_worth_goes_at_once_and_the_rest_waits() -> None:
    pace = Pace(Rate(1000))
    now = Instant(50 * SECOND)
    assert pace.delay(600, now=now) == ZERO
    assert pace.delay(400, now=now) == ZERO
    assert pace.delay(500, now=now) == Duration(SECOND // 2)
    assert pace.delay(1, now=Instant(now + 10 * SECOND)) == ZERO, "what was not sent in between is not saved up"
    assert pace.delay(3000, now=Instant(now + 10 * SECOND)) == Duration(2 * SECOND + 1000)


@given(
    st.integers(1, 5000), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3 * SECOND)), min_size=1, max_size=40)
)
def test_no_stretch_of_time_holds_more_than_the_rate(rate: int, sends: list[tuple[int, int]]) -> None:
    """sends: bytes, and how long the producer rests before them."""
    pace = Pace(Rate(rate))
    now, sent = SECOND, []
    for size, rest in sends:
        now += rest
        wait = pace.delay(size, now=Instant(now)).micros
        assert wait >= 0
        now += wait
        sent.append((now, size))
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            # What is larger than a second's worth waits before it goes, and goes whole.
            whole = sent[first][1] * SECOND // rate
            length = sent[last][0] - sent[first][0] + max(AHEAD_MAX.micros, whole)
            size = sum(size for _, size in sent[first : last + 1])
            # Each send's cost is rounded down to a microsecond.
            assert size * SECOND <= rate * (length + last - first + 1)
