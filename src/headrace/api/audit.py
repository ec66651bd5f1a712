"""The audit topic: who changed what of the server, and when. Touches: the log through its port.

Changes of definitions are events of `headrace.catalog` already; this topic holds what is not in it. Nothing in headrace
changes or deletes its events.
"""

from __future__ import annotations

from headrace.core import schema
from headrace.core.times import Instant
from headrace.log.define import Topic
from headrace.log.port import Append, Log

TOPIC = Topic(
    "headrace.audit",
    key="subject",
    event_time="at",
    fields={
        "at": schema.field(schema.timestamp, required=True),
        "actor": schema.field(schema.string, required=True),
        "action": schema.field(schema.string, required=True),
        "subject": schema.field(schema.string, required=True),
        "detail": schema.string,
    },
    description="Changes of tokens, and servers that were opened to others.",
)


def record(log: Log, *, at: Instant, actor: str, action: str, subject: str, detail: str = "") -> None:
    """Append one change, durably. actor: the machine's user, or a token's id. action: noun and verb, as in
    "token created"."""
    partition = log.declare(TOPIC).partitions[0].partition
    log.append([Append(partition=partition, rows=((int(at), actor, action, subject, detail or None),))])
