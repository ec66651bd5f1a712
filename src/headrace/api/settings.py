"""What a server allows, in one place: each limit with its unit and its reason. Frozen."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """json_bytes_max: of one JSON body; decoding a mebibyte holds the interpreter for some 10 ms, and decisions wait.
    bulk_bytes_max: of NDJSON and Arrow bodies, which are decoded in pieces beside the loop. buffered_bytes_max: of all
    bodies that are being received at once, so that many slow senders cannot fill the memory.

    lane_waiting_max: requests that wait for one decision; beyond, 503 at once. At 2,000 a second this is a quarter of a
    second, more than any budget. lane_batch_max: requests that share one commit. reads_waiting_max,
    appends_waiting_max: calls of the other endpoints that wait for their thread, which are fewer so that decisions come
    first. keys_max: entities of one batch read.

    head_bytes_max: of a request's line and headers. head_seconds_max, body_seconds_max, answer_seconds_max: how long a
    peer may take to send the head, the whole request, to take the answer. idle_seconds_max: between two requests of a
    connection; load balancers keep theirs for 60 s. connections_max: open at once.
    stop_seconds_max: how long accepted requests may take after a stop was asked for.

    sample_share: of the decisions, recomputed by a process beside the server, which `headrace serve` has at 0.01; 0:
    none, and no process. sample_seconds: between two of its looks, at least. checkpoint_seconds: between two times
    that a process beside the server writes checkpoints, which `headrace serve` has at 300: a takeover then reads what
    came in five minutes, 300,000 events at 1,000 a second; 0: only at the end.
    """

    json_bytes_max: int = MIB
    bulk_bytes_max: int = 16 * MIB
    buffered_bytes_max: int = 128 * MIB
    lane_waiting_max: int = 512
    lane_batch_max: int = 64
    reads_waiting_max: int = 16
    appends_waiting_max: int = 16
    keys_max: int = 1_000
    head_bytes_max: int = 16_384
    head_seconds_max: float = 10.0
    body_seconds_max: float = 30.0
    answer_seconds_max: float = 120.0
    idle_seconds_max: int = 75
    connections_max: int = 4_096
    stop_seconds_max: int = 20
    sample_share: float = 0.0
    sample_seconds: float = 10.0
    checkpoint_seconds: float = 0.0
