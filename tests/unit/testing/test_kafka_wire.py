"""Kafka's Metadata answer: decoded, and told from what is none. No JVM."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.times import Duration
from headrace.testing.kafka.plan import ClusterView, PartitionView
from headrace.testing.kafka.wire import WireError, ask, cluster_view, kafka_uuid, metadata_request

SECOND = Duration.parse("1s")


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def string(text: str | None) -> bytes:
    return varint(0) if text is None else varint(len(text.encode()) + 1) + text.encode()


def array(items: Sequence[bytes]) -> bytes:
    return varint(len(items) + 1) + b"".join(items)


def ints(values: Sequence[int]) -> bytes:
    return array([struct.pack(">i", value) for value in values])


def encoded(view: ClusterView) -> bytes:
    """What a broker would send, by the protocol's text; an unknown tagged field here and there."""
    tagged = varint(1) + varint(9) + varint(2) + b"xx"
    topics: dict[str, list[bytes]] = {}
    for one in view.partitions:
        part = struct.pack(">hiii", 0, one.index, one.leader, 5) + ints(one.replicas) + ints(one.in_sync) + ints([])
        topics.setdefault(one.topic, []).append(part + b"\0")
    brokers = [
        struct.pack(">i", id) + string("127.0.0.1") + struct.pack(">i", 20000) + string(None) + tagged
        for id in sorted(view.brokers)
    ]
    return (
        struct.pack(">i", 7) + b"\0" + struct.pack(">i", 0) + array(brokers) + string(view.cluster_id)
        + struct.pack(">i", 1)
        + array([
            struct.pack(">h", 0) + string(name) + bytes(16) + b"\0" + array(parts) + struct.pack(">i", -1) + tagged
            for name, parts in topics.items()
        ])
        + b"\0"
    )  # fmt: skip


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
nodes = st.lists(st.integers(-1, 2**31 - 1), max_size=4).map(tuple)
partitions = st.builds(
    PartitionView, topic=names, index=st.integers(0, 9), leader=st.integers(-1, 9), replicas=nodes, in_sync=nodes
)
views = st.builds(
    ClusterView,
    cluster_id=names,
    brokers=st.frozensets(st.integers(0, 99), max_size=200),
    partitions=st.lists(partitions, max_size=5).map(lambda found: tuple(sorted(found, key=lambda one: one.topic))),
)


@given(views)
def test_an_answer_is_read_as_it_was_written(view: ClusterView) -> None:
    assert cluster_view(encoded(view)) == view


@given(views, st.data())
def test_an_answer_that_ends_early_is_none(view: ClusterView, data: st.DataObject) -> None:
    whole = encoded(view)
    with pytest.raises(WireError):
        cluster_view(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_none(raw: bytes) -> None:
    for answer in (raw, struct.pack(">i", 7) + b"\0" + raw):
        try:
            cluster_view(answer)
        except WireError:
            pass


def test_an_answer_to_another_request_is_none() -> None:
    with pytest.raises(WireError):
        cluster_view(struct.pack(">i", 8) + b"\0" * 40)


def test_a_uuid_is_written_as_kafka_writes_it() -> None:
    assert kafka_uuid(bytes(16)) == "A" * 22
    assert kafka_uuid(b"\xff" * 16) == "_" * 21 + "w"


@contextmanager
def answering(*, answer: bytes) -> Iterator[int]:
    """A server of one connection, which sends this, whatever it is asked; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(len(metadata_request()), socket.MSG_WAITALL)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_a_broker_is_asked() -> None:
    view = ClusterView(cluster_id="c", brokers=frozenset({1, 3}), partitions=())
    whole = encoded(view)
    with answering(answer=struct.pack(">i", len(whole)) + whole) as port:
        assert ask(port, timeout=SECOND) == view


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\0", b"\xff\xff\xff\xff", struct.pack(">i", 100) + b"ab"],
)
def test_what_is_no_broker_gives_no_answer(answer: bytes) -> None:
    with answering(answer=answer) as port:
        assert ask(port, timeout=SECOND) is None


def test_nobody_gives_no_answer() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it meanwhile
        assert ask(held.getsockname()[1], timeout=SECOND) is None


def test_silence_is_no_answer_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert ask(server.getsockname()[1], timeout=Duration.parse("50ms")) is None
