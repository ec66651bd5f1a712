"""Names of a server's series that others than Prometheus read, too. Pure."""

from __future__ import annotations

import hashlib

SERVING = "headrace_serving"
WAITING = "headrace_queue_waiting"
SAMPLED = "headrace_sampler_records"  # Prometheus puts _total behind a counter's
LAST_LOOK = "headrace_sampler_last_look_timestamp_seconds"
PERIOD = "headrace_sampler_period_seconds"
LOOK_CPU = "headrace_sampler_look_cpu_seconds"


def versions_digest(text: str) -> str:
    """A version set's name in a label, from its text: 64 bits, as nobody forges it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


PARTITIONS = "headrace_partitions"
STUCK = "headrace_stable_offset_stuck_seconds"
OWNED = "headrace_partitions_owned"
HELD = "headrace_views_held"
VOID = "headrace_records_void"
CLAIMS_LOST = "headrace_claims_lost"
