"""Which changes of a topic keep what is stored of it. Pure."""

from __future__ import annotations

from headrace.core.errors import LogError
from headrace.log.define import Topic


def refuse_change(old: Topic, new: Topic) -> None:
    """Raises: LogError HR-0310 where the new definition would give stored rows another meaning."""
    for what, was, wanted in (
        ("key", old.key, new.key),
        ("id", old.id, new.id),
        ("event_time", old.event_time, new.event_time),
        ("clock", old.clock.value, new.clock.value),
        ("payload", old.payload.value, new.payload.value),
        ("derivation", _of(old), _of(new)),
    ):
        if was != wanted:
            raise _refused(old, f"{what}: expected {was!r} as stored, seen {wanted!r}")
    if new.partitions < old.partitions:
        raise _refused(old, f"partitions: expected at least {old.partitions}, seen {new.partitions}")
    for field in old.schema:
        if field.name not in new.schema:
            raise _refused(old, f"field {field.name!r}: expected {field.type} as stored, seen no such field")
        if new.schema[field.name].type != field.type:
            raise _refused(
                old, f"field {field.name!r}: expected {field.type} as stored, seen {new.schema[field.name].type}"
            )
    for field in new.schema:
        if field.name not in old.schema and field.required:
            raise _refused(old, f"field {field.name!r}: a field added later is null before, so it cannot be required")


def _of(topic: Topic) -> str | None:
    return None if topic.derivation is None else topic.derivation.of


def _refused(topic: Topic, detail: str) -> LogError:
    return LogError(
        "HR-0310",
        f"topic {topic.name!r} cannot be changed like this",
        detail=detail,
        hint="declare a topic of another name, or drop this one and its rows first",
        topic=topic.name,
    )
