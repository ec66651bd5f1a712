"""Training sets: which rows enter, their labels as the oracle has them, building again, the hash, late data."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.core import schema
from headrace.core.codec import instants, physical_array
from headrace.core.errors import SchemaError
from headrace.core.expr import hour, to_expr
from headrace.core.points import Cut, Partition
from headrace.core.times import Instant
from headrace.features.plan import ViewPlan
from headrace.features.replay import replay
from headrace.features.replay_log import Events
from headrace.features.replay_rows import Rows
from headrace.features.training import Asked, build, late_data_impact
from headrace.features.training_files import MANIFEST_FILE, ROWS_FILE, TrainingSet, content_hash, write
from headrace.features.training_labels import training_labels
from headrace.log.define import Topic
from headrace.log.port import TAKEN, Verdict
from headrace.testing.agreement import physical_values, tables
from headrace.testing.generate import SECOND, story
from headrace.testing.oracles import Owners, Seen, training_label, truth_of

DAY = 86_400_000_000

requests = Topic(
    "requests",
    key="customer",
    id="request",
    event_time="at",
    fields={
        "request": schema.int64,
        "customer": schema.int64,
        "amount": schema.decimal(9, 2),
        "channel": schema.string,
        "at": schema.timestamp,
        "bad": schema.field(schema.boolean, available_after="2d"),
    },
)
chargebacks = Topic(
    "chargebacks", key="request", event_time="at", fields={"request": schema.int64, "at": schema.timestamp}
)
label = hr.Label("charged", of=requests, source=chargebacks, on="request", within="3d", grace="1d")
view = hr.FeatureView(
    "activity",
    entity="customer",
    source=requests,
    features=[hr.count().over("2d"), hr.sum(requests.amount).over("2d"), hr.last_n(requests.channel, 2)],
)
LIVE, BACKS = Partition("requests", 1, 0), Partition("chargebacks", 1, 0)
INPUTS = (
    ("amount", to_expr(requests.amount)),
    ("hour", hour(requests.at)),
    *((f"activity.{feature.name}", feature.expression) for feature in view.features),
    ("share", requests.amount / view["sum_amount_2d"]),
)


def rows(topic, values, *, delay=0, verdicts=None):
    """Rows of physical values, available `delay` after their time, which is their field `at`."""
    names = topic.schema.names
    at = np.array([value[names.index("at")] for value in values], np.int64)
    columns = {name: [value[i] for value in values] for i, name in enumerate(names)}
    fields = {name: physical_array(columns[name], topic.schema[name].type) for name in names}
    verdicts = np.zeros(len(values), np.uint8) if verdicts is None else np.array(verdicts, np.uint8)
    return pa.table(
        {
            "_offset": pa.array(np.arange(len(values))),
            "_available_at": instants(np.maximum.accumulate(at + delay)),
            "_event_time": instants(at),
            "_verdict": pa.array(verdicts),
            **fields,
        }
    )


WIDE_VIEW = hr.FeatureView("wide", entity="channel", source=requests, features=[hr.count().lifetime()])
WIDE = ViewPlan.compile(WIDE_VIEW, {})
WIDE_INPUTS = (("n", WIDE_VIEW.features[0].expression),)

REQUESTS = [(i, i % 2, 100 + i, "web" if i % 3 else None, i * DAY, None) for i in range(10)]
CHARGED = [(0, 1 * DAY), (2, 2 * DAY + 3 * DAY), (3, 7 * DAY), (8, 8 * DAY), (4, 4 * DAY - 1)]


def log(count=10, charged=CHARGED, verdicts=None):
    return Events(
        [requests, chargebacks],
        {LIVE: rows(requests, REQUESTS[:count]), BACKS: rows(chargebacks, charged, verdicts=verdicts)},
    )


def asked(**more):
    given = {"name": "charged", "topic": "requests", "inputs": INPUTS, "label": label, "t_label": Instant(10 * DAY)}
    return Asked(**{**given, "fingerprints": {"activity": "f00d"}, **more})


def plans():
    return [ViewPlan.compile(view, {})]


def test_a_row_enters_when_its_label_has_matured_whatever_the_label() -> None:
    made = build(asked(), plans(), log())
    assert made.table.column("request").to_pylist() == [0, 1, 2, 3, 4, 5, 6]  # 8 is charged, and young
    assert made.table.column("charged").to_pylist() == [True, False, True, False, False, False, False]
    manifest = made.manifest
    assert (manifest.rows, manifest.immature, manifest.positives, manifest.unlabelled) == (7, 3, 2, 0)
    assert (manifest.served, manifest.available, manifest.mixed) == (0, 7, 0)


def test_label_events_that_came_late_count_and_others_set_aside_do_not() -> None:
    verdicts = [Verdict.LATE, Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.AHEAD, 0]
    made = build(asked(), plans(), log(verdicts=verdicts))
    assert made.table.column("charged").to_pylist() == [True, False, False, False, False, False, False]


def test_inputs_are_fields_features_and_expressions_over_both() -> None:
    made = build(asked(), plans(), log()).table
    assert made.column_names == ["request", "_event_time", *(name for name, _ in INPUTS), "charged"]
    events = log()
    features = replay(plans(), events, Rows.logged(events, "requests"), kind="available").slice(0, 7)
    for feature in view.features:
        assert made.column(f"activity.{feature.name}").equals(features.column(feature.name))
    sums = features.column("sum_amount_2d").to_pylist()
    amounts = made.column("amount").to_pylist()
    assert made.column("share").to_pylist() == [float(a) / float(s) for a, s in zip(amounts, sums, strict=True)]


def test_building_again_at_the_same_cut_gives_the_same_rows_whatever_came_since() -> None:
    first = build(asked(), plans(), log(8, CHARGED[:1]))
    cut = Cut.of({Partition(t, c, i): o for t, c, i, o in first.manifest.cut})
    again = build(asked(cut=cut), plans(), log())
    assert again.manifest.content_hash == first.manifest.content_hash
    assert again.table.equals(first.table) and again.manifest == first.manifest
    assert build(asked(), plans(), log()).manifest.content_hash != first.manifest.content_hash


def test_recorded_cuts_are_served_and_counted() -> None:
    seen_nothing = {"activity": Cut.of({LIVE: 0})}
    records = {(LIVE, 4): seen_nothing, (LIVE, 5): {"another": Cut()}, (LIVE, 99): seen_nothing}
    made = build(asked(), plans(), log(), records={**records, (BACKS, 6): seen_nothing})
    counts = made.table.column("activity.count_2d").to_pylist()
    assert counts == [1, 1, 1, 1, 1, 1, 1]
    records = {(LIVE, 4): seen_nothing, (LIVE, 5): {"activity": Cut.of({LIVE: 0}), "wide": Cut.of({LIVE: 2})}}
    made = build(asked(inputs=WIDE_INPUTS), [*plans(), WIDE], log(), records=records)
    assert made.table.column("n").to_pylist() == [0, 1, 2, 0, 3, 2, 0]  # row 5 sees one of the two before offset 2
    assert (made.manifest.served, made.manifest.mixed, made.manifest.available) == (1, 1, 5)


def test_an_absent_view_of_a_record_is_absent_again() -> None:
    records = {(LIVE, 5): {"activity": None, "wide": Cut.of({LIVE: 2})}, (LIVE, 4): {"activity": None}}
    made = build(asked(inputs=(*INPUTS, *WIDE_INPUTS)), [*plans(), WIDE], log(), records=records)
    computed = build(asked(inputs=(*INPUTS, *WIDE_INPUTS)), [*plans(), WIDE], log())
    for name in ("activity.count_2d", "activity.sum_amount_2d", "activity.last_2_channel", "share"):
        values = computed.table.column(name).to_pylist()
        assert None not in (values[4], values[5])
        values[4] = values[5] = None
        assert made.table.column(name).to_pylist() == values
        assert made.table.column(name).type == computed.table.column(name).type
    assert made.table.column("amount").equals(computed.table.column("amount"))
    assert made.table.column("n").to_pylist()[5] == 2  # the other view answered: the one below its cut, and itself
    assert (made.manifest.served, made.manifest.mixed, made.manifest.available) == (1, 1, 5)
    impact = {one.feature: one for one in late_data_impact(asked(), plans(), log(), records=records)}
    assert impact["activity.count_2d"].null_in_one == 2


def test_a_record_is_of_the_request_at_its_place_whatever_its_id() -> None:
    again = [(4, *rest) if id == 6 else (id, *rest) for id, *rest in REQUESTS]  # id 4 came again after `dedup`
    events = Events([requests, chargebacks], {LIVE: rows(requests, again), BACKS: rows(chargebacks, [])})
    made = build(asked(), plans(), events, records={(LIVE, 6): {"activity": None}})
    assert made.table.column("request").to_pylist() == [0, 1, 2, 3, 4, 5, 4]
    assert made.table.column("activity.count_2d").to_pylist() == [1, 1, 1, 1, 1, 1, None]
    some = build(asked(begin=Instant(5 * DAY)), plans(), events, records={(LIVE, 6): {"activity": None}})
    assert some.table.column("activity.count_2d").to_pylist() == [1, None]
    assert (some.manifest.served, some.manifest.available) == (1, 1)


def test_a_late_column_is_a_label_too_and_unknown_truths_are_left_out() -> None:
    truths = Topic(
        "requests.bad",
        key="request",
        event_time="at",
        fields={"request": schema.int64, "bad": schema.boolean, "at": schema.timestamp},
    )
    told = rows(truths, [(0, True, DAY), (1, True, DAY), (1, False, 2 * DAY), (2, None, 3 * DAY), (3, True, 99 * DAY)])
    events = Events([requests, truths], {LIVE: rows(requests, REQUESTS), Partition("requests.bad", 1, 0): told})
    made = build(asked(label=requests.bad), plans(), events)
    assert made.table.column("request").to_pylist() == [0, 1]
    assert made.table.column("bad").to_pylist() == [True, False]
    assert (made.manifest.immature, made.manifest.unlabelled) == (1, 7)


def test_only_requests_for_which_where_is_true_enter_false_and_null_do_not() -> None:
    web = asked(where=requests.channel == "web")  # requests 0, 3, 6 and 9 have none
    made = build(web, plans(), log())
    assert made.table.column("request").to_pylist() == [1, 2, 4, 5]
    assert made.table.column("charged").to_pylist() == [False, True, False, False]
    whole = build(asked(), plans(), log()).table
    kept = whole.filter(pa.array([id in (1, 2, 4, 5) for id in whole.column("request").to_pylist()]))
    assert made.table.equals(kept)  # windows see the requests that are no rows
    manifest = made.manifest
    assert (manifest.where, manifest.outside) == ("eq(requests.channel, 'web')", 4)
    assert (manifest.rows, manifest.immature) == (4, 2)  # of 7 and 8; 9 is outside
    assert len(late_data_impact(web, plans(), log())) == 3
    assert {one.rows for one in late_data_impact(web, plans(), log())} == {4}
    some = build(replace(web, begin=Instant(2 * DAY), end=Instant(5 * DAY)), plans(), log())
    assert (some.table.column("request").to_pylist(), some.manifest.outside) == ([2, 4], 1)


def test_where_over_what_is_there_for_every_request_is_counted_by_rows_not_by_labels() -> None:
    made = build(asked(where=to_expr(requests.amount) >= 1.05), plans(), log())
    assert made.table.column("request").to_pylist() == [5, 6]
    assert (made.manifest.outside, made.manifest.immature) == (5, 3)
    none = build(asked(where=requests.amount > 1_000), plans(), log())
    assert (none.table.num_rows, none.manifest.outside, none.manifest.immature) == (0, 10, 0)
    assert none.table.schema == made.table.schema


def test_a_manifest_says_where_only_where_there_is_one(tmp_path) -> None:
    _, plain = write(build(asked(), plans(), log()), tmp_path / "plain")
    assert not {"where", "outside"} & set(json.loads(plain.read_text()))
    _, chosen = write(build(asked(where=requests.channel == "web"), plans(), log()), tmp_path / "chosen")
    said = json.loads(chosen.read_text())
    assert (said["where"], said["outside"]) == ("eq(requests.channel, 'web')", 4)


def test_what_does_not_fit_is_refused() -> None:
    other = hr.FeatureView("other", entity="customer", source=requests, features=[hr.count().over("1d")])
    with pytest.raises(SchemaError, match="reads 'other.count_1d'") as unknown:
        build(asked(inputs=(("n", other.features[0].expression),)), plans(), log())
    assert unknown.value.code == "HR-0530"
    with pytest.raises(SchemaError, match="where reads 'activity.count_2d'") as unfit:
        build(asked(where=view["count_2d"] > 1), plans(), log())
    assert unfit.value.code == "HR-0530"
    with pytest.raises(SchemaError, match="two columns named 'charged'"):
        build(asked(inputs=(("charged", to_expr(requests.amount)),)), plans(), log())


def test_files_hold_the_rows_and_a_manifest_that_says_all(tmp_path) -> None:
    made = build(asked(begin=Instant(DAY), end=Instant(5 * DAY)), plans(), log())
    path, manifest = write(made, tmp_path / "set")
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [MANIFEST_FILE, ROWS_FILE]
    read = pq.read_table(path)
    assert content_hash(read) == made.manifest.content_hash
    said = json.loads(manifest.read_text())
    assert said["content_hash"] == made.manifest.content_hash and said["rows"] == read.num_rows == 4
    assert said["cut"] == [["chargebacks", 1, 0, 5], ["requests", 1, 0, 10]]
    assert said["begin"] == "1970-01-02T00:00:00Z" and said["fingerprints"] == [["activity", "f00d"]]


def _stated(table: pa.Table) -> TrainingSet:
    return TrainingSet(table, replace(build(asked(), plans(), log()).manifest, rows=table.num_rows, content_hash=""))


@pytest.mark.parametrize("count", [0, 1, 3_000])
def test_every_type_of_column_is_read_back_as_it_was(tmp_path, count: int) -> None:
    draw = np.random.default_rng(7)
    there = draw.random(count) < 0.9
    words = draw.integers(-(2**63), 2**63 - 1, count)
    table = pa.table(
        {
            "number": pa.array(words, mask=~there),
            "at": instants(np.sort(words)),
            "small": physical_array([int(w) % 10**9 for w in words], schema.decimal(9, 2)),
            "long": physical_array([int(w) % 10**18 for w in words], schema.decimal(18, 4)),
            "huge": pa.array(words.tolist(), pa.decimal128(38, 3)),
            "noise": pa.array(draw.random(count), mask=~there),
            "rate": pa.array((draw.random(count) < 0.01) / 4),
            "flag": pa.array(draw.random(count) < 0.5, mask=~there),
            "text": pa.array([f"{w % 7}" if t else None for w, t in zip(words, there, strict=True)], pa.string()),
            "last": pa.array(
                [[float(w), 0.5] if t else None for w, t in zip(words, there, strict=True)], pa.list_(pa.float64())
            ),
        }
    )
    path, _ = write(_stated(table), tmp_path)
    read = pq.read_table(path)
    assert read.equals(table.cast(read.schema)) and content_hash(read) == content_hash(table)
    if count == 3_000:
        group = pq.ParquetFile(path).metadata.row_group(0)
        codecs = {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}
        assert (codecs["noise"], codecs["number"]) == ("UNCOMPRESSED", "UNCOMPRESSED")  # nothing to gain
        assert (codecs["rate"], codecs["last.list.element"]) == ("LZ4", "LZ4")


def test_the_manifest_is_hashed_when_it_is_asked_for_and_once() -> None:
    made = _stated(pa.table({"a": [1, 2]}))
    assert made.manifest is made.manifest
    assert made.manifest.content_hash == content_hash(made.table)


def test_the_hash_is_of_values_not_of_chunks() -> None:
    table = build(asked(), plans(), log()).table
    pieces = pa.concat_tables([table.slice(0, 3), table.slice(3, 1), table.slice(4)])
    assert content_hash(pieces, threads=2) == content_hash(table)
    one = table.set_column(2, "amount", pa.chunked_array([pa.nulls(7, table.column("amount").type)]))
    assert content_hash(one) != content_hash(table)
    renamed = table.rename_columns(["x", *table.column_names[1:]])
    assert content_hash(renamed) != content_hash(table)
    assert content_hash(table.slice(0, 6)) != content_hash(table)


def test_late_data_impact_compares_what_was_with_what_is_known_now() -> None:
    values = list(REQUESTS)
    values.insert(4, (77, 0, 900, "web", DAY + 1, None))  # of customer 0, late by two days
    verdicts = [0] * 4 + [Verdict.LATE] + [0] * 6
    events = Events(
        [requests, chargebacks], {LIVE: rows(requests, values, verdicts=verdicts), BACKS: rows(chargebacks, CHARGED)}
    )
    found = {one.feature: one for one in late_data_impact(asked(), plans(), events)}
    assert found["activity.count_2d"].differing == 1 and found["activity.count_2d"].largest == 1.0
    assert found["activity.sum_amount_2d"].mean == 9.0
    assert found["activity.last_2_channel"].differing >= 1


@pytest.mark.parametrize("seed", [seed for seed in range(300, 330) if story(seed).labels])
def test_labels_are_as_the_oracle_says(seed: int) -> None:
    told, draw = story(seed), random.Random(seed)
    events = Events(told.topics.values(), tables(told))
    topic = events.topic(told.main.name)
    at = {(p, int(o)): i for i, (p, o) in enumerate(_places(topic))}
    t_label = max(event.event_time for event in told.events) + draw.choice((-60, 0, 30, 100)) * SECOND
    visible = [e for e in told.events if e.verdict in (*TAKEN, Verdict.LATE)]
    seen = Seen(visible, t_label, Owners())
    origins = [e for e in told.events if e.topic == told.main.name]
    row = np.array([at[e.partition, e.offset] for e in origins], np.int64)
    for one in told.labels.values():
        found = training_labels(one, events, told.main.name, row, Instant(t_label))
        wanted = [training_label(one, e, seen) for e in origins]
        assert found.mature.tolist() == [known.there for known in wanted]
        values = physical_values(pa.chunked_array([found.values]), one.type)
        assert [v for v, known in zip(values, wanted, strict=True) if known.there] == [
            k.value for k in wanted if k.there
        ]
    for column in told.main.late_columns:
        found = training_labels(told.main[column.name], events, told.main.name, row, Instant(t_label))
        emission = told.main.emit()
        for i, e in enumerate(origins):
            if found.mature[i]:
                known = truth_of(emission, column.name, e, seen, so_far=False)
                value = physical_values(pa.chunked_array([found.values.slice(i, 1)]), column.type)[0]
                assert value == known.value


def _places(topic):
    for i, partition in enumerate(topic.partitions):
        for offset in topic.offset[topic.starts[i] : topic.starts[i + 1]]:
            yield partition, offset
