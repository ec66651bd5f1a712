"""Files into the log: the same rows from every format, in order, once, wholly or not at all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace.core.schema as types
from headrace.core.errors import HeadraceError, InputError, NotFoundError, SchemaError, UsageError
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import instant, iso
from headrace.log.define import Topic
from headrace.log.port import Append, Verdict
from headrace.schemas import AvailableAt, ImportOptions
from headrace.schemas.define import IMPORTS
from headrace.schemas.importing import import_file
from headrace.testing.clocks import ManualClock
from headrace.testing.fakes import MemoryLog
from tests.examples import examples

NOW = "2026-06-01T00:00:00Z"
PAYMENTS = Topic(
    "payments",
    key="customer",
    id="id",
    event_time="at",
    max_late="1d",
    fields={
        "id": types.int64,
        "customer": types.string,
        "at": types.timestamp,
        "amount": types.decimal(12, 2),
        "rate": types.float64,
        "web": types.boolean,
        "fraud": types.field(types.boolean, available_after="7d"),
    },
)
ROWS = [  # id, customer, seconds of 2026-05-01, amount, rate, web, fraud
    (3, "ann", 20, "12.50", 0.5, True, False),
    (1, "bob", 10, "0.10", None, None, True),
    (2, "ann", 10, "1234567890.12", 1e-9, False, None),
    (4, "", 40, None, -2.0, None, None),
]
START = instant("2026-05-01T00:00:00Z")


def at(seconds):
    return START + seconds * 1_000_000


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def log(clock):
    with_payments = MemoryLog(clock=clock)
    with_payments.declare(PAYMENTS)
    return with_payments


def table(rows=ROWS, **more):
    columns = list(zip(*rows, strict=True))
    return pa.table(
        {
            "id": pa.array(columns[0], pa.int64()),
            "customer": pa.array(columns[1]),
            "at": pa.array([at(s) for s in columns[2]], pa.timestamp("us", "UTC")),
            "amount": pa.array(columns[3]).cast(pa.decimal128(12, 2)),
            "rate": pa.array(columns[4], pa.float64()),
            "web": pa.array(columns[5], pa.bool_()),
            "fraud": pa.array(columns[6], pa.bool_()),
        }
        | more
    )


def parquet(path: Path, rows=ROWS, **more):
    pq.write_table(table(rows, **more), path / "payments.parquet")
    return path / "payments.parquet"


def as_csv(path: Path):
    made = table()
    texts = [str(a) if a is not None else None for a in made["amount"].to_pylist()]
    times = [iso(at(row[2])) for row in ROWS]
    made = made.set_column(3, "amount", pa.array(texts)).set_column(2, "at", pa.array(times))
    pa_csv.write_csv(made, path / "payments.csv")
    return path / "payments.csv"


def ndjson(path: Path, rows=ROWS):
    names = ["id", "customer", "at", "amount", "rate", "web", "fraud"]
    lines = []
    for row in rows:
        event = dict(zip(names, row, strict=True)) | {"at": iso(at(row[2]))}
        lines.append(json.dumps({n: v for n, v in event.items() if v is not None}))
    (path / "payments.ndjson").write_text("\n\n".join(lines) + "\n")
    return path / "payments.ndjson"


def gzipped(path: Path):
    plain = as_csv(path)
    packed = path / "payments.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    return packed


def imported(log, index=0):
    """What readers see of an import's partition: (id, verdict, available_at), and the fields."""
    partition = Partition("payments", 1, IMPORTS_FROM + index)
    batches = list(log.read(partition, 0))
    return pa.Table.from_batches(batches).to_pylist() if batches else []


@pytest.mark.parametrize("write", [parquet, as_csv, ndjson, gzipped])
def test_every_format_gives_the_same_rows_in_order(log, clock, tmp_path, write):
    report = import_file(log, "payments", write(tmp_path), clock=clock)
    assert (report.rows, report.taken, report.left_out, report.ignored) == (4, 4, 0, ())
    seen = imported(log)
    assert [row["id"] for row in seen] == [1, 2, 3, 4]  # by event time, ties by id
    assert [row["_available_at"] for row in seen] == [row["at"] for row in seen]
    by_id = {row["id"]: row for row in table().to_pylist()}
    for row in seen:
        assert {name: row[name] for name in by_id[row["id"]]} == by_id[row["id"]]


def test_a_topic_that_is_not_there_is_named(log, clock, tmp_path):
    with pytest.raises(NotFoundError) as refused:
        import_file(log, "payment", parquet(tmp_path), clock=clock)
    assert (refused.value.code, refused.value.hint) == ("HR-0302", "did you mean 'payments'?")


def test_the_same_file_is_refused_unless_told(log, clock, tmp_path):
    path = parquet(tmp_path)
    import_file(log, "payments", path, clock=clock)
    clock.advance("1h")
    with pytest.raises(UsageError) as refused:
        import_file(log, "payments", path, clock=clock)
    assert refused.value.code == "HR-0426" and "2026-06-01T00:00:00Z" in refused.value.message
    report = import_file(log, "payments", path, clock=clock, options=ImportOptions(again=True))
    assert (report.taken, report.duplicates) == (0, 4)
    report = import_file(log, "payments", path, clock=clock, options=ImportOptions(again=True))
    assert [p.index for p in report.partitions] == [IMPORTS_FROM + 2]


def test_a_topic_made_anew_takes_the_file_again(log, clock, tmp_path):
    path = parquet(tmp_path)
    import_file(log, "payments", path, clock=clock)
    log.drop("payments")
    log.declare(PAYMENTS)
    assert import_file(log, "payments", path, clock=clock).taken == 4


def test_known_ids_are_left_out_and_others_with_another_payload_quarantined(log, clock, tmp_path):
    live = Partition("payments", 1, 0)
    clock.set("2026-05-01T00:01:00Z")
    same, other = (3, "ann", at(20), 1250, 0.5, True, None), (1, "bob", at(10), 11, None, None, None)
    log.append([Append(partition=live, rows=[same, other])])
    clock.set(NOW)
    report = import_file(log, "payments", parquet(tmp_path), clock=clock)
    assert (report.taken, report.duplicates, report.conflicts) == (2, 1, 1)
    verdicts = {row["id"]: row["_verdict"] for row in imported(log)}
    assert verdicts == {1: Verdict.CONFLICT, 2: 0, 3: Verdict.DUPLICATE, 4: 0}


def test_rows_available_only_after_the_import_are_left_out(log, clock, tmp_path):
    clock.set("2026-05-01T00:00:25Z")
    report = import_file(log, "payments", parquet(tmp_path), clock=clock)
    assert (report.rows, report.taken, report.left_out) == (4, 3, 1)
    assert [row["id"] for row in imported(log)] == [1, 2, 3]


def test_a_delay_makes_rows_available_later(log, clock, tmp_path):
    options = ImportOptions(available_at=AvailableAt.parse("event_time + 2d"))
    report = import_file(log, "payments", parquet(tmp_path), clock=clock, options=options)
    assert (report.taken, report.late) == (0, 4)  # the topic's max_late is 1d
    assert (imported(log)[0]["_available_at"] - imported(log)[0]["at"]).days == 2


@pytest.mark.parametrize("write", [parquet, as_csv, ndjson])
def test_a_column_says_when_rows_were_available(log, clock, tmp_path, write):
    seen = {1: 50, 2: 15, 3: 21, 4: 41}
    if write is parquet:
        path = parquet(tmp_path, seen=pa.array([at(seen[row[0]]) // 1_000 for row in ROWS], pa.timestamp("ms", "UTC")))
    else:
        path = write(tmp_path)
        lines = path.read_text().splitlines()
        ids = iter(row[0] for row in ROWS)
        if write is as_csv:
            lines = [lines[0] + ',"seen"', *(f"{line},{iso(at(seen[next(ids)]))}" for line in lines[1:])]
        else:
            lines = [json.dumps(json.loads(x) | {"seen": iso(at(seen[next(ids)]))}) if x else x for x in lines]
        path.write_text("\n".join(lines))
    options = ImportOptions(available_at=AvailableAt(column="seen"))
    report = import_file(log, "payments", path, clock=clock, options=options)
    assert (report.taken, report.ignored) == (4, ())
    assert [row["id"] for row in imported(log)] == [2, 3, 4, 1]


def test_columns_may_have_other_names(log, clock, tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(table(note=pa.array(["x"] * 4)).rename_columns(["TX_ID", *table().column_names[1:], "note"]), path)
    report = import_file(log, "payments", path, clock=clock, options=ImportOptions(columns={"id": "TX_ID"}))
    assert (report.taken, report.ignored) == (4, ("note",))


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (ImportOptions(columns={"idd": "id"}), "HR-0427", "no field 'idd'"),
        (ImportOptions(columns={"id": "ID"}), "HR-0423", "no column 'ID'"),
        (ImportOptions(available_at=AvailableAt(column="sen")), "HR-0423", "no column 'sen'"),
        (ImportOptions(format="xml"), "HR-0422", "no format known"),
        (ImportOptions(format="csv"), "HR-0421", "cannot be read as csv"),
        (ImportOptions(format="ndjson"), "HR-0421", "not JSON"),
        (ImportOptions(zone="Europe/Nowhere"), "HR-0114", "no time zone"),
    ],
)
def test_options_that_do_not_fit_are_refused(log, clock, tmp_path, options, code, words):
    assert_refused(log, clock, parquet(tmp_path), code, words, options)


def test_a_column_that_is_not_there_is_explained(log, clock, tmp_path):
    error = assert_refused(log, clock, parquet(tmp_path), "HR-0423", "'idd'", ImportOptions(columns={"id": "idd"}))
    assert (error.field, error.column) == ("id", "idd")
    assert "needs it for field 'id'" in error.detail
    assert error.hint == "did you mean 'id'? say --map id=COLUMN"
    rule = ImportOptions(available_at=AvailableAt(column="att"))
    error = assert_refused(log, clock, parquet(tmp_path), "HR-0423", "'att'", rule)
    assert error.field == "" and "needs it for its available_at" in error.detail
    assert error.hint == "did you mean 'at'?"


def assert_refused(log, clock, path, code, words, options=None):
    with pytest.raises(HeadraceError) as refused:
        import_file(log, "payments", path, clock=clock, options=options)
    assert refused.value.code == code
    assert words in refused.value.message
    (state,) = (s for s in log.topics() if s.topic.name == "payments")
    assert [p for p in state.partitions if p.sealed and p.partition.index >= IMPORTS_FROM] == []
    return refused.value


def test_a_misspelt_optional_column_is_refused_and_may_be_ignored(log, clock, tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(table().rename_columns(["id", "customer", "at", "amuont", "rate", "web", "fraud"]), path)
    error = assert_refused(log, clock, path, "HR-0405", "unknown column 'amuont'")
    assert "--map amount=amuont" in error.hint
    report = import_file(log, "payments", path, clock=clock, options=ImportOptions(ignore=("amuont",)))
    assert report.ignored == ("amuont",)


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("a.parquet", b"PAR1 but no more", "HR-0421", "cannot be read as parquet"),
        ("a.csv", b"", "HR-0423", "no column 'id'"),
        ("a.csv", b"id,customer\n1,ann\n", "HR-0423", "no column 'at'"),
        ("a.csv", b"id,customer,at\n1,ann\n", "HR-0421", "cannot be read as csv"),
        (
            "a.csv",
            b"id,customer,at\n1,ann,2026-05-01T00:00:00Z\nx,ann,2026-05-01T00:00:00Z\n",
            "HR-0401",
            "row 2, field 'id'",
        ),
        ("a.csv", b"id,customer,at\n1,ann,2026-05-01T00:00:00\n", "HR-0103", "row 1, field 'at'"),
        ("a.csv", b"id,customer,at,amount\n1,ann,2026-05-01T00:00:00Z,1.234\n", "HR-0402", "row 1, field 'amount'"),
        ("a.csv", b"id,customer,at,rate\n1,ann,2026-05-01T00:00:00Z,nan\n", "HR-0403", "row 1, field 'rate'"),
        ("a.csv", b"id,customer,at\n,ann,2026-05-01T00:00:00Z\n", "HR-0406", "row 1, field 'id'"),
        ("a.csv", b"id,customer,at\n1,\xff,2026-05-01T00:00:00Z\n", "HR-0409", "row 1, field 'customer'"),
        ("a.csv", b"id,id,customer,at\n1,1,a,2026-05-01T00:00:00Z\n", "HR-0405", "two columns"),
        ("a.csv.gz", b"not gzip", "HR-0421", "cannot be read as csv"),
        ("a.ndjson", b'{"id": 1}\n', "HR-0406", "row 1, field 'customer'"),
        ("a.ndjson", b'{"id": 1, "customer": "a", "at": 0}\n{"id":', "HR-0421", "line 2"),
        ("a.ndjson", b'\n{"id": 1, "customer": "a", "at": "2026-05-01T00:00:00"}\n', "HR-0103", "row 2, field 'at'"),
        ("a.ndjson", b'{"id": 1, "customer": "a", "at": 0, "amount": 0.10000000000000000001}\n', "HR-0402", "row 1"),
        ("a.ndjson", b"[1]\n", "HR-0401", "row 1: not an object"),
        ("a.txt", b"", "HR-0422", "no format known"),
        (None, b"", "HR-0420", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_seals_nothing(log, clock, tmp_path, name, content, code, words):
    path = tmp_path / (name or "missing.csv")
    if name is not None:
        path.write_bytes(content)
    assert_refused(log, clock, path, code, words)


def test_a_parquet_file_that_was_cut_off_is_refused(log, clock, tmp_path):
    path = parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    assert_refused(log, clock, path, "HR-0421", "cannot be read as parquet")


@pytest.mark.parametrize("write", [parquet, as_csv, ndjson])
def test_local_times_need_a_zone_and_are_then_exact(log, clock, tmp_path, write):
    local = ["2026-03-01T12:00:00", "2026-04-01T12:00:00"]
    path = tmp_path / f"local.{ {parquet: 'parquet', as_csv: 'csv', ndjson: 'ndjson'}[write] }"

    def put(times):
        if write is parquet:
            values = pa.array(times).cast(pa.timestamp("ns"))
            pq.write_table(pa.table({"id": [1, 2], "customer": ["a", "b"], "at": values}), path)
        elif write is as_csv:
            path.write_text("id,customer,at\n" + "".join(f"{i},a,{t}\n" for i, t in enumerate(times, 1)))
        else:
            path.write_text(
                "".join(json.dumps({"id": i, "customer": "a", "at": t}) + "\n" for i, t in enumerate(times, 1))
            )

    put(local)
    error = assert_refused(log, clock, path, "HR-0103", "row 1, field 'at': timestamp without zone")
    assert "--zone" in error.hint
    stockholm = ImportOptions(zone="Europe/Stockholm")
    put(["2026-03-01T12:00:00", "2026-03-29T02:30:00"])  # the clock jumps from 2 to 3
    assert_refused(log, clock, path, "HR-0424", "row 2, field 'at': local time 2026-03-29T02:30:00", stockholm)
    put(["2026-03-01T12:00:00", "2025-10-26T02:30:00"])  # the clock shows it twice
    assert_refused(log, clock, path, "HR-0424", "row 2, field 'at'", stockholm)
    put(local)
    import_file(log, "payments", path, clock=clock, options=stockholm)
    assert [row["at"].isoformat() for row in imported(log)] == [
        "2026-03-01T11:00:00+00:00",
        "2026-04-01T10:00:00+00:00",
    ]


def test_texts_with_and_without_a_zone_may_be_mixed_where_a_zone_is_given(log, clock, tmp_path):
    path = tmp_path / "mixed.csv"
    path.write_text("id,customer,at\n1,a,2026-04-01T12:00:00\n2,a,2026-04-01T12:00:00Z\n")
    import_file(log, "payments", path, clock=clock, options=ImportOptions(zone="Europe/Stockholm"))
    assert [row["at"].hour for row in imported(log)] == [10, 12]


class StoppedError(Exception):
    pass


@examples(40)
@given(st.lists(st.integers(0, 6), max_size=4), st.integers(1, 5))
def test_a_broken_import_goes_on_to_the_same_result(tmp_path_factory, stops, chunk):
    rows = [(i * 7 % 23, "c", i * 5 % 17, "1.00", None, None, None) for i in range(23)] + ROWS[:1]
    path = parquet(tmp_path_factory.mktemp("broken"), rows)
    clock = ManualClock(NOW)
    whole, broken = MemoryLog(clock=clock), MemoryLog(clock=clock)
    for log in (whole, broken):
        log.declare(PAYMENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.schemas.importing.APPEND_ROWS", chunk)
        expected = import_file(whole, "payments", path, clock=clock)
        for stop in stops:
            written = 0

            def progress(stage, done, total, stop=stop):
                nonlocal written
                written += stage == "write"
                if written > stop:
                    raise StoppedError

            try:
                report = import_file(broken, "payments", path, clock=clock, progress=progress)
                break
            except StoppedError:
                assert imported(broken) == []  # nothing of it is seen before the seal
                clock.advance("1m")
        else:
            report = import_file(broken, "payments", path, clock=clock)
    figures = ("rows", "taken", "late", "duplicates", "conflicts", "ahead", "left_out")
    assert [getattr(report, f) for f in figures] == [getattr(expected, f) for f in figures]
    assert imported(broken) == imported(whole)
    assert (expected.duplicates + expected.conflicts) == 1


def test_a_broken_import_goes_on_only_with_its_options(log, clock, tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.schemas.importing.APPEND_ROWS", 2)
    path = parquet(tmp_path)

    def stop(stage, done, total):
        if stage == "write":
            raise StoppedError

    with pytest.raises(StoppedError):
        import_file(log, "payments", path, clock=clock, progress=stop)
    with pytest.raises(InputError) as refused:
        import_file(
            log, "payments", path, clock=clock, options=ImportOptions(available_at=AvailableAt.parse("event_time+1h"))
        )
    assert refused.value.code == "HR-0428"
    assert import_file(log, "payments", path, clock=clock).resumed_from == 2


def test_an_import_that_ended_between_its_seal_and_its_record_is_recorded_by_the_next_call(log, clock, tmp_path):
    path = parquet(tmp_path)
    first = import_file(log, "payments", path, clock=clock)
    ledger = next(s for s in log.topics() if s.topic.name == "headrace.imports").partitions[0].partition
    rows = pa.Table.from_batches(list(log.read(ledger, 0)))
    log.drop("headrace.imports")
    again = log.declare(IMPORTS)
    begun = rows.slice(0, 1).select(rows.column_names[4:]).combine_chunks().to_batches()[0]
    log.append([Append(partition=again.partitions[0].partition, rows=begun)])
    report = import_file(log, "payments", path, clock=clock)
    assert (report.taken, report.import_id, report.resumed_from) == (first.taken, first.import_id, 4)
    with pytest.raises(UsageError):
        import_file(log, "payments", path, clock=clock)


def test_a_topic_without_event_time_needs_a_column(clock, tmp_path):
    log = MemoryLog(clock=clock)
    log.declare(Topic("payments", key="id", fields={"id": types.int64}))
    path = tmp_path / "a.csv"
    path.write_text("id,seen\n1,2026-05-01T00:00:00Z\n2,\n")
    error = assert_refused(log, clock, path, "HR-0425", "names no event_time")
    assert "--available-at" in error.hint
    by_column = ImportOptions(available_at=AvailableAt(column="seen"))
    assert_refused(log, clock, path, "HR-0406", "row 2, column 'seen': missing or null", by_column)
    path.write_text("id,seen\n1,2026-05-01T00:00:00Z\n")
    import_file(log, "payments", path, clock=clock, options=by_column)
    assert imported(log)[0]["_event_time"].isoformat() == "2026-05-01T00:00:00+00:00"


@pytest.mark.parametrize("write", ["parquet", "csv", "ndjson"])
def test_digits_beyond_the_scale_are_rounded_only_where_asked(log, clock, tmp_path, write):
    path = tmp_path / f"a.{write}"
    amounts = [85.64999999999999, 0.125, 0.135, 7.25, None]  # 0.125 and 0.135 are ties, to even
    if write == "parquet":
        pq.write_table(table([*ROWS, (5, "z", 5, None, None, None, None)], amount=pa.array(amounts)), path)
    else:
        events = [{"id": i, "customer": "a", "at": iso(at(i)), "amount": a} for i, a in enumerate(amounts)]
        lines = [json.dumps(e) for e in events]
        if write == "csv":
            lines = ["id,customer,at,amount"]
            lines += [",".join("" if v is None else str(v) for v in e.values()) for e in events]
        path.write_text("\n".join(lines) + "\n")
    assert_refused(log, clock, path, "HR-0402", "row 1, field 'amount'")
    report = import_file(log, "payments", path, clock=clock, options=ImportOptions(round=("amount",)))
    assert (report.taken, report.rounded) == (5, 3)
    seen = sorted(str(row["amount"]) for row in imported(log))
    assert seen == sorted(["85.65", "0.12", "0.14", "7.25", "None"])


def test_only_a_decimal_field_can_be_rounded(log, clock, tmp_path):
    assert_refused(log, clock, parquet(tmp_path), "HR-0427", "no decimal field 'rate'", ImportOptions(round=("rate",)))


def test_zeros_and_ones_of_a_file_are_booleans(log, clock, tmp_path):
    path = parquet(tmp_path, web=pa.array([0, 1, None, 1], pa.int8()))
    import_file(log, "payments", path, clock=clock)
    assert {row["id"]: row["web"] for row in imported(log)} == {3: False, 1: True, 2: None, 4: True}
    two = tmp_path / "two"
    two.mkdir()
    wrong = parquet(two, web=pa.array([0, 2, None, 1], pa.int8()))
    with pytest.raises(SchemaError) as refused:
        import_file(log, "payments", wrong, clock=clock)
    assert (refused.value.code, refused.value.field) == ("HR-0401", "web")


def test_an_empty_file_is_an_empty_import(log, clock, tmp_path):
    for path in (parquet(tmp_path, ROWS).parent / "none.parquet", tmp_path / "none.ndjson"):
        if path.suffix == ".parquet":
            pq.write_table(table().slice(0, 0), path)
        else:
            path.write_bytes(b"")
        report = import_file(log, "payments", path, clock=clock)
        assert (report.rows, report.taken, report.left_out) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("event_time", AvailableAt()),
        ("event_time+90s", AvailableAt(delay=types.Duration.parse("90s"))),
        ("column:seen at", AvailableAt(column="seen at")),
    ],
)
def test_the_rule_reads_back_as_it_is_written(text, rule):
    assert AvailableAt.parse(text) == rule == AvailableAt.parse(str(rule))


@pytest.mark.parametrize("text", ["", "column:", "event_time-1h", "at"])
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(UsageError) as refused:
        AvailableAt.parse(text)
    assert refused.value.code == "HR-0427"


def test_schema_errors_of_files_carry_their_facts(log, clock, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,customer,at,amount\n1,a,2026-05-01T00:00:00Z,1\n2,a,2026-05-01T00:00:00Z,1.001\n")
    with pytest.raises(SchemaError) as refused:
        import_file(log, "payments", path, clock=clock)
    assert (refused.value.row, refused.value.field, refused.value.topic) == (2, "amount", "payments")
