"""Asks a broker what it sees, by Kafka's own Metadata request (key 3, version 12), so that nothing needs a client's
library to know that a cluster is ready. Touches: one connection to 127.0.0.1.

The encoding is Kafka's flexible one: lengths are unsigned varints and one too large, null is 0, each structure ends
with tagged fields. https://kafka.apache.org/protocol.html
"""

from __future__ import annotations

import base64
import socket
import struct
import time
from collections.abc import Callable
from typing import TypeVar

from headrace.core.times import Duration
from headrace.testing.kafka.plan import ClusterView, PartitionView

_METADATA, _VERSION, _CORRELATION = 3, 12, 7
# Some 10^5 partitions. What is no broker sends its own bytes as a length.
ANSWER_BYTES_MAX = 16 << 20

_Item = TypeVar("_Item")


class WireError(Exception):
    """What answered speaks something else."""


def ask(port: int, *, timeout: Duration) -> ClusterView | None:
    """The cluster as the broker on this port of 127.0.0.1 sees it; None where nothing answers in time, or no broker."""
    seconds = timeout.micros / 1e6
    end = time.monotonic() + seconds
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            connection.sendall(metadata_request())
            (size,) = struct.unpack(">i", _received(connection, 4, end))
            if not 0 < size <= ANSWER_BYTES_MAX:
                return None
            return cluster_view(_received(connection, size, end))
    except (OSError, WireError):
        return None


def metadata_request() -> bytes:
    """About every topic, creating none."""
    header = struct.pack(">hhih", _METADATA, _VERSION, _CORRELATION, 8) + b"headrace" + b"\0"
    body = b"\0" + b"\0" + b"\0" + b"\0"  # all topics, no creation, no authorized operations, no tagged fields
    return struct.pack(">i", len(header) + len(body)) + header + body


def cluster_view(answer: bytes) -> ClusterView:
    """The answer to `metadata_request`, its length left out. Raises: WireError."""
    reader = _Reader(answer)
    if reader.int32() != _CORRELATION:
        raise WireError("an answer to another request")
    reader.tags()
    reader.int32()  # throttle time
    brokers = frozenset(reader.array(_broker))
    cluster_id = reader.string()
    reader.int32()  # the controller: in KRaft any broker is named
    topics = reader.array(_topic)
    reader.tags()
    return ClusterView(
        cluster_id=cluster_id, brokers=brokers, partitions=tuple(one for partitions in topics for one in partitions)
    )


def kafka_uuid(raw: bytes) -> str:
    """16 bytes as Kafka writes a UUID: 22 characters of URL-safe base64, without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _received(connection: socket.socket, size: int, end: float) -> bytes:
    found = bytearray()
    while len(found) < size:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(size - len(found))
        if not part:
            raise WireError("the connection ended early")
        found += part
    return bytes(found)


def _broker(reader: _Reader) -> int:
    id = reader.int32()
    reader.string()  # host
    reader.int32()  # port
    reader.string()  # rack
    reader.tags()
    return id


def _topic(reader: _Reader) -> list[PartitionView]:
    reader.int16()  # error
    name = reader.string()
    reader.take(16)  # topic id
    reader.take(1)  # whether it is internal
    partitions = reader.array(lambda inner: _partition(inner, name))
    reader.int32()  # authorized operations
    reader.tags()
    return partitions


def _partition(reader: _Reader, topic: str) -> PartitionView:
    reader.int16()  # error; without a leader the leader is -1 as well
    index, leader = reader.int32(), reader.int32()
    reader.int32()  # leader epoch
    replicas, in_sync = (tuple(reader.array(_Reader.int32)) for _ in range(2))
    reader.array(_Reader.int32)  # offline replicas
    reader.tags()
    return PartitionView(topic=topic, index=index, leader=leader, replicas=replicas, in_sync=in_sync)


class _Reader:
    """Bytes from the front. Raises: WireError where they end too early or make no sense."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def take(self, count: int) -> bytes:
        if count > len(self._raw) - self._at:
            raise WireError("the answer ends early")
        self._at += count
        return self._raw[self._at - count : self._at]

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big", signed=True)

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise WireError("a number of more than 35 bits")

    def string(self) -> str:
        """Null is the empty string."""
        try:
            return self.take(max(0, self.varint() - 1)).decode()
        except UnicodeDecodeError as error:
            raise WireError("text that is not UTF-8") from error

    def array(self, item: Callable[[_Reader], _Item]) -> list[_Item]:
        return [item(self) for _ in range(self.varint() - 1)]

    def tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.take(self.varint())
