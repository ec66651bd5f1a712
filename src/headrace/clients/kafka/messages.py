"""What is known of a topic before anything is sent to it, and what a poll found. Frozen, pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headrace.clients.kafka.port import Record
from headrace.core.times import Duration

LINGER = Duration.parse("5ms")  # that a record waits for others, where nobody says otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """cluster_id, topic_id: as Kafka gives them, anew for each that is made. partitions: how many it has.
    record_bytes_max: the largest record it takes."""

    cluster_id: str
    topic_id: str
    partitions: int
    record_bytes_max: int


class Polled(NamedTuple):
    """records: with their partitions. ends: of partitions whose end was reached behind them, the offset of it."""

    records: Sequence[tuple[int, Record]]
    ends: Mapping[int, int]
