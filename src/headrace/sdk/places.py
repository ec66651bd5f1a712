"""Whether an offset that was kept can be gone on from. Pure."""

from __future__ import annotations

from headrace.clients.kafka.port import Span
from headrace.core.errors import LogError, StateError


def recreated(topic: str, group: str, stored: str, found: str) -> StateError:
    """HR-0436."""
    return StateError(
        "HR-0436",
        f"topic {topic!r} is not the one that group {group!r} has read",
        detail=f"its offsets are of topic id {stored}, the cluster has {found}: it was made anew",
        hint="use another group's name, or delete the group's offsets, when it is clear that the new topic is meant",
        topic=topic,
        group=group,
    )


def check_inside(place: str, offset: int, span: Span) -> None:
    """Raises: LogError HR-0303, HR-0347."""
    if offset < span.start:
        raise LogError(
            "HR-0303",
            f"{place}: offset {offset:,} is gone",
            detail=f"retention keeps records from offset {span.start:,}",
            hint="what lay between was never handled; go on with another group, or from the start by intention",
            start=span.start,
        )
    if offset > span.high:
        raise LogError(
            "HR-0347",
            f"partition {place} ends at {span.high:,}, offset {offset:,} was read of it",
            hint="find out what was lost before anything goes on from there",
            end=span.high,
        )
