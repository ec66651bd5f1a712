"""Derived topics: the same events in partitions of another key. Frozen, pure.

The one idea: a derived topic is a topic. Views, decisions and consumers read it like any other; only who writes it, and
what its rows inherit, is another matter (stream/plan.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.errors import DefinitionError
from headrace.core.times import Duration
from headrace.log.define import Clock, Derivation, Payload, Topic


def derived_topic(
    name: str,
    *,
    of: Topic,
    key: str,
    partitions: int | None = None,
    retention: str | Duration | None = None,
    payload: Payload | str | None = None,
    owner: str = "",
    tags: Sequence[str] = (),
    protected: bool = True,
    description: str = "",
) -> Topic:
    """The events of `of` in partitions of another key, with its fields, its id and its rules of time.

    key: one of its fields; events where that is null are not carried. partitions, retention, payload: the source's by
    default. Raises: DefinitionError HR-0106 (no such field), HR-0107, HR-0108 (it cannot be a key), HR-0361 (`of` is
    derived itself).
    """
    if of.derivation is not None:
        raise DefinitionError(
            "HR-0361",
            f"topic {name!r} is derived of {of.name!r}, which is derived itself",
            detail="its events would name positions that are not those of the events",
            hint=f"derive it of {of.derivation.of!r}",
            topic=name,
        )
    return Topic(
        name,
        key=key,
        fields={field.name: field for field in of.schema},
        id=of.id,
        event_time=of.event_time,
        partitions=of.partitions if partitions is None else partitions,
        max_late=of.max_late,
        max_ahead=of.max_ahead,
        dedup=of.dedup,
        skew=of.skew,
        retention=of.retention if retention is None else retention,
        clock=Clock(of.clock),
        payload=of.payload if payload is None else payload,
        owner=owner,
        tags=tags,
        protected=protected,
        derivation=Derivation(of=of.name),
        description=description,
    )
