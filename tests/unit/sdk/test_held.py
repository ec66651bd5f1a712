"""The quarantine's records folded: what is held, what blocks its key, what is released."""

from __future__ import annotations

import pytest

from headrace.clients.kafka.port import Headers, Record
from headrace.core.errors import LogFormatError
from headrace.core.times import Instant
from headrace.sdk.define import Failure, Reason
from headrace.sdk.held import Fold, Origin, held_headers, mark_headers, read_held

FAILED = Failure(reason=Reason.FAILED, kind="ValueError", text="no")
AGAIN = Failure(reason=Reason.FAILED, kind="KeyError", text="still no")


class Log:
    """A partition of a quarantine, and its fold as of now."""

    def __init__(self, by: str = "me") -> None:
        self.fold = Fold("id", by=by)
        self.next = 0

    def put(self, key: bytes | None, headers: Headers, value: bytes | None = None) -> int:
        self.last = self.fold.apply(Record(self.next, 0, key, value, headers))
        self.next += 1
        return self.next - 1

    def held(self, key: bytes | None, offset: int, *, blocks: bool = True, by: str = "me", topic_id: str = "id") -> int:
        source = Record(offset, 7, key, b"value", (("trace", b"x"),))
        headers = held_headers(
            Origin("orders", topic_id), 2, source, FAILED, by=by, blocks=blocks, attempts=3,
            first_failed=Instant(5), at=Instant(9),
        )  # fmt: skip
        return self.put(key, headers, source.value)


def test_a_held_record_is_read_back_as_it_was() -> None:
    source = Record(17, 7, b"a", None, (("headrace-kind", b"mine"), ("trace", b"\xff")))
    headers = held_headers(
        Origin("orders", "id"), 2, source, FAILED, by="me", blocks=True, attempts=3,
        first_failed=Instant(5), at=Instant(9),
    )  # fmt: skip
    held = read_held(Record(40, 1, b"a", None, headers))
    assert (held.place, held.topic, held.topic_id, held.partition, held.offset) == (40, "orders", "id", 2, 17)
    assert (held.key, held.value, held.headers, held.timestamp) == (b"a", None, source.headers, 7)
    assert (held.failure, held.attempts, held.first_failed, held.at) == (FAILED, 3, 5, 9)


def test_a_key_is_blocked_until_all_of_it_was_handled_after_a_release() -> None:
    log = Log()
    first, second = log.held(b"a", 3), log.held(b"a", 5)
    assert log.fold.keys == {b"a": {first: 3, second: 5}} and not log.fold.released
    log.put(b"a", mark_headers("release"))
    third = log.held(b"a", 8)
    assert log.fold.released == {b"a"} and log.fold.is_released(third), "it was being written"
    for place in (first, second):
        log.put(b"a", mark_headers("done", place=place))
    assert log.fold.keys == {b"a": {third: 8}}
    log.put(b"a", mark_headers("done", place=third))
    assert not log.fold.keys and not log.fold.released
    assert log.fold.offsets == {3, 5, 8}, "they need nothing more of their partition"
    later = log.held(b"a", 11)
    assert not log.fold.is_released(later), "a release is not of what comes after it was done"


def test_what_failed_again_waits_for_another_release() -> None:
    log = Log()
    place = log.held(b"a", 3)
    log.put(b"a", mark_headers("release"))
    log.put(b"a", mark_headers("again", place=place, failure=AGAIN, attempts=4))
    assert not log.fold.is_released(place) and log.fold.failures[place] == (AGAIN, 4)
    log.put(b"a", mark_headers("release"))
    assert log.fold.is_released(place)


def test_poison_blocks_nothing_and_is_released_alone() -> None:
    log = Log()
    one, two = log.held(b"a", 3, blocks=False), log.held(None, 4)
    assert not log.fold.keys and log.fold.alone == {one: (b"a", 3), two: (None, 4)}
    log.put(b"a", mark_headers("release"))
    assert log.last.released_place is None and not log.fold.released_alone
    log.put(b"a", mark_headers("release", place=one))
    assert log.last.released_place == one and log.fold.is_released(one) and not log.fold.is_released(two)
    log.put(b"a", mark_headers("release", place=one))
    assert log.last.released_place is None, "once is enough"
    log.put(b"a", mark_headers("done", place=one))
    assert list(log.fold.places()) == [two]


def test_what_somebody_else_held_is_void_when_it_is_said_to_be() -> None:
    log = Log()
    place = log.held(b"a", 3, by="a zombie")
    assert log.last.foreign
    log.put(b"a", mark_headers("done", place=place, void=True))
    assert not log.fold.keys and log.fold.offsets == set(), "its owner handles it"
    mine = log.held(b"a", 3)
    other = log.held(b"a", 3, by="a zombie")
    log.put(b"a", mark_headers("done", place=other, void=True))
    assert log.fold.keys == {b"a": {mine: 3}} and log.fold.offsets == {3}


def test_another_incarnations_records_are_nothing() -> None:
    log = Log()
    log.held(b"a", 3, topic_id="older")
    log.put(b"a", mark_headers("done", place=0))
    assert not log.fold.keys and not log.fold.offsets


@pytest.mark.parametrize("headers", [(), (("headrace-kind", b"?"),), (("headrace-kind", b"done"),)])
def test_what_nobody_can_read_is_an_error(headers: Headers) -> None:
    with pytest.raises(LogFormatError) as raised:
        Log().put(b"a", headers)
    assert raised.value.code == "HR-0447"
    with pytest.raises(LogFormatError):
        read_held(Record(0, 0, b"a", b"", headers))
