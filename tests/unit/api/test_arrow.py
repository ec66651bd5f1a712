"""Arrow streams: plain columns are taken; what lets a small body stand for a huge table is refused before it costs."""

from __future__ import annotations

import pyarrow as pa
import pytest

import headrace as hr
from headrace.api.arrow import BATCHES_MAX, arrow_of
from headrace.api.bodies import EVENTS_MAX
from headrace.core.errors import InputError
from headrace.testing.http_bodies import broken_bytes

VISITS = hr.Topic("visits", key="page", fields={"page": hr.string, "count": hr.int64, "amount": hr.decimal(8, 2)})
LARGE = "x" * 100_000


def stream(table: pa.Table, compression: str | None = None, *, rows: int = 2) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=rows)
    made: bytes = sink.getvalue().to_pybytes()
    return made


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.binary()])
def test_plain_columns_are_taken(text: pa.DataType) -> None:
    pages = pa.array(["a", "b", "c"]).cast(text)
    table = pa.table({"page": pages, "count": pa.array([1, None, 3], pa.int32()), "amount": ["1.50", None, "-2"]})
    rows = arrow_of(VISITS, stream(table)).to_pylist()
    assert [row["page"] for row in rows] == ["a", "b", "c"]
    assert [row["count"] for row in rows] == [1, None, 3]
    assert [str(row["amount"]) for row in rows] == ["1.50", "None", "-2.00"]


def test_an_empty_stream_is_no_rows() -> None:
    table = pa.table({"page": pa.array([], pa.string())})
    assert arrow_of(VISITS, stream(table)).num_rows == 0


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_buffers_are_refused_unread(compression: str) -> None:
    body = stream(pa.table({"page": [LARGE] * 500}), compression)
    assert len(body) < 1_500_000
    with pytest.raises(InputError, match="compressed"):
        arrow_of(VISITS, body)


@pytest.mark.parametrize(
    "pages",
    [
        pa.array([LARGE] * 1_000).dictionary_encode(),
        pa.array([LARGE] * 10).cast(pa.string_view()),
        pa.RunEndEncodedArray.from_arrays([1_000], [LARGE]),
        pa.array([["a"], ["b"]]),
        pa.array([{"a": 1}]),
        pa.array([None], pa.decimal128(8, 60)),  # Arrow's cast of such a scale reads memory that is not its own
    ],
)
def test_columns_that_stand_for_more_than_they_hold_are_refused(pages: pa.Array) -> None:
    with pytest.raises(InputError, match="expected a plain column") as refused:
        arrow_of(VISITS, stream(pa.table({"page": pages})))
    assert refused.value.facts["field"] == "page"


def test_more_rows_than_a_call_may_bring_are_refused() -> None:
    with pytest.raises(InputError, match="too many events"):
        arrow_of(VISITS, stream(pa.table({"count": pa.nulls(EVENTS_MAX + 1)}), rows=EVENTS_MAX + 1))


def test_more_batches_than_a_stream_may_have_are_refused() -> None:
    with pytest.raises(InputError, match="too many batches"):
        arrow_of(VISITS, stream(pa.table({"count": list(range(BATCHES_MAX + 1))}), rows=1))


@pytest.mark.parametrize(
    "body", [b"", b"\x00" * 8, b"\xff\xff\xff\xff\x00\x00\x00\x00", b"ARROW1\x00\x00", b"a" * 1_000]
)
def test_what_is_no_stream_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        arrow_of(VISITS, body)


def test_broken_streams_are_refused_or_taken_whole() -> None:
    """Of columns of each kind. A first message that is no schema, and a decimal of a scale that no writer makes, once
    ended the process."""
    table = pa.table(
        {
            "page": pa.array([b"a", b"b", b"c"], pa.large_binary()),
            "count": pa.array([1, None, 3], pa.int16()),
            "amount": pa.array([None, "1.50", "-2"]).cast(pa.decimal128(8, 2)),
        }
    )
    taken = 0
    for body in broken_bytes(stream(table), seed=5, count=3_000):
        try:
            taken += arrow_of(VISITS, body).num_rows <= 3
        except InputError as refused:
            assert refused.message
    assert 0 < taken < 1_500
