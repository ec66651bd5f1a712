"""Over a model of a cluster: a process that begins where another was reads every row, older ones too, to the same bits
as one that read everything. What does not fit is passed over."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import Outgoing, Place
from headrace.core.codec import partition_of
from headrace.core.points import Cut, Partition
from headrace.core.times import Duration, Instant
from headrace.features import checkpoint
from headrace.features.checkpoint_folder import FolderCheckpoints
from headrace.features.define import FeatureView
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.define import Topic
from headrace.log.kafka import KafkaLog
from headrace.log.port import VERDICT, Append, Verdict
from headrace.testing.clocks import ManualClock
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient
from tests.examples import examples

START = Instant(1_800_000_000_000_000)
SECOND = 1_000_000
PARTITIONS = 2
CUSTOMERS = 6
PRINTS = {"pace": "1"}


def orders(form: str, text_id: bool, *, more: bool = False, dedup: str = "20s", max_late: str = "8s") -> Topic:
    fields = {"id": hr.string if text_id else hr.int64, "customer": hr.int64, "at": hr.timestamp, "amount": hr.int64}
    if more:
        fields["channel"] = hr.string
    return hr.Topic(
        "orders", key="customer", id="id", event_time="at", partitions=PARTITIONS, retention="400d", payload=form,
        fields=fields, dedup=dedup, max_late=max_late, max_ahead="3s", skew="2s",
    )  # fmt: skip


class Shop:
    """One cluster, one topic, and what happens to it."""

    def __init__(self, seed: int, form: str, text_id: bool) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock(START)
        self.model = KafkaModel(self.clock, skews=(0, -4 * SECOND, 5 * SECOND))
        self.form, self.text_id = form, text_id
        self.topic = orders(form, text_id)
        self.writing = self.log()
        self.writing.declare(self.topic)
        self.ids = 0

    def log(self, model: KafkaModel | None = None) -> KafkaLog:
        return KafkaLog(ModelClient(model or self.model), settings=KafkaSettings(bootstrap="model:1"), clock=self.clock)

    def partition(self, index: int) -> Partition:
        return Partition("orders", 1, index)

    def row(self, index: int) -> tuple[object, ...]:
        draw = self.random
        if self.ids and draw.random() < 0.4:  # one that comes again, or another with its id
            number = self.ids - draw.randrange(min(self.ids, 12))
        else:
            self.ids += 1
            number = self.ids
        here = index if draw.random() < 0.9 else 1 - index
        customer = [n for n in range(99) if partition_of(n, PARTITIONS) == here][number % CUSTOMERS]
        at = START + number * SECOND // 2 if draw.random() < 0.8 else self.clock.now() + draw.randint(-15, 6) * SECOND
        said = (f"o{number}" if self.text_id else number, customer, at, number % 5 + draw.choice([0, 0, 0, 1]))
        return (*said, draw.choice([None, "web"])) if "channel" in self.topic.schema.names else said

    def step(self) -> None:
        draw, index = self.random, self.random.randrange(PARTITIONS)
        place = Place("orders", index)
        match draw.choice(["rows"] * 8 + ["pass"] * 3 + ["bad", "aborted", "leader", "define"]):
            case "rows":
                rows = [self.row(index) for _ in range(draw.choice([1, 1, 2, 5, 12]))]
                one = Append(partition=self.partition(index), rows=rows, request=draw.random() < 0.3)  # type: ignore[arg-type]  # physical values
                self.writing.append([one], atomic=draw.random() < 0.3)
            case "pass":
                self.clock.advance(Duration(draw.choice([1, 3, 9, 25]) * SECOND))
            case "bad":
                self.writing.client.sender().send([Outgoing(place, b"x", b"{")])
            case "aborted":
                sender = self.writing.client.sender(transactional_id="another")
                sender.begin()
                sender.send([Outgoing(place, b"x", b"{}")])
                sender.abort()
            case "leader":
                self.model.move_leader(place)
            case "define":
                more = draw.random() < 0.5 or "channel" in self.topic.schema.names
                law = {"dedup": draw.choice(["20s", "12s", "40s"]), "max_late": draw.choice(["8s", "4s", "30s"])}
                self.topic = orders(self.form, self.text_id, more=more, **law)
                self.writing.declare(self.topic)

    def view(self) -> FeatureView:
        first = orders(self.form, self.text_id)
        return hr.FeatureView(
            "pace", entity="customer", source=first,
            features=[hr.count().over("10s", "60s"), hr.sum(first.amount).over("30s")],
        )  # fmt: skip

    def state(self, log: KafkaLog, folder: Path | None) -> FeatureState:
        """Of a process: from the checkpoint of another, if there is one, and the log."""
        plans = [ViewPlan.compile(self.view(), {})]
        found = None
        if folder is not None:
            store = FolderCheckpoints(folder)
            found = checkpoint.restore_whole(plans, store, fingerprints=PRINTS, held=log.topics())
        if found is not None:
            assert log.resume(found.extra) == len(found.state.feeds)
        state = FeatureState(plans) if found is None else found.state
        state.catch_up(log)
        return state


def rows(log: KafkaLog, index: int, at: int = 0) -> list[dict[str, object]]:
    batches = list(log.read(Partition("orders", 1, index), at))
    return pa.Table.from_batches(batches).to_pylist() if batches else []


@pytest.mark.parametrize("form", ["json", "arrow"])
@examples(40)
@given(
    seed=st.integers(0, 2**32 - 1),
    text_id=st.booleans(),
    before=st.integers(0, 40),
    between=st.integers(0, 12),
    after=st.integers(0, 30),
)
def test_who_begins_where_another_was_reads_what_who_read_everything_reads(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    seed: int,
    text_id: bool,
    before: int,
    between: int,
    after: int,
) -> None:
    """The second that writes a checkpoint began at the first one's."""
    with pytest.MonkeyPatch.context() as bounds:
        bounds.setattr("headrace.log.kafka_feed.MARK_RECORDS", 4)
        bounds.setattr("headrace.log.kafka_feed.TAIL_ROWS_MAX", 8)
        bounds.setattr("headrace.log.plan.SEGMENT_IDS", 8)
        bounds.setattr("headrace.log.judge_file.SEGMENT_IDS", 8)
        shop = Shop(seed, form, text_id)
        folder = tmp_path_factory.mktemp("checkpoints")
        cuts = []
        for steps in (before, between):
            for _ in range(steps):
                shop.step()
            log = shop.log()
            state = shop.state(log, folder)
            if shop.random.random() < 0.5:  # its judge is ahead of what its state has read
                shop.step()
                log.wait(Cut.of({shop.partition(0): 2**40}), timeout=Duration(0))
            cuts.append(state.frontier)
            checkpoint.write(state, folder, fingerprints=PRINTS, extra=log.kept(state.frontier))
        for _ in range(after):
            shop.step()
        whole, resumed = shop.log(), shop.log()
        wanted, found = shop.state(whole, None), shop.state(resumed, folder)
        assert found.frontier == wanted.frontier
        for index in range(PARTITIONS):
            partition = shop.partition(index)
            every = rows(whole, index)
            for cut in cuts:
                at = dict(cut).get(partition, 0)
                assert rows(resumed, index, at) == [row for row in every if row["_offset"] >= at]
            assert rows(resumed, index) == every, "an older row is found again as it was"
            one, other = whole._following.feeds[partition], resumed._following.feeds[partition]
            assert (one.next, one.end, one.available_at, one.version) == (
                other.next, other.end, other.available_at, other.version,
            )  # fmt: skip
            assert one.unreadable_count == other.unreadable_count and one._by_id == other._by_id
        t = max([START, *(state.available_at for s in whole.topics() for state in s.partitions)])
        for customer in range(99):
            assert found.read("pace", customer, t) == wanted.read("pace", customer, t)


# --- what does not fit ---


@pytest.fixture
def shop() -> Shop:
    made = Shop(5, "json", False)
    for _ in range(60):
        made.step()
    return made


def kept(shop: Shop) -> Mapping[str, bytes]:
    log = shop.log()
    return log.kept(shop.state(log, None).frontier)


def refused(log: KafkaLog, files: Mapping[str, bytes], caplog: pytest.LogCaptureFixture) -> list[str]:
    """The codes of the lines that say so."""
    with caplog.at_level(logging.WARNING, "headrace.log.kafka_resume"):
        assert log.resume(files) == 0
    return [record.code for record in caplog.records if record.name == "headrace.log.kafka_resume"]


def test_histories_hold_what_they_are_to_hold(shop: Shop) -> None:
    found = {Verdict(row[VERDICT]) for index in range(PARTITIONS) for row in rows(shop.log(), index)}
    assert found >= {Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.LATE, Verdict.AHEAD,
                     Verdict.MISPLACED}  # fmt: skip
    log = shop.log()
    assert shop.state(log, None) and sum(feed.unreadable_count for feed in log._following.feeds.values()) > 0


def test_files_that_are_not_what_was_written_are_passed_over(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    files = {name: body[:-9] for name, body in kept(shop).items()}
    log = shop.log()
    assert refused(log, files, caplog) == ["HR-0551"] * PARTITIONS
    assert rows(log, 0) == rows(shop.log(), 0)


def test_files_of_another_format_are_passed_over(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as bounds:
        bounds.setattr("headrace.log.judge_file.FORMAT", 9)
        files = kept(shop)
    assert refused(shop.log(), files, caplog) == ["HR-0550"] * PARTITIONS


def test_files_of_another_cluster_are_passed_over(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    another = KafkaModel(shop.clock, id="another")
    shop.log(another).declare(shop.topic)
    assert refused(shop.log(another), kept(shop), caplog) == ["HR-0550"] * PARTITIONS


def test_files_of_a_topic_that_was_made_anew_are_passed_over(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    files = kept(shop)
    shop.writing.drop("orders")
    assert refused(shop.log(), files, caplog) == ["HR-0302"] * PARTITIONS
    caplog.clear()
    shop.writing.declare(shop.topic)
    assert refused(shop.log(), files, caplog) == ["HR-0302"] * PARTITIONS
    renamed = {name.replace(".1.", ".2."): body for name, body in files.items()}
    caplog.clear()
    assert refused(shop.log(), renamed, caplog) == ["HR-0550"] * PARTITIONS


def test_files_of_more_than_the_log_has_are_passed_over(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    files, place = kept(shop), Place("orders", 0)
    shop.model.truncate(place, shop.model.partition(place).end - 3)
    log = shop.log()
    with caplog.at_level(logging.WARNING, "headrace.log.kafka_resume"):
        assert log.resume(files) == 1
    assert [record.code for record in caplog.records] == ["HR-0568"]
    assert rows(log, 0) == rows(shop.log(), 0) and rows(log, 1) == rows(shop.log(), 1)


def test_files_from_before_what_the_log_keeps_are_passed_over(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    files = kept(shop)
    for index in range(PARTITIONS):
        shop.writing.append([Append(partition=shop.partition(index), rows=[shop.row(index), shop.row(index)])])  # type: ignore[list-item]  # physical values
        place = Place("orders", index)
        shop.model.retain(place, shop.model.partition(place).end - 1)
    assert refused(shop.log(), files, caplog) == ["HR-0568"] * PARTITIONS


def test_what_is_followed_already_goes_on_as_it_is(shop: Shop) -> None:
    log = shop.log()
    before = rows(log, 0)
    assert log.resume({**kept(shop), "judge.orders.x.0": b"", "another": b"", "judge.orders": b""}) == 1
    assert rows(log, 0) == before and rows(log, 1) == rows(shop.log(), 1)
