"""The note beside a committed offset: what is read is what was written, or less."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.sdk.note import NOTE_BYTES_MAX, read_note, write_note
from tests.examples import examples


@examples(200)
@given(st.integers(0, 2**40), st.sets(st.integers(0, 300)))
def test_what_is_done_is_read_back(offset: int, ahead: set[int]) -> None:
    done = sorted(offset + each for each in ahead)
    note = write_note("topic-id", offset, done)
    assert len(note) <= NOTE_BYTES_MAX
    assert read_note(note, offset) == ("topic-id", frozenset(done))


def test_what_does_not_fit_in_is_left_out_from_the_end() -> None:
    done = [each * each for each in range(3, 40_000)]
    note = write_note("id", 0, done)
    assert len(note) <= NOTE_BYTES_MAX
    _, found = read_note(note, 0)
    assert len(found) > 100 and sorted(found) == done[: len(found)]


def test_what_lies_below_is_left_out() -> None:
    assert read_note(write_note("id", 10, [3, 9, 10, 12]), 10) == ("id", frozenset({10, 12}))


def test_another_tools_note_says_nothing() -> None:
    for note in ("", "consumer-1", "headrace2 id x", "headrace1", "headrace1 a b c"):
        assert read_note(note, 5) == ("", frozenset())
    assert read_note("headrace1 id !!!", 5) == ("id", frozenset()), "a broken one says which topic at least"
