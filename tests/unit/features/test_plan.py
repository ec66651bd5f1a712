"""A view's plan: shared columns and spans, proven widths, rows and batches alike, what is refused."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

import headrace as hr
from headrace.core import schema
from headrace.core.aggregate import Reason
from headrace.core.codec import batch_to_rows, rows_to_batch
from headrace.core.errors import DefinitionError, StateError
from headrace.core.expr import coalesce, hour, if_else
from headrace.core.kernel.program import ColumnKind
from headrace.features.plan import ViewPlan
from headrace.features.words import Codes, float_word
from headrace.log.define import Topic
from headrace.testing.agreement import as_row, physical_values
from headrace.testing.generate import story
from headrace.testing.questions import canonical

payments = Topic(
    "payments",
    key="customer",
    id="payment",
    event_time="at",
    fields={
        "payment": schema.int64,
        "customer": schema.string,
        "shop": schema.int64,
        "amount": schema.decimal(12, 2),
        "small": schema.field(schema.int64, minimum=-5, maximum=1_000),
        "must": schema.field(schema.int64, required=True),
        "weight": schema.field(schema.float64, minimum=0, maximum=1e6),
        "size": schema.float64,
        "channel": schema.string,
        "good": schema.boolean,
        "at": schema.timestamp,
        "bad": schema.field(schema.boolean, available_after="7d"),
    },
)
chargebacks = Topic(
    "chargebacks", key="payment", event_time="at", fields={"payment": schema.int64, "at": schema.timestamp}
)
charged = hr.Label("charged", of=payments, source=chargebacks, on="payment", within="30d")


def plan(*features, entity="customer", source=payments, **more):
    return ViewPlan.compile(hr.FeatureView("v", entity=entity, source=source, features=features, **more), {})


def column(value, **more):
    (only,) = plan(hr.last(value, **more)).program.columns
    return only


def test_equal_inputs_share_a_column_and_equal_windows_a_span() -> None:
    web = payments.channel == "web"
    made = plan(
        hr.mean(payments.amount).over("1d", "7d"),
        hr.sum(payments.amount.named("other")).over("7d").named("s"),
        hr.sum(payments.amount, where=web).over("7d").named("web"),
        hr.count(where=payments.channel == "web").over("1d", "7d").named("n"),
        hr.count().over("7d").named("all"),
    )
    program = made.program
    assert [output.column for output in program.outputs] == [0, 0, 0, 1, 2, 2, None]
    assert [output.span for output in program.outputs] == [0, 1, 1, 1, 0, 1, 1]
    assert [one.kind for one in program.columns] == [ColumnKind.INT, ColumnKind.INT, ColumnKind.NONE]
    assert len(program.spans) == 2


def test_what_is_known_so_far_is_another_column_only_where_that_matters() -> None:
    made = plan(
        hr.rate(payments.bad).over("1d", delay="7d").named("a"),
        hr.rate(payments.bad, known="so_far").over("1d", delay="7d").named("b"),
        hr.rate(payments.good).over("1d").named("c"),
        hr.rate(payments.good, known="so_far").over("1d").named("d"),
    )
    assert [output.column for output in made.program.outputs] == [0, 1, 2, 2]
    assert [one.history for one in made.program.columns] == [True, True, False]
    (source,) = made.sources
    assert source.history == (0, 1) and source.so_far == (1,) and source.late == ("bad",)


def test_widths_are_proven_from_types_and_declared_ranges() -> None:
    assert column(payments.amount).bits == (10**12 - 1).bit_length() and column(payments.amount).scale == 2
    assert column(payments.small).bits == 10 and column(-payments.small).bits == 10
    assert column(payments.shop).bits == 63 and column(payments.at).bits == 63
    assert column(payments.good).bits == 1 and column(hour(payments.at)).bits == 5
    assert column(coalesce(payments.small, 70_000)).bits == 17
    assert column(if_else(payments.good, payments.small, 3)).bits == 10
    assert column(payments.weight).compact and column(payments.weight * 1_000).compact
    assert not column(payments.weight * 2_000).compact and not column(payments.size).compact
    assert not column(payments.weight / payments.small).compact and column(payments.weight / 2).compact


def test_only_what_can_never_be_null_is_always_there() -> None:
    assert column(payments.must).always and column(payments.payment).always
    assert not column(payments.shop).always and not column(payments.must, where=payments.good).always
    assert not column(payments.must + 1).always  # a result may leave the doubles


def test_a_request_lies_in_windows_without_delay_that_are_not_complete() -> None:
    made = plan(
        hr.count().over("1d").named("a"),
        hr.count().over("1d", delay="1s").named("b"),
        hr.count().lifetime().named("c"),
        hr.count().aligned("day").named("d"),
        hr.count().aligned("day", complete=True).named("e"),
    )
    assert [span.overlaid for span in made.program.spans] == [True, False, True, True, False]
    assert [span.calendar for span in made.program.spans] == [None, None, None, 0, 1]


def test_a_lifetime_that_waits_holds_no_request() -> None:
    made = plan(hr.count().lifetime(delay="1s").named("n"))
    assert made.program.spans[0].overlaid is False and made.program.spans[0].delay == 1_000_000
    assert made.spans_bounds(np.array([1, 2])).shape == (0, 2) and made.bounds_row(1) == []
    calendar = plan(hr.count().aligned("day").named("d"))
    assert calendar.spans_bounds(np.array([], np.int64)).shape == (2, 0)


def test_each_source_fills_a_column_by_its_own_expression() -> None:
    names = {"customer": schema.string, "back": schema.decimal(12, 2), "n": schema.int64, "at": schema.timestamp}
    refunds = Topic("refunds", key="customer", event_time="at", fields=names)
    both = hr.Sources(
        payments.emit(customer=payments.customer, delta=payments.amount.named("paid"), n=payments.small),
        refunds.emit(customer=refunds.customer, delta=-refunds.back, n=refunds.n),
    )
    made = plan(
        hr.sum(both.delta.named("d"), where=(both.n > 0).named("some")).over("1d"),
        hr.max(both.n).over("1d"),
        source=both,
    )
    assert [one.bits for one in made.program.columns] == [40, 63]  # the widest of the sources
    first, second = made.source("payments"), made.source("refunds")
    assert first is made.sources[0] and second is made.sources[1] and made.source("others") is None
    assert (first.index, second.index) == (0, 1) and first.fields == {"customer", "amount", "small"}
    row = {"customer": "a", "amount": 250, "small": 3}
    assert first.columns_row([row.get(name) for name in payments.schema.names], {}) == (0b11, [250, 3])
    assert second.columns_row(["a", 100, 3, 0], {}) == (0b11, [-100, 3])
    assert second.columns_row(["a", 100, 0, 0], {}) == (0b10, [0, 0])
    assert made.publisher is made.publisher and made.publisher.publish_row([0] * made.program.slots, bytes(2))


@pytest.mark.parametrize("unit", ["10s", "1m", "hour", "day", "week", "month", "year"])
@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu"])
def test_bounds_of_many_instants_are_those_of_each(unit, tz) -> None:
    zone = "UTC" if unit[0].isdigit() else tz
    made = plan(
        hr.count().aligned(unit, tz=zone).named("a"),
        hr.count().aligned(unit, tz=zone, complete=True).named("b"),
    )
    rng = random.Random(unit + tz)
    starts = [rng.choice([0, 1_540_000_000, 1_774_000_000, 1_792_000_000]) * 10**6 for _ in range(60)]
    t = np.array([start + rng.randrange(40 * 86_400 * 10**6) for start in starts] + starts, np.int64)
    bounds = made.spans_bounds(t)
    assert bounds.shape == (4, len(t))
    for i, instant in enumerate(t.tolist()):
        assert bounds[:, i].tolist() == made.bounds_row(instant)


@pytest.mark.parametrize("seed", range(30))
def test_a_batch_becomes_the_words_that_its_rows_become(seed: int) -> None:
    told = story(seed)
    for view in told.views:
        batchwise, rowwise = (ViewPlan.compile(view, told.labels) for _ in range(2))
        for source, other in zip(batchwise.sources, rowwise.sources, strict=True):
            rows = [as_row(told, e) for e in told.events if e.topic == source.topic.name]
            batch = rows_to_batch(source.topic.schema, rows)
            known = {name: batch.column(name) for name in source.late}
            valid, values = source.columns(batch, known)
            entities = source.entity(batch).to_pylist()
            assert rows == batch_to_rows(source.topic.schema, batch)
            for i, row in enumerate(rows):
                names = source.topic.schema.names
                said = {name: row[names.index(name)] for name in source.late}
                one_valid, one = other.columns_row(row, {n: v for n, v in said.items() if v is not None})
                assert one_valid == valid[i]
                for c, input in enumerate(batchwise.program.columns):
                    if one_valid >> c & 1 and input.kind is not ColumnKind.NONE:
                        assert _meant(batchwise, c, int(values[c, i])) == _meant(rowwise, c, one[c])
                entity = other.entity_row(row)
                assert (entity is None) == (entities[i] is None)


def _meant(made: ViewPlan, c: int, word: int) -> object:
    """A word, of text what it stands for: two plans may give one text two codes."""
    feature = next(f for f, o in zip(made.view.features, made.program.outputs, strict=True) if o.column == c)
    text = feature.input is not None and feature.input.type.kind is schema.Kind.STRING
    return made.codes.text(word) if text else word


def test_answers_are_published_alike_one_by_one_and_in_columns() -> None:
    made = plan(
        hr.count().over("1d"),
        hr.count().over("1d", empty=7).named("n"),
        hr.sum(payments.amount).over("1d"),
        hr.sum(payments.small).over("1d", empty=-1),
        hr.sum(payments.size).over("1d", empty=0.5),
        hr.mean(payments.amount).over("1d"),
        hr.min(payments.amount).over("1d"),
        hr.max(payments.at).over("1d"),
        hr.last(payments.channel),
        hr.last(payments.good),
        hr.last_n(payments.channel, 3),
        hr.last_n(payments.size, 2),
        hr.time_since_last(),
    )
    rng = np.random.default_rng(3)
    n = 400
    for text in ("web", "shop", ""):
        made.codes.code(text)
    words = rng.integers(-3, 3, (n, made.program.slots))
    slot = dict(zip([f.name for f in made.view.features], made.program.slot, strict=True))
    words[:, slot["sum_amount_1d"] + 1] = rng.choice([0, -1, 2**40, 0x4B3B4CA85A86C47A, -(2**62)], n)
    words[:, slot["sum_small_1d"] + 1] = rng.choice([0, -1, 1], n)
    for name in ("last_channel", "last_3_channel", "last_2_size"):
        words[:, slot[name] : slot[name] + 4] = rng.integers(0, 3, (n, 4))
    floats = (slot["sum_size_1d"], slot["mean_amount_1d"], slot["last_2_size"] + 1, slot["last_2_size"] + 2)
    for place in floats:
        words[:, place] = rng.choice([0.0, 0.1, -1e300, 5e-324], n).view(np.int64)
    reasons = rng.choice(5, (n, len(made.program.outputs)), p=[0.7, 0.15, 0.05, 0.05, 0.05]).astype(np.uint8)
    rows = [made.publish_row(one.tolist(), said.tobytes()) for one, said in zip(words, reasons, strict=True)]
    corrected = reasons.copy()
    columns = made.publish(words.copy(), corrected)
    assert columns.schema.types == [feature.type.arrow for feature in made.view.features]
    columns.validate(full=True)
    for i, feature in enumerate(made.view.features):
        values = physical_values(pa.chunked_array([columns.column(i)]), feature.type)
        assert [canonical(v) for v in values] == [canonical(row[0][i]) for row in rows], feature.name
        assert [Reason(r) for r in corrected[:, i]] == [row[1][i] for row in rows], feature.name
    assert Reason.OVERFLOW in {row[1][2] for row in rows} and Reason.OVERFLOW in {row[1][3] for row in rows}


def test_codes_are_given_in_order_of_appearance_and_kept() -> None:
    codes = Codes()
    first = codes.encode(pa.array(["b", None, "a", "b"]))
    assert first.tolist() == [0, 0, 1, 0] and codes.code("c") == 2 and codes.texts == ("b", "a", "c")
    again = Codes(codes.texts)
    assert again.code("a") == 1 and again.encode(pa.array(["d", "c"])).tolist() == [3, 2]
    nulls = np.array([False, True])
    assert again.decode(np.array([3, 0]), nulls).to_pylist() == ["d", None]
    assert codes.encode(pa.array([], pa.string())).tolist() == []


def test_negative_zero_is_zero() -> None:
    assert float_word(-0.0) == float_word(0.0) == 0 and float_word(1.0) == 0x3FF << 52
    made = plan(hr.last(-payments.size))
    batch = pa.record_batch({"size": pa.array([0.0, -0.0])})
    assert made.sources[0].columns(batch, {})[1].tolist() == [[0, 0]]


def test_a_composite_entity_is_null_where_a_part_is() -> None:
    made = plan(hr.count().over("1d"), entity=("customer", "shop"))
    batch = pa.record_batch({"customer": ["a", None, "a"], "shop": pa.array([1, 2, None], pa.int64())})
    assert made.sources[0].entity(batch).to_pylist() == [{"0": "a", "1": 1}, None, None]


def test_labels_and_late_columns_are_what_is_known_of_them_and_not_what_the_event_holds() -> None:
    view = hr.FeatureView(
        "v",
        entity="customer",
        source=payments,
        features=[
            hr.rate(charged).over("1d"),
            hr.rate(payments.bad).over("1d", delay="7d"),
            hr.rate(payments.bad, known="so_far").over("1d", delay="0s").named("soon"),
        ],
    )
    (source,) = ViewPlan.compile(view, {"charged": charged}).sources
    row = [None] * len(payments.schema.fields)
    row[payments.schema.names.index("bad")] = True
    assert source.columns_row(row, {}) == (0b101, [0, 0, 0])
    assert source.columns_row(row, {"charged": True, "bad": True}) == (0b111, [1, 1, 1])
    batch = rows_to_batch(payments.schema, [tuple(row)] * 2)
    valid, values = source.columns(batch, {"bad": pa.array([True, None]), "charged": pa.array([None, True])})
    assert valid.tolist() == [0b111, 0b101] and values.tolist() == [[0, 1], [1, 0], [1, 0]]


def test_history_that_does_not_keep_to_the_definition_is_refused() -> None:
    batch = pa.record_batch({"must": pa.array([1, None], pa.int64()), "small": pa.array([0, 1024], pa.int64())})
    with pytest.raises(StateError, match="payments.must is null") as null:
        plan(hr.sum(payments.must).over("1d")).sources[0].columns(batch, {})
    with pytest.raises(StateError, match="leaves its declared range") as wide:
        plan(hr.sum(payments.small).over("1d")).sources[0].columns(batch, {})
    assert (null.value.code, wide.value.code) == ("HR-0510", "HR-0511")


def test_a_range_of_one_bit_less_than_a_word_s_is_kept_to() -> None:
    wide = schema.field(schema.int64, minimum=0, maximum=2**62 - 1)
    topic = Topic("wide", key="k", event_time="at", fields={"k": schema.int64, "at": schema.timestamp, "n": wide})
    made = plan(hr.max(topic.n).over("1d"), entity="k", source=topic)
    assert made.program.columns[0].bits == 62
    with pytest.raises(StateError, match="leaves its declared range"):
        made.sources[0].columns(pa.record_batch({"n": pa.array([2**62], pa.int64())}), {})


def test_definitions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DefinitionError, match="'charged', which is not given") as missing:
        plan(hr.rate(charged).over("1d"))
    again = hr.Label("good", of=payments, source=chargebacks, on="payment", within="1d")
    view = hr.FeatureView("v", entity="customer", source=payments, features=[hr.rate(again).over("1d")])
    with pytest.raises(DefinitionError, match="is also a field"):
        ViewPlan.compile(view, {"good": again})
    other = Topic("other", key="customer", event_time="at", fields={"customer": schema.int64, "at": schema.timestamp})
    both = hr.Sources(payments.emit(n=payments.shop), other.emit(n=other.customer))
    with pytest.raises(DefinitionError, match="entities have different types") as types:
        plan(hr.sum(both.n).over("1d"), source=both)
    with pytest.raises(DefinitionError, match=r"empty=0\.5 is no int64") as empty:
        plan(hr.count().over("1d", empty=0.5))
    with pytest.raises(DefinitionError, match="empty=0.001 is no decimal"):
        plan(hr.sum(payments.amount).over("1d", empty=0.001))
    assert types.value.detail == "expected string, seen int64 in 'other'"
    codes = [error.value.code for error in (missing, types, empty)]
    assert codes == ["HR-0512", "HR-0513", "HR-0514"]
