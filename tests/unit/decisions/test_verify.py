"""The chain of records: whatever is altered, dropped, added, moved or made anew is found; what is sound is not told."""

from __future__ import annotations

import dataclasses
import random
import struct
from collections.abc import Callable, Iterator

import pytest

from headrace.core.codec import Physical
from headrace.core.points import Partition
from headrace.core.schema import Kind
from headrace.decisions.chain import RequestHash, genesis, link, link_before, own_link
from headrace.decisions.record import CHAIN, REQUEST_HASH
from headrace.decisions.verify import BROKEN_MAX, ChainReport, Head
from headrace.log.port import TopicState, Verdict
from headrace.models.artifact import Artifact
from tests.needs import requires
from tests.unit.decisions.altered import DECIDED, RECORDS, Copied, check, decided
from tests.unit.decisions.shop import Open, Shop

requires("xgboost")

OFFSET_FIELD, SCORE = 5, 11

Row = tuple[Physical, ...]


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Shop().artifact()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, artifact: Artifact) -> Iterator[Open]:
    shop = decided(tmp_path_factory.mktemp("log"), artifact)
    yield shop
    shop.close()


@pytest.fixture
def log(source: Open) -> Copied:
    copied = Copied(source.log)
    for requests in (copied.requests(0), copied.requests(1)):
        while requests and requests[-1].row[0] not in {f"o-{n}" for n in range(DECIDED)}:
            requests.pop()  # the newest event of each partition is one that was decided
    return copied


def broken(report: ChainReport) -> list[tuple[str, int]]:
    return [(place.partition, place.offset) for place in report.places]


def test_what_was_decided_is_whole(log: Copied) -> None:
    report = check(log)
    assert (report.places, report.checked, report.unchained, report.gone) == ([], DECIDED, 0, 0)
    assert report.whole and report.undecided >= 4
    assert [(head.partition, head.offset) for head in report.heads] == [
        (f"{RECORDS}#1/{index}", len(log.records(index)) - 1) for index in (0, 1)
    ]
    assert check(log, report.heads).whole


def test_a_chain_starts_at_its_partition_and_names_what_was_before(log: Copied) -> None:
    rows = [one.row for one in log.records(1)]
    assert link_before(str(rows[0][CHAIN])) == genesis(Partition(RECORDS, 1, 1))
    for before, row in zip(rows, rows[1:], strict=False):
        assert link_before(str(row[CHAIN])) == own_link(str(before[CHAIN]))
        assert row[CHAIN] == link(str(before[CHAIN]), row[:-1])


def test_the_flags_and_events_that_the_tests_need_are_there(log: Copied) -> None:
    flags = {str(one.row[15]) for one in [*log.records(0), *log.records(1)]}
    assert {"", "restamped", "retried"} <= flags
    assert {one.verdict for one in [*log.requests(0), *log.requests(1)]} == {Verdict.ACCEPTED, Verdict.RESTAMPED}


# --- one change, anywhere ---


def _changed(value: Physical, kind: Kind, draw: random.Random) -> Physical:
    """Another value of the kind: one byte, or one bit, or null."""
    if value is not None and draw.random() < 0.05:
        return None
    match kind:
        case Kind.STRING:
            text = "" if value is None else str(value)
            place, letter = draw.randrange(len(text) + 1), chr(draw.randrange(32, 127))
            cut = place + (draw.random() < 0.5)
            return next(t for t in (text[:place] + letter + text[cut:], text + "x") if t != value)
        case Kind.FLOAT64:
            raw = struct.unpack("<q", struct.pack("<d", 0.0 if value is None else float(value)))[0]
            return float(struct.unpack("<d", struct.pack("<q", raw ^ 1 << draw.randrange(62)))[0])
    return (0 if value is None else int(value)) ^ (1 << draw.randrange(29 if kind is Kind.DECIMAL else 50))


def test_any_one_byte_of_a_record_is_found(source: Open, log: Copied) -> None:
    pristine = Copied(source.log)
    fields = pristine.states[RECORDS].topic.schema.fields
    seen = set()
    for seed in range(400):
        draw = random.Random(seed)
        index = draw.randrange(2)
        place, field = draw.randrange(len(log.records(index))), draw.randrange(len(fields) + 3)
        one = log.records(index)[place]
        kept = dataclasses.replace(one, row=list(one.row))
        if field < len(fields):
            one.row[field] = _changed(one.row[field], fields[field].type.kind, draw)
            if fields[field].name == "t":
                one.event_time = int(one.row[field] or 0)  # as the log's file has it, which keeps t once
            seen.add(fields[field].name)
        elif field == len(fields):
            one.event_time ^= 1 << draw.randrange(50)
        elif field == len(fields) + 1:
            one.available_at ^= 1 << draw.randrange(50)
        else:
            one.verdict ^= 1 << draw.randrange(3)
        report = check(log)
        assert not report.whole and (f"{RECORDS}#1/{index}", place) in broken(report), (seed, field, kept, one)
        log.records(index)[place] = kept
    assert seen == {each.name for each in fields} and check(log).whole


def test_any_one_byte_of_a_decided_request_is_found(log: Copied) -> None:
    fields = log.states["orders"].topic.schema.fields
    for seed in range(300):
        draw = random.Random(seed)
        index = draw.randrange(2)
        record_place = draw.randrange(len(log.records(index)))
        place = int(log.records(index)[record_place].row[OFFSET_FIELD] or 0)
        one, field = log.requests(index)[place], draw.randrange(len(fields) + 2)
        kept = dataclasses.replace(one, row=list(one.row))
        if field < len(fields):
            one.row[field] = _changed(one.row[field], fields[field].type.kind, draw)
        elif field == len(fields):
            one.event_time ^= 1 << draw.randrange(50)
        else:
            one.verdict = draw.choice(
                [v for v in range(1, 8) if v not in (one.verdict, Verdict.LATE, Verdict.RESTAMPED)]
            )
        assert broken(check(log)) == [(f"{RECORDS}#1/{index}", record_place)], (seed, field, kept, one)
        log.requests(index)[place] = kept
    assert check(log).whole


def test_a_request_that_the_law_would_judge_otherwise_is_found(log: Copied) -> None:
    """ACCEPTED and RESTAMPED are told apart by the record's flag, unless the request came by another way."""
    for one in log.records(0):
        flags, request = str(one.row[15]), log.requests(0)[int(one.row[OFFSET_FIELD] or 0)]
        request.verdict ^= int(Verdict.RESTAMPED)
        assert check(log).whole == ("retried" in flags)
        request.verdict ^= int(Verdict.RESTAMPED)


# --- records that come, go and move ---


def relink(log: Copied, index: int, first: int = 0) -> None:
    """What a forger does who knows the code: every link from `first` on made anew."""
    rows = log.records(index)
    previous = genesis(Partition(RECORDS, 1, index)) if first == 0 else str(rows[first - 1].row[CHAIN])
    for one in rows[first:]:
        one.row[CHAIN] = previous = link(previous, one.row[:-1])


def drop(place: int) -> Callable[[Copied], None]:
    def work(log: Copied) -> None:
        del log.records()[place]

    return work


def swap(log: Copied) -> None:
    rows = log.records()
    rows[3], rows[4] = rows[4], rows[3]


def forge(log: Copied) -> None:
    """A record of a request that nobody decided, between two others, with a link of its own that fits behind one."""
    rows, decided = log.records(), {one.row[OFFSET_FIELD] for one in log.records()}
    offset = next(o for o in range(len(log.requests())) if o not in decided)
    made, request = dataclasses.replace(rows[4], row=list(rows[4].row)), log.requests()[offset]
    made.row[0], made.row[OFFSET_FIELD] = f"checkout/1/0/{offset}", offset
    made.row[REQUEST_HASH] = RequestHash(log.states["orders"].topic.schema.names)(request.row)
    made.row[6] = made.event_time = request.event_time
    made.row[CHAIN] = link(str(rows[4].row[CHAIN]), made.row[:-1])
    rows.insert(5, made)


def move(log: Copied) -> None:
    log.records(1).append(log.records(0).pop(2))


def move_and_relink(log: Copied) -> None:
    log.records(1).append(log.records(0).pop(2))
    log.records(1)[-1].available_at = log.records(1)[-2].available_at
    relink(log, 0)
    relink(log, 1)


def twice(log: Copied) -> None:
    one = log.records()[2]
    log.records().append(dataclasses.replace(one, row=list(one.row), available_at=log.records()[-1].available_at))
    relink(log, 0)


def of_another_request(log: Copied) -> None:
    rows = log.records()
    rows[3].row[OFFSET_FIELD] = rows[4].row[OFFSET_FIELD]


def of_a_request_that_is_not_there(log: Copied) -> None:
    one = log.records()[3]
    one.row[OFFSET_FIELD], one.row[0] = 10_000, "checkout/1/0/10000"
    relink(log, 0, 3)


def of_another_decision(log: Copied) -> None:
    one = log.records()[-1]
    one.row[1], one.row[0] = "refund", str(one.row[0]).replace("checkout", "refund")
    relink(log, 0, len(log.records()) - 1)


def without_link(log: Copied) -> None:
    log.records()[3].row[CHAIN] = None


def first_without_link(log: Copied) -> None:
    log.records()[0].row[CHAIN] = None


def first_of_before_the_chain(log: Copied) -> None:
    log.records()[0].row[CHAIN] = log.records()[0].row[REQUEST_HASH] = None
    log.records()[1].row[SCORE] = 0.5


def unreadable(log: Copied) -> None:
    log.records()[3].row[9] = "[["
    relink(log, 0, 3)


def request_gone(log: Copied) -> None:
    log.retain("orders", 4, declared=False)


def records_gone(log: Copied) -> None:
    log.retain(RECORDS, 4, declared=False)


def of_a_later_incarnation(log: Copied) -> None:
    one = log.records()[-1]
    one.row[3], one.row[0] = 2, str(one.row[0]).replace("/1/0/", "/2/0/")
    relink(log, 0, len(log.records()) - 1)


@pytest.mark.parametrize(
    "tamper",
    [
        drop(0),
        drop(5),
        drop(-1),
        swap,
        forge,
        move,
        move_and_relink,
        twice,
        of_another_request,
        of_a_request_that_is_not_there,
        of_another_decision,
        without_link,
        first_without_link,
        first_of_before_the_chain,
        unreadable,
        request_gone,
        records_gone,
        of_a_later_incarnation,
    ],
)
def test_what_is_moved_dropped_or_forged_is_found(log: Copied, tamper: Callable[[Copied], None]) -> None:
    tamper(log)
    assert not check(log).whole


def test_the_first_place_that_does_not_hold_is_told_first(log: Copied) -> None:
    log.records()[4].row[SCORE] = 0.25
    (place,) = check(log).places
    assert (place.partition, place.offset) == (f"{RECORDS}#1/0", 4)
    assert "its fields" in place.why
    log.records()[4].row[CHAIN] = link(str(log.records()[3].row[CHAIN]), log.records()[4].row[:-1])
    assert broken(check(log)) == [(f"{RECORDS}#1/0", 5)]


def test_every_broken_place_is_counted_and_some_are_told(log: Copied) -> None:
    for one in [*log.records(0), *log.records(1)]:
        one.row[13] = 9
    report = check(log)
    assert report.broken == DECIDED and report.checked == 0 and len(report.places) == min(BROKEN_MAX, DECIDED)


def test_links_made_anew_are_found_by_a_head_kept_elsewhere(log: Copied) -> None:
    heads = check(log).heads
    log.records()[4].row[SCORE] = 0.25
    relink(log, 0, 4)
    assert check(log).whole  # the chain alone cannot know
    report = check(log, heads)
    assert broken(report) == [(f"{RECORDS}#1/0", len(log.records()) - 1)]
    assert "known head" in report.places[0].why


def test_an_end_that_was_cut_off_with_its_requests_is_found_by_a_head(log: Copied) -> None:
    heads = check(log).heads
    del log.records()[-3:]
    last = max(int(one.row[OFFSET_FIELD] or 0) for one in log.records())
    del log.requests()[last + 1 :]
    assert check(log).whole
    assert broken(check(log, heads)) == [(heads[0].partition, heads[0].offset)]


def test_a_head_of_an_earlier_check_stays_good(source: Open, log: Copied) -> None:
    heads = [
        Head(partition=f"{RECORDS}#1/0", offset=offset, link=own_link(str(log.records()[offset].row[CHAIN])))
        for offset in range(len(log.records()))
    ]
    assert check(log, heads).whole
    wrong = [dataclasses.replace(heads[2], link="0" * 64)]
    assert broken(check(log, wrong)) == [(f"{RECORDS}#1/0", 2)]


def test_records_of_another_topic_incarnation_lose_their_heads(log: Copied) -> None:
    heads = check(log).heads
    elsewhere = [dataclasses.replace(heads[0], partition=f"{RECORDS}#2/0")]
    assert broken(check(log, elsewhere)) == [(f"{RECORDS}#2/0", heads[0].offset)]


# --- what is no fault ---


def test_requests_that_retention_took_are_counted(log: Copied) -> None:
    log.retain("orders", 6)
    report = check(log)
    assert report.whole and report.gone > 0 and report.checked == DECIDED


def test_a_chain_that_retention_shortened_is_checked_from_its_first_record(log: Copied) -> None:
    heads = check(log).heads
    old = [dataclasses.replace(heads[0], offset=1)]
    log.retain(RECORDS, 3)
    report = check(log, heads + old)
    assert report.whole and report.checked == DECIDED - 6
    assert report.gone == 1  # the old head
    log.records()[0].row[SCORE] = 0.25  # the first that is left, before which nothing can be seen
    assert broken(check(log)) == [(f"{RECORDS}#1/0", 3)]


def test_a_record_of_a_request_that_repeats_another_is_counted(log: Copied) -> None:
    """Two deciders may race; the log then takes the second one's row for a repetition, with its record beside it. A row
    that repeats nothing cannot be one."""
    one = log.records()[-1]
    request = log.requests()[int(one.row[OFFSET_FIELD] or 0)]
    request.verdict = int(Verdict.DUPLICATE)
    assert broken(check(log)) == [(f"{RECORDS}#1/0", len(log.records()) - 1)]
    earlier = log.requests()[0]
    earlier.row[0] = request.row[0]
    report = check(log)
    assert broken(report) == [(f"{RECORDS}#1/0", 0)] or report.repeats == 1  # the earlier one was itself decided
    assert report.repeats == 1


def test_records_of_before_the_chain_are_counted_and_the_first_link_stands_on_nothing(log: Copied) -> None:
    for one in log.records()[:4]:
        one.row[CHAIN] = one.row[REQUEST_HASH] = None
    relink_from_genesis = log.records()[4:]
    previous = genesis(Partition(RECORDS, 1, 0))
    for one in relink_from_genesis:
        one.row[CHAIN] = previous = link(previous, one.row[:-1])
    report = check(log)
    assert (report.whole, report.unchained, report.checked) == (True, 4, DECIDED - 4)
    log.retain(RECORDS, 2)
    assert check(log).whole
    log.records()[2].row[SCORE] = 0.25
    assert broken(check(log)) == [(f"{RECORDS}#1/0", 4)]


def test_requests_of_a_dropped_incarnation_are_gone(log: Copied) -> None:
    state = log.states["orders"]
    partitions = [Partition("orders", 2, index) for index in (0, 1)]
    log.states["orders"] = dataclasses.replace(
        state,
        incarnation=2,
        partitions=tuple(
            dataclasses.replace(each, partition=partition)
            for each, partition in zip(state.partitions, partitions, strict=True)
        ),
    )
    for partition in partitions:
        log.held[partition], log.starts[partition] = [], 0
    report = check(log)
    assert report.whole and report.gone == DECIDED


def test_a_decision_that_decided_nothing_is_whole(log: Copied) -> None:
    del log.states[RECORDS]
    assert check(log) == ChainReport()


def test_events_of_others_between_decisions_are_counted_and_behind_them_told(source: Open) -> None:
    copied = Copied(source.log)
    assert check(copied).whole and check(copied).undecided > 0
    copied.requests().append(dataclasses.replace(copied.requests()[0]))
    report = check(copied)
    assert [p.offset for p in report.places if p.partition.endswith("/0")] == [len(copied.records())]
    assert "have no record" in report.places[0].why


def test_what_came_since_the_check_began_is_left_for_the_next(log: Copied) -> None:
    before = log.topics()

    class Growing(Copied):
        def topics(self) -> tuple[TopicState, ...]:
            return before

    log.__class__ = Growing
    last = log.records()[-1]
    log.records().append(dataclasses.replace(last, row=[*last.row[:-1], "not its link"]))
    assert check(log).whole


def test_a_topic_that_got_a_field_is_whole(source: Open, log: Copied) -> None:
    """What is null counts for nothing, in a request's hash and at the end of a record's fields."""
    row, names = log.requests()[0].row, source.shop.orders.schema.names
    assert RequestHash(names)(row) == RequestHash(["added", *names[::-1]])([None, *row[::-1]])
    assert link("0" * 64, [1, None, 2]) == link("0" * 64, [1, None, 2, None]) != link("0" * 64, [1, 2])
    assert link("0" * 64, [1]) != link("0" * 64, [1.0]) != link("0" * 64, [True])
