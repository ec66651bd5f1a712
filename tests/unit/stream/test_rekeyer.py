"""A re-keyer over a model of a cluster: every event once, in order, whatever fails in between."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace.clients.kafka.port import Outgoing, Place
from headrace.core.codec import partition_of, units
from headrace.core.errors import FencedError, LogError, NotFoundError, UsageError
from headrace.core.points import Cut, Partition
from headrace.core.schema import decimal, field, string
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.port import AVAILABLE_AT, OFFSET, VERDICT, Append, PartitionState, TopicState, Verdict
from headrace.stream.define import derived_topic
from headrace.stream.plan import Passed, SourceCut, writer_name
from headrace.stream.proving import PATIENCE_LOOKS, Proving
from headrace.stream.run import ReKeyer, source_cut
from headrace.testing.fakes import MemoryLog
from headrace.testing.kafka.model_wire import Kind, given_up, unknown
from tests.unit.stream.log import START, Cluster, by_merchant, source

FORMS = pytest.mark.parametrize(
    ("source_form", "form"), [("json", "json"), ("json", "arrow"), ("arrow", "json"), ("arrow", "arrow")]
)


@pytest.fixture
def cluster() -> Cluster:
    of = source()
    return Cluster(of, by_merchant(of))


def carried(rekeyer: ReKeyer) -> None:
    while rekeyer.step():
        pass


def expect_all(cluster: Cluster, *, log: KafkaLog | None = None) -> pa.Table:
    """Every event that counts is there once, in order of each source partition, where its key belongs."""
    reading = cluster.log()
    found = cluster.rows(log)
    expected = set()
    for index in range(cluster.of.partitions):
        for batch in reading.read(cluster.source(index), 0):
            for row in batch.to_pylist():
                if Verdict(row[VERDICT]) in (Verdict.ACCEPTED, Verdict.LATE) and row["merchant_id"] is not None:
                    expected.add((index, row[OFFSET], row["application_id"]))
    rows = found.to_pylist()
    said = [(row["_source_partition"], row["_source_offset"], row["application_id"]) for row in rows]
    assert len(said) == len(set(said)), "one is there twice"
    assert set(said) == expected
    for row in rows:
        assert row["_partition"] == partition_of(row["merchant_id"], cluster.derived.partitions)
    for partition in range(cluster.derived.partitions):
        for index in range(cluster.of.partitions):
            offsets = [
                row["_source_offset"]
                for row in rows
                if row["_partition"] == partition and row["_source_partition"] == index
            ]
            assert offsets == sorted(offsets)
    return found


@FORMS
def test_events_are_carried_over_with_what_the_source_says_of_them(source_form: str, form: str) -> None:
    of = source(payload=source_form)
    cluster = Cluster(of, by_merchant(of, payload=form))
    log = cluster.log()
    cluster.some(0, 30)
    cluster.clock.advance("1m")
    cluster.some(1, 20)
    for index in (0, 1):
        carried(ReKeyer(log, "by_merchant", cluster.source(index)))
    found = expect_all(cluster)
    assert found.num_rows == 50
    by_id = {row["application_id"]: row for row in found.to_pylist()}
    for index in (0, 1):
        for batch in log.read(cluster.source(index), 0):
            for row in batch.to_pylist():
                other = by_id[row["application_id"]]
                assert {name: other[name] for name in row if name != OFFSET} == {n: row[n] for n in row if n != OFFSET}
                assert other["_source_incarnation"] == 1
    assert cluster.rows(log).equals(found), "who followed it reads the same as who comes new"


@FORMS
def test_old_rows_are_read_again_as_they_were(source_form: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.log.kafka_feed.TAIL_ROWS_MAX", 8)
    of = source(payload=source_form)
    cluster = Cluster(of, by_merchant(of, payload=form))
    log = cluster.log()
    rekeyer = ReKeyer(log, "by_merchant", cluster.source())
    for _ in range(6):
        cluster.some(0, 9)
        carried(rekeyer)
        cluster.rows(log)
    assert cluster.rows(log).equals(expect_all(cluster))


def test_the_source_says_what_is_a_duplicate_late_or_set_aside(cluster: Cluster) -> None:
    customer = next(n for n in range(99) if partition_of(n, 2) == 0)
    other = next(n for n in range(99) if partition_of(n, 2) == 1)
    twice = cluster.event(customer=customer, merchant=1)
    cluster.append(
        0,
        [
            twice,
            twice,
            (*twice[:3], 77, twice[4]),
            cluster.event(customer=customer, merchant=2, id="late", late="30d"),
            cluster.event(customer=customer, merchant=2, ahead="1h"),
            cluster.event(customer=other, merchant=2),
            cluster.event(customer=customer, merchant=None),
        ],
    )
    rekeyer = ReKeyer(cluster.log(), "by_merchant", cluster.source())
    carried(rekeyer)
    found = {row["application_id"]: Verdict(row[VERDICT]) for row in expect_all(cluster).to_pylist()}
    assert found == {twice[0]: Verdict.ACCEPTED, "late": Verdict.LATE}
    assert rekeyer.counts.left_out == {"duplicate": 1, "conflict": 1, "ahead": 1, "misplaced": 1, "null_key": 1}
    assert rekeyer.counts.rows == 2


def test_foreign_partitioning_is_set_right(cluster: Cluster) -> None:
    of = source(partitioning="foreign")
    cluster = Cluster(of, by_merchant(of))
    cluster.append(0, [cluster.event(customer=n, merchant=n % 3) for n in range(20)])
    carried(ReKeyer(cluster.log(), "by_merchant", cluster.source()))
    assert expect_all(cluster).num_rows == 20


def test_times_are_inherited_without_a_running_maximum(cluster: Cluster) -> None:
    log = cluster.log()
    cluster.some(0, 5)
    cluster.clock.advance("1h")
    cluster.some(1, 5)
    carried(ReKeyer(log, "by_merchant", cluster.source(1)))
    carried(ReKeyer(log, "by_merchant", cluster.source(0)))
    found = cluster.rows()
    early = found.filter(pa.array([index == 0 for index in found.column("_source_partition").to_pylist()]))
    assert max(units(early.column(AVAILABLE_AT).combine_chunks())) < START + 3_600_000_000
    state = next(s for s in log.topics() if s.topic.name == "by_merchant")
    cluster.rows(log)
    state = next(s for s in log.topics() if s.topic.name == "by_merchant")
    for held in state.partitions:
        assert held.available_at < START + 3_600_000_000, "the horizon is the slowest source's"


def test_transactions_are_bounded(cluster: Cluster) -> None:
    cluster.some(0, 25)
    rekeyer = ReKeyer(cluster.log(), "by_merchant", cluster.source(), rows_max=10)
    assert [rekeyer.step() for _ in range(4)] == [True, True, True, False]
    assert rekeyer.counts.transactions == 3
    expect_all(cluster)


# --- what fails ---


def test_a_successor_goes_on_where_the_last_one_got_to(cluster: Cluster) -> None:
    cluster.some(0, 25)
    first = ReKeyer(cluster.log(), "by_merchant", cluster.source(), rows_max=10)
    first.step()
    second = ReKeyer(cluster.log(), "by_merchant", cluster.source(), rows_max=10)
    assert second.at == first.at
    carried(second)
    assert second.counts.rows == 15
    expect_all(cluster)


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.OFFSETS, Kind.COMMIT])
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_dies_in_a_transaction_leaves_nothing_half(cluster: Cluster, kind: Kind, when: str) -> None:
    """Before or after the cluster took the batch, or the end."""

    class Gone(BaseException):
        """The process is."""

    wire = cluster.wire()
    cluster.some(0, 25)
    first = ReKeyer(cluster.log(wire), "by_merchant", cluster.source(), rows_max=10)
    first.step()
    wire.fail(kind, when, Gone)  # type: ignore[arg-type]  # no error of the cluster, its end
    with pytest.raises(Gone):
        first.step()
    before = cluster.rows().num_rows
    assert before == (20 if (kind, when) == (Kind.COMMIT, "after") else 10), "an open transaction is not seen"
    second = ReKeyer(cluster.log(), "by_merchant", cluster.source())
    carried(second)
    expect_all(cluster)


def test_a_zombie_is_fenced_and_nothing_of_it_counts(cluster: Cluster) -> None:
    wire = cluster.wire()
    log = cluster.log(wire)
    cluster.some(0, 25)
    zombie = ReKeyer(log, "by_merchant", cluster.source(), rows_max=10)
    zombie.step()
    successors: list[ReKeyer] = []

    def overtaken(kind: Kind) -> None:
        """While it was paused between its batch and the transaction's end."""
        if kind is Kind.COMMIT and not successors:
            successors.append(ReKeyer(cluster.log(), "by_merchant", cluster.source()))
            carried(successors[0])

    wire.at = overtaken
    with pytest.raises(FencedError):
        zombie.step()
    with pytest.raises(FencedError):
        zombie.step()
    assert successors[0].counts.rows == 15
    expect_all(cluster)


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.OFFSETS, Kind.COMMIT])
def test_a_transaction_that_must_be_given_up_is_done_again(cluster: Cluster, kind: Kind) -> None:
    wire = cluster.wire()
    cluster.some(0, 25)
    rekeyer = ReKeyer(cluster.log(wire), "by_merchant", cluster.source(), rows_max=10)
    rekeyer.step()
    wire.fail(kind, "before", lambda: given_up("the coordinator moves"))
    carried(rekeyer)
    assert rekeyer.counts.aborts == 1
    assert rekeyer.counts.rows == 25
    expect_all(cluster)


def test_one_that_is_given_up_again_and_again_is_told(cluster: Cluster) -> None:
    wire = cluster.wire()
    cluster.some(0, 5)
    rekeyer = ReKeyer(cluster.log(wire), "by_merchant", cluster.source())
    wire.at = lambda kind: wire.fail(Kind.COMMIT, "before", lambda: given_up("always"))
    with pytest.raises(LogError) as raised:
        for _ in range(100):
            rekeyer.step()
    assert raised.value.code == "HR-0345"


@pytest.mark.parametrize("when", ["before", "after"])
def test_after_an_unknown_end_the_next_of_the_name_finds_out(cluster: Cluster, when: str) -> None:
    wire = cluster.wire()
    cluster.some(0, 25)
    first = ReKeyer(cluster.log(wire), "by_merchant", cluster.source(), rows_max=10)
    wire.fail(Kind.COMMIT, when, lambda: unknown("the end"))
    with pytest.raises(LogError) as raised:
        first.step()
    assert raised.value.code == "HR-0311"
    first.close()
    second = ReKeyer(cluster.log(), "by_merchant", cluster.source(), rows_max=10)
    carried(second)
    assert second.counts.rows == (25 if when == "before" else 15)
    expect_all(cluster)


def test_a_transaction_that_took_too_long_is_done_again_or_fenced(cluster: Cluster) -> None:
    """The process was stopped for longer than the coordinator waits."""
    wire = cluster.wire()
    cluster.some(0, 25)
    paused = ReKeyer(cluster.log(wire), "by_merchant", cluster.source(), rows_max=10)
    paused.step()
    slept: list[Kind] = []

    def sleep(kind: Kind) -> None:
        if kind is Kind.COMMIT and not slept:
            slept.append(kind)
            cluster.clock.advance("1m")
            cluster.model.settle()

    wire.at = sleep
    try:
        carried(paused)
    except FencedError:
        carried(ReKeyer(cluster.log(), "by_merchant", cluster.source()))
    expect_all(cluster)


def test_offsets_that_the_cluster_forgot_are_found_in_the_derived_topic(cluster: Cluster) -> None:
    cluster.some(0, 25)
    carried(ReKeyer(cluster.log(), "by_merchant", cluster.source(), rows_max=10))
    for group in cluster.model.groups.values():
        group.offsets.clear()
    cluster.some(0, 10)
    second = ReKeyer(cluster.log(), "by_merchant", cluster.source())
    assert second.at > 0
    carried(second)
    assert second.counts.rows == 10
    expect_all(cluster)


def test_events_that_were_deleted_before_they_were_carried_are_told() -> None:
    of = source(retention="1d")
    cluster = Cluster(of, by_merchant(of))
    cluster.some(0, 25)
    carried(ReKeyer(cluster.log(), "by_merchant", cluster.source()))
    cluster.some(0, 25)
    cluster.model.retain(Place("t.applications", 0), 40)
    with pytest.raises(LogError) as raised:
        carried(ReKeyer(cluster.log(), "by_merchant", cluster.source()))
    assert raised.value.code == "HR-0303"


# --- definitions that change ---


def with_channel(of: Topic) -> Topic:
    fields = {f.name: f for f in of.schema} | {"channel": field(string)}
    return Topic(
        of.name, key=of.key, id=of.id, event_time=of.event_time, partitions=of.partitions, payload=of.payload,
        fields=fields,
    )  # fmt: skip


@FORMS
def test_a_field_that_is_added_is_carried_once_both_have_it(source_form: str, form: str) -> None:
    of = source(payload=source_form)
    cluster = Cluster(of, by_merchant(of, payload=form))
    rekeyer = ReKeyer(cluster.log(), "by_merchant", cluster.source())
    cluster.some(0, 5)
    carried(rekeyer)
    changed = with_channel(cluster.of)
    cluster.writing.declare(changed)
    cluster.append(0, [(*cluster.event(customer=_customer(0), merchant=1), "web")])
    with pytest.raises(LogError) as raised:
        carried(rekeyer)
    assert raised.value.code == "HR-0365"
    assert cluster.rows().num_rows == 5
    rekeyer.close()
    cluster.derived = by_merchant(changed, payload=form)
    cluster.writing.declare(cluster.derived)
    second = ReKeyer(cluster.log(), "by_merchant", cluster.source())
    carried(second)
    found = expect_all(cluster)
    assert sorted(found.column("channel").to_pylist(), key=str) == [None] * 5 + ["web"]


def test_a_source_that_allows_less_now_loses_nothing(cluster: Cluster) -> None:
    """What an older version allowed lies in the source, and is carried after the definition narrowed."""
    cluster.some(0, 10)
    fields = {f.name: f for f in cluster.of.schema} | {"amount": field(decimal(12, 2), maximum=3)}
    narrowed = Topic(
        "applications", key="customer_id", id="application_id", event_time="created_at", partitions=2, fields=fields
    )
    cluster.writing.declare(narrowed)
    cluster.writing.declare(by_merchant(narrowed))
    carried(ReKeyer(cluster.log(), "by_merchant", cluster.source()))
    assert expect_all(cluster).num_rows == 10


def test_more_partitions_take_the_events_that_come_after(cluster: Cluster) -> None:
    cluster.some(0, 10)
    rekeyer = ReKeyer(cluster.log(), "by_merchant", cluster.source())
    carried(rekeyer)
    cluster.derived = by_merchant(cluster.of, partitions=5)
    cluster.writing.declare(cluster.derived)
    cluster.some(0, 10)
    carried(ReKeyer(cluster.log(), "by_merchant", cluster.source()))
    assert cluster.rows().num_rows == 20


def test_a_source_that_was_made_anew_is_another(cluster: Cluster) -> None:
    cluster.some(0, 5)
    cluster.writing.drop("applications")
    cluster.writing.declare(cluster.of)
    for incarnation in (1, 2):
        with pytest.raises(LogError) as raised:
            ReKeyer(cluster.log(), "by_merchant", Partition("applications", incarnation, 0))
        assert raised.value.code == "HR-0363"


def test_an_import_is_carried_like_any_partition(cluster: Cluster) -> None:
    log = cluster.log()
    (first, _) = log.import_partitions("applications", "history")
    rows = [cluster.event(customer=_customer(0), merchant=n % 4, late="2d") for n in range(12)]
    times = np.array([START - 86_400_000_000 + n for n in range(12)], np.int64)
    log.append([Append(partition=first.partition, rows=rows, available_at=times)])  # type: ignore[arg-type]  # physical
    log.import_partitions("applications", "history", seal=True)
    carried(ReKeyer(log, "by_merchant", first.partition))
    found = cluster.rows()
    assert found.num_rows == 12
    assert set(found.column("_source_partition").to_pylist()) == {first.partition.index}
    assert sorted(units(found.column(AVAILABLE_AT).combine_chunks()).tolist()) == times.tolist()


# --- who may write, and where ---


def test_nobody_else_appends_to_a_derived_topic_or_imports_into_it(cluster: Cluster) -> None:
    held = cluster.state().partitions[0]
    row = cluster.event(customer=1, merchant=1)
    with pytest.raises(LogError) as raised:
        cluster.writing.append([Append(partition=held.partition, rows=[row])])  # type: ignore[list-item]  # physical
    assert raised.value.code == "HR-0360"
    with pytest.raises(LogError) as raised:
        cluster.writing.import_partitions("by_merchant", "history")
    assert raised.value.code == "HR-0360"


def test_a_record_that_no_rekeyer_wrote_is_no_event(cluster: Cluster) -> None:
    value = b'{"application_id":"x","customer_id":1,"merchant_id":1,"created_at":"2026-11-21T10:00:00Z"}'
    sender = cluster.writing.client.sender()
    place = Place("t.by_merchant", 0)
    headers = [(), (("headrace-source", b"short"),), (("headrace-source", bytes([0] * 16 + [2] + [0] * 16)),)]
    sender.send([Outgoing(place, b"1", value, said) for said in headers])
    log = cluster.log()
    assert cluster.rows(log).num_rows == 0
    (feed,) = [feed for partition, feed in log._following.feeds.items() if partition.index == 0]
    assert [(each.place, each.code) for each in feed.unreadable] == [(n, "HR-0364") for n in range(3)]


def test_a_topic_is_derived_of_what_is_in_the_log(cluster: Cluster) -> None:
    other = Topic("other", key="customer_id", fields={f.name: f for f in cluster.of.schema})
    with pytest.raises(LogError) as raised:
        cluster.writing.declare(derived_topic("by_other", of=other, key="merchant_id"))
    assert raised.value.code == "HR-0362"
    assert "t.by_other" not in cluster.model.topics


def test_what_a_topic_is_derived_of_does_not_change(cluster: Cluster) -> None:
    plain = Topic(
        "by_merchant", key="merchant_id", id="application_id", event_time="created_at", partitions=3,
        fields={f.name: f for f in cluster.of.schema},
    )  # fmt: skip
    with pytest.raises(LogError) as raised:
        cluster.writing.declare(plain)
    assert raised.value.code == "HR-0310"


def test_a_rekeyer_needs_a_derived_topic(cluster: Cluster) -> None:
    with pytest.raises(NotFoundError):
        ReKeyer(cluster.log(), "applications", cluster.source())


def test_a_log_of_one_process_has_no_derived_topics(cluster: Cluster) -> None:
    with pytest.raises(UsageError) as raised:
        MemoryLog(clock=cluster.clock).exclusive("x")
    assert raised.value.code == "HR-0366"


# --- source cuts ---


def test_source_cuts_are_folded_and_proven(cluster: Cluster) -> None:
    log = cluster.log()
    cluster.some(0, 9)
    cluster.some(1, 4)
    # the last of a partition is not carried: no derived row says that it was looked at
    cluster.append(0, [cluster.event(customer=_customer(0), merchant=None)])
    for index in (0, 1):
        carried(ReKeyer(log, "by_merchant", cluster.source(index)))
    sources = [cluster.source(0), cluster.source(1)]
    proof = passed(cluster, Proving(log, "by_merchant"))
    assert proof.cut == Cut.of({sources[0]: 10, sources[1]: 4})
    reading = cluster.log()
    for held in cluster.state().partitions:
        folded = SourceCut(of="applications")
        index = held.partition.index
        for batch in reading.read(held.partition, 0, end=proof.ends[index]):
            folded = folded.after(batch)
        assert folded.proven(proof, index).cut == folded.cut, "what ends the last transaction is not read yet"
        assert folded.through(proof.ends[index]).proven(proof, index).cut == proof.cut
        assert folded.cut[sources[0]] <= 9
    assert source_cut(log, cluster.state()) == Cut.of({sources[0]: 9, sources[1]: 4})


def test_what_is_read_before_the_end_proves_nothing_that_comes_after(cluster: Cluster) -> None:
    """Committed offsets first, then ends: between the two a writer goes on."""
    log = cluster.log()
    cluster.some(0, 9)
    rekeyer = ReKeyer(log, "by_merchant", cluster.source())
    carried(rekeyer)
    name = writer_name(cluster.derived, 1, cluster.source())
    committed = log.group(name)
    cluster.some(0, 9)
    carried(rekeyer)
    assert committed[cluster.source()] == 9
    assert passed(cluster, Proving(log, "by_merchant")).cut[cluster.source()] == 18


def test_a_cut_is_not_proven_while_another_writers_transaction_holds_the_end_back(cluster: Cluster) -> None:
    """It began before, so the stable end lies below what this writer has committed since."""
    wire = cluster.wire()
    cluster.some(0, 9)
    cluster.some(1, 9)
    slow = ReKeyer(cluster.log(wire), "by_merchant", cluster.source(1))
    reading = cluster.log()
    sources = [cluster.source(0), cluster.source(1)]
    seen: list[int] = []

    def meanwhile(kind: Kind) -> None:
        if kind is Kind.OFFSETS and not seen:
            carried(ReKeyer(cluster.log(), "by_merchant", sources[0]))
            proof = passed(cluster, Proving(reading, "by_merchant"))
            assert proof.cut == Cut.of({sources[0]: 9})
            for held in _derived(reading).partitions:
                folded = _folded(reading, held)
                assert folded.proven(proof, held.partition.index).cut == folded.cut
                assert sources[0] not in dict(folded.cut)
                seen.append(proof.ends[held.partition.index])

    wire.at = meanwhile
    carried(slow)
    assert seen and all(seen)
    proof = passed(cluster, Proving(reading, "by_merchant"))
    for held in _derived(reading).partitions:
        assert _folded(reading, held).proven(proof, held.partition.index).cut == Cut.of({sources[0]: 9, sources[1]: 9})


def passed(cluster: Cluster, proving: Proving) -> Passed:
    """Where writers stand, after as many looks as it waits for them."""
    found = None
    for _ in range(PATIENCE_LOOKS):
        found = proving.look(cluster.clock.now())
    assert found is not None
    return found


def _derived(log: KafkaLog) -> TopicState:
    return next(state for state in log.topics() if state.topic.name == "by_merchant")


def _folded(log: KafkaLog, held: PartitionState) -> SourceCut:
    folded = SourceCut(of="applications")
    for batch in log.read(held.partition, 0, end=held.end):
        folded = folded.after(batch)
    return folded.through(held.end)


def _customer(index: int) -> int:
    return next(n for n in range(99) if partition_of(n, 2) == index)
