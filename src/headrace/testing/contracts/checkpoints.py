"""What every place for checkpoints keeps. `CHECKS` runs over each adapter.

A check gets a fresh `StoreUnderTest`, an empty place, and asserts. Touches only the stores that it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from headrace.core.errors import StateError
from headrace.features.checkpoint_store import MANIFEST, CheckpointStore, Part


@dataclass
class StoreUnderTest:
    """store: open. again: opens the same place once more, as another process would."""

    store: CheckpointStore
    again: Callable[[], CheckpointStore]


class DiedError(Exception):
    """A writer ended here."""


def files(number: int, *, size: int = 1_000) -> list[Part]:
    """A small checkpoint's files, no two numbers alike; one is in several parts, one is empty."""
    body = bytes((number + place) % 251 for place in range(size))
    return [
        ("state.kernel.npy", [body[:10], memoryview(body)[10:]]),
        ("state.empty.arrow", [b""]),
        (MANIFEST, [b"manifest %d" % number]),
    ]


def dying(some: Iterable[Part], after: int) -> Iterator[Part]:
    """The writer ends after so many files."""
    for place, part in enumerate(some):
        if place == after:
            raise DiedError
        yield part


def holds(store: CheckpointStore, name: str, wanted: Iterable[Part]) -> None:
    for file, parts in wanted:
        assert store.get(name, file) == b"".join(bytes(part) for part in parts), (name, file)


def error_code(call: Callable[[], object]) -> str:
    try:
        call()
    except StateError as error:
        assert error.message, error.code
        return error.code
    return ""


def check_an_empty_place_holds_nothing(under: StoreUnderTest) -> None:
    assert list(under.store.names("")) == []
    assert list(under.store.unfinished("")) == []
    under.store.remove("p1-1")


def check_what_was_put_comes_back(under: StoreUnderTest) -> None:
    under.store.put("p1-1", files(1))
    holds(under.store, "p1-1", files(1))
    assert list(under.store.names("")) == ["p1-1"]
    assert list(under.store.unfinished("")) == []
    again = under.again()
    assert list(again.names("p1-")) == ["p1-1"]
    holds(again, "p1-1", files(1))


def check_a_listing_is_fresh_and_by_prefix(under: StoreUnderTest) -> None:
    again = under.again()
    for number, name in enumerate(("p1-2", "p1-1", "p10-1", "all-1")):
        under.store.put(name, files(number))
        assert name in again.names("")
    assert list(again.names("p1-")) == ["p1-1", "p1-2"]
    assert list(again.names("")) == ["all-1", "p1-1", "p1-2", "p10-1"]
    assert list(again.names("p2-")) == []


def check_nothing_is_overwritten(under: StoreUnderTest) -> None:
    under.store.put("p1-1", files(1))
    for store in (under.store, under.again()):
        assert error_code(lambda store=store: store.put("p1-1", files(2))) == "HR-0566"  # type: ignore[misc]  # bound now
        holds(store, "p1-1", files(1))
        assert list(store.names("")) == ["p1-1"]
        assert list(store.unfinished("")) == []


def check_of_two_writers_of_a_name_one_wins(under: StoreUnderTest) -> None:
    """Both have begun before either goes on."""
    stores = under.store, under.again()
    if not under.store.shared:
        return
    begun, codes = threading.Barrier(2, timeout=30), ["", ""]

    def together(number: int) -> Iterator[Part]:
        begun.wait()
        yield from files(number)

    def write(number: int) -> None:
        codes[number] = error_code(lambda: stores[number].put("p1-1", together(number)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [number for number, code in enumerate(codes) if not code]
    assert len(won) <= 1 and set(codes) <= {"", "HR-0566"}, codes
    if won:
        assert list(under.store.names("")) == ["p1-1"]
        holds(under.again(), "p1-1", files(won[0]))
    else:
        # Each met a file of the other: nothing is there, and a higher number is free.
        assert list(under.store.names("")) == []
    under.store.put("p1-2", files(3))
    holds(under.again(), "p1-2", files(3))


def check_a_writer_that_dies_leaves_nothing_that_is_there(under: StoreUnderTest) -> None:
    under.store.put("p1-1", files(1))
    for after in (1, 2):
        name = f"p1-{after + 1}"
        try:
            under.store.put(name, dying(files(2), after))
        except DiedError:
            pass
        again = under.again()
        assert list(again.names("")) == ["p1-1"]
        assert list(again.unfinished("p1-")) == [name]
        assert list(again.unfinished("p2-")) == []
        again.remove(name)
        assert list(under.store.unfinished("")) == []
        under.store.put(name, files(3))
        holds(again, name, files(3))
        again.remove(name)
    holds(under.store, "p1-1", files(1))


def check_what_is_removed_is_gone_and_nothing_else(under: StoreUnderTest) -> None:
    for number in (1, 10):
        under.store.put(f"p1-{number}", files(number))
    under.store.remove("p1-1")
    under.store.remove("p1-1")
    again = under.again()
    assert list(again.names("")) == ["p1-10"]
    assert list(again.unfinished("")) == []
    assert error_code(lambda: again.get("p1-1", MANIFEST)) == "HR-0567"
    holds(again, "p1-10", files(10))


def check_a_file_that_is_not_there_is_said(under: StoreUnderTest) -> None:
    under.store.put("p1-1", files(1))
    for name, file in (("p1-1", "other"), ("p1-2", MANIFEST)):
        assert error_code(lambda name=name, file=file: under.store.get(name, file)) == "HR-0567"  # type: ignore[misc]  # bound now


def check_the_check_leaves_nothing(under: StoreUnderTest) -> None:
    under.store.put("p1-1", files(1))
    under.store.check()
    under.again().check()
    assert list(under.store.names("")) == ["p1-1"]
    assert list(under.store.unfinished("")) == []


def check_large_files_come_back(under: StoreUnderTest) -> None:
    """More than two pieces of 5 MiB, with parts that lie across them."""
    body = bytes(range(256)) * (12 * 4_096 + 1)
    parts: list[bytes | memoryview] = [body[:7], memoryview(body)[7 : 5 << 20], body[5 << 20 :]]
    large: list[Part] = [("large", parts), (MANIFEST, [b"m"])]
    under.store.put("p1-1", large)
    assert under.again().get("p1-1", "large") == body
    assert error_code(lambda: under.again().put("p1-1", large)) == "HR-0566"
    under.store.remove("p1-1")
    assert list(under.store.unfinished("")) == []


CHECKS: tuple[Callable[[StoreUnderTest], None], ...] = (
    check_an_empty_place_holds_nothing,
    check_what_was_put_comes_back,
    check_a_listing_is_fresh_and_by_prefix,
    check_nothing_is_overwritten,
    check_of_two_writers_of_a_name_one_wins,
    check_a_writer_that_dies_leaves_nothing_that_is_there,
    check_what_is_removed_is_gone_and_nothing_else,
    check_a_file_that_is_not_there_is_said,
    check_the_check_leaves_nothing,
    check_large_files_come_back,
)
