"""Rates: what is written is read, in the largest unit that leaves a whole number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import DefinitionError
from headrace.core.rates import Rate


@given(st.integers(1, 2**40))
def test_what_a_rate_writes_is_read_back(count: int) -> None:
    assert Rate.parse(str(Rate(count))) == Rate(count)


@pytest.mark.parametrize(
    ("text", "count", "said"),
    [
        ("5MB/s", 5_000_000, "5MB/s"),
        ("1000 kB/s", 1_000_000, "1MB/s"),
        ("512KiB/s", 524_288, "512KiB/s"),
        ("1GiB/s", 1 << 30, "1GiB/s"),
        ("2GB/s", 2 * 10**9, "2GB/s"),
        ("3MiB/s", 3 << 20, "3MiB/s"),
        ("7B/s", 7, "7B/s"),
    ],
)
def test_units_are_what_they_say(text: str, count: int, said: str) -> None:
    assert Rate.parse(text) == Rate(count)
    assert str(Rate.parse(text)) == said
    assert Rate.parse(Rate(count)) == Rate(count)


@pytest.mark.parametrize("text", ["", "5", "5MB", "0MB/s", "-1MB/s", "1.5MB/s", "5Mb/s", "5MB/s\n", None, 5])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError) as seen:
        Rate.parse(text)
    assert (seen.value.code, seen.value.message) == ("HR-0810", f"not a rate: {text!r}")
