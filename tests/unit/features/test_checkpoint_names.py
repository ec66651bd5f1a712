"""Names of checkpoints and addresses of their places: what is furthest, what goes, and what is no such thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headrace.clients.s3 import S3Settings
from headrace.core.errors import UsageError
from headrace.core.points import Cut, Partition
from headrace.features.checkpoint_address import FolderAddress, S3Address, open_store, parse
from headrace.features.checkpoint_folder import FolderCheckpoints
from headrace.features.checkpoint_names import (
    OTHERS_KEPT,
    CheckpointName,
    abandoned,
    next_number,
    outdated,
    parsed,
    part_name,
    short_hash,
)

MINE, THEIRS = short_hash("mine"), short_hash("theirs")


def name(number: int, progress: int, kind: str = MINE) -> CheckpointName:
    cut = Cut.of({Partition("payments", 1, 0): progress})
    return CheckpointName.of(cut, part="p3", number=number, kind=kind)


@given(number=some.integers(1, 2**40), offsets=some.lists(some.integers(0, 2**62), max_size=40))
def test_a_name_says_what_it_is(number: int, offsets: list[int]) -> None:
    cut = Cut.of({Partition("payments", 1, index): offset for index, offset in enumerate(offsets)})
    made = CheckpointName.of(cut, part="p3", number=number, kind=MINE)
    assert CheckpointName.parse(str(made)) == made
    assert made.progress == sum(offsets)
    assert len(str(made)) < 150


def test_names_in_a_listing_are_ordered_by_how_far_they_are() -> None:
    wanted = [name(9, 3), name(1, 40), name(2, 40), name(3, 500)]
    listing = sorted([*map(str, wanted), "other", "writing-p3-1", "p3-1-x", "check~1"])
    assert parsed(listing) == wanted
    assert next_number(wanted) == 10 and next_number([]) == 1


def test_cuts_of_equal_progress_have_other_names() -> None:
    one, other = Partition("payments", 1, 0), Partition("payments", 1, 1)
    first, second = (
        CheckpointName.of(Cut.of({one: a, other: b}), part="p3", number=1, kind=MINE) for a, b in ((1, 2), (2, 1))
    )
    assert first.progress == second.progress and first != second


@pytest.mark.parametrize("text", ["", "p3", "writing-x", "p3-1-2-3-4", f"P3-00000001-{MINE}-{0:020d}-{MINE}"])
def test_what_is_no_name_is_none(text: str) -> None:
    assert CheckpointName.parse(text) is None


def test_the_last_two_stay() -> None:
    there = [name(number, 10 * number) for number in range(1, 6)]
    assert [gone.number for gone in outdated(there, there[-1])] == [1, 2, 3]
    assert [gone.number for gone in outdated(there, there[-1], kept=1)] == [1, 2, 3, 4]


def test_what_is_written_stays_behind_damaged_ones_that_are_further() -> None:
    """A state that began before two that rotted writes one, and then the next."""
    there = [name(1, 100), name(2, 200), name(3, 50)]
    assert outdated(there, there[-1]) == []
    there.append(name(4, 60))
    assert outdated(there, there[-1]) == []
    there.append(name(5, 70))
    assert [gone.number for gone in outdated(there, there[-1])] == [3]


def test_another_meaning_s_go_when_many_came_after_them() -> None:
    others = [name(number, 10, THEIRS) for number in (1, 2)]
    for number, gone in ((2 + OTHERS_KEPT - 2, []), (1 + OTHERS_KEPT, [1]), (2 + OTHERS_KEPT, [1, 2])):
        mine = name(number, 5)
        assert [old.number for old in outdated([*others, mine], mine)] == gone


@given(some.lists(some.tuples(some.integers(0, 30), some.booleans()), min_size=1, max_size=30))
def test_never_more_than_twice_as_many_of_a_kind_and_never_the_last(life: list[tuple[int, bool]]) -> None:
    there: list[CheckpointName] = []
    for progress, mine in life:
        made = name(next_number(there), progress, MINE if mine else THEIRS)
        there.append(made)
        gone = outdated(there, made)
        there = [one for one in there if one not in gone]
        assert made in there
        own = [one for one in there if one.kind == made.kind]
        assert len(own) <= 4
        assert max(own, key=lambda one: one.rank).progress >= progress


def test_what_is_unfinished_is_left_while_it_may_be_written() -> None:
    assert abandoned([name(1, 0), name(2, 0)], 1 + OTHERS_KEPT) == [name(1, 0)]
    assert abandoned([name(1, 0)], OTHERS_KEPT) == []


@pytest.mark.parametrize("part", ["p-3", "P3", "a/b", "~", "x" * 65, "p3 "])
def test_a_part_that_cannot_be_named_is_refused(part: str) -> None:
    with pytest.raises(UsageError, match="HR-0560"):
        part_name(part)


def test_parts() -> None:
    assert (part_name(""), part_name("p3"), part_name("risk.v_2.p11")) == ("all", "p3", "risk.v_2.p11")


# --- addresses ---


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("file:///shared/checkpoints", FolderAddress(folder=Path("/shared/checkpoints"))),
        ("file://localhost/shared/a%20b/", FolderAddress(folder=Path("/shared/a b"))),
        ("s3://bucket", S3Address(settings=S3Settings(bucket="bucket"))),
        ("s3://bucket/a/b/", S3Address(settings=S3Settings(bucket="bucket"), prefix="a/b")),
        (
            "s3://bucket/a?endpoint=http://10.0.0.5:9000&region=eu-central-1&profile=risk",
            S3Address(
                settings=S3Settings(
                    bucket="bucket", endpoint="http://10.0.0.5:9000", region="eu-central-1", profile="risk"
                ),
                prefix="a",
            ),
        ),
    ],
)
def test_an_address_is_read(url: str, wanted: object) -> None:
    assert parse(url) == wanted


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/shared/checkpoints", "scheme ''"),
        ("http://bucket/a", "scheme 'http'"),
        ("s3:bucket", "is no bucket's name"),
        ("s3://Bucket/a", "is no bucket's name"),
        ("s3://ab", "is no bucket's name"),
        ("s3://key:secret@bucket/a", "it says who asks"),
        ("s3://bucket/a?regoin=x", "did you mean 'region'"),
        ("s3://bucket/a?region=", "option 'region' is empty"),
        ("s3://bucket/a?endpoint=10.0.0.5:9000", "endpoint '10.0.0.5:9000'"),
        ("s3://bucket/a?endpoint=http://x:port", "expected http://HOST:PORT"),
        ("s3://bucket/a#b", "it has a fragment"),
        ("s3://[bucket/a", "it is no URL"),
        ("file://shared/checkpoints", "a folder of host 'shared'"),
        ("file:///", "it names no folder"),
        ("file:///a?b=c", "a folder takes no options"),
    ],
)
def test_a_wrong_address_is_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(url)
    assert error.value.code == "HR-0560"
    assert said in f"{error.value.message} {error.value.detail}"


def test_a_password_is_never_shown() -> None:
    for url in ("http://key:secret@bucket", "s3://bucket/a?endpoint=ftp://key:secret@host"):
        with pytest.raises(UsageError) as error:
            parse(url)
        assert "secret" not in str(error.value)


def test_a_folder_of_an_address_is_shared(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    assert isinstance(store, FolderCheckpoints) and store.shared and store.place == str(tmp_path)
