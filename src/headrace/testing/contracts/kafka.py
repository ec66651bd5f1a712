"""What every `KafkaClient` keeps, whatever stands behind it. `CHECKS` runs over real Kafka and over the model.

The one idea: a check knows the port alone, and waits by calling it a bounded number of times, never by a clock, so that
a model with an instant of its own passes it too. Touches only the clients that it is given, and topics, groups and
transactional ids whose names begin with the prefix that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from headrace.clients.kafka.port import (
    Acknowledged,
    Assignment,
    Fetched,
    Fetcher,
    GroupOffset,
    KafkaClient,
    Member,
    Outgoing,
    Place,
    Record,
    Sender,
    Span,
)
from headrace.core.errors import HeadraceError
from headrace.core.times import ZERO, Duration

# One call's wait, and how many calls until a check gives up: a minute, which a busy machine with real brokers needs
# after a rebalance. Nothing here waits that long where all is well.
A_WHILE, NOT_LONG = Duration.parse("200ms"), Duration.parse("50ms")
TRIES_MAX = 300


@dataclass
class KafkaUnderTest:
    """client, again: two open clients of one cluster, as two processes would hold them. prefix: of all names that a
    check makes, its own. trim: lets go of what lies below an offset of a partition, as retention does; None where the
    adapter's test cannot. Checks close the senders, fetchers and members that they make, not the clients."""

    client: KafkaClient
    again: KafkaClient
    prefix: str
    trim: Callable[[Place, int], None] | None = None
    closing: list[Sender | Fetcher] = field(default_factory=list)
    leaving: list[Member] = field(default_factory=list)

    def topic(self, name: str = "t", *, partitions: int = 1, **settings: str) -> list[Place]:
        """A new topic's places. settings: with '_' for '.'."""
        facts = self.client.create(
            self.prefix + name,
            partitions=partitions,
            settings={key.replace("_", "."): value for key, value in settings.items()},
        )
        assert (facts.name, facts.partitions) == (self.prefix + name, partitions) and facts.id
        return [Place(facts.name, index) for index in range(partitions)]

    def sender(self, transactional: str = "", *, client: KafkaClient | None = None) -> Sender:
        id = self.prefix + transactional if transactional else None
        made = (client or self.client).sender(transactional_id=id)
        self.closing.append(made)
        return made

    def fetcher(self, *places: Place, at: int = 0, client: KafkaClient | None = None) -> Fetcher:
        made = (client or self.client).fetcher()
        self.closing.append(made)
        for place in places:
            made.seek(place, at)
        return made

    def member(self, group: str, topics: Sequence[str], *, name: str = "", client: KafkaClient | None = None) -> Member:
        made = (client or self.client).member(self.prefix + group, topics, name=name)
        self.leaving.append(made)
        return made

    def close(self) -> None:
        """What a check made; the clients stay open."""
        for member in self.leaving:
            member.leave()
        for each in self.closing:
            each.close()
        self.leaving, self.closing = [], []


def out(place: Place, *values: str) -> list[Outgoing]:
    return [Outgoing(place, None, value.encode()) for value in values]


@dataclass
class Read:
    """What fetches gave of one place: all records, and where the last said that it goes on."""

    records: list[Record] = field(default_factory=list)
    next: int = -1
    ends: int = 0

    @property
    def values(self) -> list[str]:
        return ["" if each.value is None else each.value.decode() for each in self.records]


def take(reads: dict[Place, Read], found: Sequence[Fetched], *, records_max: int = 10_000) -> bool:
    """Adds them, and holds what is so of each fetch; whether anything came."""
    assert len({each.place for each in found}) == len(found), "at most one entry a partition"
    assert sum(len(each.records) for each in found) <= records_max
    for each in found:
        read = reads.setdefault(each.place, Read())
        offsets = [record.offset for record in each.records]
        assert offsets == sorted(set(offsets)) and all(offset >= read.next for offset in offsets), "each once, in order"
        assert each.next >= max(read.next, *(offset + 1 for offset in offsets), 0)
        read.records += each.records
        read.next = each.next
        read.ends += each.at_end
    return bool(found)


def read_to_end(fetcher: Fetcher, *places: Place, records_max: int = 10_000) -> dict[Place, Read]:
    """Until each place was told to be at its end."""
    reads: dict[Place, Read] = {}
    for _ in range(TRIES_MAX):
        take(reads, fetcher.fetch(timeout=A_WHILE, records_max=records_max), records_max=records_max)
        if all(place in reads and reads[place].ends for place in places):
            return reads
    raise AssertionError(f"not at the end of {places}: {reads}")


def read_values(under: KafkaUnderTest, place: Place) -> list[str]:
    """From the start to the end, by a fetcher of its own."""
    fetcher = under.again.fetcher()
    fetcher.seek(place, under.client.spans([place])[0].start)
    found = read_to_end(fetcher, place)[place].values
    fetcher.close()
    return found


def quiet(fetcher: Fetcher) -> bool:
    """Nothing comes for a while."""
    return not any(fetcher.fetch(timeout=NOT_LONG) for _ in range(4))


@contextmanager
def refused(code: str) -> Iterator[None]:
    try:
        yield
    except HeadraceError as error:
        assert error.code == code, f"expected {code}, seen {error}"
        return
    raise AssertionError(f"expected {code}, nothing was raised")


def refused_fetch(fetcher: Fetcher, code: str) -> None:
    with refused(code):
        for _ in range(TRIES_MAX):
            fetcher.fetch(timeout=A_WHILE)


# --- sends and fetches ---


def check_records_come_back_as_they_went_in(under: KafkaUnderTest) -> None:
    one, two = under.topic(partitions=2)
    sent = [
        Outgoing(one, b"k", b"v", (("a", b"1"), ("b", b""), ("a", b"2")), 1_700_000_000_123),
        Outgoing(two, None, b"other", (), 1_700_000_000_000),
        Outgoing(one, b"", b"", (("c", bytes(range(256))),), 5),
        Outgoing(one, b"gone", None, (), 1_700_000_000_124),
        Outgoing(two, bytes(range(256)), b"\0" * 50_000, (), 1_700_000_000_125),
    ]
    assert under.sender().send(sent) == Acknowledged([0, 0, 1, 2, 1], None), "their producer's stamps"
    reads = read_to_end(under.fetcher(one, two, client=under.again), one, two)
    for place in (one, two):
        wanted = [(each.key, each.value, each.headers, each.timestamp) for each in sent if each.place == place]
        records = reads[place].records
        assert [(each.key, each.value, each.headers, each.timestamp) for each in records] == wanted
        assert [each.offset for each in records] == list(range(len(wanted)))
        assert reads[place].next == len(wanted)
    assert under.client.spans([two, one]) == [Span(0, 2, 2), Span(0, 3, 3)]


def check_a_topic_may_stamp_its_records(under: KafkaUnderTest) -> None:
    (place,) = under.topic(message_timestamp_type="LogAppendTime")
    sender = under.sender()
    told = [sender.send([Outgoing(place, None, b"x", (), 5), Outgoing(place, None, b"y")]) for _ in range(2)]
    stamps = [each.timestamp for each in read_to_end(under.fetcher(place), place)[place].records]
    assert 5 < stamps[0] <= stamps[1] <= stamps[2]
    assert [one.stamps for one in told] == [stamps[:2], stamps[2:]], "who sends is told what a fetch says"


def check_nothing_to_send_is_nothing(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    sender = under.sender()
    assert sender.send([]) == Acknowledged([], []) and sender.send(out(place, "a")).offsets == [0]


def check_the_end_is_told_each_time_that_it_is_reached(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    sender, fetcher = under.sender(), under.fetcher(place)
    empty = read_to_end(fetcher, place)[place]
    assert (empty.records, empty.next, empty.ends) == ([], 0, 1)
    assert quiet(fetcher), "it was told already"
    for number in range(3):
        assert sender.send(out(place, f"v{number}")).offsets == [number]
        read = read_to_end(fetcher, place)[place]
        assert (read.values, read.next, read.ends) == ([f"v{number}"], number + 1, 1)
        assert quiet(fetcher)
    fetcher.seek(place, 3)
    again = read_to_end(fetcher, place)[place]
    assert (again.values, again.next) == ([], 3), "told anew after a seek"


def check_a_seek_goes_anywhere_and_drops_what_was_fetched(under: KafkaUnderTest) -> None:
    one, two = under.topic(partitions=2)
    under.sender().send([each for n in range(100) for place in (one, two) for each in out(place, f"{n}")])
    fetcher = under.fetcher(one, two)
    reads: dict[Place, Read] = {}
    while not reads.get(one, Read()).records:
        take(reads, fetcher.fetch(timeout=A_WHILE, records_max=10), records_max=10)
    fetcher.seek(one, 90)
    fetcher.drop(two)
    read = read_to_end(fetcher, one)
    assert read[one].values == [f"{n}" for n in range(90, 100)] and two not in read
    fetcher.seek(one, 0)
    fetcher.seek(one, 50)
    assert read_to_end(fetcher, one)[one].values == [f"{n}" for n in range(50, 100)]
    fetcher.seek(two, 99)
    assert read_to_end(fetcher, two) == {two: Read(read_to_end(under.fetcher(two, at=99), two)[two].records, 100, 1)}
    fetcher.drop(one)
    fetcher.drop(one)
    under.sender().send(out(one, "more"))
    assert quiet(fetcher)


def check_many_records_keep_their_order(under: KafkaUnderTest) -> None:
    places = under.topic(partitions=3)
    fetcher = under.fetcher(*places)
    sent = [Outgoing(places[n % 3], b"%d" % n, b"%d" % n * 20) for n in range(12_000)]
    offsets = under.sender().send(sent).offsets
    assert offsets == [n // 3 for n in range(12_000)]
    reads: dict[Place, Read] = {}
    for _ in range(TRIES_MAX):
        take(reads, fetcher.fetch(timeout=A_WHILE, records_max=1000), records_max=1000)
        if sum(len(each.records) for each in reads.values()) == len(sent):
            break
    for index, place in enumerate(places):
        assert [each.key for each in reads[place].records] == [b"%d" % n for n in range(index, 12_000, 3)]


def check_two_senders_share_a_partition(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    senders = under.sender(), under.sender(client=under.again)
    offsets = [offset for n in range(10) for offset in senders[n % 2].send(out(place, f"{n}a", f"{n}b")).offsets]
    assert offsets == list(range(20))
    assert read_values(under, place) == [f"{n}{letter}" for n in range(10) for letter in "ab"]


def check_fetch_gives_what_is_here_without_waiting(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    assert under.fetcher().fetch(timeout=ZERO) == [] or not under.fetcher().fetch(timeout=NOT_LONG)
    under.sender().send(out(place, "a"))
    fetcher, reads = under.fetcher(place), dict[Place, Read]()
    for _ in range(1_000_000):  # each returns at once
        if take(reads, fetcher.fetch(timeout=ZERO)) and reads[place].records:
            break
    assert reads[place].values == ["a"]


def check_a_record_that_is_too_large_is_refused_with_all_of_its_call(under: KafkaUnderTest) -> None:
    small, default = under.topic("small", max_message_bytes="10000")[0], under.topic("default")[0]
    sender = under.sender()
    with refused("HR-0343"):
        sender.send([*out(small, "a"), Outgoing(small, None, bytes(range(250)) * 80), *out(default, "b")])
    with refused("HR-0343"):
        sender.send([*out(default, "a"), Outgoing(default, None, b"x" * 1_100_000)])
    assert under.client.spans([small, default]) == [Span(0, 0, 0)] * 2, "none was sent"
    assert sender.send([*out(small, "a"), Outgoing(small, None, b"x" * 9_000)]).offsets == [0, 1]
    assert sender.send([Outgoing(default, None, b"x" * 1_000_000)]).offsets == [0]
    many = [Outgoing(small, None, bytes([n]) * 3_000) for n in range(50)]
    assert sender.send(many).offsets == list(range(2, 52)), "many that fit one by one"


# --- transactions ---


def check_a_transaction_is_seen_when_it_is_committed(under: KafkaUnderTest) -> None:
    one, two = under.topic(partitions=2)
    sender, plain, fetcher = under.sender("x"), under.sender(), under.fetcher(one, two)
    plain.send(out(one, "before"))
    sender.begin()
    assert sender.send(out(one, "a") + out(two, "b")).offsets == [1, 0]
    assert sender.send(out(one, "c")).offsets == [2]
    assert plain.send(out(one, "behind")).offsets == [3], "others go on meanwhile"
    read = read_to_end(fetcher, one, two)
    assert read[one].values == ["before"] and read[one].next == 1 and read[two].values == []
    assert quiet(fetcher)
    assert under.client.spans([one, two]) == [Span(0, 1, 4), Span(0, 0, 1)], "an open transaction is seen by its span"
    sender.commit()
    read = read_to_end(fetcher, one, two)
    assert read[one].values == ["a", "c", "behind"] and read[two].values == ["b"]
    spans = under.again.spans([one, two])
    assert [span.end for span in spans] == [span.high for span in spans] == [read[one].next, read[two].next]
    assert spans[0].end == 5 and spans[1].end == 2, "a control record occupies an offset, and is not given"


def check_an_aborted_transaction_is_passed_by(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    sender, fetcher = under.sender("x"), under.fetcher(place)
    assert read_to_end(fetcher, place)[place].next == 0
    sender.begin()
    assert sender.send(out(place, "gone", "too")).offsets == [0, 1]
    sender.abort()
    read = read_to_end(fetcher, place)[place]
    assert (read.values, read.next) == ([], 3) and under.client.spans([place]) == [Span(0, 3, 3)]
    sender.begin()
    assert sender.send(out(place, "stays")).offsets == [3]
    sender.commit()
    read = read_to_end(fetcher, place)[place]
    assert ([each.offset for each in read.records], read.values, read.next) == ([3], ["stays"], 5)
    fetcher.seek(place, 1)
    assert read_to_end(fetcher, place)[place].values == ["stays"], "from the middle of an aborted one"


def check_transactions_follow_one_another(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    sender = under.sender("x")
    kept = []
    for number in range(6):
        sender.begin()
        sender.send(out(place, f"{number}a", f"{number}b"))
        if number % 3 == 2:
            sender.abort()
        else:
            sender.commit()
            kept += [f"{number}a", f"{number}b"]
    sender.begin()
    sender.commit()
    sender.begin()
    sender.abort()
    assert read_values(under, place) == kept


def check_a_newer_sender_fences_the_older(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    older = under.sender("x")
    older.begin()
    older.send(out(place, "of the older"))
    newer = under.sender("x", client=under.again)
    span = under.client.spans([place])[0]
    assert span.end == span.high == 2, "what the older left open is ended"
    with refused("HR-0344"):
        older.commit()
    with refused("HR-0344"):
        older.begin()
    newer.begin()
    newer.send(out(place, "of the newer"))
    newer.commit()
    assert read_values(under, place) == ["of the newer"]


def check_a_fenced_sender_sends_nothing_more(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    older, group = under.sender("x"), under.prefix + "g"
    older.begin()
    older.send(out(place, "first"))
    older.commit()
    newer = under.sender("x", client=under.again)
    with refused("HR-0344"):  # it learns of it by its first call that asks the cluster
        older.begin()
        older.send(out(place, "zombie"))
    for call in (older.begin, older.commit, older.abort, lambda: older.send(out(place, "zombie"))):
        with refused("HR-0344"):
            call()
    third = under.sender("x")
    with refused("HR-0344"):
        newer.begin()
        newer.commit(group=group, offsets={place: GroupOffset(7, "")})
    assert under.client.group_offsets(group, [place]) == {}
    assert read_values(under, place) == ["first"]
    under.sender("other").begin()
    third.begin()
    third.send(out(place, "last"))
    third.commit()
    assert read_values(under, place) == ["first", "last"], "another id fences nobody"


def check_what_a_closed_sender_left_open_is_ended_by_the_next(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    first = under.sender("x")
    first.begin()
    first.send(out(place, "left"))
    first.close()
    under.sender("x").close()
    assert under.client.spans([place]) == [Span(0, 2, 2)] and read_values(under, place) == []


def check_group_offsets_move_with_a_transaction(under: KafkaUnderTest) -> None:
    one, two = under.topic(partitions=2)
    group, other, sender = under.prefix + "g", under.prefix + "h", under.sender("x")
    assert under.client.group_offsets(group, [one, two]) == {}
    sender.begin()
    sender.send(out(one, "a"))
    sender.commit(group=group, offsets={one: GroupOffset(4, "a note: ü"), two: GroupOffset(0, "")})
    wanted = {one: GroupOffset(4, "a note: ü"), two: GroupOffset(0, "")}
    assert under.again.group_offsets(group, [one, two]) == wanted
    assert under.client.group_offsets(group, [two]) == {two: GroupOffset(0, "")}
    sender.begin()
    sender.commit(group=group, offsets={two: GroupOffset(9, "alone")})
    assert under.client.group_offsets(group, [one, two]) == {**wanted, two: GroupOffset(9, "alone")}
    sender.begin()
    sender.commit(group=other, offsets={one: GroupOffset(1, "")})
    assert under.client.group_offsets(group, [one])[one].offset == 4
    assert under.client.group_offsets(other, [one, two]) == {one: GroupOffset(1, "")}
    sender.begin()
    sender.send(out(one, "b"))
    sender.abort()
    assert under.client.group_offsets(group, [one, two])[two].offset == 9
    assert read_values(under, one) == ["a"]


# --- offsets that are not there ---


def check_an_offset_above_the_end_is_truncation(under: KafkaUnderTest) -> None:
    one, two = under.topic(partitions=2)
    under.sender().send(out(one, "a", "b") + out(two, "c"))
    refused_fetch(under.fetcher(one, at=9), "HR-0347")
    fetcher = under.fetcher(one, at=2)
    read = read_to_end(fetcher, one)[one]
    assert (read.values, read.next) == ([], 2), "the end itself is none"
    fetcher.seek(one, 77)
    refused_fetch(fetcher, "HR-0347")
    fetcher.seek(one, 1)
    fetcher.seek(two, 0)
    reads = read_to_end(fetcher, one, two)
    assert reads[one].values == ["b"] and reads[two].values == ["c"], "it goes on after another seek"


def check_an_offset_that_was_retained_away_says_so(under: KafkaUnderTest) -> None:
    if under.trim is None:
        return
    (place,) = under.topic()
    under.sender().send(out(place, *"abcdef"))
    under.trim(place, 4)
    assert under.client.spans([place]) == [Span(4, 6, 6)]
    fetcher = under.fetcher(place, at=3)
    refused_fetch(fetcher, "HR-0303")
    fetcher.seek(place, 4)
    assert read_to_end(fetcher, place)[place].values == ["e", "f"]


# --- topics ---


def check_topics_are_made_found_and_deleted(under: KafkaUnderTest) -> None:
    assert under.client.cluster(under.prefix).topics == {}
    made = under.client.create(under.prefix + "a", partitions=3, settings={"cleanup.policy": "compact"})
    other = under.client.create(under.prefix + "b", partitions=1, settings={})
    seen = under.again.cluster(under.prefix)
    assert seen.topics == {made.name: made, other.name: other} and seen.brokers >= 1
    assert under.client.cluster().id == seen.id and made.name in under.client.cluster().topics
    assert under.client.cluster(under.prefix + "b").topics == {other.name: other}
    with refused("HR-0348"):
        under.again.create(made.name, partitions=3, settings={})
    under.client.delete(made.name)
    assert list(under.client.cluster(under.prefix).topics) == [other.name]
    with refused("HR-0302"):
        under.client.delete(made.name)
    again = under.client.create(made.name, partitions=1, settings={})
    assert again.id != made.id and again.partitions == 1
    place = Place(again.name, 0)
    assert under.client.spans([place]) == [Span(0, 0, 0)] and under.sender().send(out(place, "new")).offsets == [0]
    assert read_values(under, place) == ["new"]


def check_what_is_not_there_says_so(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    for gone in (Place(under.prefix + "none", 0), Place(place.topic, 7)):
        with refused("HR-0302"):
            under.client.spans([place, gone])
        with refused("HR-0302"):
            under.client.spans([gone])
        refused_fetch(under.fetcher(gone), "HR-0302")
        with refused("HR-0302"):
            under.sender().send([*out(gone, "x")])
    assert under.client.spans([]) == []
    assert under.client.group_offsets(under.prefix + "nobody", [place]) == {}
    assert under.client.members(under.prefix + "nobody") == {}


def check_partitions_are_added(under: KafkaUnderTest) -> None:
    (one,) = under.topic()
    sender, fetcher = under.sender(), under.fetcher(one)
    sender.send(out(one, "a"))
    under.client.alter(one.topic, partitions=3, settings={"retention.ms": "-1", "max.message.bytes": "20000"})
    under.client.alter(one.topic, partitions=3, settings={"retention.ms": "-1"})
    under.client.alter(one.topic)
    three = Place(one.topic, 2)
    assert under.again.cluster(under.prefix).topics[one.topic].partitions == 3
    assert sender.send(out(three, "b") + out(one, "c")).offsets == [0, 1]
    fetcher.seek(three, 0)
    reads = read_to_end(fetcher, one, three)
    assert reads[one].values == ["a", "c"] and reads[three].values == ["b"]
    with refused("HR-0302"):
        under.client.alter(under.prefix + "none", partitions=2)


# --- groups that share partitions ---


def settle(members: Mapping[str, Member], places: Sequence[Place]) -> dict[str, Assignment]:
    """Polls all of them until each place has exactly one owner and everyone has some; the owners never overlap for
    longer than a member has not polled."""
    found: dict[str, Assignment] = {}
    for _ in range(TRIES_MAX):
        for name, member in members.items():
            before, now = found.get(name), member.poll(timeout=NOT_LONG)
            assert before is None or (now.epoch > before.epoch) == (now.places != before.places), "an epoch a change"
            found[name] = now
        owned = [place for each in found.values() for place in each.places]
        if sorted(owned) == sorted(places) and all(each.places for each in found.values()):
            return found
    raise AssertionError(f"not settled: {found}")


def check_members_share_and_hand_over(under: KafkaUnderTest) -> None:
    places = under.topic(partitions=4)
    topics, group = [places[0].topic], under.prefix + "g"
    under.sender().send([each for place in places for each in out(place, "nobody is given this")])
    first = under.member("g", topics, name="http://127.0.0.1:8001")
    alone = settle({"first": first}, places)["first"]
    assert alone.places == frozenset(places)
    second = under.member("g", topics, name="http://127.0.0.1:8002", client=under.again)
    both = settle({"first": first, "second": second}, places)
    assert {len(each.places) for each in both.values()} == {2} and both["first"].epoch > alone.epoch
    told = under.client.members(group)
    assert told == {
        **dict.fromkeys(both["first"].places, "http://127.0.0.1:8001"),
        **dict.fromkeys(both["second"].places, "http://127.0.0.1:8002"),
    }
    assert first.poll(timeout=ZERO) == both["first"], "the same as long as nothing changes"
    first.leave()
    assert settle({"second": second}, places)["second"].epoch > both["second"].epoch
    assert set(under.again.members(group).values()) == {"http://127.0.0.1:8002"}
    assert under.client.group_offsets(group, places) == {}, "members commit nothing"
    second.leave()
    assert under.client.members(group) == {}


def check_a_group_of_two_topics(under: KafkaUnderTest) -> None:
    places = under.topic("a", partitions=2) + under.topic("b")
    member = under.member("g", [places[0].topic, places[2].topic])
    assert settle({"one": member}, places)["one"].places == frozenset(places)


# --- closing ---


def check_what_is_closed_may_be_closed_again(under: KafkaUnderTest) -> None:
    (place,) = under.topic()
    sender, fetcher, member = (
        under.client.sender(),
        under.client.fetcher(),
        under.client.member(under.prefix + "g", [place.topic]),
    )
    sender.send(out(place, "a"))
    fetcher.seek(place, 0)
    for _ in range(2):
        sender.close()
        fetcher.close()
        member.leave()
    with refused("HR-0344"):
        sender.send(out(place, "b"))
    assert read_values(under, place) == ["a"]


CHECKS: tuple[Callable[[KafkaUnderTest], None], ...] = tuple(
    check for name, check in sorted(globals().items()) if name.startswith("check_")
)
